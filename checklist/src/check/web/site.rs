//! A site, asked politely: each address once, answers bounded, redirects seen.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::{Mutex, Semaphore};
use url::Url;

use super::html::Document;
use crate::error::{Error, ErrorKind, Result, file};

/// Bytes of an answer that are read.
const MOST: usize = 4 << 20;
/// Requests at once.
const AT_ONCE: usize = 4;

/// What is asked of a site beside its front page.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SiteOptions {
    /// Where HTTP without TLS is answered; port 80 of the same host without.
    pub http: Option<String>,
    /// Pages with forms: log-in, checkout, contact.
    pub pages: Vec<String>,
    /// Addresses of the API.
    pub api: Vec<String>,
    /// Addresses of the administration.
    pub admin: Vec<String>,
    /// The pages on which customers pay.
    pub checkout: Vec<String>,
    /// Where the host is reached, instead of what its name resolves to: before a move, say.
    pub address: Option<std::net::IpAddr>,
    /// Certificates that are trusted instead of the system's.
    pub roots: Option<std::path::PathBuf>,
}

impl Default for SiteOptions {
    fn default() -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Self {
            http: None,
            pages: owned(&["/login", "/login.php", "/signin", "/register", "/contact", "/account"]),
            api: owned(&["/api/health", "/api/products", "/api/auth/session", "/api/cart", "/api.php"]),
            admin: owned(&[
                "/admin",
                "/admin/",
                "/admin/orders",
                "/admin/users",
                "/admin/index.php",
                "/admin.php",
                "/dashboard",
                "/api/admin/orders",
                "/api/admin/users",
                "/phpmyadmin/",
                "/adminer.php",
            ]),
            checkout: owned(&["/checkout", "/checkout.php", "/cart", "/cart.php", "/payment"]),
            address: None,
            roots: None,
        }
    }
}

/// A site. It answers for one audit: what was fetched once is kept.
#[derive(Debug)]
pub struct Site {
    pub(super) base: Url,
    pub(super) options: SiteOptions,
    client: Client,
    permits: Semaphore,
    answers: Mutex<HashMap<String, Arc<Answer>>>,
}

/// What a site answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) url: Url,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Whether there is more of it.
    pub(super) is_cut: bool,
}

impl Site {
    /// The site at that address.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address of HTTP, or the certificates cannot be read.
    pub fn new(url: &str, options: SiteOptions) -> Result<Self> {
        let base = Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        let base = base.ok_or_else(|| {
            Error::new(ErrorKind::Config, "the site: is no address of HTTP")
                .with_next_step("write https://shop.example")
        })?;
        let tls = tls(options.roots.as_deref())?;
        let mut client = Client::builder();
        if let (Some(address), Some(host)) = (options.address, base.host_str()) {
            client = client.resolve(host, std::net::SocketAddr::new(address, 0));
        }
        let client = client
            .tls_backend_preconfigured(tls)
            .timeout(Duration::from_secs(15))
            .connect_timeout(Duration::from_secs(10))
            .redirect(Policy::none())
            // What a proxy answers is not what customers see.
            .no_proxy()
            .build()
            .map_err(|e| Error::new(ErrorKind::Config, "no client for HTTP").with_source(e))?;
        Ok(Self { base, options, client, permits: Semaphore::new(AT_ONCE), answers: Mutex::default() })
    }

    /// An address of the site.
    pub(super) fn at(&self, path: &str) -> Result<Url> {
        self.base
            .join(path)
            .map_err(|e| Error::new(ErrorKind::Config, format!("{path:?} is no path of the site")).with_source(e))
    }

    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.host_str() == self.base.host_str()
    }

    /// What an address answers to a first visit; asked once.
    pub(super) async fn get(&self, path: &str) -> Result<Arc<Answer>> {
        let url = self.at(path)?;
        if let Some(known) = self.answers.lock().await.get(url.as_str()) {
            return Ok(Arc::clone(known));
        }
        let answer = Arc::new(self.send(Method::GET, url.clone(), &[], None).await?);
        self.answers.lock().await.insert(url.into(), Arc::clone(&answer));
        Ok(answer)
    }

    /// The same, after at most five redirects within the site.
    pub(super) async fn follow(&self, path: &str) -> Result<Arc<Answer>> {
        let mut answer = self.get(path).await?;
        for _ in 0..5 {
            match answer.location().filter(|to| self.is_own(to)) {
                Some(to) => answer = self.get(to.as_str()).await?,
                None => break,
            }
        }
        Ok(answer)
    }

    /// The front page as a document; an error where there is none.
    pub(super) async fn home(&self) -> Result<(Arc<Answer>, Document)> {
        let answer = self.follow("/").await?;
        if answer.status != 200 {
            return Err(Error::new(ErrorKind::Unreachable, format!("{}: answers {}", answer.url, answer.status))
                .with_next_step("look at the front page in a browser"));
        }
        let document = answer.document();
        Ok((answer, document))
    }

    /// The front page and those of the given paths that are pages.
    pub(super) async fn documents(&self, paths: &[String]) -> Result<Vec<(Arc<Answer>, Document)>> {
        let mut out = vec![self.home().await?];
        for path in paths {
            let Ok(answer) = self.follow(path).await else { continue };
            let known = out.iter().any(|(known, _)| known.url == answer.url);
            if answer.status == 200 && answer.is_html() && !known {
                let document = answer.document();
                out.push((answer, document));
            }
        }
        Ok(out)
    }

    /// A request that is not kept.
    pub(super) async fn send(
        &self,
        method: Method,
        url: Url,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Answer> {
        let _permit = self.permits.acquire().await;
        let mut request = self.client.request(method, url.clone()).header(USER_AGENT, "caretaker-checklist");
        for (name, value) in headers {
            let bad = || Error::new(ErrorKind::Config, format!("{name}: is no header"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            request = request.header(name, HeaderValue::from_str(value).map_err(|_| bad())?);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let silent = |e: reqwest::Error| {
            let e = e.without_url();
            Error::new(ErrorKind::Unreachable, format!("{}: no answer: {}", shown(&url), root(&e)))
                .with_next_step("see whether the address is right and reachable from here")
                .with_source(e)
        };
        let mut answer = request.send().await.map_err(silent)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(silent)? {
            body.extend_from_slice(&chunk[..chunk.len().min(MOST - body.len())]);
            if body.len() == MOST {
                break;
            }
        }
        let is_cut = body.len() == MOST;
        Ok(Answer { url, status, headers, body, is_cut })
    }
}

impl Answer {
    /// A header's value; of several, all of them.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let all: Vec<String> =
            self.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// Each of a header's values.
    pub(super) fn each(&self, name: &str) -> impl Iterator<Item = String> {
        self.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    }

    /// Where it leads.
    pub(super) fn location(&self) -> Option<Url> {
        let to = self.headers.get(LOCATION).filter(|_| (300..400).contains(&self.status))?;
        self.url.join(to.to_str().ok()?).ok()
    }

    pub(super) fn is_html(&self) -> bool {
        self.header("content-type").is_some_and(|t| t.starts_with("text/html"))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn document(&self) -> Document {
        Document::parse(&self.text())
    }

    /// Its address, without a query.
    pub(super) fn place(&self) -> String {
        shown(&self.url)
    }
}

/// An address for people: without login and query.
fn shown(url: &Url) -> String {
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn root(e: &dyn std::error::Error) -> String {
    let mut cause = e;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn tls(roots: Option<&Path>) -> Result<rustls::ClientConfig> {
    let no_tls = |e: rustls::Error| Error::new(ErrorKind::Config, "no TLS").with_source(e);
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(no_tls)?;
    let Some(path) = roots else {
        return Ok(builder.with_platform_verifier().map_err(no_tls)?.with_no_client_auth());
    };
    let bytes = std::fs::read(path).map_err(|e| file(path, "cannot be read", e))?;
    let mut store = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let bad = |_| Error::new(ErrorKind::Config, format!("{}: is no certificate in PEM", path.display()));
        store.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
    }
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}
