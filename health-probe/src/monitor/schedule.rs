//! One look, and looks at their times.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::judge::{Judgement, judge};
use crate::ledger::{Record, Slot};
use crate::observation::Observation;
use crate::probe::{Context, Probe};
use crate::slo::Objective;

/// Between a look and one that is asked for; less where the schedule itself looks more often.
const BETWEEN: TimeDelta = TimeDelta::seconds(60);

/// The time of day, and its passing.
#[derive(Debug, Clone)]
pub struct Clock {
    base: Option<(DateTime<Utc>, tokio::time::Instant)>,
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self { base: None }
    }

    /// A clock that shows `now` at this moment and goes on with the timer of tokio: in a test with a paused timer, as fast as
    /// there is nothing to do.
    pub fn starting_at(now: DateTime<Utc>) -> Self {
        Self { base: Some((now, tokio::time::Instant::now())) }
    }

    /// What it shows.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.base {
            None => Utc::now(),
            Some((base, began)) => *base + TimeDelta::from_std(began.elapsed()).unwrap_or(TimeDelta::zero()),
        }
    }
}

/// A probe and how often it looks.
#[derive(Debug)]
pub struct Watch {
    probe: Arc<dyn Probe>,
    every: Duration,
    timeout: Duration,
    depends_on: Vec<String>,
    objective: Option<Objective>,
}

impl Watch {
    /// Looks so often, in whole seconds. A look has a minute: more than the probes themselves take, so that it is they who say what
    /// did not answer. One that takes longer than the interval leaves the slots out that it fills.
    pub fn new(probe: impl Probe + 'static, every: Duration) -> Self {
        let every = Duration::from_secs(every.as_secs().clamp(1, 86_400));
        let timeout = Duration::from_secs(60);
        Self { probe: Arc::new(probe), every, timeout, depends_on: Vec::new(), objective: None }
    }

    /// The same with another limit for a look.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same that depends on these probes: while one of them is down, it is not told of apart.
    #[must_use]
    pub fn after(mut self, probes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.depends_on.extend(probes.into_iter().map(Into::into));
        self
    }

    /// The same that depends on nothing: for a set that leaves out what it depends on.
    #[must_use]
    pub fn without_dependencies(mut self) -> Self {
        self.depends_on.clear();
        self
    }

    /// The same with a service level objective.
    #[must_use]
    pub fn with_objective(mut self, objective: Objective) -> Self {
        self.objective = Some(objective);
        self
    }

    /// The probe's name.
    pub fn id(&self) -> &str {
        &self.probe.spec().id
    }

    /// What people call it.
    pub fn title(&self) -> &str {
        &self.probe.spec().title
    }

    /// The probe.
    pub fn probe(&self) -> &Arc<dyn Probe> {
        &self.probe
    }

    /// How often it looks.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// How long a look may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What it depends on, directly.
    pub fn depends_on(&self) -> &[String] {
        &self.depends_on
    }

    /// Its objective, where it has one.
    pub fn objective(&self) -> Option<&Objective> {
        self.objective.as_ref()
    }

    /// Looks once, now.
    pub async fn look_now(&self, now: DateTime<Utc>) -> Look {
        self.look(now, now, &mut None).await
    }

    /// One look that was due at `due` and begins at `began`. It runs in a task of its own, so that neither a panic nor a hang
    /// is more than a verdict; `hanging` is the task of a look that did not end when it was told to.
    pub(super) async fn look(
        &self,
        due: DateTime<Utc>,
        began: DateTime<Utc>,
        hanging: &mut Option<JoinHandle<()>>,
    ) -> Look {
        let timer = tokio::time::Instant::now();
        let end = |seen: Option<Observation>, judgement: Judgement| Look {
            probe: self.id().to_owned(),
            title: self.title().to_owned(),
            due,
            began,
            every: self.every,
            took: timer.elapsed(),
            response_time: seen.as_ref().and_then(|s| self.response_time(s)),
            seen,
            judgement,
            asked_for: false,
        };
        if hanging.as_ref().is_some_and(|task| !task.is_finished()) {
            return end(None, Judgement::unknown("the look before this one hangs and cannot be ended"));
        }
        *hanging = None;
        let probe = Arc::clone(&self.probe);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            // Nobody waits for it any more where it took too long.
            let _ = sender.send(probe.observe(&Context::at(began)).await);
        });
        let mut task = EndsWithMe(Some(task));
        match tokio::time::timeout(self.timeout, receiver).await {
            Ok(Ok(Ok(mut seen))) => {
                let judgement = judge(&seen, &self.probe.spec().policy).shown();
                seen.show();
                end(Some(seen), judgement)
            }
            Ok(Ok(Err(e))) => {
                let next = e.next_step().map(|n| format!(" (next: {n})")).unwrap_or_default();
                end(None, Judgement::unknown(format!("{e}{next}")).shown())
            }
            Ok(Err(_)) => end(None, Judgement::unknown("the probe panicked")),
            Err(_) => {
                *hanging = task.0.take().inspect(JoinHandle::abort);
                end(None, Judgement::unknown(format!("did not end within {} s", self.timeout.as_secs_f64())))
            }
        }
    }

    /// Looks in every slot of its interval, at a moment of the slot that its name decides: many probes are spread evenly, and
    /// each has its own rhythm. What could not begin in its slot is left out. Where `asked` says so it looks between its slots as
    /// well, for what depends on it fails; such a look is none that was expected, and the ledger is not told.
    pub(super) async fn keep_looking(
        self: Arc<Self>,
        clock: Clock,
        permits: Arc<Semaphore>,
        asked: Arc<Notify>,
        looks: mpsc::Sender<Look>,
    ) {
        let every = TimeDelta::from_std(self.every).unwrap_or(TimeDelta::seconds(60));
        let offset = TimeDelta::milliseconds((spread(self.id()) % self.every.as_millis().max(1) as u64) as i64);
        let mut hanging = None;
        let mut last: Option<DateTime<Utc>> = None;
        let mut newest: Option<DateTime<Utc>> = None;
        // What is looked at once a day is known within a minute all the same.
        let first = Duration::from_millis(spread(self.id()) % BETWEEN.num_milliseconds().unsigned_abs().max(1));
        if self.every > first {
            tokio::time::sleep(first).await;
            asked.notify_one();
        }
        loop {
            let now = clock.now();
            let slot = now.timestamp().div_euclid(every.num_seconds()) * every.num_seconds();
            let slot = DateTime::from_timestamp(slot, 0).unwrap_or(now);
            let mut due = slot + offset;
            // A clock that was set back does not stop the looks.
            if last.is_some_and(|last| last > now + every * 2) {
                last = None;
            }
            // Not twice in one slot, and not in one whose moment has passed.
            while due < now || last.is_some_and(|last| due <= last) {
                due += every;
            }
            let wait = (due - now).to_std().unwrap_or(Duration::ZERO);
            let quiet =
                newest.map_or(Duration::ZERO, |n| (n + BETWEEN.min(every) - now).to_std().unwrap_or(Duration::ZERO));
            let called = async {
                tokio::time::sleep(quiet).await;
                asked.notified().await;
            };
            // One that is due so soon needs no call.
            let in_slot = tokio::select! {
                () = tokio::time::sleep(wait) => true,
                () = called, if wait > quiet => false,
            };
            let slot_due = due;
            if !in_slot {
                due = clock.now();
            }
            let Ok(permit) = permits.acquire().await else { return };
            let began = clock.now();
            let mut look = self.look(due, began, &mut hanging).await;
            drop(permit);
            newest = Some(began);
            // One that was asked for and lasted until the slot's moment stands for the slot.
            look.asked_for = !in_slot && clock.now() < slot_due;
            if !look.asked_for {
                look.due = slot_due;
                last = Some(slot_due);
            }
            // What was asked for meanwhile has been looked at.
            let _ = tokio::time::timeout(Duration::ZERO, asked.notified()).await;
            if looks.send(look).await.is_err() {
                return;
            }
        }
    }

    fn response_time(&self, seen: &Observation) -> Option<Duration> {
        let reading = self.probe.spec().response_time.as_deref()?;
        Duration::try_from_secs_f64(seen.finite(reading)?).ok()
    }
}

/// One look and what it came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Look {
    /// The probe.
    pub probe: String,
    /// What people call it.
    pub title: String,
    /// When it was due.
    pub due: DateTime<Utc>,
    /// When it began.
    pub began: DateTime<Utc>,
    /// Seconds between looks.
    #[serde(with = "crate::observation::seconds", rename = "every_s")]
    pub every: Duration,
    /// How long it took.
    #[serde(with = "crate::observation::seconds", rename = "took_s")]
    pub took: Duration,
    /// What was seen; `None` where nothing could be.
    pub seen: Option<Observation>,
    /// How it is judged.
    pub judgement: Judgement,
    /// Its response time.
    #[serde(skip)]
    pub response_time: Option<Duration>,
    /// Whether it is one between those of the schedule, because what depends on it fails.
    #[serde(skip)]
    pub asked_for: bool,
}

impl Look {
    /// What the ledger is told.
    pub fn record(&self) -> Record {
        Record {
            probe: self.probe.clone(),
            at: self.due,
            every: self.every,
            outcome: Slot::from(self.judgement.verdict),
            response_time: self.response_time,
        }
    }
}

struct EndsWithMe(Option<JoinHandle<()>>);

impl Drop for EndsWithMe {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// FNV-1a: the same in every process.
fn spread(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
