//! The tool `maintain`, as a shop's cron runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use storefront::{Size, faults, sqlite};
use support::tool;

fn maintain(arguments: &[&str]) -> Output {
    Command::new(tool("maintain")).args(arguments).output().unwrap()
}

async fn shop(faulty: bool) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    sqlite::create(&path, &Size::orders(200), 1).await.unwrap();
    let mut db = sqlite::open(&path, false).await.unwrap();
    let plant = if faulty { faults::SQLITE.plant } else { &[] };
    for sql in faults::SQLITE.mend.iter().chain(plant) {
        sqlite::run(&mut db, sql).await.unwrap();
    }
    let url = format!("sqlite:{}", path.display());
    (dir, url)
}

#[tokio::test]
async fn inspect_says_what_it_found_in_words_json_and_exit_code() {
    let (_dir, url) = shop(false).await;
    let clean = maintain(&["inspect", "--database", &url]);
    let text = String::from_utf8(clean.stdout).unwrap();
    assert_eq!(clean.status.code(), Some(0), "{text}");
    assert!(text.contains("0 findings"), "{text}");

    let (_dir, url) = shop(true).await;
    let sick = maintain(&["inspect", "--database", &url]);
    let text = String::from_utf8(sick.stdout).unwrap();
    assert_eq!(sick.status.code(), Some(1), "{text}");
    for (check, object) in faults::SQLITE.planted {
        assert!(text.contains(&format!("{check} {object}: ")), "{check} {object}: {text}");
    }
    let shown = maintain(&["inspect", "--json", "--database", &url]);
    assert_eq!(shown.status.code(), Some(1));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let schema: Value = serde_json::from_str(include_str!("../schemas/maintain.schema.json")).unwrap();
    support::fits(&shown, &schema["$defs"]["inspect"], &schema, "inspect");
    let found = shown["checks"].as_array().unwrap().iter().find(|c| c["check"] == "index-duplicate").unwrap();
    assert_eq!((found["outcome"].as_str(), found["findings"].as_array().map(Vec::len)), (Some("found"), Some(2)));
}

#[test]
fn what_makes_no_sense_or_is_not_there_has_its_exit_code() {
    assert_eq!(maintain(&["inspect"]).status.code(), Some(2));
    assert_eq!(maintain(&["inspect", "--database", "oracle:x"]).status.code(), Some(2));
    let gone = maintain(&["inspect", "--database", "sqlite:/no/such/shop.db"]);
    assert_eq!(gone.status.code(), Some(3));
    let said = String::from_utf8(gone.stderr).unwrap();
    assert!(said.contains("no such file") && said.contains("next:"), "{said}");
}

#[tokio::test]
async fn a_check_that_may_be_blind_has_to_exist() {
    let (_dir, url) = shop(false).await;
    let wrong = maintain(&["inspect", "--database", &url, "--allow-unknown", "index-unsued"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert_eq!(maintain(&["inspect", "--database", &url, "--allow-unknown", "index-unused"]).status.code(), Some(0));
}
