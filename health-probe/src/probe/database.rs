//! The database: whether it answers, how fast, and how many connections are left.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::error::Result;
use crate::judge::{Limits, Policy, Verdict};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};
use crate::sql::{Database, Failed};

/// A new connection to a database and a trivial query.
///
/// Readings: `reachable`; `connect` and `latency` (seconds); `connections used` (percent of what ordinary users may have:
/// PostgreSQL's reserved ones left out). Warnings from 0.5 s latency and 80 % of the connections on, critical from 5 s and 95 %. A
/// server that lets nobody in any more is not reachable; a login that is refused is an error, thus unknown.
#[derive(Clone)]
pub struct DatabaseProbe {
    spec: ProbeSpec,
    database: Database,
    limit: Duration,
}

impl fmt::Debug for DatabaseProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseProbe")
            .field("id", &self.spec.id)
            .field("engine", &self.database)
            .finish_non_exhaustive()
    }
}

impl DatabaseProbe {
    /// The database at that URL.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) where it is no URL of a database that this was built with.
    pub fn new(id: impl Into<String>, url: &str) -> Result<Self> {
        let database = Database::new(url)?;
        let policy = Policy::new()
            .is("reachable", true, Verdict::Critical)
            .below("latency", Unit::Seconds, Limits::new(0.5, 5.0))
            .below("connections used", Unit::Percent, Limits::new(80.0, 95.0));
        let spec = ProbeSpec::new(id, policy).with_title(database.engine()).with_response_time("latency");
        Ok(Self { spec, database, limit: Duration::from_secs(10) })
    }

    /// The same with another limit for everything; ten seconds without.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
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
impl Probe for DatabaseProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        let began = Instant::now();
        let usage = self.database.usage(self.limit).await;
        seen.took = began.elapsed();
        match usage {
            Ok(usage) => {
                seen.flag("reachable", true).number("latency", usage.latency.as_secs_f64(), Unit::Seconds);
                match usage.sessions {
                    Some((used, usable)) if usable > 0.0 => {
                        seen.number("connections used", used / usable * 100.0, Unit::Percent);
                        seen.evidence(format!("{used} of {usable} connections"));
                    }
                    Some(_) => {}
                    None => {
                        seen.not_applicable("connections used", "a file has no connections");
                    }
                }
            }
            Err(Failed::Unreachable(e)) => {
                seen.flag("reachable", false).evidence(Failed::Unreachable(e).said());
                seen.not_applicable("latency", "it is not reachable");
                seen.not_applicable("connections used", "it is not reachable");
            }
            Err(other) => return Err(other.into_error(&self.spec.title)),
        }
        Ok(seen)
    }
}
