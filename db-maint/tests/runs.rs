//! Runs of jobs, written down by several servers.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use db_maint::chrono::{DateTime, TimeDelta, Utc};
use db_maint::{Acquired, Engine, ErrorKind, Lease, Run, RunEnd, last_done, record_run, runs_since};
use support::every;

fn at(hour: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(storefront::NOW, 0).unwrap() + TimeDelta::hours(hour)
}

fn run(job: &str, hour: i64, end: RunEnd, note: &str) -> Run {
    let (due, ended) = (at(hour), at(hour) + TimeDelta::minutes(1));
    Run {
        job: job.into(),
        due,
        began: due,
        ended,
        by: "a:1".into(),
        end,
        note: note.into(),
        failures: 0,
        failure: String::new(),
    }
}

async fn lease(engine: &dyn Engine, term: Duration) -> Lease {
    match Lease::wait(engine, "agent backup", term, Duration::from_secs(20)).await.unwrap() {
        Acquired::Held(lease) => lease,
        Acquired::By(holder) => panic!("{holder:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_known_to_all_and_what_failed_is_not_done() {
    for db in every().await {
        db.empty().await;
        let engine = db.engine();
        assert_eq!(last_done(&*engine, "backup", at(1_000)).await.unwrap(), None, "{}", db.name());
        let held = lease(&*engine, Duration::from_secs(60)).await;
        let hostile = "it's 100 % \"done\" \\ \u{1f4be} \0 \n next";
        for run in [
            run("backup", 0, RunEnd::Well, hostile),
            run("backup", 24, RunEnd::Findings, "two"),
            run("backup", 48, RunEnd::Failed, "the store is away"),
            run("stock", 72, RunEnd::Well, ""),
        ] {
            record_run(&*engine, &held, &run).await.unwrap();
        }
        let other = db.engine();
        assert_eq!(last_done(&*other, "backup", at(1_000)).await.unwrap(), Some(at(24)), "{}", db.name());
        assert_eq!(
            last_done(&*other, "backup", at(23)).await.unwrap(),
            Some(at(0)),
            "{}: a clock that is ahead",
            db.name()
        );
        // The next try takes its place.
        record_run(&*engine, &held, &run("backup", 48, RunEnd::Well, "back")).await.unwrap();
        assert_eq!(last_done(&*other, "backup", at(1_000)).await.unwrap(), Some(at(48)), "{}", db.name());
        let all = runs_since(&*other, at(-1)).await.unwrap();
        let seen: Vec<_> = all.iter().map(|r| (r.job.as_str(), r.due, r.end)).collect();
        let wanted = [
            ("backup", at(0), RunEnd::Well),
            ("backup", at(24), RunEnd::Findings),
            ("backup", at(48), RunEnd::Well),
            ("stock", at(72), RunEnd::Well),
        ];
        assert_eq!(seen, wanted, "{}", db.name());
        let failures: Vec<_> = all.iter().map(|r| (r.failures, r.failure.as_str())).collect();
        assert_eq!(failures, [(0, ""), (0, ""), (1, "the store is away"), (0, "")], "{}", db.name());
        assert_eq!(all[0].note, hostile.replace('\0', ""), "{}", db.name());
        assert_eq!(runs_since(&*other, at(30)).await.unwrap().len(), 2);
        // Old ones go.
        record_run(&*engine, &held, &run("backup", 24 * 500, RunEnd::Well, "")).await.unwrap();
        let left: Vec<_> = runs_since(&*other, at(-1)).await.unwrap().into_iter().map(|r| (r.job, r.due)).collect();
        assert_eq!(left, [("stock".to_owned(), at(72)), ("backup".to_owned(), at(24 * 500))], "{}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_lease_writes_nothing() {
    for db in every().await {
        db.empty().await;
        let engine = db.engine();
        let paused = lease(&*engine, Duration::from_millis(1)).await;
        let now = lease(&*engine, Duration::from_secs(60)).await;
        record_run(&*engine, &now, &run("backup", 0, RunEnd::Well, "the other one")).await.unwrap();
        let e = record_run(&*engine, &paused, &run("backup", 0, RunEnd::Failed, "late")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Fenced, "{}: {e}", db.name());
        let all = runs_since(&*engine, at(-1)).await.unwrap();
        assert_eq!(all.iter().map(|r| r.note.as_str()).collect::<Vec<_>>(), ["the other one"], "{}", db.name());
    }
}
