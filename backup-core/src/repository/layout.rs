//! The names of a repository's objects. The one place that knows them.

use chrono::{DateTime, Utc};
use object_store::path::Path;

use crate::manifest::{Digest, RecordName};

/// What the repository is: plain JSON.
pub(crate) const CONFIGURATION: &str = "repository.json";
/// The admin's signature over it: 64 bytes.
pub(crate) const CONFIGURATION_SIGNATURE: &str = "repository.sig";
/// How to get everything back without this crate.
pub(crate) const INSTRUCTIONS: &str = "RESTORE.md";
/// Chunks and indexes, named by the SHA-256 of their stored bytes.
pub(crate) const OBJECTS: &str = "objects";
/// Signed records: snapshots, evidence, removals.
pub(crate) const LOG: &str = "log";
/// Signed changes of who may write and read, as RecordName: the sequence is the generation.
pub(crate) const TRUST: &str = "trust";
/// Leases, each with its expiry in its name.
pub(crate) const LOCKS: &str = "locks";

pub(crate) fn object(digest: &Digest) -> Path {
    let name = digest.to_string();
    Path::from(format!("{OBJECTS}/{}/{name}", &name[..2]))
}

pub(crate) fn record(name: &RecordName) -> Path {
    Path::from(format!("{LOG}/{name}"))
}

pub(crate) fn trust(name: &RecordName) -> Path {
    Path::from(format!("{TRUST}/{name}"))
}

/// How two leases get along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseMode {
    /// Held by whatever adds to the repository: any number at once.
    Shared,
    /// Held by whatever removes from it: alone.
    Exclusive,
}

pub(crate) fn lock(expires: DateTime<Utc>, mode: LeaseMode, holder: &str) -> Path {
    let mode = match mode {
        LeaseMode::Shared => "shared",
        LeaseMode::Exclusive => "exclusive",
    };
    Path::from(format!("{LOCKS}/{}-{mode}-{holder}", expires.timestamp()))
}

/// What an object's name says it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Configuration,
    Object(Digest),
    Record(RecordName),
    Trust(RecordName),
    Lock {
        expires: DateTime<Utc>,
        mode: LeaseMode,
        holder: String,
    },
    /// Nothing that this crate writes.
    Foreign,
}

/// Reads a name back; the inverse of the functions above.
pub(crate) fn parse(path: &str) -> Name {
    match path.split('/').collect::<Vec<_>>().as_slice() {
        [CONFIGURATION | CONFIGURATION_SIGNATURE | INSTRUCTIONS] => Name::Configuration,
        [OBJECTS, shard, name] if name.starts_with(shard) && shard.len() == 2 => match name.parse::<Digest>() {
            Ok(digest) if digest.to_string() == *name => Name::Object(digest),
            _ => Name::Foreign,
        },
        [LOG, name] => name.parse().map_or(Name::Foreign, Name::Record),
        [TRUST, name] => name.parse().map_or(Name::Foreign, Name::Trust),
        [LOCKS, name] => parse_lock(name).unwrap_or(Name::Foreign),
        _ => Name::Foreign,
    }
}

fn parse_lock(name: &str) -> Option<Name> {
    let mut parts = name.splitn(3, '-');
    let expires = DateTime::from_timestamp(parts.next()?.parse().ok()?, 0)?;
    let mode = match parts.next()? {
        "shared" => LeaseMode::Shared,
        "exclusive" => LeaseMode::Exclusive,
        _ => return None,
    };
    Some(Name::Lock { expires, mode, holder: parts.next()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_and_strangers_are_foreign() {
        let digest = Digest([0xab; 32]);
        assert_eq!(parse(object(&digest).as_ref()), Name::Object(digest));
        for sequence in [7, 12_345_678_901] {
            let name = RecordName::new(sequence, digest);
            assert_eq!(parse(record(&name).as_ref()), Name::Record(name));
            assert_eq!(parse(trust(&name).as_ref()), Name::Trust(name));
        }
        let expires = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        assert_eq!(
            parse(lock(expires, LeaseMode::Exclusive, "ab-cd").as_ref()),
            Name::Lock { expires, mode: LeaseMode::Exclusive, holder: "ab-cd".into() }
        );
        let hex = digest.to_string();
        for name in [
            format!("0000000000-{hex}"),
            format!("00000000007-{hex}"),
            format!("7-{hex}"),
            format!("0000000007-{hex}0"),
        ] {
            assert_eq!(parse(&format!("log/{name}")), Name::Foreign, "{name}");
        }
        for foreign in [
            "",
            "x",
            "objects/ab/xx",
            "objects/cd/abab",
            "log/7",
            "log/0000000007",
            "log/0000000007-x",
            "locks/1-both-x",
        ] {
            assert_eq!(parse(foreign), Name::Foreign, "{foreign}");
        }
    }
}
