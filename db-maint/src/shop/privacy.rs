//! What is known of one person, over all tables that the policy declares: handed out, and forgotten.
//!
//! Invoices are kept by law: they are anonymised, or kept with the reason. What a legal hold covers stays. The certificate of an
//! erasure says what was done to how many rows of which table, and holds nothing of the person, not even a hash: it can be kept.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ask, count, counted};
use crate::batch::work::{Action, Work, anonymised, check_holds, held, key_is_usable, nothing_kept_follows};
use crate::batch::{JobOptions, run_all, time};
use crate::capability::Flavour;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{ErasureAction, PersonalData, Policy};
use crate::schema::TableName;
use crate::session::Session;
use crate::statement::{Piece, order, texts};
use crate::table::{Kind, Table};

/// How many rows of one person are handed out; nobody has more.
const MOST: usize = 100_000;

/// What was done to forget a person. It holds nothing of the person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErasureCertificate {
    /// A random number: what the request is filed under.
    pub case: String,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
    /// Whether it was done, or only counted.
    pub applied: bool,
    /// The SHA-256 of the policy that it was done by.
    pub policy_sha256: String,
    /// Each table.
    pub tables: Vec<ErasedTable>,
    /// Whether nothing is left that should have gone.
    pub complete: bool,
}

/// What was done to one table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErasedTable {
    /// The table.
    pub table: TableName,
    /// What the policy says.
    pub action: ErasureAction,
    /// Why, where it is kept.
    pub reason: Option<String>,
    /// Rows of the person that were there.
    pub rows: u64,
    /// Rows that were deleted or anonymised; that would be, where it was only counted.
    pub done: u64,
    /// Rows that stay because of a legal hold.
    pub held: u64,
    /// Rows that could not be changed.
    pub failed: u64,
}

/// Everything that is known of the person whom `subject` stands for in the declared columns: `tables`, each with its rows,
/// every value as the text that the database writes it as.
///
/// # Errors
/// [`ErrorKind::Config`] where the policy declares nothing or does not fit the schema, or the person is not known: an export
/// with nothing in it would be taken for an answer.
pub async fn export(
    engine: &dyn Engine,
    policy: &Policy,
    subject: &str,
    now: Option<DateTime<Utc>>,
) -> Result<serde_json::Value> {
    let mut session = engine.session().await?;
    let now = time(&mut session, now).await?;
    let mut tables = Vec::new();
    let mut all = 0;
    for data in declared(policy)? {
        let table = Table::find(&mut session, data.schema.as_deref(), &data.table).await?;
        for column in &data.omit {
            table.column(column)?;
        }
        let shown: Vec<_> = table.columns.iter().filter(|c| !data.omit.contains(&c.name)).cloned().collect();
        let order_by =
            if table.key.is_empty() { String::new() } else { format!(" ORDER BY {}", order(&table, &table.key)) };
        let piece = Piece::text(format!("SELECT {} FROM {} WHERE ", texts(&table, &shown), table.sql()))
            .piece(&of(&table, data, subject)?)
            .then(format!("{order_by} LIMIT {}", MOST + 1));
        let rows = ask(&mut session, "the policy's privacy rules", &piece).await?;
        all += rows.len();
        if all > MOST {
            return Err(Error::new(ErrorKind::Config, format!("more than {MOST} rows belong to this person"))
                .with_next_step("check the columns of the policy's privacy rules"));
        }
        let rows = rows.into_iter().map(|row| {
            let fields =
                shown.iter().zip(row).map(|(column, value)| (column.name.clone(), serde_json::Value::from(value)));
            serde_json::Value::Object(fields.collect())
        });
        tables.push(serde_json::json!({ "table": table.name, "rows": rows.collect::<Vec<_>>() }));
    }
    session.close().await;
    if all == 0 {
        return Err(nobody());
    }
    Ok(serde_json::json!({ "exported_at": now, "tables": tables }))
}

/// Forgets the person whom `subject` stands for in the declared columns: each table as the policy says, in its order. Only
/// counted, unless `options` say to apply it.
///
/// Cancel safe: what was done stays done, and the next call does the rest.
///
/// # Errors
/// As [`export`]; and where a row cannot be changed, it is among the failed.
pub async fn erase(
    engine: &dyn Engine,
    policy: &Policy,
    subject: &str,
    options: &JobOptions,
) -> Result<ErasureCertificate> {
    let mut session = engine.session().await?;
    let now = time(&mut session, options.now).await?;
    check_holds(&mut session, &policy.hold).await?;
    let mut works = Vec::new();
    for data in declared(policy)? {
        works.push((data, work(&mut session, policy, data, subject, now).await?));
    }
    let mut tables = Vec::new();
    for (data, work) in works {
        let rows = rows_of(&mut session, &work, work.bound.as_ref()).await?;
        // What is held, or has been anonymised before.
        let free =
            held(Piece::text("(").piece(&of(&work.table, data, subject)?).then(")"), &work.table, &policy.hold, now)?;
        let held = rows - rows_of(&mut session, &work, Some(&free)).await?;
        let table = work.table.name.clone();
        let condition = work.condition.clone();
        let still =
            |table: &Table| Piece::text(format!("SELECT {} FROM {} WHERE ", counted(table.flavour), table.sql()));
        let left = still(&work.table).piece(&condition);
        let mut report = run_all(&mut session, vec![work], options, None).await?;
        let report = report.pop().ok_or_else(|| Error::new(ErrorKind::Database, "a rule was not run"))?;
        let done = match (data.action, options.apply) {
            (ErasureAction::Keep, _) => 0,
            (_, true) => report.changed,
            (_, false) => report.met,
        };
        // Whatever the database said of each row: what is there still has not gone.
        let failed = match (data.action, options.apply) {
            (ErasureAction::Keep, _) | (_, false) => 0,
            _ => count(&mut session, "the policy's privacy rules", &left).await?,
        };
        tables.push(ErasedTable { table, action: data.action, reason: data.reason.clone(), rows, done, held, failed });
    }
    session.close().await;
    if tables.iter().all(|t| t.rows == 0) {
        return Err(nobody());
    }
    let text = serde_json::to_string(&(&policy.privacy, &policy.hold))
        .map_err(|e| Error::new(ErrorKind::Config, "the policy cannot be written down").with_source(e))?;
    Ok(ErasureCertificate {
        case: format!("{:016x}", fastrand::u64(..)),
        at: now,
        applied: options.apply,
        policy_sha256: Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect(),
        complete: options.apply && tables.iter().all(|t| t.failed == 0 && t.held == 0),
        tables,
    })
}

fn declared(policy: &Policy) -> Result<&[PersonalData]> {
    match policy.privacy.as_slice() {
        [] => Err(Error::new(ErrorKind::Config, "the policy does not say where what is known of a person lies")
            .with_next_step("write [[privacy]] with table, column and action for each table")),
        declared => Ok(declared),
    }
}

fn nobody() -> Error {
    Error::new(ErrorKind::Config, "no declared table holds a row of this person")
        .with_next_step("check the number, and the columns of the policy's privacy rules")
}

/// Which rows are the person's.
fn of(table: &Table, data: &PersonalData, subject: &str) -> Result<Piece> {
    let column = table.column(&data.column)?;
    if !table.is_led_by(&column.name) && table.primary.first().is_none_or(|key| key.name != column.name) {
        return Err(Error::new(ErrorKind::Config, format!("no index of {table} begins with {}", column.name))
            .with_next_step("create an index on that column"));
    }
    let name = table.of(&column.name);
    let value = column.checked(table.flavour, subject)?;
    let theirs = Piece::text(format!("({name} = ")).value(column, value.clone());
    Ok(match (table.flavour, column.kind) {
        // A collation takes others' names for the same.
        (Flavour::Mysql | Flavour::MariaDb, Kind::Text) => theirs
            .then(format!(" AND CONVERT({name} USING utf8mb4) COLLATE utf8mb4_bin = "))
            .value(column, value)
            .then(")"),
        _ => theirs.then(")"),
    })
}

/// Whether what is declared of a table fits it.
pub(crate) async fn fits(
    session: &mut Session,
    policy: &Policy,
    data: &PersonalData,
    now: DateTime<Utc>,
) -> Result<()> {
    work(session, policy, data, "0", now).await.map(drop)
}

async fn work(
    session: &mut Session,
    policy: &Policy,
    data: &PersonalData,
    subject: &str,
    now: DateTime<Utc>,
) -> Result<Work> {
    let table = Table::find(session, data.schema.as_deref(), &data.table).await?;
    let rule = format!("privacy of {table}");
    key_is_usable(&rule, &table)?;
    let theirs = of(&table, data, subject)?;
    let mut condition = Piece::text("(").piece(&theirs);
    let action = match data.action {
        ErasureAction::Delete => {
            nothing_kept_follows(session, policy, &table, now).await?;
            Action::Delete
        }
        ErasureAction::Keep if data.reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) => {
            return Err(Error::new(
                ErrorKind::Config,
                format!("what {table} holds of a person is kept, and nobody says why"),
            )
            .with_next_step("write reason = \"…\": by which law"));
        }
        ErasureAction::Keep => Action::Report,
        ErasureAction::Anonymise => {
            let (changes, left) = anonymised(&table, &data.set, &data.set_null, &data.column)?;
            condition = condition.then(" AND ").piece(&left);
            Action::Set(changes)
        }
    };
    let condition = held(condition.then(")"), &table, &policy.hold, now)?;
    Ok(Work {
        rule,
        order: table.key.clone(),
        table,
        bound: Some(theirs),
        condition,
        action,
        cutoff: None,
        may_empty: true,
        has_unit: false,
        is_remembered: false,
    })
}

async fn rows_of(session: &mut Session, work: &Work, which: Option<&Piece>) -> Result<u64> {
    let all = Piece::text("1 = 1");
    let piece = Piece::text(format!("SELECT {} FROM {} WHERE ", counted(work.table.flavour), work.table.sql()))
        .piece(which.unwrap_or(&all));
    count(session, "the policy's privacy rules", &piece).await
}
