//! `checklist`: what has to be so in a shop, checked, attested, and remembered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use caretaker_examples::checklist_desk::{Desk, Look, ours};
use caretaker_examples::cli::{self, EXIT_CODES, Ended, say};
use checklist::ledger::{Entries, Record, check_export};
use checklist::report::{Format, Report};
use checklist::{
    Attestation, Auditor, Context, Error, ErrorKind, Outcome, Result, TaskState, Waiver, deployment_gates,
    incident_steps, scaling, secret_ages,
};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

/// What has to be so in a shop: checked, attested by people, remembered, and expiring.
#[derive(Debug, Parser)]
#[command(name = "checklist", after_help = EXIT_CODES)]
struct Cli {
    /// Print one machine-readable document instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    look: Look,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at everything, and write it down. Exit code 1 where an item is open: it fails, is worth a look, or is not known.
    Audit,
    /// The last audit as a report; runs one first where there is none. Exit code 0 whatever it says.
    Report {
        /// In what.
        #[arg(long, value_enum, default_value = "md")]
        format: As,
        /// Where to; stdout without.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Tasks that are due. Exit code 1 where one is overdue.
    Tasks {
        /// Those that are done, too.
        #[arg(long)]
        all: bool,
    },
    /// Say that a task was done.
    Done {
        /// The task.
        task: String,
        #[command(flatten)]
        who: Who,
        /// With what outcome.
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
    /// Say that an item is fulfilled, by name; it is bound to what the last audit saw, and ends.
    Attest {
        /// The item.
        item: String,
        #[command(flatten)]
        who: Who,
        /// What was looked at.
        #[arg(long, value_name = "TEXT")]
        statement: String,
        /// For so long: `90d`.
        #[arg(long = "for", value_name = "SPAN", default_value = "365d")]
        span: db_maint::Period,
    },
    /// Answer for an item as it is, until a date.
    Waive {
        /// The item.
        item: String,
        #[command(flatten)]
        who: Who,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For so long: `30d`.
        #[arg(long = "for", value_name = "SPAN", default_value = "30d")]
        span: db_maint::Period,
    },
    /// Take back what was attested or waived.
    Withdraw {
        /// The item.
        item: String,
        #[command(flatten)]
        who: Who,
    },
    /// Who may do what in the database, by `maintain access`, and what was decided of each before; or decide.
    Review {
        /// The policy that says which tables are sensitive.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// It stays.
        #[arg(long, value_name = "ROLE", conflicts_with = "revoke", requires_all = ["by", "reason"])]
        keep: Option<String>,
        /// It has to go. Nothing is changed by this: it is written down.
        #[arg(long, value_name = "ROLE", requires_all = ["by", "reason"])]
        revoke: Option<String>,
        /// Who decides.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Secrets by name and age. Exit code 1 where one is overdue.
    Secrets {
        /// Say that this one was changed.
        #[arg(long, value_name = "NAME", requires = "by")]
        rotated: Option<String>,
        /// By whom.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// In which phase of growth the shop is, and what that calls for.
    Scaling {
        /// Orders of each month, oldest first; without, they are read as `[checklist.orders]` says.
        #[arg(long, value_delimiter = ',', value_name = "N,N,…")]
        orders: Vec<u64>,
    },
    /// A list of its own, as Markdown: what has to be so before a deployment, or what people do in an incident. Its items are attested as any
    /// other.
    Steps {
        /// Which.
        list: List,
    },
    /// The ledger itself: is it whole; a period of it for an auditor.
    Ledger {
        /// Print the entries from this day on.
        #[arg(long, value_name = "DAY")]
        from: Option<NaiveDate>,
        /// Up to the end of this day.
        #[arg(long, value_name = "DAY")]
        to: Option<NaiveDate>,
        /// Check what was printed so.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
        check: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Who {
    /// Who says so.
    #[arg(long, value_name = "NAME")]
    by: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum List {
    Deployment,
    Incident,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum As {
    Md,
    Html,
    Json,
    Sarif,
    Junit,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::run(run(cli), cli::nothing)
}

async fn run(cli: Cli) -> Result<Ended> {
    let now = Utc::now();
    let mut desk = Desk::open(cli.look)?;
    let json = cli.json;
    match cli.command {
        Command::Audit => {
            let (audit, entries) = desk.audit(now).await?;
            let report = desk.report(&audit, &entries, now).await?;
            match json {
                true => say(report.render(Format::Json)?.trim_end()),
                false => tell(&report, desk.remembers()),
            }
            Ok(ended(audit.is_clean()))
        }
        Command::Report { format, out } => {
            let entries = desk.ledger.entries().await?;
            let last = entries.audits().next_back().cloned();
            let (audit, entries) = match last {
                Some(audit) => (audit, entries),
                None => desk.audit(now).await?,
            };
            let format = match format {
                _ if json => Format::Json,
                As::Md => Format::Markdown,
                As::Html => Format::Html,
                As::Json => Format::Json,
                As::Sarif => Format::Sarif,
                As::Junit => Format::Junit,
            };
            let text = desk.report(&audit, &entries, now).await?.render(format)?;
            match out {
                None => say(text.trim_end()),
                Some(path) => std::fs::write(&path, text).map_err(|e| {
                    Error::new(ErrorKind::Storage, format!("{}: cannot be written: {e}", path.display())).with_source(e)
                })?,
            }
            Ok(Ended::Well)
        }
        Command::Tasks { all } => tasks(&desk, json, all, now).await,
        Command::Done { task, who, note } => {
            desk.must_remember()?;
            if !desk.tasks()?.iter().any(|t| t.id == task) {
                return Err(Error::new(ErrorKind::Config, format!("there is no task called {task}"))
                    .with_next_step("`checklist tasks --all` names them"));
            }
            put(&desk, now, Record::Done { task, by: who.by, note }).await
        }
        Command::Attest { item, who, statement, span } => {
            let entries = desk.remembered().await?;
            let known = entries.audits().next_back().and_then(|a| a.items.iter().find(|i| i.item.id == item)).cloned();
            let known = match known {
                None => listed(&entries, now).await.into_iter().find(|i| i.item.id == item),
                known => known,
            };
            let Some(report) = known else {
                return Err(Error::new(ErrorKind::Config, format!("the last audit has no item called {item}"))
                    .with_next_step("run `checklist audit` first: what is attested is bound to what it saw"));
            };
            if report.item.attest.is_none() {
                return Err(Error::new(ErrorKind::Config, format!("{item}: nobody can attest that; it is checked"))
                    .with_next_step("mend it, or `checklist waive` it with a reason and an end"));
            }
            let until = ends(now, span);
            let digest = report.digest.clone();
            put(&desk, now, Record::Attested(Attestation { item, by: who.by, at: now, until, statement, digest })).await
        }
        Command::Waive { item, who, reason, span } => {
            desk.must_remember()?;
            desk.known(&item)?;
            let until = ends(now, span);
            put(&desk, now, Record::Waived(Waiver { item, by: who.by, reason, at: now, until })).await
        }
        Command::Withdraw { item, who } => {
            desk.must_remember()?;
            desk.known(&item)?;
            put(&desk, now, Record::Withdrawn { item, by: who.by }).await
        }
        Command::Review { policy, keep, revoke, by, reason } => {
            let decision = keep.map(|s| (s, true)).or(revoke.map(|s| (s, false)));
            let decided =
                decision.zip(by).zip(reason).map(|(((subject, keep), by), reason)| (subject, keep, by, reason));
            review(&mut desk, json, &policy, decided, now).await
        }
        Command::Secrets { rotated, by } => {
            if let (Some(secret), Some(by)) = (rotated, by) {
                desk.must_remember()?;
                if !desk.file.secret.iter().any(|s| s.name == secret) {
                    return Err(Error::new(ErrorKind::Config, format!("the register has no secret called {secret}"))
                        .with_next_step("add it: [[checklist.secret]] in the configuration"));
                }
                return put(&desk, now, Record::Rotated { secret, by }).await;
            }
            let ages = secret_ages(&desk.file.secret, &desk.ledger.entries().await?, now);
            let late = ages.iter().filter(|a| a.days_left < 0).count();
            match json {
                true => say_json(&ages)?,
                false if ages.is_empty() => say("the register is empty: [[checklist.secret]] in the configuration"),
                false => ages.iter().for_each(|a| {
                    let state = if a.days_left < 0 { "OVERDUE" } else { "ok" };
                    say(&format!("{state:8} {}: of {}, changed {}, due {}", a.name, a.owner, a.since, a.due));
                }),
            }
            Ok(ended(late == 0))
        }
        Command::Scaling { orders } => {
            let advice = match orders.is_empty() {
                false => scaling(&orders, &desk.file.in_place),
                true => desk.scaling(now).await?,
            };
            let advice = advice.ok_or_else(|| {
                Error::new(ErrorKind::Config, "there is no whole month of orders to go by")
                    .with_next_step("name them: --orders 310,340,…, or [checklist.orders] in the configuration")
            })?;
            if json {
                say_json(&advice)?;
                return Ok(Ended::Well);
            }
            say(&format!("{}: {:.0} orders a month", advice.phase.name(), advice.orders));
            match (advice.growth, advice.months_to_next) {
                (Some(g), Some(m)) => {
                    say(&format!("growth {:+.1} % a month: the next phase in {m:.0} months", (g - 1.0) * 100.0))
                }
                (Some(g), None) => say(&format!("growth {:+.1} % a month", (g - 1.0) * 100.0)),
                (None, _) => say("growth is not known: it takes six months"),
            }
            for need in &advice.needs {
                let state = match need.in_place {
                    Some(true) => "there",
                    Some(false) => "MISSING",
                    None => "unknown",
                };
                say(&format!("{state:8} {} ({})", need.what, need.name));
            }
            Ok(Ended::Well)
        }
        Command::Steps { list } => {
            let entries = desk.ledger.entries().await?;
            let (items, name) = match list {
                List::Deployment => (deployment_gates(), "a deployment"),
                List::Incident => (incident_steps(), "an incident"),
            };
            let audit = Auditor::new(items).run(name, &Context::at(now), &entries.standing()).await;
            let format = if json { Format::Json } else { Format::Markdown };
            let mut report = Report::new(&audit, &entries, now);
            // Those of the shop's audits.
            (report.history, report.changes) = (Vec::new(), Vec::new());
            say(report.render(format)?.trim_end());
            Ok(ended(audit.is_clean()))
        }
        Command::Ledger { check: Some(path), .. } => {
            let text = std::fs::read_to_string(&path).map_err(|e| {
                Error::new(ErrorKind::Config, format!("{}: cannot be read: {e}", path.display())).with_source(e)
            })?;
            say(&format!("{} entries, each as it was written, none left out between them", check_export(&text)?));
            Ok(Ended::Well)
        }
        Command::Ledger { from, to, .. } => {
            let entries = desk.remembered().await?;
            if from.is_none() && to.is_none() {
                let head = entries.head();
                match json {
                    true => say_json(&head)?,
                    false => say(&format!("whole: {} entries, the newest {}", head.seq, head.hash)),
                }
                return Ok(Ended::Well);
            }
            let start = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc();
            let from = from.map_or(DateTime::<Utc>::MIN_UTC, start);
            let to = to.map_or(DateTime::<Utc>::MAX_UTC, |day| start(day.succ_opt().unwrap_or(NaiveDate::MAX)));
            say(entries.export(from, to)?.trim_end());
            Ok(Ended::Well)
        }
    }
}

async fn put(desk: &Desk, now: DateTime<Utc>, record: Record) -> Result<Ended> {
    say(&format!("written: entry {}", desk.put(now, record).await?));
    Ok(Ended::Well)
}

/// The items of the lists that are no part of an audit, as they stand.
async fn listed(entries: &Entries, now: DateTime<Utc>) -> Vec<checklist::ItemReport> {
    let items = [deployment_gates(), incident_steps()].concat();
    Auditor::new(items).run("lists", &Context::at(now), &entries.standing()).await.items
}

async fn tasks(desk: &Desk, json: bool, all: bool, now: DateTime<Utc>) -> Result<Ended> {
    let lines = desk.lines(&desk.ledger.entries().await?, now)?;
    let overdue = lines.iter().any(|l| l.times.last().is_some_and(|t| t.state == TaskState::Overdue));
    if json {
        say_json(&lines)?;
        return Ok(ended(!overdue));
    }
    let zone = desk.zone()?;
    for line in &lines {
        let Some(time) = line.times.last() else { continue };
        let open = matches!(time.state, TaskState::Due | TaskState::Overdue);
        if all || open {
            let owner = if line.owner.is_empty() { String::new() } else { format!(", {}", line.owner) };
            let by = time.done.as_ref().map(|(_, who)| format!(" by {who}")).unwrap_or_default();
            let due = time.due.with_timezone(&zone).format("%F %H:%M");
            say(&format!("{:9} {} ({}{owner}): due {due}{by}", time.state.word(), line.title, line.id));
        }
    }
    Ok(ended(!overdue))
}

#[derive(Serialize)]
struct Reviewed<'a> {
    subject: &'a str,
    rights: Vec<String>,
    decided: Option<Decision>,
    changed: bool,
}

#[derive(Serialize)]
struct Decision {
    keep: bool,
    by: String,
    at: DateTime<Utc>,
    reason: String,
}

/// Facts of the roles audit, each with the last decision, and whether the facts are still the ones that it was made on.
async fn review(
    desk: &mut Desk,
    json: bool,
    policy: &std::path::Path,
    decided: Option<(String, bool, String, String)>,
    now: DateTime<Utc>,
) -> Result<Ended> {
    let entries = desk.remembered().await?;
    let url = desk.database()?.ok_or_else(|| {
        Error::new(ErrorKind::Config, "no database was named").with_next_step("name it: --database URL")
    })?;
    let policy = caretaker_examples::policy_file::read(policy).map_err(|e| ours(&e, e.next_step()))?;
    let rule = policy.access.unwrap_or_default();
    let engine = db_maint::open(&url).map_err(|e| ours(&e, e.next_step()))?;
    let report = db_maint::audit_access(engine.as_ref(), &rule, None).await.map_err(|e| ours(&e, e.next_step()))?;
    let facts: BTreeMap<&str, Vec<String>> = report
        .roles
        .iter()
        .map(|role| {
            let mut rights = role.powers.clone();
            for table in &report.tables {
                for (what, who) in [("reads", &table.readers), ("changes", &table.writers)] {
                    let by = who.iter().filter(|g| g.role == role.name);
                    rights.extend(by.map(|g| format!("{what} {} by {}", table.table, g.by.join(", "))));
                }
            }
            rights.sort();
            (role.name.as_str(), rights)
        })
        .collect();
    let digest = |subject: &str| {
        use sha2::{Digest, Sha256};
        facts.get(subject).map(|rights| hex::encode(Sha256::digest(rights.join("\n").as_bytes())))
    };
    if let Some((subject, keep, by, reason)) = decided {
        let Some(digest) = digest(&subject) else {
            return Err(Error::new(ErrorKind::Config, format!("the server has no role {subject}"))
                .with_next_step("name it as `checklist review` does"));
        };
        return put(desk, now, Record::Reviewed { subject, by, keep, reason, digest }).await;
    }
    let last = |subject: &str| {
        entries.all.iter().rev().find_map(|(entry, _)| match &entry.record {
            Record::Reviewed { subject: of, by, keep, reason, digest } if of == subject => {
                Some((Decision { keep: *keep, by: by.clone(), at: entry.at, reason: reason.clone() }, digest.clone()))
            }
            _ => None,
        })
    };
    let lines: Vec<Reviewed<'_>> = facts
        .iter()
        .map(|(subject, rights)| {
            let (decided, seen) = last(subject).unzip();
            let changed = seen.is_some() && seen != digest(subject);
            Reviewed { subject, rights: rights.clone(), decided, changed }
        })
        .collect();
    let open = lines
        .iter()
        .any(|l| l.changed || l.decided.as_ref().is_none_or(|d| !d.keep || now - d.at > TimeDelta::days(100)));
    match json {
        true => say_json(&lines)?,
        false => {
            for line in &lines {
                let state = match &line.decided {
                    None => "to decide".into(),
                    Some(d) if line.changed => format!("CHANGED since {} decided on {}", d.by, d.at.date_naive()),
                    Some(d) if d.keep => format!("kept by {} on {}: {}", d.by, d.at.date_naive(), d.reason),
                    Some(d) => format!("to be REVOKED, by {} on {}: {}", d.by, d.at.date_naive(), d.reason),
                };
                say(&format!("{}: {state}", line.subject));
                line.rights.iter().for_each(|r| say(&format!("    {r}")));
            }
            report.unknown.iter().for_each(|why| say(&format!("UNKNOWN  {why}")));
        }
    }
    Ok(ended(!open && report.unknown.is_empty()))
}

/// An audit for a terminal.
fn tell(report: &Report, remembers: bool) {
    let audit = &report.audit;
    for (section, score) in &audit.sections {
        let score = score.map_or("nothing concerns this shop".into(), |s| format!("{} of {}", s.good, s.asked));
        say(&format!("{section}: {score}"));
        for item in audit.items.iter().filter(|i| i.item.section == *section) {
            say(&format!("  {:8} {} ({})", item.outcome.word(), item.item.title, item.item.id));
            if !item.outcome.is_good() {
                say(&format!("           {}", item.reason));
            }
            let grave = matches!(item.outcome, Outcome::Fail | Outcome::Warn);
            for place in item.checks.iter().flat_map(|c| &c.places).take(if grave { 5 } else { 0 }) {
                let line = place.line.map(|n| format!(":{n}")).unwrap_or_default();
                say(&format!("           - {}{line} {}", place.at, place.what));
            }
        }
    }
    match audit.score {
        Some(s) => say(&format!(
            "{} of {} fulfilled ({:.0} %); {:.0} % is known",
            s.good,
            s.asked,
            s.value() * 100.0,
            s.coverage() * 100.0
        )),
        None => say("nothing concerns this shop"),
    }
    match remembers {
        true => say(&format!("ledger: entry {}, {}", report.head.seq, report.head.hash)),
        false => say("not written down: name a ledger with --ledger FILE, or --config"),
    }
}

fn ends(now: DateTime<Utc>, span: db_maint::Period) -> DateTime<Utc> {
    // Nobody answers for longer than a century, and a calendar ends somewhere.
    let century = TimeDelta::days(36_525);
    now + TimeDelta::from_std(span.duration()).unwrap_or(century).min(century)
}

fn ended(well: bool) -> Ended {
    if well { Ended::Well } else { Ended::WithFindings }
}

fn say_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(ErrorKind::Malformed, "cannot be written as JSON").with_source(e))?;
    say(&text);
    Ok(())
}
