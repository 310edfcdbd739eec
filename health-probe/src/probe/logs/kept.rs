//! What was counted of a log and up to where, in one file: killed at any moment, nothing counts twice.

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind, Result, file};
use crate::logs::{Follower, Scan, Start};

/// What is counted and up to where, in one file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept<T> {
    #[serde(skip)]
    state: PathBuf,
    follower: Follower,
    pub(super) counted: T,
    /// When lines were lost last.
    #[serde(default)]
    lost: Option<DateTime<Utc>>,
    #[serde(skip)]
    loaded: bool,
}

/// What is counted, and by which settings.
pub(super) trait Counted: Clone + Serialize + serde::de::DeserializeOwned {
    /// What was kept, by the settings of this.
    fn adopt(&self, kept: Self) -> Self;

    /// Takes note that a look ended, whether there was a line or not; says whether there is anything new to keep.
    fn looked(&mut self, now: DateTime<Utc>) -> bool;
}

impl<T: Counted> Kept<T> {
    pub(super) fn new(log: PathBuf, state: PathBuf, counted: T) -> Self {
        Self { state, follower: Follower::new(log, Start::File), counted, lost: None, loaded: false }
    }

    /// 1 where lines were lost within the last hour, so that a second look confirms it.
    pub(super) fn lost_lately(&self, scan: &Scan, now: DateTime<Utc>) -> f64 {
        let lately = self.lost.is_some_and(|lost| now - lost < TimeDelta::minutes(60));
        f64::from(u8::from(scan.lost || lately))
    }

    fn load(&mut self) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        match std::fs::read(&self.state) {
            Ok(bytes) => {
                let kept: Self = serde_json::from_slice(&bytes).map_err(|e| {
                    Error::new(ErrorKind::Malformed, format!("{}: is not what was kept of a log", self.state.display()))
                        .with_next_step("delete it, to begin anew")
                        .with_source(e)
                })?;
                if kept.follower.path() == self.follower.path() {
                    self.counted = self.counted.adopt(kept.counted);
                    (self.follower, self.lost) = (kept.follower, kept.lost);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(file(&self.state, "cannot be read", e)),
        }
        self.loaded = true;
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let wrong = |e| file(&self.state, "cannot be written", e);
        let bytes = serde_json::to_vec(self).map_err(|e| {
            Error::new(ErrorKind::Storage, format!("{}: cannot be written as JSON", self.state.display()))
                .with_source(e)
        })?;
        let beside = crate::probe::beside(&self.state);
        // Examples of messages, names of accounts: not for everybody.
        let mut out = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(wrong)?;
        std::io::Write::write_all(&mut out, &bytes).and_then(|()| out.sync_all()).map_err(wrong)?;
        std::fs::rename(&beside, &self.state).map_err(wrong)
    }
}

/// Reads on, and keeps what was counted; on an error, everything stands where it stood.
pub(super) async fn scan<T>(
    log: &Arc<Mutex<Kept<T>>>,
    now: DateTime<Utc>,
    add: impl Fn(&mut T, &[u8], DateTime<Utc>) + Send + 'static,
) -> Result<(Scan, Kept<T>)>
where
    T: Counted + Send + 'static,
{
    let mut guard = Arc::clone(log).lock_owned().await;
    let work = move || {
        guard.load()?;
        let mut next = guard.clone();
        let mut tries = 0;
        let scan = loop {
            let mut counted = guard.counted.clone();
            let mut follower = guard.follower.clone();
            match follower.scan(now, |line| add(&mut counted, line, now)) {
                Ok(scan) => {
                    (next.follower, next.counted) = (follower, counted);
                    break scan;
                }
                // It was rotated meanwhile.
                Err(e) if e.is_retryable() && tries < 3 => tries += 1,
                Err(e) => return Err(e),
            }
        };
        if scan.lost {
            next.lost = Some(now);
        }
        let anew = next.counted.looked(now);
        // Where there was no line, what is kept stands as it is: it may be large.
        if anew || scan.lost || next.follower != guard.follower {
            next.save()?;
        }
        *guard = next.clone();
        Ok((scan, next))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Panicked, "the reading of a log ended early").with_source(e))?
}
