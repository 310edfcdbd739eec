//! Routines, views, triggers and events, with their definers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use crate::error::{Error, Result};
use crate::mysql::{Database, Object, ObjectKind, identifier, number_of};

/// Makes definitions, and remembers what could not be kept.
#[derive(Debug)]
pub(super) struct Programs {
    /// Whether definers are kept.
    ownership: bool,
    /// What was left out, how often, and where first.
    left_out: Mutex<BTreeMap<String, (u64, String)>>,
    /// What was kept and does not work yet, how often, and where first.
    asleep: Mutex<BTreeMap<String, (u64, String)>>,
}

impl Programs {
    pub(super) fn new(ownership: bool) -> Self {
        Self { ownership, left_out: Mutex::default(), asleep: Mutex::default() }
    }

    /// Runs one definition, without its definer where that is refused.
    pub(super) async fn make(&self, database: &Database, session: &mut MySqlConnection, object: &Object) -> Result<()> {
        let without = without_definer(&object.sql);
        let sql = match &without {
            Some((sql, _)) if !self.ownership => sql.as_str(),
            _ => object.sql.as_str(),
        };
        let made = database.run(session, sql).await;
        // Before its body comes what it is to do on a replica.
        let on_replica = [" DISABLE ON SLAVE", " DISABLE ON REPLICA"];
        if made.is_ok() && object.kind == ObjectKind::Event && on_replica.iter().any(|words| sql.contains(words)) {
            let why = "it comes from a replica and does nothing until ALTER EVENT … ENABLE";
            count(&self.asleep, why.to_owned(), &object.name);
        }
        match (made, without) {
            // 1227: a right of the server's is missing; 1449: there is no such user.
            (Err(e), Some((sql, definer))) if matches!(number_of(&e), Some(1227 | 1449)) => {
                database.run(session, &sql).await.map_err(|e| named(e, &object.name))?;
                self.leave_out(
                    format!("the definer {definer} could not be kept, this user takes its place"),
                    &object.name,
                );
                Ok(())
            }
            (Err(e), _) if object.kind == ObjectKind::View && number_of(&e).is_some() && !e.is_retryable() => {
                // It did not work where it comes from, and its stand-in tells lies: all the rest is worth having.
                let drop = format!("DROP VIEW IF EXISTS {}", identifier(&object.name));
                database.run(session, &drop).await?;
                self.leave_out(format!("a view cannot be made ({e})"), &object.name);
                Ok(())
            }
            (Err(e), _) => Err(named(e, &object.name)),
            (Ok(()), Some((_, definer))) if self.ownership => {
                // A privileged user may name whomever he wants: the server only warns, and the shop fails later.
                let warnings = session.fetch_all(sqlx::raw_sql("SHOW WARNINGS")).await;
                let warnings = warnings.map_err(|e| database.failed("could not be read", e))?;
                if warnings.iter().any(|w| w.try_get_unchecked::<String, _>(1).is_ok_and(|code| code == "1449")) {
                    let why = format!("it fails when it is used, since its definer {definer} does not exist here");
                    count(&self.asleep, why, &object.name);
                }
                Ok(())
            }
            (Ok(()), _) => Ok(()),
        }
    }

    /// Whether anything had to be left out.
    pub(super) fn lacks_any(&self) -> bool {
        !self.ownership || !self.left_out.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// What could not be kept, for people.
    pub(super) fn notes(self) -> Vec<String> {
        let left_out = self.left_out.into_inner().unwrap_or_else(PoisonError::into_inner);
        let asleep = self.asleep.into_inner().unwrap_or_else(PoisonError::into_inner);
        let all = left_out.into_iter().chain(asleep);
        all.map(|(why, (count, first))| format!("{why}: {count} definitions, the first: {first}")).collect()
    }

    fn leave_out(&self, why: String, name: &str) {
        count(&self.left_out, why, name);
    }
}

fn count(counts: &Mutex<BTreeMap<String, (u64, String)>>, what: String, name: &str) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.entry(what).or_insert_with(|| (0, name.to_owned())).0 += 1;
}

/// The same error, saying what it is about.
pub(super) fn named(e: Error, what: &str) -> Error {
    let error = Error::new(e.kind(), format!("{what}: {e}")).with_retry(e.is_retryable());
    let error = match e.next_step() {
        Some(next) => error.with_next_step(next.to_owned()),
        None => error,
    };
    error.with_source(e)
}

/// A definition without its `DEFINER=…`, and who that was; `None` where there is none.
fn without_definer(sql: &str) -> Option<(String, String)> {
    // The server writes it before the name of the object, so before any text of a user's. Names are in double quotes
    // where the object was made under ANSI_QUOTES.
    let at = sql.find(" DEFINER=")?;
    let head = &sql[..at];
    let is_beginning = |w: &str| w.starts_with("ALGORITHM=") || ["CREATE", "OR", "REPLACE", "AGGREGATE"].contains(&w);
    if !head.split_whitespace().all(is_beginning) {
        return None;
    }
    let rest = &sql[at + " DEFINER=".len()..];
    let user = quoted(rest)?;
    let host = match rest[user..].strip_prefix('@') {
        Some(host) => 1 + quoted(host)?,
        None => 0,
    };
    let (definer, tail) = rest.split_at(user + host);
    Some((format!("{head}{tail}"), definer.to_owned()))
}

/// The length of a quoted name at the beginning of `text`.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| matches!(c, '`' | '"'))?;
    let mut inside = text[1..].char_indices().peekable();
    while let Some((at, c)) = inside.next() {
        if c == quote && inside.next_if(|(_, c)| *c == quote).is_none() {
            return Some(at + 2);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definer_is_left_out_and_nothing_else() {
        let sql = "CREATE OR REPLACE ALGORITHM=UNDEFINED DEFINER=`o``d`@`%` SQL SECURITY DEFINER VIEW `v` AS select 1";
        let (without, definer) = without_definer(sql).unwrap();
        assert_eq!(without, "CREATE OR REPLACE ALGORITHM=UNDEFINED SQL SECURITY DEFINER VIEW `v` AS select 1");
        assert_eq!(definer, "`o``d`@`%`");
        assert_eq!(
            without_definer("CREATE DEFINER=`role` FUNCTION `f`() RETURN 1").unwrap().0,
            "CREATE FUNCTION `f`() RETURN 1"
        );
        let sql = r#"CREATE DEFINER="root"@"localhost" PACKAGE "tools" AS END"#;
        assert_eq!(without_definer(sql).unwrap().0, r#"CREATE PACKAGE "tools" AS END"#);
        assert_eq!(without_definer("CREATE TABLE `a` (`b` text DEFAULT ' DEFINER=`x`')"), None);
    }
}
