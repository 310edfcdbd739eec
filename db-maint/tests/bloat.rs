//! What is said of space that holds nothing, against what the pages and a rebuild say: ten shapes of tables, in both tiers.

#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use db_maint::{Postgres, SpaceMethod};
use storefront::postgres;

/// Each makes a table `NAME` with an index `NAME_i`, of some megabytes, and leaves holes in both.
const SHAPES: [(&str, &[&str]); 10] = [
    (
        "fixed",
        &[
            "CREATE TABLE fixed (id bigint PRIMARY KEY, a bigint NOT NULL, at timestamptz NOT NULL)",
            "CREATE UNIQUE INDEX fixed_i ON fixed (a, id)",
            "INSERT INTO fixed SELECT n, n * 7919 % 1000003, now() FROM generate_series(1, 120000) n",
            "DELETE FROM fixed WHERE id % 5 < 2",
            "VACUUM ANALYZE fixed",
        ],
    ),
    (
        "padded",
        &[
            "CREATE TABLE padded (id bigint PRIMARY KEY, flag boolean NOT NULL, a bigint NOT NULL, small smallint NOT NULL, b timestamptz NOT NULL, name text NOT NULL, n integer NOT NULL)",
            "CREATE UNIQUE INDEX padded_i ON padded (small, a, id)",
            "INSERT INTO padded SELECT n, true, n, n % 100, now(), repeat('x', 5 + n % 60), n FROM generate_series(1, 100000) n",
            "DELETE FROM padded WHERE id % 3 = 0",
            "VACUUM ANALYZE padded",
        ],
    ),
    (
        "merged",
        &[
            "CREATE TABLE merged (id bigint PRIMARY KEY, status text NOT NULL)",
            "CREATE INDEX merged_i ON merged (status)",
            "INSERT INTO merged SELECT n, (ARRAY['paid', 'shipped', 'open'])[1 + n % 3] FROM generate_series(1, 300000) n",
            "DELETE FROM merged WHERE id % 2 = 0",
            "VACUUM ANALYZE merged",
        ],
    ),
    (
        "nulls",
        &[
            "CREATE TABLE nulls (id bigint PRIMARY KEY, note text, seen timestamptz)",
            "CREATE INDEX nulls_i ON nulls (seen)",
            "INSERT INTO nulls SELECT n, CASE WHEN n % 10 = 0 THEN repeat('y', 80) END, CASE WHEN n % 4 = 0 THEN now() + n * interval '1 s' END FROM generate_series(1, 200000) n",
            "DELETE FROM nulls WHERE id % 2 = 0",
            "VACUUM ANALYZE nulls",
        ],
    ),
    (
        "part",
        &[
            "CREATE TABLE part (id bigint PRIMARY KEY, a bigint NOT NULL, open boolean NOT NULL)",
            "CREATE INDEX part_i ON part (a) WHERE open",
            "INSERT INTO part SELECT n, n, n % 2 = 0 FROM generate_series(1, 200000) n",
            "DELETE FROM part WHERE id % 4 < 2",
            "VACUUM ANALYZE part",
        ],
    ),
    (
        "expression",
        &[
            "CREATE TABLE expression (id bigint PRIMARY KEY, email text NOT NULL)",
            "CREATE INDEX expression_i ON expression (lower(email))",
            "INSERT INTO expression SELECT n, 'Customer' || n || '@example.com' FROM generate_series(1, 120000) n",
            "DELETE FROM expression WHERE id % 5 < 2",
            "VACUUM ANALYZE expression",
        ],
    ),
    (
        "toasted",
        &[
            "CREATE TABLE toasted (id bigint PRIMARY KEY, body text NOT NULL)",
            "ALTER TABLE toasted ALTER body SET STORAGE EXTERNAL",
            "CREATE UNIQUE INDEX toasted_i ON toasted (id)",
            "INSERT INTO toasted SELECT n, repeat('z', 3000) FROM generate_series(1, 12000) n",
            "DELETE FROM toasted WHERE id % 2 = 0",
            "VACUUM ANALYZE toasted",
        ],
    ),
    (
        "divided",
        &[
            "CREATE TABLE divided (id bigint NOT NULL, at date NOT NULL, a integer NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE divided_1 PARTITION OF divided FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
            "CREATE TABLE divided_2 PARTITION OF divided FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
            "CREATE UNIQUE INDEX divided_i ON divided (id, at)",
            "INSERT INTO divided SELECT n, '2025-01-01'::date + n % 700, n FROM generate_series(1, 200000) n",
            "DELETE FROM divided WHERE id % 2 = 0",
            "VACUUM ANALYZE divided",
        ],
    ),
    (
        "unvacuumed",
        &[
            "CREATE TABLE unvacuumed (id bigint PRIMARY KEY, a bigint NOT NULL) WITH (autovacuum_enabled = false)",
            "CREATE INDEX unvacuumed_i ON unvacuumed (a)",
            "INSERT INTO unvacuumed SELECT n, n % 5000 FROM generate_series(1, 150000) n",
            "DELETE FROM unvacuumed WHERE id % 2 = 0",
            "ANALYZE unvacuumed",
        ],
    ),
    (
        "fresh",
        &[
            "CREATE TABLE fresh (id bigint PRIMARY KEY, a text NOT NULL) WITH (autovacuum_enabled = false)",
            "CREATE INDEX fresh_i ON fresh (a)",
            "INSERT INTO fresh SELECT n, 'customer ' || n FROM generate_series(1, 120000) n",
        ],
    ),
];

type Figures = BTreeMap<String, Result<(f64, SpaceMethod), String>>;

async fn figures(url: &str) -> Figures {
    let spaces = Postgres::new(url).unwrap().space(256 << 10, 1 << 30).await.unwrap();
    spaces.iter().map(|s| (s.object(), s.wasted.clone().map(|w| (w.share * 100.0, w.by)))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_is_within_five_points_of_the_truth_or_is_not_given() {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    // Changes are counted when a session ends: what is analysed after that is analysed.
    for is_after in [false, true] {
        let mut shop = postgres::open(&url).await.unwrap();
        for sql in SHAPES.iter().flat_map(|(_, statements)| *statements) {
            if sql.contains("ANALYZE") == is_after {
                postgres::run(&mut shop, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            }
        }
        sqlx::Connection::close(shop).await.unwrap();
    }
    let by_model = figures(&url).await;
    let ask = |sql: &str| server.psql("shop", sql).unwrap().trim().to_owned();
    // A role that may not read the tables sees no statistics, and is told no figure.
    ask("GRANT CONNECT ON DATABASE shop TO shop");
    let blind = figures(&server.url_as("shop", "shop")).await;
    assert!(blind.values().all(Result::is_err), "{blind:#?}");
    ask("CREATE SCHEMA tools; CREATE EXTENSION pgstattuple SCHEMA tools");
    let by_pages = figures(&url).await;
    assert_eq!(by_model.len(), by_pages.len());

    let (mut lines, mut with_figure) = (Vec::new(), BTreeSet::new());
    for (object, measured) in &by_pages {
        let (table, index) = match object.trim_start_matches("public.").split_once('.') {
            Some((table, index)) => (table.to_owned(), Some(index.to_owned())),
            None => (object.trim_start_matches("public.").to_owned(), None),
        };
        let truth = match &index {
            None => {
                let of = match table.strip_suffix(" (TOAST)") {
                    Some(table) => format!("(SELECT reltoastrelid FROM pg_class WHERE oid = '{table}'::regclass)"),
                    None => format!("'{table}'::regclass"),
                };
                ask(&format!("SELECT dead_tuple_percent + free_percent FROM tools.pgstattuple({of})"))
            }
            Some(index) => {
                let before: f64 = ask(&format!("SELECT pg_relation_size('{index}')")).parse().unwrap();
                ask(&format!("REINDEX INDEX {index}"));
                let after: f64 = ask(&format!("SELECT pg_relation_size('{index}')")).parse().unwrap();
                ((1.0 - after / before) * 100.0).to_string()
            }
        };
        let truth: f64 = truth.parse().unwrap();
        let shown = |figure: &Result<(f64, SpaceMethod), String>| match figure {
            Ok((figure, _)) => format!("{figure:.1} ({:+.1})", figure - truth),
            Err(_) => "unknown".to_owned(),
        };
        let modelled = &by_model[object];
        let shape = table.trim_end_matches(" (TOAST)").trim_end_matches("_1").trim_end_matches("_2").to_owned();
        if measured.is_ok() {
            with_figure.insert(shape);
        }
        let near = |figure: &Result<(f64, SpaceMethod), String>| {
            figure.as_ref().map_or(true, |(figure, _)| (figure - truth).abs() <= 5.0)
        };
        let is_well = near(modelled) && near(measured);
        lines.push((
            is_well,
            format!(
                "| {} | {truth:.1} | {} | {} |",
                object.trim_start_matches("public."),
                shown(modelled),
                shown(measured)
            ),
        ));
    }
    for (_, line) in &lines {
        println!("{line}");
    }
    let wrong: Vec<_> = lines.iter().filter(|(is_well, _)| !is_well).map(|(_, line)| line).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(with_figure.len() >= 6, "{with_figure:?}");
    let modelled = by_model.values().filter(|f| f.is_ok()).count();
    assert!(modelled >= 6, "{by_model:#?}");
}
