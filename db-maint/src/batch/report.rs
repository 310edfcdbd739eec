//! What became of a rule.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::schema::TableName;

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobReport {
    /// The rule.
    pub rule: String,
    /// The table.
    pub table: TableName,
    /// What becomes of rows that are met.
    pub action: String,
    /// What is older than this goes, where age decides.
    pub cutoff: Option<DateTime<Utc>>,
    /// Rows that the rule meets, as far as it came.
    pub met: u64,
    /// Rows that were changed by this run.
    pub changed: u64,
    /// Rows that were changed since the rule began at the first row of the table: by this run and those before it that did not
    /// come to the end.
    pub changed_in_all: u64,
    /// Other tables whose rows go or change with them, and how.
    pub followers: Vec<(String, String)>,
    /// The first rows that are met: numbers as they are, other keys as the beginning of their SHA-256, for they may be secrets.
    pub sample: Vec<String>,
    /// Rows that were met and neither changed nor refused: gone meanwhile, or kept by a trigger or a policy of the database.
    pub unchanged: u64,
    /// Rows that could not be changed, and why.
    pub poison: Vec<(String, String)>,
    /// How it ended.
    pub ended: JobEnd,
    /// How many batches, and how long the longest took, in milliseconds.
    pub batches: u64,
    /// See `batches`.
    pub longest_batch_ms: u64,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum JobEnd {
    /// At the end of the table.
    Complete,
    /// It was asked to stop; the next run goes on from there.
    Stopped,
    /// Its rows or its time were used up; the next run goes on from there.
    Budget,
}

impl fmt::Display for JobEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::Budget => "budget used up",
        })
    }
}
