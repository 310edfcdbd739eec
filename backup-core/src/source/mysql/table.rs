//! The tables of a database, and how to read each.

use std::collections::HashMap;

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use super::row::Form;
use crate::mysql::{identifier, literal};
use crate::sql::trusted;

/// A table is read in parts of about so many bytes,
const PART: u64 = 4 << 20;
/// from this size on.
const PARTED_FROM: u64 = 32 << 20;

/// A table, or a sequence of MariaDB's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
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
    is_integer: bool,
}

impl Table {
    /// Whether readers see one instant of it without locking it.
    pub(crate) fn is_transactional(&self) -> bool {
        self.engine.eq_ignore_ascii_case("InnoDB") || !self.has_rows()
    }

    pub(crate) fn engine(&self) -> &str {
        &self.engine
    }

    pub(super) fn is_sequence(&self) -> bool {
        self.kind == Kind::Sequence
    }

    /// Whether it keeps its history.
    pub(crate) fn is_versioned(&self) -> bool {
        self.kind == Kind::Versioned
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
        self.select_where("")
    }

    /// Statements that read it in parts, one after the other the same rows in the same order. `first` and `last` are the
    /// smallest and largest of [`numbered_by`](Self::numbered_by).
    pub(super) fn select_parts(&self, key: &str, first: i128, last: i128) -> Vec<Select> {
        let parts = i128::from(self.bytes / PART + 1);
        let step = (last - first) / parts + 1;
        let key = identifier(key);
        let bounds: Vec<i128> = (1..parts).map(|n| first + n * step).take_while(|bound| *bound <= last).collect();
        let from = std::iter::once(None).chain(bounds.iter().map(Some));
        let to = bounds.iter().map(Some).chain(std::iter::once(None));
        from.zip(to)
            .map(|(from, to)| {
                let conditions = [from.map(|n| format!("{key} >= {n}")), to.map(|n| format!("{key} < {n}"))];
                self.select_where(&conditions.into_iter().flatten().collect::<Vec<_>>().join(" AND "))
            })
            .collect()
    }

    /// The column by whose numbers it can be read in parts, where that is worth it: where one session would still be
    /// reading it when the others are through with everything else.
    pub(super) fn numbered_by(&self, all_bytes: u64, connections: usize) -> Option<&str> {
        let share = all_bytes / connections.max(1) as u64;
        let worth_it = connections > 1 && self.bytes >= PARTED_FROM && self.bytes > share;
        let first = self.key.first().filter(|_| worth_it && self.is_transactional() && self.kind == Kind::Table)?;
        self.columns.iter().any(|c| c.is_integer && c.name == *first).then_some(first.as_str())
    }

    fn select_where(&self, condition: &str) -> Select {
        let columns: Vec<String> = self.columns.iter().map(|c| c.form.expression(&identifier(&c.name))).collect();
        // The driver takes a row whose first value is 16 MiB or longer for the end of all rows: a number goes first.
        let mut sql = format!("SELECT 0,{} FROM {}", columns.join(","), identifier(&self.name));
        if self.kind == Kind::Versioned {
            sql += " FOR SYSTEM_TIME ALL";
        }
        if !condition.is_empty() {
            sql += " WHERE ";
            sql += condition;
        }
        if self.is_transactional() && !self.key.is_empty() {
            sql += " ORDER BY ";
            sql += &self.key.iter().map(|c| identifier(c)).collect::<Vec<_>>().join(",");
        }
        Select { sql, table: self.name.clone(), forms: self.columns.iter().map(|c| c.form).collect() }
    }

    /// What has to stand before its rows.
    pub(crate) fn insert(&self) -> String {
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
pub(crate) async fn list(session: &mut MySqlConnection, database: &str) -> Result<Vec<Table>, sqlx::Error> {
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
        let data_type: String = row.try_get_unchecked(2)?;
        let form = Form::of(&data_type, &row.try_get_unchecked::<String, _>(4)?);
        let integers = ["tinyint", "smallint", "mediumint", "int", "bigint"];
        let is_integer = integers.contains(&data_type.to_ascii_lowercase().as_str());
        table.columns.push(Column { name: row.try_get_unchecked(1)?, form, is_integer });
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
                table.columns.push(Column { name: name.to_owned(), form: Form::Text, is_integer: false });
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

/// The smallest and largest number of a table's key; `None` where it has no rows.
pub(super) async fn range(
    session: &mut MySqlConnection,
    table: &Table,
    key: &str,
) -> Result<Option<(i128, i128)>, sqlx::Error> {
    let (key, name) = (identifier(key), identifier(&table.name));
    let sql = format!("SELECT CAST(MIN({key}) AS CHAR), CAST(MAX({key}) AS CHAR) FROM {name}");
    let row = session.fetch_one(sqlx::raw_sql(trusted(sql))).await?;
    let number = |at: usize| -> Result<Option<i128>, sqlx::Error> {
        let text: Option<String> = row.try_get_unchecked(at)?;
        text.map(|t| t.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))).transpose()
    };
    Ok(number(0)?.zip(number(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(bytes: u64) -> Table {
        let column = |name: &str, is_integer| Column { name: name.into(), form: Form::Number, is_integer };
        Table {
            name: "t".into(),
            kind: Kind::Table,
            engine: "InnoDB".into(),
            bytes,
            columns: vec![column("id", true), column("x", false)],
            key: vec!["id".into(), "x".into()],
            made: String::new(),
        }
    }

    #[test]
    fn parts_leave_no_number_out_and_take_none_twice() {
        for (first, last) in [(1, 1_000_000), (5, 5), (-3, 2), (i128::from(i64::MIN), i128::from(u64::MAX))] {
            let parts = table(40 << 20).select_parts("id", first, last);
            let mut next = String::new();
            for (n, part) in parts.iter().enumerate() {
                let conditions =
                    part.sql.split_once(" ORDER BY").unwrap().0.split_once(" WHERE ").map_or("", |(_, c)| c);
                let (from, to) = match conditions.split_once(" AND ") {
                    Some((from, to)) => (from, to),
                    None if n == 0 => ("", conditions),
                    None => (conditions, ""),
                };
                assert_eq!(from.trim_start_matches("`id` >= "), next, "{first}..{last}");
                next = to.trim_start_matches("`id` < ").to_owned();
            }
            assert_eq!(next, "");
            assert!(parts.len() <= 11);
        }
    }

    #[test]
    fn only_a_table_that_outweighs_the_rest_is_read_in_parts() {
        assert_eq!(table(40 << 20).numbered_by(60 << 20, 2), Some("id"));
        assert_eq!(table(40 << 20).numbered_by(100 << 20, 2), None);
        assert_eq!(table(40 << 20).numbered_by(60 << 20, 1), None);
        assert_eq!(table(1 << 20).numbered_by(1 << 20, 2), None);
        let by_text = Table { key: vec!["x".into()], ..table(40 << 20) };
        assert_eq!(by_text.numbered_by(40 << 20, 2), None);
    }
}
