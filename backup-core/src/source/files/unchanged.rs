//! What of the previous snapshot can be taken over unread: its list of files is held against the disk as it streams by,
//! and only 8 bytes of each file that is taken over are kept.

use std::fs::Metadata;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use globset::GlobSet;

use super::member::{mtime, nanoseconds};
use super::walk::Lookup;
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

/// Goes through the units of the previous snapshot, in order.
#[derive(Debug)]
pub(super) struct Comparison {
    lookup: Lookup,
    taken_at: DateTime<Utc>,
    units: u64,
    kept: Kept,
    small: Kept,
}

/// Units that are as they were, and their files.
#[derive(Debug, Default)]
struct Kept {
    units: Vec<u64>,
    files: Vec<Key>,
}

/// The units that are taken over.
#[derive(Debug, Default)]
pub(super) struct Unchanged {
    units: Vec<u64>,
    files: PathSet,
}

impl Comparison {
    /// Of a snapshot of so many files that began to read at `taken_at`, with what is below `root` now.
    pub(super) fn new(root: PathBuf, exclude: Arc<GlobSet>, taken_at: DateTime<Utc>, files: u64) -> Self {
        let expected = usize::try_from(files).unwrap_or(0).min(EXPECTED);
        let kept = Kept { units: Vec::new(), files: Vec::with_capacity(expected) };
        Self { lookup: Lookup::new(root, exclude), taken_at, units: 0, kept, small: Kept::default() }
    }

    /// Looks at the files of the next unit; `stored` says whether all of its bytes are still there.
    pub(super) fn add(&mut self, unit: &Unit, stored: bool, keys: &PathKeys) -> Result<()> {
        let number = self.units;
        self.units += 1;
        if !stored {
            return Ok(());
        }
        let mut bytes = 0;
        let mut files = Vec::with_capacity(unit.members.len());
        for member in &unit.members {
            let path = member.path.to_bytes().map_err(|e| {
                Error::new(ErrorKind::Damaged, "a path in the previous snapshot's index is damaged").with_source(e)
            })?;
            let path = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path));
            // A file that was touched while the snapshot was taken may have changed after it was read and look the same.
            let same = self.was_quiet(member) && self.lookup.file(path).is_some_and(|now| is_same(member, &now));
            if !same {
                return Ok(());
            }
            files.push(keys.of(path, FILE));
            // As a tar member: header, record of the exact time, padding. A big file is not for merging, however small.
            bytes += if member.size < BIG { member.size.next_multiple_of(512) + 1536 } else { UNIT as u64 };
        }
        let to = if bytes < (UNIT / 2) as u64 { &mut self.small } else { &mut self.kept };
        to.units.push(number);
        to.files.append(&mut files);
        Ok(())
    }

    /// What is taken over, once all units were looked at.
    pub(super) fn settle(self, keys: PathKeys) -> Unchanged {
        let Self { mut kept, mut small, .. } = self;
        if small.units.len() <= SMALL_UNITS {
            kept.units.append(&mut small.units);
            kept.files.append(&mut small.files);
            kept.units.sort_unstable();
        }
        let mut files = PathSet { keys, paths: kept.files };
        files.sort();
        Unchanged { units: kept.units, files }
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
        self.units.iter().copied()
    }

    /// Whether this file comes along with them.
    pub(super) fn holds(&self, file: &Path) -> bool {
        self.files.holds(file, FILE)
    }
}

/// 64 bits that stand for a path and what it is.
type Key = u64;

/// What a path is.
const FILE: u8 = b'-';
/// See [`FILE`].
pub(super) const DIRECTORY: u8 = b'd';
/// See [`FILE`].
pub(super) const LINK: u8 = b'l';

/// Makes keys of paths, others in each run: nobody can name a file so that it passes for another, and what two paths
/// have in common by chance they do not have the next time. That one of a thousand new files passes for one of a million
/// old ones has a probability of 10^-10 a run.
#[derive(Debug, Clone, Default)]
pub(super) struct PathKeys(RandomState);

impl PathKeys {
    fn of(&self, path: &Path, kind: u8) -> Key {
        self.0.hash_one((path.as_os_str(), kind))
    }
}

/// Paths, by their keys.
#[derive(Debug, Default)]
pub(super) struct PathSet {
    keys: PathKeys,
    paths: Vec<Key>,
}

impl PathSet {
    /// Adds a path. Before [`holds`](Self::holds) is asked, the set has to be [sorted](Self::sort).
    pub(super) fn add(&mut self, path: &Path, kind: u8) {
        self.paths.push(self.keys.of(path, kind));
    }

    pub(super) fn sort(&mut self) {
        self.paths.sort_unstable();
    }

    pub(super) fn holds(&self, path: &Path, kind: u8) -> bool {
        self.paths.binary_search(&self.keys.of(path, kind)).is_ok()
    }
}

fn is_same(then: &Member, now: &Metadata) -> bool {
    (then.size, then.mode, then.inode) == (now.len(), now.mode(), now.ino())
        && then.mtime == mtime(now)
        && then.ctime == (now.ctime(), nanoseconds(now.ctime_nsec()))
}
