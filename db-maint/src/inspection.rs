//! An inspection: what was read, put before every judge.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::activity::{Connections, Seen, Sessions, SqliteContent, SqliteFile, Unseen, Vacuums};
use crate::capability::{Capabilities, Flavour};
use crate::check::bloat::{self, Space};
use crate::check::{
    connections, counter_exhaustion, dead_rows, foreign_key_unindexed, index_duplicate, index_invalid, index_redundant,
    index_unused, sessions, sqlite, statistics_stale, table_not_transactional, table_without_primary_key, wraparound,
};
use crate::finding::{Finding, Outcome, Severity, Suppression};
use crate::schema::{Counter, Observed, Schema};

/// How to inspect. The defaults are right for a shop.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InspectOptions {
    /// The time it is; the server's own where it is `None`.
    pub now: Option<DateTime<Utc>>,
    /// For how long the server has to have counted before an index is called unused; 30 days unless told. Choose it so that
    /// the rarest report lies within.
    pub unused_after: TimeDelta,
    /// Whether a SQLite file is read as a whole to see whether it is damaged and its references hold. Where it is `None`, in
    /// WAL mode alone: in the other modes nobody can write meanwhile. For a minute at most.
    pub integrity: Option<bool>,
    /// How many bytes of tables and indexes may be read to see how full they are, where nothing else tells (PostgreSQL with the
    /// extension `pgstattuple`); 256 MiB unless told.
    pub budget_bytes: u64,
    /// Findings that somebody has decided to live with.
    pub suppressions: Vec<Suppression>,
}

impl Default for InspectOptions {
    fn default() -> Self {
        Self {
            now: None,
            unused_after: TimeDelta::days(30),
            integrity: None,
            budget_bytes: 256 << 20,
            suppressions: Vec::new(),
        }
    }
}

impl InspectOptions {
    /// The same at this time.
    #[must_use]
    pub fn at(mut self, now: DateTime<Utc>) -> Self {
        self.now = Some(now);
        self
    }

    /// The same with another window for what is unused.
    #[must_use]
    pub fn with_unused_after(mut self, window: TimeDelta) -> Self {
        self.unused_after = window;
        self
    }

    /// The same, with or without reading a whole SQLite file, whatever its mode.
    #[must_use]
    pub fn with_integrity(mut self, integrity: bool) -> Self {
        self.integrity = Some(integrity);
        self
    }

    /// The same with another budget of bytes that may be read.
    #[must_use]
    pub fn with_budget(mut self, bytes: u64) -> Self {
        self.budget_bytes = bytes;
        self
    }

    /// The same with findings that somebody has decided to live with.
    #[must_use]
    pub fn with_suppressions(mut self, suppressions: Vec<Suppression>) -> Self {
        self.suppressions = suppressions;
        self
    }
}

/// What all checks came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inspection {
    /// What was inspected, and what this user could see of it.
    pub capabilities: Capabilities,
    /// When.
    pub taken_at: DateTime<Utc>,
    /// What each check came to, by its id.
    pub checks: Vec<CheckReport>,
    /// Findings that are suppressed, each with why and until when.
    pub suppressed: Vec<(Finding, Suppression)>,
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// The check's id.
    pub check: String,
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Inspection {
    /// All findings, check by check.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.checks.iter().flat_map(|c| c.outcome.findings())
    }

    /// How grave the gravest finding is.
    pub fn worst(&self) -> Option<Severity> {
        self.findings().map(|f| f.severity).max()
    }

    /// Checks that could not look, and what checks could not see beside their findings: the check's id and why.
    pub fn unknown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.checks.iter().flat_map(|c| {
            let why: Vec<&str> = match &c.outcome {
                Outcome::Unknown { reason, .. } => vec![reason],
                Outcome::Found { unknown, .. } => unknown.iter().map(String::as_str).collect(),
                _ => vec![],
            };
            why.into_iter().map(|why| (c.check.as_str(), why))
        })
    }

    /// Whether something was looked at, nothing was found, and every check that applies could look.
    pub fn is_clean(&self) -> bool {
        let clean = |o: &Outcome| matches!(o, Outcome::Clean { .. } | Outcome::NotApplicable { .. });
        self.checks.iter().any(|c| matches!(c.outcome, Outcome::Clean { .. }))
            && self.checks.iter().all(|c| clean(&c.outcome))
    }

    /// The outcome of the check with this id.
    pub fn outcome(&self, check: &str) -> Option<&Outcome> {
        self.checks.iter().find(|c| c.check == check).map(|c| &c.outcome)
    }
}

/// What an engine has read.
pub(crate) struct Facts {
    pub(crate) capabilities: Capabilities,
    pub(crate) schema: Seen<Schema>,
    pub(crate) counters: Seen<Vec<Counter>>,
    pub(crate) connections: Seen<Connections>,
    pub(crate) sessions: Seen<Sessions>,
    pub(crate) vacuums: Seen<Vacuums>,
    pub(crate) spaces: Seen<Vec<Space>>,
    pub(crate) file: Seen<SqliteFile>,
    pub(crate) content: SqliteContent,
}

/// Puts what was read before every judge.
pub(crate) fn judge(facts: &Facts, options: &InspectOptions) -> Inspection {
    let Facts { capabilities, schema, counters, connections, sessions, vacuums, spaces, file, content } = facts;
    let nothing = || Unseen::unknown("no table is visible to this user", "check the database's name, and the rights");
    let is_empty = schema.as_ref().is_ok_and(|s| s.tables.is_empty());
    let (no_schema, no_counters) = (Err(nothing()), Err(nothing()));
    let schema = if is_empty { &no_schema } else { schema };
    let counters = if is_empty && counters.is_ok() { &no_counters } else { counters };
    let now = options.now.unwrap_or(capabilities.server_time);
    let flavour = capabilities.flavour;
    let observed = Observed { now, since: capabilities.counting_since };
    let of_schema = |judge: &dyn Fn(&Schema) -> Outcome| partly(judged(schema, |s| judge(s)), capabilities.sees_tables);
    let stale = match flavour {
        Flavour::Sqlite => judged(&content.outgrown, |o| statistics_stale::judge_sqlite(o)),
        _ => judged(vacuums, statistics_stale::judge),
    };
    let counters = partly(judged(counters, |c| counter_exhaustion::judge(c)), capabilities.sees_tables);
    let outcomes = [
        (sqlite::INTEGRITY, judged(&content.damage, |d| sqlite::judge_integrity(d))),
        (sqlite::FOREIGN_KEYS, judged(&content.violations, |v| sqlite::judge_foreign_keys(v))),
        (wraparound::ID, judged(vacuums, wraparound::judge)),
        (counter_exhaustion::ID, counters),
        (connections::ID, judged(connections, connections::judge)),
        (sessions::BLOCKED, judged(sessions, sessions::judge_blocked)),
        (sessions::LONG, judged(sessions, sessions::judge_long)),
        (dead_rows::HELD, judged(vacuums, dead_rows::judge_held)),
        (dead_rows::ID, judged(vacuums, dead_rows::judge)),
        (statistics_stale::ID, stale),
        (index_invalid::ID, of_schema(&|s| index_invalid::judge(s, flavour))),
        (table_not_transactional::ID, of_schema(&|s| table_not_transactional::judge(s, flavour))),
        (table_without_primary_key::ID, of_schema(&table_without_primary_key::judge)),
        (foreign_key_unindexed::ID, of_schema(&|s| foreign_key_unindexed::judge(s, flavour))),
        (index_duplicate::ID, of_schema(&|s| index_duplicate::judge(s, flavour))),
        (index_redundant::ID, of_schema(&|s| index_redundant::judge(s, flavour))),
        (index_unused::ID, of_schema(&|s| index_unused::judge(s, capabilities, observed, options.unused_after))),
        (bloat::INDEX, judged(spaces, |s| bloat::judge_indexes(s))),
        (bloat::TABLE, judged(spaces, |s| bloat::judge_tables(s))),
        (sqlite::FREE_PAGES, judged(file, sqlite::judge_free_pages)),
        (sqlite::LOG, judged(file, sqlite::judge_log)),
    ];
    let mut suppressed = Vec::new();
    let checks = outcomes
        .into_iter()
        .map(|(check, outcome)| CheckReport {
            check: check.to_owned(),
            outcome: without_suppressed(outcome, options, now, &mut suppressed),
        })
        .collect();
    Inspection { capabilities: capabilities.clone(), taken_at: now, checks, suppressed }
}

/// What a judge says of what was seen.
fn judged<T>(seen: &Seen<T>, judge: impl Fn(&T) -> Outcome) -> Outcome {
    match seen {
        Ok(seen) => judge(seen),
        Err(unseen) => unseen.clone().into(),
    }
}

/// Of a part nobody knows whether the rest is well.
fn partly(outcome: Outcome, sees_all: bool) -> Outcome {
    let hidden = "this user sees only the tables that it has a right on";
    match outcome {
        outcome if sees_all => outcome,
        Outcome::Clean { .. } => Outcome::unknown_until(hidden, "GRANT SELECT on the whole database to it"),
        Outcome::Found { findings, mut unknown } => {
            unknown.push(hidden.to_owned());
            Outcome::Found { findings, unknown }
        }
        outcome => outcome,
    }
}

fn without_suppressed(
    outcome: Outcome,
    options: &InspectOptions,
    now: DateTime<Utc>,
    suppressed: &mut Vec<(Finding, Suppression)>,
) -> Outcome {
    let Outcome::Found { findings, unknown } = outcome else { return outcome };
    let mut left = Vec::new();
    let examined = findings.len() as u64;
    for finding in findings {
        match options.suppressions.iter().find(|s| s.covers(&finding, now)) {
            Some(suppression) => suppressed.push((finding, suppression.clone())),
            None => left.push(finding),
        }
    }
    Outcome::of(examined, left, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::sample::{index, primary, table};

    fn unseen() -> Unseen {
        Unseen::NotApplicable("not here".into())
    }

    fn facts(schema: Seen<Schema>) -> Facts {
        Facts {
            capabilities: crate::capability::sample(),
            schema,
            counters: Ok(vec![]),
            connections: Err(unseen()),
            sessions: Err(unseen()),
            vacuums: Err(unseen()),
            spaces: Err(unseen()),
            file: Err(unseen()),
            content: SqliteContent::absent(),
        }
    }

    fn schema() -> Schema {
        Schema { tables: vec![table("o")], indexes: vec![primary("o", &["id"])], ..Schema::default() }
    }

    #[test]
    fn nothing_seen_is_not_clean() {
        let options = InspectOptions::default().at(DateTime::UNIX_EPOCH + TimeDelta::days(31));
        assert!(judge(&facts(Ok(schema())), &options).is_clean());
        // A database without tables is probably the wrong one.
        assert!(!judge(&facts(Ok(Schema::default())), &options).is_clean());
        let mut part = facts(Ok(schema()));
        part.capabilities.sees_tables = false;
        assert!(!judge(&part, &options).is_clean());
        let blind = judge(&facts(Err(Unseen::unknown("no right", "grant it"))), &options);
        assert!(!blind.is_clean() && blind.findings().count() == 0 && blind.unknown().count() > 5);
        // The server has not counted for long enough to call anything unused.
        assert!(!judge(&facts(Ok(schema())), &InspectOptions::default().at(DateTime::UNIX_EPOCH)).is_clean());
    }

    #[test]
    fn what_is_suppressed_is_told_apart_and_comes_back() {
        let twice = Schema { indexes: vec![primary("o", &["id"]), index("o", "a", &["id"])], ..schema() };
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(31);
        let options = InspectOptions::default().at(now);
        let before = judge(&facts(Ok(twice.clone())), &options);
        let suppressions: Vec<_> = before
            .findings()
            .map(|f| Suppression {
                fingerprint: f.fingerprint(),
                severity: f.severity,
                reason: "known".into(),
                until: now + TimeDelta::days(1),
            })
            .collect();
        assert!(!suppressions.is_empty());
        let options = options.with_suppressions(suppressions);
        let after = judge(&facts(Ok(twice.clone())), &options);
        assert!(after.is_clean() && after.suppressed.len() == before.findings().count(), "{after:?}");
        let later = judge(&facts(Ok(twice)), &options.at(now + TimeDelta::days(2)));
        assert_eq!(later.findings().count(), before.findings().count());
    }
}
