//! Transactions that stay open, and sessions that wait for others.
//!
//! An open transaction keeps locks and old row versions, also when its program has long forgotten it. Of sessions that wait,
//! the one at the head of the queue is named: ending the others would change nothing. Nothing here ends any.

use std::collections::{BTreeSet, HashMap};

use chrono::TimeDelta;

use crate::activity::Sessions;
use crate::finding::{Finding, Outcome, Severity};

pub(crate) const LONG: &str = "transaction-long";
pub(crate) const BLOCKED: &str = "session-blocked";

/// How long a transaction may be open, and how long it may do nothing.
const OPEN: TimeDelta = TimeDelta::minutes(5);
const IDLE: TimeDelta = TimeDelta::minutes(1);
const VERY_LONG: TimeDelta = TimeDelta::hours(1);
/// How long one may wait for another.
const WAIT: TimeDelta = TimeDelta::seconds(5);
const LONG_WAIT: TimeDelta = TimeDelta::minutes(1);

pub(crate) fn judge_long(seen: &Sessions) -> Outcome {
    let findings = seen.open.iter().filter_map(|session| {
        let idle = session.idle.filter(|idle| *idle >= IDLE);
        if session.open < OPEN && idle.is_none() {
            return None;
        }
        let doing = match idle {
            Some(idle) => format!(", and has done nothing for {}", span(idle)),
            None => String::new(),
        };
        let summary = format!("its transaction has been open for {}{doing}", span(session.open));
        let severity = if session.open < VERY_LONG { Severity::Warning } else { Severity::Critical };
        Some(
            Finding::new(LONG, format!("session of {}", session.who), summary)
                .severity(severity)
                .evidence("session", session.id)
                .evidence("open_seconds", session.open.num_seconds())
                .evidence("idle_seconds", session.idle.map(|idle| idle.num_seconds()))
                .remedy("find the program that forgot to commit; a limit on idle transactions ends the next one"),
        )
    });
    Outcome::of(seen.open.len() as u64, findings.collect(), vec![])
}

pub(crate) fn judge_blocked(seen: &Sessions) -> Outcome {
    let waits: HashMap<u64, &[u64]> = seen.waiting.iter().map(|w| (w.id, w.blockers.as_slice())).collect();
    // Who does not wait himself and keeps others waiting, with all who do.
    let mut behind: HashMap<u64, BTreeSet<u64>> = HashMap::new();
    for waiting in &seen.waiting {
        for head in heads(waiting.id, &waits) {
            behind.entry(head).or_default().insert(waiting.id);
        }
    }
    let alone = seen.waiting.iter().filter(|w| w.blockers.is_empty() && w.for_ >= WAIT).map(|waiting| {
        let summary = format!("it has waited for {}, and the server does not show for whom", span(waiting.for_));
        Finding::new(BLOCKED, format!("session of {}", waiting.who), summary)
            .severity(if waiting.for_ < LONG_WAIT { Severity::Warning } else { Severity::Critical })
            .evidence("session", waiting.id)
            .evidence("longest_seconds", waiting.for_.num_seconds())
            .remedy("it changes a table's definition: an open transaction that has used the table holds it up")
    });
    let findings = behind.into_iter().filter_map(|(head, waiting)| {
        let longest = seen.waiting.iter().filter(|w| waiting.contains(&w.id)).map(|w| w.for_).max()?;
        if longest < WAIT {
            return None;
        }
        let who = seen.open.iter().find(|s| s.id == head).map_or("a session", |s| s.who.as_str());
        let summary = format!("{} sessions wait for it, the longest for {}", waiting.len(), span(longest));
        Some(
            Finding::new(BLOCKED, format!("session of {who}"), summary)
                .severity(if longest < LONG_WAIT { Severity::Warning } else { Severity::Critical })
                .evidence("session", head)
                .evidence("waiting", waiting.into_iter().collect::<Vec<_>>())
                .evidence("longest_seconds", longest.num_seconds())
                .remedy("let it finish, or end it where nobody needs what it does"),
        )
    });
    Outcome::of(seen.waiting.len() as u64, findings.chain(alone).collect(), vec![])
}

/// Who is at the head of the queue that this one is in.
fn heads(id: u64, waits: &HashMap<u64, &[u64]>) -> BTreeSet<u64> {
    let (mut seen, mut open, mut heads) = (BTreeSet::from([id]), vec![id], BTreeSet::new());
    while let Some(id) = open.pop() {
        for blocker in waits.get(&id).copied().unwrap_or_default() {
            match waits.contains_key(blocker) {
                true if seen.insert(*blocker) => open.push(*blocker),
                true => {}
                false => drop(heads.insert(*blocker)),
            }
        }
    }
    heads
}

fn span(delta: TimeDelta) -> String {
    match delta.num_seconds() {
        s @ ..120 => format!("{s} s"),
        s @ ..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::{Session, Waiting};

    fn session(id: u64, open: i64, idle: Option<i64>) -> Session {
        Session { id, who: format!("shop {id}"), open: TimeDelta::seconds(open), idle: idle.map(TimeDelta::seconds) }
    }

    fn waiting(id: u64, seconds: i64, blockers: &[u64]) -> Waiting {
        Waiting { id, who: format!("shop {id}"), for_: TimeDelta::seconds(seconds), blockers: blockers.to_vec() }
    }

    #[test]
    fn long_and_forgotten_transactions_are_found() {
        let of = |session| {
            let seen = Sessions { open: vec![session], waiting: vec![] };
            judge_long(&seen).findings().first().map(|f| f.severity)
        };
        assert_eq!(of(session(1, 20, None)), None);
        assert_eq!(of(session(1, 20, Some(10))), None);
        assert_eq!(of(session(1, 70, Some(65))), Some(Severity::Warning));
        assert_eq!(of(session(1, 400, None)), Some(Severity::Warning));
        assert_eq!(of(session(1, 4000, None)), Some(Severity::Critical));
    }

    #[test]
    fn the_head_of_a_queue_is_named_with_all_who_wait() {
        let open = vec![session(1, 90, None)];
        let seen = Sessions { open, waiting: vec![waiting(2, 30, &[1]), waiting(3, 20, &[2]), waiting(4, 1, &[2, 1])] };
        let outcome = judge_blocked(&seen);
        assert_eq!(outcome.findings().len(), 1);
        let finding = &outcome.findings()[0];
        assert_eq!(finding.object, "session of shop 1");
        assert_eq!(finding.evidence["waiting"], serde_json::json!([2, 3, 4]));
        assert_eq!(finding.evidence["longest_seconds"], 30);
    }

    #[test]
    fn those_who_have_waited_for_a_moment_are_no_finding_and_circles_end() {
        let of = |waiting| judge_blocked(&Sessions { open: vec![], waiting }).findings().len();
        assert_eq!(of(vec![waiting(2, 4, &[1])]), 0);
        assert_eq!(of(vec![waiting(2, 9, &[])]), 1);
        // The server will end one of them; there is no head.
        assert_eq!(of(vec![waiting(2, 40, &[3]), waiting(3, 40, &[2])]), 0);
    }
}
