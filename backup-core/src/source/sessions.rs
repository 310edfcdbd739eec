//! Sessions with a database server that read one instant side by side, and whether they still may.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::Piece;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Task;

/// Where the pieces of an entry go.
pub(super) type Pieces = mpsc::Sender<Result<Piece>>;

/// Pieces that may wait for whoever stores them.
const PIECES_AHEAD: usize = 2;
/// Pieces of a part of a table that may wait until the part before it is through.
const PIECES_OF_PART_AHEAD: usize = 12;

/// Whether a capture may go on.
#[derive(Debug)]
pub(super) struct State {
    broken: watch::Sender<bool>,
    why: Mutex<Option<(ErrorKind, String, bool)>>,
}

impl State {
    fn new() -> Self {
        Self { broken: watch::Sender::new(false), why: Mutex::new(None) }
    }

    /// An error once the capture cannot go on.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.why.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((kind, why, retry)) => {
                Err(Error::new(*kind, why.clone()).with_retry(*retry).with_next_step("run it again"))
            }
        }
    }

    /// Waits until it cannot.
    pub(super) async fn broken(&self) -> Error {
        let mut broken = self.broken.subscribe();
        if broken.wait_for(|broken| *broken).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.check().err().unwrap_or_else(|| Error::new(ErrorKind::Source, "the capture was broken off"))
    }
}

/// Who of several gets the next free session.
#[derive(Debug, Default)]
struct Turn {
    before: Option<oneshot::Receiver<()>>,
    after: Option<oneshot::Sender<()>>,
}

impl Turn {
    /// This one, and the one that comes after it.
    fn and_next(self) -> (Self, Self) {
        let (after, before) = oneshot::channel();
        (Self { after: Some(after), ..self }, Self { before: Some(before), after: None })
    }

    /// Waits until whoever is before has a session, or has ended without.
    async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = before.await;
        }
    }

    /// It has one.
    fn pass_on(&mut self) {
        if let Some(after) = self.after.take() {
            // Nobody may come after it.
            let _ = after.send(());
        }
    }
}

/// Sessions of type `C`, and who gets the next free one.
#[derive(Debug)]
pub(super) struct Sessions<C> {
    location: String,
    free: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<C>>>,
    state: Arc<State>,
}

impl<C> Clone for Sessions<C> {
    fn clone(&self) -> Self {
        Self {
            location: self.location.clone(),
            free: Arc::clone(&self.free),
            idle: Arc::clone(&self.idle),
            state: Arc::clone(&self.state),
        }
    }
}

impl<C: Send + 'static> Sessions<C> {
    /// These sessions with the database that messages call `location`.
    pub(super) fn new(location: String, sessions: Vec<C>) -> Self {
        Self {
            location,
            free: Arc::new(Semaphore::new(sessions.len())),
            idle: Arc::new(Mutex::new(sessions)),
            state: Arc::new(State::new()),
        }
    }

    /// Whether they may go on.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Ends the capture: idle sessions close, which frees their locks too; those that read are dropped by whoever reads.
    pub(super) fn break_off(&self, e: &Error) {
        let mut why = self.state.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.get_or_insert_with(|| (e.kind(), e.to_string(), e.is_retryable()));
        drop(why);
        self.state.broken.send_replace(true);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Borrows a session outside of the reading of entries, before it begins.
    pub(super) async fn with<T>(&self, work: impl AsyncFnOnce(&mut C) -> Result<T>) -> Result<T> {
        let permit = self.free.acquire().await.map_err(|_| self.gone())?;
        let mut session = self.take()?;
        let done = work(&mut session).await?;
        self.give_back(session)?;
        drop(permit);
        Ok(done)
    }

    /// Runs `work` with the next free session once somebody asks for the first piece. A session whose work failed or was
    /// broken off is closed: it may be in the middle of an answer.
    pub(super) fn read<W, F>(&self, work: W) -> BoxStream<'static, Result<Piece>>
    where
        W: FnOnce(C, Pieces) -> F + Send + 'static,
        F: Future<Output = Result<C>> + Send + 'static,
    {
        let this = self.clone();
        Box::pin(futures::FutureExt::flatten_stream(async move { this.start(PIECES_AHEAD, work) }))
    }

    /// The pieces that several works give, one after the other, though so many of them run side by side.
    pub(super) fn read_parts<W, F>(
        &self,
        parts: impl Iterator<Item = W> + Send + 'static,
        side_by_side: usize,
    ) -> BoxStream<'static, Result<Piece>>
    where
        W: FnOnce(C, Pieces) -> F + Send + 'static,
        F: Future<Output = Result<C>> + Send + 'static,
    {
        let this = self.clone();
        // A part that has a session while one before it has none would keep it until that one is through; if all sessions
        // went like that, nobody would ever be.
        let mut turn = Turn::default();
        let parts = futures::stream::iter(parts).map(move |work| {
            let (mine, next) = std::mem::take(&mut turn).and_next();
            turn = next;
            futures::future::ready(this.start_in_turn(PIECES_OF_PART_AHEAD, mine, work))
        });
        parts.buffered(side_by_side.max(1)).flatten().boxed()
    }

    /// Runs `work` as soon as a session is free; so many pieces are kept until somebody asks for them.
    fn start<W, F>(&self, ahead: usize, work: W) -> BoxStream<'static, Result<Piece>>
    where
        W: FnOnce(C, Pieces) -> F + Send + 'static,
        F: Future<Output = Result<C>> + Send + 'static,
    {
        self.start_in_turn(ahead, Turn::default(), work)
    }

    fn start_in_turn<W, F>(&self, ahead: usize, turn: Turn, work: W) -> BoxStream<'static, Result<Piece>>
    where
        W: FnOnce(C, Pieces) -> F + Send + 'static,
        F: Future<Output = Result<C>> + Send + 'static,
    {
        let this = self.clone();
        let (send, receive) = mpsc::channel(ahead);
        let task = Task::spawn(async move {
            let failed = send.clone();
            let outcome = tokio::select! {
                outcome = this.with_next(turn, work, send) => outcome,
                e = this.state.broken() => Err(e),
            };
            if let Err(e) = outcome {
                // Why the whole capture ended matters more than that this session did.
                let e = this.state.check().err().unwrap_or(e);
                let _nobody_listens = failed.send(Err(e)).await;
            }
            Ok(())
        });
        let body = futures::stream::unfold((receive, Some(task)), |(mut receive, mut task)| async move {
            match receive.recv().await {
                Some(piece) => Some((piece, (receive, task))),
                // A reader that panicked ends like one that is done, to whoever only looks at the pieces.
                None => task.take()?.join().await.err().map(|e| (Err(e), (receive, None))),
            }
        });
        body.boxed()
    }

    async fn with_next<W, F>(&self, mut turn: Turn, work: W, send: Pieces) -> Result<()>
    where
        W: FnOnce(C, Pieces) -> F,
        F: Future<Output = Result<C>>,
    {
        turn.come().await;
        let permit = self.free.acquire().await.map_err(|_| self.gone())?;
        turn.pass_on();
        let session = self.take()?;
        let session = work(session, send).await?;
        self.give_back(session)?;
        drop(permit);
        Ok(())
    }

    fn take(&self) -> Result<C> {
        let session = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        session.ok_or_else(|| self.state.check().err().unwrap_or_else(|| self.gone()))
    }

    fn give_back(&self, session: C) -> Result<()> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Once the capture is broken off nothing may hold a lock any more.
        self.state.check()?;
        idle.push(session);
        Ok(())
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::Source, format!("{}: no session is left to read with", self.location))
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    /// More tables in parts than sessions: each part gives more pieces than may wait.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn parts_of_many_tables_never_wait_for_each_other_in_a_circle() {
        for _ in 0..200 {
            let sessions = Sessions::new("here".into(), vec![(); 3]);
            let tables = (0..4u8).map(|table| {
                let part = move |part: u8| {
                    move |session, send: Pieces| async move {
                        for _ in 0..2 * PIECES_OF_PART_AHEAD {
                            let _ = send.send(Ok(Piece::from(bytes::Bytes::from(vec![table, part])))).await;
                        }
                        Ok(session)
                    }
                };
                sessions.read_parts((0..5).map(part), 3).try_collect::<Vec<_>>()
            });
            for pieces in futures::future::try_join_all(tables).await.unwrap() {
                let parts: Vec<u8> = pieces
                    .iter()
                    .map(|p| match p {
                        Piece::Bytes(b) => b[1],
                        _ => panic!("bytes"),
                    })
                    .collect();
                assert!(parts.is_sorted() && parts.len() == 5 * 2 * PIECES_OF_PART_AHEAD);
            }
        }
    }
}
