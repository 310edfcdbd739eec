//! What two looks tell, on real servers: slow queries, growth, space that stays free, replicas that are behind.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use db_maint::chrono::TimeDelta;
use db_maint::{
    ApplyOptions, Engine, Forecast, GrowthOptions, GrowthReport, History, InspectOptions, NodeRole, Outcome,
    PlanOptions, Rate, Room, Severity, StepAction, StepEnd, apply, open,
};
use storefront::{Size, mysql, postgres};
use support::Db;

async fn history(shop: &dyn Engine) -> History {
    let mut history = History::default();
    history.push(shop.look().await.unwrap()).unwrap();
    history
}

fn beside(history: History) -> InspectOptions {
    InspectOptions::default().with_history(history).with_pause(TimeDelta::zero())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_queries_are_slow_between_two_looks_and_never_shown_with_their_values() {
    let server = postgres::Server::start_with(&["shared_preload_libraries=pg_stat_statements"]).await.unwrap();
    let url = server.database("shop").await.unwrap();
    let shop = open(&url).unwrap();
    let of =
        async |options: &InspectOptions| shop.inspect(options).await.unwrap().outcome("slow-queries").unwrap().clone();
    let without = of(&InspectOptions::default()).await;
    assert!(
        matches!(&without, Outcome::Unknown { reason, .. } if reason.contains("pg_stat_statements")),
        "{without:?}"
    );

    server.psql("shop", "CREATE EXTENSION pg_stat_statements; SELECT pg_sleep(1.6), 'long ago'").unwrap();
    // Slow once, and long ago: that is not told, and neither is anything by one look alone.
    let one = of(&InspectOptions::default()).await;
    assert!(matches!(&one, Outcome::Unknown { reason, .. } if reason.contains("two looks")), "{one:?}");
    let options = beside(history(&*shop).await);
    let quiet = of(&options).await;
    assert_eq!(quiet.findings(), [], "{quiet:?}");
    server.psql("shop", "SELECT pg_sleep(1.2), 'secret@customer.example', 4711 AS now_slow").unwrap();
    let slow = of(&options).await;
    let told: Vec<_> = slow.findings().iter().map(|f| f.summary.as_str()).collect();
    assert_eq!(told.len(), 1, "{slow:?}");
    assert!(told[0].contains("now_slow") && told[0].contains("1 times"), "{told:?}");
    assert!(!told[0].contains("secret") && !told[0].contains("4711"), "{told:?}");
    // What the server forgets between the looks has no figure.
    server.psql("shop", "SELECT pg_stat_statements_reset()").unwrap();
    let anew = of(&options).await;
    assert!(matches!(&anew, Outcome::Unknown { reason, .. } if reason.contains("anew")), "{anew:?}");
    // A role that sees the sessions of nobody sees their queries neither.
    let other = open(&server.url_as("shop", "shop")).unwrap();
    let blind = other.inspect(&beside(history(&*other).await)).await.unwrap();
    let outcome = blind.outcome("slow-queries");
    assert!(
        matches!(outcome, Some(Outcome::Unknown { reason, .. }) if reason.contains("queries of others")),
        "{outcome:?}"
    );
    // What somebody else looked at is no history of this.
    assert_eq!(other.inspect(&options).await.unwrap_err().kind(), db_maint::ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_queries_are_slow_between_two_looks() {
    let server =
        mysql::Server::start_with(&["--performance-schema=ON", "--performance-schema-consumer-statements-digest=ON"])
            .await
            .unwrap();
    let url = server.database("shop").unwrap();
    server.sql("shop", "SELECT SLEEP(1.6), 'long ago'").unwrap();
    let shop = open(&url).unwrap();
    let options = beside(history(&*shop).await);
    let of = async || shop.inspect(&options).await.unwrap().outcome("slow-queries").unwrap().clone();
    let quiet = of().await;
    assert_eq!(quiet.findings(), [], "{quiet:?}");
    server.sql("shop", "SELECT SLEEP(1.2) AS now_slow, 'secret@customer.example'").unwrap();
    let slow = of().await;
    assert_eq!(slow.findings().len(), 1, "{slow:?}");
    let told = &slow.findings()[0].summary;
    assert!(told.contains("now_slow") && !told.contains("secret"), "{told}");
    server.sql("", "TRUNCATE performance_schema.events_statements_summary_by_digest; USE shop; SELECT SLEEP(1.2) AS now_slow, ''").unwrap();
    let anew = shop.inspect(&options).await.unwrap();
    let told: Vec<_> = anew.unknown().filter(|(check, _)| *check == "slow-queries").collect();
    assert!(told.iter().any(|(_, why)| why.contains("came back")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_engine_says_how_large_it_is_and_how_fast_it_grows() {
    for db in support::every().await {
        db.empty().await;
        db.run("CREATE TABLE filler (id bigint PRIMARY KEY, data varchar(2000))").await;
        let shop = db.engine();
        let mut history = History::default();
        let mut before = None;
        for day in 0..5i64 {
            let rows: Vec<String> = (0..500).map(|n| format!("({}, '{}')", day * 500 + n, "x".repeat(1_900))).collect();
            db.run(&format!("INSERT INTO filler VALUES {}", rows.join(", "))).await;
            let mut look = shop.look().await.unwrap();
            look.taken_at += TimeDelta::days(day);
            before.get_or_insert(look.taken_at);
            history.push(look).unwrap();
        }
        let report = GrowthReport::of(&history, &GrowthOptions::default().with_free_bytes(1 << 20)).unwrap();
        let Rate::Known { bytes_per_day, .. } = report.database.rate else { panic!("{}: {report:?}", db.name()) };
        // 500 rows of 1.9 kB are some 0.95 MB; an engine grows its file in steps.
        assert!((400_000.0..4_000_000.0).contains(&bytes_per_day), "{}: {bytes_per_day}", db.name());
        assert!(matches!(report.forecast, Forecast::Full { .. }), "{}: {report:?}", db.name());
        if db.name() != "sqlite" {
            assert_eq!(report.tables[0].0.name, "filler", "{}", db.name());
        }
        assert_eq!(Some(report.since), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_holds_does_not_keep_a_look_waiting() {
    let db = support::postgres().await;
    db.fill(100).await;
    let mut holder = postgres::open(&db.url()).await.unwrap();
    postgres::run(&mut holder, "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let look = db.engine().look().await.unwrap();
    let mut history = History::default();
    history.push(look).unwrap();
    let report = GrowthReport::of(&history, &GrowthOptions::default()).unwrap();
    assert!(report.tables.iter().any(|(table, _)| table.name == "customers"), "{report:?}");
}

/// InnoDB frees whole extents of 1 MiB only: some 200 MiB of rows, most of which go.
#[tokio::test(flavor = "multi_thread")]
async fn space_that_stays_free_for_a_day_is_given_back_beside_writers() {
    let db = support::mysql().await;
    let Db::Mysql(server, _) = &db else { panic!() };
    let from = server.numbers(100_000);
    db.run("CREATE TABLE log (id bigint PRIMARY KEY, data varchar(2000)) ENGINE=InnoDB").await;
    db.run(&format!("INSERT INTO log SELECT seq, REPEAT('x', 1900) FROM {from}")).await;
    db.run("DELETE FROM log WHERE id > 5000").await;
    let shop = db.engine();
    // Until what was deleted is purged, its pages are not free.
    let free = "SELECT CAST(DATA_FREE AS SIGNED) FROM information_schema.TABLES WHERE TABLE_NAME = 'log'";
    while db.count(free).await < 150 << 20 {
        db.run("ANALYZE TABLE log").await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let mut look = shop.look().await.unwrap();
    look.taken_at -= TimeDelta::hours(2);
    let mut young = History::default();
    young.push(look.clone()).unwrap();
    let today = shop.inspect(&beside(young)).await.unwrap();
    let outcome = today.outcome("table-free-space").unwrap();
    assert!(matches!(outcome, Outcome::Unknown { reason, .. } if reason.contains("a day apart")), "{outcome:?}");
    look.taken_at -= TimeDelta::days(1);
    let mut old = History::default();
    old.push(look).unwrap();
    let options = beside(old);
    let found = shop.inspect(&options).await.unwrap();
    assert_eq!(found.outcome("table-free-space").unwrap().findings()[0].object, "log");

    let plan = shop.plan(&options, &PlanOptions::default()).await.unwrap();
    let step = plan.steps.iter().find(|s| s.action == StepAction::Rebuild).unwrap();
    assert_eq!(step.sql, "ALTER TABLE `log` FORCE, ALGORITHM=INPLACE, LOCK=NONE");
    assert!(step.needs_bytes.is_some());
    // A writer goes on meanwhile.
    let mut writer = mysql::open(&db.url()).await.unwrap();
    let writing = tokio::spawn(async move {
        for n in 0..50 {
            mysql::run(&mut writer, &format!("INSERT INTO log VALUES ({}, 'new')", 200_000 + n)).await.unwrap();
        }
    });
    let tight = ApplyOptions::default().with_room(Room::Bytes(1 << 20));
    let refused = apply(&*shop, &plan, &tight, None).await.unwrap();
    let end = |report: &db_maint::ApplyReport| report.steps.iter().find(|s| s.sql == step.sql).unwrap().end.clone();
    assert!(matches!(end(&refused), StepEnd::Failed { reason } if reason.contains("are free")), "{refused:?}");
    let roomy = ApplyOptions::default().with_room(Room::OnDiskOf(server.data()));
    let done = apply(&*shop, &plan, &roomy, None).await.unwrap();
    assert_eq!(end(&done), StepEnd::Done, "{done:?}");
    writing.await.unwrap();
    db.run("ANALYZE TABLE log").await;
    assert!(db.count(free).await < 20 << 20);
    assert_eq!(db.count("SELECT COUNT(*) FROM log").await, 5_050);
}

#[tokio::test(flavor = "multi_thread")]
async fn innodb_statistics_that_nobody_renews_are_renewed_by_a_plan() {
    let server = mysql::Server::start().await.unwrap();
    // InnoDB itself writes such a name in another way.
    let url = server.database("my-shop").unwrap();
    let db = Db::Mysql(server, url);
    let Db::Mysql(server, _) = &db else { panic!() };
    let from = server.numbers(5_000);
    db.run("CREATE TABLE stale (id bigint PRIMARY KEY, a int, KEY by_a (a)) ENGINE=InnoDB STATS_AUTO_RECALC=0").await;
    db.run(&format!("INSERT INTO stale SELECT seq, seq FROM {from}")).await;
    let shop = db.engine();
    let stale = shop.inspect(&InspectOptions::default()).await.unwrap();
    assert_eq!(stale.outcome("statistics-stale").unwrap().findings()[0].object, "stale", "{stale:?}");
    let plan = shop.plan(&InspectOptions::default(), &PlanOptions::default()).await.unwrap();
    let report = apply(&*shop, &plan, &ApplyOptions::default(), None).await.unwrap();
    assert!(report.steps.iter().any(|s| s.sql.contains("ANALYZE") && s.end == StepEnd::Done), "{report:?}");
    let mended = shop.inspect(&InspectOptions::default()).await.unwrap();
    assert_eq!(mended.outcome("statistics-stale").unwrap().findings(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_standby_that_falls_behind_and_a_slot_that_nobody_reads_are_told() {
    let primary = postgres::Server::start().await.unwrap();
    let url = primary.database("shop").await.unwrap();
    postgres::create(&url, &Size::orders(50), 1).await.unwrap();
    let standby = primary.standby("copy").await.unwrap();
    let (at_primary, at_standby) = (open(&url).unwrap(), open(&standby.url("shop")).unwrap());
    let of = async |shop: &dyn Engine| {
        let inspection = shop.inspect(&InspectOptions::default()).await.unwrap();
        (inspection.capabilities.role, inspection.outcome("replication-lag").unwrap().clone())
    };
    loop {
        let (role, outcome) = of(&*at_primary).await;
        if role == NodeRole::Primary && matches!(outcome, Outcome::Clean { .. }) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (role, outcome) = of(&*at_standby).await;
    assert_eq!((role, matches!(outcome, Outcome::Clean { .. })), (NodeRole::Replica, true), "{outcome:?}");

    primary.psql("shop", "SELECT pg_create_physical_replication_slot('forgotten', true)").unwrap();
    let (_, outcome) = of(&*at_primary).await;
    assert_eq!(outcome.findings()[0].object, "slot forgotten", "{outcome:?}");
    drop(primary);
    loop {
        let (_, outcome) = of(&*at_standby).await;
        if outcome.findings().iter().any(|f| f.severity == Severity::Critical) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_replica_that_stopped_is_told_with_its_error_and_without_its_rows() {
    let primary = mysql::Server::start_primary().await.unwrap();
    let replica = primary.replica(0).await.unwrap();
    primary.database("shop").unwrap();
    primary.sql("shop", "CREATE TABLE t (id int PRIMARY KEY, secret varchar(20))").unwrap();
    while replica.sql("", "SHOW TABLES IN shop").is_err() || !replica.sql("shop", "SHOW TABLES").unwrap().contains('t')
    {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let shop = open(&replica.url("shop")).unwrap();
    let of =
        async || shop.inspect(&InspectOptions::default()).await.unwrap().outcome("replication-lag").unwrap().clone();
    let well = of().await;
    assert!(matches!(well, Outcome::Clean { .. }), "{well:?}");
    replica.sql("shop", "INSERT INTO t VALUES (1, 'here')").unwrap();
    primary.sql("shop", "INSERT INTO t VALUES (1, 'geheim')").unwrap();
    let broken = loop {
        let outcome = of().await;
        if !outcome.findings().is_empty() {
            break outcome;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let finding = &broken.findings()[0];
    assert_eq!(finding.severity, Severity::Critical);
    assert!(finding.summary.contains("error 1062") && !finding.summary.contains("geheim"), "{finding:?}");
    // Its primary does not know.
    let at_primary = open(&primary.url("shop")).unwrap().inspect(&InspectOptions::default()).await.unwrap();
    assert!(
        matches!(at_primary.outcome("replication-lag"), Some(Outcome::Unknown { .. })),
        "{:?}",
        at_primary.outcome("replication-lag")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_are_looked_through_where_the_server_does_not_vouch_for_them() {
    let db = support::postgres().await;
    for sql in [
        "CREATE TABLE a (id int PRIMARY KEY)",
        "CREATE TABLE b (id int PRIMARY KEY, a_id int CONSTRAINT to_a REFERENCES a)",
        "CREATE INDEX ON b (a_id)",
        "INSERT INTO a VALUES (1)",
        "INSERT INTO b VALUES (1, 1), (2, NULL)",
    ] {
        db.run(sql).await;
    }
    let of = async |db: &Db, integrity| {
        let options = InspectOptions::default().with_integrity(integrity);
        db.engine().inspect(&options).await.unwrap().outcome("foreign-key-violated").unwrap().clone()
    };
    assert!(matches!(of(&db, false).await, Outcome::Clean { .. }));
    // Whoever switched its triggers off let in what he liked.
    db.run("ALTER TABLE b DISABLE TRIGGER ALL").await;
    db.run("INSERT INTO b VALUES (3, 9)").await;
    assert!(matches!(of(&db, false).await, Outcome::Unknown { .. }));
    assert_eq!(of(&db, true).await.findings()[0].object, "public.b.to_a");

    let db = support::mysql().await;
    let Db::Mysql(server, _) = &db else { panic!() };
    server
        .sql("", "CREATE DATABASE crm; CREATE TABLE crm.a (id int PRIMARY KEY); INSERT INTO crm.a VALUES (1)")
        .unwrap();
    // A table of the same name here is not the one that is meant.
    db.run("CREATE TABLE a (id int PRIMARY KEY)").await;
    db.run("CREATE TABLE b (id int PRIMARY KEY, a_id int, CONSTRAINT to_a FOREIGN KEY (a_id) REFERENCES crm.a (id))")
        .await;
    db.run("INSERT INTO b VALUES (1, 1)").await;
    assert!(matches!(of(&db, false).await, Outcome::Unknown { .. }));
    let outcome = of(&db, true).await;
    assert!(matches!(outcome, Outcome::Clean { .. }), "{outcome:?}");
}
