//! TLS, with the peer's certificates recorded before they are judged: a library hides them where it refuses them.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, ErrorKind, Result, file};

/// Whom to trust: the roots of this machine, and those that are added.
#[derive(Clone)]
pub(crate) struct Trust {
    roots: Arc<RootCertStore>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({} roots)", self.roots.len())
    }
}

impl Trust {
    /// The roots of this machine, read once a process.
    pub(crate) fn of_this_machine() -> Self {
        static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
        let roots = ROOTS.get_or_init(|| {
            let loaded = rustls_native_certs::load_native_certs();
            for e in &loaded.errors {
                tracing::warn!(error = %e, "some root certificates of this machine cannot be read");
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(loaded.certs);
            Arc::new(roots)
        });
        Self { roots: Arc::clone(roots) }
    }

    /// Those, and the certificates of a PEM file.
    pub(crate) fn and(&self, path: &Path) -> Result<Self> {
        let wrong = |why: String| {
            Error::new(ErrorKind::Config, format!("{}: {why}", path.display()))
                .with_next_step("give a file of certificates in PEM")
        };
        let bytes = std::fs::read(path).map_err(|e| file(path, "cannot be read", e))?;
        let mut roots = (*self.roots).clone();
        let mut added = 0;
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate = certificate.map_err(|e| wrong(format!("no certificate: {e}")))?;
            roots.add(certificate).map_err(|e| wrong(format!("no root certificate: {e}")))?;
            added += 1;
        }
        if added == 0 {
            return Err(wrong("there is no certificate in it".into()));
        }
        Ok(Self { roots: Arc::new(roots) })
    }

    /// A client that refuses what it cannot trust.
    pub(crate) fn strict(&self) -> Result<Arc<ClientConfig>> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider()).build();
        let verifier = verifier.map_err(|e| {
            Error::new(ErrorKind::Config, "this machine has no root certificates")
                .with_next_step("install ca-certificates, or give a file of roots")
                .with_source(e)
        })?;
        client(verifier)
    }

    /// A client that takes any certificate that the peer proves to have the key of, and where they are written down.
    pub(crate) fn recording(&self) -> Result<(Arc<ClientConfig>, Arc<Recorder>)> {
        let recorder = Arc::new(Recorder { chain: Mutex::new(Vec::new()), provider: provider() });
        Ok((client(Arc::clone(&recorder) as Arc<dyn ServerCertVerifier>)?, recorder))
    }

    /// Whether some path leads from the first certificate to a root at `at`, names not looked at.
    pub(crate) fn path_at(
        &self,
        chain: &[CertificateDer<'static>],
        at: UnixTime,
    ) -> std::result::Result<(), rustls::Error> {
        let (leaf, rest) = chain.split_first().ok_or_else(|| rustls::Error::General("no certificate".into()))?;
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &self.roots,
            rest,
            at,
            provider().signature_verification_algorithms.all,
        )
    }
}

/// Whether the certificate is for that name.
pub(crate) fn is_for(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(leaf).and_then(|leaf| verify_server_name(&leaf, name)).is_ok()
}

/// The point in time so many seconds after 1970.
pub(crate) fn unix(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.max(0).unsigned_abs()))
}

fn client(verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(ErrorKind::Unsupported, "TLS cannot be set up").with_source(e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

/// What a peer showed.
#[derive(Debug)]
pub(crate) struct Recorder {
    chain: Mutex<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl Recorder {
    /// The certificates as they were sent, the peer's own first.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(|e| e.into_inner()) = all;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
