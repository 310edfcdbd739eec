//! Bringing one store up to date from another: bytes as they are, so the data key is not needed.
//!
//! Objects go first and records after them, oldest first, so that a copy that is broken off anywhere never lists what it
//! cannot restore. What the source itself has lost or damaged is never copied over what is whole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chrono::Utc;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::Keys;
use crate::manifest::Digest;
use crate::progress::{Event, NoProgress, Progress};
use crate::repository::{Lease, LeaseMode, Repository, Store, layout};
use crate::restore::millis;

/// How many objects are copied side by side.
const COPIERS: usize = 4;
/// How many objects are named; beyond that they are counted.
const NAMED: usize = 1000;

/// How to bring a store up to date.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SyncOptions {
    /// Read what is already there as well, and heal what is damaged; on by default. Without, only names and lengths are
    /// compared.
    pub check: bool,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self { check: true, progress: Arc::new(NoProgress) }
    }
}

impl SyncOptions {
    /// The same, reading what is already there or not.
    #[must_use]
    pub fn check(mut self, check: bool) -> Self {
        self.check = check;
        self
    }

    /// The same, watched.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }
}

/// What a sync did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SyncReport {
    /// Objects and records that were copied, healed ones among them.
    pub copied: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Objects that were damaged in the copy and are whole again: the first 1,000.
    pub healed: Vec<String>,
    /// Objects that are damaged in the source, and were not copied.
    pub damaged: Vec<String>,
    /// Records that both have and that are not the same: the stores went different ways.
    pub diverged: Vec<String>,
    /// The record before which it stopped, because of one of these; nothing newer was copied.
    pub stopped_at: Option<u64>,
    /// Records that only the copy has and that were not pruned in the source: it is ahead, at least there.
    pub ahead: u64,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

impl SyncReport {
    /// Whether the copy now has everything that the source has, and nothing contradicts.
    pub fn is_good(&self) -> bool {
        self.damaged.is_empty() && self.diverged.is_empty()
    }
}

/// Brings `to` up to date from `from`, which may be empty or hold the same repository.
///
/// Keys are not needed; without, it cannot tell whether the source itself still has all that its records need. With them the source is checked to be the repository that they pin, and a record that is damaged in the
/// copy is told from one that is in the source. Dropping the future is safe: the next sync goes on.
///
/// # Errors
/// [`ErrorKind::NotFound`] where the source holds no repository, [`ErrorKind::Config`] where the copy holds another one;
/// [`ErrorKind::Locked`] while one of both is pruned. What is damaged is in the report.
pub async fn sync(from: &Store, to: &Store, keys: &Keys, options: SyncOptions) -> Result<SyncReport> {
    let began = Instant::now();
    let configuration = Path::from(layout::CONFIGURATION);
    let Some(ours) = from.read_optional(&configuration).await? else {
        from.list("").next().await.transpose()?;
        return Err(Error::new(ErrorKind::NotFound, format!("there is no repository in {from}"))
            .with_next_step("check the URL"));
    };
    let theirs = to.read_optional(&configuration).await?;
    if theirs.as_ref().is_some_and(|theirs| *theirs != ours) {
        return Err(Error::new(ErrorKind::Config, format!("{to} holds another repository than {from}"))
            .with_next_step("choose an empty folder, bucket or prefix for the copy"));
    }
    let pinned = match Repository::open(from.clone(), keys.clone()).await {
        Ok(repository) => Some(repository),
        // Encrypted, and nobody brought keys: then it is copied unseen.
        Err(e) if e.kind() == ErrorKind::KeyMissing && !keys.is_some() => None,
        Err(e) => return Err(e),
    };
    // Nothing is to be pruned here or there meanwhile.
    let there = lease(to).await?;
    let here = match lease(from).await {
        Ok(lease) => Some(lease),
        // Only to be read: then nobody here can be kept from pruning, and what goes away meanwhile is told as damaged.
        Err(e) if e.kind() == ErrorKind::StoreDenied => None,
        Err(e) => {
            there.release().await;
            return Err(e);
        }
    };
    let copy = Copy { from, to, pinned, lease: &there, options: &options };
    let done = copy.everything(&ours, theirs.is_some()).await;
    there.release().await;
    if let Some(lease) = here {
        lease.release().await;
    }
    let mut report = done?;
    report.milliseconds = millis(began);
    Ok(report)
}

async fn lease(store: &Store) -> Result<Lease> {
    Lease::take(store, &(Arc::new(Utc::now) as _), LeaseMode::Shared, "a sync").await
}

struct Copy<'a> {
    from: &'a Store,
    to: &'a Store,
    /// The source, where there are keys to check it with.
    pinned: Option<Repository>,
    /// On the copy.
    lease: &'a Lease,
    options: &'a SyncOptions,
}

/// What became of one object.
enum Outcome {
    Same,
    Copied { name: String, bytes: u64, healed: bool },
    Damaged(String),
    Diverged(String),
}

impl Copy<'_> {
    async fn everything(&self, configuration: &Bytes, exists: bool) -> Result<SyncReport> {
        let mut report = SyncReport::default();
        for name in [layout::INSTRUCTIONS, layout::CONFIGURATION_SIGNATURE] {
            let path = Path::from(name);
            if let Some(bytes) = self.from.read_optional(&path).await? {
                report.add(self.put_same(&path, bytes).await?);
            }
        }
        // The records before the objects that they need: a backup may end just now.
        let records = self.records(self.from).await?;
        let objects = self.objects(self.from).await?;
        let (their_records, there) = (self.records(self.to).await?, self.objects(self.to).await?);
        let mut have: HashSet<Digest> = objects.keys().copied().collect();
        self.run(
            objects.into_iter().map(|(digest, size)| self.object(digest, there.get(&digest) == Some(&size))),
            &mut report,
        )
        .await?;
        // What is damaged here may be whole there.
        for name in &report.damaged {
            if let layout::Name::Object(digest) = layout::parse(name) {
                have.remove(&digest);
            }
        }
        have.extend(there.keys());
        let removed = match &self.pinned {
            Some(repository) if repository.reads_metadata() => repository.removed().await?,
            _ => HashSet::new(),
        };
        report.ahead = their_records.difference(&records).filter(|n| !removed.contains(n)).count() as u64;
        let mut records: Vec<u64> = records.difference(&removed).copied().collect();
        records.sort_unstable();
        // One after the other, and no further than everything is in order: a copy has no hole, and no two histories.
        let mut seen = HashSet::new();
        for sequence in records {
            self.lease.check()?;
            if let Some(lacks) = self.lacks(sequence, &have, &mut seen).await? {
                report.add(Outcome::Damaged(lacks));
                report.stopped_at = Some(sequence);
                break;
            }
            let outcome = self.record(sequence).await?;
            let stops = matches!(outcome, Outcome::Damaged(_) | Outcome::Diverged(_));
            report.add(outcome);
            if stops {
                report.stopped_at = Some(sequence);
                break;
            }
        }
        if !exists && report.stopped_at != Some(1) {
            // Last: a repository exists when this does.
            report.add(self.put_same(&Path::from(layout::CONFIGURATION), configuration.clone()).await?);
        }
        Ok(report)
    }

    async fn run(
        &self,
        work: impl Iterator<Item = impl Future<Output = Result<Outcome>>>,
        report: &mut SyncReport,
    ) -> Result<()> {
        let mut work = futures::stream::iter(work).buffer_unordered(COPIERS);
        while let Some(outcome) = work.try_next().await? {
            report.add(outcome);
        }
        Ok(())
    }

    async fn objects(&self, store: &Store) -> Result<HashMap<Digest, u64>> {
        let mut objects = HashMap::new();
        let mut names = store.list(layout::OBJECTS);
        while let Some((name, size)) = names.try_next().await? {
            if let layout::Name::Object(digest) = layout::parse(&name) {
                objects.insert(digest, size);
            }
        }
        Ok(objects)
    }

    async fn records(&self, store: &Store) -> Result<HashSet<u64>> {
        let mut records = HashSet::new();
        let mut names = store.list(layout::LOG);
        while let Some((name, _)) = names.try_next().await? {
            if let layout::Name::Record(sequence) = layout::parse(&name) {
                records.insert(sequence);
            }
        }
        Ok(records)
    }

    /// The first object that a record needs and the copy does not have, as far as the keys allow to look.
    async fn lacks(&self, sequence: u64, have: &HashSet<Digest>, seen: &mut HashSet<Digest>) -> Result<Option<String>> {
        let Some(repository) = self.pinned.as_ref().filter(|r| r.reads_metadata()) else { return Ok(None) };
        let Some(manifest) = repository.manifest_at(sequence).await? else { return Ok(None) };
        let mut lacks = None;
        let looked = repository.references(&manifest, seen, |object, _| {
            if lacks.is_none() && !have.contains(&object) {
                lacks = Some(layout::object(&object).to_string());
            }
            Ok(())
        });
        match looked.await {
            // An index that cannot be read: what it names may be missing as well.
            Err(e) if e.kind() == ErrorKind::Damaged => {
                Ok(lacks.or_else(|| Some(format!("{}: {e}", layout::record(sequence)))))
            }
            Err(e) => Err(e),
            Ok(()) => Ok(lacks),
        }
    }

    async fn object(&self, digest: Digest, is_there: bool) -> Result<Outcome> {
        let path = layout::object(&digest);
        let is_whole = |bytes: &Bytes| Digest::sha256(bytes) == digest;
        if is_there {
            if !self.options.check {
                return Ok(Outcome::Same);
            }
            let found = self.to.read_optional(&path).await?;
            if found.as_ref().is_some_and(is_whole) {
                return Ok(Outcome::Same);
            }
        }
        let Some(bytes) = self.from.read_optional(&path).await?.filter(is_whole) else {
            return Ok(Outcome::Damaged(path.to_string()));
        };
        let healed = self.write(&path, &bytes).await?;
        self.options.progress.on(Event::Moved { plain: bytes.len() as u64, stored: bytes.len() as u64 });
        Ok(Outcome::Copied { name: path.to_string(), bytes: bytes.len() as u64, healed })
    }

    /// Whether something else had to be overwritten.
    async fn write(&self, path: &Path, bytes: &Bytes) -> Result<bool> {
        if self.to.create(path, bytes.clone()).await? {
            return Ok(false);
        }
        self.to.overwrite(path, bytes.clone()).await?;
        Ok(true)
    }

    async fn record(&self, sequence: u64) -> Result<Outcome> {
        let path = layout::record(sequence);
        let Some(ours) = self.from.read_optional(&path).await? else {
            return Ok(Outcome::Damaged(path.to_string()));
        };
        let is_good = |bytes: &Bytes| self.pinned.as_ref().map(|r| r.vouches_for(bytes, sequence));
        if is_good(&ours) == Some(false) {
            return Ok(Outcome::Damaged(path.to_string()));
        }
        match self.to.read_optional(&path).await? {
            Some(theirs) if theirs == ours => Ok(Outcome::Same),
            Some(theirs) if is_good(&theirs) == Some(false) => {
                self.to.overwrite(&path, ours.clone()).await?;
                Ok(Outcome::Copied { name: path.to_string(), bytes: ours.len() as u64, healed: true })
            }
            Some(_) => Ok(Outcome::Diverged(path.to_string())),
            None => self.put_same(&path, ours).await,
        }
    }

    async fn put_same(&self, path: &Path, bytes: Bytes) -> Result<Outcome> {
        let length = bytes.len() as u64;
        if self.to.read_optional(path).await?.as_ref() == Some(&bytes) {
            return Ok(Outcome::Same);
        }
        Ok(match self.to.create(path, bytes).await? {
            true => Outcome::Copied { name: path.to_string(), bytes: length, healed: false },
            false => Outcome::Diverged(path.to_string()),
        })
    }
}

impl SyncReport {
    fn add(&mut self, outcome: Outcome) {
        let name = |names: &mut Vec<String>, name| {
            if names.len() < NAMED {
                names.push(name);
            }
        };
        match outcome {
            Outcome::Same => {}
            Outcome::Copied { name: path, bytes, healed } => {
                self.copied += 1;
                self.bytes += bytes;
                if healed {
                    name(&mut self.healed, path);
                }
            }
            Outcome::Damaged(path) => name(&mut self.damaged, path),
            Outcome::Diverged(path) => name(&mut self.diverged, path),
        }
    }
}
