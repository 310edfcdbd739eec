//! How PHP and the web server are set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Host;
use crate::error::{Result, file};
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// A setting with the file in which it stands last.
type Settings = BTreeMap<String, (String, PathBuf)>;

/// Each PHP that serves pages, with its settings: FPM, the module of Apache, CGI; not the command line's.
fn php(host: &Host) -> Result<Vec<(PathBuf, Settings)>> {
    let mut out = Vec::new();
    let mut homes: Vec<PathBuf> = Vec::new();
    for version in listed(&host.at("etc/php"))? {
        homes.extend(["fpm", "apache2", "cgi"].map(|kind| version.join(kind)));
    }
    homes.push(host.at("usr/local/etc/php"));
    homes.sort();
    for home in homes {
        let ini = home.join("php.ini");
        let mut files = vec![ini.clone()];
        for folder in ["conf.d", "pool.d"] {
            let more = listed(&home.join(folder))?;
            files.extend(more.into_iter().filter(|p| p.extension().is_some_and(|e| e == "ini" || e == "conf")));
        }
        let mut settings = Settings::new();
        let mut any = false;
        for path in files {
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    any = true;
                    read(&mut settings, &text, &path);
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(file(&path, "cannot be read", e)),
            }
        }
        if any {
            out.push((ini, settings));
        }
    }
    Ok(out)
}

/// What lies in a folder, sorted; nothing where it is not there. One that cannot be read is an error: it is not absent.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
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

/// The web server speaks no TLS older than 1.2.
pub(super) async fn tls_floor(host: &Host, _: &Context) -> Result<Finding> {
    let mut files = Vec::new();
    for folder in [
        "etc/nginx",
        "etc/nginx/conf.d",
        "etc/nginx/sites-enabled",
        "etc/apache2",
        "etc/apache2/sites-enabled",
        "etc/apache2/mods-enabled",
    ] {
        files.extend(listed(&host.at(folder))?.into_iter().filter(|p| p.is_file()));
    }
    files.sort();
    if files.is_empty() {
        return Ok(Finding::not_applicable("no nginx and no Apache is set up here"));
    }
    let (mut old, mut said, mut speaks) = (Vec::new(), 0, false);
    for path in &files {
        let text = std::fs::read_to_string(path).map_err(|e| file(path, "cannot be read", e))?;
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            speaks |= line.starts_with("ssl_certificate") || line.starts_with("SSLCertificate");
            let Some(protocols) = line.strip_prefix("ssl_protocols").or_else(|| line.strip_prefix("SSLProtocol"))
            else {
                continue;
            };
            said += 1;
            if allows_old(protocols) {
                old.push(Place::new(
                    path.display().to_string(),
                    Some(at as u32 + 1),
                    format!("allows{}", protocols.trim_end_matches(';')),
                ));
            }
        }
    }
    Ok(match (old.len(), said, speaks) {
        (0, 0, false) => Finding::not_applicable("the web server here speaks no TLS"),
        (0, 0, true) => Finding::warn("nothing says which TLS is spoken: older versions of nginx and Apache allow 1.0")
            .at(files[0].display().to_string(), None, "no ssl_protocols"),
        (0, n, _) => Finding::pass(format!("TLS 1.2 at least, by {n} settings")),
        (n, ..) => Finding::fail(format!("{n} settings allow TLS older than 1.2")).with_places(old),
    })
}

/// `TLSv1 TLSv1.2;` of nginx; `all -SSLv3 -TLSv1` of Apache, read from left to right.
fn allows_old(protocols: &str) -> bool {
    let (mut one, mut one_one, mut ssl) = (false, false, false);
    for word in protocols.trim_end_matches(';').split_whitespace() {
        let (on, name) = match word.strip_prefix('-') {
            Some(name) => (false, name),
            None => (true, word.trim_start_matches('+')),
        };
        match name.to_lowercase().as_str() {
            "all" => (one, one_one, ssl) = (on, on, ssl && on),
            "tlsv1" | "tlsv1.0" => one = on,
            "tlsv1.1" => one_one = on,
            "sslv2" | "sslv3" => ssl = on,
            _ => {}
        }
    }
    one || one_one || ssl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_and_settings_are_read() {
        assert!(
            allows_old(" TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;") && allows_old(" all -SSLv3") && allows_old(" all -TLSv1")
        );
        assert!(
            !allows_old(" TLSv1.2 TLSv1.3;")
                && !allows_old(" all -SSLv3 -TLSv1 -TLSv1.1")
                && !allows_old(" -all +TLSv1.2")
        );
        let mut settings = Settings::new();
        read(&mut settings, "; display_errors = On\ndisplay_errors = Off ; no\nlog_errors=1\n", Path::new("php.ini"));
        read(&mut settings, "[www]\nphp_admin_flag[display_errors] = on\nenv[PATH] = /bin\n", Path::new("www.conf"));
        assert_eq!(is_on(&settings, "display_errors", false), (true, Some("www.conf".into())));
        assert!(is_on(&settings, "log_errors", false).0);
        assert_eq!(is_on(&settings, "expose_php", true), (true, None));
        assert!(!settings.contains_key("env[path]"));
    }
}
