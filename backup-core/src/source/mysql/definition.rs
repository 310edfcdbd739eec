//! Definitions, as the server shows them.

use std::collections::BTreeSet;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};

use super::table::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Problem;
use crate::mysql::{Database, Object, ObjectKind, Server, identifier, literal, number, reason};
use crate::sql::trusted;

/// What a session that runs definitions is set to, before and between those that want something else.
const PLAIN: &str =
    "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', character_set_client = utf8mb4, time_zone = '+00:00'";

/// All definitions of a database.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub(super) settings: Vec<Object>,
    /// Sequences and tables.
    pub(super) tables: Vec<Object>,
    /// Routines, views, triggers and events, in this order.
    pub(super) programs: Vec<Object>,
    pub(super) problems: Vec<Problem>,
}

pub(super) async fn read(
    database: &Database,
    session: &mut MySqlConnection,
    server: &Server,
    tables: &[Table],
) -> Result<Definitions> {
    let mut reader = Reader { database, session, schema: literal(database.name()), mariadb: server.mariadb };
    let mut definitions = Definitions { problems: reader.unseen().await?, ..Definitions::default() };
    definitions.settings = reader.settings(server).await?;
    for table in tables {
        let name = identifier(&table.name);
        if table.is_sequence() {
            let shown = reader.show("SEQUENCE", &table.name, 1).await?;
            definitions.tables.push(Object::new(ObjectKind::Sequence, &table.name, shown.sql));
            let next = reader.rows(&format!("SELECT CAST(next_not_cached_value AS CHAR) FROM {name}")).await?;
            let Some(next) = next.first().map(|row| reader.text(row, 0)).transpose()? else {
                return Err(reader.unreadable(&format!("the sequence {} has no value", table.name)));
            };
            let set = format!("DO SETVAL({name}, {next}, 0)");
            definitions.tables.push(Object::new(ObjectKind::Sequence, &table.name, set));
        }
    }
    for table in tables.iter().filter(|t| !t.is_sequence()) {
        let sql = reader.table(&table.name).await?;
        definitions.tables.push(Object::new(ObjectKind::Table, &table.name, sql));
    }
    reader.programs(&mut definitions).await?;
    Ok(definitions)
}

/// The definition of one table, as snapshots have it.
pub(crate) async fn table(database: &Database, session: &mut MySqlConnection, name: &str) -> Result<String> {
    let server = Server::of(session).await.map_err(|e| database.failed("could not be read", e))?;
    Reader { database, session, schema: literal(database.name()), mariadb: server.mariadb }.table(name).await
}

/// The routines, views, triggers and events of a database, each after what its session has to be set to.
pub(crate) async fn programs(database: &Database, session: &mut MySqlConnection) -> Result<Vec<Object>> {
    let server = Server::of(session).await.map_err(|e| database.failed("could not be read", e))?;
    let mut reader = Reader { database, session, schema: literal(database.name()), mariadb: server.mariadb };
    let mut definitions = Definitions::default();
    reader.programs(&mut definitions).await?;
    Ok(definitions.programs)
}

/// One definition, and what the session has to be set to for it.
struct Shown {
    sql: String,
    mode: Option<String>,
    charset: Option<(String, String)>,
    time_zone: Option<String>,
}

struct Reader<'a> {
    database: &'a Database,
    session: &'a mut MySqlConnection,
    schema: String,
    mariadb: bool,
}

impl Reader<'_> {
    async fn rows(&mut self, sql: &str) -> Result<Vec<MySqlRow>> {
        self.session
            .fetch_all(sqlx::raw_sql(trusted(sql)))
            .await
            .map_err(|e| self.database.failed("could not be read", e))
    }

    fn text(&self, row: &MySqlRow, at: usize) -> Result<String> {
        let text: Option<String> =
            row.try_get_unchecked(at).map_err(|e| self.database.failed("could not be read", e))?;
        text.ok_or_else(|| self.unreadable("the server left out what it was asked for"))
    }

    /// What the server answered cannot be made a definition of: better no snapshot than one that does not restore.
    fn unreadable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Source, format!("{}: {why}", self.database.location()))
    }

    async fn names(&mut self, sql: &str) -> Result<Vec<(String, String)>> {
        let rows = self.rows(sql).await?;
        rows.iter().map(|row| Ok((self.text(row, 0)?, self.text(row, 1)?))).collect()
    }

    /// `SHOW CREATE …`, whose answer has the definition in column `at`.
    async fn show(&mut self, what: &str, name: &str, at: usize) -> Result<Shown> {
        let rows = self.rows(&format!("SHOW CREATE {what} {}", identifier(name))).await?;
        let row = rows.first();
        let definition = match row {
            Some(row) => row
                .try_get_unchecked::<Option<String>, _>(at)
                .map_err(|e| self.database.failed("could not be read", e))?,
            None => None,
        };
        let Some((row, sql)) = row.zip(definition) else {
            return Err(Error::new(
                ErrorKind::Source,
                format!(
                    "{}: the definition of {} {name} may not be read",
                    self.database.location(),
                    what.to_lowercase()
                ),
            )
            .with_next_step(
                "give the user the right to see it: SELECT on mysql.proc (MariaDB) or SHOW_ROUTINE (MySQL)",
            ));
        };
        // Not every kind of object has each of them.
        let named = |column: &str| match row.try_get_unchecked::<Option<String>, _>(column) {
            Err(sqlx::Error::ColumnNotFound(_)) => Ok(None),
            value => value.map_err(|e| self.database.failed("could not be read", e)),
        };
        Ok(Shown {
            sql,
            mode: named("sql_mode")?,
            charset: named("character_set_client")?.zip(named("collation_connection")?),
            time_zone: named("time_zone")?,
        })
    }

    /// The definition of a table, in the one form that can be compared with others.
    async fn table(&mut self, name: &str) -> Result<String> {
        let shown = self.show("TABLE", name, 1).await?;
        Ok(if self.mariadb { own_sequences(&shown.sql, self.database.name()) } else { with_character_sets(&shown.sql) })
    }

    async fn settings(&mut self, server: &Server) -> Result<Vec<Object>> {
        let sql = format!(
            "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            self.schema
        );
        let mut objects = vec![
            Object::new(ObjectKind::Session, "", "SET NAMES utf8mb4"),
            Object::new(ObjectKind::Session, "", PLAIN),
            Object::new(ObjectKind::Session, "", "SET SESSION foreign_key_checks = 0, unique_checks = 0"),
        ];
        for setting in server.insert_settings() {
            // In a comment that only MariaDB reads.
            let sql = format!("/*M! SET SESSION {setting} */");
            objects.push(Object::new(ObjectKind::Session, "", sql));
        }
        for (charset, collation) in self.names(&sql).await? {
            let sql = format!("ALTER DATABASE CHARACTER SET {charset} COLLATE {collation}");
            objects.push(Object::new(ObjectKind::Database, "", sql));
        }
        Ok(objects)
    }

    async fn programs(&mut self, definitions: &mut Definitions) -> Result<()> {
        let schema = self.schema.clone();
        let sql = format!(
            "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {schema} ORDER BY ROUTINE_TYPE, ROUTINE_NAME"
        );
        for (kind, name) in self.names(&sql).await? {
            let shown = self.show(&kind, &name, 2).await?;
            definitions.add(ObjectKind::Routine, &name, shown);
        }
        let sql = format!(
            "SELECT TABLE_NAME, '' FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME"
        );
        let views = self.names(&sql).await?;
        if !views.is_empty() {
            // Not as the last routine wanted it.
            definitions.programs.push(Object::new(ObjectKind::Session, "", "SET NAMES utf8mb4"));
            definitions.programs.push(Object::new(ObjectKind::Session, "", PLAIN));
        }
        // One view may need another: first each gets a stand-in with its columns.
        for (view, _) in &views {
            let sql = format!(
                "SELECT COLUMN_NAME, '' FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
                literal(view)
            );
            let columns: Vec<String> =
                self.names(&sql).await?.iter().map(|(c, _)| format!("1 AS {}", identifier(c))).collect();
            let columns = if columns.is_empty() { "1".to_owned() } else { columns.join(", ") };
            // Without a row: until the view itself is there nobody is told anything that is not so.
            let sql = format!("CREATE VIEW {} AS SELECT {columns} FROM DUAL WHERE FALSE", identifier(view));
            definitions.programs.push(Object::new(ObjectKind::View, view, sql));
        }
        for (view, _) in &views {
            let mut shown = self.show("VIEW", view, 1).await?;
            if let Some(rest) = shown.sql.strip_prefix("CREATE ") {
                shown.sql = format!("CREATE OR REPLACE {rest}");
            }
            // Of a table that is gone, or a user that is: the server keeps such views, and makes none.
            let look = format!("SELECT 1 FROM {} LIMIT 0", identifier(view));
            if let Err(e) = self.session.fetch_all(sqlx::raw_sql(trusted(look))).await {
                let Some(number) = number(&e) else { return Err(self.database.failed("could not be read", e)) };
                let why = format!("this view does not work ({number}: {}): a restore will leave it out", reason(&e));
                definitions.problems.push(Problem::new(view, why));
            }
            definitions.add(ObjectKind::View, view, shown);
        }
        self.triggers(definitions).await?;
        let sql = format!(
            "SELECT EVENT_NAME, '' FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema} ORDER BY EVENT_NAME"
        );
        for (name, _) in self.names(&sql).await? {
            let shown = self.show("EVENT", &name, 3).await?;
            definitions.add(ObjectKind::Event, &name, shown);
        }
        if !definitions.programs.is_empty() {
            definitions.programs.push(Object::new(ObjectKind::Session, "", PLAIN));
        }
        Ok(())
    }

    async fn triggers(&mut self, definitions: &mut Definitions) -> Result<()> {
        let sql = format!(
            "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {} ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER",
            self.schema
        );
        for (name, table) in self.names(&sql).await? {
            let shown = self.show("TRIGGER", &name, 2).await?;
            definitions.add_of(ObjectKind::Trigger, &name, Some(&table), shown);
        }
        Ok(())
    }

    /// What this user would not see even if it were there: the server hides it instead of refusing it.
    async fn unseen(&mut self) -> Result<Vec<Problem>> {
        let grants = self.rows("SHOW GRANTS").await?;
        let mut rights = BTreeSet::new();
        let mut reads_routines = false;
        for row in &grants {
            let grant = self.text(row, 0)?;
            let Some((what, on)) = grant.strip_prefix("GRANT ").and_then(|g| g.split_once(" ON ")) else { continue };
            let object = on.split(" TO ").next().unwrap_or(on);
            let is_here = object == "*.*" || self.covers(object);
            if is_here {
                rights.extend(what.split(", ").map(|r| r.trim().to_uppercase()));
            }
            let reads = what.contains("ALL PRIVILEGES") || what.split(", ").any(|r| r == "SELECT");
            let is_mysql_proc = self.mariadb && matches!(object, "`mysql`.*" | "`mysql`.`proc`");
            reads_routines |= reads && (object == "*.*" || is_mysql_proc);
        }
        let has = |right: &str| rights.contains("ALL PRIVILEGES") || rights.contains(right);
        reads_routines |= ["EXECUTE", "CREATE ROUTINE", "ALTER ROUTINE", "SHOW_ROUTINE", "SHOW CREATE ROUTINE"]
            .iter()
            .any(|r| has(r));
        let missing = [
            ("tables and columns", "SELECT on the whole database", has("SELECT")),
            ("triggers", "TRIGGER", has("TRIGGER")),
            ("events", "EVENT", has("EVENT")),
            ("routines", "SELECT on mysql.proc (MariaDB) or SHOW_ROUTINE (MySQL)", reads_routines),
        ];
        let mut problems = Vec::new();
        if !has("PROCESS") {
            let why = "without the right PROCESS this user does not see who waits behind the backup: it will not give way to a migration";
            problems.push(Problem::new("waiting sessions", why));
        }
        problems.extend(missing.into_iter().filter(|(_, _, may)| !may).map(|(what, right, _)| {
            let why = format!("this user may not see all of them without the right {right}: what it does not see is not in the snapshot");
            Problem::new(what, why)
        }));
        Ok(problems)
    }

    /// Whether rights on an object such as `` `shop\_%`.* `` hold for all of this database.
    fn covers(&self, object: &str) -> bool {
        let Some(pattern) = object.strip_suffix(".*").map(|p| p.trim_matches('`')) else { return false };
        like(pattern.as_bytes(), self.database.name().as_bytes())
    }
}

/// A table's definition without the name of the database before its sequences: restored under another name, the table
/// would go on counting in the old one.
fn own_sequences(sql: &str, database: &str) -> String {
    ["nextval", "lastval"].iter().fold(sql.to_owned(), |sql, function| {
        sql.replace(&format!("{function}({}.", identifier(database)), &format!("{function}("))
    })
}

/// A table's definition with a character set before each column's collation. MySQL leaves it out where the collation was
/// not asked for, and shows it once the table was made from what it showed: the copy would look different.
fn with_character_sets(sql: &str) -> String {
    let lines: Vec<String> = sql
        .split('\n')
        .map(|line| match collation_without_set(line) {
            Some((at, set)) => format!("{} CHARACTER SET {set}{}", &line[..at], &line[at..]),
            None => line.to_owned(),
        })
        .collect();
    lines.join("\n")
}

/// Where a column's collation follows right upon its type, and the character set it is of.
fn collation_without_set(line: &str) -> Option<(usize, &str)> {
    let column = line.strip_prefix("  `")?;
    let mut at = line.len() - column.len();
    // The name; a backquote inside is doubled.
    loop {
        at += line[at..].find('`')? + 1;
        if !line[at..].starts_with('`') {
            break;
        }
        at += 1;
    }
    // The type: a word, and values in parentheses and quotes.
    at += line[at..].find(|c: char| !c.is_whitespace())?;
    at += line[at..].find([' ', '('])?;
    if line[at..].starts_with('(') {
        let mut quoted = false;
        let length = line[at..].find(|c| {
            quoted ^= c == '\'';
            c == ')' && !quoted
        })?;
        at += length + 1;
    }
    let collation = line[at..].strip_prefix(" COLLATE ")?;
    let collation = collation.split([' ', ',']).next()?;
    Some((at, collation.split('_').next()?))
}

/// SQL's `LIKE`, as grants use it for databases.
fn like(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'%', rest @ ..] => (0..=name.len()).any(|n| like(rest, &name[n..])),
        [b'_', rest @ ..] => !name.is_empty() && like(rest, &name[1..]),
        [b'\\', c, rest @ ..] => name.first() == Some(c) && like(rest, &name[1..]),
        [c, rest @ ..] => name.first() == Some(c) && like(rest, &name[1..]),
    }
}

impl Definitions {
    fn add(&mut self, kind: ObjectKind, name: &str, shown: Shown) {
        self.add_of(kind, name, None, shown);
    }

    fn add_of(&mut self, kind: ObjectKind, name: &str, table: Option<&str>, shown: Shown) {
        let Shown { sql, mode, charset, time_zone } = shown;
        let mut set = Vec::new();
        // A view has none of its own; it must not get that of whatever came before it.
        set.push(format!("sql_mode = {}", literal(mode.as_deref().unwrap_or("NO_AUTO_VALUE_ON_ZERO"))));
        if let Some((charset, collation)) = charset {
            // The text comes in utf8mb4; under another character set the server would misread it.
            if charset.starts_with("utf8") || sql.is_ascii() {
                set.push(format!("character_set_client = {charset}"));
            } else {
                set.push("character_set_client = utf8mb4".to_owned());
                let why = format!("it was written in {charset}; its text is kept as utf8mb4");
                self.problems.push(Problem::new(name, why));
            }
            set.push(format!("collation_connection = {collation}"));
        }
        set.extend(time_zone.map(|zone| format!("time_zone = {}", literal(&zone))));
        let set = format!("SET SESSION {}", set.join(", "));
        self.programs.push(Object::new(ObjectKind::Session, name, set).of_table(table));
        self.programs.push(Object::new(kind, name, sql).of_table(table));
    }
}

/// All users with their rights, as statements; `None` where they may not be read.
pub(super) async fn users(session: &mut MySqlConnection, server: &Server) -> Result<Option<String>, sqlx::Error> {
    let role = if server.mariadb { "is_role = 'Y'" } else { "FALSE" };
    if !server.mariadb {
        // Verifiers of caching_sha2_password hold any byte.
        session.execute(sqlx::raw_sql("SET SESSION print_identified_with_as_hex = ON")).await?;
    }
    let sql = format!("SELECT User, Host, {role} FROM mysql.user ORDER BY 3 DESC, User, Host");
    let rows = match session.fetch_all(sqlx::raw_sql(trusted(sql))).await {
        Ok(rows) => rows,
        Err(e) if matches!(number(&e), Some(1044 | 1142 | 1143)) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let mut out = String::new();
    for row in rows {
        let (user, host): (String, String) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
        let is_role = row.try_get_unchecked::<String, _>(2)? == "1";
        let name = if is_role { literal(&user) } else { format!("{}@{}", literal(&user), literal(&host)) };
        let mut statements = Vec::new();
        if is_role {
            statements.push(format!("CREATE ROLE {name}"));
        } else {
            statements.push(format!("SHOW CREATE USER {name}"));
        }
        statements.push(format!("SHOW GRANTS FOR {name}"));
        for statement in statements {
            if statement.starts_with("CREATE") {
                out.push_str(&format!("{statement};\n"));
                continue;
            }
            let shown = match session.fetch_all(sqlx::raw_sql(trusted(statement))).await {
                Ok(shown) => shown,
                // A user that the server itself does not use, such as one of a host name while it resolves none.
                Err(e) if matches!(number(&e), Some(1133 | 1141)) => {
                    out.push_str(&format!("-- {name} is not shown: {}\n", e.to_string().replace('\n', " ")));
                    continue;
                }
                Err(e) => return Err(e),
            };
            for row in shown {
                out.push_str(&format!("{};\n", row.try_get_unchecked::<String, _>(0)?.replace('\n', " ")));
            }
        }
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::{like, with_character_sets};

    #[test]
    fn a_collation_gets_its_character_set() {
        let shown = "CREATE TABLE `t` (\n  `a``) COLLATE x` varchar(5) COLLATE latin1_german1_ci DEFAULT 'y',\n  `e` enum('a'',) COLLATE z','b') COLLATE utf8mb4_bin,\n  `x` text COLLATE utf8mb3_bin,\n  `c` char(2) CHARACTER SET ascii COLLATE ascii_bin,\n  `d` text DEFAULT ' COLLATE b_c',\n  KEY `k` (`e`)\n) DEFAULT CHARSET=latin1 COLLATE=latin1_german1_ci";
        let made = "CREATE TABLE `t` (\n  `a``) COLLATE x` varchar(5) CHARACTER SET latin1 COLLATE latin1_german1_ci DEFAULT 'y',\n  `e` enum('a'',) COLLATE z','b') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,\n  `x` text CHARACTER SET utf8mb3 COLLATE utf8mb3_bin,\n  `c` char(2) CHARACTER SET ascii COLLATE ascii_bin,\n  `d` text DEFAULT ' COLLATE b_c',\n  KEY `k` (`e`)\n) DEFAULT CHARSET=latin1 COLLATE=latin1_german1_ci";
        assert_eq!(with_character_sets(shown), made);
        assert_eq!(with_character_sets(made), made);
    }

    #[test]
    fn rights_on_patterns_of_databases_are_understood() {
        for (pattern, name, covers) in [
            ("shop", "shop", true),
            ("shop%", "shop_eu", true),
            (r"shop\_eu", "shop_eu", true),
            (r"shop\_eu", "shopXeu", false),
            ("sho_", "shop", true),
            ("%", "x", true),
            ("shop", "shops", false),
        ] {
            assert_eq!(like(pattern.as_bytes(), name.as_bytes()), covers, "{pattern} {name}");
        }
    }
}
