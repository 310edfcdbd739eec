//! The sample shop with its planted faults, and its clean twin, on real servers: every fault is found and nothing else.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;

use db_maint::chrono::{TimeDelta, Utc};
use db_maint::{Engine, ErrorKind, History, InspectOptions, Inspection, NodeRole, Outcome, Severity, open};
use storefront::pgbouncer::PgBouncer;
use storefront::{Size, faults, mysql, postgres, sqlite};

/// In so long that every window has passed.
fn later() -> InspectOptions {
    InspectOptions::default().at(Utc::now() + TimeDelta::days(31))
}

/// Beside a look of just now: what happens from here on is what is judged.
async fn watched(shop: &dyn Engine, options: InspectOptions) -> InspectOptions {
    let mut history = History::default();
    history.push(shop.look().await.unwrap()).unwrap();
    options.with_history(history).with_pause(TimeDelta::zero())
}

fn found(inspection: &Inspection) -> Vec<(&str, &str)> {
    let found: BTreeSet<_> = inspection.findings().map(|f| (f.check.as_str(), f.object.as_str())).collect();
    found.into_iter().collect()
}

fn unknown(inspection: &Inspection) -> Vec<&str> {
    let checks: BTreeSet<_> = inspection.unknown().map(|(check, _)| check).collect();
    checks.into_iter().collect()
}

async fn on_postgres(url: &str, statements: &[&str]) {
    let mut db = postgres::open(url).await.unwrap();
    for sql in statements {
        match sql.strip_prefix('!') {
            Some(sql) => drop(postgres::run(&mut db, sql).await.unwrap_err()),
            None => postgres::run(&mut db, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")),
        }
    }
    // What it counted reaches the server with its end.
    sqlx::Connection::close(db).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_faults_are_found_and_the_clean_twin_is_clean() {
    let server = postgres::Server::start_with(&["shared_preload_libraries=pg_stat_statements"]).await.unwrap();
    let url = server.database("shop").await.unwrap();
    server.psql("shop", "CREATE EXTENSION pg_stat_statements").unwrap();
    postgres::create(&url, &Size::orders(2_000), 1).await.unwrap();
    let shop = open(&url).unwrap();
    on_postgres(&url, faults::POSTGRES.mend).await;
    on_postgres(&url, faults::POSTGRES.trade).await;
    quiet(&server).await;
    let options = watched(&*shop, later()).await;
    let clean = shop.inspect(&options).await.unwrap();
    assert!(clean.is_clean(), "{:#?} {:?}", found(&clean), clean.unknown().collect::<Vec<_>>());
    assert_eq!(clean.capabilities.role, NodeRole::Single);
    // Nothing is called unused before the window has passed.
    let now = shop.inspect(&watched(&*shop, InspectOptions::default()).await).await.unwrap();
    assert_eq!((found(&now), unknown(&now)), (vec![], vec!["index-unused"]));

    on_postgres(&url, faults::POSTGRES.plant).await;
    quiet(&server).await;
    // Before the first look there was none of it.
    let sick = shop.inspect(&later()).await.unwrap();
    assert_eq!(found(&sick), faults::POSTGRES.planted, "{:#?}", sick.findings().collect::<Vec<_>>());
    assert_eq!(sick.worst(), Some(Severity::Critical));
    // What is said to mend it does: every statement runs as it stands.
    for finding in sick.findings().filter(|f| f.check.starts_with("index-")) {
        let remedy = finding.remedy.as_deref().unwrap();
        // Two checks may name one index.
        let sql = remedy.replacen("DROP INDEX CONCURRENTLY", "DROP INDEX CONCURRENTLY IF EXISTS", 1);
        if sql.starts_with("DROP") {
            on_postgres(&url, &[&sql]).await;
        }
    }
    let mended = shop.inspect(&later()).await.unwrap();
    assert!(
        !found(&mended).iter().any(|(check, _)| ["index-duplicate", "index-redundant", "index-unused"].contains(check))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_role_without_rights_sees_the_schema_and_says_what_it_does_not_see() {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    postgres::create(&url, &Size::orders(100), 1).await.unwrap();
    on_postgres(&url, faults::POSTGRES.plant).await;
    let blind = open(&server.url_as("shop", "shop")).unwrap().inspect(&later()).await.unwrap();
    let seen = |check| blind.outcome(check).unwrap();
    for check in ["connections", "session-blocked", "transaction-long", "vacuum-held-back"] {
        assert!(matches!(seen(check), Outcome::Unknown { .. }), "{check}: {:?}", seen(check));
    }
    let Outcome::Unknown { remedy, .. } = seen("connections") else { panic!() };
    assert_eq!(remedy.as_deref(), Some("GRANT pg_monitor to this role"));
    assert!(found(&blind).contains(&("index-invalid", "public.addresses.addresses_country")));
    // It may not read sequences either, and does not take them for fresh ones.
    assert!(matches!(seen("counter-exhaustion"), Outcome::Unknown { .. }), "{:?}", seen("counter-exhaustion"));

    assert!(!blind.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_sessions_that_wait_are_traced_to_who_holds_them_up() {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    postgres::create(&url, &Size::orders(50), 1).await.unwrap();
    let mut holder = postgres::open(&url).await.unwrap();
    postgres::run(&mut holder, "BEGIN; UPDATE variants SET stock = 1 WHERE id = 1").await.unwrap();
    let waits = |sql: &'static str| {
        let url = url.clone();
        tokio::spawn(async move {
            let mut db = postgres::open(&url).await.unwrap();
            postgres::run(&mut db, sql).await.unwrap();
        })
    };
    let first = waits("UPDATE variants SET stock = 2 WHERE id = 1");
    until(&server, 1).await;
    let second = waits("ALTER TABLE variants ADD COLUMN colour text");
    until(&server, 2).await;
    let third = waits("SELECT count(*) FROM variants");
    until(&server, 3).await;
    let shop = open(&url).unwrap();
    let outcome = loop {
        let inspection = shop.inspect(&InspectOptions::default()).await.unwrap();
        let outcome = inspection.outcome("session-blocked").unwrap().clone();
        // From five seconds on.
        if !outcome.findings().is_empty() {
            break outcome;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    assert_eq!(outcome.findings().len(), 1, "{outcome:?}");
    assert_eq!(outcome.findings()[0].evidence["waiting"].as_array().unwrap().len(), 3, "{outcome:?}");
    let shown = serde_json::to_string(&outcome).unwrap();
    assert!(!shown.contains("colour") && !shown.contains("stock"), "SQL of others is shown: {shown}");
    postgres::run(&mut holder, "COMMIT").await.unwrap();
    for task in [first, second, third] {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_inspection_stays_in_a_session_that_a_pooler_gives_to_the_shop_next() {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    postgres::create(&url, &Size::orders(50), 1).await.unwrap();
    let pooler = PgBouncer::start(&server).await.unwrap();
    for _ in 0..2 {
        let through = open(&pooler.url("shop")).unwrap().inspect(&later()).await.unwrap();
        let blind: Vec<_> =
            through.unknown().filter(|(check, _)| !matches!(*check, "index-unused" | "slow-queries")).collect();
        assert!(blind.is_empty(), "{blind:?}");
        // The pool has one session: the shop gets it.
        let mut shop = postgres::open(&pooler.url("shop")).await.unwrap();
        postgres::run(&mut shop, "UPDATE variants SET stock = stock WHERE id = 1").await.unwrap();
        let sql = "SELECT current_setting('statement_timeout') || current_setting('lock_timeout') || \
            (SELECT count(*) FROM pg_prepared_statements)";
        let row = sqlx::Executor::fetch_one(&mut shop, sqlx::raw_sql(sql)).await.unwrap();
        assert_eq!(sqlx::Row::get::<String, _>(&row, 0), "000");
    }
}

/// Until every session has ended, and its counts have reached the server.
async fn quiet(server: &postgres::Server) {
    loop {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        if server.psql("shop", sql).unwrap().trim() == "0" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn until(server: &postgres::Server, waiting: usize) {
    loop {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        if server.psql("shop", sql).unwrap().trim() == waiting.to_string() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn on_mysql(url: &str, statements: &[&str]) {
    let mut db = mysql::open(url).await.unwrap();
    for sql in statements {
        mysql::run(&mut db, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_faults_are_found_and_the_clean_twin_is_clean() {
    let mut server = mysql::Server::start().await.unwrap();
    if server.is_mariadb() {
        // It counts only if it is told to, and says so where it does not.
        let url = server.database("shop").unwrap();
        mysql::create(&url, &Size::orders(50), 1).await.unwrap();
        let blind = open(&url).unwrap().inspect(&later()).await.unwrap();
        assert_eq!(unknown(&blind), ["foreign-key-violated", "index-unused", "slow-queries"]);
        assert_eq!(found(&blind), [("table-not-transactional", "sessions")]);
        server = mysql::Server::start_with(&[
            "--userstat=1",
            "--performance-schema=ON",
            "--performance-schema-consumer-statements-digest=ON",
        ])
        .await
        .unwrap();
    }
    let url = server.database("shop").unwrap();
    mysql::create(&url, &Size::orders(2_000), 1).await.unwrap();
    on_mysql(&url, faults::MYSQL.mend).await;
    on_mysql(&url, faults::MYSQL.trade).await;
    let shop = open(&url).unwrap();
    let clean = shop.inspect(&watched(&*shop, later().with_integrity(true)).await).await.unwrap();
    // Nobody counts searches in texts.
    let blind: Vec<_> = clean.unknown().collect();
    assert!(blind.iter().all(|(check, _)| *check == "index-unused"), "{blind:?}");
    assert!(blind[0].1.contains("nothing counts the use of products.products_search"), "{blind:?}");
    assert_eq!(found(&clean), []);

    on_mysql(&url, faults::MYSQL.plant).await;
    // MySQL counts the indexes of a table anew from each change of it on.
    on_mysql(&url, faults::MYSQL.trade).await;
    let sick = shop.inspect(&later().with_integrity(true)).await.unwrap();
    assert_eq!(found(&sick), faults::MYSQL.planted, "{:#?}", sick.findings().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_user_without_rights_says_what_it_does_not_see() {
    let server = mysql::Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    mysql::create(&url, &Size::orders(50), 1).await.unwrap();
    server.sql("", "CREATE USER crew; GRANT SELECT ON shop.* TO crew").unwrap();
    let blind = open(&server.url_as("crew", "shop")).unwrap().inspect(&later()).await.unwrap();
    for check in ["session-blocked", "transaction-long"] {
        let outcome = blind.outcome(check).unwrap();
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{check}: {outcome:?}");
    }
    assert_eq!(found(&blind), [("table-not-transactional", "sessions")]);
    assert_eq!(blind.capabilities.role, NodeRole::Unknown);
    assert!(!blind.is_clean());
    // Of the tables that it has no right on it is told nothing.
    server.sql("", "CREATE USER part; GRANT SELECT ON shop.orders TO part").unwrap();
    let part = open(&server.url_as("part", "shop")).unwrap().inspect(&later()).await.unwrap();
    for check in ["table-without-primary-key", "index-duplicate", "counter-exhaustion", "table-not-transactional"] {
        let outcome = part.outcome(check).unwrap();
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{check}: {outcome:?}");
    }
    server.database("empty").unwrap();
    let empty = open(&server.url("empty")).unwrap().inspect(&later()).await.unwrap();
    assert!(matches!(empty.outcome("index-duplicate"), Some(Outcome::Unknown { .. })), "{:?}", empty.checks);
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_sessions_that_wait_are_seen_whatever_the_zone_and_the_lock() {
    let server = mysql::Server::start_with(&["--default-time-zone=+05:00"]).await.unwrap();
    let url = server.database("shop").unwrap();
    mysql::create(&url, &Size::orders(50), 1).await.unwrap();
    let mut holder = mysql::open(&url).await.unwrap();
    mysql::run(&mut holder, "BEGIN").await.unwrap();
    mysql::run(&mut holder, "UPDATE variants SET stock = 1 WHERE id = 1").await.unwrap();
    let waits = |sql: &'static str| {
        let url = url.clone();
        tokio::spawn(async move {
            let mut db = mysql::open(&url).await.unwrap();
            mysql::run(&mut db, sql).await.unwrap();
        })
    };
    let row = waits("UPDATE variants SET stock = 2 WHERE id = 1");
    let table = waits("ALTER TABLE variants ADD COLUMN colour text");
    let shop = open(&url).unwrap();
    let inspection = loop {
        let inspection = shop.inspect(&InspectOptions::default()).await.unwrap();
        if inspection.outcome("session-blocked").unwrap().findings().len() == 2 {
            break inspection;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    // Five seconds, and not five hours.
    let findings = inspection.outcome("session-blocked").unwrap().findings();
    assert!(findings.iter().all(|f| f.severity == Severity::Warning), "{findings:#?}");
    assert_eq!(inspection.outcome("transaction-long").unwrap().findings(), []);
    mysql::run(&mut holder, "COMMIT").await.unwrap();
    row.await.unwrap();
    table.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_faults_are_found_and_the_clean_twin_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    sqlite::create(&path, &Size::orders(2_000), 1).await.unwrap();
    let run = async |statements: &[&str]| {
        let mut db = sqlite::open(&path, false).await.unwrap();
        for sql in statements {
            sqlite::run(&mut db, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        sqlx::Connection::close(db).await.unwrap();
    };
    run(faults::SQLITE.mend).await;
    let shop = open(&format!("sqlite:{}", path.display())).unwrap();
    let before = std::fs::read(&path).unwrap();
    let clean = shop.inspect(&later()).await.unwrap();
    assert!(clean.is_clean(), "{:?}", clean.checks);
    assert!(std::fs::read(&path).unwrap() == before, "an inspection changed the file");

    run(faults::SQLITE.plant).await;
    let sick = shop.inspect(&later()).await.unwrap();
    assert_eq!(found(&sick), faults::SQLITE.planted, "{:#?}", sick.findings().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_sqlite_file_is_said_to_be_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    sqlite::create(&path, &Size::orders(500), 1).await.unwrap();
    let mut db = sqlite::open(&path, false).await.unwrap();
    sqlite::run(&mut db, "PRAGMA journal_mode = DELETE").await.unwrap();
    sqlx::Connection::close(db).await.unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let shop = open(&format!("sqlite:{}", path.display())).unwrap();
    // In this mode nobody could write meanwhile: it is not looked for unless that is wanted, and then not known.
    let blind = shop.inspect(&later()).await.unwrap();
    assert!(matches!(blind.outcome("sqlite-integrity"), Some(Outcome::Unknown { .. })), "{:?}", blind.checks);
    assert!(matches!(blind.outcome("foreign-key-violated"), Some(Outcome::Unknown { .. })));
    let sick = shop.inspect(&later().with_integrity(true)).await.unwrap();
    assert!(matches!(sick.outcome("foreign-key-violated"), Some(Outcome::Unknown { .. })), "{:?}", sick.checks);
    assert!(found(&sick).contains(&("sqlite-integrity", "file")), "{:?}", sick.checks);
    assert_eq!(sick.worst(), Some(Severity::Critical));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_an_error_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = format!("postgres://u:s%40cret@localhost/shop?host={}", dir.path().display());
    for (url, kind) in [
        (nowhere.as_str(), ErrorKind::Unreachable),
        ("mysql://u:s%40cret@localhost/shop?socket=/no/such/socket", ErrorKind::Unreachable),
        ("sqlite:/no/such/shop.db", ErrorKind::Unreachable),
    ] {
        let e = open(url).unwrap().inspect(&InspectOptions::default()).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e:?}");
        assert!(!format!("{e:?}").contains("cret") && e.next_step().is_some(), "{e:?}");
    }
    for url in ["postgres://u:se:cret@h:port/db", "mysql://u:secret@h", "secret@h/d", "oracle:secret"] {
        let e = open(url).unwrap_err();
        assert!(e.kind() == ErrorKind::Config && !format!("{e:?}").contains("cret"), "{e:?}");
    }
    let _: &dyn Engine = &*open("sqlite:x.db").unwrap();
}
