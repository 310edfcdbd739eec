//! A session of any of the three kinds, that reads and nothing else. All values come as text.

use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyRow, install_default_drivers};
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions, Connection, Row as _};

use crate::error::{Error, ErrorKind, Result};

/// For how long a query may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A database, by its address; it is only read.
#[derive(Clone)]
pub struct Database {
    url: String,
    engine: Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Postgres,
    Mysql,
    Sqlite,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) kind: String,
}

pub(super) struct Session {
    connection: AnyConnection,
    pub(super) engine: Engine,
    login: String,
}

pub(super) type Row = Vec<Option<String>>;

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Database {
    /// The database at that address: `postgres://…`, `mysql://…`, `sqlite:PATH`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is none.
    pub fn new(url: &str) -> Result<Self> {
        let (engine, url) = match url.split(':').next() {
            Some("postgres" | "postgresql") => (Engine::Postgres, url.to_owned()),
            Some("mysql") => (Engine::Mysql, url.to_owned()),
            Some("mariadb") => (Engine::Mysql, url.replacen("mariadb", "mysql", 1)),
            // One that is not there must not be made.
            Some("sqlite") => {
                let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
                (Engine::Sqlite, format!("sqlite:{}?mode=ro", path.split('?').next().unwrap_or(path)))
            }
            _ => {
                return Err(Error::new(ErrorKind::Config, "this address names no kind of database that is known")
                    .with_next_step("write postgres://…, mysql://… or sqlite:PATH"));
            }
        };
        Ok(Self { url, engine })
    }

    pub(super) async fn open(&self) -> Result<Session> {
        install_default_drivers();
        let wrong =
            |e: sqlx::Error| Error::new(ErrorKind::Config, "the address of the database cannot be read").with_source(e);
        let options = AnyConnectOptions::from_str(&self.url).map_err(wrong)?.disable_statement_logging();
        let connecting = tokio::time::timeout(LIMIT, AnyConnection::connect_with(&options));
        let connection = match connecting.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) => return Err(failed("cannot be reached", e)),
            Err(_) => return Err(Error::new(ErrorKind::Unreachable, "the database does not answer")),
        };
        let mut session = Session { connection, engine: self.engine, login: String::new() };
        let first: &[&str] = match self.engine {
            Engine::Postgres => &["SET default_transaction_read_only = on", "SET statement_timeout = '30s'"],
            Engine::Mysql => &["SET SESSION TRANSACTION READ ONLY"],
            Engine::Sqlite => &[],
        };
        for sql in first {
            session.execute(sql).await?;
        }
        if self.engine == Engine::Mysql {
            // One of them is known to the server: the first to MariaDB (seconds), the second to MySQL (milliseconds).
            if session.execute("SET SESSION max_statement_time = 30").await.is_err() {
                session.execute("SET SESSION max_execution_time = 30000").await?;
            }
        }
        let who = match self.engine {
            Engine::Postgres => "SELECT current_user::text",
            Engine::Mysql => "SELECT CAST(current_user() AS CHAR)",
            Engine::Sqlite => "SELECT 'nobody'",
        };
        session.login = session.rows(who).await?.into_iter().flatten().flatten().next().unwrap_or_default();
        Ok(session)
    }
}

impl Session {
    /// The login, as the server knows it.
    pub(super) fn login(&self) -> String {
        self.login.clone()
    }

    pub(super) async fn close(self) {
        // One that cannot be closed politely is closed anyway.
        let _ = self.connection.close().await;
    }

    async fn execute(&mut self, sql: &str) -> Result<()> {
        let run = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection);
        limited(run).await.map(|_| ())
    }

    /// The rows of a query all of whose columns are text.
    pub(super) async fn rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        let run = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut self.connection);
        limited(run).await?.iter().map(texts).collect()
    }

    /// The rows of a statement that servers do not prepare.
    pub(super) async fn plain_rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        let run = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut self.connection);
        limited(run).await?.iter().map(texts).collect()
    }

    /// The columns of the shop's tables.
    pub(super) async fn columns(&mut self) -> Result<Vec<Column>> {
        let sql = match self.engine {
            Engine::Postgres => {
                "SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, NULL)::text \
                 FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped \
                 AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%' \
                 ORDER BY 1, 2, a.attnum LIMIT 20000"
            }
            Engine::Mysql => {
                "SELECT CAST(c.table_schema AS CHAR), CAST(c.table_name AS CHAR), CAST(c.column_name AS CHAR), CAST(c.data_type AS CHAR) \
                 FROM information_schema.columns c JOIN information_schema.tables t \
                 ON t.table_schema = c.table_schema AND t.table_name = c.table_name AND t.table_type = 'BASE TABLE' \
                 WHERE c.table_schema = database() ORDER BY c.table_name, c.ordinal_position LIMIT 20000"
            }
            Engine::Sqlite => {
                "SELECT 'main', m.name, p.name, lower(p.type) FROM sqlite_master m JOIN pragma_table_info(m.name) p \
                 WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, p.cid LIMIT 20000"
            }
        };
        let column = |row: Row| {
            let mut parts = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || parts.next().unwrap_or_default();
            Column { schema: next(), table: next(), name: next(), kind: next() }
        };
        Ok(self.rows(sql).await?.into_iter().map(column).collect())
    }

    /// A name, quoted.
    pub(super) fn quoted(&self, name: &str) -> String {
        match self.engine {
            Engine::Mysql => format!("`{}`", name.replace('`', "``")),
            _ => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// A table, quoted.
    pub(super) fn table(&self, column: &Column) -> String {
        format!("{}.{}", self.quoted(&column.schema), self.quoted(&column.table))
    }

    /// An expression as text.
    pub(super) fn text(&self, expression: &str) -> String {
        match self.engine {
            Engine::Postgres => format!("({expression})::text"),
            Engine::Mysql => format!("CAST({expression} AS CHAR)"),
            Engine::Sqlite => format!("CAST({expression} AS TEXT)"),
        }
    }
}

impl Column {
    /// Its name for people.
    pub(super) fn place(&self) -> String {
        match self.schema.as_str() {
            "public" | "main" => format!("{}.{}", self.table, self.name),
            schema => format!("{schema}.{}.{}", self.table, self.name),
        }
    }

    /// `json`, `jsonb`: text with a form, in which anything may stand.
    pub(super) fn is_json(&self) -> bool {
        self.kind.contains("json")
    }

    pub(super) fn is_text(&self) -> bool {
        ["char", "text", "string", "citext", "varying"].iter().any(|kind| self.kind.contains(kind))
    }
}

fn texts(row: &AnyRow) -> Result<Row> {
    (0..row.len())
        .map(|at| row.try_get::<Option<String>, _>(at))
        .collect::<Result<_, _>>()
        .map_err(|e| failed("answers with something else than text", e))
}

async fn limited<T>(run: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    // The server ends the query itself where it can.
    match tokio::time::timeout(LIMIT + Duration::from_secs(5), run).await {
        Ok(outcome) => outcome.map_err(|e| failed("does not answer the question", e)),
        Err(_) => Err(Error::new(ErrorKind::Unreachable, "the database takes too long for the question")),
    }
}

fn failed(what: &str, e: sqlx::Error) -> Error {
    let code = e.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
    let denied = code.starts_with("28") || matches!(code.as_str(), "42501" | "1044" | "1045" | "1142" | "1143");
    let kind = if denied { ErrorKind::Denied } else { ErrorKind::Unreachable };
    // What a driver says may name the address with its password; the server's own message does not.
    let why = e.as_database_error().map_or_else(|| "no connection".to_owned(), |e| e.message().to_owned());
    let next = if denied {
        "give the login that right, or another one"
    } else {
        "see whether it runs and the address is right"
    };
    Error::new(kind, format!("the database {what}: {why}")).with_next_step(next)
}
