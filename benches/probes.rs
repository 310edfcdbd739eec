//! What watching costs: a large access log beside ripgrep, and a thousand endpoints on a schedule.
//!
//! ```text
//! cargo build --release --workspace --examples --bins
//! target/release/probes logs       [--mib 1024] [--rounds 5]
//! target/release/probes endpoints  [--endpoints 1000] [--every 10] [--minutes 5]
//! ```
//!
//! `logs` writes an access log as nginx does, and reads it with `probe logs --json` and with `rg` and an expression that captures the
//! same fields (address, time, method, path, status, bytes, agent), in turns, from the page cache. `endpoints` runs the monitor, with
//! a ledger, in a process of its own against nginx.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use caretaker_benches::{Result, access_log, is_installed, measure, measure_ending, median, mib, say, tool};
use clap::{Parser, Subcommand};
use health_probe::ledger::{Ledger, SqliteLedger};
use health_probe::{HttpProbe, Monitor, Watch};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// A large access log beside ripgrep.
    Logs {
        #[arg(long, default_value_t = 1024)]
        mib: u64,
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
    /// Many endpoints on a schedule.
    Endpoints {
        #[arg(long, default_value_t = 1000)]
        endpoints: u32,
        #[arg(long, default_value_t = 10)]
        every: u64,
        #[arg(long, default_value_t = 5)]
        minutes: u64,
    },
    /// The monitor itself, for `endpoints`.
    #[command(hide = true)]
    Watch { url: String, endpoints: u32, every: u64, minutes: u64 },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Bench::Logs { mib, rounds } => logs(mib, rounds),
        Bench::Endpoints { endpoints, every, minutes } => on_schedule(endpoints, every, minutes).await,
        Bench::Watch { url, endpoints, every, minutes } => watch(&url, endpoints, every, minutes).await,
    }
}

fn logs(size: u64, rounds: u32) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("access.log");
    let lines = access_log(&log, size << 20)?;
    say(&format!("{lines} lines, {} MiB", mib(std::fs::metadata(&log)?.len())));
    if !is_installed("rg") {
        return Err("rg is not installed: apt-get install ripgrep".into());
    }
    let expression =
        r#"(?-u)^([^ ]+) [^ ]+ [^ ]+ \[([^\]]+)\] "([^ ]+) ([^ ]+) [^"]*" ([0-9]{3}) ([0-9]+) "[^"]*" "([^"]*)""#;
    let (mut ours, mut theirs, mut counting, mut memory) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 0..=rounds {
        let mut probe = Command::new(tool("probe")?);
        let a = measure_ending(probe.args(["logs", "--json"]).arg(&log), &[0, 1])?;
        let mut rg = Command::new("rg");
        rg.args(["--no-config", "--only-matching", "--replace", "$1 $2 $3 $4 $5 $6 $7", expression]).arg(&log);
        // It takes minutes for a gigabyte: once is enough.
        let b = if round == rounds { Some(measure(&mut rg)?) } else { None };
        let mut rg = Command::new("rg");
        let c = measure(rg.args(["--no-config", "--count", expression]).arg(&log))?;
        // The first round fills the page cache.
        if round > 0 {
            ours.push(a.time.as_secs_f64());
            theirs.extend(b.map(|b| b.time.as_secs_f64()));
            counting.push(c.time.as_secs_f64());
            memory = memory.max(a.memory);
        }
    }
    let of = |times: Vec<f64>| median(times).unwrap_or_default();
    let (ours, theirs, counting) = (of(ours), of(theirs), of(counting));
    say(&format!("probe logs --json                   {ours:.2} s, peak {} MiB", mib(memory)));
    say(&format!("rg, the same fields given out       {theirs:.2} s, {:.2} times as long (one run)", theirs / ours));
    say(&format!("rg --count, which gives out nothing {counting:.2} s, {:.2} times as long", counting / ours));
    Ok(())
}

async fn on_schedule(endpoints: u32, every: u64, minutes: u64) -> Result<()> {
    let server = "server { listen 127.0.0.1:{port} backlog=4096; access_log off; location / { return 200 ok; } }";
    let web = storefront::nginx::Server::start(server).await?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["watch", &web.url(), &endpoints.to_string(), &every.to_string(), &minutes.to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    say(String::from_utf8_lossy(&output.stdout).trim_end());
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(())
}

async fn watch(url: &str, endpoints: u32, every: u64, minutes: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(&dir.path().join("ledger.db")).await?);
    let mut watches = Vec::new();
    for n in 0..endpoints {
        let probe = HttpProbe::new(format!("endpoint {n}"), &format!("{url}{n}"))?;
        watches.push(Watch::new(probe, Duration::from_secs(every)));
    }
    let monitor = Monitor::new(watches)?.with_ledger(ledger);
    let (mut delays, mut bad) = (Vec::new(), 0u32);
    let seen = |look: &health_probe::Look| {
        delays.push((look.began - look.due).as_seconds_f64() * 1000.0);
        bad += u32::from(!look.judgement.verdict.is_healthy());
    };
    monitor.run(tokio::time::sleep(Duration::from_secs(minutes * 60)), seen, |_| {}).await?;
    delays.sort_by(f64::total_cmp);
    let at = |q: f64| {
        delays
            .get(((delays.len() as f64 * q) as usize).min(delays.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    };
    let text = std::fs::read_to_string("/proc/self/status")?;
    let memory = text.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("?").trim();
    let due = u64::from(endpoints) * minutes * 60 / every;
    say(&format!(
        "{} looks of {due} that were due ({bad} not healthy), start delay p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms; peak memory {memory}",
        delays.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    ));
    Ok(())
}
