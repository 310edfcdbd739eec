//! What this client has read of a store's log, kept beside its keys: the next look need not fetch, check and decrypt every
//! record again.
//!
//! ```text
//! {"caretaker":"log-cache","format":1,"software":"0.1.0","repository":"…","store":"…"}\n
//! then, as often as it takes: a length (4 bytes, little-endian), 32 bytes of keyed BLAKE3, and so many bytes of
//!   age(zstd(lines)): for each record one of where it comes from and one of what it says, both JSON
//! ```
//!
//! The store alone says what there is: a record counts here only where the store lists it with the same length and the
//! same time of its last writing. Whether a record's name, signature and content fit was checked when it was read, and that
//! nobody has changed the file since is proved by a key that is derived from the identity which opens the records; it is
//! encrypted to that identity. Who may sign is decided anew each time. A file that is damaged, foreign or from another version is
//! passed over, and the records are read.
//!
//! Bits that turn in a stored record do not change its length or time. So what verifies, removes or revokes reads every
//! record from the store.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::Repository;
use super::log::{Content, Records};
use super::record::{Envelope, RecordKind};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Keys, Recipient, secret_text};
use crate::manifest::{FORMAT, RecordName};
use crate::pipeline::seal::{self, Cipher, Length};

/// Records of one piece of the file: a few MiB of JSON.
const PIECE: usize = 256;
/// The largest piece that is read.
const MAX_PIECE: u64 = 512 << 20;
/// Pieces that are opened side by side.
const READERS: usize = 4;
/// Before each piece: its length and its code.
const HEAD: usize = 4 + blake3::OUT_LEN;

/// How the store lists a record: its length in bytes, and when it was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) written: DateTime<Utc>,
}

/// Where the log of one store is kept.
pub(super) struct LogCache {
    keys: Keys,
    file: String,
    head: Vec<u8>,
    code: [u8; blake3::KEY_LEN],
    identity: age::x25519::Identity,
}

#[derive(Serialize)]
struct Head<'a> {
    caretaker: &'a str,
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
pub(super) struct Kept {
    pub(super) name: RecordName,
    pub(super) stamp: Stamp,
    pub(super) envelope: Envelope,
    pub(super) content: Content,
}

impl LogCache {
    /// For the store that `repository` is in. `None` where nothing is to be kept: records that are not encrypted cost
    /// little, and what was decrypted needs a key that it can be locked away with, and a directory.
    pub(super) fn of(repository: &Repository) -> Option<Self> {
        let keys = repository.keys();
        let identity = (*repository.metadata_identities().first()?).clone();
        if !repository.is_encrypted() || !keys.has_directory() {
            return None;
        }
        let store = repository.store().to_string();
        let head = Head {
            caretaker: "log-cache",
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

    /// Everything that is kept, piece by piece; nothing where that is none of ours.
    pub(super) async fn read(&self) -> Vec<Kept> {
        match self.try_read().await {
            Ok(kept) => kept,
            Err(e) => {
                tracing::debug!(file = self.file, error = %e, "what was kept of the log is passed over, and the log is read");
                Vec::new()
            }
        }
    }

    async fn try_read(&self) -> Result<Vec<Kept>> {
        let (keys, file) = (self.keys.clone(), self.file.clone());
        let Some(bytes) = blocking(move || keys.read_beside(&file)).await? else { return Ok(Vec::new()) };
        let bytes = bytes::Bytes::from(bytes);
        let foreign = || Error::new(ErrorKind::Damaged, "it was kept by another version, or for another store");
        let mut rest =
            bytes.strip_prefix(self.head.as_slice()).map(|rest| bytes.slice_ref(rest)).ok_or_else(foreign)?;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let cut = || Error::new(ErrorKind::Damaged, "it is cut short");
            let (length, _) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            let end = HEAD.saturating_add(usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX));
            if rest.len() < end {
                return Err(cut());
            }
            let piece = rest.split_to(end);
            if self.code_of(&piece[HEAD..]) != piece[4..HEAD] {
                return Err(Error::new(ErrorKind::Damaged, "it was changed, or kept with another key"));
            }
            pieces.push(piece.slice(HEAD..));
        }
        let open = |piece: bytes::Bytes| {
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
        Ok(kept)
    }

    /// Keeps what was read, as far as the store lists it. Where that is not possible, the next look takes as long as this one.
    pub(super) async fn write(&self, listed: &BTreeMap<RecordName, Stamp>, records: &Records) {
        if let Err(e) = self.try_write(listed, records).await {
            tracing::debug!(file = self.file, error = %e, "the log is not kept beside the keys");
        }
    }

    async fn try_write(&self, listed: &BTreeMap<RecordName, Stamp>, records: &Records) -> Result<()> {
        self.keys.check_writable()?;
        let known: Vec<_> = records
            .iter()
            .filter_map(|(name, found)| Some((name, listed.get(name)?, found.as_ref().ok()?)))
            .filter(|(_, _, (_, content))| !matches!(content, Content::Sealed(_) | Content::Rejected))
            .collect();
        let cipher = Cipher::Age(vec![Recipient::of(&self.identity)]);
        let mut out = self.head.clone();
        for some in known.chunks(PIECE) {
            let mut plain = Vec::new();
            for (name, stamp, (envelope, content)) in some {
                let origin = Origin { name: **name, stamp: **stamp, envelope };
                write_lines(&mut plain, &origin, content).map_err(|e| {
                    Error::new(ErrorKind::Internal, "a record could not be written as JSON").with_source(e)
                })?;
            }
            let cipher = cipher.clone();
            let sealed = blocking(move || seal::seal(&plain, 1, &cipher)).await?.bytes;
            let length = u32::try_from(sealed.len())
                .map_err(|e| Error::new(ErrorKind::Internal, "the log is too long to be kept").with_source(e))?;
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&self.code_of(&sealed));
            out.extend_from_slice(&sealed);
        }
        let (keys, file) = (self.keys.clone(), self.file.clone());
        blocking(move || keys.write_beside(&file, &out)).await
    }

    /// Over the first line too: so no piece counts in a file of another store.
    fn code_of(&self, piece: &[u8]) -> [u8; blake3::OUT_LEN] {
        let mut code = blake3::Hasher::new_keyed(&self.code);
        code.update(&self.head).update(piece);
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
    let mut kept = Vec::with_capacity(PIECE);
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

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::new(ErrorKind::Internal, "reading what was kept of the log failed").with_source(e))?
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
        forged.write(&listed, &records).await;
        assert_eq!(ours.read().await.len(), 0);
        assert_eq!(forged.read().await.len(), 1, "it is only the code that differs");
        ours.write(&listed, &records).await;
        assert_eq!(ours.read().await.len(), 1);
    }
}
