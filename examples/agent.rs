//! `agent`: a shop that looks after itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use caretaker_examples::agent_core::{Agent, run_once, work};
use caretaker_examples::cli::{self, EXIT_CODES, Ended, complain, say};
use caretaker_examples::crew::Crew;
use caretaker_examples::scheduler::{Job, Step};
use clap::Parser;
use db_maint::RunEnd;
use health_probe::{Error, ErrorKind, Result};

/// Does what is due, for as long as it runs: clean-up, backups, stock, maintenance, audits, each at its time; and watches the shop.
///
/// It may run on every app server: they agree in the database of the shop on who does what. What was missed is caught up once.
///
/// On SIGTERM and Ctrl-C it begins nothing more and gives what runs a minute to end; a second signal ends it at once, which is safe.
#[derive(Debug, Parser)]
#[command(name = "agent", after_help = EXIT_CODES)]
struct Cli {
    /// The shop, described once; see examples/caretaker.toml.
    #[arg(long, value_name = "FILE", default_value = "caretaker.toml")]
    config: PathBuf,
    /// Read the configuration, say what is wrong with it, and do nothing.
    #[arg(long)]
    check_config: bool,
    /// Do what is due now and end: for cron. Exit code 1 where a job found something, 3 where one could not be done.
    #[arg(long)]
    once: bool,
    /// Do this job now, whatever is due, and end. Exit code 1 where it found something, 3 where it could not be done.
    #[arg(long, value_name = "JOB", conflicts_with_all = ["once", "check_config"])]
    run: Option<String>,
    /// Print one JSON document a line: each run of a job.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    cli::run_until(run(cli, stopped), move || {
        // Nobody listens where it has ended.
        let _ = stop.send(true);
    })
}

async fn run(cli: Cli, mut stopped: tokio::sync::watch::Receiver<bool>) -> Result<Ended> {
    let crew = Crew::read(&cli.config)?;
    crew.check()?;
    let agent = Arc::new(Agent::new(&crew).await?);
    if cli.check_config {
        for job in agent.scheduler().jobs() {
            say(&format!("{:20} {}", job.name(), job.when()));
        }
        return Ok(Ended::Well);
    }
    let json = cli.json;
    let said = move |job: &str, step: &Step| match step {
        Step::Ran(run) if json => match serde_json::to_string(run) {
            Ok(line) => say(&line),
            Err(e) => complain(&format!("{job}: a run that cannot be written as JSON: {e}")),
        },
        Step::Ran(run) => {
            let word = match run.end {
                RunEnd::Well => "well",
                RunEnd::Findings => "FINDINGS",
                _ => "FAILED",
            };
            let line = format!("{} {job}: {word}: {}", run.began.format("%F %T"), run.note);
            // So that cron, which throws stdout away, sends what people have to know.
            match run.end {
                RunEnd::Well => say(&line),
                _ => complain(&line),
            }
        }
        Step::Lost(why) => complain(&format!("{job}: {why}")),
        _ => {}
    };
    if let Some(name) = &cli.run {
        let job = agent.scheduler().jobs().iter().find(|j| j.name() == name);
        let job = job.ok_or_else(|| {
            let names: Vec<&str> = agent.scheduler().jobs().iter().map(Job::name).collect();
            Error::new(ErrorKind::Config, format!("there is no job called {name:?}"))
                .with_next_step(format!("there are: {}", names.join(", ")))
        })?;
        let step = agent.scheduler().run_now(job, chrono::Utc::now()).await;
        said(name, &step);
        return match step {
            Step::Ran(run) if run.end == RunEnd::Well => Ok(Ended::Well),
            Step::Ran(run) if run.end == RunEnd::Findings => Ok(Ended::WithFindings),
            Step::Ran(run) => {
                Err(Error::new(ErrorKind::Unreachable, format!("{name} could not be done: {}", run.note)))
            }
            Step::Lost(why) => Err(Error::new(ErrorKind::Unreachable, format!("{name}: {why}"))),
            _ => Err(Error::new(ErrorKind::Unreachable, format!("{name} runs just now, here or on another server"))
                .with_next_step("wait for it")),
        };
    }
    if cli.once {
        let steps = run_once(&agent, said).await;
        let worst = steps.iter().map(|step| match step {
            Step::Ran(run) if run.end == RunEnd::Well => 0,
            Step::Ran(run) if run.end == RunEnd::Findings => 1,
            Step::Ran(_) | Step::Lost(_) => 2,
            _ => 0,
        });
        return match worst.max() {
            Some(2) => Err(Error::new(ErrorKind::Unreachable, "a job could not be done").with_next_step("see above")),
            Some(1) => Ok(Ended::WithFindings),
            _ => Ok(Ended::Well),
        };
    }
    let listening = |at: std::net::SocketAddr| complain(&format!("listening on http://{at}"));
    let stop = async move {
        // Its sender lives as long as the program.
        let _ = stopped.wait_for(|is| *is).await;
    };
    work(&agent, stop, listening, said).await?;
    Ok(Ended::Well)
}
