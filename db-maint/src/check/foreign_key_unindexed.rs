//! Foreign keys without an index on the side that refers: deleting or renumbering one parent row reads the whole table.
//!
//! Any order of the key's columns at the beginning of a valid index on all rows will do.

use crate::capability::Flavour;
use crate::finding::{Finding, Outcome, Severity};
use crate::ident::quoted;
use crate::schema::{Schema, TableName};

pub(crate) const ID: &str = "foreign-key-unindexed";

/// Tables of fewer rows are read faster than an index of theirs.
const FEW: u64 = 1_000;

pub(crate) fn judge(schema: &Schema, flavour: Flavour) -> Outcome {
    let findings =
        schema.foreign_keys.iter().filter(|key| !schema.indexes.iter().any(|i| i.supports(key))).map(|key| {
            let rows = schema.tables.iter().find(|t| t.name == key.table).and_then(|t| t.rows);
            let severity = if rows.is_some_and(|rows| rows < FEW) { Severity::Notice } else { Severity::Warning };
            let columns: Vec<_> = key.columns.iter().map(|c| quoted(flavour, c)).collect();
            let summary = format!("deleting a row of {} reads all of {}", key.to, key.table);
            Finding::new(ID, format!("{}.{}", key.table, key.name), summary)
                .severity(severity)
                .evidence("columns", key.columns.clone())
                .evidence("rows_estimated", rows)
                .remedy(create_index(flavour, &key.table, &columns.join(", ")))
        });
    Outcome::of(schema.foreign_keys.len() as u64, findings.collect(), vec![])
}

fn create_index(flavour: Flavour, table: &TableName, columns: &str) -> String {
    let name = quoted(flavour, &table.name);
    match flavour {
        Flavour::Postgres => {
            format!("CREATE INDEX CONCURRENTLY ON {}.{name} ({columns})", quoted(flavour, &table.schema))
        }
        Flavour::Mysql | Flavour::MariaDb => format!("ALTER TABLE {name} ADD INDEX ({columns}), LOCK=NONE"),
        Flavour::Sqlite => {
            format!("CREATE INDEX {} ON {name} ({columns})", quoted(flavour, &format!("{}_fk", table.name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Index;
    use crate::schema::sample::{foreign_key, index, table};

    fn found(indexes: Vec<Index>) -> usize {
        let foreign_keys = vec![foreign_key("i", &["o", "v"], "o")];
        judge(&Schema { indexes, foreign_keys, ..Schema::default() }, Flavour::Postgres).findings().len()
    }

    #[test]
    fn any_order_of_the_leading_columns_serves() {
        assert_eq!(found(vec![]), 1);
        assert_eq!(found(vec![index("i", "a", &["v", "o", "x"])]), 0);
        assert_eq!(found(vec![index("i", "a", &["o", "v"])]), 0);
        assert_eq!(found(vec![index("i", "a", &["o", "x", "v"])]), 1);
        assert_eq!(found(vec![index("i", "a", &["o"])]), 1);
        assert_eq!(found(vec![index("p", "a", &["o", "v"])]), 1);
        assert_eq!(found(vec![Index { predicate: Some("o > 1".into()), ..index("i", "a", &["o", "v"]) }]), 1);
        assert_eq!(found(vec![Index { visible: false, ..index("i", "a", &["o", "v"]) }]), 1);
    }

    #[test]
    fn a_small_table_is_only_worth_a_notice() {
        let of = |rows| {
            let mut small = table("i");
            small.rows = rows;
            let schema =
                Schema { tables: vec![small], foreign_keys: vec![foreign_key("i", &["o"], "o")], ..Schema::default() };
            judge(&schema, Flavour::Mysql).findings()[0].severity
        };
        assert_eq!([of(Some(10)), of(Some(5_000)), of(None)], [Severity::Notice, Severity::Warning, Severity::Warning]);
    }
}
