//! `maintain`: look after a shop's database.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use caretaker_examples::cli::{self, EXIT_CODES, Ended, say};
use caretaker_examples::{display, maintain_text as text, policy_file};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Parser, Subcommand};
use db_maint::mode::{DatabaseRow, EnvFile, FlagFile, MaintenanceGuard, MaintenanceSwitch, Notice};
use db_maint::{
    AccessRule, Acquired, ApplyOptions, Delivery, Engine, Error, ErrorKind, Forecast, GrowthOptions, GrowthReport,
    History, InspectOptions, JobOptions, JobReport, Lease, Period, Plan, PlanOptions, Result, Room, StepEnd, Stop,
    apply, audit_access, check_stock, claim_abandoned, clean_up, clear_caches, confirm, count_abandoned, erase, export,
    mend_orphans, open, unconfirmed,
};
use serde::Serialize;

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
        #[command(flatten)]
        on: On,
        /// For how many days the server has to have counted before an index is called unused.
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        unused_after: u32,
        #[command(flatten)]
        beside: Beside,
        /// Read tables as a whole, for a minute at most each: whether foreign keys hold that the server does not vouch for, and
        /// whether a SQLite file is damaged, also where nobody can write meanwhile (where it is not in WAL mode).
        #[arg(long, conflicts_with = "no_integrity")]
        integrity: bool,
        /// Never read a whole SQLite file.
        #[arg(long)]
        no_integrity: bool,
        /// Checks that may be blind without an exit code of 1, such as index-unused on a server that does not count.
        #[arg(long, value_name = "CHECK,…", value_delimiter = ',')]
        allow_unknown: Vec<String>,
    },
    /// Count what the retention rules of a policy say is old enough to go; with --apply, delete, anonymise or archive it.
    ///
    /// In small batches, with sixteen times as much rest as work. One of many app servers does it, the others say so and end well.
    Cleanup(Job),
    /// Count rows that refer to nothing by the references of a policy; with --apply, mend them as each declares.
    Orphans(Job),
    /// Look, and plan what would mend what was found: the exact statements, what waits for them, what undoes them.
    Plan {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        beside: Beside,
        /// Write the plan there, for `apply`.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Also retire indexes that nothing needs: hidden from queries on MySQL and MariaDB, dropped elsewhere.
        #[arg(long)]
        retire_indexes: bool,
        /// Rebuild this index, whatever was found (PostgreSQL): SCHEMA.TABLE.INDEX. May be repeated.
        #[arg(long, value_name = "INDEX")]
        rebuild: Vec<String>,
        /// For how many days the server has to have counted before an index is called unused.
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        unused_after: u32,
    },
    /// Do what a plan says, where it still fits. Waits for nobody longer than a second; tries again.
    Apply {
        /// What `plan --out` wrote.
        plan: PathBuf,
        #[command(flatten)]
        on: On,
        /// How long a step may take.
        #[arg(long, value_name = "SPAN", default_value = "1h")]
        limit: Period,
        /// How often a step is tried where somebody was in the way.
        #[arg(long, value_name = "N", default_value_t = 5)]
        tries: u32,
        /// How long to wait before the second try, about.
        #[arg(long, value_name = "SPAN", default_value = "10s")]
        pause: Period,
        /// For how long the lease is taken; it is renewed.
        #[arg(long, value_name = "SPAN", default_value = "60s")]
        lease: Period,
        #[command(flatten)]
        disk: Disk,
    },
    /// How large the database is, how fast it grows, and when the disk will be full.
    ///
    /// Each run adds a look to --history; a rate takes four of them over three days. Exit code 1 where the disk will be full
    /// within --within, and where that was asked and is not known.
    Growth {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        beside: Beside,
        #[command(flatten)]
        disk: Disk,
        /// How far to look back.
        #[arg(long, value_name = "SPAN", default_value = "60d")]
        window: Period,
        /// How near the day has to be to be a finding.
        #[arg(long, value_name = "SPAN", default_value = "30d")]
        within: Period,
    },
    /// Who may do what: roles with all that they inherit, who reaches the tables of a policy's [access], who the shop's own
    /// administrators are.
    ///
    /// Exit code 1 where something should not be so, and where something could not be seen.
    Access {
        #[command(flatten)]
        on: On,
        /// The shop's rules; see `maintain policy`. Without one only the server's roles are looked at.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// The time it is, instead of the database's own.
        #[arg(long, value_name = "RFC3339")]
        now: Option<DateTime<Utc>>,
        /// Taken for the same command line as the other verbs; nothing is compared with it.
        #[arg(long, value_name = "FILE", hide = true)]
        history: Option<PathBuf>,
    },
    /// Count what the caches of a policy hold; with --apply, clear them.
    Cache {
        /// The shop's rules; see `maintain policy`.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// Only this one. May be repeated.
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// Do it.
        #[arg(long)]
        apply: bool,
    },
    /// Look for what is about to run out. With --apply it is remembered, and told as new once, when it crosses its threshold.
    ///
    /// Exit code 1 where something is newly low, or not known.
    Inventory {
        #[command(flatten)]
        by: By,
        /// Remember what was told.
        #[arg(long)]
        apply: bool,
    },
    /// Count abandoned carts; with --apply, claim each once, and hand it over.
    ///
    /// Each is given as one JSON object a line (cart, contact, activity): to --send, or on stdout.
    Carts {
        #[command(flatten)]
        by: By,
        /// Claim them.
        #[arg(long)]
        apply: bool,
        /// A command that is run by the shell for each, with the JSON on its stdin; exit code 0 means that the owner was told.
        #[arg(long, value_name = "COMMAND", requires = "apply")]
        send: Option<String>,
        /// Claim so many at most.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        most: u32,
    },
    /// Hand out what is known of one person, or forget it, over all tables that the policy declares.
    Privacy {
        #[command(subcommand)]
        what: Privacy,
    },
    /// Close the shop for maintenance, open it, or say whether it is closed.
    Mode {
        #[command(subcommand)]
        what: Mode,
    },
    /// Print a policy with every kind of rule explained.
    Policy,
}

#[derive(Debug, Args)]
struct Beside {
    /// The shop's rules, which are held against the database too; see `maintain policy`.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Earlier looks at this database, and where this one is added: what is slow, stays free or grows shows beside them alone.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

impl Beside {
    fn options(&self, mut options: InspectOptions) -> Result<InspectOptions> {
        if let Some(file) = &self.policy {
            options = options.with_policy(policy_file::read(file)?);
        }
        if let Some(file) = &self.history {
            options = options.with_history(History::read(file)?);
        }
        Ok(options)
    }

    /// Adds a look to the file, if there is one: all looks then.
    async fn look(&self, engine: &dyn Engine) -> Result<History> {
        let look = engine.look().await?;
        if let Some(file) = &self.history {
            return History::add(file, look);
        }
        let mut history = History::default();
        history.push(look)?;
        Ok(history)
    }
}

/// What is free where the database lies.
#[derive(Debug, Args)]
struct Disk {
    /// A path on the disk where the database lies, if that is on this machine.
    #[arg(long, value_name = "PATH", conflicts_with = "free")]
    volume: Option<PathBuf>,
    /// How many bytes are free there, such as 20G, where the server is elsewhere.
    #[arg(long, value_name = "BYTES", value_parser = display::bytes)]
    free: Option<u64>,
}

impl Disk {
    fn room(&self) -> Option<Room> {
        self.volume.clone().map(Room::OnDiskOf).or(self.free.map(Room::Bytes))
    }
}

#[derive(Debug, Args)]
struct By {
    #[command(flatten)]
    on: On,
    /// The shop's rules; see `maintain policy`.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The time it is, instead of the database's own.
    #[arg(long, value_name = "RFC3339")]
    now: Option<DateTime<Utc>>,
}

#[derive(Debug, Subcommand)]
enum Privacy {
    /// Everything that is known of the person, as JSON.
    Export {
        #[command(flatten)]
        by: By,
        /// What stands for the person in the declared columns, such as the customer's number.
        #[arg(long, value_name = "KEY")]
        subject: String,
        /// Write it there, for its owner alone, instead of to stdout.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Count what would be forgotten; with --apply, forget it. Prints a certificate that holds nothing of the person.
    ///
    /// Exit code 1 where something of the person is left that should have gone.
    Erase {
        #[command(flatten)]
        by: By,
        /// What stands for the person in the declared columns, such as the customer's number.
        #[arg(long, value_name = "KEY")]
        subject: String,
        /// Do it.
        #[arg(long)]
        apply: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Close the shop.
    On {
        #[command(flatten)]
        at: At,
        /// For how long: then it opens by itself, where the shop's program reads the time.
        #[arg(long = "for", value_name = "SPAN", default_value = "30m")]
        span: Period,
        /// What customers are told.
        #[arg(long, default_value = "We are working on the shop and will be back soon.")]
        reason: String,
        /// A file with the token that lets its bearer look behind; only its SHA-256 is written down.
        #[arg(long, value_name = "FILE")]
        bypass_token_file: Option<PathBuf>,
        /// Stay, and open the shop on Ctrl-C, SIGTERM, or when the time is over.
        #[arg(long)]
        hold: bool,
    },
    /// Open the shop.
    Off {
        #[command(flatten)]
        at: At,
        /// Only where its time is over: for cron.
        #[arg(long)]
        if_over: bool,
    },
    /// Say whether the shop is closed: exit code 1 where it is.
    Status {
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct At {
    /// A .env file with NEXT_PUBLIC_MAINTENANCE_MODE.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// A file that is there while the shop is closed.
    #[arg(long, value_name = "FILE")]
    flag_file: Option<PathBuf>,
    /// A row in this database: postgres://…, mysql://…, sqlite:PATH.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

impl At {
    fn switch(&self) -> Result<Arc<dyn MaintenanceSwitch>> {
        Ok(match (&self.env_file, &self.flag_file, &self.database) {
            (Some(file), ..) => Arc::new(EnvFile::new(file)),
            (_, Some(file), _) => Arc::new(FlagFile::new(file)),
            (_, _, Some(url)) => Arc::new(DatabaseRow::new(open(url)?.into())),
            _ => {
                return Err(Error::new(ErrorKind::Config, "nothing says where the shop looks for it")
                    .with_next_step("give --env-file, --flag-file or --database"));
            }
        })
    }
}

#[derive(Debug, Args)]
struct On {
    /// postgres://…, mysql://…, sqlite:PATH.
    #[arg(long, value_name = "URL")]
    database: String,
}

impl On {
    fn open(&self) -> Result<Box<dyn Engine>> {
        open(&self.database)
    }
}

#[derive(Debug, Args)]
struct Job {
    #[command(flatten)]
    on: On,
    /// The shop's rules; see `maintain policy`.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Do it; without, it is counted only.
    #[arg(long)]
    apply: bool,
    /// Change so many rows at most; the next run goes on from there.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// Work for so long at most, such as 30m; the next run goes on from there.
    #[arg(long, value_name = "SPAN")]
    time: Option<Period>,
    /// How many milliseconds one batch should take.
    #[arg(long, value_name = "MS", default_value_t = 200)]
    batch: u64,
    /// How long to rest after a batch, for each second that it took.
    #[arg(long, value_name = "FACTOR", default_value_t = 16.0)]
    rest: f64,
    /// Wait while a replica is further behind (PostgreSQL).
    #[arg(long, value_name = "SPAN")]
    max_lag: Option<Period>,
    /// Wait while more other sessions are at work in the server.
    #[arg(long, value_name = "SESSIONS")]
    max_load: Option<u32>,
    /// Stop after the batch in hand when this file appears, as Ctrl-C does.
    #[arg(long, value_name = "FILE")]
    stop_file: Option<PathBuf>,
    /// How long to wait where another process does it just now, such as 5m.
    #[arg(long, value_name = "SPAN")]
    wait: Option<Period>,
    /// For how long the lease is taken; each batch renews it. A process that dies keeps the others waiting for so long.
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    lease: Period,
    /// The time it is, instead of the database's own.
    #[arg(long, value_name = "RFC3339")]
    now: Option<DateTime<Utc>>,
}

impl Job {
    fn options(&self, stop: &Stop) -> JobOptions {
        let stop = match &self.stop_file {
            Some(file) => stop.clone().or_file(file),
            None => stop.clone(),
        };
        let mut options = JobOptions::default().with_pace(Duration::from_millis(self.batch), self.rest).with_stop(stop);
        options.apply = self.apply;
        options.now = self.now;
        options.rows = self.rows;
        options.time = self.time.map(Period::duration);
        options.lag = self.max_lag.map(Period::duration);
        options.load = self.max_load;
        options
    }
}

fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let stop = Stop::default();
    let asked = stop.clone();
    cli::run_until(run(json, command, stop), move || asked.stop())
}

async fn run(json: bool, command: Command, stop: Stop) -> Result<Ended> {
    match command {
        Command::Inspect { on, unused_after, beside, integrity, no_integrity, allow_unknown } => {
            let options = InspectOptions::default().with_unused_after(TimeDelta::days(unused_after.into()));
            let mut options = beside.options(options)?;
            if integrity || no_integrity {
                options = options.with_integrity(integrity);
            }
            let ended = inspect(json, &on, options, &allow_unknown, beside.history.as_deref()).await?;
            Ok(ended)
        }
        Command::Cleanup(job) => {
            let policy = policy_file::read(&job.policy)?;
            if policy.retention.is_empty() {
                return Err(no_rule("[[retention]]"));
            }
            let (engine, options) = (job.on.open()?, job.options(&stop));
            let lease = take(&*engine, "caretaker cleanup", job.apply, job.lease, job.wait).await?;
            let Leased::Ours(lease) = lease else { return Ok(elsewhere(json, lease)) };
            let done = clean_up(&*engine, &policy, &options, lease.as_ref()).await;
            give_back(&*engine, lease).await;
            ended(json, &job, &done?)
        }
        Command::Orphans(job) => {
            let policy = policy_file::read(&job.policy)?;
            if policy.reference.is_empty() {
                return Err(no_rule("[[reference]]"));
            }
            let (engine, options) = (job.on.open()?, job.options(&stop));
            let lease = take(&*engine, "caretaker orphans", job.apply, job.lease, job.wait).await?;
            let Leased::Ours(lease) = lease else { return Ok(elsewhere(json, lease)) };
            let done = mend_orphans(&*engine, &policy, &options, lease.as_ref()).await;
            give_back(&*engine, lease).await;
            let reports = done?;
            let ended = ended(json, &job, &reports)?;
            let left = reports.iter().any(|r| r.met > r.changed);
            Ok(if left { Ended::WithFindings } else { ended })
        }
        Command::Plan { on, beside, out, retire_indexes, rebuild, unused_after } => {
            let inspect = InspectOptions::default().with_unused_after(TimeDelta::days(unused_after.into()));
            let inspect = beside.options(inspect)?;
            let mut options = PlanOptions::default().rebuilding(rebuild);
            options.retire_indexes = retire_indexes;
            let plan = on.open()?.plan(&inspect, &options).await?;
            if let Some(out) = out {
                let document = document(&plan)?;
                std::fs::write(&out, document).map_err(|e| {
                    Error::new(ErrorKind::Config, format!("{}: cannot be written: {e}", out.display())).with_source(e)
                })?;
            }
            if json {
                print(&plan)?;
            } else {
                text::plan(&plan);
            }
            Ok(if plan.steps.is_empty() { Ended::Well } else { Ended::WithFindings })
        }
        Command::Apply { plan, on, limit, tries, pause, lease, disk } => {
            let plan = read_plan(&plan)?;
            let engine = on.open()?;
            let mut options = ApplyOptions::default()
                .with_limit(limit.duration())
                .with_tries(tries, pause.duration())
                .with_stop(stop);
            options.room = disk.room();
            let leased = take(&*engine, "caretaker apply", true, lease, None).await?;
            let Leased::Ours(leased) = leased else { return Ok(elsewhere(json, leased)) };
            let done = apply(&*engine, &plan, &options, leased.as_ref()).await;
            give_back(&*engine, leased).await;
            let report = done?;
            if json {
                print(&report)?;
            } else {
                text::applied(&plan, &report);
            }
            let all_done =
                report.steps.len() == plan.steps.len() && report.steps.iter().all(|s| s.end == StepEnd::Done);
            Ok(if all_done { Ended::Well } else { Ended::WithFindings })
        }
        Command::Growth { on, beside, disk, window, within } => growth(json, &on, &beside, &disk, window, within).await,
        Command::Access { on, policy, now, history: _ } => {
            let rule = match policy {
                Some(file) => policy_file::read(&file)?.access.ok_or_else(|| no_rule("[access]"))?,
                None => AccessRule::default(),
            };
            let report = audit_access(&*on.open()?, &rule, now).await?;
            if json {
                print(&report)?;
            } else {
                text::access(&report);
            }
            let is_well = report.findings.is_empty() && report.unknown.is_empty();
            Ok(if is_well { Ended::Well } else { Ended::WithFindings })
        }
        Command::Cache { policy, only, apply } => {
            let policy = policy_file::read(&policy)?;
            let reports = clear_caches(&policy, &only, apply, &stop).await?;
            if json {
                print(&serde_json::json!({ "applied": apply, "caches": reports }))?;
            } else {
                text::caches(apply, &reports);
            }
            let is_well = reports.iter().all(|r| r.failed.is_empty() && r.complete);
            Ok(if is_well { Ended::Well } else { Ended::WithFindings })
        }
        Command::Inventory { by, apply } => {
            let policy = policy_file::read(&by.policy)?;
            let rule = policy.stock.as_ref().ok_or_else(|| no_rule("[stock]"))?;
            let engine = by.on.open()?;
            let term = Period::new(TimeDelta::minutes(1));
            let lease = take(&*engine, "caretaker inventory", apply, term, None).await?;
            let Leased::Ours(lease) = lease else { return Ok(elsewhere(json, lease)) };
            let report = check_stock(&*engine, rule, by.now, apply).await;
            give_back(&*engine, lease).await;
            let report = report?;
            if json {
                print(&report)?;
            } else {
                text::stock(&report, apply);
            }
            let is_well = report.unknown.is_empty() && !report.low.iter().any(|l| l.is_new);
            Ok(if is_well { Ended::Well } else { Ended::WithFindings })
        }
        Command::Carts { by, apply, send, most } => carts(json, &by, apply, send.as_deref(), most, &stop).await,
        Command::Privacy { what: Privacy::Export { by, subject, out } } => {
            let policy = policy_file::read(&by.policy)?;
            let known = export(&*by.on.open()?, &policy, &subject, by.now).await?;
            match out {
                Some(out) => write_private(&out, &document(&known)?)?,
                None => print(&known)?,
            }
            Ok(Ended::Well)
        }
        Command::Privacy { what: Privacy::Erase { by, subject, apply } } => {
            let policy = policy_file::read(&by.policy)?;
            let mut options = JobOptions::default().with_stop(stop);
            (options.apply, options.now) = (apply, by.now);
            let certificate = erase(&*by.on.open()?, &policy, &subject, &options).await?;
            if json {
                print(&certificate)?;
            } else {
                text::erased(&certificate);
            }
            Ok(if apply && !certificate.complete { Ended::WithFindings } else { Ended::Well })
        }
        Command::Mode { what } => mode(json, what, &stop).await,
        Command::Policy => {
            say(policy_file::EXAMPLE.trim_end());
            Ok(Ended::Well)
        }
    }
}

async fn inspect(
    json: bool,
    on: &On,
    options: InspectOptions,
    allow_unknown: &[String],
    history: Option<&Path>,
) -> Result<Ended> {
    let inspection = on.open()?.inspect(&options).await?;
    if let (Some(file), Some(look)) = (history, &inspection.look) {
        History::add(file, look.clone())?;
    }
    for check in allow_unknown {
        if inspection.outcome(check).is_none() {
            return Err(Error::new(ErrorKind::Config, format!("--allow-unknown {check}: there is no such check"))
                .with_next_step("see `maintain inspect --json` for their names"));
        }
    }
    if json {
        print(&inspection)?;
    } else {
        text::inspection(&inspection);
    }
    let is_blind = |check: &str| !allow_unknown.iter().any(|allowed| allowed == check);
    let blind = inspection.unknown().any(|(check, _)| is_blind(check));
    Ok(if blind || inspection.findings().next().is_some() { Ended::WithFindings } else { Ended::Well })
}

/// Looks, and says how fast it grows.
async fn growth(json: bool, on: &On, beside: &Beside, disk: &Disk, window: Period, within: Period) -> Result<Ended> {
    if let Some(file) = &beside.policy {
        policy_file::read(file)?;
    }
    let history = beside.look(&*on.open()?).await?;
    let mut options = GrowthOptions::default().with_window(window.delta());
    let room = disk.room();
    if let Some(room) = &room {
        options = options.with_free_bytes(room.free_bytes()?);
    }
    let report = GrowthReport::of(&history, &options)?;
    if json {
        print(&report)?;
    } else {
        text::growth(&report, options.free_bytes);
    }
    let is_near = match &report.forecast {
        Forecast::Full { earliest, .. } => *earliest - report.taken_at <= within.delta(),
        // Nobody asked, or it was asked and not answered.
        Forecast::Unknown { .. } => room.is_some(),
        _ => false,
    };
    Ok(if is_near { Ended::WithFindings } else { Ended::Well })
}

/// Claims abandoned carts, and hands each over.
async fn carts(json: bool, by: &By, apply: bool, send: Option<&str>, most: u32, stop: &Stop) -> Result<Ended> {
    let policy = policy_file::read(&by.policy)?;
    let rule = policy.cart.as_ref().ok_or_else(|| no_rule("[cart]"))?;
    let engine = by.on.open()?;
    if !apply {
        let count = count_abandoned(&*engine, rule, by.now).await?;
        match json {
            true => print(&serde_json::json!({ "abandoned": count }))?,
            false => say(&format!("{count} carts are abandoned; nothing was changed: --apply claims them")),
        }
        return Ok(Ended::Well);
    }
    let (mut told, mut failed, mut left) = (0u32, 0u32, most);
    while left > 0 && !stop.is_stopped() {
        // Not more than can be handed over before somebody pulls the plug.
        let claimed = claim_abandoned(&*engine, rule, by.now, left.min(20)).await?;
        if claimed.is_empty() {
            break;
        }
        left -= u32::try_from(claimed.len()).unwrap_or(left).min(left);
        for cart in &claimed {
            let line = serde_json::to_string(cart)
                .map_err(|e| Error::new(ErrorKind::Config, "a cart could not be written as JSON").with_source(e))?;
            let is_told = match send {
                None => {
                    say(&line);
                    true
                }
                Some(command) => hand_over(command, &line).await?,
            };
            let delivery = if is_told { Delivery::Done } else { Delivery::NotSent };
            confirm(&*engine, rule, cart, delivery).await?;
            *(if is_told { &mut told } else { &mut failed }) += 1;
        }
        if failed > 0 {
            // What fails once will fail for the next: they stay to be claimed.
            break;
        }
    }
    let lost = unconfirmed(&*engine, rule).await?;
    if send.is_some() && json {
        print(&serde_json::json!({ "told": told, "failed": failed, "unconfirmed": lost }))?;
    } else if send.is_some() {
        say(&format!("{told} owners were told, {failed} could not be"));
    }
    if !lost.is_empty() {
        cli::complain(&format!(
            "{} carts were claimed more than an hour ago and never confirmed; nobody knows whether their owners were told: {}",
            lost.len(),
            lost.join(", ")
        ));
    }
    Ok(if failed == 0 && lost.is_empty() { Ended::Well } else { Ended::WithFindings })
}

/// Whether the command took it.
async fn hand_over(command: &str, line: &str) -> Result<bool> {
    let (command, line) = (command.to_owned(), format!("{line}\n"));
    let told = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let mut child =
            Command::new("sh").arg("-c").arg(&command).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not read it may succeed all the same.
            match input.write_all(line.as_bytes()) {
                Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => return Err(e),
                _ => {}
            }
        }
        child.wait().map(|status| status.success())
    });
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Config, format!("--send could not be run: {e}")).with_next_step("check the command")
    };
    told.await.map_err(|e| failed(e.into()))?.map_err(|e| failed(e.into()))
}

async fn mode(json: bool, what: Mode, stop: &Stop) -> Result<Ended> {
    match what {
        Mode::On { at, span, reason, bypass_token_file, hold } => {
            let switch = at.switch()?;
            let now = Utc::now();
            let mut notice = Notice::new(reason, now + span.delta());
            if let Some(file) = bypass_token_file {
                let token = std::fs::read_to_string(&file).map_err(|e| {
                    Error::new(ErrorKind::Config, format!("{}: cannot be read: {e}", file.display())).with_source(e)
                })?;
                notice = notice.with_bypass(token.trim());
            }
            if !hold {
                switch.on(&notice).await?;
                return text::mode(json, &switch.location(), Some(&notice), now);
            }
            let guard = MaintenanceGuard::enter(switch.clone(), &notice, now).await?;
            text::mode(json, &switch.location(), Some(&notice), now)?;
            while !stop.is_stopped() && !notice.is_over(Utc::now()) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            guard.leave().await?;
            text::mode(json, &switch.location(), None, Utc::now())
        }
        Mode::Off { at, if_over } => {
            let switch = at.switch()?;
            let there = switch.status().await?;
            let now = Utc::now();
            match there.filter(|there| if_over && !there.is_over(now)) {
                Some(there) => text::mode(json, &switch.location(), Some(&there), now),
                None => {
                    switch.off().await?;
                    text::mode(json, &switch.location(), None, now)
                }
            }
        }
        Mode::Status { at } => {
            let switch = at.switch()?;
            let (there, now) = (switch.status().await?, Utc::now());
            text::mode(json, &switch.location(), there.as_ref(), now)?;
            Ok(if there.is_some() { Ended::WithFindings } else { Ended::Well })
        }
    }
}

fn no_rule(what: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the policy has no {what}"))
        .with_next_step("see `maintain policy` for an example")
}

/// Writes a new file that its owner alone may read.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let wrong = |e: std::io::Error| {
        Error::new(ErrorKind::Config, format!("{}: cannot be written: {e}", path.display()))
            .with_next_step("name a file that does not exist")
            .with_source(e)
    };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)
}

/// Who does it.
enum Leased {
    /// This process; nothing is leased where nothing is changed.
    Ours(Option<Lease>),
    Theirs(db_maint::Holder),
}

async fn take(engine: &dyn Engine, name: &str, apply: bool, term: Period, wait: Option<Period>) -> Result<Leased> {
    if !apply {
        return Ok(Leased::Ours(None));
    }
    let patience = wait.map_or(Duration::ZERO, Period::duration);
    Ok(match Lease::wait(engine, name, term.duration(), patience).await? {
        Acquired::Held(lease) => Leased::Ours(Some(lease)),
        Acquired::By(holder) => Leased::Theirs(holder),
    })
}

async fn give_back(engine: &dyn Engine, lease: Option<Lease>) {
    if let Some(lease) = lease
        && let Err(e) = lease.release(engine).await
    {
        cli::complain(&format!("warning: the lease is not given back, and ends in a minute: {e}"));
    }
}

fn elsewhere(json: bool, lease: Leased) -> Ended {
    if let Leased::Theirs(holder) = lease {
        let left = holder.remaining.as_secs();
        if json {
            say(&serde_json::json!({ "held_by": holder.name, "remaining_seconds": left }).to_string());
        } else {
            say(&format!("{} does it just now (its lease ends in {left} s unless it renews it)", holder.name));
        }
    }
    Ended::Well
}

fn ended(json: bool, job: &Job, reports: &[JobReport]) -> Result<Ended> {
    if json {
        print(&serde_json::json!({ "applied": job.apply, "rules": reports }))?;
    } else {
        text::jobs(job.apply, reports);
    }
    Ok(if reports.iter().any(|r| !r.poison.is_empty() || r.unchanged > 0) { Ended::WithFindings } else { Ended::Well })
}

fn print(value: &impl Serialize) -> Result<()> {
    say(&document(value)?);
    Ok(())
}

fn document(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(ErrorKind::Config, "the report could not be written as JSON").with_source(e))
}

fn read_plan(path: &Path) -> Result<Plan> {
    let wrong = |why: String| {
        Error::new(ErrorKind::Config, format!("{}: {why}", path.display()))
            .with_next_step("make one with `maintain plan --out`")
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")).with_source(e))?;
    serde_json::from_str(&text).map_err(|e| wrong(format!("is no plan: {e}")).with_source(e))
}
