//! Indexes that no query has used for as long as it takes to be sure.
//!
//! Never unused is what enforces something (primary keys, unique indexes, constraints), tells replicas which row is which, or
//! supports a foreign key: deleting a parent row looks through it. The figure counts only where the server has counted for
//! longer than the window; a replica has its own counters, which nobody here sees.

use std::collections::HashMap;

use chrono::TimeDelta;

use super::drop_index;
use crate::capability::{Capabilities, IndexUsage, NodeRole};
use crate::finding::{Confidence, Finding, Outcome, Severity};
use crate::schema::{Index, Observed, Purpose, Schema, State};

pub(crate) const ID: &str = "index-unused";

pub(crate) fn judge(schema: &Schema, capabilities: &Capabilities, observed: Observed, window: TimeDelta) -> Outcome {
    match &capabilities.index_usage {
        IndexUsage::CountedBy(_) => {}
        IndexUsage::NotCounted(why) => {
            return Outcome::unknown_until(
                why.clone(),
                "let the server count the use of indexes, and look again later",
            );
        }
        IndexUsage::Uncountable => {
            return Outcome::not_applicable(format!("{} does not count the use of indexes", capabilities.flavour));
        }
    }
    match capabilities.role {
        NodeRole::Replica => {
            return Outcome::unknown_until("a replica counts its own queries alone", "ask the primary");
        }
        NodeRole::Unknown => return Outcome::unknown("whether replicas use the indexes cannot be seen"),
        NodeRole::Single | NodeRole::Primary => {}
    }
    let Some(since) = observed.since else {
        return Outcome::unknown("the server does not say since when it has counted in this database");
    };
    let counted = observed.now - since;
    if counted < window {
        return Outcome::unknown_until(
            format!("the server has counted for {} days, and {} are needed", counted.num_days(), window.num_days()),
            "look again later",
        );
    }
    // What is partitioned is used where any of its parts is.
    let mut of_parts: HashMap<_, u64> = HashMap::new();
    for part in schema.indexes.iter().filter(|i| i.is_part) {
        *of_parts
            .entry((part.keys.iter().map(|k| k.what.as_str()).collect::<Vec<_>>(), part.method.as_str()))
            .or_default() += part.scans.unwrap_or(0);
    }
    let mut examined = 0;
    let mut findings = Vec::new();
    let mut unknown = Vec::new();
    for index in schema.indexes.iter().filter(|i| may_go(i, schema)) {
        examined += 1;
        let scans = match index.is_partitioned {
            true => {
                let key = (index.keys.iter().map(|k| k.what.as_str()).collect::<Vec<_>>(), index.method.as_str());
                Some(of_parts.get(&key).copied().unwrap_or(0))
            }
            false => index.scans,
        };
        match scans {
            None => unknown.push(format!("nothing counts the use of {}", index.object())),
            Some(0) if index.counted_since.is_some_and(|since| observed.now - since < window) => {
                unknown.push(format!("{} was made, or its table changed, too recently to tell", index.object()));
            }
            Some(0) => {
                let mut finding = Finding::new(
                    ID,
                    index.object(),
                    format!("no query has used it for {} days, or since it was made", counted.num_days()),
                )
                .severity(Severity::Notice)
                .confidence(Confidence::Estimated)
                .evidence("scans", 0)
                .evidence("counted_since", since.to_rfc3339())
                .evidence("bytes", index.bytes);
                if let Some(definition) = &index.definition {
                    finding = finding.evidence("undo", definition.as_str());
                }
                findings.push(match capabilities.role {
                    NodeRole::Single => finding.remedy(drop_index(capabilities.flavour, index)),
                    _ => finding.remedy("look at the counters of the replicas first: their queries are counted there"),
                });
            }
            Some(_) => {}
        }
    }
    Outcome::of(examined, findings, unknown)
}

/// Whether nothing but queries could need it.
pub(crate) fn may_go(index: &Index, schema: &Schema) -> bool {
    index.purpose == Purpose::Plain
        && !index.unique
        && !index.is_part
        && index.visible
        && index.state == State::Valid
        && !schema.foreign_keys.iter().any(|key| index.supports(key))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::schema::sample::{foreign_key, index, primary};

    fn look(schema: &Schema, days: i64, change: impl FnOnce(&mut Capabilities)) -> Outcome {
        let mut capabilities = crate::capability::sample();
        change(&mut capabilities);
        let since = DateTime::UNIX_EPOCH;
        let observed = Observed { now: since + TimeDelta::days(days), since: Some(since) };
        judge(schema, &capabilities, observed, TimeDelta::days(30))
    }

    fn found(index: Index) -> usize {
        look(&Schema { indexes: vec![index], ..Schema::default() }, 31, |_| {}).findings().len()
    }

    #[test]
    fn an_index_that_nobody_used_for_the_whole_window_is_found() {
        let schema = Schema { indexes: vec![index("o", "a", &["x"])], ..Schema::default() };
        assert_eq!(look(&schema, 31, |_| {}).findings().len(), 1);
        assert!(matches!(look(&schema, 29, |_| {}), Outcome::Unknown { .. }));
        assert!(matches!(
            look(&schema, 31, |c| c.index_usage = IndexUsage::NotCounted("off".into())),
            Outcome::Unknown { .. }
        ));
        let with_replicas = look(&schema, 31, |c| c.role = NodeRole::Primary);
        assert!(!with_replicas.findings()[0].remedy.as_ref().unwrap().contains("DROP"));
        for role in [NodeRole::Replica, NodeRole::Unknown] {
            assert!(matches!(look(&schema, 31, |c| c.role = role), Outcome::Unknown { .. }));
        }
    }

    #[test]
    fn what_is_used_or_needed_is_not() {
        assert_eq!(found(Index { scans: Some(1), ..index("o", "a", &["x"]) }), 0);
        assert_eq!(found(primary("o", &["id"])), 0);
        assert_eq!(found(Index { unique: true, ..index("o", "a", &["x"]) }), 0);
        assert_eq!(found(Index { purpose: Purpose::Constraint, ..index("o", "a", &["x"]) }), 0);
        assert_eq!(found(Index { purpose: Purpose::Identity, ..index("o", "a", &["x"]) }), 0);
        assert_eq!(found(Index { state: State::Building, ..index("o", "a", &["x"]) }), 0);
        assert_eq!(found(Index { visible: false, ..index("o", "a", &["x"]) }), 0);
        let supports = Schema {
            indexes: vec![index("o", "a", &["customer", "placed"])],
            foreign_keys: vec![foreign_key("o", &["customer"], "c")],
            ..Schema::default()
        };
        assert_eq!(look(&supports, 31, |_| {}), Outcome::Clean { examined: 0 });
    }

    #[test]
    fn what_is_counted_anew_since_its_table_was_changed_is_unknown() {
        let changed = Some(DateTime::UNIX_EPOCH + TimeDelta::days(20));
        let index = Index { counted_since: changed, ..index("o", "a", &["x"]) };
        let schema = Schema { indexes: vec![index], ..Schema::default() };
        assert!(matches!(look(&schema, 31, |_| {}), Outcome::Unknown { .. }));
        assert_eq!(look(&schema, 51, |_| {}).findings().len(), 1);
    }

    #[test]
    fn what_nobody_counts_is_unknown() {
        let schema = Schema { indexes: vec![Index { scans: None, ..index("o", "a", &["x"]) }], ..Schema::default() };
        assert!(matches!(look(&schema, 31, |_| {}), Outcome::Unknown { .. }));
    }

    #[test]
    fn a_partitioned_index_is_used_where_one_of_its_parts_is() {
        let whole = Index { is_partitioned: true, scans: None, ..index("log", "sent", &["sent_at"]) };
        let part = |name: &str, scans| Index { is_part: true, scans: Some(scans), ..index(name, name, &["sent_at"]) };
        let of = |scans| {
            let indexes = vec![whole.clone(), part("p1", 0), part("p2", scans)];
            look(&Schema { indexes, ..Schema::default() }, 31, |_| {}).findings().len()
        };
        assert_eq!((of(0), of(5)), (1, 0));
    }
}
