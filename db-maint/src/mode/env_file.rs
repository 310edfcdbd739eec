//! A key in a `.env` file, as the Next.js shop reads it when it starts.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{MaintenanceSwitch, Notice, READABLE, replace};
use crate::error::{Error, ErrorKind, Result};

/// What the guide's shop calls it.
const KEY: &str = "NEXT_PUBLIC_MAINTENANCE_MODE";
/// What is said beside it. None of these reaches the browser, as what begins with `NEXT_PUBLIC_` does.
const UNTIL: &str = "MAINTENANCE_UNTIL";
const REASON: &str = "MAINTENANCE_REASON";
const BYPASS: &str = "MAINTENANCE_BYPASS_SHA256";

/// A `.env` file: `NEXT_PUBLIC_MAINTENANCE_MODE=true`, or another key; and `MAINTENANCE_UNTIL`, `MAINTENANCE_REASON`,
/// `MAINTENANCE_BYPASS_SHA256` beside it. Everything else in it stays as it is, comments and order included.
#[derive(Debug, Clone)]
pub struct EnvFile {
    path: PathBuf,
    key: String,
}

impl EnvFile {
    /// The file at this path; it has to exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), key: KEY.to_owned() }
    }

    /// The same with another key: letters, digits and `_`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for any other.
    pub fn with_key(mut self, key: &str) -> Result<Self> {
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Error::new(ErrorKind::Config, format!("{key:?} is no name of a variable"))
                .with_next_step("write letters, digits and _"));
        }
        key.clone_into(&mut self.key);
        Ok(self)
    }

    fn read(&self) -> Result<String> {
        std::fs::read_to_string(&self.path).map_err(|e| {
            Error::new(ErrorKind::Config, format!("{}: cannot be read: {e}", self.path.display()))
                .with_next_step("check the path, and the rights on it")
                .with_source(e)
        })
    }
}

#[async_trait]
impl MaintenanceSwitch for EnvFile {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    async fn on(&self, notice: &Notice) -> Result<()> {
        let text = self.read()?;
        let values = [
            (self.key.as_str(), Some("true".to_owned())),
            (UNTIL, Some(notice.until.to_rfc3339())),
            (REASON, Some(quoted(&notice.reason))),
            (BYPASS, notice.bypass_sha256.clone()),
        ];
        write(&self.path, &text, &values)
    }

    async fn off(&self) -> Result<()> {
        let text = self.read()?;
        let values = [(self.key.as_str(), Some("false".to_owned())), (UNTIL, None), (REASON, None), (BYPASS, None)];
        write(&self.path, &text, &values)
    }

    async fn status(&self) -> Result<Option<Notice>> {
        let text = self.read()?;
        // The last one counts, as it does for the shop.
        let value = |key: &str| text.lines().rev().find_map(|line| value_of(line, key));
        let is_on = matches!(value(&self.key).as_deref(), Some("true" | "1" | "on" | "yes"));
        if !is_on {
            return Ok(None);
        }
        let until = value(UNTIL).and_then(|until| DateTime::parse_from_rfc3339(&until).ok());
        Ok(Some(Notice {
            reason: value(REASON).unwrap_or_else(|| "no reason is given".to_owned()),
            // Closed by hand: nobody said until when.
            until: until.map_or(DateTime::<Utc>::MAX_UTC, |until| until.with_timezone(&Utc)),
            bypass_sha256: value(BYPASS),
        }))
    }
}

fn write(path: &Path, text: &str, values: &[(&str, Option<String>)]) -> Result<()> {
    let new = values.iter().fold(text.to_owned(), |text, (key, value)| with(&text, key, value.as_deref()));
    if new == text { Ok(()) } else { replace(path, &new, READABLE) }
}

/// The same text with this value for the key, or without the key.
fn with(text: &str, key: &str, value: Option<&str>) -> String {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut out = String::with_capacity(text.len() + 64);
    let mut is_there = false;
    for line in text.split_inclusive('\n') {
        match (value_of(line, key), value) {
            (None, _) => out.push_str(line),
            (Some(_), None) => {}
            (Some(_), Some(value)) => {
                is_there = true;
                let export = if line.trim_start().starts_with("export ") { "export " } else { "" };
                let line_end = &line[line.trim_end_matches(['\r', '\n']).len()..];
                out.push_str(&format!("{export}{key}={value}{line_end}"));
            }
        }
    }
    if let Some(value) = value.filter(|_| !is_there) {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push_str(end);
        }
        out.push_str(&format!("{key}={value}{end}"));
    }
    out
}

/// The value of the key, where this line gives it one.
fn value_of(line: &str, key: &str) -> Option<String> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let value = line.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim();
    for quote in ['"', '\''] {
        if let Some(inside) = value.strip_prefix(quote).and_then(|rest| rest.split(quote).next()) {
            return Some(inside.to_owned());
        }
    }
    // A comment may follow.
    Some(value.split(" #").next().unwrap_or(value).trim().to_owned())
}

/// A text that every reader of such files takes for itself: in quotes, without what ends them or means something within.
fn quoted(text: &str) -> String {
    let text: String = text.chars().map(|c| if matches!(c, '"' | '$' | '`' | '\\') { '\'' } else { c }).collect();
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_else_stays_as_it_is() {
        let text =
            "# shop\nDATABASE_URL=postgres://x # not this\n\nexport NEXT_PUBLIC_MAINTENANCE_MODE = \"false\"\r\nA=1";
        let on = with(text, KEY, Some("true"));
        assert_eq!(
            on,
            "# shop\nDATABASE_URL=postgres://x # not this\n\nexport NEXT_PUBLIC_MAINTENANCE_MODE=true\r\nA=1"
        );
        assert_eq!(with("A=1", KEY, Some("true")), "A=1\nNEXT_PUBLIC_MAINTENANCE_MODE=true\n");
        assert_eq!(with("A=1\nMAINTENANCE_UNTIL=x\nB=2\n", UNTIL, None), "A=1\nB=2\n");
        // Neither a comment nor another key.
        assert_eq!(value_of("# NEXT_PUBLIC_MAINTENANCE_MODE=true", KEY), None);
        assert_eq!(value_of("NEXT_PUBLIC_MAINTENANCE_MODE_2=true", KEY), None);
        assert_eq!(value_of("NEXT_PUBLIC_MAINTENANCE_MODE='true' # x", KEY).as_deref(), Some("true"));
        assert_eq!(value_of("NEXT_PUBLIC_MAINTENANCE_MODE=true # x", KEY).as_deref(), Some("true"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else_changes(text in "([A-Z_]{1,8}=[ -~]{0,12}\n|# [ -~]{0,12}\n|\n){0,8}", reason in "\\PC{0,30}") {
            let others = |text: &str| -> Vec<String> { text.lines().filter(|l| value_of(l, REASON).is_none()).map(str::to_owned).collect() };
            let on = with(&text, REASON, Some(&quoted(&reason)));
            prop_assert_eq!(others(&on), others(&text));
            let read = on.lines().rev().find_map(|line| value_of(line, REASON)).unwrap();
            prop_assert_eq!(format!("\"{read}\""), quoted(&reason));
            prop_assert_eq!(others(&with(&on, REASON, None)), others(&text));
        }
    }
}
