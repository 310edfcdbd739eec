//! Files of the shop: who may read and write them, what lies where it should not, what changed, which images are too heavy.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result, file};
use crate::judge::{Limits, Policy};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

/// A file, and what is known of it.
type Found = (PathBuf, std::fs::Metadata);

/// Files that are looked at, at most.
const MOST: usize = 500_000;

/// What is asked of the files of a shop (H9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileRules {
    /// The tree of the shop.
    pub root: PathBuf,
    /// Where uploads lie, under `root` or elsewhere: nothing there may be executed.
    pub uploads: Vec<PathBuf>,
    /// What the web server gives out: no secrets, dumps and repositories there.
    pub public: Vec<PathBuf>,
    /// Names of files with secrets, with `*` for anything: nobody but their owner and group may read them.
    pub secrets: Vec<String>,
    /// The user (its number) that has to own everything; not asked where there is none.
    pub owner: Option<u32>,
    /// Endings of files of code: changed ones are found by their SHA-256, against the state that was kept.
    pub code: Vec<String>,
    /// Folders under `root` in which the shop itself writes code, such as compiled views: changes there are no news.
    pub generated: Vec<PathBuf>,
}

impl Default for FileRules {
    fn default() -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Self {
            root: PathBuf::new(),
            uploads: Vec::new(),
            public: Vec::new(),
            secrets: owned(&[
                ".env",
                ".env.*",
                "*.pem",
                "*.key",
                "id_rsa",
                "id_ed25519",
                "wp-config.php",
                "config.php",
                "database.php",
                "credentials*.json",
                "*.p12",
                "*.pfx",
                ".npmrc",
                ".pgpass",
                ".my.cnf",
            ]),
            owner: None,
            code: owned(&["php", "js", "mjs", "cjs", "ts", "tsx", "jsx", "html", "htaccess"]),
            generated: [
                "storage/framework",
                "bootstrap/cache",
                "var/cache",
                "generated",
                "wp-content/cache",
                ".next/cache",
            ]
            .map(PathBuf::from)
            .to_vec(),
        }
    }
}

/// Permissions, ownership, secrets, executable uploads, changes.
///
/// Readings: `secret files that all may read`, `files that all may write`, `executables among the uploads`, `in the web root that
/// should not be`, `of another owner`, `not readable` (to this probe: what was not seen is not fine), `changed code files`.
/// Symbolic links are not followed. A tree that is not there, or has more than 500,000 files, is an error.
#[derive(Clone)]
pub struct FilesProbe {
    spec: ProbeSpec,
    rules: FileRules,
    state: Option<PathBuf>,
}

impl fmt::Debug for FilesProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesProbe").field("id", &self.spec.id).field("root", &self.rules.root).finish_non_exhaustive()
    }
}

impl FilesProbe {
    /// By those rules.
    pub fn new(id: impl Into<String>, rules: FileRules) -> Self {
        let policy = Policy::new()
            .below("secret files that all may read", Unit::Count, Limits::critical(1.0))
            .below("executables among the uploads", Unit::Count, Limits::critical(1.0))
            .below("in the web root that should not be", Unit::Count, Limits::critical(1.0))
            .below("files that all may write", Unit::Count, Limits::warning(1.0))
            .below("of another owner", Unit::Count, Limits::warning(1.0))
            .below("changed code files", Unit::Count, Limits::warning(1.0))
            .below("not readable", Unit::Count, Limits::warning(1.0));
        let spec = ProbeSpec::new(id, policy);
        Self { spec, rules, state: None }
    }

    /// The same that finds changes of code since [`FilesProbe::accept`] was called last, by what is kept in that file.
    #[must_use]
    pub fn with_state(mut self, state: impl Into<PathBuf>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Takes the code as it is now for what it should be: after a deployment. Blocking.
    ///
    /// # Errors
    /// Where the tree cannot be read, or the state not be written.
    pub fn accept(&self) -> Result<()> {
        let Some(state) = &self.state else {
            return Err(Error::new(ErrorKind::Config, "there is no file to keep the state in"));
        };
        let digests = self.digests(&self.walk(&self.rules.root)?.0)?;
        let bytes = serde_json::to_vec(&digests)
            .map_err(|e| Error::new(ErrorKind::Storage, "digests that cannot be written").with_source(e))?;
        let beside = crate::probe::beside(state);
        std::fs::write(&beside, bytes)
            .and_then(|()| std::fs::rename(&beside, state))
            .map_err(|e| file(state, "cannot be written", e))
    }

    /// The files of a tree, and what could not be read.
    fn walk(&self, root: &Path) -> Result<(Vec<Found>, Vec<PathBuf>)> {
        let (mut files, mut unreadable, mut open) = (Vec::new(), Vec::new(), vec![root.to_owned()]);
        while let Some(folder) = open.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(e) if folder == root => return Err(file(root, "cannot be listed", e)),
                Err(_) => {
                    unreadable.push(folder);
                    continue;
                }
            };
            for entry in entries {
                let entry = entry.map_err(|e| file(&folder, "cannot be listed", e))?;
                let Ok(about) = entry.metadata() else {
                    // It may be gone by now; if it is not, it cannot be seen.
                    if entry.path().symlink_metadata().is_ok() {
                        unreadable.push(entry.path());
                    }
                    continue;
                };
                if about.is_dir() {
                    open.push(entry.path());
                }
                files.push((entry.path(), about));
                if files.len() > MOST {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!("{}: more than {MOST} files", root.display()),
                    )
                    .with_next_step("name a smaller tree, such as the code without node_modules"));
                }
            }
        }
        Ok((files, unreadable))
    }

    fn digests(&self, files: &[Found]) -> Result<BTreeMap<String, String>> {
        let is_code = |path: &Path| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let end = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
            let uploaded = self.rules.uploads.iter().any(|u| path.starts_with(self.rules.root.join(u)));
            let generated = self.rules.generated.iter().any(|g| path.starts_with(self.rules.root.join(g)));
            !uploaded && !generated && self.rules.code.contains(&end)
        };
        let mut digests = BTreeMap::new();
        for (path, about) in files.iter().filter(|(p, a)| a.is_file() && is_code(p)) {
            let mut hasher = Sha256::new();
            let mut opened = std::fs::File::open(path).map_err(|e| file(path, "cannot be read", e))?;
            let mut buffer = vec![0; 64 << 10];
            loop {
                match opened.read(&mut buffer).map_err(|e| file(path, "cannot be read", e))? {
                    0 => break,
                    n => hasher.update(&buffer[..n]),
                }
            }
            let name = path.strip_prefix(&self.rules.root).unwrap_or(path).display().to_string();
            digests.insert(name, format!("{}:{}", hex::encode(hasher.finalize()), about.mode() & 0o7777));
        }
        Ok(digests)
    }

    fn look(&self, seen: &mut Observation) -> Result<()> {
        let rules = &self.rules;
        let (files, mut unreadable) = self.walk(&rules.root)?;
        if files.is_empty() {
            return Err(Error::new(ErrorKind::Config, format!("{}: there is nothing in it", rules.root.display()))
                .with_next_step("check the path"));
        }
        let mut found: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut add = |what: &'static str, path: &Path, why: &str| {
            let list = found.entry(what).or_default();
            list.push(format!("{}{why}", path.display()));
        };
        for (path, about) in &files {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let mode = about.mode() & 0o7777;
            if about.file_type().is_symlink() {
                continue;
            }
            if about.is_file()
                && mode & 0o004 != 0
                && rules.secrets.iter().any(|p| fits(p, &name))
                && has_secret(path, &name)
            {
                add("secret files that all may read", path, &format!(" ({mode:o})"));
            }
            // A folder with the sticky bit, as /tmp, is meant to be so.
            if mode & 0o002 != 0 && mode & 0o1000 == 0 {
                add("files that all may write", path, &format!(" ({mode:o})"));
            }
            if rules.owner.is_some_and(|owner| about.uid() != owner) {
                add("of another owner", path, &format!(" (user {})", about.uid()));
            }
        }
        for folder in &rules.uploads {
            let (files, more) = self.walk(&rules.root.join(folder))?;
            unreadable.extend(more);
            for (path, about) in files.iter().filter(|(_, a)| a.is_file()) {
                match executable(path, about) {
                    Ok(Some(why)) => add("executables among the uploads", path, &format!(" ({why})")),
                    Ok(None) => {}
                    Err(_) => unreadable.push(path.clone()),
                }
            }
        }
        for folder in &rules.public {
            let (files, more) = self.walk(&rules.root.join(folder))?;
            unreadable.extend(more);
            for (path, _) in files.iter().filter(|(p, _)| is_misplaced(p)) {
                add("in the web root that should not be", path, "");
            }
        }
        unreadable.sort();
        unreadable.dedup();
        for path in &unreadable {
            add("not readable", path, "");
        }
        self.changes(seen, &files, &mut add)?;
        for what in [
            "secret files that all may read",
            "files that all may write",
            "executables among the uploads",
            "in the web root that should not be",
            "of another owner",
            "not readable",
        ] {
            let list = found.get(what).map(Vec::as_slice).unwrap_or_default();
            match what {
                "executables among the uploads" if rules.uploads.is_empty() => {
                    seen.not_applicable(what, "no uploads are named");
                }
                "in the web root that should not be" if rules.public.is_empty() => {
                    seen.not_applicable(what, "no web root is named");
                }
                "of another owner" if rules.owner.is_none() => {
                    seen.not_applicable(what, "no owner is named");
                }
                _ => {
                    seen.number(what, list.len() as f64, Unit::Count);
                }
            }
        }
        for (what, list) in &found {
            for line in list.iter().take(10) {
                seen.evidence(format!("{what}: {line}"));
            }
        }
        seen.number("files", files.len() as f64, Unit::Count);
        Ok(())
    }

    fn changes(
        &self,
        seen: &mut Observation,
        files: &[Found],
        add: &mut impl FnMut(&'static str, &Path, &str),
    ) -> Result<()> {
        const WHAT: &str = "changed code files";
        let Some(state) = &self.state else {
            seen.not_applicable(WHAT, "no state is kept");
            return Ok(());
        };
        let kept: BTreeMap<String, String> = match std::fs::read(state) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::new(ErrorKind::Malformed, format!("{}: is not what was kept", state.display()))
                    .with_next_step("look why; then accept the code anew")
                    .with_source(e)
            })?,
            // Nobody said yet what it should be.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                seen.evidence("the code was never accepted: what changed is not known");
                return Ok(());
            }
            Err(e) => return Err(file(state, "cannot be read", e)),
        };
        let now = self.digests(files)?;
        let mut changed = 0;
        for (name, digest) in &now {
            match kept.get(name) {
                None => add(WHAT, Path::new(name), " (new)"),
                Some(before) if before != digest => add(WHAT, Path::new(name), " (changed)"),
                Some(_) => continue,
            }
            changed += 1;
        }
        for name in kept.keys().filter(|n| !now.contains_key(*n)) {
            add(WHAT, Path::new(name), " (gone)");
            changed += 1;
        }
        seen.number(WHAT, f64::from(changed), Unit::Count);
        Ok(())
    }
}

#[async_trait]
impl Probe for FilesProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let (probe, mut seen) = (self.clone(), Observation::new(cx.now));
        blocking(move || {
            let began = std::time::Instant::now();
            probe.look(&mut seen)?;
            seen.took = began.elapsed();
            Ok(seen)
        })
        .await
    }
}

/// Images under a folder (H11): too large, too heavy, of another kind than their name says.
///
/// Readings: `images`; `images too large` (more than 2,560 pixels on a side), `images too heavy` (more than 500 kB, or more than
/// half a byte a pixel where they have more than 100 kB), `images misnamed`, each in percent of the images, a warning from 10 %
/// on; `images damaged`, a warning from one on. Evidence names the heaviest.
#[derive(Debug, Clone)]
pub struct ImagesProbe {
    spec: ProbeSpec,
    folder: PathBuf,
}

impl ImagesProbe {
    /// The images under that folder.
    pub fn new(id: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let mut policy = Policy::new();
        for what in ["images too heavy", "images too large", "images misnamed"] {
            policy = policy.below(what, Unit::Percent, Limits::warning(10.0));
        }
        policy = policy.below("images damaged", Unit::Count, Limits::warning(1.0));
        let spec = ProbeSpec::new(id, policy);
        Self { spec, folder }
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn look(&self, seen: &mut Observation) -> Result<()> {
        let walker = FilesProbe::new("", FileRules::default());
        let (files, unreadable) = walker.walk(&self.folder)?;
        let (mut images, mut large, mut misnamed, mut damaged) = (0u32, 0u32, 0u32, unreadable.len());
        let mut heavy: Vec<(u64, String)> = Vec::new();
        for (path, about) in files.iter().filter(|(_, a)| a.is_file()) {
            let end = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
            let wanted = match end.as_str() {
                "jpg" | "jpeg" => imagesize::ImageType::Jpeg,
                "png" => imagesize::ImageType::Png,
                "gif" => imagesize::ImageType::Gif,
                "webp" => imagesize::ImageType::Webp,
                "bmp" => imagesize::ImageType::Bmp,
                _ => continue,
            };
            images += 1;
            let mut head = [0u8; 32];
            let kind = std::fs::File::open(path)
                .and_then(|mut f| f.read(&mut head))
                .ok()
                .and_then(|n| imagesize::image_type(&head[..n]).ok());
            let size = imagesize::size(path);
            let (Some(kind), Ok(size)) = (kind, size) else {
                damaged += 1;
                if damaged <= 10 {
                    seen.evidence(format!("damaged: {}", path.display()));
                }
                continue;
            };
            misnamed += u32::from(kind != wanted);
            large += u32::from(size.width.max(size.height) > 2560);
            let pixels = (size.width * size.height).max(1) as f64;
            let bytes = about.len();
            if bytes > 500_000 || (bytes > 100_000 && bytes as f64 / pixels > 0.5) {
                heavy.push((bytes, format!("{} ({}×{})", path.display(), size.width, size.height)));
            }
        }
        heavy.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (bytes, what) in heavy.iter().take(10) {
            seen.evidence(format!("{}: {what}", Unit::Bytes.show(*bytes as f64)));
        }
        seen.number("images", f64::from(images), Unit::Count);
        for (name, n) in
            [("images too heavy", heavy.len() as u32), ("images too large", large), ("images misnamed", misnamed)]
        {
            match images {
                0 => seen.not_applicable(name, "there is no image"),
                all => seen.number(name, f64::from(n) / f64::from(all) * 100.0, Unit::Percent),
            };
        }
        match images {
            0 if damaged == 0 => seen.not_applicable("images damaged", "there is no image"),
            _ => seen.number("images damaged", damaged as f64, Unit::Count),
        };
        Ok(())
    }
}

#[async_trait]
impl Probe for ImagesProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let (probe, mut seen) = (self.clone(), Observation::new(cx.now));
        blocking(move || {
            let began = std::time::Instant::now();
            probe.look(&mut seen)?;
            seen.took = began.elapsed();
            Ok(seen)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Panicked, "the reading of a tree ended early").with_source(e))?
}

/// `*` stands for anything, at most once.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((begin, end)) => name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end),
    }
}

/// Why an uploaded file could be executed: by its name, its mode, or what it begins with.
fn executable(path: &Path, about: &std::fs::Metadata) -> std::io::Result<Option<&'static str>> {
    let name = path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    // Some servers execute x.php.jpg: every ending counts.
    let endings =
        ["php", "php3", "php5", "php7", "php8", "phtml", "phar", "cgi", "pl", "py", "sh", "jsp", "asp", "aspx", "exe"];
    if name.split('.').skip(1).any(|part| endings.contains(&part)) {
        return Ok(Some("by its name"));
    }
    let most = if name == ".htaccess" { HTACCESS + 1 } else { 4096 };
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut head)?;
    let long = head.len() as u64 > HTACCESS;
    if matches!(name.as_str(), ".user.ini" | "web.config") || (name == ".htaccess" && (long || enables(&head))) {
        return Ok(Some("it changes what the server does"));
    }
    if memchr::memmem::find(&head, b"<?php").is_some() {
        return Ok(Some("PHP in it"));
    }
    if head.starts_with(b"\x7fELF") || head.starts_with(b"#!") {
        return Ok(Some("a program"));
    }
    Ok((about.mode() & 0o111 != 0).then_some("by its mode"))
}

/// Whether an `.htaccess` lets something be executed; many shops put one there that forbids just that.
fn enables(text: &[u8]) -> bool {
    // A line goes on behind a backslash.
    let text = String::from_utf8_lossy(text).replace("\\\r\n", " ").replace("\\\n", " ").to_ascii_lowercase();
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["addhandler" | "addtype" | "sethandler" | "forcetype" | "action", handler, ..] => {
                let handler = handler.trim_matches(['"', '\'']);
                !matches!(handler, "none" | "text/plain" | "application/octet-stream" | "default-handler")
            }
            ["addoutputfilter" | "setoutputfilter", filter, ..] => filter.contains("includes"),
            ["php_flag" | "php_admin_flag", "engine", on] => matches!(*on, "on" | "1" | "true"),
            ["php_value" | "php_admin_value", ..] => true,
            ["options", rest @ ..] => {
                rest.iter().any(|w| matches!(*w, "+execcgi" | "execcgi" | "all" | "+all" | "+includes" | "includes"))
            }
            _ => false,
        }
    })
}

/// Bytes of an `.htaccess` that are read; a longer one is none that anybody wrote.
const HTACCESS: u64 = 64 << 10;

/// Whether there is a secret in a file that is called like one: an example has none, a certificate is public, and a configuration
/// may take all of it from the environment. What cannot be read may have one.
fn has_secret(path: &Path, name: &str) -> bool {
    if ["example", "sample", "dist", "template", "stub"].iter().any(|end| name.ends_with(&format!(".{end}"))) {
        return false;
    }
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(256 << 10).read_to_end(&mut text));
    if read.is_err() {
        return true;
    }
    let text = String::from_utf8_lossy(&text);
    if name.ends_with(".pem") || name.ends_with(".crt") {
        return text.contains("PRIVATE KEY");
    }
    if name.ends_with(".php") {
        return text.lines().any(says_secret);
    }
    true
}

/// A line of PHP that gives a value to something that is called like a secret: `'password' => 'x'`, `define('DB_PASS', 'x')`,
/// `env('DB_PASSWORD', 'x')`; or that has an address with a password in it.
fn says_secret(line: &str) -> bool {
    let lower = line.trim_start().to_ascii_lowercase();
    if lower.starts_with(['*', '#']) || lower.starts_with("//") {
        return false;
    }
    if crate::redact::redact(&lower) != lower && lower.contains("://") {
        return true;
    }
    let named = ["pass", "pwd", "secret", "api_key", "apikey", "token", "_key'", "_key\"", "_salt"];
    let Some(at) = named.iter().filter_map(|n| lower.find(n).map(|at| at + n.len())).min() else { return false };
    // The texts in quotes behind the name; one that asks the environment is called like what it asks for.
    let rest = lower[at..].trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    let rest = rest.strip_prefix(['\'', '"']).unwrap_or(rest);
    let texts = || rest.split(['\'', '"']).skip(1).step_by(2).map(|text| !text.trim().is_empty());
    let asks = ["env(", "$_env", "$_server"].iter().any(|asked| rest.contains(asked));
    // The first is the name then; what stands beside it is what holds where it is not set.
    texts().nth(usize::from(asks)).unwrap_or(false)
}

/// What nobody should be able to fetch.
fn is_misplaced(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let ends = [
        ".sql", ".sql.gz", ".sql.zst", ".dump", ".bak", ".old", ".orig", ".swp", ".log", ".sqlite", ".db", "~", ".pem",
        ".key",
    ];
    let names =
        [".env", ".git", ".svn", ".hg", ".ds_store", "composer.lock", "package-lock.json", "id_rsa", ".htpasswd"];
    names.contains(&name.as_str()) || name.starts_with(".env.") || ends.iter().any(|e| name.ends_with(e))
}
