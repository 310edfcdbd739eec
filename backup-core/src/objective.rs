//! What the shop promised itself, and whether the repository keeps it: a pure judgement over catalog and time.
//!
//! An [`Objective`] is about a whole source or one of its tiers. Its **RPO** (recovery point objective) is how much may be
//! lost: the age of the newest snapshot that is complete and verified must not exceed it. Its **RTO** (recovery time
//! objective) is how long it may take to come back: the restore in the last drill must not have taken longer.
//!
//! A full snapshot holds what a tier's holds, so it counts for the tier as well. What was never verified or drilled is
//! [`Unknown`](Standing::Unknown), which is not good.
//!
//! With a backup every `p`, each taking `d` until it is verified, the newest verified one is up to `p + d` old: a period of
//! 15 minutes cannot keep an RPO of 15 minutes. Unless it is told, the period is half of the RPO.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::assurance::Assurance;
use crate::manifest::{Snapshot, SnapshotId};
use crate::repository::Catalog;

/// How far a snapshot's clock may be ahead of this one.
pub(crate) const SKEW: TimeDelta = TimeDelta::minutes(5);

/// What was promised for one source, or for one tier of it.
///
/// ```
/// use std::time::Duration;
/// use backup_core::Objective;
/// const MINUTE: Duration = Duration::from_secs(60);
/// // Orders: at most 30 minutes lost, back within 4 hours, tried every month.
/// let orders = Objective::new("shop", 30 * MINUTE).tier("orders").every(15 * MINUTE).rto(240 * MINUTE).drill_every(30 * 24 * 60 * MINUTE);
/// assert_eq!(orders.to_string(), "shop, tier orders");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Objective {
    /// The source's name.
    pub source: String,
    /// The tier; `None` for all of it.
    pub tier: Option<String>,
    /// How much may be lost.
    pub rpo: Duration,
    /// How often a snapshot is to be taken.
    pub every: Duration,
    /// How long a restore may take.
    pub rto: Option<Duration>,
    /// How old the last drill may be.
    pub drill_every: Option<Duration>,
}

impl Objective {
    /// At most `rpo` of this source may be lost.
    pub fn new(source: impl Into<String>, rpo: Duration) -> Self {
        Self { source: source.into(), tier: None, rpo, every: rpo / 2, rto: None, drill_every: None }
    }

    /// The same for a tier of it.
    #[must_use]
    pub fn tier(mut self, tier: impl Into<String>) -> Self {
        self.tier = Some(tier.into());
        self
    }

    /// The same with a snapshot this often.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// The same with a time within which it has to be back.
    #[must_use]
    pub fn rto(mut self, rto: Duration) -> Self {
        self.rto = Some(rto);
        self
    }

    /// The same with a drill this often.
    #[must_use]
    pub fn drill_every(mut self, every: Duration) -> Self {
        self.drill_every = Some(every);
        self
    }

    /// Whether a snapshot holds what this is about.
    fn covers(&self, snapshot: &Snapshot) -> bool {
        let m = &snapshot.manifest;
        m.source.name == self.source && (m.is_full() || self.tier.is_some() && m.tier == self.tier)
    }
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tier {
            Some(tier) => write!(f, "{}, tier {tier}", self.source),
            None => f.write_str(&self.source),
        }
    }
}

/// Whether a promise is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(clippy::exhaustive_enums)] // There is no fourth.
pub enum Standing {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// Nobody looked, so nobody knows.
    Unknown,
}

/// A standing, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Judgement {
    /// Whether it is kept.
    pub standing: Standing,
    /// A sentence about it.
    pub reason: String,
}

impl Judgement {
    fn new(standing: Standing, reason: impl Into<String>) -> Self {
        Self { standing, reason: reason.into() }
    }
}

/// How one promise is kept in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObjectiveStatus {
    /// The promise.
    pub objective: Objective,
    /// The newest snapshot that is complete and verified: what would be restored now.
    pub recovery_point: Option<SnapshotId>,
    /// Its age in seconds.
    pub age_seconds: Option<i64>,
    /// How much would be lost.
    pub rpo: Judgement,
    /// How long it would take, where that was promised.
    pub rto: Option<Judgement>,
}

impl ObjectiveStatus {
    /// Whether everything that was promised is known to be kept.
    pub fn is_good(&self) -> bool {
        let met = |j: &Judgement| j.standing == Standing::Met;
        met(&self.rpo) && self.rto.as_ref().is_none_or(met)
    }
}

/// What has to be done for a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Duty {
    /// Take a snapshot.
    Backup,
    /// Verify the newest one.
    Verify,
    /// Restore one and compare.
    Drill,
}

/// What has to be done next, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Due {
    /// When; not after the time that was asked for where it is overdue.
    pub at: DateTime<Utc>,
    /// What.
    pub duty: Duty,
    /// For which promise.
    pub objective: Objective,
}

/// Judges each promise at the time `now`, against the one repository that `catalog` is of.
pub fn judge(objectives: &[Objective], catalog: &Catalog, now: DateTime<Utc>) -> Vec<ObjectiveStatus> {
    let assurance = catalog.assurance();
    objectives.iter().map(|o| View::new(o, catalog, &assurance, now).judge()).collect()
}

/// What has to be done for these promises, the most urgent first.
pub fn due(objectives: &[Objective], catalog: &Catalog, now: DateTime<Utc>) -> Vec<Due> {
    let assurance = catalog.assurance();
    let mut due: Vec<Due> = objectives.iter().flat_map(|o| View::new(o, catalog, &assurance, now).due()).collect();
    due.sort_by_key(|d| d.at);
    due
}

/// What there is to see for one promise.
struct View<'a> {
    objective: &'a Objective,
    catalog: &'a Catalog,
    now: DateTime<Utc>,
    /// What holds it and is not of the future, oldest state first.
    snapshots: Vec<(&'a Snapshot, Assurance)>,
}

impl<'a> View<'a> {
    fn new(
        objective: &'a Objective,
        catalog: &'a Catalog,
        assurance: &HashMap<SnapshotId, Assurance>,
        now: DateTime<Utc>,
    ) -> Self {
        let fits = |s: &&Snapshot| objective.covers(s) && s.manifest.taken_at <= now + SKEW;
        let mut snapshots: Vec<_> = catalog
            .snapshots
            .iter()
            .filter(fits)
            .map(|s| (s, assurance.get(&s.id).cloned().unwrap_or_default()))
            .collect();
        snapshots.sort_by_key(|(s, _)| (s.manifest.taken_at, s.record));
        Self { objective, catalog, now, snapshots }
    }

    fn judge(&self) -> ObjectiveStatus {
        let point = self.snapshots.iter().rfind(|(s, a)| s.manifest.is_complete() && a.is_verified());
        ObjectiveStatus {
            objective: self.objective.clone(),
            recovery_point: point.map(|(s, _)| s.id.clone()),
            age_seconds: point.map(|(s, _)| self.age(s).num_seconds()),
            rpo: self.rpo(point.map(|(s, _)| *s)),
            rto: self.objective.rto.map(|rto| self.rto(rto)),
        }
    }

    fn rpo(&self, point: Option<&Snapshot>) -> Judgement {
        if let Some(contradiction) = &self.catalog.contradicts {
            return Judgement::new(Standing::Unknown, contradiction.reason());
        }
        let within = |s: &Snapshot| self.age(s) <= delta(self.objective.rpo);
        if let Some(point) = point.filter(|s| within(s)) {
            return Judgement::new(
                Standing::Met,
                format!("{} is {} old, and verified", point.id, words(self.age(point))),
            );
        }
        // What is there in time, and is not known to be good.
        let young = self.snapshots.iter().rfind(|(s, _)| within(s));
        match (young, point) {
            (Some((s, a)), _) if a.damaged_at.is_some() => {
                Judgement::new(Standing::Missed, format!("{} was found damaged", s.id))
            }
            (Some((s, _)), _) if !s.manifest.is_complete() => Judgement::new(
                Standing::Missed,
                format!("{} is not complete: {} problems", s.id, s.manifest.problem_count),
            ),
            (Some((s, _)), _) => Judgement::new(
                Standing::Unknown,
                format!("{} is {} old, and nobody has verified it", s.id, words(self.age(s))),
            ),
            (None, Some(point)) => Judgement::new(
                Standing::Missed,
                format!(
                    "{} is the newest that is complete and verified, and {} old: more than {}",
                    point.id,
                    words(self.age(point)),
                    words(delta(self.objective.rpo))
                ),
            ),
            (None, None) => match self.snapshots.last() {
                Some((s, _)) => Judgement::new(
                    Standing::Missed,
                    format!("{} is {} old, and none is complete and verified", s.id, words(self.age(s))),
                ),
                None => Judgement::new(Standing::Missed, "there is no snapshot of it"),
            },
        }
    }

    fn rto(&self, rto: Duration) -> Judgement {
        // The last in the log, whatever it says of its time.
        let last = self.catalog.evidence.iter().rev().filter(|e| e.what == "drill").find_map(|e| {
            let (s, _) = self.snapshots.iter().find(|(s, _)| e.snapshots.contains(&s.id))?;
            Some((e, s))
        });
        let Some((drill, s)) = last else { return Judgement::new(Standing::Unknown, "it was never drilled") };
        let at = drill.finished_at;
        if !drill.passed {
            let when = at.format("%Y-%m-%d");
            return Judgement::new(Standing::Missed, format!("the last drill, of {} on {when}, failed", s.id));
        }
        if at > self.now + SKEW {
            return Judgement::new(Standing::Unknown, format!("the last drill is dated {at}, which is in the future"));
        }
        let milliseconds = drill.restore_milliseconds();
        let took = TimeDelta::milliseconds(i64::try_from(milliseconds).unwrap_or(i64::MAX / 1_000_000));
        let what = format!("restoring {} took {} in the drill of {}", s.id, words(took), at.format("%Y-%m-%d"));
        if took > delta(rto) {
            return Judgement::new(Standing::Missed, format!("{what}: more than {}", words(delta(rto))));
        }
        match self.objective.drill_every {
            Some(every) if self.now - at > delta(every) => {
                Judgement::new(Standing::Unknown, format!("{what}, which is longer ago than {}", words(delta(every))))
            }
            _ => Judgement::new(Standing::Met, what),
        }
    }

    fn due(&self) -> Vec<Due> {
        let due = |at, duty| Due { at, duty, objective: self.objective.clone() };
        let newest = self.snapshots.last();
        let mut all =
            vec![due(newest.map_or(self.now, |(s, _)| after(s.manifest.taken_at, self.objective.every)), Duty::Backup)];
        if let Some((newest, _)) = newest.filter(|(_, a)| !a.is_verified() && a.damaged_at.is_none()) {
            all.push(due(newest.manifest.finished_at.min(self.now), Duty::Verify));
        }
        if let (Some(every), Some(_)) = (self.objective.drill_every, newest) {
            let tried = self.snapshots.iter().filter_map(|(_, a)| a.drilled_at).max();
            all.push(due(tried.map_or(self.now, |at| after(at, every)), Duty::Drill));
        }
        all
    }

    fn age(&self, snapshot: &Snapshot) -> TimeDelta {
        self.now - snapshot.manifest.taken_at
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

fn after(at: DateTime<Utc>, duration: Duration) -> DateTime<Utc> {
    at.checked_add_signed(delta(duration)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// A length of time for people.
fn words(time: TimeDelta) -> String {
    let seconds = time.num_seconds();
    match seconds.abs() {
        0..60 => format!("{seconds} s"),
        60..5_400 => format!("{} min", seconds / 60),
        5_400..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repository::Evidence;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + minute * 60, 0).unwrap()
    }

    fn evidence(what: &str, id: &SnapshotId, minute: i64, passed: bool) -> Evidence {
        let details = serde_json::json!({ "restore": { "milliseconds": 90 * 60_000 } });
        Evidence::new(what, vec![id.clone()], passed, at(minute), 0, details)
    }

    /// Snapshots at these minutes of the whole shop or of a tier, verified or not.
    fn catalog(snapshots: &[(i64, Option<&str>, bool)]) -> Catalog {
        let mut catalog = Catalog::default();
        for (n, (minute, tier, verified)) in snapshots.iter().enumerate() {
            let snapshot = Snapshot::sample(n as u64 + 1, "shop", *tier, at(*minute));
            if *verified {
                catalog.evidence.push(evidence("verify-stored", &snapshot.id, *minute, true));
            }
            catalog.snapshots.push(snapshot);
        }
        catalog
    }

    fn standing(objective: &Objective, catalog: &Catalog, minute: i64) -> Standing {
        judge(std::slice::from_ref(objective), catalog, at(minute))[0].rpo.standing
    }

    #[test]
    fn only_what_is_young_complete_and_verified_keeps_an_rpo() {
        let whole = Objective::new("shop", 60 * MINUTE);
        let orders = Objective::new("shop", 60 * MINUTE).tier("orders");
        for (snapshots, of_whole, of_orders) in [
            (vec![], Standing::Missed, Standing::Missed),
            (vec![(50, None, true)], Standing::Met, Standing::Met),
            (vec![(50, Some("orders"), true)], Standing::Missed, Standing::Met),
            (vec![(50, Some("stock"), true)], Standing::Missed, Standing::Missed),
            (vec![(50, None, false)], Standing::Unknown, Standing::Unknown),
            (vec![(45, None, true), (50, None, false)], Standing::Met, Standing::Met),
            (vec![(0, None, true), (50, None, false)], Standing::Unknown, Standing::Unknown),
            (vec![(0, None, true)], Standing::Missed, Standing::Missed),
            // A clock that is a little ahead is no reason; a date of tomorrow is no snapshot.
            (vec![(103, None, true)], Standing::Met, Standing::Met),
            (vec![(2000, None, true)], Standing::Missed, Standing::Missed),
        ] {
            let catalog = catalog(&snapshots);
            assert_eq!(standing(&whole, &catalog, 100), of_whole, "{snapshots:?}");
            assert_eq!(standing(&orders, &catalog, 100), of_orders, "{snapshots:?}");
        }
        let mut incomplete = catalog(&[(50, None, true)]);
        incomplete.snapshots[0].manifest.problem_count = 1;
        assert_eq!(standing(&whole, &incomplete, 100), Standing::Missed);
        let mut rolled_back = catalog(&[(50, None, true)]);
        let record = rolled_back.snapshots[0].record;
        rolled_back.contradicts = Some(crate::repository::Contradiction::RolledBack(record));
        assert_eq!(standing(&whole, &rolled_back, 100), Standing::Unknown);
    }

    #[test]
    fn the_last_drill_says_whether_an_rto_is_kept() {
        let judged = |rto: u32, every: Option<u32>, drills: &[(i64, bool)]| {
            let mut catalog = catalog(&[(0, None, true)]);
            let id = catalog.snapshots[0].id.clone();
            catalog.evidence.extend(drills.iter().map(|(minute, passed)| evidence("drill", &id, *minute, *passed)));
            let mut objective = Objective::new("shop", MINUTE).rto(rto * MINUTE);
            objective.drill_every = every.map(|e| e * MINUTE);
            judge(&[objective], &catalog, at(1000))[0].rto.clone().unwrap().standing
        };
        assert_eq!(judged(240, None, &[]), Standing::Unknown);
        assert_eq!(judged(240, None, &[(10, true)]), Standing::Met);
        assert_eq!(judged(60, None, &[(10, true)]), Standing::Missed, "it took 90 minutes");
        assert_eq!(judged(240, None, &[(10, true), (20, false)]), Standing::Missed);
        assert_eq!(judged(240, None, &[(10, false), (20, true)]), Standing::Met);
        assert_eq!(judged(240, None, &[(5000, true), (20, false)]), Standing::Missed, "the last in the log counts");
        assert_eq!(judged(240, Some(900), &[(5000, true)]), Standing::Unknown, "it is of the future");
        assert_eq!(judged(240, Some(900), &[(10, true)]), Standing::Unknown, "it is too long ago");
    }

    #[test]
    fn what_is_due_comes_in_its_order() {
        let objectives = [
            Objective::new("shop", 1440 * MINUTE).drill_every(1440 * MINUTE),
            Objective::new("shop", 30 * MINUTE).tier("orders"),
        ];
        let none = due(&objectives, &Catalog::default(), at(0));
        assert!(none.iter().all(|d| d.duty == Duty::Backup && d.at == at(0)) && none.len() == 2, "{none:?}");
        let some = due(&objectives, &catalog(&[(0, None, true), (20, Some("orders"), false)]), at(25));
        let seen: Vec<_> = some.iter().map(|d| (d.duty, d.at, d.objective.tier.as_deref())).collect();
        assert_eq!(
            seen,
            [
                (Duty::Verify, at(20), Some("orders")),
                (Duty::Drill, at(25), None),
                (Duty::Backup, at(35), Some("orders")),
                (Duty::Backup, at(720), None),
            ]
        );
    }

    proptest! {
        #[test]
        fn time_alone_mends_nothing_and_a_backup_that_is_not_verified_neither(
            snapshots in prop::collection::vec((0i64..500, any::<bool>(), any::<bool>()), 0..12),
            now in 0i64..600, later in 0i64..600, rpo in 1u32..300,
        ) {
            let snapshots: Vec<_> = snapshots.into_iter().filter(|(minute, ..)| *minute <= now)
                .map(|(minute, full, verified)| (minute, (!full).then_some("orders"), verified)).collect();
            for tier in [None, Some("orders")] {
                let mut objective = Objective::new("shop", rpo * MINUTE);
                objective.tier = tier.map(str::to_owned);
                let stands = standing(&objective, &catalog(&snapshots), now);
                // As the promise reads.
                let kept = snapshots.iter().any(|(minute, of, verified)| {
                    *verified && (of.is_none() || *of == tier) && now - minute <= i64::from(rpo)
                });
                prop_assert_eq!(stands == Standing::Met, kept);
                if stands != Standing::Met {
                    prop_assert_ne!(standing(&objective, &catalog(&snapshots), now + later), Standing::Met);
                    let more: Vec<_> = snapshots.iter().copied().chain([(now, None, false)]).collect();
                    prop_assert_ne!(standing(&objective, &catalog(&more), now), Standing::Met);
                }
            }
        }
    }
}
