#!/usr/bin/env php
<?php
// Takes the place of scripts/backup_db.php: backs the shop up now, verifies what was written, and says so.
//
//   php scripts/backup_db.php
//
// CARETAKER_URL and CARETAKER_TOKEN: ask the agent that runs there.
// Without them the tool is run: CARETAKER_AGENT (the program, `agent` on the path), CARETAKER_CONFIG (/etc/caretaker/caretaker.toml).
// CARETAKER_JOB: another job than `backup`.
//
// Exit codes are the tool's: 0 good, 1 findings, 2 usage or configuration, 3 it could not be done.
declare(strict_types=1);

if (PHP_SAPI !== 'cli') {
    http_response_code(404);
    exit;
}

$setting = fn (string $name, string $otherwise = ''): string => getenv($name) === false ? $otherwise : (string) getenv($name);
$job = $setting('CARETAKER_JOB', 'backup');

function complain(string $job, string $text): void
{
    fwrite(STDERR, "$job: $text\n");
}

function told(string $job, mixed $run): int
{
    if (!is_array($run) || !isset($run['end'], $run['note'])) {
        complain($job, 'what was answered is no run of a job');
        return 3;
    }
    echo "$job: {$run['end']}: {$run['note']}\n";
    return match ($run['end']) {
        'well' => 0,
        'findings' => 1,
        default => 3,
    };
}

function by_agent(string $job, string $url, string $token): int
{
    $address = rtrim($url, '/') . '/api/jobs/' . rawurlencode($job) . '/run';
    $context = stream_context_create(['http' => [
        'method' => 'POST',
        'header' => "Authorization: Bearer $token\r\nContent-Length: 0",
        'ignore_errors' => true,
        'timeout' => 4 * 3600,
    ]]);
    $text = @file_get_contents($address, false, $context);
    if ($text === false || !preg_match('~^HTTP/\S+ (\d+)~', $http_response_header[0] ?? '', $status)) {
        complain($job, "the agent does not answer: $url");
        return 3;
    }
    $answer = json_decode($text, true);
    if ($status[1] === '200') {
        return told($job, $answer['run'] ?? null);
    }
    complain($job, "the agent answers $status[1]: " . trim($text));
    return in_array($status[1], ['401', '404'], true) ? 2 : 3;
}

function by_tool(string $job, string $program, string $config): int
{
    // As a list: no shell reads it.
    $process = @proc_open([$program, '--config', $config, '--run', $job, '--json'], [['file', '/dev/null', 'r'], ['pipe', 'w'], STDERR], $pipes);
    if ($process === false) {
        complain($job, "$program cannot be run");
        return 3;
    }
    $said = trim((string) stream_get_contents($pipes[1]));
    fclose($pipes[1]);
    $status = proc_get_status($process);
    while ($status['running']) {
        usleep(20_000);
        $status = proc_get_status($process);
    }
    proc_close($process);
    // A tool that was killed has not backed anything up, whatever it said before.
    if ($status['signaled']) {
        complain($job, "$program was ended by signal {$status['termsig']}");
        return 3;
    }
    if ($said === '') {
        return in_array($status['exitcode'], [1, 2, 3], true) ? $status['exitcode'] : 3;
    }
    $lines = explode("\n", $said);
    return min(3, max($status['exitcode'], told($job, json_decode(end($lines), true))));
}

[$url, $token] = [$setting('CARETAKER_URL'), $setting('CARETAKER_TOKEN')];
exit($url !== '' && $token !== ''
    ? by_agent($job, $url, $token)
    : by_tool($job, $setting('CARETAKER_AGENT', 'agent'), $setting('CARETAKER_CONFIG', '/etc/caretaker/caretaker.toml')));
