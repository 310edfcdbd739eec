//! The versioned record of one snapshot, and the index lines it points to.
//!
//! Everything here is data that is stored: changing the meaning of a field means a new [`FORMAT`].

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;

/// The version of the repository format that this crate reads and writes.
pub const FORMAT: u32 = 1;

/// 256 bits that identify something by its content: the SHA-256 of stored bytes, or the keyed BLAKE3 of plaintext.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where the content of a snapshot came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SourceInfo {
    /// The name the owner gave it, or one derived from its location: what `--of` selects by.
    pub name: String,
    /// `sqlite`, `files`, or what a custom source calls itself. A restore needs a target of the same kind.
    pub kind: String,
    /// Where it was, without any password.
    pub location: String,
    /// The version of the server or library that was read, for people.
    pub version: String,
}

impl SourceInfo {
    /// A source of `kind`, called `name`, found at `location` (which must hold no secret).
    pub fn new(
        name: impl Into<String>,
        kind: impl Into<String>,
        location: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), kind: kind.into(), location: location.into(), version: version.into() }
    }
}

/// What an entry holds, and so when a restore needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EntryKind {
    /// Definitions that come before any data.
    PreData,
    /// The rows of one table, one row a line.
    Data,
    /// Regular files, as tar members in units: many small ones together, big ones alone.
    Files,
    /// Directories and links, as tar members: restored after the files, so that times and modes of directories hold.
    Tree,
    /// Definitions that come after all data: indexes, triggers, views, settings.
    PostData,
    /// What belongs to the server rather than to this database, roles for one: kept, never restored by itself.
    Globals,
}

/// One chunk of an entry: where its bytes are and how to check them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// SHA-256 of the stored bytes, and the object's name.
    pub object: Digest,
    /// Keyed BLAKE3 of the plaintext, under the snapshot's id key.
    pub id: Digest,
    /// Length of the plaintext in bytes.
    pub plain: u64,
    /// Length of the stored object in bytes.
    pub stored: u64,
}

/// A file inside a unit, with what tells whether it has changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Path below the source's root.
    #[serde(flatten)]
    pub path: MemberPath,
    /// Length in bytes.
    pub size: u64,
    /// Modification time: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Status change time: seconds since 1970 and nanoseconds.
    pub ctime: (i64, u32),
    /// Inode number.
    pub inode: u64,
    /// Type and permission bits.
    pub mode: u32,
}

/// A path of bytes: as text where it is UTF-8, in hexadecimal where it is not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemberPath {
    /// The path as text.
    #[serde(rename = "path")]
    Text(String),
    /// The path's bytes in hexadecimal.
    #[serde(rename = "path_hex")]
    Hex(String),
}

impl MemberPath {
    /// The path of these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(hex::encode(bytes)),
        }
    }

    /// The bytes of this path; an error where the hexadecimal is none.
    pub fn to_bytes(&self) -> Result<Vec<u8>, hex::FromHexError> {
        match self {
            Self::Text(text) => Ok(text.as_bytes().to_vec()),
            Self::Hex(text) => hex::decode(text),
        }
    }
}

/// Closes a run of chunks that belong together: the files they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// How many of the chunk lines just before this line it covers.
    pub chunks: u64,
    /// The files, in the order of their tar members.
    pub members: Vec<Member>,
    /// The sum of the members' fingerprints.
    pub fingerprint: Fingerprint,
}

/// One line of an index: JSON, so that `jq` can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IndexLine {
    /// The next chunk of the entry.
    Chunk(ChunkRef),
    /// The chunks since the last such line form a unit.
    Unit(Unit),
}

/// One object that holds a run of an entry's index lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRef {
    /// SHA-256 of the stored bytes, and the object's name.
    pub object: Digest,
    /// Keyed BLAKE3 of the plaintext.
    pub id: Digest,
    /// Length of the plaintext in bytes.
    pub plain: u64,
    /// Length of the stored object in bytes.
    pub stored: u64,
}

/// One entry of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EntryRecord {
    /// The entry's name, such as `data/orders`.
    pub name: String,
    /// What it holds.
    pub kind: EntryKind,
    /// The table or folder it belongs to, as its owner calls it.
    pub subject: String,
    /// Length of the plaintext in bytes.
    pub bytes: u64,
    /// How many chunks it is cut into.
    pub chunks: u64,
    /// Where its lines are bare rows: what has to stand before each, and a `;` after it, to make a statement.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub insert: String,
    /// What has to stand before its bytes so that the database's own client reads them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// What has to stand after them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// Rows (or files) and their order-independent sum.
    pub fingerprint: Fingerprint,
    /// The index lines themselves, where there are only a few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inline: Vec<IndexLine>,
    /// The objects that hold the index lines, in order, where there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartRef>,
}

/// Something of the source that is not in the snapshot, or not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Problem {
    /// The file, table or object.
    pub subject: String,
    /// What was the matter with it.
    pub reason: String,
}

impl Problem {
    /// `subject` is missing or imperfect because of `reason`.
    pub fn new(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { subject: subject.into(), reason: reason.into() }
    }
}

/// The sums of a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Totals {
    /// Plaintext bytes of all entries.
    pub bytes: u64,
    /// Rows and files of all entries.
    pub rows: u64,
    /// Plaintext bytes that were read from the source in this run; the rest was known to be unchanged.
    pub read: u64,
    /// Bytes that this run added to the store, without the snapshot's own record.
    pub added: u64,
    /// Objects that this run added to the store.
    pub objects: u64,
}

/// The signed record of one snapshot: all that is needed to check it and to restore it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The run that took it; sources backed up in one call share it.
    pub run: String,
    /// What was backed up.
    pub source: SourceInfo,
    /// The tier, where the snapshot holds only part of the source on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// A text of the owner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The machine that took it.
    pub host: String,
    /// The version of this crate.
    pub software: String,
    /// The instant whose state it holds.
    pub taken_at: DateTime<Utc>,
    /// When the run began.
    pub started_at: DateTime<Utc>,
    /// When the last byte was in the store.
    pub finished_at: DateTime<Utc>,
    /// What the source says of its position (a log position, a snapshot name), for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// SHA-256 of the definitions, to see that the schema changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Digest>,
    /// The epoch: snapshots share chunks only inside one.
    pub epoch: String,
    /// The age recipients that the data was encrypted to; empty in an unencrypted repository.
    pub recipients: Vec<String>,
    /// SHA-256 of whom its record and indexes are encrypted to; none in an unencrypted repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readers: Option<Digest>,
    /// The key of the chunk ids, so that whoever can read this record can check them.
    pub id_key: Digest,
    /// The entries, in the order in which a restore by hand takes them.
    pub entries: Vec<EntryRecord>,
    /// What is missing or imperfect: never silent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// How many problems there were, where the list had to be cut short.
    #[serde(default)]
    pub problem_count: u64,
    /// Sums.
    pub totals: Totals,
}

impl Manifest {
    /// Whether it holds the whole source: no tier, nothing missing.
    pub fn is_full(&self) -> bool {
        self.tier.is_none()
    }

    /// Whether everything it should hold could be read.
    pub fn is_complete(&self) -> bool {
        self.problem_count == 0
    }

    /// The entry of this name.
    pub fn entry(&self, name: &str) -> Option<&EntryRecord> {
        self.entries.iter().find(|e| e.name == name)
    }
}

/// Names one snapshot: its sequence number and the beginning of its record's SHA-256, as in `7-3fa29c01`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(String);

impl SnapshotId {
    fn new(record: &RecordName) -> Self {
        Self(record.brief())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one record of the log: its sequence number, and the SHA-256 of its stored bytes, as in `0000000007-3fa2…`.
///
/// A record has a higher number than those that it names as the ones before it. Two that were written without knowledge of
/// one another may have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct RecordName {
    /// Its sequence number, from 1.
    pub sequence: u64,
    /// SHA-256 of its stored bytes.
    pub digest: Digest,
}

impl RecordName {
    pub(crate) fn new(sequence: u64, digest: Digest) -> Self {
        Self { sequence, digest }
    }

    /// What people call it: its number and the beginning of its SHA-256, as in `7-3fa29c01`.
    pub fn brief(&self) -> String {
        format!("{}-{}", self.sequence, &self.digest.to_string()[..8])
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}-{}", self.sequence, self.digest)
    }
}

impl FromStr for RecordName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = || {
            let (sequence, digest) = text.split_once('-')?;
            Some(Self::new(sequence.parse().ok().filter(|n| *n > 0)?, digest.parse().ok()?))
        };
        // Exactly as it is written: another spelling of the same name would be a second record.
        name().filter(|name| name.to_string() == text).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("{text:?} is not the name of a record"))
                .with_next_step("a record is called as in log/ of the store")
        })
    }
}

impl Serialize for RecordName {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A snapshot that is in the repository, its signature checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// What to call it.
    pub id: SnapshotId,
    /// Its record in the repository's log.
    pub record: RecordName,
    /// The stores that list it, as messages call them.
    pub stores: Vec<String>,
    /// What it holds.
    pub manifest: Manifest,
}

impl Snapshot {
    pub(crate) fn new(record: RecordName, manifest: Manifest) -> Self {
        Self { id: SnapshotId::new(&record), record, stores: Vec::new(), manifest }
    }
}

#[cfg(any(test, feature = "stages"))]
impl Snapshot {
    /// A snapshot with nothing in it, for tests and benches of what is decided about snapshots.
    pub(crate) fn sample(sequence: u64, source: &str, tier: Option<&str>, taken_at: DateTime<Utc>) -> Self {
        let digest = Digest::sha256(&sequence.to_le_bytes());
        let manifest = Manifest {
            run: String::new(),
            source: SourceInfo::new(source, "sqlite", "sqlite:shop.db", "3"),
            tier: tier.map(str::to_owned),
            label: None,
            host: String::new(),
            software: String::new(),
            taken_at,
            started_at: taken_at,
            finished_at: taken_at,
            position: None,
            schema: None,
            epoch: String::new(),
            recipients: Vec::new(),
            readers: None,
            id_key: digest,
            entries: Vec::new(),
            problems: Vec::new(),
            problem_count: 0,
            totals: Totals { rows: 1000, bytes: 100_000, ..Totals::default() },
        };
        Self::new(RecordName::new(sequence, digest), manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_lines_are_told_apart_by_their_fields() {
        let chunk = IndexLine::Chunk(ChunkRef { object: Digest([1; 32]), id: Digest([2; 32]), plain: 3, stored: 4 });
        let unit = IndexLine::Unit(Unit {
            chunks: 1,
            members: vec![Member {
                path: MemberPath::from_bytes(b"a\xff"),
                size: 1,
                mtime: (-1, 5),
                ctime: (2, 6),
                inode: 9,
                mode: 0o100_644,
            }],
            fingerprint: Fingerprint::EMPTY,
        });
        for line in [chunk, unit] {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<IndexLine>(&text).unwrap(), line, "{text}");
        }
    }
}
