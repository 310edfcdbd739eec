//! Maintenance mode: the shop says that it is closed, why, and until when.
//!
//! What a shop's own program looks at is a key in its `.env` file, a file whose presence nginx or PHP tests, or a row in the
//! database. Each says until when, so that a program which reads that opens by itself; [`MaintenanceGuard`] turns it off on
//! every way out. Whoever knows the bypass token may look behind: only its SHA-256 is kept.

mod env_file;
mod flag_file;
mod row;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::env_file::EnvFile;
pub use self::flag_file::FlagFile;
pub use self::row::DatabaseRow;
use crate::error::{Error, ErrorKind, Result};
use crate::replace::replace;

/// What a closed shop says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Notice {
    /// Why, for customers.
    pub reason: String,
    /// Until when; then it opens again.
    pub until: DateTime<Utc>,
    /// The SHA-256 of the token that lets its bearer in, in hexadecimal digits.
    pub bypass_sha256: Option<String>,
}

impl Notice {
    /// Closed until then; one line of reason.
    pub fn new(reason: impl Into<String>, until: DateTime<Utc>) -> Self {
        // It is written into files of lines.
        let reason: String = reason.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { reason, until, bypass_sha256: None }
    }

    /// The same, and whoever has this token is let in.
    #[must_use]
    pub fn with_bypass(mut self, token: &str) -> Self {
        self.bypass_sha256 = Some(Sha256::digest(token).iter().map(|b| format!("{b:02x}")).collect());
        self
    }

    /// Whether it is over by then.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        now >= self.until
    }
}

/// Where a shop's program looks for whether it is closed.
#[async_trait]
pub trait MaintenanceSwitch: Debug + Send + Sync {
    /// What messages call it.
    fn location(&self) -> String;

    /// Closes the shop, or changes what it says.
    ///
    /// # Errors
    /// Where it cannot be written; it is as before then.
    async fn on(&self, notice: &Notice) -> Result<()>;

    /// Opens the shop; also where it is open.
    ///
    /// # Errors
    /// Where it cannot be written; it is as before then.
    async fn off(&self) -> Result<()>;

    /// What it says, where it is closed; over or not.
    ///
    /// # Errors
    /// Where it cannot be read.
    async fn status(&self) -> Result<Option<Notice>>;
}

/// Keeps a shop closed, and opens it on every way out: [`leave`](MaintenanceGuard::leave), an error, a panic, a future that is
/// dropped. Where the process is killed, the notice's end opens it.
#[derive(Debug)]
#[must_use = "the shop opens when this is dropped"]
pub struct MaintenanceGuard {
    switch: Option<Arc<dyn MaintenanceSwitch>>,
    notice: Notice,
}

impl MaintenanceGuard {
    /// Closes the shop.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] where somebody else has closed it: it is theirs to open.
    pub async fn enter(switch: Arc<dyn MaintenanceSwitch>, notice: &Notice, now: DateTime<Utc>) -> Result<Self> {
        if let Some(there) = switch.status().await?.filter(|there| !there.is_over(now)) {
            let text = format!("{} is closed already, until {}: {}", switch.location(), there.until, there.reason);
            return Err(Error::new(ErrorKind::Busy, text).with_next_step("wait, or open it first"));
        }
        // From here on, whatever happens.
        let guard = Self { switch: Some(switch.clone()), notice: notice.clone() };
        switch.on(notice).await?;
        Ok(guard)
    }

    /// Opens the shop.
    ///
    /// # Errors
    /// Where it cannot be written; it is tried once more when this is dropped.
    pub async fn leave(mut self) -> Result<()> {
        if let Some(switch) = &self.switch {
            open_own(&**switch, &self.notice).await?;
        }
        self.switch = None;
        Ok(())
    }
}

impl Drop for MaintenanceGuard {
    fn drop(&mut self) {
        let Some(switch) = self.switch.take() else { return };
        let notice = self.notice.clone();
        // In a thread with a runtime of its own: this one may be gone, or in the middle of something.
        let opening = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(open_own(&*switch, &notice)),
                Err(e) => Err(Error::new(ErrorKind::Database, "no thread to open the shop with").with_source(e)),
            }
        });
        // Nobody is left to tell but the log; the notice's end opens it.
        match opening.join() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                tracing::error!(error = %e, "the shop could not be opened: it is closed until its notice ends")
            }
            Err(_) => tracing::error!("the shop could not be opened: it is closed until its notice ends"),
        }
    }
}

/// What the shop's program reads as another user.
const READABLE: u32 = 0o644;

/// Opens the shop, unless somebody else has closed it meanwhile.
async fn open_own(switch: &dyn MaintenanceSwitch, own: &Notice) -> Result<()> {
    let is_other = |there: Notice| (there.until, there.bypass_sha256) != (own.until, own.bypass_sha256.clone());
    match switch.status().await?.is_some_and(is_other) {
        true => Ok(()),
        false => switch.off().await,
    }
}
