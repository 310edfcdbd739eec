//! Bringing a snapshot back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::compare::{Compared, compare, fingerprints};
use crate::compose::{Composition, Share};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, EntryKind, EntryRecord, Manifest, Snapshot, SnapshotId};
use crate::pipeline::EntryReader;
use crate::progress::{Event, NoProgress, Progress};
use crate::repository::Repository;
use crate::target::{Filling, Intake, Only, Orphans, Target};

/// How to restore.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Replace what the target holds.
    pub clean: bool,
    /// Only these tables or files.
    pub only: Option<Only>,
    /// Restore who owns and may use what, where the target knows such a thing. On by default; a drill leaves it out.
    pub ownership: bool,
    /// Read the target again afterwards and compare fingerprints. On by default.
    pub compare: bool,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self { clean: false, only: None, ownership: true, compare: true, progress: Arc::new(NoProgress) }
    }
}

impl RestoreOptions {
    /// The same, replacing what the target holds.
    #[must_use]
    pub fn clean(mut self, clean: bool) -> Self {
        self.clean = clean;
        self
    }

    /// The same for a selection.
    #[must_use]
    pub fn only(mut self, only: Option<Only>) -> Self {
        self.only = only;
        self
    }

    /// The same with or without owners and grants.
    #[must_use]
    pub fn ownership(mut self, ownership: bool) -> Self {
        self.ownership = ownership;
        self
    }

    /// The same with or without reading the target again.
    #[must_use]
    pub fn compare(mut self, compare: bool) -> Self {
        self.compare = compare;
        self
    }

    /// The same, watched.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }
}

/// What a restore did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Where it went.
    pub target: String,
    /// Plaintext bytes of the entries that were restored; with a selection of files, of the whole entry they are in.
    pub bytes: u64,
    /// Rows and files of the data entries that were restored.
    pub rows: u64,
    /// Time until the target was complete, in milliseconds.
    pub milliseconds: u64,
    /// Time it took to read it again and compare, in milliseconds.
    pub compare_milliseconds: u64,
    /// Entry by entry, if it was compared; empty otherwise.
    pub compared: Vec<Compared>,
    /// What could not be kept as it was, for people.
    pub notes: Vec<String>,
    /// What came from which snapshot, where it was put together from several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// Rows whose foreign keys do not hold, where it was put together from several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<Orphans>,
}

impl RestoreReport {
    /// Whether everything that was compared is equal, and something was.
    pub fn is_equal(&self) -> bool {
        !self.compared.is_empty() && self.compared.iter().all(Compared::is_equal)
    }

    /// The entries that differ.
    pub fn different(&self) -> impl Iterator<Item = &Compared> {
        self.compared.iter().filter(|c| !c.is_equal())
    }
}

impl Repository {
    /// Restores `snapshot` to `target`. Needs the owner's identity where the repository is encrypted.
    ///
    /// Every byte is checked against the signed record before it reaches the target, and the target keeps all of it or
    /// nothing. Dropping the future leaves the target as it was, except for debris that the next restore removes.
    ///
    /// # Errors
    /// See [`ErrorKind`]. [`ErrorKind::Mismatch`] where the restored target does not hold what the snapshot does.
    pub async fn restore(
        &self,
        snapshot: &Snapshot,
        target: &dyn Target,
        options: RestoreOptions,
    ) -> Result<RestoreReport> {
        as_expected(self.restore_and_compare(snapshot, target, &options).await?)
    }

    /// Restores what several snapshots give together: see [`compose`](Self::compose). Rows whose foreign
    /// keys do not hold are restored and [listed](RestoreReport::orphans); PostgreSQL gets such a key as `NOT VALID`.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub async fn restore_composed(
        &self,
        composition: &Composition,
        target: &dyn Target,
        options: RestoreOptions,
    ) -> Result<RestoreReport> {
        let Composition { shares, notes, manifest, base, id_keys } = composition;
        let mut report = self.restore_manifest(base, manifest, Some(id_keys), target, &options).await?;
        report.notes.splice(0..0, notes.iter().cloned());
        report.shares.clone_from(shares);
        match target.orphans().await {
            Ok(orphans) => report.orphans = orphans,
            Err(e) => report.notes.push(format!("whether all foreign keys hold is NOT KNOWN: {e}")),
        }
        as_expected(report)
    }

    /// The same as [`restore`](Self::restore), with differences in the report instead of an error.
    pub(crate) async fn restore_and_compare(
        &self,
        snapshot: &Snapshot,
        target: &dyn Target,
        options: &RestoreOptions,
    ) -> Result<RestoreReport> {
        self.restore_manifest(&snapshot.id, &snapshot.manifest, None, target, options).await
    }
    /// `id_keys`: the key of the chunk ids of each entry, where they are of several snapshots.
    async fn restore_manifest(
        &self,
        id: &SnapshotId,
        manifest: &Manifest,
        id_keys: Option<&HashMap<String, Digest>>,
        target: &dyn Target,
        options: &RestoreOptions,
    ) -> Result<RestoreReport> {
        let began = Instant::now();
        if let (Some(tier), true, None) = (&manifest.tier, options.clean, &options.only) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("snapshot {id} holds only the tier {tier:?}: in place of {} it would leave all other tables empty", target.location()),
            )
            .with_next_step("restore it into an empty database, or pick its tables with --only; a full snapshot can replace a database"));
        }
        let reader = EntryReader::new(self, manifest, Arc::clone(&options.progress))?;
        let filling = Filling {
            clean: options.clean,
            only: options.only.clone(),
            ownership: options.ownership,
            composed: id_keys.is_some(),
        };
        let intake = target.open(manifest, &filling).await?;
        let wanted: Vec<&EntryRecord> =
            manifest.entries.iter().filter(|e| e.kind != EntryKind::Globals && intake.wants(e)).collect();
        let fill = async {
            self.check_selection(options, intake.as_ref(), manifest).await?;
            for kind in PHASES {
                let side_by_side = if kind == EntryKind::Data { intake.concurrency() } else { 1 };
                // Gathered first: a stream with this closure in it could not be spawned.
                let work: Vec<_> = wanted
                    .iter()
                    .filter(|e| e.kind == kind)
                    .map(|entry| {
                        let key = id_keys.and_then(|keys| keys.get(&entry.name)).copied();
                        let reader = reader.clone().with_id_key(key.unwrap_or(manifest.id_key));
                        self.restore_entry(reader, entry, intake.as_ref(), options)
                    })
                    .collect();
                futures::stream::iter(work).buffer_unordered(side_by_side).try_collect::<()>().await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(e) = fill.await {
            intake.abandon().await;
            return Err(e);
        }
        let bytes = wanted.iter().map(|e| e.bytes).sum();
        let is_data =
            |e: &&&EntryRecord| !matches!(e.kind, EntryKind::PreData | EntryKind::PostData | EntryKind::Globals);
        let rows = wanted.iter().filter(is_data).map(|e| e.fingerprint.rows()).sum();
        let may_differ: Vec<(&str, String)> =
            wanted.iter().filter_map(|e| Some((e.name.as_str(), intake.may_differ(e)?))).collect();
        let mut notes = intake.finish().await?;
        let milliseconds = millis(began);

        let began = Instant::now();
        let mut compared = Vec::new();
        if options.compare
            && let Some(source) = target.read_back()
        {
            let found = fingerprints(source.as_ref()).await?;
            let comparable = wanted.iter().copied().filter(|e| match options.only {
                // Of a selection only whole tables can be compared.
                Some(_) => e.kind == EntryKind::Data,
                None => true,
            });
            compared = compare(comparable, &found);
            compared.retain(|c| match may_differ.iter().find(|(name, _)| *name == c.entry) {
                Some((name, why)) if !c.is_equal() => {
                    notes.push(format!("{name}: {why}"));
                    false
                }
                _ => true,
            });
        }
        Ok(RestoreReport {
            snapshot: id.clone(),
            target: target.location(),
            bytes,
            rows,
            milliseconds,
            compare_milliseconds: millis(began),
            compared,
            notes,
            shares: Vec::new(),
            orphans: Vec::new(),
        })
    }

    async fn restore_entry(
        &self,
        reader: EntryReader,
        entry: &EntryRecord,
        intake: &dyn Intake,
        options: &RestoreOptions,
    ) -> Result<()> {
        options.progress.on(Event::Began { name: &entry.name });
        let body = match (entry.kind, &options.only) {
            #[cfg(feature = "files")]
            (EntryKind::Files, Some(_)) => reader.read_units(entry, |unit| intake.wants_unit(unit)),
            _ => reader.read(entry),
        };
        intake.take(entry, body).await?;
        options.progress.on(Event::Ended { name: &entry.name, rows: entry.fingerprint.rows() });
        Ok(())
    }

    /// A selection that selects nothing is a mistake, not a success.
    async fn check_selection(&self, options: &RestoreOptions, intake: &dyn Intake, manifest: &Manifest) -> Result<()> {
        let Some(only) = &options.only else { return Ok(()) };
        for entry in manifest.entries.iter().filter(|e| intake.wants(e)) {
            match entry.kind {
                EntryKind::Data => return Ok(()),
                EntryKind::Files => {
                    let units = crate::pipeline::units_of(self, entry);
                    futures::pin_mut!(units);
                    while let Some((_, unit)) = units.try_next().await? {
                        if intake.wants_unit(&unit) {
                            return Ok(());
                        }
                    }
                }
                _ => {}
            }
        }
        Err(Error::new(ErrorKind::NotFound, format!("nothing in the snapshot matches {only}"))
            .with_next_step("`backup show ID` lists its tables"))
    }
}

/// An error where what was restored is not what was backed up.
fn as_expected(report: RestoreReport) -> Result<RestoreReport> {
    if let Some(first) = report.different().next() {
        let found = first.found.map_or_else(|| "nothing".into(), |f| f.to_string());
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!(
                "{} was restored, but {} entries differ from snapshot {}: first {} (expected {}, found {found})",
                report.target,
                report.different().count(),
                report.snapshot,
                first.entry,
                first.expected
            ),
        )
        .with_next_step(
            "if the target is in use, something may have written to it already; if not, do not rely on it",
        ));
    }
    Ok(report)
}

const PHASES: [EntryKind; 5] =
    [EntryKind::PreData, EntryKind::Data, EntryKind::Files, EntryKind::Tree, EntryKind::PostData];

/// Milliseconds since `began`.
pub(crate) fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}
