//! Indexes that an interrupted build left behind: every write keeps them up, and no query may use them.
//!
//! PostgreSQL alone has them. One that is being built just now is left alone, as is a partitioned index whose parts are not all
//! there yet.

use super::drop_index;
use crate::capability::Flavour;
use crate::finding::{Finding, Outcome};
use crate::schema::{Index, Purpose, Schema, State};

pub(crate) const ID: &str = "index-invalid";

pub(crate) fn judge(schema: &Schema, flavour: Flavour) -> Outcome {
    if flavour != Flavour::Postgres {
        return Outcome::not_applicable(format!("{flavour} finishes or undoes the build of an index"));
    }
    let candidates = || schema.indexes.iter().filter(|i| !i.is_partitioned);
    let of = |index: &Index| {
        let finding = Finding::new(ID, index.object(), "a build that was interrupted left it: no query uses it")
            .evidence("bytes", index.bytes);
        // What takes the place of another one while it is rebuilt, and what is left of the other one then.
        let is_debris = index.name.contains("_ccnew") || index.name.contains("_ccold");
        match index.purpose {
            _ if is_debris => finding.remedy(drop_index(flavour, index)),
            Purpose::Plain => finding.remedy(format!(
                "REINDEX INDEX CONCURRENTLY {}.{}",
                crate::ident::quoted(flavour, &index.table.schema),
                crate::ident::quoted(flavour, &index.name)
            )),
            _ => finding.remedy("look at its constraint: ALTER TABLE … DROP CONSTRAINT, and make it again"),
        }
    };
    let findings = candidates().filter(|i| i.state == State::Invalid).map(of).collect();
    let building = candidates().filter(|i| i.state == State::Building);
    let unknown = building.map(|i| format!("{} may be under construction right now", i.object())).collect();
    Outcome::of(candidates().count() as u64, findings, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::sample::index;

    fn of(index: Index) -> Outcome {
        judge(&Schema { indexes: vec![index], ..Schema::default() }, Flavour::Postgres)
    }

    #[test]
    fn an_invalid_one_is_found_and_one_that_is_being_built_is_not() {
        let invalid = || Index { state: State::Invalid, ..index("o", "a", &["x"]) };
        let remedy = |i| of(i).findings()[0].remedy.clone().unwrap();
        assert!(remedy(invalid()).starts_with("REINDEX INDEX CONCURRENTLY"));
        assert!(remedy(Index { name: "a_ccnew1".into(), ..invalid() }).starts_with("DROP INDEX CONCURRENTLY"));
        assert!(matches!(of(Index { state: State::Building, ..invalid() }), Outcome::Unknown { .. }));
        assert_eq!(of(Index { is_partitioned: true, ..invalid() }), Outcome::Clean { examined: 0 });
        assert_eq!(of(index("o", "a", &["x"])), Outcome::Clean { examined: 1 });
    }
}
