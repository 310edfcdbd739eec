//! A command of the shop's own.

use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::Notifier;
use crate::error::{Error, ErrorKind, Result};
use crate::incident::Message;
use crate::redact::redact;

/// Runs a command for each message: the message as JSON on its standard input, its subject in `CARETAKER_SUBJECT`, its kind in
/// `CARETAKER_KIND`. No shell is involved. Its exit code 0 is good.
#[derive(Debug, Clone)]
pub struct CommandNotifier {
    name: String,
    program: String,
    arguments: Vec<String>,
    limit: Duration,
}

impl CommandNotifier {
    /// That program with those arguments.
    pub fn new(name: impl Into<String>, program: impl Into<String>, arguments: Vec<String>) -> Self {
        Self { name: name.into(), program: program.into(), arguments, limit: Duration::from_secs(30) }
    }

    /// The same with another limit; 30 seconds without. Then it is killed.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

#[async_trait]
impl Notifier for CommandNotifier {
    fn name(&self) -> &str {
        &self.name
    }

    async fn notify(&self, message: &Message) -> Result<()> {
        let failed = |why: String| {
            // Whether it told somebody before it failed is not known: it is not called again at once, and the key is the same then.
            Error::new(ErrorKind::Denied, format!("the command {}: {why}", self.program))
                .with_next_step("run it by hand and see what it says")
        };
        let json = serde_json::to_vec(message)
            .map_err(|e| Error::new(ErrorKind::Malformed, "a message that cannot be written as JSON").with_source(e))?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env("CARETAKER_SUBJECT", message.subject())
            .env("CARETAKER_KIND", message.kind.word())
            .env("CARETAKER_MESSAGE", message.key())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(format!("cannot be started: {e}")).with_source(e))?;
        let stdin = child.stdin.take();
        let feed = async move {
            if let Some(mut stdin) = stdin
                && let Err(e) = stdin.write_all(&json).await
            {
                // A command that does not read its input may still be good.
                tracing::debug!(error = %e, "a command that does not read its input");
            }
        };
        let mut stderr = child.stderr.take();
        let ended = async {
            let (status, ()) = tokio::join!(child.wait(), feed);
            let mut said = Vec::new();
            if let Some(stderr) = &mut stderr {
                // A child of its own may hold it open for ever: what is there by now will do.
                let mut bounded = stderr.take(4096);
                let read = bounded.read_to_end(&mut said);
                let _ = tokio::time::timeout(Duration::from_millis(200), read).await;
            }
            status.map(|status| (status, said))
        };
        match tokio::time::timeout(self.limit, ended).await {
            Err(_) => Err(failed(format!("did not end in {} s, and was killed", self.limit.as_secs_f64()))),
            Ok(Err(e)) => Err(failed(e.to_string()).with_source(e)),
            Ok(Ok((status, _))) if status.success() => Ok(()),
            Ok(Ok((status, said))) => {
                let said: String = String::from_utf8_lossy(&said).chars().take(300).collect();
                Err(failed(format!("{status}: {}", redact(said.trim()))))
            }
        }
    }
}
