//! Service level objectives: a budget of bad time, and how fast it burns.
//!
//! The formulas and the default alerts are those of the SRE Workbook (Beyer et al., O'Reilly 2018), chapter 5, "Alerting on
//! SLOs", and here with one rule more: at least three bad looks, for of minute looks a single bad one in an hour already burns
//! at 16.7 times the rate that 99.9 % allows.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::judge::Verdict;
use crate::ledger::{Counts, Maintenance, Timeline, View};

/// What is promised: a share of good time, over a window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Promise")]
pub struct Objective {
    target: f64,
    days: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promise {
    target: f64,
    days: u32,
}

impl TryFrom<Promise> for Objective {
    type Error = Error;

    fn try_from(p: Promise) -> Result<Self> {
        Self::new(p.target, p.days)
    }
}

impl Objective {
    /// A share of good time, between 0 and 1, over so many days.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the share is not above 0 and below 1, or there is no day: 99.9 % is 0.999, and 100 % leaves
    /// no budget.
    pub fn new(target: f64, days: u32) -> Result<Self> {
        if target > 0.0 && target < 1.0 && (1..=400).contains(&days) {
            return Ok(Self { target, days });
        }
        Err(Error::new(ErrorKind::Config, format!("an objective of {} % over {days} days", target * 100.0))
            .with_next_step("name a share above 0 and below 100 %, such as 99.9, over 1 to 400 days"))
    }

    /// The share of good time, between 0 and 1.
    pub fn target(&self) -> f64 {
        self.target
    }

    /// Over so many days.
    pub fn days(&self) -> u32 {
        self.days
    }
}

impl Default for Objective {
    /// The guides' 99.9 %, over 30 days.
    fn default() -> Self {
        Self { target: 0.999, days: 30 }
    }
}

/// What is left of the bad time that an objective allows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Budget {
    /// What was counted in the window.
    pub counts: Counts,
    /// The share of time seen that was good; `None` where nothing was seen.
    pub uptime: Option<f64>,
    /// The share of expected time in which something was seen; `None` where nothing was expected.
    pub coverage: Option<f64>,
    /// Seconds that may be bad in a whole window.
    pub allowed_s: f64,
    /// Seconds that were.
    pub used_s: f64,
    /// What is left, as a share of what is allowed; below 0 where the objective is missed.
    pub remaining: f64,
}

/// One pair of windows, in both of which the budget has to burn so fast.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BurnRule {
    /// The long window, in minutes: it is worth it.
    pub long_minutes: u32,
    /// The short window, in minutes: it is still going on. Where it is shorter than three looks, three looks.
    pub short_minutes: u32,
    /// How many times as fast as would just use up the budget.
    pub rate: f64,
    /// How bad that is.
    pub severity: Verdict,
}

/// The rules of the workbook: pages at 14.4 and 6 times, tickets at 3 and 1 times.
pub const BURN_RULES: [BurnRule; 4] = [
    BurnRule { long_minutes: 60, short_minutes: 5, rate: 14.4, severity: Verdict::Critical },
    BurnRule { long_minutes: 360, short_minutes: 30, rate: 6.0, severity: Verdict::Critical },
    BurnRule { long_minutes: 1440, short_minutes: 120, rate: 3.0, severity: Verdict::Warning },
    BurnRule { long_minutes: 4320, short_minutes: 360, rate: 1.0, severity: Verdict::Warning },
];

/// Fewer bad looks than this burn nothing.
pub const LEAST_BAD: u64 = 3;

/// How fast the budget burns by one rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Burn {
    /// The rule.
    pub rule: BurnRule,
    /// The rate in the long window; `None` where nothing was seen in it.
    pub long: Option<f64>,
    /// The rate in the short one.
    pub short: Option<f64>,
    /// Whether it fires; `None` where that cannot be known.
    pub fires: Option<bool>,
}

impl Objective {
    /// What is left of the budget at `now`, by the slots of the window before it.
    pub fn budget(&self, slots: &Timeline, maintenance: &[Maintenance], view: View, now: DateTime<Utc>) -> Budget {
        let counts = slots.count(now - TimeDelta::days(self.days.into()), now, maintenance, view);
        let allowed_s = (1.0 - self.target) * f64::from(self.days) * 86_400.0;
        let used_s = counts.bad_s as f64;
        let remaining = if allowed_s > 0.0 { 1.0 - used_s / allowed_s } else { if used_s > 0.0 { -1.0 } else { 1.0 } };
        Budget { counts, uptime: counts.uptime(), coverage: counts.coverage(), allowed_s, used_s, remaining }
    }

    /// How fast the budget burns: (bad / seen) / (1 − target). `None` where nothing was seen, or the target is 100 %.
    pub fn burn_rate(&self, counts: &Counts) -> Option<f64> {
        let bad = 1.0 - counts.uptime()?;
        (self.target < 1.0).then(|| bad / (1.0 - self.target))
    }

    /// Each rule at `now`.
    pub fn burns(
        &self,
        slots: &Timeline,
        maintenance: &[Maintenance],
        rules: &[BurnRule],
        now: DateTime<Utc>,
    ) -> Vec<Burn> {
        let every = slots.slots.last().map_or(Duration::ZERO, |(_, length, _)| *length);
        let least = TimeDelta::from_std(every * 3).unwrap_or(TimeDelta::zero());
        let burn = |rule: &BurnRule| {
            let window = |minutes: u32| {
                let span = TimeDelta::minutes(minutes.into()).max(least);
                slots.count(now - span, now, maintenance, View::WithoutMaintenance)
            };
            let (long, short) = (window(rule.long_minutes), window(rule.short_minutes));
            let (long_rate, short_rate) = (self.burn_rate(&long), self.burn_rate(&short));
            let fires = match (long_rate, short_rate) {
                // Rounding must not hide a rate that is just reached.
                (Some(l), Some(s)) => {
                    let reached = |rate: f64| rate >= rule.rate * (1.0 - 1e-9);
                    Some(reached(l) && reached(s) && long.bad >= LEAST_BAD)
                }
                _ => None,
            };
            Burn { rule: *rule, long: long_rate, short: short_rate, fires }
        };
        rules.iter().map(burn).collect()
    }
}

/// What the rules alone say: critical or a warning where one fires, healthy where none does, unknown where none of them has seen
/// anything.
pub fn judge_burns(burns: &[Burn]) -> (Verdict, String) {
    let worst = burns.iter().filter(|b| b.fires == Some(true)).max_by_key(|b| b.rule.severity.rank());
    if let Some(burn) = worst {
        let rate = burn.long.map_or("?".into(), |r| format!("{r:.1}"));
        let hours = f64::from(burn.rule.long_minutes) / 60.0;
        let text = format!("the budget burns {rate} times too fast over {hours} h (limit {})", burn.rule.rate);
        return (burn.rule.severity, text);
    }
    match burns.iter().any(|b| b.fires.is_some()) {
        true => (Verdict::Healthy, "the budget does not burn too fast".into()),
        false => (Verdict::Unknown, "nothing was seen".into()),
    }
}

/// A verdict on a service level: critical or a warning where a rule fires or the budget is spent; unknown where less than half
/// of what was expected was seen.
pub fn judge_service_level(budget: &Budget, burns: &[Burn]) -> (Verdict, String) {
    let (verdict, reason) = judge_burns(burns);
    if matches!(verdict, Verdict::Warning | Verdict::Critical) {
        return (verdict, reason);
    }
    match (budget.uptime, budget.coverage) {
        (None, _) | (_, None) => (Verdict::Unknown, "nothing was seen".into()),
        (_, Some(coverage)) if coverage < 0.5 => {
            (Verdict::Unknown, format!("only {:.1} % of the looks that were due are there", coverage * 100.0))
        }
        (Some(uptime), Some(coverage)) => {
            let text = format!(
                "uptime {:.3} %, {:.1} % of the budget left, coverage {:.1} %",
                uptime * 100.0,
                budget.remaining * 100.0,
                coverage * 100.0
            );
            (if budget.remaining < 0.0 { Verdict::Warning } else { Verdict::Healthy }, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Slot;

    fn minutes(states: impl IntoIterator<Item = Slot>) -> (Timeline, DateTime<Utc>) {
        let begin = DateTime::UNIX_EPOCH;
        let slots: Vec<_> = states
            .into_iter()
            .enumerate()
            .map(|(i, s)| (begin + TimeDelta::minutes(i as i64), Duration::from_secs(60), s))
            .collect();
        let now = begin + TimeDelta::minutes(slots.len() as i64);
        (Timeline { slots }, now)
    }

    fn with_bad(total: usize, bad: usize) -> (Timeline, DateTime<Utc>) {
        minutes((0..total).map(|i| if i >= total - bad { Slot::Bad } else { Slot::Good }))
    }

    /// Table 5-4 of the workbook: at 99.9 % over 30 days, the budget is 43.2 minutes, and a burn rate of 1, 2, 10 or 1,000 is an
    /// error rate of 0.1, 0.2, 1 or 100 %, which uses it up in 30 days, 15 days, 3 days or 43 minutes.
    #[test]
    fn the_workbooks_examples() {
        let objective = Objective::default();
        for (bad, rate) in [(1, 1.0), (2, 2.0), (10, 10.0), (1000, 1000.0)] {
            let (slots, now) = with_bad(1000, bad);
            let counts = slots.count(now - TimeDelta::minutes(1000), now, &[], View::Strict);
            assert!((objective.burn_rate(&counts).unwrap() - rate).abs() < 1e-9);
        }
        let (slots, now) = with_bad(43_200, 43);
        let budget = objective.budget(&slots, &[], View::Strict, now);
        assert!((budget.allowed_s - 43.2 * 60.0).abs() < 1e-6, "43 m 12 s: {}", budget.allowed_s);
        assert!((budget.remaining - 0.2 / 43.2).abs() < 1e-9, "{budget:?}");
        let (slots, now) = with_bad(43_200, 44);
        assert!(objective.budget(&slots, &[], View::Strict, now).remaining < 0.0, "signed");
        // 2 % of the budget in one hour, 5 % in six, 10 % in three days: table 5-6.
        for (rule, share) in [(0, 0.02), (1, 0.05), (3, 0.10)] {
            let rule = BURN_RULES[rule];
            let spent = rule.rate * f64::from(rule.long_minutes) / f64::from(objective.days * 1440);
            assert!((spent - share).abs() < 1e-9, "{rule:?}");
        }
    }

    #[test]
    fn two_windows_and_three_bad_looks_are_needed() {
        let objective = Objective::default();
        let fires = |states: Vec<Slot>| {
            let (slots, now) = minutes(states);
            objective.burns(&slots, &[], &BURN_RULES, now)[0].fires
        };
        let hour = |bad_at: &[usize]| {
            (0..60).map(|i| if bad_at.contains(&i) { Slot::Bad } else { Slot::Good }).collect::<Vec<_>>()
        };
        assert_eq!(fires(hour(&[59])), Some(false), "one of sixty burns at 16.7, and is one");
        assert_eq!(fires(hour(&[57, 58, 59])), Some(true));
        assert_eq!(fires(hour(&[10, 11, 12])), Some(false), "it is over");
        assert_eq!(fires(vec![Slot::Missing; 60]), None, "nothing seen is not well");
        let (slots, now) = minutes(vec![Slot::Missing; 60]);
        let budget = objective.budget(&slots, &[], View::Strict, now);
        let burns = objective.burns(&slots, &[], &BURN_RULES, now);
        assert_eq!(judge_service_level(&budget, &burns).0, Verdict::Unknown);
    }

    #[test]
    fn maintenance_is_left_out_or_counted_as_customers_see_it() {
        let (slots, now) = with_bad(1000, 30);
        let window =
            Maintenance { probe: None, from: now - TimeDelta::minutes(30), to: now, reason: "a new server".into() };
        let objective = Objective::default();
        let without = objective.budget(&slots, std::slice::from_ref(&window), View::WithoutMaintenance, now);
        assert_eq!((without.counts.bad, without.counts.maintenance, without.uptime), (0, 30, Some(1.0)));
        let strict = objective.budget(&slots, &[window], View::Strict, now);
        assert_eq!((strict.counts.bad, strict.uptime), (30, Some(0.97)));
    }
}
