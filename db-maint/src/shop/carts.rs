//! Abandoned carts: each is claimed by one worker, once for each time that its owner left it.
//!
//! A claim is a row of the table `caretaker_outbox` whose uniqueness (the rule, the cart, its last activity) decides between
//! workers, whatever each of them saw. What was claimed and never confirmed is not given to anybody else: a customer is rather
//! not reminded than reminded twice. It can be listed. Whom to remind is not written down there.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{count, counted, single_key};
use crate::batch::time;
use crate::batch::work::{Written, expired};
use crate::capability::Flavour;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{create, in_transaction, types};
use crate::policy::CartRule;
use crate::policy::condition::enclosed;
use crate::session::{Session, Value, server_clock};
use crate::statement::{Piece, plain_text};
use crate::table::Table;

/// How often a claim that met another worker's is tried.
const TRIES: u32 = 8;

/// A cart that was left, and is this worker's to deal with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AbandonedCart {
    /// Its key.
    pub cart: String,
    /// Whom to remind.
    pub contact: String,
    /// When somebody last did something with it, as the database writes it.
    pub activity: String,
}

/// What became of a claimed cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Its owner was reminded, or will be.
    Done,
    /// Its owner was certainly not reminded: it may be claimed again.
    NotSent,
}

/// How many carts are abandoned and not yet claimed. Changes nothing.
///
/// # Errors
/// [`ErrorKind::Config`] where the rule does not fit the schema.
pub async fn count_abandoned(engine: &dyn Engine, rule: &CartRule, now: Option<DateTime<Utc>>) -> Result<u64> {
    let mut session = engine.session().await?;
    let now = time(&mut session, now).await?;
    let (table, condition) = abandoned(&mut session, rule, now).await?;
    let has_outbox = has_outbox(&mut session).await?;
    let mut piece =
        Piece::text(format!("SELECT {} FROM {} WHERE ", counted(table.flavour), table.sql())).piece(&condition);
    if has_outbox {
        piece = piece.then(" AND ").piece(&unclaimed(&table, rule)?);
    }
    let found = count(&mut session, "the rule for carts", &piece).await;
    session.close().await;
    found
}

/// Claims up to `most` abandoned carts, the oldest first. None of them is anybody else's, now or later, as long as nobody does
/// anything with it; after that it can be abandoned once more.
///
/// None means that none is free: all are claimed, or other workers have the rest in hand just now, which [`count_abandoned`] tells.
///
/// Cancel safe: what was claimed then stays claimed, and is nobody's to remind.
///
/// # Errors
/// [`ErrorKind::Config`] where the rule does not fit the schema.
pub async fn claim_abandoned(
    engine: &dyn Engine,
    rule: &CartRule,
    now: Option<DateTime<Utc>>,
    most: u32,
) -> Result<Vec<AbandonedCart>> {
    let mut session = engine.session().await?;
    let now = time(&mut session, now).await?;
    prepare(&mut session).await?;
    let (table, condition) = abandoned(&mut session, rule, now).await?;
    // Behind a pooler each statement may be another session's: the claim has a name of its own.
    let claim = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let most = most.clamp(1, 500);
    let mut tries = 0;
    let claimed = loop {
        match claim_once(&mut session, rule, &table, &condition, &claim, most).await {
            Ok(claimed) => break Ok(claimed),
            Err(e) if session.kind(&e) == ErrorKind::Busy && tries < TRIES => {
                session.roll_back().await.map_err(|e| session.error("did not take a claim back", e))?;
                tries += 1;
                let pause = fastrand::u64(5..40) << tries.min(5);
                tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            }
            Err(e) => break Err(session.error("did not take a claim", e)),
        }
    };
    let claimed = claimed?;
    session.close().await;
    Ok(claimed)
}

/// Says what became of a claimed cart.
///
/// # Errors
/// Where the database cannot be reached; the cart stays claimed then.
pub async fn confirm(engine: &dyn Engine, rule: &CartRule, cart: &AbandonedCart, delivery: Delivery) -> Result<()> {
    let mut session = engine.session().await?;
    let flavour = session.flavour();
    let head = match delivery {
        Delivery::Done => {
            Piece::text(format!("UPDATE caretaker_outbox SET confirmed_at = {} WHERE rule = ", server_clock(flavour)))
        }
        Delivery::NotSent => Piece::text("DELETE FROM caretaker_outbox WHERE rule = "),
    };
    let (sql, values) = head
        .value(&plain_text(), Some(rule.table.clone()))
        .then(" AND subject = ")
        .value(&plain_text(), Some(cart.cart.clone()))
        .then(" AND activity = ")
        .value(&plain_text(), Some(cart.activity.clone()))
        .then(" AND confirmed_at IS NULL")
        .build(flavour);
    let met = in_transaction(&mut session, &sql, &values).await;
    let met = met.map_err(|e| session.error("did not note what became of a cart", e))?;
    session.close().await;
    match met {
        0 => Err(Error::new(
            ErrorKind::Config,
            format!("the cart {} is not claimed, or was confirmed before", cart.cart),
        )
        .with_next_step("confirm what claim_abandoned gave, once")),
        _ => Ok(()),
    }
}

/// Carts that were claimed more than an hour ago and never confirmed: whoever claimed them died on the way.
///
/// # Errors
/// Where the database cannot be reached.
pub async fn unconfirmed(engine: &dyn Engine, rule: &CartRule) -> Result<Vec<String>> {
    let mut session = engine.session().await?;
    if !has_outbox(&mut session).await? {
        session.close().await;
        return Ok(Vec::new());
    }
    let clock = server_clock(session.flavour());
    let (sql, values) = Piece::text("SELECT subject FROM caretaker_outbox WHERE rule = ")
        .value(&plain_text(), Some(rule.table.clone()))
        .then(format!(" AND confirmed_at IS NULL AND claimed_at < {clock} - 3600000 ORDER BY claimed_at LIMIT 1000"))
        .build(session.flavour());
    let rows = session.rows(&sql, &values).await.map_err(|e| session.error("does not show what was claimed", e))?;
    session.close().await;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

async fn has_outbox(session: &mut Session) -> Result<bool> {
    let there = session.has_table("caretaker_outbox").await;
    there.map_err(|e| session.error("does not say what was claimed", e))
}

async fn prepare(session: &mut Session) -> Result<()> {
    let (text, number) = types(session.flavour());
    create(
        session,
        "caretaker_outbox",
        &format!(
            "rule {text} NOT NULL, subject {text} NOT NULL, activity {text} NOT NULL, claim {text} NOT NULL, claimed_at {number} NOT NULL, confirmed_at {number}, PRIMARY KEY (rule, subject, activity)"
        ),
    )
    .await
}

/// Which carts are abandoned.
pub(crate) async fn abandoned(session: &mut Session, rule: &CartRule, now: DateTime<Utc>) -> Result<(Table, Piece)> {
    let table = Table::find(session, rule.schema.as_deref(), &rule.table).await?;
    let column = table.column(&rule.column)?.clone();
    single_key(&table)?;
    let contact = table.of(&table.column(&rule.contact)?.name);
    let before = |period: crate::Period| {
        now.checked_sub_signed(period.delta()).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("{period} reaches beyond all time"))
                .with_next_step("write a shorter span")
        })
    };
    if rule.within <= rule.after {
        return Err(Error::new(
            ErrorKind::Config,
            format!("no cart is left for {} and not for {}", rule.after, rule.within),
        )
        .with_next_step("make `within` longer than `after`"));
    }
    let written = Written { unit: rule.unit, zone: rule.zone };
    let left = expired(&table, &column, written, before(rule.after)?)?;
    let forgotten = expired(&table, &column, written, before(rule.within)?)?;
    let condition = Piece::text("(").piece(&left).then(" AND NOT (").piece(&forgotten).then(format!(
        ") AND {contact} IS NOT NULL AND {contact} <> '' AND {})",
        enclosed(table.flavour, &rule.condition)?
    ));
    Ok((table, condition))
}

/// Which of them nobody has claimed.
fn unclaimed(table: &Table, rule: &CartRule) -> Result<Piece> {
    let key = single_key(table)?;
    let (key, activity) = (text_of(table, &key.name, key), text_of(table, &rule.column, table.column(&rule.column)?));
    Ok(Piece::text("NOT EXISTS (SELECT 1 FROM caretaker_outbox o WHERE o.rule = ")
        .value(&plain_text(), Some(rule.table.clone()))
        .then(format!(" AND o.subject = {key} AND o.activity = {activity})")))
}

/// A column as a text that compares byte by byte with what is in the outbox.
fn text_of(table: &Table, name: &str, column: &crate::table::Column) -> String {
    let text = column.text(table.flavour, &table.of(name));
    match table.flavour {
        Flavour::Mysql | Flavour::MariaDb => format!("CONVERT({text} USING utf8mb4) COLLATE utf8mb4_bin"),
        _ => text,
    }
}

/// One claim, in one transaction.
async fn claim_once(
    session: &mut Session,
    rule: &CartRule,
    table: &Table,
    condition: &Piece,
    claim: &str,
    most: u32,
) -> Result<Vec<AbandonedCart>, sqlx::Error> {
    let flavour = table.flavour;
    let protocol = |e: Error| sqlx::Error::Protocol(e.to_string());
    let key = single_key(table).map_err(protocol)?;
    let activity = table.column(&rule.column).map_err(protocol)?;
    let contact = table.column(&rule.contact).map_err(protocol)?;
    session.begin().await?;
    // Rows that another worker has in hand are passed by; the outbox decides even where they are not.
    let lock = match flavour {
        Flavour::Postgres => format!(" FOR UPDATE OF {} SKIP LOCKED", crate::ident::quoted(flavour, &table.name.name)),
        Flavour::Mysql | Flavour::MariaDb => " FOR UPDATE SKIP LOCKED".to_owned(),
        Flavour::Sqlite => String::new(),
    };
    let (sql, values) = Piece::text(format!(
        "SELECT {}, {}, {} FROM {} WHERE ",
        text_of(table, &key.name, key),
        text_of(table, &activity.name, activity),
        text_of(table, &contact.name, contact),
        table.sql()
    ))
    .piece(condition)
    .then(" AND ")
    .piece(&unclaimed(table, rule).map_err(protocol)?)
    .then(format!(" ORDER BY {} LIMIT {most}{lock}", table.of(&activity.name)))
    .build(flavour);
    let rows = session.rows(&sql, &values).await?;
    let seen: Vec<AbandonedCart> = rows.into_iter().filter_map(cart).collect();
    for cart in &seen {
        let (sql, values) = insert(flavour, rule, cart, claim);
        session.run(&sql, &values).await?;
    }
    let (sql, values) = Piece::text("SELECT subject FROM caretaker_outbox WHERE claim = ")
        .value(&plain_text(), Some(claim.to_owned()))
        .build(flavour);
    let mine = session.rows(&sql, &values).await?;
    let mine: HashSet<String> = mine.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    session.commit().await?;
    Ok(seen.into_iter().filter(|cart| mine.contains(&cart.cart)).collect())
}

fn insert(flavour: Flavour, rule: &CartRule, cart: &AbandonedCart, claim: &str) -> (String, Vec<Value>) {
    let mut piece = Piece::text("INSERT INTO caretaker_outbox (rule, subject, activity, claim, claimed_at) VALUES (");
    for value in [rule.table.as_str(), &cart.cart, &cart.activity, claim] {
        piece = piece.value(&plain_text(), Some(value.to_owned())).then(", ");
    }
    let end = match flavour {
        Flavour::Mysql | Flavour::MariaDb => " ON DUPLICATE KEY UPDATE subject = subject",
        _ => " ON CONFLICT DO NOTHING",
    };
    piece.then(format!("{}){end}", server_clock(flavour))).build(flavour)
}

fn cart(row: Vec<Value>) -> Option<AbandonedCart> {
    let mut row = row.into_iter().flatten();
    Some(AbandonedCart { cart: row.next()?, activity: row.next()?, contact: row.next()? })
}
