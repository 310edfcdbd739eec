//! Where a snapshot can be restored to: a [`Target`] opens an [`Intake`], which takes entries and then commits all of
//! them or none.

mod discard;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

pub use self::discard::Discard;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryRecord, Manifest, Unit};
use crate::source::Source;

/// How a target is to be filled.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Filling {
    /// Replace what is there. Without it a target that holds anything is refused.
    pub clean: bool,
    /// Only what matches: tables by name, files by path.
    pub only: Option<Only>,
    /// Who owns and may use what, too.
    pub ownership: bool,
    /// The rows are of different instants: a foreign key that does not hold is no reason to stop.
    pub composed: bool,
}

/// Rows that refer to rows that are not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Orphans {
    /// The table that they are in.
    pub table: String,
    /// The foreign key that does not hold, and where it leads.
    pub reference: String,
    /// How many they are.
    pub rows: u64,
    /// The first of them: the values that lead nowhere, or their rowid.
    pub first: Vec<String>,
}

/// A glob over names of tables or paths of files.
#[derive(Debug, Clone)]
pub struct Only(GlobMatcher);

impl Only {
    /// What `glob` matches.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it makes no sense.
    pub fn new(glob: &str) -> Result<Self> {
        let glob = Glob::new(glob).map_err(|e| {
            Error::new(ErrorKind::Config, format!("{glob:?} is no glob: {e}"))
                .with_next_step("name a table or file, or a glob such as order* or products/**")
        })?;
        Ok(Self(glob.compile_matcher()))
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: impl AsRef<std::path::Path>) -> bool {
        self.0.is_match(name)
    }
}

impl std::fmt::Display for Only {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.glob().glob())
    }
}

/// Somewhere a snapshot can be restored to.
#[async_trait]
pub trait Target: Debug + Send + Sync {
    /// What messages call it; no secret.
    fn location(&self) -> String;

    /// Prepares to be filled with `manifest`'s snapshot; nothing that was there is touched before
    /// [`Intake::finish`].
    ///
    /// # Errors
    /// [`ErrorKind::TargetNotEmpty`] where something is there and `filling` does not say to replace it;
    /// [`ErrorKind::Config`] where the snapshot is of another kind.
    async fn open(&self, manifest: &Manifest, filling: &Filling) -> Result<Box<dyn Intake>>;

    /// The restored thing as a source, so that what arrived can be compared with what was sent. `None` where nothing
    /// is kept.
    fn read_back(&self) -> Option<Box<dyn Source>>;

    /// Runs the queries of `text` against what was restored: see [`Invariant`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where this kind of target has no queries.
    async fn check_invariants(&self, text: &str) -> Result<Vec<Invariant>> {
        let _ = text;
        Err(Error::new(
            ErrorKind::Config,
            format!("{} holds no database: invariants cannot be checked", self.location()),
        ))
    }

    /// The rows of what was restored whose foreign keys do not hold.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] where it cannot be asked.
    async fn orphans(&self) -> Result<Vec<Orphans>> {
        Ok(Vec::new())
    }

    /// Whether there is nothing there yet: what a drill demands of its scratch place. Where it is, notes what there was, for
    /// [`remove`](Self::remove).
    async fn is_vacant(&self) -> Result<bool>;

    /// Removes everything that a restore put there, also one whose future was dropped in the middle. Only for what was
    /// [found vacant](Self::is_vacant) before, by this target.
    async fn remove(&self) -> Result<()>;
}

/// A rule of the shop that a restored database has to keep: a query that finds what breaks it, so none of its rows may
/// exist. In a file of invariants a comment line before each query names it:
///
/// ```sql
/// -- every order item has its order
/// SELECT i.id FROM order_items i LEFT JOIN orders o ON o.id = i.order_id WHERE o.id IS NULL;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Invariant {
    /// The comment before it, or the query's beginning.
    pub name: String,
    /// How many rows break it, or why it could not be asked.
    pub outcome: InvariantOutcome,
}

/// What became of an [`Invariant`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InvariantOutcome {
    /// No row breaks it.
    Holds,
    /// So many rows break it.
    Broken(u64),
    /// The query failed: whether it holds is not known.
    Unknown(String),
}

impl Invariant {
    /// Whether it is known to hold.
    pub fn holds(&self) -> bool {
        self.outcome == InvariantOutcome::Holds
    }
}

/// A target being filled. Dropped without [`finish`](Intake::finish) it leaves what was there before.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Whether this entry is needed.
    fn wants(&self, entry: &EntryRecord) -> bool;

    /// Whether this unit of a files entry is needed.
    fn wants_unit(&self, unit: &Unit) -> bool {
        let _ = unit;
        true
    }

    /// Why what the target then holds need not be equal to this entry; `None` where it has to be. Asked after all
    /// entries were taken.
    fn may_differ(&self, entry: &EntryRecord) -> Option<String> {
        let _ = entry;
        None
    }

    /// How many entries of data it takes side by side.
    fn concurrency(&self) -> usize {
        1
    }

    /// Takes one entry's bytes, already checked against the signed index. Entries come by kind: what comes before the
    /// data, the data, what comes after it.
    async fn take(&self, entry: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()>;

    /// Takes back what can be taken back, after an error. What else there was to say is in that error.
    async fn abandon(self: Box<Self>) {}

    /// Makes it all visible, durably. What could not be kept as it was (owners, say) is told.
    async fn finish(self: Box<Self>) -> Result<Vec<String>>;
}

/// Splits a text of SQL statements, each with the comment line before it as its name.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) fn named_statements(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut name = None;
    let mut sql = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if sql.trim().is_empty()
            && let Some(comment) = trimmed.strip_prefix("--")
        {
            name = Some(comment.trim().to_owned());
            continue;
        }
        sql.push_str(line);
        sql.push('\n');
        if trimmed.ends_with(';') {
            let statement = std::mem::take(&mut sql).trim().trim_end_matches(';').to_owned();
            let name = name.take().unwrap_or_else(|| statement.chars().take(60).collect());
            if !statement.is_empty() {
                out.push((name, statement));
            }
        }
    }
    let rest = sql.trim();
    if !rest.is_empty() {
        out.push((name.unwrap_or_else(|| rest.chars().take(60).collect()), rest.to_owned()));
    }
    out
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    #[test]
    fn statements_keep_their_names() {
        let text = "-- one\nSELECT 1;\n\nSELECT 2\n  FROM t;\n-- three\nSELECT 3";
        assert_eq!(
            named_statements(text),
            [
                ("one".to_owned(), "SELECT 1".to_owned()),
                ("SELECT 2\n  FROM t".to_owned(), "SELECT 2\n  FROM t".to_owned()),
                ("three".to_owned(), "SELECT 3".to_owned()),
            ]
        );
    }
}
