//! Headers that tell a browser what to refuse.

use std::sync::Arc;

use super::site::{Answer, Site};
use crate::error::Result;
use crate::item::Context;
use crate::outcome::{Finding, Outcome, Place};

/// The headers of a page, an API, an error and a redirect, each by itself.
pub(super) async fn security_headers(site: &Site, _: &Context) -> Result<Finding> {
    let (home, _) = site.home().await?;
    let mut kinds: Vec<(&str, Arc<Answer>)> = vec![("page", home)];
    for path in &site.options.api {
        if let Ok(answer) = site.get(path).await
            && answer.status < 400
            && !answer.is_html()
        {
            kinds.push(("API", answer));
            break;
        }
    }
    kinds.push(("error", site.get("/caretaker-no-such-page").await?));
    let mut open = Vec::new();
    for path in ["/", "/admin", "/account", "/login"] {
        if let Ok(answer) = site.get(path).await
            && answer.location().is_some()
        {
            kinds.push(("redirect", answer));
            break;
        }
    }
    let mut places: Vec<(bool, Place)> = Vec::new();
    for (kind, answer) in &kinds {
        let mut miss = |grave: bool, what: String| {
            places.push((grave, Place::new(answer.place(), None, format!("{kind}: {what}"))))
        };
        let csp = answer.header("content-security-policy").unwrap_or_default().to_ascii_lowercase();
        if !answer.header("x-content-type-options").is_some_and(|v| v.to_ascii_lowercase().contains("nosniff")) {
            miss(*kind != "redirect", "X-Content-Type-Options: nosniff is missing".into());
        }
        if answer.is_html() && *kind != "redirect" {
            let frames = answer.header("x-frame-options").is_some_and(|v| {
                let v = v.trim().to_ascii_lowercase();
                v == "deny" || v == "sameorigin"
            });
            let ancestors = csp.split(';').any(|d| d.trim().starts_with("frame-ancestors") && !d.contains(" *"));
            if !frames && !ancestors {
                miss(true, "neither frame-ancestors nor X-Frame-Options keeps it out of foreign frames".into());
            }
            match answer.header("referrer-policy").map(|v| v.to_ascii_lowercase()) {
                None => miss(false, "Referrer-Policy is missing".into()),
                Some(v) if v.contains("unsafe-url") => miss(true, "Referrer-Policy: unsafe-url".into()),
                Some(_) => {}
            }
        }
        for name in ["server", "x-powered-by"] {
            if let Some(value) = answer.header(name).filter(|v| v.bytes().any(|b| b.is_ascii_digit())) {
                miss(false, format!("{name} names a version: {}", value.chars().take(60).collect::<String>()));
            }
        }
        open.push(format!("{kind} {}", answer.status));
    }
    let seen = kinds.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(", ");
    let grave = places.iter().any(|(grave, _)| *grave);
    places.sort();
    places.dedup();
    let n = places.len();
    let places = places.into_iter().map(|(_, place)| place);
    Ok(match n {
        0 => Finding::pass(format!("the headers are there ({seen})")),
        _ if grave => Finding::fail(format!("{n} headers are missing or wrong ({seen})")).with_places(places),
        _ => Finding::warn(format!("{n} headers could be better ({seen})")).with_places(places),
    })
}

/// The Content-Security-Policy of the front page, and what it is worth against scripts of others.
pub(super) async fn content_security_policy(site: &Site, _: &Context) -> Result<Finding> {
    let (home, page) = site.home().await?;
    let meta = page.all("meta").find(|m| m.get("http-equiv").eq_ignore_ascii_case("content-security-policy"));
    let policy = home.header("content-security-policy").or_else(|| meta.map(|m| m.get("content").to_owned()));
    let Some(policy) = policy else {
        let reason = match home.header("content-security-policy-report-only") {
            Some(_) => "the Content-Security-Policy only reports, and stops nothing",
            None => "there is no Content-Security-Policy",
        };
        return Ok(Finding::fail(reason).at(home.place(), None, "Content-Security-Policy"));
    };
    let (outcome, weak) = strength(&policy);
    let places = weak.iter().map(|what| Place::new(home.place(), None, *what));
    Ok(match outcome {
        Outcome::Pass => Finding::pass("the Content-Security-Policy stops scripts of others"),
        Outcome::Warn => Finding::warn(format!("the Content-Security-Policy: {}", weak.join("; "))).with_places(places),
        _ => Finding::fail(format!(
            "the Content-Security-Policy is no protection from scripts of others: {}",
            weak.join("; ")
        ))
        .with_places(places),
    })
}

/// What a policy is worth, by the rules of csp-evaluator's authors (Weichselbaum et al., "CSP Is Dead, Long Live CSP!", 2016).
fn strength(policy: &str) -> (Outcome, Vec<&'static str>) {
    let policy = policy.to_ascii_lowercase();
    let directive = |name: &str| {
        policy.split([';', ',']).find_map(|d| {
            let mut words = d.split_whitespace();
            (words.next() == Some(name)).then(|| words.map(str::to_owned).collect::<Vec<_>>())
        })
    };
    let Some(scripts) = directive("script-src").or_else(|| directive("default-src")) else {
        return (Outcome::Fail, vec!["it says nothing of scripts: neither script-src nor default-src"]);
    };
    let has = |word: &str| scripts.iter().any(|s| s == word);
    let named =
        scripts.iter().any(|s| ["'nonce-", "'sha256-", "'sha384-", "'sha512-"].iter().any(|p| s.starts_with(p)));
    let mut weak = Vec::new();
    let mut outcome = Outcome::Pass;
    // Browsers leave 'unsafe-inline' out of account where there is a nonce or a hash.
    if has("'unsafe-inline'") && !named {
        (outcome, _) = (Outcome::Fail, weak.push("'unsafe-inline' lets any script that gets into the page run"));
    }
    if !has("'strict-dynamic'") && ["*", "https:", "http:", "data:"].iter().any(|s| has(s)) {
        (outcome, _) = (Outcome::Fail, weak.push("scripts may come from anywhere"));
    }
    let lesser = |outcome: Outcome| if outcome == Outcome::Pass { Outcome::Warn } else { outcome };
    if has("'unsafe-eval'") {
        (outcome, _) = (lesser(outcome), weak.push("'unsafe-eval' turns text into code"));
    }
    let off = |name: &str| directive(name).is_some_and(|d| d == ["'none'"]);
    if !off("object-src") && !off("default-src") {
        (outcome, _) = (lesser(outcome), weak.push("object-src is not 'none'"));
    }
    if directive("base-uri").is_none() {
        (outcome, _) = (lesser(outcome), weak.push("base-uri is missing: a foreign <base> moves all relative scripts"));
    }
    (outcome, weak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_what_they_are_worth() {
        for (policy, outcome) in [
            ("default-src 'self'; object-src 'none'; base-uri 'self'", Outcome::Pass),
            (
                "default-src 'none'; script-src 'nonce-abc' 'strict-dynamic' 'unsafe-inline' https:; base-uri 'none'",
                Outcome::Pass,
            ),
            ("default-src 'self'", Outcome::Warn),
            ("script-src 'self' 'unsafe-eval'; object-src 'none'; base-uri 'self'", Outcome::Warn),
            ("default-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'", Outcome::Fail),
            ("script-src *; object-src 'none'; base-uri 'self'", Outcome::Fail),
            ("img-src 'self'", Outcome::Fail),
            ("", Outcome::Fail),
        ] {
            assert_eq!(strength(policy).0, outcome, "{policy}: {:?}", strength(policy).1);
        }
    }
}
