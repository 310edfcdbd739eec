//! What a long log costs: `backup list`, `status` and the plan of a `prune` over many snapshots, cold and warm.
//!
//! ```text
//! cargo build --release --workspace --examples --bins && target/release/catalog [--snapshots 10000] [--rounds 5]
//! ```

use std::process::{Command, ExitCode};

use backup_core::{Keys, Repository, SqliteSource, Store, stages};
use caretaker_benches::{Measured, Result, backup_tool, drop_caches, ended, measure_ending, median, mib, say};
use clap::Parser;
use storefront::Size;

/// Makes a repository with a long log, and reads it.
#[derive(Debug, Parser)]
struct Cli {
    /// Snapshots in the log, one every hour.
    #[arg(long, default_value_t = 10_000)]
    snapshots: u32,
    /// Runs of each; their median counts.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

fn main() -> ExitCode {
    ended(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let place = dir.path().join("place");
    let saved = dir.path().join("keys");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let db = dir.path().join("shop.db");
        storefront::sqlite::create(&db, &Size::orders(100), 1).await?;
        Keys::generate()?.save(&saved)?;
        let mut keys = Keys::load(&saved)?;
        let repository = Repository::init(Store::folder(&place)?, &mut keys, &[]).await?;
        let first = repository.backup(&SqliteSource::new(&db), Default::default()).await?;
        stages::add_snapshots(&repository, &first, cli.snapshots.saturating_sub(1)).await?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    let tool = backup_tool()?;
    let store = format!("file://{}", place.display());
    let look = |arguments: &[&str]| -> Result<Measured> {
        let mut command = Command::new(&tool);
        command.args(arguments).args(["--store", &store, "--keys", "keys", "--json"]).current_dir(dir.path());
        // A status with something to say, and a plan with something to remove, end with 1.
        measure_ending(&mut command, &[0, 1])
    };
    say(&format!("{} snapshots, medians of {} rounds:\n", cli.snapshots, cli.rounds));
    say("| | cold | warm | peak MiB |\n|---|---|---|---|");
    let prune = ["prune", "--keep", "within=48h,daily=30,weekly=8,monthly=12"];
    for (name, arguments) in [("list", &["list"][..]), ("status", &["status"]), ("plan of a prune", &prune)] {
        let (mut cold, mut warm, mut memory) = (Vec::new(), Vec::new(), 0);
        for _ in 0..cli.rounds {
            // Nothing that was read before, neither by the tool nor by the system.
            for kept in std::fs::read_dir(&saved)? {
                let kept = kept?.path();
                if kept.extension().is_some_and(|extension| extension == "cache") {
                    std::fs::remove_file(kept)?;
                }
            }
            drop_caches()?;
            cold.push(look(arguments)?.time.as_secs_f64());
            let again = look(arguments)?;
            warm.push(again.time.as_secs_f64());
            memory = memory.max(again.memory);
        }
        let of = |times| median(times).ok_or("no rounds");
        say(&format!("| {name} | {:.2} s | {:.2} s | {} |", of(cold)?, of(warm)?, mib(memory)));
    }
    Ok(())
}
