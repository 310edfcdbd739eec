//! Dynamic SQL: quoting, and the one place that asserts it safe.

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// SQL that was put together here: from [`identifier`]s, numbers and constant text, or from a snapshot whose signature
/// was checked.
pub(crate) fn trusted(sql: impl Into<String>) -> SqlStr {
    AssertSqlSafe(sql.into()).into_sql_str()
}

/// A name in double quotes, as standard SQL wants it.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in single quotes.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
