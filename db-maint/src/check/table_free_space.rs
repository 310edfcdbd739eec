//! Space in a table's file that nothing uses, and that stays so (InnoDB).
//!
//! What the server calls free is no reason by itself: new rows fill it, and a rebuild would take it from them. So a table is named
//! only where so much was free at every look of at least a day. Pages that are half empty are not counted as free, and not seen
//! here.

use chrono::TimeDelta;

use crate::activity::Seen;
use crate::capability::Flavour;
use crate::finding::{Finding, Outcome, Severity};
use crate::look::Look;
use crate::look::sizes::{Size, Sizes};
use crate::schema::Schema;
use crate::table::sql_name;

pub(crate) const ID: &str = "table-free-space";

/// How long it has to have stayed so.
pub(crate) const LASTING: TimeDelta = TimeDelta::days(1);
/// So much is worth a rebuild.
pub(crate) const BYTES: u64 = 100 << 20;
const SHARE: f64 = 0.25;

/// `since` are all looks from one on that was taken a day before, or none.
pub(crate) fn judge(now: &Seen<Sizes>, schema: &Schema, flavour: Flavour, since: &[&Look]) -> Outcome {
    if !matches!(flavour, Flavour::Mysql | Flavour::MariaDb) {
        return Outcome::not_applicable("only InnoDB keeps a file for each table and says what is free in it");
    }
    let sizes = match now {
        Ok(sizes) => sizes,
        Err(unseen) => return unseen.clone().into(),
    };
    // The least that was free at any of them.
    let least = |size: &Size| -> Option<u64> {
        since
            .iter()
            .map(|look| look.sizes.as_ref().ok().and_then(|s| s.of(&size.table)).and_then(|s| s.free))
            .min()
            .flatten()
    };
    let (mut findings, mut unknown, mut hidden) = (Vec::new(), Vec::new(), 0);
    for size in &sizes.tables {
        let is_innodb = schema.tables.iter().any(|t| t.name == size.table && t.engine.eq_ignore_ascii_case("InnoDB"));
        match size.free {
            None if is_innodb => hidden += 1,
            Some(free) if is_much(free, size) => match least(size) {
                Some(then) if is_much(free.min(then), size) => findings.push(found(size, free.min(then), schema, flavour)),
                Some(_) => {}
                _ => unknown.push(format!(
                    "{} MiB are free in the file of {}; whether they stay free takes two looks a day apart (--history FILE)",
                    free >> 20,
                    size.table
                )),
            },
            _ => {}
        }
    }
    if hidden > 0 {
        unknown.push(format!(
            "what is free for {hidden} tables is not known: they share a file, or this user may not see it"
        ));
    }
    Outcome::of(sizes.tables.len() as u64, findings, unknown)
}

fn is_much(free: u64, size: &Size) -> bool {
    free >= BYTES && free as f64 >= SHARE * (size.total() + free) as f64
}

fn found(size: &Size, free: u64, schema: &Schema, flavour: Flavour) -> Finding {
    let finding = Finding::new(
        ID,
        size.table.to_string(),
        format!(
            "{} MiB of its file, {:.0} %, have been free for a day",
            free >> 20,
            free as f64 / (size.total() + free) as f64 * 100.0
        ),
    )
    .severity(Severity::Notice)
    .evidence("free_bytes", free)
    .evidence("used_bytes", size.total());
    match copies(schema, size) {
        Some(index) => finding.remedy(format!(
            "OPTIMIZE TABLE {} in maintenance mode: with the index {index} the table is copied, and nobody writes meanwhile",
            sql_name(flavour, &size.table)
        )),
        None => finding.remedy(rebuild(flavour, size)),
    }
}

/// What OPTIMIZE TABLE does to it, but refused where the server would have to lock writers out.
fn rebuild(flavour: Flavour, size: &Size) -> String {
    format!("ALTER TABLE {} FORCE, ALGORITHM=INPLACE, LOCK=NONE", sql_name(flavour, &size.table))
}

/// An index with which the server cannot rebuild the table while it is written to.
fn copies<'a>(schema: &'a Schema, size: &Size) -> Option<&'a str> {
    let is_special = |method: &str| ["FULLTEXT", "SPATIAL", "RTREE"].iter().any(|m| method.eq_ignore_ascii_case(m));
    schema.indexes.iter().find(|i| i.table == size.table && is_special(&i.method)).map(|i| i.name.as_str())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::look::sample::blind;
    use crate::schema::TableName;
    use crate::schema::sample::{index, table};

    const MIB: u64 = 1 << 20;

    fn sizes(free: Option<u64>) -> Sizes {
        let size = Size { table: TableName::new("", "sessions"), rows: None, data: 200 * MIB, indexes: 50 * MIB, free };
        Sizes { database: 0, tables: vec![size] }
    }

    fn of(now: Option<u64>, before: Option<Option<u64>>) -> Outcome {
        let mut sessions = table("sessions");
        sessions.engine = "InnoDB".into();
        let schema = Schema { tables: vec![sessions], ..Schema::default() };
        let look = before.map(|free| Look { sizes: Ok(sizes(free)), ..blind(DateTime::UNIX_EPOCH) });
        judge(&Ok(sizes(now)), &schema, Flavour::MariaDb, &look.iter().collect::<Vec<_>>())
    }

    #[test]
    fn free_space_counts_where_it_stays_free() {
        assert_eq!(of(Some(4 * MIB), None), Outcome::Clean { examined: 1 });
        assert!(matches!(of(Some(300 * MIB), None), Outcome::Unknown { .. }));
        assert_eq!(of(Some(300 * MIB), Some(Some(10 * MIB))), Outcome::Clean { examined: 1 });
        let found = of(Some(300 * MIB), Some(Some(250 * MIB)));
        assert_eq!(found.findings()[0].evidence["free_bytes"], 250 * MIB);
        assert_eq!(
            found.findings()[0].remedy.as_deref(),
            Some("ALTER TABLE `sessions` FORCE, ALGORITHM=INPLACE, LOCK=NONE")
        );
        assert!(matches!(of(None, None), Outcome::Unknown { .. }));
    }

    #[test]
    fn a_table_that_would_be_copied_is_not_rebuilt_in_passing() {
        let mut text = index("sessions", "words", &["data"]);
        text.method = "FULLTEXT".into();
        let schema = Schema { indexes: vec![text], ..Schema::default() };
        let look = Look { sizes: Ok(sizes(Some(300 * MIB))), ..blind(DateTime::UNIX_EPOCH) };
        let found = judge(&Ok(sizes(Some(300 * MIB))), &schema, Flavour::MariaDb, &[&look]);
        assert!(found.findings()[0].remedy.as_deref().unwrap().starts_with("OPTIMIZE TABLE"));
    }
}
