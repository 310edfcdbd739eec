//! The one engine that changes many rows: clean-up by age, orphans, erasure.
//!
//! It walks over a table in the order of an index, in batches that are small by measured time: each is one transaction that is
//! committed before the next pause, so the shop never waits for more than one of them. Which rows are met is decided anew inside
//! the statement that changes them. How far it has come is committed with each batch: a run that is killed, stopped or out of its
//! budget goes on where it was, and what it counts is what was committed. A row that cannot be changed is listed, and passed by.

mod archive;
mod options;
mod progress;
mod report;
pub(crate) mod work;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use self::archive::Archive;
pub use self::options::{JobOptions, Stop};
use self::progress::{advance, count, fingerprint, progress};
pub use self::report::{JobEnd, JobReport};
use self::work::{Action, Work, in_rule};
use crate::engine::{Engine, reason, without_values};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{Lease, as_text};
use crate::policy::Policy;
use crate::session::{Session, Value, server_clock};
use crate::statement::{Piece, after, among, bare, order, texts};
use crate::table::Kind;

/// So many rows are walked over in one batch at most, and at least.
const MOST: usize = 1_000;
const LEAST: usize = 1;
/// With so many to begin with.
const FIRST: usize = 100;
/// How often a batch that met somebody's lock is tried before it is taken apart.
const TRIES: u32 = 4;
/// How many rows that cannot be changed are put up with: then something is wrong with all of them.
const POISON: usize = 100;
/// A session that rests for longer is ended by some servers.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Two clocks that differ by more are not to be trusted with what is old.
const SKEW: chrono::TimeDelta = chrono::TimeDelta::minutes(10);

/// Deletes, anonymises or archives what each retention rule of `policy` says is old enough. With a `lease`, each batch is fenced.
///
/// Cancel safe: what was committed stays, and the next run goes on from there.
///
/// # Errors
/// [`ErrorKind::Config`] where a rule does not fit the schema: then nothing at all has been done. [`ErrorKind::Clock`] where
/// the database's clock and this machine's differ, or a rule would leave no row. [`ErrorKind::Fenced`] where another process has
/// the lease by now.
pub async fn clean_up(
    engine: &dyn Engine,
    policy: &Policy,
    options: &JobOptions,
    lease: Option<&Lease>,
) -> Result<Vec<JobReport>> {
    let (mut session, now) = begin(engine, policy, options).await?;
    let mut works = Vec::new();
    for rule in &policy.retention {
        let work = work::retention(&mut session, policy, rule, now).await?;
        check(&mut session, &work).await?;
        works.push(work);
    }
    let reports = run_all(&mut session, works, options, lease).await?;
    session.close().await;
    Ok(reports)
}

/// Counts rows that refer to nothing, by the references of `policy`, and mends them as each declares.
///
/// Cancel safe, and errors, as [`clean_up`].
///
/// # Errors
/// As [`clean_up`].
pub async fn mend_orphans(
    engine: &dyn Engine,
    policy: &Policy,
    options: &JobOptions,
    lease: Option<&Lease>,
) -> Result<Vec<JobReport>> {
    let (mut session, now) = begin(engine, policy, options).await?;
    let mut works = Vec::new();
    // What is referred to first: what goes there makes orphans here.
    for rule in policy.references_in_order() {
        let work = work::reference(&mut session, policy, rule, now).await?;
        check(&mut session, &work).await?;
        works.push(work);
    }
    let reports = run_all(&mut session, works, options, lease).await?;
    session.close().await;
    Ok(reports)
}

/// A session, the time, and a policy that can be gone by: its holds mean something, and no two rules are called the same, for
/// each is known by its name where it goes on.
async fn begin(engine: &dyn Engine, policy: &Policy, options: &JobOptions) -> Result<(Session, DateTime<Utc>)> {
    if let Some(name) = policy.names_used_twice().first() {
        return Err(Error::new(ErrorKind::Config, format!("two rules are called {name:?}"))
            .with_next_step("give each a name of its own"));
    }
    let mut session = engine.session().await?;
    let now = time(&mut session, options.now).await?;
    work::check_holds(&mut session, &policy.hold).await?;
    Ok((session, now))
}

pub(crate) async fn run_all(
    session: &mut Session,
    works: Vec<Work>,
    options: &JobOptions,
    lease: Option<&Lease>,
) -> Result<Vec<JobReport>> {
    let began = Instant::now();
    let mut reports = Vec::new();
    let mut rows_left = options.rows;
    for work in &works {
        let mut run = Run::new(work, options, lease, rows_left, began);
        let report = run.walk(session).await.map_err(|e| in_rule(&work.rule, e))?;
        rows_left = rows_left.map(|left| left.saturating_sub(report.changed));
        reports.push(report);
    }
    Ok(reports)
}

/// What the time is: as told, or by the database's clock where this machine's agrees.
pub(crate) async fn time(session: &mut Session, told: Option<DateTime<Utc>>) -> Result<DateTime<Utc>> {
    let sql = format!("SELECT {}", as_text(session.flavour(), server_clock(session.flavour())));
    let clock = session.one(&sql, &[]).await.map_err(|e| session.error("does not say what time it is", e))?;
    let server = clock
        .and_then(|ms| ms.parse().ok())
        .and_then(DateTime::from_timestamp_millis)
        .ok_or_else(|| Error::new(ErrorKind::Clock, format!("{} does not say what time it is", session.location())))?;
    if let Some(now) = told {
        return Ok(now);
    }
    let here = Utc::now();
    if (here - server).abs() > SKEW {
        let text = format!(
            "the clock of {} says {}, and this machine's {}: what is old cannot be told",
            session.location(),
            server.format("%Y-%m-%d %H:%M"),
            here.format("%Y-%m-%d %H:%M")
        );
        return Err(Error::new(ErrorKind::Clock, text).with_next_step("set the clock that is wrong"));
    }
    Ok(server)
}

/// What a rule has to be before a row is touched.
pub(crate) async fn check(session: &mut Session, work: &Work) -> Result<()> {
    let failed = |session: &Session, e| in_rule(&work.rule, session.error("does not take the rule", e));
    session.begin_reading().await.map_err(|e| failed(session, e))?;
    let seen = look_ahead(session, work).await;
    session.roll_back().await.map_err(|e| failed(session, e))?;
    let refused = |kind, what: &str, next: &str| {
        Err(Error::new(kind, format!("the rule {:?}: {what} {}", work.rule, work.table)).with_next_step(next))
    };
    match seen.map_err(|e| failed(session, e))? {
        Ahead::Well => Ok(()),
        Ahead::Numbers => refused(
            ErrorKind::Config,
            "numbers are times in",
            "write what they count since 1970: unit = \"seconds\" or \"milliseconds\"",
        ),
        Ahead::Everything => refused(
            ErrorKind::Clock,
            "it would take even the newest row of",
            "look whether the clocks are right; write may_empty = true where it is meant",
        ),
    }
}

/// What a rule would do.
enum Ahead {
    Well,
    /// SQLite stores numbers where the rule expects texts: nothing would ever be old.
    Numbers,
    /// Even the newest row is old.
    Everything,
}

/// Cheap questions first: none of them reads more than the end of an index, but the last, which is asked where something is
/// wrong.
async fn look_ahead(session: &mut Session, work: &Work) -> Result<Ahead, sqlx::Error> {
    let (flavour, table) = (work.table.flavour, work.table.sql());
    // Conditions of the shop's own are SQL: the server says whether they mean anything, and reads nothing for it.
    let head = |first: &str| Piece::text(format!("SELECT '1' FROM {table} WHERE {first}"));
    let (sql, values) = head("1 = 0 AND ").piece(&work.condition).build(flavour);
    session.one(&sql, &values).await?;
    let (Some(bound), Some(age)) = (&work.bound, work.order.first()) else { return Ok(Ahead::Well) };
    let age = work.table.of(&age.name);
    if flavour == crate::Flavour::Sqlite && !work.has_unit {
        // Numbers come before texts.
        let sql = format!("SELECT typeof({age}) FROM {table} WHERE {age} IS NOT NULL ORDER BY {age} LIMIT 1");
        if let Some("integer" | "real") = session.one(&sql, &[]).await?.as_deref() {
            return Ok(Ahead::Numbers);
        }
    }
    if work.may_empty {
        return Ok(Ahead::Well);
    }
    let (sql, values) = Piece::text("SELECT CASE WHEN ")
        .piece(bound)
        .then(format!(" THEN 'goes' ELSE 'stays' END FROM {table} WHERE {age} IS NOT NULL ORDER BY {age} DESC LIMIT 1"))
        .build(flavour);
    if session.one(&sql, &values).await?.as_deref() != Some("goes") {
        return Ok(Ahead::Well);
    }
    let (sql, values) = head("").piece(&work.condition).then(" LIMIT 1").build(flavour);
    Ok(if session.one(&sql, &values).await?.is_some() { Ahead::Everything } else { Ahead::Well })
}

/// One rule on its way through the table.
struct Run<'a> {
    work: &'a Work,
    options: &'a JobOptions,
    lease: Option<&'a Lease>,
    rows_left: Option<u64>,
    began: Instant,
    size: usize,
    report: JobReport,
    archive: Option<Archive>,
}

/// A row that was walked over.
struct Walked {
    /// The values of the walk's order.
    at: Vec<Value>,
    key: Vec<Value>,
    is_met: bool,
}

impl<'a> Run<'a> {
    fn new(
        work: &'a Work,
        options: &'a JobOptions,
        lease: Option<&'a Lease>,
        rows_left: Option<u64>,
        began: Instant,
    ) -> Self {
        let report = JobReport {
            rule: work.rule.clone(),
            table: work.table.name.clone(),
            action: work.action.name().to_owned(),
            cutoff: work.cutoff,
            met: 0,
            changed: 0,
            changed_in_all: 0,
            followers: work.table.followers.iter().map(|(table, fate)| (table.to_string(), fate.to_string())).collect(),
            sample: Vec::new(),
            unchanged: 0,
            poison: Vec::new(),
            ended: JobEnd::Complete,
            batches: 0,
            longest_batch_ms: 0,
        };
        Self { work, options, lease, rows_left, began, size: FIRST, report, archive: None }
    }

    fn changes(&self) -> bool {
        self.options.apply && self.work.action != Action::Report
    }

    async fn walk(&mut self, session: &mut Session) -> Result<JobReport> {
        let limit = self.options.batch.saturating_mul(5).max(Duration::from_secs(1));
        session.limit(limit).await.map_err(|e| session.error("does not take a limit", e))?;
        let mut cursor = None;
        if self.changes() && self.work.is_remembered {
            let progress = progress(session, &self.work.rule, &fingerprint(self.work)).await?;
            (cursor, self.report.changed_in_all) = progress;
        }
        if let Action::Archive(path) = &self.work.action
            && self.changes()
        {
            self.archive = Some(Archive::open(path)?);
        }
        loop {
            self.give_way(session).await?;
            // It may have been stopped, or its time have run out, while it waited.
            if let Some(ended) = self.has_to_end() {
                self.report.ended = ended;
                break;
            }
            let began = Instant::now();
            let walked = self.batch(session, cursor.as_deref()).await?;
            let took = began.elapsed();
            self.report.batches += 1;
            self.report.longest_batch_ms =
                self.report.longest_batch_ms.max(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            match walked {
                Some(last) => cursor = Some(last),
                None => break,
            }
            self.size = next_size(self.size, took, self.options.batch);
            // Counting rests too: it reads what the shop reads.
            self.rest(took.mul_f64(self.options.rest).min(LONGEST_REST)).await;
        }
        Ok(self.report.clone())
    }

    fn has_to_end(&self) -> Option<JobEnd> {
        if self.options.stop.is_stopped() {
            return Some(JobEnd::Stopped);
        }
        let rows = self.rows_left.is_some_and(|left| self.report.changed >= left);
        let time = self.options.time.is_some_and(|time| self.began.elapsed() >= time);
        (rows || time).then_some(JobEnd::Budget)
    }

    /// Rests, and hears of a stop meanwhile.
    async fn rest(&self, rest: Duration) {
        let until = Instant::now() + rest;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.options.stop.is_stopped() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        }
    }

    /// Waits while replicas are further behind than they may be, or more is going on in the server than may be.
    async fn give_way(&self, session: &mut Session) -> Result<()> {
        if !self.changes() {
            return Ok(());
        }
        while self.is_in_the_way(session).await? && self.has_to_end().is_none() {
            self.rest(Duration::from_millis(500)).await;
            if let Some(lease) = self.lease {
                lease.renew_in(session).await?;
            }
        }
        Ok(())
    }

    async fn is_in_the_way(&self, session: &mut Session) -> Result<bool> {
        if let Some(most) = self.options.lag
            && lag(session).await?.is_some_and(|lag| lag > most)
        {
            return Ok(true);
        }
        match self.options.load {
            Some(most) => Ok(load(session).await? > most),
            None => Ok(false),
        }
    }

    /// One batch: where it ended, or nothing at the end of the table.
    async fn batch(&mut self, session: &mut Session, cursor: Option<&[Value]>) -> Result<Option<Vec<Value>>> {
        let mut tries = 0;
        loop {
            match self.attempt(session, cursor, tries == TRIES).await {
                Ok(walked) => return Ok(walked),
                Err(e) if e.kind() == ErrorKind::Busy && tries < TRIES => {
                    tries += 1;
                    self.size = (self.size / 2).max(LEAST);
                    self.rest(Duration::from_millis(fastrand::u64(50..200) << tries)).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Walks over the next rows and changes those that are met, in one transaction.
    ///
    /// Where one of them is locked or refuses, each by itself; where locks may go by themselves, only for the last time.
    async fn attempt(
        &mut self,
        session: &mut Session,
        cursor: Option<&[Value]>,
        is_last_try: bool,
    ) -> Result<Option<Vec<Value>>> {
        let failed = |session: &Session, e| session.error("did not take a batch", e);
        let most = match self.rows_left.filter(|_| self.changes()) {
            Some(left) => usize::try_from(left.saturating_sub(self.report.changed)).unwrap_or(MOST),
            None => MOST,
        };
        let size = self.size.min(most).max(LEAST);
        match self.changes() {
            true => session.begin().await.map_err(|e| failed(session, e))?,
            false => session.begin_reading().await.map_err(|e| failed(session, e))?,
        }
        if self.changes()
            && let Some(lease) = self.lease
            && let Err(e) = lease.check(session).await
        {
            session.roll_back().await.map_err(|e| failed(session, e))?;
            return Err(e);
        }
        let walked = match self.look(session, cursor, size).await {
            Ok(walked) => walked,
            Err(e) => {
                let e = failed(session, e);
                session.roll_back().await.map_err(|e| failed(session, e))?;
                return Err(e);
            }
        };
        let is_last = walked.len() < size;
        let last = walked.last().map(|row| row.at.clone());
        let met: Vec<Vec<Value>> = walked.into_iter().filter(|row| row.is_met).map(|row| row.key).collect();
        let count = met.len() as u64;
        let place = last.as_deref().filter(|_| !is_last);
        let (changed, mut poison) = match self.together(session, &met, place).await {
            Ok(changed) => (changed, Vec::new()),
            Err(e) => {
                let is_of_rows = e.as_database_error().is_some() && !met.is_empty() && self.changes();
                let is_lock = session.kind(&e) == ErrorKind::Busy && !is_last_try;
                session.roll_back().await.map_err(|e| failed(session, e))?;
                if is_lock || !is_of_rows {
                    return Err(failed(session, e));
                }
                // One row of them cannot be changed: each by itself then, in a transaction that counts it.
                let done = self.one_by_one(session, &met).await?;
                self.move_on(session, place).await?;
                done
            }
        };
        self.report.met += count;
        self.report.changed += changed;
        self.report.changed_in_all += changed;
        if self.changes() {
            self.report.unchanged += count.saturating_sub(changed + poison.len() as u64);
        }
        for key in met.iter().take(10usize.saturating_sub(self.report.sample.len())) {
            self.report.sample.push(self.shown(key));
        }
        self.report.poison.append(&mut poison);
        if self.report.poison.len() > POISON {
            let (key, why) = &self.report.poison[0];
            let text =
                format!("more than {POISON} rows of {} cannot be changed, the first is {key}: {why}", self.work.table);
            return Err(Error::new(ErrorKind::Database, text).with_next_step("mend what is in their way"));
        }
        Ok(last.filter(|_| !is_last))
    }

    /// Changes all of them, notes the place, and commits.
    async fn together(
        &mut self,
        session: &mut Session,
        met: &[Vec<Value>],
        place: Option<&[Value]>,
    ) -> Result<u64, sqlx::Error> {
        let mut changed = 0;
        if self.changes() {
            changed = self.change(session, met).await?;
            if self.work.is_remembered {
                advance(session, &self.work.rule, place, changed).await?;
            }
        }
        // SQLite checks deferred keys only now.
        session.commit().await?;
        Ok(changed)
    }

    /// Notes the place behind rows that have been counted, each with its own change.
    async fn move_on(&self, session: &mut Session, place: Option<&[Value]>) -> Result<()> {
        if !self.work.is_remembered {
            return Ok(());
        }
        let failed = |session: &Session, e| session.error("did not note how far the rule has come", e);
        session.begin().await.map_err(|e| failed(session, e))?;
        if let Some(lease) = self.lease {
            lease.check(session).await?;
        }
        advance(session, &self.work.rule, place, 0).await.map_err(|e| failed(session, e))?;
        session.commit().await.map_err(|e| failed(session, e))
    }

    /// The next rows, and which of them are met.
    async fn look(
        &self,
        session: &mut Session,
        cursor: Option<&[Value]>,
        size: usize,
    ) -> Result<Vec<Walked>, sqlx::Error> {
        let table = &self.work.table;
        let order_by = &self.work.order;
        let mut piece = Piece::text(format!("SELECT {}, CASE WHEN ", texts(table, order_by)))
            .piece(&self.work.condition)
            .then(format!(" THEN '1' ELSE '0' END FROM {} WHERE ", table.sql()));
        piece = match &self.work.bound {
            Some(bound) => piece.piece(bound),
            None => piece.then("1 = 1"),
        };
        if let Some(cursor) = cursor {
            piece = piece.then(" AND ").piece(&after(table, order_by, cursor));
        }
        let (sql, values) =
            piece.then(format!(" ORDER BY {} LIMIT {size}", order(table, order_by))).build(table.flavour);
        let place = |name: &str| order_by.iter().position(|c| c.name == name);
        let keys: Vec<usize> = table.key.iter().filter_map(|key| place(&key.name)).collect();
        let rows = session.rows(&sql, &values).await?;
        Ok(rows
            .into_iter()
            .map(|mut row| {
                let is_met = row.pop().flatten().as_deref() == Some("1");
                Walked { key: keys.iter().map(|at| row[*at].clone()).collect(), at: row, is_met }
            })
            .collect())
    }

    /// Changes the rows with these keys that are met still.
    async fn change(&mut self, session: &mut Session, keys: &[Vec<Value>]) -> Result<u64, sqlx::Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        let work = self.work;
        let table = &work.table;
        let these = Piece::text(" WHERE ").piece(&among(table, keys)).then(" AND ").piece(&work.condition);
        let head = match &work.action {
            Action::Report => return Ok(0),
            Action::Delete => Piece::text(format!("DELETE FROM {}", table.sql())),
            Action::Set(changes) => {
                let mut piece = Piece::text(format!("UPDATE {} SET ", table.sql()));
                for (at, (column, to)) in changes.iter().enumerate() {
                    let between = if at == 0 { "" } else { ", " };
                    piece = piece.then(format!("{between}{} = ", bare(table, column))).piece(to);
                }
                piece
            }
            Action::Archive(_) => {
                if let Some(archive) = &mut self.archive {
                    archive.take(session, table, &these).await?;
                }
                Piece::text(format!("DELETE FROM {}", table.sql()))
            }
        };
        let (sql, values) = head.piece(&these).build(table.flavour);
        session.run(&sql, &values).await
    }

    /// Each row in a transaction of its own; which cannot be changed, and why.
    async fn one_by_one(&mut self, session: &mut Session, keys: &[Vec<Value>]) -> Result<(u64, Vec<(String, String)>)> {
        let failed = |session: &Session, e| session.error("did not take a row", e);
        let (mut changed, mut poison) = (0, Vec::new());
        for key in keys {
            // Each may wait for a lock. Those that are left are met again: the place is not moved past them.
            if self.options.stop.is_stopped() {
                return Err(Error::new(ErrorKind::Busy, "stopped among rows that others held")
                    .with_next_step("the next run goes on from there"));
            }
            session.begin().await.map_err(|e| failed(session, e))?;
            if let Some(lease) = self.lease {
                lease.check(session).await?;
            }
            match self.change(session, std::slice::from_ref(key)).await {
                Ok(n) => {
                    if self.work.is_remembered {
                        count(session, &self.work.rule, n).await.map_err(|e| failed(session, e))?;
                    }
                    match session.commit().await {
                        Ok(()) => changed += n,
                        Err(e) if e.as_database_error().is_some() => {
                            poison.push((self.shown(key), without_values(&reason(&e))));
                            session.roll_back().await.map_err(|e| failed(session, e))?;
                        }
                        Err(e) => return Err(failed(session, e)),
                    }
                }
                Err(e) if e.as_database_error().is_some() => {
                    poison.push((self.shown(key), without_values(&reason(&e))));
                    session.roll_back().await.map_err(|e| failed(session, e))?;
                }
                Err(e) => return Err(failed(session, e)),
            }
        }
        Ok((changed, poison))
    }

    /// A key as it may be shown.
    fn shown(&self, key: &[Value]) -> String {
        let show = |(column, value): (&crate::table::Column, &Value)| match (column.kind, value) {
            (Kind::Integer { .. } | Kind::Time, Some(value)) => value.clone(),
            (_, Some(value)) => {
                let hash: String = Sha256::digest(value).iter().take(6).map(|b| format!("{b:02x}")).collect();
                format!("sha256:{hash}")
            }
            (_, None) => "NULL".to_owned(),
        };
        self.work.table.key.iter().zip(key).map(show).collect::<Vec<_>>().join(" ")
    }
}

/// As many rows as fit into the time that a batch should take, growing by half at most.
fn next_size(size: usize, took: Duration, wanted: Duration) -> usize {
    let fits = size as f64 * wanted.as_secs_f64() / took.as_secs_f64().max(0.000_1);
    (fits.min(size as f64 * 1.5).ceil() as usize).clamp(LEAST, MOST)
}

/// How far the furthest replica is behind; `None` where there is none.
async fn lag(session: &mut Session) -> Result<Option<Duration>> {
    let sql = match session.flavour() {
        crate::Flavour::Postgres => {
            "SELECT (CASE WHEN pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') \
               THEN (EXTRACT(EPOCH FROM max(replay_lag)) * 1000)::int8 ELSE -1 END)::text FROM pg_stat_replication"
        }
        _ => {
            return Err(Error::new(ErrorKind::Config, "this server does not know how far its replicas are behind")
                .with_next_step("leave the limit on lag out, or give the job less of the machine"));
        }
    };
    let lag = session.one(sql, &[]).await.map_err(|e| session.error("does not show its replicas", e))?;
    match lag.map(|ms| ms.parse::<i64>()) {
        None => Ok(None),
        Some(Ok(ms)) if ms >= 0 => Ok(Some(Duration::from_millis(ms.unsigned_abs()))),
        _ => Err(Error::new(ErrorKind::Denied, "this role does not see how far replicas are behind")
            .with_next_step("GRANT pg_monitor to this role")),
    }
}

/// How many other sessions are at work.
async fn load(session: &mut Session) -> Result<u32> {
    let (sql, own) = match session.flavour() {
        crate::Flavour::Postgres => (
            "SELECT (CASE WHEN pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') THEN count(*) ELSE -1 END)::text \
             FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
            0,
        ),
        // This one is among them.
        crate::Flavour::Mysql | crate::Flavour::MariaDb => ("SHOW GLOBAL STATUS LIKE 'Threads_running'", 1),
        crate::Flavour::Sqlite => {
            return Err(Error::new(ErrorKind::Config, "a SQLite file does not know who is at work in it")
                .with_next_step("leave the limit on sessions out, or give the job less of the machine"));
        }
    };
    let rows = session.rows(sql, &[]).await.map_err(|e| session.error("does not say who is at work", e))?;
    match rows.first().and_then(|row| row.last()).cloned().flatten().map(|n| n.parse::<i64>()) {
        Some(Ok(n)) if n >= 0 => Ok(u32::try_from(n - own).unwrap_or(0)),
        _ => Err(Error::new(ErrorKind::Denied, "this role does not see who is at work in the server")
            .with_next_step("GRANT pg_monitor to this role")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_grows_slowly_and_shrinks_at_once() {
        let wanted = Duration::from_millis(200);
        assert_eq!(next_size(100, Duration::from_millis(10), wanted), 150);
        assert_eq!(next_size(100, Duration::from_millis(400), wanted), 50);
        assert_eq!(next_size(1, Duration::from_secs(60), wanted), 1);
        assert_eq!(next_size(1_000, Duration::ZERO, wanted), 1_000);
    }
}
