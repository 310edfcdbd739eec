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

#[tokio::test]
async fn a_shop_is_looked_after_by_its_policy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    let facts = sqlite::create(&path, &Size::orders(500), 1).await.unwrap();
    let url = format!("sqlite:{}", path.display());
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, maintain(&["policy"]).stdout).unwrap();
    let policy = policy.to_str().unwrap();
    let run = |verb: &[&str], more: &[&str]| {
        let mut arguments = verb.to_vec();
        arguments.extend_from_slice(&["--database", &url, "--policy", policy, "--now", "2026-01-15T12:00:00Z"]);
        arguments.extend_from_slice(more);
        let output = maintain(&arguments);
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said, String::from_utf8(output.stderr).unwrap())
    };
    // Stock: told as new once.
    let (code, said, error) = run(&["inventory"], &["--apply"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(said.contains(&format!("{} of them newly", facts.low_stock)), "{said}");
    let (code, said, _) = run(&["inventory"], &["--apply", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let seen: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(seen["low"].as_array().unwrap().len() as u64, facts.low_stock);

    // Carts: a command that fails leaves them to be claimed; one that does not gets each once.
    let (_, said, error) = run(&["carts"], &["--json"]);
    let abandoned =
        serde_json::from_str::<Value>(&said).unwrap_or_else(|_| panic!("{error}"))["abandoned"].as_u64().unwrap();
    assert!(abandoned > 1);
    let (code, said, _) = run(&["carts"], &["--apply", "--send", "cat > /dev/null; exit 1"]);
    assert_eq!(code, Some(1), "{said}");
    let out = dir.path().join("sent");
    let (code, said, error) = run(&["carts"], &["--apply", "--send", &format!("cat >> {}", out.display())]);
    assert_eq!(
        (code, said.trim()),
        (Some(0), format!("{abandoned} owners were told, 0 could not be").as_str()),
        "{error}"
    );
    let sent = std::fs::read_to_string(&out).unwrap();
    assert_eq!(sent.lines().count() as u64, abandoned);
    assert!(sent.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["contact"].is_string()));
    assert!(run(&["carts"], &[]).1.starts_with("0 carts"));

    // A person.
    let file = dir.path().join("known.json");
    let (code, _, error) = run(&["privacy", "export"], &["--subject", "1", "--out", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
    let known: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(known["tables"].as_array().unwrap().len() == 3 && !known.to_string().contains("password_hash"));
    assert!(run(&["privacy", "erase"], &["--subject", "1"]).1.contains("nothing was changed"));
    let (code, said, error) = run(&["privacy", "erase"], &["--subject", "1", "--apply"]);
    assert!(
        code == Some(0) && said.contains("invoices are kept by law") && said.contains("\ncomplete"),
        "{said} {error}"
    );
    assert_eq!(run(&["privacy", "export"], &["--subject", "99999999"]).0, Some(2));
}

#[test]
fn a_shop_is_closed_and_opened_on_every_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let env = dir.path().join(".env");
    std::fs::write(&env, "# shop\nNEXT_PUBLIC_MAINTENANCE_MODE=false\n").unwrap();
    let file = env.to_str().unwrap();
    let status = || maintain(&["mode", "status", "--env-file", file]).status.code();
    assert_eq!(status(), Some(0));
    assert_eq!(
        maintain(&["mode", "on", "--env-file", file, "--for", "10m", "--reason", "moving"]).status.code(),
        Some(0)
    );
    assert_eq!(status(), Some(1));
    assert!(std::fs::read_to_string(&env).unwrap().contains("NEXT_PUBLIC_MAINTENANCE_MODE=true"));
    assert_eq!(maintain(&["mode", "off", "--env-file", file, "--if-over"]).status.code(), Some(0));
    assert_eq!(status(), Some(1));
    assert_eq!(maintain(&["mode", "off", "--env-file", file]).status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(&env).unwrap(), "# shop\nNEXT_PUBLIC_MAINTENANCE_MODE=false\n");
    assert_eq!(maintain(&["mode", "on"]).status.code(), Some(2));
    // One that stays opens the shop when it is told to end.
    for signal in ["-INT", "-TERM"] {
        let mut held =
            Command::new(tool("maintain")).args(["mode", "on", "--hold", "--env-file", file]).spawn().unwrap();
        while status() != Some(1) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(Command::new("kill").args([signal, &held.id().to_string()]).status().unwrap().success());
        assert!(held.wait().unwrap().success());
        assert_eq!(status(), Some(0), "{signal}");
    }
}
