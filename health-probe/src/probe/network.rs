//! This machine's own way out: what every look at something else depends on.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::timeout_at;

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Policy, Verdict};
use crate::net::address::Family;
use crate::net::connect::{Destination, connect};
use crate::observation::Observation;
use crate::probe::{Context, Probe, ProbeSpec};

/// Whether this machine reaches anything, and finds names: the root of what depends on what. With it in the set, a line that is cut
/// here is told of as that, and not as a shop, a gateway and a mail server that are down.
///
/// Readings: `reachable`, where one of several addresses takes a connection; `names found`, where this machine's resolver knows a
/// name. Each is critical. No host name is needed for the first, and nothing is said on the connections.
#[derive(Debug, Clone)]
pub struct NetworkProbe {
    spec: ProbeSpec,
    to: Vec<Destination>,
    name: String,
    limit: Duration,
}

impl NetworkProbe {
    /// By the public resolvers of Cloudflare, Google and Quad9, at port 443, and the name `example.com`.
    pub fn new(id: impl Into<String>) -> Self {
        let policy = Policy::new()
            .is("reachable", true, Verdict::Critical)
            .meaning("this machine has no way out: nothing is known of the rest")
            .is("names found", true, Verdict::Critical)
            .meaning("this machine's resolver does not work: nothing is known of the rest");
        let to = ["1.1.1.1", "8.8.8.8", "9.9.9.9"].map(|ip| destination(ip, 443)).to_vec();
        Self { spec: ProbeSpec::new(id, policy), to, name: "example.com".into(), limit: Duration::from_secs(5) }
    }

    /// The same by other addresses, `192.0.2.1:443`: those of a router, of neighbours in the data centre.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none, or one is no address and port.
    pub fn by(mut self, addresses: &[String]) -> Result<Self> {
        let parsed: Option<Vec<Destination>> = addresses
            .iter()
            .map(|text| text.parse::<std::net::SocketAddr>().ok().map(|a| destination(&a.ip().to_string(), a.port())))
            .collect();
        self.to = parsed.filter(|to| !to.is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("{addresses:?} are no addresses"))
                .with_next_step("write at least one as 192.0.2.1:443; a name would need what is asked about")
        })?;
        Ok(self)
    }

    /// The same with another name that has to be found.
    #[must_use]
    pub fn finding(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
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

fn destination(host: &str, port: u16) -> Destination {
    Destination { host: host.to_owned(), port, family: Family::Any, pinned: None }
}

#[async_trait]
impl Probe for NetworkProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        let began = Instant::now();
        let until = began + self.limit;
        let reached = async {
            let mut tries: FuturesUnordered<_> = self.to.iter().map(|to| connect(to, until, |_| true)).collect();
            let mut failed = Vec::new();
            while let Some(outcome) = tries.next().await {
                match outcome {
                    Ok(connected) => return Ok(connected.address),
                    Err(e) => failed.push(e.to_string()),
                }
            }
            Err(failed)
        };
        let found = timeout_at(until.into(), tokio::net::lookup_host((self.name.as_str(), 0)));
        let (reached, found) = tokio::join!(reached, found);
        seen.took = began.elapsed();
        match reached {
            Ok(address) => {
                seen.flag("reachable", true).evidence(format!("{address} answers"));
            }
            Err(failed) => {
                seen.flag("reachable", false);
                seen.evidence.extend(failed);
            }
        }
        match found {
            Ok(Ok(mut addresses)) => {
                seen.flag("names found", addresses.next().is_some());
            }
            Ok(Err(e)) => {
                seen.flag("names found", false).evidence(format!("{}: {e}", self.name));
            }
            Err(_) => {
                seen.flag("names found", false).evidence(format!("{}: the resolver did not answer", self.name));
            }
        }
        Ok(seen)
    }
}
