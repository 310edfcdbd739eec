//! What the monitor's ledger proves: that somebody looks, and that alerts arrive.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use health_probe::ledger::{Ledger, View};

use super::Looks;
use crate::error::{Error, ErrorKind, Result};
use crate::item::{Check, Context, Tier};
use crate::outcome::{Finding, Place};

/// The key under which the ledger keeps when a test alert was delivered last, as RFC 3339.
pub const ALERTS_TESTED: &str = "alerts-tested";

/// A monitor: its ledger, and which of its probes are of which kind.
#[derive(Debug)]
#[non_exhaustive]
pub struct Monitored {
    ledger: Arc<dyn Ledger>,
    /// Probes over HTTP.
    pub http: Vec<String>,
    /// Probes of pages, and others that have response times.
    pub pages: Vec<String>,
    /// Probes of access logs.
    pub access_logs: Vec<String>,
    /// Probes of error logs.
    pub error_logs: Vec<String>,
    /// Probes of log-ins.
    pub login_logs: Vec<String>,
}

impl Monitored {
    /// That ledger; its probes are named afterwards.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        let none = Vec::new;
        Self { ledger, http: none(), pages: none(), access_logs: none(), error_logs: none(), login_logs: none() }
    }

    /// Whether one of these looked in nine of ten of the slots of the last day.
    async fn looked(&self, probes: &[String], what: &str, now: DateTime<Utc>) -> Result<Finding> {
        if probes.is_empty() {
            return Ok(Finding::fail(format!("no probe of {what} is set up")).at("caretaker.toml", None, what));
        }
        let (mut best, from) = (None::<(f64, String)>, now - TimeDelta::hours(24));
        for probe in probes {
            let timeline = self.ledger.timeline(probe, from, now).await.map_err(unreadable)?;
            let counts = timeline.count(from, now, &[], View::Strict);
            let (seen, expected) = (counts.good + counts.bad, counts.expected());
            // A probe that began an hour ago has not looked for a day.
            let share = if expected == 0 { 0.0 } else { seen as f64 / expected as f64 };
            if best.as_ref().is_none_or(|(most, _)| share > *most) {
                best = Some((share, probe.clone()));
            }
        }
        let (share, probe) = best.unwrap_or_default();
        let text = format!("{probe} looked in {:.0} % of the slots of the last day", share * 100.0);
        Ok(match share {
            s if s >= 0.9 => Finding::pass(text).with_fact(probe),
            0.0 => Finding::fail(format!("no probe of {what} saw anything in the last day"))
                .with_places(probes.iter().map(|p| Place::new(p.clone(), None, "saw nothing"))),
            _ => Finding::warn(text).at(probe, None, "misses looks"),
        })
    }
}

fn unreadable(e: health_probe::Error) -> Error {
    let next = e.next_step().unwrap_or("see whether `probe watch` runs").to_owned();
    Error::new(ErrorKind::Storage, format!("the monitor's ledger: {e}")).with_next_step(next).with_source(e)
}

type Look = fn(Arc<Monitored>, Context) -> BoxFuture<'static, Result<Finding>>;

/// The checks of a monitor; without one, each of them is unknown.
pub fn checks(monitored: Option<Arc<Monitored>>) -> Vec<Arc<dyn Check>> {
    let all: [(&str, &str, Look); 6] = [
        ("monitor.uptime", "monitoring.uptime", |m, cx| {
            async move { m.looked(&m.http, "the shop over HTTP", cx.now).await }.boxed()
        }),
        ("monitor.performance", "monitoring.performance", |m, cx| {
            async move { m.looked(&m.pages, "pages", cx.now).await }.boxed()
        }),
        ("monitor.looks", "monitoring.errors", |m, cx| {
            async move { m.looked(&m.error_logs, "an error log", cx.now).await }.boxed()
        }),
        ("monitor.traffic", "monitoring.alerts", |m, cx| {
            async move { m.looked(&m.access_logs, "an access log", cx.now).await }.boxed()
        }),
        ("monitor.logins", "monitoring.failed-logins", |m, cx| {
            async move { m.looked(&m.login_logs, "log-ins", cx.now).await }.boxed()
        }),
        ("monitor.alerts", "monitoring.alerts", |m, cx| async move { alerts(&m, cx.now).await }.boxed()),
    ];
    let one = |(id, item, look)| {
        let at = monitored.clone();
        let check = Looks { id, item, tier: Tier::AuthenticatedRead, look, at, missing: "a monitor's ledger" };
        Arc::new(check) as Arc<dyn Check>
    };
    all.into_iter().map(one).collect()
}

/// A test message was delivered within the last month.
async fn alerts(monitored: &Monitored, now: DateTime<Utc>) -> Result<Finding> {
    let tested = monitored.ledger.load(ALERTS_TESTED).await.map_err(unreadable)?;
    let tested = tested.and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    let happened = tested.map_or(now, |at| at.to_utc());
    Ok(match tested.map(|at| (now - at.to_utc()).num_days()) {
        None => Finding::fail("no test alert was ever delivered").at("alerts", None, "run `probe test-alerts`"),
        Some(days @ 0..=35) => Finding::pass(format!("a test alert was delivered {days} days ago"))
            .with_fact("delivered")
            .with_time(happened),
        Some(days) => Finding::fail(format!("the last test alert was delivered {days} days ago")).at(
            "alerts",
            None,
            "run `probe test-alerts`",
        ),
    })
}
