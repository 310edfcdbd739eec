//! A file that was listed, opened: plain or compressed, at a place.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::listing::Candidate;
use crate::error::{Error, ErrorKind, Result, file};

/// A file, and how much of it was read.
pub(super) struct Opened {
    inner: Inner,
    pub(super) at: u64,
}

enum Inner {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = match &mut self.inner {
            Inner::Plain(file) => file.read(buffer)?,
            Inner::Gzip(decoder) => decoder.read(buffer)?,
        };
        self.at += n as u64;
        Ok(n)
    }
}

impl Opened {
    /// Goes on to that place; `false` where the file ends before it.
    pub(super) fn skip_to(&mut self, place: u64) -> std::io::Result<bool> {
        match &mut self.inner {
            Inner::Plain(file) => {
                file.seek(SeekFrom::Start(place))?;
                self.at = place;
                Ok(true)
            }
            Inner::Gzip(_) => {
                let wanted = place.saturating_sub(self.at);
                let skipped = std::io::copy(&mut self.by_ref().take(wanted), &mut std::io::sink())?;
                Ok(skipped == wanted)
            }
        }
    }
}

/// Opens the file that was listed; `None` where the name is another file's by now.
pub(super) fn open(candidate: &Candidate) -> Result<Option<Opened>> {
    let opened = match File::open(&candidate.path) {
        Ok(opened) => opened,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(moved(&candidate.path)),
        Err(e) => return Err(file(&candidate.path, "cannot be read", e)),
    };
    let about = opened.metadata().map_err(|e| file(&candidate.path, "cannot be read", e))?;
    if (about.dev(), about.ino()) != (candidate.device, candidate.inode) {
        return Err(moved(&candidate.path));
    }
    let inner = match candidate.compressed {
        true => Inner::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(opened)))),
        false => Inner::Plain(opened),
    };
    Ok(Some(Opened { inner, at: 0 }))
}

/// It was rotated between listing and opening: the whole scan is to be done again.
pub(super) fn moved(path: &Path) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{}: was rotated just now", path.display()))
        .with_next_step("scan again; nothing was counted")
}

pub(super) fn damaged(candidate: &Candidate, e: std::io::Error) -> Error {
    match candidate.compressed {
        // Compression may still be under way.
        true => Error::new(
            ErrorKind::Unreachable,
            format!("{}: is damaged, or not yet written to its end", candidate.path.display()),
        )
        .with_next_step("scan again later; nothing was counted")
        .with_source(e),
        false => file(&candidate.path, "cannot be read", e),
    }
}

pub(super) fn read_full(from: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut at = 0;
    while at < into.len() {
        match from.read(&mut into[at..])? {
            0 => break,
            n => at += n,
        }
    }
    Ok(at)
}

pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..16])
}
