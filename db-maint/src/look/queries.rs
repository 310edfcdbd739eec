//! What the server counts of each kind of query: texts without the values in them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{group, number, odd, text};
use crate::activity::{Seen, Unseen};
use crate::capability::{Capabilities, Flavour};
use crate::error::Result;
use crate::ident::quoted;
use crate::session::{Session, Value};

/// So much of a query is kept.
const LENGTH: usize = 300;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Queries {
    pub(crate) queries: Vec<Query>,
    /// Since when all of them are counted, where the server says so.
    pub(crate) since: Option<DateTime<Utc>>,
    /// How many the server had no room for; `None` where it does not say.
    pub(crate) lost: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Query {
    /// What the server knows it by.
    pub(crate) id: String,
    /// Without values.
    pub(crate) text: String,
    pub(crate) calls: u64,
    /// All calls together, in milliseconds.
    pub(crate) ms: f64,
    /// Rows that were returned or changed.
    pub(crate) rows: u64,
    /// Since when this one is counted, where the server says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<DateTime<Utc>>,
}

pub(super) async fn read(session: &mut Session, capabilities: &Capabilities) -> Result<Seen<Queries>> {
    match session.flavour() {
        Flavour::Postgres => postgres(session, capabilities).await,
        Flavour::Mysql | Flavour::MariaDb => mysql(session, capabilities).await,
        Flavour::Sqlite => Ok(Err(Unseen::NotApplicable("SQLite counts no queries".into()))),
    }
}

async fn postgres(session: &mut Session, capabilities: &Capabilities) -> Result<Seen<Queries>> {
    let remedy = "shared_preload_libraries = 'pg_stat_statements' in postgresql.conf, a restart, then CREATE EXTENSION pg_stat_statements";
    if !capabilities.extensions.contains("pg_stat_statements") {
        let why = "the extension pg_stat_statements is not there: the server does not count queries";
        return Ok(Err(Unseen::unknown(why, remedy)));
    }
    if !capabilities.sees_sessions {
        return Ok(Err(Unseen::unknown(
            "this role does not see the queries of others",
            "GRANT pg_monitor to this role",
        )));
    }
    let sql = "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
        WHERE e.extname = 'pg_stat_statements'";
    let place = match group(session, sql, &[], remedy).await? {
        Ok(rows) => rows.first().and_then(|row| text(row, 0)),
        Err(unseen) => return Ok(Err(unseen)),
    };
    let Some(place) = place else { return Ok(Err(odd("its extensions"))) };
    let place = quoted(Flavour::Postgres, &place);
    let mut counted = (None, None);
    if capabilities.version.major >= 14 {
        let sql = format!(
            "SELECT (EXTRACT(EPOCH FROM stats_reset) * 1000)::int8::text, dealloc::text FROM {place}.pg_stat_statements_info"
        );
        match group(session, &sql, &[], remedy).await? {
            Ok(rows) => {
                let row = rows.first();
                counted.0 = row.and_then(|row| number(row, 0)).and_then(DateTime::from_timestamp_millis);
                counted.1 = row.and_then(|row| number(row, 1));
            }
            Err(unseen) => return Ok(Err(unseen)),
        }
    }
    let sql = format!(
        "SELECT s.queryid::text, left(min(s.query), 4000), sum(s.calls)::int8::text, sum(s.total_exec_time)::float8::text, \
           sum(s.rows)::int8::text, NULL::text \
         FROM {place}.pg_stat_statements s WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
           AND s.queryid IS NOT NULL GROUP BY s.queryid"
    );
    Ok(group(session, &sql, &[], remedy).await?.and_then(|rows| {
        Ok(Queries { queries: queries(Flavour::Postgres, &rows)?, since: counted.0, lost: counted.1 })
    }))
}

async fn mysql(session: &mut Session, capabilities: &Capabilities) -> Result<Seen<Queries>> {
    let remedy = "performance_schema = ON in the server's configuration, a restart, and GRANT SELECT ON performance_schema.* to this user";
    let sql = "SELECT CAST(@@performance_schema AS CHAR)";
    let on = match group(session, sql, &[], remedy).await? {
        Ok(rows) => rows.first().and_then(|row| text(row, 0)),
        Err(unseen) => return Ok(Err(unseen)),
    };
    // As a text it is one thing to MySQL, and another to MariaDB.
    if !matches!(on.as_deref(), Some("1" | "ON")) {
        return Ok(Err(Unseen::unknown("performance_schema is off: the server does not count queries", remedy)));
    }
    let sql = "SELECT CONVERT(ENABLED USING utf8mb4) FROM performance_schema.setup_consumers WHERE NAME = 'statements_digest'";
    match group(session, sql, &[], remedy).await? {
        Ok(rows) if rows.first().and_then(|row| text(row, 0)).as_deref() == Some("YES") => {}
        Ok(_) => {
            return Ok(Err(Unseen::unknown(
                "performance_schema does not keep digests of statements",
                "UPDATE performance_schema.setup_consumers SET ENABLED = 'YES' WHERE NAME = 'statements_digest'",
            )));
        }
        Err(unseen) => return Ok(Err(unseen)),
    }
    // What had no room is counted in the row without a digest.
    let sql = "SELECT CAST(COALESCE(SUM(COUNT_STAR), 0) AS CHAR) FROM performance_schema.events_statements_summary_by_digest WHERE DIGEST IS NULL";
    let lost = match group(session, sql, &[], remedy).await? {
        Ok(rows) => rows.first().and_then(|row| number(row, 0)),
        Err(unseen) => return Ok(Err(unseen)),
    };
    let sql = "SELECT CONVERT(DIGEST USING utf8mb4), CONVERT(LEFT(DIGEST_TEXT, 4000) USING utf8mb4), CAST(COUNT_STAR AS CHAR), \
          CAST(SUM_TIMER_WAIT / 1000000000 AS CHAR), CAST(SUM_ROWS_SENT + SUM_ROWS_AFFECTED AS CHAR), \
          CAST(TIMESTAMPDIFF(SECOND, FIRST_SEEN, NOW()) AS CHAR) \
        FROM performance_schema.events_statements_summary_by_digest WHERE SCHEMA_NAME = DATABASE() AND DIGEST IS NOT NULL";
    let flavour = session.flavour();
    Ok(group(session, sql, &[], remedy).await?.and_then(|rows| {
        let mut queries = queries(flavour, &rows)?;
        for (query, row) in queries.iter_mut().zip(&rows) {
            let age = number::<i64>(row, 5).map(|s| chrono::TimeDelta::seconds(s.max(0)));
            query.since = age.map(|age| capabilities.server_time - age);
        }
        Ok(Queries { queries, since: capabilities.counting_since, lost })
    }))
}

fn queries(flavour: Flavour, rows: &[Vec<Value>]) -> Seen<Vec<Query>> {
    let query = |row: &Vec<Value>| {
        Some(Query {
            id: text(row, 0)?,
            text: normalised(flavour, &text(row, 1)?),
            calls: number(row, 2)?,
            ms: number(row, 3)?,
            rows: number(row, 4)?,
            since: None,
        })
    };
    rows.iter().map(|row| query(row).ok_or_else(|| odd("its queries"))).collect::<Result<_, Unseen>>()
}

/// A query without what was written into it: texts and numbers are `?`, lists of them `…`, comments are left out. The servers do
/// most of it themselves, and leave what they call utility statements as they were: with passwords in them.
pub(crate) fn normalised(flavour: Flavour, sql: &str) -> String {
    let mysql = matches!(flavour, Flavour::Mysql | Flavour::MariaDb);
    let chars: Vec<char> = sql.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    while at < chars.len() && out.len() < LENGTH {
        let c = chars[at];
        let rest = &chars[at..];
        let two = rest.get(1).copied();
        let inside_word = out.chars().last().is_some_and(is_word);
        match c {
            '-' if two == Some('-') => at += end_of(rest, |r| r.first() == Some(&'\n'), 1),
            '#' if mysql => at += end_of(rest, |r| r.first() == Some(&'\n'), 1),
            '/' if two == Some('*') => at += end_of(rest, |r| r.starts_with(&['*', '/']), 2),
            '\'' => {
                // What stands before it says how it is written, such as E or N or b.
                while out.chars().last().is_some_and(|c| c.is_ascii_alphabetic()) && is_prefix(&out) {
                    out.pop();
                }
                at += quoted_text(rest, c, mysql || is_escaped(&chars, at));
                value(&mut out);
            }
            '"' if mysql => {
                at += quoted_text(rest, c, true);
                value(&mut out);
            }
            '"' | '`' => {
                let length = quoted_text(rest, c, false);
                out.extend(&rest[..length]);
                at += length;
            }
            '$' if !mysql && !inside_word => match dollar_quoted(rest) {
                Some(length) => {
                    at += length;
                    value(&mut out);
                }
                None => {
                    out.push(c);
                    at += 1;
                }
            },
            '0'..='9' if !inside_word => {
                let number = |c: &char| c.is_alphanumeric() || *c == '.' || *c == '_';
                at += rest.iter().take_while(|c| number(c)).count();
                value(&mut out);
            }
            c if c.is_whitespace() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
                at += 1;
            }
            c => {
                out.push(c);
                at += 1;
            }
        }
    }
    let mut out: String = out.trim_end().chars().take(LENGTH).collect();
    if at < chars.len() {
        out.push('…');
    }
    out
}

/// One value; a list of several is as one.
fn value(out: &mut String) {
    let before = out.trim_end();
    if let Some(list) = before.strip_suffix(',')
        && (list.trim_end().ends_with('?') || list.trim_end().ends_with('…'))
    {
        let list = list.trim_end().trim_end_matches(['?', '…']);
        out.truncate(list.len());
        out.push('…');
        return;
    }
    out.push('?');
}

/// How many characters until what `is_end` sees, which is `length` long.
fn end_of(rest: &[char], is_end: impl Fn(&[char]) -> bool, length: usize) -> usize {
    (1..rest.len()).find(|at| is_end(&rest[*at..])).map_or(rest.len(), |at| (at + length).min(rest.len()))
}

/// How long a text in quotes is. One that is not closed goes to the end: rather too much is hidden.
fn quoted_text(rest: &[char], quote: char, escapes: bool) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' if escapes => at += 1,
            c if c == quote && rest.get(at + 1) == Some(&quote) => at += 1,
            c if c == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    rest.len()
}

/// Whether a text is written as E'…'.
fn is_escaped(chars: &[char], at: usize) -> bool {
    at > 0
        && matches!(chars[at - 1], 'e' | 'E')
        && (at < 2 || !(chars[at - 2].is_alphanumeric() || chars[at - 2] == '_'))
}

/// Whether what was written ends in a single letter that says how a text is written.
fn is_prefix(out: &str) -> bool {
    let mut back = out.chars().rev();
    let is_letter = back.next().is_some_and(|c| "eEnNbBxX".contains(c));
    is_letter && back.next().is_none_or(|c| !(c.is_alphanumeric() || c == '_'))
}

/// How long a text in `$tag$` is; nothing where it is a parameter such as `$1`.
fn dollar_quoted(rest: &[char]) -> Option<usize> {
    let tag = rest[1..].iter().position(|c| *c == '$')? + 2;
    let name = &rest[1..tag - 1];
    let is_tag =
        name.first().is_none_or(|c| !c.is_ascii_digit()) && name.iter().all(|c| c.is_alphanumeric() || *c == '_');
    if !is_tag {
        return None;
    }
    let end = (tag..rest.len()).find(|at| rest[*at..].starts_with(&rest[..tag]));
    Some(end.map_or(rest.len(), |at| at + tag))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_written_into_a_query_is_not_shown() {
        let pg = |sql| normalised(Flavour::Postgres, sql);
        assert_eq!(
            pg("SELECT *\n  FROM t1 WHERE a = $1 AND b = 'x''y' -- by Ada"),
            "SELECT * FROM t1 WHERE a = $1 AND b = ?"
        );
        assert_eq!(pg("ALTER ROLE shop PASSWORD E'se\\'cret'"), "ALTER ROLE shop PASSWORD ?");
        assert_eq!(pg("DO $body$ secret $$ x $body$ x"), "DO ? x");
        assert_eq!(pg("SELECT 1.5e3, 0x1F, \"odd 1 'name\" /* id=17 */ FROM t"), "SELECT …, \"odd 1 'name\" FROM t");
        assert_eq!(pg("SELECT a FROM t WHERE id IN (1, 2,3)"), "SELECT a FROM t WHERE id IN (…)");
        let my = |sql| normalised(Flavour::MariaDb, sql);
        assert_eq!(
            my("SELECT `a b` FROM t WHERE x = \"s'ecret\" AND y = 'a\\'b' # note"),
            "SELECT `a b` FROM t WHERE x = ? AND y = ?"
        );
        assert_eq!(my("SELECT 'not closed"), "SELECT ?");
    }

    proptest! {
        #[test]
        fn no_text_shows_what_it_holds(before in "[a-z =(]{0,12}", secret in "[a-zA-Z ;()-]{0,20}") {
            let marked = format!("SECRET{secret}SECRET").replace("--", "-");
            for flavour in [Flavour::Postgres, Flavour::MariaDb] {
                let shown = normalised(flavour, &format!("{before}'{marked}' after"));
                prop_assert!(!shown.contains("SECRET"), "{shown}");
            }
        }

        #[test]
        fn anything_is_normalised_to_an_end(sql in ".{0,600}") {
            let shown = normalised(Flavour::Postgres, &sql);
            prop_assert!(shown.chars().count() <= LENGTH + 1, "{shown}");
        }
    }
}
