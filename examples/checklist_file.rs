//! The part of `caretaker.toml` that is about the checklist.

use std::collections::BTreeMap;
use std::path::PathBuf;

use checklist::{Item, Recurrence, Secret, Task};
use chrono::NaiveTime;
use serde::Deserialize;

/// What the checklist looks at, and the shop's own items, tasks and secrets.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChecklistFile {
    /// The address of the shop.
    pub site: Option<String>,
    /// Where it answers HTTP without TLS; port 80 without.
    pub http: Option<String>,
    /// Whether that is staging, and may be attacked.
    pub staging: bool,
    /// Pages on which customers pay.
    pub checkout: Vec<String>,
    /// Addresses of the administration, beside the usual ones.
    pub admin: Vec<String>,
    /// Addresses of the API.
    pub api: Vec<String>,
    /// The address of its database, as the shop itself uses it; it may be `env:NAME`.
    pub database: Option<String>,
    /// The policy of its data, as `maintain policy` explains it.
    pub policy: Option<PathBuf>,
    /// Its source.
    pub source: Option<PathBuf>,
    /// A folder of advisories: an unpacked dump of OSV.
    pub advisories: Option<PathBuf>,
    /// The API of OSV, which is told the names and versions of all dependencies; it has precedence over the folder.
    pub osv: Option<String>,
    /// Vulnerabilities that are accepted, each with a reason and an end.
    pub ignore: Vec<checklist::dependencies::Ignore>,
    /// Whether this host is its host.
    pub host: bool,
    /// Ports that may listen for everybody.
    pub ports: Option<Vec<u16>>,
    /// Folders of uploads.
    pub uploads: Vec<PathBuf>,
    /// Stores of its backups.
    pub backups: Vec<String>,
    /// The keys that read their log.
    pub keys: Option<PathBuf>,
    /// The ledger of evidence; `evidence.log` in the folder of what is remembered without.
    pub ledger: Option<PathBuf>,
    /// How many orders each month had, for the phase of growth.
    pub orders: Option<Orders>,
    /// What is in place of what a phase of growth calls for.
    pub in_place: BTreeMap<String, bool>,
    /// Items of the shop's own; one with the name of ours takes its place.
    pub item: Vec<Item>,
    /// Tasks of the shop's own; one with the name of ours takes its place.
    pub task: Vec<TaskSection>,
    /// Owners of our tasks, by the task's name; `*` of all others.
    pub owners: BTreeMap<String, String>,
    /// Secrets by name, owner and age.
    pub secret: Vec<Secret>,
}

/// Orders of months, from a database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// The address of the database; `checklist.database` without. It may be `env:NAME`.
    pub database: Option<String>,
    /// A query that gives `name`, a month as `2026-11`, and `value`; the present month does not count.
    pub sql: String,
}

/// A task of the shop's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSection {
    id: String,
    title: String,
    every: Recurrence,
    #[serde(default)]
    at: Option<String>,
    #[serde(default)]
    grace_days: u32,
    #[serde(default)]
    owner: String,
    #[serde(default)]
    by_check: Option<String>,
}

impl ChecklistFile {
    /// The tasks: those of the guides, and the shop's own.
    ///
    /// # Errors
    /// A time of day that is none.
    pub fn tasks(&self) -> Result<Vec<Task>, String> {
        let mut all = checklist::routines();
        for section in &self.task {
            let mut task = Task::new(&section.id, &section.title, section.every).with_grace(section.grace_days);
            task.owner.clone_from(&section.owner);
            task.by_check.clone_from(&section.by_check);
            if let Some(at) = &section.at {
                task.at = NaiveTime::parse_from_str(at, "%H:%M")
                    .map_err(|_| format!("task {}: {at:?} is no time of day: write it as 08:00", section.id))?;
            }
            all.retain(|known| known.id != task.id);
            all.push(task);
        }
        for task in all.iter_mut().filter(|t| t.owner.is_empty()) {
            if let Some(owner) = self.owners.get(&task.id).or_else(|| self.owners.get("*")) {
                task.owner.clone_from(owner);
            }
        }
        Ok(all)
    }
}
