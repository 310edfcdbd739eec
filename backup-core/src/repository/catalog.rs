//! What the log says, each record checked: snapshots, evidence and removals; and how it hangs together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::log::Content;
use super::record::{Envelope, RecordKind};
use crate::assurance::Assurance;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{VerifyKey, Witness};
use crate::manifest::{Digest, RecordName, Snapshot, SnapshotId};

/// What a verify or a drill found, as it stands signed in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evidence {
    /// What was done: `verify-stored`, `verify-content` or `drill`.
    pub what: String,
    /// The snapshots that it speaks of: those that a verify found whole, or the one that was drilled.
    pub snapshots: Vec<SnapshotId>,
    /// Whether all was well.
    pub passed: bool,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// The store that was looked at, as messages call it; `None` where it was several at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The report in a form of its own, for readers that know it.
    pub details: serde_json::Value,
}

impl Evidence {
    pub(crate) fn new(
        what: &str,
        snapshots: Vec<SnapshotId>,
        passed: bool,
        finished_at: DateTime<Utc>,
        milliseconds: u64,
        details: serde_json::Value,
    ) -> Self {
        Self { what: what.to_owned(), snapshots, passed, finished_at, milliseconds, store: None, details }
    }

    /// The same, of this store alone.
    pub(crate) fn of_store(mut self, store: Option<String>) -> Self {
        self.store = store;
        self
    }

    /// The snapshots that a verify found to be damaged.
    pub(crate) fn damaged_snapshots(&self) -> impl Iterator<Item = SnapshotId> + '_ {
        let findings = self.details.get("findings").and_then(|f| f.as_array()).into_iter().flatten();
        let ids = findings.filter_map(|f| f.get("snapshots")?.as_array()).flatten();
        ids.filter_map(|id| SnapshotId::deserialize(id).ok())
    }

    /// How long a drill took to restore, in milliseconds: without comparing and cleaning up, where that is known.
    pub(crate) fn restore_milliseconds(&self) -> u64 {
        let restored = self.details.get("restore").and_then(|r| r.get("milliseconds")?.as_u64());
        restored.unwrap_or(self.milliseconds)
    }

    /// The objects that a verify named.
    pub(crate) fn bad_objects(&self) -> impl Iterator<Item = String> + '_ {
        let findings = self.details.get("findings").and_then(|f| f.as_array()).into_iter().flatten();
        findings.filter_map(|f| f.get("object")?.as_str().map(str::to_owned))
    }
}

/// Records that an admin removed on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    pub(crate) removed: Vec<Removed>,
    /// SHA-256 of the plan that was applied, as JSON.
    pub(crate) plan: Digest,
}

/// One of them, with what it named as the ones before it: otherwise what it alone names could be deleted unseen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    pub(crate) record: RecordName,
    pub(crate) previous: Vec<RecordName>,
}

impl Tombstone {
    pub(crate) fn names(&self) -> impl Iterator<Item = RecordName> + '_ {
        self.removed.iter().map(|r| r.record)
    }
}

/// Everything that was read of the logs of some stores.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) stores: Vec<StoreLog>,
    records: BTreeMap<RecordName, Result<(Envelope, Content)>>,
}

impl Log {
    /// What one store holds under this name. Damage in one store is none where another has it whole.
    pub(crate) fn add(&mut self, name: RecordName, found: Result<(Envelope, Content)>) {
        if found.is_ok() || !self.records.contains_key(&name) {
            self.records.insert(name, found);
        }
    }
}

/// The log as one store holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreLog {
    /// The store, as messages call it.
    pub store: String,
    /// Why nothing could be read there, where that is so.
    pub unreachable: Option<String>,
    /// Records that other stores hold and that were not removed: it lags.
    pub lacks: Vec<RecordName>,
    #[serde(skip)]
    holds: BTreeSet<RecordName>,
}

impl StoreLog {
    pub(crate) fn new(store: String, holds: BTreeSet<RecordName>) -> Self {
        Self { store, unreachable: None, lacks: Vec::new(), holds }
    }

    pub(crate) fn unreachable(store: String, error: &Error) -> Self {
        Self { store, unreachable: Some(error.to_string()), ..Self::default() }
    }

    /// Whether it answers, and holds every record.
    pub fn is_level(&self) -> bool {
        self.unreachable.is_none() && self.lacks.is_empty()
    }
}

/// Everything in the log.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Catalog {
    /// The snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// What verifies and drills found, oldest first.
    pub evidence: Vec<Evidence>,
    /// Records that cannot be read or trusted, and why.
    pub damaged: Vec<(RecordName, Error)>,
    /// Records that later ones build on and that are not there, though nobody with the admin key removed them.
    pub missing: Vec<RecordName>,
    /// Records that these keys cannot read, because they were not among the recipients when they were written.
    pub sealed: Vec<RecordName>,
    /// Records that do not count, because the key that signed them was [taken out of use](crate::Rotation).
    pub rejected: Vec<RecordName>,
    /// The number of the last record that is signed and whole, or 0.
    pub newest: u64,
    /// What this client has seen of the log before, if the log is not a continuation of it.
    pub contradicts: Option<Contradiction>,
    /// Store by store, in the order that they were named in.
    pub stores: Vec<StoreLog>,
    /// What each record names as the ones before it.
    links: BTreeMap<RecordName, Vec<RecordName>>,
    signers: BTreeMap<RecordName, VerifyKey>,
    heads: Vec<RecordName>,
}

/// How a log differs from what this client remembers of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contradiction {
    /// This client has seen this record in the same store: it was rolled back.
    RolledBack(RecordName),
    /// This client has seen this record in another store: this one lags, or was rolled back.
    Lags {
        /// The record.
        record: RecordName,
        /// The store that has it.
        store: String,
    },
}

impl Catalog {
    /// Puts together what the stores hold, and compares it with what was seen before.
    pub(crate) fn of(log: Log, seen: &[Witness]) -> Self {
        let mut catalog = Self { stores: log.stores, ..Self::default() };
        let mut removed: BTreeMap<RecordName, Vec<RecordName>> = BTreeMap::new();
        for (name, found) in log.records {
            let (envelope, content) = match found {
                Ok(found) => found,
                Err(e) => {
                    catalog.damaged.push((name, e));
                    continue;
                }
            };
            catalog.newest = catalog.newest.max(name.sequence);
            if matches!(content, Content::Rejected) {
                // Whatever it claims to build on.
                catalog.rejected.push(name);
                continue;
            }
            catalog.links.insert(name, envelope.previous);
            if let Some(signer) = envelope.signer {
                catalog.signers.insert(name, signer);
            }
            match content {
                Content::Snapshot(manifest) => catalog.snapshots.push(Snapshot::new(name, *manifest)),
                Content::Evidence(evidence) => catalog.evidence.push(evidence),
                Content::Sealed(RecordKind::Snapshot) => catalog.sealed.push(name),
                Content::Sealed(_) | Content::Rejected => {}
                Content::Tombstone(tombstone) => {
                    removed.extend(tombstone.removed.into_iter().map(|r| (r.record, r.previous)));
                }
            }
        }
        for snapshot in &mut catalog.snapshots {
            let holding = catalog.stores.iter().filter(|s| s.holds.contains(&snapshot.record));
            snapshot.stores = holding.map(|s| s.store.clone()).collect();
        }
        // Removed from the moment that its tombstone stands there, whether its record is still in the store or not.
        catalog.snapshots.retain(|s| !removed.contains_key(&s.record));
        catalog.sealed.retain(|name| !removed.contains_key(name));
        catalog.rejected.retain(|name| !removed.contains_key(name));
        let named: BTreeSet<RecordName> = catalog.links.values().chain(removed.values()).flatten().copied().collect();
        let damaged: BTreeSet<RecordName> = catalog.damaged.iter().map(|(name, _)| *name).collect();
        let is_rejected: BTreeSet<RecordName> = catalog.rejected.iter().copied().collect();
        let is_there = |n: &RecordName| catalog.links.contains_key(n) || damaged.contains(n) || is_rejected.contains(n);
        catalog.missing = named.iter().filter(|n| !is_there(n) && !removed.contains_key(n)).copied().collect();
        catalog.heads = catalog.links.keys().filter(|name| !named.contains(name)).copied().collect();
        let is_known = |n: &RecordName| is_there(n) || named.contains(n) || removed.contains_key(n);
        catalog.contradicts = Contradiction::of(seen, &catalog.stores, is_known);
        for store in catalog.stores.iter_mut().filter(|s| s.unreachable.is_none()) {
            let lacks = catalog.links.keys().filter(|name| !removed.contains_key(name) && !store.holds.contains(name));
            store.lacks = lacks.copied().collect();
        }
        catalog.links.extend(removed);
        catalog
    }

    /// Whether nothing is damaged or missing, and nothing contradicts what was seen before.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty() && self.contradicts.is_none()
    }

    /// An error where the log contradicts what this client remembers of it.
    pub(crate) fn check_continuation(&self) -> Result<()> {
        self.contradicts.as_ref().map_or(Ok(()), |contradiction| Err(contradiction.error()))
    }

    /// The records that have none after them.
    pub(crate) fn heads(&self) -> &[RecordName] {
        &self.heads
    }

    /// The record that removes these. What was rejected has no links that count.
    pub(crate) fn tombstone(&self, removed: impl Iterator<Item = RecordName>, plan: Digest) -> Tombstone {
        let previous = |name: &RecordName| self.links.get(name).cloned().unwrap_or_default();
        Tombstone { removed: removed.map(|record| Removed { previous: previous(&record), record }).collect(), plan }
    }

    /// The records that count and are signed with `key`: all, or those that `last_good` builds on, and itself.
    pub(crate) fn signed_by(&self, key: &VerifyKey, last_good: Option<&SnapshotId>) -> Result<BTreeSet<RecordName>> {
        let mut signed: BTreeSet<RecordName> =
            self.signers.iter().filter(|(_, signer)| *signer == key).map(|(name, _)| *name).collect();
        if let Some(id) = last_good {
            let found = self.snapshots.iter().find(|s| s.id == *id);
            let last = found.map(|s| s.record).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("there is no snapshot {id}"))
                    .with_next_step("`backup list` shows the ids")
            })?;
            let mut good = BTreeSet::from([last]);
            let mut open = vec![last];
            while let Some(name) = open.pop() {
                let Some(previous) = self.links.get(&name) else {
                    let what = format!(
                        "record {}, which {id} builds on, cannot be read: what still counts is not known",
                        name.brief()
                    );
                    return Err(Error::new(ErrorKind::Damaged, what)
                        .with_next_step("repair the store from another copy first: `backup sync`"));
                };
                open.extend(previous.iter().filter(|previous| good.insert(**previous)));
            }
            signed.retain(|name| good.contains(name));
        }
        Ok(signed)
    }

    /// What the evidence says of each snapshot, in the worst of the stores that answered: what is not known of one of them
    /// is not known.
    pub fn assurance(&self) -> HashMap<SnapshotId, Assurance> {
        let stores: Vec<&str> =
            self.stores.iter().filter(|s| s.unreachable.is_none()).map(|s| s.store.as_str()).collect();
        Assurance::of(&self.evidence, &stores)
    }
}

impl Contradiction {
    fn of(seen: &[Witness], stores: &[StoreLog], is_known: impl Fn(&RecordName) -> bool) -> Option<Self> {
        let answered = |w: &&Witness| stores.iter().any(|s| s.store == w.store && s.unreachable.is_none());
        let (here, elsewhere): (Vec<_>, Vec<_>) = seen.iter().partition(answered);
        let unknown = |w: &[&Witness]| {
            let heads = w.iter().flat_map(|w| w.heads.iter().map(|head| (*head, w.store.clone())));
            heads.filter(|(head, _)| !is_known(head)).max()
        };
        match unknown(&here) {
            Some((record, _)) => Some(Self::RolledBack(record)),
            None => unknown(&elsewhere).map(|(record, store)| Self::Lags { record, store }),
        }
    }

    /// The record that is not there.
    pub fn record(&self) -> &RecordName {
        match self {
            Self::RolledBack(record) | Self::Lags { record, .. } => record,
        }
    }

    /// A sentence about it.
    pub fn reason(&self) -> String {
        match self {
            Self::RolledBack(record) => {
                format!(
                    "this client has seen record {} here, and it is gone: the store was rolled back",
                    record.brief()
                )
            }
            Self::Lags { record, store } => {
                format!(
                    "this client has seen record {} in {store}, and it is not here: this store lags",
                    record.brief()
                )
            }
        }
    }

    /// An error where the store has lost what it had.
    pub(crate) fn check_rollback(&self) -> Result<()> {
        match self {
            Self::RolledBack(_) => Err(self.error()),
            Self::Lags { .. } => Ok(()),
        }
    }

    fn error(&self) -> Error {
        let next = match self {
            Self::RolledBack(_) => {
                "find out who changed the store, and compare with another copy; if you restored the store from a copy yourself, remove seen.json beside the keys; a snapshot named by its id can be restored all the same"
            }
            Self::Lags { .. } => {
                "bring it up to date with `backup sync`, or name the other store as well; if that is gone for good, remove seen.json beside the keys; a snapshot named by its id can be restored all the same"
            }
        };
        Error::new(ErrorKind::Untrusted, self.reason()).with_next_step(next)
    }
}
