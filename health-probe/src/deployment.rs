//! After a deployment: was it better before?
//!
//! A baseline before, the same looks at once afterwards, then a watch whose looks become rarer over 24 hours, each compared with
//! the baseline: by the share of looks that failed (exact binomial test) and by response times (Mann and Whitney's test and the
//! shift of Hodges and Lehmann), so that neither one slow answer nor noise rolls anything back.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::judge::Verdict;
use crate::monitor::{Clock, Look, Watch};
use crate::statistics::{binomial_at_least, mann_whitney_larger, median, shift};

/// Looks of a probe that a sample keeps.
const KEPT: usize = 200;

/// What looks saw of each probe.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When it was begun.
    #[serde(default)]
    taken_at: Option<DateTime<Utc>>,
    probes: BTreeMap<String, OfProbe>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct OfProbe {
    /// In order: whether each look was healthy.
    healthy: Vec<bool>,
    verdicts: Vec<Verdict>,
    times: Vec<f64>,
    reason: String,
    /// Looks at which there was nothing to judge, such as payments at night.
    #[serde(default)]
    idle: u32,
}

/// What to do about a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advice {
    /// Nothing is worse.
    Keep,
    /// Something is worse, and not so much that it has to go back.
    Watch,
    /// Something that worked is broken.
    RollBack,
    /// Too little was seen to say anything, which is no "keep".
    Unknown,
}

/// A comparison, with its reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Comparison {
    /// What to do.
    pub advice: Advice,
    /// Why, the worst first.
    pub reasons: Vec<String>,
}

/// When to look, and what is too much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeploymentOptions {
    /// Rounds of looks before.
    pub baseline_rounds: u32,
    /// Rounds of looks at once afterwards.
    pub first_rounds: u32,
    /// Seconds between those rounds.
    pub pause_s: u32,
    /// Hours of watching after them.
    pub watch_hours: u32,
    /// Looks in a row that have to be critical, where they were not before; as many, not in a row, have to be more than chance gives
    /// (exact binomial test, 0.1 %).
    pub critical_in_a_row: u32,
    /// By how much slower, as a share of the median before, is worth a look; twice that is worth going back.
    pub slower: f64,
}

impl Default for DeploymentOptions {
    /// Ten rounds before and after, five seconds apart, 24 hours, three in a row, half as slow again.
    fn default() -> Self {
        Self { baseline_rounds: 10, first_rounds: 10, pause_s: 5, watch_hours: 24, critical_in_a_row: 3, slower: 0.5 }
    }
}

impl Sample {
    /// Adds what a look saw.
    pub fn add(&mut self, look: &Look) {
        self.taken_at.get_or_insert(look.began);
        let of = self.probes.entry(look.probe.clone()).or_default();
        if look.judgement.is_idle() {
            of.idle += 1;
            return;
        }
        of.healthy.push(look.judgement.verdict.is_healthy());
        of.verdicts.push(look.judgement.verdict);
        of.times.extend(look.response_time.map(|t| t.as_secs_f64()));
        if !look.judgement.verdict.is_healthy() {
            of.reason = look.judgement.reason();
        }
        // Of a long watch, the last two hundred looks count.
        of.healthy.drain(..of.healthy.len().saturating_sub(KEPT));
        of.verdicts.drain(..of.verdicts.len().saturating_sub(KEPT));
        of.times.drain(..of.times.len().saturating_sub(KEPT));
    }

    /// When it was begun; `None` of one without a look.
    pub fn taken_at(&self) -> Option<DateTime<Utc>> {
        self.taken_at
    }

    /// Looks at all probes so often, with a pause in between.
    pub async fn take(watches: &[Arc<Watch>], rounds: u32, pause: Duration, clock: &Clock) -> Self {
        let mut sample = Self::default();
        for round in 0..rounds {
            if round > 0 {
                tokio::time::sleep(pause).await;
            }
            let looks = watches.iter().map(|w| w.look_now(clock.now()));
            for look in futures::future::join_all(looks).await {
                sample.add(&look);
            }
        }
        sample
    }

    /// Holds what was seen afterwards against this.
    pub fn compare(&self, after: &Self, options: &DeploymentOptions) -> Comparison {
        let mut found: Vec<(Advice, String)> = Vec::new();
        for (probe, before) in &self.probes {
            match after.probes.get(probe) {
                Some(after) => found.extend(compare(probe, before, after, options)),
                None => found.push((Advice::Unknown, format!("{probe}: was not looked at afterwards"))),
            }
        }
        // Of quiet probes alone, as of none, nothing follows.
        if self.probes.values().all(|of| of.healthy.is_empty()) {
            found.push((Advice::Unknown, "nothing was seen before".into()));
        }
        let rank = |advice: &Advice| match advice {
            Advice::RollBack => 3,
            Advice::Unknown => 2,
            Advice::Watch => 1,
            Advice::Keep => 0,
        };
        found.sort_by_key(|(advice, _)| std::cmp::Reverse(rank(advice)));
        let advice = found.first().map_or(Advice::Keep, |(advice, _)| *advice);
        Comparison { advice, reasons: found.into_iter().map(|(_, reason)| reason).collect() }
    }
}

fn compare(probe: &str, before: &OfProbe, after: &OfProbe, options: &DeploymentOptions) -> Vec<(Advice, String)> {
    let mut found = Vec::new();
    let bad = |of: &OfProbe| of.healthy.iter().filter(|h| !**h).count() as u64;
    let (n, m) = (before.healthy.len() as u64, after.healthy.len() as u64);
    // Nothing to judge on one side, and that is known: nothing to compare.
    if (n == 0 && before.idle > 0) || (m == 0 && after.idle > 0) {
        return found;
    }
    if n == 0 || m == 0 {
        return vec![(Advice::Unknown, format!("{probe}: was not looked at"))];
    }
    let seen = |of: &OfProbe| of.verdicts.iter().any(|v| *v != Verdict::Unknown);
    if !seen(after) {
        found.push((Advice::Unknown, format!("{probe}: cannot be seen any more: {}", after.reason)));
    }
    // Laplace's estimate, for a baseline without a failure does not prove that there never is one.
    let more = |bad: u64, before: u64, below: f64| {
        let rate = (before as f64 + 1.0) / (n as f64 + 2.0);
        binomial_at_least(bad, m, rate).is_some_and(|p| p < below)
    };
    let criticals = |of: &OfProbe| of.verdicts.iter().filter(|v| **v == Verdict::Critical).count() as u64;
    let (broken, before_broken) = (criticals(after), criticals(before));
    let row = after.verdicts.iter().rev().take_while(|v| **v == Verdict::Critical).count();
    let was = before.verdicts.iter().filter(|v| **v == Verdict::Critical).count();
    if row >= options.critical_in_a_row.max(1) as usize && was * 2 < before.verdicts.len() {
        found.push((Advice::RollBack, format!("{probe}: critical {row} times in a row: {}", after.reason)));
    } else if broken >= options.critical_in_a_row.into() && more(broken, before_broken, 0.001) {
        // One request of two that fails is never three in a row.
        let text =
            format!("{probe}: critical at {broken} of {m} looks, {before_broken} of {n} before: {}", after.reason);
        found.push((Advice::RollBack, text));
    } else if bad(after) > 0 && more(bad(after), bad(before), 0.01) {
        let text = format!(
            "{probe}: {} of {m} looks were not healthy, {} of {n} before: {}",
            bad(after),
            bad(before),
            after.reason
        );
        found.push((Advice::Watch, text));
    }
    if let (Some(p), Some(by), Some(usual)) =
        (mann_whitney_larger(&before.times, &after.times), shift(&before.times, &after.times), median(&before.times))
        && p < 0.01
        && usual > 0.0
        // Fifty milliseconds are felt by nobody.
        && by > 0.05
        && by / usual > options.slower
    {
        let text =
            format!("{probe}: slower by {:.0} ms, {:.0} % of what it took before", by * 1000.0, by / usual * 100.0);
        found
            .push((if by / usual > 2.0 * options.slower && by > 1.0 { Advice::RollBack } else { Advice::Watch }, text));
    }
    found
}

/// When to look after a deployment: every 10 s for five minutes, every minute for an hour, every five for six, then every 15.
pub fn pause_after(since: Duration) -> Duration {
    Duration::from_secs(match since.as_secs() {
        0..300 => 10,
        300..3600 => 60,
        3600..21_600 => 300,
        _ => 900,
    })
}

/// What a watch came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeploymentReport {
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// The last comparison: the one that a rollback acts on.
    pub comparison: Comparison,
    /// Rounds of looks.
    pub rounds: u32,
}

/// Watches a deployment: the first rounds, then ever rarer ones. Ends early where it has to go back.
///
/// `seen` is called after each comparison. Cancel safe: it only looks.
pub async fn watch(
    watches: &[Arc<Watch>],
    baseline: &Sample,
    options: &DeploymentOptions,
    clock: &Clock,
    stop: impl Future<Output = ()>,
    mut seen: impl FnMut(&Comparison),
) -> DeploymentReport {
    let began = clock.now();
    let pause = Duration::from_secs(options.pause_s.into());
    let mut after = Sample::default();
    let mut rounds = 0;
    let end = began + TimeDelta::hours(options.watch_hours.into());
    let mut stop = std::pin::pin!(stop);
    loop {
        let looks = futures::future::join_all(watches.iter().map(|w| w.look_now(clock.now()))).await;
        looks.iter().for_each(|look| after.add(look));
        rounds += 1;
        let first = rounds < options.first_rounds;
        let mut comparison = baseline.compare(&after, options);
        if first && comparison.advice == Advice::Keep {
            comparison.advice = Advice::Unknown;
            comparison.reasons.push(format!("{rounds} of the first {} rounds", options.first_rounds));
        }
        seen(&comparison);
        let now = clock.now();
        let report = |comparison| DeploymentReport { began, ended: now, comparison, rounds };
        if comparison.advice == Advice::RollBack || (!first && now >= end) {
            return report(comparison);
        }
        let wait = if first { pause } else { pause_after((now - began).to_std().unwrap_or_default()) };
        tokio::select! {
            () = &mut stop => return report(comparison),
            () = tokio::time::sleep(wait) => {}
        }
    }
}
