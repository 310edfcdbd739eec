//! The shop on PostgreSQL, and a throw-away server for it.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;

use crate::process::{as_user, certificates, command_of, owner, run_again};
use crate::{Error, Facts, Size, data};

/// Where Debian keeps each version's programs.
const VERSIONED: &str = "/usr/lib/postgresql";
/// Names another folder of programs: those of a version that is to be tested.
const PROGRAMS: &str = "STOREFRONT_POSTGRES_BIN";
/// The user the server runs as where this process is root, which it refuses.
const USER: &str = "postgres";
/// The password of the role `shop`, with every character that has to be escaped in a URL.
pub const PASSWORD: &str = "p@ss:/% word?#";

/// Fills an empty database with a new shop and says what is in it.
pub async fn create(url: &str, size: &Size, seed: u64) -> Result<Facts, Error> {
    let mut db = open(url).await?;
    run(&mut db, "SET synchronous_commit = off").await?;
    run(&mut db, include_str!("postgres.sql")).await?;
    let size = *size;
    let facts = fill(&mut db, move |emit| data::shop(size, seed, emit)).await?;
    run(&mut db, include_str!("postgres_after.sql")).await?;
    db.close().await?;
    Ok(facts)
}

/// A day of trading; see [`sqlite::trade_a_day`](crate::sqlite::trade_a_day).
pub async fn trade_a_day(url: &str, size: &Size, seed: u64) -> Result<(), Error> {
    let mut db = open(url).await?;
    let size = *size;
    fill(&mut db, move |emit| data::day(size, seed, emit)).await?;
    Ok(db.close().await?)
}

/// A session, as the shop itself would open it.
pub async fn open(url: &str) -> Result<PgConnection, Error> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.disable_statement_logging().connect().await?)
}

/// Runs SQL text that this crate made.
pub async fn run(db: &mut PgConnection, sql: &str) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await?;
    Ok(())
}

async fn fill<T: Send + 'static>(
    db: &mut PgConnection,
    make: impl FnOnce(&mut dyn FnMut(String)) -> T + Send + 'static,
) -> Result<T, Error> {
    let (mut statements, made) = data::statements(make);
    run(db, "BEGIN").await?;
    while let Some(sql) = statements.recv().await {
        // Bytes are written in another way here.
        run(db, &sql.replace(", X'", ", '\\x")).await?;
    }
    run(db, "COMMIT").await?;
    made.await.map_err(|e| Error::Server(format!("the generator: {e}")))
}

/// A PostgreSQL server in a directory of its own, on a private socket, gone when dropped. Its superuser `postgres` needs
/// no password on the socket; on a loopback port there are TLS and the role `shop` with [`PASSWORD`].
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    programs: PathBuf,
    port: u16,
    child: Child,
    owner: Option<(u32, u32)>,
}

impl Server {
    /// Starts one. A sentence says what is missing where it cannot.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(&[]).await
    }

    /// The same with more of the server's settings, such as `shared_preload_libraries=pg_stat_statements`.
    pub async fn start_with(settings: &[&str]) -> Result<Self, Error> {
        let programs = programs()?;
        // Short: a socket's path has at most 107 bytes.
        let directory = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp")?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let owner = owner(USER, "postgresql")?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid))?;
        }
        let data = directory.path().join("data");
        let as_user = |program: &str| as_user(owner, &programs.join(program));
        let made = as_user("initdb")
            .args([
                "--no-sync",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--pgdata",
            ])
            .arg(&data)
            .stdin(Stdio::null())
            .output()?;
        if !made.status.success() {
            return Err(Error::Server(format!("initdb: {}", String::from_utf8_lossy(&made.stderr))));
        }
        certificates(&data, owner)?;
        let server = Self::run(directory, programs, owner, settings).await?;
        let mut db = open(&server.url("postgres")).await?;
        run(&mut db, &format!("CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'")).await?;
        db.close().await?;
        Ok(server)
    }

    /// A standby of this one, which streams from it as the replica `name`.
    pub async fn standby(&self, name: &str) -> Result<Self, Error> {
        let directory = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp")?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid))?;
        }
        let copied = as_user(self.owner, &self.programs.join("pg_basebackup"))
            .args(["--no-sync", "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--pgdata"])
            .arg(directory.path().join("data"))
            .arg(format!(
                "--dbname=host={} port={} user=postgres application_name={name}",
                self.socket().display(),
                self.port
            ))
            .stdin(Stdio::null())
            .output()?;
        if !copied.status.success() {
            return Err(Error::Server(format!("pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr))));
        }
        Self::run(directory, self.programs.clone(), self.owner, &[]).await
    }

    /// Starts the server whose files are there.
    async fn run(
        directory: TempDir,
        programs: PathBuf,
        owner: Option<(u32, u32)>,
        settings: &[&str],
    ) -> Result<Self, Error> {
        let mut last = String::new();
        for _ in 0..5 {
            // The port may be taken between here and the server's start: then another one is tried.
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let log = std::fs::File::create(directory.path().join("log"))?;
            let mut child = as_user(owner, &programs.join("postgres"))
                .arg("-D")
                .arg(directory.path().join("data"))
                .args(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "ssl=on"])
                .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}")])
                .args(["-c", "max_wal_size=4GB", "-c", "wal_level=logical"])
                .args(["-c", &format!("unix_socket_directories={}", directory.path().display())])
                .args(settings.iter().flat_map(|setting| ["-c", setting]))
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            match answers(directory.path(), port, &mut child).await {
                Ok(()) => return Ok(Self { directory, programs, port, child, owner }),
                Err(e) => {
                    child.kill()?;
                    child.wait()?;
                    let log = std::fs::read_to_string(directory.path().join("log"))?;
                    last = format!("{e}: {log}");
                }
            }
        }
        Err(Error::Server(format!("PostgreSQL did not start: {last}")))
    }

    /// The URL of one of its databases, as superuser over the socket.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The same as another role.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres:///{database}?user={role}&host={}&port={}", self.socket().display(), self.port)
    }

    /// The URL over the loopback port, without user and password: `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// The port, which is part of the socket's name too.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that its own certificate, for `localhost`, is signed by.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("data/ca.crt")
    }

    /// The folder of `psql`, `pg_dump` and the rest of its version.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// A new, empty database; its URL.
    pub async fn database(&self, name: &str) -> Result<String, Error> {
        let mut db = open(&self.url("postgres")).await?;
        run(&mut db, &format!("CREATE DATABASE \"{name}\" TEMPLATE template0")).await?;
        db.close().await?;
        Ok(self.url(name))
    }

    /// A new database with the content of another one that nobody uses.
    pub async fn copy(&self, from: &str, to: &str) -> Result<String, Error> {
        let mut db = open(&self.url("postgres")).await?;
        run(&mut db, &format!("CREATE DATABASE \"{to}\" TEMPLATE \"{from}\"")).await?;
        db.close().await?;
        Ok(self.url(to))
    }

    /// One of its own programs, such as `psql` or `pg_dump`, ready to talk to a database as superuser.
    pub fn program(&self, name: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command
            .env("PGHOST", self.socket())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database)
            .env("LC_ALL", "C");
        command
    }

    /// What `psql` prints for some SQL: unaligned, rows only.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, Error> {
        let mut child = self
            .program("psql", database)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().ok_or_else(|| Error::Server("psql has no input".into()))?;
        let sql = sql.to_owned();
        let written = std::thread::spawn(move || input.write_all(sql.as_bytes()));
        let output = child.wait_with_output()?;
        // A psql that stopped early says why itself.
        let _ = written.join();
        if !output.status.success() {
            return Err(Error::Server(format!("psql: {}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Everything `pg_dump` says of a database, without the lines whose keys are random.
    pub fn dump(&self, database: &str, arguments: &[&str]) -> Result<String, Error> {
        let output = self.program("pg_dump", database).args(arguments).output()?;
        if !output.status.success() {
            return Err(Error::Server(format!("pg_dump: {}", String::from_utf8_lossy(&output.stderr))));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text
            .lines()
            .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"))
            .map(|l| format!("{l}\n"))
            .collect())
    }

    /// Ends it as its administrator would: what is committed is on disk. `start_again` starts it.
    pub fn stop(&mut self) -> Result<Command, Error> {
        let again = command_of(&self.child)?;
        as_user(self.owner, &self.programs.join("pg_ctl"))
            .arg("-D")
            .arg(self.directory.path().join("data"))
            .args(["-m", "fast", "-s", "stop"])
            .stdin(Stdio::null())
            .output()?;
        self.child.wait()?;
        Ok(run_again(self.owner, &again))
    }

    /// Starts it again, at the same address.
    pub async fn start_again(&mut self, mut command: Command) -> Result<(), Error> {
        self.child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        answers(self.directory.path(), self.port, &mut self.child).await
    }

    /// Ends it at once, as a crash would.
    pub fn crash(&mut self) -> Result<(), Error> {
        as_user(self.owner, &self.programs.join("pg_ctl"))
            .arg("-D")
            .arg(self.directory.path().join("data"))
            .args(["-m", "immediate", "-s", "stop"])
            .stdin(Stdio::null())
            .output()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.crash().is_err() {
            // Nothing more can be done here; the kernel ends it with this process.
            let _ = self.child.kill();
        }
    }
}

fn programs() -> Result<PathBuf, Error> {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        return Ok(folder.into());
    }
    let mut versions: Vec<u32> = std::fs::read_dir(VERSIONED)
        .map(|entries| entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    versions.sort_unstable();
    versions
        .into_iter()
        .rev()
        .map(|v| Path::new(VERSIONED).join(v.to_string()).join("bin"))
        .find(|folder| folder.join("initdb").exists())
        .ok_or_else(|| Error::Server("there is no PostgreSQL server here: apt-get install postgresql".into()))
}

async fn answers(socket: &Path, port: u16, child: &mut Child) -> Result<(), Error> {
    let until = Instant::now() + Duration::from_secs(60);
    let url = format!("postgres:///postgres?user=postgres&host={}&port={port}", socket.display());
    loop {
        match open(&url).await {
            Ok(db) => return Ok(db.close().await?),
            Err(e) if Instant::now() > until => return Err(e),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            return Err(Error::Server(format!("it ended with {status}")));
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
