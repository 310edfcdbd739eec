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

#[tokio::test]
async fn cleanup_and_orphans_count_first_and_do_it_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    let facts = sqlite::create(&path, &Size::orders(500), 1).await.unwrap();
    let url = format!("sqlite:{}", path.display());
    let policy = dir.path().join("policy.toml");
    let example = maintain(&["policy"]);
    std::fs::write(&policy, String::from_utf8(example.stdout).unwrap().replace("\"report\"", "\"delete\"")).unwrap();
    let policy = policy.to_str().unwrap();
    let schema: Value = serde_json::from_str(include_str!("../schemas/maintain.schema.json")).unwrap();
    let now = "2026-01-15T12:00:00Z";
    let run = |verb: &str, more: &[&str]| {
        let mut arguments = vec![verb, "--database", &url, "--policy", policy, "--now", now];
        arguments.extend_from_slice(more);
        maintain(&arguments)
    };
    let plan = run("cleanup", &[]);
    let text = String::from_utf8(plan.stdout).unwrap();
    let wanted = format!("old sessions: {} rows to delete in sessions before 2025-12-16", facts.old_sessions);
    assert!(plan.status.code() == Some(0) && text.contains(&wanted) && text.contains("--apply"), "{text}");
    let done = run("cleanup", &["--apply", "--json"]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    support::fits(&report, &schema["$defs"]["cleanup"], &schema, "cleanup");
    assert_eq!(report["rules"][0]["changed"].as_u64(), Some(facts.old_sessions));
    // Orphans that are there are a finding.
    let found = run("orphans", &[]);
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stderr));
    assert_eq!(run("orphans", &["--apply"]).status.code(), Some(0));
    assert_eq!(run("orphans", &[]).status.code(), Some(0));
}
