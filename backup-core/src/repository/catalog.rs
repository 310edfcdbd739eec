//! What the log holds: snapshots, evidence and removals, each checked; and how the chain hangs together.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::Repository;
use super::layout::{self, Name};
use super::record::{self, CheckedRecord, Envelope, RecordKind};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Signing, Witness};
use crate::manifest::{Digest, FORMAT, Manifest, Snapshot, SnapshotId};
use crate::pipeline::seal::{self, Length};

/// The largest record that is read: a snapshot's record names every entry, never every chunk.
const MAX_RECORD: u64 = 512 << 20;
/// How many records are read side by side.
const READERS: usize = 16;
/// How many gaps are named.
const MAX_MISSING: usize = 10_000;
/// How often a writer that lost the race for a sequence number tries the next.
const APPEND_ATTEMPTS: u32 = 200;

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
        Self { what: what.to_owned(), snapshots, passed, finished_at, milliseconds, details }
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
    fn bad_objects(&self) -> impl Iterator<Item = String> + '_ {
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    pub(crate) sequence: u64,
    pub(crate) digest: Digest,
}

/// The record that removes these.
pub(crate) fn tombstone(removed: Vec<(u64, Digest)>, plan: Digest) -> impl Serialize {
    let removed = removed.into_iter().map(|(sequence, digest)| Removed { sequence, digest }).collect();
    Tombstone { removed, plan }
}

/// Everything in the log.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Catalog {
    /// The snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// What verifies and drills found, oldest first.
    pub evidence: Vec<Evidence>,
    /// Records that cannot be read or trusted: the number in the log and why.
    pub damaged: Vec<(u64, Error)>,
    /// Records that ought to be there and are not, though nobody with the admin key removed them.
    pub missing: Vec<u64>,
    /// Records whose predecessor is another than the one in the log.
    pub broken_chain: Vec<u64>,
    /// The number of the last record that is signed and whole, or 0.
    pub newest: u64,
    /// What this client has seen of the log before, if the log is not a continuation of it.
    pub contradicts: Option<Contradiction>,
    digests: BTreeMap<u64, Digest>,
}

/// How a log differs from what this client remembers of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contradiction {
    /// It ends before a record that this client has seen: it was rolled back, or it lags.
    RolledBack(Witness),
    /// Another record stands where this client has seen one.
    Replaced(Witness),
}

impl Catalog {
    /// Whether nothing is damaged, missing or out of order, and nothing contradicts what was seen before.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty() && self.broken_chain.is_empty() && self.contradicts.is_none()
    }

    /// An error where the log contradicts what this client remembers of it.
    pub(crate) fn check_continuation(&self) -> Result<()> {
        match &self.contradicts {
            None => Ok(()),
            Some(contradiction) => Err(contradiction.error(self.newest)),
        }
    }

    /// SHA-256 of the record in this place, where it is there.
    pub(crate) fn digest(&self, sequence: u64) -> Option<&Digest> {
        self.digests.get(&sequence)
    }
}

impl Contradiction {
    fn of(seen: Option<Witness>, newest: u64, digests: &BTreeMap<u64, Digest>) -> Option<Self> {
        let seen = seen?;
        if newest < seen.sequence {
            return Some(Self::RolledBack(seen));
        }
        // A record that is gone is told apart elsewhere; here only one that is another.
        digests.get(&seen.sequence).is_some_and(|d| *d != seen.digest).then_some(Self::Replaced(seen))
    }

    /// A sentence about it, for a log whose last record is `newest`.
    pub fn reason(&self, newest: u64) -> String {
        match self {
            Self::RolledBack(seen) => format!(
                "the log ends at record {newest}, but this client has seen record {}: the store was rolled back, or lags",
                seen.sequence
            ),
            Self::Replaced(seen) => format!("record {} is not the one that this client has seen there", seen.sequence),
        }
    }

    fn error(&self, newest: u64) -> Error {
        Error::new(ErrorKind::Untrusted, self.reason(newest)).with_next_step(
            "find out who changed the store, and compare with another copy; if you restored the store from a copy yourself, remove seen.json beside the keys; a snapshot named by its id can be restored all the same",
        )
    }
}

impl Repository {
    /// Reads the whole log. Records that are damaged or not to be trusted are listed as such; the others count.
    pub async fn catalog(&self) -> Result<Catalog> {
        // Before the log is listed, which can only be newer then: another writer may note its record at any moment.
        let seen = self.keys().witness(self.id())?;
        let mut sequences = self.sequences().await?;
        sequences.sort_unstable();
        let records: Vec<(u64, Result<(CheckedRecord, Content)>)> = futures::stream::iter(sequences)
            .map(|sequence| async move { (sequence, self.record(sequence).await) })
            .buffered(READERS)
            .collect()
            .await;

        let mut catalog = Catalog::default();
        let mut previous = HashMap::new();
        let mut removed: BTreeMap<u64, Digest> = BTreeMap::new();
        for (sequence, record) in records {
            let (record, content) = match record {
                Ok(found) => found,
                Err(e) if is_about_the_record(&e) => {
                    catalog.damaged.push((sequence, e));
                    continue;
                }
                Err(e) => return Err(e),
            };
            catalog.newest = catalog.newest.max(sequence);
            catalog.digests.insert(sequence, record.digest);
            previous.insert(sequence, record.envelope.previous);
            match content {
                Content::Snapshot(manifest) => catalog.snapshots.push(Snapshot {
                    id: SnapshotId::new(sequence, &record.digest),
                    sequence,
                    digest: record.digest,
                    manifest: *manifest,
                }),
                Content::Evidence(evidence) => catalog.evidence.push(evidence),
                Content::Tombstone(tombstone) => {
                    removed.extend(tombstone.removed.iter().map(|r| (r.sequence, r.digest)));
                }
            }
        }
        // Removed from the moment that its tombstone stands there, whether its record is still in the store or not.
        catalog.snapshots.retain(|s| removed.get(&s.sequence) != Some(&s.digest));
        for sequence in 1..=catalog.newest {
            let known = catalog.digests.contains_key(&sequence);
            let damaged = catalog.damaged.iter().any(|(n, _)| *n == sequence);
            if !known && !damaged && !removed.contains_key(&sequence) {
                catalog.missing.push(sequence);
                // In an unsigned repository anybody can claim any number.
                if catalog.missing.len() == MAX_MISSING {
                    break;
                }
            }
        }
        for (sequence, previous) in previous {
            let before = sequence - 1;
            let expected = catalog.digests.get(&before).or_else(|| removed.get(&before));
            let unknowable = before > 0 && expected.is_none();
            if !unknowable && previous.as_ref() != expected {
                catalog.broken_chain.push(sequence);
            }
        }
        catalog.broken_chain.sort_unstable();
        catalog.contradicts = Contradiction::of(seen, catalog.newest, &catalog.digests);
        Ok(catalog)
    }

    /// The newest snapshot of a source that fits, looking from the newest record backwards, with the names of the objects
    /// that were found damaged or missing since. Damaged records are passed over: this serves only to know what need not
    /// be stored again.
    pub(crate) async fn newest_snapshot(
        &self,
        fits: impl Fn(&Manifest) -> bool,
    ) -> Result<Option<(Snapshot, HashSet<String>)>> {
        let mut bad = HashSet::new();
        let mut removed = HashSet::new();
        let mut sequences = self.sequences().await?;
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        for sequence in sequences {
            match self.record(sequence).await {
                Ok((record, Content::Snapshot(manifest)))
                    if fits(&manifest) && !removed.contains(&(sequence, record.digest)) =>
                {
                    let snapshot = Snapshot {
                        id: SnapshotId::new(sequence, &record.digest),
                        sequence,
                        digest: record.digest,
                        manifest: *manifest,
                    };
                    return Ok(Some((snapshot, bad)));
                }
                Ok((_, Content::Evidence(evidence))) => bad.extend(evidence.bad_objects()),
                Ok((_, Content::Tombstone(tombstone))) => {
                    removed.extend(tombstone.removed.iter().map(|r| (r.sequence, r.digest)));
                }
                Ok(_) => {}
                Err(e) if is_about_the_record(&e) => {
                    tracing::warn!(sequence, error = %e, "a damaged record is not used to find unchanged data");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The snapshots that were removed and whose records are still in the store: place in the log, when they were removed,
    /// and what they held.
    pub(crate) async fn buried(&self) -> Result<Vec<(u64, DateTime<Utc>, Manifest)>> {
        let mut removed = HashMap::new();
        let mut snapshots = Vec::new();
        for sequence in self.sequences().await? {
            match self.record(sequence).await {
                Ok((record, Content::Snapshot(manifest))) => snapshots.push((sequence, record.digest, manifest)),
                Ok((record, Content::Tombstone(tombstone))) => {
                    let at = record.envelope.written;
                    removed.extend(tombstone.removed.into_iter().map(|r| ((r.sequence, r.digest), at)));
                }
                Ok(_) => {}
                Err(e) if is_about_the_record(&e) => {}
                Err(e) => return Err(e),
            }
        }
        let buried = snapshots.into_iter().filter_map(|(sequence, digest, manifest)| {
            removed.get(&(sequence, digest)).map(|at| (sequence, *at, *manifest))
        });
        Ok(buried.collect())
    }

    /// What the snapshot in this place holds; `None` where there is none that can be read.
    pub(crate) async fn manifest_at(&self, sequence: u64) -> Result<Option<Manifest>> {
        match self.record(sequence).await {
            Ok((_, Content::Snapshot(manifest))) => Ok(Some(*manifest)),
            Ok(_) => Ok(None),
            Err(e) if is_about_the_record(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The places of all records that an admin removed.
    pub(crate) async fn removed(&self) -> Result<HashSet<u64>> {
        let mut removed = HashSet::new();
        for sequence in self.sequences().await? {
            match self.record(sequence).await {
                Ok((_, Content::Tombstone(tombstone))) => removed.extend(tombstone.removed.iter().map(|r| r.sequence)),
                Ok(_) => {}
                Err(e) if is_about_the_record(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(removed)
    }

    /// Whether the keys at hand open records and indexes.
    pub(crate) fn reads_metadata(&self) -> bool {
        !self.is_encrypted() || !self.metadata_identities().is_empty()
    }

    /// Whether these bytes are a record of this repository, for this place, signed by whom `trust.json` names.
    pub(crate) fn vouches_for(&self, bytes: &[u8], sequence: u64) -> bool {
        record::decode(bytes, sequence, self.id(), self.trust()).is_ok()
    }

    /// Signs `content` and puts it at the end of the log. Whoever loses the race for a place takes the next.
    pub(crate) async fn append(
        &self,
        kind: RecordKind,
        content: &impl Serialize,
        signing: Option<&Signing>,
    ) -> Result<(u64, Digest)> {
        if let Some(trust) = self.trust().filter(|t| t.encrypted) {
            let signer = signing.map(Signing::verify_key);
            if !signer.is_some_and(|s| kind.may_be_signed_by(&s, trust)) {
                return Err(Error::new(
                    ErrorKind::KeyWrong,
                    "this key is not one that trust.json names: what it signs would not count",
                )
                .with_next_step(
                    "use the key that this repository was made with, or the trust.json that belongs to this one",
                ));
            }
        }
        let json = serde_json::to_vec(content)
            .map_err(|e| Error::new(ErrorKind::Internal, "a record could not be written as JSON").with_source(e))?;
        let cipher = self.metadata_cipher()?;
        let payload = seal::seal(&json, RECORD_LEVEL, &cipher)?.bytes;
        // Before the log is listed: another writer beside these keys may add a record, and note it, at any moment.
        let seen = self.keys().witness(self.id())?;
        let mut last = self.last_good().await?;
        if let Some(seen) = seen {
            let found = self.store().read_optional(&layout::record(seen.sequence)).await?;
            let digests = found.iter().map(|bytes| (seen.sequence, Digest::sha256(bytes))).collect();
            if let Some(contradiction) = Contradiction::of(Some(seen), last, &digests) {
                // A new record on top would make the old story look whole again.
                return Err(contradiction.error(last));
            }
        }
        for _ in 0..APPEND_ATTEMPTS {
            // The list may lag: what it missed is found by looking.
            while last > 0 && self.store().read_optional(&layout::record(last + 1)).await?.is_some() {
                last += 1;
            }
            let previous = match last {
                0 => None,
                _ => Some(Digest::sha256(&self.store().read(&layout::record(last)).await?)),
            };
            let envelope = Envelope {
                caretaker: kind,
                format: FORMAT,
                repository: self.id().to_owned(),
                sequence: last + 1,
                previous,
                written: self.clock()(),
                signer: signing.map(Signing::verify_key),
            };
            let bytes = Bytes::from(record::encode(&envelope, &payload, signing)?);
            let digest = Digest::sha256(&bytes);
            if self.store().create(&layout::record(last + 1), bytes).await? {
                self.remember(last + 1, digest);
                return Ok((last + 1, digest));
            }
            last += 1;
        }
        Err(Error::new(
            ErrorKind::Locked,
            format!("no free place in the log of {} after {APPEND_ATTEMPTS} attempts", self.store()),
        )
        .with_next_step("other writers were always faster; run it again"))
    }

    /// Notes the end of the log beside the keys, so that a rollback shows. Where it cannot be noted, says so and goes on:
    /// the backup itself is good.
    pub(crate) fn remember(&self, sequence: u64, digest: Digest) {
        let witness = Witness { repository: self.id().to_owned(), sequence, digest };
        if let Err(e) = self.keys().remember(&witness) {
            tracing::warn!(error = %e, "the newest record could not be noted beside the keys; a rollback of the store will not show here");
        }
    }

    /// The number of the last record that can be read: a stray or damaged object at the end does not count.
    async fn last_good(&self) -> Result<u64> {
        let mut sequences = self.sequences().await?;
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        for sequence in sequences {
            match self.record(sequence).await {
                Ok(_) => return Ok(sequence),
                Err(e) if is_about_the_record(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(0)
    }

    async fn sequences(&self) -> Result<Vec<u64>> {
        self.store()
            .list(layout::LOG)
            .try_filter_map(|(name, _)| async move {
                Ok(match layout::parse(&name) {
                    Name::Record(sequence) => Some(sequence),
                    _ => None,
                })
            })
            .try_collect()
            .await
    }

    async fn record(&self, sequence: u64) -> Result<(CheckedRecord, Content)> {
        let name = layout::record(sequence);
        let bytes = self.store().read(&name).await?;
        let record = record::decode(&bytes, sequence, self.id(), self.trust())?;
        let plain = seal::unseal(
            &record.payload,
            Length::AtMost(MAX_RECORD),
            &self.metadata_identities(),
            self.is_encrypted(),
            name.as_ref(),
        )?;
        let content = match record.envelope.caretaker {
            RecordKind::Snapshot => serde_json::from_slice(&plain).map(|m| Content::Snapshot(Box::new(m))),
            RecordKind::Evidence => serde_json::from_slice(&plain).map(Content::Evidence),
            RecordKind::Tombstone => serde_json::from_slice(&plain).map(Content::Tombstone),
        }
        .map_err(|e| Error::new(ErrorKind::Damaged, format!("{name} is damaged: {e}")).with_source(e))?;
        Ok((record, content))
    }
}

/// The level of records and indexes: they are small and read often.
pub(crate) const RECORD_LEVEL: i32 = 3;

enum Content {
    Snapshot(Box<Manifest>),
    Evidence(Evidence),
    Tombstone(Tombstone),
}

/// Whether the error condemns the record, and not the connection or the key at hand.
fn is_about_the_record(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Untrusted)
}
