//! What a client pins: which repository, signed by whom, encrypted to whom.

use serde::{Deserialize, Serialize};

use super::{Keys, Recipient, VerifyKey};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::FORMAT;

/// A writer whose snapshots count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedWriter {
    /// The public half of the key that signs its snapshots.
    pub verify_key: VerifyKey,
    /// The same in the form that `openssl` reads.
    pub pem: String,
    /// What records and indexes are encrypted to, so that this writer can read them.
    pub recipient: String,
}

/// The content of `trust.json`: pinned when the repository is made, kept beside the keys, never read from the store.
///
/// A store that was emptied and filled again, or whose every object was signed anew by somebody else, does not match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The version of the repository format.
    pub format: u32,
    /// The repository's random id, in hexadecimal.
    pub repository: String,
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
            encrypted: true,
            recipients,
            writers: vec![TrustedWriter {
                verify_key: writer.verify_key(),
                pem: writer.verify_key().to_pem()?,
                recipient: writer.recipient().to_string(),
            }],
            admins: vec![TrustedAdmin { verify_key: admin.verify_key(), pem: admin.verify_key().to_pem()? }],
        })
    }

    /// Trust in a repository without encryption and signatures: its id is all there is to pin.
    pub(crate) fn unencrypted(repository: String) -> Self {
        Self { format: FORMAT, repository, encrypted: false, recipients: vec![], writers: vec![], admins: vec![] }
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

    /// Who reads records and indexes: the owners, and every writer.
    pub(crate) fn metadata_recipients(&self) -> Result<Vec<Recipient>> {
        let mut all = self.data_recipients()?;
        for writer in &self.writers {
            all.push(writer.recipient.parse()?);
        }
        Ok(all)
    }

    /// Whether snapshots signed with `key` count.
    pub(crate) fn is_writer(&self, key: &VerifyKey) -> bool {
        self.writers.iter().any(|w| w.verify_key == *key)
    }

    /// Whether configuration and removals signed with `key` count.
    pub(crate) fn is_admin(&self, key: &VerifyKey) -> bool {
        self.admins.iter().any(|a| a.verify_key == *key)
    }
}
