//! A shop on MariaDB that goes on trading, migrating and failing while it is backed up.

#![cfg(feature = "mysql")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backup_core::futures::StreamExt;
use backup_core::{
    BackupOptions, CaptureContext, ErrorKind, MysqlSource, MysqlTarget, Piece, RestoreOptions, Source, Tier,
};
use sqlx::{Connection, MySqlConnection};
use storefront::mysql::{PASSWORD, Server, open, run};
use support::Shop;

const SUM: &str = "2000000";
const SCHEMA: &str = "CREATE TABLE orders (id bigint AUTO_INCREMENT PRIMARY KEY, note text);
    CREATE TABLE items (id bigint AUTO_INCREMENT PRIMARY KEY, order_id bigint NOT NULL, amount bigint, FOREIGN KEY (order_id) REFERENCES orders (id));
    CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL, pad text);
    CREATE TABLE logs (n int) ENGINE=InnoDB;
    CREATE TABLE visits (n int PRIMARY KEY, account bigint) ENGINE=MyISAM;
    CREATE TABLE clicks (n int PRIMARY KEY, account bigint) ENGINE=MyISAM;";

/// The schema with its first rows. On MariaDB `clicks` is of its other engine without transactions.
fn fill(server: &Server) {
    let schema = if server.is_mariadb() {
        SCHEMA.replace(
            "clicks (n int PRIMARY KEY, account bigint) ENGINE=MyISAM",
            "clicks (n int PRIMARY KEY, account bigint) ENGINE=Aria",
        )
    } else {
        SCHEMA.to_owned()
    };
    let rows = format!(
        "INSERT INTO logs SELECT seq FROM {}; INSERT INTO accounts SELECT seq, 1000, repeat(sha2(seq, 256), 6) FROM {};",
        server.numbers(100),
        server.numbers(2000)
    );
    server.sql("shop", &format!("{schema}{rows}")).unwrap();
}

async fn trade(db: &mut MySqlConnection, rng: &mut fastrand::Rng) -> Result<(), sqlx::Error> {
    let (from, to, amount) = (rng.i64(1..=2000), rng.i64(1..=2000), rng.i64(1..50));
    let mut tx = db.begin().await?;
    // In one order, so that two of them never wait for each other.
    let mut changes = [(from, -amount), (to, amount)];
    changes.sort_unstable();
    for (id, change) in changes {
        let sql = "UPDATE accounts SET balance = balance + ? WHERE id = ?";
        sqlx::query(sql).bind(change).bind(id).execute(&mut *tx).await?;
    }
    let id = sqlx::query("INSERT INTO orders (note) VALUES ('x')").execute(&mut *tx).await?.last_insert_id();
    sqlx::query("INSERT INTO items (order_id, amount) VALUES (?, 1), (?, 2)")
        .bind(id)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    let old = rng.u64(1..=id);
    sqlx::query("DELETE FROM items WHERE order_id = ?").bind(old).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM orders WHERE id = ?").bind(old).execute(&mut *tx).await?;
    tx.commit().await
}

async fn trader(url: String, stop: Arc<AtomicBool>, writes: Arc<AtomicU64>) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut db = open(&url).await.unwrap();
    let mut deadlocks = 0;
    while !stop.load(Ordering::SeqCst) {
        match trade(&mut db, &mut rng).await {
            Ok(()) => writes.fetch_add(1, Ordering::SeqCst),
            // MySQL, where a migration, the shop and FLUSH TABLES WITH READ LOCK meet: seldom, and a shop tries again.
            Err(e) if e.as_database_error().is_some_and(|e| e.code().as_deref() == Some("40001")) => {
                deadlocks += 1;
                continue;
            }
            Err(e) => panic!("{e}"),
        };
    }
    println!("{deadlocks} of the shop's transactions had to be tried again");
    assert!(deadlocks <= 2);
}

/// Empties and refills a table, rewrites another, makes and drops a third, again and again.
async fn migrate(url: String, stop: Arc<AtomicBool>, changes: Arc<AtomicU64>) {
    let mut db = open(&url).await.unwrap();
    let rows: Vec<String> = (1..=100).map(|n| format!("({n})")).collect();
    let rows = format!("INSERT INTO fresh VALUES {}", rows.join(", "));
    while !stop.load(Ordering::SeqCst) {
        // Refilled elsewhere and put in place at once: nobody ever sees it empty.
        run(&mut db, "CREATE TABLE fresh LIKE logs").await.unwrap();
        run(&mut db, &rows).await.unwrap();
        run(&mut db, "RENAME TABLE logs TO stale, fresh TO logs").await.unwrap();
        run(&mut db, "DROP TABLE stale").await.unwrap();
        run(&mut db, "ALTER TABLE accounts ADD COLUMN extra int DEFAULT 5, ALGORITHM=COPY").await.unwrap();
        run(&mut db, "ALTER TABLE accounts DROP COLUMN extra").await.unwrap();
        changes.fetch_add(1, Ordering::SeqCst);
        // A migration every now and then, not a storm of them.
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_backups_under_writes_and_migrations_are_each_one_instant() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    fill(&server);
    let shop = Shop::new().await;
    let (stop, writes, changes) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let trading = tokio::spawn(trader(url.clone(), Arc::clone(&stop), Arc::clone(&writes)));
    let migrating = tokio::spawn(migrate(url.clone(), Arc::clone(&stop), Arc::clone(&changes)));
    let source = MysqlSource::new(&url).unwrap().without_users();
    let (mut whole, mut during) = (0, 0);
    for turn in 0..20 {
        let before = writes.load(Ordering::SeqCst) + changes.load(Ordering::SeqCst);
        let snapshot = match shop.repository.backup(&source, BackupOptions::default()).await {
            Ok(snapshot) => snapshot,
            Err(e) => {
                assert!(e.kind() == ErrorKind::SourceBusy && e.is_retryable(), "{e:?}");
                println!("turn {turn}: {e}");
                continue;
            }
        };
        during += writes.load(Ordering::SeqCst) + changes.load(Ordering::SeqCst) - before;
        whole += 1;
        let name = format!("restored_{turn}");
        let target = MysqlTarget::new(&server.url(&name)).unwrap();
        let report = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap();
        assert!(report.is_equal());
        let facts = server
            .sql(&name, "SELECT sum(balance) FROM accounts; SELECT count(*) FROM logs; SELECT count(*) FROM items i LEFT JOIN orders o ON o.id = i.order_id WHERE o.id IS NULL")
            .unwrap();
        assert_eq!(facts, format!("{SUM}\n100\n0\n"), "turn {turn}");
        server.sql("", &format!("DROP DATABASE {name}")).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    trading.await.unwrap();
    migrating.await.unwrap();
    println!("{whole} of 20 backups, {during} transactions and migrations meanwhile");
    assert!(whole >= 10 && during > 0 && changes.load(Ordering::SeqCst) > 5);
}

/// A table without transactions is locked before the instant, so that it is of the same instant as the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_transactions_is_of_the_same_instant() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    fill(&server);
    let shop = Shop::new().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (url, stop) = (url.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut db = open(&url).await.unwrap();
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                // First here, then there: a snapshot may have one visit more than orders, never fewer.
                n += 1;
                run(&mut db, &format!("INSERT INTO visits VALUES ({n}, 1)")).await.unwrap();
                run(&mut db, &format!("INSERT INTO orders (note) VALUES ('{n}')")).await.unwrap();
                run(&mut db, &format!("INSERT INTO clicks VALUES ({n}, 1)")).await.unwrap();
            }
            n
        })
    };
    let source = MysqlSource::new(&url).unwrap().without_users();
    for _ in 0..5 {
        let snapshot = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
        assert_eq!(snapshot.manifest.problems, []);
        let rows = |name: &str| snapshot.manifest.entry(name).unwrap().fingerprint.rows();
        let ahead = rows("data/visits") - rows("data/orders");
        assert!(ahead <= 1, "{ahead} visits are ahead of their orders");
        let behind = rows("data/orders") - rows("data/clicks");
        assert!(behind <= 1, "{behind} clicks are behind their orders");
    }
    // A tier without such tables does not keep anybody from writing to them.
    let tier = source.clone().only_tier(Tier::new("t", &["orders"]).unwrap()).with_lock_wait(Duration::from_secs(60));
    let mut capture = tier.capture(CaptureContext::default()).await.unwrap();
    let mut db = open(&url).await.unwrap();
    run(&mut db, "SET lock_wait_timeout = 5").await.unwrap();
    run(&mut db, "INSERT INTO visits VALUES (-1, 1)").await.unwrap();
    while let Some(mut entry) = capture.next().await.unwrap() {
        while let Some(piece) = entry.body.next().await {
            piece.unwrap();
        }
    }
    capture.finish().await.unwrap();
    stop.store(true, Ordering::SeqCst);
    assert!(writing.await.unwrap() > 5);
}

/// Sessions of ours that still hold something.
fn left_behind(server: &Server) -> String {
    let sql = "SELECT count(*) FROM information_schema.INNODB_TRX; SELECT count(*) FROM information_schema.PROCESSLIST WHERE db = 'shop'";
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let left = server.sql("", sql).unwrap();
        if left == "0\n0\n" || Instant::now() > until {
            return left;
        }
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_in_the_way_gives_way() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    fill(&server);
    let source = MysqlSource::new(&url).unwrap().without_users().with_lock_wait(Duration::from_secs(2));
    let mut capture = source.capture(CaptureContext::default()).await.unwrap();
    // Read nothing for now: a store that hangs. Somebody wants to change a table.
    let altering = {
        let url = url.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let mut db = open(&url).await.unwrap();
            run(&mut db, "ALTER TABLE accounts ADD COLUMN extra int").await.unwrap();
            began.elapsed()
        })
    };
    let waited = altering.await.unwrap();
    println!("the migration waited for {waited:?}");
    let mut failure = None;
    while failure.is_none() {
        match capture.next().await {
            Err(e) => failure = Some(e),
            Ok(None) => break,
            Ok(Some(mut entry)) => {
                while let Some(piece) = entry.body.next().await {
                    if let Err(e) = piece {
                        failure = Some(e);
                        break;
                    }
                }
            }
        }
    }
    let e = failure.expect("the backup went on as if nothing had happened");
    assert!(e.kind() == ErrorKind::SourceBusy && e.is_retryable(), "{e:?}");
    assert!(e.to_string().contains("gave way"), "{e}");
    drop(capture);
    assert_eq!(left_behind(&server), "0\n0\n");
}

/// The server hangs up on whoever does not read for `net_write_timeout`, and a store may well be that slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_does_not_cost_the_backup() {
    let server = Server::start_with(&["--net-write-timeout=1"]).await.unwrap();
    let url = server.database("shop").unwrap();
    let sql = format!(
        "CREATE TABLE pads (n int PRIMARY KEY, pad text); INSERT INTO pads SELECT seq, repeat('x', 1000) FROM {}",
        server.numbers(20_000)
    );
    server.sql("shop", &sql).unwrap();
    let source = MysqlSource::new(&url).unwrap().without_users().with_connections(1);
    let mut capture = source.capture(CaptureContext::default()).await.unwrap();
    let mut rows = 0;
    while let Some(mut entry) = capture.next().await.unwrap() {
        while let Some(piece) = entry.body.next().await {
            let Piece::Bytes(bytes) = piece.unwrap() else { panic!("rows are bytes") };
            if entry.name == "data/pads" {
                if rows == 0 {
                    // Not to wait for anything: this is how slow the store is.
                    tokio::time::sleep(Duration::from_secs(4)).await;
                }
                rows += bytes.iter().filter(|b| **b == b'\n').count();
            }
        }
    }
    capture.finish().await.unwrap();
    assert_eq!(rows, 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_or_server_is_no_snapshot() {
    let mut server = Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    fill(&server);
    server.sql("shop", &format!("INSERT INTO logs SELECT seq FROM {}", server.numbers(3_000_000))).unwrap();
    let shop = Shop::new().await;
    let source = MysqlSource::new(&url).unwrap().without_users();
    // Somebody ends one of its sessions in the middle of a table.
    let killer = "SELECT GROUP_CONCAT('KILL ', id SEPARATOR ';') FROM information_schema.PROCESSLIST WHERE db = 'shop' AND info LIKE 'SELECT %FROM `logs`%' AND info NOT LIKE '%LIMIT 0%'";
    let backup = shop.repository.backup(&source, BackupOptions::default());
    let kill = async {
        loop {
            let found = server.sql("", killer).unwrap();
            if found != "NULL\n" {
                server.sql("", &found).unwrap();
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (outcome, ()) = tokio::join!(backup, kill);
    let e = outcome.unwrap_err();
    println!("{e}");
    assert!(shop.repository.catalog().await.unwrap().snapshots.is_empty());
    assert_eq!(left_behind(&server), "0\n0\n");
    // The server itself goes away.
    let mut capture = source.capture(CaptureContext::default()).await.unwrap();
    let mut entry = loop {
        let entry = capture.next().await.unwrap().unwrap();
        if entry.name == "data/logs" {
            break entry;
        }
    };
    assert!(matches!(entry.body.next().await, Some(Ok(Piece::Bytes(_)))));
    server.crash().unwrap();
    let mut failed = false;
    while let Some(piece) = entry.body.next().await {
        failed |= piece.is_err();
    }
    assert!(failed, "a table was cut short without a word");
    let e = shop.repository.backup(&source, BackupOptions::default()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::SourceMissing && e.next_step().is_some(), "{e:?}");
    assert!(shop.repository.catalog().await.unwrap().snapshots.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_tls_and_rights_work_or_are_named() {
    let server = Server::start().await.unwrap();
    server.database("shop").unwrap();
    fill(&server);
    server
        .sql(
            "shop",
            "CREATE TRIGGER t BEFORE INSERT ON logs FOR EACH ROW SET new.n = new.n; CREATE PROCEDURE p() SELECT 1",
        )
        .unwrap();
    let shop = Shop::new().await;
    let url = |password: &str, more: &str| format!("mysql://shop:{password}@{}/shop?{more}", server.host());
    let escaped = "p%40ss%3A%2F%25%20word%3F%23";
    assert_eq!(PASSWORD, "p@ss:/% word?#");
    let authority = server.authority();
    let verify = format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={}", authority.display());
    let backup = async |url: &str| {
        let source = MysqlSource::new(url).unwrap().named("shop");
        shop.repository.backup(&source, BackupOptions::default()).await
    };
    // No right at all, then SELECT only: one session, and what it cannot see is said.
    let e = backup(&url(escaped, &verify)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Source && e.next_step().unwrap().contains("SELECT"), "{e:?}");
    server.sql("", "GRANT SELECT ON shop.* TO shop@'%'").unwrap();
    let snapshot = backup(&url(escaped, &verify)).await.unwrap();
    let said: Vec<String> = snapshot.manifest.problems.iter().map(|p| format!("{}: {}", p.subject, p.reason)).collect();
    for what in ["triggers", "events", "routines", "visits", "waiting sessions", "users"] {
        assert!(said.iter().any(|s| s.starts_with(what)), "{what} is missing in {said:?}");
    }
    assert!(snapshot.manifest.position.unwrap().contains("one session"));
    // One table only: the server hides the others instead of refusing them.
    server.sql("", "REVOKE SELECT ON shop.* FROM shop@'%'; GRANT SELECT ON shop.orders TO shop@'%'").unwrap();
    let snapshot = backup(&url(escaped, &verify)).await.unwrap();
    assert!(
        snapshot.manifest.problems.iter().any(|p| p.subject == "tables and columns"),
        "{:?}",
        snapshot.manifest.problems
    );
    server.sql("", "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, RELOAD, PROCESS ON *.* TO shop@'%'").unwrap();
    let snapshot = backup(&url(escaped, &verify)).await.unwrap();
    assert_eq!(snapshot.manifest.problems, []);
    let users = snapshot.manifest.entry("globals/users").unwrap();
    assert!(users.fingerprint.rows() > 2);
    let target = MysqlTarget::new(&server.url("restored")).unwrap();
    assert!(shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap().is_equal());
    assert_eq!(server.sql("restored", "SHOW TRIGGERS").unwrap().lines().count(), 1);

    // Without TLS the password may still not be read by whoever listens: MySQL's own method asks for TLS, or says so.
    let open_line = backup(&url(escaped, "ssl-mode=DISABLED")).await;
    println!("without TLS: {:?}", open_line.as_ref().map(|s| s.id.to_string()));
    if let Err(e) = &open_line {
        assert!(e.next_step().is_some_and(|n| n.contains("ssl-mode")), "{e:?}");
    }

    // Wrong in one way after the other; no message holds the password.
    let before = shop.repository.catalog().await.unwrap().snapshots.len();
    let wrong = [
        (url("wrong", &verify), ErrorKind::SourceMissing, "password"),
        (url(escaped, "ssl-mode=VERIFY_IDENTITY"), ErrorKind::SourceMissing, "ssl-ca"),
        (url(escaped, &verify).replace("/shop?", "/nowhere?"), ErrorKind::SourceMissing, "name"),
        (url(escaped, "").replace(&server.host(), "localhost:1"), ErrorKind::SourceMissing, "server runs"),
    ];
    for (url, kind, next) in wrong {
        let e = backup(&url).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e:?}");
        assert!(e.next_step().is_some_and(|n| n.contains(next)), "{e:?}");
        assert!(!format!("{e:?}").contains("word?#"), "{e:?}");
    }
    assert_eq!(shop.repository.catalog().await.unwrap().snapshots.len(), before);
}
