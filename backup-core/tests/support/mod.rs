//! What the tests share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs, dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Keys, Repository, SqliteSource, SqliteTarget, Store};
use tempfile::TempDir;

/// A directory with keys and a repository in it.
pub struct Shop {
    pub dir: TempDir,
    pub repository: Repository,
}

impl Shop {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Keys::generate().unwrap().save(dir.path().join("keys")).unwrap();
        let mut keys = Keys::load(dir.path().join("keys")).unwrap();
        let store = Store::folder(dir.path().join("store")).unwrap();
        let repository = Repository::init(store, &mut keys, &[]).await.unwrap();
        Self { dir, repository }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub fn keys(&self) -> Keys {
        Keys::load(self.path("keys")).unwrap()
    }

    /// The same repository, opened as another process would.
    pub async fn open(&self) -> backup_core::Result<Repository> {
        Repository::open(Store::folder(self.store())?, self.keys()).await
    }

    pub fn source(&self, name: &str) -> SqliteSource {
        SqliteSource::new(self.path(name)).named("shop")
    }

    pub fn target(&self, name: &str) -> SqliteTarget {
        SqliteTarget::new(self.path(name))
    }
}

/// Runs SQL through the `sqlite3` client of the system; fails with a sentence where there is none.
pub fn sqlite3(db: &Path, sql: &str) -> String {
    let mut child = Command::new("sqlite3")
        .args(["-bail", "-batch"])
        .arg(db)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need sqlite3: apt-get install sqlite3");
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "sqlite3 {sql:.80}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The whole database as its own client writes it, rowids included.
pub fn dump(db: &Path) -> Vec<u8> {
    let output = Command::new("sqlite3")
        .arg(db)
        .arg(".dump --preserve-rowids")
        .output()
        .expect("these tests need sqlite3: apt-get install sqlite3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.ends_with(b"COMMIT;\n"), "the dump is whole");
    output.stdout
}

/// Fails with the first place where two dumps differ.
pub fn assert_same_dump(a: &Path, b: &Path) {
    let (a, b) = (dump(a), dump(b));
    if a == b {
        return;
    }
    let at = a.iter().zip(&b).position(|(x, y)| x != y).unwrap_or(a.len().min(b.len()));
    let around = |t: &[u8]| String::from_utf8_lossy(&t[at.saturating_sub(80)..(at + 80).min(t.len())]).into_owned();
    panic!("dumps of {} and {} bytes differ at {at}:\n{}\n{}", a.len(), b.len(), around(&a), around(&b));
}

/// Every path below `root` with what has to be equal: type, mode, time, content or link target.
pub fn tree(root: &Path) -> BTreeMap<Vec<u8>, (u32, i64, i64, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let m = path.symlink_metadata().unwrap();
        let content = if m.is_symlink() {
            std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if m.is_file() {
            std::fs::read(&path).unwrap()
        } else {
            open.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            Vec::new()
        };
        let mode = if m.is_symlink() { 0 } else { m.mode() };
        out.insert(
            path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(),
            (mode, m.mtime(), m.mtime_nsec(), content),
        );
    }
    out
}

/// The name of the first record with this number, as in `log/0000000001-…`.
pub fn record(store: &Path, sequence: u64) -> String {
    let start = format!("log/{sequence:010}-");
    files(store).into_keys().find(|name| name.starts_with(&start)).unwrap()
}

/// Every file of a directory with its bytes.
pub fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    tree(root)
        .into_keys()
        .map(|name| String::from_utf8(name).unwrap())
        .filter(|name| root.join(name).is_file())
        .map(|name| (name.clone(), std::fs::read(root.join(&name)).unwrap()))
        .collect()
}
