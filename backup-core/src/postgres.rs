//! What the PostgreSQL source and target share: how to reach a database, what its errors mean, its own programs, and
//! the statements of a script.

mod program;
mod script;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor, Row};
use url::Url;

pub(crate) use self::program::{Output, Programs};
pub(crate) use self::script::{Beside, Script, Statement, is_ownership, name_end, parts, split};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::trusted;

/// What a source and a target of this kind call themselves.
pub(crate) const KIND: &str = "postgres";
/// How long a server may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Where Debian and others keep the certificates that the system trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Every session of ours: nothing times out by itself, but a host that vanished is noticed within a minute; text means the same everywhere, no row is hidden, two scans of
/// one table begin at the same row.
const SESSION: &str = "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
    SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; \
    SET bytea_output = 'hex'; SET standard_conforming_strings = on; \
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; SET xmloption = content; SET client_encoding = 'UTF8'; SET row_security = off; \
    SET synchronize_seqscans = off; SET enable_tidscan = on; SET max_parallel_workers_per_gather = 0; SET jit = off; \
    SELECT pg_catalog.set_config('transaction_timeout', '0', false) \
      FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'; \
    SELECT pg_catalog.set_config('search_path', '', false)";

/// Which end of a backup talks to the server: what its errors are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Target,
}

/// A database, and how to reach it.
#[derive(Clone)]
pub(crate) struct Database {
    options: PgConnectOptions,
    /// For the server's own programs.
    environment: Vec<(&'static str, String)>,
    side: Side,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.location())
    }
}

impl Database {
    /// The database of a `postgres://` URL; what it leaves out comes from the `PG…` variables and the password file.
    pub(crate) fn parse(text: &str, side: Side) -> Result<Self> {
        let wrong = |why: String| {
            Error::new(ErrorKind::Config, format!("this postgres:// URL cannot be understood: {why}")).with_next_step(
                "write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / % in the password as %40 %3A %2F %25",
            )
        };
        let url = Url::parse(text).map_err(|e| wrong(e.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(wrong("it does not begin with postgres://".into()));
        }
        // What looks like a parameter may be half a password that was not escaped: it is not shown.
        if url.query_pairs().any(|(key, _)| !PARAMETERS.contains(&key.as_ref())) {
            return Err(wrong(format!("a parameter is not one of {}", PARAMETERS.join(", "))));
        }
        // The driver's own message may hold the value that it did not like.
        let options = PgConnectOptions::from_str(text).map_err(|_| wrong("host, port or a parameter".into()))?;
        let options = options.disable_statement_logging().application_name("caretaker");
        if options.get_database().is_some_and(|name| name.contains('@'))
            || (options.get_database().is_none() && std::env::var_os("PGDATABASE").is_none())
        {
            return Err(wrong("it names no database, or one with an @ in its name".into()));
        }
        let parameter = |names: &[&str]| {
            url.query_pairs().filter(|(k, _)| names.contains(&k.as_ref())).map(|(_, v)| v.into_owned()).last()
        };
        let mut environment =
            vec![("PGAPPNAME", "caretaker".to_owned()), ("PGUSER", options.get_username().to_owned())];
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        environment.push(("PGHOST", host));
        environment.push(("PGPORT", options.get_port().to_string()));
        let database = options.get_database().map(str::to_owned).or_else(|| std::env::var("PGDATABASE").ok());
        environment.extend(database.map(|name| ("PGDATABASE", name)));
        let password = parameter(&["password"]).or_else(|| {
            let text = url.password()?;
            percent_encoding::percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
        });
        environment.extend(password.map(|p| ("PGPASSWORD", p)));
        environment.extend(parameter(&["options"]).map(|o| ("PGOPTIONS", o)));
        environment.extend(parameter(&["sslcert"]).map(|o| ("PGSSLCERT", o)));
        environment.extend(parameter(&["sslkey"]).map(|o| ("PGSSLKEY", o)));
        environment.extend(parameter(&["sslmode"]).map(|o| ("PGSSLMODE", o)));
        let verifies = matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        match parameter(&["sslrootcert"]) {
            Some(path) => environment.push(("PGSSLROOTCERT", path)),
            // The driver takes the system's certificates then; the server's programs have to be told.
            None if verifies && std::env::var_os("PGSSLROOTCERT").is_none() && Path::new(SYSTEM_ROOTS).exists() => {
                environment.push(("PGSSLROOTCERT", SYSTEM_ROOTS.into()));
            }
            None => {}
        }
        Ok(Self { options, environment, side })
    }

    /// Another database of the same server.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        let mut environment = self.environment.clone();
        environment.retain(|(key, _)| *key != "PGDATABASE");
        environment.push(("PGDATABASE", name.to_owned()));
        Self { options: self.options.clone().database(name), environment, side: self.side }
    }

    /// The same database, as the other side.
    pub(crate) fn as_side(&self, side: Side) -> Self {
        Self { side, ..self.clone() }
    }

    /// The database's name.
    pub(crate) fn name(&self) -> &str {
        self.environment.iter().find(|(key, _)| *key == "PGDATABASE").map_or("", |(_, name)| name)
    }

    /// What messages call it: no password.
    pub(crate) fn location(&self) -> String {
        let place = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        };
        format!("postgres://{}@{place}/{}", self.options.get_username(), self.name())
    }

    /// What the server's own programs need to reach it. Holds the password: for a child's environment only.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// A new session.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        let connecting = PgConnection::connect_with(&self.options);
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
        Ok(session)
    }

    /// Runs statements without parameters whose rows nobody wants.
    pub(crate) async fn run(&self, session: &mut PgConnection, sql: &str) -> Result<()> {
        if sql.trim().is_empty() {
            return Ok(());
        }
        session.execute(sqlx::raw_sql(trusted(sql))).await.map(drop).map_err(|e| self.failed("refused a statement", e))
    }

    fn missing(&self) -> ErrorKind {
        match self.side {
            Side::Source => ErrorKind::SourceMissing,
            Side::Target => ErrorKind::Target,
        }
    }

    /// The error of this crate for one of the driver's.
    pub(crate) fn failed(&self, what: &str, e: sqlx::Error) -> Error {
        let other = match self.side {
            Side::Source => ErrorKind::Source,
            Side::Target => ErrorKind::Target,
        };
        let (kind, retry, next) = match sqlstate(&e).as_deref() {
            Some("28P01" | "28000") => (self.missing(), false, Some("check user and password, and pg_hba.conf")),
            Some("3D000") => (self.missing(), false, Some("check the database's name")),
            Some("42501") => (
                other,
                false,
                Some("give the user the right: for backups GRANT pg_read_all_data is enough, from PostgreSQL 14 on"),
            ),
            Some("55P03") => (
                if self.side == Side::Source { ErrorKind::SourceBusy } else { other },
                true,
                Some("another session holds the table; try again when it has finished"),
            ),
            Some("53300") => {
                (other, true, Some("the server has no connection left; raise max_connections or use fewer"))
            }
            Some("XX001" | "XX002") if self.side == Side::Source => {
                (ErrorKind::SourceCorrupt, false, Some("check the server's disks; restore the table from a snapshot"))
            }
            Some(state) if state.starts_with("57P") || state.starts_with("08") => {
                (other, true, Some("the server ended the session or is starting; try again"))
            }
            Some("57014" | "40001" | "40P01") => (other, true, None),
            Some(_) => (other, false, None),
            None => match &e {
                sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                    (self.missing(), false, Some("check sslmode and sslrootcert"))
                }
                sqlx::Error::Io(_) => (self.missing(), true, Some("check that the server runs, and host and port")),
                sqlx::Error::Tls(_) => (self.missing(), false, Some("check sslmode and sslrootcert")),
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

/// The parameters of a URL that both the driver and the server's programs are given.
const PARAMETERS: [&str; 10] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "dbname", "user", "password", "options"];

/// What has to be known of the server.
pub(crate) struct Server {
    pub(crate) major: u32,
    pub(crate) version: String,
    pub(crate) superuser: bool,
}

impl Server {
    pub(crate) async fn of(session: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let row = sqlx::query("SELECT pg_catalog.current_setting('server_version_num')::int4, pg_catalog.current_setting('server_version'), (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)")
            .fetch_one(session)
            .await?;
        let number: i32 = row.try_get(0)?;
        let version: String = row.try_get(1)?;
        Ok(Self {
            major: u32::try_from(number / 10_000).unwrap_or(0),
            version: version.split_whitespace().next().unwrap_or_default().to_owned(),
            superuser: row.try_get::<Option<bool>, _>(2)?.unwrap_or(false),
        })
    }

    /// What wrote the definitions: the server's version, and that of `pg_dump`.
    pub(crate) fn described(&self, programs: &Programs) -> String {
        format!("{} (pg_dump {})", self.version, programs.version)
    }
}

/// The server's code in the cause of an error of this crate.
pub(crate) fn state_of(e: &Error) -> Option<String> {
    std::error::Error::source(e).and_then(|e| e.downcast_ref::<sqlx::Error>()).and_then(sqlstate)
}

/// The server's code for what went wrong.
pub(crate) fn sqlstate(e: &sqlx::Error) -> Option<String> {
    e.as_database_error().and_then(|e| e.code()).map(std::borrow::Cow::into_owned)
}

/// In the server's words, without the driver's.
pub(crate) fn reason(e: &sqlx::Error) -> String {
    match e.as_database_error() {
        Some(e) => e.message().to_owned(),
        None => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_any_characters_reach_the_programs_and_no_message() {
        let url = "postgres://us%20er:p%40s%3As%2F%25@db.example:5433/sh%20op?sslmode=verify-full&sslrootcert=/ca.pem";
        let database = Database::parse(url, Side::Source).unwrap();
        let of = |key: &str| database.environment().find(|(k, _)| *k == key).map(|(_, v)| v.to_owned());
        assert_eq!(of("PGPASSWORD").as_deref(), Some("p@s:s/%"));
        assert_eq!(of("PGUSER").as_deref(), Some("us er"));
        assert_eq!(of("PGDATABASE").as_deref(), Some("sh op"));
        assert_eq!(of("PGPORT").as_deref(), Some("5433"));
        assert_eq!(of("PGSSLROOTCERT").as_deref(), Some("/ca.pem"));
        assert_eq!(database.location(), "postgres://us er@db.example:5433/sh op");
        assert!(!format!("{database:?}").contains("p@s"));
    }

    #[test]
    fn a_url_that_makes_no_sense_is_refused_without_being_shown() {
        for url in [
            "postgres://u:se:cret@h:port/db",
            "postgres://u:secret@h/db?sslmod=require",
            "mysql://u:secret@h/d",
            "postgres://u:?secret@h/d",
            "postgres://u:12/secret@h/d",
        ] {
            let e = Database::parse(url, Side::Source).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            assert!(!e.to_string().contains("cret"), "{e}");
        }
    }
}
