//! Errors, grouped by what they say.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::fingerprint::template;
use super::logins::masked;
use super::message::{Level, LogMessage};
use crate::redact::redact;

/// The errors of a log, one group for each template. Bounded: of more than 1,000 groups, those that were not seen for the longest
/// time are given up, and are new when they come again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Faults {
    groups: BTreeMap<String, Fault>,
    /// Messages of groups that were given up.
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
        let line = String::from_utf8_lossy(&line[..line.len().min(16 * 1024)]);
        self.add_message(&LogMessage::parse(&line), at);
    }

    /// Takes the message of a line that was read at `at`.
    pub fn add_message(&mut self, message: &LogMessage<'_>, at: DateTime<Utc>) {
        self.lines += 1;
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
        } else {
            if self.groups.len() >= Self::ROOM {
                self.make_room();
            }
            let example = without_people(&redact(&message.text.chars().take(500).collect::<String>()));
            let fault = Fault { template: template.clone(), example, level, count: 1, first: at, last: at };
            self.groups.insert(template, fault);
        }
    }

    /// Gives up a tenth: what was not seen for the longest time, of those the rarest.
    fn make_room(&mut self) {
        let mut all: Vec<(DateTime<Utc>, u64, String)> =
            self.groups.iter().map(|(template, f)| (f.last, f.count, template.clone())).collect();
        all.sort();
        for (_, count, template) in all.into_iter().take(Self::ROOM / 10) {
            self.groups.remove(&template);
            self.ungrouped += count;
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

/// The text with addresses of people shown as [`masked`] does.
fn without_people(text: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '@' | '.' | '_' | '+' | '-' | '%');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        let bare = word.trim_end_matches('.');
        match bare.split_once('@').is_some_and(|(who, at)| !who.is_empty() && at.contains('.')) {
            true => {
                out.push_str(&masked(bare));
                out.push_str(&word[bare.len()..]);
            }
            false => out.push_str(word),
        }
        let next = after.chars().next().map_or(0, char::len_utf8);
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(minute)
    }

    #[test]
    fn a_stranger_who_fills_the_groups_hides_nothing() {
        let mut faults = Faults::default();
        faults.add(b"Error: the old one", at(0));
        for i in 0..5_000u32 {
            let word: String = i.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect();
            faults.add(format!("Error: there is no {word}").as_bytes(), at(1));
        }
        assert!(faults.groups().len() <= Faults::ROOM);
        faults.add(b"PHP Fatal error:  payments are broken", at(2400));
        let new = faults.new_since(at(2000));
        assert_eq!((new.len(), new[0].example.as_str()), (1, "payments are broken"));
        assert_eq!(faults.errors(), 5_002);
    }

    #[test]
    fn an_example_names_nobody() {
        let mut faults = Faults::default();
        faults.add(b"Error: no order of anna@shop.example, password=geheim.", at(0));
        let example = &faults.groups()[0].example;
        assert!(example.starts_with("Error: no order of an\u{2026}@shop.example ("), "{example}");
        for text in ["", "...", "a@b", "x. y. z.", "@@", "wrote to a+b@c.de, then left"] {
            let shown = without_people(text);
            assert!(!shown.contains("a+b@"), "{shown}");
            if !text.contains("c.de") {
                assert_eq!(shown, text);
            }
        }
    }
}
