//! `backup`: encrypted, deduplicated, verifiable backups of databases and directories.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use backup_core::chrono::Utc;
use backup_core::{
    BackupOptions, Catalog, Change, DiffReport, DrillOptions, DrillReport, EntryKind, Error, ErrorKind, ExportReport,
    Keys, Objective, ObjectiveStatus, Only, PruneOptions, PrunePlan, PruneReport, Recipient, Repository,
    RestoreOptions, RestoreReport, Result, Retention, Selector, Snapshot, Source, Standing, Status, Store, StoreReport,
    SyncOptions, SyncReport, Tier, TrialOutcome, VerifyLevel, VerifyOptions, VerifyReport, check_store, new_run,
    objective, sync,
};
use caretaker_examples::cli::{self, EXIT_CODES, Ended, complain, say, say_json};
use caretaker_examples::display::{count, duration, progress, rate, size};
use caretaker_examples::locate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

/// Encrypted, deduplicated, verifiable backups of databases and directories.
///
/// Start with `keygen` and `init`; then `create` every night, `verify` and `drill` now and then, `restore` on the bad day.
#[derive(Debug, Parser)]
#[command(name = "backup", after_help = EXIT_CODES)]
struct Cli {
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new set of keys, and say which belongs where.
    Keygen {
        /// The directory to put them into.
        #[arg(long, value_name = "KEYS")]
        out: PathBuf,
    },
    /// Make a new repository, and write KEYS/trust.json.
    Init {
        /// Where: file:///PATH, s3://BUCKET/PREFIX.
        #[arg(long, value_name = "URL")]
        store: String,
        /// The directory of keys.
        #[arg(long, required_unless_present = "no_encryption", conflicts_with = "no_encryption")]
        keys: Option<PathBuf>,
        /// Further people who may read the data.
        #[arg(long, value_name = "age1…")]
        recipient: Vec<String>,
        /// Neither encrypt nor sign: for data that is public, or a store that is trusted.
        #[arg(long)]
        no_encryption: bool,
    },
    /// Take a snapshot of one or more sources.
    Create {
        #[command(flatten)]
        at: At,
        /// What to back up: postgres://…, mysql://…, sqlite:PATH, dir:PATH, each with an optional NAME= before it.
        #[arg(long, value_name = "[NAME=]URL", required = true)]
        source: Vec<String>,
        /// Leave out paths of a directory that match.
        #[arg(long, value_name = "GLOB")]
        exclude: Vec<String>,
        /// Rows of these tables only, and of those their foreign keys lead to: a tier. Globs such as order_* do too.
        #[arg(long, value_name = "TABLE,…", value_delimiter = ',')]
        tables: Vec<String>,
        /// What the tier is called.
        #[arg(long, value_name = "NAME", default_value = "tables", requires = "tables")]
        tier: String,
        /// A text to find the snapshot by.
        #[arg(long)]
        label: Option<String>,
    },
    /// List the snapshots.
    List {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        of: Of,
    },
    /// Show one snapshot: its tables, rows, sizes and problems.
    Show {
        #[command(flatten)]
        at: At,
        /// Its id, or latest.
        id: String,
        #[command(flatten)]
        of: Of,
    },
    /// Say how old, how verified and how drilled the newest snapshot of each source is.
    Status {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        of: Of,
        /// What was promised, such as shop=rpo:24h,rto:24h,drill:30d or shop/orders=rpo:30m,every:15m,rto:4h.
        #[arg(long, value_name = "NAME[/TIER]=rpo:TIME,…", value_parser = parse_objective)]
        objective: Vec<Objective>,
    },
    /// Check that every byte is there and what was signed; with --level content also that it can be read.
    Verify {
        #[command(flatten)]
        at: At,
        /// Only this one: an id, latest, or before:2026-01-31T12:00:00Z.
        #[arg(long, value_name = "ID|latest")]
        snapshot: Option<String>,
        #[command(flatten)]
        of: Of,
        /// How deep.
        #[arg(long, value_enum, default_value = "stored")]
        level: Level,
    },
    /// Bring a snapshot back, and compare what arrived with what was backed up.
    Restore {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        which: Which,
        /// Where to: sqlite:PATH, dir:PATH, discard:.
        #[arg(long, value_name = "URL")]
        target: String,
        /// Only the tables or files that match.
        #[arg(long, value_name = "GLOB")]
        only: Option<String>,
        /// Replace what the target holds.
        #[arg(long)]
        clean: bool,
    },
    /// Write a snapshot of a database as plain SQL, compressed where the name ends in .gz. It is not encrypted.
    Export {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        which: Which,
        /// The file, such as backup-2026-01-31.sql.gz.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Restore into a scratch place, compare, check the shop's invariants, take the time, and clean up.
    Drill {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        which: Which,
        /// A place that does not exist yet: sqlite:PATH, dir:PATH.
        #[arg(long, value_name = "URL")]
        scratch: String,
        /// A file of SQL queries that must find nothing; the comment before each names it.
        #[arg(long, value_name = "FILE")]
        invariants: Option<PathBuf>,
        /// The time within which the restore has to be done, such as 30m or 4h.
        #[arg(long, value_parser = parse_duration)]
        rto: Option<Duration>,
    },
    /// Bring a copy of a repository up to date: bytes as they are; heals what is missing or damaged there.
    Sync {
        /// The store to copy from.
        #[arg(long, value_name = "URL")]
        from: String,
        /// The store to bring up to date; a new one is made where it is a folder.
        #[arg(long, value_name = "URL")]
        to: String,
        /// The directory of keys, to check the signatures as well.
        #[arg(long)]
        keys: Option<PathBuf>,
        /// Compare names and lengths only, and do not read what is already there.
        #[arg(long)]
        quick: bool,
    },
    /// Try a store out: that a name is given once only, what is written is there at once, how fast it is.
    CheckStore {
        /// Where it is: file:///PATH, s3://BUCKET/PREFIX.
        #[arg(long, value_name = "URL")]
        store: String,
    },
    /// Compare two snapshots: which tables and files differ.
    Diff {
        #[command(flatten)]
        at: At,
        /// The id of the older one.
        before: String,
        /// The id of the newer one.
        after: String,
    },
    /// Say what to keep and why, and with --apply remove the rest. Needs admin.key to apply.
    Prune {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        pruning: Pruning,
    },
}

/// Which snapshots a prune is about.
#[derive(Debug, Args)]
struct Pruning {
    /// What to keep: within=48h, hourly, daily, weekly, monthly, yearly, verified.
    #[arg(long, value_name = "within=48h,daily=30,…")]
    keep: Retention,
    /// By the calendar of this time zone, such as Africa/Lagos.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    #[command(flatten)]
    of: Of,
    /// Only this tier of it; without, only the full snapshots of it.
    #[arg(long, value_name = "NAME", requires = "of")]
    tier: Option<String>,
    /// Snapshots that are smaller or less complete than those before them, and rightly so.
    #[arg(long, value_name = "ID")]
    accept: Vec<String>,
    /// How long what is removed stays in the store.
    #[arg(long, value_parser = parse_duration, default_value = "24h")]
    grace: Duration,
    /// Do it; without, it is only shown.
    #[arg(long)]
    apply: bool,
}

/// Which repository.
#[derive(Debug, Args)]
struct At {
    /// Where it is: file:///PATH, s3://BUCKET/PREFIX.
    #[arg(long, value_name = "URL")]
    store: String,
    /// The directory of keys; an unencrypted repository takes none.
    #[arg(long)]
    keys: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Of {
    /// Only the source of this name.
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
}

/// Which snapshot.
#[derive(Debug, Args)]
struct Which {
    /// An id, latest, or before:2026-01-31T12:00:00Z.
    #[arg(long, value_name = "ID|latest|before:TIME")]
    snapshot: String,
    #[command(flatten)]
    of: Of,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Stored,
    Content,
}

fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let scratch = match &command {
        Command::Drill { scratch, .. } => Some(scratch.clone()),
        _ => None,
    };
    // Set once the scratch place was seen to be vacant: only then is what is there ours to remove.
    let ours = std::sync::atomic::AtomicBool::new(false);
    cli::run(run(json, command, &ours), || async {
        match scratch {
            Some(url) if ours.load(std::sync::atomic::Ordering::SeqCst) => locate::target(&url)?.remove().await,
            _ => cli::nothing().await,
        }
    })
}

async fn run(json: bool, command: Command, scratch_is_ours: &std::sync::atomic::AtomicBool) -> Result<Ended> {
    match command {
        Command::Keygen { out } => keygen(json, &out),
        Command::Init { store, keys, recipient, .. } => init(json, &store, keys, &recipient).await,
        Command::Create { at, source, exclude, tables, tier, label } => {
            let tier = if tables.is_empty() { None } else { Some(Tier::new(tier, &tables)?) };
            let sources =
                source.iter().map(|s| locate::source(s, &exclude, tier.as_ref())).collect::<Result<Vec<_>>>()?;
            create(json, &at, &sources, label).await
        }
        Command::List { at, of } => list(json, &at, of.of.as_deref()).await,
        Command::Show { at, id, of } => show(json, &at, &id, of.of.as_deref()).await,
        Command::Status { at, of, objective } => status(json, &at, of.of.as_deref(), &objective).await,
        Command::Sync { from, to, keys, quick } => {
            let keys = keys.map_or_else(|| Ok(Keys::none()), Keys::load)?;
            let (from, to) = (Store::from_url(&from)?, locate::new_store(&to)?);
            let options = SyncOptions::default().check(!quick).with_progress(progress("copying"));
            let report = sync(&from, &to, &keys, options).await?;
            if json {
                say_json(&report)?
            } else {
                say_synced(&report)
            }
            Ok(if report.is_good() { Ended::Well } else { Ended::WithFindings })
        }
        Command::CheckStore { store } => {
            let report = check_store(&Store::from_url(&store)?).await?;
            if json {
                say_json(&report)?
            } else {
                say_checked(&report)
            }
            Ok(if report.is_good() { Ended::Well } else { Ended::WithFindings })
        }
        Command::Diff { at, before, after } => {
            let repository = open(&at).await?;
            let catalog = repository.catalog().await?;
            let find = |id: String| catalog.select(&Selector::Id(id), None);
            let report = repository.diff(find(before)?, find(after)?).await?;
            if json {
                say_json(&report)?
            } else {
                say_diff(&report)
            }
            Ok(Ended::Well)
        }
        Command::Prune { at, pruning } => prune(json, &at, pruning).await,
        Command::Verify { at, snapshot, of, level } => {
            verify(json, &at, snapshot.as_deref(), of.of.as_deref(), level).await
        }
        Command::Restore { at, which, target, only, clean } => {
            let (repository, snapshot) = find(&at, &which).await?;
            let only = only.as_deref().map(Only::new).transpose()?;
            let options = RestoreOptions::default().clean(clean).only(only).with_progress(progress("restoring"));
            let report = repository.restore(&snapshot, locate::target(&target)?.as_ref(), options).await?;
            if json {
                say_json(&report)?
            } else {
                say_restored(&report)
            }
            Ok(Ended::Well)
        }
        Command::Export { at, which, out } => {
            let (repository, snapshot) = find(&at, &which).await?;
            let report = repository.export(&snapshot, &out, progress("exporting")).await?;
            if json {
                say_json(&report)?
            } else {
                say_exported(&report)
            }
            Ok(Ended::Well)
        }
        Command::Drill { at, which, scratch, invariants, rto } => {
            let (repository, snapshot) = find(&at, &which).await?;
            let mut options = DrillOptions::default().with_progress(progress("drilling"));
            if let Some(file) = invariants {
                options =
                    options.with_invariants(std::fs::read_to_string(&file).map_err(|e| {
                        Error::new(ErrorKind::Config, format!("{}: {e}", file.display())).with_source(e)
                    })?);
            }
            if let Some(rto) = rto {
                options = options.with_rto(rto);
            }
            let scratch = locate::target(&scratch)?;
            scratch_is_ours.store(scratch.is_vacant().await?, std::sync::atomic::Ordering::SeqCst);
            let report = repository.drill(&snapshot, scratch.as_ref(), options).await?;
            if json {
                say_json(&report)?
            } else {
                say_drilled(&report)
            }
            Ok(if report.passed() { Ended::Well } else { Ended::WithFindings })
        }
    }
}

fn keygen(json: bool, out: &std::path::Path) -> Result<Ended> {
    let keys = Keys::generate()?;
    keys.save(out)?;
    let recipient = keys.recipient()?.to_string();
    if json {
        say_json(&serde_json::json!({ "keys": out, "recipient": recipient }))?;
        return Ok(Ended::Well);
    }
    let out = out.display();
    say(&format!(
        "{out}/owner-identity.txt  reads every backup: keep it offline, in two places, never on the shop's host"
    ));
    say(&format!("{out}/recipient.txt       what backups are encrypted to: {recipient}"));
    say(&format!("{out}/writer.key          goes on the shop's host: signs snapshots, cannot read their data"));
    say(&format!("{out}/admin.key           signs the repository and removals: keep it off the shop's host"));
    say(
        "Next: backup init --store URL --keys KEYS. It writes trust.json, which belongs beside every copy of the keys.",
    );
    Ok(Ended::Well)
}

async fn init(json: bool, url: &str, keys: Option<PathBuf>, recipients: &[String]) -> Result<Ended> {
    let store = locate::new_store(url)?;
    let repository = match &keys {
        Some(directory) => {
            let mut keys = Keys::load(directory)?;
            let extra = recipients.iter().map(|r| r.parse()).collect::<Result<Vec<Recipient>>>()?;
            Repository::init(store, &mut keys, &extra).await?
        }
        None => Repository::init_unencrypted(store).await?,
    };
    if json {
        say_json(
            &serde_json::json!({ "repository": repository.id(), "store": repository.store().to_string(), "encrypted": repository.is_encrypted() }),
        )?;
        return Ok(Ended::Well);
    }
    say(&format!("repository {} made in {}", repository.id(), repository.store()));
    match keys {
        Some(keys) => say(&format!(
            "{}/trust.json pins it: copy it beside every copy of the keys, also the owner's offline one",
            keys.display()
        )),
        None => say("it is NOT encrypted and not signed"),
    }
    Ok(Ended::Well)
}

async fn create(json: bool, at: &At, sources: &[Box<dyn Source>], label: Option<String>) -> Result<Ended> {
    let repository = open(at).await?;
    for (n, source) in sources.iter().enumerate() {
        if sources[..n].iter().any(|s| s.name() == source.name()) {
            return Err(Error::new(ErrorKind::Config, format!("two sources are called {:?}", source.name()))
                .with_next_step("name them apart: --source NAME=URL"));
        }
    }
    let run = new_run()?;
    let mut taken = Vec::new();
    let mut failed = Vec::new();
    for source in sources {
        let mut options = BackupOptions::default().with_run(&run).with_progress(progress("backing up"));
        if let Some(label) = &label {
            options = options.with_label(label);
        }
        // One source that fails does not take the others' backup away.
        match repository.backup(source.as_ref(), options).await {
            Ok(snapshot) => {
                if !json {
                    say_taken(&snapshot);
                }
                taken.push(snapshot);
            }
            Err(e) => {
                if sources.len() > 1 {
                    complain(&format!("{} was NOT backed up: {e}", source.name()));
                }
                failed.push(e);
            }
        }
    }
    if json {
        let errors: Vec<_> = failed.iter().map(ToString::to_string).collect();
        say_json(&serde_json::json!({ "run": run, "snapshots": taken, "errors": errors }))?;
    }
    if let Some(first) = failed.into_iter().next() {
        return Err(first);
    }
    Ok(if taken.iter().all(|s| s.manifest.is_complete()) { Ended::Well } else { Ended::WithFindings })
}

async fn list(json: bool, at: &At, of: Option<&str>) -> Result<Ended> {
    let catalog = open(at).await?.catalog().await?;
    let shown: Vec<&Snapshot> =
        catalog.snapshots.iter().filter(|s| of.is_none_or(|of| s.manifest.source.name == of)).collect();
    if json {
        let unreadable: Vec<_> =
            catalog.damaged.iter().map(|(n, e)| serde_json::json!({ "record": n, "reason": e.to_string() })).collect();
        say_json(&serde_json::json!({
            "snapshots": shown.iter().map(|s| Listed::of(s)).collect::<Vec<_>>(),
            "unreadable_records": unreadable,
            "missing_records": catalog.missing,
        }))?;
    } else if shown.is_empty() {
        say("no snapshots");
    } else {
        say(&format!(
            "{:<14} {:<20} {:<16} {:>10} {:>10} {:>12}  NOTES",
            "ID", "TAKEN (UTC)", "SOURCE", "SIZE", "ADDED", "ROWS/FILES"
        ));
        for s in shown {
            let m = &s.manifest;
            let mut notes = Vec::new();
            notes.extend(m.tier.as_ref().map(|tier| format!("tier {tier}")));
            notes.extend(m.label.clone());
            if !m.is_complete() {
                notes.push(format!("{} PROBLEMS", m.problem_count));
            }
            say(&format!(
                "{:<14} {:<20} {:<16} {:>10} {:>10} {:>12}  {}",
                s.id.as_str(),
                m.taken_at.format("%Y-%m-%d %H:%M:%S"),
                m.source.name,
                size(m.totals.bytes),
                size(m.totals.added),
                count(m.totals.rows),
                notes.join("; ")
            ));
        }
    }
    Ok(unreadable(&catalog))
}

/// Records that cannot be read are findings, whatever the command.
fn unreadable(catalog: &Catalog) -> Ended {
    for (sequence, e) in &catalog.damaged {
        complain(&format!("record {sequence}: {e}"));
    }
    for sequence in &catalog.missing {
        complain(&format!("record {sequence} is gone, and nobody with the admin's key removed it"));
    }
    if let Some(contradiction) = &catalog.contradicts {
        complain(&contradiction.reason(catalog.newest));
    }
    if catalog.is_sound() { Ended::Well } else { Ended::WithFindings }
}

#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    source: &'a str,
    kind: &'a str,
    taken_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    label: Option<&'a str>,
    bytes: u64,
    rows: u64,
    added: u64,
    problems: u64,
}

impl<'a> Listed<'a> {
    fn of(s: &'a Snapshot) -> Self {
        let m = &s.manifest;
        Self {
            id: s.id.as_str(),
            source: &m.source.name,
            kind: &m.source.kind,
            taken_at: m.taken_at.to_rfc3339(),
            tier: m.tier.as_deref(),
            label: m.label.as_deref(),
            bytes: m.totals.bytes,
            rows: m.totals.rows,
            added: m.totals.added,
            problems: m.problem_count,
        }
    }
}

async fn show(json: bool, at: &At, id: &str, of: Option<&str>) -> Result<Ended> {
    let catalog = open(at).await?.catalog().await?;
    let snapshot = catalog.select(&id.parse()?, of)?;
    if json {
        // The key of the chunk ids is no one's business but the repository's.
        let mut value = serde_json::to_value(snapshot)
            .map_err(|e| Error::new(ErrorKind::Internal, "the snapshot could not be written as JSON").with_source(e))?;
        if let Some(manifest) = value.get_mut("manifest").and_then(|m| m.as_object_mut()) {
            manifest.remove("id_key");
        }
        say_json(&value)?;
        return Ok(Ended::Well);
    }
    let m = &snapshot.manifest;
    say(&format!("snapshot  {}", snapshot.id));
    say(&format!(
        "source    {} ({}, {}, version {})",
        m.source.name, m.source.kind, m.source.location, m.source.version
    ));
    say(&format!(
        "taken     {} on {}, in {}",
        m.taken_at.format("%Y-%m-%d %H:%M:%S UTC"),
        m.host,
        duration((m.finished_at - m.started_at).to_std().unwrap_or(Duration::ZERO))
    ));
    if let Some(position) = &m.position {
        say(&format!("position  {position}"));
    }
    if let Some(tier) = &m.tier {
        say(&format!("tier      {tier}: rows of some tables only"));
    }
    if let Some(label) = &m.label {
        say(&format!("label     {label}"));
    }
    say(&format!(
        "holds     {} in {} rows and files; this run added {}",
        size(m.totals.bytes),
        count(m.totals.rows),
        size(m.totals.added)
    ));
    say("");
    say(&format!("{:<28} {:>12} {:>10}  FINGERPRINT", "ENTRY", "ROWS/FILES", "SIZE"));
    for e in &m.entries {
        let rows = if matches!(e.kind, EntryKind::PreData | EntryKind::PostData | EntryKind::Globals) {
            "—".into()
        } else {
            count(e.fingerprint.rows())
        };
        say(&format!("{:<28} {rows:>12} {:>10}  {}", e.name, size(e.bytes), e.fingerprint));
    }
    for p in &m.problems {
        say(&format!("PROBLEM   {}: {}", p.subject, p.reason));
    }
    Ok(Ended::Well)
}

async fn status(json: bool, at: &At, of: Option<&str>, objectives: &[Objective]) -> Result<Ended> {
    let catalog = open(at).await?.catalog().await?;
    let now = Utc::now();
    let mut status = Status::of(&catalog, now);
    status.sources.retain(|s| of.is_none_or(|of| s.source == of));
    let judged = objective::judge(objectives, &catalog, now);
    if json {
        let mut value = serde_json::to_value(&status)
            .map_err(|e| Error::new(ErrorKind::Internal, "the status could not be written as JSON").with_source(e))?;
        if let Some(value) = value.as_object_mut() {
            value.insert("objectives".into(), serde_json::json!(judged));
            value.insert("due".into(), serde_json::json!(objective::due(objectives, &catalog, now)));
        }
        say_json(&value)?;
    } else {
        if status.sources.is_empty() {
            say("nothing is backed up here");
        }
        for s in &status.sources {
            let age = s.age_seconds.map_or_else(
                || "no full snapshot".into(),
                |age| match u64::try_from(age) {
                    Ok(age) => format!("newest is {} old", duration(Duration::from_secs(age))),
                    Err(_) => "newest is from the future: a clock is wrong".into(),
                },
            );
            let verified = match (s.content_verified_at, s.stored_verified_at) {
                (Some(at), _) => format!("content verified {}", at.format("%Y-%m-%d %H:%M UTC")),
                (None, Some(at)) => format!("stored bytes verified {}", at.format("%Y-%m-%d %H:%M UTC")),
                (None, None) => "NOT VERIFIED".into(),
            };
            let drilled = match (s.drilled_at, s.drill_milliseconds) {
                (Some(at), Some(ms)) => {
                    format!("last drill {} in {}", at.format("%Y-%m-%d"), duration(Duration::from_millis(ms)))
                }
                _ => "never drilled".into(),
            };
            let problems = if s.problems > 0 { format!("; {} PROBLEMS", s.problems) } else { String::new() };
            say(&format!("{}: {} snapshots; {age}; {verified}; {drilled}{problems}", s.source, s.snapshots));
        }
        for o in &judged {
            let what = &o.objective;
            say(&format!("{:<7} RPO {} of {what}: {}", word(o.rpo.standing), duration(what.rpo), o.rpo.reason));
            if let (Some(rto), Some(limit)) = (&o.rto, what.rto) {
                say(&format!("{:<7} RTO {} of {what}: {}", word(rto.standing), duration(limit), rto.reason));
            }
        }
    }
    unreadable(&catalog);
    let good = status.is_good() && judged.iter().all(ObjectiveStatus::is_good);
    Ok(if good { Ended::Well } else { Ended::WithFindings })
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Met => "met",
        Standing::Missed => "MISSED",
        Standing::Unknown => "UNKNOWN",
    }
}

async fn prune(json: bool, at: &At, pruning: Pruning) -> Result<Ended> {
    let repository = open(at).await?;
    let catalog = repository.catalog().await?;
    let Pruning { keep, time_zone, of, tier, accept, grace, apply } = pruning;
    let mut policy = keep.in_time_zone(&time_zone)?;
    if let Some(of) = &of.of {
        policy = policy.only(of, tier.as_deref());
    }
    for id in accept {
        policy = policy.accept(catalog.select(&Selector::Id(id), None)?.id.clone());
    }
    let plan = policy.plan(&catalog, Utc::now());
    let report = match apply {
        true => Some(repository.prune(&plan, PruneOptions::default().with_grace(grace)).await?),
        false => None,
    };
    if json {
        say_json(&serde_json::json!({ "plan": plan, "report": report }))?;
    } else {
        say_pruned(&plan, report.as_ref());
    }
    let alarming = plan.alarming().next().is_some();
    Ok(if alarming || !catalog.is_sound() { Ended::WithFindings } else { Ended::Well })
}

fn say_checked(report: &StoreReport) {
    for t in &report.trials {
        let outcome = match t.outcome {
            TrialOutcome::Good => "good",
            TrialOutcome::Note => "note",
            TrialOutcome::Bad => "BAD",
            _ => "UNKNOWN",
        };
        say(&format!("{outcome:<8} {:<17} {}", t.name, t.detail));
    }
    if let (Some(written), Some(read)) = (report.written_per_second, report.read_per_second) {
        say(&format!("         {:<17} {}/s written, {}/s read", "throughput", size(written), size(read)));
    }
}

fn say_synced(report: &SyncReport) {
    say(&format!(
        "{} objects copied, {}, in {}",
        count(report.copied),
        size(report.bytes),
        duration(Duration::from_millis(report.milliseconds))
    ));
    for name in &report.healed {
        say(&format!("healed    {name}"));
    }
    for name in &report.damaged {
        say(&format!("DAMAGED   {name} in the store that was copied from: not copied"));
    }
    for name in &report.diverged {
        say(&format!("DIVERGED  {name} is another one in each store"));
    }
    if let Some(sequence) = report.stopped_at {
        say(&format!("STOPPED   before record {sequence}: nothing newer was copied"));
    }
    if report.ahead > 0 {
        say(&format!(
            "the copy has {} records that the other does not have: newer ones, or such as were pruned there",
            report.ahead
        ));
    }
}

fn say_diff(report: &DiffReport) {
    let sign = |change| match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    };
    let rows = |n: Option<u64>| n.map_or_else(|| "—".into(), count);
    for e in &report.entries {
        let counts = match (e.rows_before, e.rows_after) {
            (None, None) => String::new(),
            (before, after) => format!("  {} -> {} rows", rows(before), rows(after)),
        };
        say(&format!("{} {}{counts}", sign(e.change), e.entry));
    }
    for f in &report.files {
        say(&format!("{} {}", sign(f.change), f.path));
    }
    if report.is_empty() {
        say(&format!("{} and {} hold the same", report.before, report.after));
    } else {
        say(&format!(
            "{} tables and definitions differ; files: {} added, {} removed, {} changed",
            report.entries.len(),
            count(report.files_added),
            count(report.files_removed),
            count(report.files_changed)
        ));
    }
}

fn say_pruned(plan: &PrunePlan, report: Option<&PruneReport>) {
    say(&format!("{:<5} {:<14} {:<20} {:<24} WHY", "", "ID", "TAKEN (UTC)", "SOURCE"));
    for d in &plan.decisions {
        let source = match &d.tier {
            Some(tier) => format!("{}/{tier}", d.source),
            None => d.source.clone(),
        };
        let why: Vec<_> = d.reasons.iter().map(ToString::to_string).collect();
        say(&format!(
            "{:<5} {:<14} {:<20} {source:<24} {}",
            if d.keep { "keep" } else { "DROP" },
            d.snapshot.as_str(),
            d.taken_at.format("%Y-%m-%d %H:%M:%S"),
            why.join("; ")
        ));
    }
    let (kept, dropped) = (plan.kept().count(), plan.dropped().count());
    let Some(report) = report else {
        say(&format!("{kept} to keep, {dropped} to drop, by {}; nothing was removed: --apply does that", plan.policy));
        return;
    };
    say(&format!(
        "{} removed, {kept} kept; {} objects deleted, {} freed",
        report.removed.len(),
        count(report.objects),
        size(report.bytes)
    ));
    if !report.removed.is_empty() && report.objects == 0 {
        say("what only they need stays in the store for the time of grace, and goes with the first prune after it");
    }
    if report.waiting_objects > 0 {
        let (objects, bytes) = (count(report.waiting_objects), size(report.waiting_bytes));
        say(&format!("{objects} more, {bytes}, go with the first prune after their time of grace"));
    }
    if report.denied > 0 {
        say(&format!("{} objects may not be deleted yet: the store refuses it", report.denied));
    }
}

async fn verify(json: bool, at: &At, snapshot: Option<&str>, of: Option<&str>, level: Level) -> Result<Ended> {
    let repository = open(at).await?;
    let chosen = match (snapshot, of) {
        (None, None) => None,
        (Some(selector), of) => Some(vec![repository.catalog().await?.select(&selector.parse()?, of)?.id.clone()]),
        (None, Some(of)) => {
            let catalog = repository.catalog().await?;
            Some(catalog.snapshots.iter().filter(|s| s.manifest.source.name == of).map(|s| s.id.clone()).collect())
        }
    };
    let level = match level {
        Level::Stored => VerifyLevel::Stored,
        Level::Content => VerifyLevel::Content,
    };
    let options = VerifyOptions::new(level).with_progress(progress("verifying"));
    let report = repository.verify(chosen.as_deref(), options).await?;
    if json {
        say_json(&report)?
    } else {
        say_verified(&report)
    }
    Ok(if report.is_sound() { Ended::Well } else { Ended::WithFindings })
}

fn say_taken(s: &Snapshot) {
    let m = &s.manifest;
    let took = (m.finished_at - m.started_at).to_std().unwrap_or(Duration::ZERO);
    say(&format!(
        "{}: snapshot {} of {} ({}): {} rows and files; read {}, added {} in {} ({})",
        m.source.name,
        s.id,
        size(m.totals.bytes),
        m.source.kind,
        count(m.totals.rows),
        size(m.totals.read),
        size(m.totals.added),
        duration(took),
        rate(m.totals.read, took),
    ));
    for p in m.problems.iter().take(20) {
        complain(&format!("  PROBLEM {}: {}", p.subject, p.reason));
    }
    if m.problem_count > 20 {
        complain(&format!("  and {} more: `backup show {}` lists them", m.problem_count - 20, s.id));
    }
}

fn say_verified(r: &VerifyReport) {
    for f in &r.findings {
        let whom = if f.snapshots.is_empty() {
            String::new()
        } else {
            format!(" [snapshots {}]", f.snapshots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        };
        say(&format!("{:?}: {}: {}{whom}", f.kind, f.object, f.reason));
    }
    let took = Duration::from_millis(r.milliseconds);
    let verdict = match (r.findings.len(), r.snapshots.len()) {
        (0, 0) => "NOTHING TO VERIFY: there are no snapshots".to_owned(),
        (0, n) => format!("{n} snapshots are whole"),
        (n, _) => format!("{n} FINDINGS"),
    };
    say(&format!(
        "{verdict}: {} objects, {} checked in {} ({})",
        count(r.objects),
        size(r.bytes),
        duration(took),
        rate(r.bytes, took)
    ));
    if r.unreferenced_count > 0 {
        say(&format!(
            "{} objects ({}) belong to no snapshot: left by interrupted runs, harmless; the first is {}",
            count(r.unreferenced_count),
            size(r.unreferenced_bytes),
            r.unreferenced.first().map_or("?", String::as_str)
        ));
    }
    if r.evidence.is_none() {
        say("no evidence was left: there is no writer.key or admin.key here to sign it with");
    }
}

fn say_restored(r: &RestoreReport) {
    let took = Duration::from_millis(r.milliseconds);
    say(&format!(
        "{} restored to {}: {} rows and files, {} in {} ({})",
        r.snapshot,
        r.target,
        count(r.rows),
        size(r.bytes),
        duration(took),
        rate(r.bytes, took)
    ));
    if r.compared.is_empty() {
        say("not compared with the snapshot: every byte was checked against its signature on the way");
    } else {
        say(&format!(
            "read again and equal to the snapshot: {} entries in {}",
            r.compared.len(),
            duration(Duration::from_millis(r.compare_milliseconds))
        ));
    }
    for note in &r.notes {
        say(&format!("note: {note}"));
    }
}

fn say_exported(r: &ExportReport) {
    say(&format!("{} written to {}: {} of SQL, NOT encrypted", r.snapshot, r.file.display(), size(r.bytes)));
    if let Some(globals) = &r.globals {
        say(&format!("the server's roles, password verifiers included, are in {}: NOT encrypted", globals.display()));
    }
}

fn say_drilled(r: &DrillReport) {
    for c in r.restore.different() {
        let found = c.found.map_or_else(|| "nothing".to_owned(), |f| f.to_string());
        say(&format!("DIFFERENT {}: expected {}, found {found}", c.entry, c.expected));
    }
    for i in &r.invariants {
        say(&format!("invariant {}: {:?}", i.name, i.outcome));
    }
    let rto = match r.within_rto() {
        Some(true) => "; within the RTO",
        Some(false) => "; OUTSIDE THE RTO",
        None => "",
    };
    say(&format!(
        "drill of {} {}: {} rows and files restored in {}, {} entries compared{rto}",
        r.restore.snapshot,
        if r.passed() { "passed" } else { "FAILED" },
        count(r.restore.rows),
        duration(Duration::from_millis(r.restore.milliseconds)),
        r.restore.compared.len(),
    ));
}

async fn open(at: &At) -> Result<Repository> {
    let keys = match &at.keys {
        Some(directory) => Keys::load(directory)?,
        None => Keys::none(),
    };
    Repository::open(Store::from_url(&at.store)?, keys).await
}

async fn find(at: &At, which: &Which) -> Result<(Repository, Snapshot)> {
    let repository = open(at).await?;
    let selector: Selector = which.snapshot.parse()?;
    let snapshot = repository.catalog().await?.select(&selector, which.of.of.as_deref())?.clone();
    Ok((repository, snapshot))
}

fn parse_objective(text: &str) -> std::result::Result<Objective, String> {
    let (name, promises) = text.split_once('=').ok_or("there is no =")?;
    let mut rpo = None;
    let mut rest = Vec::new();
    for promise in promises.split(',') {
        let (key, time) = promise.split_once(':').ok_or_else(|| format!("{promise:?} is not like rpo:30m"))?;
        let time = parse_duration(time)?;
        match key {
            "rpo" => rpo = Some(time),
            "every" | "rto" | "drill" => rest.push((key, time)),
            _ => return Err(format!("{key:?} is none of rpo, every, rto, drill")),
        }
    }
    let (source, tier) = name.split_once('/').map_or((name, None), |(source, tier)| (source, Some(tier)));
    let mut objective = Objective::new(source, rpo.ok_or("there is no rpo")?);
    if let Some(tier) = tier {
        objective = objective.tier(tier);
    }
    Ok(rest.into_iter().fold(objective, |o, (key, time)| match key {
        "every" => o.every(time),
        "rto" => o.rto(time),
        _ => o.drill_every(time),
    }))
}

fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| "write it as 30m or 4h".to_owned())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write it as 30m or 4h".to_owned()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "that is too long".to_owned())
}
