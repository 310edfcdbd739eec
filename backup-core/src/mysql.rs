//! What the MySQL/MariaDB source and target share: how to reach a database, what its errors mean, and scripts of
//! definitions.

mod script;

use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{ConnectOptions, Connection, Executor, Row};
use url::Url;

pub(crate) use self::script::{Object, ObjectKind, objects_of, write};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::trusted;

/// What a source and a target of this kind call themselves.
pub(crate) const KIND: &str = "mysql";
/// How long a server may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Every session of ours: nothing times out by itself, a slow store included; text and times mean the same everywhere.
const SESSION: &str = "SET SESSION sql_mode = '', time_zone = '+00:00', wait_timeout = 3600, \
    net_read_timeout = 3600, net_write_timeout = 3600, sql_quote_show_create = 1, sql_select_limit = 18446744073709551615";

/// Which end of a backup talks to the server: what its errors are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Target,
}

/// A database, and how to reach it.
#[derive(Clone)]
pub(crate) struct Database {
    options: MySqlConnectOptions,
    /// Whether it is on a socket of this host and nobody asked for TLS there.
    local: bool,
    name: String,
    side: Side,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.location())
    }
}

/// The parameters of a URL.
const PARAMETERS: [&str; 5] = ["socket", "ssl-mode", "ssl-ca", "ssl-cert", "ssl-key"];

impl Database {
    /// The database of a `mysql://` or `mariadb://` URL.
    pub(crate) fn parse(text: &str, side: Side) -> Result<Self> {
        let wrong = |why: String| {
            Error::new(ErrorKind::Config, format!("this mysql:// URL cannot be understood: {why}")).with_next_step(
                "write mysql://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / % in the password as %40 %3A %2F %25",
            )
        };
        let url = Url::parse(text).map_err(|e| wrong(e.to_string()))?;
        if !matches!(url.scheme(), "mysql" | "mariadb") {
            return Err(wrong("it does not begin with mysql:// or mariadb://".into()));
        }
        // What looks like a parameter may be half a password that was not escaped: it is not shown.
        if url.query_pairs().any(|(key, _)| !PARAMETERS.contains(&key.as_ref())) {
            return Err(wrong(format!("a parameter is not one of {}", PARAMETERS.join(", "))));
        }
        // The driver's own message may hold the value that it did not like.
        let options = MySqlConnectOptions::from_str(text).map_err(|_| wrong("host, port or a parameter".into()))?;
        let Some(name) =
            options.get_database().filter(|name| !name.is_empty() && !name.contains('@')).map(str::to_owned)
        else {
            return Err(wrong("it names no database, or one with an @ in its name".into()));
        };
        // What the driver would set for programs, and a backup must not: they change what SQL means.
        let options = options
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .charset("utf8mb4")
            // Those of a restore are long, and each table's are its own.
            .statement_cache_capacity(1)
            .disable_statement_logging();
        let local = options.get_socket().is_some() && !url.query_pairs().any(|(key, _)| key.starts_with("ssl-"));
        Ok(Self { options, local, name, side })
    }

    /// The same database, as the other side.
    pub(crate) fn as_side(&self, side: Side) -> Self {
        Self { side, ..self.clone() }
    }

    /// Another database of the same server.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        Self { options: self.options.clone().database(name), name: name.to_owned(), ..self.clone() }
    }

    /// The database's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What messages call it: no password.
    pub(crate) fn location(&self) -> String {
        let place = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        };
        format!("mysql://{}@{place}/{}", self.options.get_username(), self.name)
    }

    /// A new session.
    pub(crate) async fn connect(&self) -> Result<MySqlConnection> {
        let connecting = async {
            if self.local {
                // The driver would encrypt what does not leave the host. MySQL's own method of authentication and users who
                // have to come with TLS need it all the same.
                let plain = self.options.clone().ssl_mode(MySqlSslMode::Disabled);
                if let Ok(session) = MySqlConnection::connect_with(&plain).await {
                    return Ok(session);
                }
            }
            MySqlConnection::connect_with(&self.options).await
        };
        let mut session = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(session) => session.map_err(|e| self.failed("cannot be opened", e))?,
            Err(_) => {
                return Err(Error::new(
                    self.missing(),
                    format!("{} did not answer within {} s", self.location(), CONNECT.as_secs()),
                )
                .with_retry(true));
            }
        };
        self.run(&mut session, SESSION).await?;
        let server = Server::of(&mut session).await.map_err(|e| self.failed("could not be read", e))?;
        self.run(
            &mut session,
            if server.mariadb { "SET SESSION max_statement_time = 0" } else { "SET SESSION max_execution_time = 0" },
        )
        .await?;
        Ok(session)
    }

    /// A session of the server, in no database.
    pub(crate) async fn connect_to_server(&self) -> Result<MySqlConnection> {
        self.sibling("information_schema").connect().await
    }

    /// Runs statements without parameters whose rows nobody wants.
    pub(crate) async fn run(&self, session: &mut MySqlConnection, sql: &str) -> Result<()> {
        session.execute(sqlx::raw_sql(trusted(sql))).await.map(drop).map_err(|e| self.failed("refused a statement", e))
    }

    fn missing(&self) -> ErrorKind {
        match self.side {
            Side::Source => ErrorKind::SourceMissing,
            Side::Target => ErrorKind::Target,
        }
    }

    /// The error of this crate for one of the driver's. Numbers: MySQL and MariaDB share those below 1900.
    pub(crate) fn failed(&self, what: &str, e: sqlx::Error) -> Error {
        let other = match self.side {
            Side::Source => ErrorKind::Source,
            Side::Target => ErrorKind::Target,
        };
        let (kind, retry, next) = match number(&e) {
            Some(1045 | 1698) => {
                (self.missing(), false, Some("check user and password, and from which host the user may come"))
            }
            Some(1044 | 1142 | 1143 | 1227 | 1370) => (
                other,
                false,
                Some(
                    "give the user the right; a backup needs SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, and RELOAD and PROCESS on *.*",
                ),
            ),
            Some(1419) => (
                other,
                false,
                Some(
                    "set log_bin_trust_function_creators = 1 on the server, or restore as a user who may make triggers while the binary log is on",
                ),
            ),
            Some(1049) => (self.missing(), false, Some("check the database's name")),
            Some(1040 | 1203) => {
                (other, true, Some("the server has no connection left; raise max_connections or use fewer"))
            }
            Some(1205 | 1213) => (
                if self.side == Side::Source { ErrorKind::SourceBusy } else { other },
                true,
                Some("another session holds a lock; try again when it has finished"),
            ),
            Some(1412) => (ErrorKind::SourceBusy, true, Some("a table was changed just now; try again")),
            Some(1153) => (other, false, Some("raise max_allowed_packet on the server")),
            Some(126 | 127 | 144 | 145 | 1034 | 1194 | 1195) if self.side == Side::Source => {
                (ErrorKind::SourceCorrupt, false, Some("repair the table, or restore it from a snapshot"))
            }
            Some(1053 | 1077 | 1079 | 1927) => {
                (other, true, Some("the server ended the session or is starting; try again"))
            }
            Some(_) => (other, false, None),
            None => match &e {
                sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                    (self.missing(), false, Some("check ssl-mode and ssl-ca"))
                }
                sqlx::Error::Io(_) => (self.missing(), true, Some("check that the server runs, and host and port")),
                sqlx::Error::Tls(_) => (self.missing(), false, Some("check ssl-mode and ssl-ca")),
                _ => (other, false, None),
            },
        };
        let error = Error::new(kind, format!("{} {what}: {}", self.location(), reason(&e))).with_retry(retry);
        match next {
            Some(next) => error.with_next_step(next).with_source(e),
            None => error.with_source(e),
        }
    }
}

/// What has to be known of the server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) mariadb: bool,
    pub(crate) version: String,
}

impl Server {
    pub(crate) async fn of(session: &mut MySqlConnection) -> Result<Self, sqlx::Error> {
        let row = session.fetch_one(sqlx::raw_sql("SELECT VERSION()")).await?;
        let version: String = row.try_get(0)?;
        Ok(Self { mariadb: version.contains("MariaDB"), version })
    }

    /// What a session has to be set to so that it takes rows as they are: such as break a CHECK that came later, and
    /// the history of a system-versioned table (MariaDB from 10.11 on).
    pub(crate) fn insert_settings(&self) -> Vec<&'static str> {
        let mut numbers = self.version.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
        let version = (numbers.next(), numbers.next());
        let mut settings = Vec::new();
        if self.mariadb {
            settings.push("check_constraint_checks = 0");
            if version >= (Some(10), Some(11)) {
                settings.push("system_versioning_insert_history = 1");
            }
        }
        settings
    }

    /// Vendor and version, for people.
    pub(crate) fn described(&self) -> String {
        let number = self.version.split('-').next().unwrap_or(&self.version);
        format!("{} {number}", if self.mariadb { "MariaDB" } else { "MySQL" })
    }
}

/// A name in backquotes.
pub(crate) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text in single quotes, for sessions with backslash escapes.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The server's number for what went wrong.
pub(crate) fn number(e: &sqlx::Error) -> Option<u16> {
    e.as_database_error().and_then(|e| e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()).map(|e| e.number())
}

/// The same from the causes of an error of this crate.
pub(crate) fn number_of(e: &Error) -> Option<u16> {
    let causes = std::iter::successors(std::error::Error::source(e), |e| e.source());
    causes.filter_map(|e| e.downcast_ref::<sqlx::Error>()).find_map(number)
}

/// In the server's words, without the driver's.
pub(crate) fn reason(e: &sqlx::Error) -> String {
    match e.as_database_error() {
        Some(e) => e.message().to_owned(),
        None => e.to_string(),
    }
}

/// Ends a session politely; one that does not answer is just dropped.
pub(crate) async fn close(session: MySqlConnection) {
    if let Ok(Err(e)) = tokio::time::timeout(Duration::from_secs(2), session.close()).await {
        tracing::debug!(error = %e, "a session did not end politely");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_makes_no_sense_is_refused_without_being_shown() {
        for url in [
            "mysql://u:se:cret@h:port/db",
            "mysql://u:secret@h",
            "mysql://u:secret@h/db?ssl=1",
            "postgres://u:secret@h/d",
            "mysql://u:?secret@h/d",
            "mysql://u:12/secret@h/d",
        ] {
            let e = Database::parse(url, Side::Source).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            assert!(!e.to_string().contains("cret"), "{e}");
        }
        let database = Database::parse("mysql://us%20er:p%40s%3As%2F%25@db.example/sh%20op", Side::Source).unwrap();
        assert_eq!(database.location(), "mysql://us er@db.example:3306/sh op");
        assert!(!format!("{database:?}").contains("p@s"));
    }
}
