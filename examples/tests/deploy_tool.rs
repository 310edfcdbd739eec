//! `deploy` on a shop that a command can break.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use storefront::{Size, nginx, sqlite};
use support::{code, json, text, tool};

/// A shop whose front page is a file.
struct Shop {
    dir: tempfile::TempDir,
    site: nginx::Server,
}

impl Shop {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = nginx::Server::start(
            "server { listen 127.0.0.1:{port}; location / { root {here}/html; try_files /index.html =500; } }",
        );
        let site = site.await.unwrap();
        let shop = Self { dir, site };
        std::fs::create_dir(shop.page().parent().unwrap()).unwrap();
        std::fs::write(shop.page(), "<html>the shop</html>").unwrap();
        std::fs::write(shop.path("index.before"), "<html>the shop</html>").unwrap();
        sqlite::create(&shop.path("shop.db"), &Size::orders(20), 1).await.unwrap();
        std::fs::create_dir(shop.path("source")).unwrap();
        std::fs::write(shop.path("source/a.ts"), "export const find = (q) => prisma.$queryRaw`SELECT ${q}`;\n")
            .unwrap();
        let keys = shop.path("keys");
        let backup = |arguments: &[&str]| Command::new(tool("backup")).args(arguments).output().unwrap();
        assert_eq!(code(&backup(&["keygen", "--out", keys.to_str().unwrap()])), 0);
        let store = format!("file://{}", shop.path("store").display());
        assert_eq!(code(&backup(&["init", "--store", &store, "--keys", keys.to_str().unwrap()])), 0);
        shop.configure("");
        shop
    }

    fn configure(&self, deploy: &str) {
        let at = self.dir.path().display();
        let config = format!(
            "[shop]\nname = \"Shop\"\nstate = \"{at}/state\"\n\
             [[probe.http]]\nid = \"front\"\nurl = \"{}\"\nstatus = [200]\n\
             [backup]\nstores = [\"file://{at}/store\"]\nkeys = \"{at}/keys\"\n\
             [[backup.source]]\nname = \"shop\"\nurl = \"sqlite:{at}/shop.db\"\n\
             [checklist]\nsource = \"{at}/source\"\n\
             [deploy]\nrounds = 4\npause = 0\nwatch_hours = 0\nflag_file = \"{at}/closed\"\n{deploy}\n",
            self.site.url()
        );
        std::fs::write(self.path("caretaker.toml"), config).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn page(&self) -> PathBuf {
        self.site.directory().join("html/index.html")
    }

    fn deploy(&self, flags: &[&str], command: &str) -> Output {
        let config = self.path("caretaker.toml");
        let all = [&["run", "--config", config.to_str().unwrap()][..], flags, &["--", "sh", "-c", command]].concat();
        Command::new(tool("deploy")).args(all).current_dir(self.dir.path()).output().unwrap()
    }

    fn transcript(&self) -> String {
        let folder = self.path("state/deployments");
        let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort_by_key(|p| p.metadata().unwrap().modified().unwrap());
        std::fs::read_to_string(all.last().unwrap()).unwrap()
    }
}

fn back(shop: &Shop) -> String {
    format!(
        "cp {} {} && echo \"$CARETAKER_REASON\" > {}",
        shop.path("index.before").display(),
        shop.page().display(),
        shop.path("why").display()
    )
}

fn remove(file: &Path) -> String {
    format!("rm {}", file.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_one_stays_and_one_that_breaks_the_shop_goes_back() {
    let shop = Shop::new().await;
    let marker = shop.path("ran");
    let good = shop.deploy(
        &["--maintenance"],
        &format!("test -e {} && touch {}", shop.path("closed").display(), marker.display()),
    );
    assert_eq!(code(&good), 0, "{}", text(&good));
    assert!(marker.exists(), "it ran while the shop was closed");
    assert!(!shop.path("closed").exists(), "and the shop is open");
    let said = text(&good);
    assert!(said.contains("gate deploy.backup: PASS: taken now and verified in 1 of 1 stores"), "{said}");
    assert!(said.contains("kept after 4 rounds: nothing is worse"), "{said}");
    assert!(shop.transcript().starts_with("# Deployment: kept"), "{}", shop.transcript());

    // The backup of a moment ago will do for the next one.
    let broken = shop.deploy(&["--json", "--rollback", &back(&shop)], &remove(&shop.page()));
    assert_eq!(code(&broken), 1, "{}", text(&broken));
    let document: Value = json(&broken);
    let schema: Value = serde_json::from_str(include_str!("../schemas/deploy.schema.json")).unwrap();
    support::fits(&document, &schema["$defs"]["run"], &schema, "run");
    assert_eq!(document["ending"], "rolled-back", "{document:#}");
    let steps = document["steps"].to_string();
    assert!(steps.contains("every source has a verified backup of the last 60 minutes"), "{steps}");
    assert!(steps.contains("front: critical 3 times in a row"), "{steps}");
    assert!(std::fs::read_to_string(shop.path("why")).unwrap().contains("front: critical"), "it is told why");
    assert!(shop.page().exists() && shop.transcript().starts_with("# Deployment: rolled back"));

    // A command that fails goes back as well, and a way back that fails is said loudly.
    let failed = shop.deploy(&["--rollback", &back(&shop)], "exit 7");
    assert_eq!(code(&failed), 1, "{}", text(&failed));
    assert!(text(&failed).contains("the command failed: exit status: 7"), "{}", text(&failed));
    let stuck = shop.deploy(&["--rollback", "exit 9"], &remove(&shop.page()));
    assert_eq!(code(&stuck), 3, "{}", text(&stuck));
    assert!(text(&stuck).contains("the way back failed: exit status: 9"), "{}", text(&stuck));
    assert!(shop.transcript().starts_with("# Deployment: BROKEN"));
    // What was never begun is not gone back from; a way back goes while the shop is closed.
    std::fs::copy(shop.path("index.before"), shop.page()).unwrap();
    let config = shop.path("caretaker.toml");
    let typo = Command::new(tool("deploy"))
        .args([
            "run",
            "--config",
            config.to_str().unwrap(),
            "--rollback",
            &format!("touch {}", shop.path("gone-back").display()),
        ])
        .args(["--", "/no/such/command"])
        .output()
        .unwrap();
    assert!(code(&typo) == 1 && text(&typo).contains("nothing was run"), "{}", text(&typo));
    assert!(!shop.path("gone-back").exists());
    let closed = format!("test -e {} && {}", shop.path("closed").display(), back(&shop));
    let while_closed = shop.deploy(&["--maintenance", "--rollback", &closed], "exit 7");
    assert!(code(&while_closed) == 1 && text(&while_closed).contains("rolled back"), "{}", text(&while_closed));
    assert!(!shop.path("closed").exists());
    std::fs::remove_file(shop.page()).unwrap();
    // A shop that is down before cannot be judged after: the gate is closed.
    let down = shop.deploy(&[], &format!("touch {}", shop.path("never").display()));
    assert_eq!(code(&down), 1, "{}", text(&down));
    assert!(text(&down).contains("gate deploy.healthy: CLOSED: critical before: front"), "{}", text(&down));
    assert!(!shop.path("never").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_closed_gate_nothing_is_run() {
    let shop = Shop::new().await;
    let never = shop.path("never");
    let touch = format!("touch {}", never.display());
    // The store is away: no backup, no deployment.
    std::fs::rename(shop.path("store"), shop.path("away")).unwrap();
    let refused = shop.deploy(&["--rollback", "false"], &touch);
    assert_eq!(code(&refused), 1, "{}", text(&refused));
    assert!(text(&refused).contains("gate deploy.backup: CLOSED"), "{}", text(&refused));
    assert!(!never.exists(), "the command was run without a backup");
    assert!(shop.transcript().starts_with("# Deployment: refused"));
    std::fs::rename(shop.path("away"), shop.path("store")).unwrap();
    // A backup that can be taken of nothing.
    std::fs::rename(shop.path("shop.db"), shop.path("gone.db")).unwrap();
    let refused = shop.deploy(&[], &touch);
    assert!(text(&refused).contains("gate deploy.backup: CLOSED: the backup failed"), "{}", text(&refused));
    assert!(!never.exists());
    std::fs::rename(shop.path("gone.db"), shop.path("shop.db")).unwrap();
    // A critical item of the checklist fails.
    let key = ["sk_live_", "9fK2mQ7xL4vB8nR1tW6y"].concat();
    std::fs::write(shop.path("source/pay.ts"), format!("const stripe = new Stripe('{key}');\n")).unwrap();
    shop.configure("audit_within = \"0s\"");
    let refused = shop.deploy(&[], &touch);
    assert!(text(&refused).contains("gate deploy.no-critical: CLOSED: data.api-keys fails"), "{}", text(&refused));
    assert!(!never.exists() && !text(&refused).contains(&key));
    // It may be passed over, with a reason that stands in the transcript; not without.
    assert_eq!(code(&shop.deploy(&["--skip", "deploy.no-critical"], &touch)), 2);
    assert_eq!(code(&shop.deploy(&["--skip", "deploy.nothing", "--reason", "x"], &touch)), 2);
    let passed = shop.deploy(&["--skip", "deploy.no-critical", "--reason", "the key is revoked"], &touch);
    assert_eq!(code(&passed), 0, "{}", text(&passed));
    assert!(never.exists() && shop.transcript().contains("the key is revoked"));
    // What the shop wants attested has to be.
    shop.configure("attested = [\"deploy.tested\"]");
    let skip = ["--skip", "deploy.no-critical", "--reason", "the key is revoked"];
    let refused = shop.deploy(&skip, "true");
    assert!(text(&refused).contains("gate deploy.tested: CLOSED"), "{}", text(&refused));
    let ledger = shop.path("state/evidence.log");
    let attest = ["attest", "deploy.tested", "--by", "Anna", "--statement", "cart to mail", "--for", "1d", "--ledger"];
    let said = Command::new(tool("checklist")).args(attest).arg(&ledger).output().unwrap();
    assert_eq!(code(&said), 0, "{}", text(&said));
    let passed = shop.deploy(&skip, "true");
    assert_eq!(code(&passed), 0, "{}", text(&passed));
    // A configuration that makes no sense is refused before anything is looked at.
    shop.configure("watch_days = 3");
    let wrong = shop.deploy(&[], "true");
    assert!(code(&wrong) == 2 && text(&wrong).contains("watch_days"), "{}", text(&wrong));
}
