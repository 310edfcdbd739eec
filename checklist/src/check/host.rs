//! What the host tells: what listens, what is let in, how PHP and the web server are set.

mod firewall;
mod network;
mod settings;
mod web_server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Looks;
use crate::error::{Error, ErrorKind, Result};
use crate::item::{Check, Context, Tier};
use crate::outcome::{Finding, Outcome};
use crate::register::{Software, judge_version};

/// A host, this one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Host {
    /// The root of its files; `/` of this host. With another one, an image of a host is looked at, and no command is run.
    pub root: PathBuf,
    /// Ports that may listen for everybody.
    pub ports: Vec<u16>,
    /// Folders of uploads, in which nothing may lie that a server would run.
    pub uploads: Vec<PathBuf>,
}

impl Default for Host {
    /// This host; 22, 80 and 443 may listen.
    fn default() -> Self {
        Self { root: "/".into(), ports: vec![22, 80, 443], uploads: Vec::new() }
    }
}

type Look = fn(Arc<Host>, Context) -> BoxFuture<'static, Result<Finding>>;

macro_rules! look {
    ($path:path) => {
        |host, cx| async move { $path(&host, &cx).await }.boxed()
    };
}

/// The checks of a host; without one, each of them is unknown.
pub fn checks(host: Option<Arc<Host>>) -> Vec<Arc<dyn Check>> {
    let all: [(&str, &str, Look); 7] = [
        ("host.ports", "infra.ports", look!(network::ports)),
        ("host.firewall", "infra.firewall", look!(firewall::firewall)),
        ("host.php-errors", "monitoring.errors", look!(settings::php_errors)),
        ("host.php-sessions", "auth.session", look!(settings::php_sessions)),
        ("host.tls-floor", "data.https", look!(web_server::tls_floor)),
        ("host.uploads", "input.uploads", look!(uploads)),
        ("host.end-of-life", "upkeep.end-of-life", look!(end_of_life)),
    ];
    let one = |(id, item, look)| {
        let check = Looks { id, item, tier: Tier::AuthenticatedRead, look, at: host.clone(), missing: "a host" };
        Arc::new(check) as Arc<dyn Check>
    };
    all.into_iter().map(one).collect()
}

impl Host {
    /// A path of the host.
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn is_this_one(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// What a program says; `None` where it is not there.
async fn said(program: &str, arguments: &[&str]) -> Result<Option<(bool, String)>> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).kill_on_drop(true).stdin(std::process::Stdio::null());
    match tokio::time::timeout(Duration::from_secs(20), command.output()).await {
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            Ok(Some((output.status.success(), text)))
        }
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Ok(Err(e)) => Err(Error::new(ErrorKind::Storage, format!("{program}: cannot be run")).with_source(e)),
        Err(_) => Err(Error::new(ErrorKind::Unreachable, format!("{program}: does not end"))),
    }
}

/// What a server would run.
const RUN: [&str; 12] = ["php", "php3", "php5", "php7", "phtml", "phar", "cgi", "pl", "py", "sh", "jsp", "asp"];

/// By its end, or by `.php` anywhere in its name.
fn is_run(name: &str) -> bool {
    let mut ends = name.split('.').skip(1);
    let last = name.rsplit_once('.').map_or("", |(_, end)| end);
    RUN.contains(&last) || ends.any(|end| end.starts_with("php") || end == "phtml" || end == "phar")
}

/// Nothing in the folders of uploads is run.
async fn uploads(host: &Host, _: &Context) -> Result<Finding> {
    if host.uploads.is_empty() {
        return Ok(Finding::unknown("no folder of uploads was named"));
    }
    let folders = host.uploads.clone();
    let walk = tokio::task::spawn_blocking(move || {
        let (mut files, mut bad, mut unread) = (0u64, Vec::new(), Vec::new());
        let mut open = folders;
        while let Some(folder) = open.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                unread.push(folder);
                continue;
            };
            for entry in entries {
                let Ok((path, kind)) = entry.and_then(|e| Ok((e.path(), e.file_type()?))) else {
                    unread.push(folder.clone());
                    continue;
                };
                if kind.is_dir() {
                    open.push(path);
                    continue;
                }
                files += 1;
                // `shell.php.jpg` is run by servers that look at any part of a name.
                let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
                if name == ".htaccess" || name == ".user.ini" || is_run(&name) {
                    bad.push(path);
                }
            }
        }
        (files, bad, unread)
    });
    let (files, mut bad, unread) = walk
        .await
        .map_err(|e| Error::new(ErrorKind::Storage, "the walk through uploads ended early").with_source(e))?;
    bad.sort();
    Ok(match (bad.len(), unread.first()) {
        (0, None) => Finding::pass(format!("none of {files} uploads would be run")),
        (0, Some(folder)) => Finding::unknown(format!("{} cannot be read", folder.display())),
        (n, _) => bad.into_iter().fold(Finding::fail(format!("{n} uploads would be run")), |f, p| {
            f.at(p.display().to_string(), None, "would be run")
        }),
    })
}

/// PHP and Node on this host are still mended.
async fn end_of_life(host: &Host, cx: &Context) -> Result<Finding> {
    if !host.is_this_one() {
        return Ok(Finding::unknown("no program of an image is run"));
    }
    let mut found: Vec<Finding> = Vec::new();
    for (software, program) in [(Software::Php, "php"), (Software::Node, "node")] {
        let Some((true, text)) = said(program, &["--version"]).await? else { continue };
        let version =
            text.split_whitespace().find(|w| w.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()));
        found.extend(version.map(|v| judge_version(software, v, cx.now)));
    }
    let all = found.iter().map(|f| f.reason.clone()).collect::<Vec<_>>().join("; ");
    Ok(match found.into_iter().max_by_key(|f| f.outcome.gravity()) {
        None => Finding::not_applicable("neither PHP nor Node is on the path of this host"),
        Some(mut gravest) => {
            if gravest.outcome != Outcome::Fail {
                gravest.reason = all;
            }
            gravest
        }
    })
}
