//! Steps that take turns, and the table of their medians.

use std::process::Command;

use caretaker_benches::{Measured, Result, backup_tool, is_installed, measure, median, mib, say, size_of};
use clap::Args;

/// How to run and show them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only steps whose names contain one of these; the floor always runs.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Rounds; medians count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Print JSON instead of Markdown.
    #[arg(long)]
    json: bool,
}

/// One measured step.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [&'static str],
    /// Run before it, not measured.
    pub(crate) before: &'static str,
    pub(crate) run: &'static str,
    /// Whether what it stores is to be told.
    pub(crate) stores: bool,
}

/// What is said above the table.
pub(crate) struct Title {
    pub(crate) server: String,
    /// Bytes of table data.
    pub(crate) data: u64,
}

/// Runs the steps in turns and prints their medians; the first is the floor that the others are held against.
pub(crate) fn compare(steps: &[Step], environment: &[(&str, String)], title: &Title, options: &Options) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let tool = backup_tool()?;
    let shell = |text: &str| -> Result<Measured> {
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", text]).current_dir(dir.path()).env("TOOL", &tool);
        measure(command.envs(environment.iter().map(|(name, value)| (name, value))))
    };
    let mut times: Vec<Vec<f64>> = steps.iter().map(|_| Vec::new()).collect();
    let mut memory = vec![0; steps.len()];
    let mut stored = 0;
    for _ in 0..options.rounds {
        for (n, step) in steps.iter().enumerate() {
            let left_out = n > 0 && !options.only.is_empty() && !options.only.iter().any(|o| step.name.contains(o));
            if left_out || !step.needs.iter().all(|p| is_installed(p)) {
                continue;
            }
            if !step.before.is_empty() {
                shell(step.before)?;
            }
            let measured = shell(step.run)?;
            times[n].push(measured.time.as_secs_f64());
            memory[n] = memory[n].max(measured.memory);
            if step.stores {
                stored = size_of(&dir.path().join("place"))?.0;
            }
        }
    }
    // Against the floor of the same round: a slow minute of the machine slows both.
    let of_floor = |t: &[f64]| median(t.iter().zip(&times[0]).map(|(t, floor)| t / floor).collect());
    if options.json {
        let steps: Vec<_> = steps
            .iter()
            .zip(&times)
            .map(|(s, t)| serde_json::json!({ "step": s.name, "seconds": median(t.clone()), "of_floor": of_floor(t) }))
            .collect();
        say(&serde_json::to_string_pretty(&serde_json::json!({
            "server": title.server, "table_bytes": title.data, "rounds": options.rounds, "stored_bytes": stored, "steps": steps
        }))?);
        return Ok(());
    }
    say(&format!(
        "{}, {} MiB of tables, {} rounds, medians; caretaker stores {} MiB:",
        title.server,
        mib(title.data),
        options.rounds,
        mib(stored)
    ));
    say("");
    say(&format!("| | seconds | of the {} | peak MiB |", steps[0].name));
    say("|---|---|---|---|");
    for (n, (step, t)) in steps.iter().zip(&times).enumerate() {
        // Of a pipe only the shell is watched, which says nothing.
        let memory = if step.run.starts_with("exec ") { mib(memory[n]) } else { "—".into() };
        match (median(t.clone()), of_floor(t)) {
            (Some(m), Some(ratio)) => say(&format!("| {} | {m:.2} | {ratio:.2} | {memory} |", step.name)),
            _ => say(&format!("| {} | left out or not installed | | |", step.name)),
        }
    }
    Ok(())
}
