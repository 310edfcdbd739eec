//! Requests of an access log, counted: errors, what is not found, bots apart, failed logins, scanners, rates.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::access::AccessLine;
use super::logins::FailedLogins;
use super::top::Top;

/// What counts as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrafficOptions {
    /// Paths of log-ins: a POST to one that ends in 401, 403, 422 or 429 is a failed one. Beside them counts what the server
    /// itself asks a password for: 401 to a request that gives a name.
    pub login_paths: Vec<String>,
    /// Whether a log-in that fails answers with 200 and the form again, as many shops in PHP do; one that succeeds redirects.
    pub login_failure_is_200: bool,
    /// Beginnings of paths that nobody but a scanner asks for.
    pub scanner_paths: Vec<String>,
    /// Of them, those that give something away where they are answered with success. Beside them count dumps and archives: what
    /// ends in `.sql`, `.dump`, `.bak`, `.zip`, `.tar`, `.gz` and the like.
    pub exposed_paths: Vec<String>,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Self {
            login_paths: owned(&[
                "/login",
                "/signin",
                "/api/auth/callback/credentials",
                "/admin/login",
                "/login.php",
                "/admin/login.php",
            ]),
            login_failure_is_200: false,
            scanner_paths: owned(&[
                "/.env",
                "/.git/",
                "/.aws/",
                "/.ssh/",
                "/.svn/",
                "/.DS_Store",
                "/wp-login.php",
                "/wp-admin",
                "/xmlrpc.php",
                "/phpmyadmin",
                "/pma/",
                "/adminer",
                "/vendor/phpunit",
                "/cgi-bin/",
                "/boaform",
                "/actuator",
                "/server-status",
                "/backup",
                "/dump.sql",
                "/database.sql",
                "/config.php.bak",
                "/shell",
                "/eval-stdin",
                "/owa/",
                "/solr/",
                "/telescope",
            ]),
            exposed_paths: owned(&[
                "/.env",
                "/.git/",
                "/.aws/",
                "/.ssh/",
                "/.svn/",
                "/.DS_Store",
                "/phpmyadmin",
                "/pma/",
                "/adminer",
                "/vendor/phpunit",
                "/server-status",
                "/actuator/heapdump",
                "/actuator/env",
            ]),
        }
    }
}

/// What was counted. Bounded: two days of minutes, and the most frequent of what there may be any number of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Traffic {
    options: TrafficOptions,
    /// Lines that were read.
    pub lines: u64,
    /// Lines of another format.
    pub unreadable: u64,
    /// Requests by the first digit of their status.
    pub by_class: [u64; 10],
    /// Requests by bots that say so.
    pub bots: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Server errors (500 to 599) by path.
    pub error_paths: Top,
    /// What was not found (404) by path, scanners left out.
    pub not_found: Top,
    /// Addresses that asked for what only scanners ask for.
    pub scanners: Top,
    /// Paths that only scanners ask for and that were answered with 200 to 299.
    pub exposed: Top,
    /// Requests by address.
    pub addresses: Top,
    /// Log-ins that failed.
    #[serde(default)]
    pub failed_logins: FailedLogins,
    exposed_hours: BTreeMap<i64, u32>,
    /// Of answers to what only scanners ask for, by day and length.
    #[serde(default)]
    lengths: BTreeMap<i64, BTreeMap<u64, Length>>,
    minutes: BTreeMap<i64, Minute>,
    #[serde(default)]
    hours: BTreeMap<i64, Hour>,
    #[serde(skip)]
    last_time: (Vec<u8>, i64),
    #[serde(skip)]
    last_agent: HashMap<u64, bool>,
    /// The second bytes of what only scanners ask for: most paths are none of them by that alone.
    #[serde(skip)]
    scanner_bytes: Vec<bool>,
}

/// Answers of one length: which paths, up to three of them, and in which hours they were counted as given away.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Length {
    paths: Vec<u64>,
    hours: Vec<i64>,
}

/// One minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minute {
    /// Requests, bots left out.
    pub requests: u32,
    /// Of them, server errors: 500 to 599. 499 is the client's going away, 404 is no error of the server.
    pub errors: u32,
    /// Requests of bots.
    pub bots: u32,
    /// Log-ins that failed.
    pub failed_logins: u32,
    /// Requests for what only scanners ask for.
    #[serde(default)]
    pub scanners: u32,
    /// Requests for what is not there (404), scanners left out.
    #[serde(default)]
    pub not_found: u32,
}

/// Where what went wrong in one hour of the clock.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hour {
    errors: Top,
    not_found: Top,
}

impl Default for Hour {
    fn default() -> Self {
        Self { errors: Top::new(200), not_found: Top::new(200) }
    }
}

const MINUTES: usize = 2 * 1440;
const HOURS: usize = 3;

impl Default for Traffic {
    fn default() -> Self {
        Self::new(TrafficOptions::default())
    }
}

impl Traffic {
    /// Nothing counted yet.
    pub fn new(options: TrafficOptions) -> Self {
        let top = || Top::new(2000);
        Self {
            options,
            lines: 0,
            unreadable: 0,
            by_class: [0; 10],
            bots: 0,
            bytes: 0,
            error_paths: top(),
            not_found: top(),
            scanners: top(),
            exposed: top(),
            addresses: Top::new(20_000),
            failed_logins: FailedLogins::default(),
            exposed_hours: BTreeMap::new(),
            lengths: BTreeMap::new(),
            minutes: BTreeMap::new(),
            hours: BTreeMap::new(),
            last_time: (Vec::new(), 0),
            last_agent: HashMap::new(),
            scanner_bytes: Vec::new(),
        }
    }

    /// Takes a line.
    pub fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        let Some(request) = AccessLine::parse(line) else {
            self.unreadable += 1;
            return;
        };
        self.by_class[usize::from(request.status / 100)] += 1;
        self.bytes += request.bytes;
        self.addresses.add(&String::from_utf8_lossy(request.address));
        let minute = self.minute_of(&request);
        let bot = self.is_bot(request.agent);
        let path = request.path();
        let scanner = self.is_scanner(path);
        if scanner {
            self.scanners.add(&String::from_utf8_lossy(request.address));
            // A request for the head alone has no length to tell by.
            let given = (200..300).contains(&request.status) && request.bytes > 0 && request.method != b"HEAD";
            if let Some(hour) = minute.map(|at| at.div_euclid(60)).filter(|_| given && self.gives_away(path))
                && !self.is_one_page_for_all(path, request.bytes, hour)
            {
                self.exposed.add(&shown(path));
                *self.exposed_hours.entry(hour).or_default() += 1;
            }
        }
        let failed = self.failed_login(&request);
        let server_error = (500..600).contains(&request.status);
        let not_found = request.status == 404 && !scanner;
        if server_error || not_found {
            let path = shown(path);
            let hour = minute.map(|at| self.hours.entry(at.div_euclid(60)).or_default());
            match server_error {
                true => {
                    self.error_paths.add(&path);
                    hour.map(|hour| hour.errors.add(&path));
                }
                false => {
                    self.not_found.add(&path);
                    hour.map(|hour| hour.not_found.add(&path));
                }
            }
            while self.hours.len() > HOURS {
                self.hours.pop_first();
            }
        }
        if bot {
            self.bots += 1;
        }
        let Some(at) = minute else {
            // A time that cannot be read: the request belongs nowhere.
            self.unreadable += 1;
            return;
        };
        let minute = self.minutes.entry(at).or_default();
        match bot {
            true => minute.bots += 1,
            false => {
                minute.requests += 1;
                minute.errors += u32::from(server_error);
            }
        }
        minute.scanners += u32::from(scanner);
        minute.not_found += u32::from(not_found);
        if failed {
            minute.failed_logins += 1;
            let account = (request.user != b"-").then(|| String::from_utf8_lossy(request.user));
            let address = String::from_utf8_lossy(request.address);
            let at = DateTime::from_timestamp(at * 60, 0).unwrap_or_default();
            self.failed_logins.add(at, account.as_deref(), Some(&address));
        }
        while self.minutes.len() > MINUTES {
            self.minutes.pop_first();
        }
        while self.exposed_hours.len() > 48 {
            self.exposed_hours.pop_first();
        }
    }

    /// The minutes from `from` (inclusive) to `to` (exclusive), added up.
    pub fn between(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Minute {
        let (from, to) = (from.timestamp().div_euclid(60), to.timestamp().div_euclid(60));
        let mut sum = Minute::default();
        for minute in self.minutes.range(from..to.max(from)).map(|(_, m)| m) {
            sum.requests += minute.requests;
            sum.errors += minute.errors;
            sum.bots += minute.bots;
            sum.failed_logins += minute.failed_logins;
            sum.scanners += minute.scanners;
            sum.not_found += minute.not_found;
        }
        sum
    }

    /// What counts as what.
    pub fn options(&self) -> &TrafficOptions {
        &self.options
    }

    /// The same counts, by other options from now on.
    #[must_use]
    pub fn with_options(mut self, options: TrafficOptions) -> Self {
        (self.options, self.scanner_bytes) = (options, Vec::new());
        self
    }

    /// How often something was given out since the hour of `from` that only scanners ask for.
    pub fn exposed_since(&self, from: DateTime<Utc>) -> u64 {
        self.exposed_hours.range(from.timestamp().div_euclid(3600)..).map(|(_, n)| u64::from(*n)).sum()
    }

    /// Paths of server errors since the hour of the clock in which `from` is; most first.
    pub fn error_paths_since(&self, from: DateTime<Utc>) -> Vec<(String, u64)> {
        self.paths_since(from, |hour| &hour.errors)
    }

    /// Paths that were not found since the hour of the clock in which `from` is; most first.
    pub fn not_found_since(&self, from: DateTime<Utc>) -> Vec<(String, u64)> {
        self.paths_since(from, |hour| &hour.not_found)
    }

    fn paths_since(&self, from: DateTime<Utc>, of: fn(&Hour) -> &Top) -> Vec<(String, u64)> {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for hour in self.hours.range(from.timestamp().div_euclid(3600)..).map(|(_, hour)| hour) {
            for (path, n) in of(hour).most(200) {
                *counts.entry(path.to_owned()).or_default() += n;
            }
        }
        let mut all: Vec<_> = counts.into_iter().collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        all
    }

    /// The minute of the newest request.
    pub fn newest(&self) -> Option<DateTime<Utc>> {
        self.minutes.last_key_value().and_then(|(m, _)| DateTime::from_timestamp(m * 60, 0))
    }

    /// The minute a request was in. Lines of one second share the text of their time.
    fn minute_of(&mut self, request: &AccessLine<'_>) -> Option<i64> {
        let upto = request.time.len().min(26);
        if self.last_time.0 != request.time[..upto] {
            let at = request.at()?.timestamp().div_euclid(60);
            self.last_time = (request.time[..upto].to_vec(), at);
        }
        Some(self.last_time.1)
    }

    /// Whether nobody but a scanner asks for it.
    fn is_scanner(&mut self, path: &[u8]) -> bool {
        if self.scanner_bytes.is_empty() {
            self.scanner_bytes = vec![false; 256];
            for beginning in &self.options.scanner_paths {
                // One that is shorter than two bytes fits every path.
                match beginning.as_bytes().get(1) {
                    Some(byte) => {
                        self.scanner_bytes[usize::from(byte.to_ascii_lowercase())] = true;
                        self.scanner_bytes[usize::from(byte.to_ascii_uppercase())] = true;
                    }
                    None => self.scanner_bytes.fill(true),
                }
            }
        }
        let may_be = path.get(1).is_none_or(|byte| self.scanner_bytes[usize::from(*byte)]);
        may_be && self.options.scanner_paths.iter().any(|p| is_or_is_under(path, p.as_bytes()))
    }

    /// Whether something is given away where it is answered with success; a shop may well sell telescopes.
    fn gives_away(&self, path: &[u8]) -> bool {
        const ENDINGS: [&[u8]; 15] = [
            b".sql", b".bak", b".old", b".zip", b".gz", b".tgz", b".tar", b".rar", b".7z", b".bz2", b".xz", b".zst",
            b".dump", b".sqlite", b".db",
        ];
        let last = last_of(path);
        self.options
            .exposed_paths
            .iter()
            .any(|p| is_or_is_under(path, p.as_bytes()) || last.eq_ignore_ascii_case(p.trim_matches('/').as_bytes()))
            || ENDINGS.iter().any(|e| path.len() >= e.len() && path[path.len() - e.len()..].eq_ignore_ascii_case(e))
    }

    /// A shop that answers every path with the same page gives nothing away by it: three different paths on one day, one length. What
    /// was counted of that length before the third is taken back.
    fn is_one_page_for_all(&mut self, path: &[u8], bytes: u64, hour: i64) -> bool {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let day = hour.div_euclid(24);
        self.lengths.retain(|of, _| *of >= day - 1);
        let lengths = self.lengths.entry(day).or_default();
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(last_of(path));
        if lengths.len() >= 1000 && !lengths.contains_key(&bytes) {
            return false;
        }
        let length = lengths.entry(bytes).or_default();
        if length.paths.len() < 3 && !length.paths.contains(&hash) {
            length.paths.push(hash);
        }
        if length.paths.len() < 3 {
            if length.hours.len() < 1000 {
                length.hours.push(hour);
            }
            return false;
        }
        for hour in length.hours.drain(..) {
            if let Some(count) = self.exposed_hours.get_mut(&hour) {
                *count = count.saturating_sub(1);
            }
        }
        true
    }

    /// Few agents make most requests: what they are is remembered.
    fn is_bot(&mut self, agent: &[u8]) -> bool {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(agent);
        if let Some(known) = self.last_agent.get(&hash) {
            return *known;
        }
        let lower = agent.to_ascii_lowercase();
        let words: [&[u8]; 12] = [
            b"bot",
            b"crawl",
            b"spider",
            b"slurp",
            b"curl/",
            b"wget/",
            b"python-",
            b"go-http-client",
            b"monitor",
            b"uptime",
            b"headless",
            b"caretaker",
        ];
        let bot = words.iter().any(|w| memchr::memmem::find(&lower, w).is_some());
        if self.last_agent.len() >= 4096 {
            self.last_agent.clear();
        }
        self.last_agent.insert(hash, bot);
        bot
    }

    fn failed_login(&self, request: &AccessLine<'_>) -> bool {
        // Somebody gave a name and was not let in; without a name, a browser only asks whether it needs one.
        if request.status == 401 && !matches!(request.user, b"-" | b"" | b"\"\"") {
            return true;
        }
        if request.method != b"POST" {
            return false;
        }
        let failed = match request.status {
            401 | 403 | 422 | 429 => true,
            200 => self.options.login_failure_is_200,
            _ => false,
        };
        failed
            && self
                .options
                .login_paths
                .iter()
                .any(|p| request.path().trim_ascii_end().strip_suffix(b"/").unwrap_or(request.path()) == p.as_bytes())
    }
}

/// The end of a path: `/shell/../.env` is the file that `/.env` is.
fn last_of(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').find(|part| !part.is_empty()).unwrap_or(path)
}

/// A path for people: at most 200 characters, nothing that a terminal obeys.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(&path[..path.len().min(200)]);
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// Whole parts of a path: `/backup` is no beginning of `/backup-cameras`, and one of `/backup/x` and `/backup.zip`.
fn is_or_is_under(path: &[u8], beginning: &[u8]) -> bool {
    let ends = || beginning.ends_with(b"/") || path.get(beginning.len()).is_none_or(|b| matches!(b, b'/' | b'.'));
    starts_with(path, beginning) && ends()
}

/// Regardless of case: scanners try both.
fn starts_with(path: &[u8], beginning: &[u8]) -> bool {
    path.len() >= beginning.len() && path[..beginning.len()].eq_ignore_ascii_case(beginning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bots_are_apart_and_what_is_not_found_is_no_error_of_the_server() {
        let mut traffic = Traffic::default();
        let line = |ip: &str, request: &str, status: u16, agent: &str| {
            format!("{ip} - - [25/Nov/2026:10:00:30 +0000] \"{request} HTTP/1.1\" {status} 10 \"-\" \"{agent}\"")
        };
        for l in [
            line("1.1.1.1", "GET /", 200, "Mozilla"),
            line("1.1.1.1", "GET /gone?x=1", 404, "Mozilla"),
            line("1.1.1.1", "GET /cart", 499, "Mozilla"),
            line("1.1.1.1", "GET /cart", 502, "Mozilla"),
            line("2.2.2.2", "GET /", 500, "Googlebot/2.1"),
            line("3.3.3.3", "GET /.env", 404, "x"),
            line("3.3.3.3", "GET /.git/config", 200, "x"),
            line("4.4.4.1", "POST /login", 401, "x"),
            line("4.4.4.2", "POST /login/", 403, "x"),
            line("4.4.4.2", "POST /login", 302, "x"),
            "no line".into(),
        ] {
            traffic.add(l.as_bytes());
        }
        let at = DateTime::parse_from_rfc3339("2026-11-25T10:00:00Z").unwrap().to_utc();
        let minute = traffic.between(at, at + chrono::TimeDelta::minutes(1));
        assert_eq!(minute, Minute { requests: 9, errors: 1, bots: 1, failed_logins: 2, scanners: 2, not_found: 1 });
        assert_eq!((traffic.lines, traffic.unreadable), (11, 1));
        assert_eq!(traffic.not_found.most(5), [("/gone", 1)]);
        assert_eq!(traffic.exposed.most(5), [("/.git/config", 1)]);
        assert_eq!(traffic.scanners.most(5), [("3.3.3.3", 2)]);
        assert_eq!(traffic.failed_logins.by_subnet(at), [("4.4.4.0/24".to_owned(), 2)]);
        assert_eq!(traffic.error_paths_since(at), [("/".to_owned(), 1), ("/cart".to_owned(), 1)]);
        assert_eq!(traffic.not_found_since(at), [("/gone".to_owned(), 1)]);
        assert_eq!(traffic.error_paths_since(at + chrono::TimeDelta::hours(1)), []);
        // A shop that sells telescopes gives nothing away; one with a dump in its folder does.
        let mut sells = Traffic::default();
        for path in ["/telescope", "/telescope/dobson-8", "/shell", "/wp-login.php", "/actuator/7"] {
            sells.add(line("6.6.6.6", &format!("GET {path}"), 200, "x").as_bytes());
        }
        assert_eq!((sells.exposed_since(at), sells.between(at, at + chrono::TimeDelta::minutes(1)).scanners), (0, 5));
        sells.add(line("6.6.6.6", "GET /backup/Shop.SQL", 200, "x").as_bytes());
        assert_eq!(sells.exposed_since(at), 1);
        // One page for everything: nothing is given away by it, and what was counted before that showed is taken back.
        let mut all = Traffic::default();
        for path in ["/.env", "/.env", "/shell/../.env", "/.git/config"] {
            all.add(line("5.5.5.5", &format!("GET {path}"), 200, "x").as_bytes());
        }
        assert_eq!(all.exposed_since(at), 4);
        all.add(line("5.5.5.5", "GET /dump.sql", 200, "x").as_bytes());
        all.add(line("5.5.5.5", "HEAD /adminer", 200, "x").as_bytes());
        assert_eq!(all.exposed_since(at), 0);
        let again: Traffic = serde_json::from_str(&serde_json::to_string(&traffic).unwrap()).unwrap();
        assert_eq!(again.between(at, at + chrono::TimeDelta::minutes(1)), minute);
    }
}
