//! Takes secrets out of what is shown: passwords in URLs, tokens, keys of the gateways.

/// The text, with what looks like a secret replaced by `…`.
///
/// A password in a URL; the value of a query or setting named like a secret (`password`, `token`, `secret`, `api_key`, `key`,
/// `signature`); what follows `Bearer` or `Basic`; keys that begin like those of Stripe, Paystack, Slack, Sentry, GitHub
/// and others, JSON web tokens, identifiers of sessions; numbers of payment cards but for the last four digits.
///
/// ```
/// # use health_probe::redact;
/// assert_eq!(redact("postgres://shop:geheim@db/shop?token=abc refused"), "postgres://shop:…@db/shop?token=… refused");
/// assert_eq!(redact("invalid key sk_live_4eC39HqLyjWDarjtT1zdp7dc."), "invalid key sk_live_….");
/// ```
pub fn redact(text: &str) -> String {
    let text = prefixed(text);
    let text = in_urls(&text);
    cards(&identified(&named(&text)))
}

const PREFIXES: [&str; 23] = [
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "rk_test_",
    "whsec_",
    "pk_live_",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "sntrys_",
    "sntryu_",
    "ghp_",
    "gho_",
    "github_pat_",
    "AKIA",
    "hooks.slack.com/services/",
    "discord.com/api/webhooks/",
    // The beginning of every JSON in base64, thus of every JWT.
    "eyJ",
    "SG.",
    "glpat-",
    "npm_",
    "AIza",
    "PHPSESSID=",
];

const TELEGRAM: &str = "api.telegram.org/bot";

/// Names whose values are secret, also as the end of a longer name: `PGPASSWORD`, `clientSecret`.
const NAMES: [&str; 8] = ["password", "passwd", "token", "secret", "apikey", "signature", "sessionid", "connect.sid"];

/// Those that are so as a word of their own, or after `_` or `-`: `api_key`, `DB_PASS`; a monkey is none.
const WORDS: [&str; 3] = ["key", "pass", "pwd"];

/// The text without secrets, cut to 500 characters.
pub(crate) fn short(text: &str) -> String {
    let whole = redact(text);
    match whole.char_indices().nth(500) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole,
    }
}

fn secret_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '+' | '=' | '.' | '~' | '%')
}

/// Numbers of payment cards: 13 to 19 digits, also in groups, whose last one fits (Luhn). The last four stay.
fn cards(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(from) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..from]);
        let joins = |c: char| c.is_ascii_digit() || matches!(c, ' ' | '-');
        let end = rest[from..].find(|c| !joins(c)).map_or(rest.len(), |n| from + n);
        let group = &rest[from..end];
        let digits: Vec<u8> = group.bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect();
        match (13..=19).contains(&digits.len()) && fits_luhn(&digits) {
            true => {
                out.push('…');
                out.extend(digits[digits.len() - 4..].iter().map(|d| char::from(d + b'0')));
                let tail = group.trim_end_matches([' ', '-']).len();
                out.push_str(&group[tail..]);
            }
            false => out.push_str(group),
        }
        rest = &rest[end..];
    }
    out + rest
}

fn fits_luhn(digits: &[u8]) -> bool {
    let doubled = |d: u8| if d > 4 { 2 * d - 9 } else { 2 * d };
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(i, d)| u32::from(if i % 2 == 1 { doubled(*d) } else { *d })).sum();
    sum.is_multiple_of(10)
}

/// `IDENTIFIED BY '…'`, as MySQL's errors repeat statements.
fn identified(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mark = "identified by ";
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    while let Some(at) = lower[from..].find(mark) {
        let begin = from + at + mark.len();
        out.push_str(&text[from..begin]);
        let rest = &text[begin..];
        let length = match rest.chars().next() {
            Some(quote @ ('\'' | '"')) => rest[1..].find(quote).map_or(rest.len(), |n| n + 2),
            _ => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        out.push('…');
        from = begin + length;
    }
    out + &text[from..]
}

/// How long the secret is that this text begins with; a full stop or a comma at its end is not part of it.
fn length(text: &str) -> usize {
    let long = text.find(|c| !secret_char(c)).unwrap_or(text.len());
    text[..long].trim_end_matches(['.', '-']).len()
}

fn prefixed(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    'all: while !rest.is_empty() {
        for prefix in PREFIXES {
            if let Some(after) = rest.strip_prefix(prefix)
                && length(after) >= 6
            {
                out.push_str(prefix);
                out.push('…');
                rest = &after[length(after)..];
                continue 'all;
            }
        }
        // A bot's number and its key, up to what it is asked to do.
        if let Some(after) = rest.strip_prefix(TELEGRAM) {
            out.push_str(TELEGRAM);
            out.push('…');
            rest = &after[after.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(after.len())..];
            continue 'all;
        }
        for scheme in ["Bearer ", "Basic ", "bearer ", "basic "] {
            if let Some(after) = rest.strip_prefix(scheme)
                && length(after) >= 6
            {
                out.push_str(scheme);
                out.push('…');
                rest = &after[length(after)..];
                continue 'all;
            }
        }
        let next = rest.chars().next().map_or(rest.len(), char::len_utf8);
        out.push_str(&rest[..next]);
        rest = &rest[next..];
    }
    out
}

fn in_urls(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let after = &rest[at + 3..];
        out.push_str(&rest[..at + 3]);
        // A password may have a slash in it, against the rules.
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(after.len());
        let address = &after[..end];
        match address.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
            Some((user, host)) => {
                out.push_str(user);
                out.push_str(":…@");
                out.push_str(host);
            }
            None => out.push_str(address),
        }
        rest = &after[end..];
    }
    out + rest
}

fn named(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let (mut out, mut from, mut at) = (String::with_capacity(text.len()), 0, 0);
    while at < text.len() {
        let here = &lower[at..];
        let word = at == 0 || !lower.as_bytes()[at - 1].is_ascii_alphanumeric();
        let names = NAMES.iter().chain(WORDS.iter().filter(|_| word));
        let found = names.filter(|n| here.starts_with(**n)).find_map(|n| value(text, at + n.len()));
        match found {
            Some((begin, end)) => {
                out.push_str(&text[from..begin]);
                out.push('…');
                (from, at) = (end, end);
            }
            None => at += here.chars().next().map_or(1, char::len_utf8),
        }
    }
    out + &text[from..]
}

/// Where the value begins and ends whose name ends at `at`: after `=` or `:`, in quotes or up to white space or a separator.
fn value(text: &str, at: usize) -> Option<(usize, usize)> {
    let after = text[at..].trim_start_matches(['"', '\'']).trim_start_matches(' ');
    let after = after.strip_prefix(['=', ':'])?.trim_start_matches(' ');
    let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
    let after = quote.map_or(after, |q| &after[q.len_utf8()..]);
    let begin = text.len() - after.len();
    let ends = |c: char| match quote {
        Some(quote) => c == quote || c == '\n',
        None => c.is_whitespace() || matches!(c, '&' | ',' | ';' | '}' | ')' | '"' | '\''),
    };
    let length = after.find(ends).unwrap_or(after.len());
    (length > 0).then_some((begin, begin + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (text, shown) in [
            ("mysql://u:p%40ss@h:3306/x", "mysql://u:…@h:3306/x"),
            ("Authorization: Bearer abcdef123456", "Authorization: Bearer …"),
            (r#"{"password":"geheim","user":"a"}"#, r#"{"password":"…","user":"a"}"#),
            ("https://hooks.slack.com/services/T000/B000/XXXX failed", "https://hooks.slack.com/services/… failed"),
            ("monkey: banana, keyboard", "monkey: banana, keyboard"),
            ("http://h/?api_key=1&x=2", "http://h/?api_key=…&x=2"),
            ("password=!geheim and PGPASSWORD=x", "password=… and PGPASSWORD=…"),
            ("DB_PASS = geh!eim clientSecret: \"$x y\"", "DB_PASS = … clientSecret: \"…\""),
            ("postgres://u:pa/ss@h refused", "postgres://u:…@h refused"),
            ("a user@example.org wrote", "a user@example.org wrote"),
            (
                "POST https://api.telegram.org/bot123456:AAHgeheimgeheim/sendMessage",
                "POST https://api.telegram.org/bot…/sendMessage",
            ),
            ("https://discord.com/api/webhooks/123/geheim-geheim failed", "https://discord.com/api/webhooks/… failed"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln refused", "jwt eyJ… refused"),
            ("Cookie: PHPSESSID=0123456789abcdef; a=b", "Cookie: PHPSESSID=…; a=b"),
            ("CREATE USER x IDENTIFIED BY 'geh eim' failed", "CREATE USER x IDENTIFIED BY … failed"),
            ("card 4111 1111 1111 1111 was declined", "card …1111 was declined"),
            ("order 4111111111111112 of 2026-11-25", "order 4111111111111112 of 2026-11-25"),
            ("SG.geheim_geheim.geheim", "SG.…"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    proptest! {
        #[test]
        fn any_text_goes_through(text in ".{0,200}") {
            let once = redact(&text);
            prop_assert_eq!(redact(&once), once.clone());
        }

        #[test]
        fn a_password_in_a_url_never_stays(password in "[a-zA-Z0-9%]{8,20}") {
            let text = format!("cannot connect to postgres://shop:{password}@db.example/shop: refused");
            prop_assert!(!redact(&text).contains(&password));
        }
    }
}
