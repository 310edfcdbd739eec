//! A mailbox that is read over IMAP.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use async_imap::{Client, Session};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Receipt;
use crate::error::{Error, ErrorKind, Result};
use crate::net::address::Family;
use crate::net::connect::{Destination, connect};
use crate::net::tls::Trust;
use crate::probe::tls::Starttls;
use crate::redact::short;

/// A mailbox that is read over IMAP, always with TLS: the mail with the token is deleted, and nothing else is touched.
///
/// The server searches (`UID SEARCH`), among the mails since the day before the token was sent. Where it knows `UIDPLUS` the mail
/// is gone at once; elsewhere it is marked as deleted and goes with the mailbox's next clean-up, for a plain `EXPUNGE` would also
/// remove what others have marked.
#[derive(Clone)]
pub struct ImapMailbox {
    host: String,
    port: u16,
    starttls: Starttls,
    user: String,
    password: String,
    folder: String,
    trust: Trust,
    pinned: Option<SocketAddr>,
    limit: Duration,
}

impl fmt::Debug for ImapMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapMailbox").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl ImapMailbox {
    /// The inbox of that user, at port 993 with TLS from the first byte.
    pub fn new(host: impl Into<String>, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: 993,
            starttls: Starttls::None,
            user: user.into(),
            password: password.into(),
            folder: "INBOX".into(),
            trust: Trust::of_this_machine(),
            pinned: None,
            limit: Duration::from_secs(20),
        }
    }

    /// The same at another port.
    #[must_use]
    pub fn at_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The same with STARTTLS, as on port 143.
    #[must_use]
    pub fn with_starttls(mut self) -> Self {
        self.starttls = Starttls::Imap;
        self
    }

    /// The same in another folder than `INBOX`: where a filter puts such mails.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<String>) -> Self {
        self.folder = folder.into();
        self
    }

    /// The same that connects to this address, whatever the name resolves to.
    #[must_use]
    pub fn pinned_to(mut self, address: SocketAddr) -> Self {
        self.pinned = Some(address);
        self
    }

    /// The same that also trusts the root certificates of a PEM file.
    ///
    /// # Errors
    /// Where it cannot be read, or is no such file.
    pub fn trusting(mut self, roots: &Path) -> Result<Self> {
        self.trust = self.trust.and(roots)?;
        Ok(self)
    }

    /// The same with another limit for each look; 20 seconds without.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    async fn look(&self, token: &str, sent: DateTime<Utc>) -> Result<bool> {
        let (mut session, uidplus) = self.log_in().await?;
        session.select(&self.folder).await.map_err(|e| self.failed(e))?;
        // Days are the server's own, wherever it is.
        let day = (sent - TimeDelta::days(1)).format("%-d-%b-%Y");
        let found = session.uid_search(format!("UNDELETED SINCE {day} TEXT \"{token}\"")).await;
        let found: Vec<String> = found.map_err(|e| self.failed(e))?.iter().map(u32::to_string).collect();
        if !found.is_empty() {
            let set = found.join(",");
            let marked = session.uid_store(&set, "+FLAGS.SILENT (\\Deleted)").await.map_err(|e| self.failed(e))?;
            marked.try_for_each(|_| async { Ok(()) }).await.map_err(|e| self.failed(e))?;
            if uidplus {
                let gone = session.uid_expunge(&set).await.map_err(|e| self.failed(e))?;
                gone.try_for_each(|_| async { Ok(()) }).await.map_err(|e| self.failed(e))?;
            }
        }
        // What had to be known is known; a connection that is not ended politely ends anyway.
        let _ = session.logout().await;
        Ok(!found.is_empty())
    }

    /// A session, and whether the server can remove one mail alone.
    async fn log_in(&self) -> Result<(Session<TlsStream<TcpStream>>, bool)> {
        let name = ServerName::try_from(self.host.clone())
            .map_err(|e| Error::new(ErrorKind::Config, format!("{:?} is no name for TLS", self.host)).with_source(e))?;
        let to = Destination { host: self.host.clone(), port: self.port, family: Family::Any, pinned: self.pinned };
        let unreachable = |why: String| {
            Error::new(ErrorKind::Unreachable, format!("the mailbox at {}:{}: {why}", self.host, self.port))
                .with_next_step("see that the server is up, and that its certificate is good")
        };
        let connected =
            connect(&to, Instant::now() + self.limit, |_| true).await.map_err(|e| unreachable(e.to_string()))?;
        let stream =
            self.starttls.speak(connected.stream).await.map_err(|e| unreachable(e.to_string()).with_source(e))?;
        let stream = TlsConnector::from(self.trust.strict()?)
            .connect(name, stream)
            .await
            .map_err(|e| unreachable(format!("TLS: {e}")).with_source(e))?;
        let mut client = Client::new(stream);
        // After STARTTLS the greeting has been.
        if self.starttls == Starttls::None
            && client.read_response().await.map_err(|e| unreachable(e.to_string()).with_source(e))?.is_none()
        {
            return Err(unreachable("it hung up".into()));
        }
        let mut session = client.login(&self.user, &self.password).await.map_err(|(e, _)| self.failed(e))?;
        let uidplus = session.capabilities().await.map_err(|e| self.failed(e))?.has_str("UIDPLUS");
        Ok((session, uidplus))
    }

    fn failed(&self, e: async_imap::error::Error) -> Error {
        use async_imap::error::Error as Imap;
        let (kind, next) = match &e {
            Imap::No(_) => (ErrorKind::Denied, "see that the login is good and the folder is there"),
            Imap::Io(_) | Imap::ConnectionLost => (ErrorKind::Unreachable, "see the server's log"),
            _ => (ErrorKind::Malformed, "see that this is a server of IMAP"),
        };
        let why = short(&e.to_string());
        Error::new(kind, format!("the mailbox at {}:{}: {why}", self.host, self.port))
            .with_next_step(next)
            .with_source(e)
    }
}

#[async_trait]
impl Receipt for ImapMailbox {
    async fn arrived(&self, token: &str, sent: DateTime<Utc>) -> Result<bool> {
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Error::new(ErrorKind::Config, "a token of letters, digits and hyphens can be searched for"));
        }
        tokio::time::timeout(self.limit, self.look(token, sent)).await.unwrap_or_else(|_| {
            let why = format!("{}:{}: no answer in {} s", self.host, self.port, self.limit.as_secs_f64());
            Err(Error::new(ErrorKind::Timeout, format!("the mailbox at {why}"))
                .with_next_step("see what keeps the server busy"))
        })
    }

    /// Each look is a login, which servers count.
    fn pause(&self) -> Duration {
        Duration::from_secs(5)
    }
}
