//! Rows that refer to nothing though a foreign key is declared: the server does not vouch for every key.
//!
//! SQLite checks keys only in sessions that ask for it; MySQL and MariaDB let rows in unchecked where `foreign_key_checks` is off, as
//! every restore sets it; PostgreSQL keeps keys that were declared NOT VALID.

use crate::activity::Violations;
use crate::capability::Flavour;
use crate::finding::{Finding, Outcome};

pub(crate) const ID: &str = "foreign-key-violated";

pub(crate) fn judge(seen: &Violations, flavour: Flavour) -> Outcome {
    let findings = seen.found.iter().map(|violation| {
        let object = match &violation.key {
            Some(key) => format!("{}.{key}", violation.table),
            None => violation.table.clone(),
        };
        let summary = format!("{} rows refer to rows of {} that do not exist", violation.rows, violation.to);
        Finding::new(ID, object, summary).evidence("rows", violation.rows).remedy(match flavour {
            Flavour::Sqlite => "SQLite checks foreign keys only in connections that say PRAGMA foreign_keys = ON",
            Flavour::Postgres => "declare it in a policy ([[reference]]) and mend it with `orphans`; then ALTER TABLE … VALIDATE CONSTRAINT",
            Flavour::Mysql | Flavour::MariaDb => "declare it in a policy ([[reference]]) and mend it with `orphans`; load with foreign_key_checks = 1",
        })
    });
    Outcome::of(seen.examined, findings.collect(), seen.unknown.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::Violation;

    #[test]
    fn keys_that_do_not_hold_are_named_and_those_that_were_not_read_are_unknown() {
        let found = Violation { table: "items".into(), key: Some("items_order".into()), to: "orders".into(), rows: 3 };
        let seen = Violations { found: vec![found], examined: 2, unknown: vec!["carts.owner was not read".into()] };
        let outcome = judge(&seen, Flavour::MariaDb);
        assert_eq!(outcome.findings()[0].object, "items.items_order");
        assert!(matches!(&outcome, Outcome::Found { unknown, .. } if unknown.len() == 1));
        assert!(matches!(judge(&Violations { found: vec![], ..seen }, Flavour::MariaDb), Outcome::Unknown { .. }));
        assert_eq!(judge(&Violations::default(), Flavour::Postgres), Outcome::Clean { examined: 0 });
    }
}
