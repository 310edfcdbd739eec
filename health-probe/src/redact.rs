//! Takes secrets out of what is shown: passwords in URLs, tokens, keys of the gateways.

/// The text, with what looks like a secret replaced by `…`.
///
/// A password in a URL; the value of a query or setting named like a secret (`password`, `token`, `secret`, `api_key`, `key`,
/// `signature`); what follows `Bearer` or `Basic`; keys that begin like those of Stripe, Paystack, Slack, Sentry and GitHub.
///
/// ```
/// # use health_probe::redact;
/// assert_eq!(redact("postgres://shop:geheim@db/shop?token=abc refused"), "postgres://shop:…@db/shop?token=… refused");
/// assert_eq!(redact("invalid key sk_live_4eC39HqLyjWDarjtT1zdp7dc."), "invalid key sk_live_….");
/// ```
pub fn redact(text: &str) -> String {
    let text = prefixed(text);
    let text = in_urls(&text);
    named(&text)
}

const PREFIXES: [&str; 16] = [
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
];

const NAMES: [&str; 9] =
    ["password", "passwd", "token", "secret", "api_key", "apikey", "access_key", "signature", "key"];

fn secret_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '+' | '=' | '.' | '~' | '%')
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
        let end = after.find(['/', '?', '#', ' ', '"', '\'', '\n']).unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
            Some((user, host)) => {
                out.push_str(user);
                out.push_str(":…@");
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = &after[end..];
    }
    out + rest
}

fn named(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    let mut at = 0;
    while at < text.len() {
        let here = &lower[at..];
        let start = at == 0 || !lower.as_bytes()[at - 1].is_ascii_alphanumeric();
        let name = NAMES.iter().find(|n| start && here.starts_with(**n));
        let value = name.and_then(|n| {
            let after = here[n.len()..].trim_start_matches(['"', '\'']);
            let after = after.strip_prefix(['=', ':'])?;
            let after = after.trim_start_matches([' ', '"', '\'']);
            Some(text.len() - after.len())
        });
        match value {
            Some(value) if length(&text[value..]) > 0 => {
                out.push_str(&text[from..value]);
                out.push('…');
                from = value + length(&text[value..]);
                at = from;
            }
            _ => at += here.chars().next().map_or(1, char::len_utf8),
        }
    }
    out + &text[from..]
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
            ("a user@example.org wrote", "a user@example.org wrote"),
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
