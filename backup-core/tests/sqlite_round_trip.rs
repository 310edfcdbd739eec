//! What is restored is what was backed up, for every kind of value and object that SQLite has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::path::Path;

use backup_core::{
    BackupOptions, EntryKind, ErrorKind, Only, RestoreOptions, Selector, SqliteSource, Tier, VerifyLevel, VerifyOptions,
};
use storefront::Size;
use support::{Shop, assert_same_dump, dump, sqlite3};

fn every_type(path: &Path) {
    sqlite3(path, include_str!("every_type.sql"));
}

fn numbers(path: &Path) -> String {
    sqlite3(
        path,
        "PRAGMA user_version; PRAGMA application_id; PRAGMA page_size; PRAGMA auto_vacuum; PRAGMA encoding; PRAGMA journal_mode; PRAGMA integrity_check",
    )
}

async fn round_trip(shop: &Shop) {
    let snapshot = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    let verified = shop.repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
    let report =
        shop.repository.restore(&snapshot, &shop.target("restored.db"), RestoreOptions::default()).await.unwrap();
    assert!(report.is_equal());
    assert_same_dump(&shop.path("shop.db"), &shop.path("restored.db"));
    assert_eq!(numbers(&shop.path("shop.db")), numbers(&shop.path("restored.db")));
}

#[tokio::test]
async fn every_type_and_object_comes_back() {
    let shop = Shop::new().await;
    every_type(&shop.path("shop.db"));
    round_trip(&shop).await;
    // Searching works in the copy, so the shadows were kept as they are.
    assert_eq!(sqlite3(&shop.path("restored.db"), "SELECT rowid FROM search WHERE search MATCH 'rings'").trim(), "10");
    assert_eq!(sqlite3(&shop.path("restored.db"), "SELECT docid FROM old_search WHERE body MATCH 'find'").trim(), "1");
    assert_eq!(sqlite3(&shop.path("restored.db"), "SELECT count(*) FROM places WHERE x1 > 1").trim(), "1");
}

#[tokio::test]
async fn databases_in_utf16_and_rollback_journal_come_back() {
    for encoding in ["UTF-16le", "UTF-16be"] {
        let shop = Shop::new().await;
        sqlite3(
            &shop.path("shop.db"),
            &format!(
                "PRAGMA encoding='{encoding}'; CREATE TABLE t(a TEXT, b); INSERT INTO t VALUES ('ü🎁', 'a' || char(10) || 'ü' || char(0) || '🎁'), ('', x'00ff'); CREATE INDEX i ON t(a);"
            ),
        );
        round_trip(&shop).await;
    }
}

#[tokio::test]
async fn a_row_longer_than_a_chunk_comes_back() {
    let shop = Shop::new().await;
    sqlite3(
        &shop.path("shop.db"),
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b); INSERT INTO t VALUES (1, 'x'), (2, randomblob(9000000)), (3, randomblob(2500000)), (4, randomblob(2000000)), (5, 'y');",
    );
    round_trip(&shop).await;
}

#[tokio::test]
async fn commits_that_are_only_in_the_wal_are_kept() {
    let shop = Shop::new().await;
    let mut db = storefront::sqlite::open(&shop.path("shop.db"), true).await.unwrap();
    storefront::sqlite::run(&mut db, "PRAGMA wal_autocheckpoint = 0; CREATE TABLE t(x); INSERT INTO t VALUES (1), (2)")
        .await
        .unwrap();
    assert!(shop.path("shop.db-wal").metadata().unwrap().len() > 0);
    let snapshot = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    assert_eq!(snapshot.manifest.totals.rows, 2);
    // A stale log beside the place of a restored file must not be taken for its own.
    std::fs::copy(shop.path("shop.db-wal"), shop.path("restored.db-wal")).unwrap();
    shop.repository.restore(&snapshot, &shop.target("restored.db"), RestoreOptions::default()).await.unwrap();
    assert_eq!(sqlite3(&shop.path("restored.db"), "SELECT count(*) FROM t; PRAGMA integrity_check"), "2\nok\n");
}

#[tokio::test]
async fn clean_replaces_and_only_picks() {
    let shop = Shop::new().await;
    every_type(&shop.path("shop.db"));
    let snapshot = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();

    let other = shop.path("other.db");
    sqlite3(
        &other,
        "CREATE TABLE \"values\"(z); INSERT INTO \"values\" VALUES (1); CREATE TABLE mine(x); INSERT INTO mine VALUES (7); CREATE VIEW v AS SELECT * FROM mine; CREATE VIRTUAL TABLE old USING fts5(x); ANALYZE;",
    );
    let before = dump(&other);
    let refused =
        shop.repository.restore(&snapshot, &shop.target("other.db"), RestoreOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TargetNotEmpty);
    assert_eq!(dump(&other), before, "a refused restore changes nothing");

    // One table into a database that lives on.
    let only = RestoreOptions::default().only(Some(Only::new("counted").unwrap()));
    let report = shop.repository.restore(&snapshot, &shop.target("other.db"), only.clone()).await.unwrap();
    assert_eq!(report.compared.len(), 1);
    assert_eq!(sqlite3(&other, "SELECT group_concat(v) FROM counted; SELECT x FROM mine"), "a\n7\n");
    assert_eq!(
        shop.repository.restore(&snapshot, &shop.target("other.db"), only.clone()).await.unwrap_err().kind(),
        ErrorKind::TargetNotEmpty
    );
    sqlite3(&other, "DELETE FROM counted");
    shop.repository.restore(&snapshot, &shop.target("other.db"), only.clean(true)).await.unwrap();
    assert_eq!(sqlite3(&other, "SELECT group_concat(v) FROM counted; SELECT x FROM mine"), "a\n7\n");
    // A selection of nothing is a mistake.
    let nothing = RestoreOptions::default().only(Some(Only::new("no_such").unwrap()));
    assert_eq!(
        shop.repository.restore(&snapshot, &shop.target("other.db"), nothing).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );

    // The whole of it, in place of what is there.
    let report = shop
        .repository
        .restore(&snapshot, &shop.target("other.db"), RestoreOptions::default().clean(true))
        .await
        .unwrap();
    assert!(report.is_equal(), "{:?}", report.different().collect::<Vec<_>>());
    assert_same_dump(&shop.path("shop.db"), &other);
}

#[tokio::test]
async fn a_restore_that_fails_leaves_nothing_behind() {
    let shop = Shop::new().await;
    // A view in the place of a table that a later definition needs cannot be made: the collation is not there.
    sqlite3(
        &shop.path("shop.db"),
        "CREATE TABLE t(a); INSERT INTO t VALUES (1); CREATE INDEX i ON t(a); PRAGMA writable_schema=ON; UPDATE sqlite_master SET sql = 'CREATE INDEX i ON t(a COLLATE not_there)' WHERE name = 'i';",
    );
    let snapshot = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await;
    let Ok(snapshot) = snapshot else {
        panic!("a schema that names a missing collation can still be read: {snapshot:?}");
    };
    let e =
        shop.repository.restore(&snapshot, &shop.target("restored.db"), RestoreOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Target);
    assert!(e.to_string().contains("not_there"), "{e}");
    let left: Vec<_> = std::fs::read_dir(shop.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|n| n.to_string_lossy().contains("restored"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_of_200_000_orders_comes_back_and_its_next_backups_are_small() {
    let shop = Shop::new().await;
    let db = shop.path("shop.db");
    let size = Size::orders(200_000);
    let facts = storefront::sqlite::create(&db, &size, 2026).await.unwrap();
    assert_eq!(facts.orders, 200_000);
    round_trip(&shop).await;

    let first = shop.repository.catalog().await.unwrap().select(&Selector::Latest, None).unwrap().manifest.totals.added;
    let added = |totals: backup_core::Totals| totals.added as f64 / first as f64;
    // With its record: the store as a whole must not grow by more.
    let before = store_size(&shop.store());
    let again = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    let grown = (store_size(&shop.store()) - before) as f64 / first as f64;
    assert!(grown < 0.01, "an unchanged shop adds {:.2} %", grown * 100.0);
    assert_eq!(again.manifest.totals.added, 0);

    storefront::sqlite::trade_a_day(&db, &size, 1).await.unwrap();
    let day = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    assert!(added(day.manifest.totals) < 0.10, "a day of trading adds {:.2} %", added(day.manifest.totals) * 100.0);
    storefront::sqlite::scatter(&db, &size, 1, 50).await.unwrap();
    let scattered = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    println!(
        "first {first} bytes; a day of trading {:.2} %; notes on 2 % of all orders {:.2} %",
        added(day.manifest.totals) * 100.0,
        added(scattered.manifest.totals) * 100.0
    );

    // Every one of them can be restored, not just the last.
    let verified = shop.repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(verified.is_sound() && verified.snapshots.len() == 4, "{:?}", verified.findings);
    shop.repository.restore(&day, &shop.target("day.db"), RestoreOptions::default()).await.unwrap();
    assert_eq!(
        sqlite3(
            &shop.path("day.db"),
            "SELECT count(*), (SELECT count(*) FROM orders WHERE note LIKE 'seen %') FROM orders"
        )
        .trim(),
        "202000|0"
    );
}

fn store_size(root: &Path) -> u64 {
    support::files(root).values().map(|b| b.len() as u64).sum()
}

#[tokio::test]
async fn a_custom_name_and_the_file_name_both_serve() {
    let shop = Shop::new().await;
    sqlite3(&shop.path("a.db"), "CREATE TABLE t(x)");
    shop.repository.backup(&SqliteSource::new(shop.path("a.db")), BackupOptions::default()).await.unwrap();
    shop.repository.backup(&shop.source("a.db"), BackupOptions::default().with_label("before the sale")).await.unwrap();
    let catalog = shop.repository.catalog().await.unwrap();
    assert_eq!(catalog.select(&Selector::Latest, None).unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(catalog.select(&Selector::Latest, Some("a")).unwrap().record.sequence, 1);
    assert_eq!(
        catalog.select(&Selector::Latest, Some("shop")).unwrap().manifest.label.as_deref(),
        Some("before the sale")
    );
    assert_eq!(catalog.select(&Selector::Latest, Some("none")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn only_takes_a_search_index_whole() {
    let shop = Shop::new().await;
    sqlite3(
        &shop.path("shop.db"),
        "CREATE TABLE products(id INTEGER PRIMARY KEY, t); CREATE VIRTUAL TABLE products_fts USING fts5(t, content='products', content_rowid='id'); CREATE TRIGGER i AFTER INSERT ON products BEGIN INSERT INTO products_fts(rowid, t) VALUES (new.id, new.t); END; INSERT INTO products VALUES (1, 'golden ring'); CREATE TABLE other(x);",
    );
    let snapshot = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    let only = |glob: &str| RestoreOptions::default().clean(true).only(Some(Only::new(glob).unwrap()));
    sqlite3(
        &shop.path("live.db"),
        "CREATE TABLE other(x); INSERT INTO other VALUES ('mine'); CREATE TABLE products(id INTEGER PRIMARY KEY, t); CREATE VIRTUAL TABLE products_fts USING fts5(t);",
    );
    shop.repository.restore(&snapshot, &shop.target("live.db"), only("{products,products_fts}")).await.unwrap();
    let found = sqlite3(
        &shop.path("live.db"),
        "INSERT INTO products VALUES (2, 'silver ring'); SELECT group_concat(rowid) FROM products_fts('ring'); SELECT x FROM other; PRAGMA integrity_check",
    );
    assert_eq!(found, "1,2\nmine\nok\n");
    // Its inner tables are nothing by themselves.
    assert_eq!(
        shop.repository
            .restore(&snapshot, &shop.target("live.db"), only("products_fts_data"))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_target_that_stores_text_otherwise_is_refused_unchanged() {
    let shop = Shop::new().await;
    sqlite3(
        &shop.path("shop.db"),
        "PRAGMA encoding='UTF-16le'; CREATE TABLE t(a TEXT); INSERT INTO t VALUES ('line1' || char(10) || 'line2')",
    );
    let snapshot = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    sqlite3(&shop.path("live.db"), "CREATE TABLE mine(x); INSERT INTO mine VALUES (1)");
    let before = dump(&shop.path("live.db"));
    let e = shop
        .repository
        .restore(&snapshot, &shop.target("live.db"), RestoreOptions::default().clean(true))
        .await
        .unwrap_err();
    assert!(e.kind() == ErrorKind::Target && e.to_string().contains("UTF-8"), "{e}");
    assert_eq!(dump(&shop.path("live.db")), before);
}

#[tokio::test]
async fn what_cannot_be_written_as_a_line_is_refused_when_it_is_backed_up() {
    let shop = Shop::new().await;
    sqlite3(&shop.path("shop.db"), "CREATE TABLE t(\"Unit\nprice\", b); INSERT INTO t VALUES (1, 2)");
    let e = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Source && e.to_string().contains("Unit"), "{e}");
    // Where no name stands in the rows, it does not matter.
    sqlite3(
        &shop.path("shop.db"),
        "DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, \"Unit\nprice\"); INSERT INTO t VALUES (1, 2)",
    );
    round_trip(&shop).await;
}

#[tokio::test]
async fn rows_that_break_a_check_come_back_as_they_are() {
    let shop = Shop::new().await;
    sqlite3(
        &shop.path("shop.db"),
        "PRAGMA ignore_check_constraints=ON; CREATE TABLE t(a CHECK (a > 0)); INSERT INTO t VALUES (-1), (1);",
    );
    round_trip(&shop).await;
}

#[tokio::test]
async fn an_empty_file_is_no_good_night() {
    let shop = Shop::new().await;
    std::fs::write(shop.path("shop.db"), "").unwrap();
    let snapshot = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    assert_eq!(snapshot.manifest.problem_count, 1);
    sqlite3(&shop.path("shop.db"), "CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)");
    assert!(
        shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap().manifest.is_complete()
    );
    sqlite3(&shop.path("shop.db"), "DELETE FROM t");
    let emptied = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    assert!(emptied.manifest.problems[0].reason.contains("2 rows"), "{:?}", emptied.manifest.problems);
}

#[tokio::test]
async fn a_damaged_target_says_what_to_do() {
    let shop = Shop::new().await;
    sqlite3(&shop.path("shop.db"), "CREATE TABLE t(a)");
    let snapshot = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    std::fs::write(shop.path("broken.db"), "garbage ".repeat(1000)).unwrap();
    let e = shop
        .repository
        .restore(&snapshot, &shop.target("broken.db"), RestoreOptions::default().clean(true))
        .await
        .unwrap_err();
    assert!(e.next_step().is_some_and(|n| n.contains("new file")), "{e:?}");
}

#[tokio::test]
async fn a_tier_holds_its_tables_and_what_their_keys_lead_to() {
    let shop = Shop::new().await;
    let db = shop.path("shop.db");
    storefront::sqlite::create(&db, &storefront::Size::orders(300), 3).await.unwrap();
    sqlite3(&db, "CREATE VIRTUAL TABLE notes USING fts5(text); INSERT INTO notes VALUES ('find me');");
    let source = shop.source("shop.db");
    shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    let critical = source.clone().only_tier(Tier::new("critical", &["payments", "notes"]).unwrap());
    let tier = shop.repository.backup(&critical, BackupOptions::default()).await.unwrap();
    let held: std::collections::BTreeSet<&str> =
        tier.manifest.entries.iter().filter(|e| e.kind == EntryKind::Data).map(|e| e.subject.as_str()).collect();
    assert_eq!(held.into_iter().collect::<Vec<_>>(), ["customers", "notes", "orders", "payments"]);
    assert!(tier.manifest.totals.added < 10_000);
    let report = shop.repository.restore(&tier, &shop.target("r.db"), RestoreOptions::default()).await.unwrap();
    assert!(report.is_equal());
    let restored = shop.path("r.db");
    assert_eq!(sqlite3(&restored, "PRAGMA foreign_key_check"), "");
    assert_eq!(sqlite3(&restored, "SELECT count(*) FROM order_items; SELECT text FROM notes('find')"), "0\nfind me\n");
    let clean = RestoreOptions::default().clean(true);
    let e = shop.repository.restore(&tier, &shop.target("shop.db"), clean).await.unwrap_err();
    assert!(e.to_string().contains("critical"), "{e}");
    assert_eq!(shop.repository.catalog().await.unwrap().select(&Selector::Latest, None).unwrap().record.sequence, 1);
}
