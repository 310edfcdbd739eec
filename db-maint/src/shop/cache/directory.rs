//! A folder of files that can be made again.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat, unlinkat};

use super::CacheReport;
use crate::batch::Stop;
use crate::policy::DirectoryCache;

/// What marks a folder as a cache (<https://bford.info/cachedir/>).
const TAG: &str = "CACHEDIR.TAG";
const SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// What lies in a folder that is no cache.
const OTHERS: [&str; 8] =
    [".git", ".env", "package.json", "composer.json", "index.php", "wp-config.php", "artisan", "next.config.js"];
const DEEPEST: u32 = 64;
/// So many failures are told.
const TOLD: usize = 20;

/// Whether the folder is plainly a cache; why not, and what to do then.
pub(super) fn fits(rule: &DirectoryCache) -> Result<(), (String, &'static str)> {
    let path = &rule.path;
    let shown = path.display();
    let is_plain = path.is_absolute() && path.components().all(|c| !matches!(c, std::path::Component::ParentDir));
    if !is_plain {
        return Err((format!("{shown} is not a whole path"), "write it from / on, without .."));
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err((format!("{shown} is no folder, or a link"), "name the folder itself")),
        Err(e) => return Err((format!("{shown}: {e}"), "check the path, and the rights on it")),
    }
    let names: Vec<String> =
        path.iter().rev().take(2).map(|part| part.to_string_lossy().to_ascii_lowercase()).collect();
    let is_named = path.components().count() > 2 && names.iter().any(|name| name.contains("cache"));
    if !is_named && !is_tagged(path) {
        let next = "name a folder whose last or second last part says cache, or put a CACHEDIR.TAG into it";
        return Err((format!("nothing says that {shown} is a cache"), next));
    }
    match OTHERS.iter().find(|name| path.join(name).symlink_metadata().is_ok()) {
        Some(name) => {
            Err((format!("{shown} holds {name}: it is more than a cache"), "name the folder of the cache alone"))
        }
        None => Ok(()),
    }
}

fn is_tagged(path: &Path) -> bool {
    std::fs::read(path.join(TAG)).is_ok_and(|text| text.starts_with(SIGNATURE))
}

pub(super) async fn clear(rule: &DirectoryCache, apply: bool, stop: &Stop, report: &mut CacheReport) {
    report.place = rule.path.display().to_string();
    let (rule, stop) = (rule.clone(), stop.clone());
    let swept = tokio::task::spawn_blocking(move || {
        let before = rule.older.and_then(|older| SystemTime::now().checked_sub(older.duration()));
        let mut sweep = Sweep { apply, before, disk: 0, stop, met: 0, cleared: 0, bytes: 0, failed: Vec::new() };
        if let Err(e) = sweep.whole(&rule.path) {
            sweep.fail(&rule.path.display().to_string(), e);
        }
        sweep
    });
    match swept.await {
        Ok(sweep) => {
            (report.met, report.cleared, report.bytes) = (sweep.met, sweep.cleared, sweep.bytes);
            report.failed = sweep.failed;
        }
        Err(e) => report.failed.push(format!("it was broken off: {e}")),
    }
}

struct Sweep {
    apply: bool,
    /// Only what was written before.
    before: Option<SystemTime>,
    disk: u64,
    stop: Stop,
    met: u64,
    cleared: u64,
    bytes: u64,
    failed: Vec<String>,
}

impl Sweep {
    fn whole(&mut self, path: &Path) -> rustix::io::Result<()> {
        let folder = open(CWD, path)?;
        self.disk = rustix::fs::fstat(&folder)?.st_dev;
        self.folder(&folder, "", 0)?;
        Ok(())
    }

    /// Everything in it; whether it is empty then. By its handle, so that no link can lead elsewhere meanwhile.
    fn folder(&mut self, folder: &OwnedFd, shown: &str, depth: u32) -> rustix::io::Result<bool> {
        let mut is_empty = true;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.stop.is_stopped() || (depth == 0 && name.to_bytes() == TAG.as_bytes()) {
                is_empty = false;
                continue;
            }
            let path = if shown.is_empty() { text(name) } else { format!("{shown}/{}", text(name)) };
            match self.one(folder, name, &path, depth) {
                Ok(gone) => is_empty &= gone,
                // Whoever uses the cache was faster.
                Err(rustix::io::Errno::NOENT) => {}
                Err(e) => {
                    is_empty = false;
                    self.fail(&path, e);
                }
            }
        }
        Ok(is_empty)
    }

    fn one(&mut self, folder: &OwnedFd, name: &CStr, path: &str, depth: u32) -> rustix::io::Result<bool> {
        let meta = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if meta.st_dev != self.disk {
            self.failed.push(format!("{path}: another file system begins there; it was passed by"));
            return Ok(false);
        }
        if FileType::from_raw_mode(meta.st_mode) == FileType::Directory {
            if depth >= DEEPEST {
                return Err(rustix::io::Errno::LOOP);
            }
            let inner = open(folder.as_fd(), name)?;
            let is_empty = self.folder(&inner, path, depth + 1)?;
            // Somebody may have put something into it again.
            let is_gone = is_empty
                && self.before.is_none()
                && self.apply
                && match unlinkat(folder, name, AtFlags::REMOVEDIR) {
                    Ok(()) => true,
                    Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => false,
                    Err(e) => return Err(e),
                };
            return Ok(is_gone);
        }
        let written =
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(meta.st_mtime).unwrap_or(0));
        if self.before.is_some_and(|before| written >= before) {
            return Ok(false);
        }
        self.met += 1;
        self.bytes += u64::try_from(meta.st_size).unwrap_or(0);
        if !self.apply {
            return Ok(false);
        }
        unlinkat(folder, name, AtFlags::empty())?;
        self.cleared += 1;
        Ok(true)
    }

    fn fail(&mut self, path: &str, e: rustix::io::Errno) {
        if self.failed.len() < TOLD {
            self.failed.push(format!("{path}: {e}"));
        }
    }
}

fn open(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Period;

    fn rule(path: &Path) -> DirectoryCache {
        DirectoryCache { path: path.to_owned(), older: None }
    }

    fn report() -> CacheReport {
        CacheReport { name: "c".into(), place: String::new(), met: 0, cleared: 0, bytes: 0, failed: vec![] }
    }

    fn shop() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        std::fs::create_dir_all(cache.join("a/b")).unwrap();
        for file in ["one", "a/two", "a/b/three"] {
            std::fs::write(cache.join(file), "12345").unwrap();
        }
        std::fs::create_dir(dir.path().join("uploads")).unwrap();
        std::fs::write(dir.path().join("uploads/photo"), "precious").unwrap();
        std::os::unix::fs::symlink(dir.path().join("uploads"), cache.join("a/link")).unwrap();
        dir
    }

    #[tokio::test]
    async fn all_in_it_goes_and_nothing_behind_a_link() {
        let dir = shop();
        let cache = dir.path().join("cache");
        std::fs::write(cache.join(TAG), SIGNATURE).unwrap();
        let mut counted = report();
        clear(&rule(&cache), false, &Stop::default(), &mut counted).await;
        assert_eq!((counted.met, counted.cleared), (4, 0));
        assert!(cache.join("a/b/three").exists());
        let mut cleared = report();
        clear(&rule(&cache), true, &Stop::default(), &mut cleared).await;
        assert_eq!((cleared.met, cleared.cleared, &cleared.failed), (4, 4, &vec![]), "{cleared:?}");
        let left: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [TAG]);
        assert_eq!(std::fs::read_to_string(dir.path().join("uploads/photo")).unwrap(), "precious");
    }

    #[tokio::test]
    async fn what_is_young_stays_where_that_is_asked() {
        let dir = shop();
        let cache = dir.path().join("cache");
        let young = DirectoryCache { older: Some(Period::new(chrono::TimeDelta::hours(1))), ..rule(&cache) };
        let mut cleared = report();
        clear(&young, true, &Stop::default(), &mut cleared).await;
        assert_eq!((cleared.met, cleared.cleared), (0, 0));
        assert!(cache.join("a/b/three").exists());
    }

    #[test]
    fn what_is_no_cache_is_refused() {
        let dir = shop();
        let refused = |path: &Path| fits(&rule(path)).unwrap_err().0;
        assert!(fits(&rule(&dir.path().join("cache"))).is_ok());
        assert!(fits(&rule(&dir.path().join("cache/a"))).is_ok());
        assert!(refused(&dir.path().join("uploads")).contains("nothing says"));
        assert!(refused(&dir.path().join("cache/a/link")).contains("link"));
        assert!(refused(Path::new("/")).contains("nothing says"));
        assert!(refused(Path::new("cache")).contains("whole path"));
        assert!(refused(&dir.path().join("cache/../uploads")).contains("whole path"));
        std::fs::write(dir.path().join("cache/.env"), "").unwrap();
        assert!(refused(&dir.path().join("cache")).contains("more than a cache"));
        std::fs::write(dir.path().join("uploads").join(TAG), SIGNATURE).unwrap();
        assert!(fits(&rule(&dir.path().join("uploads"))).is_ok());
    }
}
