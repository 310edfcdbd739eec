//! A MySQL or MariaDB database.
//!
//! **One instant.** For a moment nobody may commit (MariaDB: `BACKUP STAGE BLOCK_COMMIT`; MySQL: `FLUSH TABLES WITH READ
//! LOCK`). In it every session begins its transaction with a consistent snapshot and touches every table, so that no
//! table can change its definition before it is read; tables of engines without transactions are locked for reading, and
//! read first. Then commits go on. Without the right `RELOAD` one session alone reads everything, and the snapshot says so.
//!
//! **The shop goes on.** Somebody who wants to change a table waits for the backup, and everybody else then waits behind
//! him. So the backup looks every half second whether anybody waits for a table, and gives up after
//! [`lock_wait`](MysqlSource::with_lock_wait), ten seconds by default; it needs the right `PROCESS` to see that.
//!
//! **What is kept.** Tables, sequences, views, routines, triggers and events as the server shows them, each with its
//! `sql_mode`, character sets and time zone; rows as `INSERT` text that is safe for every type; the history of
//! system-versioned tables; users and grants, where they may be read, as an entry of their own that no restore touches.
//! Not kept: what belongs to the server as a whole, such as its settings, plugins and user-defined functions.

mod begin;
mod definition;
mod guard;
mod row;
mod table;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::mysql::MySqlConnection;

use self::begin::{Begun, begin};
pub(crate) use self::definition::{programs, table as table_definition};
use self::guard::Guard;
use self::table::Select;
pub(crate) use self::table::{Table, list};
use super::sessions::Sessions;
use super::{Capture, CaptureContext, CaptureEnd, Entry, Piece, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, Problem, SourceInfo};
use crate::mysql::{Database, KIND, Object, Side, number_of, write};
use crate::pipeline::Blocks;
use crate::tier::Tier;

/// The settings of the database.
pub(crate) const SETTINGS: &str = "schema/settings";
/// Tables and sequences.
pub(crate) const TABLES: &str = "schema/pre-data";
/// What comes after the rows.
pub(crate) const PROGRAMS: &str = "schema/post-data";
/// Users and their rights.
const USERS: &str = "globals/users";
/// How often the beginning is tried anew when a table was changed or locked.
const ATTEMPTS: u32 = 8;

/// A live MySQL or MariaDB database.
///
/// ```
/// # fn main() -> backup_core::Result<()> {
/// use backup_core::{MysqlSource, Source};
/// let shop = MysqlSource::new("mysql://backup:s%40cret@localhost/shop")?.with_connections(2);
/// assert_eq!(shop.name(), "shop");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MysqlSource {
    database: Database,
    name: String,
    connections: usize,
    lock_wait: Duration,
    users: bool,
    tier: Option<Tier>,
}

impl MysqlSource {
    /// The database of a `mysql://USER:PASSWORD@HOST:PORT/DATABASE` URL (or `mariadb://…`), named after itself.
    /// `?socket=/run/mysqld/mysqld.sock` names a socket; `ssl-mode`, `ssl-ca`, `ssl-cert` and `ssl-key` mean what they mean
    /// to the server's own client.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the URL makes no sense.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self::of(Database::parse(url, Side::Source)?))
    }

    pub(crate) fn of(database: Database) -> Self {
        let name = database.name().to_owned();
        Self { database, name, connections: 2, lock_wait: Duration::from_secs(10), users: true, tier: None }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same, reading over so many connections; 2 by default.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, 32);
        self
    }

    /// The same with another time for which it may stand in anybody's way.
    #[must_use]
    pub fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait.max(Duration::from_millis(100));
        self
    }

    /// The same without the users of the server: to compare databases, not servers.
    #[must_use]
    pub fn without_users(mut self) -> Self {
        self.users = false;
        self
    }

    /// The same, with the rows of this tier only. Definitions are complete; users are left to full snapshots.
    #[must_use]
    pub fn only_tier(mut self, tier: Tier) -> Self {
        self.tier = Some(tier);
        self
    }

    async fn read(&self, begun: Begun) -> Result<MysqlCapture> {
        let Begun { server, tables, sessions, locked, watcher, taken_at, position, mut problems } = begun;
        let database = &self.database;
        let sessions = Sessions::new(database.location(), sessions);
        let locked = locked.map(|session| Sessions::new(database.location(), vec![session]));
        let guard = Guard::start(
            watcher,
            [Some(&sessions), locked.as_ref()].into_iter().flatten().cloned().collect(),
            self.lock_wait,
            database.clone(),
        );
        let look = async |session: &mut MySqlConnection| {
            let failed = |e| database.failed("could not be read", e);
            let definitions = definition::read(database, session, &server, &tables).await?;
            let users = if self.users && self.tier.is_none() {
                Some(definition::users(session, &server).await.map_err(failed)?)
            } else {
                None
            };
            let needs = table::needs(session, database.name(), &tables).await.map_err(failed)?;
            let all = tables.iter().map(|t| t.bytes).sum();
            let mut parts = HashMap::new();
            for table in &tables {
                if let Some(key) = table.numbered_by(all, self.connections)
                    && let Some((first, last)) = table::range(session, table, key).await.map_err(failed)?
                {
                    parts.insert(table.name.clone(), table.select_parts(key, first, last));
                }
            }
            Ok((definitions, users, needs, parts))
        };
        let (definitions, users, needs, mut parts) = sessions.with(look).await?;
        problems.extend(definitions.problems);
        let members = match &self.tier {
            Some(tier) => tier.members(&tables.iter().map(|t| t.name.clone()).collect::<Vec<_>>(), &needs)?,
            None => vec![true; tables.len()],
        };

        let mut entries = VecDeque::new();
        entries.push_back(text(SETTINGS, EntryKind::PreData, "definitions", &definitions.settings));
        entries.push_back(text(TABLES, EntryKind::PreData, "definitions", &definitions.tables));
        let mut with_rows: Vec<&Table> =
            tables.iter().zip(&members).filter(|(t, is_member)| **is_member && t.has_rows()).map(|(t, _)| t).collect();
        // Those that others cannot write to meanwhile first, then the biggest.
        with_rows.sort_by_key(|t| (t.is_transactional(), std::cmp::Reverse(t.bytes), t.name.clone()));
        let in_locked = with_rows.iter().filter(|t| !t.is_transactional()).count();
        if let Some(locked) = locked.as_ref().filter(|_| in_locked == 0) {
            // A tier without any of them.
            locked.with(async |session| database.run(session, "UNLOCK TABLES").await).await?;
        }
        let locked_left = Arc::new(AtomicUsize::new(in_locked));
        let blocks = Blocks::default();
        for table in with_rows {
            let (from, left) = match &locked {
                Some(locked) if !table.is_transactional() => (locked, Some(Arc::clone(&locked_left))),
                _ => (&sessions, None),
            };
            let work = {
                let (database, blocks) = (database.clone(), blocks.clone());
                move |select: Select| {
                    let (database, blocks, left) = (database.clone(), blocks.clone(), left.clone());
                    move |mut session, send| async move {
                        row::read(&database, &mut session, &select, &send, &blocks).await?;
                        if left.is_some_and(|left| left.fetch_sub(1, Ordering::AcqRel) == 1) {
                            // Whoever writes to them has waited long enough.
                            database.run(&mut session, "UNLOCK TABLES").await?;
                        }
                        Ok(session)
                    }
                }
            };
            let body = match parts.remove(&table.name) {
                Some(parts) => from.read_parts(parts.into_iter().map(work), self.connections),
                None => from.read(work(table.select())),
            };
            let name = format!("data/{}", table.name);
            let entry = Entry::new(name, EntryKind::Data, &table.name, body).inserted(table.insert());
            entries.push_back(if table.is_transactional() { entry } else { entry.urgent() });
        }
        entries.push_back(text(PROGRAMS, EntryKind::PostData, "definitions", &definitions.programs));
        if let Some(None) = users {
            let why = "this user may not read them (SELECT on mysql.*): they are not in the snapshot";
            problems.push(Problem::new("users", why));
        }
        if let Some(Some(users)) = users {
            let body = futures::stream::iter([Ok(Piece::from(Bytes::from(users)))]);
            entries.push_back(Entry::new(USERS, EntryKind::Globals, "users", body));
        }
        let info = SourceInfo::new(&self.name, KIND, database.location(), server.described());
        Ok(MysqlCapture { info, taken_at, position, problems, entries, guard, sessions })
    }
}

#[async_trait]
impl Source for MysqlSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn tier(&self) -> Option<&str> {
        self.tier.as_ref().map(Tier::name)
    }

    async fn capture(&self, _: CaptureContext) -> Result<Box<dyn Capture>> {
        for attempt in 1..=ATTEMPTS {
            match begin(&self.database, self.connections).await {
                Ok(Some(begun)) => return Ok(Box::new(self.read(begun).await?)),
                // A table that vanished before it was touched, or was locked: all of it again.
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::SourceBusy || number_of(&e) == Some(1146) => {}
                Err(e) => return Err(e),
            }
            tracing::info!(attempt, database = %self.database.location(), "tables were changed or locked just now; beginning again");
            tokio::time::sleep(Duration::from_millis(100 << attempt.min(5))).await;
        }
        Err(Error::new(
            ErrorKind::SourceBusy,
            format!(
                "{}: no quiet moment was found in {ATTEMPTS} attempts; tables are being changed or locked all the time",
                self.database.location()
            ),
        )
        .with_next_step("try again when the migration, maintenance or long query that does this has finished"))
    }
}

fn text(name: &str, kind: EntryKind, subject: &str, objects: &[Object]) -> Entry {
    Entry::new(name, kind, subject, futures::stream::iter([Ok(Piece::from(Bytes::from(write(objects))))]))
}

struct MysqlCapture {
    info: SourceInfo,
    taken_at: DateTime<Utc>,
    position: String,
    problems: Vec<Problem>,
    entries: VecDeque<Entry>,
    guard: Guard,
    sessions: Sessions<MySqlConnection>,
}

#[async_trait]
impl Capture for MysqlCapture {
    fn info(&self) -> SourceInfo {
        self.info.clone()
    }

    async fn next(&mut self) -> Result<Option<Entry>> {
        self.sessions.state().check()?;
        Ok(self.entries.pop_front())
    }

    async fn finish(self: Box<Self>) -> Result<CaptureEnd> {
        let Self { taken_at, position, problems, guard, sessions, .. } = *self;
        guard.finish().await?;
        sessions.state().check()?;
        let count = problems.len() as u64;
        Ok(CaptureEnd::at(taken_at).with_position(position).with_problems(problems, count))
    }
}
