//! Making many writes to a folder durable at once.
//!
//! To sync each of a thousand objects and its directory costs more than to write them. `syncfs(2)` writes out everything of
//! a file system, and from Linux 5.8 on it reports every write that failed since the descriptor that it is called on was
//! opened: so one descriptor, opened before the first write, answers for all of them. Where that does not hold (older
//! kernels, network and user-space file systems) each write is synced by itself instead.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// After so many bytes the disk is given work, so that little is left to wait for at the end.
const SYNC_AFTER: u64 = 64 << 20;

type Sync = dyn Fn(&File) -> io::Result<()> + Send + std::marker::Sync;

/// The file system of a folder, and what was written there since it was last synced.
pub(super) struct Disk {
    folder: File,
    sync: Box<Sync>,
    unsynced: AtomicU64,
    /// Held while it is synced.
    syncing: tokio::sync::Mutex<()>,
    /// Why a sync failed: the system says so once, and what was lost then stays lost.
    failed: Mutex<Option<(io::ErrorKind, String)>>,
}

impl Disk {
    /// `None` where a sync of the whole would prove nothing.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let file = File::open(folder).ok()?;
        is_provable(&file).then(|| Self::new(file, Box::new(sync)))
    }

    fn new(folder: File, sync: Box<Sync>) -> Self {
        let (unsynced, syncing, failed) = Default::default();
        Self { folder, sync, unsynced, syncing, failed }
    }

    /// For tests: with another way to sync.
    #[cfg(test)]
    pub(super) fn synced_by(
        folder: &Path,
        sync: impl Fn(&File) -> io::Result<()> + Send + std::marker::Sync + 'static,
    ) -> Self {
        Self::new(File::open(folder).unwrap(), Box::new(sync))
    }

    /// Takes note that so many bytes were written; from time to time has them written out beside everything else.
    pub(super) fn wrote(self: &Arc<Self>, bytes: usize) {
        let unsynced = self.unsynced.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if unsynced < SYNC_AFTER {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            // One at a time is enough; what fails is told by `settle`.
            if let Ok(_alone) = this.syncing.try_lock() {
                let _told_later = this.sync_now().await;
            }
        });
    }

    /// Waits until all that was written is on the disk. An error also where an earlier sync has failed.
    pub(super) async fn settle(self: &Arc<Self>) -> io::Result<()> {
        let _alone = self.syncing.lock().await;
        self.sync_now().await
    }

    async fn sync_now(self: &Arc<Self>) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        let this = Arc::clone(self);
        let synced = crate::pipeline::blocking(move || Ok((this.sync)(&this.folder))).await;
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = synced.unwrap_or_else(|e| Err(io::Error::other(e.to_string()))) {
            failed.get_or_insert((e.kind(), e.to_string()));
        }
        match &*failed {
            None => Ok(()),
            Some((kind, why)) => Err(io::Error::new(*kind, why.clone())),
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
fn sync(folder: &File) -> io::Result<()> {
    rustix::fs::syncfs(folder).map_err(Into::into)
}

#[cfg(not(target_os = "linux"))]
fn sync(_: &File) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Whether one sync proves that everything is on the disk.
#[cfg(target_os = "linux")]
fn is_provable(folder: &File) -> bool {
    /// ext2 to ext4, XFS, Btrfs and memory, as `statfs(2)` names them.
    const LOCAL: [u64; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994];
    let name = rustix::system::uname();
    let reports_errors = name.release().to_str().is_ok_and(|release| is_at_least_5_8(release));
    reports_errors && rustix::fs::fstatfs(folder).is_ok_and(|s| LOCAL.contains(&(s.f_type as u64)))
}

#[cfg(not(target_os = "linux"))]
fn is_provable(_: &File) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn is_at_least_5_8(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 8),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn kernels_are_told_apart() {
        for (release, new) in
            [("5.8.0", true), ("5.7.19-generic", false), ("6.1.0-13-amd64", true), ("4.19", false), ("x", false)]
        {
            assert_eq!(is_at_least_5_8(release), new, "{release}");
        }
    }

    #[tokio::test]
    async fn a_sync_that_failed_once_is_never_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let times = AtomicU64::new(0);
        let fail_first = move |_: &File| match times.fetch_add(1, Ordering::SeqCst) {
            0 => Err(io::Error::from(io::ErrorKind::StorageFull)),
            _ => Ok(()),
        };
        let disk = Arc::new(Disk::synced_by(dir.path(), fail_first));
        for _ in 0..3 {
            assert_eq!(disk.settle().await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }

    #[tokio::test]
    async fn much_is_synced_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let disk = Arc::new(Disk::synced_by(dir.path(), move |_| {
            let _nobody_listens = tell.send(());
            Ok(())
        }));
        disk.wrote(SYNC_AFTER as usize - 1);
        disk.wrote(1);
        told.recv().await.unwrap();
        disk.settle().await.unwrap();
        told.recv().await.unwrap();
    }
}
