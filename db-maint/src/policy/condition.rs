//! A condition of the shop's own, in SQL: one, and nothing that reaches beyond its parentheses.

use crate::capability::Flavour;
use crate::error::{Error, ErrorKind, Result};

/// The condition in parentheses that it cannot leave.
///
/// # Errors
/// [`ErrorKind::Config`] where it could: `a = 1) OR (true` would delete what a rule keeps.
pub(crate) fn enclosed(flavour: Flavour, condition: &str) -> Result<String> {
    match flaw(flavour, condition) {
        // A comment at its end would swallow what follows.
        None => Ok(format!("({condition}\n)")),
        Some(flaw) => Err(Error::new(ErrorKind::Config, format!("the condition {condition:?} {flaw}"))
            .with_next_step("write one condition, with every quote and parenthesis closed")),
    }
}

/// What is wrong with it.
fn flaw(flavour: Flavour, condition: &str) -> Option<&'static str> {
    let mysql = matches!(flavour, Flavour::Mysql | Flavour::MariaDb);
    let mut chars = condition.chars().peekable();
    let mut depth = 0usize;
    let mut seen = false;
    while let Some(c) = chars.next() {
        seen |= !c.is_whitespace();
        match c {
            '\'' | '"' | '`' => loop {
                match chars.next() {
                    // A quote that is doubled ends one text and begins the next: the same to us.
                    Some(end) if end == c => break,
                    // PostgreSQL has backslashes in E'…' alone: what could be either is refused.
                    // A setting decides there whether it hides a quote.
                    Some('\\') if mysql && chars.peek() == Some(&c) => return Some("has a backslash before a quote"),
                    Some('\\') if flavour == Flavour::Postgres => return Some("has a backslash in a text"),
                    Some(_) => {}
                    None => return Some("has a quote that is not closed"),
                }
            },
            '-' if chars.peek() == Some(&'-') => return Some("has a comment"),
            '/' if chars.peek() == Some(&'*') => return Some("has a comment"),
            '#' if mysql => return Some("has a comment"),
            '$' if flavour == Flavour::Postgres => return Some("has a $ outside of a text"),
            '?' if flavour != Flavour::Postgres => return Some("has a ? outside of a text"),
            ';' => return Some("has a semicolon"),
            '\0' => return Some("has a zero byte"),
            '(' => depth += 1,
            ')' if depth == 0 => return Some("closes a parenthesis that it has not opened"),
            ')' => depth -= 1,
            _ => {}
        }
    }
    match (depth, seen) {
        (0, true) => None,
        (0, false) => Some("is empty"),
        _ => Some("has a parenthesis that is not closed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_stays_within_its_parentheses() {
        let is_fine = |flavour, text| enclosed(flavour, text).is_ok();
        let all = [Flavour::Postgres, Flavour::Mysql, Flavour::MariaDb, Flavour::Sqlite];
        for flavour in all {
            for fine in ["a = 1", "a IN (1, 2) AND b = ')'", "name = 'it''s; -- a test'", "\"odd ) name\" = 1"] {
                assert!(is_fine(flavour, fine), "{flavour} {fine}");
            }
            for wrong in
                ["", " ", "a = 1) OR (true", "a = 1 -- old", "a = 1 /* x", "a = 1; DROP TABLE t", "a = 'x", "(a", "a\0"]
            {
                assert!(!is_fine(flavour, wrong), "{flavour} {wrong}");
            }
        }
        // A quote that a backslash hides here is the end of the text there.
        assert!(is_fine(Flavour::MariaDb, r"a = 'one\ntwo'"));
        assert!(!is_fine(Flavour::MariaDb, r"a = '\') OR (b = '"));
        assert!(!is_fine(Flavour::Postgres, r"a = E'\' OR b = '"));
        assert!(!is_fine(Flavour::Postgres, "a = $$)$$") && !is_fine(Flavour::MariaDb, "a = 1 # old"));
        assert!(!is_fine(Flavour::Sqlite, "a = ?"));
    }
}
