//! Size and time of a first backup at different zstd levels.
//!
//! ```text
//! cargo run --release -p caretaker-benches --bin levels
//! ```

use std::process::ExitCode;
use std::time::Instant;

use backup_core::{BackupOptions, Keys, Repository, SqliteSource, Store};
use caretaker_benches::{Result, ended, median, mib, say};
use clap::Parser;
use storefront::Size;

/// Backs the sample shop up at each level, and says how large and how fast.
#[derive(Debug, Parser)]
struct Cli {
    /// Orders in the shop.
    #[arg(long, default_value_t = 200_000)]
    orders: u64,
    /// Runs of each level; their median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(&cli)));
    ended(done)
}

async fn run(cli: &Cli) -> Result<()> {
    const LEVELS: [i32; 5] = [1, 2, 3, 5, 9];
    let dir = tempfile::tempdir()?;
    let db = dir.path().join("shop.db");
    storefront::sqlite::create(&db, &Size::orders(cli.orders), 1).await?;
    let mut times = vec![Vec::new(); LEVELS.len()];
    let mut sizes = [(0, 0); LEVELS.len()];
    // The levels take turns, so that a noisy minute hits all of them.
    for _ in 0..cli.runs {
        for (n, level) in LEVELS.iter().enumerate() {
            let mut keys = Keys::generate()?;
            let repository = Repository::init(Store::from_url("memory:")?, &mut keys, &[]).await?;
            let began = Instant::now();
            let options = BackupOptions::default().with_level(*level);
            let totals = repository.backup(&SqliteSource::new(&db), options).await?.manifest.totals;
            times[n].push(began.elapsed().as_secs_f64());
            sizes[n] = (totals.bytes, totals.added);
        }
    }
    say("| zstd level | plain MiB | stored MiB | seconds (median) |");
    say("|---|---|---|---|");
    for ((level, times), (plain, stored)) in LEVELS.iter().zip(times).zip(sizes) {
        let time = median(times).ok_or("no runs")?;
        say(&format!("| {level} | {} | {} | {time:.2} |", mib(plain), mib(stored)));
    }
    Ok(())
}
