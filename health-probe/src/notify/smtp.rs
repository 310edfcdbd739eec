//! Mail.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::Notifier;
use crate::error::{Error, ErrorKind, Result, file};
use crate::incident::Message;

/// How a mail server is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmtpTls {
    /// STARTTLS, or nothing is sent.
    #[default]
    Starttls,
    /// TLS from the first byte, as on port 465.
    Implicit,
    /// In the clear: for a server on this machine only. A password is not sent then.
    None,
}

/// A mail server.
#[derive(Clone)]
pub struct SmtpServer {
    host: String,
    port: u16,
    tls: SmtpTls,
    credentials: Option<(String, String)>,
    root: Option<Certificate>,
    limit: Duration,
}

impl fmt::Debug for SmtpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpServer")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl SmtpServer {
    /// That server.
    pub fn new(host: impl Into<String>, port: u16, tls: SmtpTls) -> Self {
        let host = host.into();
        Self { host, port, tls, credentials: None, root: None, limit: Duration::from_secs(20) }
    }

    /// The same with a login.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it would be sent in the clear.
    pub fn with_login(mut self, user: impl Into<String>, password: impl Into<String>) -> Result<Self> {
        if self.tls == SmtpTls::None {
            let e = format!("the mail server {}: a password is not sent in the clear", self.host);
            return Err(Error::new(ErrorKind::Config, e).with_next_step("use STARTTLS or TLS"));
        }
        self.credentials = Some((user.into(), password.into()));
        Ok(self)
    }

    /// The same that also trusts the root certificate of a PEM file.
    ///
    /// # Errors
    /// Where it cannot be read, or is no such file.
    pub fn trusting(mut self, root: &Path) -> Result<Self> {
        let pem = std::fs::read(root).map_err(|e| file(root, "cannot be read", e))?;
        let root = Certificate::from_pem(&pem)
            .map_err(|e| Error::new(ErrorKind::Config, format!("{}: no certificate", root.display())).with_source(e))?;
        self.root = Some(root);
        Ok(self)
    }

    /// The same with another limit for a conversation; 20 seconds without.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    pub(crate) fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(crate) fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(root) = &self.root {
            parameters = parameters.add_root_certificate(root.clone());
        }
        let parameters = || {
            parameters.clone().build_rustls().map_err(|e| {
                Error::new(ErrorKind::Config, format!("the mail server {}: TLS cannot be set up", self.host))
                    .with_source(e)
            })
        };
        let tls = match self.tls {
            SmtpTls::Starttls => Tls::Required(parameters()?),
            SmtpTls::Implicit => Tls::Wrapper(parameters()?),
            SmtpTls::None => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .timeout(Some(self.limit));
        if let Some((user, password)) = &self.credentials {
            builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
        }
        Ok(builder.build())
    }
}

/// Sends each message as mail.
#[derive(Debug, Clone)]
pub struct SmtpNotifier {
    name: String,
    server: SmtpServer,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl SmtpNotifier {
    /// Mail from one address to others.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where one is no address, or there is no receiver.
    pub fn new(name: impl Into<String>, server: SmtpServer, from: &str, to: &[String]) -> Result<Self> {
        let mailbox = |text: &str| {
            text.parse::<Mailbox>().map_err(|e| {
                Error::new(ErrorKind::Config, format!("{text:?} is no mail address"))
                    .with_next_step("write it as Shop <alerts@shop.example>")
                    .with_source(e)
            })
        };
        let to = to.iter().map(|t| mailbox(t)).collect::<Result<Vec<_>>>()?;
        if to.is_empty() {
            return Err(Error::new(ErrorKind::Config, "mail to nobody").with_next_step("name at least one receiver"));
        }
        Ok(Self { name: name.into(), server, from: mailbox(from)?, to })
    }
}

#[async_trait]
impl Notifier for SmtpNotifier {
    fn name(&self) -> &str {
        &self.name
    }

    async fn notify(&self, message: &Message) -> Result<()> {
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .subject(message.subject())
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let mail = builder
            .body(message.text())
            .map_err(|e| Error::new(ErrorKind::Malformed, "a message that cannot be mail").with_source(e))?;
        // The transport bounds the connection alone.
        let transport = self.server.transport()?;
        match tokio::time::timeout(self.server.limit, transport.send(mail)).await {
            Ok(outcome) => outcome.map(drop).map_err(|e| refused(&self.server, e)),
            Err(_) => {
                let why =
                    format!("{} did not take it in {} s", self.server.host_and_port(), self.server.limit.as_secs_f64());
                Err(Error::new(ErrorKind::Timeout, format!("the mail server {why}"))
                    .with_next_step("see what keeps it busy"))
            }
        }
    }
}

/// Why a mail server did not take it.
pub(crate) fn refused(server: &SmtpServer, e: lettre::transport::smtp::Error) -> Error {
    let kind = match () {
        () if e.is_permanent() => ErrorKind::Denied,
        () if e.is_timeout() => ErrorKind::Timeout,
        () if e.is_tls() => ErrorKind::Unsupported,
        () => ErrorKind::Unreachable,
    };
    Error::new(kind, format!("the mail server {}: {e}", server.host_and_port()))
        .with_next_step("see its log, and that the login and the certificate are good")
        .with_source(e)
}
