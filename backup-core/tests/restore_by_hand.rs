//! Public tools alone, following the repository's own RESTORE.md to the letter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use backup_core::{
    BackupOptions, FilesSource, Keys, Repository, Rotation, Store, TrustedWriter, VerifyLevel, VerifyOptions,
};
use storefront::Size;
use support::{Shop, assert_same_dump, sqlite3, tree};

/// The shell blocks of the text, one after the other.
fn script(instructions: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in instructions.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, line) => {
                out.push_str(line);
                out.push('\n');
            }
            (false, _) => {}
        }
    }
    out
}

fn follow(store: &Path, keys: &Path, out: &Path, snapshot: &str) -> Output {
    follow_with(store, keys, out, snapshot, &[])
}

fn follow_with(store: &Path, keys: &Path, out: &Path, snapshot: &str, more: &[(&str, &str)]) -> Output {
    let text = std::fs::read_to_string(store.join("RESTORE.md")).unwrap();
    Command::new("bash")
        .arg("-c")
        .arg(script(&text))
        .env("STORE", store)
        .env("KEYS", keys)
        .env("OUT", out)
        .env("SNAPSHOT", snapshot)
        .envs(more.iter().copied())
        .output()
        .expect("these tests need bash")
}

fn check(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}\n(needs openssl, age, zstd, jq, tar, sqlite3)",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_and_its_uploads_come_back_by_hand() {
    let shop = Shop::new().await;
    let db = shop.path("shop.db");
    storefront::sqlite::create(&db, &Size::orders(3_000), 5).await.unwrap();
    sqlite3(&db, "DROP TABLE sqlite_stat4; CREATE TABLE odd(\"a 'b'\", r); INSERT INTO odd VALUES ('x' || char(10) || 'y' || char(0), -3.03942484715666e-260), (x'00ff', 9e999); CREATE VIEW remarked AS SELECT 1 -- a remark
; INSERT INTO odd SELECT 'price', value / 100.0 + value * 1e-9 FROM generate_series(1, 20000)");
    let uploads = shop.path("uploads");
    storefront::uploads::create(&uploads, 5, 120, 20_000).unwrap();
    std::fs::write(uploads.join("name with 'quotes', spaces and\na line end"), "x").unwrap();
    for length in [99, 100, 101, 255] {
        std::fs::write(uploads.join("n".repeat(length)), "long").unwrap();
    }
    std::os::unix::fs::symlink("x//y/".repeat(40), uploads.join("l".repeat(150))).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", uploads.join("absolute link")).unwrap();

    shop.repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    shop.repository.backup(&FilesSource::new(&uploads), BackupOptions::default()).await.unwrap();
    shop.repository.verify(None, VerifyOptions::new(VerifyLevel::Stored)).await.unwrap();

    // Only what the owner keeps: no writer's key.
    let keys = shop.path("owner");
    std::fs::create_dir(&keys).unwrap();
    for file in ["owner-identity.txt", "trust.json"] {
        std::fs::copy(shop.path("keys").join(file), keys.join(file)).unwrap();
    }
    check(&follow(&shop.store(), &keys, &shop.path("by-hand"), "0000000001"));
    assert_same_dump(&db, &shop.path("by-hand/restored.db"));
    check(&follow(&shop.store(), &keys, &shop.path("by-hand-files"), "0000000002"));
    assert_eq!(tree(&uploads), tree(&shop.path("by-hand-files")));

    // The first step notices what was changed: a record, a chunk, the configuration, another's keys.
    for victim in [support::record(&shop.store(), 1), "repository.json".into()] {
        let path = shop.store().join(&victim);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        let at = bad.len() / 2;
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let output = follow(&shop.store(), &keys, &shop.path("no"), "0000000001");
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("NOT "), "{victim}");
        std::fs::write(&path, good).unwrap();
    }
    let stranger = Shop::new().await;
    let output = follow(&shop.store(), &stranger.path("keys"), &shop.path("no"), "0000000001");
    assert!(!output.status.success());
    assert!(!shop.path("no").exists());
}

/// After keys were changed: what does not count is left out, and what this key cannot open holds nothing up.
#[tokio::test]
async fn a_repository_whose_keys_were_changed_comes_back_by_hand() {
    let shop = Shop::new().await;
    let db = shop.path("shop.db");
    storefront::sqlite::create(&db, &Size::orders(100), 5).await.unwrap();
    sqlite3(&db, "DROP TABLE sqlite_stat4");
    let backup = async || {
        let repository = shop.open().await.unwrap();
        repository.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap()
    };
    let good = backup().await;
    sqlite3(&db, "CREATE TABLE forged (x)");
    let forged = backup().await;
    sqlite3(&db, "DROP TABLE forged");
    // The key was stolen after the first; and from now on somebody else reads, too.
    let made = Keys::generate().unwrap();
    let stolen = shop.keys().writer().unwrap().verify_key();
    let rotation = Rotation::new()
        .revoke_writer(stolen, good.id.clone())
        .add_writer(TrustedWriter::of(made.writer().unwrap()).unwrap())
        .add_recipient(made.recipient().unwrap().clone());
    shop.open().await.unwrap().rotate(&rotation).await.unwrap();
    made.save(shop.path("new")).unwrap();
    let keys = |from: &str, to: &str| {
        std::fs::create_dir(shop.path(to)).unwrap();
        for (from, file) in [(from, "owner-identity.txt"), ("keys", "trust.json")] {
            std::fs::copy(shop.path(from).join(file), shop.path(to).join(file)).unwrap();
        }
        shop.path(to)
    };
    // The newest that counts is the one before the theft.
    let output = follow(&shop.store(), &keys("keys", "owner"), &shop.path("by-hand"), "");
    check(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains(&forged.record.to_string()));
    assert_same_dump(&db, &shop.path("by-hand/restored.db"));
    // Who came later reads what was written since.
    std::fs::copy(shop.path("keys/trust.json"), shop.path("new/trust.json")).unwrap();
    let host =
        Repository::open(Store::folder(shop.store()).unwrap(), Keys::load(shop.path("new")).unwrap()).await.unwrap();
    host.backup(&shop.source("shop.db"), BackupOptions::default()).await.unwrap();
    let output = follow(&shop.store(), &keys("new", "partner"), &shop.path("by-partner"), "");
    check(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be read with this key"));
    assert_same_dump(&db, &shop.path("by-partner/restored.db"));
}

#[tokio::test]
async fn an_unencrypted_repository_comes_back_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("shop.db");
    storefront::sqlite::create(&db, &Size::orders(200), 6).await.unwrap();
    sqlite3(&db, "DROP TABLE sqlite_stat4");
    let store = dir.path().join("store");
    let repository = Repository::init_unencrypted(Store::folder(&store).unwrap()).await.unwrap();
    repository.backup(&backup_core::SqliteSource::new(&db), BackupOptions::default()).await.unwrap();
    check(&follow(&store, Path::new("/nonexistent"), &dir.path().join("out"), "0000000001"));
    assert_same_dump(&db, &dir.path().join("out/restored.db"));
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_database_comes_back_by_hand() {
    let server = storefront::postgres::Server::start().await.unwrap();
    let shop = Shop::new().await;
    server.psql("postgres", "CREATE ROLE anna; CREATE ROLE \"odd \"\"role\"\"; x\"").unwrap();
    let url = server.database("shop").await.unwrap();
    storefront::postgres::create(&url, &Size::orders(2_000), 5).await.unwrap();
    server.database("odd").await.unwrap();
    server.psql("odd", include_str!("every_type_postgres.sql")).unwrap();
    for (n, database) in ["shop", "odd"].into_iter().enumerate() {
        let source = backup_core::PostgresSource::new(&server.url(database)).unwrap();
        shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
        let empty = format!("{database}_by_hand");
        server.database(&empty).await.unwrap();
        let port = server.port().to_string();
        let (socket, path) = (server.socket().display().to_string(), std::env::var("PATH").unwrap());
        let path = format!("{}:{path}", server.programs().display());
        let more = [
            ("PGHOST", socket.as_str()),
            ("PGPORT", &port),
            ("PGUSER", "postgres"),
            ("DATABASE", &empty),
            ("PATH", &path),
        ];
        let snapshot = format!("{:010}", n + 1);
        check(&follow_with(&shop.store(), &shop.path("keys"), &shop.path("out"), &snapshot, &more));
        assert_eq!(server.dump(&empty, &[]).unwrap(), server.dump(database, &[]).unwrap());
    }
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_database_comes_back_by_hand() {
    let server = storefront::mysql::Server::start().await.unwrap();
    let shop = Shop::new().await;
    storefront::mysql::create(&server.database("shop").unwrap(), &Size::orders(2_000), 5).await.unwrap();
    server.database("odd").unwrap();
    server
        .sql(
            "odd",
            if server.is_mariadb() {
                include_str!("every_type_mariadb.sql")
            } else {
                include_str!("every_type_mysql.sql")
            },
        )
        .unwrap();
    for (n, database) in ["shop", "odd"].into_iter().enumerate() {
        let source = backup_core::MysqlSource::new(&server.url(database)).unwrap();
        shop.repository.backup(&source, BackupOptions::default()).await.unwrap();
        let empty = format!("{database}_by_hand");
        server.database(&empty).unwrap();
        let client =
            format!("{} --no-defaults --user=root --socket={}", server.client().display(), server.socket().display());
        let snapshot = format!("{:010}", n + 1);
        let more = [("CLIENT", client.as_str()), ("DATABASE", &empty)];
        check(&follow_with(&shop.store(), &shop.path("keys"), &shop.path("out"), &snapshot, &more));
        let dump = |name: &str| {
            let text = server.dump(name, if server.is_mariadb() { &["--dump-history"] } else { &[] }).unwrap();
            String::from_utf8_lossy(&text).replace(&format!("nextval(`{name}`."), "nextval(")
        };
        assert!(dump(&empty) == dump(database), "{database} differs");
    }
}
