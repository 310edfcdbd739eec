//! Who may do what, on real servers.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use db_maint::{AccessReport, AccessRule, AdminRule, ErrorKind, Period, SensitiveTable, Severity, audit_access, open};
use support::Db;

fn rule() -> AccessRule {
    AccessRule {
        trusted: ["postgres", "root", "mysql", "mariadb.sys"].map(str::to_owned).to_vec(),
        table: vec![SensitiveTable {
            schema: None,
            table: "payments".into(),
            readers: vec!["reports".into()],
            writers: vec!["shop".into()],
        }],
        admins: None,
    }
}

fn told(report: &AccessReport) -> Vec<(&str, Severity)> {
    report.findings.iter().map(|f| (f.object.as_str(), f.severity)).collect()
}

fn by<'a>(report: &'a AccessReport, role: &str) -> Vec<&'a str> {
    let readers = &report.tables[0].readers;
    readers.iter().filter(|who| who.role == role).flat_map(|who| who.by.iter().map(String::as_str)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_rights_are_followed_through_roles_views_columns_and_everybody() {
    let db = support::postgres().await;
    db.fill(50).await;
    let Db::Postgres(server, url) = &db else { panic!() };
    server
        .psql(
            "shop",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE reports LOGIN; CREATE ROLE readers; CREATE ROLE support NOINHERIT LOGIN; CREATE ROLE intern LOGIN; CREATE ROLE auditor LOGIN; \
             GRANT SELECT ON payments TO reports, readers; GRANT INSERT, SELECT ON payments TO shop; GRANT readers TO support",
        )
        .unwrap();
    let audit = async || audit_access(&*open(url).unwrap(), &rule(), None).await.unwrap();
    let report = audit().await;
    // A member may switch to what it does not inherit.
    assert_eq!(told(&report), [("support", Severity::Warning)], "{report:#?}");
    assert_eq!(by(&report, "support"), ["role readers"]);
    assert_eq!(by(&report, "postgres"), ["superuser"]);
    assert!(by(&report, "intern").is_empty() && by(&report, "auditor").is_empty());

    server
        .psql(
            "shop",
            "GRANT SELECT (amount) ON payments TO intern; CREATE VIEW till AS SELECT * FROM payments; GRANT SELECT ON till TO auditor; \
             CREATE VIEW drawer AS SELECT * FROM till; CREATE ROLE cashier LOGIN; GRANT UPDATE ON drawer TO cashier; \
             CREATE TABLE payments_old () INHERITS (payments); CREATE ROLE archivist LOGIN; GRANT SELECT ON payments_old TO archivist; \
             CREATE FUNCTION total() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM payments'; \
             GRANT DELETE ON payments TO reports; ALTER ROLE shop SUPERUSER; GRANT CREATE ON SCHEMA public TO PUBLIC",
        )
        .unwrap();
    let report = audit().await;
    assert_eq!(by(&report, "intern"), ["its own right"]);
    assert_eq!(by(&report, "auditor"), ["its own right on the view public.till"]);
    let told_now = told(&report);
    for expected in [
        ("reports", Severity::Critical),
        // It may change the table through a view over a view.
        ("cashier", Severity::Critical),
        ("archivist", Severity::Warning),
        ("shop", Severity::Critical),
        ("auditor", Severity::Warning),
        ("intern", Severity::Warning),
        ("schema public", Severity::Warning),
    ] {
        assert!(told_now.contains(&expected), "{expected:?} {told_now:?}");
    }
    assert_eq!(by(&report, "archivist"), ["its own right on payments_old"]);
    assert!(report.unknown[0].contains("SECURITY DEFINER"), "{:?}", report.unknown);
    server.psql("shop", "ALTER ROLE shop NOSUPERUSER; GRANT SELECT ON payments TO PUBLIC").unwrap();
    assert!(by(&audit().await, "auditor").contains(&"PUBLIC"));
    // A role without rights sees the same: the catalogue is everybody's.
    let blind = audit_access(&*open(&server.url_as("intern", "shop")).unwrap(), &rule(), None).await.unwrap();
    assert_eq!(told(&blind), told(&audit().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_rights_are_followed_through_roles_and_scopes() {
    let db = support::mysql().await;
    db.fill(50).await;
    let Db::Mysql(server, url) = &db else { panic!() };
    server
        .sql(
            "shop",
            "CREATE USER reports@'%' IDENTIFIED BY 'x1'; GRANT SELECT ON shop.payments TO reports@'%'; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO shop@'%'",
        )
        .unwrap();
    let audit = async || audit_access(&*open(url).unwrap(), &rule(), None).await.unwrap();
    let report = audit().await;
    // The test server's own accounts have no password: whoever is trusted, that is told.
    let own = |(role, _): &(&str, Severity)| role.starts_with("'root'@");
    assert!(told(&report).iter().all(own) && !told(&report).is_empty(), "{report:#?}");
    // The sample shop has routines that run with their owner's rights: what they show is not followed, and that is said.
    assert!(
        report.unknown.iter().all(|why| why.contains("DEFINER")) && report.unknown.len() == 1,
        "{:?}",
        report.unknown
    );
    assert_eq!(by(&report, "'shop'@'%'"), ["its own right on the schema"]);

    let role = if server.is_mariadb() { "readers" } else { "readers@'%'" };
    server
        .sql(
            "shop",
            &format!(
                "CREATE ROLE {role}; GRANT SELECT ON shop.payments TO {role}; CREATE USER support@'%' IDENTIFIED BY 'x2'; GRANT {role} TO support@'%'; \
                 CREATE USER intern@'%' IDENTIFIED BY 'x3'; GRANT SELECT (amount) ON shop.payments TO intern@'%'; \
                 CREATE USER import@'%' IDENTIFIED BY 'x4'; GRANT FILE ON *.* TO import@'%'; CREATE USER open@'%'; \
                 CREATE USER other@'%' IDENTIFIED BY 'x5'; GRANT SELECT ON shop.orders TO other@'%'"
            ),
        )
        .unwrap();
    let report = audit().await;
    let told_now = told(&report);
    for expected in [
        ("'import'@'%'", Severity::Critical),
        ("'open'@'%'", Severity::Critical),
        ("'support'@'%'", Severity::Warning),
        ("'intern'@'%'", Severity::Warning),
    ] {
        assert!(told_now.contains(&expected), "{expected:?} {told_now:?}");
    }
    assert_eq!(told_now.iter().filter(|told| !own(told)).count(), 4, "{told_now:?}");
    assert!(by(&report, "'support'@'%'")[0].contains("role 'readers'@"), "{report:#?}");
    assert!(!serde_json::to_string(&report).unwrap().contains("*F"), "a password's hash is shown");
    if server.is_mariadb() {
        server.sql("shop", "CREATE ROLE files; GRANT FILE ON *.* TO files; GRANT files TO other@'%'; GRANT SELECT ON shop.payments TO PUBLIC").unwrap();
        let report = audit().await;
        assert!(told(&report).contains(&("'other'@'%'", Severity::Critical)), "{report:#?}");
        assert!(by(&report, "'import'@'%'").contains(&"PUBLIC on the table"), "{report:#?}");
    }
    // Who may not read the accounts says so, and finds nobody innocent.
    server.sql("", "CREATE USER crew; GRANT SELECT ON shop.* TO crew").unwrap();
    let blind = audit_access(&*open(&server.url_as("crew", "shop")).unwrap(), &rule(), None).await.unwrap();
    assert_eq!((blind.unknown.len(), blind.findings.len()), (1, 0), "{blind:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_s_own_administrators_are_held_against_the_policy() {
    for db in support::every().await {
        db.fill(50).await;
        db.run("DELETE FROM admin_users").await;
        for (name, role, seen) in [
            ("ada", "owner", "'2026-11-01 10:00:00'"),
            ("bob", "clerk", "'2026-01-01 10:00:00'"),
            ("eve", "clerk", "NULL"),
            ("old", "disabled", "NULL"),
        ] {
            db.run(&format!(
                "INSERT INTO admin_users (username, email, password_hash, role, last_login_at) VALUES ('{name}', '{name}@shop.example', 'x', '{role}', {seen})"
            ))
            .await;
        }
        let admins = AdminRule {
            schema: None,
            table: "admin_users".into(),
            label: "email".into(),
            condition: Some("role <> 'disabled'".into()),
            expected: Some(["ada", "bob", "zoe"].map(|n| format!("{n}@shop.example")).to_vec()),
            seen: Some("last_login_at".into()),
            unit: None,
            zone: None,
            idle: "90d".parse::<Period>().unwrap(),
        };
        let mut rule = AccessRule { admins: Some(admins), ..AccessRule::default() };
        let now = "2026-11-20T00:00:00Z".parse().unwrap();
        let report = audit_access(&*db.engine(), &rule, Some(now)).await.unwrap();
        let of: Vec<_> =
            told(&report).into_iter().filter(|(object, _)| object.contains('@') && !object.contains('\'')).collect();
        assert_eq!(
            of,
            [
                ("eve@shop.example", Severity::Critical),
                ("bob@shop.example", Severity::Warning),
                ("eve@shop.example", Severity::Warning),
                ("zoe@shop.example", Severity::Notice),
            ],
            "{}",
            db.name()
        );
        assert_eq!(report.admins.len(), 3);
        // Nobody found is nobody looked at.
        rule.admins.as_mut().unwrap().condition = Some("role = 'admin'".into());
        let e = audit_access(&*db.engine(), &rule, Some(now)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_that_everybody_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let db = support::sqlite();
    db.fill(50).await;
    let Db::Sqlite(dir) = &db else { panic!() };
    let set =
        |mode| std::fs::set_permissions(dir.path().join("shop.db"), std::fs::Permissions::from_mode(mode)).unwrap();
    let audit = async || audit_access(&*db.engine(), &AccessRule::default(), None).await.unwrap();
    set(0o600);
    assert_eq!(told(&audit().await), []);
    set(0o644);
    assert_eq!(told(&audit().await), [("file", Severity::Warning)]);
    set(0o666);
    assert_eq!(told(&audit().await), [("file", Severity::Critical)]);
}
