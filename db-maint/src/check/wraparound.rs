//! Transaction ids and multixacts that run out: PostgreSQL stops taking writes some millions before.
//!
//! An age of `autovacuum_freeze_max_age` is normal: that is when autovacuum begins to freeze. Twice that says that it does not
//! get through; from `vacuum_failsafe_age` (1.6 thousand million) on it drops everything else to save the server.

use crate::activity::Vacuums;
use crate::finding::{Finding, Outcome, Severity};

pub(crate) const ID: &str = "wraparound";

const FAILSAFE: u64 = 1_600_000_000;
/// The server stops three million before this many.
const END: u64 = 1 << 31;

pub(crate) fn judge(seen: &Vacuums) -> Outcome {
    let limits = [("transaction ids", seen.freeze_max_age), ("multixacts", seen.multixact_freeze_max_age)];
    let mut findings = Vec::new();
    let tables = seen.tables.iter().map(|t| (format!("table {}", t.table), [t.xid_age, t.mxid_age]));
    let databases = seen.databases.iter().map(|(name, xid, mxid)| (format!("database {name}"), [*xid, *mxid]));
    for (object, ages) in databases.chain(tables) {
        for ((what, limit), age) in limits.into_iter().zip(ages) {
            if age < (limit * 2).min(FAILSAFE) {
                continue;
            }
            let share = age as f64 / END as f64 * 100.0;
            findings.push(
                Finding::new(
                    ID,
                    object.clone(),
                    format!("{share:.0} % of its {what} are used: autovacuum does not get through"),
                )
                .severity(if age < FAILSAFE { Severity::Warning } else { Severity::Critical })
                .evidence("age", age)
                .evidence("freeze_max_age", limit)
                .remedy("find what holds vacuum back, then VACUUM (FREEZE) the oldest tables"),
            );
        }
    }
    Outcome::of((seen.tables.len() + seen.databases.len()) as u64, findings, vec![])
}

#[cfg(test)]
mod tests {
    use super::super::dead_rows::tests::vacuum;
    use super::*;
    use crate::activity::Vacuum;

    fn of(xid: u64, mxid: u64) -> Vec<Severity> {
        let seen = Vacuums {
            tables: vec![Vacuum { xid_age: xid, mxid_age: mxid, ..vacuum(0) }],
            freeze_max_age: 200_000_000,
            multixact_freeze_max_age: 400_000_000,
            ..Vacuums::default()
        };
        judge(&seen).findings().iter().map(|f| f.severity).collect()
    }

    #[test]
    fn a_hundred_percent_of_the_limit_is_normal_and_twice_is_not() {
        assert_eq!(of(200_000_000, 0), []);
        assert_eq!(of(390_000_000, 700_000_000), []);
        assert_eq!(of(410_000_000, 0), [Severity::Warning]);
        assert_eq!(of(0, 810_000_000), [Severity::Warning]);
        assert_eq!(of(1_700_000_000, 1_700_000_000), [Severity::Critical, Severity::Critical]);
    }

    #[test]
    fn other_databases_of_the_server_count() {
        let seen = Vacuums {
            databases: vec![("old".into(), 1_900_000_000, 5)],
            freeze_max_age: 200_000_000,
            multixact_freeze_max_age: 400_000_000,
            ..Vacuums::default()
        };
        assert_eq!(judge(&seen).findings()[0].object, "database old");
    }
}
