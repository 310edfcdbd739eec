//! A full snapshot and the newer ones of its tiers, put together: each table in its newest state, and no row that leads
//! nowhere goes unsaid.

#![cfg(all(feature = "sqlite", feature = "mysql", feature = "postgres"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use backup_core::{
    BackupOptions, Composition, ErrorKind, MysqlSource, MysqlTarget, PostgresSource, PostgresTarget, RestoreOptions,
    RestoreReport, Selector, Share, Snapshot, Source, SqliteSource, SqliteTarget, Target, Tier,
};
use support::{Shop, sqlite3};

/// The same shop on each kind of database.
trait Engine {
    fn sql(&self, database: &str, sql: &str) -> String;
    fn source(&self, tier: Option<&Tier>) -> Box<dyn Source>;
    fn target(&self, database: &str) -> Box<dyn Target>;
    /// The definition of a key that counts up.
    const COUNTS: &str;
}

const TABLES: &str = "CREATE TABLE customers (id int PRIMARY KEY, name varchar(20)); \
    CREATE TABLE orders (id COUNTS, customer_id int NOT NULL, total int, FOREIGN KEY (customer_id) REFERENCES customers (id)); \
    CREATE TABLE payments (id int PRIMARY KEY, order_id int, FOREIGN KEY (order_id) REFERENCES orders (id)); \
    CREATE TABLE notes (id int PRIMARY KEY, said varchar(20));";

async fn backup(shop: &Shop, engine: &impl Engine, tier: Option<&Tier>) -> Snapshot {
    let snapshot = shop.repository.backup(engine.source(tier).as_ref(), BackupOptions::default()).await.unwrap();
    assert!(snapshot.manifest.is_complete(), "{:?}", snapshot.manifest.problems);
    snapshot
}

async fn composed(shop: &Shop, engine: &impl Engine, before: Option<&Snapshot>, into: &str) -> RestoreReport {
    let selector = before.map_or(Selector::Latest, |s| Selector::Before(s.manifest.taken_at));
    let composition = compose(shop, &selector).await;
    let target = engine.target(into);
    shop.repository.restore_composed(&composition, target.as_ref(), RestoreOptions::default()).await.unwrap()
}

async fn compose(shop: &Shop, selector: &Selector) -> Composition {
    let catalog = shop.repository.catalog().await.unwrap();
    shop.repository.compose(&catalog, selector, Some("shop")).await.unwrap()
}

async fn walk_through<E: Engine>(engine: &E) {
    let shop = Shop::new().await;
    engine.sql("shop", &TABLES.replace("COUNTS", E::COUNTS));
    engine.sql(
        "shop",
        "INSERT INTO customers VALUES (1, 'Ada'), (2, 'Bola'); \
         INSERT INTO orders (customer_id, total) VALUES (1, 10), (1, 20), (2, 30); \
         INSERT INTO payments VALUES (1, 1), (2, 2); INSERT INTO notes VALUES (1, 'old')",
    );
    let tier = Tier::new("orders", &["orders"]).unwrap();
    let full = backup(&shop, engine, None).await;
    assert_eq!(compose(&shop, &Selector::Latest).await.shares.len(), 1, "nothing newer");

    // A morning: a customer, an order; what belongs to no tier changes too.
    engine.sql(
        "shop",
        "INSERT INTO customers VALUES (3, 'Chidi'); INSERT INTO orders (customer_id, total) VALUES (3, 40); \
         UPDATE notes SET said = 'new'",
    );
    let morning = backup(&shop, engine, Some(&tier)).await;
    let report = composed(&shop, engine, None, "one").await;
    assert!(report.is_equal() && report.orphans.is_empty(), "{report:?}");
    let [night, newer] = report.shares.as_slice() else { panic!("{report:?}") };
    let gives = |share: &Share, table: &str| share.tables.iter().any(|t| t.ends_with(table));
    assert_eq!((&night.snapshot, &newer.snapshot), (&full.id, &morning.id));
    assert!(gives(night, "payments") && gives(night, "notes") && gives(newer, "orders") && gives(newer, "customers"));
    assert_eq!(engine.sql("one", "SELECT sum(total), count(*) FROM orders").replace('|', "\t"), "100\t4\n");
    assert_eq!(engine.sql("one", "SELECT said FROM notes"), "old\n");
    // What is sold next has a number of its own.
    engine.sql("one", "INSERT INTO orders (customer_id, total) VALUES (3, 50)");
    assert_eq!(engine.sql("one", "SELECT max(id) FROM orders"), "5\n");

    // Noon: an order is taken back with its payment. Of the payments last night's are all there is.
    engine.sql("shop", "DELETE FROM payments WHERE order_id = 2; DELETE FROM orders WHERE id = 2");
    let noon = backup(&shop, engine, Some(&tier)).await;
    let report = composed(&shop, engine, None, "two").await;
    assert_eq!(report.orphans.len(), 1, "{report:?}");
    let orphans = &report.orphans[0];
    assert!(orphans.table.contains("payments") && orphans.rows == 1 && orphans.first.len() == 1, "{orphans:?}");
    assert!(orphans.reference.contains("order_id") && orphans.reference.contains("orders"), "{orphans:?}");
    assert_eq!(engine.sql("two", "SELECT count(*) FROM payments"), "2\n", "it is restored all the same");
    // As it was before noon, there is none.
    let report = composed(&shop, engine, Some(&noon), "three").await;
    assert_eq!((report.orphans.len(), &report.shares[1].snapshot), (0, &morning.id));

    // A migration, and a tier after it: what it holds does not fit what last night had.
    engine.sql("shop", "ALTER TABLE notes ADD COLUMN more int; INSERT INTO orders (customer_id, total) VALUES (1, 60)");
    let after = backup(&shop, engine, Some(&tier)).await;
    let composition = compose(&shop, &Selector::Latest).await;
    assert_eq!(composition.shares.last().unwrap().snapshot, noon.id);
    assert!(composition.notes.iter().any(|n| n.contains(after.id.as_str())), "{composition:?}");
    let report = composed(&shop, engine, None, "four").await;
    assert_eq!(engine.sql("four", "SELECT count(*) FROM orders"), "3\n");
    assert!(report.notes.iter().any(|n| n.contains(after.id.as_str())), "{report:?}");

    let id = Selector::Id(full.id.to_string());
    let catalog = shop.repository.catalog().await.unwrap();
    let e = shop.repository.compose(&catalog, &id, None).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
}

struct Sqlite(tempfile::TempDir);

impl Engine for Sqlite {
    const COUNTS: &str = "INTEGER PRIMARY KEY AUTOINCREMENT";

    fn sql(&self, database: &str, sql: &str) -> String {
        sqlite3(&self.0.path().join(database), sql)
    }

    fn source(&self, tier: Option<&Tier>) -> Box<dyn Source> {
        let source = SqliteSource::new(self.0.path().join("shop")).named("shop");
        Box::new(match tier {
            Some(tier) => source.only_tier(tier.clone()),
            None => source,
        })
    }

    fn target(&self, database: &str) -> Box<dyn Target> {
        Box::new(SqliteTarget::new(self.0.path().join(database)))
    }
}

struct Postgres(storefront::postgres::Server);

impl Engine for Postgres {
    const COUNTS: &str = "int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY";

    fn sql(&self, database: &str, sql: &str) -> String {
        self.0.psql(database, sql).unwrap()
    }

    fn source(&self, tier: Option<&Tier>) -> Box<dyn Source> {
        let source = PostgresSource::new(&self.0.url("shop")).unwrap().named("shop");
        Box::new(match tier {
            Some(tier) => source.only_tier(tier.clone()),
            None => source,
        })
    }

    fn target(&self, database: &str) -> Box<dyn Target> {
        Box::new(PostgresTarget::new(&self.0.url(database)).unwrap())
    }
}

struct Mysql(storefront::mysql::Server);

impl Engine for Mysql {
    const COUNTS: &str = "int PRIMARY KEY AUTO_INCREMENT";

    fn sql(&self, database: &str, sql: &str) -> String {
        self.0.sql(database, sql).unwrap()
    }

    fn source(&self, tier: Option<&Tier>) -> Box<dyn Source> {
        let source = MysqlSource::new(&self.0.url("shop")).unwrap().named("shop");
        Box::new(match tier {
            Some(tier) => source.only_tier(tier.clone()),
            None => source,
        })
    }

    fn target(&self, database: &str) -> Box<dyn Target> {
        Box::new(MysqlTarget::new(&self.0.url(database)).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_are_composed_on_sqlite() {
    walk_through(&Sqlite(tempfile::tempdir().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_are_composed_on_postgres() {
    let server = storefront::postgres::Server::start().await.unwrap();
    server.database("shop").await.unwrap();
    walk_through(&Postgres(server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_are_composed_on_mysql() {
    let server = storefront::mysql::Server::start().await.unwrap();
    server.database("shop").unwrap();
    walk_through(&Mysql(server)).await;
}
