//! A shop that goes on trading while it is backed up: every snapshot is one consistent instant.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backup_core::{BackupOptions, ErrorKind, RestoreOptions};
use sqlx::{Connection, SqliteConnection};
use support::{Shop, sqlite3};

const ACCOUNTS: i64 = 2_000;
const SUM: i64 = ACCOUNTS * 1_000;

async fn writer(path: std::path::PathBuf, seed: u64, stop: Arc<AtomicBool>, writes: Arc<AtomicU64>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut db: SqliteConnection = storefront::sqlite::open(&path, false).await.unwrap();
    while !stop.load(Ordering::SeqCst) {
        let (from, to, amount) = (rng.i64(1..=ACCOUNTS), rng.i64(1..=ACCOUNTS), rng.i64(1..50));
        let mut tx = db.begin().await.unwrap();
        for (id, change) in [(from, -amount), (to, amount)] {
            sqlx::query("UPDATE accounts SET balance = balance + ?1 WHERE id = ?2")
                .bind(change)
                .bind(id)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        // A new parent with its children, and an old one removed with its own: spread over several tables.
        sqlx::query("INSERT INTO orders(note) VALUES (?1)")
            .bind(format!("{from} to {to}"))
            .execute(&mut *tx)
            .await
            .unwrap();
        let id: i64 = sqlx::query_scalar("SELECT last_insert_rowid()").fetch_one(&mut *tx).await.unwrap();
        for _ in 0..3 {
            sqlx::query("INSERT INTO items(order_id, amount) VALUES (?1, ?2)")
                .bind(id)
                .bind(amount)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        let old = rng.i64(1..=id);
        sqlx::query("DELETE FROM items WHERE order_id = ?1").bind(old).execute(&mut *tx).await.unwrap();
        sqlx::query("DELETE FROM orders WHERE id = ?1").bind(old).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        writes.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_backups_under_writes_keep_the_sum_and_the_foreign_keys() {
    let shop = Shop::new().await;
    let db = shop.path("shop.db");
    // `items` is read long before `orders`, and `accounts` between them: a torn read would show.
    sqlite3(
        &db,
        &format!(
            "PRAGMA journal_mode=WAL; CREATE TABLE items(id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders(id), amount);
             CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, pad TEXT);
             CREATE TABLE orders(id INTEGER PRIMARY KEY AUTOINCREMENT, note);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS}) INSERT INTO accounts SELECT i, 1000, hex(randomblob(200)) FROM n;"
        ),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let writes = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn(writer(db.clone(), 7, Arc::clone(&stop), Arc::clone(&writes)));
    let mut during = 0;
    for run in 0..20 {
        let before = writes.load(Ordering::SeqCst);
        let snapshot = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
        during += writes.load(Ordering::SeqCst) - before;
        let name = format!("restored-{run}.db");
        let report = shop.repository.restore(&snapshot, &shop.target(&name), RestoreOptions::default()).await.unwrap();
        assert!(report.is_equal());
        let facts = sqlite3(
            &shop.path(&name),
            "SELECT sum(balance) FROM accounts; SELECT count(*) FROM pragma_foreign_key_check; PRAGMA integrity_check",
        );
        assert_eq!(facts, format!("{SUM}\n0\nok\n"), "run {run}");
        std::fs::remove_file(shop.path(&name)).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    writing.await.unwrap();
    assert!(during > 0, "nothing was written while the backups ran: the test proves nothing");
    println!("{during} transactions were committed while the 20 backups ran");
}

#[tokio::test]
async fn a_locked_database_and_a_damaged_one_are_named_and_nothing_is_committed() {
    let shop = Shop::new().await;
    // In rollback mode an exclusive lock keeps readers out.
    let db = shop.path("shop.db");
    sqlite3(&db, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    let mut holder = SqliteConnection::connect(&format!("sqlite:{}", db.display())).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut holder).await.unwrap();
    let e = shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::SourceBusy, "{e}");
    assert!(e.is_retryable() && e.to_string().contains("shop.db"));
    sqlx::query("ROLLBACK").execute(&mut holder).await.unwrap();

    // Pages in the middle of a table.
    let broken = shop.path("broken.db");
    sqlite3(
        &broken,
        "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO t SELECT hex(randomblob(100)) FROM n;",
    );
    let mut bytes = std::fs::read(&broken).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096 * 20].fill(0xff);
    std::fs::write(&broken, bytes).unwrap();
    let e = shop.repository.backup(&shop.source("broken.db"), BackupOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::SourceCorrupt, "{e}");

    std::fs::write(shop.path("text.db"), "this is no database, it only has the name of one").unwrap();
    let e = shop.repository.backup(&shop.source("text.db"), BackupOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::SourceCorrupt, "{e}");
    let e = shop.repository.backup(&shop.source("none.db"), BackupOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::SourceMissing, "{e}");
    assert!(!shop.path("none.db").exists());

    assert!(shop.repository.catalog().await.unwrap().snapshots.is_empty());
    assert!(std::fs::read_dir(shop.store().join("locks")).unwrap().next().is_none(), "no lease is left");
}
