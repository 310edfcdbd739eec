//! What looking after a database costs the shop: a clean-up beside a writer, and an inspection of a large schema.
//!
//! ```text
//! cargo build --release --workspace --examples --bins
//! target/release/maintenance cleanup  --engine postgres|mariadb [--rows 2000000] [-- OPTIONS OF `maintain cleanup`]
//! target/release/maintenance inspect  [--tables 5000]
//! ```
//!
//! `cleanup` removes the older half of a table of sessions with the tool, as cron would run it, while a writer goes on: an update
//! and an insert each few milliseconds. In the middle it stops the tool by a signal, and kills it once; what it says is how much
//! longer the writer's slowest hundredth took than before, and whether the count is exact in the end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use storefront::{mysql, postgres};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// A clean-up beside a writer.
    Cleanup {
        #[arg(long)]
        engine: Engine,
        #[arg(long, default_value_t = 2_000_000)]
        rows: u64,
        /// Passed on to the tool, such as `--batch=5 --rest=4`; its defaults where nothing is.
        #[arg(last = true)]
        tool: Vec<String>,
    },
    /// An inspection of a schema of so many tables, each with four indexes (PostgreSQL).
    Inspect {
        #[arg(long, default_value_t = 5_000)]
        tables: u32,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Engine {
    Postgres,
    Mariadb,
}

/// What the sessions are in.
enum Server {
    Postgres(postgres::Server),
    Mysql(mysql::Server),
}

impl Server {
    fn ask(&self, sql: &str) -> String {
        let answer = match self {
            Self::Postgres(server) => server.psql("shop", sql),
            Self::Mysql(server) => server.sql("shop", sql),
        };
        answer.unwrap().trim().to_owned()
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.url("shop"),
            Self::Mysql(server) => server.url("shop"),
        }
    }
}

#[tokio::main]
async fn main() {
    match Cli::parse().command {
        Bench::Cleanup { engine, rows, tool } => cleanup(engine, rows, &tool).await,
        Bench::Inspect { tables } => inspect(tables).await,
    }
}

fn tool() -> PathBuf {
    let tool = std::env::current_exe().unwrap().parent().unwrap().join("examples/maintain");
    assert!(tool.exists(), "cargo build --release --examples");
    tool
}

async fn cleanup(engine: Engine, rows: u64, more: &[String]) {
    let server = match engine {
        Engine::Postgres => {
            let server = postgres::Server::start().await.unwrap();
            server.database("shop").await.unwrap();
            server
                .psql(
                    "shop",
                    &format!(
                        "CREATE TABLE sessions (id bigint PRIMARY KEY, data text NOT NULL, last_used_at timestamptz NOT NULL); \
                         INSERT INTO sessions SELECT n, repeat('x', 120), now() - interval '60 days' * (n % 2) - n * interval '1 ms' \
                           FROM generate_series(1, {rows}) n; \
                         CREATE INDEX sessions_used ON sessions (last_used_at); VACUUM ANALYZE sessions"
                    ),
                )
                .unwrap();
            Server::Postgres(server)
        }
        Engine::Mariadb => {
            let server = mysql::Server::start().await.unwrap();
            server.database("shop").unwrap();
            let from = server.numbers(u32::try_from(rows).unwrap());
            server
                .sql(
                    "shop",
                    &format!(
                        "CREATE TABLE sessions (id bigint PRIMARY KEY, data text NOT NULL, last_used_at datetime(3) NOT NULL, \
                           KEY sessions_used (last_used_at)) ENGINE=InnoDB; \
                         INSERT INTO sessions SELECT seq, REPEAT('x', 120), \
                           NOW(3) - INTERVAL 60 * (seq % 2) DAY - INTERVAL seq * 1000 MICROSECOND FROM {from}; ANALYZE TABLE sessions"
                    ),
                )
                .unwrap();
            Server::Mysql(server)
        }
    };
    let old = rows / 2;
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.toml");
    std::fs::write(
        &policy,
        "[[retention]]\nname = \"old sessions\"\ntable = \"sessions\"\ncolumn = \"last_used_at\"\nkeep = \"30d\"\n",
    )
    .unwrap();
    let writer = Writer::start(server.url(), rows).await;
    // Until what was loaded is on the disk, and nobody vacuums it any more.
    tokio::time::sleep(Duration::from_secs(45)).await;
    writer.take();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let quiet = writer.take();

    let url = server.url();
    let began = Instant::now();
    // Stopped by a signal after three seconds.
    let mut child = start(&url, &policy, more);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked = Instant::now();
    signal(&child, "INT");
    child.wait().unwrap();
    let stopped_after = asked.elapsed();
    // Killed after three more.
    let mut child = start(&url, &policy, more);
    tokio::time::sleep(Duration::from_secs(3)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let left = server.ask("SELECT count(*) FROM sessions WHERE id % 2 = 1");
    let child = start(&url, &policy, more);
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let beside = writer.take();
    writer.stop().await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rule = &report["rules"][0];
    println!(
        "{engine:?}: {old} of {rows} sessions removed in {:.1} s, interruptions included",
        began.elapsed().as_secs_f64()
    );
    println!("  stopped {} ms after the signal; {left} left when it was killed", stopped_after.as_millis());
    println!("  longest batch {} ms of {} batches in the last run", rule["longest_batch_ms"], rule["batches"]);
    println!(
        "  counted in all: {} (exactly {old} expected), old rows left: {}",
        rule["changed_in_all"],
        server.ask(&format!("SELECT count(*) FROM sessions WHERE id % 2 = 1 AND id <= {rows}"))
    );
    let (quiet, beside) = (Latency::of(quiet), Latency::of(beside));
    println!("  writer, quiet:  {quiet}");
    println!("  writer, beside: {beside}");
    println!("  p99 beside / quiet: {:.2}", beside.p99 / quiet.p99);
}

fn start(url: &str, policy: &Path, more: &[String]) -> Child {
    Command::new(tool())
        .args(["cleanup", "--apply", "--json", "--wait", "2m", "--lease", "5s", "--database", url, "--policy"])
        .arg(policy)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// How long statements took, in milliseconds.
struct Latency {
    count: usize,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    fn of(mut taken: Vec<f64>) -> Self {
        taken.sort_by(f64::total_cmp);
        let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize];
        Self { count: taken.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} statements, p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms", self.count, self.p50, self.p99, self.max)
    }
}

/// A shop that uses its sessions: an update of a fresh one and a new one, every four milliseconds.
struct Writer {
    taken: Arc<std::sync::Mutex<Vec<f64>>>,
    ended: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    async fn start(url: String, rows: u64) -> Self {
        let (taken, ended) = (Arc::new(std::sync::Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (out, end) = (taken.clone(), ended.clone());
        let task = tokio::spawn(async move {
            let is_postgres = url.starts_with("postgres");
            let mut pg = if is_postgres { Some(postgres::open(&url).await.unwrap()) } else { None };
            let mut my = if is_postgres { None } else { Some(mysql::open(&url).await.unwrap()) };
            let mut n = 0u64;
            while !end.load(Ordering::Relaxed) {
                n += 1;
                let statements = [
                    format!("UPDATE sessions SET last_used_at = now() WHERE id = {}", 2 * (n * 7919 % (rows / 2)) + 2),
                    format!("INSERT INTO sessions VALUES ({}, 'new', now())", rows + 2 * n),
                ];
                for sql in statements {
                    let began = Instant::now();
                    match (&mut pg, &mut my) {
                        (Some(db), _) => postgres::run(db, &sql).await.unwrap(),
                        (_, Some(db)) => mysql::run(db, &sql).await.unwrap(),
                        _ => unreachable!(),
                    }
                    out.lock().unwrap().push(began.elapsed().as_secs_f64() * 1000.0);
                }
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
        });
        Self { taken, ended, task }
    }

    fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *self.taken.lock().unwrap())
    }

    async fn stop(self) {
        self.ended.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

async fn inspect(tables: u32) {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    let mut db = postgres::open(&url).await.unwrap();
    for first in (0..tables).step_by(100) {
        let sql: String = (first..(first + 100).min(tables))
            .map(|n| {
                format!(
                    "CREATE TABLE t{n} (id bigserial PRIMARY KEY, a bigint, b text, c timestamptz); \
                     CREATE INDEX t{n}_a ON t{n} (a); CREATE INDEX t{n}_b ON t{n} (b); CREATE INDEX t{n}_c ON t{n} (c);"
                )
            })
            .collect();
        postgres::run(&mut db, &sql).await.unwrap();
    }
    postgres::run(&mut db, "ANALYZE").await.unwrap();
    let mut seconds = Vec::new();
    let mut peak = 0;
    for _ in 0..5 {
        let began = Instant::now();
        let mut child = Command::new(tool())
            .args(["inspect", "--json", "--database", &url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The most that it had at once; gone with the process.
        let status = loop {
            if let Ok(text) = std::fs::read_to_string(format!("/proc/{}/status", child.id()))
                && let Some(line) = text.lines().find(|l| l.starts_with("VmHWM:"))
                && let Some(kib) = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok())
            {
                peak = peak.max(kib);
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert_ne!(status.code(), Some(3));
        seconds.push(began.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!(
        "{tables} tables, {} indexes: {:.2} s (median of {}, {:.2} to {:.2}), peak memory {:.1} MiB",
        tables * 4,
        seconds[seconds.len() / 2],
        seconds.len(),
        seconds[0],
        seconds[seconds.len() - 1],
        peak as f64 / 1024.0
    );
}
