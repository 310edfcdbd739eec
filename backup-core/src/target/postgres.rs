//! A PostgreSQL database, 13 or newer.
//!
//! An empty database is filled as it is; one that does not exist yet is made. With `--clean` the snapshot is restored into
//! a new database beside the old one, which then takes its name, owner, rights and settings: until that last moment the
//! old one is there, untouched. That needs the right to create databases, and room for both.
//!
//! Every table is loaded in one transaction, in the order it was read, several tables side by side; indexes and keys
//! follow, side by side too; then foreign keys, triggers and the rest in their own order; then owners and grants. A role
//! that does not exist here is no reason to stop: what needed it is left out and told. At the end everything is analysed.
//!
//! A selection (`--only`) goes into a database that lives on, in one transaction: a table that is not there is made, with
//! its sequences, indexes, keys, triggers, policies and rights; one that is there has to be empty, or `--clean` replaces
//! its rows, and its sequences move on where they have to. Refused is what would harm others: rows that other tables'
//! foreign keys would delete or change along, tables that are there and refer to one another, a lost partition. Foreign
//! keys of other tables to a table that was lost do not come back, and that is told.

mod definitions;
mod place;
mod selection;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::Semaphore;

use self::place::Place;
use self::selection::Selection;
use super::{Filling, Intake, Invariant, InvariantOutcome, Orphans, Target, named_statements};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, EntryRecord, Manifest};
use crate::postgres::{Database, KIND, Programs, Server, Side, reason};
use crate::source::Source;
use crate::source::postgres::{EVENT_TRIGGERS, OWNERSHIP, PostgresSource, SEQUENCES};
use crate::sql::trusted;

/// For the sessions that fill it: a crash before the end loses the restore anyway, and its end waits for the disk.
const SESSION: &str = "SET synchronous_commit = off; SET check_function_bodies = false; SET client_min_messages = warning; \
    SELECT pg_catalog.set_config('maintenance_work_mem', '128MB', false) \
      FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem' AND setting::int8 < 131072";
/// Statements are handed to the server in batches of this many bytes.
const BATCH: usize = 256 * 1024;

/// A PostgreSQL database to restore to.
///
/// ```
/// # fn main() -> backup_core::Result<()> {
/// use backup_core::{PostgresTarget, Target};
/// let scratch = PostgresTarget::new("postgres://backup:s%40cret@localhost/scratch")?;
/// assert_eq!(scratch.location(), "postgres://backup@localhost:5432/scratch");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresTarget {
    database: Database,
    connections: usize,
    /// What the restore found and made, for whoever removes it.
    place: Arc<Mutex<Option<Place>>>,
}

impl PostgresTarget {
    /// The database of a `postgres://USER:PASSWORD@HOST:PORT/DATABASE` URL; see
    /// [`PostgresSource::new`](crate::PostgresSource::new).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the URL makes no sense.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { database: Database::parse(url, Side::Target)?, connections: 2, place: Arc::default() })
    }

    /// The same, filled over so many connections; 2 by default.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, 32);
        self
    }

    /// The session that runs the definitions, and those that load rows.
    async fn sessions(&self, database: &Database, connections: usize) -> Result<(PgConnection, Vec<PgConnection>)> {
        let mut all = Vec::new();
        for _ in 0..=connections {
            let mut session = database.connect().await?;
            database.run(&mut session, SESSION).await?;
            all.push(session);
        }
        let leader = all.pop().ok_or_else(|| Error::new(ErrorKind::Internal, "no session was opened"))?;
        Ok((leader, all))
    }
}

#[async_trait]
impl Target for PostgresTarget {
    fn location(&self) -> String {
        self.database.location()
    }

    async fn open(&self, manifest: &Manifest, filling: &Filling) -> Result<Box<dyn Intake>> {
        if manifest.source.kind != KIND {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the snapshot is of kind {}, and {} takes postgres", manifest.source.kind, self.location()),
            )
            .with_next_step("name a target of the snapshot's kind"));
        }
        let connections = if filling.only.is_some() { 1 } else { self.connections };
        let (place, selection) = match &filling.only {
            Some(only) => (Place::living(&self.database).await?, Some(Selection::new(manifest, only, filling.clean))),
            None => (Place::prepare(&self.database, filling.clean).await?, None),
        };
        // At once: what was made has to go, too, where the rest of this fails.
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        let database = place.database().clone();
        let (mut leader, mut sessions) = self.sessions(&database, connections).await?;
        let server = Server::of(&mut leader).await.map_err(|e| database.failed("could not be read", e))?;
        let selection = match selection {
            // All of a selection is one transaction of one session.
            Some(selection) => match sessions.first_mut() {
                Some(session) => Some(selection.look(&database, session).await?),
                None => return Err(Error::new(ErrorKind::Internal, "no session was opened")),
            },
            None => None,
        };
        // Only to tell whether definitions can be compared word by word; without it they are not.
        let version = match Programs::find(None, server.major).await {
            Ok(programs) => server.described(&programs),
            Err(_) => server.version.clone(),
        };
        Ok(Box::new(PostgresIntake {
            database,
            place,
            leader: tokio::sync::Mutex::new(leader),
            free: Semaphore::new(sessions.len()),
            concurrency: sessions.len(),
            sessions: Mutex::new(sessions),
            selection,
            ownership: filling.ownership,
            composed: filling.composed,
            not_valid: AtomicBool::new(false),
            versions: (manifest.source.version.clone(), version),
            left_out: Mutex::default(),
        }))
    }

    fn read_back(&self) -> Option<Box<dyn Source>> {
        let source = PostgresSource::of(self.database.as_side(Side::Source));
        Some(Box::new(source.without_roles().with_connections(self.connections)))
    }

    async fn check_invariants(&self, text: &str) -> Result<Vec<Invariant>> {
        let mut session = self.database.connect().await?;
        self.database.run(&mut session, "RESET search_path; SET default_transaction_read_only = on").await?;
        let mut out = Vec::new();
        for (name, sql) in named_statements(text) {
            let outcome = match count(&mut session, sql).await {
                Ok(0) => InvariantOutcome::Holds,
                Ok(rows) => InvariantOutcome::Broken(rows),
                Err(e) => InvariantOutcome::Unknown(reason(&e)),
            };
            out.push(Invariant { name, outcome });
        }
        Ok(out)
    }

    async fn orphans(&self) -> Result<Vec<Orphans>> {
        let mut session = self.database.connect().await?;
        orphans(&mut session).await.map_err(|e| self.database.failed("cannot be searched for orphans", e))
    }

    async fn is_vacant(&self) -> Result<bool> {
        let vacant = Place::vacant(&self.database).await?;
        let is_vacant = vacant.is_some();
        if is_vacant {
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = vacant;
        }
        Ok(is_vacant)
    }

    async fn remove(&self) -> Result<()> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match place {
            Some(place) => place.remove().await,
            None => Ok(()),
        }
    }
}

/// A key that holds was checked by the server; the others say so of themselves.
const NOT_VALID: &str = "SELECT conrelid::pg_catalog.regclass::text, confrelid::pg_catalog.regclass::text, conname::text, \
    (SELECT pg_catalog.array_agg(pg_catalog.quote_ident(attname) ORDER BY n) FROM pg_catalog.unnest(conkey) WITH ORDINALITY k(a, n) \
       JOIN pg_catalog.pg_attribute ON attrelid = conrelid AND attnum = k.a), \
    (SELECT pg_catalog.array_agg(pg_catalog.quote_ident(attname) ORDER BY n) FROM pg_catalog.unnest(confkey) WITH ORDINALITY k(a, n) \
       JOIN pg_catalog.pg_attribute ON attrelid = confrelid AND attnum = k.a) \
    FROM pg_catalog.pg_constraint WHERE contype = 'f' AND NOT convalidated AND conparentid = 0 ORDER BY 1, 3";

async fn orphans(session: &mut PgConnection) -> Result<Vec<Orphans>, sqlx::Error> {
    type Reference = (String, String, String, Vec<String>, Vec<String>);
    let references: Vec<Reference> = sqlx::query_as(NOT_VALID).fetch_all(&mut *session).await?;
    let mut all = Vec::new();
    for (from, to, name, ours, theirs) in references {
        let set: Vec<String> = ours.iter().map(|c| format!("f.{c} IS NOT NULL")).collect();
        let equal: Vec<String> = ours.iter().zip(&theirs).map(|(a, b)| format!("f.{a} = t.{b}")).collect();
        let lost = format!(
            "FROM {from} f WHERE {} AND NOT EXISTS (SELECT 1 FROM {to} t WHERE {})",
            set.join(" AND "),
            equal.join(" AND ")
        );
        let rows: i64 = sqlx::query_scalar(trusted(format!("SELECT count(*) {lost}"))).fetch_one(&mut *session).await?;
        if rows == 0 {
            continue;
        }
        let shown: Vec<String> = ours.iter().map(|c| format!("f.{c}::text")).collect();
        let first =
            format!("SELECT DISTINCT pg_catalog.concat_ws(', ', {}) {lost} ORDER BY 1 LIMIT 10", shown.join(", "));
        let first = sqlx::query_scalar(trusted(first)).fetch_all(&mut *session).await?;
        let reference = format!("{name} ({}) to {to} ({})", ours.join(", "), theirs.join(", "));
        all.push(Orphans { table: from, reference, rows: rows.unsigned_abs(), first });
    }
    Ok(all)
}

async fn count(session: &mut PgConnection, sql: String) -> Result<u64, sqlx::Error> {
    let mut rows = sqlx::raw_sql(trusted(sql)).fetch(session);
    let mut count = 0;
    while rows.try_next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

struct PostgresIntake {
    database: Database,
    place: Place,
    leader: tokio::sync::Mutex<PgConnection>,
    free: Semaphore,
    concurrency: usize,
    sessions: Mutex<Vec<PgConnection>>,
    selection: Option<Selection>,
    ownership: bool,
    /// A foreign key that does not hold is no reason to stop.
    composed: bool,
    /// There was one.
    not_valid: AtomicBool,
    /// Server and `pg_dump` that the definitions come from, and those here.
    versions: (String, String),
    /// What was left out, how often, and the first of it.
    left_out: Mutex<BTreeMap<String, (u64, String)>>,
}

#[async_trait]
impl Intake for PostgresIntake {
    fn wants(&self, entry: &EntryRecord) -> bool {
        match &self.selection {
            Some(selection) => selection.wants(entry),
            None => entry.name != OWNERSHIP || self.ownership,
        }
    }

    fn may_differ(&self, entry: &EntryRecord) -> Option<String> {
        if self.selection.is_some() {
            return (entry.name == SEQUENCES).then(|| "only the sequences of the restored tables were set".into());
        }
        if matches!(entry.kind, EntryKind::PreData | EntryKind::PostData) && self.versions.0 != self.versions.1 {
            return Some(format!(
                "not compared word by word: written by PostgreSQL {}, read back from {}",
                self.versions.0, self.versions.1
            ));
        }
        if entry.kind == EntryKind::PostData && self.not_valid.load(Ordering::Relaxed) {
            return Some("a foreign key that does not hold for some rows was made NOT VALID".into());
        }
        let left_out = !self.ownership || !self.left_out.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        ((entry.name == OWNERSHIP || entry.name == EVENT_TRIGGERS) && left_out)
            .then(|| "not all of it could be restored here".into())
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    async fn take(&self, entry: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        match (entry.kind, entry.before.is_empty()) {
            (EntryKind::Data, false) => self.load(entry, body).await,
            (EntryKind::Data, true) => self.statements(entry, body).await,
            _ => self.define(entry, body).await,
        }
    }

    async fn abandon(self: Box<Self>) {
        let Self { place, leader, sessions, database, .. } = *self;
        drop((leader, sessions));
        if let Err(e) = place.take_back().await {
            tracing::warn!(database = %database.location(), error = %e, "what the failed restore had brought is still there");
        }
    }

    async fn finish(self: Box<Self>) -> Result<Vec<String>> {
        let Self { database, place, leader, sessions, left_out, selection, .. } = *self;
        let mut sessions = sessions.into_inner().unwrap_or_else(PoisonError::into_inner);
        if selection.is_some()
            && let Some(session) = sessions.first_mut()
        {
            database.run(session, "COMMIT").await?;
        }
        drop(sessions);
        let mut leader = leader.into_inner();
        // Waits for the disk, for everything before it too.
        database.run(&mut leader, "SET synchronous_commit = on").await?;
        match &selection {
            None => database.run(&mut leader, "ANALYZE").await?,
            Some(selection) => {
                for table in selection.tables() {
                    database.run(&mut leader, &format!("ANALYZE {table}")).await?;
                }
            }
        }
        drop(leader);
        let mut notes: Vec<String> = place.put_in_place().await?.into_iter().collect();
        let left_out = left_out.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (why, (count, first)) in left_out {
            notes.push(format!("{why}: {count} statements were left out, the first: {first}"));
        }
        Ok(notes)
    }
}

impl PostgresIntake {
    /// Loads one table: one session, one transaction, the order it was read in.
    async fn load(&self, entry: &EntryRecord, mut body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let failed = |e| self.database.failed(&format!("could not load {}", entry.subject), e);
        let copy = entry.before.trim_end().trim_end_matches(';');
        let (begin, frozen, end) = match &self.selection {
            Some(selection) => (selection.begin(entry)?, "", selection.end(entry)),
            None => {
                let table = copy_table(copy);
                let of_extension = self.is_of_extension(table).await?;
                // A table that was emptied in the same transaction keeps the order of its rows, and needs no second visit.
                if of_extension {
                    ("BEGIN".into(), "", "COMMIT".to_owned())
                } else {
                    (format!("BEGIN; TRUNCATE ONLY {table}"), " WITH (FREEZE)", "COMMIT".to_owned())
                }
            }
        };
        let mut session = self.session().await?;
        self.database.run(session.get()?, &begin).await.map_err(|e| named(e, &entry.subject))?;
        let mut into = session.get()?.copy_in_raw(&format!("{copy}{frozen}")).await.map_err(failed)?;
        while let Some(bytes) = body.try_next().await? {
            into.send(bytes).await.map_err(failed)?;
        }
        into.finish().await.map_err(failed)?;
        self.database.run(session.get()?, &end).await.map_err(|e| named(e, &entry.subject))?;
        session.give_back();
        Ok(())
    }

    async fn is_of_extension(&self, table: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND objid = $1::pg_catalog.regclass AND deptype = 'e')";
        let mut leader = self.leader.lock().await;
        sqlx::query_scalar(sql)
            .bind(table)
            .fetch_one(&mut *leader)
            .await
            .map_err(|e| self.database.failed(&format!("has no table {table}"), e))
    }

    /// Runs an entry that is statements, one a line.
    async fn statements(&self, entry: &EntryRecord, mut body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let mut session = self.session().await?;
        let mut waiting = BytesMut::new();
        loop {
            let piece = body.try_next().await?;
            waiting.extend_from_slice(piece.as_deref().unwrap_or_default());
            let whole = match &piece {
                Some(_) if waiting.len() < BATCH => continue,
                Some(_) => memchr::memrchr(b'\n', &waiting).map_or(0, |at| at + 1),
                None => waiting.len(),
            };
            let batch = waiting.split_to(whole);
            let text = std::str::from_utf8(&batch)
                .map_err(|e| Error::new(ErrorKind::Damaged, format!("{} is no text", entry.name)).with_source(e))?;
            let sql: String = match &self.selection {
                Some(selection) => {
                    text.lines().filter(|line| selection.wants_line(line)).collect::<Vec<_>>().join("\n")
                }
                None => text.to_owned(),
            };
            if !sql.trim().is_empty() {
                self.database.run(session.get()?, &sql).await.map_err(|e| named(e, &entry.subject))?;
            }
            if piece.is_none() {
                session.give_back();
                return Ok(());
            }
        }
    }

    async fn session(&self) -> Result<Session<'_>> {
        let gone =
            || Error::new(ErrorKind::Target, format!("{}: no session is left to write with", self.database.location()));
        let permit = self.free.acquire().await.map_err(|_| gone())?;
        let session = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let session = match session {
            Some(session) => session,
            None if self.selection.is_some() => return Err(gone()),
            None => {
                // An earlier user failed and closed its own.
                let mut session = self.database.connect().await?;
                self.database.run(&mut session, SESSION).await?;
                session
            }
        };
        Ok(Session { session: Some(session), home: &self.sessions, _permit: permit })
    }
}

/// One of the sessions that fill. Dropped without being given back it is closed: it may be in the middle of something.
struct Session<'a> {
    session: Option<PgConnection>,
    home: &'a Mutex<Vec<PgConnection>>,
    _permit: tokio::sync::SemaphorePermit<'a>,
}

impl Session<'_> {
    fn get(&mut self) -> Result<&mut PgConnection> {
        self.session
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a session was used after it was given back"))
    }

    fn give_back(mut self) {
        if let Some(session) = self.session.take() {
            self.home.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
    }
}

/// The table in `COPY "a"."b" (…) FROM stdin`.
fn copy_table(copy: &str) -> &str {
    let rest = copy.strip_prefix("COPY ").unwrap_or(copy);
    let end = crate::postgres::name_end(rest);
    &rest[..end]
}

/// The same error, saying at what.
fn named(e: Error, what: &str) -> Error {
    let source = std::error::Error::source(&e).map(ToString::to_string);
    let mut out = Error::new(e.kind(), format!("{e} (at: {what})")).with_retry(e.is_retryable());
    if let Some(next) = e.next_step() {
        out = out.with_next_step(next);
    }
    match source {
        Some(source) => out.with_source(source),
        None => out,
    }
}

async fn close(session: PgConnection) {
    if let Err(e) = session.close().await {
        tracing::debug!(error = %e, "a session did not end politely");
    }
}
