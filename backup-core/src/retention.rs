//! Which snapshots to keep: a pure decision over catalog and time, with a reason for every snapshot.
//!
//! A [`Retention`] keeps everything `within` some time, and beyond it the newest snapshot of each of the last so many
//! hours, days, weeks (Monday to Sunday), months and years that have one, by the calendar of a stated time zone; as long as
//! there are not as many of them yet, the oldest copy stays as well. Each
//! series, the snapshots of one source and one tier, is judged for itself.
//!
//! **It fails closed.** Only a *copy* counts towards a number: a snapshot whose content was verified or that passed a
//! drill, that is as complete as the copy before it, not implausibly smaller, not from the future and not out of order.
//! Where a day has no copy, all its other snapshots are kept, and no number is used up: seven bad nights push nothing out,
//! and in a repository that nobody verifies nothing is ever dropped. The last [`verified`](Retention::verified) copies and
//! the last one that passed a drill are always kept.
//!
//! # What a number promises
//!
//! `monthly=12` keeps the last copy of each of 12 months: of this one, and of the eleven before it. That is not a year. To have
//! something from before any instant of the last twelve months takes `monthly=14`: this month, twelve whole ones, and the one
//! whose last copy lies before all of these; and so for days and weeks. [`Retention::twelve_months`] does that.
//!
//! | policy, with a copy every night | any instant of the last … has a copy of at most … before it |
//! |---|---|
//! | `within=48h` | 48 hours: every one that was taken |
//! | `daily=32` | 30 days: one day |
//! | `weekly=10` | 8 weeks: one week |
//! | `monthly=14` | 12 months: 31 days |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::assurance::Assurance;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Manifest, RecordName, Snapshot, SnapshotId};
use crate::objective::SKEW;
use crate::repository::Catalog;

/// A snapshot with less than one part in so many of the rows or bytes that the copies before it had is implausible.
const COLLAPSE: u64 = 2;
/// Whose median is taken for that.
const PREDECESSORS: usize = 5;

/// What to keep.
///
/// ```
/// use backup_core::Retention;
/// let policy: Retention = "within=48h,daily=32,weekly=10,monthly=14".parse()?;
/// assert_eq!(policy, Retention::twelve_months());
/// let in_berlin = policy.in_time_zone("Europe/Berlin")?;
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Everything younger than this is kept.
    pub within: TimeDelta,
    /// How many hours keep their newest copy.
    pub hourly: u32,
    /// How many days.
    pub daily: u32,
    /// How many weeks.
    pub weekly: u32,
    /// How many months.
    pub monthly: u32,
    /// How many years.
    pub yearly: u32,
    /// How many of the newest copies are kept whatever else is said; at least one, 3 unless told.
    pub verified: u32,
    zone: Tz,
    accepted: HashSet<SnapshotId>,
    only: Option<Series>,
}

/// The snapshots of one source and tier; the tier `None` is the full ones.
type Series = (String, Option<String>);

impl Retention {
    /// Keeps nothing but the last copies: to be added to.
    pub fn new() -> Self {
        Self {
            within: TimeDelta::zero(),
            hourly: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
            verified: 3,
            zone: Tz::UTC,
            accepted: HashSet::new(),
            only: None,
        }
    }

    /// Twelve months: everything of 48 hours, then a copy for each day of 30, each week of 8, each month of 12.
    pub fn twelve_months() -> Self {
        Self { within: TimeDelta::hours(48), daily: 32, weekly: 10, monthly: 14, ..Self::new() }
    }

    /// The same by the calendar of a time zone, such as `Africa/Lagos`; UTC unless told.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none of that name.
    pub fn in_time_zone(self, name: &str) -> Result<Self> {
        let zone = name.parse().map_err(|_| {
            Error::new(ErrorKind::Config, format!("{name:?} is no time zone"))
                .with_next_step("name one of the IANA database, such as Africa/Lagos or Europe/Berlin")
        })?;
        Ok(Self { zone, ..self })
    }

    /// The same, taking this snapshot as it is: smaller or less complete than those before it, and rightly so.
    #[must_use]
    pub fn accept(mut self, snapshot: SnapshotId) -> Self {
        self.accepted.insert(snapshot);
        self
    }

    /// The same for one source and tier alone; of all others nothing is dropped.
    #[must_use]
    pub fn only(mut self, source: impl Into<String>, tier: Option<&str>) -> Self {
        self.only = Some((source.into(), tier.map(str::to_owned)));
        self
    }

    /// What to keep and what to drop at the time `now`.
    pub fn plan(&self, catalog: &Catalog, now: DateTime<Utc>) -> PrunePlan {
        let assurance = catalog.assurance();
        let mut series: BTreeMap<Series, Vec<Judged<'_>>> = BTreeMap::new();
        for snapshot in &catalog.snapshots {
            let m = &snapshot.manifest;
            let assurance = assurance.get(&snapshot.id).cloned().unwrap_or_default();
            let judged = Judged { snapshot, assurance, is_copy: false, reasons: Vec::new() };
            series.entry((m.source.name.clone(), m.tier.clone())).or_default().push(judged);
        }
        let mut decisions = Vec::new();
        for (name, mut snapshots) in series {
            snapshots.sort_by_key(|j| (j.snapshot.manifest.taken_at, j.snapshot.record));
            if self.only.as_ref().is_some_and(|only| *only != name) {
                snapshots.iter_mut().for_each(|j| j.reasons.push(Reason::NotAskedFor));
            } else {
                self.judge(&mut snapshots, now);
            }
            decisions.extend(snapshots.into_iter().map(Judged::decide));
        }
        decisions.sort_by_key(|d: &Decision| d.record);
        PrunePlan { policy: self.to_string(), now, decisions, rejected: catalog.rejected.clone() }
    }

    fn judge(&self, series: &mut [Judged<'_>], now: DateTime<Utc>) {
        self.find_copies(series, now);
        for judged in series.iter_mut().filter(|j| now - j.snapshot.manifest.taken_at < self.within) {
            judged.reasons.push(Reason::Within);
        }
        let mut left = self.verified.max(1);
        for judged in series.iter_mut().rev() {
            if left == 0 {
                break;
            }
            // Up to there everything stays: what is newer may turn out to be the good one.
            judged.reasons.push(if judged.is_copy { Reason::LastVerified } else { Reason::NewerThanVerified });
            left -= u32::from(judged.is_copy);
        }
        if let Some(last) =
            series.iter_mut().filter(|j| j.assurance.drilled_at.is_some()).max_by_key(|j| j.assurance.drilled_at)
        {
            last.reasons.push(Reason::LastDrilled);
        }
        for (period, number) in self.numbers() {
            self.keep_periods(series, period, number);
        }
        // What collapsed is held beside the copies that it is told from, and not longer: alone it would look usual.
        let oldest = series.iter().filter(|j| j.is_copy && j.is_kept()).map(|j| j.snapshot.manifest.taken_at).min();
        for judged in series.iter_mut().filter(|j| oldest.is_some_and(|at| j.snapshot.manifest.taken_at > at)) {
            if judged.reasons.iter().any(|r| matches!(r, Reason::Collapsed { .. })) {
                judged.reasons.push(Reason::Held);
            }
        }
    }

    /// Tells copies from what may not count as one, and says why.
    fn find_copies<'a>(&self, series: &mut [Judged<'a>], now: DateTime<Utc>) {
        let mut before: Vec<&'a Manifest> = Vec::new();
        // Of all copies so far, so that nobody goes back in steps too small to notice.
        let mut newest: Option<DateTime<Utc>> = None;
        // In the order of the log: a forged date does not change what came before what.
        let mut order: Vec<usize> = (0..series.len()).collect();
        order.sort_by_key(|n| series[*n].snapshot.record);
        for n in order {
            let judged = &mut series[n];
            let snapshot: &'a Snapshot = judged.snapshot;
            let manifest = &snapshot.manifest;
            let accepted = self.accepted.contains(&judged.snapshot.id);
            let held = if manifest.taken_at > now + SKEW {
                Some(Reason::FromTheFuture)
            } else if newest.is_some_and(|newest| manifest.taken_at + SKEW < newest) {
                Some(Reason::OutOfOrder)
            } else if judged.assurance.damaged_at.is_some() {
                Some(Reason::Damaged)
            } else if !judged.assurance.is_content_verified() {
                Some(Reason::NotVerified)
            } else if accepted {
                None
            } else if before.last().is_some_and(|b| has_new_problems(manifest, b)) {
                Some(Reason::LessComplete)
            } else {
                collapsed(manifest, &before)
            };
            match held {
                Some(reason) => judged.reasons.push(reason),
                None => {
                    if accepted {
                        before.clear();
                    }
                    judged.is_copy = true;
                    before.push(manifest);
                    newest = newest.max(Some(manifest.taken_at));
                }
            }
        }
    }

    /// Keeps the newest copy of each of the newest periods that have one, and everything of those that have none.
    fn keep_periods(&self, series: &mut [Judged<'_>], period: Period, number: u32) {
        if number == 0 {
            return;
        }
        let names: Vec<String> =
            series.iter().map(|j| period.name(j.snapshot.manifest.taken_at.with_timezone(&self.zone))).collect();
        let with_copy: HashSet<&String> =
            names.iter().zip(&*series).filter(|(_, j)| j.is_copy).map(|(name, _)| name).collect();
        let mut used: Vec<&String> = Vec::new();
        for (name, judged) in names.iter().zip(series.iter_mut()).rev() {
            let is_full = used.len() == number as usize;
            if judged.is_copy && used.last() != Some(&name) {
                if is_full {
                    break;
                }
                used.push(name);
                judged.reasons.push(Reason::Newest { period, name: name.clone() });
            } else if !judged.is_copy && !with_copy.contains(name) {
                judged.reasons.push(Reason::NoCopy { period, name: name.clone() });
            }
        }
        if used.len() < number as usize
            && let Some(oldest) = series.iter_mut().find(|j| j.is_copy)
        {
            oldest.reasons.push(Reason::Oldest { period });
        }
    }

    fn numbers(&self) -> [(Period, u32); 5] {
        [
            (Period::Hour, self.hourly),
            (Period::Day, self.daily),
            (Period::Week, self.weekly),
            (Period::Month, self.monthly),
            (Period::Year, self.yearly),
        ]
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::twelve_months()
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.within.is_zero() {
            parts.push(format!("within={}h", self.within.num_hours()));
        }
        let numbers = self.numbers().into_iter().filter(|(_, number)| *number > 0);
        parts.extend(numbers.map(|(period, number)| format!("{}={number}", period.key())));
        parts.push(format!("verified={}", self.verified.max(1)));
        write!(f, "{} ({})", parts.join(","), self.zone.name())
    }
}

impl FromStr for Retention {
    type Err = Error;

    /// Reads `within=48h,daily=30,weekly=8,monthly=12`; also `hourly`, `yearly` and `verified`. `within` is in hours (`h`) or
    /// days (`d`).
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |part: &str, why: &str| {
            Error::new(ErrorKind::Config, format!("{part:?} in the policy {text:?}: {why}"))
                .with_next_step("write it as within=48h,daily=30,weekly=8,monthly=12; also hourly, yearly, verified")
        };
        let mut policy = Self::new();
        let mut seen = HashSet::new();
        for part in text.split(',').map(str::trim) {
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(part, "there is no ="))?;
            if !seen.insert(key) {
                return Err(wrong(part, "it stands there twice"));
            }
            if key == "within" {
                policy.within = within(value).ok_or_else(|| wrong(part, "the time is not like 48h or 7d"))?;
                continue;
            }
            let number = value.parse().map_err(|_| wrong(part, "the number is none"))?;
            let field = match key {
                "hourly" => &mut policy.hourly,
                "daily" => &mut policy.daily,
                "weekly" => &mut policy.weekly,
                "monthly" => &mut policy.monthly,
                "yearly" => &mut policy.yearly,
                "verified" => &mut policy.verified,
                _ => return Err(wrong(part, "no rule is called that")),
            };
            *field = number;
        }
        if policy.within.is_zero() && policy.numbers().iter().all(|(_, number)| *number == 0) {
            return Err(wrong(text, "it keeps nothing but the last verified copies"));
        }
        Ok(policy)
    }
}

fn within(text: &str) -> Option<TimeDelta> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n > 0);
    match (text.strip_suffix('h'), text.strip_suffix('d')) {
        (Some(hours), _) => TimeDelta::try_hours(number(hours)?),
        (_, Some(days)) => TimeDelta::try_days(number(days)?),
        _ => None,
    }
}

/// A stretch of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Period {
    /// Of the clock.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday (ISO 8601).
    Week,
    /// Of the calendar.
    Month,
    /// Of the calendar.
    Year,
}

impl Period {
    fn key(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// The name of the period that holds an instant: two instants have the same if they are in the same one.
    fn name(self, at: DateTime<Tz>) -> String {
        match self {
            // With its offset: an hour that comes twice when clocks are set back is two.
            Self::Hour => format!("{} {:02} h {}", at.date_naive(), at.hour(), at.format("%z")),
            Self::Day => at.date_naive().to_string(),
            Self::Week => format!("{}-W{:02}", at.iso_week().year(), at.iso_week().week()),
            Self::Month => at.format("%Y-%m").to_string(),
            Self::Year => at.year().to_string(),
        }
    }
}

/// Why a snapshot is kept, or dropped, or does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
#[non_exhaustive]
pub enum Reason {
    /// Kept: it is younger than `within`.
    Within,
    /// Kept: it is the newest copy of a period.
    Newest {
        /// Which kind of period.
        period: Period,
        /// Which one.
        name: String,
    },
    /// Kept: there is no copy of that period, so all of it stays.
    NoCopy {
        /// Which kind of period.
        period: Period,
        /// Which one.
        name: String,
    },
    /// Kept: it is the oldest copy, and there are not as many periods yet as are to be kept.
    Oldest {
        /// Which kind of period.
        period: Period,
    },
    /// Kept: somebody has to look at it.
    Held,
    /// Kept: it is one of the newest copies.
    LastVerified,
    /// Kept: it is newer than the newest copies.
    NewerThanVerified,
    /// Kept: it is the last one that passed a drill.
    LastDrilled,
    /// Kept: the plan is about others.
    NotAskedFor,
    /// Does not count: nobody has verified its content.
    NotVerified,
    /// Does not count: a verify found it damaged.
    Damaged,
    /// Does not count, and kept: it is dated in the future.
    FromTheFuture,
    /// Does not count, and kept: it is dated before a snapshot that was there before it.
    OutOfOrder,
    /// Does not count: it could not read what the copy before it could.
    LessComplete,
    /// Does not count: it holds far less than the copies before it.
    Collapsed {
        /// Rows and files in it.
        rows: u64,
        /// Rows and files in those before: their median.
        usual_rows: u64,
        /// Bytes in it.
        bytes: u64,
        /// Bytes in those before: their median.
        usual_bytes: u64,
    },
    /// Dropped: newer copies stand for it.
    Superseded,
}

impl Reason {
    /// Whether somebody has to look at the snapshot, because it is not as it should be.
    pub fn is_alarming(&self) -> bool {
        matches!(
            self,
            Self::Damaged | Self::FromTheFuture | Self::OutOfOrder | Self::LessComplete | Self::Collapsed { .. }
        )
    }

    fn keeps(&self) -> bool {
        !matches!(
            self,
            Self::NotVerified | Self::Damaged | Self::LessComplete | Self::Collapsed { .. } | Self::Superseded
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Within => f.write_str("young"),
            Self::Newest { name, .. } => write!(f, "newest of {name}"),
            Self::NoCopy { name, .. } => write!(f, "{name} has no verified copy"),
            Self::Oldest { .. } => f.write_str("the oldest copy"),
            Self::Held => f.write_str("held until somebody has looked at it"),
            Self::LastVerified => f.write_str("one of the last verified copies"),
            Self::NewerThanVerified => f.write_str("newer than the last verified copies"),
            Self::LastDrilled => f.write_str("last that passed a drill"),
            Self::NotAskedFor => f.write_str("not asked for"),
            Self::NotVerified => f.write_str("its content was never verified, so it does not count"),
            Self::Damaged => f.write_str("found DAMAGED, so it does not count"),
            Self::FromTheFuture => f.write_str("DATED IN THE FUTURE, so it does not count"),
            Self::OutOfOrder => f.write_str("DATED BEFORE SNAPSHOTS THAT WERE THERE BEFORE IT, so it does not count"),
            Self::LessComplete => f.write_str("LESS COMPLETE than the copy before it, so it does not count"),
            Self::Collapsed { rows, usual_rows, bytes, usual_bytes } => write!(
                f,
                "COLLAPSED: {rows} rows and files in {bytes} bytes, where {usual_rows} in {usual_bytes} were usual, so it does not count"
            ),
            Self::Superseded => f.write_str("newer copies stand for it"),
        }
    }
}

/// What becomes of one snapshot, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decision {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its record in the log.
    pub record: RecordName,
    /// Of which source.
    pub source: String,
    /// Of which tier.
    pub tier: Option<String>,
    /// The instant whose state it holds.
    pub taken_at: DateTime<Utc>,
    /// Whether it counts as a copy.
    pub copy: bool,
    /// Whether it stays.
    pub keep: bool,
    /// Why, and what else there is to say of it.
    pub reasons: Vec<Reason>,
}

/// What a prune would do: to be shown, and then [applied](crate::Repository::prune).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrunePlan {
    /// The policy, for people.
    pub policy: String,
    /// When it was made.
    pub now: DateTime<Utc>,
    /// Every snapshot, in the order of the log.
    pub decisions: Vec<Decision>,
    /// Records that do not count, because the key that signed them was taken out of use: they go.
    #[serde(default)]
    pub rejected: Vec<RecordName>,
}

impl PrunePlan {
    /// What is to go.
    pub fn dropped(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|d| !d.keep)
    }

    /// What stays.
    pub fn kept(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|d| d.keep)
    }

    /// What somebody has to look at: it does not count as a copy though it should.
    pub fn alarming(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|d| d.reasons.iter().any(Reason::is_alarming))
    }
}

/// A snapshot with what is said of it so far.
struct Judged<'a> {
    snapshot: &'a Snapshot,
    assurance: Assurance,
    is_copy: bool,
    reasons: Vec<Reason>,
}

impl Judged<'_> {
    fn is_kept(&self) -> bool {
        self.reasons.iter().any(Reason::keeps)
    }

    fn decide(mut self) -> Decision {
        let keep = self.is_kept();
        if !keep {
            self.reasons.push(Reason::Superseded);
        }
        let m = &self.snapshot.manifest;
        Decision {
            snapshot: self.snapshot.id.clone(),
            record: self.snapshot.record,
            source: m.source.name.clone(),
            tier: m.tier.clone(),
            taken_at: m.taken_at,
            copy: self.is_copy,
            keep,
            reasons: self.reasons,
        }
    }
}

/// Whether something could not be read that could be read before.
fn has_new_problems(manifest: &Manifest, before: &Manifest) -> bool {
    let known: HashMap<&str, ()> = before.problems.iter().map(|p| (p.subject.as_str(), ())).collect();
    manifest.problem_count > before.problem_count
        || manifest.problems.iter().any(|p| !known.contains_key(p.subject.as_str()))
}

/// Whether it is implausibly small beside those before it.
fn collapsed(manifest: &Manifest, before: &[&Manifest]) -> Option<Reason> {
    let last = &before[before.len().saturating_sub(PREDECESSORS)..];
    let usual_rows = median(last.iter().map(|m| m.totals.rows).collect())?;
    let usual_bytes = median(last.iter().map(|m| m.totals.bytes).collect())?;
    let (rows, bytes) = (manifest.totals.rows, manifest.totals.bytes);
    let is_far_below = |now: u64, usual: u64| now.saturating_mul(COLLAPSE) < usual;
    (is_far_below(rows, usual_rows) || is_far_below(bytes, usual_bytes)).then_some(Reason::Collapsed {
        rows,
        usual_rows,
        bytes,
        usual_bytes,
    })
}

fn median(mut numbers: Vec<u64>) -> Option<u64> {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::Problem;
    use crate::repository::Evidence;

    fn day(n: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600, 0).unwrap() + TimeDelta::days(n)
    }

    fn add(catalog: &mut Catalog, taken_at: DateTime<Utc>, verified: bool) -> SnapshotId {
        let sequence = catalog.snapshots.iter().map(|s| s.record.sequence).max().unwrap_or(0) + 1;
        let snapshot = Snapshot::sample(sequence, "shop", None, taken_at);
        let id = snapshot.id.clone();
        catalog.snapshots.push(snapshot);
        if verified {
            say(catalog, "verify-content", &id);
        }
        id
    }

    fn say(catalog: &mut Catalog, what: &str, id: &SnapshotId) {
        let at = day(0);
        catalog.evidence.push(Evidence::new(what, vec![id.clone()], true, at, 0, serde_json::Value::Null));
    }

    fn nights(numbers: std::ops::Range<i64>) -> Catalog {
        let mut catalog = Catalog::default();
        for n in numbers {
            add(&mut catalog, day(n) + TimeDelta::hours(3), true);
        }
        catalog
    }

    fn policy(text: &str) -> Retention {
        text.parse().unwrap()
    }

    fn kept(plan: &PrunePlan) -> Vec<u64> {
        plan.kept().map(|d| d.record.sequence).collect()
    }

    fn reasons(plan: &PrunePlan, sequence: u64) -> String {
        let decision = plan.decisions.iter().find(|d| d.record.sequence == sequence).unwrap();
        decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn the_newest_of_each_period_stays_and_says_why() {
        // 2026-01-01 to 2026-03-01, a copy every night.
        let catalog = nights(0..60);
        let plan = policy("daily=3,weekly=2,monthly=3").plan(&catalog, day(60));
        // Friday 27 February is night 58; Sunday 1 March, night 60.
        assert_eq!(kept(&plan), [31, 53, 58, 59, 60]);
        assert_eq!(reasons(&plan, 31), "newest of 2026-01");
        assert_eq!(reasons(&plan, 53), "newest of 2026-W08");
        assert_eq!(
            reasons(&plan, 60),
            "one of the last verified copies; newest of 2026-03-01; newest of 2026-W09; newest of 2026-03"
        );
        assert_eq!(reasons(&plan, 1), "newer copies stand for it");
        let plan = policy("within=48h").plan(&catalog, day(60));
        assert_eq!(kept(&plan), [58, 59, 60], "the last three verified copies, whatever is said");
    }

    #[test]
    fn the_calendar_is_that_of_the_time_zone() {
        let mut catalog = Catalog::default();
        // 23:30 UTC is the next day in Lagos.
        for hours in [-100, 23, 34] {
            add(&mut catalog, day(0) + TimeDelta::hours(hours) + TimeDelta::minutes(30), true);
        }
        let only_days = Retention { verified: 1, ..policy("daily=2") };
        assert_eq!(kept(&only_days.plan(&catalog, day(5))), [2, 3]);
        let in_lagos = only_days.in_time_zone("Africa/Lagos").unwrap();
        assert_eq!(kept(&in_lagos.plan(&catalog, day(5))), [1, 3]);
        assert!(Retention::new().in_time_zone("Lagos").is_err());
    }

    #[test]
    fn an_hour_that_comes_twice_is_two() {
        let mut catalog = Catalog::default();
        // Clocks in Berlin went back at 01:00 UTC on 25 October 2026.
        let before = DateTime::parse_from_rfc3339("2026-10-25T00:30:00Z").unwrap().to_utc();
        for at in [before, before + TimeDelta::hours(1)] {
            add(&mut catalog, at, true);
        }
        let hours = Retention { verified: 1, ..policy("hourly=5") }.in_time_zone("Europe/Berlin").unwrap();
        assert_eq!(kept(&hours.plan(&catalog, day(400))), [1, 2]);
    }

    #[test]
    fn without_verified_copies_nothing_is_dropped() {
        let mut catalog = Catalog::default();
        for n in 0..50 {
            add(&mut catalog, day(n), false);
        }
        assert_eq!(policy("daily=3").plan(&catalog, day(60)).dropped().count(), 0);
        // Nor do stored bytes that nobody has read.
        let ids: Vec<_> = catalog.snapshots.iter().map(|s| s.id.clone()).collect();
        for id in ids {
            say(&mut catalog, "verify-stored", &id);
        }
        let plan = policy("daily=3").plan(&catalog, day(60));
        assert_eq!(plan.dropped().count(), 0);
        assert!(reasons(&plan, 1).contains("never verified"), "{}", reasons(&plan, 1));
    }

    #[test]
    fn seven_bad_nights_push_nothing_out() {
        let mut catalog = nights(0..10);
        let before = policy("daily=5").plan(&catalog, day(10));
        assert_eq!(kept(&before), [6, 7, 8, 9, 10]);
        for n in 10..17 {
            add(&mut catalog, day(n), false);
        }
        let after = policy("daily=5").plan(&catalog, day(17));
        assert_eq!(kept(&after), (6..=17).collect::<Vec<_>>());
    }

    #[test]
    fn what_collapsed_is_held_and_told_until_it_is_accepted() {
        let mut catalog = nights(0..8);
        for n in 8..12 {
            add(&mut catalog, day(n), true);
            catalog.snapshots.last_mut().unwrap().manifest.totals.rows = 400;
        }
        let plan = policy("daily=2").plan(&catalog, day(12));
        assert_eq!(kept(&plan), [6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(plan.alarming().count(), 4);
        assert!(reasons(&plan, 9).starts_with("COLLAPSED: 400 rows"), "{}", reasons(&plan, 9));
        let first = catalog.snapshots[8].id.clone();
        let plan = policy("daily=2").accept(first).plan(&catalog, day(12));
        assert_eq!((kept(&plan), plan.alarming().count()), (vec![10, 11, 12], 0));
    }

    #[test]
    fn what_is_less_complete_does_not_count_unless_it_always_was_so() {
        let mut catalog = nights(0..4);
        for n in [1, 2, 3] {
            let manifest = &mut catalog.snapshots[n].manifest;
            manifest.problem_count = 1;
            manifest.problems.push(Problem::new("photo.jpg", "permission denied"));
        }
        let plan = Retention { verified: 1, ..policy("daily=1") }.plan(&catalog, day(4));
        assert_eq!(kept(&plan), [1, 2, 3, 4]);
        assert_eq!(plan.alarming().count(), 3);
        catalog.snapshots.remove(0);
        let plan = Retention { verified: 1, ..policy("daily=1") }.plan(&catalog, day(4));
        assert_eq!(kept(&plan), [4]);
    }

    #[test]
    fn what_is_damaged_does_not_stand_for_its_day() {
        let mut catalog = nights(0..1);
        let hours = |n| day(1) + TimeDelta::hours(n);
        for n in [1, 2, 3] {
            add(&mut catalog, hours(n), true);
        }
        let last = catalog.snapshots[3].id.clone();
        let details = serde_json::json!({ "findings": [{ "snapshots": [last] }] });
        catalog.evidence.push(Evidence::new("verify-stored", vec![], false, day(2), 0, details));
        let plan = Retention { verified: 1, ..policy("daily=2") }.plan(&catalog, day(2));
        assert_eq!(kept(&plan), [1, 3, 4]);
        assert!(reasons(&plan, 4).contains("DAMAGED"));
    }

    #[test]
    fn the_last_drilled_stays_and_others_series_too() {
        let mut catalog = nights(0..30);
        let old = catalog.snapshots[4].id.clone();
        say(&mut catalog, "drill", &old);
        catalog.snapshots.push(Snapshot::sample(99, "other", None, day(0)));
        catalog.snapshots.push(Snapshot::sample(100, "shop", Some("orders"), day(0)));
        let other = catalog.snapshots[30].id.clone();
        say(&mut catalog, "verify-content", &other);
        let plan = policy("daily=2").plan(&catalog, day(30));
        assert_eq!(kept(&plan), [5, 28, 29, 30, 99, 100]);
        let plan = policy("daily=2").only("other", None).plan(&catalog, day(30));
        assert_eq!(plan.dropped().count(), 0);
        assert_eq!(reasons(&plan, 1), "not asked for");
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        for text in [
            "",
            "daily",
            "daily=x",
            "daily=1,daily=2",
            "within=48",
            "within=2д",
            "within=-1h",
            "within=0h",
            "within=",
            "hourly=0",
            "fortnightly=2",
            "verified=5",
        ] {
            assert!(text.parse::<Retention>().is_err(), "{text}");
        }
        let text = policy("within=2d,hourly=1,daily=2,weekly=3,monthly=4,yearly=5,verified=6").to_string();
        assert_eq!(text, "within=48h,hourly=1,daily=2,weekly=3,monthly=4,yearly=5,verified=6 (UTC)");
    }

    /// The plan's drops, done.
    fn apply(catalog: &mut Catalog, plan: &PrunePlan) {
        let gone: HashSet<u64> = plan.dropped().map(|d| d.record.sequence).collect();
        catalog.snapshots.retain(|s| !gone.contains(&s.record.sequence));
    }

    #[test]
    fn twelve_months_promises_what_it_says() {
        let policy = Retention::twelve_months().in_time_zone("Africa/Lagos").unwrap();
        let mut catalog = Catalog::default();
        for n in 0..800 {
            add(&mut catalog, day(n) + TimeDelta::minutes(n * 7 % 300), true);
            let now = day(n) + TimeDelta::hours(12);
            let plan = policy.plan(&catalog, now);
            apply(&mut catalog, &plan);
            for back in 0..365.min(n) {
                let wanted = now - TimeDelta::days(back);
                let newest = catalog.snapshots.iter().map(|s| s.manifest.taken_at).filter(|t| *t <= wanted).max();
                let lost = wanted - newest.unwrap_or_else(|| panic!("day {n}: nothing from before {wanted}"));
                let most = match back {
                    0..=30 => 1,
                    31..=56 => 7,
                    _ => 31,
                };
                // Nights are not all at the same hour.
                assert!(lost <= TimeDelta::days(most) + TimeDelta::hours(17), "day {n}, {back} days back: {lost}");
            }
        }
        assert!(catalog.snapshots.len() < 60, "{}", catalog.snapshots.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Two years of nights that fail, are verified late or never, come twice, or collapse.
        #[test]
        fn every_period_that_had_a_copy_keeps_one(
            nights in prop::collection::vec((0u8..3, 0u8..10, 0i64..24), 730),
            zone in prop::sample::select(vec!["UTC", "Africa/Lagos", "America/New_York", "Pacific/Kiritimati"]),
        ) {
            let policy = Retention::twelve_months().in_time_zone(zone).unwrap();
            let mut catalog = Catalog::default();
            let mut had: HashMap<(Period, String), ()> = HashMap::new();
            for (n, (times, luck, hour)) in nights.into_iter().enumerate() {
                // At first there is nothing to compare with.
                let (times, luck) = if n < 5 { (1, 0) } else { (times, luck) };
                for k in 0..times {
                    let id = add(&mut catalog, day(n as i64) + TimeDelta::hours(hour) + TimeDelta::minutes(i64::from(k)), luck < 7);
                    if luck == 8 {
                        catalog.snapshots.last_mut().unwrap().manifest.totals.rows = 3;
                        say(&mut catalog, "verify-content", &id);
                    }
                }
                if luck == 9 {
                    // Somebody catches up.
                    let ids: Vec<_> = catalog.snapshots.iter().rev().take(4).map(|s| s.id.clone()).collect();
                    ids.iter().for_each(|id| say(&mut catalog, "verify-content", id));
                }
                let now = day(n as i64 + 1);
                let plan = policy.plan(&catalog, now);
                let name = |d: &Decision, p: Period| (p, p.name(d.taken_at.with_timezone(&policy.zone)));
                let periods = [Period::Day, Period::Week, Period::Month];
                let assurance = catalog.assurance();
                let good: HashSet<u64> = catalog.snapshots.iter()
                    .filter(|s| s.manifest.totals.rows == 1000 && assurance.get(&s.id).is_some_and(Assurance::is_content_verified))
                    .map(|s| s.record.sequence)
                    .collect();
                for d in plan.decisions.iter().filter(|d| good.contains(&d.record.sequence)) {
                    had.extend(periods.map(|p| (name(d, p), ())));
                }
                let kept = plan.kept().filter(|d| good.contains(&d.record.sequence));
                let kept: HashSet<_> = kept.flat_map(|d| periods.map(|p| name(d, p))).collect();
                for (period, days) in [(Period::Day, 31), (Period::Week, 63), (Period::Month, 365)] {
                    for back in 0..days {
                        let at = (now - TimeDelta::days(back)).with_timezone(&policy.zone);
                        let key = (period, period.name(at));
                        prop_assert!(!had.contains_key(&key) || kept.contains(&key), "day {n}: {key:?}");
                    }
                }
                apply(&mut catalog, &plan);
            }
        }

        /// Whatever does not count as a copy pushes none out.
        #[test]
        fn bad_snapshots_push_no_copy_out(
            good in prop::collection::vec((0i64..400, 0i64..24), 1..40),
            bad in prop::collection::vec((-900i64..900, 0u8..4), 1..20),
            policy in prop::sample::select(vec!["daily=3", "within=48h,daily=7,monthly=2", "hourly=5,yearly=2", "weekly=4"]),
        ) {
            let mut good: Vec<_> = good.into_iter().map(|(d, h)| day(d) + TimeDelta::hours(h)).collect();
            good.sort_unstable();
            let mut catalog = Catalog::default();
            for at in good {
                add(&mut catalog, at, true);
            }
            let now = day(401);
            let policy: Retention = policy.parse().unwrap();
            let before: HashSet<u64> = policy.plan(&catalog, now).kept().map(|d| d.record.sequence).collect();
            for (offset, kind) in bad {
                match kind {
                    0 => { add(&mut catalog, day(401 - offset.abs()), false); }
                    1 => { add(&mut catalog, now + TimeDelta::days(1 + offset.abs()), true); }
                    2 => {
                        add(&mut catalog, day(400), true);
                        catalog.snapshots.last_mut().unwrap().manifest.totals.bytes = 10;
                    }
                    _ => {
                        add(&mut catalog, day(400), true);
                        catalog.snapshots.last_mut().unwrap().manifest.problem_count = 1;
                    }
                }
            }
            let after: HashSet<u64> = policy.plan(&catalog, now).kept().map(|d| d.record.sequence).collect();
            prop_assert!(before.is_subset(&after), "{:?}", before.difference(&after));
        }
    }
}
