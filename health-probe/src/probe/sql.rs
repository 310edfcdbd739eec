//! What the shop's own tables say: payments, orders, webhooks, mail; and the business in figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use chrono::{NaiveDate, TimeDelta, Utc};

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Condition, Drought, FailureRate, Limits, Policy, Verdict};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};
use crate::sql::{Cell, Database, ROWS};

/// One declared query that gives one row: each column is a reading, its unit by [`SqlProbe::with_unit`], its limits by the policy.
///
/// Runs read-only, with a limit that the server knows. No row, or a NULL, is a reading that is missing, thus unknown: a query
/// that saw nothing has not seen that all is well. Where "nothing" is good, the query says so: `coalesce(max(…), 0)`.
#[derive(Clone)]
pub struct SqlProbe {
    spec: ProbeSpec,
    database: Database,
    sql: String,
    units: Vec<(String, Unit)>,
    limit: Duration,
}

impl fmt::Debug for SqlProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlProbe").field("id", &self.spec.id).field("sql", &self.sql).finish_non_exhaustive()
    }
}

impl SqlProbe {
    /// That query on that database.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no URL of a database that this was built with.
    pub fn new(id: impl Into<String>, url: &str, sql: impl Into<String>, policy: Policy) -> Result<Self> {
        let (database, spec) = (Database::new(url)?, ProbeSpec::new(id, policy));
        Ok(Self { spec, database, sql: sql.into(), units: Vec::new(), limit: Duration::from_secs(10) })
    }

    /// Payments that fail (H5): the query gives `attempts`, `failed` and `failed_in_a_row` of some recent time, each order's
    /// attempts counted once, pending ones, abandoned ones and those of the gateway's test mode left out.
    ///
    /// Critical where so many fail by chance, at 2 %, with less than 1 %, or three in a row. No attempt at all is not judged
    /// here: that is [`SqlProbe::orders`].
    ///
    /// # Errors
    /// As [`SqlProbe::new`].
    pub fn payments(id: impl Into<String>, url: &str, sql: impl Into<String>) -> Result<Self> {
        let rate = FailureRate::of_payments("attempts", "failed_in_a_row");
        let policy = Policy::new()
            .with("failed", Unit::Count, Condition::FailureRate(rate))
            .meaning("look at the gateway's status, the API keys, the webhooks");
        let probe = Self::new(id, url, sql, policy)?;
        Ok(probe.with_title("payments").counting(["attempts", "failed", "failed_in_a_row"]))
    }

    /// Orders that come (H6): the query gives `orders` of some recent time and `expected`, how many come in the same hours of the
    /// week as a rule.
    ///
    /// A warning where so few come by chance with less than 1 %, critical with less than 0.1 %: at night, where few are
    /// expected, silence is no alarm.
    ///
    /// # Errors
    /// As [`SqlProbe::new`].
    pub fn orders(id: impl Into<String>, url: &str, sql: impl Into<String>) -> Result<Self> {
        let drought = Drought { expected: "expected".into(), warning: 0.01, critical: 0.001 };
        let policy = Policy::new()
            .with("orders", Unit::Count, Condition::Drought(drought))
            .meaning("place an order by hand and see where it ends");
        let probe = Self::new(id, url, sql, policy)?;
        Ok(probe.with_title("orders").counting(["orders", "expected"]))
    }

    /// Orders that wait (H6): the query gives `oldest_s`, for how long the oldest paid order was not processed, in seconds (0
    /// where there is none), and `waiting`, how many there are.
    ///
    /// # Errors
    /// As [`SqlProbe::new`].
    pub fn stuck_orders(id: impl Into<String>, url: &str, sql: impl Into<String>) -> Result<Self> {
        let policy = Policy::new()
            .below("oldest_s", Unit::Seconds, Limits::new(4.0 * 3600.0, 24.0 * 3600.0))
            .meaning("a paid order is not processed");
        let probe = Self::new(id, url, sql, policy)?;
        Ok(probe.with_title("orders to process").with_unit("oldest_s", Unit::Seconds).counting(["waiting"]))
    }

    /// Webhooks of a gateway (H16): the query gives `payments`, how many of some recent time should have been confirmed by a
    /// webhook, `unconfirmed`, how many were not, and `invalid`, how many came with a wrong signature.
    ///
    /// # Errors
    /// As [`SqlProbe::new`].
    pub fn webhooks(id: impl Into<String>, url: &str, sql: impl Into<String>) -> Result<Self> {
        let rate = FailureRate { attempts: "payments".into(), tolerated: 0.02, significance: 0.01, streak: None };
        let policy = Policy::new()
            .with("unconfirmed", Unit::Count, Condition::FailureRate(rate))
            .meaning("see the gateway's log of webhooks")
            .below("invalid", Unit::Count, Limits::new(1.0, 10.0))
            .meaning("a wrong secret, or somebody who tries");
        let probe = Self::new(id, url, sql, policy)?;
        Ok(probe.with_title("webhooks").counting(["payments", "unconfirmed", "invalid"]))
    }

    /// Mail that leaves the shop (H7): the query gives `sent`, how many were tried in some recent time, `failed`, how many of them
    /// failed or bounced, and
    /// `oldest_queued_s`, for how long the oldest one waits, in seconds (0 where there is none).
    ///
    /// # Errors
    /// As [`SqlProbe::new`].
    pub fn mail_log(id: impl Into<String>, url: &str, sql: impl Into<String>) -> Result<Self> {
        let rate = FailureRate { attempts: "sent".into(), tolerated: 0.05, significance: 0.01, streak: None };
        let policy = Policy::new().below("oldest_queued_s", Unit::Seconds, Limits::new(900.0, 3600.0)).with(
            "failed",
            Unit::Count,
            Condition::FailureRate(rate),
        );
        let probe = Self::new(id, url, sql, policy)?;
        Ok(probe.with_title("mail log").with_unit("oldest_queued_s", Unit::Seconds).counting(["sent", "failed"]))
    }

    /// The same with a unit for a column; without one, a number has none.
    #[must_use]
    pub fn with_unit(mut self, column: impl Into<String>, unit: Unit) -> Self {
        self.units.push((column.into(), unit));
        self
    }

    /// The same with another limit; ten seconds without.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same with another title.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.spec.title = title.into();
        self
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn counting<const N: usize>(mut self, columns: [&str; N]) -> Self {
        self.units.extend(columns.map(|c| (c.to_owned(), Unit::Count)));
        self
    }
}

#[async_trait]
impl Probe for SqlProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        let began = Instant::now();
        let rows = self.database.rows(&self.sql, self.limit).await.map_err(|e| e.into_error(&self.spec.title))?;
        seen.took = began.elapsed();
        if rows.len() > 1 {
            let e = format!("{}: the query gives {} rows, and one is asked for", self.spec.title, rows.len());
            return Err(Error::new(ErrorKind::Malformed, e).with_next_step("sum them up in the query"));
        }
        for (name, cell) in rows.into_iter().flatten() {
            let unit = self.units.iter().find(|(column, _)| *column == name).map(|(_, unit)| unit.clone());
            match cell {
                Cell::Number(n) => {
                    seen.number(name, n, unit.unwrap_or(Unit::None));
                }
                Cell::Text(text) => {
                    seen.text(name, text);
                }
                Cell::Flag(flag) => {
                    seen.flag(name, flag);
                }
                // Missing, and no 0.
                Cell::Null => {}
            }
        }
        Ok(seen)
    }
}

/// A figure of the business (H14), by a declared query.
///
/// The query gives one row a day, `day` (as text, `2026-01-15`) and `value`, or rows of `name` and `value` for a ranking such as the
/// most popular products.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// What it is: orders a day, conversion, average order value.
    pub name: String,
    /// The query.
    pub sql: String,
    /// Its unit, for people.
    #[serde(default)]
    pub unit: String,
    /// What is aimed at; below it is below target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// What a day is worth that the query gives no row of.
    #[serde(default)]
    pub missing: MissingDay,
}

/// What a day is worth that a query gives no row of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MissingDay {
    /// Nothing is known of it: as of a share or a mean.
    #[default]
    Unknown,
    /// Zero: as of orders that are counted by day.
    Zero,
}

/// What became of a figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MetricReport {
    /// What it is.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// What is aimed at.
    pub target: Option<f64>,
    /// The values, by day or by name.
    pub values: Vec<(String, f64)>,
    /// The mean of the seven whole days before today; `None` of a ranking, or where fewer than four of them have a value.
    pub recent: Option<f64>,
    /// The change a day by Theil and Sen over all whole days, in percent of their median; `None` of fewer than eight days.
    pub trend: Option<f64>,
    /// Held against the target: a warning below it; unknown where there is a target and no mean.
    pub verdict: Verdict,
}

impl Metric {
    /// Asks the database.
    ///
    /// # Errors
    /// Where it cannot be asked, or gives other columns.
    pub async fn read(&self, url: &str, limit: Duration) -> Result<MetricReport> {
        let rows = Database::new(url)?.rows(&self.sql, limit).await.map_err(|e| e.into_error(&self.name))?;
        let wrong = |why: &str| {
            Error::new(ErrorKind::Malformed, format!("{}: {why}", self.name))
                .with_next_step("let the query give day and value, or name and value")
        };
        if rows.len() > ROWS {
            return Err(wrong("the query gives more than 200 rows"));
        }
        let (mut values, mut by_day) = (Vec::new(), true);
        for row in rows {
            let label = row.iter().find_map(|(column, cell)| match (column.as_str(), cell) {
                ("day", Cell::Text(text)) => Some((text.chars().take(10).collect::<String>(), true)),
                ("name", Cell::Text(text)) => Some((text.clone(), false)),
                _ => None,
            });
            let (label, is_day) = label.ok_or_else(|| wrong("a row has neither day nor name as text"))?;
            by_day &= is_day;
            match row.iter().find(|(column, _)| column == "value") {
                Some((_, Cell::Number(n))) if n.is_finite() => values.push((label, *n)),
                // A day without a value is left out, not 0.
                Some((_, Cell::Null)) => {}
                _ => return Err(wrong("a row has no number as value")),
            }
        }
        if !by_day {
            values.sort_by(|a: &(String, f64), b| b.1.total_cmp(&a.1));
        } else {
            values.sort_by(|a: &(String, f64), b| a.0.cmp(&b.0));
        }
        Ok(self.judge(values, by_day, Utc::now().date_naive()))
    }

    fn judge(&self, mut values: Vec<(String, f64)>, by_day: bool, today: NaiveDate) -> MetricReport {
        // Today is not over: it would always be a bad day.
        let mut days: BTreeMap<NaiveDate, f64> = values
            .iter()
            .filter_map(|(day, value)| Some((day.parse::<NaiveDate>().ok()?, *value)))
            .filter(|(day, _)| *day < today)
            .collect();
        if self.missing == MissingDay::Zero && by_day {
            let week = today - TimeDelta::days(7);
            let first = days.keys().next().copied().map_or(week, |first| first.min(week));
            for day in first.iter_days().take_while(|day| *day < today).take(ROWS) {
                days.entry(day).or_insert(0.0);
            }
            values = days
                .iter()
                .map(|(day, value)| (day.to_string(), *value))
                .chain(values.into_iter().filter(|(day, _)| day.parse::<NaiveDate>().is_ok_and(|day| day >= today)))
                .collect();
        }
        // Where days are missing, what was before says nothing of now.
        let last: Vec<f64> = days.range(today - TimeDelta::days(7)..).map(|(_, value)| *value).collect();
        let recent = (by_day && last.len() >= 4).then(|| last.iter().sum::<f64>() / last.len() as f64);
        let points: Vec<(f64, f64)> =
            days.iter().map(|(day, value)| ((*day - NaiveDate::default()).num_days() as f64, *value)).collect();
        let numbers: Vec<f64> = days.values().copied().collect();
        let middle = crate::statistics::median(&numbers).filter(|m| *m != 0.0);
        let slope = (by_day && numbers.len() >= 8).then(|| crate::statistics::theil_sen(&points)).flatten();
        let verdict = match (self.target, recent) {
            (Some(target), Some(recent)) if recent < target => Verdict::Warning,
            (Some(_), None) if by_day => Verdict::Unknown,
            _ if values.is_empty() => Verdict::Unknown,
            _ => Verdict::Healthy,
        };
        MetricReport {
            name: self.name.clone(),
            unit: self.unit.clone(),
            target: self.target,
            values,
            recent,
            trend: slope.zip(middle).map(|(slope, middle)| slope / middle * 100.0),
            verdict,
        }
    }
}
