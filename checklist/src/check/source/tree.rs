//! A source tree, read once.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::rules::{self, Language};
use crate::error::{Error, ErrorKind, Result, file};
use crate::outcome::Place;

/// Folders that are somebody else's, or made from the rest.
const SKIPPED: [&str; 16] = [
    "node_modules",
    "vendor",
    ".git",
    ".next",
    ".nuxt",
    "dist",
    "build",
    "out",
    "coverage",
    "target",
    ".cache",
    ".turbo",
    "storybook-static",
    "__tests__",
    "__mocks__",
    ".yarn",
];
/// Files and bytes of one that are read; places of a rule that are kept. Of settings and data, such as a dump, more is read: piece by piece,
/// for secrets only. Pieces begin before the end of the one before, so that nothing is cut in two.
const FILES: usize = 50_000;
const BYTES: u64 = 1 << 20;
const BYTES_OF_SETTINGS: u64 = 256 << 20;
const OVERLAP: usize = 4 << 10;
const PLACES: usize = 500;

/// The source of a shop. It is read once, at the first check that asks.
#[derive(Debug)]
pub struct SourceTree {
    root: PathBuf,
    scan: OnceCell<Arc<Scan>>,
}

/// What was found in it.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) root: String,
    /// Files that were read, and of them those in a language with rules.
    pub(super) files: usize,
    pub(super) code: usize,
    /// Lines that a comment allows.
    pub(super) allowed: usize,
    pub(super) unread: Vec<String>,
    places: BTreeMap<&'static str, Vec<Place>>,
    seen: BTreeMap<&'static str, usize>,
}

impl SourceTree {
    /// The tree below that folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), scan: OnceCell::new() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) async fn scan(&self) -> Result<&Scan> {
        let scan = self.scan.get_or_try_init(|| async {
            let root = self.root.clone();
            let work = tokio::task::spawn_blocking(move || scan(&root));
            work.await
                .map_err(|e| Error::new(ErrorKind::Storage, "the reading of the source ended early").with_source(e))?
        });
        Ok(scan.await?)
    }
}

impl Scan {
    pub(super) fn places(&self, rule: &str) -> &[Place] {
        self.places.get(rule).map_or(&[], Vec::as_slice)
    }

    pub(super) fn seen(&self, what: &str) -> usize {
        self.seen.get(what).copied().unwrap_or(0)
    }

    pub(super) fn say(&mut self, rule: &'static str, place: Place) {
        let places = self.places.entry(rule).or_default();
        if places.len() < PLACES && !places.contains(&place) {
            places.push(place);
        }
    }

    pub(super) fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}

fn scan(root: &Path) -> Result<Arc<Scan>> {
    let mut scan = Scan { root: root.display().to_string(), ..Scan::default() };
    let ignored = std::fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    // Settings that are not in the repository are where they belong.
    let rules: Vec<&str> =
        ignored.lines().map(|l| l.trim().trim_start_matches('/')).filter(|l| l.starts_with(".env")).collect();
    let is_ignored = |name: &str| {
        rules.iter().any(|rule| match rule.split_once('*') {
            None => *rule == name,
            Some((head, tail)) => {
                name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
            }
        })
    };
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if folder == root => return Err(file(root, "cannot be read", e)),
            Err(_) => {
                scan.unread.push(shown(root, &folder));
                continue;
            }
        };
        let entries: std::io::Result<Vec<_>> = entries.collect();
        let Ok(mut entries) = entries else {
            scan.unread.push(shown(root, &folder));
            continue;
        };
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(kind) = entry.file_type() else {
                scan.unread.push(shown(root, &path));
                continue;
            };
            if kind.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    open.push(path);
                }
                continue;
            }
            // Links may lead anywhere, and round in circles.
            if !kind.is_file() {
                continue;
            }
            modes(&mut scan, root, &path, &name);
            let language = Language::of(&path);
            if language.is_none() || is_ignored(&name) {
                continue;
            }
            if scan.files >= FILES {
                scan.unread.push(format!("more than {FILES} files"));
                return Ok(Arc::new(scan));
            }
            match entry.metadata().map(|m| m.len()) {
                Ok(length) if length > BYTES => {
                    let is_data = language == Some(Language::Settings) && length <= BYTES_OF_SETTINGS;
                    match is_data.then(|| in_pieces(&mut scan, &shown(root, &path), &path)) {
                        Some(Ok(())) => scan.files += 1,
                        _ => scan.unread.push(shown(root, &path)),
                    }
                    continue;
                }
                _ => {}
            }
            match std::fs::read(&path) {
                Ok(bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    scan.files += 1;
                    rules::apply(&mut scan, &shown(root, &path), language, &text);
                }
                Err(_) => scan.unread.push(shown(root, &path)),
            }
        }
    }
    Ok(Arc::new(scan))
}

/// A long file of settings or data.
fn in_pieces(scan: &mut Scan, name: &str, path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    let (mut kept, mut before) = (Vec::new(), 0u32);
    loop {
        let read = (&mut file).take(BYTES).read_to_end(&mut kept)?;
        if read == 0 {
            return Ok(());
        }
        rules::secrets_of_piece(scan, name, before, &String::from_utf8_lossy(&kept));
        let cut = kept.len().saturating_sub(OVERLAP);
        before = before.saturating_add(kept[..cut].iter().filter(|b| **b == b'\n').count() as u32);
        kept.drain(..cut);
    }
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// Who may read what holds secrets, and write anything.
#[cfg(unix)]
fn modes(scan: &mut Scan, root: &Path, path: &Path, name: &str) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(mode) = std::fs::metadata(path).map(|m| m.permissions().mode()) else { return };
    let lower = name.to_ascii_lowercase();
    let sample = ["example", "sample", "template", "dist"].iter().any(|w| lower.contains(w));
    let secret = (lower.starts_with(".env")
        || lower.ends_with(".pem")
        || lower.ends_with(".key")
        || lower == "id_rsa"
        || lower == "auth.json")
        && !sample;
    if secret && mode & 0o004 != 0 {
        scan.say(
            "modes",
            Place::new(
                shown(root, path),
                None,
                format!("holds secrets, and everybody may read it ({:o})", mode & 0o777),
            ),
        );
    }
    if mode & 0o002 != 0 {
        scan.say("modes", Place::new(shown(root, path), None, format!("everybody may write it ({:o})", mode & 0o777)));
    }
}

#[cfg(not(unix))]
fn modes(_: &mut Scan, _: &Path, _: &Path, _: &str) {}
