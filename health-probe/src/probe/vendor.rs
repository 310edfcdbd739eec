//! Other people's services: status pages, keys that have to work, errors that Sentry has seen, what Chrome's users see.

mod crux;

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value as Json;
use sha2::{Digest, Sha512};

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
    RemitaKey,
    Sentry,
    Crux,
}

/// The interface of somebody else's service.
///
/// Status pages: `says` is `up`, `degraded` or `down`, and never proof that all is well: they lag, so "up" is healthy only in the
/// sense that nobody says otherwise, and "down" is a warning of what customers may see. Keys: `key accepted`, by a call that reads
/// and changes nothing (unknown where it may not read that), and of Stripe and Paystack `live mode`. Each has `reachable` and `response time`. An answer that is not of the known shape is
/// unknown; one that is longer than a megabyte or does not end is not understood.
#[derive(Clone)]
pub struct VendorProbe {
    spec: ProbeSpec,
    fetch: Fetch,
    kind: Kind,
    /// What the answer has to be about, where the question names something.
    about: String,
}

impl fmt::Debug for VendorProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VendorProbe").field("id", &self.spec.id).field("url", &self.place()).finish_non_exhaustive()
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
        Self::new(id, &url, Kind::StripeKey, bearer(key)?, live(key_policy()))
    }

    /// Whether Paystack takes a key: `GET /balance` of `api`, which is `https://api.paystack.co`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address, or no key.
    pub fn paystack_key(id: impl Into<String>, api: &str, key: &str) -> Result<Self> {
        let url = format!("{}/balance", api.trim_end_matches('/'));
        let mut probe = Self::new(id, &url, Kind::PaystackKey, bearer(key)?, live(key_policy()))?;
        probe.about = key.chars().take(8).collect();
        Ok(probe)
    }

    /// Whether Remita takes a key and answers: the state of one payment of the merchant, by its reference (RRR), best one that was
    /// paid long ago. `api` is such as `https://login.remita.net/remita/exapp/api/v1/send/api`; the call reads and changes nothing.
    ///
    /// Remita has no status page: that it knows a payment is the only thing it says of itself. `key accepted` where the answer is
    /// about that reference, not where it is a refusal; of any other answer that is missing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address, or merchant or reference are not made of letters, digits, `-` and `_`.
    pub fn remita_key(id: impl Into<String>, api: &str, merchant: &str, key: &str, reference: &str) -> Result<Self> {
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if !plain(merchant) || !plain(reference) {
            return Err(Error::new(ErrorKind::Config, "Remita's merchant and reference are letters and digits")
                .with_next_step("name the merchant id, and the RRR of a payment that was made"));
        }
        // The hash of the documentation of Remita's first generation of interfaces: reference, key, merchant.
        let hash = hex::encode(Sha512::digest(format!("{reference}{key}{merchant}")));
        let url = format!("{}/echannelsvc/{merchant}/{reference}/{hash}/status.reg", api.trim_end_matches('/'));
        let consumer = format!("remitaConsumerKey={merchant},remitaConsumerToken={hash}");
        let headers = HeaderMap::from_iter([header("authorization", &consumer)?]);
        let mut probe = Self::new(id, &url, Kind::RemitaKey, headers, key_policy())?;
        reference.clone_into(&mut probe.about);
        Ok(probe)
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

    /// Core Web Vitals of a site as the Chrome UX Report has them: p75 of the last 28 days over all of Chrome's visitors that tell,
    /// by `POST /v1/records:queryRecord` of `api`, which is `https://chromeuxreport.googleapis.com`. `origin` is such as
    /// `https://shop.example`; `form_factor` is `PHONE`, `DESKTOP` or `TABLET`, all of them together without.
    ///
    /// Readings and limits as of [`VitalsProbe`](crate::vitals::VitalsProbe): `LCP` and `INP` (seconds), `CLS` (ratio). A site with
    /// too few visitors is not in the report: then nothing applies, which is unknown and calls nobody. Figures that end more than
    /// 14 days ago are not read.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address, no key, or no such form factor.
    pub fn crux(id: impl Into<String>, api: &str, key: &str, origin: &str, form_factor: Option<&str>) -> Result<Self> {
        if let Some(other) = form_factor.filter(|f| !["PHONE", "DESKTOP", "TABLET"].contains(f)) {
            return Err(Error::new(ErrorKind::Config, format!("{other:?} is no form factor"))
                .with_next_step("PHONE, DESKTOP, TABLET, or none for all together"));
        }
        let origin = address(origin)?.origin().ascii_serialization();
        let mut question = serde_json::json!({ "origin": origin });
        if let Some(form_factor) = form_factor {
            question["formFactor"] = form_factor.into();
        }
        let url = format!("{}/v1/records:queryRecord", api.trim_end_matches('/'));
        // A header, for a URL is written down everywhere.
        let json = (http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let headers = HeaderMap::from_iter([header("x-goog-api-key", key)?, json]);
        let policy = crate::vitals::limits(Policy::new().is("key accepted", true, Verdict::Warning));
        let mut probe = Self::new(id, &url, Kind::Crux, headers, policy)?;
        probe.fetch.method = Method::POST;
        probe.fetch.body = question.to_string().into();
        probe.spec.title = format!("Core Web Vitals of {origin}");
        Ok(probe)
    }

    /// The same of a shop that is meant to take no money: a key of the test mode is as good there.
    #[must_use]
    pub fn in_test_mode(mut self) -> Self {
        self.spec.policy.rules.retain(|rule| rule.reading != LIVE);
        self
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
        let mut fetch = Fetch::new(url, shared_client()?);
        fetch.headers = headers;
        let spec = ProbeSpec::new(id, policy).with_response_time("response time");
        Ok(Self { spec, fetch, kind, about: String::new() })
    }

    /// The address, without what must not be shown: Remita's has a hash of the key in it.
    fn place(&self) -> String {
        match self.kind {
            Kind::RemitaKey => self.fetch.url.host_str().unwrap_or_default().to_owned(),
            _ => shown(&self.fetch.url),
        }
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
                seen.evidence(format!("status {} from {}", answer.status.as_u16(), self.place()));
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
        if matches!(self.kind, Kind::StripeKey | Kind::PaystackKey | Kind::RemitaKey | Kind::Sentry)
            && refused(answer.status)
        {
            // A key that may not read this is a key; whether it may take payments is not known.
            match self.kind == Kind::Sentry || answer.status.as_u16() == 401 {
                true => {
                    seen.flag("key accepted", false);
                }
                false => {
                    seen.evidence("the key is one, and may not read this: give it the right to");
                }
            }
            return;
        }
        let json = || serde_json::from_slice::<Json>(&answer.body).ok();
        if self.kind == Kind::Crux && answer.status.is_client_error() {
            return crux::refused(seen, answer.status, json().as_ref());
        }
        if !answer.status.is_success() || answer.end != BodyEnd::Whole {
            if answer.end != BodyEnd::Whole {
                seen.evidence("the answer was too long, or did not end");
            }
            return;
        }
        let body = match self.kind {
            Kind::RemitaKey => without_call(&answer.body),
            _ => &answer.body,
        };
        let Ok(json) = serde_json::from_slice::<Json>(body) else {
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
                        seen.flag(LIVE, live);
                    }
                }
            }
            Kind::PaystackKey => {
                if let Some(accepted) = json.get("status").and_then(Json::as_bool) {
                    seen.flag("key accepted", accepted);
                }
                // Its answers do not say it, its keys do.
                if let "sk_live_" | "sk_test_" = self.about.as_str() {
                    seen.flag(LIVE, self.about == "sk_live_");
                }
            }
            Kind::RemitaKey => remita(seen, &json, &self.about),
            Kind::Sentry => sentry(seen, &json, cx),
            Kind::Crux => crux::read(seen, &json, cx.now),
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

const LIVE: &str = "live mode";

fn live(policy: Policy) -> Policy {
    policy.is(LIVE, true, Verdict::Critical).meaning("orders go through, and no money arrives")
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
        Some("none") => {
            seen.text("says", "up");
        }
        Some("minor" | "maintenance") => {
            seen.text("says", "degraded");
        }
        Some("major" | "critical") => {
            seen.text("says", "down");
        }
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
        Some(says @ ("up" | "degraded" | "down")) => {
            seen.text("says", says);
        }
        Some(_) => {}
        None => statuspage(seen, json),
    }
    if let Some(message) = json.get("message").and_then(Json::as_str) {
        seen.evidence(message.chars().take(200).collect::<String>());
    }
}

/// `jsonp ({…})`, as Remita also answers.
fn without_call(body: &[u8]) -> &[u8] {
    let body = body.trim_ascii();
    let inner = body.strip_prefix(b"jsonp").map(<[u8]>::trim_ascii).and_then(|rest| rest.strip_prefix(b"("));
    inner.map_or(body, |rest| rest.trim_ascii_end().strip_suffix(b")").unwrap_or(rest))
}

/// `{"amount":…,"RRR":"…","orderId":"…","message":"Approved","status":"00"}`; without the reference where it is not known, or
/// the hash is wrong.
fn remita(seen: &mut Observation, json: &Json, reference: &str) {
    let Some(code) = ["status", "statuscode", "statusCode"].iter().find_map(|key| json.get(*key)?.as_str()) else {
        return;
    };
    let said = json.get("message").and_then(Json::as_str).unwrap_or_default();
    seen.evidence(format!("code {}: {}", short(code), short(said)));
    let about = ["RRR", "rrr"].iter().find_map(|key| match json.get(*key)? {
        Json::String(text) => Some(text.trim().to_owned()),
        Json::Number(n) => Some(n.to_string()),
        _ => None,
    });
    // A refusal wins over whatever else the answer echoes; what is neither is not known.
    let refusal =
        ["invalid hash", "invalid merchant", "authentication", "unauthori", "invalid request", "invalid credential"];
    let lower = said.to_lowercase();
    if matches!(code, "020" | "022" | "023") || refusal.iter().any(|words| lower.contains(words)) {
        seen.flag("key accepted", false);
    } else if about.as_deref() == Some(reference) {
        seen.flag("key accepted", true);
    }
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
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
