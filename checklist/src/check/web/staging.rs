//! What an attacker would do, where the target is staging.

use reqwest::Method;
use url::form_urlencoded;

use super::html::Form;
use super::site::Site;
use crate::error::Result;
use crate::item::Context;
use crate::outcome::Finding;

/// Bad log-ins that are tried.
const TRIES: usize = 20;
const MARK: &str = "caretaker\"'><i>mark</i>";

/// A form with a password, and the page that it stands on.
async fn login(site: &Site) -> Result<Option<(url::Url, Form)>> {
    for (answer, page) in site.documents(&site.options.pages).await? {
        for form in page.forms {
            if form.has_password() && form.posts() {
                let to = answer.url.join(&form.action).unwrap_or_else(|_| answer.url.clone());
                // Whoever logs the shop's customers in for it is not staging.
                if !site.is_own(&to) {
                    continue;
                }
                return Ok(Some((to, form)));
            }
        }
    }
    Ok(None)
}

fn filled(form: &Form) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for field in form.fields.iter().filter(|f| !f.get("name").is_empty()) {
        let value = match field.get("type").to_ascii_lowercase().as_str() {
            "hidden" => field.get("value"),
            "password" => "caretaker-wrong-password",
            "email" => "nobody@caretaker.invalid",
            "checkbox" | "radio" | "submit" => continue,
            _ => "nobody@caretaker.invalid",
        };
        out.append_pair(field.get("name"), value);
    }
    out.finish()
}

/// Twenty bad log-ins: one of them is refused with 429, or by a server that says no more.
pub(super) async fn login_rate(site: &Site, _: &Context) -> Result<Finding> {
    let Some((to, form)) = login(site).await? else { return Ok(Finding::unknown("no form with a password was seen")) };
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    for n in 1..=TRIES {
        let answer = site.send(Method::POST, to.clone(), &headers, Some(filled(&form))).await?;
        if matches!(answer.status, 429 | 503) {
            return Ok(Finding::pass(format!("bad log-in {n} was refused with {}", answer.status)).with_fact("limited"));
        }
    }
    Ok(Finding::fail(format!("{TRIES} bad log-ins in a row, and none was refused")).at(to.path(), None, "no limit"))
}

/// A harmless mark in a query does not come back as HTML.
pub(super) async fn reflected(site: &Site, _: &Context) -> Result<Finding> {
    let mut found = Vec::new();
    let mut asked = 0;
    for (path, field) in [
        ("/", "q"),
        ("/search", "q"),
        ("/search.php", "q"),
        ("/products", "search"),
        ("/login", "error"),
        ("/login.php", "error"),
    ] {
        let mut url = site.at(path)?;
        url.query_pairs_mut().append_pair(field, MARK);
        let answer = match site.send(Method::GET, url, &[], None).await {
            Ok(answer) => answer,
            Err(e) if path == "/" => return Err(e),
            Err(_) => continue,
        };
        asked += 1;
        if answer.is_html() && answer.text().contains("><i>mark</i>") {
            found.push((answer.place(), format!("{field} comes back as HTML")));
        }
    }
    Ok(match found.len() {
        0 => Finding::pass(format!("a mark in {asked} queries did not come back as HTML")),
        _ => found
            .into_iter()
            .fold(Finding::fail("what stands in the address comes back as HTML"), |f, (at, what)| f.at(at, None, what)),
    })
}

/// A form that another site posts, without a token, is refused.
pub(super) async fn cross_origin_post(site: &Site, _: &Context) -> Result<Finding> {
    let Some((to, mut form)) = login(site).await? else {
        return Ok(Finding::unknown("no form with a password was seen"));
    };
    form.fields.retain(|f| !f.get("type").eq_ignore_ascii_case("hidden"));
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", "https://caretaker-hostile.example"),
        ("referer", "https://caretaker-hostile.example/"),
        ("sec-fetch-site", "cross-site"),
    ];
    let answer = site.send(Method::POST, to.clone(), &headers, Some(filled(&form))).await?;
    Ok(match answer.status {
        429 | 500.. => {
            Finding::unknown(format!("it was answered with {}, which says nothing of tokens", answer.status))
        }
        400 | 403 | 405 | 419 | 422 => {
            Finding::pass(format!("a form of another site is refused with {}", answer.status))
        }
        status => Finding::fail(format!("a form of another site, without a token, is taken (status {status})")).at(
            to.path(),
            None,
            "POST",
        ),
    })
}
