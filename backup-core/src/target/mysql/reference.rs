//! Foreign keys, and the rows that do not hold them.

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use crate::error::{Error, ErrorKind, Result};
use crate::mysql::{Database, identifier, literal};
use crate::sql::trusted;
use crate::target::Orphans;

/// A foreign key.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) from: String,
    pub(super) to: String,
    /// Columns of both, as SQL.
    columns: Vec<(String, String)>,
}

impl Reference {
    fn lost(&self) -> String {
        let on: Vec<String> = self.columns.iter().map(|(a, b)| format!("f.{a} = t.{b}")).collect();
        let set: Vec<String> = self.columns.iter().map(|(a, _)| format!("f.{a} IS NOT NULL")).collect();
        let (set, on) = (set.join(" AND "), on.join(" AND "));
        format!("FROM {} f WHERE {set} AND NOT EXISTS (SELECT 1 FROM {} t WHERE {on})", self.from, self.to)
    }

    /// How many rows refer to nothing.
    pub(super) async fn broken(&self, database: &Database, session: &mut MySqlConnection, how: &str) -> Result<u64> {
        let sql = format!("SELECT CAST(COUNT(*) AS CHAR) {}{how}", self.lost());
        let failed = |e| database.failed(&format!("could not check the foreign key {}", self.name), e);
        let row = session.fetch_one(sqlx::raw_sql(trusted(sql))).await.map_err(failed)?;
        let count: String = row.try_get_unchecked(0).map_err(failed)?;
        count.parse().map_err(|e| Error::new(ErrorKind::Target, format!("{count:?} is no number")).with_source(e))
    }
}

/// The foreign keys for which `which`, given the database's name as SQL, is true.
pub(super) async fn references(
    database: &Database,
    session: &mut MySqlConnection,
    which: impl FnOnce(&str) -> String,
) -> Result<Vec<Reference>> {
    let failed = |e| database.failed("could not be read", e);
    let sql = format!(
        "SELECT CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME \
         FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_NAME IS NOT NULL AND {} \
         ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION",
        which(&literal(database.name()))
    );
    let mut references: Vec<Reference> = Vec::new();
    for row in session.fetch_all(sqlx::raw_sql(trusted(sql))).await.map_err(failed)? {
        let text = |at: usize| row.try_get_unchecked::<String, _>(at).map_err(failed);
        let from = format!("{}.{}", identifier(&text(1)?), identifier(&text(2)?));
        let to = format!("{}.{}", identifier(&text(4)?), identifier(&text(5)?));
        let (name, columns) = (text(0)?, (identifier(&text(3)?), identifier(&text(6)?)));
        match references.last_mut().filter(|r| r.name == name && r.from == from) {
            Some(reference) => reference.columns.push(columns),
            None => references.push(Reference { name, from, to, columns: vec![columns] }),
        }
    }
    Ok(references)
}

/// The rows of the database whose foreign keys do not hold.
pub(super) async fn orphans(database: &Database, session: &mut MySqlConnection) -> Result<Vec<Orphans>> {
    let mut all = Vec::new();
    for reference in references(database, session, |schema| format!("TABLE_SCHEMA = {schema}")).await? {
        let rows = reference.broken(database, session, "").await?;
        if rows == 0 {
            continue;
        }
        let failed = |e| database.failed(&format!("could not check the foreign key {}", reference.name), e);
        let (ours, theirs): (Vec<_>, Vec<_>) = reference.columns.iter().cloned().unzip();
        let shown: Vec<String> = ours.iter().map(|c| format!("CAST(f.{c} AS CHAR)")).collect();
        let sql =
            format!("SELECT DISTINCT CONCAT_WS(', ', {}) {} ORDER BY 1 LIMIT 10", shown.join(", "), reference.lost());
        let found = session.fetch_all(sqlx::raw_sql(trusted(sql))).await.map_err(failed)?;
        let first =
            found.iter().map(|row| row.try_get_unchecked(0)).collect::<Result<_, sqlx::Error>>().map_err(failed)?;
        let text = format!("{} ({}) to {} ({})", reference.name, ours.join(", "), reference.to, theirs.join(", "));
        all.push(Orphans { table: reference.from.clone(), reference: text, rows, first });
    }
    Ok(all)
}
