//! Each stage of the pipeline by itself, on one core.
//!
//! ```text
//! cargo bench -p caretaker-benches --bench stages
//! ```

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use backup_core::{OwnerIdentity, stages};
use caretaker_benches::table_rows;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn stages(c: &mut Criterion) {
    let rows = table_rows(32 << 20);
    let chunk = stages::cut(rows.clone(), true).swap_remove(0);
    let owner = OwnerIdentity::generate();
    let mut group = c.benchmark_group("stages");
    group.throughput(Throughput::Bytes(rows.len() as u64));
    group.bench_function("cut by rows", |b| b.iter(|| stages::cut(black_box(rows.clone()), true)));
    group.bench_function("cut files", |b| b.iter(|| stages::cut(black_box(rows.clone()), false)));
    group.bench_function("fingerprint", |b| b.iter(|| stages::fingerprint(black_box(&rows))));
    group.throughput(Throughput::Bytes(chunk.len() as u64));
    group.bench_function("id", |b| b.iter(|| stages::id(black_box(&chunk))));
    for level in [1, 3] {
        let sealed = |owner| stages::seal(&chunk, level, owner);
        group.bench_function(format!("zstd -{level}, sha256"), |b| b.iter(|| sealed(None)));
        group.bench_function(format!("zstd -{level}, age, sha256"), |b| b.iter(|| sealed(Some(&owner))));
    }
    let (stored, digest) = stages::seal(&chunk, 1, Some(&owner)).unwrap();
    let open = || stages::open(&stored, &digest, chunk.len() as u64, Some(&owner));
    group.bench_function("open", |b| b.iter(open));
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
