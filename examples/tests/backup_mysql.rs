//! The `backup` tool on MariaDB: a night, an export, and processes killed at random moments.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use storefront::Size;
use storefront::mysql::Server;
use tempfile::TempDir;

struct Shop {
    dir: TempDir,
    server: Server,
}

impl Shop {
    async fn new(orders: u64) -> Self {
        let server = Server::start().await.unwrap();
        let url = server.database("shop").unwrap();
        storefront::mysql::create(&url, &Size::orders(orders), 2).await.unwrap();
        let shop = Self { dir: tempfile::tempdir().unwrap(), server };
        assert_eq!(code(&shop.run(&["keygen", "--out", "keys"])), 0);
        assert_eq!(code(&shop.run(&["init", "--store", &shop.store(), "--keys", "keys"])), 0);
        shop
    }

    fn store(&self) -> String {
        format!("file://{}", self.dir.path().join("store").display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut tool = std::env::current_exe().unwrap();
        tool.pop();
        tool.pop();
        let mut command = Command::new(tool.join("examples/backup"));
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn on(&self, verb: &str, arguments: &[&str]) -> Output {
        self.run(&[&[verb, "--store", &self.store(), "--keys", "keys"], arguments].concat())
    }

    fn create(&self) -> Child {
        let url = self.server.url("shop");
        let arguments = ["create", "--store", &self.store(), "--keys", "keys", "--source", &url];
        self.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_an_export_and_the_bad_day() {
    let shop = Shop::new(1_000).await;
    let url = shop.server.url("shop");
    let created = shop.on("create", &["--source", &url]);
    assert_eq!(code(&created), 0, "{}", text(&created));
    let drill = shop.on("drill", &["--snapshot", "latest", "--scratch", &shop.server.url("scratch"), "--rto", "4h"]);
    assert_eq!(code(&drill), 0, "{}", text(&drill));
    assert_eq!(shop.server.sql("", "SHOW DATABASES LIKE 'scratch'").unwrap(), "", "a drill cleans up");
    assert_eq!(code(&shop.on("restore", &["--snapshot", "latest", "--target", &url])), 2, "never over a shop");
    // What the guide of the PHP shop does: mysql shop < backup.sql
    for out in ["backup-2026-01-15.sql", "backup-2026-01-15.sql.gz"] {
        let exported = shop.on("export", &["--snapshot", "latest", "--out", out]);
        assert_eq!(code(&exported), 0, "{}", text(&exported));
        let name = out.replace(['-', '.'], "_");
        shop.server.database(&name).unwrap();
        let read = if out.ends_with("gz") { format!("gzip -dc {out}") } else { format!("cat {out}") };
        let load = format!(
            "{read} | {} --no-defaults --user=root --socket={} {name}",
            shop.server.client().display(),
            shop.server.socket().display()
        );
        let loaded =
            Command::new("bash").args(["-o", "pipefail", "-c", &load]).current_dir(shop.dir.path()).output().unwrap();
        assert!(loaded.status.success(), "{}", text(&loaded));
        assert!(shop.server.dump(&name, &[]).unwrap() == shop.server.dump("shop", &[]).unwrap());
    }
    let users = std::fs::read_to_string(shop.dir.path().join("backup-2026-01-15.globals.sql")).unwrap();
    let verifier = if shop.server.is_mariadb() { "BY PASSWORD" } else { "WITH 'caching_sha2_password' AS 0x" };
    let made = format!("CREATE USER `shop`@`%` IDENTIFIED {verifier}");
    assert!(users.contains(&made), "the users, verifiers included: {users}");
    // In its place only where that is said.
    shop.server.sql("shop", "UPDATE orders SET status = 'cancelled'; DROP TABLE cart_items").unwrap();
    let replaced = shop.on("restore", &["--snapshot", "latest", "--target", &url, "--clean"]);
    assert_eq!(code(&replaced), 0, "{}", text(&replaced));
    assert!(shop.server.dump("shop", &[]).unwrap() == shop.server.dump("backup_2026_01_15_sql", &[]).unwrap());
    shop.server.sql("shop", "DROP TABLE cart_items").unwrap();
    let picked = shop.on("restore", &["--snapshot", "latest", "--target", &url, "--only", "cart_items"]);
    assert_eq!(code(&picked), 0, "{}", text(&picked));
    assert!(shop.server.dump("shop", &[]).unwrap() == shop.server.dump("backup_2026_01_15_sql", &[]).unwrap());
    // A tier of the orders, from the command line.
    let tier = shop.on("create", &["--source", &url, "--tier", "orders", "--tables", "payments,order_*"]);
    assert_eq!(code(&tier), 0, "{}", text(&tier));
    let listed = text(&shop.on("list", &[]));
    assert!(listed.contains("tier orders"), "{listed}");
    // A password that is wrong is not shown.
    let wrong = format!("mysql://shop:hunter2@{}/shop", shop.server.host());
    let refused = shop.on("create", &["--source", &wrong]);
    assert!(code(&refused) == 3 && !text(&refused).contains("hunter2"), "{}", text(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_leave_whole_snapshots_and_no_locks() {
    let shop = Shop::new(8_000).await;
    let seed = std::env::var("CARETAKER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("CARETAKER_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let began = Instant::now();
    assert!(shop.create().wait().unwrap().success());
    let whole = began.elapsed();
    let (mut killed, mut rounds) = (0, 0);
    while killed < 25 && rounds < 100 {
        rounds += 1;
        let mut child = shop.create();
        std::thread::sleep(whole.mul_f64(rng.f64()));
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());
        // Somebody who changes a table does not wait for a dead backup, and nobody is kept from committing.
        let change = "SET lock_wait_timeout = 10; ALTER TABLE orders ADD COLUMN x int; ALTER TABLE orders DROP COLUMN x; INSERT INTO sessions SELECT 'x', 1, '', '', now(), now(); DELETE FROM sessions WHERE id = 'x'";
        shop.server.sql("shop", change).unwrap();
    }
    println!("{killed} killed in {rounds} rounds");
    assert!(killed >= 25);
    let until = Instant::now() + Duration::from_secs(10);
    while shop.server.sql("", "SELECT count(*) FROM information_schema.INNODB_TRX").unwrap() != "0\n" {
        assert!(Instant::now() < until, "a transaction is left");
    }
    let created = shop.on("create", &["--source", &shop.server.url("shop")]);
    assert_eq!(code(&created), 0, "{}", text(&created));
    let verified = shop.on("verify", &["--level", "content"]);
    assert_eq!(code(&verified), 0, "{}", text(&verified));
    let restored = shop.on("restore", &["--snapshot", "latest", "--target", &shop.server.url("restored")]);
    assert_eq!(code(&restored), 0, "{}", text(&restored));
}
