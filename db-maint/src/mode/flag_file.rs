//! A file whose presence closes the shop: nginx tests for it, PHP reads it.

use std::io::ErrorKind as Io;
use std::path::PathBuf;

use async_trait::async_trait;

use super::{MaintenanceSwitch, Notice, READABLE, replace};
use crate::error::{Error, ErrorKind, Result};

/// A file that is there while the shop is closed, with the [`Notice`] as JSON in it: `reason`, `until`, `bypass_sha256`.
#[derive(Debug, Clone)]
pub struct FlagFile {
    path: PathBuf,
}

impl FlagFile {
    /// The file at this path; its folder has to exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn wrong(&self, what: &str, e: std::io::Error) -> Error {
        Error::new(ErrorKind::Config, format!("{}: {what}: {e}", self.path.display()))
            .with_next_step("check the folder and the rights on it")
            .with_source(e)
    }
}

#[async_trait]
impl MaintenanceSwitch for FlagFile {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    async fn on(&self, notice: &Notice) -> Result<()> {
        let text = serde_json::to_string(notice)
            .map_err(|e| Error::new(ErrorKind::Config, "the notice cannot be written down").with_source(e))?;
        replace(&self.path, &(text + "\n"), READABLE)
    }

    async fn off(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != Io::NotFound => Err(self.wrong("cannot be removed", e)),
            _ => Ok(()),
        }
    }

    async fn status(&self) -> Result<Option<Notice>> {
        match std::fs::read_to_string(&self.path) {
            // One that was made by hand closes the shop too.
            Ok(text) => Ok(Some(
                serde_json::from_str(&text)
                    .unwrap_or_else(|_| Notice::new("closed by hand", chrono::DateTime::<chrono::Utc>::MAX_UTC)),
            )),
            Err(e) if e.kind() == Io::NotFound => Ok(None),
            Err(e) => Err(self.wrong("cannot be read", e)),
        }
    }
}
