//! The shop on MySQL or MariaDB, and a throw-away server for it.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection};
use tempfile::TempDir;

use crate::process::{as_user, certificates, command_of, owner, run_again};
use crate::{Error, Facts, Size, data};

/// The user the server runs as where this process is root.
const USER: &str = "mysql";
/// The Debian package of it.
const PACKAGE: &str = "mariadb-server";
/// The password of the user `shop`, with every character that has to be escaped in a URL.
pub const PASSWORD: &str = "p@ss:/% word?#";
/// What the shop has besides tables.
const AFTER: [&str; 7] = [
    "CREATE VIEW order_totals AS SELECT o.id, o.number, o.shipping + coalesce(sum(i.quantity * i.unit_price), 0) AS total \
     FROM orders o LEFT JOIN order_items i ON i.order_id = o.id GROUP BY o.id",
    "CREATE VIEW low_stock AS SELECT v.sku, p.title, v.`option`, v.stock FROM variants v JOIN products p ON p.id = v.product_id WHERE v.is_low",
    "CREATE TRIGGER cart_touched AFTER INSERT ON cart_items FOR EACH ROW BEGIN UPDATE carts SET updated_at = now() WHERE id = new.cart_id; END",
    "CREATE FUNCTION order_total(wanted bigint unsigned) RETURNS decimal(12,2) READS SQL DATA BEGIN \
       RETURN (SELECT coalesce(sum(quantity * unit_price), 0) FROM order_items WHERE order_id = wanted); END",
    "CREATE PROCEDURE forget_sessions(IN days int) BEGIN DELETE FROM sessions WHERE last_used_at < now() - INTERVAL days DAY LIMIT 1000; END",
    "CREATE EVENT forget ON SCHEDULE EVERY 1 DAY STARTS '2026-01-01 02:00:00' DO CALL forget_sessions(30)",
    "ANALYZE TABLE customers, orders, order_items, payments, products, variants",
];

/// Fills an empty database with a new shop and says what is in it.
pub async fn create(url: &str, size: &Size, seed: u64) -> Result<Facts, Error> {
    let mut db = open(url).await?;
    run(&mut db, include_str!("mysql.sql")).await?;
    let size = *size;
    let facts = fill(&mut db, move |emit| data::shop(size, seed, emit)).await?;
    for sql in AFTER {
        run(&mut db, sql).await?;
    }
    end(db).await;
    Ok(facts)
}

/// A day of trading; see [`sqlite::trade_a_day`](crate::sqlite::trade_a_day).
pub async fn trade_a_day(url: &str, size: &Size, seed: u64) -> Result<(), Error> {
    let mut db = open(url).await?;
    let size = *size;
    fill(&mut db, move |emit| data::day(size, seed, emit)).await?;
    end(db).await;
    Ok(())
}

/// A session, as the shop itself would open it.
pub async fn open(url: &str) -> Result<MySqlConnection, Error> {
    let options: MySqlConnectOptions = url.parse()?;
    let options = options.pipes_as_concat(false).timezone(None).disable_statement_logging();
    Ok(options.connect().await?)
}

/// Ends a session. The server hangs up first, which the driver takes for an error.
async fn end(db: MySqlConnection) {
    let _ = db.close().await;
}

/// Runs SQL text that this crate made.
pub async fn run(db: &mut MySqlConnection, sql: &str) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await?;
    Ok(())
}

async fn fill<T: Send + 'static>(
    db: &mut MySqlConnection,
    make: impl FnOnce(&mut dyn FnMut(String)) -> T + Send + 'static,
) -> Result<T, Error> {
    let (mut statements, made) = data::statements(make);
    run(
        db,
        "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES', foreign_key_checks = 0, unique_checks = 0",
    )
    .await?;
    run(db, "BEGIN").await?;
    while let Some(sql) = statements.recv().await {
        // A name that means something here.
        run(db, &sql.replace("sku, option,", "sku, `option`,")).await?;
    }
    run(db, "COMMIT").await?;
    run(db, "SET SESSION sql_mode = DEFAULT, foreign_key_checks = 1, unique_checks = 1").await?;
    made.await.map_err(|e| Error::Server(format!("the generator: {e}")))
}

/// A folder with the programs of another server than the system's MariaDB.
const PROGRAMS: &str = "STOREFRONT_MYSQL_BIN";

/// A MySQL or MariaDB server in a directory of its own, on a private socket, gone when dropped. Its user `root` needs no
/// password on the socket; on a loopback port there are TLS and the user `shop` with [`PASSWORD`].
///
/// It is the system's MariaDB, or the one whose programs lie in the folder that `STOREFRONT_MYSQL_BIN` names.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    port: u16,
    child: Child,
    programs: Programs,
}

/// The programs of one server.
#[derive(Debug, Clone)]
struct Programs {
    server: PathBuf,
    /// Where its clients are, unless they are on the path.
    folder: Option<PathBuf>,
    mariadb: bool,
}

impl Programs {
    fn find() -> Result<Self, Error> {
        if let Some(folder) = std::env::var_os(PROGRAMS).map(PathBuf::from) {
            let mariadb = folder.join("mariadbd").exists();
            let server = folder.join(if mariadb { "mariadbd" } else { "mysqld" });
            if !server.exists() {
                return Err(Error::Server(format!("{PROGRAMS}: no server in {}", folder.display())));
            }
            return Ok(Self { server, folder: Some(folder), mariadb });
        }
        let server = PathBuf::from("/usr/sbin/mariadbd");
        if !server.exists() {
            return Err(Error::Server(format!("there is no MariaDB server here: apt-get install {PACKAGE}")));
        }
        Ok(Self { server, folder: None, mariadb: true })
    }

    /// One of its programs; `mariadb` and `mariadb-dump` under the names that they have with this server.
    fn named(&self, name: &str) -> PathBuf {
        let name = match name {
            "mariadb" if !self.mariadb => "mysql",
            "mariadb-dump" if !self.mariadb => "mysqldump",
            other => other,
        };
        self.folder.as_ref().map_or_else(|| PathBuf::from(name), |f| f.join(name))
    }

    /// Makes the files of a new server.
    fn initialise(&self, data: &Path, owner: Option<(u32, u32)>) -> Result<(), Error> {
        let datadir = format!("--datadir={}", data.display());
        let mut command = if self.mariadb {
            let mut command = as_user(owner, &self.named("mariadb-install-db"));
            command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
            command.args(["--skip-test-db", "--skip-name-resolve", &datadir]);
            command
        } else {
            let mut command = as_user(owner, &self.server);
            command.args(["--no-defaults", "--initialize-insecure", "--secure-file-priv=", &datadir]);
            command
        };
        let made = command.env("TMPDIR", data.with_file_name("tmp")).stdin(Stdio::null()).output()?;
        if made.status.success() {
            return Ok(());
        }
        let [out, error] = [made.stdout, made.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        Err(Error::Server(format!("a new server could not be made: {out}{error}")))
    }
}

impl Server {
    /// Starts one. A sentence says what is missing where it cannot.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(&[]).await
    }

    /// The same with more of the server's options.
    pub async fn start_with(options: &[&str]) -> Result<Self, Error> {
        let programs = Programs::find()?;
        // Short: a socket's path has at most 107 bytes.
        let directory = tempfile::Builder::new().prefix("my").tempdir_in("/tmp")?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let owner = owner(USER, PACKAGE)?;
        let data = directory.path().join("data");
        // Servers that start beside it in a common one would remove its temporary tables.
        let temporary = directory.path().join("tmp");
        for folder in [&data, &temporary] {
            std::fs::create_dir(folder)?;
        }
        if let Some((uid, gid)) = owner {
            for folder in [directory.path(), &data, &temporary] {
                std::os::unix::fs::chown(folder, Some(uid), Some(gid))?;
            }
        }
        programs.initialise(&data, owner)?;
        certificates(&data, owner)?;
        let mut last = String::new();
        for _ in 0..5 {
            // The port may be taken between here and the server's start: then another one is tried.
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let log = std::fs::File::create(directory.path().join("log"))?;
            let mut child = as_user(owner, &programs.server)
                .args(["--no-defaults", "--bind-address=127.0.0.1", "--character-set-server=utf8mb4"])
                .args([
                    "--innodb-flush-log-at-trx-commit=0",
                    "--innodb-buffer-pool-size=256M",
                    if programs.mariadb { "--innodb-log-file-size=256M" } else { "--innodb-redo-log-capacity=512M" },
                ])
                .args(if programs.mariadb {
                    &[][..]
                } else {
                    &["--secure-file-priv=", "--mysqlx=OFF", "--skip-log-bin", "--cte-max-recursion-depth=10000000"]
                })
                .args(["--skip-name-resolve", "--ssl-ca=ca.crt", "--ssl-cert=server.crt", "--ssl-key=server.key"])
                .arg(format!("--datadir={}", data.display()))
                .arg(format!("--tmpdir={}", temporary.display()))
                .arg(format!("--socket={}", directory.path().join("socket").display()))
                .arg(format!("--port={port}"))
                .args(options)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            match answers(&directory.path().join("socket"), &mut child).await {
                Ok(()) => {
                    let server = Self { directory, port, child, programs };
                    server.sql("", &format!("CREATE USER shop@'%' IDENTIFIED BY '{PASSWORD}'"))?;
                    return Ok(server);
                }
                Err(e) => {
                    child.kill()?;
                    child.wait()?;
                    let log = std::fs::read_to_string(directory.path().join("log"))?;
                    last = format!("{e}: {log}");
                }
            }
        }
        Err(Error::Server(format!("the server did not start: {last}")))
    }

    /// One that writes the log which replicas read.
    pub async fn start_primary() -> Result<Self, Error> {
        // The shop writes to a table without transactions too, which MySQL's own default for such logs forbids.
        let options: &[&str] = match Programs::find()?.mariadb {
            true => &["--log-bin=log", "--server-id=1"],
            false => &["--log-bin=log", "--server-id=1", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"],
        };
        Self::start_with(options).await
    }

    /// A replica of this one, which has to be a [primary](Self::start_primary) and hold no data yet. It applies what
    /// happens from now on, each change only after `delay` seconds.
    pub async fn replica(&self, delay: u32) -> Result<Self, Error> {
        let options: &[&str] = match self.is_mariadb() {
            true => &["--server-id=2"],
            false => &["--server-id=2", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"],
        };
        let replica = Self::start_with(options).await?;
        let status = if self.is_mariadb() { "SHOW MASTER STATUS" } else { "SHOW BINARY LOG STATUS" };
        let status = self.sql("", status)?;
        let Some([file, position]) = status.split_whitespace().collect::<Vec<_>>().first_chunk().copied() else {
            return Err(Error::Server(format!("this server writes no log for replicas: {status:?}")));
        };
        self.sql("", "GRANT REPLICATION SLAVE ON *.* TO shop@'%'")?;
        // Without TLS a password needs the server's own key; its certificate is not one that anybody knows.
        let (word, more) = if self.is_mariadb() { ("MASTER", "") } else { ("SOURCE", ", SOURCE_SSL = 1") };
        let change = if self.is_mariadb() { "CHANGE MASTER TO" } else { "CHANGE REPLICATION SOURCE TO" };
        replica.sql("", &format!(
            "{change} {word}_HOST = '127.0.0.1', {word}_PORT = {}, {word}_USER = 'shop', {word}_PASSWORD = '{PASSWORD}', \
             {word}_LOG_FILE = '{file}', {word}_LOG_POS = {position}, {word}_DELAY = {delay}{more}; START REPLICA",
            self.port
        ))?;
        Ok(replica)
    }

    /// Makes a replica apply changes only after so many seconds.
    pub fn set_delay(&self, delay: u32) -> Result<(), Error> {
        let (change, word) =
            if self.is_mariadb() { ("CHANGE MASTER TO", "MASTER") } else { ("CHANGE REPLICATION SOURCE TO", "SOURCE") };
        self.sql("", &format!("STOP REPLICA; {change} {word}_DELAY = {delay}; START REPLICA"))?;
        Ok(())
    }

    /// Whether it is MariaDB.
    pub fn is_mariadb(&self) -> bool {
        self.programs.mariadb
    }

    /// What to select `seq` from for the numbers from 1 to `last`.
    pub fn numbers(&self, last: u32) -> String {
        if self.programs.mariadb {
            return format!("seq_1_to_{last}");
        }
        format!(
            "(WITH RECURSIVE s (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM s WHERE seq < {last}) SELECT seq FROM s) s"
        )
    }

    /// The URL of one of its databases, as root over the socket.
    pub fn url(&self, database: &str) -> String {
        self.url_as("root", database)
    }

    /// The same as another user, who has no password.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("mysql://{user}@localhost/{database}?socket={}", self.socket().display())
    }

    /// Its address over TCP: `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The certificate of the authority that its own certificate, for `localhost`, is signed by.
    pub fn authority(&self) -> PathBuf {
        self.data().join("ca.crt")
    }

    /// A new, empty database; its URL.
    pub fn database(&self, name: &str) -> Result<String, Error> {
        self.sql("", &format!("CREATE DATABASE `{name}`"))?;
        Ok(self.url(name))
    }

    /// Its client for people.
    pub fn client(&self) -> PathBuf {
        self.programs.named("mariadb")
    }

    /// One of its clients, such as `mariadb` or `mariadb-dump` (`mysql` or `mysqldump` there), ready to talk to it as root.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.named(name));
        command.args(["--no-defaults", "--user=root", "--default-character-set=utf8mb4"]);
        command.arg(format!("--socket={}", self.socket().display())).env("LC_ALL", "C");
        command
    }

    /// What `mariadb` prints for some SQL: rows only, columns with tabs between.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, Error> {
        let mut command = self.program("mariadb");
        command.args(["--batch", "--skip-column-names"]);
        if !database.is_empty() {
            command.arg(database);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().ok_or_else(|| Error::Server("mariadb has no input".into()))?;
        let sql = sql.to_owned();
        let written = std::thread::spawn(move || input.write_all(sql.as_bytes()));
        let output = child.wait_with_output()?;
        // A client that stopped early says why itself.
        let _ = written.join();
        if !output.status.success() {
            return Err(Error::Server(format!("mariadb: {}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Everything `mariadb-dump` or `mysqldump` says of a database.
    pub fn dump(&self, database: &str, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        let output = self
            .program("mariadb-dump")
            .args(["--routines", "--events", "--triggers", "--skip-dump-date", "--skip-comments", "--hex-blob"])
            .args(["--single-transaction", "--tz-utc"])
            .args(if self.programs.mariadb { &[][..] } else { &["--set-gtid-purged=OFF", "--no-tablespaces"] })
            .args(arguments)
            .arg(database)
            .output()?;
        if !output.status.success() {
            return Err(Error::Server(format!("mariadb-dump: {}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(output.stdout)
    }

    /// Ends it as its administrator would: what is committed is on disk. `start_again` starts it.
    pub fn stop(&mut self) -> Result<Command, Error> {
        let again = command_of(&self.child)?;
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(run_again(owner(USER, PACKAGE)?, &again))
    }

    /// Starts it again, at the same address.
    pub async fn start_again(&mut self, mut command: Command) -> Result<(), Error> {
        self.child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        answers(&self.directory.path().join("socket"), &mut self.child).await
    }

    /// Ends it at once, as a crash would.
    pub fn crash(&mut self) -> Result<(), Error> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing more can be done where this fails; the kernel ends it with this process.
        let _ = self.crash();
    }
}

async fn answers(socket: &Path, child: &mut Child) -> Result<(), Error> {
    let until = Instant::now() + Duration::from_secs(60);
    let url = format!("mysql://root@localhost/mysql?socket={}", socket.display());
    loop {
        match open(&url).await {
            Ok(db) => {
                end(db).await;
                return Ok(());
            }
            Err(e) if Instant::now() > until => return Err(e),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            return Err(Error::Server(format!("it ended with {status}")));
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
