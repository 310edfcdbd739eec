//! A MySQL or MariaDB database.
//!
//! An empty database is filled as it is; one that does not exist yet is made. Several tables are loaded side by side,
//! each over one session in the order it was read (on MariaDB as values of prepared statements, which it need not parse); secondary keys follow, side by side too, then foreign keys, then
//! routines, views, triggers and events. An event begins to run when it is there. A definer that this user may not name
//! is left out, so that this user becomes the definer, and that is told.
//!
//! **In place of a database** (`clean`): a new database beside it is filled first, programs included, so that nothing of
//! the old one is touched before everything is known to work. Then one `RENAME TABLE` puts all new tables in and takes all
//! old ones out; programs follow, and the old tables are dropped last. The user needs rights on the databases
//! `NAME_caretaker_partial` and `NAME_caretaker_replaced`. The server moves no table that has triggers: from some seconds
//! before the tables move until the programs are made the shop runs without them. The old programs are written down in
//! `NAME_caretaker_replaced.caretaker_programs` before they are dropped; a restore that is killed leaves that database.
//!
//! **Some tables** (`only`): one transaction of one session, which replaces the rows of tables that are there. Nobody
//! else writes to these tables meanwhile. Foreign keys from and to them are counted through before it is committed.

mod keys;
mod load;
mod place;
mod programs;
mod reference;
mod selection;
mod swap;
mod values;
mod whole;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use self::load::Loading;
use self::place::Place;
use self::selection::Selection;
use self::whole::Whole;
use super::{Filling, Intake, Invariant, InvariantOutcome, Orphans, Target, named_statements};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Manifest;
use crate::mysql::{Database, KIND, Server, Side, reason};
use crate::source::Source;
use crate::source::mysql::MysqlSource;
use crate::sql::trusted;

/// For the sessions that fill it: values as they were, in the order they come.
const SESSION: &str =
    "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0, unique_checks = 0, autocommit = 0";
/// Statements of rows are ended at this length in bytes, or at a fourth of what the server takes.
const STATEMENT: usize = 512 * 1024;
/// Rows are committed after so many bytes: nobody else is there, and a long transaction only costs.
const TRANSACTION: usize = 8 << 20;

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
        if let Some(only) = &filling.only {
            let (mut session, server) = filler(&self.database).await?;
            let loading = loading(&self.database, &mut session, &server, None).await?;
            let selection = Selection::look(&self.database, session, manifest, only, filling, loading).await?;
            return Ok(Box::new(selection));
        }
        let place = Place::prepare(&self.database, filling.clean).await?;
        // At once: what was made has to go, too, where the rest of this fails.
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        match self.open_whole(manifest, filling, &place).await {
            Ok(whole) => Ok(Box::new(whole)),
            Err(e) => {
                if let Err(left) = place.take_back().await {
                    tracing::warn!(error = %left, "what the failed restore had made is still there");
                }
                Err(e)
            }
        }
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

    async fn orphans(&self) -> Result<Vec<Orphans>> {
        let mut session = self.database.connect().await?;
        reference::orphans(&self.database, &mut session).await
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

impl MysqlTarget {
    async fn open_whole(&self, manifest: &Manifest, filling: &Filling, place: &Place) -> Result<Whole> {
        let database = place.database();
        let (mut leader, server) = filler(database).await?;
        let mut sessions = Vec::new();
        for _ in 0..self.connections {
            sessions.push(filler(database).await?.0);
        }
        let loading = loading(database, &mut leader, &server, Some(TRANSACTION)).await?;
        let versions = (manifest.source.version.clone(), server.described());
        Ok(Whole::new(place.clone(), leader, sessions, loading, filling.ownership, versions))
    }
}

/// A session that fills tables.
async fn filler(database: &Database) -> Result<(MySqlConnection, Server)> {
    let mut session = database.connect().await?;
    let server = Server::of(&mut session).await.map_err(|e| database.failed("could not be read", e))?;
    database.run(&mut session, SESSION).await?;
    for setting in server.insert_settings() {
        database.run(&mut session, &format!("SET SESSION {setting}")).await?;
    }
    Ok((session, server))
}

/// How this server's tables are loaded.
async fn loading(
    database: &Database,
    session: &mut MySqlConnection,
    server: &Server,
    commit_after: Option<usize>,
) -> Result<Loading> {
    let row = session.fetch_one(sqlx::raw_sql("SELECT CAST(@@max_allowed_packet AS CHAR)")).await;
    let packet: String =
        row.and_then(|row| row.try_get_unchecked(0)).map_err(|e| database.failed("could not be read", e))?;
    let packet: usize = packet.parse().map_err(|e| {
        Error::new(ErrorKind::Target, format!("max_allowed_packet {packet:?} is no number")).with_source(e)
    })?;
    // MySQL prepares a statement anew where the types of its values are others than the last time's.
    Ok(Loading { statement: STATEMENT.min(packet / 4), prepared: server.mariadb, commit_after })
}
