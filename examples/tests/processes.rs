//! Processes at once: backups, prunes and drills that meet, are interrupted, and leave nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use storefront::Size;
use support::{Shop, code, json, text};

fn spawn(shop: &Shop, verb: &str, more: &[&str]) -> Child {
    let store = shop.store();
    shop.command(&[&[verb, "--store", &store, "--keys", "keys", "--json"], more].concat()).spawn().unwrap()
}

fn ids<'a>(values: &'a Value, of: &str) -> impl Iterator<Item = String> + 'a {
    let of = of.to_owned();
    let id = move |v: &Value| if of.is_empty() { v.clone() } else { v[&of].clone() };
    values.as_array().into_iter().flatten().map(move |v| id(v).as_str().unwrap().to_owned())
}

/// Two that add and one that removes, started together, over and over: each does its work or says who is in the way.
#[test]
fn two_backups_and_a_prune_at_once_lose_nothing() {
    let shop = Shop::new();
    storefront::uploads::create(&shop.path("uploads"), 8, 20, 5_000).unwrap();
    storefront::uploads::create(&shop.path("invoices"), 9, 20, 5_000).unwrap();
    let mut taken = BTreeSet::new();
    let (mut removed, mut locked) = (0, 0);
    for round in 0..12 {
        for folder in ["uploads", "invoices"] {
            std::fs::write(shop.path(folder).join("new.jpg"), format!("{round}").repeat(60_000)).unwrap();
        }
        let prune: &[&str] = &["--keep", "hourly=1,verified=1", "--grace", "0s", "--apply"];
        let work =
            [("create", &["--source", "dir:uploads"][..]), ("prune", prune), ("create", &["--source", "dir:invoices"])];
        let mut running: Vec<_> = work.iter().map(|(verb, more)| (*verb, *more, spawn(&shop, verb, more))).collect();
        // Who finds the repository locked comes again, as a schedule does.
        let (mut attempts, mut gone) = (0, Vec::new());
        while let Some((verb, more, child)) = running.pop() {
            let output = child.wait_with_output().unwrap();
            if code(&output) == 3 {
                assert!(text(&output).contains("locked"), "round {round}: {verb}: {}", text(&output));
                (locked, attempts) = (locked + 1, attempts + 1);
                assert!(attempts < 100, "round {round}: nobody gets through");
                running.insert(0, (verb, more, spawn(&shop, verb, more)));
                continue;
            }
            // A prune finds something in snapshots that nobody has verified yet.
            assert!(code(&output) == 0 || verb == "prune", "round {round}: {verb}: {}", text(&output));
            taken.extend(ids(&json(&output)["snapshots"], "id"));
            gone.extend(ids(&json(&output)["report"]["removed"], ""));
        }
        for id in gone {
            assert!(taken.remove(&id), "round {round}: {id} was removed, and nobody had taken it");
            removed += 1;
        }
        let report = shop.on("verify", &["--level", "content", "--json"]);
        assert!(code(&report) == 0 || taken.is_empty(), "round {round}: {}", text(&report));
        let listed: BTreeSet<_> = ids(&json(&shop.on("list", &["--json"]))["snapshots"], "id").collect();
        assert_eq!(listed, taken, "round {round}");
    }
    println!("{removed} snapshots removed, {locked} runs found the repository locked");
    assert!(removed > 0 && taken.len() > 3);
    assert_eq!(std::fs::read_dir(shop.path("store/locks")).unwrap().count(), 0);
}

/// Where a drill may work, and what of it is left there.
struct Scratch {
    source: String,
    url: String,
    /// What there is now of scratch databases and files, whatever they are called.
    left: Box<dyn Fn() -> BTreeSet<String>>,
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// Passes, breaks a rule, is interrupted as soon as something is there: nothing is left after any of it.
fn drills(shop: &Shop, scratch: &Scratch, rules: bool) {
    let taken = shop.on("create", &["--source", &format!("shop={}", scratch.source)]);
    assert_eq!(code(&taken), 0, "{}", text(&taken));
    let before = (scratch.left)();
    let drill = ["--snapshot", "latest", "--of", "shop", "--scratch", &scratch.url, "--rto", "1h"];
    let output = shop.on("drill", &[&drill[..], &["--json"]].concat());
    assert_eq!(code(&output), 0, "{}", text(&output));
    let report = json(&output);
    assert!(report["rto_milliseconds"] == 3_600_000 && report["restore"]["milliseconds"].as_u64().is_some());
    let compared = report["restore"]["compared"].as_array().unwrap();
    assert!(!compared.is_empty() && compared.iter().all(|c| c["expected"] == c["found"]), "{compared:?}");
    assert_eq!((scratch.left)(), before);
    if rules {
        std::fs::write(shop.path("rules.sql"), "-- nobody has bought anything\nSELECT id FROM orders;\n").unwrap();
        let output = shop.on("drill", &[&drill[..], &["--invariants", "rules.sql"]].concat());
        assert_eq!(code(&output), 1, "{}", text(&output));
        assert_eq!((scratch.left)(), before);
    }
    let mut interrupted = 0;
    for _ in 0..20 {
        let mut child = spawn(shop, "drill", &drill);
        while (scratch.left)() == before && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        interrupt(&child);
        let output: Output = child.wait_with_output().unwrap();
        interrupted += u32::from(code(&output) == 3);
        // A server notices a little later that nobody is there any more.
        let until = Instant::now() + Duration::from_secs(10);
        while (scratch.left)() != before && Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!((scratch.left)(), before, "{}", text(&output));
        if interrupted == 2 {
            return;
        }
    }
    assert!(interrupted > 0, "no drill was interrupted in time");
}

fn names_in(folder: PathBuf) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).filter(|n| n != "rules.sql").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn drills_on_sqlite_and_files_leave_nothing() {
    let shop = Shop::new();
    storefront::sqlite::create(&shop.path("shop.db"), &Size::orders(20_000), 8).await.unwrap();
    for (source, url, rules) in [("sqlite:shop.db", "sqlite:scratch.db", true), ("dir:uploads", "dir:scratch", false)] {
        let shop = if rules { &shop } else { &Shop::new() };
        storefront::uploads::create(&shop.path("uploads"), 8, 4_000, 5_000).unwrap();
        let folder = shop.dir.path().to_owned();
        let scratch =
            Scratch { source: source.into(), url: url.into(), left: Box::new(move || names_in(folder.clone())) };
        drills(shop, &scratch, rules);
    }
}

/// As somebody who may read the shop, and do as he likes in databases of his own alone.
#[tokio::test(flavor = "multi_thread")]
async fn drills_on_postgres_leave_nothing() {
    let server = storefront::postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    storefront::postgres::create(&url, &Size::orders(20_000), 2).await.unwrap();
    server.psql("shop", "CREATE ROLE crew LOGIN CREATEDB; GRANT pg_read_all_data TO crew").unwrap();
    let (source, url) = (server.url_as("crew", "shop"), server.url_as("crew", "scratch"));
    let left = move || {
        let names = server.psql("postgres", "SELECT datname FROM pg_database").unwrap();
        names.lines().map(str::to_owned).collect()
    };
    drills(&Shop::new(), &Scratch { source, url, left: Box::new(left) }, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn drills_on_mariadb_leave_nothing() {
    let server = storefront::mysql::Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    storefront::mysql::create(&url, &Size::orders(20_000), 2).await.unwrap();
    server
        .sql(
            "shop",
            "CREATE USER crew; GRANT SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT ON shop.* TO crew; GRANT RELOAD, PROCESS ON *.* TO crew; GRANT SELECT ON mysql.* TO crew; GRANT ALL ON scratch.* TO crew",
        )
        .unwrap();
    if !server.is_mariadb() {
        server.sql("", "GRANT SHOW_ROUTINE ON *.* TO crew").unwrap();
    }
    let (source, url) = (server.url_as("crew", "shop"), server.url_as("crew", "scratch"));
    let left = move || {
        let names = server.sql("mysql", "SHOW DATABASES").unwrap();
        names.lines().map(str::to_owned).collect()
    };
    drills(&Shop::new(), &Scratch { source, url, left: Box::new(left) }, true);
}
