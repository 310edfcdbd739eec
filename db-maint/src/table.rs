//! One live table as a job sees it: what it is called, its columns and their types, what tells its rows apart, and what hangs
//! on it. Read anew by each job, never remembered.

use std::fmt;

use crate::capability::Flavour;
use crate::error::{Error, ErrorKind, Result};
use crate::ident::quoted;
use crate::schema::TableName;
use crate::session::{Session, Value};

/// Everything in PostgreSQL outside of the system's schemas (`c` is the table, `n` its schema); what extensions brought along is
/// theirs.
pub(crate) const POSTGRES_OURS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')";

/// A table that a job is about to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) flavour: Flavour,
    pub(crate) name: TableName,
    pub(crate) columns: Vec<Column>,
    /// What tells its rows apart; empty where nothing does. In SQLite the row's number, where rows have one.
    pub(crate) key: Vec<Column>,
    /// The primary key as it is declared: what others refer to.
    pub(crate) primary: Vec<Column>,
    /// The columns of each index that queries may use for all rows, in order.
    pub(crate) indexes: Vec<Vec<String>>,
    /// Tables whose rows go, or are changed, with rows of this one, each with what happens to them.
    pub(crate) followers: Vec<(TableName, Fate)>,
    /// Whether what is done to it can be taken back.
    pub(crate) is_transactional: bool,
}

/// What happens to a row when the one that it refers to goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Deleted,
    Changed,
    /// It keeps the other one from going.
    Keeps,
}

impl Fate {
    fn of(word: &str) -> Self {
        match word {
            "c" | "CASCADE" => Self::Deleted,
            "n" | "d" | "SET NULL" | "SET DEFAULT" => Self::Changed,
            _ => Self::Keeps,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "are deleted",
            Self::Changed => "refer to nothing then",
            Self::Keeps => "keep the row",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As the engine writes it.
    pub(crate) type_name: String,
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
    /// Whether the server fills it itself.
    pub(crate) generated: bool,
}

/// As much of a type as a job has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer {
        unsigned: bool,
    },
    Decimal,
    Text,
    /// A moment or a day.
    Time,
    Bytes,
    /// Compared and shown as text by PostgreSQL; by nobody else.
    Other,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl Table {
    /// The table of this name, in this schema or where a query without one finds it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none.
    pub(crate) async fn find(session: &mut Session, schema: Option<&str>, name: &str) -> Result<Self> {
        let flavour = session.flavour();
        if name.is_empty() || name.contains('\0') {
            return Err(Error::new(ErrorKind::Config, "a table without a name, or with a zero byte in it")
                .with_next_step("write the name as the database shows it, without quotes"));
        }
        let read = match flavour {
            Flavour::Postgres => postgres(session, schema, name).await,
            Flavour::Mysql | Flavour::MariaDb => mysql(session, schema, name).await,
            Flavour::Sqlite => sqlite(session, schema, name).await,
        };
        match read {
            Ok(Some(table)) => Ok(table),
            Ok(None) => {
                let next = match (name.split_once('.'), flavour) {
                    (Some(_), Flavour::Postgres) => "a schema is written apart: schema = \"…\", table = \"…\"",
                    _ => {
                        "write the name as the database shows it, without quotes; this user needs a right on the table"
                    }
                };
                let schema = schema.map(|s| format!("{s}.")).unwrap_or_default();
                let text = format!("{}: there is no table {schema}{name}", session.location());
                Err(Error::new(ErrorKind::Config, text).with_next_step(next))
            }
            Err(e) => Err(session.error(&format!("does not describe the table {name}"), e)),
        }
    }

    /// Its name as SQL.
    pub(crate) fn sql(&self) -> String {
        sql_name(self.flavour, &self.name)
    }

    /// The column of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none.
    pub(crate) fn column(&self, name: &str) -> Result<&Column> {
        self.columns.iter().find(|c| c.name == name).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("{self} has no column {name}"))
                .with_next_step("write the name as the database shows it, without quotes")
        })
    }

    /// A column of it as SQL, with the table's name.
    pub(crate) fn of(&self, column: &str) -> String {
        format!("{}.{}", self.sql(), quoted(self.flavour, column))
    }

    /// Whether an index begins with this column.
    pub(crate) fn is_led_by(&self, column: &str) -> bool {
        self.indexes.iter().any(|index| index.first().is_some_and(|first| first == column))
    }
}

/// A table's name as SQL.
pub(crate) fn sql_name(flavour: Flavour, name: &TableName) -> String {
    match name.schema.as_str() {
        "" => quoted(flavour, &name.name),
        schema => format!("{}.{}", quoted(flavour, schema), quoted(flavour, &name.name)),
    }
}

impl Column {
    /// Its value, `sql`, as text that [`Self::value`] reads back.
    pub(crate) fn text(&self, flavour: Flavour, sql: &str) -> String {
        match (flavour, self.kind) {
            (Flavour::Postgres, _) => format!("{sql}::text"),
            (Flavour::Sqlite, Kind::Bytes) | (Flavour::Mysql | Flavour::MariaDb, Kind::Bytes) => format!("HEX({sql})"),
            (Flavour::Sqlite, Kind::Integer { .. } | Kind::Text) => format!("CAST({sql} AS TEXT)"),
            // Whatever is stored there, whole.
            (Flavour::Sqlite, _) => format!(
                "CASE typeof({sql}) WHEN 'real' THEN printf('%!.17g', {sql}) WHEN 'blob' THEN hex({sql}) ELSE CAST({sql} AS TEXT) END"
            ),
            (Flavour::Mysql | Flavour::MariaDb, Kind::Text) => format!("CONVERT({sql} USING utf8mb4)"),
            // As a text it would lose digits.
            (Flavour::Mysql | Flavour::MariaDb, Kind::Other) if self.type_name.starts_with("float") => {
                format!("CAST(CAST({sql} AS DOUBLE) AS CHAR)")
            }
            (Flavour::Mysql | Flavour::MariaDb, Kind::Other) if self.is_shape_or_bits() => format!("HEX({sql})"),
            (Flavour::Mysql | Flavour::MariaDb, _) => format!("CAST({sql} AS CHAR)"),
        }
    }

    /// The value number `at`, from 1 on, of a statement, as this column's type.
    pub(crate) fn value(&self, flavour: Flavour, at: usize) -> String {
        match (flavour, self.kind) {
            (Flavour::Postgres, _) => format!("${at}::text::{}", self.type_name),
            (Flavour::Sqlite, Kind::Integer { .. }) => format!("CAST(?{at} AS INTEGER)"),
            (Flavour::Sqlite, Kind::Decimal) => format!("CAST(?{at} AS NUMERIC)"),
            (Flavour::Sqlite, Kind::Bytes) => format!("unhex(?{at})"),
            (Flavour::Sqlite, _) => format!("?{at}"),
            (_, Kind::Integer { unsigned: true }) => "CAST(? AS UNSIGNED)".to_owned(),
            (_, Kind::Integer { unsigned: false }) => "CAST(? AS SIGNED)".to_owned(),
            (_, Kind::Decimal) => "CAST(? AS DECIMAL(65, 30))".to_owned(),
            (_, Kind::Bytes) => "UNHEX(?)".to_owned(),
            (_, Kind::Time) => "CAST(? AS DATETIME(6))".to_owned(),
            _ => "?".to_owned(),
        }
    }

    fn is_shape_or_bits(&self) -> bool {
        let kinds = ["bit", "geometry", "point", "linestring", "polygon", "multi", "geom", "vector"];
        kinds.iter().any(|kind| self.type_name.starts_with(kind))
    }

    /// The same text, where it can be one of this column's values and nothing else: what a server makes of `12abc` is its own
    /// affair, and may be somebody else's row.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it cannot.
    pub(crate) fn checked(&self, flavour: Flavour, value: &str) -> Result<Value> {
        let is_well = match self.kind {
            Kind::Integer { .. } => value.parse::<i128>().is_ok_and(|n| n.to_string() == value),
            Kind::Decimal => {
                let digits = value.strip_prefix('-').unwrap_or(value);
                digits.bytes().any(|b| b.is_ascii_digit()) && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            }
            Kind::Text => !value.contains('\0'),
            // The server itself refuses what is none.
            Kind::Other => flavour == Flavour::Postgres,
            Kind::Time | Kind::Bytes => false,
        };
        match is_well {
            true => Ok(Some(value.to_owned())),
            false => Err(Error::new(
                ErrorKind::Config,
                format!("{value:?} is no value of the column {}, which is {}", self.name, self.type_name),
            )
            .with_next_step("write a number or a text as the database shows it")),
        }
    }

    /// Whether rows can be told apart by it: two values are the same where their texts are.
    pub(crate) fn is_exact(&self, flavour: Flavour) -> bool {
        flavour == Flavour::Postgres || self.kind != Kind::Other
    }
}

fn flag(value: &Value) -> bool {
    matches!(value.as_deref(), Some("1" | "t" | "true"))
}

/// What a query without a NULL in this column says.
fn text(row: &[Value], at: usize) -> Result<String, sqlx::Error> {
    row.get(at)
        .cloned()
        .flatten()
        .ok_or_else(|| sqlx::Error::Protocol("the catalogue has a column without a name".into()))
}

fn column(row: &[Value], kind: Kind) -> Result<Column, sqlx::Error> {
    Ok(Column {
        name: text(row, 0)?,
        type_name: text(row, 1)?,
        kind,
        nullable: row.get(2).is_some_and(flag),
        generated: row.get(3).is_some_and(flag),
    })
}

/// The columns of `names`, in that order.
fn pick(columns: &[Column], names: &[Vec<Value>]) -> Result<Vec<Column>, sqlx::Error> {
    let mut picked = Vec::new();
    for row in names {
        let name = text(row, 0)?;
        picked.extend(columns.iter().find(|c| c.name == name).cloned());
    }
    Ok(picked)
}

/// Rows of an index' name and a column's, in order, as one list for each index.
fn grouped(rows: &[Vec<Value>]) -> Result<Vec<Vec<String>>, sqlx::Error> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let (index, column) = (text(row, 0)?, row.get(1).cloned().flatten().unwrap_or_else(|| "(expression)".into()));
        match groups.last_mut().filter(|(last, _)| *last == index) {
            Some((_, columns)) => columns.push(column),
            None => groups.push((index, vec![column])),
        }
    }
    Ok(groups.into_iter().map(|(_, columns)| columns).collect())
}

fn fates(rows: &[Vec<Value>]) -> Result<Vec<(TableName, Fate)>, sqlx::Error> {
    rows.iter().map(|row| Ok((TableName::new(text(row, 0)?, text(row, 1)?), Fate::of(&text(row, 2)?)))).collect()
}

async fn postgres(session: &mut Session, schema: Option<&str>, name: &str) -> Result<Option<Table>, sqlx::Error> {
    let found = session
        .rows(
            "SELECT n.nspname::text, c.relname::text, c.oid::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relname = $1::text AND c.relkind IN ('r', 'p') \
             AND (n.nspname = $2::text OR $2::text IS NULL AND pg_table_is_visible(c.oid))",
            &[Some(name.to_owned()), schema.map(str::to_owned)],
        )
        .await?;
    let Some(row) = found.first() else { return Ok(None) };
    let (name, oid) = (TableName::new(text(row, 0)?, text(row, 1)?), vec![row[2].clone()]);
    let rows = session
        .rows(
            "SELECT a.attname::text, format_type(a.atttypid, -1), (NOT a.attnotnull)::text, \
               (a.attgenerated <> '' OR a.attidentity = 'a')::text, t.typcategory::text, \
               (CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END)::regtype::text \
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
             WHERE a.attrelid = $1::text::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            &oid,
        )
        .await?;
    let mut columns = Vec::new();
    for row in &rows {
        let kind = match (text(row, 4)?.as_str(), text(row, 5)?.as_str()) {
            (_, "smallint" | "integer" | "bigint") => Kind::Integer { unsigned: false },
            (_, "numeric") => Kind::Decimal,
            (_, "timestamp with time zone" | "timestamp without time zone" | "date") => Kind::Time,
            (_, "bytea") => Kind::Bytes,
            ("S", _) => Kind::Text,
            _ => Kind::Other,
        };
        columns.push(column(row, kind)?);
    }
    let key = session
        .rows(
            "SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(att, n) \
             JOIN pg_attribute a ON a.attnum = k.att \
             WHERE i.indrelid = $1::text::oid AND i.indisprimary AND a.attrelid = i.indrelid AND k.n <= i.indnkeyatts ORDER BY k.n",
            &oid,
        )
        .await?;
    let indexes = session
        .rows(
            "SELECT i.indexrelid::text, a.attname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
             JOIN pg_am am ON am.oid = c.relam, unnest(i.indkey::int2[]) WITH ORDINALITY k(att, n) \
             LEFT JOIN pg_attribute a ON a.attrelid = $1::text::oid AND a.attnum = k.att AND k.att <> 0 \
             WHERE i.indrelid = $1::text::oid AND i.indisvalid AND i.indpred IS NULL AND am.amname = 'btree' ORDER BY i.indexrelid, k.n",
            &oid,
        )
        .await?;
    let followers = session
        .rows(
            "SELECT n.nspname::text, c.relname::text, k.confdeltype::text FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE k.contype = 'f' AND k.confrelid = $1::text::oid AND k.conparentid = 0 ORDER BY 1, 2",
            &oid,
        )
        .await?;
    Ok(Some(Table {
        flavour: Flavour::Postgres,
        name,
        primary: pick(&columns, &key)?,
        key: pick(&columns, &key)?,
        columns,
        indexes: grouped(&indexes)?,
        followers: fates(&followers)?,
        is_transactional: true,
    }))
}

async fn mysql(session: &mut Session, schema: Option<&str>, name: &str) -> Result<Option<Table>, sqlx::Error> {
    let flavour = session.flavour();
    let at = [Some(name.to_owned())];
    let found = session
        .rows(
            "SELECT CONVERT(TABLE_NAME USING utf8mb4), COALESCE(ENGINE, ''), CONVERT(TABLE_SCHEMA USING utf8mb4) \
             FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND BINARY TABLE_NAME = BINARY ? \
             AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')",
            &at,
        )
        .await?;
    let Some(row) = found.first().filter(|row| schema.is_none() || row[2].as_deref() == schema) else {
        return Ok(None);
    };
    let engine = text(row, 1)?;
    let name = TableName::new("", text(row, 0)?);
    let rows = session
        .rows(
            "SELECT CONVERT(COLUMN_NAME USING utf8mb4), CONVERT(COLUMN_TYPE USING utf8mb4), \
               CASE IS_NULLABLE WHEN 'YES' THEN '1' ELSE '0' END, \
               CASE WHEN EXTRA LIKE '%GENERATED%' AND EXTRA NOT LIKE '%DEFAULT_GENERATED%' THEN '1' ELSE '0' END, \
               LOWER(CONVERT(DATA_TYPE USING utf8mb4)) \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND BINARY TABLE_NAME = BINARY ? ORDER BY ORDINAL_POSITION",
            &at,
        )
        .await?;
    let mut columns = Vec::new();
    for row in &rows {
        let unsigned = text(row, 1)?.contains("unsigned");
        let kind = match text(row, 4)?.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Kind::Integer { unsigned },
            "decimal" => Kind::Decimal,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "uuid" | "inet4" | "inet6" => {
                Kind::Text
            }
            "datetime" | "timestamp" | "date" => Kind::Time,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Bytes,
            _ => Kind::Other,
        };
        columns.push(column(row, kind)?);
    }
    let visible = if flavour == Flavour::MariaDb { "IGNORED = 'NO'" } else { "IS_VISIBLE = 'YES'" };
    let indexes = session
        .rows(
            &format!(
                "SELECT CONVERT(INDEX_NAME USING utf8mb4), CASE WHEN SUB_PART IS NULL THEN CONVERT(COLUMN_NAME USING utf8mb4) END \
                 FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND BINARY TABLE_NAME = BINARY ? AND {visible} \
                 AND INDEX_TYPE = 'BTREE' ORDER BY INDEX_NAME, SEQ_IN_INDEX"
            ),
            &at,
        )
        .await?;
    let mut primary: Vec<Vec<Value>> = session
        .rows(
            "SELECT CONVERT(COLUMN_NAME USING utf8mb4), CAST(SUB_PART AS CHAR) FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = DATABASE() AND BINARY TABLE_NAME = BINARY ? AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX",
            &at,
        )
        .await?;
    // The beginning of a column does not tell rows apart for us.
    if primary.iter().any(|row| row.get(1).is_some_and(Option::is_some)) {
        primary.clear();
    }
    let followers = session
        .rows(
            "SELECT '', CONVERT(TABLE_NAME USING utf8mb4), CONVERT(DELETE_RULE USING utf8mb4) FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE UNIQUE_CONSTRAINT_SCHEMA = DATABASE() \
             AND BINARY REFERENCED_TABLE_NAME = BINARY ? ORDER BY 2",
            &at,
        )
        .await?;
    Ok(Some(Table {
        flavour,
        name,
        primary: pick(&columns, &primary)?,
        key: pick(&columns, &primary)?,
        columns,
        indexes: grouped(&indexes)?,
        followers: fates(&followers)?,
        is_transactional: engine.eq_ignore_ascii_case("InnoDB"),
    }))
}

async fn sqlite(session: &mut Session, schema: Option<&str>, name: &str) -> Result<Option<Table>, sqlx::Error> {
    let at = [Some(name.to_owned())];
    let found = session
        .rows("SELECT name, CAST(wr AS TEXT) FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name = ?1", &at)
        .await?;
    let Some(row) = found.first().filter(|_| schema.is_none_or(|s| s == "main")) else { return Ok(None) };
    let without_row_numbers = row.get(1).is_some_and(flag);
    let name = TableName::new("", text(row, 0)?);
    let rows = session
        .rows(
            "SELECT name, type, CAST(\"notnull\" = 0 AS TEXT), CAST(hidden IN (2, 3) AS TEXT), CAST(pk AS TEXT) \
             FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid",
            &at,
        )
        .await?;
    let mut columns = Vec::new();
    let mut primary: Vec<(usize, Column)> = Vec::new();
    for row in &rows {
        let column = column(row, affinity(&text(row, 1)?))?;
        if let Some(place) = row[4].as_deref().and_then(|n| n.parse().ok()).filter(|n| *n > 0) {
            primary.push((place, column.clone()));
        }
        columns.push(column);
    }
    primary.sort_by_key(|(place, _)| *place);
    let is_taken = |name: &str| columns.iter().any(|c: &Column| c.name.eq_ignore_ascii_case(name));
    let number = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !is_taken(name));
    let primary: Vec<Column> = primary.into_iter().map(|(_, column)| column).collect();
    // A vacuum numbers rows anew where no column is the number: then the key is what was declared, if it tells rows apart.
    let is_declared = match primary.as_slice() {
        [one] => !one.type_name.eq_ignore_ascii_case("INTEGER") && !one.nullable && one.is_exact(Flavour::Sqlite),
        several => !several.is_empty() && several.iter().all(|c| !c.nullable && c.is_exact(Flavour::Sqlite)),
    };
    let key = match number.filter(|_| !without_row_numbers && !is_declared) {
        Some(number) => vec![Column {
            name: number.to_owned(),
            type_name: "INTEGER".into(),
            kind: Kind::Integer { unsigned: false },
            nullable: false,
            generated: true,
        }],
        None => primary.clone(),
    };
    let indexes = session
        .rows(
            "SELECT i.name, x.name FROM pragma_index_list(?1) i, pragma_index_xinfo(i.name) x \
             WHERE i.partial = 0 AND x.key = 1 ORDER BY i.name, x.seqno",
            &at,
        )
        .await?;
    let followers = session
        .rows(
            "SELECT '', t.name, f.on_delete FROM pragma_table_list t, pragma_foreign_key_list(t.name) f \
             WHERE t.schema = 'main' AND f.\"table\" = ?1 COLLATE NOCASE ORDER BY 2",
            &at,
        )
        .await?;
    Ok(Some(Table {
        flavour: Flavour::Sqlite,
        name,
        columns,
        key,
        primary,
        indexes: grouped(&indexes)?,
        followers: fates(&followers)?,
        is_transactional: true,
    }))
}

/// What SQLite makes of a declared type (<https://sqlite.org/datatype3.html>, 3.1). A declared time is one, whatever it is
/// stored as.
fn affinity(declared: &str) -> Kind {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Kind::Integer { unsigned: false }
    } else if has("DATE") || has("TIME") {
        Kind::Time
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Kind::Text
    } else if has("BLOB") {
        Kind::Bytes
    } else if declared.is_empty() || has("REAL") || has("FLOA") || has("DOUB") {
        Kind::Other
    } else {
        Kind::Decimal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_types_are_what_their_names_say() {
        let kinds = ["BIGINT", "DATETIME", "varchar(20)", "BLOB", "", "DOUBLE", "NUMERIC"].map(affinity);
        let integer = Kind::Integer { unsigned: false };
        assert_eq!(kinds, [integer, Kind::Time, Kind::Text, Kind::Bytes, Kind::Other, Kind::Other, Kind::Decimal]);
    }
}
