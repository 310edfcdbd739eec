//! Sending the same objects to several stores, each at its own pace.
//!
//! Whoever sends waits only while fewer stores keep up than copies are wanted. A store whose part of the spool is full is
//! then left behind: it gets nothing more from here, and is brought up to date afterwards from one that has all, when no
//! database waits for it any more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::store::Store;
use crate::error::{Error, ErrorKind, Result};

/// How many bytes may wait for one store. What waits for several is held once.
const ROOM: usize = 16 << 20;
/// How many objects are written to one store side by side.
const SIDE_BY_SIDE: usize = 4;
/// How long the others wait at the end for a store that takes nothing more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Objects on their way to several stores.
#[derive(Debug)]
pub(crate) struct Spool {
    lanes: Vec<Lane>,
    copies: usize,
    /// Whoever looks for room takes it before the next one looks.
    gate: Mutex<()>,
    /// Something changed in one of the lanes.
    moved: Arc<Notify>,
}

#[derive(Debug)]
struct Lane {
    queue: mpsc::UnboundedSender<Parcel>,
    room: Arc<Semaphore>,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

type Parcel = (Path, Bytes, OwnedSemaphorePermit);

#[derive(Debug, Default)]
struct State {
    /// It gets nothing more.
    behind: AtomicBool,
    error: Mutex<Option<Error>>,
    waiting: AtomicUsize,
}

/// How a store came out of it.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// It has everything that was sent.
    All,
    /// It was too slow, and lacks some.
    Behind,
    /// It failed.
    Failed(Error),
}

impl Spool {
    /// To these stores; a sender waits while fewer than `copies` of them keep up.
    pub(crate) fn new(stores: &[Store], copies: usize) -> Self {
        let moved = Arc::new(Notify::new());
        let lanes = stores.iter().map(|store| Lane::new(store.clone(), Arc::clone(&moved))).collect();
        Self { lanes, copies, gate: Mutex::new(()), moved }
    }

    /// Sends one object. An error where no store is left that takes it.
    pub(crate) async fn put(&self, path: &Path, bytes: &Bytes) -> Result<()> {
        let size = bytes.len().clamp(1, ROOM);
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // From here on nothing that moves is missed.
            moved.as_mut().enable();
            if self.try_put(path, bytes, size)? {
                return Ok(());
            }
            moved.await;
        }
    }

    /// Whether enough stores had room.
    fn try_put(&self, path: &Path, bytes: &Bytes, size: usize) -> Result<bool> {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<&Lane> = self.lanes.iter().filter(|l| !l.is_behind()).collect();
        if live.is_empty() {
            let error = self.lanes.iter().find_map(|l| l.state.take_error());
            return Err(
                error.unwrap_or_else(|| Error::new(ErrorKind::StoreUnavailable, "no store takes anything more"))
            );
        }
        let ready = live.iter().filter(|l| l.room.available_permits() >= size).count();
        if ready < self.copies.clamp(1, live.len()) {
            return Ok(false);
        }
        for lane in live {
            lane.send(path, bytes, size);
        }
        // One may be left behind now, which changes for how many the others wait.
        self.moved.notify_waiters();
        Ok(true)
    }

    /// Waits until every store that keeps up has everything; in the order of the stores.
    pub(crate) async fn finish(&self) -> Vec<Arrived> {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let late: Vec<&Lane> = self.lanes.iter().filter(|l| !l.is_behind() && l.waiting() > 0).collect();
            if late.is_empty() {
                break;
            }
            let done = self.lanes.iter().filter(|l| !l.is_behind() && l.waiting() == 0).count();
            if done < self.copies.max(1) {
                moved.await;
            } else if tokio::time::timeout(PATIENCE, moved).await.is_err() {
                late.iter().for_each(|l| l.state.behind.store(true, Ordering::SeqCst));
            }
        }
        let arrived = |lane: &Lane| match (lane.state.take_error(), lane.is_behind()) {
            (Some(e), _) => Arrived::Failed(e),
            (None, true) => Arrived::Behind,
            (None, false) => Arrived::All,
        };
        self.lanes.iter().map(arrived).collect()
    }
}

impl Lane {
    fn new(store: Store, moved: Arc<Notify>) -> Self {
        let (queue, parcels) = mpsc::unbounded_channel::<Parcel>();
        let state = Arc::new(State::default());
        let task = tokio::spawn(deliver(store, parcels, Arc::clone(&state), moved));
        Self { queue, room: Arc::new(Semaphore::new(ROOM)), state, task }
    }

    fn is_behind(&self) -> bool {
        self.state.behind.load(Ordering::SeqCst)
    }

    fn waiting(&self) -> usize {
        self.state.waiting.load(Ordering::SeqCst)
    }

    /// Leaves the store behind where it has no room.
    fn send(&self, path: &Path, bytes: &Bytes, size: usize) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.room).try_acquire_many_owned(size) else {
            self.state.behind.store(true, Ordering::SeqCst);
            return;
        };
        self.state.waiting.fetch_add(1, Ordering::SeqCst);
        if self.queue.send((path.clone(), bytes.clone(), permit)).is_err() {
            self.state.fail(Error::new(ErrorKind::Internal, "a task that writes to a store ended"));
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn deliver(store: Store, parcels: mpsc::UnboundedReceiver<Parcel>, state: Arc<State>, moved: Arc<Notify>) {
    let parcels = futures::stream::unfold(parcels, |mut parcels| async move { Some((parcels.recv().await?, parcels)) });
    let (store, state, moved) = (&store, &state, &moved);
    parcels
        .for_each_concurrent(SIDE_BY_SIDE, |(path, bytes, permit)| async move {
            // What is left behind is not worth sending: it gets all at once later.
            if !state.behind.load(Ordering::SeqCst) {
                match store.create(&path, bytes).await {
                    Ok(true) => {}
                    Ok(false) => state.fail(
                        Error::new(
                            ErrorKind::Damaged,
                            format!("{path} is already in {store} with other bytes than its name says"),
                        )
                        .with_next_step("run `backup verify`, and heal it from another store with `backup sync`"),
                    ),
                    Err(e) => state.fail(e),
                }
            }
            drop(permit);
            state.waiting.fetch_sub(1, Ordering::SeqCst);
            moved.notify_waiters();
        })
        .await;
}

impl State {
    fn fail(&self, e: Error) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
        self.behind.store(true, Ordering::SeqCst);
    }

    fn take_error(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
