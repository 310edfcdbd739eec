//! Which phase of growth a shop is in, what the phase calls for, and when the next one comes.
//!
//! The phases and what they call for are those of the guide: up to 1,000 orders a month, up to 5,000, beyond.

use std::collections::BTreeMap;

use chrono::{Datelike, NaiveDate};
use serde::{Deserialize, Serialize};

/// A phase of growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Up to 1,000 orders a month.
    One,
    /// Up to 5,000.
    Two,
    /// More.
    Three,
}

/// What a phase calls for: its name, and what it is.
const NEEDS: [(Phase, &str, &str); 12] = [
    (Phase::One, "single-server", "one server, with backups elsewhere"),
    (Phase::One, "database", "PostgreSQL or MySQL"),
    (Phase::Two, "load-balancer", "a load balancer"),
    (Phase::Two, "app-servers", "two or three app servers"),
    (Phase::Two, "replication", "the database replicated"),
    (Phase::Two, "cdn", "a CDN for static files"),
    (Phase::Two, "cache", "Redis for sessions and caches"),
    (Phase::Three, "cluster", "a cluster that replaces servers by itself, such as Kubernetes"),
    (Phase::Three, "database-cluster", "a database that survives the loss of a machine by itself"),
    (Phase::Three, "search", "a search engine of its own, such as Elasticsearch"),
    (Phase::Three, "queue", "a queue for work that customers need not wait for"),
    (Phase::Three, "services", "what grows at its own pace as a service of its own"),
];

/// What to do about growth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScalingAdvice {
    /// The phase; by the median of the last three months.
    pub phase: Phase,
    /// Orders a month: that median.
    pub orders: f64,
    /// Growth a month, as a factor; `None` from fewer than six months, or where a month had no order.
    pub growth: Option<f64>,
    /// Months until the next phase, where it grows and that is within five years.
    pub months_to_next: Option<f64>,
    /// What this phase calls for and the ones before it, and of the next one where it comes within half a year.
    pub needs: Vec<Need>,
}

/// Something that a phase calls for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Need {
    /// Its name.
    pub name: String,
    /// What it is.
    pub what: String,
    /// Of which phase.
    pub phase: Phase,
    /// Whether it is there; `None` where nobody said.
    pub in_place: Option<bool>,
}

impl Phase {
    /// Of so many orders a month.
    pub fn of(orders: f64) -> Self {
        match orders {
            n if n > 5_000.0 => Self::Three,
            n if n > 1_000.0 => Self::Two,
            _ => Self::One,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "phase 1 (up to 1,000 orders a month)",
            Self::Two => "phase 2 (1,000 to 5,000 orders a month)",
            Self::Three => "phase 3 (more than 5,000 orders a month)",
        }
    }

    fn ends_at(self) -> Option<f64> {
        match self {
            Self::One => Some(1_000.0),
            Self::Two => Some(5_000.0),
            Self::Three => None,
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::One => Some(Self::Two),
            Self::Two => Some(Self::Three),
            Self::Three => None,
        }
    }
}

/// Advice by the orders of whole months, oldest first, and what is known to be in place. `None` without a month.
///
/// Growth is the median of the slopes between all pairs of months (Theil and Sen), on logarithms: a single Christmas does not
/// move it.
pub fn scaling(months: &[u64], in_place: &BTreeMap<String, bool>) -> Option<ScalingAdvice> {
    let recent: Vec<f64> = months.iter().rev().take(3).map(|n| *n as f64).collect();
    let orders = median(recent)?;
    let phase = Phase::of(orders);
    let growth = growth(months);
    let months_to_next = phase.ends_at().and_then(|end| {
        let rate = growth.filter(|g| *g > 1.0 && orders > 0.0)?;
        Some((end / orders).ln().max(0.0) / rate.ln()).filter(|m| *m <= 60.0)
    });
    let soon = months_to_next.is_some_and(|m| m <= 6.0).then(|| phase.next()).flatten();
    let needs = NEEDS.iter().filter(|(of, ..)| *of <= phase || soon == Some(*of));
    let needs = needs.map(|(of, name, what)| Need {
        name: (*name).to_owned(),
        what: (*what).to_owned(),
        phase: *of,
        in_place: in_place.get(*name).copied(),
    });
    Some(ScalingAdvice { phase, orders, growth, months_to_next, needs: needs.collect() })
}

/// Orders of whole months, oldest first, from orders of days: the month that a day began in the middle of, and the present one, are no whole
/// ones. A day that is not named had no order.
pub fn whole_months(days: &[(NaiveDate, u64)], today: NaiveDate) -> Vec<u64> {
    let month = |day: NaiveDate| day.year() * 12 + day.month0() as i32;
    let Some(first) = days.iter().map(|(day, _)| *day).min() else { return Vec::new() };
    let from = month(first) + i32::from(first.day() > 1);
    let mut months = vec![0u64; usize::try_from(month(today) - from).unwrap_or(0)];
    for (day, orders) in days {
        let slot = usize::try_from(month(*day) - from).ok().and_then(|at| months.get_mut(at));
        if let Some(slot) = slot {
            *slot = slot.saturating_add(*orders);
        }
    }
    months
}

fn growth(months: &[u64]) -> Option<f64> {
    let months = &months[months.len().saturating_sub(24)..];
    if months.len() < 6 || months.contains(&0) {
        return None;
    }
    let logs: Vec<f64> = months.iter().map(|n| (*n as f64).ln()).collect();
    let pairs = (0..logs.len()).flat_map(|a| (a + 1..logs.len()).map(move |b| (a, b)));
    median(pairs.map(|(a, b)| (logs[b] - logs[a]) / (b - a) as f64).collect()).map(f64::exp)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_that_are_not_over_do_not_count() {
        let day = |m, d| NaiveDate::from_ymd_opt(2026, m, d).unwrap();
        let days = [(day(6, 20), 9), (day(7, 1), 5), (day(7, 31), 2), (day(9, 3), 4), (day(10, 2), 8)];
        assert_eq!(whole_months(&days, day(10, 5)), [7, 0, 4]);
        assert_eq!(whole_months(&days[1..], day(10, 5)), [7, 0, 4], "it began with the month");
        assert_eq!(whole_months(&[], day(10, 5)), Vec::<u64>::new());
        assert_eq!(whole_months(&days[4..], day(10, 5)), Vec::<u64>::new());
    }

    #[test]
    fn phases_needs_and_when_the_next_one_comes() {
        let nothing = BTreeMap::new();
        assert_eq!(scaling(&[], &nothing), None);
        let small = scaling(&[300, 310, 305], &nothing).unwrap();
        assert_eq!((small.phase, small.growth, small.months_to_next, small.needs.len()), (Phase::One, None, None, 2));
        // 5 % a month from 640: the median of the last three is 776, and 1,000 are 5.2 months off.
        let months = [640, 672, 706, 741, 778, 817];
        let there = BTreeMap::from([("cdn".to_owned(), true)]);
        let growing = scaling(&months, &there).unwrap();
        assert!((growing.growth.unwrap() - 1.05).abs() < 0.001, "{growing:?}");
        assert!((growing.months_to_next.unwrap() - 5.1).abs() < 0.2, "{growing:?}");
        assert!(growing.needs.iter().any(|n| n.name == "cdn" && n.in_place == Some(true)));
        assert!(growing.needs.iter().any(|n| n.name == "load-balancer" && n.in_place.is_none()));
        // One Christmas is no growth.
        let christmas = scaling(&[900, 905, 898, 4000, 902, 900, 899], &nothing).unwrap();
        assert_eq!((christmas.phase, christmas.months_to_next), (Phase::One, None));
        assert_eq!(scaling(&[6000; 4], &nothing).unwrap().phase, Phase::Three);
        assert_eq!(scaling(&[0, 0, 0, 0, 0, 0], &nothing).unwrap().growth, None);
    }
}
