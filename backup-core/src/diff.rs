//! What differs between two snapshots: for one, what an intruder touched since the last one that is known to be clean.
//!
//! Tables are compared by rows and [fingerprint](crate::Fingerprint), so the order of rows does not count. A file has changed
//! if its length, its modification time or its permissions are others; if its inode is the same and its status has changed
//! since, which is how a file looks whose times were set back after it was written to; or if it is another inode and lies
//! among other content, which is how one looks that was put in its place.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, EntryKind, EntryRecord, Manifest, Member, Snapshot, SnapshotId};
use crate::pipeline::units_of;
use crate::repository::Repository;

/// How many files are named; beyond that they are counted.
const NAMED: usize = 10_000;

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(clippy::exhaustive_enums)] // There is no fourth.
pub enum Change {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it, and it is not the same.
    Changed,
}

/// A table, or the definitions, that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EntryDiff {
    /// The entry's name, such as `data/orders`.
    pub entry: String,
    /// How it differs.
    pub change: Change,
    /// Rows in the first.
    pub rows_before: Option<u64>,
    /// Rows in the second.
    pub rows_after: Option<u64>,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileDiff {
    /// Its path below the source's root; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// How it differs.
    pub change: Change,
}

/// What differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiffReport {
    /// The first.
    pub before: SnapshotId,
    /// The second.
    pub after: SnapshotId,
    /// Tables and definitions, by name.
    pub entries: Vec<EntryDiff>,
    /// Files, by path: the first 10,000.
    pub files: Vec<FileDiff>,
    /// How many files were added.
    pub files_added: u64,
    /// How many were removed.
    pub files_removed: u64,
    /// How many were changed.
    pub files_changed: u64,
}

impl DiffReport {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.files_added + self.files_removed + self.files_changed == 0
    }

    fn file(&mut self, member: &Member, change: Change) -> Result<()> {
        *match change {
            Change::Added => &mut self.files_added,
            Change::Removed => &mut self.files_removed,
            Change::Changed => &mut self.files_changed,
        } += 1;
        if self.files.len() < NAMED {
            let path = String::from_utf8_lossy(&path_of(member)?).into_owned();
            self.files.push(FileDiff { path, change });
        }
        Ok(())
    }
}

impl Repository {
    /// Compares two snapshots of the same kind. Needs no data key.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where one is of a database and the other of files, or of another kind of server.
    pub async fn diff(&self, before: &Snapshot, after: &Snapshot) -> Result<DiffReport> {
        let (old, new) = (&before.manifest, &after.manifest);
        if old.source.kind != new.source.kind {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{} is of kind {}, and {} of kind {}", before.id, old.source.kind, after.id, new.source.kind),
            )
            .with_next_step("compare snapshots of one source"));
        }
        let mut report = DiffReport {
            before: before.id.clone(),
            after: after.id.clone(),
            entries: entries(old, new),
            files: Vec::new(),
            files_added: 0,
            files_removed: 0,
            files_changed: 0,
        };
        self.diff_files(old, new, &mut report).await?;
        report.files.sort_unstable_by(|a, b| (&a.path, a.change).cmp(&(&b.path, b.change)));
        Ok(report)
    }

    /// In memory there are some 80 bytes for each file that is not in a part of the index that both share.
    async fn diff_files(&self, old: &Manifest, new: &Manifest, report: &mut DiffReport) -> Result<()> {
        let parts = |m: &Manifest| files(m).flat_map(|e| e.parts.iter().map(|p| p.object)).collect::<HashSet<_>>();
        let shared: HashSet<Digest> = parts(old).intersection(&parts(new)).copied().collect();
        let mut left: HashMap<[u8; 16], State> = HashMap::new();
        self.each_member(new, &shared, |member, unit| {
            left.insert(short(&path_of(member)?), State::of(member, unit));
            Ok(())
        })
        .await?;
        self.each_member(old, &shared, |member, unit| match left.remove(&short(&path_of(member)?)) {
            None => report.file(member, Change::Removed),
            Some(state) if State::of(member, unit).differs(&state) => report.file(member, Change::Changed),
            Some(_) => Ok(()),
        })
        .await?;
        self.each_member(new, &shared, |member, _| {
            if left.contains_key(&short(&path_of(member)?)) { report.file(member, Change::Added) } else { Ok(()) }
        })
        .await
    }

    async fn each_member(
        &self,
        manifest: &Manifest,
        without: &HashSet<Digest>,
        mut each: impl FnMut(&Member, [u8; 16]) -> Result<()>,
    ) -> Result<()> {
        for entry in files(manifest) {
            let mut entry = entry.clone();
            let all = entry.parts.len();
            entry.parts.retain(|p| !without.contains(&p.object));
            if entry.parts.is_empty() && all > 0 {
                continue;
            }
            let units = units_of(self, &entry);
            futures::pin_mut!(units);
            while let Some((chunks, unit)) = units.try_next().await? {
                let ids: Vec<u8> = chunks.iter().flat_map(|c| c.id.0).collect();
                let content = short(&ids);
                unit.members.iter().try_for_each(|member| each(member, content))?;
            }
        }
        Ok(())
    }
}

fn files(manifest: &Manifest) -> impl Iterator<Item = &EntryRecord> {
    manifest.entries.iter().filter(|e| e.kind == EntryKind::Files)
}

/// Everything that is compared as a whole.
fn entries(old: &Manifest, new: &Manifest) -> Vec<EntryDiff> {
    fn whole(manifest: &Manifest) -> HashMap<&str, &EntryRecord> {
        manifest.entries.iter().filter(|e| e.kind != EntryKind::Files).map(|e| (e.name.as_str(), e)).collect()
    }
    let (old, new) = (whole(old), whole(new));
    let names: HashSet<&&str> = old.keys().chain(new.keys()).collect();
    let rows = |e: &EntryRecord| (e.kind == EntryKind::Data).then(|| e.fingerprint.rows());
    let mut all: Vec<EntryDiff> = names
        .into_iter()
        .filter_map(|name| {
            let (before, after) = (old.get(name), new.get(name));
            let change = match (before, after) {
                (Some(a), Some(b)) if a.fingerprint == b.fingerprint => return None,
                (Some(_), Some(_)) => Change::Changed,
                (None, _) => Change::Added,
                (_, None) => Change::Removed,
            };
            Some(EntryDiff {
                entry: (*name).to_owned(),
                change,
                rows_before: before.and_then(|e| rows(e)),
                rows_after: after.and_then(|e| rows(e)),
            })
        })
        .collect();
    all.sort_unstable_by(|a, b| a.entry.cmp(&b.entry));
    all
}

fn path_of(member: &Member) -> Result<Vec<u8>> {
    member
        .path
        .to_bytes()
        .map_err(|e| Error::new(ErrorKind::Damaged, "a path in the index is no hexadecimal").with_source(e))
}

/// What tells whether a file is still the same.
struct State {
    looks: [u8; 16],
    /// Of all that is stored together with it.
    content: [u8; 16],
    inode: u64,
    ctime: (i64, u32),
}

impl State {
    fn of(member: &Member, content: [u8; 16]) -> Self {
        let Member { size, mtime, ctime, inode, mode, .. } = member;
        Self { looks: short(format!("{size} {mtime:?} {mode}").as_bytes()), content, inode: *inode, ctime: *ctime }
    }

    fn differs(&self, other: &Self) -> bool {
        let is_same_file = self.inode == other.inode;
        // Another inode has a history of its own: the file was restored, moved to another disk, or replaced.
        self.looks != other.looks
            || is_same_file && self.ctime != other.ctime
            || !is_same_file && self.content != other.content
    }
}

fn short(bytes: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    out
}
