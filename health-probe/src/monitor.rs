//! A set of probes on their schedules, what is known of them now, and who is told.

mod schedule;
mod telling;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

pub use schedule::{Clock, Look, Watch};
use telling::Telling;

use crate::alert::Alerter;
use crate::error::{Error, ErrorKind, Result};
use crate::incident::{Dependencies, IncidentOptions, IncidentRecord, Incidents, Message};
use crate::judge::{Judgement, Verdict};
use crate::ledger::{Ledger, Maintenance, Record, for_probe};
use crate::slo::{BURN_RULES, judge_burns};

/// For how long the ledger keeps what it has.
const KEEP_DAYS: i64 = 400;

/// Looks at a shop: probes on their schedules, confirmed states, incidents, the ledger, alerts.
///
/// ```
/// use std::time::Duration;
/// use health_probe::{Limits, Monitor, Observation, Policy, ProbeSpec, Unit, Verdict, Watch, probe_fn};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> health_probe::Result<()> {
/// let policy = Policy::new().below("queue", Unit::Count, Limits::new(100.0, 1000.0));
/// let queue = probe_fn(ProbeSpec::new("mail queue", policy), |cx| async move {
///     let mut seen = Observation::new(cx.now);
///     seen.number("queue", 3.0, Unit::Count);
///     Ok(seen)
/// });
/// let monitor = Monitor::new(vec![Watch::new(queue, Duration::from_secs(60))])?;
/// let looks = monitor.look_once().await;
/// assert_eq!(looks[0].judgement.verdict, Verdict::Healthy);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Monitor {
    watches: Vec<Arc<Watch>>,
    dependencies: Dependencies,
    options: IncidentOptions,
    concurrency: usize,
    clock: Clock,
    ledger: Option<Arc<dyn Ledger>>,
    alerter: Option<Arc<Alerter>>,
    heartbeat: Option<(Arc<dyn Heartbeat>, Duration)>,
    board: Arc<Mutex<Board>>,
}

/// A sign of life to somebody outside, who misses it: what watches the watcher.
#[async_trait]
pub trait Heartbeat: fmt::Debug + Send + Sync {
    /// Sends it.
    async fn beat(&self) -> Result<()>;
}

/// What is known of the shop now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// When this was.
    pub at: DateTime<Utc>,
    /// The worst of all confirmed states; unknown before everything was looked at.
    pub verdict: Verdict,
    /// Each probe, in the order that they were given in.
    pub probes: Vec<ProbeStatus>,
    /// Incidents that go on.
    pub incidents: Vec<IncidentRecord>,
    /// What the monitor itself could not do: outcomes that were not written down, messages that were not delivered.
    pub troubles: Vec<String>,
}

/// What is known of one probe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProbeStatus {
    /// Its name.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// Its confirmed state; `None` before there is one.
    pub verdict: Option<Verdict>,
    /// Since when it is so.
    pub since: Option<DateTime<Utc>>,
    /// Whether it goes up and down.
    pub flapping: bool,
    /// Seconds between its looks.
    pub every_s: u64,
    /// What it depends on.
    pub depends_on: Vec<String>,
    /// The last look.
    pub last: Option<Look>,
}

#[derive(Debug, Default)]
struct Board {
    states: BTreeMap<String, (Verdict, DateTime<Utc>, bool)>,
    last: BTreeMap<String, Look>,
    incidents: Vec<IncidentRecord>,
    troubles: BTreeMap<&'static str, String>,
    maintenance: Vec<Maintenance>,
}

impl Monitor {
    /// A monitor of these probes, without ledger and alerts.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where two probes have one name, or dependencies lead nowhere or in a circle.
    pub fn new(watches: Vec<Watch>) -> Result<Self> {
        let watches: Vec<Arc<Watch>> = watches.into_iter().map(Arc::new).collect();
        let mut names: Vec<&str> = watches.iter().map(|w| w.id()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(Error::new(ErrorKind::Config, format!("two probes are called {}", twice[0]))
                .with_next_step("give each a name of its own"));
        }
        let mut direct: Vec<(String, Vec<String>)> =
            watches.iter().map(|w| (w.id().to_owned(), w.depends_on().to_vec())).collect();
        // A service level is no second incident of what it is the level of.
        direct.extend(
            watches.iter().filter(|w| w.objective().is_some()).map(|w| (level(w.id()), vec![w.id().to_owned()])),
        );
        let dependencies = Dependencies::new(direct.iter().map(|(id, on)| (id.as_str(), on.as_slice())))?;
        Ok(Self {
            watches,
            dependencies,
            options: IncidentOptions::default(),
            concurrency: 64,
            clock: Clock::system(),
            ledger: None,
            alerter: None,
            heartbeat: None,
            board: Arc::default(),
        })
    }

    /// The same with other rules for incidents.
    #[must_use]
    pub fn with_options(mut self, options: IncidentOptions) -> Self {
        self.options = options;
        self
    }

    /// The same with so many looks at once at most; 64 without.
    #[must_use]
    pub fn with_concurrency(mut self, looks: usize) -> Self {
        self.concurrency = looks.max(1);
        self
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same that writes outcomes and incidents down, and goes on with the incidents that it finds there.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// The same that tells people.
    #[must_use]
    pub fn with_alerter(mut self, alerter: Alerter) -> Self {
        self.alerter = Some(Arc::new(alerter));
        self
    }

    /// The same with a sign of life so often, for as long as looks are taken and written down, and nothing critical waits for
    /// minutes because nobody could be told.
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: impl Heartbeat + 'static, every: Duration) -> Self {
        self.heartbeat = Some((Arc::new(heartbeat), every));
        self
    }

    /// The probes.
    pub fn watches(&self) -> &[Arc<Watch>] {
        &self.watches
    }

    /// Looks at everything once, and tells nobody. In the order of the probes.
    pub async fn look_once(&self) -> Vec<Look> {
        let permits = Arc::new(Semaphore::new(self.concurrency));
        let looks = self.watches.iter().map(|watch| {
            let (permits, watch) = (Arc::clone(&permits), Arc::clone(watch));
            let due = self.clock.now();
            async move {
                // The semaphore is never closed.
                let _permit = permits.acquire().await;
                watch.look(due, self.clock.now(), &mut None).await
            }
        });
        futures::future::join_all(looks).await
    }

    /// What is known now. Cheap; from any task.
    pub fn snapshot(&self) -> Snapshot {
        let board = self.board.lock().unwrap_or_else(|e| e.into_inner());
        let probes: Vec<ProbeStatus> = self
            .watches
            .iter()
            .map(|watch| {
                let state = board.states.get(watch.id());
                ProbeStatus {
                    id: watch.id().to_owned(),
                    title: watch.title().to_owned(),
                    verdict: state.map(|s| s.0),
                    since: state.map(|s| s.1),
                    flapping: state.is_some_and(|s| s.2),
                    every_s: watch.every().as_secs(),
                    depends_on: watch.depends_on().to_vec(),
                    last: board.last.get(watch.id()).cloned(),
                }
            })
            .collect();
        Snapshot {
            at: self.clock.now(),
            verdict: worst(&probes),
            probes,
            incidents: board.incidents.clone(),
            troubles: board.troubles.iter().map(|(what, why)| format!("{what}: {why}")).collect(),
        }
    }

    /// What these looks say, taken as confirmed: for a page or a report that is made at once.
    pub fn snapshot_of(&self, looks: &[Look]) -> Snapshot {
        let mut snapshot = self.snapshot();
        for probe in &mut snapshot.probes {
            if let Some(look) = looks.iter().find(|l| l.probe == probe.id) {
                (probe.verdict, probe.since) = (Some(look.judgement.verdict), Some(look.began));
                probe.last = Some(look.clone());
            }
        }
        snapshot.verdict = worst(&snapshot.probes);
        snapshot
    }

    /// Looks, judges, writes down and tells, until `stop` ends. `seen` is called for each look, `said` for each message that was
    /// delivered (without an alerter: that was due).
    ///
    /// Dropping the future ends all looks; what was not yet written down is missing in the ledger.
    ///
    /// # Errors
    /// Where the ledger cannot be read at the beginning. Later, what cannot be written is a trouble of the [`Snapshot`].
    pub async fn run(
        &self,
        stop: impl Future<Output = ()>,
        mut seen: impl FnMut(&Look),
        mut said: impl FnMut(&Message),
    ) -> Result<()> {
        let mut incidents = Incidents::new(self.dependencies.clone(), self.options, self.open_incidents().await?);
        let (sender, mut looks) = mpsc::channel(2 * self.watches.len().max(1));
        let permits = Arc::new(Semaphore::new(self.concurrency));
        // All of them end with this value.
        let mut tasks = tokio::task::JoinSet::new();
        let mut asked: HashMap<&str, Arc<Notify>> = HashMap::new();
        for watch in &self.watches {
            let now = Arc::clone(asked.entry(watch.id()).or_default());
            tasks.spawn(Arc::clone(watch).keep_looking(self.clock.clone(), Arc::clone(&permits), now, sender.clone()));
        }
        drop(sender);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut telling = Telling::new(self.alerter.clone());
        // By a clock that nobody sets: one that jumps ahead and back would silence all of them.
        let began = Instant::now();
        let (mut next_beat, mut next_level, mut next_forget) = (began, began, began + Duration::from_secs(3600));
        let (mut next_due, mut known) = (began, BTreeSet::new());
        let mut pending: Vec<Record> = Vec::new();
        let mut stop = pin!(stop);
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                () = &mut stop => break,
                n = looks.recv_many(&mut batch, 1024) => {
                    if n == 0 {
                        // No probe is left to look.
                        (&mut stop).await;
                        break;
                    }
                }
                sent = telling.next(), if telling.is_busy() => {
                    if let Some(message) = telling.done(sent) {
                        incidents.told(&message, self.clock.now());
                        said(&message);
                        self.keep_incidents(&mut incidents).await;
                    }
                    self.trouble("messages were not delivered", telling.trouble());
                }
                _ = tick.tick() => {}
            }
            for look in batch {
                let change = incidents.observe(&look.probe, &look.title, look.began, &look.judgement);
                let broke = change.is_some_and(|change| !change.to.is_healthy());
                let suffer = broke.then(|| incidents.dependents_of(&look.probe)).into_iter().flatten();
                for other in incidents.worth_a_look(&look.probe, look.began).into_iter().chain(suffer) {
                    if let Some(now) = asked.get(other) {
                        now.notify_one();
                    }
                }
                if !look.asked_for {
                    pending.push(look.record());
                }
                seen(&look);
                self.put_on_board(look, &incidents);
            }
            self.write_down(&mut pending).await;
            let (now, instant) = (self.clock.now(), Instant::now());
            if instant >= next_level {
                next_level = instant + Duration::from_secs(60);
                self.judge_levels(&mut incidents, now).await;
                self.refresh_maintenance(now).await;
            }
            if instant >= next_forget {
                next_forget = instant + Duration::from_secs(86_400);
                self.forget(now).await;
            }
            if let Some((heartbeat, every)) = &self.heartbeat
                && instant >= next_beat
                && self.is_alive(now)
                && !telling.is_stuck()
            {
                next_beat = instant + *every;
                let heartbeat = Arc::clone(heartbeat);
                tasks.spawn(async move {
                    if let Err(e) = heartbeat.beat().await {
                        tracing::warn!(error = %e, "a sign of life was not sent");
                    }
                });
            }
            while tasks.try_join_next().is_some() {}
            // Once a second is soon enough, however many looks there are.
            if instant < next_due {
                continue;
            }
            next_due = instant + Duration::from_secs(1);
            let maintenance = self.maintained(now);
            let due = incidents.due(now, |probe| maintenance.iter().any(|p| p == probe || level(p) == probe));
            self.show_incidents(&incidents);
            let untold: BTreeSet<String> =
                due.iter().filter(|m| !m.incident.was_told()).map(|m| m.incident.id.clone()).collect();
            if !untold.is_subset(&known) {
                // Before anybody is told: who starts after this process was killed goes on with it.
                self.keep_incidents(&mut incidents).await;
            }
            known = untold;
            telling.offer(&due);
        }
        self.write_down(&mut pending).await;
        // What is under way is waited for, or it would be sent again after the next start.
        let limit = Instant::now() + Duration::from_secs(15);
        while telling.is_busy()
            && let Ok(sent) = tokio::time::timeout_at(limit, telling.next()).await
        {
            if let Some(message) = telling.done(sent) {
                incidents.told(&message, self.clock.now());
                said(&message);
            }
        }
        self.keep_incidents(&mut incidents).await;
        Ok(())
    }

    async fn open_incidents(&self) -> Result<Vec<IncidentRecord>> {
        let Some(ledger) = &self.ledger else { return Ok(Vec::new()) };
        let recent = ledger.incidents(self.clock.now() - TimeDelta::days(7)).await?;
        Ok(recent.into_iter().filter(|i| !i.is_closed()).collect())
    }

    async fn keep_incidents(&self, incidents: &mut Incidents) {
        let Some(ledger) = &self.ledger else {
            incidents.take_closed();
            return;
        };
        let mut failed = None;
        let mut unwritten = Vec::new();
        for incident in incidents.take_closed() {
            if let Err(e) = ledger.put_incident(&incident).await {
                failed = Some(e.to_string());
                unwritten.push(incident);
            }
        }
        for incident in incidents.open() {
            if let Err(e) = ledger.put_incident(incident).await {
                failed = Some(e.to_string());
            }
        }
        incidents.give_back(unwritten);
        self.trouble("incidents were not written down", failed);
    }

    /// What cannot be written stays, up to a bound: then the oldest is missing.
    async fn write_down(&self, pending: &mut Vec<Record>) {
        let Some(ledger) = &self.ledger else {
            pending.clear();
            return;
        };
        if pending.is_empty() {
            return;
        }
        match ledger.record(pending).await {
            Ok(()) => {
                pending.clear();
                self.trouble("outcomes were not written down", None);
            }
            Err(e) => {
                self.trouble("outcomes were not written down", Some(e.to_string()));
                pending.drain(..pending.len().saturating_sub(100_000));
            }
        }
    }

    async fn judge_levels(&self, incidents: &mut Incidents, now: DateTime<Utc>) {
        let Some(ledger) = &self.ledger else { return };
        if !self.watches.iter().any(|w| w.objective().is_some()) {
            return;
        }
        let longest = BURN_RULES.iter().map(|r| r.long_minutes).max().unwrap_or_default();
        let told = match ledger.incidents(now - TimeDelta::minutes(longest.into())).await {
            Ok(told) => told,
            Err(e) => return self.trouble("service levels cannot be read", Some(e.to_string())),
        };
        let mut failed = None;
        for watch in &self.watches {
            let Some(objective) = watch.objective() else { continue };
            let from = now - TimeDelta::days(objective.days().into());
            let read = async {
                let slots = ledger.timeline(watch.id(), from, now).await?;
                Ok::<_, Error>((slots, for_probe(&ledger.maintenance(from, now).await?, watch.id())))
            };
            match read.await {
                Ok((slots, mut maintenance)) => {
                    // People know of what an incident told them; the level tells of what no incident did.
                    maintenance.extend(told.iter().chain(incidents.open()).filter_map(|i| told_of(i, watch.id(), now)));
                    let burns = objective.burns(&slots, &maintenance, &BURN_RULES, now);
                    let (verdict, reason) = judge_burns(&burns);
                    // One that is not known opens no incident, for the probe's own state says that it does not look; and ends none.
                    if verdict == Verdict::Unknown {
                        continue;
                    }
                    let title = format!("service level of {}", watch.title());
                    incidents.observe(
                        &level(watch.id()),
                        &title,
                        now,
                        &Judgement::of("service level", verdict, reason),
                    );
                }
                Err(e) => failed = Some(e.to_string()),
            }
        }
        self.trouble("service levels cannot be read", failed);
    }

    async fn refresh_maintenance(&self, now: DateTime<Utc>) {
        let Some(ledger) = &self.ledger else { return };
        match ledger.maintenance(now - TimeDelta::minutes(1), now + TimeDelta::minutes(5)).await {
            Ok(windows) => {
                self.board.lock().unwrap_or_else(|e| e.into_inner()).maintenance = windows;
                self.trouble("windows of maintenance cannot be read", None);
            }
            Err(e) => self.trouble("windows of maintenance cannot be read", Some(e.to_string())),
        }
    }

    fn maintained(&self, now: DateTime<Utc>) -> Vec<String> {
        let board = self.board.lock().unwrap_or_else(|e| e.into_inner());
        let current: Vec<&Maintenance> = board.maintenance.iter().filter(|m| m.from <= now && now < m.to).collect();
        let covered = |id: &str| current.iter().any(|m| m.probe.as_deref().is_none_or(|p| p == id));
        self.watches.iter().map(|w| w.id()).filter(|id| covered(id)).map(str::to_owned).collect()
    }

    /// Forgets what is old; not where the clock says that weeks have passed since this was done last, for that may be the clock.
    async fn forget(&self, now: DateTime<Utc>) {
        const LAST: &str = "forgotten";
        let Some(ledger) = &self.ledger else { return };
        let outcome = async {
            let last = ledger.load(LAST).await?.and_then(|text| text.parse::<DateTime<Utc>>().ok());
            ledger.save(LAST, &now.to_rfc3339()).await?;
            if last.is_some_and(|last| (now - last).abs() <= TimeDelta::days(8)) {
                ledger.forget(now - TimeDelta::days(KEEP_DAYS)).await?;
            }
            Ok::<_, Error>(())
        };
        self.trouble("what is old was not forgotten", outcome.await.err().map(|e| e.to_string()));
    }

    /// Whether some look was taken within the time in which there should have been two, and outcomes are written down.
    fn is_alive(&self, now: DateTime<Utc>) -> bool {
        let board = self.board.lock().unwrap_or_else(|e| e.into_inner());
        let Some(shortest) = self.watches.iter().map(|w| w.every() + w.timeout()).min() else { return false };
        let limit = TimeDelta::from_std(shortest * 2).unwrap_or(TimeDelta::hours(1));
        let looked = board.last.values().any(|l| now - l.began <= limit);
        looked && !board.troubles.contains_key("outcomes were not written down")
    }

    fn put_on_board(&self, look: Look, incidents: &Incidents) {
        let mut board = self.board.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(state) = incidents.state(&look.probe) {
            board.states.insert(look.probe.clone(), state);
        }
        board.last.insert(look.probe.clone(), look);
    }

    fn show_incidents(&self, incidents: &Incidents) {
        self.board.lock().unwrap_or_else(|e| e.into_inner()).incidents = incidents.open().to_vec();
    }

    fn trouble(&self, what: &'static str, why: Option<String>) {
        let mut board = self.board.lock().unwrap_or_else(|e| e.into_inner());
        match why {
            Some(why) => {
                tracing::error!(why, "{what}");
                board.troubles.insert(what, why);
            }
            None => drop(board.troubles.remove(what)),
        }
    }
}

/// The worst of all; of one that had nothing to see yet, such as a payment, nothing follows.
fn worst(probes: &[ProbeStatus]) -> Verdict {
    let idle = |p: &&ProbeStatus| p.verdict.is_none() && p.last.as_ref().is_some_and(|l| l.judgement.is_idle());
    let known = probes.iter().filter(|p| !idle(p)).map(|p| p.verdict.unwrap_or(Verdict::Unknown));
    known.max_by_key(|v| v.rank()).unwrap_or(Verdict::Unknown)
}

/// The time in which a probe was down in an incident that people were told of.
fn told_of(incident: &IncidentRecord, probe: &str, now: DateTime<Utc>) -> Option<Maintenance> {
    let (from, to) = incident.was_down(probe, now).filter(|_| incident.was_told())?;
    Some(Maintenance { probe: Some(probe.to_owned()), from, to, reason: incident.id.clone() })
}

/// What the service level of a probe is called.
fn level(probe: &str) -> String {
    format!("slo:{probe}")
}
