//! Jobs at their times, on as many servers as there are, each time once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use db_maint::{Acquired, Engine, ErrorKind, Lease, Run, RunEnd, last_done, record_run};
use futures::future::{BoxFuture, join_all};
use tokio::sync::Mutex;

use crate::schedule::When;

/// What a job came to: how it ended, and what it did, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: RunEnd,
    /// What it did, or why it could not. Without secrets.
    pub note: String,
}

impl Outcome {
    /// Well, or with findings.
    pub fn of(is_well: bool, note: impl Into<String>) -> Self {
        Self { end: if is_well { RunEnd::Well } else { RunEnd::Findings }, note: note.into() }
    }

    /// It could not be done: an error with its cause and its next step.
    pub fn failed(error: &dyn std::error::Error, next: Option<&str>) -> Self {
        let mut note = error.to_string();
        let mut cause = error.source();
        while let Some(c) = cause {
            let text = c.to_string();
            if !note.contains(&text) {
                note = format!("{note}: {text}");
            }
            cause = c.source();
        }
        if let Some(next) = next {
            note = format!("{note}; {next}");
        }
        Self { end: RunEnd::Failed, note }
    }
}

/// What a job may use while it runs.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// The time that it is.
    pub now: DateTime<Utc>,
    /// The lease under which it runs, on the database of the schedule.
    pub lease: &'a Lease,
    /// That database.
    pub engine: &'a dyn Engine,
}

type Work = Box<dyn for<'a> Fn(Turn<'a>) -> BoxFuture<'a, Outcome> + Send + Sync>;

/// A job and when it is due.
pub struct Job {
    name: String,
    when: When,
    work: Work,
    tries: Mutex<Tries>,
}

/// Failed tries of the time that is due now.
#[derive(Debug, Default)]
struct Tries {
    due: Option<DateTime<Utc>>,
    failed: u32,
    not_before: Option<DateTime<Utc>>,
    /// What the database said last, so that it is not asked for what cannot have changed.
    done: Option<DateTime<Utc>>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).field("when", &self.when).finish_non_exhaustive()
    }
}

impl Job {
    /// A job.
    pub fn new(
        name: impl Into<String>,
        when: When,
        work: impl for<'a> Fn(Turn<'a>) -> BoxFuture<'a, Outcome> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), when, work: Box::new(work), tries: Mutex::default() }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it is due.
    pub fn when(&self) -> When {
        self.when
    }
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing is due, or a failed try is not to be repeated yet.
    Idle,
    /// Another server does it just now.
    Elsewhere,
    /// It ran here.
    Ran(Run),
    /// The database of the schedule does not answer, or another server took over meanwhile: nothing is written down.
    Lost(String),
}

/// Jobs on one server of many.
#[derive(Debug)]
pub struct Scheduler {
    engine: Arc<dyn Engine>,
    jobs: Vec<Job>,
    zone: Tz,
    by: String,
    term: Duration,
    jitter: Duration,
}

impl Scheduler {
    /// Jobs by the calendar of that zone; the database says what is done, and who does it. `by` names this server.
    pub fn new(engine: Arc<dyn Engine>, zone: Tz, by: impl Into<String>, jobs: Vec<Job>) -> Self {
        let (term, jitter) = (Duration::from_secs(60), Duration::ZERO);
        Self { engine, jobs, zone, by: by.into(), term, jitter }
    }

    /// For how long a lease is taken; it is renewed while a job runs. A server that dies keeps the others waiting for so long.
    #[must_use]
    pub fn with_term(mut self, term: Duration) -> Self {
        self.term = term;
        self
    }

    /// Servers begin up to so much after the time, each at its own moment, so that not all ask the database at once.
    #[must_use]
    pub fn with_jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// The jobs.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// The zone.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The database.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// A step of each job at once: what is due is done. Ends when all of them have ended.
    ///
    /// Cancel safe: what is dropped was not done; its lease ends by itself.
    pub async fn tick(&self, now: DateTime<Utc>) -> Vec<(&str, Step)> {
        join_all(self.jobs.iter().map(|job| async move { (job.name(), self.step(job, now).await) })).await
    }

    /// Does the newest time of a job that is due and not done.
    pub async fn step(&self, job: &Job, now: DateTime<Utc>) -> Step {
        // One that runs here already is not begun again.
        let Ok(mut tries) = job.tries.try_lock() else { return Step::Idle };
        let due = job.when.newest(now, self.zone);
        if tries.due != Some(due) {
            *tries = Tries { due: Some(due), done: tries.done, ..Tries::default() };
        }
        if tries.done >= Some(due) || tries.not_before.is_some_and(|at| now < at) {
            return Step::Idle;
        }
        match self.run(job, due, now).await {
            Ok(Taken::Done(at)) => {
                tries.done = Some(at);
                Step::Idle
            }
            Ok(Taken::Elsewhere) => Step::Elsewhere,
            Ok(Taken::Ran(run)) => {
                match run.end {
                    RunEnd::Failed => {
                        tries.failed += 1;
                        tries.not_before = Some(now + pause(tries.failed, job.when));
                    }
                    _ => tries.done = Some(due),
                }
                Step::Ran(run)
            }
            Err(e) => Step::Lost(e.to_string()),
        }
    }

    /// Does a job now, whatever is due. Written down as the time that is due, where that is not done yet; as one of its own elsewhere.
    pub async fn run_now(&self, job: &Job, now: DateTime<Utc>) -> Step {
        let Ok(_tries) = job.tries.try_lock() else { return Step::Elsewhere };
        let newest = job.when.newest(now, self.zone);
        let due = match last_done(&*self.engine, &job.name, now).await {
            Ok(done) if done >= Some(newest) => now,
            Ok(_) => newest,
            Err(e) => return Step::Lost(e.to_string()),
        };
        match self.run_if(job, due, now, |_| true).await {
            Ok(Taken::Ran(run)) => Step::Ran(run),
            Ok(_) => Step::Elsewhere,
            Err(e) => Step::Lost(e.to_string()),
        }
    }

    async fn run(&self, job: &Job, due: DateTime<Utc>, now: DateTime<Utc>) -> db_maint::Result<Taken> {
        // Asked before the lease is taken: most of the time another server has done it.
        if let Some(done) = last_done(&*self.engine, &job.name, now).await?.filter(|done| *done >= due) {
            return Ok(Taken::Done(done));
        }
        self.run_if(job, due, now, |done| done.is_none_or(|done| done < due)).await
    }

    async fn run_if(
        &self,
        job: &Job,
        due: DateTime<Utc>,
        now: DateTime<Utc>,
        is_wanted: impl Fn(Option<DateTime<Utc>>) -> bool,
    ) -> db_maint::Result<Taken> {
        let engine = &*self.engine;
        let lease = match Lease::acquire(engine, &format!("agent {}", job.name), self.term).await? {
            Acquired::Held(lease) => lease,
            Acquired::By(_) => return Ok(Taken::Elsewhere),
        };
        // And again under it: it may have been done in between.
        let done = last_done(engine, &job.name, now).await?;
        if !is_wanted(done) {
            lease.release(engine).await?;
            return Ok(done.map_or(Taken::Elsewhere, Taken::Done));
        }
        let began = tokio::time::Instant::now();
        let turn = Turn { now, lease: &lease, engine };
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(LIMIT, (job.work)(turn)) => outcome.unwrap_or_else(|_| Outcome {
                end: RunEnd::Failed,
                note: format!("it did not end within {} hours, and was broken off", LIMIT.as_secs() / 3600),
            }),
            // It is stopped where another one has taken over.
            e = keep(engine, &lease) => return Err(e),
        };
        let ended = now + TimeDelta::from_std(began.elapsed()).unwrap_or_default();
        let run = Run {
            job: job.name.clone(),
            due,
            began: now,
            ended,
            by: self.by.clone(),
            end: outcome.end,
            note: outcome.note,
            // Counted where it is written down.
            failures: 0,
            failure: String::new(),
        };
        record_run(engine, &lease, &run).await?;
        // Where that fails it ends by itself.
        if let Err(e) = lease.release(engine).await {
            tracing::warn!(job = %job.name, error = %e, "the lease is not given back");
        }
        Ok(Taken::Ran(run))
    }

    /// Runs until `stop` is over: each job at its time. What runs then is ended by dropping it where it does not end within `patience`; it is
    /// tried again by whoever is next. `said` is told of every step, also of idle ones.
    pub async fn work(
        &self,
        now: impl Fn() -> DateTime<Utc> + Sync,
        stop: impl Future<Output = ()>,
        patience: Duration,
        said: impl Fn(&str, &Step) + Sync,
    ) {
        let (is_stopping, stopping) = tokio::sync::watch::channel(false);
        let each = self.jobs.iter().map(|job| {
            let mut stopping = stopping.clone();
            let (now, said) = (&now, &said);
            async move {
                loop {
                    let step = self.step(job, now()).await;
                    said(&job.name, &step);
                    let at = now();
                    // Often enough to notice that a server which did it is gone, and that the database is back.
                    let wait = (job.when.next(at, self.zone) - at).to_std().unwrap_or_default();
                    let wait = wait.min(LOOK) + self.jitter.mul_f64(fastrand::f64());
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = stopping.wait_for(|is| *is) => return,
                    }
                    if *stopping.borrow() {
                        return;
                    }
                }
            }
        });
        let all = join_all(each);
        tokio::pin!(all);
        tokio::select! {
            _ = &mut all => return,
            () = stop => {}
        }
        // Nobody listens where all jobs have ended.
        let _ = is_stopping.send(true);
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("jobs that did not end in time are left to the next start");
        }
    }
}

/// How long a job may take: one that hangs would keep its lease for ever, and no other server would do it.
const LIMIT: Duration = Duration::from_secs(12 * 3600);

/// How often a job that is due is looked at.
const LOOK: Duration = Duration::from_secs(15);

enum Taken {
    Ran(Run),
    Elsewhere,
    Done(DateTime<Utc>),
}

/// Renews a lease for as long as it is ours; ends with the error that says that it is not. A database that does not answer for less than the
/// term is waited for.
async fn keep(engine: &dyn Engine, lease: &Lease) -> db_maint::Error {
    let third = lease.term() / 3;
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(third.saturating_sub(renewed.elapsed())).await;
        // Counted from before it was asked: that is the latest moment from which it is sure to be ours.
        let asked = tokio::time::Instant::now();
        let silent =
            || db_maint::Error::new(ErrorKind::Unreachable, format!("the lease {} could not be renewed", lease.name()));
        let e = match tokio::time::timeout(third, lease.renew(engine)).await {
            Ok(Ok(())) => {
                renewed = asked;
                continue;
            }
            Ok(Err(e)) if e.kind() == ErrorKind::Fenced => return e,
            Ok(Err(e)) => e,
            Err(_) => silent(),
        };
        // Before it ends: then another server may begin.
        if renewed.elapsed() >= third * 2 {
            return e;
        }
        tracing::warn!(lease = lease.name(), error = %e, "not renewed");
        tokio::time::sleep(third / 10).await;
    }
}

/// After so many failed tries: a minute, two, four, up to an hour, and never longer than until the next time.
fn pause(failed: u32, when: When) -> TimeDelta {
    TimeDelta::minutes(1 << failed.saturating_sub(1).min(6)).min(TimeDelta::hours(1)).min(when.period())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rarer_and_do_not_end() {
        let daily = When::Daily(chrono::NaiveTime::MIN);
        let minutes: Vec<i64> = (1..=9).map(|n| pause(n, daily).num_minutes()).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(9, When::Every(15)).num_minutes(), 15);
    }
}
