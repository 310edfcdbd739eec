//! Cookies: sessions and tokens.

use chrono::{DateTime, Utc};

use super::site::Site;
use crate::error::Result;
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// A cookie that a page sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cookie {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    pub(super) same_site: Option<String>,
    pub(super) path: Option<String>,
    pub(super) domain: Option<String>,
    pub(super) max_age: Option<i64>,
}

impl Cookie {
    pub(super) fn parse(header: &str, now: DateTime<Utc>) -> Option<Self> {
        let mut parts = header.split(';');
        let (name, value) = parts.next()?.split_once('=')?;
        let mut cookie = Self {
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
            secure: false,
            http_only: false,
            same_site: None,
            path: None,
            domain: None,
            max_age: None,
        };
        let mut expires = None;
        for part in parts {
            let (key, value) = part.trim().split_once('=').unwrap_or((part.trim(), ""));
            match key.to_ascii_lowercase().as_str() {
                "secure" => cookie.secure = true,
                "httponly" => cookie.http_only = true,
                "samesite" => cookie.same_site = Some(value.to_ascii_lowercase()),
                "path" => cookie.path = Some(value.to_owned()),
                "domain" => cookie.domain = Some(value.to_owned()),
                "max-age" => cookie.max_age = value.parse().ok(),
                "expires" => expires = DateTime::parse_from_rfc2822(value).ok(),
                _ => {}
            }
        }
        // Max-Age has precedence (RFC 6265, 5.3).
        cookie.max_age = cookie.max_age.or_else(|| expires.map(|at| (at.to_utc() - now).num_seconds()));
        Some(cookie)
    }

    /// Whether it stands for a customer, by the names that frameworks give to such.
    pub(super) fn is_session(&self) -> bool {
        let name = self.name.to_ascii_lowercase();
        let bare = name.trim_start_matches("__secure-").trim_start_matches("__host-");
        // Tokens against forged requests are read by scripts on purpose.
        if bare.contains("csrf") || bare.contains("xsrf") {
            return false;
        }
        ["session", "sess", "sid", "phpsessid", "auth", "token", "jwt", "remember", "login"]
            .iter()
            .any(|w| bare.contains(w))
            && self.max_age != Some(0)
    }
}

async fn cookies(site: &Site, cx: &Context) -> Result<Vec<(String, Cookie)>> {
    let mut out: Vec<(String, Cookie)> = Vec::new();
    let paths = std::iter::once("/".to_owned()).chain(site.options.pages.iter().cloned());
    for path in paths.chain(site.options.checkout.iter().cloned()) {
        let answer = match site.get(&path).await {
            Ok(answer) => answer,
            Err(e) if path == "/" => return Err(e),
            Err(_) => continue,
        };
        for header in answer.each("set-cookie") {
            if let Some(cookie) = Cookie::parse(&header, cx.now)
                && !out.iter().any(|(_, known)| known.name == cookie.name)
            {
                out.push((answer.place(), cookie));
            }
        }
    }
    Ok(out)
}

/// Session cookies are Secure, HttpOnly, SameSite, and keep to prefixes' rules.
pub(super) async fn session_cookies(site: &Site, cx: &Context) -> Result<Finding> {
    let all = cookies(site, cx).await?;
    let sessions: Vec<_> = all.iter().filter(|(_, c)| c.is_session()).collect();
    if sessions.is_empty() {
        return Ok(Finding::unknown("no session cookie is set without a log-in")
            .with_places(all.iter().map(|(at, c)| Place::new(at.clone(), None, c.name.clone()))));
    }
    let (mut places, mut grave) = (Vec::new(), false);
    for (at, cookie) in &sessions {
        let mut say = |what: &str, is_grave: bool| {
            grave |= is_grave;
            places.push(Place::new(at.clone(), None, format!("{}: {what}", cookie.name)));
        };
        if !cookie.secure {
            say("is sent without TLS, too (no Secure)", true);
        }
        if !cookie.http_only {
            say("can be read by scripts (no HttpOnly)", true);
        }
        match cookie.same_site.as_deref() {
            Some("lax" | "strict") => {}
            Some("none") => say("goes along with requests of any other site (SameSite=None)", true),
            _ => say("has no SameSite: browsers differ", false),
        }
        if cookie.domain.is_some() {
            say("goes to all subdomains (Domain)", false);
        }
        if cookie.max_age.is_some_and(|s| s > 31 * 86_400) {
            say("lasts for more than a month", false);
        }
    }
    let names = sessions.iter().map(|(_, c)| c.name.as_str()).collect::<Vec<_>>().join(", ");
    Ok(match places.len() {
        0 => Finding::pass(format!("{names}: Secure, HttpOnly, SameSite")),
        _ if grave => Finding::fail(format!("{names}: {} things are wrong", places.len())).with_places(places),
        _ => Finding::warn(format!("{names}: {} things could be better", places.len())).with_places(places),
    })
}

/// Tokens in cookies end, within a month.
pub(super) async fn token_expiry(site: &Site, cx: &Context) -> Result<Finding> {
    let (mut places, mut seen) = (Vec::new(), 0);
    for (at, cookie) in cookies(site, cx).await? {
        let Some(claims) = claims(&cookie.value) else { continue };
        seen += 1;
        match claims.get("exp").and_then(serde_json::Value::as_i64) {
            None => places.push(Place::new(at, None, format!("{}: a JWT that never expires", cookie.name))),
            Some(exp) => {
                let from = claims.get("iat").and_then(serde_json::Value::as_i64).unwrap_or(cx.now.timestamp());
                let days = (exp - from) / 86_400;
                if days > 31 {
                    places.push(Place::new(at, None, format!("{}: a JWT that lasts {days} days", cookie.name)));
                }
            }
        }
    }
    Ok(match (seen, places.len()) {
        (0, _) => Finding::not_applicable("no JWT is set without a log-in"),
        (n, 0) => Finding::pass(format!("{n} JWT expire within a month")),
        (_, n) => Finding::fail(format!("{n} JWT live too long")).with_places(places),
    })
}

/// The claims of a JWT; `None` where it is none, or is encrypted.
fn claims(value: &str) -> Option<serde_json::Value> {
    let mut parts = value.split('.');
    let (header, payload) = (parts.next()?, parts.next()?);
    parts.next()?;
    serde_json::from_slice::<serde_json::Value>(&base64url(header)?).ok()?.get("alg")?;
    serde_json::from_slice(&base64url(payload)?).ok().filter(serde_json::Value::is_object)
}

fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for b in text.trim_end_matches('=').bytes() {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_and_tokens_are_read() {
        let now = DateTime::UNIX_EPOCH;
        let cookie = Cookie::parse(
            "__Host-sid=a=b; Path=/; secure; HTTPONLY; SameSite=Lax; Expires=Thu, 01 Jan 1970 01:00:00 GMT",
            now,
        )
        .unwrap();
        assert_eq!(
            (cookie.value.as_str(), cookie.secure, cookie.http_only, cookie.max_age),
            ("a=b", true, true, Some(3600))
        );
        assert!(cookie.is_session());
        assert!(
            !Cookie::parse("csrf_token=1", now).unwrap().is_session()
                && !Cookie::parse("theme=dark", now).unwrap().is_session()
        );
        // {"alg":"HS256"} . {"sub":"1","exp":1700000000,"iat":1690000000}
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIiwiZXhwIjoxNzAwMDAwMDAwLCJpYXQiOjE2OTAwMDAwMDB9.c2ln";
        assert_eq!(claims(jwt).unwrap()["exp"], 1_700_000_000);
        assert!(claims("a.b.c").is_none() && claims("eyJhbGciOiJIUzI1NiJ9").is_none());
    }
}
