//! Several writers at once, leases, dropped futures, and stores that say no.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::object_store::memory::InMemory;
use backup_core::object_store::path::Path;
use backup_core::object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use backup_core::{
    BackupOptions, ErrorKind, Keys, LeaseMode, Repository, SqliteSource, Store, VerifyLevel, VerifyOptions,
};
use futures::stream::BoxStream;
use storefront::Size;
#[cfg(feature = "s3")]
use storefront::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use support::{Shop, files};

/// Two shops, eight backups each, at once into one repository.
async fn race(first: Repository, second: Repository, dir: &std::path::Path) {
    for name in ["a.db", "b.db"] {
        storefront::sqlite::create(&dir.join(name), &Size::orders(40), 4).await.unwrap();
    }
    let writer = |repository: Repository, name: &'static str| {
        let source = SqliteSource::new(dir.join(name));
        async move {
            for _ in 0..8 {
                repository.backup(&source, BackupOptions::default()).await.unwrap();
            }
        }
    };
    let (a, b) = tokio::join!(tokio::spawn(writer(first.clone(), "a.db")), tokio::spawn(writer(second, "b.db")));
    a.unwrap();
    b.unwrap();
    let catalog = first.catalog().await.unwrap();
    assert!(catalog.is_sound(), "{catalog:?}");
    assert!(catalog.newest >= 8 && catalog.newest <= 16, "each builds on what it saw");
    for name in ["a", "b"] {
        assert_eq!(catalog.snapshots.iter().filter(|s| s.manifest.source.name == name).count(), 8);
    }
    let report = first.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(report.is_sound() && report.snapshots.len() == 16, "{:?}", report.findings);
    assert_eq!(report.unreferenced_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_in_a_folder_keep_the_chain() {
    let shop = Shop::new().await;
    race(shop.open().await.unwrap(), shop.open().await.unwrap(), shop.dir.path()).await;
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread")]
async fn two_writers_in_a_bucket_keep_the_chain() {
    use backup_core::object_store::aws::AmazonS3Builder;
    let server = S3Server::start().await.unwrap();
    let store = |bucket: &str, secret: &str| {
        let s3 = AmazonS3Builder::new()
            .with_endpoint(server.endpoint())
            .with_allow_http(true)
            .with_region("eu-west-1")
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(secret)
            .with_bucket_name(bucket);
        Store::s3(s3, "shop/nightly", &format!("s3://{bucket}/shop/nightly")).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let mut keys = Keys::generate().unwrap();
    let repository = Repository::init(store(BUCKET, SECRET_KEY), &mut keys, &[]).await.unwrap();
    let again = Repository::open(store(BUCKET, SECRET_KEY), keys.clone()).await.unwrap();
    race(repository, again, dir.path()).await;

    let e = Repository::open(store("no-such-bucket", SECRET_KEY), keys.clone()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::StoreMissing, "{e}");
    let e =
        Repository::init(store("no-such-bucket", SECRET_KEY), &mut Keys::generate().unwrap(), &[]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::StoreMissing, "{e}");
    let e = Repository::open(store(BUCKET, "wrong-secret"), keys).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::StoreDenied, "{e}");
    assert!(!format!("{e:?}").contains("wrong-secret"));
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread")]
async fn of_many_creates_of_one_key_one_wins_in_every_store() {
    // Without an encrypted endpoint a provider is not used, but it has to be there.
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let server = S3Server::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let s3 = backup_core::object_store::aws::AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_region("eu-west-1")
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_bucket_name(BUCKET)
        .build()
        .unwrap();
    let local = backup_core::object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let stores: [Arc<dyn ObjectStore>; 3] = [Arc::new(s3), Arc::new(local), Arc::new(InMemory::new())];
    for store in stores {
        for round in 0..10 {
            let path = Path::from(format!("log/{round:010}"));
            let puts = (0..8u8).map(|n| {
                let (store, path) = (Arc::clone(&store), path.clone());
                tokio::spawn(async move {
                    let create =
                        PutOptions { mode: backup_core::object_store::PutMode::Create, ..PutOptions::default() };
                    store.put_opts(&path, PutPayload::from(vec![n; 10_000]), create).await
                })
            });
            let won = futures::future::join_all(puts).await.into_iter().filter(|r| r.as_ref().unwrap().is_ok()).count();
            assert_eq!(won, 1, "{store}");
        }
    }
}

#[tokio::test]
async fn an_exclusive_lease_keeps_backups_out_and_says_who_and_until_when() {
    let shop = Shop::new().await;
    storefront::sqlite::create(&shop.path("shop.db"), &Size::orders(20), 4).await.unwrap();
    let lease = shop.repository.lease(LeaseMode::Exclusive, "a prune").await.unwrap();
    let e = shop.open().await.unwrap().backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Locked);
    assert!(
        e.is_retryable()
            && e.to_string().contains("for a prune")
            && e.to_string().contains(&format!("process {}", std::process::id()))
            && e.to_string().contains("UTC"),
        "{e}"
    );
    lease.release().await;
    shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    // Shared ones get along with each other, and not with an exclusive one.
    let shared = shop.repository.lease(LeaseMode::Shared, "a backup").await.unwrap();
    let other = shop.repository.lease(LeaseMode::Shared, "a backup").await.unwrap();
    assert_eq!(shop.repository.lease(LeaseMode::Exclusive, "a prune").await.unwrap_err().kind(), ErrorKind::Locked);
    shared.release().await;
    other.release().await;
    // One that ran out counts for nothing, on another machine as well.
    std::fs::write(
        shop.store().join("locks/1700000000-exclusive-abc"),
        r#"{"host":"elsewhere","pid":1,"doing":"a prune","expires":"2023-11-14T22:13:20Z"}"#,
    )
    .unwrap();
    shop.repository.lease(LeaseMode::Exclusive, "a prune").await.unwrap().release().await;
    // One that has not does, even with a body that makes no sense.
    std::fs::write(shop.store().join(format!("locks/{}-exclusive-abc", chrono::Utc::now().timestamp() + 200)), "?")
        .unwrap();
    assert_eq!(shop.repository.lease(LeaseMode::Shared, "a backup").await.unwrap_err().kind(), ErrorKind::Locked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_backup_leaves_all_or_nothing_and_gives_its_lease_back() {
    let shop = Shop::new().await;
    storefront::sqlite::create(&shop.path("shop.db"), &Size::orders(3_000), 4).await.unwrap();
    let source = shop.source("shop.db");
    let mut dropped = 0;
    for n in 0..30u64 {
        let backup = shop.repository.backup(&source, BackupOptions::default());
        if tokio::time::timeout(Duration::from_millis(n * 4), backup).await.is_err() {
            dropped += 1;
        }
    }
    assert!(dropped > 3, "only {dropped} were dropped in time");
    // The lease is given back by a task: it is gone as soon as that has run.
    let locks = shop.store().join("locks");
    for _ in 0..500 {
        if !locks.exists() || std::fs::read_dir(&locks).unwrap().next().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shop.repository.lease(LeaseMode::Exclusive, "a look").await.unwrap().release().await;
    let report = shop.repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    // One that was dropped in its last moment may have written its record: then it is whole, as the verify says.
    let taken = report.snapshots.len() as u64;
    assert!((30 - dropped..30).contains(&taken), "{taken} snapshots, {dropped} dropped");
    // And the database is not held.
    support::sqlite3(&shop.path("shop.db"), "PRAGMA wal_checkpoint(TRUNCATE); BEGIN EXCLUSIVE; COMMIT;");
}

/// A store that has room for so many bytes.
#[derive(Debug)]
struct Full {
    inner: InMemory,
    room: AtomicU64,
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Full")
    }
}

#[async_trait]
impl ObjectStore for Full {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let size = payload.content_length() as u64;
        if self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(size)).is_err() {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(StoreError::Generic { store: "Full", source: source.into() });
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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_backup_with_a_sentence_and_commits_nothing() {
    let dir = tempfile::tempdir().unwrap();
    storefront::sqlite::create(&dir.path().join("shop.db"), &Size::orders(2_000), 4).await.unwrap();
    let source = SqliteSource::new(dir.path().join("shop.db"));
    let mut refused = 0;
    for room in [20_000, 60_000, 120_000, 200_000, 300_000, 10_000_000] {
        let full = Arc::new(Full { inner: InMemory::new(), room: AtomicU64::new(room) });
        let mut keys = Keys::generate().unwrap();
        let store = Store::new(Arc::clone(&full) as Arc<dyn ObjectStore>, "full:");
        let repository = Repository::init(store, &mut keys, &[]).await.unwrap();
        let outcome = repository.backup(&source, BackupOptions::default()).await;
        let taken = repository.catalog().await.unwrap().snapshots.len();
        match outcome {
            Ok(_) => assert_eq!(taken, 1),
            Err(e) => {
                refused += 1;
                assert_eq!(e.kind(), ErrorKind::StoreFull, "{e}");
                assert!(e.next_step().is_some_and(|n| n.contains("room")));
                assert_eq!(taken, 0);
                // Room was made: the next run succeeds by itself.
                full.room.store(u64::MAX, Ordering::SeqCst);
                repository.backup(&source, BackupOptions::default()).await.unwrap();
                assert!(repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap().is_sound());
            }
        }
    }
    assert!(refused >= 4);
}

#[tokio::test]
async fn no_plaintext_reaches_the_store() {
    let shop = Shop::new().await;
    let mut noise = vec![0u8; 64];
    fastrand::Rng::with_seed(5).fill(&mut noise);
    let secret = format!("SECRET-{}", noise.iter().map(|b| format!("{b:02x}")).collect::<String>());
    support::sqlite3(
        &shop.path("shop.db"),
        &format!("CREATE TABLE very_private_table(x); INSERT INTO very_private_table VALUES ('{secret}')"),
    );
    shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    for (name, bytes) in files(&shop.store()) {
        for text in [secret.as_bytes(), b"very_private_table", b"INSERT INTO", b"shop.db"] {
            assert!(!bytes.windows(text.len()).any(|w| w == text), "{name} holds {}", String::from_utf8_lossy(text));
        }
    }
}
