//! Looks in a file, one JSON object a line, the oldest first.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};

use super::Look;
use crate::activity::Unseen;
use crate::error::{Error, ErrorKind, Result};
use crate::replace::replace;

/// Looks are all kept for so long; then the last of each hour, and then of each day.
const EACH: TimeDelta = TimeDelta::hours(1);
const HOURLY: TimeDelta = TimeDelta::days(2);
/// Older ones are dropped.
const OLDEST: TimeDelta = TimeDelta::days(400);
/// Queries and indexes are kept for so long: what is judged by them is younger.
const DETAIL: TimeDelta = TimeDelta::days(8);
/// So many tables are kept in older looks: the largest.
const LARGEST: usize = 200;

/// The looks at one database, the oldest first. It thins out by itself: all of an hour, one an hour for two days, one a day for
/// 400 days.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    looks: Vec<Look>,
}

impl History {
    /// What a file holds; nothing where there is no such file yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it cannot be read, or a line of it is no look: a history with a hole in it is none.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: String| {
            Error::new(ErrorKind::Config, format!("{}: {why}", path.display()))
                .with_next_step("name a file that `growth` or `inspect` wrote, or a new one")
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(wrong(format!("cannot be read: {e}")).with_source(e)),
        };
        let mut history = Self::default();
        for (at, line) in text.lines().enumerate() {
            let look = serde_json::from_str(line)
                .map_err(|e| wrong(format!("line {} is no look: {e}", at + 1)).with_source(e))?;
            history.push(look).map_err(|e| wrong(format!("line {}: {e}", at + 1)).with_source(e))?;
        }
        Ok(history)
    }

    /// Writes it, whole or not at all; a new file is for its owner alone.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        for look in &self.looks {
            let line = serde_json::to_string(look)
                .map_err(|e| Error::new(ErrorKind::Config, "a look cannot be written as JSON").with_source(e))?;
            text.push_str(&line);
            text.push('\n');
        }
        replace(path, &text, 0o600)
    }

    /// Adds a look to the file at this path: all looks then. Others who add one to it at the same time wait.
    ///
    /// # Errors
    /// As [`read`](Self::read), [`push`](Self::push) and [`write`](Self::write).
    pub fn add(path: &Path, look: Look) -> Result<Self> {
        // The folder, for the file itself is replaced.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let wrong = |e: std::io::Error| {
            Error::new(ErrorKind::Config, format!("{}: cannot be used: {e}", folder.display()))
                .with_next_step("name a file in a folder that is there")
                .with_source(e)
        };
        let lock = std::fs::File::open(folder).map_err(wrong)?;
        lock.lock().map_err(wrong)?;
        let mut history = Self::read(path)?;
        history.push(look)?;
        history.write(path)?;
        Ok(history)
    }

    /// Adds a look. Looks that say that they were taken later are dropped: a clock was wrong then.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is of another database.
    pub fn push(&mut self, mut look: Look) -> Result<()> {
        self.is_of(&look.location)?;
        let count = self.looks.len();
        self.looks.retain(|earlier| earlier.taken_at <= look.taken_at);
        if self.looks.len() < count {
            tracing::warn!(looks = count - self.looks.len(), "looks of a time that has not come yet are dropped");
        }
        if let Some(last) = self.looks.last_mut() {
            if last.server != look.server {
                // Another server counts for itself: after a failover, say.
                forget(last, "another server was looked at");
            }
            // One that saw none knows no better than the one before.
            if look.indexes.is_empty() {
                look.indexes.clone_from(&last.indexes);
            }
            for (index, since) in &mut look.indexes {
                if let Some(before) = last.indexes.get(index) {
                    *since = *before;
                }
            }
        }
        let now = look.taken_at;
        self.looks.push(look);
        self.thin(now);
        Ok(())
    }

    /// Whether it is of this database, as far as it is of any.
    pub(crate) fn is_of(&self, location: &str) -> Result<()> {
        match self.looks.first().filter(|first| first.location != location) {
            None => Ok(()),
            Some(first) => {
                let text = format!("the history is of {}, and this is a look at {location}", first.location);
                Err(Error::new(ErrorKind::Config, text).with_next_step("keep a file for each database"))
            }
        }
    }

    /// The looks, the oldest first.
    pub fn looks(&self) -> &[Look] {
        &self.looks
    }

    /// The newest that was taken at least so long before.
    pub(crate) fn before(&self, now: DateTime<Utc>, least: TimeDelta) -> Option<&Look> {
        self.looks.iter().rev().find(|look| now - look.taken_at >= least)
    }

    /// The looks from this one on.
    pub(crate) fn since(&self, at: DateTime<Utc>) -> impl Iterator<Item = &Look> {
        self.looks.iter().filter(move |look| look.taken_at >= at)
    }

    fn thin(&mut self, now: DateTime<Utc>) {
        let count = self.looks.len();
        let is_last = |at: usize, of: &dyn Fn(&Look) -> i64| {
            self.looks.get(at + 1).is_none_or(|next| of(next) != of(&self.looks[at]))
        };
        let stays: Vec<bool> = (0..count)
            .map(|at| match now - self.looks[at].taken_at {
                age if age <= EACH => true,
                age if age <= HOURLY => is_last(at, &|look| look.taken_at.timestamp().div_euclid(3_600)),
                age => age <= OLDEST && is_last(at, &|look| look.taken_at.timestamp().div_euclid(86_400)),
            })
            .collect();
        let mut stays = stays.into_iter();
        self.looks.retain(|_| stays.next().unwrap_or(true));
        let newest = self.looks.len().saturating_sub(1);
        for (at, look) in self.looks.iter_mut().enumerate() {
            // Each look knows of every index since when it is there: the last is enough.
            if at < newest {
                look.indexes.clear();
            }
            if now - look.taken_at > DETAIL {
                forget(look, "it is too long ago");
                if let Ok(sizes) = &mut look.sizes {
                    sizes.keep_largest(LARGEST);
                }
            }
        }
    }
}

/// What a look counted is of no use to later ones.
fn forget(look: &mut Look, why: &str) {
    let gone = || Unseen::unknown(why, "look again later");
    (look.queries, look.cache) = (Err(gone()), Err(gone()));
}

#[cfg(test)]
mod tests {
    use super::super::sample::blind;
    use super::*;

    fn at(hours: i64) -> Look {
        let mut look = blind(DateTime::UNIX_EPOCH + TimeDelta::hours(hours));
        look.indexes.insert("orders.a".into(), look.taken_at);
        look
    }

    #[test]
    fn it_thins_out_and_never_forgets_the_newest() {
        let mut history = History::default();
        for hour in 0..24 * 500 {
            history.push(at(hour)).unwrap();
        }
        let count = history.looks().len();
        assert!((400..=460).contains(&count), "{count}");
        let last = history.looks().last().unwrap();
        assert_eq!(last.taken_at, at(24 * 500 - 1).taken_at);
        // Since the first look, though that is gone.
        assert_eq!(last.indexes["orders.a"], DateTime::UNIX_EPOCH);
        let day = history.before(last.taken_at, TimeDelta::days(1)).unwrap();
        assert_eq!(last.taken_at - day.taken_at, TimeDelta::days(1));
    }

    #[test]
    fn it_survives_a_file_and_a_slip_has_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let mut history = History::read(&path).unwrap();
        assert!(history.looks().is_empty());
        for hour in 0..3 {
            history.push(at(hour)).unwrap();
        }
        history.write(&path).unwrap();
        assert_eq!(History::read(&path).unwrap(), history);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.trim_end().rsplit_once('}').unwrap().0).unwrap();
        let e = History::read(&path).unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.to_string().contains("line 3"), "{e}");
    }

    #[test]
    fn two_databases_are_refused_and_looks_from_the_future_dropped() {
        let mut history = History::default();
        history.push(at(4)).unwrap();
        history.push(at(9_000)).unwrap();
        history.push(at(5)).unwrap();
        let left: Vec<_> = history.looks().iter().map(|look| look.taken_at).collect();
        assert_eq!(left, [at(4).taken_at, at(5).taken_at]);
        let other = Look { location: "postgres://db/other".into(), ..at(6) };
        assert_eq!(history.push(other).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn another_server_counts_for_itself_and_what_is_long_ago_is_not_now() {
        use crate::look::queries::Queries;
        let counted = |hours: i64, server: &str| Look {
            queries: Ok(Queries::default()),
            server: Some(server.into()),
            ..at(hours)
        };
        let mut history = History::default();
        history.push(counted(0, "a")).unwrap();
        history.push(counted(1, "a")).unwrap();
        assert!(history.looks()[0].queries.is_ok());
        history.push(counted(2, "b")).unwrap();
        assert!(history.looks()[1].queries.is_err() && history.looks()[2].queries.is_ok());
        history.push(counted(300, "b")).unwrap();
        assert!(history.looks()[..history.looks().len() - 1].iter().all(|look| look.queries.is_err()));
    }

    #[test]
    fn two_who_add_a_look_at_once_lose_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        std::thread::scope(|scope| {
            for minute in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let mut look = at(0);
                    // In any order: all of one moment.
                    look.indexes.insert(format!("index {minute}"), look.taken_at);
                    History::add(path, look).unwrap();
                });
            }
        });
        assert_eq!(History::read(&path).unwrap().looks().len(), 8);
    }
}
