//! Dead rows that autovacuum should have removed by its own settings, and what keeps it from doing so.
//!
//! The measure is the *effective* trigger of each table: threshold plus scale factor times rows, by the table's own settings
//! where it has some. (PostgreSQL's documentation, "The Autovacuum Daemon".)

use chrono::TimeDelta;

use crate::activity::{Holder, Vacuum, Vacuums};
use crate::capability::Flavour;
use crate::finding::{Confidence, Finding, Outcome, Severity};
use crate::table::sql_name;

pub(crate) const ID: &str = "dead-rows";
pub(crate) const HELD: &str = "vacuum-held-back";

/// So much more than what starts an autovacuum has not been noticed by one.
const OVERDUE: f64 = 2.0;
/// Fewer do not matter.
const FEW: u64 = 1_000;
/// An autovacuum that ended so recently may be about to begin again.
const RECENT: TimeDelta = TimeDelta::minutes(10);
/// A holder that is so many transactions old keeps what should go.
const HELD_BACK: u64 = 1_000_000;
const LONG_HELD_BACK: u64 = 50_000_000;

pub(crate) fn judge(seen: &Vacuums) -> Outcome {
    if let Some(why) = &seen.uncounted {
        return Outcome::unknown(why.clone());
    }
    let findings = seen.tables.iter().filter(|t| is_overdue(t)).map(|table| {
        let why = match table.enabled {
            true => "and no autovacuum has removed them",
            false => "and autovacuum is switched off for it",
        };
        let summary = format!("{} rows are dead beside {} live ones, {why}", table.dead, table.live);
        Finding::new(ID, table.table.to_string(), summary)
            .confidence(Confidence::Estimated)
            .evidence("dead_rows", table.dead)
            .evidence("live_rows", table.live)
            .evidence("trigger_rows", table.trigger.round())
            .evidence("autovacuum_enabled", table.enabled)
            .evidence("seconds_since_vacuum", table.since_vacuum.map(|d| d.num_seconds()))
            .remedy(format!("VACUUM (ANALYZE) {}", sql_name(Flavour::Postgres, &table.table)))
    });
    Outcome::of(seen.tables.len() as u64, findings.collect(), vec![])
}

/// What holds vacuum back everywhere.
pub(crate) fn judge_held(seen: &Vacuums) -> Outcome {
    let findings = seen.holders.iter().filter(|h| h.age >= HELD_BACK).map(|Holder { what, age }| {
        Finding::new(HELD, what.clone(), format!("nothing that died in the last {age} transactions can be removed"))
            .severity(if *age < LONG_HELD_BACK { Severity::Warning } else { Severity::Critical })
            .evidence("transactions", *age)
            .remedy("end the transaction, roll the prepared one back, or drop the slot that nobody reads")
    });
    let hidden = seen.holders_hidden.then(|| "this user does not see what other users' sessions hold back".to_owned());
    Outcome::of(seen.holders.len() as u64, findings.collect(), hidden.into_iter().collect())
}

fn is_overdue(table: &Vacuum) -> bool {
    table.dead >= FEW
        && table.dead as f64 > table.trigger * OVERDUE
        && table.since_vacuum.is_none_or(|since| since > RECENT)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn vacuum(dead: u64) -> Vacuum {
        Vacuum {
            table: crate::TableName::new("public", "orders"),
            live: 10_000,
            dead,
            trigger: 2_050.0,
            enabled: true,
            since_vacuum: None,
            changed: 0,
            analyze_trigger: 1_050.0,
            since_analyze: Some(TimeDelta::hours(1)),
            xid_age: 1_000,
            mxid_age: 10,
        }
    }

    fn of(table: Vacuum) -> usize {
        judge(&Vacuums { tables: vec![table], ..Vacuums::default() }).findings().len()
    }

    #[test]
    fn what_autovacuum_should_have_done_is_found() {
        assert_eq!(of(vacuum(0)), 0);
        // It will begin by itself any minute.
        assert_eq!(of(vacuum(2_100)), 0);
        assert_eq!(of(vacuum(5_000)), 1);
        assert_eq!(of(Vacuum { since_vacuum: Some(TimeDelta::minutes(1)), ..vacuum(5_000) }), 0);
        assert_eq!(of(Vacuum { trigger: 50_000.0, ..vacuum(5_000) }), 0);
        assert_eq!(of(Vacuum { trigger: 50.0, ..vacuum(200) }), 0);
        let uncounted = Vacuums { uncounted: Some("a standby".into()), tables: vec![vacuum(0)], ..Vacuums::default() };
        assert!(matches!(judge(&uncounted), Outcome::Unknown { .. }));
    }

    #[test]
    fn what_holds_it_back_is_named() {
        let holder = |age| Holder { what: "slot old_standby".into(), age };
        let of = |age| {
            let outcome = judge_held(&Vacuums { holders: vec![holder(age)], ..Vacuums::default() });
            outcome.findings().first().map(|f| f.severity)
        };
        assert_eq!([of(10), of(2_000_000), of(60_000_000)], [None, Some(Severity::Warning), Some(Severity::Critical)]);
    }
}
