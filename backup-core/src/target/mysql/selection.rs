//! Some tables of a snapshot, into a database that lives on: one session, one transaction.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use super::load::{Loading, load, text};
use super::programs::{Programs, named};
use super::reference::{Reference, references};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, EntryRecord, Manifest};
use crate::mysql::{Database, Object, ObjectKind, close, identifier, literal, objects_of};
use crate::source::mysql::{PROGRAMS, TABLES, Table, list, table_definition};
use crate::sql::trusted;
use crate::target::{Filling, Intake, Only};

/// Seconds that other sessions' locks are waited for.
const LOCK_WAIT: u32 = 30;

/// The tables that were chosen, and the session that fills them.
pub(super) struct Selection {
    database: Database,
    session: tokio::sync::Mutex<MySqlConnection>,
    loading: Loading,
    chosen: Vec<Chosen>,
    clean: bool,
    /// Foreign keys from and to the chosen tables that are there, and how many rows broke each before.
    references: Vec<(Reference, u64)>,
    programs: Programs,
    /// Triggers of tables that are made, to be made when their rows are there.
    later: Mutex<Vec<Object>>,
    /// What was made and has to go again if the rest fails: the word that drops it, and its name.
    made: Mutex<Vec<(&'static str, String)>>,
}

#[derive(Debug)]
struct Chosen {
    entry: String,
    name: String,
    there: bool,
}

impl Selection {
    /// Looks which of the chosen tables are there, and refuses what would harm them or others.
    pub(super) async fn look(
        database: &Database,
        mut session: MySqlConnection,
        manifest: &Manifest,
        only: &Only,
        filling: &Filling,
        loading: Loading,
    ) -> Result<Self> {
        let failed = |e| database.failed("could not be read", e);
        // Others' rows must not come in between, and keys that the snapshot does not know hold as well.
        let settings = format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
             SET SESSION lock_wait_timeout = {LOCK_WAIT}, innodb_lock_wait_timeout = {LOCK_WAIT}, unique_checks = 1"
        );
        database.run(&mut session, &settings).await?;
        let there = list(&mut session, database.name()).await.map_err(failed)?;
        let mut chosen = Vec::new();
        for entry in &manifest.entries {
            if entry.kind != EntryKind::Data || entry.insert.is_empty() || !only.matches(&entry.subject) {
                continue;
            }
            let table = there.iter().find(|t| t.name == entry.subject);
            if let Some(table) = table {
                check_fillable(database, &mut session, table, entry, filling.clean).await?;
            }
            let (entry, name) = (entry.name.clone(), entry.subject.clone());
            chosen.push(Chosen { entry, name, there: table.is_some() });
        }
        let mut selection = Self {
            database: database.clone(),
            session: tokio::sync::Mutex::new(session),
            loading,
            chosen,
            clean: filling.clean,
            references: Vec::new(),
            programs: Programs::new(filling.ownership),
            later: Mutex::default(),
            made: Mutex::default(),
        };
        let mut session = selection.session.lock().await;
        let mut references = Vec::new();
        for reference in selection.references(&mut session).await? {
            let broken = reference.broken(database, &mut session, "").await?;
            references.push((reference, broken));
        }
        // What was read so far is not of the transaction that follows.
        database.run(&mut session, "ROLLBACK").await?;
        drop(session);
        selection.references = references;
        Ok(selection)
    }

    fn of(&self, entry: &EntryRecord) -> Option<&Chosen> {
        self.chosen.iter().find(|c| c.entry == entry.name)
    }

    fn is_made(&self, table: &str) -> bool {
        self.chosen.iter().any(|c| !c.there && c.name == table)
    }

    /// Foreign keys from and to the chosen tables.
    async fn references(&self, session: &mut MySqlConnection) -> Result<Vec<Reference>> {
        let names: Vec<String> = self.chosen.iter().map(|c| literal(&c.name)).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names = names.join(", ");
        references(&self.database, session, |schema| format!("(TABLE_SCHEMA = {schema} AND TABLE_NAME IN ({names}) OR REFERENCED_TABLE_SCHEMA = {schema} AND REFERENCED_TABLE_NAME IN ({names}))")).await
    }

    /// Refuses tables whose columns are not as the snapshot has them: the server would cut values so that they fit.
    async fn compare_columns(&self, objects: &[Object]) -> Result<()> {
        let mut session = self.session.lock().await;
        for chosen in self.chosen.iter().filter(|c| c.there) {
            let Some(object) = objects.iter().find(|o| o.kind == ObjectKind::Table && o.name == chosen.name) else {
                let why = format!("the snapshot has rows of {}, and no definition of it", chosen.name);
                return Err(Error::new(ErrorKind::Damaged, why));
            };
            let live = table_definition(&self.database, &mut session, &chosen.name).await?;
            if columns(&live) != columns(&object.sql) {
                return Err(Error::new(
                    ErrorKind::TargetNotEmpty,
                    format!("{}: {} has other columns than the snapshot's", self.database.location(), chosen.name),
                )
                .with_next_step("restore into an empty database, and move over by hand what is missing"));
            }
        }
        Ok(())
    }

    /// Makes the chosen tables that are not there, with the sequences they count by.
    async fn make_tables(&self, objects: &[Object]) -> Result<()> {
        let mut session = self.session.lock().await;
        let failed = |e| self.database.failed("could not be read", e);
        let there = list(&mut session, self.database.name()).await.map_err(failed)?;
        let tables: Vec<&Object> =
            objects.iter().filter(|o| o.kind == ObjectKind::Table && self.is_made(&o.name)).collect();
        let is_used = |sequence: &str| {
            tables.iter().any(|t| t.sql.contains(&format!("({})", identifier(sequence))))
                && !there.iter().any(|t| t.name == sequence)
        };
        for object in objects {
            let what = match object.kind {
                ObjectKind::Table if self.is_made(&object.name) => "TABLE",
                ObjectKind::Sequence if is_used(&object.name) => "SEQUENCE",
                _ => continue,
            };
            self.database.run(&mut session, &object.sql).await.map_err(|e| named(e, &object.name))?;
            lock(&self.made).push((what, object.name.clone()));
        }
        Ok(())
    }

    async fn load(&self, entry: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let mut session = self.session.lock().await;
        let about = |e| named(e, &entry.subject);
        match self.of(entry) {
            // All of it is locked by that, an empty one too.
            Some(chosen) if chosen.there && self.clean => {
                let sql = format!("DELETE FROM {}", identifier(&entry.subject));
                self.database.run(&mut session, &sql).await.map_err(about)?;
            }
            Some(chosen) if chosen.there => {
                let sql = format!("SELECT 1 FROM {} LIMIT 1 FOR UPDATE", identifier(&entry.subject));
                let rows = session.fetch_all(sqlx::raw_sql(trusted(sql))).await;
                if !rows.map_err(|e| self.database.failed("could not be read", e))?.is_empty() {
                    let why = format!("{}: {} has rows by now", self.database.location(), entry.subject);
                    return Err(
                        Error::new(ErrorKind::TargetNotEmpty, why).with_next_step("say --clean to replace these rows")
                    );
                }
            }
            _ => {}
        }
        load(&self.database, &mut session, entry, body, self.loading).await
    }

    /// Refuses what would leave rows that refer to nothing, where there were none before.
    async fn check_references(&self, session: &mut MySqlConnection) -> Result<()> {
        // Asked again: tables that were made have some as well.
        for reference in self.references(session).await? {
            let known = self.references.iter().find(|(r, _)| r.name == reference.name && r.from == reference.from);
            let before = known.map_or(0, |(_, before)| *before);
            // Locked, so that it is what is true when this is committed.
            let broken = reference.broken(&self.database, session, " LOCK IN SHARE MODE").await?;
            if broken > before {
                return Err(Error::new(
                    ErrorKind::TargetNotEmpty,
                    format!(
                        "{}: {} rows of {} would refer to rows of {} that are not there (foreign key {}); nothing was changed",
                        self.database.location(), broken - before, reference.from, reference.to, reference.name
                    ),
                )
                .with_next_step("restore the tables that belong together, or into an empty database and move over by hand what is missing"));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Intake for Selection {
    fn wants(&self, entry: &EntryRecord) -> bool {
        match entry.kind {
            EntryKind::Data => self.of(entry).is_some(),
            EntryKind::PreData | EntryKind::PostData => {
                entry.name == TABLES && !self.chosen.is_empty()
                    || entry.name == PROGRAMS && self.chosen.iter().any(|c| !c.there)
            }
            _ => false,
        }
    }

    async fn take(&self, entry: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        if entry.kind == EntryKind::Data {
            return self.load(entry, body).await;
        }
        let objects = objects_of(&text(entry, body).await?)?;
        if entry.name == TABLES {
            self.compare_columns(&objects).await?;
            return self.make_tables(&objects).await;
        }
        // They would end the transaction, and see rows that they saw before.
        lock(&self.later).extend(objects.into_iter().filter(|o| o.table.as_ref().is_some_and(|t| self.is_made(t))));
        Ok(())
    }

    async fn abandon(self: Box<Self>) {
        let Self { database, session, made, .. } = *self;
        // Its transaction ends with it.
        drop(session);
        let made = made.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(e) = take_back(&database, made).await {
            tracing::warn!(database = %database.location(), error = %e, "tables that the failed restore had made are still there");
        }
    }

    async fn finish(self: Box<Self>) -> Result<Vec<String>> {
        let mut session = self.session.lock().await;
        let done = match self.check_references(&mut session).await {
            Ok(()) => self.database.run(&mut session, "COMMIT").await,
            Err(e) => Err(e),
        };
        drop(session);
        if let Err(e) = done {
            self.abandon().await;
            return Err(e);
        }
        let Self { database, session, programs, later, .. } = *self;
        let mut session = session.into_inner();
        let mut notes = Vec::new();
        for object in later.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            // The rows are there and stay; a trigger that is missing has to be known.
            if let Err(e) = programs.make(&database, &mut session, &object).await {
                notes.push(format!("the trigger {} could not be made: {e}", object.name));
            }
        }
        close(session).await;
        notes.extend(programs.notes());
        Ok(notes)
    }
}

/// Refuses a table that cannot take the entry's rows.
async fn check_fillable(
    database: &Database,
    session: &mut MySqlConnection,
    table: &Table,
    entry: &EntryRecord,
    clean: bool,
) -> Result<()> {
    let failed = |e| database.failed("could not be read", e);
    let name = &table.name;
    let refused = |why: String, next: &str| {
        Err(Error::new(ErrorKind::TargetNotEmpty, format!("{}: {why}", database.location()))
            .with_next_step(next.to_owned()))
    };
    let elsewhere = "restore into an empty database, and move over by hand what is missing";
    let sql = format!("SELECT 1 FROM {} LIMIT 1", identifier(name));
    let full = !session.fetch_all(sqlx::raw_sql(trusted(sql))).await.map_err(failed)?.is_empty();
    if full && !clean {
        let next = "restore into another database, or say --clean to replace these rows";
        return refused(format!("{name} has rows"), next);
    }
    if table.insert() != entry.insert {
        return refused(format!("{name} has other columns than the snapshot's"), elsewhere);
    }
    if !table.is_transactional() {
        return refused(
            format!("{name} is of the engine {}, which takes nothing back if this fails", table.engine()),
            elsewhere,
        );
    }
    if table.is_versioned() && full {
        return refused(format!("{name} keeps its history, which cannot be replaced"), elsewhere);
    }
    let sql = format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {} AND EVENT_OBJECT_TABLE = {} AND EVENT_MANIPULATION IN ('INSERT', {}) LIMIT 1",
        literal(database.name()),
        literal(name),
        // Rows may come into an empty table until it is locked.
        if clean { "'DELETE'" } else { "'INSERT'" }
    );
    let triggers = session.fetch_all(sqlx::raw_sql(trusted(sql))).await.map_err(failed)?;
    if let Some(row) = triggers.first() {
        let trigger: String = row.try_get_unchecked(0).map_err(failed)?;
        let why = format!("the trigger {trigger} would act upon each row of {name}, which it saw when they were new");
        return refused(why, "drop the trigger for the time of the restore, or restore into an empty database");
    }
    Ok(())
}

/// The lines of a definition that are columns, in any order.
fn columns(definition: &str) -> BTreeSet<&str> {
    definition.lines().filter(|l| l.starts_with("  `")).map(|l| l.trim_end_matches(',')).collect()
}

async fn take_back(database: &Database, made: Vec<(&'static str, String)>) -> Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    let mut session = database.connect().await?;
    database.run(&mut session, "SET SESSION foreign_key_checks = 0").await?;
    for (what, name) in made {
        database.run(&mut session, &format!("DROP {what} IF EXISTS {}", identifier(&name))).await?;
    }
    close(session).await;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
