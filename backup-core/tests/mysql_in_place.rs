//! Restores into a MariaDB database that is in use: in its place, or some of its tables.

#![cfg(feature = "mysql")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/dumps.rs"]
mod dumps;
mod support;

use backup_core::{BackupOptions, ErrorKind, MysqlSource, MysqlTarget, Only, RestoreOptions, Tier};
use dumps::{assert_same, every_type};
use sqlx::Connection;
use storefront::Size;
use storefront::mysql::{Server, open, run};
use support::Shop;

/// Tables, views, triggers, routines and events that are in the way of others of the same names.
const LIVE: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, note text); CREATE TABLE child (id int PRIMARY KEY, p int, CONSTRAINT child_p FOREIGN KEY (p) REFERENCES parent (id));
    INSERT INTO parent VALUES (1, 'live'); INSERT INTO child VALUES (7, 1);
    CREATE TABLE only_here (x int); CREATE VIEW b_first AS SELECT note FROM parent; CREATE VIEW only_a_view AS SELECT 1 AS one;
    CREATE TRIGGER touched BEFORE INSERT ON child FOR EACH ROW SET new.p = coalesce(new.p, 1);
    CREATE TRIGGER first_of_two AFTER INSERT ON only_here FOR EACH ROW SET @x = 1;
    CREATE FUNCTION shout(t int) RETURNS int DETERMINISTIC RETURN t; CREATE EVENT nightly ON SCHEDULE EVERY 1 YEAR DO SET @x = 1;";

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_takes_the_place_of_a_database() {
    let server = Server::start().await.unwrap();
    let url = server.database("a").unwrap();
    server.sql("a", every_type(&server)).unwrap();
    let shop = Shop::new().await;
    let snapshot = shop.repository.backup(&MysqlSource::new(&url).unwrap(), BackupOptions::default()).await.unwrap();
    let live = server.database("b").unwrap();
    server.sql("b", LIVE).unwrap();
    if server.is_mariadb() {
        server.sql("b", "CREATE SEQUENCE invoice START WITH 5").unwrap();
    }
    let before = server.dump("b", &[]).unwrap();
    let target = MysqlTarget::new(&live).unwrap();
    let clean = || RestoreOptions::default().clean(true);
    let databases = || server.sql("", "SHOW DATABASES LIKE '%caretaker%'").unwrap();

    let e = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::TargetNotEmpty && e.to_string().contains("not empty"), "{e}");

    // A table that a foreign key of another database leads to.
    server
        .sql("", "CREATE DATABASE c; CREATE TABLE c.other (p int, FOREIGN KEY (p) REFERENCES b.parent (id))")
        .unwrap();
    let e = shop.repository.restore(&snapshot, &target, clean()).await.unwrap_err();
    assert!(e.to_string().contains("c.other"), "{e}");
    server.sql("", "DROP DATABASE c").unwrap();

    // A user who may not make the database beside it.
    server.sql("", "CREATE USER weak@localhost; GRANT ALL ON b.* TO weak@localhost").unwrap();
    let weak = MysqlTarget::new(&server.url_as("weak", "b")).unwrap();
    let e = shop.repository.restore(&snapshot, &weak, clean()).await.unwrap_err();
    assert!(e.to_string().contains("b_caretaker_replaced"), "{e}");

    // Somebody reads a table of it all the time.
    let mut reader = open(&live).await.unwrap();
    run(&mut reader, "BEGIN; SELECT * FROM parent").await.unwrap();
    let e = shop.repository.restore(&snapshot, &target, clean()).await.unwrap_err();
    assert!(e.to_string().contains("nothing was changed") && e.is_retryable(), "{e}");
    run(&mut reader, "COMMIT").await.unwrap();
    reader.close().await.ok();
    assert_eq!(server.dump("b", &[]).unwrap(), before, "triggers too are as they were");
    assert_eq!(databases(), "");

    // What an earlier run could not tidy up is not thrown away.
    server.sql("", "CREATE DATABASE b_caretaker_replaced; CREATE TABLE b_caretaker_replaced.t (x int)").unwrap();
    let e = shop.repository.restore(&snapshot, &target, clean()).await.unwrap_err();
    assert!(e.to_string().contains("b_caretaker_replaced"), "{e}");
    server.sql("", "DROP DATABASE b_caretaker_replaced; CREATE DATABASE b_caretaker_partial; CREATE TABLE b_caretaker_partial.torn (x int)").unwrap();

    let report = shop.repository.restore(&snapshot, &target, clean()).await.unwrap();
    assert!(report.is_equal());
    assert!(report.notes.len() == 1 && report.notes[0].contains("`nobody`@`nowhere`"), "{:?}", report.notes);
    assert_same(&server, "a", "b", if server.is_mariadb() { &["--dump-history"] } else { &[] });
    assert_eq!(databases(), "");
    assert_eq!(
        server.sql("b", "SELECT two FROM a_needs_b; SELECT shout('hi'); SHOW TRIGGERS LIKE 'child'").unwrap(),
        "2\nHI!;\n"
    );
    if server.is_mariadb() {
        // It counts by its own sequence.
        let next = "SELECT next_not_cached_value FROM b.invoice";
        server.sql("b", &format!("{next}; INSERT INTO numbered (x) VALUES (3); {next}")).unwrap();
        let definition = server.sql("b", "SHOW CREATE TABLE numbered").unwrap();
        assert!(definition.contains("nextval(`b`.`invoice`)"), "{definition}");
    }
    // Foreign keys hold among the new tables.
    let e = server.sql("b", "INSERT INTO child VALUES (100, 12345, NULL)").unwrap_err();
    assert!(e.to_string().contains("child_p"), "{e}");
    // And once more, over itself; who may call a routine still may.
    server.sql("", "CREATE USER caller@localhost; GRANT EXECUTE ON FUNCTION b.shout TO caller@localhost").unwrap();
    server.sql("b", "CREATE TRIGGER extra AFTER INSERT ON parent FOR EACH ROW SET @x = 1").unwrap();
    let report = shop.repository.restore(&snapshot, &target, clean()).await.unwrap();
    assert!(report.is_equal());
    assert_same(&server, "a", "b", &[]);
    let may = server.sql("", "SHOW GRANTS FOR caller@localhost").unwrap().contains("shout");
    assert!(may || report.notes.iter().any(|n| n.contains("granted again")), "{:?}", report.notes);
    assert_eq!(may, server.is_mariadb());
}

/// The tables are moved, and then the user may not drop a routine.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_stays_until_everything_is_in_its_place() {
    let server = Server::start().await.unwrap();
    let url = server.database("a").unwrap();
    server.sql("a", "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (41)").unwrap();
    let shop = Shop::new().await;
    let snapshot = shop.repository.backup(&MysqlSource::new(&url).unwrap(), BackupOptions::default()).await.unwrap();
    server.database("b").unwrap();
    server.sql("b", LIVE).unwrap();
    let user = "CREATE USER weak@localhost; GRANT SELECT ON *.* TO weak@localhost;
        GRANT ALL ON `b\\_caretaker%`.* TO weak@localhost;
        GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, TRIGGER, EVENT, CREATE VIEW, SHOW VIEW,
          LOCK TABLES, CREATE ROUTINE ON b.* TO weak@localhost";
    server.sql("", user).unwrap();
    let weak = MysqlTarget::new(&server.url_as("weak", "b")).unwrap();
    let e = shop.repository.restore(&snapshot, &weak, RestoreOptions::default().clean(true)).await.unwrap_err();
    assert!(e.to_string().contains("the tables are in place, and not all that belongs to them"), "{e}");
    assert_eq!(server.sql("b", "SELECT id FROM parent").unwrap(), "41\n");
    assert_eq!(server.sql("b_caretaker_replaced", "SELECT id, note FROM parent").unwrap(), "1\tlive\n");
    let programs = server.sql("b_caretaker_replaced", "SELECT definitions FROM caretaker_programs").unwrap();
    for word in ["FUNCTION `shout`", "`b_first`", "`only_a_view`", "touched", "first_of_two", "EVENT `nightly`"] {
        assert!(programs.contains(word), "{word}: {programs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn some_tables_come_back_into_a_database_that_lives_on() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    storefront::mysql::create(&url, &Size::orders(500), 1).await.unwrap();
    server.sql("shop", "CREATE TABLE log (x int) ENGINE=MyISAM; INSERT INTO log VALUES (1)").unwrap();
    let mut dropped = vec![("payments", "DROP TABLE payments"), ("cart_items", "DROP TABLE cart_items")];
    if server.is_mariadb() {
        let counted = "CREATE SEQUENCE seq; CREATE TABLE counted (n int DEFAULT nextval(seq), x int); INSERT INTO counted (x) VALUES (1), (2)";
        server.sql("shop", counted).unwrap();
        dropped.push(("counted", "DROP TABLE counted; DROP SEQUENCE seq"));
    }
    let shop = Shop::new().await;
    let target = MysqlTarget::new(&url).unwrap();
    let only = |glob: &str| RestoreOptions::default().only(Some(Only::new(glob).unwrap()));
    let snapshot = shop.repository.backup(&MysqlSource::new(&url).unwrap(), BackupOptions::default()).await.unwrap();
    assert_eq!(snapshot.manifest.problems, []);
    let dump = || server.dump("shop", &[]).unwrap();
    let before = dump();

    // Dropped by mistake: the table, its keys and its trigger, a sequence.
    for (table, drop) in dropped {
        server.sql("shop", drop).unwrap();
        let report = shop.repository.restore(&snapshot, &target, only(table)).await.unwrap();
        assert!(report.is_equal() && report.notes.is_empty(), "{report:?}");
        assert_eq!(dump(), before, "{table}");
    }
    // Rows changed by mistake.
    server.sql("shop", "UPDATE payments SET amount = 0; DELETE FROM payments WHERE id % 2 = 0").unwrap();
    let e = shop.repository.restore(&snapshot, &target, only("payments")).await.unwrap_err();
    assert!(e.kind() == ErrorKind::TargetNotEmpty && e.to_string().contains("payments has rows"), "{e}");
    shop.repository.restore(&snapshot, &target, only("payments").clean(true)).await.unwrap();
    assert_eq!(dump(), before);
    // Rows that others refer to: fine where they all come back.
    server.sql("shop", "UPDATE orders SET status = 'cancelled'").unwrap();
    shop.repository.restore(&snapshot, &target, only("orders").clean(true)).await.unwrap();
    assert_eq!(dump(), before, "nothing was deleted along");
    // A payment of an order that the snapshot does not know yet.
    server.sql("shop", "INSERT INTO orders (id, number, customer_id, status, currency, placed_at) SELECT 99999, 'new', customer_id, status, currency, placed_at FROM orders LIMIT 1;
        UPDATE payments SET order_id = 99999 WHERE id = 1").unwrap();
    let changed = dump();
    let e = shop.repository.restore(&snapshot, &target, only("orders").clean(true)).await.unwrap_err();
    assert!(
        e.kind() == ErrorKind::TargetNotEmpty && e.to_string().contains("1 rows of `shop`.`payments` would refer"),
        "{e}"
    );
    assert_eq!(dump(), changed, "all of it or nothing");
    // Both together do.
    shop.repository.restore(&snapshot, &target, only("{orders,payments}").clean(true)).await.unwrap();
    assert_eq!(server.sql("shop", "SELECT count(*) FROM orders WHERE id = 99999").unwrap(), "0\n");
    // A made table's parent is missing.
    server.sql("shop", "SET foreign_key_checks = 0; DROP TABLE payments; DROP TABLE orders").unwrap();
    let e = shop.repository.restore(&snapshot, &target, only("payments")).await.unwrap_err();
    assert!(e.to_string().contains("orders"), "{e}");
    assert_eq!(server.sql("shop", "SHOW TABLES LIKE 'payments'").unwrap(), "");
    shop.repository.restore(&snapshot, &target, only("{orders,payments}")).await.unwrap();
    assert_eq!(dump(), before);
    // What cannot be done without harm is refused.
    server.sql("shop", "ALTER TABLE payments ADD extra int; ALTER TABLE addresses MODIFY city varchar(80)").unwrap();
    for (glob, why) in [
        ("payments", "other columns"),
        ("log", "MyISAM"),
        ("cart_items", "the trigger cart_touched"),
        ("nothing*", "nothing"),
        ("addresses", "other columns"),
    ] {
        let e = shop.repository.restore(&snapshot, &target, only(glob).clean(true)).await.unwrap_err();
        assert!(e.to_string().contains(why), "{glob}: {e}");
    }
    // A tier's tables come back like that, and not in place of everything.
    let source = MysqlSource::new(&url).unwrap().only_tier(Tier::new("catalogue", &["products"]).unwrap());
    let tier = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    let e = shop.repository.restore(&tier, &target, RestoreOptions::default().clean(true)).await.unwrap_err();
    assert!(e.to_string().contains("tier"), "{e}");
    server.sql("shop", "UPDATE products SET title = 'x'").unwrap();
    shop.repository.restore(&tier, &target, only("products").clean(true)).await.unwrap();
    assert_eq!(server.sql("shop", "SELECT count(*) FROM products WHERE title = 'x'").unwrap(), "0\n");
}
