//! Which times of which jobs are done, for all app servers together: rows in the shop's own database.
//!
//! A scheduler that runs on every server takes the [`Lease`] of a job, asks for the last time that is done, and does the newest one that is
//! due: those between were missed, and are caught up by that one. What it did is written down under its lease, in one transaction with a
//! look at it: a process that was paused until another one took over writes nothing.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::capability::Flavour;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{Lease, as_text, create, types};
use crate::session::Session;
use crate::statement::{Piece, plain_number, plain_text};

/// How long runs are kept.
const KEPT: TimeDelta = TimeDelta::days(400);
/// Characters of a note that are kept.
const NOTE: usize = 2_000;
/// Runs that are given at once.
const MOST: u32 = 50_000;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunEnd {
    /// All is well.
    Well,
    /// It did its work, and found something.
    Findings,
    /// It could not do its work: the time is not done.
    Failed,
}

impl RunEnd {
    fn word(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Findings => "findings",
            Self::Failed => "failed",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Well, Self::Findings, Self::Failed].into_iter().find(|end| end.word() == word)
    }
}

/// A time of a job, and what became of it. A failed one is written over by the next try, which remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The job's name, at most 190 bytes.
    pub job: String,
    /// When it was due, to the millisecond.
    pub due: DateTime<Utc>,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// Which server did it, at most 190 bytes.
    pub by: String,
    /// How it ended.
    pub end: RunEnd,
    /// What it did, or why it could not, for people; without secrets.
    pub note: String,
    /// How many tries have failed, on whichever server. Counted where it is written down.
    #[serde(default)]
    pub failures: u32,
    /// Why the last of those failed; empty where none did.
    #[serde(default)]
    pub failure: String,
}

/// The newest time of a job that is done, by whichever server: it ended well or with findings. Times after `now` do not count: a server whose
/// clock is ahead does not speak for the others.
///
/// # Errors
/// Where the database cannot be reached, or the table `caretaker_run` can neither be used nor made.
pub async fn last_done(engine: &dyn Engine, job: &str, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    let mut session = engine.session().await?;
    let asked = async {
        prepare(&mut session).await?;
        let flavour = session.flavour();
        let piece = Piece::text(format!("SELECT {} FROM caretaker_run WHERE job = ", as_text(flavour, "max(due)")))
            .value(&plain_text(), Some(job.to_owned()))
            .then(" AND outcome <> 'failed' AND due <= ")
            .value(&plain_number(), Some(now.timestamp_millis().to_string()));
        let (sql, values) = piece.build(flavour);
        let value = session.one(&sql, &values).await.map_err(|e| session.error("does not say what is done", e))?;
        value.map(|ms| time(&ms)).transpose()
    };
    let done = asked.await;
    session.close().await;
    done
}

/// Writes a run down, as long as the lease is ours; runs of more than 400 days ago are removed.
///
/// # Errors
/// [`ErrorKind::Fenced`] where somebody else has taken the lease: then nothing is written.
pub async fn record_run(engine: &dyn Engine, lease: &Lease, run: &Run) -> Result<()> {
    let mut session = engine.session().await?;
    let written = record_in(&mut session, lease, run).await;
    if written.is_err() {
        // The end of the session takes back what this cannot.
        let _ = session.roll_back().await;
    }
    session.close().await;
    written
}

async fn record_in(session: &mut Session, lease: &Lease, run: &Run) -> Result<()> {
    prepare(session).await?;
    let flavour = session.flavour();
    let number = |at: DateTime<Utc>| Some(at.timestamp_millis().to_string());
    let old = Piece::text("DELETE FROM caretaker_run WHERE job = ")
        .value(&plain_text(), Some(run.job.clone()))
        .then(" AND (due = ")
        .value(&plain_number(), number(run.due))
        .then(" OR due < ")
        .value(&plain_number(), number(run.ended - KEPT))
        .then(")");
    let note: String = run.note.chars().filter(|c| *c != '\0').take(NOTE).collect();
    let before =
        Piece::text(format!("SELECT {}, failure FROM caretaker_run WHERE job = ", as_text(flavour, "failures")))
            .value(&plain_text(), Some(run.job.clone()))
            .then(" AND due = ")
            .value(&plain_number(), number(run.due));
    let failed = |session: &Session, e| session.error("does not take down what was done", e);
    session.begin().await.map_err(|e| failed(session, e))?;
    lease.check(session).await?;
    let (sql, values) = before.build(flavour);
    let before = session.rows(&sql, &values).await.map_err(|e| failed(session, e))?.into_iter().next();
    let mut before = before.into_iter().flatten().flatten();
    let (count, last) = match (before.next(), before.next()) {
        (None, _) => (0u32, String::new()),
        (Some(count), last) => {
            let count = count.parse().map_err(|_| odd("a count that is none"))?;
            (count, last.ok_or_else(|| odd("a row of caretaker_run lacks something"))?)
        }
    };
    let (failures, failure) = match run.end {
        RunEnd::Failed => (count.saturating_add(1), note.clone()),
        _ => (count, last),
    };
    let new = Piece::text(
        "INSERT INTO caretaker_run (job, due, began, ended, done_by, failures, failure, outcome, note) SELECT ",
    )
    .value(&plain_text(), Some(run.job.clone()))
    .then(", ")
    .value(&plain_number(), number(run.due))
    .then(", ")
    .value(&plain_number(), number(run.began))
    .then(", ")
    .value(&plain_number(), number(run.ended))
    .then(", ")
    .value(&plain_text(), Some(run.by.clone()))
    .then(format!(", {failures}, "))
    .value(&plain_text(), Some(failure))
    .then(format!(", '{}', ", run.end.word()))
    .value(&plain_text(), Some(note));
    for piece in [old, new] {
        let (sql, values) = piece.build(flavour);
        session.run(&sql, &values).await.map_err(|e| failed(session, e))?;
    }
    session.commit().await.map_err(|e| failed(session, e))
}

/// The runs that ended since then, oldest first; at most the newest 50,000.
///
/// # Errors
/// As [`last_done`].
pub async fn runs_since(engine: &dyn Engine, since: DateTime<Utc>) -> Result<Vec<Run>> {
    let mut session = engine.session().await?;
    let asked = async {
        prepare(&mut session).await?;
        let flavour = session.flavour();
        let [due, began, ended, failures] = ["due", "began", "ended", "failures"].map(|name| as_text(flavour, name));
        let piece = Piece::text(format!(
            "SELECT job, {due}, {began}, {ended}, done_by, outcome, note, {failures}, failure FROM caretaker_run WHERE ended >= "
        ))
        .value(&plain_number(), Some(since.timestamp_millis().to_string()))
        .then(format!(" ORDER BY caretaker_run.ended DESC, job DESC LIMIT {MOST}"));
        let (sql, values) = piece.build(flavour);
        let rows = session.rows(&sql, &values).await.map_err(|e| session.error("does not say what was done", e))?;
        rows.into_iter().rev().map(run).collect()
    };
    let runs = asked.await;
    session.close().await;
    runs
}

fn run(row: Vec<Option<String>>) -> Result<Run> {
    let mut row = row.into_iter().flatten();
    let mut next = || row.next().ok_or_else(|| odd("a row of caretaker_run lacks something"));
    let (job, due, began, ended, by, end, note) = (next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    let end = RunEnd::of(&end).ok_or_else(|| odd("an outcome that nobody knows"))?;
    let (failures, failure) = (next()?, next()?);
    let failures = failures.parse().map_err(|_| odd("a count that is none"))?;
    Ok(Run { job, due: time(&due)?, began: time(&began)?, ended: time(&ended)?, by, end, note, failures, failure })
}

fn time(milliseconds: &str) -> Result<DateTime<Utc>> {
    let ms = milliseconds.parse().ok().and_then(DateTime::from_timestamp_millis);
    ms.ok_or_else(|| odd(&format!("{milliseconds:?} is no time")))
}

fn odd(why: &str) -> Error {
    Error::new(ErrorKind::Database, format!("caretaker_run: {why}"))
        .with_next_step("a newer version may have written it; else remove the table, and it is made anew")
}

async fn prepare(session: &mut Session) -> Result<()> {
    let (text, number) = types(session.flavour());
    let long = match session.flavour() {
        Flavour::Mysql | Flavour::MariaDb => "text CHARACTER SET utf8mb4",
        _ => "text",
    };
    let columns = format!(
        "job {text} NOT NULL, due {number} NOT NULL, began {number} NOT NULL, ended {number} NOT NULL, done_by {text} NOT NULL, \
         failures {number} NOT NULL, failure {long} NOT NULL, outcome {text} NOT NULL, note {long} NOT NULL, PRIMARY KEY (job, due)"
    );
    create(session, "caretaker_run", &columns).await
}
