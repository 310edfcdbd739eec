//! The one place where a reading becomes a verdict. Pure: an observation and a policy, nothing else.

use serde::{Deserialize, Serialize};

use crate::observation::{Observation, Reading, Unit, Value};
use crate::statistics::{binomial_at_least, poisson_at_most};

/// How something is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Healthy,
    /// Not seen, or not in a form that can be judged. Never good.
    Unknown,
    /// Worth a look.
    Warning,
    /// Somebody has to act.
    Critical,
}

impl Verdict {
    /// How bad: healthy, unknown, warning, critical, from 0 to 3. Something known to be wrong says more than a blind spot.
    pub fn rank(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }

    /// The worse of the two.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    /// Whether it is [`Verdict::Healthy`].
    pub fn is_healthy(self) -> bool {
        self == Self::Healthy
    }

    /// A word for people, in capitals where somebody has to look.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "UNKNOWN",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

/// From where on a number is bad. Each of the two may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// From here on it is worth a look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<f64>,
    /// From here on somebody has to act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<f64>,
}

impl Limits {
    /// Both limits.
    pub const fn new(warning: f64, critical: f64) -> Self {
        Self { warning: Some(warning), critical: Some(critical) }
    }

    /// A warning only.
    pub const fn warning(at: f64) -> Self {
        Self { warning: Some(at), critical: None }
    }

    /// Critical at once.
    pub const fn critical(at: f64) -> Self {
        Self { warning: None, critical: Some(at) }
    }
}

/// What is asked of a reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Condition {
    /// A number that is bad from the limits on, upwards.
    Below(Limits),
    /// A number that is bad from the limits on, downwards.
    Above(Limits),
    /// A flag that has to be so; else this verdict.
    Is(bool, Verdict),
    /// A word that has to be one of these; else this verdict.
    OneOf(Vec<String>, Verdict),
    /// A count of failures, held against a count of attempts by the exact binomial test.
    FailureRate(FailureRate),
    /// A count of events, held against the expected count by the exact Poisson test.
    Drought(Drought),
}

/// Failures among attempts, where a bare percentage of few would cry wolf: critical where so many failures, or more, would
/// come about with a probability below `significance` if the true rate were `tolerated`, or where the last `streak` attempts all
/// failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureRate {
    /// The reading that counts the attempts.
    pub attempts: String,
    /// The share of failures that is tolerated, between 0 and 1.
    pub tolerated: f64,
    /// Below which probability it is no chance any more.
    pub significance: f64,
    /// The reading that counts how many of the last attempts failed in a row, and how many of them are too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streak: Option<(String, u32)>,
}

impl FailureRate {
    /// The guide's 98 % of payments that succeed: failures of `attempts`, at 2 % and 1 % significance, or three in a row.
    pub fn of_payments(attempts: impl Into<String>, streak: impl Into<String>) -> Self {
        Self { attempts: attempts.into(), tolerated: 0.02, significance: 0.01, streak: Some((streak.into(), 3)) }
    }
}

/// Too few events: a warning where so few, or fewer, would come about with a probability below `warning` if as many were to be
/// expected as the reading `expected` says; critical below `critical`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drought {
    /// The reading that says how many are to be expected in the same time.
    pub expected: String,
    /// Below which probability it is worth a look.
    pub warning: f64,
    /// Below which probability somebody has to act.
    pub critical: f64,
}

/// One question to one reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The reading.
    pub reading: String,
    /// The unit that it has to have; a reading in another one is unknown.
    #[serde(default)]
    pub unit: Unit,
    /// What is asked.
    pub condition: Condition,
    /// What it means where it does not hold, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub meaning: String,
}

/// The rules that an observation is held against.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// All of them count; the worst decides.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// No rules yet. A policy without rules judges everything unknown.
    pub fn new() -> Self {
        Self::default()
    }

    /// A number that is bad from the limits on, upwards.
    #[must_use]
    pub fn below(self, reading: &str, unit: Unit, limits: Limits) -> Self {
        self.with(reading, unit, Condition::Below(limits))
    }

    /// A number that is bad from the limits on, downwards.
    #[must_use]
    pub fn above(self, reading: &str, unit: Unit, limits: Limits) -> Self {
        self.with(reading, unit, Condition::Above(limits))
    }

    /// A flag that has to be so; else `otherwise`.
    #[must_use]
    pub fn is(self, reading: &str, wanted: bool, otherwise: Verdict) -> Self {
        self.with(reading, Unit::None, Condition::Is(wanted, otherwise))
    }

    /// A rule of any condition; it takes the place of what was asked of the same reading in the same way.
    #[must_use]
    pub fn with(mut self, reading: &str, unit: Unit, condition: Condition) -> Self {
        let same = |r: &Rule| {
            r.reading == reading && std::mem::discriminant(&r.condition) == std::mem::discriminant(&condition)
        };
        let rule = Rule { reading: reading.to_owned(), unit, condition: condition.clone(), meaning: String::new() };
        match self.rules.iter().position(same) {
            Some(at) => self.rules[at] = rule,
            None => self.rules.push(rule),
        }
        self
    }

    /// What it means where the last rule does not hold.
    #[must_use]
    pub fn meaning(mut self, text: &str) -> Self {
        if let Some(rule) = self.rules.last_mut() {
            rule.meaning = text.to_owned();
        }
        self
    }

    /// The limits of a number's rule, to set them anew.
    pub fn limits_mut(&mut self, reading: &str) -> Option<&mut Limits> {
        self.rules.iter_mut().filter(|r| r.reading == reading).find_map(|r| match &mut r.condition {
            Condition::Below(limits) | Condition::Above(limits) => Some(limits),
            _ => None,
        })
    }
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The reading.
    pub reading: String,
    /// Its own verdict.
    pub verdict: Verdict,
    /// Why, with the figure and the limit.
    pub reason: String,
}

/// The verdict on an observation, and on each of its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Judgement {
    /// The worst of the findings; unknown where there are none.
    pub verdict: Verdict,
    /// One for each rule that applies, worst first.
    pub findings: Vec<Finding>,
}

impl Judgement {
    /// A judgement on something that could not be observed.
    pub fn unknown(reason: impl Into<String>) -> Self {
        let finding = Finding { reading: "observation".into(), verdict: Verdict::Unknown, reason: reason.into() };
        Self { verdict: Verdict::Unknown, findings: vec![finding] }
    }

    /// The same without secrets, and with reasons of at most 500 characters.
    pub(crate) fn shown(mut self) -> Self {
        for finding in &mut self.findings {
            finding.reason = crate::redact::short(&finding.reason);
        }
        self
    }

    /// Whether nothing that was asked about was there: no payment in an hour, no swap, no image. That is unknown, and no reason
    /// to call anybody.
    pub fn is_idle(&self) -> bool {
        self.verdict == Verdict::Unknown && self.findings.iter().all(|f| f.reading == IDLE)
    }

    /// A judgement of one finding.
    pub(crate) fn of(reading: &str, verdict: Verdict, reason: String) -> Self {
        Self { verdict, findings: vec![Finding { reading: reading.to_owned(), verdict, reason }] }
    }

    /// The reasons of what is not healthy, in one line; of a healthy one, the first.
    pub fn reason(&self) -> String {
        let bad: Vec<&str> =
            self.findings.iter().filter(|f| !f.verdict.is_healthy()).map(|f| f.reason.as_str()).collect();
        match (bad.is_empty(), self.findings.first()) {
            (false, _) => bad.join("; "),
            (true, Some(first)) => first.reason.clone(),
            (true, None) => "nothing was asked".into(),
        }
    }

    /// The finding on that reading, the worst where there are several.
    pub fn finding(&self, reading: &str) -> Option<&Finding> {
        self.findings.iter().find(|f| f.reading == reading)
    }
}

/// The reading of a finding that says that nothing applied.
const IDLE: &str = "nothing applies";

/// Holds an observation against a policy.
///
/// A reading that is missing, has another unit, is of another type or is no finite number is unknown; so are an empty policy and
/// an observation none of whose rules applies. None of these is ever healthy.
pub fn judge(seen: &Observation, policy: &Policy) -> Judgement {
    let mut findings: Vec<Finding> = policy.rules.iter().filter_map(|rule| hold(seen, rule)).collect();
    findings.sort_by_key(|f| std::cmp::Reverse(f.verdict.rank()));
    match findings.first() {
        Some(worst) => Judgement { verdict: worst.verdict, findings },
        None if policy.rules.is_empty() => Judgement::unknown("there is no rule to hold it against"),
        None => Judgement::of(IDLE, Verdict::Unknown, "nothing that was asked about is there".into()),
    }
}

/// `None` where the reading says that there is no such thing.
fn hold(seen: &Observation, rule: &Rule) -> Option<Finding> {
    let finding = |verdict, reason: String| {
        let reason = match rule.meaning.as_str() {
            meaning if !meaning.is_empty() && verdict != Verdict::Healthy => format!("{reason}: {meaning}"),
            _ => reason,
        };
        Some(Finding { reading: rule.reading.clone(), verdict, reason })
    };
    let Some(reading) = seen.reading(&rule.reading) else {
        return finding(Verdict::Unknown, format!("{} was not seen", rule.reading));
    };
    if let Value::NotApplicable(_) = reading.value {
        return None;
    }
    match &rule.condition {
        Condition::Is(wanted, otherwise) => match reading.value {
            Value::Flag(is) if is == *wanted => finding(Verdict::Healthy, reading.to_string()),
            Value::Flag(_) => finding(never_healthy(*otherwise), reading.to_string()),
            _ => finding(Verdict::Unknown, format!("{reading}: no yes or no")),
        },
        Condition::OneOf(wanted, otherwise) => match &reading.value {
            Value::Text(is) if wanted.contains(is) => finding(Verdict::Healthy, reading.to_string()),
            Value::Text(t) if t.is_empty() => finding(Verdict::Unknown, format!("{} is empty", rule.reading)),
            Value::Text(_) => {
                finding(never_healthy(*otherwise), format!("{reading}, and not one of: {}", wanted.join(", ")))
            }
            _ => finding(Verdict::Unknown, format!("{reading}: no word")),
        },
        Condition::Below(_) | Condition::Above(_) | Condition::FailureRate(_) | Condition::Drought(_) => {
            let number = match number(reading, &rule.unit) {
                Ok(number) => number,
                Err(why) => return finding(Verdict::Unknown, why),
            };
            // Nobody tried and nothing failed: there is nothing to judge.
            if let Condition::FailureRate(rate) = &rule.condition
                && number == 0.0
                && other_count(seen, &rate.attempts, &rule.unit) == Ok(0.0)
            {
                return None;
            }
            let (verdict, reason) = hold_number(seen, rule, number);
            finding(verdict, reason)
        }
    }
}

fn hold_number(seen: &Observation, rule: &Rule, n: f64) -> (Verdict, String) {
    let shown = format!("{} is {}", rule.reading, rule.unit.show(n));
    match &rule.condition {
        Condition::Below(limits) => against(&shown, n, *limits, &rule.unit, |n, limit| n >= limit, "from"),
        Condition::Above(limits) => against(&shown, n, *limits, &rule.unit, |n, limit| n <= limit, "down from"),
        Condition::FailureRate(rate) => failures(seen, rule, rate, n),
        Condition::Drought(drought) => {
            let expected = match other_count(seen, &drought.expected, &rule.unit) {
                Ok(expected) => expected,
                Err(why) => return (Verdict::Unknown, why),
            };
            let Some(p) = count(n).and_then(|k| poisson_at_most(k, expected)) else {
                return (Verdict::Unknown, format!("{shown}: no count"));
            };
            let verdict = match p {
                p if p < drought.critical => Verdict::Critical,
                p if p < drought.warning => Verdict::Warning,
                _ => Verdict::Healthy,
            };
            (verdict, format!("{shown}, where {expected:.1} are to be expected (so few by chance: {:.2} %)", p * 100.0))
        }
        Condition::Is(..) | Condition::OneOf(..) => (Verdict::Unknown, shown),
    }
}

fn failures(seen: &Observation, rule: &Rule, rate: &FailureRate, failed: f64) -> (Verdict, String) {
    let attempts = match other_count(seen, &rate.attempts, &rule.unit) {
        Ok(attempts) => attempts,
        Err(why) => return (Verdict::Unknown, why),
    };
    if attempts == 0.0 {
        return (Verdict::Unknown, format!("{} is 0: nothing to judge by", rate.attempts));
    }
    let counted = count(failed).zip(count(attempts)).filter(|(k, n)| k <= n);
    let Some(p) = counted.and_then(|(k, n)| binomial_at_least(k, n, rate.tolerated)) else {
        return (Verdict::Unknown, format!("{failed} of {attempts}: no share"));
    };
    let shown = format!("{} {failed} of {attempts} ({:.1} %)", rule.reading, failed / attempts * 100.0);
    if let Some((streak, limit)) = &rate.streak {
        match other_count(seen, streak, &rule.unit) {
            Ok(n) if n >= f64::from(*limit) => {
                return (Verdict::Critical, format!("{shown}, the last {n} of them in a row"));
            }
            Ok(_) => {}
            Err(why) => return (Verdict::Unknown, why),
        }
    }
    let by_chance = format!("so many by chance at {} %: {:.2} %", rate.tolerated * 100.0, p * 100.0);
    match p < rate.significance {
        true => (Verdict::Critical, format!("{shown}, {by_chance}")),
        false => (Verdict::Healthy, format!("{shown}, {by_chance}")),
    }
}

fn against(
    shown: &str,
    n: f64,
    limits: Limits,
    unit: &Unit,
    reached: impl Fn(f64, f64) -> bool,
    word: &str,
) -> (Verdict, String) {
    let usable = |limit: Option<f64>| limit.filter(|l| !l.is_nan());
    match (usable(limits.warning), usable(limits.critical)) {
        (_, Some(limit)) if reached(n, limit) => {
            (Verdict::Critical, format!("{shown} (critical {word} {})", unit.show(limit)))
        }
        (Some(limit), _) if reached(n, limit) => {
            (Verdict::Warning, format!("{shown} (warning {word} {})", unit.show(limit)))
        }
        (None, None) => (Verdict::Unknown, format!("{shown}, and there is no limit")),
        _ => (Verdict::Healthy, shown.to_owned()),
    }
}

fn number(reading: &Reading, unit: &Unit) -> Result<f64, String> {
    match &reading.value {
        Value::Number(n) if !n.is_finite() => Err(format!("{} is no number", reading.name)),
        Value::Number(_) if reading.unit != *unit => Err(format!("{} has another unit than its limits", reading.name)),
        Value::Number(n) => Ok(*n),
        _ => Err(format!("{reading}: no number")),
    }
}

fn other_count(seen: &Observation, name: &str, unit: &Unit) -> Result<f64, String> {
    let reading = seen.reading(name).ok_or_else(|| format!("{name} was not seen"))?;
    match number(reading, unit)? {
        n if n < 0.0 => Err(format!("{name} is {n}: no count")),
        n => Ok(n),
    }
}

fn count(n: f64) -> Option<u64> {
    (n >= 0.0 && n.fract() == 0.0 && n < 9e15).then_some(n as u64)
}

/// A rule whose breach would be healthy is no rule.
fn never_healthy(verdict: Verdict) -> Verdict {
    if verdict.is_healthy() { Verdict::Unknown } else { verdict }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn seen(fill: impl FnOnce(&mut Observation)) -> Observation {
        let mut seen = Observation::new(DateTime::UNIX_EPOCH);
        fill(&mut seen);
        seen
    }

    #[test]
    fn limits_hold_from_where_they_say() {
        let policy = Policy::new().below("disk used", Unit::Percent, Limits::new(80.0, 90.0));
        let at = |n| {
            judge(
                &seen(|s| {
                    s.number("disk used", n, Unit::Percent);
                }),
                &policy,
            )
        };
        assert_eq!([79.9, 80.0, 90.0].map(|n| at(n).verdict), [Verdict::Healthy, Verdict::Warning, Verdict::Critical]);
        assert_eq!(at(80.0).reason(), "disk used is 80 % (warning from 80 %)");
        let policy = Policy::new().above("days left", Unit::Days, Limits::new(21.0, 7.0));
        let at = |n| {
            judge(
                &seen(|s| {
                    s.number("days left", n, Unit::Days);
                }),
                &policy,
            )
            .verdict
        };
        assert_eq!(
            [21.1, 21.0, 7.0, -3.0].map(at),
            [Verdict::Healthy, Verdict::Warning, Verdict::Critical, Verdict::Critical]
        );
    }

    #[test]
    fn few_payments_are_judged_by_chance_and_not_by_percentage() {
        let rate = Condition::FailureRate(FailureRate::of_payments("attempts", "in a row"));
        let policy = Policy::new().with("failed", Unit::Count, rate);
        let of = |failed: f64, attempts: f64, row: f64| {
            let seen = seen(|s| {
                s.number("failed", failed, Unit::Count).number("attempts", attempts, Unit::Count);
                s.number("in a row", row, Unit::Count);
            });
            judge(&seen, &policy).verdict
        };
        // One of twenty is 5 %, and happens in one of three hours at 2 %.
        assert_eq!(of(1.0, 20.0, 1.0), Verdict::Healthy);
        // Four of twenty do not.
        assert_eq!(of(4.0, 20.0, 1.0), Verdict::Critical);
        assert_eq!(of(3.0, 400.0, 3.0), Verdict::Critical, "three in a row");
        assert_eq!(of(0.0, 0.0, 0.0), Verdict::Unknown, "no attempts");
        assert_eq!(of(5.0, 4.0, 0.0), Verdict::Unknown, "more failed than there were");
    }

    #[test]
    fn a_drought_is_judged_by_what_was_to_be_expected() {
        let drought = Drought { expected: "expected".into(), warning: 0.01, critical: 0.001 };
        let policy = Policy::new().with("orders", Unit::Count, Condition::Drought(drought));
        let of = |orders: f64, expected: f64| {
            let seen = seen(|s| {
                s.number("orders", orders, Unit::Count).number("expected", expected, Unit::Count);
            });
            judge(&seen, &policy).verdict
        };
        assert_eq!(of(0.0, 2.0), Verdict::Healthy, "e^-2 is 13 %");
        assert_eq!(of(0.0, 5.0), Verdict::Warning, "e^-5 is 0.7 %");
        assert_eq!(of(0.0, 7.0), Verdict::Critical, "e^-7 is 0.09 %");
        assert_eq!(of(0.0, 0.0), Verdict::Healthy, "nobody buys at night");
        assert_eq!(of(0.0, f64::NAN), Verdict::Unknown);
    }

    #[test]
    fn what_does_not_apply_is_left_out_and_alone_it_is_unknown() {
        let policy = Policy::new().below("swap used", Unit::Percent, Limits::new(50.0, 90.0));
        let none = seen(|s| {
            s.not_applicable("swap used", "there is no swap");
        });
        assert_eq!(judge(&none, &policy).verdict, Verdict::Unknown);
        let both = policy.is("reachable", true, Verdict::Critical);
        let mut none = none;
        none.flag("reachable", true);
        assert_eq!(judge(&none, &both).verdict, Verdict::Healthy);
    }
}
