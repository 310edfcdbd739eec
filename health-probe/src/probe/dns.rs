//! A name and its records.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{Resolver, TokioResolver};

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Limits, Policy, Verdict};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

/// The records of a name: A, AAAA, MX, TXT (SPF, DMARC), NS, CAA, CNAME, SOA.
///
/// Asked anew each time, without a cache and without `/etc/hosts`, over UDP, or TCP where the answer is long. Readings: `answered`, by
/// the server; `has records`; `as expected`, where something is expected; `lookup` (seconds; a warning from 1 s on, critical from
/// 5 s). Evidence lists the records.
#[derive(Debug, Clone)]
pub struct DnsProbe {
    spec: ProbeSpec,
    name: String,
    kind: RecordType,
    expect: Vec<String>,
    server: Option<SocketAddr>,
    limit: Duration,
}

impl DnsProbe {
    /// The records of that kind of that name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is no such kind.
    pub fn new(id: impl Into<String>, name: impl Into<String>, kind: &str) -> Result<Self> {
        let name = name.into();
        let wrong = || {
            Error::new(ErrorKind::Config, format!("{kind:?} is no kind of record"))
                .with_next_step("A, AAAA, MX, TXT, …")
        };
        let kind = RecordType::from_str(&kind.to_ascii_uppercase()).map_err(|_| wrong())?;
        let policy = Policy::new()
            .is("answered", true, Verdict::Critical)
            .is("has records", true, Verdict::Critical)
            .is("as expected", true, Verdict::Critical)
            .meaning("somebody changed it, or gives another answer")
            .below("lookup", Unit::Seconds, Limits::new(1.0, 5.0));
        let spec = ProbeSpec::new(id, policy).with_title(format!("{kind} of {name}")).with_response_time("lookup");
        Ok(Self { spec, name, kind, expect: Vec::new(), server: None, limit: Duration::from_secs(10) })
    }

    /// The same where each of these has to stand somewhere in the records.
    #[must_use]
    pub fn expecting(mut self, records: Vec<String>) -> Self {
        self.expect = records;
        self
    }

    /// The same that asks this server; without, those of this machine.
    #[must_use]
    pub fn asking(mut self, server: SocketAddr) -> Self {
        self.server = Some(server);
        self
    }

    /// The same with another limit; ten seconds without.
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

    fn resolver(&self) -> Result<TokioResolver> {
        let wrong = |e: NetError| {
            Error::new(ErrorKind::Config, "this machine's name servers cannot be read")
                .with_next_step("see /etc/resolv.conf, or name a server")
                .with_source(e)
        };
        let mut options = ResolverOpts::default();
        let mut builder = match self.server {
            None => Resolver::builder_tokio().map_err(wrong)?,
            Some(server) => {
                let mut config = NameServerConfig::udp_and_tcp(server.ip());
                config.connections.iter_mut().for_each(|c| c.port = server.port());
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![config]);
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        options.cache_size = 0;
        options.attempts = 2;
        options.timeout = self.limit / 3;
        options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
        *builder.options_mut() = options;
        builder.build().map_err(wrong)
    }
}

#[async_trait]
impl Probe for DnsProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let resolver = self.resolver()?;
        // Not one of the domains of this machine: the name is whole.
        let name = format!("{}.", self.name.trim_end_matches('.'));
        let mut seen = Observation::new(cx.now);
        let began = Instant::now();
        let outcome = tokio::time::timeout(self.limit, resolver.lookup(name.as_str(), self.kind)).await;
        let took = began.elapsed();
        seen.took = took;
        let records: Vec<String> = match outcome {
            Ok(Ok(found)) => {
                let of_kind = found.answers().iter().filter(|r| r.record_type() == self.kind);
                of_kind.map(|r| r.data.to_string()).collect()
            }
            // The server says that there is none.
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(_)))) => Vec::new(),
            other => {
                let why = match other {
                    Ok(Err(e)) => e.to_string(),
                    _ => format!("no answer in {} s", self.limit.as_secs_f64()),
                };
                seen.flag("answered", false).evidence(why);
                for name in ["has records", "as expected", "lookup"] {
                    seen.not_applicable(name, "there was no answer");
                }
                return Ok(seen);
            }
        };
        seen.flag("answered", true).flag("has records", !records.is_empty());
        seen.number("lookup", took.as_secs_f64(), Unit::Seconds);
        match self.expect.is_empty() {
            true => seen.not_applicable("as expected", "nothing is expected"),
            false => {
                seen.flag("as expected", self.expect.iter().all(|e| records.iter().any(|r| r.contains(e.as_str()))))
            }
        };
        for record in records.iter().take(20) {
            seen.evidence(record.chars().take(300).collect::<String>());
        }
        Ok(seen)
    }
}
