//! One file, directory or link as a tar member, with its fingerprint.

use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::BIG;
use super::ahead::{OF_ONE, Opened, will_need};
use crate::error::Result;
use crate::fingerprint::{Fingerprint, RowHasher};
use crate::manifest::{Member, MemberPath};

/// How often a file that changes while it is read is read again.
const ATTEMPTS: u32 = 3;
const BLOCK: u64 = 512;

/// A file whose bytes went elsewhere.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) member: Member,
    pub(super) fingerprint: Fingerprint,
    /// Why it may be neither its old nor its new state.
    pub(super) problem: Option<String>,
}

/// The hash of one member: path, type, mode, time and content, not owner. What two equal trees have equal.
#[derive(Debug)]
struct MemberHash(RowHasher);

impl MemberHash {
    fn new(kind: EntryType, path: &Path, mode: u32, mtime: (i64, u32)) -> Self {
        let mut hasher = RowHasher::new();
        hasher.update(&[kind.as_byte()]);
        hasher.update(&(path.as_os_str().len() as u64).to_le_bytes());
        hasher.update(path.as_os_str().as_bytes());
        hasher.update(&(mode & 0o7777).to_le_bytes());
        hasher.update(&mtime.0.to_le_bytes());
        hasher.update(&mtime.1.to_le_bytes());
        Self(hasher)
    }

    fn update(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    fn finish(&self) -> u128 {
        self.0.finish()
    }
}

/// What became of a small file.
#[derive(Debug)]
pub(super) enum Small {
    /// It was appended.
    Read(Read),
    /// It is gone.
    Gone,
    /// It is no small one, or not any more.
    Big(Opened),
}

/// Appends a small file to `tar`, read again if it changed meanwhile; nothing is appended unless it was read.
pub(super) fn read_small(path: &Path, relative: &Path, opened: Opened, tar: &mut Vec<u8>) -> io::Result<Small> {
    let begin = tar.len();
    let done = append_small(path, relative, opened, tar);
    if !matches!(done, Ok(Small::Read(_))) {
        tar.truncate(begin);
    }
    done
}

fn append_small(path: &Path, relative: &Path, opened: Opened, tar: &mut Vec<u8>) -> io::Result<Small> {
    let begin = tar.len();
    let mut opened = Some(opened);
    for attempt in 1..=ATTEMPTS {
        let again = match opened.take() {
            Some(opened) => Some(opened),
            None => open(path)?,
        };
        let Some(again) = again else { return Ok(Small::Gone) };
        if again.metadata.len() >= BIG {
            return Ok(Small::Big(again));
        }
        let Opened { mut file, metadata: before } = again;
        tar.truncate(begin);
        tar.extend_from_slice(&header(relative, &before)?);
        let content = tar.len();
        // Bounded: a file that grows without end is cut where it was.
        file.by_ref().take(before.len()).read_to_end(tar)?;
        let read = (tar.len() - content) as u64;
        let still = is_same(&before, &file.metadata()?) && read == before.len();
        if still || attempt == ATTEMPTS {
            tar.resize(content + usize::try_from(before.len()).unwrap_or(tar.len() - content), 0);
            let mut hash = hash_of(relative, &before);
            hash.update(&tar[content..]);
            tar.resize(tar.len() + padding(before.len()), 0);
            let mut fingerprint = Fingerprint::EMPTY;
            fingerprint.add_hash(hash.finish());
            let problem = (!still).then(|| CHANGING.to_owned());
            return Ok(Small::Read(Read { member: member(relative, &before), fingerprint, problem }));
        }
    }
    Ok(Small::Gone)
}

/// Reads a big file piece by piece; what changed meanwhile or could not be read to its end is zeros, and a problem.
pub(super) fn read_big(
    relative: &Path,
    opened: Opened,
    piece: usize,
    emit: &mut dyn FnMut(Vec<u8>) -> Result<()>,
) -> Result<Option<Read>> {
    let Opened { mut file, metadata: before } = opened;
    let Ok(header) = header(relative, &before) else { return Ok(None) };
    emit(header)?;
    let mut hash = hash_of(relative, &before);
    let mut left = before.len();
    let mut problem = None;
    while left > 0 {
        let want = left.min(piece as u64);
        will_need(&file, before.len() - left + OF_ONE, want);
        let mut bytes = Vec::with_capacity(usize::try_from(want).unwrap_or(piece));
        if problem.is_none()
            && let Err(e) = file.by_ref().take(want).read_to_end(&mut bytes)
        {
            problem = Some(format!("it cannot be read to its end: {e}; what is missing is zeros"));
        }
        if bytes.is_empty() {
            problem.get_or_insert_with(|| CHANGING.to_owned());
            // The length is written already: what is missing has to be something.
            bytes.resize(usize::try_from(want).unwrap_or(piece), 0);
        }
        left -= bytes.len() as u64;
        hash.update(&bytes);
        emit(bytes)?;
    }
    emit(vec![0; padding(before.len())])?;
    match file.metadata() {
        Ok(after) if is_same(&before, &after) => {}
        _ => {
            problem.get_or_insert_with(|| CHANGING.to_owned());
        }
    }
    let mut fingerprint = Fingerprint::EMPTY;
    fingerprint.add_hash(hash.finish());
    Ok(Some(Read { member: member(relative, &before), fingerprint, problem }))
}

pub(super) fn append_directory(tar: &mut Vec<u8>, path: &Path, relative: &Path) -> io::Result<u128> {
    let metadata = path.symlink_metadata()?;
    tar.extend_from_slice(&header_of(EntryType::Directory, relative, &metadata, None)?);
    Ok(MemberHash::new(EntryType::Directory, relative, metadata.mode(), mtime(&metadata)).finish())
}

pub(super) fn append_link(tar: &mut Vec<u8>, path: &Path, relative: &Path) -> io::Result<u128> {
    let metadata = path.symlink_metadata()?;
    let target = fs::read_link(path)?;
    tar.extend_from_slice(&header_of(EntryType::Symlink, relative, &metadata, Some(&target))?);
    // A link's mode means nothing.
    let mut hash = MemberHash::new(EntryType::Symlink, relative, 0, mtime(&metadata));
    hash.update(target.as_os_str().as_bytes());
    Ok(hash.finish())
}

/// Seconds and nanoseconds of a member's modification time: from the PAX record where there is one.
pub(crate) fn header_mtime<R: io::Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<(i64, u32)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "a member's time makes no sense");
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if extension.key_bytes() == b"mtime" {
                return parse_time(extension.value_bytes()).ok_or_else(invalid);
            }
        }
    }
    Ok((i64::try_from(entry.header().mtime()?).map_err(|_| invalid())?, 0))
}

const CHANGING: &str = "it changed while it was read; what is kept is neither its old nor its new state for certain";

/// `None` where it is gone, or no regular file.
pub(super) fn open(path: &Path) -> io::Result<Option<Opened>> {
    // Without following a link that took the file's place, and without waiting for a pipe's other end.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    match fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => {
            let metadata = file.metadata()?;
            Ok(metadata.is_file().then_some(Opened { file, metadata }))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        // A link took its place.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The file that is there now: what was opened ahead, unless it changed or another took its name.
pub(super) fn refreshed(ahead: Option<Opened>, path: &Path) -> io::Result<Option<Opened>> {
    match ahead {
        Some(opened) if is_same(&opened.metadata, &opened.file.metadata()?) => Ok(Some(opened)),
        _ => open(path),
    }
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    let facts = |m: &Metadata| (m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
    facts(a) == facts(b)
}

fn member(relative: &Path, metadata: &Metadata) -> Member {
    Member {
        path: MemberPath::from_bytes(relative.as_os_str().as_bytes()),
        size: metadata.len(),
        mtime: mtime(metadata),
        ctime: (metadata.ctime(), nanoseconds(metadata.ctime_nsec())),
        inode: metadata.ino(),
        mode: metadata.mode(),
    }
}

pub(super) fn mtime(metadata: &Metadata) -> (i64, u32) {
    (metadata.mtime(), nanoseconds(metadata.mtime_nsec()))
}

pub(super) fn nanoseconds(n: i64) -> u32 {
    // The kernel's is between 0 and 999,999,999.
    u32::try_from(n).unwrap_or(0)
}

fn hash_of(relative: &Path, metadata: &Metadata) -> MemberHash {
    MemberHash::new(EntryType::Regular, relative, metadata.mode(), mtime(metadata))
}

fn header(relative: &Path, metadata: &Metadata) -> io::Result<Vec<u8>> {
    header_of(EntryType::Regular, relative, metadata, None)
}

/// The header blocks of a member: GNU form, long names included, nanoseconds and years before 1970 in a PAX record.
fn header_of(kind: EntryType, relative: &Path, metadata: &Metadata, link: Option<&Path>) -> io::Result<Vec<u8>> {
    let (seconds, nanoseconds) = mtime(metadata);
    let mut builder = Builder::new(Vec::with_capacity(2048));
    if nanoseconds > 0 || seconds < 0 {
        let time = format_time(seconds, nanoseconds);
        builder.append_pax_extensions([("mtime", time.as_bytes())])?;
    }
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(seconds).unwrap_or(0));
    // Raw bytes throughout: the library would tidy link targets up, and cannot shorten a name that is no text.
    if let Some(target) = link {
        let target = target.as_os_str().as_bytes();
        if header.set_link_name_literal(target).is_err() {
            append_long_name(&mut builder, EntryType::GNULongLink, target)?;
        }
    }
    header.set_size(if kind == EntryType::Regular { metadata.len() } else { 0 });
    let path = relative.as_os_str().as_bytes();
    let short = header.as_gnu_mut().map(|h| &mut h.name).filter(|name| path.len() < name.len());
    match short {
        Some(name) => name[..path.len()].copy_from_slice(path),
        None => {
            append_long_name(&mut builder, EntryType::GNULongName, path)?;
            header.set_path("long-name")?;
        }
    }
    header.set_cksum();
    builder.append(&header, io::empty())?;
    Ok(std::mem::take(builder.get_mut()))
}

/// A member that holds the name of the next one, as GNU tar has it.
fn append_long_name(builder: &mut Builder<Vec<u8>>, kind: EntryType, name: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_path("././@LongLink")?;
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(name.len() as u64 + 1);
    header.set_cksum();
    builder.append(&header, name.chain(&[0][..]))
}

fn padding(size: u64) -> usize {
    // Below 512.
    usize::try_from((BLOCK - size % BLOCK) % BLOCK).unwrap_or(0)
}

/// Decimal seconds since 1970, as POSIX pax has it: -1.5 is a second and a half before.
fn format_time(seconds: i64, nanoseconds: u32) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    let rest = 1_000_000_000 - nanoseconds;
    format!("-{}.{rest:09}", -(seconds + 1))
}

fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let whole: i64 = whole.parse().ok()?;
    let mut digits = fraction.as_bytes().to_vec();
    digits.resize(9, b'0');
    let nanoseconds: u32 = std::str::from_utf8(&digits[..9]).ok()?.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (true, n) if n > 0 => (whole - 1, 1_000_000_000 - n),
        (_, n) => (whole, n),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_come_back_to_the_nanosecond(seconds in -5_000_000_000i64..50_000_000_000, nanoseconds in 0u32..1_000_000_000) {
            let text = format_time(seconds, nanoseconds);
            prop_assert_eq!(parse_time(text.as_bytes()), Some((seconds, nanoseconds)), "{}", text);
        }
    }
}
