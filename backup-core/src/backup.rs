//! Taking a snapshot.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::copies::Copies;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{Hooks, Owed, Reading};
use crate::keys::random;
use crate::manifest::{Digest, EntryKind, EntryRecord, Manifest, Problem, Snapshot, SourceInfo, Totals};
use crate::pipeline::{Known, KnownPrevious, Writer, drain};
use crate::progress::{Event, NoProgress, Progress};
use crate::repository::record::RecordKind;
use crate::repository::{Lease, LeaseMode, Repository, host_name};
use crate::source::{CaptureContext, CaptureEnd, Source};
use crate::throttle::{Gate, Throttle};

/// How hard zstd tries for data, unless it is told otherwise. Measured by `benches`: see its `levels` command.
const LEVEL: i32 = 1;
/// Entries of one source that are written at the same time.
const SIDE_BY_SIDE: usize = 4;

/// How to take a snapshot. The defaults are right for a shop.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackupOptions {
    /// A text to find it by.
    pub label: Option<String>,
    /// The run it belongs to; a new one unless it is given, so that sources backed up together can share it.
    pub run: Option<String>,
    /// The zstd level, from 1 (fast) to 19 (small).
    pub level: i32,
    /// In how many stores it has to be in the end; 1 unless told. Where fewer can be reached, nothing is begun.
    pub min_copies: usize,
    /// What is called before the source is read and after.
    pub hooks: Option<Arc<dyn Hooks>>,
    /// What may make the reading pause; each of them.
    pub throttles: Vec<Arc<dyn Throttle>>,
    /// For how long reading may pause altogether; ten minutes unless told. Then it goes on: a snapshot that is held open
    /// costs the database as well.
    pub max_pause: Duration,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            label: None,
            run: None,
            level: LEVEL,
            min_copies: 1,
            hooks: None,
            throttles: Vec::new(),
            max_pause: Duration::from_secs(600),
            progress: Arc::new(NoProgress),
        }
    }
}

impl BackupOptions {
    /// The same with a label.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same as part of a run.
    #[must_use]
    pub fn with_run(mut self, run: impl Into<String>) -> Self {
        self.run = Some(run.into());
        self
    }

    /// The same at another zstd level.
    #[must_use]
    pub fn with_level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// The same, wanting the snapshot in so many stores.
    #[must_use]
    pub fn with_min_copies(mut self, copies: usize) -> Self {
        self.min_copies = copies;
        self
    }

    /// The same with something to be done before the source is read and after.
    #[must_use]
    pub fn with_hooks(mut self, hooks: Arc<dyn Hooks>) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// The same, pausing where this one says so too.
    #[must_use]
    pub fn with_throttle(mut self, throttle: Arc<dyn Throttle>) -> Self {
        self.throttles.push(throttle);
        self
    }

    /// The same, pausing for so long at most.
    #[must_use]
    pub fn with_max_pause(mut self, longest: Duration) -> Self {
        self.max_pause = longest;
        self
    }

    /// The same, watched.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }
}

/// A new run's id, for sources that are backed up together.
pub fn new_run() -> Result<String> {
    Ok(hex::encode(random::<8>()?))
}

impl Repository {
    /// Takes one snapshot of `source`.
    ///
    /// It exists once its signed record is in the log, which is written last: after every chunk is durable and the
    /// source has reported a clean end. Dropping the future, or an error anywhere before, leaves unreferenced chunks at
    /// most; dropped while that record is being written, it may leave the whole snapshot. What the source could not read is in [`Manifest::problems`]: a snapshot with problems is kept, and has to
    /// be reported.
    ///
    /// **Several stores** get the same bytes, each at its own pace. The database waits only while fewer than
    /// [`min_copies`](BackupOptions::min_copies) of them keep up; one that falls behind is brought up to date afterwards,
    /// from one that has everything, also with what it lacked before. [`Snapshot::stores`] says where the snapshot is in the
    /// end, and [`Event::Lags`](crate::Event::Lags) which store it is not in, and why.
    ///
    /// # Errors
    /// See [`ErrorKind`]; nothing is committed after any of them but [`ErrorKind::TooFewCopies`]: then the snapshot is whole
    /// in fewer stores than were asked for.
    pub async fn backup(&self, source: &dyn Source, options: BackupOptions) -> Result<Snapshot> {
        // What is missing shows before anything is touched: no key, no encryption, no byte written.
        if self.is_encrypted() {
            let writer = self.keys().writer()?;
            if !self.trust().is_some_and(|t| t.is_writer(&writer.verify_key())) {
                return Err(Error::new(
                    ErrorKind::KeyWrong,
                    "this writer.key is not one that trust.json names: what it signs would not count",
                )
                .with_next_step(
                    "use the writer.key that this repository was made with, or the trust.json that belongs to this one",
                ));
            }
        }
        self.data_cipher()?;
        self.metadata_cipher()?;
        let began = SystemTime::now();
        let (here, lease) = self.lease_reachable(options.min_copies, &*options.progress).await?;
        let result = here.backup_under(&lease, source, options, began).await;
        lease.release().await;
        result
    }

    /// Takes a lease in every store that can be used; the repository without the others.
    async fn lease_reachable(&self, copies: usize, progress: &dyn Progress) -> Result<(Self, Lease)> {
        let named = self.stores().len() + self.unreachable().len();
        if copies > named {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{copies} copies are wanted, and there are {named} stores"),
            )
            .with_next_step("name as many stores as copies are wanted"));
        }
        if named == 1 {
            return Ok((self.clone(), self.lease(LeaseMode::Shared, "a backup").await?));
        }
        let mut without = self.unreachable().to_vec();
        let mut stores = Vec::new();
        let mut leases = Vec::new();
        let (mut failed, mut locked) = (None, false);
        for store in self.stores() {
            match self.clone().in_store(store.clone()).lease(LeaseMode::Shared, "a backup").await {
                Ok(lease) => {
                    stores.push(store.clone());
                    leases.push(lease);
                }
                // One that is being pruned alone, or that somebody keeps locked, does not stop the others.
                Err(e) if e.is_about_the_store() || e.kind() == ErrorKind::Locked => {
                    locked |= e.kind() == ErrorKind::Locked;
                    without.push((store.to_string(), Arc::new(e)));
                }
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        let lease = Lease::all(leases);
        let too_few = || {
            let why: Vec<_> = without.iter().map(|(store, e)| format!("{store}: {e}")).collect();
            Error::new(
                if locked { ErrorKind::Locked } else { ErrorKind::StoreUnavailable },
                format!(
                    "{copies} copies are wanted, and {} of {named} stores can be used ({})",
                    stores.len(),
                    why.join("; ")
                ),
            )
            .with_next_step("make the others reachable, or ask for fewer copies")
        };
        if let Some(e) = failed.or_else(|| (stores.len() < copies.max(1)).then(too_few)) {
            lease.release().await;
            return Err(e);
        }
        for (store, e) in &without {
            progress.on(Event::Lags { store, reason: &e.to_string() });
        }
        Ok((self.clone().in_stores(stores, without), lease))
    }

    async fn backup_under(
        &self,
        lease: &Lease,
        source: &dyn Source,
        options: BackupOptions,
        began: SystemTime,
    ) -> Result<Snapshot> {
        let started_at = self.now();
        for store in self.stores() {
            match self.clone().in_store(store.clone()).sweep_if_alone(began).await {
                Ok(0) => {}
                Ok(swept) => tracing::info!(files = swept, %store, "removed the torn writes of a killed run"),
                Err(e) if self.stores().len() > 1 && e.is_about_the_store() => {
                    tracing::warn!(%store, error = %e, "torn writes of killed runs could not be looked for");
                }
                Err(e) => return Err(e),
            }
        }
        let epoch = self.epoch()?;
        let previous = self.previous(source.name(), source.tier(), &epoch).await?;
        let gate = if options.throttles.is_empty() {
            None
        } else {
            let progress = Arc::clone(&options.progress);
            Some(Gate::new(options.throttles.clone(), options.max_pause, progress).await?)
        };
        // Before anybody is told or anything is opened: nobody should wait for a backup that does not read yet.
        if let Some(gate) = &gate {
            gate.pass().await;
        }
        let writer = Arc::new(Writer::new(
            self,
            options.level,
            options.min_copies,
            previous.clone(),
            gate,
            Arc::clone(&options.progress),
        )?);

        let owed = Owed::before(options.hooks.as_ref(), source.name()).await?;
        let read = self.read(source, previous.as_ref(), &writer).await;
        writer.all_is_read();
        owed.after(read.as_ref().map_or_else(Reading::Failed, |_| Reading::Complete)).await;
        let (info, entries, end) = read?;
        lease.check_any()?;

        let mut manifest = self.manifest(info, entries, end, &writer, epoch, started_at, source.tier(), &options)?;
        // A directory without anything in it still is one entry.
        let empty = u64::from(manifest.entries.iter().any(|e| e.kind == EntryKind::Tree));
        let alike = previous.as_ref().map(|p| &p.manifest).filter(|m| m.tier.as_deref() == source.tier());
        if let Some(before) = alike.map(|m| m.totals.rows).filter(|rows| *rows > empty)
            && manifest.totals.rows <= empty
        {
            // An unmounted disk, a truncated file: kept, but never taken for a good night.
            manifest.problem_count += 1;
            manifest.problems.push(Problem::new(
                manifest.source.location.clone(),
                format!("it is empty, though the snapshot before held {before} rows and files: is it the right one, and mounted?"),
            ));
        }
        let signing = if self.is_encrypted() { Some(&self.keys().writer()?.signing) } else { None };
        let arrived = writer.finish().await;
        lease.check_any()?;
        let Some(arrived) = arrived else {
            let record = self.append(RecordKind::Snapshot, &manifest, signing).await?;
            let mut snapshot = Snapshot::new(record, manifest);
            snapshot.stores = vec![self.store().to_string()];
            return Ok(snapshot);
        };
        let (incomplete, bad) =
            previous.as_ref().map(|p| (p.known.incomplete.clone(), p.known.bad.clone())).unwrap_or_default();
        let copies = Copies { repository: self, lease, progress: &*options.progress, incomplete, bad };
        copies.commit(manifest, signing, arrived, options.min_copies).await
    }

    /// Reads all of the source and sends it on its way to the stores.
    async fn read(
        &self,
        source: &dyn Source,
        previous: Option<&Arc<KnownPrevious>>,
        writer: &Arc<Writer>,
    ) -> Result<(SourceInfo, Vec<EntryRecord>, CaptureEnd)> {
        let context = CaptureContext { previous: previous.map(|p| Arc::clone(p) as _) };
        let capture = source.capture(context).await?;
        let info = capture.info();
        if let Some(previous) = previous
            && previous.manifest.source.kind != info.kind
        {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the name {:?} already belongs to a source of kind {}",
                    info.name, previous.manifest.source.kind
                ),
            )
            .with_next_step("give this source another name: --source NAME=URL"));
        }
        let (capture, entries) = drain(capture, SIDE_BY_SIDE, |entry| {
            let writer = Arc::clone(writer);
            async move { writer.write(entry).await }
        })
        .await?;
        let end = capture.finish().await?;
        Ok((info, entries, end))
    }

    /// What can be shared: the newest full snapshot of this source, or the newest of the same tier if that is newer. A tier
    /// taken since the last full snapshot holds what changed most, so its chunks are shared too.
    async fn previous(&self, name: &str, tier: Option<&str>, epoch: &str) -> Result<Option<Arc<KnownPrevious>>> {
        let id_key = self.id_key()?;
        let shares = |m: &Manifest| m.source.name == name && m.epoch == epoch && m.id_key == id_key;
        let alike = |m: &Manifest| shares(m) && (m.is_full() || m.tier.as_deref() == tier);
        let Some((snapshot, bad)) = self.newest_snapshot(alike).await? else { return Ok(None) };
        let newest =
            self.newest_snapshot(shares).await?.filter(|(newest, _)| newest.record.sequence > snapshot.record.sequence);
        let manifests = [&snapshot.manifest].into_iter().chain(newest.as_ref().map(|(newest, _)| &newest.manifest));
        match Known::load(self, manifests, &bad).await {
            Ok(known) => Ok(Some(Arc::new(KnownPrevious {
                repository: self.clone(),
                manifest: snapshot.manifest,
                known: Arc::new(known),
            }))),
            Err(e) if e.kind() == ErrorKind::Damaged => {
                tracing::warn!(snapshot = %snapshot.id, error = %e, "the previous snapshot is damaged; everything is stored anew");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Snapshots share chunks only if the same people can read them: the epoch is a digest of who they are.
    fn epoch(&self) -> Result<String> {
        let mut recipients = self.recipient_names();
        recipients.sort();
        let digest = Digest::sha256(format!("{}\n{}", self.id(), recipients.join("\n")).as_bytes());
        Ok(digest.to_string()[..16].to_owned())
    }

    #[allow(clippy::too_many_arguments)]
    fn manifest(
        &self,
        source: SourceInfo,
        entries: Vec<EntryRecord>,
        end: CaptureEnd,
        writer: &Writer,
        epoch: String,
        started_at: chrono::DateTime<chrono::Utc>,
        tier: Option<&str>,
        options: &BackupOptions,
    ) -> Result<Manifest> {
        let (read, added, objects) = writer.counts();
        let data = |e: &&EntryRecord| !matches!(e.kind, EntryKind::PreData | EntryKind::PostData | EntryKind::Globals);
        let schema: Vec<_> = entries
            .iter()
            .filter(|e| matches!(e.kind, EntryKind::PreData | EntryKind::PostData))
            .map(|e| format!("{} {}", e.name, e.fingerprint))
            .collect();
        let totals = Totals {
            bytes: entries.iter().map(|e| e.bytes).sum(),
            rows: entries.iter().filter(data).map(|e| e.fingerprint.rows()).sum(),
            read,
            added,
            objects,
        };
        Ok(Manifest {
            run: match &options.run {
                Some(run) => run.clone(),
                None => new_run()?,
            },
            source,
            tier: tier.map(str::to_owned),
            label: options.label.clone(),
            host: host_name(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at: end.taken_at,
            started_at,
            finished_at: self.now(),
            position: end.position,
            schema: (!schema.is_empty()).then(|| Digest::sha256(schema.join("\n").as_bytes())),
            epoch,
            recipients: self.recipient_names(),
            readers: self.readers()?,
            id_key: self.id_key()?,
            entries,
            problems: end.problems,
            problem_count: end.problem_count,
            totals,
        })
    }
}
