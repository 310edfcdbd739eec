//! A week of the agent in simulated time: two servers, a shop on a real database, a store, and what goes wrong in a week.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::{BackupOptions, Repository, SqliteSource, Store};
use caretaker_examples::agent_core::report;
use caretaker_examples::schedule::When;
use caretaker_examples::scheduler::{Job, Outcome, Scheduler, Step, Turn};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Africa::Lagos;
use db_maint::{Engine, RunEnd, open, runs_since};
use futures::FutureExt;
use health_probe::{Context, FreshnessProbe, Probe, Verdict, judge};
use storefront::{Size, mysql, postgres, sqlite};

/// Terms of leases in the servers' own time, for what is simulated is the schedule: long enough for a machine that is busy, and short where
/// its end is waited for.
const TERM: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(2);

/// How often each time of each job was really done.
type Done = Arc<Mutex<BTreeMap<(String, DateTime<Utc>), Vec<&'static str>>>>;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A job that only counts.
fn counted(name: &'static str, when: &str, server: &'static str, done: &Done) -> Job {
    let (when, done) = (when.parse::<When>().unwrap(), Arc::clone(done));
    Job::new(name, when, move |turn: Turn<'_>| {
        let done = Arc::clone(&done);
        async move {
            let due = when.newest(turn.now, Lagos);
            done.lock().unwrap().entry((name.to_owned(), due)).or_default().push(server);
            Outcome::of(true, "counted")
        }
        .boxed()
    })
}

/// A real backup, at the simulated time.
fn backup(name: &'static str, when: &str, server: &'static str, done: &Done, shop: &Path, store: &Path) -> Job {
    let (when, done) = (when.parse::<When>().unwrap(), Arc::clone(done));
    let (shop, store) = (shop.to_owned(), store.to_owned());
    Job::new(name, when, move |turn: Turn<'_>| {
        let (done, shop, store) = (Arc::clone(&done), shop.clone(), store.clone());
        let now = turn.now;
        async move {
            let taken = async {
                let store = Store::from_url(&format!("file://{}", store.display()))?;
                let repository = Repository::open(store, backup_core::Keys::none()).await?;
                let repository = repository.with_clock(Arc::new(move || now));
                repository.backup(&SqliteSource::new(&shop).named("shop"), BackupOptions::default()).await
            };
            match taken.await {
                Ok(snapshot) => {
                    let due = when.newest(now, Lagos);
                    done.lock().unwrap().entry((name.to_owned(), due)).or_default().push(server);
                    Outcome::of(true, format!("taken: {}", snapshot.id))
                }
                Err(e) => Outcome::failed(&e, e.next_step()),
            }
        }
        .boxed()
    })
}

/// The shop's database, which can be restarted.
enum Database {
    Postgres(postgres::Server),
    Mysql(mysql::Server),
}

impl Database {
    fn stop(&mut self) -> Command {
        match self {
            Self::Postgres(server) => server.stop().unwrap(),
            Self::Mysql(server) => server.stop().unwrap(),
        }
    }

    async fn start_again(&mut self, command: Command) {
        match self {
            Self::Postgres(server) => server.start_again(command).await.unwrap(),
            Self::Mysql(server) => server.start_again(command).await.unwrap(),
        }
    }
}

fn scheduler(server: &'static str, url: &str, done: &Done, shop: &Path, store: &Path) -> Scheduler {
    let engine: Arc<dyn Engine> = Arc::from(open(url).unwrap());
    let jobs = vec![
        counted("cleanup", "daily 02:00", server, done),
        backup("backup", "daily 03:00", server, done, shop, store),
        counted("stock", "every 1h", server, done),
        counted("maintenance", "weekly Sun 04:00", server, done),
        counted("tier orders", "every 15m", server, done),
        counted("checklist", "weekly Mon 06:00", server, done),
    ];
    Scheduler::new(engine, Lagos, server, jobs).with_term(TERM)
}

async fn week(mut database: Database, url: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (shop, store) = (dir.path().join("shop.db"), dir.path().join("store"));
    sqlite::create(&shop, &Size::orders(20), 1).await.unwrap();
    Repository::init_unencrypted(Store::folder(&store).unwrap()).await.unwrap();
    let done = Done::default();
    let first = scheduler("first", url, &done, &shop, &store);
    let second = scheduler("second", url, &done, &shop, &store);

    // Monday, a minute before anything but the tier is due. What was due before is done once at the first start.
    let (began, ends) = (utc("2026-11-23T00:00:00Z"), utc("2026-11-30T00:00:00Z"));
    // What was promised, as the agent's probe of it sees it: a verified backup of the last 26 hours.
    let kept = async |now: DateTime<Utc>| {
        let store = store.clone();
        let newest = move || {
            let store = store.clone();
            async move {
                let ask = async {
                    let store = Store::from_url(&format!("file://{}", store.display()))?;
                    let repository = Repository::open(store, backup_core::Keys::none()).await?;
                    let verify = backup_core::VerifyOptions::new(backup_core::VerifyLevel::Content);
                    assert!(repository.verify(None, verify).await?.is_sound());
                    let catalog = repository.catalog().await?;
                    // By the clock of the repository, which is the simulated one; the source looks at the real one.
                    Ok::<_, backup_core::Error>(catalog.snapshots.iter().map(|s| s.manifest.started_at).max())
                };
                ask.await.map_err(|e: backup_core::Error| {
                    health_probe::Error::new(health_probe::ErrorKind::Unreachable, e.to_string())
                })
            }
        };
        let probe = FreshnessProbe::new("backup", Duration::from_secs(26 * 3600), newest);
        let seen = probe.observe(&Context::at(now)).await.unwrap();
        judge(&seen, &probe.spec().policy).verdict
    };
    let (away, back) = (utc("2026-11-25T01:00:00Z"), utc("2026-11-26T00:50:00Z"));
    let (down, up) = (utc("2026-11-27T10:00:00Z"), utc("2026-11-27T12:10:00Z"));
    let killed = utc("2026-11-28T02:00:00Z");
    let mut stopped = None;
    let (mut now, mut lost, mut was_bad) = (began, 0, false);
    while now < ends {
        if now == away {
            std::fs::rename(&store, dir.path().join("unplugged")).unwrap();
        }
        if now == back {
            std::fs::rename(dir.path().join("unplugged"), &store).unwrap();
            was_bad = !kept(now).await.is_healthy();
        }
        if now == down {
            stopped = Some(database.stop());
        }
        if now == up {
            database.start_again(stopped.take().unwrap()).await;
        }
        let steps = if now < killed {
            let (a, b) = tokio::join!(first.tick(now), second.tick(now));
            [a, b].concat()
        } else {
            second.tick(now).await
        };
        lost += steps.iter().filter(|(_, step)| matches!(step, Step::Lost(_))).count();
        if now == killed - TimeDelta::minutes(5) {
            kill(&first, &second, now + TimeDelta::minutes(1)).await;
        }
        now += TimeDelta::minutes(5);
    }
    assert!(was_bad, "a store that is away for a day is seen");
    assert!(lost > 0, "the database was away");
    // It comes back by itself.
    assert_eq!(kept(ends).await, Verdict::Healthy, "the backups are in the green again");

    // Each time was done, and once: those that could be done at their time, and after each outage the newest that was missed.
    let seen = done.lock().unwrap().clone();
    let twice: Vec<_> = seen.iter().filter(|(_, by)| by.len() > 1).collect();
    assert!(twice.is_empty(), "done twice: {twice:?}");
    let count = |job: &str| seen.keys().filter(|(name, due)| name == job && *due >= began).count();
    // Every quarter of an hour for a week, without those that the outage of the database left out.
    let missed = ((up - down).num_minutes() / 15) as usize;
    assert_eq!(count("tier orders"), 7 * 96 - missed, "the newest that was missed is caught up, the others are not");
    assert_eq!(count("stock"), 7 * 24 - 2);
    assert_eq!((count("cleanup"), count("maintenance"), count("checklist")), (7, 1, 1));
    // That of the day on which the store was away came when it was back: late, and not left out.
    assert_eq!(count("backup"), 7);
    let servers: std::collections::BTreeSet<_> = seen.values().flatten().copied().collect();
    assert_eq!(servers.len(), 2, "both of them worked");
    let alone = seen.iter().filter(|((_, due), _)| *due > killed + TimeDelta::hours(1));
    assert!(alone.clone().count() > 100 && alone.flat_map(|(_, by)| by).all(|by| *by == "second"));

    // The report says what happened.
    let runs = runs_since(&**second.engine(), began - TimeDelta::days(9)).await.unwrap();
    assert!(runs.iter().all(|r| r.end == RunEnd::Well), "{runs:?}");
    let failed: Vec<_> = runs.iter().filter(|r| r.failures > 0).collect();
    assert!(failed.len() == 1 && failed[0].failures > 20, "a backup that could not be done for a day: {failed:?}");
    assert!(failed[0].job == "backup" && failed[0].due == utc("2026-11-25T02:00:00Z"), "{failed:?}");
    assert!(failed[0].failure.contains("store"), "{failed:?}");
    let html = report("the shop", &second, &runs, ends).html();
    for words in
        ["Failed tries", "2026-11-25 03:00", "done 2026-11-26 0", "daily 03:00", "weekly Sun 04:00", "first", "second"]
    {
        assert!(html.contains(words), "the report says nothing of {words}");
    }
}

/// A server that is killed in the middle of a job: its lease ends, and the other one does it.
async fn kill(first: &Scheduler, second: &Scheduler, now: DateTime<Utc>) {
    let (begun, is_begun) = tokio::sync::oneshot::channel();
    let begun = Mutex::new(Some(begun));
    let when: When = "every 1m".parse().unwrap();
    let endless = Job::new("long", when, move |_: Turn<'_>| {
        if let Some(begun) = begun.lock().unwrap().take() {
            begun.send(()).unwrap();
        }
        std::future::pending::<Outcome>().boxed()
    });
    let engine = Arc::clone(first.engine());
    let dying = Scheduler::new(engine, Lagos, "first", vec![endless]).with_term(SHORT);
    let dead = tokio::spawn(async move { dying.tick(now).await.len() });
    is_begun.await.unwrap();
    let heir = Scheduler::new(
        Arc::clone(second.engine()),
        Lagos,
        "second",
        vec![Job::new("long", when, |_| async { Outcome::of(true, "done") }.boxed())],
    );
    let heir = heir.with_term(SHORT);
    assert_eq!(heir.tick(now).await[0].1, Step::Elsewhere, "it is renewed for as long as it lives");
    dead.abort();
    let until = std::time::Instant::now() + Duration::from_secs(30);
    let run = loop {
        match &heir.tick(now).await[0].1 {
            Step::Ran(run) => break run.clone(),
            Step::Elsewhere => assert!(std::time::Instant::now() < until, "its lease does not end"),
            step => panic!("{step:?}"),
        }
    };
    assert_eq!((run.by.as_str(), run.end), ("second", RunEnd::Well));
    assert_eq!(heir.tick(now).await[0].1, Step::Idle, "and once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_on_postgres() {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    week(Database::Postgres(server), &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_on_mariadb() {
    let server = mysql::Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    week(Database::Mysql(server), &url).await;
}
