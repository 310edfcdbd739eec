//! The restore test: into a scratch place, compared, timed, cleaned up, and kept as evidence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{RecordName, Snapshot};
use crate::progress::{NoProgress, Progress};
use crate::repository::Repository;
use crate::restore::{RestoreOptions, RestoreReport, millis};
use crate::target::{Invariant, Target};

/// How to drill.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DrillOptions {
    /// Queries that find what breaks the shop's rules; see [`Invariant`].
    pub invariants: Option<String>,
    /// The time within which the restore has to be done.
    pub rto: Option<Duration>,
    /// Leave signed evidence in the log, if there is a key to sign it with. On by default.
    pub record: bool,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

impl Default for DrillOptions {
    fn default() -> Self {
        Self { invariants: None, rto: None, record: true, progress: Arc::new(NoProgress) }
    }
}

impl DrillOptions {
    /// The same with a text of invariants.
    #[must_use]
    pub fn with_invariants(mut self, text: impl Into<String>) -> Self {
        self.invariants = Some(text.into());
        self
    }

    /// The same with a time to keep.
    #[must_use]
    pub fn with_rto(mut self, rto: Duration) -> Self {
        self.rto = Some(rto);
        self
    }

    /// The same, watched.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// The same, leaving evidence or not.
    #[must_use]
    pub fn record(mut self, record: bool) -> Self {
        self.record = record;
        self
    }
}

/// What a drill found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DrillReport {
    /// The restore, with every entry compared.
    pub restore: RestoreReport,
    /// The shop's rules.
    pub invariants: Vec<Invariant>,
    /// The time to keep, in milliseconds.
    pub rto_milliseconds: Option<u64>,
    /// The whole time, comparing and checking included, in milliseconds.
    pub milliseconds: u64,
    /// Where the evidence stands in the log.
    pub evidence: Option<RecordName>,
}

impl DrillReport {
    /// Whether everything is equal, every invariant is known to hold, and the restore kept its time.
    pub fn passed(&self) -> bool {
        self.restore.is_equal() && self.invariants.iter().all(Invariant::holds) && self.within_rto() != Some(false)
    }

    /// Whether the restore kept its time, if one was given.
    pub fn within_rto(&self) -> Option<bool> {
        self.rto_milliseconds.map(|rto| self.restore.milliseconds <= rto)
    }
}

/// Whether an error says something about the snapshot or its restore, and not about a store or a key that was not there.
fn is_a_finding(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Damaged | ErrorKind::Mismatch | ErrorKind::Target)
}

impl Repository {
    /// Restores `snapshot` to `scratch`, compares it with what was backed up, checks the shop's invariants, takes the
    /// time, and removes everything again, whatever the outcome. Dropping the future leaves the scratch place as it
    /// then is; [`Target::remove`] empties it.
    ///
    /// # Errors
    /// [`ErrorKind::TargetNotEmpty`] where there is something in the scratch place: a drill removes only what it made.
    /// [`ErrorKind::Damaged`] where the snapshot's record is not in the store any more, or not as it was read before.
    pub async fn drill(&self, snapshot: &Snapshot, scratch: &dyn Target, options: DrillOptions) -> Result<DrillReport> {
        if !scratch.is_vacant().await? {
            return Err(Error::new(
                ErrorKind::TargetNotEmpty,
                format!("the scratch place {} is not empty", scratch.location()),
            )
            .with_next_step("name a place that does not exist yet: a drill removes what it made there"));
        }
        let result = self.drill_vacant(snapshot, scratch, &options).await;
        if let Err(e) = &result
            && e.kind() == ErrorKind::TargetNotEmpty
        {
            // Somebody else was faster, and what is there is his.
            return result;
        }
        let removed = scratch.remove().await;
        let drilled = vec![snapshot.id.clone()];
        // Read from several, it says of none of them that it has everything.
        let store = match self.stores() {
            [store] => Some(store.to_string()),
            _ => None,
        };
        let mut report = match result {
            Ok(report) => report,
            Err(e) => {
                // What keeps the snapshot from coming back is what a drill is there to find.
                if options.record && is_a_finding(e.kind()) {
                    let details = serde_json::json!({ "error": e.to_string() });
                    self.leave_evidence("drill", store, (drilled, false, 0), &details).await?;
                }
                return Err(e);
            }
        };
        if options.record {
            report.evidence =
                self.leave_evidence("drill", store, (drilled, report.passed(), report.milliseconds), &report).await?;
        }
        removed?;
        Ok(report)
    }

    async fn drill_vacant(
        &self,
        snapshot: &Snapshot,
        scratch: &dyn Target,
        options: &DrillOptions,
    ) -> Result<DrillReport> {
        let began = Instant::now();
        // Another machine has only what is in the store to begin with.
        match self.manifest_of(&snapshot.record).await {
            Ok(Some(manifest)) if manifest == snapshot.manifest => {}
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            Ok(_) | Err(_) => {
                return Err(Error::new(
                    ErrorKind::Damaged,
                    format!("the record of {} is not in the store as it was read before", snapshot.id),
                )
                .with_next_step("run `backup verify`; bring it back from another copy of the store: `backup sync`"));
            }
        }
        let restore_options = RestoreOptions::default().ownership(false).with_progress(Arc::clone(&options.progress));
        let restore = self.restore_and_compare(snapshot, scratch, &restore_options).await?;
        let invariants = match &options.invariants {
            Some(text) => scratch.check_invariants(text).await?,
            None => Vec::new(),
        };
        Ok(DrillReport {
            restore,
            invariants,
            rto_milliseconds: options.rto.map(|rto| u64::try_from(rto.as_millis()).unwrap_or(u64::MAX)),
            milliseconds: millis(began),
            evidence: None,
        })
    }
}
