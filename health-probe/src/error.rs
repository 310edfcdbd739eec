//! One public error for the crate: what failed, on which object, why, and what to do next.

use std::error::Error as StdError;
use std::fmt;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong: what a caller may decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, address or setting makes no sense; nothing was attempted.
    Config,
    /// Nobody answers there.
    Unreachable,
    /// It took longer than it may.
    Timeout,
    /// A right is missing.
    Denied,
    /// What came back is not what was asked for.
    Malformed,
    /// The other side lacks something that is needed.
    Unsupported,
    /// A file or the ledger could not be read or written.
    Storage,
    /// Code of an embedder panicked.
    Panicked,
}

/// An error of this crate: why something could not be *observed*, remembered or sent.
///
/// A shop that is down is no error: that is an observation, and its verdict is critical. [`Display`](fmt::Display) names the
/// object and the cause in one line, [`next_step`](Error::next_step) says what to do about it,
/// [`source`](StdError::source) keeps what was underneath. No secret is part of any of them.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    next_step: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, saying `message`: the object and the cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), next_step: None, source: None }))
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

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What a person can do about it, where that is known.
    pub fn next_step(&self) -> Option<&str> {
        self.0.next_step.as_deref()
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unreachable | ErrorKind::Timeout)
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

/// A file that could not be read or written.
pub(crate) fn file(path: &std::path::Path, what: &str, e: std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Storage,
    };
    let next = match kind {
        ErrorKind::Denied => "let the user that runs this read it",
        _ => "check the path",
    };
    Error::new(kind, format!("{}: {what}: {e}", path.display())).with_next_step(next).with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_source_and_knows_whether_a_retry_helps() {
        let e = Error::new(ErrorKind::Timeout, "shop.example: no answer within 10 s")
            .with_next_step("look at the server")
            .with_source(std::io::Error::other("timed out"));
        assert_eq!(StdError::source(&e).unwrap().to_string(), "timed out");
        assert!(e.is_retryable() && e.next_step() == Some("look at the server"));
        assert!(!Error::new(ErrorKind::Denied, "x").is_retryable());
    }
}
