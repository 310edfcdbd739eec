//! Maintenance mode: every switch does the same, and the guard opens on every way out.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;

use db_maint::ErrorKind;
use db_maint::chrono::{DateTime, TimeDelta, Utc};
use db_maint::mode::{DatabaseRow, EnvFile, FlagFile, MaintenanceGuard, MaintenanceSwitch, Notice};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(storefront::NOW, 0).unwrap()
}

fn notice() -> Notice {
    Notice::new("we are \"moving\"; back soon 🛒", now() + TimeDelta::minutes(30)).with_bypass("let me in")
}

/// What every switch has to do.
async fn contract(switch: Arc<dyn MaintenanceSwitch>) {
    let at = switch.location();
    assert_eq!(switch.status().await.unwrap(), None, "{at}");
    switch.off().await.unwrap();
    switch.on(&notice()).await.unwrap();
    let there = switch.status().await.unwrap().unwrap();
    assert_eq!((there.until, &there.bypass_sha256), (notice().until, &notice().bypass_sha256), "{at}");
    assert!(there.reason.contains("moving") && !there.is_over(now()) && there.is_over(now() + TimeDelta::hours(1)));
    let longer = Notice::new("longer", now() + TimeDelta::hours(2));
    switch.on(&longer).await.unwrap();
    assert_eq!(switch.status().await.unwrap(), Some(longer.clone()), "{at}");
    // Somebody else's is theirs to open.
    let e = MaintenanceGuard::enter(switch.clone(), &notice(), now()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Busy, "{at}");
    assert_eq!(switch.status().await.unwrap(), Some(longer), "{at}");
    switch.off().await.unwrap();
    switch.off().await.unwrap();
    assert_eq!(switch.status().await.unwrap(), None, "{at}");

    // On every way out.
    let guard = MaintenanceGuard::enter(switch.clone(), &notice(), now()).await.unwrap();
    assert!(switch.status().await.unwrap().is_some(), "{at}");
    guard.leave().await.unwrap();
    assert_eq!(switch.status().await.unwrap(), None, "{at}");
    let (inside, begun) = (switch.clone(), Arc::new(tokio::sync::Notify::new()));
    let ready = begun.clone();
    let task = tokio::spawn(async move {
        let _guard = MaintenanceGuard::enter(inside, &notice(), now()).await.unwrap();
        ready.notify_one();
        std::future::pending::<()>().await;
    });
    begun.notified().await;
    assert!(switch.status().await.unwrap().is_some(), "{at}");
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(switch.status().await.unwrap(), None, "{at}: dropped");
    let inside = switch.clone();
    let task = tokio::spawn(async move {
        let _guard = MaintenanceGuard::enter(inside, &notice(), now()).await.unwrap();
        panic!("on purpose");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(switch.status().await.unwrap(), None, "{at}: panicked");
    // One that is over is nobody's any more.
    switch.on(&Notice::new("old", now() - TimeDelta::hours(1))).await.unwrap();
    MaintenanceGuard::enter(switch.clone(), &notice(), now()).await.unwrap().leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_close_and_open_a_shop() {
    let dir = tempfile::tempdir().unwrap();
    let env = dir.path().join(".env");
    let text = "# the shop\nDATABASE_URL=\"postgres://x\"\nNEXT_PUBLIC_MAINTENANCE_MODE=false\nLAST=1\n";
    std::fs::write(&env, text).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&env, std::fs::Permissions::from_mode(0o640)).unwrap();
    // A link is followed, and stays one.
    let link = dir.path().join("link.env");
    std::os::unix::fs::symlink(&env, &link).unwrap();
    contract(Arc::new(EnvFile::new(&link))).await;
    assert_eq!(std::fs::read_to_string(&env).unwrap(), text);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&env).unwrap().permissions().mode() & 0o777, 0o640);
    contract(Arc::new(FlagFile::new(dir.path().join("maintenance.json")))).await;
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    // A flag that somebody touched closes the shop too.
    std::fs::write(dir.path().join("by-hand"), "").unwrap();
    assert!(FlagFile::new(dir.path().join("by-hand")).status().await.unwrap().is_some());
    let e = EnvFile::new(dir.path().join("none")).on(&notice()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.next_step().is_some());
    assert!(EnvFile::new(&env).with_key("A B").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_closes_and_opens_a_shop() {
    for db in support::every().await {
        db.empty().await;
        contract(Arc::new(DatabaseRow::new(db.engine().into()))).await;
    }
}
