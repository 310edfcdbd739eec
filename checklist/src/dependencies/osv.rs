//! The API of OSV (google.github.io/osv.dev/api): which advisories are about which packages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use rustls_platform_verifier::BuilderVerifierExt;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Advisory, Package};
use crate::error::{Error, ErrorKind, Result};

/// Packages of one question; the API takes a thousand.
const BATCH: usize = 1000;
/// Bytes of one answer that are read.
const MOST: usize = 32 << 20;
/// Advisories that are fetched; a shop with more has other troubles than their number.
const ADVISORIES: usize = 2000;
/// Pages of one answer.
const PAGES: usize = 50;
/// Tries of a request, where the API is out of order or asks for patience.
const TRIES: u32 = 3;

/// The API of OSV, or one that speaks like it. It is told the names and versions of packages, and nothing else.
#[derive(Debug)]
pub struct OsvApi {
    base: Url,
    client: Client,
    pause: Duration,
}

#[derive(Serialize)]
struct Question<'a> {
    queries: Vec<Query<'a>>,
}

#[derive(Serialize, Clone)]
struct Query<'a> {
    package: Asked<'a>,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_token: Option<String>,
}

#[derive(Serialize, Clone)]
struct Asked<'a> {
    name: &'a str,
    ecosystem: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Hits>,
}

#[derive(Deserialize)]
struct Hits {
    #[serde(default)]
    vulns: Vec<Hit>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Hit {
    id: String,
}

impl OsvApi {
    /// Where Google runs it.
    pub const ADDRESS: &str = "https://api.osv.dev";

    /// The API at that address.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address of HTTP.
    pub fn at(address: &str) -> Result<Self> {
        let base = Url::parse(address).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        let base = base.ok_or_else(|| {
            Error::new(ErrorKind::Config, "the API of OSV: is no address of HTTP")
                .with_next_step(format!("write {}", Self::ADDRESS))
        })?;
        let no_tls = |e: rustls::Error| Error::new(ErrorKind::Config, "no TLS").with_source(e);
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(no_tls)?
            .with_platform_verifier()
            .map_err(no_tls)?
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(Duration::from_secs(30))
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|e| Error::new(ErrorKind::Config, "no client for HTTP").with_source(e))?;
        Ok(Self { base, client, pause: Duration::from_secs(1) })
    }

    /// The advisories about these packages, each once. An answer to the first question has ids only, so each is asked for by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where the API does not answer, [`ErrorKind::Malformed`] where what it says is not what it should be: no
    /// answer is not the answer that all is well.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn advisories(&self, packages: &[Package]) -> Result<Vec<Advisory>> {
        let asked: BTreeSet<(&str, &str, &'static str)> =
            packages.iter().map(|p| (p.name.as_str(), p.version.as_str(), p.ecosystem.name())).collect();
        let queries: Vec<Query<'_>> = asked
            .into_iter()
            .map(|(name, version, ecosystem)| Query { package: Asked { name, ecosystem }, version, page_token: None })
            .collect();
        let mut ids = BTreeSet::new();
        for batch in queries.chunks(BATCH) {
            let mut open = batch.to_vec();
            let mut pages = 0;
            while !open.is_empty() {
                pages += 1;
                if pages > PAGES {
                    return Err(self.odd("its answer has no end"));
                }
                let asked = open.len();
                let answer: Answer = self.ask("v1/querybatch", Some(&Question { queries: open.clone() })).await?;
                if answer.results.len() != asked {
                    return Err(self.odd(&format!("{} answers to {asked} questions", answer.results.len())));
                }
                let mut next = Vec::new();
                for (query, hits) in open.into_iter().zip(answer.results) {
                    ids.extend(hits.vulns.into_iter().map(|hit| hit.id));
                    let page_token = hits.next_page_token.filter(|token| !token.is_empty());
                    next.extend(page_token.map(|token| Query { page_token: Some(token), ..query }));
                }
                open = next;
            }
        }
        if ids.len() > ADVISORIES {
            return Err(self.odd(&format!("{} advisories are more than {ADVISORIES}", ids.len())));
        }
        let mut out = Vec::with_capacity(ids.len());
        for id in ids {
            // An id becomes part of an address.
            if !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':')) {
                return Err(self.odd("an id with strange letters"));
            }
            let advisory: Advisory = self.ask::<(), _>(&format!("v1/vulns/{id}"), None).await?;
            if advisory.id != id {
                return Err(self.odd(&format!("{} instead of {id}", advisory.id)));
            }
            out.push(advisory);
        }
        Ok(out)
    }

    fn odd(&self, what: &str) -> Error {
        Error::new(ErrorKind::Malformed, format!("the API of OSV at {}: {what}", self.base))
            .with_next_step("use an unpacked dump of OSV instead: --advisories DIR")
    }

    async fn ask<Q: Serialize, A: for<'de> Deserialize<'de>>(&self, path: &str, question: Option<&Q>) -> Result<A> {
        let url = self.base.join(path).map_err(|e| self.odd("no address").with_source(e))?;
        let body =
            question.map(|q| serde_json::to_vec(q).map_err(|e| self.odd("no question").with_source(e))).transpose()?;
        let mut tried = 0;
        loop {
            tried += 1;
            match self.once(&url, body.clone()).await {
                Ok(bytes) => {
                    return serde_json::from_slice(&bytes).map_err(|e| self.odd("no such answer").with_source(e));
                }
                Err(e) if e.kind() == ErrorKind::Unreachable && tried < TRIES => {
                    tokio::time::sleep(self.pause * tried).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn once(&self, url: &Url, body: Option<Vec<u8>>) -> Result<Vec<u8>> {
        let silent = |e: reqwest::Error| {
            Error::new(ErrorKind::Unreachable, format!("the API of OSV at {}: no answer", self.base))
                .with_next_step("see whether it is reachable from here, or use an unpacked dump: --advisories DIR")
                .with_source(e.without_url())
        };
        let request = match body {
            Some(body) => self.client.post(url.clone()).header("content-type", "application/json").body(body),
            None => self.client.get(url.clone()),
        };
        let mut answer = request.header("user-agent", "caretaker-checklist").send().await.map_err(silent)?;
        let status = answer.status().as_u16();
        match status {
            200 => {}
            429 | 500.. => {
                return Err(Error::new(
                    ErrorKind::Unreachable,
                    format!("the API of OSV at {}: answers {status}", self.base),
                )
                .with_next_step("try again later, or use an unpacked dump: --advisories DIR"));
            }
            _ => return Err(self.odd(&format!("answers {status}"))),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(silent)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MOST {
                return Err(self.odd("its answer has no end"));
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependencies::{Ecosystem, Scope, compare};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::Mutex;

    type Seen = Arc<Mutex<Vec<(String, String)>>>;

    /// A server in the API's shape, as its documentation records it; each request is answered by the function, and written down.
    fn serve(answer: fn(&str, &str, usize) -> (u16, String)) -> (OsvApi, Seen) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = OsvApi::at(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let seen = Seen::default();
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut first, mut length) = (String::new(), 0);
                if reader.read_line(&mut first).unwrap() == 0 {
                    continue;
                }
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let (path, body) = (first.split(' ').nth(1).unwrap().to_owned(), String::from_utf8(body).unwrap());
                let at = {
                    let mut log = log.lock().unwrap();
                    log.push((path.clone(), body.clone()));
                    log.len() - 1
                };
                let (status, text) = answer(&path, &body, at);
                write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                    text.len()
                )
                .unwrap();
            }
        });
        (OsvApi { pause: Duration::ZERO, ..api }, seen)
    }

    fn packages() -> Vec<Package> {
        let one = |name: &str, version: &str| Package {
            ecosystem: Ecosystem::Npm,
            name: name.into(),
            version: version.into(),
            scope: Scope::Runs,
            file: "package-lock.json".into(),
        };
        vec![one("lodash", "4.17.20"), one("next", "14.2.0"), one("react", "18.0.0")]
    }

    fn vuln(id: &str, package: &str) -> String {
        format!(
            r#"{{"id":"{id}","modified":"2026-11-20T00:00:00Z","affected":[{{"package":{{"ecosystem":"npm","name":"{package}"}},
            "ranges":[{{"type":"SEMVER","events":[{{"introduced":"0"}},{{"fixed":"99.0.0"}}]}}]}}]}}"#
        )
    }

    #[tokio::test]
    async fn ids_are_asked_for_one_by_one_and_pages_to_their_end() {
        let (api, seen) = serve(|path, body, at| {
            match (path, at) {
            // Out of order at first.
            (_, 0) => (503, String::new()),
            ("/v1/querybatch", _) if body.contains("page_token") => {
                (200, r#"{"results":[{"vulns":[{"id":"GHSA-2"},{"id":"GHSA-1"}]}]}"#.into())
            }
            ("/v1/querybatch", _) => (
                200,
                r#"{"results":[{"vulns":[{"id":"GHSA-1","modified":"2026-11-20T00:00:00Z"}],"next_page_token":"t"},{},{}]}"#.into(),
            ),
            ("/v1/vulns/GHSA-1", _) => (200, vuln("GHSA-1", "lodash")),
            ("/v1/vulns/GHSA-2", _) => (200, vuln("GHSA-2", "lodash")),
            _ => (404, String::new()),
        }
        });
        let advisories = api.advisories(&packages()).await.unwrap();
        let report = compare(&packages(), &advisories, &[], chrono::Utc::now());
        let found: Vec<_> = report.found.iter().map(|v| (v.package.as_str(), v.id.as_str())).collect();
        assert_eq!(found, [("lodash", "GHSA-1"), ("lodash", "GHSA-2")]);
        let seen = seen.lock().unwrap();
        let first: serde_json::Value = serde_json::from_str(&seen[1].1).unwrap();
        assert_eq!(
            first["queries"][0],
            serde_json::json!({"package": {"name": "lodash", "ecosystem": "npm"}, "version": "4.17.20"})
        );
        let second: serde_json::Value = serde_json::from_str(&seen[2].1).unwrap();
        assert_eq!(
            (second["queries"].as_array().unwrap().len(), &second["queries"][0]["page_token"]),
            (1, &"t".into())
        );
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_no_clean_bill() {
        let kind = |answer| async move { serve(answer).0.advisories(&packages()).await.unwrap_err().kind() };
        assert_eq!(kind(|_, _, _| (503, String::new())).await, ErrorKind::Unreachable);
        assert_eq!(kind(|_, _, _| (200, "<html>".into())).await, ErrorKind::Malformed);
        assert_eq!(kind(|_, _, _| (400, "{}".into())).await, ErrorKind::Malformed);
        assert_eq!(kind(|_, _, _| (200, r#"{"results":[{}]}"#.into())).await, ErrorKind::Malformed, "three were asked");
        let endless = kind(|_, body, _| {
            let asked = body.matches("ecosystem").count();
            (200, format!(r#"{{"results":[{}]}}"#, vec![r#"{"next_page_token":"t"}"#; asked].join(",")))
        });
        assert_eq!(endless.await, ErrorKind::Malformed);
        let outside = kind(|path, _, _| match path {
            "/v1/querybatch" => (200, r#"{"results":[{"vulns":[{"id":"../../x"}]},{},{}]}"#.into()),
            _ => (200, "{}".into()),
        });
        assert_eq!(outside.await, ErrorKind::Malformed);
    }
}
