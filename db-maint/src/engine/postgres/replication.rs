//! What follows this server, what keeps its log, and what it follows.

use chrono::TimeDelta;
use sqlx::postgres::PgConnection;
use sqlx::{Error, Row};

use super::{natural, seconds};
use crate::activity::{Follower, Replication, Slot, Upstream};
use crate::capability::NodeRole;

pub(super) async fn read(session: &mut PgConnection, role: NodeRole) -> Result<Replication, Error> {
    let mut seen = Replication::default();
    // Where all has been applied for a while the lag is not told any more. What only keeps the log applies nothing.
    let sql = "SELECT COALESCE(NULLIF(application_name, ''), host(client_addr), 'a replica'), state, \
          CASE WHEN COALESCE(replay_lsn, flush_lsn) >= CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END \
            THEN 0 ELSE EXTRACT(EPOCH FROM COALESCE(replay_lag, flush_lag))::float8 END \
        FROM pg_stat_replication WHERE state IS DISTINCT FROM 'backup'";
    for row in sqlx::query(sql).persistent(false).fetch_all(&mut *session).await? {
        let lag: Option<f64> = row.try_get(2)?;
        seen.followers.push(Follower { name: row.try_get(0)?, lag: lag.map(seconds), state: row.try_get(1)? });
    }
    // A standby that is in step with its primary's slots has copies of them that nobody reads.
    let sql = "SELECT slot_name::text, active, COALESCE(wal_status = 'lost', false), \
          COALESCE(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::int8 \
        FROM pg_replication_slots s WHERE NOT temporary AND NOT COALESCE((to_jsonb(s) ->> 'synced')::bool, false)";
    for row in sqlx::query(sql).persistent(false).fetch_all(&mut *session).await? {
        let (name, is_active, is_lost) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        seen.slots.push(Slot { name, is_active, is_lost, kept_bytes: natural(row.try_get(3)?) });
    }
    if role == NodeRole::Replica {
        seen.upstreams.push(upstream(session).await?);
    }
    Ok(seen)
}

async fn upstream(session: &mut PgConnection) -> Result<Upstream, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver), \
          CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 \
            ELSE EXTRACT(EPOCH FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END, \
          (SELECT setting::float8 FROM pg_settings WHERE name = 'recovery_min_apply_delay'), \
          (SELECT setting = '' FROM pg_settings WHERE name = 'primary_conninfo')";
    let row = sqlx::query(sql).persistent(false).fetch_one(session).await?;
    let is_connected: bool = row.try_get(0)?;
    // One that was told of no primary follows an archive; not everybody may ask.
    let of_archive = row.try_get::<Option<bool>, _>(3)?.unwrap_or(false);
    let broken = (!is_connected && !of_archive).then(|| "it has no connection to its primary".to_owned());
    Ok(Upstream {
        name: "its primary".into(),
        broken,
        lag: row.try_get::<Option<f64>, _>(1)?.map(seconds),
        wanted: TimeDelta::milliseconds(row.try_get::<Option<f64>, _>(2)?.unwrap_or(0.0) as i64),
    })
}
