//! Into a SQLite database.
//!
//! Where there is no file, a new one is filled beside its place and renamed into it when it is complete: a restore that
//! fails leaves nothing. Where there is one, everything happens in one transaction of it, so that programs that have it
//! open see the old state or the new one; page size and text encoding stay as they are.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::sync::Mutex;

use super::{Filling, Intake, Invariant, InvariantOutcome, Only, Orphans, Target, named_statements};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, EntryRecord, Manifest};
use crate::source::Source;
use crate::source::sqlite::{ENCODING, JOURNAL_MODE, KIND, Object, ObjectKind, SETTINGS, SqliteSource, objects_of};
use crate::sql;

/// The largest text of definitions that is taken into memory, in bytes.
const MAX_SCHEMA: u64 = 256 << 20;
const BUSY: Duration = Duration::from_secs(30);

/// A SQLite database file, existing or not.
#[derive(Debug, Clone)]
pub struct SqliteTarget {
    path: PathBuf,
}

impl SqliteTarget {
    /// The database at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn partial(&self) -> PathBuf {
        beside(&self.path, ".caretaker-partial")
    }
}

#[async_trait]
impl Target for SqliteTarget {
    fn location(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    async fn open(&self, manifest: &Manifest, filling: &Filling) -> Result<Box<dyn Intake>> {
        if manifest.source.kind != KIND {
            return Err(Error::new(
                ErrorKind::Config,
                format!("a snapshot of {} cannot be restored to {}", manifest.source.kind, self.location()),
            )
            .with_next_step("name a target of the snapshot's own kind"));
        }
        let fresh = !self.path.exists();
        let path = if fresh { self.partial() } else { self.path.clone() };
        if fresh {
            // What a killed restore left.
            remove_database(&path)?;
        }
        let guard = Partial { path: fresh.then(|| path.clone()) };
        let mut db = connect(&path, fresh).await?;
        if fresh {
            // Nobody else sees the file before it is complete, and a failed one is thrown away.
            run(&mut db, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE", &path)
                .await?;
        }
        // What breaks a CHECK in the source is restored as it was: a backup is no judge.
        run(&mut db, "PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON; PRAGMA cache_size=-16384", &path)
            .await?;
        let mut there = None;
        if !fresh {
            run(&mut db, "BEGIN IMMEDIATE", &path).await?;
            let mut encoding = String::new();
            if let Some(name) = sqlx::query_scalar::<_, String>("PRAGMA encoding")
                .fetch_optional(&mut db)
                .await
                .map_err(|e| failed(&path, e))?
            {
                encoding = name;
            }
            there = Some(encoding);
            make_room(&mut db, filling, &path).await?;
        }
        Ok(Box::new(SqliteIntake {
            target: self.path.clone(),
            path,
            fresh,
            composed: filling.composed,
            only: filling.only.clone(),
            wal: AtomicBool::new(false),
            encoding: there,
            db: Mutex::new(db),
            guard,
        }))
    }

    fn read_back(&self) -> Option<Box<dyn Source>> {
        Some(Box::new(SqliteSource::new(&self.path)))
    }

    async fn check_invariants(&self, text: &str) -> Result<Vec<Invariant>> {
        let mut db = connect(&self.path, false).await?;
        run(&mut db, "PRAGMA query_only=ON", &self.path).await?;
        let mut out = Vec::new();
        for (name, query) in named_statements(text) {
            let mut rows = sqlx::query(sql::trusted(query)).fetch(&mut db);
            let mut broken = 0;
            let outcome = loop {
                match rows.try_next().await {
                    Ok(Some(_)) => broken += 1,
                    Ok(None) if broken == 0 => break InvariantOutcome::Holds,
                    Ok(None) => break InvariantOutcome::Broken(broken),
                    Err(e) => break InvariantOutcome::Unknown(e.to_string()),
                }
            };
            out.push(Invariant { name, outcome });
        }
        Ok(out)
    }

    async fn orphans(&self) -> Result<Vec<Orphans>> {
        let mut db = connect(&self.path, false).await?;
        run(&mut db, "PRAGMA query_only=ON", &self.path).await?;
        let sql = "SELECT c.\"table\", c.parent, c.fkid, count(*), \
            (SELECT group_concat(f.\"from\", ', ') FROM pragma_foreign_key_list(c.\"table\") f WHERE f.id = c.fkid) \
            FROM pragma_foreign_key_check c GROUP BY 1, 2, 3 ORDER BY 1, 3";
        let found: Vec<(String, String, i64, i64, Option<String>)> =
            sqlx::query_as(sql).fetch_all(&mut db).await.map_err(|e| failed(&self.path, e))?;
        let mut all = Vec::new();
        for (table, parent, key, rows, columns) in found {
            let sql =
                "SELECT coalesce('rowid ' || rowid, 'a row') FROM pragma_foreign_key_check(?) WHERE fkid = ? LIMIT 10";
            let first = sqlx::query_scalar(sql).bind(&table).bind(key).fetch_all(&mut db).await;
            let first = first.map_err(|e| failed(&self.path, e))?;
            let reference = match columns {
                Some(columns) => format!("({columns}) to {parent}"),
                None => format!("to {parent}"),
            };
            all.push(Orphans { table, reference, rows: rows.unsigned_abs(), first });
        }
        Ok(all)
    }

    async fn is_vacant(&self) -> Result<bool> {
        Ok(!self.path.exists())
    }

    async fn remove(&self) -> Result<()> {
        remove_database(&self.path)
    }
}

struct SqliteIntake {
    target: PathBuf,
    /// The file that is being filled.
    path: PathBuf,
    fresh: bool,
    /// Who asked for that asks what it has led to, too.
    composed: bool,
    only: Option<Only>,
    /// The text encoding of the file that was there.
    encoding: Option<String>,
    /// Whether a new file shall be in WAL mode.
    wal: AtomicBool,
    db: Mutex<SqliteConnection>,
    guard: Partial,
}

/// Removes the partial file unless it was completed.
struct Partial {
    path: Option<PathBuf>,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(e) = remove_database(&path)
        {
            tracing::warn!(error = %e, "an incomplete restore could not be removed");
        }
    }
}

#[async_trait]
impl Intake for SqliteIntake {
    fn wants(&self, entry: &EntryRecord) -> bool {
        match (&self.only, entry.kind) {
            (Some(only), EntryKind::Data) => only.matches(&entry.subject),
            _ => true,
        }
    }

    fn may_differ(&self, entry: &EntryRecord) -> Option<String> {
        let keeps = !self.fresh && entry.name == SETTINGS;
        keeps.then(|| "what was there is kept (page size, journal mode and the like)".to_owned())
    }

    async fn take(&self, entry: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let mut db = self.db.lock().await;
        match entry.kind {
            EntryKind::Data => self.load(&mut db, entry, body).await,
            _ => self.define(&mut db, entry, body).await,
        }
    }

    async fn finish(self: Box<Self>) -> Result<Vec<String>> {
        let Self { target, path, fresh, composed, db, wal, mut guard, .. } = *self;
        let mut db = db.into_inner();
        let mut notes = Vec::new();
        run(&mut db, "COMMIT", &path).await?;
        let broken: i64 = sqlx::query_scalar("SELECT count(*) FROM pragma_foreign_key_check")
            .fetch_one(&mut db)
            .await
            .map_err(|e| failed(&path, e))?;
        if broken > 0 && !composed {
            notes.push(format!("{broken} rows break a foreign key, as they did in the source"));
        }
        if fresh && wal.into_inner() {
            run(&mut db, "PRAGMA locking_mode=NORMAL; PRAGMA journal_mode=WAL", &path).await?;
        }
        db.close().await.map_err(|e| failed(&path, e))?;
        if fresh {
            settle(&path, &target)?;
            guard.path = None;
        }
        Ok(notes)
    }
}

impl SqliteIntake {
    /// Feeds whole lines to the database, so that no statement is cut.
    async fn load(
        &self,
        db: &mut SqliteConnection,
        entry: &EntryRecord,
        mut body: BoxStream<'_, Result<Bytes>>,
    ) -> Result<()> {
        let mut open = BytesMut::new();
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1);
            if whole == 0 {
                open.extend_from_slice(&bytes);
                continue;
            }
            let text = if open.is_empty() {
                bytes.slice(..whole)
            } else {
                open.extend_from_slice(&bytes[..whole]);
                open.split().freeze()
            };
            open.extend_from_slice(&bytes[whole..]);
            self.statements(db, &text, entry).await?;
        }
        if !open.is_empty() {
            self.statements(db, &open, entry).await?;
        }
        Ok(())
    }

    async fn statements(&self, db: &mut SqliteConnection, text: &[u8], entry: &EntryRecord) -> Result<()> {
        let text = std::str::from_utf8(text).map_err(|e| {
            Error::new(ErrorKind::Damaged, format!("{}: a row is not valid UTF-8", entry.name)).with_source(e)
        })?;
        for statement in batches(text) {
            sqlx::raw_sql(sql::trusted(statement)).execute(&mut *db).await.map_err(|e| {
                Error::new(
                    ErrorKind::Target,
                    format!("rows of {} could not be loaded into {}: {e}", entry.subject, self.path.display()),
                )
                .with_next_step("see the cause; nothing of this restore was kept")
                .with_source(e)
            })?;
        }
        Ok(())
    }

    async fn define(
        &self,
        db: &mut SqliteConnection,
        entry: &EntryRecord,
        body: BoxStream<'_, Result<Bytes>>,
    ) -> Result<()> {
        if entry.bytes > MAX_SCHEMA {
            return Err(Error::new(ErrorKind::Target, format!("{} is too large to be a schema", entry.name)));
        }
        let text = body.try_fold(Vec::new(), |mut all, bytes| async move {
            all.extend_from_slice(&bytes);
            Ok(all)
        });
        let text = String::from_utf8(text.await?)
            .map_err(|e| Error::new(ErrorKind::Damaged, format!("{} is not valid UTF-8", entry.name)).with_source(e))?;
        for object in objects_of(&text)? {
            if object.kind == ObjectKind::Session && object.sql == format!("{JOURNAL_MODE}wal;\n") {
                self.wal.store(true, Ordering::Relaxed);
            }
            if let (Some(wanted), Some(there)) = (object.sql.strip_prefix(ENCODING), &self.encoding)
                && wanted.trim_end_matches(";\n") != sql::literal(there)
            {
                // Rows that are written byte by byte would be read as other characters.
                return Err(Error::new(
                    ErrorKind::Target,
                    format!(
                        "{} stores text as {there}, the snapshot as {}",
                        self.path.display(),
                        wanted.trim_end_matches(";\n")
                    ),
                )
                .with_next_step("restore to a new file, and put that in its place"));
            }
            if !self.needs(entry, &object) {
                continue;
            }
            sqlx::raw_sql(sql::trusted(object.sql.as_str())).execute(&mut *db).await.map_err(|e| {
                Error::new(
                    ErrorKind::Target,
                    format!("{:?} {:?} could not be made in {}: {e}", object.kind, object.name, self.path.display()),
                )
                .with_next_step("it may need a function, collation or module that is not built in; nothing of this restore was kept")
                .with_source(e)
            })?;
        }
        if entry.name == SETTINGS && self.fresh {
            run(db, "BEGIN", &self.path).await?;
        }
        Ok(())
    }

    fn needs(&self, entry: &EntryRecord, object: &Object) -> bool {
        if object.kind == ObjectKind::Session {
            // Page size and encoding are those of the file that is there; the transaction is ours.
            let ours = ["PRAGMA foreign_keys", "COMMIT", JOURNAL_MODE].iter().any(|s| object.sql.starts_with(s));
            let numbers = object.sql.starts_with("PRAGMA user_version");
            return !ours && (self.fresh || entry.name != SETTINGS) && !(numbers && self.only.is_some());
        }
        let Some(only) = &self.only else { return true };
        match object.kind {
            ObjectKind::View => only.matches(&object.name),
            _ => only.matches(&object.table),
        }
    }
}

/// Bytes of SQL in one statement, about.
const BATCH: usize = 256 * 1024;

/// Joins lines `INSERT INTO t VALUES(…);` into statements of many rows: each statement costs a trip to the database's
/// thread, which takes longer than inserting the row.
fn batches(text: &str) -> impl Iterator<Item = String> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        let first = lines.next()?;
        let mut statement = first.to_owned();
        let Some(head) = head(first) else { return Some(statement) };
        statement.truncate(first.len() - 1);
        while let Some(line) =
            lines.next_if(|line| statement.len() < BATCH && line.starts_with(head) && line.ends_with(");"))
        {
            statement.push(',');
            statement.push_str(&line[head.len()..line.len() - 1]);
        }
        Some(statement)
    })
}

/// What stands before the values of an insert: `INSERT INTO "t"("a","b") VALUES`.
fn head(line: &str) -> Option<&str> {
    const WORD: &str = " VALUES(";
    if !line.ends_with(");") {
        return None;
    }
    // The first one that is not part of a quoted name.
    let at =
        line.match_indices(WORD).map(|(at, _)| at).find(|at| line[..*at].matches('"').count().is_multiple_of(2))?;
    Some(&line[..at + WORD.len() - 1])
}

async fn connect(path: &Path, create: bool) -> Result<SqliteConnection> {
    if create && let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::new(ErrorKind::Target, format!("the folder {} cannot be made: {e}", folder.display())).with_source(e)
        })?;
    }
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .busy_timeout(BUSY)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|e| failed(path, e))
}

async fn run(db: &mut SqliteConnection, text: &'static str, path: &Path) -> Result<()> {
    sqlx::raw_sql(text).execute(db).await.map_err(|e| failed(path, e))?;
    Ok(())
}

/// Checks that there is room, or makes it, inside the open transaction.
async fn make_room(db: &mut SqliteConnection, filling: &Filling, path: &Path) -> Result<()> {
    let rows = sqlx::query(
        "SELECT type, name, rootpage FROM main.sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type DESC, rootpage",
    )
    .fetch_all(&mut *db)
    .await
    .map_err(|e| failed(path, e))?;
    let mut there = Vec::new();
    for row in rows {
        let kind: String = row.try_get(0).map_err(|e| failed(path, e))?;
        let name: String = row.try_get(1).map_err(|e| failed(path, e))?;
        if filling.only.as_ref().is_none_or(|only| only.matches(&name)) {
            there.push((kind, name));
        }
    }
    if let Some((kind, name)) = there.first().filter(|_| !filling.clean) {
        return Err(Error::new(
            ErrorKind::TargetNotEmpty,
            format!("{} already holds the {kind} {name}", path.display()),
        )
        .with_next_step("restore to a new file, or say --clean to replace what is there"));
    }
    if filling.only.is_none() {
        run(db, "DROP TABLE IF EXISTS sqlite_stat1; DROP TABLE IF EXISTS sqlite_stat4", path).await?;
    }
    // Views first, then virtual tables (page 0), which take their shadows along.
    for (kind, name) in there {
        let drop = format!("DROP {} IF EXISTS main.{}", kind.to_uppercase(), sql::identifier(&name));
        sqlx::raw_sql(sql::trusted(drop)).execute(&mut *db).await.map_err(|e| failed(path, e))?;
    }
    Ok(())
}

/// Gives a complete file its place, durably.
fn settle(partial: &Path, target: &Path) -> Result<()> {
    let settle = || -> std::io::Result<()> {
        std::fs::File::open(partial)?.sync_all()?;
        if target.symlink_metadata().is_ok() {
            // Its log is not ours to remove.
            return Err(std::io::Error::from(std::io::ErrorKind::AlreadyExists));
        }
        // A log of a database that was here before would be taken for this one's.
        for suffix in ["-wal", "-shm", "-journal"] {
            remove_if_there(&beside(target, suffix))?;
        }
        // Never over a file that came into being meanwhile.
        std::fs::hard_link(partial, target)?;
        std::fs::remove_file(partial)?;
        if let Some(folder) = target.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    settle().map_err(|e| {
        Error::new(ErrorKind::Target, format!("the restored database could not be put at {}: {e}", target.display()))
            .with_source(e)
    })
}

fn remove_database(path: &Path) -> Result<()> {
    for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm"), beside(path, "-journal")] {
        remove_if_there(&file).map_err(|e| {
            Error::new(ErrorKind::Target, format!("{} cannot be removed: {e}", file.display())).with_source(e)
        })?;
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn failed(path: &Path, e: sqlx::Error) -> Error {
    let damaged = matches!(&e, sqlx::Error::Database(d) if d.code().is_some_and(|c| c == "11" || c == "26"));
    if damaged {
        return Error::new(
            ErrorKind::Target,
            format!("{} is damaged, so that nothing can be restored into it: {e}", path.display()),
        )
        .with_next_step("move the file and its -wal and -shm away, and restore to a new file of that name")
        .with_source(e);
    }
    Error::new(ErrorKind::Target, format!("the SQLite database {} could not be written: {e}", path.display()))
        .with_next_step(
            "check the disk, the rights, and that no other program holds it locked; nothing of this restore was kept",
        )
        .with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_joined_and_names_that_look_like_sql_are_not_misread() {
        let text = "INSERT INTO \"a VALUES(\"(\"x\") VALUES(1);\nINSERT INTO \"a VALUES(\"(\"x\") VALUES(' VALUES(');\nINSERT INTO \"b\" VALUES(NULL);\n";
        assert_eq!(
            batches(text).collect::<Vec<_>>(),
            ["INSERT INTO \"a VALUES(\"(\"x\") VALUES(1),(' VALUES(')", "INSERT INTO \"b\" VALUES(NULL)"]
        );
        // Not of our making: passed on as it is.
        assert_eq!(batches("SELECT 1;").collect::<Vec<_>>(), ["SELECT 1;"]);
    }
}
