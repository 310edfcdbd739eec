//! Connections used against those that a client may open: at the end of them the shop answers nobody.
//!
//! Clients only, and without the slots that are kept for superusers; the session that looks is one of them.

use crate::activity::Connections;
use crate::finding::{Finding, Outcome, Severity};

pub(crate) const ID: &str = "connections";

const WARNING: f64 = 0.80;
const CRITICAL: f64 = 0.95;

pub(crate) fn judge(seen: &Connections) -> Outcome {
    if seen.usable == 0 {
        return Outcome::unknown("the server does not say how many connections it takes");
    }
    let share = |n: u64| n as f64 / seen.usable as f64;
    let severity = |share: f64| if share < CRITICAL { Severity::Warning } else { Severity::Critical };
    let with_figures = |finding: Finding| {
        let by_state: serde_json::Map<_, _> = seen.by_state.iter().map(|(s, n)| (s.clone(), (*n).into())).collect();
        finding
            .evidence("used", seen.used)
            .evidence("usable", seen.usable)
            .evidence("peak", seen.peak)
            .evidence("by_state", by_state)
            .remedy("put a pooler between shop and server, or end what is idle; more connections need more memory")
    };
    let mut findings = Vec::new();
    if share(seen.used) >= WARNING {
        let summary = format!("{} of {} usable connections are in use", seen.used, seen.usable);
        findings.push(with_figures(Finding::new(ID, "server", summary).severity(severity(share(seen.used)))));
    } else if let Some(peak) = seen.peak.filter(|peak| share(*peak) >= CRITICAL) {
        let summary = format!("{peak} of {} usable connections have been in use at once", seen.usable);
        findings.push(with_figures(Finding::new(ID, "server", summary)));
    }
    Outcome::of(1, findings, vec![])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(used: u64, peak: Option<u64>) -> Option<Severity> {
        let seen = Connections { used, usable: 97, by_state: vec![("idle".into(), used)], peak };
        judge(&seen).findings().first().map(|f| f.severity)
    }

    #[test]
    fn they_are_told_before_they_run_out() {
        assert_eq!(of(10, None), None);
        assert_eq!(of(80, None), Some(Severity::Warning));
        assert_eq!(of(97, None), Some(Severity::Critical));
        assert_eq!(of(10, Some(97)), Some(Severity::Warning));
        assert_eq!(of(10, Some(50)), None);
    }

    #[test]
    fn what_was_not_seen_is_unknown() {
        assert!(matches!(judge(&Connections::default()), Outcome::Unknown { .. }));
    }
}
