//! The rows of one table into one session.

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use sqlx::Executor;
use sqlx::mysql::MySqlConnection;

use super::values::{arguments, columns};
use crate::error::{Error, ErrorKind, Result};
use crate::insert::{Inserts, Statement};
use crate::manifest::EntryRecord;
use crate::mysql::{Database, number};
use crate::sql::trusted;

/// A prepared statement has at most so many values: a server prepares them anew for each table, and keeps them.
const VALUES: usize = 4096;
/// The server could not prepare a statement once more whose table had left its cache: nothing was done.
const NOT_PREPARED_ANEW: u16 = 1615;

/// How a table is loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loading {
    /// The longest statement of several rows, in bytes.
    pub(super) statement: usize,
    /// Whether rows are sent as the values of prepared statements, which the server need not parse.
    pub(super) prepared: bool,
    /// After how many bytes to commit; `None` where that is for others to decide.
    pub(super) commit_after: Option<usize>,
}

/// Loads the rows of an entry in the order they come.
pub(super) async fn load(
    database: &Database,
    session: &mut MySqlConnection,
    entry: &EntryRecord,
    body: BoxStream<'_, Result<Bytes>>,
    loading: Loading,
) -> Result<()> {
    let loader = Loader { database, session, entry, loading, prepared: None, since_commit: 0 };
    loader.load(body).await
}

/// The whole text of an entry.
pub(super) async fn text(entry: &EntryRecord, mut body: BoxStream<'_, Result<Bytes>>) -> Result<String> {
    let mut text = Vec::new();
    while let Some(bytes) = body.try_next().await? {
        text.extend_from_slice(&bytes);
    }
    utf8(entry, text)
}

fn utf8(entry: &EntryRecord, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|e| Error::new(ErrorKind::Damaged, format!("{} is no UTF-8", entry.name)).with_source(e))
}

struct Loader<'a> {
    database: &'a Database,
    session: &'a mut MySqlConnection,
    entry: &'a EntryRecord,
    loading: Loading,
    prepared: Option<Prepared>,
    since_commit: usize,
}

/// A statement for so many rows.
struct Prepared {
    sql: String,
    rows: usize,
    columns: usize,
}

impl Loader<'_> {
    async fn load(mut self, mut body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let mut inserts = Inserts::new(&self.entry.insert, self.loading.statement);
        while let Some(bytes) = body.try_next().await? {
            let mut rest = &bytes[..];
            while let Some(statement) = inserts.feed(&mut rest) {
                self.statement(statement).await?;
                if let Some(prepared) = &self.prepared {
                    inserts.limit_rows(prepared.rows);
                }
            }
        }
        if let Some(statement) = inserts.finish()? {
            self.statement(statement).await?;
        }
        if self.loading.commit_after.is_some() {
            self.commit().await?;
        }
        Ok(())
    }

    async fn statement(&mut self, statement: Statement) -> Result<()> {
        let rows = statement.rows;
        let sql = utf8(self.entry, statement.text)?;
        self.since_commit += sql.len();
        if !self.run_prepared(rows, &sql).await? {
            self.run(&sql).await?;
            if self.loading.prepared && self.prepared.is_none() {
                self.prepare(rows, &sql).await?;
            }
        }
        if self.loading.commit_after.is_some_and(|bytes| self.since_commit >= bytes) {
            self.commit().await?;
        }
        Ok(())
    }

    /// Whether the rows of the statement were sent as values.
    async fn run_prepared(&mut self, rows: usize, sql: &str) -> Result<bool> {
        let Some(prepared) = self.prepared.as_ref().filter(|p| p.rows == rows) else { return Ok(false) };
        let values = sql.strip_prefix(self.entry.insert.as_str()).and_then(|rows| arguments(rows, prepared.columns));
        let Some(values) = values else { return Ok(false) };
        let done = sqlx::query_with(trusted(prepared.sql.as_str()), values).execute(&mut *self.session).await;
        match done {
            Ok(_) => Ok(true),
            Err(e) if number(&e) == Some(NOT_PREPARED_ANEW) => {
                self.refuse(&e);
                Ok(false)
            }
            Err(e) => Err(self.failed(e)),
        }
    }

    /// From now on all is text.
    fn refuse(&mut self, e: &sqlx::Error) {
        tracing::debug!(error = %e, "the server does not prepare statements");
        self.loading.prepared = false;
        self.prepared = None;
    }

    /// Prepares a statement for rows like these. A server that refuses is sent text.
    async fn prepare(&mut self, rows: usize, sql: &str) -> Result<()> {
        let Some(columns) = sql.strip_prefix(self.entry.insert.as_str()).and_then(columns) else { return Ok(()) };
        // As long as half a statement of text, on the average: some rows are longer than these.
        let rows = (rows / 2).min(VALUES / columns);
        if rows < 2 {
            return Ok(());
        }
        let row = format!("({})", vec!["?"; columns].join(","));
        let sql = format!("{}{}", self.entry.insert, vec![row; rows].join(","));
        match self.session.prepare(trusted(sql.as_str())).await {
            Ok(_) => self.prepared = Some(Prepared { sql, rows, columns }),
            Err(e) if number(&e).is_some() => self.refuse(&e),
            Err(e) => return Err(self.failed(e)),
        }
        Ok(())
    }

    async fn run(&mut self, sql: &str) -> Result<()> {
        let done = self.session.execute(sqlx::raw_sql(trusted(sql))).await;
        done.map(drop).map_err(|e| self.failed(e))
    }

    async fn commit(&mut self) -> Result<()> {
        self.since_commit = 0;
        self.run("COMMIT").await
    }

    fn failed(&self, e: sqlx::Error) -> Error {
        self.database.failed(&format!("could not load {}", self.entry.subject), e)
    }
}
