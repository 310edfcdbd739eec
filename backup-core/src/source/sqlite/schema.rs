//! The definitions of a SQLite database: what to make before the data, how to read each table, what to make after it.

use serde::{Deserialize, Serialize};
use sqlx::{Row, SqliteConnection};

use super::row::Encoding;
use crate::error::{Error, ErrorKind, Result};
use crate::sql;
use crate::tier::Tier;

/// What kind of definition an [`Object`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ObjectKind {
    /// Belongs to the connection or file that is being filled, not to one table.
    Session,
    Table,
    /// A virtual table: entered into the schema as it stands; its shadow tables are tables of their own.
    Virtual,
    /// The table behind AUTOINCREMENT.
    Sequence,
    /// A table of the query planner's statistics.
    Statistics,
    Index,
    Trigger,
    View,
}

/// One definition inside the text of a schema entry. Before its SQL stands a comment line with this as JSON, so that the
/// text can be fed to `sqlite3` as it is and still be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    #[serde(rename = "type")]
    pub(crate) kind: ObjectKind,
    pub(crate) name: String,
    /// The table it belongs to.
    pub(crate) table: String,
    /// Length in bytes of the SQL that follows the comment line.
    bytes: usize,
    #[serde(skip)]
    pub(crate) sql: String,
}

/// The beginning of the setting that a restore into a new file makes last.
pub(crate) const JOURNAL_MODE: &str = "PRAGMA journal_mode=";
/// The beginning of the setting that a file which is there has to share.
pub(crate) const ENCODING: &str = "PRAGMA encoding=";
const MARK: &str = "-- caretaker: ";

impl Object {
    fn new(kind: ObjectKind, name: &str, table: &str, sql: String) -> Self {
        Self { kind, name: name.into(), table: table.into(), bytes: sql.len(), sql }
    }

    fn session(sql: &str) -> Self {
        Self::new(ObjectKind::Session, "", "", sql.to_owned())
    }

    fn write(&self, out: &mut String) {
        // Serialising plain strings and numbers cannot fail; if it did, the mark without JSON is refused on reading.
        let json = serde_json::to_string(self).unwrap_or_else(|e| e.to_string());
        out.push_str(MARK);
        out.push_str(&json);
        out.push('\n');
        out.push_str(&self.sql);
    }
}

/// Takes the text of a schema entry apart.
pub(crate) fn objects_of(mut text: &str) -> Result<Vec<Object>> {
    let broken = |why: &str| Error::new(ErrorKind::Damaged, format!("the snapshot's schema cannot be read: {why}"));
    let mut objects = Vec::new();
    while !text.is_empty() {
        let (line, rest) = text.split_once('\n').ok_or_else(|| broken("a line is cut short"))?;
        let json = line.strip_prefix(MARK).ok_or_else(|| broken("a definition has no heading"))?;
        let mut object: Object = serde_json::from_str(json).map_err(|e| broken(&e.to_string()))?;
        if !rest.is_char_boundary(object.bytes) || rest.len() < object.bytes {
            return Err(broken("a definition is cut short"));
        }
        object.sql = rest[..object.bytes].to_owned();
        text = &rest[object.bytes..];
        objects.push(object);
    }
    Ok(objects)
}

/// A table whose rows are read.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// The virtual table that keeps its data in it, or itself.
    pub(super) owner: String,
    /// The name under which its rowid can be had; `None` where it has none, or none that is not the name of a column.
    rowid: Option<&'static str>,
    columns: Vec<String>,
    /// All columns can be inserted and there is no separate rowid.
    plain: bool,
}

impl Table {
    pub(super) fn select(&self) -> String {
        let columns = self.column_list();
        let table = sql::identifier(&self.name);
        match self.rowid {
            Some(rowid) => format!("SELECT {columns} FROM main.{table} ORDER BY {rowid}"),
            // Through its primary key, or in storage order: never by whichever index happens to cover the columns.
            None => format!("SELECT {columns} FROM main.{table} NOT INDEXED"),
        }
    }

    /// A name with a line break that stands in the table's rows.
    fn unwritable(&self) -> Option<&str> {
        let columns = self.columns.iter().filter(|_| !self.plain);
        std::iter::once(&self.name).chain(columns).find(|n| n.contains(['\n', '\r'])).map(String::as_str)
    }

    pub(super) fn insert_prefix(&self) -> String {
        let table = sql::identifier(&self.name);
        if self.plain {
            format!("INSERT INTO {table} VALUES(")
        } else {
            format!("INSERT INTO {table}({}) VALUES(", self.column_list())
        }
    }

    fn column_list(&self) -> String {
        let columns = self.columns.iter().map(|c| sql::identifier(c));
        // An alias of the rowid is a column already.
        let rowid = self.rowid.filter(|_| !self.plain).map(str::to_owned);
        rowid.into_iter().chain(columns).collect::<Vec<_>>().join(",")
    }
}

/// Everything there is to know before reading.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) version: String,
    pub(super) journal_mode: String,
    pub(super) schema_version: i64,
    pub(super) encoding: Encoding,
    pub(super) tables: Vec<Table>,
    encoding_name: String,
    page_size: i64,
    auto_vacuum: i64,
    user_version: i64,
    application_id: i64,
    before: Vec<Object>,
    after: Vec<Object>,
    has_virtual: bool,
    /// The statistics table of the source that `ANALYZE` may make in a target although the source had none.
    unwanted_statistics: Option<&'static str>,
}

impl Schema {
    pub(super) async fn read(db: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        // The first statement that reads the file: it fixes the instant.
        let rows = sqlx::query("SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_master ORDER BY rowid")
            .fetch_all(&mut *db)
            .await?;
        let encoding_name: String = pragma(db, "PRAGMA main.encoding").await?;
        let encoding = match encoding_name.as_str() {
            "UTF-16le" => Encoding::Utf16Le,
            "UTF-16be" => Encoding::Utf16Be,
            _ => Encoding::Utf8,
        };
        let mut schema = Self {
            version: sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut *db).await?,
            journal_mode: pragma(db, "PRAGMA main.journal_mode").await?,
            schema_version: pragma(db, "PRAGMA main.schema_version").await?,
            encoding,
            encoding_name,
            page_size: pragma(db, "PRAGMA main.page_size").await?,
            auto_vacuum: pragma(db, "PRAGMA main.auto_vacuum").await?,
            user_version: pragma(db, "PRAGMA main.user_version").await?,
            application_id: pragma(db, "PRAGMA main.application_id").await?,
            tables: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            has_virtual: false,
            unwanted_statistics: None,
        };
        let mut statistics = Vec::new();
        // Virtual tables keep their data in tables of their own, which are nothing without them.
        let mut virtual_tables = Vec::new();
        for row in &rows {
            let kind: String = row.try_get(0)?;
            if kind == "table" && row.try_get::<Option<i64>, _>(3)?.unwrap_or(0) == 0 {
                virtual_tables.push(row.try_get::<String, _>(1)?);
            }
        }
        let owner = |name: &str| {
            let owns = |v: &&String| name.strip_prefix(v.as_str()).is_some_and(|rest| rest.starts_with('_'));
            virtual_tables.iter().filter(owns).max_by_key(|v| v.len()).cloned().unwrap_or_else(|| name.to_owned())
        };
        for row in rows {
            let kind: String = row.try_get(0)?;
            let name: String = row.try_get(1)?;
            let table: String = row.try_get(2)?;
            let rootpage: Option<i64> = row.try_get(3)?;
            // Indexes that a constraint brings along have no SQL.
            let Some(definition) = row.try_get::<Option<String>, _>(4)? else { continue };
            match kind.as_str() {
                "table" => {
                    let mut object = schema.table_object(&name, rootpage.unwrap_or(0) == 0, &definition);
                    if object.kind == ObjectKind::Table {
                        object.table = owner(&name);
                    }
                    if object.kind == ObjectKind::Statistics {
                        statistics.push(name.clone());
                    }
                    if object.kind == ObjectKind::Sequence {
                        // Filling the other tables moves it: its rows come after all data.
                        schema.after.splice(0..0, sequences(db).await?);
                    } else if object.kind != ObjectKind::Virtual {
                        schema.tables.push(read_table(db, &name, object.table.clone()).await?);
                    }
                    schema.before.push(object);
                }
                "index" => schema.after.push(Object::new(ObjectKind::Index, &name, &table, terminated(&definition))),
                "trigger" => {
                    schema.after.push(Object::new(ObjectKind::Trigger, &name, &table, terminated(&definition)))
                }
                _ => schema.after.push(Object::new(ObjectKind::View, &name, &table, terminated(&definition))),
            }
        }
        if !statistics.is_empty() && !statistics.iter().any(|s| s == "sqlite_stat4") {
            schema.unwanted_statistics = Some("sqlite_stat4");
        }
        Ok(schema)
    }

    /// Which tables' rows need which others', by their places in `tables`: where foreign keys lead.
    pub(super) async fn needs(&self, db: &mut SqliteConnection) -> Result<Vec<(usize, usize)>, sqlx::Error> {
        let mut needs = Vec::new();
        for (from, table) in self.tables.iter().enumerate() {
            let parents: Vec<String> = sqlx::query_scalar("SELECT \"table\" FROM pragma_foreign_key_list(?1, 'main')")
                .bind(&table.name)
                .fetch_all(&mut *db)
                .await?;
            let place = |parent: &String| self.tables.iter().position(|t| t.name.eq_ignore_ascii_case(parent));
            needs.extend(parents.iter().filter_map(place).map(|to| (from, to)));
        }
        Ok(needs)
    }

    /// Leaves out the rows of tables that do not belong to the tier.
    pub(super) fn keep_rows_of(&mut self, tier: &Tier, needs: &[(usize, usize)]) -> Result<(), Error> {
        let names: Vec<String> = self.tables.iter().map(|t| t.owner.clone()).collect();
        let members = tier.members(&names, needs)?;
        let mut members = members.into_iter();
        self.tables.retain(|_| members.next().unwrap_or(true));
        Ok(())
    }

    /// A name that keeps a row from being one line.
    pub(super) fn unwritable(&self) -> Option<&str> {
        self.tables.iter().find_map(Table::unwritable)
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// What a new file must be told before its first table.
    pub(super) fn settings(&self) -> String {
        let mut out = String::new();
        for statement in [
            format!("PRAGMA page_size={};\n", self.page_size),
            format!("{ENCODING}{};\n", sql::literal(&self.encoding_name)),
            format!("PRAGMA auto_vacuum={};\n", self.auto_vacuum),
            format!("{JOURNAL_MODE}{};\n", if self.journal_mode == "wal" { "wal" } else { "delete" }),
        ] {
            Object::session(&statement).write(&mut out);
        }
        out
    }

    pub(super) fn pre_data(&self) -> String {
        let mut out = String::new();
        Object::session("PRAGMA foreign_keys=OFF;\nPRAGMA ignore_check_constraints=ON;\nBEGIN;\n").write(&mut out);
        if self.has_virtual {
            Object::session("PRAGMA writable_schema=ON;\n").write(&mut out);
        }
        self.before.iter().for_each(|o| o.write(&mut out));
        if let Some(table) = self.unwanted_statistics {
            let drop = format!("DROP TABLE IF EXISTS {table};\n");
            Object::new(ObjectKind::Statistics, table, table, drop).write(&mut out);
        }
        out
    }

    pub(super) fn post_data(&self) -> String {
        let mut out = String::new();
        self.after.iter().for_each(|o| o.write(&mut out));
        if self.has_virtual {
            Object::session("PRAGMA writable_schema=OFF;\n").write(&mut out);
        }
        let numbers =
            format!("PRAGMA user_version={};\nPRAGMA application_id={};\n", self.user_version, self.application_id);
        Object::session(&numbers).write(&mut out);
        Object::session("COMMIT;\n").write(&mut out);
        out
    }

    fn table_object(&mut self, name: &str, is_virtual: bool, definition: &str) -> Object {
        if name == "sqlite_sequence" {
            // Cannot be made by hand; a table that counts brings it along, even one that is dropped at once.
            let make = "CREATE TABLE caretaker_sequence(n INTEGER PRIMARY KEY AUTOINCREMENT);\nDROP TABLE caretaker_sequence;\n";
            return Object::new(ObjectKind::Sequence, name, name, make.to_owned());
        }
        if name.starts_with("sqlite_stat") {
            // Makes the tables and measures nothing.
            return Object::new(ObjectKind::Statistics, name, name, "ANALYZE sqlite_master;\n".to_owned());
        }
        if is_virtual {
            self.has_virtual = true;
            let name_literal = sql::literal(name);
            let insert = format!(
                "INSERT INTO sqlite_master(type,name,tbl_name,rootpage,sql)VALUES('table',{name_literal},{name_literal},0,{});\n",
                sql::literal(definition)
            );
            return Object::new(ObjectKind::Virtual, name, name, insert);
        }
        Object::new(ObjectKind::Table, name, name, terminated(definition))
    }
}

/// With its semicolon, which a comment at the end must not swallow. (Elsewhere without a line break before it: SQLite
/// would keep that as part of an index's definition.)
fn terminated(definition: &str) -> String {
    let comment = definition.rsplit('\n').next().is_some_and(|line| line.contains("--"));
    if comment { format!("{definition}\n;\n") } else { format!("{definition};\n") }
}

async fn pragma<T>(db: &mut SqliteConnection, sql: &'static str) -> Result<T, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
{
    sqlx::query(sql).fetch_one(db).await?.try_get(0)
}

/// The last numbers that AUTOINCREMENT gave, each by its table.
async fn sequences(db: &mut SqliteConnection) -> Result<Vec<Object>, sqlx::Error> {
    let empty = "DELETE FROM sqlite_sequence;\n".to_owned();
    let mut objects = vec![Object::new(ObjectKind::Sequence, "sqlite_sequence", "sqlite_sequence", empty)];
    let rows =
        sqlx::query("SELECT rowid, CAST(name AS TEXT), quote(name), quote(seq) FROM sqlite_sequence ORDER BY rowid")
            .fetch_all(db)
            .await?;
    for row in rows {
        let rowid: i64 = row.try_get(0)?;
        let table: Option<String> = row.try_get(1)?;
        let (name, seq): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        // In a database that lives on, the rowid may be another table's.
        let set = format!(
            "DELETE FROM sqlite_sequence WHERE name={name};\nINSERT INTO sqlite_sequence(rowid,name,seq) SELECT CASE WHEN EXISTS(SELECT 1 FROM sqlite_sequence WHERE rowid={rowid}) THEN NULL ELSE {rowid} END,{name},{seq};\n"
        );
        let table = table.as_deref().unwrap_or("sqlite_sequence");
        objects.push(Object::new(ObjectKind::Sequence, table, table, set));
    }
    Ok(objects)
}

async fn read_table(db: &mut SqliteConnection, name: &str, owner: String) -> Result<Table, sqlx::Error> {
    let rows = sqlx::query("SELECT name, hidden, pk, upper(type) FROM pragma_table_xinfo(?1, 'main') ORDER BY cid")
        .bind(name)
        .fetch_all(&mut *db)
        .await?;
    let mut all = Vec::new();
    let mut columns = Vec::new();
    let mut key = Vec::new();
    for row in rows {
        let column: String = row.try_get(0)?;
        let hidden: i64 = row.try_get(1)?;
        if row.try_get::<i64, _>(2)? > 0 {
            key.push(row.try_get::<String, _>(3)?);
        }
        // 2 and 3 are generated columns: they are computed, not inserted.
        if hidden == 0 {
            columns.push(column.clone());
        }
        all.push(column);
    }
    let without_rowid: i64 = sqlx::query_scalar("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1")
        .bind(name)
        .fetch_one(&mut *db)
        .await?;
    // A single INTEGER PRIMARY KEY is the rowid, unless (DESC, by an old quirk) it has an index of its own.
    let key_indexes: i64 = sqlx::query_scalar("SELECT count(*) FROM pragma_index_list(?1, 'main') WHERE origin = 'pk'")
        .bind(name)
        .fetch_one(&mut *db)
        .await?;
    let is_alias = without_rowid == 0 && key == ["INTEGER"] && key_indexes == 0;
    let free = |candidate: &&'static str| !all.iter().any(|c| c.eq_ignore_ascii_case(candidate));
    let rowid = if without_rowid == 0 { ["rowid", "_rowid_", "oid"].iter().copied().find(|c| free(c)) } else { None };
    let generated = columns.len() < all.len();
    Ok(Table {
        name: name.to_owned(),
        owner,
        plain: !generated && (is_alias || rowid.is_none()),
        // With an alias the order is still the rowid's.
        rowid: if is_alias && generated { None } else { rowid },
        columns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_text_comes_apart_whatever_is_in_it() {
        let objects = [
            Object::session("BEGIN;\n"),
            Object::new(ObjectKind::Table, "a\"b", "a\"b", "CREATE TABLE \"a\"\"b\"(x);\n".into()),
            Object::new(ObjectKind::View, "v", "v", format!("CREATE VIEW v AS SELECT '\n{MARK}{{}}\nü' ;\n")),
        ];
        let mut text = String::new();
        objects.iter().for_each(|o| o.write(&mut text));
        assert_eq!(objects_of(&text).unwrap(), objects);
        for cut in (1..text.len()).filter(|c| text.is_char_boundary(*c)) {
            let part = objects_of(&text[..cut]);
            assert!(part.is_err() || part.unwrap().len() < objects.len(), "cut at {cut}");
        }
    }
}
