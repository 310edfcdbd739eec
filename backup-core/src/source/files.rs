//! A directory tree: uploads, documents, configuration.
//!
//! Small files are bundled into units of some 2 MiB, big ones are units of their own; a unit is a run of tar members. A
//! unit none of whose files changed or vanished is taken over from the previous snapshot without reading it. One with a
//! change is read again as a whole, at most 2 MiB of it: so nothing that was deleted stays in a newer snapshot. "Unchanged"
//! means the same size, mode, inode, modification and status-change time, and not touched while the previous snapshot
//! was taken.
//!
//! Kept: content, names of any bytes, modes, owner and group numbers, modification times to the nanosecond, symbolic
//! links, empty directories. Not kept: extended attributes, access-control lists, hard links (each name becomes a file of
//! its own), holes in sparse files (they are restored as zeros). Sockets, pipes and devices are named as problems.

mod ahead;
mod member;
mod unchanged;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use globset::{Glob, GlobSet, GlobSetBuilder};
use tokio::sync::mpsc;

use self::ahead::{Ahead, Next};
pub(crate) use self::member::header_mtime;
use self::member::{Read, Small, append_directory, append_link, read_big, read_small, refreshed};
use self::unchanged::{Comparison, DIRECTORY, LINK, PathKeys, PathSet, Unchanged};
use self::walk::{Found, Walk};
use super::{Capture, CaptureContext, CaptureEnd, Entry, Piece, Previous, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::manifest::{EntryKind, Member, Problem, SourceInfo};
use crate::pipeline::blocking;

/// What a source and a target of this kind call themselves.
pub(crate) const KIND: &str = "files";
/// Folders that a restore works in, inside its target: never part of a backup.
pub(crate) const STAGING: &str = ".caretaker-partial";
/// See [`STAGING`].
pub(crate) const REPLACED: &str = ".caretaker-replaced";
const FILES: &str = "files/content";
const TREE: &str = "files/tree";
/// From this size on a file is a unit of its own, in bytes.
const BIG: u64 = 512 * 1024;
/// What a unit of small files is filled up to, in bytes.
const UNIT: usize = 2 * 1024 * 1024;
/// So many units of the previous snapshot are held against the disk before the next are waited for.
const COMPARED_AT_ONCE: usize = 16;
/// The list of directories and links is cut into units of about this many bytes.
const TREE_UNIT: usize = 512 * 1024;
/// How many problems are named; beyond that they are counted.
const NAMED_PROBLEMS: usize = 1000;
/// Bytes of a big file handed on at once.
const PIECE: usize = 1024 * 1024;

/// A directory and everything below it.
///
/// ```
/// # fn main() -> backup_core::Result<()> {
/// let uploads = backup_core::FilesSource::new("/var/www/shop/uploads").excluding(&["cache/**", "*.tmp"])?;
/// # use backup_core::Source;
/// assert_eq!(uploads.name(), "uploads");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct FilesSource {
    root: PathBuf,
    name: String,
    exclude: Arc<GlobSet>,
}

impl FilesSource {
    /// The directory at `root`, named after itself.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let name = root.file_name().map_or_else(|| "files".into(), |n| n.to_string_lossy().into_owned());
        Self { root, name, exclude: Arc::new(GlobSet::empty()) }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Leaves out every path below the root that one of the globs matches, and what is below it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a glob makes no sense.
    pub fn excluding<S: AsRef<str>>(mut self, globs: &[S]) -> Result<Self> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            let glob = glob.as_ref();
            let parsed = Glob::new(glob).map_err(|e| {
                Error::new(ErrorKind::Config, format!("{glob:?} is no glob: {e}"))
                    .with_next_step("a glob looks like cache/** or *.tmp")
            })?;
            set.add(parsed);
        }
        self.exclude = Arc::new(set.build().map_err(|e| {
            Error::new(ErrorKind::Config, format!("the globs to exclude cannot be used together: {e}"))
        })?);
        Ok(self)
    }
}

#[async_trait]
impl Source for FilesSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn capture(&self, context: CaptureContext) -> Result<Box<dyn Capture>> {
        let root = self.root.clone();
        let missing = Error::new(ErrorKind::SourceMissing, format!("the directory {} is not there", root.display()))
            .with_next_step("check the path, and that what should be mounted there is");
        if !blocking(move || Ok(root.is_dir())).await? {
            return Err(missing);
        }
        // Before anything is looked at: what changes from here on is read again next time.
        let taken_at = Utc::now();
        let unchanged = match &context.previous {
            Some(previous) => self.unchanged(previous.as_ref()).await,
            None => Unchanged::default(),
        };
        let (send, entries) = mpsc::channel(1);
        let (root, exclude) = (self.root.clone(), Arc::clone(&self.exclude));
        let reader = tokio::spawn(blocking(move || read_all(&root, &exclude, &unchanged, &send)));
        let info = SourceInfo::new(&self.name, KIND, format!("dir:{}", self.root.display()), "1");
        Ok(Box::new(FilesCapture { info, taken_at, entries, reader }))
    }
}

impl FilesSource {
    /// What the previous snapshot holds and the disk still has as it was. Where that cannot be said, nothing.
    async fn unchanged(&self, previous: &dyn Previous) -> Unchanged {
        let compare = async {
            let Some(units) = previous.units(FILES).await? else { return Ok(Unchanged::default()) };
            let mut units = units.try_ready_chunks(COMPARED_AT_ONCE);
            let (root, exclude) = (self.root.clone(), Arc::clone(&self.exclude));
            let mut comparison = Comparison::new(root, exclude, previous.taken_at(), previous.rows(FILES));
            let keys = PathKeys::default();
            while let Some(some) = units.try_next().await.map_err(|e| e.1)? {
                let keys = keys.clone();
                comparison = blocking(move || {
                    some.iter().try_for_each(|(unit, stored)| comparison.add(unit, *stored, &keys))?;
                    Ok(comparison)
                })
                .await?;
            }
            blocking(move || Ok(comparison.settle(keys))).await
        };
        match compare.await {
            Ok(unchanged) => unchanged,
            Err(e) => {
                tracing::warn!(error = %e, "the previous snapshot's list of files cannot be used; all files are read");
                Unchanged::default()
            }
        }
    }
}

struct FilesCapture {
    info: SourceInfo,
    taken_at: DateTime<Utc>,
    entries: mpsc::Receiver<Entry>,
    reader: tokio::task::JoinHandle<Result<Problems>>,
}

#[async_trait]
impl Capture for FilesCapture {
    fn info(&self) -> SourceInfo {
        self.info.clone()
    }

    async fn next(&mut self) -> Result<Option<Entry>> {
        Ok(self.entries.recv().await)
    }

    async fn finish(mut self: Box<Self>) -> Result<CaptureEnd> {
        self.entries.close();
        let problems = (&mut self.reader).await.map_err(|e| {
            Error::new(ErrorKind::Source, format!("reading {} was broken off", self.info.location)).with_source(e)
        })??;
        Ok(CaptureEnd::at(self.taken_at).with_problems(problems.named, problems.count))
    }
}

/// What could not be read: the first of them by name, and how many.
#[derive(Debug, Default)]
struct Problems {
    named: Vec<Problem>,
    count: u64,
}

impl Problems {
    fn add(&mut self, path: &Path, reason: impl Into<String>) {
        self.count += 1;
        if self.named.len() < NAMED_PROBLEMS {
            self.named.push(Problem::new(path.display().to_string(), reason));
        }
    }
}

/// Nobody listens any more: the capture was dropped, or ended early.
fn unheard(root: &Path) -> Error {
    Error::new(ErrorKind::Source, format!("reading {} was broken off", root.display()))
}

/// The body of one entry, from a thread.
struct Body<'a> {
    root: &'a Path,
    send: mpsc::Sender<Result<Piece>>,
}

impl<'a> Body<'a> {
    fn open(root: &'a Path, entries: &mpsc::Sender<Entry>, name: &str, kind: EntryKind) -> Result<Self> {
        let (send, receive) = mpsc::channel(1);
        let body = futures::stream::unfold(receive, |mut receive| async move {
            receive.recv().await.map(|piece| (piece, receive))
        });
        let subject = root.file_name().map_or_else(|| "files".into(), |n| n.to_string_lossy().into_owned());
        entries.blocking_send(Entry::new(name, kind, subject, body)).map_err(|_| unheard(root))?;
        Ok(Self { root, send })
    }

    fn piece(&self, piece: Piece) -> Result<()> {
        self.send.blocking_send(Ok(piece)).map_err(|_| unheard(self.root))
    }

    fn bytes(&self, bytes: Vec<u8>) -> Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.piece(Bytes::from(bytes).into()) }
    }
}

fn read_all(root: &Path, exclude: &GlobSet, unchanged: &Unchanged, entries: &mpsc::Sender<Entry>) -> Result<Problems> {
    let mut problems = Problems::default();
    let body = Body::open(root, entries, FILES, EntryKind::Files)?;
    let seen = match read_files(root, exclude, unchanged, &body, &mut problems) {
        Ok(seen) => seen,
        Err(e) => {
            // So that the entry is not taken for complete; its reader may be gone already.
            let _ = body.send.blocking_send(Err(unheard(root)));
            return Err(e);
        }
    };
    drop(body);
    let body = Body::open(root, entries, TREE, EntryKind::Tree)?;
    if let Err(e) = read_tree(root, exclude, &seen, &body, &mut problems) {
        let _ = body.send.blocking_send(Err(unheard(root)));
        return Err(e);
    }
    Ok(problems)
}

/// Reads the files; returns which directories and links there were meanwhile.
fn read_files(
    root: &Path,
    exclude: &GlobSet,
    unchanged: &Unchanged,
    body: &Body<'_>,
    problems: &mut Problems,
) -> Result<PathSet> {
    for unit in unchanged.units() {
        body.piece(Piece::Reuse(unit))?;
    }
    let mut seen = PathSet::default();
    let mut bundle = Bundle::default();
    for Next { found, opened } in Ahead::new(Walk::new(root, exclude)?, |relative| !unchanged.holds(relative)) {
        let (path, relative) = match found {
            Found::File { path, relative } => (path, relative),
            Found::Directory { relative, .. } => {
                seen.add(&relative, DIRECTORY);
                continue;
            }
            Found::Link { relative, .. } => {
                seen.add(&relative, LINK);
                continue;
            }
            Found::Special { path } => {
                problems.add(&path, "it is a socket, pipe or device, which a backup cannot hold");
                continue;
            }
            Found::Unreadable { path, error } => {
                problems.add(&path, format!("it cannot be read: {error}"));
                continue;
            }
        };
        let opened = match refreshed(opened, &path) {
            Ok(Some(opened)) => opened,
            // It became something else, or went away, since it was listed: the next backup sees what it is then.
            Ok(None) => continue,
            Err(e) => {
                problems.add(&path, format!("it cannot be read: {e}"));
                continue;
            }
        };
        let big = match read_small(&path, &relative, opened, bundle.room()) {
            Ok(Small::Big(opened)) => opened,
            Ok(Small::Read(read)) => {
                read.problem.into_iter().for_each(|p| problems.add(&path, p));
                bundle.members.push(read.member);
                bundle.fingerprint += read.fingerprint;
                if bundle.bytes.len() >= UNIT {
                    bundle.send(body)?;
                }
                continue;
            }
            Ok(Small::Gone) => continue,
            Err(e) => {
                problems.add(&path, format!("it cannot be read: {e}"));
                continue;
            }
        };
        let mut emit = |bytes| body.bytes(bytes);
        match read_big(&relative, big, PIECE, &mut emit)? {
            Some(Read { member, fingerprint, problem }) => {
                problem.into_iter().for_each(|p| problems.add(&path, p));
                body.piece(Piece::EndUnit { members: vec![member], fingerprint })?;
            }
            None => problems.add(&path, "its name or time cannot be written down"),
        }
    }
    bundle.send(body)?;
    seen.sort();
    Ok(seen)
}

/// Small files on their way into one unit.
#[derive(Default)]
struct Bundle {
    bytes: Vec<u8>,
    members: Vec<Member>,
    fingerprint: Fingerprint,
}

impl Bundle {
    /// Where the next file goes.
    fn room(&mut self) -> &mut Vec<u8> {
        if self.bytes.is_empty() {
            // At once: growing step by step would leave holes of every size behind.
            self.bytes.reserve_exact(UNIT + UNIT / 2);
        }
        &mut self.bytes
    }

    fn send(&mut self, body: &Body<'_>) -> Result<()> {
        let Self { bytes, members, fingerprint } = std::mem::take(self);
        if members.is_empty() {
            return Ok(());
        }
        body.bytes(bytes)?;
        body.piece(Piece::EndUnit { members, fingerprint })
    }
}

fn read_tree(root: &Path, exclude: &GlobSet, seen: &PathSet, body: &Body<'_>, problems: &mut Problems) -> Result<()> {
    let mut tar = Vec::new();
    let mut fingerprint = Fingerprint::EMPTY;
    for found in Walk::new(root, exclude)? {
        // What came since, perhaps where a file was, is for the next backup: a path must not be two things in one.
        let added = match &found {
            Found::Directory { relative, .. } if !seen.holds(relative, DIRECTORY) => continue,
            Found::Link { relative, .. } if !seen.holds(relative, LINK) => continue,
            Found::Directory { path, relative } => append_directory(&mut tar, path, relative),
            Found::Link { path, relative } => append_link(&mut tar, path, relative),
            // What cannot be read was named with the files.
            Found::File { .. } | Found::Special { .. } | Found::Unreadable { .. } => continue,
        };
        match added {
            Ok(hash) => fingerprint.add_hash(hash),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                let (Found::Directory { path, .. } | Found::Link { path, .. }) = &found else { continue };
                problems.add(path, format!("it cannot be read: {e}"));
            }
        }
        if tar.len() >= TREE_UNIT {
            body.bytes(std::mem::take(&mut tar))?;
            // Directories and links have no list of members.
            let fingerprint = std::mem::take(&mut fingerprint);
            body.piece(Piece::EndUnit { members: Vec::new(), fingerprint })?;
        }
    }
    body.bytes(tar)?;
    body.piece(Piece::EndUnit { members: Vec::new(), fingerprint })
}
