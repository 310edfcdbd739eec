//! The status page: one HTML file that needs nothing else, for people who are not engineers.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::incident::IncidentRecord;
use crate::judge::Verdict;
use crate::ledger::{HourOfResponses, Ledger, View, for_probe};
use crate::monitor::Snapshot;
use crate::redact::redact;

/// Days of the bars.
const DAYS: i64 = 90;
/// Of a day of which less was seen, only a part is known.
const PARTLY: f64 = 0.9;

/// What the page shows, collected.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatusPage {
    /// The shop's name.
    pub title: String,
    /// When this was.
    pub at: DateTime<Utc>,
    /// The worst of all.
    pub verdict: Verdict,
    /// Each component.
    pub components: Vec<Component>,
    /// Incidents of the last 90 days, newest first.
    pub incidents: Vec<IncidentRecord>,
    /// What the monitor itself cannot do.
    pub troubles: Vec<String>,
    /// Whether causes are shown to whoever reads it; for the shop's own people.
    details: bool,
}

/// One line of the page.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Component {
    /// The probe.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// Its state; unknown before there is one, and where nobody looked for three times as long as usual.
    pub verdict: Verdict,
    /// Why it is not healthy.
    pub reason: String,
    /// Each of the last 90 days, oldest first.
    pub days: Vec<Day>,
    /// The share of time seen that was good, over those days, as customers see it.
    pub uptime: Option<f64>,
    /// The share of expected time in which something was seen.
    pub coverage: Option<f64>,
    /// Response times of the last seven days.
    pub response_times: Vec<HourOfResponses>,
}

/// A day of a component.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Day {
    /// Which.
    pub date: NaiveDate,
    /// The share of time seen that was good; `None` where nothing was seen.
    pub uptime: Option<f64>,
    /// The share of expected time in which something was seen; `None` where nothing was expected.
    pub coverage: Option<f64>,
    /// Seconds that were bad.
    pub bad_s: u64,
}

impl StatusPage {
    /// Collects what the page shows from what is known now and what is written down.
    ///
    /// # Errors
    /// Where the ledger cannot be read.
    pub async fn collect(title: impl Into<String>, snapshot: &Snapshot, ledger: &dyn Ledger) -> Result<Self> {
        let at = snapshot.at;
        let today = at.date_naive();
        let first = (today - TimeDelta::days(DAYS - 1)).and_time(chrono::NaiveTime::MIN).and_utc();
        let maintenance = ledger.maintenance(first, at).await?;
        let mut components = Vec::new();
        for probe in &snapshot.probes {
            let slots = ledger.timeline(&probe.id, first, at).await?;
            let windows = for_probe(&maintenance, &probe.id);
            let day = |i: i64| {
                let from = first + TimeDelta::days(i);
                let counts = slots.count(from, from + TimeDelta::days(1), &windows, View::Strict);
                let (uptime, coverage) = (counts.uptime(), counts.coverage());
                Day { date: from.date_naive(), uptime, coverage, bad_s: counts.bad_s }
            };
            let all = slots.count(first, at, &windows, View::Strict);
            let overdue = TimeDelta::seconds(probe.every_s as i64 * 3 + 60);
            let stale = probe.last.as_ref().is_none_or(|l| at - l.began > overdue);
            let verdict = if stale { Verdict::Unknown } else { probe.verdict.unwrap_or(Verdict::Unknown) };
            let reason = match (&probe.last, verdict) {
                (_, Verdict::Healthy) => String::new(),
                (Some(_), _) if stale => "nobody looked lately".into(),
                (Some(look), _) => redact(&look.judgement.reason()),
                (None, _) => "nobody looked yet".into(),
            };
            components.push(Component {
                id: probe.id.clone(),
                title: probe.title.clone(),
                verdict,
                reason,
                days: (0..DAYS).map(day).collect(),
                uptime: all.uptime(),
                coverage: all.coverage(),
                response_times: ledger.response_times(&probe.id, at - TimeDelta::days(7), at).await?,
            });
        }
        let worst = components.iter().map(|c| c.verdict).max_by_key(|v| v.rank());
        Ok(Self {
            title: title.into(),
            at,
            verdict: worst.unwrap_or(Verdict::Unknown),
            components,
            incidents: ledger.incidents(first).await?.into_iter().filter(|i| i.part_of.is_none()).collect(),
            troubles: snapshot.troubles.clone(),
            details: false,
        })
    }

    /// The same that also shows causes: for the shop's own people.
    #[must_use]
    pub fn with_details(mut self) -> Self {
        self.details = true;
        self
    }

    /// The same of these probes alone, by the names that customers are to read; incidents of others are left out, and the state is
    /// that of what is shown. Without it, everything is shown by the titles of the probes.
    #[must_use]
    pub fn of_public(mut self, names: &BTreeMap<String, String>) -> Self {
        self.components.retain_mut(|c| match names.get(&c.id) {
            Some(name) => {
                name.clone_into(&mut c.title);
                true
            }
            None => false,
        });
        self.incidents.retain_mut(|incident| {
            incident.members.retain_mut(|member| match names.get(&member.probe) {
                Some(name) => {
                    name.clone_into(&mut member.title);
                    true
                }
                None => false,
            });
            let Some(first) = incident.members.first() else { return false };
            if incident.root_member().is_none() {
                incident.root = first.probe.clone();
            }
            // As bad and as long as it was of what is shown.
            let worst =
                incident.members.iter().filter_map(|m| m.failed.map(|(_, worst)| worst)).max_by_key(|v| v.rank());
            incident.severity = worst.unwrap_or(incident.severity);
            incident.opened =
                incident.members.iter().filter_map(|m| m.failed.map(|(from, _)| from)).min().unwrap_or(incident.opened);
            if incident.members.iter().all(|m| m.verdict.is_healthy()) {
                incident.resolved = incident.members.iter().map(|m| m.since).max();
            }
            true
        });
        self.troubles.clear();
        self.verdict = self.components.iter().map(|c| c.verdict).max_by_key(|v| v.rank()).unwrap_or(Verdict::Unknown);
        self
    }

    /// The page: one file, nothing loaded from elsewhere, no script; light or dark as the reader's device, for any width.
    pub fn html(&self) -> String {
        let mut out = String::with_capacity(64 << 10);
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let headline = match self.verdict {
            Verdict::Healthy => "All systems work",
            Verdict::Warning => "Something is worth a look",
            Verdict::Critical => "Something is down",
            Verdict::Unknown => "The state is not known",
        };
        write!(
            out,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\"><title>{} · status</title><style>{STYLE}</style></head><body><main>\
             <h1>{}</h1><p class=\"now {}\" role=\"status\"><b>{headline}</b></p><p class=\"when\">as of {}; a page that is older than some minutes says nothing of now</p>",
            escape(&self.title),
            escape(&self.title),
            class(self.verdict),
            time(self.at)
        )?;
        for trouble in &self.troubles {
            let text = if self.details { redact(trouble) } else { "the monitor itself has a problem".into() };
            write!(out, "<p class=\"note\">{}</p>", escape(&text))?;
        }
        for component in &self.components {
            self.component(out, component)?;
        }
        write!(out, "<h2>Incidents of the last {DAYS} days</h2>")?;
        if self.incidents.is_empty() {
            write!(out, "<p>None was seen.</p>")?;
        }
        for incident in self.incidents.iter().take(50) {
            self.incident(out, incident)?;
        }
        write!(
            out,
            "<p class=\"legend\"><span class=\"key healthy\"></span>good <span class=\"key warning\"></span>short failures \
             <span class=\"key critical\"></span>an hour or more <span class=\"key partial\"></span>good as far as it was seen <span class=\"key none\"></span>nothing seen. \
             Uptime counts maintenance as customers see it; times are UTC.</p></main></body></html>"
        )
    }

    fn component(&self, out: &mut String, c: &Component) -> std::fmt::Result {
        write!(
            out,
            "<section aria-label=\"{0}\"><h3>{0}<span class=\"state {1}\">{2}</span></h3>",
            escape(&c.title),
            class(c.verdict),
            c.verdict.word().to_lowercase()
        )?;
        if self.details && !c.reason.is_empty() {
            write!(out, "<p class=\"why\">{}</p>", escape(&c.reason))?;
        }
        write!(
            out,
            "<svg class=\"bars\" viewBox=\"0 0 {} 24\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"the last {DAYS} days\">",
            DAYS * 4
        )?;
        for (at, day) in c.days.iter().enumerate() {
            let (kind, text) = match (day.uptime, day.coverage) {
                (Some(uptime), coverage) => {
                    let kind = match day.bad_s {
                        // A good minute of a day says nothing of the day.
                        0 if coverage.is_none_or(|c| c < PARTLY) => "partial",
                        0 => "healthy",
                        1..3600 => "warning",
                        _ => "critical",
                    };
                    let seen = coverage
                        .filter(|c| *c < 0.99)
                        .map(|c| format!(", {:.0} % seen", c * 100.0))
                        .unwrap_or_default();
                    (kind, format!("{}: {} up, {} down{seen}", day.date, percent(uptime), span(day.bad_s)))
                }
                (None, Some(_)) => ("none", format!("{}: nothing was seen", day.date)),
                (None, None) => ("none", format!("{}: not watched", day.date)),
            };
            write!(
                out,
                "<rect class=\"{kind}\" x=\"{}\" width=\"3\" height=\"24\"><title>{text}</title></rect>",
                at * 4
            )?;
        }
        let uptime = c.uptime.map_or("nothing seen".into(), |u| format!("{} uptime", percent(u)));
        let coverage = c
            .coverage
            .filter(|c| *c < 0.995)
            .map(|c| format!(", {} of the time watched", percent(c)))
            .unwrap_or_default();
        write!(
            out,
            "</svg><p class=\"scale\"><span>{DAYS} days ago</span><span>{uptime}{coverage}</span><span>today</span></p>"
        )?;
        self.chart(out, c)?;
        write!(out, "</section>")
    }

    fn chart(&self, out: &mut String, c: &Component) -> std::fmt::Result {
        let top = c.response_times.iter().map(|h| h.longest).fold(0.0, f64::max);
        if c.response_times.len() < 2 || top <= 0.0 {
            return Ok(());
        }
        let first = self.at - TimeDelta::days(7);
        let x =
            |h: &HourOfResponses| ((h.hour - first).num_minutes() as f64 / (7.0 * 1440.0) * 700.0).clamp(0.0, 700.0);
        let y = |n: f64| 58.0 - n / top * 54.0;
        write!(
            out,
            "<svg class=\"chart\" viewBox=\"0 0 700 60\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"response times of seven days\">"
        )?;
        for (kind, value) in [("longest", 0), ("mean", 1)] {
            let mut path = String::new();
            let mut last: Option<DateTime<Utc>> = None;
            for hour in &c.response_times {
                // A gap is a gap.
                let joined = last.is_some_and(|l| hour.hour - l <= TimeDelta::hours(1));
                let n = if value == 0 { hour.longest } else { hour.mean };
                write!(path, "{}{:.1} {:.1}", if joined { "L" } else { "M" }, x(hour), y(n))?;
                last = Some(hour.hour);
            }
            write!(out, "<path class=\"{kind}\" d=\"{path}\"/>")?;
        }
        let count: u64 = c.response_times.iter().map(|h| h.count).sum();
        let mean = c.response_times.iter().map(|h| h.mean * h.count as f64).sum::<f64>() / count.max(1) as f64;
        write!(
            out,
            "</svg><p class=\"scale\"><span>7 days ago</span><span>response time: mean {}, longest {}</span><span>now</span></p>",
            seconds(mean),
            seconds(top)
        )
    }

    fn incident(&self, out: &mut String, incident: &IncidentRecord) -> std::fmt::Result {
        let title = incident.root_member().map_or(incident.root.as_str(), |m| m.title.as_str());
        let end = match incident.resolved {
            Some(end) => format!(
                "{} to {}, {}",
                time(incident.opened),
                time(end),
                span((end - incident.opened).num_seconds().unsigned_abs())
            ),
            None => format!("since {}", time(incident.opened)),
        };
        let state = if incident.resolved.is_some() { "resolved" } else { "goes on" };
        write!(
            out,
            "<article class=\"{}\"><h3>{}<span class=\"state {}\">{state}</span></h3><p class=\"when\">{end}</p>",
            class(incident.severity),
            escape(title),
            if incident.resolved.is_some() { "healthy" } else { class(incident.severity) }
        )?;
        let rest: Vec<String> =
            incident.members.iter().filter(|m| m.probe != incident.root).map(|m| escape(&m.title)).collect();
        if !rest.is_empty() {
            write!(out, "<p>Also affected: {}</p>", rest.join(", "))?;
        }
        if self.details
            && let Some(root) = incident.root_member()
        {
            write!(out, "<p class=\"why\">{}</p>", escape(&redact(&root.reason)))?;
        }
        write!(out, "</article>")
    }
}

const STYLE: &str = "\
:root{--bg:#fff;--fg:#1c2530;--soft:#5b6673;--card:#f5f7f9;--line:#dde3e9;--healthy:#1f8a4c;--warning:#b97800;--critical:#c62f2f;--unknown:#6b7785;--none:#c9d1d9;--partial:#a5cfb5}\
@media(prefers-color-scheme:dark){:root{--bg:#12171d;--fg:#e6ebf0;--soft:#9aa7b4;--card:#1a2129;--line:#2b3540;--healthy:#3fb56f;--warning:#e0a030;--critical:#f06a6a;--unknown:#8a97a5;--none:#3a4550;--partial:#2c6144}}\
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}\
main{max-width:860px;margin:0 auto;padding:24px 16px 48px}h1{font-size:1.6rem;margin:0 0 12px}h2{font-size:1.2rem;margin:32px 0 8px}\
h3{font-size:1rem;margin:0;display:flex;justify-content:space-between;gap:12px}\
.now{padding:14px 16px;border-radius:10px;color:#fff;margin:0;font-size:1.1rem}.now.healthy{background:#1f8a4c}.now.warning{background:#996300}.now.critical{background:#b92b2b}.now.unknown{background:#5b6673}\
.when,.scale,.legend,.why{color:var(--soft);font-size:.85rem;margin:4px 0}.why{color:var(--fg)}.note{border-left:4px solid var(--warning);padding:4px 12px}\
section,article{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;margin:12px 0}article{border-left:4px solid var(--unknown)}\
article.critical{border-left-color:var(--critical)}article.warning{border-left-color:var(--warning)}\
.state{font-weight:600;font-size:.85rem;white-space:nowrap}.state.healthy{color:var(--healthy)}.state.warning{color:var(--warning)}.state.critical{color:var(--critical)}.state.unknown{color:var(--unknown)}\
.bars{width:100%;height:28px;margin-top:8px;display:block}rect.healthy{fill:var(--healthy)}rect.warning{fill:var(--warning)}rect.critical{fill:var(--critical)}rect.none{fill:var(--none)}rect.partial{fill:var(--partial)}\
.chart{width:100%;height:60px;margin-top:8px;display:block}.chart path{fill:none;stroke-width:1.5;vector-effect:non-scaling-stroke}.mean{stroke:var(--healthy)}.longest{stroke:var(--none)}\
.scale{display:flex;justify-content:space-between;gap:8px;text-align:center}.scale span:first-child,.scale span:last-child{white-space:nowrap;overflow-wrap:normal}.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 4px 0 10px}\
.key.healthy{background:var(--healthy)}.key.warning{background:var(--warning)}.key.critical{background:var(--critical)}.key.none{background:var(--none)}.key.partial{background:var(--partial)}";

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::Warning => "warning",
        Verdict::Critical => "critical",
        Verdict::Unknown => "unknown",
    }
}

fn time(t: DateTime<Utc>) -> String {
    t.format("%F %H:%M UTC").to_string()
}

/// Rounded down: 99.999 % is not 100 %.
fn percent(share: f64) -> String {
    format!("{:.2} %", (share * 10_000.0 + 1e-7).floor() / 100.0)
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

fn seconds(n: f64) -> String {
    if n < 1.0 { format!("{:.0} ms", n * 1000.0) } else { format!("{n:.1} s") }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
