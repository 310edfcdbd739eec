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
        rest = &rest[from..];
        match card(rest) {
            Some((length, last)) => {
                out.push('…');
                out.push_str(&last);
                rest = &rest[length..];
            }
            None => {
                let group = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                out.push_str(&rest[..group]);
                rest = &rest[group..];
            }
        }
    }
    out + rest
}

/// The length and the last four digits of a number that the text begins with, made of one or more whole groups of digits.
fn card(text: &str) -> Option<(usize, String)> {
    let (mut digits, mut at) = (Vec::new(), 0);
    loop {
        let group = text[at..].bytes().take_while(u8::is_ascii_digit).count();
        digits.extend(text[at..at + group].bytes().map(|b| b - b'0'));
        at += group;
        if group == 0 || digits.len() > 19 {
            return None;
        }
        if digits.len() >= 13 && fits_luhn(&digits) {
            let last = digits[digits.len() - 4..].iter().map(|d| char::from(d + b'0')).collect();
            return Some((at, last));
        }
        at += text[at..].bytes().next().filter(|b| matches!(b, b' ' | b'-')).map(|_| 1)?;
    }
}

fn fits_luhn(digits: &[u8]) -> bool {
    let doubled = |d: u8| if d > 4 { 2 * d - 9 } else { 2 * d };
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(i, d)| u32::from(if i % 2 == 1 { doubled(*d) } else { *d })).sum();
    sum.is_multiple_of(10)
}

/// `IDENTIFIED … BY '…'`, `PASSWORD '…'`, as databases' errors repeat statements.
fn identified(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    while let Some((begin, quote)) = lower[from..].char_indices().find_map(|(at, c)| {
        let before = lower[..from + at].trim_end();
        let word = before.ends_with("password") || (before.ends_with(" by") && before.contains("identified"));
        (matches!(c, '\'' | '"') && word && before.len() < from + at).then_some((from + at, c))
    }) {
        out.push_str(&text[from..begin]);
        out.push_str("'…'");
        // A quote in it is doubled, or has a backslash before it.
        let mut rest = text[begin + 1..].char_indices().peekable();
        let mut end = text.len();
        while let Some((at, c)) = rest.next() {
            match c {
                '\\' => drop(rest.next()),
                c if c == quote && rest.peek().is_some_and(|(_, next)| *next == quote) => drop(rest.next()),
                c if c == quote => {
                    end = begin + 1 + at + 1;
                    break;
                }
                _ => {}
            }
        }
        from = end;
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
            ("CREATE USER x IDENTIFIED BY 'geh eim' failed", "CREATE USER x IDENTIFIED BY '…' failed"),
            ("IDENTIFIED WITH mysql_native_password BY 'geh''eim' x", "IDENTIFIED WITH mysql_native_password BY '…' x"),
            ("IDENTIFIED BY PASSWORD '*A4B6' x", "IDENTIFIED BY PASSWORD '…' x"),
            ("ALTER ROLE shop PASSWORD 'geh\\'eim'", "ALTER ROLE shop PASSWORD '…'"),
            ("card 4111111111111111 12/27 declined", "card …1111 12/27 declined"),
            ("2026-11-25 4111-1111-1111-1111 refused", "2026-11-25 …1111 refused"),
            ("paid 4242 4242 4242 4242 500 NGN", "paid …4242 500 NGN"),
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
