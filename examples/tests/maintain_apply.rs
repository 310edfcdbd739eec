//! `maintain plan` and `maintain apply`, and what a killed one leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use storefront::{Size, postgres};
use support::tool;

fn maintain(arguments: &[&str]) -> Output {
    Command::new(tool("maintain")).args(arguments).output().unwrap()
}

fn plan(url: &str, file: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["plan", "--database", url, "--out", file.to_str().unwrap()];
    arguments.extend_from_slice(more);
    maintain(&arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_killed_leaves_nothing_that_the_next_run_does_not_sweep() {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    postgres::create(&url, &Size::orders(1_000), 1).await.unwrap();
    let ask = |sql: &str| server.psql("shop", sql).unwrap().trim().to_owned();
    // An index that takes ten seconds to build.
    ask("CREATE FUNCTION slow(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1; END $$; \
         CREATE INDEX orders_slow ON orders (slow(id)); ANALYZE; \
         CREATE OR REPLACE FUNCTION slow(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS \
         $$ BEGIN PERFORM pg_sleep(0.01); RETURN $1; END $$");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plan.json");
    let made = plan(&url, &file, &["--rebuild", "public.orders.orders_slow"]);
    assert_eq!(made.status.code(), Some(1), "{}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout).unwrap();
    assert!(text.contains("REINDEX INDEX CONCURRENTLY \"public\".\"orders_slow\""), "{text}");
    let mut killed = Command::new(tool("maintain"))
        .args(["apply", file.to_str().unwrap(), "--database", &url, "--lease", "1s"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The index of the table that the plan itself makes for its log is none of it.
    let building = "SELECT count(*) FROM pg_stat_progress_create_index \
                    WHERE phase LIKE 'building%' AND relid = 'orders'::regclass";
    while ask(building) == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The server looks for its client, and ends what nobody waits for.
    while ask("SELECT count(*) FROM pg_stat_progress_create_index") != "0" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ask("SELECT count(*) FROM pg_index WHERE NOT indisvalid"), "1");
    ask(
        "CREATE OR REPLACE FUNCTION slow(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1; END $$",
    );
    let made = plan(&url, &file, &[]);
    let text = String::from_utf8(made.stdout).unwrap();
    assert!(text.contains("DROP INDEX CONCURRENTLY \"public\".\"orders_slow_ccnew\""), "{text}");
    let applied = maintain(&["apply", file.to_str().unwrap(), "--database", &url, "--json"]);
    assert_eq!(applied.status.code(), Some(0), "{}", String::from_utf8_lossy(&applied.stderr));
    let report: serde_json::Value = serde_json::from_slice(&applied.stdout).unwrap();
    let schema: serde_json::Value = serde_json::from_str(include_str!("../schemas/maintain.schema.json")).unwrap();
    support::fits(&report, &schema["$defs"]["apply"], &schema, "apply");
    assert_eq!(ask("SELECT count(*) FROM pg_index WHERE NOT indisvalid"), "0");
    // A plan is for once.
    let again = maintain(&["apply", file.to_str().unwrap(), "--database", &url]);
    assert_eq!(again.status.code(), Some(2));
    // One that was edited is refused.
    let text = std::fs::read_to_string(&file).unwrap().replace("orders_slow_ccnew\\\"", "orders_number_key\\\"");
    std::fs::write(&file, text).unwrap();
    let edited = maintain(&["apply", file.to_str().unwrap(), "--database", &url]);
    let said = String::from_utf8_lossy(&edited.stderr).into_owned();
    assert!(edited.status.code() == Some(2) && said.contains("was changed after it was made"), "{said}");
}
