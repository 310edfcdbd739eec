//! What was seen: readings with units, and nothing said about whether that is good.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// One look: when, how long it took, and what was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Observation {
    /// When it began.
    pub at: DateTime<Utc>,
    /// How long it took, by a clock that nobody sets.
    #[serde(with = "seconds", rename = "took_s")]
    pub took: Duration,
    /// What was read.
    pub readings: Vec<Reading>,
    /// What a person wants to see beside the figures: addresses, names, first lines; redacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// Why earlier tries of the same look were not healthy, where this is the result of another try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_failures: Vec<String>,
}

impl Observation {
    /// An observation that began at `at` and has no readings yet.
    pub fn new(at: DateTime<Utc>) -> Self {
        Self { at, took: Duration::ZERO, readings: Vec::new(), evidence: Vec::new(), earlier_failures: Vec::new() }
    }

    /// Adds a number with its unit.
    pub fn number(&mut self, name: impl Into<String>, value: f64, unit: Unit) -> &mut Self {
        self.push(name, Value::Number(value), unit)
    }

    /// Adds a word.
    pub fn text(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.push(name, Value::Text(value.into()), Unit::None)
    }

    /// Adds a yes or no.
    pub fn flag(&mut self, name: impl Into<String>, value: bool) -> &mut Self {
        self.push(name, Value::Flag(value), Unit::None)
    }

    /// Says that there is no such thing here, and why: no swap, no limit. That is known; what could not be read is left out.
    pub fn not_applicable(&mut self, name: impl Into<String>, why: impl Into<String>) -> &mut Self {
        self.push(name, Value::NotApplicable(why.into()), Unit::None)
    }

    /// Adds a line of evidence.
    pub fn evidence(&mut self, line: impl Into<String>) -> &mut Self {
        self.evidence.push(line.into());
        self
    }

    /// The reading of that name.
    pub fn reading(&self, name: &str) -> Option<&Reading> {
        self.readings.iter().find(|r| r.name == name)
    }

    /// The number of that name, where it is one and finite.
    pub fn finite(&self, name: &str) -> Option<f64> {
        match self.reading(name)?.value {
            Value::Number(n) if n.is_finite() => Some(n),
            _ => None,
        }
    }

    /// Takes secrets out of words and evidence, and cuts them to 500 characters each.
    pub(crate) fn show(&mut self) {
        for reading in &mut self.readings {
            if let Value::Text(text) = &mut reading.value {
                *text = crate::redact::short(text);
            }
        }
        for line in self.evidence.iter_mut().chain(&mut self.earlier_failures) {
            *line = crate::redact::short(line);
        }
        self.evidence.truncate(200);
    }

    fn push(&mut self, name: impl Into<String>, value: Value, unit: Unit) -> &mut Self {
        self.readings.push(Reading { name: name.into(), value, unit });
        self
    }
}

/// Something read, with its unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// What it is, such as `disk used`.
    pub name: String,
    /// What it was.
    pub value: Value,
    /// In which unit; [`Unit::None`] for words and flags.
    #[serde(default, skip_serializing_if = "Unit::is_none")]
    pub unit: Unit,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Number(n) => write!(f, "{}: {}", self.name, self.unit.show(*n)),
            Value::Text(t) => write!(f, "{}: {t}", self.name),
            Value::Flag(true) => write!(f, "{}: yes", self.name),
            Value::Flag(false) => write!(f, "{}: no", self.name),
            Value::NotApplicable(why) => write!(f, "{}: does not apply ({why})", self.name),
        }
    }
}

/// What a reading was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Value {
    /// A number; one that is not finite is judged unknown. In JSON, such a one is `null`.
    Number(#[serde(deserialize_with = "number_or_null")] f64),
    /// A word.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// There is no such thing here.
    NotApplicable(String),
}

/// The unit of a number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Unit {
    /// None: words, flags.
    #[default]
    None,
    /// Of a hundred.
    Percent,
    /// Seconds.
    Seconds,
    /// Days of 24 hours.
    Days,
    /// Bytes.
    Bytes,
    /// Things counted.
    Count,
    /// Things a minute.
    PerMinute,
    /// Things a day.
    PerDay,
    /// A plain ratio, such as layout shift.
    Ratio,
    /// Something of a shop's own, such as `EUR`.
    Other(Cow<'static, str>),
}

impl Unit {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// A number of this unit as people read it.
    pub fn show(&self, n: f64) -> String {
        if !n.is_finite() {
            return format!("{n} (no number)");
        }
        match self {
            Self::None | Self::Count | Self::Ratio => plain(n),
            Self::Percent => format!("{} %", plain(n)),
            Self::Seconds if n.abs() < 1.0 => format!("{} ms", plain(n * 1000.0)),
            Self::Seconds if n.abs() >= 7200.0 => format!("{} h", plain(n / 3600.0)),
            Self::Seconds => format!("{} s", plain(n)),
            Self::Days => format!("{} days", plain(n)),
            Self::Bytes => bytes(n),
            Self::PerMinute => format!("{} a minute", plain(n)),
            Self::PerDay => format!("{} a day", plain(n)),
            Self::Other(unit) => format!("{} {unit}", plain(n)),
        }
    }
}

fn plain(n: f64) -> String {
    if n == n.trunc() {
        format!("{n:.0}")
    } else if n.abs() < 1.0 {
        format!("{n:.3}")
    } else if n.abs() < 100.0 {
        format!("{n:.1}")
    } else {
        format!("{n:.0}")
    }
}

fn bytes(n: f64) -> String {
    let (mut n, mut unit) = (n, 0);
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    while n.abs() >= 1024.0 && unit < UNITS.len() - 1 {
        n /= 1024.0;
        unit += 1;
    }
    format!("{} {}", plain(n), UNITS[unit])
}

fn number_or_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// A duration as a number of seconds.
pub(crate) mod seconds {
    use super::*;

    pub(crate) fn serialize<S: serde::Serializer>(d: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(d.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let s = f64::deserialize(from)?;
        Duration::try_from_secs_f64(s).map_err(|_| serde::de::Error::custom("no number of seconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_goes_through_json_and_what_is_no_number_stays_none() {
        let mut seen = Observation::new(DateTime::UNIX_EPOCH);
        seen.number("disk used", 81.5, Unit::Percent).number("odd", f64::NAN, Unit::Seconds).flag("reachable", true);
        seen.not_applicable("swap used", "there is no swap").text("protocol", "TLSv1.3");
        let again: Observation = serde_json::from_str(&serde_json::to_string(&seen).unwrap()).unwrap();
        assert_eq!(again.finite("disk used"), Some(81.5));
        assert_eq!(again.finite("odd"), None);
        assert!(matches!(again.reading("odd").unwrap().value, Value::Number(n) if n.is_nan()));
        assert_eq!(again.reading("protocol"), seen.reading("protocol"));
        assert_eq!(Unit::Seconds.show(0.0421), "42.1 ms");
        assert_eq!(Unit::Bytes.show(3.5 * 1024.0 * 1024.0), "3.5 MiB");
    }
}
