//! `backup`: encrypted, deduplicated, verifiable backups of databases and directories.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use backup_core::chrono::Utc;
use backup_core::{
    BackupOptions, Catalog, DrillOptions, Error, ErrorKind, Event, Keys, Objective, ObjectiveStatus, Only, Progress,
    PruneOptions, Recipient, ReplicationLag, Repository, RestoreOptions, Result, Retention, Rotation, Selector,
    Snapshot, Source, Status, Store, StoreLog, SyncOptions, Target, Tier, TrustedWriter, VerifyLevel, VerifyOptions,
    VerifyReport, WriterKey, check_store, new_run, objective, sync,
};
use caretaker_examples::cli::{self, EXIT_CODES, Ended, complain, say, say_json};
use caretaker_examples::display::progress;
use caretaker_examples::{backup_text, locate};
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
        /// Where: file:///PATH, s3://BUCKET/PREFIX. Given several times, each gets the same repository.
        #[arg(long, value_name = "URL", required = true)]
        store: Vec<String>,
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
    /// Change who may read and write: signs that with admin.key, and writes KEYS/trust.json anew. Other hosts follow.
    Rotate {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        change: RotateArgs,
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
        #[command(flatten)]
        how: Taking,
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
        /// Put together the newest full snapshot and what newer ones of its tiers hold, each table from the newest.
        #[arg(long)]
        compose: bool,
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
        /// No more than so many bytes a second from and to each store, such as 500K or 4M.
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        limit_rate: Option<u64>,
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

/// How a snapshot is taken.
#[derive(Debug, Args)]
struct Taking {
    /// A text to find the snapshot by.
    #[arg(long)]
    label: Option<String>,
    /// In how many of the stores the snapshot has to be in the end.
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_copies: usize,
    /// No more than so many bytes a second to each store, such as 500K or 4M.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    limit_rate: Option<u64>,
    /// Pause reading, for ten minutes at most, while this replica lags: a MySQL/MariaDB replica, or a PostgreSQL primary,
    /// which knows its own.
    #[arg(long, value_name = "URL")]
    replica: Vec<String>,
    /// How far it may be behind.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    max_lag: Duration,
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

/// What to change about the keys.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct RotateArgs {
    /// One more who may read the data from now on.
    #[arg(long, value_name = "age1…")]
    add_recipient: Vec<String>,
    /// One less.
    #[arg(long, value_name = "age1…")]
    remove_recipient: Vec<String>,
    /// The writer.key, as keygen makes it, of one more host that backs up.
    #[arg(long, value_name = "FILE")]
    add_writer: Vec<PathBuf>,
    /// The verify key, as in trust.json, of a host whose writer.key is lost: what it has signed until now counts.
    #[arg(long, value_name = "KEY")]
    retire_writer: Vec<String>,
    /// The same where it was stolen: what it has signed counts up to the snapshot that --last-good names.
    #[arg(long, value_name = "KEY", requires = "last_good")]
    revoke_writer: Option<String>,
    /// The last snapshot that was taken before the theft.
    #[arg(long, value_name = "ID", requires = "revoke_writer")]
    last_good: Option<String>,
}

/// Which repository.
#[derive(Debug, Args)]
struct At {
    /// Where it is: file:///PATH, s3://BUCKET/PREFIX. Given several times: the stores that hold it.
    #[arg(long, value_name = "URL", required = true)]
    store: Vec<String>,
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
    // Set once the scratch place of a drill was seen to be vacant: only then is what is there ours to remove.
    let scratch = OnceLock::new();
    cli::run(run(json, command, &scratch), || async {
        match scratch.get() {
            Some(ours) => ours.remove().await,
            None => cli::nothing().await,
        }
    })
}

async fn run(json: bool, command: Command, ours: &OnceLock<Box<dyn Target>>) -> Result<Ended> {
    match command {
        Command::Keygen { out } => keygen(json, &out),
        Command::Init { store, keys, recipient, .. } => init(json, &store, keys, &recipient).await,
        Command::Create { at, source, exclude, tables, tier, how } => {
            let tier = if tables.is_empty() { None } else { Some(Tier::new(tier, &tables)?) };
            let sources =
                source.iter().map(|s| locate::source(s, &exclude, tier.as_ref())).collect::<Result<Vec<_>>>()?;
            create(json, &at, &sources, &how).await
        }
        Command::Rotate { at, change } => rotate(json, &at, change).await,
        Command::List { at, of } => list(json, &at, of.of.as_deref()).await,
        Command::Show { at, id, of } => show(json, &at, &id, of.of.as_deref()).await,
        Command::Status { at, of, objective } => status(json, &at, of.of.as_deref(), &objective).await,
        Command::Sync { from, to, keys, quick, limit_rate } => {
            let keys = keys.map_or_else(|| Ok(Keys::none()), Keys::load)?;
            let (from, to) = (
                locate::limited(Store::from_url(&from)?, limit_rate),
                locate::limited(locate::new_store(&to)?, limit_rate),
            );
            let options = SyncOptions::default().check(!quick).with_progress(progress("copying"));
            let report = sync(&from, &to, &keys, options).await?;
            if json {
                say_json(&report)?
            } else {
                backup_text::synced(&report)
            }
            Ok(if report.is_good() { Ended::Well } else { Ended::WithFindings })
        }
        Command::CheckStore { store } => {
            let report = check_store(&Store::from_url(&store)?).await?;
            if json {
                say_json(&report)?
            } else {
                backup_text::checked(&report)
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
                backup_text::diff(&report)
            }
            Ok(Ended::Well)
        }
        Command::Prune { at, pruning } => prune(json, &at, pruning).await,
        Command::Verify { at, snapshot, of, level } => {
            verify(json, &at, snapshot.as_deref(), of.of.as_deref(), level).await
        }
        Command::Restore { at, which, target, only, clean, compose } => {
            let only = only.as_deref().map(Only::new).transpose()?;
            let options = RestoreOptions::default().clean(clean).only(only).with_progress(progress("restoring"));
            let target = locate::target(&target)?;
            let report = if compose {
                let repository = open(&at).await?;
                let catalog = repository.catalog().await?;
                let composition =
                    repository.compose(&catalog, &which.snapshot.parse()?, which.of.of.as_deref()).await?;
                repository.restore_composed(&composition, target.as_ref(), options).await?
            } else {
                let (repository, snapshot) = find(&at, &which).await?;
                repository.restore(&snapshot, target.as_ref(), options).await?
            };
            if json {
                say_json(&report)?
            } else {
                backup_text::restored(&report)
            }
            Ok(if report.orphans.is_empty() { Ended::Well } else { Ended::WithFindings })
        }
        Command::Export { at, which, out } => {
            let (repository, snapshot) = find(&at, &which).await?;
            let report = repository.export(&snapshot, &out, progress("exporting")).await?;
            if json {
                say_json(&report)?
            } else {
                backup_text::exported(&report)
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
            let is_vacant = scratch.is_vacant().await?;
            let report = match is_vacant {
                true => repository.drill(&snapshot, ours.get_or_init(|| scratch).as_ref(), options).await?,
                // It says why not.
                false => repository.drill(&snapshot, scratch.as_ref(), options).await?,
            };
            if json {
                say_json(&report)?
            } else {
                backup_text::drilled(&report)
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

async fn init(json: bool, urls: &[String], keys: Option<PathBuf>, recipients: &[String]) -> Result<Ended> {
    let mut stores = urls.iter().map(|url| locate::new_store(url)).collect::<Result<Vec<_>>>()?.into_iter();
    let store = stores.next().ok_or_else(|| Error::new(ErrorKind::Config, "no store was named"))?;
    let copies: Vec<Store> = stores.collect();
    let repository = match &keys {
        Some(directory) => {
            let mut keys = Keys::load(directory)?;
            let extra = recipients.iter().map(|r| r.parse()).collect::<Result<Vec<Recipient>>>()?;
            Repository::init(store, &mut keys, &extra).await?
        }
        None => Repository::init_unencrypted(store).await?,
    };
    let held = keys.as_ref().map_or_else(|| Ok(Keys::none()), Keys::load)?;
    for copy in &copies {
        sync(repository.store(), copy, &held, SyncOptions::default()).await?;
    }
    let stores: Vec<String> = [repository.store()].into_iter().chain(&copies).map(ToString::to_string).collect();
    if json {
        say_json(
            &serde_json::json!({ "repository": repository.id(), "store": stores[0], "stores": stores, "encrypted": repository.is_encrypted() }),
        )?;
        return Ok(Ended::Well);
    }
    say(&format!("repository {} made in {}", repository.id(), stores.join(", ")));
    match keys {
        Some(keys) => say(&format!(
            "{}/trust.json pins it: copy it beside every copy of the keys, also the owner's offline one",
            keys.display()
        )),
        None => say("it is NOT encrypted and not signed"),
    }
    Ok(Ended::Well)
}

async fn rotate(json: bool, at: &At, change: RotateArgs) -> Result<Ended> {
    let repository = open(at).await?;
    let RotateArgs { add_recipient, remove_recipient, add_writer, retire_writer, revoke_writer, last_good } = change;
    let mut rotation = Rotation::new();
    for recipient in &add_recipient {
        rotation = rotation.add_recipient(recipient.parse()?);
    }
    for recipient in &remove_recipient {
        rotation = rotation.remove_recipient(&recipient.parse()?);
    }
    for file in &add_writer {
        rotation = rotation.add_writer(TrustedWriter::of(&WriterKey::load(file)?)?);
    }
    for key in &retire_writer {
        rotation = rotation.retire_writer(key.parse()?);
    }
    if let (Some(key), Some(id)) = (revoke_writer, last_good) {
        let catalog = repository.catalog().await?;
        rotation = rotation.revoke_writer(key.parse()?, catalog.select(&Selector::Id(id), None)?.id.clone());
    }
    let rotated = repository.rotate(&rotation).await?;
    let trust = rotated.trust().ok_or_else(|| Error::new(ErrorKind::Internal, "the repository has lost its trust"))?;
    if json {
        say_json(trust)?;
    } else {
        backup_text::rotated(trust);
    }
    Ok(Ended::Well)
}

async fn create(json: bool, at: &At, sources: &[Box<dyn Source>], how: &Taking) -> Result<Ended> {
    let replicas = how.replica.iter().map(|url| ReplicationLag::new(url, how.max_lag));
    let replicas = replicas.map(|lag| lag.map(Arc::new)).collect::<Result<Vec<_>>>()?;
    let repository = open_at(at, how.limit_rate).await?;
    for (n, source) in sources.iter().enumerate() {
        if sources[..n].iter().any(|s| s.name() == source.name()) {
            return Err(Error::new(ErrorKind::Config, format!("two sources are called {:?}", source.name()))
                .with_next_step("name them apart: --source NAME=URL"));
        }
    }
    let run = new_run()?;
    let mut taken = Vec::new();
    let mut failed = Vec::new();
    let lags = Arc::new(Lags::new(progress("backing up")));
    for source in sources {
        let mut options = BackupOptions::default().with_run(&run).with_min_copies(how.min_copies);
        options = options.with_progress(Arc::clone(&lags) as _);
        if let Some(label) = &how.label {
            options = options.with_label(label);
        }
        for replica in &replicas {
            options = options.with_throttle(Arc::clone(replica) as _);
        }
        // One source that fails does not take the others' backup away.
        match repository.backup(source.as_ref(), options).await {
            Ok(snapshot) => {
                if !json {
                    backup_text::taken(&snapshot);
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
    let lags = lags.seen();
    for (store, reason) in &lags {
        complain(&format!("{store} LAGS behind the other stores: {reason}"));
    }
    if json {
        let errors: Vec<_> = failed.iter().map(ToString::to_string).collect();
        let lags: Vec<_> =
            lags.iter().map(|(store, reason)| serde_json::json!({ "store": store, "reason": reason })).collect();
        let snapshots = taken.iter().map(snapshot_json).collect::<Result<Vec<_>>>()?;
        say_json(&serde_json::json!({ "run": run, "snapshots": snapshots, "errors": errors, "lags": lags }))?;
    }
    if let Some(first) = failed.into_iter().next() {
        return Err(first);
    }
    let good = lags.is_empty() && taken.iter().all(|s| s.manifest.is_complete());
    Ok(if good { Ended::Well } else { Ended::WithFindings })
}

/// Notes which store does not get what the others get.
#[derive(Debug)]
struct Lags {
    shown: Arc<dyn Progress>,
    seen: Mutex<BTreeMap<String, String>>,
}

impl Lags {
    fn new(shown: Arc<dyn Progress>) -> Self {
        Self { shown, seen: Mutex::default() }
    }

    fn seen(&self) -> BTreeMap<String, String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Progress for Lags {
    fn on(&self, event: Event<'_>) {
        if let Event::Lags { store, reason } = event {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(store.into(), reason.into());
        }
        self.shown.on(event);
    }
}

/// A snapshot without the key of the chunk ids, which is no one's business but the repository's.
fn snapshot_json(snapshot: &Snapshot) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(snapshot)
        .map_err(|e| Error::new(ErrorKind::Internal, "the snapshot could not be written as JSON").with_source(e))?;
    if let Some(manifest) = value.get_mut("manifest").and_then(|m| m.as_object_mut()) {
        manifest.remove("id_key");
    }
    Ok(value)
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
    } else {
        backup_text::listed(&shown);
    }
    Ok(unreadable(&catalog))
}

/// Records that cannot be read are findings, whatever the command.
fn unreadable(catalog: &Catalog) -> Ended {
    for (record, e) in &catalog.damaged {
        complain(&format!("record {}: {e}", record.brief()));
    }
    for record in &catalog.missing {
        complain(&format!("record {} is gone, and nobody with the admin's key removed it", record.brief()));
    }
    if let Some(contradiction) = &catalog.contradicts {
        complain(&contradiction.reason());
    }
    for s in catalog.stores.iter().filter(|s| !s.is_level()) {
        match &s.unreachable {
            // Said when it was opened.
            Some(_) => {}
            None => complain(&format!("{} LAGS: it lacks {} records that other stores have", s.store, s.lacks.len())),
        }
    }
    if !catalog.sealed.is_empty() {
        complain(&format!(
            "{} snapshots cannot be read with these keys: they were written for others",
            catalog.sealed.len()
        ));
    }
    if !catalog.rejected.is_empty() {
        complain(&format!(
            "{} records do not count, because the key that signed them was taken out of use; the next prune removes them",
            catalog.rejected.len()
        ));
    }
    let good = catalog.is_sound() && catalog.stores.iter().all(StoreLog::is_level);
    if good { Ended::Well } else { Ended::WithFindings }
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
    stores: &'a [String],
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
            stores: &s.stores,
        }
    }
}

async fn show(json: bool, at: &At, id: &str, of: Option<&str>) -> Result<Ended> {
    let catalog = open(at).await?.catalog().await?;
    let snapshot = catalog.select(&id.parse()?, of)?;
    if json {
        say_json(&snapshot_json(snapshot)?)?;
    } else {
        backup_text::shown(snapshot);
    }
    Ok(Ended::Well)
}

async fn status(json: bool, at: &At, of: Option<&str>, objectives: &[Objective]) -> Result<Ended> {
    let repository = open(at).await?;
    let catalog = repository.catalog().await?;
    let now = Utc::now();
    let mut status = Status::of(&catalog, now);
    status.sources.retain(|s| of.is_none_or(|of| s.source == of));
    // What was promised has to be kept by each store, as if it were the only one left.
    let mut judged = Vec::new();
    if let ([only], []) = (repository.stores(), repository.unreachable()) {
        judged.push((only.to_string(), objective::judge(objectives, &catalog, now)));
    } else {
        for store in repository.stores() {
            let here = repository.clone().in_store(store.clone()).catalog().await?;
            judged.push((store.to_string(), objective::judge(objectives, &here, now)));
        }
    }
    if json {
        let mut value = serde_json::to_value(&status)
            .map_err(|e| Error::new(ErrorKind::Internal, "the status could not be written as JSON").with_source(e))?;
        let judged = judged.iter().flat_map(|(store, all)| all.iter().map(move |o| Kept { store, kept: o }));
        if let Some(value) = value.as_object_mut() {
            value.insert("objectives".into(), serde_json::json!(judged.collect::<Vec<_>>()));
            value.insert("due".into(), serde_json::json!(objective::due(objectives, &catalog, now)));
        }
        say_json(&value)?;
    } else {
        backup_text::status(&status, &judged);
    }
    unreadable(&catalog);
    let good = status.is_good() && judged.iter().flat_map(|(_, all)| all).all(ObjectiveStatus::is_good);
    Ok(if good { Ended::Well } else { Ended::WithFindings })
}

/// How a promise is kept in one store.
#[derive(Serialize)]
struct Kept<'a> {
    store: &'a str,
    #[serde(flatten)]
    kept: &'a ObjectiveStatus,
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
        backup_text::pruned(&plan, report.as_ref());
    }
    let alarming = plan.alarming().next().is_some();
    Ok(if alarming || !catalog.is_sound() { Ended::WithFindings } else { Ended::Well })
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
    if let ([_], []) = (repository.stores(), repository.unreachable()) {
        let report = repository.verify(chosen.as_deref(), options).await?;
        if json {
            say_json(&report)?
        } else {
            backup_text::verified(&report)
        }
        return Ok(if report.is_sound() { Ended::Well } else { Ended::WithFindings });
    }
    let reports = repository.verify_all(chosen.as_deref(), options).await?;
    if json {
        let stores: Vec<_> = reports
            .iter()
            .map(|(store, report)| match report {
                Ok(report) => serde_json::json!({ "store": store, "report": report, "error": null }),
                Err(e) => serde_json::json!({ "store": store, "report": null, "error": e.to_string() }),
            })
            .collect();
        say_json(&serde_json::json!({ "stores": stores }))?;
    } else {
        for (store, report) in &reports {
            say(&format!("{store}:"));
            match report {
                Ok(report) => backup_text::verified(report),
                Err(e) => say(&format!("NOT VERIFIED: {e}")),
            }
        }
    }
    let sound = reports.iter().all(|(_, report)| report.as_ref().is_ok_and(VerifyReport::is_sound));
    Ok(if sound { Ended::Well } else { Ended::WithFindings })
}

async fn open(at: &At) -> Result<Repository> {
    open_at(at, None).await
}

/// With no more than so many bytes a second to and from each store.
async fn open_at(at: &At, limit_rate: Option<u64>) -> Result<Repository> {
    locate::open(&at.store, at.keys.as_deref(), limit_rate).await
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

fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| "write it as 500K or 4M".to_owned())?;
    let bytes = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err("write it as 500K or 4M".to_owned()),
    };
    match number.checked_mul(bytes) {
        Some(0) => Err("that would take for ever".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("that is too much".to_owned()),
    }
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
