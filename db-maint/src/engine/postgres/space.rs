//! What tables and indexes are filled with: by their statistics, or by `pgstattuple` where that is installed and a budget of
//! bytes allows it.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Error, Row};

use crate::check::bloat::{IndexShape, Shape, Space, SpaceMethod, Wasted, Width, by_density, model};
use crate::ident::{quoted, trusted};
use crate::schema::TableName;
use crate::table::POSTGRES_OURS as OURS;
use crate::{Capabilities, Flavour};

/// What to look at, and how much of it to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Smaller ones are left out.
    pub(super) least_bytes: u64,
    /// How many bytes may be read in all.
    pub(super) budget_bytes: u64,
}

/// A table or an index, with what the statistics say.
struct Seen {
    table: TableName,
    index: Option<String>,
    toast: bool,
    shape: Shape,
    /// Dead rows for each live one.
    dead: f64,
}

/// What is said of one, and whether its pages may say more.
pub(super) struct Estimate {
    pub(super) space: Space,
    /// Why the model does not hold, where the pages would tell the truth.
    pub(super) open: Option<String>,
}

/// By the model; the largest first.
pub(super) async fn estimate(session: &mut PgConnection, wanted: Wanted) -> Result<Vec<Estimate>, Error> {
    let mut seen = tables(session, wanted).await?;
    seen.extend(indexes(session, wanted).await?);
    seen.extend(toasts(session, wanted).await?);
    let mut estimates: Vec<Estimate> = seen.into_iter().map(of).collect();
    estimates.sort_by_key(|e| std::cmp::Reverse(e.space.bytes));
    Ok(estimates)
}

fn of(seen: Seen) -> Estimate {
    let bytes = (seen.shape.pages * seen.shape.page_bytes) as u64;
    let share = match seen.toast {
        true => Err("what lies outside of rows has no statistics".to_owned()),
        false => model(&seen.shape),
    };
    // What died and was not removed is in the index still, and pages that are full of it look full.
    let is_unswept = seen.index.is_some() && seen.dead > 0.03;
    let open = share.as_ref().err().filter(|_| !is_unswept).cloned();
    let wasted = match share {
        Ok(share) => Ok(Wasted { share, by: SpaceMethod::Model }),
        Err(why) if is_unswept => Err(format!("{why}; vacuum its table first")),
        Err(why) => Err(why),
    };
    let space = Space { table: seen.table, index: seen.index, toast: seen.toast, bytes, wasted };
    Estimate { space, open }
}

/// Where `pgstattuple` is, if it is.
pub(super) async fn extension(
    session: &mut PgConnection,
    capabilities: &Capabilities,
) -> Result<Option<String>, Error> {
    if !capabilities.extensions.contains("pgstattuple") {
        return Ok(None);
    }
    let sql = "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'pgstattuple'";
    sqlx::query_scalar(sql).persistent(false).fetch_optional(session).await
}

/// What the pages of one say.
pub(super) async fn measure(session: &mut PgConnection, schema: &str, space: &Space) -> Result<Wasted, Error> {
    let quoted = |name: &str| quoted(Flavour::Postgres, name);
    let of = space.index.as_deref().unwrap_or(&space.table.name);
    let mut name = format!("{}.{}", quoted(&space.table.schema), quoted(of));
    if space.toast {
        let sql = "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = $1::regclass";
        name = sqlx::query_scalar(sql).persistent(false).bind(name).fetch_one(&mut *session).await?;
    }
    let share = match space.index {
        None => {
            let sql = format!(
                "SELECT approx_free_percent + dead_tuple_percent FROM {}.pgstattuple_approx($1::regclass)",
                quoted(schema)
            );
            let percent: f64 = sqlx::query_scalar(trusted(sql)).persistent(false).bind(name).fetch_one(session).await?;
            percent / 100.0
        }
        Some(_) => {
            let sql = format!(
                "SELECT i.index_size / current_setting('block_size')::int8 AS pages, i.leaf_pages, i.internal_pages, i.avg_leaf_density, \
                   COALESCE((SELECT o.option_value::float8 FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'fillfactor'), 90) AS fill \
                 FROM pg_class c, {}.pgstatindex($1::regclass) i WHERE c.oid = $1::regclass",
                quoted(schema)
            );
            let row = sqlx::query(trusted(sql)).persistent(false).bind(name).fetch_one(session).await?;
            let number = |name: &str| row.try_get::<i64, _>(name).map(|n| n as f64);
            by_density(
                number("pages")?,
                number("leaf_pages")?,
                number("internal_pages")?,
                row.try_get("avg_leaf_density")?,
                row.try_get::<f64, _>("fill")? / 100.0,
            )
        }
    };
    Ok(Wasted { share: share.clamp(0.0, 1.0), by: SpaceMethod::Pages })
}

/// As the last vacuum or analysis wrote them down, together with the rows; where there was none, as they are.
const TABLE_PAGES: &str = "CASE WHEN c.reltuples < 0 THEN COALESCE(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8 \
    ELSE c.relpages END";
const INDEX_PAGES: &str = "CASE WHEN t.reltuples < 0 THEN COALESCE(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8 \
    ELSE c.relpages END";

/// What lies outside of rows.
async fn toasts(session: &mut PgConnection, wanted: Wanted) -> Result<Vec<Seen>, Error> {
    let sql = format!(
        "SELECT n.nspname::text AS schema, c.relname::text AS \"table\", NULL::text AS index, true AS toast, \
           t.relpages::float8 AS pages, current_setting('block_size')::float8 AS page_bytes, -1::float8 AS rows, 1::float8 AS fill, \
           0::float8 AS changed, 0::float8 AS dead, false AS dropped, false AS btree, false AS special, false AS merge, \
           '{{}}'::int2[] AS fixed, '{{}}'::text[] AS align, '{{}}'::float8[] AS width, '{{}}'::float8[] AS nulls \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class t ON t.oid = c.reltoastrelid \
         WHERE t.relpages::int8 * current_setting('block_size')::int8 >= $1 AND {OURS}"
    );
    all(session, sql, wanted).await
}

async fn tables(session: &mut PgConnection, wanted: Wanted) -> Result<Vec<Seen>, Error> {
    let sql = format!(
        "SELECT n.nspname::text AS schema, c.relname::text AS \"table\", NULL::text AS index, false AS toast, \
           ({TABLE_PAGES})::float8 AS pages, current_setting('block_size')::float8 AS page_bytes, c.reltuples::float8 AS rows, \
           COALESCE((SELECT o.option_value::float8 FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'fillfactor'), 100) / 100 AS fill, \
           COALESCE(st.n_mod_since_analyze, 0)::float8 AS changed, \
           COALESCE(st.n_dead_tup::float8 / GREATEST(st.n_live_tup, 1), 0) AS dead, \
           bool_or(a.attisdropped) AS dropped, true AS btree, false AS special, false AS merge, \
           COALESCE(array_agg(a.attlen ORDER BY a.attnum) FILTER (WHERE NOT a.attisdropped), '{{}}') AS fixed, \
           COALESCE(array_agg(a.attalign::text ORDER BY a.attnum) FILTER (WHERE NOT a.attisdropped), '{{}}') AS align, \
           COALESCE(array_agg(s.avg_width::float8 ORDER BY a.attnum) FILTER (WHERE NOT a.attisdropped), '{{}}') AS width, \
           COALESCE(array_agg(s.null_frac::float8 ORDER BY a.attnum) FILTER (WHERE NOT a.attisdropped), '{{}}') AS nulls \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
         LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited \
         LEFT JOIN pg_stat_all_tables st ON st.relid = c.oid \
         WHERE c.relkind IN ('r', 'm') AND ({TABLE_PAGES}) * current_setting('block_size')::int8 >= $1 AND {OURS} \
         GROUP BY n.nspname, c.oid, c.relname, c.relpages, c.reltuples, c.reloptions, st.n_mod_since_analyze, st.n_dead_tup, st.n_live_tup"
    );
    all(session, sql, wanted).await
}

async fn indexes(session: &mut PgConnection, wanted: Wanted) -> Result<Vec<Seen>, Error> {
    // Entries are merged where two can be equal (from 13 on), unless the index says not to, or their type forbids it; columns
    // whose values are all different have none that are equal.
    let sql = format!(
        "SELECT n.nspname::text AS schema, t.relname::text AS \"table\", c.relname::text AS index, false AS toast, \
           ({})::float8 AS pages, current_setting('block_size')::float8 AS page_bytes, \
           CASE WHEN c.reltuples > 0 THEN c.reltuples ELSE t.reltuples END::float8 AS rows, \
           COALESCE((SELECT o.option_value::float8 FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'fillfactor'), 90) / 100 AS fill, \
           COALESCE(st.n_mod_since_analyze, 0)::float8 AS changed, \
           COALESCE(st.n_dead_tup::float8 / GREATEST(st.n_live_tup, 1), 0) AS dead, \
           false AS dropped, am.amname = 'btree' AS btree, i.indpred IS NOT NULL OR i.indexprs IS NOT NULL AS special, \
           NOT i.indisunique AND i.indnkeyatts = i.indnatts AND NOT COALESCE(bool_or(s.n_distinct <= -0.999), false) AS merge, \
           array_agg(a.attlen ORDER BY k.n) AS fixed, array_agg(a.attalign::text ORDER BY k.n) AS align, \
           array_agg(s.avg_width::float8 ORDER BY k.n) AS width, array_agg(s.null_frac::float8 ORDER BY k.n) AS nulls \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid \
         JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_am am ON am.oid = c.relam \
         CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(att, n) \
         LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.att AND k.att > 0 \
         LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = t.relname AND s.attname = a.attname AND NOT s.inherited \
         LEFT JOIN pg_stat_all_tables st ON st.relid = t.oid \
         WHERE c.relkind = 'i' AND i.indisvalid AND ({}) * current_setting('block_size')::int8 >= $1 AND {} \
         GROUP BY n.nspname, t.oid, t.relname, c.oid, c.relname, c.relpages, c.reltuples, t.reltuples, c.reloptions, am.amname, \
           i.indpred, i.indexprs, i.indisunique, i.indnkeyatts, i.indnatts, st.n_mod_since_analyze, st.n_dead_tup, st.n_live_tup",
        INDEX_PAGES,
        INDEX_PAGES,
        OURS.replace("c.oid", "t.oid")
    );
    all(session, sql, wanted).await
}

async fn all(session: &mut PgConnection, sql: String, wanted: Wanted) -> Result<Vec<Seen>, Error> {
    let least = i64::try_from(wanted.least_bytes).unwrap_or(i64::MAX);
    let rows = sqlx::query(trusted(sql)).persistent(false).bind(least).fetch_all(session).await?;
    rows.iter().map(seen).collect()
}

fn seen(row: &PgRow) -> Result<Seen, Error> {
    let number = |name: &str| row.try_get::<f64, _>(name);
    let index: Option<String> = row.try_get("index")?;
    let fixed: Vec<Option<i16>> = row.try_get("fixed")?;
    let align: Vec<Option<String>> = row.try_get("align")?;
    let width: Vec<Option<f64>> = row.try_get("width")?;
    let nulls: Vec<Option<f64>> = row.try_get("nulls")?;
    let columns = fixed.iter().zip(&align).zip(width.iter().zip(&nulls));
    let columns = columns.map(|((fixed, align), (width, nulls))| Width {
        fixed: fixed.unwrap_or(-1),
        align: match align.as_deref() {
            Some("c") => 1.0,
            Some("s") => 2.0,
            Some("i") => 4.0,
            _ => 8.0,
        },
        seen: width.zip(*nulls),
    });
    let columns = columns.collect();
    let is_index = index.is_some();
    Ok(Seen {
        table: TableName::new(row.try_get::<String, _>("schema")?, row.try_get::<String, _>("table")?),
        index,
        toast: row.try_get("toast")?,
        dead: number("dead")?,
        shape: Shape {
            pages: number("pages")?,
            page_bytes: number("page_bytes")?,
            rows: number("rows")?,
            fill: number("fill")?,
            columns,
            changed: number("changed")?,
            has_dropped: row.try_get("dropped")?,
            index: match is_index {
                true => Some(IndexShape {
                    is_btree: row.try_get("btree")?,
                    is_special: row.try_get("special")?,
                    may_merge: row.try_get("merge")?,
                }),
                false => None,
            },
        },
    })
}
