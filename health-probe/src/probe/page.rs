//! A page as a browser would load it: the document and what it names, in weight and in time.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};
use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Limits, Policy, Verdict};
use crate::net::fetch::{BodyEnd, Exchange, Fetch, Kept, shown};
use crate::net::tls::Trust;
use crate::observation::{Observation, Unit};
use crate::probe::http::{address, shared_client};
use crate::probe::{Context, Probe, ProbeSpec};

/// Things that a page names and that are fetched, at most.
const MOST: usize = 150;
/// Bytes of one of them.
const LARGEST: usize = 20 << 20;

/// A page with its images, scripts and styles (H10): the document first, then the rest, six at a time over connections that are used
/// again (HTTP/1.1).
///
/// Scripts are not run: what they load is not seen, and what they do takes a browser longer; one that speaks HTTP/2 asks for all at
/// once. What visitors have is what their beacons tell ([`crate::vitals`]). Readings: `reachable`; `load time` (seconds; the
/// guides' 3 s as a warning, 10 s critical), of it `document time`; `page weight` (bytes as sent; a warning from 3 MiB, critical from
/// 10 MiB), `requests`, `broken` (things that could not be fetched; a warning from one on), `insecure` (things fetched without TLS
/// by a page with TLS). Evidence names the heaviest.
#[derive(Clone)]
pub struct PageProbe {
    spec: ProbeSpec,
    fetch: Fetch,
}

impl fmt::Debug for PageProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageProbe")
            .field("id", &self.spec.id)
            .field("url", &shown(&self.fetch.url))
            .finish_non_exhaustive()
    }
}

impl PageProbe {
    /// That page.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address.
    pub fn new(id: impl Into<String>, url: &str) -> Result<Self> {
        let url = address(url)?;
        let mib = f64::from(1 << 20);
        let policy = Policy::new()
            .is("reachable", true, Verdict::Critical)
            .below("load time", Unit::Seconds, Limits::new(3.0, 10.0))
            .below("page weight", Unit::Bytes, Limits::new(3.0 * mib, 10.0 * mib))
            .below("broken", Unit::Count, Limits::warning(1.0))
            .below("insecure", Unit::Count, Limits::warning(1.0));
        let spec = ProbeSpec::new(id, policy).with_response_time("load time");
        let mut fetch = Fetch::new(url, shared_client()?);
        fetch.body_limit = LARGEST;
        fetch.limit = Duration::from_secs(20);
        fetch.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        Ok(Self { spec, fetch })
    }

    /// The same with another limit for each thing that is fetched; 20 seconds without.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.fetch.limit = limit;
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
impl Probe for PageProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        let began = Instant::now();
        let mut fetch = self.fetch.clone();
        fetch.keep = Some(Kept::default());
        let fetch = &fetch;
        let document = match fetch.run().await {
            Ok(answer) if answer.status.is_success() && answer.end == BodyEnd::Whole => answer,
            Err(no) if no.failed.ours => {
                let e = format!("{}: {}: this machine could not ask", self.spec.title, no.failed);
                return Err(Error::new(ErrorKind::Unreachable, e));
            }
            other => {
                seen.flag("reachable", false);
                match other {
                    Ok(answer) => seen.evidence(format!("status {}, {:?}", answer.status.as_u16(), answer.end)),
                    Err(no) => seen.evidence(no.failed.to_string()),
                };
                for name in ["load time", "page weight", "broken", "insecure"] {
                    seen.not_applicable(name, "there was no page");
                }
                seen.took = began.elapsed();
                return Ok(seen);
            }
        };
        let document_time = began.elapsed();
        let base = document.hops.last().map_or(&self.fetch.url, |h| &h.url).clone();
        let html = plain_text(&document)?;
        let named = named(&html, &base);
        let from = document.hops.first().map(|h| h.address.ip());
        // All of it together may take twice as long as one thing.
        let end = began + self.fetch.limit * 2;
        let mut parts: Vec<(Url, Option<usize>, String)> = futures::stream::iter(named.iter().take(MOST).cloned())
            .map(|url| async move {
                let mut fetch = fetch.clone();
                fetch.url = url.clone();
                // A page names what strangers wrote into it.
                fetch.named_by = from;
                fetch.limit = fetch.limit.min(end.saturating_duration_since(Instant::now()));
                if fetch.limit.is_zero() {
                    return (url, None, "there was no time left for it".to_owned());
                }
                match fetch.run().await {
                    Ok(a) if a.status.is_success() && a.end == BodyEnd::Whole => {
                        (url, Some(a.body.len()), String::new())
                    }
                    Ok(a) => (url, None, format!("status {}", a.status.as_u16())),
                    Err(no) => (url, None, no.failed.to_string()),
                }
            })
            .buffer_unordered(6)
            .collect()
            .await;
        let weight = document.body.len() + parts.iter().filter_map(|(_, n, _)| *n).sum::<usize>();
        seen.took = began.elapsed();
        let took = seen.took.as_secs_f64();
        seen.flag("reachable", true).number("load time", took, Unit::Seconds);
        seen.number("document time", document_time.as_secs_f64(), Unit::Seconds);
        seen.number("page weight", weight as f64, Unit::Bytes);
        seen.number("requests", (1 + parts.len()) as f64, Unit::Count);
        if named.len() > MOST {
            seen.evidence(format!("{} more things are named and were not fetched", named.len() - MOST));
        }
        let broken = parts.iter().filter(|(_, n, _)| n.is_none()).count();
        seen.number("broken", broken as f64, Unit::Count);
        for (url, _, why) in parts.iter().filter(|(_, n, _)| n.is_none()).take(10) {
            seen.evidence(format!("broken: {} ({why})", shown(url)));
        }
        match base.scheme() {
            "https" => {
                let insecure = parts.iter().filter(|(url, ..)| url.scheme() == "http").count();
                seen.number("insecure", insecure as f64, Unit::Count)
            }
            _ => seen.not_applicable("insecure", "the page itself has no TLS"),
        };
        parts.sort_by_key(|(_, n, _)| std::cmp::Reverse(n.unwrap_or(0)));
        for (url, bytes, _) in parts.iter().filter(|(_, n, _)| n.is_some_and(|n| n > 100_000)).take(5) {
            seen.evidence(format!("{}: {}", Unit::Bytes.show(bytes.unwrap_or(0) as f64), shown(url)));
        }
        Ok(seen)
    }
}

/// The document's text; a compressed one is unpacked, up to a bound.
fn plain_text(answer: &Exchange) -> Result<String> {
    let gzip = answer.headers.get(CONTENT_ENCODING).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"gzip"));
    if !gzip {
        return Ok(String::from_utf8_lossy(&answer.body).into_owned());
    }
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(&answer.body[..])
        .take(LARGEST as u64)
        .read_to_end(&mut text)
        .map_err(|e| Error::new(ErrorKind::Malformed, "the page says that it is gzip and is not").with_source(e))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What a browser fetches for a document without running its scripts, each once.
fn named(html: &str, base: &Url) -> Vec<Url> {
    let (mut base, mut seen, mut found) = (base.clone(), BTreeSet::new(), Vec::new());
    // What stands in a script is no tag.
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
        let Token::StartTag(tag) = token else { continue };
        let attribute = |name: &[u8]| {
            tag.attributes
                .iter()
                .find(|(n, _)| n.as_slice() == name)
                .map(|(_, v)| String::from_utf8_lossy(v).into_owned())
        };
        let address = match tag.name.as_slice() {
            b"base" => {
                if let Some(other) = attribute(b"href").and_then(|h| base.join(&h).ok()) {
                    base = other;
                }
                continue;
            }
            // What is only loaded when it is scrolled to does not count for the first load.
            b"img" | b"iframe" if attribute(b"loading").is_some_and(|l| l.eq_ignore_ascii_case("lazy")) => continue,
            b"img" | b"script" | b"iframe" | b"embed" | b"input" => attribute(b"src"),
            b"video" => attribute(b"poster"),
            b"link" => {
                let rel = attribute(b"rel").unwrap_or_default().to_ascii_lowercase();
                let loads = rel
                    .split_whitespace()
                    .any(|r| matches!(r, "stylesheet" | "icon" | "preload" | "modulepreload" | "manifest"));
                if loads { attribute(b"href") } else { None }
            }
            _ => None,
        };
        let url = address.filter(|a| !a.trim().is_empty()).and_then(|a| base.join(a.trim()).ok());
        if let Some(mut url) = url.filter(|u| matches!(u.scheme(), "http" | "https")) {
            url.set_fragment(None);
            if seen.insert(url.to_string()) {
                found.push(url);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_fetches_is_named_once() {
        let html = r#"<!doctype html><head><link rel="stylesheet" href=/a.css><link rel=canonical href=/no>
            <script src="/b.js"></script><script>var x = '<img src="/no.png">';</script></head>
            <body><!-- <img src=/no2.png> --><img src='c.png'><img src="c.png#x"><img loading=lazy src=d.png>
            <img src="data:image/png;base64,AA"><a href="/no">x</a><img src="//cdn.test/e.png">"#;
        let names: Vec<String> =
            named(html, &Url::parse("https://shop.test/p/").unwrap()).iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "https://shop.test/a.css",
                "https://shop.test/b.js",
                "https://shop.test/p/c.png",
                "https://cdn.test/e.png"
            ]
        );
    }
}
