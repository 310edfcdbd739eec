//! The ledger of evidence: only ever added to, each entry bound to the one before it.
//!
//! A line of the file is the SHA-256 of its JSON, a space, and that JSON, in which the hash of the line before stands. So an entry
//! that is changed, left out or moved breaks the chain, and `sha256sum` alone can check it. The newest entry's number and hash
//! stand in a file beside it ([`Head`]): without it a ledger cut off at its end would look whole. Whoever may write both files
//! can cut both; the head that stands in each report, kept elsewhere, shows that, too ([`Entries::continues`]).

mod file;

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::audit::Audit;
use crate::error::{Error, ErrorKind, Result};
use crate::standing::{Attestation, Standing, Waiver};

pub use file::FileLedger;

/// What is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Record {
    /// An audit.
    Audit {
        /// What it found.
        audit: Box<Audit>,
    },
    /// Somebody says that an item is fulfilled.
    Attested(Attestation),
    /// Somebody answers for an item.
    Waived(Waiver),
    /// What was said of an item is taken back.
    Withdrawn {
        /// The item.
        item: String,
        /// By whom.
        by: String,
    },
    /// A task was done.
    Done {
        /// The task.
        task: String,
        /// By whom.
        by: String,
        /// With what outcome, in the person's words.
        note: String,
    },
    /// A secret was changed. Its name; its value is nobody's business.
    Rotated {
        /// Its name in the register.
        secret: String,
        /// By whom.
        by: String,
    },
    /// Somebody looked at who may do what, and decided.
    Reviewed {
        /// Whose access: a role, an administrator.
        subject: String,
        /// By whom.
        by: String,
        /// Whether it stays.
        keep: bool,
        /// Why.
        reason: String,
        /// SHA-256 of the facts that were looked at, in hex.
        digest: String,
    },
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// The hash of the line before; 64 zeros of the first.
    pub previous: String,
    /// What is written down.
    pub record: Record,
}

/// The newest entry: number and hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number; 0 of an empty ledger.
    pub seq: u64,
    /// Its hash, in hex.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }
}

/// A ledger of evidence. Every implementation keeps to what `tests/ledger.rs` asks of it.
#[async_trait]
pub trait Ledger: std::fmt::Debug + Send + Sync {
    /// Adds an entry, for good: when this returns it is written.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where what is there is not whole; nothing is added then. [`ErrorKind::Storage`].
    async fn append(&self, at: DateTime<Utc>, record: Record) -> Result<Head>;

    /// All entries, checked.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where an entry was changed, left out, moved, or cut off; it says which.
    async fn entries(&self) -> Result<Entries>;
}

/// The entries of a ledger that was found to be whole.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Entries {
    /// The entries, oldest first, each with its hash.
    pub all: Vec<(Entry, String)>,
    /// The JSON of those that this version would write in another way: written by another version, with fields it does not know.
    verbatim: BTreeMap<u64, String>,
}

impl Entries {
    /// The newest.
    pub fn head(&self) -> Head {
        self.all.last().map_or_else(Head::default, |(entry, hash)| Head { seq: entry.seq, hash: hash.clone() })
    }

    /// Whether a head that was noted earlier, in a report, say, is part of this ledger. Where it is not, what was written then has
    /// been cut off or written anew.
    pub fn continues(&self, noted: &Head) -> bool {
        noted.seq == 0 || self.all.iter().any(|(entry, hash)| entry.seq == noted.seq && *hash == noted.hash)
    }

    /// What stands of all that people said.
    pub fn standing(&self) -> Standing {
        let mut standing = Standing::default();
        for (entry, _) in &self.all {
            match &entry.record {
                Record::Attested(attestation) => standing.attest(attestation.clone()),
                Record::Waived(waiver) => standing.waive(waiver.clone()),
                Record::Withdrawn { item, .. } => standing.withdraw(item),
                _ => {}
            }
        }
        standing
    }

    /// The audits, oldest first.
    pub fn audits(&self) -> impl DoubleEndedIterator<Item = &Audit> {
        self.all.iter().filter_map(|(entry, _)| match &entry.record {
            Record::Audit { audit } => Some(audit.as_ref()),
            _ => None,
        })
    }

    /// The lines from `from` (inclusive) to `to` (exclusive), as they were written, for an auditor, who can check them with
    /// [`check_export`] or with `sha256sum`.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where an entry cannot be written as JSON.
    pub fn export(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<String> {
        let within = self.all.iter().filter(|(entry, _)| from <= entry.at && entry.at < to);
        within
            .map(|(entry, hash)| match self.verbatim.get(&entry.seq) {
                Some(json) => Ok(format!("{hash} {json}\n")),
                None => line(entry),
            })
            .collect()
    }

    /// Adds a line that was found to be whole.
    fn push(&mut self, entry: Entry, hash: String, json: &str) -> Result<()> {
        if self::json(&entry)? != json {
            self.verbatim.insert(entry.seq, json.to_owned());
        }
        self.all.push((entry, hash));
        Ok(())
    }
}

/// Checks lines that were exported: whether they are as they were written, and follow one another without a gap. Returns how many.
///
/// # Errors
/// [`ErrorKind::Malformed`] naming the line.
pub fn check_export(text: &str) -> Result<usize> {
    let mut before: Option<Head> = None;
    for (at, text) in text.lines().enumerate() {
        let (entry, hash, _) = parse(text, at as u64 + 1)?;
        if before.as_ref().is_some_and(|b| b.seq + 1 != entry.seq || b.hash != entry.previous) {
            return Err(broken(entry.seq, "does not follow the line before it"));
        }
        before = Some(Head { seq: entry.seq, hash });
    }
    Ok(text.lines().count())
}

/// A ledger in memory, for tests and for a look that leaves nothing.
#[derive(Debug, Default)]
pub struct MemoryLedger(Mutex<Entries>);

#[async_trait]
impl Ledger for MemoryLedger {
    async fn append(&self, at: DateTime<Utc>, record: Record) -> Result<Head> {
        let mut entries = self.0.lock().await;
        let head = entries.head();
        let entry = Entry { seq: head.seq + 1, at, previous: head.hash, record };
        let hash = hash_of(&json(&entry)?);
        entries.all.push((entry, hash));
        Ok(entries.head())
    }

    async fn entries(&self) -> Result<Entries> {
        Ok(self.0.lock().await.clone())
    }
}

fn json(entry: &Entry) -> Result<String> {
    serde_json::to_string(entry).map_err(|e| {
        Error::new(ErrorKind::Malformed, format!("entry {}: cannot be written as JSON", entry.seq)).with_source(e)
    })
}

fn hash_of(json: &str) -> String {
    hex::encode(Sha256::digest(json.as_bytes()))
}

/// A line, with its end.
fn line(entry: &Entry) -> Result<String> {
    let json = json(entry)?;
    Ok(format!("{} {json}\n", hash_of(&json)))
}

/// Reads a line; `number` is where it stands.
fn parse(line: &str, number: u64) -> Result<(Entry, String, &str)> {
    let (hash, json) = line.split_once(' ').ok_or_else(|| broken(number, "is no entry"))?;
    if hash_of(json) != hash {
        return Err(broken(number, "is not what was written"));
    }
    let entry = serde_json::from_str(json).map_err(|e| broken(number, "cannot be understood").with_source(e))?;
    Ok((entry, hash.to_owned(), json))
}

fn broken(number: u64, what: &str) -> Error {
    Error::new(ErrorKind::Malformed, format!("the ledger of evidence: entry {number} {what}"))
        .with_next_step("find out who changed it, and go on from a copy that is whole")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_wrote_is_exported_as_it_was_written() {
        let at = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
        let record = Record::Rotated { secret: "SMTP".into(), by: "Ada".into() };
        let entry = Entry { seq: 1, at, previous: Head::default().hash, record };
        let newer = json(&entry).unwrap().replacen('{', "{\"reason\":\"a field of a later version\",", 1);
        let line = format!("{} {newer}", hash_of(&newer));
        let mut entries = Entries::default();
        let (entry, hash, json) = parse(&line, 1).unwrap();
        entries.push(entry, hash, json).unwrap();
        let export = entries.export(at, at + chrono::TimeDelta::days(1)).unwrap();
        assert_eq!(export, format!("{line}\n"));
        assert_eq!(check_export(&export).unwrap(), 1);
    }
}
