//! The names of a repository's objects. The one place that knows them.

use chrono::{DateTime, Utc};
use object_store::path::Path;

use crate::manifest::Digest;

/// What the repository is: plain JSON.
pub(crate) const CONFIGURATION: &str = "repository.json";
/// The admin's signature over it: 64 bytes.
pub(crate) const CONFIGURATION_SIGNATURE: &str = "repository.sig";
/// How to get everything back without this crate.
pub(crate) const INSTRUCTIONS: &str = "RESTORE.md";
/// Chunks and indexes, named by the SHA-256 of their stored bytes.
pub(crate) const OBJECTS: &str = "objects";
/// Signed records, one for each sequence number: snapshots, evidence, removals.
pub(crate) const LOG: &str = "log";
/// Leases, each with its expiry in its name.
pub(crate) const LOCKS: &str = "locks";

pub(crate) fn object(digest: &Digest) -> Path {
    let name = digest.to_string();
    Path::from(format!("{OBJECTS}/{}/{name}", &name[..2]))
}

pub(crate) fn record(sequence: u64) -> Path {
    Path::from(format!("{LOG}/{sequence:010}"))
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
    Record(u64),
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
        [LOG, name] => match name.parse() {
            // Exactly as it is written: another spelling of the same number would be a second record.
            Ok(sequence) if sequence > 0 && record(sequence).as_ref() == path => Name::Record(sequence),
            _ => Name::Foreign,
        },
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
        assert_eq!(parse(record(7).as_ref()), Name::Record(7));
        assert_eq!(parse(record(12_345_678_901).as_ref()), Name::Record(12_345_678_901));
        let expires = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        assert_eq!(
            parse(lock(expires, LeaseMode::Exclusive, "ab-cd").as_ref()),
            Name::Lock { expires, mode: LeaseMode::Exclusive, holder: "ab-cd".into() }
        );
        for foreign in [
            "",
            "x",
            "objects/ab/xx",
            "objects/cd/abab",
            "log/7",
            "log/000000000x",
            "log/0000000000",
            "log/00000000001",
            "locks/1-both-x",
        ] {
            assert_eq!(parse(foreign), Name::Foreign, "{foreign}");
        }
    }
}
