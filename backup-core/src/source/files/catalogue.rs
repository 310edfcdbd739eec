//! What the previous snapshot holds, small enough to keep in memory: 24 bytes a file.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::member::{mtime, nanoseconds};
use super::{BIG, UNIT};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Member, Unit};

/// So many half-empty units may stand side by side before they are read again and merged.
const SMALL_UNITS: usize = 8;
/// Room is made at once for no more files than this.
const EXPECTED: usize = 10_000_000;
/// Times of a file system with nanoseconds move in steps of a scheduler tick, at most.
const TICK: i64 = 20_000_000;
/// Times of one without move in steps of up to two seconds.
const COARSE_TICK: i64 = 2_000_000_000;

/// The files of the previous snapshot, to be held against what is there now.
#[derive(Debug)]
pub(super) struct Catalogue {
    files: Vec<Known>,
    units: Vec<UnitState>,
    taken_at: DateTime<Utc>,
}

/// A file of the previous snapshot.
#[derive(Debug, Clone, Copy)]
struct Known {
    key: Key,
    facts: Facts,
    unit: u32,
}

#[derive(Debug, Clone, Copy)]
struct UnitState {
    files: u32,
    bytes: u64,
    stored: bool,
    seen: u32,
}

/// The units that can be taken over.
#[derive(Debug)]
pub(super) struct Unchanged {
    files: Vec<Known>,
    keep: Vec<bool>,
}

impl Catalogue {
    /// Empty, of a snapshot of so many files that began to read at `taken_at`.
    pub(super) fn new(taken_at: DateTime<Utc>, files: u64) -> Self {
        Self {
            files: Vec::with_capacity(usize::try_from(files).unwrap_or(0).min(EXPECTED)),
            units: Vec::new(),
            taken_at,
        }
    }

    /// Adds the next unit; `stored` says whether all of its bytes are still there.
    pub(super) fn add(&mut self, unit: &Unit, stored: bool) -> Result<()> {
        let number = u32::try_from(self.units.len())
            .map_err(|e| Error::new(ErrorKind::Source, "the previous snapshot has too many units").with_source(e))?;
        let mut bytes = 0;
        for member in &unit.members {
            // As a tar member: header, record of the exact time, padding. A big file is not for merging, however small.
            bytes += if member.size < BIG { member.size.next_multiple_of(512) + 1536 } else { UNIT as u64 };
            let path = member.path.to_bytes().map_err(|e| {
                Error::new(ErrorKind::Damaged, "a path in the previous snapshot's index is damaged").with_source(e)
            })?;
            // A file that was touched while the snapshot was taken may have changed after it was read and look the same.
            let facts = if self.was_quiet(member) { facts_of(member) } else { NEVER };
            self.files.push(Known { key: key(&path), facts, unit: number });
        }
        let files = u32::try_from(unit.members.len()).map_err(|e| {
            Error::new(ErrorKind::Source, "a unit of the previous snapshot has too many files").with_source(e)
        })?;
        self.units.push(UnitState { files, bytes, stored, seen: 0 });
        Ok(())
    }

    pub(super) fn sort(&mut self) {
        self.files.sort_unstable_by_key(|f| f.key);
    }

    /// A file is there now, with these facts.
    pub(super) fn see(&mut self, relative: &Path, metadata: &Metadata) {
        if let Some(known) = find(&self.files, &key(relative.as_os_str().as_bytes()))
            && known.facts != NEVER
            && known.facts == facts_now(metadata)
        {
            self.units[known.unit as usize].seen += 1;
        }
    }

    /// Decides which units are taken over, after everything was seen.
    pub(super) fn settle(self) -> Unchanged {
        let mut keep: Vec<bool> = self.units.iter().map(|u| u.stored && u.seen == u.files).collect();
        let small: Vec<usize> =
            (0..keep.len()).filter(|n| keep[*n] && self.units[*n].bytes < (UNIT / 2) as u64).collect();
        if small.len() > SMALL_UNITS {
            small.into_iter().for_each(|n| keep[n] = false);
        }
        Unchanged { files: self.files, keep }
    }

    fn was_quiet(&self, member: &Member) -> bool {
        let (seconds, nanoseconds) = member.ctime;
        let tick = if nanoseconds == 0 && member.mtime.1 == 0 { COARSE_TICK } else { TICK };
        let touched = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        let began =
            i128::from(self.taken_at.timestamp()) * 1_000_000_000 + i128::from(self.taken_at.timestamp_subsec_nanos());
        touched + i128::from(tick) < began
    }
}

impl Unchanged {
    /// The numbers of the units to take over, ascending.
    pub(super) fn units(&self) -> impl Iterator<Item = u64> {
        self.keep.iter().enumerate().filter(|(_, keep)| **keep).map(|(n, _)| n as u64)
    }

    /// Whether the file comes along with one of them.
    pub(super) fn holds(&self, key: &Key) -> bool {
        find(&self.files, key).is_some_and(|known| self.keep[known.unit as usize])
    }
}

/// 96 bits that stand for a path: among a million paths two are alike with a probability of 10^-17.
pub(super) type Key = [u8; 12];
/// 64 bits that stand for a file's size, mode, inode and times.
type Facts = [u8; 8];

/// The facts of a file that counts as changed whatever it looks like.
const NEVER: Facts = [0; 8];

fn find<'a>(files: &'a [Known], key: &Key) -> Option<&'a Known> {
    files.binary_search_by_key(key, |f| f.key).ok().map(|at| &files[at])
}

/// What stands for a path.
pub(super) fn key(path: &[u8]) -> Key {
    first_of(&blake3::hash(path))
}

fn first_of<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&hash.as_bytes()[..N]);
    first
}

fn facts_of(m: &Member) -> Facts {
    facts(m.size, m.mode, m.inode, m.mtime, m.ctime)
}

fn facts_now(m: &Metadata) -> Facts {
    facts(m.len(), m.mode(), m.ino(), mtime(m), (m.ctime(), nanoseconds(m.ctime_nsec())))
}

fn facts(size: u64, mode: u32, inode: u64, mtime: (i64, u32), ctime: (i64, u32)) -> Facts {
    let mut hasher = blake3::Hasher::new();
    for n in [size, u64::from(mode), inode, mtime.0 as u64, u64::from(mtime.1), ctime.0 as u64, u64::from(ctime.1)] {
        hasher.update(&n.to_le_bytes());
    }
    match first_of(&hasher.finalize()) {
        NEVER => [1; 8],
        facts => facts,
    }
}
