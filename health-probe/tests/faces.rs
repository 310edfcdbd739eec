//! What people and programs are shown: the status page in a real browser, metrics, runbooks, the verdict on a deployment.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use health_probe::alert::Contact;
use health_probe::deployment::{Advice, DeploymentOptions, Sample, pause_after, watch};
use health_probe::ledger::{Ledger, Maintenance, Record, Slot, SqliteLedger};
use health_probe::runbook::Runbook;
use health_probe::status_page::StatusPage;
use health_probe::{
    Clock, Limits, Monitor, Observation, Policy, Probe, ProbeSpec, Unit, Verdict, Watch, metrics, probe_fn,
};
use storefront::chromium::{self, Screen};

fn flag(id: &str, title: &str, up: bool) -> impl Probe + use<> {
    let spec = ProbeSpec::new(id, Policy::new().is("up", true, Verdict::Critical)).with_title(title);
    probe_fn(spec, move |cx| async move {
        let mut seen = Observation::new(cx.now);
        seen.flag("up", up).number("response time", 0.25, Unit::Seconds).number("odd", f64::NAN, Unit::Count);
        seen.evidence("password=geheim");
        Ok(seen)
    })
}

/// Ninety days of a shop, with what a shop has had.
async fn history(ledger: &SqliteLedger, now: DateTime<Utc>) {
    let every = Duration::from_secs(900);
    let mut records = Vec::new();
    for (probe, seed) in [("shop", 1u64), ("payments", 2), ("mail", 3)] {
        let mut random = fastrand::Rng::with_seed(seed);
        for i in 0..90 * 96i64 {
            let at = now - TimeDelta::minutes(15 * (90 * 96 - i));
            let day = i / 96;
            let outcome = match (probe, day) {
                // Not watched before, and an hour down, and unseen days.
                ("mail", 0..30) => continue,
                ("shop", 40) if i % 96 < 8 => Slot::Bad,
                ("payments", 70..73) => Slot::Missing,
                _ if random.u16(0..500) == 0 => Slot::Bad,
                _ => Slot::Good,
            };
            let response_time = Some(Duration::from_millis(random.u64(80..400)));
            records.push(Record { probe: probe.into(), at, every, outcome, response_time });
        }
    }
    for part in records.chunks(10_000) {
        ledger.record(part).await.unwrap();
    }
    let planned =
        Maintenance { probe: None, from: now - TimeDelta::days(5), to: now - TimeDelta::days(5), reason: "x".into() };
    ledger.add_maintenance(&planned).await.unwrap();
}

async fn monitor_of_a_shop(ledger: Arc<dyn Ledger>) -> Monitor {
    let second = Duration::from_secs(1);
    let monitor = Monitor::new(vec![
        Watch::new(flag("shop", "Shop <script>alert('x')</script>", true), second),
        Watch::new(flag("payments", "Payments & gateways", false), second),
        Watch::new(flag("mail", "Mail", true), second).after(["shop"]),
        Watch::new(flag("never", "Never looked at", true), Duration::from_secs(86_400)),
    ])
    .unwrap()
    .with_ledger(ledger);
    monitor.run(tokio::time::sleep(Duration::from_millis(4500)), |_| {}, |_| {}).await.unwrap();
    monitor
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_stands_alone_in_a_real_browser_on_desk_and_phone() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap());
    history(&ledger, Utc::now()).await;
    let monitor = monitor_of_a_shop(ledger.clone()).await;
    let page = StatusPage::collect("Dija Accessories", &monitor.snapshot(), ledger.as_ref()).await.unwrap();
    let public = page.html();
    assert!(!public.contains("geheim") && !public.contains("<script") && !public.contains("http://"));
    let html = page.with_details().html();
    assert!(!html.contains("geheim"));
    let file = dir.path().join("status.html");
    std::fs::write(&file, &html).unwrap();
    let url = format!("file://{}", file.display());
    // Kept where somebody can look at them.
    let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (name, screen) in [
        ("status-desktop.png", Screen { width: 1280, height: 900, mobile: false, dark: false }),
        ("status-phone.png", Screen { width: 360, height: 740, mobile: true, dark: true }),
    ] {
        let address = url.clone();
        let seen = tokio::task::spawn_blocking(move || chromium::open(&address, screen)).await.unwrap().unwrap();
        assert_eq!(seen.complaints, Vec::<String>::new(), "{name}");
        let outside: Vec<&String> = seen.requests.iter().filter(|r| **r != url && !r.starts_with("data:")).collect();
        assert!(outside.is_empty() && !seen.requests.is_empty(), "{name}: {:?}", seen.requests);
        assert!(!seen.overflows, "{name}: wider than the screen");
        for text in [
            "Something is down",
            "Shop <script>alert('x')</script>",
            "Payments & gateways",
            "healthy",
            "critical",
            "unknown",
            "uptime",
            "response time",
            "Incidents of the last 90 days",
            "goes on",
        ] {
            assert!(seen.text.contains(text), "{name}: no {text:?} in {}", seen.text);
        }
        assert!(seen.screenshot.starts_with(b"\x89PNG"), "{name}");
        std::fs::write(pictures.join(name), &seen.screenshot).unwrap();
    }
    // An empty set is not well, and looks like it.
    let empty = Monitor::new(Vec::new()).unwrap().snapshot();
    assert_eq!(empty.verdict, Verdict::Unknown);
    let html = StatusPage::collect("x", &empty, ledger.as_ref()).await.unwrap().html();
    assert!(html.contains("The state is not known"));
}

#[tokio::test]
async fn metrics_leave_out_what_is_no_number() {
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::in_memory().await.unwrap());
    let monitor = monitor_of_a_shop(ledger).await;
    let text = metrics::exposition(&monitor.snapshot()).unwrap();
    for line in [
        "caretaker_probe_state{probe=\"payments\",state=\"critical\"} 1",
        "caretaker_probe_state{probe=\"payments\",state=\"healthy\"} 0",
        "caretaker_probe_state{probe=\"never\",state=\"unknown\"} 1",
        "caretaker_probe_reading{probe=\"shop\",reading=\"response time\"} 0.25",
        "caretaker_incidents_open 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    assert!(!text.contains("NaN") && !text.contains("\"odd\"") && text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_runbook_looks_and_writes_down_what_it_saw_and_what_it_did_not() {
    let watches: Vec<Arc<Watch>> = [flag("database", "the database", false), flag("host", "this machine", true)]
        .into_iter()
        .map(|p| Arc::new(Watch::new(p, Duration::from_secs(60))))
        .collect();
    let contacts = vec![Contact { role: "Hosting".into(), name: None, reach: vec!["+44 1234".into()] }];
    let names: Vec<String> = Runbook::builtin().into_iter().map(|r| r.name).collect();
    assert_eq!(names, ["site-down", "payment-issue", "security-incident"]);
    let transcript = Runbook::builtin()[0].run(&watches, &contacts, &Clock::system()).await;
    assert_eq!(transcript.verdict, Verdict::Critical);
    let text = transcript.markdown();
    for part in [
        "# The site is down",
        "the database **CRITICAL**: up: no",
        "this machine **healthy**",
        "no probe is called `tls*`",
        "- [ ] Look at the hosting provider",
        "call Hosting: +44 1234",
        "## 5. Tell customers",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("geheim"));
    // A runbook of the shop's own, as data; one that looks at nothing is not well.
    let own: Runbook =
        serde_json::from_str(r#"{"name":"x","title":"X","steps":[{"title":"a","people":["b"]}]}"#).unwrap();
    assert_eq!(own.run(&watches, &[], &Clock::system()).await.verdict, Verdict::Unknown);
}

/// A shop whose health and speed a test sets.
fn shop(up: &Arc<AtomicBool>, ms: &Arc<AtomicU64>) -> Vec<Arc<Watch>> {
    let (up, ms) = (Arc::clone(up), Arc::clone(ms));
    let policy = Policy::new().is("up", true, Verdict::Critical).below("time", Unit::Seconds, Limits::new(3.0, 10.0));
    let random = Arc::new(std::sync::Mutex::new(fastrand::Rng::with_seed(7)));
    let probe = probe_fn(ProbeSpec::new("shop", policy).with_response_time("time"), move |cx| {
        let (up, ms) = (up.load(Ordering::SeqCst), ms.load(Ordering::SeqCst));
        let noise = random.lock().unwrap().f64() * 0.3 + 0.85;
        async move {
            let mut seen = Observation::new(cx.now);
            seen.flag("up", up).number("time", ms as f64 / 1000.0 * noise, Unit::Seconds);
            Ok(seen)
        }
    });
    vec![Arc::new(Watch::new(probe, Duration::from_secs(60)))]
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_kept_watched_or_rolled_back() {
    let (up, ms) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(400)));
    let (watches, options) = (shop(&up, &ms), DeploymentOptions::default());
    let clock = Clock::starting_at(DateTime::UNIX_EPOCH + TimeDelta::days(20_000));
    let baseline = Sample::take(&watches, 10, Duration::from_secs(5), &clock).await;
    let forever = std::future::pending::<()>;
    let mut comparisons = 0;
    let report = watch(&watches, &baseline, &options, &clock, forever(), |_| comparisons += 1).await;
    assert_eq!(report.comparison.advice, Advice::Keep, "{report:?}");
    assert!((report.ended - report.began).num_hours() >= 24, "it watches for a day");
    // Ten rounds at once, then 10 s, 1 min, 5 min, 15 min.
    assert!((200..260).contains(&report.rounds) && comparisons == report.rounds, "{}", report.rounds);

    ms.store(760, Ordering::SeqCst);
    let report =
        watch(&watches, &baseline, &options, &clock, tokio::time::sleep(Duration::from_secs(600)), |_| {}).await;
    assert_eq!(report.comparison.advice, Advice::Watch, "{report:?}");
    assert!(report.comparison.reasons[0].contains("slower by"), "{report:?}");

    ms.store(2500, Ordering::SeqCst);
    let report = watch(&watches, &baseline, &options, &clock, forever(), |_| {}).await;
    assert_eq!(report.comparison.advice, Advice::RollBack, "{report:?}");

    ms.store(400, Ordering::SeqCst);
    up.store(false, Ordering::SeqCst);
    let report = watch(&watches, &baseline, &options, &clock, forever(), |_| {}).await;
    assert_eq!(report.comparison.advice, Advice::RollBack);
    assert_eq!(report.rounds, 3, "three in a row, and no more");
    assert!(report.comparison.reasons[0].contains("critical 3 times in a row: up: no"));

    // What was down before is no deployment's fault; and what was never seen says nothing.
    let broken = Sample::take(&watches, 10, Duration::from_secs(1), &clock).await;
    let report = watch(&watches, &broken, &options, &clock, tokio::time::sleep(Duration::from_secs(120)), |_| {}).await;
    assert_ne!(report.comparison.advice, Advice::RollBack, "{report:?}");
    assert_eq!(Sample::default().compare(&broken, &options).advice, Advice::Unknown);
    assert_eq!(baseline.compare(&Sample::default(), &options).advice, Advice::Unknown);
    assert!(pause_after(Duration::ZERO) < pause_after(Duration::from_secs(7200)));
}

/// One request of two that fails is never three in a row.
#[tokio::test(start_paused = true)]
async fn a_deployment_that_fails_every_other_request_goes_back() {
    for pattern in [&[true, false][..], &[false, false, true], &[true, true, false]] {
        let looks = Arc::new(AtomicU64::new(0));
        let (count, pattern) = (Arc::clone(&looks), pattern.to_vec());
        let broken = Arc::new(AtomicBool::new(false));
        let is_broken = Arc::clone(&broken);
        let probe = probe_fn(ProbeSpec::new("shop", Policy::new().is("up", true, Verdict::Critical)), move |cx| {
            let at = count.fetch_add(1, Ordering::SeqCst) as usize;
            let up = !is_broken.load(Ordering::SeqCst) || pattern[at % pattern.len()];
            async move {
                let mut seen = Observation::new(cx.now);
                seen.flag("up", up);
                Ok(seen)
            }
        });
        let watches = [Arc::new(Watch::new(probe, Duration::from_secs(60)))];
        let clock = Clock::starting_at(DateTime::UNIX_EPOCH + TimeDelta::days(20_000));
        let options = DeploymentOptions::default();
        let baseline = Sample::take(&watches, 10, Duration::from_secs(5), &clock).await;
        broken.store(true, Ordering::SeqCst);
        let report = watch(&watches, &baseline, &options, &clock, std::future::pending::<()>(), |_| {}).await;
        assert_eq!(report.comparison.advice, Advice::RollBack, "{report:?}");
        assert!(report.rounds < 60, "soon: {}", report.rounds);
        assert!(baseline.taken_at().is_some() && Sample::default().taken_at().is_none());
    }
}

#[tokio::test]
async fn a_quiet_probe_says_nothing_of_a_deployment() {
    let quiet = probe_fn(ProbeSpec::new("quiet", Policy::new().is("up", true, Verdict::Critical)), |cx| async move {
        let mut seen = Observation::new(cx.now);
        seen.not_applicable("up", "nobody asked");
        Ok(seen)
    });
    let minute = Duration::from_secs(60);
    let both = [Arc::new(Watch::new(quiet, minute)), Arc::new(Watch::new(flag("shop", "shop", true), minute))];
    let (clock, options) = (Clock::system(), DeploymentOptions::default());
    let before = Sample::take(&both, 3, Duration::ZERO, &clock).await;
    let after = Sample::take(&both, 3, Duration::ZERO, &clock).await;
    assert_eq!(before.compare(&after, &options).advice, Advice::Keep);
    // Where all of them are quiet, nothing was seen, and that is no "keep".
    let before = Sample::take(&both[..1], 3, Duration::ZERO, &clock).await;
    assert_eq!(before.compare(&before, &options).advice, Advice::Unknown);
}
