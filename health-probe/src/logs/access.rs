//! Lines of access logs: the common and combined formats of Apache and nginx.

use std::net::IpAddr;

use chrono::{DateTime, NaiveDate, Utc};

/// A request in an access log, its parts borrowed from the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessLine<'a> {
    /// Who asked.
    pub address: &'a [u8],
    /// The user that was logged in, or `-`.
    pub user: &'a [u8],
    /// When, as it stands there: `25/Nov/2026:22:00:01 +0000`.
    pub time: &'a [u8],
    /// The method; empty where the request was none.
    pub method: &'a [u8],
    /// The path with its query; the whole request where it was none.
    pub target: &'a [u8],
    /// The status.
    pub status: u16,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Where from, or `-`; empty in the common format.
    pub referer: &'a [u8],
    /// By what, or `-`; empty in the common format.
    pub agent: &'a [u8],
}

impl<'a> AccessLine<'a> {
    /// Reads a line; `None` where it is none of that format. What follows the agent is not looked at. The name of the site may
    /// stand before the address (Apache's `vhost_combined`), or the address may be a list of those who passed the request on, of
    /// which the first counts.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (mut address, mut rest) = word(line)?;
        // The identity, which nobody sends; or the address, behind the name of the site.
        let (mut identity, mut after) = word(rest)?;
        if identity != b"-" {
            let first = |text: &'a [u8]| text.strip_suffix(b",").unwrap_or(text);
            // A name may be made of the letters of an address: `cafe.de:443`.
            let parses = |text: &[u8]| std::str::from_utf8(text).is_ok_and(|t| t.parse::<IpAddr>().is_ok());
            if !parses(first(address)) && parses(first(identity)) {
                (address, rest) = (identity, after);
                (identity, after) = word(rest)?;
            }
            let mut list = address.ends_with(b",");
            while list {
                list = identity.ends_with(b",");
                (identity, after) = word(after)?;
            }
            let _ = identity;
        }
        let address = address.strip_suffix(b",").unwrap_or(address);
        if !is_ip(address) && !is_host(address) {
            return None;
        }
        let rest = after;
        // A user may have spaces: the time begins at the bracket.
        let bracket = memchr::memchr(b'[', rest)?;
        let user = rest[..bracket].trim_ascii_end();
        let rest = &rest[bracket + 1..];
        let close = memchr::memchr(b']', rest)?;
        let (time, rest) = (&rest[..close], &rest[close + 1..]);
        let (request, rest) = quoted(rest.strip_prefix(b" ")?)?;
        let (status, rest) = word(rest.strip_prefix(b" ")?)?;
        let status: u16 = digits(status).and_then(|n| n.try_into().ok()).filter(|s| (100..1000).contains(s))?;
        let (bytes, rest) = match memchr::memchr(b' ', rest) {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, &rest[rest.len()..]),
        };
        let bytes = if bytes == b"-" { 0 } else { digits(bytes)? };
        let (referer, rest) = rest.strip_prefix(b" ").and_then(quoted).unwrap_or((b"", rest));
        let (agent, _) = rest.strip_prefix(b" ").and_then(quoted).unwrap_or((b"", rest));
        let parts = memchr::memchr(b' ', request).and_then(|at| {
            let (method, rest) = (&request[..at], &request[at + 1..]);
            let end = memchr::memrchr(b' ', rest)?;
            rest[end + 1..].starts_with(b"HTTP/").then(|| (method, &rest[..end]))
        });
        let (method, target) = parts.unwrap_or((b"", request));
        Some(Self { address, user, time, method, target, status, bytes, referer, agent })
    }

    /// The path without its query.
    pub fn path(&self) -> &'a [u8] {
        let end = self.target.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(self.target.len());
        &self.target[..end]
    }

    /// When the request was; `None` where the time is no time.
    pub fn at(&self) -> Option<DateTime<Utc>> {
        time(self.time)
    }
}

/// `25/Nov/2026:22:00:01 +0100`
fn time(text: &[u8]) -> Option<DateTime<Utc>> {
    let two = |at: usize| digits(text.get(at..at + 2)?);
    let month = match text.get(3..6)? {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    };
    let date = NaiveDate::from_ymd_opt(digits(text.get(7..11)?)? as i32, month, two(0)? as u32)?;
    let time = date.and_hms_opt(two(12)? as u32, two(15)? as u32, two(18)? as u32)?;
    let zone = text.get(21..26)?;
    let offset = (digits(&zone[1..3])? * 3600 + digits(&zone[3..5])? * 60) as i64;
    let offset = if zone[0] == b'-' { -offset } else { offset };
    Some(time.and_utc() - chrono::TimeDelta::seconds(offset))
}

/// As far as its letters tell.
fn is_ip(text: &[u8]) -> bool {
    text.len() <= 45
        && text.iter().any(|b| matches!(b, b'.' | b':'))
        && text.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b'.' | b':'))
}

/// The name of a host, or what nginx says of a socket.
fn is_host(text: &[u8]) -> bool {
    let named = text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    text == b"unix:" || (named && text.len() <= 64 && text.iter().any(u8::is_ascii_alphabetic))
}

fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', line)?;
    (at > 0).then(|| (&line[..at], &line[at + 1..]))
}

/// What stands in quotes; a quote in it is escaped.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let mut from = 0;
    loop {
        let at = from + memchr::memchr(b'"', &text[from..])?;
        let slashes = text[..at].iter().rev().take_while(|b| **b == b'\\').count();
        if slashes % 2 == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
        from = at + 1;
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_nginx_and_apache_are_read() {
        let line = br#"2001:db8::1 - anna [25/Nov/2026:22:00:01 +0100] "GET /cart?id=1 HTTP/1.1" 502 157 "https://s/\"x\"" "Mozilla/5.0" 0.5"#;
        let read = AccessLine::parse(line).unwrap();
        assert_eq!(
            (read.address, read.user, read.method, read.path()),
            (&b"2001:db8::1"[..], &b"anna"[..], &b"GET"[..], &b"/cart"[..])
        );
        assert_eq!((read.status, read.bytes, read.agent), (502, 157, &b"Mozilla/5.0"[..]));
        assert_eq!(read.at().unwrap().to_rfc3339(), "2026-11-25T21:00:01+00:00");
        let common = br#"127.0.0.1 - - [01/Jan/2026:00:00:00 -0500] "POST /login HTTP/2.0" 401 -"#;
        let read = AccessLine::parse(common).unwrap();
        assert_eq!((read.status, read.bytes, read.agent), (401, 0, &b""[..]));
        // What scanners send is no request, and a line.
        let garbage = br#"1.2.3.4 - - [01/Jan/2026:00:00:00 +0000] "\x16\x03\x01" 400 150 "-" "-""#;
        let read = AccessLine::parse(garbage).unwrap();
        assert_eq!((read.method, read.status), (&b""[..], 400));
        let request = r#"- - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 1"#;
        for (first, address) in [
            ("shop.example:443 203.0.113.7", "203.0.113.7"),
            ("shop.example 2001:db8::7", "2001:db8::7"),
            ("cafe.de:443 203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, 10.0.0.1", "203.0.113.7"),
            ("203.0.113.7, 10.0.0.1, 10.0.0.2", "203.0.113.7"),
            ("host.example", "host.example"),
            ("unix:", "unix:"),
        ] {
            let line = format!("{first} {request}");
            let read = AccessLine::parse(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((read.address, read.user, read.status), (address.as_bytes(), &b"-"[..], 200), "{line}");
        }
        // What a stranger may write into a header is no address.
        for first in ["x'\"><script>", "shop.example:443", &"9".repeat(8000), "a,b"] {
            assert_eq!(AccessLine::parse(format!("{first} {request}").as_bytes()), None, "{first}");
        }
        for bad in
            [&b""[..], b"hello", b"1.2.3.4 - - [x] \"GET / HTTP/1.1\" abc 1", b"1.2.3.4 - - [x] \"GET / HTTP/1.1"]
        {
            assert_eq!(AccessLine::parse(bad), None);
        }
    }

    proptest! {
        #[test]
        fn no_line_breaks_it(line in prop::collection::vec(any::<u8>(), 0..300)) {
            AccessLine::parse(&line);
            let framed = [b"1.1.1.1 - - [01/Jan/2026:00:00:00 +0000] \"".as_slice(), &line, b"\" 200 1"].concat();
            if let Some(read) = AccessLine::parse(&framed) {
                read.at();
            }
        }
    }
}
