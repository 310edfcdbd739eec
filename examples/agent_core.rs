//! A shop that looks after itself: its jobs at their times, its probes, and what is shown of both.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use db_maint::{Engine, Run, RunEnd, Stop, last_done, runs_since};
use health_probe::ledger::{Ledger, SqliteLedger};
use health_probe::status_page::StatusPage;
use health_probe::vitals::{VitalsProbe, WebVitals};
use health_probe::{
    Error, ErrorKind, Limits, Monitor, Observation, Policy, ProbeSpec, Result, Unit, Watch, metrics, probe_fn,
};
use tokio::net::TcpListener;

use crate::agent_http::{Faces, Token, serve};
use crate::crew::Crew;
use crate::report::{Report, Verdict};
use crate::schedule::When;
use crate::scheduler::{Scheduler, Step};
use crate::shop_file::{ShopFile, secret};
use crate::shop_jobs::jobs;

/// Under what name the ledger keeps what visitors told.
const VITALS: &str = "vitals";
/// How long jobs that run may go on when the agent is stopped.
const PATIENCE: Duration = Duration::from_secs(60);
/// A schedule that has not moved for so long stands still.
const STILL: TimeDelta = TimeDelta::minutes(5);

/// The agent of one server.
#[derive(Debug)]
pub struct Agent {
    name: String,
    scheduler: Scheduler,
    monitor: Monitor,
    ledger: Arc<SqliteLedger>,
    vitals: WebVitals,
    /// What customers may read of, by the names that they are to read.
    public: BTreeMap<String, String>,
    /// The right to watch, where this one does.
    _alone: Option<std::fs::File>,
    token: Option<Token>,
    listen: std::net::SocketAddr,
    stop: Stop,
    /// When the schedule moved last, in seconds of Unix.
    moved: AtomicI64,
    /// What keeps jobs from being looked at, by job.
    trouble: Mutex<BTreeMap<String, String>>,
}

impl Agent {
    /// Of that shop; opens its ledger, and nothing else yet.
    ///
    /// # Errors
    /// Where the configuration makes no sense, or the ledger cannot be opened.
    pub async fn new(crew: &Crew) -> Result<Self> {
        let mut file = crew.file()?;
        let plan = file.agent.clone();
        let wrong =
            |why: String| Error::new(ErrorKind::Config, why).with_next_step("see [agent] in examples/caretaker.toml");
        let token = plan.token.as_deref().map(|t| secret(t, "agent.token")).transpose()?;
        let token = token.map(|t| Token::new(&t)).transpose().map_err(|why| wrong(format!("agent.token: {why}")))?;
        let engine = engine(crew, plan.database.as_deref())?;
        let stop = Stop::default();
        let jobs = jobs(crew, &plan.jobs, &stop).map_err(wrong)?;
        let zone = file.zone()?;
        let by = format!("{}:{}", host(), std::process::id());
        let mut scheduler = Scheduler::new(Arc::clone(&engine), zone, by, jobs)
            .with_jitter(plan.jitter.map_or(Duration::from_secs(5), db_maint::Period::duration));
        if let Some(term) = plan.lease {
            scheduler = scheduler.with_term(term.duration());
        }
        let alone = if plan.watch.unwrap_or(true) { Some(file.watch_alone()?) } else { None };
        let ledger = Arc::new(match &alone {
            Some(alone) => file.ledger_of_watch(alone).await?,
            None => file.ledger().await?,
        });
        // What visitors told in the last weeks outlives a restart.
        let vitals = match ledger.load(VITALS).await? {
            // Figures of browsers are no reason not to watch.
            Some(kept) => WebVitals::restore(&kept).unwrap_or_else(|e| {
                crate::cli::complain(&format!("what visitors' browsers told begins anew: {e}"));
                WebVitals::new()
            }),
            None => WebVitals::new(),
        };
        let monitor = monitor(&mut file, &scheduler, &engine, &vitals, Arc::clone(&ledger))?;
        let listen = plan.listen.unwrap_or_else(|| std::net::SocketAddr::from(([127, 0, 0, 1], 7878)));
        Ok(Self {
            name: crew.name.clone(),
            scheduler,
            monitor,
            ledger,
            vitals,
            public: file.public_names(),
            _alone: alone,
            token,
            listen,
            stop,
            moved: AtomicI64::new(Utc::now().timestamp()),
            trouble: Mutex::default(),
        })
    }

    /// Its schedule.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Keeps what visitors told.
    async fn keep_vitals(&self) {
        let kept = async { self.ledger.save(VITALS, &self.vitals.export()?).await };
        if let Err(e) = kept.await {
            crate::cli::complain(&format!("what visitors' browsers told was not kept: {e}"));
        }
    }

    fn noticed(&self, job: &str, step: &Step) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Step::Lost(why) => trouble.insert(job.to_owned(), why.clone()),
            // It was not asked.
            Step::Idle if trouble.contains_key(job) => None,
            _ => trouble.remove(job),
        };
    }
}

/// Does what is due now, and ends.
pub async fn run_once(agent: &Agent, said: impl Fn(&str, &Step)) -> Vec<Step> {
    let steps = agent.scheduler.tick(Utc::now()).await;
    steps.iter().for_each(|(job, step)| said(job, step));
    steps.into_iter().map(|(_, step)| step).collect()
}

/// Works until `stop` is over: jobs, probes, faces. `listening` is told the address.
///
/// # Errors
/// Where the address is taken, or the monitor's ledger cannot be read.
pub async fn work(
    agent: &Arc<Agent>,
    stop: impl Future<Output = ()>,
    listening: impl FnOnce(std::net::SocketAddr),
    said: impl Fn(&str, &Step) + Sync,
) -> Result<()> {
    let listener = TcpListener::bind(agent.listen).await.map_err(|e| {
        Error::new(ErrorKind::Config, format!("{} cannot be listened on: {e}", agent.listen))
            .with_next_step("set listen in [agent], or see who listens there")
            .with_source(e)
    })?;
    if let Ok(at) = listener.local_addr() {
        listening(at);
    }
    let (ending, ended) = tokio::sync::watch::channel(false);
    let over = || {
        let mut ended = ended.clone();
        async move {
            // Its sender lives as long as this function.
            let _ = ended.wait_for(|is| *is).await;
        }
    };
    let schedule = agent.scheduler.work(Utc::now, over(), PATIENCE, |job, step| {
        agent.noticed(job, step);
        said(job, step);
    });
    let watching = agent.monitor.run(over(), |_| {}, |_| {});
    // The faces go last: whoever asks meanwhile is told.
    let (closing, closed) = tokio::sync::oneshot::channel::<()>();
    let served = serve(listener, Arc::clone(agent) as Arc<dyn Faces>, agent.token.clone(), async {
        // It ends either way.
        let _ = closed.await;
    });
    // That this runs at all: a process whose threads all hang answers nobody.
    let beating = async {
        let mut beat = tokio::time::interval(Duration::from_secs(10));
        for beats in 1u64.. {
            beat.tick().await;
            agent.moved.store(Utc::now().timestamp(), Ordering::Relaxed);
            if beats % 60 == 0 {
                agent.keep_vitals().await;
            }
        }
    };
    let all = async {
        // Without its monitor nobody would be told of anything: then it ends, and whoever started it starts it again.
        let scheduled = async {
            schedule.await;
            Ok(())
        };
        let watched = tokio::select! {
            done = async { tokio::try_join!(scheduled, watching) } => done.map(drop),
            () = beating => Ok(()),
        };
        agent.keep_vitals().await;
        // It listens no more where it failed.
        let _ = closing.send(());
        watched
    };
    let stopping = async {
        stop.await;
        agent.stop.stop();
        let _ = ending.send(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        (watched, served) = async { tokio::join!(all, served) } => {
            watched?;
            served.map_err(|e| Error::new(ErrorKind::Unreachable, format!("the faces ended: {e}")).with_source(e))
        }
        () = stopping => Ok(()),
    }
}

/// The database in which servers agree: the named one, that of maintenance, or a file of this server's own.
fn engine(crew: &Crew, named: Option<&str>) -> Result<Arc<dyn Engine>> {
    let wrong = |e: db_maint::Error| {
        let error = Error::new(ErrorKind::Config, format!("agent.database: {e}"));
        match e.next_step() {
            Some(next) => error.with_next_step(next),
            None => error,
        }
    };
    let url = match named.or(crew.maintenance.database.as_deref()) {
        Some(url) => secret(url, "agent.database")?,
        None => {
            let path = crew.state.join("agent.db");
            std::fs::create_dir_all(&crew.state)
                .and_then(|()| std::fs::OpenOptions::new().create(true).append(true).open(&path).map(drop))
                .map_err(|e| {
                    Error::new(ErrorKind::Storage, format!("{}: cannot be made: {e}", path.display()))
                        .with_next_step("let the user that runs this write there, or set shop.state")
                })?;
            format!("sqlite:{}", path.display())
        }
    };
    db_maint::open(&url).map(Arc::from).map_err(wrong)
}

/// The shop's probes, one of each job, and one of what visitors' browsers measure.
fn monitor(
    file: &mut ShopFile,
    scheduler: &Scheduler,
    engine: &Arc<dyn Engine>,
    vitals: &WebVitals,
    ledger: Arc<SqliteLedger>,
) -> Result<Monitor> {
    let is_watching = file.agent.watch.unwrap_or(true);
    let mut watches = if file.has_probes() && is_watching { file.watches()? } else { Vec::new() };
    let zone = scheduler.zone();
    for job in scheduler.jobs().iter().filter(|_| is_watching) {
        watches.push(job_watch(job.name(), job.when(), zone, Arc::clone(engine)));
    }
    watches.push(Watch::new(VitalsProbe::new("web vitals", vitals.clone()), Duration::from_secs(900)));
    let mut monitor = Monitor::new(watches)?.with_options(file.incident_options()).with_ledger(ledger);
    if let Some(alerter) = file.alerter()?.filter(|_| is_watching) {
        monitor = monitor.with_alerter(alerter);
    }
    if let Some((heartbeat, every)) = file.heartbeat()?.filter(|_| is_watching) {
        monitor = monitor.with_heartbeat(heartbeat, every);
    }
    Ok(monitor)
}

/// Whether a job is done in time, by whichever server: how long the newest time that is due has been waiting.
fn job_watch(name: &str, when: When, zone: chrono_tz::Tz, engine: Arc<dyn Engine>) -> Watch {
    let period = when.period().num_seconds() as f64;
    // Late is an hour, or as long as two times of a tier.
    let late = (period * 2.0).min(3600.0);
    let policy = Policy::new()
        .below("waiting", Unit::Seconds, Limits::new(late, 4.0 * late))
        .is("without findings", true, health_probe::Verdict::Warning)
        .meaning("see the agent's report for why it could not be done");
    let job = name.to_owned();
    let spec = ProbeSpec::new(format!("job {name}"), policy)
        .with_title(format!("{name} is done in time, and without findings"));
    let probe = probe_fn(spec, move |cx| {
        let (engine, job) = (Arc::clone(&engine), job.clone());
        async move {
            let unread = |e: db_maint::Error| {
                Error::new(ErrorKind::Unreachable, format!("whether {job} is done cannot be read: {e}")).with_source(e)
            };
            let done = last_done(&*engine, &job, cx.now).await.map_err(unread)?;
            let runs = runs_since(&*engine, cx.now - when.period() * 2).await.map_err(unread)?;
            let last = runs.iter().rev().find(|r| r.job == job);
            let due = when.newest(cx.now, zone);
            let waiting = match done {
                Some(done) if done >= due => TimeDelta::zero(),
                // Since the oldest time that is not done.
                Some(done) => cx.now - when.next(done, zone),
                None => cx.now - due,
            };
            let mut seen = Observation::new(cx.now);
            seen.number("waiting", waiting.num_seconds() as f64, Unit::Seconds);
            // Those of the weekly inspection stand in its report: they stay for weeks.
            let told = job != "maintenance" && last.is_some_and(|r| r.end == RunEnd::Findings);
            seen.flag("without findings", !told);
            Ok(seen)
        }
    });
    Watch::new(probe, Duration::from_secs(60))
}

#[async_trait]
impl Faces for Agent {
    fn is_alive(&self) -> bool {
        Utc::now().timestamp() - self.moved.load(Ordering::Relaxed) < STILL.num_seconds()
    }

    fn readiness(&self) -> std::result::Result<(), String> {
        match self.trouble.lock().unwrap_or_else(PoisonError::into_inner).iter().next() {
            Some((job, why)) => Err(format!("{job}: {why}")),
            None => Ok(()),
        }
    }

    async fn status_page(&self) -> std::result::Result<String, String> {
        let page =
            StatusPage::collect(&*self.name, &self.monitor.snapshot(), self.ledger.as_ref() as &dyn Ledger).await;
        let page = page.map_err(|e| e.to_string())?;
        let page = if self.public.is_empty() { page } else { page.of_public(&self.public) };
        Ok(page.html())
    }

    async fn report(&self) -> std::result::Result<String, String> {
        let now = Utc::now();
        let runs = runs_since(&**self.scheduler.engine(), now - TimeDelta::days(8)).await.map_err(|e| e.to_string())?;
        Ok(report(&self.name, &self.scheduler, &runs, now).html())
    }

    async fn metrics(&self) -> std::result::Result<String, String> {
        let probes = metrics::exposition(&self.monitor.snapshot()).map_err(|e| e.to_string())?;
        let runs = runs_since(&**self.scheduler.engine(), Utc::now() - TimeDelta::days(8)).await.unwrap_or_else(|e| {
            tracing::warn!(error = %e, "metrics without jobs");
            Vec::new()
        });
        Ok(with_jobs(&probes, &self.scheduler, &runs))
    }

    async fn jobs(&self) -> std::result::Result<serde_json::Value, String> {
        let now = Utc::now();
        let runs =
            runs_since(&**self.scheduler.engine(), now - TimeDelta::days(35)).await.map_err(|e| e.to_string())?;
        let jobs: Vec<_> = self
            .scheduler
            .jobs()
            .iter()
            .map(|job| {
                let last = runs.iter().rev().find(|r| r.job == job.name());
                let next = job.when().next(now, self.scheduler.zone());
                serde_json::json!({ "name": job.name(), "when": job.when().to_string(), "next": next, "last": last })
            })
            .collect();
        Ok(serde_json::json!({ "shop": self.name, "jobs": jobs }))
    }

    async fn run(&self, job: &str) -> Option<(StatusCode, serde_json::Value)> {
        let job = self.scheduler.jobs().iter().find(|j| j.name() == job)?;
        Some(match self.scheduler.run_now(job, Utc::now()).await {
            Step::Ran(run) => (StatusCode::OK, serde_json::json!({ "run": run })),
            Step::Lost(why) => (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({ "error": why })),
            _ => (StatusCode::CONFLICT, serde_json::json!({ "error": "it runs just now, here or on another server" })),
        })
    }

    fn vitals(&self) -> &WebVitals {
        &self.vitals
    }
}

/// What was done, for people: each job as it stands, and each run of the last days.
pub fn report(name: &str, scheduler: &Scheduler, runs: &[Run], now: DateTime<Utc>) -> Report {
    let zone = scheduler.zone();
    let mut report = Report::new(format!("What was done for {name}"));
    let local = |at: DateTime<Utc>| at.with_timezone(&zone).format("%F %H:%M").to_string();
    let (mut rows, mut worst) = (Vec::new(), Verdict::Good);
    for job in scheduler.jobs() {
        let last = runs.iter().rev().find(|r| r.job == job.name());
        let (verdict, when, note) = match last {
            Some(r) => (verdict(r.end), local(r.ended), r.note.clone()),
            None => (Verdict::Unknown, "not in these days".into(), String::new()),
        };
        worst = match (worst, verdict) {
            (Verdict::Bad, _) | (_, Verdict::Bad) => Verdict::Bad,
            (Verdict::Open, _) | (_, Verdict::Open) => Verdict::Open,
            (w, Verdict::Unknown) => w,
            (_, v) => v,
        };
        let next = local(job.when().next(now, zone));
        rows.push(vec![job.name().to_owned(), job.when().to_string(), verdict.word().into(), when, next, note]);
    }
    report.section("Jobs", worst);
    report.text(&format!("Times are those of {zone}."));
    report.table(&["job", "when", "last", "ended", "next", "what it came to"], &rows);
    let failed: Vec<&Run> = runs.iter().filter(|r| r.failures > 0).collect();
    if !failed.is_empty() {
        let left = failed.iter().filter(|r| r.end == RunEnd::Failed).count();
        report.section("Failed tries", if left > 0 { Verdict::Bad } else { Verdict::Open });
        let row = |r: &&Run| {
            let done = if r.end == RunEnd::Failed { "not done".to_owned() } else { format!("done {}", local(r.ended)) };
            vec![r.job.clone(), local(r.due), done, r.failures.to_string(), r.by.clone(), r.failure.clone()]
        };
        let headings = ["job", "was due", "and then", "failed tries", "by", "why"];
        report.table(&headings, &failed.iter().map(row).collect::<Vec<_>>());
    }
    report.section("Runs", Verdict::Good);
    let row = |r: &Run| {
        let late = (r.began - r.due).num_minutes();
        let late = if late >= 2 { format!("{late} min") } else { String::new() };
        vec![r.job.clone(), local(r.due), late, verdict(r.end).word().into(), r.by.clone(), r.note.clone()]
    };
    let newest: Vec<Vec<String>> = runs.iter().rev().take(500).map(row).collect();
    report.table(&["job", "due", "late", "ended", "by", "what it came to"], &newest);
    report
}

fn verdict(end: RunEnd) -> Verdict {
    match end {
        RunEnd::Well => Verdict::Good,
        RunEnd::Findings => Verdict::Open,
        _ => Verdict::Bad,
    }
}

/// The metrics of jobs after those of probes, before the mark of the end.
fn with_jobs(probes: &str, scheduler: &Scheduler, runs: &[Run]) -> String {
    let mut out = probes.trim_end().trim_end_matches("# EOF").to_owned();
    let label = |job: &str| job.replace('\\', "\\\\").replace('"', "\\\"");
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "# HELP caretaker_job_done_timestamp_seconds When the newest time of a job that is done ended\n# TYPE caretaker_job_done_timestamp_seconds gauge"
    );
    for job in scheduler.jobs() {
        if let Some(run) = runs.iter().rev().find(|r| r.job == job.name() && r.end != RunEnd::Failed) {
            let _ = writeln!(
                out,
                "caretaker_job_done_timestamp_seconds{{job=\"{}\"}} {}",
                label(job.name()),
                run.ended.timestamp()
            );
        }
    }
    let _ = writeln!(
        out,
        "# HELP caretaker_job_failed 1 where the last run of a job failed\n# TYPE caretaker_job_failed gauge"
    );
    for job in scheduler.jobs() {
        if let Some(run) = runs.iter().rev().find(|r| r.job == job.name()) {
            let _ = writeln!(
                out,
                "caretaker_job_failed{{job=\"{}\"}} {}",
                label(job.name()),
                u8::from(run.end == RunEnd::Failed)
            );
        }
    }
    out + "# EOF\n"
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(100).collect();
    if name.is_empty() { "host".into() } else { name }
}
