//! What is restored is what was backed up: `pg_dump` sees no difference.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use backup_core::{
    BackupOptions, EntryKind, ErrorKind, PostgresSource, PostgresTarget, RestoreOptions, Selector, Tier, VerifyLevel,
    VerifyOptions,
};
use storefront::Size;
use storefront::postgres::Server;
use support::Shop;

fn assert_same(server: &Server, a: &str, b: &str) {
    let (a, b) = (server.dump(a, &[]).unwrap(), server.dump(b, &[]).unwrap());
    if a == b {
        return;
    }
    let differ: Vec<_> = a.lines().zip(b.lines()).enumerate().filter(|(_, (x, y))| x != y).take(5).collect();
    panic!("dumps of {} and {} bytes differ: {differ:#?}", a.len(), b.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_comes_back() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    let size = Size::orders(200_000);
    let facts = storefront::postgres::create(&url, &size, 3).await.unwrap();
    assert!(facts.orphaned_items > 0);

    let shop = Shop::new().await;
    let source = PostgresSource::new(&url).unwrap();
    let first = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    assert!(first.manifest.is_complete(), "{:?}", first.manifest.problems);
    assert!(shop.repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap().is_sound());
    let restored = PostgresTarget::new(&server.url("restored")).unwrap();
    let report = shop.repository.restore(&first, &restored, RestoreOptions::default()).await.unwrap();
    assert!(report.is_equal());
    assert_eq!(report.notes, Vec::<String>::new());
    assert_same(&server, "shop", "restored");
    assert_eq!(
        server.psql("restored", "SELECT count(*), sum(orders) FROM sales_by_day").unwrap(),
        server.psql("shop", "SELECT count(*), sum(orders) FROM sales_by_day").unwrap(),
    );

    let again = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    println!("first {} again {}", first.manifest.totals.added, again.manifest.totals.added);
    assert!(again.manifest.totals.added * 100 < first.manifest.totals.added);
    storefront::postgres::trade_a_day(&url, &size, 3).await.unwrap();
    let day = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    println!("day {}", day.manifest.totals.added);
    assert!(day.manifest.totals.added * 10 < first.manifest.totals.added);
}

const ROLES: &str = "CREATE ROLE anna; CREATE ROLE \"odd \"\"role\"\"; x\"";

async fn every_type(server: &Server) -> String {
    let url = server.database("every; type").await.unwrap();
    server.psql("postgres", ROLES).unwrap();
    server.psql("every; type", include_str!("every_type_postgres.sql")).unwrap();
    url.replace("every; type", "every%3B%20type")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_and_object_comes_back() {
    let server = Server::start().await.unwrap();
    let url = every_type(&server).await;
    let shop = Shop::new().await;
    let source = PostgresSource::new(&url).unwrap();
    let snapshot = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    assert_eq!(snapshot.manifest.problems, []);
    let target = PostgresTarget::new(&server.url("restored")).unwrap();
    let report = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap();
    assert_eq!(report.notes, Vec::<String>::new());
    assert!(report.is_equal());
    assert_same(&server, "every; type", "restored");
    // Whether views are filled is nothing a dump tells.
    assert_eq!(
        server
            .psql("restored", "SELECT m FROM on_filled; SELECT relispopulated FROM pg_class WHERE relname = 'unfilled'")
            .unwrap(),
        "58\nf\n"
    );
    // The order of the rows too, and nothing that a scan in another order would hide.
    let order = "SELECT string_agg(id::text, ',') FROM (SELECT id FROM holes) x";
    assert_eq!(server.psql("every; type", order).unwrap(), server.psql("restored", order).unwrap());

    // In place of something else: owner, rights and settings of the database stay.
    server.psql("postgres", "CREATE DATABASE live OWNER anna; ALTER DATABASE live SET search_path TO \"$user\", api, public; ALTER ROLE anna IN DATABASE live SET work_mem = '7MB'; GRANT CREATE ON DATABASE live TO \"odd \"\"role\"\"; x\"; COMMENT ON DATABASE live IS 'the; shop'").unwrap();
    server.psql("live", "CREATE TABLE public.old (x int); INSERT INTO public.old VALUES (1)").unwrap();
    let about = "SELECT pg_get_userbyid(datdba), (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(datacl) a), (SELECT string_agg(setconfig::text, '' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid), shobj_description(d.oid, 'pg_database') FROM pg_database d WHERE datname = 'live'";
    let before = server.psql("postgres", about).unwrap();
    let live = PostgresTarget::new(&server.url("live")).unwrap();
    let refused = shop.repository.restore(&snapshot, &live, RestoreOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TargetNotEmpty);
    let visitor = storefront::postgres::open(&server.url("live")).await.unwrap();
    let report = shop.repository.restore(&snapshot, &live, RestoreOptions::default().clean(true)).await.unwrap();
    assert!(report.is_equal());
    drop(visitor);
    assert_same(&server, "every; type", "live");
    assert_eq!(server.psql("postgres", about).unwrap(), before);
    assert_eq!(
        server.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE '%caretaker%'").unwrap(),
        "0\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_holds_its_tables_and_what_their_keys_lead_to() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    storefront::postgres::create(&url, &Size::orders(500), 3).await.unwrap();
    let shop = Shop::new().await;
    let everything = PostgresSource::new(&url).unwrap();
    let full = shop.repository.backup(&everything, BackupOptions::default()).await.unwrap();
    let critical = everything.clone().only_tier(Tier::new("critical", &["payments", "email_log"]).unwrap());
    let tier = shop.repository.backup(&critical, BackupOptions::default()).await.unwrap();
    assert_eq!(tier.manifest.tier.as_deref(), Some("critical"));
    // Rows of payments need orders, those need customers; a partitioned table is its partitions.
    let held: Vec<&str> = tier
        .manifest
        .entries
        .iter()
        .filter(|e| e.kind == EntryKind::Data && e.name != "data/sequences")
        .map(|e| e.subject.as_str())
        .collect();
    let mut expected =
        ["customers", "email_log_2025", "email_log_2026", "email_log_old", "orders", "payments"].to_vec();
    expected.sort_by_key(|name| held.iter().position(|h| h == name));
    assert_eq!(held, expected);
    // All of it was stored by the full snapshot; and what a tier stored a full one need not store again.
    let rows: Vec<_> = tier.manifest.entries.iter().filter(|e| e.kind == EntryKind::Data).collect();
    assert!(rows.iter().all(|e| full.manifest.entry(&e.name).unwrap().fingerprint == e.fingerprint));
    assert!(tier.manifest.totals.added < 10_000, "{} bytes were added", tier.manifest.totals.added);
    server.psql("shop", "UPDATE payments SET amount = amount + 1").unwrap();
    let changed = shop.repository.backup(&critical, BackupOptions::default()).await.unwrap();
    let after = shop.repository.backup(&everything, BackupOptions::default()).await.unwrap();
    assert!(changed.manifest.totals.added > 2 * after.manifest.totals.added, "{:?}", after.manifest.totals);

    // By itself it is a database whose keys all lead somewhere.
    let target = PostgresTarget::new(&server.url("restored")).unwrap();
    let report = shop.repository.restore(&changed, &target, RestoreOptions::default()).await.unwrap();
    assert!(report.is_equal());
    let counts =
        "SELECT (SELECT count(*) FROM payments), (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items)";
    let (there, here) = (server.psql("restored", counts).unwrap(), server.psql("shop", counts).unwrap());
    assert_eq!(there.trim().rsplit_once('|').unwrap(), (here.trim().rsplit_once('|').unwrap().0, "0"));
    // In place of a whole database it would empty the others' tables; single tables it can give back.
    let live = PostgresTarget::new(&url).unwrap();
    let e = shop.repository.restore(&tier, &live, RestoreOptions::default().clean(true)).await.unwrap_err();
    assert!(e.to_string().contains("critical") && e.kind() == ErrorKind::Config, "{e}");
    // And "latest" never means it.
    let catalog = shop.repository.catalog().await.unwrap();
    let later = shop.repository.backup(&critical, BackupOptions::default()).await.unwrap();
    assert!(later.record > after.record);
    assert_eq!(catalog.select(&Selector::Latest, None).unwrap().id, after.id);

    let nothing = everything.clone().only_tier(Tier::new("critical", &["orders", "order"]).unwrap());
    let e = shop.repository.backup(&nothing, BackupOptions::default()).await.unwrap_err();
    assert!(e.to_string().contains("no table is called order"), "{e}");
}

/// One table that outweighs all others is read over several connections; nobody can tell from the result.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_read_in_parts_comes_back_in_its_order() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    // Holes, moved rows and values outside of the pages.
    server
        .psql(
            "shop",
            "CREATE TABLE log (id int PRIMARY KEY, text text, \"odd; name\" bytea, twice int GENERATED ALWAYS AS (id * 2) STORED);
             INSERT INTO log SELECT n, repeat(md5(n::text), 4), CASE WHEN n % 1000 = 0 THEN decode(repeat(md5(n::text), 1000), 'hex') END FROM generate_series(1, 200000) n;
             DELETE FROM log WHERE id % 7 = 0;
             UPDATE log SET text = 'moved' WHERE id % 11 = 0;
             CREATE TABLE small AS SELECT 1 AS x",
        )
        .unwrap();
    let pages: i64 = server.psql("shop", "SELECT pg_relation_size('log') / 8192").unwrap().trim().parse().unwrap();
    assert!(pages > 3000, "{pages} pages are too few for this test");
    let shop = Shop::new().await;
    let source = PostgresSource::new(&url).unwrap();
    let whole = shop.repository.backup(&source.clone().with_connections(1), BackupOptions::default()).await.unwrap();
    for connections in [2, 3, 7] {
        let parts = shop
            .repository
            .backup(&source.clone().with_connections(connections), BackupOptions::default())
            .await
            .unwrap();
        let (one, other) = (whole.manifest.entry("data/public.log"), parts.manifest.entry("data/public.log"));
        // The same bytes in the same order: every chunk is shared.
        assert_eq!(one, other);
        assert_eq!(parts.manifest.entry("data/public.log").unwrap().fingerprint.rows(), 171_429);
    }
    let statements: String = server
        .psql("shop", "SELECT count(*) FROM pg_stat_user_tables WHERE relname = 'log' AND seq_scan <= 4")
        .unwrap();
    assert_eq!(statements, "1\n", "parts were read by scanning all of the table");
    let target = PostgresTarget::new(&server.url("restored")).unwrap();
    let report = shop.repository.restore(&whole, &target, RestoreOptions::default()).await.unwrap();
    assert!(report.is_equal());
    assert_same(&server, "shop", "restored");
}

/// Of an extension's tables only what the user entered is the user's.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_extensions_configuration_are_kept() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    server
        .psql(
            "shop",
            "CREATE EXTENSION citext; CREATE TABLE config (name text, is_users boolean); CREATE TABLE internals (x int);
             INSERT INTO config VALUES ('theirs', false), ('mine', true), ('mine too', true); INSERT INTO internals VALUES (1);
             ALTER EXTENSION citext ADD TABLE config; ALTER EXTENSION citext ADD TABLE internals;
             UPDATE pg_extension SET extconfig = ARRAY['config'::regclass::oid], extcondition = ARRAY['WHERE is_users'] WHERE extname = 'citext'",
        )
        .unwrap();
    let shop = Shop::new().await;
    let snapshot = shop.repository.backup(&PostgresSource::new(&url).unwrap(), BackupOptions::default()).await.unwrap();
    assert_eq!(snapshot.manifest.entry("data/public.config").unwrap().fingerprint.rows(), 2);
    assert!(snapshot.manifest.entry("data/public.internals").is_none());
}
