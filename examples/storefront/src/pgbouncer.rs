//! PgBouncer in front of a throw-away PostgreSQL server.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sqlx::Connection;
use tempfile::TempDir;

use crate::Error;
use crate::postgres::{self, Server};
use crate::process::{as_user, owner};

/// A pooler that gives each transaction a session of the server; gone when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl PgBouncer {
    /// Starts one in front of this server, with one session of it.
    pub async fn start(server: &Server) -> Result<Self, Error> {
        Self::start_with(server, 1).await
    }

    /// Starts one in front of this server, with so many sessions of it at most.
    pub async fn start_with(server: &Server, sessions: u32) -> Result<Self, Error> {
        let program = std::path::Path::new("/usr/sbin/pgbouncer");
        if !program.exists() {
            return Err(Error::Server("there is no PgBouncer here: apt-get install pgbouncer".into()));
        }
        let directory = tempfile::Builder::new().prefix("bounce").tempdir_in("/tmp")?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let owner = owner("postgres", "postgresql")?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid))?;
        }
        let here = directory.path().display();
        // Of its socket alone: the name of which holds the port.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = directory.path().join("pgbouncer.ini");
        std::fs::write(
            &config,
            format!(
                "[databases]\n* = host={} port={} user=postgres\n[pgbouncer]\nlisten_port = {port}\nunix_socket_dir = {here}\n\
                 auth_type = any\npool_mode = transaction\ndefault_pool_size = {sessions}\nignore_startup_parameters = extra_float_digits\n\
                 logfile = {here}/log\n",
                server.socket().display(),
                server.port(),
            ),
        )?;
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644))?;
        let child = as_user(owner, program)
            .arg("-q")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut pooler = Self { directory, port, child };
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match postgres::open(&pooler.url("postgres")).await {
                Ok(db) => {
                    db.close().await?;
                    return Ok(pooler);
                }
                Err(e) if Instant::now() > until || pooler.child.try_wait()?.is_some() => {
                    let log = std::fs::read_to_string(pooler.directory.path().join("log")).unwrap_or_default();
                    return Err(Error::Server(format!("PgBouncer did not start: {e}: {log}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }

    /// The URL of a database through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?user=postgres&host={}&port={}", self.directory.path().display(), self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It ends with this process anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
