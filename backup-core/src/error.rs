//! One public error for the crate: what failed, on which object, why, and what to do next.

use std::error::Error as StdError;
use std::fmt;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong: what a caller may decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, URL or setting makes no sense; nothing was attempted.
    Config,
    /// A key file that the operation needs is not there.
    KeyMissing,
    /// A key is there, but it is not the one this data was made with.
    KeyWrong,
    /// The store's content is not signed by the keys that were pinned when the repository was made.
    Untrusted,
    /// The repository, snapshot or entry that was asked for does not exist.
    NotFound,
    /// "latest" or a name fits several snapshots or sources: the caller has to choose.
    Ambiguous,
    /// The bucket or folder of the store does not exist.
    StoreMissing,
    /// The store refuses the credentials or the operation.
    StoreDenied,
    /// The store has no room left.
    StoreFull,
    /// The store did not answer, or answered with a passing fault.
    StoreUnavailable,
    /// It is whole in fewer stores than copies were asked for.
    TooFewCopies,
    /// A stored object is truncated, altered, missing or in the wrong place.
    Damaged,
    /// A plan was made of another state than the one that is there now.
    Drift,
    /// This machine's clock and another one are too far apart for what depends on time.
    Clock,
    /// Somebody else holds the repository.
    Locked,
    /// The source does not exist or cannot be opened.
    SourceMissing,
    /// The source is locked by another program.
    SourceBusy,
    /// The source itself is damaged.
    SourceCorrupt,
    /// Reading the source failed for another reason.
    Source,
    /// The restore target already holds something, and replacing it was not asked for.
    TargetNotEmpty,
    /// Writing the restore target failed.
    Target,
    /// What was restored is not what was backed up.
    Mismatch,
    /// What the embedding program wanted done before the backup failed.
    Hook,
    /// Something inside this crate failed, such as a worker thread.
    Internal,
}

/// An error of this crate.
///
/// [`Display`](fmt::Display) names the object and the cause in one line; [`next_step`](Error::next_step) says what to
/// do about it; [`source`](StdError::source) keeps what was underneath. No secret is ever part of any of them: URLs
/// lose their passwords before they get here.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    next_step: Option<String>,
    retryable: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, saying `message`: the object and the cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retryable = matches!(kind, ErrorKind::StoreUnavailable | ErrorKind::Locked | ErrorKind::SourceBusy);
        Self(Box::new(Inner { kind, message: message.into(), next_step: None, retryable, source: None }))
    }

    /// The same error with a sentence on what to do next.
    #[must_use]
    pub fn with_next_step(mut self, next_step: impl Into<String>) -> Self {
        self.0.next_step = Some(next_step.into());
        self
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, knowing whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn with_retry(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether it is one store that does not do what it should; another may.
    pub(crate) fn is_about_the_store(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::StoreMissing | ErrorKind::StoreDenied | ErrorKind::StoreFull | ErrorKind::StoreUnavailable
        )
    }

    /// What a person can do about it, where that is known.
    pub fn next_step(&self) -> Option<&str> {
        self.0.next_step.as_deref()
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("next_step", &self.0.next_step)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_source_and_knows_whether_a_retry_helps() {
        let io = std::io::Error::other("disk on fire");
        let e = Error::new(ErrorKind::StoreUnavailable, "store file:///b: put failed")
            .with_next_step("wait")
            .with_source(io);
        assert_eq!(e.to_string(), "store file:///b: put failed");
        assert_eq!(StdError::source(&e).unwrap().to_string(), "disk on fire");
        assert!(e.is_retryable());
        assert_eq!(e.next_step(), Some("wait"));
        assert!(!Error::new(ErrorKind::KeyWrong, "x").is_retryable());
    }
}
