//! Sequences and counters that run out: from then on no row can be added. The end is that of the sequence or that of the
//! column's type, whichever comes first.

use crate::finding::{Finding, Outcome, Severity};
use crate::schema::Counter;

pub(crate) const ID: &str = "counter-exhaustion";

/// Shares used from which on it is said.
const WARNING: f64 = 0.70;
const CRITICAL: f64 = 0.90;

pub(crate) fn judge(seen: &[Counter]) -> Outcome {
    let mut findings = Vec::new();
    let mut unknown = Vec::new();
    for counter in seen.iter().filter(|c| !c.cycles) {
        let Some(last) = counter.last else {
            unknown.push(format!("this user may not read the counter of {}", counter.object));
            continue;
        };
        let used = last as f64 / counter.limit as f64;
        if used < WARNING {
            continue;
        }
        let left = (counter.limit - last).max(0);
        findings.push(
            Finding::new(
                ID,
                counter.object.clone(),
                format!("{:.0} % of its numbers are used, {left} are left", used * 100.0),
            )
            .severity(if used < CRITICAL { Severity::Warning } else { Severity::Critical })
            .evidence("last", last.to_string())
            .evidence("limit", counter.limit.to_string())
            .evidence("limited_by", counter.limited_by.as_str())
            .remedy("change the column and all that refer to it to a 64-bit type before it runs out"),
        );
    }
    Outcome::of(seen.len() as u64, findings, unknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counter(last: Option<i128>, limit: i128) -> Counter {
        Counter { object: "orders.id".into(), last, limit, limited_by: "integer".into(), cycles: false }
    }

    fn of(counter: Counter) -> Outcome {
        judge(&[counter])
    }

    #[test]
    fn the_end_is_told_in_time() {
        let max = i128::from(i32::MAX);
        let severity = |last| of(counter(Some(last), max)).findings().first().map(|f| f.severity);
        assert_eq!(severity(1_000), None);
        assert_eq!(severity(1_500_000_000), None);
        assert_eq!(severity(1_600_000_000), Some(Severity::Warning));
        assert_eq!(severity(max), Some(Severity::Critical));
        assert_eq!(severity(max + 1), Some(Severity::Critical));
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_what_begins_again_is_fine() {
        assert!(matches!(of(counter(None, 100)), Outcome::Unknown { .. }));
        assert_eq!(of(Counter { cycles: true, ..counter(Some(99), 100) }), Outcome::Clean { examined: 1 });
    }

    proptest! {
        #[test]
        fn more_used_is_never_less_grave(limit in 1i128..1_000_000, a in 0i128..1_000_000, b in 0i128..1_000_000) {
            let severity = |last| of(counter(Some(last), limit)).findings().first().map(|f| f.severity);
            prop_assert!(severity(a.min(b)) <= severity(a.max(b)));
        }
    }
}
