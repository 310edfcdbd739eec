//! A request by which a web server, a CDN or the shop itself clears its cache.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method};
use rustls_platform_verifier::BuilderVerifierExt;

use super::{CacheReport, secret};
use crate::policy::HttpCache;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn clear(rule: &HttpCache, apply: bool, report: &mut CacheReport) {
    let method = rule.method.as_deref().unwrap_or("PURGE");
    report.place = format!("{method} {}", without_query(&rule.url));
    report.met = 1;
    if !apply {
        return;
    }
    match send(rule, method).await {
        Ok(status) if (200..300).contains(&status) || rule.accept.contains(&status) => report.cleared = 1,
        Ok(status) => report.failed.push(format!("the answer was {status}")),
        Err(why) => report.failed.push(why),
    }
}

/// What stands behind the question mark may be a secret.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// The status of the answer; its body is not read.
async fn send(rule: &HttpCache, method: &str) -> Result<u16, String> {
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is no method of HTTP"))?;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|tls| tls.with_platform_verifier())
        .map_err(|e| format!("no TLS: {e}"))?
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(PATIENCE)
        // A proxy would get the secret, and answer for itself.
        .no_proxy()
        // Whoever answers for the cache is the one that was named.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| format!("no client: {e}"))?;
    let mut request = client.request(method, &rule.url);
    if let (Some(header), Some(variable)) = (&rule.header, &rule.secret_env) {
        request = request.header(header.as_str(), secret(variable)?);
    }
    match request.send().await {
        Ok(answer) => Ok(answer.status().as_u16()),
        // The URL may hold a secret.
        Err(e) => Err(format!("no answer: {}", root(&e.without_url()))),
    }
}

/// The first cause: what is above it only says that a request failed.
fn root(e: &dyn std::error::Error) -> String {
    let mut cause = e;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_url_are_not_shown() {
        assert_eq!(without_query("https://shop/api/revalidate?secret=x"), "https://shop/api/revalidate");
    }
}
