//! A whole set under the monitor, on a clock that runs as fast as there is nothing to do.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod watched;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use health_probe::ledger::{Ledger, Maintenance, SqliteLedger, View};
use health_probe::{
    Clock, ErrorKind, IncidentOptions, MessageKind, Monitor, Policy, ProbeSpec, Verdict, Watch, probe_fn,
};
use watched::{AtOnce, Beats, Inbox, alerter, noon, switch};

/// The database is looked at every ten minutes, the rest every minute: the cause is asked as soon as something fails.
#[tokio::test(start_paused = true)]
async fn a_cause_that_is_looked_at_rarely_is_looked_at_when_it_matters() {
    let (up, rare) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (minute, often) = (Duration::from_secs(60), Duration::from_secs(600));
    let watches = vec![
        Watch::new(switch("app", &up), minute).after(["database"]),
        Watch::new(switch("orders", &up), minute).after(["database"]),
        Watch::new(switch("database", &up), often).after(["disk"]),
        Watch::new(switch("disk", &rare), often),
    ];
    let inbox = Arc::new(Inbox::default());
    let ledger = AtOnce::ledger();
    let monitor = Monitor::new(watches)
        .unwrap()
        .with_clock(Clock::starting_at(noon()))
        .with_ledger(Arc::clone(&ledger))
        .with_alerter(alerter(&inbox));
    let stop = async {
        tokio::time::sleep(minute * 33).await;
        up.store(false, Ordering::SeqCst);
        tokio::time::sleep(minute * 27).await;
    };
    let looks = Mutex::new(HashMap::new());
    monitor
        .run(
            stop,
            |look| *looks.lock().unwrap().entry((look.probe.clone(), look.asked_for)).or_insert(0u32) += 1,
            |_| (),
        )
        .await
        .unwrap();
    let messages = inbox.messages.lock().unwrap().clone();
    let told: Vec<_> = messages.iter().map(|m| (m.kind, m.incident.root.as_str(), m.incident.members.len())).collect();
    assert_eq!(told, [(MessageKind::Alert, "database", told[0].2)], "{told:?}");
    assert!(messages[0].at - noon() < TimeDelta::minutes(36), "{}", messages[0].at);
    let looks = looks.into_inner().unwrap();
    let asked: u32 = looks.iter().filter(|((_, asked), _)| *asked).map(|(_, n)| n).sum();
    assert!((2..10).contains(&asked), "{looks:?}");
    // What is expected of the ledger is the schedule, whatever else was asked for.
    let timeline = ledger.timeline("database", noon(), noon() + TimeDelta::hours(1)).await.unwrap();
    let counts = timeline.count(noon(), noon() + TimeDelta::hours(1), &[], View::Strict);
    assert_eq!((counts.good + counts.bad, counts.missing), (6, 0), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_database_is_told_once_reminded_once_and_resolved_once() {
    let (database, mail) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let minute = Duration::from_secs(60);
    let watches = vec![
        Watch::new(switch("orders", &database), minute).after(["database"]),
        Watch::new(switch("payments", &database), minute).after(["database"]),
        Watch::new(switch("pages", &database), minute).after(["app"]),
        Watch::new(switch("app", &database), minute).after(["database"]),
        Watch::new(switch("database", &database), minute),
        Watch::new(switch("mail", &mail), minute),
    ];
    let inbox = Arc::new(Inbox::default());
    let ledger = AtOnce::ledger();
    let monitor = Monitor::new(watches)
        .unwrap()
        .with_clock(Clock::starting_at(noon()))
        .with_options(IncidentOptions { remind_minutes: 60, ..IncidentOptions::default() })
        .with_ledger(Arc::clone(&ledger))
        .with_alerter(alerter(&inbox));
    let stop = async {
        tokio::time::sleep(minute * 10).await;
        database.store(false, Ordering::SeqCst);
        // Nobody can be told for the first while; the alert is not lost.
        inbox.broken.store(true, Ordering::SeqCst);
        tokio::time::sleep(minute * 5).await;
        inbox.broken.store(false, Ordering::SeqCst);
        tokio::time::sleep(minute * 85).await;
        assert_eq!(monitor.snapshot().verdict, Verdict::Critical);
        database.store(true, Ordering::SeqCst);
        tokio::time::sleep(minute * 30).await;
    };
    monitor.run(stop, |_| {}, |_| {}).await.unwrap();
    let messages = inbox.messages.lock().unwrap().clone();
    let kinds: Vec<_> = messages.iter().map(|m| (m.kind, m.incident.root.as_str())).collect();
    assert_eq!(
        kinds,
        [(MessageKind::Alert, "database"), (MessageKind::Reminder, "database"), (MessageKind::Resolved, "database")]
    );
    let text = messages[0].text();
    for name in ["app", "pages", "orders", "payments"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(
        messages[0].subject().starts_with("CRITICAL: database (and 4 that depend on it)"),
        "{}",
        messages[0].subject()
    );
    assert_eq!(monitor.snapshot().verdict, Verdict::Healthy);
    let kept = ledger.incidents(noon()).await.unwrap();
    assert_eq!((kept.len(), kept[0].told.len()), (1, 3));
    let minutes = (kept[0].resolved.unwrap() - kept[0].opened).num_minutes();
    assert!((88..=92).contains(&minutes), "{minutes}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_or_hangs_is_a_verdict_and_others_go_on() {
    let spec = |id: &str| ProbeSpec::new(id, Policy::new().is("up", true, Verdict::Critical));
    let panics = probe_fn(spec("panics"), |_| async { panic!("on purpose") });
    let hangs = probe_fn(spec("hangs"), |_| std::future::pending());
    let fails = probe_fn(spec("fails"), |_| async { Err(health_probe::Error::new(ErrorKind::Denied, "no right")) });
    let up = Arc::new(AtomicBool::new(true));
    let ten = Duration::from_secs(10);
    let watches = vec![
        Watch::new(panics, ten),
        Watch::new(hangs, ten).with_timeout(Duration::from_secs(5)),
        Watch::new(fails, ten),
        Watch::new(switch("good", &up), ten),
    ];
    let monitor = Monitor::new(watches).unwrap().with_clock(Clock::starting_at(noon())).with_concurrency(2);
    let counts: Mutex<HashMap<(String, Verdict), u32>> = Mutex::default();
    let seen = |look: &health_probe::Look| {
        *counts.lock().unwrap().entry((look.probe.clone(), look.judgement.verdict)).or_default() += 1;
    };
    monitor.run(tokio::time::sleep(Duration::from_secs(100)), seen, |_| {}).await.unwrap();
    let counts = counts.into_inner().unwrap();
    for (probe, verdict) in [
        ("panics", Verdict::Unknown),
        ("hangs", Verdict::Unknown),
        ("fails", Verdict::Unknown),
        ("good", Verdict::Healthy),
    ] {
        let n = counts.get(&(probe.to_owned(), verdict)).copied().unwrap_or(0);
        assert!((8..=10).contains(&n), "{probe}: {counts:?}");
    }
    assert_eq!(counts.len(), 4, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn each_slot_is_looked_at_once_and_maintenance_is_silent() {
    let up = Arc::new(AtomicBool::new(false));
    let inbox = Arc::new(Inbox::default());
    let ledger = AtOnce::ledger();
    let window = Maintenance {
        probe: None,
        from: noon() - TimeDelta::minutes(1),
        to: noon() + TimeDelta::minutes(30),
        reason: "a new server".into(),
    };
    ledger.add_maintenance(&window).await.unwrap();
    let monitor = Monitor::new(vec![Watch::new(switch("site", &up), Duration::from_secs(60))])
        .unwrap()
        .with_clock(Clock::starting_at(noon()))
        .with_ledger(Arc::clone(&ledger))
        .with_alerter(alerter(&inbox));
    let stop = async {
        tokio::time::sleep(Duration::from_secs(25 * 60)).await;
        assert!(inbox.messages.lock().unwrap().is_empty(), "under maintenance");
        tokio::time::sleep(Duration::from_secs(35 * 60)).await;
    };
    monitor.run(stop, |_| {}, |_| {}).await.unwrap();
    assert_eq!(inbox.messages.lock().unwrap()[0].kind, MessageKind::Alert);
    let slots = ledger.timeline("site", noon(), noon() + TimeDelta::minutes(60)).await.unwrap();
    let bad = slots.slots.iter().filter(|s| s.2 == health_probe::ledger::Slot::Bad).count();
    assert!((59..=60).contains(&bad) && slots.slots.len() <= 60, "{bad} of {}", slots.slots.len());
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_stops_with_the_looks() {
    let (up, beats) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let monitor = Monitor::new(vec![Watch::new(switch("site", &up), Duration::from_secs(60))])
        .unwrap()
        .with_clock(Clock::starting_at(noon()))
        .with_heartbeat(Beats(Arc::clone(&beats)), Duration::from_secs(60));
    monitor.run(tokio::time::sleep(Duration::from_secs(600)), |_| {}, |_| {}).await.unwrap();
    assert!((8..=11).contains(&beats.load(Ordering::SeqCst)), "{beats:?}: also while the shop is down");
    // Without a probe there is nothing that is watched.
    let none = Arc::new(AtomicU32::new(0));
    let monitor = Monitor::new(Vec::new())
        .unwrap()
        .with_clock(Clock::starting_at(noon()))
        .with_heartbeat(Beats(Arc::clone(&none)), Duration::from_secs(60));
    monitor.run(tokio::time::sleep(Duration::from_secs(600)), |_| {}, |_| {}).await.unwrap();
    assert_eq!(none.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_broken_ledger_or_a_line_of_it_keeps_nobody_from_watching() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    std::fs::write(&path, "this is no database, and was one: ".repeat(100)).unwrap();
    assert!(SqliteLedger::open(&path).await.is_err(), "who only reads moves nothing away");
    let ledger = SqliteLedger::open_or_begin_anew(&path).await.unwrap();
    let aside = ledger.set_aside().unwrap().to_owned();
    assert!(std::fs::read_to_string(aside).unwrap().contains("no database"), "kept for whoever can mend it");
    assert_eq!(ledger.incidents(noon()).await.unwrap(), []);
    drop(ledger);
    let mut db = storefront::sqlite::open(&path, false).await.unwrap();
    storefront::sqlite::run(&mut db, "INSERT INTO incident VALUES ('a', 1, NULL, '{\"id\":\"a\"}')").await.unwrap();
    drop(db);
    let ledger = SqliteLedger::open_or_begin_anew(&path).await.unwrap();
    assert_eq!((ledger.set_aside(), ledger.incidents(noon()).await.unwrap()), (None, vec![]));
    let watch = Watch::new(switch("site", &Arc::new(AtomicBool::new(true))), Duration::from_secs(60));
    let monitor = Monitor::new(vec![watch]).unwrap().with_ledger(Arc::new(ledger));
    monitor.run(std::future::ready(()), |_| {}, |_| {}).await.unwrap();
}
