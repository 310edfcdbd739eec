//! Lines of error logs: of PHP, nginx, Apache; JSON lines of Node's loggers; plain text.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
}

impl<'a> LogMessage<'a> {
    /// Reads a line of any of the formats.
    pub fn parse(line: &'a str) -> Self {
        let line = line.trim_end();
        if line.starts_with('{') {
            // Cut off, or no JSON after all.
            return json(line).unwrap_or_else(|| Self { level: Some(guess(line)), text: line.into() });
        }
        nginx(line).or_else(|| bracketed(line)).unwrap_or_else(|| plain(line))
    }
}

/// `2026/11/25 22:00:00 [error] 12#12: *3 connect() failed (…), client: …, server: …`
fn nginx(line: &str) -> Option<LogMessage<'_>> {
    let bytes = line.as_bytes();
    if bytes.len() < 22 || bytes[4] != b'/' || bytes[7] != b'/' || bytes[20] != b'[' {
        return None;
    }
    let (word, rest) = line.get(21..)?.split_once(']')?;
    let text = rest.split_once(": ").map_or(rest, |(_, text)| text);
    let text = match text.strip_prefix('*') {
        Some(numbered) => numbered.split_once(' ').map_or(text, |(_, text)| text),
        None => text,
    };
    let text = text.split(", client: ").next().unwrap_or(text);
    Some(LogMessage { level: Some(level(word)?), text: text.trim().into() })
}

/// `[25-Nov-2026 22:10:00 UTC] PHP Fatal error:  …`, `[Wed Nov 25 22:10:00.1 2026] [php:error] [pid 7] [client …] …`
fn bracketed(line: &str) -> Option<LogMessage<'_>> {
    let (_, mut rest) = line.strip_prefix('[')?.split_once("] ")?;
    let mut found = None;
    while let Some((inside, after)) = rest.strip_prefix('[').and_then(|r| r.split_once("] ")) {
        found = found.or_else(|| level(inside.rsplit(':').next().unwrap_or(inside)));
        rest = after;
    }
    if let Some(php) = php(rest) {
        return Some(php);
    }
    Some(LogMessage { level: Some(found.unwrap_or_else(|| guess(rest))), text: rest.into() })
}

fn php(text: &str) -> Option<LogMessage<'_>> {
    // PHP writes the trace line by line, each with the time and the prefix again: "PHP   1. {main}()".
    if let Some(trace) = text.strip_prefix("PHP   ").or_else(|| text.strip_prefix("PHP Stack trace")) {
        return Some(LogMessage { level: None, text: trace.into() });
    }
    let (word, said) = text.strip_prefix("PHP ")?.split_once(": ")?;
    let level = match word.trim() {
        "Fatal error" | "Parse error" | "Core error" | "Compile error" | "Recoverable fatal error" => Level::Fatal,
        "Warning" | "Notice" | "Deprecated" | "Strict Standards" | "User Warning" | "User Notice" => Level::Warning,
        _ => Level::Error,
    };
    Some(LogMessage { level: Some(level), text: said.trim().into() })
}

fn json(line: &str) -> Option<LogMessage<'_>> {
    let value: Value = serde_json::from_str(line).ok()?;
    let object = value.as_object()?;
    let first = |names: &[&str]| names.iter().find_map(|n| object.get(*n));
    let level = match first(&["level", "severity", "lvl"]) {
        // The levels of pino and bunyan.
        Some(Value::Number(n)) => match n.as_f64()? {
            n if n >= 60.0 => Level::Fatal,
            n if n >= 50.0 => Level::Error,
            n if n >= 40.0 => Level::Warning,
            _ => Level::Info,
        },
        Some(Value::String(word)) => level(word).unwrap_or(Level::Error),
        // An error object without a level is an error; anything else is nothing known to be one.
        _ => match object.contains_key("error") || object.contains_key("err") || object.contains_key("stack") {
            true => Level::Error,
            false => Level::Info,
        },
    };
    let text = first(&["msg", "message", "error", "err"]).map(|v| match v {
        Value::String(text) => text.clone(),
        Value::Object(error) => error.get("message").and_then(Value::as_str).unwrap_or("an error").to_owned(),
        other => other.to_string(),
    });
    Some(LogMessage { level: Some(level), text: text.unwrap_or_else(|| line.to_owned()).into() })
}

fn plain(line: &str) -> LogMessage<'_> {
    let trimmed = line.trim_start();
    let belongs = line.starts_with([' ', '\t']) || trimmed.starts_with('#') || trimmed.is_empty();
    let marked = trimmed.starts_with('⨯') || trimmed.starts_with('✗');
    if (belongs && !marked) || trimmed.starts_with("Stack trace") || trimmed.starts_with("Caused by") {
        return LogMessage { level: None, text: trimmed.into() };
    }
    let text = trimmed.trim_start_matches(['⨯', '✗', '⚠', ' ']);
    let level = if marked { Level::Error } else { guess(trimmed) };
    LogMessage { level: Some(level), text: text.into() }
}

fn guess(text: &str) -> Level {
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    match () {
        () if has(&["fatal", "panic", "out of memory", "segfault"]) => Level::Fatal,
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
        w if w.starts_with("trace") => Level::Info,
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
        ] {
            let read = LogMessage::parse(line);
            assert_eq!(read.level, level, "{line}");
            if !text.is_empty() {
                assert_eq!(read.text, text, "{line}");
            }
        }
    }
}
