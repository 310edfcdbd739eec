//! Where card numbers are typed.

use super::site::Site;
use crate::error::Result;
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// Providers whose scripts or frames take the card: what stands in the page, who, and how.
const PROVIDERS: [(&str, &str); 9] = [
    ("js.stripe.com", "Stripe Elements, in a frame of Stripe"),
    ("checkout.stripe.com", "Stripe Checkout, by redirect"),
    ("buy.stripe.com", "a payment link of Stripe, by redirect"),
    ("js.paystack.co", "Paystack, in a frame of Paystack"),
    ("checkout.paystack.com", "Paystack, by redirect"),
    ("login.remita.net", "Remita, by redirect or in its frame"),
    ("checkout.flutterwave.com", "Flutterwave, in a frame of Flutterwave"),
    ("paypal.com/sdk", "PayPal, in a frame of PayPal"),
    ("sdk.mercadopago.com", "Mercado Pago, in a frame of Mercado Pago"),
];

/// Cards are typed at the payment provider, never into fields of the shop's own; which kind of integration it is decides the
/// self-assessment.
pub(super) async fn payment(site: &Site, _: &Context) -> Result<Finding> {
    let pages = site.documents(&[site.options.checkout.clone(), site.options.pages.clone()].concat()).await?;
    let (mut own, mut kinds) = (Vec::new(), Vec::new());
    for (answer, page) in &pages {
        for field in page.all("input") {
            let complete = field.get("autocomplete").to_ascii_lowercase();
            let name: String = format!("{} {}", field.get("name"), field.get("id")).to_ascii_lowercase();
            let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').collect();
            let words = ["cardnumber", "ccnumber", "cardno", "creditcard", "cvv", "cvc", "securitycode", "ccnum"];
            let is_card = complete.starts_with("cc-number") || complete.starts_with("cc-csc");
            if (is_card || words.iter().any(|w| name.contains(w))) && field.get("type") != "hidden" {
                own.push(Place::new(answer.place(), None, format!("field {:?} takes a card", field.get("name"))));
            }
        }
        let text = answer.text();
        for (sign, kind) in PROVIDERS {
            if text.contains(sign) && !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    let kind = kinds.join("; ");
    Ok(match (own.len(), kinds.is_empty()) {
        (0, true) => Finding::unknown("no page on which customers pay was seen without a cart: name it"),
        (0, false) => Finding::pass(format!("cards are typed elsewhere: {kind}")).with_fact(kind),
        (n, _) => {
            Finding::fail(format!("{n} fields of the shop's own take cards: SAQ A does not fit")).with_places(own)
        }
    })
}
