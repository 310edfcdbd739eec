//! Is what arrived what was sent?

use std::collections::BTreeMap;

use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::manifest::{EntryKind, EntryRecord};
use crate::pipeline::{LineCounter, Task, drain};
use crate::source::{CaptureContext, Entry, Piece, Source};

/// One entry of a snapshot beside the same of what was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compared {
    /// The entry's name.
    pub entry: String,
    /// The table or folder.
    pub subject: String,
    /// What it holds.
    pub kind: EntryKind,
    /// In the snapshot.
    pub expected: Fingerprint,
    /// In what was restored; `None` where it is not there.
    pub found: Option<Fingerprint>,
}

impl Compared {
    /// Whether both hold the same.
    pub fn is_equal(&self) -> bool {
        self.found == Some(self.expected)
    }
}

/// Entries of one source that are read at the same time, where it has the connections for it.
const SIDE_BY_SIDE: usize = 4;

/// Reads all of `source` and fingerprints its entries; nothing is stored. Dropping the future ends the reading.
///
/// # Errors
/// Where something cannot be read; then there are no fingerprints at all.
pub async fn fingerprints(source: &dyn Source) -> Result<BTreeMap<String, Fingerprint>> {
    let capture = source.capture(CaptureContext::default()).await?;
    // Each in a task of its own, so that all cores have something to do.
    let (capture, found) = drain(capture, SIDE_BY_SIDE, |entry| Task::spawn(fingerprint(entry)).join()).await?;
    capture.finish().await?;
    Ok(found.into_iter().collect())
}

async fn fingerprint(mut entry: Entry) -> Result<(String, Fingerprint)> {
    let lines = !matches!(entry.kind, EntryKind::Files | EntryKind::Tree);
    let mut counter = LineCounter::default();
    let mut units = Fingerprint::EMPTY;
    while let Some(piece) = entry.body.next().await {
        match piece? {
            Piece::Bytes(bytes) if lines => counter.add(&bytes),
            Piece::EndUnit { fingerprint, .. } => units += fingerprint,
            Piece::Bytes(_) | Piece::Reuse(_) => {}
        }
    }
    Ok((entry.name, if lines { counter.finish() } else { units }))
}

/// Holds the entries of a snapshot against what was restored.
pub(crate) fn compare<'a>(
    entries: impl Iterator<Item = &'a EntryRecord>,
    found: &BTreeMap<String, Fingerprint>,
) -> Vec<Compared> {
    entries
        .map(|e| Compared {
            entry: e.name.clone(),
            subject: e.subject.clone(),
            kind: e.kind,
            expected: e.fingerprint,
            found: found.get(&e.name).copied(),
        })
        .collect()
}
