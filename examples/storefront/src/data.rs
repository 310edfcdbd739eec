//! The rows of the shop, as SQL text.

use std::fmt::Write;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{Facts, NOW, Size};

const DAY: i64 = 86_400;
/// Rows in one INSERT statement.
const BATCH: usize = 400;

const FIRST: [&str; 24] = [
    "Amara", "Ben", "Chidi", "Dija", "Elena", "Farid", "Grace", "Hana", "Ines", "Jonas", "Kemi", "Lars", "Maja",
    "Nneka", "Olu", "Petra", "Quentin", "Rosa", "Søren", "Tunde", "Uche", "Vera", "Wanjiru", "Zoë",
];
const LAST: [&str; 20] = [
    "Adeyemi", "Bauer", "Costa", "D'Angelo", "Eze", "Fischer", "García", "Hansen", "Ibrahim", "Jansen", "Kowalski",
    "Lopez", "Müller", "Nwosu", "O'Brien", "Popescu", "Rossi", "Schmidt", "Taylor", "Yılmaz",
];
const STREETS: [&str; 10] = [
    "Allen Avenue",
    "Broad Street",
    "Church Road",
    "Dock Lane",
    "Elm Street",
    "Harbour Way",
    "King's Parade",
    "Market Square",
    "Rue de la Paix",
    "Schloßallee",
];
const CITIES: [(&str, &str); 8] = [
    ("Lagos", "NG"),
    ("London", "GB"),
    ("Berlin", "DE"),
    ("Paris", "FR"),
    ("Abuja", "NG"),
    ("Leeds", "GB"),
    ("Wien", "AT"),
    ("Porto", "PT"),
];
const ADJECTIVES: [&str; 16] = [
    "Golden", "Silver", "Handmade", "Vintage", "Slim", "Woven", "Beaded", "Classic", "Bold", "Delicate", "Royal",
    "Coral", "Ivory", "Emerald", "Midnight", "Sunset",
];
const NOUNS: [&str; 16] = [
    "necklace",
    "bracelet",
    "ring",
    "earrings",
    "anklet",
    "brooch",
    "scarf",
    "clutch",
    "belt",
    "hairpin",
    "watch",
    "purse",
    "bangle",
    "choker",
    "cufflinks",
    "pendant",
];
const WORDS: [&str; 40] = [
    "soft",
    "made",
    "with",
    "care",
    "from",
    "recycled",
    "brass",
    "and",
    "glass",
    "beads",
    "in",
    "our",
    "own",
    "workshop",
    "light",
    "enough",
    "for",
    "every",
    "day",
    "a",
    "gift",
    "that",
    "lasts",
    "comes",
    "its",
    "box",
    "adjustable",
    "clasp",
    "nickel",
    "free",
    "polished",
    "by",
    "hand",
    "inspired",
    "coastal",
    "colours",
    "wear",
    "it",
    "alone",
    "layered",
];
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_2 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/131.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.2 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
];

/// Batches of `INSERT INTO table(columns) VALUES …;`, handed on as they fill up.
struct Rows<'a> {
    head: &'static str,
    text: String,
    rows: usize,
    emit: &'a mut dyn FnMut(String),
}

impl<'a> Rows<'a> {
    fn new(head: &'static str, emit: &'a mut dyn FnMut(String)) -> Self {
        Self { head, text: String::new(), rows: 0, emit }
    }

    fn add(&mut self, values: std::fmt::Arguments<'_>) {
        self.text.push_str(if self.rows == 0 { "INSERT INTO " } else { ",\n(" });
        if self.rows == 0 {
            self.text.push_str(self.head);
            self.text.push_str(" VALUES\n(");
        }
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(values);
        self.text.push(')');
        self.rows += 1;
        if self.rows == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.rows > 0 {
            self.text.push(';');
            (self.emit)(std::mem::take(&mut self.text));
            self.rows = 0;
        }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What `make` emits, made by a thread as it is taken: the statements of a large shop are some hundred MiB.
pub(crate) fn statements<T: Send + 'static>(
    make: impl FnOnce(&mut dyn FnMut(String)) -> T + Send + 'static,
) -> (mpsc::Receiver<String>, JoinHandle<T>) {
    let (send, statements) = mpsc::channel(4);
    let made = tokio::task::spawn_blocking(move || {
        make(&mut |sql| {
            // If nobody takes them the database failed, and says so.
            let _ = send.blocking_send(sql);
        })
    });
    (statements, made)
}

/// Everything in a new shop, in an order that keeps its references; returns what is wrong with it.
pub(crate) fn shop(size: Size, seed: u64, emit: &mut dyn FnMut(String)) -> Facts {
    let mut rng = Rng::with_seed(seed);
    let mut facts = Facts { orders: size.order_count(), ..Facts::default() };
    people(size, &mut rng, emit);
    catalogue(size, &mut rng, &mut facts, emit);
    orders(1, size.order_count(), size, &mut rng, &mut facts, emit);
    // Items whose order is gone, as an old clean-up script leaves them.
    facts.orphaned_items = size.order_count() / 1000 + 3;
    let mut rows = Rows::new("order_items(order_id, variant_id, title, quantity, unit_price)", emit);
    for n in 0..facts.orphaned_items {
        rows.add(format_args!("{}, 1, 'Left over', 1, 9.99", 900_000_000 + n));
    }
    drop(rows);
    visits(size, &mut rng, &mut facts, emit);
    facts
}

/// A day of trading on top of a shop of `size`: 1 % new orders, the newest 1 % shipped, the stock of 100 variants moved.
pub(crate) fn day(size: Size, seed: u64, emit: &mut dyn FnMut(String)) {
    let mut rng = Rng::with_seed(seed ^ 0xda1);
    let count = size.order_count();
    let new = (count / 100).max(1);
    let mut facts = Facts::default();
    emit(format!(
        "UPDATE orders SET status = 'shipped', shipped_at = '{}' WHERE id > {} AND status = 'paid';",
        time(NOW),
        count - new
    ));
    orders(count + 1, new, size, &mut rng, &mut facts, emit);
    let variants = size.products() * 3;
    for _ in 0..100 {
        emit(format!("UPDATE variants SET stock = stock + {} WHERE id = {};", rng.u64(1..9), rng.u64(1..=variants)));
    }
}

/// Scattered updates: one in `every` orders gets a new note, wherever it is.
pub(crate) fn scattered(size: Size, seed: u64, every: u64, emit: &mut dyn FnMut(String)) {
    let mut rng = Rng::with_seed(seed ^ 0x5ca7);
    for id in 1..=size.order_count() {
        if rng.u64(0..every) == 0 {
            emit(format!("UPDATE orders SET note = 'seen {}' WHERE id = {id};", rng.u32(..)));
        }
    }
}

fn people(size: Size, rng: &mut Rng, emit: &mut dyn FnMut(String)) {
    let mut rows = Rows::new(
        "customers(id, email, name, phone, password_hash, marketing_consent, birthday, created_at, note)",
        emit,
    );
    for id in 1..=size.customers() {
        let (first, last) = (pick(rng, &FIRST), pick(rng, &LAST));
        let phone = match rng.u8(0..3) {
            0 => "NULL".to_owned(),
            1 => "''".to_owned(),
            _ => format!("'+44 7{:09}'", rng.u32(0..999_999_999)),
        };
        let note = if rng.u8(0..40) == 0 {
            format!("'Prefers {}.\nCall first: it''s complicated 🎁'", sentence(rng, 3))
        } else {
            "NULL".into()
        };
        rows.add(format_args!(
            "{id}, '{}.{}{id}@example.com', '{first} {}', {phone}, '$2y$12${:022x}{:031x}', {}, {}, '{}', {note}",
            ascii(first),
            ascii(last),
            quoted(last),
            rng.u64(..),
            rng.u128(..) >> 8,
            u8::from(rng.bool()),
            if rng.bool() { format!("'{}'", date(rng.i64(-200_000_000..1_100_000_000))) } else { "NULL".into() },
            time(NOW - rng.i64(0..900) * DAY - rng.i64(0..DAY)),
        ));
    }
    drop(rows);
    let mut rows = Rows::new("addresses(customer_id, kind, street, city, postcode, country)", emit);
    for id in 1..=size.customers() {
        let (city, country) = CITIES[rng.usize(0..CITIES.len())];
        let street = pick(rng, &STREETS);
        rows.add(format_args!(
            "{id}, 'shipping', '{} {}', '{city}', '{:05}', '{country}'",
            rng.u8(1..200),
            quoted(street),
            rng.u32(0..99_999)
        ));
    }
    drop(rows);
    let mut rows = Rows::new("admin_users(username, email, password_hash, role, last_login_at, two_factor)", emit);
    rows.add(format_args!(
        "'dija', 'dija@example.com', '$2y$12$abcdefghijklmnopqrstuvabcdefghijklmnopqrstuvwxyz01234', 'owner', '{}', 1",
        time(NOW - 3600)
    ));
    rows.add(format_args!("'support', 'support@example.com', '$2y$12$abcdefghijklmnopqrstuvzyxwvutsrqponmlkjihgfedcba43210', 'editor', '{}', 0", time(NOW - 90 * DAY)));
    rows.add(format_args!("'old-agency', 'agency@example.com', '5f4dcc3b5aa765d61d8327deb882cf99', 'admin', NULL, 0"));
}

fn catalogue(size: Size, rng: &mut Rng, facts: &mut Facts, emit: &mut dyn FnMut(String)) {
    let mut rows = Rows::new(
        "products(id, slug, title, description, category, weight_kg, meta_description, active, created_at)",
        emit,
    );
    for id in 1..=size.products() {
        let (adjective, noun) = (pick(rng, &ADJECTIVES), pick(rng, &NOUNS));
        let words = rng.usize(20..60);
        rows.add(format_args!(
            "{id}, '{}-{noun}-{id}', '{adjective} {noun}', '{}', '{noun}s', {:.3}, {}, {}, '{}'",
            adjective.to_lowercase(),
            sentence(rng, words),
            rng.f64() * 2.0,
            if rng.u8(0..10) == 0 { "NULL".into() } else { format!("'{}'", sentence(rng, 12)) },
            u8::from(rng.u8(0..20) > 0),
            time(NOW - rng.i64(0..1000) * DAY),
        ));
    }
    drop(rows);
    let mut rows = Rows::new("variants(id, product_id, sku, option, price_net, stock, low_stock_threshold)", emit);
    for id in 1..=size.products() * 3 {
        let low = rng.u8(0..12) == 0;
        facts.low_stock += u64::from(low);
        let stock = if low { rng.u32(0..5) } else { rng.u32(5..400) };
        rows.add(format_args!(
            "{id}, {}, 'SKU-{id:06}', '{}', {}.{:02}, {stock}, 5",
            (id - 1) / 3 + 1,
            ["small", "medium", "large"][(id % 3) as usize],
            rng.u32(4..250),
            rng.u8(0..100),
        ));
    }
    drop(rows);
    let mut rows = Rows::new("testimonials(customer_id, product_id, stars, text, status, created_at)", emit);
    for n in 0..size.products() / 2 {
        let status = if n % 7 == 0 { "pending" } else { "approved" };
        let words = rng.usize(6..25);
        rows.add(format_args!(
            "{}, {}, {}, '{}', '{status}', '{}'",
            rng.u64(1..=size.customers()),
            rng.u64(1..=size.products()),
            rng.u8(1..6),
            sentence(rng, words),
            time(NOW - rng.i64(0..300) * DAY)
        ));
    }
    drop(rows);
    let mut rows = Rows::new("banners(title, image, position, starts_at, ends_at)", emit);
    rows.add(format_args!(
        "'New Year sale', 'banners/new-year.jpg', 1, '{}', '{}'",
        time(NOW - 20 * DAY),
        time(NOW - 5 * DAY)
    ));
    rows.add(format_args!("'Valentine''s preview', 'banners/valentine.jpg', 1, '{}', NULL", time(NOW - 2 * DAY)));
}

fn orders(from: u64, count: u64, size: Size, rng: &mut Rng, facts: &mut Facts, emit: &mut dyn FnMut(String)) {
    let at = |id: u64| {
        // The newest order of a new shop is an hour old; a later day's orders follow.
        let age = size.order_count() as i64 - id as i64;
        NOW - 3600 - age * 400
    };
    let states: Vec<u8> = (0..count).map(|_| rng.u8(0..100)).collect();
    let mut rows =
        Rows::new("orders(id, number, customer_id, status, currency, shipping, placed_at, shipped_at, ip, note)", emit);
    for (n, state) in states.iter().enumerate() {
        let id = from + n as u64;
        let status = match state {
            0..=2 => "cancelled",
            3..=4 => "pending",
            5..=12 => "paid",
            _ => "shipped",
        };
        let shipped =
            if status == "shipped" { format!("'{}'", time(at(id) + rng.i64(3600..3 * DAY))) } else { "NULL".into() };
        let note = if rng.u8(0..30) == 0 { format!("'{}'", sentence(rng, 8)) } else { "NULL".into() };
        rows.add(format_args!(
            "{id}, 'DA-{id:08}', {}, '{status}', 'GBP', {}, '{}', {shipped}, '10.{}.{}.{}', {note}",
            rng.u64(1..=size.customers()),
            ["0", "3.95", "7.5"][rng.usize(0..3)],
            time(at(id)),
            rng.u8(..),
            rng.u8(..),
            rng.u8(..),
        ));
    }
    drop(rows);
    let mut rows = Rows::new("order_items(order_id, variant_id, title, quantity, unit_price)", emit);
    for n in 0..count {
        for _ in 0..1 + rng.u8(0..100) / 45 {
            let (adjective, noun) = (pick(rng, &ADJECTIVES), pick(rng, &NOUNS));
            rows.add(format_args!(
                "{}, {}, '{adjective} {noun}', {}, {}.{:02}",
                from + n,
                rng.u64(1..=size.products() * 3),
                rng.u8(1..4),
                rng.u32(4..250),
                rng.u8(0..100)
            ));
        }
    }
    drop(rows);
    let mut rows =
        Rows::new("payments(order_id, gateway, reference, amount, status, test_mode, payload, created_at)", emit);
    for (n, state) in states.iter().enumerate() {
        let id = from + n as u64;
        let attempts = 1 + u8::from(rng.u8(0..50) == 0);
        for attempt in 1..=attempts {
            let failed = attempt < attempts || *state == 0;
            facts.failed_payments += u64::from(failed);
            let status = if failed {
                "failed"
            } else if *state < 5 {
                "pending"
            } else {
                "succeeded"
            };
            let gateway = ["stripe", "paystack", "remita"][rng.usize(0..3)];
            rows.add(format_args!(
                "{id}, '{gateway}', 'pi_{:024x}', {}.{:02}, '{status}', 0, '{{\"attempt\":{attempt},\"card\":{{\"brand\":\"{}\",\"last4\":\"{:04}\"}},\"risk\":{}}}', '{}'",
                rng.u128(..) >> 32, rng.u32(5..400), rng.u8(0..100), ["visa", "mastercard", "verve"][rng.usize(0..3)], rng.u16(0..9999), rng.u8(0..100), time(at(id) + 30),
            ));
        }
    }
    drop(rows);
    let mut rows = Rows::new("email_log(order_id, recipient, template, subject, status, sent_at)", emit);
    for n in 0..count {
        let id = from + n;
        let status = if rng.u8(0..60) == 0 { "bounced" } else { "sent" };
        rows.add(format_args!("{id}, 'customer{}@example.com', 'order-confirmation', 'Your order DA-{id:08} is confirmed', '{status}', '{}'", rng.u64(1..=size.customers()), time(at(id) + 45)));
    }
    drop(rows);
    let mut rows = Rows::new("webhook_receipts(gateway, event_id, event, body, signature_valid, received_at)", emit);
    for n in 0..count / 2 {
        let id = from + n;
        rows.add(format_args!(
            "'stripe', 'evt_{:020x}', 'payment_intent.succeeded', X'{:064x}', 1, '{}'",
            rng.u128(..) >> 48,
            rng.u128(..),
            time(at(id) + 40)
        ));
    }
}

fn visits(size: Size, rng: &mut Rng, facts: &mut Facts, emit: &mut dyn FnMut(String)) {
    let mut rows = Rows::new("sessions(id, customer_id, user_agent, data, created_at, last_used_at)", emit);
    for n in 0..size.order_count() / 3 + 20 {
        let age = if n % 5 == 0 { rng.i64(31..200) } else { rng.i64(0..29) };
        facts.old_sessions += u64::from(age > 30);
        let customer = if rng.bool() { rng.u64(1..=size.customers()).to_string() } else { "NULL".into() };
        rows.add(format_args!(
            "'{:032x}', {customer}, '{}', '{{\"csrf\":\"{:032x}\",\"locale\":\"en-GB\"}}', '{}', '{}'",
            rng.u128(..),
            pick(rng, &AGENTS),
            rng.u128(..),
            time(NOW - (age + 1) * DAY),
            time(NOW - age * DAY)
        ));
    }
    drop(rows);
    let carts = size.order_count() / 10 + 10;
    let mut rows = Rows::new("carts(id, customer_id, email, status, updated_at)", emit);
    let mut filled = Vec::new();
    for id in 1..=carts {
        let abandoned = id % 3 == 0;
        facts.abandoned_carts += u64::from(abandoned);
        let (status, age) = if abandoned {
            ("open", rng.i64(2..30))
        } else if id % 3 == 1 {
            ("ordered", rng.i64(0..60))
        } else {
            ("open", 0)
        };
        filled.push(abandoned || id % 2 == 0);
        rows.add(format_args!(
            "{id}, {}, 'customer{id}@example.com', '{status}', '{}'",
            rng.u64(1..=size.customers()),
            time(NOW - age * DAY - 60)
        ));
    }
    drop(rows);
    let mut rows = Rows::new("cart_items(cart_id, variant_id, quantity)", emit);
    for (n, filled) in filled.iter().enumerate() {
        if *filled {
            rows.add(format_args!("{}, {}, {}", n + 1, rng.u64(1..=size.products() * 3), rng.u8(1..4)));
        }
    }
    drop(rows);
    let mut rows = Rows::new("settings(name, value)", emit);
    rows.add(format_args!("'shop.name', 'Accessories by Dija'"));
    rows.add(format_args!("'shop.currency', 'GBP'"));
    rows.add(format_args!("'tax.rate', '0.2'"));
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(0..from.len())]
}

fn sentence(rng: &mut Rng, words: usize) -> String {
    let mut text = String::new();
    for n in 0..words {
        if n > 0 {
            text.push(' ');
        }
        text.push_str(pick(rng, &WORDS));
    }
    text
}

fn quoted(text: &str) -> String {
    text.replace('\'', "''")
}

fn ascii(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_lowercase()
}

fn date(seconds: i64) -> String {
    time(seconds)[..10].to_owned()
}

/// `YYYY-MM-DD HH:MM:SS` in UTC, from seconds since 1970 (days to civil date: Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
fn time(seconds: i64) -> String {
    let days = seconds.div_euclid(DAY);
    let rest = seconds.rem_euclid(DAY);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_right() {
        assert_eq!(time(NOW), "2026-01-15 12:00:00");
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(time(-1), "1969-12-31 23:59:59");
    }

    #[test]
    fn the_same_seed_gives_the_same_shop() {
        let text = |seed| {
            let mut all = String::new();
            let facts = shop(Size::orders(50), seed, &mut |s| all.push_str(&s));
            (all, facts)
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1).0, text(2).0);
        let facts = text(1).1;
        assert!(
            facts.old_sessions > 0 && facts.low_stock > 0 && facts.abandoned_carts > 0 && facts.failed_payments > 0
        );
    }
}
