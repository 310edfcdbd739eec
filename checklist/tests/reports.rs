//! Reports against the schemas of their formats, and in a browser.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::process::Command;

use async_trait::async_trait;
use checklist::ledger::{Ledger, MemoryLedger, Record};
use checklist::report::{Format, Report, TaskLine};
use checklist::{
    Auditor, Check, Contact, Context, Finding, Item, Outcome, Result, Secret, Tier, Waiver, completions, items,
    routines, scaling, secret_ages,
};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde_json::Value;
use storefront::chromium::{self, Screen};

/// What a stranger could put into a page, a table or a log.
const HOSTILE: &str =
    "<script>alert(1)</script> ]]> & \"quoted\" 'single' \u{0} \u{1b}[31m `tick` | pipe \n line ümläut";

#[derive(Debug)]
struct Says(&'static str, fn() -> Finding);

#[async_trait]
impl Check for Says {
    fn id(&self) -> &str {
        self.0
    }

    fn item(&self) -> &str {
        self.0
    }

    fn tier(&self) -> Tier {
        Tier::AuthenticatedRead
    }

    async fn run(&self, _: &Context) -> Result<Finding> {
        Ok(self.1())
    }
}

fn noon() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-11-26T12:00:00Z").unwrap().to_utc()
}

/// All outcomes, a history, tasks, secrets, growth.
async fn report() -> Report {
    let ledger = MemoryLedger::default();
    let mut all = items();
    all.push(Item::new("shop.hostile", HOSTILE, HOSTILE));
    let fail =
        || Finding::fail(HOSTILE).at("src/a b<c>.php", Some(3), HOSTILE).at("https://shop.example/x", None, "a page");
    let checks = [
        Says("auth.session", || Finding::pass("good")),
        Says("auth.csrf", || Finding::warn("so so").at("users.password", None, "a column")),
        Says("auth.password-hash", || Finding::not_applicable("nobody has one")),
        Says("infra.ports", fail),
        Says("infra.cors", fail),
        Says("shop.hostile", fail),
    ];
    let mut auditor = Auditor::new(all);
    for check in checks {
        auditor = auditor.with_check(check);
    }
    let waiver = Waiver {
        item: "infra.cors".into(),
        by: "Ben".into(),
        reason: HOSTILE.into(),
        at: noon(),
        until: noon() + TimeDelta::days(9),
    };
    ledger.append(noon(), Record::Waived(waiver)).await.unwrap();
    for week in 0..4 {
        let at = noon() - TimeDelta::weeks(3 - week);
        let standing = ledger.entries().await.unwrap().standing();
        let mut audit = auditor.run(HOSTILE, &Context::at(at), &standing).await;
        if week < 3 {
            audit.items[0].outcome = Outcome::Pass;
        }
        ledger.append(at, Record::Audit { audit: Box::new(audit) }).await.unwrap();
    }
    ledger
        .append(noon(), Record::Done { task: "weekly.logs".into(), by: "Anna <x>".into(), note: "seen".into() })
        .await
        .unwrap();
    let entries = ledger.entries().await.unwrap();
    let lines = routines().into_iter().map(|task| {
        let done = completions(&task, &entries);
        TaskLine::new(&task, task.occurrences(&done, noon() - TimeDelta::days(90), noon(), chrono_tz::Africa::Lagos))
    });
    let since = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
    let secrets = [Secret { name: "STRIPE_SECRET_KEY".into(), owner: "Anna".into(), since, rotate_days: 90 }];
    Report::new(entries.audits().last().unwrap(), &entries, noon())
        .with_tasks(lines.collect())
        .with_secrets(secret_ages(&secrets, &entries, noon()))
        .with_contacts(vec![Contact {
            role: "hosting".into(),
            name: Some(HOSTILE.into()),
            reach: vec![HOSTILE.into()],
        }])
        .with_scaling(scaling(&[700, 740, 790, 850, 900, 960], &BTreeMap::from([("cdn".to_owned(), true)])))
}

fn fits(schema: &Value, document: &str) {
    let document: Value = serde_json::from_str(document).unwrap();
    let validator = jsonschema::validator_for(schema).unwrap();
    let wrong: Vec<String> = validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn json_fits_the_published_schema() {
    let schema: Value = serde_json::from_str(include_str!("../schemas/report.schema.json")).unwrap();
    let text = report().await.render(Format::Json).unwrap();
    fits(&schema, &text);
    let again: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(again.audit.items.len(), items().len() + 1);
    assert!(!again.changes.is_empty());
}

/// The schema of OASIS comes with the crate `serde-sarif`, in its package.
#[tokio::test]
async fn sarif_fits_the_schema_of_oasis() {
    // Packages of other platforms are not here, and not wanted.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata["packages"].as_array().unwrap().iter().find(|p| p["name"] == "serde-sarif").unwrap();
    let folder = std::path::Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned();
    let mut schema: Value = serde_json::from_slice(&std::fs::read(folder.join("src/schema.json")).unwrap()).unwrap();
    assert!(schema["title"].as_str().unwrap().contains("(SARIF) Version 2.1.0"), "{}", schema["title"]);
    // The pattern of a language in it has a bracket too many, which is no expression.
    for definition in schema["definitions"].as_object_mut().unwrap().values_mut() {
        if let Some(language) = definition.pointer_mut("/properties/language").and_then(Value::as_object_mut) {
            language.remove("pattern");
        }
    }
    let text = report().await.render(Format::Sarif).unwrap();
    fits(&schema, &text);
    let sarif: serde_sarif::sarif::Sarif = serde_json::from_str(&text).unwrap();
    let results = sarif.runs[0].results.as_ref().unwrap();
    let of = |rule: &str| results.iter().filter(|r| r.rule_id.as_deref() == Some(rule)).count();
    assert_eq!((of("infra.ports"), of("auth.session")), (2, 0));
    assert!(results.iter().any(|r| r.rule_id.as_deref() == Some("infra.cors") && r.suppressions.is_some()));
}

#[tokio::test]
async fn junit_fits_its_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("junit.xml");
    std::fs::write(&path, report().await.render(Format::Junit).unwrap()).unwrap();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/junit.xsd");
    let output = Command::new("xmllint").args(["--noout", "--schema", schema]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count = |what: &str| {
        let xpath = format!("count(//{what})");
        String::from_utf8(Command::new("xmllint").args(["--xpath", &xpath]).arg(&path).output().unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(count("testcase"), (items().len() + 1).to_string());
    assert_eq!(count("failure"), "3", "two that fail and one that warns");
    assert_eq!(count("skipped"), "2", "one that does not apply and one that is waived");
}

#[tokio::test]
async fn markdown_has_no_tag_and_no_row_of_a_stranger() {
    let text = report().await.render(Format::Markdown).unwrap();
    assert!(!text.contains("<script>") && !text.contains('\u{1b}'));
    for part in [
        "- [x] **PASS**",
        "- [ ] **FAIL**",
        "**WAIVED**",
        "## Tasks",
        "STRIPE_SECRET_KEY",
        "phase 1",
        "Since the audit before",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn html_opens_in_a_browser_without_complaint_or_request() {
    let html = report().await.render(Format::Html).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    std::fs::write(&path, &html).unwrap();
    let url = format!("file://{}", path.display());
    for (width, height, mobile, dark) in [(1280, 900, false, false), (360, 780, true, true)] {
        let url = url.clone();
        let seen =
            tokio::task::spawn_blocking(move || chromium::open(&url, Screen { width, height, mobile, dark }).unwrap())
                .await
                .unwrap();
        assert!(seen.complaints.is_empty(), "{:?}", seen.complaints);
        assert!(
            seen.requests.iter().all(|r| r.starts_with("file://") || r.starts_with("data:")),
            "{:?}",
            seen.requests
        );
        assert!(!seen.overflows, "at {width} px");
        for part in ["FAIL", "UNKNOWN", "WAIVED", "alert(1)", "STRIPE_SECRET_KEY", "Growth", "Tasks"] {
            assert!(seen.text.contains(part), "{part}");
        }
        let out = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("checklist-{width}.png"));
        std::fs::write(out, &seen.screenshot).unwrap();
    }
}
