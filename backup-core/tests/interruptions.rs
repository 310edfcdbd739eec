//! A network that is cut in the middle of an upload, and clocks that jump: each ends in a clear error or in a retry that
//! completes, nothing is half committed, and the next run is clean.

#![cfg(all(feature = "files", feature = "s3"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backup_core::chrono::{TimeDelta, Utc};
use backup_core::object_store::aws::AmazonS3Builder;
use backup_core::{
    BackupOptions, Capture, CaptureContext, CaptureEnd, Clock, Entry, ErrorKind, FilesSource, FilesTarget, Keys,
    PruneOptions, Repository, RestoreOptions, Result, Retention, Snapshot, Source, SourceInfo, Store, VerifyLevel,
    VerifyOptions, async_trait,
};
use storefront::network::Network;
use storefront::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

/// A folder of pictures that no compression makes smaller, so that an upload takes a known number of bytes.
struct Shop {
    dir: tempfile::TempDir,
    keys: Keys,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { dir: tempfile::tempdir().unwrap(), keys: Keys::generate().unwrap() };
        shop.change(1);
        shop
    }

    fn change(&self, seed: u64) {
        let uploads = self.dir.path().join("uploads");
        std::fs::create_dir_all(&uploads).unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        for n in 0..4 {
            let picture: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(1 << 20).collect();
            std::fs::write(uploads.join(format!("{n}.jpg")), picture).unwrap();
        }
    }

    fn source(&self) -> FilesSource {
        FilesSource::new(self.dir.path().join("uploads")).named("uploads")
    }

    /// It comes back, and everything in the store is whole.
    async fn assert_whole(&self, repository: &Repository, snapshots: usize) {
        let report = repository.verify(None, VerifyOptions::new(VerifyLevel::Content).record(false)).await.unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        let catalog = repository.catalog().await.unwrap();
        assert!(catalog.is_sound() && catalog.snapshots.len() == snapshots, "{catalog:?}");
        let place = self.dir.path().join("restored");
        let target = FilesTarget::new(&place);
        let newest = catalog.snapshots.last().unwrap();
        assert!(repository.restore(newest, &target, RestoreOptions::default()).await.unwrap().is_equal());
        for n in 0..4 {
            let name = format!("{n}.jpg");
            let there = std::fs::read(self.dir.path().join("uploads").join(&name)).unwrap();
            assert!(std::fs::read(place.join(&name)).unwrap() == there);
        }
        std::fs::remove_dir_all(&place).unwrap();
    }
}

fn bucket(address: impl std::fmt::Display) -> Store {
    let s3 = AmazonS3Builder::new()
        .with_endpoint(format!("http://{address}"))
        .with_allow_http(true)
        .with_region("eu-central-1")
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_bucket_name(BUCKET);
    Store::s3(s3, "", "s3://backups").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_through_a_network_that_is_cut_again_and_again_completes() {
    let server = S3Server::start().await.unwrap();
    let address = server.endpoint().trim_start_matches("http://").parse().unwrap();
    let network = Network::to(address).await.unwrap();
    let mut shop = Shop::new();
    let repository = Repository::init(bucket(network.address()), &mut shop.keys, &[]).await.unwrap();
    // In the middle of pictures, seven times.
    network.cut_after(700_000, 7);
    repository.backup(&shop.source(), BackupOptions::default()).await.unwrap();
    assert_eq!(network.cuts_left(), 0, "the network was not cut as often as it should");
    shop.assert_whole(&Repository::open(bucket(address), shop.keys.clone()).await.unwrap(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_network_stays_away_fails_clearly_and_the_next_one_is_whole() {
    let server = S3Server::start().await.unwrap();
    let address = server.endpoint().trim_start_matches("http://").parse().unwrap();
    let network = Network::to(address).await.unwrap();
    let mut shop = Shop::new();
    let direct = Repository::init(bucket(address), &mut shop.keys, &[]).await.unwrap();
    direct.backup(&shop.source(), BackupOptions::default()).await.unwrap();

    shop.change(2);
    let repository = Repository::open(bucket(network.address()), shop.keys.clone()).await.unwrap();
    network.cut_after(1_500_000, 1);
    let running = {
        let source = shop.source();
        tokio::spawn(async move { repository.backup(&source, BackupOptions::default()).await })
    };
    while network.cuts_left() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    network.fall();
    let e = running.await.unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::StoreUnavailable, "{e:?}");
    assert!(e.is_retryable() && e.to_string().contains("s3://backups"), "{e:?}");
    let catalog = direct.catalog().await.unwrap();
    assert!(catalog.is_sound() && catalog.snapshots.len() == 1, "{catalog:?}");

    network.recover();
    let repository = Repository::open(bucket(network.address()), shop.keys.clone()).await.unwrap();
    repository.backup(&shop.source(), BackupOptions::default()).await.unwrap();
    shop.assert_whole(&direct, 2).await;
}

/// A clock that can be set.
fn clock() -> (Arc<AtomicI64>, Clock) {
    let minutes = Arc::new(AtomicI64::new(0));
    let read = Arc::clone(&minutes);
    (minutes, Arc::new(move || Utc::now() + TimeDelta::minutes(read.load(Ordering::SeqCst))))
}

/// Lets the clock jump as soon as it is read.
#[derive(Debug)]
struct Jumps<'a>(FilesSource, &'a AtomicI64, i64);

#[async_trait]
impl Source for Jumps<'_> {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn capture(&self, context: CaptureContext) -> Result<Box<dyn Capture>> {
        let inner = self.0.capture(context).await?;
        self.1.fetch_add(self.2, Ordering::SeqCst);
        Ok(Box::new(Inner(inner)))
    }
}

struct Inner(Box<dyn Capture>);

#[async_trait]
impl Capture for Inner {
    fn info(&self) -> SourceInfo {
        self.0.info()
    }

    async fn next(&mut self) -> Result<Option<Entry>> {
        self.0.next().await
    }

    async fn finish(self: Box<Self>) -> Result<CaptureEnd> {
        self.0.finish().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_ends_the_lease_and_the_next_backup_is_whole() {
    let mut shop = Shop::new();
    let store = Store::folder(shop.dir.path().join("store")).unwrap();
    let (minutes, clock) = clock();
    let repository = Repository::init(store, &mut shop.keys, &[]).await.unwrap().with_clock(clock);
    let e = repository.backup(&Jumps(shop.source(), &minutes, 600), BackupOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Locked, "{e:?}");
    assert!(e.to_string().contains("the lease on the repository ran out"), "{e}");
    assert_eq!(repository.catalog().await.unwrap().snapshots.len(), 0);
    repository.backup(&shop.source(), BackupOptions::default()).await.unwrap();
    shop.assert_whole(&repository, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_back_costs_nothing_and_the_newest_stays_the_newest() {
    let mut shop = Shop::new();
    let store = Store::folder(shop.dir.path().join("store")).unwrap();
    let (minutes, clock) = clock();
    let repository = Repository::init(store, &mut shop.keys, &[]).await.unwrap().with_clock(clock);
    repository.backup(&shop.source(), BackupOptions::default()).await.unwrap();
    shop.change(2);
    // A year, in the middle of a backup; and everything after it happens "before" the first one.
    let jumped: Snapshot =
        repository.backup(&Jumps(shop.source(), &minutes, -365 * 24 * 60), BackupOptions::default()).await.unwrap();
    shop.assert_whole(&repository, 2).await;
    shop.change(3);
    let last = repository.backup(&shop.source(), BackupOptions::default()).await.unwrap();
    assert!(last.record.sequence > jumped.record.sequence);
    shop.assert_whole(&repository, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_by_a_machine_whose_clock_is_wrong() {
    let mut shop = Shop::new();
    let store = Store::folder(shop.dir.path().join("store")).unwrap();
    let (minutes, clock) = clock();
    let repository = Repository::init(store, &mut shop.keys, &[]).await.unwrap().with_clock(clock);
    for seed in 1..4 {
        shop.change(seed);
        repository.backup(&shop.source(), BackupOptions::default()).await.unwrap();
    }
    repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    let policy: Retention = "hourly=1,verified=1".parse().unwrap();
    for wrong in [-10, 10] {
        minutes.store(wrong, Ordering::SeqCst);
        let plan = policy.plan(&repository.catalog().await.unwrap(), Utc::now());
        let e = repository.prune(&plan, PruneOptions::default()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Clock, "{e:?}");
        assert!(e.to_string().contains("apart") && !e.is_retryable(), "{e}");
    }
    minutes.store(0, Ordering::SeqCst);
    shop.assert_whole(&repository, 3).await;
    let plan = policy.plan(&repository.catalog().await.unwrap(), Utc::now());
    assert_eq!(repository.prune(&plan, PruneOptions::default()).await.unwrap().removed.len(), 2);
}
