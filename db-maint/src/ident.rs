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
