//! The parts of `caretaker.toml` that say what is done: backups, maintenance, the agent, deployments.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use db_maint::Period;
use serde::{Deserialize, Deserializer};

use crate::schedule::When;

/// What is backed up, and where to.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupPlan {
    /// The stores, each of which holds all of it.
    pub stores: Vec<String>,
    /// The folder of keys: the writer's will do for all but reading back.
    pub keys: Option<PathBuf>,
    /// In how many of the stores a snapshot has to be; 1 without.
    pub min_copies: Option<usize>,
    /// What is backed up.
    pub source: Vec<SourcePlan>,
    /// Tables that are backed up more often.
    pub tier: Vec<TierPlan>,
}

/// A source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePlan {
    /// What it is called in the repository.
    pub name: String,
    /// Where it is: `postgres://…`, `mysql://…`, `sqlite:PATH`, `dir:PATH`; it may be `env:NAME`.
    pub url: String,
    /// Paths of a folder that are left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How old the newest backup may get.
    #[serde(default = "day")]
    pub rpo: Period,
    /// Within what time it has to be back; a drill is held against it.
    #[serde(default)]
    pub rto: Option<Period>,
    /// A place that does not exist yet, into which drills restore; it may be `env:NAME`.
    #[serde(default)]
    pub scratch: Option<String>,
    /// A file of queries that must find nothing in what was restored.
    #[serde(default)]
    pub invariants: Option<PathBuf>,
}

/// A tier: some tables of a source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierPlan {
    /// What it is called.
    pub name: String,
    /// The source that it is of.
    pub source: String,
    /// Its tables, or globs of them.
    pub tables: Vec<String>,
    /// How often it is taken.
    #[serde(deserialize_with = "when")]
    pub when: When,
    /// How old the newest may get; twice the time between two without.
    #[serde(default)]
    pub rpo: Option<Period>,
}

fn day() -> Period {
    Period::new(chrono::TimeDelta::hours(26))
}

/// What is done about the database.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaintenancePlan {
    /// Its address; it may be `env:NAME`.
    pub database: Option<String>,
    /// The policy, as `maintain policy` explains it.
    pub policy: Option<PathBuf>,
    /// Whether `nightly` and the agent clean up by the policy's retention rules; without, they count.
    pub clean_up: bool,
    /// Whether they mend orphans by the policy's references; without, they count.
    pub mend_orphans: bool,
    /// Findings of these checks, and their blindness, are no finding of a night.
    pub allow: Vec<String>,
}

/// The agent.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentPlan {
    /// Where it listens; `127.0.0.1:7878` without.
    pub listen: Option<SocketAddr>,
    /// The token of its interface, at least 16 characters; `env:NAME` or `file:PATH`. Without one there is none.
    pub token: Option<String>,
    /// The database in which the servers agree on who does what; that of `[maintenance]` without, and a file of this server's own without
    /// both. It may be `env:NAME`.
    pub database: Option<String>,
    /// For how long a lease is taken; a server that dies keeps the others waiting for so long. A minute without.
    pub lease: Option<Period>,
    /// Servers begin up to so much after the time; five seconds without.
    pub jitter: Option<Period>,
    /// Whether this server watches the shop and tells people. Of several servers one does, or each would tell of the same. True without.
    pub watch: Option<bool>,
    /// Other times for jobs, such as `backup = "daily 01:30"`; `"off"` for one that is not done.
    pub jobs: BTreeMap<String, JobTime>,
}

/// A time, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobTime {
    /// Then.
    At(When),
    /// Never.
    Off,
}

impl<'de> Deserialize<'de> for JobTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.as_str() {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(serde::de::Error::custom),
        }
    }
}

fn when<'de, D: Deserializer<'de>>(from: D) -> Result<When, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

/// What stands before a deployment, and after it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeployPlan {
    /// A verified backup of each source may be so old; an older one is taken anew. An hour without.
    pub backup_within: Period,
    /// Items of `checklist steps deployment` that somebody has to have attested.
    pub attested: Vec<String>,
    /// An audit may be so old; an older one is done anew. A week without.
    pub audit_within: Period,
    /// How the shop goes back; run by the shell.
    pub rollback: Option<String>,
    /// Rounds of looks at once, before and after.
    pub rounds: u32,
    /// Seconds between them.
    pub pause: u32,
    /// For how many hours to watch after them.
    pub watch_hours: u32,
    /// A file that is there while the shop is closed, for `--maintenance`.
    pub flag_file: Option<PathBuf>,
}

impl Default for DeployPlan {
    fn default() -> Self {
        Self {
            backup_within: Period::new(chrono::TimeDelta::hours(1)),
            attested: Vec::new(),
            audit_within: Period::new(chrono::TimeDelta::days(7)),
            rollback: None,
            rounds: 10,
            pause: 5,
            watch_hours: 24,
            flag_file: None,
        }
    }
}
