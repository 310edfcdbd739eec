//! One object of the log: a line of JSON that anybody can read, a sealed payload, and a signature over both.
//!
//! ```text
//! {"caretaker":"snapshot","format":1,"repository":"…","sequence":7,"previous":["…"],"written":"…","signer":"…"}\n
//! age(zstd(JSON))                      or, without encryption and for removals, zstd(JSON)
//! 64 bytes of Ed25519 over all before  (absent in an unencrypted repository)
//! ```
//!
//! The line binds the record to its repository; its name holds the SHA-256 of all of it, so that whatever is put under
//! that name shows, with keys and without. `previous` names the records that its writer found with none after them: mostly
//! one, more where writers or stores had gone on without knowing of one another. So what is taken away from the middle is
//! missed by what comes after it, and stores that went different ways are brought together by copying.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::{SIGNATURE_LENGTH, Signing, Trust, VerifyKey};
use crate::manifest::{Digest, FORMAT, RecordName};

/// How much higher than those before it a record's number may be: what was written in stores that were not to be reached
/// is counted too, but nobody uses up all numbers at once.
const MAX_JUMP: u64 = 1 << 20;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RecordKind {
    /// A snapshot, signed by a writer.
    Snapshot,
    /// What a verify or a drill found, signed by a writer or an admin.
    Evidence,
    /// Records that were removed on purpose, signed by an admin.
    Tombstone,
}

impl RecordKind {
    /// Whether a record of this kind may count if `key` signed it: a writer's key may have been taken out of use since.
    pub(crate) fn may_be_signed_by(self, key: &VerifyKey, trust: &Trust) -> bool {
        match self {
            Self::Snapshot => trust.knows_writer(key),
            Self::Evidence => trust.knows_writer(key) || trust.is_admin(key),
            Self::Tombstone => trust.is_admin(key),
        }
    }

    /// Whether `key` may sign a new record of this kind.
    pub(crate) fn may_be_signed_now(self, key: &VerifyKey, trust: &Trust) -> bool {
        match self {
            Self::Snapshot => trust.is_writer(key),
            Self::Evidence => trust.is_writer(key) || trust.is_admin(key),
            Self::Tombstone => trust.is_admin(key),
        }
    }
}

/// The first line of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) caretaker: RecordKind,
    pub(crate) format: u32,
    pub(crate) repository: String,
    pub(crate) sequence: u64,
    pub(crate) previous: Vec<RecordName>,
    pub(crate) written: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signer: Option<VerifyKey>,
}

/// A record whose signature and place were checked; its payload is still sealed.
#[derive(Debug)]
pub(crate) struct CheckedRecord {
    pub(crate) envelope: Envelope,
    pub(crate) payload: Vec<u8>,
}

/// The stored bytes of a record.
pub(crate) fn encode(envelope: &Envelope, payload: &[u8], signing: Option<&Signing>) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(envelope)
        .map_err(|e| Error::new(ErrorKind::Internal, "a record could not be written as JSON").with_source(e))?;
    bytes.push(b'\n');
    bytes.extend_from_slice(payload);
    if let Some(signing) = signing {
        let signature = signing.sign(&bytes);
        bytes.extend_from_slice(&signature);
    }
    Ok(bytes)
}

/// Reads and checks a record that stands in the log as `of`.
pub(crate) fn decode(bytes: &[u8], of: &RecordName, repository: &str, trust: Option<&Trust>) -> Result<CheckedRecord> {
    let name = super::layout::record(of);
    if Digest::sha256(bytes) != of.digest {
        return Err(damaged(&name, "its bytes do not have the SHA-256 that is in its name"));
    }
    let signed = trust.is_some_and(|t| t.encrypted);
    let body = if signed {
        let Some(at) = bytes.len().checked_sub(SIGNATURE_LENGTH) else {
            return Err(damaged(&name, "it is too short to hold a signature"));
        };
        &bytes[..at]
    } else {
        bytes
    };
    let line = memchr::memchr(b'\n', body).ok_or_else(|| damaged(&name, "it has no first line"))?;
    let envelope: Envelope = serde_json::from_slice(&body[..line])
        .map_err(|e| damaged(&name, &format!("its first line is no record: {e}")))?;
    if envelope.format != FORMAT {
        return Err(Error::new(
            ErrorKind::Damaged,
            format!("{name} has format {}, this program reads {FORMAT}", envelope.format),
        )
        .with_next_step("use a newer version of this program"));
    }
    if let (true, Some(trust)) = (signed, trust) {
        let signer = envelope
            .signer
            .ok_or_else(|| untrusted(&name, "it carries no signature, in a repository whose records are signed"))?;
        if !envelope.caretaker.may_be_signed_by(&signer, trust) {
            return Err(untrusted(&name, &format!("it is signed by {signer}, whom trust.json does not name for that")));
        }
        if !signer.verifies(body, &bytes[body.len()..]) {
            return Err(damaged(&name, "its signature does not fit its content"));
        }
    }
    if envelope.repository != repository {
        return Err(untrusted(
            &name,
            &format!("it belongs to repository {}, not to {repository}", envelope.repository),
        ));
    }
    if envelope.sequence != of.sequence {
        return Err(damaged(&name, &format!("it is record {}, moved or copied here", envelope.sequence)));
    }
    let before = envelope.previous.iter().map(|p| p.sequence).max().unwrap_or(0);
    if before >= of.sequence || of.sequence - before > MAX_JUMP {
        return Err(damaged(
            &name,
            "its number does not follow those of the records that it names as the ones before it",
        ));
    }
    Ok(CheckedRecord { payload: body[line + 1..].to_vec(), envelope })
}

fn damaged(name: &object_store::path::Path, why: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("{name} is damaged: {why}"))
        .with_next_step("run `backup verify` for the whole extent; compare with another copy of the store")
}

fn untrusted(name: &object_store::path::Path, why: &str) -> Error {
    Error::new(ErrorKind::Untrusted, format!("{name} is not to be trusted: {why}")).with_next_step(
        "if the keys were changed on purpose, use the new trust.json; if not, somebody wrote to the store",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Keys, Trust};

    /// What a thief of the writer's key can sign, and what not: whether it counts is decided here alone.
    #[test]
    fn only_an_admin_removes_and_only_a_writer_backs_up() {
        let keys = Keys::generate().unwrap();
        let trust = Trust::new("r".into(), &keys, &[]).unwrap();
        let (writer, admin) = (&keys.writer().unwrap().signing, &keys.admin().unwrap().signing);
        let decodes = |kind, claimed: &Signing, signing: &Signing| {
            let envelope = Envelope {
                caretaker: kind,
                format: FORMAT,
                repository: "r".into(),
                sequence: 1,
                previous: Vec::new(),
                written: DateTime::UNIX_EPOCH,
                signer: Some(claimed.verify_key()),
            };
            let bytes = encode(&envelope, b"x", Some(signing)).unwrap();
            decode(&bytes, &RecordName::new(1, Digest::sha256(&bytes)), "r", Some(&trust))
                .map(|_| ())
                .map_err(|e| e.kind())
        };
        use RecordKind::{Evidence, Snapshot, Tombstone};
        assert_eq!(decodes(Snapshot, writer, writer), Ok(()));
        assert_eq!(decodes(Evidence, writer, writer), Ok(()));
        assert_eq!(decodes(Tombstone, admin, admin), Ok(()));
        assert_eq!(decodes(Tombstone, writer, writer), Err(ErrorKind::Untrusted));
        assert_eq!(decodes(Tombstone, admin, writer), Err(ErrorKind::Damaged), "in another's name");
        assert_eq!(decodes(Snapshot, admin, admin), Err(ErrorKind::Untrusted));
        let stranger = Keys::generate().unwrap();
        let stranger = &stranger.writer().unwrap().signing;
        assert_eq!(decodes(Snapshot, stranger, stranger), Err(ErrorKind::Untrusted));
    }
}
