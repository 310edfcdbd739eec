//! Low stock: told when a thing crosses its threshold, and not again each hour until it has been above it.
//!
//! What was told is kept in the table `caretaker_stock`; one row for each thing that is low.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{ask, count, counted};
use crate::batch::time;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{as_text, create, types};
use crate::policy::StockRule;
use crate::policy::condition::enclosed;
use crate::session::{Session, Value};
use crate::statement::{Piece, plain_number, plain_text};
use crate::table::{Kind, Table};

/// So many things at most are told of at once.
const MOST: usize = 10_000;

/// What is low, and what is not any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StockReport {
    /// Rows that were looked at.
    pub examined: u64,
    /// What is low now, the lowest first.
    pub low: Vec<LowItem>,
    /// What was low before, and is not any more.
    pub recovered: Vec<String>,
    /// Rows whose stock or threshold is not known.
    pub unknown: Vec<String>,
}

/// Something that is about to run out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LowItem {
    /// What people know it by.
    pub label: String,
    /// How many there are, without those that are promised.
    pub available: f64,
    /// How many there have to be.
    pub threshold: f64,
    /// Since when it is known to be low; now, where this look is the first to see it.
    pub since: DateTime<Utc>,
    /// Whether this look is the first to see it: whom to tell.
    pub is_new: bool,
}

/// Looks for what is low. With `remember` it is written down, and told as new only once.
///
/// Cancel safe: at worst something is told as new twice.
///
/// # Errors
/// [`ErrorKind::Config`] where the rule does not fit the schema, or meets no row at all: then nothing was checked.
pub async fn check_stock(
    engine: &dyn Engine,
    rule: &StockRule,
    now: Option<DateTime<Utc>>,
    remember: bool,
) -> Result<StockReport> {
    let mut session = engine.session().await?;
    let now = time(&mut session, now).await?;
    let seen = look(&mut session, rule).await?;
    let (text, number) = types(session.flavour());
    let columns = format!("item {text} PRIMARY KEY, since {number} NOT NULL");
    if remember {
        create(&mut session, "caretaker_stock", &columns).await?;
    }
    let known = known(&mut session).await?;
    let low = seen.low.into_iter().map(|(label, available, threshold)| {
        let since = known.get(&label).copied();
        LowItem { is_new: since.is_none(), since: since.unwrap_or(now), label, available, threshold }
    });
    let low: Vec<LowItem> = low.collect();
    let is_low = |item: &str| low.iter().any(|l| l.label == item) || seen.unknown.iter().any(|u| u == item);
    let mut recovered: Vec<String> = known.keys().filter(|item| !is_low(item)).cloned().collect();
    recovered.sort();
    if remember {
        write(&mut session, &low, &recovered, now).await.map_err(|e| session.error("did not note what is low", e))?;
    }
    session.close().await;
    Ok(StockReport { examined: seen.examined, low, recovered, unknown: seen.unknown })
}

pub(crate) struct Seen {
    examined: u64,
    low: Vec<(String, f64, f64)>,
    unknown: Vec<String>,
}

/// What is low, without what was known before.
pub(crate) async fn look(session: &mut Session, rule: &StockRule) -> Result<Seen> {
    let what = "the rule for stock";
    let table = Table::find(session, rule.schema.as_deref(), &rule.table).await?;
    let flavour = table.flavour;
    let label = table.column(&rule.label)?.text(flavour, &table.of(&rule.label));
    let stock = number(&table, &rule.stock)?;
    let threshold = match (&rule.threshold_column, rule.threshold) {
        (Some(column), None) => number(&table, column)?,
        (None, Some(threshold)) => threshold.to_string(),
        _ => {
            return Err(Error::new(ErrorKind::Config, "the rule for stock needs one threshold")
                .with_next_step("write either threshold = 5 or threshold_column = \"…\""));
        }
    };
    let available = match &rule.reserved {
        Some(reserved) => format!("({stock} - COALESCE({}, 0))", enclosed(flavour, reserved)?),
        None => stock,
    };
    let condition = match &rule.condition {
        Some(condition) => enclosed(flavour, condition)?,
        None => "1 = 1".to_owned(),
    };
    let all = Piece::text(format!("SELECT {} FROM {} WHERE {condition}", counted(flavour), table.sql()));
    let examined = count(session, what, &all).await?;
    if examined == 0 {
        return Err(Error::new(ErrorKind::Config, format!("{what} meets no row of {table}: nothing was checked"))
            .with_next_step("check where = \"…\""));
    }
    // What is not known is not above it.
    let sql = format!(
        "SELECT {label}, {}, {} FROM {} WHERE {condition} AND NOT COALESCE({available} >= {threshold}, {}) ORDER BY {available} LIMIT {}",
        as_text(flavour, &available),
        as_text(flavour, &threshold),
        table.sql(),
        if flavour == crate::Flavour::Postgres { "false" } else { "0" },
        MOST + 1
    );
    let rows = ask(session, what, &Piece::text(sql)).await?;
    if rows.len() > MOST {
        return Err(Error::new(ErrorKind::Config, format!("more than {MOST} rows of {table} are low"))
            .with_next_step("say with where = \"…\" which are for sale"));
    }
    let (mut low, mut unknown, mut labels) = (Vec::new(), Vec::new(), BTreeSet::new());
    for row in rows {
        let [label, available, threshold] = row.as_slice() else { continue };
        let figure = |value: &Value| value.as_deref().and_then(|n| n.parse::<f64>().ok());
        let Some(label) = label.clone() else {
            unknown.push(format!("one without {}", rule.label));
            continue;
        };
        if !labels.insert(label.clone()) {
            return Err(Error::new(ErrorKind::Config, format!("two rows of {table} have the {} {label}", rule.label))
                .with_next_step("name a label that tells them apart"));
        }
        match (figure(available), figure(threshold)) {
            (Some(available), Some(threshold)) => low.push((label, available, threshold)),
            _ => unknown.push(label),
        }
    }
    Ok(Seen { examined, low, unknown })
}

fn number(table: &Table, column: &str) -> Result<String> {
    match table.column(column)?.kind {
        Kind::Integer { .. } | Kind::Decimal => {
            // An unsigned number must not stop the server where it falls below nothing.
            let sql = table.of(column);
            let is_mysql = matches!(table.flavour, crate::Flavour::Mysql | crate::Flavour::MariaDb);
            Ok(if is_mysql { format!("CAST({sql} AS DECIMAL(30, 6))") } else { sql })
        }
        _ => Err(Error::new(ErrorKind::Config, format!("{table}.{column} holds no whole or decimal numbers"))
            .with_next_step("name a column that does")),
    }
}

/// What was low before, and since when.
async fn known(session: &mut Session) -> Result<HashMap<String, DateTime<Utc>>> {
    let failed = |session: &Session, e| session.error("does not say what was low before", e);
    // Nothing was ever written down.
    if !session.has_table("caretaker_stock").await.map_err(|e| failed(session, e))? {
        return Ok(HashMap::new());
    }
    let sql = format!("SELECT item, {} FROM caretaker_stock", as_text(session.flavour(), "since"));
    let rows = session.rows(&sql, &[]).await.map_err(|e| failed(session, e))?;
    let mut known = HashMap::new();
    for row in rows {
        if let [Some(item), Some(since)] = row.as_slice()
            && let Some(since) = since.parse().ok().and_then(DateTime::from_timestamp_millis)
        {
            known.insert(item.clone(), since);
        }
    }
    Ok(known)
}

async fn write(
    session: &mut Session,
    low: &[LowItem],
    recovered: &[String],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    session.begin().await?;
    let gone = recovered.iter().chain(low.iter().filter(|l| l.is_new).map(|l| &l.label));
    for item in gone {
        let piece = Piece::text("DELETE FROM caretaker_stock WHERE item = ").value(&plain_text(), Some(item.clone()));
        let (sql, values) = piece.build(session.flavour());
        session.run(&sql, &values).await?;
    }
    for item in low.iter().filter(|l| l.is_new) {
        let (sql, values) = Piece::text("INSERT INTO caretaker_stock (item, since) VALUES (")
            .value(&plain_text(), Some(item.label.clone()))
            .then(", ")
            .value(&plain_number(), Some(now.timestamp_millis().to_string()))
            .then(")")
            .build(session.flavour());
        session.run(&sql, &values).await?;
    }
    session.commit().await
}
