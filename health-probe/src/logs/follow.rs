//! Reading a log across its rotation: each line once, also where it was renamed, copied and truncated, or compressed meanwhile.
//!
//! Names and inodes prove nothing: a name is given away, an inode is used again. What was read is known by its content: by a
//! digest of its first bytes, and one of the last bytes before the place up to which it was read. A file of which both are
//! there is the one; it is read on from that place. A file that is like none of those known is new, and read from its
//! beginning.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result, file};

/// Bytes at the beginning by which a file is known.
const HEAD: usize = 256;
/// Bytes before the place by which it is known.
const TAIL: usize = 512;
/// A longer line is one line, and only its beginning is shown.
const LONGEST: usize = 1 << 20;
const CHUNK: usize = 256 << 10;

/// Where to begin in a log that was never read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At the first line of the file as it is now; what was rotated away is left out.
    #[default]
    File,
    /// At its end: only what comes from now on.
    End,
    /// At the oldest rotated file that is there.
    Oldest,
}

/// How far a log was read. To be kept together with what was counted, in one step: then a process that is killed in between
/// counts nothing twice and leaves nothing out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Follower {
    path: PathBuf,
    start: Start,
    /// `None` before the first scan.
    places: Option<Vec<Place>>,
}

/// What a scan came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scan {
    /// Lines that were read.
    pub lines: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Files that were read from, or looked at.
    pub files: u32,
    /// Whether a file that had not been read to its end is gone, and with it lines that nobody counted.
    pub lost: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    device: u64,
    inode: u64,
    size: u64,
    modified: i64,
    /// The first bytes, in hexadecimal: of a copy that was broken off only some of them may be there.
    head: String,
    offset: u64,
    tail_length: usize,
    tail: String,
    /// It was the log itself, not one that was rotated away.
    live: bool,
    /// It is read to its end, and will not grow.
    finished: bool,
}

struct Candidate {
    path: PathBuf,
    live: bool,
    compressed: bool,
    device: u64,
    inode: u64,
    size: u64,
    modified: i64,
    /// Some other rotated file is newer.
    superseded: bool,
}

impl Follower {
    /// A log that was never read.
    pub fn new(path: impl Into<PathBuf>, start: Start) -> Self {
        Self { path: path.into(), start, places: None }
    }

    /// The log.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all whole lines that are new, and gives each to `line`, without its end. The last line of a log counts once its end
    /// is there; of a rotated file, also where it never came and nobody wrote for a minute before `now`.
    ///
    /// Blocking: call it where that is allowed. On an error, what `line` was given is to be thrown away, for this stands where
    /// it stood before.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] or [`ErrorKind::Storage`] where a file cannot be read, [`ErrorKind::Unreachable`] where the log is
    /// gone, was rotated just now, or a compressed one is not written to its end.
    pub fn scan(&mut self, now: DateTime<Utc>, line: impl FnMut(&[u8])) -> Result<Scan> {
        self.scan_listed(&self.candidates()?, now, line)
    }

    fn scan_listed(
        &mut self,
        candidates: &[Candidate],
        now: DateTime<Utc>,
        mut line: impl FnMut(&[u8]),
    ) -> Result<Scan> {
        let known = self.places.clone();
        let (assigned, leftover) = assign(candidates, known.as_deref().unwrap_or_default())?;
        let lost = leftover.iter().any(|p| !p.finished && p.offset > 0);
        // A listing is no picture of one moment: what was rotated away while it was made may be in it under neither name.
        if lost && !same_names(candidates, &self.candidates()?) {
            return Err(moved(&self.path));
        }
        let mut scan = Scan { lost, ..Scan::default() };
        let mut places = Vec::new();
        let mut buffer = vec![0u8; CHUNK];
        for (candidate, assigned) in candidates.iter().zip(assigned) {
            let passed = matches!(assigned, Some(Assigned::Passed));
            let from = match assigned {
                Some(Assigned::Same(place)) => {
                    places.push(place);
                    continue;
                }
                Some(Assigned::From(place)) => Some(place),
                Some(Assigned::Copy) => continue,
                Some(Assigned::Passed) | None => None,
            };
            // At the first scan, what lies before the start is passed over, and known from then on.
            let before = match self.start {
                Start::File => !candidate.live,
                Start::End => true,
                Start::Oldest => false,
            };
            let skip = passed || (known.is_none() && before);
            scan.files += 1;
            let quiet = DateTime::from_timestamp_nanos(candidate.modified) + Duration::from_secs(60) < now;
            let last_counts = candidate.compressed || (!candidate.live && (candidate.superseded || quiet));
            let reading = Reading { candidate, from, skip, last_counts };
            places.extend(reading.run(&mut buffer, &mut scan, &mut line)?);
        }
        self.places = Some(places);
        Ok(scan)
    }

    /// The log and what was rotated away from it, oldest first.
    fn candidates(&self) -> Result<Vec<Candidate>> {
        let name = self
            .path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("{}: is no file", self.path.display())))?;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let entries = std::fs::read_dir(folder).map_err(|e| file(folder, "cannot be listed", e))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| file(folder, "cannot be listed", e))?;
            let entry_name = entry.file_name().to_string_lossy().into_owned();
            let live = entry_name == name;
            let compressed = entry_name.ends_with(".gz");
            if !live && !is_rotated(&name, &entry_name) {
                continue;
            }
            let path = entry.path();
            let about = match std::fs::metadata(&path) {
                Ok(about) => about,
                // It was rotated just now.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(file(&path, "cannot be read", e)),
            };
            if about.is_file() {
                found.push(Candidate {
                    path,
                    live,
                    compressed,
                    device: about.dev(),
                    inode: about.ino(),
                    size: about.size(),
                    modified: about.mtime().saturating_mul(1_000_000_000) + about.mtime_nsec(),
                    superseded: false,
                });
            }
        }
        if found.is_empty() && self.places.is_none() {
            return Err(Error::new(ErrorKind::Storage, format!("{}: there is no such log", self.path.display()))
                .with_next_step("check the path; a log that is not there says nothing"));
        }
        if !found.iter().any(|c| c.live) && self.places.is_some() {
            return Err(Error::new(ErrorKind::Unreachable, format!("{}: the log is gone", self.path.display()))
                .with_next_step("see whether the server still writes it, and where to"));
        }
        found.sort_by_key(|c| (c.live, age_rank(&name, &c.path), c.modified));
        let rotated = found.iter().filter(|c| !c.live).count();
        for candidate in found.iter_mut().filter(|c| !c.live).take(rotated.saturating_sub(1)) {
            candidate.superseded = true;
        }
        Ok(found)
    }
}

fn same_names(a: &[Candidate], b: &[Candidate]) -> bool {
    let names = |list: &[Candidate]| list.iter().map(|c| (c.path.clone(), c.device, c.inode)).collect::<BTreeSet<_>>();
    names(a) == names(b)
}

/// `access.log.1`, `access.log.2.gz`, `access.log-20260115`, `access.log-20260115-1768478400.gz`.
fn is_rotated(name: &str, other: &str) -> bool {
    let rest = other.strip_prefix(name).and_then(|r| r.strip_prefix(['.', '-']));
    let rest = rest.map(|r| r.strip_suffix(".gz").unwrap_or(r));
    rest.is_some_and(|r| {
        !r.is_empty() && r.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'T' | b':'))
    })
}

/// Smaller is older: of numbers, the larger; of dates, the earlier.
fn age_rank(name: &str, path: &Path) -> i64 {
    let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let rest = file.strip_prefix(name).unwrap_or("").trim_start_matches(['.', '-']).trim_end_matches(".gz");
    let digits: String = rest.chars().filter(char::is_ascii_digit).take(17).collect();
    match digits.parse::<i64>() {
        Ok(n) if digits.len() >= 6 => n,
        Ok(n) => -n,
        Err(_) => 0,
    }
}

enum Assigned {
    /// Nothing changed.
    Same(Place),
    /// Read up to this place.
    From(Place),
    /// A copy of the log, which is not yet truncated: it is looked at again then.
    Copy,
    /// A copy of the log with nothing in it that was not read: known from now on.
    Passed,
}

type Assignments = (Vec<Option<Assigned>>, Vec<Place>);

fn assign(candidates: &[Candidate], places: &[Place]) -> Result<Assignments> {
    let mut free: Vec<Option<&Place>> = places.iter().map(Some).collect();
    let mut assigned: Vec<Option<Assigned>> = candidates.iter().map(|_| None).collect();
    // What was not touched needs no reading.
    for (candidate, slot) in candidates.iter().zip(&mut assigned) {
        let same = |p: &&Place| {
            (p.device, p.inode, p.size, p.modified)
                == (candidate.device, candidate.inode, candidate.size, candidate.modified)
                && p.live == candidate.live
                && p.finished
        };
        if let Some(at) = free.iter().position(|p| p.as_ref().is_some_and(same)) {
            *slot = free[at].take().cloned().map(Assigned::Same);
        }
    }
    // Does the log still begin and go on as it did?
    let live = candidates.iter().position(|c| c.live);
    let live_place = free.iter().position(|p| p.is_some_and(|p| p.live));
    let mut log_goes_on = false;
    if let (Some(c), Some(p)) = (live, live_place)
        && let Some(place) = free[p]
        && (place.device, place.inode) == (candidates[c].device, candidates[c].inode)
        && holds(&candidates[c], place)?
    {
        assigned[c] = Some(Assigned::From(place.clone()));
        log_goes_on = true;
    }
    for (at, candidate) in candidates.iter().enumerate() {
        if assigned[at].is_some() || candidate.live {
            continue;
        }
        // What is known by its content first, of that its own inode, then what was read furthest. Of a file of which nothing was
        // read, only the inode is known, and that may be another file's by now.
        let mut order: Vec<usize> = (0..free.len()).filter(|i| free[*i].is_some()).collect();
        order.sort_by_key(|i| {
            let of = |p: &Place| {
                let own = (p.device, p.inode) == (candidate.device, candidate.inode);
                (p.offset == 0, !own, std::cmp::Reverse(p.offset))
            };
            free[*i].map(of)
        });
        for i in order {
            let Some(place) = free[i] else { continue };
            let own = (place.device, place.inode) == (candidate.device, candidate.inode);
            if place.offset == 0 && !own {
                continue;
            }
            // The log was truncated, and what lies here may be the copy that was made before: by now it is whole, but when the folder
            // was listed it may still have been growing.
            if place.live && !own && !log_goes_on && !candidate.compressed && grew(candidate)? {
                return Err(moved(&candidate.path));
            }
            if place.live && log_goes_on {
                // Like the log, which is still there: copied and not yet truncated.
                if begins_like(candidate, place)? {
                    assigned[at] = Some(Assigned::Copy);
                    break;
                }
                continue;
            }
            if holds(candidate, place)? {
                assigned[at] = Some(Assigned::From(place.clone()));
                free[i] = None;
                break;
            }
            // The log was truncated after more of it was read than was copied: there is nothing new in the copy.
            if place.live && !own && begins_like(candidate, place)? {
                let length = length(candidate)?;
                if length < place.offset {
                    assigned[at] = Some(Assigned::Passed);
                    free[i] = None;
                    break;
                }
            }
        }
    }
    if log_goes_on && let Some(p) = live_place {
        free[p] = None;
    }
    // A second copy of what was read already: compressed and not yet deleted, or kept under another name.
    for (at, candidate) in candidates.iter().enumerate() {
        if assigned[at].is_none() && !candidate.live {
            for place in places.iter().filter(|p| p.offset > 0 && p.finished) {
                if holds(candidate, place)? && length(candidate)? == place.offset {
                    assigned[at] = Some(Assigned::Passed);
                    break;
                }
            }
        }
    }
    // A copy of a log that nobody read before, not yet truncated.
    if let Some(live) = live.map(|l| &candidates[l]) {
        for (at, candidate) in candidates.iter().enumerate() {
            if assigned[at].is_none() && !candidate.live && is_beginning_of(candidate, live)? {
                assigned[at] = Some(Assigned::Copy);
            }
        }
    }
    let leftover = free.into_iter().flatten().cloned().collect();
    Ok((assigned, leftover))
}

/// Whether the file has all that was read, as far as can be told.
fn holds(candidate: &Candidate, place: &Place) -> Result<bool> {
    if !candidate.compressed && candidate.size < place.offset {
        return Ok(false);
    }
    if place.offset == 0 {
        return Ok(true);
    }
    if !begins_like(candidate, place)? {
        return Ok(false);
    }
    let Some(mut opened) = open(candidate)? else { return Ok(false) };
    let mut tail = vec![0; place.tail_length];
    let whole = opened.skip_to(place.offset - place.tail_length as u64).and_then(|there| match there {
        true => read_full(&mut opened, &mut tail).map(|n| n == tail.len()),
        false => Ok(false),
    });
    let whole = whole.map_err(|e| damaged(candidate, e))?;
    Ok(whole && digest(&tail) == place.tail)
}

/// Whether the file begins as the one that was read did; as much of it as there is, and at least something.
fn begins_like(candidate: &Candidate, place: &Place) -> Result<bool> {
    let wanted = hex::decode(&place.head).map_err(|e| {
        Error::new(ErrorKind::Malformed, format!("what was kept of {} cannot be read", candidate.path.display()))
            .with_source(e)
    })?;
    let Some(mut opened) = open(candidate)? else { return Ok(false) };
    let mut head = vec![0; wanted.len()];
    let read = read_full(&mut opened, &mut head).map_err(|e| damaged(candidate, e))?;
    Ok(read > 0 && wanted.starts_with(&head[..read]))
}

/// Whether a file is what another one begins with, as far as can be told.
fn is_beginning_of(candidate: &Candidate, live: &Candidate) -> Result<bool> {
    if candidate.compressed || candidate.size == 0 || candidate.size > live.size {
        return Ok(false);
    }
    let (Some(mut a), Some(mut b)) = (open(candidate)?, open(live)?) else { return Ok(false) };
    let ends = |opened: &mut Opened| -> std::io::Result<(Vec<u8>, Vec<u8>)> {
        let mut head = vec![0; usize::try_from(candidate.size).unwrap_or(HEAD).min(HEAD)];
        read_full(opened, &mut head)?;
        opened.skip_to(candidate.size.saturating_sub(TAIL as u64))?;
        let mut tail = vec![0; usize::try_from(candidate.size).unwrap_or(TAIL).min(TAIL)];
        read_full(opened, &mut tail)?;
        Ok((head, tail))
    };
    Ok(ends(&mut a).map_err(|e| damaged(candidate, e))? == ends(&mut b).map_err(|e| damaged(live, e))?)
}

/// Whether the file is not as long any more as it was when the folder was listed.
fn grew(candidate: &Candidate) -> Result<bool> {
    match std::fs::metadata(&candidate.path) {
        Ok(about) => Ok(about.size() != candidate.size),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(file(&candidate.path, "cannot be read", e)),
    }
}

fn length(candidate: &Candidate) -> Result<u64> {
    if !candidate.compressed {
        return Ok(candidate.size);
    }
    let Some(mut opened) = open(candidate)? else { return Ok(0) };
    std::io::copy(&mut opened, &mut std::io::sink()).map_err(|e| damaged(candidate, e))
}

struct Reading<'a> {
    candidate: &'a Candidate,
    from: Option<Place>,
    skip: bool,
    last_counts: bool,
}

impl Reading<'_> {
    /// Reads on; `None` where the file is gone.
    fn run(self, buffer: &mut [u8], scan: &mut Scan, line: &mut impl FnMut(&[u8])) -> Result<Option<Place>> {
        let candidate = self.candidate;
        let damaged = |e| damaged(candidate, e);
        let Some(mut opened) = open(candidate)? else { return Ok(None) };
        let mut place = self.from.unwrap_or_else(|| Place::unread(candidate));
        let begin = place.offset;
        let mut window = Window::default();
        // What the digests are of is read again: a few bytes.
        let mut head = vec![0; (begin as usize).min(HEAD)];
        read_full(&mut opened, &mut head).map_err(damaged)?;
        if begin > 0 {
            opened.skip_to(begin.saturating_sub(TAIL as u64).max(head.len() as u64)).map_err(damaged)?;
            let mut before = vec![0; (begin - opened.at) as usize];
            let read = read_full(&mut opened, &mut before).map_err(damaged)?;
            window.push(&head[head.len().saturating_sub(TAIL)..]);
            window.push(&before);
            // Truncated since it was found to go on as it did.
            if read != before.len() || digest(window.last(place.tail_length)) != place.tail {
                return Err(moved(&candidate.path));
            }
        }
        let mut pending: Vec<u8> = Vec::new();
        let mut too_long = false;
        let mut total = begin;
        let mut consumed = begin;
        let mut unseen = Vec::new();
        loop {
            // Up to the size that it had, so that a busy log has an end.
            let room = match candidate.compressed {
                true => buffer.len(),
                false => buffer.len().min(usize::try_from(candidate.size.saturating_sub(total)).unwrap_or(usize::MAX)),
            };
            if room == 0 {
                break;
            }
            let n = opened.read(&mut buffer[..room]).map_err(damaged)?;
            if n == 0 {
                break;
            }
            let chunk = &buffer[..n];
            total += n as u64;
            let mut from = 0;
            for end in memchr::memchr_iter(b'\n', chunk) {
                let piece = &chunk[from..end];
                if !self.skip {
                    if pending.is_empty() && !too_long {
                        line(trimmed(piece));
                    } else {
                        grow(&mut pending, piece, &mut too_long);
                        line(trimmed(&pending));
                    }
                    scan.lines += 1;
                }
                pending.clear();
                too_long = false;
                from = end + 1;
            }
            grow(&mut pending, &chunk[from..], &mut too_long);
            if from > 0 {
                consumed = total - (n - from) as u64;
                if head.len() < HEAD {
                    head.extend_from_slice(&unseen[..unseen.len().min(HEAD - head.len())]);
                    head.extend_from_slice(&chunk[..from.min(HEAD - head.len().min(HEAD))]);
                    head.truncate(HEAD);
                }
                window.push(&unseen);
                window.push(&chunk[..from]);
                unseen.clear();
            }
            keep(&mut unseen, &chunk[from..]);
        }
        // Truncated while it was read, and perhaps written to again: then what was read is of two logs.
        if !candidate.compressed && total > 0 {
            let mut read_last = vec![0; window.last(TAIL).len()];
            opened.skip_to(consumed - read_last.len() as u64).map_err(damaged)?;
            read_full(&mut opened, &mut read_last).map_err(damaged)?;
            let mut read_first = vec![0; head.len()];
            opened.skip_to(0).map_err(damaged)?;
            read_full(&mut opened, &mut read_first).map_err(damaged)?;
            if read_last != window.last(TAIL) || read_first != head {
                return Err(moved(&candidate.path));
            }
        }
        if self.last_counts && consumed < total {
            if !self.skip {
                line(trimmed(&pending));
                scan.lines += 1;
            }
            consumed = total;
            if head.len() < HEAD {
                head.extend_from_slice(&unseen[..unseen.len().min(HEAD - head.len())]);
            }
            window.push(&unseen);
        }
        if !self.skip {
            scan.bytes += consumed - begin;
        }
        place.offset = consumed;
        head.truncate((consumed as usize).min(HEAD));
        place.head = hex::encode(&head);
        let tail = window.last(TAIL.min(consumed as usize));
        (place.tail_length, place.tail) = (tail.len(), digest(tail));
        place.finished = !candidate.live && consumed == total && (self.last_counts || candidate.superseded);
        place.live = candidate.live;
        (place.device, place.inode) = (candidate.device, candidate.inode);
        (place.size, place.modified) = (candidate.size, candidate.modified);
        Ok(Some(place))
    }
}

impl Place {
    fn unread(candidate: &Candidate) -> Self {
        Self {
            device: candidate.device,
            inode: candidate.inode,
            size: candidate.size,
            modified: candidate.modified,
            head: String::new(),
            offset: 0,
            tail_length: 0,
            tail: String::new(),
            live: candidate.live,
            finished: false,
        }
    }
}

/// The last bytes of what was consumed.
#[derive(Default)]
struct Window(Vec<u8>);

impl Window {
    fn push(&mut self, bytes: &[u8]) {
        if bytes.len() >= TAIL {
            self.0.clear();
            self.0.extend_from_slice(&bytes[bytes.len() - TAIL..]);
            return;
        }
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * TAIL {
            self.0.drain(..self.0.len() - TAIL);
        }
    }

    fn last(&self, n: usize) -> &[u8] {
        &self.0[self.0.len().saturating_sub(n)..]
    }
}

/// An incomplete line's bytes, as many as the digests may need: its beginning and its end.
fn keep(unseen: &mut Vec<u8>, bytes: &[u8]) {
    unseen.extend_from_slice(bytes);
    if unseen.len() > 4 * LONGEST {
        let end = unseen.split_off(unseen.len() - TAIL);
        unseen.truncate(HEAD);
        unseen.extend_from_slice(&end);
    }
}

fn grow(pending: &mut Vec<u8>, piece: &[u8], too_long: &mut bool) {
    let room = LONGEST - pending.len().min(LONGEST);
    pending.extend_from_slice(&piece[..piece.len().min(room)]);
    *too_long |= piece.len() > room;
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    &line[..line.len().min(LONGEST)]
}

struct Opened {
    inner: Inner,
    at: u64,
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
    fn skip_to(&mut self, place: u64) -> std::io::Result<bool> {
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
fn open(candidate: &Candidate) -> Result<Option<Opened>> {
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
fn moved(path: &Path) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{}: was rotated just now", path.display()))
        .with_next_step("scan again; nothing was counted")
}

fn damaged(candidate: &Candidate, e: std::io::Error) -> Error {
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

fn read_full(from: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut at = 0;
    while at < into.len() {
        match from.read(&mut into[at..])? {
            0 => break,
            n => at += n,
        }
    }
    Ok(at)
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_was_still_growing_when_it_was_listed_is_looked_at_again() {
        for listed in [0, 40, 60] {
            let folder = tempfile::tempdir().unwrap();
            let (log, copy) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
            let lines = |n: usize| (0..n).map(|i| format!("line {i:03}\n")).collect::<String>();
            std::fs::write(&log, lines(6)).unwrap();
            let mut follower = Follower::new(&log, Start::File);
            assert_eq!(follower.scan(Utc::now(), |_| {}).unwrap().lines, 6);
            // logrotate copies what there is by now, and truncates, while the folder is listed.
            std::fs::write(&copy, &lines(9)[..listed]).unwrap();
            let candidates = follower.candidates().unwrap();
            std::fs::write(&copy, lines(9)).unwrap();
            std::fs::write(&log, "").unwrap();
            let places = follower.places.clone().unwrap();
            let error = assign(&candidates, &places).err().map(|e| e.to_string()).unwrap();
            assert!(error.contains("was rotated just now"), "{error}");
            let mut seen = Vec::new();
            follower.scan(Utc::now(), |l| seen.push(String::from_utf8_lossy(l).into_owned())).unwrap();
            assert_eq!(seen, ["line 006", "line 007", "line 008"]);
            assert_eq!(follower.scan(Utc::now(), |_| {}).unwrap().lines, 0);
        }
    }

    #[test]
    fn a_log_that_a_listing_has_under_neither_name_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (log, old) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
        std::fs::write(&log, "one\ntwo\n").unwrap();
        let mut follower = Follower::new(&log, Start::File);
        follower.scan(Utc::now(), |_| {}).unwrap();
        // Renamed after its new name was passed in the listing, and before its old one was reached.
        std::fs::rename(&log, &old).unwrap();
        std::fs::write(&log, "three\n").unwrap();
        let mut listed = follower.candidates().unwrap();
        listed.retain(|c| c.live);
        let error = follower.scan_listed(&listed, Utc::now(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("was rotated just now") && error.is_retryable(), "{error}");
        let scan = follower.scan(Utc::now(), |_| {}).unwrap();
        assert_eq!((scan.lines, scan.lost), (1, false));
        // What is really gone is said to be.
        std::fs::write(&log, "four\n").unwrap();
        std::fs::remove_file(&old).unwrap();
        assert!(follower.scan(Utc::now(), |_| {}).unwrap().lost);
    }

    #[test]
    fn a_log_that_is_truncated_between_the_looks_of_one_scan_is_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        std::fs::write(&log, "one\ntwo\n").unwrap();
        let mut follower = Follower::new(&log, Start::File);
        follower.scan(Utc::now(), |_| {}).unwrap();
        let candidates = follower.candidates().unwrap();
        let place = follower.places.clone().unwrap().remove(0);
        for now in ["", "other\nlines\nand more\n"] {
            std::fs::write(&log, now).unwrap();
            let reading =
                Reading { candidate: &candidates[0], from: Some(place.clone()), skip: false, last_counts: false };
            let error = reading.run(&mut [0; 64], &mut Scan::default(), &mut |_| {}).err().map(|e| e.to_string());
            assert!(error.is_some_and(|e| e.contains("was rotated just now")));
        }
    }
}
