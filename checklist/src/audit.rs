//! An audit: every check, every item, what people said, and what it all comes to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::item::{Check, Context, Item, Tier};
use crate::outcome::{Evidence, Finding, Outcome, Place};
use crate::score::{Score, score};
use crate::standing::{Attestation, Standing, Waiver};

/// Checks at once.
const CONCURRENCY: usize = 6;

/// Items, the checks that speak for them, and how they are run.
///
/// ```
/// use async_trait::async_trait;
/// use checklist::{Auditor, Check, Context, Finding, Item, Outcome, Result, Standing};
///
/// #[derive(Debug)]
/// struct Lights;
///
/// #[async_trait]
/// impl Check for Lights {
///     fn id(&self) -> &str { "shop.lights" }
///     fn item(&self) -> &str { "shop.closed-at-night" }
///     async fn run(&self, _: &Context) -> Result<Finding> { Ok(Finding::pass("they are off")) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let items = vec![Item::new("shop.closed-at-night", "House", "Lights are off at night")];
/// let audit = Auditor::new(items).with_check(Lights).run("the shop", &Context::at(chrono::Utc::now()), &Standing::default()).await;
/// assert_eq!(audit.items[0].outcome, Outcome::Pass);
/// assert_eq!(audit.score.expect("an item was asked").value(), 1.0);
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Auditor {
    items: Vec<Item>,
    checks: Vec<Arc<dyn Check>>,
    staging: bool,
    limit: Option<Duration>,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Audit {
    /// When.
    pub at: DateTime<Utc>,
    /// Of what: the shop's name or address.
    pub target: String,
    /// Each item.
    pub items: Vec<ItemReport>,
    /// The score of all; `None` where nothing concerns the shop.
    pub score: Option<Score>,
    /// The score of each section, in their order.
    pub sections: Vec<(String, Option<Score>)>,
}

/// What an item came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ItemReport {
    /// The item.
    pub item: Item,
    /// What it came to.
    pub outcome: Outcome,
    /// Why, in one sentence.
    pub reason: String,
    /// What each check found.
    pub checks: Vec<CheckReport>,
    /// What a person said of it, as far as that counts.
    pub attestation: Option<Attestation>,
    /// Who answers for it as it is.
    pub waiver: Option<Waiver>,
    /// A hash over what the checks saw: what a person attests is bound to it.
    pub digest: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// The check.
    pub check: String,
    /// What it may do.
    pub tier: Tier,
    /// What it came to.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
    /// Where.
    pub places: Vec<Place>,
    /// By what that is known, and until when; `None` where nothing was seen.
    pub evidence: Option<Evidence>,
}

impl Auditor {
    /// Of these items, without checks. An item whose name is there twice counts in its last form: so embedders replace ours.
    pub fn new(items: Vec<Item>) -> Self {
        let mut kept: Vec<Item> = Vec::new();
        for item in items {
            match kept.iter_mut().find(|k| k.id == item.id) {
                Some(same) => *same = item,
                None => kept.push(item),
            }
        }
        Self { items: kept, ..Self::default() }
    }

    /// The same with a check.
    #[must_use]
    pub fn with_check(self, check: impl Check + 'static) -> Self {
        self.with_checks([Arc::new(check) as Arc<dyn Check>])
    }

    /// The same with checks; one of a name that is there already takes its place.
    #[must_use]
    pub fn with_checks(mut self, checks: impl IntoIterator<Item = Arc<dyn Check>>) -> Self {
        for check in checks {
            self.checks.retain(|known| known.id() != check.id());
            self.checks.push(check);
        }
        self
    }

    /// The same where the target is staging, and may be attacked; without it such checks do not run.
    #[must_use]
    pub fn on_staging(mut self, staging: bool) -> Self {
        self.staging = staging;
        self
    }

    /// The same with another limit for each check; two minutes without.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Looks at everything. A check that fails, panics or takes too long is unknown. Dropping the future ends all checks.
    pub async fn run(&self, target: &str, cx: &Context, standing: &Standing) -> Audit {
        // Boxed here, or the compiler does not see that the whole may go to another thread.
        let looks: Vec<_> = self.checks.iter().map(|check| self.one(Arc::clone(check), *cx).boxed()).collect();
        let reports: Vec<(String, CheckReport)> =
            futures::stream::iter(looks).buffer_unordered(CONCURRENCY).collect().await;
        let mut of_item: BTreeMap<&str, Vec<CheckReport>> = BTreeMap::new();
        for (item, report) in &reports {
            of_item.entry(item).or_default().push(report.clone());
        }
        let mut all: Vec<Item> = self.items.clone();
        for (item, _) in &reports {
            // A check that speaks for an item which nobody listed is not lost.
            if !all.iter().any(|known| known.id == *item) {
                all.push(Item::new(item.clone(), "Other", item.clone()));
            }
        }
        let items = all.iter().map(|item| {
            let mut checks = of_item.remove(item.id.as_str()).unwrap_or_default();
            checks.sort_by(|a, b| a.check.cmp(&b.check));
            ItemReport::of(item.clone(), checks, standing, cx.now)
        });
        Audit::of(cx.now, target.to_owned(), items.collect())
    }

    async fn one(&self, check: Arc<dyn Check>, cx: Context) -> (String, CheckReport) {
        let (id, item, tier, days) = (check.id().to_owned(), check.item().to_owned(), check.tier(), check.valid_days());
        let limit = self.limit.unwrap_or(Duration::from_secs(120));
        let found = if tier == Tier::StagingActive && !self.staging {
            Finding::not_applicable("it does what an attacker would: only where the target is declared to be staging")
        } else {
            // In a task of its own, so that a panic is an outcome.
            let mut task = tokio::task::JoinSet::new();
            task.spawn(async move { check.run(&cx).await });
            match tokio::time::timeout(limit, task.join_next()).await {
                Ok(Some(Ok(Ok(found)))) => found,
                Ok(Some(Ok(Err(e)))) => {
                    let next = e.next_step().map(|n| format!(" (next: {n})")).unwrap_or_default();
                    Finding::unknown(format!("{e}{next}"))
                }
                Ok(_) => Finding::unknown("the check itself broke"),
                Err(_) => Finding::unknown(format!("did not end within {} s", limit.as_secs_f64())),
            }
        };
        let seen = !matches!(found.outcome, Outcome::Unknown | Outcome::NotApplicable);
        let evidence = seen.then(|| Evidence::of(&id, &found, cx.now, days));
        let Finding { outcome, reason, places, .. } = found;
        (item, CheckReport { check: id, tier, outcome, reason, places, evidence })
    }
}

impl Audit {
    fn of(at: DateTime<Utc>, target: String, items: Vec<ItemReport>) -> Self {
        let mut sections: Vec<(String, Vec<Outcome>)> = Vec::new();
        for item in &items {
            match sections.iter_mut().find(|(name, _)| *name == item.item.section) {
                Some((_, outcomes)) => outcomes.push(item.outcome),
                None => sections.push((item.item.section.clone(), vec![item.outcome])),
            }
        }
        Self {
            at,
            target,
            score: score(items.iter().map(|i| i.outcome)),
            sections: sections.into_iter().map(|(name, outcomes)| (name, score(outcomes))).collect(),
            items,
        }
    }

    /// The same audit as it counts at `now`, by what people say by then: evidence, attestations and waivers that have expired
    /// count no more.
    #[must_use]
    pub fn as_of(&self, now: DateTime<Utc>, standing: &Standing) -> Self {
        let items = self.items.iter().map(|report| {
            let mut checks = report.checks.clone();
            for check in &mut checks {
                if check.evidence.as_ref().is_some_and(|e| e.expires <= now) {
                    check.outcome = Outcome::Unknown;
                    check.reason = format!("looked at too long ago: {}", check.reason);
                    // What was attested was attested of what was seen then.
                    check.evidence = None;
                }
            }
            ItemReport::of(report.item.clone(), checks, standing, now)
        });
        Self::of(self.at, self.target.clone(), items.collect())
    }

    /// Whether nothing is open: every item passes, is attested, waived, or does not concern the shop.
    pub fn is_clean(&self) -> bool {
        self.items.iter().all(|i| i.outcome.is_good() || matches!(i.outcome, Outcome::Waived | Outcome::NotApplicable))
    }

    /// The items whose outcome is another one than in `before`: name, before, now. What is only in one of them is not among them.
    pub fn changes<'a>(&'a self, before: &Self) -> Vec<(&'a ItemReport, Outcome)> {
        let was = |item: &ItemReport| before.items.iter().find(|b| b.item.id == item.item.id).map(|b| b.outcome);
        self.items.iter().filter_map(|i| Some((i, was(i)?)).filter(|(i, was)| i.outcome != *was)).collect()
    }
}

impl ItemReport {
    /// Pure: what an item comes to.
    fn of(item: Item, checks: Vec<CheckReport>, standing: &Standing, now: DateTime<Utc>) -> Self {
        let digest = digest(&checks);
        let attestation = standing.attestation(&item.id).filter(|_| item.attest.is_some());
        let waiver = standing.waiver(&item.id).filter(|w| w.until > now).cloned();
        let (mut outcome, mut reason) = automatic(&checks);
        let asked = checks.iter().any(|c| c.outcome != Outcome::NotApplicable);
        let concerns = checks.is_empty() || asked;
        if concerns && item.attest.is_some() && !matches!(outcome, Outcome::Fail | Outcome::Warn) {
            let said = attestation.map(|a| a.standing(&digest, now));
            // A person's word stands beside what checks see: where they saw nothing it does not stand for it.
            let blind = item.needs_attestation && outcome == Outcome::Unknown && !checks.is_empty();
            match said {
                _ if blind => {}
                Some(Ok(said)) if outcome != Outcome::Pass || item.needs_attestation => {
                    (outcome, reason) = (Outcome::Attested, said);
                }
                Some(Ok(_)) => {}
                Some(Err(why)) if outcome != Outcome::Pass || item.needs_attestation => {
                    (outcome, reason) = (Outcome::Unknown, why);
                }
                None if outcome == Outcome::Pass && item.needs_attestation => {
                    outcome = Outcome::Unknown;
                    reason =
                        format!("nothing speaks against it ({reason}), and somebody has to attest: {}", what(&item));
                }
                None if matches!(outcome, Outcome::Unknown | Outcome::NotApplicable) => {
                    outcome = Outcome::Unknown;
                    reason = format!("{reason}; somebody may attest: {}", what(&item));
                }
                _ => {}
            }
        } else if let (Some(Ok(said)), true) = (attestation.map(|a| a.standing(&digest, now)), outcome == Outcome::Fail)
        {
            // What was seen wins over what was said.
            reason = format!("{reason}; this contradicts what was attested ({said})");
        }
        if let Some(waiver) = &waiver
            && matches!(outcome, Outcome::Fail | Outcome::Warn | Outcome::Unknown)
        {
            reason =
                format!("{reason}; waived by {} until {}: {}", waiver.by, waiver.until.date_naive(), waiver.reason);
            outcome = Outcome::Waived;
        } else if let Some(expired) = standing.waiver(&item.id).filter(|w| w.until <= now)
            && !outcome.is_good()
        {
            reason = format!("{reason}; the waiver of {} ended on {}", expired.by, expired.until.date_naive());
        }
        Self { outcome, reason, checks, attestation: attestation.cloned(), waiver, digest, item }
    }
}

fn what(item: &Item) -> &str {
    item.attest.as_deref().unwrap_or_default()
}

/// What the checks come to: the gravest; nothing where there is none.
fn automatic(checks: &[CheckReport]) -> (Outcome, String) {
    match checks.iter().max_by_key(|c| c.outcome.gravity()) {
        None => (Outcome::Unknown, "nothing was given to look at".into()),
        Some(gravest) => {
            let mut all: Vec<&str> = Vec::new();
            for check in checks.iter().filter(|c| c.outcome == gravest.outcome) {
                if !all.contains(&check.reason.as_str()) {
                    all.push(&check.reason);
                }
            }
            (gravest.outcome, all.join("; "))
        }
    }
}

/// Over what the checks saw, and nothing that changes without it.
fn digest(checks: &[CheckReport]) -> String {
    let mut hasher = Sha256::new();
    for evidence in checks.iter().filter_map(|c| c.evidence.as_ref()) {
        hasher.update(format!("{} {}\n", evidence.method, evidence.digest));
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn noon() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-26T12:00:00Z").unwrap().to_utc()
    }

    /// An audit may run beside other work.
    #[tokio::test]
    async fn an_audit_can_be_spawned() {
        let audit = tokio::spawn(async {
            Auditor::new(Vec::new()).run("shop", &Context::at(noon()), &Standing::default()).await
        });
        assert_eq!(audit.await.unwrap().target, "shop");
    }

    fn check(outcome: Outcome, fact: &str) -> CheckReport {
        let finding = Finding { outcome, ..Finding::pass("as seen").with_fact(fact) };
        let seen = !matches!(outcome, Outcome::Unknown | Outcome::NotApplicable);
        CheckReport {
            check: "a.check".into(),
            tier: Tier::Passive,
            outcome,
            reason: "as seen".into(),
            places: Vec::new(),
            evidence: seen.then(|| Evidence::of("a.check", &finding, noon(), 7)),
        }
    }

    fn item(always: bool) -> Item {
        Item::new("x", "s", "t").with_attestation("it is so", always)
    }

    fn attested(digest: &str, days: i64) -> Standing {
        let mut standing = Standing::default();
        standing.attest(Attestation {
            item: "x".into(),
            by: "Anna".into(),
            at: noon(),
            until: noon() + TimeDelta::days(days),
            statement: "I looked".into(),
            digest: digest.into(),
        });
        standing
    }

    fn outcome(item: Item, checks: Vec<CheckReport>, standing: &Standing) -> Outcome {
        ItemReport::of(item, checks, standing, noon()).outcome
    }

    #[test]
    fn what_was_seen_wins_and_what_changed_opens_again() {
        use Outcome::{Attested, Fail, NotApplicable, Pass, Unknown, Warn};
        let none = Standing::default();
        let seen = digest(&[check(Pass, "text 1")]);
        let said = attested(&seen, 30);
        assert_eq!(outcome(item(true), vec![check(Pass, "text 1")], &none), Unknown, "a person has to say it");
        assert_eq!(outcome(item(false), vec![check(Pass, "text 1")], &none), Pass);
        assert_eq!(outcome(item(true), vec![check(Pass, "text 1")], &said), Attested);
        assert_eq!(outcome(item(true), vec![check(Pass, "text 2")], &said), Unknown, "the fact changed");
        assert_eq!(outcome(item(true), vec![check(Fail, "text 1")], &said), Fail, "what was seen wins");
        assert_eq!(outcome(item(true), vec![check(Warn, "text 1")], &said), Warn);
        assert_eq!(outcome(item(true), vec![check(Pass, "text 1")], &attested(&seen, 0)), Unknown, "expired");
        assert_eq!(outcome(item(false), vec![check(NotApplicable, "")], &none), NotApplicable);
        // Where nothing could be seen, a person who said it without a fact still counts.
        let blind = attested(&digest(&[]), 30);
        assert_eq!(outcome(item(false), vec![check(Unknown, "")], &blind), Attested);
        assert_eq!(outcome(item(false), Vec::new(), &none), Unknown);
        let plain = Item::new("x", "s", "t");
        assert_eq!(outcome(plain.clone(), vec![check(Unknown, "")], &blind), Unknown, "nobody may attest that");
        assert_eq!(outcome(plain, vec![check(Pass, ""), check(Unknown, "")], &none), Unknown, "half seen is not seen");
    }

    #[test]
    fn a_waiver_ends_and_evidence_does_too() {
        let mut standing = Standing::default();
        let waiver = |days| Waiver {
            item: "x".into(),
            by: "Ben".into(),
            reason: "next week".into(),
            at: noon(),
            until: noon() + TimeDelta::days(days),
        };
        standing.waive(waiver(3));
        let plain = Item::new("x", "s", "t");
        assert_eq!(outcome(plain.clone(), vec![check(Outcome::Fail, "")], &standing), Outcome::Waived);
        assert_eq!(outcome(plain.clone(), vec![check(Outcome::Pass, "")], &standing), Outcome::Pass);
        standing.waive(waiver(-1));
        let open = ItemReport::of(plain.clone(), vec![check(Outcome::Fail, "")], &standing, noon());
        assert_eq!(open.outcome, Outcome::Fail);
        assert!(open.reason.contains("the waiver of Ben ended"), "{}", open.reason);
        let report = ItemReport::of(plain, vec![check(Outcome::Pass, "")], &Standing::default(), noon());
        let audit = Audit::of(noon(), "shop".into(), vec![report]);
        assert_eq!(audit.as_of(noon() + TimeDelta::days(6), &Standing::default()).items[0].outcome, Outcome::Pass);
        let late = audit.as_of(noon() + TimeDelta::days(8), &Standing::default());
        assert_eq!(late.items[0].outcome, Outcome::Unknown);
        assert_eq!(late.changes(&audit).len(), 1);
        assert!(!late.is_clean() && audit.is_clean());
    }
}
