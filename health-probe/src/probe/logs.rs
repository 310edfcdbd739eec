//! What logs say since the last look: errors, attacks, rates.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind, Result, file};
use crate::judge::{Condition, FailureRate, Limits, Policy};
use crate::logs::{Faults, Follower, Scan, Start, Traffic, TrafficOptions};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};
use crate::statistics::{median, poisson_at_least};

/// An access log (H8, H13): server errors, scanners, failed log-ins, rates; of the last hour, by the times of the lines.
///
/// Readings: `server errors` of `requests` (bots left out), critical where so many come about at 1 % with less than 1 % chance;
/// `failed logins of one address` (a warning from 20 an hour on, critical from 100), `of one subnet` (50, 200); `exposed`, paths
/// that only scanners ask for and that were answered with success (critical from one on); `unlikely rate`, the probability, in
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
/// Readings: `new errors`, groups that were never seen before this look (a warning from one on); `errors in the last hour` (a
/// warning from 50, critical from 500); `fatal in the last hour` (critical from 10); `lines lost`. Evidence names the groups.
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
            .below("failed logins of one address", Unit::Count, Limits::new(20.0, 100.0))
            .meaning("somebody guesses passwords")
            .below("failed logins of one subnet", Unit::Count, Limits::new(50.0, 200.0))
            .below("exposed", Unit::Count, Limits::critical(1.0))
            .meaning("the web server gives away what nobody should see")
            .above("unlikely rate", Unit::Percent, Limits::warning(0.0001))
            .meaning("many more requests than a day before")
            .below("unreadable", Unit::Percent, Limits::warning(5.0))
            .below("lines lost", Unit::Count, Limits::warning(1.0));
        let spec = ProbeSpec::new(id, policy).with_title(format!("access log {}", log.display()));
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
        let spec = ProbeSpec::new(id, policy).with_title(format!("error log {}", log.display()));
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
        let (scan, kept) = scan(&self.log, cx.now, |traffic, line, _| traffic.add(line)).await?;
        let mut seen = Observation::new(cx.now);
        let traffic = &kept.counted;
        let hour = traffic.between(cx.now - TimeDelta::minutes(60), cx.now + TimeDelta::minutes(1));
        seen.number("lines lost", f64::from(u8::from(scan.lost)), Unit::Count);
        seen.number("requests", f64::from(hour.requests), Unit::Count);
        match hour.requests {
            0 => drop_ref(seen.not_applicable("server errors", "nobody asked for anything")),
            _ => drop_ref(seen.number("server errors", f64::from(hour.errors), Unit::Count)),
        }
        let since = cx.now - TimeDelta::minutes(60);
        for (name, list) in [
            ("failed logins of one address", traffic.failed_logins_by_address(since)),
            ("failed logins of one subnet", traffic.failed_logins_by_subnet(since)),
        ] {
            seen.number(name, list.first().map_or(0.0, |(_, n)| f64::from(*n)), Unit::Count);
            for (who, n) in list.iter().take(3) {
                seen.evidence(format!("{n} failed log-ins by {who}"));
            }
        }
        seen.number("exposed", traffic.exposed.len() as f64, Unit::Count);
        for (path, n) in traffic.exposed.most(5) {
            seen.evidence(format!("{path} was given out {n} times"));
        }
        match unlikely(traffic, cx.now) {
            Some(p) => drop_ref(seen.number("unlikely rate", p * 100.0, Unit::Percent)),
            None => drop_ref(seen.not_applicable("unlikely rate", "there is no day before to compare with")),
        }
        match traffic.lines {
            0 => drop_ref(seen.not_applicable("unreadable", "there is no line")),
            lines => {
                seen.number("unreadable", traffic.unreadable as f64 / lines as f64 * 100.0, Unit::Percent);
            }
        }
        for (path, n) in traffic.error_paths.most(3) {
            seen.evidence(format!("{n} server errors at {path}"));
        }
        for (path, n) in traffic.not_found.most(3) {
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
        let first = self.log.lock().await.is_new();
        let (scan, kept) = scan(&self.log, cx.now, Errors::add).await?;
        let mut seen = Observation::new(cx.now);
        let errors = &kept.counted;
        seen.number("lines lost", f64::from(u8::from(scan.lost)), Unit::Count);
        // At the first look everything is new, which says nothing.
        let new: Vec<_> = if first { Vec::new() } else { errors.faults.new_since(cx.now - TimeDelta::nanoseconds(1)) };
        let new: Vec<_> = new.into_iter().filter(|f| f.level >= crate::logs::Level::Error).collect();
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

/// Faults, and how many errors came in each minute in which somebody looked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Errors {
    faults: Faults,
    minutes: std::collections::BTreeMap<i64, (u64, u64)>,
}

impl Errors {
    fn add(&mut self, line: &[u8], at: DateTime<Utc>) {
        let before = (self.faults.errors(), self.faults.by_level[3]);
        self.faults.add(line, at);
        let (all, fatal) = (self.faults.errors() - before.0, self.faults.by_level[3] - before.1);
        if all > 0 {
            let minute = self.minutes.entry(at.timestamp().div_euclid(60)).or_default();
            minute.0 += all;
            minute.1 += fatal;
            while self.minutes.len() > 120 {
                self.minutes.pop_first();
            }
        }
    }

    fn last_hour(&self, now: DateTime<Utc>) -> (u64, u64) {
        let from = (now - TimeDelta::minutes(60)).timestamp().div_euclid(60);
        self.minutes.range(from..).fold((0, 0), |sum, (_, m)| (sum.0 + m.0, sum.1 + m.1))
    }
}

/// What is counted and up to where, in one file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept<T> {
    #[serde(skip)]
    state: PathBuf,
    follower: Follower,
    counted: T,
    #[serde(skip)]
    loaded: bool,
}

impl<T: Clone + Serialize + serde::de::DeserializeOwned> Kept<T> {
    fn new(log: PathBuf, state: PathBuf, counted: T) -> Self {
        Self { state, follower: Follower::new(log, Start::File), counted, loaded: false }
    }

    /// Whether nothing was kept of it yet.
    fn is_new(&self) -> bool {
        !self.loaded && !self.state.exists()
    }

    fn load(&mut self) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        match std::fs::read(&self.state) {
            Ok(bytes) => {
                let kept: Self = serde_json::from_slice(&bytes).map_err(|e| {
                    Error::new(ErrorKind::Malformed, format!("{}: is not what was kept of a log", self.state.display()))
                        .with_next_step("delete it, to begin anew")
                        .with_source(e)
                })?;
                if kept.follower.path() == self.follower.path() {
                    (self.follower, self.counted) = (kept.follower, kept.counted);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(file(&self.state, "cannot be read", e)),
        }
        self.loaded = true;
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let wrong = |e| file(&self.state, "cannot be written", e);
        let bytes = serde_json::to_vec(self).map_err(|e| {
            Error::new(ErrorKind::Storage, format!("{}: cannot be written as JSON", self.state.display()))
                .with_source(e)
        })?;
        let beside = self.state.with_extension("new");
        let mut out = std::fs::File::create(&beside).map_err(wrong)?;
        std::io::Write::write_all(&mut out, &bytes).and_then(|()| out.sync_all()).map_err(wrong)?;
        std::fs::rename(&beside, &self.state).map_err(wrong)
    }
}

/// Reads on, and keeps what was counted; on an error, everything stands where it stood.
async fn scan<T>(
    log: &Arc<Mutex<Kept<T>>>,
    now: DateTime<Utc>,
    add: impl Fn(&mut T, &[u8], DateTime<Utc>) + Send + 'static,
) -> Result<(Scan, Kept<T>)>
where
    T: Clone + Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    let mut guard = Arc::clone(log).lock_owned().await;
    let work = move || {
        guard.load()?;
        let mut next = guard.clone();
        let mut tries = 0;
        let scan = loop {
            let mut counted = guard.counted.clone();
            let mut follower = guard.follower.clone();
            match follower.scan(now, |line| add(&mut counted, line, now)) {
                Ok(scan) => {
                    (next.follower, next.counted) = (follower, counted);
                    break scan;
                }
                // It was rotated meanwhile.
                Err(e) if e.is_retryable() && tries < 3 => tries += 1,
                Err(e) => return Err(e),
            }
        };
        next.save()?;
        *guard = next.clone();
        Ok((scan, next))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Panicked, "the reading of a log ended early").with_source(e))?
}

fn drop_ref(_: &mut Observation) {}
