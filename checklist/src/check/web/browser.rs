//! The cache before the shop.

use super::site::Site;
use crate::error::Result;
use crate::item::Context;
use crate::outcome::Finding;

/// Headers by which networks give themselves away.
const NETWORKS: [(&str, &str); 9] = [
    ("cf-ray", "Cloudflare"),
    ("x-amz-cf-id", "CloudFront"),
    ("x-vercel-id", "Vercel"),
    ("x-served-by", "Fastly"),
    ("x-akamai-transformed", "Akamai"),
    ("x-azure-ref", "Azure Front Door"),
    ("x-nf-request-id", "Netlify"),
    ("cdn-pullzone", "bunny.net"),
    ("x-sucuri-id", "Sucuri"),
];

/// Whether a CDN answers, and whether it may keep pages that belong to one customer.
pub(super) async fn cdn(site: &Site, _: &Context) -> Result<Finding> {
    let (home, _) = site.home().await?;
    let network = NETWORKS.iter().find(|(header, _)| home.header(header).is_some()).map(|(_, name)| *name);
    let mut bad = Vec::new();
    let pages = site.documents(&[site.options.pages.clone(), site.options.checkout.clone()].concat()).await?;
    for (answer, _) in &pages {
        let cache = answer.header("cache-control").unwrap_or_default().to_ascii_lowercase();
        let shared = cache.contains("s-maxage") || cache.contains("public");
        let kept_back = ["private", "no-store", "no-cache"].iter().any(|w| cache.contains(w));
        if answer.header("set-cookie").is_some() && shared && !kept_back {
            bad.push((answer.place(), format!("sets a cookie, and may be kept for everybody: {cache}")));
        }
    }
    if !bad.is_empty() {
        let found = Finding::fail("pages of one customer may be given to another");
        return Ok(bad.into_iter().fold(found, |f, (at, what)| f.at(at, None, what)));
    }
    Ok(match network {
        Some(name) => {
            Finding::pass(format!("{name} answers, and no page that sets a cookie may be kept for all")).with_fact(name)
        }
        None => Finding::not_applicable("no CDN gives itself away"),
    })
}
