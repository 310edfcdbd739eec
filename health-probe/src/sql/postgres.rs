//! PostgreSQL. The rows come as JSON, so that any type of column can be read.

use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::{Cell, Failed, ROWS, Row, Usage, sorted, within};
use crate::error::{Error, ErrorKind, Result};

#[derive(Clone)]
pub(crate) struct Database(PgConnectOptions);

impl Database {
    pub(super) fn new(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            Error::new(ErrorKind::Config, "a PostgreSQL URL that cannot be read")
                .with_next_step("write it as postgres://USER@HOST:PORT/DATABASE")
        })?;
        // Nothing stays in the session that a pooler gives to the shop next.
        Ok(Self(options.application_name("caretaker").statement_cache_capacity(0).disable_statement_logging()))
    }

    async fn open(&self) -> std::result::Result<PgConnection, Failed> {
        PgConnection::connect_with(&self.0).await.map_err(failed)
    }

    pub(super) async fn rows(&self, sql: &str, limit: Duration) -> std::result::Result<Vec<Row>, Failed> {
        within(limit + Duration::from_secs(5), async {
            let mut connection = self.open().await?;
            let mut tx = connection.begin_with("BEGIN READ ONLY").await.map_err(failed)?;
            let set = format!("SET LOCAL statement_timeout = {}", limit.as_millis().max(1));
            sqlx::query(AssertSqlSafe(set)).persistent(false).execute(&mut *tx).await.map_err(failed)?;
            let sql = sql.trim().trim_end_matches(';');
            let wrapped = format!("SELECT to_json(caretaker)::text FROM ({sql}\n) AS caretaker LIMIT {}", ROWS + 1);
            let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(wrapped))
                .persistent(false)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?;
            tx.rollback().await.map_err(failed)?;
            // A connection that cannot be closed politely is closed anyway.
            let _ = connection.close().await;
            rows.iter().map(|row| cells(row)).collect()
        })
        .await
    }

    pub(super) async fn usage(&self, limit: Duration) -> std::result::Result<Usage, Failed> {
        within(limit, async {
            let mut connection = self.open().await?;
            let began = Instant::now();
            sqlx::query("SELECT 1").persistent(false).execute(&mut connection).await.map_err(failed)?;
            let latency = began.elapsed();
            // Everybody may read these; reserved_connections is there from version 16 on.
            let (used, usable): (f64, f64) = sqlx::query_as(
                "SELECT coalesce(sum(numbackends), 0)::float8, \
                   (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
                    - coalesce(current_setting('reserved_connections', true)::int, 0))::float8 FROM pg_stat_database",
            )
            .persistent(false)
            .fetch_one(&mut connection)
            .await
            .map_err(failed)?;
            let _ = connection.close().await;
            Ok(Usage { latency, sessions: Some((used, usable)) })
        })
        .await
    }
}

fn cells(row: &str) -> std::result::Result<Row, Failed> {
    let value: serde_json::Value =
        serde_json::from_str(row).map_err(|e| Failed::Cell(format!("a row that is no JSON: {e}")))?;
    let Some(columns) = value.as_object() else { return Err(Failed::Cell("a row without columns".into())) };
    let cell = |v: &serde_json::Value| match v {
        serde_json::Value::Null => Cell::Null,
        serde_json::Value::Bool(b) => Cell::Flag(*b),
        serde_json::Value::Number(n) => n.as_f64().map_or(Cell::Null, Cell::Number),
        serde_json::Value::String(s) => Cell::Text(s.clone()),
        other => Cell::Text(other.to_string()),
    };
    Ok(columns.iter().map(|(name, v)| (name.clone(), cell(v))).collect())
}

fn failed(e: sqlx::Error) -> Failed {
    // Class 28: the login; 3D000: no such database. 53300: too many connections; 57P03: it starts up or shuts down.
    sorted(e, |c| c.starts_with("28") || c == "3D000", |c| matches!(c, "53300" | "57P01" | "57P02" | "57P03"))
}
