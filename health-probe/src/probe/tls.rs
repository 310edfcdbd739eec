//! A certificate, each of its properties with a verdict of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Condition, Limits, Policy, Verdict};
use crate::net::address::Family;
use crate::net::connect::{Destination, Failed, Phase, connect};
use crate::net::tls::{Trust, is_for, unix};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

/// What is spoken before TLS begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Starttls {
    /// Nothing: TLS from the first byte. Behind port 443 the clock is compared too, by a request for the headers of `/`.
    #[default]
    None,
    /// SMTP, as on port 587.
    Smtp,
    /// IMAP, as on port 143.
    Imap,
    /// POP3, as on port 110.
    Pop3,
    /// PostgreSQL.
    Postgres,
}

/// A TLS handshake, and what the certificates say.
///
/// Readings: `reachable`, `handshake`; `trusted` (some path leads to a root at some time of its validity), `name matches`,
/// `already valid`, `days left` of the certificate itself, `chain days left` of the path that lives longest, `protocol`,
/// `clock off` (seconds). Warnings from 21 days left on, critical from 7: a certificate of 90 days is renewed at 30. Where the
/// clock of this machine and the server's are an hour apart, what depends on dates is not read, thus unknown.
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
            .with(
                "protocol",
                Unit::None,
                Condition::OneOf(vec!["TLSv1.3".into(), "TLSv1.2".into()], Verdict::Critical),
            );
        let spec = ProbeSpec::new(id, policy).with_title(format!("TLS of {host}:{port}")).with_response_time("tls");
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
                let sure = off.is_none_or(|off| off.abs() < 3600.0);
                if !sure {
                    seen.evidence(
                        "this machine's clock and the server's are an hour or more apart: dates are not judged",
                    );
                }
                self.certificates(&mut seen, &shown.chain, &name, sure)?;
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
        let to = Destination { host: self.host.clone(), port: self.port, family: self.family, pinned: self.pinned };
        let connected = connect(&to, until, |_| true).await?;
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
            Starttls::None => timeout_at(until.into(), clock(&mut stream, &self.host)).await.unwrap_or(None),
            _ => None,
        };
        Ok(Shown { chain: recorder.chain(), protocol, took, their_clock })
    }

    fn certificates(
        &self,
        seen: &mut Observation,
        chain: &[CertificateDer<'static>],
        name: &ServerName<'_>,
        sure: bool,
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
        if !sure {
            return Ok(());
        }
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

impl Starttls {
    /// Speaks what comes before TLS; dialogues of a few bounded lines.
    async fn speak(self, stream: TcpStream) -> std::io::Result<TcpStream> {
        match self {
            Self::None => Ok(stream),
            Self::Postgres => {
                let mut stream = stream;
                // SSLRequest: its length, and the code 80877103.
                stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
                match stream.read_u8().await? {
                    b'S' => Ok(stream),
                    _ => Err(refused("the server speaks no TLS")),
                }
            }
            Self::Smtp => {
                let mut talk = BufReader::new(stream);
                smtp_reply(&mut talk, "220").await?;
                talk.write_all(b"EHLO caretaker.invalid\r\n").await?;
                smtp_reply(&mut talk, "250").await?;
                talk.write_all(b"STARTTLS\r\n").await?;
                smtp_reply(&mut talk, "220").await?;
                plain(talk)
            }
            Self::Imap => {
                let mut talk = BufReader::new(stream);
                expect(&line(&mut talk).await?, "* OK")?;
                talk.write_all(b"a STARTTLS\r\n").await?;
                expect(&line(&mut talk).await?, "a OK")?;
                plain(talk)
            }
            Self::Pop3 => {
                let mut talk = BufReader::new(stream);
                expect(&line(&mut talk).await?, "+OK")?;
                talk.write_all(b"STLS\r\n").await?;
                expect(&line(&mut talk).await?, "+OK")?;
                plain(talk)
            }
        }
    }
}

/// What was sent before TLS began must not be taken for what comes after: an injection (CVE-2011-0411).
fn plain(talk: BufReader<TcpStream>) -> std::io::Result<TcpStream> {
    match talk.buffer().is_empty() {
        true => Ok(talk.into_inner()),
        false => Err(refused("the server sent more than its answer before TLS began")),
    }
}

fn refused(why: &str) -> std::io::Error {
    std::io::Error::other(why.to_owned())
}

fn expect(line: &str, wanted: &str) -> std::io::Result<()> {
    match line.starts_with(wanted) {
        true => Ok(()),
        false => Err(refused(&format!("the server said {:?}", line.chars().take(100).collect::<String>()))),
    }
}

async fn line<S: AsyncRead + Unpin>(from: &mut BufReader<S>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    from.take(2048).read_until(b'\n', &mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// A reply of SMTP, of one or more lines; its lines.
pub(crate) async fn smtp_reply<S: AsyncRead + Unpin>(
    from: &mut BufReader<S>,
    wanted: &str,
) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for _ in 0..64 {
        let line = line(from).await?;
        expect(&line, wanted)?;
        let last = line.as_bytes().get(3) != Some(&b'-');
        lines.push(line);
        if last {
            return Ok(lines);
        }
    }
    Err(refused("the server's reply has no end"))
}

/// The server's idea of the time, where it speaks HTTP.
async fn clock<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, host: &str) -> Option<DateTime<Utc>> {
    let request =
        format!("HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: caretaker-health-probe\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut lines = BufReader::new(stream);
    for _ in 0..64 {
        let line = line(&mut lines).await.ok()?;
        let (name, value) = match line.split_once(':') {
            Some(header) => header,
            None if line.is_empty() => return None,
            None => continue,
        };
        if name.eq_ignore_ascii_case("date") {
            return DateTime::parse_from_rfc2822(value.trim()).ok().map(|d| d.to_utc());
        }
    }
    None
}
