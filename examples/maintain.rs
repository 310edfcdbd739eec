//! `maintain`: look after a shop's database. Today: inspect it.

use std::process::ExitCode;

use caretaker_examples::cli::{self, EXIT_CODES, Ended, say};
use chrono::TimeDelta;
use clap::{Parser, Subcommand};
use db_maint::{Confidence, Error, ErrorKind, Finding, InspectOptions, Inspection, Outcome, Result, open};

/// Look after the database of a shop.
#[derive(Debug, Parser)]
#[command(name = "maintain", after_help = EXIT_CODES)]
struct Cli {
    /// Print one machine-readable document instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look for what should be mended, and say what could not be seen. Changes nothing and waits for nobody.
    ///
    /// Exit code 1 where something was found, and where a check could not look: what nobody saw is not well.
    Inspect {
        /// postgres://…, mysql://…, sqlite:PATH.
        #[arg(long, value_name = "URL")]
        database: String,
        /// For how many days the server has to have counted before an index is called unused.
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        unused_after: u32,
        /// Read a whole SQLite file, for a minute at most, also where nobody can write meanwhile: where it is not in WAL mode.
        #[arg(long, conflicts_with = "no_integrity")]
        integrity: bool,
        /// Never read a whole SQLite file.
        #[arg(long)]
        no_integrity: bool,
        /// Checks that may be blind without an exit code of 1, such as index-unused on a server that does not count.
        #[arg(long, value_name = "CHECK,…", value_delimiter = ',')]
        allow_unknown: Vec<String>,
    },
}

fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let Command::Inspect { database, unused_after, integrity, no_integrity, allow_unknown } = command;
    let mut options = InspectOptions::default().with_unused_after(TimeDelta::days(unused_after.into()));
    if integrity || no_integrity {
        options = options.with_integrity(integrity);
    }
    cli::run(inspect(json, &database, options, &allow_unknown), cli::nothing)
}

async fn inspect(json: bool, database: &str, options: InspectOptions, allow_unknown: &[String]) -> Result<Ended> {
    let inspection = open(database)?.inspect(&options).await?;
    for check in allow_unknown {
        if inspection.outcome(check).is_none() {
            return Err(Error::new(ErrorKind::Config, format!("--allow-unknown {check}: there is no such check"))
                .with_next_step("see `maintain inspect --json` for their names"));
        }
    }
    if json {
        let text = serde_json::to_string_pretty(&inspection)
            .map_err(|e| Error::new(ErrorKind::Config, "the inspection could not be written as JSON").with_source(e))?;
        say(&text);
    } else {
        show(&inspection);
    }
    let is_blind = |check: &str| !allow_unknown.iter().any(|allowed| allowed == check);
    let blind = inspection.unknown().any(|(check, _)| is_blind(check));
    Ok(if blind || inspection.findings().next().is_some() { Ended::WithFindings } else { Ended::Well })
}

fn show(inspection: &Inspection) {
    let capabilities = &inspection.capabilities;
    say(&format!("{}: {} {}", capabilities.location, capabilities.flavour, capabilities.version));
    for finding in inspection.findings() {
        show_finding(finding);
    }
    for (check, why) in inspection.unknown() {
        say(&format!("UNKNOWN   {check}: {why}"));
        if let Some(Outcome::Unknown { remedy: Some(remedy), .. }) = inspection.outcome(check) {
            say(&format!("          to see it: {remedy}"));
        }
    }
    let clean = inspection.checks.iter().filter(|c| matches!(c.outcome, Outcome::Clean { .. })).count();
    let blind = inspection.checks.iter().filter(|c| matches!(c.outcome, Outcome::Unknown { .. })).count();
    say(&format!("{} findings; {clean} checks found nothing, {blind} could not look", inspection.findings().count()));
}

fn show_finding(finding: &Finding) {
    let sure = if finding.confidence == Confidence::Estimated { " (estimated)" } else { "" };
    let severity = finding.severity.to_string();
    say(&format!("{severity:<9} {} {}: {}{sure}", finding.check, finding.object, finding.summary));
    if let Some(remedy) = &finding.remedy {
        say(&format!("          {remedy}"));
    }
}
