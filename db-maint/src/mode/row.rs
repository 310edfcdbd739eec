//! A row in the shop's database, which every app server sees.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;

use super::{MaintenanceSwitch, Notice};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{as_text, create, types};
use crate::session::Session;
use crate::statement::{Piece, plain_number, plain_text};

/// The row of the table `caretaker_mode`: `reason`, `until_ms` (milliseconds since 1970), `bypass_sha256`. There is none while
/// the shop is open.
#[derive(Debug, Clone)]
pub struct DatabaseRow {
    engine: Arc<dyn Engine>,
}

impl DatabaseRow {
    /// In this database.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }
}

async fn is_there(session: &mut Session) -> Result<bool> {
    let there = session.has_table("caretaker_mode").await;
    there.map_err(|e| session.error("does not say whether the shop is closed", e))
}

#[async_trait]
impl MaintenanceSwitch for DatabaseRow {
    fn location(&self) -> String {
        self.engine.location()
    }

    async fn on(&self, notice: &Notice) -> Result<()> {
        let mut session = self.engine.session().await?;
        let (text, number) = types(session.flavour());
        let long = if text == "TEXT" || text == "text" { text } else { "text" };
        let columns = format!(
            "name {text} PRIMARY KEY, reason {long} NOT NULL, until_ms {number} NOT NULL, bypass_sha256 {text}"
        );
        create(&mut session, "caretaker_mode", &columns).await?;
        let failed = |session: &Session, e| session.error("did not take the notice", e);
        let (sql, values) =
            Piece::text("INSERT INTO caretaker_mode (name, reason, until_ms, bypass_sha256) VALUES ('maintenance', ")
                .value(&plain_text(), Some(notice.reason.clone()))
                .then(", ")
                .value(&plain_number(), Some(notice.until.timestamp_millis().to_string()))
                .then(", ")
                .value(&plain_text(), notice.bypass_sha256.clone())
                .then(")")
                .build(session.flavour());
        session.begin().await.map_err(|e| failed(&session, e))?;
        session
            .run("DELETE FROM caretaker_mode WHERE name = 'maintenance'", &[])
            .await
            .map_err(|e| failed(&session, e))?;
        session.run(&sql, &values).await.map_err(|e| failed(&session, e))?;
        session.commit().await.map_err(|e| failed(&session, e))?;
        session.close().await;
        Ok(())
    }

    async fn off(&self) -> Result<()> {
        let mut session = self.engine.session().await?;
        if is_there(&mut session).await? {
            let gone = session.run("DELETE FROM caretaker_mode WHERE name = 'maintenance'", &[]).await;
            gone.map_err(|e| session.error("did not take the notice back", e))?;
        }
        session.close().await;
        Ok(())
    }

    async fn status(&self) -> Result<Option<Notice>> {
        let mut session = self.engine.session().await?;
        if !is_there(&mut session).await? {
            session.close().await;
            return Ok(None);
        }
        let until = as_text(session.flavour(), "until_ms");
        let sql = format!("SELECT reason, {until}, bypass_sha256 FROM caretaker_mode WHERE name = 'maintenance'");
        let rows = session.rows(&sql, &[]).await.map_err(|e| session.error("does not show the notice", e))?;
        session.close().await;
        let Some([Some(reason), Some(until), bypass]) = rows.first().map(Vec::as_slice) else { return Ok(None) };
        let until = until.parse().ok().and_then(DateTime::from_timestamp_millis);
        let until = until.ok_or_else(|| {
            Error::new(ErrorKind::Database, format!("{}: caretaker_mode holds no time in until_ms", self.location()))
                .with_next_step("turn maintenance mode off, and on again")
        })?;
        Ok(Some(Notice { reason: reason.clone(), until, bypass_sha256: bypass.clone() }))
    }
}
