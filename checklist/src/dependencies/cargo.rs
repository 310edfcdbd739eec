//! `Cargo.lock`, and which of its packages are built.
//!
//! A lock file names what any feature of the shop's own packages could ask for (doc.rust-lang.org/cargo/reference/resolver.html), so most of
//! what it names that is found vulnerable may never be built. The manifests beside it say what is.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::lock::Scope;

/// A package of a lock file: its name, its version, and when it is needed.
type Locked = (String, String, Scope);

/// Packages with a source; those without one are the shop's own, and `manifests` are theirs. Without the manifest of one of them, all that it
/// names is needed.
pub(super) fn read(text: &str, manifests: &[Table]) -> Result<Vec<Locked>, toml::de::Error> {
    let lock: Table = text.parse()?;
    let packages: Vec<&Table> = list(&lock, "package").collect();
    let named = |p: &Table, key: &str| p.get(key).and_then(Value::as_str).map(str::to_owned).unwrap_or_default();
    let own = |p: &Table| !p.contains_key("source");
    let uses: Vec<BTreeSet<usize>> = packages.iter().map(|p| edges(p, &packages)).collect();

    let (mut runs, mut develops) = (BTreeSet::new(), BTreeSet::new());
    let enabled = enabled_features(manifests);
    for (at, package) in packages.iter().enumerate().filter(|(_, p)| own(p)) {
        let name = named(package, "name");
        match manifests.iter().find(|m| package_name(m) == Some(name.as_str())) {
            None => runs.extend(uses[at].iter().copied()),
            Some(manifest) => {
                let wanted = direct(manifest, manifests, enabled.get(&name));
                for &to in &uses[at] {
                    match wanted.get(&named(packages[to], "name")) {
                        Some(Scope::Runs) => runs.insert(to),
                        Some(Scope::Development) => develops.insert(to),
                        _ => false,
                    };
                }
            }
        }
    }
    // The shop's own packages are roots by themselves: what they need was decided above, by their manifests.
    let reached = |from: BTreeSet<usize>| {
        let (mut seen, mut open) = (from.clone(), from.into_iter().collect::<Vec<_>>());
        while let Some(at) = open.pop() {
            if !own(packages[at]) {
                open.extend(uses[at].iter().copied().filter(|to| seen.insert(*to)));
            }
        }
        seen
    };
    let (runs, develops) = (reached(runs), reached(develops));
    let scope = |at: usize| match () {
        () if runs.contains(&at) => Scope::Runs,
        () if develops.contains(&at) => Scope::Development,
        () => Scope::Optional,
    };
    let foreign = packages.iter().enumerate().filter(|(_, p)| !own(p));
    Ok(foreign.map(|(at, p)| (named(p, "name"), named(p, "version"), scope(at))).collect())
}

fn list<'a>(table: &'a Table, key: &str) -> impl Iterator<Item = &'a Table> {
    table.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

/// `"name"`, `"name 1.2.3"`, `"name 1.2.3 (registry+…)"`: the version is there where several have the name.
fn edges(package: &Table, packages: &[&Table]) -> BTreeSet<usize> {
    let wanted = package.get("dependencies").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let find = |wanted: &str| {
        let mut words = wanted.split(' ');
        let (name, version) = (words.next().unwrap_or_default().to_owned(), words.next().map(str::to_owned));
        let is = move |p: &Table| {
            let has = |key: &str, value: &str| p.get(key).and_then(Value::as_str) == Some(value);
            has("name", &name) && version.as_deref().is_none_or(|v| has("version", v))
        };
        packages.iter().enumerate().filter(move |(_, p)| is(p)).map(|(at, _)| at).collect::<Vec<_>>()
    };
    wanted.flat_map(find).collect()
}

fn package_name(manifest: &Table) -> Option<&str> {
    manifest.get("package")?.get("name")?.as_str()
}

/// Tables of dependencies of a manifest, those of each platform among them: key, setting, and whether it is only for building or tests.
fn dependencies(manifest: &Table) -> impl Iterator<Item = (&str, &Value, bool)> {
    let platforms =
        manifest.get("target").and_then(Value::as_table).into_iter().flatten().filter_map(|(_, t)| t.as_table());
    std::iter::once(manifest).chain(platforms).flat_map(|table| {
        [("dependencies", false), ("build-dependencies", true), ("dev-dependencies", true)].into_iter().flat_map(
            move |(kind, dev)| {
                let all = table.get(kind).and_then(Value::as_table).into_iter().flatten();
                all.map(move |(key, value)| (key.as_str(), value, dev))
            },
        )
    })
}

/// The name under which a dependency stands in the lock file: its own, not the one that the manifest gives it.
fn real_name<'a>(key: &'a str, value: &'a Value, manifests: &'a [Table]) -> &'a str {
    let renamed = |v: &'a Value| v.get("package").and_then(Value::as_str);
    let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
    let shared = manifests.iter().filter(|_| inherited).find_map(|m| m.get("workspace")?.get("dependencies")?.get(key));
    renamed(value).or_else(|| renamed(shared?)).unwrap_or(key)
}

/// Of each package of the shop's own the features that it has by default, and those that any manifest asks of it.
fn enabled_features(manifests: &[Table]) -> BTreeMap<String, BTreeSet<String>> {
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for manifest in manifests {
        if let Some(name) = package_name(manifest) {
            out.entry(name.to_owned()).or_default().insert("default".to_owned());
        }
        let shared = manifest.get("workspace").and_then(|w| w.get("dependencies")).and_then(Value::as_table);
        let own = dependencies(manifest).map(|(key, value, _)| (key, value));
        for (key, value) in own.chain(shared.into_iter().flatten().map(|(k, v)| (k.as_str(), v))) {
            let asked = value.get("features").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            out.entry(real_name(key, value, manifests).to_owned()).or_default().extend(asked.map(str::to_owned));
        }
        for feature in features(manifest).values().flatten() {
            if let Some((of, feature)) = feature.split_once('/') {
                out.entry(of.trim_end_matches('?').to_owned()).or_default().insert(feature.to_owned());
            }
        }
    }
    out
}

fn features(manifest: &Table) -> BTreeMap<&str, Vec<&str>> {
    let all = manifest.get("features").and_then(Value::as_table).into_iter().flatten();
    all.map(|(name, list)| (name.as_str(), list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()))
        .collect()
}

/// When each of a manifest's dependencies is needed, by its name in the lock file.
fn direct(manifest: &Table, manifests: &[Table], enabled: Option<&BTreeSet<String>>) -> BTreeMap<String, Scope> {
    let known = features(manifest);
    let mut on: BTreeSet<&str> = enabled.into_iter().flatten().map(String::as_str).collect();
    let mut open: Vec<&str> = on.iter().copied().collect();
    while let Some(feature) = open.pop() {
        for entry in known.get(feature).into_iter().flatten() {
            // `dep:x` and `x/y` enable x; `x?/y` does not.
            let name = entry.strip_prefix("dep:").or_else(|| Some(entry.split_once('/')?.0)).unwrap_or(entry);
            if !name.ends_with('?') && on.insert(name) {
                open.push(name);
            }
        }
    }
    let mut out: BTreeMap<String, Scope> = BTreeMap::new();
    for (key, value, dev) in dependencies(manifest) {
        let optional = value.get("optional").and_then(Value::as_bool) == Some(true) && !on.contains(key);
        let scope = match (dev, optional) {
            (_, true) => Scope::Optional,
            (true, false) => Scope::Development,
            (false, false) => Scope::Runs,
        };
        let known = out.entry(real_name(key, value, manifests).to_owned()).or_insert(scope);
        *known = (*known).min(scope);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(lock: &str, manifests: &[&str]) -> Vec<(String, Scope)> {
        let manifests: Vec<Table> = manifests.iter().map(|m| m.parse().unwrap()).collect();
        read(lock, &manifests)
            .unwrap()
            .into_iter()
            .map(|(name, version, scope)| (format!("{name} {version}"), scope))
            .collect()
    }

    fn package(name: &str, version: &str, uses: &[&str]) -> String {
        let source = if version == "0.0.0" { "" } else { "source = \"registry\"\n" };
        format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{source}dependencies = {uses:?}\n\n")
    }

    #[test]
    fn what_no_feature_builds_is_told_apart() {
        let lock = [
            package("shop", "0.0.0", &["web", "old 1.0.0", "image", "probe", "renamed", "engine"]),
            package("engine", "0.0.0", &["sqlite", "pg"]),
            package("web", "2.0.0", &["tls"]),
            package("tls", "1.0.0", &[]),
            package("old", "1.0.0", &["deep"]),
            package("old", "2.0.0", &[]),
            package("deep", "1.0.0", &[]),
            package("image", "1.0.0", &["tls", "codec"]),
            package("codec", "1.0.0", &[]),
            package("probe", "1.0.0", &["old 2.0.0"]),
            package("renamed", "1.0.0", &[]),
            package("sqlite", "1.0.0", &[]),
            package("pg", "1.0.0", &[]),
        ]
        .concat();
        let shop = r#"
            [package]
            name = "shop"
            [features]
            default = ["dep:web", "thumbs?/fast"]
            pictures = ["image"]
            [dependencies]
            web = { version = "2", optional = true }
            image = { version = "1", optional = true }
            engine = { path = "engine", default-features = false, features = ["sqlite"] }
            alias.workspace = true
            [target.'cfg(unix)'.dependencies]
            old = "1"
            [dev-dependencies]
            probe = "1"
            [workspace.dependencies]
            alias = { version = "1", package = "renamed" }
        "#;
        let engine = "package.name = \"engine\"\n[dependencies]\nsqlite = { version = \"1\", optional = true }\npg = { version = \"1\", optional = true }\n";
        let found = needs(&lock, &[shop, engine]);
        let of =
            |scope: Scope| found.iter().filter(|(_, n)| *n == scope).map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        assert_eq!(of(Scope::Optional), ["image 1.0.0", "codec 1.0.0", "pg 1.0.0"], "tls is also needed by web");
        assert_eq!(of(Scope::Development), ["old 2.0.0", "probe 1.0.0"]);
        assert_eq!(
            of(Scope::Runs),
            ["web 2.0.0", "tls 1.0.0", "old 1.0.0", "deep 1.0.0", "renamed 1.0.0", "sqlite 1.0.0"]
        );
        assert!(needs(&lock, &[]).iter().filter(|(name, _)| name != "old 2.0.0").all(|(_, n)| *n == Scope::Runs));
    }
}
