//! Errors, grouped by what they say.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::fingerprint::template;
use super::message::{Level, LogMessage};
use crate::redact::redact;

/// The errors of a log, one group for each template. Bounded: 1,000 groups; what is beyond is counted together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Faults {
    groups: BTreeMap<String, Fault>,
    /// Messages that found no room for a group of their own.
    pub ungrouped: u64,
    /// Lines that were read.
    pub lines: u64,
    /// Messages by level: info, warning, error, fatal.
    pub by_level: [u64; 4],
}

/// A group of errors that say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fault {
    /// What they say, without what varies.
    pub template: String,
    /// The first of them, without secrets.
    pub example: String,
    /// How bad.
    pub level: Level,
    /// How many.
    pub count: u64,
    /// When the first was read.
    pub first: DateTime<Utc>,
    /// When the last was.
    pub last: DateTime<Utc>,
}

impl Faults {
    /// At most so many groups.
    pub const ROOM: usize = 1000;

    /// Takes a line that was read at `at`.
    pub fn add(&mut self, line: &[u8], at: DateTime<Utc>) {
        self.lines += 1;
        let line = String::from_utf8_lossy(&line[..line.len().min(16 * 1024)]);
        let message = LogMessage::parse(&line);
        let Some(level) = message.level else { return };
        self.by_level[level as usize] += 1;
        if level < Level::Warning {
            return;
        }
        let template = redact(&template(&message.text));
        if let Some(fault) = self.groups.get_mut(&template) {
            fault.count += 1;
            fault.last = at;
            fault.level = fault.level.max(level);
        } else if self.groups.len() >= Self::ROOM {
            self.ungrouped += 1;
        } else {
            let example = redact(&message.text.chars().take(500).collect::<String>());
            let fault = Fault { template: template.clone(), example, level, count: 1, first: at, last: at };
            self.groups.insert(template, fault);
        }
    }

    /// Errors and worse.
    pub fn errors(&self) -> u64 {
        self.by_level[Level::Error as usize] + self.by_level[Level::Fatal as usize]
    }

    /// The groups, the worst and most frequent first.
    pub fn groups(&self) -> Vec<&Fault> {
        let mut all: Vec<&Fault> = self.groups.values().collect();
        all.sort_by(|a, b| b.level.cmp(&a.level).then(b.count.cmp(&a.count)).then(a.template.cmp(&b.template)));
        all
    }

    /// The groups whose first message was read after `since`: what is new.
    pub fn new_since(&self, since: DateTime<Utc>) -> Vec<&Fault> {
        self.groups().into_iter().filter(|f| f.first > since).collect()
    }
}
