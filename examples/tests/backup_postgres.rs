//! The `backup` tool on PostgreSQL: a night, an export, and processes killed at random moments.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use storefront::Size;
use storefront::postgres::Server;
use tempfile::TempDir;

struct Shop {
    dir: TempDir,
    server: Server,
}

impl Shop {
    async fn new(orders: u64) -> Self {
        let server = Server::start().await.unwrap();
        let url = server.database("shop").await.unwrap();
        storefront::postgres::create(&url, &Size::orders(orders), 2).await.unwrap();
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

    /// Waits until nobody of ours is inside a transaction any more; how many still are after ten seconds.
    fn left_behind(&self) -> String {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('caretaker', 'pg_dump') AND xact_start IS NOT NULL";
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.server.psql("postgres", sql).unwrap();
            if left == "0\n" || Instant::now() > until {
                return left;
            }
            std::thread::yield_now();
        }
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
    assert_eq!(code(&shop.on("restore", &["--snapshot", "latest", "--target", &url])), 2, "never over a shop");
    let restored = shop.on("restore", &["--snapshot", "latest", "--target", &url, "--clean"]);
    assert_eq!(code(&restored), 0, "{}", text(&restored));
    // What the guide of the Next.js shop does: psql $DATABASE_URL < backup-YYYY-MM-DD.sql
    for out in ["backup-2026-01-15.sql", "backup-2026-01-15.sql.gz"] {
        let exported = shop.on("export", &["--snapshot", "latest", "--out", out]);
        assert_eq!(code(&exported), 0, "{}", text(&exported));
        let name = out.replace(['-', '.'], "_");
        shop.server.database(&name).await.unwrap();
        let read = if out.ends_with("gz") { format!("gzip -dc {out}") } else { format!("cat {out}") };
        let load = format!("{read} | \"$PSQL\" -X -q -v ON_ERROR_STOP=1 \"$DATABASE_URL\"");
        let loaded = Command::new("bash")
            .args(["-o", "pipefail", "-c", &load])
            .env("PSQL", shop.server.programs().join("psql"))
            .env("DATABASE_URL", shop.server.url(&name))
            .current_dir(shop.dir.path())
            .output()
            .unwrap();
        assert!(loaded.status.success(), "{}", text(&loaded));
        assert_eq!(shop.server.dump(&name, &[]).unwrap(), shop.server.dump("shop", &[]).unwrap());
    }
    let roles = std::fs::read_to_string(shop.dir.path().join("backup-2026-01-15.globals.sql")).unwrap();
    assert!(roles.contains("CREATE ROLE shop") && roles.contains("SCRAM-SHA-256"), "the roles, verifiers included");
    // A password that is wrong is not shown.
    let wrong = format!("postgres://shop:hunter2@{}/shop", shop.server.host());
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
    // The definitions that a snapshot holds, with their sizes.
    let definitions = || -> Vec<String> {
        let shown = text(&shop.on("show", &["latest"]));
        shown.lines().filter(|l| l.contains("schema/")).map(str::to_owned).collect()
    };
    let whole_definitions = definitions();
    assert!(whole_definitions.len() >= 2, "{whole_definitions:?}");
    let (mut killed, mut rounds) = (0, 0);
    while killed < 25 && rounds < 100 {
        rounds += 1;
        let mut child = shop.create();
        std::thread::sleep(whole.mul_f64(rng.f64()));
        if rng.u8(0..3) == 0 {
            // pg_dump alone: the backup has to notice.
            let parent = child.id().to_string();
            let dump = Command::new("pkill").args(["-KILL", "-P", &parent, "-f", "--", "--section="]).status().unwrap();
            if dump.success() {
                killed += 1;
                match child.wait().unwrap().code() {
                    Some(3) => {}
                    // It had ended by itself, between being found and being killed.
                    Some(0) => assert_eq!(definitions(), whole_definitions, "pg_dump was killed, and nobody noticed"),
                    other => panic!("{other:?}"),
                }
            } else {
                child.wait().unwrap();
            }
        } else {
            child.kill().unwrap();
            killed += u32::from(child.wait().unwrap().code().is_none());
        }
        assert_eq!(shop.left_behind(), "0\n", "round {rounds}");
        // Somebody who changes a table does not wait for a dead backup.
        shop.server
            .psql(
                "shop",
                "SET lock_timeout = '10s'; ALTER TABLE orders ADD COLUMN x int; ALTER TABLE orders DROP COLUMN x",
            )
            .unwrap();
    }
    println!("{killed} killed in {rounds} rounds");
    assert!(killed >= 25);
    let created = shop.on("create", &["--source", &shop.server.url("shop")]);
    assert_eq!(code(&created), 0, "{}", text(&created));
    let verified = shop.on("verify", &["--level", "content"]);
    assert_eq!(code(&verified), 0, "{}", text(&verified));
    let restored = shop.on("restore", &["--snapshot", "latest", "--target", &shop.server.url("restored")]);
    assert_eq!(code(&restored), 0, "{}", text(&restored));
}
