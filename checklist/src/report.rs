//! An audit for people and for programs: Markdown, HTML, JSON, SARIF, JUnit.

mod html;
mod junit;
mod markdown;
mod sarif;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::audit::Audit;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{Entries, Head};
use crate::outcome::Outcome;
use crate::register::{Contact, SecretAge};
use crate::scaling::ScalingAdvice;
use crate::score::Score;
use crate::task::Occurrence;

/// What a report shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// When it was made.
    pub made: DateTime<Utc>,
    /// The audit, as it counts when the report is made.
    pub audit: Audit,
    /// The audits before: when, and their scores; oldest first.
    pub history: Vec<(DateTime<Utc>, Option<Score>)>,
    /// What changed since the audit before.
    pub changes: Vec<Change>,
    /// Tasks: each of the last times that they were due.
    pub tasks: Vec<TaskLine>,
    /// Secrets by age.
    pub secrets: Vec<SecretAge>,
    /// Whom to call.
    pub contacts: Vec<Contact>,
    /// What to do about growth, where orders are known.
    pub scaling: Option<ScalingAdvice>,
    /// The newest entry of the ledger: noted elsewhere, it shows whether the ledger was cut off since.
    pub head: Head,
}

/// An item whose outcome changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// The item.
    pub item: String,
    /// What has to be so.
    pub title: String,
    /// What it was.
    pub before: Outcome,
    /// What it is.
    pub now: Outcome,
}

/// A task, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskLine {
    /// Its name.
    pub id: String,
    /// What is done.
    pub title: String,
    /// Who sees to it.
    pub owner: String,
    /// The last times that it was due, oldest first; the last of them is the present one.
    pub times: Vec<Occurrence>,
}

impl TaskLine {
    /// A task and the times that it was due.
    pub fn new(task: &crate::task::Task, times: Vec<Occurrence>) -> Self {
        Self { id: task.id.clone(), title: task.title.clone(), owner: task.owner.clone(), times }
    }
}

/// In what a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Markdown.
    Markdown,
    /// One HTML file that needs nothing else.
    Html,
    /// JSON.
    Json,
    /// SARIF 2.1.0, for the code scanning of GitHub and others.
    Sarif,
    /// JUnit XML, for continuous integration.
    Junit,
}

impl Report {
    /// Of the audit, with what the ledger says of the time before it.
    pub fn new(audit: &Audit, entries: &Entries, now: DateTime<Utc>) -> Self {
        let audit = audit.as_of(now, &entries.standing());
        let earlier: Vec<&Audit> = entries.audits().filter(|a| a.at < audit.at).collect();
        let changes = earlier.last().map(|before| audit.changes(before)).unwrap_or_default();
        let change = |(item, before): (&crate::audit::ItemReport, Outcome)| Change {
            item: item.item.id.clone(),
            title: item.item.title.clone(),
            before,
            now: item.outcome,
        };
        Self {
            made: now,
            changes: changes.into_iter().map(change).collect(),
            history: earlier.iter().map(|a| (a.at, a.score)).collect(),
            audit,
            tasks: Vec::new(),
            secrets: Vec::new(),
            contacts: Vec::new(),
            scaling: None,
            head: entries.head(),
        }
    }

    /// The same with tasks.
    #[must_use]
    pub fn with_tasks(mut self, tasks: Vec<TaskLine>) -> Self {
        self.tasks = tasks;
        self
    }

    /// The same with secrets.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Vec<SecretAge>) -> Self {
        self.secrets = secrets;
        self
    }

    /// The same with contacts.
    #[must_use]
    pub fn with_contacts(mut self, contacts: Vec<Contact>) -> Self {
        self.contacts = contacts;
        self
    }

    /// The same with advice on growth.
    #[must_use]
    pub fn with_scaling(mut self, scaling: Option<ScalingAdvice>) -> Self {
        self.scaling = scaling;
        self
    }

    /// As text.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where it cannot be written as JSON.
    pub fn render(&self, format: Format) -> Result<String> {
        let json = |value: serde_json::Result<String>| {
            value.map_err(|e| Error::new(ErrorKind::Malformed, "the report cannot be written as JSON").with_source(e))
        };
        match format {
            Format::Markdown => Ok(markdown::render(self)),
            Format::Html => Ok(html::render(self)),
            Format::Json => json(serde_json::to_string_pretty(self)),
            Format::Sarif => json(serde_json::to_string_pretty(&sarif::render(self))),
            Format::Junit => Ok(junit::render(self)),
        }
    }
}

/// `72 % fulfilled, 90 % known`; words where nothing was asked.
fn score_text(score: Option<&Score>) -> String {
    match score {
        None => "nothing that concerns this shop".into(),
        Some(s) => format!(
            "{} of {} fulfilled ({:.0} %), {:.0} % known",
            s.good,
            s.asked,
            s.value() * 100.0,
            s.coverage() * 100.0
        ),
    }
}

/// For HTML and XML: control characters that XML does not know are replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
