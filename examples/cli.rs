//! Running a command to its exit code.

use std::error::Error as StdError;
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use backup_core::ErrorKind;
use serde::Serialize;

use crate::allocator;

/// How a command ended, as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All is well: 0.
    Well,
    /// It did its work and found something: 1.
    WithFindings,
}

/// What every tool says about its exit codes.
pub const EXIT_CODES: &str = "\
Exit codes: 0 good; 1 findings or failed verification; 2 usage or configuration; 3 could not do the job.
Logs go to stderr; RUST_LOG sets how much.";

/// An error that a tool tells people about.
pub trait Told: StdError {
    /// What to do about it, where that is known.
    fn next_step(&self) -> Option<&str>;
    /// The exit code of a tool that ends with it.
    fn exit_code(&self) -> u8;
}

impl Told for backup_core::Error {
    fn next_step(&self) -> Option<&str> {
        self.next_step()
    }

    fn exit_code(&self) -> u8 {
        code(self.kind())
    }
}

impl Told for db_maint::Error {
    fn next_step(&self) -> Option<&str> {
        self.next_step()
    }

    fn exit_code(&self) -> u8 {
        match self.kind() {
            db_maint::ErrorKind::Config | db_maint::ErrorKind::Drift => 2,
            _ => 3,
        }
    }
}

impl Told for health_probe::Error {
    fn next_step(&self) -> Option<&str> {
        self.next_step()
    }

    fn exit_code(&self) -> u8 {
        match self.kind() {
            health_probe::ErrorKind::Config => 2,
            _ => 3,
        }
    }
}

impl Told for checklist::Error {
    fn next_step(&self) -> Option<&str> {
        self.next_step()
    }

    fn exit_code(&self) -> u8 {
        match self.kind() {
            checklist::ErrorKind::Config => 2,
            _ => 3,
        }
    }
}

/// Runs `command` until it ends or a signal comes, and says what became of it. After a signal the command is dropped,
/// which is safe at any point, and `clean_up` runs.
pub fn run<E, C>(command: impl Future<Output = Result<Ended, E>>, clean_up: impl FnOnce() -> C) -> ExitCode
where
    E: Told,
    C: Future<Output = Result<(), E>>,
{
    run_after(command, clean_up, 0)
}

/// The same, where so many signals are the command's own affair.
fn run_after<E, C>(
    command: impl Future<Output = Result<Ended, E>>,
    clean_up: impl FnOnce() -> C,
    signals: usize,
) -> ExitCode
where
    E: Told,
    C: Future<Output = Result<(), E>>,
{
    log_to_stderr();
    allocator::tune();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            complain(&format!("error: no threads to work with: {e}"));
            return ExitCode::from(3);
        }
    };
    runtime.block_on(async {
        let outcome = {
            tokio::select! {
                ended = command => Some(ended),
                () = async { for _ in 0..=signals { signal().await } } => None,
            }
        };
        match outcome {
            Some(Ok(Ended::Well)) => ExitCode::SUCCESS,
            Some(Ok(Ended::WithFindings)) => ExitCode::from(1),
            Some(Err(e)) => {
                report(&e);
                ExitCode::from(e.exit_code())
            }
            None => {
                complain(match signals {
                    0 => "interrupted: nothing was committed",
                    _ => "ended at once: what was committed stays",
                });
                if let Err(e) = clean_up().await {
                    report(&e);
                }
                // The lease is given back by a task of its own.
                tokio::time::sleep(Duration::from_millis(300)).await;
                ExitCode::from(3)
            }
        }
    })
}

/// Runs `command` to its end. A signal calls `stop`, which lets it end by itself; a second one ends it, which is safe too.
pub fn run_until<E: Told>(command: impl Future<Output = Result<Ended, E>>, stop: impl Fn()) -> ExitCode {
    let gently = async {
        tokio::pin!(command);
        tokio::select! {
            ended = &mut command => return ended,
            () = signal() => stop(),
        }
        complain("stopping after what is in hand; again to end at once");
        command.await
    };
    run_after(gently, nothing, 1)
}

/// Nothing to clean up.
pub async fn nothing<E>() -> Result<(), E> {
    Ok(())
}

/// Prints one line to stdout; a reader that went away is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints one line to stderr.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints a machine-readable document to stdout.
pub fn say_json(value: &impl Serialize) -> backup_core::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| {
        backup_core::Error::new(ErrorKind::Internal, "the report could not be written as JSON").with_source(e)
    })?;
    say(&text);
    Ok(())
}

fn report(e: &impl Told) {
    complain(&format!("error: {e}"));
    let mut said = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let text = c.to_string();
        if !said.contains(&text) {
            complain(&format!("  because: {text}"));
            said = text;
        }
        cause = c.source();
    }
    if let Some(next) = e.next_step() {
        complain(&format!("  next: {next}"));
    }
}

/// The exit code of an error.
fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Untrusted | ErrorKind::Damaged | ErrorKind::Mismatch => 1,
        ErrorKind::Config
        | ErrorKind::KeyMissing
        | ErrorKind::KeyWrong
        | ErrorKind::NotFound
        | ErrorKind::Ambiguous
        | ErrorKind::Drift
        | ErrorKind::TargetNotEmpty => 2,
        _ => 3,
    }
}

fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // A second subscriber in the same process is refused; the first goes on.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init();
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                () = interrupt() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(e) => {
            tracing::warn!(error = %e, "SIGTERM cannot be caught");
            interrupt().await;
        }
    }
}

/// Ends with Ctrl-C; never where that cannot be caught, since a run is not broken off for that.
async fn interrupt() {
    if let Err(e) = tokio::signal::ctrl_c().await {
        tracing::warn!(error = %e, "Ctrl-C cannot be caught");
        std::future::pending::<()>().await;
    }
}
