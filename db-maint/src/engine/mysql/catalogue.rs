//! Tables, indexes, foreign keys and counters, from `information_schema`.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Error, Executor, Row};

use crate::activity::Modified;
use crate::capability::{Capabilities, Flavour, IndexUsage};
use crate::ident::{innodb_name, trusted};
use crate::schema::{Counter, ForeignKey, Index, KeyPart, Purpose, Schema, State, Table, TableName};

/// What counts the use of indexes.
pub(super) const PERFORMANCE_SCHEMA: &str = "performance_schema";
pub(super) const USERSTAT: &str = "userstat";

pub(super) async fn read(session: &mut MySqlConnection, capabilities: &Capabilities) -> Result<Schema, Error> {
    Ok(Schema {
        tables: tables(session).await?.0,
        indexes: indexes(session, capabilities).await?,
        foreign_keys: foreign_keys(session).await?,
    })
}

fn name(row: &MySqlRow, at: usize) -> Result<TableName, Error> {
    Ok(TableName::new("", row.try_get_unchecked::<String, _>(at)?))
}

/// Tables, and the next number of each that counts.
async fn tables(session: &mut MySqlConnection) -> Result<(Vec<Table>, HashMap<String, u64>), Error> {
    let sql = "SELECT TABLE_NAME, COALESCE(ENGINE, ''), TABLE_ROWS, DATA_LENGTH, AUTO_INCREMENT FROM information_schema.TABLES \
        WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')";
    let (mut tables, mut next) = (Vec::new(), HashMap::new());
    for row in session.fetch_all(sql).await? {
        let name = name(&row, 0)?;
        if let Some(number) = row.try_get_unchecked::<Option<u64>, _>(4)? {
            next.insert(name.name.clone(), number);
        }
        tables.push(Table {
            name,
            is_part: false,
            engine: row.try_get_unchecked(1)?,
            rows: row.try_get_unchecked(2)?,
            bytes: row.try_get_unchecked(3)?,
        });
    }
    Ok((tables, next))
}

async fn indexes(session: &mut MySqlConnection, capabilities: &Capabilities) -> Result<Vec<Index>, Error> {
    let (expression, visible) = match capabilities.flavour {
        Flavour::MariaDb => ("NULL", "IGNORED = 'NO'"),
        _ => ("CAST(EXPRESSION AS CHAR)", "IS_VISIBLE = 'YES'"),
    };
    let sql = format!(
        "SELECT TABLE_NAME, INDEX_NAME, NON_UNIQUE, INDEX_TYPE, COLUMN_NAME, {expression}, SUB_PART, COALESCE(COLLATION, ''), {visible} \
         FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    );
    let usage = usage(session, capabilities).await?;
    let uncounted = uncounted(session, capabilities).await?;
    let changed = changed(session, capabilities).await?;
    let mut indexes: Vec<Index> = Vec::new();
    for row in session.fetch_all(trusted(sql)).await? {
        let (table, name): (TableName, String) = (name(&row, 0)?, row.try_get_unchecked(1)?);
        let column: Option<String> = row.try_get_unchecked(4)?;
        let expression: Option<String> = row.try_get_unchecked(5)?;
        let is_expression = column.is_none();
        let what = column.or(expression).ok_or_else(|| Error::Protocol(format!("a part of {name} has no name")))?;
        let part = KeyPart {
            is_expression,
            what,
            order: row.try_get_unchecked(7)?,
            prefix: row.try_get_unchecked::<Option<u64>, _>(6)?.and_then(|n| u32::try_from(n).ok()),
        };
        if let Some(last) = indexes.last_mut().filter(|last| last.table == table && last.name == name) {
            last.keys.push(part);
            continue;
        }
        let unique = row.try_get_unchecked::<i64, _>(2)? == 0;
        let method: String = row.try_get_unchecked(3)?;
        // Searches in texts and shapes are counted by nobody.
        let is_counted = matches!(method.as_str(), "BTREE" | "HASH") && !uncounted.contains(&table.name);
        let scans = usage.as_ref().filter(|_| is_counted);
        let scans = scans.map(|u| u.get(&(table.name.clone(), name.clone())).copied().unwrap_or(0));
        indexes.push(Index {
            purpose: if name == "PRIMARY" { Purpose::Primary } else { Purpose::Plain },
            table,
            name,
            method,
            keys: vec![part],
            included: Vec::new(),
            predicate: None,
            unique,
            nulls_equal: false,
            state: State::Valid,
            visible: row.try_get_unchecked::<i64, _>(8)? != 0,
            is_partitioned: false,
            is_part: false,
            bytes: None,
            scans,
            counted_since: changed.get(&row.try_get_unchecked::<String, _>(0)?).copied(),
            definition: None,
        });
    }
    Ok(indexes)
}

/// What changed in each table since its statistics were made; of those that the server has open.
pub(super) async fn modified(
    session: &mut MySqlConnection,
    flavour: Flavour,
    database: &str,
) -> Result<Vec<Modified>, Error> {
    let view = if flavour == Flavour::MariaDb { "INNODB_SYS_TABLESTATS" } else { "INNODB_TABLESTATS" };
    let sql = format!(
        "SELECT CONVERT(NAME USING utf8mb4), NUM_ROWS, MODIFIED_COUNTER FROM information_schema.{view} \
         WHERE STATS_INITIALIZED IN ('Initialized', '1') AND NAME NOT LIKE '%/FTS\\_%'"
    );
    let mut modified = Vec::new();
    for row in session.fetch_all(trusted(sql)).await? {
        let name: String = row.try_get_unchecked(0)?;
        let Some((schema, table)) = innodb_name(&name) else {
            // It may be one of ours.
            if !database.is_ascii() || name.split_once('/').is_some_and(|(schema, _)| schema == database) {
                return Err(Error::Protocol(format!("what InnoDB calls {name} cannot be read")));
            }
            continue;
        };
        if schema == database {
            modified.push(Modified {
                table: TableName::new("", table),
                rows: row.try_get_unchecked(1)?,
                changed: row.try_get_unchecked::<i64, _>(2)?.unsigned_abs(),
            });
        }
    }
    Ok(modified)
}

fn counted_by(capabilities: &Capabilities) -> Option<&str> {
    match &capabilities.index_usage {
        IndexUsage::CountedBy(by) => Some(by),
        _ => None,
    }
}

/// How often each index was used; one that is not there was not. `None` where nothing counts.
async fn usage(
    session: &mut MySqlConnection,
    capabilities: &Capabilities,
) -> Result<Option<HashMap<(String, String), u64>>, Error> {
    let sql = match counted_by(capabilities) {
        Some(PERFORMANCE_SCHEMA) => {
            "SELECT OBJECT_NAME, INDEX_NAME, COUNT_STAR FROM performance_schema.table_io_waits_summary_by_index_usage \
             WHERE OBJECT_SCHEMA = DATABASE() AND INDEX_NAME IS NOT NULL"
        }
        Some(USERSTAT) => {
            "SELECT TABLE_NAME, INDEX_NAME, ROWS_READ FROM information_schema.INDEX_STATISTICS WHERE TABLE_SCHEMA = DATABASE()"
        }
        _ => return Ok(None),
    };
    let mut usage = HashMap::new();
    for row in session.fetch_all(sql).await? {
        let uses: u64 = row.try_get_unchecked(2)?;
        usage.insert((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?), uses);
    }
    Ok(Some(usage))
}

/// The tables whose use is not counted: on MariaDB the partitioned table is asked, and its parts do the work.
async fn uncounted(session: &mut MySqlConnection, capabilities: &Capabilities) -> Result<HashSet<String>, Error> {
    let mut tables = HashSet::new();
    if capabilities.flavour == Flavour::MariaDb && counted_by(capabilities).is_some() {
        let sql = "SELECT DISTINCT TABLE_NAME FROM information_schema.PARTITIONS \
            WHERE TABLE_SCHEMA = DATABASE() AND PARTITION_NAME IS NOT NULL";
        for row in session.fetch_all(sql).await? {
            tables.insert(row.try_get_unchecked(0)?);
        }
    }
    Ok(tables)
}

/// When each table was last made or changed: `performance_schema` begins to count its indexes anew then.
async fn changed(
    session: &mut MySqlConnection,
    capabilities: &Capabilities,
) -> Result<HashMap<String, DateTime<Utc>>, Error> {
    let sql = "SELECT TABLE_NAME, GREATEST(TIMESTAMPDIFF(SECOND, CREATE_TIME, NOW()), 0) FROM information_schema.TABLES \
        WHERE TABLE_SCHEMA = DATABASE() AND CREATE_TIME IS NOT NULL";
    let mut changed = HashMap::new();
    for row in session.fetch_all(sql).await? {
        let age = TimeDelta::seconds(row.try_get_unchecked(1)?);
        changed.insert(row.try_get_unchecked(0)?, capabilities.server_time - age);
    }
    Ok(changed)
}

async fn foreign_keys(session: &mut MySqlConnection) -> Result<Vec<ForeignKey>, Error> {
    let sql = "SELECT TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME, \
          CASE WHEN REFERENCED_TABLE_SCHEMA = DATABASE() THEN '' ELSE REFERENCED_TABLE_SCHEMA END FROM information_schema.KEY_COLUMN_USAGE \
        WHERE TABLE_SCHEMA = DATABASE() AND REFERENCED_TABLE_NAME IS NOT NULL ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION";
    let mut keys: Vec<ForeignKey> = Vec::new();
    for row in session.fetch_all(sql).await? {
        let (table, constraint): (TableName, String) = (name(&row, 0)?, row.try_get_unchecked(1)?);
        let (column, to_column): (String, String) = (row.try_get_unchecked(2)?, row.try_get_unchecked(4)?);
        if let Some(last) = keys.last_mut().filter(|last| last.table == table && last.name == constraint) {
            last.columns.push(column);
            last.to_columns.push(to_column);
            continue;
        }
        keys.push(ForeignKey {
            name: constraint,
            table,
            columns: vec![column],
            to: TableName::new(row.try_get_unchecked::<String, _>(5)?, row.try_get_unchecked::<String, _>(3)?),
            to_columns: vec![to_column],
            // Rows may have come in while nobody checked: foreign_key_checks = 0.
            validated: false,
        });
    }
    Ok(keys)
}

pub(super) async fn counters(session: &mut MySqlConnection) -> Result<Vec<Counter>, Error> {
    let next = tables(session).await?.1;
    let sql = "SELECT TABLE_NAME, COLUMN_NAME, CAST(COLUMN_TYPE AS CHAR) FROM information_schema.COLUMNS \
        WHERE TABLE_SCHEMA = DATABASE() AND EXTRA LIKE '%auto_increment%'";
    let mut counters = Vec::new();
    for row in session.fetch_all(sql).await? {
        let (table, column): (String, String) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
        let kind: String = row.try_get_unchecked(2)?;
        let Some(limit) = largest(&kind) else { continue };
        counters.push(Counter {
            object: format!("{table}.{column}"),
            last: next.get(&table).map(|next| i128::from(*next) - 1),
            limit,
            limited_by: kind,
            cycles: false,
        });
    }
    Ok(counters)
}

/// The largest number of an integer type, as the server writes the type.
fn largest(kind: &str) -> Option<i128> {
    let bits = match kind.split(|c: char| !c.is_ascii_alphanumeric()).next()? {
        "tinyint" => 8,
        "smallint" => 16,
        "mediumint" => 24,
        "int" => 32,
        "bigint" => 64,
        _ => return None,
    };
    let bits = if kind.contains("unsigned") { bits } else { bits - 1 };
    Some((1i128 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_end_where_they_do() {
        assert_eq!(largest("int(11)"), Some(2_147_483_647));
        assert_eq!(largest("int unsigned"), Some(4_294_967_295));
        assert_eq!(largest("mediumint(8) unsigned"), Some(16_777_215));
        assert_eq!(largest("bigint unsigned"), Some(u64::MAX.into()));
        assert_eq!(largest("tinyint"), Some(127));
        assert_eq!(largest("double"), None);
    }
}
