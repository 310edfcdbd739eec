//! What people said: attestations and waivers, each with a name and an end.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Somebody says that an item is fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// The item.
    pub item: String,
    /// Who.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Until when it counts.
    pub until: DateTime<Utc>,
    /// What was looked at, in the person's words.
    pub statement: String,
    /// The hash of what the checks saw then: [`crate::ItemReport::digest`]. When they see something else, it counts no more.
    pub digest: String,
}

impl Attestation {
    /// Whether it counts: what it says, or why it does not.
    pub(crate) fn standing(&self, digest: &str, now: DateTime<Utc>) -> Result<String, String> {
        let who = format!("{}, {}: {}", self.by, self.at.date_naive(), self.statement);
        match () {
            () if self.until <= now => Err(format!("what was attested ended on {} ({who})", self.until.date_naive())),
            () if self.digest != digest => Err(format!("what was looked at has changed since it was attested ({who})")),
            () => Ok(who),
        }
    }
}

/// Somebody answers for an item as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The item.
    pub item: String,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Until when.
    pub until: DateTime<Utc>,
}

/// What stands of all that was said: of each item the newest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    attestations: BTreeMap<String, Attestation>,
    waivers: BTreeMap<String, Waiver>,
}

impl Standing {
    /// Takes an attestation.
    pub fn attest(&mut self, attestation: Attestation) {
        self.attestations.insert(attestation.item.clone(), attestation);
    }

    /// Takes a waiver.
    pub fn waive(&mut self, waiver: Waiver) {
        self.waivers.insert(waiver.item.clone(), waiver);
    }

    /// Takes back what was said of an item.
    pub fn withdraw(&mut self, item: &str) {
        self.attestations.remove(item);
        self.waivers.remove(item);
    }

    /// What was attested of an item last, whether it still counts or not.
    pub fn attestation(&self, item: &str) -> Option<&Attestation> {
        self.attestations.get(item)
    }

    /// The last waiver of an item, whether it still counts or not.
    pub fn waiver(&self, item: &str) -> Option<&Waiver> {
        self.waivers.get(item)
    }
}
