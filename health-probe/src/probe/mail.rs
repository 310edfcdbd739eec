//! Mail: whether the server takes it, and whether it arrives.

#[cfg(feature = "imap")]
mod imap;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

#[cfg(feature = "imap")]
pub use imap::ImapMailbox;

use crate::error::{Error, ErrorKind, Result, file};
use crate::incident::Message;
#[cfg(feature = "smtp")]
use crate::judge::Limits;
use crate::judge::{Policy, Verdict};
use crate::notify::Notifier;
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};

/// A conversation with a mail server up to where a mail would begin: connection, STARTTLS or TLS, login.
///
/// Readings: `accepted`, `handshake` (seconds; a warning from 5 s on, critical from 20 s). Nothing is sent.
#[cfg(feature = "smtp")]
#[derive(Debug, Clone)]
pub struct SmtpProbe {
    spec: ProbeSpec,
    server: crate::notify::SmtpServer,
}

#[cfg(feature = "smtp")]
impl SmtpProbe {
    /// That server.
    pub fn new(id: impl Into<String>, server: crate::notify::SmtpServer) -> Self {
        let policy = Policy::new()
            .is("accepted", true, Verdict::Critical)
            .meaning("customers get no confirmations")
            .below("handshake", Unit::Seconds, Limits::new(5.0, 20.0));
        Self { spec: ProbeSpec::new(id, policy).with_response_time("handshake"), server }
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }
}

#[cfg(feature = "smtp")]
#[async_trait]
impl Probe for SmtpProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        let transport = self.server.transport()?;
        let began = Instant::now();
        let limit = self.server.limit();
        let outcome = tokio::time::timeout(limit, transport.test_connection()).await;
        let took = began.elapsed();
        seen.took = took;
        match outcome {
            Err(_) => {
                seen.flag("accepted", false).not_applicable("handshake", "it was not accepted");
                seen.evidence(format!("the handshake did not end in {} s", limit.as_secs()));
            }
            Ok(Ok(true)) => {
                seen.flag("accepted", true).number("handshake", took.as_secs_f64(), Unit::Seconds);
            }
            Ok(Ok(false)) => {
                seen.flag("accepted", false).not_applicable("handshake", "it was not accepted");
                seen.evidence("the server does not answer to NOOP");
            }
            Ok(Err(e)) => {
                seen.flag("accepted", false).not_applicable("handshake", "it was not accepted");
                seen.evidence(crate::redact::redact(&e.to_string()));
            }
        }
        Ok(seen)
    }
}

/// Where something that was sent has to arrive.
#[async_trait]
pub trait Receipt: std::fmt::Debug + Send + Sync {
    /// Whether something with that token, sent at that time, has arrived; and takes it away, so that nothing piles up.
    ///
    /// # Errors
    /// Where that cannot be seen; then the round trip is unknown, not failed.
    async fn arrived(&self, token: &str, sent: DateTime<Utc>) -> Result<bool>;

    /// How long to wait between two looks; half a second without.
    fn pause(&self) -> Duration {
        Duration::from_millis(500)
    }
}

/// Sends and sees: a test message goes out by a [`Notifier`] and has to arrive within a time.
///
/// With a mail notifier and a [`Maildir`] or an `ImapMailbox` it is the round trip of mail (H7); with the notifier of the alerts and whatever knows of
/// their arrival, it is the canary that proves their path from end to end. Readings: `sent`, `arrived`, `round trip` (seconds).
#[derive(Debug)]
pub struct RoundTripProbe {
    spec: ProbeSpec,
    notifier: Arc<dyn Notifier>,
    receipt: Arc<dyn Receipt>,
    within: Duration,
}

impl RoundTripProbe {
    /// Out by `notifier`, in at `receipt`, within that time.
    pub fn new(
        id: impl Into<String>,
        notifier: Arc<dyn Notifier>,
        receipt: Arc<dyn Receipt>,
        within: Duration,
    ) -> Self {
        let policy = Policy::new()
            .is("sent", true, Verdict::Critical)
            .is("arrived", true, Verdict::Critical)
            .meaning("what is sent this way gets nowhere");
        let spec = ProbeSpec::new(id, policy).with_response_time("round trip");
        Self { spec, notifier, receipt, within }
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }
}

#[async_trait]
impl Probe for RoundTripProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        // Nobody has to guess it; nobody else may have it.
        let token = format!("caretaker-{:016x}", fastrand::u64(..));
        let began = Instant::now();
        if let Err(e) = self.notifier.notify(&Message::test(cx.now, &token)).await {
            seen.flag("sent", false).not_applicable("arrived", "it was not sent");
            seen.evidence(crate::redact::redact(&e.to_string()));
            return Ok(seen);
        }
        seen.flag("sent", true);
        let mut looked = false;
        let arrived = async {
            loop {
                if self.receipt.arrived(&token, cx.now).await? {
                    return Ok::<_, Error>(());
                }
                looked = true;
                tokio::time::sleep(self.receipt.pause()).await;
            }
        };
        match tokio::time::timeout(self.within, arrived).await {
            Err(_) if !looked => {
                let why = format!("{}: nobody could look within {} s", self.spec.id, self.within.as_secs_f64());
                return Err(Error::new(ErrorKind::Timeout, why)
                    .with_next_step("see what keeps the mailbox busy, or give it more time"));
            }
            Ok(outcome) => {
                outcome?;
                seen.flag("arrived", true).number("round trip", began.elapsed().as_secs_f64(), Unit::Seconds);
            }
            Err(_) => {
                seen.flag("arrived", false).evidence(format!("not within {} s", self.within.as_secs_f64()));
            }
        }
        seen.took = began.elapsed();
        Ok(seen)
    }
}

/// A mailbox in the format Maildir: `new/` and `cur/` are searched for the token, the mail that has it is deleted. At most the 500
/// newest are looked at, 64 KiB of each.
#[derive(Debug, Clone)]
pub struct Maildir(PathBuf);

impl Maildir {
    /// The mailbox of that folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    fn search(&self, token: &str) -> Result<bool> {
        let mut mails = Vec::new();
        for part in ["new", "cur"] {
            let folder = self.0.join(part);
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                // A mailbox that never got a mail may not be there yet; one of whose folders is missing neither.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(file(&folder, "cannot be listed", e)),
            };
            for entry in entries {
                let entry = entry.map_err(|e| file(&folder, "cannot be listed", e))?;
                let modified = entry
                    .metadata()
                    .and_then(|m| m.modified())
                    .map_err(|e| file(&entry.path(), "cannot be read", e))?;
                mails.push((modified, entry.path()));
            }
        }
        mails.sort();
        for (_, path) in mails.into_iter().rev().take(500) {
            let mut text = Vec::new();
            let read = std::fs::File::open(&path).and_then(|f| {
                use std::io::Read;
                f.take(64 << 10).read_to_end(&mut text)
            });
            read.map_err(|e| file(&path, "cannot be read", e))?;
            // A long subject is folded, and may be encoded; the token stands in the text too.
            if memchr::memmem::find(&text, token.as_bytes()).is_some() {
                std::fs::remove_file(&path).map_err(|e| file(&path, "cannot be deleted", e))?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[async_trait]
impl Receipt for Maildir {
    async fn arrived(&self, token: &str, _sent: DateTime<Utc>) -> Result<bool> {
        let (mailbox, token) = (self.clone(), token.to_owned());
        tokio::task::spawn_blocking(move || mailbox.search(&token))
            .await
            .map_err(|e| Error::new(ErrorKind::Panicked, "the search of a mailbox ended early").with_source(e))?
    }
}
