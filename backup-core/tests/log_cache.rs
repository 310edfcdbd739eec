//! What was read of the log is kept beside the keys: it saves the reading, and never says what the store does not.

#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use backup_core::chrono::DateTime;
use backup_core::{BackupOptions, Catalog, FilesSource, Snapshot, Status, VerifyLevel, VerifyOptions};
use support::Shop;

/// Some snapshots of files whose names nobody else is to know, and the evidence of a verify.
async fn shop(snapshots: u8) -> Shop {
    let shop = Shop::new().await;
    fs::create_dir(shop.path("wedding-lists")).unwrap();
    for n in 0..snapshots {
        fs::write(shop.path("wedding-lists/anna.txt"), [n]).unwrap();
        let source = FilesSource::new(shop.path("wedding-lists"));
        shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    }
    assert!(shop.repository.verify(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap().is_sound());
    shop
}

/// As another process sees it.
async fn catalog(shop: &Shop) -> Catalog {
    shop.open().await.unwrap().catalog().await.unwrap()
}

fn kept(shop: &Shop) -> Option<PathBuf> {
    let mut found = fs::read_dir(shop.path("keys")).unwrap().map(|f| f.unwrap().path());
    found.find(|path| path.extension().is_some_and(|e| e == "cache"))
}

fn record_of(shop: &Shop, snapshot: &Snapshot) -> PathBuf {
    shop.store().join("log").join(snapshot.record.to_string())
}

/// Bits that turned: as long as before, and last written when it was.
fn rot(path: &Path) {
    let written = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
}

fn same(a: &Catalog, b: &Catalog) {
    assert_eq!(a.snapshots, b.snapshots);
    assert_eq!(a.evidence, b.evidence);
    assert_eq!(Status::of(a, DateTime::UNIX_EPOCH), Status::of(b, DateTime::UNIX_EPOCH));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_once_and_a_verify_reads_them_all_the_same() {
    let shop = shop(3).await;
    assert_eq!(kept(&shop), None, "a backup and a verify read what is there");
    let first = catalog(&shop).await;
    let cache = kept(&shop).unwrap();
    let bytes = fs::read(&cache).unwrap();
    rot(&record_of(&shop, &first.snapshots[1]));
    let again = catalog(&shop).await;
    same(&first, &again);
    assert!(again.is_sound(), "as it was read before");
    assert_eq!(fs::read(&cache).unwrap(), bytes, "nothing new, nothing to keep");
    // What says that all is well has seen it.
    let report = shop.open().await.unwrap().verify(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap();
    assert!(report.findings.iter().any(|f| f.object.contains(&first.snapshots[1].record.to_string())), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_lists_otherwise_is_read_again() {
    let shop = shop(4).await;
    let first = catalog(&shop).await;
    let [gone, longer, later] = [0, 2, 3].map(|n| record_of(&shop, &first.snapshots[n]));
    fs::remove_file(&gone).unwrap();
    let written = fs::metadata(&longer).unwrap().modified().unwrap();
    let mut bytes = fs::read(&longer).unwrap();
    bytes.push(0);
    fs::write(&longer, bytes).unwrap();
    File::options().write(true).open(&longer).unwrap().set_modified(written).unwrap();
    rot(&later);
    File::options().write(true).open(&later).unwrap().set_modified(SystemTime::now()).unwrap();
    let second = catalog(&shop).await;
    assert_eq!(second.missing, [first.snapshots[0].record]);
    let damaged: Vec<_> = second.damaged.iter().map(|(record, _)| *record).collect();
    assert_eq!(damaged, [first.snapshots[2].record, first.snapshots[3].record]);
    assert_eq!(second.snapshots, first.snapshots[1..2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_later_is_found_and_kept_as_well() {
    let shop = shop(2).await;
    assert_eq!(catalog(&shop).await.snapshots.len(), 2);
    fs::write(shop.path("wedding-lists/anna.txt"), "x").unwrap();
    let source = FilesSource::new(shop.path("wedding-lists"));
    shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    let third = catalog(&shop).await;
    assert_eq!(third.snapshots.len(), 3);
    rot(&record_of(&shop, &third.snapshots[2]));
    same(&third, &catalog(&shop).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_as_it_was_written_is_passed_over() {
    let shop = shop(2).await;
    let first = catalog(&shop).await;
    let cache = kept(&shop).unwrap();
    let good = fs::read(&cache).unwrap();
    let wrong = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let end = good.len();
    let head = good.iter().position(|b| *b == b'\n').unwrap();
    let mut files: Vec<Vec<u8>> = (0..end).step_by(end / 40).map(|at| wrong(&|b| b[at] ^= 4)).collect();
    files.extend([0, head, head + 3, head + 20, end - 1].map(|at| wrong(&|b| b.truncate(at))));
    files.push(wrong(&|b| b.extend([0; 40])));
    // Nobody who can write here, and has not the key, makes another log of it.
    let other = self::shop(1).await;
    catalog(&other).await;
    files.push(fs::read(kept(&other).unwrap()).unwrap());
    for bytes in files {
        fs::write(&cache, &bytes).unwrap();
        same(&first, &catalog(&shop).await);
        assert_ne!(fs::read(&cache).unwrap(), bytes, "it was kept anew");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let shop = shop(2).await;
    catalog(&shop).await;
    let cache = kept(&shop).unwrap();
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&cache).unwrap();
    assert!(bytes.windows(7).all(|w| w != b"wedding"));
    // A thief of one machine's file and another's keys.
    let other = self::shop(1).await;
    fs::copy(&cache, other.path("keys").join(cache.file_name().unwrap())).unwrap();
    assert_eq!(catalog(&other).await.snapshots.len(), 1);
}
