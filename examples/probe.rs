//! `probe`: see trouble in a shop before customers do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use caretaker_examples::cli::{self, EXIT_CODES, Ended, complain, say};
use caretaker_examples::probe_text::{self as text, Level};
use caretaker_examples::shop_file::ShopFile;
use chrono::{TimeDelta, Utc};
use clap::{Args, Parser, Subcommand};
use health_probe::deployment::{Advice, DeploymentOptions, Sample, watch};
use health_probe::ledger::{Ledger, Maintenance, View, for_probe};
use health_probe::logs::{Faults, Follower, Start, Traffic, TrafficOptions};
use health_probe::slo::{BURN_RULES, judge_service_level};
use health_probe::status_page::StatusPage;
use health_probe::{
    Clock, Error, ErrorKind, Family, HostProbe, HttpProbe, Look, Message, Monitor, Result, Starttls, TlsProbe, Verdict,
    Watch, metrics,
};
use serde::Serialize;

/// See trouble in a shop before customers do, and say it once.
#[derive(Debug, Parser)]
#[command(name = "probe", after_help = EXIT_CODES)]
struct Cli {
    /// Print one machine-readable document instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at everything once. Exit code 1 where something is not healthy: what could not be seen is not.
    Run {
        #[command(flatten)]
        shop: At,
        /// Only these probes; `*` at the end stands for anything. May be repeated.
        #[arg(long, value_name = "ID")]
        only: Vec<String>,
        /// Say all that was read.
        #[arg(long)]
        all: bool,
    },
    /// Look at everything on its schedule, write it down, and tell people; until it is stopped.
    ///
    /// What it says on stdout: each message to people. With --json, one document a line.
    Watch {
        #[command(flatten)]
        shop: At,
        /// Write the status page there each minute.
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
        /// Write metrics there each minute, for Prometheus's node exporter (textfile collector).
        #[arg(long, value_name = "FILE")]
        metrics: Option<PathBuf>,
    },
    /// How the service levels stand: uptime, what is left of the budget, how fast it burns.
    Slo {
        #[command(flatten)]
        shop: At,
        /// Note a time of maintenance, from now on, for so long: `30m`; then nothing else is done.
        #[arg(long, value_name = "SPAN")]
        maintenance: Option<db_maint::Period>,
        /// Why, for --maintenance.
        #[arg(long, value_name = "TEXT", default_value = "maintenance")]
        reason: String,
    },
    /// Write the status page: one HTML file that needs nothing else.
    Page {
        #[command(flatten)]
        shop: At,
        /// Where to.
        #[arg(long, value_name = "FILE", default_value = "status.html")]
        out: PathBuf,
        /// With causes: for the shop's own people.
        #[arg(long)]
        details: bool,
    },
    /// Read logs once, whatever they are: requests counted, errors grouped. Rotated files are read where they are named.
    Logs {
        /// The logs; `-` at the beginning of a name is not an option: write ./-name.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where to keep how far they were read: then the next call says what is new since.
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
    },
    /// Go through a runbook: site-down, payment-issue, security-incident, or one of the shop's own. Looks, and changes nothing.
    Runbook {
        /// Its name; without, all are listed.
        name: Option<String>,
        #[command(flatten)]
        shop: At,
    },
    /// Before a deployment with --take: write down how things are. After it, without: watch, and say whether to go back.
    ///
    /// Exit code 0 to keep it, 1 to roll back, 3 where too little was seen to say.
    AfterDeploy {
        #[command(flatten)]
        shop: At,
        /// What was written down before.
        #[arg(long, value_name = "FILE", default_value = "baseline.json")]
        baseline: PathBuf,
        /// Write it down now.
        #[arg(long)]
        take: bool,
        /// For how many hours to watch; with 0, only the first rounds.
        #[arg(long, default_value_t = 24)]
        hours: u32,
        /// Rounds of looks at once, before and after.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
        /// Seconds between those rounds.
        #[arg(long, default_value_t = 5)]
        pause: u32,
        /// Take the shop's code as it is now for what it should be (--take leaves it as it was).
        #[arg(long)]
        accept_files: bool,
    },
    /// The figures of the business that the shop declares, against targets and trend.
    Business {
        #[command(flatten)]
        shop: At,
    },
    /// Send a test message to everybody who is told of anything, and say who got it.
    TestAlerts {
        #[command(flatten)]
        shop: At,
    },
    /// Read the configuration, and say what is wrong with it.
    Check {
        #[command(flatten)]
        shop: At,
    },
    /// One page or interface, over IPv4 and IPv6 apart, without a configuration.
    Http {
        /// Its address.
        url: String,
        /// Also trust the root certificates of this PEM file.
        #[arg(long, value_name = "FILE")]
        roots: Option<PathBuf>,
        /// Seconds that it may take.
        #[arg(long, default_value_t = 10)]
        limit: u64,
    },
    /// One certificate, without a configuration.
    Tls {
        /// HOST or HOST:PORT.
        host: String,
        /// What is spoken before TLS: smtp, imap, pop3, postgres.
        #[arg(long)]
        starttls: Option<String>,
        /// Also trust the root certificates of this PEM file.
        #[arg(long, value_name = "FILE")]
        roots: Option<PathBuf>,
    },
    /// This machine, without a configuration.
    Host {
        /// Paths whose disks are looked at.
        #[arg(value_name = "PATH")]
        disks: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct At {
    /// The shop's configuration; see examples/caretaker.toml.
    #[arg(long, value_name = "FILE", default_value = "caretaker.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Watch { shop, page, metrics } = cli.command {
        // What is in hand when a signal comes is written down.
        let stop = Arc::new(tokio::sync::Notify::new());
        let stopped = Arc::clone(&stop);
        let watching =
            async move { keep_watching(cli.json, &shop.config, page.as_deref(), metrics.as_deref(), &stopped).await };
        return cli::run_until(watching, || stop.notify_one());
    }
    cli::run(run(cli.json, cli.command), cli::nothing)
}

async fn run(json: bool, command: Command) -> Result<Ended> {
    match command {
        Command::Run { shop, only, all } => run_once(json, &shop.config, &only, all).await,
        // That one is begun by main, for it has an end of its own.
        Command::Watch { .. } => Ok(Ended::Well),
        Command::Slo { shop, maintenance: Some(span), reason } => announce(json, &shop.config, span, reason).await,
        Command::Slo { shop, .. } => service_levels(json, &shop.config).await,
        Command::Page { shop, out, details } => write_page(json, &shop.config, &out, details).await,
        Command::Logs { files, state } => logs(json, &files, state.as_deref()),
        Command::Runbook { name, shop } => runbook(json, &shop.config, name.as_deref()).await,
        Command::AfterDeploy { shop, baseline, take, hours, rounds, pause, accept_files } => {
            if accept_files {
                ShopFile::read(&shop.config)?.accept_files()?;
            }
            let options = DeploymentOptions {
                baseline_rounds: rounds,
                first_rounds: rounds,
                pause_s: pause,
                watch_hours: hours,
                ..DeploymentOptions::default()
            };
            match take {
                true => take_baseline(json, &shop.config, &baseline, &options).await,
                false => after_deployment(json, &shop.config, &baseline, &options).await,
            }
        }
        Command::Business { shop } => business(json, &shop.config).await,
        Command::TestAlerts { shop } => test_alerts(json, &shop.config).await,
        Command::Check { shop } => check(json, &shop.config),
        Command::Http { url, roots, limit } => http(json, &url, roots.as_deref(), limit).await,
        Command::Tls { host, starttls, roots } => tls(json, &host, starttls.as_deref(), roots.as_deref()).await,
        Command::Host { disks } => one_off(json, vec![Watch::new(HostProbe::new("host", disks), minute())]).await,
    }
}

/// A document with what was looked at.
#[derive(Serialize)]
struct Looks<'a> {
    verdict: Verdict,
    probes: &'a [Look],
}

async fn run_once(json: bool, config: &Path, only: &[String], all: bool) -> Result<Ended> {
    let mut watches = ShopFile::read(config)?.watches()?;
    let named = |id: &str, pattern: &String| match pattern.strip_suffix('*') {
        Some(begin) => id.starts_with(begin),
        None => pattern == id,
    };
    for pattern in only {
        if !watches.iter().any(|w| named(w.id(), pattern)) {
            return Err(Error::new(ErrorKind::Config, format!("no probe is called {pattern}")));
        }
    }
    if !only.is_empty() {
        // A dependency that is left out is not looked at, and holds nothing back in a single look.
        watches.retain(|w| only.iter().any(|pattern| named(w.id(), pattern)));
        watches = watches.into_iter().map(Watch::without_dependencies).collect();
    }
    show(json, &Monitor::new(watches)?.look_once().await, all)
}

async fn one_off(json: bool, watches: Vec<Watch>) -> Result<Ended> {
    show(json, &Monitor::new(watches)?.look_once().await, true)
}

fn show(json: bool, looks: &[Look], all: bool) -> Result<Ended> {
    let worst = looks.iter().map(|l| l.judgement.verdict).max_by_key(|v| v.rank()).unwrap_or(Verdict::Unknown);
    match json {
        true => say_json(&Looks { verdict: worst, probes: looks })?,
        false => text::looks(looks, all),
    }
    Ok(ended(worst.is_healthy()))
}

async fn keep_watching(
    json: bool,
    config: &Path,
    page: Option<&Path>,
    exposition: Option<&Path>,
    stopped: &tokio::sync::Notify,
) -> Result<Ended> {
    let mut shop = ShopFile::read(config)?;
    let alone = shop.watch_alone()?;
    let public = shop.public_names();
    let ledger: Arc<dyn Ledger> = Arc::new(shop.ledger_of_watch(&alone).await?);
    let mut monitor =
        Monitor::new(shop.watches()?)?.with_options(shop.incident_options()).with_ledger(Arc::clone(&ledger));
    match shop.alerter()? {
        Some(alerter) => monitor = monitor.with_alerter(alerter),
        None => complain("nobody is told of anything: add [alerts] to the configuration"),
    }
    if let Some((heartbeat, every)) = shop.heartbeat()? {
        monitor = monitor.with_heartbeat(heartbeat, every);
    }
    let faces = async {
        loop {
            tokio::time::sleep(Duration::from_secs(if page.is_some() || exposition.is_some() { 5 } else { 3600 }))
                .await;
            if let Err(e) = write_faces(&shop.shop.name, &public, &monitor, ledger.as_ref(), page, exposition).await {
                complain(&format!("a page was not written: {e}"));
            }
            tokio::time::sleep(Duration::from_secs(55)).await;
        }
    };
    let said = |message: &Message| match json {
        true => match serde_json::to_string(message) {
            Ok(line) => say(&line),
            Err(e) => complain(&format!("a message that cannot be written as JSON: {e}")),
        },
        false => text::message(message),
    };
    let stop = async {
        tokio::select! {
            () = stopped.notified() => {}
            () = faces => {}
        }
    };
    monitor.run(stop, |_| {}, said).await?;
    Ok(Ended::Well)
}

async fn write_faces(
    name: &str,
    public: &BTreeMap<String, String>,
    monitor: &Monitor,
    ledger: &dyn Ledger,
    page: Option<&Path>,
    exposition: Option<&Path>,
) -> Result<()> {
    let snapshot = monitor.snapshot();
    if let Some(path) = page {
        let page = StatusPage::collect(name, &snapshot, ledger).await?;
        let page = if public.is_empty() { page } else { page.of_public(public) };
        replace(path, page.html().as_bytes())?;
    }
    if let Some(path) = exposition {
        replace(path, metrics::exposition(&snapshot)?.as_bytes())?;
    }
    Ok(())
}

async fn service_levels(json: bool, config: &Path) -> Result<Ended> {
    let mut shop = ShopFile::read(config)?;
    let ledger = shop.ledger().await?;
    let now = Utc::now();
    let mut levels = Vec::new();
    for watch in shop.watches()? {
        let Some(objective) = watch.objective() else { continue };
        let from = now - TimeDelta::days(objective.days().into());
        let slots = ledger.timeline(watch.id(), from, now).await?;
        let maintenance = for_probe(&ledger.maintenance(from, now).await?, watch.id());
        let budget = objective.budget(&slots, &maintenance, View::WithoutMaintenance, now);
        let burns = objective.burns(&slots, &maintenance, &BURN_RULES, now);
        let (verdict, reason) = judge_service_level(&budget, &burns);
        let strict = objective.budget(&slots, &maintenance, View::Strict, now);
        let (probe, target, days) = (watch.id().to_owned(), objective.target(), objective.days());
        levels.push(Level { probe, target, days, verdict, reason, budget, strict, burns });
    }
    if levels.is_empty() {
        return Err(
            Error::new(ErrorKind::Config, "no probe has a service level").with_next_step("add slo = 99.9 to one")
        );
    }
    match json {
        true => say_json(&serde_json::json!({ "levels": levels }))?,
        false => text::levels(&levels),
    }
    Ok(ended(levels.iter().all(|l| l.verdict.is_healthy())))
}

async fn announce(json: bool, config: &Path, span: db_maint::Period, reason: String) -> Result<Ended> {
    let ledger = ShopFile::read(config)?.ledger().await?;
    let now = Utc::now();
    let window = Maintenance { probe: None, from: now, to: now + span.delta(), reason };
    ledger.add_maintenance(&window).await?;
    complain(&format!("maintenance until {}: nothing is told of meanwhile", window.to.format("%F %T UTC")));
    if json {
        say_json(&serde_json::json!({ "maintenance": window }))?;
    }
    Ok(Ended::Well)
}

async fn write_page(json: bool, config: &Path, out: &Path, details: bool) -> Result<Ended> {
    let mut shop = ShopFile::read(config)?;
    let ledger = shop.ledger().await?;
    let monitor = Monitor::new(shop.watches()?)?;
    // What is now: by looking once, for the ledger knows only what was.
    let looks = monitor.look_once().await;
    let snapshot = monitor.snapshot_of(&looks);
    let mut page = StatusPage::collect(&shop.shop.name, &snapshot, &ledger).await?;
    let public = shop.public_names();
    if details {
        page = page.with_details();
    } else if !public.is_empty() {
        page = page.of_public(&public);
    }
    replace(out, page.html().as_bytes())?;
    match json {
        true => say_json(&serde_json::json!({ "verdict": page.verdict, "page": out, "components": page.components }))?,
        false => say(&format!("{}: {}", out.display(), page.verdict.word())),
    }
    Ok(ended(page.verdict.is_healthy()))
}

/// What was read of a log.
#[derive(Serialize, serde::Deserialize)]
struct ReadLog {
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic: Option<Traffic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<Faults>,
    lost: bool,
}

fn logs(json: bool, files: &[PathBuf], state: Option<&Path>) -> Result<Ended> {
    let mut known: Vec<Follower> = match state.map(std::fs::read) {
        Some(Ok(bytes)) => serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(ErrorKind::Config, "--state: it is not what was kept of logs")
                .with_next_step("delete it")
                .with_source(e)
        })?,
        Some(Err(e)) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::Storage, format!("--state cannot be read: {e}")).with_source(e));
        }
        _ => Vec::new(),
    };
    let mut read = Vec::new();
    for file in files {
        let at = known.iter().position(|f| f.path() == file).unwrap_or_else(|| {
            known.push(Follower::new(file, Start::File));
            known.len() - 1
        });
        let now = Utc::now();
        let (mut traffic, mut faults) = (Traffic::new(TrafficOptions::default()), Faults::default());
        let (mut lines, mut access) = (0u32, None);
        let scan = known[at].scan(now, |line| {
            // What kind of log it is, its first lines tell.
            lines += 1;
            let is_access = *access.get_or_insert_with(|| health_probe::logs::AccessLine::parse(line).is_some());
            match is_access {
                true => traffic.add(line),
                false => faults.add(line, now),
            }
        })?;
        let is_access = access == Some(true);
        if !json {
            match is_access {
                true => text::traffic(&file.display().to_string(), &traffic),
                false => text::faults(&file.display().to_string(), &faults),
            }
            if scan.lost {
                say("  some lines were rotated away before they were read");
            }
        }
        let (traffic, faults) = if is_access { (Some(traffic), None) } else { (None, Some(faults)) };
        read.push(ReadLog { file: file.clone(), traffic, faults, lost: scan.lost });
    }
    if json {
        say_json(&serde_json::json!({ "logs": read }))?;
    }
    if let Some(path) = state {
        let bytes = serde_json::to_vec(&known)
            .map_err(|e| Error::new(ErrorKind::Storage, "--state cannot be written as JSON").with_source(e))?;
        replace(path, &bytes)?;
    }
    let bad = |r: &ReadLog| {
        let errors = r.faults.as_ref().is_some_and(|f| f.errors() > 0);
        errors || r.lost || r.traffic.as_ref().is_some_and(|t| t.by_class[5] > 0 || !t.exposed.is_empty())
    };
    Ok(ended(!read.iter().any(bad)))
}

async fn runbook(json: bool, config: &Path, name: Option<&str>) -> Result<Ended> {
    let mut shop = ShopFile::read(config)?;
    let all = shop.runbooks();
    let Some(name) = name else {
        match json {
            true => say_json(&serde_json::json!({ "runbooks": all }))?,
            false => all.iter().for_each(|r| say(&format!("{:20} {}", r.name, r.title))),
        }
        return Ok(Ended::Well);
    };
    let chosen = all.iter().find(|r| r.name == name).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|r| r.name.as_str()).collect();
        Error::new(ErrorKind::Config, format!("there is no runbook {name}"))
            .with_next_step(format!("one of: {}", names.join(", ")))
    })?;
    let watches: Vec<Arc<Watch>> = shop.watches()?.into_iter().map(Arc::new).collect();
    let transcript = chosen.run(&watches, &shop.contact, &Clock::system()).await;
    match json {
        true => say_json(&transcript)?,
        false => say(transcript.markdown().trim_end()),
    }
    Ok(ended(transcript.verdict.is_healthy()))
}

async fn take_baseline(json: bool, config: &Path, out: &Path, options: &DeploymentOptions) -> Result<Ended> {
    let watches: Vec<Arc<Watch>> = ShopFile::read(config)?.watches()?.into_iter().map(Arc::new).collect();
    let pause = Duration::from_secs(options.pause_s.into());
    let sample = Sample::take(&watches, options.baseline_rounds, pause, &Clock::system()).await;
    let bytes = serde_json::to_vec(&sample)
        .map_err(|e| Error::new(ErrorKind::Storage, "the baseline cannot be written as JSON").with_source(e))?;
    replace(out, &bytes)?;
    match json {
        true => say_json(&serde_json::json!({ "baseline": out, "rounds": options.baseline_rounds }))?,
        false => say(&format!("{}: how {} probes are before the deployment", out.display(), watches.len())),
    }
    Ok(Ended::Well)
}

async fn after_deployment(json: bool, config: &Path, baseline: &Path, options: &DeploymentOptions) -> Result<Ended> {
    let wrong = |why: String| {
        Error::new(ErrorKind::Config, format!("{}: {why}", baseline.display()))
            .with_next_step("before the deployment: probe after-deploy --take")
    };
    let bytes = std::fs::read(baseline).map_err(|e| wrong(format!("cannot be read: {e}")).with_source(e))?;
    let before: Sample = serde_json::from_slice(&bytes).map_err(|e| wrong("is no baseline".into()).with_source(e))?;
    let age = before.taken_at().map(|at| Utc::now() - at);
    if age.is_none_or(|age| age > TimeDelta::hours(24)) {
        let said =
            age.map_or("says not when it was taken".into(), |a| format!("was taken {} hours ago", a.num_hours()));
        return Err(wrong(format!("{said}: it is not how things were before this deployment")));
    }
    let watches: Vec<Arc<Watch>> = ShopFile::read(config)?.watches()?.into_iter().map(Arc::new).collect();
    let mut last = None;
    let report = watch(&watches, &before, options, &Clock::system(), std::future::pending(), |comparison| {
        if !json && last != Some(comparison.advice) {
            say(&format!("{}  {:?}: {}", Utc::now().format("%F %T"), comparison.advice, comparison.reasons.join("; ")));
        }
        last = Some(comparison.advice);
    })
    .await;
    match json {
        true => say_json(&report)?,
        false => say(&format!(
            "{:?} after {} rounds: {}",
            report.comparison.advice,
            report.rounds,
            report.comparison.reasons.join("; ")
        )),
    }
    match report.comparison.advice {
        Advice::RollBack => Ok(Ended::WithFindings),
        Advice::Unknown => {
            let why = report.comparison.reasons.join("; ");
            Err(Error::new(ErrorKind::Unreachable, format!("whether to keep the deployment is not known: {why}"))
                .with_next_step("see what keeps the probes from looking; it is neither kept nor rolled back by this"))
        }
        _ => Ok(Ended::Well),
    }
}

async fn business(json: bool, config: &Path) -> Result<Ended> {
    let metrics = ShopFile::read(config)?.metrics()?;
    if metrics.is_empty() {
        return Err(Error::new(ErrorKind::Config, "there is no figure declared").with_next_step("add some: [[metric]]"));
    }
    let mut reports = Vec::new();
    for (metric, url) in metrics {
        reports.push(metric.read(&url, Duration::from_secs(60)).await?);
    }
    match json {
        true => say_json(&serde_json::json!({ "metrics": reports }))?,
        false => text::metrics(&reports),
    }
    Ok(ended(reports.iter().all(|r| r.verdict.is_healthy())))
}

async fn test_alerts(json: bool, config: &Path) -> Result<Ended> {
    let shop = ShopFile::read(config)?;
    let alerter = shop.alerter()?;
    let alerter = alerter.ok_or_else(|| {
        Error::new(ErrorKind::Config, "nobody is told of anything").with_next_step("add [alerts] to the configuration")
    })?;
    let message = Message::test(Utc::now(), format!("caretaker-{}", Utc::now().timestamp()));
    // To each of them, at any hour: who is told at night only has to be reached as well.
    let names: Vec<String> = alerter.notifiers().map(|n| n.name().to_owned()).collect();
    let delivery = alerter.deliver_to(&message, &names).await;
    if delivery.is_told() && delivery.failed.is_empty() {
        // By this the checklist knows that alerts arrive.
        shop.ledger().await?.save("alerts-tested", &Utc::now().to_rfc3339()).await?;
    }
    let failed: Vec<(String, String)> = delivery.failed.iter().map(|(name, e)| (name.clone(), e.to_string())).collect();
    match json {
        true => say_json(&serde_json::json!({ "delivered": delivery.delivered, "failed": failed }))?,
        false => {
            delivery.delivered.iter().for_each(|name| say(&format!("delivered  {name}")));
            failed.iter().for_each(|(name, why)| say(&format!("FAILED     {name}: {why}")));
        }
    }
    Ok(ended(failed.is_empty() && delivery.is_told()))
}

fn check(json: bool, config: &Path) -> Result<Ended> {
    let mut shop = ShopFile::read(config)?;
    let alerted = shop.alerter()?.is_some();
    shop.heartbeat()?;
    shop.metrics()?;
    let watches = shop.watches()?;
    let probes: Vec<String> = watches.iter().map(|w| w.id().to_owned()).collect();
    Monitor::new(watches)?;
    match json {
        true => say_json(&serde_json::json!({ "probes": probes, "alerts": alerted }))?,
        false => say(&format!(
            "{}: {} probes, {}",
            config.display(),
            probes.len(),
            if alerted { "alerts" } else { "no alerts" }
        )),
    }
    Ok(Ended::Well)
}

async fn http(json: bool, url: &str, roots: Option<&Path>, limit: u64) -> Result<Ended> {
    let mut watches = Vec::new();
    let host = url.split("://").nth(1).unwrap_or(url).split('/').next().unwrap_or_default();
    let named = if host.contains("://") || host.contains(':') { host.to_owned() } else { format!("{host}:443") };
    // Each version of IP that the name has; where it has none, one look says so.
    let addresses: Vec<std::net::SocketAddr> = match tokio::net::lookup_host(named).await {
        Ok(found) => found.collect(),
        Err(_) => Vec::new(),
    };
    for (family, name, there) in [
        (Family::V4, "IPv4", addresses.iter().any(|a| a.is_ipv4())),
        (Family::V6, "IPv6", addresses.iter().any(|a| a.is_ipv6())),
    ] {
        if there || (addresses.is_empty() && family == Family::V4) {
            let mut probe = HttpProbe::new(name, url)?.with_limits(Duration::from_secs(limit.max(1)), 1 << 20);
            if there {
                probe = probe.over(family).with_spec(|spec| spec.title = format!("{} over {name}", spec.title));
            }
            if let Some(roots) = roots {
                probe = probe.trusting(roots)?;
            }
            watches.push(Watch::new(probe, minute()).with_timeout(Duration::from_secs(limit.max(1) + 5)));
        }
    }
    one_off(json, watches).await
}

async fn tls(json: bool, host: &str, starttls: Option<&str>, roots: Option<&Path>) -> Result<Ended> {
    let (starttls, port) = match starttls {
        None => (Starttls::None, 443),
        Some("smtp") => (Starttls::Smtp, 587),
        Some("imap") => (Starttls::Imap, 143),
        Some("pop3") => (Starttls::Pop3, 110),
        Some("postgres") => (Starttls::Postgres, 5432),
        Some("mysql") => (Starttls::Mysql, 3306),
        Some(other) => {
            return Err(Error::new(ErrorKind::Config, format!("--starttls {other} is not known"))
                .with_next_step("one of: smtp, imap, pop3, postgres, mysql"));
        }
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => {
            let port = port.parse().map_err(|_| Error::new(ErrorKind::Config, format!("{port:?} is no port")))?;
            (host, port)
        }
        _ => (host, port),
    };
    let mut probe = TlsProbe::new("tls", host, port).after(starttls);
    if let Some(roots) = roots {
        probe = probe.trusting(roots)?;
    }
    one_off(json, vec![Watch::new(probe, minute())]).await
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn ended(well: bool) -> Ended {
    if well { Ended::Well } else { Ended::WithFindings }
}

fn say_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(ErrorKind::Malformed, "the report could not be written as JSON").with_source(e))?;
    say(&text);
    Ok(())
}

/// Writes beside, then renames: nobody reads half a file.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".new");
    let beside = path.with_file_name(name);
    std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path)).map_err(|e| {
        Error::new(ErrorKind::Storage, format!("{}: cannot be written: {e}", path.display()))
            .with_next_step("check the path and who may write there")
            .with_source(e)
    })
}
