//! What is known of an incident, and what is said of it.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::judge::Verdict;

/// What fails within this time of its cause fails by it.
const AT_ONCE: TimeDelta = TimeDelta::minutes(10);

/// An incident: what failed first in the order of dependencies, and what failed with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IncidentRecord {
    /// Its name, such as `2026-01-15T12:03:00Z database`.
    pub id: String,
    /// The probe that is its cause, as far as is known.
    pub root: String,
    /// The worst that any of its members was.
    pub severity: Verdict,
    /// When the first failing look was.
    pub opened: DateTime<Utc>,
    /// When all of it was well again.
    pub resolved: Option<DateTime<Utc>>,
    /// What failed, the root among them.
    pub members: Vec<Member>,
    /// What people were told, and when; only what was delivered.
    pub told: Vec<(DateTime<Utc>, MessageKind)>,
    /// Whether a member goes up and down.
    #[serde(default)]
    pub flapping: bool,
    /// The incident that it turned out to be a part of: told of there from then on, and once more here where people knew of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
    /// The cause and the severity that were told last.
    #[serde(default)]
    pub(super) told_of: Option<(String, Verdict)>,
}

/// A probe that is part of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// The probe.
    pub probe: String,
    /// What people call it.
    pub title: String,
    /// Its confirmed state now.
    pub verdict: Verdict,
    /// Since when it is so.
    pub since: DateTime<Utc>,
    /// Why, by its last look that was not healthy.
    pub reason: String,
    /// When it became part of the incident.
    #[serde(default)]
    pub(super) joined: Option<DateTime<Utc>>,
    /// When it failed first in it, and how bad it ever was.
    #[serde(default)]
    pub(crate) failed: Option<(DateTime<Utc>, Verdict)>,
}

impl Member {
    #[cfg(test)]
    pub(crate) fn new(probe: &str, title: &str, reason: &str, since: DateTime<Utc>) -> Self {
        let (probe, title, reason) = (probe.to_owned(), title.to_owned(), reason.to_owned());
        Self { probe, title, verdict: Verdict::Critical, since, reason, joined: None, failed: None }
    }
}

impl IncidentRecord {
    /// One without members.
    pub(crate) fn empty(id: &str, at: DateTime<Utc>) -> Self {
        Self {
            id: id.to_owned(),
            root: id.to_owned(),
            severity: Verdict::Healthy,
            opened: at,
            resolved: None,
            members: Vec::new(),
            told: Vec::new(),
            flapping: false,
            part_of: None,
            told_of: None,
        }
    }

    /// The member that is its cause.
    pub fn root_member(&self) -> Option<&Member> {
        self.members.iter().find(|m| m.probe == self.root)
    }

    /// Whether it is another than was told of: worse, of another cause, or something else fails by now.
    pub(super) fn changed(&self) -> bool {
        let worse = |(root, severity): &(String, Verdict)| *root != self.root || self.severity.rank() > severity.rank();
        self.told_of.as_ref().is_some_and(worse) || self.joined_late().next().is_some()
    }

    /// What fails, and began to so long after the cause that it may have one of its own, and since the last message.
    pub(crate) fn joined_late(&self) -> impl Iterator<Item = &Member> {
        // What fails soon after an update fails by what that was about.
        let told = self.told.last().map(|(at, kind)| match kind {
            MessageKind::Update => *at + AT_ONCE,
            _ => *at,
        });
        let at_once = self.root_member().map_or(self.opened, |m| m.since).max(self.opened) + AT_ONCE;
        self.members.iter().filter(move |m| {
            let late = |joined| told.is_some_and(|told| joined > told) && joined > at_once;
            m.probe != self.root && !m.verdict.is_healthy() && m.joined.is_some_and(late)
        })
    }

    /// Whether somebody was told of it.
    pub fn was_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// From when to when the probe was down in it, `now` where it still is, if it ever was critical.
    pub(crate) fn was_down(&self, probe: &str, now: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let member = self.members.iter().find(|m| m.probe == probe)?;
        let (from, worst) = member.failed?;
        let to = if member.verdict.is_healthy() { member.since } else { now };
        (worst == Verdict::Critical).then_some((from, to))
    }

    /// Whether nothing is to be told of it any more.
    pub fn is_closed(&self) -> bool {
        (self.part_of.is_some() && self.told.is_empty())
            || self.told.last().is_some_and(|(_, kind)| matches!(kind, MessageKind::Resolved | MessageKind::Missed))
    }
}

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MessageKind {
    /// It began.
    Alert,
    /// It got worse, or its cause is another one.
    Update,
    /// It still goes on.
    Reminder,
    /// It is over.
    Resolved,
    /// It began and is over, and nobody could be told in between.
    Missed,
    /// Nothing is wrong: it only has to arrive.
    Test,
}

/// Something to tell people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// What it says.
    pub kind: MessageKind,
    /// When it was due.
    pub at: DateTime<Utc>,
    /// About which incident.
    pub incident: IncidentRecord,
    /// What a person should be able to find at the other end, of a test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}
