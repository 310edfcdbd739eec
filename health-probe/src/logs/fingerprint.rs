//! What makes two messages the same: all that varies taken out.

/// A message with numbers, hexadecimal ids, addresses, paths and quoted values replaced, so that messages of one fault are the
/// same; a file of code and a socket stay. At most 300 characters.
///
/// ```
/// # use health_probe::logs::template;
/// let a = template("Order 4711 of 'anna@example.org' failed after 12.5 ms (id 8f14e45fceea167a)");
/// assert_eq!(a, template("Order 9 of 'bert@example.org' failed after 3 ms (id 1679091c5a880faf)"));
/// ```
pub fn template(message: &str) -> String {
    let mut out = String::with_capacity(message.len().min(300));
    let mut rest = message;
    while let Some(c) = rest.chars().next() {
        if out.len() >= 300 {
            break;
        }
        if matches!(c, '\'' | '"')
            && !out.ends_with(char::is_alphanumeric)
            && let Some(end) = rest[1..].find(c).filter(|end| *end < 200)
        {
            out.push(c);
            out.push('…');
            out.push(c);
            rest = &rest[end + 2..];
            continue;
        }
        // 1/2 is a share, and what follows the number of a port is a path.
        let named = || rest[1..].starts_with(|c: char| c.is_ascii_alphabetic());
        if c == '/' && !out.ends_with(char::is_alphanumeric) && (!out.ends_with('#') || named()) {
            let end = rest
                .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | ':' | '(' | ')' | '?'))
                .unwrap_or(rest.len());
            match rest[..end].strip_prefix("//").map(|after| after.split_once('/')) {
                // The host of a URL says what the fault is about.
                Some(split) => {
                    out.push_str("//");
                    let host = split.map_or(&rest[2..end], |(host, _)| host);
                    rest = &rest[2..];
                    if varies(host) {
                        continue;
                    }
                    out.push_str(host);
                    rest = &rest[host.len()..];
                    if let Some((host, _)) = split {
                        out.push_str("/…");
                        rest = &rest[end - 2 - host.len()..];
                    }
                }
                None => {
                    let path = &rest[..end];
                    match CODE.iter().any(|ending| path.ends_with(ending)) {
                        true => out.push_str(path),
                        false => out.push_str("/…"),
                    }
                    rest = &rest[end..];
                }
            }
            continue;
        }
        if c.is_ascii_alphanumeric() {
            let end =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '@' | '_'))).unwrap_or(rest.len());
            let word = &rest[..end];
            match varies(word) {
                true => {
                    // 12.5 and 10.0.0.1 are one number each.
                    if !(out.ends_with("#.") || out.ends_with("#:")) {
                        out.push('#');
                    } else {
                        out.pop();
                    }
                }
                false => out.push_str(word),
            }
            rest = &rest[end..];
            continue;
        }
        match c {
            c if c.is_whitespace() || c.is_control() => {
                if !out.ends_with(' ') && !out.is_empty() {
                    out.push(' ');
                }
            }
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out.truncate(out.floor_char_boundary(300));
    out.truncate(out.trim_end().len());
    out
}

/// Endings of files that are where a fault is, not what it is about.
const CODE: [&str; 10] = [".php", ".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx", ".py", ".sock", ".so"];

/// Whether a word is one of many: it has a digit and is a number, an id, an address; a name such as `utf8` or `SQLSTATE` is not.
fn varies(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    if word.contains('@') {
        return true;
    }
    let hex = word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    digits > 0 && (digits * 2 >= word.len() || hex || (word.len() >= 16 && digits >= 3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_varies_goes_and_what_does_not_stays() {
        for (message, wanted) in [
            (
                "upstream timed out (110: Connection timed out) while reading",
                "upstream timed out (#: Connection timed out) while reading",
            ),
            ("connect to 10.0.0.12:5432 failed", "connect to # failed"),
            (
                "Undefined variable $utf8 in /srv/shop/cart.php on line 12",
                "Undefined variable $utf8 in /srv/shop/cart.php on line #",
            ),
            ("job 550e8400-e29b-41d4-a716-446655440000 died", "job # died"),
            ("Table 'shop.carts' doesn't exist", "Table '…' doesn't exist"),
            ("no page at /product/red-shoes?x=1", "no page at /…?x=#"),
            ("POST https://api.stripe.com/v1/charges/ch_1 timed out", "POST https://api.stripe.com/… timed out"),
            ("GET http://10.0.0.7:8080/stock failed", "GET http://#/… failed"),
            ("connect() to unix:/run/php/php8.2-fpm.sock failed", "connect() to unix:/run/php/php8.2-fpm.sock failed"),
        ] {
            assert_eq!(template(message), wanted);
        }
    }

    proptest! {
        #[test]
        fn any_message_has_a_short_template(message in ".{0,2000}") {
            prop_assert!(template(&message).len() <= 304);
        }
    }
}
