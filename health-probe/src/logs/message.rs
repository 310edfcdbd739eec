//! Lines of error logs: of PHP, nginx, Apache; JSON lines of loggers for Node and PHP; plain text.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How bad a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Worth no look.
    Info,
    /// A warning, a notice.
    Warning,
    /// An error: somebody's request failed.
    Error,
    /// The process or the request ended by it.
    Fatal,
}

/// A message of an error log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogMessage<'a> {
    /// How bad; `None` of a line that belongs to the message before it, such as one of a stack trace.
    pub level: Option<Level>,
    /// What it says, without time and client.
    pub text: Cow<'a, str>,
    /// When, where the line says it.
    pub time: Option<LineTime>,
}

/// The time that a line gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineTime {
    /// With its zone.
    At(DateTime<Utc>),
    /// By the clock on the wall where it was written, as nginx and Apache do.
    Local(NaiveDateTime),
}

impl<'a> LogMessage<'a> {
    /// Reads a line of any of the formats.
    ///
    /// What strangers cause by asking for what is not there, or for what is forbidden, is [`Level::Info`] whatever the server calls
    /// it: it is in the access log, and no error of the shop.
    pub fn parse(line: &'a str) -> Self {
        let line = line.trim_end();
        if line.starts_with('{') {
            // Cut off, or no JSON after all.
            return json(line).unwrap_or_else(|| Self::new(guess(line), line));
        }
        nginx(line).or_else(|| bracketed(line)).unwrap_or_else(|| plain(line))
    }

    fn new(level: Level, text: impl Into<Cow<'a, str>>) -> Self {
        Self { level: Some(level), text: text.into(), time: None }
    }

    fn at(mut self, time: Option<LineTime>) -> Self {
        self.time = self.time.or(time);
        self
    }

    fn into_owned(self) -> LogMessage<'static> {
        LogMessage { level: self.level, text: self.text.into_owned().into(), time: self.time }
    }
}

/// The message of a server itself: what it logs of requests that should not have been made is none of the shop's errors.
fn of_server(level: Level, text: &str) -> LogMessage<'_> {
    LogMessage::new(if is_noise(text) { Level::Info } else { level }, text)
}

fn is_noise(text: &str) -> bool {
    const BEGINNINGS: [&str; 3] = ["client sent ", "SSL_do_handshake() failed", "SSL_read() failed"];
    const PARTS: [&str; 13] = [
        "access forbidden by rule",
        "is not found (2: No such file",
        "password mismatch",
        " was not found in \"",
        "client denied by server configuration",
        "AH01276:",
        "AH01264:",
        "AH01797:",
        "AH02811:",
        "AH00127:",
        "AH00128:",
        "AH10244:",
        "not found or unable to stat",
    ];
    if text.contains("Primary script unknown") {
        return true;
    }
    // What it does not get from behind it is an outage, whatever it looks like.
    if text.contains("upstream") {
        return false;
    }
    let missing = text.starts_with("open() \"") && text.contains("failed (2: No such file or directory)");
    let listing = text.starts_with("directory index of ") && text.contains(" is forbidden");
    missing || listing || BEGINNINGS.iter().any(|b| text.starts_with(b)) || PARTS.iter().any(|p| text.contains(p))
}

/// `2026/11/25 22:00:00 [error] 12#12: *3 connect() failed (…), client: …, server: …`
fn nginx(line: &str) -> Option<LogMessage<'_>> {
    let bytes = line.as_bytes();
    if bytes.len() < 22 || bytes[4] != b'/' || bytes[7] != b'/' || bytes[20] != b'[' {
        return None;
    }
    let time = NaiveDateTime::parse_from_str(line.get(..19)?, "%Y/%m/%d %H:%M:%S").ok().map(LineTime::Local);
    let (word, rest) = line.get(21..)?.split_once(']')?;
    let text = rest.split_once(": ").map_or(rest, |(_, text)| text);
    let text = match text.strip_prefix('*') {
        Some(numbered) => numbered.split_once(' ').map_or(text, |(_, text)| text),
        None => text,
    };
    let text = text.split(", client: ").next().unwrap_or(text).trim();
    let level = level(word)?;
    Some(through_fastcgi(text).unwrap_or_else(|| of_server(level, text)).at(time))
}

/// What PHP said through FastCGI: nginx's `FastCGI sent in stderr: "PHP message: …" while …`, and Apache's `Got error 'PHP message:
/// …'`. Of several in one line, the worst.
fn through_fastcgi(text: &str) -> Option<LogMessage<'_>> {
    const MARK: &str = "PHP message: ";
    let said = &text[text.find(MARK)? + MARK.len()..];
    let said =
        ["\" while ", "', referer: ", "\", client: "].iter().fold(said, |s, end| s.split(end).next().unwrap_or(s));
    let one = |part| {
        let part = str::trim(part).trim_end_matches(['"', '\'', ';']).trim_end();
        php(part).unwrap_or_else(|| LogMessage::new(guess(part), part))
    };
    // Where several are as bad, the first of them.
    said.split(MARK).map(one).reduce(|worst, next| if next.level > worst.level { next } else { worst })
}

/// `[25-Nov-2026 22:10:00 UTC] PHP Fatal error:  …`, `[Wed Nov 25 22:10:00.1 2026] [php:error] [pid 7] [client …] …`,
/// `[2026-11-25 22:10:00] production.ERROR: … {…} []`, `[auth][error] …`
fn bracketed(line: &str) -> Option<LogMessage<'_>> {
    let (mut rest, mut found, mut time, mut any) = (line, None, None, false);
    while let Some((inside, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        let tag = inside.len() <= 64 && !inside.contains(": ");
        if let Some(at) = time_of(inside) {
            time = time.or(Some(at));
        } else if tag {
            found = found.or_else(|| level(inside.rsplit(':').next().unwrap_or(inside)));
        } else if !inside.starts_with("client ") {
            break;
        }
        any = true;
        rest = after.trim_start();
    }
    if !any {
        return None;
    }
    let read = through_fastcgi(rest).or_else(|| php(rest)).unwrap_or_else(|| {
        let text = rest.split(", referer: ").next().unwrap_or(rest);
        match channel(text) {
            Some((level, text)) => LogMessage::new(level, text),
            // Apache's own messages have a number, or speak of a script.
            None if text.starts_with("AH") || text.starts_with("script '") => {
                of_server(found.unwrap_or_else(|| guess(text)), text)
            }
            None => LogMessage::new(found.unwrap_or_else(|| guess(text)), text),
        }
    });
    Some(read.at(time))
}

/// The level and the message of Monolog's lines: `production.CRITICAL: … {"context":…} []`.
fn channel(text: &str) -> Option<(Level, &str)> {
    let (name, said) = text.split_once(": ")?;
    let (_, word) = name.rsplit_once('.').filter(|_| !name.contains(' '))?;
    let level = level(word).filter(|_| !word.bytes().any(|b| b.is_ascii_lowercase()))?;
    let context = said.ends_with(['}', ']']).then(|| said.find(" {\"")).flatten();
    Some((level, said[..context.unwrap_or(said.len())].trim_end_matches(" []").trim_end_matches(" []")))
}

/// What stands in the brackets at the beginning of a line, where it is a time.
pub(super) fn time_of(inside: &str) -> Option<LineTime> {
    if let Some((time, zone)) = inside.rsplit_once(' ')
        && let Ok(zone) = zone.parse::<chrono_tz::Tz>()
        && let Ok(time) = NaiveDateTime::parse_from_str(time, "%d-%b-%Y %H:%M:%S")
    {
        return time.and_local_timezone(zone).earliest().map(|t| LineTime::At(t.to_utc()));
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(inside) {
        return Some(LineTime::At(time.to_utc()));
    }
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%a %b %d %H:%M:%S%.f %Y", "%d-%b-%Y %H:%M:%S"];
    formats.iter().find_map(|f| NaiveDateTime::parse_from_str(inside, f).ok()).map(LineTime::Local)
}

fn php(text: &str) -> Option<LogMessage<'_>> {
    // PHP writes the trace line by line, each with the time and the prefix again: "PHP   1. {main}()".
    if let Some(trace) = text.strip_prefix("PHP   ").or_else(|| text.strip_prefix("PHP Stack trace")) {
        return Some(LogMessage { level: None, text: trace.into(), time: None });
    }
    let (word, said) = text.strip_prefix("PHP ")?.split_once(": ")?;
    let level = match word.trim() {
        "Fatal error" | "Parse error" | "Core error" | "Compile error" | "Recoverable fatal error" => Level::Fatal,
        "Warning" | "Notice" | "Deprecated" | "Strict Standards" | "User Warning" | "User Notice" => Level::Warning,
        _ => Level::Error,
    };
    Some(LogMessage::new(level, said.trim()))
}

fn json(line: &str) -> Option<LogMessage<'static>> {
    let value: Value = serde_json::from_str(line).ok()?;
    let object = value.as_object()?;
    let time =
        ["time", "timestamp", "ts", "@timestamp", "datetime"].iter().find_map(|key| json_time(object.get(*key)?));
    // Docker's json-file: the line of the program stands in it.
    if let (Some(Value::String(inner)), Some(_)) = (object.get("log"), object.get("stream")) {
        return Some(LogMessage::parse(inner).into_owned().at(time));
    }
    let first = |names: &[&str]| names.iter().find_map(|n| object.get(*n)).filter(|v| !v.is_null());
    let text = first(&["msg", "message", "error", "err"]).map(|v| match v {
        Value::String(text) => text.clone(),
        Value::Object(error) => error.get("message").and_then(Value::as_str).unwrap_or("an error").to_owned(),
        other => other.to_string(),
    });
    let text = text.unwrap_or_else(|| line.to_owned());
    let level = json_level(object).unwrap_or_else(|| {
        // An error object without a level is an error at least; what else it is, its message says.
        let raised =
            ["error", "err", "stack", "exception"].iter().any(|key| object.get(*key).is_some_and(|v| !v.is_null()));
        let said = LogMessage::parse(text.trim_start_matches('{')).level.unwrap_or(Level::Info);
        if raised { said.max(Level::Error) } else { said }
    });
    Some(LogMessage::new(level, text).at(time))
}

fn json_level(object: &Map<String, Value>) -> Option<Level> {
    let nested = object.get("log").and_then(|log| log.get("level"));
    // Monolog's number has its name beside it.
    let named = ["level_name", "levelname", "log.level"].iter().find_map(|key| object.get(*key)).or(nested);
    match named.or_else(|| ["level", "severity", "lvl", "loglevel"].iter().find_map(|key| object.get(*key)))? {
        Value::String(word) => level(word.trim()).or_else(|| word.trim().parse().ok().and_then(numbered)),
        Value::Number(n) => n.as_f64().and_then(numbered),
        _ => None,
    }
}

/// Levels as numbers: of syslog (0 to 7, down), of pino and bunyan (10 to 60), of Monolog (100 to 600).
fn numbered(n: f64) -> Option<Level> {
    Some(match n {
        n if n < 0.0 => return None,
        n if n < 8.0 => match n as u8 {
            0..=2 => Level::Fatal,
            3 => Level::Error,
            4 => Level::Warning,
            _ => Level::Info,
        },
        n if n < 100.0 => match n {
            n if n >= 60.0 => Level::Fatal,
            n if n >= 50.0 => Level::Error,
            n if n >= 40.0 => Level::Warning,
            _ => Level::Info,
        },
        n if n >= 500.0 => Level::Fatal,
        n if n >= 400.0 => Level::Error,
        n if n >= 300.0 => Level::Warning,
        n if n >= 100.0 => Level::Info,
        _ => return None,
    })
}

fn json_time(value: &Value) -> Option<LineTime> {
    match value {
        Value::String(text) => time_of(text),
        Value::Number(n) => {
            let n = n.as_f64()?;
            // Seconds or milliseconds: the year 5138 in seconds is 1973 in milliseconds.
            DateTime::from_timestamp_millis(if n > 1e11 { n as i64 } else { (n * 1000.0) as i64 }).map(LineTime::At)
        }
        _ => None,
    }
}

fn plain(line: &str) -> LogMessage<'_> {
    let trimmed = line.trim_start();
    if let Some(php) = php(trimmed) {
        return php;
    }
    let belongs = line.starts_with([' ', '\t']) || trimmed.starts_with('#') || trimmed.is_empty();
    let marked = trimmed.starts_with('⨯') || trimmed.starts_with('✗');
    let goes_on = ["Stack trace", "Caused by", "}", "]", "thrown in ", "at "].iter().any(|b| trimmed.starts_with(b));
    if (belongs && !marked) || goes_on {
        return LogMessage { level: None, text: trimmed.into(), time: None };
    }
    let text = trimmed.trim_start_matches(['⨯', '✗', '⚠', ' ']);
    let level = if marked { Level::Error } else { said_first(trimmed).unwrap_or_else(|| guess(trimmed)) };
    let time = text.split_once(' ').and_then(|(word, _)| time_of(word));
    LogMessage::new(level, text).at(time)
}

/// The level that a line begins with, behind its time: `2026-11-25T22:10:00Z ERROR …`, `error - …`, `WARN: …`, `INFO …`.
fn said_first(text: &str) -> Option<Level> {
    let is_time = |word: &&str| word.bytes().filter(u8::is_ascii_digit).count() >= 4;
    let mut words = text.split_whitespace().skip_while(is_time);
    let (first, second) = (words.next()?, words.next());
    let word = first.trim_matches(|c: char| !c.is_ascii_alphabetic());
    let upper = word.bytes().all(|b| b.is_ascii_uppercase());
    let marked = first.ends_with(':') || second.is_some_and(|s| matches!(s, "-" | "|" | ":"));
    // HTTP and LOG are words that a message may begin with.
    let plain = !matches!(word.to_ascii_lowercase().as_str(), "http" | "log" | "verbose" | "silly");
    level(word).filter(|_| plain && (upper || marked))
}

fn guess(text: &str) -> Level {
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    match () {
        () if has(&["fatal", "panic", "out of memory", "segfault"]) => Level::Fatal,
        () if has(&[" 0 error", "no error", "0 failed", "without error"]) => Level::Info,
        () if has(&["error", "exception", "failed", "unhandled"]) => Level::Error,
        () if has(&["warn", "deprecated", "notice"]) => Level::Warning,
        () => Level::Info,
    }
}

fn level(word: &str) -> Option<Level> {
    Some(match word.to_ascii_lowercase().as_str() {
        "emerg" | "emergency" | "alert" | "crit" | "critical" | "fatal" | "panic" => Level::Fatal,
        "error" | "err" | "severe" => Level::Error,
        "warn" | "warning" | "notice" => Level::Warning,
        "info" | "debug" | "trace" | "log" | "verbose" | "silly" | "http" => Level::Info,
        w if w.strip_prefix("trace").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) => Level::Info,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_log_are_read() {
        for (line, level, text) in [
            (
                "2026/11/25 22:00:00 [error] 12#12: *3 connect() failed (111: Connection refused) while connecting to upstream, client: 1.2.3.4, server: shop",
                Some(Level::Error),
                "connect() failed (111: Connection refused) while connecting to upstream",
            ),
            (
                "[25-Nov-2026 22:10:00 UTC] PHP Fatal error:  Uncaught Error: no() in /srv/a.php:3",
                Some(Level::Fatal),
                "Uncaught Error: no() in /srv/a.php:3",
            ),
            (
                "[25-Nov-2026 22:10:00 UTC] PHP Warning:  Undefined array key",
                Some(Level::Warning),
                "Undefined array key",
            ),
            ("[25-Nov-2026 22:10:00 UTC] PHP   1. {main}() /srv/a.php:0", None, ""),
            ("#0 {main}", None, "#0 {main}"),
            ("  thrown in /srv/a.php on line 3", None, "thrown in /srv/a.php on line 3"),
            (
                "[Wed Nov 25 22:10:00.123 2026] [proxy:error] [pid 7:tid 9] [client 1.2.3.4:5] AH00957: attempt to connect",
                Some(Level::Error),
                "AH00957: attempt to connect",
            ),
            (r#"{"level":50,"time":1,"msg":"payment failed"}"#, Some(Level::Error), "payment failed"),
            (r#"{"level":"info","message":"ready"}"#, Some(Level::Info), "ready"),
            (r#"{"severity":"CRITICAL","err":{"message":"pool is empty"}}"#, Some(Level::Fatal), "pool is empty"),
            (" ⨯ Error: connect ECONNREFUSED", Some(Level::Error), "Error: connect ECONNREFUSED"),
            (" ✓ Ready in 2s", None, "✓ Ready in 2s"),
            ("Unhandled promise rejection", Some(Level::Error), "Unhandled promise rejection"),
            // PHP behind nginx and Apache.
            (
                "2026/11/25 22:00:00 [error] 7#7: *1 FastCGI sent in stderr: \"PHP message: PHP Fatal error:  Uncaught Error: no() in /srv/a.php:3\" while reading response header from upstream, client: 1.2.3.4, server: _",
                Some(Level::Fatal),
                "Uncaught Error: no() in /srv/a.php:3",
            ),
            (
                "2026/11/25 22:00:00 [error] 7#7: *1 FastCGI sent in stderr: \"PHP message: PHP Warning:  Undefined array key; PHP message: PHP Deprecated:  old\" while reading upstream, client: 1.2.3.4",
                Some(Level::Warning),
                "Undefined array key",
            ),
            (
                "2026/11/25 22:00:00 [error] 7#7: *1 FastCGI sent in stderr: \"PHP message: PHP Fatal error:  Uncaught Exception: x in /srv/a.php:1",
                Some(Level::Fatal),
                "Uncaught Exception: x in /srv/a.php:1",
            ),
            (
                "[Wed Nov 25 22:10:00.1 2026] [proxy_fcgi:error] [pid 7:tid 9] [client 1.2.3.4:5] AH01071: Got error 'PHP message: PHP Fatal error:  Allowed memory size exhausted in /srv/a.php on line 3', referer: https://shop.example/red-shoes",
                Some(Level::Fatal),
                "Allowed memory size exhausted in /srv/a.php on line 3",
            ),
            // Loggers.
            (
                "[2026-11-25 22:10:00] production.CRITICAL: gateway refuses everything {\"order\":7} []",
                Some(Level::Fatal),
                "gateway refuses everything",
            ),
            ("[2026-11-25 22:10:00] production.EMERGENCY: gone", Some(Level::Fatal), "gone"),
            (
                "[2026-11-25T22:10:00.123456+01:00] app.INFO: retry, payment failed [] []",
                Some(Level::Info),
                "retry, payment failed",
            ),
            (
                r#"{"message":"payment failed","level":200,"level_name":"INFO","channel":"app"}"#,
                Some(Level::Info),
                "payment failed",
            ),
            (r#"{"message":"x","level":100}"#, Some(Level::Info), "x"),
            (r#"{"message":"x","level":550}"#, Some(Level::Fatal), "x"),
            (r#"{"short_message":"x","level":3}"#, Some(Level::Error), ""),
            (r#"{"@timestamp":"2026-11-25T22:10:00Z","log.level":"error","message":"x"}"#, Some(Level::Error), "x"),
            (r#"{"log":{"level":"error"},"message":"x"}"#, Some(Level::Error), "x"),
            (
                r#"{"log":"2026/11/25 22:00:00 [error] 7#7: *1 connect() failed (111: Connection refused), client: 1.1.1.1\n","stream":"stderr","time":"2026-11-25T22:00:00.1Z"}"#,
                Some(Level::Error),
                "connect() failed (111: Connection refused)",
            ),
            (
                r#"{"message":"TypeError: x is undefined","timestamp":"2026-11-25T22:10:00","type":"err","app_name":"shop"}"#,
                Some(Level::Error),
                "TypeError: x is undefined",
            ),
            (r#"{"msg":"ready"}"#, Some(Level::Info), "ready"),
            (
                "[Error: Connection terminated] { code: 'X' }",
                Some(Level::Error),
                "[Error: Connection terminated] { code: 'X' }",
            ),
            ("[auth][error] MissingSecret: Read more", Some(Level::Error), "MissingSecret: Read more"),
            ("2026-11-25T22:10:00.1Z ERROR pool is empty", Some(Level::Error), ""),
            ("INFO payment failed, trying again", Some(Level::Info), ""),
            ("error - unhandled", Some(Level::Error), ""),
            ("HTTP 500 from upstream: error", Some(Level::Error), ""),
            ("compiled with 0 errors", Some(Level::Info), ""),
            // What strangers ask for.
            (
                "2026/11/25 22:00:00 [error] 7#7: *1 open() \"/srv/wp-login.php\" failed (2: No such file or directory), client: 1.1.1.1",
                Some(Level::Info),
                "",
            ),
            ("2026/11/25 22:00:00 [error] 7#7: *1 access forbidden by rule, client: 1.1.1.1", Some(Level::Info), ""),
            (
                "2026/11/25 22:00:00 [crit] 7#7: *1 SSL_do_handshake() failed (SSL: error:0A00006C:SSL routines::bad key share) while SSL handshaking, client: 1.1.1.1",
                Some(Level::Info),
                "",
            ),
            (
                "[Wed Nov 25 22:10:00.1 2026] [authz_core:error] [pid 7] [client 1.1.1.1:5] AH01630: client denied by server configuration: /srv/.env",
                Some(Level::Info),
                "",
            ),
            (
                "2026/11/25 22:00:00 [error] 7#7: *1 FastCGI sent in stderr: \"Primary script unknown\" while reading response header from upstream, client: 1.1.1.1",
                Some(Level::Info),
                "",
            ),
            (
                "2026/11/25 22:00:00 [error] 7#7: *1 SSL_do_handshake() failed (SSL: error:0A000086:SSL routines::certificate verify failed) while SSL handshaking to upstream, client: 1.1.1.1",
                Some(Level::Error),
                "",
            ),
            ("[25-Nov-2026 22:10:00 UTC] PHP Warning:  ldap: password mismatch", Some(Level::Warning), ""),
            ("[error] order 7 was not found in \"orders\"", Some(Level::Error), ""),
            // And what is an outage however much it looks like that.
            (
                "2026/11/25 22:00:00 [crit] 7#7: *1 connect() to unix:/run/php/php8.2-fpm.sock failed (2: No such file or directory) while connecting to upstream, client: 1.1.1.1",
                Some(Level::Fatal),
                "",
            ),
            (
                "2026/11/25 22:00:00 [crit] 7#7: *1 open() \"/var/lib/nginx/body/1\" failed (13: Permission denied), client: 1.1.1.1",
                Some(Level::Fatal),
                "",
            ),
        ] {
            let read = LogMessage::parse(line);
            assert_eq!(read.level, level, "{line}");
            if !text.is_empty() {
                assert_eq!(read.text, text, "{line}");
            }
        }
    }
    #[test]
    fn times_are_read_with_their_zone_or_as_of_the_place() {
        let at = |line: &str| LogMessage::parse(line).time;
        let utc = |text: &str| Some(LineTime::At(DateTime::parse_from_rfc3339(text).unwrap().to_utc()));
        let local = |text: &str| Some(LineTime::Local(text.parse().unwrap()));
        for (line, time) in [
            ("[25-Nov-2026 23:10:00 Africa/Lagos] PHP Warning:  x", utc("2026-11-25T22:10:00Z")),
            ("[2026-11-25T22:10:00.5+01:00] app.ERROR: x", utc("2026-11-25T21:10:00.5Z")),
            (r#"{"level":50,"time":1764108000000,"msg":"x"}"#, utc("2025-11-25T22:00:00Z")),
            (r#"{"level":"error","timestamp":"2026-11-25T22:10:00Z","message":"x"}"#, utc("2026-11-25T22:10:00Z")),
            ("2026/11/25 22:00:00 [error] 7#7: x", local("2026-11-25T22:00:00")),
            ("[Wed Nov 25 22:10:00.5 2026] [php:error] [pid 7] x", local("2026-11-25T22:10:00.5")),
            ("[2026-11-25 22:10:00] production.ERROR: x", local("2026-11-25T22:10:00")),
            ("2026-11-25T22:10:00Z ERROR x", utc("2026-11-25T22:10:00Z")),
            ("Error: x", None),
        ] {
            assert_eq!(at(line), time, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_breaks_it(line in ".{0,300}") {
            LogMessage::parse(&line);
            LogMessage::parse(&format!("2026/11/25 22:00:00 [error] {line}"));
            LogMessage::parse(&format!("[25-Nov-2026 22:10:00 UTC] PHP message: {line}"));
            LogMessage::parse(&format!("{{\"log\":{line:?},\"stream\":\"stderr\"}}"));
        }
    }
}
