//! What grows and what is counted, at one moment. Two looks tell what happened between them: which queries were slow, what
//! grows, what stays free. A [`History`] keeps looks in a file.

pub(crate) mod cache;
mod history;
pub(crate) mod queries;
pub(crate) mod sizes;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use self::cache::Cache;
pub use self::history::History;
use self::queries::Queries;
use self::sizes::Sizes;
use crate::activity::{Seen, Unseen};
use crate::capability::{Capabilities, Flavour};
use crate::engine::reason;
use crate::error::Result;
use crate::lease::as_text;
use crate::session::{Session, Value, server_clock};

/// What was seen at one moment. It holds names, sizes and counters, and queries without the values in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Look {
    /// Which database, without password.
    pub location: String,
    /// Which engine.
    pub flavour: Flavour,
    /// When, by the database's clock.
    pub taken_at: DateTime<Utc>,
    /// What tells this server from another at the same address, where it says so.
    #[serde(default)]
    pub(crate) server: Option<String>,
    pub(crate) sizes: Seen<Sizes>,
    pub(crate) queries: Seen<Queries>,
    pub(crate) cache: Seen<Cache>,
    /// Each index, and when a look saw it first.
    pub(crate) indexes: BTreeMap<String, DateTime<Utc>>,
}

/// Looks, over a session that is no more than read with.
pub(crate) async fn take(session: &mut Session, capabilities: &Capabilities, indexes: Vec<String>) -> Result<Look> {
    // What is counted is read now, and not when the rest was.
    let sql = format!("SELECT {}", as_text(session.flavour(), server_clock(session.flavour())));
    let clock = group(session, &sql, &[], "try again").await?.ok();
    let clock = clock.and_then(|rows| rows.first().and_then(|row| number(row, 0)));
    let taken_at = clock.and_then(DateTime::from_timestamp_millis).unwrap_or(capabilities.server_time);
    Ok(Look {
        location: capabilities.location.clone(),
        flavour: capabilities.flavour,
        taken_at,
        server: server(session).await?,
        sizes: sizes::read(session).await?,
        queries: queries::read(session, capabilities).await?,
        cache: cache::read(session).await?,
        indexes: indexes.into_iter().map(|index| (index, taken_at)).collect(),
    })
}

/// What a server is known by, whatever its address.
async fn server(session: &mut Session) -> Result<Option<String>> {
    let sql = match session.flavour() {
        Flavour::Postgres => "SELECT system_identifier::text FROM pg_control_system()",
        Flavour::Mysql => "SELECT CAST(@@server_uuid AS CHAR)",
        Flavour::MariaDb => "SELECT CAST(@@server_uid AS CHAR)",
        Flavour::Sqlite => return Ok(None),
    };
    // Older ones do not know, and not everybody may ask.
    Ok(group(session, sql, &[], "").await?.ok().and_then(|rows| rows.first().and_then(|row| text(row, 0))))
}

/// One group of what is looked at, in a transaction of its own: one that is refused is unknown, and the others are worth having.
async fn group(session: &mut Session, sql: &str, values: &[Value], remedy: &str) -> Result<Seen<Vec<Vec<Value>>>> {
    let failed = |session: &Session, e| session.error("cannot be looked at", e);
    session.begin_reading().await.map_err(|e| failed(session, e))?;
    let rows = session.rows(sql, values).await;
    // One that was lost is not only unknown: nothing else would be seen either.
    session.roll_back().await.map_err(|e| failed(session, e))?;
    Ok(rows.map_err(|e| Unseen::unknown(format!("the server did not say: {}", reason(&e)), remedy)))
}

/// A number in an answer.
fn number<T: std::str::FromStr>(row: &[Value], at: usize) -> Option<T> {
    row.get(at)?.as_deref()?.parse().ok()
}

fn text(row: &[Value], at: usize) -> Option<String> {
    row.get(at)?.clone()
}

/// An answer that is not what was asked for.
fn odd(what: &str) -> Unseen {
    Unseen::unknown(format!("the server's answer about {what} makes no sense"), "report it with the server's version")
}

#[cfg(test)]
pub(crate) mod sample {
    //! Looks for the tests of judges.

    use super::*;

    /// One that saw nothing.
    pub(crate) fn blind(taken_at: DateTime<Utc>) -> Look {
        let unseen = || Unseen::unknown("not looked at", "look");
        Look {
            location: "postgres://db/shop".into(),
            flavour: Flavour::Postgres,
            taken_at,
            server: None,
            sizes: Err(unseen()),
            queries: Err(unseen()),
            cache: Err(unseen()),
            indexes: BTreeMap::new(),
        }
    }
}
