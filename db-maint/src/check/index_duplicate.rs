//! Indexes that are the same but for their name.
//!
//! The same means the same table, method, key columns with their order and collation, included columns, predicate and
//! uniqueness; compared part by part, never as text. Each costs every write and serves nothing.

use std::cmp::Reverse;

use super::drop_index;
use crate::capability::Flavour;
use crate::finding::{Finding, Outcome};
use crate::schema::{Index, Purpose, Schema};

pub(crate) const ID: &str = "index-duplicate";

pub(crate) fn judge(schema: &Schema, flavour: Flavour) -> Outcome {
    let candidates: Vec<&Index> = schema.indexes.iter().filter(|i| i.serves() && !i.is_part).collect();
    let mut by_table: std::collections::BTreeMap<_, Vec<&Index>> = std::collections::BTreeMap::new();
    for index in &candidates {
        by_table.entry(&index.table).or_default().push(index);
    }
    let mut findings = Vec::new();
    for indexes in by_table.values_mut() {
        // What has to stay first; of two that may go, the one that is used less goes.
        indexes.sort_by_key(|i| (i.purpose == Purpose::Plain, Reverse(i.scans), i.name.clone()));
        for (at, index) in indexes.iter().enumerate().filter(|(_, i)| i.purpose == Purpose::Plain) {
            if let Some(same) = indexes[..at].iter().find(|other| same(index, other)) {
                findings.push(
                    Finding::new(ID, index.object(), format!("it is the same as {}", same.name))
                        .evidence("same_as", same.name.as_str())
                        .evidence("bytes", index.bytes)
                        .remedy(drop_index(flavour, index)),
                );
            }
        }
    }
    Outcome::of(candidates.len() as u64, findings, vec![])
}

/// Whether one can stand for the other.
pub(super) fn same(a: &Index, b: &Index) -> bool {
    let sorted = |i: &Index| {
        let mut included = i.included.clone();
        included.sort_unstable();
        included
    };
    a.method == b.method
        && a.keys == b.keys
        && a.predicate == b.predicate
        && a.unique == b.unique
        && a.nulls_equal == b.nulls_equal
        && sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::sample::{index, primary};
    use crate::schema::{State, TableName};

    fn found(indexes: Vec<Index>) -> Vec<String> {
        let outcome = judge(&Schema { indexes, ..Schema::default() }, Flavour::Postgres);
        outcome.findings().iter().map(|f| f.object.clone()).collect()
    }

    #[test]
    fn the_same_index_twice_is_found_once() {
        assert_eq!(found(vec![index("o", "a", &["x"]), index("o", "b", &["x"])]), ["o.b"]);
        assert_eq!(found(vec![index("o", "a", &["x"]), index("o", "b", &["x"]), index("o", "c", &["x"])]).len(), 2);
    }

    #[test]
    fn of_two_the_one_that_is_used_stays() {
        let used = Index { scans: Some(9), ..index("o", "z", &["x"]) };
        assert_eq!(found(vec![index("o", "a", &["x"]), used]), ["o.a"]);
    }

    #[test]
    fn a_primary_key_stays() {
        let same = Index { unique: true, ..index("o", "a", &["id"]) };
        assert_eq!(found(vec![same.clone(), primary("o", &["id"])]), ["o.a"]);
        // Both are constraints: neither can just be dropped.
        let constraint = Index { purpose: Purpose::Constraint, ..same };
        assert_eq!(found(vec![constraint, primary("o", &["id"])]), [] as [String; 0]);
    }

    #[test]
    fn what_differs_in_anything_is_no_duplicate() {
        let a = index("o", "a", &["x", "y"]);
        let b = || index("o", "b", &["x", "y"]);
        let mut ordered = b();
        ordered.keys[1].order = "DESC".into();
        let mut shorter = b();
        shorter.keys[0].prefix = Some(10);
        for other in [
            Index { method: "gin".into(), ..b() },
            Index { predicate: Some("x > 1".into()), ..b() },
            Index { included: vec!["z".into()], ..b() },
            Index { unique: true, ..b() },
            Index { nulls_equal: true, ..b() },
            Index { table: TableName::new("", "p"), ..b() },
            Index { state: State::Invalid, ..b() },
            Index { visible: false, ..b() },
            Index { is_part: true, ..b() },
            ordered,
            shorter,
            index("o", "b", &["y", "x"]),
            index("o", "b", &["x", "yy"]),
        ] {
            assert_eq!(found(vec![a.clone(), other.clone()]), [] as [String; 0], "{other:?}");
        }
    }
}
