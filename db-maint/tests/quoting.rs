//! Names as hostile as a server takes them: what is done to a table of such a name is done to that table.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::time::Duration;

use db_maint::chrono::{DateTime, TimeDelta, Utc};
use db_maint::{ApplyOptions, InspectOptions, JobOptions, PlanOptions, Policy, StepEnd, apply, clean_up, mend_orphans};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use support::Db;

/// Names that are keywords, hold quotes of every kind, dots, spaces, comments, or are as long as may be.
fn name() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "select",
        "order",
        "user",
        "a.b",
        "a b",
        "a\"b",
        "a`b",
        "a'b",
        "a;b",
        "a--b",
        "a/*b",
        "a\\b",
        "$1",
        "?",
        "{key}",
        "%s",
        "été",
        "名前",
        "🛒",
        "Table",
        "rowid",
        "\"",
        "`",
        "'",
        "a\"\"b",
        "public.orders",
        "a\nb",
        "a\tb",
        "-",
        "1a",
        "NULL",
    ]);
    prop_oneof![
        3 => hostile.prop_map(str::to_owned),
        1 => "[a-z\"'`. ]{1,20}",
        1 => "[a-z\"]{62}",
        1 => "[A-Za-z0-9_é\"]{1,31}",
    ]
}

fn quoted(db: &Db, name: &str) -> String {
    match db {
        Db::Mysql(..) => format!("`{}`", name.replace('`', "``")),
        _ => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// Makes a table with three old rows of five, of which two refer to nothing. Whether the server takes the names.
async fn make(db: &Db, names: &[String; 4]) -> bool {
    let [table, column, reference, _] = names.each_ref().map(|name| quoted(db, name));
    let index = quoted(db, "an index");
    let time = if db.name() == "postgres" { "timestamptz" } else { "datetime" };
    let made = db
        .try_run(&format!(
            "CREATE TABLE {table} (id integer PRIMARY KEY, {column} {time} NOT NULL, {reference} integer)"
        ))
        .await;
    if made.is_err() {
        return false;
    }
    db.run(&format!("CREATE INDEX {index} ON {table} ({column})")).await;
    for (id, day, parent) in [(1, 1, "1"), (2, 2, "1"), (3, 3, "9"), (4, 14, "9"), (5, 14, "NULL")] {
        db.run(&format!("INSERT INTO {table} VALUES ({id}, '2026-01-{day:02} 10:00:00', {parent})")).await;
    }
    true
}

fn policy(names: &[String; 4]) -> Policy {
    let [table, column, reference, rule] = names;
    serde_json::from_value(serde_json::json!({
        "retention": [{"name": rule, "table": table, "column": column, "keep": "7d", "zone": "utc"}],
        "reference": [{"name": format!("{rule}2"), "table": table, "columns": [reference], "to": "parents", "action": "set-null"}],
        "hold": [{"reason": "x", "table": table, "column": reference, "values": ["7'); --"]}],
    }))
    .unwrap()
}

async fn holds(db: &Db, names: &[String; 4]) -> bool {
    // MySQL takes such a name, and makes it another one.
    if db.name() == "mysql" && names[..3].iter().any(|name| name.chars().any(|c| c > '\u{ffff}')) {
        return false;
    }
    if names[1] == names[2] || names[1..3].iter().any(|n| n.eq_ignore_ascii_case("id")) || !make(db, names).await {
        return false;
    }
    let table = quoted(db, &names[0]);
    let engine = db.engine();
    let now: DateTime<Utc> = DateTime::from_timestamp(storefront::NOW, 0).unwrap();
    let options = JobOptions::default().at(now).applied().with_pace(Duration::from_millis(200), 0.0);
    let mut policy = policy(names);
    // What a number is compared with has to be one: refused with a sentence, by all three.
    let e = clean_up(&*engine, &policy, &options, None).await;
    assert!(e.is_err(), "{names:?}");
    policy.hold[0].values = vec!["7".into()];
    let done = clean_up(&*engine, &policy, &options, None).await;
    let done = done.unwrap_or_else(|e| panic!("{}: {names:?}: {e:?}", db.name()));
    assert_eq!((done[0].met, done[0].changed), (3, 3), "{}: {names:?}", db.name());
    let mended = mend_orphans(&*engine, &policy, &options, None).await;
    let mended = mended.unwrap_or_else(|e| panic!("{}: {names:?}: {e:?}", db.name()));
    assert_eq!(mended[0].changed, 1, "{}: {names:?}", db.name());
    assert_eq!(db.count(&format!("SELECT count(*) FROM {table} WHERE id IN (4, 5)")).await, 2, "{names:?}");
    assert_eq!(db.count("SELECT count(*) FROM parents").await, 1);
    // An index of the same name and columns as another, with a name as hostile.
    let twin = quoted(db, &names[3]);
    if names[3] != "an index"
        && db.try_run(&format!("CREATE INDEX {twin} ON {table} ({})", quoted(db, &names[1]))).await.is_ok()
    {
        let later = InspectOptions::default().at(Utc::now() + TimeDelta::days(31));
        let plan = engine.plan(&later, &PlanOptions::default().retiring_indexes()).await.unwrap();
        let report = apply(&*engine, &plan, &ApplyOptions::default(), None).await.unwrap();
        assert!(report.steps.iter().all(|s| s.end == StepEnd::Done), "{}: {names:?}: {report:#?}", db.name());
        let again = engine.plan(&later, &PlanOptions::default().retiring_indexes()).await.unwrap();
        // MySQL counts the uses of the other one anew from here on.
        let gone: Vec<_> = plan.steps.iter().map(db_maint::Step::object).collect();
        let is_left = again.steps.iter().any(|s| gone.contains(&s.object()));
        assert!(!gone.is_empty() && !is_left, "{}: {names:?}: {:#?}", db.name(), again.steps);
    }
    db.run(&format!("DROP TABLE {table}")).await;
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_work_or_are_refused_with_a_sentence() {
    for db in support::every().await {
        db.empty().await;
        db.run("CREATE TABLE parents (id integer PRIMARY KEY)").await;
        db.run("INSERT INTO parents VALUES (1)").await;
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[7; 32]),
        );
        let mut taken = 0;
        for _ in 0..40 {
            let names = [name(), name(), name(), name()].new_tree(&mut runner).unwrap().current();
            taken += u32::from(holds(&db, &names).await);
        }
        println!("{}: {taken} of 40 sets of names were taken by the server", db.name());
        assert!(taken >= 15, "{}: {taken}", db.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_table_can_have_is_refused_with_a_sentence() {
    for db in support::every().await {
        db.empty().await;
        for wrong in ["", "a\0b", "no such table", "public.orders", "x'; DROP TABLE parents; --"] {
            let mut policy = policy(&[wrong.to_owned(), "a".into(), "b".into(), "c".into()]);
            policy.hold.clear();
            let e = clean_up(&*db.engine(), &policy, &JobOptions::default(), None).await.unwrap_err();
            assert!(e.kind() == db_maint::ErrorKind::Config && e.next_step().is_some(), "{wrong:?}: {e:?}");
        }
    }
}
