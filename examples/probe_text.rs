//! What `probe` says to people.

use health_probe::ledger::Counts;
use health_probe::logs::{Faults, Traffic};
use health_probe::slo::{Budget, Burn};
use health_probe::{Look, Message, MetricReport, Verdict};
use serde::Serialize;

use crate::cli::say;

/// One line for each look, the worst first; with `all`, readings and evidence too.
pub fn looks(looks: &[Look], all: bool) {
    let mut order: Vec<&Look> = looks.iter().collect();
    order.sort_by_key(|l| std::cmp::Reverse(l.judgement.verdict.rank()));
    for look in order {
        say(&format!("{:8}  {}: {}", look.judgement.verdict.word(), look.title, look.judgement.reason()));
        let bad = !look.judgement.verdict.is_healthy();
        for finding in look.judgement.findings.iter().filter(|_| all) {
            say(&format!("            {:8}  {}", finding.verdict.word(), finding.reason));
        }
        let Some(seen) = &look.seen else { continue };
        for failure in &seen.earlier_failures {
            say(&format!("            before: {failure}"));
        }
        for line in seen.evidence.iter().take(if all { 50 } else { 3 }).filter(|_| all || bad) {
            say(&format!("            {line}"));
        }
    }
}

/// A message, in one line.
pub fn message(message: &Message) {
    say(&format!("{}  {}", message.at.format("%F %T"), message.subject()));
}

/// How a service level stands.
#[derive(Debug, Serialize)]
pub struct Level {
    /// The probe.
    pub probe: String,
    /// The share of good time that is aimed at.
    pub target: f64,
    /// Over so many days.
    pub days: u32,
    /// Its verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Maintenance left out.
    pub budget: Budget,
    /// As customers see it.
    pub strict: Budget,
    /// How fast it burns.
    pub burns: Vec<Burn>,
}

/// Service levels.
pub fn levels(levels: &[Level]) {
    for l in levels {
        say(&format!("{:8}  {}: {}", l.verdict.word(), l.probe, l.reason));
        say(&format!(
            "            {} % over {} days: {} of bad time used, {} allowed ({:.1} % left); as customers see it: {}",
            l.target * 100.0,
            l.days,
            time(l.budget.used_s),
            time(l.budget.allowed_s),
            l.budget.remaining * 100.0,
            l.strict.uptime.map_or("nothing seen".into(), |u| format!("{:.3} % up", u * 100.0)),
        ));
        let Counts { good, bad, missing, maintenance, .. } = l.budget.counts;
        say(&format!("            looks: {good} good, {bad} bad, {missing} missing, {maintenance} under maintenance"));
    }
}

/// An access log.
pub fn traffic(file: &str, traffic: &Traffic) {
    let by = traffic.by_class;
    say(&format!(
        "{file}: {} lines ({} unreadable), {} of bots; 2xx {}, 3xx {}, 4xx {}, 5xx {}",
        traffic.lines, traffic.unreadable, traffic.bots, by[2], by[3], by[4], by[5]
    ));
    top("server errors", traffic.error_paths.most(10));
    top("not found", traffic.not_found.most(10));
    top("given out, and only scanners ask for it", traffic.exposed.most(10));
    top("scanners", traffic.scanners.most(10));
    top("failed log-ins by address", traffic.failed_logins.addresses.most(10));
    top("failed log-ins by account", traffic.failed_logins.accounts.most(10));
}

/// An error log.
pub fn faults(file: &str, faults: &Faults) {
    say(&format!("{file}: {} lines, {} errors and worse", faults.lines, faults.errors()));
    for fault in faults.groups().into_iter().take(20) {
        say(&format!("  {:>7}  {:?}: {}", fault.count, fault.level, fault.example));
    }
    if faults.ungrouped > 0 {
        say(&format!("  {:>7}  of more kinds than there is room for", faults.ungrouped));
    }
}

/// Figures of the business.
pub fn metrics(reports: &[MetricReport]) {
    for r in reports {
        let recent = r.recent.map_or("no value".into(), |n| format!("{n:.2} {}", r.unit));
        let target = r.target.map(|t| format!(", target {t}")).unwrap_or_default();
        let trend = r.trend.map(|t| format!(", {t:+.2} % a day")).unwrap_or_default();
        match r.recent {
            None if !r.values.is_empty() => {
                say(&format!("{:8}  {}", r.verdict.word(), r.name));
                r.values
                    .iter()
                    .take(10)
                    .for_each(|(name, n)| say(&format!("            {n:>10.2} {}  {name}", r.unit)));
            }
            _ => say(&format!("{:8}  {}: {recent} (mean of 7 days{target}{trend})", r.verdict.word(), r.name)),
        }
    }
}

fn top(title: &str, list: Vec<(&str, u64)>) {
    if !list.is_empty() {
        say(&format!("  {title}:"));
        list.iter().for_each(|(what, n)| say(&format!("  {n:>9}  {what}")));
    }
}

fn time(seconds: f64) -> String {
    format!("{} m {:.0} s", (seconds / 60.0).floor(), seconds % 60.0)
}
