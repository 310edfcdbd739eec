//! HTTPS everywhere.

use reqwest::Method;
use url::Url;

use super::site::Site;
use crate::error::Result;
use crate::item::Context;
use crate::outcome::Finding;

/// Seconds of half a year.
const HALF_A_YEAR: u64 = 15_768_000;

/// HTTP leads to HTTPS on the same host in one step, or is not answered; the certificate is trusted.
pub(super) async fn https(site: &Site, _: &Context) -> Result<Finding> {
    if site.base.scheme() != "https" {
        return match site.get("/").await?.location().filter(|to| to.scheme() == "https") {
            Some(_) => Ok(Finding::unknown("the site was named without https, and leads there: name it with https")),
            None => Ok(Finding::fail("the shop answers without TLS").at(site.get("/").await?.place(), None, "HTTP")),
        };
    }
    // A certificate that is not trusted is no answer.
    let front = site.get("/").await?;
    let plain = match &site.options.http {
        Some(url) => Url::parse(url).ok(),
        None => {
            let mut url = site.base.clone();
            let changed = url.set_scheme("http").and_then(|()| url.set_port(None));
            changed.ok().map(|()| url)
        }
    };
    let Some(plain) = plain else { return Ok(Finding::unknown("the address of HTTP is none")) };
    let answer = match site.send(Method::GET, plain.clone(), &[], None).await {
        Ok(answer) => answer,
        // A timeout, a filter or a name that is none says nothing.
        Err(e) if !is_refused(&e) => {
            return Ok(Finding::unknown(format!("whether HTTP leads to HTTPS is not known: {e}")));
        }
        Err(e) => {
            return Ok(Finding::pass(format!("HTTPS is trusted, and HTTP is not answered ({e})"))
                .with_fact("http is not answered"));
        }
    };
    match answer.location() {
        Some(to) if to.scheme() == "https" && site.is_own(&to) => Ok(Finding::pass(format!(
            "HTTPS is trusted (status {}), and HTTP leads there with status {}",
            front.status, answer.status
        ))),
        Some(to) => Ok(Finding::fail("HTTP does not lead to HTTPS at once").at(
            answer.place(),
            None,
            format!("leads to {}://{}", to.scheme(), to.host_str().unwrap_or_default()),
        )),
        None => Ok(Finding::fail("HTTP is answered, and does not lead to HTTPS").at(
            answer.place(),
            None,
            format!("status {}", answer.status),
        )),
    }
}

/// Whether nobody listens there at all.
fn is_refused(e: &crate::error::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(e);
    while let Some(next) = cause {
        if next.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = next.source();
    }
    false
}

/// Strict-Transport-Security for half a year at least.
pub(super) async fn hsts(site: &Site, _: &Context) -> Result<Finding> {
    if site.base.scheme() != "https" {
        return Ok(Finding::fail("the shop answers without TLS, where the header counts for nothing"));
    }
    let answer = site.get("/").await?;
    let Some(header) = answer.header("strict-transport-security") else {
        return Ok(Finding::fail("Strict-Transport-Security is missing").at(answer.place(), None, "no header"));
    };
    let age = header.split(';').find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| value.trim_matches('"').parse::<u64>().ok())?
    });
    match age {
        Some(age) if age >= HALF_A_YEAR => Ok(Finding::pass(format!("Strict-Transport-Security: {header}"))),
        Some(age) => Ok(Finding::warn(format!("Strict-Transport-Security lasts {} days only", age / 86_400)).at(
            answer.place(),
            None,
            header,
        )),
        None => Ok(Finding::fail("Strict-Transport-Security has no max-age").at(answer.place(), None, header)),
    }
}

/// No picture, script, style, frame or form of a page goes over HTTP.
pub(super) async fn mixed_content(site: &Site, _: &Context) -> Result<Finding> {
    let pages = site.documents(&site.options.pages).await?;
    let mut found = Vec::new();
    for (answer, page) in &pages {
        for tag in &page.tags {
            let named = match tag.name.as_str() {
                "img" | "script" | "iframe" | "audio" | "video" | "source" | "embed" => tag.get("src"),
                "link" if tag.get("rel").to_ascii_lowercase().contains("stylesheet") => tag.get("href"),
                "form" => tag.get("action"),
                _ => continue,
            };
            if named.trim().to_ascii_lowercase().starts_with("http://") {
                let clear = named.split(['?', '#']).next().unwrap_or_default();
                found.push((answer.place(), format!("<{}> {clear}", tag.name)));
            }
        }
    }
    if found.is_empty() {
        return Ok(Finding::pass(format!("nothing over HTTP on {} pages", pages.len())));
    }
    let reason = format!("{} things of pages go over HTTP", found.len());
    Ok(found.into_iter().fold(Finding::fail(reason), |f, (at, what)| f.at(at, None, what)))
}
