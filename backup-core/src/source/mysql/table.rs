//! The tables of a database, and how to read each.

use std::collections::HashMap;

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use super::row::Form;
use crate::mysql::{identifier, literal};
use crate::sql::trusted;

/// A table, or a sequence of MariaDB's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    kind: Kind,
    engine: String,
    /// What the server guesses.
    pub(super) bytes: u64,
    columns: Vec<Column>,
    /// The columns of the primary key, in its order.
    key: Vec<String>,
    /// When it was made, as far as the server says: a table that was emptied or rebuilt is another one.
    made: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Table,
    /// With its history.
    Versioned,
    Sequence,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    form: Form,
}

impl Table {
    /// Whether readers see one instant of it without locking it.
    pub(super) fn is_transactional(&self) -> bool {
        self.engine.eq_ignore_ascii_case("InnoDB") || !self.has_rows()
    }

    pub(super) fn engine(&self) -> &str {
        &self.engine
    }

    pub(super) fn is_sequence(&self) -> bool {
        self.kind == Kind::Sequence
    }

    /// Tables of others' (FEDERATED, MERGE) have none of their own; a sequence's value is part of its definition.
    pub(super) fn has_rows(&self) -> bool {
        let elsewhere = ["FEDERATED", "CONNECT", "MRG_MyISAM", "BLACKHOLE", "SPIDER"];
        !self.is_sequence()
            && !elsewhere.iter().any(|e| self.engine.eq_ignore_ascii_case(e))
            && !self.columns.is_empty()
    }

    /// The statement that reads it. In the order of the primary key where the rows lie in that order; as they lie
    /// otherwise.
    pub(super) fn select(&self) -> Select {
        let columns: Vec<String> = self.columns.iter().map(|c| c.form.expression(&identifier(&c.name))).collect();
        // The driver takes a row whose first value is 16 MiB or longer for the end of all rows: a number goes first.
        let mut sql = format!("SELECT 0,{} FROM {}", columns.join(","), identifier(&self.name));
        if self.kind == Kind::Versioned {
            sql += " FOR SYSTEM_TIME ALL";
        }
        if self.is_transactional() && !self.key.is_empty() {
            sql += " ORDER BY ";
            sql += &self.key.iter().map(|c| identifier(c)).collect::<Vec<_>>().join(",");
        }
        Select { sql, table: self.name.clone(), forms: self.columns.iter().map(|c| c.form).collect() }
    }

    /// What has to stand before its rows.
    pub(super) fn insert(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|c| identifier(&c.name)).collect();
        format!("INSERT INTO {} ({}) VALUES ", identifier(&self.name), columns.join(","))
    }

    /// What has to be the same after the locks as before.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Self { bytes: 0, ..self.clone() } == Self { bytes: 0, ..other.clone() }
    }
}

/// How to read a table.
#[derive(Debug, Clone)]
pub(super) struct Select {
    pub(super) sql: String,
    pub(super) table: String,
    pub(super) forms: Vec<Form>,
}

/// All tables and sequences, by name.
pub(super) async fn list(session: &mut MySqlConnection, database: &str) -> Result<Vec<Table>, sqlx::Error> {
    let schema = literal(database);
    let mut tables = Vec::new();
    let mut place = HashMap::new();
    let sql = format!(
        "SELECT TABLE_NAME, TABLE_TYPE, COALESCE(ENGINE, ''), CAST(COALESCE(DATA_LENGTH, 0) AS CHAR), \
           CAST(COALESCE(CREATE_TIME, '') AS CHAR) \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema} AND TABLE_TYPE <> 'VIEW' ORDER BY TABLE_NAME"
    );
    for row in session.fetch_all(sqlx::raw_sql(trusted(sql))).await? {
        let name: String = row.try_get_unchecked(0)?;
        let kind = match row.try_get_unchecked::<String, _>(1)?.as_str() {
            "SEQUENCE" => Kind::Sequence,
            "SYSTEM VERSIONED" => Kind::Versioned,
            _ => Kind::Table,
        };
        place.insert(name.clone(), tables.len());
        tables.push(Table {
            name,
            kind,
            engine: row.try_get_unchecked(2)?,
            bytes: row.try_get_unchecked::<String, _>(3)?.parse().unwrap_or(0),
            columns: Vec::new(),
            key: Vec::new(),
            made: row.try_get_unchecked(4)?,
        });
    }
    let sql = format!(
        "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COALESCE(GENERATION_EXPRESSION, ''), COLUMN_TYPE \
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME, ORDINAL_POSITION"
    );
    for row in session.fetch_all(sqlx::raw_sql(trusted(sql))).await? {
        let Some(table) = place.get(&row.try_get_unchecked::<String, _>(0)?).map(|n| &mut tables[*n]) else { continue };
        let expression: String = row.try_get_unchecked(3)?;
        let is_period = matches!(expression.as_str(), "ROW START" | "ROW END");
        if !expression.is_empty() && !is_period {
            continue;
        }
        let form = Form::of(&row.try_get_unchecked::<String, _>(2)?, &row.try_get_unchecked::<String, _>(4)?);
        table.columns.push(Column { name: row.try_get_unchecked(1)?, form });
    }
    let sql = format!(
        "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = {schema} AND INDEX_NAME = 'PRIMARY' ORDER BY TABLE_NAME, SEQ_IN_INDEX"
    );
    for row in session.fetch_all(sqlx::raw_sql(trusted(sql))).await? {
        if let Some(n) = place.get(&row.try_get_unchecked::<String, _>(0)?) {
            tables[*n].key.push(row.try_get_unchecked(1)?);
        }
    }
    for table in tables.iter_mut().filter(|t| t.kind == Kind::Versioned) {
        // Where the table does not name them, the server keeps them under these names, and shows them to nobody.
        for name in ["row_start", "row_end"] {
            if !table.columns.iter().any(|c| c.form == Form::Text && c.name == name)
                && !has_period(session, database, &table.name).await?
            {
                table.columns.push(Column { name: name.to_owned(), form: Form::Text });
            }
        }
    }
    Ok(tables)
}

/// Whether a system-versioned table names the columns of its period itself.
async fn has_period(session: &mut MySqlConnection, database: &str, table: &str) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "SELECT COUNT(*) > 0 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} \
         AND GENERATION_EXPRESSION IN ('ROW START', 'ROW END')",
        literal(database),
        literal(table)
    );
    session.fetch_one(sqlx::raw_sql(trusted(sql))).await?.try_get_unchecked::<i64, _>(0).map(|n| n != 0)
}

/// Where foreign keys lead, by places in `tables`.
pub(super) async fn needs(
    session: &mut MySqlConnection,
    database: &str,
    tables: &[Table],
) -> Result<Vec<(usize, usize)>, sqlx::Error> {
    let sql = format!(
        "SELECT TABLE_NAME, REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS \
         WHERE CONSTRAINT_SCHEMA = {0} AND UNIQUE_CONSTRAINT_SCHEMA = {0}",
        literal(database)
    );
    let place = |name: &str| tables.iter().position(|t| t.name.eq_ignore_ascii_case(name));
    let mut needs = Vec::new();
    for row in session.fetch_all(sqlx::raw_sql(trusted(sql))).await? {
        let (from, to): (String, String) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
        needs.extend(place(&from).zip(place(&to)));
    }
    Ok(needs)
}
