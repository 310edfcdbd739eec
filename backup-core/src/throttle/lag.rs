//! How far replicas are behind.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::Throttle;
use crate::error::{Error, ErrorKind, Result};

/// Pauses reading while a replica is further behind than it may be.
///
/// **PostgreSQL**: the URL is that of the primary, which knows all of its standbys, or of one standby. On a primary a
/// standby lags by more than `limit` where it has not replayed what was written `limit` ago; for that the role needs
/// `pg_monitor`. A standby lags where it has not replayed what arrived `limit` ago, or where its last transaction is older and
/// more has arrived.
///
/// **MySQL and MariaDB**: the URL is that of a replica, since a primary does not know how far its replicas are. The lag is
/// what `SHOW REPLICA STATUS` calls seconds behind the source; the user needs `REPLICATION CLIENT` (MariaDB: `REPLICA
/// MONITOR`).
///
/// Replication that has stopped, or no standby at all, is no lag: waiting would mend neither.
pub struct ReplicationLag {
    limit: Duration,
    server: Server,
}

enum Server {
    #[cfg(feature = "postgres")]
    Postgres(crate::postgres::Database, Mutex<PostgresView>),
    #[cfg(feature = "mysql")]
    Mysql(crate::mysql::Database, Mutex<Option<sqlx::mysql::MySqlConnection>>),
}

impl ReplicationLag {
    /// Of the server of a `postgres://`, `mysql://` or `mariadb://` URL; over one connection, kept open.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the URL makes no sense.
    pub fn new(url: &str, limit: Duration) -> Result<Self> {
        let scheme = url.split(':').next().unwrap_or(url);
        let server = match scheme {
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Server::Postgres(
                crate::postgres::Database::parse(url, crate::postgres::Side::Source)?,
                Mutex::default(),
            ),
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => {
                Server::Mysql(crate::mysql::Database::parse(url, crate::mysql::Side::Source)?, Mutex::default())
            }
            _ => {
                return Err(Error::new(ErrorKind::Config, format!("{scheme}:… is no server that has replicas"))
                    .with_next_step("name the server by a postgres:// or mysql:// URL"));
            }
        };
        Ok(Self { limit, server })
    }
}

impl fmt::Debug for ReplicationLag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = match &self.server {
            #[cfg(feature = "postgres")]
            Server::Postgres(database, _) => database.location(),
            #[cfg(feature = "mysql")]
            Server::Mysql(database, _) => database.location(),
        };
        write!(f, "ReplicationLag({location}, {:?})", self.limit)
    }
}

#[async_trait]
impl Throttle for ReplicationLag {
    async fn pause(&self) -> Result<Option<String>> {
        match &self.server {
            #[cfg(feature = "postgres")]
            Server::Postgres(database, view) => {
                let mut view = view.lock().await;
                let answer = view.look(database, self.limit).await;
                if answer.is_err() {
                    view.session = None;
                }
                answer
            }
            #[cfg(feature = "mysql")]
            Server::Mysql(database, session) => {
                let mut session = session.lock().await;
                let answer = seconds_behind(database, &mut session).await;
                if answer.is_err() {
                    *session = None;
                }
                let behind = answer?.map(Duration::from_secs).filter(|behind| *behind > self.limit);
                Ok(behind.map(|behind| format!("{} is {} s behind", database.location(), behind.as_secs())))
            }
        }
    }
}

/// What is known of a PostgreSQL server.
#[cfg(feature = "postgres")]
#[derive(Default)]
struct PostgresView {
    session: Option<sqlx::PgConnection>,
    written: Written,
}

#[cfg(feature = "postgres")]
impl PostgresView {
    async fn look(&mut self, database: &crate::postgres::Database, limit: Duration) -> Result<Option<String>> {
        use sqlx::Row;
        let failed = |e| database.failed("does not say how far its replicas are", e);
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(database.connect().await?),
        };
        let seconds = |n: f64| Duration::try_from_secs_f64(n.max(0.0)).unwrap_or(Duration::MAX);
        let rows = sqlx::query(REPLICAS).fetch_all(&mut *session).await.map_err(failed)?;
        let mut position = None;
        let mut worst = None;
        for row in &rows {
            let name: Option<String> = row.try_get("name").map_err(failed)?;
            let hidden: bool = row.try_get("hidden").map_err(failed)?;
            if hidden {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("{}: this role may not see how far the replicas are", database.location()),
                )
                .with_next_step("GRANT pg_monitor to it"));
            }
            position = row.try_get::<Option<i64>, _>("written").map_err(failed)?;
            let replayed: Option<i64> = row.try_get("replayed").map_err(failed)?;
            let measured: Option<f64> = row.try_get("lag").map_err(failed)?;
            let behind = replayed.and_then(|replayed| self.written.age_of(replayed, Instant::now()));
            let behind = behind.max(measured.map(seconds));
            worst = worst.max(behind.filter(|behind| *behind > limit).map(|behind| (behind, name)));
        }
        if let Some(position) = position {
            self.written.note(position, Instant::now(), limit);
        }
        Ok(worst.map(|(behind, name)| {
            let who = name.map_or_else(|| database.location(), |name| format!("the replica {name}"));
            format!("{who} is {:.0} s behind", behind.as_secs_f64())
        }))
    }
}

/// The standbys of a primary, or the standby itself. Positions are bytes of the log; a role without the right sees rows of
/// which all is NULL. A standby that has replayed no transaction yet knows no time.
#[cfg(feature = "postgres")]
const REPLICAS: &str = "SELECT COALESCE(application_name, '') AS name, state IS NULL AS hidden, \
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::pg_catalog.int8 AS written, \
    pg_catalog.pg_wal_lsn_diff(replay_lsn, '0/0')::pg_catalog.int8 AS replayed, \
    EXTRACT(EPOCH FROM replay_lag)::pg_catalog.float8 AS lag \
    FROM pg_catalog.pg_stat_replication \
    WHERE NOT pg_catalog.pg_is_in_recovery() AND (state IS NULL OR state IN ('streaming', 'catchup')) \
    UNION ALL SELECT NULL, false, pg_catalog.pg_wal_lsn_diff(received, '0/0')::pg_catalog.int8, \
    pg_catalog.pg_wal_lsn_diff(replayed, '0/0')::pg_catalog.int8, CASE WHEN received OPERATOR(pg_catalog.<>) replayed THEN \
    EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp()) END::pg_catalog.float8 \
    FROM (SELECT pg_catalog.pg_last_wal_receive_lsn() AS received, pg_catalog.pg_last_wal_replay_lsn() AS replayed) own \
    WHERE pg_catalog.pg_is_in_recovery()";

/// How far the log was, and when.
#[cfg(feature = "postgres")]
#[derive(Debug, Default)]
struct Written(VecDeque<(Instant, i64)>);

#[cfg(feature = "postgres")]
impl Written {
    fn note(&mut self, position: i64, now: Instant, limit: Duration) {
        if self.0.back().is_none_or(|(_, last)| *last != position) {
            self.0.push_back((now, position));
        }
        // What is older says no more than one that is just old enough.
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) > limit.saturating_mul(4)) {
            self.0.pop_front();
        }
    }

    /// How long ago the first thing was written that is not replayed yet, as far as it was seen.
    fn age_of(&self, replayed: i64, now: Instant) -> Option<Duration> {
        let first = self.0.iter().find(|(_, position)| *position > replayed)?;
        Some(now.duration_since(first.0))
    }
}

/// How far this replica is behind; `None` where its replication is stopped.
#[cfg(feature = "mysql")]
async fn seconds_behind(
    database: &crate::mysql::Database,
    session: &mut Option<sqlx::mysql::MySqlConnection>,
) -> Result<Option<u64>> {
    use sqlx::{Executor, Row};
    let session = match session {
        Some(session) => session,
        none => none.insert(database.connect().await?),
    };
    let failed = |e| database.failed("does not say how far behind it is", e);
    let mut rows = session.fetch_all(sqlx::raw_sql("SHOW REPLICA STATUS")).await;
    // Before MySQL 8.0.22 and MariaDB 10.5.
    if matches!(&rows, Err(sqlx::Error::Database(_))) {
        rows = session.fetch_all(sqlx::raw_sql("SHOW SLAVE STATUS")).await;
    }
    let rows = rows.map_err(failed)?;
    if rows.is_empty() {
        return Err(Error::new(ErrorKind::Config, format!("{} is not a replica", database.location()))
            .with_next_step("name the replica itself: a primary does not know how far its replicas are"));
    }
    let mut worst = None;
    for row in &rows {
        let behind = match row.try_get::<Option<u64>, _>("Seconds_Behind_Source") {
            Err(sqlx::Error::ColumnNotFound(_)) => row.try_get::<Option<u64>, _>("Seconds_Behind_Master"),
            other => other,
        };
        worst = worst.max(behind.map_err(failed)?);
    }
    Ok(worst)
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_first_thing_that_is_not_replayed() {
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let mut written = Written::default();
        for (second, position) in [(0, 100), (1, 100), (2, 300), (3, 400), (4, 400)] {
            written.note(position, at(second), Duration::from_secs(10));
        }
        let age = |replayed| written.age_of(replayed, at(10)).map(|age| age.as_secs());
        assert_eq!([age(50), age(100), age(299), age(300), age(400)], [Some(10), Some(8), Some(8), Some(7), None]);
    }

    #[test]
    fn what_is_kept_of_it_is_bounded() {
        let begin = Instant::now();
        let mut written = Written::default();
        for second in 0..1000 {
            written.note(second, begin + Duration::from_secs(second.unsigned_abs()), Duration::from_secs(5));
        }
        assert!(written.0.len() <= 22, "{}", written.0.len());
        assert_eq!(written.age_of(0, begin + Duration::from_secs(1000)).map(|age| age.as_secs()), Some(22));
    }
}
