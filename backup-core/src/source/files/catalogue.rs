//! What the previous snapshot holds, small enough to keep in memory: 32 bytes a file.

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
/// Times of a file system with nanoseconds move in steps of a scheduler tick, at most.
const TICK: i64 = 20_000_000;
/// Times of one without move in steps of up to two seconds.
const COARSE_TICK: i64 = 2_000_000_000;

/// The files of the previous snapshot, to be held against what is there now.
#[derive(Debug)]
pub(super) struct Catalogue {
    /// 128 bits of the path's hash, 64 of the facts', the unit's number.
    files: Vec<(u128, u64, u32)>,
    units: Vec<UnitState>,
    taken_at: DateTime<Utc>,
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
    files: Vec<(u128, u64, u32)>,
    keep: Vec<bool>,
}

impl Catalogue {
    /// Empty, of a snapshot that began to read at `taken_at`.
    pub(super) fn new(taken_at: DateTime<Utc>) -> Self {
        Self { files: Vec::new(), units: Vec::new(), taken_at }
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
            self.files.push((key(&path), facts, number));
        }
        let files = u32::try_from(unit.members.len()).map_err(|e| {
            Error::new(ErrorKind::Source, "a unit of the previous snapshot has too many files").with_source(e)
        })?;
        self.units.push(UnitState { files, bytes, stored, seen: 0 });
        Ok(())
    }

    pub(super) fn sort(&mut self) {
        self.files.sort_unstable();
        self.files.shrink_to_fit();
    }

    /// A file is there now, with these facts.
    pub(super) fn see(&mut self, relative: &Path, metadata: &Metadata) {
        if let Some((facts, unit)) = find(&self.files, relative)
            && facts != NEVER
            && facts == facts_now(metadata)
        {
            self.units[unit as usize].seen += 1;
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

    /// The keys of the files that come along with them.
    pub(super) fn keys(&self) -> impl Iterator<Item = u128> {
        self.files.iter().filter(|(.., unit)| self.keep[*unit as usize]).map(|(key, ..)| *key)
    }

    /// Whether the file comes along with one of them.
    pub(super) fn holds(&self, relative: &Path) -> bool {
        find(&self.files, relative).is_some_and(|(_, unit)| self.keep[unit as usize])
    }
}

/// The facts of a file that counts as changed whatever it looks like.
const NEVER: u64 = 0;

fn find(files: &[(u128, u64, u32)], relative: &Path) -> Option<(u64, u32)> {
    let key = key(relative.as_os_str().as_bytes());
    let at = files.binary_search_by_key(&key, |(k, ..)| *k).ok()?;
    Some((files[at].1, files[at].2))
}

/// 128 bits that stand for a path.
pub(super) fn key(path: &[u8]) -> u128 {
    let mut low = [0; 16];
    low.copy_from_slice(&blake3::hash(path).as_bytes()[..16]);
    u128::from_le_bytes(low)
}

fn facts_of(m: &Member) -> u64 {
    facts(m.size, m.mode, m.inode, m.mtime, m.ctime)
}

fn facts_now(m: &Metadata) -> u64 {
    facts(m.len(), m.mode(), m.ino(), mtime(m), (m.ctime(), nanoseconds(m.ctime_nsec())))
}

fn facts(size: u64, mode: u32, inode: u64, mtime: (i64, u32), ctime: (i64, u32)) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for n in [size, u64::from(mode), inode, mtime.0 as u64, u64::from(mtime.1), ctime.0 as u64, u64::from(ctime.1)] {
        hasher.update(&n.to_le_bytes());
    }
    let mut low = [0; 8];
    low.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(low).max(1)
}
