//! The `backup` tool beside what one would use otherwise: same data, same machine, in turns, medians.
//!
//! ```text
//! cargo build --release --workspace --examples --bins && target/release/peers all --out benches/measured
//! ```

mod aim;
mod chart;
mod files;
mod mysql;
mod postgres;
mod steps;
mod table;

use std::process::ExitCode;

use caretaker_benches::{Result, ended, say};
use clap::{Parser, Subcommand};

use self::steps::{Comparison, Options};

/// Side-by-side runs. Peers: `pg_dump`, `mariadb-dump`, `mydumper`, `restic`, `tar`, `zstd`, `age`; what is not installed
/// is said to be missing.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum What {
    /// An uploads tree.
    Files(files::Size),
    /// A PostgreSQL shop over a local socket.
    Postgres {
        /// How many orders; a million are some 800 MB of table data.
        #[arg(long, default_value_t = ORDERS)]
        orders: u64,
    },
    /// A MariaDB shop over a local socket.
    Mysql {
        /// How many orders; a million are some 700 MB of table data.
        #[arg(long, default_value_t = ORDERS)]
        orders: u64,
    },
    /// All three, at their usual sizes.
    All,
}

const ORDERS: u64 = 600_000;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.what {
        What::Files(size) => show(files::run(size, &cli.options), &cli.options),
        What::Postgres { orders } => show(postgres::run(*orders, &cli.options), &cli.options),
        What::Mysql { orders } => show(mysql::run(*orders, &cli.options), &cli.options),
        What::All => show(postgres::run(ORDERS, &cli.options), &cli.options)
            .and_then(|()| show(mysql::run(ORDERS, &cli.options), &cli.options))
            .and_then(|()| show(files::run(&files::Size::default(), &cli.options), &cli.options)),
    };
    ended(done)
}

fn show(comparison: Result<Comparison>, options: &Options) -> Result<()> {
    let comparison = comparison?;
    let json = serde_json::to_string_pretty(&comparison)?;
    let markdown = table::markdown(&comparison);
    if let Some(folder) = &options.out {
        std::fs::create_dir_all(folder)?;
        let at = |ending: &str| folder.join(format!("{}.{ending}", comparison.name));
        std::fs::write(at("json"), format!("{json}\n"))?;
        std::fs::write(at("md"), &markdown)?;
        std::fs::write(at("svg"), chart::svg(&comparison))?;
    }
    say(if options.json { &json } else { markdown.trim_end() });
    Ok(())
}
