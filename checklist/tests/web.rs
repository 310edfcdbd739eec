//! A shop as it must not be and its hardened twin, by nginx and PHP.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;

use checklist::check::web::{self, Site, SiteOptions};
use checklist::{Auditor, CheckReport, Context, Outcome, Standing, items};
use chrono::Utc;
use storefront::web::Shop;

fn site(shop: &Shop) -> Arc<Site> {
    let mut options = SiteOptions::default();
    options.http = Some(shop.http());
    options.address = Some(shop.address().ip());
    options.roots = Some(shop.root());
    Arc::new(Site::new(&shop.url(), options).unwrap())
}

async fn audit(site: Option<Arc<Site>>, staging: bool) -> BTreeMap<String, CheckReport> {
    let auditor = Auditor::new(items()).with_checks(web::checks(site)).on_staging(staging);
    let audit = auditor.run("shop", &Context::at(Utc::now()), &Standing::default()).await;
    audit.items.into_iter().flat_map(|i| i.checks).map(|c| (c.check.clone(), c)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_fails_on_the_weak_shop() {
    let shop = Shop::weak().await.unwrap();
    let found = audit(Some(site(&shop)), true).await;
    assert_eq!(found.len(), 22);
    for (check, report) in &found {
        assert_eq!(report.outcome, Outcome::Fail, "{check}: {report:#?}");
    }
    let whole = format!("{found:?}");
    assert!(!whole.contains("4eC39HqLyjWDarjtT1zdp7dc") && !whole.contains("hT5rfq9x"), "a secret is shown");
    let names: Vec<&str> = found["web.exposed-files"].places.iter().map(|p| p.at.as_str()).collect();
    assert!(
        names.iter().any(|n| n.ends_with("/.env")) && names.iter().any(|n| n.ends_with("/backup.sql")),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_passes_on_the_hardened_twin() {
    let shop = Shop::hardened().await.unwrap();
    for (check, report) in audit(Some(site(&shop)), true).await {
        assert_eq!(report.outcome, Outcome::Pass, "{check}: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_access_everything_is_unknown() {
    for (check, report) in audit(None, true).await {
        assert_eq!(report.outcome, Outcome::Unknown, "{check}");
    }
    let shop = Shop::hardened().await.unwrap();
    let gone = site(&shop);
    drop(shop);
    for (check, report) in audit(Some(gone), true).await {
        assert_eq!(report.outcome, Outcome::Unknown, "{check}: {report:#?}");
        assert!(report.evidence.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_attacked_who_is_not_staging() {
    let shop = Shop::weak().await.unwrap();
    let found = audit(Some(site(&shop)), false).await;
    for check in ["web.login-rate", "web.reflected", "web.cross-origin-post"] {
        assert_eq!(found[check].outcome, Outcome::NotApplicable);
    }
}

/// What a shop of Next.js has of its own: chunks, an API of JSON, no forms in its HTML.
#[tokio::test(flavor = "multi_thread")]
async fn a_shop_of_next_and_its_hardened_twin() {
    let checks = [
        "web.https",
        "web.hsts",
        "web.headers",
        "web.csp",
        "web.session-cookies",
        "web.admin-routes",
        "web.cors",
        "web.error-pages",
        "web.served-secrets",
        "web.payment",
    ];
    let weak = Shop::next_weak().await.unwrap();
    let found = audit(Some(site(&weak)), false).await;
    for check in checks {
        assert_eq!(found[check].outcome, Outcome::Fail, "{check}: {:#?}", found[check]);
    }
    let hardened = Shop::next_hardened().await.unwrap();
    let found = audit(Some(site(&hardened)), false).await;
    for check in checks {
        assert_eq!(found[check].outcome, Outcome::Pass, "{check}: {:#?}", found[check]);
    }
    assert_eq!(found["web.csrf"].outcome, Outcome::Unknown, "its forms are made by scripts: {:?}", found["web.csrf"]);
}

/// The checks of a site by nginx alone, with this inside its server.
async fn plain(inside: &str) -> (BTreeMap<String, CheckReport>, storefront::nginx::Server) {
    let nginx = storefront::nginx::Server::start(&format!(
        "types {{ text/html html; text/javascript js; }} server {{ listen 127.0.0.1:{{port}}; root {{here}}/public; {inside} }}"
    ))
    .await
    .unwrap();
    let public = nginx.directory().join("public");
    std::fs::create_dir_all(public.join("_next/static/chunks")).unwrap();
    let page = "<!doctype html><html><head><script src=/_next/static/chunks/main.js></script></head><body><div id=__next></div>\
                <script id=__NEXT_DATA__ type=application/json>{\"props\":{}}</script></body></html>";
    std::fs::write(public.join("index.html"), page).unwrap();
    let key = ["sk_live_", "9fK2mQ7xL4vB8nR1tW6y"].concat();
    std::fs::write(public.join("_next/static/chunks/main.js"), format!("var a=1;var k='{key}';")).unwrap();
    let mut options = SiteOptions::default();
    options.http = Some(nginx.url());
    let site = Site::new(&nginx.url(), options).unwrap();
    (audit(Some(Arc::new(site)), false).await, nginx)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_in_one_page_that_answers_everything_gives_nothing_away_by_it() {
    let (found, _nginx) = plain("location / { try_files $uri /index.html; }").await;
    assert_eq!(found["web.exposed-files"].outcome, Outcome::Pass, "{:?}", found["web.exposed-files"]);
    assert_eq!(found["web.admin-routes"].outcome, Outcome::Pass, "{:?}", found["web.admin-routes"]);
    assert_eq!(found["web.error-pages"].outcome, Outcome::Warn, "what is not there is answered with 200");
    assert_eq!(found["web.privacy-policy"].outcome, Outcome::Fail, "the front page is no policy");
    assert_eq!(found["web.terms"].outcome, Outcome::Fail);
    // A form that nobody sees says nothing of tokens.
    assert_eq!(found["web.csrf"].outcome, Outcome::Unknown);
    let chunk = &found["web.served-secrets"];
    assert_eq!((chunk.outcome, chunk.places.len()), (Outcome::Fail, 1), "{chunk:?}");
    assert!(chunk.places[0].at.ends_with("/_next/static/chunks/main.js"));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_a_location_loses_and_a_policy_that_only_reports() {
    let headers = "add_header X-Content-Type-Options nosniff always; add_header X-Frame-Options DENY always; \
                   add_header Referrer-Policy no-referrer always;";
    let csp = "add_header Content-Security-Policy-Report-Only \"default-src 'self'\" always;";
    let (found, _nginx) = plain(&format!(
        "server_tokens off; {headers} {csp} error_page 404 /404.html;
         location = /404.html {{ internal; add_header Cache-Control no-store; return 404 '<html>gone</html>'; default_type text/html; }}
         location /api/ {{ default_type application/json; add_header Access-Control-Allow-Origin *; return 200 '{{}}'; }}"
    ))
    .await;
    let lost = &found["web.headers"];
    assert_eq!(
        lost.outcome,
        Outcome::Fail,
        "a location with one add_header of its own has none of the others: {lost:?}"
    );
    assert!(
        lost.places.iter().any(|p| p.what.starts_with("API: "))
            && !lost.places.iter().any(|p| p.what.starts_with("page: ")),
        "{lost:?}"
    );
    assert_eq!(found["web.csp"].outcome, Outcome::Fail);
    assert!(found["web.csp"].reason.contains("only reports"));
    assert_eq!(found["web.cors"].outcome, Outcome::Pass, "* without cookies is fine: {:?}", found["web.cors"]);
    assert_eq!(found["web.cdn"].outcome, Outcome::NotApplicable);
    assert_eq!(found["web.payment"].outcome, Outcome::Unknown, "no page on which customers pay");
}

/// Whatever a page names that is somebody else's: nobody but the shop is asked, let alone attacked.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_shop_is_asked() {
    let foreign =
        storefront::answers::Server::start(storefront::answers::Answer::Json(200, "{}".into())).await.unwrap();
    // The same machine by another name is another host.
    let other = format!("http://localhost:{}/", foreign.address().port());
    let nginx = storefront::nginx::Server::start(&format!(
        "types {{ text/html html; }} server {{ listen 127.0.0.1:{{port}}; root {{here}}/public; \
         location = /account {{ return 302 {other}account; }} location = /api/health {{ return 302 {other}api; }} }}"
    ))
    .await
    .unwrap();
    let public = nginx.directory().join("public");
    std::fs::create_dir_all(&public).unwrap();
    let page = format!(
        "<html><head><script src='{other}x.js'></script><link rel=stylesheet href='{other}x.css'></head><body>\
         <img src='{other}x.png'><iframe src='{other}pay'></iframe><a href='{other}privacy'>Privacy policy</a>\
         <a href='{other}terms'>Terms</a><form method=post action='{other}login'><input type=password name=p></form></body></html>"
    );
    std::fs::write(public.join("index.html"), page).unwrap();
    let mut options = SiteOptions::default();
    options.http = Some(nginx.url());
    let found = audit(Some(Arc::new(Site::new(&nginx.url(), options).unwrap())), true).await;
    assert_eq!(found.len(), 22);
    assert_eq!(foreign.requests(), Vec::<String>::new());
    assert_eq!(found["web.privacy-policy"].outcome, Outcome::Fail, "somebody else's policy is none of the shop");
    assert_eq!(found["web.login-rate"].outcome, Outcome::Unknown);
}
