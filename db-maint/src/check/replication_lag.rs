//! Replicas that are behind, that nobody hears of, or that keep the primary's disk filling.

use chrono::TimeDelta;

use crate::activity::Replication;
use crate::finding::{Finding, Outcome, Severity};

pub(crate) const ID: &str = "replication-lag";

const WARNING: TimeDelta = TimeDelta::minutes(1);
/// What a shop may lose of its orders at most.
const CRITICAL: TimeDelta = TimeDelta::minutes(15);
/// What a slot keeps of the log.
const KEPT: u64 = 1 << 30;

pub(crate) fn judge(seen: &Replication) -> Outcome {
    let mut findings = Vec::new();
    let mut unknown = seen.unknown.clone();
    for follower in &seen.followers {
        match follower.lag {
            Some(lag) => findings.extend(late(&follower.name, lag)),
            None => unknown.push(format!("how far {} is behind is not known", follower.name)),
        }
        if let Some(state) = follower.state.as_deref().filter(|state| *state != "streaming") {
            let summary = format!("it does not follow yet: {state}");
            findings.push(Finding::new(ID, follower.name.clone(), summary).severity(Severity::Notice));
        }
    }
    for slot in &seen.slots {
        let object = format!("slot {}", slot.name);
        let finding = if slot.is_lost {
            Finding::new(ID, object, "its replica has lost what it needs, and has to be made anew")
                .severity(Severity::Critical)
                .remedy("make the replica anew from a base backup, and drop the slot")
        } else if !slot.is_active {
            let summary = format!("nobody reads it, and {} MiB of the log are kept for it", slot.kept_bytes >> 20);
            let grave = slot.kept_bytes >= KEPT;
            Finding::new(ID, object, summary)
                .severity(if grave { Severity::Critical } else { Severity::Warning })
                .remedy("bring its replica back, or drop the slot: it fills the disk")
        } else if slot.kept_bytes >= KEPT {
            let summary = format!("{} MiB of the log are kept for it: its replica is behind", slot.kept_bytes >> 20);
            Finding::new(ID, object, summary)
        } else {
            continue;
        };
        findings.push(finding.evidence("kept_bytes", slot.kept_bytes));
    }
    for upstream in &seen.upstreams {
        if let Some(why) = &upstream.broken {
            findings.push(
                Finding::new(ID, upstream.name.clone(), format!("this replica does not follow: {why}"))
                    .severity(Severity::Critical)
                    .remedy("look into the replica's log; what it serves is of the time when it stopped"),
            );
            continue;
        }
        match upstream.lag {
            Some(lag) => findings.extend(late(&upstream.name, (lag - upstream.wanted).max(TimeDelta::zero()))),
            None => unknown.push(format!("how far this replica is behind {} is not known", upstream.name)),
        }
    }
    let examined = seen.followers.len() + seen.slots.len() + seen.upstreams.len();
    if examined == 0 && unknown.is_empty() {
        return Outcome::not_applicable("no replica is known");
    }
    Outcome::of(examined as u64, findings, unknown)
}

fn late(name: &str, lag: TimeDelta) -> Option<Finding> {
    if lag < WARNING {
        return None;
    }
    let seconds = lag.num_seconds();
    let severity = if lag < CRITICAL { Severity::Warning } else { Severity::Critical };
    Some(
        Finding::new(ID, name.to_owned(), format!("it is {seconds} s behind"))
            .severity(severity)
            .evidence("lag_seconds", seconds)
            .remedy("look for a long transaction or a heavy job on the primary, and for a slow disk or network of the replica"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::{Follower, Slot, Upstream};

    fn worst(seen: &Replication) -> Option<Severity> {
        judge(seen).findings().first().map(|f| f.severity)
    }

    fn follower(lag: Option<i64>) -> Replication {
        let follower =
            Follower { name: "standby a".into(), lag: lag.map(TimeDelta::seconds), state: Some("streaming".into()) };
        Replication { followers: vec![follower], ..Replication::default() }
    }

    fn slot(slot: Slot) -> Option<Severity> {
        worst(&Replication { slots: vec![slot], ..Replication::default() })
    }

    #[test]
    fn lag_is_told_from_a_minute_on() {
        assert!(matches!(judge(&Replication::default()), Outcome::NotApplicable { .. }));
        assert_eq!(worst(&follower(Some(3))), None);
        assert_eq!(worst(&follower(Some(90))), Some(Severity::Warning));
        assert_eq!(worst(&follower(Some(1_000))), Some(Severity::Critical));
        assert!(matches!(judge(&follower(None)), Outcome::Unknown { .. }));
    }

    #[test]
    fn what_keeps_the_log_is_told() {
        let well = Slot { name: "a".into(), is_active: true, is_lost: false, kept_bytes: 10 };
        assert_eq!(slot(well.clone()), None);
        assert_eq!(slot(Slot { is_active: false, ..well.clone() }), Some(Severity::Warning));
        assert_eq!(slot(Slot { is_active: false, kept_bytes: 2 << 30, ..well.clone() }), Some(Severity::Critical));
        assert_eq!(slot(Slot { is_lost: true, ..well }), Some(Severity::Critical));
    }

    #[test]
    fn a_replica_that_does_not_follow_is_critical_and_one_that_is_told_to_wait_is_well() {
        let of = |broken: Option<&str>, lag: Option<i64>| {
            let upstream = Upstream {
                name: "primary".into(),
                broken: broken.map(str::to_owned),
                lag: lag.map(TimeDelta::seconds),
                wanted: TimeDelta::seconds(3_600),
            };
            judge(&Replication { upstreams: vec![upstream], ..Replication::default() })
        };
        assert_eq!(of(Some("the SQL thread stopped with error 1062"), None).findings()[0].severity, Severity::Critical);
        assert_eq!(of(None, Some(3_610)), Outcome::Clean { examined: 1 });
        assert_eq!(of(None, Some(3_700)).findings()[0].severity, Severity::Warning);
        assert!(matches!(of(None, None), Outcome::Unknown { .. }));
    }
}
