//! The order of the stages between a source and a store, and back. The only file that enters the blocking pool.
//!
//! ```text
//! backup:   pieces -> gather -> cut -> id + fingerprint -> known? -> compress -> encrypt -> hash -> put -> index line
//! restore:  index line -> get -> hash -> decrypt -> decompress -> id -> bytes, in order
//! ```
//!
//! Everything that waits in between counts against one budget of bytes, whatever the number of entries.

pub(crate) mod block;
mod chunk;
mod drain;
mod read;
pub(crate) mod seal;
mod worker;
mod write;

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) use self::block::Blocks;
#[cfg(feature = "stages")]
pub(crate) use self::chunk::Cutter;
pub(crate) use self::chunk::fingerprint_of_lines;
pub(crate) use self::drain::drain;
pub(crate) use self::read::{EntryReader, LineCounter, index_lines, units_of};
pub(crate) use self::worker::Workers;
pub(crate) use self::write::{Known, KnownPrevious, Writer, chunk_id};
use crate::error::{Error, ErrorKind, Result};

/// Runs synchronous I/O on the runtime's blocking pool. Dropping the future lets it run to its end, result unheard.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => {
            Err(Error::new(ErrorKind::Internal, format!("a reading or writing thread failed: {e}")).with_source(e))
        }
    }
}

/// A task that ends when whoever waits for it is dropped.
#[derive(Debug)]
pub(crate) struct Task<T>(tokio::task::JoinHandle<Result<T>>);

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn(work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    pub(crate) async fn join(mut self) -> Result<T> {
        match (&mut self.0).await {
            Ok(result) => result,
            Err(e) => Err(Error::new(ErrorKind::Internal, format!("a pipeline task failed: {e}")).with_source(e)),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
