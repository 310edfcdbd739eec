//! The arrows of the crate's layout, kept.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::path::Path;

/// Every source file, with its path below `src`, without its tests.
fn sources(dir: &Path, out: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else {
            let name =
                path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().display().to_string();
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            out.push((name, code));
        }
    }
}

fn all() -> Vec<(String, String)> {
    let mut out = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut out);
    assert!(out.len() > 25, "the sources were found");
    out
}

fn forbid(files: &str, words: &[&str]) {
    let mut seen = 0;
    for (name, code) in all().iter().filter(|(name, _)| name.starts_with(files)) {
        seen += 1;
        for word in words {
            let line = code.lines().find(|l| l.contains(word) && !l.trim_start().starts_with("//"));
            assert!(line.is_none(), "{name} may not know {word}: {}", line.unwrap_or("").trim());
        }
    }
    assert!(seen > 0, "no file begins with {files}");
}

#[test]
fn arrows_point_one_way() {
    let verbs = [
        "crate::backup",
        "crate::restore",
        "crate::verify",
        "crate::drill",
        "crate::export",
        "crate::select",
        "crate::status",
    ];
    for low in ["source", "target", "pipeline", "repository", "keys", "manifest", "fingerprint", "error"] {
        forbid(low, &verbs);
    }
    forbid("source", &["crate::repository", "crate::keys", "crate::target", "object_store"]);
    forbid("target", &["crate::repository", "crate::keys", "object_store"]);
    forbid("repository", &["crate::source", "crate::target"]);
    forbid("manifest", &["crate::repository", "crate::pipeline", "crate::keys", "crate::source", "crate::target"]);
    forbid("fingerprint", &["crate::"]);
    forbid("error", &["crate::"]);
    for judge in ["select", "status"] {
        forbid(judge, &["async ", "crate::pipeline", "crate::source"]);
    }
}

#[test]
fn one_place_each() {
    for (name, code) in all() {
        let only = |word: &str, home: &str| {
            assert!(!code.contains(word) || name.starts_with(home), "{name} may not use {word}: its place is {home}");
        };
        only("AssertSqlSafe", "sql.rs");
        only("spawn_blocking", "pipeline");
        only(".put_opts(", "repository/store.rs");
        only(".delete(", "repository/store.rs");
    }
}
