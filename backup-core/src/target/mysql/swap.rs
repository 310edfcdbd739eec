//! Putting a restored database's tables in the place of another's.
//!
//! The server cannot rename a database, and moves no table that has triggers. So the old triggers are dropped first, one
//! `RENAME TABLE` moves all tables, out and in, and programs are made after it.

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use super::place::{contents, drop_database, drop_object};
use super::programs::Programs;
use crate::error::{Error, ErrorKind, Result};
use crate::mysql::{Database, Object, ObjectKind, close, identifier, literal};
use crate::source::mysql::triggers;
use crate::sql::trusted;

/// Seconds that the shop's statements may keep the tables from being moved, and that the shop may have to wait for us.
const LOCK_WAIT: u32 = 10;

/// Refuses a database whose tables cannot be taken out of it.
pub(super) async fn check(live: &Database, session: &mut MySqlConnection) -> Result<()> {
    let sql = format!(
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.KEY_COLUMN_USAGE \
         WHERE REFERENCED_TABLE_SCHEMA = {0} AND TABLE_SCHEMA <> {0} LIMIT 1",
        literal(live.name())
    );
    let failed = |e| live.failed("could not be read", e);
    let rows = session.fetch_all(sqlx::raw_sql(trusted(sql))).await.map_err(failed)?;
    let Some(row) = rows.first() else { return Ok(()) };
    let other: String = row.try_get_unchecked(0).map_err(failed)?;
    Err(Error::new(
        ErrorKind::TargetNotEmpty,
        format!(
            "{other}, in another database, has a foreign key to a table of {}: its place cannot be taken",
            live.location()
        ),
    )
    .with_next_step("drop that foreign key for the time being, or restore into a new database"))
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
    let mut session = live.connect().await?;
    let set = format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}, foreign_key_checks = 0");
    live.run(&mut session, &set).await?;
    // Only tables move. That all the rest can be made is known by now.
    let made = contents(staging, &mut session).await?;
    for (what, name) in made.iter().filter(|(what, _)| !is_table(what)) {
        drop_object(staging, what, name, &mut session).await?;
    }
    for object in triggers(staging, &mut staging.connect().await?).await? {
        if object.kind == ObjectKind::Trigger {
            drop_object(staging, "TRIGGER", &object.name, &mut session).await?;
        }
    }
    let old = contents(live, &mut session).await?;
    let is_taken = |name: &str| made.iter().any(|(what, made)| is_table(what) && made == name);
    if let Some((_, view)) = old.iter().find(|(what, name)| what == "VIEW" && is_taken(name)) {
        drop_database(staging).await?;
        let why =
            format!("{}: {view} is a view there and a table in the snapshot; nothing was changed", live.location());
        return Err(Error::new(ErrorKind::TargetNotEmpty, why)
            .with_next_step("drop that view first, or restore into a new database"));
    }
    let old_triggers = triggers(live, &mut session).await?;
    live.run(&mut session, &format!("CREATE DATABASE {}", identifier(replaced.name()))).await?;
    if let Err(e) = move_tables(live, staging, replaced, (&old, &made), &old_triggers, &mut session).await {
        // As it was before, with another session: whatever broke may have broken this one too.
        let back = async {
            let mut session = live.connect().await?;
            let there = triggers(live, &mut session).await?;
            for object in old_triggers {
                if object.kind != ObjectKind::Trigger || !there.iter().any(|t| t.name == object.name) {
                    live.run(&mut session, &object.sql).await?;
                }
            }
            drop_database(replaced).await?;
            drop_database(staging).await
        };
        let why = match back.await {
            Ok(()) => format!("{e}; nothing was changed"),
            Err(and) => format!("{e}; and it could not be made as it was: {and}"),
        };
        return Err(Error::new(e.kind(), why)
            .with_retry(e.is_retryable())
            .with_next_step("restore when nothing uses the tables for long, or into a new database"));
    }
    let programs = Programs::new(ownership);
    let mut notes = match define(live, &old, again, &programs, &mut session).await {
        Ok(()) => programs.notes(),
        Err(e) => {
            let parked = replaced.name();
            let why = format!(
                "the tables are in place, and not all that belongs to them: {e}; the tables of before are in {parked}"
            );
            return Err(Error::new(e.kind(), why).with_next_step(format!(
                "drop {parked} and restore again with --clean, or take back from it what was there before"
            )));
        }
    };
    close(session).await;
    for rest in [replaced, staging] {
        if let Err(e) = drop_database(rest).await {
            notes.push(format!("the database {} could not be dropped: {e}", rest.name()));
        }
    }
    Ok(notes)
}

fn is_table(what: &str) -> bool {
    matches!(what, "TABLE" | "SEQUENCE")
}

async fn move_tables(
    live: &Database,
    staging: &Database,
    replaced: &Database,
    (old, made): (&[(String, String)], &[(String, String)]),
    old_triggers: &[Object],
    session: &mut MySqlConnection,
) -> Result<()> {
    for object in old_triggers.iter().filter(|o| o.kind == ObjectKind::Trigger) {
        drop_object(live, "TRIGGER", &object.name, session).await?;
    }
    let tables = |of: &[(String, String)]| -> Vec<String> {
        of.iter().filter(|(what, _)| is_table(what)).map(|(_, name)| identifier(name)).collect()
    };
    let [live_name, staging_name, replaced_name] = [live, staging, replaced].map(|d| identifier(d.name()));
    let out = tables(old).into_iter().map(|t| format!("{live_name}.{t} TO {replaced_name}.{t}"));
    let into = tables(made).into_iter().map(|t| format!("{staging_name}.{t} TO {live_name}.{t}"));
    let moves: Vec<String> = out.chain(into).collect();
    if moves.is_empty() {
        return Ok(());
    }
    live.run(session, &format!("RENAME TABLE {}", moves.join(", "))).await
}

/// Drops the old programs and makes the new ones.
async fn define(
    live: &Database,
    old: &[(String, String)],
    again: &[Object],
    programs: &Programs,
    session: &mut MySqlConnection,
) -> Result<()> {
    for (what, name) in old.iter().filter(|(what, _)| !is_table(what)) {
        drop_object(live, what, name, session).await?;
    }
    for object in again {
        if object.kind == ObjectKind::Table {
            for sql in own_defaults(object) {
                live.run(session, &sql).await?;
            }
        } else {
            programs.make(live, session, object).await?;
        }
    }
    Ok(())
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
