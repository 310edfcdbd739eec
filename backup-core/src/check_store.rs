//! Whether a store keeps what a repository relies on, tried out on the store itself.
//!
//! What it writes is named like a lease that ran out long ago, so that a repository there is not disturbed, also where the
//! store does not let it be removed again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::random;
use crate::repository::{LeaseMode, SKEW, Store, layout};

/// How many writers race for one name.
const RACERS: u8 = 8;
/// Objects and their length in bytes for the throughput.
const OBJECTS: usize = 8;
const LENGTH: usize = 2 << 20;

/// What one trial showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TrialOutcome {
    /// As it has to be.
    Good,
    /// Good enough, and worth knowing.
    Note,
    /// A repository is not safe there.
    Bad,
    /// It could not be tried.
    Unknown,
}

/// One trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trial {
    /// What was tried.
    pub name: String,
    /// What it showed.
    pub outcome: TrialOutcome,
    /// A sentence about it.
    pub detail: String,
}

/// What a store is good for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreReport {
    /// Where it is.
    pub store: String,
    /// Trial by trial.
    pub trials: Vec<Trial>,
    /// Bytes per second written, of objects of 2 MiB, four at once.
    pub written_per_second: Option<u64>,
    /// The same read.
    pub read_per_second: Option<u64>,
}

impl StoreReport {
    /// Whether a repository is safe there: everything was tried, and nothing was bad.
    pub fn is_good(&self) -> bool {
        self.trials.iter().all(|t| matches!(t.outcome, TrialOutcome::Good | TrialOutcome::Note))
    }

    fn add(&mut self, name: &str, outcome: TrialOutcome, detail: impl Into<String>) {
        self.trials.push(Trial { name: name.into(), outcome, detail: detail.into() });
    }
}

/// Tries a store out: that what was written is read and listed at once, that a name is given once only, also among
/// writers that race, whether these credentials may delete, how far its clock is off, and how fast it is.
///
/// Writes some 17 MiB and removes them again, where it may.
///
/// # Errors
/// Where nothing can be written or read at all; everything else is in the report.
pub async fn check_store(store: &Store) -> Result<StoreReport> {
    let marks = Marks::new()?;
    let done = tried(store, &marks).await;
    for n in 0..marks.number.load(std::sync::atomic::Ordering::SeqCst) {
        // Whether it may be removed is one of the trials; here it is only tidied up.
        if let Err(e) = store.remove_lock(&marks.path(n)).await {
            tracing::debug!(store = %store, error = %e, "an object of the check stays");
        }
    }
    done
}

/// Names that nobody else uses.
struct Marks {
    holder: String,
    number: std::sync::atomic::AtomicUsize,
}

impl Marks {
    fn new() -> Result<Self> {
        Ok(Self { holder: hex::encode(random::<6>()?), number: 0.into() })
    }

    fn next(&self) -> Path {
        self.path(self.number.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
    }

    fn path(&self, n: usize) -> Path {
        layout::lock(DateTime::UNIX_EPOCH, LeaseMode::Shared, &format!("check-{}-{n}", self.holder))
    }
}

async fn tried(store: &Store, marks: &Marks) -> Result<StoreReport> {
    let mut report =
        StoreReport { store: store.to_string(), trials: Vec::new(), written_per_second: None, read_per_second: None };
    let first = marks.next();
    let content = Bytes::from(random::<32>()?.to_vec());
    let began = Utc::now();
    if !store.create(&first, content.clone()).await? {
        return Err(Error::new(ErrorKind::Internal, format!("store {store}: a name of random letters is taken")));
    }
    report.add("write", TrialOutcome::Good, "an object was written");
    match store.read(&first).await {
        Ok(found) if found == content => {
            report.add("read after write", TrialOutcome::Good, "what was written is read at once")
        }
        Ok(_) => report.add("read after write", TrialOutcome::Bad, "other bytes are read than were written"),
        Err(e) => report.add("read after write", TrialOutcome::Bad, e.to_string()),
    }
    listed(store, &first, began, &mut report).await;
    only_once(store, &first, &content, &mut report).await;
    race(store, marks, &mut report).await;
    match store.remove_lock(&first).await {
        Ok(()) => report.add(
            "delete",
            TrialOutcome::Note,
            "these credentials may delete: whoever steals them can delete backups, which a verify tells, and does not undo",
        ),
        Err(e) if e.kind() == ErrorKind::StoreDenied => {
            report.add("delete", TrialOutcome::Good, "these credentials may not delete; a prune needs others");
        }
        Err(e) => report.add("delete", TrialOutcome::Unknown, e.to_string()),
    }
    match throughput(store, marks).await {
        Ok((written, read)) => (report.written_per_second, report.read_per_second) = (Some(written), Some(read)),
        Err(e) => report.add("throughput", TrialOutcome::Unknown, e.to_string()),
    }
    Ok(report)
}

/// Whether a list shows it at once, and what the store's clock says of it.
async fn listed(store: &Store, path: &Path, began: DateTime<Utc>, report: &mut StoreReport) {
    let listed: Result<Vec<_>> = store.list_dated(layout::LOCKS).try_collect().await;
    let found = match listed {
        Ok(names) => names.into_iter().find(|(name, ..)| name == path.as_ref()),
        Err(e) => return report.add("list after write", TrialOutcome::Bad, e.to_string()),
    };
    let Some((_, _, modified)) = found else {
        return report.add(
            "list after write",
            TrialOutcome::Note,
            "a list does not show at once what was written: backups are safe, and a prune may find less to remove",
        );
    };
    report.add("list after write", TrialOutcome::Good, "a list shows at once what was written");
    let off = modified - began;
    let outcome =
        if off.abs().to_std().unwrap_or(Duration::MAX) > SKEW { TrialOutcome::Bad } else { TrialOutcome::Good };
    let detail = format!("its clock and this one are {} s apart", off.num_seconds().abs());
    report.add("clock", outcome, detail);
}

async fn only_once(store: &Store, path: &Path, content: &Bytes, report: &mut StoreReport) {
    let again = store.create(path, Bytes::from_static(b"another")).await;
    let kept = store.read(path).await.is_ok_and(|found| found == *content);
    match again {
        Ok(false) if kept => report.add("create only", TrialOutcome::Good, "a name that is taken is not given again"),
        Ok(_) => report.add(
            "create only",
            TrialOutcome::Bad,
            "a name that is taken is given again: two backups at once would overwrite each other's records",
        ),
        Err(e) => report.add("create only", TrialOutcome::Bad, e.to_string()),
    }
}

/// Several writers and one name: one wins, and it is its bytes that are there.
async fn race(store: &Store, marks: &Marks, report: &mut StoreReport) {
    let path = Arc::new(marks.next());
    let puts = (0..RACERS).map(|n| {
        let (store, path) = (store.clone(), Arc::clone(&path));
        // All of one length, none alike.
        async move { (n, store.create(&path, Bytes::from(vec![n; 4096])).await) }
    });
    let answers = futures::future::join_all(puts).await;
    let won: Vec<u8> = answers.iter().filter(|(_, won)| matches!(won, Ok(true))).map(|(n, _)| *n).collect();
    let failed = answers.iter().find_map(|(_, won)| won.as_ref().err());
    match (won.as_slice(), failed, store.read(&path).await) {
        ([one], None, Ok(found)) if found.first() == Some(one) => {
            report.add("race", TrialOutcome::Good, format!("of {RACERS} writers of one name one won"));
        }
        (_, Some(e), _) => report.add("race", TrialOutcome::Unknown, e.to_string()),
        (_, None, Err(e)) => report.add("race", TrialOutcome::Bad, e.to_string()),
        (won, None, Ok(_)) => report.add(
            "race",
            TrialOutcome::Bad,
            format!("of {RACERS} writers of one name {} won: use this store from one host only", won.len()),
        ),
    }
}

/// Bytes per second, written and read.
async fn throughput(store: &Store, marks: &Marks) -> Result<(u64, u64)> {
    let mut content = Vec::with_capacity(LENGTH);
    while content.len() < LENGTH {
        content.extend_from_slice(&random::<32>()?);
    }
    let content = Bytes::from(content);
    let paths: Vec<Path> = (0..OBJECTS).map(|_| marks.next()).collect();
    let per_second = |began: Instant| ((OBJECTS * LENGTH) as f64 / began.elapsed().as_secs_f64().max(1e-6)) as u64;
    let began = Instant::now();
    let writes: Vec<_> = paths.iter().map(|path| store.create(path, content.clone())).collect();
    futures::stream::iter(writes).buffer_unordered(4).try_collect::<Vec<_>>().await?;
    let written = per_second(began);
    let began = Instant::now();
    let reads: Vec<_> = paths.iter().map(|path| store.read(path)).collect();
    futures::stream::iter(reads).buffer_unordered(4).try_collect::<Vec<_>>().await?;
    Ok((written, per_second(began)))
}
