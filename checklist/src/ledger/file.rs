//! The ledger in a file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Entries, Entry, Head, Ledger, Record, broken, line, parse};
use crate::error::{Error, ErrorKind, Result, file};

/// A ledger in a file, and its head in another one beside it, with `.head` at its end. Several processes may write: they wait for
/// one another.
#[derive(Debug, Clone)]
pub struct FileLedger {
    path: PathBuf,
}

impl FileLedger {
    /// That file; it is made with the first entry.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn head_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".head");
        name.into()
    }

    fn head(&self) -> Result<Option<Head>> {
        match std::fs::read(self.head_path()) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Error::new(ErrorKind::Malformed, format!("{}: is no head of a ledger", self.head_path().display()))
                    .with_source(e)
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file(&self.head_path(), "cannot be read", e)),
        }
    }

    /// All entries, checked, and where the last whole line ends.
    fn read(&self, open: &mut File) -> Result<(Entries, u64)> {
        let mut bytes = Vec::new();
        open.read_to_end(&mut bytes).map_err(|e| file(&self.path, "cannot be read", e))?;
        // A line without an end is what a process left that died while it wrote: nobody was told that it is written.
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&bytes[..whole]).map_err(|e| {
            let line = bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() as u64 + 1;
            broken(line, "is not what was written").with_source(e)
        })?;
        let mut entries = Entries::default();
        for (at, text) in text.split_terminator('\n').enumerate() {
            let (entry, hash, json) = parse(text, at as u64 + 1)?;
            let before = entries.head();
            if entry.seq != before.seq + 1 || entry.previous != before.hash {
                return Err(broken(at as u64 + 1, "does not follow the one before it"));
            }
            entries.push(entry, hash, json)?;
        }
        match self.head()? {
            None if entries.all.is_empty() => {}
            None => {
                return Err(broken(entries.head().seq, "has no head beside it: the file that ends in .head is gone"));
            }
            Some(head) if head.seq > entries.head().seq => {
                return Err(broken(head.seq, "is missing: the ledger was cut off"));
            }
            Some(head) if !entries.continues(&head) => {
                return Err(broken(head.seq, "is another one than its head says"));
            }
            Some(_) => {}
        }
        Ok((entries, whole as u64))
    }

    fn add(&self, at: DateTime<Utc>, record: Record) -> Result<Head> {
        let wrong = |e| file(&self.path, "cannot be written", e);
        let mut open = OpenOptions::new().read(true).append(true).create(true).open(&self.path).map_err(wrong)?;
        open.lock().map_err(wrong)?;
        let (mut entries, whole) = self.read(&mut open)?;
        let head = entries.head();
        let entry = Entry { seq: head.seq + 1, at, previous: head.hash, record };
        let line = line(&entry)?;
        let head_is_missing = self.head()?.is_none();
        if head_is_missing {
            // Before the first entry, so that a process that dies between the two leaves a ledger that is whole.
            self.put_head(&Head::default())?;
        }
        // What a dead process left is no entry.
        open.set_len(whole).map_err(wrong)?;
        open.seek(SeekFrom::End(0)).map_err(wrong)?;
        open.write_all(line.as_bytes()).and_then(|()| open.sync_all()).map_err(wrong)?;
        let hash = line.split(' ').next().unwrap_or_default().to_owned();
        entries.all.push((entry, hash));
        let head = entries.head();
        self.put_head(&head)?;
        Ok(head)
    }

    fn put_head(&self, head: &Head) -> Result<()> {
        let path = self.head_path();
        let wrong = |e| file(&path, "cannot be written", e);
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let text = serde_json::to_vec(head).map_err(|e| {
            Error::new(ErrorKind::Malformed, "the head of the ledger cannot be written as JSON").with_source(e)
        })?;
        let mut out = File::create(&new).map_err(wrong)?;
        out.write_all(&text).and_then(|()| out.sync_all()).map_err(wrong)?;
        std::fs::rename(&new, &path).map_err(wrong)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(wrong)
    }
}

#[async_trait]
impl Ledger for FileLedger {
    async fn append(&self, at: DateTime<Utc>, record: Record) -> Result<Head> {
        let this = self.clone();
        blocking(move || this.add(at, record)).await
    }

    async fn entries(&self) -> Result<Entries> {
        let this = self.clone();
        blocking(move || {
            let mut open = match File::open(&this.path) {
                Ok(open) => open,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    return match this.head()? {
                        None => Ok(Entries::default()),
                        Some(head) => Err(broken(head.seq, "is missing: the ledger is gone, its head is not")),
                    };
                }
                Err(e) => return Err(file(&this.path, "cannot be read", e)),
            };
            open.lock_shared().map_err(|e| file(&this.path, "cannot be locked", e))?;
            Ok(this.read(&mut open)?.0)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Storage, "the work on the ledger ended early").with_source(e))?
}
