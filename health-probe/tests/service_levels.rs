//! The ledger and the service levels, over a simulated month of minutes, against a calculation that shares no code with them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use health_probe::Verdict;
use health_probe::ledger::{Ledger, Maintenance, Record, Slot, SqliteLedger, View, for_probe};
use health_probe::slo::{BURN_RULES, Objective, judge_service_level};

fn begin() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-03-01T00:00:00Z").unwrap().to_utc()
}

fn at(minute: i64) -> DateTime<Utc> {
    begin() + TimeDelta::minutes(minute)
}

const MONTH: i64 = 30 * 1440;

/// What happened in each minute: 'g', 'b' or '.' for nothing seen.
fn month(seed: u64) -> (Vec<char>, Vec<(i64, i64)>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut minutes = vec!['g'; MONTH as usize];
    for _ in 0..random.usize(3..9) {
        let (from, long) = (random.usize(0..MONTH as usize), random.usize(1..120));
        minutes.iter_mut().skip(from).take(long).for_each(|m| *m = 'b');
    }
    for _ in 0..40 {
        minutes[random.usize(0..MONTH as usize)] = 'b';
    }
    for _ in 0..5 {
        let (from, long) = (random.usize(0..MONTH as usize), random.usize(1..600));
        minutes.iter_mut().skip(from).take(long).for_each(|m| *m = '.');
    }
    minutes[0] = 'g';
    let mut window = || {
        let from = random.i64(0..MONTH - 200);
        (from, from + random.i64(10..180))
    };
    let windows = vec![window(), window(), window()];
    (minutes, windows)
}

#[tokio::test]
async fn a_simulated_month_equals_an_independent_calculation() {
    for seed in [1, 2, 3] {
        let (minutes, windows) = month(seed);
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
        let records: Vec<Record> = (0..MONTH)
            .filter_map(|m| {
                let outcome = match minutes[m as usize] {
                    'g' => Slot::Good,
                    'b' => Slot::Bad,
                    _ => return None,
                };
                // A look comes some time within its minute.
                let at = at(m) + TimeDelta::seconds(m * 7 % 60);
                Some(Record { probe: "site".into(), at, every: Duration::from_secs(60), outcome, response_time: None })
            })
            .collect();
        for part in records.chunks(5000) {
            ledger.record(part).await.unwrap();
        }
        for (from, to) in &windows {
            let window = Maintenance { probe: None, from: at(*from), to: at(*to), reason: "planned".into() };
            ledger.add_maintenance(&window).await.unwrap();
        }
        let other = Maintenance { probe: Some("other".into()), from: at(0), to: at(MONTH), reason: "no".into() };
        ledger.add_maintenance(&other).await.unwrap();

        let slots = ledger.timeline("site", begin(), at(MONTH)).await.unwrap();
        let maintenance = for_probe(&ledger.maintenance(begin(), at(MONTH)).await.unwrap(), "site");
        assert_eq!(maintenance.len(), 3);
        let planned = |m: i64| windows.iter().any(|(from, to)| (*from..*to).contains(&m));
        let count = |from: i64, to: i64, what: char, strict: bool| {
            (from.max(0)..to).filter(|m| minutes[*m as usize] == what && (strict || !planned(*m))).count() as u64
        };
        let objective = Objective::default();
        for (view, strict) in [(View::Strict, true), (View::WithoutMaintenance, false)] {
            let budget = objective.budget(&slots, &maintenance, view, at(MONTH));
            let (good, bad) = (count(0, MONTH, 'g', strict), count(0, MONTH, 'b', strict));
            let missing = count(0, MONTH, '.', strict);
            assert_eq!(
                (budget.counts.good, budget.counts.bad, budget.counts.missing),
                (good, bad, missing),
                "seed {seed}"
            );
            let uptime = good as f64 / (good + bad) as f64;
            let coverage = (good + bad) as f64 / (good + bad + missing) as f64;
            let left = 1.0 - bad as f64 * 60.0 / (0.001 * 30.0 * 86400.0);
            assert!((budget.uptime.unwrap() - uptime).abs() < 1e-12);
            assert!((budget.coverage.unwrap() - coverage).abs() < 1e-12);
            assert!((budget.remaining - left).abs() < 1e-9);
        }
        // Every alert, minute by minute.
        let (mut fired, mut unknown) = (0, 0);
        for now in (1..MONTH).step_by(37) {
            let burns = objective.burns(&slots, &maintenance, &BURN_RULES, at(now));
            for (burn, (long, short, limit)) in
                burns.iter().zip([(60, 5, 14.4), (360, 30, 6.0), (1440, 120, 3.0), (4320, 360, 1.0)])
            {
                let rate = |window: i64| {
                    let (good, bad) = (count(now - window, now, 'g', false), count(now - window, now, 'b', false));
                    (good + bad > 0).then(|| bad as f64 / (good + bad) as f64 / 0.001)
                };
                let bad = count(now - long, now, 'b', false);
                let wanted = match (rate(long), rate(short)) {
                    (Some(l), Some(s)) => Some(l >= limit - 1e-6 && s >= limit - 1e-6 && bad >= 3),
                    _ => None,
                };
                assert_eq!(burn.fires, wanted, "seed {seed}, minute {now}: {burn:?}");
                fired += u32::from(wanted == Some(true));
                unknown += u32::from(wanted.is_none());
            }
        }
        assert!(fired > 0 && unknown > 0, "the month has to have both: {fired}, {unknown}");
    }
}

#[tokio::test]
async fn another_interval_hides_no_downtime_and_forgetting_takes_nothing_else() {
    let ledger = SqliteLedger::in_memory().await.unwrap();
    let record = |minute: i64, every: u64, outcome| Record {
        probe: "site".into(),
        at: at(minute),
        every: Duration::from_secs(every),
        outcome,
        response_time: None,
    };
    // The tenth hour of a day, half of it down; then it is looked at once an hour, then once a day.
    let bad = |minute: i64| if (610..640).contains(&minute) { Slot::Bad } else { Slot::Good };
    let minutes: Vec<Record> = (540..655).map(|minute| record(minute, 60, bad(minute))).collect();
    ledger.record(&minutes).await.unwrap();
    ledger.record(&[record(655, 3600, Slot::Good), record(660, 3600, Slot::Good)]).await.unwrap();
    ledger.record(&[record(720, 86_400, Slot::Good), record(1440, 86_400, Slot::Good)]).await.unwrap();
    let slots = ledger.timeline("site", begin(), at(2880)).await.unwrap();
    let c = slots.count(begin(), at(2880), &[], View::Strict);
    assert_eq!((c.bad_s, c.good_s), (30 * 60, (115 - 30) * 60 + 3600 + 86_400), "{c:?}");
    assert!(slots.slots.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "no time counts twice");
    // What is forgotten ends within an hour; what comes after it is all there.
    ledger.forget(at(650)).await.unwrap();
    let c = ledger.timeline("site", begin(), at(2880)).await.unwrap().count(begin(), at(2880), &[], View::Strict);
    assert_eq!(c.good_s, 5 * 60 + 3600 + 86_400, "{c:?}");
}

#[tokio::test]
async fn a_monitor_that_was_down_leaves_missing_slots_and_a_retired_probe_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let record = |minute: i64, every: u64, outcome| Record {
        probe: "site".into(),
        at: at(minute),
        every: Duration::from_secs(every),
        outcome,
        response_time: Some(Duration::from_millis(100)),
    };
    let ledger = SqliteLedger::open(&path).await.unwrap();
    ledger.record(&[record(0, 60, Slot::Good), record(1, 60, Slot::Good)]).await.unwrap();
    drop(ledger);
    // Another process, an hour later.
    let ledger = SqliteLedger::open(&path).await.unwrap();
    ledger.record(&[record(60, 60, Slot::Good), record(60, 60, Slot::Bad), record(60, 60, Slot::Good)]).await.unwrap();
    let counts = |slots: health_probe::ledger::Timeline, to: i64| slots.count(begin(), at(to), &[], View::Strict);
    let slots = ledger.timeline("site", begin(), at(120)).await.unwrap();
    let c = counts(slots, 120);
    assert_eq!((c.good, c.bad, c.missing), (2, 1, 117), "of two in one slot the worse stays");
    // Another interval from then on, and before its first record nothing was expected.
    ledger.record(&[record(120, 300, Slot::Good)]).await.unwrap();
    let c = counts(ledger.timeline("site", begin() - TimeDelta::days(1), at(180)).await.unwrap(), 180);
    assert_eq!((c.good_s, c.bad_s, c.missing_s), (120 + 300, 60, 117 * 60 + 11 * 300));
    ledger.retire("site", at(180)).await.unwrap();
    assert_eq!(counts(ledger.timeline("site", begin(), at(600)).await.unwrap(), 600), c);
    assert_eq!(ledger.probes().await.unwrap(), ["site"]);
    let hours = ledger.response_times("site", begin(), at(180)).await.unwrap();
    assert_eq!(hours.iter().map(|h| h.count).collect::<Vec<_>>(), [2, 3, 1]);

    // What was never seen has no uptime.
    let nothing = ledger.timeline("other", begin(), at(60)).await.unwrap();
    let objective = Objective::default();
    let budget = objective.budget(&nothing, &[], View::Strict, at(60));
    let verdict = judge_service_level(&budget, &objective.burns(&nothing, &[], &BURN_RULES, at(60)));
    assert_eq!((budget.uptime, verdict.0), (None, Verdict::Unknown));

    // Forgetting leaves what came later.
    ledger.forget(at(100)).await.unwrap();
    let c = counts(ledger.timeline("site", begin(), at(180)).await.unwrap(), 180);
    assert_eq!((c.missing, c.good), (20 + 11, 1), "from the minute 100 on: {c:?}");
    ledger.save("a", "1").await.unwrap();
    ledger.save("a", "2").await.unwrap();
    assert_eq!(ledger.load("a").await.unwrap().as_deref(), Some("2"));
    assert_eq!(ledger.load("b").await.unwrap(), None);
}
