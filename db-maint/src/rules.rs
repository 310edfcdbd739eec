//! A shop's own rules held against its database: whether each of them fits the schema, what they would have to do, and whether
//! that is done.

use chrono::{DateTime, TimeDelta, Utc};

use crate::access;
use crate::batch::check as check_work;
use crate::batch::work;
use crate::error::{Error, ErrorKind, Result};
use crate::finding::{Finding, Outcome, Severity};
use crate::policy::{Period, Policy};
use crate::session::Session;
use crate::shop::{cache, carts, content, privacy, stock};
use crate::statement::Piece;

pub(crate) const POLICY: &str = "policy";
pub(crate) const ORPHANS: &str = "orphans";
pub(crate) const OVERDUE: &str = "retention-overdue";

/// How much later than the rule says rows may go before somebody is told: a clean-up runs once a day.
const GRACE: TimeDelta = TimeDelta::days(2);

/// What the checks are where there is no policy.
pub(crate) fn without() -> Vec<(&'static str, Outcome)> {
    let nothing = || Outcome::not_applicable("no policy was given");
    [POLICY, ORPHANS, OVERDUE, content::ID].into_iter().map(|id| (id, nothing())).collect()
}

/// Holds all rules against the database, and changes nothing.
pub(crate) async fn check(session: &mut Session, policy: &Policy, now: DateTime<Utc>) -> Vec<(&'static str, Outcome)> {
    vec![
        (POLICY, lint(session, policy, now).await),
        (ORPHANS, orphans(session, policy, now).await),
        (OVERDUE, overdue(session, policy, now).await),
        (content::ID, content::check(session, &policy.content, now).await),
    ]
}

/// Which rules cannot run, and why: each by itself, so that all are known at once.
async fn lint(session: &mut Session, policy: &Policy, now: DateTime<Utc>) -> Outcome {
    let mut lint = Lint::default();
    for twice in policy.names_used_twice() {
        lint.found(&twice, "two rules are called so".into(), Some("give each a name of its own"));
    }
    for hold in &policy.hold {
        let fits = work::check_holds(session, std::slice::from_ref(hold)).await;
        lint.rule(&format!("hold: {}", hold.reason), fits);
        if !hold.holds(now) {
            lint.found(&format!("hold: {}", hold.reason), "it is over, and holds nothing".into(), Some("remove it"));
        }
    }
    for rule in &policy.retention {
        let fits = match work::retention(session, policy, rule, now).await {
            Ok(work) => check_work(session, &work).await,
            Err(e) => Err(e),
        };
        lint.rule(&rule.name, fits);
    }
    for rule in &policy.reference {
        let fits = match work::reference(session, policy, rule, now).await {
            Ok(work) => check_work(session, &work).await,
            Err(e) => Err(e),
        };
        lint.rule(&rule.name, fits);
    }
    if let Some(cycle) = policy.cycle() {
        let text = format!("what one deletes makes orphans for the next, in a circle: {}", cycle.join(" → "));
        lint.found("references", text, Some("run `orphans` until it finds nothing, or let one of them report alone"));
    }
    for data in &policy.privacy {
        lint.rule(&format!("privacy of {}", data.table), privacy::fits(session, policy, data, now).await);
    }
    if let Some(rule) = &policy.stock {
        lint.rule("stock", stock::look(session, rule).await.map(drop));
    }
    if let Some(rule) = &policy.cart {
        lint.rule("cart", carts::abandoned(session, rule, now).await.map(drop));
    }
    for rule in &policy.content {
        lint.rule(&rule.name, content::fits(session, rule, now).await);
    }
    for action in &policy.cache {
        lint.rule(&action.name, cache::fits(action));
    }
    if let Some(rule) = &policy.access {
        lint.rule("access", access::fits(session, rule, now).await);
    }
    if lint.examined == 0 && lint.findings.is_empty() {
        return Outcome::not_applicable("the policy has no rule");
    }
    Outcome::of(lint.examined, lint.findings, lint.unknown)
}

#[derive(Default)]
struct Lint {
    examined: u64,
    findings: Vec<Finding>,
    /// Rules of which it is not known.
    unknown: Vec<String>,
}

impl Lint {
    fn rule(&mut self, name: &str, fits: Result<()>) {
        self.examined += 1;
        use ErrorKind::{Clock, Config, Database, Unsupported};
        match fits {
            Ok(()) => {}
            // What the server takes for no SQL is a fault of the rule; a passing trouble is none.
            Err(e) if matches!(e.kind(), Config | Database | Clock | Unsupported) => {
                let next = e.next_step().map(str::to_owned);
                self.found(name, e.to_string(), next.as_deref());
            }
            Err(e) => self.unknown.push(format!("{name}: {e}")),
        }
    }

    fn found(&mut self, name: &str, why: String, next: Option<&str>) {
        let finding = Finding::new(POLICY, name, why).severity(Severity::Warning);
        self.findings.push(match next {
            Some(next) => finding.remedy(next),
            None => finding,
        });
    }
}

/// Rows that refer to nothing, by the references that the shop declares.
async fn orphans(session: &mut Session, policy: &Policy, now: DateTime<Utc>) -> Outcome {
    if policy.reference.is_empty() {
        return Outcome::not_applicable("the policy declares no reference");
    }
    let (mut findings, mut unknown) = (Vec::new(), Vec::new());
    for rule in &policy.reference {
        let counted = match work::reference(session, policy, rule, now).await {
            Ok(work) => count(session, &work).await,
            Err(e) => Err(e),
        };
        match counted {
            Ok(0) => {}
            Ok(rows) => {
                let text = format!("{rows} rows of {} refer to rows of {} that do not exist", rule.table, rule.to);
                findings.push(
                    Finding::new(ORPHANS, rule.name.clone(), text)
                        .evidence("rows", rows)
                        .remedy(format!("`orphans --apply` does what the rule declares: {}", rule.action)),
                );
            }
            Err(e) => unknown.push(format!("{}: {e}", rule.name)),
        }
    }
    Outcome::of(policy.reference.len() as u64, findings, unknown)
}

async fn count(session: &mut Session, work: &work::Work) -> Result<u64> {
    let flavour = work.table.flavour;
    let head = format!("SELECT {} FROM {} WHERE ", crate::shop::counted(flavour), work.table.sql());
    crate::shop::count(session, &format!("the rule {:?}", work.rule), &Piece::text(head).piece(&work.condition)).await
}

/// Rows that should have gone days ago: whether the clean-up runs at all.
async fn overdue(session: &mut Session, policy: &Policy, now: DateTime<Utc>) -> Outcome {
    if policy.retention.is_empty() {
        return Outcome::not_applicable("the policy keeps everything for ever");
    }
    let (mut findings, mut unknown) = (Vec::new(), Vec::new());
    for rule in &policy.retention {
        match is_overdue(session, policy, rule, now).await {
            Ok(false) => {}
            Ok(true) => findings.push(
                Finding::new(
                    OVERDUE,
                    rule.name.clone(),
                    format!("{} holds rows that should have gone more than {} days ago", rule.table, GRACE.num_days()),
                )
                .remedy("let `cleanup --apply` run each day"),
            ),
            Err(e) => unknown.push(format!("{}: {e}", rule.name)),
        }
    }
    Outcome::of(policy.retention.len() as u64, findings, unknown)
}

async fn is_overdue(
    session: &mut Session,
    policy: &Policy,
    rule: &crate::policy::Retention,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let mut later = rule.clone();
    later.keep = Period::new(rule.keep.delta() + GRACE);
    let work = work::retention(session, policy, &later, now).await?;
    let sql =
        Piece::text(format!("SELECT '1' FROM {} WHERE ", work.table.sql())).piece(&work.condition).then(" LIMIT 1");
    Ok(!crate::shop::ask(session, &format!("the rule {:?}", rule.name), &sql).await?.is_empty())
}
