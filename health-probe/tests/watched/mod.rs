//! What the tests of the monitor share: probes with a switch, somebody who is told, a ledger that takes no time.

#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use health_probe::alert::{Alerter, Route};
use health_probe::ledger::{HourOfResponses, Ledger, Maintenance, Record, SqliteLedger, Timeline};
use health_probe::notify::Notifier;
use health_probe::{
    ErrorKind, IncidentRecord, Message, MessageKind, Observation, Policy, Probe, ProbeSpec, Result, Verdict, probe_fn,
};

pub(crate) fn switch(id: &str, up: &Arc<AtomicBool>) -> impl Probe + use<> {
    let up = Arc::clone(up);
    let spec = ProbeSpec::new(id, Policy::new().is("up", true, Verdict::Critical));
    probe_fn(spec, move |cx| {
        let up = up.load(Ordering::SeqCst);
        async move {
            let mut seen = Observation::new(cx.now);
            seen.flag("up", up);
            Ok(seen)
        }
    })
}

/// Somebody who is told, or does not listen.
#[derive(Debug)]
pub(crate) struct Inbox {
    name: &'static str,
    pub(crate) messages: Mutex<Vec<Message>>,
    pub(crate) broken: AtomicBool,
    pub(crate) hangs: AtomicBool,
    pub(crate) tried: AtomicU32,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::named("inbox")
    }
}

impl Inbox {
    pub(crate) fn named(name: &'static str) -> Self {
        let no = || AtomicBool::new(false);
        Self { name, messages: Mutex::default(), broken: no(), hangs: no(), tried: AtomicU32::new(0) }
    }

    /// What came, and about what.
    pub(crate) fn said(&self) -> Vec<(MessageKind, String)> {
        self.messages.lock().unwrap().iter().map(|m| (m.kind, m.incident.root.clone())).collect()
    }
}

#[async_trait]
impl Notifier for Inbox {
    fn name(&self) -> &str {
        self.name
    }

    async fn notify(&self, message: &Message) -> Result<()> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.broken.load(Ordering::SeqCst) {
            return Err(health_probe::Error::new(ErrorKind::Denied, "the inbox is full"));
        }
        self.messages.lock().unwrap().push(message.clone());
        Ok(())
    }
}

/// Signs of life, counted.
#[derive(Debug)]
pub(crate) struct Beats(pub(crate) Arc<AtomicU32>);

#[async_trait]
impl health_probe::Heartbeat for Beats {
    async fn beat(&self) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// A ledger whose calls end before anything else goes on: a paused clock would run while another thread is waited for.
#[derive(Debug)]
pub(crate) struct AtOnce(SqliteLedger);

/// Runs it to its end on threads of its own, while this one waits.
fn block_on<T: Send>(call: impl Future<Output = T> + Send) -> T {
    static ELSEWHERE: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());
    std::thread::scope(|s| s.spawn(|| ELSEWHERE.block_on(call)).join().unwrap())
}

impl AtOnce {
    pub(crate) fn ledger() -> Arc<dyn Ledger> {
        Arc::new(Self(block_on(SqliteLedger::in_memory()).unwrap()))
    }
}

#[async_trait]
impl Ledger for AtOnce {
    async fn record(&self, records: &[Record]) -> Result<()> {
        block_on(self.0.record(records))
    }
    async fn retire(&self, probe: &str, at: DateTime<Utc>) -> Result<()> {
        block_on(self.0.retire(probe, at))
    }
    async fn add_maintenance(&self, window: &Maintenance) -> Result<()> {
        block_on(self.0.add_maintenance(window))
    }
    async fn maintenance(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<Maintenance>> {
        block_on(self.0.maintenance(from, to))
    }
    async fn probes(&self) -> Result<Vec<String>> {
        block_on(self.0.probes())
    }
    async fn timeline(&self, probe: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Timeline> {
        block_on(self.0.timeline(probe, from, to))
    }
    async fn response_times(&self, p: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<HourOfResponses>> {
        block_on(self.0.response_times(p, from, to))
    }
    async fn put_incident(&self, incident: &IncidentRecord) -> Result<()> {
        block_on(self.0.put_incident(incident))
    }
    async fn incidents(&self, from: DateTime<Utc>) -> Result<Vec<IncidentRecord>> {
        block_on(self.0.incidents(from))
    }
    async fn save(&self, key: &str, value: &str) -> Result<()> {
        block_on(self.0.save(key, value))
    }
    async fn load(&self, key: &str) -> Result<Option<String>> {
        block_on(self.0.load(key))
    }
    async fn forget(&self, before: DateTime<Utc>) -> Result<()> {
        block_on(self.0.forget(before))
    }
}

pub(crate) fn noon() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-01-15T12:00:00Z").unwrap().to_utc()
}

pub(crate) fn alerter(inbox: &Arc<Inbox>) -> Alerter {
    let notifier: Arc<dyn Notifier> = inbox.clone();
    Alerter::new(vec![notifier], vec![Route::new(Verdict::Unknown, ["inbox"])]).unwrap()
}
