//! Advisories, and which versions they are about.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::lock::{Ecosystem, Package};

/// An advisory, as far as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Advisory {
    /// Its id.
    pub id: String,
    /// What else it is called.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// When it was changed last.
    #[serde(default)]
    pub modified: Option<DateTime<Utc>>,
    /// When it was taken back.
    #[serde(default)]
    pub withdrawn: Option<DateTime<Utc>>,
    /// What it is, in a sentence.
    #[serde(default)]
    pub summary: String,
    #[serde(default)]
    affected: Vec<Affected>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Affected {
    #[serde(default)]
    package: Option<Named>,
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Named {
    ecosystem: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Range {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Event {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
}

impl Advisory {
    /// Reads one.
    ///
    /// # Errors
    /// Where it is not in the format of OSV.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// The packages that it is about, of ecosystems that are known here.
    pub(crate) fn packages(&self) -> impl Iterator<Item = (Ecosystem, &str)> {
        self.affected.iter().filter_map(|a| {
            let named = a.package.as_ref()?;
            Some((Ecosystem::named(&named.ecosystem)?, named.name.as_str()))
        })
    }

    /// Whether it is about this version: then the first version without it, where one is known.
    pub(crate) fn affects(&self, package: &Package) -> Option<Option<String>> {
        let about = self.affected.iter().filter(|a| {
            a.package
                .as_ref()
                .is_some_and(|p| Ecosystem::named(&p.ecosystem) == Some(package.ecosystem) && p.name == package.name)
        });
        about.into_iter().find_map(|affected| {
            let ranges = affected.ranges.iter().filter(|r| matches!(r.kind.as_str(), "SEMVER" | "ECOSYSTEM"));
            for range in ranges {
                if let Some(fixed) = range.holds(&package.version) {
                    return Some(fixed);
                }
            }
            affected.versions.iter().any(|v| compare(v, &package.version) == Ordering::Equal).then_some(None)
        })
    }
}

impl Range {
    /// Whether a version is within: by the events in the order of their versions, as the schema of OSV says.
    fn holds(&self, version: &str) -> Option<Option<String>> {
        let mut inside = false;
        let mut fixed = None;
        let mut events: Vec<(&str, &Event)> = self
            .events
            .iter()
            .filter_map(|e| Some((e.introduced.as_deref().or(e.fixed.as_deref()).or(e.last_affected.as_deref())?, e)))
            .collect();
        events.sort_by(|a, b| compare(a.0, b.0));
        for (at, event) in events {
            let reached = at == "0" || compare(at, version) != Ordering::Greater;
            if event.introduced.is_some() && reached {
                (inside, fixed) = (true, None);
            } else if event.fixed.is_some() {
                match reached {
                    true => inside = false,
                    false if inside && fixed.is_none() => fixed = Some(at.to_owned()),
                    false => {}
                }
            } else if event.last_affected.is_some() && compare(at, version) == Ordering::Less {
                inside = false;
            }
        }
        inside.then_some(fixed)
    }
}

/// Versions of npm, Packagist and crates.io in their order: numbers by value, a pre-release before its release (semver.org, 11).
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let split = |text: &str| {
        let text = text.trim().trim_start_matches(['v', 'V']);
        let text = text.split('+').next().unwrap_or(text).to_owned();
        match text.split_once('-') {
            Some((release, pre)) => (release.to_owned(), Some(pre.to_lowercase())),
            None => (text, None),
        }
    };
    let ((a, a_pre), (b, b_pre)) = (split(a), split(b));
    let numbers = |text: &str| -> Vec<u64> { text.split('.').map(|p| p.parse().unwrap_or(0)).collect() };
    let (mut a, mut b) = (numbers(&a), numbers(&b));
    let length = a.len().max(b.len());
    a.resize(length, 0);
    b.resize(length, 0);
    a.cmp(&b).then_with(|| match (a_pre, b_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => pre_release(&a, &b),
    })
}

fn pre_release(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let ordering = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => match (x.parse::<u64>(), y.parse::<u64>()) {
                (Ok(x), Ok(y)) => x.cmp(&y),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => x.cmp(y),
            },
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_order() {
        let order = [
            "0.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "v1.2",
            "1.10.0",
            "2",
        ];
        for pair in order.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare("v1.2", "1.2.0"), Ordering::Equal);
    }

    #[test]
    fn ranges_hold_what_lies_between_their_events() {
        let range = |events: &str| Range { kind: "SEMVER".into(), events: serde_json::from_str(events).unwrap() };
        let two = range(r#"[{"introduced":"0"},{"fixed":"1.2.3"},{"introduced":"2.0.0"},{"fixed":"2.0.5"}]"#);
        for (version, inside) in [
            ("0.1.0", true),
            ("1.2.2", true),
            ("1.2.3", false),
            ("1.9.0", false),
            ("2.0.0", true),
            ("2.0.5", false),
            ("2.0.0-rc.1", false),
        ] {
            assert_eq!(two.holds(version).is_some(), inside, "{version}");
        }
        assert_eq!(two.holds("1.0.0"), Some(Some("1.2.3".into())));
        let last = range(r#"[{"introduced":"1.0.0"},{"last_affected":"1.5.0"}]"#);
        assert!(last.holds("1.5.0").is_some() && last.holds("1.5.1").is_none() && last.holds("0.9.0").is_none());
    }
}
