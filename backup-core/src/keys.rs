//! Who may read, who may write, who may remove: one key for each, in a directory of files.
//!
//! | file | held by | can | cannot |
//! |---|---|---|---|
//! | `owner-identity.txt` | the owner, offline | read everything | sign or remove anything |
//! | `recipient.txt` | anybody | encrypt to the owner | read anything |
//! | `writer.key` | the host that backs up | sign snapshots, read their records and indexes (table and file names, sizes, times) | read data, sign removals |
//! | `admin.key` | the owner, off the host | sign the repository's configuration and removals | read anything |
//! | `trust.json` | everybody who reads or writes | tell the true repository from another | anything else |
//!
//! Beside them a program notes what it has seen of the log (`seen.json`), so that a rollback of a store shows, and keeps what
//! it has read of an encrypted log (`log-….cache`), encrypted to the key that opens it, so that it need not be read again. The
//! latter can be deleted at any time.
//!
//! A thief of `writer.key` can add snapshots and read names and sizes. With the store's credentials as well he can
//! delete objects, as anybody with those credentials can, but [`verify`](crate::Repository::verify) tells that from a
//! removal by the owner. What he adds may claim to hold what it does not, and later backups of the same writer would refer
//! to it: only a verify of the content, or a drill, finds that. A thief of `owner-identity.txt` can read every backup he can fetch. A thief of `admin.key`
//! can make removals look legitimate, if he can also write to the store.

//! # When keys change
//!
//! Each of these is one [`rotate`](crate::Repository::rotate) (`backup rotate`) with the admin's key, which then is signed
//! into the store; hosts that back up follow with their next run. The new `trust.json` belongs beside the owner's offline
//! keys.
//!
//! | what happened | what to do |
//! |---|---|
//! | somebody more is to read | add the recipient; what is written from then on is for both, and stored anew |
//! | somebody is to read no more | remove the recipient; what was written before he can read as ever, each snapshot by its id |
//! | a second host backs up | make a `writer.key` for it and add it; give the host that, `recipient.txt` and `trust.json` |
//! | `writer.key` is lost | retire it and add a new one; what it has signed counts as before |
//! | `writer.key` was stolen | revoke it with the last snapshot before the theft, and add a new one; what it signed after that does not count, and goes with the next prune. Change the store's credentials as well |
//! | `admin.key` is lost | nothing can be removed or changed any more; make a new repository in time |
//! | `admin.key` was stolen | make a new repository: he could change everything that an admin can |
//! | `owner-identity.txt` is lost | if it was the only recipient, nothing can be read any more: keep two |
//! | `owner-identity.txt` was stolen | add a new recipient and remove the old one, and keep that: a directory with it and `trust.json` reads what was written before. What the thief can fetch of that he can read |

mod directory;
mod trust;

use std::fmt;

use age::secrecy::ExposeSecret;
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::directory::Keys;
pub(crate) use self::directory::Witness;
pub use self::trust::{Revoked, Trust, TrustedAdmin, TrustedWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Digest;

/// Length of a detached signature in bytes.
pub(crate) const SIGNATURE_LENGTH: usize = 64;

/// The public half of a signing key: 32 bytes of Ed25519 (RFC 8032), in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifyKey([u8; 32]);

impl VerifyKey {
    /// The key in the form that `openssl pkeyutl -verify -pubin` reads.
    pub fn to_pem(&self) -> Result<String> {
        self.key()?
            .to_public_key_pem(LineEnding::LF)
            .map_err(|e| Error::new(ErrorKind::KeyWrong, format!("verify key {self}: {e}")))
    }

    /// Whether `signature` over `message` was made with the private half.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (Ok(key), Ok(signature)) = (self.key(), Signature::from_slice(signature)) else { return false };
        key.verify_strict(message, &signature).is_ok()
    }

    fn key(&self) -> Result<VerifyingKey> {
        VerifyingKey::from_bytes(&self.0)
            .map_err(|e| Error::new(ErrorKind::KeyWrong, format!("{self} is no Ed25519 verify key")).with_source(e))
    }
}

impl std::str::FromStr for VerifyKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse::<Digest>().map(|digest| Self(digest.0)).map_err(|e| {
            Error::new(ErrorKind::Config, format!("{text:?} is no verify key: {e}"))
                .with_next_step("a verify key is 64 hexadecimal digits, as `verify_key` in trust.json")
        })
    }
}

impl fmt::Display for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for VerifyKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VerifyKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digest: Digest = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(digest.0))
    }
}

/// A key that signs. Its `Debug` shows the public half only.
#[derive(Clone)]
pub(crate) struct Signing(SigningKey);

impl Signing {
    fn generate() -> Result<Self> {
        Ok(Self(SigningKey::from_bytes(&random()?)))
    }

    pub(crate) fn verify_key(&self) -> VerifyKey {
        VerifyKey(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signing({})", self.verify_key())
    }
}

/// Reads everything in the repository: an age X25519 identity.
#[derive(Clone)]
pub struct OwnerIdentity(age::x25519::Identity);

impl OwnerIdentity {
    /// A new one, from the operating system's randomness.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// Its public half.
    pub fn recipient(&self) -> Recipient {
        Recipient::of(&self.0)
    }

    pub(crate) fn age(&self) -> &age::x25519::Identity {
        &self.0
    }
}

impl fmt::Debug for OwnerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerIdentity({})", self.recipient())
    }
}

/// What data is encrypted to: an age X25519 recipient, `age1…`.
#[derive(Clone)]
pub struct Recipient(age::x25519::Recipient);

impl Recipient {
    pub(crate) fn of(identity: &age::x25519::Identity) -> Self {
        Self(identity.to_public())
    }

    pub(crate) fn age(&self) -> &age::x25519::Recipient {
        &self.0
    }
}

impl std::str::FromStr for Recipient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.trim().parse().map(Self).map_err(|e: &str| {
            Error::new(ErrorKind::Config, format!("{:?} is no age recipient: {e}", text.trim()))
                .with_next_step("a recipient begins with age1 and is the content of recipient.txt")
        })
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Signs snapshots, reads records and indexes, derives chunk ids; cannot read data.
#[derive(Clone)]
pub struct WriterKey {
    pub(crate) signing: Signing,
    pub(crate) identity: age::x25519::Identity,
    pub(crate) id_key: Digest,
}

impl WriterKey {
    /// A new one, from the operating system's randomness.
    pub fn generate() -> Result<Self> {
        Ok(Self {
            signing: Signing::generate()?,
            identity: age::x25519::Identity::generate(),
            id_key: Digest(random()?),
        })
    }

    /// The public half of its signing key.
    pub fn verify_key(&self) -> VerifyKey {
        self.signing.verify_key()
    }

    /// What records and indexes are encrypted to, so that this writer can read them again.
    pub fn recipient(&self) -> Recipient {
        Recipient::of(&self.identity)
    }
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterKey({})", self.verify_key())
    }
}

/// Signs the repository's configuration and removals.
#[derive(Debug, Clone)]
pub struct AdminKey {
    pub(crate) signing: Signing,
}

impl AdminKey {
    /// A new one, from the operating system's randomness.
    pub fn generate() -> Result<Self> {
        Ok(Self { signing: Signing::generate()? })
    }

    /// The public half of its signing key.
    pub fn verify_key(&self) -> VerifyKey {
        self.signing.verify_key()
    }
}

/// `N` bytes of the operating system's randomness.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("the operating system gave no random bytes: {e}")))?;
    Ok(bytes)
}

/// The text form of an age identity: for the key files, and to derive keys from. Never to be shown.
pub(crate) fn secret_text(identity: &age::x25519::Identity) -> String {
    identity.to_string().expose_secret().to_owned()
}
