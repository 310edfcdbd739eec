//! A request to the shop, and what has to be true of the answer.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use http::header::{CONTENT_TYPE, DATE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value as Json;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Condition, Limits, Policy, Verdict};
use crate::net::address::{Family, Reach};
use crate::net::fetch::{BodyEnd, Exchange, Fetch, Hop, shown};
use crate::net::tls::Trust;
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

/// Something that has to be true of an answer. Each becomes a reading of its own with a rule of its own.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Expect {
    /// A status among these; else critical. Without this, one of 200 to 299.
    Status(Vec<u16>),
    /// A header with exactly this value, or any value where it is empty; else a warning.
    Header(String, String),
    /// A text somewhere in the body; else critical.
    Body(String),
    /// A text nowhere in the body; else critical.
    NotInBody(String),
    /// A value in a JSON body, at a pointer of RFC 6901 such as `/checks/database`, that is this text, number or flag; else
    /// critical.
    Json(String, Json),
    /// A number in a JSON body, with limits.
    JsonBelow(String, Unit, Limits),
}

/// A request over HTTP/1.1 on a new connection, and what has to be true of the answer.
///
/// Readings: `reachable`; `status as expected`; `response time`, and of it the last hop's `dns`, `connect`, `tls`, `first byte`,
/// `transfer` (seconds); `redirects`; `stays on https`; `body size` (bytes), `body ended`, `body within limit`; `clock off`
/// (seconds by which this machine is ahead of the answer's `Date`); one for each [`Expect`]. From 3 s on (the guides' limit for a
/// page) it is a warning, from 10 s critical. A value that is missing in a JSON body is unknown, and never 0.
///
/// Redirects are followed hop by hop, each address vetted ([`Reach`]), credentials not shown to another origin.
#[derive(Clone)]
pub struct HttpProbe {
    spec: ProbeSpec,
    fetch: Fetch,
    expect: Vec<Expect>,
}

impl fmt::Debug for HttpProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProbe")
            .field("id", &self.spec.id)
            .field("url", &shown(&self.fetch.url))
            .finish_non_exhaustive()
    }
}

impl HttpProbe {
    /// A GET of that address.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address of http or https, or this machine has no root certificates.
    pub fn new(id: impl Into<String>, url: &str) -> Result<Self> {
        let url = address(url)?;
        let policy = Policy::new()
            .is("reachable", true, Verdict::Critical)
            .is("status as expected", true, Verdict::Critical)
            .below("response time", Unit::Seconds, Limits::new(3.0, 10.0))
            .is("body ended", true, Verdict::Critical)
            .is("body within limit", true, Verdict::Warning)
            .is("stays on https", true, Verdict::Warning);
        let spec = ProbeSpec::new(id, policy).with_response_time("response time");
        Ok(Self { spec, fetch: Fetch::new(url, shared_client()?), expect: Vec::new() })
    }

    /// The same with something else that has to be true.
    #[must_use]
    pub fn expecting(mut self, expect: Expect) -> Self {
        let name = reading(&expect);
        let policy = std::mem::take(&mut self.spec.policy);
        self.spec.policy = match &expect {
            Expect::Status(_) => policy,
            Expect::Header(..) => policy.is(&name, true, Verdict::Warning),
            Expect::Body(_) | Expect::NotInBody(_) => policy.is(&name, true, Verdict::Critical),
            Expect::Json(_, Json::Bool(wanted)) => policy.is(&name, *wanted, Verdict::Critical),
            Expect::Json(_, Json::String(wanted)) => {
                policy.with(&name, Unit::None, Condition::OneOf(vec![wanted.clone()], Verdict::Critical))
            }
            Expect::Json(..) => policy.is(&name, true, Verdict::Critical),
            Expect::JsonBelow(_, unit, limits) => policy.below(&name, unit.clone(), *limits),
        };
        self.expect.push(expect);
        self
    }

    /// The same with another method and body.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no method.
    pub fn with_request(mut self, method: &str, body: impl Into<Bytes>) -> Result<Self> {
        self.fetch.method = Method::from_bytes(method.as_bytes())
            .map_err(|e| Error::new(ErrorKind::Config, format!("{method:?} is no method of HTTP")).with_source(e))?;
        self.fetch.body = body.into();
        Ok(self)
    }

    /// The same with a header. It is not shown to another origin, nor in any message.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no header; the value is not part of the message.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self> {
        let (name, value) = header(name, value)?;
        self.fetch.headers.insert(name, value);
        Ok(self)
    }

    /// The same with other limits: for everything, and for the bytes of the body that are read.
    #[must_use]
    pub fn with_limits(mut self, time: Duration, body: usize) -> Self {
        self.fetch.limit = time;
        self.fetch.body_limit = body;
        self
    }

    /// The same that follows so many redirects; with 0, the first answer is the one that counts.
    #[must_use]
    pub fn with_redirects(mut self, most: usize) -> Self {
        self.fetch.redirects = most;
        self
    }

    /// The same over one version of IP.
    #[must_use]
    pub fn over(mut self, family: Family) -> Self {
        self.fetch.family = family;
        self
    }

    /// The same with another say on where connections may lead.
    #[must_use]
    pub fn with_reach(mut self, reach: Reach) -> Self {
        self.fetch.reach = reach;
        self
    }

    /// The same that connects to this address, whatever the name resolves to: one app server behind a balancer.
    #[must_use]
    pub fn pinned_to(mut self, address: SocketAddr) -> Self {
        self.fetch.pinned = Some(address);
        self
    }

    /// The same that also trusts the root certificates of a PEM file.
    ///
    /// # Errors
    /// Where it cannot be read, or is no such file.
    pub fn trusting(mut self, roots: &Path) -> Result<Self> {
        self.fetch.tls = Trust::of_this_machine().and(roots)?.strict()?;
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
impl Probe for HttpProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        let began = Instant::now();
        match self.fetch.run().await {
            Ok(answer) => {
                seen.took = began.elapsed();
                seen.flag("reachable", true);
                self.read(&mut seen, &answer, cx);
            }
            Err(no) if no.failed.ours => {
                return Err(Error::new(
                    ErrorKind::Unreachable,
                    format!("{}: {}: this machine could not ask", shown(&self.fetch.url), no.failed),
                )
                .with_next_step("look at this machine's network and its limits (ulimit -n)"));
            }
            Err(no) => {
                seen.took = began.elapsed();
                seen.flag("reachable", false);
                for hop in &no.hops {
                    seen.evidence(line(hop));
                }
                seen.evidence(no.failed.to_string());
                // What could not be seen for want of an answer is not apart from that.
                for rule in self.spec.policy.rules.iter().filter(|r| r.reading != "reachable") {
                    seen.not_applicable(rule.reading.clone(), "there was no answer");
                }
            }
        }
        Ok(seen)
    }
}

impl HttpProbe {
    fn read(&self, seen: &mut Observation, answer: &Exchange, cx: &Context) {
        for hop in &answer.hops {
            seen.evidence(line(hop));
        }
        // Several say together what is good.
        let wanted = self.expect.iter().filter_map(|e| match e {
            Expect::Status(wanted) => Some(wanted.contains(&answer.status.as_u16())),
            _ => None,
        });
        let wanted = wanted.reduce(|a, b| a || b);
        seen.number("status", f64::from(answer.status.as_u16()), Unit::None);
        seen.flag("status as expected", wanted.unwrap_or(answer.status.is_success()));
        seen.number("response time", answer.took.as_secs_f64(), Unit::Seconds);
        if let Some(hop) = answer.hops.last() {
            seen.number("dns", hop.dns.as_secs_f64(), Unit::Seconds);
            seen.number("connect", hop.connect.as_secs_f64(), Unit::Seconds);
            if let Some(tls) = hop.tls {
                seen.number("tls", tls.as_secs_f64(), Unit::Seconds);
            }
            seen.number("first byte", hop.first_byte.as_secs_f64(), Unit::Seconds);
            seen.number("transfer", hop.transfer.as_secs_f64(), Unit::Seconds);
        }
        seen.number("redirects", (answer.hops.len() - 1) as f64, Unit::Count);
        match self.fetch.url.scheme() == "https" {
            true => seen.flag("stays on https", answer.hops.iter().all(|h| h.url.scheme() == "https")),
            false => seen.not_applicable("stays on https", "it begins on http"),
        };
        seen.number("body size", answer.body.len() as f64, Unit::Bytes);
        seen.flag("body ended", !matches!(answer.end, BodyEnd::TooSlow | BodyEnd::Broken(_)));
        seen.flag("body within limit", answer.end != BodyEnd::TooLong);
        match &answer.end {
            BodyEnd::Broken(why) => {
                seen.evidence(format!("the body broke off: {why}"));
            }
            BodyEnd::TooSlow => {
                seen.evidence(format!("the body did not end in {} s", self.fetch.limit.as_secs_f64()));
            }
            BodyEnd::TooLong => {
                seen.evidence(format!("the body is longer than {}", Unit::Bytes.show(self.fetch.body_limit as f64)));
            }
            BodyEnd::Whole => {}
        }
        let theirs = answer.headers.get(DATE).and_then(|d| d.to_str().ok());
        if let Some(theirs) = theirs.and_then(|d| DateTime::parse_from_rfc2822(d).ok()) {
            let off = (cx.now - theirs.to_utc()).as_seconds_f64() + answer.took.as_secs_f64();
            seen.number("clock off", off, Unit::Seconds);
        }
        self.expectations(seen, answer);
    }

    fn expectations(&self, seen: &mut Observation, answer: &Exchange) {
        let text = String::from_utf8_lossy(&answer.body);
        let json: Option<Json> = match self.expect.iter().any(|e| matches!(e, Expect::Json(..) | Expect::JsonBelow(..)))
        {
            true => match serde_json::from_slice(&answer.body) {
                Ok(json) => Some(json),
                Err(e) => {
                    let kind = answer.headers.get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or("none");
                    seen.evidence(format!("the body is no JSON ({e}; content type: {kind})"));
                    None
                }
            },
            false => None,
        };
        let whole = answer.end == BodyEnd::Whole;
        for expect in &self.expect {
            let name = reading(expect);
            match expect {
                Expect::Status(_) => {}
                Expect::Header(header, wanted) => {
                    let mut values = answer.headers.get_all(header.as_str()).iter();
                    seen.flag(name, values.any(|v| wanted.is_empty() || v.as_bytes() == wanted.as_bytes()));
                }
                // Of a body that was not read as a whole, only what was found is known.
                Expect::Body(wanted) if text.contains(wanted.as_str()) => {
                    seen.flag(name, true);
                }
                Expect::Body(_) if whole => {
                    seen.flag(name, false);
                }
                Expect::NotInBody(unwanted) if text.contains(unwanted.as_str()) => {
                    seen.flag(name, false);
                }
                Expect::NotInBody(_) if whole => {
                    seen.flag(name, true);
                }
                Expect::Body(_) | Expect::NotInBody(_) => {}
                Expect::Json(pointer, wanted) => match json.as_ref().and_then(|j| j.pointer(pointer)) {
                    Some(Json::Bool(is)) if wanted.is_boolean() => {
                        seen.flag(name, *is);
                    }
                    Some(Json::String(is)) if wanted.is_string() => {
                        seen.text(name, is.clone());
                    }
                    Some(is) if std::mem::discriminant(is) == std::mem::discriminant(wanted) => {
                        seen.flag(name, is == wanted);
                    }
                    // Missing or of another type: unknown.
                    _ => {}
                },
                Expect::JsonBelow(pointer, unit, _) => {
                    if let Some(n) = json.as_ref().and_then(|j| j.pointer(pointer)).and_then(Json::as_f64) {
                        seen.number(name, n, unit.clone());
                    }
                }
            }
        }
    }
}

/// The name of the reading of an expectation.
fn reading(expect: &Expect) -> String {
    match expect {
        Expect::Status(_) => "status as expected".into(),
        Expect::Header(name, wanted) if wanted.is_empty() => format!("header {name}"),
        Expect::Header(name, wanted) => format!("header {name}: {wanted}"),
        Expect::Body(text) => format!("body has {text:?}"),
        Expect::NotInBody(text) => format!("body lacks {text:?}"),
        Expect::Json(pointer, _) | Expect::JsonBelow(pointer, ..) => format!("json {pointer}"),
    }
}

fn line(hop: &Hop) -> String {
    let ms = |d: Duration| format!("{:.1} ms", d.as_secs_f64() * 1000.0);
    format!(
        "{} {} from {}: dns {}, connect {}, tls {}, first byte {}, transfer {}",
        hop.status.as_u16(),
        shown(&hop.url),
        hop.address,
        ms(hop.dns),
        ms(hop.connect),
        hop.tls.map_or("none".into(), ms),
        ms(hop.first_byte),
        ms(hop.transfer),
    )
}

/// An address of http or https.
pub(crate) fn address(text: &str) -> Result<Url> {
    let wrong = |why: String| {
        Error::new(ErrorKind::Config, format!("an address: {why}"))
            .with_next_step("write it as https://shop.example/path")
    };
    let url = Url::parse(text).map_err(|e| wrong(e.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() => Ok(url),
        other => Err(wrong(format!("{other}: is neither http nor https"))),
    }
}

/// A header whose value is shown to nobody.
pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let wrong = || {
        Error::new(ErrorKind::Config, format!("{name:?} is no header, or its value has characters that none may have"))
            .with_next_step("look for line ends in it")
    };
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// One client for all probes that trust the roots of this machine.
pub(crate) fn shared_client() -> Result<Arc<rustls::ClientConfig>> {
    static CLIENT: std::sync::OnceLock<Arc<rustls::ClientConfig>> = std::sync::OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(Arc::clone(client));
    }
    let client = Trust::of_this_machine().strict()?;
    Ok(Arc::clone(CLIENT.get_or_init(|| client)))
}

/// Whether a status says that the key was refused.
pub(crate) fn refused(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
