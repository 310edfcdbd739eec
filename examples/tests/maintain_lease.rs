//! Ten processes and one lease: one of them works at a time, also where its holder is killed or paused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use storefront::{mysql, pgbouncer::PgBouncer, postgres};
use support::tool;

const ROWS: i64 = 600;

fn worker(url: &str, policy: &Path, more: &[&str]) -> Child {
    Command::new(tool("maintain"))
        .args([
            "cleanup",
            "--apply",
            "--database",
            url,
            "--lease",
            "2s",
            "--wait",
            "3m",
            "--batch",
            "20",
            "--rest",
            "0.1",
        ])
        .arg("--policy")
        .arg(policy)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn policy(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("policy.toml");
    let rule =
        "[[retention]]\nname = \"steps\"\ntable = \"steps\"\ncolumn = \"due\"\nkeep = \"1d\"\nmay_empty = true\n";
    std::fs::write(&path, rule).unwrap();
    path
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Waits for what a database says, as long as the test may run.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whoever has the lease by now, if it is another process than `but`.
fn pid_of(holder: &str, remaining: i64, but: &[u32]) -> Option<u32> {
    let pid = holder.split(':').nth(1)?.parse().ok()?;
    (remaining > 0 && !but.contains(&pid)).then_some(pid)
}

/// What asks the database, whichever it is, for one value.
type Ask<'a> = &'a dyn Fn(&str) -> Result<String, storefront::Error>;

fn number(ask: Ask<'_>, sql: &str) -> i64 {
    ask(sql).unwrap().trim().parse().unwrap()
}

/// Who has the lease, and for how many milliseconds.
fn holder(ask: Ask<'_>, clock: &str) -> Option<(String, i64)> {
    // There is no such table at first.
    let holder = ask("SELECT holder FROM caretaker_lease").ok()?;
    let remaining = ask(&format!("SELECT expires_at - {clock} FROM caretaker_lease")).ok()?;
    let remaining = remaining.trim().split('.').next()?.parse().ok()?;
    Some((holder.trim().to_owned(), remaining))
}

/// Ten of them; the first holder is paused, the second is killed, and the first comes back while others work.
async fn ten(url: &str, clock: &str, ask: Ask<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path());
    // The first would do it all.
    let mut workers = vec![worker(url, &policy, &[])];
    let paused = workers[0].id();
    until(async || {
        let (holder, _) = holder(ask, clock)?;
        pid_of(&holder, 1, &[]).filter(|pid| *pid == paused && number(ask, "SELECT count(*) FROM log") > 0)
    })
    .await;
    workers.extend((0..9).map(|_| worker(url, &policy, &["--rows", "120"])));
    signal(paused, "STOP");
    let killed = until(async || {
        let (holder, remaining) = holder(ask, clock)?;
        pid_of(&holder, remaining, &[paused])
    })
    .await;
    let before = number(ask, "SELECT count(*) FROM log");
    until(async || (number(ask, "SELECT count(*) FROM log") > before).then_some(())).await;
    signal(killed, "KILL");
    until(async || {
        let (holder, remaining) = holder(ask, clock)?;
        pid_of(&holder, remaining, &[paused, killed])
    })
    .await;
    signal(paused, "CONT");
    let mut fenced = 0;
    for child in workers.drain(..) {
        let id = child.id();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if id == paused {
            // Fenced off, or its session was ended while it slept.
            assert_eq!(output.status.code(), Some(3), "{said}");
            fenced += usize::from(said.contains("was taken by another process"));
        } else if id != killed {
            assert_eq!(output.status.code(), Some(0), "{said}");
        }
    }
    println!("fenced off: {fenced}");
    assert_eq!(number(ask, "SELECT count(*) FROM steps"), 0);
    assert_eq!(number(ask, "SELECT count(*) FROM log"), ROWS);
    assert_eq!(number(ask, "SELECT count(DISTINCT id) FROM log"), ROWS);
    // While one worked nobody else did.
    let overlaps =
        "SELECT count(*) FROM log a JOIN log b ON a.session <> b.session AND a.began < b.ended AND b.began < a.ended";
    assert_eq!(number(ask, overlaps), 0);
    assert!(number(ask, "SELECT count(DISTINCT session) FROM log") > 3);
}

const POSTGRES: &str = "
    CREATE TABLE steps (id bigint PRIMARY KEY, due timestamptz NOT NULL);
    CREATE INDEX steps_due ON steps (due);
    CREATE TABLE log (id bigint, session text, began timestamptz, ended timestamptz);
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE began timestamptz := clock_timestamp();
    BEGIN
      PERFORM pg_sleep(0.004);
      INSERT INTO log VALUES (old.id, (SELECT holder FROM caretaker_lease), began, clock_timestamp());
      RETURN old;
    END $$;
    CREATE TRIGGER noted BEFORE DELETE ON steps FOR EACH ROW EXECUTE FUNCTION noted();
    INSERT INTO steps SELECT n, now() - interval '10 days' FROM generate_series(1, 600) n";

#[tokio::test(flavor = "multi_thread")]
async fn ten_processes_behind_a_pooler_work_one_at_a_time_on_postgres() {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    postgres::run(&mut postgres::open(&url).await.unwrap(), POSTGRES).await.unwrap();
    let pooler = PgBouncer::start_with(&server, 4).await.unwrap();
    let clock = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::int8";
    ten(&pooler.url("shop"), clock, &|sql| server.psql("shop", sql)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_processes_work_one_at_a_time_on_mariadb() {
    let server = mysql::Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    let mut shop = mysql::open(&url).await.unwrap();
    for sql in [
        "CREATE TABLE steps (id bigint PRIMARY KEY, due datetime NOT NULL, KEY steps_due (due))",
        "CREATE TABLE log (id bigint, session varchar(190), began datetime(6), ended datetime(6))",
        "CREATE TRIGGER noted BEFORE DELETE ON steps FOR EACH ROW BEGIN DECLARE began datetime(6) DEFAULT SYSDATE(6); DO SLEEP(0.004); \
         INSERT INTO log VALUES (OLD.id, (SELECT holder FROM caretaker_lease), began, SYSDATE(6)); END",
        &format!("INSERT INTO steps SELECT seq, NOW() - INTERVAL 10 DAY FROM {} s", server.numbers(600)),
    ] {
        mysql::run(&mut shop, sql).await.unwrap();
    }
    ten(&url, "UNIX_TIMESTAMP(SYSDATE(3)) * 1000", &|sql| server.sql("shop", sql)).await;
}
