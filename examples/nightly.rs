//! `nightly`: the main job of a shop, from backup to checklist, and one report.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Keys, Repository, Result, Snapshot, Store};
use caretaker_examples::cli::{self, EXIT_CODES, Ended, say, say_json};
use caretaker_examples::crew::{Crew, of_configuration};
use caretaker_examples::display::{count, duration, rate, size};
use caretaker_examples::night::{Night, night, took};
use caretaker_examples::report::Verdict;
use chrono::Utc;
use clap::Parser;
use storefront::Size;

/// Backs up, verifies, restores and compares, cleans up, inspects, probes and audits a shop, and writes one HTML report.
///
/// Without a configuration it does so for a sample shop that it makes itself: no server, no network, everything below one new directory.
///
/// With one, exit code 1 where something was not backed up, verified or restored as it should be, where something is worth a look, and where
/// the checklist became worse.
#[derive(Debug, Parser)]
#[command(name = "nightly", after_help = EXIT_CODES)]
struct Cli {
    /// Print one machine-readable document instead of text.
    #[arg(long)]
    json: bool,
    /// The shop, described once; see examples/caretaker.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read the configuration, say what is wrong with it, and do nothing.
    #[arg(long, requires = "config")]
    check_config: bool,
    /// The directory of the report; a new one unless it is named. For the sample shop it must not exist.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How many orders the sample shop has.
    #[arg(long, default_value_t = 20_000, conflicts_with = "config")]
    orders: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::run(run(cli), cli::nothing)
}

async fn run(cli: Cli) -> Result<Ended> {
    match &cli.config {
        Some(config) => real(&cli, config).await,
        None => sample(&cli).await,
    }
}

async fn real(cli: &Cli, config: &Path) -> Result<Ended> {
    let crew = Crew::read(config).map_err(|e| of_configuration(&e))?;
    if cli.check_config {
        crew.check().map_err(|e| of_configuration(&e))?;
        say(&format!("{}: good", config.display()));
        return Ok(Ended::Well);
    }
    let now = Utc::now();
    let out = match &cli.out {
        Some(out) => out.clone(),
        None => crew.state.join("nights").join(now.format("%Y-%m-%d-%H%M%S").to_string()),
    };
    std::fs::create_dir_all(&out).map_err(|e| io(&out, e))?;
    let mut night = night(&crew, &out, &[], now).await;
    let store = crew.backup.stores.first().cloned().unwrap_or_default();
    let keys = crew.backup.keys.as_ref().map(|k| format!(" --keys {}", k.display())).unwrap_or_default();
    night.way_back(&crew, &format!("backup restore --store {store}{keys} --snapshot latest --of NAME --target URL"));
    let file = write(&out, &night)?;
    if cli.json {
        json(&night, &file)?;
    } else {
        for (part, verdict, text) in &night.lines {
            say(&format!("{:8} {part}: {text}", verdict.word()));
        }
        say(&format!("{}: {}", file.display(), night.report.verdict().word()));
    }
    Ok(if night.report.verdict() == Verdict::Good { Ended::Well } else { Ended::WithFindings })
}

/// The shop's rules that a restored database has to keep.
const INVARIANTS: &str = "\
-- every payment has its order
SELECT p.id FROM payments p LEFT JOIN orders o ON o.id = p.order_id WHERE o.id IS NULL;
-- no stock is below zero
SELECT id FROM variants WHERE stock < 0;
-- the last order number is not ahead of the counter
SELECT 1 WHERE (SELECT max(id) FROM orders) > (SELECT seq FROM sqlite_sequence WHERE name = 'orders');
";

/// What the sample shop declares about its data.
const POLICY: &str = r#"
[[retention]]
name = "old sessions"
table = "sessions"
column = "last_used_at"
keep = "30d"
# The sample shop stands still in time: one day all of its sessions are old.
may_empty = true

[[reference]]
name = "items of orders"
table = "order_items"
columns = ["order_id"]
to = "orders"
action = "report"
"#;

async fn sample(cli: &Cli) -> Result<Ended> {
    let out = cli.out.clone().unwrap_or_else(|| {
        PathBuf::from(format!("caretaker-nightly-{}", chrono::Local::now().format("%Y%m%d-%H%M%S")))
    });
    let out = fresh(&out)?;
    let crew = make(&out, cli.orders).await?;
    // The second run, of a shop that has not changed, shows what a night costs.
    let first = crew.back_up(None).await?;
    let mut night = night(&crew, &out, &first.snapshots, Utc::now()).await;
    let command = restore_command(&out);
    night.way_back(&crew, &command);
    let file = write(&out, &night)?;
    match cli.json {
        true => json(&night, &file)?,
        false => print(&out, &first.snapshots, &night, &file, &command),
    }
    // The sample shop has flaws, so that there is something to see: what counts is that it comes back.
    Ok(if night.report.verdict() == Verdict::Bad { Ended::WithFindings } else { Ended::Well })
}

/// The sample shop, its repository and its configuration.
async fn make(out: &Path, orders: u64) -> Result<Crew> {
    let shop = |e: storefront::Error| Error::new(ErrorKind::Internal, e.to_string()).with_source(e);
    std::fs::create_dir_all(out.join("shop")).map_err(|e| io(out, e))?;
    storefront::sqlite::create(&out.join("shop/shop.db"), &Size::orders(orders), 1).await.map_err(shop)?;
    storefront::uploads::create(&out.join("shop/uploads"), 1, 300, 60_000).map_err(shop)?;
    Keys::generate()?.save(out.join("keys"))?;
    let mut keys = Keys::load(out.join("keys"))?;
    Repository::init(Store::folder(out.join("backups"))?, &mut keys, &[]).await?;
    let at = |path: &str| toml_text(&out.join(path).display().to_string());
    let config = format!(
        "# The sample shop, described once. `nightly --config` and the other tools take it.\n\
         [shop]\nname = \"the sample shop\"\nstate = {}\n\n\
         [backup]\nstores = [{}]\nkeys = {}\n\n\
         [[backup.source]]\nname = \"shop\"\nurl = {}\nscratch = {}\ninvariants = {}\nrpo = \"26h\"\nrto = \"4h\"\n\n\
         [[backup.source]]\nname = \"uploads\"\nurl = {}\nscratch = {}\nrto = \"4h\"\n\n\
         [maintenance]\ndatabase = {}\npolicy = {}\nclean_up = true\n\n\
         [[probe.database]]\nid = \"database\"\nurl = {}\n\n\
         [agent]\nlisten = \"127.0.0.1:7878\"\n\n\
         [deploy]\nrounds = 3\npause = 0\nwatch_hours = 0\n\n\
         [checklist]\ndatabase = {}\nbackups = [{}]\nkeys = {}\n",
        at("state"),
        toml_text(&format!("file://{}", out.join("backups").display())),
        at("keys"),
        toml_text(&format!("sqlite:{}", out.join("shop/shop.db").display())),
        toml_text(&format!("sqlite:{}", out.join("scratch.db").display())),
        at("invariants.sql"),
        toml_text(&format!("dir:{}", out.join("shop/uploads").display())),
        toml_text(&format!("dir:{}", out.join("scratch-uploads").display())),
        toml_text(&format!("sqlite:{}", out.join("shop/shop.db").display())),
        at("policy.toml"),
        toml_text(&format!("sqlite:{}", out.join("shop/shop.db").display())),
        toml_text(&format!("sqlite:{}", out.join("shop/shop.db").display())),
        toml_text(&format!("file://{}", out.join("backups").display())),
        at("keys"),
    );
    for (name, text) in [("caretaker.toml", config.as_str()), ("policy.toml", POLICY), ("invariants.sql", INVARIANTS)] {
        std::fs::write(out.join(name), text).map_err(|e| io(out, e))?;
    }
    std::fs::create_dir_all(out.join("state")).map_err(|e| io(out, e))?;
    Crew::read(&out.join("caretaker.toml")).map_err(|e| of_configuration(&e))
}

/// A text as TOML writes it: as JSON does.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn print(out: &Path, first: &[Snapshot], night: &Night, file: &Path, command: &str) {
    let verdict = match night.report.verdict() {
        Verdict::Bad => "FAILED",
        _ => "good",
    };
    say(&format!("The sample shop was backed up, verified and restored: {verdict}."));
    say("");
    let again = night.backed_up.as_ref().map(|b| b.snapshots.as_slice()).unwrap_or_default();
    for s in first {
        let m = &s.manifest;
        say(&format!("{} ({})", m.source.name, m.source.location));
        say(&format!(
            "  backed up   {} in {} rows and files, stored in {}, in {} ({})",
            size(m.totals.bytes),
            count(m.totals.rows),
            size(m.totals.added),
            duration(took(s)),
            rate(m.totals.read, took(s))
        ));
        if let Some(s) = again.iter().find(|a| a.manifest.source.name == m.source.name) {
            say(&format!("  again       unchanged: {} added, in {}", size(s.manifest.totals.added), duration(took(s))));
        }
        let Some((_, drill)) = night.drilled.iter().find(|(name, _)| *name == m.source.name) else { continue };
        let r = &drill.restore;
        let equal = match r.is_equal() {
            true => format!("equal in all {} parts", r.compared.len()),
            false => format!("DIFFERENT in {} parts", r.different().count()),
        };
        say(&format!("  restored    in {}, {equal}", duration(Duration::from_millis(r.milliseconds))));
        for i in &drill.invariants {
            say(&format!("  rule        {}: {}", i.name, if i.holds() { "holds" } else { "DOES NOT HOLD" }));
        }
    }
    for (_, report) in &night.verified {
        match report {
            Ok(r) => say(&format!(
                "verified      {} snapshots, {} objects, {} findings",
                r.snapshots.len(),
                count(r.objects),
                r.findings.len()
            )),
            Err(e) => say(&format!("NOT verified  {e}")),
        }
    }
    for (part, _, text) in
        night.lines.iter().filter(|(part, ..)| !["Backed up", "Verified", "Restored"].contains(&part.as_str()))
    {
        say(&format!("{:13} {text}", part.to_lowercase()));
    }
    say("");
    say(&format!("The backups are in     {}", out.join("backups").display()));
    say(&format!("They open with         {}", out.join("keys/owner-identity.txt").display()));
    say(&format!("Without this program   {}", out.join("backups/RESTORE.md").display()));
    say(&format!("The shop's description {}", out.join("caretaker.toml").display()));
    say(&format!("The whole report       {}", file.display()));
    say("");
    say("To get the shop back:");
    say(command);
}

fn json(night: &Night, file: &Path) -> Result<()> {
    let parts: Vec<_> = night
        .lines
        .iter()
        .map(|(part, verdict, text)| serde_json::json!({ "part": part, "verdict": verdict.word(), "text": text }))
        .collect();
    say_json(&serde_json::json!({ "verdict": night.report.verdict().word(), "report": file, "parts": parts }))
}

fn write(out: &Path, night: &Night) -> Result<PathBuf> {
    let file = out.join("report.html");
    std::fs::write(&file, night.report.html()).map_err(|e| io(&file, e))?;
    Ok(file)
}

fn restore_command(out: &Path) -> String {
    let out = out.display();
    format!(
        "  cargo run --release --example backup -- restore --store file://{out}/backups --keys {out}/keys \\\n    --snapshot latest --of shop --target sqlite:{out}/restored.db"
    )
}

fn fresh(out: &Path) -> Result<PathBuf> {
    std::fs::create_dir(out).map_err(|e| {
        Error::new(ErrorKind::Config, format!("{} cannot be made: {e}", out.display()))
            .with_next_step("name a directory that does not exist yet with --out")
            .with_source(e)
    })?;
    out.canonicalize().map_err(|e| io(out, e))
}

fn io(path: &Path, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("{}: {e}", path.display())).with_source(e)
}
