//! What a client pins: which repository, signed by whom, encrypted to whom.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Keys, Recipient, VerifyKey, WriterKey};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{FORMAT, RecordName};

/// A writer whose snapshots count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedWriter {
    /// The public half of the key that signs its snapshots.
    pub verify_key: VerifyKey,
    /// The same in the form that `openssl` reads.
    pub pem: String,
    /// What records and indexes are encrypted to, so that this writer can read them.
    pub recipient: String,
    /// Where the key was lost or stolen: nothing it signs counts any more, but for what is named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revoked>,
}

/// What a writer's key that was taken out of use has signed before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The records that still count.
    pub accepted: BTreeSet<RecordName>,
}

impl TrustedWriter {
    /// What others have to know of this writer.
    pub fn of(key: &WriterKey) -> Result<Self> {
        Ok(Self {
            verify_key: key.verify_key(),
            pem: key.verify_key().to_pem()?,
            recipient: key.recipient().to_string(),
            revoked: None,
        })
    }
}

/// The content of `trust.json`: pinned when the repository is made, kept beside the keys, never read from the store.
///
/// A store that was emptied and filled again, or whose every object was signed anew by somebody else, does not match. Keys
/// that are [changed](crate::Rotation) later are read from the store: the admin that is pinned here has signed that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The version of the repository format.
    pub format: u32,
    /// The repository's random id, in hexadecimal.
    pub repository: String,
    /// How often the keys were changed since it was made.
    #[serde(default)]
    pub generation: u32,
    /// Whether data is encrypted. If it is, nothing is ever written or accepted in the clear.
    pub encrypted: bool,
    /// The age recipients that data is encrypted to.
    pub recipients: Vec<String>,
    /// Whose snapshots count.
    pub writers: Vec<TrustedWriter>,
    /// Whose configuration and removals count.
    pub admins: Vec<TrustedAdmin>,
}

/// An admin whose configuration and removals count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedAdmin {
    /// The public half of the admin's signing key.
    pub verify_key: VerifyKey,
    /// The same in the form that `openssl` reads.
    pub pem: String,
}

impl Trust {
    /// Trust in a new repository with these keys, and these recipients beside the owner's own.
    pub(crate) fn new(repository: String, keys: &Keys, extra: &[Recipient]) -> Result<Self> {
        let writer = keys.writer()?;
        let admin = keys.admin()?;
        let mut recipients = vec![keys.recipient()?.to_string()];
        for recipient in extra.iter().map(Recipient::to_string) {
            if !recipients.contains(&recipient) {
                recipients.push(recipient);
            }
        }
        Ok(Self {
            format: FORMAT,
            repository,
            generation: 0,
            encrypted: true,
            recipients,
            writers: vec![TrustedWriter::of(writer)?],
            admins: vec![TrustedAdmin { verify_key: admin.verify_key(), pem: admin.verify_key().to_pem()? }],
        })
    }

    /// Trust in a repository without encryption and signatures: its id is all there is to pin.
    pub(crate) fn unencrypted(repository: String) -> Self {
        Self {
            format: FORMAT,
            repository,
            generation: 0,
            encrypted: false,
            recipients: vec![],
            writers: vec![],
            admins: vec![],
        }
    }

    /// Whose data, parsed.
    pub(crate) fn data_recipients(&self) -> Result<Vec<Recipient>> {
        if self.encrypted && self.recipients.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "trust.json asks for encryption but names no recipient: nothing will be written",
            )
            .with_next_step("restore trust.json from where `init` wrote it"));
        }
        self.recipients.iter().map(|r| r.parse()).collect()
    }

    /// Who reads records and indexes: the owners, and every writer whose key is in use.
    pub(crate) fn metadata_recipients(&self) -> Result<Vec<Recipient>> {
        let mut all = self.data_recipients()?;
        for writer in self.writers.iter().filter(|w| w.revoked.is_none()) {
            all.push(writer.recipient.parse()?);
        }
        Ok(all)
    }

    /// Whether what is signed with `key` from now on counts.
    pub(crate) fn is_writer(&self, key: &VerifyKey) -> bool {
        self.writers.iter().any(|w| w.verify_key == *key && w.revoked.is_none())
    }

    /// Whether `key` was ever a writer's.
    pub(crate) fn knows_writer(&self, key: &VerifyKey) -> bool {
        self.writers.iter().any(|w| w.verify_key == *key)
    }

    /// Whether this record, signed with a writer's `key`, does not count because the key was taken out of use.
    pub(crate) fn rejects(&self, key: &VerifyKey, record: &RecordName) -> bool {
        let revoked = self.writers.iter().filter(|w| w.verify_key == *key).find_map(|w| w.revoked.as_ref());
        revoked.is_some_and(|revoked| !revoked.accepted.contains(record))
    }

    /// Whether configuration and removals signed with `key` count.
    pub(crate) fn is_admin(&self, key: &VerifyKey) -> bool {
        self.admins.iter().any(|a| a.verify_key == *key)
    }
}
