//! What backups and a monitor's ledger prove, and what they do not.
#![cfg(all(feature = "backups", feature = "maintenance", feature = "monitor"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    BackupOptions, DrillOptions, Keys, Repository, SqliteSource, SqliteTarget, Store, VerifyLevel, VerifyOptions,
};
use checklist::check::backups::{self, Backups};
use checklist::check::maintenance::{self, Maintained};
use checklist::check::monitor::{self, Monitored};
use checklist::ledger::{Ledger as _, MemoryLedger};
use checklist::{Auditor, Check, CheckReport, Context, Outcome, Recurrence, Standing, Task, completions, items};
use chrono::{DateTime, TimeDelta, Utc};
use health_probe::ledger::{Ledger, Record, Slot, SqliteLedger};

async fn run(checks: Vec<Arc<dyn Check>>, now: DateTime<Utc>) -> BTreeMap<String, CheckReport> {
    let audit = Auditor::new(items()).with_checks(checks).run("shop", &Context::at(now), &Standing::default()).await;
    audit.items.into_iter().flat_map(|i| i.checks).map(|c| (c.check.clone(), c)).collect()
}

fn outcomes(found: &BTreeMap<String, CheckReport>) -> BTreeMap<&str, Outcome> {
    found.iter().map(|(check, report)| (check.as_str(), report.outcome)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_counts_once_it_is_verified_and_drilled_and_no_longer_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let shop = dir.path().join("shop.db");
    storefront::sqlite::create(&shop, &storefront::Size::orders(20), 7).await.unwrap();
    let store = |name: &str| Store::folder(dir.path().join(name)).unwrap();
    let mut keys = Keys::generate().unwrap();
    let source = SqliteSource::new(&shop);
    let repository = Repository::init(store("a"), &mut keys, &[]).await.unwrap();
    let looked = |repository: &Repository| backups::checks(Some(Arc::new(Backups::new(repository.clone()))));
    let now = Utc::now();
    let nothing = run(looked(&repository), now).await;
    use Outcome::{Fail, Pass, Unknown, Warn};
    for check in ["backups.verified", "backups.drilled", "backups.restored", "backups.offsite"] {
        assert_eq!(nothing[check].outcome, Fail, "{:#?}", nothing[check]);
    }
    let snapshot = repository.backup(&source, BackupOptions::default()).await.unwrap();
    let taken = run(looked(&repository), now).await;
    assert_eq!(taken["backups.verified"].outcome, Fail, "nobody looked at it");
    repository.verify(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap();
    let now = Utc::now();
    let verified = run(looked(&repository), now).await;
    let verified = outcomes(&verified);
    assert_eq!(
        (verified["backups.verified"], verified["backups.encrypted"], verified["backups.sound"]),
        (Pass, Pass, Pass)
    );
    assert_eq!((verified["backups.drilled"], verified["backups.offsite"]), (Fail, Warn), "a folder of this machine");
    let scratch = SqliteTarget::new(dir.path().join("scratch.db"));
    assert!(repository.drill(&snapshot, &scratch, DrillOptions::default()).await.unwrap().passed());
    let drilled = run(looked(&repository), Utc::now()).await;
    assert_eq!((drilled["backups.drilled"].outcome, drilled["backups.restored"].outcome), (Pass, Pass), "{drilled:#?}");
    // It completes the time in which it was, not the one in which somebody looks.
    let at = drilled["backups.restored"].evidence.as_ref().unwrap().happened.unwrap();
    assert!((Utc::now() - at).num_minutes() < 5);
    let task = Task::new("restore", "restore", Recurrence::Monthly(1)).completed_by("backups.restored");
    let ledger = MemoryLedger::default();
    let late = at + TimeDelta::days(31);
    let checks = looked(&repository);
    let audit = Auditor::new(items()).with_checks(checks).run("shop", &Context::at(late), &Standing::default()).await;
    ledger.append(late, checklist::ledger::Record::Audit { audit: Box::new(audit) }).await.unwrap();
    let done = completions(&task, &ledger.entries().await.unwrap());
    assert_eq!(done.iter().map(|(when, _)| *when).collect::<Vec<_>>(), [at]);
    let quarter = run(looked(&repository), now + TimeDelta::days(60)).await;
    assert_eq!((quarter["backups.drilled"].outcome, quarter["backups.restored"].outcome), (Pass, Fail));
    let later = run(looked(&repository), now + TimeDelta::days(3)).await;
    assert_eq!(later["backups.verified"].outcome, Fail, "three days old");
    let open = Repository::init_unencrypted(store("b")).await.unwrap();
    assert_eq!(run(looked(&open), now).await["backups.encrypted"].outcome, Fail);
    assert!(run(backups::checks(None), now).await.values().all(|r| r.outcome == Unknown));
}

#[tokio::test]
async fn a_monitor_proves_itself_by_its_looks() {
    let now = DateTime::parse_from_rfc3339("2026-11-26T12:00:00Z").unwrap().to_utc();
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::in_memory().await.unwrap());
    let every = Duration::from_secs(600);
    let mut records = Vec::new();
    for (probe, hours) in [("shop", 24i64), ("home", 24), ("access", 24), ("php", 24), ("logins", 24), ("half", 12)] {
        for n in 0..hours * 6 {
            let at = now - TimeDelta::minutes(10 * (hours * 6 - n));
            // The log-ins are unknown: no failure was ever recognised.
            let outcome = if probe == "logins" { Slot::Missing } else { Slot::Good };
            let outcome = if probe == "half" && n % 2 == 0 { Slot::Missing } else { outcome };
            records.push(Record { probe: probe.into(), at, every, outcome, response_time: None });
        }
    }
    ledger.record(&records).await.unwrap();
    let monitored = |http: &str, logins: &str| {
        let mut monitored = Monitored::new(Arc::clone(&ledger));
        monitored.http = vec![http.into()];
        monitored.pages = vec!["home".into()];
        monitored.access_logs = vec!["access".into()];
        monitored.error_logs = vec!["php".into()];
        monitored.login_logs = vec![logins.into()];
        monitor::checks(Some(Arc::new(monitored)))
    };
    use Outcome::{Fail, Pass, Unknown, Warn};
    let found = run(monitored("shop", "logins"), now).await;
    let found = outcomes(&found);
    for check in ["monitor.uptime", "monitor.performance", "monitor.looks", "monitor.traffic"] {
        assert_eq!(found[check], Pass, "{check}");
    }
    assert_eq!((found["monitor.logins"], found["monitor.alerts"]), (Fail, Fail));
    assert_eq!(run(monitored("half", "logins"), now).await["monitor.uptime"].outcome, Warn);
    assert_eq!(run(monitored("nobody", "logins"), now).await["monitor.uptime"].outcome, Fail);
    ledger.save(monitor::ALERTS_TESTED, &(now - TimeDelta::days(3)).to_rfc3339()).await.unwrap();
    assert_eq!(run(monitored("shop", "logins"), now).await["monitor.alerts"].outcome, Pass);
    let late = run(monitored("shop", "logins"), now + TimeDelta::days(40)).await;
    assert_eq!((late["monitor.alerts"].outcome, late["monitor.uptime"].outcome), (Fail, Fail), "{late:#?}");
    assert!(run(monitor::checks(None), now).await.values().all(|r| r.outcome == Unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_should_be_gone_and_who_may_reach_what() {
    let server = storefront::postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    let old = "CREATE TABLE sessions (id int PRIMARY KEY, created_at timestamptz NOT NULL); CREATE INDEX ON sessions (created_at); \
               CREATE TABLE customers (email text); \
               INSERT INTO sessions SELECT i, now() - interval '90 days' FROM generate_series(1, 50) i; CREATE ROLE clerk LOGIN";
    server.psql("shop", old).unwrap();
    let policy = r#"{"retention":[{"name":"sessions","table":"sessions","column":"created_at","keep":"30d"}],
        "access":{"table":[{"table":"customers"}],"trusted":["postgres","root"]}}"#;
    let looked = |policy: &str| {
        let policy = serde_json::from_str(policy).unwrap();
        maintenance::checks(Some(Arc::new(Maintained::new(db_maint::open(&url).unwrap(), policy))))
    };
    use Outcome::{Fail, Pass, Unknown};
    server.psql("shop", "GRANT SELECT ON customers TO clerk").unwrap();
    let bad = run(looked(policy), Utc::now()).await;
    assert_eq!((bad["maintenance.retention"].outcome, bad["maintenance.roles"].outcome), (Fail, Fail), "{bad:#?}");
    server.psql("shop", "DELETE FROM sessions; REVOKE ALL ON customers FROM clerk").unwrap();
    let good = run(looked(policy), Utc::now()).await;
    assert_eq!(good["maintenance.retention"].outcome, Pass, "{good:#?}");
    assert_eq!(good["maintenance.roles"].outcome, Pass, "{good:#?}");
    let silent = run(looked("{}"), Utc::now()).await;
    assert_eq!((silent["maintenance.retention"].outcome, silent["maintenance.roles"].outcome), (Unknown, Unknown));
    assert!(run(maintenance::checks(None), Utc::now()).await.values().all(|r| r.outcome == Unknown));
}
