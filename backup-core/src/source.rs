//! What can be backed up: a [`Source`] gives a [`Capture`], a capture gives [entries](Entry), an entry gives bytes.
//!
//! A source knows nothing of repositories, chunks or keys. It promises one consistent instant, row-exact bytes, and
//! that whatever it could not read is an error or a [`Problem`], never a silence.

#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod sessions;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;

use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::manifest::{EntryKind, Member, Problem, SourceInfo, Unit};

/// Something that can be backed up.
///
/// ```
/// use backup_core::{async_trait, bytes::Bytes, chrono::Utc, futures::stream};
/// use backup_core::{Capture, CaptureContext, Entry, EntryKind, Repository, Keys, Result, Source, SourceInfo, Store};
///
/// /// A shop's feature switches, kept in memory.
/// #[derive(Debug)]
/// struct Switches(Vec<(String, bool)>);
///
/// #[async_trait]
/// impl Source for Switches {
///     fn name(&self) -> &str { "switches" }
///     async fn capture(&self, _: CaptureContext) -> Result<Box<dyn Capture>> {
///         let rows = self.0.iter().map(|(name, on)| format!("{name}\t{on}\n")).collect();
///         Ok(Box::new(Snapped(Some(rows))))
///     }
/// }
///
/// struct Snapped(Option<String>);
///
/// #[async_trait]
/// impl Capture for Snapped {
///     fn info(&self) -> SourceInfo { SourceInfo::new("switches", "switches", "memory", "1") }
///     async fn next(&mut self) -> Result<Option<Entry>> {
///         Ok(self.0.take().map(|rows| {
///             Entry::new("data/switches", EntryKind::Data, "switches", stream::iter([Ok(Bytes::from(rows).into())]))
///         }))
///     }
///     async fn finish(self: Box<Self>) -> Result<backup_core::CaptureEnd> { Ok(backup_core::CaptureEnd::at(Utc::now())) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let mut keys = Keys::generate()?;
/// let repository = Repository::init(Store::from_url("memory:")?, &mut keys, &[]).await?;
/// let snapshot = repository.backup(&Switches(vec![("sale".into(), true)]), Default::default()).await?;
/// assert_eq!(snapshot.manifest.totals.rows, 1);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// What its snapshots are found by. Two sources of one repository must not share a name.
    fn name(&self) -> &str;

    /// The tier it reads, where it reads only part of what there is.
    fn tier(&self) -> Option<&str> {
        None
    }

    /// Fixes one consistent instant and begins to read it.
    ///
    /// Dropping the future or the capture ends every session it opened.
    ///
    /// # Errors
    /// Where the source is missing, busy or damaged; see the kinds `Source…` of [`ErrorKind`](crate::ErrorKind).
    async fn capture(&self, context: CaptureContext) -> Result<Box<dyn Capture>>;
}

/// What a source may know of earlier snapshots of itself.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CaptureContext {
    /// The newest snapshot of this source whose chunks can be shared, if there is one.
    pub previous: Option<Arc<dyn Previous>>,
}

/// The snapshot before this one, as far as a source needs it to leave unchanged things unread.
#[async_trait]
pub trait Previous: Debug + Send + Sync {
    /// The instant before which nothing of it had been read.
    fn taken_at(&self) -> DateTime<Utc>;

    /// How many rows or files the entry called `name` holds; 0 where there was no such entry.
    fn rows(&self, name: &str) -> u64;

    /// The units of the entry called `name`, in order, with whether all their bytes are still in the store. `None`
    /// where there was no such entry.
    async fn units<'a>(&'a self, name: &'a str) -> Result<Option<BoxStream<'a, Result<(Unit, bool)>>>>;
}

/// One consistent instant of a source, being read.
#[async_trait]
pub trait Capture: Send {
    /// What is being read.
    fn info(&self) -> SourceInfo;

    /// The next entry, or `None` after the last. Earlier entries may still be unread: entries can be drained side by
    /// side where the source has several connections, and one after the other where it has one.
    async fn next(&mut self) -> Result<Option<Entry>>;

    /// Ends the reading. Whatever failed late (a child's exit status, a lost connection) is an error here, and then
    /// there is no snapshot.
    async fn finish(self: Box<Self>) -> Result<CaptureEnd>;
}

/// What a capture knows only at its end.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CaptureEnd {
    /// The instant whose state was read.
    pub taken_at: DateTime<Utc>,
    /// The position in a log or the like, for people.
    pub position: Option<String>,
    /// What could not be read, or was not as it should be. A snapshot with problems is kept and said to have them.
    pub problems: Vec<Problem>,
    /// How many problems there were, where the list was cut short.
    pub problem_count: u64,
}

impl CaptureEnd {
    /// A clean end of a capture of the state at `taken_at`.
    pub fn at(taken_at: DateTime<Utc>) -> Self {
        Self { taken_at, position: None, problems: Vec::new(), problem_count: 0 }
    }

    /// The same with the source's position.
    #[must_use]
    pub fn with_position(mut self, position: impl Into<String>) -> Self {
        self.position = Some(position.into());
        self
    }

    /// The same with what could not be read: the first of them, and how many there were.
    #[must_use]
    pub fn with_problems(mut self, problems: Vec<Problem>, count: u64) -> Self {
        self.problem_count = count.max(problems.len() as u64);
        self.problems = problems;
        self
    }
}

/// A named stream of bytes.
pub struct Entry {
    /// Its name, unique in the snapshot, such as `data/orders`.
    pub name: String,
    /// What it holds.
    pub kind: EntryKind,
    /// The table or folder it belongs to, as its owner calls it: what `--only` selects by.
    pub subject: String,
    /// Where its lines are bare rows: what has to stand before each of them, or before several with commas between, to make
    /// a statement. Empty where they are statements already, or the frame makes them some.
    pub insert: String,
    /// What has to stand before and after its content so that the database's own client reads it; neither is a row.
    pub frame: (String, String),
    /// Whether somebody waits for it to be read, since what it is read from is locked: then no
    /// [`Throttle`](crate::Throttle) makes it pause.
    pub urgent: bool,
    /// Its content. For kinds other than [`Files`](EntryKind::Files) and [`Tree`](EntryKind::Tree) one row a line, in an
    /// order and form that stay the same while the data does.
    pub body: BoxStream<'static, Result<Piece>>,
}

impl Entry {
    /// An entry of `kind` whose content is `body`.
    pub fn new(
        name: impl Into<String>,
        kind: EntryKind,
        subject: impl Into<String>,
        body: impl futures::Stream<Item = Result<Piece>> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            subject: subject.into(),
            insert: String::new(),
            frame: Default::default(),
            urgent: false,
            body: Box::pin(body),
        }
    }

    /// The same with what makes a statement of each row.
    #[must_use]
    pub fn inserted(mut self, insert: impl Into<String>) -> Self {
        self.insert = insert.into();
        self
    }

    /// The same, to be read without pauses.
    #[must_use]
    pub fn urgent(mut self) -> Self {
        self.urgent = true;
        self
    }

    /// The same with what has to stand before and after its content.
    #[must_use]
    pub fn framed(mut self, before: impl Into<String>, after: impl Into<String>) -> Self {
        self.frame = (before.into(), after.into());
        self
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({}, {:?})", self.name, self.kind)
    }
}

/// A piece of an entry's content.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Piece {
    /// The next bytes; a few hundred KiB at a time are best.
    Bytes(Bytes),
    /// The bytes since the last such piece, or the beginning, are a unit: these files.
    EndUnit {
        /// The files in it.
        members: Vec<Member>,
        /// The sum of their fingerprints.
        fingerprint: Fingerprint,
    },
    /// The unit of this number of the previous snapshot's entry of the same name, unchanged and unread. In ascending
    /// order, and before any bytes.
    Reuse(u64),
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
