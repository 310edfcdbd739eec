//! Is everything there, and is it what was signed?

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::keys::Signing;
use crate::manifest::{ChunkRef, Digest, EntryKind, EntryRecord, IndexLine, RecordName, Snapshot, SnapshotId};
use crate::pipeline::seal::{self, Length};
use crate::pipeline::{EntryReader, LineCounter, Workers, chunk_id, fingerprint_of_lines, index_lines};
use crate::progress::{Event, NoProgress, Progress};
use crate::repository::record::RecordKind;
use crate::repository::trust::{is_signed, trust_names};
use crate::repository::{Catalog, Contradiction, Evidence, Repository, layout};
use crate::restore::millis;

/// How many objects are read side by side.
const READERS: usize = 4;
/// How many unreferenced objects are named; beyond that they are counted.
const NAMED: usize = 1000;

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyLevel {
    /// Every stored byte is there and has its hash; every record is signed and in its place. Needs no data key.
    Stored,
    /// And it can be decrypted, decompressed, and holds what was read from the source. Needs the owner's identity.
    Content,
}

/// How to verify.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// How deep.
    pub level: VerifyLevel,
    /// Leave signed evidence in the log, if there is a key to sign it with. On by default.
    pub record: bool,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

impl VerifyOptions {
    /// At this level, leaving evidence.
    pub fn new(level: VerifyLevel) -> Self {
        Self { level, record: true, progress: Arc::new(NoProgress) }
    }

    /// The same, leaving evidence or not.
    #[must_use]
    pub fn record(mut self, record: bool) -> Self {
        self.record = record;
        self
    }

    /// The same, watched.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// An object is not there.
    Missing,
    /// An object is there with other bytes.
    Damaged,
    /// A record is gone that nobody with the admin's key removed.
    Deleted,
    /// The log ends before what this client has already seen.
    RolledBack,
    /// A record that another store has is not there.
    Lagging,
    /// A record is not signed by whom trust.json names.
    Untrusted,
    /// An object that is no part of a repository.
    Foreign,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// The object's name in the store.
    pub object: String,
    /// What is the matter with it.
    pub reason: String,
    /// The snapshots that cannot be restored whole because of it.
    pub snapshots: Vec<SnapshotId>,
}

/// What a verify saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The store, as messages call it.
    pub store: String,
    /// How deep it looked.
    pub level: VerifyLevel,
    /// The snapshots it looked at.
    pub snapshots: Vec<SnapshotId>,
    /// How many snapshots these keys cannot read, because they were not among the recipients then: nobody looked at them.
    pub unread: u64,
    /// What is wrong. Empty means: nothing.
    pub findings: Vec<Finding>,
    /// Objects that were read and checked.
    pub objects: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Objects that no snapshot refers to: left by interrupted runs, harmless, removed by a prune. The first of them.
    pub unreferenced: Vec<String>,
    /// How many there are.
    pub unreferenced_count: u64,
    /// Their length in bytes.
    pub unreferenced_bytes: u64,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// The evidence of this verify in the log.
    pub evidence: Option<RecordName>,
}

impl VerifyReport {
    /// Whether nothing is wrong with anything that there is, and there is something.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && !self.snapshots.is_empty() && self.unread == 0
    }

    /// Whether this snapshot can be restored whole, as far as this verify looked.
    pub fn is_intact(&self, id: &SnapshotId) -> bool {
        self.snapshots.contains(id) && !self.findings.iter().any(|f| f.snapshots.contains(id))
    }
}

impl Repository {
    /// Verifies the whole repository, or the snapshots with these ids, in the one store that it is in.
    ///
    /// # Errors
    /// Only where it cannot look: a store that does not answer, a key that is missing. What it sees is in the report.
    /// [`ErrorKind::Config`] where it is in several stores: see [`verify_all`](Self::verify_all).
    pub async fn verify(&self, only: Option<&[SnapshotId]>, options: VerifyOptions) -> Result<VerifyReport> {
        if self.stores().len() > 1 {
            return Err(Error::new(ErrorKind::Config, "each store has to be verified for itself")
                .with_next_step("call verify_all, or name one store"));
        }
        self.verify_here(only, options, &[]).await
    }

    /// Verifies it in each of its stores, one after the other, and compares them: what one has and another has not is a
    /// finding of [`FindingKind::Lagging`]. For each store the report, or why there is none.
    ///
    /// # Errors
    /// As [`verify`](Self::verify), where it is not the fault of one store.
    pub async fn verify_all(
        &self,
        only: Option<&[SnapshotId]>,
        options: VerifyOptions,
    ) -> Result<Vec<(String, std::result::Result<VerifyReport, Arc<Error>>)>> {
        let together = self.catalog_from_stores().await?;
        let mut reports = Vec::new();
        for (store, log) in self.stores().iter().zip(&together.stores) {
            let here = self.clone().in_store(store.clone());
            // The evidence comes after: a record that one store has before another is a finding itself.
            match here.verify_here(only, options.clone().record(false), &log.lacks).await {
                Ok(report) => reports.push((store.to_string(), Ok(report))),
                Err(e) if e.is_about_the_store() => reports.push((store.to_string(), Err(Arc::new(e)))),
                Err(e) => return Err(e),
            }
        }
        if options.record {
            for (_, report) in &mut reports {
                if let Ok(report) = report {
                    report.evidence = self.leave_evidence_of(report).await?;
                }
            }
        }
        reports.extend(self.unreachable().iter().map(|(store, e)| (store.clone(), Err(Arc::clone(e)))));
        Ok(reports)
    }

    /// `lacks`: the records that other stores have.
    async fn verify_here(
        &self,
        only: Option<&[SnapshotId]>,
        options: VerifyOptions,
        lacks: &[RecordName],
    ) -> Result<VerifyReport> {
        let began = Instant::now();
        if options.level == VerifyLevel::Content {
            self.data_identities()?;
        }
        let catalog = self.catalog_from_stores().await?;
        let chosen: Vec<&Snapshot> =
            catalog.snapshots.iter().filter(|s| only.is_none_or(|ids| ids.contains(&s.id))).collect();
        let mut findings = Findings::default();
        self.check_configuration(&mut findings).await?;
        self.check_log(&catalog, lacks, &mut findings);
        let listed = self.list_objects(&mut findings).await?;

        let mut check = Check {
            repository: self,
            listed: &listed,
            wanted: HashMap::new(),
            rows: HashMap::new(),
            findings,
            options: &options,
        };
        for snapshot in &chosen {
            check.index(snapshot).await?;
        }
        let (objects, bytes) = check.objects().await?;
        if options.level == VerifyLevel::Content {
            for snapshot in &chosen {
                check.content(snapshot).await?;
            }
        }
        let Check { wanted, findings, .. } = check;

        let mut report = VerifyReport {
            store: self.store().to_string(),
            level: options.level,
            snapshots: chosen.iter().map(|s| s.id.clone()).collect(),
            unread: if only.is_none() { catalog.sealed.len() as u64 } else { 0 },
            findings: findings.into_sorted(),
            objects,
            bytes,
            unreferenced: Vec::new(),
            unreferenced_count: 0,
            unreferenced_bytes: 0,
            milliseconds: 0,
            evidence: None,
        };
        // Of a selection nothing can be said about what the others need.
        if only.is_none() {
            for (digest, size) in listed.iter().filter(|(d, _)| !wanted.contains_key(*d)) {
                report.unreferenced_count += 1;
                report.unreferenced_bytes += size;
                if report.unreferenced.len() < NAMED {
                    report.unreferenced.push(layout::object(digest).to_string());
                }
            }
            report.unreferenced.sort_unstable();
        }
        report.milliseconds = millis(began);
        if report.findings.is_empty() && !catalog.heads().is_empty() {
            self.remember(catalog.heads().to_vec());
        }
        if options.record {
            report.evidence = self.leave_evidence_of(&report).await?;
        }
        Ok(report)
    }

    async fn leave_evidence_of(&self, report: &VerifyReport) -> Result<Option<RecordName>> {
        let what = match report.level {
            VerifyLevel::Stored => "verify-stored",
            VerifyLevel::Content => "verify-content",
        };
        let intact = report.snapshots.iter().filter(|id| report.is_intact(id)).cloned().collect();
        let evidence = (intact, report.is_sound(), report.milliseconds);
        self.leave_evidence(what, Some(report.store.clone()), evidence, report).await
    }

    /// Signs what was found in `store` (or in all together), which snapshots it speaks of, whether all was well and how many
    /// milliseconds it took; puts it into the log, if there is a key to sign it with, and says where.
    pub(crate) async fn leave_evidence(
        &self,
        what: &str,
        store: Option<String>,
        (snapshots, passed, milliseconds): (Vec<SnapshotId>, bool, u64),
        details: &impl Serialize,
    ) -> Result<Option<RecordName>> {
        let trusted = |signing: &&Signing| {
            self.trust().is_some_and(|t| RecordKind::Evidence.may_be_signed_now(&signing.verify_key(), t))
        };
        let writer = self.keys().writer().ok().map(|w| &w.signing).filter(trusted);
        let signing = writer.or(self.keys().admin().ok().map(|a| &a.signing).filter(trusted));
        if self.is_encrypted() && signing.is_none() {
            return Ok(None);
        }
        let details = serde_json::to_value(details)
            .map_err(|e| Error::new(ErrorKind::Internal, "evidence could not be written as JSON").with_source(e))?;
        let evidence = Evidence::new(what, snapshots, passed, self.now(), milliseconds, details).of_store(store);
        match self.append(RecordKind::Evidence, &evidence, signing).await {
            Ok(record) => Ok(Some(record)),
            // On a log that was rolled back nothing is built; the report says what is wrong with it.
            Err(e) if e.kind() == ErrorKind::Untrusted => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn check_configuration(&self, findings: &mut Findings) -> Result<()> {
        // Opened anew: it may have changed since this repository was.
        if let Err(e) = Repository::open(self.store().clone(), self.keys().clone()).await {
            let kind = match e.kind() {
                ErrorKind::NotFound => FindingKind::Missing,
                ErrorKind::Untrusted => FindingKind::Untrusted,
                ErrorKind::Damaged | ErrorKind::Config => FindingKind::Damaged,
                _ => return Err(e),
            };
            findings.add(kind, layout::CONFIGURATION, e.to_string(), None);
        }
        self.check_trust(findings).await?;
        match self.store().read_optional(&Path::from(layout::INSTRUCTIONS)).await? {
            None => findings.add(FindingKind::Missing, layout::INSTRUCTIONS, "it is not there", None),
            Some(text) if Digest::sha256(&text) != *self.instructions() => {
                findings.add(
                    FindingKind::Damaged,
                    layout::INSTRUCTIONS,
                    "it is not the text that the configuration names",
                    None,
                );
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Whether every change of the keys that this client knows of is there, and nothing else.
    async fn check_trust(&self, findings: &mut Findings) -> Result<()> {
        let Some(trust) = self.trust() else { return Ok(()) };
        let mut there = HashSet::new();
        for name in trust_names(self.store()).await? {
            let path = layout::trust(&name);
            match self.store().read_optional(&path).await? {
                Some(bytes) if Digest::sha256(&bytes) != name.digest => {
                    let reason = "its bytes do not have the SHA-256 that is in its name";
                    findings.add(FindingKind::Damaged, path.as_ref(), reason, None);
                }
                Some(bytes) if !is_signed(trust, &bytes) => {
                    let reason = "it is a change of the keys that no admin has signed";
                    findings.add(FindingKind::Untrusted, path.as_ref(), reason, None);
                }
                Some(_) => drop(there.insert(name.sequence)),
                None => {}
            }
        }
        for generation in (1..=u64::from(trust.generation)).filter(|g| !there.contains(g)) {
            let reason = "the change of the keys is not there: other clients do not hear of it";
            findings.add(FindingKind::Deleted, &format!("{}/{generation:010}", layout::TRUST), reason, None);
        }
        Ok(())
    }

    fn check_log(&self, catalog: &Catalog, lacks: &[RecordName], findings: &mut Findings) {
        for (record, e) in &catalog.damaged {
            let kind = if e.kind() == ErrorKind::Untrusted { FindingKind::Untrusted } else { FindingKind::Damaged };
            findings.add(kind, layout::record(record).as_ref(), e.to_string(), None);
        }
        for record in &catalog.missing {
            let reason = "the record is gone, and nobody with the admin's key removed it";
            findings.add(FindingKind::Deleted, layout::record(record).as_ref(), reason, None);
        }
        let gone = catalog.contradicts.as_ref().map(Contradiction::record);
        for record in lacks.iter().filter(|r| !catalog.missing.contains(r) && gone != Some(r)) {
            let reason = "another store has this record: this one lags, or was rolled back";
            findings.add(FindingKind::Lagging, layout::record(record).as_ref(), reason, None);
        }
        if let Some(contradiction) = &catalog.contradicts {
            let kind = match contradiction {
                Contradiction::RolledBack(_) => FindingKind::RolledBack,
                Contradiction::Lags { .. } => FindingKind::Lagging,
            };
            findings.add(kind, layout::record(contradiction.record()).as_ref(), contradiction.reason(), None);
        }
    }

    async fn list_objects(&self, findings: &mut Findings) -> Result<HashMap<Digest, u64>> {
        let mut objects = HashMap::new();
        let mut names = self.store().list("");
        while let Some((name, size)) = names.try_next().await? {
            match layout::parse(&name) {
                layout::Name::Object(digest) => {
                    objects.insert(digest, size);
                }
                layout::Name::Foreign => {
                    findings.add(FindingKind::Foreign, &name, "no part of a repository has such a name", None);
                }
                _ => {}
            }
        }
        Ok(objects)
    }
}

/// What an object must hold, and who needs it.
struct Wanted {
    stored: u64,
    content: Content,
    snapshots: Vec<SnapshotId>,
}

#[derive(Clone, Copy)]
enum Content {
    Chunk { chunk: ChunkRef, id_key: Digest, lines: bool },
    Part,
}

struct Check<'a> {
    repository: &'a Repository,
    listed: &'a HashMap<Digest, u64>,
    wanted: HashMap<Digest, Wanted>,
    /// The rows of each chunk of a table, where its content was checked.
    rows: HashMap<Digest, ChunkRows>,
    findings: Findings,
    options: &'a VerifyOptions,
}

/// What one chunk of a table holds.
#[derive(Debug, Clone, Copy)]
struct ChunkRows {
    fingerprint: Fingerprint,
    /// Whether it ends with a row; if not, the row goes on in the next chunk.
    whole: bool,
}

/// What became of one object.
enum Outcome {
    Good(Option<ChunkRows>),
    Bad(FindingKind, String),
}

impl Check<'_> {
    /// Notes every object that the snapshot refers to.
    async fn index(&mut self, snapshot: &Snapshot) -> Result<()> {
        let name = snapshot.id.as_str();
        self.options.progress.on(Event::Began { name });
        for entry in &snapshot.manifest.entries {
            for part in &entry.parts {
                self.want(part.object, part.stored, Content::Part, &snapshot.id);
            }
            let lines = !matches!(entry.kind, EntryKind::Files | EntryKind::Tree);
            let id_key = snapshot.manifest.id_key;
            let mut plain = 0;
            let mut rows = Fingerprint::EMPTY;
            let index = index_lines(self.repository, entry);
            futures::pin_mut!(index);
            let mut broken = false;
            while let Some(line) = index.next().await {
                match line {
                    Ok(IndexLine::Chunk(chunk)) => {
                        plain += chunk.plain;
                        self.want(chunk.object, chunk.stored, Content::Chunk { chunk, id_key, lines }, &snapshot.id);
                    }
                    Ok(IndexLine::Unit(unit)) => rows += unit.fingerprint,
                    Err(e) if e.kind() == ErrorKind::Damaged => {
                        // The part's own check names the object; here only who suffers.
                        let object = entry
                            .parts
                            .first()
                            .map_or_else(|| entry.name.clone(), |p| layout::object(&p.object).to_string());
                        let named = entry
                            .parts
                            .iter()
                            .map(|p| layout::object(&p.object).to_string())
                            .find(|o| e.to_string().contains(o.as_str()));
                        self.findings.add(
                            FindingKind::Damaged,
                            &named.unwrap_or(object),
                            e.to_string(),
                            Some(&snapshot.id),
                        );
                        broken = true;
                        break;
                    }
                    Err(e) => return Err(e),
                }
            }
            let adds_up = plain == entry.bytes && (lines || rows == entry.fingerprint);
            if !broken && !adds_up {
                let reason = format!("the index of {} does not add up to what the record says", entry.name);
                self.findings.add(
                    FindingKind::Damaged,
                    layout::record(&snapshot.record).as_ref(),
                    reason,
                    Some(&snapshot.id),
                );
            }
        }
        self.options.progress.on(Event::Ended { name, rows: snapshot.manifest.totals.rows });
        Ok(())
    }

    fn want(&mut self, object: Digest, stored: u64, content: Content, snapshot: &SnapshotId) {
        let wanted = self.wanted.entry(object).or_insert_with(|| Wanted { stored, content, snapshots: Vec::new() });
        if wanted.snapshots.last() != Some(snapshot) {
            wanted.snapshots.push(snapshot.clone());
        }
    }

    /// Reads every wanted object once and checks its bytes. How many were good, and how long they were.
    async fn objects(&mut self) -> Result<(u64, u64)> {
        let identities = match self.options.level {
            VerifyLevel::Stored => None,
            VerifyLevel::Content => Some(Arc::new(self.repository.data_identities()?)),
        };
        let workers = Workers::for_this_machine();
        let (mut objects, mut bytes) = (0, 0);
        let mut bad = Vec::new();
        {
            let (repository, listed) = (self.repository, self.listed);
            let (identities, workers) = (&identities, &workers);
            let check = async |digest: Digest, wanted: &Wanted| {
                let identities = identities.clone();
                (digest, check_object(repository, listed, &digest, wanted, identities, workers).await)
            };
            let mut running = FuturesUnordered::new();
            let mut left = self.wanted.iter();
            loop {
                // Not as a stream: with a closure over these references in it this could not be spawned.
                while running.len() < READERS
                    && let Some((digest, wanted)) = left.next()
                {
                    running.push(check(*digest, wanted));
                }
                let Some((digest, outcome)) = running.next().await else { break };
                let Some(wanted) = self.wanted.get(&digest) else { continue };
                match outcome? {
                    Outcome::Good(rows) => {
                        objects += 1;
                        bytes += wanted.stored;
                        self.options.progress.on(Event::Moved { plain: 0, stored: wanted.stored });
                        if let Some(rows) = rows {
                            self.rows.insert(digest, rows);
                        }
                    }
                    Outcome::Bad(kind, reason) => bad.push((digest, kind, reason)),
                }
            }
        }
        for (digest, kind, reason) in bad {
            let name = layout::object(&digest).to_string();
            for snapshot in self.wanted.get(&digest).map_or_else(Vec::new, |w| w.snapshots.clone()) {
                self.findings.add(kind, &name, reason.clone(), Some(&snapshot));
            }
        }
        Ok((objects, bytes))
    }

    /// Adds up the rows of each table. Chunks were checked one by one; this finds whether they are the right ones.
    async fn content(&mut self, snapshot: &Snapshot) -> Result<()> {
        for entry in &snapshot.manifest.entries {
            let lines = !matches!(entry.kind, EntryKind::Files | EntryKind::Tree);
            let suffers = self.findings.0.values().any(|f| f.snapshots.contains(&snapshot.id));
            if !lines || suffers {
                continue;
            }
            let found = match self.sum(entry).await? {
                Some(sum) => sum,
                // A row lies across two chunks: it has to be put together.
                None => {
                    let reader = EntryReader::new(self.repository, &snapshot.manifest, Arc::new(NoProgress))?;
                    count(&reader, entry).await?
                }
            };
            if found != entry.fingerprint {
                let reason =
                    format!("{} holds {found}, but {} was recorded when it was read", entry.name, entry.fingerprint);
                self.findings.add(
                    FindingKind::Damaged,
                    layout::record(&snapshot.record).as_ref(),
                    reason,
                    Some(&snapshot.id),
                );
            }
        }
        Ok(())
    }

    /// The sum over an entry's chunks; `None` where a row does not end with its chunk.
    async fn sum(&self, entry: &EntryRecord) -> Result<Option<Fingerprint>> {
        let mut sum = Fingerprint::EMPTY;
        let mut whole = true;
        let index = index_lines(self.repository, entry);
        futures::pin_mut!(index);
        while let Some(line) = index.try_next().await? {
            let IndexLine::Chunk(chunk) = line else { continue };
            let Some(rows) = self.rows.get(&chunk.object).filter(|_| whole) else { return Ok(None) };
            sum += rows.fingerprint;
            whole = rows.whole;
        }
        Ok(Some(sum))
    }
}

async fn count(reader: &EntryReader, entry: &EntryRecord) -> Result<Fingerprint> {
    let mut counter = LineCounter::default();
    let mut body = reader.read(entry);
    while let Some(bytes) = body.try_next().await? {
        counter.add(&bytes);
    }
    Ok(counter.finish())
}

/// Looks at one object, as deep as there are keys.
async fn check_object(
    repository: &Repository,
    listed: &HashMap<Digest, u64>,
    digest: &Digest,
    wanted: &Wanted,
    identities: Option<Arc<Vec<age::x25519::Identity>>>,
    workers: &Workers,
) -> Result<Outcome> {
    let name = layout::object(digest);
    let missing = || Outcome::Bad(FindingKind::Missing, "it is not in the store".into());
    match listed.get(digest) {
        None => return Ok(missing()),
        Some(size) if *size != wanted.stored => {
            return Ok(Outcome::Bad(
                FindingKind::Damaged,
                format!("it is {size} bytes long instead of {}", wanted.stored),
            ));
        }
        Some(_) => {}
    }
    let Some(bytes) = repository.store().read_optional(&name).await? else { return Ok(missing()) };
    let (digest, content, encrypted) = (*digest, wanted.content, repository.is_encrypted());
    workers
        .run(move || {
            let damaged = |reason: String| Ok(Outcome::Bad(FindingKind::Damaged, reason));
            if Digest::sha256(&bytes) != digest {
                return damaged("its bytes do not have the SHA-256 that is its name".into());
            }
            let (Content::Chunk { chunk, id_key, lines }, Some(identities)) = (content, identities) else {
                return Ok(Outcome::Good(None));
            };
            let identities: Vec<_> = identities.iter().collect();
            let length = Length::Exactly(chunk.plain);
            let plain = match seal::open(&bytes, &digest, length, &identities, encrypted, name.as_ref()) {
                Ok(plain) => plain,
                Err(e) if e.kind() == ErrorKind::Damaged => return damaged(e.to_string()),
                Err(e) => return Err(e),
            };
            if chunk_id(&id_key, &plain) != chunk.id {
                return damaged("it does not hold the content that its index names".into());
            }
            Ok(Outcome::Good(
                lines.then(|| ChunkRows {
                    fingerprint: fingerprint_of_lines(&plain),
                    whole: plain.last() == Some(&b'\n'),
                }),
            ))
        })
        .await?
}

/// Findings, one for each object and kind.
#[derive(Default)]
struct Findings(BTreeMap<(FindingKind, String), Finding>);

impl Findings {
    fn add(&mut self, kind: FindingKind, object: &str, reason: impl Into<String>, snapshot: Option<&SnapshotId>) {
        let finding = self.0.entry((kind, object.to_owned())).or_insert_with(|| Finding {
            kind,
            object: object.to_owned(),
            reason: reason.into(),
            snapshots: Vec::new(),
        });
        if let Some(snapshot) = snapshot
            && !finding.snapshots.contains(snapshot)
        {
            finding.snapshots.push(snapshot.clone());
        }
    }

    fn into_sorted(self) -> Vec<Finding> {
        self.0.into_values().collect()
    }
}
