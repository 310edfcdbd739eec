//! Bringing one store up to date from another: bytes as they are, so the data key is not needed.
//!
//! Objects go first and records after them, oldest first, so that a copy that is broken off anywhere never lists what it
//! cannot restore. Everything is named by its SHA-256, so that damage shows without keys; what the source itself has lost or
//! damaged is never copied over what is whole. Stores that went on without knowing of one another are brought together by
//! copying both ways: records are only ever added.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chrono::Utc;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::Keys;
use crate::manifest::{Digest, RecordName};
use crate::progress::{Event, NoProgress, Progress};
use crate::repository::trust::trust_names;
use crate::repository::{Lease, LeaseMode, Repository, Store, layout, names_in};
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
    /// Parts of the configuration that both have and that are not the same: one was changed.
    pub diverged: Vec<String>,
    /// The record before which it stopped, because something that it needs is damaged; nothing newer was copied.
    pub stopped_at: Option<RecordName>,
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
/// Keys are not needed; without, it cannot tell whether the source itself still has all that its records need. With them
/// the source is checked to be the repository that they pin, and a configuration that was changed in the copy is written
/// anew. Dropping the future is safe: the next sync goes on.
///
/// # Errors
/// [`ErrorKind::NotFound`] where the source holds no repository, [`ErrorKind::Config`] where the copy holds another one;
/// [`ErrorKind::Locked`] while one of both is pruned. What is damaged is in the report.
pub async fn sync(from: &Store, to: &Store, keys: &Keys, options: SyncOptions) -> Result<SyncReport> {
    let began = Instant::now();
    let pinned = match Repository::open(from.clone(), keys.clone()).await {
        Ok(repository) => Some(repository),
        // Encrypted, and nobody brought keys: then it is copied unseen.
        Err(e) if e.kind() == ErrorKind::KeyMissing && !keys.is_some() => None,
        Err(e) => return Err(e),
    };
    let configuration = from.read(&Path::from(layout::CONFIGURATION)).await?;
    let theirs = to.read_optional(&Path::from(layout::CONFIGURATION)).await?;
    if let Some(theirs) = theirs.as_ref().filter(|theirs| **theirs != configuration) {
        let id = |json: &[u8]| serde_json::from_slice::<Identified>(json).ok().map(|c| c.id);
        let is_damaged = id(theirs).is_none_or(|theirs| Some(theirs) == id(&configuration));
        if !is_damaged {
            return Err(Error::new(ErrorKind::Config, format!("{to} holds another repository than {from}"))
                .with_next_step("choose an empty folder, bucket or prefix for the copy"));
        }
        if pinned.is_none() || !keys.is_some() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{} in {to} is not the one in {from}: one of them was changed", layout::CONFIGURATION),
            )
            .with_next_step("run it with --keys: then it is known which of them is right"));
        }
    }
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
    let (bad, heals) = (HashSet::new(), keys.is_some());
    let copy = Copy { from, to, pinned: pinned.as_ref(), heals, lease: &there, bad: &bad, options: &options };
    let done = copy.everything().await;
    there.release().await;
    if let Some(lease) = here {
        lease.release().await;
    }
    let mut report = done?;
    report.milliseconds = millis(began);
    Ok(report)
}

/// Brings `to`, which holds the same repository, up to date from where `from` is, under a lease on both. What is there
/// already is only compared by name and length, but for what is known to be `bad`.
pub(crate) async fn bring_up(
    from: &Repository,
    to: &Store,
    lease: &Lease,
    bad: &HashSet<(Option<String>, String)>,
) -> Result<SyncReport> {
    let options = SyncOptions::default().check(false);
    let copy = Copy { from: from.store(), to, pinned: Some(from), heals: false, lease, bad, options: &options };
    copy.everything().await
}

/// The same without the records: so that `to` has all objects that both have together.
pub(crate) async fn bring_up_objects(
    from: &Repository,
    to: &Store,
    lease: &Lease,
    bad: &HashSet<(Option<String>, String)>,
) -> Result<()> {
    let options = SyncOptions::default().check(false);
    let copy = Copy { from: from.store(), to, pinned: Some(from), heals: false, lease, bad, options: &options };
    copy.objects(&mut SyncReport::default()).await.map(drop)
}

/// What of a configuration says which repository it is of.
#[derive(Deserialize)]
struct Identified {
    id: String,
}

async fn lease(store: &Store) -> Result<Lease> {
    Lease::take(store, &(Arc::new(Utc::now) as _), LeaseMode::Shared, "a sync").await
}

struct Copy<'a> {
    from: &'a Store,
    to: &'a Store,
    /// The source, where there are keys to check it with.
    pinned: Option<&'a Repository>,
    /// Whether the source was checked, so that what differs in the copy is wrong.
    heals: bool,
    /// On the copy.
    lease: &'a Lease,
    /// What is known to be damaged or missing: the store, where that is known, and the object's name.
    bad: &'a HashSet<(Option<String>, String)>,
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
    async fn everything(&self) -> Result<SyncReport> {
        let mut report = SyncReport::default();
        for name in [layout::INSTRUCTIONS, layout::CONFIGURATION_SIGNATURE] {
            report.add(self.same(name).await?);
        }
        for name in trust_names(self.from).await? {
            let path = layout::trust(&name);
            let is_there = self.to.read_optional(&path).await?.is_some();
            report.add(self.named(&path, &name.digest, is_there).await?);
        }
        // The records before the objects that they need: a backup may end just now.
        let records = names_in(self.from).await?;
        let have = self.objects(&mut report).await?;
        let theirs = names_in(self.to).await?;
        let removed = self.removed().await?;
        report.ahead = theirs.difference(&records).filter(|n| !removed.contains(n)).count() as u64;
        let mut seen = HashSet::new();
        // One after the other, and no further than everything is in order: a copy has no hole.
        for name in records.iter().filter(|n| !removed.contains(n)) {
            self.lease.check_in(self.to)?;
            if !theirs.contains(name) && !self.is_signed(name).await? {
                report.add(Outcome::Damaged(format!(
                    "{}: it is not signed by whom trust.json names",
                    layout::record(name)
                )));
                continue;
            }
            let outcome = match self.lacks(name, &have, &mut seen).await? {
                Some(lacks) => Outcome::Damaged(lacks),
                None => self.named(&layout::record(name), &name.digest, theirs.contains(name)).await?,
            };
            let stops = matches!(outcome, Outcome::Damaged(_));
            report.add(outcome);
            if stops {
                report.stopped_at = Some(*name);
                break;
            }
        }
        if let (Some(repository), Some(newest), None) = (self.pinned, records.last(), report.stopped_at) {
            repository.clone().in_store(self.to.clone()).remember(vec![*newest]);
        }
        // Last: a repository exists when this does.
        report.add(self.same(layout::CONFIGURATION).await?);
        Ok(report)
    }

    /// Whether nothing speaks against the signature of a record that is whole.
    async fn is_signed(&self, name: &RecordName) -> Result<bool> {
        let Some(repository) = self.pinned else { return Ok(true) };
        let bytes = self.from.read_optional(&layout::record(name)).await?;
        let whole = bytes.filter(|bytes| Digest::sha256(bytes) == name.digest);
        Ok(whole.is_none_or(|bytes| repository.vouches_for(&bytes, name)))
    }

    /// The records that are removed, as far as the keys allow to look.
    async fn removed(&self) -> Result<BTreeSet<RecordName>> {
        let mut removed = BTreeSet::new();
        if let Some(repository) = self.pinned.filter(|r| r.reads_metadata()) {
            for store in [self.from, self.to] {
                removed.extend(repository.clone().in_store(store.clone()).removed().await?);
            }
        }
        Ok(removed)
    }

    /// Copies objects; those that the copy has whole afterwards.
    async fn objects(&self, report: &mut SyncReport) -> Result<HashSet<Digest>> {
        let (objects, mut there) = (list(self.from).await?, list(self.to).await?);
        let to = Some(self.to.to_string());
        there.retain(|digest, _| {
            let name = layout::object(digest).to_string();
            !self.bad.contains(&(to.clone(), name.clone())) && !self.bad.contains(&(None, name))
        });
        // What only the copy has is not looked at; of all else, what is whole there or was copied.
        let mut have: HashSet<Digest> = there.keys().filter(|digest| !objects.contains_key(digest)).copied().collect();
        let work = objects.into_iter().map(|(digest, size)| self.object(digest, there.get(&digest) == Some(&size)));
        let mut work = futures::stream::iter(work).buffer_unordered(COPIERS);
        while let Some((digest, outcome)) = work.try_next().await? {
            if matches!(outcome, Outcome::Same | Outcome::Copied { .. }) {
                have.insert(digest);
            }
            report.add(outcome);
        }
        Ok(have)
    }

    /// The first object that a record needs and the copy does not have, as far as the keys allow to look.
    async fn lacks(
        &self,
        name: &RecordName,
        have: &HashSet<Digest>,
        seen: &mut HashSet<Digest>,
    ) -> Result<Option<String>> {
        let Some(repository) = self.pinned.filter(|r| r.reads_metadata()) else { return Ok(None) };
        // Indexes are read from the copy as well: it has what the source had, and may have what the source has lost.
        let both = repository.clone().in_stores(vec![self.to.clone(), self.from.clone()], Vec::new());
        let Some(manifest) = both.manifest_of(name).await? else { return Ok(None) };
        let mut lacks = None;
        let looked = both.references(&manifest, seen, |object, _| {
            if lacks.is_none() && !have.contains(&object) {
                lacks = Some(layout::object(&object).to_string());
            }
            Ok(())
        });
        match looked.await {
            // An index that cannot be read: what it names may be missing as well.
            Err(e) if e.kind() == ErrorKind::Damaged => {
                Ok(lacks.or_else(|| Some(format!("{}: {e}", layout::record(name)))))
            }
            Err(e) => Err(e),
            Ok(()) => Ok(lacks),
        }
    }

    async fn object(&self, digest: Digest, is_there: bool) -> Result<(Digest, Outcome)> {
        Ok((digest, self.named(&layout::object(&digest), &digest, is_there).await?))
    }

    /// Copies what is named by the SHA-256 of its bytes, unless the copy has it whole.
    async fn named(&self, path: &Path, digest: &Digest, is_there: bool) -> Result<Outcome> {
        let is_whole = |bytes: &Bytes| Digest::sha256(bytes) == *digest;
        if is_there {
            if !self.options.check {
                return Ok(Outcome::Same);
            }
            let found = self.to.read_optional(path).await?;
            if found.as_ref().is_some_and(is_whole) {
                return Ok(Outcome::Same);
            }
        }
        let Some(bytes) = self.from.read_optional(path).await?.filter(is_whole) else {
            return Ok(Outcome::Damaged(path.to_string()));
        };
        let healed = !self.to.create(path, bytes.clone()).await?;
        if healed {
            self.to.overwrite(path, bytes.clone()).await?;
        }
        self.options.progress.on(Event::Moved { plain: bytes.len() as u64, stored: bytes.len() as u64 });
        Ok(Outcome::Copied { name: path.to_string(), bytes: bytes.len() as u64, healed })
    }

    /// Copies a part of the configuration, which is named by what it is.
    async fn same(&self, name: &str) -> Result<Outcome> {
        let path = Path::from(name);
        let Some(bytes) = self.from.read_optional(&path).await? else { return Ok(Outcome::Same) };
        let length = bytes.len() as u64;
        let copied = |healed| Outcome::Copied { name: name.to_owned(), bytes: length, healed };
        if self.to.read_optional(&path).await?.as_ref() == Some(&bytes) {
            return Ok(Outcome::Same);
        }
        if self.to.create(&path, bytes.clone()).await? {
            return Ok(copied(false));
        }
        if !self.heals {
            return Ok(Outcome::Diverged(name.to_owned()));
        }
        self.to.overwrite(&path, bytes).await?;
        Ok(copied(true))
    }
}

async fn list(store: &Store) -> Result<HashMap<Digest, u64>> {
    let mut objects = HashMap::new();
    let mut names = store.list(layout::OBJECTS);
    while let Some((name, size)) = names.try_next().await? {
        if let layout::Name::Object(digest) = layout::parse(&name) {
            objects.insert(digest, size);
        }
    }
    Ok(objects)
}

impl SyncReport {
    fn add(&mut self, outcome: Outcome) {
        let name = |names: &mut Vec<String>, name| {
            if names.len() < NAMED && !names.contains(&name) {
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
