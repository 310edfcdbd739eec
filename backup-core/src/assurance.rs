//! What verifies and drills have said of each snapshot.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::manifest::SnapshotId;
use crate::repository::Evidence;
use crate::verify::VerifyLevel;

/// What the evidence in the log says of one snapshot. Nothing is known of one that nobody looked at: then all is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Assurance {
    /// When all of its stored bytes were last found to be what was signed, if nothing else was found since.
    pub stored_at: Option<DateTime<Utc>>,
    /// When its content was last read and found to be what was backed up, if nothing else was found since.
    pub content_at: Option<DateTime<Utc>>,
    /// When it last passed a drill.
    pub drilled_at: Option<DateTime<Utc>>,
    /// How long that drill took to restore it, in milliseconds.
    pub restore_milliseconds: Option<u64>,
    /// When its last drill failed, if none has passed since.
    pub drill_failed_at: Option<DateTime<Utc>>,
    /// When it was found damaged, and how deep one had to look, if it was not found whole since.
    pub damaged_at: Option<(VerifyLevel, DateTime<Utc>)>,
}

impl Assurance {
    /// What `evidence`, oldest first, says of each snapshot that it speaks of, in the worst of these stores: what nobody has
    /// looked at in one of them is not known. A drill counts wherever it was done, but says only of the store that it read
    /// from that the bytes are good there. Without any stores all that was said counts.
    pub fn of(evidence: &[Evidence], stores: &[&str]) -> HashMap<SnapshotId, Self> {
        let Some((first, others)) = stores.split_first() else { return Self::in_store(evidence, None) };
        let mut all = Self::in_store(evidence, Some(first));
        for store in others {
            let mut there = Self::in_store(evidence, Some(store));
            for (id, one) in &mut all {
                one.weaken(there.remove(id).unwrap_or_default());
            }
            for (id, other) in there {
                all.entry(id).or_default().weaken(other);
            }
        }
        all
    }

    fn in_store(evidence: &[Evidence], store: Option<&str>) -> HashMap<SnapshotId, Self> {
        let mut all: HashMap<SnapshotId, Self> = HashMap::new();
        for evidence in evidence {
            let is_of_here = store.is_none() || evidence.store.as_deref() == store;
            if !is_of_here && evidence.what != "drill" {
                continue;
            }
            let at = evidence.finished_at;
            let level = match evidence.what.as_str() {
                "verify-stored" => VerifyLevel::Stored,
                "verify-content" => VerifyLevel::Content,
                "drill" => {
                    for id in &evidence.snapshots {
                        all.entry(id.clone()).or_default().drilled(evidence, is_of_here);
                    }
                    continue;
                }
                // Left by a newer version: what it means is not known.
                _ => continue,
            };
            for id in evidence.damaged_snapshots() {
                let one = all.entry(id).or_default();
                *one = Self { stored_at: None, content_at: None, damaged_at: Some((level, at)), ..one.clone() };
            }
            for id in &evidence.snapshots {
                all.entry(id.clone()).or_default().found_whole(level, at);
            }
        }
        all
    }

    /// Whether its bytes are known to be there, as they were signed.
    pub fn is_verified(&self) -> bool {
        self.damaged_at.is_none() && (self.stored_at.is_some() || self.content_at.is_some())
    }

    /// Whether it is known that what was backed up can be read from them: by a verify of its content, or a drill.
    pub fn is_content_verified(&self) -> bool {
        self.damaged_at.is_none() && self.content_at.is_some()
    }

    /// Leaves only what is also known of another store. Drills are the same everywhere.
    fn weaken(&mut self, other: Self) {
        let earlier = |a: Option<DateTime<Utc>>, b: Option<DateTime<Utc>>| a.zip(b).map(|(a, b)| a.min(b));
        self.stored_at = earlier(self.stored_at, other.stored_at);
        self.content_at = earlier(self.content_at, other.content_at);
        self.damaged_at = self.damaged_at.or(other.damaged_at);
        self.drilled_at = self.drilled_at.or(other.drilled_at);
        self.restore_milliseconds = self.restore_milliseconds.or(other.restore_milliseconds);
        self.drill_failed_at = self.drill_failed_at.or(other.drill_failed_at);
    }

    fn found_whole(&mut self, level: VerifyLevel, at: DateTime<Utc>) {
        match self.damaged_at {
            // What only shows when it is read is not refuted by looking at it from outside.
            Some((VerifyLevel::Content, _)) if level == VerifyLevel::Stored => return,
            _ => self.damaged_at = None,
        }
        self.stored_at = Some(at);
        if level == VerifyLevel::Content {
            self.content_at = Some(at);
        }
    }

    fn drilled(&mut self, evidence: &Evidence, is_of_here: bool) {
        let at = evidence.finished_at;
        if !evidence.passed {
            self.drill_failed_at = Some(at);
            return;
        }
        self.drill_failed_at = None;
        self.drilled_at = Some(at);
        self.restore_milliseconds = Some(evidence.restore_milliseconds());
        // It does not read everything, such as the roles of the server: it refutes no damage that a verify has found.
        if is_of_here && self.damaged_at.is_none() {
            self.content_at = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn evidence(what: &str, second: i64, whole: &[&str], damaged: &[&str]) -> Evidence {
        let ids = |names: &[&str]| names.iter().map(|n| serde_json::from_value(json!(n)).unwrap()).collect::<Vec<_>>();
        let passed = damaged.is_empty();
        let details =
            json!({ "findings": [{ "object": "x", "snapshots": damaged }], "restore": { "milliseconds": 70 } });
        Evidence::new(what, ids(whole), passed, at(second), 100, details)
    }

    fn of_a(evidence: &[Evidence]) -> Assurance {
        let id: SnapshotId = serde_json::from_value(json!("a")).unwrap();
        Assurance::of(evidence, &[]).remove(&id).unwrap_or_default()
    }

    #[test]
    fn nothing_is_known_of_what_nobody_looked_at() {
        let of_another = of_a(&[evidence("verify-content", 1, &["b"], &[])]);
        assert_eq!(of_another, Assurance::default());
        assert!(!of_another.is_verified() && !of_another.is_content_verified());
        assert_eq!(of_a(&[evidence("blessed", 1, &["a"], &[])]), Assurance::default());
    }

    #[test]
    fn damage_outweighs_what_was_said_before_and_ends_only_by_looking_as_deep() {
        let stored = evidence("verify-stored", 1, &["a"], &[]);
        let content = evidence("verify-content", 2, &["a"], &[]);
        let seen = |evidence: &Evidence| {
            let one = of_a(std::slice::from_ref(evidence));
            (one.is_verified(), one.is_content_verified())
        };
        assert_eq!(seen(&stored), (true, false));
        assert_eq!(seen(&content), (true, true));
        let lost = evidence("verify-stored", 3, &[], &["a"]);
        assert!(!of_a(&[content.clone(), lost.clone()]).is_verified());
        let healed = of_a(&[content.clone(), lost, stored.clone()]);
        assert!(healed.is_verified() && !healed.is_content_verified(), "what was read before may be other bytes now");
        let rotten = evidence("verify-content", 3, &[], &["a"]);
        assert!(!of_a(&[rotten.clone(), stored]).is_verified());
        assert!(of_a(&[rotten, content]).is_content_verified());
    }

    #[test]
    fn what_is_not_known_of_one_store_is_not_known_of_both() {
        let of = |evidence: &[Evidence], stores: &[&str]| {
            let id: SnapshotId = serde_json::from_value(json!("a")).unwrap();
            Assurance::of(evidence, stores).remove(&id).unwrap_or_default()
        };
        let here = evidence("verify-content", 1, &["a"], &[]).of_store(Some("x".into()));
        let there = evidence("verify-content", 2, &["a"], &[]).of_store(Some("y".into()));
        let lost = evidence("verify-stored", 3, &[], &["a"]).of_store(Some("y".into()));
        let drill = evidence("drill", 4, &["a"], &[]).of_store(Some("x".into()));
        assert!(of(std::slice::from_ref(&here), &["x"]).is_content_verified());
        assert_eq!(of(std::slice::from_ref(&here), &["y"]), Assurance::default());
        assert!(!of(std::slice::from_ref(&here), &["x", "y"]).is_verified());
        let both = of(&[here.clone(), there.clone()], &["x", "y"]);
        assert_eq!((both.content_at, both.stored_at), (Some(at(1)), Some(at(1))));
        for stores in [["x", "y"], ["y", "x"]] {
            assert!(!of(&[here.clone(), there.clone(), lost.clone()], &stores).is_verified());
        }
        let drilled = of(&[drill], &["x", "y"]);
        assert_eq!((drilled.drilled_at, drilled.is_verified()), (Some(at(4)), false), "read from one, known of one");
    }

    #[test]
    fn a_drill_says_how_long_it_took_and_a_failed_one_does_not() {
        let passed = evidence("drill", 5, &["a"], &[]);
        let one = of_a(std::slice::from_ref(&passed));
        assert_eq!((one.drilled_at, one.restore_milliseconds), (Some(at(5)), Some(70)));
        assert!(one.is_content_verified());
        let failed = Evidence { passed: false, ..evidence("drill", 6, &["a"], &[]) };
        let two = of_a(&[passed, failed.clone()]);
        assert_eq!((two.drilled_at, two.drill_failed_at), (Some(at(5)), Some(at(6))));
        assert!(!of_a(&[failed]).is_verified());
        let lost = evidence("verify-content", 3, &[], &["a"]);
        assert!(!of_a(&[lost, evidence("drill", 5, &["a"], &[])]).is_verified(), "a drill does not read everything");
    }
}
