//! One declared query on a database of any of the three kinds, read-only and with an end.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::redact::redact;

/// A row: each column's name and value.
pub(crate) type Row = Vec<(String, Cell)>;

/// A value that a query gave.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Number(f64),
    Text(String),
    /// Of PostgreSQL only; the others have numbers for it.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    Flag(bool),
}

/// Rows that are read at most; a query that gives more is wrong.
pub(crate) const ROWS: usize = 200;

/// A database.
#[derive(Clone)]
pub(crate) enum Database {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Database),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Database),
    #[cfg(feature = "mysql")]
    Mysql(mysql::Database),
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.engine())
    }
}

/// How a database is used at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// How long a trivial query took.
    pub(crate) latency: Duration,
    /// Sessions, and how many there may be for ordinary users; `None` where there is no such limit.
    pub(crate) sessions: Option<(f64, f64)>,
}

/// Why a query gave nothing.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nobody answers, or nobody more is let in.
    Unreachable(sqlx::Error),
    /// The login is refused.
    Refused(sqlx::Error),
    /// The query itself is wrong, or takes too long.
    Query(sqlx::Error),
    /// What it gave cannot be read.
    Cell(String),
}

impl Database {
    pub(crate) fn new(url: &str) -> Result<Self> {
        let kind = url.split(':').next().unwrap_or_default();
        match kind {
            #[cfg(feature = "sqlite")]
            "sqlite" => sqlite::Database::new(url).map(Self::Sqlite),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => postgres::Database::new(url).map(Self::Postgres),
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => mysql::Database::new(url).map(Self::Mysql),
            _ => Err(Error::new(ErrorKind::Config, format!("{kind}:…: this kind of database is not known"))
                .with_next_step(
                    "a database is postgres://…, mysql://… or sqlite:PATH, where this program was built with it",
                )),
        }
    }

    pub(crate) fn engine(&self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "SQLite",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "PostgreSQL",
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => "MySQL",
        }
    }

    /// The rows of one statement, in a transaction that cannot write; the server ends it after `limit`.
    pub(crate) async fn rows(&self, sql: &str, limit: Duration) -> std::result::Result<Vec<Row>, Failed> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(database) => database.rows(sql, limit).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => database.rows(sql, limit).await,
            #[cfg(feature = "mysql")]
            Self::Mysql(database) => database.rows(sql, limit).await,
        }
    }

    pub(crate) async fn usage(&self, limit: Duration) -> std::result::Result<Usage, Failed> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(database) => database.usage(limit).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => database.usage(limit).await,
            #[cfg(feature = "mysql")]
            Self::Mysql(database) => database.usage(limit).await,
        }
    }
}

impl Failed {
    /// What a person is told; no address, no password.
    pub(crate) fn said(&self) -> String {
        match self {
            Self::Unreachable(e) | Self::Refused(e) | Self::Query(e) => redact(&e.to_string()),
            Self::Cell(why) => why.clone(),
        }
    }

    /// As an error of the crate, about `what`.
    pub(crate) fn into_error(self, what: &str) -> Error {
        let said = self.said();
        let (kind, next, source) = match self {
            Self::Unreachable(e) => {
                (ErrorKind::Unreachable, "see that the database runs and takes connections", Some(e))
            }
            Self::Refused(e) => (ErrorKind::Denied, "see that user and password are right", Some(e)),
            Self::Query(e) => (ErrorKind::Malformed, "run the query by hand, as the same user", Some(e)),
            Self::Cell(_) => (ErrorKind::Malformed, "cast the column to a number or to text", None),
        };
        let error = Error::new(kind, format!("{what}: {said}")).with_next_step(next);
        match source {
            Some(e) => error.with_source(e),
            None => error,
        }
    }
}

/// Sorts an error of a connection or a query.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
fn sorted(e: sqlx::Error, refused: impl Fn(&str) -> bool, full: impl Fn(&str) -> bool) -> Failed {
    match &e {
        sqlx::Error::Database(d) => {
            let code = d.code().unwrap_or_default();
            match () {
                () if full(&code) => Failed::Unreachable(e),
                () if refused(&code) => Failed::Refused(e),
                () => Failed::Query(e),
            }
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => {
            Failed::Unreachable(e)
        }
        _ => Failed::Query(e),
    }
}

/// The future, or that it took too long.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = std::result::Result<T, Failed>>,
) -> std::result::Result<T, Failed> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let e =
                std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer in {} s", limit.as_secs_f64()));
            Err(Failed::Unreachable(sqlx::Error::Io(e)))
        }
    }
}
