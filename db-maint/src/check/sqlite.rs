//! What only a SQLite file can have: damage, free pages, and a log that grows.

use crate::activity::SqliteFile;
use crate::finding::{Finding, Outcome, Severity};

pub(crate) const INTEGRITY: &str = "sqlite-integrity";
pub(crate) const FREE_PAGES: &str = "sqlite-free-pages";
pub(crate) const LOG: &str = "sqlite-log-size";

/// Free pages are worth giving back from this share and size on.
const FREE_SHARE: f64 = 0.25;
const FREE_BYTES: u64 = 16 << 20;
/// A log that is larger than this, and than a quarter of the file, has not been checkpointed for long.
const LOG_BYTES: u64 = 64 << 20;

pub(crate) fn judge_integrity(damage: &[String]) -> Outcome {
    let findings = damage.iter().map(|what| {
        Finding::new(INTEGRITY, "file", what.clone()).severity(Severity::Critical).remedy(
            "restore the newest verified backup beside it, and recover what is newer with `.recover` of sqlite3",
        )
    });
    Outcome::of(1, findings.collect(), vec![])
}

pub(crate) fn judge_free_pages(seen: &SqliteFile) -> Outcome {
    let (free, share) = (seen.free_pages * seen.page_bytes, seen.free_pages as f64 / seen.pages.max(1) as f64);
    let is_much = free >= FREE_BYTES && share >= FREE_SHARE;
    let finding = is_much.then(|| {
        Finding::new(
            FREE_PAGES,
            "file",
            format!("{:.0} % of the file, {} MiB, hold nothing", share * 100.0, free >> 20),
        )
        .severity(Severity::Notice)
        .evidence("free_bytes", free)
        .evidence("file_bytes", seen.pages * seen.page_bytes)
        .remedy(match seen.gives_back {
            true => "PRAGMA incremental_vacuum(10000), as often as it takes; or leave it to be filled",
            false => "VACUUM while nobody writes, with as much room on the disk again; or leave it to be filled",
        })
    });
    Outcome::of(1, finding.into_iter().collect(), vec![])
}

pub(crate) fn judge_log(seen: &SqliteFile) -> Outcome {
    let Some(bytes) = seen.wal_bytes else { return Outcome::not_applicable("it is not in WAL mode") };
    let is_large = bytes > LOG_BYTES.max(seen.pages * seen.page_bytes / 4);
    let finding = is_large.then(|| {
        Finding::new(LOG, "file", format!("its log has grown to {} MiB: no checkpoint gets through", bytes >> 20))
            .evidence("log_bytes", bytes)
            .remedy("find the reader that never ends; then PRAGMA wal_checkpoint(TRUNCATE)")
    });
    Outcome::of(1, finding.into_iter().collect(), vec![])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> SqliteFile {
        SqliteFile { pages: 100_000, page_bytes: 4096, ..SqliteFile::default() }
    }

    #[test]
    fn damage_is_found() {
        assert_eq!(judge_integrity(&[]), Outcome::Clean { examined: 1 });
        let damaged = ["row 7 missing from index x".to_owned()];
        assert_eq!(judge_integrity(&damaged).findings()[0].severity, Severity::Critical);
    }

    #[test]
    fn free_pages_matter_where_they_are_many_and_a_large_part() {
        let of = |free_pages, pages| judge_free_pages(&SqliteFile { free_pages, pages, ..file() }).findings().len();
        assert_eq!([of(0, 100_000), of(30_000, 100_000), of(30_000, 1_000_000), of(50, 100)], [0, 1, 0, 0]);
    }

    #[test]
    fn a_log_matters_where_it_is_large_for_the_file() {
        let of = |wal_bytes| judge_log(&SqliteFile { wal_bytes, ..file() });
        assert!(matches!(of(None), Outcome::NotApplicable { .. }));
        assert_eq!(of(Some(4 << 20)), Outcome::Clean { examined: 1 });
        assert_eq!(of(Some(200 << 20)).findings().len(), 1);
    }
}
