//! Registers: secrets by name and age, contacts, and how old software may get.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::ledger::{Entries, Record};

/// A secret, by its name. Its value is never written here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// What it is called: `STRIPE_SECRET_KEY`.
    pub name: String,
    /// Who sees to it.
    pub owner: String,
    /// When it was made, or changed last before this register was kept.
    pub since: NaiveDate,
    /// After how many days it is changed.
    #[serde(default = "quarter")]
    pub rotate_days: u32,
}

fn quarter() -> u32 {
    90
}

/// How old a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SecretAge {
    /// Its name.
    pub name: String,
    /// Who sees to it.
    pub owner: String,
    /// When it was changed last.
    pub since: NaiveDate,
    /// When it has to be changed.
    pub due: NaiveDate,
    /// Days until then; below 0 where that is past.
    pub days_left: i64,
}

/// Each secret with its age, the most urgent first; what the ledger says was changed is as old as that.
pub fn secret_ages(secrets: &[Secret], entries: &Entries, now: DateTime<Utc>) -> Vec<SecretAge> {
    let rotated = |name: &str| {
        entries.all.iter().rev().find_map(|(entry, _)| match &entry.record {
            Record::Rotated { secret, .. } if secret == name => Some(entry.at.date_naive()),
            _ => None,
        })
    };
    let mut ages: Vec<SecretAge> = secrets
        .iter()
        .map(|secret| {
            let since = rotated(&secret.name).map_or(secret.since, |at| at.max(secret.since));
            let due = TimeDelta::try_days(secret.rotate_days.into())
                .and_then(|days| since.checked_add_signed(days))
                .unwrap_or(NaiveDate::MAX);
            let (name, owner) = (secret.name.clone(), secret.owner.clone());
            SecretAge { name, owner, since, due, days_left: (due - now.date_naive()).num_days() }
        })
        .collect();
    ages.sort_by(|a, b| a.due.cmp(&b.due).then_with(|| a.name.cmp(&b.name)));
    ages
}

/// Somebody to call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// What for, such as `primary on-call`, `hosting`, `payment provider`.
    pub role: String,
    /// Who.
    #[serde(default)]
    pub name: Option<String>,
    /// Where: numbers, addresses, pages.
    pub reach: Vec<String>,
}

/// Software whose versions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Software {
    /// PHP.
    Php,
    /// Node.js.
    Node,
    /// PostgreSQL.
    Postgres,
    /// MySQL.
    Mysql,
    /// MariaDB.
    MariaDb,
}

/// The date of the table below.
pub const END_OF_LIFE_AS_OF: &str = "2026-11";

/// Version and last day, by the projects' own announcements: php.net/supported-versions, nodejs.org/en/about/previous-releases,
/// postgresql.org/support/versioning, MySQL's lifetime support policy, mariadb.org/about/#maintenance-policy.
const END_OF_LIFE: [(Software, &str, (i32, u32, u32)); 29] = [
    (Software::Php, "8.0", (2023, 11, 26)),
    (Software::Php, "8.1", (2025, 12, 31)),
    (Software::Php, "8.2", (2026, 12, 31)),
    (Software::Php, "8.3", (2027, 12, 31)),
    (Software::Php, "8.4", (2028, 12, 31)),
    (Software::Php, "8.5", (2029, 12, 31)),
    (Software::Node, "18", (2025, 4, 30)),
    (Software::Node, "20", (2026, 4, 30)),
    (Software::Node, "22", (2027, 4, 30)),
    (Software::Node, "24", (2028, 4, 30)),
    (Software::Postgres, "12", (2024, 11, 21)),
    (Software::Postgres, "13", (2025, 11, 13)),
    (Software::Postgres, "14", (2026, 11, 12)),
    (Software::Postgres, "15", (2027, 11, 11)),
    (Software::Postgres, "16", (2028, 11, 9)),
    (Software::Postgres, "17", (2029, 11, 8)),
    (Software::Postgres, "18", (2030, 11, 14)),
    (Software::Mysql, "5.7", (2023, 10, 31)),
    (Software::Mysql, "8.0", (2026, 4, 30)),
    (Software::Mysql, "8.4", (2032, 4, 30)),
    (Software::MariaDb, "10.3", (2023, 5, 25)),
    (Software::MariaDb, "10.4", (2024, 6, 18)),
    (Software::MariaDb, "10.5", (2025, 6, 24)),
    (Software::MariaDb, "10.6", (2026, 7, 6)),
    (Software::MariaDb, "10.11", (2028, 2, 16)),
    (Software::MariaDb, "11.4", (2029, 5, 29)),
    (Software::MariaDb, "11.8", (2028, 6, 4)),
    (Software::Node, "16", (2023, 9, 11)),
    (Software::Node, "14", (2023, 4, 30)),
];

impl Software {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Php => "PHP",
            Self::Node => "Node.js",
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
            Self::MariaDb => "MariaDB",
        }
    }

    /// The last day on which a version such as `8.2.7` or `v22.1.0` is mended; `None` where the table does not know it.
    pub fn end_of_life(self, version: &str) -> Option<NaiveDate> {
        let version = version.trim().trim_start_matches(['v', 'V']);
        let known = END_OF_LIFE.iter().filter(|(software, _, _)| *software == self);
        let is = |release: &str| {
            version == release || version.strip_prefix(release).is_some_and(|rest| rest.starts_with('.'))
        };
        let (_, _, (year, month, day)) = known.into_iter().find(|(_, release, _)| is(release))?;
        NaiveDate::from_ymd_opt(*year, *month, *day)
    }

    /// Whether a version is older than all that the table knows: then it has ended, too.
    pub fn is_older_than_known(self, version: &str) -> bool {
        let numbers = |text: &str| -> Vec<u32> {
            text.trim().trim_start_matches(['v', 'V']).split('.').map_while(|part| part.parse().ok()).take(2).collect()
        };
        let oldest = END_OF_LIFE.iter().filter(|(software, _, _)| *software == self).map(|(_, v, _)| numbers(v)).min();
        let version = numbers(version);
        !version.is_empty() && oldest.is_some_and(|oldest| version < oldest)
    }
}

/// What a version is worth: mended, soon not, not any more.
#[cfg(any(feature = "database", feature = "host"))]
pub(crate) fn judge_version(software: Software, version: &str, now: DateTime<Utc>) -> crate::outcome::Finding {
    use crate::outcome::Finding;
    let (name, today) = (software.name(), now.date_naive());
    let short: String = version.chars().take(40).collect();
    let found = match software.end_of_life(version) {
        Some(end) if end < today => {
            Finding::fail(format!("{name} {short} is not mended any more since {end}")).at(name, None, &short)
        }
        Some(end) if (end - today).num_days() < 183 => {
            Finding::warn(format!("{name} {short} is mended until {end} only")).at(name, None, &short)
        }
        Some(end) => Finding::pass(format!("{name} {short} is mended until {end}")),
        None if software.is_older_than_known(version) => {
            Finding::fail(format!("{name} {short} is older than all versions that are mended")).at(name, None, &short)
        }
        None => Finding::unknown(format!("{name} {short} is not in the table of {END_OF_LIFE_AS_OF}")),
    };
    found.with_fact(format!("{name} {short}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_their_last_day() {
        let day = |y, m, d| NaiveDate::from_ymd_opt(y, m, d);
        assert_eq!(Software::Php.end_of_life("8.2.29"), day(2026, 12, 31));
        assert_eq!(Software::Node.end_of_life("v22.11.0"), day(2027, 4, 30));
        assert_eq!(Software::Postgres.end_of_life("17.6"), day(2029, 11, 8));
        assert_eq!(Software::MariaDb.end_of_life("10.11.14-MariaDB"), day(2028, 2, 16));
        assert_eq!(Software::MariaDb.end_of_life("10.1"), None);
        assert!(Software::MariaDb.is_older_than_known("10.1.48") && Software::Php.is_older_than_known("7.4.33"));
        assert!(!Software::Php.is_older_than_known("9.0"), "what is newer than the table is not known");
        assert_eq!(Software::Php.end_of_life("8.20"), None);
    }

    #[test]
    fn the_most_urgent_secret_is_first_and_a_rotation_counts() {
        let now = DateTime::parse_from_rfc3339("2026-11-26T12:00:00Z").unwrap().to_utc();
        let secret = |name: &str, since| Secret { name: name.into(), owner: "Anna".into(), since, rotate_days: 90 };
        let secrets = [
            secret("A", NaiveDate::from_ymd_opt(2026, 1, 1).unwrap()),
            secret("B", NaiveDate::from_ymd_opt(2026, 9, 1).unwrap()),
        ];
        let ages = secret_ages(&secrets, &Entries::default(), now);
        assert_eq!(ages.iter().map(|a| (a.name.as_str(), a.days_left)).collect::<Vec<_>>(), [("A", -239), ("B", 4)]);
    }
}
