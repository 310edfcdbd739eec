//! Everything below a directory, in the order of its names' bytes, parents first. Symbolic links are not followed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use globset::GlobSet;

use super::{REPLACED, STAGING};
use crate::error::{Error, ErrorKind, Result};

/// Something below the root.
#[derive(Debug)]
pub(super) enum Found {
    Directory { path: PathBuf, relative: PathBuf },
    Link { path: PathBuf, relative: PathBuf },
    File { path: PathBuf, relative: PathBuf },
    Special { path: PathBuf },
    Unreadable { path: PathBuf, error: io::Error },
}

/// The walk. Its memory is that of the names in the directories on the way down.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    root: &'a Path,
    exclude: &'a GlobSet,
    /// Names still to come, last first, of each directory on the way down.
    open: Vec<(PathBuf, Vec<(OsString, Kind)>)>,
    root_due: bool,
    trouble: Vec<Found>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Directory,
    Link,
    File,
    Special,
}

/// Finds single files where a walk would find them.
#[derive(Debug)]
pub(super) struct Lookup {
    root: PathBuf,
    exclude: Arc<GlobSet>,
    /// The directory looked into last, and whether a walk gets there.
    folder: Option<(PathBuf, bool)>,
}

impl Lookup {
    pub(super) fn new(root: PathBuf, exclude: Arc<GlobSet>) -> Self {
        Self { root, exclude, folder: None }
    }

    /// What is known of the file, if a walk would come by it.
    pub(super) fn file(&mut self, relative: &Path) -> Option<Metadata> {
        let folder = relative.parent()?;
        let reached = match &self.folder {
            Some((known, reached)) if known == folder => *reached,
            _ => {
                let reached = self.reaches(folder);
                self.folder = Some((folder.to_owned(), reached));
                reached
            }
        };
        if !reached || self.exclude.is_match(relative) {
            return None;
        }
        self.root.join(relative).symlink_metadata().ok().filter(Metadata::is_file)
    }

    /// Whether there are only directories on the way to `folder`, no links, and nothing that is left out.
    fn reaches(&self, folder: &Path) -> bool {
        let mut so_far = PathBuf::new();
        folder.components().all(|part| {
            let Component::Normal(name) = part else { return false };
            let first = so_far.as_os_str().is_empty();
            so_far.push(name);
            let left_out = (first && is_ours(name)) || self.exclude.is_match(&so_far);
            !left_out && self.root.join(&so_far).symlink_metadata().is_ok_and(|m| m.is_dir())
        })
    }
}

/// Whether this is the name of one of the folders that a restore works in, directly below the root.
fn is_ours(name: &OsStr) -> bool {
    name == STAGING || name == REPLACED
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a Path, exclude: &'a GlobSet) -> Result<Self> {
        let mut walk = Self { root, exclude, open: Vec::new(), root_due: true, trouble: Vec::new() };
        let names = walk.list(Path::new("")).map_err(|e| {
            Error::new(ErrorKind::Source, format!("the directory {} cannot be read: {e}", root.display()))
                .with_next_step("check that this user may read it")
                .with_source(e)
        })?;
        walk.open.push((PathBuf::new(), names));
        Ok(walk)
    }

    fn list(&mut self, relative: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        let folder = self.root.join(relative);
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = relative.as_os_str().is_empty() && is_ours(&name);
            if ours || self.exclude.is_match(relative.join(&name)) {
                continue;
            }
            let kind = match entry.file_type() {
                Ok(t) if t.is_dir() => Kind::Directory,
                Ok(t) if t.is_symlink() => Kind::Link,
                Ok(t) if t.is_file() => Kind::File,
                Ok(_) => Kind::Special,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.trouble.push(Found::Unreadable { path: entry.path(), error });
                    continue;
                }
            };
            names.push((name, kind));
        }
        names.sort_unstable_by(|(a, _), (b, _)| b.as_bytes().cmp(a.as_bytes()));
        // While a directory changes, the system may name an entry twice.
        names.dedup_by(|(a, _), (b, _)| a == b);
        Ok(names)
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if std::mem::take(&mut self.root_due) {
            return Some(Found::Directory { path: self.root.to_owned(), relative: PathBuf::from(".") });
        }
        if let Some(found) = self.trouble.pop() {
            return Some(found);
        }
        loop {
            let (folder, names) = self.open.last_mut()?;
            let Some((name, kind)) = names.pop() else {
                self.open.pop();
                continue;
            };
            let relative = folder.join(name);
            let path = self.root.join(&relative);
            return Some(match kind {
                Kind::File => Found::File { path, relative },
                Kind::Link => Found::Link { path, relative },
                Kind::Special => Found::Special { path },
                Kind::Directory => match self.list(&relative) {
                    Ok(names) => {
                        self.open.push((relative.clone(), names));
                        Found::Directory { path, relative }
                    }
                    // Gone since it was listed.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => Found::Unreadable { path, error },
                },
            });
        }
    }
}
