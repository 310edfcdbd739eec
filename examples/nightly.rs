//! `nightly`: the main job on a sample shop. Today: back up, verify, drill, report.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use backup_core::{
    BackupOptions, DrillOptions, DrillReport, Error, ErrorKind, FilesSource, FilesTarget, Keys, Repository, Result,
    Snapshot, Source, SqliteSource, SqliteTarget, Store, Target, VerifyLevel, VerifyOptions, VerifyReport, new_run,
};
use caretaker_examples::cli::{self, EXIT_CODES, Ended, say};
use caretaker_examples::display::{count, duration, progress, rate, size};
use caretaker_examples::report::{Report, Verdict};
use clap::Parser;
use storefront::Size;

/// Makes the sample shop, backs it up, verifies it, restores it, compares, and writes one HTML report.
///
/// Needs no server, no configuration and no network. Everything is below one new directory.
#[derive(Debug, Parser)]
#[command(name = "nightly", after_help = EXIT_CODES)]
struct Cli {
    /// The directory to work in; a new one beside you unless it is named. It must not exist.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How many orders the sample shop has.
    #[arg(long, default_value_t = 20_000)]
    orders: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::run(run(cli), cli::nothing)
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

/// What is to be done with one source.
struct Plan {
    source: Box<dyn Source>,
    scratch: Box<dyn Target>,
    invariants: Option<&'static str>,
}

/// What became of one source.
struct Night {
    first: Snapshot,
    second: Snapshot,
    drill: DrillReport,
}

async fn run(cli: Cli) -> Result<Ended> {
    let out = cli.out.unwrap_or_else(|| {
        PathBuf::from(format!("caretaker-nightly-{}", backup_core::chrono::Local::now().format("%Y%m%d-%H%M%S")))
    });
    let out = fresh(&out)?;
    let (db, uploads, keys_at) = (out.join("shop/shop.db"), out.join("shop/uploads"), out.join("keys"));

    let shop = |e: storefront::Error| Error::new(ErrorKind::Internal, e.to_string()).with_source(e);
    std::fs::create_dir_all(out.join("shop")).map_err(|e| io(&out, e))?;
    storefront::sqlite::create(&db, &Size::orders(cli.orders), 1).await.map_err(shop)?;
    storefront::uploads::create(&uploads, 1, 300, 60_000).map_err(shop)?;

    Keys::generate()?.save(&keys_at)?;
    let mut keys = Keys::load(&keys_at)?;
    let store = Store::folder(out.join("backups"))?;
    let repository = Repository::init(store, &mut keys, &[]).await?;

    let sources = [
        Plan {
            source: Box::new(SqliteSource::new(&db)),
            scratch: Box::new(SqliteTarget::new(out.join("scratch.db"))),
            invariants: Some(INVARIANTS),
        },
        Plan {
            source: Box::new(FilesSource::new(&uploads)),
            scratch: Box::new(FilesTarget::new(out.join("scratch-uploads"))),
            invariants: None,
        },
    ];
    let mut nights = Vec::new();
    let mut firsts = Vec::new();
    // The second run, of a shop that has not changed, shows what a night costs.
    for round in 0..2 {
        let run = new_run()?;
        for (n, Plan { source, .. }) in sources.iter().enumerate() {
            let options = BackupOptions::default().with_run(&run).with_progress(progress("backing up"));
            let snapshot = repository.backup(source.as_ref(), options).await?;
            if round == 0 { firsts.push(snapshot) } else { nights.push((n, snapshot)) }
        }
    }
    let options = VerifyOptions::new(VerifyLevel::Content).with_progress(progress("verifying"));
    let verified = repository.verify(None, options).await?;
    let mut done = Vec::new();
    for ((n, second), first) in nights.into_iter().zip(firsts) {
        let Plan { scratch, invariants, .. } = &sources[n];
        let mut options =
            DrillOptions::default().with_rto(Duration::from_secs(4 * 3600)).with_progress(progress("drilling"));
        if let Some(text) = invariants {
            options = options.with_invariants(*text);
        }
        let drill = repository.drill(&second, scratch.as_ref(), options).await?;
        done.push(Night { first, second, drill });
    }

    let report = report(&out, &repository, &done, &verified);
    let file = out.join("report.html");
    std::fs::write(&file, report.html()).map_err(|e| io(&file, e))?;
    print(&out, &done, &verified, report.verdict(), &file);
    Ok(if report.verdict() == Verdict::Good { Ended::Well } else { Ended::WithFindings })
}

fn print(out: &Path, nights: &[Night], verified: &VerifyReport, verdict: Verdict, file: &Path) {
    say(&format!("The sample shop was backed up, verified and restored: {}.", verdict.word()));
    say("");
    for n in nights {
        let m = &n.first.manifest;
        say(&format!("{} ({})", m.source.name, m.source.location));
        say(&format!(
            "  backed up   {} in {} rows and files, stored in {}, in {} ({})",
            size(m.totals.bytes),
            count(m.totals.rows),
            size(m.totals.added),
            duration(took(&n.first)),
            rate(m.totals.read, took(&n.first))
        ));
        say(&format!(
            "  again       unchanged: {} added, in {}",
            size(n.second.manifest.totals.added),
            duration(took(&n.second))
        ));
        let r = &n.drill.restore;
        let equal = if r.is_equal() {
            format!("equal in all {} parts", r.compared.len())
        } else {
            format!("DIFFERENT in {} parts", r.different().count())
        };
        say(&format!("  restored    in {}, {equal}", duration(Duration::from_millis(r.milliseconds))));
        for i in &n.drill.invariants {
            say(&format!("  rule        {}: {}", i.name, if i.holds() { "holds" } else { "DOES NOT HOLD" }));
        }
    }
    say(&format!(
        "verified      {} snapshots, {} objects, {} findings",
        verified.snapshots.len(),
        count(verified.objects),
        verified.findings.len()
    ));
    say("");
    say(&format!("The backups are in     {}", out.join("backups").display()));
    say(&format!("They open with         {}", out.join("keys/owner-identity.txt").display()));
    say(&format!("Without this program   {}", out.join("backups/RESTORE.md").display()));
    say(&format!("The whole report       {}", file.display()));
    say("");
    say("To get the shop back:");
    say(&restore_command(out));
}

fn restore_command(out: &Path) -> String {
    let out = out.display();
    format!(
        "  cargo run --release --example backup -- restore --store file://{out}/backups --keys {out}/keys \\\n    --snapshot latest --of shop --target sqlite:{out}/restored.db"
    )
}

fn report(out: &Path, repository: &Repository, nights: &[Night], verified: &VerifyReport) -> Report {
    let mut report = Report::new("Nightly report of the sample shop");
    let whole = nights.iter().all(|n| n.first.manifest.is_complete() && n.second.manifest.is_complete());
    report.section("Backed up", Verdict::of(whole));
    let rows: Vec<Vec<String>> = nights
        .iter()
        .flat_map(|n| [("first", &n.first), ("unchanged", &n.second)])
        .map(|(which, s)| {
            let t = &s.manifest.totals;
            vec![
                s.manifest.source.name.clone(),
                which.into(),
                s.id.to_string(),
                size(t.bytes),
                count(t.rows),
                size(t.added),
                duration(took(s)),
                rate(t.read, took(s)),
            ]
        })
        .collect();
    report.table(
        &["source", "run", "snapshot", "holds", "rows and files", "added to the store", "time", "read at"],
        &rows,
    );

    report.section("Verified", Verdict::of(verified.is_sound()));
    let time = Duration::from_millis(verified.milliseconds);
    report.text(&format!(
        "{} snapshots: every one of {} objects ({}) is there, has its hash, could be decrypted and holds what was read from the shop. It took {}.",
        verified.snapshots.len(), count(verified.objects), size(verified.bytes), duration(time)
    ));
    for f in &verified.findings {
        report.text(&format!("{:?}: {}: {}", f.kind, f.object, f.reason));
    }

    report.section("Restored and compared", Verdict::of(nights.iter().all(|n| n.drill.passed())));
    for n in nights {
        let r = &n.drill.restore;
        report.text(&format!(
            "{}: restored to a scratch place in {}, read again in {}, and removed. RTO 4 h: {}.",
            n.second.manifest.source.name,
            duration(Duration::from_millis(r.milliseconds)),
            duration(Duration::from_millis(r.compare_milliseconds)),
            if n.drill.within_rto() == Some(true) { "kept" } else { "NOT kept" }
        ));
        let rows: Vec<Vec<String>> = r
            .compared
            .iter()
            .map(|c| {
                vec![
                    c.entry.clone(),
                    count(c.expected.rows()),
                    c.expected.to_string(),
                    if c.is_equal() { "equal".into() } else { "DIFFERENT".into() },
                ]
            })
            .collect();
        report.table(&["part", "rows", "fingerprint", "restored"], &rows);
        if !n.drill.invariants.is_empty() {
            let rows: Vec<Vec<String>> = n
                .drill
                .invariants
                .iter()
                .map(|i| vec![i.name.clone(), if i.holds() { "holds".into() } else { format!("{:?}", i.outcome) }])
                .collect();
            report.table(&["rule of the shop", "in the restored database"], &rows);
        }
    }

    report.section("Where it is, and how to get it back", Verdict::Good);
    report.table(
        &["what", "where"],
        &[
            vec!["the backups".into(), repository.store().to_string()],
            vec![
                "reads them; keep it offline, in two places".into(),
                out.join("keys/owner-identity.txt").display().to_string(),
            ],
            vec![
                "writes them; stays on the shop's host, cannot read them".into(),
                out.join("keys/writer.key").display().to_string(),
            ],
            vec!["signs removals; keep it off the host".into(), out.join("keys/admin.key").display().to_string()],
            vec![
                "tells this repository from any other; beside every copy of the keys".into(),
                out.join("keys/trust.json").display().to_string(),
            ],
            vec!["how to restore without this program".into(), out.join("backups/RESTORE.md").display().to_string()],
        ],
    );
    report.commands(&restore_command(out));
    report
}

fn took(s: &Snapshot) -> Duration {
    (s.manifest.finished_at - s.manifest.started_at).to_std().unwrap_or(Duration::ZERO)
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
