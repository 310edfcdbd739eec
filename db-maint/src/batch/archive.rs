//! Rows that are kept in a file before they are deleted: one JSON object a line, every value as the text that the database
//! writes it as (bytes in hexadecimal digits), NULL as null.
//!
//! A row is on the disk before the transaction that deletes it commits. One that is written twice, because that commit failed,
//! has the same key both times.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::capability::Flavour;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::statement::{Piece, texts};
use crate::table::Table;

#[derive(Debug)]
pub(super) struct Archive {
    file: File,
}

impl Archive {
    /// The file at this path, made where it is not there, for its owner alone.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|e| {
            Error::new(ErrorKind::Config, format!("{}: cannot be written: {e}", path.display()))
                .with_next_step("check the folder and the rights on it")
                .with_source(e)
        })?;
        Ok(Self { file })
    }

    /// Writes the rows that `these` names, and holds them for the transaction.
    pub(super) async fn take(
        &mut self,
        session: &mut Session,
        table: &Table,
        these: &Piece,
    ) -> Result<(), sqlx::Error> {
        let lock = if table.flavour == Flavour::Sqlite { "" } else { " FOR UPDATE" };
        let (sql, values) = Piece::text(format!("SELECT {} FROM {}", texts(table, &table.columns), table.sql()))
            .piece(these)
            .then(lock)
            .build(table.flavour);
        let mut lines = String::new();
        for row in session.rows(&sql, &values).await? {
            let fields = table.columns.iter().zip(row).map(|(column, value)| {
                (column.name.clone(), value.map_or(serde_json::Value::Null, serde_json::Value::from))
            });
            let mut object = serde_json::Map::new();
            object.insert("table".to_owned(), table.to_string().into());
            object.insert("row".to_owned(), serde_json::Value::Object(fields.collect()));
            lines.push_str(&serde_json::Value::Object(object).to_string());
            lines.push('\n');
        }
        self.file.write_all(lines.as_bytes()).map_err(sqlx::Error::Io)?;
        self.file.sync_data().map_err(sqlx::Error::Io)
    }
}
