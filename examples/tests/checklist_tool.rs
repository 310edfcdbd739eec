//! The tool `checklist`, as a person or a program calls it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use storefront::web::Shop;
use support::tool;

fn checklist(arguments: &[&str]) -> Output {
    Command::new(tool("checklist")).args(arguments).env_clear().output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(output)))
}

fn outcome(report: &Value, item: &str) -> String {
    let items = report["audit"]["items"].as_array().unwrap();
    let found = items.iter().find(|i| i["item"]["id"] == item).unwrap_or_else(|| panic!("no {item}"));
    found["outcome"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_is_audited_attested_waived_and_reported() {
    let shop = Shop::weak().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("evidence.log");
    let ledger = ledger.to_str().unwrap();
    let source = shop.public();
    let (url, source) = (shop.url(), source.to_str().unwrap().to_owned());
    let audit = || checklist(&["audit", "--json", "--site", &url, "--source", &source, "--ledger", ledger]);
    let first = audit();
    assert_eq!(first.status.code(), Some(1), "{}", text(&first));
    let report = json(&first);
    assert_eq!(
        (outcome(&report, "auth.session"), outcome(&report, "input.sql-injection")),
        ("fail".into(), "pass".into())
    );
    assert_eq!(outcome(&report, "infra.firewall"), "unknown", "no host was given");
    assert!(!text(&first).contains("4eC39HqLyjWDarjtT1zdp7dc"), "a secret is shown");
    let schema: Value = serde_json::from_str(include_str!("../../checklist/schemas/report.schema.json")).unwrap();
    assert!(schema["properties"].as_object().unwrap().keys().all(|key| report.get(key).is_some()));

    // What is checked cannot be attested; what no check can know can, by name, and ends.
    let refused = checklist(&["attest", "auth.session", "--by", "Anna", "--statement", "x", "--ledger", ledger]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    let said = checklist(&[
        "attest",
        "infra.firewall",
        "--by",
        "Anna",
        "--statement",
        "rules of the provider",
        "--ledger",
        ledger,
    ]);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said));
    let waived = checklist(&[
        "waive",
        "auth.session",
        "--by",
        "Ben",
        "--reason",
        "new shop next week",
        "--for",
        "7d",
        "--ledger",
        ledger,
    ]);
    assert_eq!(waived.status.code(), Some(0), "{}", text(&waived));
    let second = json(&audit());
    assert_eq!(
        (outcome(&second, "infra.firewall"), outcome(&second, "auth.session")),
        ("attested".into(), "waived".into())
    );
    assert_eq!(second["changes"].as_array().unwrap().len(), 2);
    assert_eq!(second["history"].as_array().unwrap().len(), 1);
    assert_eq!(checklist(&["withdraw", "auth.session", "--by", "Ben", "--ledger", ledger]).status.code(), Some(0));

    for (format, begins) in
        [("md", "# Checklist of"), ("html", "<!doctype html>"), ("json", "{"), ("sarif", "{"), ("junit", "<?xml")]
    {
        let out = dir.path().join(format);
        let made = checklist(&["report", "--format", format, "--ledger", ledger, "--out", out.to_str().unwrap()]);
        assert_eq!(made.status.code(), Some(0), "{}", text(&made));
        let written = std::fs::read_to_string(out).unwrap();
        assert!(written.starts_with(begins), "{format}: {}", &written[..80]);
        assert!(!written.contains("4eC39HqLyjWDarjtT1zdp7dc"));
    }
    // The ledger is whole; a period of it can be checked elsewhere; a change is noticed.
    let whole = checklist(&["ledger", "--ledger", ledger]);
    assert!(text(&whole).starts_with("whole: 5 entries"), "{}", text(&whole));
    let export = dir.path().join("export");
    std::fs::write(&export, checklist(&["ledger", "--from", "2026-01-01", "--ledger", ledger]).stdout).unwrap();
    assert!(text(&checklist(&["ledger", "--check", export.to_str().unwrap()])).starts_with("5 entries"));
    let changed = std::fs::read_to_string(ledger).unwrap().replace("rules of the provider", "rules of the provider!");
    std::fs::write(ledger, changed).unwrap();
    let refused = checklist(&["audit", "--ledger", ledger]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert!(text(&refused).contains("entry 2 is not what was written"), "{}", text(&refused));
}

#[test]
fn tasks_secrets_and_growth() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("caretaker.toml");
    std::fs::write(
        &config,
        format!(
            "[shop]\nname = \"Shop\"\ntime_zone = \"Africa/Lagos\"\nstate = \"{}\"\n\
             [checklist]\nowners = {{ \"*\" = \"Anna\" }}\nin_place = {{ cdn = true }}\n\
             [[checklist.secret]]\nname = \"STRIPE_SECRET_KEY\"\nowner = \"Ben\"\nsince = \"2026-01-01\"\n\
             [[checklist.task]]\nid = \"daily.shelf\"\ntitle = \"Look at the shelf\"\nevery = \"daily\"\nat = \"00:00\"\n",
            dir.path().display()
        ),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let tasks = checklist(&["tasks", "--config", config]);
    assert!(text(&tasks).contains("Look at the shelf (daily.shelf, Anna)"), "{}", text(&tasks));
    assert_eq!(checklist(&["done", "daily.shelf", "--by", "Anna", "--config", config]).status.code(), Some(0));
    let after = checklist(&["tasks", "--config", config]);
    assert!(!text(&after).contains("daily.shelf"), "{}", text(&after));
    let all = checklist(&["tasks", "--all", "--config", config]);
    assert!(text(&all).contains("done      Look at the shelf") && text(&all).contains("by Anna"), "{}", text(&all));
    assert_eq!(checklist(&["done", "daily.nothing", "--by", "Anna", "--config", config]).status.code(), Some(2));

    let late = checklist(&["secrets", "--config", config]);
    assert_eq!(late.status.code(), Some(1), "{}", text(&late));
    assert!(text(&late).contains("OVERDUE  STRIPE_SECRET_KEY"));
    assert_eq!(
        checklist(&["secrets", "--rotated", "STRIPE_SECRET_KEY", "--by", "Ben", "--config", config]).status.code(),
        Some(0)
    );
    assert_eq!(checklist(&["secrets", "--config", config]).status.code(), Some(0));

    let growth =
        json(&checklist(&["scaling", "--orders", "900,950,1000,1060,1120,1180", "--config", config, "--json"]));
    assert_eq!(growth["phase"], "two");
    assert!(growth["needs"].as_array().unwrap().iter().any(|n| n["name"] == "cdn" && n["in_place"] == true));
    assert_eq!(checklist(&["audit", "--config", "/no/such.toml"]).status.code(), Some(2));
}

/// Orders that the shop's database counts, contacts, lists of their own, and the API of OSV where it is asked.
#[tokio::test(flavor = "multi_thread")]
async fn measured_growth_contacts_and_lists() {
    let dir = tempfile::tempdir().unwrap();
    let (db, config, ledger) =
        (dir.path().join("shop.db"), dir.path().join("caretaker.toml"), dir.path().join("evidence.log"));
    let sql = "CREATE TABLE m (name text, value integer); INSERT INTO m VALUES ('2025-01', 1500), ('2025-02', 1600), ('2025-03', 1700), ('2999-01', 9)";
    let made = Command::new("sqlite3").arg(&db).arg(sql).output().unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(
        source.join("package-lock.json"),
        r#"{"lockfileVersion":3,"packages":{"node_modules/next":{"version":"14.2.0"}}}"#,
    )
    .unwrap();
    let toml = |query: &str| {
        format!(
            "[shop]\nname = \"Shop\"\nstate = \"{0}\"\n[checklist]\nsource = \"{0}/source\"\n\
             [checklist.orders]\ndatabase = \"sqlite:{0}/shop.db\"\nsql = \"{query}\"\n\
             [[contact]]\nrole = \"hosting\"\nreach = [\"+234 000\"]\n",
            dir.path().display()
        )
    };
    std::fs::write(&config, toml("SELECT name, value FROM m WHERE name < '2025-04'")).unwrap();
    let (config_at, ledger) = (config.to_str().unwrap(), ledger.to_str().unwrap());
    let growth = json(&checklist(&["scaling", "--config", config_at, "--json"]));
    // Months after the last order had none.
    assert_eq!((growth["phase"].as_str(), growth["orders"].as_f64()), (Some("one"), Some(0.0)), "{growth}");

    // An address at which nobody answers is no clean bill of health, and no end of the audit.
    let audit = checklist(&["audit", "--json", "--config", config_at, "--ledger", ledger, "--osv=http://127.0.0.1:1"]);
    assert_eq!(audit.status.code(), Some(1), "{}", text(&audit));
    let report = json(&audit);
    assert_eq!(outcome(&report, "upkeep.dependencies"), "unknown");
    assert!(String::from_utf8_lossy(&audit.stdout).contains("the API of OSV at http://127.0.0.1:1/: no answer"));
    assert_eq!((&report["contacts"][0]["role"], &report["scaling"]["phase"]), (&"hosting".into(), &"one".into()));

    // A query that is wrong takes growth from the report, and nothing else.
    std::fs::write(&config, toml("SELECT nothing FROM m")).unwrap();
    let audit = checklist(&["audit", "--json", "--config", config_at, "--ledger", ledger]);
    assert_eq!((audit.status.code(), &json(&audit)["scaling"]), (Some(1), &Value::Null), "{}", text(&audit));
    assert_eq!(checklist(&["scaling", "--config", config_at]).status.code(), Some(2));

    let steps = || checklist(&["steps", "incident", "--ledger", ledger]);
    assert!(text(&steps()).contains("UNKNOWN** Contain it"), "{}", text(&steps()));
    let said = ["attest", "incident.03", "--by", "Anna", "--statement", "keys ended, 14:05", "--ledger", ledger];
    assert_eq!(checklist(&said).status.code(), Some(0));
    assert!(text(&steps()).contains("ATTESTED** Contain it"), "{}", text(&steps()));
    assert_eq!(checklist(&["steps", "deployment", "--ledger", ledger]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_reviewed_and_a_change_opens_it_again() {
    let server = storefront::postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    server
        .psql(
            "shop",
            "CREATE TABLE customers (email text); CREATE ROLE clerk LOGIN; GRANT SELECT ON customers TO clerk",
        )
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, "[access]\n[[access.table]]\ntable = \"customers\"\n").unwrap();
    let ledger = dir.path().join("evidence.log");
    let (policy, ledger) = (policy.to_str().unwrap().to_owned(), ledger.to_str().unwrap().to_owned());
    let review = |more: &[&str]| {
        let all = [&["review", "--database", &url, "--policy", &policy, "--ledger", &ledger][..], more].concat();
        checklist(&all)
    };
    let first = review(&[]);
    assert_eq!(first.status.code(), Some(1), "{}", text(&first));
    assert!(
        text(&first).contains("clerk: to decide") && text(&first).contains("reads public.customers"),
        "{}",
        text(&first)
    );
    assert_eq!(review(&["--keep", "clerk", "--by", "Anna", "--reason", "sends parcels"]).status.code(), Some(0));
    let line = |output: &Output| text(output).lines().find(|l| l.starts_with("clerk: ")).unwrap().to_owned();
    assert!(line(&review(&[])).contains("kept by Anna"), "{}", text(&review(&[])));
    server.psql("shop", "GRANT DELETE ON customers TO clerk").unwrap();
    assert!(line(&review(&[])).contains("CHANGED since Anna decided"), "{}", text(&review(&[])));
    assert_eq!(review(&["--keep", "nobody_of_that_name", "--by", "Anna", "--reason", "x"]).status.code(), Some(2));
    assert!(Path::new(&ledger).exists());
}
