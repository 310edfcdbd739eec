//! Who is told of what, and how often: by a whole set under the monitor, on a clock that runs as fast as there is nothing to do.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod watched;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use health_probe::alert::{Alerter, Route};
use health_probe::notify::Notifier;
use health_probe::slo::Objective;
use health_probe::{
    Clock, IncidentOptions, MessageKind, Monitor, Observation, Policy, ProbeSpec, Verdict, Watch, probe_fn,
};
use watched::{AtOnce, Beats, Inbox, alerter, noon, switch};

use MessageKind::{Alert, Resolved, Update};

const MINUTE: Duration = Duration::from_secs(60);

fn up() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

fn monitor(watches: Vec<Watch>) -> Monitor {
    let options = IncidentOptions { remind_minutes: 24 * 60, ..IncidentOptions::default() };
    Monitor::new(watches).unwrap().with_clock(Clock::starting_at(noon())).with_options(options)
}

/// After so many minutes, the switch is set so.
async fn after(minutes: u32, switch: &AtomicBool, up: bool) {
    tokio::time::sleep(MINUTE * minutes).await;
    switch.store(up, Ordering::SeqCst);
}

#[tokio::test(start_paused = true)]
async fn an_outage_hours_after_a_cause_that_explains_it_is_told() {
    let (tls, shop) = (up(), up());
    let inbox = Arc::new(Inbox::default());
    let watches = vec![
        Watch::new(switch("tls", &tls), MINUTE * 60),
        Watch::new(switch("shop", &shop), MINUTE).after(["tls"]),
        Watch::new(switch("payments", &shop), MINUTE * 5).after(["shop"]),
    ];
    let monitor = monitor(watches).with_alerter(alerter(&inbox));
    let stop = async {
        // It ends in six days: critical, and no outage.
        after(10, &tls, false).await;
        after(110, &shop, false).await;
        tokio::time::sleep(MINUTE * 30).await;
        let messages = inbox.messages.lock().unwrap().clone();
        let last = messages.last().unwrap();
        assert_eq!((last.kind, last.incident.root.as_str()), (Update, "tls"));
        assert!(last.at - noon() < TimeDelta::minutes(125), "{}", last.at);
        let text = last.text();
        assert!(text.contains("New since the last message: shop"), "{text}");
        after(30, &shop, true).await;
        after(30, &tls, true).await;
        tokio::time::sleep(MINUTE * 130).await;
    };
    monitor.run(stop, |_| {}, |_| {}).await.unwrap();
    let said = inbox.said();
    assert_eq!((said[0].0, said.last().unwrap().0), (Alert, Resolved), "{said:?}");
    assert!(said.len() <= 4, "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn what_people_were_told_of_is_not_told_again_as_a_service_level() {
    for outage in [4, 10, 30] {
        let shop = up();
        let inbox = Arc::new(Inbox::default());
        let watch = Watch::new(switch("shop", &shop), MINUTE).with_objective(Objective::default());
        let monitor = monitor(vec![watch]).with_alerter(alerter(&inbox)).with_ledger(AtOnce::ledger());
        let stop = async {
            after(120, &shop, false).await;
            after(outage, &shop, true).await;
            tokio::time::sleep(MINUTE * 60 * 8).await;
        };
        monitor.run(stop, |_| {}, |_| {}).await.unwrap();
        assert_eq!(inbox.said(), [(Alert, "shop".into()), (Resolved, "shop".into())], "{outage} minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_burns_by_failures_that_nobody_was_told_of_is_told() {
    let shop = up();
    let inbox = Arc::new(Inbox::default());
    let watch = Watch::new(switch("shop", &shop), MINUTE).with_objective(Objective::default());
    let monitor = monitor(vec![watch]).with_alerter(alerter(&inbox)).with_ledger(AtOnce::ledger());
    let stop = async {
        tokio::time::sleep(MINUTE * 120).await;
        // One look of six: never twice in a row.
        for _ in 0..60 {
            after(5, &shop, false).await;
            after(1, &shop, true).await;
        }
    };
    monitor.run(stop, |_| {}, |_| {}).await.unwrap();
    assert!(inbox.said().contains(&(Alert, "slo:shop".into())), "{:?}", inbox.said());
}

/// A warning that stands for weeks says nothing of the looks that fail meanwhile.
#[tokio::test(start_paused = true)]
async fn a_warning_that_people_know_of_hides_no_budget_that_burns() {
    let looks = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&looks);
    let policy = Policy::new().is("up", true, Verdict::Critical).is("tidy", true, Verdict::Warning);
    let probe = probe_fn(ProbeSpec::new("shop", policy), move |cx| {
        let at = count.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut seen = Observation::new(cx.now);
            seen.flag("up", at % 10 != 9).flag("tidy", false);
            Ok(seen)
        }
    });
    let inbox = Arc::new(Inbox::default());
    let watch = Watch::new(probe, MINUTE).with_objective(Objective::default());
    let monitor = monitor(vec![watch]).with_alerter(alerter(&inbox)).with_ledger(AtOnce::ledger());
    monitor.run(tokio::time::sleep(MINUTE * 60 * 6), |_| {}, |_| {}).await.unwrap();
    let said = inbox.said();
    assert_eq!(said[0], (Alert, "shop".into()));
    assert!(said.contains(&(Alert, "slo:shop".into())), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_keeps_nobody_else_from_being_told() {
    let (a, b) = (up(), up());
    let (good, hangs) = (Arc::new(Inbox::named("good")), Arc::new(Inbox::named("hangs")));
    hangs.hangs.store(true, Ordering::SeqCst);
    let notifiers: Vec<Arc<dyn Notifier>> = vec![good.clone(), hangs.clone()];
    let alerter = Alerter::new(notifiers, vec![Route::new(Verdict::Unknown, ["good", "hangs"])]).unwrap();
    let watches = vec![Watch::new(switch("a", &a), MINUTE), Watch::new(switch("b", &b), MINUTE)];
    let monitor = monitor(watches).with_alerter(alerter);
    let stop = async {
        after(10, &a, false).await;
        after(3, &b, false).await;
        tokio::time::sleep(MINUTE * 20).await;
        hangs.hangs.store(false, Ordering::SeqCst);
        tokio::time::sleep(MINUTE * 15).await;
    };
    monitor.run(stop, |_| {}, |_| {}).await.unwrap();
    assert_eq!(good.said(), [(Alert, "a".into()), (Alert, "b".into())]);
    let late = good.messages.lock().unwrap().iter().map(|m| m.at - noon()).max().unwrap();
    assert!(late < TimeDelta::minutes(17), "{late}");
    let mut caught_up = hangs.said();
    caught_up.sort_by(|x, y| x.1.cmp(&y.1));
    assert_eq!(caught_up, [(Alert, "a".into()), (Alert, "b".into())], "once each, when it listens again");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_nobody_takes_is_tried_ever_more_rarely_and_the_sign_of_life_stops() {
    let shop = up();
    let inbox = Arc::new(Inbox::default());
    let beats = Arc::new(AtomicU32::new(0));
    let monitor = monitor(vec![Watch::new(switch("shop", &shop), MINUTE)])
        .with_alerter(alerter(&inbox))
        .with_heartbeat(Beats(Arc::clone(&beats)), MINUTE);
    let at = Mutex::new(0);
    let stop = async {
        inbox.broken.store(true, Ordering::SeqCst);
        after(10, &shop, false).await;
        tokio::time::sleep(MINUTE * 60 * 8).await;
        *at.lock().unwrap() = beats.load(Ordering::SeqCst);
        assert!(monitor.snapshot().troubles.iter().any(|t| t.contains("the inbox is full")));
        inbox.broken.store(false, Ordering::SeqCst);
        tokio::time::sleep(MINUTE * 15).await;
    };
    monitor.run(stop, |_| {}, |_| {}).await.unwrap();
    let tried = inbox.tried.load(Ordering::SeqCst);
    assert!((20..140).contains(&tried), "{tried} in eight hours");
    assert_eq!(inbox.said(), [(Alert, "shop".into())]);
    let at = at.into_inner().unwrap();
    assert!(at < 25, "{at} signs of life although nobody could be told");
    assert!(beats.load(Ordering::SeqCst) - at >= 5, "and on it goes");
    assert!(monitor.snapshot().troubles.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_looked_at_once_a_day_is_known_and_told_within_minutes() {
    let (key, fails_later) = (up(), up());
    key.store(false, Ordering::SeqCst);
    let inbox = Arc::new(Inbox::default());
    let watches = vec![
        Watch::new(switch("key", &key), MINUTE * 60 * 24),
        Watch::new(switch("hourly", &fails_later), MINUTE * 60),
    ];
    let monitor = monitor(watches).with_alerter(alerter(&inbox));
    let stop = async {
        after(180, &fails_later, false).await;
        tokio::time::sleep(MINUTE * 65).await;
    };
    monitor.run(stop, |_| {}, |_| {}).await.unwrap();
    let messages = inbox.messages.lock().unwrap().clone();
    let told: Vec<_> = messages.iter().map(|m| (m.incident.root.as_str(), (m.at - noon()).num_minutes())).collect();
    assert_eq!(told.iter().map(|t| t.0).collect::<Vec<_>>(), ["key", "hourly"], "{told:?}");
    assert!(told[0].1 <= 3 && told[1].1 <= 244, "{told:?}");
}
