//! MySQL 8 and newer, MariaDB 10.6 and newer.
//!
//! Reads `information_schema`, `performance_schema` and the server's status alone. Of tables it sees those that the user has
//! any right on; of sessions, with the right `PROCESS`, all.

mod catalogue;
mod replication;

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{NaiveDateTime, TimeDelta};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::{Connect, Engine, failed, reason};
use crate::activity::{self, Connections, Seen, Sessions, SqliteContent, Unseen, Waiting};
use crate::capability::{Capabilities, Flavour, IndexUsage, NodeRole, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::ident::trusted;
use crate::inspection::{Facts, InspectOptions};
use crate::schema::Schema;
use crate::session::Session;

/// How long a server may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How long one group of facts may take: longer than the server gives each statement.
const ANSWER: Duration = Duration::from_secs(90);
/// What would show a user everything.
const GRANT: &str = "GRANT PROCESS ON *.* and SELECT ON performance_schema.* to this user";

/// A MySQL or MariaDB database.
#[derive(Clone)]
pub struct Mysql {
    options: MySqlConnectOptions,
    database: String,
}

impl std::fmt::Debug for Mysql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.location())
    }
}

impl Mysql {
    /// The database of a `mysql://USER:PASSWORD@HOST:PORT/DATABASE` URL, or `mariadb://…`; `?socket=PATH` names a socket.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the URL makes no sense or names no database. The URL is not shown: it may hold half a
    /// password.
    pub fn new(url: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::Config, format!("this mysql:// URL cannot be understood: {why}")).with_next_step(
                "write mysql://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / % in the password as %40 %3A %2F %25",
            )
        };
        let options = MySqlConnectOptions::from_str(url).map_err(|_| wrong("host, port or a parameter"))?;
        let database = options.get_database().filter(|name| !name.is_empty()).map(str::to_owned);
        let database = database.ok_or_else(|| wrong("it names no database"))?;
        // What the driver would set for programs changes what SQL means.
        let options = options
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .charset("utf8mb4")
            .disable_statement_logging();
        Ok(Self { options, database })
    }

    async fn connect(&self) -> Result<MySqlConnection> {
        let connecting = MySqlConnection::connect_with(&self.options);
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

    async fn capabilities_of(&self, session: &mut MySqlConnection) -> Result<Capabilities> {
        let failed = |e| self.failed("does not say what it is", e);
        let row = session
            .fetch_one("SELECT VERSION(), CAST(@@version_comment AS CHAR), @@performance_schema, UTC_TIMESTAMP(6)")
            .await
            .map_err(failed)?;
        let text: String = row.try_get_unchecked(0).map_err(failed)?;
        let comment: String = row.try_get_unchecked(1).map_err(failed)?;
        let is_mariadb = text.contains("MariaDB") || comment.contains("MariaDB");
        let version = Version::parse(&text);
        let oldest = if is_mariadb {
            Version { major: 10, minor: 6, patch: 0 }
        } else {
            Version { major: 8, minor: 0, patch: 0 }
        };
        if version < oldest {
            let text = format!("{} is {text}", self.location());
            return Err(Error::new(ErrorKind::Unsupported, text)
                .with_next_step("MySQL 8.0 and MariaDB 10.6 are the oldest that are supported"));
        }
        let limits = match is_mariadb {
            // Times of transactions are in the system's zone, whatever the server's own is.
            true => {
                "SET SESSION max_statement_time = 60, lock_wait_timeout = 1, tx_read_only = 1, time_zone = 'SYSTEM'"
            }
            false => {
                "SET SESSION max_execution_time = 60000, lock_wait_timeout = 1, transaction_read_only = 1, \
                 time_zone = 'SYSTEM', information_schema_stats_expiry = 0"
            }
        };
        session.execute(limits).await.map_err(failed)?;
        let now: NaiveDateTime = row.try_get_unchecked(3).map_err(failed)?;
        let performance_schema: i64 = row.try_get_unchecked(2).map_err(failed)?;
        let status = status(session).await.map_err(failed)?;
        let uptime = status.get("Uptime_since_flush_status").or_else(|| status.get("Uptime")).copied();
        // Without the right the server refuses, and that is the answer.
        let sees_sessions = session.fetch_all("SELECT trx_id FROM information_schema.INNODB_TRX LIMIT 1").await.is_ok();
        let flavour = if is_mariadb { Flavour::MariaDb } else { Flavour::Mysql };
        Ok(Capabilities {
            flavour,
            version,
            location: self.location(),
            role: role(session, is_mariadb, sees_sessions).await.map_err(failed)?,
            extensions: BTreeSet::new(),
            sees_tables: sees_tables(session).await.map_err(failed)?,
            sees_sessions,
            // It tells whole seconds: then, or within the second before.
            counting_since: uptime.map(|s| (now - TimeDelta::seconds(i64::try_from(s).unwrap_or(0) + 1)).and_utc()),
            index_usage: match index_usage(session, is_mariadb, performance_schema != 0, &status).await {
                Ok(by) => IndexUsage::CountedBy(by),
                Err(why) => IndexUsage::NotCounted(why),
            },
            server_time: now.and_utc(),
        })
    }
}

/// What an error of it means.
fn meaning(e: &sqlx::Error) -> (ErrorKind, &'static str) {
    match number_of(e) {
        Some(1045 | 1698) => (ErrorKind::Unreachable, "check user and password, and from which host it may connect"),
        Some(1044 | 1049) => (ErrorKind::Unreachable, "check the database's name, and that this user may use it"),
        Some(1142 | 1143 | 1227) => (ErrorKind::Denied, GRANT),
        Some(1205 | 1213 | 3024 | 1969) => (ErrorKind::Busy, "try again when the others have finished"),
        Some(1665) => (ErrorKind::Unsupported, "set binlog_format to MIXED or ROW: small transactions need it"),
        Some(_) => (ErrorKind::Database, "look into the server's log"),
        None => (ErrorKind::Unreachable, "check that the server runs, and host, port and ssl-mode"),
    }
}

#[async_trait]
impl Engine for Mysql {
    fn location(&self) -> String {
        let place = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        };
        format!("mysql://{}@{place}/{}", self.options.get_username(), self.database)
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let mut session = self.connect().await?;
        let capabilities = self.capabilities_of(&mut session).await;
        close(session).await;
        capabilities
    }
}

#[async_trait]
impl Connect for Mysql {
    async fn session(&self) -> Result<Session> {
        let failed_to_begin = |e| self.failed("cannot be told how to work", e);
        let mut session = self.connect().await?;
        let version =
            session.fetch_one("SELECT CONCAT(VERSION(), ' ', @@version_comment)").await.map_err(failed_to_begin)?;
        let version: String = version.try_get_unchecked(0).map_err(failed_to_begin)?;
        let flavour = if version.contains("MariaDB") { Flavour::MariaDb } else { Flavour::Mysql };
        // No gap is locked for the shop, nothing is cut to fit, and a session that fell asleep is ended with what it holds.
        let limits = "SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1, wait_timeout = 15, \
            sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), foreign_key_checks = 1, unique_checks = 1";
        session.execute(limits).await.map_err(failed_to_begin)?;
        session.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.map_err(failed_to_begin)?;
        if flavour == Flavour::MariaDb {
            session.execute("SET SESSION idle_transaction_timeout = 10").await.map_err(failed_to_begin)?;
        }
        Ok(Session::mysql(session, flavour, self.location(), meaning))
    }

    async fn lasting_session(&self, limit: Duration) -> Result<Session> {
        let mut session = self.session().await?;
        session.limit(limit).await.map_err(|e| session.error("does not take a limit", e))?;
        // It rests while others are asked.
        session.plain("SET SESSION wait_timeout = 300").await.map_err(|e| session.error("does not take a limit", e))?;
        Ok(session)
    }

    async fn schema(&self) -> Result<Schema> {
        let mut session = self.connect().await?;
        let capabilities = self.capabilities_of(&mut session).await?;
        let schema = bounded(catalogue::read(&mut session, &capabilities)).await;
        close(session).await;
        schema.map_err(|e| self.failed("does not show its tables", e))
    }

    async fn facts(&self, _: &InspectOptions) -> Result<Facts> {
        let mut session = self.connect().await?;
        let capabilities = self.capabilities_of(&mut session).await?;
        let no_vacuum = "InnoDB removes old versions and keeps its statistics itself";
        let facts = Facts {
            schema: seen(bounded(catalogue::read(&mut session, &capabilities)).await),
            counters: seen(bounded(catalogue::counters(&mut session)).await),
            connections: seen(bounded(connections(&mut session)).await),
            sessions: sessions(&mut session, &capabilities).await,
            content: SqliteContent::absent(),
            // From the schema, with a session of its own.
            violations: Err(Unseen::unknown("the tables are not shown", GRANT)),
            replication: replication::read(&mut session, &capabilities).await,
            modified: seen(bounded(catalogue::modified(&mut session, capabilities.flavour, &self.database)).await),
            look: None,
            declared: Vec::new(),
            vacuums: Err(Unseen::NotApplicable(no_vacuum.into())),
            spaces: Err(Unseen::NotApplicable("PostgreSQL alone shows it".into())),
            file: Err(Unseen::NotApplicable("it is not a SQLite file".into())),
            capabilities,
        };
        close(session).await;
        Ok(facts)
    }
}

async fn close(session: MySqlConnection) {
    // The server hangs up first, which the driver takes for an error.
    let _ = session.close().await;
}

/// Waits for a group of facts no longer than the server works on it.
async fn bounded<T>(reading: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(ANSWER, reading).await {
        Ok(found) => found,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// A group of facts whose query failed is unknown, and the others are worth having.
fn seen<T>(read: Result<T, sqlx::Error>) -> Seen<T> {
    read.map_err(|e| Unseen::unknown(format!("the server refused to say: {}", reason(&e)), GRANT))
}

/// The server's number for what went wrong.
fn number_of(e: &sqlx::Error) -> Option<u16> {
    e.as_database_error()?.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(|e| e.number())
}

/// The server's counters that are numbers.
async fn status(session: &mut MySqlConnection) -> Result<HashMap<String, u64>, sqlx::Error> {
    let mut status = HashMap::new();
    for row in session.fetch_all("SHOW GLOBAL STATUS").await? {
        let (name, value): (String, String) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
        if let Ok(value) = value.parse() {
            status.insert(name, value);
        }
    }
    Ok(status)
}

fn counted(status: &HashMap<String, u64>, name: &str) -> Result<u64, sqlx::Error> {
    status.get(name).copied().ok_or_else(|| sqlx::Error::Protocol(format!("the server's status has no {name}")))
}

/// Whether a right covers the whole database. One that comes from a role is not seen here, and then the answer is no.
async fn sees_tables(session: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    let sql = "SELECT (SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'SELECT') \
        + (SELECT COUNT(*) FROM information_schema.SCHEMA_PRIVILEGES WHERE PRIVILEGE_TYPE = 'SELECT' AND DATABASE() LIKE TABLE_SCHEMA)";
    Ok(session.fetch_one(sql).await?.try_get_unchecked::<i64, _>(0)? > 0)
}

async fn role(session: &mut MySqlConnection, is_mariadb: bool, sees_sessions: bool) -> Result<NodeRole, sqlx::Error> {
    // Of all primaries that a MariaDB may have. The older name is the only one before MySQL 8.0.22, and is gone since 8.4.
    let of_all = if is_mariadb { "SHOW ALL SLAVES STATUS" } else { "SHOW REPLICA STATUS" };
    let mut status = bounded(session.fetch_all(of_all)).await;
    if status.as_ref().err().and_then(number_of) == Some(1064) {
        status = bounded(session.fetch_all("SHOW SLAVE STATUS")).await;
    }
    match status {
        Ok(rows) if !rows.is_empty() => return Ok(NodeRole::Replica),
        Ok(_) if sees_sessions => {}
        // Without the rights nothing is shown, or refused.
        _ => return Ok(NodeRole::Unknown),
    }
    let sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'";
    let readers: i64 = session.fetch_one(sql).await?.try_get_unchecked(0)?;
    Ok(if readers > 0 { NodeRole::Primary } else { NodeRole::Single })
}

/// What counts the use of indexes. Where it is off its views are empty, which is not the same as unused.
async fn index_usage(
    session: &mut MySqlConnection,
    is_mariadb: bool,
    performance_schema: bool,
    status: &HashMap<String, u64>,
) -> Result<String, String> {
    if performance_schema {
        let sql = "SELECT COUNT(*) FROM performance_schema.setup_instruments \
            WHERE NAME = 'wait/io/table/sql/handler' AND ENABLED = 'YES'";
        let enabled = match session.fetch_one(sql).await {
            Ok(row) => row.try_get_unchecked::<i64, _>(0).map_err(|e| e.to_string())? > 0,
            Err(e) => return Err(format!("performance_schema cannot be read: {}", reason(&e))),
        };
        let lost = counted(status, "Performance_schema_index_stat_lost").map_err(|e| e.to_string())?;
        match (enabled, lost) {
            (true, 0) => return Ok(catalogue::PERFORMANCE_SCHEMA.into()),
            (true, _) => return Err("performance_schema had no room for all indexes".into()),
            (false, _) if !is_mariadb => return Err("performance_schema does not count table accesses".into()),
            (false, _) => {}
        }
    }
    if is_mariadb {
        let on = session.fetch_one("SELECT @@userstat").await.and_then(|row| row.try_get_unchecked::<i64, _>(0));
        if on.map_err(|e| reason(&e))? != 0 {
            let sql = "SELECT COUNT(*) FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'USERSTAT' \
                AND GLOBAL_VALUE_ORIGIN IN ('CONFIG', 'COMMAND-LINE')";
            let origin = session.fetch_one(sql).await.and_then(|row| row.try_get_unchecked::<i64, _>(0));
            if origin.map_err(|e| reason(&e))? == 0 {
                return Err(
                    "userstat was switched on while the server ran, and nobody knows when: set it in its configuration"
                        .into(),
                );
            }
            return Ok(catalogue::USERSTAT.into());
        }
        return Err("performance_schema and userstat are off: the server does not count".into());
    }
    Err("performance_schema is off: the server does not count".into())
}

async fn connections(session: &mut MySqlConnection) -> Result<Connections, sqlx::Error> {
    let status = status(session).await?;
    let usable: u64 = session.fetch_one("SELECT @@max_connections").await?.try_get_unchecked(0)?;
    let used = counted(&status, "Threads_connected")?;
    let running = counted(&status, "Threads_running")?;
    let by_state = vec![("running".to_owned(), running), ("idle".to_owned(), used.saturating_sub(running))];
    Ok(Connections { used, usable, by_state, peak: status.get("Max_used_connections").copied() })
}

async fn sessions(session: &mut MySqlConnection, capabilities: &Capabilities) -> Seen<Sessions> {
    if !capabilities.sees_sessions {
        return Err(Unseen::unknown("this user does not see the sessions of others", GRANT));
    }
    let waits = match capabilities.flavour {
        Flavour::MariaDb => "SELECT requesting_trx_id, blocking_trx_id FROM information_schema.INNODB_LOCK_WAITS",
        _ => {
            "SELECT CAST(REQUESTING_ENGINE_TRANSACTION_ID AS CHAR), CAST(BLOCKING_ENGINE_TRANSACTION_ID AS CHAR) \
             FROM performance_schema.data_lock_waits"
        }
    };
    seen(bounded(read_sessions(session, waits)).await)
}

async fn read_sessions(session: &mut MySqlConnection, waits: &str) -> Result<Sessions, sqlx::Error> {
    let sql = "SELECT CAST(t.trx_id AS CHAR), t.trx_mysql_thread_id, \
          CONCAT(COALESCE(p.USER, '?'), ' ', COALESCE(p.HOST, '')), \
          GREATEST(TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), 0), \
          CASE WHEN p.COMMAND = 'Sleep' THEN p.TIME END, \
          GREATEST(TIMESTAMPDIFF(SECOND, t.trx_wait_started, NOW()), 0) \
        FROM information_schema.INNODB_TRX t LEFT JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id \
        WHERE t.trx_mysql_thread_id <> 0 AND t.trx_mysql_thread_id <> CONNECTION_ID()";
    let mut found = Sessions::default();
    let mut by_transaction: HashMap<String, (u64, String, Option<TimeDelta>)> = HashMap::new();
    for row in session.fetch_all(sql).await? {
        let transaction: String = row.try_get_unchecked(0)?;
        let id: u64 = row.try_get_unchecked(1)?;
        let who: String = row.try_get_unchecked(2)?;
        let open = TimeDelta::seconds(row.try_get_unchecked(3)?);
        let idle = row.try_get_unchecked::<Option<i64>, _>(4)?.map(TimeDelta::seconds);
        let waits = row.try_get_unchecked::<Option<i64>, _>(5)?.map(TimeDelta::seconds);
        by_transaction.insert(transaction, (id, who.clone(), waits));
        found.open.push(activity::Session { id, who, open, idle });
    }
    let mut blockers: HashMap<String, Vec<u64>> = HashMap::new();
    for row in session.fetch_all(trusted(waits)).await? {
        let (waiting, blocking): (String, String) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
        if let Some((id, ..)) = by_transaction.get(&blocking) {
            blockers.entry(waiting).or_default().push(*id);
        }
    }
    for (transaction, (id, who, waits)) in by_transaction {
        let mut blockers = blockers.remove(&transaction).unwrap_or_default();
        blockers.sort_unstable();
        blockers.dedup();
        // Whom for may not be known: a transaction without a session holds it up, or the server does not count.
        if waits.is_some() || !blockers.is_empty() {
            found.waiting.push(Waiting { id, who, for_: waits.unwrap_or_default(), blockers });
        }
    }
    // For a table's definition: the server shows who waits, and not to everybody whom for.
    let sql = "SELECT ID, CONCAT(COALESCE(USER, '?'), ' ', COALESCE(HOST, '')), TIME FROM information_schema.PROCESSLIST \
        WHERE STATE LIKE 'Waiting for %lock' OR STATE = 'Waiting for table flush'";
    for row in session.fetch_all(sql).await? {
        let id: u64 = row.try_get_unchecked(0)?;
        if found.waiting.iter().all(|w| w.id != id) {
            let for_ = TimeDelta::seconds(row.try_get_unchecked(2)?);
            found.waiting.push(Waiting { id, who: row.try_get_unchecked(1)?, for_, blockers: Vec::new() });
        }
    }
    Ok(found)
}
