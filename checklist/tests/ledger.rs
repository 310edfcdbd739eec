//! What every ledger keeps to, and what the one in a file notices.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use checklist::ledger::{FileLedger, Head, Ledger, MemoryLedger, Record, check_export};
use checklist::{Attestation, Waiver};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

fn at(minute: i64) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-11-26T12:00:00Z").unwrap().to_utc() + TimeDelta::minutes(minute)
}

fn done(n: i64) -> Record {
    Record::Done { task: format!("task {n}"), by: "Anna".into(), note: "with \"quotes\",\nlines and ümläuts".into() }
}

async fn contract(ledger: &dyn Ledger) {
    assert_eq!(ledger.entries().await.unwrap().head(), Head::default());
    let mut heads = vec![Head::default()];
    for n in 0..20 {
        heads.push(ledger.append(at(n), done(n)).await.unwrap());
    }
    let entries = ledger.entries().await.unwrap();
    assert_eq!(entries.all.len(), 20);
    assert_eq!(&entries.head(), heads.last().unwrap());
    assert!(heads.iter().all(|head| entries.continues(head)));
    assert!(!entries.continues(&Head { seq: 5, hash: "1".repeat(64) }));
    assert!(
        !entries.continues(&Head { seq: 21, hash: heads[20].hash.clone() }),
        "what is noted and not there was cut off"
    );
    for (n, (entry, _)) in entries.all.iter().enumerate() {
        assert_eq!((entry.seq, entry.at, &entry.record), (n as u64 + 1, at(n as i64), &done(n as i64)));
        assert_eq!(entry.previous, heads[n].hash);
    }
    // What people said: the newest of each item, until it is taken back.
    let until = at(60 * 24 * 30);
    let attested = |by: &str| {
        Record::Attested(Attestation {
            item: "x".into(),
            by: by.into(),
            at: at(30),
            until,
            statement: "I looked".into(),
            digest: String::new(),
        })
    };
    let waived = Waiver { item: "y".into(), by: "Ben".into(), reason: "later".into(), at: at(31), until };
    for record in [attested("Anna"), attested("Ben"), Record::Waived(waived)] {
        ledger.append(at(31), record).await.unwrap();
    }
    let standing = ledger.entries().await.unwrap().standing();
    assert_eq!(standing.attestation("x").unwrap().by, "Ben");
    assert!(standing.waiver("y").is_some());
    ledger.append(at(32), Record::Withdrawn { item: "y".into(), by: "Ben".into() }).await.unwrap();
    assert!(ledger.entries().await.unwrap().standing().waiver("y").is_none());
    // A period for an auditor.
    let entries = ledger.entries().await.unwrap();
    let export = entries.export(at(5), at(10)).unwrap();
    assert_eq!((export.lines().count(), check_export(&export).unwrap()), (5, 5));
    let gap: String = export.lines().enumerate().filter(|(n, _)| *n != 2).map(|(_, l)| format!("{l}\n")).collect();
    assert!(check_export(&gap).is_err());
    assert!(
        check_export(&export.replace("task 7", "task 8")).unwrap_err().to_string().contains("is not what was written")
    );
}

#[tokio::test]
async fn in_memory() {
    contract(&MemoryLedger::default()).await;
}

#[tokio::test]
async fn in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evidence.log");
    contract(&FileLedger::new(&path)).await;
    // Without us: each line's hash by sha256sum.
    let script = "while read -r hash json; do [ \"$(printf %s \"$json\" | sha256sum | cut -d' ' -f1)\" = \"$hash\" ] || exit 1; done < \"$0\"";
    assert!(Command::new("bash").args(["-c", script]).arg(&path).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_keep_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evidence.log");
    let writers = (0..8).map(|w| {
        let ledger = FileLedger::new(&path);
        tokio::spawn(async move {
            for n in 0..10 {
                ledger.append(at(n), done(w * 100 + n)).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(FileLedger::new(&path).entries().await.unwrap().all.len(), 80);
}

/// A ledger of five entries: its file and its head.
fn written(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let path = dir.join("evidence.log");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for n in 0..5 {
            FileLedger::new(&path).append(at(n), done(n)).await.unwrap();
        }
    });
    (std::fs::read(&path).unwrap(), std::fs::read(dir.join("evidence.log.head")).unwrap())
}

/// What is read of such a file; `None` where it is refused.
fn read(dir: &Path, file: Option<&[u8]>, head: Option<&[u8]>) -> Option<usize> {
    for (name, bytes) in [("evidence.log", file), ("evidence.log.head", head)] {
        let _ = std::fs::remove_file(dir.join(name));
        if let Some(bytes) = bytes {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(FileLedger::new(dir.join("evidence.log")).entries()).ok().map(|e| e.all.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_change_is_noticed(at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), bit in 0u8..8, kind in 0u8..6) {
        let dir = tempfile::tempdir().unwrap();
        let (file, head) = written(dir.path());
        let mut changed = file.clone();
        let lines: Vec<&[u8]> = file.split_inclusive(|b| *b == b'\n').collect();
        match kind {
            0 => changed[at.index(file.len())] ^= 1 << bit,
            1 => changed.truncate(at.index(file.len())),
            2 => { changed.remove(at.index(file.len())); }
            3 => changed.insert(at.index(file.len()), b'a' + bit),
            4 => { let mut l = lines.clone(); l.remove(at.index(lines.len())); changed = l.concat(); }
            _ => { let mut l = lines.clone(); l.swap(at.index(lines.len()), other.index(lines.len())); changed = l.concat(); }
        }
        let outcome = read(dir.path(), Some(&changed), Some(&head));
        if changed == file {
            prop_assert_eq!(outcome, Some(5));
        } else {
            prop_assert_eq!(outcome, None);
        }
    }
}

#[test]
fn what_a_dead_process_leaves_is_no_entry_and_what_is_gone_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (file, head) = written(dir.path());
    // It died while it wrote a line: nobody was told that it is written.
    let torn = [&file[..], b"0123 {\"seq\":6, \"J\xc3"].concat();
    assert_eq!(read(dir.path(), Some(&torn), Some(&head)), Some(5));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ledger = FileLedger::new(dir.path().join("evidence.log"));
    runtime.block_on(ledger.append(at(9), done(9))).unwrap();
    assert_eq!(runtime.block_on(ledger.entries()).unwrap().all.len(), 6, "the torn line is gone");
    // It died between the line and the head: the line is there.
    let six = std::fs::read(ledger.path()).unwrap();
    assert_eq!(read(dir.path(), Some(&six), Some(&head)), Some(6));
    for (file, head) in [(None, Some(&head[..])), (Some(&file[..]), None), (Some(&b""[..]), Some(&head[..]))] {
        assert_eq!(read(dir.path(), file, head), None);
    }
    let e = runtime.block_on(ledger.append(at(9), done(9))).unwrap_err();
    assert!(e.to_string().contains("was cut off"), "{e}");
}
