//! PostgreSQL, 13 or newer.
//!
//! Reads the catalogue and the statistics views alone, never a table; a role without any rights beside `CONNECT` sees most of
//! it, one with `pg_monitor` all.

mod catalogue;
mod vacuum;

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::Engine;
use crate::activity::{Connections, Seen, Session, Sessions, Unseen, Waiting};
use crate::capability::{Capabilities, Flavour, IndexUsage, NodeRole, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::inspection::{Facts, InspectOptions, Inspection, judge};

/// How long a server may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(30);
/// What every session of an inspection promises the shop.
const SESSION: &str = "SET default_transaction_read_only = on; SET statement_timeout = '60s'; SET lock_timeout = '1s'; \
    SET idle_in_transaction_session_timeout = '60s'; SET TimeZone = 'UTC'; SET search_path = ''";
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

    async fn connect(&self) -> Result<PgConnection> {
        let connecting = PgConnection::connect_with(&self.options);
        let mut session = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(session) => session.map_err(|e| self.failed("cannot be opened", e))?,
            Err(_) => {
                let text = format!("{} did not answer within {} s", self.location(), CONNECT.as_secs());
                return Err(Error::new(ErrorKind::Unreachable, text));
            }
        };
        session.execute(SESSION).await.map_err(|e| self.failed("refuses the session's settings", e))?;
        Ok(session)
    }

    fn failed(&self, what: &str, e: sqlx::Error) -> Error {
        let code = e.as_database_error().and_then(|e| e.code()).map(std::borrow::Cow::into_owned);
        let (kind, next) = match code.as_deref() {
            Some("28P01" | "28000") => (ErrorKind::Unreachable, "check user and password, and pg_hba.conf"),
            Some("3D000") => (ErrorKind::Unreachable, "check the database's name"),
            Some("42501") => (ErrorKind::Denied, GRANT),
            Some("55P03" | "57014") => (ErrorKind::Busy, "try again when the others have finished"),
            Some(_) => (ErrorKind::Database, "look into the server's log"),
            None => (ErrorKind::Unreachable, "check that the server runs, and host, port and sslmode"),
        };
        let reason = e.as_database_error().map_or_else(|| e.to_string(), |e| e.message().to_owned());
        Error::new(kind, format!("{} {what}: {reason}", self.location())).with_next_step(next).with_source(e)
    }

    async fn capabilities_of(&self, session: &mut PgConnection) -> Result<Capabilities> {
        let failed = |e| self.failed("does not say what it is", e);
        let row = sqlx::query(CAPABILITIES).fetch_one(&mut *session).await.map_err(failed)?;
        let number: i32 = row.try_get("version").map_err(failed)?;
        let number = u32::try_from(number).unwrap_or(0);
        let version = Version { major: number / 10_000, minor: number % 10_000, patch: 0 };
        if version.major < 13 {
            let text = format!("{} is PostgreSQL {}.{}", self.location(), version.major, version.minor);
            return Err(Error::new(ErrorKind::Unsupported, text).with_next_step("13 is the oldest that is supported"));
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
            sees_sessions: row.try_get("sees_sessions").map_err(failed)?,
            counting_since: row.try_get::<Option<DateTime<Utc>>, _>("since").map_err(failed)?.filter(|_| counts),
            index_usage: match counts {
                true => IndexUsage::CountedBy("pg_stat_user_indexes".into()),
                false => IndexUsage::NotCounted("track_counts is off: the server counts nothing".into()),
            },
            server_time: row.try_get("now").map_err(failed)?,
        })
    }
}

/// Since when it counts: since the database's counters were last reset; since all of them were, after a crash or at the
/// beginning, where that never happened.
const CAPABILITIES: &str = "SELECT current_setting('server_version_num')::int4 AS version, \
    ARRAY(SELECT extname::text FROM pg_extension) AS extensions, pg_is_in_recovery() AS standby, \
    EXISTS (SELECT FROM pg_stat_replication) OR EXISTS (SELECT FROM pg_replication_slots) AS standbys, \
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_sessions, \
    current_setting('track_counts')::bool AS counts, clock_timestamp() AS now, \
    COALESCE((SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()), \
      (SELECT stats_reset FROM pg_stat_bgwriter), pg_postmaster_start_time()) AS since";

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

    async fn inspect(&self, options: &InspectOptions) -> Result<Inspection> {
        let mut session = self.connect().await?;
        let capabilities = self.capabilities_of(&mut session).await?;
        let now = options.now.unwrap_or(capabilities.server_time);
        let facts = Facts {
            schema: seen(catalogue::read(&mut session, capabilities.version).await),
            connections: connections(&mut session, &capabilities).await,
            sessions: sessions(&mut session, &capabilities).await,
            vacuums: seen(vacuum::read(&mut session, &capabilities, now).await),
            file: Err(Unseen::NotApplicable("it is not a SQLite file".into())),
            capabilities,
        };
        close(session).await;
        Ok(judge(facts, options))
    }
}

async fn close(session: PgConnection) {
    // Everything was read; whether the server hears of the end matters to nobody.
    let _ = session.close().await;
}

/// A group of facts whose query failed is unknown, and the others are worth having.
fn seen<T>(read: Result<T, sqlx::Error>) -> Seen<T> {
    read.map_err(|e| {
        let reason = e.as_database_error().map_or_else(|| e.to_string(), |e| e.message().to_owned());
        Unseen::unknown(format!("the server refused to say: {reason}"), GRANT)
    })
}

async fn connections(session: &mut PgConnection, capabilities: &Capabilities) -> Seen<Connections> {
    if !capabilities.sees_sessions {
        return Err(Unseen::unknown("this role does not see the sessions of others", GRANT));
    }
    let read = async {
        let sql = "SELECT GREATEST(current_setting('max_connections')::int8 \
                - current_setting('superuser_reserved_connections')::int8 \
                - COALESCE(current_setting('reserved_connections', true)::int8, 0), 0)";
        let usable: i64 = sqlx::query_scalar(sql).fetch_one(&mut *session).await?;
        let sql = "SELECT COALESCE(state, 'starting'), count(*) FROM pg_stat_activity \
            WHERE backend_type = 'client backend' GROUP BY 1 ORDER BY 1";
        let mut by_state = Vec::new();
        for row in sqlx::query(sql).fetch_all(&mut *session).await? {
            by_state.push((row.try_get(0)?, natural(row.try_get(1)?)));
        }
        let used = by_state.iter().map(|(_, n)| n).sum();
        Ok(Connections { used, usable: natural(usable), by_state, peak: None })
    };
    seen(read.await)
}

async fn sessions(session: &mut PgConnection, capabilities: &Capabilities) -> Seen<Sessions> {
    if !capabilities.sees_sessions {
        return Err(Unseen::unknown("this role does not see the sessions of others", GRANT));
    }
    // Before 14 nobody knows since when: the statement began then at the earliest.
    let since = match capabilities.version.major {
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
    let read = async {
        let mut found = Sessions::default();
        for row in sqlx::query(crate::ident::trusted(sql)).fetch_all(session).await? {
            let id = natural(row.try_get(0)?);
            let who: String = row.try_get("who")?;
            let open = seconds(row.try_get("open")?);
            let idle = row.try_get::<Option<f64>, _>("idle")?.map(seconds);
            if let (Some(blockers), Some(waits)) =
                (row.try_get::<Option<Vec<i64>>, _>("blockers")?, row.try_get::<Option<f64>, _>("waits")?)
                && !blockers.is_empty()
            {
                let blockers = blockers.into_iter().map(natural).collect();
                found.waiting.push(Waiting { id, who: who.clone(), for_: seconds(waits), blockers });
            }
            found.open.push(Session { id, who, open, idle });
        }
        Ok(found)
    };
    seen(read.await)
}

fn seconds(n: f64) -> TimeDelta {
    // Clocks of two moments may be out of order by a little.
    TimeDelta::milliseconds((n.max(0.0) * 1000.0) as i64)
}

fn natural(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
