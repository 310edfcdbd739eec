//! One repository in several stores: what one loses or lacks the others have, and none is waited for.

#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/faulty.rs"]
mod faulty;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::chrono::{TimeDelta, Utc};
use backup_core::object_store::memory::InMemory;
use backup_core::object_store::path::Path;
use backup_core::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use backup_core::{
    BackupOptions, Catalog, ErrorKind, Event, FilesSource, FilesTarget, FindingKind, IndexLine, Keys, Objective,
    Progress, PruneOptions, Repository, RestoreOptions, Result, Retention, Snapshot, Standing, Status, Store, StoreLog,
    SyncOptions, VerifyLevel, VerifyOptions, sync,
};
use faulty::{Faulty, Rates};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use tokio::sync::watch;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A repository in three memories, and a folder that is backed up into it.
struct Shop {
    dir: tempfile::TempDir,
    memories: [Arc<InMemory>; 3],
    keys: Keys,
}

impl Shop {
    async fn new() -> Self {
        let memories = [(); 3].map(|()| Arc::new(InMemory::new()));
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("uploads")).unwrap();
        Keys::generate().unwrap().save(dir.path().join("keys")).unwrap();
        let mut keys = Keys::load(dir.path().join("keys")).unwrap();
        let shop = Self { dir, memories, keys: Keys::none() };
        Repository::init(shop.store(0), &mut keys, &[]).await.unwrap();
        for n in [1, 2] {
            sync(&shop.store(0), &shop.store(n), &keys, SyncOptions::default()).await.unwrap();
        }
        Self { keys, ..shop }
    }

    fn store(&self, n: usize) -> Store {
        Store::new(self.memories[n].clone(), NAMES[n])
    }

    /// The repository in these stores, as another process would open it.
    async fn open(&self, stores: &[usize]) -> Repository {
        self.through(stores.iter().map(|n| self.store(*n)).collect()).await.unwrap()
    }

    async fn through(&self, stores: Vec<Store>) -> Result<Repository> {
        Repository::open_all(stores, self.keys.clone()).await
    }

    /// The same with the last of three dead from its request of this number on.
    async fn dying(&self, number: i64) -> Repository {
        let dying = Faulty::new(self.memories[2].clone(), 1, Rates::default()).closes_at(number);
        self.through(vec![self.store(0), self.store(1), Store::new(Arc::new(dying), "c")]).await.unwrap()
    }

    fn source(&self) -> FilesSource {
        FilesSource::new(self.dir.path().join("uploads")).named("uploads")
    }

    /// One more file.
    fn change(&self, n: u8) {
        let mut rng = fastrand::Rng::with_seed(n.into());
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(40_000).collect();
        std::fs::write(self.dir.path().join(format!("uploads/{n}.jpg")), bytes).unwrap();
    }

    async fn night(&self, repository: &Repository, n: u8) -> (Snapshot, BTreeMap<String, String>) {
        self.change(n);
        let lags = Arc::new(Lags::default());
        let options = BackupOptions::default().with_progress(lags.clone());
        let snapshot = repository.backup(&self.source(), options).await.unwrap();
        (snapshot, lags.0.lock().unwrap().clone())
    }

    async fn restores(&self, repository: &Repository, snapshot: &Snapshot) -> Result<()> {
        let place = self.dir.path().join(format!("restored-{}", snapshot.id));
        let restored = repository.restore(snapshot, &FilesTarget::new(&place), RestoreOptions::default()).await;
        if place.exists() {
            std::fs::remove_dir_all(&place).unwrap();
        }
        restored.map(|restored| assert!(restored.is_equal()))
    }

    /// Each store for itself holds so many snapshots, all of which come back.
    async fn assert_whole(&self, snapshots: usize) {
        for (n, name) in NAMES.iter().enumerate() {
            let repository = self.open(&[n]).await;
            let options = VerifyOptions::new(VerifyLevel::Content).record(false);
            let report = repository.verify(None, options).await.unwrap();
            assert!(report.is_sound(), "{name}: {:?}", report.findings);
            let catalog = repository.catalog().await.unwrap();
            assert_eq!(catalog.snapshots.len(), snapshots, "{name}");
            for snapshot in &catalog.snapshots {
                self.restores(&repository, snapshot).await.unwrap();
            }
        }
    }

    async fn objects(&self, n: usize) -> Vec<Path> {
        let listed = self.memories[n].list(Some(&Path::from("objects"))).map_ok(|m| m.location);
        let mut listed: Vec<_> = listed.try_collect().await.unwrap();
        listed.sort_unstable();
        listed
    }
}

#[derive(Debug, Default)]
struct Lags(Mutex<BTreeMap<String, String>>);

impl Progress for Lags {
    fn on(&self, event: Event<'_>) {
        if let Event::Lags { store, reason } = event {
            self.0.lock().unwrap().insert(store.into(), reason.into());
        }
    }
}

fn lagging(catalog: &Catalog) -> Vec<&str> {
    catalog.stores.iter().filter(|s| !StoreLog::is_level(s)).map(|s| s.store.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_store_gets_the_same_bytes() {
    let shop = Shop::new().await;
    let repository = shop.open(&[0, 1, 2]).await;
    for n in 0..3 {
        let (snapshot, lags) = shop.night(&repository, n).await;
        assert_eq!(snapshot.stores, NAMES);
        assert_eq!(lags, BTreeMap::new());
    }
    for n in [1, 2] {
        assert_eq!(shop.objects(n).await, shop.objects(0).await);
    }
    let reports = repository.verify_all(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(reports.iter().all(|(_, r)| r.as_ref().unwrap().is_sound()), "{reports:?}");
    let catalog = repository.catalog().await.unwrap();
    assert!(catalog.is_sound() && lagging(&catalog).is_empty(), "{catalog:?}");
    assert!(Status::of(&catalog, Utc::now()).is_good());
    shop.assert_whole(3).await;
}

/// Three stores, of which one dies at each of its writes in turn and is back an hour later.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_dies_in_the_middle_is_gone_without_and_healed_later() {
    let promise = [Objective::new("uploads", Duration::from_secs(1800))];
    let mut lagged = 0;
    for number in 0..9 {
        let shop = Shop::new().await;
        shop.night(&shop.open(&[0, 1, 2]).await, 0).await;
        shop.change(1);
        let repository = shop.dying(number).await;
        let lags = Arc::new(Lags::default());
        let options = BackupOptions::default().with_min_copies(2).with_progress(lags.clone());
        let snapshot = repository.backup(&shop.source(), options).await.unwrap();
        assert_eq!(snapshot.stores[..2], ["a", "b"], "killed at {number}");
        if snapshot.stores.len() == 3 {
            continue;
        }
        lagged += 1;
        assert_eq!(lags.0.lock().unwrap().keys().collect::<Vec<_>>(), ["c"]);
        // What it lists all the same can be restored.
        let there = shop.open(&[2]).await;
        for listed in &there.catalog().await.unwrap().snapshots {
            shop.restores(&there, listed).await.unwrap();
        }

        // An hour later it is back.
        let later = Arc::new(|| Utc::now() + TimeDelta::hours(1));
        let repository = shop.open(&[0, 1, 2]).await.with_clock(later.clone());
        repository.verify_all(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
        let catalog = repository.catalog().await.unwrap();
        assert_eq!(lagging(&catalog), ["c"], "killed at {number}");
        assert!(!Status::of(&catalog, later()).is_good());
        // Of what it promises alone, too.
        let stand = async |n: usize| {
            let here = shop.open(&[n]).await.catalog().await.unwrap();
            backup_core::objective::judge(&promise, &here, Utc::now())[0].rpo.standing
        };
        assert_eq!((stand(0).await, stand(1).await), (Standing::Met, Standing::Met));
        assert_ne!(stand(2).await, Standing::Met);
        let found = repository.verify_all(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap();
        let kinds = |n: usize| found[n].1.as_ref().unwrap().findings.iter().map(|f| f.kind).collect::<Vec<_>>();
        assert!(kinds(0).is_empty() && kinds(1).is_empty());
        assert!(!kinds(2).is_empty() && kinds(2).iter().all(|k| *k == FindingKind::Lagging), "{found:?}");

        let report = sync(&shop.store(0), &shop.store(2), &shop.keys, SyncOptions::default()).await.unwrap();
        assert!(report.is_good(), "{report:?}");
        shop.assert_whole(2).await;
        let repository = shop.open(&[0, 1, 2]).await;
        assert_eq!(lagging(&repository.catalog().await.unwrap()), [""; 0]);
    }
    assert!(lagged > 4, "only {lagged} runs in which it died in time");
}

/// Nobody has to remember to sync: the next backup brings up to date what lags, and puts back what was lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_backup_heals_what_lags_and_what_was_lost() {
    let shop = Shop::new().await;
    shop.night(&shop.open(&[0, 1, 2]).await, 0).await;
    // Two nights without the third; then it is back, and of what the first has an object is lost, brought by any night.
    for n in [1, 2] {
        let (snapshot, _) = shop.night(&shop.open(&[0, 1]).await, n).await;
        assert_eq!(snapshot.stores, ["a", "b"]);
    }
    let newest = shop.open(&[0]).await.catalog().await.unwrap().snapshots.swap_remove(2);
    let chunks = newest.manifest.entries.iter().flat_map(|e| &e.inline).filter_map(|line| match line {
        IndexLine::Chunk(chunk) => Some(chunk.object),
        IndexLine::Unit(_) => None,
    });
    let parts = newest.manifest.entries.iter().flat_map(|e| &e.parts).map(|p| p.object);
    let lost = chunks.chain(parts).next().unwrap().to_string();
    shop.memories[0].delete(&Path::from(format!("objects/{}/{lost}", &lost[..2]))).await.unwrap();
    let (snapshot, lags) = shop.night(&shop.open(&[0, 1, 2]).await, 3).await;
    assert_eq!((snapshot.stores.len(), lags.len()), (3, 0), "{lags:?}");
    shop.assert_whole(4).await;
    assert_eq!(lagging(&shop.open(&[0, 1, 2]).await.catalog().await.unwrap()), [""; 0]);
}

/// What only a store has that fails is not in the one that is left: then there is no snapshot, whatever was sent.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_listed_where_a_part_of_it_is_missing() {
    for number in 0..6 {
        let shop = Shop::new().await;
        // A night that only the third has.
        shop.night(&shop.open(&[2]).await, 0).await;
        shop.change(1);
        let dying = Faulty::new(shop.memories[2].clone(), 1, Rates::default()).closes_at(number);
        let repository = shop.through(vec![shop.store(0), Store::new(Arc::new(dying), "c")]).await.unwrap();
        let taken = repository.backup(&shop.source(), BackupOptions::default()).await;
        let first = shop.open(&[0]).await;
        let catalog = first.catalog().await.unwrap();
        for listed in &catalog.snapshots {
            shop.restores(&first, listed).await.unwrap_or_else(|e| panic!("killed at {number}: {e}"));
        }
        let says = taken.is_ok_and(|taken| taken.stores.contains(&"a".to_owned()));
        assert!(!says || !catalog.snapshots.is_empty(), "killed at {number}");
    }
}

/// Damage that a verify has named is healed from where it is whole, and is no copy before.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_verify_named_is_healed_by_the_next_backup() {
    let shop = Shop::new().await;
    let repository = shop.open(&[0, 1, 2]).await;
    shop.night(&repository, 0).await;
    // Each has one that is bent, and each another.
    for (n, object) in shop.objects(0).await.iter().enumerate().take(3) {
        let mut bytes = shop.memories[n].get(object).await.unwrap().bytes().await.unwrap().to_vec();
        bytes[5] ^= 1;
        shop.memories[n].put(object, bytes.into()).await.unwrap();
    }
    repository.verify_all(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap();
    let (snapshot, lags) = shop.night(&repository, 1).await;
    assert_eq!((snapshot.stores.len(), lags.len()), (3, 0), "{lags:?}");
    for n in 0..3 {
        shop.restores(&shop.open(&[n]).await, &snapshot).await.unwrap();
    }
}

/// Where each has something that no other has, it comes together, whichever was alone when.
#[tokio::test(flavor = "multi_thread")]
async fn stores_that_were_alone_in_turns_come_together() {
    let shop = Shop::new().await;
    for n in 0..3u8 {
        shop.night(&shop.open(&[n.into()]).await, n).await;
    }
    shop.night(&shop.open(&[2, 0]).await, 3).await;
    let together = shop.open(&[0, 1, 2]).await;
    let (snapshot, lags) = shop.night(&together, 4).await;
    assert_eq!((snapshot.stores.len(), lags.len()), (3, 0), "{lags:?}");
    shop.assert_whole(5).await;
    let catalog = together.catalog().await.unwrap();
    assert!(catalog.is_sound() && lagging(&catalog).is_empty(), "{catalog:?}");
    // In the order of time, though written apart.
    let times: Vec<_> = catalog.snapshots.iter().map(|s| s.manifest.taken_at).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_each_object_from_where_it_is_whole() {
    let shop = Shop::new().await;
    let repository = shop.open(&[0, 1, 2]).await;
    let (snapshot, _) = shop.night(&repository, 0).await;
    // Every object is whole in one store only: bent, cut off or gone in the others.
    for (n, object) in shop.objects(0).await.iter().enumerate() {
        let good = shop.memories[0].get(object).await.unwrap().bytes().await.unwrap();
        for store in (0..3).filter(|store| *store != n % 3) {
            let mut bytes = good.to_vec();
            match n % 4 {
                0 | 1 => bytes[n % 7] ^= 1,
                2 => bytes.truncate(bytes.len() / 2),
                _ => {
                    shop.memories[store].delete(object).await.unwrap();
                    continue;
                }
            }
            shop.memories[store].put(object, bytes.into()).await.unwrap();
        }
    }
    shop.restores(&repository, &snapshot).await.unwrap();
    for n in 0..3 {
        let e = shop.restores(&shop.open(&[n]).await, &snapshot).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Damaged, "{e}");
    }
    // Also where one does not answer at all, and records are damaged.
    let shop = Shop::new().await;
    let (snapshot, _) = shop.night(&shop.open(&[0, 1, 2]).await, 0).await;
    let record = Path::from(format!("log/{}", snapshot.record));
    shop.memories[1].put(&record, PutPayload::from_static(b"torn")).await.unwrap();
    let repository = shop.dying(-1).await;
    assert_eq!(repository.unreachable()[0].0, "c");
    let catalog = repository.catalog().await.unwrap();
    assert!(catalog.is_sound() && catalog.snapshots.len() == 1, "{catalog:?}");
    assert_eq!(lagging(&catalog), ["c"]);
    shop.restores(&repository, &catalog.snapshots[0]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_copies_are_said_before_or_after() {
    let shop = Shop::new().await;
    let with = |copies| BackupOptions::default().with_min_copies(copies);
    shop.change(0);
    let e = shop.open(&[0, 1]).await.backup(&shop.source(), with(3)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    // One of them cannot be reached: nothing is begun.
    let e = shop.dying(-1).await.backup(&shop.source(), with(3)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::StoreUnavailable && e.to_string().contains("c: "), "{e}");
    assert_eq!(shop.objects(0).await, []);
    // It dies later: what there is is whole, and too little.
    let e = shop.dying(4).await.backup(&shop.source(), with(3)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TooFewCopies, "{e}");
    assert!(e.to_string().contains("a, b") && e.to_string().contains("c: "), "{e}");
    let repository = shop.open(&[0, 1]).await;
    assert_eq!(repository.catalog().await.unwrap().snapshots.len(), 1);
    // Into an empty place nothing is written: a disk may not be mounted there.
    let empty = Arc::new(InMemory::new());
    let stores = vec![shop.store(0), Store::new(empty.clone(), "unmounted")];
    let repository = shop.through(stores).await.unwrap();
    let (snapshot, lags) = shop.night(&repository, 1).await;
    assert_eq!((snapshot.stores, lags.into_keys().collect()), (vec!["a".to_owned()], vec!["unmounted".to_owned()]));
    assert_eq!(empty.list(None).try_collect::<Vec<_>>().await.unwrap(), []);
    // Stores of another repository, and the same one twice.
    let other = Shop::new().await;
    let e = shop.through(vec![shop.store(0), shop.store(0)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    let repository = shop.through(vec![shop.store(0), Store::new(other.memories[1].clone(), "x")]).await.unwrap();
    assert_eq!(repository.unreachable()[0].1.kind(), ErrorKind::Untrusted);
}

/// What was taken from one store is told from what it never had, and nothing is built upon it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_rolled_back_is_named_and_left_as_it_is() {
    let shop = Shop::new().await;
    let repository = shop.open(&[0, 1, 2]).await;
    let mut taken = Vec::new();
    for n in 0..4 {
        taken.push(shop.night(&repository, n).await.0);
    }
    let record = |n: usize| Path::from(format!("log/{}", taken[n].record));
    for n in [2, 3] {
        shop.memories[1].delete(&record(n)).await.unwrap();
    }
    shop.memories[2].delete(&record(1)).await.unwrap();
    let found = repository.verify_all(None, VerifyOptions::new(VerifyLevel::Stored).record(false)).await.unwrap();
    let kinds = |n: usize| -> Vec<(FindingKind, &str)> {
        found[n].1.as_ref().unwrap().findings.iter().map(|f| (f.kind, f.object.as_str())).collect()
    };
    assert_eq!(kinds(0), []);
    let (second, third, fourth) = (record(1), record(2), record(3));
    assert_eq!(kinds(1), [(FindingKind::RolledBack, fourth.as_ref()), (FindingKind::Lagging, third.as_ref())]);
    assert_eq!(kinds(2), [(FindingKind::Deleted, second.as_ref())]);
    // The others go on; the one that was rolled back stays as it is, for people to look at.
    let before = shop.memories[1].list(Some(&Path::from("log"))).try_collect::<Vec<_>>().await.unwrap().len();
    let (snapshot, lags) = shop.night(&repository, 4).await;
    assert!(!snapshot.stores.contains(&"b".to_owned()) && lags["b"].contains("rolled back"), "{lags:?}");
    let after = shop.memories[1].list(Some(&Path::from("log"))).try_collect::<Vec<_>>().await.unwrap().len();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_goes_through_all_stores_or_none() {
    let shop = Shop::new().await;
    let repository = shop.open(&[0, 1, 2]).await;
    for n in 0..4 {
        // Nothing in common with the last one.
        std::fs::remove_dir_all(shop.dir.path().join("uploads")).unwrap();
        std::fs::create_dir(shop.dir.path().join("uploads")).unwrap();
        shop.night(&repository, n).await;
    }
    let policy: Retention = "daily=1,verified=1".parse().unwrap();
    let at_once = || PruneOptions::default().with_grace(Duration::ZERO);
    // Verified in two of three: that is not enough to let anything go.
    for n in [0, 1] {
        shop.open(&[n]).await.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    }
    let plan = policy.plan(&repository.catalog().await.unwrap(), Utc::now());
    assert_eq!(plan.dropped().count(), 0, "{plan:?}");
    // What was said of each was noted there alone so far.
    let e = repository.prune(&plan, at_once()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains("lacks"), "{e}");
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        sync(&shop.store(from), &shop.store(to), &shop.keys, SyncOptions::default()).await.unwrap();
    }
    repository.verify_all(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    let plan = policy.plan(&repository.catalog().await.unwrap(), Utc::now());
    let dropped = plan.dropped().count();
    assert!(dropped > 0, "{plan:?}");
    // One has lost something of what stays.
    let kept = plan.kept().next().unwrap().record;
    let catalog = repository.catalog().await.unwrap();
    let kept = catalog.snapshots.iter().find(|s| s.record == kept).unwrap();
    let object = kept.manifest.entries.iter().flat_map(|e| &e.parts).next().unwrap().object.to_string();
    let object = Path::from(format!("objects/{}/{object}", &object[..2]));
    let bytes = shop.memories[1].get(&object).await.unwrap().bytes().await.unwrap();
    shop.memories[1].delete(&object).await.unwrap();
    let e = repository.prune(&plan, at_once()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains("in b"), "{e}");
    shop.memories[1].put(&object, bytes.into()).await.unwrap();
    let before = shop.objects(2).await.len();
    let report = repository.prune(&plan, at_once()).await.unwrap();
    assert_eq!(report.removed.len(), dropped);
    assert!(shop.objects(2).await.len() < before);
    assert_eq!(shop.objects(2).await, shop.objects(0).await);
    shop.assert_whole(4 - dropped).await;
}

/// A store that takes nothing before the gate is open, or opens it when a snapshot is committed to it.
#[derive(Debug)]
struct Gated {
    inner: Arc<InMemory>,
    open: Arc<watch::Sender<bool>>,
    opens: bool,
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        if self.opens && location.as_ref().starts_with("log/") {
            self.open.send_replace(true);
        }
        if !self.opens && location.as_ref().starts_with("objects/") {
            self.open.subscribe().wait_for(|open| *open).await.unwrap();
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, l: &Path, o: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(l, o).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store that does not move holds up neither the source nor the commit in the others: it moves only once the snapshot is
/// in one of them, so that waiting for it would last for ever.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_still_is_not_waited_for() {
    let shop = Shop::new().await;
    // More than may wait for a store, and nothing that compresses.
    let mut rng = fastrand::Rng::with_seed(5);
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(40 << 20).collect();
    std::fs::write(shop.dir.path().join("uploads/film.mp4"), bytes).unwrap();
    let open = Arc::new(watch::Sender::new(false));
    let gated = |n: usize, opens| {
        let gated = Gated { inner: shop.memories[n].clone(), open: Arc::clone(&open), opens };
        Store::new(Arc::new(gated), NAMES[n])
    };
    let repository = shop.through(vec![gated(0, false), gated(1, true), shop.store(2)]).await.unwrap();
    let (snapshot, lags) = shop.night(&repository, 1).await;
    assert_eq!((snapshot.stores.len(), lags.len()), (3, 0), "{lags:?}");
    shop.assert_whole(1).await;
}
