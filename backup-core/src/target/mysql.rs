//! A MySQL or MariaDB database.
//!
//! An empty database is filled as it is; one that does not exist yet is made. Several tables are loaded side by side,
//! each over one session in the order it was read; secondary keys follow, side by side too, then foreign keys, then
//! routines, views, triggers and events. An event begins to run when it is there. A definer that this user may not name
//! is left out, so that this user becomes the definer, and that is told.

mod keys;
mod place;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};
use tokio::sync::Semaphore;

use self::keys::take_apart;
use self::place::Place;
use super::{Filling, Intake, Invariant, InvariantOutcome, Target, named_statements};
use crate::error::{Error, ErrorKind, Result};
use crate::insert::Inserts;
use crate::manifest::{EntryKind, EntryRecord, Manifest};
use crate::mysql::{
    Database, KIND, Object, ObjectKind, Server, Side, close, identifier, number_of, objects_of, reason,
};
use crate::source::Source;
use crate::source::mysql::{MysqlSource, TABLES};
use crate::sql::trusted;

/// For the sessions that fill it: values as they were, in the order they come.
const SESSION: &str =
    "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0, unique_checks = 0, autocommit = 0";
/// Statements of rows are ended at this length in bytes, or at a fourth of what the server takes.
const STATEMENT: usize = 512 * 1024;
/// Rows are committed after so many bytes: nobody else is there, and a long transaction only costs.
const TRANSACTION: usize = 32 << 20;

/// A MySQL or MariaDB database to restore to.
///
/// ```
/// # fn main() -> backup_core::Result<()> {
/// use backup_core::{MysqlTarget, Target};
/// let scratch = MysqlTarget::new("mysql://backup:s%40cret@localhost/scratch")?;
/// assert_eq!(scratch.location(), "mysql://backup@localhost:3306/scratch");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MysqlTarget {
    database: Database,
    connections: usize,
    /// What the restore found and made, for whoever removes it.
    place: Arc<Mutex<Option<Place>>>,
}

impl MysqlTarget {
    /// The database of a `mysql://USER:PASSWORD@HOST:PORT/DATABASE` URL; see
    /// [`MysqlSource::new`](crate::MysqlSource::new).
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
}

#[async_trait]
impl Target for MysqlTarget {
    fn location(&self) -> String {
        self.database.location()
    }

    async fn open(&self, manifest: &Manifest, filling: &Filling) -> Result<Box<dyn Intake>> {
        if manifest.source.kind != KIND {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the snapshot is of kind {}, and {} takes mysql", manifest.source.kind, self.location()),
            )
            .with_next_step("name a target of the snapshot's kind"));
        }
        if filling.clean || filling.only.is_some() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{} can be restored to as a whole, while it is empty or not there yet", self.location()),
            )
            .with_next_step("restore into a new database, and take from it what you need"));
        }
        let place = Place::prepare(&self.database).await?;
        // At once: what was made has to go, too, where the rest of this fails.
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        let database = place.database().clone();
        let mut sessions = Vec::new();
        for _ in 0..=self.connections {
            let mut session = database.connect().await?;
            database.run(&mut session, SESSION).await?;
            sessions.push(session);
        }
        let mut leader = sessions.pop().ok_or_else(|| Error::new(ErrorKind::Internal, "no session was opened"))?;
        let failed = |e| database.failed("could not be read", e);
        let server = Server::of(&mut leader).await.map_err(failed)?;
        let packet = leader.fetch_one(sqlx::raw_sql("SELECT CAST(@@max_allowed_packet AS CHAR)")).await;
        let packet: String = packet.and_then(|row| row.try_get_unchecked(0)).map_err(failed)?;
        let packet: usize = packet.parse().map_err(|e| {
            Error::new(ErrorKind::Target, format!("max_allowed_packet {packet:?} is no number")).with_source(e)
        })?;
        for setting in server.insert_settings() {
            for session in sessions.iter_mut().chain([&mut leader]) {
                database.run(session, &format!("SET SESSION {setting}")).await?;
            }
        }
        Ok(Box::new(MysqlIntake {
            database,
            place,
            leader: tokio::sync::Mutex::new(leader),
            free: Semaphore::new(sessions.len()),
            concurrency: sessions.len(),
            sessions: Mutex::new(sessions),
            statement: STATEMENT.min(packet / 4),
            ownership: filling.ownership,
            versions: (manifest.source.version.clone(), server.described()),
            later: Mutex::default(),
            tables: Mutex::default(),
            left_out: Mutex::default(),
            absent: Mutex::default(),
        }))
    }

    fn read_back(&self) -> Option<Box<dyn Source>> {
        let source = MysqlSource::of(self.database.as_side(Side::Source));
        Some(Box::new(source.without_users().with_connections(self.connections)))
    }

    async fn check_invariants(&self, text: &str) -> Result<Vec<Invariant>> {
        let mut session = self.database.connect().await?;
        self.database.run(&mut session, "SET SESSION TRANSACTION READ ONLY").await?;
        let mut out = Vec::new();
        for (name, sql) in named_statements(text) {
            let outcome = match session.fetch_all(sqlx::raw_sql(trusted(sql))).await {
                Ok(rows) if rows.is_empty() => InvariantOutcome::Holds,
                Ok(rows) => InvariantOutcome::Broken(rows.len() as u64),
                Err(e) => InvariantOutcome::Unknown(reason(&e)),
            };
            out.push(Invariant { name, outcome });
        }
        Ok(out)
    }

    async fn is_vacant(&self) -> Result<bool> {
        match self.database.connect().await {
            Ok(mut session) => place::is_vacant(&self.database, &mut session).await,
            Err(e) if place::is_missing(&e) => Ok(true),
            Err(e) => Err(e),
        }
    }

    async fn remove(&self) -> Result<()> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match place {
            Some(place) => place.remove().await,
            None => Ok(()),
        }
    }
}

/// What is made after the rows.
#[derive(Debug, Default)]
struct Later {
    keys: Vec<String>,
    references: Vec<String>,
}

struct MysqlIntake {
    database: Database,
    place: Place,
    leader: tokio::sync::Mutex<MySqlConnection>,
    free: Semaphore,
    concurrency: usize,
    sessions: Mutex<Vec<MySqlConnection>>,
    /// The longest statement of several rows, in bytes.
    statement: usize,
    ownership: bool,
    /// The server that the definitions come from, and this one.
    versions: (String, String),
    later: Mutex<Later>,
    tables: Mutex<Vec<String>>,
    /// What was left out, how often, and where first.
    left_out: Mutex<BTreeMap<String, (u64, String)>>,
    /// Definers that were kept and do not exist here, how often, and where first.
    absent: Mutex<BTreeMap<String, (u64, String)>>,
}

#[async_trait]
impl Intake for MysqlIntake {
    fn wants(&self, entry: &EntryRecord) -> bool {
        entry.kind != EntryKind::Globals
    }

    fn may_differ(&self, entry: &EntryRecord) -> Option<String> {
        if !matches!(entry.kind, EntryKind::PreData | EntryKind::PostData) {
            return None;
        }
        if self.versions.0 != self.versions.1 {
            return Some(format!(
                "not compared word by word: written by {}, read back from {}",
                self.versions.0, self.versions.1
            ));
        }
        let left_out = !self.ownership || !self.left_out.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        (entry.kind == EntryKind::PostData && left_out).then(|| "not all of it could be made as it was".into())
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    async fn take(&self, entry: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        match entry.kind {
            EntryKind::Data => self.load(entry, body).await,
            _ => self.define(entry, body).await,
        }
    }

    async fn abandon(self: Box<Self>) {
        let Self { place, leader, sessions, database, .. } = *self;
        drop((leader, sessions));
        if let Err(e) = place.remove().await {
            tracing::warn!(database = %database.location(), error = %e, "what the failed restore had brought is still there");
        }
    }

    async fn finish(self: Box<Self>) -> Result<Vec<String>> {
        let Self { database, leader, sessions, left_out, absent, tables, .. } = *self;
        let sessions = sessions.into_inner().unwrap_or_else(PoisonError::into_inner);
        for session in sessions {
            close(session).await;
        }
        let mut leader = leader.into_inner();
        let tables = tables.into_inner().unwrap_or_else(PoisonError::into_inner);
        for some in tables.chunks(50) {
            let names: Vec<String> = some.iter().map(|t| identifier(t)).collect();
            database.run(&mut leader, &format!("ANALYZE TABLE {}", names.join(", "))).await?;
        }
        close(leader).await;
        let left_out = left_out.into_inner().unwrap_or_else(PoisonError::into_inner);
        let absent = absent.into_inner().unwrap_or_else(PoisonError::into_inner);
        let absent = absent.into_iter().map(|(definer, (count, first))| {
            format!("the definer {definer} does not exist here: {count} definitions fail when they are used until it does, the first: {first}")
        });
        Ok(left_out
            .into_iter()
            .map(|(why, (count, first))| format!("{why}: {count} definitions, the first: {first}"))
            .chain(absent)
            .collect())
    }
}

impl MysqlIntake {
    /// Loads one table over one session, in the order it was read.
    async fn load(&self, entry: &EntryRecord, mut body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let mut session = self.session().await?;
        let mut inserts = Inserts::new(&entry.insert, self.statement);
        let mut since_commit = 0;
        loop {
            let piece = body.try_next().await?;
            let (full, is_last) = match &piece {
                Some(bytes) => (inserts.feed(bytes), false),
                None => {
                    let rest = std::mem::replace(&mut inserts, Inserts::new("", 0)).finish()?;
                    (rest.into_iter().collect(), true)
                }
            };
            for statement in full {
                since_commit += statement.len();
                let sql = String::from_utf8(statement).map_err(|e| {
                    Error::new(ErrorKind::Damaged, format!("a row of {} is no UTF-8", entry.subject)).with_source(e)
                })?;
                self.run(session.get()?, sql, &entry.subject).await?;
                if since_commit >= TRANSACTION {
                    self.run(session.get()?, "COMMIT".into(), &entry.subject).await?;
                    since_commit = 0;
                }
            }
            if is_last {
                break;
            }
        }
        self.run(session.get()?, "COMMIT".into(), &entry.subject).await?;
        session.give_back();
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).push(entry.subject.clone());
        Ok(())
    }

    async fn run(&self, session: &mut MySqlConnection, sql: String, what: &str) -> Result<()> {
        let done = session.execute(sqlx::raw_sql(trusted(sql))).await;
        done.map(drop).map_err(|e| self.database.failed(&format!("could not load {what}"), e))
    }

    /// Runs definitions.
    async fn define(&self, entry: &EntryRecord, mut body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let mut text = Vec::new();
        while let Some(bytes) = body.try_next().await? {
            text.extend_from_slice(&bytes);
        }
        let text = String::from_utf8(text)
            .map_err(|e| Error::new(ErrorKind::Damaged, format!("{} is no UTF-8", entry.name)).with_source(e))?;
        if entry.kind == EntryKind::PostData {
            self.finish_tables().await?;
        }
        for object in objects_of(&text)? {
            if entry.name == TABLES && object.kind == ObjectKind::Table {
                let parts = take_apart(&object.name, &object.sql);
                let mut leader = self.leader.lock().await;
                self.database.run(&mut leader, &parts.table).await.map_err(|e| named(e, &object.name))?;
                drop(leader);
                let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
                later.keys.extend(parts.keys);
                later.references.extend(parts.references);
            } else {
                self.make(&object).await?;
            }
        }
        Ok(())
    }

    /// Runs one definition, without its definer where that is refused.
    async fn make(&self, object: &Object) -> Result<()> {
        let mut leader = self.leader.lock().await;
        let without = without_definer(&object.sql);
        let sql = match &without {
            Some((sql, _)) if !self.ownership => sql.as_str(),
            _ => object.sql.as_str(),
        };
        match (self.database.run(&mut leader, sql).await, without) {
            // 1227: a right of the server's is missing; 1449: there is no such user.
            (Err(e), Some((sql, definer))) if matches!(number_of(&e), Some(1227 | 1449)) => {
                self.database.run(&mut leader, &sql).await.map_err(|e| named(e, &object.name))?;
                self.leave_out(
                    format!("the definer {definer} could not be kept, this user takes its place"),
                    &object.name,
                );
                Ok(())
            }
            (Err(e), _) if object.kind == ObjectKind::View && number_of(&e).is_some() => {
                // It did not work where it comes from, and its stand-in tells lies: all the rest is worth having.
                let drop = format!("DROP VIEW IF EXISTS {}", identifier(&object.name));
                self.database.run(&mut leader, &drop).await?;
                self.leave_out(format!("a view cannot be made ({e})"), &object.name);
                Ok(())
            }
            (Err(e), _) => Err(named(e, &object.name)),
            (Ok(()), Some((_, definer))) if self.ownership => {
                // A privileged user may name whomever he wants: the server only warns, and the shop fails later.
                let warnings = leader.fetch_all(sqlx::raw_sql("SHOW WARNINGS")).await;
                let warnings = warnings.map_err(|e| self.database.failed("could not be read", e))?;
                if warnings.iter().any(|w| w.try_get_unchecked::<String, _>(1).is_ok_and(|code| code == "1449")) {
                    let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
                    absent.entry(definer).or_insert_with(|| (0, object.name.clone())).0 += 1;
                }
                Ok(())
            }
            (Ok(()), _) => Ok(()),
        }
    }

    fn leave_out(&self, why: String, name: &str) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.entry(why).or_insert_with(|| (0, name.to_owned())).0 += 1;
    }

    /// Keys side by side, then foreign keys.
    async fn finish_tables(&self) -> Result<()> {
        let Later { keys, references } =
            std::mem::take(&mut *self.later.lock().unwrap_or_else(PoisonError::into_inner));
        futures::stream::iter(keys)
            .map(|sql| async move {
                let mut session = self.session().await?;
                self.database.run(session.get()?, &sql).await?;
                session.give_back();
                Ok::<(), Error>(())
            })
            .buffer_unordered(self.concurrency)
            .try_collect::<()>()
            .await?;
        let mut leader = self.leader.lock().await;
        for sql in references {
            self.database.run(&mut leader, &sql).await?;
        }
        Ok(())
    }

    async fn session(&self) -> Result<Session<'_>> {
        let gone =
            || Error::new(ErrorKind::Target, format!("{}: no session is left to fill it", self.database.location()));
        let permit = self.free.acquire().await.map_err(|_| gone())?;
        let session = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(gone)?;
        Ok(Session { intake: self, session: Some(session), _permit: permit })
    }
}

/// A borrowed session; one that is not given back is closed.
struct Session<'a> {
    intake: &'a MysqlIntake,
    session: Option<MySqlConnection>,
    _permit: tokio::sync::SemaphorePermit<'a>,
}

impl Session<'_> {
    fn get(&mut self) -> Result<&mut MySqlConnection> {
        self.session
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a session was used after it was given back"))
    }

    fn give_back(mut self) {
        let session = self.session.take();
        self.intake.sessions.lock().unwrap_or_else(PoisonError::into_inner).extend(session);
    }
}

/// The same error, saying what it is about.
fn named(e: Error, what: &str) -> Error {
    let error = Error::new(e.kind(), format!("{what}: {e}")).with_retry(e.is_retryable());
    match e.next_step() {
        Some(next) => error.with_next_step(next.to_owned()),
        None => error,
    }
}

/// A definition without its `DEFINER=…`, and who that was; `None` where there is none.
fn without_definer(sql: &str) -> Option<(String, String)> {
    // The server writes it before the name of the object, so before any text of a user's. Names are in double quotes
    // where the object was made under ANSI_QUOTES.
    let at = sql.find(" DEFINER=")?;
    let head = &sql[..at];
    let is_beginning = |w: &str| w.starts_with("ALGORITHM=") || ["CREATE", "OR", "REPLACE", "AGGREGATE"].contains(&w);
    if !head.split_whitespace().all(is_beginning) {
        return None;
    }
    let rest = &sql[at + " DEFINER=".len()..];
    let user = quoted(rest)?;
    let host = match rest[user..].strip_prefix('@') {
        Some(host) => 1 + quoted(host)?,
        None => 0,
    };
    let (definer, tail) = rest.split_at(user + host);
    Some((format!("{head}{tail}"), definer.to_owned()))
}

/// The length of a quoted name at the beginning of `text`.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| matches!(c, '`' | '"'))?;
    let mut inside = text[1..].char_indices().peekable();
    while let Some((at, c)) = inside.next() {
        if c == quote && inside.next_if(|(_, c)| *c == quote).is_none() {
            return Some(at + 2);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definer_is_left_out_and_nothing_else() {
        let sql = "CREATE OR REPLACE ALGORITHM=UNDEFINED DEFINER=`o``d`@`%` SQL SECURITY DEFINER VIEW `v` AS select 1";
        let (without, definer) = without_definer(sql).unwrap();
        assert_eq!(without, "CREATE OR REPLACE ALGORITHM=UNDEFINED SQL SECURITY DEFINER VIEW `v` AS select 1");
        assert_eq!(definer, "`o``d`@`%`");
        assert_eq!(
            without_definer("CREATE DEFINER=`role` FUNCTION `f`() RETURN 1").unwrap().0,
            "CREATE FUNCTION `f`() RETURN 1"
        );
        let sql = r#"CREATE DEFINER="root"@"localhost" PACKAGE "tools" AS END"#;
        assert_eq!(without_definer(sql).unwrap().0, r#"CREATE PACKAGE "tools" AS END"#);
        assert_eq!(without_definer("CREATE TABLE `a` (`b` text DEFAULT ' DEFINER=`x`')"), None);
    }
}
