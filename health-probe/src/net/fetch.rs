//! One request over HTTP/1.1, redirects followed hop by hop, each on a new connection with its phases timed; the parts of a page
//! on connections that are used again.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;
use url::Url;

use super::address::{Family, Reach, is_link_local, is_public};
use super::connect::{Connected, Destination, Failed, Phase, connect, plain};

/// What to ask, and how far to go.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// For everything, redirects and bodies included.
    pub(crate) limit: Duration,
    /// Bytes of the body that are read at most.
    pub(crate) body_limit: usize,
    pub(crate) redirects: usize,
    pub(crate) family: Family,
    pub(crate) reach: Reach,
    pub(crate) pinned: Option<SocketAddr>,
    /// The address of the page that named this one: it counts as the first of a chain of redirects.
    pub(crate) named_by: Option<IpAddr>,
    pub(crate) tls: Arc<ClientConfig>,
    /// Connections that are used again, for several things of one page; without it, each request has one of its own.
    pub(crate) keep: Option<Kept>,
}

/// Connections on which a whole answer came, by origin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<HashMap<String, Vec<Open>>>>);

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    _running: EndsWithMe,
    address: SocketAddr,
}

impl Kept {
    fn take(&self, url: &Url) -> Option<Open> {
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let of = all.get_mut(&url.origin().ascii_serialization())?;
        while let Some(open) = of.pop() {
            if !open.sender.is_closed() {
                return Some(open);
            }
        }
        None
    }

    fn put(&self, url: &Url, open: Open) {
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        all.entry(url.origin().ascii_serialization()).or_default().push(open);
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) hops: Vec<Hop>,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// As much of it as was read.
    pub(crate) body: Bytes,
    pub(crate) end: BodyEnd,
    pub(crate) took: Duration,
}

/// How a body ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    Whole,
    /// It is longer than what is read at most.
    TooLong,
    /// Its end did not come in time.
    TooSlow,
    /// The connection broke.
    Broken(String),
}

/// One request of a chain of redirects.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) url: Url,
    pub(crate) address: SocketAddr,
    pub(crate) status: StatusCode,
    pub(crate) dns: Duration,
    pub(crate) connect: Duration,
    pub(crate) tls: Option<Duration>,
    /// From the request to the first byte of the answer.
    pub(crate) first_byte: Duration,
    pub(crate) transfer: Duration,
}

/// A request that got no answer, and the hops before it.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    pub(crate) hops: Vec<Hop>,
    pub(crate) failed: Failed,
}

impl Fetch {
    /// A GET with what is right for a probe: ten seconds, a megabyte, ten redirects.
    pub(crate) fn new(url: Url, tls: Arc<ClientConfig>) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            limit: Duration::from_secs(10),
            body_limit: 1 << 20,
            redirects: 10,
            family: Family::Any,
            reach: Reach::AsConfigured,
            pinned: None,
            named_by: None,
            tls,
            keep: None,
        }
    }

    /// Asks, and follows. Dropping the future closes the connection.
    pub(crate) async fn run(&self) -> Result<Exchange, Box<NoAnswer>> {
        let began = Instant::now();
        let until = began + self.limit;
        let mut step = Step { method: self.method.clone(), url: self.url.clone(), headers: self.headers.clone() };
        let mut hops: Vec<Hop> = Vec::new();
        let mut asked = vec![(step.method.clone(), step.url.clone())];
        loop {
            let first = self.named_by.or(hops.first().map(|h: &Hop| h.address.ip()));
            let answer = match self.ask(&step, first, until).await {
                Ok(answer) => answer,
                Err(failed) => return Err(Box::new(NoAnswer { hops, failed })),
            };
            hops.push(answer.hop.clone());
            let next = match self.redirects {
                0 => None,
                _ => step.next(answer.hop.status, &answer.headers),
            };
            let Some(next) = next else {
                return Ok(Exchange {
                    hops,
                    status: answer.hop.status,
                    headers: answer.headers,
                    body: answer.body,
                    end: answer.end,
                    took: began.elapsed(),
                });
            };
            let failed = match next {
                Err(ref why) => Some(why.clone()),
                Ok(ref next) if asked.contains(&(next.method.clone(), next.url.clone())) => {
                    Some(format!("it leads back to {}: a loop", shown(&next.url)))
                }
                Ok(_) if hops.len() > self.redirects => Some(format!("more than {} redirects", self.redirects)),
                Ok(_) => None,
            };
            match (failed, next) {
                (None, Ok(next)) => {
                    asked.push((next.method.clone(), next.url.clone()));
                    step = next;
                }
                (Some(why), _) | (None, Err(why)) => {
                    return Err(Box::new(NoAnswer { hops, failed: Failed::new(Phase::Redirect, why) }));
                }
            }
        }
    }

    async fn ask(&self, step: &Step, first: Option<IpAddr>, until: Instant) -> Result<Answer, Failed> {
        let secure = step.url.scheme() == "https";
        let host = step.url.host_str().ok_or_else(|| Failed::new(Phase::Dns, "an address without a host"))?;
        let pinned =
            self.pinned.filter(|_| step.url.host() == self.url.host() && first.is_none_or(|_| same_port(step, self)));
        let to = Destination {
            host: host.to_owned(),
            port: step.url.port_or_known_default().unwrap_or(80),
            family: self.family,
            pinned,
        };
        let allowed = |ip: IpAddr| match (self.reach, first) {
            (Reach::PublicOnly, _) => is_public(ip),
            (Reach::AsConfigured, None) => true,
            (Reach::AsConfigured, Some(first)) => !is_link_local(ip) && (is_public(ip) || !is_public(first)),
        };
        if let Some(open) = self.keep.as_ref().and_then(|k| k.take(&step.url)).filter(|open| allowed(open.address.ip()))
        {
            let none = Duration::ZERO;
            let stood = Stood { address: open.address, dns: none, connect: none, tls: secure.then_some(none) };
            match self.send(open, step, stood, until).await {
                // A server may end a connection that nobody uses at any moment: that is no failure of what is asked for.
                Err(_) if Instant::now() < until => {}
                outcome => return outcome,
            }
        }
        let connected = connect(&to, until, allowed).await?;
        let Connected { stream, address, dns, connect } = connected;
        if !secure {
            let stood = Stood { address, dns, connect, tls: None };
            return self.exchange(stream, step, stood, until).await;
        }
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())
            .map_err(|e| Failed::new(Phase::Tls, format!("{host} is no name for TLS: {e}")))?;
        let began = Instant::now();
        let shaken = timeout_at(until.into(), TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream)).await;
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(Failed::new(Phase::Tls, e.to_string())),
            Err(_) => {
                return Err(Failed::new(Phase::Tls, format!("no handshake in {} s", plain(began.elapsed()))));
            }
        };
        let stood = Stood { address, dns, connect, tls: Some(began.elapsed()) };
        self.exchange(stream, step, stood, until).await
    }

    async fn exchange<S>(&self, stream: S, step: &Step, stood: Stood, until: Instant) -> Result<Answer, Failed>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let began = Instant::now();
        let opening = hyper::client::conn::http1::Builder::new()
            .max_headers(128)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream));
        let (sender, connection) = match timeout_at(until.into(), opening).await {
            Ok(Ok(open)) => open,
            Ok(Err(e)) => return Err(Failed::new(Phase::Answer, said(&e))),
            Err(_) => return Err(Failed::new(Phase::Answer, format!("no answer in {} s", plain(began.elapsed())))),
        };
        let running = EndsWithMe(tokio::spawn(async move {
            // How it ends is told by the answer.
            let _ = connection.await;
        }));
        let open = Open { sender, _running: running, address: stood.address };
        self.send(open, step, stood, until).await
    }

    async fn send(&self, mut open: Open, step: &Step, stood: Stood, until: Instant) -> Result<Answer, Failed> {
        let began = Instant::now();
        let request = self.request(step)?;
        let asking = async {
            open.sender.ready().await?;
            open.sender.send_request(request).await
        };
        let answer = match timeout_at(until.into(), asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err(Failed::new(Phase::Answer, said(&e))),
            Err(_) => {
                let waited = plain(began.elapsed());
                return Err(Failed::new(Phase::Answer, format!("no answer in {waited} s")));
            }
        };
        let first_byte = began.elapsed();
        let (head, mut body) = answer.into_parts();
        let mut read = Vec::new();
        let end = loop {
            match timeout_at(until.into(), body.frame()).await {
                Err(_) => break BodyEnd::TooSlow,
                Ok(None) => break BodyEnd::Whole,
                Ok(Some(Err(e))) => break BodyEnd::Broken(said(&e)),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        let room = self.body_limit - read.len();
                        read.extend_from_slice(&data[..data.len().min(room)]);
                        if data.len() > room {
                            break BodyEnd::TooLong;
                        }
                    }
                }
            }
        };
        let hop = Hop {
            url: step.url.clone(),
            address: stood.address,
            status: head.status,
            dns: stood.dns,
            connect: stood.connect,
            tls: stood.tls,
            first_byte,
            transfer: began.elapsed() - first_byte,
        };
        drop(body);
        if let Some(kept) = self.keep.as_ref().filter(|_| end == BodyEnd::Whole) {
            kept.put(&step.url, open);
        }
        Ok(Answer { hop, headers: head.headers, body: read.into(), end })
    }

    fn request(&self, step: &Step) -> Result<Request<Full<Bytes>>, Failed> {
        let wrong = |e: http::Error| Failed { ours: true, ..Failed::new(Phase::Request, e.to_string()) };
        let path = match step.url.query() {
            Some(query) => format!("{}?{query}", step.url.path()),
            None => step.url.path().to_owned(),
        };
        let host = match (step.url.host_str(), step.url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => String::new(),
        };
        let body = if step.method == self.method { self.body.clone() } else { Bytes::new() };
        let mut request =
            Request::builder().method(step.method.clone()).uri(path).body(Full::new(body)).map_err(wrong)?;
        let headers = request.headers_mut();
        *headers = step.headers.clone();
        if !headers.contains_key(HOST) || step.url.host() != self.url.host() {
            headers.insert(HOST, HeaderValue::from_str(&host).map_err(|e| wrong(e.into()))?);
        }
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, HeaderValue::from_static("caretaker-health-probe"));
        }
        headers.entry(http::header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        if self.keep.is_none() {
            headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(request)
    }
}

/// An address without what may be secret in it: no user, no password, no query.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only where there is nothing to take away.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.set_fragment(None);
    url.to_string().replace("?%E2%80%A6", "?…")
}

struct Step {
    method: Method,
    url: Url,
    headers: HeaderMap,
}

impl Step {
    /// Where the answer leads; `None` where it is the end.
    fn next(&self, status: StatusCode, headers: &HeaderMap) -> Option<Result<Step, String>> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = headers.get(LOCATION)?;
        let url = location
            .to_str()
            .map_err(|_| "the address it leads to is no text".to_owned())
            .and_then(|l| self.url.join(l).map_err(|e| format!("it leads to no address: {e}")))
            .and_then(|url| match url.scheme() {
                "http" | "https" => Ok(url),
                other => Err(format!("it leads to {other}:")),
            });
        Some(url.map(|url| {
            let method = match (status.as_u16(), &self.method) {
                (303, m) if m != Method::HEAD => Method::GET,
                (301 | 302, m) if m == Method::POST => Method::GET,
                (_, m) => m.clone(),
            };
            let mut headers = self.headers.clone();
            if url.origin() != self.url.origin() {
                // What is meant for one is not shown to the other.
                for name in [AUTHORIZATION, COOKIE, HOST] {
                    headers.remove(name);
                }
                headers =
                    headers.into_iter().filter_map(|(n, v)| Some((n?, v))).filter(|(_, v)| !v.is_sensitive()).collect();
            }
            Step { method, url, headers }
        }))
    }
}

struct Answer {
    hop: Hop,
    headers: HeaderMap,
    body: Bytes,
    end: BodyEnd,
}

struct Stood {
    address: SocketAddr,
    dns: Duration,
    connect: Duration,
    tls: Option<Duration>,
}

/// A task that ends with this value.
#[derive(Debug)]
struct EndsWithMe(JoinHandle<()>);

impl Drop for EndsWithMe {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn same_port(step: &Step, fetch: &Fetch) -> bool {
    step.url.port_or_known_default() == fetch.url.port_or_known_default()
}

/// An error with what is underneath it.
fn said(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let more = c.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = c.source();
    }
    text
}
