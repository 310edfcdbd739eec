//! What `db-maint` knows by the shop's policy: rows that should be gone, roles that may too much.

use std::sync::Arc;

use db_maint::{Engine, InspectOptions, Outcome as Seen, Policy, audit_access};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Looks;
use crate::error::{Error, ErrorKind, Result};
use crate::item::{Check, Context, Tier};
use crate::outcome::{Finding, Place};

/// A database and the policy of its shop.
pub struct Maintained {
    engine: Box<dyn Engine>,
    policy: Policy,
}

impl std::fmt::Debug for Maintained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maintained").field("location", &self.engine.location()).finish_non_exhaustive()
    }
}

impl Maintained {
    /// That database, by that policy.
    pub fn new(engine: Box<dyn Engine>, policy: Policy) -> Self {
        Self { engine, policy }
    }
}

type Look = fn(Arc<Maintained>, Context) -> BoxFuture<'static, Result<Finding>>;

/// The checks of a database by its policy; without one, each of them is unknown.
pub fn checks(maintained: Option<Arc<Maintained>>) -> Vec<Arc<dyn Check>> {
    let all: [(&str, &str, Look); 2] = [
        ("maintenance.retention", "compliance.gdpr", |m, _| async move { retention(&m).await }.boxed()),
        ("maintenance.roles", "data.database-credentials", |m, _| async move { roles(&m).await }.boxed()),
    ];
    let one = |(id, item, look)| {
        let at = maintained.clone();
        let check = Looks { id, item, tier: Tier::AuthenticatedRead, look, at, missing: "a database with its policy" };
        Arc::new(check) as Arc<dyn Check>
    };
    all.into_iter().map(one).collect()
}

/// No row is older than the policy lets it be.
async fn retention(maintained: &Maintained) -> Result<Finding> {
    if maintained.policy.retention.is_empty() {
        return Ok(Finding::unknown("the policy has no rule of retention: nothing says how long data is kept"));
    }
    let options = InspectOptions::default().with_policy(maintained.policy.clone());
    let seen = maintained.engine.inspect(&options).await.map_err(|e| unseen(&e))?;
    let report = seen.checks.iter().find(|c| c.check == "retention-overdue");
    Ok(match report.map(|c| &c.outcome) {
        Some(Seen::Clean { examined }) => Finding::pass(format!("nothing is kept longer than {examined} rules say")),
        Some(Seen::Found { findings, unknown }) if findings.is_empty() => Finding::unknown(unknown.join("; ")),
        Some(Seen::Found { findings, .. }) => {
            Finding::fail(format!("{} tables keep rows that should be gone", findings.len()))
                .with_places(findings.iter().map(|f| Place::new(f.object.clone(), None, f.summary.clone())))
        }
        Some(Seen::Unknown { reason, .. }) => Finding::unknown(reason.clone()),
        Some(Seen::NotApplicable { reason }) => Finding::not_applicable(reason.clone()),
        None => Finding::unknown("nobody looked at the rules of retention"),
    })
}

/// Nobody reaches sensitive tables, or has rights beyond them, whom the policy does not name.
async fn roles(maintained: &Maintained) -> Result<Finding> {
    let Some(rule) = &maintained.policy.access else {
        return Ok(Finding::unknown("the policy does not say who may reach what"));
    };
    let report = audit_access(maintained.engine.as_ref(), rule, None).await.map_err(|e| unseen(&e))?;
    let fact = report.findings.iter().map(|f| format!("{} {}", f.object, f.summary)).collect::<Vec<_>>().join("\n");
    Ok(match (report.findings.len(), report.unknown.first()) {
        (0, None) => {
            Finding::pass(format!("{} roles reach what the policy says, and nothing else", report.roles.len()))
        }
        (0, Some(why)) => Finding::unknown(why.clone()),
        (n, _) => Finding::fail(format!("{n} roles may do what the policy does not say"))
            .with_places(report.findings.iter().map(|f| Place::new(f.object.clone(), None, f.summary.clone()))),
    }
    .with_fact(fact))
}

fn unseen(e: &db_maint::Error) -> Error {
    let next = e.next_step().unwrap_or("run `maintain inspect`").to_owned();
    Error::new(ErrorKind::Unreachable, e.to_string()).with_next_step(next)
}
