//! What is restored is what was backed up: `pg_dump` sees no difference.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use backup_core::{BackupOptions, PostgresSource, PostgresTarget, RestoreOptions, VerifyLevel, VerifyOptions};
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
