//! The `backup` tool beside what one would use otherwise: same data, same machine, interleaved, medians.
//!
//! ```text
//! cargo build --release --examples && cargo run --release -p caretaker-benches --bin peers -- files|postgres|mysql
//! ```

mod files;
mod mysql;
mod postgres;
mod steps;

use std::process::ExitCode;

use caretaker_benches::say;
use clap::{Parser, Subcommand};

use self::steps::Options;

/// Side-by-side runs.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// An uploads tree: first backup, cold and warm, and an unchanged second one.
    Files {
        /// How many files.
        #[arg(long, default_value_t = 7_500)]
        files: u64,
        /// How many bytes each, about.
        #[arg(long, default_value_t = 175_000)]
        mean: usize,
        /// Rounds; medians count.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Print JSON instead of Markdown.
        #[arg(long)]
        json: bool,
    },
    /// A PostgreSQL shop over a local socket: first backup, an unchanged second one, restore.
    Postgres {
        /// How many orders; a million are some 800 MB of table data.
        #[arg(long, default_value_t = 600_000)]
        orders: u64,
        #[command(flatten)]
        options: Options,
    },
    /// The same of a MariaDB shop.
    Mysql {
        /// How many orders; a million are some 800 MB of table data.
        #[arg(long, default_value_t = 600_000)]
        orders: u64,
        #[command(flatten)]
        options: Options,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().what {
        What::Files { files, mean, rounds, json } => files::run(files, mean, rounds, json),
        What::Postgres { orders, options } => postgres::run(orders, &options),
        What::Mysql { orders, options } => mysql::run(orders, &options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("error: {e}"));
            ExitCode::FAILURE
        }
    }
}
