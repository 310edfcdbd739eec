//! What a plan drops goes, what it keeps comes back, wherever a prune is broken off.

#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/faulty.rs"]
mod faulty;
mod support;

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use backup_core::chrono::{DateTime, TimeDelta, Utc};
use backup_core::object_store::memory::InMemory;
use backup_core::object_store::path::Path;
use backup_core::object_store::{ObjectStore, ObjectStoreExt};
use backup_core::{
    BackupOptions, Catalog, ErrorKind, FilesSource, FilesTarget, Keys, LeaseMode, PruneOptions, PrunePlan, Repository,
    RestoreOptions, Retention, Store, VerifyLevel, VerifyOptions,
};
use faulty::{Faulty, Rates};
use futures::TryStreamExt;

/// A repository in memory, and a folder that is backed up into it.
struct Shop {
    dir: tempfile::TempDir,
    memory: Arc<InMemory>,
    keys: Keys,
}

impl Shop {
    async fn new() -> Self {
        let memory = Arc::new(InMemory::new());
        let dir = tempfile::tempdir().unwrap();
        Keys::generate().unwrap().save(dir.path().join("keys")).unwrap();
        let mut keys = Keys::load(dir.path().join("keys")).unwrap();
        Repository::init(Store::new(memory.clone(), "memory:"), &mut keys, &[]).await.unwrap();
        Self { dir, memory, keys }
    }

    /// The repository so many hours from now, as another process would open it.
    async fn after(&self, hours: i64) -> Repository {
        self.through(self.memory.clone(), hours).await.unwrap()
    }

    async fn through(&self, store: Arc<dyn ObjectStore>, hours: i64) -> backup_core::Result<Repository> {
        let repository = Repository::open(Store::new(store, "memory:"), self.keys.clone()).await?;
        Ok(repository.with_clock(Arc::new(move || Utc::now() + TimeDelta::hours(hours))))
    }

    /// One more snapshot of a folder that has changed, its content verified.
    async fn night(&self, n: u8) {
        let repository = self.after(0).await;
        self.change(n);
        let snapshot = repository.backup(&self.source(), BackupOptions::default()).await.unwrap();
        let report = repository.verify(Some(&[snapshot.id]), VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
        assert!(report.is_sound());
    }

    fn change(&self, n: u8) {
        let uploads = self.dir.path().join("uploads");
        std::fs::create_dir_all(&uploads).unwrap();
        std::fs::write(uploads.join("same.jpg"), [7; 50_000]).unwrap();
        // Random, so that nothing of it is shared.
        let mut rng = fastrand::Rng::with_seed(n.into());
        std::fs::write(
            uploads.join("changes.jpg"),
            std::iter::repeat_with(|| rng.u8(..)).take(60_000).collect::<Vec<_>>(),
        )
        .unwrap();
    }

    fn source(&self) -> FilesSource {
        FilesSource::new(self.dir.path().join("uploads")).named("uploads")
    }

    async fn objects(&self) -> usize {
        self.memory.list(Some(&Path::from("objects"))).try_collect::<Vec<_>>().await.unwrap().len()
    }

    /// Everything that is listed can be read and restored.
    async fn assert_whole(&self, hours: i64) -> Catalog {
        let repository = self.after(hours).await;
        let report = repository.verify(None, VerifyOptions::new(VerifyLevel::Content).record(false)).await.unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        let catalog = repository.catalog().await.unwrap();
        for snapshot in &catalog.snapshots {
            let place = self.dir.path().join(format!("restored-{}", snapshot.id));
            let restored =
                repository.restore(snapshot, &FilesTarget::new(&place), RestoreOptions::default()).await.unwrap();
            assert!(restored.is_equal());
            remove(&place);
        }
        catalog
    }
}

fn remove(place: &FilePath) {
    std::fs::remove_dir_all(place).unwrap();
}

fn plan(catalog: &Catalog, now: DateTime<Utc>) -> PrunePlan {
    "daily=1".parse::<Retention>().unwrap().plan(catalog, now)
}

/// Where this shop's time is simulated, and the store's is not.
fn simulated() -> PruneOptions {
    PruneOptions::default().with_clock_skew(Duration::MAX)
}

fn at_once() -> PruneOptions {
    simulated().with_grace(Duration::ZERO)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_goes_and_what_is_kept_comes_back() {
    let shop = Shop::new().await;
    for n in 0..5 {
        shop.night(n).await;
    }
    let before = shop.objects().await;
    let repository = shop.after(1).await;
    let plan = plan(&repository.catalog().await.unwrap(), Utc::now());
    assert_eq!((plan.kept().count(), plan.dropped().count()), (3, 2));
    let report = repository.prune(&plan, at_once()).await.unwrap();
    assert_eq!(report.removed.len(), 2);
    assert!(report.objects > 0 && report.bytes > 120_000 && report.waiting_objects == 0, "{report:?}");
    assert!(shop.objects().await < before);
    let catalog = shop.assert_whole(1).await;
    assert!(catalog.is_sound() && catalog.snapshots.len() == 3, "{catalog:?}");
    let verified = repository.verify(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap();
    assert_eq!(verified.unreferenced_count, 0);
    // Once more there is nothing to do, and the next night goes on as before.
    let again = self::plan(&repository.catalog().await.unwrap(), Utc::now());
    let report = repository.prune(&again, at_once()).await.unwrap();
    assert_eq!((report.removed.len(), report.tombstone, report.objects), (0, None, 0));
    shop.night(9).await;
    assert!(shop.assert_whole(1).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_stays_for_the_time_of_grace() {
    let shop = Shop::new().await;
    for n in 0..5 {
        shop.night(n).await;
    }
    let (before, repository) = (shop.objects().await, shop.after(1).await);
    let first = plan(&repository.catalog().await.unwrap(), Utc::now());
    let report = repository.prune(&first, simulated()).await.unwrap();
    assert!(report.removed.len() == 2 && report.objects == 0 && report.waiting_objects == 0, "{report:?}");
    assert_eq!(shop.objects().await, before, "all of it is still there");
    assert_eq!(shop.assert_whole(1).await.snapshots.len(), 3);
    for (hours, goes) in [(20, false), (26, true)] {
        let repository = shop.after(hours).await;
        let next = plan(&repository.catalog().await.unwrap(), Utc::now());
        let report = repository.prune(&next, simulated()).await.unwrap();
        assert_eq!(report.objects > 0, goes, "{hours}: {report:?}");
        assert_eq!(report.tombstone, None);
        assert!(shop.assert_whole(hours).await.is_sound());
    }
    assert!(shop.objects().await < before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_without_the_right_or_where_anything_is_in_doubt() {
    let shop = Shop::new().await;
    for n in 0..5 {
        shop.night(n).await;
    }
    let repository = shop.after(1).await;
    let catalog = repository.catalog().await.unwrap();
    let plan = plan(&catalog, Utc::now());
    let refused = async |repository: &Repository, plan: &PrunePlan| {
        let before = shop.objects().await;
        let e = repository.prune(plan, at_once()).await.unwrap_err();
        assert_eq!(shop.objects().await, before);
        assert_eq!(shop.after(0).await.catalog().await.unwrap().snapshots.len(), 5, "{e}");
        e.kind()
    };
    // The shop's own host has no admin.key.
    let host = shop.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    for key in ["writer.key", "recipient.txt", "trust.json"] {
        std::fs::copy(shop.dir.path().join("keys").join(key), host.join(key)).unwrap();
    }
    let on_host =
        Repository::open(Store::new(shop.memory.clone(), "memory:"), Keys::load(&host).unwrap()).await.unwrap();
    assert_eq!(refused(&on_host, &plan).await, ErrorKind::KeyMissing);
    let lease = repository.lease(LeaseMode::Shared, "a backup").await.unwrap();
    assert_eq!(refused(&repository, &plan).await, ErrorKind::Locked);
    lease.release().await;
    // Plans that drop everything, or the newest, or name one twice or under another name, whoever wrote them.
    let forge = |change: &dyn Fn(&mut Vec<backup_core::retention::Decision>)| {
        let mut forged = plan.clone();
        change(&mut forged.decisions);
        forged
    };
    for forged in [
        forge(&|all| all.iter_mut().for_each(|d| d.keep = false)),
        forge(&|all| all.last_mut().unwrap().keep = false),
        forge(&|all| {
            let mut last = all.last().unwrap().clone();
            last.keep = false;
            all.push(last);
        }),
        forge(&|all| {
            let last = all.last_mut().unwrap();
            (last.source, last.keep) = ("another".into(), false);
        }),
    ] {
        assert_eq!(refused(&repository, &forged).await, ErrorKind::Drift);
    }
    // An object is gone that the newest snapshot needs.
    let newest = catalog.snapshots.last().unwrap();
    let object = newest.manifest.entries.iter().flat_map(|e| &e.parts).next().unwrap().object.to_string();
    let path = Path::from(format!("objects/{}/{object}", &object[..2]));
    let bytes = shop.memory.get(&path).await.unwrap().bytes().await.unwrap();
    shop.memory.delete(&path).await.unwrap();
    assert_eq!(refused(&repository, &plan).await, ErrorKind::Damaged);
    // And a verify has said so meanwhile.
    let _ = repository.verify(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap();
    shop.memory.put(&path, bytes.into()).await.unwrap();
    assert_eq!(refused(&repository, &plan).await, ErrorKind::Drift);
    // A record of the log is gone.
    let gone = self::plan(&repository.catalog().await.unwrap(), Utc::now());
    let log: Vec<_> = shop.memory.list(Some(&Path::from("log"))).map_ok(|m| m.location).try_collect().await.unwrap();
    let is_snapshot = |path: &Path| catalog.snapshots.iter().any(|s| path.as_ref() == format!("log/{}", s.record));
    let evidence = log.iter().filter(|path| !is_snapshot(path)).min().unwrap();
    shop.memory.delete(evidence).await.unwrap();
    assert_eq!(refused(&repository, &gone).await, ErrorKind::Damaged);
}

/// A drill that cannot even be done says so in the log, so that an older one does not speak for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_ends_in_an_error_is_evidence_too() {
    use backup_core::{DrillOptions, Objective, Standing};
    let shop = Shop::new().await;
    shop.night(0).await;
    let repository = shop.after(0).await;
    let catalog = repository.catalog().await.unwrap();
    let snapshot = catalog.snapshots.last().unwrap();
    let scratch = FilesTarget::new(shop.dir.path().join("scratch"));
    assert!(repository.drill(snapshot, &scratch, DrillOptions::default()).await.unwrap().passed());
    let promise = [Objective::new("uploads", Duration::from_secs(3600)).rto(Duration::from_secs(3600))];
    let standing = |catalog: &Catalog| {
        backup_core::objective::judge(&promise, catalog, Utc::now())[0].rto.clone().unwrap().standing
    };
    assert_eq!(standing(&repository.catalog().await.unwrap()), Standing::Met);
    for object in shop.memory.list(Some(&Path::from("objects"))).try_collect::<Vec<_>>().await.unwrap() {
        if object.size > 40_000 {
            shop.memory.delete(&object.location).await.unwrap();
        }
    }
    let e = repository.drill(snapshot, &scratch, DrillOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged, "{e}");
    let catalog = repository.catalog().await.unwrap();
    assert_eq!(standing(&catalog), Standing::Missed);
}

/// Killed at each of its writes and deletions in turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_is_killed_anywhere_harms_nothing_and_the_next_one_ends_it() {
    let mut finished = false;
    let mut number = 0;
    while !finished {
        let shop = Shop::new().await;
        for n in 0..5 {
            shop.night(n).await;
        }
        let dying = Faulty::new(shop.memory.clone(), number as u64, Rates::default()).dies_at(number);
        let repository = shop.through(Arc::new(dying), 1).await.unwrap();
        let plan = plan(&repository.catalog().await.unwrap(), Utc::now());
        finished = repository.prune(&plan, at_once()).await.is_ok();
        // The lease of the dead runs out.
        let catalog = shop.assert_whole(2).await;
        assert!(catalog.is_sound());
        for kept in plan.kept() {
            assert!(catalog.snapshots.iter().any(|s| s.id == kept.snapshot), "killed at {number}: {}", kept.snapshot);
        }
        let next = self::plan(&catalog, Utc::now());
        shop.after(3).await.prune(&next, at_once()).await.unwrap();
        let whole = shop.assert_whole(3).await;
        assert_eq!(whole.snapshots.len(), 3, "killed at {number}");
        let report =
            shop.after(3).await.verify(None, VerifyOptions::new(VerifyLevel::Stored).record(false)).await.unwrap();
        assert_eq!(report.unreferenced_count, 0, "killed at {number}");
        number += 1;
    }
    assert!(number > 8, "only {number} writes and deletions");
}
