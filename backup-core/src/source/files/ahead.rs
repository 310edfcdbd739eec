//! The walk, some files ahead of whoever reads them: the disk is told what is wanted next.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::path::Path;

use super::member;
use super::walk::Found;

/// So many files are open at once, at most.
const FILES: usize = 64;
/// And so many of their bytes are asked of the disk before they are read.
const BYTES: u64 = 16 << 20;
/// Of one file, so many.
pub(super) const OF_ONE: u64 = 4 << 20;

/// What the walk found, and the file itself where it could be opened ahead.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) found: Found,
    pub(super) opened: Option<Opened>,
}

/// A file, and what it was when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) metadata: Metadata,
}

/// A walk whose files are opened ahead.
pub(super) struct Ahead<W, F> {
    walk: W,
    /// Whether a file is to be read at all.
    wanted: F,
    waiting: VecDeque<(Next, u64)>,
    bytes: u64,
}

impl<W: Iterator<Item = Found>, F: FnMut(&Path) -> bool> Ahead<W, F> {
    pub(super) fn new(walk: W, wanted: F) -> Self {
        Self { walk, wanted, waiting: VecDeque::new(), bytes: 0 }
    }
}

impl<W: Iterator<Item = Found>, F: FnMut(&Path) -> bool> Iterator for Ahead<W, F> {
    type Item = Next;

    fn next(&mut self) -> Option<Next> {
        while self.waiting.len() < FILES && self.bytes < BYTES {
            let Some(found) = self.walk.next() else { break };
            let opened = match &found {
                Found::File { relative, .. } if !(self.wanted)(relative) => continue,
                // What is the matter with one that cannot be opened shows when it is read.
                Found::File { path, .. } => member::open(path).ok().flatten(),
                _ => None,
            };
            let bytes = opened.as_ref().map_or(0, ask);
            self.bytes += bytes;
            self.waiting.push_back((Next { found, opened }, bytes));
        }
        let (next, bytes) = self.waiting.pop_front()?;
        self.bytes -= bytes;
        Some(next)
    }
}

fn ask(opened: &Opened) -> u64 {
    let bytes = opened.metadata.len().min(OF_ONE);
    will_need(&opened.file, 0, bytes);
    bytes
}

/// Asks the disk for a part of a file; whether it listens does not matter.
pub(super) fn will_need(file: &File, at: u64, bytes: u64) {
    #[cfg(target_os = "linux")]
    if let Some(bytes) = std::num::NonZeroU64::new(bytes) {
        let _only_advice = rustix::fs::fadvise(file, at, Some(bytes), rustix::fs::Advice::WillNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, at, bytes);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;

    use super::member::{Small, open, read_small, refreshed};
    use super::*;

    #[test]
    fn what_changed_since_it_was_opened_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jpg");
        std::fs::write(&path, "old").unwrap();
        let first = open(&path).unwrap().unwrap();
        let kept = refreshed(Some(first), &path).unwrap().unwrap();
        std::fs::write(dir.path().join("b"), "a longer one").unwrap();
        std::fs::rename(dir.path().join("b"), &path).unwrap();
        let second = refreshed(Some(kept), &path).unwrap().unwrap();
        assert_eq!(second.metadata.len(), 12);
        std::fs::remove_file(&path).unwrap();
        assert!(refreshed(Some(second), &path).unwrap().is_none());
    }

    #[test]
    fn a_small_file_that_grows_is_not_read_into_memory_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump.sql");
        std::fs::write(&path, "small").unwrap();
        let opened = open(&path).unwrap().unwrap();
        std::fs::write(&path, vec![b'x'; 600 * 1024]).unwrap();
        let mut tar = b"before".to_vec();
        let read = read_small(&path, Path::new("dump.sql"), opened, &mut tar).unwrap();
        assert!(matches!(&read, Small::Big(now) if now.metadata.len() == 600 * 1024), "{read:?}");
        assert_eq!(tar, b"before");
    }

    #[test]
    fn only_so_many_files_are_open_and_none_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let pulled = Cell::new(0);
        let found = (0..3 * FILES).map(|n| {
            pulled.set(pulled.get() + 1);
            let relative = PathBuf::from(format!("{n}"));
            let path = dir.path().join(&relative);
            std::fs::write(&path, "x").unwrap();
            Found::File { path, relative }
        });
        let mut ahead = Ahead::new(found, |relative: &Path| relative != Path::new("7"));
        assert!(matches!(ahead.next(), Some(Next { found: Found::File { .. }, opened: Some(_) })));
        assert_eq!(pulled.get(), FILES + 1, "one of them was not wanted");
        assert_eq!(ahead.count(), 3 * FILES - 2);
    }
}
