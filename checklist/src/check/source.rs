//! What stands in a shop's source: secrets, unsafe sinks, forms without tokens, handlers that check nothing.

mod rules;
mod tree;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Looks;
use crate::error::Result;
use crate::item::{Check, Context, Tier};
use crate::outcome::{Finding, Place};

pub use tree::SourceTree;

use tree::Scan;

type Look = fn(Arc<SourceTree>, Context) -> BoxFuture<'static, Result<Finding>>;

/// A judgement of what was found in a tree, as a look.
macro_rules! look {
    ($judge:expr) => {
        |tree, _| async move { Ok(judged(tree.scan().await?, $judge)) }.boxed()
    };
}

/// The checks of a source tree; without one, each of them is unknown.
pub fn checks(tree: Option<Arc<SourceTree>>) -> Vec<Arc<dyn Check>> {
    let all: [(&str, &str, Look); 10] = [
        ("source.secrets", "data.api-keys", look!(|s| found(s, "secrets", "secrets in the source"))),
        (
            "source.database-credentials",
            "data.database-credentials",
            look!(|s| found(s, "database", "passwords of databases in the source")),
        ),
        ("source.sql", "input.sql-injection", look!(|s| found(s, "sql", "queries whose text is glued together"))),
        ("source.html-sinks", "input.xss", look!(|s| found(s, "html", "places that put unchecked text into HTML"))),
        ("source.uploads", "input.uploads", look!(uploads)),
        ("source.csrf", "auth.csrf", look!(csrf)),
        ("source.validation", "input.forms", look!(validation)),
        ("source.rate-limit", "input.rate-limit", look!(rate_limit)),
        ("source.token-expiry", "auth.token-expiry", look!(token_expiry)),
        ("source.file-modes", "upkeep.file-modes", look!(|s| found(s, "modes", "files that others may read or write"))),
    ];
    let one = |(id, item, look)| {
        let at = tree.clone();
        let check = Looks { id, item, tier: Tier::AuthenticatedRead, look, at, missing: "a source tree" };
        Arc::new(check) as Arc<dyn Check>
    };
    all.into_iter().map(one).collect()
}

/// A tree in which nothing was read says nothing; one that was only read in part says nothing good.
fn judged(scan: &Scan, judge: impl Fn(&Scan) -> Finding) -> Finding {
    if scan.code == 0 {
        return Finding::unknown(format!("no JavaScript, TypeScript or PHP below {}", scan.root));
    }
    let found = judge(scan);
    match scan.unread.first() {
        Some(path) if found.outcome.is_good() => Finding::unknown(format!(
            "{}, and {} files could not be read, among them {path}",
            found.reason,
            scan.unread.len()
        )),
        _ => found,
    }
}

fn found(scan: &Scan, rule: &str, what: &str) -> Finding {
    let places = scan.places(rule);
    let allowed = match scan.allowed {
        0 => String::new(),
        n => format!(" ({n} lines allowed by a comment)"),
    };
    match places.len() {
        0 => Finding::pass(format!("no {what} in {} files{allowed}", scan.files)),
        n => Finding::fail(format!("{n} {what}{allowed}")).with_places(places.iter().cloned()),
    }
}

fn csrf(scan: &Scan) -> Finding {
    match scan.seen("forms") {
        0 => Finding::not_applicable("no form that posts in the PHP of the source"),
        _ => found(scan, "csrf", "forms without a token"),
    }
}

fn uploads(scan: &Scan) -> Finding {
    match (scan.places("uploads"), scan.seen("upload-handlers")) {
        ([], 0) => Finding::not_applicable("no handler of uploads in the source"),
        ([], n) => Finding::pass(format!("{n} handlers of uploads look at size or kind")),
        (places, _) => Finding::fail(format!("{} handlers of uploads take anything", places.len()))
            .with_places(places.iter().cloned()),
    }
}

fn validation(scan: &Scan) -> Finding {
    match (scan.places("validation"), scan.seen("handlers")) {
        ([], 0) => Finding::unknown("no handler that reads a form was recognised"),
        ([], n) => Finding::pass(format!("{n} handlers validate what they read")),
        (places, n) => Finding::fail(format!("{} of {n} handlers validate nothing", places.len()))
            .with_places(places.iter().cloned()),
    }
}

fn rate_limit(scan: &Scan) -> Finding {
    match scan.seen("limiters") {
        // What stands before the shop is seen by nobody here: a person says that it does.
        0 if scan.seen("limited-elsewhere") > 0 => {
            Finding::unknown("the source says that requests are limited elsewhere, which is not visible from here")
        }
        0 => Finding::fail("no limiter of requests in the source").with_places([Place::new(
            &*scan.root,
            None,
            "no limiter; where the web server or a CDN limits, say so by a comment: caretaker-allow: rate-limit by WHOM",
        )]),
        n => Finding::pass(format!("{n} files name a limiter of requests")),
    }
}

fn token_expiry(scan: &Scan) -> Finding {
    match (scan.places("tokens"), scan.seen("signatures")) {
        ([], 0) => Finding::not_applicable("no JWT is signed in the source"),
        ([], n) => Finding::pass(format!("{n} files sign JWT, each with an expiry")),
        (places, _) => Finding::fail(format!("{} files sign JWT without an expiry", places.len()))
            .with_places(places.iter().cloned()),
    }
}
