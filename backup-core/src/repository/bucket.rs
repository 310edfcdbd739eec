//! Buckets: S3, Google Cloud Storage and Azure, each as the part of it below a prefix.
//!
//! TLS is rustls with ring and the certificates that the system trusts, whatever the process has as its default.

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
use std::sync::Arc;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
use std::time::Duration;

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
use object_store::{BackoffConfig, ObjectStore, RetryConfig, prefix::PrefixStore};

use super::store::Store;
use crate::error::{Error, ErrorKind, Result};

/// The bucket that a URL names; `None` where it names no bucket.
pub(super) fn from_url(url: &str) -> Option<Result<Store>> {
    // However it is spelt, it is one store: what was seen in it is remembered under its name.
    let url = url.trim_end_matches('/');
    let (scheme, rest) = url.split_once("://")?;
    if matches!(scheme, "s3" | "gs" | "az") && rest.contains(['@', '?', '#']) {
        // Credentials stand before an @ or after a ?: the URL is not shown, and would be shown as the store's name.
        return Some(Err(Error::new(ErrorKind::Config, format!("store {scheme}://…: this URL holds an @, ? or #"))
            .with_next_step(
                "write it as s3://BUCKET/PREFIX; credentials, a shared access signature too, belong in the environment",
            )));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "s3" => Some(s3(bucket, prefix, url)),
        "gs" => Some(gcs(bucket, prefix, url)),
        "az" => Some(azure(bucket, prefix, url)),
        _ => None,
    }
}

#[cfg(feature = "s3")]
fn s3(bucket: &str, prefix: &str, url: &str) -> Result<Store> {
    Store::s3(object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket), prefix, url)
}

#[cfg(feature = "gcs")]
fn gcs(bucket: &str, prefix: &str, url: &str) -> Result<Store> {
    Store::gcs(object_store::gcp::GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket), prefix, url)
}

#[cfg(feature = "azure")]
fn azure(container: &str, prefix: &str, url: &str) -> Result<Store> {
    Store::azure(object_store::azure::MicrosoftAzureBuilder::from_env().with_container_name(container), prefix, url)
}

#[cfg(not(feature = "s3"))]
fn s3(_: &str, _: &str, url: &str) -> Result<Store> {
    Err(absent(url, "s3"))
}

#[cfg(not(feature = "gcs"))]
fn gcs(_: &str, _: &str, url: &str) -> Result<Store> {
    Err(absent(url, "gcs"))
}

#[cfg(not(feature = "azure"))]
fn azure(_: &str, _: &str, url: &str) -> Result<Store> {
    Err(absent(url, "azure"))
}

#[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
fn absent(url: &str, feature: &str) -> Error {
    Error::new(ErrorKind::Config, format!("store {url}: this build has no such stores"))
        .with_next_step(format!("enable the feature `{feature}` of backup-core"))
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
impl Store {
    /// The part of an S3 bucket below `prefix` (all of it for ""); `location` is what messages call it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where credentials or region are missing.
    #[cfg(feature = "s3")]
    pub fn s3(builder: object_store::aws::AmazonS3Builder, prefix: &str, location: &str) -> Result<Self> {
        let built = builder.with_retry(retry()).with_http_connector(super::https::Connector).build();
        let next = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT for a store other than Amazon's";
        Ok(Self::bucket(built.map_err(|e| cannot(location, e, next))?, prefix, location))
    }

    /// The part of a Google Cloud Storage bucket below `prefix` (all of it for ""); `location` is what messages call it.
    ///
    /// Built on the same calls as the others, and **not tested** against Google's service or an emulator of it: run
    /// [`check_store`](crate::check_store) on yours first.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where credentials are missing.
    #[cfg(feature = "gcs")]
    pub fn gcs(builder: object_store::gcp::GoogleCloudStorageBuilder, prefix: &str, location: &str) -> Result<Self> {
        let built = builder.with_retry(retry()).with_http_connector(super::https::Connector).build();
        let next = "set GOOGLE_SERVICE_ACCOUNT to the path of the account's key file";
        Ok(Self::bucket(built.map_err(|e| cannot(location, e, next))?, prefix, location))
    }

    /// The part of an Azure Blob Storage container below `prefix` (all of it for ""); `location` is what messages call it.
    ///
    /// Tested against Microsoft's emulator, Azurite (`.ci/matrix azurite`), and **not** against the service itself: run
    /// [`check_store`](crate::check_store) on yours first.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where credentials are missing.
    #[cfg(feature = "azure")]
    pub fn azure(builder: object_store::azure::MicrosoftAzureBuilder, prefix: &str, location: &str) -> Result<Self> {
        let built = builder.with_retry(retry()).with_http_connector(super::https::Connector).build();
        let next = "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_KEY";
        Ok(Self::bucket(built.map_err(|e| cannot(location, e, next))?, prefix, location))
    }

    fn bucket(store: impl ObjectStore, prefix: &str, location: &str) -> Self {
        let store: Arc<dyn ObjectStore> =
            if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) };
        Self::new(store, location)
    }
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..Default::default() },
        max_retries: 5,
        retry_timeout: Duration::from_secs(60),
    }
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn cannot(location: &str, e: object_store::Error, next: &str) -> Error {
    Error::new(ErrorKind::Config, format!("store {location}: {e}")).with_next_step(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_bucket_or_says_what_is_missing() {
        assert!(from_url("ftp://bucket/shop").is_none() && from_url("shop").is_none());
        for (url, feature) in [("s3://b/shop/", cfg!(feature = "s3")), ("gs://b", cfg!(feature = "gcs"))] {
            match from_url(url).unwrap() {
                // Where there are credentials in the environment, or none are needed before the first request.
                Ok(store) => assert!(feature && store.to_string() == url.trim_end_matches('/')),
                Err(e) => assert!(e.kind() == ErrorKind::Config && e.next_step().is_some(), "{e:?}"),
            }
        }
        for url in ["s3://KEY:SECRET@bucket/shop", "az://container/shop?sv=1&sig=SECRET", "gs://b/x#SECRET"] {
            let e = from_url(url).unwrap().unwrap_err();
            assert!(e.kind() == ErrorKind::Config && !format!("{e:?}").contains("SECRET"), "{e:?}");
        }
        let e = from_url("az://container/shop").unwrap().map(drop);
        assert!(e.is_ok() || e.unwrap_err().kind() == ErrorKind::Config);
    }
}
