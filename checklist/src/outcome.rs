//! What a check came to, and by what evidence.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a check or an item came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is as it should be.
    Pass,
    /// A person says that it is, with a name and a date; nothing that was seen speaks against it.
    Attested,
    /// It is worth a look.
    Warn,
    /// It is not as it should be.
    Fail,
    /// It could not be seen.
    Unknown,
    /// It is not as it should be, and somebody answers for that, until a date.
    Waived,
    /// It does not concern this shop.
    NotApplicable,
}

impl Outcome {
    /// Whether it counts as fulfilled: passed or attested, nothing else.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Pass | Self::Attested)
    }

    /// Its word, in capitals.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Attested => "ATTESTED",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Unknown => "UNKNOWN",
            Self::Waived => "WAIVED",
            Self::NotApplicable => "N/A",
        }
    }

    /// How grave: of several checks of one item the gravest counts.
    pub(crate) fn gravity(self) -> u8 {
        match self {
            Self::NotApplicable => 0,
            Self::Pass => 1,
            Self::Attested => 2,
            Self::Waived => 3,
            Self::Unknown => 4,
            Self::Warn => 5,
            Self::Fail => 6,
        }
    }
}

/// What a check found.
///
/// ```
/// use checklist::{Finding, Outcome};
/// let found = Finding::fail("2 of 5 cookies lack HttpOnly").at("https://shop.example/", None, "PHPSESSID");
/// assert_eq!(found.outcome, Outcome::Fail);
/// assert_eq!(found.places[0].what, "PHPSESSID");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it came to: pass, warn, fail, unknown or not applicable.
    pub outcome: Outcome,
    /// Why, in one sentence.
    pub reason: String,
    /// Where.
    pub places: Vec<Place>,
    /// What was seen, as one text: when it changes, what a person said of it no longer counts. Empty where nothing was.
    #[serde(skip)]
    pub fact: String,
    /// When that happened of which this speaks, where it was before the look: a drill, a test message.
    #[serde(skip)]
    pub happened: Option<DateTime<Utc>>,
}

/// Where something was found. Never with the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Place {
    /// An address, a file below the source tree, a table and column, a port.
    pub at: String,
    /// The line, from 1, where it is a file.
    pub line: Option<u32>,
    /// What is there.
    pub what: String,
}

/// Places that are named; more are counted.
pub(crate) const PLACES: usize = 50;

impl Finding {
    /// As it should be.
    pub fn pass(reason: impl Into<String>) -> Self {
        Self::new(Outcome::Pass, reason)
    }

    /// Worth a look.
    pub fn warn(reason: impl Into<String>) -> Self {
        Self::new(Outcome::Warn, reason)
    }

    /// Not as it should be.
    pub fn fail(reason: impl Into<String>) -> Self {
        Self::new(Outcome::Fail, reason)
    }

    /// Not seen.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::new(Outcome::Unknown, reason)
    }

    /// Of no concern here.
    pub fn not_applicable(reason: impl Into<String>) -> Self {
        Self::new(Outcome::NotApplicable, reason)
    }

    fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into(), places: Vec::new(), fact: String::new(), happened: None }
    }

    /// The same with a place; the first fifty are kept.
    #[must_use]
    pub fn at(mut self, at: impl Into<String>, line: Option<u32>, what: impl Into<String>) -> Self {
        if self.places.len() < PLACES {
            self.places.push(Place { at: at.into(), line, what: what.into() });
        }
        self
    }

    /// The same with places.
    #[must_use]
    pub fn with_places(self, places: impl IntoIterator<Item = Place>) -> Self {
        places.into_iter().fold(self, |found, place| found.at(place.at, place.line, place.what))
    }

    /// The same with when that happened of which it speaks.
    #[must_use]
    pub fn with_time(mut self, happened: DateTime<Utc>) -> Self {
        self.happened = Some(happened);
        self
    }

    /// The same with what was seen, by which a change is noticed.
    #[must_use]
    pub fn with_fact(mut self, fact: impl Into<String>) -> Self {
        self.fact = fact.into();
        self
    }
}

impl Place {
    /// A place.
    pub fn new(at: impl Into<String>, line: Option<u32>, what: impl Into<String>) -> Self {
        Self { at: at.into(), line, what: what.into() }
    }
}

/// By what an outcome is known, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evidence {
    /// The check that looked.
    pub method: String,
    /// When.
    pub collected: DateTime<Utc>,
    /// From when on it counts no more.
    pub expires: DateTime<Utc>,
    /// SHA-256 of the fact, in hex.
    pub digest: String,
    /// When that happened of which it speaks, where it was before the look: by this it completes a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub happened: Option<DateTime<Utc>>,
}

impl Evidence {
    /// Of a finding; it counts for `days`.
    pub fn of(method: &str, finding: &Finding, now: DateTime<Utc>, days: u32) -> Self {
        let fact = if finding.fact.is_empty() { &finding.reason } else { &finding.fact };
        Self {
            method: method.to_owned(),
            collected: now,
            expires: now + TimeDelta::days(days.into()),
            digest: hex::encode(Sha256::digest(fact.as_bytes())),
            happened: finding.happened.map(|at| at.min(now)),
        }
    }
}
