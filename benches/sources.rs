//! What searching a source tree costs: all the rules of `checklist audit --source`, secrets among them, over a tree of a large shop.
//!
//! ```text
//! cargo build --release --workspace --examples --bins
//! target/release/sources  [--files 50000] [--mib 500] [--rounds 5]
//! ```
//!
//! The tree is TypeScript with imports, queries and long strings of random letters (which the measure of entropy has to look at), and one
//! planted key, which has to be found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use caretaker_benches::{Result, measure_ending, median, mib, say, tool};
use clap::Parser;

#[derive(Debug, Parser)]
struct Cli {
    #[arg(long, default_value_t = 50_000)]
    files: u32,
    #[arg(long, default_value_t = 500)]
    mib: u64,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

fn main() -> Result<()> {
    let Cli { files, mib: size, rounds } = Cli::parse();
    let dir = tempfile::tempdir()?;
    let bytes = write_tree(dir.path(), files, size << 20)?;
    say(&format!("{files} files, {} MiB", mib(bytes)));
    let program = tool("checklist")?;
    let audit = || {
        let mut checklist = Command::new(&program);
        checklist.args(["audit", "--json", "--source"]).arg(dir.path());
        checklist
    };
    // Fills the page cache, and shows that what is timed sees the planted key.
    let report: serde_json::Value = serde_json::from_slice(&audit().output()?.stdout)?;
    if !report.to_string().contains(&format!("file{}.ts", files / 2)) {
        return Err("the planted key was not found".into());
    }
    let (mut times, mut memory) = (Vec::new(), 0);
    for _ in 0..rounds {
        // There are findings: 1.
        let run = measure_ending(&mut audit(), &[1])?;
        times.push(run.time.as_secs_f64());
        memory = memory.max(run.memory);
    }
    let time = median(times).unwrap_or(f64::NAN);
    say(&format!("checklist audit --source {time:.2} s, peak {} MiB (median of {rounds})", mib(memory)));
    Ok(())
}

fn write_tree(root: &Path, files: u32, size: u64) -> Result<u64> {
    let mut random = fastrand::Rng::with_seed(42);
    let each = usize::try_from(size / u64::from(files.max(1)))?;
    let mut bytes = 0;
    for n in 0..files {
        let folder = root.join(format!("src/area{}/part{}", n / 2500, n / 50 % 50));
        std::fs::create_dir_all(&folder)?;
        let mut text = String::from("import { prisma } from '@/lib/prisma';\nimport { z } from 'zod';\n");
        while text.len() < each {
            let token: String = (0..random.usize(20..60)).map(|_| random.alphanumeric()).collect();
            let id = random.u32(..);
            writeln!(
                text,
                "export async function load{id}(input: unknown) {{\n  const wanted = schema{n}.parse(input);\n  \
                 return prisma.product.findMany({{ where: {{ category: wanted.category }}, take: {} }});\n}}\n\
                 export const key{id} = '{token}'; // of the picture in the list\n",
                random.u8(..)
            )?;
        }
        if n == files / 2 {
            let key: String = (0..24).map(|_| random.alphanumeric()).collect();
            writeln!(text, "const stripe = new Stripe('sk_live_{key}');")?;
        }
        bytes += text.len() as u64;
        std::fs::write(folder.join(format!("file{n}.ts")), text)?;
    }
    Ok(bytes)
}
