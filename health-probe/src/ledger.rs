//! What became of every look that was due: good, bad, or missing. The ground that uptime stands on.

#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLedger;

use crate::error::Result;
use crate::incident::IncidentRecord;
use crate::judge::Verdict;

/// Where the outcome of every look is kept.
///
/// Time is cut into slots of a probe's interval, counted from 1970. A probe is expected in every slot from its first record on,
/// whether anybody looks or not: a monitor that was down leaves missing slots, not a hole that counts as uptime.
#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Writes outcomes down, all or none. Of two in one slot, the worse stays.
    async fn record(&self, records: &[Record]) -> Result<()>;

    /// Says that a probe is no longer expected from `at` on.
    async fn retire(&self, probe: &str, at: DateTime<Utc>) -> Result<()>;

    /// Announces, or notes afterwards, a time of maintenance.
    async fn add_maintenance(&self, window: &Maintenance) -> Result<()>;

    /// The windows of maintenance that touch `from` to `to`.
    async fn maintenance(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<Maintenance>>;

    /// The probes that were ever expected, by name.
    async fn probes(&self) -> Result<Vec<String>>;

    /// The slots of a probe from `from` to `to`, both rounded down to slots. Slots before its first record are not in it.
    async fn timeline(&self, probe: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Timeline>;

    /// Response times of a probe by the hour.
    async fn response_times(&self, probe: &str, from: DateTime<Utc>, to: DateTime<Utc>)
    -> Result<Vec<HourOfResponses>>;

    /// Keeps an incident, in place of an earlier state of the same.
    async fn put_incident(&self, incident: &IncidentRecord) -> Result<()>;

    /// The incidents that were open at `from` or later, newest first.
    async fn incidents(&self, from: DateTime<Utc>) -> Result<Vec<IncidentRecord>>;

    /// Keeps something small that has to outlive the process, by name.
    async fn save(&self, key: &str, value: &str) -> Result<()>;

    /// What was kept.
    async fn load(&self, key: &str) -> Result<Option<String>>;

    /// Forgets what lies before `before`.
    async fn forget(&self, before: DateTime<Utc>) -> Result<()>;
}

/// The outcome of one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The probe.
    pub probe: String,
    /// When the look was due.
    pub at: DateTime<Utc>,
    /// How often the probe looks; whole seconds, at least one.
    pub every: Duration,
    /// How it came out.
    pub outcome: Slot,
    /// Its response time, where it has one.
    pub response_time: Option<Duration>,
}

/// What is known of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    /// Nobody looked, or nothing could be seen.
    Missing,
    /// The shop could be used: healthy, or worth a look.
    Good,
    /// It could not: critical.
    Bad,
}

impl From<Verdict> for Slot {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Healthy | Verdict::Warning => Self::Good,
            Verdict::Critical => Self::Bad,
            Verdict::Unknown => Self::Missing,
        }
    }
}

/// A time in which the shop is worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// The probe that it is for; all where it is none.
    pub probe: Option<String>,
    /// From then on.
    pub from: DateTime<Utc>,
    /// Until then, exclusive.
    pub to: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

/// Response times of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HourOfResponses {
    /// The hour's beginning.
    pub hour: DateTime<Utc>,
    /// How many there were.
    pub count: u64,
    /// Their mean, in seconds.
    pub mean: f64,
    /// The longest, in seconds.
    pub longest: f64,
}

/// The slots of one probe in a stretch of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timeline {
    /// Begin, length and state of each slot, in order. The length changes where the interval of the probe was changed.
    pub slots: Vec<(DateTime<Utc>, Duration, Slot)>,
}

/// Which slots count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Slots in a window of maintenance are left out.
    WithoutMaintenance,
    /// All of them count, as customers see it.
    Strict,
}

/// A count of slots, in slots and in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Slots that were good.
    pub good: u64,
    /// Slots that were bad.
    pub bad: u64,
    /// Slots in which nothing was seen.
    pub missing: u64,
    /// Slots that were left out for maintenance.
    pub maintenance: u64,
    /// Seconds of the good ones.
    pub good_s: u64,
    /// Seconds of the bad ones.
    pub bad_s: u64,
    /// Seconds of the missing ones.
    pub missing_s: u64,
}

impl Counts {
    /// Slots that were expected, those of maintenance not among them.
    pub fn expected(&self) -> u64 {
        self.good + self.bad + self.missing
    }

    /// The share of time seen that was good; `None` where nothing was seen: no data is not 100 %.
    pub fn uptime(&self) -> Option<f64> {
        let seen = self.good_s + self.bad_s;
        (seen > 0).then(|| self.good_s as f64 / seen as f64)
    }

    /// The share of expected time in which something was seen; `None` where nothing was expected.
    pub fn coverage(&self) -> Option<f64> {
        let expected = self.good_s + self.bad_s + self.missing_s;
        (expected > 0).then(|| (self.good_s + self.bad_s) as f64 / expected as f64)
    }
}

impl Timeline {
    /// Counts the slots that begin in `from` (inclusive) to `to` (exclusive). `maintenance` has to be sorted by nothing in
    /// particular; windows for other probes are to be left out by the caller ([`for_probe`]).
    pub fn count(&self, from: DateTime<Utc>, to: DateTime<Utc>, maintenance: &[Maintenance], view: View) -> Counts {
        let first = self.slots.partition_point(|(at, ..)| *at < from);
        let last = self.slots.partition_point(|(at, ..)| *at < to);
        let mut counts = Counts::default();
        for (at, length, slot) in &self.slots[first..last.max(first)] {
            // A slot that maintenance touches is a slot of maintenance.
            let end = *at + TimeDelta::from_std(*length).unwrap_or(TimeDelta::zero());
            if view == View::WithoutMaintenance && maintenance.iter().any(|m| *at < m.to && end > m.from) {
                counts.maintenance += 1;
                continue;
            }
            let (n, s) = match slot {
                Slot::Good => (&mut counts.good, &mut counts.good_s),
                Slot::Bad => (&mut counts.bad, &mut counts.bad_s),
                Slot::Missing => (&mut counts.missing, &mut counts.missing_s),
            };
            *n += 1;
            *s += length.as_secs();
        }
        counts
    }
}

/// The windows that are for this probe, or for all.
pub fn for_probe(windows: &[Maintenance], probe: &str) -> Vec<Maintenance> {
    windows.iter().filter(|w| w.probe.as_deref().is_none_or(|p| p == probe)).cloned().collect()
}
