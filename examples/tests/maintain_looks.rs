//! What `maintain` says beside earlier looks and a policy: `growth`, `access`, `cache`, `inspect --history --policy`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use storefront::{Size, nginx, redis, sqlite};
use support::tool;

fn maintain(arguments: &[&str]) -> Output {
    Command::new(tool("maintain")).args(arguments).output().unwrap()
}

fn document(verb: &str, output: &Output) -> Value {
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let schema: Value = serde_json::from_str(include_str!("../schemas/maintain.schema.json")).unwrap();
    support::fits(&said, &schema["$defs"][verb], &schema, verb);
    said
}

async fn shop() -> (tempfile::TempDir, String, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    sqlite::create(&path, &Size::orders(100), 1).await.unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let url = format!("sqlite:{}", path.display());
    (dir, url, path)
}

/// The same looks, so many days ago, and the database so much smaller then.
fn age(history: &Path, days: i64, bytes: u64) -> String {
    let mut look: Value =
        serde_json::from_str(std::fs::read_to_string(history).unwrap().lines().last().unwrap()).unwrap();
    let at: db_maint::chrono::DateTime<db_maint::chrono::Utc> = look["taken_at"].as_str().unwrap().parse().unwrap();
    look["taken_at"] = json!(at - db_maint::chrono::TimeDelta::days(days));
    let size = &mut look["sizes"]["Ok"]["database"];
    *size = json!(size.as_u64().unwrap() - bytes);
    look.to_string()
}

#[tokio::test]
async fn growth_keeps_looks_and_says_when_the_disk_is_full() {
    let (dir, url, _) = shop().await;
    let file = dir.path().join("history.jsonl");
    let history = file.to_str().unwrap();
    let first = maintain(&["growth", "--database", &url, "--history", history, "--json"]);
    assert_eq!(first.status.code(), Some(0));
    let first = document("growth", &first);
    assert_eq!(
        (first["database"]["rate"].as_str(), first["forecast"]["forecast"].as_str()),
        (Some("unknown"), Some("unknown"))
    );
    // Who asks when it will be full, and cannot be told, is not told that all is well.
    let asked = maintain(&["growth", "--database", &url, "--volume", dir.path().to_str().unwrap()]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stdout).contains("UNKNOWN"));

    // Some 10 kB a day, for ten days.
    let lines: Vec<String> = (1..=10).rev().map(|day| age(&file, day, u64::try_from(day).unwrap() * 10_000)).collect();
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let soon = maintain(&["growth", "--database", &url, "--history", history, "--free", "100K", "--json"]);
    assert_eq!(soon.status.code(), Some(1));
    let soon = document("growth", &soon);
    assert_eq!(soon["forecast"]["forecast"], "full");
    assert!((9_000.0..11_000.0).contains(&soon["database"]["bytes_per_day"].as_f64().unwrap()), "{soon}");
    assert_eq!(soon["looks"], 11);
    let far = maintain(&["growth", "--database", &url, "--history", history, "--free", "500G"]);
    assert_eq!(far.status.code(), Some(0), "{}", String::from_utf8_lossy(&far.stdout));
    // Looks of another database are refused, and so is a file with a slip in it.
    let (_other, other, _) = shop().await;
    assert_eq!(maintain(&["growth", "--database", &other, "--history", history]).status.code(), Some(2));
    std::fs::write(&file, "{}\n").unwrap();
    let slip = maintain(&["inspect", "--database", &url, "--history", history]);
    assert_eq!(slip.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&slip.stderr).contains("line 1"));
}

#[tokio::test]
async fn inspect_adds_its_look_and_holds_a_policy_against_the_database() {
    let (dir, url, _) = shop().await;
    let file = dir.path().join("history.jsonl");
    let policy = dir.path().join("policy.toml");
    // The sample shop's sessions are of another year.
    let example = String::from_utf8(maintain(&["policy"]).stdout).unwrap();
    std::fs::write(&policy, example.replace("keep = \"30d\"", "keep = \"30d\"\nmay_empty = true")).unwrap();
    let (history, policy_path) = (file.to_str().unwrap(), policy.to_str().unwrap());
    let seen = maintain(&["inspect", "--database", &url, "--history", history, "--policy", policy_path, "--json"]);
    let seen = document("inspect", &seen);
    let of = |check: &str| seen["checks"].as_array().unwrap().iter().find(|c| c["check"] == check).unwrap().clone();
    assert_eq!(of("policy")["outcome"], "clean", "{}", of("policy"));
    assert_eq!(of("orphans")["outcome"], "found");
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
    maintain(&["inspect", "--database", &url, "--history", history]);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
    let text = std::fs::read_to_string(&policy).unwrap().replace("table = \"sessions\"", "table = \"session\"");
    std::fs::write(&policy, text).unwrap();
    let wrong = maintain(&["inspect", "--database", &url, "--policy", policy_path]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stdout).contains("policy old sessions:"));
}

#[tokio::test]
async fn access_says_who_may_do_what() {
    let (dir, url, path) = shop().await;
    let well = maintain(&["access", "--database", &url, "--json"]);
    assert_eq!(well.status.code(), Some(0), "{}", String::from_utf8_lossy(&well.stdout));
    document("access", &well);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let policy = dir.path().join("policy.toml");
    let text = String::from_utf8(maintain(&["policy"]).stdout).unwrap();
    std::fs::write(&policy, text.replace("# expected = ", "expected = ")).unwrap();
    let told = maintain(&["access", "--database", &url, "--policy", policy.to_str().unwrap()]);
    let said = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(1), "{said}");
    assert!(said.contains("everybody on the machine may read it") && said.contains("whom nobody has named"), "{said}");
}

#[tokio::test]
async fn caches_are_counted_first_and_cleared_when_told_with_secrets_from_the_environment() {
    let server = redis::Server::start("geheim").await.unwrap();
    server.ask(&["AUTH geheim", "SET shop:cache:1 x", "SET shop:cart:1 x"]).unwrap();
    let web = nginx::Server::start(
        "server { listen 127.0.0.1:{port}; location / { if ($http_authorization != \"Bearer token-17\") { return 403; } return 204; } }",
    )
    .await
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join(".next/cache");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::write(cache.join("page"), "x").unwrap();
    let policy = dir.path().join("policy.toml");
    std::fs::write(
        &policy,
        format!(
            "[[cache]]\nname = \"pages\"\ndirectory = {{ path = \"{}\" }}\n\
             [[cache]]\nname = \"redis\"\nredis = {{ url = \"{}\", prefix = \"shop:cache:\", password_env = \"SHOP_REDIS\" }}\n\
             [[cache]]\nname = \"revalidate\"\nhttp = {{ url = \"{}\", method = \"POST\", header = \"Authorization\", secret_env = \"SHOP_TOKEN\" }}\n",
            cache.display(),
            server.url(),
            web.url()
        ),
    )
    .unwrap();
    let clear = |more: &[&str], secrets: bool| {
        let mut command = Command::new(tool("maintain"));
        command.args(["cache", "--json", "--policy", policy.to_str().unwrap()]).args(more);
        if secrets {
            command.env("SHOP_REDIS", "geheim").env("SHOP_TOKEN", "Bearer token-17");
        }
        command.output().unwrap()
    };
    let counted = clear(&[], true);
    assert_eq!(counted.status.code(), Some(0), "{}", String::from_utf8_lossy(&counted.stdout));
    assert!(
        document("cache", &counted)["caches"].as_array().unwrap().iter().all(|c| c["met"] == 1 && c["cleared"] == 0)
    );
    assert!(cache.join("page").exists());
    // Without the secrets they say so, and what needs none is cleared.
    let blind = clear(&["--apply", "--only", "redis", "--only", "revalidate"], false);
    assert_eq!(blind.status.code(), Some(1));
    let said = String::from_utf8(blind.stdout).unwrap();
    assert!(said.contains("SHOP_REDIS") && said.contains("SHOP_TOKEN"), "{said}");
    let done = clear(&["--apply"], true);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stdout));
    assert!(document("cache", &done)["caches"].as_array().unwrap().iter().all(|c| c["cleared"] == 1));
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(!said.contains("geheim") && !said.contains("token-17"), "{said}");
    assert_eq!(server.ask(&["AUTH geheim", "EXISTS shop:cart:1", "EXISTS shop:cache:1"]).unwrap(), ["+OK", ":1", ":0"]);
    assert!(!cache.join("page").exists() && cache.exists());
    // A folder that is no cache is a slip in the policy: nothing is touched.
    std::fs::write(
        &policy,
        format!("[[cache]]\nname = \"x\"\ndirectory = {{ path = \"{}\" }}\n", dir.path().display()),
    )
    .unwrap();
    assert_eq!(clear(&["--apply"], false).status.code(), Some(2));
    assert!(policy.exists());
}
