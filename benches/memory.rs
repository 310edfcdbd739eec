//! Peak memory of the `backup` tool over databases and trees of different sizes.
//!
//! ```text
//! cargo build --release --examples && cargo run --release -p caretaker-benches --bin memory
//! ```

use std::path::Path;
use std::process::{Command, ExitCode};

use caretaker_benches::{Measured, Result, backup_tool, ended, measure, mib, say, size_of};
use clap::Parser;
use storefront::Size;

/// Peak memory of create, verify and restore, for two sizes of a database and of a tree of small files.
#[derive(Debug, Parser)]
struct Cli {
    /// Orders in the small and in the large database: about 100 MiB and 1 GiB.
    #[arg(long, num_args = 2, default_values_t = [110_000, 1_150_000])]
    orders: Vec<u64>,
    /// Files in the small and in the large tree.
    #[arg(long, num_args = 2, default_values_t = [10_000, 200_000])]
    files: Vec<u64>,
    /// Bytes of a file, on average: a product picture as a shop's page shows it.
    #[arg(long, default_value_t = 8_000)]
    mean: usize,
}

fn main() -> ExitCode {
    ended(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<()> {
    say("| source | size | first create | second create | verify content | restore |");
    say("|---|---|---|---|---|---|");
    for orders in cli.orders.iter().filter(|n| **n > 0) {
        let dir = tempfile::tempdir()?;
        let db = dir.path().join("shop.db");
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(storefront::sqlite::create(
            &db,
            &Size::orders(*orders),
            1,
        ))?;
        let size = format!("{} MiB", mib(db.metadata()?.len()));
        row(dir.path(), "SQLite", &size, "sqlite:shop.db", "sqlite:restored.db")?;
    }
    for files in cli.files.iter().filter(|n| **n > 0) {
        let dir = tempfile::tempdir()?;
        storefront::uploads::create(&dir.path().join("uploads"), 1, *files, cli.mean)?;
        let (bytes, count) = size_of(&dir.path().join("uploads"))?;
        row(dir.path(), "files", &format!("{count} files, {} MiB", mib(bytes)), "dir:uploads", "dir:restored")?;
    }
    Ok(())
}

fn row(dir: &Path, what: &str, size: &str, source: &str, target: &str) -> Result<()> {
    let tool = backup_tool()?;
    let store = format!("file://{}/store", dir.display());
    let run = |arguments: &[&str]| -> Result<Measured> {
        measure(Command::new(&tool).args(arguments).args(["--json"]).current_dir(dir))
    };
    run(&["keygen", "--out", "keys"])?;
    run(&["init", "--store", &store, "--keys", "keys"])?;
    let at = ["--store", &store, "--keys", "keys"];
    let on = |verb: &str, more: &[&str]| run(&[&[verb][..], &at, more].concat());
    let cells = [
        on("create", &["--source", source])?,
        on("create", &["--source", source])?,
        on("verify", &["--level", "content"])?,
        on("restore", &["--snapshot", "latest", "--target", target])?,
    ];
    let cells: Vec<String> =
        cells.iter().map(|m| format!("{} MiB, {:.1} s", mib(m.memory), m.time.as_secs_f64())).collect();
    say(&format!("| {what} | {size} | {} |", cells.join(" | ")));
    Ok(())
}
