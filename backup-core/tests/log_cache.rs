//! What was read of the log is kept beside the keys: it saves the reading, and never says what the store does not.

#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use backup_core::chrono::DateTime;
use backup_core::{
    BackupOptions, Catalog, DrillOptions, ErrorKind, FilesSource, FilesTarget, Keys, Repository, Rotation, Snapshot,
    Status, Store, TrustedWriter, VerifyLevel, VerifyOptions, VerifyReport,
};
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

async fn verify(shop: &Shop, record: bool) -> VerifyReport {
    let options = VerifyOptions::new(VerifyLevel::Stored).record(record);
    shop.open().await.unwrap().verify(None, options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_records_are_read_once_and_a_verify_reads_them_all_the_same() {
    for is_recorded in [true, false] {
        let shop = shop(12).await;
        assert_eq!(kept(&shop), None, "a backup and a verify read what is there");
        let first = catalog(&shop).await;
        let cache = kept(&shop).unwrap();
        let bytes = fs::read(&cache).unwrap();
        let victim = &first.snapshots[1];
        rot(&record_of(&shop, victim));
        let again = catalog(&shop).await;
        same(&first, &again);
        assert!(again.is_sound(), "as it was read before");
        assert_eq!(fs::read(&cache).unwrap(), bytes, "nothing new, nothing to keep");
        // What says that all is well has seen it, and from then on it is known to everybody.
        let report = verify(&shop, is_recorded).await;
        assert!(report.findings.iter().any(|f| f.object.contains(&victim.record.to_string())), "{report:?}");
        for _ in 0..2 {
            let after = catalog(&shop).await;
            let damaged: Vec<_> = after.damaged.iter().map(|(record, _)| *record).collect();
            assert_eq!(damaged, [victim.record], "recorded: {is_recorded}");
        }
    }
}

/// Another host has nothing but the store, and the evidence of the verify in it.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_host_found_bad_no_other_goes_by() {
    let shop = shop(12).await;
    let first = catalog(&shop).await;
    fs::create_dir(shop.path("host")).unwrap();
    for file in ["owner-identity.txt", "recipient.txt", "writer.key", "admin.key", "trust.json"] {
        fs::copy(shop.path("keys").join(file), shop.path("host").join(file)).unwrap();
    }
    let host = Repository::open(Store::folder(shop.store()).unwrap(), Keys::load(shop.path("host")).unwrap()).await;
    let host = host.unwrap();
    same(&first, &host.catalog().await.unwrap());
    rot(&record_of(&shop, &first.snapshots[1]));
    verify(&shop, true).await;
    let seen: Vec<_> = host.catalog().await.unwrap().damaged.iter().map(|(record, _)| *record).collect();
    assert_eq!(seen, [first.snapshots[1].record]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_records_are_always_read() {
    let shop = shop(12).await;
    let first = catalog(&shop).await;
    let newest = first.snapshots.last().unwrap();
    rot(&record_of(&shop, newest));
    let after = catalog(&shop).await;
    assert_eq!(after.damaged.iter().map(|(record, _)| *record).collect::<Vec<_>>(), [newest.record]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_goes_by_what_is_in_the_store() {
    let shop = shop(12).await;
    let first = catalog(&shop).await;
    let drill = async |snapshot: &Snapshot| {
        let scratch = FilesTarget::new(shop.path("scratch"));
        shop.open().await.unwrap().drill(snapshot, &scratch, DrillOptions::default()).await
    };
    rot(&record_of(&shop, &first.snapshots[1]));
    fs::remove_file(record_of(&shop, &first.snapshots[2])).unwrap();
    for lost in &first.snapshots[1..3] {
        let e = drill(lost).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains(lost.id.as_str()), "{e:?}");
    }
    assert!(drill(&first.snapshots[3]).await.unwrap().passed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_lists_otherwise_is_read_again() {
    let shop = shop(12).await;
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
    assert_eq!(second.snapshots.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_later_is_found_and_kept_as_well() {
    let shop = shop(12).await;
    assert_eq!(catalog(&shop).await.snapshots.len(), 12);
    for n in 0..10u8 {
        fs::write(shop.path("wedding-lists/anna.txt"), [n, n]).unwrap();
        let source = FilesSource::new(shop.path("wedding-lists"));
        shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    }
    let then = catalog(&shop).await;
    assert_eq!(then.snapshots.len(), 22);
    rot(&record_of(&shop, &then.snapshots[12]));
    same(&then, &catalog(&shop).await);
}

/// It may have been stolen: what is written from then on is not for whoever has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_taken_out_of_use_locks_nothing_away() {
    let shop = shop(12).await;
    let first = catalog(&shop).await;
    let bytes = fs::read(kept(&shop).unwrap()).unwrap();
    fs::create_dir(shop.path("made")).unwrap();
    Keys::generate().unwrap().save(shop.path("made/keys")).unwrap();
    let new = Keys::load(shop.path("made/keys")).unwrap();
    let stolen = shop.keys().writer().unwrap().verify_key();
    let good = first.snapshots[3].id.clone();
    // As the owner reads it: what he keeps opens after the change as before.
    let owner = Repository::open(Store::folder(shop.store()).unwrap(), shop.keys().without_writer()).await.unwrap();
    same(&first, &owner.catalog().await.unwrap());
    let rotation =
        Rotation::new().revoke_writer(stolen, good).add_writer(TrustedWriter::of(new.writer().unwrap()).unwrap());
    shop.open().await.unwrap().rotate(&rotation).await.unwrap();
    // The owner's identity opens it now, and only what still counts does.
    let after = catalog(&shop).await;
    assert_eq!((after.snapshots.len(), after.rejected.len()), (4, 9));
    same(&after, &catalog(&shop).await);
    let keys = shop.keys().without_owner();
    let host = Repository::open(Store::folder(shop.store()).unwrap(), keys).await.unwrap();
    fs::write(kept(&shop).unwrap(), &bytes).unwrap();
    let seen = host.catalog().await.unwrap();
    assert_eq!((seen.snapshots.len(), seen.rejected.len()), (4, 9));
    assert_eq!(fs::read(kept(&shop).unwrap()).unwrap(), bytes, "with that key nothing is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_as_it_was_written_is_passed_over() {
    let shop = shop(12).await;
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
    let other = self::shop(12).await;
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
    let shop = shop(12).await;
    catalog(&shop).await;
    let cache = kept(&shop).unwrap();
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&cache).unwrap();
    assert!(bytes.windows(7).all(|w| w != b"wedding"));
}
