//! What there is in a database, in the same words for every engine: what the judges of the schema see.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A table's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// Its schema; empty where the engine has none.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl TableName {
    /// A name; `schema` is empty where the engine has none.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema.as_str() {
            "" => f.write_str(&self.name),
            schema => write!(f, "{schema}.{}", self.name),
        }
    }
}

/// Everything that the judges of the schema see.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Schema {
    pub(crate) tables: Vec<Table>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) foreign_keys: Vec<ForeignKey>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    /// Whether it is a part of a partitioned one.
    pub(crate) is_part: bool,
    /// What stores it: `InnoDB`, `heap`; empty where there is only one way.
    pub(crate) engine: String,
    /// An estimate.
    pub(crate) rows: Option<u64>,
    /// With what lies outside of the rows, without indexes.
    pub(crate) bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Index {
    pub(crate) table: TableName,
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) keys: Vec<KeyPart>,
    /// Columns that it carries along.
    pub(crate) included: Vec<String>,
    /// Which rows are in it; all, where it is `None`.
    pub(crate) predicate: Option<String>,
    pub(crate) unique: bool,
    /// Whether two NULLs are the same to it.
    pub(crate) nulls_equal: bool,
    pub(crate) purpose: Purpose,
    pub(crate) state: State,
    /// Whether queries may use it.
    pub(crate) visible: bool,
    /// Whether it belongs to a partitioned table as a whole.
    pub(crate) is_partitioned: bool,
    /// Whether it is a part of such a one.
    pub(crate) is_part: bool,
    pub(crate) bytes: Option<u64>,
    /// How often queries have used it since the server counts; `None` where nothing counts.
    pub(crate) scans: Option<u64>,
    /// Since when its own use is counted, where that is later than for all.
    pub(crate) counted_since: Option<DateTime<Utc>>,
    /// How it is made, where the engine says so: what undoes its removal.
    pub(crate) definition: Option<String>,
}

/// What an index is for besides finding rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Primary,
    /// A unique or exclusion constraint.
    Constraint,
    /// It tells replicas which row is which, or the order of the rows.
    Identity,
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Valid,
    Invalid,
    /// Somebody may be building it now.
    Building,
}

/// A part of an index' key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPart {
    /// A column's name, or the text of an expression.
    pub(crate) what: String,
    pub(crate) is_expression: bool,
    /// How it compares: collation, operator class, direction and the like; only to be compared for being the same.
    pub(crate) order: String,
    /// So many characters of it.
    pub(crate) prefix: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForeignKey {
    pub(crate) name: String,
    pub(crate) table: TableName,
    pub(crate) columns: Vec<String>,
    pub(crate) to: TableName,
    /// The columns there, in the same order; empty where the engine does not say.
    pub(crate) to_columns: Vec<String>,
    /// Whether the server knows that it holds for every row.
    pub(crate) validated: bool,
}

/// A sequence, or the counter of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counter {
    /// The column that it fills, or the sequence where it fills none.
    pub(crate) object: String,
    /// What it gave out last.
    pub(crate) last: Option<i128>,
    /// The last that it can give out and the column can take.
    pub(crate) limit: i128,
    /// What stands in the way then.
    pub(crate) limited_by: String,
    /// Whether it begins again then.
    pub(crate) cycles: bool,
}

/// When something was looked at, and for how long the server had counted by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) now: DateTime<Utc>,
    pub(crate) since: Option<DateTime<Utc>>,
}

impl Index {
    /// Its name with its table's.
    pub(crate) fn object(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// Whether it can serve queries, whatever it is for.
    pub(crate) fn serves(&self) -> bool {
        self.state == State::Valid && self.visible
    }

    /// Whether it finds the rows that refer to one: any order of the leading columns does.
    pub(crate) fn supports(&self, key: &ForeignKey) -> bool {
        let n = key.columns.len();
        self.table == key.table
            && self.serves()
            && self.predicate.is_none()
            && self.keys.len() >= n
            && self.keys[..n].iter().all(|k| !k.is_expression && k.prefix.is_none() && key.columns.contains(&k.what))
    }
}

#[cfg(test)]
pub(crate) mod sample {
    //! Small schemas for the tests of judges.

    use super::*;

    /// An index that is like any other.
    pub(crate) fn index(table: &str, name: &str, columns: &[&str]) -> Index {
        let keys = columns.iter().map(|c| KeyPart {
            what: (*c).to_owned(),
            is_expression: false,
            order: String::new(),
            prefix: None,
        });
        Index {
            table: TableName::new("", table),
            name: name.to_owned(),
            method: "btree".into(),
            keys: keys.collect(),
            included: vec![],
            predicate: None,
            unique: false,
            nulls_equal: false,
            purpose: Purpose::Plain,
            state: State::Valid,
            visible: true,
            is_partitioned: false,
            is_part: false,
            bytes: Some(8192),
            scans: Some(0),
            counted_since: None,
            definition: None,
        }
    }

    pub(crate) fn primary(table: &str, columns: &[&str]) -> Index {
        Index { unique: true, purpose: Purpose::Primary, ..index(table, &format!("{table}_pkey"), columns) }
    }

    pub(crate) fn table(name: &str) -> Table {
        Table {
            name: TableName::new("", name),
            is_part: false,
            engine: String::new(),
            rows: Some(10),
            bytes: Some(8192),
        }
    }

    pub(crate) fn foreign_key(table: &str, columns: &[&str], to: &str) -> ForeignKey {
        ForeignKey {
            name: format!("{table}_{}_fkey", columns.join("_")),
            table: TableName::new("", table),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            to: TableName::new("", to),
            to_columns: vec!["id".into()],
            validated: true,
        }
    }
}
