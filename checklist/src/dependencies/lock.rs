//! Lock files: of npm, pnpm, yarn, composer and cargo.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result, file};

/// Where packages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Ecosystem {
    /// npm, pnpm, yarn.
    Npm,
    /// Composer.
    Packagist,
    /// Cargo.
    Crates,
}

impl Ecosystem {
    /// By its name in OSV.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.split(':').next()? {
            "npm" => Some(Self::Npm),
            "Packagist" => Some(Self::Packagist),
            "crates.io" => Some(Self::Crates),
            _ => None,
        }
    }

    /// Its name in OSV.
    pub fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Packagist => "Packagist",
            Self::Crates => "crates.io",
        }
    }
}

/// When a package is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Scope {
    /// It is part of what runs, or nothing says that it is not.
    Runs,
    /// Only to build or test.
    Development,
    /// Only with a feature that is off by default.
    Optional,
}

/// A package of a lock file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it is needed.
    pub scope: Scope,
    /// The lock file, below the tree.
    pub file: String,
}

/// The packages of all lock files of a tree; those of dependencies' own are left out.
pub(super) fn read_tree(root: &Path) -> Result<Vec<Package>> {
    let (mut out, mut manifests, mut cargo) = (Vec::new(), Vec::new(), Vec::new());
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            // A lock file may lie in it: what cannot be read is not clean.
            Err(e) => return Err(file(&folder, "cannot be read", e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| file(&folder, "cannot be read", e))?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().map_err(|e| file(&path, "cannot be read", e))?;
            if kind.is_dir() {
                if !matches!(name.as_str(), "node_modules" | "vendor" | ".git" | "target" | ".next") {
                    open.push(path);
                }
                continue;
            }
            let locks = ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock", "composer.lock"];
            if !locks.contains(&name.as_str()) && !matches!(name.as_str(), "Cargo.lock" | "Cargo.toml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(|e| file(&path, "cannot be read", e))?;
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            match name.as_str() {
                // What a manifest does not say cannot be left out: it is as if it were not there.
                "Cargo.toml" => manifests.extend(text.parse::<toml::Table>()),
                "Cargo.lock" => cargo.push((shown, text)),
                _ => out.extend(read_lock_file(&shown, &text)?),
            }
        }
    }
    for (shown, text) in cargo {
        out.extend(read_cargo(&shown, &text, &manifests)?);
    }
    out.sort();
    out.dedup();
    Ok(out)
}

fn read_cargo(path: &str, text: &str, manifests: &[toml::Table]) -> Result<Vec<Package>> {
    let packages = super::cargo::read(text, manifests).map_err(|e| {
        Error::new(ErrorKind::Malformed, format!("{path}: is no TOML")).with_next_step("write it anew").with_source(e)
    })?;
    if packages.iter().any(|(name, version, _)| name.is_empty() || version.is_empty()) {
        return Err(Error::new(ErrorKind::Malformed, format!("{path}: a package has no name or no version"))
            .with_next_step("write it anew: cargo generate-lockfile"));
    }
    let one =
        |(name, version, scope)| Package { ecosystem: Ecosystem::Crates, name, version, scope, file: path.to_owned() };
    Ok(packages.into_iter().map(one).collect())
}

/// The packages of a lock file, told by its name. What it does not say itself is needed: of a `Cargo.lock` the manifests say which of its
/// packages are built, and [`DependencyCheck`](super::DependencyCheck) reads them.
///
/// # Errors
/// [`ErrorKind::Malformed`] where it is not what its name says; [`ErrorKind::Config`] where nobody knows the name.
pub fn read_lock_file(path: &str, text: &str) -> Result<Vec<Package>> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let one = |ecosystem, name: &str, version: &str, dev| Package {
        ecosystem,
        name: name.to_owned(),
        version: version.to_owned(),
        scope: if dev { Scope::Development } else { Scope::Runs },
        file: path.to_owned(),
    };
    let json = || {
        serde_json::from_str::<Value>(text).map_err(|e| {
            Error::new(ErrorKind::Malformed, format!("{path}: is no JSON"))
                .with_next_step("write it anew")
                .with_source(e)
        })
    };
    let packages: Vec<Package> = match name {
        "package-lock.json" | "npm-shrinkwrap.json" => {
            npm(&json()?).into_iter().map(|(n, v, dev)| one(Ecosystem::Npm, &n, &v, dev)).collect()
        }
        "composer.lock" => {
            let json = json()?;
            let of = |key: &str, dev: bool| -> Vec<Package> {
                let list = json.get(key).and_then(Value::as_array).into_iter().flatten();
                list.filter_map(|p| {
                    Some(one(Ecosystem::Packagist, p.get("name")?.as_str()?, p.get("version")?.as_str()?, dev))
                })
                .collect()
            };
            [of("packages", false), of("packages-dev", true)].concat()
        }
        "pnpm-lock.yaml" => pnpm(text).into_iter().map(|(n, v)| one(Ecosystem::Npm, &n, &v, false)).collect(),
        "yarn.lock" => yarn(text).into_iter().map(|(n, v)| one(Ecosystem::Npm, &n, &v, false)).collect(),
        "Cargo.lock" => read_cargo(path, text, &[])?,
        _ => return Err(Error::new(ErrorKind::Config, format!("{path}: is no lock file that is known"))),
    };
    if packages.is_empty() && text.len() > 500 {
        return Err(Error::new(ErrorKind::Malformed, format!("{path}: no package was found in it"))
            .with_next_step("its format may be a newer one"));
    }
    Ok(packages)
}

/// Formats 2 and 3 name packages by their folders, format 1 by a tree.
fn npm(json: &Value) -> Vec<(String, String, bool)> {
    if let Some(packages) = json.get("packages").and_then(Value::as_object) {
        return packages
            .iter()
            .filter_map(|(path, p)| {
                let name =
                    p.get("name").and_then(Value::as_str).or_else(|| Some(path.rsplit_once("node_modules/")?.1))?;
                // A link leads to a package of the shop's own.
                let own = path.is_empty() || p.get("link").and_then(Value::as_bool) == Some(true);
                let dev = p.get("dev").and_then(Value::as_bool).unwrap_or(false);
                (!own).then(|| Some((name.to_owned(), p.get("version")?.as_str()?.to_owned(), dev)))?
            })
            .collect();
    }
    let mut out = Vec::new();
    let mut open: Vec<&Value> = json.get("dependencies").into_iter().collect();
    while let Some(level) = open.pop() {
        for (name, p) in level.as_object().into_iter().flatten() {
            if let Some(version) = p.get("version").and_then(Value::as_str) {
                out.push((name.clone(), version.to_owned(), p.get("dev").and_then(Value::as_bool).unwrap_or(false)));
            }
            open.extend(p.get("dependencies"));
        }
    }
    out
}

/// Keys of the section `packages:`: `/name@1.2.3:`, `name@1.2.3(peer@1):`, `/name/1.2.3:` of old.
fn pnpm(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut within = false;
    for line in text.lines() {
        if !line.starts_with(' ') && !line.is_empty() {
            within = line.trim_end() == "packages:";
            continue;
        }
        let key = line
            .strip_prefix("  ")
            .filter(|l| within && !l.starts_with(' '))
            .and_then(|l| l.trim_end().strip_suffix(':'));
        let Some(key) = key else { continue };
        let key = key.trim_matches(['\'', '"']).trim_start_matches('/');
        let key = key.split('(').next().unwrap_or(key);
        let split =
            key.char_indices().skip(1).filter(|(_, c)| *c == '@').last().map(|(at, _)| at).or_else(|| key.rfind('/'));
        if let Some((name, version)) = split.map(|at| (&key[..at], &key[at + 1..]))
            && version.starts_with(|c: char| c.is_ascii_digit())
        {
            out.push((name.to_owned(), version.split('_').next().unwrap_or(version).to_owned()));
        }
    }
    out
}

/// `"name@^1", name@^1.2:` and below it `version "1.2.3"`, or `version: 1.2.3` of the newer format.
fn yarn(text: &str) -> Vec<(String, String)> {
    let (mut out, mut name) = (Vec::new(), None::<String>);
    for line in text.lines() {
        if !line.starts_with([' ', '#']) && line.ends_with(':') {
            let first = line.trim_end_matches(':').split(',').next().unwrap_or_default().trim().trim_matches('"');
            let at = first.char_indices().skip(1).find(|(_, c)| *c == '@').map(|(at, _)| at);
            // Of the shop's own workspace.
            let own = first.contains("@workspace:") || first.contains("@link:");
            name = at.map(|at| first[..at].to_owned()).filter(|n| !own && n != "__metadata");
        } else if let Some(rest) = line.trim_start().strip_prefix("version") {
            let version = rest.trim_start_matches(':').trim().trim_matches('"');
            if let Some(name) = name.take() {
                out.push((name, version.to_owned()));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Vec<(String, String, bool)> {
        read_lock_file(name, text)
            .unwrap()
            .into_iter()
            .map(|p| (p.name, p.version, p.scope == Scope::Development))
            .collect()
    }

    fn some(list: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
        list.iter().map(|(n, v, d)| ((*n).to_owned(), (*v).to_owned(), *d)).collect()
    }

    #[test]
    fn lock_files_of_every_kind() {
        let npm = r#"{"lockfileVersion":3,"packages":{"":{"name":"shop","version":"1.0.0"},"node_modules/next":{"version":"14.2.0"},
            "node_modules/a/node_modules/@x/b":{"version":"1.0.0","dev":true},"node_modules/own":{"link":true,"version":"1.0.0"}}}"#;
        let mut found = read("package-lock.json", npm);
        found.sort();
        assert_eq!(found, some(&[("@x/b", "1.0.0", true), ("next", "14.2.0", false)]));
        let old = r#"{"lockfileVersion":1,"dependencies":{"a":{"version":"1.0.0","dependencies":{"b":{"version":"2.0.0","dev":true}}}}}"#;
        assert_eq!(read("package-lock.json", old), some(&[("a", "1.0.0", false), ("b", "2.0.0", true)]));
        let pnpm = "lockfileVersion: '9.0'\n\nimporters:\n\n  .:\n    dependencies: {}\n\npackages:\n\n  '@next/env@14.2.0':\n    resolution: {}\n\n  next@14.2.0(react@18.0.0):\n    engines: {}\n\n  /lodash/4.17.20:\n    resolution: {}\n\nsnapshots:\n\n  x@1.0.0: {}\n";
        assert_eq!(
            read("pnpm-lock.yaml", pnpm),
            some(&[("@next/env", "14.2.0", false), ("next", "14.2.0", false), ("lodash", "4.17.20", false)])
        );
        let yarn = "# yarn lockfile v1\n\n\"@babel/core@^7.0.0\", \"@babel/core@^7.1.0\":\n  version \"7.2.0\"\n\nlodash@^4:\n  version \"4.17.20\"\n";
        assert_eq!(read("yarn.lock", yarn), some(&[("@babel/core", "7.2.0", false), ("lodash", "4.17.20", false)]));
        let berry = "__metadata:\n  version: 8\n\n\"lodash@npm:^4\":\n  version: 4.17.20\n\n\"shop@workspace:.\":\n  version: 0.0.0-use.local\n";
        assert_eq!(read("yarn.lock", berry), some(&[("lodash", "4.17.20", false)]));
        let composer = r#"{"packages":[{"name":"monolog/monolog","version":"2.0.0"}],"packages-dev":[{"name":"phpunit/phpunit","version":"v9.0"}]}"#;
        assert_eq!(
            read("composer.lock", composer),
            some(&[("monolog/monolog", "2.0.0", false), ("phpunit/phpunit", "v9.0", true)])
        );
        let cargo = "version = 4\n\n[[package]]\nname = \"shop\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"time\"\nversion = \"0.1.40\"\nsource = \"registry\"\n";
        assert_eq!(read("Cargo.lock", cargo), some(&[("time", "0.1.40", false)]));
        assert!(read_lock_file("Cargo.lock", &cargo.replace("version = \"0.1.40\"\n", "")).is_err());
        assert!(read_lock_file("package-lock.json", "<html>").is_err());
        assert!(read_lock_file("yarn.lock", &"x".repeat(600)).is_err(), "a format that nobody knows is no empty one");
    }

    #[test]
    fn the_lock_file_of_this_workspace() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
        let Ok(text) = std::fs::read_to_string(path) else { return };
        let packages = read_lock_file("Cargo.lock", &text).unwrap();
        assert!(packages.len() > 100 && packages.iter().any(|p| p.name == "tokio"));
    }
}
