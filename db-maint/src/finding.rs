//! What a check came to.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What one check came to. What could not be seen is never clean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It looked at so many objects, and all is well.
    Clean {
        /// How many.
        examined: u64,
    },
    /// It looked, and found these. What it could not see beside them is among the findings' evidence or in `unknown`.
    Found {
        /// What it found, the gravest first.
        findings: Vec<Finding>,
        /// What could not be judged, and why.
        unknown: Vec<String>,
    },
    /// It could not look, for this reason.
    Unknown {
        /// Why.
        reason: String,
        /// What would make it see, where that is known.
        remedy: Option<String>,
    },
    /// There is nothing here that it could look at, for this reason.
    NotApplicable {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// It could not look.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into(), remedy: None }
    }

    /// It could not look, and this would make it see.
    pub fn unknown_until(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into(), remedy: Some(remedy.into()) }
    }

    /// There is nothing to look at.
    pub fn not_applicable(reason: impl Into<String>) -> Self {
        Self::NotApplicable { reason: reason.into() }
    }

    /// What was found among `examined` objects: clean where it is nothing and all could be judged.
    pub fn of(examined: u64, mut findings: Vec<Finding>, unknown: Vec<String>) -> Self {
        findings.sort_by(|a, b| (b.severity, &a.object, &a.summary).cmp(&(a.severity, &b.object, &b.summary)));
        match (findings.is_empty(), unknown.is_empty()) {
            (true, true) => Self::Clean { examined },
            (true, false) => Self::unknown(unknown.join("; ")),
            (false, _) => Self::Found { findings, unknown },
        }
    }

    /// The findings, if there are any.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Found { findings, .. } => findings,
            _ => &[],
        }
    }
}

/// Something that should be mended, or looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// The id of the check that found it.
    pub check: String,
    /// What it is about, as its owner calls it: `public.orders`, `orders.orders_customer`.
    pub object: String,
    /// One sentence.
    pub summary: String,
    /// How grave it is.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// What was read: figures by name, with their unit in the name.
    pub evidence: BTreeMap<String, serde_json::Value>,
    /// What would mend it; SQL where a statement does.
    pub remedy: Option<String>,
}

impl Finding {
    /// A warning that is certain, without evidence or remedy yet.
    pub fn new(check: &str, object: impl Into<String>, summary: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            object: object.into(),
            summary: summary.into(),
            severity: Severity::Warning,
            confidence: Confidence::Certain,
            evidence: BTreeMap::new(),
            remedy: None,
        }
    }

    /// The same, so grave.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The same, that sure.
    #[must_use]
    pub fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }

    /// The same with one more figure.
    #[must_use]
    pub fn evidence(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.evidence.insert(name.to_owned(), value.into());
        self
    }

    /// The same with what would mend it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// What it is known by as long as it is about the same thing, whatever its figures: for suppressions and for telling new
    /// findings from old ones. The first 16 hexadecimal digits of a SHA-256.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.check, &self.object] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Notice,
    /// Will hurt.
    Warning,
    /// Hurts now, or stops the shop soon.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// From statistics or a model that may be wrong.
    Estimated,
    /// Read from the catalogue or measured.
    Certain,
}

/// A finding that somebody has decided to live with, until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suppression {
    /// The [fingerprint](Finding::fingerprint).
    pub fingerprint: String,
    /// The gravest that it may be; what has become graver is reported.
    pub severity: Severity,
    /// Why.
    pub reason: String,
    /// From when on it is reported again.
    pub until: DateTime<Utc>,
}

impl Suppression {
    /// Whether it silences this finding now.
    pub fn covers(&self, finding: &Finding, now: DateTime<Utc>) -> bool {
        now < self.until && finding.severity <= self.severity && finding.fingerprint() == self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_not_clean() {
        assert_eq!(Outcome::of(3, vec![], vec![]), Outcome::Clean { examined: 3 });
        assert!(matches!(Outcome::of(3, vec![], vec!["no right".into()]), Outcome::Unknown { .. }));
        let found = Outcome::of(3, vec![Finding::new("c", "o", "s")], vec!["no right".into()]);
        assert!(matches!(found, Outcome::Found { unknown, .. } if unknown.len() == 1));
    }

    #[test]
    fn the_gravest_comes_first() {
        let of = |severity, object: &str| Finding::new("c", object, "s").severity(severity);
        let findings = vec![of(Severity::Notice, "a"), of(Severity::Critical, "c"), of(Severity::Critical, "b")];
        let outcome = Outcome::of(3, findings, vec![]);
        let order: Vec<_> = outcome.findings().iter().map(|f| f.object.as_str()).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }

    #[test]
    fn a_suppression_ends_and_knows_its_finding_by_what_it_is_about() {
        let finding = Finding::new("index-unused", "public.orders", "never read").evidence("scans", 0);
        let same = Finding::new("index-unused", "public.orders", "still never read").evidence("scans", 1);
        let other = Finding::new("index-unused", "public.order", "snever read");
        let now = DateTime::UNIX_EPOCH;
        let suppression = Suppression {
            fingerprint: finding.fingerprint(),
            severity: Severity::Warning,
            reason: "for the yearly report".into(),
            until: now + chrono::TimeDelta::days(1),
        };
        assert!(suppression.covers(&same, now) && !suppression.covers(&other, now));
        assert!(!suppression.covers(&same, now + chrono::TimeDelta::days(1)));
        assert!(!suppression.covers(&same.severity(Severity::Critical), now));
    }
}
