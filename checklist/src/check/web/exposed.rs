//! What is given away: files that nobody should see, secrets in scripts.

use super::site::Site;
use crate::error::Result;
use crate::item::Context;
use crate::outcome::{Finding, Place};
use crate::secrets;

/// A file that nobody should see, and how its content is told from a page that is shown for everything.
type Exposed = (&'static str, fn(&str) -> bool);

fn is_env(text: &str) -> bool {
    let settings = text.lines().filter(|l| {
        l.split_once('=').is_some_and(|(k, _)| {
            let k = k.trim().trim_start_matches("export ");
            !k.is_empty() && k.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
    });
    settings.count() >= 1 && !text.trim_start().starts_with('<')
}

fn is_dump(text: &str) -> bool {
    ["CREATE TABLE", "INSERT INTO", "-- PostgreSQL database dump", "-- MySQL dump", "-- MariaDB dump", "COPY public."]
        .iter()
        .any(|w| text.contains(w))
        && !text.trim_start().starts_with("<!")
}

fn is_php(text: &str) -> bool {
    text.trim_start().starts_with("<?php")
}

fn is_key(text: &str) -> bool {
    text.contains("PRIVATE KEY-----")
}

fn is_index(text: &str) -> bool {
    text.contains("<title>Index of /") || text.contains("<h1>Index of /")
}

const FILES: [Exposed; 26] = [
    ("/.env", is_env),
    ("/.env.local", is_env),
    ("/.env.production", is_env),
    ("/.env.bak", is_env),
    ("/api/.env", is_env),
    ("/.git/config", |t| t.contains("[core]")),
    ("/.git/HEAD", |t| t.starts_with("ref: refs/")),
    ("/.svn/entries", |t| t.trim_start().starts_with("12") || t.contains("svn:")),
    ("/.DS_Store", |t| t.contains("Bud1")),
    ("/.aws/credentials", |t| t.contains("aws_secret_access_key")),
    ("/.npmrc", |t| t.contains("_authToken")),
    ("/id_rsa", is_key),
    ("/server.key", is_key),
    ("/backup.sql", is_dump),
    ("/dump.sql", is_dump),
    ("/database.sql", is_dump),
    ("/db.sql", is_dump),
    ("/backups/", is_index),
    ("/uploads/", is_index),
    ("/logs/", is_index),
    ("/config.php.bak", is_php),
    ("/config.php~", is_php),
    ("/index.php.bak", is_php),
    ("/phpinfo.php", |t| t.contains("phpinfo()") || t.contains("PHP Version")),
    ("/info.php", |t| t.contains("PHP Version")),
    ("/server-status", |t| t.contains("Apache Server Status")),
];

/// Files that nobody should see are not given out; by their content, for many shops answer 200 to everything.
pub(super) async fn files(site: &Site, _: &Context) -> Result<Finding> {
    site.home().await?;
    let (mut places, mut asked) = (Vec::new(), 0);
    for (path, is) in FILES {
        let Ok(answer) = site.get(path).await else { continue };
        // A limiter or a server out of order says nothing of files.
        if matches!(answer.status, 429 | 500..) {
            continue;
        }
        asked += 1;
        if answer.status == 200 && is(&answer.text()) {
            places.push(Place::new(answer.place(), None, "is given to everybody"));
        }
    }
    Ok(match (places.len(), asked) {
        (0, n) if n * 2 < FILES.len() => Finding::unknown(format!("of {} addresses only {n} answered", FILES.len())),
        (0, n) => Finding::pass(format!("none of {n} files that nobody should see is given out")),
        (n, _) => Finding::fail(format!("{n} files are given to everybody that nobody should see")).with_places(places),
    })
}

/// Scripts are searched for secrets, at most so many.
const SCRIPTS: usize = 40;

/// What a browser gets holds no secrets; keys that are public by design are none.
pub(super) async fn secrets(site: &Site, _: &Context) -> Result<Finding> {
    let pages = site.documents(&[site.options.pages.clone(), site.options.checkout.clone()].concat()).await?;
    let (mut places, mut sources, mut searched) = (Vec::new(), Vec::new(), 0);
    let mut search = |at: &str, text: &str, places: &mut Vec<Place>| {
        searched += 1;
        places.extend(secrets::find(text).into_iter().map(|s| Place::new(at, Some(s.line), s.kind)));
    };
    for (answer, page) in &pages {
        search(&answer.place(), &answer.text(), &mut places);
        for script in page.all("script").map(|s| s.get("src")).filter(|src| !src.is_empty()) {
            if let Ok(url) = answer.url.join(script)
                && site.is_own(&url)
                && !sources.contains(&url)
            {
                sources.push(url);
            }
        }
    }
    let more = sources.len().saturating_sub(SCRIPTS);
    let mut unread = more;
    for url in sources.iter().take(SCRIPTS) {
        match site.get(url.as_str()).await {
            Ok(answer) if answer.status == 200 => {
                search(&answer.place(), &answer.text(), &mut places);
                unread += usize::from(answer.is_cut);
            }
            _ => unread += 1,
        }
    }
    places.sort();
    places.dedup();
    Ok(match (places.len(), unread) {
        (0, 0) => Finding::pass(format!("no secret in {searched} pages and scripts")),
        (0, n) => Finding::unknown(format!("no secret in {searched} pages and scripts, and {n} could not be read")),
        (n, _) => Finding::fail(format!("{n} secrets are served to everybody")).with_places(places),
    })
}
