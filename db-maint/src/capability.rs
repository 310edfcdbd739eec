//! What a server is and shows to this user: found out once, before anything is judged.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Which kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// PostgreSQL.
    Postgres,
    /// MySQL.
    Mysql,
    /// MariaDB.
    MariaDb,
    /// SQLite.
    Sqlite,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
            Self::MariaDb => "MariaDB",
            Self::Sqlite => "SQLite",
        })
    }
}

/// A server's version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// As in 17.2 or 10.11.6: the first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl Version {
    /// The numbers at the beginning of a text such as `10.11.6-MariaDB-0+deb12u1`.
    pub(crate) fn parse(text: &str) -> Self {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].split('.').map(|n| n.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self { major: next(), minor: next(), patch: next() }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What the server that answered is among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// It takes writes, and no replica of it is known.
    Single,
    /// It takes writes, and replicas follow it: what is read there is counted there.
    Primary,
    /// It follows another one.
    Replica,
    /// This user may not ask.
    Unknown,
}

/// What counts the use of indexes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexUsage {
    /// This does.
    CountedBy(String),
    /// Nothing does, for this reason; it could.
    NotCounted(String),
    /// The engine cannot count it.
    Uncountable,
}

/// What a server is, and what this user may see of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// Which kind of database.
    pub flavour: Flavour,
    /// Its version.
    pub version: Version,
    /// Where it is, as messages call it: no password.
    pub location: String,
    /// What it is among others.
    pub role: NodeRole,
    /// Extensions that are installed (PostgreSQL).
    pub extensions: BTreeSet<String>,
    /// Whether this user sees all tables of the database, and not only those that it has a right on.
    pub sees_tables: bool,
    /// Whether this user sees what other users' sessions do.
    pub sees_sessions: bool,
    /// Since when the server has counted what it counts; `None` where it does not count or does not say.
    pub counting_since: Option<DateTime<Utc>>,
    /// What counts the use of indexes.
    pub index_usage: IndexUsage,
    /// What the server's clock said.
    pub server_time: DateTime<Utc>,
}

/// A server that shows everything.
#[cfg(test)]
pub(crate) fn sample() -> Capabilities {
    Capabilities {
        flavour: Flavour::Postgres,
        version: Version { major: 17, minor: 2, patch: 0 },
        location: "postgres://db/shop".into(),
        role: NodeRole::Single,
        extensions: BTreeSet::new(),
        sees_tables: true,
        sees_sessions: true,
        counting_since: Some(DateTime::UNIX_EPOCH),
        index_usage: IndexUsage::CountedBy("pg_stat_user_indexes".into()),
        server_time: DateTime::UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_numbers_at_the_beginning() {
        let of = |text| Version::parse(text).to_string();
        assert_eq!(of("10.11.6-MariaDB-0+deb12u1"), "10.11.6");
        assert_eq!(of("17.2 (Debian 17.2-1)"), "17.2.0");
        assert_eq!(of("9.7.4"), "9.7.4");
        assert_eq!(of("devel"), "0.0.0");
        assert!(Version::parse("10.11.6") > Version::parse("10.6.20"));
    }
}
