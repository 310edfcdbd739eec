//! Some tables of a snapshot, into a database that lives on.

use std::collections::BTreeSet;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::copy_table;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, EntryRecord, Manifest};
use crate::postgres::{Database, Script, parts};
use crate::source::postgres::SEQUENCES;
use crate::target::Only;

/// A name in its parts: schema and table.
type Name = Vec<String>;

/// The tables that were chosen, and what of them is there.
#[derive(Debug)]
pub(super) struct Selection {
    clean: bool,
    tables: Vec<Chosen>,
    /// The sequences of tables that are made.
    sequences: std::sync::Mutex<BTreeSet<Name>>,
}

#[derive(Debug)]
struct Chosen {
    entry: String,
    /// As SQL.
    table: String,
    there: bool,
}

impl Selection {
    pub(super) fn new(manifest: &Manifest, only: &Only, clean: bool) -> Self {
        let chosen = |e: &&EntryRecord| e.kind == EntryKind::Data && !e.before.is_empty() && only.matches(&e.subject);
        let tables = manifest.entries.iter().filter(chosen);
        Self {
            clean,
            tables: tables
                .map(|e| Chosen { entry: e.name.clone(), table: copy_table(&e.before).to_owned(), there: false })
                .collect(),
            sequences: std::sync::Mutex::default(),
        }
    }

    /// Looks which of them are there, and refuses what would harm other tables.
    pub(super) async fn look(mut self, database: &Database, session: &mut PgConnection) -> Result<Self> {
        let failed = |e| database.failed("could not be read", e);
        for chosen in &mut self.tables {
            let row = sqlx::query(
                "SELECT t IS NOT NULL, (SELECT pg_catalog.string_agg(conrelid::pg_catalog.regclass::text, ', ') FROM pg_catalog.pg_constraint \
                   WHERE contype = 'f' AND confrelid = t AND conrelid <> t AND confdeltype IN ('c', 'n', 'd')) \
                 FROM (SELECT pg_catalog.to_regclass($1) AS t) x",
            )
            .bind(&chosen.table)
            .fetch_one(&mut *session)
            .await
            .map_err(failed)?;
            chosen.there = row.try_get(0).map_err(failed)?;
            let along: Option<String> = row.try_get(1).map_err(failed)?;
            if !chosen.there {
                continue;
            }
            let sql = format!("SELECT EXISTS (SELECT 1 FROM ONLY {})", chosen.table);
            let full: bool =
                sqlx::query_scalar(crate::sql::trusted(sql)).fetch_one(&mut *session).await.map_err(failed)?;
            if full && !self.clean {
                return Err(Error::new(
                    ErrorKind::TargetNotEmpty,
                    format!("{} of {} has rows", chosen.table, database.location()),
                )
                .with_next_step("restore into another database, or say --clean to replace these rows"));
            }
            if full && let Some(along) = along {
                return Err(Error::new(
                    ErrorKind::TargetNotEmpty,
                    format!(
                        "the rows of {} cannot be replaced: foreign keys of {along} would delete or change their own rows along with them",
                        chosen.table
                    ),
                )
                .with_next_step("restore into an empty database, and move over by hand what is missing"));
            }
        }
        Ok(self)
    }

    fn of(&self, entry: &EntryRecord) -> Option<&Chosen> {
        self.tables.iter().find(|c| c.entry == entry.name)
    }

    fn makes_any(&self) -> bool {
        self.tables.iter().any(|c| !c.there)
    }

    pub(super) fn wants(&self, entry: &EntryRecord) -> bool {
        match entry.kind {
            EntryKind::Data if entry.name == SEQUENCES => self.makes_any(),
            EntryKind::Data => self.of(entry).is_some(),
            EntryKind::PreData | EntryKind::PostData => self.makes_any(),
            _ => false,
        }
    }

    /// The chosen tables as SQL.
    pub(super) fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|c| c.table.as_str())
    }

    /// Keeps the definitions of the tables that are made, their sequences included.
    pub(super) fn pick(&self, script: &mut Script) {
        let mut made: BTreeSet<Name> = self.tables.iter().filter(|c| !c.there).map(|c| parts(&c.table)).collect();
        let mut sequences = self.sequences.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for statement in &script.statements {
            let text = statement.text.as_str();
            let Some(object) = statement.object().map(parts) else { continue };
            if let Some((_, owner)) = text.split_once(" OWNED BY ") {
                let mut owner = parts(owner);
                owner.pop();
                if made.contains(&owner) {
                    sequences.insert(object);
                }
            } else if let Some((_, name)) = text.split_once("SEQUENCE NAME ")
                && made.contains(&object)
            {
                sequences.insert(parts(name));
            }
        }
        made.extend(sequences.iter().cloned());
        script.statements.retain(|s| s.object().is_some_and(|object| made.contains(&parts(object))));
    }

    /// Whether a line that sets a sequence is about one that was made.
    pub(super) fn wants_line(&self, line: &str) -> bool {
        let name = line.split_once("setval('").and_then(|(_, rest)| rest.split_once("', ")).map(|(name, _)| name);
        let sequences = self.sequences.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        name.is_some_and(|name| sequences.contains(&parts(&name.replace("''", "'"))))
    }

    /// How the transaction that loads a table begins.
    pub(super) fn begin(&self, entry: &EntryRecord) -> Result<String> {
        let chosen =
            self.of(entry).ok_or_else(|| Error::new(ErrorKind::Internal, format!("{} was not chosen", entry.name)))?;
        Ok(if chosen.there {
            // Its own triggers saw these rows when they were new.
            format!(
                "BEGIN; SET LOCAL lock_timeout = '30s'; SET CONSTRAINTS ALL DEFERRED; ALTER TABLE {} DISABLE TRIGGER USER",
                chosen.table
            )
        } else {
            format!("BEGIN; TRUNCATE ONLY {}", chosen.table)
        })
    }

    /// Removes the rows that are to be replaced.
    pub(super) async fn make_room(
        &self,
        database: &Database,
        session: &mut PgConnection,
        entry: &EntryRecord,
    ) -> Result<()> {
        match self.of(entry) {
            Some(chosen) if chosen.there && self.clean => {
                database.run(session, &format!("DELETE FROM ONLY {}", chosen.table)).await
            }
            _ => Ok(()),
        }
    }

    /// What comes before the end of that transaction.
    pub(super) fn end(&self, entry: &EntryRecord) -> String {
        match self.of(entry) {
            Some(chosen) if chosen.there => format!("ALTER TABLE {} ENABLE TRIGGER USER; ", chosen.table),
            _ => String::new(),
        }
    }
}
