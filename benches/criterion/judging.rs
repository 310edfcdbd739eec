//! What is judged: retention over 100,000 snapshots, an access log, the secrets of a source tree, a month of a ledger.
//!
//! ```text
//! cargo bench -p caretaker-benches --bench judging
//! ```

#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Retention, stages};
use caretaker_benches::access_log;
use checklist::check::source::{SourceTree, checks};
use chrono::{DateTime, TimeDelta, Utc};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use health_probe::ledger::{Ledger, Record, Slot, SqliteLedger, View};
use health_probe::slo::{BURN_RULES, Objective};
use health_probe::{AccessLogProbe, Context, Probe};
use tokio::runtime::Runtime;

fn retention(c: &mut Criterion) {
    const SNAPSHOTS: u32 = 100_000;
    let catalog = stages::catalog(SNAPSHOTS);
    let policy = Retention::twelve_months();
    let now = DateTime::UNIX_EPOCH + TimeDelta::hours(i64::from(SNAPSHOTS));
    let mut group = c.benchmark_group("retention");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(SNAPSHOTS)));
    group.bench_function("plan over 100,000 snapshots", |b| b.iter(|| policy.plan(&catalog, now)));
    group.finish();
}

fn access_logs(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    access_log(&log, 32 << 20).unwrap();
    let mut group = c.benchmark_group("log");
    group.sample_size(10).throughput(Throughput::Bytes(log.metadata().unwrap().len()));
    group.bench_function("access log from its beginning", |b| {
        b.to_async(&runtime).iter(|| async {
            let state = dir.path().join("state");
            // Anew each time: a log that was read is not read again.
            let _none_yet = std::fs::remove_file(&state);
            let probe = AccessLogProbe::new("log", &log, &state, Default::default());
            probe.observe(&Context::at(Utc::now())).await.unwrap()
        });
    });
    group.finish();
}

fn secrets(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(42);
    let mut bytes = 0;
    for n in 0..1_000 {
        let mut text = String::new();
        while text.len() < 10_000 {
            let token: String = (0..random.usize(20..60)).map(|_| random.alphanumeric()).collect();
            writeln!(text, "export const key{} = '{token}'; // of the picture in the list", random.u32(..)).unwrap();
        }
        bytes += text.len() as u64;
        std::fs::write(dir.path().join(format!("file{n}.ts")), text).unwrap();
    }
    let mut group = c.benchmark_group("secrets");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));
    group.bench_function("a source tree, all rules", |b| {
        b.to_async(&runtime).iter(|| async {
            let all = checks(Some(Arc::new(SourceTree::new(dir.path()))));
            all[0].run(&checklist::Context::at(Utc::now())).await.unwrap()
        });
    });
    group.finish();
}

fn ledger(c: &mut Criterion) {
    const MINUTES: i64 = 30 * 24 * 60;
    let runtime = Runtime::new().unwrap();
    let begin = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    let records: Vec<Record> = (0..MINUTES)
        .map(|n| Record {
            probe: "page".into(),
            at: begin + TimeDelta::minutes(n),
            every: Duration::from_secs(60),
            outcome: if n % 1_000 == 0 { Slot::Bad } else { Slot::Good },
            response_time: Some(Duration::from_millis(120)),
        })
        .collect();
    let mut group = c.benchmark_group("ledger");
    group.sample_size(10).throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("a month of minutes written down", |b| {
        b.to_async(&runtime).iter(|| async {
            let ledger = SqliteLedger::in_memory().await.unwrap();
            ledger.record(&records).await.unwrap();
        });
    });
    let ledger = runtime.block_on(async {
        let ledger = SqliteLedger::in_memory().await.unwrap();
        ledger.record(&records).await.unwrap();
        ledger
    });
    let (end, objective) = (begin + TimeDelta::minutes(MINUTES), Objective::new(0.999, 30).unwrap());
    group.bench_function("budget and burn rates of that month", |b| {
        b.to_async(&runtime).iter(|| async {
            let slots = ledger.timeline("page", begin, end).await.unwrap();
            let budget = objective.budget(&slots, &[], View::WithoutMaintenance, end);
            (budget, objective.burns(&slots, &[], &BURN_RULES, end))
        });
    });
    group.finish();
}

criterion_group!(benches, retention, access_logs, secrets, ledger);
criterion_main!(benches);
