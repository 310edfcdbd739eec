//! How PHP is set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Host;
use crate::error::{Result, file};
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// A setting with the file in which it stands last.
type Settings = BTreeMap<String, (String, PathBuf)>;

/// Each PHP that serves pages, with its settings: each pool of FPM, the module of Apache, CGI; not the command line's. Where Debian, Red Hat
/// and the official images have them.
fn php(host: &Host) -> Result<Vec<(PathBuf, Settings)>> {
    // A set-up: its php.ini, the folder of more of it, the folder of FPM's pools.
    let mut homes: Vec<(PathBuf, PathBuf, PathBuf)> = Vec::new();
    for version in listed(&host.at("etc/php"))? {
        homes.extend(["fpm", "apache2", "cgi"].map(|kind| {
            let home = version.join(kind);
            (home.join("php.ini"), home.join("conf.d"), home.join("pool.d"))
        }));
    }
    homes.push((host.at("etc/php.ini"), host.at("etc/php.d"), host.at("etc/php-fpm.d")));
    let local = host.at("usr/local/etc");
    homes.push((local.join("php/php.ini"), local.join("php/conf.d"), local.join("php-fpm.d")));
    let mut out = Vec::new();
    for (ini, more, pools) in homes {
        let mut settings = Settings::new();
        let mut any = read_file(&mut settings, &ini)?;
        for path in listed(&more)?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "ini")) {
            any |= read_file(&mut settings, &path)?;
        }
        let before = out.len();
        for path in listed(&pools)?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "conf")) {
            let text = std::fs::read_to_string(&path).map_err(|e| file(&path, "cannot be read", e))?;
            for pool in pools_of(&text) {
                let mut own = settings.clone();
                read(&mut own, &pool, &path);
                out.push((path.clone(), own));
            }
        }
        // Without a pool it is Apache's or CGI's.
        if any && out.len() == before {
            out.push((ini, settings));
        }
    }
    Ok(out)
}

/// The pools of a file: what stands below each `[name]`.
fn pools_of(text: &str) -> Vec<String> {
    let (mut pools, mut in_global) = (Vec::<String>::new(), false);
    for line in text.lines() {
        match (line.trim().starts_with('['), pools.last_mut()) {
            (true, _) if line.trim() == "[global]" => in_global = true,
            (true, _) => {
                in_global = false;
                pools.push(String::new());
            }
            (false, Some(pool)) if !in_global => {
                pool.push_str(line);
                pool.push('\n');
            }
            (false, _) => {}
        }
    }
    pools
}

/// Whether the file is there.
fn read_file(settings: &mut Settings, path: &Path) -> Result<bool> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            read(settings, &text, path);
            Ok(true)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(file(path, "cannot be read", e)),
    }
}

/// What lies in a folder, sorted; nothing where it is not there. One that cannot be read is an error: it is not absent.
pub(super) fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |e| file(folder, "cannot be read", e);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(unreadable(e)),
    };
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

/// `name = value`, and `php_admin_flag[name] = value` of a pool, which wins.
fn read(settings: &mut Settings, text: &str, path: &Path) {
    for line in text.lines() {
        let line = line.split(';').next().unwrap_or_default().trim();
        let Some((name, value)) = line.split_once('=') else { continue };
        let name = name.trim().to_lowercase();
        let name = match name.split_once('[') {
            Some((kind, inner)) if kind.starts_with("php_") => inner.trim_end_matches(']').to_owned(),
            Some(_) => continue,
            None => name,
        };
        settings.insert(name, (value.trim().trim_matches('"').to_owned(), path.to_owned()));
    }
}

/// Whether a flag is on; PHP's own value where it is not set.
fn is_on(settings: &Settings, name: &str, otherwise: bool) -> (bool, Option<PathBuf>) {
    match settings.get(name) {
        None => (otherwise, None),
        Some((value, path)) => (
            matches!(value.to_lowercase().as_str(), "1" | "on" | "yes" | "true" | "stdout" | "stderr"),
            Some(path.clone()),
        ),
    }
}

/// A flag: its name, what PHP takes where nothing is said, what it has to be, and whether that is grave.
type Flag = (&'static str, bool, bool, bool);

fn flags(host: &Host, wanted: &[Flag]) -> Result<Finding> {
    let all = php(host)?;
    if all.is_empty() {
        return Ok(Finding::not_applicable("no PHP that serves pages is set up here"));
    }
    let (mut places, mut grave) = (Vec::new(), false);
    for (ini, settings) in &all {
        for (name, otherwise, has_to_be, is_grave) in wanted {
            let (on, path) = is_on(settings, name, *otherwise);
            if on != *has_to_be {
                let word = if on { "on" } else { "off" };
                let how = if path.is_some() { "is" } else { "is not set, which means" };
                places.push(Place::new(
                    path.unwrap_or_else(|| ini.clone()).display().to_string(),
                    None,
                    format!("{name} {how} {word}"),
                ));
                grave |= is_grave;
            }
        }
    }
    let names = wanted.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    Ok(match places.len() {
        0 => Finding::pass(format!("{names}: as they should be, in {} set-ups of PHP", all.len())),
        n if grave => Finding::fail(format!("{n} settings of PHP are wrong")).with_places(places),
        n => Finding::warn(format!("{n} settings of PHP could be better")).with_places(places),
    })
}

/// Errors are written down, and shown to nobody.
pub(super) async fn php_errors(host: &Host, _: &Context) -> Result<Finding> {
    flags(
        host,
        &[("display_errors", true, false, true), ("log_errors", true, true, true), ("expose_php", true, false, false)],
    )
}

/// Sessions by safe cookies. A shop may set them itself: what is missing here is worth a look, not more.
pub(super) async fn php_sessions(host: &Host, _: &Context) -> Result<Finding> {
    flags(
        host,
        &[
            ("session.cookie_secure", false, true, false),
            ("session.cookie_httponly", false, true, false),
            ("session.use_strict_mode", false, true, false),
            ("session.use_only_cookies", true, true, true),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_pools_are_read() {
        assert_eq!(pools_of("; a\n[global]\npid = x\n[a]\nx = 1\n[b]\ny = 2\n"), ["x = 1\n", "y = 2\n"]);
        let mut settings = Settings::new();
        read(&mut settings, "; display_errors = On\ndisplay_errors = Off ; no\nlog_errors=1\n", Path::new("php.ini"));
        read(&mut settings, "[www]\nphp_admin_flag[display_errors] = on\nenv[PATH] = /bin\n", Path::new("www.conf"));
        assert_eq!(is_on(&settings, "display_errors", false), (true, Some("www.conf".into())));
        assert!(is_on(&settings, "log_errors", false).0);
        assert_eq!(is_on(&settings, "expose_php", true), (true, None));
        assert!(!settings.contains_key("env[path]"));
    }
}
