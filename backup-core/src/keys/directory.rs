//! Keys as files: `owner-identity.txt`, `recipient.txt`, `writer.key`, `admin.key`, `trust.json`, `seen.json`, and what is kept of
//! the log.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AdminKey, OwnerIdentity, Recipient, Signing, Trust, WriterKey, random, secret_text};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, RecordName};

/// The keys at hand. Each operation takes what it needs and names the one it misses.
///
/// ```
/// # fn main() -> backup_core::Result<()> {
/// let keys = backup_core::Keys::generate()?;
/// assert!(keys.owner().is_ok() && keys.writer().is_ok() && keys.admin().is_ok());
/// // Not yet pinned to any repository:
/// assert!(keys.trust().is_none());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Keys {
    directory: Option<PathBuf>,
    owner: Option<OwnerIdentity>,
    recipient: Option<Recipient>,
    writer: Option<WriterKey>,
    admin: Option<AdminKey>,
    trust: Option<Trust>,
}

/// How far this client has seen the log in one store: a store that falls behind it was rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Witness {
    /// The repository's id.
    pub(crate) repository: String,
    /// The store, as messages call it.
    pub(crate) store: String,
    /// The records that had none after them.
    pub(crate) heads: Vec<RecordName>,
}

impl Witness {
    fn sequence(&self) -> u64 {
        self.heads.iter().map(|h| h.sequence).max().unwrap_or(0)
    }
}

impl Keys {
    /// A full new set, from the operating system's randomness; nothing is written.
    pub fn generate() -> Result<Self> {
        let owner = OwnerIdentity::generate();
        Ok(Self {
            directory: None,
            recipient: Some(owner.recipient()),
            owner: Some(owner),
            writer: Some(WriterKey::generate()?),
            admin: Some(AdminKey::generate()?),
            trust: None,
        })
    }

    /// No keys: enough for a repository without encryption.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the key files that are in `directory`.
    ///
    /// Files that are not there are simply not held; one that is there but makes no sense is an error that names it.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        if !directory.is_dir() {
            return Err(Error::new(
                ErrorKind::KeyMissing,
                format!("{}: no such directory of keys", directory.display()),
            )
            .with_next_step("make one with `backup keygen --out DIRECTORY`, or name the one you have with --keys"));
        }
        let read = |name: &str| read_optional(&directory.join(name));
        let broken = |name: &str, why: String| {
            Error::new(ErrorKind::KeyWrong, format!("{}: {why}", directory.join(name).display()))
                .with_next_step("restore this file from where you keep your keys")
        };

        let owner = match read(OWNER_FILE)? {
            None => None,
            Some(text) => Some(parse_identity(&text).map_err(|e| broken(OWNER_FILE, e))?),
        };
        let recipient = match read(RECIPIENT_FILE)? {
            None => owner.as_ref().map(OwnerIdentity::recipient),
            Some(text) => Some(
                text.lines()
                    .find(|l| !l.trim().is_empty() && !l.starts_with('#'))
                    .unwrap_or("")
                    .parse::<Recipient>()
                    .map_err(|e| broken(RECIPIENT_FILE, e.to_string()))?,
            ),
        };
        let writer = match read(WRITER_FILE)? {
            None => None,
            Some(text) => Some(WriterFile::parse(&text).map_err(|e| broken(WRITER_FILE, e))?),
        };
        let admin = match read(ADMIN_FILE)? {
            None => None,
            Some(text) => Some(AdminFile::parse(&text).map_err(|e| broken(ADMIN_FILE, e))?),
        };
        let trust = match read(TRUST_FILE)? {
            None => None,
            Some(text) => {
                Some(serde_json::from_str(&text).map_err(|e| broken(TRUST_FILE, format!("not a trust file: {e}")))?)
            }
        };
        Ok(Self { directory: Some(directory.to_owned()), owner, recipient, writer, admin, trust })
    }

    /// Writes the four key files into `directory`, readable by the owner alone; never over an existing key.
    pub fn save(&self, directory: impl AsRef<Path>) -> Result<()> {
        let directory = directory.as_ref();
        fs::create_dir_all(directory).map_err(|e| file_error(directory, "cannot be made", e))?;
        restrict(directory, 0o700)?;
        let owner = self.owner()?;
        let writer = self.writer()?;
        let admin = self.admin()?;
        let files = [
            (
                OWNER_FILE,
                format!(
                    "# Caretaker owner identity: reads every backup. Keep it offline, in two places.\n# recipient: {}\n{}\n",
                    owner.recipient(),
                    secret_text(owner.age())
                ),
            ),
            (RECIPIENT_FILE, format!("{}\n", owner.recipient())),
            (WRITER_FILE, WriterFile::text(writer)?),
            (ADMIN_FILE, AdminFile::text(admin)?),
        ];
        for (name, _) in &files {
            let path = directory.join(name);
            if path.exists() {
                return Err(Error::new(ErrorKind::Config, format!("{} exists already", path.display()))
                    .with_next_step("choose another directory: overwriting a key would make its backups unreadable"));
            }
        }
        for (name, text) in files {
            write_private(&directory.join(name), text.as_bytes(), true)?;
        }
        Ok(())
    }

    /// Writes `trust.json` beside the keys, where they were loaded from a directory, and holds it from now on. Never
    /// over another one.
    pub(crate) fn pin(&mut self, trust: Trust) -> Result<()> {
        if let Some(directory) = &self.directory {
            write_private(&directory.join(TRUST_FILE), &json(&trust)?, true)?;
        }
        self.trust = Some(trust);
        Ok(())
    }

    /// Holds `trust`, which follows the one that is pinned, from now on, once it is written over `trust.json`.
    pub(crate) fn follow(&mut self, trust: Trust) -> Result<()> {
        if let Some(directory) = &self.directory {
            write_private(&directory.join(TRUST_FILE), &json(&trust)?, false)?;
        }
        self.trust = Some(trust);
        Ok(())
    }

    /// The same keys, holding `trust`.
    pub(crate) fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// Takes back what [`pin`](Self::pin) did just now.
    pub(crate) fn unpin(&mut self) -> Result<()> {
        self.trust = None;
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join(TRUST_FILE);
        fs::remove_file(&path).map_err(|e| file_error(&path, "cannot be removed", e))
    }

    /// Whether any key is held.
    pub(crate) fn is_some(&self) -> bool {
        self.owner.is_some() || self.recipient.is_some() || self.writer.is_some() || self.admin.is_some()
    }

    /// The owner's identity, or an error that says that it is missing.
    pub fn owner(&self) -> Result<&OwnerIdentity> {
        self.owner.as_ref().ok_or_else(|| self.missing(OWNER_FILE, "reads the data of a backup"))
    }

    /// The owner's recipient, or an error that says that it is missing.
    pub fn recipient(&self) -> Result<&Recipient> {
        self.recipient.as_ref().ok_or_else(|| self.missing(RECIPIENT_FILE, "is what data is encrypted to"))
    }

    /// The writer's key, or an error that says that it is missing.
    pub fn writer(&self) -> Result<&WriterKey> {
        self.writer.as_ref().ok_or_else(|| self.missing(WRITER_FILE, "signs snapshots"))
    }

    /// The admin's key, or an error that says that it is missing.
    pub fn admin(&self) -> Result<&AdminKey> {
        self.admin.as_ref().ok_or_else(|| self.missing(ADMIN_FILE, "signs configuration and removals"))
    }

    /// What was pinned, if anything.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// The same keys without the owner's identity: what a shop's host should hold.
    #[must_use]
    pub fn without_owner(mut self) -> Self {
        self.owner = None;
        self
    }

    /// The same keys without the writer's key: what an auditor holds.
    #[must_use]
    pub fn without_writer(mut self) -> Self {
        self.writer = None;
        self
    }

    /// The same keys without the admin's key: what a shop's host should hold.
    #[must_use]
    pub fn without_admin(mut self) -> Self {
        self.admin = None;
        self
    }

    /// Whether they are files in a directory, and not only held.
    pub(crate) fn has_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// The bytes of a file that was [written](Self::write_beside) beside the keys, if there is one; at most so many.
    pub(crate) fn read_beside(&self, file: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let path = directory.join(file);
        let mut bytes = Vec::new();
        match fs::File::open(&path).and_then(|open| open.take(most).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_error(&path, "cannot be read", e)),
        }
    }

    /// Removes such a file, where it is there.
    pub(crate) fn remove_beside(&self, file: &str) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join(file);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file_error(&path, "cannot be removed", e)),
            _ => Ok(()),
        }
    }

    /// Writes a file beside the keys, as a whole or not at all, where they are files.
    pub(crate) fn write_beside(&self, file: &str, bytes: &[u8]) -> Result<()> {
        self.directory.as_ref().map_or(Ok(()), |directory| write_private(&directory.join(file), bytes, false))
    }

    /// An error where nothing can be written beside the keys: a directory that is read-only.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let file = directory.join(format!("{}.tmp", hex::encode(random::<4>()?)));
        let tried =
            fs::OpenOptions::new().write(true).create_new(true).open(&file).and_then(|_| fs::remove_file(&file));
        tried.map_err(|e| file_error(directory, "cannot be written to", e))
    }

    /// What this client has seen of `repository`, store by store, from `seen.json` beside the keys.
    pub(crate) fn seen(&self, repository: &str) -> Result<Vec<Witness>> {
        let mut all = self.witnesses()?;
        all.retain(|w| w.repository == repository);
        Ok(all)
    }

    /// Remembers `witness` beside the keys, unless something newer is remembered; where that is not possible (a
    /// read-only directory), says why.
    pub(crate) fn remember(&self, witness: &Witness) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let mut all = self.witnesses()?;
        match all.iter_mut().find(|w| w.repository == witness.repository && w.store == witness.store) {
            Some(known) if known.sequence() > witness.sequence() || known.heads == witness.heads => return Ok(()),
            // Written side by side, without knowing of one another.
            Some(known) if known.sequence() == witness.sequence() => {
                known.heads.extend_from_slice(&witness.heads);
                known.heads.sort_unstable();
                known.heads.dedup();
            }
            Some(known) => *known = witness.clone(),
            None => all.push(witness.clone()),
        }
        write_private(&directory.join(SEEN_FILE), &json(&all)?, false)
    }

    fn witnesses(&self) -> Result<Vec<Witness>> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        let path = directory.join(SEEN_FILE);
        let Some(text) = read_optional(&path)? else { return Ok(Vec::new()) };
        serde_json::from_str(&text).map_err(|e| {
            Error::new(ErrorKind::KeyWrong, format!("{}: {e}", path.display())).with_next_step(
                "remove this file if you know why it is broken; it remembers how far the repository had come",
            )
        })
    }

    fn missing(&self, file: &str, role: &str) -> Error {
        let place = match &self.directory {
            Some(directory) => format!(" in {}", directory.display()),
            None => String::new(),
        };
        Error::new(ErrorKind::KeyMissing, format!("the key that {role} is missing: no {file}{place}"))
            .with_next_step(format!("put {file} into the directory that --keys names"))
    }
}

const OWNER_FILE: &str = "owner-identity.txt";
const RECIPIENT_FILE: &str = "recipient.txt";
const WRITER_FILE: &str = "writer.key";
const ADMIN_FILE: &str = "admin.key";
const TRUST_FILE: &str = "trust.json";
const SEEN_FILE: &str = "seen.json";

#[derive(Serialize, Deserialize)]
struct WriterFile {
    caretaker: String,
    note: String,
    signing: Digest,
    identity: String,
    id_key: Digest,
}

impl WriterKey {
    /// Reads a `writer.key`.
    ///
    /// # Errors
    /// [`ErrorKind::KeyMissing`] where there is no such file, [`ErrorKind::KeyWrong`] where it is something else.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = read_optional(path)?.ok_or_else(|| {
            Error::new(ErrorKind::KeyMissing, format!("{}: no such file", path.display()))
                .with_next_step("name a writer.key, as `backup keygen` makes it")
        })?;
        WriterFile::parse(&text).map_err(|e| Error::new(ErrorKind::KeyWrong, format!("{}: {e}", path.display())))
    }
}

impl WriterFile {
    const KIND: &str = "writer key";

    fn text(key: &WriterKey) -> Result<String> {
        let file = Self {
            caretaker: Self::KIND.into(),
            note: "belongs on the host that backs up; signs snapshots, cannot read their data".into(),
            signing: Digest(key.signing.0.to_bytes()),
            identity: secret_text(&key.identity),
            id_key: key.id_key,
        };
        json_text(&file)
    }

    fn parse(text: &str) -> Result<WriterKey, String> {
        let file: Self = serde_json::from_str(text).map_err(describe)?;
        expect_kind(&file.caretaker, Self::KIND)?;
        Ok(WriterKey {
            signing: Signing(ed25519_dalek::SigningKey::from_bytes(&file.signing.0)),
            identity: file.identity.parse().map_err(|_| "its age identity is damaged".to_owned())?,
            id_key: file.id_key,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct AdminFile {
    caretaker: String,
    note: String,
    signing: Digest,
}

impl AdminFile {
    const KIND: &str = "admin key";

    fn text(key: &AdminKey) -> Result<String> {
        let file = Self {
            caretaker: Self::KIND.into(),
            note: "keep it off the host that backs up; signs the repository's configuration and removals".into(),
            signing: Digest(key.signing.0.to_bytes()),
        };
        json_text(&file)
    }

    fn parse(text: &str) -> Result<AdminKey, String> {
        let file: Self = serde_json::from_str(text).map_err(describe)?;
        expect_kind(&file.caretaker, Self::KIND)?;
        Ok(AdminKey { signing: Signing(ed25519_dalek::SigningKey::from_bytes(&file.signing.0)) })
    }
}

/// Where a JSON error is, without the text around it, which may be a secret.
fn describe(error: serde_json::Error) -> String {
    format!("not a key file (line {}, column {})", error.line(), error.column())
}

fn expect_kind(found: &str, wanted: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("this is a {found:?}, not a {wanted:?}")) }
}

fn parse_identity(text: &str) -> Result<OwnerIdentity, String> {
    let line = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#')).ok_or("no identity in it")?;
    line.parse().map(OwnerIdentity).map_err(|_| "not an age identity (AGE-SECRET-KEY-1…)".to_owned())
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    Ok(json_text(value)?.into_bytes())
}

fn json_text<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(ErrorKind::Internal, "a key file could not be written as JSON").with_source(e))?;
    text.push('\n');
    Ok(text)
}

fn read_optional(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_error(path, "cannot be read", e)),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, bytes: &[u8], new: bool) -> Result<()> {
    let suffix = hex::encode(random::<4>()?);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}.tmp"));
    let temporary = PathBuf::from(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || -> std::io::Result<()> {
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if new {
            fs::hard_link(&temporary, path)?;
        } else {
            fs::rename(&temporary, path)?;
        }
        Ok(())
    };
    let written = write();
    // After a hard link the temporary name is still there, after a rename it is gone: both are fine.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound && written.is_ok() => {
            return Err(file_error(&temporary, "cannot be removed", e));
        }
        _ => {}
    }
    written.map_err(|e| file_error(path, "cannot be written", e))
}

fn restrict(path: &Path, mode: u32) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|e| file_error(path, "cannot be made private", e))?;
    }
    Ok(())
}

fn file_error(path: &Path, what: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Config, format!("{} {what}: {error}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_disk_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        keys.save(dir.path()).unwrap();
        let again = Keys::load(dir.path()).unwrap();
        assert_eq!(again.writer().unwrap().verify_key(), keys.writer().unwrap().verify_key());
        assert_eq!(again.writer().unwrap().id_key, keys.writer().unwrap().id_key);
        assert_eq!(again.admin().unwrap().verify_key(), keys.admin().unwrap().verify_key());
        assert_eq!(again.recipient().unwrap().to_string(), keys.owner().unwrap().recipient().to_string());
        for file in fs::read_dir(dir.path()).unwrap() {
            use std::os::unix::fs::PermissionsExt;
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        // Never over an existing key.
        assert_eq!(Keys::generate().unwrap().save(dir.path()).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn a_missing_or_mixed_up_key_is_named_and_no_secret_shown() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        keys.save(dir.path()).unwrap();
        let secret = fs::read_to_string(dir.path().join(WRITER_FILE)).unwrap();
        fs::copy(dir.path().join(ADMIN_FILE), dir.path().join(WRITER_FILE)).unwrap();
        let e = Keys::load(dir.path()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::KeyWrong);
        assert!(e.to_string().contains("writer.key"), "{e}");
        fs::write(dir.path().join(WRITER_FILE), secret.replace("\"id_key\"", "\"idkey\"")).unwrap();
        let e = format!("{:?}", Keys::load(dir.path()).unwrap_err());
        assert!(!e.contains("AGE-SECRET"), "{e}");
        fs::remove_file(dir.path().join(WRITER_FILE)).unwrap();
        fs::remove_file(dir.path().join(OWNER_FILE)).unwrap();
        let keys = Keys::load(dir.path()).unwrap();
        assert!(keys.writer().unwrap_err().to_string().contains("writer.key"));
        assert!(keys.owner().unwrap_err().to_string().contains("owner-identity.txt"));
        assert!(keys.recipient().is_ok());
        assert!(!format!("{keys:?}").contains("AGE-SECRET"));
    }
}
