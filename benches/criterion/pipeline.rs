//! The whole pipeline: a source in memory, a SQLite shop and a tree of files, into a store in memory, encrypted, and back.
//!
//! ```text
//! cargo bench -p caretaker-benches --bench pipeline
//! ```

#![allow(missing_docs, clippy::unwrap_used)]

use backup_core::bytes::Bytes;
use backup_core::chrono::Utc;
use backup_core::futures::stream;
use backup_core::{
    Capture, CaptureContext, CaptureEnd, Discard, Entry, EntryKind, FilesSource, Keys, Repository, Source, SourceInfo,
    SqliteSource, Store, VerifyLevel, VerifyOptions, async_trait,
};
use caretaker_benches::{size_of, table_rows};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use storefront::Size;
use tokio::runtime::Runtime;

/// Rows in memory.
#[derive(Debug)]
struct Rows(Bytes);

struct Snapped(Option<Bytes>);

#[async_trait]
impl Source for Rows {
    fn name(&self) -> &str {
        "rows"
    }

    async fn capture(&self, _: CaptureContext) -> backup_core::Result<Box<dyn Capture>> {
        Ok(Box::new(Snapped(Some(self.0.clone()))))
    }
}

#[async_trait]
impl Capture for Snapped {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("rows", "rows", "memory", "1")
    }

    async fn next(&mut self) -> backup_core::Result<Option<Entry>> {
        // In pieces as a database gives them.
        let pieces = |rows: Bytes| {
            let at = (0..rows.len()).step_by(PIECE);
            at.map(|n| Ok(rows.slice(n..rows.len().min(n + PIECE)).into())).collect::<Vec<_>>()
        };
        Ok(self.0.take().map(|rows| Entry::new("data/rows", EntryKind::Data, "rows", stream::iter(pieces(rows)))))
    }

    async fn finish(self: Box<Self>) -> backup_core::Result<CaptureEnd> {
        Ok(CaptureEnd::at(Utc::now()))
    }
}

const PIECE: usize = 512 * 1024;

async fn repository() -> Repository {
    let mut keys = Keys::generate().unwrap();
    Repository::init(Store::from_url("memory:").unwrap(), &mut keys, &[]).await.unwrap()
}

/// First backup, second, verify, and restore into nowhere.
fn of(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, name: &str, source: &dyn Source, bytes: u64) {
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(format!("{name}: first backup"), |b| {
        b.to_async(runtime).iter_batched(
            || runtime_free(repository()),
            |repository| async move { repository.backup(source, Default::default()).await.unwrap() },
            criterion::BatchSize::PerIteration,
        );
    });
    let full = runtime.block_on(async {
        let repository = repository().await;
        let snapshot = repository.backup(source, Default::default()).await.unwrap();
        (repository, snapshot)
    });
    let (repository, snapshot) = &full;
    group.bench_function(format!("{name}: second backup"), |b| {
        b.to_async(runtime).iter(|| async { repository.backup(source, Default::default()).await.unwrap() });
    });
    group.bench_function(format!("{name}: verify content"), |b| {
        // Without evidence: the log is not to grow meanwhile.
        let options = || VerifyOptions::new(VerifyLevel::Content).record(false);
        b.to_async(runtime).iter(|| async { repository.verify(None, options()).await.unwrap() });
    });
    group.bench_function(format!("{name}: restore into nowhere"), |b| {
        b.to_async(runtime).iter(|| async {
            repository.restore(snapshot, &Discard, Default::default()).await.unwrap();
        });
    });
}

/// A future run to its end on a thread of its own: the set-up of an asynchronous bench runs inside the runtime.
fn runtime_free<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    std::thread::spawn(|| Runtime::new().unwrap().block_on(work)).join().unwrap()
}

fn pipeline(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group("pipeline");
    group.sample_size(10);

    let rows = table_rows(128 << 20);
    of(&mut group, &runtime, "memory", &Rows(rows.clone()), rows.len() as u64);

    let db = dir.path().join("shop.db");
    runtime.block_on(storefront::sqlite::create(&db, &Size::orders(40_000), 1)).unwrap();
    of(&mut group, &runtime, "SQLite", &SqliteSource::new(&db), db.metadata().unwrap().len());

    let uploads = dir.path().join("uploads");
    storefront::uploads::create(&uploads, 1, 1_000, 100_000).unwrap();
    of(&mut group, &runtime, "files", &FilesSource::new(&uploads), size_of(&uploads).unwrap().0);
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
