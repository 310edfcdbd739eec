//! How far a rule has come, in the table `caretaker_progress`: written in the transaction that came so far.

use sha2::{Digest, Sha256};

use super::work::Work;
use crate::error::Result;
use crate::lease::{as_text, create, in_transaction, types};
use crate::session::{Session, Value, server_clock};
use crate::statement::{Piece, plain_number, plain_text};

/// What a rule does: one that was changed begins anew.
pub(super) fn fingerprint(work: &Work) -> String {
    let names: Vec<_> = work.order.iter().map(|c| c.name.as_str()).collect();
    let condition = work.condition.build(work.table.flavour).0;
    let all = format!("{}\0{}\0{condition}\0{}", work.table, names.join("\0"), work.action.name());
    Sha256::digest(all).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// Where the last run of a rule was, and how many rows it had changed by then.
pub(super) async fn progress(
    session: &mut Session,
    rule: &str,
    fingerprint: &str,
) -> Result<(Option<Vec<Value>>, u64)> {
    let flavour = session.flavour();
    let (text, number) = types(flavour);
    let long = if matches!(flavour, crate::Flavour::Mysql | crate::Flavour::MariaDb) { "longtext" } else { "text" };
    create(
        session,
        "caretaker_progress",
        &format!("name {text} PRIMARY KEY, fingerprint {text} NOT NULL, place {long}, changed {number} NOT NULL, updated_at {number} NOT NULL"),
    )
    .await?;
    let failed = |session: &Session, e| session.error("does not say how far the rule has come", e);
    let (sql, values) = Piece::text(format!(
        "SELECT fingerprint, place, {} FROM caretaker_progress WHERE name = ",
        as_text(flavour, "changed")
    ))
    .value(&plain_text(), Some(rule.to_owned()))
    .build(flavour);
    let row = session.rows(&sql, &values).await.map_err(|e| failed(session, e))?.into_iter().next();
    if let Some([Some(of), Some(place), Some(changed)]) = row.as_deref()
        && of == fingerprint
        && let (Ok(cursor), Ok(changed)) = (serde_json::from_str(place), changed.parse())
    {
        return Ok((Some(cursor), changed));
    }
    // From the beginning.
    let piece = match row {
        Some(_) => Piece::text("UPDATE caretaker_progress SET fingerprint = ")
            .value(&plain_text(), Some(fingerprint.to_owned()))
            .then(format!(", place = NULL, changed = 0, updated_at = {} WHERE name = ", server_clock(flavour)))
            .value(&plain_text(), Some(rule.to_owned())),
        None => Piece::text("INSERT INTO caretaker_progress (name, fingerprint, place, changed, updated_at) SELECT ")
            .value(&plain_text(), Some(rule.to_owned()))
            .then(", ")
            .value(&plain_text(), Some(fingerprint.to_owned()))
            .then(format!(", NULL, 0, {}", server_clock(flavour))),
    };
    let (sql, values) = piece.build(flavour);
    in_transaction(session, &sql, &values).await.map_err(|e| failed(session, e))?;
    Ok((None, 0))
}

/// Writes down how far a rule has come, in the transaction that came so far. At the end of the table there is no place, and the
/// next run begins anew.
pub(super) async fn advance(
    session: &mut Session,
    rule: &str,
    place: Option<&[Value]>,
    changed: u64,
) -> Result<(), sqlx::Error> {
    let place = place.map(|place| serde_json::Value::from(place.to_vec()).to_string());
    let (sql, values) = Piece::text("UPDATE caretaker_progress SET place = ")
        .value(&plain_text(), place)
        .then(", changed = changed + ")
        .value(&plain_number(), Some(changed.to_string()))
        .then(format!(", updated_at = {} WHERE name = ", server_clock(session.flavour())))
        .value(&plain_text(), Some(rule.to_owned()))
        .build(session.flavour());
    session.run(&sql, &values).await.map(drop)
}

pub(super) async fn count(session: &mut Session, rule: &str, changed: u64) -> Result<(), sqlx::Error> {
    let (sql, values) = Piece::text("UPDATE caretaker_progress SET changed = changed + ")
        .value(&plain_number(), Some(changed.to_string()))
        .then(" WHERE name = ")
        .value(&plain_text(), Some(rule.to_owned()))
        .build(session.flavour());
    session.run(&sql, &values).await.map(drop)
}
