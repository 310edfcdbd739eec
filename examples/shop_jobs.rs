//! The jobs of a shop, at the times of the guides or at its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::{DrillReport, Snapshot, VerifyLevel, VerifyReport};
use chrono::{NaiveTime, Weekday};
use db_maint::{JobEnd, JobReport, RunEnd, Severity, Stop};
use futures::FutureExt;

use crate::cli::Told;
use crate::crew::{Crew, Verified};
use crate::schedule::When;
use crate::scheduler::{Job, Outcome, Turn};
use crate::shop_plan::{JobTime, TierPlan};

/// The jobs that a configuration has something for.
///
/// Clean-up at 02:00, backup at 03:00, stock each hour, the whole of maintenance on Sunday at 04:00, tiers as often as they say, all backups
/// verified on Saturday at 05:00, a drill on Sunday at 06:00 where there are scratch places, an audit on Monday at 06:00.
///
/// # Errors
/// A time for a job that is not there.
pub fn jobs(crew: &Crew, times: &BTreeMap<String, JobTime>, stop: &Stop) -> Result<Vec<Job>, String> {
    let at = |hour| NaiveTime::from_hms_opt(hour, 0, 0).unwrap_or(NaiveTime::MIN);
    let (backups, database) = (crew.has_backups(), crew.maintenance.database.is_some());
    let has_policy = database && crew.maintenance.policy.is_some();
    let drills = backups && crew.backup.source.iter().any(|s| s.scratch.is_some());
    let mut all: Vec<Job> = Vec::new();
    let mut add = |name: &str, is_there: bool, when: When, make: &dyn Fn(When) -> Job| -> Result<(), String> {
        match (times.get(name), is_there) {
            (Some(JobTime::Off), _) | (None, false) => {}
            (Some(JobTime::At(_)), false) => {
                return Err(format!("{name}: there is nothing in the configuration for it to do"));
            }
            (Some(JobTime::At(when)), true) => all.push(make(*when)),
            (None, true) => all.push(make(when)),
        }
        Ok(())
    };
    macro_rules! job {
        ($name:literal, $is_there:expr, $when:expr, |$crew:ident, $turn:ident, $stop:ident| $work:expr) => {
            add($name, $is_there, $when, &|when| {
                let (crew, stop) = (Arc::new(crew.clone()), stop.clone());
                Job::new($name, when, move |$turn: Turn<'_>| {
                    let ($crew, $stop) = (Arc::clone(&crew), stop.clone());
                    async move {
                        let _ = &$stop;
                        $work
                    }
                    .boxed()
                })
            })?;
        };
    }
    job!("cleanup", has_policy, When::Daily(at(2)), |crew, turn, stop| {
        // Another database than that of the schedule has leases of its own.
        let lease = same_database(&crew, &turn).then_some(turn.lease);
        cleaned(crew.clean_up(lease, &stop).await, crew.maintenance.clean_up)
    });
    job!("backup", backups, When::Daily(at(3)), |crew, turn, stop| {
        let _ = turn;
        back_up(&crew, None).await
    });
    job!("stock", has_policy, When::Every(60), |crew, turn, stop| {
        let _ = turn;
        stock(&crew).await
    });
    job!("maintenance", database, When::Weekly(Weekday::Sun, at(4)), |crew, turn, stop| {
        let lease = same_database(&crew, &turn).then_some(turn.lease);
        let orphans = cleaned(crew.mend_orphans(lease, &stop).await, crew.maintenance.mend_orphans);
        both(orphans, inspect(&crew).await)
    });
    job!("verify", backups, When::Weekly(Weekday::Sat, at(5)), |crew, turn, stop| {
        let _ = turn;
        match crew.verify(None, VerifyLevel::Stored).await {
            Ok(verified) => sound(&verified),
            Err(e) => failed(&e),
        }
    });
    job!("drill", drills, When::Weekly(Weekday::Sun, at(6)), |crew, turn, stop| {
        let _ = turn;
        drill(&crew).await
    });
    job!("checklist", true, When::Weekly(Weekday::Mon, at(6)), |crew, turn, stop| audit(&crew, turn.now).await);
    for tier in &crew.backup.tier {
        let name = format!("tier {}", tier.name);
        add(&name, true, tier.when, &|when| {
            let (crew, tier) = (Arc::new(crew.clone()), Arc::new(tier.clone()));
            Job::new(name.clone(), when, move |_: Turn<'_>| {
                let (crew, tier) = (Arc::clone(&crew), Arc::clone(&tier));
                async move { back_up(&crew, Some(&tier)).await }.boxed()
            })
        })?;
    }
    let unknown = times
        .keys()
        .find(|name| !all.iter().any(|j| j.name() == *name) && !matches!(times.get(*name), Some(JobTime::Off)));
    match unknown {
        Some(name) => {
            let names: Vec<&str> = all.iter().map(Job::name).collect();
            Err(format!("agent.jobs: there is no job called {name:?}; there are: {}", names.join(", ")))
        }
        None => Ok(all),
    }
}

fn same_database(crew: &Crew, turn: &Turn<'_>) -> bool {
    crew.maintained().is_ok_and(|(engine, _)| engine.location() == turn.engine.location())
}

fn failed<E: Told>(e: &E) -> Outcome {
    Outcome::failed(e, e.next_step())
}

/// Backs up, and verifies what was just written: a backup that nobody looked at is none.
async fn back_up(crew: &Crew, tier: Option<&TierPlan>) -> Outcome {
    let done = match crew.back_up(tier).await {
        Ok(done) => done,
        Err(e) => return failed(&e),
    };
    let verified = match crew.verify(Some(&done.snapshots), VerifyLevel::Stored).await {
        Ok(verified) => sound(&verified),
        Err(e) => return failed(&e),
    };
    let names = |all: &[Snapshot]| {
        all.iter().map(|s| format!("{} {}", s.manifest.source.name, s.id)).collect::<Vec<_>>().join(", ")
    };
    let mut note = format!("taken: {}", names(&done.snapshots));
    for (source, e) in &done.failed {
        note += &format!("; {source} was NOT backed up: {e}");
    }
    for (store, why) in &done.without {
        note += &format!("; {store} did not get it: {why}");
    }
    // A source without a backup is a job that is not done, and is tried again.
    let outcome = match done.failed.is_empty() {
        true => Outcome::of(done.is_good(), note),
        false => Outcome { end: RunEnd::Failed, note },
    };
    both(outcome, verified)
}

fn sound(verified: &Verified) -> Outcome {
    let sound = verified.iter().filter(|(_, r)| r.as_ref().is_ok_and(VerifyReport::is_sound)).count();
    let line = |(store, r): &(String, Result<VerifyReport, Arc<backup_core::Error>>)| match r {
        Ok(r) => format!("{store}: {} snapshots verified, {} findings", r.snapshots.len(), r.findings.len()),
        Err(e) => format!("{store}: NOT verified: {e}"),
    };
    let end = match sound {
        // In no store is it known to be good: that is no backup, and is tried again.
        0 => RunEnd::Failed,
        n if n == verified.len() => RunEnd::Well,
        _ => RunEnd::Findings,
    };
    Outcome { end, note: verified.iter().map(line).collect::<Vec<_>>().join("; ") }
}

async fn drill(crew: &Crew) -> Outcome {
    let drilled = match crew.drill().await {
        Ok(drilled) => drilled,
        Err(e) => return failed(&e),
    };
    let passed = drilled.iter().all(|(_, r)| r.as_ref().is_ok_and(DrillReport::passed));
    let line = |(source, r): &(String, backup_core::Result<DrillReport>)| match r {
        Ok(r) if r.passed() => format!("{source}: restored, equal"),
        Ok(_) => format!("{source}: restored, and NOT as it should be"),
        Err(e) => format!("{source}: NOT restored: {e}"),
    };
    let note = drilled.iter().map(line).collect::<Vec<_>>().join("; ");
    match drilled.iter().any(|(_, r)| r.is_err()) {
        true => Outcome { end: RunEnd::Failed, note },
        false => Outcome::of(passed, note),
    }
}

fn cleaned(done: db_maint::Result<Vec<JobReport>>, applied: bool) -> Outcome {
    let reports = match done {
        Ok(reports) => reports,
        Err(e) => return failed(&e),
    };
    let line = |r: &JobReport| {
        let what = if applied { format!("{} of {} rows", r.changed, r.met) } else { format!("{} rows are due", r.met) };
        let bad = r.poison.len() as u64 + r.unchanged;
        let bad = if bad > 0 { format!(", {bad} could not be changed") } else { String::new() };
        format!("{}: {what}{bad}", r.rule)
    };
    let is_well = reports.iter().all(|r| r.poison.is_empty() && r.unchanged == 0);
    let note = reports.iter().map(line).collect::<Vec<_>>().join("; ");
    if reports.iter().any(|r| r.ended == JobEnd::Stopped) {
        // Not done: the next try goes on from there.
        return Outcome { end: RunEnd::Failed, note: format!("{note}; it was stopped before the end") };
    }
    Outcome::of(is_well, if note.is_empty() { "no rule asks for anything".into() } else { note })
}

async fn stock(crew: &Crew) -> Outcome {
    match crew.stock().await {
        Ok(None) => Outcome::of(true, "the policy has no [stock]"),
        Ok(Some(report)) => {
            let new: Vec<&str> = report.low.iter().filter(|l| l.is_new).map(|l| l.label.as_str()).collect();
            let note = match new.len() {
                0 => format!("{} are low, none of them newly", report.low.len()),
                _ => format!("newly low: {}", new.join(", ")),
            };
            Outcome::of(new.is_empty() && report.unknown.is_empty(), note)
        }
        Err(e) => failed(&e),
    }
}

async fn inspect(crew: &Crew) -> Outcome {
    match crew.inspect().await {
        Ok(inspection) => {
            let allow = |check: &str| crew.maintenance.allow.iter().any(|a| a == check);
            let found: Vec<String> = inspection
                .findings()
                .filter(|f| !allow(&f.check) && f.severity >= Severity::Warning)
                .map(|f| format!("{}: {}", f.object, f.summary))
                .collect();
            let blind = inspection.unknown().filter(|(check, _)| !allow(check)).count();
            let note = format!(
                "{} checks, {} findings, {blind} not known: {}",
                inspection.checks.len(),
                found.len(),
                found.join("; ")
            );
            Outcome::of(found.is_empty() && blind == 0, note.trim_end_matches(": "))
        }
        Err(e) => failed(&e),
    }
}

async fn audit(crew: &Crew, now: chrono::DateTime<chrono::Utc>) -> Outcome {
    match crew.audit(now).await {
        Ok(report) => {
            let fails = report.audit.items.iter().filter(|i| i.outcome == checklist::Outcome::Fail).count();
            let score =
                report.audit.score.map_or_else(String::new, |s| format!("{} of {} fulfilled, ", s.good, s.asked));
            // What has stood open for weeks is in the report; what became worse, or is nowhere seen, is told.
            let worse = report.changes.iter().filter(|c| c.before.is_good() && !c.now.is_good()).count();
            let seen = report.audit.score.is_some_and(|s| s.coverage() > 0.0);
            Outcome::of(
                worse == 0 && seen,
                format!("{score}{fails} fail, {worse} became worse, {} changed", report.changes.len()),
            )
        }
        Err(e) => failed(&e),
    }
}

/// The worse of two, with both notes.
fn both(a: Outcome, b: Outcome) -> Outcome {
    let rank = |end| match end {
        RunEnd::Well => 0,
        RunEnd::Findings => 1,
        _ => 2,
    };
    let end = if rank(a.end) >= rank(b.end) { a.end } else { b.end };
    Outcome { end, note: [a.note, b.note].into_iter().filter(|n| !n.is_empty()).collect::<Vec<_>>().join("; ") }
}
