//! What a service needs of this crate: every verb can be spawned, so its future is `Send`.

#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use backup_core::{
    BackupOptions, DrillOptions, Keys, LeaseMode, NoProgress, PruneOptions, Repository, RestoreOptions, Result,
    Retention, Store, SyncOptions, Target, VerifyLevel, VerifyOptions, sync,
};

fn spawnable<T>(future: impl Future<Output = Result<T>> + Send) -> impl Future<Output = Result<T>> + Send {
    future
}

#[tokio::test]
async fn every_verb_can_be_spawned() {
    let dir = tempfile::tempdir().unwrap();
    let uploads = dir.path().join("uploads");
    std::fs::create_dir(&uploads).unwrap();
    std::fs::write(uploads.join("a.jpg"), "a").unwrap();
    let (store, copy) = (Store::from_url("memory:").unwrap(), Store::from_url("memory:").unwrap());
    let mut keys = Keys::generate().unwrap();
    let r = spawnable(Repository::init(store.clone(), &mut keys, &[])).await.unwrap();
    let source = backup_core::FilesSource::new(&uploads);
    let s = spawnable(r.backup(&source, BackupOptions::default())).await.unwrap();
    spawnable(r.verify(None, VerifyOptions::new(VerifyLevel::Content))).await.unwrap();
    let catalog = spawnable(r.catalog()).await.unwrap();
    let plan = Retention::default().plan(&catalog, backup_core::chrono::Utc::now());
    spawnable(r.prune(&plan, PruneOptions::default())).await.unwrap();
    spawnable(r.diff(&s, &s)).await.unwrap();
    spawnable(sync(&store, &copy, &keys, SyncOptions::default())).await.unwrap();
    spawnable(r.lease(LeaseMode::Shared, "a look")).await.unwrap();
    let target: Box<dyn Target> = Box::new(backup_core::FilesTarget::new(dir.path().join("restored")));
    spawnable(r.restore(&s, target.as_ref(), RestoreOptions::default())).await.unwrap();
    let scratch = backup_core::FilesTarget::new(dir.path().join("scratch"));
    spawnable(r.drill(&s, &scratch, DrillOptions::default())).await.unwrap();
    // Files are no SQL; that it can be asked is enough.
    spawnable(r.export(&s, &dir.path().join("x.sql"), Arc::new(NoProgress))).await.unwrap_err();
}
