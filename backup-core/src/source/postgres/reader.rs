//! The sessions that read, and what they read.

use futures::TryStreamExt;
use futures::stream::BoxStream;
use sqlx::postgres::PgConnection;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Blocks;
use crate::postgres::Database;
use crate::source::Piece;
use crate::source::sessions::{Pieces, Sessions};

/// Rows are handed on in pieces of this many bytes.
const PIECE: usize = 512 * 1024;
/// Bytes of a large object in one statement.
const LARGE_PIECE: i64 = 256 * 1024;

/// The sessions that read, and who gets the next free one.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) database: Database,
    pub(super) sessions: Sessions<PgConnection>,
    pub(super) blocks: Blocks,
}

impl Reader {
    /// The rows that a `COPY … TO STDOUT` gives, one a line.
    pub(super) fn copy(&self, sql: String) -> BoxStream<'static, Result<Piece>> {
        let blocks = self.blocks.clone();
        let database = self.database.clone();
        self.sessions.read(move |mut session, send| async move {
            let rows = copy_rows(&database, &mut session, &sql, &send, &blocks).await?;
            tracing::debug!(rows, sql, "copied");
            Ok(session)
        })
    }

    /// The rows that several `COPY … TO STDOUT` give, one after the other, though they are read side by side.
    pub(super) fn copy_parts(&self, parts: Vec<String>, side_by_side: usize) -> BoxStream<'static, Result<Piece>> {
        let this = self.clone();
        let works = parts.into_iter().map(move |sql| {
            let (blocks, database) = (this.blocks.clone(), this.database.clone());
            move |mut session, send| async move {
                copy_rows(&database, &mut session, &sql, &send, &blocks).await?;
                Ok(session)
            }
        });
        self.sessions.read_parts(works, side_by_side)
    }

    /// The lines that queries of one text column give.
    pub(super) fn lines(&self, queries: Vec<String>) -> BoxStream<'static, Result<Piece>> {
        let database = self.database.clone();
        self.sessions.read(move |mut session, send| async move {
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
        let database = self.database.clone();
        self.sessions.read(move |mut session, send| async move {
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
}

async fn copy_rows(
    database: &Database,
    session: &mut PgConnection,
    sql: &str,
    send: &Pieces,
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
async fn hand_on(send: &Pieces, out: &mut Vec<u8>) -> bool {
    out.is_empty() || send.send(Ok(bytes::Bytes::from(std::mem::take(out)).into())).await.is_ok()
}
