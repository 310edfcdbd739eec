//! Keeps the backup out of the shop's way.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::mysql::{Database, close};
use crate::pipeline::Task;
use crate::source::sessions::Sessions;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);

/// Looks whether somebody waits for a table.
pub(super) struct Guard {
    task: Task<()>,
    end: oneshot::Sender<()>,
}

/// A session that looks, and who was waiting already before this backup held anything.
pub(super) struct Watcher {
    session: MySqlConnection,
    before: HashSet<u64>,
}

impl Watcher {
    pub(super) async fn new(database: &Database) -> Result<Self> {
        let mut session = database.connect().await?;
        let before = waiting(database, &mut session).await?.into_keys().collect();
        Ok(Self { session, before })
    }
}

impl Guard {
    /// Watches until it is told that all is read; ends these sessions if they stand in the way for longer than `patience`.
    pub(super) fn start(
        watcher: Watcher,
        sessions: Vec<Sessions<MySqlConnection>>,
        patience: Duration,
        database: Database,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let task = Task::spawn(async move {
            let outcome = watch_over(watcher, patience, &database, ended).await;
            if let Err(e) = &outcome {
                sessions.iter().for_each(|s| s.break_off(e));
            }
            outcome
        });
        Self { task, end }
    }

    /// All is read. An error if the backup had to give way.
    pub(super) async fn finish(self) -> Result<()> {
        let Self { task, end } = self;
        let _it_ended_before = end.send(());
        task.join().await
    }
}

async fn watch_over(
    watcher: Watcher,
    patience: Duration,
    database: &Database,
    mut ended: oneshot::Receiver<()>,
) -> Result<()> {
    let Watcher { mut session, mut before } = watcher;
    let mut since: HashMap<u64, Instant> = HashMap::new();
    loop {
        tokio::select! {
            _ = &mut ended => {
                close(session).await;
                return Ok(());
            }
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = Instant::now();
        let mut still = HashMap::new();
        let found = waiting(database, &mut session).await?;
        // Who got what he waited for then waits for something else now.
        before.retain(|id| found.contains_key(id));
        for (id, what) in found {
            if before.contains(&id) {
                continue;
            }
            let began = *since.get(&id).unwrap_or(&now);
            if now.duration_since(began) >= patience {
                close(session).await;
                return Err(Error::new(
                    ErrorKind::SourceBusy,
                    format!(
                        "{}: session {id} has been waiting for {} s, probably behind this backup, and the shop behind it ({what}): the backup gave way",
                        database.location(),
                        patience.as_secs_f32()
                    ),
                )
                .with_retry(true));
            }
            still.insert(id, began);
        }
        since = still;
    }
}

/// Sessions in this database that wait for a lock on a table, and for which.
async fn waiting(database: &Database, session: &mut MySqlConnection) -> Result<HashMap<u64, String>> {
    let failed = |e| database.failed("could not be watched", e);
    let mut found = HashMap::new();
    for row in session.fetch_all(sqlx::raw_sql("SHOW PROCESSLIST")).await.map_err(failed)? {
        let text = |name: &str| row.try_get_unchecked::<Option<String>, _>(name).map_err(failed);
        // A session that does nothing has no state.
        let Some(state) = text("State")?.filter(|s| s.starts_with("Waiting for table")) else { continue };
        if text("db")?.as_deref() == Some(database.name()) {
            let id = text("Id")?.and_then(|id| id.parse().ok()).ok_or_else(|| {
                Error::new(ErrorKind::Source, format!("{}: a session without a number waits", database.location()))
            })?;
            found.insert(id, state);
        }
    }
    Ok(found)
}
