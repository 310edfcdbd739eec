//! Guessed passwords, by what an application logs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::kept::{Counted, Kept, scan};
use crate::error::Result;
use crate::judge::{Limits, Policy};
use crate::logs::{FailedLogins, LoginFailure};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

/// The log in which an application says who could not log in (H8): JSON lines or text, as [`LoginFailure`] reads them.
///
/// Readings of the last hour, as of [`super::AccessLogProbe`]: `failed logins`, `of one account`, `of one address`, `of one subnet`; `lines lost`.
/// Until a first failure was ever recognised, they are missing and the verdict is unknown: a log without one says as well that
/// nobody writes them down. Type a wrong password once. What no failure of the hour names, account or address, is missing as well. Accounts are shown as [`crate::logs::masked`] does.
pub struct LoginLogProbe {
    spec: ProbeSpec,
    log: Arc<Mutex<Kept<Logins>>>,
}

impl fmt::Debug for LoginLogProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginLogProbe").field("id", &self.spec.id).finish_non_exhaustive()
    }
}

impl LoginLogProbe {
    /// That log; what is known of it is kept in the file `state`.
    pub fn new(id: impl Into<String>, log: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        let log = log.into();
        let policy = limits(Policy::new()).below("lines lost", Unit::Count, Limits::warning(1.0));
        let spec = ProbeSpec::new(id, policy);
        Self { spec, log: Arc::new(Mutex::new(Kept::new(log, state.into(), Logins::default()))) }
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }
}

#[async_trait]
impl Probe for LoginLogProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let (scan, kept) = scan(&self.log, cx.now, Logins::add).await?;
        let mut seen = Observation::new(cx.now);
        seen.number("lines lost", kept.lost_lately(&scan, cx.now), Unit::Count);
        match kept.counted.recognised {
            true => read(&mut seen, &kept.counted.failed, cx.now - TimeDelta::minutes(60), false),
            false => {
                seen.evidence(
                    "no line was ever recognised as a failed log-in: type a wrong password once, and look again",
                );
            }
        }
        Ok(seen)
    }
}

/// From when on somebody guesses passwords.
pub(super) fn limits(policy: Policy) -> Policy {
    policy
        .below("failed logins", Unit::Count, Limits::new(100.0, 1_000.0))
        .below("failed logins of one account", Unit::Count, Limits::new(10.0, 50.0))
        .meaning("somebody guesses the password of an account")
        .below("failed logins of one address", Unit::Count, Limits::new(20.0, 100.0))
        .meaning("somebody guesses passwords")
        .below("failed logins of one subnet", Unit::Count, Limits::new(50.0, 200.0))
}

/// The readings. What no failure names is not known; where `may_lack`, it does not apply.
pub(super) fn read(seen: &mut Observation, failed: &FailedLogins, since: DateTime<Utc>, may_lack: bool) {
    let (all, (accounts, addresses)) = (failed.since(since), failed.named_since(since));
    seen.number("failed logins", all as f64, Unit::Count);
    for (name, list, named) in [
        ("failed logins of one account", failed.by_account(since), accounts),
        ("failed logins of one address", failed.by_address(since), addresses),
        ("failed logins of one subnet", failed.by_subnet(since), addresses),
    ] {
        match list.first() {
            Some((_, n)) => {
                seen.number(name, f64::from(*n), Unit::Count);
            }
            None if may_lack => {
                seen.not_applicable(name, "no failed log-in names one");
            }
            None if all == 0 => {
                seen.number(name, 0.0, Unit::Count);
            }
            None => {}
        }
        if named * 2 < all && !may_lack {
            seen.evidence(format!("only {named} of {all} failed log-ins say: {name}"));
        }
        for (who, n) in list.iter().take(3) {
            seen.evidence(format!("{n} failed log-ins: {who}"));
        }
    }
}

/// What is kept of such a log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Logins {
    /// When the first look ended.
    began: Option<DateTime<Utc>>,
    recognised: bool,
    failed: FailedLogins,
}

impl Logins {
    fn add(&mut self, line: &[u8], now: DateTime<Utc>) {
        let Some(failure) = LoginFailure::parse(&String::from_utf8_lossy(line)) else { return };
        // A mail server's "authentication failed" proves nothing of customers.
        self.recognised |= failure.account.is_some() || failure.address.is_some();
        // What the first look finds without a time may be years old; what comes later is new.
        let at = failure.at.or(self.began.map(|_| now));
        // A clock that is ahead by more than that is no clock.
        if let Some(at) = at.filter(|at| *at <= now + TimeDelta::minutes(5)) {
            self.failed.add(at, failure.account.as_deref(), failure.address.as_deref());
        }
    }
}

impl Counted for Logins {
    fn adopt(&self, kept: Self) -> Self {
        kept
    }

    fn looked(&mut self, now: DateTime<Utc>) -> bool {
        let first = self.began.is_none();
        self.began.get_or_insert(now);
        first
    }
}
