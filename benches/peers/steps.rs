//! Steps that take turns, and what was measured of each.

use std::path::PathBuf;
use std::process::Command;

use caretaker_benches::{Measured, Result, backup_tool, is_installed, measure, median, size_of};
use clap::Args;
use serde::Serialize;

use crate::aim::{Aim, Judged};

/// How to run and show them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only steps whose id contains one of these; the floors always run.
    #[arg(long, value_name = "TEXT", global = true)]
    only: Vec<String>,
    /// Rounds; medians count.
    #[arg(long, default_value_t = 5, global = true)]
    rounds: usize,
    /// Print JSON instead of Markdown.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write NAME.md, NAME.json and NAME.svg into this folder as well.
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) out: Option<PathBuf>,
}

/// What a step does; rows of one kind stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    Create,
    CreateWarm,
    Second,
    Verify,
    Restore,
}

impl Work {
    pub(crate) const ALL: [Self; 5] = [Self::Create, Self::CreateWarm, Self::Second, Self::Verify, Self::Restore];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Create => "first backup",
            Self::CreateWarm => "first backup, warm cache",
            Self::Second => "second backup, unchanged",
            Self::Verify => "reading everything back",
            Self::Restore => "restore",
        }
    }
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    Caretaker,
    Peer,
    /// What nobody can be much faster than: reading alone.
    Floor,
}

/// One measured step. Its texts are for `bash -e -o pipefail`, in a folder of the run's own.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) id: &'static str,
    pub(crate) work: Work,
    pub(crate) side: Side,
    pub(crate) who: &'static str,
    pub(crate) needs: &'static [&'static str],
    /// Run before it, not measured.
    pub(crate) before: &'static [&'static str],
    /// Starts with `exec` where it is one process, whose memory is then told.
    pub(crate) run: &'static str,
    /// The file or folder it stores into, whose length is told; "" where there is none.
    pub(crate) stores: &'static str,
}

/// A new, empty repository with keys of its own, and the file `recipient` for who else encrypts.
pub(crate) const NEW: &str = "rm -rf place keys && \"$TOOL\" keygen --out keys > /dev/null && cp keys/recipient.txt recipient && \"$TOOL\" init --store file://$PWD/place --keys keys > /dev/null";
/// Ours; the environment has `SOURCE` and `TARGET`.
const CREATE: &str = "exec \"$TOOL\" create --store file://$PWD/place --keys keys --source \"$SOURCE\" > /dev/null";
const RESTORE: &str =
    "exec \"$TOOL\" restore --store file://$PWD/place --keys keys --snapshot latest --target \"$TARGET\" > /dev/null";
/// See [`CREATE`]: once more, when nothing has changed.
pub(crate) const SECOND: Step = Step {
    id: "create-second",
    work: Work::Second,
    side: Side::Caretaker,
    who: "caretaker",
    needs: &[],
    before: &[],
    run: CREATE,
    stores: "",
};
/// See [`CREATE`]: all of it is read back.
pub(crate) const VERIFY: Step = Step {
    id: "verify",
    work: Work::Verify,
    side: Side::Caretaker,
    who: "caretaker verify --level content",
    needs: &[],
    before: &[],
    run: "exec \"$TOOL\" verify --store file://$PWD/place --keys keys --level content > /dev/null",
    stores: "",
};

/// A first backup of ours.
pub(crate) const fn create(id: &'static str, work: Work, before: &'static [&'static str]) -> Step {
    let who = "caretaker (encrypted, deduplicated)";
    Step { id, work, side: Side::Caretaker, who, needs: &[], before, run: CREATE, stores: "place" }
}

/// A restore of ours.
pub(crate) const fn restore(before: &'static [&'static str]) -> Step {
    Step {
        id: "restore",
        work: Work::Restore,
        side: Side::Caretaker,
        who: "caretaker (checked, compared again)",
        needs: &[],
        before,
        run: RESTORE,
        stores: "",
    }
}

/// What is compared, on what.
pub(crate) struct Subject {
    /// A word for file names.
    pub(crate) name: &'static str,
    /// A few words: server and version.
    pub(crate) title: String,
    /// Bytes of table data, or of files.
    pub(crate) bytes: u64,
    /// How many files.
    pub(crate) files: Option<u64>,
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<u64>,
    pub(crate) cores: usize,
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) aims: Vec<Judged>,
}

/// One step's figures.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) work: Work,
    pub(crate) side: Side,
    pub(crate) who: &'static str,
    /// Seconds of each round; empty where it did not run.
    pub(crate) runs: Vec<f64>,
    pub(crate) median_seconds: Option<f64>,
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) stored_bytes: Option<u64>,
    /// Programs that are not installed.
    pub(crate) missing: Vec<&'static str>,
}

/// Runs the steps in turns, so that a slow minute of the machine slows all of them.
pub(crate) fn compare(steps: &[Step], aims: &[Aim], subject: Subject, options: &Options) -> Result<Comparison> {
    let dir = tempfile::tempdir()?;
    let tool = backup_tool()?;
    let shell = |text: &str| -> Result<Measured> {
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", text]).current_dir(dir.path()).env("TOOL", &tool);
        measure(command.envs(subject.environment.iter().map(|(name, value)| (name, value))))
    };
    let mut rows: Vec<Row> = steps.iter().map(Row::of).collect();
    for _ in 0..options.rounds {
        for (step, row) in steps.iter().zip(&mut rows) {
            let wanted = options.only.is_empty() || options.only.iter().any(|o| step.id.contains(o.as_str()));
            if !(wanted || step.side == Side::Floor) || !row.missing.is_empty() {
                continue;
            }
            for text in step.before {
                shell(text)?;
            }
            let measured = shell(step.run)?;
            row.runs.push(measured.time.as_secs_f64());
            if step.run.starts_with("exec ") {
                row.peak_bytes = row.peak_bytes.max(Some(measured.memory));
            }
            if !step.stores.is_empty() {
                row.stored_bytes = Some(size_of(&dir.path().join(step.stores))?.0);
            }
        }
    }
    for row in &mut rows {
        row.median_seconds = median(row.runs.clone());
    }
    Ok(Comparison {
        name: subject.name,
        title: subject.title,
        bytes: subject.bytes,
        files: subject.files,
        cores: std::thread::available_parallelism()?.get(),
        rounds: options.rounds,
        aims: aims.iter().filter_map(|aim| aim.judge(&rows)).collect(),
        rows,
    })
}

impl Row {
    fn of(step: &Step) -> Self {
        Self {
            id: step.id,
            work: step.work,
            side: step.side,
            who: step.who,
            runs: Vec::new(),
            median_seconds: None,
            peak_bytes: None,
            stored_bytes: None,
            missing: step.needs.iter().filter(|p| !is_installed(p)).copied().collect(),
        }
    }
}
