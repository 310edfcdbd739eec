//! Ways to tell people: a webhook, mail, a command.

mod command;
#[cfg(feature = "smtp")]
pub(crate) mod smtp;
#[cfg(feature = "http")]
mod webhook;

use std::fmt;

use async_trait::async_trait;

pub use command::CommandNotifier;
#[cfg(feature = "smtp")]
pub use smtp::{SmtpNotifier, SmtpServer, SmtpTls};
#[cfg(feature = "http")]
pub use webhook::{WebhookFormat, WebhookNotifier};

use crate::error::Result;
use crate::incident::Message;

/// A way to tell people.
#[async_trait]
pub trait Notifier: fmt::Debug + Send + Sync {
    /// What routes call it.
    fn name(&self) -> &str;

    /// Tells them. Good is only what the other side took; a message that may have been lost is an error. Dropping the future
    /// may leave it sent or not.
    async fn notify(&self, message: &Message) -> Result<()>;
}
