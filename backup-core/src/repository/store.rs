//! An object store with the few verbs that a repository uses, and errors that a shop owner can act on.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::pace::Pace;
use crate::error::{Error, ErrorKind, Result};

/// Where a repository lives: a folder, a bucket, or any other [`ObjectStore`].
///
/// ```
/// # fn main() -> backup_core::Result<()> {
/// let store = backup_core::Store::from_url("memory:")?;
/// assert_eq!(store.to_string(), "memory:");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    location: String,
    /// The folder, where it is one: for the leftovers that a killed write leaves outside the store's own list.
    folder: Option<PathBuf>,
    /// Whether a request has failed for good: then another store is asked first.
    failed: Arc<AtomicBool>,
    pace: Option<Arc<Pace>>,
}

impl Store {
    /// Any object store; `location` is what messages call it and must hold no secret.
    pub fn new(inner: Arc<dyn ObjectStore>, location: impl Into<String>) -> Self {
        Self { inner, location: location.into(), folder: None, failed: Arc::default(), pace: None }
    }

    /// A folder, made if it is not there; every write is synced to disk before it counts.
    pub fn folder(path: impl AsRef<FilePath>) -> Result<Self> {
        let path = path.as_ref();
        let location = format!("file://{}", path.display());
        std::fs::create_dir_all(path).map_err(|e| io_error(&location, "cannot be made", e))?;
        let path = path.canonicalize().map_err(|e| io_error(&location, "cannot be found", e))?;
        let inner = LocalFileSystem::new_with_prefix(&path)
            .map_err(|e| store_error(&location, "cannot be opened", e))?
            .with_fsync(true);
        Ok(Self {
            inner: Arc::new(inner),
            location: format!("file://{}", path.display()),
            folder: Some(path),
            failed: Arc::default(),
            pace: None,
        })
    }

    /// The store that a URL names: `file:///PATH`, `memory:`, and with the features `s3`, `gcs` and `azure` also
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` and `az://CONTAINER/PREFIX`, whose endpoint and credentials come from the
    /// usual `AWS_…`, `GOOGLE_…` and `AZURE_…` variables.
    ///
    /// A folder has to exist; [`folder`](Store::folder) makes one. Each `memory:` is a new one.
    pub fn from_url(url: &str) -> Result<Self> {
        if url == "memory:" {
            return Ok(Self::new(Arc::new(object_store::memory::InMemory::new()), "memory:"));
        }
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(Error::new(ErrorKind::Config, format!("store {url}: the path is not absolute"))
                    .with_next_step("write it as file:///path/to/folder"));
            }
            if !FilePath::new(path).is_dir() {
                return Err(Error::new(ErrorKind::StoreMissing, format!("store {url}: no such folder"))
                    .with_next_step("check the path and that the disk is mounted; `backup init` makes a new one"));
            }
            return Self::folder(path);
        }
        if let Some(bucket) = super::bucket::from_url(url) {
            return bucket;
        }
        let scheme = url.split(':').next().unwrap_or(url);
        Err(Error::new(ErrorKind::Config, format!("store {scheme}:…: this kind of store is not known")).with_next_step(
            "a store is file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or memory:",
        ))
    }

    /// The same with a limit on bandwidth, in bytes a second: what is read and what is written count together.
    #[must_use]
    pub fn with_bandwidth(mut self, per_second: u64) -> Self {
        self.pace = Some(Arc::new(Pace::new(per_second)));
        self
    }

    async fn pass(&self, bytes: &Bytes) {
        if let Some(pace) = &self.pace {
            pace.pass(bytes.len() as u64).await;
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn note_failure(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Writes an object that must not exist yet. `false` if another one has the name. An answer that got lost is
    /// settled by reading back: what is there and equal counts as written.
    pub(crate) async fn create(&self, path: &Path, bytes: Bytes) -> Result<bool> {
        self.pass(&bytes).await;
        let mut unsure = false;
        for attempt in 0..ATTEMPTS {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.inner.put_opts(path, PutPayload::from_bytes(bytes.clone()), options).await {
                Ok(_) => return Ok(true),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    return Ok(self.read(path).await? == bytes);
                }
                Err(e) => {
                    let error = store_error(&self.location, &format!("cannot write {path}"), e);
                    // A neighbour that sweeps torn writes may have taken our staged bytes away: once is no proof.
                    let swept = error.kind() == ErrorKind::StoreMissing && attempt == 0;
                    if !(error.is_retryable() || swept) || attempt + 1 == ATTEMPTS {
                        // The last answer may have been lost after the write: settle it before giving up.
                        let settled = unsure && matches!(self.read(path).await, Ok(found) if found == bytes);
                        return if settled { Ok(true) } else { Err(error) };
                    }
                    unsure = true;
                    pause(attempt).await;
                }
            }
        }
        Err(Error::new(ErrorKind::StoreUnavailable, format!("store {}: cannot write {path}", self.location)))
    }

    /// Writes an object over one that is damaged. Only for bytes that were checked.
    pub(crate) async fn overwrite(&self, path: &Path, bytes: Bytes) -> Result<()> {
        self.pass(&bytes).await;
        let mut attempt = 0;
        loop {
            match self.inner.put(path, PutPayload::from_bytes(bytes.clone())).await {
                Ok(_) => return Ok(()),
                Err(e) => self.again(&mut attempt, &format!("cannot write {path}"), e).await?,
            }
        }
    }

    /// Reads a whole object; its absence is [`ErrorKind::Damaged`], since only what should be there is asked for.
    pub(crate) async fn read(&self, path: &Path) -> Result<Bytes> {
        self.read_optional(path).await?.ok_or_else(|| {
            Error::new(ErrorKind::Damaged, format!("{path} is missing from the store {}", self.location))
                .with_next_step("run `backup verify` for the whole extent; restore from another snapshot or store")
        })
    }

    /// Reads a whole object if it is there.
    pub(crate) async fn read_optional(&self, path: &Path) -> Result<Option<Bytes>> {
        let mut attempt = 0;
        loop {
            let answer = match self.inner.get(path).await {
                Ok(found) => {
                    let size = found.meta.size;
                    found.bytes().await.and_then(|bytes| whole(bytes, size))
                }
                Err(e) => Err(e),
            };
            match answer {
                Ok(bytes) => {
                    self.pass(&bytes).await;
                    return Ok(Some(bytes));
                }
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(e) => self.again(&mut attempt, &format!("cannot read {path}"), e).await?,
            }
        }
    }

    /// Every object below `prefix` (all of them for ""), in no particular order: path and length in bytes.
    pub(crate) fn list(&self, prefix: &str) -> BoxStream<'_, Result<(String, u64)>> {
        let prefix = (!prefix.is_empty()).then(|| Path::from(prefix));
        self.inner
            .list(prefix.as_ref())
            .map_ok(|ObjectMeta { location, size, .. }| (location.to_string(), size))
            .map_err(move |e| store_error(&self.location, "cannot be listed", e))
            .boxed()
    }

    /// The same with when each was last written, as the store says.
    pub(crate) fn list_dated(&self, prefix: &str) -> BoxStream<'_, Result<(String, u64, DateTime<Utc>)>> {
        let prefix = Path::from(prefix);
        self.inner
            .list(Some(&prefix))
            .map_ok(|ObjectMeta { location, size, last_modified, .. }| (location.to_string(), size, last_modified))
            .map_err(move |e| store_error(&self.location, "cannot be listed", e))
            .boxed()
    }

    /// Removes data: for a prune alone. What is not there is removed.
    pub(crate) async fn remove(&self, path: &Path) -> Result<()> {
        let mut attempt = 0;
        loop {
            match self.inner.delete(path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => return Ok(()),
                Err(e) => self.again(&mut attempt, &format!("cannot remove {path}"), e).await?,
            }
        }
    }

    /// Waits before a request is sent again; the error where that is of no use.
    async fn again(&self, attempt: &mut u32, what: &str, e: object_store::Error) -> Result<()> {
        let error = store_error(&self.location, what, e);
        *attempt += 1;
        if !error.is_retryable() || *attempt == ATTEMPTS {
            return Err(error);
        }
        pause(*attempt).await;
        Ok(())
    }

    /// Removes an object of ours that is no data: a lease.
    pub(crate) async fn remove_lock(&self, path: &Path) -> Result<()> {
        debug_assert!(path.as_ref().starts_with(super::layout::LOCKS));
        match self.inner.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(store_error(&self.location, &format!("cannot remove {path}"), e)),
        }
    }

    /// Removes what killed writes left in a folder under names that the store's own list hides (`NAME#1`), if it was
    /// last touched before `since`. To be called only while nobody who began before that writes. Returns how many
    /// there were.
    pub(crate) fn sweep_torn_writes(&self, since: SystemTime) -> Result<u64> {
        let Some(folder) = &self.folder else { return Ok(0) };
        let mut swept = 0;
        let mut folders = vec![folder.clone()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).map_err(|e| io_error(&self.location, "cannot be listed", e))?;
            for entry in entries {
                let entry = entry.map_err(|e| io_error(&self.location, "cannot be listed", e))?;
                let kind = entry.file_type().map_err(|e| io_error(&self.location, "cannot be listed", e))?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if is_torn_write(&entry.file_name().to_string_lossy()) {
                    match entry.metadata().and_then(|m| m.modified()) {
                        Ok(touched) if touched < since => {}
                        // Too young, or gone since it was listed.
                        _ => continue,
                    }
                    std::fs::remove_file(entry.path())
                        .map_err(|e| io_error(&self.location, "a torn write cannot be removed", e))?;
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.location)
    }
}

/// How often one request is sent before its error is final.
const ATTEMPTS: u32 = 4;

/// A body that ended too early is asked for again; it says nothing about the object.
fn whole(bytes: Bytes, size: u64) -> object_store::Result<Bytes> {
    if bytes.len() as u64 == size {
        return Ok(bytes);
    }
    let why = format!("the answer ended after {} of {size} bytes", bytes.len());
    Err(object_store::Error::Generic { store: "store", source: why.into() })
}

async fn pause(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(100 << attempt.min(6))).await;
}

/// `NAME#1`: where a local put is staged before it gets its name.
fn is_torn_write(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn io_error(location: &str, what: &str, error: std::io::Error) -> Error {
    let kind = io_kind(&error).unwrap_or(ErrorKind::StoreUnavailable);
    Error::new(kind, format!("store {location} {what}: {error}")).with_source(error)
}

fn io_kind(error: &std::io::Error) -> Option<ErrorKind> {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Some(ErrorKind::StoreFull),
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Some(ErrorKind::StoreDenied),
        std::io::ErrorKind::NotFound => Some(ErrorKind::StoreMissing),
        _ => None,
    }
}

fn store_error(location: &str, what: &str, error: object_store::Error) -> Error {
    let (kind, next) = classify(&error);
    // The store's own text may hold a URL, but never the credentials: they travel in headers.
    let error = Error::new(kind, format!("store {location}: {what}: {}", first_line(&error))).with_source(error);
    match next {
        Some(next) => error.with_next_step(next),
        None => error,
    }
}

fn classify(error: &object_store::Error) -> (ErrorKind, Option<&'static str>) {
    use object_store::Error as E;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(kind) = e.downcast_ref::<std::io::Error>().and_then(io_kind) {
            return (kind, advice(kind));
        }
        cause = e.source();
    }
    let kind = match error {
        e if e.to_string().contains("NoSuchBucket") => ErrorKind::StoreMissing,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::StoreDenied,
        E::NotFound { .. } => ErrorKind::StoreMissing,
        E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::InvalidPath { .. }
        | E::UnknownConfigurationKey { .. } => ErrorKind::Config,
        _ => ErrorKind::StoreUnavailable,
    };
    (kind, advice(kind))
}

fn advice(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::StoreFull => Some("make room or name another store; nothing was committed"),
        ErrorKind::StoreDenied => Some("check the credentials, and that they may put, get and list"),
        ErrorKind::StoreMissing => Some("check the name; make the bucket or folder first"),
        ErrorKind::StoreUnavailable => {
            Some("check the network and the store, then run it again; nothing was committed")
        }
        _ => None,
    }
}

fn first_line(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find('\n') {
        text.truncate(end);
    }
    if text.len() > 400 {
        let mut end = 400;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn create_is_exclusive_and_settles_what_is_equal() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::folder(dir.path()).unwrap();
        let path = Path::from("log/0000000001");
        assert!(store.create(&path, Bytes::from_static(b"mine")).await.unwrap());
        assert!(store.create(&path, Bytes::from_static(b"mine")).await.unwrap());
        assert!(!store.create(&path, Bytes::from_static(b"yours")).await.unwrap());
        assert_eq!(store.read(&path).await.unwrap(), "mine");
        assert_eq!(store.read(&Path::from("log/2")).await.unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn a_store_that_is_not_there_is_named() {
        let e = Store::from_url("file:///no/such/folder").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::StoreMissing);
        assert!(e.to_string().contains("/no/such/folder"));
        assert_eq!(
            Store::from_url("ftp://user:secret@x").unwrap_err().to_string(),
            "store ftp:…: this kind of store is not known"
        );
    }

    #[test]
    fn torn_writes_are_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::folder(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("objects/ab")).unwrap();
        for name in ["objects/ab/abcd", "objects/ab/abcd#1", "repository.json#12", "objects/ab/#", "x#1a"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(store.sweep_torn_writes(SystemTime::now() + Duration::from_secs(1)).unwrap(), 2);
        assert!(dir.path().join("objects/ab/abcd").exists() && dir.path().join("x#1a").exists());
    }
}
