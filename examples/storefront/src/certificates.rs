//! Certificates of every kind that a shop has had: good ones, and those that nobody should trust.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::Error;

/// Certificates for `shop.test` by an authority of their own, as files in PEM; they go with this value.
#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
}

/// What may be wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: for 90 days, with its intermediate.
    Good,
    /// Its last day was yesterday.
    Expired,
    /// Its first day is tomorrow.
    NotYetValid,
    /// For `other.test`.
    WrongName,
    /// By itself.
    SelfSigned,
    /// Good, and shown without its intermediate.
    MissingIntermediate,
    /// Good, and shown with one certificate more: of the root, by an older root, expired.
    ExpiredExtra,
    /// Good, for ten days more.
    EndsSoon,
    /// Good for 90 days, by an intermediate that has three.
    ChainEndsSoon,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Good,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongName,
        Self::SelfSigned,
        Self::MissingIntermediate,
        Self::ExpiredExtra,
        Self::EndsSoon,
        Self::ChainEndsSoon,
    ];

    /// The name of its files.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl Authority {
    /// Makes all of them.
    pub fn new() -> Result<Self, Error> {
        let directory = tempfile::Builder::new().prefix("certificates").tempdir_in("/tmp")?;
        make(directory.path()).map_err(|e| Error::Server(format!("certificates: {e}")))?;
        Ok(Self { directory })
    }

    /// The root to trust.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root.crt")
    }

    /// Certificate (with what a server shows beside it) and key.
    pub fn of(&self, kind: Kind) -> (PathBuf, PathBuf) {
        let file = |end: &str| self.directory.path().join(format!("{}.{end}", kind.name()));
        (file("crt"), file("key"))
    }

    /// The two lines of an nginx server.
    pub fn nginx(&self, kind: Kind) -> String {
        let (certificate, key) = self.of(kind);
        format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display())
    }
}

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn make(at: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let now = OffsetDateTime::now_utc();
    let day = Duration::DAY;
    let root_key = KeyPair::generate()?;
    let root_params = authority("storefront root", now - day * 900, now + day * 3000);
    let root_certificate = root_params.self_signed(&root_key)?;
    std::fs::write(at.join("root.crt"), root_certificate.pem())?;
    let root_key_again = KeyPair::from_pem(&root_key.serialize_pem())?;
    let root = Issuer::new(root_params.clone(), root_key);
    let intermediate = |name: &str, ends: OffsetDateTime| -> Result<Signer, rcgen::Error> {
        let key = KeyPair::generate()?;
        let params = authority(name, now - day * 300, ends);
        let certificate = params.signed_by(&key, &root)?;
        Ok(Signer { pem: certificate.pem(), issuer: Issuer::new(params, key) })
    };
    let long = intermediate("storefront intermediate", now + day * 900)?;
    let short = intermediate("storefront old intermediate", now + day * 3)?;
    // The same root's key, signed by a root from before, which is over.
    let old_key = KeyPair::generate()?;
    let old = Issuer::new(authority("storefront root of old", date_time_ymd(2000, 1, 1), now - day), old_key);
    let mut crossed = root_params;
    crossed.not_after = now - day;
    let crossed = crossed.signed_by(&root_key_again, &old)?;

    for kind in Kind::ALL {
        let name = if kind == Kind::WrongName { "other.test" } else { "shop.test" };
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let (from, to) = match kind {
            Kind::Expired => (now - day * 90, now - day),
            Kind::NotYetValid => (now + day, now + day * 91),
            Kind::EndsSoon => (now - day * 80, now + day * 10),
            _ => (now - day, now + day * 89),
        };
        (params.not_before, params.not_after) = (from, to);
        let key = KeyPair::generate()?;
        let signer = if kind == Kind::ChainEndsSoon { &short } else { &long };
        let leaf: Certificate = match kind {
            Kind::SelfSigned => params.self_signed(&key)?,
            _ => params.signed_by(&key, &signer.issuer)?,
        };
        let beside = match kind {
            Kind::SelfSigned | Kind::MissingIntermediate => String::new(),
            Kind::ExpiredExtra => format!("{}{}", signer.pem, crossed.pem()),
            _ => signer.pem.clone(),
        };
        std::fs::write(at.join(format!("{}.crt", kind.name())), format!("{}{beside}", leaf.pem()))?;
        std::fs::write(at.join(format!("{}.key", kind.name())), key.serialize_pem())?;
    }
    Ok(())
}

fn authority(name: &str, from: OffsetDateTime, to: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (from, to);
    params
}
