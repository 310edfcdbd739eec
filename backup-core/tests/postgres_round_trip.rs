//! What is restored is what was backed up: `pg_dump` sees no difference.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use backup_core::{
    BackupOptions, ErrorKind, PostgresSource, PostgresTarget, RestoreOptions, VerifyLevel, VerifyOptions,
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
