//! A certificate, each of its properties with a verdict of its own.

mod starttls;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use starttls::Starttls;
use starttls::line;

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Condition, Limits, Policy, Verdict};
use crate::net::address::Family;
use crate::net::connect::{Destination, Failed, Phase, connect};
use crate::net::old_tls;
use crate::net::tls::{Trust, is_for, unix};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

const OLD_REFUSED: &str = "TLS 1.1 and older refused";

/// A TLS handshake, and what the certificates say.
///
/// Readings: `reachable`, `handshake`; `trusted` (some path leads to a root at some time of its validity), `name matches`,
/// `already valid`, `days left` of the certificate itself, `chain days left` of the path that lives longest, `protocol`,
/// `TLS 1.1 and older refused` (RFC 8996; asked on a connection of its own, and not of SMTP and MySQL), `clock off` (seconds). Warnings from 21 days left on, critical from 7: a certificate of 90 days is renewed at 30. Where the
/// clock of this machine and the server's are a day apart, or what a certificate is worth differs between the two, what depends on
/// dates is not read, thus unknown.
#[derive(Debug, Clone)]
pub struct TlsProbe {
    spec: ProbeSpec,
    host: String,
    port: u16,
    starttls: Starttls,
    trust: Trust,
    family: Family,
    pinned: Option<SocketAddr>,
    limit: Duration,
}

impl TlsProbe {
    /// The certificate that `host` shows at `port` when it is asked for that name.
    pub fn new(id: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        let policy = Policy::new()
            .is("reachable", true, Verdict::Critical)
            .is("handshake", true, Verdict::Critical)
            .is("trusted", true, Verdict::Critical)
            .meaning("browsers show a warning instead of the shop")
            .is("name matches", true, Verdict::Critical)
            .is("already valid", true, Verdict::Critical)
            .above("days left", Unit::Days, Limits::new(21.0, 7.0))
            .meaning("renew the certificate")
            .above("chain days left", Unit::Days, Limits::new(21.0, 7.0))
            .with("protocol", Unit::None, Condition::OneOf(vec!["TLSv1.3".into(), "TLSv1.2".into()], Verdict::Critical))
            .is(OLD_REFUSED, true, Verdict::Warning)
            .meaning("browsers gave them up, and so do the rules for payment cards");
        let spec = ProbeSpec::new(id, policy).with_response_time("tls");
        Self {
            spec,
            host,
            port,
            starttls: Starttls::None,
            trust: Trust::of_this_machine(),
            family: Family::Any,
            pinned: None,
            limit: Duration::from_secs(10),
        }
    }

    /// The same after something that is spoken before.
    #[must_use]
    pub fn after(mut self, starttls: Starttls) -> Self {
        self.starttls = starttls;
        self
    }

    /// The same that connects to this address, whatever the name resolves to.
    #[must_use]
    pub fn pinned_to(mut self, address: SocketAddr) -> Self {
        self.pinned = Some(address);
        self
    }

    /// The same over one version of IP.
    #[must_use]
    pub fn over(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// The same with another limit for everything; ten seconds without.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same that also trusts the root certificates of a PEM file.
    ///
    /// # Errors
    /// Where it cannot be read, or is no such file.
    pub fn trusting(mut self, roots: &Path) -> Result<Self> {
        self.trust = self.trust.and(roots)?;
        Ok(self)
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }
}

#[async_trait]
impl Probe for TlsProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let name = ServerName::try_from(self.host.clone())
            .map_err(|e| Error::new(ErrorKind::Config, format!("{:?} is no name for TLS", self.host)).with_source(e))?;
        let mut seen = Observation::new(cx.now);
        let began = Instant::now();
        let shown = self.shake(&mut seen, &name, began + self.limit).await;
        seen.took = began.elapsed();
        match shown {
            Ok(shown) => {
                seen.flag("reachable", true).flag("handshake", true);
                seen.number("tls", shown.took.as_secs_f64(), Unit::Seconds).text("protocol", shown.protocol);
                let off = shown.their_clock.map(|theirs| (cx.now - theirs).as_seconds_f64());
                if let Some(off) = off {
                    seen.number("clock off", off, Unit::Seconds);
                }
                self.certificates(&mut seen, &shown.chain, &name, shown.their_clock)?;
                self.old_versions(&mut seen, began + self.limit).await;
                seen.took = began.elapsed();
            }
            Err(failed) if failed.ours => {
                return Err(Error::new(
                    ErrorKind::Unreachable,
                    format!("{}:{}: {failed}: this machine could not ask", self.host, self.port),
                ));
            }
            Err(failed) => {
                let reachable = !matches!(failed.phase, Phase::Dns | Phase::Connect);
                seen.flag("reachable", reachable).evidence(failed.to_string());
                if failed.phase == Phase::Tls {
                    // Where the server has nothing newer, that is why.
                    self.old_versions(&mut seen, began + self.limit).await;
                    seen.took = began.elapsed();
                }
                match reachable {
                    true => seen.flag("handshake", false),
                    false => seen.not_applicable("handshake", "there was no connection"),
                };
                for rule in &self.spec.policy.rules {
                    if seen.reading(&rule.reading).is_none() {
                        seen.not_applicable(rule.reading.clone(), "no certificate was shown");
                    }
                }
            }
        }
        Ok(seen)
    }
}

struct Shown {
    chain: Vec<CertificateDer<'static>>,
    protocol: &'static str,
    took: Duration,
    their_clock: Option<DateTime<Utc>>,
}

impl TlsProbe {
    async fn shake(&self, seen: &mut Observation, name: &ServerName<'static>, until: Instant) -> Result<Shown, Failed> {
        let (client, recorder) =
            self.trust.recording().map_err(|e| Failed { ours: true, ..Failed::new(Phase::Tls, e.to_string()) })?;
        let connected = connect(&self.destination(), until, |_| true).await?;
        seen.evidence(format!("connected to {}", connected.address));
        let late = |what: &str| Failed::new(Phase::Tls, format!("{what} in {} s", self.limit.as_secs_f64()));
        let stream = match timeout_at(until.into(), self.starttls.speak(connected.stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(Failed::new(Phase::Tls, format!("STARTTLS: {e}"))),
            Err(_) => return Err(late("no STARTTLS")),
        };
        let began = Instant::now();
        let shaken = timeout_at(until.into(), TlsConnector::from(client).connect(name.clone(), stream)).await;
        let mut stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(Failed::new(Phase::Tls, e.to_string())),
            Err(_) => return Err(late("no handshake")),
        };
        let took = began.elapsed();
        let protocol = match stream.get_ref().1.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "another",
        };
        let their_clock = match self.starttls {
            // What does not speak HTTP does not answer.
            Starttls::None => {
                let until = until.min(Instant::now() + Duration::from_secs(2));
                timeout_at(until.into(), clock(&mut stream, &self.host)).await.unwrap_or(None)
            }
            _ => None,
        };
        Ok(Shown { chain: recorder.chain(), protocol, took, their_clock })
    }

    /// Whether the server takes what is older than TLS 1.2; where its answer is none, or none comes, that is not read.
    async fn old_versions(&self, seen: &mut Observation, until: Instant) {
        let why = match self.starttls {
            Starttls::Mysql => Some("not asked: it would count as another connection error of this host"),
            Starttls::Smtp => Some("not asked: where it is refused, mail goes in the clear instead"),
            _ => None,
        };
        if let Some(why) = why {
            seen.not_applicable(OLD_REFUSED, why);
            return;
        }
        // An address is no name to ask for.
        let name = self.host.parse::<IpAddr>().is_err().then_some(self.host.as_str());
        let ask = async {
            let connected = connect(&self.destination(), until, |_| true).await.map_err(|e| e.to_string())?;
            let mut stream = self.starttls.speak(connected.stream).await.map_err(|e| e.to_string())?;
            old_tls::accepted(&mut stream, name).await.map_err(|e| e.to_string())
        };
        match timeout_at(until.into(), ask).await {
            Ok(Ok(None)) => {
                seen.flag(OLD_REFUSED, true);
            }
            Ok(Ok(Some(version))) => {
                seen.flag(OLD_REFUSED, false).evidence(format!("the server takes {version}"));
            }
            Ok(Err(why)) => {
                seen.evidence(format!("whether it takes TLS 1.1 is not known: {why}"));
            }
            Err(_) => {
                seen.evidence("whether it takes TLS 1.1 is not known: no answer in time");
            }
        }
    }

    fn destination(&self) -> Destination {
        Destination { host: self.host.clone(), port: self.port, family: self.family, pinned: self.pinned }
    }

    fn certificates(
        &self,
        seen: &mut Observation,
        chain: &[CertificateDer<'static>],
        name: &ServerName<'_>,
        their_clock: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let now = seen.at.timestamp();
        let mut dates = Vec::new();
        for certificate in chain {
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| {
                Error::new(ErrorKind::Malformed, format!("{}: a certificate that cannot be read", self.host))
                    .with_source(e)
            })?;
            let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
            let date = |t: i64| DateTime::from_timestamp(t, 0).map_or("?".into(), |d| d.format("%F").to_string());
            seen.evidence(format!("{} by {}, {} to {}", parsed.subject(), parsed.issuer(), date(from), date(to)));
            dates.push((from, to));
        }
        let (Some(leaf), Some(&(from, to))) = (chain.first(), dates.first()) else {
            return Err(Error::new(ErrorKind::Malformed, format!("{}: no certificate was shown", self.host)));
        };
        // Trust is apart from dates: a path counts if it holds at any time at which all of its dates might.
        let ends = dates.iter().flat_map(|(from, to)| [*to - 1, *from + 1]);
        let times: Vec<i64> = std::iter::once(now).chain(ends).collect();
        seen.flag("trusted", times.iter().any(|t| self.trust.path_at(chain, unix(*t)).is_ok()));
        seen.flag("name matches", is_for(leaf, name));
        // Whose clock is wrong is not known. A few hours make no difference but on the last day; a cache may tell an old time.
        let theirs = their_clock.map_or(now, |t| t.timestamp());
        if (theirs - now).abs() >= 86_400 || (from <= now) != (from <= theirs) || (now <= to) != (theirs <= to) {
            seen.evidence("this machine's clock and the server's are apart, and it matters: dates are not judged");
            return Ok(());
        }
        let now = now.max(theirs);
        seen.flag("already valid", from <= now);
        let days = |t: i64| (t - now) as f64 / 86400.0;
        seen.number("days left", days(to), Unit::Days);
        // The last moment at which some path still holds.
        let last = dates.iter().map(|(_, to)| *to).filter(|t| self.trust.path_at(chain, unix(*t - 1)).is_ok()).max();
        match last {
            Some(last) => seen.number("chain days left", days(last.min(to)), Unit::Days),
            None => seen.not_applicable("chain days left", "no path leads to a root"),
        };
        Ok(())
    }
}

/// The server's idea of the time, where it speaks HTTP.
async fn clock<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, host: &str) -> Option<DateTime<Utc>> {
    let request =
        format!("HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: caretaker-health-probe\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut lines = BufReader::new(stream);
    let (mut date, mut age) = (None, 0);
    for _ in 0..64 {
        let line = line(&mut lines).await.ok()?;
        let (name, value) = match line.split_once(':') {
            Some(header) => header,
            None if line.is_empty() => break,
            None => continue,
        };
        if name.eq_ignore_ascii_case("date") {
            date = DateTime::parse_from_rfc2822(value.trim()).ok().map(|d| d.to_utc());
        } else if name.eq_ignore_ascii_case("age") {
            // A cache gives the time at which it was told, and how long ago that was.
            age = value.trim().parse().ok()?;
        }
    }
    Some(date? + TimeDelta::try_seconds(age)?)
}
