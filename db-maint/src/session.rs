//! One session that changes things, in the same words for every engine.
//!
//! Every value goes in and comes out as text, and the SQL says what it is: so one walk over a table serves all engines, and no
//! type is guessed. What is set is set for one transaction where a pooler may give the session to the shop next (PostgreSQL),
//! and for the session where nobody else gets it.

use std::time::Duration;

#[cfg(feature = "mysql")]
use sqlx::MySqlConnection;
#[cfg(feature = "postgres")]
use sqlx::PgConnection;
#[cfg(feature = "sqlite")]
use sqlx::SqliteConnection;
use sqlx::{Connection, Executor, Row};

use crate::capability::Flavour;
use crate::engine::{Meaning, failed};
use crate::error::{Error, ErrorKind, Result};
use crate::ident::trusted;

/// What goes in and comes out; `None` is NULL.
pub(crate) type Value = Option<String>;

/// How long a statement may wait for a lock.
const LOCK: Duration = Duration::from_secs(1);
/// How much longer than the server an answer is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// A session with a database, for what this crate changes there. Dropping it ends it, and what it had not committed.
#[derive(Debug)]
pub(crate) struct Session {
    link: Link,
    flavour: Flavour,
    location: String,
    meaning: Meaning,
    /// How long the server may work on one statement.
    limit: Duration,
    is_in_transaction: bool,
}

#[derive(Debug)]
enum Link {
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
    #[cfg(feature = "mysql")]
    Mysql(MySqlConnection),
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteConnection),
}

impl Session {
    #[cfg(feature = "postgres")]
    pub(crate) fn postgres(link: PgConnection, location: String, meaning: Meaning) -> Self {
        Self {
            link: Link::Postgres(link),
            flavour: Flavour::Postgres,
            location,
            meaning,
            limit: Duration::from_secs(60),
            is_in_transaction: false,
        }
    }

    #[cfg(feature = "mysql")]
    pub(crate) fn mysql(link: MySqlConnection, flavour: Flavour, location: String, meaning: Meaning) -> Self {
        Self {
            link: Link::Mysql(link),
            flavour,
            location,
            meaning,
            limit: Duration::from_secs(60),
            is_in_transaction: false,
        }
    }

    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite(link: SqliteConnection, location: String, meaning: Meaning) -> Self {
        Self {
            link: Link::Sqlite(link),
            flavour: Flavour::Sqlite,
            location,
            meaning,
            limit: Duration::from_secs(60),
            is_in_transaction: false,
        }
    }

    pub(crate) fn flavour(&self) -> Flavour {
        self.flavour
    }

    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// An error about `what` in this database.
    pub(crate) fn error(&self, what: &str, e: sqlx::Error) -> Error {
        failed(&self.location, what, e, self.meaning)
    }

    /// What kind of error this is.
    pub(crate) fn kind(&self, e: &sqlx::Error) -> ErrorKind {
        (self.meaning)(e).0
    }

    /// How long the server may work on one statement from now on.
    pub(crate) async fn limit(&mut self, limit: Duration) -> Result<(), sqlx::Error> {
        self.limit = limit;
        if self.flavour == Flavour::MariaDb {
            let sql = format!("SET SESSION max_statement_time = {}", limit.as_secs_f64());
            self.plain(&sql).await?;
        }
        if self.flavour == Flavour::Mysql {
            // Of queries alone; there is none for what changes rows.
            self.plain(&format!("SET SESSION max_execution_time = {}", limit.as_millis().max(1))).await?;
        }
        Ok(())
    }

    /// Begins a transaction that sees what others commit, and waits for no lock longer than a second.
    pub(crate) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let sql = match self.flavour {
            Flavour::Postgres => format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; \
                 SET LOCAL idle_in_transaction_session_timeout = '10s'; SET CONSTRAINTS ALL IMMEDIATE",
                LOCK.as_millis(),
                self.limit.as_millis()
            ),
            Flavour::Mysql | Flavour::MariaDb => "START TRANSACTION".to_owned(),
            Flavour::Sqlite => "BEGIN IMMEDIATE".to_owned(),
        };
        self.plain(&sql).await?;
        self.is_in_transaction = true;
        Ok(())
    }

    /// Begins a transaction that changes nothing, and is in nobody's way.
    pub(crate) async fn begin_reading(&mut self) -> Result<(), sqlx::Error> {
        match self.flavour {
            Flavour::Postgres => {
                self.begin().await?;
                // What a role may not see of a table is an error, and not a smaller number.
                self.plain("SET TRANSACTION READ ONLY; SET LOCAL row_security = off").await
            }
            Flavour::Mysql | Flavour::MariaDb => self.plain("START TRANSACTION READ ONLY").await,
            Flavour::Sqlite => self.plain("BEGIN").await,
        }?;
        self.is_in_transaction = true;
        Ok(())
    }

    pub(crate) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.plain("COMMIT").await?;
        self.is_in_transaction = false;
        Ok(())
    }

    /// Takes back what was not committed. Where that fails the session is of no use, and its end takes it back.
    pub(crate) async fn roll_back(&mut self) -> Result<(), sqlx::Error> {
        if !std::mem::take(&mut self.is_in_transaction) {
            return Ok(());
        }
        self.plain("ROLLBACK").await
    }

    /// SQL without values and without an answer; several statements where the engine takes them.
    pub(crate) async fn plain(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let until = self.limit + GRACE;
        let sql = sqlx::raw_sql(trusted(sql));
        let work = async {
            match &mut self.link {
                #[cfg(feature = "postgres")]
                Link::Postgres(db) => db.execute(sql).await.map(drop),
                #[cfg(feature = "mysql")]
                Link::Mysql(db) => db.execute(sql).await.map(drop),
                #[cfg(feature = "sqlite")]
                Link::Sqlite(db) => db.execute(sql).await.map(drop),
            }
        };
        within(until, work).await
    }

    /// What a statement of MySQL or MariaDB that looks after tables says in its answer, where it is an error.
    pub(crate) async fn refusals(&mut self, sql: &str) -> Result<Option<String>, sqlx::Error> {
        let said = self.rows_in(sql, &[]).await?;
        let is_error =
            |row: &&Vec<Value>| row.get(2).cloned().flatten().is_some_and(|kind| kind.eq_ignore_ascii_case("error"));
        Ok(said.iter().find(is_error).and_then(|row| row.get(3).cloned().flatten()))
    }

    /// A statement that changes rows: how many it met.
    pub(crate) async fn run(&mut self, sql: &str, values: &[Value]) -> Result<u64, sqlx::Error> {
        let alone = self.begin_alone().await?;
        let met = self.run_in(sql, values).await;
        self.end_alone(alone, met.is_ok()).await?;
        met
    }

    /// Behind a pooler a statement with values is two messages, and only a transaction keeps both in one session.
    async fn begin_alone(&mut self) -> Result<bool, sqlx::Error> {
        let is_alone = self.flavour == Flavour::Postgres && !self.is_in_transaction;
        if is_alone {
            self.begin().await?;
        }
        Ok(is_alone)
    }

    async fn end_alone(&mut self, is_alone: bool, is_well: bool) -> Result<(), sqlx::Error> {
        match (is_alone, is_well) {
            (true, true) => self.commit().await,
            (true, false) => self.roll_back().await,
            (false, _) => Ok(()),
        }
    }

    async fn run_in(&mut self, sql: &str, values: &[Value]) -> Result<u64, sqlx::Error> {
        let until = self.limit + GRACE;
        macro_rules! run {
            ($db:expr) => {{
                let mut query = sqlx::query(trusted(sql)).persistent(false);
                for value in values {
                    query = query.bind(value.clone());
                }
                query.execute($db).await.map(|done| done.rows_affected())
            }};
        }
        let work = async {
            match &mut self.link {
                #[cfg(feature = "postgres")]
                Link::Postgres(db) => run!(db),
                #[cfg(feature = "mysql")]
                Link::Mysql(db) => run!(db),
                #[cfg(feature = "sqlite")]
                Link::Sqlite(db) => run!(db),
            }
        };
        within(until, work).await
    }

    /// The rows of a query whose columns are all texts.
    pub(crate) async fn rows(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Vec<Value>>, sqlx::Error> {
        let alone = self.begin_alone().await?;
        let rows = self.rows_in(sql, values).await;
        self.end_alone(alone, rows.is_ok()).await?;
        rows
    }

    async fn rows_in(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Vec<Value>>, sqlx::Error> {
        let until = self.limit + GRACE;
        macro_rules! rows {
            ($db:expr) => {{
                let mut query = sqlx::query(trusted(sql)).persistent(false);
                for value in values {
                    query = query.bind(value.clone());
                }
                let rows = query.fetch_all($db).await?;
                rows.iter().map(|row| (0..row.len()).map(|at| row.try_get_unchecked(at)).collect()).collect()
            }};
        }
        let work = async {
            match &mut self.link {
                #[cfg(feature = "postgres")]
                Link::Postgres(db) => rows!(db),
                #[cfg(feature = "mysql")]
                Link::Mysql(db) => rows!(db),
                #[cfg(feature = "sqlite")]
                Link::Sqlite(db) => rows!(db),
            }
        };
        within(until, work).await
    }

    /// Whether there is a table of ours by this name; what the server does not say for another reason is an error.
    pub(crate) async fn has_table(&mut self, name: &str) -> Result<bool, sqlx::Error> {
        match self.rows(&format!("SELECT '1' FROM {name} WHERE 1 = 0"), &[]).await {
            Ok(_) => Ok(true),
            Err(e) if is_missing_table(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The first column of the first row, where there is one.
    pub(crate) async fn one(&mut self, sql: &str, values: &[Value]) -> Result<Value, sqlx::Error> {
        let first = self.rows(sql, values).await?.into_iter().next();
        Ok(first.and_then(|row| row.into_iter().next()).flatten())
    }

    /// Ends the session; what it said before was heard.
    pub(crate) async fn close(self) {
        // Whether the server hears of the end matters to nobody.
        let _ = match self.link {
            #[cfg(feature = "postgres")]
            Link::Postgres(db) => db.close().await,
            #[cfg(feature = "mysql")]
            Link::Mysql(db) => db.close().await,
            #[cfg(feature = "sqlite")]
            Link::Sqlite(db) => db.close().await,
        };
    }
}

/// Whether a statement failed because its table is not there.
fn is_missing_table(e: &sqlx::Error) -> bool {
    let Some(e) = e.as_database_error() else { return false };
    // PostgreSQL, MySQL and MariaDB; SQLite has no code for it.
    matches!(e.code().as_deref(), Some("42P01" | "42S02")) || e.message().starts_with("no such table")
}

/// What an answer that never comes would keep waiting.
async fn within<T>(until: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(until, work).await {
        Ok(done) => done,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// What a number of this engine's server time is: milliseconds since 1970, as text.
pub(crate) fn server_clock(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Postgres => "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::int8",
        Flavour::Mysql | Flavour::MariaDb => "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)",
        Flavour::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    }
}
