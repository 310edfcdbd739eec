//! An item of a list, and a check that speaks for it.

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::outcome::Finding;

/// One thing that has to be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Item {
    /// Its name, such as `auth.password-hash`; another item of the same name replaces it.
    pub id: String,
    /// The section that it stands in.
    pub section: String,
    /// What has to be so.
    pub title: String,
    /// Why.
    #[serde(default)]
    pub why: String,
    /// What is at stake.
    #[serde(default)]
    pub risk: Risk,
    /// Where it is written: chapters of OWASP ASVS 5.0, PCI DSS 4.0.1, articles of the GDPR.
    #[serde(default)]
    pub references: Vec<String>,
    /// What to do in a shop of Next.js.
    #[serde(default)]
    pub remedy_next: String,
    /// What to do in a shop of PHP.
    #[serde(default)]
    pub remedy_php: String,
    /// What a person has to say, where no check can know.
    #[serde(default)]
    pub attest: Option<String>,
    /// Whether it takes that person even where all checks pass, for they see a part only.
    #[serde(default)]
    pub needs_attestation: bool,
}

/// What is at stake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Little.
    Low,
    /// Something.
    #[default]
    Medium,
    /// Customers' data, or money.
    High,
    /// The shop.
    Critical,
}

impl Item {
    /// An item; the rest is set by its fields' builders.
    pub fn new(id: impl Into<String>, section: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            section: section.into(),
            title: title.into(),
            why: String::new(),
            risk: Risk::Medium,
            references: Vec::new(),
            remedy_next: String::new(),
            remedy_php: String::new(),
            attest: None,
            needs_attestation: false,
        }
    }

    /// The same with what is at stake, and why.
    #[must_use]
    pub fn with_risk(mut self, risk: Risk, why: impl Into<String>) -> Self {
        (self.risk, self.why) = (risk, why.into());
        self
    }

    /// The same with what to do.
    #[must_use]
    pub fn with_remedy(mut self, next: impl Into<String>, php: impl Into<String>) -> Self {
        (self.remedy_next, self.remedy_php) = (next.into(), php.into());
        self
    }

    /// The same with what a person has to say; `always` where that is needed even if all checks pass.
    #[must_use]
    pub fn with_attestation(mut self, what: impl Into<String>, always: bool) -> Self {
        (self.attest, self.needs_attestation) = (Some(what.into()), always);
        self
    }
}

/// What a check may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Looks at what everybody may see.
    Passive,
    /// Reads with a login: a database, a host, a source tree.
    AuthenticatedRead,
    /// Does what an attacker would: bad log-ins, hostile input. Only where the target is declared to be staging.
    StagingActive,
}

/// What a check is told.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Context {
    /// Now.
    pub now: DateTime<Utc>,
}

impl Context {
    /// At that time.
    pub fn at(now: DateTime<Utc>) -> Self {
        Self { now }
    }
}

/// Something that is checked automatically. It changes nothing.
#[async_trait]
pub trait Check: fmt::Debug + Send + Sync {
    /// Its name, such as `web.session-cookies`.
    fn id(&self) -> &str;

    /// The item that it speaks for.
    fn item(&self) -> &str;

    /// What it may do.
    fn tier(&self) -> Tier {
        Tier::Passive
    }

    /// For how many days its evidence counts.
    fn valid_days(&self) -> u32 {
        7
    }

    /// Looks. Dropping the future ends it.
    ///
    /// # Errors
    /// Where it could not look: the outcome is unknown then, never good.
    async fn run(&self, cx: &Context) -> Result<Finding>;
}
