//! What a rule means on the live table: which rows are walked over, in which order, which of them are met, and what becomes of
//! those.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::capability::Flavour;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::condition::enclosed;
use crate::policy::{ErasureAction, Hold, Policy, Reference, ReferenceAction, Retention, RetentionAction, Unit, Zone};
use crate::session::Session;
use crate::statement::{Piece, bare, concatenated, plain_number, plain_text, same};
use crate::table::{Column, Fate, Kind, Table};

/// One rule on one live table.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The rule's name.
    pub(crate) rule: String,
    pub(crate) table: Table,
    /// The columns that give the order of the walk; the key's are the last of them.
    pub(crate) order: Vec<Column>,
    /// Which rows are walked over; all, where it is `None`.
    pub(crate) bound: Option<Piece>,
    /// Which of those are met.
    pub(crate) condition: Piece,
    pub(crate) action: Action,
    /// What is older than this goes, where age decides.
    pub(crate) cutoff: Option<DateTime<Utc>>,
    /// Whether it is right that no row is left.
    pub(crate) may_empty: bool,
    /// Whether the rule says what numbers in its column count.
    pub(crate) has_unit: bool,
    /// Whether how far it has come is kept for the next run.
    pub(crate) is_remembered: bool,
}

/// What becomes of rows that are met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing: they are counted.
    Report,
    Delete,
    /// Each column with what it is set to.
    Set(Vec<(String, Piece)>),
    /// They are appended to this file, and deleted.
    Archive(std::path::PathBuf),
}

impl Action {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Delete => "delete",
            Self::Set(_) => "change",
            Self::Archive(_) => "archive",
        }
    }
}

/// What a retention rule means.
pub(crate) async fn retention(
    session: &mut Session,
    policy: &Policy,
    rule: &Retention,
    now: DateTime<Utc>,
) -> Result<Work> {
    let about = |e: Error| in_rule(&rule.name, e);
    let table = Table::find(session, rule.schema.as_deref(), &rule.table).await.map_err(about)?;
    let column = table.column(&rule.column).map_err(about)?.clone();
    let cutoff = now.checked_sub_signed(rule.keep.delta()).ok_or_else(|| {
        wrong(&rule.name, format!("keep = \"{}\" reaches beyond all time", rule.keep), "write a shorter one")
    })?;
    let written = Written { unit: rule.unit, zone: rule.zone };
    let expired = expired(&table, &column, written, cutoff).map_err(about)?;
    key_is_usable(&rule.name, &table)?;
    if !table.is_led_by(&column.name) {
        return Err(wrong(
            &rule.name,
            format!("no index of {table} begins with {}: each batch would read the whole table", column.name),
            "create an index on that column",
        ));
    }
    let mut condition = Piece::text("(").piece(&expired);
    if let Some(more) = &rule.condition {
        condition = condition.then(format!(" AND {}", enclosed(table.flavour, more).map_err(about)?));
    }
    let action = match rule.action {
        RetentionAction::Delete => Action::Delete,
        RetentionAction::Archive => Action::Archive(rule.file.clone().ok_or_else(|| {
            wrong(&rule.name, "it archives, and names no file".into(), "write file = \"/path/of/rows.jsonl\"")
        })?),
        RetentionAction::Anonymise => {
            let (changes, left) = anonymised(&table, &rule.set, &rule.set_null, &rule.column).map_err(about)?;
            // What has been done is not done again each night.
            condition = condition.then(" AND ").piece(&left);
            Action::Set(changes)
        }
    };
    if rule.action != RetentionAction::Anonymise && !(rule.set.is_empty() && rule.set_null.is_empty()) {
        return Err(wrong(
            &rule.name,
            format!("set and set_null are for action = \"anonymise\", and this is {}", rule.action),
            "write action = \"anonymise\", or leave them out",
        ));
    }
    if matches!(action, Action::Delete | Action::Archive(_)) {
        nothing_kept_follows(session, policy, &table, now).await.map_err(about)?;
    }
    let condition = held(condition.then(")"), &table, &policy.hold, now).map_err(about)?;
    let mut order = vec![column.clone()];
    order.extend(table.key.iter().filter(|key| key.name != column.name).cloned());
    Ok(Work {
        rule: rule.name.clone(),
        order,
        bound: Some(expired),
        condition,
        action,
        table,
        cutoff: Some(cutoff),
        may_empty: rule.may_empty,
        has_unit: rule.unit.is_some(),
        is_remembered: true,
    })
}

/// What a reference means: which rows refer to nothing.
pub(crate) async fn reference(
    session: &mut Session,
    policy: &Policy,
    rule: &Reference,
    now: DateTime<Utc>,
) -> Result<Work> {
    let about = |e: Error| in_rule(&rule.name, e);
    let table = Table::find(session, rule.schema.as_deref(), &rule.table).await.map_err(about)?;
    let to = Table::find(session, rule.to_schema.as_deref(), &rule.to).await.map_err(about)?;
    key_is_usable(&rule.name, &table)?;
    let targets: Vec<String> = match rule.to_columns.is_empty() {
        true => to.primary.iter().map(|c| c.name.clone()).collect(),
        false => rule.to_columns.clone(),
    };
    if targets.len() != rule.columns.len() || targets.is_empty() {
        return Err(wrong(
            &rule.name,
            format!("{} columns refer to {} of {to}", rule.columns.len(), targets.len()),
            "name as many to_columns as columns",
        ));
    }
    let mut condition = Piece::text("(");
    let mut matches = Vec::new();
    for (column, target) in rule.columns.iter().zip(&targets) {
        let from = table.column(column).map_err(about)?;
        let target = to.column(target).map_err(about)?;
        if !comparable(from.kind, target.kind) {
            return Err(wrong(
                &rule.name,
                format!("{table}.{column} is {}, and {to}.{} is {}", from.type_name, target.name, target.type_name),
                "give both columns one type",
            ));
        }
        // NULL refers to nothing by right.
        condition = condition.then(format!("{} IS NOT NULL AND ", table.of(column)));
        matches.push(format!("caretaker_to.{} = {}", bare(&to, &target.name), table.of(column)));
    }
    if !to.is_led_by(&targets[0]) && to.primary.first().is_none_or(|key| key.name != targets[0]) {
        return Err(wrong(
            &rule.name,
            format!("no index of {to} begins with {}: each row would read the whole table", targets[0]),
            "create an index on that column",
        ));
    }
    condition = condition.then(format!(
        "NOT EXISTS (SELECT 1 FROM {} AS caretaker_to WHERE {})",
        to.sql(),
        matches.join(" AND ")
    ));
    if let Some(more) = &rule.condition {
        condition = condition.then(format!(" AND {}", enclosed(table.flavour, more).map_err(about)?));
    }
    let condition = held(condition.then(")"), &table, &policy.hold, now).map_err(about)?;
    let action = match rule.action {
        ReferenceAction::Report => Action::Report,
        ReferenceAction::Delete => Action::Delete,
        ReferenceAction::SetNull => {
            for column in &rule.columns {
                if !table.column(column).map_err(about)?.nullable {
                    return Err(wrong(
                        &rule.name,
                        format!("{table}.{column} takes no NULL"),
                        "write action = \"delete\" or \"report\"",
                    ));
                }
            }
            Action::Set(rule.columns.iter().map(|c| (c.clone(), Piece::text("NULL"))).collect())
        }
    };
    if action == Action::Delete {
        nothing_kept_follows(session, policy, &table, now).await.map_err(about)?;
    }
    if action != Action::Report && table.flavour == Flavour::Mysql && table.name == to.name {
        return Err(wrong(
            &rule.name,
            "MySQL changes no table that the same statement asks".into(),
            "write action = \"report\": it counts and lists them",
        ));
    }
    let order = table.key.clone();
    Ok(Work {
        rule: rule.name.clone(),
        order,
        bound: None,
        condition,
        action,
        table,
        cutoff: None,
        may_empty: true,
        has_unit: false,
        is_remembered: true,
    })
}

/// How far a zone may be from UTC.
const FURTHEST: TimeDelta = TimeDelta::hours(14);

/// When something became old, as a column says it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) unit: Option<Unit>,
    pub(crate) zone: Option<Zone>,
}

/// Which rows are older than this.
pub(crate) fn expired(table: &Table, column: &Column, written: Written, cutoff: DateTime<Utc>) -> Result<Piece> {
    let name = table.of(&column.name);
    let text = plain_text();
    match (column.kind, written.unit, table.flavour) {
        (Kind::Integer { .. } | Kind::Decimal, Some(unit), flavour) => {
            Ok(in_numbers(&name, column, unit, flavour, cutoff))
        }
        // A declared time may be stored as a number there.
        (Kind::Time, Some(unit), Flavour::Sqlite) => {
            Ok(in_numbers(&name, &plain_number(), unit, Flavour::Sqlite, cutoff))
        }
        (Kind::Integer { .. } | Kind::Decimal, None, _) => {
            Err(Error::new(ErrorKind::Config, format!("{table}.{} holds numbers", column.name))
                .with_next_step("write what they count since 1970: unit = \"seconds\" or \"milliseconds\""))
        }
        (_, Some(_), _) => Err(Error::new(ErrorKind::Config, format!("{table}.{} holds no numbers", column.name))
            .with_next_step("leave unit out")),
        (Kind::Time, None, Flavour::Postgres) => {
            let is_moment = column.type_name == "timestamp with time zone";
            let cutoff = if is_moment { cutoff } else { earliest(written.zone, cutoff) };
            let (open, close) = match is_moment {
                true => ("to_timestamp(", ")".to_owned()),
                false => ("(to_timestamp(", format!(") AT TIME ZONE 'UTC')::{}", column.type_name)),
            };
            // What is minus infinity is no time.
            Ok(Piece::text(format!("{name} < {open}"))
                .value(&Column { type_name: "float8".into(), ..text }, Some(seconds(cutoff)))
                .then(format!("{close} AND isfinite({name})")))
        }
        (Kind::Time, None, Flavour::Mysql | Flavour::MariaDb) => {
            // A time of the year nought stands for none.
            let real = format!(" AND {name} >= '1000-01-01'");
            if column.type_name.starts_with("timestamp") {
                let decimal = Column { kind: Kind::Decimal, ..text };
                let moment = Piece::text(format!("{name} < FROM_UNIXTIME(ROUND("));
                return Ok(moment.value(&decimal, Some(seconds(cutoff))).then(", 6))").then(real));
            }
            let format = if column.type_name == "date" { "%Y-%m-%d" } else { "%Y-%m-%d %H:%M:%S%.6f" };
            let cutoff = earliest(written.zone, cutoff).format(format).to_string();
            Ok(Piece::text(format!("{name} < ")).value(column, Some(cutoff)).then(real))
        }
        // Times are texts there, and in UTC, as its own functions make them: what is not written as year-month-day is never old.
        (Kind::Time | Kind::Text, None, Flavour::Sqlite) => Ok(Piece::text(format!("{name} < "))
            .value(&text, Some(cutoff.format("%Y-%m-%d %H:%M:%S").to_string()))
            .then(format!(" AND typeof({name}) = 'text' AND {name} GLOB '[12][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]*'"))),
        _ => {
            Err(Error::new(ErrorKind::Config, format!("{table}.{} is {}, and no time", column.name, column.type_name))
                .with_next_step("name a column that says when"))
        }
    }
}

/// Nothing that SQLite stores as a number is taken for a time that is never old.
///
/// # Errors
/// [`ErrorKind::Config`] where there are numbers, and nothing says what they count.
pub(crate) async fn no_numbers(
    session: &mut Session,
    table: &Table,
    column: &Column,
    unit: Option<Unit>,
) -> Result<()> {
    if table.flavour != Flavour::Sqlite || unit.is_some() {
        return Ok(());
    }
    let name = table.of(&column.name);
    let sql = format!("SELECT '1' FROM {} WHERE typeof({name}) IN ('integer', 'real') LIMIT 1", table.sql());
    match session.one(&sql, &[]).await.map_err(|e| session.error("does not say what a column holds", e))? {
        None => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::Config, format!("numbers are times in {table}.{}", column.name))
            .with_next_step("write what they count since 1970: unit = \"seconds\" or \"milliseconds\"")),
    }
}

/// Where the zone is not known, the cutoff in the one where it comes first.
fn earliest(zone: Option<Zone>, cutoff: DateTime<Utc>) -> DateTime<Utc> {
    match zone {
        Some(Zone::Utc) => cutoff,
        None => cutoff.checked_sub_signed(FURTHEST).unwrap_or(DateTime::<Utc>::MIN_UTC),
    }
}

fn seconds(at: DateTime<Utc>) -> String {
    format!("{}.{:06}", at.timestamp(), at.timestamp_subsec_micros())
}

fn in_numbers(name: &str, column: &Column, unit: Unit, flavour: Flavour, cutoff: DateTime<Utc>) -> Piece {
    let number = match unit {
        Unit::Seconds => cutoff.timestamp(),
        Unit::Milliseconds => cutoff.timestamp_millis(),
    };
    let older = Piece::text(format!("{name} < ")).value(column, Some(number.to_string()));
    match flavour {
        // A text is larger than every number, and no time in this unit.
        Flavour::Sqlite => older.then(format!(" AND typeof({name}) IN ('integer', 'real')")),
        _ => older,
    }
}

/// What anonymising sets, and which rows have it not.
pub(crate) fn anonymised(
    table: &Table,
    set: &BTreeMap<String, String>,
    set_null: &[String],
    keep: &str,
) -> Result<(Vec<(String, Piece)>, Piece)> {
    let mut changes = Vec::new();
    for (column, text) in set {
        changes.push((column.clone(), replacement(table, column, text)?));
    }
    for column in set_null {
        if !table.column(column)?.nullable {
            return Err(Error::new(ErrorKind::Config, format!("{table}.{column} takes no NULL"))
                .with_next_step("give it a text instead: set = { … }"));
        }
        changes.push((column.clone(), Piece::text("NULL")));
    }
    if changes.is_empty() {
        return Err(Error::new(ErrorKind::Config, "it anonymises, and says nothing of how")
            .with_next_step("write set = { name = \"erased\" } or set_null = [\"phone\"]"));
    }
    let mut left = Piece::text("NOT (");
    for (at, (column, to)) in changes.iter().enumerate() {
        let column_def = table.column(column)?;
        if column_def.generated || table.key.iter().any(|key| key.name == *column) || column == keep {
            return Err(Error::new(ErrorKind::Config, format!("{table}.{column} cannot be anonymised"))
                .with_next_step("leave out keys, generated columns and the column that the rule goes by"));
        }
        left = left.then(if at == 0 { "" } else { " AND " }).then(same(table.flavour, &table.of(column))).piece(to);
    }
    Ok((changes, left.then(")")))
}

/// A text for a column, with the row's key where `{key}` stands.
pub(crate) fn replacement(table: &Table, column: &str, text: &str) -> Result<Piece> {
    let column = table.column(column)?;
    if !text.contains("{key}") {
        return Ok(Piece::text("").value(column, Some(text.to_owned())));
    }
    if column.kind != Kind::Text {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{table}.{} is no text: {{key}} has no place in it", column.name),
        )
        .with_next_step("write a value of its type"));
    }
    // As it was declared: numbers of rows may change.
    let key = if table.primary.is_empty() { &table.key } else { &table.primary };
    let key = key.iter().map(|key| Piece::text(key.text(table.flavour, &table.of(&key.name))));
    let key: Vec<Piece> = key.collect();
    let mut parts = Vec::new();
    for (at, literal) in text.split("{key}").enumerate() {
        if at > 0 {
            for (n, part) in key.iter().enumerate() {
                if n > 0 {
                    parts.push(Piece::text("'-'"));
                }
                parts.push(part.clone());
            }
        }
        parts.push(Piece::text("").value(&plain_text(), Some(literal.to_owned())));
    }
    let whole = concatenated(table.flavour, parts);
    // What does not fit is refused by the server, and not cut.
    Ok(whole)
}

/// The same without the rows that are held.
pub(crate) fn held(condition: Piece, table: &Table, holds: &[Hold], now: DateTime<Utc>) -> Result<Piece> {
    let mut condition = condition;
    for hold in holds.iter().filter(|hold| hold.holds(now) && is_about(hold, table)) {
        let column = table.column(&hold.column)?;
        if hold.values.is_empty() {
            return Err(Error::new(ErrorKind::Config, format!("the hold on {table}.{} names no value", hold.column))
                .with_next_step("write values = [\"…\"], or remove it"));
        }
        if !column.is_exact(table.flavour) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("a hold cannot go by {}, which {table}.{} is", column.type_name, column.name),
            )
            .with_next_step("name a column that holds numbers or texts"));
        }
        let name = table.of(&column.name);
        condition = condition.then(format!(" AND ({name} IS NULL OR {name} NOT IN ("));
        for (at, value) in hold.values.iter().enumerate() {
            condition =
                condition.then(if at == 0 { "" } else { ", " }).value(column, column.checked(table.flavour, value)?);
        }
        condition = condition.then("))");
    }
    Ok(condition)
}

fn is_about(hold: &Hold, table: &Table) -> bool {
    is_named(&hold.table, hold.schema.as_deref(), table)
}

fn is_named(name: &str, schema: Option<&str>, table: &Table) -> bool {
    let same = match table.flavour {
        Flavour::Sqlite => name.eq_ignore_ascii_case(&table.name.name),
        _ => name == table.name.name,
    };
    same && (table.name.schema.is_empty() || schema.is_none_or(|schema| *schema == table.name.schema))
}

/// Every hold means something here: one with a slip in it would hold nothing.
pub(crate) async fn check_holds(session: &mut Session, holds: &[Hold]) -> Result<()> {
    for hold in holds {
        let about = |e: Error| in_rule(&format!("hold: {}", hold.reason), e);
        let table = Table::find(session, hold.schema.as_deref(), &hold.table).await.map_err(about)?;
        let column = table.column(&hold.column).map_err(about)?;
        for value in &hold.values {
            column.checked(table.flavour, value).map_err(about)?;
        }
    }
    Ok(())
}

/// What goes with rows of `table`, table after table, holds nothing that a hold or a law keeps.
pub(crate) async fn nothing_kept_follows(
    session: &mut Session,
    policy: &Policy,
    table: &Table,
    now: DateTime<Utc>,
) -> Result<()> {
    let mut seen = vec![table.name.clone()];
    let mut next = table.followers.clone();
    while let Some((name, fate)) = next.pop() {
        if fate == Fate::Keeps || seen.contains(&name) {
            continue;
        }
        seen.push(name.clone());
        let schema = Some(name.schema.as_str()).filter(|schema| !schema.is_empty());
        let follower = Table::find(session, schema, &name.name).await?;
        let is_held = policy.hold.iter().any(|hold| hold.holds(now) && is_about(hold, &follower));
        let is_kept = policy
            .privacy
            .iter()
            .any(|data| data.action == ErasureAction::Keep && is_named(&data.table, data.schema.as_deref(), &follower));
        if is_held || is_kept {
            let text =
                format!("rows of {follower} that refer to rows of {table} {fate}, and a hold or a law keeps them");
            return Err(Error::new(ErrorKind::Config, text)
                .with_next_step("change the foreign key to ON DELETE RESTRICT, or anonymise instead of deleting"));
        }
        if fate == Fate::Deleted {
            next.extend(follower.followers);
        }
    }
    Ok(())
}

fn comparable(a: Kind, b: Kind) -> bool {
    use Kind::{Decimal, Integer};
    matches!((a, b), (Integer { .. } | Decimal, Integer { .. } | Decimal)) || a == b
}

pub(crate) fn key_is_usable(rule: &str, table: &Table) -> Result<()> {
    if table.key.is_empty() {
        return Err(wrong(rule, format!("{table} has no primary key: its rows cannot be told apart"), "give it one"));
    }
    match table.key.iter().find(|key| !key.is_exact(table.flavour)) {
        Some(key) => Err(wrong(
            rule,
            format!("the key of {table} is {}, which two programs may write in two ways", key.type_name),
            "give it a key of numbers or texts",
        )),
        None => Ok(()),
    }
}

fn wrong(rule: &str, text: String, next: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the rule {rule:?}: {text}")).with_next_step(next)
}

/// The same error about a rule.
pub(crate) fn in_rule(rule: &str, e: Error) -> Error {
    let next = e.next_step().map(str::to_owned);
    let error = Error::new(e.kind(), format!("the rule {rule:?}: {e}")).with_source(e);
    match next {
        Some(next) => error.with_next_step(next),
        None => error,
    }
}
