//! Single stages of the pipeline, and a made-up catalog, for this workspace's benches. No part of the promised interface.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta};

use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::keys::OwnerIdentity;
use crate::manifest::{Digest, Manifest, Snapshot};
use crate::pipeline::Cutter;
use crate::pipeline::seal::{self, Cipher, Length};
use crate::repository::{Catalog, Repository};

const KEY: Digest = Digest([7; 32]);

/// Cuts a whole stream, by rows or not; the chunks.
pub fn cut(stream: Bytes, rows: bool) -> Vec<Bytes> {
    Cutter::new(&KEY, rows).cut(stream, true).0.into_iter().map(|chunk| chunk.bytes).collect()
}

/// The id of a chunk.
pub fn id(chunk: &[u8]) -> Digest {
    crate::pipeline::chunk_id(&KEY, chunk)
}

/// The fingerprint of rows, one a line.
pub fn fingerprint(rows: &[u8]) -> Fingerprint {
    crate::pipeline::fingerprint_of_lines(rows)
}

/// Compresses, encrypts where there is an owner, and names: the stored bytes and their SHA-256.
pub fn seal(chunk: &[u8], level: i32, owner: Option<&OwnerIdentity>) -> Result<(Bytes, Digest)> {
    let cipher = owner.map_or(Cipher::Plain, |owner| Cipher::Age(vec![owner.recipient()]));
    let sealed = seal::seal(chunk, level, &cipher)?;
    Ok((sealed.bytes, sealed.digest))
}

/// The way back: checks the name, decrypts, decompresses.
pub fn open(stored: &[u8], digest: &Digest, plain: u64, owner: Option<&OwnerIdentity>) -> Result<Vec<u8>> {
    let identities: Vec<_> = owner.iter().map(|owner| owner.age()).collect();
    seal::open(stored, digest, Length::Exactly(plain), &identities, owner.is_some(), "a chunk")
}

/// A catalog of so many snapshots of one source, one every hour, none verified.
pub fn catalog(snapshots: u32) -> Catalog {
    let mut catalog = Catalog::default();
    let at = |n: u32| DateTime::UNIX_EPOCH + TimeDelta::hours(n.into());
    catalog.snapshots.extend((0..snapshots).map(|n| Snapshot::sample(u64::from(n) + 1, "shop", None, at(n))));
    catalog
}

/// Adds so many records like this snapshot's to a repository's log, one every hour after it.
pub async fn add_snapshots(repository: &Repository, like: &Snapshot, count: u32) -> Result<()> {
    let manifests = (1..=count).map(|n| {
        let taken_at = like.manifest.taken_at + TimeDelta::hours(n.into());
        Manifest { taken_at, started_at: taken_at, finished_at: taken_at, ..like.manifest.clone() }
    });
    repository.append_many(manifests).await
}
