//! Probes of databases and of what is in them, on PostgreSQL, MariaDB and SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use chrono::Utc;
use health_probe::{
    Context, DatabaseProbe, ErrorKind, FreshnessProbe, Judgement, Limits, Metric, MissingDay, Observation, Policy,
    Probe, SqlProbe, Starttls, TlsProbe, Unit, Verdict, judge,
};

async fn look(probe: &impl Probe) -> (Observation, Judgement) {
    let seen = probe.observe(&Context::at(Utc::now())).await.unwrap();
    let judgement = judge(&seen, &probe.spec().policy);
    (seen, judgement)
}

const SHOP: &[&str] = &[
    "CREATE TABLE pay (id int PRIMARY KEY, state varchar(20) NOT NULL, amount numeric(10,2) NOT NULL)",
    "INSERT INTO pay VALUES (1,'ok',10.50),(2,'ok',20.00),(3,'failed',5.25),(4,'ok',7),(5,'ok',1),(6,'ok',1)",
];

const PAYMENTS: &str = "SELECT count(*) AS attempts, sum(CASE WHEN state = 'failed' THEN 1 ELSE 0 END) AS failed, \
    (SELECT count(*) FROM pay b WHERE b.id > (SELECT max(id) FROM pay WHERE state = 'ok')) AS failed_in_a_row FROM pay;";

async fn same_on_every_engine(url: &str) {
    let (seen, judgement) = look(&DatabaseProbe::new("db", url).unwrap()).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{seen:?}");

    let payments = SqlProbe::payments("payments", url, PAYMENTS).unwrap();
    let (seen, judgement) = look(&payments).await;
    assert_eq!((seen.finite("attempts"), seen.finite("failed")), (Some(6.0), Some(1.0)), "{seen:?}");
    assert_eq!(judgement.verdict, Verdict::Healthy, "one of six is chance: {judgement:?}");

    // Every type of column that a sum, a mean, a flag or a name may have.
    let policy = Policy::new().below("mean", Unit::Other("EUR".into()), Limits::warning(100.0));
    let sql = "SELECT avg(amount) AS mean, max(state) AS state, sum(amount) AS total, max(id) AS id FROM pay";
    let (seen, judgement) =
        look(&SqlProbe::new("m", url, sql, policy.clone()).unwrap().with_unit("mean", Unit::Other("EUR".into()))).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{seen:?}");
    assert!((seen.finite("total").unwrap() - 44.75).abs() < 1e-9, "{seen:?}");
    // Another unit, nothing, NULL: unknown.
    let (_, judgement) = look(&SqlProbe::new("m", url, sql, policy.clone()).unwrap()).await;
    assert_eq!(judgement.verdict, Verdict::Unknown);
    for nothing in ["SELECT avg(amount) AS mean FROM pay WHERE id < 0", "SELECT amount AS mean FROM pay WHERE id < 0"] {
        let probe =
            SqlProbe::new("m", url, nothing, policy.clone()).unwrap().with_unit("mean", Unit::Other("EUR".into()));
        assert_eq!(look(&probe).await.1.verdict, Verdict::Unknown, "{nothing}");
    }
    // What writes is refused, and so is a wrong query; neither is a verdict on the shop.
    for wrong in ["DELETE FROM pay", "SELECT nothing_of_that_name AS x FROM pay", "SELECT id AS x FROM pay"] {
        let probe = SqlProbe::new("m", url, wrong, policy.clone()).unwrap();
        let e = probe.observe(&Context::at(Utc::now())).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{wrong}: {e}");
    }
    let (seen, _) = look(&payments).await;
    assert_eq!(seen.finite("attempts"), Some(6.0), "nothing was deleted");

    let metric = |sql: &str, target| Metric {
        name: "orders".into(),
        sql: sql.into(),
        unit: "a day".into(),
        target,
        missing: MissingDay::Unknown,
    };
    let date = |ago: i64| (Utc::now() - chrono::TimeDelta::days(ago)).format("%F").to_string();
    let days = |ago: &[i64]| {
        let rows = ago.iter().map(|ago| format!("SELECT '{}' AS day, {} AS value", date(*ago), 8 + 4 * (ago % 2)));
        rows.collect::<Vec<_>>().join(" UNION ALL ")
    };
    let report = metric(&days(&[40, 41]), Some(1.0)).read(url, Duration::from_secs(5)).await.unwrap();
    assert_eq!(report.verdict, Verdict::Unknown, "what was last month says nothing of now");
    // Today is not over.
    let report = metric(&days(&[0, 1, 2, 3, 4]), Some(11.0)).read(url, Duration::from_secs(5)).await.unwrap();
    assert_eq!((report.recent, report.verdict), (Some(10.0), Verdict::Warning));
    assert_eq!(report.values[0].0, date(4));
    // Of a count, a day without a row is one without an order; of a mean, nothing is known of it.
    let mut orders = metric(&days(&[6, 8, 9, 10, 11, 12]), Some(1.0));
    let report = orders.read(url, Duration::from_secs(5)).await.unwrap();
    assert_eq!((report.recent, report.verdict), (None, Verdict::Unknown));
    orders.missing = MissingDay::Zero;
    let report = orders.read(url, Duration::from_secs(5)).await.unwrap();
    assert_eq!((report.recent, report.verdict), (Some(8.0 / 7.0), Verdict::Healthy));
    assert_eq!((report.values.len(), report.values.last().unwrap()), (12, &(date(1), 0.0)));
    // A week without an order is none of which nothing is known.
    orders.sql = "SELECT 'a' AS day, 1 AS value FROM pay WHERE id < 0".into();
    let report = orders.read(url, Duration::from_secs(5)).await.unwrap();
    assert_eq!((report.recent, report.verdict), (Some(0.0), Verdict::Warning));
    orders.sql = days(&[3]);
    orders.target = Some(2.0);
    assert_eq!(orders.read(url, Duration::from_secs(5)).await.unwrap().verdict, Verdict::Warning);
    let report = metric("SELECT 'a' AS day, 1 AS value FROM pay WHERE id < 0", Some(1.0))
        .read(url, Duration::from_secs(5))
        .await;
    assert_eq!(report.unwrap().verdict, Verdict::Unknown, "no value is not on target");
}

#[tokio::test]
async fn postgres() {
    let server = storefront::postgres::Server::start().await.unwrap();
    let url = server.database("probes").await.unwrap();
    let mut db = storefront::postgres::open(&url).await.unwrap();
    for statement in SHOP {
        storefront::postgres::run(&mut db, statement).await.unwrap();
    }
    same_on_every_engine(&url).await;
    // A query that takes too long is ended by the server.
    let slow = SqlProbe::new("slow", &url, "SELECT pg_sleep(60) IS NULL AS x", Policy::new()).unwrap();
    let e = slow.with_limit(Duration::from_millis(300)).observe(&Context::at(Utc::now())).await.unwrap_err();
    assert!(e.to_string().contains("timeout"), "{e}");
    drop(server);
    let (seen, judgement) = look(&DatabaseProbe::new("db", &url).unwrap()).await;
    assert_eq!(judgement.verdict, Verdict::Critical, "{seen:?}");
}

#[tokio::test]
async fn mariadb() {
    let server = storefront::mysql::Server::start().await.unwrap();
    let url = server.database("probes").unwrap();
    let mut db = storefront::mysql::open(&url).await.unwrap();
    for statement in SHOP {
        storefront::mysql::run(&mut db, statement).await.unwrap();
    }
    same_on_every_engine(&url).await;
    let slow = SqlProbe::new("slow", &url, "SELECT sleep(60) + count(*) AS x FROM pay", Policy::new()).unwrap();
    let e = slow.with_limit(Duration::from_millis(300)).observe(&Context::at(Utc::now())).await.unwrap_err();
    // MariaDB's words, and MySQL's.
    let said = e.to_string();
    assert!(said.contains("max_statement_time") || said.contains("maximum statement execution time"), "{said}");
    drop(server);
    let (seen, judgement) = look(&DatabaseProbe::new("db", &url).unwrap()).await;
    assert_eq!(judgement.verdict, Verdict::Critical, "{seen:?}");
}

#[tokio::test]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}?mode=rwc", path.display())).await.unwrap();
    for statement in SHOP {
        sqlx::query(*statement).execute(&pool).await.unwrap();
    }
    same_on_every_engine(&format!("sqlite:{}", path.display())).await;
    // A query without an end ends, and so does the thread in which it runs.
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS x FROM n";
    let endless = SqlProbe::new("endless", &format!("sqlite:{}", path.display()), endless, Policy::new()).unwrap();
    let e = endless.with_limit(Duration::from_millis(300)).observe(&Context::at(Utc::now())).await.unwrap_err();
    assert!(e.to_string().contains("endless"), "{e}");
    let ended = async {
        while std::fs::read_dir("/proc/self/task").unwrap().any(|task| {
            let name = std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default();
            name.starts_with("sqlx-sqlite-wor")
        }) {
            tokio::task::yield_now().await;
        }
    };
    pool.close().await;
    assert!(tokio::time::timeout(Duration::from_secs(20), ended).await.is_ok(), "its thread goes on");
    let (_, judgement) = look(&DatabaseProbe::new("db", "sqlite:/nothing/there.db").unwrap()).await;
    assert_eq!(judgement.verdict, Verdict::Critical);
    assert!(DatabaseProbe::new("db", "mongodb://u:geheim@h").unwrap_err().to_string().starts_with("mongodb:…"));
}

#[tokio::test]
async fn what_is_too_old_or_not_there_is_no_backup() {
    let age = |hours: Option<i64>| {
        FreshnessProbe::new("backup", Duration::from_secs(3600), move || async move {
            Ok(hours.map(|h| Utc::now() - chrono::TimeDelta::minutes(61 * h)))
        })
    };
    for (hours, verdict) in [
        (Some(0), Verdict::Healthy),
        (Some(1), Verdict::Warning),
        (Some(3), Verdict::Critical),
        (None, Verdict::Critical),
        (Some(-5), Verdict::Unknown),
    ] {
        assert_eq!(look(&age(hours)).await.1.verdict, verdict, "{hours:?}");
    }
}

#[tokio::test]
async fn the_certificates_of_databases_are_judged_like_any() {
    let postgres = storefront::postgres::Server::start().await.unwrap();
    let mysql = storefront::mysql::Server::start().await.unwrap();
    let all = [
        (Starttls::Postgres, postgres.host(), postgres.authority()),
        (Starttls::Mysql, mysql.host(), mysql.authority()),
    ];
    for (starttls, host, authority) in all {
        let port: u16 = host.rsplit(':').next().unwrap().parse().unwrap();
        let probe = TlsProbe::new("tls", "localhost", port).pinned_to(([127, 0, 0, 1], port).into()).after(starttls);
        let (seen, judgement) = look(&probe.clone().trusting(&authority).unwrap()).await;
        for reading in ["handshake", "trusted", "name matches", "already valid"] {
            assert_eq!(judgement.finding(reading).unwrap().verdict, Verdict::Healthy, "{starttls:?}: {seen:?}");
        }
        let (_, judgement) = look(&probe).await;
        assert_eq!(judgement.finding("trusted").unwrap().verdict, Verdict::Critical, "{starttls:?}");
        // A server is none of the other kind.
        let other = if starttls == Starttls::Mysql { Starttls::Postgres } else { Starttls::Mysql };
        let (_, judgement) = look(&probe.after(other).with_limit(Duration::from_secs(3))).await;
        assert_eq!(judgement.finding("handshake").unwrap().verdict, Verdict::Critical, "{starttls:?}");
    }
}
