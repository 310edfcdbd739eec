//! A log and what was rotated away from it, as a listing of the folder has them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result, file};

/// A file that may be the log, or a part of it that was rotated away.
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) live: bool,
    pub(super) compressed: bool,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified: i64,
    /// Some other rotated file is newer.
    pub(super) superseded: bool,
}

/// The log and what was rotated away from it, oldest first; `known` where it was read before.
pub(super) fn candidates(log: &Path, known: bool) -> Result<Vec<Candidate>> {
    let name = log
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .ok_or_else(|| Error::new(ErrorKind::Config, format!("{}: is no file", log.display())))?;
    let folder = match log.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let names = Names::of(&name).ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("{}: one * may stand for the date", log.display()))
            .with_next_step("write it as laravel-*.log")
    })?;
    let entries = std::fs::read_dir(folder).map_err(|e| file(folder, "cannot be listed", e))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| file(folder, "cannot be listed", e))?;
        let entry_name = entry.file_name().to_string_lossy().into_owned();
        let compressed = entry_name.ends_with(".gz");
        let Some(live) = names.fit(&entry_name) else { continue };
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
    // Of files with a date in their names, the newest is the one that is written to.
    if names.are_dated()
        && let Some(newest) = found.iter_mut().filter(|c| !c.compressed).max_by(|a, b| a.path.cmp(&b.path))
    {
        newest.live = true;
    }
    if found.is_empty() && !known {
        return Err(Error::new(ErrorKind::Storage, format!("{}: there is no such log", log.display()))
            .with_next_step("check the path; a log that is not there says nothing"));
    }
    if !found.iter().any(|c| c.live) && known {
        return Err(Error::new(ErrorKind::Unreachable, format!("{}: the log is gone", log.display()))
            .with_next_step("see whether the server still writes it, and where to"));
    }
    match names.are_dated() {
        true => found.sort_by(|a, b| (a.live, &a.path).cmp(&(b.live, &b.path))),
        false => found.sort_by_key(|c| (c.live, age_rank(&name, &c.path), c.modified)),
    }
    let rotated = found.iter().filter(|c| !c.live).count();
    for candidate in found.iter_mut().filter(|c| !c.live).take(rotated.saturating_sub(1)) {
        candidate.superseded = true;
    }
    Ok(found)
}

pub(super) fn same_names(a: &[Candidate], b: &[Candidate]) -> bool {
    let names = |list: &[Candidate]| list.iter().map(|c| (c.path.clone(), c.device, c.inode)).collect::<BTreeSet<_>>();
    names(a) == names(b)
}

/// Which files are the log.
enum Names<'a> {
    /// One of that name, and what was rotated away from it.
    One(&'a str),
    /// One a day, with the date between the two: `laravel-*.log`.
    Dated(&'a str, &'a str),
}

impl<'a> Names<'a> {
    fn of(name: &'a str) -> Option<Self> {
        match name.split_once('*') {
            None => Some(Self::One(name)),
            Some((_, after)) if after.contains('*') => None,
            Some((before, after)) => Some(Self::Dated(before, after)),
        }
    }

    fn are_dated(&self) -> bool {
        matches!(self, Self::Dated(..))
    }

    /// Whether a file is part of the log, and if so whether it is the one that is written to, as far as its name tells.
    fn fit(&self, file: &str) -> Option<bool> {
        match self {
            Self::One(name) => (file == *name).then_some(true).or_else(|| is_rotated(name, file).then_some(false)),
            Self::Dated(before, after) => {
                let file = file.strip_suffix(".gz").filter(|_| !after.ends_with(".gz")).unwrap_or(file);
                let date = file.strip_prefix(before)?.strip_suffix(after)?;
                (!date.is_empty() && date.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'T')))
                    .then_some(false)
            }
        }
    }
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
