//! A folder of files that can be made again.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, StatxFlags, openat, statat, statx, unlinkat};

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
/// So many files are shown.
const SHOWN: usize = 5;

/// Whether the folder is plainly a cache; why not, and what to do then. One that is not there yet holds nothing.
pub(super) fn fits(rule: &DirectoryCache) -> Result<(), (String, &'static str)> {
    place(&rule.path).map(drop)
}

/// Where the folder is, links followed that are the machine's own or this user's; nothing where it is not there.
fn place(path: &Path) -> Result<Option<PathBuf>, (String, &'static str)> {
    let shown = path.display();
    let is_plain = path.is_absolute() && path.components().all(|c| !matches!(c, Component::ParentDir));
    if !is_plain {
        return Err((format!("{shown} is not a whole path"), "write it from / on, without .."));
    }
    let cannot = |e: std::io::Error| (format!("{shown}: {e}"), "check the path, and the rights on it");
    let mut so_far = PathBuf::new();
    for part in path.components() {
        so_far.push(part);
        match std::fs::symlink_metadata(&so_far) {
            Ok(meta) if meta.is_symlink() => {
                let own = rustix::process::geteuid().as_raw();
                // Whoever may write there could make it lead anywhere.
                if meta.uid() != 0 && meta.uid() != own {
                    let next = "name the folder that it leads to";
                    return Err((format!("{} is a link that another user made", so_far.display()), next));
                }
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return named(path, path).map(|()| None),
            Err(e) => return Err(cannot(e)),
        }
    }
    let real = std::fs::canonicalize(path).map_err(cannot)?;
    if !real.is_dir() {
        return Err((format!("{shown} is no folder"), "name the folder itself"));
    }
    if !is_tagged(&real) {
        named(path, &real)?;
    }
    match OTHERS.iter().find(|name| real.join(name).symlink_metadata().is_ok()) {
        Some(name) => {
            Err((format!("{shown} holds {name}: it is more than a cache"), "name the folder of the cache alone"))
        }
        None => Ok(Some(real)),
    }
}

/// Whether its own name, or its parent's, says that it is a cache.
fn named(path: &Path, real: &Path) -> Result<(), (String, &'static str)> {
    let part = |at: usize| real.iter().rev().nth(at).map(|part| part.to_string_lossy().to_ascii_lowercase());
    let is_cache = |name: &str| matches!(name, "cache" | "caches" | ".cache");
    let is_kind_of = |name: &str| ["-cache", "_cache", ".cache"].iter().any(|end| name.ends_with(end));
    let says_so =
        part(0).is_some_and(|name| is_cache(&name) || is_kind_of(&name)) || part(1).is_some_and(|name| is_cache(&name));
    if says_so && real.components().count() > 2 {
        return Ok(());
    }
    let next = "name a folder that is called cache, or lies in one, or put a CACHEDIR.TAG into it";
    Err((format!("nothing says that {} is a cache", path.display()), next))
}

fn is_tagged(path: &Path) -> bool {
    std::fs::read(path.join(TAG)).is_ok_and(|text| text.starts_with(SIGNATURE))
}

pub(super) async fn clear(rule: &DirectoryCache, apply: bool, stop: &Stop, report: &mut CacheReport) {
    report.place = rule.path.display().to_string();
    let (rule, stop) = (rule.clone(), stop.clone());
    let swept = tokio::task::spawn_blocking(move || {
        let before = rule.older.and_then(|older| SystemTime::now().checked_sub(older.duration()));
        let mut sweep = Sweep { apply, before, stop, ..Sweep::default() };
        match place(&rule.path) {
            Ok(Some(real)) => {
                if let Err(e) = sweep.whole(&real) {
                    sweep.fail(&real.display().to_string(), &e.to_string());
                }
            }
            Ok(None) => {}
            Err((why, _)) => sweep.fail(&rule.path.display().to_string(), &why),
        }
        sweep
    });
    match swept.await {
        Ok(sweep) => {
            (report.met, report.cleared, report.bytes) = (sweep.met, sweep.cleared, sweep.bytes);
            (report.sample, report.failed) = (sweep.sample, sweep.failed);
            if sweep.more > 0 {
                report.failed.push(format!("and {} more", sweep.more));
            }
        }
        Err(e) => report.failed.push(format!("it was broken off: {e}")),
    }
}

#[derive(Default)]
struct Sweep {
    apply: bool,
    /// Only what was written before.
    before: Option<SystemTime>,
    /// The file system, and the mount, that it lies on.
    disk: u64,
    mount: Option<u64>,
    stop: Stop,
    met: u64,
    cleared: u64,
    bytes: u64,
    sample: Vec<String>,
    failed: Vec<String>,
    /// How many more failed.
    more: u64,
}

impl Sweep {
    fn whole(&mut self, path: &Path) -> rustix::io::Result<()> {
        // Step by step, so that no part of the way can be made a link meanwhile.
        let mut folder = open(CWD, "/")?;
        for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
            folder = open(&folder, part.as_os_str())?;
        }
        self.disk = rustix::fs::fstat(&folder)?.st_dev;
        self.mount = mount(&folder)?;
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
                    self.fail(&path, &e.to_string());
                }
            }
        }
        Ok(is_empty)
    }

    fn one(&mut self, folder: &OwnedFd, name: &CStr, path: &str, depth: u32) -> rustix::io::Result<bool> {
        let meta = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if meta.st_dev != self.disk {
            self.fail(path, ELSEWHERE);
            return Ok(false);
        }
        if FileType::from_raw_mode(meta.st_mode) == FileType::Directory {
            if depth >= DEEPEST {
                return Err(rustix::io::Errno::LOOP);
            }
            let inner = open(folder.as_fd(), name)?;
            if mount(&inner)? != self.mount {
                self.fail(path, ELSEWHERE);
                return Ok(false);
            }
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
        if self.sample.len() < SHOWN {
            self.sample.push(path.to_owned());
        }
        self.bytes += u64::try_from(meta.st_size).unwrap_or(0);
        if !self.apply {
            return Ok(false);
        }
        unlinkat(folder, name, AtFlags::empty())?;
        self.cleared += 1;
        Ok(true)
    }

    fn fail(&mut self, path: &str, why: &str) {
        match self.failed.len() < TOLD {
            true => self.failed.push(format!("{path}: {why}")),
            false => self.more += 1,
        }
    }
}

const ELSEWHERE: &str = "another file system begins there; it was passed by";

/// The number of the mount that a folder lies on: of one file system there may be several. Older kernels do not tell.
fn mount(folder: &OwnedFd) -> rustix::io::Result<Option<u64>> {
    let told = match statx(folder, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(told) => told,
        Err(rustix::io::Errno::NOSYS) => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(StatxFlags::from_bits_retain(told.stx_mask).contains(StatxFlags::MNT_ID).then_some(told.stx_mnt_id))
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
        CacheReport {
            name: "c".into(),
            place: String::new(),
            met: 0,
            cleared: 0,
            bytes: 0,
            sample: vec![],
            failed: vec![],
            complete: false,
        }
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
        // A link of this user's leads to what it leads to.
        assert!(refused(&dir.path().join("cache/a/link")).contains("nothing says"));
        for path in ["/srv/geocache-shop/uploads", "/srv/cachet/storage", "/srv/geocache"] {
            assert!(refused(Path::new(path)).contains("nothing says"), "{path}");
        }
        // One that is not there yet holds nothing.
        assert!(fits(&rule(Path::new("/srv/no-such-shop/.next/cache"))).is_ok());
        assert!(refused(Path::new("/")).contains("nothing says"));
        assert!(refused(Path::new("cache")).contains("whole path"));
        assert!(refused(&dir.path().join("cache/../uploads")).contains("whole path"));
        std::fs::write(dir.path().join("cache/.env"), "").unwrap();
        assert!(refused(&dir.path().join("cache")).contains("more than a cache"));
        std::fs::write(dir.path().join("uploads").join(TAG), SIGNATURE).unwrap();
        assert!(fits(&rule(&dir.path().join("uploads"))).is_ok());
    }
}
