//! Removing what a plan drops, and what nothing refers to any more.
//!
//! In this order, so that it may be killed anywhere: first everything that is to stay is seen to be there; then a signed
//! record in the log, the tombstone, says what is removed, and from then on it is; then, after a grace period, the objects go
//! that only removed snapshots refer to. A run that was killed is finished by the next.
//!
//! **The grace period** protects what does not hold a lease though it should: a backup on a machine that slept, a store
//! whose list lags. What a removed snapshot refers to stays until its tombstone is older than that, and an object that
//! nothing refers to stays until it is itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::assurance::Assurance;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::Signing;
use crate::manifest::{Digest, EntryRecord, IndexLine, Manifest, PartRef, RecordName, Snapshot, SnapshotId};
use crate::pipeline::index_lines;
use crate::progress::{NoProgress, Progress};
use crate::repository::record::RecordKind;
use crate::repository::{Catalog, Lease, LeaseMode, Repository, Store, layout, names_in};
use crate::restore::millis;
use crate::retention::{Decision, PrunePlan};

/// How many objects are removed side by side.
const REMOVERS: usize = 16;
/// How long what is removed stays in the store, unless it is told otherwise.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// How far the clocks of this machine and of the stores may be apart, unless it is told otherwise.
const CLOCKS: Duration = Duration::from_secs(300);

/// How to prune.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PruneOptions {
    /// How long objects stay that nothing refers to any more; 24 hours unless told. Space is free only after that.
    pub grace: Duration,
    /// How far the clocks of this machine and of the stores may be apart; five minutes unless told. Leases and ages mean
    /// nothing where they differ.
    pub clock_skew: Duration,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self { grace: GRACE, clock_skew: CLOCKS, progress: Arc::new(NoProgress) }
    }
}

impl PruneOptions {
    /// The same with another grace period. Without any, a backup on a machine that sleeps while this runs may be lost when it
    /// wakes up: it notices, and stores nothing.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The same with clocks that may be so far apart.
    #[must_use]
    pub fn with_clock_skew(mut self, skew: Duration) -> Self {
        self.clock_skew = skew;
        self
    }

    /// The same, watched.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }
}

/// What a prune did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PruneReport {
    /// The snapshots that are gone.
    pub removed: Vec<SnapshotId>,
    /// Records that did not count and are gone.
    pub rejected: Vec<RecordName>,
    /// The tombstone in the log, if anything was removed.
    pub tombstone: Option<RecordName>,
    /// Objects that were deleted.
    pub objects: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Objects that nothing refers to and that wait for the end of the grace period.
    pub waiting_objects: u64,
    /// Their length in bytes.
    pub waiting_bytes: u64,
    /// Objects that the store refuses to delete, by an object lock for one.
    pub denied: u64,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

impl Repository {
    /// Removes what `plan` drops, and deletes what nothing refers to any more.
    ///
    /// In several stores it removes from each, and each has to have everything that stays. Those that do not answer are
    /// gone without: a later `sync` and prune make up for it.
    ///
    /// Nobody else may use the repository meanwhile: it takes the exclusive lease. Dropping the future is safe at any
    /// point.
    ///
    /// # Errors
    /// Before anything is changed: [`ErrorKind::KeyMissing`] without the admin's key; [`ErrorKind::Locked`] while a backup
    /// runs; [`ErrorKind::Damaged`] or [`ErrorKind::Untrusted`] where the log is not whole or an object is missing of what is
    /// to stay; [`ErrorKind::Drift`] where the repository is not any more what the plan was made of; [`ErrorKind::Clock`]
    /// where the clocks of this machine and of a store are [too far apart](PruneOptions::clock_skew).
    pub async fn prune(&self, plan: &PrunePlan, options: PruneOptions) -> Result<PruneReport> {
        let began = Instant::now();
        if self.is_encrypted() {
            let admin = self.keys().admin()?;
            if !self.trust().is_some_and(|t| t.is_admin(&admin.signing.verify_key())) {
                return Err(Error::new(ErrorKind::KeyWrong, "this admin.key is not one that trust.json names")
                    .with_next_step("use the admin.key that this repository was made with"));
            }
        }
        let lease = self.lease(LeaseMode::Exclusive, "a prune").await?;
        let done = self.prune_under(&lease, plan, &options).await;
        lease.release().await;
        let mut report = done?;
        report.milliseconds = millis(began);
        Ok(report)
    }

    async fn prune_under(&self, lease: &Lease, plan: &PrunePlan, options: &PruneOptions) -> Result<PruneReport> {
        for store in self.stores() {
            self.compare_clocks(store, options.clock_skew).await?;
        }
        let catalog = self.catalog_from_stores().await?;
        let refused = |why: String| {
            Err(Error::new(ErrorKind::Damaged, format!("{why}: nothing is removed"))
                .with_next_step("run `backup verify`, and repair the store from another copy first: `backup sync`"))
        };
        if !catalog.is_sound() {
            return refused("the log is not whole".into());
        }
        if !catalog.sealed.is_empty() {
            return Err(Error::new(
                ErrorKind::KeyMissing,
                format!(
                    "{} snapshots cannot be read with these keys: what they need is not known, and nothing is removed",
                    catalog.sealed.len()
                ),
            )
            .with_next_step(
                "prune with the owner's identity, or the writer.key of a host that has backed up from the beginning",
            ));
        }
        if let Some(lags) = catalog.stores.iter().find(|s| !s.lacks.is_empty()) {
            return refused(format!("{} lacks {} records that other stores have", lags.store, lags.lacks.len()));
        }
        let dropped = still_true(plan, &catalog)?;
        let is_dropped = |s: &&Snapshot| dropped.iter().any(|d| d.record == s.record);
        // What is to stay has to be there, everywhere, before anything goes.
        let mut wanted = HashMap::new();
        let mut parts = HashSet::new();
        for snapshot in catalog.snapshots.iter().filter(|s| !is_dropped(s)) {
            self.references(&snapshot.manifest, &mut parts, |object, stored| {
                wanted.entry(object).or_insert((stored, &snapshot.id));
                Ok(())
            })
            .await?;
        }
        let mut listed = Vec::new();
        for store in self.stores() {
            let here = self.clone().in_store(store.clone());
            let objects = here.dated_objects().await?;
            for (object, (stored, snapshot)) in &wanted {
                let there = objects.get(object).map(|(size, _)| size);
                if there != Some(stored) {
                    let what = if there.is_none() { "is missing" } else { "has another length" };
                    let name = layout::object(object);
                    return refused(format!("{name} {what} in {store}, which {snapshot} needs"));
                }
            }
            listed.push((here, objects));
        }
        let mut wanted: HashSet<Digest> = wanted.into_keys().collect();
        lease.check()?;
        let mut report = PruneReport::default();
        let rejected: Vec<RecordName> =
            plan.rejected.iter().filter(|record| catalog.rejected.contains(record)).copied().collect();
        if !dropped.is_empty() || !rejected.is_empty() {
            report.tombstone = Some(self.bury(&catalog, plan, &dropped, &rejected).await?);
            report.rejected = rejected;
            report.removed = dropped.iter().map(|d| d.snapshot.clone()).collect();
        }
        if !options.grace.is_zero() {
            // Not left to a list of the log, which may not show the tombstone yet.
            for snapshot in catalog.snapshots.iter().filter(is_dropped) {
                self.protect(&snapshot.manifest, &mut wanted).await?;
            }
        }
        for (here, objects) in listed {
            // A store that did not take the tombstone still lists what it removes.
            let knows = match &report.tombstone {
                Some(tombstone) if self.stores().len() > 1 => names_in(here.store()).await?.contains(tombstone),
                _ => true,
            };
            if knows {
                here.sweep(lease, &objects, wanted.clone(), options, &mut report).await?;
            }
        }
        Ok(report)
    }

    /// By the lease, which was written just now. To a clock that is wrong the leases of others look as if they had run out,
    /// and ours does to them.
    async fn compare_clocks(&self, store: &Store, skew: Duration) -> Result<()> {
        let mut newest = None;
        let mut leases = store.list_dated(layout::LOCKS);
        while let Some((_, _, modified)) = leases.try_next().await? {
            newest = newest.max(Some(modified));
        }
        let Some(newest) = newest else {
            return Err(Error::new(
                ErrorKind::StoreUnavailable,
                format!("{store} does not list the lease that was written to it just now"),
            ));
        };
        let apart = (self.now() - newest).abs();
        if apart.to_std().unwrap_or(Duration::MAX) <= skew {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Clock,
            format!(
                "the clocks of this machine and of {store} are {} s apart: nothing is removed",
                apart.num_seconds()
            ),
        )
        .with_next_step("set this machine's clock (timedatectl set-ntp true); a backup does not depend on it"))
    }

    /// Signs what is removed.
    async fn bury(
        &self,
        catalog: &Catalog,
        plan: &PrunePlan,
        dropped: &[&Decision],
        rejected: &[RecordName],
    ) -> Result<RecordName> {
        let plan = serde_json::to_vec(plan)
            .map_err(|e| Error::new(ErrorKind::Internal, "a plan could not be written as JSON").with_source(e))?;
        let signing: Option<&Signing> = if self.is_encrypted() { Some(&self.keys().admin()?.signing) } else { None };
        let tombstone =
            catalog.tombstone(dropped.iter().map(|d| d.record).chain(rejected.iter().copied()), Digest::sha256(&plan));
        self.append(RecordKind::Tombstone, &tombstone, signing).await
    }

    /// Deletes what nothing refers to and has not for the time of grace.
    async fn sweep(
        &self,
        lease: &Lease,
        listed: &HashMap<Digest, (u64, DateTime<Utc>)>,
        mut wanted: HashSet<Digest>,
        options: &PruneOptions,
        report: &mut PruneReport,
    ) -> Result<()> {
        let grace = chrono::TimeDelta::from_std(options.grace).unwrap_or(chrono::TimeDelta::MAX);
        let since = self.now().checked_sub_signed(grace).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let mut records = Vec::new();
        for (record, removed_at, manifest) in self.buried().await? {
            if removed_at <= since {
                records.push(record);
            } else if let Some(manifest) = manifest {
                self.protect(&manifest, &mut wanted).await?;
            }
        }
        let unwanted = listed.iter().filter(|(object, _)| !wanted.contains(*object));
        let (gone, waiting): (Vec<_>, Vec<_>) = unwanted.partition(|(_, (_, modified))| *modified <= since);
        report.waiting_objects += waiting.len() as u64;
        report.waiting_bytes += waiting.iter().map(|(_, (size, _))| size).sum::<u64>();
        // The records last: until then they say what was removed.
        let objects = gone.into_iter().map(|(object, (size, _))| (layout::object(object), *size));
        let records = records.iter().map(|record| (layout::record(record), 0));
        for (is_data, some) in [(true, objects.collect::<Vec<_>>()), (false, records.collect())] {
            let mut removing = futures::stream::iter(some)
                .map(|(path, size)| async move {
                    lease.check()?;
                    match self.store().remove(&path).await {
                        Ok(()) => Ok(Some(size)),
                        Err(e) if e.kind() == ErrorKind::StoreDenied => Ok(None),
                        Err(e) => Err(e),
                    }
                })
                .buffer_unordered(REMOVERS);
            while let Some(removed) = removing.try_next().await? {
                match removed {
                    Some(size) => {
                        report.objects += u64::from(is_data);
                        report.bytes += size;
                    }
                    None => report.denied += u64::from(is_data),
                }
            }
        }
        Ok(())
    }

    /// Adds what a removed snapshot needs; whatever of it is damaged or gone needs no protection any more.
    async fn protect(&self, manifest: &Manifest, wanted: &mut HashSet<Digest>) -> Result<()> {
        for entry in &manifest.entries {
            // Part by part: one that cannot be read does not leave the others without protection.
            let alone = |part: &PartRef| EntryRecord { parts: vec![*part], inline: Vec::new(), ..entry.clone() };
            let mut pieces: Vec<EntryRecord> = entry.parts.iter().map(alone).collect();
            if pieces.is_empty() {
                pieces.push(entry.clone());
            }
            for piece in pieces {
                wanted.extend(piece.parts.iter().map(|p| p.object));
                let lines = index_lines(self, &piece);
                futures::pin_mut!(lines);
                loop {
                    match lines.try_next().await {
                        Ok(Some(IndexLine::Chunk(chunk))) => drop(wanted.insert(chunk.object)),
                        Ok(Some(IndexLine::Unit(_))) => {}
                        Ok(None) => break,
                        Err(e) if e.kind() == ErrorKind::Damaged => break,
                        Err(e) => return Err(e),
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with every object that a snapshot needs and its length; parts in `seen` are not read again.
    pub(crate) async fn references(
        &self,
        manifest: &Manifest,
        seen: &mut HashSet<Digest>,
        mut each: impl FnMut(Digest, u64) -> Result<()>,
    ) -> Result<()> {
        for entry in &manifest.entries {
            for part in &entry.parts {
                each(part.object, part.stored)?;
            }
            // Parts are shared between snapshots; an entry whose parts were all seen has nothing new.
            let fresh = entry.parts.iter().filter(|p| seen.insert(p.object)).count();
            if fresh == 0 && entry.inline.is_empty() {
                continue;
            }
            let lines = index_lines(self, entry);
            futures::pin_mut!(lines);
            while let Some(line) = lines.try_next().await? {
                if let IndexLine::Chunk(chunk) = line {
                    each(chunk.object, chunk.stored)?;
                }
            }
        }
        Ok(())
    }

    async fn dated_objects(&self) -> Result<HashMap<Digest, (u64, DateTime<Utc>)>> {
        let mut objects = HashMap::new();
        let mut names = self.store().list_dated(layout::OBJECTS);
        while let Some((name, size, modified)) = names.try_next().await? {
            if let layout::Name::Object(digest) = layout::parse(&name) {
                objects.insert(digest, (size, modified));
            }
        }
        Ok(objects)
    }
}

/// What the plan drops, if the repository still is what it was made of.
fn still_true<'a>(plan: &'a PrunePlan, catalog: &Catalog) -> Result<Vec<&'a Decision>> {
    let drift = |why: String| {
        Err(Error::new(ErrorKind::Drift, format!("the plan does not fit any more: {why}; nothing is removed"))
            .with_next_step("make a new plan, look at it, and apply that"))
    };
    let assurance = catalog.assurance();
    let is_whole = |id: &SnapshotId| assurance.get(id).is_some_and(Assurance::is_content_verified);
    let there: HashMap<&RecordName, &SnapshotId> = catalog.snapshots.iter().map(|s| (&s.record, &s.id)).collect();
    let mut dropped = HashSet::new();
    let mut named = HashSet::new();
    for decision in &plan.decisions {
        let id = &decision.snapshot;
        if there.get(&decision.record) != Some(&id) {
            return drift(format!("{id} is not there any more"));
        }
        if !named.insert(decision.record) {
            return drift(format!("it names {id} twice"));
        }
        if decision.copy && !is_whole(id) {
            return drift(format!("{id}, which counts as a copy, was found damaged since"));
        }
        if !decision.keep {
            dropped.insert(decision.record);
        }
    }
    // Whoever wrote this plan: the newest verified snapshot of anything stays, as the repository itself tells them apart.
    let mut newest = HashMap::new();
    for s in &catalog.snapshots {
        let last = newest.entry((&s.manifest.source.name, &s.manifest.tier)).or_insert((None, false));
        last.1 |= dropped.contains(&s.record);
        if is_whole(&s.id) {
            last.0 = Some(s);
        }
    }
    for ((source, _), (last, loses)) in newest {
        if loses && last.is_none_or(|s| dropped.contains(&s.record)) {
            return drift(format!("it does not keep the newest verified snapshot of {source}"));
        }
    }
    Ok(plan.dropped().collect())
}
