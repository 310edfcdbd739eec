//! Privacy policy and terms: there, dated, and the same text that somebody looked at.

use std::sync::Arc;

use chrono::{Datelike, NaiveDate};
use sha2::{Digest, Sha256};

use super::html::Document;
use super::site::{Answer, Site};
use crate::error::Result;
use crate::item::Context;
use crate::outcome::Finding;

const PRIVACY: [&str; 5] = ["privacy", "datenschutz", "confidentialit", "privacidad", "gdpr"];
const TERMS: [&str; 6] = ["terms", "conditions", "agb", "cgv", "t&c", "nutzungsbedingungen"];

/// The privacy policy.
pub(super) async fn privacy(site: &Site, cx: &Context) -> Result<Finding> {
    let page = find(site, &PRIVACY, &["/privacy", "/privacy-policy", "/privacy.php", "/legal/privacy"]).await?;
    Ok(judge(page, "a privacy policy", cx))
}

/// The terms of service.
pub(super) async fn terms(site: &Site, cx: &Context) -> Result<Finding> {
    let page = find(site, &TERMS, &["/terms", "/terms-of-service", "/terms.php", "/legal/terms"]).await?;
    Ok(judge(page, "terms of service", cx))
}

/// Whether there is a privacy policy at all, and it names the rights that people have.
pub(super) async fn privacy_page(site: &Site, _: &Context) -> Result<Finding> {
    let page = find(site, &PRIVACY, &["/privacy", "/privacy-policy", "/privacy.php", "/legal/privacy"]).await?;
    let Some((answer, page)) = page else {
        return Ok(Finding::fail("no privacy policy is linked from the front page or at its usual addresses"));
    };
    let text = page.words().to_lowercase();
    let rights =
        ["erasure", "delete", "access", "rectif", "portab", "complaint", "löschung", "auskunft", "suppression"];
    match rights.iter().filter(|r| text.contains(*r)).count() {
        0..2 => Ok(Finding::warn("the privacy policy does not name the rights that people have").at(
            answer.place(),
            None,
            "Art. 13(2)(b)",
        )),
        _ => Ok(Finding::pass("the privacy policy names the rights that people have")),
    }
}

async fn find(site: &Site, words: &[&str], usual: &[&str]) -> Result<Option<(Arc<Answer>, Document)>> {
    let (_, home) = site.home().await?;
    let linked = home.links.iter().filter(|(to, text)| {
        let (to, text) = (to.to_lowercase(), text.to_lowercase());
        words.iter().any(|w| text.contains(w) || to.split(['/', '.', '-', '_']).any(|part| part.starts_with(w)))
    });
    let linked: Vec<String> = linked.map(|(to, _)| to.clone()).collect();
    for path in linked.iter().map(String::as_str).chain(usual.iter().copied()) {
        // What somebody else says of privacy is no policy of the shop, and nobody else is asked.
        if !site.at(path).is_ok_and(|url| site.is_own(&url)) {
            continue;
        }
        let Ok(answer) = site.follow(path).await else { continue };
        // A shop that answers everything with its front page has no policy there.
        let page = answer.document();
        let text = page.words().to_lowercase();
        if answer.status == 200 && text != home.words().to_lowercase() && words.iter().any(|w| text.contains(w)) {
            return Ok(Some((answer, page)));
        }
    }
    Ok(None)
}

fn judge(page: Option<(Arc<Answer>, Document)>, what: &str, cx: &Context) -> Finding {
    let Some((answer, page)) = page else {
        return Finding::fail(format!("{what}: not linked from the front page, nor at the usual addresses"));
    };
    let words = page.words();
    // A cart in the head of the page, or a year at its foot, is no change of the policy.
    let body = page.body.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = if body.split(' ').count() >= 100 { &body } else { &words };
    let fact = hex::encode(Sha256::digest(text.as_bytes()));
    let count = words.split(' ').count();
    let today = cx.now.date_naive();
    let found = match newest_date(&words, today) {
        _ if count < 100 => Finding::warn(format!("{what}: only {count} words")),
        None => Finding::warn(format!("{what}: no date of its last change")),
        Some(date) if (today - date).num_days() > 366 => {
            Finding::warn(format!("{what}: last changed on {date}, more than a year ago"))
        }
        Some(date) => return Finding::pass(format!("{what}: last changed on {date}, {count} words")).with_fact(fact),
    };
    found.at(answer.place(), None, what).with_fact(fact)
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The newest date in a text that is not in the future: `2026-03-12`, `12 March 2026`, `March 12, 2026`, `12.03.2026`.
fn newest_date(text: &str, today: NaiveDate) -> Option<NaiveDate> {
    let clean = text.replace([',', '(', ')', ':'], " ");
    let words: Vec<&str> = clean.split_whitespace().collect();
    let month = |word: &str| {
        let word = word.to_lowercase();
        MONTHS.iter().position(|m| word.starts_with(m) && word.len() >= 3).map(|at| at as u32 + 1)
    };
    let day = |word: &str| word.trim_end_matches(|c: char| c.is_alphabetic() || c == '.').parse::<u32>().ok();
    let year = |word: &str| word.trim_end_matches('.').parse::<i32>().ok().filter(|y| (1990..2200).contains(y));
    let three = words.windows(3).filter_map(|w| {
        let (y, a, b) = (year(w[2])?, month(w[0]), month(w[1]));
        match (a, b) {
            (Some(m), _) if day(w[1]).is_some() => NaiveDate::from_ymd_opt(y, m, day(w[1])?),
            (_, Some(m)) => NaiveDate::from_ymd_opt(y, m, day(w[0])?),
            _ => None,
        }
    });
    let one = words.iter().filter_map(|w| {
        let w = w.trim_end_matches('.');
        NaiveDate::parse_from_str(w, "%Y-%m-%d").or_else(|_| NaiveDate::parse_from_str(w, "%d.%m.%Y")).ok()
    });
    three.chain(one).filter(|date| *date <= today && date.year() >= 1990).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_policy_is_no_part_of_it() {
        let fact = |cart: &str, text: &str| {
            let html = format!("<body><header>{cart}</header><main>{}</main></body>", text.repeat(120));
            let answer = Answer {
                url: "https://shop.example/privacy".parse().unwrap(),
                status: 200,
                headers: Default::default(),
                body: Vec::new(),
                is_cut: false,
            };
            judge(
                Some((Arc::new(answer), Document::parse(&html))),
                "a privacy policy",
                &Context::at(chrono::Utc::now()),
            )
            .fact
        };
        assert_eq!(fact("1 lamp", "we keep "), fact("2 lamps", "we keep "));
        assert_ne!(fact("1 lamp", "we keep "), fact("1 lamp", "we sell "));
    }

    #[test]
    fn dates_are_found() {
        let day = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).unwrap();
        let today = day(2026, 11, 26);
        for (text, date) in [
            ("Last updated: 12 March 2026. More", Some(day(2026, 3, 12))),
            ("Effective March 12th, 2026 and", Some(day(2026, 3, 12))),
            ("Stand: 12.03.2026", Some(day(2026, 3, 12))),
            ("from 2025-01-02 to 2026-01-02", Some(day(2026, 1, 2))),
            ("since 1 January 2030", None),
            ("© 2026 Shop", None),
        ] {
            assert_eq!(newest_date(text, today), date, "{text}");
        }
    }
}
