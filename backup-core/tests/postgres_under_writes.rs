//! A shop on PostgreSQL that goes on trading, migrating and failing while it is backed up.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backup_core::futures::StreamExt;
use backup_core::{
    BackupOptions, CaptureContext, ErrorKind, Only, Piece, PostgresSource, PostgresTarget, RestoreOptions, Source,
};
use sqlx::{Connection, PgConnection};
use storefront::postgres::{PASSWORD, Server, open, run};
use support::Shop;

const ACCOUNTS: i64 = 2_000;
const SUM: i64 = ACCOUNTS * 1_000;
const SCHEMA: &str = "CREATE TABLE items(id bigserial PRIMARY KEY, order_id bigint NOT NULL, amount bigint);
    CREATE TABLE accounts(id bigint PRIMARY KEY, balance bigint NOT NULL, pad text);
    CREATE TABLE orders(id bigserial PRIMARY KEY, note text);
    ALTER TABLE items ADD FOREIGN KEY (order_id) REFERENCES orders;
    CREATE TABLE logs(n int);
    INSERT INTO logs SELECT generate_series(1, 100);
    INSERT INTO accounts SELECT i, 1000, repeat(md5(i::text), 12) FROM generate_series(1, 2000) i;";

async fn trade(db: &mut PgConnection, rng: &mut fastrand::Rng) -> Result<(), sqlx::Error> {
    let (from, to, amount) = (rng.i64(1..=ACCOUNTS), rng.i64(1..=ACCOUNTS), rng.i64(1..50));
    let mut tx = db.begin().await?;
    for (id, change) in [(from, -amount), (to, amount)] {
        sqlx::query("UPDATE accounts SET balance = balance + $1 WHERE id = $2")
            .bind(change)
            .bind(id)
            .execute(&mut *tx)
            .await?;
    }
    let id: i64 = sqlx::query_scalar("INSERT INTO orders(note) VALUES ('x') RETURNING id").fetch_one(&mut *tx).await?;
    sqlx::query("INSERT INTO items(order_id, amount) SELECT $1, 1 FROM generate_series(1, 3)")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    let old = rng.i64(1..=id);
    sqlx::query("DELETE FROM items WHERE order_id = $1").bind(old).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM orders WHERE id = $1").bind(old).execute(&mut *tx).await?;
    tx.commit().await
}

async fn trader(url: String, stop: Arc<AtomicBool>, writes: Arc<AtomicU64>) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut db = open(&url).await.unwrap();
    while !stop.load(Ordering::SeqCst) {
        trade(&mut db, &mut rng).await.unwrap();
        writes.fetch_add(1, Ordering::SeqCst);
    }
}

/// Empties and refills a table, rewrites another, makes and drops a third, again and again.
async fn migrate(url: String, stop: Arc<AtomicBool>, changes: Arc<AtomicU64>) {
    let mut db = open(&url).await.unwrap();
    run(&mut db, "SET lock_timeout = '20s'").await.unwrap();
    while !stop.load(Ordering::SeqCst) {
        run(&mut db, "BEGIN; TRUNCATE logs; INSERT INTO logs SELECT generate_series(1, 100); COMMIT").await.unwrap();
        run(&mut db, "ALTER TABLE accounts ADD COLUMN extra int DEFAULT 5; ALTER TABLE accounts ALTER COLUMN pad TYPE varchar; ALTER TABLE accounts ALTER COLUMN pad TYPE text; ALTER TABLE accounts DROP COLUMN extra").await.unwrap();
        run(&mut db, "CREATE TABLE passing(x int); DROP TABLE passing").await.unwrap();
        changes.fetch_add(1, Ordering::SeqCst);
        // A migration every now and then, not a storm of them.
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_backups_under_writes_and_migrations_are_each_one_instant() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    server.psql("shop", SCHEMA).unwrap();
    let shop = Shop::new().await;
    let (stop, writes, changes) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let trading = tokio::spawn(trader(url.clone(), Arc::clone(&stop), Arc::clone(&writes)));
    let migrating = tokio::spawn(migrate(url.clone(), Arc::clone(&stop), Arc::clone(&changes)));
    let source = PostgresSource::new(&url).unwrap().without_roles();
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
        let target = PostgresTarget::new(&server.url(&name)).unwrap();
        let report = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap();
        assert!(report.is_equal());
        // The foreign key was made again after the rows, so it holds.
        let facts = server
            .psql(&name, "SELECT sum(balance) FROM accounts; SELECT count(*) FROM logs; SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated")
            .unwrap();
        assert_eq!(facts, format!("{SUM}\n100\n1\n"), "turn {turn}");
        server.psql("postgres", &format!("DROP DATABASE {name}")).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    trading.await.unwrap();
    migrating.await.unwrap();
    println!("{whole} of 20 backups, {during} transactions and migrations meanwhile");
    assert!(whole >= 10 && during > 0 && changes.load(Ordering::SeqCst) > 5);
}

/// Sessions of ours that still hold something.
fn left_behind(server: &Server) -> String {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('caretaker', 'pg_dump') AND (state <> 'idle' OR xact_start IS NOT NULL)";
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let left = server.psql("postgres", sql).unwrap();
        if left == "0\n" || Instant::now() > until {
            return left;
        }
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_in_the_way_gives_way() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    server.psql("shop", SCHEMA).unwrap();
    let source = PostgresSource::new(&url).unwrap().with_lock_wait(Duration::from_millis(700));
    let mut capture = source.capture(CaptureContext::default()).await.unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = capture.next().await.unwrap() {
        entries.push(entry);
    }
    // Reading and writing go on; a migration waits, and whoever comes after it does too, but not for long.
    let mut db = open(&url).await.unwrap();
    run(&mut db, "INSERT INTO logs VALUES (1)").await.unwrap();
    let began = Instant::now();
    run(&mut db, "ALTER TABLE orders ADD COLUMN more int").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500), "it had to wait: the table was locked");
    let mut broken = None;
    for mut entry in entries {
        while let Some(piece) = entry.body.next().await {
            if let Err(e) = piece {
                broken.get_or_insert(e);
            }
        }
    }
    let e = broken.expect("what is read after the snapshot is gone must not look whole");
    assert!(e.kind() == ErrorKind::SourceBusy && e.to_string().contains("orders"), "{e}");
    assert_eq!(capture.finish().await.unwrap_err().kind(), ErrorKind::SourceBusy);
    assert_eq!(left_behind(&server), "0\n");

    // Somebody who holds a table for longer is named as such.
    let mut holder = open(&url).await.unwrap();
    run(&mut holder, "BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let shop = Shop::new().await;
    let quick = source.clone().with_lock_wait(Duration::from_millis(100));
    let e = shop.repository.backup(&quick, BackupOptions::default()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::SourceBusy && e.is_retryable(), "{e:?}");
    assert!(shop.repository.catalog().await.unwrap().snapshots.is_empty());
    assert_eq!(left_behind(&server), "0\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_or_server_is_no_snapshot() {
    let mut server = Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    storefront::postgres::create(&url, &storefront::Size::orders(20_000), 1).await.unwrap();
    let shop = Shop::new().await;
    let source = PostgresSource::new(&url).unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut broken = 0;
    for turn in 0..30 {
        let backup = shop.repository.backup(&source, BackupOptions::default());
        tokio::pin!(backup);
        // One of the sessions, pg_dump's among them, somewhere in the run.
        let delay = Duration::from_millis(rng.u64(0..700));
        let result = tokio::select! {
            result = &mut backup => result,
            () = tokio::time::sleep(delay) => {
                let nth = rng.u64(0..4);
                server.psql("postgres", &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ('caretaker', 'pg_dump') ORDER BY backend_start OFFSET {nth} LIMIT 1")).unwrap();
                backup.await
            }
        };
        if let Err(e) = result {
            broken += 1;
            assert!(
                !e.to_string().is_empty() && matches!(e.kind(), ErrorKind::Source | ErrorKind::SourceMissing),
                "turn {turn}: {e:?}"
            );
        }
        assert_eq!(left_behind(&server), "0\n", "turn {turn}");
    }
    println!("{broken} of 30 runs were broken");
    assert!(broken >= 5, "too few runs were broken to prove anything");
    // What is listed restores.
    let catalog = shop.repository.catalog().await.unwrap();
    assert_eq!(catalog.snapshots.len(), 30 - broken);
    if let Some(last) = catalog.snapshots.last() {
        let target = PostgresTarget::new(&server.url("restored")).unwrap();
        assert!(shop.repository.restore(last, &target, RestoreOptions::default()).await.unwrap().is_equal());
    }

    // The whole server, in the middle of a table.
    let mut capture = source.capture(CaptureContext::default()).await.unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = capture.next().await.unwrap() {
        entries.push(entry);
    }
    let mut first = entries.into_iter().find(|e| e.name == "data/public.payments").unwrap().body;
    assert!(matches!(first.next().await, Some(Ok(Piece::Bytes(_)))));
    server.crash().unwrap();
    let mut failed = false;
    while let Some(piece) = first.next().await {
        failed |= piece.is_err();
    }
    assert!(failed, "a table that was cut short must not look whole");
    assert!(capture.finish().await.is_err());
    let e = shop.repository.backup(&source, BackupOptions::default()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::SourceMissing && e.is_retryable(), "{e:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_tls_and_rights_work_or_are_named() {
    let server = Server::start().await.unwrap();
    server.database("shop").await.unwrap();
    server.psql("shop", SCHEMA).unwrap();
    server
        .psql("shop", "GRANT pg_read_all_data TO shop; CREATE TABLE secrets(x int); CREATE EXTENSION citext")
        .unwrap();
    let shop = Shop::new().await;
    let encoded = "p%40ss%3A%2F%25%20word%3F%23";
    assert_eq!(PASSWORD, "p@ss:/% word?#");
    let ca = server.authority();
    let url = |password: &str, more: &str| {
        format!("postgres://shop:{password}@{}/shop?sslmode=verify-full&{more}", server.host())
    };
    let own_ca = format!("sslrootcert={}", ca.display());
    let backup = async |source: PostgresSource| shop.repository.backup(&source, BackupOptions::default()).await;
    let source = |url: &str| PostgresSource::new(url).unwrap().named("shop");

    // A role that is no superuser, over TLS that is checked to the end.
    let snapshot = backup(source(&url(encoded, &own_ca))).await.unwrap();
    assert_eq!(snapshot.manifest.problems, []);
    assert!(!serde_json::to_string(&snapshot.manifest).unwrap().contains(PASSWORD));

    let e = backup(source(&url(encoded, ""))).await.unwrap_err();
    assert!(e.kind() == ErrorKind::SourceMissing && e.next_step().unwrap().contains("sslrootcert"), "{e:?}");
    let e = backup(source(&url("wr0ng", &own_ca))).await.unwrap_err();
    assert!(
        e.kind() == ErrorKind::SourceMissing && e.to_string().contains("password") && !e.to_string().contains("wr0ng"),
        "{e:?}"
    );
    let e = backup(source(&url(encoded, &own_ca).replace("/shop?", "/shpo?"))).await.unwrap_err();
    assert!(e.to_string().contains("shpo"), "{e}");

    // A table it may not read.
    server.psql("shop", "REVOKE pg_read_all_data FROM shop; GRANT SELECT ON ALL TABLES IN SCHEMA public TO shop; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO shop; REVOKE SELECT ON secrets FROM shop").unwrap();
    let e = backup(source(&url(encoded, &own_ca))).await.unwrap_err();
    assert!(e.to_string().contains("secrets") && e.next_step().unwrap().contains("pg_read_all_data"), "{e:?}");
    // One of which it would see a part: a silent subset is refused.
    server.psql("shop", "GRANT SELECT ON secrets TO shop; ALTER TABLE logs ENABLE ROW LEVEL SECURITY").unwrap();
    let e = backup(source(&url(encoded, &own_ca))).await.unwrap_err();
    assert!(e.to_string().contains("row-level security") && e.to_string().contains("logs"), "{e:?}");
    server.psql("shop", "ALTER TABLE logs DISABLE ROW LEVEL SECURITY").unwrap();

    // pg_dump that is not there, or older than the server.
    let empty = tempfile::tempdir().unwrap();
    let e = backup(source(&url(encoded, &own_ca)).with_programs(empty.path())).await.unwrap_err();
    assert!(e.to_string().contains("pg_dump is not installed"), "{e}");
    let old = empty.path().join("pg_dump");
    std::fs::write(&old, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n").unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
    let e = backup(source(&url(encoded, &own_ca)).with_programs(empty.path())).await.unwrap_err();
    assert!(e.to_string().contains("9.6.24") && e.to_string().contains("refuses newer servers"), "{e}");
    let catalog = shop.repository.catalog().await.unwrap();
    assert_eq!(catalog.snapshots.len(), 1, "nothing was committed after any of these");

    // A role without any right but to make databases restores it, and says what it left out.
    server.psql("postgres", "ALTER ROLE shop CREATEDB; CREATE ROLE gone").unwrap();
    server.psql("shop", "ALTER TABLE orders OWNER TO gone; GRANT SELECT ON logs TO gone").unwrap();
    let snapshot = backup(source(&server.url("shop"))).await.unwrap();
    server.psql("shop", "REASSIGN OWNED BY gone TO postgres; DROP OWNED BY gone; DROP ROLE gone").unwrap();
    let target = PostgresTarget::new(&url(encoded, &own_ca).replace("/shop?", "/anew?")).unwrap();
    let report = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap();
    assert!(
        report.is_equal() && report.notes.iter().any(|n| n.contains("role gone does not exist")),
        "{:?}",
        report.notes
    );
    assert_eq!(server.psql("anew", "SELECT sum(balance) FROM accounts").unwrap(), format!("{SUM}\n"));
    // A drill leaves owners and grants out, and no database behind.
    let scratch = PostgresTarget::new(&url(encoded, &own_ca).replace("/shop?", "/scratch?")).unwrap();
    let options = backup_core::DrillOptions::default()
        .with_invariants("-- the sum of the money\nSELECT 1 FROM accounts HAVING sum(balance) <> 2000000;\n-- no order\nSELECT id FROM accounts WHERE id < 3;");
    let drill = shop.repository.drill(&snapshot, &scratch, options).await.unwrap();
    assert!(drill.restore.is_equal(), "{:?}", drill.restore);
    assert_eq!(drill.invariants.iter().map(|i| i.holds()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'scratch'").unwrap(), "0\n");
    // Into an empty database of its own, with the extension that only the server's owner could make.
    server.psql("postgres", "CREATE DATABASE prepared OWNER shop").unwrap();
    server.psql("prepared", "CREATE EXTENSION citext").unwrap();
    let prepared = PostgresTarget::new(&url(encoded, &own_ca).replace("/shop?", "/prepared?")).unwrap();
    let drill = shop.repository.drill(&snapshot, &prepared, backup_core::DrillOptions::default()).await.unwrap();
    assert!(drill.passed(), "{:?}", drill.restore);
    assert_eq!(server.psql("prepared", "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace; SELECT count(*) FROM pg_extension").unwrap(), "0\n2\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_table_comes_back_into_a_database_that_lives_on() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    storefront::postgres::create(&url, &storefront::Size::orders(500), 1).await.unwrap();
    let shop = Shop::new().await;
    let target = PostgresTarget::new(&url).unwrap();
    let only = |glob: &str| RestoreOptions::default().only(Some(Only::new(glob).unwrap()));
    server.psql("shop", "CREATE ROLE clerk; GRANT SELECT (id, amount), INSERT ON payments TO clerk; ALTER TABLE payments ENABLE ROW LEVEL SECURITY; CREATE POLICY all_of_it ON payments USING (true); COMMENT ON COLUMN payments.amount IS 'in pounds'; CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; CREATE TRIGGER off BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION quiet(); ALTER TABLE payments DISABLE TRIGGER off").unwrap();
    let snapshot = shop.repository.backup(&PostgresSource::new(&url).unwrap(), BackupOptions::default()).await.unwrap();
    let before = server.dump("shop", &[]).unwrap();

    // Dropped by mistake: the table, its sequence, keys, indexes and triggers.
    for (table, sequence) in [("payments", "payments_id_seq"), ("cart_items", "carts_id_seq")] {
        server.psql("shop", &format!("DROP TABLE {table}")).unwrap();
        let report = shop.repository.restore(&snapshot, &target, only(table)).await.unwrap();
        assert!(report.is_equal());
        assert!(server.dump("shop", &["-t", table, "-t", sequence]).unwrap().lines().count() > 20);
        assert_eq!(server.dump("shop", &[]).unwrap(), before, "{table}");
    }
    // All of it or nothing: an index of that name is in the way.
    server.psql("shop", "DROP TABLE payments; CREATE INDEX payments_order ON orders (id)").unwrap();
    let e = shop.repository.restore(&snapshot, &target, only("payments")).await.unwrap_err();
    assert!(e.to_string().contains("payments_order"), "{e}");
    assert_eq!(server.psql("shop", "SELECT to_regclass('payments') IS NULL").unwrap(), "t\n");
    server.psql("shop", "DROP INDEX payments_order").unwrap();
    shop.repository.restore(&snapshot, &target, only("payments")).await.unwrap();
    assert_eq!(server.dump("shop", &[]).unwrap(), before);
    // A partition alone would be none.
    server
        .psql("shop", "BEGIN; CREATE TABLE kept AS SELECT * FROM email_log_2025; DROP TABLE email_log_2025; COMMIT")
        .unwrap();
    let e = shop.repository.restore(&snapshot, &target, only("email_log_2025")).await.unwrap_err();
    assert!(e.to_string().contains("partition"), "{e}");
    // Emptied, its counter too: numbers go on where they were.
    server.psql("shop", "TRUNCATE payments RESTART IDENTITY").unwrap();
    shop.repository.restore(&snapshot, &target, only("payments")).await.unwrap();
    assert_eq!(server.psql("shop", "SELECT nextval('payments_id_seq') > max(id) FROM payments").unwrap(), "t\n");
    let off = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'off'";
    assert_eq!(server.psql("shop", off).unwrap(), "D\n", "a trigger that was off stays off");
    let e = shop.repository.restore(&snapshot, &target, only("{orders,payments}").clean(true)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::TargetNotEmpty && e.to_string().contains("refers to"), "{e}");
    // Rows changed by mistake.
    server.psql("shop", "UPDATE payments SET amount = 0; DELETE FROM payments WHERE id % 2 = 0").unwrap();
    let e = shop.repository.restore(&snapshot, &target, only("payments")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TargetNotEmpty);
    shop.repository.restore(&snapshot, &target, only("payments").clean(true)).await.unwrap();
    assert_eq!(server.psql("shop", "SELECT sum(amount), count(*) FROM payments").unwrap(), {
        server.database("other").await.unwrap();
        let whole = PostgresTarget::new(&server.url("other")).unwrap();
        shop.repository.restore(&snapshot, &whole, RestoreOptions::default()).await.unwrap();
        server.psql("other", "SELECT sum(amount), count(*) FROM payments").unwrap()
    });
    // A table whose rows others hang on: nothing is deleted along.
    let e = shop.repository.restore(&snapshot, &target, only("carts").clean(true)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::TargetNotEmpty && e.to_string().contains("cart_items"), "{e}");
    assert_eq!(server.psql("shop", "SELECT count(*) > 0 FROM cart_items").unwrap(), "t\n");
}
