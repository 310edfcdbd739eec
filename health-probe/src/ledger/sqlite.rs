//! The ledger in a SQLite file: two bits a slot, so that a year of minutes is 132 kB a probe.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite, Transaction};

use super::{HourOfResponses, Ledger, Maintenance, Record, Slot, Timeline};
use crate::error::{Error, ErrorKind, Result, file};
use crate::incident::IncidentRecord;

const DAY: i64 = 86_400;

/// A ledger in a SQLite file, or in memory. Several processes may use one file.
#[derive(Debug)]
pub struct SqliteLedger {
    pool: SqlitePool,
    path: PathBuf,
    set_aside: Option<PathBuf>,
    /// It was said that a line of it cannot be read: it is asked every minute.
    said: AtomicBool,
}

impl SqliteLedger {
    /// Opens the file, and makes it where there is none. One that is broken is set aside, for a shop has to be watched whatever
    /// became of its history: see [`SqliteLedger::set_aside`]. Only for whoever watches, and watches alone: others may have the
    /// file open. What an ordinary reader wants is [`SqliteLedger::open`].
    ///
    /// # Errors
    /// As of [`SqliteLedger::open`], or where the broken one cannot be set aside.
    pub async fn open_or_begin_anew(path: &Path) -> Result<Self> {
        let opened = match Self::open(path).await {
            Ok(ledger) => ledger.checked().await,
            Err(e) => Err(e),
        };
        match opened {
            Err(e) if path.exists() && is_broken(&e) => {
                let aside = aside(path, Utc::now());
                for end in ["", "-wal", "-shm"] {
                    let (from, to) = (with_end(path, end), with_end(&aside, end));
                    match std::fs::rename(&from, to) {
                        Err(io) if io.kind() == std::io::ErrorKind::NotFound && !end.is_empty() => {}
                        renamed => renamed.map_err(|io| file(&from, "is broken, and cannot be set aside", io))?,
                    }
                }
                tracing::error!(ledger = %path.display(), aside = %aside.display(), error = %e, "a broken ledger was set aside");
                let mut anew = Self::open(path).await?;
                anew.set_aside = Some(aside);
                Ok(anew)
            }
            opened => opened,
        }
    }

    /// Itself, where the whole file can be read.
    async fn checked(self) -> Result<Self> {
        let failed = self.failed("cannot be checked");
        let said: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&self.pool).await.map_err(&failed)?;
        drop(failed);
        if said == "ok" {
            return Ok(self);
        }
        let e = format!("the ledger {}: {}", self.path.display(), crate::redact::short(&said));
        self.pool.close().await;
        Err(Error::new(ErrorKind::Malformed, e).with_next_step("it is set aside by whoever watches"))
    }

    /// Where the file was put that was there before and could not be read; what it knew is not in this one.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] where it cannot be opened, is damaged, or is of a newer version.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(10));
        Self::with(options, path).await
    }

    /// One that is gone with this value.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] where there is no memory for it.
    pub async fn in_memory() -> Result<Self> {
        Self::with(SqliteConnectOptions::new().in_memory(true), Path::new("memory")).await
    }

    async fn with(options: SqliteConnectOptions, path: &Path) -> Result<Self> {
        let wrong = |e: sqlx::Error| wrong(path, "cannot be opened", e);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
            .map_err(wrong)?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&pool).await.map_err(wrong)?;
        if version > 1 {
            let e = format!("{}: it is of version {version}, and this program knows 1", path.display());
            return Err(Error::new(ErrorKind::Storage, e).with_next_step("use a newer version of this program"));
        }
        for statement in [
            "CREATE TABLE IF NOT EXISTS expected (probe TEXT NOT NULL, since INTEGER NOT NULL, every INTEGER NOT NULL, PRIMARY KEY (probe, since)) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS day (probe TEXT NOT NULL, day INTEGER NOT NULL, every INTEGER NOT NULL, slots BLOB NOT NULL, PRIMARY KEY (probe, day, every)) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS response (probe TEXT NOT NULL, hour INTEGER NOT NULL, count INTEGER NOT NULL, sum REAL NOT NULL, longest REAL NOT NULL, PRIMARY KEY (probe, hour)) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS maintenance (probe TEXT, start INTEGER NOT NULL, stop INTEGER NOT NULL, reason TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS incident (id TEXT NOT NULL PRIMARY KEY, opened INTEGER NOT NULL, resolved INTEGER, body TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS kept (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)",
            "PRAGMA user_version = 1",
        ] {
            sqlx::query(statement).execute(&pool).await.map_err(wrong)?;
        }
        Ok(Self { pool, path: path.to_owned(), set_aside: None, said: AtomicBool::new(false) })
    }

    fn failed(&self, what: &'static str) -> impl Fn(sqlx::Error) -> Error + '_ {
        move |e| wrong(&self.path, what, e)
    }

    async fn add(&self, tx: &mut Transaction<'_, Sqlite>, record: &Record) -> std::result::Result<(), sqlx::Error> {
        let every = seconds(record.every);
        let at = record.at.timestamp().div_euclid(every) * every;
        let last: Option<(i64, i64)> = sqlx::query_as(
            "SELECT since, every FROM expected WHERE probe = ? AND since <= ? ORDER BY since DESC LIMIT 1",
        )
        .bind(&record.probe)
        .bind(record.at.timestamp())
        .fetch_optional(&mut **tx)
        .await?;
        if last.is_none_or(|(_, known)| known != every) {
            // Another interval begins where the last slot ends that was seen of the old one: it stays.
            let known = last.map_or(0, |(_, known)| known);
            let newest: Option<(i64, Vec<u8>)> =
                sqlx::query_as("SELECT day, slots FROM day WHERE probe = ? AND every = ? ORDER BY day DESC LIMIT 1")
                    .bind(&record.probe)
                    .bind(known)
                    .fetch_optional(&mut **tx)
                    .await?;
            let ends = newest.map_or(at, |(day, slots)| day * DAY + seen(&slots) * known);
            let since = (ends.max(at) + every - 1).div_euclid(every) * every;
            sqlx::query("INSERT OR REPLACE INTO expected (probe, since, every) VALUES (?, ?, ?)")
                .bind(&record.probe)
                .bind(since)
                .bind(every)
                .execute(&mut **tx)
                .await?;
        }
        if record.outcome != Slot::Missing {
            let day = at.div_euclid(DAY);
            let known: Option<Vec<u8>> =
                sqlx::query_scalar("SELECT slots FROM day WHERE probe = ? AND day = ? AND every = ?")
                    .bind(&record.probe)
                    .bind(day)
                    .bind(every)
                    .fetch_optional(&mut **tx)
                    .await?;
            let mut slots = known.unwrap_or_default();
            put(&mut slots, (at.rem_euclid(DAY) / every) as usize, record.outcome);
            sqlx::query("INSERT OR REPLACE INTO day (probe, day, every, slots) VALUES (?, ?, ?, ?)")
                .bind(&record.probe)
                .bind(day)
                .bind(every)
                .bind(slots)
                .execute(&mut **tx)
                .await?;
        }
        if let Some(time) = record.response_time {
            sqlx::query(
                "INSERT INTO response (probe, hour, count, sum, longest) VALUES (?1, ?2, 1, ?3, ?3) \
                 ON CONFLICT (probe, hour) DO UPDATE SET count = count + 1, sum = sum + ?3, longest = max(longest, ?3)",
            )
            .bind(&record.probe)
            .bind(at.div_euclid(3600))
            .bind(time.as_secs_f64())
            .execute(&mut **tx)
            .await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn record(&self, records: &[Record]) -> Result<()> {
        let failed = self.failed("an outcome cannot be written");
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        for record in records {
            self.add(&mut tx, record).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)
    }

    async fn retire(&self, probe: &str, at: DateTime<Utc>) -> Result<()> {
        sqlx::query("INSERT OR REPLACE INTO expected (probe, since, every) VALUES (?, ?, 0)")
            .bind(probe)
            .bind(at.timestamp())
            .execute(&self.pool)
            .await
            .map_err(self.failed("a probe cannot be retired"))?;
        Ok(())
    }

    async fn add_maintenance(&self, window: &Maintenance) -> Result<()> {
        sqlx::query("INSERT INTO maintenance (probe, start, stop, reason) VALUES (?, ?, ?, ?)")
            .bind(&window.probe)
            .bind(window.from.timestamp())
            .bind(window.to.timestamp())
            .bind(&window.reason)
            .execute(&self.pool)
            .await
            .map_err(self.failed("a window of maintenance cannot be written"))?;
        Ok(())
    }

    async fn maintenance(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<Maintenance>> {
        let failed = self.failed("windows of maintenance cannot be read");
        let rows = sqlx::query(
            "SELECT probe, start, stop, reason FROM maintenance WHERE stop > ? AND start < ? ORDER BY start",
        )
        .bind(from.timestamp())
        .bind(to.timestamp())
        .fetch_all(&self.pool)
        .await
        .map_err(&failed)?;
        let window = |row: sqlx::sqlite::SqliteRow| -> std::result::Result<Maintenance, sqlx::Error> {
            let (from, to) = (time(row.try_get(1)?), time(row.try_get(2)?));
            Ok(Maintenance { probe: row.try_get(0)?, from, to, reason: row.try_get(3)? })
        };
        rows.into_iter().map(window).collect::<std::result::Result<_, _>>().map_err(&failed)
    }

    async fn probes(&self) -> Result<Vec<String>> {
        sqlx::query_scalar("SELECT DISTINCT probe FROM expected ORDER BY probe")
            .fetch_all(&self.pool)
            .await
            .map_err(self.failed("the probes cannot be read"))
    }

    async fn timeline(&self, probe: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Timeline> {
        let failed = self.failed("slots cannot be read");
        let expected: Vec<(i64, i64)> =
            sqlx::query_as("SELECT since, every FROM expected WHERE probe = ? ORDER BY since")
                .bind(probe)
                .fetch_all(&self.pool)
                .await
                .map_err(&failed)?;
        let (from, to) = (from.timestamp(), to.timestamp());
        let rows: Vec<(i64, i64, Vec<u8>)> =
            sqlx::query_as("SELECT day, every, slots FROM day WHERE probe = ? AND day BETWEEN ? AND ?")
                .bind(probe)
                .bind(from.div_euclid(DAY))
                .bind(to.div_euclid(DAY))
                .fetch_all(&self.pool)
                .await
                .map_err(&failed)?;
        let days: std::collections::HashMap<(i64, i64), Vec<u8>> =
            rows.into_iter().map(|(day, every, slots)| ((day, every), slots)).collect();
        let mut timeline = Timeline::default();
        for (at, (since, every)) in expected.iter().copied().enumerate() {
            let until = expected.get(at + 1).map_or(to, |(next, _)| (*next).min(to));
            if every == 0 {
                continue;
            }
            let mut slot = since.max(from.div_euclid(every) * every);
            while slot < until {
                let state = days.get(&(slot.div_euclid(DAY), every));
                let state = state.map_or(Slot::Missing, |s| look_up(s, (slot.rem_euclid(DAY) / every) as usize));
                timeline.slots.push((time(slot), Duration::from_secs(every.unsigned_abs()), state));
                slot += every;
            }
        }
        Ok(timeline)
    }

    async fn response_times(
        &self,
        probe: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<HourOfResponses>> {
        let rows: Vec<(i64, i64, f64, f64)> = sqlx::query_as(
            "SELECT hour, count, sum, longest FROM response WHERE probe = ? AND hour BETWEEN ? AND ? ORDER BY hour",
        )
        .bind(probe)
        .bind(from.timestamp().div_euclid(3600))
        .bind(to.timestamp().div_euclid(3600))
        .fetch_all(&self.pool)
        .await
        .map_err(self.failed("response times cannot be read"))?;
        let hour = |(hour, count, sum, longest): (i64, i64, f64, f64)| HourOfResponses {
            hour: time(hour * 3600),
            count: count.unsigned_abs(),
            mean: sum / count as f64,
            longest,
        };
        Ok(rows.into_iter().filter(|r| r.1 > 0).map(hour).collect())
    }

    async fn put_incident(&self, incident: &IncidentRecord) -> Result<()> {
        let body = serde_json::to_string(incident).map_err(|e| {
            Error::new(ErrorKind::Storage, format!("incident {}: cannot be written as JSON", incident.id))
                .with_source(e)
        })?;
        sqlx::query("INSERT OR REPLACE INTO incident (id, opened, resolved, body) VALUES (?, ?, ?, ?)")
            .bind(&incident.id)
            .bind(incident.opened.timestamp())
            .bind(incident.resolved.map(|t| t.timestamp()))
            .bind(body)
            .execute(&self.pool)
            .await
            .map_err(self.failed("an incident cannot be written"))?;
        Ok(())
    }

    async fn incidents(&self, from: DateTime<Utc>) -> Result<Vec<IncidentRecord>> {
        let bodies: Vec<String> = sqlx::query_scalar(
            "SELECT body FROM incident WHERE resolved IS NULL OR resolved >= ? ORDER BY opened DESC, id DESC",
        )
        .bind(from.timestamp())
        .fetch_all(&self.pool)
        .await
        .map_err(self.failed("incidents cannot be read"))?;
        // One that cannot be read keeps nobody from the others, nor from watching.
        let incident = |body: String| match serde_json::from_str(&body) {
            Ok(incident) => Some(incident),
            Err(e) => {
                if !self.said.swap(true, Ordering::Relaxed) {
                    tracing::error!(ledger = %self.path.display(), error = %e, "an incident that cannot be read is left out");
                }
                None
            }
        };
        Ok(bodies.into_iter().filter_map(incident).collect())
    }

    async fn save(&self, key: &str, value: &str) -> Result<()> {
        sqlx::query("INSERT OR REPLACE INTO kept (key, value) VALUES (?, ?)")
            .bind(key)
            .bind(value)
            .execute(&self.pool)
            .await
            .map_err(self.failed("it cannot be written"))?;
        Ok(())
    }

    async fn load(&self, key: &str) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT value FROM kept WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(self.failed("it cannot be read"))
    }

    async fn forget(&self, before: DateTime<Utc>) -> Result<()> {
        let failed = self.failed("what is old cannot be deleted");
        let at = before.timestamp();
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        for (statement, limit) in [
            ("DELETE FROM day WHERE day < ?", at.div_euclid(DAY)),
            ("DELETE FROM response WHERE hour < ?", at.div_euclid(3600)),
            ("DELETE FROM maintenance WHERE stop < ?", at),
            ("DELETE FROM incident WHERE resolved < ?", at),
            // What was expected before it is now expected from there on, but for what came later.
            (
                "DELETE FROM expected WHERE since < ? AND EXISTS (SELECT 1 FROM expected AS later \
                 WHERE later.probe = expected.probe AND later.since > expected.since AND later.since <= ?1)",
                at,
            ),
            ("UPDATE expected SET since = (?1 / every) * every WHERE every > 0 AND since < (?1 / every) * every", at),
            ("DELETE FROM expected WHERE every = 0 AND since < ?", at),
        ] {
            sqlx::query(statement).bind(limit).execute(&mut *tx).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)
    }
}

/// Whether the file is no database, or a damaged one.
fn is_broken(e: &Error) -> bool {
    let source = std::error::Error::source(e).and_then(|s| s.downcast_ref::<sqlx::Error>());
    let code = match source {
        Some(sqlx::Error::Database(d)) => d.code().map(|c| c.into_owned()),
        _ => None,
    };
    e.kind() == ErrorKind::Malformed || matches!(code.as_deref(), Some("11" | "26"))
}

/// `ledger.db.broken-20260115T120000Z`
fn aside(path: &Path, now: DateTime<Utc>) -> PathBuf {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(format!(".broken-{}", now.format("%Y%m%dT%H%M%SZ")));
    path.with_file_name(name)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Whole seconds, at least one.
fn seconds(every: Duration) -> i64 {
    every.as_secs().clamp(1, 86_400) as i64
}

fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Four slots a byte; the worse of two stays.
fn put(slots: &mut Vec<u8>, at: usize, state: Slot) {
    let bits = match state {
        Slot::Missing => 0u8,
        Slot::Good => 1,
        Slot::Bad => 2,
    };
    if slots.len() <= at / 4 {
        slots.resize(at / 4 + 1, 0);
    }
    let shift = (at % 4) * 2;
    let known = slots[at / 4] >> shift & 3;
    slots[at / 4] = slots[at / 4] & !(3 << shift) | known.max(bits) << shift;
}

/// How many slots there are up to the last one in which something was seen.
fn seen(slots: &[u8]) -> i64 {
    let last = (0..slots.len() * 4).rev().find(|at| look_up(slots, *at) != Slot::Missing);
    last.map_or(0, |at| at as i64 + 1)
}

fn look_up(slots: &[u8], at: usize) -> Slot {
    match slots.get(at / 4).map_or(0, |b| b >> ((at % 4) * 2) & 3) {
        1 => Slot::Good,
        2 => Slot::Bad,
        _ => Slot::Missing,
    }
}

fn wrong(path: &Path, what: &str, e: sqlx::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("the ledger {}: {what}", path.display()))
        .with_next_step(
            "see that its folder can be written, and that the file is whole (sqlite3 FILE 'PRAGMA quick_check')",
        )
        .with_source(e)
}
