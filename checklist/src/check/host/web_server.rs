//! Which TLS the web server speaks, by each of its sites.

use std::path::{Path, PathBuf};

use super::Host;
use super::settings::listed;
use crate::error::{Result, file};
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// The web server speaks no TLS older than 1.2, on any of its sites.
pub(super) async fn tls_floor(host: &Host, _: &Context) -> Result<Finding> {
    let mut files = Vec::new();
    for folder in [
        "etc/nginx",
        "etc/nginx/conf.d",
        "etc/nginx/sites-enabled",
        "etc/apache2",
        "etc/apache2/conf-enabled",
        "etc/apache2/sites-enabled",
        "etc/apache2/mods-enabled",
        "etc/httpd/conf",
        "etc/httpd/conf.d",
    ] {
        files.extend(listed(&host.at(folder))?.into_iter().filter(|p| p.is_file()));
    }
    files.sort();
    if files.is_empty() {
        return Ok(Finding::not_applicable("no nginx and no Apache is set up here"));
    }
    let mut lines = Vec::new();
    for path in &files {
        read(host, path, 0, &mut lines)?;
    }
    Ok(judge(&sites(&lines)))
}

/// A line that says something, without its comment.
#[derive(Debug)]
struct Line {
    path: PathBuf,
    number: u32,
    text: String,
}

/// How deep files name files.
const DEPTH: u8 = 4;

/// The lines of a file, with those of the files that it names by their whole path in their place, as certbot has it. Those of folders are read
/// by themselves.
fn read(host: &Host, path: &Path, depth: u8, lines: &mut Vec<Line>) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|e| file(path, "cannot be read", e))?;
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let named = line.strip_prefix("include ").or_else(|| line.strip_prefix("Include "));
        if let Some(named) =
            named.map(|n| n.trim().trim_end_matches(';').trim_matches('"')).filter(|n| !n.contains('*'))
        {
            let base = if path.starts_with(host.at("etc/nginx")) { "etc/nginx" } else { "etc/apache2" };
            let at = if named.starts_with('/') { host.at(named) } else { host.at(base).join(named) };
            // What a certificate's program wrote lies elsewhere; a file that is missing would have stopped the server.
            if depth < DEPTH && at.is_file() {
                read(host, &at, depth + 1, lines)?;
            }
            continue;
        }
        if !line.is_empty() {
            lines.push(Line { path: path.to_owned(), number: at as u32 + 1, text: line.to_owned() });
        }
    }
    Ok(())
}

/// A site: where it stands, whether it speaks TLS, and what it says of versions. The first is what stands outside of all sites.
#[derive(Debug, Default)]
struct Site {
    place: Option<(PathBuf, u32)>,
    speaks: bool,
    said: Vec<(PathBuf, u32, String)>,
}

/// `server { … }` of nginx, `<VirtualHost …>` of Apache.
fn sites(lines: &[Line]) -> Vec<Site> {
    let (mut all, mut depth, mut inside) = (vec![Site::default()], 0i32, None::<i32>);
    for line in lines {
        let text = line.text.as_str();
        let opens = text.trim_end_matches('{').trim() == "server"
            || text.starts_with("server {")
            || text.starts_with("server{");
        if (opens && inside.is_none()) || text.starts_with("<VirtualHost") {
            inside = Some(depth);
            all.push(Site { place: Some((line.path.clone(), line.number)), ..Site::default() });
        }
        let site = match (inside, all.len()) {
            (Some(_), n) => &mut all[n - 1],
            (None, _) => &mut all[0],
        };
        for statement in text.split(['{', ';']).map(str::trim) {
            site.speaks |= statement.starts_with("ssl_certificate ")
                || statement.starts_with("SSLCertificateFile")
                || (statement.starts_with("listen ")
                    && statement.split_whitespace().any(|w| w == "ssl" || w == "quic"));
            let protocols = statement.strip_prefix("ssl_protocols").or_else(|| statement.strip_prefix("SSLProtocol"));
            if let Some(protocols) = protocols {
                site.said.push((line.path.clone(), line.number, protocols.trim().to_owned()));
            }
        }
        depth += text.matches('{').count() as i32 - text.matches('}').count() as i32;
        let closes =
            inside.is_some_and(|before| depth <= before && text.contains('}')) || text.starts_with("</VirtualHost");
        if closes {
            inside = None;
        }
    }
    all
}

fn judge(sites: &[Site]) -> Finding {
    let Some((global, own)) = sites.split_first() else { return Finding::unknown("nothing was read") };
    let old: Vec<Place> = sites
        .iter()
        .flat_map(|site| &site.said)
        .filter(|(.., protocols)| allows_old(protocols))
        .map(|(path, line, protocols)| {
            Place::new(path.display().to_string(), Some(*line), format!("allows {protocols}"))
        })
        .collect();
    // A certificate outside of all sites is one for all of them.
    let speaking: Vec<&Site> = own.iter().filter(|s| s.speaks || global.speaks).collect();
    let silent: Vec<Place> = speaking
        .iter()
        .filter(|site| site.said.is_empty() && global.said.is_empty())
        .filter_map(|site| site.place.as_ref())
        .map(|(path, line)| Place::new(path.display().to_string(), Some(*line), "does not say which TLS it speaks"))
        .collect();
    match (old.len(), silent.len(), speaking.len()) {
        (1.., ..) => Finding::fail(format!("{} settings allow TLS older than 1.2", old.len())).with_places(old),
        (0, 1.., _) => {
            Finding::warn("older versions of nginx and Apache allow TLS 1.0 where nothing is said").with_places(silent)
        }
        (0, 0, 0) if !global.speaks => Finding::not_applicable("the web server here speaks no TLS"),
        (0, 0, 0) if global.said.is_empty() => {
            Finding::warn("nothing says which TLS is spoken: older versions of nginx and Apache allow 1.0")
        }
        (0, 0, n) => Finding::pass(format!("TLS 1.2 at least, on {} sites", n.max(1))),
    }
}

/// `TLSv1 TLSv1.2` of nginx; `all -SSLv3 -TLSv1` of Apache, read from left to right.
fn allows_old(protocols: &str) -> bool {
    let (mut one, mut one_one, mut ssl) = (false, false, false);
    for word in protocols.split_whitespace() {
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
    use crate::outcome::Outcome;

    #[test]
    fn protocols_are_read() {
        assert!(allows_old("TLSv1 TLSv1.1 TLSv1.2 TLSv1.3") && allows_old("all -SSLv3") && allows_old("all -TLSv1"));
        assert!(!allows_old("TLSv1.2 TLSv1.3") && !allows_old("all -SSLv3 -TLSv1 -TLSv1.1"));
        assert!(!allows_old("-all +TLSv1.2"));
    }

    fn outcome(text: &str) -> Outcome {
        let lines = text.lines().enumerate().map(|(at, line)| Line {
            path: "nginx.conf".into(),
            number: at as u32 + 1,
            text: line.trim().to_owned(),
        });
        judge(&sites(&lines.collect::<Vec<_>>())).outcome
    }

    #[test]
    fn each_site_is_asked_by_itself() {
        let good = "server {\n listen 443 ssl;\n location / { root /x; }\n ssl_protocols TLSv1.2 TLSv1.3;\n}\n";
        let silent = "server {\n listen 443 ssl;\n location / {\n root /x;\n }\n}\n";
        let old = "server { listen 443 ssl; ssl_protocols TLSv1 TLSv1.2; }\n";
        let plain = "server {\n listen 80;\n return 301 https://x;\n}\n";
        assert_eq!(outcome(&format!("http {{\n{good}{plain}}}\n")), Outcome::Pass);
        assert_eq!(outcome(&format!("http {{\n{good}{silent}}}\n")), Outcome::Warn, "one site's word is not another's");
        assert_eq!(outcome(&format!("http {{\nssl_protocols TLSv1.2;\n{good}{silent}}}\n")), Outcome::Pass);
        assert_eq!(outcome(&format!("http {{\nssl_protocols TLSv1.2;\n{good}{old}}}\n")), Outcome::Fail);
        assert_eq!(outcome(plain), Outcome::NotApplicable);
        let apache = "<VirtualHost *:443>\nSSLCertificateFile /x\nSSLProtocol -all +TLSv1.2\n</VirtualHost>\n";
        assert_eq!(outcome(apache), Outcome::Pass);
        let other = "<VirtualHost *:443>\nSSLCertificateFile /x\n</VirtualHost>\n";
        assert_eq!(outcome(&format!("{apache}{other}")), Outcome::Warn);
    }
}
