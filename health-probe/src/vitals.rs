//! Core Web Vitals as visitors had them: beacons of the library web-vitals, in bounded memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::judge::{Limits, Policy};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

/// What a beacon tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Vital {
    /// Largest Contentful Paint, in milliseconds: good up to 2,500, poor above 4,000.
    Lcp,
    /// Interaction to Next Paint, in milliseconds: good up to 200, poor above 500.
    Inp,
    /// Cumulative Layout Shift, a ratio: good up to 0.1, poor above 0.25.
    Cls,
}

/// What web-vitals sends: `navigator.sendBeacon(url, JSON.stringify({name, value, id, path: location.pathname}))`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Beacon {
    /// Which of them.
    pub name: Vital,
    /// How much.
    pub value: f64,
    /// The name of this metric of this visit: a later value of the same replaces the earlier one.
    pub id: String,
    /// The page.
    #[serde(default)]
    pub path: String,
}

/// Beacons of the last 28 days, as the Chrome UX Report has them: quantiles with an error of at most 2.5 %, 100 pages apart.
///
/// Beacons come from strangers: one that makes no sense is refused, and no number of them takes more memory than 28 days × 101
/// pages × 3 metrics of at most 400 counters.
#[derive(Debug, Clone, Default)]
pub struct WebVitals {
    inner: Arc<Mutex<Inner>>,
}

/// How many values there are in each bucket.
type Histogram = BTreeMap<u16, u32>;

/// A day, a page, a metric, and its values.
type KeptVital = (i64, String, Vital, Histogram);

#[derive(Debug, Default)]
struct Inner {
    days: BTreeMap<i64, HashMap<(String, Vital), Histogram>>,
    recent: HashMap<String, (i64, String, Vital, u16)>,
    order: VecDeque<String>,
}

const PAGES: usize = 100;
const RECENT: usize = 10_000;
const DAYS: i64 = 28;
/// Buckets grow by 5 %, so that their middle is at most 2.5 % off.
const GROWTH: f64 = 1.05;

impl WebVitals {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the body of a request: one beacon, or an array of at most 20.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where it is none; nothing was taken then.
    pub fn take(&self, body: &[u8], now: DateTime<Utc>) -> Result<()> {
        let wrong = |why: &str| Error::new(ErrorKind::Malformed, format!("no beacon: {why}"));
        if body.len() > 16 << 10 {
            return Err(wrong("it is longer than 16 KiB"));
        }
        let beacons: Vec<Beacon> = match body.first() {
            Some(b'[') => serde_json::from_slice(body).map_err(|e| wrong("not its JSON").with_source(e))?,
            _ => vec![serde_json::from_slice(body).map_err(|e| wrong("not its JSON").with_source(e))?],
        };
        let most = |vital| if vital == Vital::Cls { 100.0 } else { 600_000.0 };
        if beacons.len() > 20 || beacons.iter().any(|b| !(0.0..=most(b.name)).contains(&b.value) || b.id.len() > 100) {
            return Err(wrong("its values are none that a page can have"));
        }
        let mut inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        for beacon in beacons {
            inner.add(beacon, now.timestamp().div_euclid(86_400));
        }
        Ok(())
    }

    /// The quantile `q` of a metric, of all pages or one, and of how many visits; `None` where there is none.
    pub fn quantile(&self, vital: Vital, path: Option<&str>, q: f64, now: DateTime<Utc>) -> Option<(f64, u64)> {
        let inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        let first = now.timestamp().div_euclid(86_400) - DAYS + 1;
        let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
        for day in inner.days.range(first..).map(|(_, d)| d) {
            for ((page, v), buckets) in day {
                if *v == vital && path.is_none_or(|p| p == page) {
                    for (bucket, n) in buckets {
                        *counts.entry(*bucket).or_default() += u64::from(*n);
                    }
                }
            }
        }
        let total: u64 = counts.values().sum();
        let rank = (q.clamp(0.0, 1.0) * total as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        let (bucket, _) = counts.into_iter().find(|(_, n)| {
            below += n;
            below >= rank
        })?;
        Some((value(bucket, vital), total))
    }

    /// All that was counted, as text that [`WebVitals::restore`] takes: to outlive the process.
    ///
    /// # Errors
    /// Where it cannot be written as JSON.
    pub fn export(&self) -> Result<String> {
        let inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        let kept: Vec<KeptVital> = inner
            .days
            .iter()
            .flat_map(|(day, pages)| {
                pages.iter().map(|((page, vital), counts)| (*day, page.clone(), *vital, counts.clone()))
            })
            .collect();
        serde_json::to_string(&kept)
            .map_err(|e| Error::new(ErrorKind::Storage, "counts that cannot be written as JSON").with_source(e))
    }

    /// Goes on with what [`WebVitals::export`] gave. A visit that tells more of itself afterwards counts once more.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where it is something else.
    pub fn restore(text: &str) -> Result<Self> {
        let kept: Vec<KeptVital> = serde_json::from_str(text)
            .map_err(|e| Error::new(ErrorKind::Malformed, "no counts of Core Web Vitals").with_source(e))?;
        let mut inner = Inner::default();
        for (day, page, vital, counts) in kept {
            inner.days.entry(day).or_default().insert((page, vital), counts);
        }
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// The pages that are apart, by name.
    pub fn pages(&self) -> Vec<String> {
        let inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        let mut pages: Vec<String> = inner.days.values().flat_map(|d| d.keys()).map(|(p, _)| p.clone()).collect();
        pages.sort();
        pages.dedup();
        pages
    }
}

impl Inner {
    fn add(&mut self, beacon: Beacon, day: i64) {
        let path: String = beacon.path.split(['?', '#']).next().unwrap_or_default().chars().take(100).collect();
        let pages = self.days.entry(day).or_default();
        let known = pages.keys().any(|(p, _)| *p == path);
        let distinct = || pages.keys().map(|(p, _)| p).collect::<std::collections::HashSet<_>>().len();
        let path = if known || distinct() < PAGES { path } else { "(other)".to_owned() };
        let bucket = bucket(beacon.value, beacon.name);
        // A later value of the same visit replaces the earlier one.
        let key = format!("{:?} {}", beacon.name, beacon.id);
        match self.recent.insert(key.clone(), (day, path.clone(), beacon.name, bucket)) {
            Some((day, path, vital, bucket)) => {
                if let Some(n) =
                    self.days.get_mut(&day).and_then(|d| d.get_mut(&(path, vital))).and_then(|b| b.get_mut(&bucket))
                {
                    *n = n.saturating_sub(1);
                }
            }
            None => self.order.push_back(key),
        }
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        let counts = self.days.entry(day).or_default().entry((path, beacon.name)).or_default();
        *counts.entry(bucket).or_default() += 1;
        while self.days.len() > DAYS as usize + 1 {
            self.days.pop_first();
        }
    }
}

/// A ten-thousandth is the smallest unit of layout shift, a tenth of a millisecond that of a time.
fn smallest(vital: Vital) -> f64 {
    if vital == Vital::Cls { 0.0001 } else { 0.1 }
}

fn bucket(n: f64, vital: Vital) -> u16 {
    let steps = (n / smallest(vital)).max(1.0).ln() / GROWTH.ln();
    steps.round().min(399.0) as u16
}

fn value(bucket: u16, vital: Vital) -> f64 {
    if bucket == 0 { 0.0 } else { smallest(vital) * GROWTH.powi(bucket.into()) }
}

/// The vitals against Google's limits, at the 75th percentile: `LCP` and `INP` (seconds), `CLS` (ratio). Of fewer than 20 visits
/// nothing is said: that does not apply yet, and where none of them applies it is unknown.
pub struct VitalsProbe {
    spec: ProbeSpec,
    vitals: WebVitals,
}

impl fmt::Debug for VitalsProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VitalsProbe").field("id", &self.spec.id).finish_non_exhaustive()
    }
}

impl VitalsProbe {
    /// Of what `vitals` is given.
    pub fn new(id: impl Into<String>, vitals: WebVitals) -> Self {
        Self { spec: ProbeSpec::new(id, limits(Policy::new())).with_title("Core Web Vitals"), vitals }
    }
}

#[async_trait]
impl Probe for VitalsProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        for (vital, name) in [(Vital::Lcp, "LCP"), (Vital::Inp, "INP"), (Vital::Cls, "CLS")] {
            match self.vitals.quantile(vital, None, 0.75, cx.now) {
                Some((n, visits)) if visits >= 20 => {
                    let (n, unit) = if vital == Vital::Cls { (n, Unit::Ratio) } else { (n / 1000.0, Unit::Seconds) };
                    seen.number(name, n, unit).evidence(format!("{name}: of {visits} visits"));
                }
                _ => {
                    seen.not_applicable(name, "fewer than 20 visits told of it");
                }
            }
        }
        let mut slow: Vec<(f64, String)> = Vec::new();
        for page in self.vitals.pages() {
            if let Some((n, visits)) = self.vitals.quantile(Vital::Lcp, Some(&page), 0.75, cx.now)
                && visits >= 20
                && n > 2500.0
            {
                slow.push((n, page));
            }
        }
        slow.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (n, page) in slow.iter().take(5) {
            seen.evidence(format!("LCP {:.1} s at {page}", n / 1000.0));
        }
        Ok(seen)
    }
}

/// Google's limits at the 75th percentile.
pub(crate) fn limits(policy: Policy) -> Policy {
    // "Good up to": a limit is bad from itself on, so it lies just above.
    let above = |n: f64| n * (1.0 + 1e-9);
    policy
        .below("LCP", Unit::Seconds, Limits::new(above(2.5), above(4.0)))
        .below("INP", Unit::Seconds, Limits::new(above(0.2), above(0.5)))
        .below("CLS", Unit::Ratio, Limits::new(above(0.1), above(0.25)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Verdict, judge};

    fn beacon(vital: &str, value: f64, id: usize, path: &str) -> Vec<u8> {
        format!(r#"{{"name":"{vital}","value":{value},"id":"v4-{id}","path":"{path}","rating":"good","delta":1}}"#)
            .into_bytes()
    }

    #[tokio::test]
    async fn quantiles_are_near_and_a_later_value_replaces_the_earlier() {
        let (vitals, now) = (WebVitals::new(), DateTime::UNIX_EPOCH);
        let probe = VitalsProbe::new("vitals", vitals.clone());
        let cx = Context::at(now);
        let verdict = || async { judge(&probe.observe(&cx).await.unwrap(), &probe.spec().policy).verdict };
        assert_eq!(verdict().await, Verdict::Unknown, "no visit says nothing");
        for i in 0..1000 {
            vitals.take(&beacon("LCP", 1000.0 + i as f64, i, "/"), now).unwrap();
        }
        let (p75, visits) = vitals.quantile(Vital::Lcp, None, 0.75, now).unwrap();
        assert!((p75 / 1750.0 - 1.0).abs() < 0.026 && visits == 1000, "{p75} {visits}");
        assert_eq!(verdict().await, Verdict::Healthy);
        // The same visits, as they end: slower.
        for i in 0..1000 {
            vitals.take(&beacon("LCP", 5000.0, i, "/"), now).unwrap();
        }
        let (p75, visits) = vitals.quantile(Vital::Lcp, Some("/"), 0.75, now).unwrap();
        assert!((p75 / 5000.0 - 1.0).abs() < 0.026 && visits == 1000, "{p75} {visits}");
        assert_eq!(verdict().await, Verdict::Critical);
        let again = WebVitals::restore(&vitals.export().unwrap()).unwrap();
        assert_eq!(again.quantile(Vital::Lcp, Some("/"), 0.75, now), vitals.quantile(Vital::Lcp, Some("/"), 0.75, now));
        assert!(WebVitals::restore("{}").is_err());
        assert_eq!(vitals.quantile(Vital::Lcp, None, 0.75, now + chrono::TimeDelta::days(28)), None, "28 days");
    }

    #[test]
    fn strangers_cannot_fill_the_memory_or_spoil_the_figures() {
        let (vitals, now) = (WebVitals::new(), DateTime::UNIX_EPOCH);
        for bad in [
            &b""[..],
            b"{}",
            b"null",
            br#"{"name":"LCP","value":-1,"id":"x"}"#,
            br#"{"name":"LCP","value":1e300,"id":"x"}"#,
            br#"{"name":"TTFB","value":1,"id":"x"}"#,
            br#"{"name":"LCP","value":"1","id":"x"}"#,
        ] {
            assert!(vitals.take(bad, now).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        for i in 0..30_000 {
            vitals.take(&beacon("CLS", 0.01, i, &format!("/{i}")), now).unwrap();
        }
        assert!(vitals.pages().len() <= PAGES + 1);
        assert!(vitals.inner.lock().unwrap().recent.len() <= RECENT + 1);
    }
}
