//! Indexes whose work another one does as well: their key is the beginning of its key.
//!
//! Only of ordered indexes (B-tree), with the same order and predicate, and only those that enforce nothing. A unique index
//! on fewer columns is never redundant: it says more than the longer one.

use super::drop_index;
use super::index_duplicate::same;
use crate::capability::Flavour;
use crate::finding::{Finding, Outcome, Severity};
use crate::schema::{Index, Purpose, Schema};

pub(crate) const ID: &str = "index-redundant";

pub(crate) fn judge(schema: &Schema, flavour: Flavour) -> Outcome {
    let candidates: Vec<&Index> = schema.indexes.iter().filter(|i| i.serves() && !i.is_part).collect();
    let mut by_table: std::collections::HashMap<_, Vec<&Index>> = std::collections::HashMap::new();
    for index in &candidates {
        by_table.entry(&index.table).or_default().push(index);
    }
    let mut findings = Vec::new();
    for index in candidates.iter().filter(|i| i.purpose == Purpose::Plain && !i.unique) {
        let others = by_table.get(&index.table).into_iter().flatten();
        // The shortest that does: the one that is most like it.
        let Some(other) = others.filter(|other| covers(other, index)).min_by_key(|o| (o.keys.len(), &o.name)) else {
            continue;
        };
        findings.push(
            Finding::new(ID, index.object(), format!("{} finds the same rows and more", other.name))
                .severity(Severity::Notice)
                .evidence("covered_by", other.name.as_str())
                .evidence("columns", index.keys.iter().map(|k| k.what.as_str()).collect::<Vec<_>>())
                .evidence("bytes", index.bytes)
                .remedy(drop_index(flavour, index)),
        );
    }
    Outcome::of(candidates.len() as u64, findings, vec![])
}

fn covers(longer: &Index, shorter: &Index) -> bool {
    let carried = |column: &String| longer.included.contains(column) || longer.keys.iter().any(|k| k.what == *column);
    longer.name != shorter.name
        && longer.method.eq_ignore_ascii_case("btree")
        && shorter.method.eq_ignore_ascii_case("btree")
        && longer.predicate == shorter.predicate
        && longer.keys.starts_with(&shorter.keys)
        && shorter.included.iter().all(carried)
        // Another check's.
        && !same(longer, shorter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::sample::{index, primary};

    fn found(indexes: Vec<Index>) -> Vec<String> {
        let outcome = judge(&Schema { indexes, ..Schema::default() }, Flavour::Postgres);
        outcome.findings().iter().map(|f| f.object.clone()).collect()
    }

    #[test]
    fn the_beginning_of_another_one_is_redundant() {
        assert_eq!(found(vec![index("o", "a", &["x"]), index("o", "b", &["x", "y"])]), ["o.a"]);
        assert_eq!(found(vec![index("o", "a", &["id"]), primary("o", &["id"])]), ["o.a"]);
        let carries = Index { included: vec!["z".into()], ..index("o", "a", &["x"]) };
        let longer = Index { included: vec!["z".into()], ..index("o", "b", &["x", "y"]) };
        assert_eq!(found(vec![carries, longer]), ["o.a"]);
    }

    #[test]
    fn what_says_or_finds_more_is_not() {
        let longer = || index("o", "b", &["x", "y"]);
        let shorter = || index("o", "a", &["x"]);
        let mut backwards = shorter();
        backwards.keys[0].order = "DESC".into();
        for (a, b) in [
            (Index { unique: true, ..shorter() }, longer()),
            (Index { purpose: Purpose::Constraint, ..shorter() }, longer()),
            (Index { purpose: Purpose::Identity, ..shorter() }, longer()),
            (Index { predicate: Some("y > 1".into()), ..shorter() }, longer()),
            (shorter(), Index { predicate: Some("y > 1".into()), ..longer() }),
            (Index { included: vec!["z".into()], ..shorter() }, longer()),
            (shorter(), Index { method: "gin".into(), ..longer() }),
            (shorter(), Index { method: "hash".into(), ..longer() }),
            (shorter(), Index { visible: false, ..longer() }),
            (backwards, longer()),
            (index("o", "a", &["y"]), longer()),
            // Not the beginning of a text: 1 and 12.
            (index("o", "a", &["1"]), index("o", "b", &["12", "3"])),
        ] {
            assert_eq!(found(vec![a.clone(), b.clone()]), [] as [String; 0], "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_duplicate_is_left_to_the_check_for_those() {
        assert_eq!(found(vec![index("o", "a", &["x"]), index("o", "b", &["x"])]), [] as [String; 0]);
    }
}
