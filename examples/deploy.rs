//! `deploy`: a deployment with gates before it, a watch after it, and a way back.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use caretaker_examples::checklist_desk::ours;
use caretaker_examples::cli::{self, EXIT_CODES, Ended, complain, say};
use caretaker_examples::crew::Crew;
use caretaker_examples::deployment::{Ending, Request, deploy};
use checklist::{Error, ErrorKind, Result};
use clap::{Parser, Subcommand};

/// Deploy with gates before, a watch after, and a way back.
#[derive(Debug, Parser)]
#[command(name = "deploy", after_help = EXIT_CODES)]
struct Cli {
    /// Print one machine-readable document instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the checklist, the shop's health and its backups; run the command; watch the shop; go back where it is worse.
    ///
    /// The gates are those of `checklist steps deployment`: a verified backup that is new enough or is taken now, no critical probe, no
    /// critical item of the checklist that fails. Where one is closed the command is not run.
    ///
    /// Exit code 0 where the deployment stays and nothing is worse; 1 where it was refused, rolled back, or too little was seen to say; 3
    /// where it had to go back and could not.
    Run {
        /// The shop, described once; see examples/caretaker.toml.
        #[arg(long, value_name = "FILE", default_value = "caretaker.toml")]
        config: PathBuf,
        /// How the shop goes back, for the shell; it has CARETAKER_REASON. `rollback` in [deploy] without.
        #[arg(long, value_name = "COMMAND")]
        rollback: Option<String>,
        /// Pass over this gate. May be repeated.
        #[arg(long, value_name = "GATE", requires = "reason")]
        skip: Vec<String>,
        /// Why; it stands in the transcript.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Close the shop while the command runs, as [deploy] says.
        #[arg(long)]
        maintenance: bool,
        /// For how many hours to watch; with 0, only the first rounds. `watch_hours` in [deploy] without.
        #[arg(long, value_name = "HOURS")]
        watch: Option<u32>,
        /// How long the command may take.
        #[arg(long, value_name = "SPAN", default_value = "1h")]
        limit: db_maint::Period,
        /// Read the configuration, say what is wrong with it, and do nothing.
        #[arg(long)]
        check_config: bool,
        /// The command and its arguments.
        #[arg(last = true, required_unless_present = "check_config", value_name = "COMMAND")]
        command: Vec<OsString>,
    },
}

/// Writes a file that its owner alone may read.
fn private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    cli::run_until(run(cli, stopped), move || {
        // Nobody listens where it has ended.
        let _ = stop.send(true);
    })
}

async fn run(cli: Cli, stopped: tokio::sync::watch::Receiver<bool>) -> Result<Ended> {
    let Command::Run { config, rollback, skip, reason, maintenance, watch, limit, check_config, command } = cli.command;
    let theirs = |e: health_probe::Error| ours(&e, e.next_step());
    let crew = Crew::read(&config).map_err(theirs)?;
    if check_config {
        crew.check().map_err(theirs)?;
        say(&format!("{}: good", config.display()));
        return Ok(Ended::Well);
    }
    for gate in &skip {
        if !checklist::deployment_gates().iter().any(|g| g.id == *gate) {
            return Err(Error::new(ErrorKind::Config, format!("there is no gate called {gate}"))
                .with_next_step("`checklist steps deployment` names them"));
        }
    }
    let mut plan = crew.file().map_err(theirs)?.deploy;
    plan.watch_hours = watch.unwrap_or(plan.watch_hours);
    let mut request = Request::new(command);
    (request.rollback, request.skip, request.reason) = (rollback, skip, reason);
    (request.maintenance, request.limit) = (maintenance, limit.duration());
    let json = cli.json;
    let heard: fn(&str) = if json { |_| {} } else { |text| say(text) };
    let transcript = deploy(&crew, &plan, &request, stopped, heard).await?;
    let folder = crew.state.join("deployments");
    let file = folder.join(format!("{}.md", chrono::Utc::now().format("%Y-%m-%d-%H%M%S")));
    // What happened has happened, whether it can be written down or not.
    if let Err(e) = std::fs::create_dir_all(&folder).and_then(|()| private(&file, &transcript.markdown())) {
        complain(&format!("{}: cannot be written: {e}", file.display()));
    }
    match json {
        true => {
            let text = serde_json::to_string_pretty(&transcript).map_err(|e| {
                Error::new(ErrorKind::Malformed, "the transcript cannot be written as JSON").with_source(e)
            })?;
            say(&text);
        }
        false => say(&format!("transcript: {}", file.display())),
    }
    match transcript.ending {
        Some(Ending::Kept) => Ok(Ended::Well),
        Some(Ending::Broken) => {
            let last = transcript.steps.last().map(|(_, text)| text.clone()).unwrap_or_default();
            Err(Error::new(ErrorKind::Unreachable, format!("the shop is not as it was: {last}"))
                .with_next_step(format!("read {}", file.display())))
        }
        _ => Ok(Ended::WithFindings),
    }
}
