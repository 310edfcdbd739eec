//! What the shop does around the reading of a source.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};

/// How the reading of a source ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Reading<'a> {
    /// Everything was read. Stores may still be waiting for some of it.
    Complete,
    /// It failed; there will be no snapshot.
    Failed(&'a Error),
    /// Whoever waited for the backup does so no more: it was cancelled.
    Dropped,
}

/// Called before a source is read and after: to hold back a deployment, to switch a shop that cannot be copied
/// consistently to read-only, to tell a monitor.
///
/// ```
/// use backup_core::{BackupOptions, Hooks, Reading, async_trait};
///
/// /// Holds back deployments while the shop is read.
/// #[derive(Debug)]
/// struct Deployments(std::path::PathBuf);
///
/// #[async_trait]
/// impl Hooks for Deployments {
///     async fn before_reading(&self, source: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///         Ok(std::fs::write(&self.0, format!("{source} is being backed up"))?)
///     }
///     async fn after_reading(&self, _: &str, _: Reading<'_>) {
///         if let Err(e) = std::fs::remove_file(&self.0) {
///             eprintln!("{}: {e}", self.0.display());
///         }
///     }
/// }
///
/// let options = BackupOptions::default().with_hooks(std::sync::Arc::new(Deployments("/run/shop/hold".into())));
/// # let _ = options;
/// ```
#[async_trait]
pub trait Hooks: Debug + Send + Sync {
    /// Before anything of the source is opened; the repository is known to be usable.
    ///
    /// # Errors
    /// Any: then nothing is read, [`after_reading`](Self::after_reading) is not called, and the backup fails with
    /// [`ErrorKind::Hook`]. Where the backup is cancelled in the middle of this call, it is.
    async fn before_reading(&self, source: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let _ = source;
        Ok(())
    }

    /// After each [`before_reading`](Self::before_reading) that succeeded: as soon as nothing more is read, not only when
    /// slow stores have it all. For a cancelled backup it runs as a task of the same runtime, which has to live on for that
    /// long; cancelled in the middle of this call, it is called once more.
    async fn after_reading(&self, source: &str, outcome: Reading<'_>) {
        let _ = (source, outcome);
    }
}

/// Owes a call of [`Hooks::after_reading`].
pub(crate) struct Owed(Option<(Arc<dyn Hooks>, String)>);

impl Owed {
    pub(crate) async fn before(hooks: Option<&Arc<dyn Hooks>>, source: &str) -> Result<Self> {
        let Some(hooks) = hooks else { return Ok(Self(None)) };
        // From here on: cancelled within the call, what it has done already is to be undone.
        let mut owed = Self(Some((Arc::clone(hooks), source.to_owned())));
        if let Err(e) = hooks.before_reading(source).await {
            owed.0 = None;
            return Err(Error::new(
                ErrorKind::Hook,
                format!("{source}: what was to be done before the backup failed: {e}"),
            )
            .with_next_step("mend the hook, or back up without it; nothing was read")
            .with_source(e));
        }
        Ok(owed)
    }

    pub(crate) async fn after(mut self, outcome: Reading<'_>) {
        if let Some((hooks, source)) = &self.0 {
            hooks.after_reading(source, outcome).await;
        }
        // Only now: cancelled within the call, it is made once more, and not left half done.
        self.0 = None;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let Some((hooks, source)) = self.0.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { hooks.after_reading(&source, Reading::Dropped).await })),
            Err(e) => tracing::error!(%source, error = %e, "what was to be done after the backup was not done"),
        }
    }
}
