#!/usr/bin/env node
// Takes the place of scripts/backup-database.js: backs the shop up now, verifies what was written, and says so.
//
//   node scripts/backup-database.js
//
// CARETAKER_URL and CARETAKER_TOKEN: ask the agent that runs there.
// Without them the tool is run: CARETAKER_AGENT (the program, `agent` on the path), CARETAKER_CONFIG (/etc/caretaker/caretaker.toml).
// CARETAKER_JOB: another job than `backup`.
//
// Exit codes are the tool's: 0 good, 1 findings, 2 usage or configuration, 3 it could not be done.
'use strict';

const { spawn } = require('node:child_process');

const job = process.env.CARETAKER_JOB || 'backup';

function told(run) {
  console.log(`${job}: ${run.end}: ${run.note}`);
  return { well: 0, findings: 1 }[run.end] ?? 3;
}

// Not `fetch`: that gives up after five minutes, and a backup may take hours.
function byAgent(url, token) {
  const address = new URL(`${url.replace(/\/+$/, '')}/api/jobs/${encodeURIComponent(job)}/run`);
  const { request } = require(address.protocol === 'https:' ? 'node:https' : 'node:http');
  return new Promise((resolve, reject) => {
    const asked = request(address, { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-length': 0 } }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (chunk) => { text += chunk; });
      answer.on('error', reject);
      answer.on('end', () => {
        try {
          if (answer.statusCode === 200) return resolve(told(JSON.parse(text).run));
          console.error(`${job}: the agent at ${address.origin} answers ${answer.statusCode}: ${text.trim()}`);
          resolve([401, 404].includes(answer.statusCode) ? 2 : 3);
        } catch (e) {
          reject(e);
        }
      });
    });
    asked.on('error', reject);
    asked.end();
  });
}

function byTool() {
  const program = process.env.CARETAKER_AGENT || 'agent';
  const config = process.env.CARETAKER_CONFIG || '/etc/caretaker/caretaker.toml';
  return new Promise((resolve) => {
    const child = spawn(program, ['--config', config, '--run', job, '--json'], { stdio: ['ignore', 'pipe', 'inherit'] });
    let said = '';
    child.stdout.on('data', (chunk) => { said += chunk; });
    child.on('error', (e) => {
      console.error(`${job}: ${program} cannot be run: ${e.message}`);
      resolve(3);
    });
    child.on('close', (code, signal) => {
      // A tool that was killed has not backed anything up, whatever it said before.
      if (signal) {
        console.error(`${job}: ${program} was ended by ${signal}`);
        return resolve(3);
      }
      const line = said.trim().split('\n').pop();
      if (!line) return resolve(code >= 1 && code <= 3 ? code : 3);
      try {
        resolve(Math.min(3, Math.max(code, told(JSON.parse(line)))));
      } catch (e) {
        console.error(`${job}: what ${program} said cannot be read: ${e.message}`);
        resolve(3);
      }
    });
  });
}

const { CARETAKER_URL: url, CARETAKER_TOKEN: token } = process.env;
(url && token ? byAgent(url, token) : byTool()).then(
  (code) => { process.exitCode = code; },
  (e) => {
    console.error(`${job}: ${e.message}${e.cause ? `: ${e.cause.message}` : ''}`);
    process.exitCode = 3;
  },
);
