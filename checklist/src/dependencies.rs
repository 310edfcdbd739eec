//! Dependencies against known vulnerabilities: lock files, and advisories in the format of OSV (ossf.github.io/osv-schema).

mod advisory;
mod cargo;
mod lock;
#[cfg(feature = "http")]
mod osv;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, file};
use crate::item::{Check, Context, Tier};
use crate::outcome::{Finding, Place};

pub use advisory::Advisory;
pub use lock::{Ecosystem, Package, Scope, read_lock_file};
#[cfg(feature = "http")]
pub use osv::OsvApi;

/// A vulnerability that is accepted, for a reason and until a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ignore {
    /// The advisory, by its id or any of its aliases.
    pub id: String,
    /// Why.
    pub reason: String,
    /// The last day on which it is ignored.
    pub until: NaiveDate,
}

/// What is known of the packages of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DependencyReport {
    /// Packages that were compared.
    pub packages: usize,
    /// Vulnerabilities: each once, whatever it is called elsewhere.
    pub found: Vec<Vulnerable>,
    /// Those that are ignored.
    pub ignored: Vec<Vulnerable>,
    /// Exceptions that ignore nothing any more.
    pub unused: Vec<String>,
    /// Exceptions whose day has passed.
    pub expired: Vec<String>,
}

/// A package with a vulnerability.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Vulnerable {
    /// Where the package is named.
    pub file: String,
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The advisory.
    pub id: String,
    /// What else it is called.
    pub aliases: Vec<String>,
    /// What it is, in a sentence.
    pub summary: String,
    /// The first version without it, where one is known.
    pub fixed: Option<String>,
    /// When the package is needed.
    pub scope: Scope,
}

/// Pure: which of the packages have which vulnerabilities. Withdrawn advisories are none.
pub fn compare(
    packages: &[Package],
    advisories: &[Advisory],
    ignores: &[Ignore],
    now: DateTime<Utc>,
) -> DependencyReport {
    let mut by_name: BTreeMap<(Ecosystem, &str), Vec<&Advisory>> = BTreeMap::new();
    for advisory in advisories.iter().filter(|a| a.withdrawn.is_none()) {
        for (ecosystem, name) in advisory.packages() {
            by_name.entry((ecosystem, name)).or_default().push(advisory);
        }
    }
    let mut report = DependencyReport { packages: packages.len(), ..DependencyReport::default() };
    let today = now.date_naive();
    let mut used = BTreeSet::new();
    // One vulnerability has many names: of those that share one, the first counts, per package.
    let mut said: BTreeSet<(String, String, String, String)> = BTreeSet::new();
    for package in packages {
        for advisory in by_name.get(&(package.ecosystem, package.name.as_str())).into_iter().flatten() {
            let Some(fixed) = advisory.affects(package) else { continue };
            let names: Vec<&String> = std::iter::once(&advisory.id).chain(&advisory.aliases).collect();
            let key =
                |name: &str| (package.file.clone(), package.name.clone(), package.version.clone(), name.to_owned());
            if names.iter().any(|name| said.contains(&key(name))) {
                continue;
            }
            said.extend(names.iter().map(|name| key(name)));
            let one = Vulnerable {
                file: package.file.clone(),
                package: package.name.clone(),
                version: package.version.clone(),
                id: advisory.id.clone(),
                aliases: advisory.aliases.clone(),
                summary: advisory.summary.chars().take(200).collect(),
                fixed,
                scope: package.scope,
            };
            let ignore = ignores.iter().find(|i| names.iter().any(|name| **name == i.id));
            match ignore {
                Some(i) => {
                    used.insert(i.id.clone());
                    if i.until < today {
                        report.expired.push(i.id.clone());
                        report.found.push(one);
                    } else {
                        report.ignored.push(one);
                    }
                }
                None => report.found.push(one),
            }
        }
    }
    report.unused = ignores.iter().filter(|i| !used.contains(&i.id)).map(|i| i.id.clone()).collect();
    report.expired.sort();
    report.expired.dedup();
    report.found.sort();
    report.ignored.sort();
    report
}

/// Where advisories come from.
#[derive(Debug)]
#[non_exhaustive]
pub enum Advisories {
    /// A folder: an unpacked dump of OSV (`all.zip` of an ecosystem, from `osv-vulnerabilities.storage.googleapis.com`), or any folder of
    /// such files.
    Folder(PathBuf),
    /// The API: it is told the names and versions of all packages.
    #[cfg(feature = "http")]
    Api(OsvApi),
}

/// Lock files of a tree against advisories.
#[derive(Debug)]
pub struct DependencyCheck {
    given: Option<Arc<Given>>,
}

#[derive(Debug)]
struct Given {
    root: PathBuf,
    advisories: Option<Advisories>,
    ignores: Vec<Ignore>,
}

/// Advisories older than this say too little of today.
const OLDEST_DAYS: i64 = 14;

impl DependencyCheck {
    /// Of that tree; without advisories the outcome is unknown.
    pub fn new(root: impl Into<PathBuf>, advisories: Option<Advisories>, ignores: Vec<Ignore>) -> Self {
        Self { given: Some(Arc::new(Given { root: root.into(), advisories, ignores })) }
    }

    /// Of nothing: unknown.
    pub fn none() -> Self {
        Self { given: None }
    }
}

#[async_trait]
impl Check for DependencyCheck {
    fn id(&self) -> &str {
        "source.dependencies"
    }

    fn item(&self) -> &str {
        "upkeep.dependencies"
    }

    fn tier(&self) -> Tier {
        Tier::AuthenticatedRead
    }

    async fn run(&self, cx: &Context) -> Result<Finding> {
        let Some(given) = self.given.clone() else { return Ok(Finding::unknown("a source tree was not given")) };
        let now = cx.now;
        let root = given.root.clone();
        let packages = apart(move || lock::read_tree(&root)).await?;
        if packages.is_empty() {
            return Ok(Finding::unknown(format!("no lock file below {}", given.root.display())));
        }
        match &given.advisories {
            None => {
                Ok(Finding::unknown(format!("{} packages, and no advisories to compare them with", packages.len())))
            }
            Some(Advisories::Folder(folder)) => {
                let (folder, given) = (folder.clone(), Arc::clone(&given));
                apart(move || compare_with_folder(&packages, &folder, &given.ignores, now)).await
            }
            // What it says is of this moment, and of every ecosystem.
            #[cfg(feature = "http")]
            Some(Advisories::Api(api)) => {
                let advisories = api.advisories(&packages).await?;
                let report = compare(&packages, &advisories, &given.ignores, now);
                let found = judge(&report, Some(0), &[]);
                // The API names them for these packages, whatever this program makes of their ranges.
                let unmatched = unmatched(&report, &advisories);
                Ok(match unmatched.is_empty() || !found.outcome.is_good() {
                    true => found,
                    false => Finding::warn(format!(
                        "{} advisories that the API names could not be held against a version",
                        unmatched.len()
                    ))
                    .with_places(unmatched.iter().map(|id| Place::new(id.clone(), None, "read it: osv.dev")))
                    .with_fact(unmatched.join("\n")),
                })
            }
        }
    }
}

/// Advisories that the report has under none of their names; withdrawn ones left out.
#[cfg(feature = "http")]
fn unmatched(report: &DependencyReport, advisories: &[Advisory]) -> Vec<String> {
    let known: BTreeSet<&String> =
        report.found.iter().chain(&report.ignored).flat_map(|v| std::iter::once(&v.id).chain(&v.aliases)).collect();
    let is_known = |a: &&Advisory| std::iter::once(&a.id).chain(&a.aliases).any(|name| known.contains(name));
    advisories.iter().filter(|a| a.withdrawn.is_none() && !is_known(a)).map(|a| a.id.clone()).collect()
}

/// Files are read where that keeps nothing else waiting.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Storage, "the comparison of dependencies ended early").with_source(e))?
}

fn compare_with_folder(packages: &[Package], folder: &Path, ignores: &[Ignore], now: DateTime<Utc>) -> Result<Finding> {
    let wanted: BTreeSet<(Ecosystem, &str)> = packages.iter().map(|p| (p.ecosystem, p.name.as_str())).collect();
    let (advisories, newest) = load(folder, &wanted)?;
    let uncovered: Vec<&str> = wanted
        .iter()
        .map(|(e, _)| *e)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|e| !newest.contains_key(e))
        .map(Ecosystem::name)
        .collect();
    let report = compare(packages, &advisories, ignores, now);
    // Of the ecosystems that are used: a fresh dump of one says nothing of another.
    let used = wanted.iter().filter_map(|(e, _)| newest.get(e)).copied().collect::<Option<Vec<_>>>();
    let age = used.and_then(|times| times.into_iter().min()).map(|at| (now - at).num_days());
    Ok(judge(&report, age, &uncovered))
}

fn judge(report: &DependencyReport, age: Option<i64>, uncovered: &[&str]) -> Finding {
    let places = report.found.iter().map(|v| {
        let fixed = v.fixed.as_ref().map(|f| format!(", mended in {f}")).unwrap_or_default();
        let scope = match v.scope {
            Scope::Runs => "",
            Scope::Development => ", only to build or test",
            Scope::Optional => ", only with a feature that is off",
        };
        Place::new(v.file.clone(), None, format!("{} {}: {} {}{fixed}{scope}", v.package, v.version, v.id, v.summary))
    });
    let mut notes = vec![format!("{} packages", report.packages)];
    if !report.ignored.is_empty() {
        notes.push(format!("{} ignored with a reason", report.ignored.len()));
    }
    if !report.unused.is_empty() {
        notes.push(format!("exceptions that ignore nothing: {}", report.unused.join(", ")));
    }
    if !report.expired.is_empty() {
        notes.push(format!("exceptions that ended: {}", report.expired.join(", ")));
    }
    let notes = notes.join("; ");
    let fact =
        report.found.iter().map(|v| format!("{} {} {}", v.package, v.version, v.id)).collect::<Vec<_>>().join("\n");
    let real = report.found.iter().filter(|v| v.scope == Scope::Runs).count();
    match (real, report.found.len(), age) {
        (1.., all, _) => Finding::fail(format!("{all} known vulnerabilities ({notes})")).with_places(places),
        (0, 1.., _) => {
            Finding::warn(format!("{} known vulnerabilities, none of them in what runs ({notes})", report.found.len()))
                .with_places(places)
        }
        // No advisory of an ecosystem says nothing of it.
        _ if !uncovered.is_empty() => {
            Finding::unknown(format!("there are no advisories of {} ({notes})", uncovered.join(", ")))
        }
        (_, _, Some(days)) if days > OLDEST_DAYS => {
            Finding::unknown(format!("the newest advisory is {days} days old: get a newer dump ({notes})"))
        }
        (_, _, None) => Finding::unknown(format!("the advisories have no date ({notes})")),
        _ if !report.unused.is_empty() => Finding::warn(format!("no known vulnerability ({notes})")),
        _ => Finding::pass(format!("no known vulnerability ({notes})")),
    }
    .with_fact(fact)
}

/// The advisories of the wanted packages, and of each ecosystem that there are any of the time of the newest.
type Loaded = (Vec<Advisory>, BTreeMap<Ecosystem, Option<DateTime<Utc>>>);

fn load(folder: &Path, wanted: &BTreeSet<(Ecosystem, &str)>) -> Result<Loaded> {
    let (mut kept, mut newest) = (Vec::new(), BTreeMap::<Ecosystem, Option<DateTime<Utc>>>::new());
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| file(&folder, "cannot be read", e))? {
            let path = entry.map_err(|e| file(&folder, "cannot be read", e))?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(|e| file(&path, "cannot be read", e))?;
            let advisory = Advisory::parse(&bytes).map_err(|e| {
                Error::new(ErrorKind::Malformed, format!("{}: is no advisory in the format of OSV", path.display()))
                    .with_next_step("unpack a dump of OSV there, and nothing else")
                    .with_source(e)
            })?;
            for (ecosystem, _) in advisory.packages() {
                let known = newest.entry(ecosystem).or_default();
                *known = (*known).max(advisory.modified);
            }
            if advisory.packages().any(|p| wanted.contains(&p)) {
                kept.push(advisory);
            }
        }
    }
    Ok((kept, newest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-26T12:00:00Z").unwrap().to_utc()
    }

    fn package(name: &str, version: &str, scope: Scope) -> Package {
        Package {
            ecosystem: Ecosystem::Npm,
            name: name.into(),
            version: version.into(),
            scope,
            file: "package-lock.json".into(),
        }
    }

    fn advisory(id: &str, aliases: &[&str], package: &str, events: &str) -> Advisory {
        let aliases = serde_json::to_string(aliases).unwrap();
        let text = format!(
            r#"{{"id":"{id}","aliases":{aliases},"modified":"2026-11-20T00:00:00Z","summary":"bad","affected":[{{"package":
            {{"ecosystem":"npm","name":"{package}"}},"ranges":[{{"type":"SEMVER","events":{events}}}]}}]}}"#
        );
        Advisory::parse(text.as_bytes()).unwrap()
    }

    /// What the API names and this program cannot place is not passed over.
    #[cfg(feature = "http")]
    #[test]
    fn an_advisory_that_fits_no_version_is_named() {
        let events = r#"[{"introduced":"0"},{"fixed":"4.17.21"}]"#;
        let all = [
            advisory("GHSA-1", &["CVE-2021-1"], "lodash", events),
            advisory("CVE-2021-1", &["GHSA-1"], "lodash", events),
            advisory("GHSA-3", &[], "lodash", r#"[{"introduced":"99.0.0"}]"#),
        ];
        let report = compare(&[package("lodash", "4.17.20", Scope::Runs)], &all, &[], now());
        assert_eq!(unmatched(&report, &all), ["GHSA-3"]);
    }

    #[test]
    fn aliases_are_one_and_exceptions_end() {
        let events = r#"[{"introduced":"0"},{"fixed":"4.17.21"}]"#;
        let all = [
            advisory("GHSA-1", &["CVE-2021-1"], "lodash", events),
            advisory("CVE-2021-1", &["GHSA-1"], "lodash", events),
            advisory("GHSA-2", &[], "next", r#"[{"introduced":"13.0.0"},{"fixed":"14.2.25"}]"#),
        ];
        let packages = [
            package("lodash", "4.17.20", Scope::Runs),
            package("next", "12.9.0", Scope::Runs),
            package("next", "14.2.0", Scope::Optional),
        ];
        let report = compare(&packages, &all, &[], now());
        let found: Vec<_> = report
            .found
            .iter()
            .map(|v| (v.package.as_str(), v.version.as_str(), v.fixed.as_deref(), v.scope))
            .collect();
        assert_eq!(
            found,
            [("lodash", "4.17.20", Some("4.17.21"), Scope::Runs), ("next", "14.2.0", Some("14.2.25"), Scope::Optional)]
        );
        assert_eq!(judge(&report, Some(6), &[]).outcome, crate::Outcome::Fail);
        let ignore = |id: &str, day| Ignore {
            id: id.into(),
            reason: "not reached".into(),
            until: NaiveDate::from_ymd_opt(2026, 11, day).unwrap(),
        };
        let report =
            compare(&packages, &all, &[ignore("CVE-2021-1", 30), ignore("GHSA-2", 1), ignore("GHSA-9", 30)], now());
        assert_eq!((report.found.len(), report.ignored.len()), (1, 1));
        assert_eq!(
            (report.expired.as_slice(), report.unused.as_slice()),
            (&["GHSA-2".to_owned()][..], &["GHSA-9".to_owned()][..])
        );
        assert_eq!(judge(&report, Some(6), &[]).outcome, crate::Outcome::Warn, "with a feature that is off");
        let clean = compare(&packages[1..2], &all, &[], now());
        assert_eq!(judge(&clean, Some(6), &[]).outcome, crate::Outcome::Pass);
        assert_eq!(judge(&clean, Some(40), &[]).outcome, crate::Outcome::Unknown, "an old dump knows nothing of today");
        assert_eq!(judge(&clean, Some(6), &["Packagist"]).outcome, crate::Outcome::Unknown);
        let mut withdrawn = all[0].clone();
        withdrawn.withdrawn = Some(now());
        assert!(compare(&packages[..1], &[withdrawn], &[], now()).found.is_empty());
    }
}
