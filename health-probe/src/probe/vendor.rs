//! Other people's services: status pages, keys that have to work, errors that Sentry has seen.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::HeaderMap;
use serde_json::Value as Json;

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Condition, Limits, Policy, Verdict};
use crate::net::fetch::{BodyEnd, Exchange, Fetch, shown};
use crate::observation::{Observation, Unit};
use crate::probe::http::{address, header, refused, shared_client};
use crate::probe::{Context, Probe, ProbeSpec};

/// What is said of a service, or asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Statuspage,
    StripeStatus,
    StripeKey,
    PaystackKey,
    Sentry,
}

/// The interface of somebody else's service.
///
/// Status pages: `says` is `up`, `degraded` or `down`, and never proof that all is well: they lag, so "up" is healthy only in the
/// sense that nobody says otherwise, and "down" is a warning of what customers may see. Keys: `key accepted`, by a call that reads
/// and changes nothing. Each has `reachable` and `response time`. An answer that is not of the known shape is
/// unknown; one that is longer than a megabyte or does not end is not understood.
#[derive(Clone)]
pub struct VendorProbe {
    spec: ProbeSpec,
    fetch: Fetch,
    kind: Kind,
}

impl fmt::Debug for VendorProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VendorProbe")
            .field("id", &self.spec.id)
            .field("url", &shown(&self.fetch.url))
            .finish_non_exhaustive()
    }
}

impl VendorProbe {
    /// A page of Atlassian Statuspage, as Paystack and many others have: its address, such as `https://status.paystack.com`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address.
    pub fn statuspage(id: impl Into<String>, page: &str) -> Result<Self> {
        let url = format!("{}/api/v2/summary.json", page.trim_end_matches('/'));
        Self::new(id, &url, Kind::Statuspage, HeaderMap::new(), status_policy())
    }

    /// Stripe's own status, at `https://status.stripe.com`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address.
    pub fn stripe_status(id: impl Into<String>, page: &str) -> Result<Self> {
        let url = format!("{}/current", page.trim_end_matches('/'));
        Self::new(id, &url, Kind::StripeStatus, HeaderMap::new(), status_policy())
    }

    /// Whether Stripe takes a key: `GET /v1/balance` of `api`, which is `https://api.stripe.com`. A restricted key with the right
    /// to read the balance is enough, and better.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address, or no key.
    pub fn stripe_key(id: impl Into<String>, api: &str, key: &str) -> Result<Self> {
        let url = format!("{}/v1/balance", api.trim_end_matches('/'));
        Self::new(id, &url, Kind::StripeKey, bearer(key)?, key_policy())
    }

    /// Whether Paystack takes a key: `GET /balance` of `api`, which is `https://api.paystack.co`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address, or no key.
    pub fn paystack_key(id: impl Into<String>, api: &str, key: &str) -> Result<Self> {
        let url = format!("{}/balance", api.trim_end_matches('/'));
        Self::new(id, &url, Kind::PaystackKey, bearer(key)?, key_policy())
    }

    /// Unresolved issues of a project in Sentry that were seen first in the last day, `api` being `https://sentry.io`, with a token
    /// that may read events. Readings: `unresolved` (of the first hundred), `new` (first seen in the last 24 hours), `regressed`.
    /// New ones are a warning.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address, or no token.
    pub fn sentry(id: impl Into<String>, api: &str, organization: &str, project: &str, token: &str) -> Result<Self> {
        let named = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !named(organization) || !named(project) {
            return Err(Error::new(ErrorKind::Config, "an organization or a project of Sentry is named by its slug"));
        }
        let url = format!(
            "{}/api/0/projects/{organization}/{project}/issues/?query=is%3Aunresolved&statsPeriod=24h&limit=100",
            api.trim_end_matches('/')
        );
        let policy = Policy::new()
            .is("reachable", true, Verdict::Warning)
            .is("key accepted", true, Verdict::Warning)
            .below("new", Unit::Count, Limits::warning(1.0))
            .below("regressed", Unit::Count, Limits::warning(1.0));
        Self::new(id, &url, Kind::Sentry, bearer(token)?, policy)
    }

    /// The same with another limit; ten seconds without.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.fetch.limit = limit;
        self
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn new(id: impl Into<String>, url: &str, kind: Kind, headers: HeaderMap, policy: Policy) -> Result<Self> {
        let url = address(url)?;
        let title = url.host_str().unwrap_or("a service").to_owned();
        let mut fetch = Fetch::new(url, shared_client()?);
        fetch.headers = headers;
        let spec = ProbeSpec::new(id, policy).with_title(title).with_response_time("response time");
        Ok(Self { spec, fetch, kind })
    }
}

#[async_trait]
impl Probe for VendorProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        let began = Instant::now();
        let outcome = self.fetch.run().await;
        seen.took = began.elapsed();
        match outcome {
            Ok(answer) => {
                seen.number("response time", answer.took.as_secs_f64(), Unit::Seconds);
                seen.evidence(format!("status {} from {}", answer.status.as_u16(), shown(&self.fetch.url)));
                // A server that is out of order is as good as none.
                seen.flag("reachable", !answer.status.is_server_error());
                self.read(&mut seen, &answer, cx);
            }
            Err(no) if no.failed.ours => {
                let e = format!("{}: {}: this machine could not ask", self.spec.title, no.failed);
                return Err(Error::new(ErrorKind::Unreachable, e));
            }
            Err(no) => {
                seen.flag("reachable", false).evidence(no.failed.to_string());
            }
        }
        Ok(seen)
    }
}

impl VendorProbe {
    fn read(&self, seen: &mut Observation, answer: &Exchange, cx: &Context) {
        if matches!(self.kind, Kind::StripeKey | Kind::PaystackKey | Kind::Sentry) && refused(answer.status) {
            seen.flag("key accepted", false);
            return;
        }
        if !answer.status.is_success() || answer.end != BodyEnd::Whole {
            if answer.end != BodyEnd::Whole {
                seen.evidence("the answer was too long, or did not end");
            }
            return;
        }
        let Ok(json) = serde_json::from_slice::<Json>(&answer.body) else {
            seen.evidence("the answer is no JSON");
            return;
        };
        match self.kind {
            Kind::Statuspage => statuspage(seen, &json),
            Kind::StripeStatus => stripe_status(seen, &json),
            Kind::StripeKey => {
                if json.get("object").and_then(Json::as_str) == Some("balance") {
                    seen.flag("key accepted", true);
                    if let Some(live) = json.get("livemode").and_then(Json::as_bool) {
                        seen.flag("live mode", live);
                    }
                }
            }
            Kind::PaystackKey => {
                if let Some(accepted) = json.get("status").and_then(Json::as_bool) {
                    seen.flag("key accepted", accepted);
                }
            }
            Kind::Sentry => sentry(seen, &json, cx),
        }
    }
}

fn bearer(key: &str) -> Result<HeaderMap> {
    let (name, value) = header("authorization", &format!("Bearer {key}"))?;
    Ok(HeaderMap::from_iter([(name, value)]))
}

fn status_policy() -> Policy {
    let up = Condition::OneOf(vec!["up".into()], Verdict::Warning);
    Policy::new()
        .is("reachable", true, Verdict::Unknown)
        .with("says", Unit::None, up)
        .meaning("customers may not be able to pay")
}

fn key_policy() -> Policy {
    Policy::new()
        .is("reachable", true, Verdict::Critical)
        .is("key accepted", true, Verdict::Critical)
        .meaning("no payment goes through with this key")
        .below("response time", Unit::Seconds, Limits::new(3.0, 10.0))
}

/// `{"status":{"indicator":"none|minor|major|critical"},"components":[…],"incidents":[…]}`
fn statuspage(seen: &mut Observation, json: &Json) {
    match json.pointer("/status/indicator").and_then(Json::as_str) {
        Some("none") => drop_ref(seen.text("says", "up")),
        Some("minor" | "maintenance") => drop_ref(seen.text("says", "degraded")),
        Some("major" | "critical") => drop_ref(seen.text("says", "down")),
        _ => {}
    }
    let names = |path: &str, key: &str, bad: &dyn Fn(&Json) -> bool| -> Vec<String> {
        let list = json.pointer(path).and_then(Json::as_array);
        let named = |item: &Json| item.get(key).and_then(Json::as_str).map(|s| s.chars().take(200).collect());
        list.into_iter().flatten().filter(|item| bad(item)).filter_map(named).take(20).collect()
    };
    for name in
        names("/components", "name", &|c| c.get("status").and_then(Json::as_str).is_some_and(|s| s != "operational"))
    {
        seen.evidence(format!("not operational: {name}"));
    }
    for name in names("/incidents", "name", &|_| true) {
        seen.evidence(format!("incident: {name}"));
    }
}

/// `{"largestatus":"up|degraded|down","message":…}`, and the shape of Statuspage where Stripe answers with that.
fn stripe_status(seen: &mut Observation, json: &Json) {
    match json.get("largestatus").and_then(Json::as_str) {
        Some(says @ ("up" | "degraded" | "down")) => drop_ref(seen.text("says", says)),
        Some(_) => {}
        None => statuspage(seen, json),
    }
    if let Some(message) = json.get("message").and_then(Json::as_str) {
        seen.evidence(message.chars().take(200).collect::<String>());
    }
}

fn sentry(seen: &mut Observation, json: &Json, cx: &Context) {
    let Some(issues) = json.as_array() else { return };
    let first_seen = |issue: &Json| {
        let text = issue.get("firstSeen")?.as_str()?;
        chrono::DateTime::parse_from_rfc3339(text).ok()
    };
    let dated: Option<Vec<_>> = issues.iter().map(first_seen).collect();
    seen.flag("key accepted", true).number("unresolved", issues.len() as f64, Unit::Count);
    let regressed = issues.iter().filter(|i| i.get("substatus").and_then(Json::as_str) == Some("regressed"));
    seen.number("regressed", regressed.count() as f64, Unit::Count);
    // An issue without a date is of another shape: then how many are new is not known.
    if let Some(dated) = dated {
        let day = chrono::TimeDelta::hours(24);
        let new = dated.iter().filter(|at| cx.now - at.to_utc() <= day).count();
        seen.number("new", new as f64, Unit::Count);
    }
    for issue in issues.iter().take(10) {
        if let Some(title) = issue.get("title").and_then(Json::as_str) {
            seen.evidence(crate::redact::redact(&title.chars().take(200).collect::<String>()));
        }
    }
}

fn drop_ref(_: &mut Observation) {}
