//! A webhook: JSON of our own, or what Slack and its like take.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, Method};
use serde_json::json;

use super::Notifier;
use crate::error::{Error, ErrorKind, Result};
use crate::incident::{Message, MessageKind};
use crate::judge::Verdict;
use crate::net::fetch::{Fetch, shown};
use crate::net::tls::Trust;
use crate::probe::http::{address, header, shared_client};

/// What a webhook takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebhookFormat {
    /// The message as JSON, with its subject and text.
    #[default]
    Json,
    /// An incoming webhook of Slack, or of what is compatible with it (Mattermost, Rocket.Chat, Discord's `/slack`).
    Slack,
}

/// Posts each message to an address. Good is a status from 200 to 299; redirects are not followed.
#[derive(Clone)]
pub struct WebhookNotifier {
    name: String,
    fetch: Fetch,
    format: WebhookFormat,
}

impl fmt::Debug for WebhookNotifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path of a webhook is its password.
        f.debug_struct("WebhookNotifier").field("name", &self.name).field("host", &self.fetch.url.host_str()).finish()
    }
}

impl WebhookNotifier {
    /// A webhook of that address. The address is a secret, and part of no message.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address.
    pub fn new(name: impl Into<String>, url: &str, format: WebhookFormat) -> Result<Self> {
        let mut fetch = Fetch::new(address(url)?, shared_client()?);
        fetch.method = Method::POST;
        fetch.redirects = 0;
        fetch.body_limit = 4096;
        fetch.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { name: name.into(), fetch, format })
    }

    /// The same with a header, such as `Authorization`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no header.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self> {
        let (name, value) = header(name, value)?;
        self.fetch.headers.insert(name, value);
        Ok(self)
    }

    /// The same with another limit; ten seconds without.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.fetch.limit = limit;
        self
    }

    /// The same that also trusts the root certificates of a PEM file.
    ///
    /// # Errors
    /// Where it cannot be read, or is no such file.
    pub fn trusting(mut self, roots: &Path) -> Result<Self> {
        self.fetch.tls = Trust::of_this_machine().and(roots)?.strict()?;
        Ok(self)
    }
}

#[async_trait]
impl Notifier for WebhookNotifier {
    fn name(&self) -> &str {
        &self.name
    }

    async fn notify(&self, message: &Message) -> Result<()> {
        let body = match self.format {
            WebhookFormat::Json => {
                json!({ "subject": message.subject(), "text": message.text(), "message": message }).to_string()
            }
            WebhookFormat::Slack => slack(message).to_string(),
        };
        let mut fetch = self.fetch.clone();
        fetch.body = body.into();
        // Of a message that was taken and answered with an error, whoever keeps these keys takes no second one.
        if let Ok(key) = HeaderValue::try_from(message.key()) {
            fetch.headers.insert("idempotency-key", key);
        }
        let host = shown(&fetch.url).split('/').nth(2).unwrap_or("?").to_owned();
        let failed = |why: String, kind| {
            Error::new(kind, format!("the webhook {} at {host}: {why}", self.name))
                .with_next_step("see that the address is still valid, and that the service is up")
        };
        match fetch.run().await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => {
                let kind = if answer.status.is_server_error() || answer.status.as_u16() == 429 {
                    ErrorKind::Unreachable
                } else {
                    ErrorKind::Denied
                };
                Err(failed(format!("status {}", answer.status.as_u16()), kind))
            }
            Err(no) => Err(failed(no.failed.to_string(), ErrorKind::Unreachable)),
        }
    }
}

fn slack(message: &Message) -> serde_json::Value {
    let colour = match (message.kind, message.incident.severity) {
        (MessageKind::Resolved | MessageKind::Missed | MessageKind::Test, _) => "#2e7d32",
        (_, Verdict::Critical) => "#c62828",
        (_, _) => "#f9a825",
    };
    // Slack's own escapes; nothing in a message may become a mention.
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({
        "text": escaped(&message.subject()),
        "attachments": [{ "color": colour, "text": escaped(&message.text()), "fallback": escaped(&message.subject()) }],
    })
}
