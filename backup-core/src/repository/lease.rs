//! Leases: who uses the repository, and until when.
//!
//! A lease is a create-only object whose name says when it ends and how it gets along with others; its body says who
//! holds it. It is never rewritten (buckets that only append work): holding on means a new object with a later end.
//! Whoever adds takes a shared one, whoever removes an exclusive one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Repository;
use super::layout::{self, LeaseMode, Name};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::random;

/// How long a lease lasts unless it is renewed: what a crashed holder on another machine can cost.
pub(crate) const DURATION: Duration = Duration::from_secs(300);

/// How far the clocks of two machines may be apart.
pub(crate) const SKEW: Duration = Duration::from_secs(60);

/// Permission to use the repository. Ends when it is [released](Lease::release) or dropped, or when it runs out because
/// its holder was stopped for longer than it lasts.
#[derive(Debug)]
pub struct Lease {
    /// One for each store.
    held: Vec<Held>,
}

/// A lease in one store.
#[derive(Debug)]
struct Held {
    store: String,
    /// Seconds since 1970 at which it ends unless it is renewed.
    expires: Arc<AtomicI64>,
    clock: ClockOf,
    /// Dropping it tells the renewing task to give the lease back.
    end: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<()>>,
}

/// A clock, for structures that are shown.
struct ClockOf(super::Clock);

impl std::fmt::Debug for ClockOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// Who holds a lease, as its body says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    host: String,
    pid: u32,
    /// What tells this process from every other, where the system can say: boot, pid namespace, pid, start time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    doing: String,
    expires: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    boot: String,
    pid_namespace: String,
    started: u64,
}

impl Repository {
    /// Takes a lease for `doing` (a word for messages).
    ///
    /// # Errors
    /// [`ErrorKind::Locked`], naming the holder and the end, where another lease is in the way. An exclusive lease and
    /// any other cannot be held at once.
    pub async fn lease(&self, mode: LeaseMode, doing: &str) -> Result<Lease> {
        let mut lease = Lease { held: Vec::new() };
        for store in self.stores() {
            match Lease::take(store, self.clock(), mode, doing).await {
                Ok(more) => lease.held.extend(more.held),
                Err(e) => {
                    lease.release().await;
                    return Err(e);
                }
            }
        }
        Ok(lease)
    }

    /// Removes the torn writes of killed runs from a folder, if nobody else is using the repository.
    pub(crate) async fn sweep_if_alone(&self, since: std::time::SystemTime) -> Result<u64> {
        let live = live_leases(self.store(), self.clock()()).await?;
        // Our own is one of them.
        if live.len() > 1 {
            return Ok(0);
        }
        let store = self.store().clone();
        crate::pipeline::blocking(move || store.sweep_torn_writes(since)).await
    }
}

impl Lease {
    /// Several as one.
    pub(crate) fn all(leases: Vec<Self>) -> Self {
        Self { held: leases.into_iter().flat_map(|l| l.held).collect() }
    }

    /// See [`Repository::lease`].
    pub(crate) async fn take(store: &Store, clock: &super::Clock, mode: LeaseMode, doing: &str) -> Result<Self> {
        let holder = hex::encode(random::<6>()?);
        let claim = Claim { store: store.clone(), holder, mode, doing: doing.to_owned(), clock: clock.clone() };
        let expires = Arc::new(AtomicI64::new((clock() + DURATION).timestamp()));
        let clock = ClockOf(clock.clone());
        let (end, asked) = oneshot::channel();
        let (tell, ended) = oneshot::channel();
        let (answer, acquired) = oneshot::channel();
        // From the first write on it is the task's: whenever this future is dropped, the task gives the lease back.
        let until = Arc::clone(&expires);
        tokio::spawn(async move {
            match claim.acquire().await {
                Ok(current) => {
                    if answer.send(Ok(())).is_ok() {
                        hold(claim, current, until, asked, tell).await;
                    } else {
                        claim.give_back(&current).await;
                    }
                }
                // If nobody listens any more, nobody wants the lease.
                Err(e) => drop(answer.send(Err(e))),
            }
        });
        acquired.await.map_err(|e| Error::new(ErrorKind::Internal, "the task of a lease ended").with_source(e))??;
        Ok(Self { held: vec![Held { store: store.to_string(), expires, clock, end: Some(end), ended: Some(ended) }] })
    }

    /// An error if the lease ran out before it could be renewed: what was relied on may have been removed since.
    pub fn check(&self) -> Result<()> {
        self.held.iter().try_for_each(Held::check)
    }

    /// The same for one of several stores.
    pub(crate) fn check_in(&self, store: &Store) -> Result<()> {
        let name = store.to_string();
        self.held.iter().filter(|held| held.store == name).try_for_each(Held::check)
    }

    /// An error if it ran out in every store.
    pub(crate) fn check_any(&self) -> Result<()> {
        let mut last = Ok(());
        for held in &self.held {
            last = held.check();
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Gives the lease back and waits until that is done.
    pub async fn release(self) {
        for held in self.held {
            held.release().await;
        }
    }
}

impl Held {
    fn check(&self) -> Result<()> {
        // Not what the renewing task says: after the machine slept, it may not have woken yet.
        if (self.clock.0)().timestamp() >= self.expires.load(Ordering::SeqCst) {
            return Err(Error::new(
                ErrorKind::Locked,
                "the lease on the repository ran out while this run was stopped",
            )
            .with_next_step("run it again; nothing was committed"));
        }
        Ok(())
    }

    async fn release(mut self) {
        drop(self.end.take());
        if let Some(ended) = self.ended.take() {
            // An error here means that the task is gone, and the lease ends by itself.
            let _ = ended.await;
        }
    }
}

struct Claim {
    store: Store,
    holder: String,
    mode: LeaseMode,
    doing: String,
    clock: super::Clock,
}

impl Claim {
    async fn acquire(&self) -> Result<object_store::path::Path> {
        let current = self.put().await?;
        match self.conflict().await {
            Ok(None) => Ok(current),
            Ok(Some(error)) | Err(error) => {
                self.give_back(&current).await;
                Err(error)
            }
        }
    }

    async fn give_back(&self, current: &object_store::path::Path) {
        if let Err(e) = self.store.remove_lock(current).await {
            tracing::warn!(lease = %current, error = %e, "the lease could not be given back; it runs out by itself");
        }
    }

    async fn put(&self) -> Result<object_store::path::Path> {
        let expires = (self.clock)() + DURATION;
        let path = layout::lock(expires, self.mode, &self.holder);
        let body = Holder {
            host: super::host_name(),
            pid: std::process::id(),
            process: this_process(),
            doing: self.doing.clone(),
            expires,
        };
        let body = serde_json::to_vec(&body)
            .map_err(|e| Error::new(ErrorKind::Internal, "a lease could not be written as JSON").with_source(e))?;
        self.store.create(&path, Bytes::from(body)).await?;
        Ok(path)
    }

    async fn conflict(&self) -> Result<Option<Error>> {
        for lease in live_leases(&self.store, (self.clock)()).await? {
            let ours = lease.holder == self.holder;
            if ours || (self.mode == LeaseMode::Shared && lease.mode == LeaseMode::Shared) {
                continue;
            }
            let (who, doing) = match lease.body {
                Some(body) => (format!("{} (process {})", body.host, body.pid), body.doing),
                None => (format!("holder {}", lease.holder), "use".into()),
            };
            let until = lease.expires.format("%Y-%m-%d %H:%M:%S UTC");
            return Ok(Some(
                Error::new(
                    ErrorKind::Locked,
                    format!("the repository {} is locked by {who} for {doing}, until {until}", self.store),
                )
                .with_next_step("wait until then and run it again; a lease that is not renewed ends by itself"),
            ));
        }
        Ok(None)
    }
}

struct Live {
    holder: String,
    mode: LeaseMode,
    expires: DateTime<Utc>,
    body: Option<Holder>,
}

/// The leases that have not run out and whose holder, if it is a process of this machine, is alive. Ones that have are
/// removed on the way.
async fn live_leases(store: &Store, now: DateTime<Utc>) -> Result<Vec<Live>> {
    let names: Vec<(String, u64)> = store.list(layout::LOCKS).try_collect().await?;
    let mut live = Vec::new();
    for (name, _) in names {
        let Name::Lock { expires, mode, holder } = layout::parse(&name) else { continue };
        // No holder asks for more than a clock that is off by hours explains: this one is not from here, and may not lock
        // the shop out for years.
        if expires > now + DURATION + Duration::from_secs(24 * 3600) {
            tracing::warn!(lease = name, "a lease that ends too far in the future is ignored");
            continue;
        }
        let path = object_store::path::Path::from(name);
        let body: Option<Holder> = match store.read_optional(&path).await? {
            // Gone since it was listed.
            None => continue,
            // A body that makes no sense still is a lease: its name says until when.
            Some(bytes) => serde_json::from_slice(&bytes).ok(),
        };
        let dead = body.as_ref().is_some_and(|b| is_dead(b.pid, b.process.as_ref()));
        // Other machines' clocks are not quite ours.
        if expires + SKEW <= now || dead {
            // In a store that forbids removal it stays, and counts for nothing.
            if let Err(e) = store.remove_lock(&path).await {
                tracing::debug!(lease = %path, error = %e, "an ended lease could not be removed");
            }
            continue;
        }
        live.push(Live { holder, mode, expires, body });
    }
    Ok(live)
}

/// Renews the lease until it is asked to end, then gives it back. Runs as a task of its own, so that a dropped future
/// of the holder still returns it.
async fn hold(
    claim: Claim,
    mut current: object_store::path::Path,
    until: Arc<AtomicI64>,
    mut asked: oneshot::Receiver<()>,
    tell: oneshot::Sender<()>,
) {
    loop {
        let renew = tokio::time::sleep(DURATION / 3);
        tokio::select! {
            _ = &mut asked => break,
            () = renew => {}
        }
        let renewed = (claim.clock)() + DURATION;
        if (claim.clock)().timestamp() >= until.load(Ordering::SeqCst) {
            break;
        }
        match claim.put().await {
            Ok(next) => {
                until.store(renewed.timestamp(), Ordering::SeqCst);
                let previous = std::mem::replace(&mut current, next);
                if let Err(e) = claim.store.remove_lock(&previous).await {
                    tracing::debug!(lease = %previous, error = %e, "a renewed lease could not be removed; it runs out");
                }
            }
            Err(e) => tracing::warn!(error = %e, "the lease could not be renewed yet"),
        }
    }
    claim.give_back(&current).await;
    // Nobody may be waiting any more.
    let _ = tell.send(());
}

/// Whether the process is surely gone: only answered for one of this boot and pid namespace.
fn is_dead(pid: u32, process: Option<&Process>) -> bool {
    let (Some(theirs), Some(ours)) = (process, this_process()) else { return false };
    if theirs.boot != ours.boot || theirs.pid_namespace != ours.pid_namespace {
        return false;
    }
    match start_time(&format!("/proc/{pid}/stat")) {
        Some(started) => started != theirs.started,
        None => !std::path::Path::new(&format!("/proc/{pid}")).exists(),
    }
}

fn this_process() -> Option<Process> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let pid_namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
    Some(Process { boot, pid_namespace, started: start_time("/proc/self/stat")? })
}

/// Field 22 of `/proc/PID/stat`: start time in ticks since boot (proc(5)); the second field may hold spaces.
fn start_time(path: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    // A zombie holds nothing any more.
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return Some(0);
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_with_another_start_is_dead() {
        let me = this_process().unwrap();
        assert!(!is_dead(std::process::id(), Some(&me)));
        assert!(is_dead(std::process::id(), Some(&Process { started: me.started + 1, ..me.clone() })));
        // Of another machine nothing is known.
        assert!(!is_dead(std::process::id(), Some(&Process { boot: "other".into(), started: 1, ..me.clone() })));
        assert!(!is_dead(1, None));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(is_dead(pid, Some(&me)));
    }
}
