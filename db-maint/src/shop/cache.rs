//! Clearing the shop's caches: a folder, keys in Redis, a request to whoever else keeps one. Counted first, cleared when asked.
//!
//! What is removed is bounded on purpose: nothing but what lies in a folder that is plainly a cache, never through a link that
//! another user could have made, or on another mount; no keys but those with the declared prefix, never by FLUSHALL.

mod directory;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "redis")]
mod redis;

use serde::{Deserialize, Serialize};

use crate::batch::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{CacheAction, DirectoryCache, HttpCache, Policy, RedisCache};

/// What became of one cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CacheReport {
    /// What the policy calls it.
    pub name: String,
    /// Where it is, without secrets.
    pub place: String,
    /// Files, keys or requests that there were to remove or to send.
    pub met: u64,
    /// Those that were.
    pub cleared: u64,
    /// Bytes of the files that there were; nought where that is not known.
    pub bytes: u64,
    /// Some of what there was: files, or keys, of which only the beginning is shown.
    pub sample: Vec<String>,
    /// What failed, and why.
    pub failed: Vec<String>,
    /// Whether it came to the end: it may have been stopped.
    pub complete: bool,
}

/// Counts what each cache of `policy` holds, and clears it where `apply` is set. `only` names the caches; all, where it is empty.
///
/// Cancel safe: what was removed is gone, the rest stays. One that fails does not keep the others from being cleared.
///
/// # Errors
/// [`ErrorKind::Config`] where a rule makes no sense: then nothing at all was done.
pub async fn clear_caches(policy: &Policy, only: &[String], apply: bool, stop: &Stop) -> Result<Vec<CacheReport>> {
    for name in only {
        if !policy.cache.iter().any(|action| action.name == *name) {
            return Err(Error::new(ErrorKind::Config, format!("the policy has no cache {name:?}"))
                .with_next_step("see the names under [[cache]]"));
        }
    }
    let wanted: Vec<&CacheAction> =
        policy.cache.iter().filter(|action| only.is_empty() || only.contains(&action.name)).collect();
    if wanted.is_empty() {
        return Err(Error::new(ErrorKind::Config, "the policy names no cache")
            .with_next_step("see [[cache]] in `maintain policy`"));
    }
    for action in &wanted {
        fits(action)?;
    }
    let mut reports = Vec::new();
    for action in wanted {
        let mut report = CacheReport {
            name: action.name.clone(),
            place: String::new(),
            met: 0,
            cleared: 0,
            bytes: 0,
            sample: Vec::new(),
            failed: Vec::new(),
            complete: false,
        };
        if stop.is_stopped() {
            reports.push(report);
            continue;
        }
        match kind(action)? {
            Kind::Directory(rule) => directory::clear(rule, apply, stop, &mut report).await,
            Kind::Redis(rule) => redis(rule, apply, stop, &mut report).await,
            Kind::Http(rule) => http(rule, apply, &mut report).await,
        }
        report.complete = !stop.is_stopped();
        reports.push(report);
    }
    Ok(reports)
}

enum Kind<'a> {
    Directory(&'a DirectoryCache),
    Redis(&'a RedisCache),
    Http(&'a HttpCache),
}

fn kind(action: &CacheAction) -> Result<Kind<'_>> {
    match (&action.directory, &action.redis, &action.http) {
        (Some(rule), None, None) => Ok(Kind::Directory(rule)),
        (None, Some(rule), None) => Ok(Kind::Redis(rule)),
        (None, None, Some(rule)) => Ok(Kind::Http(rule)),
        _ => Err(wrong(&action.name, "it is not exactly one of directory, redis and http", "make a rule of each")),
    }
}

fn wrong(name: &str, why: &str, next: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the cache {name:?}: {why}")).with_next_step(next)
}

/// Whether a rule makes sense, as far as that can be said without asking anybody.
pub(crate) fn fits(action: &CacheAction) -> Result<()> {
    let name = &action.name;
    match kind(action)? {
        Kind::Directory(rule) => directory::fits(rule).map_err(|(why, next)| wrong(name, &why, next)),
        Kind::Redis(rule) => {
            if rule.prefix.is_empty() {
                return Err(wrong(
                    name,
                    "its prefix is empty: all keys would go",
                    "write what the cache's keys begin with",
                ));
            }
            let is_known = ["redis://", "unix://"].iter().any(|scheme| rule.url.starts_with(scheme));
            if !is_known || rule.url.contains(['@', '?']) {
                return Err(wrong(
                    name,
                    "its url is not as it should be",
                    "write redis://HOST:PORT/NUMBER or unix:///PATH; the password comes from password_env",
                ));
            }
            if cfg!(not(feature = "redis")) {
                return Err(wrong(name, "this build knows no Redis", "build db-maint with its feature redis"));
            }
            Ok(())
        }
        Kind::Http(rule) => {
            let is_known = ["http://", "https://"].iter().any(|scheme| rule.url.starts_with(scheme));
            if !is_known || rule.url.contains('@') {
                return Err(wrong(
                    name,
                    "its url is not as it should be",
                    "write http://… or https://…; a secret comes from secret_env",
                ));
            }
            if rule.header.is_some() != rule.secret_env.is_some() {
                return Err(wrong(name, "header and secret_env belong together", "write both, or neither"));
            }
            let is_near = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|near| {
                rule.url.strip_prefix(near).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
            });
            if rule.secret_env.is_some() && rule.url.starts_with("http://") && !is_near {
                return Err(wrong(name, "its secret would be sent for everybody to read", "write https://…"));
            }
            if cfg!(not(feature = "http")) {
                return Err(wrong(name, "this build sends no requests", "build db-maint with its feature http"));
            }
            Ok(())
        }
    }
}

/// A secret from the environment.
#[cfg(any(feature = "redis", feature = "http"))]
fn secret(variable: &str) -> std::result::Result<String, String> {
    std::env::var(variable).map_err(|_| format!("the environment has no {variable}"))
}

#[cfg(feature = "redis")]
use self::redis::clear as redis;
#[cfg(not(feature = "redis"))]
async fn redis(_: &RedisCache, _: bool, _: &Stop, _: &mut CacheReport) {}

#[cfg(feature = "http")]
use self::http::clear as http;
#[cfg(not(feature = "http"))]
async fn http(_: &HttpCache, _: bool, _: &mut CacheReport) {}
