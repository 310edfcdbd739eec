//! A repository in an object store: its configuration, its keys, its log.
//!
//! ```text
//! repository.json, repository.sig   what this is, signed by the admin
//! RESTORE.md                        how to get everything back without this crate
//! objects/ab/abcd…                  chunks and indexes: zstd, then age, named by the SHA-256 of these bytes
//! log/0000000001                    signed records in one chain: snapshots, evidence, removals
//! locks/…                           leases
//! ```
//!
//! Everything is written create-only; nothing is ever overwritten. A snapshot exists once its record is in the log, and
//! the record is written last.

mod catalog;
#[cfg(feature = "s3")]
mod https;
pub(crate) mod layout;
mod lease;
pub(crate) mod record;
mod store;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

pub use self::catalog::{Catalog, Contradiction, Evidence};
pub(crate) use self::catalog::{RECORD_LEVEL, tombstone};
pub use self::layout::LeaseMode;
pub use self::lease::Lease;
pub(crate) use self::lease::SKEW;
pub use self::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Keys, Recipient, Trust, random};
use crate::manifest::{Digest, FORMAT};
use crate::pipeline::seal::Cipher;

/// What tells the time. Decisions take it as an argument; leases and records ask it.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// The content of `repository.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Configuration {
    caretaker: String,
    format: u32,
    id: String,
    created: DateTime<Utc>,
    encryption: String,
    recipients: Vec<String>,
    writers: Vec<String>,
    admins: Vec<String>,
    instructions: Digest,
}

/// A repository, open. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    keys: Keys,
    id: String,
    encrypted: bool,
    instructions: Digest,
    clock: Clock,
}

impl Repository {
    /// Makes a new encrypted repository in an empty store. The data will be encrypted to the owner in `keys` and to
    /// `extra` recipients. What has to be pinned is added to `keys`, and written as `trust.json` where they are files.
    ///
    /// # Errors
    /// [`ErrorKind::KeyMissing`] without the recipient, the writer's or the admin's key; [`ErrorKind::Config`] where
    /// the store already holds a repository.
    pub async fn init(store: Store, keys: &mut Keys, extra: &[Recipient]) -> Result<Self> {
        if let Some(trust) = keys.trust() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("these keys already belong to repository {}: their trust.json pins it", trust.repository),
            )
            .with_next_step("make other keys for another repository: backup keygen --out OTHER-KEYS"));
        }
        let trust = Trust::new(hex::encode(random::<16>()?), keys, extra)?;
        let admin = keys.admin()?.clone();
        let instructions = crate::instructions::text(&trust);
        let configuration = Configuration::new(&trust, &instructions);
        let json = configuration.to_json()?;
        let signature = admin.signing.sign(&json);
        // Pinned first: an encrypted repository that nobody can open is worse than a pin without a repository.
        keys.pin(trust)?;
        if let Err(e) = Self::write_configuration(&store, json, Some(&signature), instructions).await {
            keys.unpin()?;
            return Err(e);
        }
        Self::open(store, keys.clone()).await
    }

    /// Makes a new repository without encryption and signatures, for data that is public or a store that encrypts.
    /// Whoever can read the store can read it; whoever can write can change it unseen.
    pub async fn init_unencrypted(store: Store) -> Result<Self> {
        let trust = Trust::unencrypted(hex::encode(random::<16>()?));
        let instructions = crate::instructions::text(&trust);
        let json = Configuration::new(&trust, &instructions).to_json()?;
        Self::write_configuration(&store, json, None, instructions).await?;
        Self::open(store, Keys::none()).await
    }

    /// Opens the repository in `store` and checks that it is the one that `keys` pin.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none, [`ErrorKind::KeyMissing`] where it is encrypted and there is no
    /// `trust.json`, [`ErrorKind::Untrusted`] where it is another one or not signed by the pinned admin.
    pub async fn open(store: Store, keys: Keys) -> Result<Self> {
        let path = Path::from(layout::CONFIGURATION);
        let Some(json) = store.read_optional(&path).await? else {
            // A bucket that does not exist answers a read as one without the object does; only a list tells.
            store.list("").next().await.transpose()?;
            return Err(Error::new(ErrorKind::NotFound, format!("there is no repository in {store}"))
                .with_next_step("check the URL; `backup init` makes a new repository"));
        };
        let signature = store.read_optional(&Path::from(layout::CONFIGURATION_SIGNATURE)).await?;
        let configuration = Configuration::check(&json, signature.as_deref(), &keys, &store)?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                keys,
                encrypted: configuration.encryption == ENCRYPTION_AGE,
                id: configuration.id,
                instructions: configuration.instructions,
                clock: Arc::new(Utc::now),
            }),
        })
    }

    /// The same repository with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        let Inner { store, keys, id, encrypted, instructions, .. } = &*self.inner;
        Self {
            inner: Arc::new(Inner {
                store: store.clone(),
                keys: keys.clone(),
                id: id.clone(),
                encrypted: *encrypted,
                instructions: *instructions,
                clock,
            }),
        }
    }

    /// Its random id, in hexadecimal.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Where it is.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Whether its data is encrypted and its records signed.
    pub fn is_encrypted(&self) -> bool {
        self.inner.encrypted
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    pub(crate) fn trust(&self) -> Option<&Trust> {
        self.inner.keys.trust()
    }

    /// Whom data is encrypted to; nobody in an unencrypted repository.
    pub(crate) fn recipient_names(&self) -> Vec<String> {
        self.trust().map_or_else(Vec::new, |t| t.recipients.clone())
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.inner.clock)()
    }

    pub(crate) fn instructions(&self) -> &Digest {
        &self.inner.instructions
    }

    /// For whom data is encrypted.
    pub(crate) fn data_cipher(&self) -> Result<Cipher> {
        self.cipher(Trust::data_recipients)
    }

    /// For whom records and indexes are encrypted.
    pub(crate) fn metadata_cipher(&self) -> Result<Cipher> {
        self.cipher(Trust::metadata_recipients)
    }

    /// The identities at hand that may open records and indexes.
    pub(crate) fn metadata_identities(&self) -> Vec<&age::x25519::Identity> {
        let keys = &self.inner.keys;
        let writer = keys.writer().ok().map(|w| &w.identity);
        writer.into_iter().chain(keys.owner().ok().map(|o| o.age())).collect()
    }

    /// The identities that open data: the owner's. An error that names the missing key.
    pub(crate) fn data_identities(&self) -> Result<Vec<age::x25519::Identity>> {
        if !self.is_encrypted() {
            return Ok(Vec::new());
        }
        Ok(vec![self.inner.keys.owner()?.age().clone()])
    }

    /// The key of the chunk ids that this writer makes.
    pub(crate) fn id_key(&self) -> Result<Digest> {
        if self.is_encrypted() {
            return Ok(self.inner.keys.writer()?.id_key);
        }
        // Nothing is secret here; the key only has to be the same for every writer.
        Ok(Digest(*blake3::hash(self.inner.id.as_bytes()).as_bytes()))
    }

    fn cipher(&self, recipients: impl Fn(&Trust) -> Result<Vec<Recipient>>) -> Result<Cipher> {
        if !self.is_encrypted() {
            return Ok(Cipher::Plain);
        }
        let trust = self.trust().ok_or_else(|| no_trust(&self.inner.store))?;
        Ok(Cipher::Age(recipients(trust)?))
    }

    async fn write_configuration(
        store: &Store,
        json: Vec<u8>,
        signature: Option<&[u8]>,
        instructions: String,
    ) -> Result<()> {
        let taken = || {
            Error::new(ErrorKind::Config, format!("{store} already holds a repository"))
                .with_next_step("choose another folder, bucket or prefix, or use the repository that is there")
        };
        if store.read_optional(&Path::from(layout::CONFIGURATION)).await?.is_some() {
            return Err(taken());
        }
        // The configuration last: a repository exists when it does.
        if !store.create(&Path::from(layout::INSTRUCTIONS), Bytes::from(instructions)).await? {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{store} holds a {} but no repository: an `init` was interrupted there", layout::INSTRUCTIONS),
            )
            .with_next_step("remove RESTORE.md and repository.sig there, or choose another place"));
        }
        if let Some(signature) = signature {
            let path = Path::from(layout::CONFIGURATION_SIGNATURE);
            if !store.create(&path, Bytes::copy_from_slice(signature)).await? {
                return Err(taken());
            }
        }
        if !store.create(&Path::from(layout::CONFIGURATION), Bytes::from(json)).await? {
            return Err(taken());
        }
        Ok(())
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({} in {})", self.inner.id, self.inner.store)
    }
}

const CARETAKER_REPOSITORY: &str = "repository";
const ENCRYPTION_AGE: &str = "age";
const ENCRYPTION_NONE: &str = "none";

impl Configuration {
    fn new(trust: &Trust, instructions: &str) -> Self {
        Self {
            caretaker: CARETAKER_REPOSITORY.into(),
            format: FORMAT,
            id: trust.repository.clone(),
            created: Utc::now(),
            encryption: if trust.encrypted { ENCRYPTION_AGE } else { ENCRYPTION_NONE }.into(),
            recipients: trust.recipients.clone(),
            writers: trust.writers.iter().map(|w| w.verify_key.to_string()).collect(),
            admins: trust.admins.iter().map(|a| a.verify_key.to_string()).collect(),
            instructions: Digest::sha256(instructions.as_bytes()),
        }
    }

    fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Error::new(ErrorKind::Internal, "repository.json could not be written").with_source(e))
    }

    fn check(json: &[u8], signature: Option<&[u8]>, keys: &Keys, store: &Store) -> Result<Self> {
        let trust = keys.trust();
        let untrusted = |why: String| {
            Error::new(
                ErrorKind::Untrusted,
                format!("the repository in {store} is not the one that trust.json pins: {why}"),
            )
            .with_next_step(
                "do not write to it or restore from it before you know who replaced it; another copy may be intact",
            )
        };
        let parsed: std::result::Result<Self, _> = serde_json::from_slice(json);
        // Signed first, so that a changed byte anywhere is damage or forgery and nothing else.
        if let Some(trust) = trust.filter(|t| t.encrypted) {
            let signature =
                signature.ok_or_else(|| untrusted(format!("{} is missing", layout::CONFIGURATION_SIGNATURE)))?;
            if !trust.admins.iter().any(|a| a.verify_key.verifies(json, signature)) {
                let of_another = parsed.as_ref().is_ok_and(|c| c.id != trust.repository);
                return Err(untrusted(if of_another {
                    "it has another id".into()
                } else {
                    format!("{} is not signed by its admin, or was changed", layout::CONFIGURATION)
                }));
            }
        }
        let configuration = parsed.map_err(|e| {
            Error::new(ErrorKind::Damaged, format!("{} in {store} is damaged: {e}", layout::CONFIGURATION))
                .with_source(e)
        })?;
        if configuration.format != FORMAT || configuration.caretaker != CARETAKER_REPOSITORY {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{store} holds a {} of format {}, this program reads format {FORMAT}",
                    configuration.caretaker, configuration.format
                ),
            )
            .with_next_step("use a newer version of this program"));
        }
        let encrypted = match configuration.encryption.as_str() {
            ENCRYPTION_AGE => true,
            ENCRYPTION_NONE => false,
            other => {
                return Err(Error::new(ErrorKind::Config, format!("{store}: encryption {other:?} is not known"))
                    .with_next_step("use a newer version of this program"));
            }
        };
        match trust {
            Some(trust) if trust.encrypted && !encrypted => return Err(untrusted("it is not encrypted".into())),
            Some(trust) if trust.repository != configuration.id => return Err(untrusted("it has another id".into())),
            Some(trust) if !trust.encrypted && encrypted => return Err(untrusted("it is encrypted".into())),
            None if encrypted => return Err(no_trust(store)),
            // Whoever brings keys expects encryption: the store's word that there is none is not enough.
            None if keys.is_some() => {
                return Err(Error::new(
                    ErrorKind::KeyMissing,
                    format!("the repository in {store} says that it is not encrypted, and there is no trust.json to check that against"),
                )
                .with_next_step("put trust.json beside the keys; a repository that was made without encryption takes no --keys"));
            }
            _ => {}
        }
        Ok(configuration)
    }
}

fn no_trust(store: &Store) -> Error {
    Error::new(ErrorKind::KeyMissing, format!("the repository in {store} is encrypted, and there is no trust.json to check it against"))
        .with_next_step("name the directory of its keys with --keys; trust.json was written there by `init` and belongs beside every copy of the keys")
}

/// The name of this machine, for messages and records.
pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "unknown host".into())
}
