//! What is restored is what was backed up: `mariadb-dump` sees no difference.

#![cfg(feature = "mysql")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/dumps.rs"]
mod dumps;
mod support;

use backup_core::{BackupOptions, MysqlSource, MysqlTarget, RestoreOptions, VerifyLevel, VerifyOptions};
use dumps::{assert_same, every_type};
use storefront::Size;
use storefront::mysql::Server;
use support::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_comes_back() {
    let server = Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    let size = Size::orders(200_000);
    let facts = storefront::mysql::create(&url, &size, 3).await.unwrap();
    assert!(facts.orphaned_items > 0);

    let shop = Shop::new().await;
    let source = MysqlSource::new(&url).unwrap();
    let first = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    assert_eq!(first.manifest.problems, []);
    assert!(first.manifest.position.as_ref().unwrap().contains(if server.is_mariadb() {
        "2 sessions under BACKUP STAGE"
    } else {
        "2 sessions under FLUSH TABLES WITH READ LOCK"
    }));
    assert!(shop.repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await.unwrap().is_sound());
    let restored = MysqlTarget::new(&server.url("restored")).unwrap();
    let report = shop.repository.restore(&first, &restored, RestoreOptions::default()).await.unwrap();
    assert!(report.is_equal());
    assert_eq!(report.notes, Vec::<String>::new());
    assert_same(&server, "shop", "restored", &[]);

    let again = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    println!("first {} again {}", first.manifest.totals.added, again.manifest.totals.added);
    assert!(again.manifest.totals.added * 100 < first.manifest.totals.added);
    storefront::mysql::trade_a_day(&url, &size, 3).await.unwrap();
    let day = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    println!("day {}", day.manifest.totals.added);
    assert!(day.manifest.totals.added * 10 < first.manifest.totals.added);
}

/// What a client prints rounded, or not at all, is compared by the server itself.
const SAME_VALUES: &str = "
    SELECT 'numbers', count(*) FROM a.numbers x JOIN b.numbers y USING (id) WHERE x.f <=> y.f AND x.db <=> y.db AND x.d <=> y.d
        AND x.bit1 <=> y.bit1 AND x.bit9 <=> y.bit9 AND x.bit64 <=> y.bit64 AND x.f2 <=> y.f2;
    SELECT 'texts', count(*) FROM a.texts x JOIN b.texts y USING (id) WHERE hex(x.vb) <=> hex(y.vb) AND hex(x.bi) <=> hex(y.bi) AND sha2(x.lb, 256) <=> sha2(y.lb, 256)
        AND sha2(x.lt, 256) <=> sha2(y.lt, 256) AND hex(x.sj) <=> hex(y.sj) AND hex(x.u2) <=> hex(y.u2) AND hex(x.l1) <=> hex(y.l1) AND hex(x.v) <=> hex(y.v) AND x.e + 0 <=> y.e + 0;
    SELECT 'times', count(*) FROM a.times x JOIN b.times y USING (id) WHERE x.d <=> y.d AND x.t <=> y.t AND x.ts6 <=> y.ts6 AND x.dt6 <=> y.dt6;
    SELECT 'shapes', count(*) FROM a.shapes x JOIN b.shapes y USING (id) WHERE hex(x.g) <=> hex(y.g) AND hex(x.p) <=> hex(y.p) AND st_srid(x.g) = st_srid(y.g);
    SELECT 'hidden', sum(hidden) FROM b.`generated`;";
const SAME_VALUES_MARIADB: &str = "
    SELECT 'history', count(*) FROM a.history FOR SYSTEM_TIME ALL x JOIN b.history FOR SYSTEM_TIME ALL y ON x.id = y.id AND x.row_start = y.row_start AND x.row_end = y.row_end AND x.price = y.price;
    SELECT 'own_period', count(*) FROM a.own_period FOR SYSTEM_TIME ALL x JOIN b.own_period FOR SYSTEM_TIME ALL y ON x.id = y.id AND x.since = y.since AND x.until = y.until AND x.x = y.x;
    SELECT 'invoice', (SELECT next_not_cached_value FROM a.invoice) = (SELECT next_not_cached_value FROM b.invoice)";
const SAME_VALUES_MYSQL: &str = "
    SELECT 'vectors', count(*) FROM a.vectors x JOIN b.vectors y USING (id) WHERE hex(x.v) <=> hex(y.v) AND x.d <=> y.d;
    SELECT 'tags', count(*) FROM b.vectors WHERE 2 MEMBER OF (d->'$.tags')";

#[tokio::test(flavor = "multi_thread")]
async fn every_type_and_object_comes_back() {
    let server = Server::start().await.unwrap();
    let url = server.database("a").unwrap();
    server.sql("", "ALTER DATABASE a CHARACTER SET latin1 COLLATE latin1_german1_ci").unwrap();
    server.sql("a", every_type(&server)).unwrap();
    let shop = Shop::new().await;
    let source = MysqlSource::new(&url).unwrap();
    let snapshot = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    assert_eq!(snapshot.manifest.problems, []);
    let target = MysqlTarget::new(&server.url("b")).unwrap();
    let report = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap();
    // Kept as it was, and said: whoever uses it hears that there is no such user.
    assert!(
        report.notes.len() == 1 && report.notes[0].contains("`nobody`@`nowhere` does not exist"),
        "{:?}",
        report.notes
    );
    assert!(report.is_equal());
    assert_same(&server, "a", "b", &[]);
    assert_same(&server, "a", "b", &["--order-by-primary"]);
    let (more, found) = if server.is_mariadb() {
        assert_same(&server, "a", "b", &["--order-by-primary", "--dump-history"]);
        (SAME_VALUES_MARIADB, "history\t3\nown_period\t2\ninvoice\t1\n")
    } else {
        (SAME_VALUES_MYSQL, "vectors\t3\ntags\t1\n")
    };
    assert_eq!(
        server.sql("", &format!("{SAME_VALUES}{more}")).unwrap(),
        format!("numbers\t506\ntexts\t4\ntimes\t3\nshapes\t2\nhidden\t6\n{found}")
    );
    assert_eq!(server.sql("b", "SELECT two FROM a_needs_b; SELECT shout('hi'); INSERT INTO no_key VALUES (1, 'x'); SELECT a, b FROM no_key WHERE a > 100").unwrap(), "2\nHI!;\n101\ttrig\n");
    assert_eq!(
        server
            .sql("", "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = 'b'")
            .unwrap(),
        "latin1_german1_ci\n"
    );
    // Into what is not empty, nothing.
    let e = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), backup_core::ErrorKind::TargetNotEmpty);
    // A failed restore leaves a place as vacant as it was.
    let user = "CREATE USER weak@localhost; GRANT ALL ON weak.* TO weak@localhost; CREATE DATABASE weak";
    server.sql("", user).unwrap();
    let weak = MysqlTarget::new(&server.url_as("weak", "weak")).unwrap();
    let report = shop.repository.restore(&snapshot, &weak, RestoreOptions::default()).await;
    match report {
        Ok(report) => assert!(report.notes.iter().any(|n| n.contains("nobody")), "{:?}", report.notes),
        Err(e) => panic!("{e}"),
    }
    // A drill in a database that was made for it leaves it as empty as it was.
    let prepared = MysqlTarget::new(&server.database("prepared").unwrap()).unwrap();
    let drill = shop.repository.drill(&snapshot, &prepared, backup_core::DrillOptions::default()).await.unwrap();
    assert!(drill.passed(), "{:?}", drill.restore);
    let left = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'prepared' UNION ALL
        SELECT routine_name FROM information_schema.routines WHERE routine_schema = 'prepared' UNION ALL
        SELECT event_name FROM information_schema.events WHERE event_schema = 'prepared'";
    assert_eq!(server.sql("", left).unwrap(), "");
}

/// Tables that are long enough for statements with values instead of text, on servers that get those.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_of_every_type_come_back() {
    let server = Server::start().await.unwrap();
    let url = server.database("a").unwrap();
    server.sql("a", every_type(&server)).unwrap();
    let times = server.numbers(60);
    server.sql("a", "UPDATE texts SET lt = left(lt, 3000), lb = left(lb, 3000)").unwrap();
    let sets = "SET sql_mode = ''; SET foreign_key_checks = 0";
    let mut tables = vec!["numbers", "times", "shapes", "no_key", "my", "texts"];
    let more: &[&str] = if server.is_mariadb() { &["uuids", "aria"] } else { &["vectors"] };
    tables.extend(more);
    for table in &tables {
        // The many first, because the first statements are text.
        let more = server.numbers(if *table == "numbers" { 40 } else { 4000 });
        let some = if *table == "texts" { "WHERE t.id < 4" } else { "" };
        let sql = format!(
            "{sets}; CREATE TABLE many_{table} AS SELECT t.* FROM {table} t, {more} {some};
             INSERT INTO many_{table} SELECT t.* FROM {table} t, {times}"
        );
        server.sql("a", &sql).unwrap();
    }
    if server.is_mariadb() {
        let sql = "CREATE TABLE many_history (id int, price decimal(9,2), KEY (id)) WITH SYSTEM VERSIONING;
            INSERT INTO many_history SELECT seq, seq / 7 FROM seq_1_to_30000; UPDATE many_history SET price = price + 1 WHERE id > 20;
            DELETE FROM many_history WHERE id % 3 = 0";
        server.sql("a", sql).unwrap();
    }
    let shop = Shop::new().await;
    let snapshot = shop.repository.backup(&MysqlSource::new(&url).unwrap(), BackupOptions::default()).await.unwrap();
    let target = MysqlTarget::new(&server.url("b")).unwrap();
    let report = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap();
    assert!(report.is_equal());
    assert_same(&server, "a", "b", &["--order-by-primary"]);
    if server.is_mariadb() {
        assert_same(&server, "a", "b", &["--order-by-primary", "--dump-history"]);
        let executed: i32 = server
            .sql(
                "",
                "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'com_stmt_execute'",
            )
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(executed > 100, "{executed}");
    }
    // What a client prints is rounded for some types, what the server stores is not.
    let bits = "SELECT count(*), sum(concat(db) = '-0'), sum(bit64 = 1 << 63 | 1),
        sum(crc32(concat_ws(',', id, hex(bit9), hex(bit64), d, db, f * 1e0, f2, y))) FROM many_numbers";
    let before = server.sql("a", bits).unwrap();
    assert_eq!(before, server.sql("b", bits).unwrap());
    // MariaDB 10.11 knows no negative zero.
    assert!(["50600\t0\t100\t", "50600\t100\t100\t"].iter().any(|b| before.starts_with(b)), "{before}");
}

/// The driver takes a row that begins with a value of 16 MiB for the end of the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_many_megabytes_at_the_beginning_is_not_the_end() {
    let server = Server::start_with(&["--max-allowed-packet=128M"]).await.unwrap();
    let url = server.database("a").unwrap();
    server
        .sql("a", "CREATE TABLE docs (body longblob, id int PRIMARY KEY); INSERT INTO docs SELECT repeat(X'00', 20000000), 1; INSERT INTO docs VALUES ('after', 2), (repeat('x', 17000000), 3), (NULL, 4)")
        .unwrap();
    let shop = Shop::new().await;
    let source = MysqlSource::new(&url).unwrap().with_connections(1);
    let snapshot = shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
    assert_eq!(snapshot.manifest.entry("data/docs").unwrap().fingerprint.rows(), 4);
    let target = MysqlTarget::new(&server.url("b")).unwrap();
    assert!(shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap().is_equal());
    let same = "SELECT count(*) FROM a.docs x JOIN b.docs y USING (id) WHERE sha2(x.body, 256) <=> sha2(y.body, 256)";
    assert_eq!(server.sql("", same).unwrap(), "4\n");
}

/// What a routine was made under is not what a view after it is made under.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_does_not_take_after_the_routine_before_it() {
    let server = Server::start().await.unwrap();
    let url = server.database("a").unwrap();
    let sql = "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'; SET character_set_client = latin1; CREATE FUNCTION zz() RETURNS int RETURN 1;
        SET sql_mode = ''; SET NAMES utf8mb4; CREATE TABLE t (`Größe` int);
        CREATE VIEW v AS SELECT `Größe`, 'a\\\\b' AS text FROM t; CREATE VIEW w AS SELECT `Größe`, text FROM v";
    server.sql("a", sql).unwrap();
    let shop = Shop::new().await;
    let snapshot = shop.repository.backup(&MysqlSource::new(&url).unwrap(), BackupOptions::default()).await.unwrap();
    assert_eq!(snapshot.manifest.problems, []);
    let target = MysqlTarget::new(&server.url("b")).unwrap();
    assert!(shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap().is_equal());
    assert_same(&server, "a", "b", &[]);
    assert_eq!(
        server.sql("b", "INSERT INTO t VALUES (5); SELECT * FROM w").unwrap(),
        server.sql("a", "INSERT INTO t VALUES (5); SELECT * FROM w").unwrap()
    );
}

/// The server keeps views of tables that are gone, and nobody can make them: that must not cost the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_does_not_work_is_named_and_costs_nothing_else() {
    let server = Server::start().await.unwrap();
    let url = server.database("a").unwrap();
    server
        .sql("a", "CREATE TABLE t (x int); CREATE TABLE gone (x int); INSERT INTO t VALUES (1); CREATE VIEW broken AS SELECT x FROM gone; CREATE VIEW good AS SELECT x FROM t; DROP TABLE gone; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET new.x = 7")
        .unwrap();
    let shop = Shop::new().await;
    let snapshot = shop.repository.backup(&MysqlSource::new(&url).unwrap(), BackupOptions::default()).await.unwrap();
    assert!(snapshot.manifest.problems.len() == 1 && snapshot.manifest.problems[0].subject == "broken");
    let target = MysqlTarget::new(&server.url("b")).unwrap();
    let report = shop.repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap();
    assert!(report.notes.iter().any(|n| n.contains("broken")), "{:?}", report.notes);
    let after = "INSERT INTO t VALUES (2); SELECT x FROM good; SHOW FULL TABLES WHERE Table_type = 'VIEW'";
    assert_eq!(server.sql("b", after).unwrap(), "1\n7\ngood\tVIEW\n");
}

/// Read side by side, and yet the same rows in the same order.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_read_in_parts_comes_back_in_its_order() {
    let server = Server::start().await.unwrap();
    let url = server.database("a").unwrap();
    server
        .sql("a", "CREATE TABLE big (id bigint unsigned, n smallint, body varchar(1000), PRIMARY KEY (id, n)) ENGINE=InnoDB; CREATE TABLE small (x int);
            INSERT INTO big SELECT seq * 7 DIV 3, seq % 3, repeat(sha2(seq, 256), 15) FROM NUMBERS;
            INSERT INTO big VALUES (0, -5, 'first'), (18446744073709551615, 32767, 'last'); ANALYZE TABLE big, small"
            .replace("NUMBERS", &server.numbers(45_000))
            .as_str())
        .unwrap();
    let shop = Shop::new().await;
    let one = MysqlSource::new(&url).unwrap().with_connections(1);
    let several = MysqlSource::new(&url).unwrap().with_connections(3);
    let whole = shop.repository.backup(&one, BackupOptions::default()).await.unwrap();
    server.sql("", "SET GLOBAL general_log_file = 'general', GLOBAL general_log = 1").unwrap();
    let parts = shop.repository.backup(&several, BackupOptions::default()).await.unwrap();
    server.sql("", "SET GLOBAL general_log = 0").unwrap();
    let log = String::from_utf8_lossy(&std::fs::read(server.data().join("general")).unwrap()).into_owned();
    let selects = log.lines().filter(|l| l.contains("SELECT 0,") && l.contains("FROM `big` WHERE")).count();
    assert!(selects >= 8, "{selects}");
    assert_eq!(
        parts.manifest.entry("data/big").unwrap().fingerprint,
        whole.manifest.entry("data/big").unwrap().fingerprint
    );
    assert_eq!(parts.manifest.totals.rows, 45_002);
    assert_eq!(parts.manifest.totals.objects, 0, "the same bytes in the same order");
    let target = MysqlTarget::new(&server.url("b")).unwrap();
    assert!(shop.repository.restore(&parts, &target, RestoreOptions::default()).await.unwrap().is_equal());
    assert_same(&server, "a", "b", &[]);
}
