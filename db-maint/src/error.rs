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
    /// The database cannot be reached, or does not let this user in.
    Unreachable,
    /// A right is missing.
    Denied,
    /// The server is too old, or lacks something that is needed.
    Unsupported,
    /// Somebody else holds what is needed.
    Busy,
    /// Another process has taken over what this one did: it has stopped.
    Fenced,
    /// A plan no longer fits what it was made for.
    Drift,
    /// Two clocks differ by too much to decide what is old.
    Clock,
    /// The server answered with another error.
    Database,
}

/// An error of this crate.
///
/// [`Display`](fmt::Display) names the object and the cause in one line, [`next_step`](Error::next_step) says what to do about
/// it, [`source`](StdError::source) keeps what was underneath. No secret is part of any of them.
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
        matches!(self.0.kind, ErrorKind::Busy | ErrorKind::Unreachable)
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
        let e = Error::new(ErrorKind::Unreachable, "postgres://db/shop cannot be opened")
            .with_next_step("start it")
            .with_source(std::io::Error::other("refused"));
        assert_eq!(e.to_string(), "postgres://db/shop cannot be opened");
        assert_eq!(StdError::source(&e).unwrap().to_string(), "refused");
        assert!(e.is_retryable() && e.next_step() == Some("start it"));
        assert!(!Error::new(ErrorKind::Denied, "x").is_retryable());
    }
}
