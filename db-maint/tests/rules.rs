//! A shop's policy held against its database, and its caches.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite", feature = "redis", feature = "http"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use db_maint::chrono::{TimeDelta, Utc};
use db_maint::{
    CacheAction, DirectoryCache, ErrorKind, HttpCache, InspectOptions, JobOptions, Outcome, Policy, RedisCache, Stop,
    clear_caches, mend_orphans,
};
use serde_json::json;
use storefront::{nginx, redis};

fn policy(value: serde_json::Value) -> Policy {
    serde_json::from_value(value).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_held_against_the_live_schema_rule_by_rule() {
    for db in support::every().await {
        let facts = db.fill(500).await;
        let shop = db.engine();
        let inspect =
            async |policy: Policy| shop.inspect(&InspectOptions::default().with_policy(policy)).await.unwrap();
        let well = inspect(policy(json!({
            "retention": [{"name": "old sessions", "table": "sessions", "column": "last_used_at", "keep": "30d", "may_empty": true, "zone": "utc"}],
            "reference": [{"name": "items", "table": "order_items", "columns": ["order_id"], "to": "orders"}],
            "content": [{"name": "everything", "table": "products", "where": "1 = 1", "least": 1}],
            "stock": {"table": "variants", "label": "sku", "stock": "stock", "threshold_column": "low_stock_threshold"},
        })))
        .await;
        assert!(
            matches!(well.outcome("policy"), Some(Outcome::Clean { .. })),
            "{}: {:?}",
            db.name(),
            well.outcome("policy")
        );
        let orphans = &well.outcome("orphans").unwrap().findings()[0];
        assert_eq!(orphans.evidence["rows"], facts.orphaned_items, "{}", db.name());
        assert!(matches!(well.outcome("content"), Some(Outcome::Clean { .. })));
        // Without a policy nothing is said of it.
        let without = shop.inspect(&InspectOptions::default()).await.unwrap();
        assert!(matches!(without.outcome("policy"), Some(Outcome::NotApplicable { .. })));

        let empty = inspect(Policy::default()).await;
        assert!(
            matches!(empty.outcome("policy"), Some(Outcome::NotApplicable { .. })),
            "{:?}",
            empty.outcome("policy")
        );

        let wrong = inspect(policy(json!({
            "retention": [
                {"name": "no table", "table": "sesions", "column": "last_used_at", "keep": "30d"},
                {"name": "no column", "table": "sessions", "column": "used", "keep": "30d"},
                {"name": "no time", "table": "customers", "column": "email", "keep": "30d"},
                {"name": "no index", "table": "orders", "column": "placed_at", "keep": "30d"},
                {"name": "twice", "table": "sessions", "column": "last_used_at", "keep": "30d", "may_empty": true},
            ],
            "reference": [
                {"name": "twice", "table": "order_items", "columns": ["order_id"], "to": "orders"},
                {"name": "other type", "table": "order_items", "columns": ["title"], "to": "orders"},
                {"name": "a", "table": "order_items", "columns": ["order_id"], "to": "orders", "action": "delete"},
                {"name": "b", "table": "orders", "columns": ["id"], "to": "order_items", "action": "delete"},
            ],
            "hold": [{"reason": "over", "table": "orders", "column": "customer_id", "values": ["1"], "until": "2020-01-01T00:00:00Z"}],
            "content": [{"name": "not SQL", "table": "products", "where": "frobnicate(1)"}],
            "cache": [{"name": "no cache", "directory": {"path": "/etc"}}],
        })))
        .await;
        let told: Vec<&str> = wrong.outcome("policy").unwrap().findings().iter().map(|f| f.object.as_str()).collect();
        // On SQLite any column may hold a time.
        assert!(told.contains(&"no time") || db.name() == "sqlite", "{}: {told:?}", db.name());
        for name in [
            "no table",
            "no column",
            "no index",
            "twice",
            "other type",
            "references",
            "hold: over",
            "not SQL",
            "no cache",
        ] {
            assert!(told.contains(&name), "{}: {name}: {told:?}", db.name());
        }
        // What cannot be counted is unknown, and not nought.
        assert!(wrong.unknown().any(|(check, why)| check == "content" && why.contains("not SQL")), "{}", db.name());
        assert!(!wrong.is_clean());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_should_have_gone_and_what_waits_is_told() {
    for db in support::every().await {
        db.empty().await;
        let time = if db.name() == "postgres" { "timestamptz" } else { "datetime" };
        db.run(&format!("CREATE TABLE visits (id int NOT NULL PRIMARY KEY, at {time} NOT NULL)")).await;
        db.run("CREATE INDEX visits_at ON visits (at)").await;
        db.run(&format!("CREATE TABLE reviews (id int NOT NULL PRIMARY KEY, title varchar(20), state varchar(20), at {time} NOT NULL)")).await;
        let now = Utc::now();
        let at = |days: i64| (now - TimeDelta::days(days)).format("%Y-%m-%d %H:%M:%S").to_string();
        db.run(&format!("INSERT INTO visits VALUES (1, '{}'), (2, '{}')", at(31), at(1))).await;
        db.run(&format!(
            "INSERT INTO reviews VALUES (1, 'old', 'pending', '{}'), (2, 'new', 'pending', '{}'), (3, 'done', 'approved', '{}')",
            at(4),
            at(1),
            at(9)
        ))
        .await;
        let rules = policy(json!({
            "retention": [{"name": "visits", "table": "visits", "column": "at", "keep": "30d", "zone": "utc"}],
            "content": [
                {"name": "waiting", "table": "reviews", "where": "state = 'pending'", "column": "at", "older": "3d", "zone": "utc", "label": "title"},
                {"name": "shown", "table": "reviews", "where": "state = 'approved'", "least": 2},
            ],
        }));
        let inspect = async |days: i64| {
            let options = InspectOptions::default().at(now + TimeDelta::days(days)).with_policy(rules.clone());
            db.engine().inspect(&options).await.unwrap()
        };
        let today = inspect(0).await;
        // A day late is not late: the clean-up may run tonight.
        assert!(
            matches!(today.outcome("retention-overdue"), Some(Outcome::Clean { .. })),
            "{}: {:?}",
            db.name(),
            today.outcome("retention-overdue")
        );
        let content = today.outcome("content").unwrap().findings();
        let told: Vec<_> = content.iter().map(|f| (f.object.as_str(), f.evidence["rows"].as_u64())).collect();
        assert_eq!(told, [("shown", Some(1)), ("waiting", Some(1))], "{}", db.name());
        assert_eq!(content[1].evidence["first"], json!(["old"]));
        let later = inspect(2).await;
        assert_eq!(later.outcome("retention-overdue").unwrap().findings()[0].object, "visits", "{}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_orphans_go_in_one_run_whatever_order_the_rules_are_in() {
    for db in support::every().await {
        db.empty().await;
        for sql in [
            "CREATE TABLE a (id int NOT NULL PRIMARY KEY)",
            "CREATE TABLE b (id int NOT NULL PRIMARY KEY, a_id int)",
            "CREATE TABLE c (id int NOT NULL PRIMARY KEY, b_id int)",
            "INSERT INTO a VALUES (1)",
            "INSERT INTO b VALUES (1, 1), (2, 9)",
            "INSERT INTO c VALUES (1, 1), (2, 2)",
        ] {
            db.run(sql).await;
        }
        // The one that needs the other's work is written first.
        let rules = policy(json!({"reference": [
            {"name": "c", "table": "c", "columns": ["b_id"], "to": "b", "action": "delete"},
            {"name": "b", "table": "b", "columns": ["a_id"], "to": "a", "action": "delete"},
        ]}));
        mend_orphans(&*db.engine(), &rules, &JobOptions::default().applied(), None).await.unwrap();
        assert_eq!(
            (db.count("SELECT COUNT(*) FROM b").await, db.count("SELECT COUNT(*) FROM c").await),
            (1, 1),
            "{}",
            db.name()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_may_not_see_of_a_table_is_unknown_and_not_fewer_rows() {
    let db = support::postgres().await;
    let support::Db::Postgres(server, _) = &db else { panic!() };
    db.run("CREATE TABLE reviews (id int PRIMARY KEY, state text)").await;
    db.run("INSERT INTO reviews VALUES (1, 'pending')").await;
    server.psql("shop", "GRANT SELECT ON reviews TO shop; ALTER TABLE reviews ENABLE ROW LEVEL SECURITY").unwrap();
    let rules = policy(json!({"content": [{"name": "waiting", "table": "reviews", "where": "state = 'pending'"}]}));
    let options = InspectOptions::default().with_policy(rules);
    let all = db.engine().inspect(&options).await.unwrap();
    assert_eq!(all.outcome("content").unwrap().findings().len(), 1);
    let part = db_maint::open(&server.url_as("shop", "shop")).unwrap().inspect(&options).await.unwrap();
    let outcome = part.outcome("content").unwrap();
    assert!(matches!(outcome, Outcome::Unknown { reason, .. } if reason.contains("row-level security")), "{outcome:?}");
}

fn action(name: &str) -> CacheAction {
    CacheAction { name: name.into(), directory: None, redis: None, http: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_with_the_prefix_go_and_no_others() {
    let server = redis::Server::start("").await.unwrap();
    let keys: Vec<String> = (0..2_000).map(|n| format!("SET shop:*:{n} x")).collect();
    server.ask(&keys.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    server.ask(&["SET shop:basket:1 precious", "SET shop:* x", "SET other x"]).unwrap();
    let mut rules = Policy::default();
    let rule = RedisCache { url: server.url(), password_env: None, prefix: "shop:*:".into() };
    rules.cache = vec![CacheAction { redis: Some(rule), ..action("pages") }];
    let counted = clear_caches(&rules, &[], false, &Stop::default()).await.unwrap();
    assert_eq!((counted[0].met, counted[0].cleared, &counted[0].failed), (2_000, 0, &vec![]));
    let cleared = clear_caches(&rules, &["pages".into()], true, &Stop::default()).await.unwrap();
    assert_eq!((cleared[0].met, cleared[0].cleared), (2_000, 2_000), "{cleared:?}");
    assert_eq!(server.ask(&["DBSIZE", "EXISTS shop:basket:1 shop:* other"]).unwrap(), [":3", ":3"]);
    // All of it, or one that nobody knows: refused before anything is done.
    rules.cache[0].redis.as_mut().unwrap().prefix.clear();
    assert_eq!(clear_caches(&rules, &[], true, &Stop::default()).await.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(
        clear_caches(&rules, &["page".into()], true, &Stop::default()).await.unwrap_err().kind(),
        ErrorKind::Config
    );
    assert_eq!(server.ask(&["DBSIZE"]).unwrap(), [":3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_nginx_keeps_is_made_anew_and_one_cache_that_is_away_does_not_keep_the_others() {
    let web = nginx::Server::start(
        "proxy_cache_path {here}/cache keys_zone=shop:1m; \
         server { listen 127.0.0.1:{second}; location / { add_header Cache-Control \"max-age=60\"; return 200 \"$msec\"; } } \
         server { listen 127.0.0.1:{port}; location / { proxy_pass http://127.0.0.1:{second}; proxy_cache shop; proxy_cache_key $uri; \
           proxy_cache_valid 200 1m; proxy_cache_bypass $arg_token; } }",
    )
    .await
    .unwrap();
    let page = || get(&web.url());
    let first = page();
    assert_eq!(page(), first, "nginx keeps no page");
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::write(cache.join("page"), "x").unwrap();
    // nginx without a module for purging fetches the page anew.
    let http =
        |url: String| HttpCache { url, method: Some("GET".into()), header: None, secret_env: None, accept: vec![] };
    let mut rules = Policy::default();
    rules.cache = vec![
        CacheAction { http: Some(http(format!("{}?token=secret", web.url()))), ..action("nginx") },
        CacheAction { http: Some(http("http://127.0.0.1:9/?token=secret".into())), ..action("away") },
        CacheAction { directory: Some(DirectoryCache { path: cache.clone(), older: None }), ..action("files") },
    ];
    let counted = clear_caches(&rules, &[], false, &Stop::default()).await.unwrap();
    assert!(counted.iter().all(|r| r.cleared == 0 && r.met == 1), "{counted:?}");
    assert_eq!(page(), first);
    let cleared = clear_caches(&rules, &[], true, &Stop::default()).await.unwrap();
    let done: Vec<_> = cleared.iter().map(|r| (r.cleared, r.failed.len())).collect();
    assert_eq!(done, [(1, 0), (0, 1), (1, 0)], "{cleared:?}");
    assert!(!format!("{cleared:?}").contains("secret"), "{cleared:?}");
    assert_ne!(page(), first, "the page was not made anew");
    assert!(!cache.join("page").exists() && cache.exists());
}

/// The body of a page.
fn get(url: &str) -> String {
    use std::io::{Read, Write};
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains(" 200 "), "{text}");
    text.split("\r\n\r\n").nth(1).unwrap().to_owned()
}
