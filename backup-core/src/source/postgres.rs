//! A PostgreSQL database, 13 or newer.
//!
//! **One instant.** All tables are locked in `ACCESS SHARE` mode first, which reading and writing do not notice; then one
//! session takes a snapshot and exports it; every other session, `pg_dump` included, reads that snapshot. Locks come
//! before the snapshot because `TRUNCATE` and table rewrites look like empty tables to an older snapshot. If a table
//! came or went meanwhile, all of it begins again.
//!
//! **The shop goes on.** Somebody who wants to change a table (`ALTER TABLE`, `TRUNCATE`) has to wait for a backup, and
//! everybody else then waits behind him. So the backup looks every half second whether it is in anybody's way, and gives
//! up after [`lock_wait`](PostgresSource::with_lock_wait), ten seconds by default. It waits
//! for a lock for half a second itself, `pg_dump` for one, and then lets go of everything and begins again.
//!
//! **What is kept.** Definitions by `pg_dump`, in four entries: what comes before the data, what comes after it,
//! who owns and may use it, and event triggers. Rows by `COPY` in text form, over several connections, the biggest tables first. Sequences,
//! large objects, the rows of extensions' configuration tables. Roles and their password verifiers as `pg_dumpall`
//! writes them, as an entry of their own that no restore touches. Materialized views are filled again by the restore.
//! Foreign tables keep their definition; their rows live elsewhere. *Not* kept is what belongs to the database as a whole:
//! its owner, rights, collation and `ALTER DATABASE … SET`; a restore in place of a database keeps those of that one.
//! `pg_dump`'s warnings are problems of the snapshot.
//!
//! A role needs `SELECT` on everything, or `pg_read_all_data` (14 and newer), and must not be subject to row-level
//! security: a silent subset is refused.
//!
//! A standby can be read as well. What is `UNLOGGED` has no content there, which the snapshot says.

mod guard;
mod reader;
mod relation;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use self::guard::Guard;
use self::reader::Reader;
use self::relation::{Relation, Relations};
use super::sessions::Sessions;
use super::{Capture, CaptureContext, CaptureEnd, Entry, Piece, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, Problem, SourceInfo};
use crate::pipeline::Blocks;
use crate::postgres::{Database, KIND, Output, Programs, Server, Side, is_ownership, split, state_of};
use crate::sql::literal;
use crate::tier::Tier;

/// Definitions before the data.
const PRE_DATA: &str = "schema/pre-data";
/// Definitions after it.
const POST_DATA: &str = "schema/post-data";
/// Owners and grants.
pub(crate) const OWNERSHIP: &str = "schema/ownership";
/// Event triggers.
pub(crate) const EVENT_TRIGGERS: &str = "schema/event-triggers";
/// The values of sequences.
pub(crate) const SEQUENCES: &str = "data/sequences";
/// Large objects.
const LARGE_OBJECTS: &str = "data/large-objects";
/// Roles.
const ROLES: &str = "globals/roles";
/// So many sequences are read in one query.
const SEQUENCES_AT_ONCE: usize = 100;
/// How often the beginning is tried anew when a table came, went or was locked.
const ATTEMPTS: u32 = 8;
/// How long one lock is waited for before everything begins again.
const LEADER_WAIT: Duration = Duration::from_millis(500);
/// How long `pg_dump` may wait for a lock that our sessions hold as well.
const PROGRAM_WAIT: Duration = Duration::from_secs(1);

/// A live PostgreSQL database.
///
/// ```
/// # fn main() -> backup_core::Result<()> {
/// use backup_core::{PostgresSource, Source};
/// let shop = PostgresSource::new("postgres://backup:s%40cret@localhost/shop")?.named("shop").with_connections(2);
/// assert_eq!(shop.name(), "shop");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresSource {
    database: Database,
    name: String,
    connections: usize,
    lock_wait: Duration,
    programs: Option<PathBuf>,
    roles: bool,
    tier: Option<Tier>,
}

impl PostgresSource {
    /// The database of a `postgres://USER:PASSWORD@HOST:PORT/DATABASE` URL, named after itself. `?host=/run/postgresql`
    /// names a socket; `sslmode`, `sslrootcert`, `sslcert` and `sslkey` mean what they mean to `psql`; what is left out
    /// comes from the `PG…` variables and the password file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the URL makes no sense.
    pub fn new(url: &str) -> Result<Self> {
        let database = Database::parse(url, Side::Source)?;
        Ok(Self::of(database))
    }

    pub(crate) fn of(database: Database) -> Self {
        let name = database.name().to_owned();
        Self {
            database,
            name,
            connections: 2,
            lock_wait: Duration::from_secs(10),
            programs: None,
            roles: true,
            tier: None,
        }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same, reading over so many connections besides the one that holds the snapshot; 2 by default.
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

    /// The same with `pg_dump` and `pg_dumpall` from this folder, whatever the path says.
    #[must_use]
    pub fn with_programs(mut self, folder: impl Into<PathBuf>) -> Self {
        self.programs = Some(folder.into());
        self
    }

    /// The same without the roles of the server: to compare databases, not servers.
    #[must_use]
    pub fn without_roles(mut self) -> Self {
        self.roles = false;
        self
    }

    /// The same, with the rows of this tier only. Definitions and sequences are complete; large objects and the server's
    /// roles are left to full snapshots.
    #[must_use]
    pub fn only_tier(mut self, tier: Tier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// One attempt to fix an instant. `None` if a table came, went or was locked meanwhile.
    async fn begin(&self) -> Result<Option<PostgresCapture>> {
        let database = &self.database;
        let failed = |e| database.failed("could not be read", e);
        let mut leader = database.connect().await?;
        let server = Server::of(&mut leader).await.map_err(failed)?;
        if server.major < 13 {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{} is PostgreSQL {}; 13 is the oldest that is supported", database.location(), server.version),
            ));
        }
        let programs = Programs::find(self.programs.as_deref(), server.major).await?;

        // Outside of the transaction: listing takes a snapshot, and the locks have to come first.
        let before = Relations::list(&mut leader).await.map_err(failed)?;
        // Shorter than the server takes to look for deadlocks, so that no migration falls victim to one with us.
        let wait = self.lock_wait.min(LEADER_WAIT).as_millis();
        database
            .run(
                &mut leader,
                &format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = {wait}"),
            )
            .await?;
        if let Err(e) = self.lock(&mut leader, &before, "").await {
            return retry(e);
        }
        let row = sqlx::query("SELECT pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp(), CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END::text")
            .fetch_one(&mut leader)
            .await
            .map_err(failed)?;
        let snapshot: String = row.try_get(0).map_err(failed)?;
        let taken_at: DateTime<Utc> = row.try_get(1).map_err(failed)?;
        let position: Option<String> = row.try_get(2).map_err(failed)?;
        let relations = Relations::list(&mut leader).await.map_err(failed)?;
        if !relations.same_tables(&before) {
            return Ok(None);
        }

        let mut sessions = Vec::new();
        for _ in 0..self.connections {
            let mut session = database.connect().await?;
            let begin = format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
                literal(&snapshot)
            );
            database.run(&mut session, &begin).await?;
            // Whoever wants to change a table may be waiting behind the first session by now; nobody here waits behind him.
            if let Err(e) = self.lock(&mut session, &relations, " NOWAIT").await {
                return retry(e);
            }
            sessions.push(session);
        }
        let mut pids = Vec::new();
        for session in sessions.iter_mut().chain([&mut leader]) {
            pids.push(
                sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(session).await.map_err(failed)?,
            );
        }
        // From here on somebody watches whether we are in the way.
        let sessions = Sessions::new(database.location(), sessions);
        let guard = Guard::start(leader, pids, sessions.clone(), self.lock_wait, database.clone());
        let reader = Reader { database: database.clone(), sessions, blocks: Blocks::default() };
        let roles =
            async { if self.roles && self.tier.is_none() { Some(self.roles(&programs, &server).await) } else { None } };
        let (definitions, roles) = tokio::select! {
            both = futures::future::join(self.definitions(&programs, &snapshot), roles) => both,
            e = reader.sessions.state().broken() => (Err(e), None),
        };
        let definitions = match definitions {
            Ok(definitions) => definitions,
            Err(e) => return retry(e),
        };
        let look = async |session: &mut PgConnection| {
            let mut tables: Vec<&Relation> = relations.with_rows().collect();
            if let Some(tier) = &self.tier {
                tables = relations.of_tier(tier, session).await.map_err(failed)??;
            }
            let sizes = relation::sizes(&tables, session).await.map_err(failed)?;
            let large = match self.tier {
                Some(_) => Vec::new(),
                None => relation::large_objects(session).await.map_err(failed)?,
            };
            Ok((tables, sizes, large))
        };
        let (mut tables, sizes, large) = reader.sessions.with(look).await?;
        let mut problems: Vec<Problem> =
            definitions.warnings.iter().map(|w| Problem::new("pg_dump", w.as_str())).collect();
        let why = "it is unlogged, and this server is a standby: its content is on the primary alone, and not in this snapshot";
        problems.extend(relations.absent().map(|r| Problem::new(r.subject(), why)));
        tables.sort_by_key(|r| (std::cmp::Reverse(sizes.bytes(r)), r.qualified()));
        let rows = tables.into_iter().map(|table| {
            let body = match sizes.parts(table, server.major, self.connections) {
                Some(parts) => reader.copy_parts(parts, self.connections),
                None => reader.copy(table.copy_out()),
            };
            Entry::new(format!("data/{}.{}", table.schema, table.name), EntryKind::Data, table.subject(), body)
                .framed(format!("{};\n", table.copy_in()), "\\.\n\n")
        });
        let sequences: Vec<&Relation> = relations.sequences().collect();
        let entries = self.entries(&reader, rows.collect(), &sequences, large, definitions, roles, &mut problems);
        let info = SourceInfo::new(&self.name, KIND, database.location(), server.described(&programs));
        let position =
            position.map_or_else(|| format!("snapshot {snapshot}"), |p| format!("WAL {p}, snapshot {snapshot}"));
        Ok(Some(PostgresCapture { info, taken_at, position, problems, entries, guard, reader }))
    }

    async fn lock(&self, session: &mut PgConnection, relations: &Relations, how: &str) -> Result<()> {
        let tables: Vec<String> = relations.lockable().map(|r| format!("ONLY {}", r.qualified())).collect();
        if tables.is_empty() {
            return Ok(());
        }
        let sql = format!("LOCK TABLE {} IN ACCESS SHARE MODE{how}", tables.join(", "));
        self.database.run(session, &sql).await
    }

    /// What `pg_dump` writes under our snapshot, in the order of a restore.
    async fn definitions(&self, programs: &Programs, snapshot: &str) -> Result<Definitions> {
        let snapshot = format!("--snapshot={snapshot}");
        // We hold these locks already: whoever keeps pg_dump from them waits for us, and would wait for ever.
        let wait = format!("--lock-wait-timeout={}", self.lock_wait.min(PROGRAM_WAIT).as_millis());
        // Large objects are read with the data; some versions would make them here, others not.
        let arguments = [snapshot.as_str(), wait.as_str(), "--encoding=UTF8", "--no-password", "-B"];
        let (before, Output { text: after, warnings }) = programs.definitions(&arguments, &self.database).await?;
        let mut definitions = Definitions { warnings, ..Definitions::default() };
        for (text, out) in [(&before, 0), (&after, 1)] {
            for statement in split(text) {
                let words: Vec<&str> = statement.split_whitespace().take(4).collect();
                let event_trigger = matches!(
                    words[..],
                    ["CREATE" | "ALTER", "EVENT", "TRIGGER", ..] | ["COMMENT", "ON", "EVENT", "TRIGGER"]
                );
                let out = match (is_ownership(statement), out) {
                    _ if event_trigger => &mut definitions.last,
                    (true, _) => &mut definitions.ownership,
                    (false, 0) => &mut definitions.before,
                    _ => &mut definitions.after,
                };
                out.push_str(statement);
                out.push_str(";\n");
            }
        }
        Ok(definitions)
    }

    /// The server's roles; without password verifiers where only a superuser could read those.
    async fn roles(&self, programs: &Programs, server: &Server) -> Result<String> {
        let database = format!("--database={}", self.database.name());
        let mut arguments = vec!["--globals-only", "--no-password", database.as_str()];
        if !server.superuser {
            arguments.push("--no-role-passwords");
        }
        let output = programs.run("pg_dumpall", &arguments, &self.database).await?;
        Ok(split(&output.text).into_iter().map(|s| format!("{s};\n")).collect())
    }

    #[allow(clippy::too_many_arguments)]
    fn entries(
        &self,
        reader: &Reader,
        rows: Vec<Entry>,
        sequences: &[&Relation],
        large: Vec<relation::LargeObject>,
        definitions: Definitions,
        roles: Option<Result<String>>,
        problems: &mut Vec<Problem>,
    ) -> VecDeque<Entry> {
        let mut entries = VecDeque::new();
        entries.push_back(text(PRE_DATA, EntryKind::PreData, "definitions", definitions.before));
        entries.extend(rows);
        if !sequences.is_empty() {
            // One query over thousands of them would take minutes to plan.
            let queries = sequences.chunks(SEQUENCES_AT_ONCE).map(relation::sequence_values).collect();
            entries.push_back(Entry::new(SEQUENCES, EntryKind::Data, "sequences", reader.lines(queries)));
        }
        let mut ownership = definitions.ownership;
        if !large.is_empty() {
            for object in &large {
                ownership.push_str(&object.ownership);
            }
            entries.push_back(Entry::new(
                LARGE_OBJECTS,
                EntryKind::Data,
                "large objects",
                reader.large_objects(large.into_iter().map(|o| o.oid).collect()),
            ));
        }
        entries.push_back(text(POST_DATA, EntryKind::PostData, "definitions", definitions.after));
        entries.push_back(text(OWNERSHIP, EntryKind::PostData, "owners and grants", ownership));
        if !definitions.last.is_empty() {
            entries.push_back(text(EVENT_TRIGGERS, EntryKind::PostData, "event triggers", definitions.last));
        }
        match roles {
            Some(Ok(roles)) => entries.push_back(text(ROLES, EntryKind::Globals, "roles", roles)),
            Some(Err(e)) => problems.push(Problem::new("roles", e.to_string())),
            None => {}
        }
        entries
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn tier(&self) -> Option<&str> {
        self.tier.as_ref().map(Tier::name)
    }

    async fn capture(&self, _: CaptureContext) -> Result<Box<dyn Capture>> {
        for attempt in 1..=ATTEMPTS {
            if let Some(capture) = self.begin().await? {
                return Ok(Box::new(capture));
            }
            tracing::info!(attempt, database = %self.database.location(), "tables were changed or locked just now; beginning again");
            tokio::time::sleep(Duration::from_millis(100 << attempt.min(5))).await;
        }
        Err(Error::new(
            ErrorKind::SourceBusy,
            format!(
                "{}: no quiet moment was found in {ATTEMPTS} attempts; tables are being made, dropped or locked all the time",
                self.database.location()
            ),
        )
        .with_next_step("try again when the migration or maintenance that does this has finished"))
    }
}

/// A lock that was not to be had is a reason to begin again; so is a table that vanished before it was locked.
fn retry<T>(e: Error) -> Result<Option<T>> {
    let gone = matches!(state_of(&e).as_deref(), Some("42P01" | "3F000" | "40P01"));
    if gone || e.kind() == ErrorKind::SourceBusy { Ok(None) } else { Err(e) }
}

/// What `pg_dump` wrote.
#[derive(Default)]
struct Definitions {
    before: String,
    after: String,
    ownership: String,
    /// Event triggers: they would fire at everything before them.
    last: String,
    warnings: Vec<String>,
}

fn text(name: &str, kind: EntryKind, subject: &str, text: String) -> Entry {
    Entry::new(name, kind, subject, futures::stream::iter([Ok(Piece::from(Bytes::from(text)))]))
}

struct PostgresCapture {
    info: SourceInfo,
    taken_at: DateTime<Utc>,
    position: String,
    problems: Vec<Problem>,
    entries: VecDeque<Entry>,
    guard: Guard,
    reader: Reader,
}

#[async_trait]
impl Capture for PostgresCapture {
    fn info(&self) -> SourceInfo {
        self.info.clone()
    }

    async fn next(&mut self) -> Result<Option<Entry>> {
        self.reader.sessions.state().check()?;
        Ok(self.entries.pop_front())
    }

    async fn finish(self: Box<Self>) -> Result<CaptureEnd> {
        let Self { taken_at, position, problems, guard, .. } = *self;
        // Only while the first session lived did the snapshot hold.
        guard.finish().await?;
        let count = problems.len() as u64;
        Ok(CaptureEnd::at(taken_at).with_position(position).with_problems(problems, count))
    }
}

/// Ends a session politely; one that does not answer is just dropped.
async fn close(session: PgConnection) {
    if let Ok(Err(e)) = tokio::time::timeout(Duration::from_secs(2), session.close()).await {
        tracing::debug!(error = %e, "a session did not end politely");
    }
}
