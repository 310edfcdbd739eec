//! HTTPS for stores, with a TLS provider that is named.
//!
//! Left to itself, the TLS library takes the provider of the whole process, and panics where there are two or none. A
//! library has no business to decide that for the program it is part of.

use std::sync::Arc;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector};
use rustls_platform_verifier::BuilderVerifierExt;

/// Clients with ring and the certificates that the system trusts.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let generic = |source| object_store::Error::Generic { store: "HTTPS", source };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|tls| tls.with_platform_verifier())
            .map_err(|e| generic(e.into()))?
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(Duration::from_secs(10))
            // No answer for so long means that none will come; the request as a whole may take its time.
            .read_timeout(Duration::from_secs(60))
            .build()
            .map_err(|e| generic(e.into()))?;
        Ok(HttpClient::new(client))
    }
}
