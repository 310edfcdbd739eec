//! Plans, and what becomes of them on real servers and files.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use db_maint::chrono::{TimeDelta, Utc};
use db_maint::{ApplyOptions, ErrorKind, InspectOptions, Plan, PlanOptions, StepAction, StepEnd, Stop, apply, open};
use storefront::pgbouncer::PgBouncer;
use storefront::{faults, mysql, postgres};
use support::Db;

fn later() -> InspectOptions {
    InspectOptions::default().at(Utc::now() + TimeDelta::days(31))
}

fn quick() -> ApplyOptions {
    ApplyOptions::default().with_tries(2, Duration::from_millis(50))
}

async fn plan(db: &Db, options: PlanOptions) -> Plan {
    db.engine().plan(&later(), &options).await.unwrap()
}

async fn all(db: &Db, statements: &[&str]) {
    if let Db::Sqlite(dir) = db {
        // One session: what is set in it matters to the next statement.
        let mut shop = storefront::sqlite::open(&dir.path().join("shop.db"), false).await.unwrap();
        for sql in statements {
            storefront::sqlite::run(&mut shop, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        return sqlx::Connection::close(shop).await.unwrap();
    }
    if let Db::Mysql(_, url) = db {
        let mut shop = mysql::open(url).await.unwrap();
        for sql in statements {
            mysql::run(&mut shop, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        return;
    }
    for sql in statements {
        match sql.strip_prefix('!') {
            Some(sql) => drop(db.try_run(sql).await.unwrap_err()),
            None => db.run(sql).await,
        }
    }
}

fn actions(plan: &Plan) -> Vec<(StepAction, String)> {
    plan.steps.iter().map(|step| (step.action, step.object())).collect()
}

async fn faulty() -> Db {
    let db = support::postgres().await;
    db.fill(2_000).await;
    all(&db, faults::POSTGRES.mend).await;
    let Db::Postgres(_, url) = &db else { panic!() };
    let mut shop = postgres::open(url).await.unwrap();
    for sql in faults::POSTGRES.trade {
        postgres::run(&mut shop, sql).await.unwrap();
    }
    sqlx::Connection::close(shop).await.unwrap();
    all(&db, faults::POSTGRES.plant).await;
    quiet(&db).await;
    db
}

/// Until what every session counted has reached the server.
async fn quiet(db: &Db) {
    let Db::Postgres(server, _) = db else { return };
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    while server.psql("shop", sql).unwrap().trim() != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_mends_what_was_found_on_postgres() {
    let db = faulty().await;
    let careful = plan(&db, PlanOptions::default()).await;
    assert!(careful.steps.iter().all(|s| !matches!(s.action, StepAction::DropIndex | StepAction::HideIndex)));
    let plan_ = plan(&db, PlanOptions::default().retiring_indexes()).await;
    let object = |name: &str| format!("public.{name}");
    assert_eq!(
        actions(&plan_),
        [
            (StepAction::Vacuum, object("order_items")),
            (StepAction::Analyze, object("import_2020")),
            (StepAction::Reindex, object("addresses.addresses_country")),
            (StepAction::DropIndex, object("orders.orders_customer_again")),
            (StepAction::DropIndex, object("payments.payments_gateway")),
            (StepAction::DropIndex, object("orders.orders_ip")),
        ]
    );
    // What undoes a step is the index as it was.
    assert!(plan_.steps[5].undo.as_deref().unwrap().starts_with("CREATE INDEX orders_ip ON public.orders"));
    let engine = db.engine();
    let report = apply(&*engine, &plan_, &quick(), None).await.unwrap();
    let ends: Vec<_> = report.steps.iter().map(|s| s.end == StepEnd::Done).collect();
    // The index that could not be built the first time cannot be built now either: two rows are the same.
    assert_eq!(ends, [true, true, false, true, true, true], "{report:#?}");
    assert!(
        matches!(&report.steps[2].end, StepEnd::Failed { reason } if reason.contains("could not create unique index"))
    );
    assert_eq!(report.swept, ["public.addresses.addresses_country_ccnew"]);
    quiet(&db).await;
    let mended = engine.inspect(&later()).await.unwrap();
    let left: Vec<_> = mended.findings().map(|f| (f.check.as_str(), f.object.as_str())).collect();
    assert_eq!(
        left,
        [
            ("counter-exhaustion", "public.tickets.id"),
            ("index-invalid", "public.addresses.addresses_country"),
            ("table-without-primary-key", "public.import_2019"),
            ("foreign-key-unindexed", "public.testimonials.testimonials_product"),
        ]
    );
    assert_eq!(db.count("SELECT count(*) FROM caretaker_audit").await, 6);
    assert_eq!(db.count("SELECT count(*) FROM caretaker_audit WHERE outcome::json->>'end' = 'done'").await, 5);
    // The same plan once more no longer fits.
    assert_eq!(apply(&*engine, &plan_, &quick(), None).await.unwrap_err().kind(), ErrorKind::Drift);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_no_longer_fits_does_nothing_at_all() {
    let db = faulty().await;
    let plan = plan(&db, PlanOptions::default().retiring_indexes()).await;
    // Somebody made another index of that name.
    db.run("DROP INDEX orders_ip").await;
    db.run("CREATE INDEX orders_ip ON orders (ip, placed_at)").await;
    let e = apply(&*db.engine(), &plan, &quick(), None).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Drift && e.to_string().contains("orders_ip"), "{e:?}");
    assert_eq!(db.count("SELECT count(*) FROM pg_class WHERE relname IN ('orders_ip', 'payments_gateway')").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_a_lock_breaks_off_leaves_nothing_that_the_next_run_does_not_sweep() {
    let db = support::postgres().await;
    db.fill(500).await;
    let Db::Postgres(_, url) = &db else { panic!() };
    let rebuild = || PlanOptions::default().rebuilding(vec!["public.orders.orders_customer".into()]);
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    // A transaction of the shop that stays open: the rebuild waits for it, and so would every clean-up.
    let mut shop = postgres::open(url).await.unwrap();
    postgres::run(&mut shop, "BEGIN; UPDATE orders SET note = 'x' WHERE id = 1").await.unwrap();
    let first = plan(&db, rebuild()).await;
    let report = apply(&*db.engine(), &first, &quick(), None).await.unwrap();
    assert!(matches!(report.steps[0].end, StepEnd::Busy { .. }), "{report:#?}");
    assert!(db.count(invalid).await > 0);
    postgres::run(&mut shop, "COMMIT").await.unwrap();
    // The next run finds and sweeps it, and the rebuild that was asked for is done.
    let second = plan(&db, rebuild()).await;
    assert!(second.steps.iter().any(|s| s.action == StepAction::DropInvalidIndex), "{:?}", actions(&second));
    let report = apply(&*db.engine(), &second, &quick(), None).await.unwrap();
    assert!(report.steps.iter().all(|s| s.end == StepEnd::Done), "{report:#?}");
    assert_eq!(db.count(invalid).await, 0);
    assert_eq!(db.count("SELECT count(*) FROM pg_class WHERE relname LIKE '%ccnew%'").await, 0);

    // A transaction that ends while the rebuild is tried again is in nobody's way.
    postgres::run(&mut shop, "BEGIN; UPDATE orders SET note = 'x' WHERE id = 1").await.unwrap();
    let third = plan(&db, rebuild()).await;
    let patient = ApplyOptions::default().with_tries(20, Duration::from_millis(200));
    let engine = db.engine();
    let (report, ()) = tokio::join!(apply(&*engine, &third, &patient, None), async {
        // Once the first try has left something.
        while db.count(invalid).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        postgres::run(&mut shop, "COMMIT").await.unwrap();
    });
    assert_eq!(report.unwrap().steps[0].end, StepEnd::Done);
    assert_eq!(db.count(invalid).await, 0);
}

/// An index that takes seconds to build.
pub async fn slow_index(db: &Db) {
    db.run("CREATE FUNCTION slow(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1; END $$")
        .await;
    db.run("CREATE INDEX orders_slow ON orders (slow(id))").await;
    db.run("CREATE OR REPLACE FUNCTION slow(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN $1; END $$").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_stopped_is_cleared_up_after() {
    let db = support::postgres().await;
    db.fill(1_000).await;
    db.run("ANALYZE").await;
    slow_index(&db).await;
    let plan = plan(&db, PlanOptions::default().rebuilding(vec!["public.orders.orders_slow".into()])).await;
    let stop = Stop::default();
    let options = quick().with_stop(stop.clone());
    let engine = db.engine();
    let (report, ()) = tokio::join!(apply(&*engine, &plan, &options, None), async {
        // The index of the table that the plan itself makes for its log is none of it.
        let building = "SELECT count(*) FROM pg_stat_progress_create_index \
                        WHERE phase LIKE 'building%' AND relid = 'orders'::regclass";
        while db.count(building).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.stop();
    });
    let report = report.unwrap();
    assert_eq!(report.steps.last().unwrap().end, StepEnd::Stopped, "{report:#?}");
    assert_eq!(report.swept, ["public.orders.orders_slow_ccnew"]);
    assert_eq!(db.count("SELECT count(*) FROM pg_index WHERE NOT indisvalid").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_long_does_not_go_through_a_pooler() {
    let db = faulty().await;
    let Db::Postgres(server, _) = &db else { panic!() };
    let pooler = PgBouncer::start_with(server, 4).await.unwrap();
    let through = open(&pooler.url("shop")).unwrap();
    let plan = through.plan(&later(), &PlanOptions::default()).await.unwrap();
    let e = apply(&*through, &plan, &quick(), None).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unsupported && e.next_step().unwrap().contains("pooler"), "{e:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_hides_on_mysql_what_it_would_drop_elsewhere() {
    let server = if mysql::Server::start().await.unwrap().is_mariadb() {
        mysql::Server::start_with(&["--userstat=1"]).await.unwrap()
    } else {
        mysql::Server::start().await.unwrap()
    };
    let url = server.database("shop").unwrap();
    let db = Db::Mysql(server, url);
    db.fill(500).await;
    all(&db, faults::MYSQL.plant).await;
    all(&db, faults::MYSQL.trade).await;
    let plan_ = plan(&db, PlanOptions::default().retiring_indexes()).await;
    let hidden = ["orders.orders_customer_again", "payments.payments_gateway", "orders.orders_ip"];
    assert_eq!(actions(&plan_), hidden.map(|object| (StepAction::HideIndex, object.to_owned())));
    let Db::Mysql(_, url) = &db else { panic!() };
    // A transaction that has read the table keeps its definition: it is waited for, and not for long.
    let mut shop = mysql::open(url).await.unwrap();
    mysql::run(&mut shop, "BEGIN").await.unwrap();
    mysql::run(&mut shop, "SELECT COUNT(*) FROM orders").await.unwrap();
    let engine = db.engine();
    let report = apply(&*engine, &plan_, &quick(), None).await.unwrap();
    let busy: Vec<_> = report.steps.iter().map(|s| matches!(s.end, StepEnd::Busy { .. })).collect();
    assert_eq!(busy, [true, false, true], "{report:#?}");
    mysql::run(&mut shop, "COMMIT").await.unwrap();
    let again = plan(&db, PlanOptions::default().retiring_indexes()).await;
    let report = apply(&*engine, &again, &quick(), None).await.unwrap();
    assert!(report.steps.len() == 2 && report.steps.iter().all(|s| s.end == StepEnd::Done), "{report:#?}");
    assert!(plan(&db, PlanOptions::default().retiring_indexes()).await.steps.is_empty());
    // And back.
    db.run(plan_.steps[0].undo.as_deref().unwrap()).await;
    assert_eq!(plan(&db, PlanOptions::default().retiring_indexes()).await.steps.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_mends_what_was_found_on_sqlite() {
    let db = support::sqlite();
    db.fill(1_000).await;
    all(&db, faults::SQLITE.mend).await;
    all(&db, faults::SQLITE.plant).await;
    db.run("CREATE TABLE heap (id INTEGER PRIMARY KEY, text TEXT)").await;
    db.run(
        "INSERT INTO heap WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) \
         SELECT i, hex(zeroblob(500)) FROM n",
    )
    .await;
    db.run("DELETE FROM heap").await;
    let plan_ = plan(&db, PlanOptions::default().retiring_indexes()).await;
    let actions: Vec<_> = plan_.steps.iter().map(|s| s.action).collect();
    assert!(actions.contains(&StepAction::Analyze) && actions.contains(&StepAction::DropIndex), "{actions:?}");
    assert!(actions.contains(&StepAction::Vacuum), "{actions:?}");
    let report = apply(&*db.engine(), &plan_, &quick(), None).await.unwrap();
    assert!(report.steps.iter().all(|s| s.end == StepEnd::Done), "{report:#?}");
    let vacuum = report.steps.iter().find(|s| s.sql == "VACUUM").unwrap();
    assert!(vacuum.bytes_after < vacuum.bytes_before, "{vacuum:?}");
    assert!(plan(&db, PlanOptions::default().retiring_indexes()).await.steps.is_empty());
}
