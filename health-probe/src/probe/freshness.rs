//! How old something is: the newest verified backup, the newest export, the newest order that was shipped.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::judge::{Limits, Policy, Verdict};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

type Ask = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Option<DateTime<Utc>>>> + Send>> + Send + Sync>;

/// The age of the newest of something, which a closure knows. Readings: `there is one`, `age` (seconds).
///
/// None at all is critical; one of the future is unknown.
///
/// ```
/// use std::time::Duration;
/// use chrono::{DateTime, Utc};
/// use health_probe::FreshnessProbe;
/// async fn newest_verified_snapshot() -> health_probe::Result<Option<DateTime<Utc>>> {
///     Ok(Some(Utc::now()))
/// }
/// let backups = FreshnessProbe::new("backup", Duration::from_secs(3600), newest_verified_snapshot);
/// ```
pub struct FreshnessProbe {
    spec: ProbeSpec,
    ask: Ask,
}

impl fmt::Debug for FreshnessProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshnessProbe").field("id", &self.spec.id).finish_non_exhaustive()
    }
}

impl FreshnessProbe {
    /// What `newest` says may be so old; a warning from there on, critical from twice as old.
    pub fn new<F, L>(id: impl Into<String>, limit: Duration, newest: F) -> Self
    where
        F: Fn() -> L + Send + Sync + 'static,
        L: Future<Output = Result<Option<DateTime<Utc>>>> + Send + 'static,
    {
        let limit = limit.as_secs_f64();
        let policy = Policy::new().is("there is one", true, Verdict::Critical).below(
            "age",
            Unit::Seconds,
            Limits::new(limit, 2.0 * limit),
        );
        Self { spec: ProbeSpec::new(id, policy), ask: Arc::new(move || Box::pin(newest())) }
    }

    /// The same with another title.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.spec.title = title.into();
        self
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }
}

#[async_trait]
impl Probe for FreshnessProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        match (self.ask)().await? {
            Some(newest) => {
                seen.flag("there is one", true).evidence(format!("the newest is of {}", newest.format("%F %T UTC")));
                // A minute of the future is a clock, more is a mistake.
                let age = (cx.now - newest).as_seconds_f64();
                if age > -60.0 {
                    seen.number("age", age.max(0.0), Unit::Seconds);
                }
            }
            None => {
                seen.flag("there is one", false).not_applicable("age", "there is none");
            }
        }
        Ok(seen)
    }
}
