//! The session that holds the snapshot: kept alive, and kept out of the shop's way.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio::sync::oneshot;

use super::close;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Task;
use crate::postgres::Database;
use crate::source::sessions::Sessions;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);
/// Who waits for a lock of one of our sessions, and for what. Cheap where nobody waits.
const WAITING: &str = "SELECT l.pid, COALESCE(pg_catalog.min(l.relation::pg_catalog.regclass::pg_catalog.text), 'something') \
    FROM pg_catalog.pg_locks l WHERE NOT l.granted AND l.locktype = 'relation' \
    AND pg_catalog.pg_blocking_pids(l.pid) OPERATOR(pg_catalog.&&) $1::pg_catalog.int4[] GROUP BY l.pid";

/// The session that holds the snapshot.
pub(super) struct Guard {
    sessions: Sessions<PgConnection>,
    task: Task<()>,
    end: oneshot::Sender<()>,
}

impl Guard {
    /// Watches over the sessions with these process ids, until it is told that all is read.
    pub(super) fn start(
        leader: PgConnection,
        pids: Vec<i32>,
        sessions: Sessions<PgConnection>,
        patience: Duration,
        database: Database,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let watched = sessions.clone();
        let task = Task::spawn(async move {
            let outcome = watch_over(leader, &pids, patience, &database, ended).await;
            if let Err(e) = &outcome {
                watched.break_off(e);
            }
            outcome
        });
        Self { sessions, task, end }
    }

    /// All is read. An error if the session did not hold until now.
    pub(super) async fn finish(self) -> Result<()> {
        let Self { sessions, task, end } = self;
        let _it_ended_before = end.send(());
        task.join().await?;
        sessions.state().check()
    }
}

async fn watch_over(
    mut leader: PgConnection,
    pids: &[i32],
    patience: Duration,
    database: &Database,
    mut ended: oneshot::Receiver<()>,
) -> Result<()> {
    let lost = |e| {
        let e = database.failed("ended the session that holds the snapshot", e);
        Error::new(e.kind(), e.to_string()).with_retry(true)
    };
    let mut waiting: HashMap<i32, Instant> = HashMap::new();
    loop {
        let over = tokio::select! {
            _ = &mut ended => true,
            () = tokio::time::sleep(EVERY) => false,
        };
        let rows = sqlx::query(WAITING).bind(pids).fetch_all(&mut leader).await.map_err(lost)?;
        if over {
            // It answered, so the snapshot held to the end.
            database.run(&mut leader, "COMMIT").await?;
            close(leader).await;
            return Ok(());
        }
        let now = Instant::now();
        let mut still = HashMap::new();
        for row in rows {
            let pid: i32 = row.try_get(0).map_err(lost)?;
            let what: String = row.try_get(1).map_err(lost)?;
            let since = *waiting.get(&pid).unwrap_or(&now);
            if now.duration_since(since) >= patience {
                close(leader).await;
                return Err(Error::new(
                    ErrorKind::SourceBusy,
                    format!(
                        "{}: session {pid} has been waiting for {} s behind this backup to change {what}, and the shop behind it: the backup gave way",
                        database.location(),
                        patience.as_secs_f32()
                    ),
                ));
            }
            still.insert(pid, since);
        }
        waiting = still;
    }
}
