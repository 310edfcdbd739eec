//! A directory comes back as it was; what did not change is not read; what was deleted stays deleted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use backup_core::{
    BackupOptions, ErrorKind, FilesSource, FilesTarget, Only, RestoreOptions, Snapshot, VerifyLevel, VerifyOptions,
};
use proptest::prelude::*;
use support::{Shop, tree};

async fn backup(shop: &Shop) -> Snapshot {
    shop.repository.backup(&FilesSource::new(shop.path("uploads")), BackupOptions::default()).await.unwrap()
}

async fn restore(shop: &Shop, snapshot: &Snapshot, name: &str) {
    let report =
        shop.repository.restore(snapshot, &FilesTarget::new(shop.path(name)), RestoreOptions::default()).await.unwrap();
    assert!(report.is_equal(), "{:?}", report.different().collect::<Vec<_>>());
}

/// Files that were written just now count as changing: the clock of the file system is only so fine.
fn age(root: &Path) {
    let now = SystemTime::now();
    while SystemTime::now().duration_since(now).unwrap() < Duration::from_millis(30) {
        std::thread::yield_now();
    }
    assert!(root.exists());
}

fn odd_tree(root: &Path) {
    fs::create_dir_all(root.join("a/b/c/deep")).unwrap();
    fs::create_dir_all(root.join("empty/emptier")).unwrap();
    fs::write(root.join("zero"), "").unwrap();
    fs::write(root.join("a/small"), "small").unwrap();
    fs::write(root.join("a/b/just a chunk"), vec![7; 512 * 1024]).unwrap();
    let mut noise = vec![0; 9_000_000];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    fs::write(root.join("big.bin"), &noise).unwrap();
    fs::write(root.join("big-sparse.bin"), vec![0; 5_000_001]).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"not \xff utf-8 \x80")), "bytes").unwrap();
    fs::write(root.join("line\nend and 🎁 and \"quotes\""), "odd").unwrap();
    fs::write(root.join("n".repeat(255)), "long name").unwrap();
    let long = root.join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("f".repeat(200)), "long path").unwrap();
    symlink("a/small", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    symlink("..", root.join("a/up")).unwrap();
    symlink("x".repeat(300), root.join("long link")).unwrap();
    for (name, mode) in [("zero", 0o000), ("a/small", 0o4755), ("a/b", 0o500), ("empty", 0o1777)] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, time) in [
        ("a/small", SystemTime::UNIX_EPOCH - Duration::new(86_400, 250_000_000)),
        ("big.bin", SystemTime::UNIX_EPOCH + Duration::new(4_000_000_000, 999_999_999)),
    ] {
        fs::OpenOptions::new().append(true).open(root.join(name)).unwrap().set_modified(time).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_file_comes_back() {
    let shop = Shop::new().await;
    odd_tree(&shop.path("uploads"));
    let snapshot = backup(&shop).await;
    assert!(snapshot.manifest.is_complete(), "{:?}", snapshot.manifest.problems);
    let verified = shop.repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
    restore(&shop, &snapshot, "restored").await;
    let (source, restored) = (tree(&shop.path("uploads")), tree(&shop.path("restored")));
    assert_eq!(source.keys().collect::<Vec<_>>(), restored.keys().collect::<Vec<_>>());
    for (name, facts) in &source {
        assert!(restored[name] == *facts, "{} differs", String::from_utf8_lossy(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_files_are_not_read_and_deleted_ones_are_gone() {
    let shop = Shop::new().await;
    let uploads = shop.path("uploads");
    let bytes = storefront::uploads::create(&uploads, 9, 2_000, 6_000).unwrap();
    age(&uploads);
    let first = backup(&shop).await;
    assert!(first.manifest.totals.read > bytes);

    // Nothing changed: nothing read but the list of directories and links.
    let second = backup(&shop).await;
    assert!(second.manifest.totals.read < 100_000, "{} bytes were read", second.manifest.totals.read);
    assert_eq!(second.manifest.totals.added, 0);
    assert_eq!(second.manifest.totals.rows, first.manifest.totals.rows);

    // One changed, one new, one deleted: at most the units they are in.
    fs::write(uploads.join("products/000/image-000000.jpg"), "changed").unwrap();
    fs::write(uploads.join("products/new.jpg"), "new").unwrap();
    fs::remove_file(uploads.join("products/010/image-001000.jpg")).unwrap();
    age(&uploads);
    let third = backup(&shop).await;
    assert!(
        third.manifest.totals.read < 7_000_000 && third.manifest.totals.read < bytes / 2,
        "{} of {bytes} bytes were read",
        third.manifest.totals.read
    );
    restore(&shop, &third, "third").await;
    assert_eq!(tree(&uploads), tree(&shop.path("third")));
    // Not even its bytes are in the newer snapshot.
    assert!(names(&first, &shop).await.contains("products/010/image-001000.jpg"));
    assert!(!names(&third, &shop).await.contains("products/010/image-001000.jpg"));

    // The same size and time as before, but other content: the status-change time tells.
    let victim = uploads.join("products/001/image-000100.jpg");
    let old = fs::metadata(&victim).unwrap();
    fs::write(&victim, vec![b'!'; old.len() as usize]).unwrap();
    fs::File::options().append(true).open(&victim).unwrap().set_modified(old.modified().unwrap()).unwrap();
    let fourth = backup(&shop).await;
    restore(&shop, &fourth, "fourth").await;
    assert_eq!(fs::read(shop.path("fourth/products/001/image-000100.jpg")).unwrap(), vec![b'!'; old.len() as usize]);
    // And the first still is what it was.
    restore(&shop, &first, "first").await;
    assert_ne!(tree(&uploads), tree(&shop.path("first")));
}

/// Every path that a snapshot can restore.
async fn names(snapshot: &Snapshot, shop: &Shop) -> std::collections::BTreeSet<String> {
    let target = shop.path(&format!("names-{}", snapshot.record.sequence));
    restore(shop, snapshot, target.file_name().unwrap().to_str().unwrap()).await;
    tree(&target).into_keys().map(|k| String::from_utf8_lossy(&k).into_owned()).collect()
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let shop = Shop::new().await;
    let uploads = shop.path("uploads");
    fs::create_dir(&uploads).unwrap();
    fs::write(uploads.join("good"), "good").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(uploads.join("socket")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, uploads.join("pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let snapshot = backup(&shop).await;
    assert_eq!(snapshot.manifest.problem_count, 2, "{:?}", snapshot.manifest.problems);
    assert!(!snapshot.manifest.is_complete());
    let named: Vec<_> = snapshot.manifest.problems.iter().map(|p| p.subject.clone()).collect();
    assert!(named.iter().any(|n| n.ends_with("socket")) && named.iter().any(|n| n.ends_with("pipe")), "{named:?}");
    // What could be read is kept all the same.
    restore(&shop, &snapshot, "restored").await;
    assert_eq!(fs::read(shop.path("restored/good")).unwrap(), b"good");
    let e = shop.repository.backup(&FilesSource::new(shop.path("none")), BackupOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::SourceMissing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_never_stands_still_is_named() {
    let shop = Shop::new().await;
    let uploads = shop.path("uploads");
    fs::create_dir(&uploads).unwrap();
    fs::write(uploads.join("log"), vec![b'x'; 30_000_000]).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (path, flag) = (uploads.join("log"), std::sync::Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        while !flag.load(std::sync::atomic::Ordering::SeqCst) {
            std::io::Write::write_all(&mut file, b"more\n").unwrap();
        }
    });
    let snapshot = backup(&shop).await;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    writer.join().unwrap();
    assert_eq!(snapshot.manifest.problem_count, 1);
    assert!(snapshot.manifest.problems[0].reason.contains("changed while it was read"));
}

#[tokio::test]
async fn clean_replaces_only_picks_and_a_full_target_is_refused() {
    let shop = Shop::new().await;
    storefront::uploads::create(&shop.path("uploads"), 9, 40, 2_000).unwrap();
    let snapshot = backup(&shop).await;
    let target = FilesTarget::new(shop.path("live"));
    fs::create_dir_all(shop.path("live/products/000")).unwrap();
    fs::write(shop.path("live/mine.txt"), "mine").unwrap();
    fs::write(shop.path("live/products/000/image-000001.jpg"), "newer").unwrap();
    let before = tree(&shop.path("live"));
    let refused = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TargetNotEmpty);
    assert_eq!(tree(&shop.path("live")).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());

    let only = RestoreOptions::default().only(Some(Only::new("products/000/image-000002.jpg").unwrap()));
    shop.repository.restore(&snapshot, &target, only).await.unwrap();
    assert_eq!(fs::read(shop.path("live/mine.txt")).unwrap(), b"mine");
    let picked = "products/000/image-000002.jpg";
    assert_eq!(fs::read(shop.path("live").join(picked)).unwrap(), fs::read(shop.path("uploads").join(picked)).unwrap());

    let only = |clean| RestoreOptions::default().clean(clean).only(Some(Only::new("products/**").unwrap()));
    assert_eq!(
        shop.repository.restore(&snapshot, &target, only(false)).await.unwrap_err().kind(),
        ErrorKind::TargetNotEmpty
    );
    assert_eq!(fs::read(shop.path("live/products/000/image-000001.jpg")).unwrap(), b"newer");
    assert!(!shop.path("live/products/000/image-000003.jpg").exists(), "a refused restore moved nothing");
    shop.repository.restore(&snapshot, &target, only(true)).await.unwrap();
    assert_ne!(fs::read(shop.path("live/products/000/image-000001.jpg")).unwrap(), b"newer");

    shop.repository.restore(&snapshot, &target, RestoreOptions::default().clean(true)).await.unwrap();
    assert_eq!(tree(&shop.path("live")), tree(&shop.path("uploads")));
}

#[derive(Debug, Clone)]
enum Change {
    Write(u8, Vec<u8>),
    Remove(u8),
    Link(u8, u8),
    Directory(u8),
    Touch(u8),
    Mode(u8, bool),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0u8..24, prop_oneof![prop::collection::vec(any::<u8>(), 0..2000), Just(vec![3; 600_000])]).prop_map(|(n, b)| Change::Write(n, b)),
        2 => (0u8..24).prop_map(Change::Remove),
        1 => (0u8..24, 0u8..24).prop_map(|(a, b)| Change::Link(a, b)),
        1 => (0u8..24).prop_map(Change::Directory),
        1 => (0u8..24).prop_map(Change::Touch),
        1 => (0u8..24, any::<bool>()).prop_map(|(n, w)| Change::Mode(n, w)),
    ]
}

fn apply(root: &Path, change: &Change) {
    // Names in nested folders, which may be taken by anything.
    let path = |n: u8| root.join(["", "a", "a/b", "c"][usize::from(n % 4)]).join(format!("f{n}"));
    let clear = |p: &Path| {
        match p.symlink_metadata() {
            Ok(m) if m.is_dir() => fs::remove_dir_all(p).unwrap(),
            Ok(_) => fs::remove_file(p).unwrap(),
            Err(_) => {}
        }
        fs::create_dir_all(p.parent().unwrap()).unwrap();
    };
    match change {
        Change::Write(n, bytes) => {
            clear(&path(*n));
            fs::write(path(*n), bytes).unwrap();
        }
        Change::Remove(n) => clear(&path(*n)),
        Change::Link(n, to) => {
            clear(&path(*n));
            symlink(path(*to), path(*n)).unwrap();
        }
        Change::Directory(n) => {
            clear(&path(*n));
            fs::create_dir(path(*n)).unwrap();
        }
        Change::Touch(n) => {
            if path(*n).symlink_metadata().is_ok_and(|m| m.is_file()) {
                fs::File::options()
                    .append(true)
                    .open(path(*n))
                    .unwrap()
                    .set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::from(*n) * 1_000_000_007))
                    .unwrap();
            }
        }
        Change::Mode(n, write) => {
            if path(*n).symlink_metadata().is_ok_and(|m| m.is_file()) {
                fs::set_permissions(path(*n), fs::Permissions::from_mode(if *write { 0o664 } else { 0o440 })).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_snapshot_of_a_changing_tree_comes_back(rounds in prop::collection::vec(prop::collection::vec(change(), 1..12), 1..5)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let shop = Shop::new().await;
            let uploads = shop.path("uploads");
            fs::create_dir(&uploads).unwrap();
            let mut taken = Vec::new();
            for round in &rounds {
                round.iter().for_each(|c| apply(&uploads, c));
                age(&uploads);
                taken.push((backup(&shop).await, tree(&uploads)));
            }
            for (n, (snapshot, expected)) in taken.iter().enumerate() {
                assert!(snapshot.manifest.is_complete(), "{:?}", snapshot.manifest.problems);
                let name = format!("restored-{n}");
                restore(&shop, snapshot, &name).await;
                assert_eq!(&tree(&shop.path(&name)), expected, "snapshot {n}");
            }
        });
    }
}

#[tokio::test]
async fn an_empty_directory_comes_back_and_a_vanished_one_is_no_good_night() {
    let shop = Shop::new().await;
    fs::create_dir(shop.path("uploads")).unwrap();
    let empty = backup(&shop).await;
    assert!(empty.manifest.is_complete());
    restore(&shop, &empty, "restored").await;
    let drill = shop
        .repository
        .drill(&empty, &FilesTarget::new(shop.path("scratch")), backup_core::DrillOptions::default())
        .await
        .unwrap();
    assert!(
        drill.passed() && !shop.path("scratch").exists()
            || fs::read_dir(shop.path("scratch")).unwrap().next().is_none()
    );
    assert!(backup(&shop).await.manifest.is_complete(), "it was empty before");
    fs::write(shop.path("uploads/a"), "a").unwrap();
    assert!(backup(&shop).await.manifest.is_complete());
    fs::remove_file(shop.path("uploads/a")).unwrap();
    assert_eq!(backup(&shop).await.manifest.problem_count, 1, "all files are gone: is the disk mounted?");
}

#[tokio::test]
async fn names_and_links_keep_every_byte() {
    let shop = Shop::new().await;
    let uploads = shop.path("uploads");
    fs::create_dir(&uploads).unwrap();
    for (n, target) in ["a//b", "./x", "sub/", "../..//", ".", "/", "x y\nz"].into_iter().enumerate() {
        symlink(target, uploads.join(format!("link{n}"))).unwrap();
    }
    symlink(OsStr::from_bytes(&[0xe4; 150]), uploads.join("latin link")).unwrap();
    for length in [1, 98, 99, 100, 101, 200, 255] {
        fs::write(uploads.join(OsStr::from_bytes(&vec![0xe4; length])), "latin").unwrap();
        fs::write(uploads.join("n".repeat(length)), "ascii").unwrap();
    }
    let snapshot = backup(&shop).await;
    assert!(snapshot.manifest.is_complete(), "{:?}", snapshot.manifest.problems);
    restore(&shop, &snapshot, "restored").await;
    assert_eq!(tree(&uploads), tree(&shop.path("restored")));
}

#[tokio::test]
async fn photos_and_thumbnails_alike_are_read_once() {
    let shop = Shop::new().await;
    let uploads = shop.path("uploads");
    fs::create_dir(&uploads).unwrap();
    for n in 0..20 {
        fs::write(uploads.join(format!("photo{n}")), vec![n; 700_000]).unwrap();
    }
    for n in 0..9_000u32 {
        fs::write(uploads.join(format!("thumb{n}")), n.to_le_bytes()).unwrap();
    }
    age(&uploads);
    backup(&shop).await;
    let again = backup(&shop).await;
    assert!(again.manifest.totals.read < 20_000, "{} bytes were read again", again.manifest.totals.read);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_behind_a_link_or_is_left_out_is_not_taken_over() {
    let shop = Shop::new().await;
    let uploads = shop.path("uploads");
    for folder in ["a", "c"] {
        fs::create_dir_all(uploads.join(folder)).unwrap();
        fs::write(uploads.join(folder).join("x"), vec![b'x'; 700_000]).unwrap();
    }
    age(&uploads);
    backup(&shop).await;
    // `a/x` still leads to the very same file, untouched: but a walk finds it as `b/x` now.
    fs::rename(uploads.join("a"), uploads.join("b")).unwrap();
    symlink("b", uploads.join("a")).unwrap();
    let second = backup(&shop).await;
    assert!(second.manifest.is_complete(), "{:?}", second.manifest.problems);
    restore(&shop, &second, "second").await;
    assert_eq!(tree(&uploads), tree(&shop.path("second")));
    // And what is left out from now on is not in the next snapshot, folder or file.
    for glob in ["c", "c/x"] {
        let source = FilesSource::new(&uploads).excluding(&[glob]).unwrap();
        let third = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
        assert_eq!(third.manifest.totals.rows, second.manifest.totals.rows - if glob == "c" { 2 } else { 1 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_many_directories_comes_back() {
    let shop = Shop::new().await;
    let uploads = shop.path("uploads");
    for n in 0..1_500 {
        fs::create_dir_all(uploads.join(format!("{}/{n}", n % 7))).unwrap();
    }
    let snapshot = backup(&shop).await;
    let again = backup(&shop).await;
    assert_eq!(again.manifest.totals.added, 0);
    assert_eq!(snapshot.manifest.totals.rows, 1_500 + 7 + 1);
    restore(&shop, &snapshot, "restored").await;
    assert_eq!(tree(&uploads), tree(&shop.path("restored")));
}

#[tokio::test]
async fn an_interrupted_swap_is_put_back() {
    let shop = Shop::new().await;
    storefront::uploads::create(&shop.path("uploads"), 9, 20, 2_000).unwrap();
    let snapshot = backup(&shop).await;
    // As a kill leaves it: some of the live files are moved away, some of the new are half unpacked.
    let live = shop.path("live");
    fs::create_dir_all(live.join(".caretaker-replaced/a")).unwrap();
    fs::create_dir_all(live.join(".caretaker-partial/b")).unwrap();
    fs::write(live.join(".caretaker-replaced/a/precious"), "mine").unwrap();
    fs::write(live.join("z"), "also mine").unwrap();
    let target = FilesTarget::new(&live);
    let e = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TargetNotEmpty);
    assert_eq!(fs::read(live.join("a/precious")).unwrap(), b"mine");
    assert_eq!(fs::read(live.join("z")).unwrap(), b"also mine");
    // And it is not part of a backup.
    fs::create_dir_all(shop.path("uploads/.caretaker-partial")).unwrap();
    fs::write(shop.path("uploads/.caretaker-partial/x"), "x").unwrap();
    assert_eq!(backup(&shop).await.manifest.totals.rows, snapshot.manifest.totals.rows);
}

#[tokio::test]
async fn only_takes_links_and_empty_directories_along() {
    let shop = Shop::new().await;
    let uploads = shop.path("uploads");
    fs::create_dir_all(uploads.join("p/empty")).unwrap();
    fs::create_dir_all(uploads.join("q")).unwrap();
    fs::write(uploads.join("p/file"), "p").unwrap();
    fs::write(uploads.join("q/file"), "q").unwrap();
    symlink("file", uploads.join("p/link")).unwrap();
    let snapshot = backup(&shop).await;
    let only = RestoreOptions::default().only(Some(Only::new("p/**").unwrap()));
    shop.repository.restore(&snapshot, &FilesTarget::new(shop.path("r")), only).await.unwrap();
    let names: Vec<_> = tree(&shop.path("r")).into_keys().map(|k| String::from_utf8(k).unwrap()).collect();
    assert_eq!(names, ["", "p", "p/empty", "p/file", "p/link"]);
}
