//! What a shop does with its own data each hour or night, by rules that it declares: [`Policy`](crate::Policy).

pub(crate) mod cache;
pub(crate) mod carts;
pub(crate) mod content;
pub(crate) mod privacy;
pub(crate) mod stock;

use crate::capability::Flavour;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::statement::Piece;
use crate::table::Table;

/// What is asked of the shop's own SQL: the server says whether it means anything.
pub(crate) async fn ask(session: &mut Session, what: &str, piece: &Piece) -> Result<Vec<Vec<crate::session::Value>>> {
    let (sql, values) = piece.build(session.flavour());
    let failed = |session: &Session, e| session.error(&format!("does not understand {what}"), e);
    session.begin_reading().await.map_err(|e| failed(session, e))?;
    let rows = session.rows(&sql, &values).await;
    session.roll_back().await.map_err(|e| failed(session, e))?;
    rows.map_err(|e| failed(session, e))
}

/// The first value, which has to be a number.
pub(crate) async fn count(session: &mut Session, what: &str, piece: &Piece) -> Result<u64> {
    let rows = ask(session, what, piece).await?;
    let number = rows.first().and_then(|row| row.first()).cloned().flatten().and_then(|n| n.parse().ok());
    number
        .ok_or_else(|| Error::new(ErrorKind::Database, format!("{}: {what} could not be counted", session.location())))
}

/// The key of a table's rows as one text; only for tables with a key of one column.
fn single_key(table: &Table) -> Result<&crate::table::Column> {
    match table.key.as_slice() {
        [key] if key.is_exact(table.flavour) => Ok(key),
        _ => Err(Error::new(ErrorKind::Config, format!("{table} has no primary key of one column"))
            .with_next_step("give it one: its rows have to be told apart")),
    }
}

/// `COUNT(*)` as text.
pub(crate) fn counted(flavour: Flavour) -> String {
    crate::lease::as_text(flavour, "COUNT(*)")
}
