//! From an entry's pieces to stored chunks and index lines.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::block::Blocks;
use super::chunk::{self, Chunk, Cutter};
use super::read::{index_lines, units_of};
use super::seal::{self, Cipher, Sealed};
use super::{Task, Workers};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::manifest::{ChunkRef, Digest, EntryKind, EntryRecord, IndexLine, Manifest, PartRef, Unit};
use crate::progress::{Event, Progress};
use crate::repository::{Arrived, RECORD_LEVEL, Repository, Spool, Store, layout};
use crate::source::{Entry, Piece, Previous};
use crate::throttle::Gate;

/// Plaintext bytes that may be between the cutter and the store at once.
const BUDGET: usize = 6 << 20;
/// Chunks of one entry that may be waiting for an earlier one.
const WINDOW: usize = 64;
/// Up to so many index lines stand in the snapshot's record itself.
const INLINE_LINES: usize = 8;
/// An index part is cut where its content says so, between these sizes in bytes.
const PART_MIN: usize = 64 * 1024;
const PART_MAX: usize = 512 * 1024;

/// What the store is known to hold, from signed records, and confirmed by its own list.
#[derive(Debug, Default)]
pub(crate) struct Known {
    chunks: HashMap<Digest, (Digest, u64)>,
    parts: HashMap<Digest, PartRef>,
    /// The stores, of several, that lack some of it: which others have.
    pub(crate) incomplete: HashSet<String>,
    /// What was found damaged or missing: the store, where that is known, and the object's name.
    pub(crate) bad: HashSet<(Option<String>, String)>,
}

impl Known {
    /// Everything that the manifests refer to and that the store still lists at its right length.
    ///
    /// The list alone proves nothing and is never trusted to name content. But without it a lost chunk would be lost to
    /// every later snapshot too; so it is stored again.
    /// What a verify has found `bad` since is stored again as well. Of several stores it is enough that one has it.
    pub(crate) async fn load(
        repository: &Repository,
        manifests: impl Iterator<Item = &Manifest>,
        bad: &HashSet<(Option<String>, String)>,
    ) -> Result<Self> {
        let mut known = Self { bad: bad.clone(), ..Self::default() };
        let readers = repository.readers()?;
        for manifest in manifests {
            for entry in &manifest.entries {
                // An index that somebody cannot read who is to read this one is written anew.
                for part in entry.parts.iter().filter(|_| manifest.readers == readers) {
                    known.parts.insert(part.id, *part);
                }
                let lines = index_lines(repository, entry);
                futures::pin_mut!(lines);
                while let Some(line) = lines.try_next().await? {
                    if let IndexLine::Chunk(c) = line {
                        known.chunks.insert(c.id, (c.object, c.stored));
                    }
                }
            }
        }
        let wanted: HashMap<Digest, u64> =
            known.chunks.values().copied().chain(known.parts.values().map(|p| (p.object, p.stored))).collect();
        let mut listed: HashSet<Digest> = HashSet::new();
        for store in repository.stores() {
            let here = match list_wanted(store, &wanted, bad).await {
                Ok(here) => here,
                Err(e) if repository.stores().len() > 1 && e.is_about_the_store() => {
                    tracing::warn!(%store, error = %e, "it cannot be listed");
                    HashSet::new()
                }
                Err(e) => return Err(e),
            };
            if here.len() < wanted.len() {
                known.incomplete.insert(store.to_string());
            }
            listed.extend(here);
        }
        let before = known.chunks.len() + known.parts.len();
        known.chunks.retain(|_, (object, _)| listed.contains(object));
        known.parts.retain(|_, part| listed.contains(&part.object));
        let lost = before - known.chunks.len() - known.parts.len();
        if lost > 0 {
            tracing::warn!(
                objects = lost,
                ?repository,
                "objects of the previous snapshot are gone or damaged; what they held is stored again"
            );
        }
        Ok(known)
    }

    fn holds(&self, chunk: &ChunkRef) -> bool {
        self.chunks.get(&chunk.id) == Some(&(chunk.object, chunk.stored))
    }
}

/// Which of the objects the store lists with the right length.
async fn list_wanted(
    store: &Store,
    wanted: &HashMap<Digest, u64>,
    bad: &HashSet<(Option<String>, String)>,
) -> Result<HashSet<Digest>> {
    let location = Some(store.to_string());
    let mut listed = HashSet::new();
    let mut names = store.list(layout::OBJECTS);
    while let Some((name, size)) = names.try_next().await? {
        let layout::Name::Object(digest) = layout::parse(&name) else { continue };
        let is_bad = |store: &Option<String>| bad.contains(&(store.clone(), name.clone()));
        if wanted.get(&digest) == Some(&size) && !is_bad(&None) && !is_bad(&location) {
            listed.insert(digest);
        }
    }
    Ok(listed)
}

/// The previous snapshot, as sources see it.
#[derive(Debug)]
pub(crate) struct KnownPrevious {
    pub(crate) repository: Repository,
    pub(crate) manifest: Manifest,
    pub(crate) known: Arc<Known>,
}

#[async_trait]
impl Previous for KnownPrevious {
    fn taken_at(&self) -> DateTime<Utc> {
        self.manifest.taken_at
    }

    fn rows(&self, name: &str) -> u64 {
        self.manifest.entry(name).map_or(0, |e| e.fingerprint.rows())
    }

    async fn units<'a>(&'a self, name: &'a str) -> Result<Option<BoxStream<'a, Result<(Unit, bool)>>>> {
        let Some(entry) = self.manifest.entry(name) else { return Ok(None) };
        let units = units_of(&self.repository, entry)
            .map_ok(|(chunks, unit)| (unit, chunks.iter().all(|c| self.known.holds(c))));
        Ok(Some(units.boxed()))
    }
}

/// Writes the entries of one snapshot.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) repository: Repository,
    workers: Workers,
    blocks: Blocks,
    budget: Arc<Semaphore>,
    data: Arc<Cipher>,
    metadata: Arc<Cipher>,
    id_key: Digest,
    level: i32,
    previous: Option<Arc<KnownPrevious>>,
    /// Where there are several stores; taken away at the end.
    spool: std::sync::Mutex<Option<Arc<Spool>>>,
    /// Where reading may have to wait.
    gate: std::sync::Mutex<Option<Arc<Gate>>>,
    /// What this run stored, so that equal content is stored once.
    fresh: std::sync::Mutex<HashMap<Digest, (Digest, u64)>>,
    progress: Arc<dyn Progress>,
    read: AtomicU64,
    added: AtomicU64,
    objects: AtomicU64,
}

impl Writer {
    pub(crate) fn new(
        repository: &Repository,
        level: i32,
        copies: usize,
        previous: Option<Arc<KnownPrevious>>,
        gate: Option<Gate>,
        progress: Arc<dyn Progress>,
    ) -> Result<Self> {
        let several = repository.stores().len() > 1;
        Ok(Self {
            spool: std::sync::Mutex::new(several.then(|| Arc::new(Spool::new(repository.stores(), copies)))),
            data: Arc::new(repository.data_cipher()?),
            metadata: Arc::new(repository.metadata_cipher()?),
            id_key: repository.id_key()?,
            repository: repository.clone(),
            workers: Workers::for_this_machine(),
            blocks: Blocks::default(),
            budget: Arc::new(Semaphore::new(BUDGET)),
            level,
            previous,
            gate: std::sync::Mutex::new(gate.map(Arc::new)),
            fresh: std::sync::Mutex::default(),
            progress,
            read: AtomicU64::new(0),
            added: AtomicU64::new(0),
            objects: AtomicU64::new(0),
        })
    }

    /// Plaintext bytes read, stored bytes added, objects added.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (load(&self.read), load(&self.added), load(&self.objects))
    }

    /// Nothing is asked any more whether reading has to pause.
    pub(crate) fn all_is_read(&self) {
        *lock(&self.gate) = None;
    }

    /// Stores one entry, durably, and says where it is. Dropping the future leaves unreferenced chunks at most.
    pub(crate) async fn write(self: &Arc<Self>, entry: Entry) -> Result<EntryRecord> {
        let Entry { name, kind, subject, insert, frame: (before, after), urgent, mut body } = entry;
        self.progress.on(Event::Began { name: &name });
        let lines = !matches!(kind, EntryKind::Files | EntryKind::Tree);
        let mut sink = Sink {
            writer: Arc::clone(self),
            cutter: Some(Cutter::new(&self.id_key, lines)),
            gathered: Vec::new(),
            whole: None,
            next_cut: chunk::BLOCK,
            waiting: VecDeque::new(),
            index: Index::default(),
            fingerprint: Fingerprint::EMPTY,
            unit_chunks: 0,
        };
        let previous = self.previous.clone();
        let mut old_units = match &previous {
            Some(p) => p.manifest.entry(&name).map(|e| units_of(&p.repository, e).enumerate().boxed()),
            None => None,
        };
        let gate = lock(&self.gate).clone().filter(|_| !urgent);
        loop {
            if let Some(gate) = &gate {
                gate.pass().await;
            }
            let Some(piece) = body.next().await else { break };
            match piece? {
                Piece::Bytes(bytes) => {
                    self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    sink.push(bytes).await?;
                }
                Piece::EndUnit { members, fingerprint } => sink.end_unit(members, fingerprint).await?,
                Piece::Reuse(wanted) => {
                    let gone = || {
                        Error::new(
                            ErrorKind::Source,
                            format!("{name}: unit {wanted} of the previous snapshot is not there to be reused"),
                        )
                    };
                    let units = old_units.as_mut().ok_or_else(gone)?;
                    loop {
                        let (number, unit) = units.next().await.ok_or_else(gone)?;
                        let (chunks, unit) = unit?;
                        if number as u64 == wanted {
                            sink.reuse(&chunks, unit).await?;
                            break;
                        }
                    }
                }
            }
        }
        let (index, fingerprint) = sink.finish().await?;
        self.progress.on(Event::Ended { name: &name, rows: fingerprint.rows() });
        let Index { text: _, lines, parts, bytes, chunks } = index;
        let inline = if parts.is_empty() { lines } else { Vec::new() };
        Ok(EntryRecord { name, kind, subject, bytes, chunks, insert, before, after, fingerprint, inline, parts })
    }

    /// Stores one chunk, unless its content is known to be there.
    async fn store_chunk(self: Arc<Self>, chunk: Chunk) -> Result<(ChunkRef, Fingerprint)> {
        let plain = chunk.bytes.len() as u64;
        let this = Arc::clone(&self);
        let work = move || -> Result<(Digest, Fingerprint, Content)> {
            let id = chunk_id(&this.id_key, &chunk.bytes);
            let fingerprint = chunk::fingerprint_of_lines(&chunk.bytes[chunk.rows.clone()]);
            let content = match this.find(&id) {
                Some((object, stored)) => Content::Known { object, stored },
                None => Content::New(seal::seal(&chunk.bytes, this.level, &this.data)?),
            };
            Ok((id, fingerprint, content))
        };
        let (id, fingerprint, content) = self.workers.run(work).await??;
        let (object, stored) = match content {
            Content::Known { object, stored } => (object, stored),
            Content::New(sealed) => {
                let place = self.put(sealed).await?;
                lock(&self.fresh).insert(id, place);
                place
            }
        };
        self.progress.on(Event::Moved { plain, stored: 0 });
        Ok((ChunkRef { object, id, plain, stored }, fingerprint))
    }

    fn find(&self, id: &Digest) -> Option<(Digest, u64)> {
        let known = self.previous.as_ref().and_then(|p| p.known.chunks.get(id).copied());
        known.or_else(|| lock(&self.fresh).get(id).copied())
    }

    async fn put(&self, mut sealed: Sealed) -> Result<(Digest, u64)> {
        // Without encryption equal content has equal names. If what has the name is damaged, it is stored under another.
        if !self.create(&sealed).await? {
            sealed = sealed.under_another_name()?;
            if !self.create(&sealed).await? {
                let path = layout::object(&sealed.digest);
                return Err(Error::new(
                    ErrorKind::Damaged,
                    format!("{path} is already in the store with other bytes than its name says"),
                )
                .with_next_step("run `backup verify`; somebody or something changed the store"));
            }
        }
        let stored = sealed.bytes.len() as u64;
        self.added.fetch_add(stored, Ordering::Relaxed);
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.progress.on(Event::Moved { plain: 0, stored });
        Ok((sealed.digest, stored))
    }

    async fn create(&self, sealed: &Sealed) -> Result<bool> {
        let path = layout::object(&sealed.digest);
        let spool = lock(&self.spool).clone();
        match spool {
            None => self.repository.store().create(&path, sealed.bytes.clone()).await,
            Some(spool) => spool.put(&path, &sealed.bytes).await.map(|()| true),
        }
    }

    /// Waits until the stores have what was sent to them, where they are several.
    pub(crate) async fn finish(&self) -> Option<Vec<Arrived>> {
        let spool = lock(&self.spool).clone();
        match spool {
            Some(spool) => Some(spool.finish().await),
            None => None,
        }
    }

    async fn store_part(self: &Arc<Self>, text: Vec<u8>) -> Result<PartRef> {
        let this = Arc::clone(self);
        let plain = text.len() as u64;
        let (id, sealed) = self
            .workers
            .run(move || -> Result<_> {
                let id = chunk_id(&this.id_key, &text);
                let known = this.previous.as_ref().is_some_and(|p| p.known.parts.contains_key(&id));
                Ok((id, if known { None } else { Some(seal::seal(&text, RECORD_LEVEL, &this.metadata)?) }))
            })
            .await??;
        match sealed {
            Some(sealed) => {
                let (object, stored) = self.put(sealed).await?;
                Ok(PartRef { object, id, plain, stored })
            }
            None => {
                let known = self.previous.as_ref().and_then(|p| p.known.parts.get(&id).copied());
                known.ok_or_else(|| Error::new(ErrorKind::Internal, "an index part was neither stored nor found"))
            }
        }
    }
}

/// What becomes of a chunk.
enum Content {
    /// The store has it.
    Known { object: Digest, stored: u64 },
    /// It has to be stored.
    New(Sealed),
}

/// The id of a chunk: keyed BLAKE3 of its plaintext.
pub(crate) fn chunk_id(key: &Digest, plain: &[u8]) -> Digest {
    Digest(*blake3::keyed_hash(&key.0, plain).as_bytes())
}

/// One entry on its way.
struct Sink {
    writer: Arc<Writer>,
    /// Away while a worker uses it.
    cutter: Option<Cutter>,
    /// What is not cut yet: less than a chunk that could not be decided on, and what came since.
    gathered: Vec<u8>,
    /// In its place, a large piece as it came: it is mostly cut at once, and need not be copied.
    whole: Option<Bytes>,
    /// How much has to be there before cutting is tried.
    next_cut: usize,
    waiting: VecDeque<Waiting>,
    index: Index,
    fingerprint: Fingerprint,
    unit_chunks: u64,
}

enum Waiting {
    Chunk(Task<(ChunkRef, Fingerprint)>),
    Line(IndexLine),
}

impl Sink {
    async fn push(&mut self, bytes: Bytes) -> Result<()> {
        if self.gathered.is_empty() && self.whole.is_none() && (chunk::AVERAGE..chunk::BLOCK).contains(&bytes.len()) {
            self.whole = Some(bytes);
            return Ok(());
        }
        if let Some(whole) = self.whole.take() {
            self.gather(&whole).await?;
        }
        self.gather(&bytes).await
    }

    async fn gather(&mut self, bytes: &[u8]) -> Result<()> {
        // A large piece goes in slices, so that what is gathered stays small.
        for slice in bytes.chunks(chunk::AVERAGE) {
            if self.gathered.capacity() == 0 {
                self.gathered = self.writer.blocks.take(chunk::MAX + chunk::AVERAGE);
            }
            self.gathered.extend_from_slice(slice);
            if self.gathered.len() >= self.next_cut {
                self.cut(false).await?;
            }
        }
        Ok(())
    }

    async fn end_unit(&mut self, members: Vec<crate::manifest::Member>, fingerprint: Fingerprint) -> Result<()> {
        self.cut(true).await?;
        self.fingerprint += fingerprint;
        let chunks = std::mem::take(&mut self.unit_chunks);
        self.waiting.push_back(Waiting::Line(IndexLine::Unit(Unit { chunks, members, fingerprint })));
        self.settle(false).await
    }

    async fn reuse(&mut self, chunks: &[ChunkRef], unit: Unit) -> Result<()> {
        self.fingerprint += unit.fingerprint;
        self.waiting.extend(chunks.iter().map(|c| Waiting::Line(IndexLine::Chunk(*c))));
        self.waiting.push_back(Waiting::Line(IndexLine::Unit(unit)));
        self.settle(false).await
    }

    async fn finish(mut self) -> Result<(Index, Fingerprint)> {
        self.cut(true).await?;
        self.settle(true).await?;
        let rows = self.cutter.as_ref().map_or(Fingerprint::EMPTY, Cutter::long_rows);
        self.fingerprint += rows;
        let many = !self.index.parts.is_empty()
            || self.index.lines.len() > INLINE_LINES
            || self.index.lines.iter().any(|l| matches!(l, IndexLine::Unit(_)));
        if many && !self.index.text.is_empty() {
            let text = std::mem::take(&mut self.index.text);
            self.index.parts.push(self.writer.store_part(text).await?);
        }
        Ok((self.index, self.fingerprint))
    }

    /// Cuts what was gathered, all of it at the end of a unit or of the entry.
    async fn cut(&mut self, last: bool) -> Result<()> {
        let block = match self.whole.take() {
            Some(whole) => whole,
            None if self.gathered.is_empty() => return Ok(()),
            None => self.writer.blocks.share(std::mem::take(&mut self.gathered)),
        };
        let mut cutter =
            self.cutter.take().ok_or_else(|| Error::new(ErrorKind::Internal, "an entry went on after an error"))?;
        let (cutter, (chunks, rest)) = self
            .writer
            .workers
            .run(move || {
                let cut = cutter.cut(block, last);
                (cutter, cut)
            })
            .await?;
        self.cutter = Some(cutter);
        for chunk in chunks {
            let size = u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX).min(BUDGET as u32);
            let permit = Arc::clone(&self.writer.budget)
                .acquire_many_owned(size)
                .await
                .map_err(|e| Error::new(ErrorKind::Internal, "the pipeline was closed").with_source(e))?;
            let writer = Arc::clone(&self.writer);
            self.waiting.push_back(Waiting::Chunk(Task::spawn(async move {
                let stored = writer.store_chunk(chunk).await;
                drop(permit);
                stored
            })));
            self.unit_chunks += 1;
            self.settle(false).await?;
        }
        if !rest.is_empty() {
            // At most one chunk; it is copied so that the block can be used again.
            self.gathered = self.writer.blocks.take(chunk::MAX + chunk::AVERAGE);
            self.gathered.extend_from_slice(&rest);
        }
        self.next_cut = (rest.len() + chunk::AVERAGE).max(chunk::BLOCK);
        Ok(())
    }

    /// Writes index lines for what is stored, in order; waits for all of it at the end, and where too much waits.
    async fn settle(&mut self, all: bool) -> Result<()> {
        while let Some(front) = self.waiting.front() {
            if let Waiting::Chunk(task) = front
                && !all
                && self.waiting.len() < WINDOW
                && !task.is_finished()
            {
                return Ok(());
            }
            let line = match self.waiting.pop_front() {
                None => return Ok(()),
                Some(Waiting::Line(line)) => line,
                Some(Waiting::Chunk(task)) => {
                    let (chunk, fingerprint) = task.join().await?;
                    self.fingerprint += fingerprint;
                    IndexLine::Chunk(chunk)
                }
            };
            self.add_line(line).await?;
        }
        Ok(())
    }

    async fn add_line(&mut self, line: IndexLine) -> Result<()> {
        let at = self.index.text.len();
        serde_json::to_writer(&mut self.index.text, &line)
            .map_err(|e| Error::new(ErrorKind::Internal, "an index line could not be written").with_source(e))?;
        self.index.text.push(b'\n');
        // A unit stays together with its chunks: only tables are cut after a chunk, only files after a unit.
        let cut_here = match &line {
            IndexLine::Chunk(_) => self.cutter.as_ref().is_some_and(Cutter::keeps_lines),
            IndexLine::Unit(_) => true,
        };
        if let IndexLine::Chunk(chunk) = &line {
            self.index.bytes += chunk.plain;
            self.index.chunks += 1;
        }
        let says_cut = blake3::hash(&self.index.text[at..]).as_bytes()[0] < 32;
        let size = self.index.text.len();
        if self.index.parts.is_empty() && self.index.lines.len() <= INLINE_LINES {
            self.index.lines.push(line);
        }
        if cut_here && ((size >= PART_MIN && says_cut) || size >= PART_MAX) {
            let text = std::mem::take(&mut self.index.text);
            self.index.parts.push(self.writer.store_part(text).await?);
        }
        Ok(())
    }
}

/// The index of one entry as it grows.
#[derive(Debug, Default)]
struct Index {
    /// Lines that are not in a part yet.
    text: Vec<u8>,
    /// The first lines, in case there are few.
    lines: Vec<IndexLine>,
    parts: Vec<PartRef>,
    bytes: u64,
    chunks: u64,
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
