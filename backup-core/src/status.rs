//! How things stand: a pure judgement over the catalog and the time.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::manifest::{Snapshot, SnapshotId};
use crate::repository::{Catalog, StoreLog};

/// How things stand with one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SourceStatus {
    /// The source's name.
    pub source: String,
    /// How many snapshots there are of it.
    pub snapshots: u64,
    /// The newest full one.
    pub newest: Option<SnapshotId>,
    /// Its age in seconds: how much of the shop would be lost. Negative where its clock was ahead.
    pub age_seconds: Option<i64>,
    /// How many things it could not read.
    pub problems: u64,
    /// When the stored bytes of the newest snapshot were last verified without a finding; `None` where that is unknown.
    pub stored_verified_at: Option<DateTime<Utc>>,
    /// The same for its content.
    pub content_verified_at: Option<DateTime<Utc>>,
    /// When any full snapshot of this source last passed a drill; `None` where that is unknown.
    pub drilled_at: Option<DateTime<Utc>>,
    /// How long that drill took to restore it, in milliseconds.
    pub drill_milliseconds: Option<u64>,
}

/// How things stand with a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Source by source, by name.
    pub sources: Vec<SourceStatus>,
    /// Store by store.
    pub stores: Vec<StoreLog>,
    /// Records of the log that are damaged or missing, or not those that this client has seen: what is said above may not be all.
    pub unreadable_records: u64,
}

impl Status {
    /// Judges `catalog` at the time `now`.
    pub fn of(catalog: &Catalog, now: DateTime<Utc>) -> Self {
        let mut names: Vec<&str> = catalog.snapshots.iter().map(|s| s.manifest.source.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let assurance = catalog.assurance();
        let sources = names
            .into_iter()
            .map(|name| {
                let all: Vec<&Snapshot> = catalog.snapshots.iter().filter(|s| s.manifest.source.name == name).collect();
                let newest = all.iter().rfind(|s| s.manifest.is_full());
                let said = newest.and_then(|s| assurance.get(&s.id)).cloned().unwrap_or_default();
                let drill = all
                    .iter()
                    .filter(|s| s.manifest.is_full())
                    .filter_map(|s| assurance.get(&s.id))
                    .filter_map(|a| Some((a.drilled_at?, a.restore_milliseconds?)))
                    .max_by_key(|(at, _)| *at);
                SourceStatus {
                    source: name.to_owned(),
                    snapshots: all.len() as u64,
                    newest: newest.map(|s| s.id.clone()),
                    age_seconds: newest.map(|s| (now - s.manifest.taken_at).max(TimeDelta::MIN).num_seconds()),
                    problems: newest.map_or(0, |s| s.manifest.problem_count),
                    stored_verified_at: said.stored_at,
                    content_verified_at: said.content_at,
                    drilled_at: drill.map(|(at, _)| at),
                    drill_milliseconds: drill.map(|(_, milliseconds)| milliseconds),
                }
            })
            .collect();
        let unreadable = catalog.damaged.len() + catalog.missing.len() + usize::from(catalog.contradicts.is_some());
        Self { sources, stores: catalog.stores.clone(), unreadable_records: unreadable as u64 }
    }

    /// Whether nothing needs attention: something is backed up, all of it was read, all of it is verified in every store,
    /// and the log is whole. What is not known is not good.
    pub fn is_good(&self) -> bool {
        let good = |s: &SourceStatus| s.newest.is_some() && s.problems == 0 && s.stored_verified_at.is_some();
        self.stores.iter().all(StoreLog::is_level)
            && self.unreadable_records == 0
            && !self.sources.is_empty()
            && self.sources.iter().all(good)
    }
}
