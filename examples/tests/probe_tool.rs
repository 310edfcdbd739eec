//! `probe` as a shop owner uses it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use storefront::answers::{Answer, Server};
use storefront::certificates::{Authority, Kind};
use storefront::{Size, nginx, sqlite};
use support::{code, text, tool};

fn probe(arguments: &[&str]) -> Output {
    Command::new(tool("probe")).args(arguments).env("STRIPE_KEY", "rk_live_geheimgeheim").output().unwrap()
}

fn document(verb: &str, output: &Output) -> Value {
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{verb}: {e}: {}", text(output)));
    fits(verb, &said);
    said
}

fn fits(verb: &str, said: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../schemas/probe.schema.json")).unwrap();
    support::fits(said, &schema["$defs"][verb], &schema, verb);
}

/// A shop with a database, a page that answers as it is told, and somebody who is told.
struct Shop {
    dir: tempfile::TempDir,
    config: PathBuf,
    site: Server,
}

impl Shop {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Server::start(Answer::Json(200, r#"{"status":"ok"}"#.into())).await.unwrap();
        site.answer("/v1/balance", Answer::Json(200, r#"{"object":"balance","livemode":true}"#.into()));
        let db = dir.path().join("shop.db");
        sqlite::create(&db, &Size::orders(50), 3).await.unwrap();
        let config = dir.path().join("caretaker.toml");
        let (at, url, state) = (dir.path().display(), site.url(), dir.path().join("state"));
        std::fs::write(
            &config,
            format!(
                r#"
[shop]
name = "Sample & Co"
time_zone = "Africa/Lagos"
state = "{}"
[[probe.database]]
id = "database"
every = "1s"
url = "sqlite:{at}/shop.db"
[[probe.http]]
id = "http shop"
title = "the shop"
every = "1s"
url = "{url}/health?token=geheim"
json = {{ "/status" = "ok" }}
after = ["database"]
slo = 99.9
[[probe.stripe_key]]
id = "key stripe"
every = "1s"
api = "{url}"
key = "env:STRIPE_KEY"
[alerts]
heartbeat = "{url}/heartbeat/geheim"
heartbeat_every = "1s"
[[alerts.webhook]]
name = "hook"
url = "{url}/hook/geheim"
[[alerts.route]]
severity = "unknown"
notify = ["hook"]
[[contact]]
role = "hosting"
reach = ["+44 1234"]
[[metric]]
name = "orders a day"
url = "sqlite:{at}/shop.db"
sql = "SELECT date('now', '-1 day') AS day, count(*) AS value FROM orders"
unit = "orders"
target = 1000000
missing = "zero"
"#,
                state.display()
            ),
        )
        .unwrap();
        Self { dir, config, site }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let config = self.config.display().to_string();
        probe(&[arguments, &["--config", &config]].concat())
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

#[test]
fn the_sample_configuration_is_one_and_slips_are_named() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("caretaker.toml");
    let with = |path: &Path, all: bool| {
        let mut command = Command::new(tool("probe"));
        command.args(["check", "--config"]).arg(path).env_clear();
        let names = [
            "STRIPE_RESTRICTED_KEY",
            "PAYSTACK_SECRET_KEY",
            "REMITA_API_KEY",
            "SENTRY_TOKEN",
            "CRUX_API_KEY",
            "PROBE_MAIL_PASSWORD",
            "SMTP_PASSWORD",
        ];
        for name in names {
            command.env(name, "geheim");
        }
        command.env("DATABASE_URL", "postgres://shop:geheim@db/shop");
        if all {
            command.env("SLACK_WEBHOOK_URL", "https://hooks.slack.test/geheim");
            command.env("HEARTBEAT_URL", "https://heartbeat.test/geheim");
        }
        command.output().unwrap()
    };
    let good = with(&sample, true);
    assert_eq!(code(&good), 0, "{}", text(&good));
    assert!(text(&good).contains("26 probes, alerts"), "{}", text(&good));
    let missing = with(&sample, false);
    assert_eq!(code(&missing), 2);
    assert!(
        text(&missing).contains("SLACK_WEBHOOK_URL is not set") && !text(&missing).contains("geheim"),
        "{}",
        text(&missing)
    );
    let dir = tempfile::tempdir().unwrap();
    let slip = dir.path().join("slip.toml");
    let original = std::fs::read_to_string(&sample).unwrap();
    for (from, to, said) in [
        ("every = \"5m\"\nname", "evry = \"5m\"\nname", "evry"),
        ("every = \"1h\"", "every = \"1 hour\"", "no span of time"),
        ("after = [\"dns\"]", "after = [\"dsn\"]", "depends on dsn, which is no probe"),
        ("slo = 99.9", "slo = 999.0", "above 0 and below 100 %"),
        ("[[probe.host]]", "[[probe.hots]]", "hots"),
        ("severity = \"critical\"", "severity = \"fatal\"", "fatal"),
        ("notify = [\"team\", \"owner\"]", "notify = [\"tame\"]", "tame"),
        ("Africa/Lagos", "Africa/Lags", "no time zone"),
    ] {
        assert!(original.contains(from), "{from}");
        std::fs::write(&slip, original.replacen(from, to, 1)).unwrap();
        let output = with(&slip, true);
        assert_eq!(code(&output), 2, "{to}: {}", text(&output));
        assert!(text(&output).contains(said), "{to}: {}", text(&output));
    }
    assert_eq!(code(&probe(&["check", "--config", "/no/such.toml"])), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_the_sample_configuration_are_those_of_the_sample_shop() {
    let server = storefront::postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    storefront::postgres::create(&url, &storefront::Size::orders(300), 7).await.unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("caretaker.toml");
    let mut command = Command::new(tool("probe"));
    command.args(["business", "--json", "--config"]).arg(&sample).env("DATABASE_URL", &url);
    let output = command.output().unwrap();
    assert!(code(&output) <= 1, "{}", text(&output));
    let said = document("business", &output);
    let names: Vec<&str> = said["metrics"].as_array().unwrap().iter().filter_map(|m| m["name"].as_str()).collect();
    assert_eq!(names, ["orders a day", "average order value", "returning customers", "popular products"]);
    assert!(said["metrics"][0]["recent"].is_number(), "a week without an order is none of which nothing is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_is_looked_at_once() {
    let shop = Shop::new().await;
    let good = shop.run(&["run", "--json"]);
    assert_eq!(code(&good), 0, "{}", text(&good));
    let said = document("run", &good);
    assert_eq!(said["probes"].as_array().unwrap().len(), 3);
    assert!(!text(&good).contains("geheim"), "{}", text(&good));
    shop.site.answer("/health", Answer::Json(503, "{}".into()));
    let bad = shop.run(&["run"]);
    assert_eq!(code(&bad), 1);
    assert!(text(&bad).starts_with("CRITICAL  the shop: "), "{}", text(&bad));
    assert_eq!(code(&shop.run(&["run", "--only", "key*"])), 0);
    assert_eq!(code(&shop.run(&["run", "--only", "nothing"])), 2);
    // A key that was never set is no healthy gateway.
    let without = Command::new(tool("probe"))
        .args(["run", "--config"])
        .arg(&shop.config)
        .env_remove("STRIPE_KEY")
        .output()
        .unwrap();
    assert_eq!(code(&without), 2);
    assert!(text(&without).contains("STRIPE_KEY is not set"));
    let business = shop.run(&["business", "--json"]);
    assert_eq!(document("business", &business)["metrics"][0]["verdict"], "warning");
    assert_eq!(code(&business), 1);
}

/// Until it is so, for at most a minute.
async fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_is_watched_told_of_and_shown() {
    let shop = Shop::new().await;
    let (page, metrics) = (shop.path("status.html"), shop.path("caretaker.prom"));
    let watching = Command::new(tool("probe"))
        .args(["watch", "--json", "--page", &page, "--metrics", &metrics, "--config"])
        .arg(&shop.config)
        .env("STRIPE_KEY", "rk_live_geheimgeheim")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let hooks = || shop.site.requests().into_iter().filter(|r| r.starts_with("POST /hook/")).collect::<Vec<_>>();
    wait_for("a sign of life", || shop.site.requests().iter().any(|r| r.starts_with("GET /heartbeat/"))).await;
    shop.site.answer("/health", Answer::Json(500, "{}".into()));
    wait_for("an alert", || !hooks().is_empty()).await;
    assert!(hooks()[0].contains("CRITICAL: the shop"), "{:?}", hooks());
    shop.site.answer("/health", Answer::Json(200, r#"{"status":"ok"}"#.into()));
    wait_for("a resolution", || hooks().len() > 1).await;
    assert!(hooks()[1].contains("resolved: the shop") && hooks().iter().all(|h| !h.contains("token=geheim")));
    wait_for("a page", || std::fs::read_to_string(&page).is_ok_and(|p| p.contains("Sample &amp; Co"))).await;
    wait_for("metrics", || std::fs::read_to_string(&metrics).is_ok_and(|m| m.ends_with("# EOF\n"))).await;
    Command::new("kill").args(["-TERM", &watching.id().to_string()]).status().unwrap();
    let ended = watching.wait_with_output().unwrap();
    assert_eq!(code(&ended), 0, "{}", text(&ended));
    let lines: Vec<Value> =
        String::from_utf8_lossy(&ended.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    lines.iter().for_each(|line| fits("message", line));
    assert_eq!(lines.iter().map(|l| l["kind"].as_str().unwrap()).collect::<Vec<_>>(), ["alert", "resolved"]);

    let levels = shop.run(&["slo", "--json"]);
    let said = document("slo", &levels);
    let counts = &said["levels"][0]["budget"]["counts"];
    assert!(counts["good"].as_u64().unwrap() > 0 && counts["bad"].as_u64().unwrap() > 0, "{said}");
    let window = shop.run(&["slo", "--maintenance", "30m", "--json"]);
    assert_eq!(document("maintenance", &window)["maintenance"]["reason"], "maintenance");
    let out = shop.path("page.html");
    let page = shop.run(&["page", "--out", &out, "--json"]);
    assert_eq!(document("page", &page)["verdict"], "healthy");
    assert!(std::fs::read_to_string(&out).unwrap().contains("Incidents of the last 90 days"));
}

#[tokio::test(flavor = "multi_thread")]
async fn runbooks_deployments_and_test_messages() {
    let shop = Shop::new().await;
    document("runbooks", &shop.run(&["runbook", "--json"]));
    let site_down = shop.run(&["runbook", "site-down", "--json"]);
    let said = document("runbook", &site_down);
    // Of several steps this shop has no probe: nobody looked there, and that is not well.
    assert_eq!((code(&site_down), said["verdict"].as_str()), (1, Some("unknown")));
    let text_of = text(&shop.run(&["runbook", "site-down"]));
    assert!(text_of.contains("# The site is down") && text_of.contains("call hosting: +44 1234"), "{text_of}");
    assert_eq!(code(&shop.run(&["runbook", "no-such"])), 2);

    let baseline = shop.path("baseline.json");
    let rounds = ["--baseline", &baseline, "--rounds", "4", "--pause", "0", "--hours", "0", "--json"];
    let before = shop.run(&[&["after-deploy", "--take"], &rounds[..]].concat());
    document("baseline", &before);
    let kept = shop.run(&[&["after-deploy"], &rounds[..]].concat());
    assert_eq!(document("after-deploy", &kept)["comparison"]["advice"], "keep", "{}", text(&kept));
    assert_eq!(code(&kept), 0);
    shop.site.answer("/health", Answer::Json(500, "{}".into()));
    let back = shop.run(&[&["after-deploy"], &rounds[..]].concat());
    assert_eq!(document("after-deploy", &back)["comparison"]["advice"], "roll-back");
    assert_eq!(code(&back), 1);
    assert_eq!(code(&shop.run(&["after-deploy", "--baseline", "/no/such"])), 2);

    let test = shop.run(&["test-alerts", "--json"]);
    assert_eq!((code(&test), document("test-alerts", &test)["delivered"][0].as_str()), (0, Some("hook")));
    shop.site.answer("/hook", Answer::Json(404, "{}".into()));
    let test = shop.run(&["test-alerts"]);
    assert_eq!(code(&test), 1);
    assert!(text(&test).contains("FAILED     hook") && !text(&test).contains("geheim"), "{}", text(&test));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_off_looks_need_no_configuration() {
    let authority = Authority::new().unwrap();
    let web = nginx::Server::start(&format!(
        "log_format c '$remote_addr - - [$time_local] \"$request\" $status $body_bytes_sent \"-\" \"Mozilla\"';\n\
         server {{ listen 127.0.0.1:{{port}}; access_log {{here}}/shop.log c; location / {{ return 200 ok; }} location /bad {{ return 500 no; }} }}\n\
         server {{ listen 127.0.0.1:{{second}} ssl; {} }}",
        authority.nginx(Kind::Good)
    ))
    .await
    .unwrap();
    let http = probe(&["http", &web.url(), "--json"]);
    assert_eq!(code(&http), 0, "{}", text(&http));
    assert!(document("run", &http)["probes"][0]["title"].as_str().unwrap().ends_with("over IPv4"));
    assert_eq!(code(&probe(&["http", &format!("{}bad", web.url())])), 1);
    assert_eq!(code(&probe(&["http", "ftp://x"])), 2);
    // Plain HTTP behind the port.
    let port = web.url().trim_end_matches('/').rsplit(':').next().unwrap().to_owned();
    let tls = probe(&["tls", &format!("127.0.0.1:{port}"), "--json"]);
    assert_eq!((code(&tls), document("run", &tls)["verdict"].as_str()), (1, Some("critical")));
    let host = probe(&["host", "/", "--json"]);
    document("run", &host);

    let log = web.directory().join("shop.log").display().to_string();
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state.json").display().to_string();
    let logs = probe(&["logs", &log, "--state", &state, "--json"]);
    let said = document("logs", &logs);
    assert_eq!((code(&logs), said["logs"][0]["traffic"]["lines"].as_u64()), (1, Some(4)), "{said}");
    let again = probe(&["logs", &log, "--state", &state, "--json"]);
    assert_eq!((code(&again), document("logs", &again)["logs"][0]["faults"]["lines"].as_u64()), (0, Some(0)));
    let error_log = web.directory().join("error.log");
    std::fs::write(&error_log, "2026/11/25 22:00:00 [error] 12#12: *3 connect() failed, client: 1.2.3.4\n").unwrap();
    let faults = probe(&["logs", error_log.to_str().unwrap()]);
    assert_eq!(code(&faults), 1);
    assert!(text(&faults).contains("Error: connect() failed"), "{}", text(&faults));
    assert_eq!(code(&probe(&["logs", "/no/such.log"])), 3);
}
