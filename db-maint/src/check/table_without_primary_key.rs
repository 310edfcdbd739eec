//! Tables without a primary key: replicas cannot tell their rows apart, and nobody can delete one of two equal rows.

use std::collections::HashSet;

use crate::finding::{Finding, Outcome, Severity};
use crate::schema::{Purpose, Schema};

pub(crate) const ID: &str = "table-without-primary-key";

pub(crate) fn judge(schema: &Schema) -> Outcome {
    let of =
        |purpose| -> HashSet<_> { schema.indexes.iter().filter(|i| i.purpose == purpose).map(|i| &i.table).collect() };
    let (primary, identity) = (of(Purpose::Primary), of(Purpose::Identity));
    let unique: HashSet<_> = schema.indexes.iter().filter(|i| i.unique).map(|i| &i.table).collect();
    let whole = || schema.tables.iter().filter(|t| !t.is_part);
    let without = whole().filter(|t| !primary.contains(&t.name) && !identity.contains(&t.name));
    let findings = without.map(|table| {
        let has_unique = unique.contains(&table.name);
        Finding::new(ID, table.name.to_string(), "it has no primary key")
            .severity(if has_unique { Severity::Notice } else { Severity::Warning })
            .evidence("has_unique_index", has_unique)
            .evidence("rows_estimated", table.rows)
            .remedy(if has_unique {
                "make its unique columns the primary key"
            } else {
                "add a column that numbers its rows, as the primary key"
            })
    });
    Outcome::of(whole().count() as u64, findings.collect(), vec![])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::sample::{index, primary, table};
    use crate::schema::{Index, Table};

    #[test]
    fn a_table_without_one_is_found_and_its_parts_are_not() {
        let part = Table { is_part: true, ..table("log_2026") };
        let schema = Schema {
            tables: vec![table("orders"), table("log"), part, table("seen"), table("sent")],
            indexes: vec![
                primary("orders", &["id"]),
                Index { unique: true, ..index("seen", "u", &["id"]) },
                Index { purpose: Purpose::Identity, ..index("sent", "i", &["id"]) },
            ],
            ..Schema::default()
        };
        let outcome = judge(&schema);
        let found: Vec<_> = outcome.findings().iter().map(|f| (f.object.as_str(), f.severity)).collect();
        assert_eq!(found, [("log", Severity::Warning), ("seen", Severity::Notice)]);
    }
}
