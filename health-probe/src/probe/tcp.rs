//! A port that has to answer.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Limits, Policy, Verdict};
use crate::net::address::Family;
use crate::net::connect::{Destination, connect};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

/// A connection to a port. Readings: `reachable`, `connect` (seconds; a warning from 1 s on).
///
/// A port that takes connections proves little: a full queue does it too. Prefer a probe that asks something.
#[derive(Debug, Clone)]
pub struct TcpProbe {
    spec: ProbeSpec,
    to: Destination,
    limit: Duration,
}

impl TcpProbe {
    /// That port of that host.
    pub fn new(id: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        let policy = Policy::new().is("reachable", true, Verdict::Critical).below(
            "connect",
            Unit::Seconds,
            Limits::warning(1.0),
        );
        let spec = ProbeSpec::new(id, policy).with_response_time("connect");
        Self { spec, to: Destination { host, port, family: Family::Any, pinned: None }, limit: Duration::from_secs(5) }
    }

    /// The same over one version of IP.
    #[must_use]
    pub fn over(mut self, family: Family) -> Self {
        self.to.family = family;
        self
    }

    /// The same with another limit; five seconds without.
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
impl Probe for TcpProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        let began = Instant::now();
        let connected = connect(&self.to, began + self.limit, |_| true).await;
        seen.took = began.elapsed();
        match connected {
            Ok(connected) => {
                seen.flag("reachable", true).number("connect", connected.connect.as_secs_f64(), Unit::Seconds);
                seen.evidence(format!("connected to {}", connected.address));
            }
            Err(failed) if failed.ours => {
                let what = format!("{}:{}: {failed}: this machine could not ask", self.to.host, self.to.port);
                return Err(Error::new(ErrorKind::Unreachable, what));
            }
            Err(failed) => {
                seen.flag("reachable", false).not_applicable("connect", "there was no connection");
                seen.evidence(failed.to_string());
            }
        }
        Ok(seen)
    }
}
