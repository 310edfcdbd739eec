//! What happens to the bytes of one object: zstd, then age, then SHA-256; and back, checking everything.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Recipient, random};
use crate::manifest::Digest;

/// Bytes decrypted ahead of the decompression: one piece of an age file.
const DECRYPTED_AT_ONCE: usize = 64 * 1024;

/// For whom an object is encrypted. There is no "if possible": either all of them, or nothing is written.
#[derive(Debug, Clone)]
pub(crate) enum Cipher {
    /// The repository was made without encryption.
    Plain,
    /// Everybody in this list can read it, nobody else.
    Age(Vec<Recipient>),
}

/// The bytes to store, and their name.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
}

impl Sealed {
    /// The same content under another name: with a skippable frame of random bytes, which every zstd passes over
    /// (RFC 8878, 3.1.2). Only for what is not encrypted; encryption gives another name each time.
    pub(crate) fn under_another_name(self) -> Result<Self> {
        let mut bytes = self.bytes.to_vec();
        bytes.extend_from_slice(&0x184D_2A50u32.to_le_bytes());
        bytes.extend_from_slice(&16u32.to_le_bytes());
        bytes.extend_from_slice(&random::<16>()?);
        Ok(Self { digest: Digest::sha256(&bytes), bytes: bytes.into() })
    }
}

/// Compresses and encrypts. CPU work: for the workers.
pub(crate) fn seal(plain: &[u8], level: i32, cipher: &Cipher) -> Result<Sealed> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressed = compress(plain, level, kept).map_err(|e| {
            Error::new(ErrorKind::Internal, format!("zstd could not compress a chunk: {e}")).with_source(e)
        })?;
        let bytes = match cipher {
            Cipher::Plain => compressed.to_vec(),
            Cipher::Age(recipients) => encrypt(compressed, recipients)?,
        };
        Ok(Sealed { digest: Digest::sha256(&bytes), bytes: bytes.into() })
    })
}

thread_local! {
    /// What a thread compresses with, and into: making these anew costs a good part of the compression itself.
    static COMPRESSOR: RefCell<Option<Compression>> = const { RefCell::new(None) };
}

struct Compression {
    level: i32,
    compressor: zstd::bulk::Compressor<'static>,
    out: Vec<u8>,
}

fn compress<'a>(plain: &[u8], level: i32, kept: &'a mut Option<Compression>) -> std::io::Result<&'a [u8]> {
    let mut compression = match kept.take().filter(|c| c.level == level) {
        Some(compression) => compression,
        None => Compression { level, compressor: compressor(level)?, out: Vec::new() },
    };
    compression.out.clear();
    compression.out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
    compression.compressor.compress_to_buffer(plain, &mut compression.out)?;
    Ok(&kept.insert(compression).out)
}

fn compressor(level: i32) -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    if level == 1 {
        // A table of half the size stays in the first cache. On two pieces of 100 MB of the sample shop's rows, in blocks
        // of 1 MiB: 269 to 291 and 468 to 487 MB/s, and 0.8 and 0.1 % smaller (`zstd -b1 -B1M`, and with
        // `--zstd=strategy=1,wlog=18,hlog=13,mml=7`).
        compressor.set_parameter(zstd::zstd_safe::CParameter::WindowLog(18))?;
        compressor.set_parameter(zstd::zstd_safe::CParameter::HashLog(13))?;
    }
    Ok(compressor)
}

/// Checks the name, decrypts and decompresses. `plain` is the exact length to expect, or a bound.
/// `identities` is empty where the repository is not encrypted. `name` is for errors.
pub(crate) fn open(
    stored: &[u8],
    digest: &Digest,
    plain: Length,
    identities: &[&age::x25519::Identity],
    encrypted: bool,
    name: &str,
) -> Result<Vec<u8>> {
    if Digest::sha256(stored) != *digest {
        return Err(damaged(name, "its bytes do not have the SHA-256 that the signed record names"));
    }
    unseal(stored, plain, identities, encrypted, name)
}

/// How long the plaintext is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Exactly(u64),
    AtMost(u64),
}

/// The same without a digest to check against: for records, whose signature was checked instead.
pub(crate) fn unseal(
    stored: &[u8],
    plain: Length,
    identities: &[&age::x25519::Identity],
    encrypted: bool,
    name: &str,
) -> Result<Vec<u8>> {
    let bound = match plain {
        Length::Exactly(n) | Length::AtMost(n) => n,
    };
    // Never more than was promised: a small object must not fill the memory.
    let mut out = Vec::with_capacity(match plain {
        Length::Exactly(n) => usize::try_from(n).unwrap_or(0).min(64 << 20),
        Length::AtMost(_) => 0,
    });
    if encrypted {
        // Piece by piece from one into the other: the compressed bytes never stand whole in memory.
        let decrypted = BufReader::with_capacity(DECRYPTED_AT_ONCE, decrypt(stored, identities, name)?);
        decompress(decrypted, bound, &mut out, name)?;
    } else {
        decompress(stored, bound, &mut out, name)?;
    }
    let length = out.len() as u64;
    let fits = match plain {
        Length::Exactly(n) => length == n,
        Length::AtMost(n) => length <= n,
    };
    if !fits {
        return Err(damaged(name, "its content is not as long as the signed record says"));
    }
    Ok(out)
}

fn encrypt(plain: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>> {
    let failed =
        |e: String| Error::new(ErrorKind::Internal, format!("age could not encrypt: {e}; nothing was written"));
    let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|r| r.age() as &dyn age::Recipient))
        .map_err(|e| failed(e.to_string()))?;
    // Header and tags: about 200 bytes for each recipient and 16 for each 64 KiB.
    let mut out = Vec::with_capacity(plain.len() + plain.len() / 2048 + 256 * (recipients.len() + 1));
    let mut writer = encryptor.wrap_output(&mut out).map_err(|e| failed(e.to_string()))?;
    writer.write_all(plain).map_err(|e| failed(e.to_string()))?;
    writer.finish().map_err(|e| failed(e.to_string()))?;
    Ok(out)
}

/// At most `bound` bytes, and one more if there is more: its caller sees that it is too long.
fn decompress(mut compressed: impl BufRead, bound: u64, out: &mut Vec<u8>, name: &str) -> Result<()> {
    zstd::stream::read::Decoder::with_buffer(&mut compressed)
        .and_then(|decoder| decoder.take(bound.saturating_add(1)).read_to_end(out))
        .map_err(|e| damaged(name, &format!("it cannot be decrypted or decompressed: {e}")))?;
    // Where the content ends the ciphertext has to end too: only its last piece proves that none is missing.
    let mut rest = [0; 1];
    match compressed.read(&mut rest) {
        Ok(0) => Ok(()),
        Ok(_) if out.len() as u64 > bound => Ok(()),
        Ok(_) => Err(damaged(name, "something follows its content")),
        Err(e) => Err(damaged(name, &format!("it cannot be decrypted: {e}"))),
    }
}

fn decrypt<'a>(
    stored: &'a [u8],
    identities: &[&age::x25519::Identity],
    name: &str,
) -> Result<age::stream::StreamReader<&'a [u8]>> {
    let decryptor =
        age::Decryptor::new_buffered(stored).map_err(|e| damaged(name, &format!("it is no age file: {e}")))?;
    match decryptor.decrypt(identities.iter().map(|i| *i as &dyn age::Identity)) {
        Ok(reader) => Ok(reader),
        Err(age::DecryptError::NoMatchingKeys) => {
            Err(Error::new(ErrorKind::KeyWrong, format!("{name} was not encrypted to any of the keys at hand"))
                .with_next_step("use the owner-identity.txt whose recipient this repository was made for"))
        }
        Err(e) => Err(damaged(name, &format!("age cannot decrypt it: {e}"))),
    }
}

fn damaged(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("{name} is damaged: {why}"))
        .with_next_step("run `backup verify` for the whole extent; restore from another snapshot or store")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::OwnerIdentity;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_sealed_opens_and_any_change_is_refused(
            plain in prop::collection::vec(any::<u8>(), 0..200_000), at: prop::sample::Index, bit in 0u8..8,
        ) {
            let owner = OwnerIdentity::generate();
            let cipher = Cipher::Age(vec![owner.recipient(), OwnerIdentity::generate().recipient()]);
            let sealed = seal(&plain, 3, &cipher).unwrap();
            let length = Length::Exactly(plain.len() as u64);
            prop_assert_eq!(&open(&sealed.bytes, &sealed.digest, length, &[owner.age()], true, "x").unwrap(), &plain);
            let stranger = OwnerIdentity::generate();
            prop_assert_eq!(
                open(&sealed.bytes, &sealed.digest, length, &[stranger.age()], true, "x").unwrap_err().kind(),
                ErrorKind::KeyWrong
            );
            let mut flipped = sealed.bytes.to_vec();
            let at = at.index(flipped.len());
            flipped[at] ^= 1 << bit;
            prop_assert_eq!(open(&flipped, &sealed.digest, length, &[owner.age()], true, "x").unwrap_err().kind(), ErrorKind::Damaged);
            // Even without the digest, encryption itself notices.
            prop_assert!(unseal(&flipped, length, &[owner.age()], true, "x").is_err());
            prop_assert!(unseal(&sealed.bytes[..at], length, &[owner.age()], true, "x").is_err());
        }
    }

    #[test]
    fn a_small_object_cannot_fill_the_memory() {
        let sealed = seal(&vec![0; 50 << 20], 3, &Cipher::Plain).unwrap();
        assert!(sealed.bytes.len() < 10_000);
        assert_eq!(
            unseal(&sealed.bytes, Length::AtMost(1 << 20), &[], false, "bomb").unwrap_err().kind(),
            ErrorKind::Damaged
        );
    }
}
