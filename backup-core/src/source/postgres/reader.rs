//! The sessions that read, and what they read.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use sqlx::postgres::PgConnection;
use tokio::sync::{Semaphore, mpsc};

use super::guard;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Blocks, Task};
use crate::postgres::Database;
use crate::source::Piece;

/// Rows are handed on in pieces of this many bytes.
const PIECE: usize = 512 * 1024;
/// Pieces that may wait for whoever stores them.
const PIECES_AHEAD: usize = 2;
/// Pieces of a part of a table that may wait until the part before it is through.
const PIECES_OF_PART_AHEAD: usize = 12;
/// Bytes of a large object in one statement.
const LARGE_PIECE: i64 = 256 * 1024;

/// The sessions that read, and who gets the next free one.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) database: Database,
    pub(super) free: Arc<Semaphore>,
    pub(super) sessions: Arc<std::sync::Mutex<Vec<PgConnection>>>,
    pub(super) guard: Arc<guard::State>,
    pub(super) blocks: Blocks,
}

impl Reader {
    /// The rows that a `COPY … TO STDOUT` gives, one a line.
    pub(super) fn copy(&self, sql: String) -> BoxStream<'static, Result<Piece>> {
        let blocks = self.blocks.clone();
        self.read(move |database, mut session, send| async move {
            let rows = copy_rows(&database, &mut session, &sql, &send, &blocks).await?;
            tracing::debug!(rows, sql, "copied");
            Ok(session)
        })
    }

    /// The rows that several `COPY … TO STDOUT` give, one after the other, though they are read side by side.
    pub(super) fn copy_parts(&self, parts: Vec<String>, side_by_side: usize) -> BoxStream<'static, Result<Piece>> {
        let this = self.clone();
        let parts = futures::stream::iter(parts).map(move |sql| {
            let blocks = this.blocks.clone();
            let part = this.start(PIECES_OF_PART_AHEAD, move |database, mut session, send| async move {
                copy_rows(&database, &mut session, &sql, &send, &blocks).await?;
                Ok(session)
            });
            futures::future::ready(part)
        });
        parts.buffered(side_by_side.max(1)).flatten().boxed()
    }

    /// The lines that queries of one text column give.
    pub(super) fn lines(&self, queries: Vec<String>) -> BoxStream<'static, Result<Piece>> {
        self.read(move |database, mut session, send| async move {
            let mut out = Vec::new();
            for sql in queries {
                let mut rows = sqlx::query_scalar::<_, String>(crate::sql::trusted(sql)).fetch(&mut session);
                while let Some(line) = rows.try_next().await.map_err(|e| database.failed("could not be read", e))? {
                    out.extend_from_slice(line.as_bytes());
                    out.extend_from_slice(b"\n");
                }
            }
            hand_on(&send, &mut out).await;
            Ok(session)
        })
    }

    /// Large objects as statements that make them.
    pub(super) fn large_objects(&self, oids: Vec<i64>) -> BoxStream<'static, Result<Piece>> {
        self.read(move |database, mut session, send| async move {
            let failed = |e| database.failed("could not read a large object", e);
            let mut out = Vec::new();
            for oid in oids {
                out.extend_from_slice(format!("SELECT pg_catalog.lo_create('{oid}');\n").as_bytes());
                let mut at = 0_i64;
                loop {
                    let piece: Vec<u8> = sqlx::query_scalar("SELECT pg_catalog.lo_get($1::int8::oid, $2, $3::int4)")
                        .bind(oid)
                        .bind(at)
                        .bind(LARGE_PIECE)
                        .fetch_one(&mut session)
                        .await
                        .map_err(failed)?;
                    if !piece.is_empty() {
                        let hex = hex::encode(&piece);
                        out.extend_from_slice(
                            format!("SELECT pg_catalog.lo_put('{oid}', {at}, pg_catalog.decode('{hex}', 'hex'));\n")
                                .as_bytes(),
                        );
                    }
                    at += LARGE_PIECE;
                    if out.len() >= PIECE && !hand_on(&send, &mut out).await {
                        return Ok(session);
                    }
                    if (piece.len() as i64) < LARGE_PIECE {
                        break;
                    }
                }
            }
            hand_on(&send, &mut out).await;
            Ok(session)
        })
    }

    /// Runs `work` with the next free session once somebody asks for the first piece. A session whose work failed or was
    /// broken off is closed: it may be in the middle of an answer.
    fn read<W, F>(&self, work: W) -> BoxStream<'static, Result<Piece>>
    where
        W: FnOnce(Database, PgConnection, mpsc::Sender<Result<Piece>>) -> F + Send + 'static,
        F: Future<Output = Result<PgConnection>> + Send + 'static,
    {
        let this = self.clone();
        Box::pin(futures::FutureExt::flatten_stream(async move { this.start(PIECES_AHEAD, work) }))
    }

    /// Runs `work` as soon as a session is free; so many pieces are kept until somebody asks for them.
    fn start<W, F>(&self, ahead: usize, work: W) -> BoxStream<'static, Result<Piece>>
    where
        W: FnOnce(Database, PgConnection, mpsc::Sender<Result<Piece>>) -> F + Send + 'static,
        F: Future<Output = Result<PgConnection>> + Send + 'static,
    {
        let this = self.clone();
        let (send, receive) = mpsc::channel(ahead);
        let task = Task::spawn(async move {
            let guard = Arc::clone(&this.guard);
            let failed = send.clone();
            let outcome = tokio::select! {
                outcome = this.with_session(work, send) => outcome,
                e = guard.broken() => Err(e),
            };
            if let Err(e) = outcome {
                // Why the whole capture ended matters more than that this session did.
                let e = guard.check().err().unwrap_or(e);
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

    async fn with_session<W, F>(&self, work: W, send: mpsc::Sender<Result<Piece>>) -> Result<()>
    where
        W: FnOnce(Database, PgConnection, mpsc::Sender<Result<Piece>>) -> F,
        F: Future<Output = Result<PgConnection>>,
    {
        let gone =
            || Error::new(ErrorKind::Source, format!("{}: no session is left to read with", self.database.location()));
        let permit = self.free.acquire().await.map_err(|_| gone())?;
        let session = self.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let session = match session {
            Some(session) => session,
            None => return Err(self.guard.check().err().unwrap_or_else(gone)),
        };
        let session = work(self.database.clone(), session, send).await?;
        let mut home = self.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Once the capture is broken off nothing may hold a lock any more.
        self.guard.check()?;
        home.push(session);
        drop(home);
        drop(permit);
        Ok(())
    }
}

async fn copy_rows(
    database: &Database,
    session: &mut PgConnection,
    sql: &str,
    send: &mpsc::Sender<Result<Piece>>,
    blocks: &Blocks,
) -> Result<u64> {
    let failed = |e| database.failed("could not be read to its end", e);
    let mut rows = 0;
    let mut out = blocks.take(PIECE + PIECE / 8);
    let mut copy = session.copy_out_raw(sql).await.map_err(failed)?;
    while let Some(row) = copy.try_next().await.map_err(failed)? {
        rows += 1;
        out.extend_from_slice(&row);
        if out.len() >= PIECE {
            let full = std::mem::replace(&mut out, blocks.take(PIECE + PIECE / 8));
            if send.send(Ok(blocks.share(full).into())).await.is_err() {
                return Err(Error::new(ErrorKind::Source, format!("reading {} was broken off", database.location())));
            }
        }
    }
    if !out.is_empty() {
        // Whether anybody still listens shows at the end of the capture.
        let _ = send.send(Ok(blocks.share(out).into())).await;
    }
    Ok(rows)
}

/// Whether anybody still listens.
async fn hand_on(send: &mpsc::Sender<Result<Piece>>, out: &mut Vec<u8>) -> bool {
    out.is_empty() || send.send(Ok(bytes::Bytes::from(std::mem::take(out)).into())).await.is_ok()
}
