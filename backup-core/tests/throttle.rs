//! Hooks around the reading of a source, and pauses of it: with files, and with replicas of PostgreSQL and MySQL/MariaDB that
//! lag for real.

#![cfg(all(feature = "files", feature = "postgres", feature = "mysql"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backup_core::bytes::Bytes;
use backup_core::chrono::Utc;
use backup_core::{
    BackupOptions, Capture, CaptureContext, CaptureEnd, Entry, EntryKind, ErrorKind, Event, FilesSource, Hooks, Keys,
    MysqlSource, MysqlTarget, PostgresSource, Progress, Reading, ReplicationLag, Repository, RestoreOptions, Result,
    Source, SourceInfo, Store, Throttle, VerifyLevel, VerifyOptions, async_trait, fingerprints,
};
use storefront::{mysql, postgres};
use tokio::sync::Notify;

async fn repository() -> Repository {
    let mut keys = Keys::generate().unwrap();
    Repository::init(Store::from_url("memory:").unwrap(), &mut keys, &[]).await.unwrap()
}

fn uploads() -> (tempfile::TempDir, FilesSource) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("photo.jpg"), "a photo").unwrap();
    let source = FilesSource::new(dir.path()).named("uploads");
    (dir, source)
}

/// What happened, in order.
#[derive(Debug, Default)]
struct Diary {
    lines: Mutex<Vec<String>>,
    refuses: AtomicBool,
    paused: Notify,
    called: Notify,
}

impl Diary {
    fn note(&self, line: impl Into<String>) {
        self.lines.lock().unwrap().push(line.into());
    }

    /// In order; of what ended side by side, in the order of the names.
    fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.lock().unwrap().clone();
        lines.chunk_by_mut(|a, b| a.starts_with("ended") && b.starts_with("ended")).for_each(<[String]>::sort);
        lines
    }
}

#[async_trait]
impl Hooks for Diary {
    async fn before_reading(&self, source: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.note(format!("before {source}"));
        if self.refuses.load(Ordering::SeqCst) { Err("a deployment is under way".into()) } else { Ok(()) }
    }

    async fn after_reading(&self, source: &str, outcome: Reading<'_>) {
        self.note(match outcome {
            Reading::Complete => format!("read {source}"),
            Reading::Failed(e) => format!("failed {source}: {:?}", e.kind()),
            _ => format!("dropped {source}"),
        });
        self.called.notify_one();
    }
}

impl Progress for Diary {
    fn on(&self, event: Event<'_>) {
        match event {
            Event::Paused { .. } => {
                self.note("paused");
                self.paused.notify_one();
            }
            Event::Resumed { .. } => self.note("resumed"),
            Event::Ended { name, .. } => self.note(format!("ended {name}")),
            _ => {}
        }
    }
}

/// Closed as long as the switch is.
#[derive(Debug, Default)]
struct Switch(AtomicBool);

#[async_trait]
impl Throttle for Switch {
    async fn pause(&self) -> Result<Option<String>> {
        Ok(self.0.load(Ordering::SeqCst).then(|| "the switch is on".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_around_the_reading() {
    let (_dir, source) = uploads();
    let repository = repository().await;
    let diary = Arc::new(Diary::default());
    let options = BackupOptions::default().with_hooks(diary.clone()).with_progress(diary.clone());
    repository.backup(&source, options).await.unwrap();
    assert_eq!(diary.lines(), ["before uploads", "ended files/content", "ended files/tree", "read uploads"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_refuses_means_that_nothing_is_read() {
    let (_dir, source) = uploads();
    let repository = repository().await;
    let diary = Arc::new(Diary::default());
    diary.refuses.store(true, Ordering::SeqCst);
    let options = BackupOptions::default().with_hooks(diary.clone()).with_progress(diary.clone());
    let e = repository.backup(&source, options).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Hook);
    assert!(e.to_string().contains("a deployment is under way"), "{e}");
    assert_eq!(diary.lines(), ["before uploads"]);
    assert_eq!(repository.catalog().await.unwrap().snapshots.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_fails_or_is_cancelled_is_told_too() {
    let (dir, source) = uploads();
    let repository = repository().await;
    let diary = Arc::new(Diary::default());
    let gone = FilesSource::new(dir.path().join("gone")).named("gone");
    repository.backup(&gone, BackupOptions::default().with_hooks(diary.clone())).await.unwrap_err();
    assert_eq!(diary.lines(), ["before gone", "failed gone: SourceMissing"]);

    let switch = Arc::new(Switch(AtomicBool::new(true)));
    let options = BackupOptions::default().with_throttle(switch).with_hooks(diary.clone()).with_progress(diary.clone());
    diary.called.notified().await;
    let running = tokio::spawn(async move { repository.backup(&source, options).await });
    diary.paused.notified().await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // Nobody was told of a beginning that never came.
    assert!(!diary.lines().contains(&"before uploads".to_owned()), "{:?}", diary.lines());
}

/// Whatever it is asked to do first, it never ends.
#[derive(Debug)]
struct Endless(Arc<Diary>);

#[async_trait]
impl Hooks for Endless {
    async fn before_reading(&self, source: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.before_reading(source).await?;
        self.0.paused.notify_one();
        std::future::pending().await
    }

    async fn after_reading(&self, source: &str, outcome: Reading<'_>) {
        self.0.after_reading(source, outcome).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_hook_has_begun_is_undone() {
    let (_dir, source) = uploads();
    let repository = repository().await;
    let diary = Arc::new(Diary::default());
    let options = BackupOptions::default().with_hooks(Arc::new(Endless(diary.clone())));
    let running = tokio::spawn(async move { repository.backup(&source, options).await });
    diary.paused.notified().await;
    running.abort();
    diary.called.notified().await;
    assert_eq!(diary.lines().last().unwrap(), "dropped uploads");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_while_the_throttle_is_closed_but_not_for_ever() {
    let (_dir, source) = uploads();
    let repository = repository().await;
    let (diary, switch) = (Arc::new(Diary::default()), Arc::new(Switch(AtomicBool::new(true))));
    let options = BackupOptions::default().with_throttle(switch.clone()).with_progress(diary.clone());
    let running = {
        let (repository, source) = (repository.clone(), source.clone());
        tokio::spawn(async move { repository.backup(&source, options).await })
    };
    diary.paused.notified().await;
    switch.0.store(false, Ordering::SeqCst);
    running.await.unwrap().unwrap();
    assert_eq!(diary.lines(), ["paused", "resumed", "ended files/content", "ended files/tree"]);

    switch.0.store(true, Ordering::SeqCst);
    let diary = Arc::new(Diary::default());
    let options = BackupOptions::default().with_throttle(switch).with_progress(diary.clone());
    repository.backup(&source, options.with_max_pause(Duration::from_millis(300))).await.unwrap();
    assert_eq!(diary.lines(), ["paused", "resumed", "ended files/content", "ended files/tree"]);
}

/// One table that is locked until it is read, and one that is not. By the time it gives them, reading pauses.
#[derive(Debug)]
struct Locks(Arc<Switch>, Arc<Diary>);

#[async_trait]
impl Source for Locks {
    fn name(&self) -> &str {
        "locks"
    }

    async fn capture(&self, _: CaptureContext) -> Result<Box<dyn Capture>> {
        self.0.0.store(true, Ordering::SeqCst);
        self.1.paused.notified().await;
        let entry = |name: &str| {
            let body = futures::stream::iter([Ok(Bytes::from_static(b"a row\n").into())]);
            Entry::new(format!("data/{name}"), EntryKind::Data, name, body)
        };
        Ok(Box::new(Given(vec![entry("locked").urgent(), entry("free")])))
    }
}

struct Given(Vec<Entry>);

#[async_trait]
impl Capture for Given {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("locks", "locks", "memory", "1")
    }

    async fn next(&mut self) -> Result<Option<Entry>> {
        Ok(self.0.pop())
    }

    async fn finish(self: Box<Self>) -> Result<CaptureEnd> {
        Ok(CaptureEnd::at(Utc::now()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_locked_until_it_is_read_is_read_without_a_pause() {
    let repository = repository().await;
    let (diary, switch) = (Arc::new(Diary::default()), Arc::new(Switch::default()));
    let source = Locks(switch.clone(), diary.clone());
    let options = BackupOptions::default().with_throttle(switch.clone()).with_progress(diary.clone());
    let running = tokio::spawn(async move { repository.backup(&source, options).await });
    while !diary.lines().contains(&"ended data/locked".to_owned()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(diary.lines(), ["paused", "ended data/locked"]);
    switch.0.store(false, Ordering::SeqCst);
    running.await.unwrap().unwrap();
    assert_eq!(diary.lines(), ["paused", "ended data/locked", "resumed", "ended data/free"]);
}

/// Asks until it says what is wanted, doing `meanwhile` before each time.
async fn until(lag: &ReplicationLag, lags: bool, meanwhile: impl Fn()) -> String {
    let begun = Instant::now();
    loop {
        meanwhile();
        let said = lag.pause().await.unwrap();
        if said.is_some() == lags {
            return said.unwrap_or_default();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{lag:?} still says {said:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A backup of this source pauses while the replica lags, and ends once `catch_up` was called.
async fn pauses(source: &dyn Source, lag: ReplicationLag, catch_up: impl FnOnce()) {
    let repository = repository().await;
    let diary = Arc::new(Diary::default());
    let options = BackupOptions::default().with_throttle(Arc::new(lag)).with_progress(diary.clone());
    let wait = async {
        diary.paused.notified().await;
        catch_up();
    };
    let (snapshot, ()) = futures::join!(repository.backup(source, options), wait);
    let snapshot = snapshot.unwrap();
    let lines = diary.lines();
    assert!(lines.starts_with(&["paused".into(), "resumed".into()]) && lines.len() > 10, "{lines:?}");
    let report = repository.verify(Some(&[snapshot.id]), VerifyOptions::new(VerifyLevel::Content)).await.unwrap();
    assert!(report.is_sound() && snapshot.manifest.totals.rows > 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_backup_waits_for_a_standby_that_lags_and_can_be_taken_from_it() {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    postgres::create(&url, &storefront::Size::orders(50), 1).await.unwrap();
    let standby = server.standby("reports").await.unwrap();
    let limit = Duration::from_secs(1);
    let lag = ReplicationLag::new(&url, limit).unwrap();
    until(&lag, false, || {}).await;

    standby.psql("postgres", "ALTER SYSTEM SET recovery_min_apply_delay = '1h'").unwrap();
    standby.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    server.psql("shop", "CREATE TABLE written_since (n int)").unwrap();
    // The standby may hear of the delay only after some of it.
    let write = || drop(server.psql("shop", "INSERT INTO written_since VALUES (1)").unwrap());
    let said = until(&lag, true, write).await;
    assert!(said.contains("the replica reports is"), "{said}");
    let own = ReplicationLag::new(&standby.url("shop"), limit).unwrap();
    let said = until(&own, true, write).await;
    assert!(said.contains("s behind"), "{said}");
    let blind = ReplicationLag::new(&server.url_as("shop", "shop"), limit).unwrap().pause().await.unwrap_err();
    assert_eq!(blind.kind(), ErrorKind::Config);
    assert!(blind.next_step().unwrap().contains("pg_monitor"), "{blind:?}");

    pauses(&PostgresSource::new(&url).unwrap(), lag, || {
        standby.psql("postgres", "ALTER SYSTEM RESET recovery_min_apply_delay").unwrap();
        standby.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    })
    .await;
    until(&own, false, || {}).await;

    // The standby gives the same, but for what never gets there.
    let there = fingerprints(&PostgresSource::new(&url).unwrap()).await.unwrap();
    let here = PostgresSource::new(&standby.url("shop")).unwrap();
    let found = fingerprints(&here).await.unwrap();
    let missing: Vec<_> = there.keys().filter(|entry| !found.contains_key(*entry)).collect();
    assert_eq!(missing, ["data/public.sessions"]);
    assert!(found.iter().all(|(entry, fingerprint)| there[entry] == *fingerprint), "{there:?} {found:?}");
    let snapshot = repository().await.backup(&here, BackupOptions::default()).await.unwrap();
    let problems: Vec<_> = snapshot.manifest.problems.iter().map(|p| p.subject.as_str()).collect();
    assert_eq!(problems, ["sessions"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_backup_waits_for_a_replica_that_lags_and_can_be_taken_from_it() {
    let server = mysql::Server::start_primary().await.unwrap();
    let replica = server.replica(0).await.unwrap();
    let url = server.database("shop").unwrap();
    mysql::create(&url, &storefront::Size::orders(50), 1).await.unwrap();
    let lag = ReplicationLag::new(&replica.url("shop"), Duration::from_secs(2)).unwrap();
    until(&lag, false, || {}).await;

    replica.set_delay(3000).unwrap();
    server.sql("shop", "CREATE TABLE written_since (n int); INSERT INTO written_since VALUES (1)").unwrap();
    let said = until(&lag, true, || {}).await;
    assert!(said.contains("s behind"), "{said}");
    let e = ReplicationLag::new(&url, Duration::from_secs(1)).unwrap().pause().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert!(e.to_string().contains("is not a replica"), "{e}");

    pauses(&MysqlSource::new(&url).unwrap(), lag, || replica.set_delay(0).unwrap()).await;

    let (there, here) = (MysqlSource::new(&url).unwrap(), MysqlSource::new(&replica.url("shop")).unwrap());
    until(&ReplicationLag::new(&replica.url("shop"), Duration::ZERO).unwrap(), false, || {}).await;
    // All but the events, which are not to run on a replica.
    let (mut there, mut found) = (fingerprints(&there).await.unwrap(), fingerprints(&here).await.unwrap());
    assert!(there.remove("schema/post-data") != found.remove("schema/post-data"));
    // Each server has salted the same passwords for itself.
    assert!(there.remove("globals/users").is_some() && found.remove("globals/users").is_some());
    assert_eq!(there, found);
    let repository = repository().await;
    let snapshot = repository.backup(&here, BackupOptions::default()).await.unwrap();
    assert_eq!(snapshot.manifest.problem_count, 0, "{:?}", snapshot.manifest.problems);
    let target = MysqlTarget::new(&server.database("restored").unwrap()).unwrap();
    let restored = repository.restore(&snapshot, &target, RestoreOptions::default()).await.unwrap();
    let said = restored.notes.iter().any(|note| note.contains("ALTER EVENT … ENABLE") && note.contains("forget"));
    assert!(said, "{:?}", restored.notes);
}
