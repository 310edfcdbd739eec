//! Some tables of a snapshot, into a database that lives on.

use std::collections::BTreeSet;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::copy_table;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, EntryRecord, Manifest};
use crate::postgres::{Database, Script, parts};
use crate::source::postgres::SEQUENCES;
use crate::sql::{literal, trusted};
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
    full: bool,
    /// Its own triggers that are on, and how they are switched on.
    triggers: Vec<(String, String)>,
    /// Its columns that count by a sequence, with that sequence.
    counted: Vec<(String, String)>,
}

impl Selection {
    pub(super) fn new(manifest: &Manifest, only: &Only, clean: bool) -> Self {
        let chosen = |e: &&EntryRecord| e.kind == EntryKind::Data && !e.before.is_empty() && only.matches(&e.subject);
        let tables = manifest.entries.iter().filter(chosen);
        Self {
            clean,
            tables: tables
                .map(|e| Chosen {
                    entry: e.name.clone(),
                    table: copy_table(&e.before).to_owned(),
                    there: false,
                    full: false,
                    triggers: Vec::new(),
                    counted: Vec::new(),
                })
                .collect(),
            sequences: std::sync::Mutex::default(),
        }
    }

    /// Begins the transaction, looks which of them are there, and refuses what would harm other tables.
    pub(super) async fn look(mut self, database: &Database, session: &mut PgConnection) -> Result<Self> {
        let failed = |e| database.failed("could not be read", e);
        database.run(session, "BEGIN; SET LOCAL lock_timeout = '30s'; SET CONSTRAINTS ALL DEFERRED").await?;
        let tables: Vec<String> = self.tables().map(str::to_owned).collect();
        for chosen in &mut self.tables {
            let row =
                sqlx::query(ABOUT).bind(&chosen.table).bind(&tables).fetch_one(&mut *session).await.map_err(failed)?;
            chosen.there = row.try_get(0).map_err(failed)?;
            let along: Option<String> = row.try_get(1).map_err(failed)?;
            let linked: Option<String> = row.try_get(2).map_err(failed)?;
            if !chosen.there {
                continue;
            }
            // Nobody adds rows between this look and the end.
            let lock = format!("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE", chosen.table);
            database.run(session, &lock).await?;
            let sql = format!("SELECT EXISTS (SELECT 1 FROM ONLY {})", chosen.table);
            chosen.full = sqlx::query_scalar(trusted(sql)).fetch_one(&mut *session).await.map_err(failed)?;
            let refused = |why: String, next: &str| {
                Err(Error::new(ErrorKind::TargetNotEmpty, format!("{}: {why}", database.location()))
                    .with_next_step(next))
            };
            if chosen.full && !self.clean {
                let next = "restore into another database, or say --clean to replace these rows";
                return refused(format!("{} has rows", chosen.table), next);
            }
            if chosen.full
                && let Some(along) = along
            {
                let why = format!(
                    "the rows of {} cannot be replaced: foreign keys of {along} would delete or change their own rows along with them",
                    chosen.table
                );
                return refused(why, "restore into an empty database, and move over by hand what is missing");
            }
            if let Some(linked) = linked {
                let why =
                    format!("{} refers to {linked}, which is there as well and to be restored as well", chosen.table);
                return refused(why, "restore one of them at a time, or all into an empty database");
            }
            for row in sqlx::query(TRIGGERS).bind(&chosen.table).fetch_all(&mut *session).await.map_err(failed)? {
                chosen.triggers.push((row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?));
            }
            for row in sqlx::query(COUNTED).bind(&chosen.table).fetch_all(&mut *session).await.map_err(failed)? {
                chosen.counted.push((row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?));
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

    /// Keeps the definitions of the tables that are made, their sequences included. What belongs to one of them and to a
    /// table that is not made is left out and told.
    pub(super) fn pick(&self, script: &mut Script) -> Result<Vec<String>> {
        let mut made: BTreeSet<Name> = self.tables.iter().filter(|c| !c.there).map(|c| parts(&c.table)).collect();
        let mut sequences = self.sequences.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut missed = Vec::new();
        for statement in &script.statements {
            let text = statement.text.as_str();
            let Some(object) = statement.object() else { continue };
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
            } else if let Some((_, name)) = text.split_once(" ATTACH PARTITION ")
                && made.contains(&parts(name))
            {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("{name} is a partition of another table: alone it would not be part of that again"),
                )
                .with_next_step("restore into an empty database, and move its rows over"));
            } else if let Some((_, name)) = text.split_once(" REFERENCES ")
                && made.contains(&parts(name))
                && !made.contains(&object)
            {
                missed.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        made.extend(sequences.iter().cloned());
        script.statements.retain(|s| s.object().is_some_and(|object| made.contains(&object)));
        Ok(missed)
    }

    /// Whether a line that sets a sequence is about one that was made.
    pub(super) fn wants_line(&self, line: &str) -> bool {
        let name = line.split_once("setval('").and_then(|(_, rest)| rest.split_once("', ")).map(|(name, _)| name);
        let sequences = self.sequences.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        name.is_some_and(|name| sequences.contains(&parts(&name.replace("''", "'"))))
    }

    /// What comes before the rows of a table.
    pub(super) fn begin(&self, entry: &EntryRecord) -> Result<String> {
        let chosen =
            self.of(entry).ok_or_else(|| Error::new(ErrorKind::Internal, format!("{} was not chosen", entry.name)))?;
        let table = &chosen.table;
        // Its own triggers saw these rows when they were new.
        let quiet = chosen.triggers.iter().map(|(name, _)| format!("ALTER TABLE {table} DISABLE TRIGGER {name}; "));
        let room = if chosen.full { format!("DELETE FROM ONLY {table}") } else { String::new() };
        Ok(quiet.chain([room]).collect())
    }

    /// What comes after them.
    pub(super) fn end(&self, entry: &EntryRecord) -> String {
        let Some(chosen) = self.of(entry) else { return String::new() };
        let table = &chosen.table;
        let again = chosen.triggers.iter().map(|(name, how)| format!("ALTER TABLE {table} {how} TRIGGER {name}; "));
        // Only ever forward: numbers that were given out since are not given out again.
        let counted = chosen.counted.iter().map(|(column, sequence)| {
            format!(
                "SELECT pg_catalog.setval({}, GREATEST((SELECT pg_catalog.max({column}) FROM ONLY {table}), (SELECT last_value FROM {sequence}))) \
                 WHERE EXISTS (SELECT 1 FROM ONLY {table} WHERE {column} IS NOT NULL); ",
                literal(sequence)
            )
        });
        again.chain(counted).collect()
    }
}

/// Of a table: whether it is there; who would lose rows along with it; whom it refers to among those to be restored.
const ABOUT: &str = "SELECT t IS NOT NULL, \
      (SELECT pg_catalog.string_agg(conrelid::pg_catalog.regclass::text, ', ') FROM pg_catalog.pg_constraint \
        WHERE contype = 'f' AND confrelid = t AND conrelid <> t AND confdeltype IN ('c', 'n', 'd')), \
      (SELECT pg_catalog.string_agg(confrelid::pg_catalog.regclass::text, ', ') FROM pg_catalog.pg_constraint \
        WHERE contype = 'f' AND conrelid = t AND confrelid <> t AND confrelid IN (SELECT pg_catalog.to_regclass(o) FROM pg_catalog.unnest($2) o)) \
    FROM (SELECT pg_catalog.to_regclass($1) AS t) x";
/// Its own triggers that are on, with the words that switch them on.
const TRIGGERS: &str = "SELECT pg_catalog.quote_ident(tgname), CASE tgenabled WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END \
    FROM pg_catalog.pg_trigger WHERE tgrelid = $1::pg_catalog.regclass AND NOT tgisinternal AND tgenabled <> 'D'";
/// Its columns that count by a sequence.
const COUNTED: &str = "SELECT pg_catalog.quote_ident(column_name), sequence FROM ( \
      SELECT attname AS column_name, pg_catalog.pg_get_serial_sequence($1, attname::text) AS sequence FROM pg_catalog.pg_attribute \
      WHERE attrelid = $1::pg_catalog.regclass AND attnum > 0 AND NOT attisdropped) c WHERE sequence IS NOT NULL";
