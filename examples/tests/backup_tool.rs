//! The `backup` tool as a shop's cron job meets it: exit codes, JSON, signals, kill -9.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use backup_core::{Keys, Repository, Store, VerifyLevel, VerifyOptions, VerifyReport};
use serde_json::Value;
use storefront::Size;
use support::{Shop, code, fits, json, text, tool};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// A backup of everything, just begun.
fn create(shop: &Shop) -> Child {
    let store = shop.store();
    shop.command(&[
        "create",
        "--store",
        &store,
        "--keys",
        "keys",
        "--source",
        "shop=sqlite:shop.db",
        "--source",
        "dir:uploads",
    ])
    .spawn()
    .unwrap()
}

fn fill(shop: &Shop, orders: u64) {
    block_on(storefront::sqlite::create(&shop.path("shop.db"), &Size::orders(orders), 8)).unwrap();
    storefront::uploads::create(&shop.path("uploads"), 8, 60, 5_000).unwrap();
}

/// Every file below `root`.
fn walk(root: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, out) } else { out.push(path) }
    }
}

fn verify(shop: &Shop, level: VerifyLevel) -> VerifyReport {
    block_on(async {
        let keys = Keys::load(shop.path("keys")).unwrap();
        let repository = Repository::open(Store::folder(shop.path("store")).unwrap(), keys).await.unwrap();
        repository.verify(None, VerifyOptions::new(level).record(false)).await.unwrap()
    })
}

#[test]
fn from_keygen_to_restore_with_the_codes_that_scripts_rely_on() {
    let shop = Shop::new();
    assert_eq!(code(&shop.on("status", &[])), 1, "nothing is backed up: that is not good");
    assert_eq!(code(&shop.on("verify", &[])), 1, "nothing to verify is no success");
    fill(&shop, 200);
    let created = shop.on(
        "create",
        &[
            "--json",
            "--source",
            "shop=sqlite:shop.db",
            "--source",
            "dir:uploads",
            "--exclude",
            "products/000/**",
            "--label",
            "before the sale",
        ],
    );
    // --exclude is for directories only, and is not silently ignored for a database.
    assert_eq!(code(&created), 2, "{}", text(&created));
    let created = shop.on(
        "create",
        &["--json", "--source", "shop=sqlite:shop.db", "--source", "dir:uploads", "--label", "before the sale"],
    );
    assert_eq!(code(&created), 0, "{}", text(&created));
    let created = json(&created);
    assert_eq!(created["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(created["snapshots"][0]["manifest"]["run"], created["run"]);

    let listed = json(&shop.on("list", &["--json"]));
    let id = listed["snapshots"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed["snapshots"][0]["label"], "before the sale");
    assert_eq!(code(&shop.on("status", &[])), 1, "not verified is not good");
    assert_eq!(code(&shop.on("verify", &["--level", "content"])), 0);
    let status = shop.on("status", &["--json"]);
    assert_eq!(code(&status), 0, "{}", text(&status));
    assert!(json(&status)["sources"][0]["content_verified_at"].is_string());
    let shown = shop.on("show", &[&id, "--json"]);
    assert_eq!(json(&shown)["id"], id.as_str());
    assert!(!text(&shown).contains("id_key"));

    assert_eq!(code(&shop.on("restore", &["--snapshot", "latest", "--target", "sqlite:r.db"])), 2, "ambiguous");
    let restored = shop.on("restore", &["--snapshot", "latest", "--of", "shop", "--target", "sqlite:r.db", "--json"]);
    assert_eq!(code(&restored), 0, "{}", text(&restored));
    assert!(json(&restored)["compared"].as_array().unwrap().len() > 10);
    assert_eq!(code(&shop.on("restore", &["--snapshot", &id, "--target", "sqlite:r.db"])), 2, "not empty");
    assert_eq!(code(&shop.on("restore", &["--snapshot", &id, "--target", "sqlite:r.db", "--clean"])), 0);
    assert_eq!(code(&shop.on("restore", &["--snapshot", &id, "--target", "dir:r"])), 2, "another kind");
    assert_eq!(
        code(
            &shop.on(
                "restore",
                &["--snapshot", "before:2001-01-01T00:00:00Z", "--of", "shop", "--target", "sqlite:x.db"]
            )
        ),
        2
    );
    assert_eq!(code(&shop.on("restore", &["--snapshot", &id, "--target", "discard:"])), 0);

    for out in ["backup-2026-01-15.sql", "backup-2026-01-15.sql.gz"] {
        let exported = shop.on("export", &["--snapshot", "latest", "--of", "shop", "--out", out]);
        assert_eq!(code(&exported), 0, "{}", text(&exported));
        let load = format!(
            "case {out} in *.gz) gzip -dc {out};; *) cat {out};; esac | sqlite3 -bail {out}.db > /dev/null; sqlite3 {out}.db 'SELECT count(*) FROM orders; PRAGMA integrity_check'"
        );
        let loaded = Command::new("bash").arg("-c").arg(load).current_dir(shop.dir.path()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&loaded.stdout), "200\nok\n", "{}", text(&loaded));
    }
    assert_eq!(
        code(&shop.on("export", &["--snapshot", "latest", "--of", "shop", "--out", "backup-2026-01-15.sql"])),
        2,
        "never over another file"
    );

    std::fs::write(shop.path("rules.sql"), "-- every payment has its order\nSELECT 1 FROM payments p LEFT JOIN orders o ON o.id = p.order_id WHERE o.id IS NULL;\n").unwrap();
    let drill = shop.on(
        "drill",
        &[
            "--snapshot",
            "latest",
            "--of",
            "shop",
            "--scratch",
            "sqlite:scratch.db",
            "--invariants",
            "rules.sql",
            "--rto",
            "4h",
            "--json",
        ],
    );
    assert_eq!(code(&drill), 0, "{}", text(&drill));
    assert_eq!(json(&drill)["invariants"][0]["outcome"], "holds");
    assert!(!shop.path("scratch.db").exists(), "a drill cleans up");
    std::fs::write(shop.path("rules.sql"), "-- no orphans\nSELECT 1 FROM order_items i LEFT JOIN orders o ON o.id = i.order_id WHERE o.id IS NULL;\n-- nonsense\nSELECT nothing;\n").unwrap();
    let drill = shop.on(
        "drill",
        &["--snapshot", "latest", "--of", "shop", "--scratch", "sqlite:scratch.db", "--invariants", "rules.sql"],
    );
    assert_eq!(code(&drill), 1, "broken and unknown rules are findings");
    assert!(text(&drill).contains("Broken(3)") && text(&drill).contains("Unknown"), "{}", text(&drill));
    assert!(!shop.path("scratch.db").exists());
    assert_eq!(
        code(&shop.on("drill", &["--snapshot", "latest", "--of", "shop", "--scratch", "sqlite:shop.db"])),
        2,
        "never in a place that is in use"
    );
    assert!(shop.path("shop.db").exists());
}

#[test]
fn what_goes_wrong_is_said_and_coded() {
    let shop = Shop::new();
    fill(&shop, 50);
    let missing = shop.on("create", &["--source", "sqlite:none.db"]);
    assert!(code(&missing) == 3 && text(&missing).contains("none.db"), "{}", text(&missing));
    // One source that fails does not take the others away.
    let half = shop.on("create", &["--source", "gone=sqlite:none.db", "--source", "sqlite:shop.db"]);
    assert!(
        code(&half) == 3 && text(&half).contains("gone was NOT backed up") && text(&half).contains("shop: snapshot"),
        "{}",
        text(&half)
    );
    assert_eq!(code(&shop.on("create", &["--source", "ftp://user:hunter2@host"])), 2);
    assert!(!text(&shop.on("create", &["--source", "ftp://user:hunter2@host"])).contains("hunter2"));
    assert_eq!(code(&shop.on("create", &[])), 2, "no source");
    assert_eq!(
        code(&shop.on("create", &["--source", "a=sqlite:shop.db", "--source", "a=dir:uploads"])),
        2,
        "one name twice"
    );
    let nowhere = shop.run(&["list", "--store", "file:///no/such/place", "--keys", "keys"]);
    assert!(code(&nowhere) == 3 && text(&nowhere).contains("no such folder"), "{}", text(&nowhere));
    let store = shop.store();
    let unkeyed = shop.run(&["list", "--store", &store]);
    assert!(code(&unkeyed) == 2 && text(&unkeyed).contains("trust.json"), "{}", text(&unkeyed));
    assert_eq!(code(&shop.run(&["keygen", "--out", "keys"])), 2, "never over keys");
    assert_eq!(code(&shop.run(&["init", "--store", &store, "--keys", "keys"])), 2, "never over a repository");
    // A file that cannot be kept: a finding, and the snapshot is kept.
    let _socket = std::os::unix::net::UnixListener::bind(shop.path("uploads/socket")).unwrap();
    let found = shop.on("create", &["--source", "dir:uploads"]);
    assert!(
        code(&found) == 1 && text(&found).contains("PROBLEM") && text(&found).contains("uploads/socket"),
        "{}",
        text(&found)
    );
    // A changed byte.
    let mut objects = Vec::new();
    walk(&shop.path("store/objects"), &mut objects);
    let mut bytes = std::fs::read(&objects[0]).unwrap();
    bytes[10] ^= 4;
    std::fs::write(&objects[0], bytes).unwrap();
    let verified = shop.on("verify", &[]);
    let name = objects[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(code(&verified) == 1 && text(&verified).contains(&name), "{}", text(&verified));
    // A store replaced by another.
    let other = Shop::new();
    let strange = shop.run(&["list", "--store", &other.store(), "--keys", "keys"]);
    assert!(code(&strange) == 1 && text(&strange).contains("not the one that trust.json pins"), "{}", text(&strange));
}

#[test]
fn an_unencrypted_repository_takes_no_keys() {
    let shop = Shop::new();
    fill(&shop, 50);
    let store = format!("file://{}", shop.path("plain").display());
    assert_eq!(code(&shop.run(&["init", "--store", &store, "--no-encryption"])), 0);
    assert_eq!(code(&shop.run(&["create", "--store", &store, "--source", "sqlite:shop.db"])), 0);
    assert_eq!(code(&shop.run(&["verify", "--store", &store, "--level", "content"])), 0);
    assert_eq!(code(&shop.run(&["restore", "--store", &store, "--snapshot", "latest", "--target", "sqlite:r.db"])), 0);
    // Keys that pin an encrypted repository refuse it.
    assert_eq!(code(&shop.run(&["create", "--store", &store, "--keys", "keys", "--source", "sqlite:shop.db"])), 1);
}

#[test]
fn a_terminated_backup_ends_cleanly() {
    let shop = Shop::new();
    fill(&shop, 20_000);
    let mut interrupted = 0;
    for delay in [20, 60, 100, 140, 180, 220] {
        let child = create(&shop);
        std::thread::sleep(Duration::from_millis(delay));
        let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        // A signal before the handler stands ends the process without a word: that is fine as well.
        if stopped.success() && output.status.code() == Some(3) {
            interrupted += 1;
            assert!(text(&output).contains("nothing was committed"), "{}", text(&output));
            let locks = std::fs::read_dir(shop.path("store/locks")).map(Iterator::count).unwrap_or(0);
            assert_eq!(locks, 0, "the lease was given back");
        }
    }
    assert!(interrupted > 0, "no run was interrupted in time");
    assert!(verify(&shop, VerifyLevel::Content).findings.is_empty());
}

#[test]
fn fifty_kills_at_random_moments_leave_whole_snapshots_and_no_unnamed_debris() {
    let shop = Shop::new();
    let size = Size::orders(6_000);
    fill(&shop, 6_000);
    let seed = std::env::var("CARETAKER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("CARETAKER_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);

    assert!(create(&shop).wait().unwrap().success());
    let mut whole = Duration::from_millis(500);
    let (mut killed, mut debris, mut round) = (0, 0, 0);
    // Some runs end before they are killed: on until fifty did not.
    while killed < 50 && round < 200 {
        round += 1;
        // Something new to store, everywhere.
        block_on(storefront::sqlite::scatter(&shop.path("shop.db"), &size, round, 10)).unwrap();
        std::fs::write(shop.path("uploads/new.jpg"), format!("{round}").repeat(100_000)).unwrap();
        let before = verify(&shop, VerifyLevel::Stored).snapshots.len();
        let mut child = create(&shop);
        std::thread::sleep(whole.mul_f64(rng.f64() * 1.2));
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());

        let level = if round % 10 == 0 { VerifyLevel::Content } else { VerifyLevel::Stored };
        let report = verify(&shop, level);
        assert!(report.is_sound(), "round {round}: {:?}", report.findings);
        debris += u64::from(report.unreferenced_count > 0);
        assert!(report.snapshots.len() <= before + 2);

        // The next run succeeds by itself, and sweeps what has no name.
        let began = Instant::now();
        let output = create(&shop).wait_with_output().unwrap();
        whole = began.elapsed();
        assert!(output.status.success(), "round {round}: {}", text(&output));
        let mut files = Vec::new();
        walk(&shop.path("store"), &mut files);
        let unnamed: Vec<_> = files
            .iter()
            .filter(|f| f.to_string_lossy().contains('#') || f.starts_with(shop.path("store/locks")))
            .collect();
        assert!(unnamed.is_empty(), "round {round}: {unnamed:?}");
    }
    assert!(killed >= 50, "only {killed} of {round} runs were killed before they ended");
    println!("{killed} of {round} runs were killed; {debris} left unreferenced objects, which verify names");
    let report = verify(&shop, VerifyLevel::Content);
    assert!(report.is_sound(), "{:?}", report.findings);
    let restored = shop.on("restore", &["--snapshot", "latest", "--of", "shop", "--target", "sqlite:r.db"]);
    assert_eq!(code(&restored), 0, "{}", text(&restored));
}

#[test]
fn every_json_document_fits_its_published_schema() {
    let schema: Value = serde_json::from_str(include_str!("../schemas/backup.schema.json")).unwrap();
    let shop = Shop::bare();
    fill(&shop, 60);
    std::fs::write(shop.path("rules.sql"), "SELECT 1;\n-- holds\nSELECT 1 WHERE 0;\n").unwrap();
    let store = shop.store();
    let copy = format!("file://{}", shop.path("copy").display());
    let at = ["--store", store.as_str(), "--keys", "keys"];
    let latest = ["--snapshot", "latest", "--of", "shop"];
    assert_eq!(code(&shop.run(&["keygen", "--out", "more"])), 0);
    let mut seen = 0;
    for (verb, more) in [
        ("keygen", vec!["--out", "keys"]),
        ("init", at.to_vec()),
        ("create", [&at[..], &["--source", "sqlite:shop.db", "--source", "dir:uploads"]].concat()),
        ("list", at.to_vec()),
        ("show", [&["latest"], &at[..], &["--of", "uploads"]].concat()),
        ("status", at.to_vec()),
        ("verify", [&at[..], &["--level", "content"]].concat()),
        ("restore", [&at[..], &latest, &["--target", "sqlite:r.db"]].concat()),
        ("export", [&at[..], &latest, &["--out", "x.sql"]].concat()),
        ("drill", [&at[..], &latest, &["--scratch", "sqlite:s.db", "--invariants", "rules.sql"]].concat()),
        (
            "status",
            [
                &at[..],
                &["--objective", "shop=rpo:24h,rto:4h,drill:30d", "--objective", "shop/orders=rpo:30m,every:15m"],
            ]
            .concat(),
        ),
        ("prune", [&at[..], &["--keep", "within=48h,daily=30"]].concat()),
        ("prune", [&at[..], &["--keep", "daily=30", "--apply"]].concat()),
        ("check-store", vec!["--store", store.as_str()]),
        ("sync", vec!["--from", store.as_str(), "--to", copy.as_str(), "--keys", "keys"]),
        ("rotate", [&at[..], &["--add-writer", "more/writer.key"]].concat()),
    ] {
        let output = shop.run(&[&[verb, "--json"], &more[..]].concat());
        assert!(code(&output) <= 1, "{verb}: {}", text(&output));
        fits(&json(&output), &schema["$defs"][verb], &schema, verb);
        assert!(!text(&output).contains("id_key"), "{verb}: the key of the chunk ids is nobody's business");
        seen += 1;
    }
    assert_eq!(seen, 16);
    let both = ["--store", store.as_str(), "--store", copy.as_str(), "--keys", "keys"];
    for (verb, kind) in [("verify", "verify-several"), ("status", "status"), ("list", "list")] {
        let output = shop.run(&[&[verb, "--json"], &both[..]].concat());
        assert!(code(&output) <= 1, "{verb}: {}", text(&output));
        fits(&json(&output), &schema["$defs"][kind], &schema, verb);
    }
}

#[test]
fn nightly_makes_a_report_that_says_it_all() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(tool("nightly"))
        .args(["--out", "night", "--orders", "500"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    let html = std::fs::read_to_string(dir.path().join("night/report.html")).unwrap();
    for words in
        ["owner-identity.txt", "RESTORE.md", "restore --store", "equal", "every payment has its order", "holds"]
    {
        assert!(html.contains(words), "the report says nothing of {words}");
    }
    for words in ["backed up", "restored", "equal in all", "They open with"] {
        assert!(text(&output).contains(words), "{}", text(&output));
    }
    assert!(
        !html.contains("http://") && !html.contains("https://") && !html.contains("<script"),
        "no external requests"
    );
    // The command that it prints to get the shop back works as it stands.
    let command = text(&output).split("-- restore").nth(1).unwrap().replace("\\\n", " ");
    let restored = Command::new("bash")
        .arg("-c")
        .arg(format!("{} restore {command}", tool("backup").display()))
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(code(&restored), 0, "{}", text(&restored));
    assert!(!dir.path().join("night/scratch.db").exists());
    // The configuration that it has written is one for a real night.
    let real = ["--json", "--config", "night/caretaker.toml"];
    let real = Command::new(tool("nightly")).args(real).current_dir(dir.path()).output().unwrap();
    assert_eq!(code(&real), 1, "the sample has flaws: {}", text(&real));
    let schema: Value = serde_json::from_str(include_str!("../schemas/nightly.schema.json")).unwrap();
    fits(&json(&real), &schema["$defs"]["night"], &schema, "night");
    assert!(text(&real).contains("\"verdict\": \"open\""), "{}", text(&real));
    // Never over what is there.
    let again = Command::new(tool("nightly")).args(["--out", "night"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(code(&again), 2);
}

/// Two disks, of which one is away for a night.
#[test]
fn a_disk_that_is_away_is_gone_without_named_and_brought_up_to_date() {
    let shop = Shop::bare();
    fill(&shop, 60);
    let disks = ["one", "two"].map(|name| format!("file://{}", shop.path(name).display()));
    let both = ["--store", disks[0].as_str(), "--store", disks[1].as_str(), "--keys", "keys"];
    let run = |verb: &str, more: &[&str]| shop.run(&[&[verb], &both[..], more].concat());
    assert_eq!(code(&shop.run(&["keygen", "--out", "keys"])), 0);
    let output = run("init", &[]);
    assert!(code(&output) == 0 && text(&output).contains(&disks[1]), "{}", text(&output));
    let create = ["--source", "sqlite:shop.db"];
    assert_eq!(code(&run("create", &create)), 0);
    assert_eq!(code(&run("verify", &["--level", "content"])), 0);
    assert_eq!(code(&run("status", &["--objective", "shop=rpo:24h"])), 0);

    std::fs::rename(shop.path("two"), shop.path("away")).unwrap();
    let output = run("create", &create);
    assert_eq!(code(&output), 1, "{}", text(&output));
    assert!(text(&output).contains(&format!("{} LAGS", disks[1])), "{}", text(&output));
    assert_eq!(code(&run("create", &[&create[..], &["--min-copies", "2"]].concat())), 3);
    // An empty folder in its place is no disk.
    std::fs::create_dir(shop.path("two")).unwrap();
    assert_eq!(code(&run("create", &create)), 1);
    assert_eq!(std::fs::read_dir(shop.path("two")).unwrap().count(), 0);
    let output = run("verify", &[]);
    assert!(code(&output) == 1 && text(&output).contains("NOT VERIFIED"), "{}", text(&output));
    std::fs::remove_dir(shop.path("two")).unwrap();
    std::fs::rename(shop.path("away"), shop.path("two")).unwrap();

    let output = run("status", &["--objective", "shop=rpo:24h"]);
    assert!(code(&output) == 1 && text(&output).contains("LAGS: it lacks 3 records"), "{}", text(&output));
    let output = run("create", &[&create[..], &["--min-copies", "2"]].concat());
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert_eq!(code(&run("verify", &["--level", "content"])), 0);
    let output = run("status", &["--objective", "shop=rpo:24h"]);
    assert!(code(&output) == 0 && text(&output).matches("met ").count() == 2, "{}", text(&output));
    // In its own time, and not in none.
    assert_eq!(code(&run("create", &[&create[..], &["--limit-rate", "64M"]].concat())), 0);
    assert_eq!(code(&run("create", &[&create[..], &["--limit-rate", "0"]].concat())), 2);
    // What one has lost the other gives back.
    let lost = std::fs::read_dir(shop.path("one/objects")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(lost).unwrap();
    let output = run("restore", &["--snapshot", "latest", "--target", "sqlite:back.db"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
}

/// A second host, then the theft of its key: as the owner does it.
#[test]
fn keys_are_added_and_revoked() {
    let shop = Shop::new();
    fill(&shop, 40);
    let take =
        |keys: &str, source: &str| shop.run(&["create", "--store", &shop.store(), "--keys", keys, "--source", source]);
    assert_eq!(code(&take("keys", "sqlite:shop.db")), 0);
    assert_eq!(code(&shop.run(&["keygen", "--out", "made"])), 0);
    std::fs::create_dir(shop.path("second")).unwrap();
    std::fs::copy(shop.path("made/writer.key"), shop.path("second/writer.key")).unwrap();
    assert_eq!(code(&shop.on("rotate", &["--add-writer", "made/writer.key"])), 0);
    for file in ["recipient.txt", "trust.json"] {
        std::fs::copy(shop.path("keys").join(file), shop.path("second").join(file)).unwrap();
    }
    assert_eq!(code(&take("second", "dir:uploads")), 0);
    let listed = json(&shop.on("list", &["--json", "--of", "uploads"]));
    let good = listed["snapshots"][0]["id"].as_str().unwrap().to_owned();
    std::fs::write(shop.path("uploads/odd.php"), "<?php").unwrap();
    assert_eq!(code(&take("second", "dir:uploads")), 0);
    let trust: Value = serde_json::from_slice(&std::fs::read(shop.path("keys/trust.json")).unwrap()).unwrap();
    let stolen = trust["writers"][1]["verify_key"].as_str().unwrap();
    assert_eq!(code(&shop.on("rotate", &["--revoke-writer", stolen])), 2, "up to where it counts has to be said");
    let output = shop.on("rotate", &["--revoke-writer", stolen, "--last-good", &good]);
    assert!(code(&output) == 0 && text(&output).contains("no more"), "{}", text(&output));
    let e = take("second", "dir:uploads");
    assert!(code(&e) == 2 && text(&e).contains("writer.key"), "{}", text(&e));
    let listed = json(&shop.on("list", &["--json", "--of", "uploads"]));
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(code(&shop.on("verify", &["--level", "content"])), 0);
}

/// Everything at night, the orders at noon; in the afternoon the database is gone.
#[test]
fn a_night_and_a_noon_are_put_together() {
    let shop = Shop::new();
    fill(&shop, 60);
    let schema: Value = serde_json::from_str(include_str!("../schemas/backup.schema.json")).unwrap();
    assert_eq!(code(&shop.on("create", &["--source", "sqlite:shop.db"])), 0);
    let sql = "UPDATE orders SET note = 'at noon' WHERE id = 1; DELETE FROM orders WHERE id = (SELECT max(order_id) FROM payments)";
    block_on(async {
        let mut db = storefront::sqlite::open(&shop.path("shop.db"), false).await.unwrap();
        storefront::sqlite::run(&mut db, &format!("PRAGMA foreign_keys=OFF; {sql}")).await.unwrap();
    });
    let noon = shop.on("create", &["--source", "sqlite:shop.db", "--tables", "orders", "--tier", "orders"]);
    assert_eq!(code(&noon), 0, "{}", text(&noon));
    let latest = ["--snapshot", "latest", "--target", "sqlite:back.db", "--compose"];
    let output = shop.on("restore", &latest);
    // The payment of the order that was taken back since.
    assert_eq!(code(&output), 1, "{}", text(&output));
    assert!(text(&output).contains("tier orders") && text(&output).contains("ORPHANS"), "{}", text(&output));
    let exported =
        Command::new("sqlite3").arg(shop.path("back.db")).arg("SELECT note FROM orders WHERE id = 1").output();
    assert_eq!(text(&exported.unwrap()), "at noon\n");
    std::fs::remove_file(shop.path("back.db")).unwrap();
    let output = shop.on("restore", &[&latest[..], &["--json"]].concat());
    fits(&json(&output), &schema["$defs"]["restore"], &schema, "restore");
    assert!(json(&output)["orphans"][0]["table"] == "payments");
}
