//! How passwords are kept: a census that the server makes; no hash, and no password, leaves it.

use super::session::{Column, Engine, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::item::Context;
use crate::outcome::{Finding, Outcome, Place};

/// Rows of a column that are looked at.
const ROWS: u32 = 200_000;
/// The least cost of bcrypt (OWASP Password Storage Cheat Sheet).
const LEAST_COST: u32 = 10;

/// The columns that hold passwords: kind, cost and length of what is in them.
pub(super) async fn census(session: &mut Session, _: &Context) -> Result<Finding> {
    let columns: Vec<Column> = session.columns().await?.into_iter().filter(holds_passwords).collect();
    if columns.is_empty() {
        return Ok(Finding::unknown("no column is named like a password"));
    }
    let (mut gravest, mut places, mut seen, mut facts) = (Outcome::Pass, Vec::new(), 0u64, Vec::new());
    let mut rows = 0u64;
    for column in &columns {
        for (kind, shortest, longest, count) in kinds(session, column).await? {
            rows += count;
            let (outcome, what) = judge(&kind, shortest, longest);
            facts.push(format!("{} {kind} {outcome:?}", column.place()));
            if outcome == Outcome::NotApplicable {
                continue;
            }
            seen += count;
            if outcome != Outcome::Pass {
                places.push(Place::new(column.place(), None, format!("{count} of them: {what}")));
            }
            if outcome.gravity() > gravest.gravity() {
                gravest = outcome;
            }
        }
    }
    let fact = facts.join("\n");
    let found = match (seen, gravest) {
        // A login that row security keeps out sees an empty table as well.
        (0, _) if rows == 0 => Finding::unknown("the login sees no row of the tables with passwords"),
        (0, _) => Finding::not_applicable("nobody has a password here: they log in by others"),
        (n, Outcome::Pass) => Finding::pass(format!(
            "{n} passwords in {} columns: bcrypt of cost {LEAST_COST} or more, or argon2id",
            columns.len()
        )),
        (n, Outcome::Warn) => {
            Finding::warn(format!("of {n} passwords some are hashed with less than bcrypt or argon2id"))
        }
        (n, _) => Finding::fail(format!("of {n} passwords some are not safe")),
    };
    Ok(found.with_places(places).with_fact(fact))
}

/// Names of tokens and dates are none of passwords.
fn holds_passwords(column: &Column) -> bool {
    let name = column.name.to_lowercase();
    let other = [
        "reset", "token", "changed", "updated", "_at", "expires", "hint", "question", "policy", "salt", "version",
        "algo",
    ];
    let is = name.contains("password")
        || name.contains("passwd")
        || matches!(name.as_str(), "pwd" | "pass" | "pass_hash" | "passhash" | "user_pass");
    is && column.is_text() && !other.iter().any(|w| name.contains(w))
}

/// Kind, least and greatest length, count. The server tells the kinds apart: what is none that it knows comes as the word `other`.
async fn kinds(session: &mut Session, column: &Column) -> Result<Vec<(String, u32, u32, u64)>> {
    let (name, table) = (session.quoted(&column.name), session.table(column));
    let value = session.text(&name);
    let hex = |length: u32| match session.engine {
        Engine::Postgres => format!("v ~ '^[0-9a-fA-F]{{{length}}}$'"),
        Engine::Mysql => format!("v REGEXP '^[0-9a-fA-F]{{{length}}}$'"),
        Engine::Sqlite => format!("length(v) = {length} AND v NOT GLOB '*[^0-9a-fA-F]*'"),
    };
    let length = if session.engine == Engine::Mysql { "char_length(v)" } else { "length(v)" };
    let sql = format!(
        "SELECT kind, {}, {}, {} FROM (SELECT CASE WHEN v IS NULL OR v = '' THEN 'none' \
           WHEN v LIKE '$2_$__$%' THEN substr(v, 1, 6) \
           WHEN v LIKE '$argon2id$%' THEN 'argon2id' WHEN v LIKE '$argon2i$%' THEN 'argon2i' WHEN v LIKE '$argon2d$%' THEN 'argon2d' \
           WHEN v LIKE '$scrypt$%' OR v LIKE 'scrypt:%' THEN 'scrypt' WHEN v LIKE 'pbkdf2%' OR v LIKE '$pbkdf2%' THEN 'pbkdf2' \
           WHEN v LIKE '$P$%' OR v LIKE '$H$%' THEN 'phpass' WHEN v LIKE '$1$%' THEN 'md5crypt' \
           WHEN v LIKE '$5$%' THEN 'sha256crypt' WHEN v LIKE '$6$%' THEN 'sha512crypt' WHEN v LIKE '$y$%' THEN 'yescrypt' \
           WHEN {} THEN 'md5' WHEN {} THEN 'sha1' WHEN {} THEN 'sha256' WHEN {} THEN 'sha512' ELSE 'other' END AS kind, {length} AS l \
         FROM (SELECT {value} AS v FROM {table} LIMIT {ROWS}) AS sample) AS census GROUP BY kind ORDER BY kind",
        session.text("coalesce(min(l), 0)"),
        session.text("coalesce(max(l), 0)"),
        session.text("count(*)"),
        hex(32),
        hex(40),
        hex(64),
        hex(128)
    );
    let read = |row: &Vec<Option<String>>| {
        let [Some(kind), Some(shortest), Some(longest), Some(count)] = row.as_slice() else { return None };
        Some((kind.clone(), shortest.parse().ok()?, longest.parse().ok()?, count.parse().ok()?))
    };
    let rows = session.rows(&sql).await?;
    let counted = rows.iter().map(|row| {
        read(row).ok_or_else(|| {
            Error::new(ErrorKind::Malformed, format!("{}: the server's census cannot be read", column.place()))
        })
    });
    counted.collect()
}

/// What a kind of hash is worth. A hash of bcrypt has sixty characters: a column that is too short has cut it.
fn judge(kind: &str, shortest: u32, longest: u32) -> (Outcome, String) {
    if let Some(cost) = kind.strip_prefix("$2").and_then(|rest| rest.get(2..4)).and_then(|c| c.parse::<u32>().ok()) {
        let letter = kind.as_bytes().get(2).copied().unwrap_or_default();
        return match () {
            () if shortest != 60 || longest != 60 => {
                (Outcome::Fail, format!("bcrypt, cut off at {shortest} of 60 characters"))
            }
            () if cost < LEAST_COST => (Outcome::Fail, format!("bcrypt of cost {cost} only")),
            () if letter == b'x' => (Outcome::Fail, "bcrypt with the fault of 2011 ($2x$)".into()),
            () => (Outcome::Pass, String::new()),
        };
    }
    match kind {
        "none" => (Outcome::NotApplicable, String::new()),
        "argon2id" => (Outcome::Pass, String::new()),
        "argon2i" | "argon2d" | "scrypt" | "pbkdf2" | "sha512crypt" | "sha256crypt" | "yescrypt" => {
            (Outcome::Warn, kind.to_owned())
        }
        "md5" | "sha1" | "sha256" | "sha512" => (Outcome::Fail, format!("looks like {kind} without anything else")),
        "md5crypt" | "phpass" => (Outcome::Fail, format!("{kind}, which is broken within hours")),
        _ => (Outcome::Fail, "no hash that is known: plain text, it may be".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_what_they_are_worth() {
        for (kind, shortest, longest, outcome) in [
            ("$2y$12", 60, 60, Outcome::Pass),
            ("$2b$10", 60, 60, Outcome::Pass),
            ("$2y$08", 60, 60, Outcome::Fail),
            ("$2y$12", 50, 60, Outcome::Fail),
            ("$2x$12", 60, 60, Outcome::Fail),
            ("argon2id", 90, 97, Outcome::Pass),
            ("pbkdf2", 80, 80, Outcome::Warn),
            ("md5", 32, 32, Outcome::Fail),
            ("other", 6, 20, Outcome::Fail),
            ("none", 0, 0, Outcome::NotApplicable),
        ] {
            assert_eq!(judge(kind, shortest, longest).0, outcome, "{kind}");
        }
        let column = |name: &str, kind: &str| Column {
            schema: "public".into(),
            table: "users".into(),
            name: name.into(),
            kind: kind.into(),
        };
        assert!(
            holds_passwords(&column("password_hash", "text"))
                && holds_passwords(&column("PASSWORD", "character varying"))
        );
        for (name, kind) in [
            ("password_reset_token", "text"),
            ("password_changed_at", "timestamp"),
            ("passport", "text"),
            ("password", "boolean"),
        ] {
            assert!(!holds_passwords(&column(name, kind)), "{name}");
        }
    }
}
