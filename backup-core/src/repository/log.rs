//! Reading and writing the log, over every store that is at hand.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::catalog::{Evidence, Log, StoreLog, Tombstone};
use super::layout::{self, Name};
use super::record::{self, CheckedRecord, Envelope, RecordKind};
use super::store::Store;
use super::{Catalog, Repository};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Signing, Witness};
use crate::manifest::{Digest, FORMAT, Manifest, RecordName, Snapshot};
use crate::pipeline::Task;
use crate::pipeline::seal::{self, Cipher, Length};

/// The level of records and indexes: they are small and read often.
pub(crate) const RECORD_LEVEL: i32 = 3;
/// The largest record that is read: a snapshot's record names every entry, never every chunk.
pub(super) const MAX_RECORD: u64 = 512 << 20;
/// How many records are read side by side.
const READERS: usize = 16;
/// Among how many of the newest records one without any after it is looked for. What was written without knowledge of the
/// rest is mostly a few records old when it comes together; of an older one only its removal would be noticed less.
const WINDOW: usize = 64;

/// Records, in order, and what was found where each should be.
pub(crate) type Records = Vec<(RecordName, Result<(Envelope, Content)>)>;

/// What a record holds.
#[derive(Debug)]
pub(crate) enum Content {
    Snapshot(Box<Manifest>),
    Evidence(Evidence),
    Tombstone(Tombstone),
    /// It was written before these keys were among those that may read it.
    Sealed(RecordKind),
    /// It was signed with a key that was taken out of use, and is none of those that count all the same.
    Rejected,
}

impl Content {
    /// Whether it is known what the record says.
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Snapshot(_) | Self::Evidence(_) | Self::Tombstone(_))
    }
}

/// A record that was signed and is to be put into stores.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) name: RecordName,
    previous: Vec<RecordName>,
    bytes: Bytes,
}

impl Repository {
    /// Reads the whole log. Records that are damaged or not to be trusted are listed as such; the others count.
    ///
    /// Of several stores it is what all of them hold together; a store that does not answer is named in
    /// [`Catalog::stores`].
    ///
    /// What was read of an encrypted log is kept beside the keys for a week, where they are files. From then on only what is
    /// new, what the store lists otherwise, what a verify found bad, and the newest records are read. An older record that was
    /// damaged without a trace in that list shows when the repository is [verified](Self::verify), or when the week is over.
    ///
    /// # Errors
    /// Where no store answers.
    pub async fn catalog(&self) -> Result<Catalog> {
        self.catalog_of(true).await
    }

    /// The same, with every record read from every store: for who goes by it to remove something, or to say that all is well.
    ///
    /// # Errors
    /// As [`catalog`](Self::catalog).
    pub async fn catalog_from_stores(&self) -> Result<Catalog> {
        self.catalog_of(false).await
    }

    async fn catalog_of(&self, may_be_kept: bool) -> Result<Catalog> {
        // Before the log is listed, which can only be newer then: another writer may note its record at any moment.
        let seen = self.keys().seen(self.id())?;
        let mut log = Log::default();
        let mut first_error = None;
        for store in self.stores() {
            let here = self.clone().in_store(store.clone());
            let read = if may_be_kept { here.read_log_as_kept().await } else { here.read_log_anew().await };
            match read {
                Ok(records) => {
                    log.stores.push(StoreLog::new(store.to_string(), records.iter().map(|(name, _)| *name).collect()));
                    for (name, found) in records {
                        log.add(name, found);
                    }
                }
                Err(e) if self.stores().len() == 1 || !e.is_about_the_store() => return Err(e),
                Err(e) => {
                    log.stores.push(StoreLog::unreachable(store.to_string(), &e));
                    first_error.get_or_insert(e);
                }
            }
        }
        if let Some(e) = first_error.filter(|_| log.stores.iter().all(|s| s.unreachable.is_some())) {
            return Err(e);
        }
        log.stores.extend(self.unreachable().iter().map(|(store, e)| StoreLog::unreachable(store.clone(), e)));
        let catalog = Catalog::of(log, &seen);
        if let Some(sealed) = catalog.sealed.first().filter(|_| catalog.snapshots.is_empty())
            && !self.is_reader()?
        {
            return Err(Error::new(
                ErrorKind::KeyWrong,
                format!(
                    "{} was not encrypted to any of the keys at hand, and no other snapshot either",
                    layout::record(sealed)
                ),
            )
            .with_next_step("use the owner-identity.txt whose recipient this repository was made for"));
        }
        Ok(catalog)
    }

    /// The newest snapshot of a source that fits, looking from the newest record backwards, with what was found damaged or
    /// missing since: the store, where that is known, and the object's name. Damaged records are passed over: this serves
    /// only to know what need not be stored again.
    pub(crate) async fn newest_snapshot(
        &self,
        fits: impl Fn(&Manifest) -> bool,
    ) -> Result<Option<(Snapshot, HashSet<(Option<String>, String)>)>> {
        let mut bad = HashSet::new();
        let mut removed = HashSet::new();
        for name in self.names().await?.into_iter().rev() {
            match self.record(&name).await {
                Ok((_, Content::Snapshot(manifest))) if fits(&manifest) && !removed.contains(&name) => {
                    return Ok(Some((Snapshot::new(name, *manifest), bad)));
                }
                Ok((_, Content::Evidence(evidence))) => {
                    bad.extend(evidence.bad_objects().map(|object| (evidence.store.clone(), object)));
                }
                Ok((_, Content::Tombstone(tombstone))) => removed.extend(tombstone.names()),
                Ok(_) => {}
                Err(e) if is_about_the_record(&e) => {
                    tracing::warn!(record = %name, error = %e, "a damaged record is not used to find unchanged data");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The records that were removed and are still in the store: their names, when they were removed, and what they held, if
    /// it was ever to count.
    pub(crate) async fn buried(&self) -> Result<Vec<(RecordName, DateTime<Utc>, Option<Manifest>)>> {
        let mut removed = BTreeMap::new();
        let mut snapshots = Vec::new();
        for (name, found) in self.read_log().await? {
            match found {
                Ok((_, Content::Snapshot(manifest))) => snapshots.push((name, Some(*manifest))),
                // It goes as slowly as any other: it may have been revoked by mistake.
                Ok((_, Content::Rejected)) => {
                    let manifest = match self.read_record(&name, true).await {
                        Ok((_, Content::Snapshot(manifest))) => Some(*manifest),
                        Ok(_) => None,
                        Err(e) if is_about_the_record(&e) => None,
                        Err(e) => return Err(e),
                    };
                    snapshots.push((name, manifest));
                }
                Ok((envelope, Content::Tombstone(tombstone))) => {
                    removed.extend(tombstone.names().map(|name| (name, envelope.written)));
                }
                Ok(_) | Err(_) => {}
            }
        }
        let buried = snapshots.into_iter().filter_map(|(name, manifest)| Some((name, *removed.get(&name)?, manifest)));
        Ok(buried.collect())
    }

    /// What the snapshot of this name holds; `None` where there is none that can be read.
    pub(crate) async fn manifest_of(&self, name: &RecordName) -> Result<Option<Manifest>> {
        match self.record(name).await {
            Ok((_, Content::Snapshot(manifest))) => Ok(Some(*manifest)),
            Ok(_) => Ok(None),
            Err(e) if is_about_the_record(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The names of all records that an admin removed.
    pub(crate) async fn removed(&self) -> Result<HashSet<RecordName>> {
        let mut removed = HashSet::new();
        for (_, found) in self.read_log().await? {
            if let Ok((_, Content::Tombstone(tombstone))) = found {
                removed.extend(tombstone.names());
            }
        }
        Ok(removed)
    }

    /// Whether the keys at hand open records and indexes.
    pub(crate) fn reads_metadata(&self) -> bool {
        !self.is_encrypted() || !self.metadata_identities().is_empty()
    }

    /// Whether one of the keys at hand is among those that records are encrypted to now.
    fn is_reader(&self) -> Result<bool> {
        let Some(trust) = self.trust() else { return Ok(false) };
        let readers: Vec<String> = trust.metadata_recipients()?.iter().map(ToString::to_string).collect();
        Ok(self.metadata_identities().iter().any(|identity| readers.contains(&identity.to_public().to_string())))
    }

    /// Whether these bytes are a record of this repository, with this name, signed by whom `trust.json` names.
    pub(crate) fn vouches_for(&self, bytes: &[u8], name: &RecordName) -> bool {
        record::decode(bytes, name, self.id(), self.trust()).is_ok()
    }

    /// Signs `content`, puts it at the end of the log of the first store that takes it, and into every other that has what
    /// it builds on.
    pub(crate) async fn append(
        &self,
        kind: RecordKind,
        content: &impl Serialize,
        signing: Option<&Signing>,
    ) -> Result<RecordName> {
        let mut failed = None;
        for (n, store) in self.stores().iter().enumerate() {
            match self.clone().in_store(store.clone()).append_here(kind, content, signing).await {
                Ok(signed) => {
                    for other in self.stores().iter().skip(n + 1) {
                        let other = self.clone().in_store(other.clone());
                        match other.take_record(&signed).await {
                            Ok(true) => {}
                            Ok(false) => {
                                tracing::warn!(store = %other.store(), "it lags, and takes no new record before it was brought up to date");
                            }
                            Err(e) => {
                                tracing::warn!(store = %other.store(), error = %e, "a record could not be put there")
                            }
                        }
                    }
                    return Ok(signed.name);
                }
                // Also one that was rolled back: what is left of it is not built upon.
                Err(e) if e.is_about_the_store() || e.kind() == ErrorKind::Untrusted => drop(failed.get_or_insert(e)),
                Err(e) => return Err(e),
            }
        }
        Err(failed.unwrap_or_else(|| Error::new(ErrorKind::Internal, "there is no store to append to")))
    }

    async fn append_here(
        &self,
        kind: RecordKind,
        content: &impl Serialize,
        signing: Option<&Signing>,
    ) -> Result<Signed> {
        let signed = self.sign(kind, content, signing).await?;
        self.put_record(&signed).await?;
        Ok(signed)
    }

    /// Puts many snapshots at the end of the log, without what one by one would cost.
    #[cfg(feature = "stages")]
    pub(crate) async fn append_many(&self, manifests: impl Iterator<Item = Manifest>) -> Result<()> {
        let signing = if self.is_encrypted() { Some(&self.keys().writer()?.signing) } else { None };
        let (mut previous, mut sequence) = self.end_of_log().await?;
        for manifest in manifests {
            let signed = self.sign_after(previous, sequence, RecordKind::Snapshot, &manifest, signing)?;
            self.store().create(&layout::record(&signed.name), signed.bytes).await?;
            (previous, sequence) = (vec![signed.name], sequence + 1);
        }
        Ok(())
    }

    /// Signs `content` as the next record of this store.
    pub(crate) async fn sign(
        &self,
        kind: RecordKind,
        content: &impl Serialize,
        signing: Option<&Signing>,
    ) -> Result<Signed> {
        if let Some(trust) = self.trust().filter(|t| t.encrypted) {
            let signer = signing.map(Signing::verify_key);
            if !signer.is_some_and(|s| kind.may_be_signed_now(&s, trust)) {
                return Err(Error::new(
                    ErrorKind::KeyWrong,
                    "this key is not one that trust.json names: what it signs would not count",
                )
                .with_next_step(
                    "use the key that this repository was made with, or the trust.json that belongs to this one",
                ));
            }
        }
        let (previous, sequence) = self.end_of_log().await?;
        self.sign_after(previous, sequence, kind, content, signing)
    }

    fn sign_after(
        &self,
        previous: Vec<RecordName>,
        sequence: u64,
        kind: RecordKind,
        content: &impl Serialize,
        signing: Option<&Signing>,
    ) -> Result<Signed> {
        let json = serde_json::to_vec(content)
            .map_err(|e| Error::new(ErrorKind::Internal, "a record could not be written as JSON").with_source(e))?;
        // What was removed has to be known to everybody, also to who reads nothing else.
        let cipher = if kind == RecordKind::Tombstone { Cipher::Plain } else { self.metadata_cipher()? };
        let payload = seal::seal(&json, RECORD_LEVEL, &cipher)?.bytes;
        let envelope = Envelope {
            caretaker: kind,
            format: FORMAT,
            repository: self.id().to_owned(),
            sequence,
            previous,
            written: self.now(),
            signer: signing.map(Signing::verify_key),
        };
        let bytes = Bytes::from(record::encode(&envelope, &payload, signing)?);
        let name = RecordName::new(sequence, Digest::sha256(&bytes));
        Ok(Signed { name, previous: envelope.previous, bytes })
    }

    /// Puts a record into this store, which has what it builds on.
    pub(crate) async fn put_record(&self, signed: &Signed) -> Result<()> {
        let path = layout::record(&signed.name);
        if !self.store().create(&path, signed.bytes.clone()).await? {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("{path} is already in {} with other bytes than its name says", self.store()),
            )
            .with_next_step("run `backup verify`; somebody or something changed the store"));
        }
        self.remember(vec![signed.name]);
        Ok(())
    }

    /// The same where this store may lack what the record builds on: then it is not put, and the answer is `false`.
    pub(crate) async fn take_record(&self, signed: &Signed) -> Result<bool> {
        let names: BTreeSet<RecordName> = self.names().await?.into_iter().collect();
        if !signed.previous.iter().all(|p| names.contains(p)) {
            return Ok(false);
        }
        self.put_record(signed).await?;
        Ok(true)
    }

    /// Notes the end of this store's log beside the keys, so that a rollback shows. Where it cannot be noted, says so and
    /// goes on: the backup itself is good.
    pub(crate) fn remember(&self, heads: Vec<RecordName>) {
        let witness = Witness { repository: self.id().to_owned(), store: self.store().to_string(), heads };
        if let Err(e) = self.keys().remember(&witness) {
            tracing::warn!(error = %e, "the newest record could not be noted beside the keys; a rollback of the store will not show here");
        }
    }

    /// An error where this client has seen the log of this store go on further.
    pub(crate) async fn check_not_rolled_back(&self) -> Result<()> {
        self.end_of_log().await.map(drop)
    }

    /// The records of this store that have none after them, as far as they can be read: a stray or damaged one does not
    /// count; and the number of the next. An error where this client has seen the log go on further: a new record on top
    /// would make the old story look whole again.
    async fn end_of_log(&self) -> Result<(Vec<RecordName>, u64)> {
        // Before the log is listed: another writer beside these keys may add a record, and note it, at any moment.
        let seen = self.keys().seen(self.id())?;
        let mut good = BTreeMap::new();
        for name in self.names().await?.into_iter().rev() {
            if good.len() >= WINDOW {
                break;
            }
            self.look_at(name, &mut good).await?;
        }
        let here = self.store().to_string();
        for head in seen.iter().filter(|w| w.store == here).flat_map(|w| &w.heads) {
            // The list may lag: what it missed is found by looking.
            if good.contains_key(head) || self.look_at(*head, &mut good).await? {
                continue;
            }
            if let Some(contradiction) = self.catalog_from_stores().await?.contradicts {
                contradiction.check_rollback()?;
            }
        }
        let newest = good.keys().chain(seen.iter().flat_map(|w| &w.heads)).map(|n| n.sequence).max();
        let named: BTreeSet<RecordName> = good.values().flatten().copied().collect();
        let heads = good.into_keys().filter(|name| !named.contains(name)).collect();
        let next = newest.unwrap_or(0).checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Damaged, format!("the log of {} has no number left", self.store()))
                .with_next_step("somebody wrote a record with the highest number there is: revoke his key, and prune")
        })?;
        Ok((heads, next))
    }

    /// Notes what the record of this name names as the ones before it, if it can be read.
    async fn look_at(&self, name: RecordName, good: &mut BTreeMap<RecordName, Vec<RecordName>>) -> Result<bool> {
        match self.record(&name).await {
            // What does not count is not built upon, and does not number what follows.
            Ok((_, Content::Rejected)) => {}
            Ok((envelope, _)) => drop(good.insert(name, envelope.previous)),
            Err(e) if is_about_the_record(&e) => return Ok(false),
            Err(e) => return Err(e),
        }
        Ok(true)
    }

    /// The names of the records, in order, of all stores together.
    pub(crate) async fn names(&self) -> Result<Vec<RecordName>> {
        let mut names = BTreeSet::new();
        let mut failed = None;
        let mut answered = false;
        for store in self.stores() {
            match names_in(store).await {
                Ok(found) => {
                    answered = true;
                    names.extend(found);
                }
                Err(e) => drop(failed.get_or_insert(e)),
            }
        }
        match failed {
            Some(e) if !answered => Err(e),
            _ => Ok(names.into_iter().collect()),
        }
    }

    /// All records, in order.
    pub(super) async fn read_log(&self) -> Result<Records> {
        self.read_records(self.names().await?).await
    }

    pub(super) async fn read_records(&self, names: Vec<RecordName>) -> Result<Records> {
        let mut records = Vec::with_capacity(names.len());
        // Each in a task of its own: to check signatures and decrypt is work for all cores.
        let read = |name: RecordName| {
            let this = self.clone();
            let reading = Task::spawn(async move { this.record(&name).await });
            async move { (name, reading.join().await) }
        };
        let mut reading = futures::stream::iter(names).map(read).buffered(READERS);
        while let Some((name, found)) = reading.next().await {
            match found {
                Err(e) if !is_about_the_record(&e) => return Err(e),
                found => records.push((name, found)),
            }
        }
        Ok(records)
    }

    async fn record(&self, name: &RecordName) -> Result<(Envelope, Content)> {
        self.read_record(name, false).await
    }

    /// The same, with what it says though it may not count.
    async fn read_record(&self, name: &RecordName, any: bool) -> Result<(Envelope, Content)> {
        let path = layout::record(name);
        let bytes = self.read_named(&path, &name.digest).await?;
        let CheckedRecord { envelope, payload } = record::decode(&bytes, name, self.id(), self.trust())?;
        let kind = envelope.caretaker;
        if let (Some(trust), Some(signer)) = (self.trust(), &envelope.signer)
            && !any
            && trust.rejects(signer, name)
        {
            return Ok((envelope, Content::Rejected));
        }
        let unsealed = seal::unseal(
            &payload,
            Length::AtMost(MAX_RECORD),
            &self.metadata_identities(),
            self.is_encrypted() && kind != RecordKind::Tombstone,
            path.as_ref(),
        );
        let plain = match unsealed {
            // It is whole and signed: others may open it, or another generation of these keys.
            Err(e) if e.kind() == ErrorKind::KeyWrong => {
                return Ok((envelope, Content::Sealed(kind)));
            }
            unsealed => unsealed?,
        };
        let content = match kind {
            RecordKind::Snapshot => serde_json::from_slice(&plain).map(|m| Content::Snapshot(Box::new(m))),
            RecordKind::Evidence => serde_json::from_slice(&plain).map(Content::Evidence),
            RecordKind::Tombstone => serde_json::from_slice(&plain).map(Content::Tombstone),
        }
        .map_err(|e| Error::new(ErrorKind::Damaged, format!("{path} is damaged: {e}")).with_source(e))?;
        Ok((envelope, content))
    }
}

/// The names of the records in one store.
pub(crate) async fn names_in(store: &Store) -> Result<BTreeSet<RecordName>> {
    names_below(store, layout::LOG).await
}

/// What is named as records are, in one folder of a store.
pub(super) async fn names_below(store: &Store, folder: &str) -> Result<BTreeSet<RecordName>> {
    store
        .list(folder)
        .try_filter_map(|(name, _)| async move {
            Ok(match layout::parse(&name) {
                Name::Record(name) | Name::Trust(name) => Some(name),
                _ => None,
            })
        })
        .try_collect()
        .await
}

/// Whether the error condemns the record, and not the connection or the key at hand.
fn is_about_the_record(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Untrusted)
}
