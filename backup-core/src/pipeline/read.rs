//! From index lines back to an entry's bytes, everything checked on the way.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};

use super::seal::{self, Length};
use super::write::chunk_id;
use super::{Task, Workers};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{Fingerprint, RowHasher};
use crate::manifest::{ChunkRef, Digest, EntryRecord, IndexLine, Manifest, PartRef, Unit};
use crate::progress::{Event, Progress};
use crate::repository::{Repository, layout};

/// How many chunks are fetched ahead.
const AHEAD: usize = 4;

/// The index lines of an entry, in order. Needs no data key.
pub(crate) fn index_lines<'a>(
    repository: &'a Repository,
    entry: &'a EntryRecord,
) -> impl Stream<Item = Result<IndexLine>> + Send + 'a {
    let inline = futures::stream::iter(entry.inline.iter().cloned().map(Ok));
    let parts = futures::stream::iter(&entry.parts)
        .map(move |part| async move { Ok::<_, Error>(futures::stream::iter(read_part(repository, part).await?)) })
        .buffered(2)
        .try_flatten();
    inline.chain(parts)
}

/// The units of an entry with their chunks, in order. Needs no data key.
pub(crate) fn units_of<'a>(
    repository: &'a Repository,
    entry: &'a EntryRecord,
) -> impl Stream<Item = Result<(Vec<ChunkRef>, Unit)>> + Send + 'a {
    let name = entry.name.clone();
    index_lines(repository, entry)
        .map(Some)
        .chain(futures::stream::iter([None]))
        .scan(Vec::new(), move |chunks, line| {
            let out = match line {
                Some(Ok(IndexLine::Chunk(chunk))) => {
                    chunks.push(chunk);
                    None
                }
                Some(Ok(IndexLine::Unit(unit))) if unit.chunks == chunks.len() as u64 => {
                    Some(Ok((std::mem::take(chunks), unit)))
                }
                Some(Ok(IndexLine::Unit(_))) => Some(Err(index_error(&name, "a unit does not fit its chunks"))),
                Some(Err(e)) => Some(Err(e)),
                None if chunks.is_empty() => None,
                None => Some(Err(index_error(&name, "its last chunks belong to no unit"))),
            };
            futures::future::ready(Some(out))
        })
        .filter_map(futures::future::ready)
}

/// The lines of one part; each is parsed only when it is asked for, since its text is smaller.
async fn read_part(repository: &Repository, part: &PartRef) -> Result<impl Iterator<Item = Result<IndexLine>>> {
    let path = layout::object(&part.object);
    let bytes = repository.read_named(&path, &part.object).await?;
    let text = seal::open(
        &bytes,
        &part.object,
        Length::Exactly(part.plain),
        &repository.metadata_identities(),
        repository.is_encrypted(),
        path.as_ref(),
    )?;
    let mut at = 0;
    Ok(std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        at += end + 1;
        let line = serde_json::from_slice(&rest[..end]);
        Some(line.map_err(|e| index_error(path.as_ref(), "one of its lines is no index line").with_source(e)))
    }))
}

fn index_error(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("the index of {name} is damaged: {why}"))
        .with_next_step("run `backup verify` for the whole extent; restore from another snapshot or store")
}

/// Reads the data of one snapshot's entries.
#[derive(Clone)]
pub(crate) struct EntryReader {
    repository: Repository,
    workers: Workers,
    identities: Arc<Vec<age::x25519::Identity>>,
    id_key: Digest,
    progress: Arc<dyn Progress>,
}

impl EntryReader {
    /// Needs the data key where the repository is encrypted.
    pub(crate) fn new(repository: &Repository, manifest: &Manifest, progress: Arc<dyn Progress>) -> Result<Self> {
        Ok(Self {
            identities: Arc::new(repository.data_identities()?),
            repository: repository.clone(),
            workers: Workers::for_this_machine(),
            id_key: manifest.id_key,
            progress,
        })
    }

    /// The same for an entry whose chunks were named with another key.
    pub(crate) fn with_id_key(mut self, id_key: Digest) -> Self {
        self.id_key = id_key;
        self
    }

    /// The entry's bytes, chunk by chunk, in order. Every chunk was checked against the signed index; that all were
    /// there is checked at the end, against the signed record.
    pub(crate) fn read<'a>(&'a self, entry: &'a EntryRecord) -> BoxStream<'a, Result<Bytes>> {
        let chunks = index_lines(&self.repository, entry).try_filter_map(|line| async move {
            Ok(match line {
                IndexLine::Chunk(chunk) => Some(chunk),
                IndexLine::Unit(_) => None,
            })
        });
        self.fetch(chunks, entry)
    }

    /// The same with the units that `wanted` picks alone.
    #[cfg(feature = "files")]
    pub(crate) fn read_units<'a>(
        &'a self,
        entry: &'a EntryRecord,
        wanted: impl Fn(&Unit) -> bool + Send + 'a,
    ) -> BoxStream<'a, Result<Bytes>> {
        let chunks = units_of(&self.repository, entry)
            .try_filter_map(move |(chunks, unit)| {
                futures::future::ready(Ok(wanted(&unit).then(|| futures::stream::iter(chunks.into_iter().map(Ok)))))
            })
            .try_flatten();
        self.fetch_some(chunks).boxed()
    }

    fn fetch<'a>(
        &'a self,
        chunks: impl Stream<Item = Result<ChunkRef>> + Send + 'a,
        entry: &'a EntryRecord,
    ) -> BoxStream<'a, Result<Bytes>> {
        let counted =
            self.fetch_some(chunks).map(Some).chain(futures::stream::iter([None])).scan(0u64, move |seen, chunk| {
                let out = match chunk {
                    Some(Ok(bytes)) => {
                        *seen += bytes.len() as u64;
                        Some(Ok(bytes))
                    }
                    Some(Err(e)) => Some(Err(e)),
                    None if *seen == entry.bytes => None,
                    None => {
                        Some(Err(index_error(&entry.name, "it does not add up to the length in the signed record")))
                    }
                };
                futures::future::ready(Some(out))
            });
        counted.filter_map(futures::future::ready).boxed()
    }

    fn fetch_some<'a>(
        &'a self,
        chunks: impl Stream<Item = Result<ChunkRef>> + Send + 'a,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'a {
        chunks
            .map(move |chunk| {
                let this = self.clone();
                async move {
                    let chunk = chunk?;
                    Task::spawn(async move { this.chunk(chunk).await }).join().await
                }
            })
            .buffered(AHEAD)
    }

    async fn chunk(self, chunk: ChunkRef) -> Result<Bytes> {
        let path = layout::object(&chunk.object);
        let stored = self.repository.read_named(&path, &chunk.object).await?;
        let encrypted = self.repository.is_encrypted();
        let (identities, id_key) = (Arc::clone(&self.identities), self.id_key);
        let plain = self
            .workers
            .run(move || {
                let identities: Vec<_> = identities.iter().collect();
                let length = Length::Exactly(chunk.plain);
                let plain = seal::open(&stored, &chunk.object, length, &identities, encrypted, path.as_ref())?;
                if chunk_id(&id_key, &plain) != chunk.id {
                    return Err(Error::new(
                        ErrorKind::Damaged,
                        format!("{path} does not hold the content that its signed index names: it was damaged before it was stored"),
                    ));
                }
                Ok(plain)
            })
            .await??;
        self.progress.on(Event::Moved { plain: chunk.plain, stored: chunk.stored });
        Ok(Bytes::from(plain))
    }
}

/// Counts the rows of a stream of lines that comes in arbitrary pieces.
#[derive(Debug, Default)]
pub(crate) struct LineCounter {
    fingerprint: Fingerprint,
    open: Option<RowHasher>,
}

impl LineCounter {
    pub(crate) fn add(&mut self, mut bytes: &[u8]) {
        if let Some(row) = &mut self.open {
            let end = memchr::memchr(b'\n', bytes);
            row.update(&bytes[..end.unwrap_or(bytes.len())]);
            let Some(end) = end else { return };
            self.fingerprint.add_hash(row.finish());
            self.open = None;
            bytes = &bytes[end + 1..];
        }
        let whole = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        self.fingerprint += super::chunk::fingerprint_of_lines(&bytes[..whole]);
        if whole < bytes.len() {
            let mut row = RowHasher::new();
            row.update(&bytes[whole..]);
            self.open = Some(row);
        }
    }

    pub(crate) fn finish(mut self) -> Fingerprint {
        if let Some(row) = self.open {
            self.fingerprint.add_hash(row.finish());
        }
        self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[a-c\n]{0,200}", cuts in prop::collection::vec(0usize..200, 0..6)) {
            let whole = super::super::chunk::fingerprint_of_lines(text.as_bytes());
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.sort_unstable();
            let mut counter = LineCounter::default();
            let mut at = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                counter.add(&text.as_bytes()[at..cut]);
                at = cut;
            }
            prop_assert_eq!(counter.finish(), whole);
        }
    }
}
