//! What logs say since the last look: errors, attacks, rates.

mod kept;
mod logins;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::error::Result;
use crate::judge::{Condition, FailureRate, Limits, Policy};
use crate::logs::{Faults, Level, LineTime, LogMessage, Traffic, TrafficOptions};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};
use crate::statistics::{median, poisson_at_least};
use kept::{Counted, Kept, scan};

pub use logins::LoginLogProbe;

/// An access log (H8, H13): server errors, scanners, failed log-ins, rates; of the last hour, by the times of the lines.
///
/// Readings: `server errors` of `requests` (bots left out), critical where so many come about at 1 % with less than 1 % chance;
/// `failed logins` (a warning from 100 an hour on, critical from 1,000), `of one account` (10, 50; by the names that the server
/// itself asks passwords for, and see [`LoginLogProbe`]), `of one address` (20, 100), `of one subnet` (50, 200); `scanners`, requests that nobody else makes (a
/// warning from 2,000); `exposed`, paths that only scanners ask for and that were answered with success (critical from one on;
/// a server that answers any path with one page of one length gives nothing away); `not found`, with the most frequent paths as
/// evidence; `newest line age`, unknown until there ever was a line; `unlikely rate`, the probability, in
/// percent, of as many requests in the last five minutes as there were if the day before is the rule, as a warning below one
/// in a million; `unreadable` lines, in percent; `lines lost`.
///
/// What was counted and up to where is kept in one file, replaced by a rename: killed at any moment, nothing counts twice.
pub struct AccessLogProbe {
    spec: ProbeSpec,
    log: Arc<Mutex<Kept<Traffic>>>,
}

/// An error log (H4), of PHP, Next.js, nginx, Apache: what is new in it, and how much.
///
/// Readings: `new errors`, groups that were seen first within the last hour, and not at the first look of all (a warning from one
/// on); `errors in the last hour` (a warning from 50, critical from 500); `fatal in the last hour` (critical from 10); `lines
/// lost`. Evidence names the groups. An hour is one of the lines' own times where they say them with a zone, or with one that fits
/// this machine's; else of the looks. What strangers cause is none of these: see [`LogMessage::parse`]. An error log is silent
/// where all is well: that PHP writes to it is for its settings to say (`error_log`, `catch_workers_output`).
pub struct ErrorLogProbe {
    spec: ProbeSpec,
    log: Arc<Mutex<Kept<Errors>>>,
}

impl fmt::Debug for AccessLogProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLogProbe").field("id", &self.spec.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for ErrorLogProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorLogProbe").field("id", &self.spec.id).finish_non_exhaustive()
    }
}

impl AccessLogProbe {
    /// That log; what is known of it is kept in the file `state`.
    pub fn new(
        id: impl Into<String>,
        log: impl Into<PathBuf>,
        state: impl Into<PathBuf>,
        options: TrafficOptions,
    ) -> Self {
        let log = log.into();
        let rate = FailureRate { attempts: "requests".into(), tolerated: 0.01, significance: 0.01, streak: None };
        let policy = Policy::new()
            .with("server errors", Unit::Count, Condition::FailureRate(rate))
            .below("newest line age", Unit::Seconds, Limits::warning(86_400.0))
            .meaning("the server writes elsewhere, or nobody comes")
            .below("exposed", Unit::Count, Limits::critical(1.0))
            .meaning("the web server gives away what nobody should see")
            .above("unlikely rate", Unit::Percent, Limits::warning(0.0001))
            .meaning("many more requests than a day before")
            .below("unreadable", Unit::Percent, Limits::warning(5.0))
            .below("scanners", Unit::Count, Limits::warning(2_000.0))
            .below("lines lost", Unit::Count, Limits::warning(1.0));
        let policy = logins::limits(policy);
        let spec = ProbeSpec::new(id, policy);
        Self { spec, log: Arc::new(Mutex::new(Kept::new(log, state.into(), Traffic::new(options)))) }
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }
}

impl ErrorLogProbe {
    /// That log; what is known of it is kept in the file `state`.
    pub fn new(id: impl Into<String>, log: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        let log = log.into();
        let policy = Policy::new()
            .below("new errors", Unit::Count, Limits::warning(1.0))
            .below("errors in the last hour", Unit::Count, Limits::new(50.0, 500.0))
            .below("fatal in the last hour", Unit::Count, Limits::critical(10.0))
            .below("lines lost", Unit::Count, Limits::warning(1.0));
        let spec = ProbeSpec::new(id, policy);
        Self { spec, log: Arc::new(Mutex::new(Kept::new(log, state.into(), Errors::default()))) }
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }
}

#[async_trait]
impl Probe for AccessLogProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let before = {
            let guard = self.log.lock().await;
            (guard.counted.lines, guard.counted.unreadable)
        };
        let (scan, kept) = scan(&self.log, cx.now, |traffic, line, _| traffic.add(line)).await?;
        let mut seen = Observation::new(cx.now);
        let traffic = &kept.counted;
        let hour = traffic.between(cx.now - TimeDelta::minutes(60), cx.now + TimeDelta::minutes(1));
        seen.number("lines lost", kept.lost_lately(&scan, cx.now), Unit::Count);
        seen.number("requests", f64::from(hour.requests), Unit::Count);
        match hour.requests {
            0 => {
                seen.not_applicable("server errors", "nobody asked for anything");
            }
            _ => {
                seen.number("server errors", f64::from(hour.errors), Unit::Count);
            }
        }
        let since = cx.now - TimeDelta::minutes(60);
        logins::read(&mut seen, &traffic.failed_logins, since, true);
        seen.number("scanners", f64::from(hour.scanners), Unit::Count);
        match traffic.newest() {
            Some(newest) => {
                seen.number("newest line age", (cx.now - newest).as_seconds_f64().max(0.0), Unit::Seconds);
            }
            None => {
                seen.evidence("there was never a line with a time in it: the server may write elsewhere");
            }
        }
        seen.number("not found", f64::from(hour.not_found), Unit::Count);
        seen.number("exposed", traffic.exposed_since(since) as f64, Unit::Count);
        for (path, n) in traffic.exposed.most(5) {
            seen.evidence(format!("{path} was given out {n} times"));
        }
        match unlikely(traffic, cx.now) {
            Some(p) => {
                seen.number("unlikely rate", p * 100.0, Unit::Percent);
            }
            None => {
                seen.not_applicable("unlikely rate", "there is no day before to compare with");
            }
        }
        // Of what is new: a format that was changed must not hide behind millions of good lines.
        match traffic.lines.saturating_sub(before.0) {
            0 => {
                seen.not_applicable("unreadable", "there is no new line");
            }
            lines => {
                let unreadable = traffic.unreadable.saturating_sub(before.1);
                seen.number("unreadable", unreadable as f64 / lines as f64 * 100.0, Unit::Percent);
            }
        }
        for (path, n) in traffic.error_paths_since(since).iter().take(5) {
            seen.evidence(format!("{n} server errors at {path}"));
        }
        for (path, n) in traffic.not_found_since(since).iter().take(10) {
            seen.evidence(format!("{n} times not found: {path}"));
        }
        Ok(seen)
    }
}

/// The probability of so many requests in the last five minutes, if the median of the day's five minutes is the rule.
fn unlikely(traffic: &Traffic, now: DateTime<Utc>) -> Option<f64> {
    let five = TimeDelta::minutes(5);
    let rates: Vec<f64> = (1..=288)
        .map(|i| traffic.between(now - five * (i + 1), now - five * i))
        .map(|m| f64::from(m.requests + m.bots))
        .collect();
    let expected = median(&rates).filter(|m| *m > 0.0)?;
    let last = traffic.between(now - five, now);
    // Traffic varies by more than chance alone: three times the median is still the rule.
    poisson_at_least(u64::from(last.requests + last.bots), expected * 3.0)
}

#[async_trait]
impl Probe for ErrorLogProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let (scan, kept) = scan(&self.log, cx.now, Errors::add).await?;
        let mut seen = Observation::new(cx.now);
        let errors = &kept.counted;
        seen.number("lines lost", kept.lost_lately(&scan, cx.now), Unit::Count);
        // At the first look everything is new, which says nothing. What is new stays so for an hour, so that a second look
        // confirms it.
        let since = errors.began.map_or(cx.now, |began| began.max(cx.now - TimeDelta::minutes(60)));
        let new = errors.faults.new_since(since).into_iter();
        let new: Vec<_> = new.filter(|f| f.level >= Level::Error).collect();
        seen.number("new errors", new.len() as f64, Unit::Count);
        for fault in new.iter().take(10) {
            seen.evidence(format!("new: {} ({} times)", fault.example, fault.count));
        }
        let (all, fatal) = errors.last_hour(cx.now);
        seen.number("errors in the last hour", all as f64, Unit::Count);
        seen.number("fatal in the last hour", fatal as f64, Unit::Count);
        for fault in errors.faults.groups().into_iter().take(5) {
            seen.evidence(format!("{} times: {}", fault.count, fault.template));
        }
        Ok(seen)
    }
}

/// Faults, and how many errors came in each minute.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Errors {
    /// When the first look ended.
    #[serde(default)]
    began: Option<DateTime<Utc>>,
    /// When the last one did.
    #[serde(default)]
    last: Option<DateTime<Utc>>,
    faults: Faults,
    minutes: std::collections::BTreeMap<i64, (u64, u64)>,
}

impl Errors {
    fn add(&mut self, line: &[u8], now: DateTime<Utc>) {
        let line = String::from_utf8_lossy(&line[..line.len().min(16 * 1024)]);
        let message = LogMessage::parse(&line);
        self.faults.add_message(&message, now);
        let Some(level) = message.level.filter(|level| *level >= Level::Error) else { return };
        let Some(at) = self.at(&message, now) else { return };
        let minute = self.minutes.entry(at.timestamp().div_euclid(60)).or_default();
        minute.0 += 1;
        minute.1 += u64::from(level == Level::Fatal);
        while self.minutes.len() > 120 {
            self.minutes.pop_first();
        }
    }

    /// When it was. A time without a zone is one of this machine's, where that lies between the last look and now; else, as of a
    /// line without a time, it is now. What the first look finds without a sure time may be years old.
    fn at(&self, message: &LogMessage<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let slack = TimeDelta::minutes(5);
        let sure = match message.time {
            Some(LineTime::At(at)) => Some(at),
            Some(LineTime::Local(at)) => at
                .and_local_timezone(chrono::Local)
                .earliest()
                .map(|at| at.to_utc())
                .filter(|at| self.last.is_some_and(|last| *at >= last - slack)),
            None => None,
        };
        // A clock that is ahead by more than that is no clock.
        sure.filter(|at| *at <= now + slack).or(self.began.map(|_| now))
    }

    fn last_hour(&self, now: DateTime<Utc>) -> (u64, u64) {
        let from = (now - TimeDelta::minutes(60)).timestamp().div_euclid(60);
        self.minutes.range(from..).fold((0, 0), |sum, (_, m)| (sum.0 + m.0, sum.1 + m.1))
    }
}

impl Counted for Traffic {
    fn adopt(&self, kept: Self) -> Self {
        kept.with_options(self.options().clone())
    }

    fn looked(&mut self, _now: DateTime<Utc>) -> bool {
        false
    }
}

impl Counted for Errors {
    fn adopt(&self, kept: Self) -> Self {
        kept
    }

    fn looked(&mut self, now: DateTime<Utc>) -> bool {
        let first = self.began.is_none();
        self.began.get_or_insert(now);
        self.last = Some(now);
        first
    }
}
