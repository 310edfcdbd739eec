//! What happens before anybody could consent.

use super::cookies::Cookie;
use super::site::Site;
use crate::error::Result;
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// Beginnings of cookies that follow people about.
const COOKIES: [&str; 14] = [
    "_ga",
    "_gid",
    "_gat",
    "_gcl_",
    "_fbp",
    "_fbc",
    "_hj",
    "_ttp",
    "_pin_",
    "_clck",
    "_clsk",
    "ajs_",
    "hubspotutk",
    "mp_",
];

/// Where scripts come from that do.
const SCRIPTS: [&str; 12] = [
    "googletagmanager.com",
    "google-analytics.com",
    "doubleclick.net",
    "connect.facebook.net",
    "static.hotjar.com",
    "clarity.ms",
    "analytics.tiktok.com",
    "snap.licdn.com",
    "js.hs-scripts.com",
    "cdn.segment.com",
    "cdn.mxpnl.com",
    "bat.bing.com",
];

/// No cookie and no script of a tracker on a first visit.
pub(super) async fn cookie_consent(site: &Site, cx: &Context) -> Result<Finding> {
    let pages = site.documents(&site.options.checkout).await?;
    let mut places = Vec::new();
    for (answer, page) in &pages {
        for cookie in answer.each("set-cookie").filter_map(|h| Cookie::parse(&h, cx.now)) {
            if COOKIES.iter().any(|c| cookie.name.starts_with(c)) {
                places.push(Place::new(answer.place(), None, format!("sets {} before consent", cookie.name)));
            }
        }
        for tag in page.tags.iter().filter(|t| matches!(t.name.as_str(), "script" | "img" | "iframe")) {
            // A script of another type does not run until a consent manager changes that.
            let runs = matches!(tag.get("type"), "" | "text/javascript" | "module" | "application/javascript");
            let from = tag.get("src");
            if let Some(tracker) = SCRIPTS.iter().find(|s| from.contains(*s)).filter(|_| runs) {
                places.push(Place::new(answer.place(), None, format!("loads {tracker} before consent")));
            }
        }
        for (script, _) in page.scripts.iter().zip(&page.runs).filter(|(_, runs)| **runs) {
            if let Some(tracker) = SCRIPTS.iter().find(|s| script.contains(*s)) {
                places.push(Place::new(answer.place(), None, format!("a script in the page loads {tracker}")));
            }
        }
    }
    places.sort();
    places.dedup();
    Ok(match places.len() {
        0 => Finding::pass(format!("nothing that follows people about on a first visit of {} pages", pages.len())),
        n => Finding::fail(format!("{n} trackers come before consent")).with_places(places),
    })
}
