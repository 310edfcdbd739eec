//! Values in a shop's file: spans of time, secrets.

use std::time::Duration;

use health_probe::{Error, ErrorKind, Result};
use serde::{Deserialize, Deserializer};

/// A span of time, at least a second: `90s`, `15m`, `24h`, `30d`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let period: db_maint::Period = text.parse().map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is no span of time: write a number and a unit: 90s, 15m, 24h, 30d"
            ))
        })?;
        Ok(Self(period.duration().max(Duration::from_secs(1))))
    }
}

/// Something that may be a secret: written out, `env:NAME`, or `file:PATH`.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Secret {
    pub(crate) fn read(&self, what: &str) -> Result<String> {
        let wrong =
            |why: String, next: &str| Error::new(ErrorKind::Config, format!("{what}: {why}")).with_next_step(next);
        if let Some(name) = self.0.strip_prefix("env:") {
            return match std::env::var(name) {
                Ok(value) if !value.is_empty() => Ok(value),
                _ => Err(wrong(
                    format!("the variable {name} is not set"),
                    "set it where this is started, or write file:PATH",
                )),
            };
        }
        if let Some(path) = self.0.strip_prefix("file:").filter(|p| !p.starts_with("//")) {
            let text = std::fs::read_to_string(path)
                .map_err(|e| wrong(format!("{path} cannot be read: {e}"), "check the path and who may read it"))?;
            return Ok(text.trim_end().to_owned());
        }
        Ok(self.0.clone())
    }
}

/// A value that may be `env:NAME` or `file:PATH`.
///
/// # Errors
/// [`ErrorKind::Config`] where that is not there; it names `what`.
pub fn secret(value: &str, what: &str) -> Result<String> {
    Secret(value.to_owned()).read(what)
}
