//! A copy of a repository is brought up to date and healed, and damage is never copied over what is whole.

#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/faulty.rs"]
mod faulty;

use std::sync::Arc;
use std::time::Duration;

use backup_core::chrono::Utc;
use backup_core::object_store::memory::InMemory;
use backup_core::object_store::path::Path;
use backup_core::object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use backup_core::{
    BackupOptions, ErrorKind, FilesSource, FilesTarget, Keys, LeaseMode, PruneOptions, Repository, RestoreOptions,
    Result, Retention, Store, SyncOptions, SyncReport, VerifyLevel, VerifyOptions, sync,
};
use faulty::{Faulty, Rates};
use futures::TryStreamExt;

/// A repository in one memory, and a copy in another.
struct Shop {
    dir: tempfile::TempDir,
    first: Arc<InMemory>,
    copy: Arc<InMemory>,
    keys: Keys,
}

impl Shop {
    async fn new() -> Self {
        let (first, copy) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
        let dir = tempfile::tempdir().unwrap();
        let mut keys = Keys::generate().unwrap();
        Repository::init(store(&first), &mut keys, &[]).await.unwrap();
        let shop = Self { dir, first, copy, keys };
        for n in 0..3 {
            shop.night(&shop.first, n).await;
        }
        shop
    }

    async fn night(&self, memory: &Arc<InMemory>, n: u8) {
        let uploads = self.dir.path().join("uploads");
        std::fs::create_dir_all(&uploads).unwrap();
        std::fs::write(uploads.join(format!("{n}.jpg")), [n; 9_000]).unwrap();
        let source = FilesSource::new(&uploads).named("uploads");
        self.open(memory).await.backup(&source, BackupOptions::default()).await.unwrap();
    }

    async fn open(&self, memory: &Arc<InMemory>) -> Repository {
        Repository::open(store(memory), self.keys.clone()).await.unwrap()
    }

    async fn sync(&self, keys: &Keys) -> Result<SyncReport> {
        sync(&store(&self.first), &store(&self.copy), keys, SyncOptions::default()).await
    }

    /// The copy holds the same snapshots, and each can be restored from it alone.
    async fn assert_whole(&self, snapshots: usize) {
        let repository = self.open(&self.copy).await;
        let options = VerifyOptions::new(VerifyLevel::Content).record(false);
        let report = repository.verify(None, options).await.unwrap();
        assert!(report.is_sound() && report.snapshots.len() == snapshots, "{:?}", report.findings);
        let catalog = repository.catalog().await.unwrap();
        let place = self.dir.path().join("restored");
        let newest = catalog.snapshots.last().unwrap();
        let restored = repository.restore(newest, &FilesTarget::new(&place), RestoreOptions::default()).await.unwrap();
        assert!(restored.is_equal());
        std::fs::remove_dir_all(&place).unwrap();
    }
}

fn store(memory: &Arc<InMemory>) -> Store {
    Store::new(memory.clone(), "memory:")
}

async fn names(memory: &Arc<InMemory>, prefix: &str) -> Vec<Path> {
    let mut names: Vec<_> =
        memory.list(Some(&Path::from(prefix))).map_ok(|m| m.location).try_collect::<Vec<_>>().await.unwrap();
    names.sort_unstable();
    names
}

async fn bytes(memory: &Arc<InMemory>, path: &Path) -> Vec<u8> {
    memory.get(path).await.unwrap().bytes().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_made_and_kept_up_to_date_with_and_without_keys() {
    for keys in [true, false] {
        let shop = Shop::new().await;
        let keys = if keys { shop.keys.clone() } else { Keys::none() };
        let first = shop.sync(&keys).await.unwrap();
        assert!(first.is_good() && first.copied > 5 && first.healed.is_empty(), "{first:?}");
        shop.assert_whole(3).await;
        let again = shop.sync(&keys).await.unwrap();
        assert_eq!((again.copied, again.ahead), (0, 0));
        shop.night(&shop.first, 7).await;
        let more = shop.sync(&keys).await.unwrap();
        assert!(more.copied > 0 && more.copied < first.copied && more.is_good(), "{more:?}");
        shop.assert_whole(4).await;
        assert_eq!(names(&shop.copy, "locks").await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_gone_in_the_copy_is_healed_and_damage_does_not_spread() {
    let shop = Shop::new().await;
    shop.sync(&shop.keys).await.unwrap();
    let objects = names(&shop.first, "objects").await;
    // Of the same length, another length, and gone.
    let mut bent = bytes(&shop.copy, &objects[0]).await;
    bent[9] ^= 1;
    shop.copy.put(&objects[0], PutPayload::from(bent.clone())).await.unwrap();
    shop.copy.put(&objects[1], PutPayload::from_static(b"short")).await.unwrap();
    shop.copy.delete(&objects[2]).await.unwrap();
    let record = names(&shop.first, "log").await[1].clone();
    shop.copy.put(&record, PutPayload::from_static(b"torn")).await.unwrap();
    let healed = shop.sync(&shop.keys).await.unwrap();
    assert!(healed.is_good() && healed.copied == 4, "{healed:?}");
    let mut names: Vec<_> = healed.healed.clone();
    names.sort_unstable();
    assert_eq!(names, [record.to_string(), objects[0].to_string(), objects[1].to_string()]);
    shop.assert_whole(3).await;
    // The other way round: what is whole in the copy stays as it is.
    shop.first.put(&objects[0], PutPayload::from(bent)).await.unwrap();
    shop.first.delete(&objects[2]).await.unwrap();
    shop.first.put(&record, PutPayload::from_static(b"torn")).await.unwrap();
    let report = shop.sync(&shop.keys).await.unwrap();
    assert!(report.is_good() && report.copied == 0, "what the copy has whole is no matter: {report:?}");
    shop.assert_whole(3).await;
    // And it heals the first.
    let back = sync(&store(&shop.copy), &store(&shop.first), &shop.keys, SyncOptions::default()).await.unwrap();
    assert!(back.is_good() && back.copied == 3, "{back:?}");
}

/// What the source itself has lost is told, and its record does not come to a copy that cannot restore it.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_the_source_has_lost_a_part_of_is_not_listed_by_the_copy() {
    let shop = Shop::new().await;
    let first = shop.open(&shop.first).await;
    let catalog = first.catalog().await.unwrap();
    // Of the second night alone.
    let objects = |n: usize| -> Vec<String> {
        catalog.snapshots[n].manifest.entries.iter().flat_map(|e| &e.parts).map(|p| p.object.to_string()).collect()
    };
    let lost = objects(1).into_iter().find(|o| !objects(0).contains(o)).unwrap();
    shop.first.delete(&Path::from(format!("objects/{}/{lost}", &lost[..2]))).await.unwrap();
    let path = Path::from(format!("objects/{}/{lost}", &lost[..2]));
    // Also where something of its length lies under its name, in both.
    let rest = catalog.snapshots[1].manifest.entries.iter().flat_map(|e| &e.parts);
    let length = rest.clone().find(|p| p.object.to_string() == lost).unwrap().stored;
    let bent = PutPayload::from(vec![7; usize::try_from(length).unwrap()]);
    shop.copy.put(&path, bent.clone()).await.unwrap();
    shop.first.put(&path, bent).await.unwrap();
    let report = shop.sync(&shop.keys).await.unwrap();
    assert_eq!(report.stopped_at, Some(catalog.snapshots[1].record));
    assert!(report.damaged.len() == 1 && report.damaged[0].contains(&lost), "{report:?}");
    shop.assert_whole(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_went_different_ways_are_brought_together() {
    for keys in [true, false] {
        let shop = Shop::new().await;
        let keys = if keys { shop.keys.clone() } else { Keys::none() };
        shop.sync(&keys).await.unwrap();
        shop.night(&shop.first, 10).await;
        shop.night(&shop.copy, 11).await;
        shop.night(&shop.copy, 12).await;
        let there = shop.sync(&keys).await.unwrap();
        assert!(there.is_good() && there.ahead == 2, "{there:?}");
        let back = sync(&store(&shop.copy), &store(&shop.first), &keys, SyncOptions::default()).await.unwrap();
        assert!(back.is_good() && back.ahead == 0, "{back:?}");
        shop.assert_whole(6).await;
        assert_eq!(names(&shop.first, "").await, names(&shop.copy, "").await);
        // The next record builds on both histories: the loss of either one's end shows.
        let before = names(&shop.copy, "log").await;
        shop.night(&shop.copy, 13).await;
        for end in before.iter().rev().take(2) {
            let bytes = bytes(&shop.copy, end).await;
            shop.copy.delete(end).await.unwrap();
            let catalog = shop.open(&shop.copy).await.catalog().await.unwrap();
            assert_eq!(catalog.missing.iter().map(|r| format!("log/{r}")).collect::<Vec<_>>(), [end.to_string()]);
            shop.copy.put(end, bytes.into()).await.unwrap();
        }
    }
}

/// Whatever somebody writes into the source: what is not signed does not spread, and does not hold up what is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_does_not_spread() {
    let shop = Shop::new().await;
    let forger = Shop::new().await;
    let foreign = bytes(&forger.first, &names(&forger.first, "log").await[0]).await;
    let forged = Path::from(format!("log/0000000001-{}", backup_core::Digest::sha256(&foreign)));
    shop.first.put(&forged, foreign.into()).await.unwrap();
    let report = shop.sync(&shop.keys).await.unwrap();
    assert!(report.damaged.len() == 1 && report.damaged[0].contains(forged.as_ref()), "{report:?}");
    assert_eq!(report.stopped_at, None);
    shop.assert_whole(3).await;
    // A configuration that was changed in the copy is written anew by who has the keys, and only then.
    for name in ["repository.json", "repository.sig", "RESTORE.md"] {
        let path = Path::from(name);
        let good = bytes(&shop.copy, &path).await;
        let mut bent = good.clone();
        let at = bent.len() / 2;
        bent[at] ^= 1;
        shop.copy.put(&path, bent.into()).await.unwrap();
        let unseen = sync(&store(&shop.first), &store(&shop.copy), &Keys::none(), SyncOptions::default()).await;
        assert!(unseen.map_or(true, |report| report.diverged == [name]), "{name}");
        shop.sync(&shop.keys).await.unwrap();
        assert_eq!(bytes(&shop.copy, &path).await, good, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_repositories_are_told() {
    let shop = Shop::new().await;
    shop.sync(&shop.keys).await.unwrap();
    let other = Shop::new().await;
    let e = sync(&store(&other.first), &store(&shop.copy), &Keys::none(), SyncOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    // A source that is not the one that the keys pin.
    let e = sync(&store(&other.first), &store(&other.copy), &shop.keys, SyncOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Untrusted, "{e}");
    assert_eq!(names(&other.copy, "").await, []);
    let empty = Arc::new(InMemory::new());
    let e = sync(&store(&empty), &store(&other.copy), &Keys::none(), SyncOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    let lease = shop.open(&shop.first).await.lease(LeaseMode::Exclusive, "a prune").await.unwrap();
    assert_eq!(shop.sync(&shop.keys).await.unwrap_err().kind(), ErrorKind::Locked);
    lease.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pruned_is_pruned_in_the_copy_too() {
    let shop = Shop::new().await;
    let first = shop.open(&shop.first).await;
    first.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    shop.sync(&shop.keys).await.unwrap();
    let policy: Retention = "daily=1,verified=1".parse().unwrap();
    let plan = policy.plan(&first.catalog().await.unwrap(), Utc::now());
    let dropped = plan.dropped().count();
    assert!(dropped > 0, "{plan:?}");
    first.prune(&plan, PruneOptions::default().with_grace(Duration::ZERO)).await.unwrap();
    let report = shop.sync(&shop.keys).await.unwrap();
    assert!(report.is_good() && report.copied == 1, "the tombstone: {report:?}");
    shop.assert_whole(3 - dropped).await;
    assert!(shop.open(&shop.copy).await.catalog().await.unwrap().is_sound());
}

/// Killed at each of its writes in turn, and on a bad network.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_killed_anywhere_lists_nothing_it_does_not_have() {
    let mut finished = false;
    let mut number = 0;
    while !finished {
        let shop = Shop::new().await;
        let rates = Rates { answer_lost: 30, cut_short: 30, ..Rates::default() };
        let dying: Arc<dyn ObjectStore> =
            Arc::new(Faulty::new(shop.copy.clone(), number as u64, rates).dies_at(number));
        let to = Store::new(dying, "memory:");
        let done = sync(&store(&shop.first), &to, &shop.keys, SyncOptions::default()).await;
        finished = done.is_ok();
        if let Ok(repository) = Repository::open(store(&shop.copy), shop.keys.clone()).await {
            let options = VerifyOptions::new(VerifyLevel::Content).record(false);
            let report = repository.verify(None, options).await.unwrap();
            assert!(report.findings.is_empty(), "killed at {number}: {:?}", report.findings);
        }
        // The dead one's lease is shared, and in nobody's way.
        let report = shop.sync(&shop.keys).await.unwrap();
        assert!(report.is_good(), "killed at {number}: {report:?}");
        shop.assert_whole(3).await;
        number += 1;
    }
    assert!(number > 8, "only {number} writes");
}
