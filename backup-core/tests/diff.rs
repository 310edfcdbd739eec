//! What differs between two snapshots is told, and nothing else.

#![cfg(all(feature = "files", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use backup_core::{BackupOptions, Change, ErrorKind, FilesSource, Snapshot};
use support::{Shop, sqlite3};

async fn files(shop: &Shop) -> Snapshot {
    let source = FilesSource::new(shop.path("uploads")).named("uploads");
    shop.repository.backup(&source, BackupOptions::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_touched_are_named() {
    let shop = Shop::new().await;
    let uploads = shop.path("uploads");
    std::fs::create_dir(&uploads).unwrap();
    let write = |name: &str, content: &str| std::fs::write(uploads.join(name), content).unwrap();
    for n in 0..40 {
        write(&format!("{n:02}.jpg"), &format!("photo {n}"));
    }
    let big = "x".repeat(3_000_000);
    write("big.zip", &big);
    write("other.zip", &big);
    let before = files(&shop).await;
    assert!(shop.repository.diff(&before, &files(&shop).await).await.unwrap().is_empty());

    write("00.jpg", "photo of another length");
    std::fs::remove_file(uploads.join("01.jpg")).unwrap();
    write("shell.php", "<?php");
    let times = |name: &str| std::fs::metadata(uploads.join(name)).unwrap().modified().unwrap();
    let set = |name: &str, time| {
        std::fs::File::options().write(true).open(uploads.join(name)).unwrap().set_modified(time).unwrap()
    };
    // Written to, and its time set back.
    let time = times("02.jpg");
    write("02.jpg", "PHOTO 2");
    set("02.jpg", time);
    // Another file of the same length and time in its place.
    let time = times("big.zip");
    write("big.new", &"y".repeat(3_000_000));
    std::fs::rename(uploads.join("big.new"), uploads.join("big.zip")).unwrap();
    set("big.zip", time);
    // The same once more, as a restore would put it there.
    let time = times("other.zip");
    write("other.new", &big);
    std::fs::rename(uploads.join("other.new"), uploads.join("other.zip")).unwrap();
    set("other.zip", time);

    let after = files(&shop).await;
    let report = shop.repository.diff(&before, &after).await.unwrap();
    let mut changed: Vec<_> = report.files.iter().map(|f| (f.path.as_str(), f.change)).collect();
    changed.retain(|(path, _)| *path != "other.zip");
    assert_eq!(
        changed,
        [
            ("00.jpg", Change::Changed),
            ("01.jpg", Change::Removed),
            ("02.jpg", Change::Changed),
            ("big.zip", Change::Changed),
            ("shell.php", Change::Added)
        ]
    );
    assert_eq!((report.files_added, report.files_removed), (1, 1));
    assert!(!report.files.iter().any(|f| f.path == "other.zip"), "it is the same");
    // The other way round.
    let back = shop.repository.diff(&after, &before).await.unwrap();
    assert_eq!((back.files_added, back.files_removed, back.files_changed), (1, 1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_differ_are_named_with_their_rows() {
    let shop = Shop::new().await;
    let db = shop.path("shop.db");
    sqlite3(
        &db,
        "CREATE TABLE a (x); CREATE TABLE b (x); CREATE TABLE gone (x); INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1);",
    );
    let source = shop.source("shop.db");
    let before = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    sqlite3(&db, "UPDATE a SET x = 9 WHERE x = 1; INSERT INTO a VALUES (3); DROP TABLE gone; CREATE TABLE made (x);");
    let after = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    let report = shop.repository.diff(&before, &after).await.unwrap();
    let data: Vec<_> = report
        .entries
        .iter()
        .filter(|e| e.entry.starts_with("data/"))
        .map(|e| (e.entry.as_str(), e.change, e.rows_before, e.rows_after))
        .collect();
    assert_eq!(
        data,
        [
            ("data/a", Change::Changed, Some(2), Some(3)),
            ("data/gone", Change::Removed, Some(0), None),
            ("data/made", Change::Added, None, Some(0)),
        ]
    );
    assert!(report.entries.iter().any(|e| e.entry.starts_with("schema/")), "{:?}", report.entries);
    std::fs::create_dir(shop.path("uploads")).unwrap();
    let e = shop.repository.diff(&before, &files(&shop).await).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
}
