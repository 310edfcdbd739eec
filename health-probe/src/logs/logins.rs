//! Log-ins that failed: by account, address and subnet.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::message::{LineTime, time_of};
use super::top::Top;

/// Log-ins that failed in the last two hours, to five minutes; bounded, whatever an attack looks like.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailedLogins {
    spans: BTreeMap<i64, Span>,
    /// By address, since the beginning.
    pub addresses: Top,
    /// By account, since the beginning; as [`masked`] shows it.
    pub accounts: Top,
}

/// Five minutes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Span {
    all: u32,
    /// Of them, those that name an account, and those that name an address.
    #[serde(default)]
    named: (u32, u32),
    addresses: HashMap<String, u32>,
    accounts: HashMap<String, u32>,
}

const SPAN_SECONDS: i64 = 300;
const SPANS: usize = 24;
/// Different ones in a span: an attack from more shows in the total.
const ROOM: usize = 5_000;

impl Default for FailedLogins {
    fn default() -> Self {
        Self { spans: BTreeMap::new(), addresses: Top::new(2_000), accounts: Top::new(2_000) }
    }
}

impl FailedLogins {
    /// Takes one that failed.
    pub fn add(&mut self, at: DateTime<Utc>, account: Option<&str>, address: Option<&str>) {
        let span = self.spans.entry(at.timestamp().div_euclid(SPAN_SECONDS)).or_default();
        span.all += 1;
        let count = |map: &mut HashMap<String, u32>, key: &str| {
            if map.len() < ROOM || map.contains_key(key) {
                *map.entry(key.to_owned()).or_default() += 1;
            }
        };
        span.named.0 += u32::from(account.is_some());
        span.named.1 += u32::from(address.is_some());
        if let Some(address) = address {
            count(&mut span.addresses, address);
            self.addresses.add(address);
        }
        if let Some(account) = account {
            let account = masked(account);
            count(&mut span.accounts, &account);
            self.accounts.add(&account);
        }
        while self.spans.len() > SPANS {
            self.spans.pop_first();
        }
    }

    /// All since `from`.
    pub fn since(&self, from: DateTime<Utc>) -> u64 {
        self.recent(from).map(|span| u64::from(span.all)).sum()
    }

    /// Of all since `from`, how many name an account, and how many an address.
    pub fn named_since(&self, from: DateTime<Utc>) -> (u64, u64) {
        self.recent(from).fold((0, 0), |n, s| (n.0 + u64::from(s.named.0), n.1 + u64::from(s.named.1)))
    }

    /// Since `from`, by account, most first.
    pub fn by_account(&self, from: DateTime<Utc>) -> Vec<(String, u32)> {
        grouped(self.recent(from).flat_map(|span| &span.accounts), str::to_owned)
    }

    /// Since `from`, by address, most first.
    pub fn by_address(&self, from: DateTime<Utc>) -> Vec<(String, u32)> {
        grouped(self.recent(from).flat_map(|span| &span.addresses), str::to_owned)
    }

    /// Since `from`, by subnet, most first: /24 of IPv4, /48 of IPv6.
    pub fn by_subnet(&self, from: DateTime<Utc>) -> Vec<(String, u32)> {
        grouped(self.recent(from).flat_map(|span| &span.addresses), subnet)
    }

    fn recent(&self, from: DateTime<Utc>) -> impl Iterator<Item = &Span> {
        // The span in which `from` is would reach back further than was asked for.
        self.spans.range((from.timestamp() + SPAN_SECONDS - 1).div_euclid(SPAN_SECONDS)..).map(|(_, span)| span)
    }
}

fn grouped<'a>(
    counts: impl Iterator<Item = (&'a String, &'a u32)>,
    group: impl Fn(&str) -> String,
) -> Vec<(String, u32)> {
    let mut sums: HashMap<String, u32> = HashMap::new();
    for (who, count) in counts {
        *sums.entry(group(who)).or_default() += count;
    }
    let mut all: Vec<_> = sums.into_iter().collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    all
}

/// An account for people who need not know whose it is: its beginning, its domain, and six digits of a hash, so that two
/// that look alike are two.
///
/// ```
/// assert_eq!(health_probe::logs::masked("Anna@example.com"), "an…@example.com (f7d54c)");
/// ```
pub fn masked(account: &str) -> String {
    let account = account.trim().to_lowercase();
    // A password that was typed into the wrong field has no domain behind its @.
    let is_domain = |d: &str| {
        d.rsplit_once('.').is_some_and(|(_, end)| end.len() >= 2 && end.bytes().all(|b| b.is_ascii_alphabetic()))
            && d.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    let (name, domain) = match account.split_once('@') {
        Some((name, domain)) if is_domain(domain) => (name, Some(domain)),
        _ => (account.as_str(), None),
    };
    let clean = |text: &str, most: usize| -> String { text.chars().filter(|c| !c.is_control()).take(most).collect() };
    let digest = hex::encode(&Sha256::digest(account.as_bytes())[..3]);
    match domain {
        Some(domain) => format!("{}…@{} ({digest})", clean(name, 2), clean(domain, 80)),
        None => format!("{}… ({digest})", clean(name, 2)),
    }
}

/// A line of an application's log that says that a log-in failed.
///
/// JSON lines: `msg`, `message` or `event` says so, `account`, `email`, `user`, `username`, `login` is who, `ip`, `address`,
/// `remoteAddress`, `client` is where from. Text lines: `… failed … for WHO from WHERE`, as sshd and plugins of WordPress write
/// them, or `user=WHO`, `email=WHO`, `ip=WHERE`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoginFailure {
    /// Who was asked for.
    pub account: Option<String>,
    /// Where from.
    pub address: Option<String>,
    /// When; `None` where the line does not say.
    pub at: Option<DateTime<Utc>>,
}

/// What says that a log-in failed, without case, `_`, `-` and `.` as spaces.
const FAILURES: [&str; 16] = [
    "failed login",
    "failed log in",
    "failed password",
    "failed sign in",
    "login failed",
    "login failure",
    "log in failed",
    "sign in failed",
    "signin failed",
    "authentication failed",
    "authentication failure",
    "auth failed",
    "invalid password",
    "wrong password",
    "invalid credentials",
    "credentialssignin",
];
const ACCOUNTS: [&str; 6] = ["account", "email", "username", "user", "login", "identifier"];
/// Words that stand where an account could, and are none.
const NO_ACCOUNTS: [&str; 22] = [
    "not",
    "does",
    "unknown",
    "is",
    "the",
    "reason",
    "with",
    "no",
    "from",
    "a",
    "an",
    "has",
    "was",
    "user",
    "invalid",
    "password",
    "login",
    "account",
    "wrong",
    "because",
    "bad",
    "nonexistent",
];
const ADDRESSES: [&str; 7] = ["ip", "address", "remoteaddress", "remote_addr", "client_ip", "client", "rhost"];

impl LoginFailure {
    /// Reads a line; `None` where it says nothing of the kind.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        match line.starts_with('{').then(|| serde_json::from_str::<Value>(line).ok()).flatten() {
            Some(value) => json(&value),
            None => says_so(line).then(|| {
                let read = text(line);
                // Monolog and others put what belongs to a line behind it, as JSON.
                let behind = line.find('{').and_then(|at| {
                    let end = line.rfind('}')?;
                    serde_json::from_str::<Value>(line.get(at..=end)?).ok()
                });
                match behind.and_then(|value| json_of(&value, read.at)) {
                    Some(more) => Self {
                        account: more.account.or(read.account),
                        address: more.address.or(read.address),
                        at: more.at.or(read.at),
                    },
                    None => read,
                }
            }),
        }
    }
}

fn says_so(text: &str) -> bool {
    let plain: String =
        text.chars().map(|c| if matches!(c, '_' | '-' | '.' | ':') { ' ' } else { c.to_ascii_lowercase() }).collect();
    FAILURES.iter().any(|words| plain.contains(words))
}

const SAID: [&str; 5] = ["event", "msg", "message", "error", "type"];

fn json(value: &Value) -> Option<LoginFailure> {
    let message = SAID.iter().filter_map(|key| value.get(*key)?.as_str()).find(|text| says_so(text))?;
    let mut failure = json_of(value, None)?;
    if failure.account.is_none() && failure.address.is_none() {
        let read = text(message);
        (failure.account, failure.address) = (read.account, read.address);
    }
    Some(failure)
}

/// Who, where from and when, by an object or one within it.
fn json_of(value: &Value, otherwise: Option<DateTime<Utc>>) -> Option<LoginFailure> {
    let found = |keys: &[&str], is: &dyn Fn(&str) -> bool| {
        let of = |object: &Value| -> Option<String> {
            let object = object.as_object()?;
            let hit =
                |key: &str| object.iter().find(|(k, _)| k.eq_ignore_ascii_case(key))?.1.as_str().map(str::to_owned);
            keys.iter().filter_map(|key| hit(key)).find(|text| is(text))
        };
        // Loggers put what belongs to a line into an object of its own.
        of(value).or_else(|| value.as_object()?.values().find_map(of))
    };
    let time = ["time", "timestamp", "ts", "@timestamp"].iter().find_map(|key| value.get(*key));
    let at = time.and_then(|t| match t {
        Value::String(text) => DateTime::parse_from_rfc3339(text).ok().map(|t| t.to_utc()),
        Value::Number(n) => {
            let n = n.as_f64()?;
            // Seconds or milliseconds: the year 5138 in seconds is 1973 in milliseconds.
            DateTime::from_timestamp_millis(if n > 1e11 { n as i64 } else { (n * 1000.0) as i64 })
        }
        _ => None,
    });
    let address = found(&ADDRESSES, &|text| address_of(text).is_some()).as_deref().and_then(address_of);
    let failure = LoginFailure { account: found(&ACCOUNTS, &|_| true), address, at: at.or(otherwise) };
    Some(failure)
}

fn text(line: &str) -> LoginFailure {
    let clean = |word: &str| {
        word.trim_matches(|c: char| matches!(c, '"' | '\'' | ',' | ';' | '(' | ')' | '[' | ']' | '<' | '>')).to_owned()
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let keyed = |keys: &[&str]| {
        words.iter().find_map(|word| {
            let (key, value) = word.split_once(['=', ':'])?;
            let known = keys.iter().any(|k| k.eq_ignore_ascii_case(clean(key).as_str()));
            (known && !clean(value).is_empty()).then(|| clean(value))
        })
    };
    let after = |word: &str, skip: &[&str]| {
        let at = words.iter().position(|w| w.eq_ignore_ascii_case(word))?;
        words[at + 1..].iter().find(|w| !skip.iter().any(|s| w.eq_ignore_ascii_case(s))).map(|w| clean(w))
    };
    let is_address = |word: &str| address_of(&clean(word));
    let account = keyed(&ACCOUNTS)
        .or_else(|| after("for", &["user", "invalid", "account", "illegal", "email"]))
        .or_else(|| after("user", &[]))
        .filter(|who| is_address(who).is_none() && !NO_ACCOUNTS.contains(&who.to_lowercase().as_str()));
    let address = keyed(&ADDRESSES)
        .and_then(|text| is_address(&text))
        .or_else(|| after("from", &["ip", "address"]).and_then(|text| is_address(&text)))
        .or_else(|| words.iter().find_map(|word| is_address(word)));
    let at = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .and_then(|(time, _)| match time_of(time) {
            Some(LineTime::At(at)) => Some(at),
            // Of a clock on a wall, nobody knows where.
            Some(LineTime::Local(_)) | None => None,
        })
        .or_else(|| DateTime::parse_from_rfc3339(words.first().copied().unwrap_or("")).ok().map(|t| t.to_utc()));
    LoginFailure { account, address, at }
}

/// An address, with or without a port; one of IPv4 in the clothes of IPv6 is one of IPv4.
fn address_of(text: &str) -> Option<String> {
    let text = text.trim();
    let whole = text.parse::<IpAddr>().ok();
    let bare = || text.rsplit_once(':').filter(|(head, _)| head.contains('.') || head.ends_with(']'));
    let ip = whole.or_else(|| bare()?.0.trim_matches(['[', ']']).parse().ok())?;
    Some(ip.to_canonical().to_string())
}

/// The subnet of an address: /24, /48.
fn subnet(address: &str) -> String {
    match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Ok(IpAddr::V6(ip)) => {
            let s = ip.segments();
            format!("{:x}:{:x}:{:x}::/48", s[0], s[1], s[2])
        }
        Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_applications_are_read() {
        let anna = Some("anna@example.com");
        for (line, account, address) in [
            (
                r#"{"level":40,"time":1764108000000,"msg":"Login failed","email":"anna@example.com","ip":"203.0.113.7"}"#,
                anna,
                Some("203.0.113.7"),
            ),
            (
                r#"{"event":"user.login.failed","context":{"username":"anna@example.com","remoteAddress":"2001:db8::7"}}"#,
                anna,
                Some("2001:db8::7"),
            ),
            (
                r#"{"level":"warn","message":"Failed login for anna@example.com from 203.0.113.7"}"#,
                anna,
                Some("203.0.113.7"),
            ),
            (
                "[25-Nov-2026 22:10:00 UTC] Failed login for user anna@example.com from 203.0.113.7:51234",
                anna,
                Some("203.0.113.7"),
            ),
            ("2026-11-25T22:10:00Z auth failed user=anna@example.com ip=203.0.113.7", anna, Some("203.0.113.7")),
            (
                "Nov 25 22:10:00 shop sshd[7]: Failed password for invalid user admin from 203.0.113.7 port 22 ssh2",
                Some("admin"),
                Some("203.0.113.7"),
            ),
            (
                r#"[2026-11-25 22:10:00] production.WARNING: Login failed {"email":"anna@example.com","ip":"::ffff:203.0.113.7"} []"#,
                anna,
                Some("203.0.113.7"),
            ),
            (
                r#"{"msg":"login failed","client":"ios-app","ctx":{"ip":"203.0.113.7"},"user":"anna@example.com"}"#,
                anna,
                Some("203.0.113.7"),
            ),
            ("Authentication failed: user not found", None, None),
            ("Login failed for unknown user from [2001:db8::7]:443", None, Some("2001:db8::7")),
            ("[auth][error] CredentialsSignin: Read more at https://errors.authjs.dev", None, None),
        ] {
            let read = LoginFailure::parse(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((read.account.as_deref(), read.address.as_deref()), (account, address), "{line}");
        }
        for line in [
            r#"{"msg":"login ok","email":"anna@example.com"}"#,
            "payment failed for order 7",
            "Accepted password for anna from 203.0.113.7",
            "",
        ] {
            assert_eq!(LoginFailure::parse(line), None, "{line}");
        }
        let at = LoginFailure::parse("[25-Nov-2026 23:10:00 Africa/Lagos] Login failed").unwrap().at;
        assert_eq!(at.unwrap().to_rfc3339(), "2026-11-25T22:10:00+00:00");
    }

    #[test]
    fn an_hour_is_no_more_than_an_hour_and_an_attack_has_bounds() {
        let at = |minute: i64| DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(minute);
        let mut logins = FailedLogins::default();
        for minute in 0..90 {
            logins.add(at(minute), Some("Anna@shop.example"), Some("192.0.2.1"));
            logins.add(at(minute), Some("anna@shop.example "), Some("192.0.2.2"));
        }
        let hour = logins.by_account(at(30));
        assert_eq!(hour.len(), 1, "{hour:?}");
        assert_eq!((hour[0].1, logins.since(at(30))), (120, 120));
        assert_eq!(logins.by_account(at(31))[0].1, 110, "rather less than an hour than more");
        assert_eq!(logins.by_subnet(at(30)), [("192.0.2.0/24".to_owned(), 120)]);
        assert!(!hour[0].0.contains("anna"));
        assert_eq!(masked("P@ssw0rd123!").split(' ').next(), Some("p@…"));
        assert_eq!(subnet("::ffff:203.0.113.7"), "203.0.113.0/24");
        assert_eq!(logins.named_since(at(30)), (120, 120));
        for n in 0..20_000u32 {
            logins.add(at(91), Some(&format!("user{n}")), Some(&std::net::Ipv4Addr::from(n).to_string()));
        }
        assert_eq!(logins.since(at(90)), 20_000);
        assert!(logins.by_account(at(90)).len() <= ROOM + 1);
    }
}
