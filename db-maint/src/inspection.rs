//! An inspection: what was read, put before every judge.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::activity::{
    Connections, Modified, Replication, Seen, Sessions, SqliteContent, SqliteFile, Unseen, Vacuums, Violations,
};
use crate::capability::{Capabilities, Flavour};
use crate::check::bloat::{self, Space};
use crate::check::{
    cache_hits, connections, counter_exhaustion, dead_rows, foreign_key_unindexed, foreign_key_violated,
    index_duplicate, index_invalid, index_redundant, index_unused, replication_lag, sessions, slow_queries, sqlite,
    statistics_stale, table_free_space, table_not_transactional, table_without_primary_key, wraparound,
};
use crate::finding::{Finding, Outcome, Severity, Suppression};
use crate::look::{History, Look};
use crate::policy::Policy;
use crate::rules;
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
    /// Whether tables are read as a whole to see whether references hold that the server does not vouch for, and a SQLite file to
    /// see whether it is damaged. Where it is `None`, SQLite files in WAL mode alone: in its other modes nobody can write
    /// meanwhile. For a minute at most, each file or foreign key.
    pub integrity: Option<bool>,
    /// How many bytes of tables and indexes may be read to see how full they are, where nothing else tells (PostgreSQL with the
    /// extension `pgstattuple`); 256 MiB unless told.
    pub budget_bytes: u64,
    /// Findings that somebody has decided to live with.
    pub suppressions: Vec<Suppression>,
    /// Earlier looks at the same database: what was slow, stayed free or was made since shows beside them alone.
    pub history: History,
    /// How long ago an earlier look has to be before what happened since says anything; ten minutes unless told.
    pub pause: TimeDelta,
    /// What the shop declares about its own data: then its rules are held against the database too, which reads the tables that
    /// they name, for a minute at most each.
    pub policy: Option<Policy>,
}

impl Default for InspectOptions {
    fn default() -> Self {
        Self {
            now: None,
            unused_after: TimeDelta::days(30),
            integrity: None,
            budget_bytes: 256 << 20,
            suppressions: Vec::new(),
            history: History::default(),
            pause: TimeDelta::minutes(10),
            policy: None,
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

    /// The same, with or without reading tables as a whole, whatever the mode of a SQLite file.
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

    /// The same with another time that has to lie between looks.
    #[must_use]
    pub fn with_pause(mut self, pause: TimeDelta) -> Self {
        self.pause = pause;
        self
    }

    /// The same beside earlier looks.
    #[must_use]
    pub fn with_history(mut self, history: History) -> Self {
        self.history = history;
        self
    }

    /// The same, and the shop's own rules are held against the database.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
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
    /// What was counted at the same time: for a [`History`].
    #[serde(skip)]
    pub look: Option<Look>,
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

/// What was read.
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
    /// Rows that refer to nothing though a key is declared.
    pub(crate) violations: Seen<Violations>,
    pub(crate) replication: Seen<Replication>,
    /// Tables that changed since their statistics were made (InnoDB).
    pub(crate) modified: Seen<Vec<Modified>>,
    /// What is counted at the same time.
    pub(crate) look: Option<Look>,
    /// What became of the shop's own rules.
    pub(crate) declared: Vec<(&'static str, Outcome)>,
}

/// Puts what was read before every judge.
pub(crate) fn judge(facts: &Facts, options: &InspectOptions) -> Inspection {
    let Facts { capabilities, schema, counters, connections, sessions, vacuums, spaces, file, content, .. } = facts;
    let nothing = || Unseen::unknown("no table is visible to this user", "check the database's name, and the rights");
    let is_empty = schema.as_ref().is_ok_and(|s| s.tables.is_empty());
    let (no_schema, no_counters) = (Err(nothing()), Err(nothing()));
    let schema = if is_empty { &no_schema } else { schema };
    let counters = if is_empty && counters.is_ok() { &no_counters } else { counters };
    let now = options.now.unwrap_or(capabilities.server_time);
    let flavour = capabilities.flavour;
    let observed = Observed { now, since: capabilities.counting_since };
    // What a look saw first when others had come before was made after those.
    let dated = schema.as_ref().ok().map(|s| with_dates(s, &options.history)).map(Ok);
    let schema = dated.as_ref().unwrap_or(schema);
    let of_schema = |judge: &dyn Fn(&Schema) -> Outcome| partly(judged(schema, |s| judge(s)), capabilities.sees_tables);
    let stale = match flavour {
        Flavour::Sqlite => judged(&content.outgrown, |o| statistics_stale::judge_sqlite(o)),
        Flavour::Postgres => judged(vacuums, statistics_stale::judge),
        Flavour::Mysql | Flavour::MariaDb => judged(&facts.modified, |m| statistics_stale::judge_innodb(m, flavour)),
    };
    let taken_at = facts.look.as_ref().map_or(capabilities.server_time, |look| look.taken_at);
    let earlier = |least: TimeDelta| options.history.before(taken_at, least);
    // Another server at the same address counts for itself.
    let counted_by_same = |look: &&Look| facts.look.as_ref().is_some_and(|now| now.server == look.server);
    let before = earlier(options.pause).filter(counted_by_same);
    let counted = |judge: &dyn Fn(&Look) -> Outcome| match &facts.look {
        Some(look) => judge(look),
        None => Outcome::unknown("nothing was counted"),
    };
    let counters = partly(judged(counters, |c| counter_exhaustion::judge(c)), capabilities.sees_tables);
    let outcomes = [
        (sqlite::INTEGRITY, judged(&content.damage, |d| sqlite::judge_integrity(d))),
        (
            foreign_key_violated::ID,
            partly(judged(&facts.violations, |v| foreign_key_violated::judge(v, flavour)), capabilities.sees_tables),
        ),
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
        (replication_lag::ID, judged(&facts.replication, replication_lag::judge)),
        (slow_queries::ID, counted(&|look| slow_queries::judge(&look.queries, look.taken_at, before))),
        (cache_hits::ID, counted(&|look| cache_hits::judge(&look.cache, before))),
        (
            table_free_space::ID,
            counted(&|look| {
                let first = earlier(table_free_space::LASTING).map(|look| look.taken_at);
                let since: Vec<&Look> = first.map(|at| options.history.since(at).collect()).unwrap_or_else(Vec::new);
                partly(
                    judged(schema, |s| table_free_space::judge(&look.sizes, s, flavour, &since)),
                    capabilities.sees_tables,
                )
            }),
        ),
    ];
    let declared = if facts.declared.is_empty() { rules::without() } else { facts.declared.clone() };
    let mut suppressed = Vec::new();
    let checks = outcomes
        .into_iter()
        .chain(declared)
        .map(|(check, outcome)| CheckReport {
            check: check.to_owned(),
            outcome: without_suppressed(outcome, options, now, &mut suppressed),
        })
        .collect();
    Inspection { capabilities: capabilities.clone(), taken_at: now, checks, suppressed, look: facts.look.clone() }
}

/// Indexes with the moment from which on their use can have been counted, where looks tell that they were made since.
fn with_dates(schema: &Schema, history: &History) -> Schema {
    let mut schema = schema.clone();
    let (Some(first), Some(last)) = (history.looks().first(), history.looks().last()) else { return schema };
    for index in &mut schema.indexes {
        let made = match last.indexes.get(&index.object()) {
            Some(since) if *since > first.taken_at => Some(*since),
            Some(_) => None,
            None => Some(last.taken_at),
        };
        index.counted_since = index.counted_since.max(made);
    }
    schema
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
            violations: Err(unseen()),
            replication: Err(unseen()),
            modified: Err(unseen()),
            look: Some(look()),
            declared: Vec::new(),
        }
    }

    /// One that has nothing to say.
    fn look() -> Look {
        let absent = || Unseen::NotApplicable("not here".into());
        Look {
            sizes: Err(absent()),
            queries: Err(absent()),
            cache: Err(absent()),
            ..crate::look::sample::blind(DateTime::UNIX_EPOCH)
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
    fn another_server_at_the_same_address_counts_for_itself() {
        use crate::look::queries::{Queries, Query};
        let counted = |server: &str, calls: u64| Look {
            server: Some(server.into()),
            queries: Ok(Queries {
                queries: vec![Query { id: "a".into(), calls, ..Query::default() }],
                ..Queries::default()
            }),
            ..look()
        };
        let of = |server: &str| {
            let mut history = History::default();
            history.push(counted("a", 1)).unwrap();
            let mut seen = facts(Ok(schema()));
            seen.look = Some(Look { taken_at: DateTime::UNIX_EPOCH + TimeDelta::hours(1), ..counted(server, 2) });
            judge(&seen, &InspectOptions::default().with_history(history)).outcome("slow-queries").cloned().unwrap()
        };
        assert_eq!(of("a"), Outcome::Clean { examined: 1 });
        assert!(matches!(of("b"), Outcome::Unknown { .. }));
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
