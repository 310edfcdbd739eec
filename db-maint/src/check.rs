//! The judges: pure functions from what was read to an [`Outcome`](crate::Outcome), one file each.
//!
//! Each states what it needs, what it finds and what it rightly leaves alone. None of them knows an engine's SQL.

pub(crate) mod bloat;
pub(crate) mod cache_hits;
pub(crate) mod connections;
pub(crate) mod counter_exhaustion;
pub(crate) mod dead_rows;
pub(crate) mod foreign_key_unindexed;
pub(crate) mod foreign_key_violated;
pub(crate) mod index_duplicate;
pub(crate) mod index_invalid;
pub(crate) mod index_redundant;
pub(crate) mod index_unused;
pub(crate) mod replication_lag;
pub(crate) mod sessions;
pub(crate) mod slow_queries;
pub(crate) mod sqlite;
pub(crate) mod statistics_stale;
pub(crate) mod table_free_space;
pub(crate) mod table_not_transactional;
pub(crate) mod table_without_primary_key;
pub(crate) mod wraparound;

/// The statement that removes an index. Names are quoted as the engine does.
pub(crate) fn drop_index(flavour: crate::Flavour, index: &crate::schema::Index) -> String {
    use crate::Flavour::{MariaDb, Mysql, Postgres, Sqlite};
    use crate::ident::quoted;
    let (table, name) = (quoted(flavour, &index.table.name), quoted(flavour, &index.name));
    match flavour {
        Postgres => format!("DROP INDEX CONCURRENTLY {}.{name}", quoted(flavour, &index.table.schema)),
        Mysql => format!("ALTER TABLE {table} ALTER INDEX {name} INVISIBLE; later: DROP INDEX {name} ON {table}"),
        MariaDb => format!("ALTER TABLE {table} ALTER INDEX {name} IGNORED; later: DROP INDEX {name} ON {table}"),
        Sqlite => format!("DROP INDEX {name}"),
    }
}
