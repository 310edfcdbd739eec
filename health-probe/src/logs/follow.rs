//! Reading a log across its rotation: each line once, also where it was renamed, copied and truncated, or compressed meanwhile.
//!
//! Names and inodes prove nothing: a name is given away, an inode is used again. What was read is known by its content: by a
//! digest of its first bytes, and one of the last bytes before the place up to which it was read. A file of which both are
//! there is the one; it is read on from that place. A file that is like none of those known is new, and read from its
//! beginning.

mod identity;
mod listing;
mod opened;
mod reading;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use identity::{Assigned, assign};
use listing::{Candidate, candidates, same_names};
use opened::moved;
use reading::Reading;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl Follower {
    /// A log that was never read. In the name of its file, one `*` stands for the date of a log that has a file for each day, as
    /// `laravel-*.log`: the newest is the one that is written to.
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
    /// [`Denied`] or [`Storage`] where a file cannot be read, [`Unreachable`] where the log is gone, was rotated just now, or a
    /// compressed one is not written to its end.
    ///
    /// [`Denied`]: crate::ErrorKind::Denied
    /// [`Storage`]: crate::ErrorKind::Storage
    /// [`Unreachable`]: crate::ErrorKind::Unreachable
    pub fn scan(&mut self, now: DateTime<Utc>, line: impl FnMut(&[u8])) -> Result<Scan> {
        self.scan_listed(&self.listed()?, now, line)
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
        if lost && !same_names(candidates, &self.listed()?) {
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

    fn listed(&self) -> Result<Vec<Candidate>> {
        candidates(&self.path, self.places.is_some())
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
            let candidates = follower.listed().unwrap();
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
        let mut listed = follower.listed().unwrap();
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
        let candidates = follower.listed().unwrap();
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
