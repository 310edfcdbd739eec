//! Names and texts as SQL, and the only place that vouches for SQL that was put together.

use sqlx::{AssertSqlSafe, SqlSafeStr};

use crate::capability::Flavour;

/// A name, quoted as this engine does.
pub(crate) fn quoted(flavour: Flavour, name: &str) -> String {
    let quote = match flavour {
        Flavour::Postgres | Flavour::Sqlite => '"',
        Flavour::Mysql | Flavour::MariaDb => '`',
    };
    let mut out = String::with_capacity(name.len() + 2);
    out.push(quote);
    for c in name.chars() {
        if c == quote {
            out.push(quote);
        }
        out.push(c);
    }
    out.push(quote);
    out
}

/// The schema and the table that InnoDB means by `shop/orders#p#p0`: all but letters, digits and `_` is written as `@002d` there, in
/// some of its tables and not in others. Nothing where a letter is written in one of its shorter ways.
pub(crate) fn innodb_name(name: &str) -> Option<(String, String)> {
    let (schema, table) = name.split_once('/')?;
    let table = table.split('#').next()?;
    Some((decoded(schema)?, decoded(table)?))
}

fn decoded(part: &str) -> Option<String> {
    let mut pieces = part.split('@');
    let mut out = pieces.next()?.to_owned();
    for piece in pieces {
        let code = piece.get(..4).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()))?;
        out.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?);
        out.push_str(&piece[4..]);
    }
    Some(out)
}

/// SQL that this crate wrote, with names that went through [`quoted`] and values that are bound.
pub(crate) fn trusted(sql: impl Into<String>) -> impl SqlSafeStr {
    AssertSqlSafe(sql.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_quoted_and_quotes_doubled() {
        assert_eq!(quoted(Flavour::Postgres, "or\"der"), "\"or\"\"der\"");
        assert_eq!(quoted(Flavour::MariaDb, "or`der"), "`or``der`");
        assert_eq!(quoted(Flavour::Sqlite, "select"), "\"select\"");
    }

    #[test]
    fn what_innodb_calls_a_table_is_read() {
        let of = |name| innodb_name(name).map(|(schema, table)| format!("{schema} {table}"));
        assert_eq!(of("shop/orders").as_deref(), Some("shop orders"));
        assert_eq!(of("my@002dshop/a@0023b#p#p0").as_deref(), Some("my-shop a#b"));
        assert_eq!(of("my-shop/orders").as_deref(), Some("my-shop orders"));
        assert_eq!(of("sh@1ip/orders"), None);
        assert_eq!(of("ibdata1"), None);
    }

    proptest! {
        #[test]
        fn a_quoted_name_ends_where_it_should(name in ".{0,40}") {
            let text = quoted(Flavour::Mysql, &name);
            let inside = text[1..text.len() - 1].replace("``", "");
            prop_assert!(!inside.contains('`'));
            prop_assert_eq!(text[1..text.len() - 1].replace("``", "`"), name);
        }
    }
}
