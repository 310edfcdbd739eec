//! SQLite.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row as _, TypeInfo, ValueRef};

use super::{Cell, Failed, ROWS, Row, Usage, sorted, within};
use crate::error::{Error, ErrorKind, Result};

#[derive(Clone)]
pub(crate) struct Database(PathBuf);

impl Database {
    pub(super) fn new(url: &str) -> Result<Self> {
        let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
        if path.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "a SQLite database without a path").with_next_step("write sqlite:PATH")
            );
        }
        Ok(Self(path.into()))
    }

    /// A connection whose statements end after `limit`: they run in a thread, which nobody else would end.
    async fn open(&self, limit: Duration) -> std::result::Result<SqliteConnection, Failed> {
        let options = SqliteConnectOptions::new()
            .filename(&self.0)
            .read_only(true)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        // A file that is not there is a database that is not there.
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(Failed::Unreachable)?;
        let began = Instant::now();
        let mut handle = connection.lock_handle().await.map_err(Failed::Unreachable)?;
        handle.set_progress_handler(10_000, move || began.elapsed() < limit);
        drop(handle);
        Ok(connection)
    }

    pub(super) async fn rows(&self, sql: &str, limit: Duration) -> std::result::Result<Vec<Row>, Failed> {
        within(limit, async {
            let mut connection = self.open(limit).await?;
            let sql = sql.trim().trim_end_matches(';');
            let sql = format!("SELECT * FROM ({sql}\n) AS caretaker LIMIT {}", ROWS + 1);
            let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.map_err(failed)?;
            let _ = connection.close().await;
            rows.iter().map(cells).collect()
        })
        .await
    }

    pub(super) async fn usage(&self, limit: Duration) -> std::result::Result<Usage, Failed> {
        within(limit, async {
            let mut connection = self.open(limit).await?;
            let began = Instant::now();
            // Reads a page of the file, which SELECT 1 does not.
            sqlx::query("SELECT count(*) FROM sqlite_master").execute(&mut connection).await.map_err(failed)?;
            let latency = began.elapsed();
            let _ = connection.close().await;
            Ok(Usage { latency, sessions: None })
        })
        .await
    }
}

fn cells(row: &SqliteRow) -> std::result::Result<Row, Failed> {
    let mut out = Vec::new();
    for (at, column) in row.columns().iter().enumerate() {
        let raw = row.try_get_raw(at).map_err(failed)?;
        let (null, kind) = (raw.is_null(), raw.type_info().name().to_owned());
        let cell = match kind.as_str() {
            _ if null => Cell::Null,
            "INTEGER" | "BOOLEAN" => Cell::Number(row.try_get_unchecked::<i64, _>(at).map_err(failed)? as f64),
            "REAL" => Cell::Number(row.try_get_unchecked(at).map_err(failed)?),
            "TEXT" | "DATETIME" | "DATE" | "TIME" => Cell::Text(row.try_get_unchecked(at).map_err(failed)?),
            other => return Err(Failed::Cell(format!("the column {} is of the type {other}", column.name()))),
        };
        out.push((column.name().to_owned(), cell));
    }
    Ok(out)
}

fn failed(e: sqlx::Error) -> Failed {
    // 5 and 6: busy and locked; 14: cannot be opened; 26: no database.
    sorted(e, |_| false, |c| matches!(c, "5" | "6" | "14" | "26"))
}
