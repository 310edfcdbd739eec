//! What everybody can see of a shop, over HTTP.

mod browser;
mod consent;
mod cookies;
mod exposed;
mod headers;
mod html;
mod payment;
mod policies;
mod routes;
mod site;
mod staging;
mod transport;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Looks;
use crate::error::Result;
use crate::item::{Check, Context, Tier};
use crate::outcome::Finding;

pub use site::{Site, SiteOptions};

type Look = fn(Arc<Site>, Context) -> BoxFuture<'static, Result<Finding>>;

/// An asynchronous function as a look.
macro_rules! look {
    ($path:path) => {
        |site, cx| async move { $path(&site, &cx).await }.boxed()
    };
}

/// The checks of a site; without one, each of them is unknown.
pub fn checks(site: Option<Arc<Site>>) -> Vec<Arc<dyn Check>> {
    use Tier::{Passive, StagingActive};
    let all: [(&str, &str, Tier, Look); 22] = [
        ("web.https", "data.https", Passive, look!(transport::https)),
        ("web.hsts", "data.https", Passive, look!(transport::hsts)),
        ("web.mixed-content", "data.https", Passive, look!(transport::mixed_content)),
        ("web.headers", "infra.headers", Passive, look!(headers::security_headers)),
        ("web.csp", "input.xss", Passive, look!(headers::content_security_policy)),
        ("web.session-cookies", "auth.session", Passive, look!(cookies::session_cookies)),
        ("web.token-expiry", "auth.token-expiry", Passive, look!(cookies::token_expiry)),
        ("web.admin-routes", "auth.admin-routes", Passive, look!(routes::admin_routes)),
        ("web.csrf", "auth.csrf", Passive, look!(routes::csrf)),
        ("web.cors", "infra.cors", Passive, look!(routes::cors)),
        ("web.error-pages", "monitoring.errors", Passive, look!(routes::error_pages)),
        ("web.exposed-files", "data.api-keys", Passive, look!(exposed::files)),
        ("web.served-secrets", "data.api-keys", Passive, look!(exposed::secrets)),
        ("web.cdn", "infra.cdn", Passive, look!(browser::cdn)),
        ("web.payment", "compliance.pci", Passive, look!(payment::payment)),
        ("web.cookie-consent", "compliance.cookie-consent", Passive, look!(consent::cookie_consent)),
        ("web.privacy-page", "compliance.gdpr", Passive, look!(policies::privacy_page)),
        ("web.privacy-policy", "compliance.privacy-policy", Passive, look!(policies::privacy)),
        ("web.terms", "compliance.terms", Passive, look!(policies::terms)),
        ("web.login-rate", "input.rate-limit", StagingActive, look!(staging::login_rate)),
        ("web.reflected", "input.xss", StagingActive, look!(staging::reflected)),
        ("web.cross-origin-post", "auth.csrf", StagingActive, look!(staging::cross_origin_post)),
    ];
    let one = |(id, item, tier, look)| {
        let at = site.clone();
        Arc::new(Looks { id, item, tier, look, at, missing: "the address of a site" }) as Arc<dyn Check>
    };
    all.into_iter().map(one).collect()
}
