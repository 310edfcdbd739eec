//! Into a directory.
//!
//! Everything is unpacked into a folder inside the target and moved into place when it is complete: a restore that fails
//! leaves what was there before.
//!
//! Whoever may write to the target while root restores into it can put a link in the way. Restore as the user who owns
//! the directory, or into one that only root can write to.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use tar::EntryType;
use tokio::sync::mpsc;

use super::{Filling, Intake, Only, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, EntryRecord, Manifest, Unit};
use crate::pipeline::{Task, blocking};
use crate::source::Source;
use crate::source::files::{FilesSource, KIND, REPLACED, STAGING, header_mtime};

/// After so many bytes the disk is asked for what it has not written yet: it works while more is decrypted, and little
/// is to be waited for in the end.
const FLUSHED_AT_ONCE: usize = 64 << 20;

/// A directory, existing or not.
#[derive(Debug, Clone)]
pub struct FilesTarget {
    root: PathBuf,
    /// Whether there was no such directory when somebody asked.
    was_missing: Arc<AtomicBool>,
}

impl FilesTarget {
    /// The directory at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), was_missing: Arc::default() }
    }
}

#[async_trait]
impl Target for FilesTarget {
    fn location(&self) -> String {
        format!("dir:{}", self.root.display())
    }

    async fn open(&self, manifest: &Manifest, filling: &Filling) -> Result<Box<dyn Intake>> {
        if manifest.source.kind != KIND {
            return Err(Error::new(
                ErrorKind::Config,
                format!("a snapshot of {} cannot be restored to {}", manifest.source.kind, self.location()),
            )
            .with_next_step("name a target of the snapshot's own kind"));
        }
        let root = self.root.clone();
        let replace = filling.clean || filling.only.is_some();
        let made_root = !root.exists();
        let staging = blocking(move || {
            fs::create_dir_all(&root).map_err(|e| failed(&root, "cannot be made", e))?;
            let staging = root.join(STAGING);
            // What a killed restore left: its own half-made files go, what it had moved away comes back.
            remove_tree(&staging)?;
            put_back(&root)?;
            if !replace && let Some(name) = names(&root)?.first() {
                return Err(Error::new(
                    ErrorKind::TargetNotEmpty,
                    format!("{} is not empty: it holds {}", root.display(), Path::new(name).display()),
                )
                .with_next_step("restore to an empty directory, or say --clean to replace what is there"));
            }
            fs::create_dir(&staging).map_err(|e| failed(&staging, "cannot be made", e))?;
            // Nobody else looks into it before every file has its own mode.
            fs::set_permissions(&staging, fs::Permissions::from_mode(0o700))
                .map_err(|e| failed(&staging, "cannot be made private", e))?;
            Ok(staging)
        })
        .await?;
        Ok(Box::new(FilesIntake {
            root: self.root.clone(),
            staged: Arc::new(Staged {
                made_root: Mutex::new(made_root.then(|| self.root.clone())),
                staging,
                late: Mutex::default(),
            }),
            clean: filling.clean,
            only: filling.only.clone(),
        }))
    }

    fn read_back(&self) -> Option<Box<dyn Source>> {
        Some(Box::new(FilesSource::new(&self.root)))
    }

    async fn is_vacant(&self) -> Result<bool> {
        let (root, was_missing) = (self.root.clone(), Arc::clone(&self.was_missing));
        blocking(move || {
            was_missing.store(!root.exists(), Ordering::Relaxed);
            Ok(!root.exists() || names(&root)?.is_empty())
        })
        .await
    }

    async fn remove(&self) -> Result<()> {
        let (root, was_missing) = (self.root.clone(), self.was_missing.load(Ordering::Relaxed));
        blocking(move || {
            if was_missing {
                return remove_tree(&root);
            }
            for name in names(&root)? {
                remove_tree(&root.join(name))?;
            }
            Ok(())
        })
        .await
    }
}

struct FilesIntake {
    root: PathBuf,
    staged: Arc<Staged>,
    clean: bool,
    only: Option<Only>,
}

/// The folder that is being filled; removed with all it holds unless it was emptied into its place before.
struct Staged {
    staging: PathBuf,
    /// The target, where the restore made it.
    made_root: Mutex<Option<PathBuf>>,
    late: Mutex<Late>,
}

/// What can be set only after everything is in place.
#[derive(Default)]
struct Late {
    directories: Vec<(PathBuf, Facts)>,
    links: Vec<(PathBuf, PathBuf, Facts)>,
    foreign_owners: u64,
}

#[derive(Debug, Clone, Copy)]
struct Facts {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(e) = remove_tree(&self.staging) {
            tracing::warn!(error = %e, "an incomplete restore could not be removed");
        }
        if let Some(root) = lock(&self.made_root).take() {
            // Only if it is empty: then this restore made it and left nothing in it.
            let _ = fs::remove_dir(root);
        }
    }
}

#[async_trait]
impl Intake for FilesIntake {
    fn wants(&self, entry: &EntryRecord) -> bool {
        matches!(entry.kind, EntryKind::Files | EntryKind::Tree)
    }

    fn wants_unit(&self, unit: &Unit) -> bool {
        let Some(only) = &self.only else { return true };
        // A path that cannot be read is fetched, so that its error shows.
        unit.members.iter().any(|m| m.path.to_bytes().map_or(true, |p| only.matches(Path::new(OsStr::from_bytes(&p)))))
    }

    async fn take(&self, entry: &EntryRecord, mut body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let (send, receive) = mpsc::channel::<Bytes>(1);
        let (staged, only, kind) = (Arc::clone(&self.staged), self.only.clone(), entry.kind);
        let unpack =
            blocking(move || unpack(ChannelReader { receive, open: Bytes::new() }, &staged, only.as_ref(), kind));
        let staging = &self.staged.staging;
        let feed = async move {
            let (mut unflushed, mut flushing) = (0, None::<Task<()>>);
            while let Some(bytes) = body.next().await {
                let bytes = bytes?;
                unflushed += bytes.len();
                // If nobody listens the unpacking failed, and says why itself.
                if send.send(bytes).await.is_err() {
                    break;
                }
                if unflushed >= FLUSHED_AT_ONCE && flushing.as_ref().is_none_or(Task::is_finished) {
                    if let Some(flushed) = flushing.take() {
                        flushed.join().await?;
                    }
                    let staging = staging.clone();
                    (unflushed, flushing) = (0, Some(Task::spawn(blocking(move || sync(&staging)))));
                }
            }
            Ok::<_, Error>(flushing)
        };
        let (fed, unpacked) = futures::join!(feed, unpack);
        // A failed feed looks like a short archive to the unpacking, and a disk that is full like one that cannot be synced:
        // what went wrong first is told.
        let flushing = fed?;
        unpacked?;
        match flushing {
            Some(flushed) => flushed.join().await,
            None => Ok(()),
        }
    }

    async fn finish(self: Box<Self>) -> Result<Vec<String>> {
        blocking(move || {
            let Self { root, staged, clean, only } = *self;
            let late = std::mem::take(&mut *lock(&staged.late));
            let notes = finish(&root, &staged.staging, clean, only.as_ref(), late)?;
            *lock(&staged.made_root) = None;
            Ok(notes)
        })
        .await
    }
}

fn finish(root: &Path, staging: &Path, clean: bool, only: Option<&Only>, late: Late) -> Result<Vec<String>> {
    for (relative, target, facts) in &late.links {
        let path = staging.join(relative);
        std::os::unix::fs::symlink(target, &path).map_err(|e| failed(&path, "cannot be made", e))?;
        set_link(&path, facts).map_err(|e| failed(&path, "cannot be given its time", e))?;
    }
    if only.is_some() {
        check_each(staging, root, Path::new(""), clean)?;
        move_each(staging, root, Path::new(""))?;
    } else {
        move_all(staging, root)?;
    }
    fs::remove_dir(staging).map_err(|e| failed(staging, "cannot be removed", e))?;
    // The deepest first, since every change inside moves a directory's time.
    for (relative, facts) in late.directories.iter().rev() {
        let path = root.join(relative);
        set_directory(&path, facts).map_err(|e| failed(&path, "cannot be given its mode and time", e))?;
    }
    sync(root)?;
    let mut notes = Vec::new();
    if late.foreign_owners > 0 {
        notes.push(format!(
            "{} files and directories belonged to other users; they now belong to the user who restored them (only root can keep owners)",
            late.foreign_owners
        ));
    }
    Ok(notes)
}

/// Waits until everything on the disk of `folder` is durable.
fn sync(folder: &Path) -> Result<()> {
    let directory = File::open(folder).map_err(|e| failed(folder, "cannot be opened", e))?;
    rustix::fs::syncfs(&directory).map_err(|e| failed(folder, "cannot be synced to disk", e.into()))
}

/// Swaps the content of `root` for that of `staging`; on any error everything is back where it was.
fn move_all(staging: &Path, root: &Path) -> Result<()> {
    let replaced = root.join(REPLACED);
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    let swap = |moved: &mut Vec<(PathBuf, PathBuf)>| -> Result<()> {
        let old: Vec<_> = names(root)?.into_iter().filter(|n| n != STAGING && n != REPLACED).collect();
        if !old.is_empty() {
            fs::create_dir(&replaced).map_err(|e| failed(&replaced, "cannot be made", e))?;
        }
        let out = old.iter().map(|name| (root.join(name), replaced.join(name)));
        let new = names(staging)?;
        let into = new.iter().map(|name| (staging.join(name), root.join(name)));
        for (from, to) in out.chain(into) {
            rename(&from, &to)?;
            moved.push((from, to));
        }
        Ok(())
    };
    if let Err(e) = swap(&mut moved) {
        for (from, to) in moved.iter().rev() {
            // If this fails too, the files stay in the folder that the next restore puts back.
            if let Err(e) = rename(to, from) {
                tracing::error!(error = %e, "what was moved away could not be put back");
            }
        }
        put_back(root)?;
        return Err(e);
    }
    remove_tree(&replaced)
}

/// Moves what an interrupted swap had taken out of `root` back to its place.
fn put_back(root: &Path) -> Result<()> {
    let replaced = root.join(REPLACED);
    if replaced.symlink_metadata().is_err() {
        return Ok(());
    }
    for name in names(&replaced)? {
        let place = root.join(&name);
        if place.symlink_metadata().is_ok() {
            return Err(Error::new(
                ErrorKind::TargetNotEmpty,
                format!(
                    "{} holds what an interrupted restore took out of its place, and {} is there as well",
                    replaced.display(),
                    place.display()
                ),
            )
            .with_next_step("look at both, and move away the one you do not want"));
        }
        rename(&replaced.join(&name), &place)?;
    }
    fs::remove_dir(&replaced).map_err(|e| failed(&replaced, "cannot be removed", e))
}

/// Whether every single file can be moved into a tree that stays: before the first one is.
fn check_each(staging: &Path, root: &Path, relative: &Path, clean: bool) -> Result<()> {
    for name in names(&staging.join(relative))? {
        let relative = relative.join(&name);
        let (from, to) = (staging.join(&relative), root.join(&relative));
        let is_directory = from.symlink_metadata().is_ok_and(|m| m.is_dir());
        let refused = match to.symlink_metadata() {
            Err(_) => None,
            Ok(there) if is_directory && there.is_dir() => {
                check_each(staging, root, &relative, clean)?;
                None
            }
            Ok(there) if is_directory || there.is_dir() => Some("is there and is something else"),
            Ok(_) if clean => None,
            Ok(_) => Some("is already there"),
        };
        if let Some(why) = refused {
            return Err(Error::new(ErrorKind::TargetNotEmpty, format!("{} {why}", to.display()))
                .with_next_step("restore elsewhere, move it away, or say --clean to replace files"));
        }
    }
    Ok(())
}

/// Moves single files into a tree that stays.
fn move_each(staging: &Path, root: &Path, relative: &Path) -> Result<()> {
    for name in names(&staging.join(relative))? {
        let relative = relative.join(&name);
        let (from, to) = (staging.join(&relative), root.join(&relative));
        let both = from.symlink_metadata().is_ok_and(|m| m.is_dir()) && to.symlink_metadata().is_ok();
        if both {
            move_each(staging, root, &relative)?;
            fs::remove_dir(&from).map_err(|e| failed(&from, "cannot be removed", e))?;
        } else {
            rename(&from, &to)?;
        }
    }
    Ok(())
}

fn unpack(reader: ChannelReader, staged: &Staged, only: Option<&Only>, kind: EntryKind) -> Result<()> {
    let damaged = |e: io::Error| {
        Error::new(ErrorKind::Damaged, format!("the snapshot's files cannot be unpacked: {e}")).with_source(e)
    };
    let staging = &staged.staging;
    let is_root = rustix::process::geteuid().is_root();
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let relative = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        check_inside(&relative)?;
        let header = entry.header();
        let number = |n: io::Result<u64>| n.and_then(|n| u32::try_from(n).map_err(io::Error::other));
        let facts = Facts {
            mode: header.mode().map_err(damaged)?,
            uid: number(header.uid()).map_err(damaged)?,
            gid: number(header.gid()).map_err(damaged)?,
            mtime: header_mtime(&mut entry).map_err(damaged)?,
        };
        let kind_here = entry.header().entry_type();
        if kind == EntryKind::Tree && !only.is_none_or(|only| only.matches(&relative)) {
            continue;
        }
        let mut late = lock(&staged.late);
        if !is_root && facts.uid != rustix::process::geteuid().as_raw() {
            late.foreign_owners += 1;
        }
        match (kind, kind_here) {
            (EntryKind::Files, EntryType::Regular) => {
                drop(late);
                if only.is_none_or(|only| only.matches(&relative)) {
                    let path = staging.join(&relative);
                    write_file(&path, &mut entry, facts, is_root).map_err(|e| failed(&path, "cannot be written", e))?;
                }
            }
            (EntryKind::Tree, EntryType::Directory) => {
                let path = staging.join(&relative);
                fs::create_dir_all(&path).map_err(|e| failed(&path, "cannot be made", e))?;
                late.directories.push((relative, facts));
            }
            (EntryKind::Tree, EntryType::Symlink) => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| damaged(io::Error::other("a link has no target")))?;
                let target = PathBuf::from(OsStr::from_bytes(&target));
                if let Some(parent) = staging.join(&relative).parent() {
                    fs::create_dir_all(parent).map_err(|e| failed(parent, "cannot be made", e))?;
                }
                late.links.push((relative, target, facts));
            }
            (_, other) => {
                return Err(damaged(io::Error::other(format!("a member of type {other:?} has no place here"))));
            }
        }
    }
    Ok(())
}

fn write_file(path: &Path, content: &mut impl Read, facts: Facts, is_root: bool) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    io::copy(content, &mut file)?;
    if is_root {
        std::os::unix::fs::fchown(&file, Some(facts.uid), Some(facts.gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(facts.mode))?;
    file.set_times(FileTimes::new().set_modified(system_time(facts.mtime)?))
}

fn set_directory(path: &Path, facts: &Facts) -> io::Result<()> {
    // Through the directory itself, not through a link that took its place.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::DIRECTORY;
    let directory = fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(&directory, Some(facts.uid), Some(facts.gid))?;
    }
    // The time first: without rights to the directory it could not be set any more.
    set_time(path, facts.mtime)?;
    directory.set_permissions(fs::Permissions::from_mode(facts.mode))
}

fn set_link(path: &Path, facts: &Facts) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(facts.uid), Some(facts.gid))?;
    }
    set_time(path, facts.mtime)
}

fn set_time(path: &Path, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn system_time((seconds, nanoseconds): (i64, u32)) -> io::Result<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    };
    base.and_then(|t| t.checked_add(Duration::from_nanos(nanoseconds.into())))
        .ok_or_else(|| io::Error::other("a file's time is out of range"))
}

/// A path that leads out of the target never came from a source of ours.
fn check_inside(relative: &Path) -> Result<()> {
    let inside = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    let ours = relative.components().next().is_some_and(|c| c.as_os_str() == STAGING || c.as_os_str() == REPLACED);
    if inside && !ours && !relative.as_os_str().is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Damaged,
        format!("the snapshot names a file outside of its root: {}", relative.display()),
    ))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The names in a directory, in order.
fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| failed(folder, "cannot be listed", e))? {
        names.push(entry.map_err(|e| failed(folder, "cannot be listed", e))?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| failed(to, "cannot be put in place", e))
}

fn remove_tree(path: &Path) -> Result<()> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(path, "cannot be removed", e)),
    };
    let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            let owner = metadata.uid();
            Err(failed(path, &format!("(owner {owner}) cannot be removed"), e))
        }
        _ => Ok(()),
    }
}

fn failed(path: &Path, what: &str, e: io::Error) -> Error {
    Error::new(ErrorKind::Target, format!("{} {what}: {e}", path.display()))
        .with_next_step("check the disk and the rights; what was there before is still there")
        .with_source(e)
}

/// Chunks from the asynchronous side, as a reader for the synchronous one.
struct ChannelReader {
    receive: mpsc::Receiver<Bytes>,
    open: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.open.is_empty() {
            match self.receive.blocking_recv() {
                Some(bytes) => self.open = bytes,
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.open.len());
        self.open.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}
