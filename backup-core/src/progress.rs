//! What a long operation is doing, for whoever wants to draw it.

use std::fmt::Debug;
use std::time::Duration;

/// Something that happened. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Work on an entry (or, while verifying, on a snapshot) began.
    Began {
        /// Its name.
        name: &'a str,
    },
    /// So much more plaintext passed through, and so much more was moved to or from the store.
    Moved {
        /// Plaintext bytes.
        plain: u64,
        /// Stored bytes.
        stored: u64,
    },
    /// Work on an entry ended well.
    Ended {
        /// Its name.
        name: &'a str,
        /// Its rows or files.
        rows: u64,
    },
    /// One of several stores does not get what the others get.
    Lags {
        /// The store, as messages call it.
        store: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// Nothing is read for a while; see [`Throttle`](crate::Throttle).
    Paused {
        /// Why.
        reason: &'a str,
    },
    /// Reading goes on.
    Resumed {
        /// For how long nothing was read.
        paused: Duration,
    },
}

/// Watches a long operation. Called often and from several tasks: it must be quick.
pub trait Progress: Debug + Send + Sync {
    /// `event` happened.
    fn on(&self, event: Event<'_>);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn on(&self, _: Event<'_>) {}
}
