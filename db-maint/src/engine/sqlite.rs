//! SQLite files, read as they are while the shop uses them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::{Connect, Engine, failed, reason};
use crate::activity::{Seen, SqliteContent, SqliteFile, Unseen, Violation, Violations};
use crate::capability::{Capabilities, Flavour, IndexUsage, NodeRole, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::ident::{quoted, trusted};
use crate::inspection::{Facts, InspectOptions};
use crate::schema::{Counter, ForeignKey, Index, KeyPart, Purpose, Schema, State, Table, TableName};
use crate::session::Session;

/// How long another one's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long one look at the whole file may take, and after how many of SQLite's instructions the time is looked at.
const LONGEST: Duration = Duration::from_secs(60);
const INSTRUCTIONS: i32 = 10_000;

/// A SQLite file.
#[derive(Debug, Clone)]
pub struct Sqlite {
    path: PathBuf,
}

impl Sqlite {
    /// The file at this path; it has to exist.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    async fn connect(&self) -> Result<SqliteConnection> {
        // Not read-only: a log that nobody has open could not be read then. The session is told to change nothing.
        self.open(self.options().pragma("query_only", "ON")).await
    }

    fn options(&self) -> SqliteConnectOptions {
        let options = SqliteConnectOptions::new().filename(&self.path).create_if_missing(false);
        options.busy_timeout(PATIENCE).disable_statement_logging()
    }

    async fn open(&self, options: SqliteConnectOptions) -> Result<SqliteConnection> {
        if !self.path.is_file() {
            return Err(Error::new(ErrorKind::Unreachable, format!("{}: there is no such file", self.location()))
                .with_next_step("check the path"));
        }
        options.connect().await.map_err(|e| self.failed("cannot be opened", e))
    }

    fn failed(&self, what: &str, e: sqlx::Error) -> Error {
        failed(&self.location(), what, e, meaning)
    }

    async fn capabilities_of(&self, session: &mut SqliteConnection) -> Result<Capabilities> {
        let version: String = sqlx::query_scalar("SELECT sqlite_version() FROM (SELECT count(*) FROM sqlite_schema)")
            .fetch_one(session)
            .await
            .map_err(|e| self.failed("cannot be read", e))?;
        Ok(Capabilities {
            flavour: Flavour::Sqlite,
            version: Version::parse(&version),
            location: self.location(),
            role: NodeRole::Single,
            extensions: Default::default(),
            sees_tables: true,
            sees_sessions: false,
            counting_since: None,
            index_usage: IndexUsage::Uncountable,
            server_time: Utc::now(),
        })
    }

    async fn file(&self, session: &mut SqliteConnection) -> Result<SqliteFile, sqlx::Error> {
        let number = async |session: &mut SqliteConnection, sql: &'static str| -> Result<u64, sqlx::Error> {
            let n: i64 = sqlx::query_scalar(sql).fetch_one(session).await?;
            Ok(u64::try_from(n).unwrap_or(0))
        };
        let pages = number(session, "PRAGMA page_count").await?;
        let free_pages = number(session, "PRAGMA freelist_count").await?;
        let page_bytes = number(session, "PRAGMA page_size").await?;
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *session).await?;
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        // In this mode without a log there is nothing in it.
        let wal_bytes = (mode == "wal").then(|| std::fs::metadata(log).map_or(0, |m| m.len()));
        let gives_back = number(session, "PRAGMA auto_vacuum").await? == 2;
        Ok(SqliteFile { pages, free_pages, page_bytes, wal_bytes, gives_back })
    }
}

/// What an error of it means.
fn meaning(e: &sqlx::Error) -> (ErrorKind, &'static str) {
    match result_code(e) {
        Some(BUSY | LOCKED) => (ErrorKind::Busy, "another program has it locked; try again"),
        Some(NOT_A_DATABASE) => (ErrorKind::Unreachable, "it is no SQLite database, or is encrypted"),
        Some(CORRUPT) => (ErrorKind::Database, "it is damaged: restore the newest verified backup"),
        Some(ERROR | CONSTRAINT) => (ErrorKind::Database, "check the rule that led to this statement"),
        _ => (ErrorKind::Unreachable, "check the file and the rights on it and its folder"),
    }
}

/// What has to be read as a whole, if that is wanted, each for a minute at most.
async fn content(session: &mut SqliteConnection, wanted: bool) -> (SqliteContent, Seen<Violations>) {
    let not_wanted = || {
        Unseen::unknown(
            "it was not looked for",
            "ask for it where nobody has to write meanwhile, or restore a backup and ask there",
        )
    };
    let damage = if wanted { seen(within(session, async |s| damage(s).await).await) } else { Err(not_wanted()) };
    if damage.as_ref().is_ok_and(|damage| !damage.is_empty()) {
        let stumble = || Unseen::unknown("the file is damaged", "mend that first");
        return (SqliteContent { damage, outgrown: Err(stumble()) }, Err(stumble()));
    }
    let violations =
        if wanted { seen(within(session, async |s| violations(s).await).await) } else { Err(not_wanted()) };
    (SqliteContent { damage, outgrown: seen(within(session, async |s| outgrown(s).await).await) }, violations)
}

/// Ends what takes longer than a minute: SQLite itself never does.
async fn within<T>(
    session: &mut SqliteConnection,
    work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let until = Instant::now() + LONGEST;
    session.lock_handle().await?.set_progress_handler(INSTRUCTIONS, move || Instant::now() < until);
    let done = work(&mut *session).await;
    session.lock_handle().await?.remove_progress_handler();
    done
}

async fn violations(session: &mut SqliteConnection) -> Result<Violations, sqlx::Error> {
    let sql = "SELECT \"table\", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2 ORDER BY 1, 2";
    let mut found = Vec::new();
    for row in session.fetch_all(sql).await? {
        let rows = u64::try_from(row.try_get::<i64, _>(2)?).unwrap_or(0);
        found.push(Violation { table: row.try_get(0)?, key: None, to: row.try_get(1)?, rows });
    }
    Ok(Violations { found, examined: 1, unknown: Vec::new() })
}

#[async_trait]
impl Engine for Sqlite {
    fn location(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        let mut session = self.connect().await?;
        let capabilities = self.capabilities_of(&mut session).await;
        close(session).await;
        capabilities
    }
}

#[async_trait]
impl Connect for Sqlite {
    async fn session(&self) -> Result<Session> {
        // The mode of the file's log stays as it is; foreign keys hold, which is not SQLite's own default.
        let session = self.open(self.options().foreign_keys(true)).await?;
        Ok(Session::sqlite(session, self.location(), meaning))
    }

    async fn lasting_session(&self, limit: Duration) -> Result<Session> {
        let mut session = self.session().await?;
        session.limit(limit).await.map_err(|e| session.error("does not take a limit", e))?;
        Ok(session)
    }

    async fn schema(&self) -> Result<Schema> {
        let mut session = self.connect().await?;
        let schema = read(&mut session).await;
        close(session).await;
        schema.map_err(|e| self.failed("does not show its tables", e))
    }

    async fn facts(&self, options: &InspectOptions) -> Result<Facts> {
        let mut session = self.connect().await?;
        let capabilities = self.capabilities_of(&mut session).await?;
        let file = seen(self.file(&mut session).await);
        // In any other mode nobody could write for as long as the file is read.
        let wanted = options.integrity.unwrap_or(file.as_ref().is_ok_and(|file| file.wal_bytes.is_some()));
        let no_server = || Unseen::NotApplicable("SQLite has no server".into());
        let (content, violations) = content(&mut session, wanted).await;
        let facts = Facts {
            schema: seen(read(&mut session).await),
            counters: seen(counters(&mut session).await),
            connections: Err(no_server()),
            sessions: Err(no_server()),
            spaces: Err(Unseen::NotApplicable("see sqlite-free-pages".into())),
            vacuums: Err(Unseen::NotApplicable("SQLite reuses the room of deleted rows itself".into())),
            content,
            file,
            violations,
            replication: Err(no_server()),
            modified: Err(no_server()),
            look: None,
            declared: Vec::new(),
            capabilities,
        };
        close(session).await;
        Ok(facts)
    }
}

async fn close(session: SqliteConnection) {
    // Everything was read.
    let _ = session.close().await;
}

/// What an integrity check says, the first of it.
async fn damage(session: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    let mut checked = sqlx::query_scalar("PRAGMA integrity_check(20)").fetch_all(&mut *session).await;
    if checked.as_ref().err().and_then(result_code) == Some(READ_ONLY) {
        checked = damage_by_table(session).await;
    }
    match checked {
        Ok(mut lines) => {
            lines.retain(|line| line != "ok");
            lines.truncate(20);
            Ok(lines)
        }
        // Too damaged to be checked.
        Err(e) if result_code(&e) == Some(CORRUPT) => Ok(vec![e.to_string()]),
        Err(e) => Err(e),
    }
}

/// Each table by itself, and not the virtual ones: their own check writes, which this session may not.
async fn damage_by_table(session: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow')";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *session).await?;
    let mut lines = Vec::new();
    for table in tables {
        let sql = format!("PRAGMA integrity_check({})", quoted(Flavour::Sqlite, &table));
        let more: Vec<String> = sqlx::query_scalar(trusted(sql)).fetch_all(&mut *session).await?;
        lines.extend(more);
    }
    Ok(lines)
}

/// SQLite's result code, without what is added to it.
fn result_code(e: &sqlx::Error) -> Option<u32> {
    let code = e.as_database_error()?.code()?.parse::<u32>().ok()?;
    Some(code & 0xff)
}

/// Tables with indexes that have outgrown their statistics: ten times as many rows as when they were analysed, or a thousand
/// and never analysed. (`PRAGMA optimize` goes by the same factor; asking it takes the lock of a writer.) Nothing is counted
/// further than that.
async fn outgrown(session: &mut SqliteConnection) -> Result<Vec<(String, Option<u64>)>, sqlx::Error> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'";
    let analysed = match sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *session).await? {
        0 => "NULL",
        _ => "(SELECT max(CAST(stat AS INTEGER)) FROM sqlite_stat1 s WHERE s.tbl = t.name)",
    };
    let sql = format!(
        "SELECT t.name, {analysed} FROM pragma_table_list t WHERE t.schema = 'main' AND t.type = 'table' \
         AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND EXISTS (SELECT 1 FROM pragma_index_list(t.name))"
    );
    let mut outgrown = Vec::new();
    for row in session.fetch_all(trusted(sql)).await? {
        let (table, analysed): (String, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let limit = analysed.map_or(FEW, |n| n.saturating_mul(10).max(FEW));
        let name = quoted(Flavour::Sqlite, &table);
        let sql = match limit {
            ..=COUNTED => format!("SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT {limit})"),
            // Rows are numbered without large gaps where nothing else numbers them.
            _ => format!(
                "SELECT count(*) FROM {name} WHERE _rowid_ = (SELECT max(_rowid_) FROM {name} WHERE _rowid_ >= {limit})"
            ),
        };
        let rows = match sqlx::query_scalar::<_, i64>(trusted(sql)).fetch_one(&mut *session).await {
            Ok(rows) => rows,
            // One without numbers.
            Err(e) if limit > COUNTED && e.to_string().contains("_rowid_") => continue,
            Err(e) => return Err(e),
        };
        if rows >= limit || (limit > COUNTED && rows > 0) {
            outgrown.push((table, analysed.and_then(|n| u64::try_from(n).ok())));
        }
    }
    Ok(outgrown)
}

const FEW: i64 = 1_000;
const COUNTED: i64 = 100_000;

/// SQLite's result codes (<https://sqlite.org/rescode.html>).
const ERROR: u32 = 1;
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READ_ONLY: u32 = 8;
const CORRUPT: u32 = 11;
const CONSTRAINT: u32 = 19;
const NOT_A_DATABASE: u32 = 26;

fn seen<T>(read: Result<T, sqlx::Error>) -> Seen<T> {
    read.map_err(|e| {
        Unseen::unknown(format!("the file cannot be read: {}", reason(&e)), "check it with `PRAGMA integrity_check`")
    })
}

async fn read(session: &mut SqliteConnection) -> Result<Schema, sqlx::Error> {
    let tables = tables(session).await?;
    let mut indexes = indexes(session).await?;
    // The number of a row is a primary key without an index of its own.
    for row in session.fetch_all(ROW_KEYS).await? {
        let table = TableName::new("", row.try_get::<String, _>(0)?);
        if !indexes.iter().any(|i| i.table == table && i.purpose == Purpose::Primary) {
            let key = KeyPart { what: row.try_get(1)?, is_expression: false, order: "0 BINARY".into(), prefix: None };
            indexes.push(Index {
                keys: vec![key],
                unique: true,
                purpose: Purpose::Primary,
                ..plain(table, "PRIMARY KEY".into())
            });
        }
    }
    Ok(Schema { tables, indexes, foreign_keys: foreign_keys(session).await? })
}

const ROW_KEYS: &str = "SELECT t.name, c.name FROM pragma_table_list t, pragma_table_info(t.name) c \
    WHERE t.schema = 'main' AND t.type = 'table' AND c.pk = 1";

fn plain(table: TableName, name: String) -> Index {
    Index {
        table,
        name,
        method: "btree".into(),
        keys: Vec::new(),
        included: Vec::new(),
        predicate: None,
        unique: false,
        nulls_equal: false,
        purpose: Purpose::Plain,
        state: State::Valid,
        visible: true,
        is_partitioned: false,
        is_part: false,
        bytes: None,
        scans: None,
        counted_since: None,
        definition: None,
    }
}

async fn tables(session: &mut SqliteConnection) -> Result<Vec<Table>, sqlx::Error> {
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let table = |row: SqliteRow| {
        Ok(Table {
            name: TableName::new("", row.try_get::<String, _>(0)?),
            is_part: false,
            engine: String::new(),
            rows: None,
            bytes: None,
        })
    };
    session.fetch_all(sql).await?.into_iter().map(table).collect()
}

async fn indexes(session: &mut SqliteConnection) -> Result<Vec<Index>, sqlx::Error> {
    let sql = "SELECT t.name, i.name, i.\"unique\", i.origin, i.partial, x.cid, x.name, x.\"desc\" || ' ' || x.coll, s.sql \
        FROM pragma_table_list t, pragma_index_list(t.name) i, pragma_index_xinfo(i.name) x \
        LEFT JOIN sqlite_schema s ON s.type = 'index' AND s.name = i.name \
        WHERE t.schema = 'main' AND t.type = 'table' AND x.key = 1 ORDER BY t.name, i.name, x.seqno";
    let mut indexes: Vec<Index> = Vec::new();
    for row in session.fetch_all(sql).await? {
        let (table, name): (TableName, String) = (TableName::new("", row.try_get::<String, _>(0)?), row.try_get(1)?);
        let definition: Option<String> = row.try_get(8)?;
        // Expressions and conditions are shown nowhere but in the statement: what follows the index' name stands for them.
        let tail = || definition.as_deref().map(|sql| tail(sql, &name)).unwrap_or_default();
        let is_expression = row.try_get::<i64, _>(5)? == -2;
        let part = KeyPart {
            what: if is_expression {
                tail()
            } else {
                row.try_get::<Option<String>, _>(6)?.unwrap_or_else(|| "rowid".into())
            },
            is_expression,
            order: row.try_get(7)?,
            prefix: None,
        };
        if let Some(last) = indexes.last_mut().filter(|last| last.table == table && last.name == name) {
            last.keys.push(part);
            continue;
        }
        let origin: String = row.try_get(3)?;
        indexes.push(Index {
            keys: vec![part],
            predicate: (row.try_get::<i64, _>(4)? != 0).then(tail),
            unique: row.try_get::<i64, _>(2)? != 0,
            purpose: match origin.as_str() {
                "pk" => Purpose::Primary,
                "u" => Purpose::Constraint,
                _ => Purpose::Plain,
            },
            definition: definition.clone(),
            ..plain(table, name)
        });
    }
    Ok(indexes)
}

/// What follows the index' name in its statement, without the spaces that mean nothing.
fn tail(sql: &str, name: &str) -> String {
    let at = sql.find(name).map_or(0, |at| at + name.len());
    let mut rest = sql[at..].trim_start_matches(['"', '`', ']', '\'']).chars().peekable();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut quote = None;
    while let Some(c) = rest.next() {
        if quote.is_none() && c.is_whitespace() {
            // Between two words it keeps them apart.
            let between = out.chars().last().is_some_and(is_word) && rest.peek().is_some_and(|next| is_word(*next));
            if between {
                out.push(' ');
            }
            continue;
        }
        match quote {
            Some(end) if c == end => quote = None,
            None if matches!(c, '\'' | '"' | '`') => quote = Some(c),
            _ => {}
        }
        out.push(c);
    }
    out
}

async fn foreign_keys(session: &mut SqliteConnection) -> Result<Vec<ForeignKey>, sqlx::Error> {
    let sql = "SELECT t.name, f.id, f.\"table\", f.\"from\" FROM pragma_table_list t, pragma_foreign_key_list(t.name) f \
        WHERE t.schema = 'main' AND t.type = 'table' ORDER BY t.name, f.id, f.seq";
    let mut keys: Vec<ForeignKey> = Vec::new();
    for row in session.fetch_all(sql).await? {
        let table = TableName::new("", row.try_get::<String, _>(0)?);
        let (id, column): (i64, String) = (row.try_get(1)?, row.try_get(3)?);
        let name = format!("foreign key {id}");
        if let Some(last) = keys.last_mut().filter(|last| last.table == table && last.name == name) {
            last.columns.push(column);
            continue;
        }
        let to = TableName::new("", row.try_get::<String, _>(2)?);
        keys.push(ForeignKey { name, table, columns: vec![column], to, to_columns: Vec::new(), validated: false });
    }
    Ok(keys)
}

async fn counters(session: &mut SqliteConnection) -> Result<Vec<Counter>, sqlx::Error> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_sequence'";
    if sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *session).await? == 0 {
        return Ok(Vec::new());
    }
    let counter = |row: SqliteRow| {
        Ok(Counter {
            object: row.try_get(0)?,
            last: row.try_get::<Option<i64>, _>(1)?.map(i128::from),
            limit: i64::MAX.into(),
            limited_by: "the number of a row".into(),
            cycles: false,
        })
    };
    session.fetch_all("SELECT name, seq FROM sqlite_sequence").await?.into_iter().map(counter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_statement_does_not_depend_on_the_name() {
        let a = tail("CREATE INDEX a ON o (lower(x))  WHERE x > 'a  b'", "a");
        assert_eq!(a, "ON o(lower(x))WHERE x>'a  b'");
        assert_eq!(tail("CREATE INDEX \"b c\" ON o(lower( x )) WHERE\nx>'a  b'", "b c"), a);
        assert_ne!(tail("CREATE INDEX a ON o (lower(x)) WHERE x > 'a b'", "a"), a);
    }
}
