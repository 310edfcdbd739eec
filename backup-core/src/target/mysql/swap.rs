//! Putting a restored database's tables in the place of another's.
//!
//! The server cannot rename a database, and moves no table that has triggers. So the old triggers are dropped, one
//! `RENAME TABLE` moves all tables, out and in, and programs are made after it. Before anything is dropped, the old
//! programs are written down in the database that takes the old tables, and every table is locked once, so that a busy shop
//! is refused while nothing has changed. What the server did is never guessed: after a lost connection it is looked up.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use super::place::{contents, drop_database, drop_object};
use super::programs::Programs;
use crate::error::{Error, ErrorKind, Result};
use crate::mysql::{Database, Object, ObjectKind, Server, close, identifier, literal, number_of, write};
use crate::source::mysql::programs;
use crate::sql::trusted;

/// Seconds that one lock is waited for while nothing has changed yet, and while the new programs are made.
const LOCK_WAIT: u32 = 10;
/// The same once the old triggers are gone.
const MOVE_WAIT: u32 = 3;
/// How often a definition is tried again that the shop's statements are in the way of.
const ATTEMPTS: u32 = 18;
/// How long a session that was lost may take to end on the server.
const LOST: Duration = Duration::from_secs(600);
/// Where the old programs are written down.
const NOTES: &str = "caretaker_programs";

/// Refuses a database whose tables cannot be taken out of it.
pub(super) async fn check(live: &Database, replaced: &Database, session: &mut MySqlConnection) -> Result<()> {
    let sql = format!(
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.KEY_COLUMN_USAGE \
         WHERE REFERENCED_TABLE_SCHEMA = {0} AND TABLE_SCHEMA <> {0} LIMIT 1",
        literal(live.name())
    );
    let failed = |e| live.failed("could not be read", e);
    let rows = session.fetch_all(sqlx::raw_sql(trusted(sql))).await.map_err(failed)?;
    if let Some(row) = rows.first() {
        let other: String = row.try_get_unchecked(0).map_err(failed)?;
        return Err(Error::new(
            ErrorKind::TargetNotEmpty,
            format!(
                "{other}, in another database, has a foreign key to a table of {}: its place cannot be taken",
                live.location()
            ),
        )
        .with_next_step("drop that foreign key for the time being, or restore into a new database"));
    }
    // A right that is missing has to show now, not when everything is loaded.
    let name = identifier(replaced.name());
    let made = live.run(session, &format!("CREATE DATABASE {name}; DROP DATABASE {name}")).await;
    made.map_err(|e| {
        Error::new(ErrorKind::Target, format!("{} cannot be made: {e}", replaced.location()))
            .with_next_step("give the user all rights on a database of that name, or restore into a new database")
    })
}

/// Puts what `staging` holds in the place of what `live` holds, which moves to `replaced` and is dropped last; gives what
/// there is to tell.
pub(super) async fn swap(
    live: &Database,
    staging: &Database,
    replaced: &Database,
    again: &[Object],
    ownership: bool,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let (plan, moved) = match Plan::make(live, staging, replaced).await {
        Ok(plan) => {
            let moved = plan.move_tables(live, staging, replaced).await;
            (plan, moved)
        }
        Err(e) => {
            let e = Error::new(e.kind(), format!("{e}; nothing was changed")).with_retry(e.is_retryable());
            return Err(take_back(live, staging, replaced, &[], e).await);
        }
    };
    if let Err(e) = moved {
        match plan.has_moved(live, staging, &e).await {
            Ok(true) => notes.push(format!("the tables were moved, though the answer was lost ({e})")),
            Ok(false) => return Err(take_back(live, staging, replaced, &plan.triggers, e).await),
            Err(unknown) => {
                let why = format!(
                    "{e}; whether the tables were moved could not be seen ({unknown}): they are in {0} or in {1}, and what \
                     is to replace them in {2} or in {0}; the old programs are in {1}.{NOTES}",
                    live.name(),
                    replaced.name(),
                    staging.name()
                );
                return Err(
                    Error::new(e.kind(), why).with_next_step("look where the tables are before anything is dropped")
                );
            }
        }
    }
    match plan.define(live, again, ownership).await {
        Ok(more) => notes.extend(more),
        Err(e) => {
            let parked = replaced.name();
            let why = format!(
                "the tables are in place, and not all that belongs to them: {e}; the tables of before are in {parked}, and \
                 their programs in {parked}.{NOTES}"
            );
            return Err(Error::new(e.kind(), why).with_next_step(
                "make what is missing by hand, or move aside what is there and restore once more into a new database",
            ));
        }
    }
    for rest in [replaced, staging] {
        if let Err(e) = drop_database(rest).await {
            notes.push(format!("the database {} could not be dropped: {e}", rest.name()));
        }
    }
    Ok(notes)
}

/// What has to be known before anything changes.
struct Plan {
    /// What the old database and the new one hold.
    old: Vec<(String, String)>,
    made: Vec<(String, String)>,
    /// The old database's triggers, each after what its session has to be set to.
    triggers: Vec<Object>,
    session: tokio::sync::Mutex<MySqlConnection>,
    id: String,
    mariadb: bool,
}

impl Plan {
    /// Looks, writes the old programs down, and waits for a quiet moment. The live database is as it was after any error.
    async fn make(live: &Database, staging: &Database, replaced: &Database) -> Result<Self> {
        let failed = |e| live.failed("could not be read", e);
        let mut session = live.connect().await?;
        let mariadb = Server::of(&mut session).await.map_err(failed)?.mariadb;
        let set = format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}, foreign_key_checks = 0");
        live.run(&mut session, &set).await?;
        let row = session.fetch_one(sqlx::raw_sql("SELECT CAST(CONNECTION_ID() AS CHAR)")).await.map_err(failed)?;
        let id: String = row.try_get_unchecked(0).map_err(failed)?;
        // Only tables move. That all the rest can be made is known by now.
        let made = contents(staging, &mut session).await?;
        for (what, name) in made.iter().filter(|(what, _)| !is_table(what)) {
            drop_object(staging, what, name, &mut session).await?;
        }
        for trigger in names_of_triggers(staging, &mut session).await? {
            drop_object(staging, "TRIGGER", &trigger, &mut session).await?;
        }
        let old = contents(live, &mut session).await?;
        let is_taken = |name: &str| made.iter().any(|(what, made)| is_table(what) && made == name);
        if let Some((_, view)) = old.iter().find(|(what, name)| what == "VIEW" && is_taken(name)) {
            let why = format!("{}: {view} is a view there and a table in the snapshot", live.location());
            return Err(Error::new(ErrorKind::TargetNotEmpty, why));
        }
        let programs = programs(live, &mut session).await?;
        live.run(&mut session, &format!("CREATE DATABASE {}", identifier(replaced.name()))).await?;
        let notes = format!("{}.{NOTES}", identifier(replaced.name()));
        let text = literal(&write(&programs));
        live.run(&mut session, &format!("CREATE TABLE {notes} (definitions longtext CHARACTER SET utf8mb4)")).await?;
        live.run(&mut session, &format!("INSERT INTO {notes} VALUES ({text})")).await?;
        let locks: Vec<String> =
            old.iter().filter(|(what, _)| what == "TABLE").map(|(_, t)| format!("{} WRITE", identifier(t))).collect();
        if !locks.is_empty() {
            let quiet = live.run(&mut session, &format!("LOCK TABLES {}", locks.join(", "))).await;
            let unlocked = live.run(&mut session, "UNLOCK TABLES").await;
            quiet?;
            unlocked?;
        }
        live.run(&mut session, &format!("SET SESSION lock_wait_timeout = {MOVE_WAIT}")).await?;
        let triggers = programs.into_iter().filter(|o| o.table.is_some()).collect();
        Ok(Self { old, made, triggers, session: tokio::sync::Mutex::new(session), id, mariadb })
    }

    async fn move_tables(&self, live: &Database, staging: &Database, replaced: &Database) -> Result<()> {
        let mut session = self.session.lock().await;
        for object in self.triggers.iter().filter(|o| o.kind == ObjectKind::Trigger) {
            drop_object(live, "TRIGGER", &object.name, &mut session).await?;
        }
        let tables = |of: &[(String, String)]| -> Vec<String> {
            of.iter().filter(|(what, _)| is_table(what)).map(|(_, name)| identifier(name)).collect()
        };
        let [live_name, staging_name, replaced_name] = [live, staging, replaced].map(|d| identifier(d.name()));
        let out = tables(&self.old).into_iter().map(|t| format!("{live_name}.{t} TO {replaced_name}.{t}"));
        let into = tables(&self.made).into_iter().map(|t| format!("{staging_name}.{t} TO {live_name}.{t}"));
        let moves: Vec<String> = out.chain(into).collect();
        if moves.is_empty() {
            return Ok(());
        }
        live.run(&mut session, &format!("RENAME TABLE {}", moves.join(", "))).await
    }

    /// Whether the tables were moved, whatever became of the answer.
    async fn has_moved(&self, live: &Database, staging: &Database, e: &Error) -> Result<bool> {
        if number_of(e).is_some() {
            // The server itself refused; it moves all tables or none.
            return Ok(false);
        }
        let mut session = live.connect_to_server().await?;
        let until = tokio::time::Instant::now() + LOST;
        let sql = format!("SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {}", self.id);
        loop {
            let rows = session.fetch_all(sqlx::raw_sql(trusted(sql.clone()))).await;
            if rows.map_err(|e| live.failed("could not be read", e))?.is_empty() {
                break;
            }
            if tokio::time::Instant::now() > until {
                return Err(Error::new(ErrorKind::Target, "the server is still busy with it"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let had_tables = self.made.iter().any(|(what, _)| is_table(what));
        Ok(had_tables && !contents(staging, &mut session).await?.iter().any(|(what, _)| is_table(what)))
    }

    /// Drops the old programs and makes the new ones.
    async fn define(&self, live: &Database, again: &[Object], ownership: bool) -> Result<Vec<String>> {
        // Whatever broke may have broken the other session too.
        let mut session = live.connect().await?;
        let set = format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}, foreign_key_checks = 0");
        live.run(&mut session, &set).await?;
        let comes_again =
            |name: &str| again.iter().any(|o| o.kind == ObjectKind::Routine && o.name == name && replaceable(&o.sql));
        let granted = granted_on_routines(live, &mut session).await;
        let mut routines = 0;
        for (what, name) in self.old.iter().filter(|(what, _)| !is_table(what)) {
            // Who may call a routine goes with it.
            if self.mariadb && matches!(what.as_str(), "PROCEDURE" | "FUNCTION") && comes_again(name) {
                continue;
            }
            routines += u64::from(matches!(what.as_str(), "PROCEDURE" | "FUNCTION" | "PACKAGE"));
            let mut attempt = 0;
            while let Err(e) = drop_object(live, what, name, &mut session).await {
                attempt += 1;
                if !is_in_the_way(&e) || attempt > ATTEMPTS {
                    return Err(e);
                }
            }
        }
        let programs = Programs::new(ownership);
        for object in again {
            let mut object = object.clone();
            if self.mariadb && object.kind == ObjectKind::Routine && replaceable(&object.sql) {
                object.sql = format!("CREATE OR REPLACE {}", &object.sql["CREATE ".len()..]);
            }
            let mut attempt = 0;
            loop {
                let made = if object.kind == ObjectKind::Table {
                    let mut made = Ok(());
                    for sql in own_defaults(&object) {
                        made = made.and(live.run(&mut session, &sql).await);
                    }
                    made
                } else {
                    programs.make(live, &mut session, &object).await
                };
                match made {
                    Err(e) if is_in_the_way(&e) && attempt < ATTEMPTS => attempt += 1,
                    made => break made?,
                }
            }
        }
        close(session).await;
        let mut notes = programs.notes();
        if routines > 0 && ownership && granted {
            notes.push(format!("{routines} routines were made anew: rights that were granted on single routines have to be granted again"));
        }
        Ok(notes)
    }
}

async fn names_of_triggers(database: &Database, session: &mut MySqlConnection) -> Result<Vec<String>> {
    let schema = literal(database.name());
    let sql = format!("SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {schema}");
    let failed = |e| database.failed("could not be read", e);
    let rows = session.fetch_all(sqlx::raw_sql(trusted(sql))).await.map_err(failed)?;
    rows.iter().map(|row| row.try_get_unchecked(0).map_err(failed)).collect()
}

/// Whether somebody has rights on single routines of a database; also where that may not be read.
async fn granted_on_routines(live: &Database, session: &mut MySqlConnection) -> bool {
    let sql = format!("SELECT 1 FROM mysql.procs_priv WHERE Db = {} LIMIT 1", literal(live.name()));
    session.fetch_all(sqlx::raw_sql(trusted(sql))).await.map_or(true, |rows| !rows.is_empty())
}

/// As it was before, with another session; the error says what could not be.
async fn take_back(live: &Database, staging: &Database, replaced: &Database, triggers: &[Object], e: Error) -> Error {
    let has_triggers = triggers.iter().any(|o| o.kind == ObjectKind::Trigger);
    let back = async {
        let mut session = live.connect().await?;
        let there = names_of_triggers(live, &mut session).await?;
        let programs = Programs::new(true);
        let mut lost = Vec::new();
        for object in triggers {
            if object.kind == ObjectKind::Trigger && there.contains(&object.name) {
                continue;
            }
            if let Err(e) = programs.make(live, &mut session, object).await {
                lost.push(e.to_string());
            }
        }
        // Whatever it holds besides the notes is the shop's.
        let kept = contents(replaced, &mut session).await?;
        if !lost.is_empty() || kept.iter().any(|(_, name)| name != NOTES) {
            let why = format!("{} ({}.{NOTES} has the old programs)", lost.join("; "), replaced.name());
            return Err(Error::new(ErrorKind::Target, why));
        }
        drop_database(replaced).await?;
        drop_database(staging).await?;
        Ok(programs.notes())
    };
    let mut why = e.to_string();
    match back.await {
        Ok(notes) => {
            if has_triggers {
                why += "; everything is as it was, but what was written in these seconds fired no triggers";
            } else if !why.contains("nothing was changed") {
                why += "; nothing was changed";
            }
            notes.iter().for_each(|note| {
                why += "; ";
                why += note;
            });
        }
        Err(and) => why += &format!("; and it could not be made as it was: {and}"),
    }
    Error::new(e.kind(), why)
        .with_retry(e.is_retryable())
        .with_next_step("restore when nothing uses the tables for long, or into a new database")
}

/// Whether the shop's statements kept the server from it, for now.
fn is_in_the_way(e: &Error) -> bool {
    e.is_retryable() && number_of(e).is_some()
}

fn is_table(what: &str) -> bool {
    matches!(what, "TABLE" | "SEQUENCE")
}

/// Whether `CREATE OR REPLACE` can be made of a routine's definition: not of a package's.
fn replaceable(sql: &str) -> bool {
    sql.strip_prefix("CREATE ").is_some_and(|rest| !rest.starts_with("OR REPLACE ") && !rest.contains("PACKAGE"))
}

/// Whether columns of a table take their values from a sequence: the server keeps the database's name with it.
pub(super) fn counts_by_sequence(table: &Object) -> bool {
    own_defaults(table).next().is_some()
}

/// Statements that give such columns the sequence of the table's own database.
fn own_defaults(table: &Object) -> impl Iterator<Item = String> {
    table
        .sql
        .lines()
        .map(|line| line.trim_start().trim_end_matches(','))
        .filter(|line| line.starts_with('`') && [" nextval(", " lastval("].iter().any(|f| line.contains(f)))
        .map(|column| format!("ALTER TABLE {} MODIFY {column}", identifier(&table.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_columns_that_count_by_a_sequence_are_made_anew() {
        let sql = "CREATE TABLE `t` (\n  `n` bigint(20) DEFAULT nextval(`s`),\n  `x` text DEFAULT 'y'\n)";
        let object = Object::new(ObjectKind::Table, "t", sql);
        assert_eq!(
            own_defaults(&object).collect::<Vec<_>>(),
            ["ALTER TABLE `t` MODIFY `n` bigint(20) DEFAULT nextval(`s`)"]
        );
        assert!(!counts_by_sequence(&Object::new(ObjectKind::Table, "t", "CREATE TABLE `t` (\n  `x` int(11)\n)")));
    }
}
