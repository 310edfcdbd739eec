//! What can go wrong.

use std::error::Error as StdError;
use std::fmt;

/// The result of what this crate does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something that could not be done: which, why, and what comes next.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    next_step: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of thing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting makes no sense.
    Config,
    /// Somebody or something does not answer. A later try may help.
    Unreachable,
    /// There is no right to look.
    Denied,
    /// What is there is not what it should be, such as a ledger that was changed.
    Malformed,
    /// It cannot be read or written down. A later try may help.
    Storage,
}

impl Error {
    /// An error; a secret must not stand in its message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), next_step: None, source: None }
    }

    /// The same with what a person does next.
    #[must_use]
    pub fn with_next_step(mut self, next_step: impl Into<String>) -> Self {
        self.next_step = Some(next_step.into());
        self
    }

    /// The same with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What a person does next, where that is known.
    pub fn next_step(&self) -> Option<&str> {
        self.next_step.as_deref()
    }

    /// Whether the same may work later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unreachable | ErrorKind::Storage)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// Something about a file.
pub(crate) fn file(path: &std::path::Path, what: &str, e: std::io::Error) -> Error {
    let (kind, next) = match e.kind() {
        std::io::ErrorKind::PermissionDenied => (ErrorKind::Denied, "let the user that runs this have it"),
        std::io::ErrorKind::NotFound => (ErrorKind::Config, "check the path"),
        _ => (ErrorKind::Storage, "check the disk"),
    };
    Error::new(kind, format!("{}: {what}: {e}", path.display())).with_next_step(next).with_source(e)
}
