//! A store that a repository can rely on is told from one that it cannot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::object_store::memory::InMemory;
use backup_core::object_store::path::Path;
use backup_core::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use backup_core::{Store, StoreReport, TrialOutcome, check_store};
use futures::StreamExt;
use futures::stream::BoxStream;

/// A store with one fault.
#[derive(Debug)]
struct Odd {
    inner: InMemory,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Overwrites,
    ListsNothing,
    KeepsEverything,
    ClockIsBehind,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Odd")
    }
}

#[async_trait]
impl ObjectStore for Odd {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        if self.fault == Fault::Overwrites {
            options.mode = PutMode::Overwrite;
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, l: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(l, o).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.fault != Fault::KeepsEverything {
            return self.inner.delete_stream(locations);
        }
        let denied = |path: Result<Path>| {
            Err(Error::PermissionDenied { path: path?.to_string(), source: "AccessDenied".into() })
        };
        locations.map(denied).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault {
            Fault::ListsNothing => futures::stream::empty().boxed(),
            Fault::ClockIsBehind => {
                let late = |m: Result<ObjectMeta>| {
                    m.map(|m| ObjectMeta { last_modified: m.last_modified - chrono::TimeDelta::hours(1), ..m })
                };
                self.inner.list(prefix).map(late).boxed()
            }
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn of(report: &StoreReport, name: &str) -> TrialOutcome {
    report.trials.iter().find(|t| t.name == name).unwrap().outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_and_a_bucket_are_good_and_left_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    #[allow(unused_mut)]
    let mut stores = vec![Store::folder(dir.path()).unwrap(), Store::from_url("memory:").unwrap()];
    #[cfg(feature = "s3")]
    let server = storefront::s3::S3Server::start().await.unwrap();
    #[cfg(feature = "s3")]
    stores.push({
        let s3 = backup_core::object_store::aws::AmazonS3Builder::new()
            .with_endpoint(server.endpoint())
            .with_allow_http(true)
            .with_region("eu-west-1")
            .with_access_key_id(storefront::s3::ACCESS_KEY)
            .with_secret_access_key(storefront::s3::SECRET_KEY)
            .with_bucket_name(storefront::s3::BUCKET);
        Store::s3(s3, "shop", "s3://bucket/shop").unwrap()
    });
    for store in stores {
        let report = check_store(&store).await.unwrap();
        assert!(report.is_good(), "{report:?}");
        assert!(report.written_per_second.is_some_and(|n| n > 0) && report.read_per_second.is_some_and(|n| n > 0));
        assert_eq!(report.trials.len(), 7, "{report:?}");
        assert_eq!(of(&report, "delete"), TrialOutcome::Note);
    }
    assert_eq!(std::fs::read_dir(dir.path().join("locks")).map_or(0, Iterator::count), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_does_not_keep_is_named() {
    let report = async |fault| {
        let store = Store::new(Arc::new(Odd { inner: InMemory::new(), fault }), "odd:");
        check_store(&store).await.unwrap()
    };
    let overwrites = report(Fault::Overwrites).await;
    assert_eq!(of(&overwrites, "create only"), TrialOutcome::Bad);
    assert_eq!(of(&overwrites, "race"), TrialOutcome::Bad);
    assert!(!overwrites.is_good());
    let lags = report(Fault::ListsNothing).await;
    assert_eq!(of(&lags, "list after write"), TrialOutcome::Note);
    let keeps = report(Fault::KeepsEverything).await;
    assert_eq!(of(&keeps, "delete"), TrialOutcome::Good);
    assert!(keeps.is_good());
    assert_eq!(of(&report(Fault::ClockIsBehind).await, "clock"), TrialOutcome::Bad);
}
