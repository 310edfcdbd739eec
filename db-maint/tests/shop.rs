//! A shop's own jobs on real servers and files: stock and carts.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use db_maint::chrono::{DateTime, TimeDelta, Utc};
use db_maint::{
    CartRule, Delivery, ErrorKind, StockRule, check_stock, claim_abandoned, confirm, count_abandoned, unconfirmed,
};
use support::{Db, every};

fn end() -> DateTime<Utc> {
    DateTime::from_timestamp(storefront::NOW, 0).unwrap()
}

fn stock(json: serde_json::Value) -> StockRule {
    let mut rule = serde_json::json!({"table": "variants", "label": "sku", "stock": "stock"});
    rule.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
    serde_json::from_value(rule).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn low_stock_is_told_when_it_is_crossed_and_once() {
    for db in every().await {
        let facts = db.fill(500).await;
        let rule = stock(serde_json::json!({"threshold_column": "low_stock_threshold"}));
        let engine = db.engine();
        let look = async |remember| check_stock(&*engine, &rule, Some(end()), remember).await.unwrap();
        let first = look(true).await;
        assert_eq!(first.low.len() as u64, facts.low_stock, "{}", db.name());
        assert!(first.low.iter().all(|l| l.is_new && l.available < l.threshold) && first.unknown.is_empty());
        assert_eq!(first.examined, u64::try_from(db.count("SELECT count(*) FROM variants").await).unwrap());
        let second = look(true).await;
        assert!(second.low.len() == first.low.len() && second.low.iter().all(|l| !l.is_new), "{}", db.name());
        // One is sold, one comes back; a look that is not to be remembered changes nothing.
        db.run("UPDATE variants SET stock = 1 WHERE id = (SELECT * FROM (SELECT min(id) FROM variants WHERE stock >= 20) x)").await;
        let back = &first.low[0].label;
        db.run(&format!("UPDATE variants SET stock = 100 WHERE sku = '{back}'")).await;
        for _ in 0..2 {
            let third = look(false).await;
            assert_eq!((third.low.iter().filter(|l| l.is_new).count(), third.recovered.len()), (1, 1), "{}", db.name());
        }
        let third = look(true).await;
        assert_eq!(third.recovered, std::slice::from_ref(back));
        // Down again: that is another crossing.
        db.run(&format!("UPDATE variants SET stock = 0 WHERE sku = '{back}'")).await;
        let fourth = look(true).await;
        let told: Vec<_> = fourth.low.iter().filter(|l| l.is_new).map(|l| &l.label).collect();
        assert_eq!(told, [back], "{}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promised_is_not_in_stock_and_nothing_seen_is_not_well() {
    for db in every().await {
        db.fill(200).await;
        db.run("UPDATE variants SET stock = 10, low_stock_threshold = 5").await;
        let item = db.count("SELECT max(variant_id) FROM cart_items").await;
        db.run(&format!("UPDATE cart_items SET quantity = 8 WHERE variant_id = {item}")).await;
        let reserved = "(SELECT SUM(c.quantity) FROM cart_items c WHERE c.variant_id = variants.id)";
        let rule = stock(serde_json::json!({"threshold": 5, "reserved": reserved}));
        let engine = db.engine();
        let seen = check_stock(&*engine, &rule, Some(end()), false).await.unwrap();
        let sku = seen.low.iter().find(|l| l.available <= 2.0);
        assert!(sku.is_some(), "{}: {seen:?}", db.name());
        let nothing = stock(serde_json::json!({"threshold": 5, "where": "sku = 'no such'"}));
        let e = check_stock(&*engine, &nothing, Some(end()), false).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.to_string().contains("nothing was checked"), "{e:?}");
        for wrong in
            [serde_json::json!({}), serde_json::json!({"threshold": 5, "threshold_column": "low_stock_threshold"})]
        {
            assert_eq!(check_stock(&*engine, &stock(wrong), None, false).await.unwrap_err().kind(), ErrorKind::Config);
        }
        let text = stock(serde_json::json!({"threshold": 5, "stock": "option"}));
        assert_eq!(check_stock(&*engine, &text, Some(end()), false).await.unwrap_err().kind(), ErrorKind::Config);
    }
}

fn carts() -> CartRule {
    serde_json::from_value(serde_json::json!({
        "table": "carts", "column": "updated_at", "contact": "email", "within": "400d", "zone": "utc",
        "where": "EXISTS (SELECT 1 FROM cart_items i WHERE i.cart_id = carts.id)"
    }))
    .unwrap()
}

async fn leave(db: &Db, carts: u32) {
    db.run("DELETE FROM cart_items").await;
    db.run("DELETE FROM carts").await;
    let (numbers, from) = match db {
        Db::Postgres(..) => ("seq".to_owned(), format!("generate_series(1, {carts}) seq")),
        Db::Mysql(server, _) => ("seq".to_owned(), format!("{} s", server.numbers(carts).trim_end_matches(" s"))),
        Db::Sqlite(_) => (
            "seq".to_owned(),
            format!(
                "(WITH RECURSIVE s(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM s WHERE seq < {carts}) SELECT seq FROM s)"
            ),
        ),
    };
    let email = if db.name() == "mysql" { "CONCAT('c', seq, '@shop.test')" } else { "'c' || seq || '@shop.test'" };
    db.run(&format!(
        "INSERT INTO carts (id, email, status, updated_at) SELECT {numbers}, {email}, 'open', '2026-01-10 10:00:00' FROM {from}"
    ))
    .await;
    db.run(&format!("INSERT INTO cart_items (cart_id, variant_id, quantity) SELECT seq, 1, 1 FROM {from}")).await;
    // The shop notes the time of the last change itself.
    db.run("UPDATE carts SET updated_at = '2026-01-10 10:00:00'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_workers_claim_ten_thousand_carts_each_once() {
    for db in every().await {
        db.fill(100).await;
        let total = 10_000;
        leave(&db, total).await;
        let engine = Arc::<dyn db_maint::Engine>::from(db.engine());
        assert_eq!(count_abandoned(&*engine, &carts(), Some(end())).await.unwrap(), u64::from(total), "{}", db.name());
        let mut workers = Vec::new();
        for _ in 0..10 {
            let engine = engine.clone();
            workers.push(tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    match claim_abandoned(&*engine, &carts(), Some(end()), 100).await {
                        // None is free: all are claimed, or others have the rest in hand just now.
                        Ok(claimed) if claimed.is_empty() => {
                            match count_abandoned(&*engine, &carts(), Some(end())).await {
                                Ok(0) => return mine,
                                Ok(_) => tokio::task::yield_now().await,
                                Err(e) if e.is_retryable() => tokio::task::yield_now().await,
                                Err(e) => panic!("{e:?}"),
                            }
                        }
                        Ok(claimed) => mine.extend(claimed),
                        // Ten at once may be too many for one file.
                        Err(e) if e.is_retryable() => tokio::task::yield_now().await,
                        Err(e) => panic!("{e:?}"),
                    }
                }
            }));
        }
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.unwrap());
        }
        let each: BTreeSet<_> = all.iter().map(|cart| cart.cart.clone()).collect();
        assert_eq!((all.len(), each.len()), (total as usize, total as usize), "{}", db.name());
        assert!(all.iter().all(|cart| cart.contact == format!("c{}@shop.test", cart.cart)));
        assert_eq!(count_abandoned(&*engine, &carts(), Some(end())).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_is_abandoned_again_only_after_somebody_came_back() {
    for db in every().await {
        db.fill(100).await;
        leave(&db, 3).await;
        let engine = db.engine();
        let claim = async |now| claim_abandoned(&*engine, &carts(), Some(now), 100).await.unwrap();
        let first = claim(end()).await;
        assert_eq!(first.len(), 3, "{}", db.name());
        confirm(&*engine, &carts(), &first[0], Delivery::Done).await.unwrap();
        confirm(&*engine, &carts(), &first[1], Delivery::NotSent).await.unwrap();
        assert_eq!(
            confirm(&*engine, &carts(), &first[0], Delivery::NotSent).await.unwrap_err().kind(),
            ErrorKind::Config
        );
        // What was certainly not sent is tried again, what nobody knows of is not.
        let second = claim(end() + TimeDelta::days(1)).await;
        assert_eq!(second.iter().map(|c| &c.cart).collect::<Vec<_>>(), [&first[1].cart], "{}", db.name());
        assert!(unconfirmed(&*engine, &carts()).await.unwrap().is_empty());
        db.run("UPDATE caretaker_outbox SET claimed_at = claimed_at - 7200000").await;
        assert_eq!(unconfirmed(&*engine, &carts()).await.unwrap().len(), 2);
        // The first comes back, and leaves again.
        db.run(&format!("UPDATE carts SET updated_at = '2026-01-16 09:00:00' WHERE id = {}", first[0].cart)).await;
        assert_eq!(claim(end() + TimeDelta::hours(30)).await, [], "{}", db.name());
        let third = claim(end() + TimeDelta::days(2)).await;
        assert_eq!(third.iter().map(|c| &c.cart).collect::<Vec<_>>(), [&first[0].cart], "{}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_that_is_fresh_empty_without_address_or_forgotten_is_left_alone() {
    for db in every().await {
        db.fill(100).await;
        leave(&db, 5).await;
        db.run("UPDATE carts SET updated_at = '2026-01-15 11:00:00' WHERE id = 1").await;
        db.run("UPDATE carts SET email = NULL WHERE id = 2").await;
        db.run("DELETE FROM cart_items WHERE cart_id = 3").await;
        db.run("UPDATE carts SET updated_at = '2025-06-01 00:00:00' WHERE id = 4").await;
        let mut rule = carts();
        rule.within = "7d".parse().unwrap();
        let claimed = claim_abandoned(&*db.engine(), &rule, Some(end()), 100).await.unwrap();
        assert_eq!(claimed.iter().map(|c| c.cart.as_str()).collect::<Vec<_>>(), ["5"], "{}", db.name());
    }
}

fn privacy(hold: &str) -> db_maint::Policy {
    serde_json::from_value(serde_json::json!({
        "privacy": [
            {"table": "sessions", "column": "customer_id", "action": "delete"},
            {"table": "addresses", "column": "customer_id", "action": "delete"},
            {"table": "orders", "column": "customer_id", "action": "keep", "reason": "invoices are kept for ten years (HGB § 257)"},
            {"table": "customers", "column": "id", "action": "anonymise", "omit": ["password_hash"],
             "set": {"name": "erased", "email": "erased-{key}@shop.invalid"}, "set_null": ["phone", "birthday", "note", "password_hash"]}
        ],
        "hold": [{"reason": "a lawsuit", "table": "addresses", "column": "customer_id", "values": [hold]}]
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_gets_what_is_known_and_is_forgotten() {
    for db in every().await {
        db.fill(500).await;
        db.run("CREATE INDEX sessions_customer ON sessions (customer_id)").await;
        let engine = db.engine();
        let who = db
            .count("SELECT min(customer_id) FROM sessions WHERE customer_id IN (SELECT customer_id FROM orders)")
            .await;
        let rows = |table: &str| format!("SELECT count(*) FROM {table} WHERE customer_id = {who}");
        let (sessions, orders) = (db.count(&rows("sessions")).await, db.count(&rows("orders")).await);
        let others = db.count("SELECT count(*) FROM sessions").await - sessions;
        let subject = who.to_string();
        let policy = privacy("0");
        let known = db_maint::export(&*engine, &policy, &subject, Some(end())).await.unwrap();
        let text = known.to_string();
        assert!(text.contains("@example.com") && !text.contains("password_hash"), "{text}");
        let counts: Vec<_> =
            known["tables"].as_array().unwrap().iter().map(|t| t["rows"].as_array().unwrap().len()).collect();
        assert_eq!((counts[0] as i64, counts[2] as i64, counts[3]), (sessions, orders, 1), "{}", db.name());

        let options = db_maint::JobOptions::default().at(end());
        let plan = db_maint::erase(&*engine, &policy, &subject, &options).await.unwrap();
        assert!(!plan.applied && !plan.complete && plan.tables[0].done as i64 == sessions);
        assert_eq!(db.count(&rows("sessions")).await, sessions, "{}", db.name());
        let done = db_maint::erase(&*engine, &policy, &subject, &options.clone().applied()).await.unwrap();
        assert!(done.applied && done.complete, "{}: {done:?}", db.name());
        let of_tables: Vec<_> = done.tables.iter().map(|t| t.done as i64).collect();
        assert_eq!((of_tables[0], of_tables[2], of_tables[3]), (sessions, 0, 1), "{}", db.name());
        assert_eq!((db.count(&rows("sessions")).await, db.count(&rows("orders")).await), (0, orders));
        assert_eq!(db.count("SELECT count(*) FROM sessions").await, others, "{}", db.name());
        let erased = format!(
            "SELECT count(*) FROM customers WHERE id = {who} AND name = 'erased' AND phone IS NULL AND password_hash IS NULL"
        );
        assert_eq!(db.count(&erased).await, 1, "{}", db.name());
        // Nothing of the person is in the certificate.
        let certificate = serde_json::to_string(&done).unwrap();
        assert!(!certificate.contains("example.com") && !certificate.contains(&format!("\"{who}\"")), "{certificate}");
        // Once more there is nothing left to do, and that is well.
        let again = db_maint::erase(&*engine, &policy, &subject, &options.clone().applied()).await.unwrap();
        assert!(again.complete && again.tables.iter().all(|t| t.done == 0), "{}: {again:?}", db.name());
        let e = db_maint::export(&*engine, &policy, "999999999", Some(end())).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{}", db.name());
        // What is held stays, and the certificate says so.
        let other = db.count("SELECT min(customer_id) FROM addresses").await.to_string();
        let held = db_maint::erase(&*engine, &privacy(&other), &other, &options.clone().applied()).await.unwrap();
        assert!(!held.complete && held.tables[1].held > 0 && held.tables[1].done == 0, "{}: {held:?}", db.name());
        assert!(db.count(&format!("SELECT count(*) FROM addresses WHERE customer_id = {other}")).await > 0);
        // What only looks like somebody's number is nobody's.
        for wrong in ["12abc", "0x1", " 1", "1.0", "ada@example.com", ""] {
            let e = db_maint::erase(&*engine, &policy, wrong, &options.clone().applied()).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config, "{}: {wrong:?}: {e:?}", db.name());
        }
        let mut silent = privacy("0");
        silent.privacy[2].reason = None;
        assert_eq!(db_maint::erase(&*engine, &silent, &other, &options).await.unwrap_err().kind(), ErrorKind::Config);
    }
}
