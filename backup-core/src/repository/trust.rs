//! Changing who may write and read: a new generation of the keys, signed by the admin.
//!
//! ```text
//! trust/0000000001-abcd…     the text of trust.json in its first new generation, and 64 bytes of Ed25519 over it
//! ```
//!
//! A client that has pinned one generation takes over each later one that an admin of the one before has signed, and notes
//! it in its `trust.json`. So a new recipient or writer has to be told to one repository, not to every host.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::layout;
use super::log::names_below;
use super::store::Store;
use super::{Catalog, Repository};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Keys, Recipient, Revoked, SIGNATURE_LENGTH, Trust, TrustedWriter, VerifyKey};
use crate::manifest::{Digest, RecordName, SnapshotId};

/// What is to change about who may write and read.
///
/// What was written before stays as it is: a recipient that is added reads what is written from then on, one that is
/// removed can read what there was until then. Data for other recipients is a new epoch: nothing of the old one is referred
/// to, so the next snapshot stores everything anew.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Rotation {
    add_recipients: Vec<Recipient>,
    remove_recipients: Vec<String>,
    add_writers: Vec<TrustedWriter>,
    revoke_writers: Vec<(VerifyKey, Option<SnapshotId>)>,
}

impl Rotation {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// And one more who reads the data.
    #[must_use]
    pub fn add_recipient(mut self, recipient: Recipient) -> Self {
        self.add_recipients.push(recipient);
        self
    }

    /// And one less.
    #[must_use]
    pub fn remove_recipient(mut self, recipient: &Recipient) -> Self {
        self.remove_recipients.push(recipient.to_string());
        self
    }

    /// And one more host that backs up.
    #[must_use]
    pub fn add_writer(mut self, writer: TrustedWriter) -> Self {
        self.add_writers.push(writer);
        self
    }

    /// And one less, whose key is lost: what it has signed until now counts, and nothing from then on.
    #[must_use]
    pub fn retire_writer(mut self, writer: VerifyKey) -> Self {
        self.revoke_writers.push((writer, None));
        self
    }

    /// And one less, whose key was stolen: of what it has signed only that counts which `last_good` builds on, and that one
    /// itself.
    #[must_use]
    pub fn revoke_writer(mut self, writer: VerifyKey, last_good: SnapshotId) -> Self {
        self.revoke_writers.push((writer, Some(last_good)));
        self
    }

    /// The trust that follows.
    fn apply(&self, trust: &Trust, catalog: &Catalog) -> Result<Trust> {
        let config = |message: String| Err(Error::new(ErrorKind::Config, message));
        let mut next = Trust { generation: trust.generation + 1, ..trust.clone() };
        for recipient in &self.remove_recipients {
            let before = next.recipients.len();
            next.recipients.retain(|r| r != recipient);
            if next.recipients.len() == before {
                return config(format!("{recipient} is none of the recipients"));
            }
        }
        for recipient in self.add_recipients.iter().map(ToString::to_string) {
            if !next.recipients.contains(&recipient) {
                next.recipients.push(recipient);
            }
        }
        if next.recipients.is_empty() {
            return config("without any recipient nobody could read what is written".into());
        }
        for (key, last_good) in &self.revoke_writers {
            let accepted = catalog.signed_by(key, last_good.as_ref())?;
            let Some(writer) = next.writers.iter_mut().find(|w| w.verify_key == *key) else {
                return config(format!("{key} is none of the writers"));
            };
            let accepted: BTreeSet<RecordName> = match &writer.revoked {
                Some(before) => accepted.intersection(&before.accepted).copied().collect(),
                None => accepted,
            };
            writer.revoked = Some(Revoked { accepted });
        }
        for writer in &self.add_writers {
            match next.writers.iter().find(|w| w.verify_key == writer.verify_key) {
                // A key that was out of use may be in the wrong hands.
                Some(known) if known.revoked.is_some() => {
                    return config(format!("{} was taken out of use: make another writer.key", writer.verify_key));
                }
                Some(_) => {}
                None => next.writers.push(writer.clone()),
            }
        }
        if (Trust { generation: trust.generation, ..next.clone() }) == *trust {
            return config("nothing would change".into());
        }
        Ok(next)
    }
}

impl Repository {
    /// Changes who may write and read, signs that with the admin's key, and puts it into every store. What has to be pinned
    /// from then on is in the keys of the repository that is returned, and in `trust.json` where they are files.
    ///
    /// # Errors
    /// [`ErrorKind::KeyMissing`] without the admin's key; [`ErrorKind::Config`] where the change makes no sense, or the
    /// repository is not encrypted; [`ErrorKind::Damaged`] where a writer is to be taken out of use and the log is not whole.
    pub async fn rotate(&self, rotation: &Rotation) -> Result<Self> {
        let Some(trust) = self.trust().filter(|t| t.encrypted) else {
            return Err(Error::new(ErrorKind::Config, "a repository without encryption has no keys to change"));
        };
        let admin = self.keys().admin()?.clone();
        if !trust.is_admin(&admin.verify_key()) {
            return Err(Error::new(ErrorKind::KeyWrong, "this admin.key is not one that trust.json names")
                .with_next_step("use the admin.key that this repository was made with"));
        }
        let catalog = self.catalog_from_stores().await?;
        let revokes = !rotation.revoke_writers.is_empty();
        if let Some(store) = catalog.stores.iter().find(|s| revokes && !s.is_level()) {
            let why = store.unreachable.clone().unwrap_or_else(|| "it lacks records that other stores have".into());
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("what still counts is not known while {} is not level with the others: {why}", store.store),
            )
            .with_next_step("bring it up to date with `backup sync`, or leave it out if it is gone for good"));
        }
        // Up to a snapshot that is known to be good it is enough that this one's history is whole: whoever stole a key may
        // have left holes elsewhere, to keep it.
        if rotation.revoke_writers.iter().any(|(_, last_good)| last_good.is_none()) && !catalog.is_sound() {
            return Err(Error::new(ErrorKind::Damaged, "the log is not whole: what still counts is not known")
                .with_next_step("run `backup verify`, and repair the store from another copy first"));
        }
        let next = rotation.apply(trust, &catalog)?;
        let mut bytes = serde_json::to_vec_pretty(&next)
            .map_err(|e| Error::new(ErrorKind::Internal, "trust.json could not be written").with_source(e))?;
        let signature = admin.signing.sign(&bytes);
        bytes.extend_from_slice(&signature);
        let bytes = Bytes::from(bytes);
        let name = RecordName::new(next.generation.into(), Digest::sha256(&bytes));
        let mut failed = Vec::new();
        for store in self.stores() {
            match store.create(&layout::trust(&name), bytes.clone()).await {
                Ok(_) => {}
                Err(e) if e.is_about_the_store() => failed.push(e),
                Err(e) => return Err(e),
            }
        }
        if failed.len() == self.stores().len() {
            return Err(failed.swap_remove(0));
        }
        for e in failed {
            tracing::warn!(error = %e, "the change of keys could not be put there: `backup sync` brings it");
        }
        let mut keys = self.keys().clone();
        keys.follow(next)?;
        Ok(self.clone().with_keys(keys))
    }

    /// The keys that a change was made to in one of these stores, in their newest generation.
    pub(super) async fn newest_keys(stores: &[Store], mut keys: Keys) -> Result<Keys> {
        let Some(mut trust) = keys.trust().filter(|t| t.encrypted).cloned() else { return Ok(keys) };
        let mut changes: BTreeMap<u64, BTreeMap<RecordName, Bytes>> = BTreeMap::new();
        for store in stores {
            let names = match trust_names(store).await {
                Ok(names) => names,
                Err(e) if stores.len() > 1 && e.is_about_the_store() => {
                    tracing::warn!(%store, error = %e, "changes of keys could not be looked for there");
                    continue;
                }
                Err(e) => return Err(e),
            };
            for name in names {
                if name.sequence > u64::from(trust.generation)
                    && let Some(bytes) = store.read_optional(&layout::trust(&name)).await?
                {
                    // What is damaged in one store may be whole in another.
                    if Digest::sha256(&bytes) == name.digest {
                        changes.entry(name.sequence).or_default().insert(name, bytes);
                    }
                }
            }
        }
        let pinned = trust.generation;
        while let Some(found) = changes.get(&(u64::from(trust.generation) + 1)) {
            let mut signed = found.iter().filter_map(|(name, bytes)| follows(&trust, bytes).map(|next| (name, next)));
            let Some((_, next)) = signed.next() else { break };
            if let Some((other, _)) = signed.next() {
                return Err(Error::new(
                    ErrorKind::Untrusted,
                    format!("the admin has signed two different changes of the keys, of which one is {other}"),
                )
                .with_next_step("find out which of them is right; if you know of one only, the admin.key was stolen"));
            }
            trust = next;
        }
        if trust.generation > pinned {
            tracing::info!(generation = trust.generation, "the keys were changed by the admin");
            // It is in the store as well: where it cannot be noted it is read again the next time.
            if let Err(e) = keys.follow(trust.clone()) {
                tracing::warn!(error = %e, "the change of keys could not be noted in trust.json");
                keys = keys.with_trust(trust);
            }
        }
        Ok(keys)
    }
}

/// The changes of keys in one store.
pub(crate) async fn trust_names(store: &Store) -> Result<BTreeSet<RecordName>> {
    names_below(store, layout::TRUST).await
}

/// Whether one of the admins has signed these bytes as a change of the keys.
pub(crate) fn is_signed(trust: &Trust, bytes: &[u8]) -> bool {
    let at = bytes.len().saturating_sub(SIGNATURE_LENGTH);
    trust.admins.iter().any(|a| a.verify_key.verifies(&bytes[..at], &bytes[at..]))
}

/// What these bytes say, if they are the next generation of `trust` and one of its admins has signed them.
fn follows(trust: &Trust, bytes: &[u8]) -> Option<Trust> {
    if !is_signed(trust, bytes) {
        return None;
    }
    let text = &bytes[..bytes.len().checked_sub(SIGNATURE_LENGTH)?];
    let next: Trust = serde_json::from_slice(text).ok()?;
    let fits = next.repository == trust.repository && next.encrypted && next.generation == trust.generation + 1;
    fits.then_some(next)
}
