//! Planner statistics that are far behind the data: queries are planned for a table that is no more.

use chrono::TimeDelta;

use crate::activity::{Modified, Vacuum, Vacuums};
use crate::capability::Flavour;
use crate::finding::{Confidence, Finding, Outcome, Severity};
use crate::table::sql_name;

pub(crate) const ID: &str = "statistics-stale";

/// So much more than what starts an automatic analysis.
const OVERDUE: f64 = 2.0;
const FEW: u64 = 1_000;
const RECENT: TimeDelta = TimeDelta::minutes(10);

/// PostgreSQL.
pub(crate) fn judge(seen: &Vacuums) -> Outcome {
    if let Some(why) = &seen.uncounted {
        return Outcome::unknown(why.clone());
    }
    let findings = seen.tables.iter().filter(|t| is_stale(t)).map(|table| {
        let summary = match table.since_analyze {
            None => format!("it has {} rows and was never analysed", table.live),
            Some(_) => format!("{} rows were changed since it was analysed", table.changed),
        };
        Finding::new(ID, table.table.to_string(), summary)
            .confidence(Confidence::Estimated)
            .evidence("changed_rows", table.changed)
            .evidence("trigger_rows", table.analyze_trigger.round())
            .evidence("seconds_since_analyze", table.since_analyze.map(|d| d.num_seconds()))
            .remedy(format!("ANALYZE {}", sql_name(Flavour::Postgres, &table.table)))
    });
    Outcome::of(seen.tables.len() as u64, findings.collect(), vec![])
}

/// InnoDB: it makes them anew by itself once a tenth of the rows has changed, in the background, unless that is switched off.
pub(crate) fn judge_innodb(seen: &[Modified], flavour: Flavour) -> Outcome {
    if seen.is_empty() {
        return Outcome::unknown_until(
            "the server has no table of this database open, and counts changes of those alone",
            "look again when the shop has used them",
        );
    }
    let is_stale = |table: &&Modified| table.changed >= FEW && table.changed as f64 > table.rows as f64 * 0.1 * OVERDUE;
    let findings = seen.iter().filter(is_stale).map(|table| {
        let summary = format!("{} rows were changed since its statistics were made for {}", table.changed, table.rows);
        Finding::new(ID, table.table.to_string(), summary)
            .confidence(Confidence::Estimated)
            .evidence("changed_rows", table.changed)
            .evidence("rows", table.rows)
            .remedy(format!(
                "ANALYZE TABLE {}; look whether its STATS_AUTO_RECALC is off",
                sql_name(flavour, &table.table)
            ))
    });
    Outcome::of(seen.len() as u64, findings.collect(), vec![])
}

/// SQLite.
pub(crate) fn judge_sqlite(outgrown: &[(String, Option<u64>)]) -> Outcome {
    let findings = outgrown.iter().map(|(table, analysed)| {
        let summary = match analysed {
            Some(rows) => format!("it has grown tenfold since it was analysed with {rows} rows"),
            None => "it was never analysed".to_owned(),
        };
        Finding::new(ID, table.clone(), summary)
            .severity(Severity::Notice)
            .confidence(Confidence::Estimated)
            .evidence("rows_when_analysed", *analysed)
            .remedy("PRAGMA optimize")
    });
    Outcome::of(1, findings.collect(), vec![])
}

fn is_stale(table: &Vacuum) -> bool {
    let never = table.since_analyze.is_none() && table.live >= FEW;
    let behind = table.changed >= FEW
        && table.changed as f64 > table.analyze_trigger * OVERDUE
        && table.since_analyze.is_some_and(|since| since > RECENT);
    never || behind
}

#[cfg(test)]
mod tests {
    use super::super::dead_rows::tests::vacuum;
    use super::*;

    fn of(table: Vacuum) -> usize {
        judge(&Vacuums { tables: vec![table], ..Vacuums::default() }).findings().len()
    }

    #[test]
    fn what_an_analysis_should_have_seen_is_found() {
        assert_eq!(of(vacuum(0)), 0);
        assert_eq!(of(Vacuum { changed: 1_500, ..vacuum(0) }), 0);
        assert_eq!(of(Vacuum { changed: 5_000, ..vacuum(0) }), 1);
        assert_eq!(of(Vacuum { changed: 5_000, since_analyze: Some(TimeDelta::minutes(2)), ..vacuum(0) }), 0);
        assert_eq!(of(Vacuum { since_analyze: None, ..vacuum(0) }), 1);
        assert_eq!(of(Vacuum { since_analyze: None, live: 20, ..vacuum(0) }), 0);
    }

    #[test]
    fn what_innodb_should_have_counted_anew_is_found() {
        let of = |rows, changed| {
            let modified = Modified { table: crate::TableName::new("", "orders"), rows, changed };
            judge_innodb(&[modified], Flavour::MariaDb).findings().len()
        };
        assert!(matches!(judge_innodb(&[], Flavour::MariaDb), Outcome::Unknown { .. }));
        assert_eq!([of(10_000, 0), of(10_000, 1_500), of(10_000, 2_500), of(100, 900)], [0, 0, 1, 0]);
    }

    #[test]
    fn what_a_sqlite_table_has_outgrown_is_said() {
        assert_eq!(judge_sqlite(&[]), Outcome::Clean { examined: 1 });
        let outcome = judge_sqlite(&[("orders".into(), Some(10)), ("visits".into(), None)]);
        assert!(outcome.findings()[0].summary.contains("10 rows"), "{outcome:?}");
        assert!(outcome.findings()[1].summary.contains("never"), "{outcome:?}");
    }
}
