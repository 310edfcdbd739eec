//! What vacuum did, what it waits for, and how old the oldest transaction ids are.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{Error, Row};

use super::natural;
use crate::activity::{Holder, Vacuum, Vacuums};
use crate::capability::{Capabilities, IndexUsage, NodeRole};
use crate::ident::trusted;
use crate::schema::TableName;

pub(super) async fn read(
    session: &mut PgConnection,
    capabilities: &Capabilities,
    now: DateTime<Utc>,
) -> Result<Vacuums, Error> {
    let sql = "SELECT current_setting('autovacuum_freeze_max_age')::int8, current_setting('autovacuum_multixact_freeze_max_age')::int8";
    let row = sqlx::query(sql).persistent(false).fetch_one(&mut *session).await?;
    let mut databases = Vec::new();
    let sql = "SELECT datname::text, age(datfrozenxid)::int8, mxid_age(datminmxid)::int8 FROM pg_database";
    for row in sqlx::query(sql).persistent(false).fetch_all(&mut *session).await? {
        databases.push((row.try_get(0)?, natural(row.try_get(1)?), natural(row.try_get(2)?)));
    }
    let uncounted = match (capabilities.role, &capabilities.index_usage) {
        (NodeRole::Replica, _) => Some("a standby does not count rows that die or change: ask the primary".to_owned()),
        (_, IndexUsage::NotCounted(why)) => Some(why.clone()),
        _ => None,
    };
    Ok(Vacuums {
        uncounted,
        freeze_max_age: natural(row.try_get(0)?),
        multixact_freeze_max_age: natural(row.try_get(1)?),
        databases,
        tables: tables(session, capabilities, now).await?,
        holders: holders(session).await?,
        holders_hidden: !capabilities.sees_sessions,
    })
}

/// A setting of the table's own, or the server's.
fn setting(name: &str) -> String {
    format!(
        "COALESCE((SELECT o.option_value::float8 FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = '{name}'), \
         current_setting('{name}', true)::float8)"
    )
}

async fn tables(
    session: &mut PgConnection,
    capabilities: &Capabilities,
    now: DateTime<Utc>,
) -> Result<Vec<Vacuum>, Error> {
    let sql = format!(
        "SELECT s.schemaname::text AS schema, s.relname::text AS name, s.n_live_tup AS live, s.n_dead_tup AS dead, s.n_mod_since_analyze AS changed, c.reltuples::float8 AS rows, \
           {} AS threshold, {} AS scale, {} AS most, {} AS analyze_threshold, {} AS analyze_scale, \
           current_setting('autovacuum')::bool AND COALESCE((SELECT o.option_value::bool FROM pg_options_to_table(c.reloptions) o \
             WHERE o.option_name = 'autovacuum_enabled'), true) AS enabled, \
           GREATEST(s.last_vacuum, s.last_autovacuum) AS vacuumed, GREATEST(s.last_analyze, s.last_autoanalyze) AS analyzed, \
           GREATEST(age(c.relfrozenxid), age(t.relfrozenxid))::int8 AS xid_age, \
           GREATEST(mxid_age(c.relminmxid), mxid_age(t.relminmxid))::int8 AS mxid_age \
         FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid LEFT JOIN pg_class t ON t.oid = c.reltoastrelid \
         WHERE c.relkind IN ('r', 'm') AND s.schemaname !~ '^pg_'",
        setting("autovacuum_vacuum_threshold"),
        setting("autovacuum_vacuum_scale_factor"),
        setting("autovacuum_vacuum_max_threshold"),
        setting("autovacuum_analyze_threshold"),
        setting("autovacuum_analyze_scale_factor"),
    );
    let mut tables = Vec::new();
    for row in sqlx::query(trusted(sql)).persistent(false).fetch_all(session).await? {
        let number = |name: &str| row.try_get::<Option<f64>, _>(name);
        let rows = row.try_get::<f64, _>("rows")?;
        let known = rows.max(0.0);
        let trigger = number("threshold")?.unwrap_or(50.0) + number("scale")?.unwrap_or(0.2) * known;
        // From 18 on there is an upper end; below zero it is off.
        let most = number("most")?.filter(|most| *most >= 0.0);
        let since = |name: &str| -> Result<Option<TimeDelta>, Error> {
            Ok(row.try_get::<Option<DateTime<Utc>>, _>(name)?.map(|then| now - then))
        };
        // What the counters forgot, the catalogue still shows: it was analysed before they began.
        let before =
            || (rows >= 0.0).then(|| capabilities.counting_since.map_or(TimeDelta::days(1), |since| now - since));
        tables.push(Vacuum {
            table: TableName::new(row.try_get::<String, _>("schema")?, row.try_get::<String, _>("name")?),
            live: natural(row.try_get("live")?),
            dead: natural(row.try_get("dead")?),
            changed: natural(row.try_get("changed")?),
            trigger: most.map_or(trigger, |most| trigger.min(most)),
            enabled: row.try_get("enabled")?,
            since_vacuum: since("vacuumed")?,
            analyze_trigger: number("analyze_threshold")?.unwrap_or(50.0)
                + number("analyze_scale")?.unwrap_or(0.1) * known,
            since_analyze: since("analyzed")?.or_else(before),
            xid_age: natural(row.try_get::<Option<i64>, _>("xid_age")?.unwrap_or(0)),
            mxid_age: natural(row.try_get::<Option<i64>, _>("mxid_age")?.unwrap_or(0)),
        });
    }
    Ok(tables)
}

async fn holders(session: &mut PgConnection) -> Result<Vec<Holder>, Error> {
    let sql = "SELECT 'session of ' || concat_ws(' ', usename, NULLIF(application_name, '')), \
          GREATEST(age(backend_xmin), age(backend_xid))::int8 FROM pg_stat_activity \
          WHERE pid <> pg_backend_pid() AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) \
          AND (datname = current_database() OR backend_type = 'walsender') AND backend_type <> 'autovacuum worker' \
          AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum) \
        UNION ALL SELECT 'prepared transaction ' || gid, age(transaction)::int8 FROM pg_prepared_xacts \
          WHERE database = current_database() \
        UNION ALL SELECT 'replication slot ' || slot_name, age(xmin)::int8 FROM pg_replication_slots WHERE xmin IS NOT NULL \
        UNION ALL SELECT 'replication slot ' || slot_name || ' (the catalogue alone)', age(catalog_xmin)::int8 \
          FROM pg_replication_slots WHERE catalog_xmin IS NOT NULL";
    let mut holders = Vec::new();
    for row in sqlx::query(sql).persistent(false).fetch_all(session).await? {
        holders.push(Holder { what: row.try_get(0)?, age: natural(row.try_get(1)?) });
    }
    Ok(holders)
}
