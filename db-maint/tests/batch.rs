//! Clean-up by age and of orphans, on real servers and files.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use db_maint::chrono::{DateTime, TimeDelta, Utc};
use db_maint::{ErrorKind, JobEnd, JobOptions, JobReport, Policy, clean_up, mend_orphans};
use support::{Db, every};

/// When the sample shop's data ends.
fn end() -> DateTime<Utc> {
    DateTime::from_timestamp(storefront::NOW, 0).unwrap()
}

fn quick() -> JobOptions {
    JobOptions::default().at(end()).with_pace(Duration::from_millis(200), 0.0)
}

fn policy(json: serde_json::Value) -> Policy {
    serde_json::from_value(json).unwrap()
}

fn old_sessions() -> serde_json::Value {
    serde_json::json!({"name": "old sessions", "table": "sessions", "column": "last_used_at", "keep": "30d", "zone": "utc"})
}

async fn cleaned(db: &Db, policy: &Policy, options: &JobOptions) -> JobReport {
    clean_up(&*db.engine(), policy, options, None).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_and_nothing_else() {
    for db in every().await {
        let facts = db.fill(2_000).await;
        let all = db.count("SELECT count(*) FROM sessions").await;
        let policy = policy(serde_json::json!({"retention": [old_sessions()]}));
        // Counted first, and nothing is made or changed for it.
        let plan = cleaned(&db, &policy, &quick()).await;
        assert_eq!((plan.met, plan.changed, plan.ended), (facts.old_sessions, 0, JobEnd::Complete), "{}", db.name());
        assert_eq!(db.count("SELECT count(*) FROM sessions").await, all);
        assert!(db.try_run("SELECT * FROM caretaker_progress").await.is_err(), "{}", db.name());
        // What tells a session is not shown.
        assert!(plan.sample.len() == 10 && plan.sample.iter().all(|key| key.starts_with("sha256:")), "{plan:?}");
        let done = cleaned(&db, &policy, &quick().applied()).await;
        assert_eq!((done.met, done.changed), (facts.old_sessions, facts.old_sessions), "{}", db.name());
        let left = db.count("SELECT count(*) FROM sessions").await;
        assert_eq!(left, all - i64::try_from(facts.old_sessions).unwrap(), "{}", db.name());
        let again = cleaned(&db, &policy, &quick().applied()).await;
        assert_eq!((again.met, again.changed), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_early_goes_on_where_it_was_and_counts_what_was_committed() {
    for db in every().await {
        let facts = db.fill(2_000).await;
        let policy = policy(serde_json::json!({"retention": [old_sessions()]}));
        let first = cleaned(&db, &policy, &quick().applied().with_rows(7)).await;
        assert_eq!((first.changed, first.ended), (7, JobEnd::Budget), "{}", db.name());
        let options = quick().applied();
        options.stop.stop();
        let stopped = cleaned(&db, &policy, &options).await;
        assert_eq!((stopped.changed, stopped.changed_in_all, stopped.ended), (0, 7, JobEnd::Stopped));
        let rest = cleaned(&db, &policy, &quick().applied()).await;
        assert_eq!((rest.changed, rest.changed_in_all), (facts.old_sessions - 7, facts.old_sessions), "{}", db.name());
        // At the end it begins anew.
        assert_eq!(cleaned(&db, &policy, &quick().applied()).await.changed_in_all, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_or_is_not_meant_stays() {
    for db in every().await {
        db.fill(1_000).await;
        let old = "last_used_at < '2025-12-01'";
        let held = db.count(&format!("SELECT min(customer_id) FROM sessions WHERE {old}")).await;
        let of_held = db.count(&format!("SELECT count(*) FROM sessions WHERE customer_id = {held} AND {old}")).await;
        let anonymous = db.count(&format!("SELECT count(*) FROM sessions WHERE customer_id IS NULL AND {old}")).await;
        assert!(of_held > 0);
        let mut rule = old_sessions();
        rule["keep"] = "45d".into();
        rule["where"] = "customer_id IS NOT NULL".into();
        let hold = serde_json::json!({"reason": "a lawsuit", "table": "sessions", "column": "customer_id", "values": [held.to_string()]});
        let policy = policy(serde_json::json!({"retention": [rule], "hold": [hold]}));
        let done = cleaned(&db, &policy, &quick().applied()).await;
        assert!(done.changed > 0 && done.poison.is_empty(), "{}: {done:?}", db.name());
        let left = db.count(&format!("SELECT count(*) FROM sessions WHERE {old} AND customer_id <> {held}")).await;
        assert_eq!(left, 0, "{}", db.name());
        let kept = db.count(&format!("SELECT count(*) FROM sessions WHERE {old} AND customer_id = {held}")).await;
        assert_eq!(kept, of_held, "{}", db.name());
        assert_eq!(
            db.count(&format!("SELECT count(*) FROM sessions WHERE {old} AND customer_id IS NULL")).await,
            anonymous
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_anonymised_stays_unique_and_is_done_once() {
    for db in every().await {
        db.fill(1_000).await;
        db.run("CREATE INDEX customers_made ON customers (created_at)").await;
        let policy = policy(serde_json::json!({"retention": [{
            "name": "old customers", "table": "customers", "column": "created_at", "zone": "utc", "keep": "365d", "action": "anonymise",
            "set": {"name": "erased", "email": "erased-{key}@shop.invalid"}, "set_null": ["phone", "note", "birthday"]
        }]}));
        let done = cleaned(&db, &policy, &quick().applied()).await;
        assert!(done.changed > 0 && done.changed == done.met && done.poison.is_empty(), "{}: {done:?}", db.name());
        let erased =
            "SELECT count(DISTINCT email) FROM customers WHERE name = 'erased' AND phone IS NULL AND birthday IS NULL";
        assert_eq!(db.count(erased).await, i64::try_from(done.changed).unwrap(), "{}", db.name());
        let one = "SELECT count(*) FROM customers WHERE name = 'erased' AND email = 'erased-' || id || '@shop.invalid'";
        let one = if db.name() == "mysql" {
            one.replace("'erased-' || id || '@shop.invalid'", "CONCAT('erased-', id, '@shop.invalid')")
        } else {
            one.into()
        };
        assert_eq!(db.count(&one).await, i64::try_from(done.changed).unwrap(), "{}", db.name());
        let again = cleaned(&db, &policy, &quick().applied()).await;
        assert_eq!((again.met, again.changed), (0, 0), "{}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_is_in_the_file_before_it_goes() {
    for db in every().await {
        db.fill(1_000).await;
        db.run("CREATE INDEX receipts_at ON webhook_receipts (received_at)").await;
        if db.name() == "postgres" {
            db.run("ALTER TABLE webhook_receipts ADD PRIMARY KEY (event_id)").await;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("receipts.jsonl");
        let policy = policy(serde_json::json!({"retention": [{
            "name": "old receipts", "table": "webhook_receipts", "column": "received_at", "zone": "utc", "keep": "2d", "action": "archive",
            "file": file, "may_empty": true
        }]}));
        let before = db.count("SELECT count(*) FROM webhook_receipts").await;
        let done = cleaned(&db, &policy, &quick().applied()).await;
        assert!(done.changed > 0, "{}", db.name());
        let after = db.count("SELECT count(*) FROM webhook_receipts").await;
        let text = std::fs::read_to_string(&file).unwrap();
        let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(i64::try_from(rows.len()).unwrap(), before - after, "{}", db.name());
        for row in &rows {
            let row = &row["row"];
            let digits = row["body"].as_str().unwrap().trim_start_matches("\\x");
            assert!(row["event_id"].is_string() && digits.chars().all(|c| c.is_ascii_hexdigit()), "{row}");
        }
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_go_is_listed_and_passed_by() {
    for db in every().await {
        db.fill(1_000).await;
        // One order each 400 seconds: the sixty oldest.
        db.run("DELETE FROM payments WHERE order_id <= 20").await;
        db.run("CREATE INDEX orders_at ON orders (placed_at)").await;
        let keep = format!("{}s", 3600 + 939 * 400 + 200);
        let policy = policy(serde_json::json!({"retention": [
            {"name": "old orders", "table": "orders", "column": "placed_at", "zone": "utc", "keep": keep}
        ]}));
        let done = cleaned(&db, &policy, &quick().applied()).await;
        assert_eq!((done.met, done.poison.len()), (60, 40), "{}", db.name());
        assert!(done.poison.iter().all(|(key, why)| key.parse::<u64>().is_ok() && !why.is_empty()), "{done:?}");
        assert_eq!(done.changed + done.poison.len() as u64, done.met, "{}", db.name());
        assert_eq!(done.ended, JobEnd::Complete);
        assert_eq!(done.changed_in_all, done.changed, "{}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_shop_holds_is_passed_by() {
    for db in [support::postgres().await, support::mysql().await] {
        let facts = db.fill(1_000).await;
        let sql = "UPDATE sessions SET user_agent = 'x' WHERE last_used_at = (SELECT * FROM (SELECT min(last_used_at) FROM sessions) x)";
        let policy = policy(serde_json::json!({"retention": [old_sessions()]}));
        let done = match &db {
            Db::Postgres(_, url) => {
                let mut shop = storefront::postgres::open(url).await.unwrap();
                storefront::postgres::run(&mut shop, "BEGIN").await.unwrap();
                storefront::postgres::run(&mut shop, sql).await.unwrap();
                cleaned(&db, &policy, &quick().applied()).await
            }
            Db::Mysql(_, url) => {
                let mut shop = storefront::mysql::open(url).await.unwrap();
                storefront::mysql::run(&mut shop, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap();
                storefront::mysql::run(&mut shop, "BEGIN").await.unwrap();
                storefront::mysql::run(&mut shop, sql).await.unwrap();
                cleaned(&db, &policy, &quick().applied()).await
            }
            Db::Sqlite(_) => unreachable!(),
        };
        assert_eq!((done.changed, done.poison.len()), (facts.old_sessions - 1, 1), "{}: {done:?}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_counted_and_mended_as_declared() {
    for db in every().await {
        let facts = db.fill(1_000).await;
        let rule = |action: &str| {
            policy(serde_json::json!({"reference": [
                {"name": "items of orders", "table": "order_items", "columns": ["order_id"], "to": "orders", "action": action},
                {"name": "sessions of customers", "table": "sessions", "columns": ["customer_id"], "to": "customers", "action": "set-null"}
            ]}))
        };
        db.run("UPDATE sessions SET customer_id = 9000000 WHERE customer_id = 1").await;
        let lost = u64::try_from(db.count("SELECT count(*) FROM sessions WHERE customer_id = 9000000").await).unwrap();
        let null = db.count("SELECT count(*) FROM sessions WHERE customer_id IS NULL").await;
        let engine = db.engine();
        let plan = mend_orphans(&*engine, &rule("delete"), &quick(), None).await.unwrap();
        assert_eq!((plan[0].met, plan[1].met), (facts.orphaned_items, lost), "{}", db.name());
        // Reporting changes nothing, applied or not.
        let told = mend_orphans(&*engine, &rule("report"), &quick().applied().with_rows(0), None).await.unwrap();
        assert_eq!(told[0].changed, 0);
        let done = mend_orphans(&*engine, &rule("delete"), &quick().applied(), None).await.unwrap();
        assert_eq!((done[0].changed, done[1].changed), (facts.orphaned_items, lost), "{}", db.name());
        let none =
            "SELECT count(*) FROM order_items i WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.id = i.order_id)";
        assert_eq!(db.count(none).await, 0, "{}", db.name());
        let now_null = db.count("SELECT count(*) FROM sessions WHERE customer_id IS NULL").await;
        assert_eq!(now_null, null + i64::try_from(lost).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_does_not_fit_is_refused_before_anything_is_done() {
    for db in every().await {
        db.fill(200).await;
        let sessions = db.count("SELECT count(*) FROM sessions").await;
        let refused = async |change: &dyn Fn(&mut serde_json::Value)| {
            let mut second = old_sessions();
            second["name"] = "other old sessions".into();
            change(&mut second);
            // The first rule is a good one, and does nothing either.
            let policy = policy(serde_json::json!({"retention": [old_sessions(), second]}));
            let e = clean_up(&*db.engine(), &policy, &quick().applied(), None).await.unwrap_err();
            assert_eq!(db.count("SELECT count(*) FROM sessions").await, sessions, "{}", db.name());
            assert!(e.next_step().is_some() && e.to_string().contains("old sessions"), "{e:?}");
            e.kind()
        };
        assert_eq!(refused(&|r| r["table"] = "session".into()).await, ErrorKind::Config);
        assert_eq!(refused(&|r| r["column"] = "used_at".into()).await, ErrorKind::Config);
        assert_eq!(refused(&|r| r["column"] = "user_agent".into()).await, ErrorKind::Config, "{}", db.name());
        assert_eq!(refused(&|r| r["column"] = "created_at".into()).await, ErrorKind::Config, "no index");
        assert_eq!(refused(&|r| r["column"] = "customer_id".into()).await, ErrorKind::Config, "no unit");
        if db.name() != "sqlite" {
            assert_eq!(refused(&|r| r["unit"] = "seconds".into()).await, ErrorKind::Config);
        }
        assert_eq!(refused(&|r| r["where"] = "id = 'x') OR (1 = 1".into()).await, ErrorKind::Config);
        assert_eq!(refused(&|r| r["where"] = "no_such_column = 1".into()).await, ErrorKind::Database, "{}", db.name());
        assert_eq!(refused(&|r| r["action"] = "anonymise".into()).await, ErrorKind::Config);
        assert_eq!(refused(&|r| r["action"] = "archive".into()).await, ErrorKind::Config);
        assert_eq!(refused(&|r| r["set_null"] = serde_json::json!(["user_agent"])).await, ErrorKind::Config);
        // All of it: somebody's clock is wrong.
        let later = quick().applied().at(end() + TimeDelta::days(3_000));
        let policy = policy(serde_json::json!({"retention": [old_sessions()]}));
        let e = clean_up(&*db.engine(), &policy, &later, None).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Clock, "{e:?}");
        let mut all = old_sessions();
        all["may_empty"] = true.into();
        let done = cleaned(&db, &self::policy(serde_json::json!({"retention": [all]})), &later).await;
        assert_eq!(i64::try_from(done.changed).unwrap(), sessions, "{}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_are_numbers_are_read_in_their_unit() {
    for db in every().await {
        db.empty().await;
        let number = if db.name() == "sqlite" { "INTEGER" } else { "bigint" };
        db.run(&format!("CREATE TABLE visits (id {number} PRIMARY KEY, seen {number} NOT NULL)")).await;
        db.run("CREATE INDEX visits_seen ON visits (seen)").await;
        for (unit, factor) in [("seconds", 1), ("milliseconds", 1_000)] {
            db.run("DELETE FROM visits").await;
            for day in 0..60 {
                let at = (storefront::NOW - day * 86_400) * factor;
                db.run(&format!("INSERT INTO visits VALUES ({day}, {at})")).await;
            }
            let policy = policy(serde_json::json!({"retention": [
                {"name": unit, "table": "visits", "column": "seen", "keep": "30d", "unit": unit}
            ]}));
            assert_eq!(cleaned(&db, &policy, &quick().applied()).await.changed, 29, "{} {unit}", db.name());
            assert_eq!(db.count("SELECT max(id) FROM visits").await, 30);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hold_or_a_law_keeps_does_not_go_with_another_row() {
    for db in every().await {
        db.fill(200).await;
        db.run("CREATE INDEX customers_made ON customers (created_at)").await;
        db.run("DELETE FROM payments").await;
        db.run("DELETE FROM orders").await;
        let customers = db.count("SELECT count(*) FROM customers").await;
        let rule = |more: serde_json::Value| {
            let mut all = serde_json::json!({"retention": [{
                "name": "old customers", "table": "customers", "column": "created_at", "keep": "1d", "zone": "utc", "may_empty": true,
                "where": "id NOT IN (SELECT customer_id FROM orders)"
            }]});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            policy(all)
        };
        // Addresses go with their customer.
        let hold =
            serde_json::json!({"hold": [{"reason": "x", "table": "addresses", "column": "id", "values": ["1"]}]});
        let kept = serde_json::json!({"privacy": [{"table": "addresses", "column": "customer_id", "action": "keep", "reason": "x"}]});
        for more in [hold, kept] {
            let e = clean_up(&*db.engine(), &rule(more), &quick().applied(), None).await.unwrap_err();
            assert!(e.kind() == ErrorKind::Config && e.to_string().contains("addresses"), "{}: {e:?}", db.name());
        }
        // A hold with a slip in it holds nothing: it is refused.
        for (table, column, value) in
            [("address", "id", "1"), ("addresses", "idd", "1"), ("addresses", "id", "1,2"), ("addresses", "id", "1abc")]
        {
            let slip =
                serde_json::json!({"hold": [{"reason": "x", "table": table, "column": column, "values": [value]}]});
            let e = clean_up(&*db.engine(), &rule(slip), &quick().applied(), None).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config, "{}: {table} {column} {value}", db.name());
        }
        assert_eq!(db.count("SELECT count(*) FROM customers").await, customers, "{}", db.name());
        let done = cleaned(&db, &rule(serde_json::json!({})), &quick().applied()).await;
        assert!(done.changed > 0, "{}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_keeps_without_a_word_is_said() {
    let db = support::postgres().await;
    let facts = db.fill(500).await;
    db.run("CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$").await;
    db.run("CREATE TRIGGER kept BEFORE DELETE ON sessions FOR EACH ROW WHEN (old.id < '8') EXECUTE FUNCTION kept()")
        .await;
    let policy = policy(serde_json::json!({"retention": [old_sessions()]}));
    let done = cleaned(&db, &policy, &quick().applied()).await;
    assert!(done.unchanged > 0 && done.unchanged + done.changed == facts.old_sessions, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_checked_at_the_end_of_a_transaction_is_no_obstacle() {
    for db in [support::postgres().await, support::sqlite()] {
        db.empty().await;
        db.run("CREATE TABLE parents (id integer PRIMARY KEY, at timestamp NOT NULL)").await;
        db.run("CREATE INDEX parents_at ON parents (at)").await;
        db.run("CREATE TABLE children (id integer PRIMARY KEY, parent integer REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)").await;
        for id in 1..=9 {
            db.run(&format!("INSERT INTO parents VALUES ({id}, '2025-01-0{id} 00:00:00')")).await;
        }
        db.run("INSERT INTO children VALUES (1, 3)").await;
        let policy = policy(serde_json::json!({"retention": [
            {"name": "parents", "table": "parents", "column": "at", "keep": "30d", "zone": "utc", "may_empty": true}
        ]}));
        let done = cleaned(&db, &policy, &quick().applied()).await;
        assert_eq!((done.changed, done.changed_in_all, done.poison.len()), (8, 8, 1), "{}: {done:?}", db.name());
        assert_eq!(db.count("SELECT CAST(sum(id) AS bigint) FROM parents").await, 3, "{}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_say_no_zone_stay_until_they_are_old_in_each() {
    let db = support::mysql().await;
    db.run("CREATE TABLE visits (id int PRIMARY KEY, at datetime NOT NULL, KEY visits_at (at))").await;
    db.run("SET SESSION sql_mode = ''").await;
    for (id, at) in [(1, "2026-01-14 00:00:00"), (2, "2026-01-15 01:00:00"), (3, "2026-01-15 11:30:00")] {
        db.run(&format!("INSERT INTO visits VALUES ({id}, '{at}')")).await;
    }
    let Db::Mysql(server, _) = &db else { panic!() };
    // What a shop of old wrote for "never".
    server.sql("shop", "SET SESSION sql_mode = ''; INSERT INTO visits VALUES (4, '0000-00-00 00:00:00')").unwrap();
    let policy = |zone: Option<&str>| {
        let mut rule = serde_json::json!({"name": "visits", "table": "visits", "column": "at", "keep": "10h"});
        if let Some(zone) = zone {
            rule["zone"] = zone.into();
        }
        policy(serde_json::json!({"retention": [rule]}))
    };
    // At noon, and ten hours: only what is older in every zone of the world.
    assert_eq!(cleaned(&db, &policy(None), &quick()).await.met, 1);
    assert_eq!(cleaned(&db, &policy(Some("utc")), &quick()).await.met, 2);
    // A key that is compared in another way than it is ordered, and one of beginnings, are refused.
    db.run("CREATE TABLE odd (kind enum('open', 'closed') NOT NULL, at datetime NOT NULL, PRIMARY KEY (kind, at), KEY odd_at (at))").await;
    db.run(
        "CREATE TABLE part (name varchar(90) NOT NULL, at datetime NOT NULL, PRIMARY KEY (name(10)), KEY part_at (at))",
    )
    .await;
    for table in ["odd", "part"] {
        let rule = serde_json::json!({"retention": [{"name": table, "table": table, "column": "at", "keep": "1d"}]});
        let e = clean_up(&*db.engine(), &self::policy(rule), &quick(), None).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{table}: {e:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_sqlite_stores_as_a_number_needs_its_unit() {
    let db = support::sqlite();
    db.empty().await;
    db.run("CREATE TABLE visits (id INTEGER PRIMARY KEY, at DATETIME NOT NULL)").await;
    db.run("CREATE INDEX visits_at ON visits (at)").await;
    db.run(&format!("INSERT INTO visits VALUES (1, 1600000000000), (2, {}000)", storefront::NOW)).await;
    let mut rule = serde_json::json!({"name": "visits", "table": "visits", "column": "at", "keep": "30d"});
    let e = clean_up(&*db.engine(), &policy(serde_json::json!({"retention": [rule.clone()]})), &quick(), None).await;
    assert_eq!(e.unwrap_err().kind(), ErrorKind::Config);
    rule["unit"] = "milliseconds".into();
    assert_eq!(cleaned(&db, &policy(serde_json::json!({"retention": [rule]})), &quick()).await.met, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_up_waits_while_the_shop_is_at_work_and_goes_on_then() {
    for db in every().await {
        db.fill(200).await;
        let engine = db.engine();
        let policy = policy(serde_json::json!({"retention": [old_sessions()]}));
        let before = db.count("SELECT count(*) FROM sessions").await;
        let options = quick().applied().with_load(0);
        let slow = match db.name() {
            "postgres" => "SELECT pg_sleep(60)",
            "mysql" => "DO SLEEP(60)",
            _ => {
                let e = clean_up(&*engine, &policy, &options, None).await.unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Config);
                continue;
            }
        };
        let busy = {
            let url = db.url();
            let name = db.name();
            tokio::spawn(async move {
                // It is broken off in the end.
                match name {
                    "postgres" => drop(
                        storefront::postgres::run(&mut storefront::postgres::open(&url).await.unwrap(), slow).await,
                    ),
                    _ => drop(storefront::mysql::run(&mut storefront::mysql::open(&url).await.unwrap(), slow).await),
                }
            })
        };
        let at_work = match db.name() {
            "postgres" => {
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
            }
            _ => "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DO SLEEP%'",
        };
        while db.count(at_work).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let waits = options.clone().with_time(Duration::from_secs(2));
        let waited = clean_up(&*engine, &policy, &waits, None).await.unwrap();
        assert_eq!((waited[0].changed, waited[0].ended), (0, JobEnd::Budget), "{}", db.name());
        assert_eq!(db.count("SELECT count(*) FROM sessions").await, before);
        match db.name() {
            "postgres" => db.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND pid <> pg_backend_pid()").await,
            _ => {
                let id = db.count("SELECT CAST(ID AS SIGNED) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DO SLEEP%'").await;
                db.run(&format!("KILL {id}")).await;
            }
        }
        busy.await.unwrap();
        let done = clean_up(&*engine, &policy, &options, None).await.unwrap();
        assert_eq!(done[0].ended, JobEnd::Complete, "{}", db.name());
        assert!(done[0].changed > 0, "{}", db.name());
    }
}
