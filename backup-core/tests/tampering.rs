//! Whatever is changed in a store shows, and is named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use backup_core::{
    BackupOptions, ErrorKind, FilesSource, Finding, FindingKind, Keys, Repository, RestoreOptions, Selector, Store,
    VerifyLevel, VerifyOptions, VerifyReport,
};
use proptest::prelude::*;
use storefront::Size;
use support::{Shop, files};

fn write_all(root: &Path, objects: &BTreeMap<String, Vec<u8>>) {
    std::fs::remove_dir_all(root).unwrap();
    for (name, bytes) in objects {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Two snapshots of a small shop and its uploads, and a verify, so that there is one of everything.
async fn shop() -> Shop {
    let shop = Shop::new().await;
    let db = shop.path("shop.db");
    let size = Size::orders(300);
    storefront::sqlite::create(&db, &size, 3).await.unwrap();
    storefront::uploads::create(&shop.path("uploads"), 3, 30, 4_000).unwrap();
    for _ in 0..2 {
        shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
        shop.repository.backup(&FilesSource::new(shop.path("uploads")), BackupOptions::default()).await.unwrap();
        storefront::sqlite::trade_a_day(&db, &size, 3).await.unwrap_or(());
        std::fs::write(shop.path("uploads/new.jpg"), "new").unwrap();
    }
    let report = verify(&shop, VerifyLevel::Content, true).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    shop
}

async fn verify(shop: &Shop, level: VerifyLevel, record: bool) -> backup_core::Result<VerifyReport> {
    shop.open().await?.verify(None, VerifyOptions::new(level).record(record)).await
}

/// Verifies as somebody would who comes anew: either a report, or a refusal to open.
async fn findings(shop: &Shop, level: VerifyLevel) -> Vec<(String, String)> {
    match verify(shop, level, false).await {
        Ok(report) => report
            .findings
            .iter()
            .map(|f: &Finding| (f.object.clone(), format!("{:?}: {}", f.kind, f.reason)))
            .collect(),
        Err(e) => vec![(e.to_string(), format!("{:?}", e.kind()))],
    }
}

#[derive(Debug, Clone)]
enum Tampering {
    Flip { at: prop::sample::Index, bit: u8 },
    Truncate(prop::sample::Index),
    Extend(Vec<u8>),
    Delete,
    SwapWith(prop::sample::Index),
    ReplayFrom(prop::sample::Index),
    Foreign(String),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0u8..8).prop_map(|(at, bit)| Tampering::Flip { at, bit }),
        2 => any::<prop::sample::Index>().prop_map(Tampering::Truncate),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Tampering::Extend),
        2 => Just(Tampering::Delete),
        1 => any::<prop::sample::Index>().prop_map(Tampering::SwapWith),
        1 => any::<prop::sample::Index>().prop_map(Tampering::ReplayFrom),
        1 => "[a-z]{1,8}".prop_map(Tampering::Foreign),
    ]
}

#[test]
fn any_change_anywhere_is_reported_and_named() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let shop = runtime.block_on(shop());
    let good = files(&shop.store());
    let names: Vec<&String> = good.keys().collect();
    assert!(names.len() > 20 && names.iter().any(|n| n.starts_with("log/")));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 250,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result =
        runner.run(&(any::<prop::sample::Index>(), tampering(), any::<bool>()), |(victim, tampering, deep)| {
            let name = names[victim.index(names.len())].clone();
            let mut bad = good.clone();
            let mut named = vec![name.clone()];
            match &tampering {
                Tampering::Flip { at, bit } => {
                    let bytes = bad.get_mut(&name).unwrap();
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                }
                Tampering::Truncate(at) => {
                    let bytes = bad.get_mut(&name).unwrap();
                    bytes.truncate(at.index(bytes.len()));
                }
                Tampering::Extend(more) => bad.get_mut(&name).unwrap().extend_from_slice(more),
                Tampering::Delete => {
                    bad.remove(&name);
                }
                Tampering::SwapWith(other) => {
                    let other = names[other.index(names.len())].clone();
                    prop_assume!(good[&other] != good[&name]);
                    bad.insert(name.clone(), good[&other].clone());
                    bad.insert(other.clone(), good[&name].clone());
                    named.push(other);
                }
                Tampering::ReplayFrom(other) => {
                    let other = &names[other.index(names.len())];
                    prop_assume!(good[*other] != good[&name]);
                    bad.insert(name.clone(), good[*other].clone());
                }
                Tampering::Foreign(new) => {
                    named = vec![format!("objects/{new}.bin")];
                    bad.insert(named[0].clone(), b"not from here".to_vec());
                }
            }
            write_all(&shop.store(), &bad);
            let level = if deep { VerifyLevel::Content } else { VerifyLevel::Stored };
            let found = runtime.block_on(findings(&shop, level));
            prop_assert!(!found.is_empty(), "{tampering:?} of {name} was not noticed");
            // The configuration is checked as one: whichever of its two objects was touched, its name or the refusal.
            let configuration = named.iter().any(|n| n.starts_with("repository."));
            let says = found.iter().any(|(object, reason)| {
                named.iter().any(|n| object.contains(n.as_str()) || reason.contains(n.as_str()))
            });
            prop_assert!(says || configuration, "{tampering:?} of {name} was not named: {found:?}");
            Ok(())
        });
    write_all(&shop.store(), &good);
    assert_eq!(runtime.block_on(findings(&shop, VerifyLevel::Content)), [], "the original is still good");
    result.unwrap();
}

#[tokio::test]
async fn a_store_that_was_signed_anew_is_refused() {
    let shop = shop().await;
    // Somebody with full access to the store replaces it with one of his own, same data, own keys.
    let forged = Shop::new().await;
    forged.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    write_all(&shop.store(), &files(&forged.store()));
    let e = shop.open().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Untrusted, "{e}");
    assert!(e.to_string().contains("another id"), "{e}");

    // Also if he keeps the configuration's id by writing it himself.
    let config = std::fs::read_to_string(shop.store().join("repository.json")).unwrap();
    let id = forged.repository.id();
    std::fs::write(shop.store().join("repository.json"), config.replace(id, shop.repository.id())).unwrap();
    assert_eq!(shop.open().await.unwrap_err().kind(), ErrorKind::Untrusted);

    // Or says that it is not encrypted.
    std::fs::remove_file(shop.store().join("repository.sig")).unwrap();
    std::fs::write(
        shop.store().join("repository.json"),
        config.replace(id, shop.repository.id()).replace("\"age\"", "\"none\""),
    )
    .unwrap();
    assert_eq!(shop.open().await.unwrap_err().kind(), ErrorKind::Untrusted);
}

#[tokio::test]
async fn single_records_that_were_forged_or_moved_are_named() {
    let shop = shop().await;
    let good = files(&shop.store());
    let log: Vec<&String> = good.keys().filter(|n| n.starts_with("log/")).collect();

    // A record of another repository, signed by another writer.
    let forger = Shop::new().await;
    forger.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    let forged = support::record(&forger.store(), 1);
    let foreign = files(&forger.store())[&forged].clone();
    let next = forged.replace("0000000001", &format!("{:010}", log.len() + 1));
    std::fs::write(shop.store().join(&next), &foreign).unwrap();
    let found = findings(&shop, VerifyLevel::Stored).await;
    assert!(found.iter().any(|(o, r)| *o == next && r.starts_with("Untrusted")), "{found:?}");
    // And "latest" is not simply the one before it.
    let catalog = shop.open().await.unwrap().catalog().await.unwrap();
    assert_eq!(catalog.select(&Selector::Latest, Some("shop")).unwrap_err().kind(), ErrorKind::Damaged);
    std::fs::remove_file(shop.store().join(&next)).unwrap();

    // The newest records gone: nothing in the store itself could tell, but this client has seen them.
    for name in log.iter().rev().take(2) {
        std::fs::remove_file(shop.store().join(name)).unwrap();
    }
    let report = verify(&shop, VerifyLevel::Stored, false).await.unwrap();
    assert_eq!(report.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [FindingKind::RolledBack]);
    write_all(&shop.store(), &good);

    // One in the middle gone.
    std::fs::remove_file(shop.store().join(log[1])).unwrap();
    let report = verify(&shop, VerifyLevel::Stored, false).await.unwrap();
    assert!(
        report.findings.iter().any(|f| f.kind == FindingKind::Deleted && f.object == *log[1]),
        "{:?}",
        report.findings
    );
}

#[tokio::test]
async fn a_lost_chunk_is_stored_again_and_the_old_snapshot_is_named() {
    let shop = Shop::new().await;
    storefront::sqlite::create(&shop.path("shop.db"), &Size::orders(300), 3).await.unwrap();
    let first = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    let victim = first.manifest.entry("data/orders").unwrap().inline.iter().find_map(|l| match l {
        backup_core::IndexLine::Chunk(c) => Some(c.object.to_string()),
        backup_core::IndexLine::Unit(_) => None,
    });
    let victim = victim.unwrap();
    std::fs::remove_file(shop.store().join(format!("objects/{}/{victim}", &victim[..2]))).unwrap();
    let e = shop.repository.restore(&first, &shop.target("r.db"), RestoreOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged);
    assert!(e.to_string().contains(&victim) && !shop.path("r.db").exists(), "{e}");

    let second = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    assert!(second.manifest.totals.added > 0, "what was lost is stored again");
    let report = verify(&shop, VerifyLevel::Content, true).await.unwrap();
    assert!(!report.is_intact(&first.id) && report.is_intact(&second.id), "{:?}", report.findings);
    shop.repository.restore(&second, &shop.target("r.db"), RestoreOptions::default()).await.unwrap();
}

#[tokio::test]
async fn each_key_opens_what_it_should_and_nothing_else() {
    let shop = Shop::new().await;
    storefront::sqlite::create(&shop.path("shop.db"), &Size::orders(50), 3).await.unwrap();
    shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    let open = |keys: Keys| {
        let store = Store::folder(shop.store()).unwrap();
        async move { Repository::open(store, keys).await }
    };
    let restore = |repository: Repository, name: &'static str| {
        let target = shop.target(name);
        async move {
            let snapshot = repository.catalog().await?.select(&Selector::Latest, None)?.clone();
            repository.restore(&snapshot, &target, RestoreOptions::default()).await
        }
    };
    // The host: backs up, lists, verifies the stored bytes; reads no data.
    let host = open(shop.keys().without_owner().without_admin()).await.unwrap();
    host.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    assert!(host.verify(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap().is_sound());
    let e = restore(host.clone(), "no.db").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::KeyMissing);
    assert!(e.to_string().contains("owner-identity.txt"), "{e}");
    assert_eq!(
        host.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap_err().kind(),
        ErrorKind::KeyMissing
    );
    // The owner: reads everything, signs nothing.
    let owner = open(shop.keys().without_writer().without_admin()).await.unwrap();
    restore(owner.clone(), "yes.db").await.unwrap();
    let report = owner.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(report.is_sound() && report.evidence.is_none());
    let e = owner.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::KeyMissing && e.to_string().contains("writer.key"), "{e}");
    // No trust.json: not opened at all.
    assert_eq!(open(Keys::none()).await.unwrap_err().kind(), ErrorKind::KeyMissing);
    // Another owner's identity beside the right trust.json.
    let stranger = Shop::new().await;
    std::fs::copy(shop.path("keys/trust.json"), stranger.path("keys/trust.json")).unwrap();
    let e = open(stranger.keys()).await.unwrap().catalog().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::KeyWrong, "{e}");
    // A stranger's writer.key under this trust: what it signs would not count, so it must not be written.
    let mixed = open(stranger.keys()).await.unwrap();
    let before = files(&shop.store()).len();
    let e = mixed.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::KeyWrong, "{e}");
    assert_eq!(files(&shop.store()).len(), before);
}

/// An object that holds a chunk of this table.
fn chunk_of(snapshot: &backup_core::Snapshot, entry: &str) -> String {
    let lines = &snapshot.manifest.entry(entry).unwrap().inline;
    let object = lines.iter().find_map(|l| match l {
        backup_core::IndexLine::Chunk(c) => Some(c.object.to_string()),
        backup_core::IndexLine::Unit(_) => None,
    });
    let object = object.unwrap();
    format!("objects/{}/{object}", &object[..2])
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn what_a_verify_found_damaged_is_stored_again() {
    let shop = Shop::new().await;
    storefront::sqlite::create(&shop.path("shop.db"), &Size::orders(300), 3).await.unwrap();
    let first = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    flip(&shop.store().join(chunk_of(&first, "data/orders")));
    assert!(!verify(&shop, VerifyLevel::Stored, true).await.unwrap().is_sound());
    let second = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    assert!(second.manifest.totals.added > 0);
    shop.repository.restore(&second, &shop.target("r.db"), RestoreOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_object_does_not_stop_an_unencrypted_repository() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("shop.db");
    storefront::sqlite::create(&db, &Size::orders(300), 3).await.unwrap();
    let store = dir.path().join("store");
    let repository = Repository::init_unencrypted(Store::folder(&store).unwrap()).await.unwrap();
    let source = backup_core::SqliteSource::new(&db);
    let first = repository.backup(&source, BackupOptions::default()).await.unwrap();
    let victim = store.join(chunk_of(&first, "data/orders"));
    let bytes = std::fs::read(&victim).unwrap();
    std::fs::write(&victim, &bytes[..bytes.len() / 2]).unwrap();
    let second = repository.backup(&source, BackupOptions::default()).await.unwrap();
    repository
        .restore(&second, &backup_core::SqliteTarget::new(dir.path().join("r.db")), RestoreOptions::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_rollback_is_not_built_upon_and_latest_is_not_what_it_seems() {
    let shop = shop().await;
    let log: Vec<String> = files(&shop.store()).into_keys().filter(|n| n.starts_with("log/")).collect();
    for name in log.iter().rev().take(3) {
        std::fs::remove_file(shop.store().join(name)).unwrap();
    }
    let repository = shop.open().await.unwrap();
    let catalog = repository.catalog().await.unwrap();
    assert!(!catalog.is_sound());
    assert_eq!(catalog.select(&Selector::Latest, Some("shop")).unwrap_err().kind(), ErrorKind::Untrusted);
    // By its id it can be restored: the owner has decided.
    let id = catalog.snapshots[0].id.to_string();
    assert!(catalog.select(&Selector::Id(id), None).is_ok());
    let e = repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Untrusted, "{e}");
    let report = verify(&shop, VerifyLevel::Stored, true).await.unwrap();
    assert_eq!(report.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [FindingKind::RolledBack]);
    assert_eq!(files(&shop.store()).into_keys().filter(|n| n.starts_with("log/")).count(), log.len() - 3);
}

#[tokio::test]
async fn strays_in_the_log_and_the_locks_harm_nobody() {
    let shop = Shop::new().await;
    storefront::sqlite::create(&shop.path("shop.db"), &Size::orders(50), 3).await.unwrap();
    shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    let record = support::record(&shop.store(), 1);
    let first = std::fs::read(shop.store().join(&record)).unwrap();
    let (respelt, moved) = (record.replace("log/0", "log/00"), record.replace("log/0000000001", "log/9999999999"));
    for (name, bytes) in [
        ("log/20260131120000", b"?".as_slice()),
        (&respelt, &first),
        (&moved, &first),
        ("log/9999999999", b"?"),
        ("locks/99999999999-exclusive-x", b"?"),
    ] {
        std::fs::create_dir_all(shop.store().join("locks")).unwrap();
        std::fs::write(shop.store().join(name), bytes).unwrap();
    }
    let found = findings(&shop, VerifyLevel::Stored).await;
    for name in ["log/20260131120000", &respelt, &moved, "log/9999999999"] {
        assert!(found.iter().any(|(o, _)| o == name), "{name}: {found:?}");
    }
    let second = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    assert_eq!(second.record.sequence, 2);
    assert_eq!(shop.repository.catalog().await.unwrap().snapshots.len(), 2);
}

#[tokio::test]
async fn keys_without_trust_and_trust_without_its_keys_change_nothing() {
    let shop = Shop::new().await;
    storefront::sqlite::create(&shop.path("shop.db"), &Size::orders(50), 3).await.unwrap();
    shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    let before = files(&shop.store());
    // A writer.key of another shop beside the right trust.json: its evidence would poison the log.
    let stranger = Shop::new().await;
    std::fs::create_dir(shop.path("mixed")).unwrap();
    for (from, file) in [(&shop, "owner-identity.txt"), (&shop, "trust.json"), (&stranger, "writer.key")] {
        std::fs::copy(from.path("keys").join(file), shop.path("mixed").join(file)).unwrap();
    }
    let open =
        |keys: &str| Repository::open(Store::folder(shop.store()).unwrap(), Keys::load(shop.path(keys)).unwrap());
    let mixed = open("mixed").await.unwrap();
    let report = mixed.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(report.is_sound() && report.evidence.is_none());
    assert_eq!(files(&shop.store()), before);
    // Keys, no trust.json, and a store that says it is not encrypted: not believed.
    let plain = tempfile::tempdir().unwrap();
    Repository::init_unencrypted(Store::folder(plain.path()).unwrap()).await.unwrap();
    std::fs::remove_file(shop.path("mixed/trust.json")).unwrap();
    let e = Repository::open(Store::folder(plain.path()).unwrap(), Keys::load(shop.path("mixed")).unwrap())
        .await
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::KeyMissing, "{e}");
    // A second repository with the same keys would take away the first one's pin.
    let trust = std::fs::read(shop.path("keys/trust.json")).unwrap();
    let e = Repository::init(Store::from_url("memory:").unwrap(), &mut shop.keys(), &[]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert_eq!(std::fs::read(shop.path("keys/trust.json")).unwrap(), trust);
}

#[tokio::test]
async fn a_second_recipient_reads_everything_and_a_stranger_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("shop.db");
    storefront::sqlite::create(&db, &Size::orders(50), 3).await.unwrap();
    for name in ["keys", "partner", "stranger"] {
        Keys::generate().unwrap().save(dir.path().join(name)).unwrap();
    }
    let load = |name: &str| Keys::load(dir.path().join(name)).unwrap();
    let partner = load("partner").recipient().unwrap().clone();
    let store = Store::folder(dir.path().join("store")).unwrap();
    let repository = Repository::init(store.clone(), &mut load("keys"), &[partner]).await.unwrap();
    repository.backup(&backup_core::SqliteSource::new(&db), BackupOptions::default()).await.unwrap();
    for name in ["partner", "stranger"] {
        std::fs::copy(dir.path().join("keys/trust.json"), dir.path().join(name).join("trust.json")).unwrap();
        let repository = Repository::open(store.clone(), load(name)).await.unwrap();
        let catalog = repository.catalog().await;
        if name == "stranger" {
            assert_eq!(catalog.unwrap_err().kind(), ErrorKind::KeyWrong);
            continue;
        }
        let snapshot = catalog.unwrap().select(&Selector::Latest, None).unwrap().clone();
        let target = backup_core::SqliteTarget::new(dir.path().join("r.db"));
        assert!(repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap().is_equal());
    }
}
