//! How fast a database grows, and when the disk will be full: from the looks of a [`History`].
//!
//! What else is written to the disk is not seen: the server's logs, other databases, the shop's own files.
//!
//! The rate is the median of the slopes between all pairs of looks (Theil 1950, Sen 1968): one night of clean-up or one import
//! does not bend it. One look a day counts, the last. Its range is Sen's, at 95 %: the slopes of rank (N ∓ C)/2, where N is the number of pairs and
//! C = 1.96 · √(n(n−1)(2n+5)/18) for n looks.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::activity::Unseen;
use crate::look::{History, Look};
use crate::schema::TableName;

/// Fewer looks, or over less time, say nothing of a rate.
const LOOKS: usize = 4;
const SPAN: TimeDelta = TimeDelta::days(3);
/// So many times as long as it was looked at it can be foreseen, and no further than this.
const FORESEEN: i32 = 4;
const HORIZON: TimeDelta = TimeDelta::days(5 * 365);

/// How to look at growth.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GrowthOptions {
    /// How far back; 60 days unless told.
    pub window: TimeDelta,
    /// How many bytes are free where the database lies; without it nothing is forecast.
    pub free_bytes: Option<u64>,
    /// How many tables are told, the fastest first; 20 unless told.
    pub tables: usize,
}

impl Default for GrowthOptions {
    fn default() -> Self {
        Self { window: TimeDelta::days(60), free_bytes: None, tables: 20 }
    }
}

impl GrowthOptions {
    /// The same with so many bytes free where the database lies.
    #[must_use]
    pub fn with_free_bytes(mut self, bytes: u64) -> Self {
        self.free_bytes = Some(bytes);
        self
    }

    /// The same, looking back so far.
    #[must_use]
    pub fn with_window(mut self, window: TimeDelta) -> Self {
        self.window = window;
        self
    }
}

/// How fast it grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GrowthReport {
    /// Which database.
    pub location: String,
    /// When it was looked at last.
    pub taken_at: DateTime<Utc>,
    /// How many looks are within the window, and from when the first of them is.
    pub looks: usize,
    /// See `looks`.
    pub since: DateTime<Utc>,
    /// The whole database.
    pub database: Growth,
    /// Its tables with their indexes: the fastest first; those without a rate by their size.
    pub tables: Vec<(TableName, Growth)>,
    /// When the disk will be full.
    pub forecast: Forecast,
}

/// The size of something, and how fast it grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Growth {
    /// Bytes now.
    pub bytes: u64,
    /// How fast.
    #[serde(flatten)]
    pub rate: Rate,
}

/// How fast something grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rate", rename_all = "kebab-case")]
pub enum Rate {
    /// In bytes a day, with the range in which it is 95 times of a hundred.
    Known {
        /// The median.
        bytes_per_day: f64,
        /// The lower end.
        least: f64,
        /// The upper end.
        most: f64,
    },
    /// It is not known, for this reason.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// When the disk will be full, if all goes on as it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "forecast", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Forecast {
    /// At about this time.
    Full {
        /// By the median rate, where that is as near as can be foreseen.
        at: Option<DateTime<Utc>>,
        /// By the upper end of the rate.
        earliest: DateTime<Utc>,
    },
    /// Not before this time, which is as far as can be foreseen: four times as long as it was looked at, five years at most.
    NotBefore {
        /// The time.
        at: DateTime<Utc>,
    },
    /// It is not known, for this reason.
    Unknown {
        /// Why.
        reason: String,
    },
}

impl GrowthReport {
    /// What the looks say; nothing where there is none that saw a size.
    ///
    /// # Errors
    /// The reason where the last look saw none.
    pub fn of(history: &History, options: &GrowthOptions) -> Result<Self, crate::Error> {
        let nothing = |why: String| {
            crate::Error::new(crate::ErrorKind::Config, why)
                .with_next_step("look first: `maintain growth --database URL`")
        };
        let last = history.looks().last().ok_or_else(|| nothing("the history is empty".into()))?;
        let sizes = last.sizes.as_ref().map_err(|unseen| {
            let why = match unseen {
                Unseen::Unknown { reason, .. } | Unseen::NotApplicable(reason) => reason.clone(),
            };
            nothing(format!("the last look at {} saw no sizes: {why}", last.location))
        })?;
        let within: Vec<&Look> = history
            .looks()
            .iter()
            .filter(|look| last.taken_at - look.taken_at <= options.window && look.sizes.is_ok())
            .collect();
        let daily = daily(&within);
        let points = |of: &dyn Fn(&Look) -> Option<u64>| -> Vec<(f64, f64)> {
            let days = |look: &Look| (look.taken_at - last.taken_at).as_seconds_f64() / 86_400.0;
            daily.iter().filter_map(|look| Some((days(look), of(look)? as f64))).collect()
        };
        let database = Growth {
            bytes: sizes.database,
            rate: rate(&points(&|look| look.sizes.as_ref().ok().map(|sizes| sizes.database))),
        };
        let mut tables: Vec<(TableName, Growth)> = sizes
            .tables
            .iter()
            .map(|size| {
                let of = |look: &Look| look.sizes.as_ref().ok()?.of(&size.table).map(|s| s.total());
                (size.table.clone(), Growth { bytes: size.total(), rate: rate(&points(&of)) })
            })
            .collect();
        tables.sort_by(|(a_name, a), (b_name, b)| {
            let key = |g: &Growth| match g.rate {
                Rate::Known { bytes_per_day, .. } => bytes_per_day,
                Rate::Unknown { .. } => 0.0,
            };
            key(b).total_cmp(&key(a)).then(b.bytes.cmp(&a.bytes)).then(a_name.cmp(b_name))
        });
        tables.truncate(options.tables);
        Ok(Self {
            location: last.location.clone(),
            taken_at: last.taken_at,
            looks: within.len(),
            since: within.first().map_or(last.taken_at, |look| look.taken_at),
            forecast: forecast(
                &database.rate,
                options.free_bytes,
                last.taken_at,
                within.first().map_or(TimeDelta::zero(), |first| last.taken_at - first.taken_at),
            ),
            database,
            tables,
        })
    }
}

/// The last look of each day: days count alike, however often somebody looked.
fn daily<'a>(looks: &[&'a Look]) -> Vec<&'a Look> {
    let day = |look: &Look| look.taken_at.date_naive();
    let is_last = |at: usize| looks.get(at + 1).is_none_or(|next| day(next) != day(looks[at]));
    (0..looks.len()).filter(|at| is_last(*at)).map(|at| looks[at]).collect()
}

/// The rate of points of days and bytes.
fn rate(points: &[(f64, f64)]) -> Rate {
    let span = points.last().zip(points.first()).map_or(0.0, |(last, first)| last.0 - first.0);
    if points.len() < LOOKS || span < SPAN.as_seconds_f64() / 86_400.0 {
        let reason =
            format!("{} looks over {span:.1} days; {LOOKS} over {} days are needed", points.len(), SPAN.num_days());
        return Rate::Unknown { reason };
    }
    let mut slopes: Vec<f64> = Vec::new();
    for (at, a) in points.iter().enumerate() {
        slopes.extend(points[at + 1..].iter().filter(|b| b.0 > a.0).map(|b| (b.1 - a.1) / (b.0 - a.0)));
    }
    slopes.sort_by(f64::total_cmp);
    let n = points.len() as f64;
    let c = 1.96 * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let pairs = slopes.len() as f64;
    let ranked = |rank: f64| slopes[(rank.clamp(1.0, pairs) as usize) - 1];
    let middle = slopes.len() / 2;
    let median = if slopes.len() % 2 == 1 { slopes[middle] } else { (slopes[middle - 1] + slopes[middle]) / 2.0 };
    Rate::Known {
        bytes_per_day: median,
        least: ranked(((pairs - c) / 2.0).floor()),
        most: ranked(((pairs + c) / 2.0).ceil() + 1.0),
    }
}

fn forecast(rate: &Rate, free: Option<u64>, now: DateTime<Utc>, seen: TimeDelta) -> Forecast {
    let (median, most) = match rate {
        Rate::Known { bytes_per_day, most, .. } => (*bytes_per_day, *most),
        Rate::Unknown { reason } => return Forecast::Unknown { reason: reason.clone() },
    };
    let Some(free) = free else {
        return Forecast::Unknown { reason: "how much is free where the database lies is not known".into() };
    };
    let horizon = (seen * FORESEEN).min(HORIZON);
    let after = |per_day: f64| -> Option<DateTime<Utc>> {
        let seconds = free as f64 / per_day * 86_400.0;
        let is_near = per_day > 0.0 && seconds <= horizon.as_seconds_f64();
        is_near.then(|| now + TimeDelta::seconds(seconds as i64))
    };
    match (after(median), after(most)) {
        (at, Some(earliest)) => Forecast::Full { at, earliest },
        (Some(at), None) => Forecast::Full { at: Some(at), earliest: at },
        (None, None) => Forecast::NotBefore { at: now + horizon },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::look::sample::blind;
    use crate::look::sizes::{Size, Sizes};

    const MIB: u64 = 1 << 20;

    fn history(days: i64, bytes: impl Fn(i64) -> u64) -> History {
        let mut history = History::default();
        for day in 0..days {
            let orders =
                Size { table: TableName::new("", "orders"), rows: None, data: bytes(day), indexes: 0, free: None };
            let still = Size { table: TableName::new("", "settings"), data: 500 * MIB, ..orders.clone() };
            let sizes = Sizes { database: bytes(day) + 500 * MIB, tables: vec![still, orders] };
            let look = Look { sizes: Ok(sizes), ..blind(DateTime::UNIX_EPOCH + TimeDelta::days(day)) };
            history.push(look).unwrap();
        }
        history
    }

    fn of(history: &History, free: Option<u64>) -> GrowthReport {
        GrowthReport::of(history, &GrowthOptions { free_bytes: free, ..GrowthOptions::default() }).unwrap()
    }

    #[test]
    fn steady_growth_is_what_it_is_and_the_disk_is_full_in_time() {
        let report = of(&history(30, |day| 100 * MIB + day as u64 * MIB), Some(10 * MIB));
        let Rate::Known { bytes_per_day, least, most } = report.database.rate else { panic!("{report:?}") };
        assert_eq!([bytes_per_day, least, most], [MIB as f64; 3]);
        let Forecast::Full { at, .. } = report.forecast else { panic!("{report:?}") };
        assert_eq!(at.unwrap() - report.taken_at, TimeDelta::days(10));
        // The fastest first, whatever their sizes.
        assert_eq!(report.tables[0].0.name, "orders");
        assert_eq!((report.looks, report.since), (30, DateTime::UNIX_EPOCH));
    }

    #[test]
    fn one_night_does_not_bend_it() {
        // An import of 2 GiB on day 12, gone on day 13.
        let report =
            of(&history(30, |day| 100 * MIB + day as u64 * MIB + if day == 12 { 2048 * MIB } else { 0 }), None);
        let Rate::Known { bytes_per_day, .. } = report.database.rate else { panic!("{report:?}") };
        assert!((bytes_per_day / MIB as f64 - 1.0).abs() < 0.05, "{bytes_per_day}");
        assert!(matches!(report.forecast, Forecast::Unknown { .. }));
    }

    #[test]
    fn a_day_counts_once_however_often_somebody_looked() {
        let mut history = history(30, |day| 100 * MIB + day as u64 * MIB);
        let last = history.looks().last().unwrap().clone();
        for minute in 1..50 {
            // An import on the last evening.
            let mut look = last.clone();
            look.taken_at += TimeDelta::minutes(minute);
            look.sizes.as_mut().unwrap().database += 2048 * MIB;
            history.push(look).unwrap();
        }
        let Rate::Known { bytes_per_day, .. } = of(&history, None).database.rate else { panic!() };
        assert!((bytes_per_day / MIB as f64 - 1.0).abs() < 0.2, "{bytes_per_day}");
    }

    #[test]
    fn what_was_seen_too_shortly_has_no_rate_and_what_shrinks_is_never_full() {
        let young = of(&history(2, |_| MIB), Some(MIB));
        assert!(
            matches!(young.database.rate, Rate::Unknown { .. }) && matches!(young.forecast, Forecast::Unknown { .. })
        );
        let shrinks = of(&history(30, |day| (100 - day as u64) * MIB), Some(MIB));
        // As far as 29 days of looks tell.
        assert_eq!(shrinks.forecast, Forecast::NotBefore { at: shrinks.taken_at + TimeDelta::days(4 * 29) });
        assert!(GrowthReport::of(&History::default(), &GrowthOptions::default()).is_err());
    }

    /// Sen's procedure by hand, on five points: slopes 1, 1½, 2 (six times), 2½, 3; C = 1.96 · √(5·4·15/18) = 8.0, so the ranks of
    /// the range are 1 and 10.
    #[test]
    fn the_range_is_sens() {
        let points = [(0.0, 0.0), (1.0, 2.0), (2.0, 3.0), (3.0, 6.0), (4.0, 8.0)];
        let Rate::Known { bytes_per_day, least, most } = rate(&points) else { panic!() };
        assert_eq!([bytes_per_day, least, most], [2.0, 1.0, 3.0]);
    }

    proptest! {
        #[test]
        fn the_median_lies_within_its_range(sizes in proptest::collection::vec(0u32..1_000_000, 4..40)) {
            let points: Vec<(f64, f64)> = sizes.iter().enumerate().map(|(at, s)| (at as f64, f64::from(*s))).collect();
            if let Rate::Known { bytes_per_day, least, most } = rate(&points) {
                prop_assert!(least <= bytes_per_day && bytes_per_day <= most);
            }
        }
    }
}
