//! PostgreSQL, 13 or newer.
//!
//! Reads the catalogue and the statistics views alone, never a table; a role without any rights beside `CONNECT` sees most of
//! it, one with `pg_monitor` all.

mod catalogue;
mod replication;
mod space;
mod vacuum;

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use self::space::{Estimate, Wanted};
use super::{Connect, Engine, failed, reason};
use crate::activity::{self, Connections, Seen, Sessions, SqliteContent, Unseen, Waiting};
use crate::capability::{Capabilities, Flavour, IndexUsage, NodeRole, Version};
use crate::check::bloat::Space;
use crate::error::{Error, ErrorKind, Result};
use crate::inspection::{Facts, InspectOptions};
use crate::schema::Schema;
use crate::session::Session;

/// How long a server may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How long one group of facts may take: longer than the server gives each statement.
const ANSWER: Duration = Duration::from_secs(90);
/// What every transaction of an inspection promises the shop. Nothing is set for the session, and no statement of it has a
/// name: behind a pooler the shop gets it next.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '1s'; \
    SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL TimeZone = 'UTC'; SET LOCAL search_path = ''";
/// Smaller tables and indexes waste nothing that matters.
const LEAST: u64 = 8 << 20;
/// What would show a role everything.
const GRANT: &str = "GRANT pg_monitor to this role";

/// A PostgreSQL database.
#[derive(Clone)]
pub struct Postgres {
    options: PgConnectOptions,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.location())
    }
}

impl Postgres {
    /// The database of a `postgres://USER:PASSWORD@HOST:PORT/DATABASE` URL; what it leaves out comes from the `PG…` variables
    /// and the password file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the URL makes no sense. The URL is not shown: it may hold half a password.
    pub fn new(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            Error::new(ErrorKind::Config, "this postgres:// URL cannot be understood").with_next_step(
                "write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / % in the password as %40 %3A %2F %25",
            )
        })?;
        Ok(Self { options: options.disable_statement_logging().application_name("caretaker") })
    }

    /// How much of each table and index of at least `least_bytes` holds nothing: by a model where it holds, else by the pages,
    /// of which `budget_bytes` are read in all (with the extension `pgstattuple`). The largest first.
    ///
    /// # Errors
    /// Where the database cannot be reached, or does not show its statistics.
    pub async fn space(&self, least_bytes: u64, budget_bytes: u64) -> Result<Vec<Space>> {
        let mut session = self.connect().await?;
        let capabilities = self.capabilities_of(&mut session).await?;
        let spaces = spaces(&mut session, &capabilities, Wanted { least_bytes, budget_bytes }).await;
        close(session).await;
        spaces.map_err(|e| self.failed("does not show what its tables are filled with", e))
    }

    async fn connect(&self) -> Result<PgConnection> {
        let connecting = PgConnection::connect_with(&self.options);
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(session) => session.map_err(|e| self.failed("cannot be opened", e)),
            Err(_) => {
                let text = format!("{} did not answer within {} s", self.location(), CONNECT.as_secs());
                Err(Error::new(ErrorKind::Unreachable, text))
            }
        }
    }

    fn failed(&self, what: &str, e: sqlx::Error) -> Error {
        failed(&self.location(), what, e, meaning)
    }

    async fn capabilities_of(&self, session: &mut PgConnection) -> Result<Capabilities> {
        let failed = |e| self.failed("does not say what it is", e);
        let row = read(session, async |s| sqlx::query(CAPABILITIES).persistent(false).fetch_one(s).await)
            .await
            .map_err(failed)?;
        let number: i32 = row.try_get("version").map_err(failed)?;
        let number = u32::try_from(number).unwrap_or(0);
        let version = Version { major: number / 10_000, minor: number % 10_000, patch: 0 };
        if version.major < 13 {
            let text = format!("{} is PostgreSQL {}.{}", self.location(), version.major, version.minor);
            return Err(Error::new(ErrorKind::Unsupported, text).with_next_step("13 is the oldest that is supported"));
        }
        let mut since: Option<DateTime<Utc>> = row.try_get("since").map_err(failed)?;
        if since.is_none() && row.try_get("sees_files").map_err(failed)? {
            let beginning =
                read(session, async |s| sqlx::query_scalar(BEGINNING).persistent(false).fetch_optional(s).await).await;
            since = beginning.map_err(failed)?.flatten();
        }
        let extensions: Vec<String> = row.try_get("extensions").map_err(failed)?;
        let counts: bool = row.try_get("counts").map_err(failed)?;
        let role = match (row.try_get("standby").map_err(failed)?, row.try_get("standbys").map_err(failed)?) {
            (true, _) => NodeRole::Replica,
            (false, true) => NodeRole::Primary,
            (false, false) => NodeRole::Single,
        };
        Ok(Capabilities {
            flavour: Flavour::Postgres,
            version,
            location: self.location(),
            role,
            extensions: extensions.into_iter().collect::<BTreeSet<_>>(),
            sees_tables: true,
            sees_sessions: row.try_get("sees_sessions").map_err(failed)?,
            counting_since: since.filter(|_| counts),
            index_usage: match counts {
                true => IndexUsage::CountedBy("pg_stat_user_indexes".into()),
                false => IndexUsage::NotCounted("track_counts is off: the server counts nothing".into()),
            },
            server_time: row.try_get("now").map_err(failed)?,
        })
    }
}

/// What an error of it means.
fn meaning(e: &sqlx::Error) -> (ErrorKind, &'static str) {
    let code = e.as_database_error().and_then(|e| e.code()).map(std::borrow::Cow::into_owned);
    match code.as_deref() {
        Some("28P01" | "28000") => (ErrorKind::Unreachable, "check user and password, and pg_hba.conf"),
        Some("3D000") => (ErrorKind::Unreachable, "check the database's name"),
        Some("42501") => (ErrorKind::Denied, GRANT),
        Some("55P03" | "57014" | "40001" | "40P01") => (ErrorKind::Busy, "try again when the others have finished"),
        Some(_) => (ErrorKind::Database, "look into the server's log"),
        None => (ErrorKind::Unreachable, "check that the server runs, and host, port and sslmode"),
    }
}

/// Since when it counts: since the database's counters were last reset; where they never were, since the later of its own
/// beginning, for whoever may look at its files, and the last time that all counters were lost.
const CAPABILITIES: &str = "SELECT current_setting('server_version_num')::int4 AS version, \
    ARRAY(SELECT extname::text FROM pg_extension) AS extensions, pg_is_in_recovery() AS standby, \
    EXISTS (SELECT FROM pg_stat_replication) OR EXISTS (SELECT FROM pg_replication_slots) AS standbys, \
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_sessions, \
    current_setting('track_counts')::bool AS counts, clock_timestamp() AS now, \
    (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS since, \
    has_function_privilege('pg_stat_file(text,boolean)', 'EXECUTE') AS sees_files";
/// In a transaction of its own: the database may lie elsewhere.
const BEGINNING: &str = "SELECT GREATEST((SELECT stats_reset FROM pg_stat_bgwriter), \
    (SELECT modification FROM pg_stat_file('base/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/PG_VERSION', true))) \
    WHERE (SELECT modification FROM pg_stat_file('base/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/PG_VERSION', true)) IS NOT NULL";

#[async_trait]
impl Engine for Postgres {
    fn location(&self) -> String {
        let place = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        };
        let database = self.options.get_database().unwrap_or(self.options.get_username());
        format!("postgres://{}@{place}/{database}", self.options.get_username())
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let mut session = self.connect().await?;
        let capabilities = self.capabilities_of(&mut session).await;
        close(session).await;
        capabilities
    }
}

#[async_trait]
impl Connect for Postgres {
    async fn session(&self) -> Result<Session> {
        Ok(Session::postgres(self.connect().await?, self.location(), meaning))
    }

    async fn lasting_session(&self, limit: Duration) -> Result<Session> {
        // Told at the start, so that nothing has to be set: a pooler refuses it, or does not pass it on, which is looked at.
        let wanted = [("lock_timeout", "1s".to_owned()), ("statement_timeout", format!("{}s", limit.as_secs().max(1)))];
        let with_limits = Self { options: self.options.clone().options(wanted.iter().map(|(k, v)| (*k, v.as_str()))) };
        let next = "give the server's own address: what takes long must not go through a pooler";
        let session = with_limits.connect().await.map_err(|e| {
            let is_pooler = e.to_string().contains("unsupported startup parameter");
            if is_pooler {
                Error::new(ErrorKind::Unsupported, e.to_string()).with_next_step(next).with_source(e)
            } else {
                e
            }
        })?;
        let mut session = Session::postgres(session, self.location(), meaning);
        let lock_timeout = session.one("SELECT current_setting('lock_timeout')", &[]).await;
        if lock_timeout.map_err(|e| session.error("does not say how long it waits", e))?.as_deref() != Some("1s") {
            let text = format!("{} does not pass on how long to wait for a lock", self.location());
            return Err(Error::new(ErrorKind::Unsupported, text).with_next_step(next));
        }
        session.limit(limit).await.map_err(|e| session.error("does not take a limit", e))?;
        // Where this process dies the server goes on until it looks for it; before 14 it never does.
        if let Err(e) = session.plain("SET client_connection_check_interval = '5s'").await
            && e.as_database_error().and_then(|e| e.code()).as_deref() != Some("42704")
        {
            return Err(session.error("does not take a limit", e));
        }
        Ok(session)
    }

    async fn schema(&self) -> Result<Schema> {
        let mut session = self.connect().await?;
        let version = self.capabilities_of(&mut session).await?.version;
        let schema = read(&mut session, async |s| catalogue::read(s, version).await).await;
        close(session).await;
        schema.map_err(|e| self.failed("does not show its tables", e))
    }

    async fn facts(&self, options: &InspectOptions) -> Result<Facts> {
        let mut session = self.connect().await?;
        let capabilities = self.capabilities_of(&mut session).await?;
        let now = options.now.unwrap_or(capabilities.server_time);
        let of = &capabilities;
        let hidden = || Unseen::unknown("this role does not see the sessions of others", GRANT);
        let facts = Facts {
            schema: seen(read(&mut session, async |s| catalogue::read(s, of.version).await).await),
            counters: seen(read(&mut session, async |s| catalogue::counters(s).await).await),
            connections: match of.sees_sessions {
                true => seen(read(&mut session, async |s| connections(s).await).await),
                false => Err(hidden()),
            },
            sessions: match of.sees_sessions {
                true => seen(read(&mut session, async |s| sessions(s, of.version).await).await),
                false => Err(hidden()),
            },
            vacuums: seen(read(&mut session, async |s| vacuum::read(s, of, now).await).await),
            spaces: seen(
                spaces(&mut session, of, Wanted { least_bytes: LEAST, budget_bytes: options.budget_bytes }).await,
            ),
            file: Err(Unseen::NotApplicable("it is not a SQLite file".into())),
            content: SqliteContent::absent(),
            // From the schema, with a session of its own.
            violations: Err(Unseen::unknown("the tables are not shown", GRANT)),
            replication: seen(read(&mut session, async |s| replication::read(s, of.role).await).await),
            modified: Err(Unseen::NotApplicable("only InnoDB counts so".into())),
            look: None,
            declared: Vec::new(),
            capabilities: capabilities.clone(),
        };
        close(session).await;
        Ok(facts)
    }
}

async fn close(session: PgConnection) {
    // Everything was read; whether the server hears of the end matters to nobody.
    let _ = session.close().await;
}

/// Reads one group of facts in a transaction of its own, and waits for the answer no longer than the server works on it.
async fn read<T>(
    session: &mut PgConnection,
    group: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let reading = async {
        session.execute(BEGIN).await?;
        let found = group(&mut *session).await;
        session.execute("ROLLBACK").await?;
        found
    };
    match tokio::time::timeout(ANSWER, reading).await {
        Ok(found) => found,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// A group of facts whose query failed is unknown, and the others are worth having.
fn seen<T>(read: Result<T, sqlx::Error>) -> Seen<T> {
    read.map_err(|e| {
        let remedy = match e.as_database_error().and_then(|e| e.code()).as_deref() {
            Some("42501") => GRANT,
            _ => "try again when what is in the way has finished",
        };
        Unseen::unknown(format!("the server did not say: {}", reason(&e)), remedy)
    })
}

async fn spaces(
    session: &mut PgConnection,
    capabilities: &Capabilities,
    wanted: Wanted,
) -> Result<Vec<Space>, sqlx::Error> {
    let estimates = read(session, async |s| space::estimate(s, wanted).await).await?;
    let extension = read(session, async |s| space::extension(s, capabilities).await).await?;
    let mut left = wanted.budget_bytes;
    let mut spaces = Vec::new();
    for Estimate { mut space, open } in estimates {
        if let Some(why) = open {
            space.wasted = match &extension {
                None => Err(format!("{why}; CREATE EXTENSION pgstattuple lets its pages be read")),
                Some(_) if space.bytes > left => Err(format!("{why}; its pages are more than may be read")),
                Some(schema) => {
                    left -= space.bytes;
                    // In a group of its own: one that is locked is unknown, and the others are worth having.
                    let measured = read(session, async |s| space::measure(s, schema, &space).await).await;
                    measured.map_err(|e| format!("{why}; its pages cannot be read: {}", reason(&e)))
                }
            };
        }
        spaces.push(space);
    }
    Ok(spaces)
}

async fn connections(session: &mut PgConnection) -> Result<Connections, sqlx::Error> {
    let sql = "SELECT GREATEST(current_setting('max_connections')::int8 \
                - current_setting('superuser_reserved_connections')::int8 \
                - COALESCE(current_setting('reserved_connections', true)::int8, 0), 0)";
    let usable: i64 = sqlx::query_scalar(sql).persistent(false).fetch_one(&mut *session).await?;
    let sql = "SELECT COALESCE(state, 'starting'), count(*) FROM pg_stat_activity \
            WHERE backend_type = 'client backend' GROUP BY 1 ORDER BY 1";
    let mut by_state = Vec::new();
    for row in sqlx::query(sql).persistent(false).fetch_all(&mut *session).await? {
        by_state.push((row.try_get(0)?, natural(row.try_get(1)?)));
    }
    let used = by_state.iter().map(|(_, n)| n).sum();
    Ok(Connections { used, usable: natural(usable), by_state, peak: None })
}

async fn sessions(session: &mut PgConnection, version: Version) -> Result<Sessions, sqlx::Error> {
    // Before 14 nobody knows since when: the statement began then at the earliest.
    let since = match version.major {
        13 => "a.query_start",
        _ => "COALESCE((SELECT min(l.waitstart) FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted), now())",
    };
    let sql = format!(
        "SELECT a.pid::int8, concat_ws(' ', a.usename, NULLIF(a.application_name, ''), host(a.client_addr)) AS who, \
           EXTRACT(EPOCH FROM clock_timestamp() - a.xact_start)::float8 AS open, \
           CASE WHEN a.state LIKE 'idle in transaction%' \
             THEN EXTRACT(EPOCH FROM clock_timestamp() - a.state_change)::float8 END AS idle, \
           CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid)::int8[] END AS blockers, \
           CASE WHEN a.wait_event_type = 'Lock' THEN EXTRACT(EPOCH FROM clock_timestamp() - {since})::float8 END AS waits \
         FROM pg_stat_activity a \
         WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL"
    );
    let mut found = Sessions::default();
    for row in sqlx::query(crate::ident::trusted(sql)).persistent(false).fetch_all(session).await? {
        let id = natural(row.try_get(0)?);
        let who: String = row.try_get("who")?;
        let open = seconds(row.try_get("open")?);
        let idle = row.try_get::<Option<f64>, _>("idle")?.map(seconds);
        if let (Some(blockers), Some(waits)) =
            (row.try_get::<Option<Vec<i64>>, _>("blockers")?, row.try_get::<Option<f64>, _>("waits")?)
            // It has what it waited for by now.
            && !blockers.is_empty()
        {
            let blockers = blockers.into_iter().map(natural).collect();
            found.waiting.push(Waiting { id, who: who.clone(), for_: seconds(waits), blockers });
        }
        found.open.push(activity::Session { id, who, open, idle });
    }
    Ok(found)
}

fn seconds(n: f64) -> TimeDelta {
    // Clocks of two moments may be out of order by a little.
    TimeDelta::milliseconds((n.max(0.0) * 1000.0) as i64)
}

fn natural(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
