//! A repository in an object store: its configuration, its keys, its log.
//!
//! ```text
//! repository.json, repository.sig   what this is, signed by the admin
//! RESTORE.md                        how to get everything back without this crate
//! objects/ab/abcd…                  chunks and indexes: zstd, then age, named by the SHA-256 of these bytes
//! log/0000000001-abcd…              signed records, each naming the ones before it: snapshots, evidence, removals
//! trust/…                           changes of who may write and read
//! locks/…                           leases
//! ```
//!
//! Everything is written create-only; nothing is ever overwritten. A snapshot exists once its record is in the log, and
//! the record is written last.

mod bucket;
mod cache;
mod catalog;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod https;
pub(crate) mod layout;
mod lease;
mod log;
mod pace;
pub(crate) mod record;
mod spool;
mod store;
pub(crate) mod trust;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

pub use self::catalog::{Catalog, Contradiction, Evidence, StoreLog};
pub use self::layout::LeaseMode;
pub use self::lease::Lease;
pub(crate) use self::lease::SKEW;
pub(crate) use self::log::{RECORD_LEVEL, Signed, names_in};
pub(crate) use self::spool::{Arrived, Spool};
pub use self::store::Store;
pub use self::trust::Rotation;
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
    /// At least one.
    stores: Vec<Store>,
    /// Those that were named and cannot be used, and why.
    unreachable: Vec<(String, Arc<Error>)>,
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
        let configuration = Configuration::read(&store, &keys).await?;
        let keys = Self::newest_keys(std::slice::from_ref(&store), keys).await?;
        Ok(Self::of(vec![store], Vec::new(), keys, configuration))
    }

    /// Opens one repository in several stores, as a backup to [all of them](Self::backup) leaves it. What is read comes from
    /// whichever has it intact. A store that cannot be used now, or has lost its repository, is [named](Self::unreachable)
    /// and gone without.
    ///
    /// # Errors
    /// As [`open`](Self::open), where no store can be used; [`ErrorKind::Config`] where they hold different repositories
    /// or the same one is named twice.
    pub async fn open_all(stores: Vec<Store>, keys: Keys) -> Result<Self> {
        let mut usable: Vec<Store> = Vec::new();
        let mut unreachable = Vec::new();
        let mut configuration: Option<Configuration> = None;
        let mut first_error = None;
        for store in stores {
            let name = store.to_string();
            if usable.iter().any(|s| s.to_string() == name) && name != "memory:" {
                return Err(Error::new(ErrorKind::Config, format!("the store {name} is named twice"))
                    .with_next_step("a copy in the same place is no copy: name another store"));
            }
            match Configuration::read(&store, &keys).await {
                Ok(found) => {
                    if let Some(other) = configuration.as_ref().filter(|c| c.id != found.id) {
                        return Err(Error::new(
                            ErrorKind::Config,
                            format!("{name} holds repository {}, the other stores hold {}", found.id, other.id),
                        )
                        .with_next_step("name the stores of one repository"));
                    }
                    configuration.get_or_insert(found);
                    usable.push(store);
                }
                // An empty folder where a repository should be may be a disk that is not mounted: nothing is written to it.
                Err(e)
                    if e.is_about_the_store()
                        || matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Untrusted | ErrorKind::Damaged) =>
                {
                    let e = Arc::new(e);
                    first_error.get_or_insert(Arc::clone(&e));
                    unreachable.push((name, e));
                }
                Err(e) => return Err(e),
            }
        }
        match (configuration, first_error) {
            (Some(configuration), _) => {
                let keys = Self::newest_keys(&usable, keys).await?;
                Ok(Self::of(usable, unreachable, keys, configuration))
            }
            (None, Some(e)) => {
                let error = Error::new(e.kind(), e.to_string());
                let error = match e.next_step() {
                    Some(next) => error.with_next_step(next),
                    None => error,
                };
                drop(unreachable);
                Err(error.with_source(e))
            }
            (None, None) => {
                Err(Error::new(ErrorKind::Config, "no store was named").with_next_step("name one with --store URL"))
            }
        }
    }

    /// The same, and one more store that was named and cannot be used.
    #[must_use]
    pub fn going_without(self, store: impl Into<String>, error: Error) -> Self {
        self.with(|inner| inner.unreachable.push((store.into(), Arc::new(error))))
    }

    fn of(
        stores: Vec<Store>,
        unreachable: Vec<(String, Arc<Error>)>,
        keys: Keys,
        configuration: Configuration,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                stores,
                unreachable,
                keys,
                encrypted: configuration.encryption == ENCRYPTION_AGE,
                id: configuration.id,
                instructions: configuration.instructions,
                clock: Arc::new(Utc::now),
            }),
        }
    }

    /// The same repository with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        self.with(|inner| inner.clock = clock)
    }

    pub(crate) fn with_keys(self, keys: Keys) -> Self {
        self.with(|inner| inner.keys = keys)
    }

    /// The same repository as one store holds it.
    #[must_use]
    pub fn in_store(self, store: Store) -> Self {
        self.in_stores(vec![store], Vec::new())
    }

    /// The same repository as some stores hold it, going without others.
    pub(crate) fn in_stores(self, stores: Vec<Store>, without: Vec<(String, Arc<Error>)>) -> Self {
        self.with(|inner| {
            inner.stores = stores;
            inner.unreachable = without;
        })
    }

    fn with(self, change: impl FnOnce(&mut Inner)) -> Self {
        let Inner { stores, unreachable, keys, id, encrypted, instructions, clock } = &*self.inner;
        let mut inner = Inner {
            stores: stores.clone(),
            unreachable: unreachable.clone(),
            keys: keys.clone(),
            id: id.clone(),
            encrypted: *encrypted,
            instructions: *instructions,
            clock: clock.clone(),
        };
        change(&mut inner);
        Self { inner: Arc::new(inner) }
    }

    /// Its random id, in hexadecimal.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Where it is: the first place, of several.
    pub fn store(&self) -> &Store {
        &self.inner.stores[0]
    }

    /// Every store that can be used.
    pub fn stores(&self) -> &[Store] {
        &self.inner.stores
    }

    /// The stores that were named and cannot be used, and why.
    pub fn unreachable(&self) -> &[(String, Arc<Error>)] {
        &self.inner.unreachable
    }

    /// Reads an object or record whose name holds the SHA-256 of its bytes: from the first store that has it whole.
    pub(crate) async fn read_named(&self, path: &Path, digest: &Digest) -> Result<Bytes> {
        let [store] = self.stores() else { return self.read_from_any(path, digest).await };
        store.read(path).await
    }

    async fn read_from_any(&self, path: &Path, digest: &Digest) -> Result<Bytes> {
        let mut first_error: Option<Error> = None;
        // Those that failed before come last, so that a dead store costs its time-outs once.
        let (failed, good): (Vec<&Store>, _) = self.stores().iter().partition(|s| s.has_failed());
        for store in good.into_iter().chain(failed) {
            match store.read(path).await {
                Ok(bytes) if Digest::sha256(&bytes) == *digest => return Ok(bytes),
                Ok(_) => {
                    tracing::warn!(object = %path, %store, "it is damaged there; another store is asked");
                    let what = format!("{path} is damaged in every store that has it");
                    first_error.get_or_insert_with(|| {
                        Error::new(ErrorKind::Damaged, what)
                            .with_next_step("run `backup verify` for the whole extent; restore from another snapshot")
                    });
                }
                Err(e) => {
                    tracing::warn!(object = %path, %store, error = %e, "it cannot be read there; another store is asked");
                    // Nobody knows whether a store that does not answer has it whole.
                    if e.is_about_the_store() {
                        store.note_failure();
                        first_error = Some(e);
                    } else {
                        first_error.get_or_insert(e);
                    }
                }
            }
        }
        Err(first_error.unwrap_or_else(|| Error::new(ErrorKind::Internal, "there is no store to read from")))
    }

    /// Whether its data is encrypted and its records signed.
    pub fn is_encrypted(&self) -> bool {
        self.inner.encrypted
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// What is pinned of it now, after the changes that were found in its stores.
    pub fn trust(&self) -> Option<&Trust> {
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

    /// SHA-256 of whom records and indexes are encrypted to.
    pub(crate) fn readers(&self) -> Result<Option<Digest>> {
        let Some(trust) = self.trust().filter(|t| t.encrypted) else { return Ok(None) };
        let mut readers: Vec<String> = trust.metadata_recipients()?.iter().map(ToString::to_string).collect();
        readers.sort_unstable();
        Ok(Some(Digest::sha256(readers.join("\n").as_bytes())))
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
        let trust = self.trust().ok_or_else(|| no_trust(self.store()))?;
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
        let stores: Vec<_> = self.stores().iter().map(ToString::to_string).collect();
        write!(f, "Repository({} in {})", self.inner.id, stores.join(", "))
    }
}

const CARETAKER_REPOSITORY: &str = "repository";
const ENCRYPTION_AGE: &str = "age";
const ENCRYPTION_NONE: &str = "none";

impl Configuration {
    /// Reads it from `store` and checks that it is of the repository that `keys` pin.
    async fn read(store: &Store, keys: &Keys) -> Result<Self> {
        let path = Path::from(layout::CONFIGURATION);
        let Some(json) = store.read_optional(&path).await? else {
            // A bucket that does not exist answers a read as one without the object does; only a list tells.
            store.list("").next().await.transpose()?;
            return Err(Error::new(ErrorKind::NotFound, format!("there is no repository in {store}"))
                .with_next_step("check the URL; `backup init` makes a new repository"));
        };
        let signature = store.read_optional(&Path::from(layout::CONFIGURATION_SIGNATURE)).await?;
        Self::check(&json, signature.as_deref(), keys, store)
    }

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
