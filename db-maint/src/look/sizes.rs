//! How large the database and its tables are.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{group, number, odd, text};
use crate::activity::{Seen, Unseen};
use crate::capability::Flavour;
use crate::error::Result;
use crate::ident::innodb_name;
use crate::schema::TableName;
use crate::session::{Session, Value};

/// A SQLite file is read as a whole to see which table fills it: one that is no larger, in WAL mode, where nobody waits for it.
const READ: u64 = 256 << 20;
/// So many tables at most.
const MOST: usize = 20_000;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// All of the database, on the server's disk.
    pub(crate) database: u64,
    pub(crate) tables: Vec<Size>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) table: TableName,
    /// An estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<u64>,
    /// In bytes, with what lies outside of the rows, without indexes.
    pub(crate) data: u64,
    /// Its indexes, in bytes; nought where they cannot be told from the data.
    pub(crate) indexes: u64,
    /// What its own file holds and nothing uses, in bytes (InnoDB). `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) free: Option<u64>,
}

impl Size {
    pub(crate) fn total(&self) -> u64 {
        self.data.saturating_add(self.indexes)
    }
}

impl Sizes {
    pub(crate) fn keep_largest(&mut self, count: usize) {
        self.tables.sort_by_key(|t| std::cmp::Reverse(t.total()));
        self.tables.truncate(count);
    }

    pub(crate) fn of(&self, table: &TableName) -> Option<&Size> {
        self.tables.iter().find(|t| t.table == *table)
    }
}

pub(super) async fn read(session: &mut Session) -> Result<Seen<Sizes>> {
    let seen = match session.flavour() {
        Flavour::Postgres => postgres(session).await?,
        Flavour::Mysql | Flavour::MariaDb => mysql(session).await?,
        Flavour::Sqlite => sqlite(session).await?,
    };
    Ok(seen.map(|mut sizes| {
        sizes.keep_largest(MOST);
        sizes
    }))
}

/// From the files themselves; where somebody holds a table, or waits to, from what the last vacuum wrote down.
async fn postgres(session: &mut Session) -> Result<Seen<Sizes>> {
    let remedy = "try again; nothing else is needed than the right to connect";
    let whole = group(session, "SELECT pg_database_size(current_database())::text", &[], remedy).await?;
    let sql = format!(
        "WITH held AS MATERIALIZED (SELECT DISTINCT COALESCE(i.indrelid, l.relation) AS relation FROM pg_locks l \
             LEFT JOIN pg_index i ON i.indexrelid = l.relation WHERE l.mode = 'AccessExclusiveLock' AND l.relation IS NOT NULL \
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) \
         SELECT n.nspname::text, c.relname::text, CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8::text END, \
           CASE WHEN h.relation IS NULL THEN pg_table_size(c.oid) ELSE c.relpages::int8 * current_setting('block_size')::int8 END::text, \
           CASE WHEN h.relation IS NULL THEN pg_indexes_size(c.oid) ELSE 0 END::text, NULL::text \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN held h ON h.relation = c.oid \
         WHERE c.relkind IN ('r', 'm') AND {}",
        crate::table::POSTGRES_OURS
    );
    let tables = group(session, &sql, &[], remedy).await?;
    Ok(whole.and_then(|whole| {
        let database = whole.first().and_then(|row| number(row, 0)).ok_or_else(|| odd("its size"))?;
        Ok(Sizes { database, tables: sizes(&tables?)? })
    }))
}

async fn mysql(session: &mut Session) -> Result<Seen<Sizes>> {
    let flavour = session.flavour();
    if flavour == Flavour::Mysql {
        // It would tell sizes of yesterday.
        let fresh = session.plain("SET SESSION information_schema_stats_expiry = 0").await;
        fresh.map_err(|e| session.error("does not take a setting", e))?;
    }
    let sql = "SELECT '', CONVERT(TABLE_NAME USING utf8mb4), CAST(TABLE_ROWS AS CHAR), CAST(COALESCE(DATA_LENGTH, 0) AS CHAR), \
          CAST(COALESCE(INDEX_LENGTH, 0) AS CHAR), CASE WHEN ENGINE = 'InnoDB' THEN CAST(DATA_FREE AS CHAR) END \
        FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')";
    let tables = group(session, sql, &[], "GRANT SELECT on the database to this user").await?;
    // Tables that share a file all show what is free in all of it.
    let shared = match flavour {
        Flavour::MariaDb => {
            "SELECT CONVERT(NAME USING utf8mb4) FROM information_schema.INNODB_SYS_TABLES WHERE SPACE = 0"
        }
        _ => "SELECT CONVERT(NAME USING utf8mb4) FROM information_schema.INNODB_TABLES WHERE SPACE_TYPE <> 'Single'",
    };
    let shared = group(session, shared, &[], "GRANT PROCESS ON *.* to this user").await?;
    // What the tables were when somebody counted last, the files are now; whoever may not see them has the former.
    let files = match flavour {
        Flavour::MariaDb => {
            "SELECT CONVERT(NAME USING utf8mb4), CAST(FILE_SIZE AS CHAR) FROM information_schema.INNODB_SYS_TABLESPACES"
        }
        _ => "SELECT CONVERT(NAME USING utf8mb4), CAST(FILE_SIZE AS CHAR) FROM information_schema.INNODB_TABLESPACES",
    };
    let files = group(session, files, &[], "GRANT PROCESS ON *.* to this user").await?;
    let here = session.one("SELECT CONVERT(DATABASE() USING utf8mb4)", &[]).await;
    let here = here.map_err(|e| session.error("does not say which database this is", e))?;
    Ok(tables.and_then(|tables| {
        let mut tables = sizes(&tables)?;
        let ours = |row: &Vec<Value>| {
            let (schema, table) = innodb_name(&text(row, 0)?)?;
            (Some(schema) == here).then_some(table)
        };
        let mut on_disk: HashMap<String, u64> = HashMap::new();
        for row in files.iter().flatten() {
            if let (Some(table), Some(bytes)) = (ours(row), number::<u64>(row, 1)) {
                *on_disk.entry(table).or_default() += bytes;
            }
        }
        for table in &mut tables {
            if let Some(file) = on_disk.get(&table.table.name) {
                table.indexes = table.indexes.min(*file);
                table.data = file.saturating_sub(table.indexes).saturating_sub(table.free.unwrap_or(0));
            }
        }
        let sharing: Option<Vec<String>> = shared.as_ref().ok().map(|rows| rows.iter().filter_map(ours).collect());
        // One whose name cannot be read may be any that is not written plainly.
        let has_odd = shared
            .iter()
            .flatten()
            .any(|row| text(row, 0).is_some_and(|name| name.contains('@') && innodb_name(&name).is_none()));
        for table in &mut tables {
            let name = &table.table.name;
            let is_plain = !has_odd || name.is_ascii();
            let is_known = is_plain && sharing.as_ref().is_some_and(|sharing| !sharing.contains(name));
            table.free = table.free.filter(|_| is_known);
        }
        Ok(Sizes { database: tables.iter().map(|t| t.total() + t.free.unwrap_or(0)).sum(), tables })
    }))
}

async fn sqlite(session: &mut Session) -> Result<Seen<Sizes>> {
    let sql = "SELECT CAST(c.page_count * s.page_size AS TEXT), m.journal_mode FROM pragma_page_count c, pragma_page_size s, pragma_journal_mode m";
    let whole = group(session, sql, &[], "check the file").await?;
    let whole = match whole {
        Ok(rows) => rows,
        Err(unseen) => return Ok(Err(unseen)),
    };
    let Some(row) = whole.first() else { return Ok(Err(odd("its size"))) };
    let Some(database) = number(row, 0) else { return Ok(Err(odd("its size"))) };
    let mut tables = Vec::new();
    if database <= READ && text(row, 1).as_deref() == Some("wal") {
        let sql = "SELECT '', s.tbl_name, NULL, CAST(SUM(CASE WHEN s.type = 'table' THEN d.pgsize ELSE 0 END) AS TEXT), \
              CAST(SUM(CASE WHEN s.type = 'index' THEN d.pgsize ELSE 0 END) AS TEXT), NULL \
            FROM dbstat d JOIN sqlite_schema s ON s.name = d.name WHERE d.aggregate = 1 GROUP BY s.tbl_name";
        // A build without that table shows the whole alone.
        if let Ok(rows) = group(session, sql, &[], "check the file").await? {
            match sizes(&rows) {
                Ok(read) => tables = read,
                Err(unseen) => return Ok(Err(unseen)),
            }
        }
    }
    Ok(Ok(Sizes { database, tables }))
}

fn sizes(rows: &[Vec<Value>]) -> Seen<Vec<Size>> {
    let size = |row: &Vec<Value>| {
        Some(Size {
            table: TableName::new(text(row, 0)?, text(row, 1)?),
            rows: number(row, 2),
            data: number(row, 3)?,
            indexes: number(row, 4)?,
            free: number(row, 5),
        })
    };
    rows.iter().map(|row| size(row).ok_or_else(|| odd("the size of a table"))).collect::<Result<_, Unseen>>()
}
