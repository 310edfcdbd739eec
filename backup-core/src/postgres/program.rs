//! `pg_dump` and `pg_dumpall`: found in a version that fits the server, run, and heard to the end.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Database;
use crate::error::{Error, ErrorKind, Result};

/// Where Debian keeps each version's own programs.
const VERSIONED: &str = "/usr/lib/postgresql";

/// The server's own programs, new enough for it.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    folder: Option<PathBuf>,
    /// The version of `pg_dump`.
    pub(crate) version: String,
}

/// What a program wrote.
pub(crate) struct Output {
    pub(crate) text: String,
    /// Its warnings, one each.
    pub(crate) warnings: Vec<String>,
}

impl Programs {
    /// The programs for a server of this major version: in `folder` if one is given, else those of that very version, else
    /// those on the path, else the oldest of those beside it that is new enough.
    ///
    /// What Debian has on the path is a script that looks for the version, and takes longer to start than the program.
    pub(crate) async fn find(folder: Option<&Path>, server: u32) -> Result<Self> {
        let mut seen = Vec::new();
        let mut places: Vec<Option<PathBuf>> = vec![folder.map(Path::to_owned)];
        if folder.is_none() {
            let mut versions: Vec<u32> = std::fs::read_dir(VERSIONED)
                .map(|entries| entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
                .unwrap_or_default();
            versions.sort_unstable();
            let of = |version: u32| Some(Path::new(VERSIONED).join(version.to_string()).join("bin"));
            if versions.contains(&server) {
                places.insert(0, of(server));
            }
            places.extend(versions.into_iter().map(of));
        }
        for folder in places {
            let mut programs = Self { folder, version: String::new() };
            let Some((major, version)) = programs.ask_version().await else { continue };
            programs.version = version;
            if major >= server {
                return Ok(programs);
            }
            seen.push(programs.version);
        }
        Err(if seen.is_empty() {
            Error::new(
                ErrorKind::Config,
                "pg_dump is not installed: it writes the definitions of a PostgreSQL database",
            )
            .with_next_step(format!(
                "install it (on Debian: apt-get install postgresql-client), version {server} or newer"
            ))
        } else {
            Error::new(
                ErrorKind::Config,
                format!("the server is PostgreSQL {server}, and the newest pg_dump here is version {}: it refuses newer servers", seen.join(", ")),
            )
            .with_next_step(format!("install postgresql-client-{server} or newer"))
        })
    }

    fn path(&self, program: &str) -> PathBuf {
        self.folder.as_ref().map_or_else(|| program.into(), |folder| folder.join(program))
    }

    /// The version of `pg_dump`, if it is there.
    async fn ask_version(&self) -> Option<(u32, String)> {
        let output = Command::new(self.path("pg_dump")).arg("--version").stdin(Stdio::null()).output().await.ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        // As in "pg_dump (PostgreSQL) 15.18 (Debian …)" or "… 18beta1".
        text.split_whitespace().find_map(|word| {
            let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
            Some((word[..digits].parse().ok()?, word.to_owned()))
        })
    }

    /// Runs one of them to its end. It ends with the future, if that is dropped.
    pub(crate) async fn run(&self, program: &str, arguments: &[&str], database: &Database) -> Result<Output> {
        let (bytes, warnings) = self.run_with(program, arguments, database, &[]).await?;
        Ok(Output { text: utf8(bytes, database)?, warnings })
    }

    /// The definitions of a database, before and after its data, with what was warned of. One run of `pg_dump` into its
    /// own format, of which `pg_restore` writes out each half: the server is asked once.
    pub(crate) async fn definitions(&self, arguments: &[&str], database: &Database) -> Result<(String, Output)> {
        // Not --schema-only: that leaves out which materialized views are filled.
        let sections = ["--section=pre-data", "--section=post-data", "--format=custom", "--compress=0"];
        let arguments = [arguments, &sections].concat();
        let (archive, warnings) = self.run_with("pg_dump", &arguments, database, &[]).await?;
        let half = async |section: &str| {
            let (text, _) = self.run_with("pg_restore", &[section, "--file=-"], database, &archive).await?;
            utf8(text, database)
        };
        let (before, text) = futures::try_join!(half("--section=pre-data"), half("--section=post-data"))?;
        Ok((before, Output { text, warnings }))
    }

    /// What a program that is given `input` writes, and what it warns of.
    async fn run_with(
        &self,
        program: &str,
        arguments: &[&str],
        database: &Database,
        input: &[u8],
    ) -> Result<(Vec<u8>, Vec<String>)> {
        let path = self.path(program);
        let failed = |e: std::io::Error| {
            Error::new(ErrorKind::Config, format!("{} cannot be run: {e}", path.display()))
                .with_next_step("install it (on Debian: apt-get install postgresql-client)")
                .with_source(e)
        };
        let mut child = Command::new(&path)
            .args(arguments)
            .envs(database.environment())
            .env("LC_ALL", "C")
            .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let feed = async {
            match stdin {
                Some(mut stdin) => stdin.write_all(input).await,
                None => Ok(()),
            }
        };
        let (output, fed) = futures::future::join(child.wait_with_output(), feed).await;
        let output = output.map_err(failed)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let why = said
                .lines()
                .filter(|line| line.contains("error:") || line.contains("ERROR:") || line.contains("detail:"))
                .map(|line| line.trim_start_matches(&format!("{program}: ")))
                .take(3)
                .collect::<Vec<_>>()
                .join("; ");
            let why = if why.is_empty() { output.status.to_string() } else { why };
            // Its own wait for locks is a limit on the statement that locks.
            let busy = why.contains("timeout") && why.contains("LOCK TABLE");
            let kind = if busy { ErrorKind::SourceBusy } else { ErrorKind::Source };
            return Err(Error::new(kind, format!("{program} of {} failed: {why}", database.location())));
        }
        // After that: a program that fails does not read to the end, and says why itself.
        fed.map_err(|e| {
            let why = format!("{program} of {} did not read its input to the end: {e}", database.location());
            Error::new(ErrorKind::Source, why).with_source(e)
        })?;
        let prefix = format!("{program}: warning: ");
        let warnings = said.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect();
        Ok((output.stdout, warnings))
    }
}

fn utf8(bytes: Vec<u8>, database: &Database) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        Error::new(ErrorKind::Source, format!("{}: its definitions are no valid UTF-8", database.location()))
            .with_next_step("a database of encoding SQL_ASCII needs names and definitions in UTF-8")
            .with_source(e)
    })
}
