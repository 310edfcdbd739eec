//! Fixing one instant over several sessions.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use super::guard::Watcher;
use super::table::{self, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Problem;
use crate::mysql::{Database, Server, close, identifier, number_of};
use crate::sql::trusted;

/// Seconds that anybody may have to wait behind our wish for a lock.
const LOCK_WAIT: u32 = 1;
/// Seconds from which on a statement is one that a lock would have to wait for.
const LONG_QUERY: u64 = 2;
/// Seconds after which the server forgets a session of ours that keeps others from committing or writing.
const CONTROL_TIMEOUT: u32 = 15;
const LOCKED_TIMEOUT: u32 = 300;
/// How long nobody may commit, at most.
const HOLD: Duration = Duration::from_secs(10);
/// Tables touched in one round trip.
const AT_ONCE: usize = 50;

/// One instant, and the sessions that see it.
pub(super) struct Begun {
    pub(super) server: Server,
    pub(super) tables: Vec<Table>,
    /// Each in a transaction with the same snapshot.
    pub(super) sessions: Vec<MySqlConnection>,
    /// Holds locks on the tables of engines without transactions, if there are any.
    pub(super) locked: Option<MySqlConnection>,
    pub(super) watcher: Watcher,
    pub(super) taken_at: DateTime<Utc>,
    pub(super) position: String,
    pub(super) problems: Vec<Problem>,
}

/// What keeps everybody from committing for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    BackupStage,
    ReadLock,
    /// There is no right to it.
    Nothing,
}

/// One attempt. `None` if a table came, went or changed meanwhile.
pub(super) async fn begin(database: &Database, connections: usize) -> Result<Option<Begun>> {
    let failed = |e| database.failed("could not be read", e);
    let mut control = database.connect().await?;
    let server = Server::of(&mut control).await.map_err(failed)?;
    let timeouts = format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}, wait_timeout = {CONTROL_TIMEOUT}");
    database.run(&mut control, &timeouts).await?;
    let before = table::list(&mut control, database.name()).await.map_err(failed)?;
    let mut sessions = Vec::new();
    for _ in 0..connections {
        let mut session = database.connect().await?;
        database.run(&mut session, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        database.run(&mut session, &format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}")).await?;
        sessions.push(session);
    }
    let locked = if before.iter().all(Table::is_transactional) { None } else { Some(database.connect().await?) };
    let watcher = Watcher::new(database).await?;
    let fixing = fix(database, Opened { server, control, before, sessions, locked, watcher });
    match tokio::time::timeout(HOLD, fixing).await {
        Ok(begun) => begun,
        // Dropping it has closed its sessions, and with them every lock.
        Err(_) => Err(Error::new(
            ErrorKind::SourceBusy,
            format!("{} did not come to a common instant within {} s", database.location(), HOLD.as_secs()),
        )
        .with_retry(true)),
    }
}

/// Sessions that hold nothing yet.
struct Opened {
    server: Server,
    control: MySqlConnection,
    before: Vec<Table>,
    sessions: Vec<MySqlConnection>,
    locked: Option<MySqlConnection>,
    watcher: Watcher,
}

/// Keeps everybody from committing, begins all transactions, and lets go.
async fn fix(database: &Database, opened: Opened) -> Result<Option<Begun>> {
    let Opened { server, mut control, before, mut sessions, mut locked, watcher } = opened;
    let failed = |e| database.failed("could not be read", e);
    let (transactional, others): (Vec<&Table>, Vec<&Table>) =
        before.iter().filter(|t| t.has_rows()).partition(|t| t.is_transactional());
    let hold = hold(database, &mut control, &server).await?;
    if hold == Hold::Nothing {
        // Two sessions could see two instants.
        sessions.truncate(1);
    }
    let mut problems = Vec::new();
    if let Some(session) = &mut locked {
        let list: Vec<String> = others.iter().map(|t| format!("{} READ", identifier(&t.name))).collect();
        let lock = format!("LOCK TABLES {}", list.join(", "));
        let timeouts = format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}, wait_timeout = {LOCKED_TIMEOUT}");
        database.run(session, &timeouts).await?;
        match database.run(session, &lock).await {
            Ok(()) => {}
            Err(e) if matches!(number_of(&e), Some(1044 | 1142)) => {
                locked = None;
                problems.extend(others.iter().map(|t| {
                    let why = format!(
                        "its engine {} has no transactions, and there is no right to lock it (LOCK TABLES): its rows may be of another instant than the rest",
                        t.engine()
                    );
                    Problem::new(&t.name, why)
                }));
            }
            Err(e) => return Err(e),
        }
    }
    let open = sessions.iter_mut().map(async |session| {
        database.run(session, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        for some in transactional.chunks(AT_ONCE) {
            // From here on nobody changes their definitions.
            let touch: Vec<String> =
                some.iter().map(|t| format!("SELECT 1 FROM {} LIMIT 0", identifier(&t.name))).collect();
            database.run(session, &touch.join("; ")).await?;
        }
        Ok::<(), Error>(())
    });
    futures::future::try_join_all(open).await?;
    let taken_at = now(&mut control).await.map_err(failed)??;
    let log = log_position(&mut control, &server).await;
    let after = table::list(&mut control, database.name()).await.map_err(failed)?;
    match hold {
        Hold::BackupStage => database.run(&mut control, "BACKUP STAGE END").await?,
        Hold::ReadLock => database.run(&mut control, "UNLOCK TABLES").await?,
        Hold::Nothing => {}
    }
    close(control).await;
    if before.len() != after.len() || !before.iter().zip(&after).all(|(a, b)| a.is_same(b)) {
        return Ok(None);
    }
    let how = match hold {
        Hold::BackupStage => format!("{} sessions under BACKUP STAGE BLOCK_COMMIT", sessions.len()),
        Hold::ReadLock => format!("{} sessions under FLUSH TABLES WITH READ LOCK", sessions.len()),
        Hold::Nothing => "one session, without the right RELOAD for more".to_owned(),
    };
    let position = match log {
        Some(log) => format!("binary log {log}, {how}"),
        None => how,
    };
    Ok(Some(Begun { server, tables: after, sessions, locked, watcher, taken_at, position, problems }))
}

/// Keeps everybody from committing, as softly as the server can.
async fn hold(database: &Database, control: &mut MySqlConnection, server: &Server) -> Result<Hold> {
    let (statements, hold): (&[&str], Hold) = if server.mariadb {
        (&["BACKUP STAGE START", "BACKUP STAGE BLOCK_COMMIT"], Hold::BackupStage)
    } else {
        // It closes all tables, and waits for those in use: whoever comes after a long query would wait with it, even
        // once we have given up. And between a migration that waits for the shop and a shop that waits for us, the server
        // would end one of the shop's transactions.
        if let Some((id, what)) = in_the_way(database, control).await? {
            let why = format!("{}: session {id} {what}", database.location());
            return Err(Error::new(ErrorKind::SourceBusy, why).with_retry(true));
        }
        (&["FLUSH TABLES WITH READ LOCK"], Hold::ReadLock)
    };
    for sql in statements {
        match database.run(control, sql).await {
            Ok(()) => {}
            Err(e) if matches!(number_of(&e), Some(1044 | 1045 | 1227)) => return Ok(Hold::Nothing),
            Err(e) => return Err(e),
        }
    }
    Ok(hold)
}

/// A session that has been running a statement for some seconds, or that changes a table.
async fn in_the_way(database: &Database, control: &mut MySqlConnection) -> Result<Option<(String, &'static str)>> {
    let failed = |e| database.failed("could not be read", e);
    for row in control.fetch_all(sqlx::raw_sql("SHOW PROCESSLIST")).await.map_err(failed)? {
        // A session without a statement has none to show.
        let text = |name: &str| {
            row.try_get_unchecked::<Option<String>, _>(name).map(Option::unwrap_or_default).map_err(failed)
        };
        // A replica's own threads wait like that all the time.
        if text("User")? == "system user" || !matches!(text("Command")?.as_str(), "Query" | "Execute") {
            continue;
        }
        let what = if text("Time")?.parse::<u64>().is_ok_and(|seconds| seconds >= LONG_QUERY) {
            "runs a long query"
        } else if changes_tables(&text("Info")?) || text("State")?.starts_with("Waiting for table metadata lock") {
            "changes a table"
        } else {
            continue;
        };
        return text("Id").map(|id| Some((id, what)));
    }
    Ok(None)
}

fn changes_tables(statement: &str) -> bool {
    let first = statement.split_whitespace().next().unwrap_or("").to_ascii_uppercase();
    ["ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE", "OPTIMIZE", "REPAIR"].contains(&first.as_str())
}

async fn now(control: &mut MySqlConnection) -> Result<Result<DateTime<Utc>>, sqlx::Error> {
    let text: String =
        control.fetch_one(sqlx::raw_sql("SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)")).await?.try_get_unchecked(0)?;
    let parsed = NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f");
    Ok(parsed.map(|t| t.and_utc()).map_err(|e| {
        Error::new(ErrorKind::Source, format!("the server's time {text:?} cannot be read")).with_source(e)
    }))
}

/// Where the binary log stands; `None` where there is none, or no right to look.
async fn log_position(control: &mut MySqlConnection, server: &Server) -> Option<String> {
    let statements: &[&str] =
        if server.mariadb { &["SHOW MASTER STATUS"] } else { &["SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"] };
    for sql in statements {
        match control.fetch_optional(sqlx::raw_sql(trusted(*sql))).await {
            Ok(row) => {
                let row = row?;
                let text = |at: usize| row.try_get_unchecked::<String, _>(at).ok();
                return Some(format!("{}:{}", text(0)?, text(1)?));
            }
            Err(e) => tracing::debug!(error = %e, sql, "the position in the binary log is not known"),
        }
    }
    None
}
