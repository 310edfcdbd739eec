//! Many seeded runs on a store that misbehaves: what is listed can be restored, and what is kept is never harmed.
//!
//! A seed is printed where a run fails; `CARETAKER_SEED=n` runs that one alone, `CARETAKER_RUNS=n` more of them.

#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/faulty.rs"]
mod faulty;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::chrono::{TimeDelta, Utc};
use backup_core::object_store::ObjectStore;
use backup_core::object_store::memory::InMemory;
use backup_core::{
    BackupOptions, ErrorKind, FilesSource, FilesTarget, Keys, PruneOptions, Repository, RestoreOptions, Result,
    Retention, SnapshotId, Store, SyncOptions, VerifyLevel, VerifyOptions, sync,
};
use faulty::{Faulty, Rates};
use futures::{StreamExt, TryStreamExt};

/// Everything that a store does to honest data.
const MISBEHAVES: Rates = Rates { refused: 30, answer_lost: 30, cut_short: 20, stale_list: 200, storm: 5, lost: 0 };

/// No run takes a tenth of that.
const HANGS: Duration = Duration::from_secs(200);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// A folder in memory where there is one: restores sync the file system they are on, and wait there for what others write.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs `one` for each seed, several at a time.
async fn runs<F: Future<Output = ()> + Send + 'static>(number: u64, one: impl Fn(u64) -> F) {
    let seeds = match setting("CARETAKER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("CARETAKER_RUNS").unwrap_or(number),
    };
    let running = futures::stream::iter(seeds).map(|seed| {
        // Whoever hangs is to be named, and not only ended by whoever runs the tests.
        let run = tokio::spawn(tokio::time::timeout(HANGS, one(seed)));
        async move {
            match run.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(format!("seed {seed} hangs")),
                Err(e) => Err(format!("seed {seed}: {e}")),
            }
        }
    });
    running.buffer_unordered(32).try_collect::<()>().await.unwrap();
}

/// A shop whose store misbehaves, and what it knows to be true of it.
struct World {
    seed: u64,
    rng: fastrand::Rng,
    dir: tempfile::TempDir,
    memory: Arc<InMemory>,
    keys: Keys,
    /// Minutes since it began.
    minutes: i64,
    /// What each snapshot that was reported as taken has to give back.
    taken: HashMap<SnapshotId, Vec<u8>>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let memory = Arc::new(InMemory::new());
        let dir = in_memory();
        Keys::generate().unwrap().save(dir.path().join("keys")).unwrap();
        let mut keys = Keys::load(dir.path().join("keys")).unwrap();
        Repository::init(Store::new(memory.clone(), "memory:"), &mut keys, &[]).await.unwrap();
        std::fs::create_dir(dir.path().join("uploads")).unwrap();
        let rng = fastrand::Rng::with_seed(seed);
        Self { seed, rng, dir, memory, keys, minutes: 0, taken: HashMap::new() }
    }

    async fn open(&self, store: Arc<dyn ObjectStore>) -> Result<Repository> {
        let minutes = self.minutes;
        let repository = Repository::open(Store::new(store, "memory:"), self.keys.clone()).await?;
        Ok(repository.with_clock(Arc::new(move || Utc::now() + TimeDelta::minutes(minutes))))
    }

    /// Through faults, of which one may be the death of the process.
    async fn step(&mut self, rates: Rates) {
        // Longer than a lease, so that those of the dead run out.
        self.minutes += 10;
        let mut store = Faulty::new(self.memory.clone(), self.rng.u64(..), rates);
        if self.rng.u8(0..4) == 0 {
            store = store.dies_at(self.rng.i64(0..30));
        }
        let Ok(repository) = self.open(Arc::new(store)).await else { return };
        match self.rng.u8(0..5) {
            0 | 1 => {
                let content: Vec<u8> = std::iter::repeat_with(|| self.rng.u8(..)).take(3_000).collect();
                std::fs::write(self.dir.path().join("uploads/photo.jpg"), &content).unwrap();
                let source = FilesSource::new(self.dir.path().join("uploads")).named("uploads");
                if let Ok(snapshot) = repository.backup(&source, BackupOptions::default()).await {
                    self.taken.insert(snapshot.id, content);
                }
            }
            2 => {
                let _ = repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await;
            }
            3 => {
                // The time is simulated, and the store's is not.
                let Ok(catalog) = repository.catalog().await else { return };
                let policy: Retention = "hourly=1,verified=2".parse().unwrap();
                let plan = policy.plan(&catalog, Utc::now() + TimeDelta::minutes(self.minutes));
                let options = PruneOptions::default()
                    .with_grace(Duration::from_secs(self.rng.u64(0..2) * 3600))
                    .with_clock_skew(Duration::MAX);
                let pruned = repository.prune(&plan, options).await;
                // Whether it ended or died in the middle: what it dropped it may have dropped.
                for dropped in plan.dropped() {
                    self.taken.remove(&dropped.snapshot);
                }
                if let Err(e) = pruned {
                    let told = matches!(
                        e.kind(),
                        ErrorKind::StoreUnavailable
                            | ErrorKind::Locked
                            | ErrorKind::Config
                            | ErrorKind::Damaged
                            | ErrorKind::Drift
                    );
                    assert!(told, "seed {}: {e}", self.seed);
                }
            }
            _ => {
                let Ok(catalog) = repository.catalog().await else { return };
                if let Some(snapshot) = catalog.snapshots.last() {
                    let place = self.dir.path().join("restored");
                    let target = FilesTarget::new(&place);
                    if repository.restore(snapshot, &target, RestoreOptions::default()).await.is_ok()
                        && let Some(content) = self.taken.get(&snapshot.id)
                    {
                        assert_eq!(std::fs::read(place.join("photo.jpg")).unwrap(), *content, "seed {}", self.seed);
                    }
                    let _ = std::fs::remove_dir_all(&place);
                }
            }
        }
    }

    /// Everything that is listed comes back, and nothing that was taken and not dropped is missing.
    async fn assert_whole(&mut self) {
        self.minutes += 10;
        let repository = self.open(self.memory.clone()).await.unwrap();
        let report = repository.verify(None, VerifyOptions::new(VerifyLevel::Content).record(false)).await.unwrap();
        assert!(report.findings.is_empty(), "seed {}: {:?}", self.seed, report.findings);
        let catalog = repository.catalog().await.unwrap();
        for (id, content) in &self.taken {
            let snapshot = catalog.snapshots.iter().find(|s| s.id == *id);
            let snapshot = snapshot.unwrap_or_else(|| panic!("seed {}: {id} is lost", self.seed));
            let place = self.dir.path().join(format!("again-{id}"));
            let restored =
                repository.restore(snapshot, &FilesTarget::new(&place), RestoreOptions::default()).await.unwrap();
            assert!(restored.is_equal(), "seed {}", self.seed);
            assert_eq!(std::fs::read(place.join("photo.jpg")).unwrap(), *content, "seed {}", self.seed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_comes_back_whatever_the_store_did() {
    runs(200, |seed| async move {
        let mut world = World::new(seed).await;
        for _ in 0..12 {
            world.step(MISBEHAVES).await;
        }
        world.assert_whole().await;
    })
    .await;
}

/// A store that confirms what it loses: nobody can restore that, but a verify says so, and a later backup stores it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_lost_is_found_and_stored_again() {
    runs(60, |seed| async move {
        let mut world = World::new(seed).await;
        let lossy = Rates { lost: 250, ..Rates::default() };
        let source = FilesSource::new(world.dir.path().join("uploads")).named("uploads");
        std::fs::write(world.dir.path().join("uploads/photo.jpg"), vec![seed as u8; 5_000]).unwrap();
        let store = Arc::new(Faulty::new(world.memory.clone(), seed, lossy));
        let through = world.open(store).await.unwrap();
        let snapshot = through.backup(&source, BackupOptions::default()).await.unwrap();
        let honest = world.open(world.memory.clone()).await.unwrap();
        let report = honest.verify(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap();
        let place = world.dir.path().join("restored");
        let restored = honest.restore(&snapshot, &FilesTarget::new(&place), RestoreOptions::default()).await;
        match restored {
            Ok(restored) => assert!(restored.is_equal() && report.is_sound(), "seed {seed}: {:?}", report.findings),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Damaged, "seed {seed}: {e}");
                assert!(e.to_string().contains("objects/") && !report.is_intact(&snapshot.id), "seed {seed}: {e}");
            }
        }
        world.minutes += 10;
        let honest = world.open(world.memory.clone()).await.unwrap();
        let again = honest.backup(&source, BackupOptions::default()).await.unwrap();
        let options = VerifyOptions::new(VerifyLevel::Content);
        let report = honest.verify(Some(std::slice::from_ref(&again.id)), options).await.unwrap();
        assert!(report.is_sound(), "seed {seed}: {:?}", report.findings);
    })
    .await;
}

/// Three stores that each misbehave for themselves, of which any may be away at any time: what was reported as taken is in
/// as many of them as was said, and in the end, brought up to date from one another, in all.
#[tokio::test(flavor = "multi_thread")]
async fn stores_that_misbehave_apart_come_together() {
    runs(40, |seed| async move {
        let mut world = World::new(seed).await;
        let memories = [world.memory.clone(), Arc::new(InMemory::new()), Arc::new(InMemory::new())];
        let honest = |n: usize| Store::new(memories[n].clone(), format!("store {n}"));
        for n in [1, 2] {
            sync(&honest(0), &honest(n), &world.keys, SyncOptions::default()).await.unwrap();
        }
        let source = FilesSource::new(world.dir.path().join("uploads")).named("uploads");
        let mut taken: Vec<(SnapshotId, Vec<u8>)> = Vec::new();
        for _ in 0..10 {
            world.minutes += 10;
            let mut stores = Vec::new();
            for (n, memory) in memories.iter().enumerate() {
                let mut store = Faulty::new(memory.clone(), world.rng.u64(..), MISBEHAVES);
                if world.rng.u8(0..3) == 0 {
                    store = store.closes_at(world.rng.i64(-1..15));
                }
                stores.push(Store::new(Arc::new(store), format!("store {n}")));
            }
            let minutes = world.minutes;
            let Ok(repository) = Repository::open_all(stores, world.keys.clone()).await else { continue };
            let repository = repository.with_clock(Arc::new(move || Utc::now() + TimeDelta::minutes(minutes)));
            if world.rng.u8(0..4) == 0 {
                let _ = repository.verify_all(None, VerifyOptions::new(VerifyLevel::Content)).await;
                continue;
            }
            let content: Vec<u8> = std::iter::repeat_with(|| world.rng.u8(..)).take(3_000).collect();
            std::fs::write(world.dir.path().join("uploads/photo.jpg"), &content).unwrap();
            let copies = world.rng.usize(1..=2);
            if let Ok(snapshot) = repository.backup(&source, BackupOptions::default().with_min_copies(copies)).await {
                assert!(snapshot.stores.len() >= copies, "seed {seed}: {:?}", snapshot.stores);
                taken.push((snapshot.id.clone(), content));
                for n in 0..3 {
                    let here = Repository::open(honest(n), world.keys.clone()).await.unwrap();
                    let lists = here.catalog().await.unwrap().snapshots.iter().any(|s| s.id == snapshot.id);
                    let said = snapshot.stores.contains(&format!("store {n}"));
                    assert!(lists || !said, "seed {seed}: {} is not in store {n}", snapshot.id);
                }
            }
        }
        // What any of them lists it can give back alone.
        for n in 0..3 {
            let here = Repository::open(honest(n), world.keys.clone()).await.unwrap();
            let report = here.verify(None, VerifyOptions::new(VerifyLevel::Content).record(false)).await.unwrap();
            let lags = |f: &&backup_core::Finding| f.kind != backup_core::FindingKind::Lagging;
            assert_eq!(report.findings.iter().find(lags), None, "seed {seed}: store {n}");
        }
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
            let report = sync(&honest(from), &honest(to), &world.keys, SyncOptions::default()).await.unwrap();
            assert!(report.is_good(), "seed {seed}: {report:?}");
        }
        for n in 0..3 {
            let here = Repository::open(honest(n), world.keys.clone()).await.unwrap();
            let catalog = here.catalog().await.unwrap();
            for (id, content) in &taken {
                let snapshot = catalog.snapshots.iter().find(|s| s.id == *id);
                let snapshot = snapshot.unwrap_or_else(|| panic!("seed {seed}: {id} is lost in store {n}"));
                let place = world.dir.path().join(format!("{n}-{id}"));
                let restored = here.restore(snapshot, &FilesTarget::new(&place), RestoreOptions::default()).await;
                assert!(restored.unwrap().is_equal(), "seed {seed}");
                assert_eq!(std::fs::read(place.join("photo.jpg")).unwrap(), *content, "seed {seed}");
            }
        }
    })
    .await;
}
