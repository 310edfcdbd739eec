//! A connection, its phases timed apart.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::address::Family;

/// Where a connection has to go.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) family: Family,
    /// Goes there whatever the name resolves to.
    pub(crate) pinned: Option<SocketAddr>,
}

/// A connection that stands.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    /// How long the name took; zero of an address.
    pub(crate) dns: Duration,
    /// How long the connection took, to the address that answered.
    pub(crate) connect: Duration,
}

/// In which phase an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Dns,
    Connect,
    Tls,
    Request,
    Answer,
    Redirect,
}

impl Phase {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Dns => "name",
            Self::Connect => "connection",
            Self::Tls => "TLS",
            Self::Request => "request",
            Self::Answer => "answer",
            Self::Redirect => "redirect",
        }
    }
}

/// Why there is no connection, or no answer.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) phase: Phase,
    pub(crate) reason: String,
    /// Whether it was this machine that could not: no descriptors, no route, a wrong address. Nothing was observed then.
    pub(crate) ours: bool,
}

impl Failed {
    pub(crate) fn new(phase: Phase, reason: impl Into<String>) -> Self {
        Self { phase, reason: reason.into(), ours: false }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.phase.word(), self.reason)
    }
}

/// Resolves once, vets every address, and connects to the first that answers. No address that `allowed` refuses is connected
/// to, and the name is not asked again.
pub(crate) async fn connect(
    to: &Destination,
    until: Instant,
    allowed: impl Fn(IpAddr) -> bool,
) -> Result<Connected, Failed> {
    let began = Instant::now();
    let addresses = match to.pinned {
        Some(address) => vec![address],
        None => resolve(to, until).await?,
    };
    let dns = match to.host.parse::<IpAddr>().is_ok() || to.pinned.is_some() {
        true => Duration::ZERO,
        false => began.elapsed(),
    };
    let of_family: Vec<SocketAddr> = addresses.iter().copied().filter(|a| to.family.has(a.ip())).collect();
    if of_family.is_empty() {
        return Err(Failed::new(Phase::Dns, format!("{} has no address of that version of IP", to.host)));
    }
    let vetted: Vec<SocketAddr> = of_family.into_iter().filter(|a| allowed(a.ip())).take(6).collect();
    if vetted.is_empty() {
        return Err(Failed::new(Phase::Redirect, format!("{} is not a public address", to.host)));
    }
    let mut last = Failed::new(Phase::Connect, "no address was tried");
    last.ours = true;
    for (at, address) in vetted.iter().enumerate() {
        let began = Instant::now();
        // Each gets its share of what is left, so that a dead first address does not use up the time of the second.
        let left = until.saturating_duration_since(began);
        let share = began + left / (vetted.len() - at) as u32;
        match timeout_at(share.into(), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let connect = began.elapsed();
                if let Err(e) = stream.set_nodelay(true) {
                    tracing::debug!(error = %e, "a socket that keeps small packets back");
                }
                return Ok(Connected { stream, address: *address, dns, connect });
            }
            // One that this machine cannot reach says nothing of the others.
            Ok(Err(e)) if is_ours(&e) && !last.ours => {}
            Ok(Err(e)) => {
                last = Failed::new(Phase::Connect, format!("{address}: {e}"));
                last.ours = is_ours(&e);
            }
            Err(_) => {
                last = Failed::new(Phase::Connect, format!("{address} did not answer in {} s", plain(began.elapsed())))
            }
        }
    }
    Err(last)
}

pub(crate) fn plain(d: Duration) -> String {
    format!("{:.1}", d.as_secs_f64())
}

async fn resolve(to: &Destination, until: Instant) -> Result<Vec<SocketAddr>, Failed> {
    let host = to.host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, to.port)]);
    }
    match timeout_at(until.into(), tokio::net::lookup_host((host, to.port))).await {
        Ok(Ok(found)) => Ok(found.take(16).collect()),
        Ok(Err(e)) => Err(Failed::new(Phase::Dns, format!("{host} has no address: {e}"))),
        Err(_) => Err(Failed::new(Phase::Dns, format!("the address of {host} was not found in time"))),
    }
}

fn is_ours(e: &std::io::Error) -> bool {
    // EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENETDOWN, ENETUNREACH
    matches!(e.raw_os_error(), Some(24 | 23 | 99 | 105 | 100 | 101))
}
