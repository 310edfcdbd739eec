//! A plan: what would mend what an inspection found, as data that a person reads before anything is done.
//!
//! Each step says its exact SQL, what waits for it, how much it reads and needs, and what undoes it. A plan has a hash: what was
//! edited is refused, as is what no longer fits the database. Indexes are only retired where that was asked for: it is the one
//! step that can make a shop slow.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::capability::{Flavour, NodeRole};
use crate::check::{
    bloat, dead_rows, drop_index, index_duplicate, index_invalid, index_redundant, index_unused, sqlite,
    statistics_stale, table_free_space,
};
use crate::error::{Error, ErrorKind, Result};
use crate::finding::Finding;
use crate::ident::quoted;
use crate::inspection::{Facts, Inspection};
use crate::schema::{Index, Schema, State, TableName};
use crate::table::sql_name;

/// So many pages are given back in one step.
const PAGES: u32 = 10_000;
/// How long a plan may lie before it is applied.
const LASTS: TimeDelta = TimeDelta::hours(24);

/// What to plan.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PlanOptions {
    /// Whether indexes that nothing needs are hidden (MySQL, MariaDB) or dropped (PostgreSQL, SQLite).
    pub retire_indexes: bool,
    /// Indexes to rebuild whatever was found, such as after a change of the system's collations (PostgreSQL):
    /// `schema.table.index`.
    pub rebuild: Vec<String>,
}

impl PlanOptions {
    /// The same, and what nothing needs goes.
    #[must_use]
    pub fn retiring_indexes(mut self) -> Self {
        self.retire_indexes = true;
        self
    }

    /// The same, and these indexes are rebuilt.
    #[must_use]
    pub fn rebuilding(mut self, indexes: Vec<String>) -> Self {
        self.rebuild = indexes;
        self
    }
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Plan {
    /// The version of this document: 1.
    pub version: u32,
    /// Which database, without password.
    pub location: String,
    /// Which engine.
    pub flavour: Flavour,
    /// When it was made, by the database's clock.
    pub made_at: DateTime<Utc>,
    /// After which it is refused.
    pub expires_at: DateTime<Utc>,
    /// What is to be done.
    pub steps: Vec<Step>,
    /// What could not be looked at: a plan without steps is no proof that there is nothing to do.
    pub unknown: Vec<String>,
    /// SHA-256 of all the rest.
    pub hash: String,
}

/// One statement of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Step {
    /// What it does.
    pub action: StepAction,
    /// The table.
    pub table: TableName,
    /// The index, where it is about one.
    pub index: Option<String>,
    /// The exact statement.
    pub sql: String,
    /// What waits while it runs, and for what it waits.
    pub lock: String,
    /// How many bytes it reads, about.
    pub reads_bytes: Option<u64>,
    /// How many bytes have to be free on the server's disk, about.
    pub needs_bytes: Option<u64>,
    /// What undoes it.
    pub undo: Option<String>,
    /// What was found.
    pub because: String,
    /// How the index was made when the plan was: it has to be so still.
    pub definition: Option<String>,
    /// The index of the same table that does its work, where one does: it has to be there still.
    pub instead: Option<String>,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StepAction {
    /// Removes what died, and renews the statistics (PostgreSQL); gives pages back (SQLite).
    Vacuum,
    /// Renews the planner's statistics.
    Analyze,
    /// Builds a table anew, as OPTIMIZE TABLE does, but refused where writers would be locked out (MySQL, MariaDB).
    Rebuild,
    /// Gives free pages at the end of the file back, where the file keeps account of them (SQLite).
    IncrementalVacuum,
    /// Builds an index anew beside the old one.
    Reindex,
    /// Removes what an interrupted build left.
    DropInvalidIndex,
    /// Removes an index that nothing needs.
    DropIndex,
    /// Hides an index that nothing needs from queries, and keeps it up.
    HideIndex,
}

impl Step {
    /// What it does, in SQL: made from the rest of it, and from nothing that somebody wrote into a plan.
    pub(crate) fn statement(&self, flavour: Flavour) -> Option<String> {
        let table = sql_name(flavour, &self.table);
        let index = self.index.as_ref().map(|index| quoted(flavour, index));
        let in_schema = |index: &str| format!("{}.{index}", quoted(flavour, &self.table.schema));
        Some(match (self.action, flavour, index) {
            // Without giving pages back to the system, which would lock everybody out.
            (StepAction::Vacuum, Flavour::Postgres, None) => format!("VACUUM (ANALYZE, TRUNCATE false) {table}"),
            (StepAction::Vacuum, Flavour::Sqlite, None) => "VACUUM".to_owned(),
            (StepAction::IncrementalVacuum, Flavour::Sqlite, None) => format!("PRAGMA incremental_vacuum({PAGES})"),
            (StepAction::Rebuild, Flavour::Mysql | Flavour::MariaDb, None) => {
                format!("ALTER TABLE {table} FORCE, ALGORITHM=INPLACE, LOCK=NONE")
            }
            // Each replica counts its own rows.
            (StepAction::Analyze, Flavour::Mysql | Flavour::MariaDb, None) => {
                format!("ANALYZE NO_WRITE_TO_BINLOG TABLE {table}")
            }
            (StepAction::Analyze, Flavour::Postgres, None) => format!("ANALYZE {table}"),
            (StepAction::Analyze, Flavour::Sqlite, None) => format!("PRAGMA analysis_limit = 1000; ANALYZE {table}"),
            (StepAction::Reindex, Flavour::Postgres, Some(index)) => {
                format!("REINDEX INDEX CONCURRENTLY {}", in_schema(&index))
            }
            (StepAction::DropInvalidIndex | StepAction::DropIndex, Flavour::Postgres, Some(index)) => {
                format!("DROP INDEX CONCURRENTLY {}", in_schema(&index))
            }
            (StepAction::DropIndex, Flavour::Sqlite, Some(index)) => format!("DROP INDEX {index}"),
            (StepAction::HideIndex, Flavour::Mysql, Some(index)) => {
                format!("ALTER TABLE {table} ALTER INDEX {index} INVISIBLE")
            }
            (StepAction::HideIndex, Flavour::MariaDb, Some(index)) => {
                format!("ALTER TABLE {table} ALTER INDEX {index} IGNORED")
            }
            _ => return None,
        })
    }

    /// What it is about.
    pub fn object(&self) -> String {
        match &self.index {
            Some(index) => format!("{}.{index}", self.table),
            None => self.table.to_string(),
        }
    }

    /// What has changed since the plan was made, where that matters to it.
    pub(crate) fn drift(&self, schema: &Schema) -> Option<String> {
        // What is done to a whole SQLite file names no table.
        let is_there = self.table.name.is_empty()
            || schema.tables.iter().any(|t| t.name == self.table)
            // A materialised view is known by its indexes.
            || schema.indexes.iter().any(|i| i.table == self.table);
        if !is_there {
            return Some(format!("the table {} is gone", self.table));
        }
        let name = self.index.as_ref()?;
        let Some(index) = schema.indexes.iter().find(|i| i.table == self.table && i.name == *name) else {
            return Some(format!("the index {} is gone", self.object()));
        };
        if identity(index) != self.definition {
            return Some(format!("the index {} is another one by now", self.object()));
        }
        if let Some(instead) = &self.instead
            && !schema.indexes.iter().any(|i| i.table == self.table && i.name == *instead && i.serves())
        {
            return Some(format!("the index {instead}, which does the work of {}, is gone", self.object()));
        }
        match self.action {
            StepAction::DropIndex | StepAction::HideIndex
                if self.instead.is_none() && !(index_unused::may_go(index, schema) && index.scans == Some(0)) =>
            {
                Some(format!("the index {} is used or needed by now", self.object()))
            }
            StepAction::DropInvalidIndex if index.state != State::Invalid => {
                Some(format!("the index {} is not invalid any more, or is being built", self.object()))
            }
            StepAction::DropIndex | StepAction::HideIndex if !index.serves() => {
                Some(format!("the index {} serves no query by now", self.object()))
            }
            _ => None,
        }
    }
}

impl Plan {
    /// What mends the findings of `inspection`, which were read from `facts`.
    pub(crate) fn of(facts: &Facts, inspection: &Inspection, options: &PlanOptions) -> Result<Self> {
        let capabilities = &inspection.capabilities;
        if capabilities.role == NodeRole::Replica {
            return Err(Error::new(ErrorKind::Config, format!("{} is a replica", capabilities.location))
                .with_next_step("plan and apply on its primary"));
        }
        let schema = facts.schema.as_ref().map_err(|_| {
            Error::new(ErrorKind::Denied, format!("{} does not show its tables", capabilities.location))
                .with_next_step("see `inspect` for what this user lacks")
        })?;
        let mut steps: Vec<Step> = Vec::new();
        for finding in inspection.findings() {
            let step = step(capabilities.flavour, schema, facts, finding, options);
            // Two findings may ask for the same, and a vacuum renews the statistics too. What does the work of another one that
            // goes stays, and what does its work is not taken from one that goes already.
            steps.extend(step.filter(|step| {
                !steps.iter().any(|s| {
                    let is_same =
                        s.index == step.index && (s.action == step.action || step.action == StepAction::Analyze);
                    let is_needed = s.instead.is_some() && s.instead == step.index;
                    let is_lost = step.instead.is_some() && step.instead == s.index;
                    s.table == step.table && (is_same || is_needed || is_lost)
                })
            }));
        }
        for name in &options.rebuild {
            let index =
                schema.indexes.iter().find(|i| i.object() == *name && capabilities.flavour == Flavour::Postgres);
            let index = index.ok_or_else(|| {
                Error::new(ErrorKind::Config, format!("{}: there is no index {name} to rebuild", capabilities.location))
                    .with_next_step("write schema.table.index, as `inspect` does; PostgreSQL alone rebuilds indexes")
            })?;
            steps.extend(reindex(index, "it was asked for"));
        }
        let made_at = capabilities.server_time;
        let mut plan = Self {
            version: 1,
            location: capabilities.location.clone(),
            flavour: capabilities.flavour,
            made_at,
            expires_at: made_at + LASTS,
            steps,
            unknown: inspection.unknown().map(|(check, why)| format!("{check}: {why}")).collect(),
            hash: String::new(),
        };
        plan.hash = plan.digest()?;
        Ok(plan)
    }

    /// Whether it may be applied there and now.
    pub(crate) fn check(&self, location: &str, now: DateTime<Utc>) -> Result<()> {
        let refused = |why: String| {
            Error::new(ErrorKind::Drift, format!("the plan is refused: {why}"))
                .with_next_step("make a new plan, and read it")
        };
        if self.version != 1 {
            return Err(refused(format!("it is of version {}, and this program knows 1", self.version)));
        }
        if self.digest()? != self.hash {
            return Err(refused("it was changed after it was made".into()));
        }
        if self.location != location {
            return Err(refused(format!("it is for {}, and this is {location}", self.location)));
        }
        if let Some(step) = self.steps.iter().find(|step| step.statement(self.flavour).as_ref() != Some(&step.sql)) {
            return Err(refused(format!("{:?} is not what this program would do for it", step.sql)));
        }
        if now > self.expires_at || now < self.made_at - TimeDelta::minutes(10) {
            return Err(refused(format!(
                "it was made at {}, and may lie for a day",
                self.made_at.format("%Y-%m-%d %H:%M UTC")
            )));
        }
        Ok(())
    }

    fn digest(&self) -> Result<String> {
        let bare = Self { hash: String::new(), ..self.clone() };
        let text = serde_json::to_string(&bare)
            .map_err(|e| Error::new(ErrorKind::Config, "the plan cannot be written down").with_source(e))?;
        Ok(Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect())
    }
}

/// What tells an index from another one of the same name.
fn identity(index: &Index) -> Option<String> {
    Some(index.definition.clone().unwrap_or_else(|| {
        let keys: Vec<_> = index.keys.iter().map(|k| format!("{} {} {:?}", k.what, k.order, k.prefix)).collect();
        format!("{} {} ({})", index.method, if index.unique { "unique" } else { "plain" }, keys.join(", "))
    }))
}

/// What mends one finding, where a statement does.
fn step(flavour: Flavour, schema: &Schema, facts: &Facts, finding: &Finding, options: &PlanOptions) -> Option<Step> {
    let table = || schema.tables.iter().find(|t| t.name.to_string() == finding.object);
    let index = || schema.indexes.iter().find(|i| i.object() == finding.object);
    let because = format!("{}: {}", finding.check, finding.summary);
    match (finding.check.as_str(), flavour) {
        (dead_rows::ID, Flavour::Postgres) => {
            let table = table()?;
            let step = plain(StepAction::Vacuum, flavour, &table.name, VACUUMS, because)?;
            Some(Step { reads_bytes: table.bytes, ..step })
        }
        (statistics_stale::ID, Flavour::Postgres) => {
            plain(StepAction::Analyze, flavour, &table()?.name, VACUUMS, because)
        }
        (statistics_stale::ID, Flavour::Sqlite) => {
            plain(StepAction::Analyze, flavour, &table()?.name, "other writers wait, for a moment", because)
        }
        (statistics_stale::ID, Flavour::Mysql | Flavour::MariaDb) => plain(
            StepAction::Analyze,
            flavour,
            &table()?.name,
            "nobody waits for it; on MySQL before 8.0.24 queries of the table wait behind one that runs long",
            because,
        ),
        (table_free_space::ID, Flavour::Mysql | Flavour::MariaDb) => {
            let table = table()?;
            let size = facts.look.as_ref()?.sizes.as_ref().ok()?.of(&table.name)?.total();
            let step = plain(StepAction::Rebuild, flavour, &table.name, BUILDS, because)?;
            // Where the remedy is another one, the server could not do it beside writers.
            finding.remedy.as_ref().filter(|remedy| **remedy == step.sql)?;
            Some(Step { reads_bytes: Some(size), needs_bytes: Some(size), ..step })
        }
        (sqlite::FREE_PAGES, Flavour::Sqlite) if facts.file.as_ref().ok()?.gives_back => {
            let lock = "other writers wait, for as long as some thousand pages take";
            plain(StepAction::IncrementalVacuum, flavour, &TableName::new("", ""), lock, because)
        }
        (sqlite::FREE_PAGES, Flavour::Sqlite) => {
            let file = facts.file.as_ref().ok()?;
            let bytes = file.pages.saturating_mul(file.page_bytes);
            let lock = "nobody reads or writes meanwhile: it takes as long as writing the file anew";
            let step = plain(StepAction::Vacuum, flavour, &TableName::new("", ""), lock, because)?;
            Some(Step { reads_bytes: Some(bytes), needs_bytes: Some(bytes.saturating_mul(2)), ..step })
        }
        (index_invalid::ID, Flavour::Postgres) => {
            let index = index()?;
            match finding.remedy.as_deref() {
                Some(remedy) if remedy == drop_index(flavour, index) => {
                    of_index(StepAction::DropInvalidIndex, flavour, index, DROPS, because)
                }
                Some(remedy) if remedy.starts_with("REINDEX") => reindex(index, &because),
                _ => None,
            }
        }
        (bloat::INDEX, Flavour::Postgres) => reindex(index()?, &because),
        (index_duplicate::ID | index_redundant::ID | index_unused::ID, _) if options.retire_indexes => {
            let index = index()?;
            // Where the remedy is another one, something has to be looked at first.
            finding.remedy.as_ref().filter(|remedy| **remedy == drop_index(flavour, index) && !index.is_partitioned)?;
            let instead = ["same_as", "covered_by"].iter().find_map(|name| finding.evidence.get(*name)?.as_str());
            let step = retire(flavour, index, because)?;
            Some(Step { instead: instead.map(str::to_owned), ..step })
        }
        _ => None,
    }
}

const VACUUMS: &str =
    "nobody waits for it but changes of the table's definition and other vacuums; it waits for those for a second";
const DROPS: &str =
    "nobody waits for it but changes of the table's definition; it waits for queries of that table that run";
const REBUILDS: &str = "nobody waits for it but changes of the table's definition; it waits, more than once, for transactions that are open";
const BUILDS: &str = "nobody waits for it but at its beginning and end, where it waits for open transactions on the table for a second at most; replicas do it after it, and are behind for as long";
const BRIEFLY: &str = "it waits for open transactions on the table for a second at most; the table's queries wait with it, then it is done at once";

fn plain(action: StepAction, flavour: Flavour, table: &TableName, lock: &str, because: String) -> Option<Step> {
    bare(action, table, None, lock, because).with_sql(flavour)
}

fn bare(action: StepAction, table: &TableName, index: Option<String>, lock: &str, because: String) -> Step {
    Step {
        action,
        table: table.clone(),
        index,
        sql: String::new(),
        lock: lock.to_owned(),
        reads_bytes: None,
        needs_bytes: None,
        undo: None,
        because,
        definition: None,
        instead: None,
    }
}

impl Step {
    fn with_sql(mut self, flavour: Flavour) -> Option<Self> {
        self.sql = self.statement(flavour)?;
        Some(self)
    }
}

fn of_index(action: StepAction, flavour: Flavour, index: &Index, lock: &str, because: String) -> Option<Step> {
    Step {
        definition: identity(index),
        undo: index.definition.clone().filter(|_| action == StepAction::DropIndex),
        ..bare(action, &index.table, Some(index.name.clone()), lock, because)
    }
    .with_sql(flavour)
}

fn reindex(index: &Index, because: &str) -> Option<Step> {
    let step = of_index(StepAction::Reindex, Flavour::Postgres, index, REBUILDS, because.to_owned())?;
    Some(Step { needs_bytes: index.bytes, ..step })
}

fn retire(flavour: Flavour, index: &Index, because: String) -> Option<Step> {
    let (table, name) = (sql_name(flavour, &index.table), quoted(flavour, &index.name));
    let show = match flavour {
        Flavour::Mysql => "VISIBLE",
        Flavour::MariaDb => "NOT IGNORED",
        Flavour::Postgres => return of_index(StepAction::DropIndex, flavour, index, DROPS, because),
        Flavour::Sqlite => {
            return of_index(StepAction::DropIndex, flavour, index, "other writers wait, for a moment", because);
        }
    };
    let step = of_index(StepAction::HideIndex, flavour, index, BRIEFLY, because)?;
    Some(Step { undo: Some(format!("ALTER TABLE {table} ALTER INDEX {name} {show}")), ..step })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::sample::{index, table};

    fn plan() -> Plan {
        let step =
            of_index(StepAction::DropIndex, Flavour::Sqlite, &index("o", "a", &["x"]), DROPS, "unused".into()).unwrap();
        let mut plan = Plan {
            version: 1,
            location: "sqlite:shop.db".into(),
            flavour: Flavour::Sqlite,
            made_at: DateTime::UNIX_EPOCH,
            expires_at: DateTime::UNIX_EPOCH + LASTS,
            steps: vec![step],
            unknown: vec![],
            hash: String::new(),
        };
        plan.hash = plan.digest().unwrap();
        plan
    }

    #[test]
    fn a_plan_that_was_edited_is_old_or_for_another_database_is_refused() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::hours(1);
        let of = |plan: &Plan, location: &str, now| plan.check(location, now).map_err(|e| e.kind());
        assert_eq!(of(&plan(), "sqlite:shop.db", now), Ok(()));
        assert_eq!(of(&plan(), "sqlite:other.db", now), Err(ErrorKind::Drift));
        assert_eq!(of(&plan(), "sqlite:shop.db", now + TimeDelta::days(2)), Err(ErrorKind::Drift));
        let mut edited = plan();
        edited.steps[0].sql = "DROP TABLE o".into();
        assert_eq!(of(&edited, "sqlite:shop.db", now), Err(ErrorKind::Drift));
        // Whoever makes a new hash cannot make it do anything else.
        edited.hash = edited.digest().unwrap();
        assert_eq!(of(&edited, "sqlite:shop.db", now), Err(ErrorKind::Drift));
        // It is the same after a journey as text.
        let text = serde_json::to_string(&plan()).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan());
    }

    #[test]
    fn what_changed_meanwhile_is_noticed() {
        let schema = |i: Vec<Index>| Schema { tables: vec![table("o")], indexes: i, ..Schema::default() };
        let step = &plan().steps[0];
        assert_eq!(step.drift(&schema(vec![index("o", "a", &["x"])])), None);
        assert!(step.drift(&schema(vec![])).unwrap().contains("gone"));
        assert!(step.drift(&schema(vec![index("o", "a", &["y"])])).unwrap().contains("another"));
        assert!(step.drift(&schema(vec![Index { visible: false, ..index("o", "a", &["x"]) }])).is_some());
        assert!(step.drift(&Schema::default()).is_some());
        // Used since, or needed by a foreign key.
        assert!(step.drift(&schema(vec![Index { scans: Some(1), ..index("o", "a", &["x"]) }])).is_some());
        let key = crate::schema::sample::foreign_key("o", &["x"], "c");
        let needed = Schema { foreign_keys: vec![key], ..schema(vec![index("o", "a", &["x"])]) };
        assert!(step.drift(&needed).is_some());
        // What does its work is gone.
        let twin = Step { instead: Some("b".into()), ..step.clone() };
        assert!(twin.drift(&schema(vec![index("o", "a", &["x"])])).unwrap().contains("does the work"));
        assert_eq!(twin.drift(&schema(vec![index("o", "a", &["x"]), index("o", "b", &["x"])])), None);
        let invalid = Step { action: StepAction::DropInvalidIndex, ..step.clone() };
        assert!(invalid.drift(&schema(vec![index("o", "a", &["x"])])).is_some());
        assert_eq!(invalid.drift(&schema(vec![Index { state: State::Invalid, ..index("o", "a", &["x"]) }])), None);
    }
}
