//! Which snapshot is meant.

use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Snapshot;
use crate::repository::Catalog;

/// Says which snapshot is meant: `latest`, `before:2026-01-31T12:00:00Z`, or an id as `list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// The newest full snapshot.
    Latest,
    /// The newest full snapshot of a state before this instant: the one from before an incident.
    Before(DateTime<Utc>),
    /// The snapshot with this id.
    Id(String),
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(instant) = text.strip_prefix("before:") {
            let instant = DateTime::parse_from_rfc3339(instant).map_err(|e| {
                Error::new(ErrorKind::Config, format!("{instant:?} is no instant: {e}"))
                    .with_next_step("write it as 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00")
            })?;
            return Ok(Self::Before(instant.to_utc()));
        }
        Ok(Self::Id(text.to_owned()))
    }
}

impl Catalog {
    /// The snapshot that is meant, of the source called `of`, which may be left out where there is only one.
    ///
    /// # Errors
    /// [`ErrorKind::Ambiguous`] where several sources fit, [`ErrorKind::NotFound`] where nothing does, and
    /// [`ErrorKind::Damaged`] where a newer record than the one found cannot be read: then "latest" is not known.
    pub fn select(&self, selector: &Selector, of: Option<&str>) -> Result<&Snapshot> {
        let of_source = |s: &&Snapshot| of.is_none_or(|of| s.manifest.source.name == of);
        let found = match selector {
            Selector::Id(id) => {
                let fits = |s: &&Snapshot| s.id.as_str() == id || s.record.to_string() == *id;
                return self.snapshots.iter().find(fits).ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("there is no snapshot {id:?}"))
                        .with_next_step("`backup list` shows the ids")
                });
            }
            Selector::Latest => {
                self.check_continuation()?;
                self.unambiguous(of)?;
                self.snapshots.iter().filter(of_source).rfind(|s| s.manifest.is_full())
            }
            Selector::Before(instant) => {
                self.check_continuation()?;
                self.unambiguous(of)?;
                self.snapshots
                    .iter()
                    .filter(of_source)
                    .filter(|s| s.manifest.is_full() && s.manifest.taken_at < *instant)
                    .max_by_key(|s| (s.manifest.taken_at, s.record))
            }
        };
        let after = found.map_or(0, |s| s.record.sequence);
        let names = self.damaged.iter().map(|(n, _)| *n).chain(self.missing.iter().chain(&self.sealed).copied());
        let unreadable = names.filter(|n| n.sequence > after).min();
        if let (Some(record), Selector::Latest) = (unreadable, selector) {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!(
                    "record {} of the log is newer and cannot be read: which snapshot is the latest is not known",
                    record.brief()
                ),
            )
            .with_next_step(
                "run `backup verify`; to restore an older one all the same, name it by the id that `backup list` shows",
            ));
        }
        found.ok_or_else(|| {
            let whose = of.map_or_else(String::new, |of| format!(" of {of:?}"));
            Error::new(ErrorKind::NotFound, format!("there is no full snapshot{whose} that fits"))
                .with_next_step("`backup list` shows what there is")
        })
    }

    fn unambiguous(&self, of: Option<&str>) -> Result<()> {
        if of.is_some() {
            return Ok(());
        }
        let mut names: Vec<_> = self.snapshots.iter().map(|s| s.manifest.source.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > 1 {
            return Err(Error::new(
                ErrorKind::Ambiguous,
                format!("there are snapshots of several sources: {}", names.join(", ")),
            )
            .with_next_step("say which with --of NAME"));
        }
        Ok(())
    }
}
