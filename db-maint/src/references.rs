//! Rows that refer to nothing though a foreign key is declared that the server does not vouch for: each such key by one query.

use std::time::Duration;

use crate::activity::{Violation, Violations};
use crate::capability::Flavour;
use crate::engine::reason;
use crate::error::Result;
use crate::ident::quoted;
use crate::lease::as_text;
use crate::schema::{ForeignKey, Schema};
use crate::session::Session;
use crate::table::sql_name;

/// How long one key may take.
const LONGEST: Duration = Duration::from_secs(60);

/// Reads the tables of all keys that the server does not vouch for, where that is `wanted`.
pub(crate) async fn violations(session: &mut Session, schema: &Schema, wanted: bool) -> Result<Violations> {
    let flavour = session.flavour();
    let (known, open): (Vec<_>, Vec<_>) = schema.foreign_keys.iter().partition(|key| key.validated);
    let mut seen = Violations { examined: known.len() as u64, ..Violations::default() };
    if !wanted {
        if !open.is_empty() {
            seen.unknown.push(format!(
                "{} foreign keys may not hold for every row, and were not looked through: --integrity reads their tables",
                open.len()
            ));
        }
        return Ok(seen);
    }
    let failed = |session: &Session, e| session.error("does not say whether references hold", e);
    session.limit(LONGEST).await.map_err(|e| failed(session, e))?;
    for key in open {
        session.begin_reading().await.map_err(|e| failed(session, e))?;
        let rows = session.one(&orphans(flavour, key), &[]).await;
        session.roll_back().await.map_err(|e| failed(session, e))?;
        match rows.map(|rows| rows.and_then(|rows| rows.parse::<u64>().ok())) {
            Ok(Some(rows)) => {
                seen.examined += 1;
                if rows > 0 {
                    let (table, to) = (key.table.to_string(), key.to.to_string());
                    seen.found.push(Violation { table, key: Some(key.name.clone()), to, rows });
                }
            }
            Ok(None) => seen.unknown.push(format!("{}.{}: the server's answer makes no sense", key.table, key.name)),
            Err(e) => {
                seen.unknown.push(format!("{}.{} could not be looked through: {}", key.table, key.name, reason(&e)))
            }
        }
    }
    Ok(seen)
}

/// How many rows refer to nothing; one with a NULL in its reference refers to nothing by right.
fn orphans(flavour: Flavour, key: &ForeignKey) -> String {
    let column = |of: &str, name: &str| format!("{of}.{}", quoted(flavour, name));
    let known: Vec<String> = key.columns.iter().map(|c| format!("{} IS NOT NULL", column("f", c))).collect();
    let pairs = key.columns.iter().zip(&key.to_columns);
    let matches: Vec<String> = pairs.map(|(from, to)| format!("{} = {}", column("t", to), column("f", from))).collect();
    format!(
        "SELECT {} FROM {} AS f WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS t WHERE {})",
        as_text(flavour, "COUNT(*)"),
        sql_name(flavour, &key.table),
        known.join(" AND "),
        sql_name(flavour, &key.to),
        matches.join(" AND ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::sample::foreign_key;

    #[test]
    fn a_key_of_several_columns_is_one_question() {
        let mut key = foreign_key("items", &["shop", "order"], "orders");
        key.to_columns = vec!["shop".into(), "id".into()];
        assert_eq!(
            orphans(Flavour::Sqlite, &key),
            "SELECT CAST(COUNT(*) AS TEXT) FROM \"items\" AS f WHERE f.\"shop\" IS NOT NULL AND f.\"order\" IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM \"orders\" AS t WHERE t.\"shop\" = f.\"shop\" AND t.\"id\" = f.\"order\")"
        );
    }
}
