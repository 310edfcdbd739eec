//! A maintenance task of one's own: thumbnails whose pictures are gone. One of many app servers does it, and what it did is written down.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use db_maint::{Acquired, Engine, Lease, Result, Run, RunEnd, record_run};

/// Removes the files of `thumbnails` that have no picture of their name; `None` where another server does it just now.
///
/// # Errors
/// Where the database does not answer, or another server took over meanwhile.
pub(crate) async fn remove_orphaned(
    engine: &dyn Engine,
    pictures: &Path,
    thumbnails: &Path,
    now: DateTime<Utc>,
) -> Result<Option<Run>> {
    let job = "thumbnails";
    // It is not renewed here: longer than this takes.
    let lease = match Lease::acquire(engine, job, Duration::from_secs(3600)).await? {
        Acquired::Held(lease) => lease,
        Acquired::By(_) => return Ok(None),
    };
    let (pictures, folder) = (pictures.to_owned(), thumbnails.to_owned());
    let swept = tokio::task::spawn_blocking(move || sweep(&pictures, &folder));
    let (end, note) = match swept.await {
        Ok(Ok(removed)) => (RunEnd::Well, format!("{removed} thumbnails removed")),
        Ok(Err(e)) => (RunEnd::Failed, format!("{}: {e}", thumbnails.display())),
        Err(e) => (RunEnd::Failed, e.to_string()),
    };
    let by = format!("{}", std::process::id());
    let run = Run {
        job: job.into(),
        due: now,
        began: now,
        ended: Utc::now().max(now),
        by,
        end,
        note,
        failures: 0,
        failure: String::new(),
    };
    // Refused where the lease is another one's by now.
    record_run(engine, &lease, &run).await?;
    lease.release(engine).await?;
    Ok(Some(run))
}

fn sweep(pictures: &Path, thumbnails: &Path) -> std::io::Result<u64> {
    // A folder of pictures that is empty or away is a disk that is not mounted, not a shop without pictures.
    if std::fs::read_dir(pictures)?.next().is_none() {
        return Err(std::io::Error::other("there is no picture at all: nothing is removed"));
    }
    let mut removed = 0;
    for entry in std::fs::read_dir(thumbnails)? {
        let entry = entry?;
        let picture: PathBuf = pictures.join(entry.file_name());
        if entry.file_type()?.is_file() && !picture.try_exists()? {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}
