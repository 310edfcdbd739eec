//! README's commands as they stand there: the blocks of `sh`, in order, in one shell. `.ci/test` is left out, for it runs this.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::Path;
use std::process::Command;

use support::{text, tool};

#[test]
fn what_it_says_can_be_typed_works() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (mut commands, mut inside) = (Vec::new(), false);
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside && !line.trim().is_empty() => commands.push(line),
            _ => {}
        }
    }
    assert!(commands.len() > 15, "{commands:?}");
    let programs = tool("backup").parent().unwrap().display().to_string();
    let mut script = String::from("set -u\n");
    for command in &commands {
        // What stands for a build is built already, beside this test.
        let run = match command.trim() {
            build if build.starts_with("cargo build ") => "true".to_owned(),
            path if path.starts_with("export PATH=") => format!("export PATH={programs}:$PATH"),
            other => other.replace("cargo run --release --example nightly", &format!("{programs}/nightly")),
        };
        // What a tool finds is no failure where the line says so.
        let most = if command.contains("exit code 1") { 1 } else { 0 };
        let said = command.replace('\'', "");
        script +=
            &format!("{run}\ncode=$?\n[ $code -le {most} ] || {{ echo '{said}' ended with $code >&2; exit 9; }}\n");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("bash").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    for file in ["keys/owner-identity.txt", "restored.db", "backup-2026-01-31.sql.gz"] {
        assert!(dir.path().join(file).exists(), "{file} was not made");
    }
}
