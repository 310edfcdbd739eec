//! A SQLite database, live, in one read transaction and without a temporary copy.
//!
//! Rows are written as one `INSERT` statement a line, rowids kept, so that `sqlite3` alone can load them. A database in
//! WAL mode is read while others write. In the other journal modes writers wait for readers: the backup warns.
//!
//! Not kept: `PRAGMA`s that are settings of a connection, not of the file. A text that is malformed UTF-16 in a UTF-16
//! database comes back with replacement characters.

mod row;
mod schema;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::mpsc;

use self::row::Encoding;
pub(crate) use self::schema::{ENCODING, JOURNAL_MODE, Object, ObjectKind, objects_of};
use self::schema::{Schema, Table};
use super::{Capture, CaptureContext, CaptureEnd, Entry, Piece, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, Problem, SourceInfo};
use crate::sql;
use crate::tier::Tier;

/// What a source and a target of this kind call themselves.
pub(crate) const KIND: &str = "sqlite";
/// The entry of what has to be set before the first table is made.
pub(crate) const SETTINGS: &str = "schema/settings";
/// How long to wait for a lock of another program.
const BUSY: Duration = Duration::from_secs(10);
/// Rows read ahead of the one that is being written.
const ROWS_AHEAD: usize = 2048;
/// Bytes gathered before they are handed on.
const PIECE: usize = 256 * 1024;

/// A SQLite database file.
///
/// ```
/// let shop = backup_core::SqliteSource::new("/var/www/shop/shop.db").named("shop");
/// # use backup_core::Source;
/// assert_eq!(shop.name(), "shop");
/// ```
#[derive(Debug, Clone)]
pub struct SqliteSource {
    path: PathBuf,
    name: String,
    tier: Option<Tier>,
}

impl SqliteSource {
    /// The database at `path`, named after the file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_stem().map_or_else(|| "sqlite".into(), |n| n.to_string_lossy().into_owned());
        Self { path, name, tier: None }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same, with the rows of this tier only.
    #[must_use]
    pub fn only_tier(mut self, tier: Tier) -> Self {
        self.tier = Some(tier);
        self
    }
}

#[async_trait]
impl Source for SqliteSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn tier(&self) -> Option<&str> {
        self.tier.as_ref().map(Tier::name)
    }

    async fn capture(&self, _: CaptureContext) -> Result<Box<dyn Capture>> {
        if !self.path.is_file() {
            return Err(Error::new(
                ErrorKind::SourceMissing,
                format!("the SQLite database {} is not there", self.path.display()),
            )
            .with_next_step("check the path; a backup never creates a database"));
        }
        let mut connection = connect(&self.path).await?;
        let failed = |e| error(&self.path, e);
        // The transaction takes its snapshot with the first read, which is the schema's.
        sqlx::query("BEGIN").execute(&mut connection).await.map_err(failed)?;
        let mut schema = Schema::read(&mut connection).await.map_err(failed)?;
        if let Some(name) = schema.unwritable() {
            return Err(Error::new(
                ErrorKind::Source,
                format!(
                    "{}: the name {name:?} holds a line break, and a row under it cannot be written as one line",
                    self.path.display()
                ),
            )
            .with_next_step("rename the table or column: ALTER TABLE … RENAME …"));
        }
        if let Some(tier) = &self.tier {
            let needs = schema.needs(&mut connection).await.map_err(failed)?;
            schema.keep_rows_of(tier, &needs)?;
        }
        let taken_at = Utc::now();
        if schema.journal_mode != "wal" {
            tracing::warn!(database = %self.path.display(), journal_mode = schema.journal_mode,
                "writers to this database wait until the backup has read it; PRAGMA journal_mode=WAL lets them go on");
        }
        let info = SourceInfo::new(&self.name, KIND, format!("sqlite:{}", self.path.display()), schema.version.clone());
        let position = format!("journal mode {}, schema version {}", schema.journal_mode, schema.schema_version);
        let is_empty = schema.is_empty();
        // Room for one: the pump goes on to the next entry only when this one is drained.
        let (send, entries) = mpsc::channel(1);
        let pump = tokio::spawn(pump(connection, schema, self.path.clone(), send));
        Ok(Box::new(SqliteCapture { info, taken_at, position, is_empty, entries, pump: Pump(pump) }))
    }
}

/// Opens the database read-only; it must exist.
async fn connect(path: &Path) -> Result<SqliteConnection> {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(BUSY)
        // Rows that the database's thread may be ahead: the default of 50 makes the threads wait for each other.
        .row_buffer_size(ROWS_AHEAD)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|e| error(path, e))
}

struct SqliteCapture {
    info: SourceInfo,
    taken_at: DateTime<Utc>,
    position: String,
    is_empty: bool,
    entries: mpsc::Receiver<Result<Entry>>,
    pump: Pump,
}

/// The task that owns the connection; it ends with the capture.
struct Pump(tokio::task::JoinHandle<Result<()>>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl Capture for SqliteCapture {
    fn info(&self) -> SourceInfo {
        self.info.clone()
    }

    async fn next(&mut self) -> Result<Option<Entry>> {
        self.entries.recv().await.transpose()
    }

    async fn finish(mut self: Box<Self>) -> Result<CaptureEnd> {
        self.entries.close();
        match (&mut self.pump.0).await {
            Ok(ended) => ended?,
            Err(e) => {
                return Err(Error::new(ErrorKind::Source, format!("reading {} was broken off", self.info.location))
                    .with_source(e));
            }
        }
        let end = CaptureEnd::at(self.taken_at).with_position(self.position);
        if self.is_empty {
            // As SQLite sees it, a file of no bytes is a good database.
            let problem = Problem::new(self.info.location, "it holds no table at all: is it the right file?");
            return Ok(end.with_problems(vec![problem], 1));
        }
        Ok(end)
    }
}

type Bodies = mpsc::Sender<Result<Piece>>;

/// Reads everything in order. An error goes into the entry it belongs to, and ends the capture as well.
async fn pump(
    mut connection: SqliteConnection,
    schema: Schema,
    path: PathBuf,
    entries: mpsc::Sender<Result<Entry>>,
) -> Result<()> {
    let unheard = || Error::new(ErrorKind::Source, format!("reading {} was broken off", path.display()));
    let texts = [(SETTINGS, schema.settings()), ("schema/pre-data", schema.pre_data())];
    for (name, text) in texts {
        let body = open(&entries, name, EntryKind::PreData, "schema").await.ok_or_else(unheard)?;
        body.send(Ok(Bytes::from(text).into())).await.map_err(|_| unheard())?;
    }
    for table in &schema.tables {
        let name = format!("data/{}", table.name);
        let body = open(&entries, &name, EntryKind::Data, &table.owner).await.ok_or_else(unheard)?;
        if let Err(e) = read_table(&mut connection, table, schema.encoding, &body).await {
            // Both ends hear of it: the entry, so that it is not taken for a short table, and `finish`.
            let error = match e {
                TableError::Unheard => unheard(),
                TableError::Sql(e) => error(&path, e),
            };
            // The reader may be gone already.
            let _ = body.send(Err(again(&error))).await;
            return Err(error);
        }
    }
    let body = open(&entries, "schema/post-data", EntryKind::PostData, "schema").await.ok_or_else(unheard)?;
    body.send(Ok(Bytes::from(schema.post_data()).into())).await.map_err(|_| unheard())?;
    drop(body);
    // The transaction only read: ending it cannot fail in a way that matters, but closing says whether it was alive.
    sqlx::query("COMMIT").execute(&mut connection).await.map_err(|e| error(&path, e))?;
    connection.close().await.map_err(|e| error(&path, e))
}

async fn open(entries: &mpsc::Sender<Result<Entry>>, name: &str, kind: EntryKind, subject: &str) -> Option<Bodies> {
    let (send, receive) = mpsc::channel(4);
    let body =
        futures::stream::unfold(
            receive,
            |mut receive| async move { receive.recv().await.map(|piece| (piece, receive)) },
        );
    entries.send(Ok(Entry::new(name, kind, subject, body))).await.ok()?;
    Some(send)
}

enum TableError {
    Unheard,
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for TableError {
    fn from(e: sqlx::Error) -> Self {
        Self::Sql(e)
    }
}

async fn read_table(
    connection: &mut SqliteConnection,
    table: &Table,
    encoding: Encoding,
    body: &Bodies,
) -> std::result::Result<(), TableError> {
    let prefix = table.insert_prefix();
    let mut rows = sqlx::query(sql::trusted(table.select())).fetch(connection);
    let mut out = BytesMut::with_capacity(PIECE + PIECE / 8);
    while let Some(found) = rows.try_next().await? {
        out.extend_from_slice(prefix.as_bytes());
        row::write_values(&mut out, &found, encoding)?;
        out.extend_from_slice(b");\n");
        if out.len() >= PIECE {
            let full = std::mem::replace(&mut out, BytesMut::with_capacity(PIECE + PIECE / 8));
            body.send(Ok(full.freeze().into())).await.map_err(|_| TableError::Unheard)?;
        }
    }
    if !out.is_empty() {
        body.send(Ok(out.freeze().into())).await.map_err(|_| TableError::Unheard)?;
    }
    Ok(())
}

/// The same error once more, for a second listener.
fn again(e: &Error) -> Error {
    let copy = Error::new(e.kind(), e.to_string());
    match e.next_step() {
        Some(next) => copy.with_next_step(next),
        None => copy,
    }
}

/// What SQLite's result code means for a shop owner; see <https://www.sqlite.org/rescode.html>.
fn error(path: &Path, e: sqlx::Error) -> Error {
    let name = path.display();
    let code = match &e {
        sqlx::Error::Database(d) => d.code().and_then(|c| c.parse::<u32>().ok()).map(|c| c & 0xff),
        _ => None,
    };
    let (kind, what, next) = match code {
        Some(5 | 6) => (
            ErrorKind::SourceBusy,
            format!("the SQLite database {name} is locked by another program"),
            "run it again when that program has finished; WAL mode lets both work at once",
        ),
        Some(11 | 26) => (
            ErrorKind::SourceCorrupt,
            format!("the SQLite database {name} is damaged"),
            "check it with `sqlite3 FILE 'PRAGMA integrity_check'`, recover with `.recover`, or restore the last good snapshot",
        ),
        Some(14) => (
            ErrorKind::SourceMissing,
            format!("the SQLite database {name} cannot be opened"),
            "check that this user may read the file and, for WAL mode, write to its folder",
        ),
        _ => (ErrorKind::Source, format!("reading the SQLite database {name} failed"), "see the cause"),
    };
    Error::new(kind, format!("{what}: {e}")).with_next_step(next).with_source(e)
}
