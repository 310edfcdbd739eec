//! What of a shop's content is stale or waits for somebody: reviews that nobody approved, banners whose time is over, products
//! without a text for search engines. The shop says what, in SQL of its own.

use chrono::{DateTime, Utc};

use super::{ask, count, counted};
use crate::batch::work::{Written, expired, no_numbers};
use crate::error::{Error, ErrorKind, Result};
use crate::finding::{Finding, Outcome, Severity};
use crate::policy::ContentRule;
use crate::policy::condition::enclosed;
use crate::session::Session;
use crate::statement::Piece;
use crate::table::Table;

pub(crate) const ID: &str = "content";

/// So many rows are named.
const NAMED: usize = 10;

/// How many rows one rule meets, and what the first of them are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) rows: u64,
    pub(crate) first: Vec<String>,
}

/// Whether a rule fits the schema: the server says so, and reads nothing for it.
pub(crate) async fn fits(session: &mut Session, rule: &ContentRule, now: DateTime<Utc>) -> Result<()> {
    let (table, condition) = condition(session, rule, now).await?;
    let label = match &rule.label {
        Some(label) => table.of(&table.column(label)?.name),
        None => "'1'".to_owned(),
    };
    let sql = Piece::text(format!(
        "SELECT CASE WHEN {label} IS NULL THEN '0' ELSE '1' END FROM {} WHERE 1 = 0 AND ",
        table.sql()
    ));
    ask(session, &called(rule), &sql.piece(&condition)).await.map(drop)
}

fn called(rule: &ContentRule) -> String {
    format!("the content rule {:?}", rule.name)
}

async fn condition(session: &mut Session, rule: &ContentRule, now: DateTime<Utc>) -> Result<(Table, Piece)> {
    let what = called(rule);
    let table = Table::find(session, rule.schema.as_deref(), &rule.table).await?;
    let flavour = table.flavour;
    let mut condition = Piece::text("1 = 1");
    if let Some(more) = &rule.condition {
        condition = condition.then(format!(" AND {}", enclosed(flavour, more)?));
    }
    match (&rule.column, rule.older) {
        (Some(column), Some(older)) => {
            let cutoff = now.checked_sub_signed(older.delta()).ok_or_else(|| {
                Error::new(ErrorKind::Config, format!("{what}: older = \"{older}\" reaches beyond all time"))
            })?;
            let written = Written { unit: rule.unit, zone: rule.zone };
            let column = table.column(column)?;
            no_numbers(session, &table, column, rule.unit).await?;
            condition = condition.then(" AND ").piece(&expired(&table, column, written, cutoff)?);
        }
        (None, None) if rule.condition.is_some() => {}
        (None, None) => {
            return Err(Error::new(ErrorKind::Config, format!("{what} says nothing of which rows"))
                .with_next_step("write where = \"…\", or column = \"…\" and older = \"3d\""));
        }
        _ => {
            return Err(Error::new(ErrorKind::Config, format!("{what} needs both column and older, or neither"))
                .with_next_step("write column = \"created_at\" and older = \"3d\""));
        }
    }
    if rule.most.is_some() && rule.least.is_some() {
        return Err(Error::new(ErrorKind::Config, format!("{what} has both most and least"))
            .with_next_step("make two rules of it"));
    }
    Ok((table, condition))
}

/// How many rows a rule meets.
pub(crate) async fn look(session: &mut Session, rule: &ContentRule, now: DateTime<Utc>) -> Result<Met> {
    let what = called(rule);
    let (table, condition) = condition(session, rule, now).await?;
    let flavour = table.flavour;
    let all = Piece::text(format!("SELECT {} FROM {} WHERE ", counted(flavour), table.sql())).piece(&condition);
    let rows = count(session, &what, &all).await?;
    let mut first = Vec::new();
    if let Some(label) = &rule.label {
        let label = table.column(label)?.text(flavour, &table.of(label));
        let named = Piece::text(format!("SELECT {label} FROM {} WHERE ", table.sql()))
            .piece(&condition)
            .then(format!(" ORDER BY 1 LIMIT {NAMED}"));
        first =
            ask(session, &what, &named).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    }
    Ok(Met { rows, first })
}

/// Where a rule's rows are too many, or too few.
pub(crate) fn judge(rule: &ContentRule, met: &Met) -> Option<Finding> {
    let (is_wrong, limit) = match (rule.least, rule.most.unwrap_or(0)) {
        (Some(least), _) => (met.rows < least, format!("at least {least} should be")),
        (None, most) => (met.rows > most, format!("at most {most} should be")),
    };
    is_wrong.then(|| {
        let finding = Finding::new(ID, rule.name.clone(), format!("{} rows of {}; {limit}", met.rows, rule.table))
            .severity(Severity::Notice)
            .evidence("rows", met.rows)
            .evidence("first", met.first.clone());
        match &rule.remedy {
            Some(remedy) => finding.remedy(remedy.clone()),
            None => finding,
        }
    })
}

/// All rules; one that cannot be looked at is said.
pub(crate) async fn check(session: &mut Session, rules: &[ContentRule], now: DateTime<Utc>) -> Outcome {
    if rules.is_empty() {
        return Outcome::not_applicable("the policy has no rule for content");
    }
    let (mut findings, mut unknown) = (Vec::new(), Vec::new());
    for rule in rules {
        match look(session, rule, now).await {
            Ok(met) => findings.extend(judge(rule, &met)),
            Err(e) => unknown.push(format!("{}: {e}", rule.name)),
        }
    }
    Outcome::of(rules.len() as u64, findings, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(least: Option<u64>, most: Option<u64>) -> ContentRule {
        ContentRule {
            name: "reviews that wait".into(),
            schema: None,
            table: "testimonials".into(),
            condition: Some("approved = 0".into()),
            column: None,
            older: None,
            unit: None,
            zone: None,
            label: None,
            most,
            least,
            remedy: None,
        }
    }

    #[test]
    fn too_many_and_too_few_are_told() {
        let of = |least, most, rows| judge(&rule(least, most), &Met { rows, first: vec![] }).is_some();
        assert!(!of(None, None, 0) && of(None, None, 1));
        assert!(!of(None, Some(5), 5) && of(None, Some(5), 6));
        assert!(of(Some(1), None, 0) && !of(Some(1), None, 1));
    }
}
