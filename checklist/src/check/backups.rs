//! What a repository of backups tells: encrypted, verified, drilled, in another place.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::{Assurance, Catalog, Repository, Snapshot};
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Looks;
use crate::error::{Error, ErrorKind, Result};
use crate::item::{Check, Context, Tier};
use crate::outcome::{Finding, Place};

/// A repository of backups. Its log is read once, at the first check that asks.
#[derive(Debug)]
pub struct Backups {
    repository: Repository,
    catalog: tokio::sync::OnceCell<Catalog>,
}

impl Backups {
    /// That repository, opened with keys that read its log: the writer's, or the owner's.
    pub fn new(repository: Repository) -> Self {
        Self { repository, catalog: tokio::sync::OnceCell::new() }
    }

    async fn catalog(&self) -> Result<&Catalog> {
        let read = || async {
            self.repository.catalog_from_stores().await.map_err(|e| {
                let next = e.next_step().unwrap_or("run `backup status`").to_owned();
                Error::new(ErrorKind::Unreachable, format!("backups: {e}")).with_next_step(next).with_source(e)
            })
        };
        self.catalog.get_or_try_init(read).await
    }
}

type Look = fn(Arc<Backups>, Context) -> BoxFuture<'static, Result<Finding>>;

macro_rules! look {
    ($judge:expr) => {
        |backups, cx| {
            async move {
                let catalog = backups.catalog().await?;
                Ok($judge(catalog, cx.now))
            }
            .boxed()
        }
    };
}

/// The checks of backups; without them, each is unknown.
pub fn checks(backups: Option<Arc<Backups>>) -> Vec<Arc<dyn Check>> {
    let all: [(&str, Look); 6] = [
        ("backups.encrypted", |backups, _| async move { Ok(encrypted(backups.repository.is_encrypted())) }.boxed()),
        ("backups.verified", look!(verified)),
        ("backups.drilled", look!(drilled)),
        ("backups.restored", look!(restored)),
        ("backups.offsite", look!(offsite)),
        ("backups.sound", look!(sound)),
    ];
    let one = |(id, look)| {
        let item = "data.backups-encrypted";
        let check = Looks {
            id,
            item,
            tier: Tier::AuthenticatedRead,
            look,
            at: backups.clone(),
            missing: "a repository of backups",
        };
        Arc::new(check) as Arc<dyn Check>
    };
    all.into_iter().map(one).collect()
}

fn encrypted(is: bool) -> Finding {
    match is {
        true => {
            Finding::pass("backups are encrypted to their owner, whose key is not needed here").with_fact("encrypted")
        }
        false => Finding::fail("the repository is not encrypted").at("repository", None, "no encryption"),
    }
}

/// The newest full snapshot that some time belongs to: snapshot and time.
fn newest(catalog: &Catalog, of: impl Fn(&Assurance) -> Option<DateTime<Utc>>) -> Option<(&Snapshot, DateTime<Utc>)> {
    let assurance = catalog.assurance();
    let full = catalog.snapshots.iter().filter(|s| s.manifest.is_full());
    full.filter_map(|s| Some((s, of(assurance.get(&s.id)?)?))).max_by_key(|(_, at)| *at)
}

/// Of every source a full snapshot of the last day, verified since: the oldest of them counts.
fn verified(catalog: &Catalog, now: DateTime<Utc>) -> Finding {
    let assurance = catalog.assurance();
    let full = || catalog.snapshots.iter().filter(|s| s.manifest.is_full() && s.manifest.is_complete());
    let is_verified = |s: &&Snapshot| assurance.get(&s.id).is_some_and(Assurance::is_verified);
    let sources: BTreeSet<String> = full().map(|s| s.manifest.source.name.clone()).collect();
    if sources.is_empty() {
        return Finding::fail("there is no full snapshot").at("repository", None, "run `backup create`");
    }
    let (mut late, mut oldest) = (Vec::new(), 0);
    for source in &sources {
        let of = full().filter(|s| s.manifest.source.name.clone() == *source).filter(is_verified);
        match of.max_by_key(|s| s.manifest.taken_at).map(|s| (now - s.manifest.taken_at).num_hours()) {
            None => late.push(Place::new(
                source.clone(),
                None,
                "no full snapshot of it was ever verified: run `backup verify`",
            )),
            Some(hours) if hours > 26 => late.push(Place::new(
                source.clone(),
                None,
                format!("the newest verified snapshot is {hours} hours old"),
            )),
            Some(hours) => oldest = oldest.max(hours),
        }
    }
    match late.len() {
        0 => {
            Finding::pass(format!("{} sources, each with a verified snapshot of at most {oldest} hours", sources.len()))
        }
        n => Finding::fail(format!("{n} of {} sources have no verified snapshot of the last day", sources.len()))
            .with_places(late),
    }
}

fn drilled(catalog: &Catalog, now: DateTime<Utc>) -> Finding {
    within(newest(catalog, |a| a.drilled_at), now, 100, "drilled")
}

fn restored(catalog: &Catalog, now: DateTime<Utc>) -> Finding {
    within(newest(catalog, |a| a.drilled_at), now, 35, "restored as a test")
}

fn within(found: Option<(&Snapshot, DateTime<Utc>)>, now: DateTime<Utc>, days: i64, what: &str) -> Finding {
    match found {
        None => Finding::fail(format!("no snapshot was ever {what}")).at("repository", None, "run `backup drill`"),
        Some((s, at)) if now - at <= TimeDelta::days(days) => {
            Finding::pass(format!("{} was {what} on {}", s.id, at.date_naive())).with_time(at)
        }
        Some((s, at)) => Finding::fail(format!("last {what} on {}, more than {days} days ago", at.date_naive())).at(
            s.id.to_string(),
            None,
            what,
        ),
    }
}

/// In another place than this machine: a bucket, or two stores at least.
fn offsite(catalog: &Catalog, _: DateTime<Utc>) -> Finding {
    let Some(newest) = catalog.snapshots.iter().max_by_key(|s| s.manifest.taken_at) else {
        return Finding::fail("there is no snapshot").at("repository", None, "no snapshot");
    };
    let away = newest.stores.iter().filter(|s| !s.starts_with("file:") && !s.starts_with("memory:")).count();
    match (away, newest.stores.len()) {
        (0, n) => {
            Finding::warn(format!("the newest snapshot is in {n} folders of this machine, and nowhere else that shows"))
                .with_places(newest.stores.iter().map(|s| Place::new(s.clone(), None, "a folder")))
        }
        (_, n) => Finding::pass(format!("the newest snapshot is in {n} stores, one of them elsewhere")),
    }
}

/// Nothing is damaged, missing, or another history than was seen before.
fn sound(catalog: &Catalog, _: DateTime<Utc>) -> Finding {
    let unreachable = catalog.stores.iter().filter(|s| s.unreachable.is_some()).count();
    match (catalog.is_sound(), unreachable) {
        (false, _) => Finding::fail(
            "records of the repository are damaged, missing, or contradict what was seen before",
        )
        .at("repository", None, "run `backup status`"),
        (true, 0) => Finding::pass(format!("{} snapshots, the log is whole", catalog.snapshots.len())),
        (true, n) => Finding::unknown(format!("{n} stores do not answer")),
    }
}
