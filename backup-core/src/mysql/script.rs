//! Definitions as a text that the server's own client runs as it is, and that can be taken apart again.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What kind of definition an [`Object`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ObjectKind {
    /// Belongs to the session that runs the others.
    Session,
    /// A property of the database as a whole.
    Database,
    Sequence,
    Table,
    Routine,
    View,
    Trigger,
    Event,
}

impl ObjectKind {
    /// Whether it may have semicolons inside.
    fn has_body(self) -> bool {
        matches!(self, Self::Routine | Self::Trigger | Self::Event)
    }
}

/// One definition. Before its SQL stands a comment line with this as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    #[serde(rename = "type")]
    pub(crate) kind: ObjectKind,
    pub(crate) name: String,
    /// Of a trigger, its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<String>,
    /// Length in bytes of the SQL.
    bytes: usize,
    #[serde(skip)]
    pub(crate) sql: String,
}

impl Object {
    pub(crate) fn new(kind: ObjectKind, name: &str, sql: impl Into<String>) -> Self {
        let sql = sql.into();
        Self { kind, name: name.to_owned(), table: None, bytes: sql.len(), sql }
    }

    /// The same, belonging to a table.
    pub(crate) fn of_table(mut self, table: Option<&str>) -> Self {
        self.table = table.map(str::to_owned);
        self
    }
}

const MARK: &str = "-- caretaker: ";
const BODY: (&str, &str) = ("DELIMITER ;;\n", "\n;;\nDELIMITER ;\n");
const PLAIN: (&str, &str) = ("", ";\n");

/// The objects as text.
pub(crate) fn write(objects: &[Object]) -> String {
    let mut out = String::new();
    for object in objects {
        // Serialising plain strings and numbers cannot fail; if it did, the mark without JSON is refused on reading.
        let json = serde_json::to_string(object).unwrap_or_else(|e| e.to_string());
        let (before, after) = if object.kind.has_body() { BODY } else { PLAIN };
        for part in [MARK, &json, "\n", before, &object.sql, after] {
            out.push_str(part);
        }
    }
    out
}

/// Takes such a text apart.
pub(crate) fn objects_of(mut text: &str) -> Result<Vec<Object>> {
    let broken =
        |why: &str| Error::new(ErrorKind::Damaged, format!("the snapshot's definitions cannot be read: {why}"));
    let mut objects = Vec::new();
    while !text.is_empty() {
        let (line, rest) = text.split_once('\n').ok_or_else(|| broken("a line is cut short"))?;
        let json = line.strip_prefix(MARK).ok_or_else(|| broken("a definition has no heading"))?;
        let mut object: Object = serde_json::from_str(json).map_err(|e| broken(&e.to_string()))?;
        let (before, after) = if object.kind.has_body() { BODY } else { PLAIN };
        let cut = || broken("a definition is cut short");
        let rest = rest.strip_prefix(before).ok_or_else(cut)?;
        object.sql = rest.get(..object.bytes).ok_or_else(cut)?.to_owned();
        text = rest[object.bytes..].strip_prefix(after).ok_or_else(cut)?;
        objects.push(object);
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(sqls in prop::collection::vec("(?s).{0,40}", 0..6), bodies: bool) {
            let kind = if bodies { ObjectKind::Trigger } else { ObjectKind::Table };
            let objects: Vec<Object> = sqls.iter().map(|s| Object::new(kind, "odd \"name\"\n", s.as_str())).collect();
            prop_assert_eq!(objects_of(&write(&objects)).unwrap(), objects);
        }
    }

    #[test]
    fn a_cut_text_is_refused() {
        let text = write(&[Object::new(ObjectKind::Routine, "p", "CREATE PROCEDURE p() BEGIN END")]);
        for end in 1..text.len() {
            assert!(objects_of(&text[..end]).is_err(), "{end}");
        }
    }
}
