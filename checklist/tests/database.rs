//! Databases as they must not be and their hardened twins, on real servers.
#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;

use checklist::check::database::{self, Database};
use checklist::{Auditor, CheckReport, Context, Outcome, Standing, items};
use chrono::Utc;

const BCRYPT: &str = "$2y$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW";
const ARGON: &str = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b2dWRWJTmaaJObG";

/// Passwords in every bad shape, readable papers, cards.
fn weak() -> Vec<String> {
    let cut = &BCRYPT[..50];
    let cheap = BCRYPT.replace("$12$", "$04$");
    let mut sql = vec![
        "CREATE TABLE users (id integer, email varchar(100), password varchar(100), date_of_birth varchar(20), national_id varchar(100), card varchar(40), payload json)".to_owned(),
    ];
    let cards = ["4111111111111111", "5555 5555 5555 4444", "3782-8224-6310-005"];
    for (at, password) in ["hunter2", "5f4dcc3b5aa765d61d8327deb882cf99", cut, &cheap, BCRYPT].iter().enumerate() {
        for n in 0..4 {
            let card = cards[n % 3];
            sql.push(format!(
                "INSERT INTO users VALUES ({}, 'a{n}@example.com', '{password}', '1990-01-0{}', 'A123456{n}', '{card}', '{{\"pan\": \"{card}\"}}')",
                at * 4 + n,
                n + 1
            ));
        }
    }
    sql
}

/// Good hashes, people who log in by others, encrypted papers, ids that look like cards.
fn hardened() -> Vec<String> {
    let encrypted = "q1Zk8mQ2Jt0vYwXb3nR5sT7uV9xA1cE3gI5kM7oQ9sU1wY3aC5eG7iK9mO1q";
    let mut sql = vec![
        "CREATE TABLE users (id integer, email varchar(100), password varchar(255), password_reset_token varchar(60), national_id varchar(200))".to_owned(),
        "CREATE TABLE orders (number varchar(20), tracking bigint)".to_owned(),
        format!("INSERT INTO users VALUES (1, 'a@example.com', '{BCRYPT}', 'abc', '{encrypted}')"),
        format!("INSERT INTO users VALUES (2, 'b@example.com', '{ARGON}', NULL, '{encrypted}')"),
        "INSERT INTO users VALUES (3, 'c@example.com', NULL, NULL, NULL)".to_owned(),
    ];
    // Sixteen digits that begin with a 4: one in ten passes Luhn.
    for n in 0..120u64 {
        let id = 4_000_000_000_000_000 + n * 7_919_003;
        sql.push(format!("INSERT INTO orders VALUES ('{id}', {})", id + 11));
    }
    sql
}

async fn audit(database: Option<&str>) -> BTreeMap<String, CheckReport> {
    let database = database.map(|url| Arc::new(Database::new(url).unwrap()));
    let auditor = Auditor::new(items()).with_checks(database::checks(database));
    let audit = auditor.run("shop", &Context::at(Utc::now()), &Standing::default()).await;
    audit.items.into_iter().flat_map(|i| i.checks).map(|c| (c.check.clone(), c)).collect()
}

fn outcomes(found: &BTreeMap<String, CheckReport>) -> Vec<(&str, Outcome)> {
    found.iter().map(|(check, report)| (check.as_str(), report.outcome)).collect()
}

fn judge_weak(found: &BTreeMap<String, CheckReport>) {
    for check in ["database.passwords", "database.personal-data", "database.cards"] {
        assert_eq!(found[check].outcome, Outcome::Fail, "{:#?}", found[check]);
    }
    let cards: Vec<&str> = found["database.cards"].places.iter().map(|p| p.at.as_str()).collect();
    assert!(cards.iter().any(|at| at.ends_with("users.card")), "{cards:?}");
    assert!(cards.iter().any(|at| at.ends_with("users.payload")), "in JSON: {cards:?}");
    let told: Vec<&str> = found["database.passwords"].places.iter().map(|p| p.what.as_str()).collect();
    assert_eq!(told.len(), 4, "plain, md5, cut off, too cheap: {told:?}");
    let shown = format!("{found:?}");
    for secret in ["hunter2", "5f4dcc", "R9h/cIPz0gi", "4111111111111111", "A1234560", "1990-01-01"] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}

fn judge_hardened(found: &BTreeMap<String, CheckReport>) {
    for check in ["database.passwords", "database.personal-data", "database.cards"] {
        assert_eq!(found[check].outcome, Outcome::Pass, "{:#?}", found[check]);
    }
    assert!(found["database.passwords"].reason.starts_with("2 passwords"), "{}", found["database.passwords"].reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let server = storefront::postgres::Server::start().await.unwrap();
    let (bad, good) = (server.database("weak").await.unwrap(), server.database("hardened").await.unwrap());
    for (url, statements) in [(&bad, weak()), (&good, hardened())] {
        let mut db = storefront::postgres::open(url).await.unwrap();
        for sql in &statements {
            storefront::postgres::run(&mut db, sql).await.unwrap();
        }
    }
    let found = audit(Some(&bad)).await;
    judge_weak(&found);
    assert_eq!(found["database.privileges"].outcome, Outcome::Fail, "a superuser");
    let role = "CREATE ROLE app LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO app";
    server.psql("hardened", role).unwrap();
    let found = audit(Some(&server.url_as("app", "hardened"))).await;
    judge_hardened(&found);
    assert_eq!(found["database.privileges"].outcome, Outcome::Pass, "{:?}", found["database.privileges"]);
    assert_ne!(found["database.end-of-life"].outcome, Outcome::Unknown, "{:?}", found["database.end-of-life"]);
    // A login that sees nothing knows nothing.
    server.psql("hardened", "CREATE ROLE stranger LOGIN").unwrap();
    let found = audit(Some(&server.url_as("stranger", "hardened"))).await;
    for check in ["database.passwords", "database.personal-data", "database.cards"] {
        assert_eq!(found[check].outcome, Outcome::Unknown, "{:#?}", found[check]);
    }
    // Row security shows an empty table: nothing seen is nothing known.
    server.psql("hardened", "ALTER TABLE users ENABLE ROW LEVEL SECURITY; DROP TABLE orders").unwrap();
    let found = audit(Some(&server.url_as("app", "hardened"))).await;
    for check in ["database.passwords", "database.personal-data", "database.cards"] {
        assert_eq!(found[check].outcome, Outcome::Unknown, "{:#?}", found[check]);
    }
    drop(server);
    let gone = audit(Some(&good)).await;
    assert!(gone.values().all(|r| r.outcome == Outcome::Unknown), "{:?}", outcomes(&gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb() {
    let server = storefront::mysql::Server::start().await.unwrap();
    let (bad, good) = (server.database("weak").unwrap(), server.database("hardened").unwrap());
    for (url, statements) in [(&bad, weak()), (&good, hardened())] {
        let mut db = storefront::mysql::open(url).await.unwrap();
        for sql in &statements {
            storefront::mysql::run(&mut db, sql).await.unwrap();
        }
    }
    let found = audit(Some(&bad)).await;
    judge_weak(&found);
    assert_eq!(found["database.privileges"].outcome, Outcome::Fail, "may do everything");
    server
        .sql("", "CREATE USER shop@localhost; GRANT SELECT, INSERT, UPDATE, DELETE ON hardened.* TO shop@localhost")
        .unwrap();
    let found = audit(Some(&server.url_as("shop", "hardened"))).await;
    judge_hardened(&found);
    assert_eq!(found["database.privileges"].outcome, Outcome::Pass, "{:?}", found["database.privileges"]);
    assert_ne!(found["database.end-of-life"].outcome, Outcome::Unknown, "{:?}", found["database.end-of-life"]);
    server
        .sql("", "CREATE USER nobody@localhost; CREATE DATABASE empty; GRANT SELECT ON empty.* TO nobody@localhost")
        .unwrap();
    let found = audit(Some(&server.url_as("nobody", "empty"))).await;
    for check in ["database.passwords", "database.personal-data", "database.cards"] {
        assert_eq!(found[check].outcome, Outcome::Unknown, "{:#?}", found[check]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let mut urls = Vec::new();
    for (name, statements) in [("weak", weak()), ("hardened", hardened())] {
        let path = dir.path().join(name);
        let mut db = storefront::sqlite::open(&path, true).await.unwrap();
        for sql in &statements {
            storefront::sqlite::run(&mut db, sql).await.unwrap();
        }
        urls.push(format!("sqlite:{}", path.display()));
    }
    let found = audit(Some(&urls[0])).await;
    judge_weak(&found);
    assert_eq!(found["database.privileges"].outcome, Outcome::NotApplicable);
    judge_hardened(&audit(Some(&urls[1])).await);
    let nothing = dir.path().join("nothing.db");
    let found = audit(Some(&format!("sqlite:{}", nothing.display()))).await;
    let blind = |check: &str| found[check].outcome == Outcome::Unknown;
    assert!(
        blind("database.passwords") && blind("database.cards") && blind("database.personal-data"),
        "{:?}",
        outcomes(&found)
    );
    assert!(!nothing.exists(), "a database that is not there is not made");
}

#[tokio::test]
async fn without_access_everything_is_unknown() {
    let found = audit(None).await;
    assert!(found.len() == 5 && found.values().all(|r| r.outcome == Outcome::Unknown), "{:?}", outcomes(&found));
    let e = Database::new("mongodb://u:geheim@h/x").unwrap_err();
    assert!(!e.to_string().contains("geheim"));
}
