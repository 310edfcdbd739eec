//! Administration, forms, foreign origins, pages of errors.

use reqwest::Method;

use super::html::Form;
use super::site::{Answer, Site};
use crate::error::Result;
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// The usual addresses of administrations are closed to whoever is not logged in.
pub(super) async fn admin_routes(site: &Site, _: &Context) -> Result<Finding> {
    let (home, _) = site.home().await?;
    // A shop whose every address shows the same page shows nothing by it.
    let missing = site.get("/caretaker-no-such-page").await?;
    let (mut open, mut closed, mut silent) = (Vec::new(), 0, 0);
    for path in &site.options.admin {
        let Ok(answer) = site.follow(path).await else {
            silent += 1;
            continue;
        };
        let same = |other: &Answer| answer.status == other.status && alike(&answer.body, &other.body);
        match answer.status {
            200 if same(&home) || same(&missing) => closed += 1,
            200 if answer.is_html() && answer.document().forms.iter().any(Form::has_password) => closed += 1,
            200 | 206 => {
                open.push(Place::new(answer.place(), None, format!("answers {} without a log-in", answer.status)))
            }
            // A limiter or a server out of order says nothing of log-ins.
            429 | 500.. => silent += 1,
            _ => closed += 1,
        }
    }
    Ok(match (open.len(), closed) {
        (0, n) if n <= silent => {
            Finding::unknown(format!("{silent} addresses of administrations did not answer, {n} are closed"))
        }
        (0, n) => Finding::pass(format!("{n} addresses of administrations are closed")),
        (n, _) => Finding::fail(format!("{n} addresses of administrations are open to everybody")).with_places(open),
    })
}

/// Nearly the same text: pages differ by a token or a time.
fn alike(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    long.len() - short.len() <= long.len() / 50 + 32 && {
        let same = short.iter().zip(long).filter(|(x, y)| x == y).count();
        same * 10 >= short.len() * 7
    }
}

/// Each form that posts carries a token, or a framework that compares origins.
pub(super) async fn csrf(site: &Site, _: &Context) -> Result<Finding> {
    let pages = site.documents(&[site.options.pages.clone(), site.options.checkout.clone()].concat()).await?;
    let (mut without, mut with) = (Vec::new(), 0);
    for (answer, page) in &pages {
        // Hotwire, Rails and others keep it in the head, for their scripts.
        let in_head = page
            .all("meta")
            .any(|m| m.get("name").to_ascii_lowercase().contains("csrf") && m.get("content").len() >= 16);
        for form in page.forms.iter().filter(|f| f.posts()) {
            let foreign = site.at(&form.action).is_ok_and(|to| !site.is_own(&to));
            if foreign {
                continue;
            }
            let token = form.fields.iter().any(|f| {
                let name = f.get("name").to_ascii_lowercase();
                // Next.js compares Origin and Host for its server actions.
                let action = name.starts_with("$action_");
                let token = ["csrf", "xsrf", "token", "nonce", "authenticity"].iter().any(|w| name.contains(w));
                f.get("type").eq_ignore_ascii_case("hidden") && (action || token && f.get("value").len() >= 16)
            });
            match token || in_head {
                true => with += 1,
                false => without.push(Place::new(
                    answer.place(),
                    None,
                    format!("form to {:?} carries no token", form.action.split(['?', '#']).next().unwrap_or_default()),
                )),
            }
        }
    }
    Ok(match (without.len(), with) {
        (0, 0) => Finding::unknown(format!("no form that posts on {} pages", pages.len())),
        (0, n) => Finding::pass(format!("{n} forms carry a token")),
        (n, _) => Finding::fail(format!("{n} forms carry no token")).with_places(without),
    })
}

/// Origins of others get no answer that a browser would let them read together with cookies.
pub(super) async fn cors(site: &Site, _: &Context) -> Result<Finding> {
    let host = site.base.host_str().unwrap_or_default();
    let hostile = [
        "https://caretaker-hostile.example".to_owned(),
        "null".to_owned(),
        format!("https://{host}.caretaker-hostile.example"),
        format!("https://caretaker-hostile{host}"),
        format!("http://{host}"),
    ];
    let mut bad = Vec::new();
    let (mut asked, mut silent) = (0, 0);
    for path in site.options.api.iter().map(String::as_str).chain(["/"]) {
        let url = site.at(path)?;
        let first = match site.send(Method::GET, url.clone(), &[("origin", &hostile[0])], None).await {
            Ok(answer) if path == "/" || (answer.status < 500 && answer.status != 429) => answer,
            Err(e) if path == "/" => return Err(e),
            Ok(_) | Err(_) => {
                silent += 1;
                continue;
            }
        };
        asked += 1;
        if first.header("access-control-allow-origin").is_none() && path == "/" {
            continue;
        }
        for origin in &hostile {
            let answer = site.send(Method::GET, url.clone(), &[("origin", origin)], None).await?;
            let Some(allowed) = answer.header("access-control-allow-origin") else { continue };
            let credentials = answer.header("access-control-allow-credentials").is_some_and(|v| v.trim() == "true");
            // The shop itself without TLS is foreign only to a shop with it.
            let own = *origin == hostile[4] && site.base.scheme() == "http";
            if allowed.trim() == *origin && !own {
                let with = if credentials { "together with cookies" } else { "without cookies" };
                bad.push((credentials, Place::new(answer.place(), None, format!("lets {origin} read it, {with}"))));
            }
        }
    }
    let grave = bad.iter().any(|(credentials, _)| *credentials);
    let places = bad.into_iter().map(|(_, place)| place).collect::<Vec<_>>();
    Ok(match places.len() {
        0 if silent > asked => Finding::unknown(format!(
            "{silent} addresses of the API did not answer, {asked} let no foreign origin read"
        )),
        0 => Finding::pass(format!("{asked} addresses let no foreign origin read with cookies")),
        _ if grave => Finding::fail("foreign origins read what customers see").with_places(places),
        _ => Finding::warn("any origin is echoed, though without cookies").with_places(places),
    })
}

/// What a page says that was meant for developers.
const TRACES: [&str; 14] = [
    "Stack trace:",
    "Traceback (most recent call last)",
    "Fatal error:</b>",
    "Fatal error: Uncaught",
    "<b>Warning</b>:",
    "<b>Notice</b>:",
    "Uncaught Error:",
    "Uncaught Exception:",
    "SQLSTATE[",
    "You have an error in your SQL syntax",
    "    at Object.<anonymous>",
    "node_modules/",
    "PrismaClientKnownRequestError",
    "at async ",
];

/// Pages of errors show no traces, paths or versions, and say with their status that they are errors.
pub(super) async fn error_pages(site: &Site, _: &Context) -> Result<Finding> {
    let (home, _) = site.home().await?;
    let missing = site.get("/caretaker-no-such-page").await?;
    let (mut places, mut soft, mut asked) = (Vec::new(), false, 0);
    let odd = [
        "/caretaker-no-such-page",
        "/?id[]=1",
        "/%ff",
        "/api/caretaker-no-such-page",
        "/product?id='",
        "/product.php?id='",
        "/index.php?id[]='",
    ];
    for path in odd {
        let Ok(answer) = site.get(path).await else { continue };
        asked += 1;
        let text = answer.text();
        for trace in TRACES {
            // What the front page says as well is no trace.
            if text.contains(trace) && !home.text().contains(trace) {
                places.push(Place::new(answer.place(), None, format!("shows {trace:?}")));
            }
        }
    }
    soft |= missing.status == 200;
    Ok(match places.len() {
        0 if soft => Finding::warn(
            "what is not there is answered with 200: monitors and search engines take it for a page",
        )
        .at(missing.place(), None, "status 200"),
        0 => Finding::pass(format!("{asked} odd requests show no traces")),
        n => Finding::fail(format!("{n} traces of the program are shown to everybody")).with_places(places),
    })
}
