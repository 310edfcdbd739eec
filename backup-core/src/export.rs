//! A snapshot of a database as one plain SQL file, for the database's own client.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::insert::{Inserts, Statement};
use crate::manifest::{EntryKind, EntryRecord, Snapshot, SnapshotId};
use crate::pipeline::{EntryReader, blocking};
use crate::progress::{Event, Progress};
use crate::repository::Repository;

/// Statistics of SQLite's query planner in a table that not every `sqlite3` has. They can be made again with `ANALYZE`;
/// a file that does not load is worse.
const STATISTICS: &str = "sqlite_stat4";
/// Statements of rows are ended at this length in bytes.
const STATEMENT: usize = 512 * 1024;

/// What an export wrote.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExportReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The file.
    pub file: PathBuf,
    /// The file with what belongs to the server rather than the database, roles for one, where there is such a thing.
    pub globals: Option<PathBuf>,
    /// Length of the SQL in bytes, before any compression.
    pub bytes: u64,
}

impl Repository {
    /// Writes `snapshot` to `file` as plain SQL, compressed with gzip where the name ends in `.gz`; the file appears when
    /// it is complete and never replaces another. It is *not* encrypted. `sqlite3 new.db < file` loads a SQLite one;
    /// the planner's statistics of `sqlite_stat4` are left out, since not every `sqlite3` has that table. `psql -d new < file`
    /// loads a PostgreSQL one, `mariadb new < file` or `mysql new < file` one of MySQL or MariaDB; the server's roles or
    /// users, password verifiers included, go to a file of their own beside it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the snapshot is of files; [`ErrorKind::TargetNotEmpty`] where `file` exists.
    pub async fn export(&self, snapshot: &Snapshot, file: &Path, progress: Arc<dyn Progress>) -> Result<ExportReport> {
        let manifest = &snapshot.manifest;
        if manifest.entries.iter().any(|e| matches!(e.kind, EntryKind::Files | EntryKind::Tree)) {
            return Err(Error::new(ErrorKind::Config, format!("snapshot {} holds files, not a database", snapshot.id))
                .with_next_step("restore it to a directory: --target dir:PATH"));
        }
        let has_globals = manifest.entries.iter().any(|e| e.kind == EntryKind::Globals);
        let globals_file = has_globals.then(|| beside(file));
        // Both before the first byte of either.
        for file in [Some(file), globals_file.as_deref()].into_iter().flatten() {
            must_be_new(file)?;
        }
        let reader = EntryReader::new(self, manifest, Arc::clone(&progress))?;
        let content = |e: &&EntryRecord| e.subject != STATISTICS && e.kind != EntryKind::Globals;
        let bytes = write_entries(&reader, manifest.entries.iter().filter(content), file, progress.as_ref()).await?;
        let globals = manifest.entries.iter().filter(|e| e.kind == EntryKind::Globals);
        if let Some(file) = &globals_file {
            write_entries(&reader, globals, file, progress.as_ref()).await?;
        }
        Ok(ExportReport { snapshot: snapshot.id.clone(), file: file.to_owned(), globals: globals_file, bytes })
    }
}

/// The file for what belongs to the server: `shop.globals.sql.gz` beside `shop.sql.gz`.
fn beside(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ending) = match name.find(".sql") {
        Some(at) => name.split_at(at),
        None => (name.as_str(), ".sql"),
    };
    file.with_file_name(format!("{stem}.globals{ending}"))
}

/// Writes entries one after the other, each in its frame; the length of it all in bytes.
async fn write_entries(
    reader: &EntryReader,
    entries: impl Iterator<Item = &EntryRecord>,
    file: &Path,
    progress: &dyn Progress,
) -> Result<u64> {
    let (send, receive) = mpsc::channel::<Bytes>(4);
    let path = file.to_owned();
    let write = blocking(move || write_file(&path, receive));
    let feed = async move {
        for entry in entries {
            progress.on(Event::Began { name: &entry.name });
            let frame = |text: &str| {
                let text = Bytes::copy_from_slice(text.as_bytes());
                futures::stream::iter((!text.is_empty()).then_some(Ok(text)))
            };
            let rows = match entry.insert.as_str() {
                "" => reader.read(entry),
                insert => statements(reader.read(entry), insert),
            };
            let mut body = frame(&entry.before).chain(rows).chain(frame(&entry.after));
            while let Some(bytes) = body.try_next().await? {
                // If nobody listens the writing failed, and says why itself.
                if send.send(bytes).await.is_err() {
                    return Ok(());
                }
            }
            progress.on(Event::Ended { name: &entry.name, rows: entry.fingerprint.rows() });
        }
        // An empty piece marks the end: a feed that failed ends without it.
        let _ = send.send(Bytes::new()).await;
        Ok::<(), Error>(())
    };
    let (fed, written) = futures::join!(feed, write);
    fed?;
    written
}

/// Rows as statements, many in each.
fn statements<'a>(body: BoxStream<'a, Result<Bytes>>, insert: &str) -> BoxStream<'a, Result<Bytes>> {
    let with_end = |mut statement: Statement| {
        statement.text.extend_from_slice(b";\n");
        Bytes::from(statement.text)
    };
    let inserts = Inserts::new(insert, STATEMENT);
    futures::stream::try_unfold((body, Some(inserts)), move |(mut body, inserts)| async move {
        let Some(mut inserts) = inserts else { return Ok(None) };
        let (text, inserts) = match body.try_next().await? {
            Some(bytes) => {
                let mut rest = &bytes[..];
                (std::iter::from_fn(|| inserts.feed(&mut rest)).collect::<Vec<_>>(), Some(inserts))
            }
            None => (inserts.finish()?.into_iter().collect(), None),
        };
        let text: Vec<Bytes> = text.into_iter().map(with_end).collect();
        Ok::<_, Error>(Some((text, (body, inserts))))
    })
    .map_ok(|some| futures::stream::iter(some.into_iter().map(Ok)))
    .try_flatten()
    .boxed()
}

fn must_be_new(path: &Path) -> Result<()> {
    if path.exists() {
        return Err(Error::new(ErrorKind::TargetNotEmpty, format!("{} exists already", path.display()))
            .with_next_step("choose another name, or move it away"));
    }
    Ok(())
}

fn write_file(path: &Path, pieces: mpsc::Receiver<Bytes>) -> Result<u64> {
    let failed = |what: &str, e: std::io::Error| {
        Error::new(ErrorKind::Target, format!("{} {what}: {e}", path.display())).with_source(e)
    };
    must_be_new(path)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".caretaker-partial");
    let partial = PathBuf::from(name);
    let write = || -> std::io::Result<Option<u64>> {
        let mut options = std::fs::OpenOptions::new();
        // What a killed export left goes; a link is never followed.
        match std::fs::remove_file(&partial) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        options.write(true).create_new(true);
        // A shop's data in the clear: for its owner's eyes.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&partial)?;
        let gzip = path.extension().is_some_and(|e| e == "gz");
        let (bytes, file) = if gzip {
            let mut out = GzEncoder::new(BufWriter::new(file), Compression::default());
            let bytes = copy(pieces, &mut out)?;
            (bytes, into_file(out.finish()?)?)
        } else {
            let mut out = BufWriter::new(file);
            let bytes = copy(pieces, &mut out)?;
            (bytes, into_file(out)?)
        };
        file.sync_all()?;
        if bytes.is_some() {
            std::fs::hard_link(&partial, path)?;
        }
        Ok(bytes)
    };
    let written = write();
    let removed = std::fs::remove_file(&partial);
    let bytes = written.map_err(|e| failed("cannot be written", e))?;
    removed.map_err(|e| failed("is written, but its temporary name cannot be removed", e))?;
    bytes.ok_or_else(|| Error::new(ErrorKind::Target, format!("{} was not completed", path.display())))
}

fn into_file(out: BufWriter<File>) -> std::io::Result<File> {
    out.into_inner().map_err(std::io::IntoInnerError::into_error)
}

/// Copies until the mark of the end; `None` if it never came.
fn copy(mut pieces: mpsc::Receiver<Bytes>, out: &mut impl Write) -> std::io::Result<Option<u64>> {
    let mut bytes = 0;
    while let Some(piece) = pieces.blocking_recv() {
        if piece.is_empty() {
            return Ok(Some(bytes));
        }
        bytes += piece.len() as u64;
        out.write_all(&piece)?;
    }
    Ok(None)
}
