//! Keys that are added, lost and stolen: each procedure, walked through.

#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::chrono::Utc;
use backup_core::object_store::memory::InMemory;
use backup_core::object_store::path::Path;
use backup_core::object_store::{ObjectStore, ObjectStoreExt};
use backup_core::{
    BackupOptions, ErrorKind, FilesSource, FilesTarget, FindingKind, Keys, PruneOptions, Repository, RestoreOptions,
    Result, Retention, Rotation, Selector, Snapshot, Store, SyncOptions, Trust, TrustedWriter, VerifyLevel,
    VerifyOptions, WriterKey, sync,
};
use futures::TryStreamExt;

/// A repository in memory; the admin's keys, and those of the host that backs up.
struct Shop {
    dir: tempfile::TempDir,
    memory: Arc<InMemory>,
}

impl Shop {
    async fn new() -> Self {
        let shop = Self { dir: tempfile::tempdir().unwrap(), memory: Arc::new(InMemory::new()) };
        Keys::generate().unwrap().save(shop.path("admin")).unwrap();
        Repository::init(store(&shop.memory), &mut shop.keys("admin"), &[]).await.unwrap();
        shop.host("host", "admin/writer.key");
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn keys(&self, name: &str) -> Keys {
        Keys::load(self.path(name)).unwrap()
    }

    /// What a host that backs up is given: this writer.key, and the admin's trust.json as it is now.
    fn host(&self, name: &str, writer: &str) {
        std::fs::create_dir(self.path(name)).unwrap();
        std::fs::copy(self.path(writer), self.path(name).join("writer.key")).unwrap();
        for file in ["recipient.txt", "trust.json"] {
            std::fs::copy(self.path("admin").join(file), self.path(name).join(file)).unwrap();
        }
    }

    /// As a process on a machine with these keys opens it.
    async fn open(&self, keys: &str) -> Result<Repository> {
        Repository::open(store(&self.memory), self.keys(keys)).await
    }

    async fn rotate(&self, rotation: Rotation) -> Result<Repository> {
        self.open("admin").await?.rotate(&rotation).await
    }

    async fn backup(&self, keys: &str, source: &str, n: u8) -> Result<Snapshot> {
        let repository = self.open(keys).await?;
        backup(&repository, self.path(source), n).await
    }

    async fn restores(&self, keys: &str, snapshot: &Snapshot) -> Result<()> {
        let place = self.path("restored");
        let repository = self.open(keys).await?;
        let restored = repository.restore(snapshot, &FilesTarget::new(&place), RestoreOptions::default()).await;
        if place.exists() {
            std::fs::remove_dir_all(&place).unwrap();
        }
        restored.map(|restored| assert!(restored.is_equal()))
    }

    async fn verify(&self, keys: &str, level: VerifyLevel) -> Vec<FindingKind> {
        let repository = self.open(keys).await.unwrap();
        let report = repository.verify(None, VerifyOptions::new(level).record(false)).await.unwrap();
        report.findings.iter().map(|f| f.kind).collect()
    }

    fn trust(&self, keys: &str) -> Trust {
        self.keys(keys).trust().unwrap().clone()
    }

    fn new_writer(&self, name: &str) -> WriterKey {
        Keys::generate().unwrap().save(self.path(name)).unwrap();
        WriterKey::load(self.path(name).join("writer.key")).unwrap()
    }
}

async fn backup(repository: &Repository, path: PathBuf, n: u8) -> Result<Snapshot> {
    std::fs::create_dir_all(&path).unwrap();
    let photo = path.join(format!("{n}.jpg"));
    if !photo.exists() {
        std::fs::write(photo, [n; 20_000]).unwrap();
    }
    repository.backup(&FilesSource::new(path), BackupOptions::default()).await
}

fn store(memory: &Arc<InMemory>) -> Store {
    Store::new(memory.clone(), "memory:")
}

async fn everything(memory: &InMemory) -> BTreeMap<Path, backup_core::bytes::Bytes> {
    let mut all = BTreeMap::new();
    for meta in memory.list(None).try_collect::<Vec<_>>().await.unwrap() {
        let bytes = memory.get(&meta.location).await.unwrap().bytes().await.unwrap();
        all.insert(meta.location, bytes);
    }
    all
}

#[tokio::test]
async fn one_more_who_reads_and_one_less() {
    let shop = Shop::new().await;
    let before = shop.backup("host", "uploads", 1).await.unwrap();
    Keys::generate().unwrap().save(shop.path("partner")).unwrap();
    let partner = shop.keys("partner").recipient().unwrap().clone();
    let rotated = shop.rotate(Rotation::new().add_recipient(partner.clone())).await.unwrap();
    assert_eq!(rotated.trust().unwrap().generation, 1);
    assert_eq!(shop.trust("admin"), *rotated.trust().unwrap());

    // The host hears of it by itself, and stores everything anew, for both.
    assert_eq!(shop.trust("host").generation, 0);
    let both = shop.backup("host", "uploads", 1).await.unwrap();
    assert_eq!(shop.trust("host"), shop.trust("admin"));
    assert_ne!(both.manifest.epoch, before.manifest.epoch);
    assert_eq!(both.manifest.recipients.len(), 2);
    assert!(both.manifest.totals.added >= before.manifest.totals.added, "nothing of the old epoch is referred to");
    let again = shop.backup("host", "uploads", 1).await.unwrap();
    assert_eq!(again.manifest.totals.added, 0, "within the new one it is");
    std::fs::copy(shop.path("admin/trust.json"), shop.path("partner/trust.json")).unwrap();
    shop.restores("partner", &both).await.unwrap();
    assert_eq!(shop.restores("partner", &before).await.unwrap_err().kind(), ErrorKind::KeyWrong);
    let listed = shop.open("partner").await.unwrap().catalog().await.unwrap();
    assert_eq!((listed.snapshots.len(), listed.sealed.as_slice()), (2, &[before.record][..]));
    assert!(listed.is_sound());
    // Who cannot read all of it says so, and does not prune.
    let report = shop.open("partner").await.unwrap();
    let report = report.verify(None, VerifyOptions::new(VerifyLevel::Content).record(false)).await.unwrap();
    assert!(report.findings.is_empty() && report.unread == 1 && !report.is_sound(), "{report:?}");
    std::fs::copy(shop.path("admin/admin.key"), shop.path("partner/admin.key")).unwrap();
    let partners = shop.open("partner").await.unwrap();
    let plan = "daily=1".parse::<Retention>().unwrap().plan(&listed, Utc::now());
    let e = partners.prune(&plan, PruneOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::KeyMissing, "{e}");

    shop.rotate(Rotation::new().remove_recipient(&partner)).await.unwrap();
    let after = shop.backup("host", "uploads", 2).await.unwrap();
    assert_eq!(after.manifest.recipients.len(), 1);
    shop.restores("partner", &both).await.unwrap();
    assert!(shop.restores("partner", &after).await.is_err());
    // Also when he comes with nothing but his keys, on a day when all is gone.
    let catalog = shop.open("partner").await.unwrap().catalog().await.unwrap();
    let listed = catalog.snapshots.iter().find(|s| s.id == both.id).unwrap();
    shop.restores("partner", listed).await.unwrap();
    assert!(catalog.sealed.contains(&after.record));
    assert_eq!(
        catalog.select(&Selector::Latest, None).unwrap_err().kind(),
        ErrorKind::Damaged,
        "which one is not known"
    );
    for snapshot in [&before, &both, &after] {
        shop.restores("admin", snapshot).await.unwrap();
    }
    assert_eq!(shop.verify("admin", VerifyLevel::Content).await, []);
}

#[tokio::test]
async fn a_second_host_that_backs_up() {
    let shop = Shop::new().await;
    let first = shop.backup("host", "uploads", 1).await.unwrap();
    let writer = shop.new_writer("made");
    // Before it is added it can do nothing.
    shop.host("early", "made/writer.key");
    let e = shop.backup("early", "invoices", 1).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::KeyWrong, "{e}");
    shop.rotate(Rotation::new().add_writer(TrustedWriter::of(&writer).unwrap())).await.unwrap();
    shop.host("second", "made/writer.key");
    let invoices = shop.backup("second", "invoices", 1).await.unwrap();
    // Its own source, and at once with the first.
    let (a, b) = tokio::join!(shop.backup("host", "uploads", 2), shop.backup("second", "invoices", 2));
    let (a, b) = (a.unwrap(), b.unwrap());
    for keys in ["admin", "host"] {
        let catalog = shop.open(keys).await.unwrap().catalog().await.unwrap();
        assert!(catalog.is_sound() && catalog.snapshots.len() == 4, "{keys}: {catalog:?}");
    }
    let theirs = shop.open("second").await.unwrap().catalog().await.unwrap();
    assert_eq!(theirs.sealed, [first.record], "what was written before it came");
    assert!(theirs.select(&Selector::Latest, Some("invoices")).unwrap().id == b.id);
    for snapshot in [&first, &invoices, &a, &b] {
        shop.restores("admin", snapshot).await.unwrap();
    }
    assert_eq!(shop.verify("admin", VerifyLevel::Content).await, []);
    assert_eq!(shop.verify("host", VerifyLevel::Stored).await, []);
    assert_eq!(shop.verify("second", VerifyLevel::Stored).await, [], "all that it lists it can look into");
    let again = shop.backup("second", "invoices", 2).await.unwrap();
    assert_eq!(again.manifest.totals.added, 0, "it knows what it stored itself");
}

#[tokio::test]
async fn a_writer_key_that_is_lost() {
    let shop = Shop::new().await;
    let before = shop.backup("host", "uploads", 1).await.unwrap();
    let lost = shop.keys("host").writer().unwrap().verify_key();
    let writer = shop.new_writer("made");
    let change = Rotation::new().retire_writer(lost).add_writer(TrustedWriter::of(&writer).unwrap());
    shop.rotate(change).await.unwrap();
    shop.host("new", "made/writer.key");
    let after = shop.backup("new", "uploads", 1).await.unwrap();
    assert!(after.manifest.totals.added > 0, "another writer's chunks are its own");
    let catalog = shop.open("admin").await.unwrap().catalog().await.unwrap();
    assert!(catalog.is_sound() && catalog.snapshots.len() == 2 && catalog.rejected.is_empty(), "{catalog:?}");
    for snapshot in [&before, &after] {
        shop.restores("admin", snapshot).await.unwrap();
    }
    // Found again, it is of no use.
    let e = shop.backup("host", "uploads", 3).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::KeyWrong, "{e}");
    let again = Rotation::new().add_writer(TrustedWriter::of(shop.keys("host").writer().unwrap()).unwrap());
    assert_eq!(shop.rotate(again).await.unwrap_err().kind(), ErrorKind::Config);
}

/// The thief has the host's keys and all rights on the store.
#[tokio::test]
async fn a_writer_key_that_was_stolen() {
    let shop = Shop::new().await;
    let old = shop.backup("host", "uploads", 1).await.unwrap();
    let good = shop.backup("host", "uploads", 2).await.unwrap();
    // He goes on in the shop's name, from a copy of the store in which nobody will ever change the keys.
    let his = Arc::new(InMemory::new());
    for (path, bytes) in everything(&shop.memory).await {
        his.put(&path, bytes.into()).await.unwrap();
    }
    shop.host("thief", "admin/writer.key");
    let thief = Repository::open(store(&his), shop.keys("thief")).await.unwrap();
    let forged = backup(&thief, shop.path("elsewhere"), 66).await.unwrap();
    let bring = async || {
        for (path, bytes) in everything(&his).await {
            shop.memory.put(&path, bytes.into()).await.unwrap();
        }
    };
    bring().await;
    assert_eq!(shop.open("admin").await.unwrap().catalog().await.unwrap().snapshots.len(), 3, "so far he is the shop");
    // The shop goes on as well, on top of what he did.
    let unlucky = shop.backup("host", "uploads", 3).await.unwrap();

    let stolen = shop.keys("host").writer().unwrap().verify_key();
    let writer = shop.new_writer("made");
    let change = Rotation::new().revoke_writer(stolen, good.id.clone());
    shop.rotate(change.add_writer(TrustedWriter::of(&writer).unwrap())).await.unwrap();
    // What he signs later counts as little, though he does not know of it.
    let later = backup(&thief, shop.path("elsewhere"), 67).await.unwrap();
    bring().await;
    shop.host("new", "made/writer.key");
    let after = shop.backup("new", "uploads", 4).await.unwrap();
    let catalog = shop.open("admin").await.unwrap().catalog().await.unwrap();
    assert!(catalog.is_sound(), "{catalog:?}");
    let counts: Vec<_> = catalog.snapshots.iter().map(|s| s.record).collect();
    assert_eq!(counts, [old.record, good.record, after.record]);
    let mut rejected = vec![forged.record, unlucky.record, later.record];
    rejected.sort_unstable();
    assert_eq!(catalog.rejected, rejected);
    assert_eq!(catalog.select(&Selector::Latest, Some("uploads")).unwrap().id, after.id);
    assert_eq!(shop.verify("admin", VerifyLevel::Content).await, []);
    for snapshot in [&old, &good, &after] {
        shop.restores("admin", snapshot).await.unwrap();
    }
    // The next prune takes it away.
    let repository = shop.open("admin").await.unwrap();
    repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    let catalog = repository.catalog().await.unwrap();
    let plan = "within=48h".parse::<Retention>().unwrap().plan(&catalog, Utc::now());
    assert_eq!((plan.dropped().count(), &plan.rejected), (0, &rejected), "{plan:?}");
    // It may have been a mistake: not at once, but after the time of grace.
    repository.prune(&plan, PruneOptions::default()).await.unwrap();
    assert!(everything(&shop.memory).await.contains_key(&Path::from(format!("log/{}", unlucky.record))));
    assert_eq!(shop.verify("admin", VerifyLevel::Content).await, []);
    let plan = "within=48h".parse::<Retention>().unwrap().plan(&repository.catalog().await.unwrap(), Utc::now());
    repository.prune(&plan, PruneOptions::default().with_grace(Duration::ZERO)).await.unwrap();
    let left = everything(&shop.memory).await;
    assert!(rejected.iter().all(|record| !left.contains_key(&Path::from(format!("log/{record}")))));
    let report = repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(report.is_sound() && report.unreferenced_count == 0, "{report:?}");
    assert_eq!(repository.catalog().await.unwrap().rejected, []);
}

/// With the store's credentials and a writer's key: what he changes about the keys shows, and what he cannot sign counts
/// for nothing.
#[tokio::test]
async fn changes_of_keys_that_are_forged_or_taken_away() {
    let shop = Shop::new().await;
    shop.backup("host", "uploads", 1).await.unwrap();
    let partner = Keys::generate().unwrap().recipient().unwrap().clone();
    shop.rotate(Rotation::new().add_recipient(partner)).await.unwrap();
    shop.backup("host", "uploads", 2).await.unwrap();
    let change = everything(&shop.memory).await.into_keys().find(|path| path.as_ref().starts_with("trust/")).unwrap();
    let bytes = shop.memory.get(&change).await.unwrap().bytes().await.unwrap();
    assert_eq!(shop.verify("host", VerifyLevel::Stored).await, []);
    // Taken away: who has seen it misses it, and goes on as it says.
    shop.memory.delete(&change).await.unwrap();
    assert_eq!(shop.verify("host", VerifyLevel::Stored).await, [FindingKind::Deleted]);
    assert_eq!(shop.backup("host", "uploads", 3).await.unwrap().manifest.recipients.len(), 2);
    // Bent: nobody follows it.
    let mut bent = bytes.to_vec();
    bent[40] ^= 1;
    shop.memory.put(&change, bent.clone().into()).await.unwrap();
    assert_eq!(shop.verify("host", VerifyLevel::Stored).await, [FindingKind::Damaged, FindingKind::Deleted]);
    // Under its right name, and of a later generation, but not signed.
    let forged = Path::from(format!("trust/0000000002-{}", backup_core::Digest::sha256(&bent)));
    shop.memory.put(&forged, bent.into()).await.unwrap();
    shop.memory.put(&change, bytes.clone().into()).await.unwrap();
    assert_eq!(shop.verify("host", VerifyLevel::Stored).await, [FindingKind::Untrusted]);
    assert_eq!(shop.trust("host").generation, 1);
    shop.memory.delete(&forged).await.unwrap();
    // A copy has it too.
    let copy = Arc::new(InMemory::new());
    sync(&store(&shop.memory), &store(&copy), &Keys::none(), SyncOptions::default()).await.unwrap();
    assert_eq!(copy.get(&change).await.unwrap().bytes().await.unwrap(), bytes);
    // Two different ones, both signed: one of the two admins is not the admin.
    shop.host("fresh", "admin/writer.key");
    let text = std::fs::read_to_string(shop.path("fresh/trust.json")).unwrap();
    let mut trust: Trust = serde_json::from_str(&text).unwrap();
    (trust.generation, trust.recipients) = (0, trust.recipients[..1].to_vec());
    let unaware = serde_json::to_string(&trust).unwrap();
    shop.memory.delete(&change).await.unwrap();
    std::fs::write(shop.path("admin/trust.json"), &unaware).unwrap();
    let another = Keys::generate().unwrap().recipient().unwrap().clone();
    shop.rotate(Rotation::new().add_recipient(another)).await.unwrap();
    shop.memory.put(&change, bytes.into()).await.unwrap();
    std::fs::write(shop.path("fresh/trust.json"), &unaware).unwrap();
    let e = shop.open("fresh").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Untrusted, "{e}");
}

#[tokio::test]
async fn changes_that_make_no_sense_are_refused() {
    let shop = Shop::new().await;
    shop.backup("host", "uploads", 1).await.unwrap();
    let before = everything(&shop.memory).await.len();
    let own = shop.keys("admin").recipient().unwrap().clone();
    let stranger = Keys::generate().unwrap();
    for rotation in [
        Rotation::new(),
        Rotation::new().remove_recipient(&own),
        Rotation::new().remove_recipient(stranger.recipient().unwrap()),
        Rotation::new().retire_writer(stranger.writer().unwrap().verify_key()),
        Rotation::new().add_recipient(own),
    ] {
        let e = shop.rotate(rotation.clone()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{rotation:?}: {e}");
    }
    // Not by the host.
    let change = Rotation::new().add_recipient(stranger.recipient().unwrap().clone());
    let e = shop.open("host").await.unwrap().rotate(&change).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::KeyMissing, "{e}");
    assert_eq!(everything(&shop.memory).await.len(), before);
    let plain = Repository::init_unencrypted(Store::from_url("memory:").unwrap()).await.unwrap();
    assert_eq!(plain.rotate(&change).await.unwrap_err().kind(), ErrorKind::Config);
}
