//! A deployment: gates before it, the command, a look at the shop after it, and the way back.

use std::ffi::OsString;
use std::fmt::Write;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::VerifyLevel;
use checklist::{Auditor, Check, Context, Finding, ItemReport, Outcome, Risk, deployment_gates};
use chrono::{DateTime, TimeDelta, Utc};
use db_maint::mode::{FlagFile, MaintenanceGuard, MaintenanceSwitch, Notice};
use health_probe::deployment::{Advice, DeploymentOptions, Sample, watch};
use health_probe::{Clock, Watch};
use serde::Serialize;
use tokio::sync::watch::Receiver;

use crate::checklist_desk::ours;
use crate::crew::Crew;
use crate::shop_plan::DeployPlan;

/// What is wanted of a deployment.
#[derive(Debug)]
#[non_exhaustive]
pub struct Request {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// How the shop goes back; run by the shell.
    pub rollback: Option<String>,
    /// Gates that are passed over, and why.
    pub skip: Vec<String>,
    /// Why.
    pub reason: String,
    /// Whether the shop is closed while the command runs.
    pub maintenance: bool,
    /// How long the command may take.
    pub limit: Duration,
}

impl Request {
    /// That command, with an hour's time.
    pub fn new(command: Vec<OsString>) -> Self {
        let (rollback, skip, reason) = (None, Vec::new(), String::new());
        Self { command, rollback, skip, reason, maintenance: false, limit: Duration::from_secs(3600) }
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// A gate was closed: the command was not run.
    Refused,
    /// It stays.
    Kept,
    /// It stays, and too little was seen to say that it should.
    Unknown,
    /// It went back, and the shop is as it was.
    RolledBack,
    /// It was to go back and there is no way, or the way back failed, or the shop is not as it was.
    Broken,
}

/// What happened, with times.
#[derive(Debug, Serialize)]
pub struct Transcript {
    /// The command.
    pub command: String,
    /// How it ended.
    pub ending: Option<Ending>,
    /// Each step: when, and what.
    pub steps: Vec<(DateTime<Utc>, String)>,
    #[serde(skip)]
    heard: fn(&str),
}

impl Transcript {
    fn new(command: &[OsString], heard: fn(&str)) -> Self {
        let command = redacted(&command.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" "));
        Self { command, ending: None, steps: Vec::new(), heard }
    }

    fn say(&mut self, text: impl Into<String>) {
        let text = text.into();
        (self.heard)(&text);
        self.steps.push((Utc::now(), text));
    }

    fn end(mut self, ending: Ending, text: impl Into<String>) -> Self {
        self.say(text);
        self.ending = Some(ending);
        self
    }

    /// For people.
    pub fn markdown(&self) -> String {
        let ending = match self.ending {
            Some(Ending::Refused) => "refused",
            Some(Ending::Kept) => "kept",
            Some(Ending::Unknown) => "kept, and nothing is known of it",
            Some(Ending::RolledBack) => "rolled back",
            Some(Ending::Broken) => "BROKEN",
            None => "not ended",
        };
        let mut out = format!(
            "# Deployment: {ending}\n\nCommand: `{}`\n\n| time (UTC) | what |\n|---|---|\n",
            self.command.replace('`', "'")
        );
        for (at, what) in &self.steps {
            let what = what.replace('|', "\\|").replace(['\n', '\r'], " ");
            // Writing to a string does not fail.
            let _ = writeln!(out, "| {} | {what} |", at.format("%F %T"));
        }
        out
    }
}

/// Deploys. `stop` ends what only looks; a command that runs is waited for.
///
/// # Errors
/// Where the configuration makes no sense. All that goes wrong later is in the transcript.
pub async fn deploy(
    crew: &Crew,
    plan: &DeployPlan,
    request: &Request,
    mut stop: Receiver<bool>,
    heard: fn(&str),
) -> checklist::Result<Transcript> {
    let mut t = Transcript::new(&request.command, heard);
    let watches: Vec<Arc<Watch>> = watches(crew)?.into_iter().map(Arc::new).collect();
    let switch = request.maintenance.then(|| switch(plan)).transpose()?;
    let options = DeploymentOptions {
        baseline_rounds: plan.rounds,
        first_rounds: plan.rounds,
        pause_s: plan.pause,
        watch_hours: plan.watch_hours,
        ..DeploymentOptions::default()
    };
    let pause = Duration::from_secs(plan.pause.into());
    let clock = Clock::system();

    let (baseline, healthy) = match watches.is_empty() {
        true => (Sample::default(), Finding::unknown("there is no probe, so nobody would see what breaks")),
        false => {
            t.say(format!("looking at {} probes, {} rounds", watches.len(), plan.rounds));
            tokio::select! {
                sample = Sample::take(&watches, plan.rounds, pause, &clock) => (sample, health(&watches, &clock).await),
                _ = stop.wait_for(|is| *is) => return Ok(t.end(Ending::Refused, "stopped before anything was done")),
            }
        }
    };
    let gates = gates(crew, plan, request, healthy, &mut t).await?;
    let closed: Vec<&ItemReport> = gates.iter().filter(|g| is_closed(g, plan, request)).collect();
    for gate in &gates {
        let word = match (closed.iter().any(|c| c.item.id == gate.item.id), request.skip.contains(&gate.item.id)) {
            (true, _) => "CLOSED",
            (false, true) => "passed over",
            (false, false) => gate.outcome.word(),
        };
        t.say(format!("gate {}: {word}: {}", gate.item.id, gate.reason));
    }
    if !request.skip.is_empty() {
        t.say(format!("passed over: {}, because {}", request.skip.join(", "), request.reason));
    }
    if let Some(first) = closed.first() {
        let text = format!("{} gates are closed, the first {}: the command was not run", closed.len(), first.item.id);
        return Ok(t.end(Ending::Refused, text));
    }
    if *stop.borrow() {
        return Ok(t.end(Ending::Refused, "stopped before the command was run"));
    }

    let guard = match &switch {
        None => None,
        Some(switch) => {
            let now = Utc::now();
            let until = now + TimeDelta::from_std(request.limit).unwrap_or(TimeDelta::hours(1));
            let notice = Notice::new("We are working on the shop and will be back soon.", until);
            match MaintenanceGuard::enter(Arc::clone(switch), &notice, now).await {
                Ok(guard) => {
                    t.say(format!("the shop is closed: {}", switch.location()));
                    Some(guard)
                }
                Err(e) => return Ok(t.end(Ending::Refused, format!("the shop could not be closed: {e}"))),
            }
        }
    };
    t.say("running the command");
    let failed = match run(&request.command, request.limit, &[]).await {
        Ran::Ended(status) if status.success() => None,
        Ran::Ended(status) => Some(format!("the command failed: {status}")),
        Ran::Broken(why) => Some(format!("the command failed: {why}")),
        // There is nothing to go back from.
        Ran::NotBegun(why) => {
            let opened = open_again(guard, &mut t).await;
            let ending = if opened { Ending::Refused } else { Ending::Broken };
            return Ok(t.end(ending, format!("nothing was run: {why}")));
        }
    };
    if let Some(why) = failed {
        // Closed until the way back has been gone: nobody orders from half a shop.
        return Ok(go_back(t, &why, &watches, &baseline, request, plan, &options, guard).await);
    }
    if !open_again(guard, &mut t).await {
        return Ok(t.end(Ending::Broken, "the command succeeded, and the shop is still closed: open it by hand"));
    }
    t.say("the command succeeded; watching");
    let mut last = None;
    let mut said = Vec::new();
    let report = watch(
        &watches,
        &baseline,
        &options,
        &clock,
        async {
            // Its sender lives as long as this.
            let _ = stop.wait_for(|is| *is).await;
        },
        |comparison| {
            if last != Some(comparison.advice) {
                let text = format!("{:?}: {}", comparison.advice, comparison.reasons.join("; "));
                heard(&text);
                said.push((Utc::now(), text));
            }
            last = Some(comparison.advice);
        },
    )
    .await;
    t.steps.extend(said);
    let why = report.comparison.reasons.join("; ");
    Ok(match report.comparison.advice {
        Advice::Keep => t.end(Ending::Kept, format!("kept after {} rounds: nothing is worse", report.rounds)),
        Advice::Watch => t.end(Ending::Kept, format!("kept after {} rounds, and worth a look: {why}", report.rounds)),
        Advice::Unknown => t.end(Ending::Unknown, format!("not rolled back, and not proved good: {why}")),
        Advice::RollBack => go_back(t, &why, &watches, &baseline, request, plan, &options, None).await,
    })
}

/// Opens the shop, where it was closed; whether it is open.
async fn open_again(guard: Option<MaintenanceGuard>, t: &mut Transcript) -> bool {
    let Some(guard) = guard else { return true };
    match guard.leave().await {
        Ok(()) => {
            t.say("the shop is open");
            true
        }
        Err(e) => {
            t.say(format!("the shop could not be opened: {e}"));
            false
        }
    }
}

/// A command without the passwords of its addresses and settings.
fn redacted(command: &str) -> String {
    let word = |word: &str| {
        if let Some((head, rest)) = word.split_once("://")
            && let Some((login, place)) = rest.split_once('@')
            && let Some((user, _)) = login.split_once(':')
        {
            return format!("{head}://{user}:…@{place}");
        }
        match word.split_once('=') {
            Some((name, _))
                if ["PASS", "TOKEN", "SECRET", "KEY"].iter().any(|w| name.to_ascii_uppercase().contains(w)) =>
            {
                format!("{name}=…")
            }
            _ => word.to_owned(),
        }
    };
    command.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[allow(clippy::too_many_arguments)]
async fn go_back(
    mut t: Transcript,
    why: &str,
    watches: &[Arc<Watch>],
    baseline: &Sample,
    request: &Request,
    plan: &DeployPlan,
    options: &DeploymentOptions,
    guard: Option<MaintenanceGuard>,
) -> Transcript {
    t.say(why);
    let Some(command) = request.rollback.as_ref().or(plan.rollback.as_ref()) else {
        return t.end(Ending::Broken, "there is no command that goes back: do it by hand, now");
    };
    t.say(format!("rolling back: {}", redacted(command)));
    let shell = [OsString::from("sh"), "-c".into(), command.into()];
    let gone = run(&shell, request.limit, &[("CARETAKER_REASON", why)]).await;
    let opened = open_again(guard, &mut t).await;
    match gone {
        Ran::Ended(status) if status.success() => {}
        Ran::Ended(status) => return t.end(Ending::Broken, format!("the way back failed: {status}")),
        Ran::Broken(e) | Ran::NotBegun(e) => return t.end(Ending::Broken, format!("the way back failed: {e}")),
    }
    if !opened {
        return t.end(Ending::Broken, "rolled back, and the shop is still closed: open it by hand");
    }
    let clock = Clock::system();
    let options = DeploymentOptions { watch_hours: 0, ..options.clone() };
    let report = watch(watches, baseline, &options, &clock, std::future::pending(), |_| {}).await;
    match report.comparison.advice {
        Advice::Keep | Advice::Watch => t.end(Ending::RolledBack, "rolled back: the shop is as it was before"),
        _ => {
            let why = report.comparison.reasons.join("; ");
            t.end(Ending::Broken, format!("rolled back, and the shop is NOT as it was before: {why}"))
        }
    }
}

/// A finding as a check of a gate.
#[derive(Debug)]
struct Seen {
    item: &'static str,
    finding: Finding,
}

#[async_trait]
impl Check for Seen {
    fn id(&self) -> &str {
        self.item
    }

    fn item(&self) -> &str {
        self.item
    }

    async fn run(&self, _: &Context) -> checklist::Result<Finding> {
        Ok(self.finding.clone())
    }
}

async fn gates(
    crew: &Crew,
    plan: &DeployPlan,
    request: &Request,
    healthy: Finding,
    t: &mut Transcript,
) -> checklist::Result<Vec<ItemReport>> {
    let now = Utc::now();
    let (critical, dependencies) = match request.skip.iter().any(|s| s == "deploy.no-critical") {
        true => (Finding::unknown("not looked at"), Finding::unknown("not looked at")),
        false => audited(crew, plan, now, t).await?,
    };
    // The others first: a backup takes long.
    let backup = match request.skip.iter().any(|s| s == "deploy.backup") {
        true => Finding::unknown("not looked at"),
        false => backup(crew, plan, now, t).await,
    };
    let seen = [
        ("deploy.backup", backup),
        ("deploy.healthy", healthy),
        ("deploy.no-critical", critical),
        ("deploy.dependencies", dependencies),
    ];
    let standing = crew.desk()?.ledger.entries().await?.standing();
    let checks = seen.into_iter().map(|(item, finding)| Arc::new(Seen { item, finding }) as Arc<dyn Check>);
    let auditor = Auditor::new(deployment_gates()).with_checks(checks.collect::<Vec<_>>());
    Ok(auditor.run("a deployment", &Context::at(now), &standing).await.items)
}

/// What has to be known to be good; the rest must not be known to be bad.
const REQUIRED: [&str; 3] = ["deploy.backup", "deploy.healthy", "deploy.no-critical"];

fn is_closed(gate: &ItemReport, plan: &DeployPlan, request: &Request) -> bool {
    let id = gate.item.id.as_str();
    if request.skip.iter().any(|s| s == id) {
        return false;
    }
    let required = REQUIRED.contains(&id) || plan.attested.iter().any(|a| a == id);
    match gate.outcome {
        Outcome::Fail => true,
        Outcome::Unknown => required,
        _ => false,
    }
}

/// No critical item of the checklist fails, and no known vulnerability is new: by the last audit, or by one now.
async fn audited(
    crew: &Crew,
    plan: &DeployPlan,
    now: DateTime<Utc>,
    t: &mut Transcript,
) -> checklist::Result<(Finding, Finding)> {
    let mut desk = crew.desk()?;
    let entries = desk.ledger.entries().await?;
    let fresh = entries.audits().next_back().filter(|a| now - a.at <= plan.audit_within.delta()).cloned();
    let (audit, entries) = match fresh {
        Some(audit) => (audit, entries),
        None => {
            t.say("auditing: the last audit is too old, or there is none");
            desk.audit(now).await?
        }
    };
    let audit = audit.as_of(now, &entries.standing());
    let grave = |i: &&ItemReport| i.item.risk == Risk::Critical && i.outcome == Outcome::Fail;
    let failing: Vec<&str> = audit.items.iter().filter(grave).map(|i| i.item.id.as_str()).collect();
    let unknown = audit.items.iter().filter(|i| i.item.risk == Risk::Critical && i.outcome == Outcome::Unknown).count();
    let known = audit.items.iter().any(|i| i.item.risk == Risk::Critical && i.outcome != Outcome::Unknown);
    let critical = match (failing.is_empty(), known) {
        (false, _) => Finding::fail(format!("{} fails", failing.join(", "))),
        (true, false) => {
            Finding::unknown("no critical item was looked at: name the site, the database or the source in [checklist]")
        }
        (true, true) => Finding::pass(format!(
            "no critical item fails, {unknown} are not known, by the audit of {}",
            audit.at.format("%F %H:%M")
        )),
    };
    let before = entries.audits().rev().find(|a| a.at < audit.at);
    let of =
        |audit: &checklist::Audit| audit.items.iter().find(|i| i.item.id == "upkeep.dependencies").map(|i| i.outcome);
    let dependencies = match (of(&audit), before.and_then(of)) {
        (Some(Outcome::Fail), Some(Outcome::Fail)) => Finding::warn("known vulnerabilities, as before"),
        (Some(Outcome::Fail), _) => Finding::fail("known vulnerabilities that were not there before"),
        (Some(outcome), _) if outcome.is_good() => Finding::pass("no known vulnerability"),
        _ => Finding::unknown("dependencies were not compared"),
    };
    Ok((critical, dependencies))
}

/// Every source has a verified backup that is new enough, or gets one now.
async fn backup(crew: &Crew, plan: &DeployPlan, now: DateTime<Utc>, t: &mut Transcript) -> Finding {
    if !crew.has_backups() {
        return Finding::unknown("there is no [[backup.source]] in the configuration");
    }
    let within = plan.backup_within.delta();
    match crew.older_than(within, now).await {
        Ok(old) if old.is_empty() => {
            return Finding::pass(format!(
                "every source has a verified backup of the last {} minutes",
                within.num_minutes()
            ));
        }
        Ok(old) => t.say(format!(
            "backing up: {} has none that is new enough",
            old.iter().map(|(s, _)| s.as_str()).collect::<Vec<_>>().join(", ")
        )),
        Err(e) => return Finding::fail(format!("the backups cannot be read: {e}")),
    }
    let done = match crew.back_up(None).await {
        Ok(done) => done,
        Err(e) => return Finding::fail(format!("the backup failed: {e}")),
    };
    if let Some((source, e)) = done.failed.first() {
        return Finding::fail(format!("{source} could not be backed up: {e}"));
    }
    if let Some(s) = done.snapshots.iter().find(|s| !s.manifest.is_complete()) {
        return Finding::fail(format!("the backup of {} is not complete", s.manifest.source.name));
    }
    let verified = match crew.verify(Some(&done.snapshots), VerifyLevel::Stored).await {
        Ok(verified) => verified,
        Err(e) => return Finding::fail(format!("the backup was taken and could not be verified: {e}")),
    };
    let sound = verified.iter().filter(|(_, r)| r.as_ref().is_ok_and(backup_core::VerifyReport::is_sound)).count();
    match sound {
        0 => Finding::fail("the backup was taken, and is not sound in any store"),
        n => Finding::pass(format!("taken now and verified in {n} of {} stores", verified.len())),
    }
}

async fn health(watches: &[Arc<Watch>], clock: &Clock) -> Finding {
    let looks = futures::future::join_all(watches.iter().map(|w| w.look_now(clock.now()))).await;
    let bad: Vec<String> = looks
        .iter()
        .filter(|l| l.judgement.verdict == health_probe::Verdict::Critical)
        .map(|l| format!("{}: {}", l.probe, l.judgement.reason()))
        .collect();
    let healthy = looks.iter().filter(|l| l.judgement.verdict.is_healthy()).count();
    match (bad.is_empty(), healthy) {
        (false, _) => Finding::fail(format!("critical before: {}", bad.join("; "))),
        (true, 0) => Finding::unknown("no probe is healthy, so what breaks would not be seen"),
        (true, n) => Finding::pass(format!("{n} of {} probes are healthy, none is critical", looks.len())),
    }
}

fn watches(crew: &Crew) -> checklist::Result<Vec<Watch>> {
    let theirs = |e: health_probe::Error| ours(&e, e.next_step());
    let mut file = crew.file().map_err(theirs)?;
    if !file.has_probes() {
        return Ok(Vec::new());
    }
    file.watches().map_err(theirs)
}

fn switch(plan: &DeployPlan) -> checklist::Result<Arc<dyn MaintenanceSwitch>> {
    let nothing = || {
        checklist::Error::new(checklist::ErrorKind::Config, "nothing says how the shop is closed")
            // A key in .env counts after a restart only, which is the command's own affair.
            .with_next_step("set flag_file in [deploy]")
    };
    Ok(Arc::new(FlagFile::new(plan.flag_file.as_ref().ok_or_else(nothing)?)))
}

/// What became of a command.
enum Ran {
    /// It ended by itself.
    Ended(ExitStatus),
    /// It was begun, and did not end by itself.
    Broken(String),
    /// It was never begun.
    NotBegun(String),
}

/// A command with all that it began: ended with the value, where this program is told to end at once.
struct Group(Option<rustix::process::Pid>);

impl Group {
    fn end(&mut self) {
        if let Some(group) = self.0.take() {
            // It may have ended by itself in between.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a command to its end; its output goes to stderr. One that takes too long is ended with all that it began.
async fn run(command: &[OsString], limit: Duration, environment: &[(&str, &str)]) -> Ran {
    let Some((program, arguments)) = command.split_first() else { return Ran::NotBegun("there is no command".into()) };
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        // So that Ctrl-C is this program's to act on, and a command is never left half way by it.
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => return Ran::NotBegun(format!("{} cannot be run: {e}", program.to_string_lossy())),
    };
    let mut group = Group(child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())));
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) => {
            // What it left running in the background is meant to run on.
            group.0 = None;
            Ran::Ended(status)
        }
        Ok(Err(e)) => Ran::Broken(e.to_string()),
        Err(_) => {
            group.end();
            // It is gone, or going.
            let _ = child.wait().await;
            Ran::Broken(format!("it did not end within {} s, and was ended", limit.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_command_are_not_shown() {
        let shown = redacted("psql postgres://u:geheim@h/db API_TOKEN=geheim x=1 https://h/p");
        assert_eq!(shown, "psql postgres://u:…@h/db API_TOKEN=… x=1 https://h/p");
    }
}
