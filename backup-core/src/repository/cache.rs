//! What this client has read of a store's log, kept beside its keys: the next look need not fetch, check and decrypt every
//! record again.
//!
//! ```text
//! {"caretaker":"log-cache","layout":1,"format":1,"software":"0.1.0","repository":"…","store":"…"}\n
//! "2026-11-26T03:00:00Z"\n        since when records are kept in it
//! then, as often as it takes: a length (4 bytes, little-endian), 32 bytes of keyed BLAKE3, and so many bytes of
//!   age(zstd(lines)): for each record one of where it comes from and one of what it says, both JSON
//! ```
//!
//! The store alone says what there is: a record counts here only where the store lists it with the same length and the
//! same time of its last writing. Whether a record's name, signature and content fit was checked when it was read; that
//! nobody has changed the file since is proved by a key that is derived from an identity which opens the records now, and it
//! is encrypted to that identity. Who may sign is decided anew each time. A file that is damaged, foreign or from another
//! version is passed over, and the records are read.
//!
//! What such a list does not show is bits that turn in a stored record, a record that nobody may read any more, or another
//! disk in the same place. So the newest records are always read from the store, and those that a verify found bad; after a
//! week all of them; and what verifies, removes, revokes or drills goes by what it reads from the store itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::layout::{self, Name};
use super::log::{Content, MAX_RECORD, Records};
use super::record::{Envelope, RecordKind};
use super::{Repository, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Keys, Recipient, secret_text};
use crate::manifest::{FORMAT, RecordName};
use crate::pipeline::blocking;
use crate::pipeline::seal::{self, Cipher, Length};

/// Raised with every change of what a record may say, since what is not known when a record is kept is lost.
const LAYOUT: u32 = 1;
/// A piece of the file is closed once its lines have so many bytes.
const PIECE: usize = 4 << 20;
/// The largest piece that is read: a record of the largest size, and what was before it.
const MAX_PIECE: u64 = MAX_RECORD + (64 << 20);
/// The largest file that is read.
const MAX_FILE: u64 = 512 << 20;
/// After so many days everything is read anew.
const DAYS: i64 = 7;
/// Pieces that are opened side by side.
const READERS: usize = 4;
/// What was read of the log is kept anew once it is this part of all of it.
const KEPT_PART: usize = 64;
/// So many of the newest records are always read from the store: that it lists them does not say that it can be read.
const ALWAYS_READ: usize = 8;
/// Before each piece: its length and its code.
const HEAD: usize = 4 + blake3::OUT_LEN;

impl Repository {
    /// All records of the one store that this is in, each read there; where not all is well, nothing is kept of it.
    pub(super) async fn read_log_anew(&self) -> Result<Records> {
        let records = self.read_log().await?;
        if let Some(cache) = LogCache::of(self).filter(|_| records.iter().any(|(_, found)| found.is_err()))
            && let Err(e) = cache.forget().await
        {
            // What is damaged is told all the same; evidence of it in the log keeps others from going by what was kept.
            tracing::warn!(error = %e, "what was read of the log before is still kept beside the keys, and may hide damage: remove it");
        }
        Ok(records)
    }

    /// The same of the one store that this is in, as far as possible from what was kept when it was read before.
    pub(super) async fn read_log_as_kept(&self) -> Result<Records> {
        let Some(cache) = LogCache::of(self) else { return self.read_log().await };
        let listed = stamped_names_in(self.store()).await?;
        let now = self.now();
        let (since, kept) = cache.read(now).await.unwrap_or((now, Vec::new()));
        let newest = listed.keys().rev().nth(ALWAYS_READ - 1).copied();
        let mut known: BTreeMap<_, Result<(Envelope, Content)>> = BTreeMap::new();
        let mut bad = Vec::new();
        for kept in kept {
            let is_old = newest.is_some_and(|newest| kept.name < newest);
            if is_old && listed.get(&kept.name) == Some(&kept.stamp) && self.still_counts(&kept.name, &kept.envelope) {
                bad.extend(self.bad_records(&kept.content));
                known.insert(kept.name, Ok((kept.envelope, kept.content)));
            }
        }
        let read = |known: &BTreeMap<_, _>| {
            self.read_records(listed.keys().filter(|name| !known.contains_key(*name)).copied().collect())
        };
        let mut new = read(&known).await?;
        bad.extend(
            new.iter().filter_map(|(_, found)| found.as_ref().ok()).flat_map(|(_, said)| self.bad_records(said)),
        );
        bad.retain(|name| known.remove(name).is_some());
        if !bad.is_empty() {
            new.extend(self.read_records(bad).await?);
        }
        let fresh = new.iter().filter(|(_, found)| found.as_ref().is_ok_and(|(_, said)| said.is_read())).count();
        known.extend(new);
        let records = known.into_iter().collect();
        if fresh > ALWAYS_READ.max(listed.len() / KEPT_PART) {
            cache.write(since, &listed, &records).await;
        }
        Ok(records)
    }

    /// The records that a verify found bad in the store that this is in.
    fn bad_records(&self, said: &Content) -> Vec<RecordName> {
        let here = self.store().to_string();
        let Content::Evidence(evidence) = said else { return Vec::new() };
        if evidence.store.as_ref().is_some_and(|store| *store != here) {
            return Vec::new();
        }
        let names = evidence.bad_objects().filter_map(|object| match layout::parse(&object) {
            Name::Record(name) => Some(name),
            _ => None,
        });
        names.collect()
    }

    /// Whether a record that was whole when it was read is signed by somebody whose word counts now.
    fn still_counts(&self, name: &RecordName, envelope: &Envelope) -> bool {
        let (Some(trust), Some(signer)) = (self.trust(), &envelope.signer) else { return false };
        envelope.caretaker.may_be_signed_by(signer, trust) && !trust.rejects(signer, name)
    }
}

/// The records of a store, and how it lists each.
async fn stamped_names_in(store: &Store) -> Result<BTreeMap<RecordName, Stamp>> {
    store
        .list_dated(layout::LOG)
        .try_filter_map(|(name, size, written)| async move {
            Ok(match layout::parse(&name) {
                Name::Record(name) => Some((name, Stamp { size, written })),
                _ => None,
            })
        })
        .try_collect()
        .await
}

/// How the store lists a record: its length in bytes, and when it was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    written: DateTime<Utc>,
}

/// Where the log of one store is kept.
struct LogCache {
    keys: Keys,
    file: String,
    head: Vec<u8>,
    code: [u8; blake3::KEY_LEN],
    identity: age::x25519::Identity,
}

#[derive(Serialize)]
struct Head<'a> {
    caretaker: &'a str,
    layout: u32,
    format: u32,
    software: &'a str,
    repository: &'a str,
    store: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Origin<E> {
    name: RecordName,
    #[serde(flatten)]
    stamp: Stamp,
    envelope: E,
}

/// A record as it was read once.
struct Kept {
    name: RecordName,
    stamp: Stamp,
    envelope: Envelope,
    content: Content,
}

impl LogCache {
    /// For the store that `repository` is in. `None` where nothing is to be kept: records that are not encrypted cost
    /// little, and what was decrypted needs a key that it can be locked away with, and a directory.
    fn of(repository: &Repository) -> Option<Self> {
        let keys = repository.keys();
        let trust = repository.trust().filter(|_| repository.is_encrypted() && keys.has_directory())?;
        let readers: Vec<String> = trust.metadata_recipients().ok()?.iter().map(ToString::to_string).collect();
        // Not one that was taken out of use: who has it is not to read what was written since. The owner's comes first, for a
        // writer that was added later is not to read what was written before.
        let mut identities = repository.metadata_identities().into_iter().rev();
        let identity = identities.find(|i| readers.contains(&i.to_public().to_string()))?.clone();
        let store = repository.store().to_string();
        let head = Head {
            caretaker: "log-cache",
            layout: LAYOUT,
            format: FORMAT,
            software: env!("CARGO_PKG_VERSION"),
            repository: repository.id(),
            store: &store,
        };
        let mut head = serde_json::to_vec(&head).ok()?;
        head.push(b'\n');
        let place = blake3::hash(format!("{}\n{store}", repository.id()).as_bytes()).to_hex();
        let file = format!("log-{}.cache", &place[..16]);
        let code = blake3::derive_key("caretaker 2026-11-26 log cache", secret_text(&identity).as_bytes());
        Some(Self { keys: keys.clone(), file, head, code, identity })
    }

    /// Everything that is kept, and since when; nothing where that is too long ago, or the file is none of ours.
    async fn read(&self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, Vec<Kept>)> {
        match self.try_read(now).await {
            Ok(kept) => kept,
            Err(e) => {
                tracing::debug!(file = self.file, error = %e, "what was kept of the log is passed over, and the log is read");
                None
            }
        }
    }

    async fn try_read(&self, now: DateTime<Utc>) -> Result<Option<(DateTime<Utc>, Vec<Kept>)>> {
        let (keys, file) = (self.keys.clone(), self.file.clone());
        let Some(bytes) = blocking(move || keys.read_beside(&file, MAX_FILE)).await? else { return Ok(None) };
        let bytes = Bytes::from(bytes);
        let foreign = || Error::new(ErrorKind::Damaged, "it was kept by another version, or for another store");
        let mut rest =
            bytes.strip_prefix(self.head.as_slice()).map(|rest| bytes.slice_ref(rest)).ok_or_else(foreign)?;
        let end = memchr::memchr(b'\n', &rest).ok_or_else(foreign)?;
        let since_line = rest.split_to(end + 1);
        let since: DateTime<Utc> = serde_json::from_slice(&since_line)
            .map_err(|e| Error::new(ErrorKind::Damaged, "it does not say since when it was kept").with_source(e))?;
        if !(TimeDelta::zero()..TimeDelta::days(DAYS)).contains(&(now - since)) {
            return Ok(None);
        }
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let cut = || Error::new(ErrorKind::Damaged, "it is cut short");
            let (length, _) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            let end = HEAD.saturating_add(usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX));
            if rest.len() < end {
                return Err(cut());
            }
            let piece = rest.split_to(end);
            if self.code_of(&since_line, &piece[HEAD..]) != piece[4..HEAD] {
                return Err(Error::new(ErrorKind::Damaged, "it was changed, or kept with another key"));
            }
            pieces.push(piece.slice(HEAD..));
        }
        let open = |piece: Bytes| {
            let identity = self.identity.clone();
            blocking(move || {
                let plain =
                    seal::unseal(&piece, Length::AtMost(MAX_PIECE), &[&identity], true, "what was kept of the log")?;
                parse(&plain).map_err(|e| Error::new(ErrorKind::Damaged, "it holds something else").with_source(e))
            })
        };
        let mut opening = futures::stream::iter(pieces).map(open).buffered(READERS);
        let mut kept = Vec::new();
        while let Some(piece) = opening.next().await {
            kept.extend(piece?);
        }
        Ok(Some((since, kept)))
    }

    /// Keeps what was read, as far as the store lists it. Where that is not possible, the next look takes as long as this one.
    async fn write(&self, since: DateTime<Utc>, listed: &BTreeMap<RecordName, Stamp>, records: &Records) {
        if let Err(e) = self.try_write(since, listed, records).await {
            tracing::debug!(file = self.file, error = %e, "the log is not kept beside the keys");
        }
    }

    async fn try_write(
        &self,
        since: DateTime<Utc>,
        listed: &BTreeMap<RecordName, Stamp>,
        records: &Records,
    ) -> Result<()> {
        let unwritten = |e| Error::new(ErrorKind::Internal, "a record could not be written as JSON").with_source(e);
        let keys = self.keys.clone();
        blocking(move || keys.check_writable()).await?;
        let mut since_line = serde_json::to_vec(&since).map_err(unwritten)?;
        since_line.push(b'\n');
        let mut out = [self.head.as_slice(), &since_line].concat();
        let mut plain = Vec::new();
        for (name, found) in records {
            let (Some(stamp), Ok((envelope, content))) = (listed.get(name), found) else { continue };
            if !content.is_read() {
                continue;
            }
            write_lines(&mut plain, &Origin { name: *name, stamp: *stamp, envelope }, content).map_err(unwritten)?;
            if plain.len() >= PIECE {
                self.close(&since_line, std::mem::take(&mut plain), &mut out).await?;
            }
        }
        if !plain.is_empty() {
            self.close(&since_line, plain, &mut out).await?;
        }
        let (keys, file) = (self.keys.clone(), self.file.clone());
        blocking(move || keys.write_beside(&file, &out)).await
    }

    async fn close(&self, since_line: &[u8], plain: Vec<u8>, out: &mut Vec<u8>) -> Result<()> {
        let cipher = Cipher::Age(vec![Recipient::of(&self.identity)]);
        let sealed = blocking(move || seal::seal(&plain, 1, &cipher)).await?.bytes;
        let length = u32::try_from(sealed.len())
            .map_err(|e| Error::new(ErrorKind::Internal, "a record is too long to be kept").with_source(e))?;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.code_of(since_line, &sealed));
        out.extend_from_slice(&sealed);
        Ok(())
    }

    /// Keeps nothing any more.
    async fn forget(&self) -> Result<()> {
        let (keys, file) = (self.keys.clone(), self.file.clone());
        blocking(move || keys.remove_beside(&file)).await
    }

    /// Over the first lines too: so no piece counts in a file of another store or time.
    fn code_of(&self, since_line: &[u8], piece: &[u8]) -> [u8; blake3::OUT_LEN] {
        let mut code = blake3::Hasher::new_keyed(&self.code);
        code.update(&self.head).update(since_line).update(piece);
        *code.finalize().as_bytes()
    }
}

fn write_lines(plain: &mut Vec<u8>, origin: &Origin<&Envelope>, content: &Content) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *plain, origin)?;
    plain.push(b'\n');
    match content {
        Content::Snapshot(manifest) => serde_json::to_writer(&mut *plain, manifest)?,
        Content::Evidence(evidence) => serde_json::to_writer(&mut *plain, evidence)?,
        Content::Tombstone(tombstone) => serde_json::to_writer(&mut *plain, tombstone)?,
        Content::Sealed(_) | Content::Rejected => {}
    }
    plain.push(b'\n');
    Ok(())
}

fn parse(plain: &[u8]) -> serde_json::Result<Vec<Kept>> {
    let mut lines = plain.split(|b| *b == b'\n');
    let mut kept = Vec::new();
    while let (Some(origin), Some(content)) = (lines.next(), lines.next()) {
        let Origin { name, stamp, envelope }: Origin<Envelope> = serde_json::from_slice(origin)?;
        let content = match envelope.caretaker {
            RecordKind::Snapshot => Content::Snapshot(serde_json::from_slice(content)?),
            RecordKind::Evidence => Content::Evidence(serde_json::from_slice(content)?),
            RecordKind::Tombstone => Content::Tombstone(serde_json::from_slice(content)?),
        };
        kept.push(Kept { name, stamp, envelope, content });
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Digest, Snapshot};
    use crate::repository::Store;

    /// Whom the file is encrypted to is no secret: that alone must not be enough to say what the log holds.
    #[tokio::test]
    async fn only_who_opens_the_records_can_write_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        Keys::generate().unwrap().save(dir.path().join("keys")).unwrap();
        let mut keys = Keys::load(dir.path().join("keys")).unwrap();
        let store = Store::folder(dir.path().join("store")).unwrap();
        let repository = Repository::init(store, &mut keys, &[]).await.unwrap();
        let snapshot = Snapshot::sample(1, "shop", None, Utc::now());
        let envelope = Envelope {
            caretaker: RecordKind::Snapshot,
            format: FORMAT,
            repository: repository.id().to_owned(),
            sequence: 1,
            previous: Vec::new(),
            written: Utc::now(),
            signer: Some(repository.keys().writer().unwrap().verify_key()),
        };
        let name = RecordName::new(1, Digest::sha256(b"x"));
        let listed = BTreeMap::from([(name, Stamp { size: 1, written: Utc::now() })]);
        let records = vec![(name, Ok((envelope, Content::Snapshot(Box::new(snapshot.manifest)))))];
        let ours = LogCache::of(&repository).unwrap();
        let forged = LogCache { code: [0; 32], ..LogCache::of(&repository).unwrap() };
        let now = Utc::now();
        forged.write(now, &listed, &records).await;
        let kept = async |cache: &LogCache, now| cache.read(now).await.map(|(_, kept)| kept.len());
        assert_eq!(kept(&ours, now).await, None);
        assert_eq!(kept(&forged, now).await, Some(1), "it is only the code that differs");
        ours.write(now, &listed, &records).await;
        assert_eq!(kept(&ours, now).await, Some(1));
        // Not for ever; and not from a future that a clock was in.
        assert_eq!(kept(&ours, now + TimeDelta::days(DAYS)).await, None);
        assert_eq!(kept(&ours, now - TimeDelta::seconds(1)).await, None);
        ours.forget().await.unwrap();
        assert_eq!(kept(&ours, now).await, None);
    }
}
