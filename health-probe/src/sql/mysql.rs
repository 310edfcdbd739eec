//! MySQL and MariaDB.

use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row as _, TypeInfo, ValueRef};

use super::{Cell, Failed, ROWS, Row, Usage, sorted, within};
use crate::error::{Error, ErrorKind, Result};

#[derive(Clone)]
pub(crate) struct Database(MySqlConnectOptions);

impl Database {
    pub(super) fn new(url: &str) -> Result<Self> {
        let options = MySqlConnectOptions::from_str(url).map_err(|_| {
            Error::new(ErrorKind::Config, "a MySQL URL that cannot be read")
                .with_next_step("write it as mysql://USER@HOST:PORT/DATABASE")
        })?;
        Ok(Self(options.statement_cache_capacity(0).disable_statement_logging()))
    }

    async fn open(&self) -> std::result::Result<MySqlConnection, Failed> {
        MySqlConnection::connect_with(&self.0).await.map_err(failed)
    }

    pub(super) async fn rows(&self, sql: &str, limit: Duration) -> std::result::Result<Vec<Row>, Failed> {
        within(limit + Duration::from_secs(5), async {
            let mut connection = self.open().await?;
            let version: String = sqlx::query_scalar("SELECT version()")
                .persistent(false)
                .fetch_one(&mut connection)
                .await
                .map_err(failed)?;
            let set = match version.to_ascii_lowercase().contains("mariadb") {
                true => format!("SET SESSION max_statement_time = {}", limit.as_secs_f64()),
                false => format!("SET SESSION max_execution_time = {}", limit.as_millis().max(1)),
            };
            sqlx::query(AssertSqlSafe(set)).persistent(false).execute(&mut connection).await.map_err(failed)?;
            let mut tx = connection.begin_with("START TRANSACTION READ ONLY").await.map_err(failed)?;
            let sql = sql.trim().trim_end_matches(';');
            let sql = format!("SELECT * FROM ({sql}\n) AS caretaker LIMIT {}", ROWS + 1);
            let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_all(&mut *tx).await.map_err(failed)?;
            tx.rollback().await.map_err(failed)?;
            let _ = connection.close().await;
            rows.iter().map(cells).collect()
        })
        .await
    }

    pub(super) async fn usage(&self, limit: Duration) -> std::result::Result<Usage, Failed> {
        within(limit, async {
            let mut connection = self.open().await?;
            let began = Instant::now();
            sqlx::query("SELECT 1").persistent(false).execute(&mut connection).await.map_err(failed)?;
            let latency = began.elapsed();
            let row = sqlx::query("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
                .persistent(false)
                .fetch_one(&mut connection)
                .await
                .map_err(failed)?;
            let used: String = row.try_get_unchecked(1).map_err(failed)?;
            let usable: i64 = sqlx::query_scalar("SELECT CAST(@@max_connections AS SIGNED)")
                .persistent(false)
                .fetch_one(&mut connection)
                .await
                .map_err(failed)?;
            let _ = connection.close().await;
            let used = used.parse().map_err(|_| Failed::Cell(format!("Threads_connected is {used:?}")))?;
            Ok(Usage { latency, sessions: Some((used, usable as f64)) })
        })
        .await
    }
}

fn cells(row: &MySqlRow) -> std::result::Result<Row, Failed> {
    let mut out = Vec::new();
    for (at, column) in row.columns().iter().enumerate() {
        let raw = row.try_get_raw(at).map_err(failed)?;
        let (null, kind) = (raw.is_null(), raw.type_info().name().to_owned());
        let number = |n: Option<f64>| n.map_or(Cell::Null, Cell::Number);
        let cell = match kind.as_str() {
            _ if null => Cell::Null,
            "BOOLEAN" | "TINYINT(1)" => number(row.try_get_unchecked::<i8, _>(at).ok().map(f64::from)),
            k if k.contains("UNSIGNED") => number(row.try_get_unchecked::<u64, _>(at).ok().map(|n| n as f64)),
            k if k.contains("INT") => number(row.try_get_unchecked::<i64, _>(at).ok().map(|n| n as f64)),
            "YEAR" => number(row.try_get_unchecked::<u16, _>(at).ok().map(f64::from)),
            "FLOAT" => number(row.try_get::<f32, _>(at).ok().map(f64::from)),
            "DOUBLE" => number(row.try_get::<f64, _>(at).ok()),
            "DECIMAL" => {
                let text: String = row.try_get_unchecked(at).map_err(failed)?;
                text.parse().map_or(Cell::Text(text), Cell::Number)
            }
            k if k.contains("CHAR")
                || k.contains("TEXT")
                || k.contains("BLOB")
                || k.contains("BINARY")
                || k == "ENUM" =>
            {
                Cell::Text(row.try_get_unchecked(at).map_err(failed)?)
            }
            other => return Err(Failed::Cell(format!("the column {} is of the type {other}", column.name()))),
        };
        out.push((column.name().to_owned(), cell));
    }
    Ok(out)
}

fn failed(e: sqlx::Error) -> Failed {
    let number = match &e {
        sqlx::Error::Database(d) => d.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(|d| d.number()),
        _ => None,
    };
    match number {
        // Access denied; unknown database. Too many connections, also of one user; the server shuts down.
        Some(1044 | 1045 | 1049 | 1698) => Failed::Refused(e),
        Some(1040 | 1203 | 1226 | 1053) => Failed::Unreachable(e),
        _ => sorted(e, |_| false, |_| false),
    }
}
