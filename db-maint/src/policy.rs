//! What a shop declares about its own data: how long rows are kept, which columns refer to which tables though no key says so,
//! what low stock is, when a cart is abandoned, what content waits, which rows must stay whatever the rules say.
//!
//! A policy is data (`serde`; the tools read it as TOML). Names are written as the database shows them, without quotes; `where`
//! is SQL of the shop's own, one condition. Nothing runs before every rule, and every hold, has been held against the live schema.

pub(crate) mod condition;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// All rules of a shop.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Policy {
    /// How long rows are kept.
    pub retention: Vec<Retention>,
    /// References that no foreign key declares.
    pub reference: Vec<Reference>,
    /// Rows that stay, whatever the rules say.
    pub hold: Vec<Hold>,
    /// Where what is known of one person lies.
    pub privacy: Vec<PersonalData>,
    /// What of the content is stale or waits.
    pub content: Vec<ContentRule>,
    /// What is cleared when the shop's caches are.
    pub cache: Vec<CacheAction>,
    /// Who may read what, and who the shop's own administrators are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessRule>,
    /// When a product is about to run out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stock: Option<StockRule>,
    /// When a cart is abandoned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cart: Option<CartRule>,
}

impl Policy {
    /// Names that two rules have: how far each has come is kept by its name.
    pub(crate) fn names_used_twice(&self) -> Vec<String> {
        let mut names: Vec<&String> =
            self.retention.iter().map(|r| &r.name).chain(self.reference.iter().map(|r| &r.name)).collect();
        names.sort();
        let mut twice: Vec<String> =
            names.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0].clone()).collect();
        twice.dedup();
        twice
    }

    /// The references, those to a table after those of that table: what goes there makes orphans here, which go in the same run.
    pub(crate) fn references_in_order(&self) -> Vec<&Reference> {
        let mut left: Vec<&Reference> = self.reference.iter().collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            // One that waits for none of the others; where they go in a circle, the first.
            let waits = |rule: &Reference| left.iter().any(|other| !std::ptr::eq(*other, rule) && feeds(other, rule));
            let next = left.iter().position(|rule| !waits(rule)).unwrap_or(0);
            order.push(left.remove(next));
        }
        order
    }

    /// Rules that delete what others refer to, in a circle: their names.
    pub(crate) fn cycle(&self) -> Option<Vec<String>> {
        let rules: Vec<&Reference> = self.reference.iter().collect();
        for start in &rules {
            let mut paths = vec![vec![*start]];
            while let Some(path) = paths.pop() {
                let Some(last) = path.last() else { continue };
                for next in rules.iter().filter(|next| feeds(last, next)) {
                    if std::ptr::eq(*next, *start) {
                        let mut names: Vec<String> = path.iter().map(|r| r.name.clone()).collect();
                        names.push(start.name.clone());
                        return Some(names);
                    }
                    if !path.iter().any(|r| std::ptr::eq(*r, *next)) {
                        paths.push(path.iter().copied().chain([*next]).collect());
                    }
                }
            }
        }
        None
    }
}

/// Whether what `a` deletes is what `b` refers to, and `b` deletes then.
fn feeds(a: &Reference, b: &Reference) -> bool {
    a.action == ReferenceAction::Delete
        && b.action == ReferenceAction::Delete
        && a.table == b.to
        && (a.schema.is_none() || b.to_schema.is_none() || a.schema == b.to_schema)
}

/// What of the shop's content is stale, or waits for somebody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentRule {
    /// What the rule is called.
    pub name: String,
    /// The table's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// Which rows: a condition in SQL.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The column that says how old a row is, where that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// How old a row has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older: Option<Period>,
    /// What its numbers count since 1970, where it holds numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// What zone its times are in; as in a retention rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// The column that people know a row by: the first ten are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// So many such rows are well; none, unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u64>,
    /// So many such rows there have to be, such as one banner that is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<u64>,
    /// What is to be done then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// One cache of the shop: exactly one of `directory`, `redis` and `http`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheAction {
    /// What it is called.
    pub name: String,
    /// A folder whose files go; the folder stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryCache>,
    /// Keys in Redis with one prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisCache>,
    /// A request that a web server, a CDN or the shop itself clears its cache by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCache>,
}

/// A folder of files that can be made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryCache {
    /// Where it is: a whole path, that ends in a folder called `cache`, `.cache` or the like, or has a `CACHEDIR.TAG` in it.
    pub path: PathBuf,
    /// Only files that nobody has written to for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older: Option<Period>,
}

/// Keys in Redis, or what speaks like it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisCache {
    /// `redis://HOST:PORT/NUMBER` or `unix:///PATH`, without a password.
    pub url: String,
    /// The environment variable with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// What the keys begin with; never empty.
    pub prefix: String,
}

/// A request that clears a cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCache {
    /// `http://…` or `https://…`.
    pub url: String,
    /// `PURGE` unless told; `POST`, `DELETE` and `BAN` are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The header that shows who asks, such as `Authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The environment variable with that header's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// Also a good answer: 404, where nothing was cached. 200 to 299 are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<u16>,
}

/// Who may read what, and who the shop's administrators are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessRule {
    /// Roles that may do anything, such as the one that owns the server.
    pub trusted: Vec<String>,
    /// Tables that not everybody may see: payments, customers.
    pub table: Vec<SensitiveTable>,
    /// The shop's own administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admins: Option<AdminRule>,
}

/// A table that not everybody may see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensitiveTable {
    /// The table's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// Roles that may read it; others that can are told.
    #[serde(default)]
    pub readers: Vec<String>,
    /// Roles that may change it, and read it.
    #[serde(default)]
    pub writers: Vec<String>,
}

/// The shop's own table of those who may administer it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminRule {
    /// The table's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// The column that people know an administrator by, such as `email`.
    pub label: String,
    /// Which rows are administrators: a condition in SQL. All, unless told.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Who they should be, where that is written down; others are told, and so is who is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Vec<String>>,
    /// The column that says when somebody was here last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// What its numbers count since 1970, where it holds numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// What zone its times are in; as in a retention rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// After how long one who was not here is told; 90 days unless told.
    #[serde(default = "three_months")]
    pub idle: Period,
}

fn three_months() -> Period {
    Period::new(TimeDelta::days(90))
}

/// A table with what is known of one person, and what becomes of it when the person asks to be forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonalData {
    /// The table's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// The column that says whose a row is. An index has to begin with it, or it is the key.
    pub column: String,
    /// What becomes of the rows.
    pub action: ErasureAction,
    /// For `keep`: by which law.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `anonymise`: as in a retention rule.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// For `anonymise`: as in a retention rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_null: Vec<String>,
    /// Columns that are not the person's to have, such as hashes of passwords: left out of an export.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omit: Vec<String>,
}

/// What becomes of what is known of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErasureAction {
    /// It is deleted.
    Delete,
    /// It stays, without what says whose it was.
    Anonymise,
    /// It stays as it is, for a reason that is given.
    Keep,
}

impl fmt::Display for ErasureAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delete => "delete",
            Self::Anonymise => "anonymise",
            Self::Keep => "keep",
        })
    }
}

/// When a product, or a variant of one, is about to run out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StockRule {
    /// The table's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table: one row for each thing that is sold.
    pub table: String,
    /// The column that people know a thing by, such as `sku`. It tells the rows apart.
    pub label: String,
    /// The column with how many there are.
    pub stock: String,
    /// The column with how many there have to be. Either this or `threshold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_column: Option<String>,
    /// How many there have to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
    /// How many of them are promised already: an expression in SQL, such as the sum of what lies in open orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<String>,
    /// Which rows are for sale: a condition in SQL. All, unless told.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// When a cart is abandoned, and whom to remind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CartRule {
    /// The table's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table of carts.
    pub table: String,
    /// The column that says when somebody last did something with it.
    pub column: String,
    /// What its numbers count since 1970, where it holds numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// What zone its times are in, where the column's type says nothing of it; as in a retention rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// After how long a cart is abandoned.
    #[serde(default = "a_day")]
    pub after: Period,
    /// After how long nobody is reminded any more: so the first run does not write to the customers of years.
    #[serde(default = "a_week")]
    pub within: Period,
    /// The column with the address; a cart without one is nobody's.
    pub contact: String,
    /// Which carts: a condition in SQL. It should say that something lies in it, and that its owner agreed to be written to.
    #[serde(rename = "where")]
    pub condition: String,
}

fn a_day() -> Period {
    Period::new(TimeDelta::days(1))
}

fn a_week() -> Period {
    Period::new(TimeDelta::days(7))
}

/// How long the rows of a table are kept, and what becomes of them then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// What the rule is called: in reports, and in the record of how far it has come.
    pub name: String,
    /// The table's schema; where a query without one finds it unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// The column that says how old a row is. An index has to begin with it.
    pub column: String,
    /// What its numbers count since 1970, where it holds numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// What zone its times are in, where the column's type says nothing of it (`datetime`, `timestamp` without time zone,
    /// `date`). Where it is not said, rows stay 14 hours longer: in some zone they are not older than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// How old a row may become.
    pub keep: Period,
    /// What becomes of older ones.
    #[serde(default)]
    pub action: RetentionAction,
    /// Which of the older rows: a condition in SQL. All, unless told.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// For `anonymise`: texts that take the place of what is there. `{key}` in one stands for the row's key, which keeps what is
    /// unique so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// For `anonymise`: columns that are emptied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_null: Vec<String>,
    /// For `archive`: the file that rows are appended to, one JSON object a line, before they are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Whether it is right that no row is left. Where it is not said, a rule that would empty a table is refused: more often
    /// than not a clock is wrong.
    #[serde(default)]
    pub may_empty: bool,
}

/// What becomes of rows that have been kept for long enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetentionAction {
    /// They are deleted.
    #[default]
    Delete,
    /// They stay, without what says whose they were.
    Anonymise,
    /// They are written to a file, and deleted.
    Archive,
}

impl fmt::Display for RetentionAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delete => "delete",
            Self::Anonymise => "anonymise",
            Self::Archive => "archive",
        })
    }
}

/// What numbers that are times count since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Thousandths of one.
    Milliseconds,
}

/// The zone of times whose type does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Zone {
    /// Coordinated universal time.
    Utc,
}

/// A reference that no foreign key declares, and what is to become of rows that refer to nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// What the rule is called.
    pub name: String,
    /// The schema of the table that refers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table that refers.
    pub table: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The schema of the table that is referred to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_schema: Option<String>,
    /// The table that is referred to.
    pub to: String,
    /// Its columns; those of its primary key unless told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_columns: Vec<String>,
    /// What becomes of rows that refer to nothing.
    #[serde(default)]
    pub action: ReferenceAction,
    /// Which rows are to refer to something: a condition in SQL. All without a NULL in a column, unless told.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// What becomes of rows that refer to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceAction {
    /// They are counted and listed.
    #[default]
    Report,
    /// They are deleted.
    Delete,
    /// The reference is set to NULL.
    SetNull,
}

impl fmt::Display for ReferenceAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Report => "report",
            Self::Delete => "delete",
            Self::SetNull => "set-null",
        })
    }
}

/// Rows that no rule touches: a legal hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// The table's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// The column that tells the rows.
    pub column: String,
    /// What it holds in those rows.
    pub values: Vec<String>,
    /// Until when; for ever where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

impl Hold {
    /// Whether it holds at this time.
    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A span of time as people write it: `90m`, `24h`, `30d`, `12w`, `7y` (of 365 days).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(TimeDelta);

impl Period {
    /// A span; nothing below zero.
    pub fn new(delta: TimeDelta) -> Self {
        Self(delta.max(TimeDelta::zero()))
    }

    /// As the standard library counts it.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0.num_seconds().unsigned_abs())
    }

    /// As chrono counts it.
    pub fn delta(self) -> TimeDelta {
        self.0
    }
}

/// The units, in seconds.
const UNITS: [(char, i64); 6] =
    [('y', 365 * 86_400), ('w', 7 * 86_400), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl FromStr for Period {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::new(ErrorKind::Config, format!("{text:?} is no span of time"))
                .with_next_step("write a number and a unit: 90m, 24h, 30d, 12w, 7y")
        };
        let text = text.trim();
        let unit = text.chars().last().ok_or_else(wrong)?;
        let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u32 = text[..text.len() - unit.len_utf8()].trim().parse().map_err(|_| wrong())?;
        TimeDelta::try_seconds(i64::from(number) * seconds).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.num_seconds();
        let fits = |(_, unit): &(char, i64)| seconds % unit == 0 && seconds >= *unit;
        // Years and weeks of what was written as days would surprise.
        let days = UNITS.into_iter().skip(2).find(fits).unwrap_or(('s', 1));
        write!(f, "{}{}", seconds / days.1, days.0)
    }
}

impl Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|e: Error| {
            serde::de::Error::custom(format!("{e}: {}", e.next_step().unwrap_or("write it in another way")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        let of = |text: &str| text.parse::<Period>().map(|p| p.to_string()).map_err(|e| e.kind());
        assert_eq!(of("30d").as_deref(), Ok("30d"));
        assert_eq!(of("90m").as_deref(), Ok("90m"));
        assert_eq!(of("24h").as_deref(), Ok("1d"));
        assert_eq!(of("7y").as_deref(), Ok("2555d"));
        assert_eq!(of("0s").as_deref(), Ok("0s"));
        for wrong in ["", "30", "d", "-1d", "1.5h", "30 days", "∞", "99999999999d"] {
            assert_eq!(of(wrong), Err(ErrorKind::Config), "{wrong}");
        }
    }

    #[test]
    fn a_hold_ends() {
        let now = DateTime::UNIX_EPOCH;
        let mut hold = Hold {
            reason: "a lawsuit".into(),
            schema: None,
            table: "orders".into(),
            column: "customer_id".into(),
            values: vec!["17".into()],
            until: None,
        };
        assert!(hold.holds(now));
        hold.until = Some(now);
        assert!(!hold.holds(now));
    }
}
