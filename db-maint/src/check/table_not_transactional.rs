//! MySQL/MariaDB tables whose engine knows no transactions: a crash damages them, a rollback leaves them changed, and one
//! writer locks out all others.

use crate::capability::Flavour;
use crate::finding::{Finding, Outcome};
use crate::ident::quoted;
use crate::schema::Schema;

pub(crate) const ID: &str = "table-not-transactional";

/// Engines that crash, lock and forget. Others (archives, links to other servers) are what they are on purpose.
const ENGINES: [&str; 4] = ["MyISAM", "Aria", "MEMORY", "MRG_MyISAM"];

pub(crate) fn judge(schema: &Schema, flavour: Flavour) -> Outcome {
    if !matches!(flavour, Flavour::Mysql | Flavour::MariaDb) {
        return Outcome::not_applicable(format!("all tables of {flavour} are transactional"));
    }
    let findings =
        schema.tables.iter().filter(|t| ENGINES.iter().any(|e| t.engine.eq_ignore_ascii_case(e))).map(|table| {
            Finding::new(ID, table.name.to_string(), format!("its engine, {}, knows no transactions", table.engine))
                .evidence("engine", table.engine.as_str())
                .evidence("bytes", table.bytes)
                .remedy(format!("ALTER TABLE {} ENGINE=InnoDB", quoted(flavour, &table.name.name)))
        });
    Outcome::of(schema.tables.len() as u64, findings.collect(), vec![])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Table;
    use crate::schema::sample::table;

    #[test]
    fn engines_without_transactions_are_found() {
        let of = |engine: &str| Table { engine: engine.into(), ..table(engine) };
        let schema =
            Schema { tables: ["InnoDB", "MyISAM", "aria", "ROCKSDB", "ARCHIVE"].map(of).to_vec(), ..Schema::default() };
        let outcome = judge(&schema, Flavour::MariaDb);
        let found: Vec<_> = outcome.findings().iter().map(|f| f.object.as_str()).collect();
        assert_eq!(found, ["MyISAM", "aria"]);
        assert!(matches!(judge(&schema, Flavour::Postgres), Outcome::NotApplicable { .. }));
    }
}
