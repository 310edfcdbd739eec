//! Queries that took long between two looks: what is slow now, and not what was slow once since the server began to count.
//!
//! A query is told where each call takes long and all of them together matter, or where it keeps a good part of a core busy. What
//! the server forgot or began to count anew meanwhile has no figure, and is said.

use chrono::{DateTime, TimeDelta, Utc};

use crate::activity::Seen;
use crate::finding::{Finding, Outcome, Severity};
use crate::look::Look;
use crate::look::queries::{Queries, Query};

pub(crate) const ID: &str = "slow-queries";

/// Each call, in milliseconds.
const SLOW: f64 = 200.0;
const VERY_SLOW: f64 = 2_000.0;
/// All calls together, as a share of one core in the time between, and in milliseconds.
const MATTERS: f64 = 0.001;
const LEAST: f64 = 1_000.0;
const BUSY: f64 = 0.2;
const VERY_BUSY: f64 = 0.8;
/// Some servers tell times in whole seconds.
const ROUNDED: TimeDelta = TimeDelta::seconds(2);
/// So many are told.
const MOST: usize = 20;

pub(crate) fn judge(now: &Seen<Queries>, taken_at: DateTime<Utc>, earlier: Option<&Look>) -> Outcome {
    let queries = match now {
        Ok(queries) => queries,
        Err(unseen) => return unseen.clone().into(),
    };
    let Some((then, before)) = earlier.and_then(|look| Some((look.taken_at, look.queries.as_ref().ok()?))) else {
        return Outcome::unknown_until(
            "it takes two looks at what the server counts of queries, and this is the first",
            "keep looks (--history FILE), and look again after ten minutes or more",
        );
    };
    if let Some(since) = queries.since.filter(|since| *since > then) {
        let text = format!("the server counts queries anew since {}, after the look of {}", hour(since), hour(then));
        return Outcome::unknown_until(text, "look again later");
    }
    let window = (taken_at - then).as_seconds_f64() * 1_000.0;
    if window <= 0.0 {
        return Outcome::unknown("no time has passed since the look before");
    }
    if queries.queries.is_empty() {
        return Outcome::unknown("the server counts no query of this database: its counting may be switched off");
    }
    let sum = |queries: &Queries| queries.queries.iter().map(|q| q.calls).sum::<u64>();
    // What looks at it is counted itself.
    if sum(queries) == sum(before) && queries.queries.len() == before.queries.len() {
        return Outcome::unknown("not one query was counted since: the server's counting may be switched off");
    }
    let gone = before.queries.iter().filter(|then| !queries.queries.iter().any(|now| now.id == then.id)).count();
    let mut anew = 0;
    let mut slow: Vec<(f64, Finding)> = Vec::new();
    for query in &queries.queries {
        match between(query, before.queries.iter().find(|q| q.id == query.id), then) {
            Some(between) => slow.extend(judged(query, between, window).map(|finding| (between.ms, finding))),
            None => anew += 1,
        }
    }
    slow.sort_by(|a, b| b.0.total_cmp(&a.0));
    let left = slow.len().saturating_sub(MOST);
    let findings = slow.into_iter().take(MOST).map(|(_, finding)| finding).collect();
    let mut unknown = Vec::new();
    if left > 0 {
        unknown.push(format!("{left} more slow queries that took less time together"));
    }
    if anew > 0 {
        unknown.push(format!("{anew} queries were forgotten by the server and came back: what they took is not known"));
    }
    if let Some(lost) = queries.lost.zip(before.lost).map(|(now, then)| now.saturating_sub(then)).filter(|n| *n > 0) {
        unknown.push(format!("the server made room {lost} times between the looks, and forgot queries"));
    } else if gone > 0 {
        unknown.push(format!("{gone} queries were forgotten by the server since: what they took is not known"));
    }
    Outcome::of(queries.queries.len() as u64, findings, unknown)
}

fn hour(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

#[derive(Clone, Copy)]
struct Between {
    calls: u64,
    ms: f64,
    rows: u64,
}

/// What happened since; nothing where the server counted it anew meanwhile.
fn between(now: &Query, before: Option<&Query>, then: DateTime<Utc>) -> Option<Between> {
    let Some(before) = before else { return Some(Between { calls: now.calls, ms: now.ms, rows: now.rows }) };
    let is_anew = now.since.is_some_and(|since| since > then + ROUNDED);
    // Milliseconds are rounded on their way.
    if is_anew || now.calls < before.calls || now.ms < before.ms - 1.0 {
        return None;
    }
    let ms = (now.ms - before.ms).max(0.0);
    Some(Between { calls: now.calls - before.calls, ms, rows: now.rows.saturating_sub(before.rows) })
}

fn judged(query: &Query, between: Between, window: f64) -> Option<Finding> {
    let Between { calls, ms, rows } = between;
    if calls == 0 {
        return None;
    }
    let (mean, share) = (ms / calls as f64, ms / window);
    let is_slow = mean >= SLOW && ms >= LEAST.max(window * MATTERS);
    // Of a moment nobody can say that it was busy.
    let is_busy = share >= BUSY && ms >= LEAST;
    if !is_slow && !is_busy {
        return None;
    }
    let grave = (is_slow && mean >= VERY_SLOW) || (is_busy && share >= VERY_BUSY);
    let summary = format!(
        "{} each, {calls} times, {:.1} % of a core: {}",
        span(mean),
        share * 100.0,
        if query.text.is_empty() { "(text not known)" } else { &query.text }
    );
    Some(
        Finding::new(ID, query.id.clone(), summary)
            .severity(if grave { Severity::Warning } else { Severity::Notice })
            .evidence("calls", calls)
            .evidence("mean_ms", round(mean))
            .evidence("total_ms", round(ms))
            .evidence("rows", rows)
            .evidence("window_seconds", (window / 1_000.0).round())
            .remedy("look at its plan (EXPLAIN) on a copy of the shop's data: an index, or fewer rows asked for"),
    )
}

fn round(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

fn span(ms: f64) -> String {
    if ms >= 1_000.0 { format!("{:.1} s", ms / 1_000.0) } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::sample::blind;

    const THEN: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn query(id: &str, calls: u64, ms: f64) -> Query {
        Query { id: id.into(), text: format!("SELECT {id}"), calls, ms, ..Query::default() }
    }

    fn of(before: Queries, now: Queries) -> Outcome {
        let look = Look { queries: Ok(before), ..blind(THEN) };
        judge(&Ok(now), THEN + TimeDelta::hours(1), Some(&look))
    }

    fn some(queries: Vec<Query>) -> Queries {
        Queries { queries, since: None, lost: Some(5) }
    }

    #[test]
    fn what_was_slow_long_ago_is_not_told_and_what_is_slow_now_is() {
        let before = some(vec![query("old", 1_000, 1e7), query("quick", 10, 50.0), query("slow", 10, 9_000.0)]);
        let mut now = before.clone();
        now.queries[1] = query("quick", 100_000, 500_000.0);
        now.queries[2] = query("slow", 14, 19_000.0);
        now.queries.push(query("new", 20, 10_000.0));
        let outcome = of(before, now);
        let told: Vec<_> = outcome.findings().iter().map(|f| (f.object.as_str(), f.severity)).collect();
        assert_eq!(told, [("slow", Severity::Warning), ("new", Severity::Notice)]);
        assert_eq!(outcome.findings()[0].evidence["calls"], 4);
        assert!(outcome.findings()[0].summary.starts_with("2.5 s each, 4 times"), "{outcome:?}");
    }

    #[test]
    fn many_quick_calls_that_keep_a_core_busy_are_told() {
        let outcome = of(some(vec![]), some(vec![query("busy", 10_000_000, 3_600_000.0 * 0.9)]));
        assert_eq!(outcome.findings()[0].severity, Severity::Warning);
    }

    #[test]
    fn what_was_counted_anew_has_no_figure() {
        let before = some(vec![query("a", 100, 1e6)]);
        // Evicted and returned: fewer than before.
        let outcome = of(before.clone(), some(vec![query("a", 90, 9e5)]));
        assert!(matches!(&outcome, Outcome::Unknown { reason, .. } if reason.contains("came back")), "{outcome:?}");
        // More again than before, and the server says since when.
        let since = Some(THEN + TimeDelta::minutes(30));
        let outcome = of(before.clone(), some(vec![Query { since, ..query("a", 200, 2e6) }]));
        assert!(matches!(outcome, Outcome::Unknown { .. }));
        let outcome = of(before.clone(), Queries { since, ..before.clone() });
        assert!(matches!(&outcome, Outcome::Unknown { reason, .. } if reason.contains("anew")), "{outcome:?}");
        let outcome = of(before.clone(), Queries { lost: Some(7), ..some(vec![query("a", 101, 1e6)]) });
        assert!(
            matches!(&outcome, Outcome::Unknown { reason, .. } if reason.contains("made room 2 times")),
            "{outcome:?}"
        );
        assert!(matches!(&of(before.clone(), some(vec![])), Outcome::Unknown { .. }));
        // Nothing moved, not even for the look itself.
        assert!(matches!(&of(before.clone(), before.clone()), Outcome::Unknown { .. }));
        let gone = of(before.clone(), some(vec![query("b", 1, 1.0)]));
        assert!(
            matches!(&gone, Outcome::Unknown { reason, .. } if reason.contains("1 queries were forgotten")),
            "{gone:?}"
        );
        assert_eq!(of(before, some(vec![query("a", 101, 1e6)])), Outcome::Clean { examined: 1 });
    }

    #[test]
    fn one_look_is_not_enough() {
        let now = Ok(some(vec![query("a", 1, 1e9)]));
        assert!(matches!(judge(&now, THEN, None), Outcome::Unknown { .. }));
        assert!(matches!(judge(&now, THEN, Some(&blind(THEN))), Outcome::Unknown { .. }));
        let look = Look { queries: now.clone(), ..blind(THEN) };
        assert!(matches!(judge(&now, THEN, Some(&look)), Outcome::Unknown { .. }));
    }
}
