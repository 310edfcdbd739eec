//! Space that a table or an index takes and that holds nothing.
//!
//! Two tiers. The first is a model: so many rows of such columns, aligned as PostgreSQL aligns them, fill so many pages
//! (PostgreSQL's documentation, "Database Page Layout", "B-Tree Structure"). It is used only where it holds: plain columns
//! without NULLs whose statistics are there and fresh, and index entries that are not merged. The second is `pgstattuple`, which
//! reads the pages, up to a budget of bytes. Where neither can say, the answer is that it is not known.
//!
//! | table or index | truth, % | by the model | model, else pages |
//! |---|---|---|---|
//! | divided_1 | 45.7 | 50.1 (+4.4) | 50.1 (+4.4) |
//! | divided_1.divided_1_id_at_idx | 49.8 | 50.0 (+0.2) | 50.0 (+0.2) |
//! | divided_2 | 45.4 | 49.7 (+4.3) | 49.7 (+4.3) |
//! | divided_2.divided_2_id_at_idx | 49.6 | 49.6 (+0.0) | 49.6 (+0.0) |
//! | expression | 37.6 | 41.9 (+4.3) | 41.9 (+4.3) |
//! | expression.expression_i | 65.7 | unknown | 65.2 (-0.5) |
//! | expression.expression_pkey | 39.7 | 39.7 (+0.0) | 39.7 (+0.0) |
//! | fixed | 36.9 | 40.0 (+3.1) | 40.0 (+3.1) |
//! | fixed.fixed_i | 52.9 | 52.9 (+0.0) | 52.9 (+0.0) |
//! | fixed.fixed_pkey | 39.7 | 39.7 (+0.0) | 39.7 (+0.0) |
//! | fresh | 0.1 | unknown | 0.1 (-0.0) |
//! | fresh.fresh_i | 41.1 | unknown | 40.9 (-0.1) |
//! | fresh.fresh_pkey | -0.6 | unknown | 0.0 (+0.6) |
//! | merged | 45.5 | 48.3 (+2.8) | 48.3 (+2.8) |
//! | merged.merged_i | 46.0 | unknown | 44.8 (-1.3) |
//! | merged.merged_pkey | 49.8 | 49.9 (+0.1) | 49.9 (+0.1) |
//! | nulls | 57.2 | unknown | 57.0 (-0.2) |
//! | nulls.nulls_i | 76.4 | unknown | 75.8 (-0.5) |
//! | nulls.nulls_pkey | 49.9 | 49.9 (+0.0) | 49.9 (+0.0) |
//! | padded | 32.1 | 32.4 (+0.2) | 32.4 (+0.2) |
//! | padded.padded_i | 59.9 | 59.9 (+0.0) | 59.9 (+0.0) |
//! | padded.padded_pkey | 33.0 | 33.0 (+0.0) | 33.0 (+0.0) |
//! | part | 46.0 | 50.0 (+4.0) | 50.0 (+4.0) |
//! | part.part_i | 49.6 | unknown | 49.3 (-0.4) |
//! | part.part_pkey | 49.9 | 49.9 (+0.0) | 49.9 (+0.0) |
//! | toasted | 47.0 | 51.7 (+4.6) | 51.7 (+4.6) |
//! | toasted (TOAST) | 62.1 | unknown | 61.7 (-0.3) |
//! | toasted.toasted_i | 45.7 | 45.7 (+0.0) | 45.7 (+0.0) |
//! | toasted.toasted_pkey | 45.7 | 45.7 (+0.0) | 45.7 (+0.0) |
//! | unvacuumed | 45.5 | 49.9 (+4.5) | 49.9 (+4.5) |
//! | unvacuumed.unvacuumed_i | 65.0 | unknown | unknown |
//! | unvacuumed.unvacuumed_pkey | 50.0 | 50.0 (+0.0) | 50.0 (+0.0) |
//!
//! Measured on PostgreSQL 15.18 by `cargo nextest run -p db-maint --all-features --test bloat --no-capture`, on tables of some
//! megabytes with two fifths to three quarters of their rows deleted; in brackets the difference to the truth, which is what
//! `pgstattuple` says of tables and what a rebuild gives back of indexes. (`merged`: an index of three values; `part`: an index of
//! some rows; `divided`: partitions; `fresh`: never analysed.)

use serde::{Deserialize, Serialize};

use crate::finding::{Confidence, Finding, Outcome, Severity};
use crate::schema::TableName;

pub(crate) const TABLE: &str = "table-bloat";
pub(crate) const INDEX: &str = "index-bloat";

/// From this share and so many bytes on it matters.
const TABLE_SHARE: f64 = 0.4;
const TABLE_BYTES: f64 = (64u64 << 20) as f64;
const INDEX_SHARE: f64 = 0.4;
const INDEX_BYTES: f64 = (16u64 << 20) as f64;
/// Rows that changed since the columns were looked at, beyond which the model knows too little.
const STALE: f64 = 0.05;

/// How much of a table or an index holds nothing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Space {
    /// The table.
    pub table: TableName,
    /// The index, where it is about one.
    pub index: Option<String>,
    /// Whether it is about what the table keeps outside of its rows.
    pub toast: bool,
    /// Its size.
    pub bytes: u64,
    /// The share of it that holds nothing, from 0 to 1, and what says so; or why nobody can say.
    pub wasted: Result<Wasted, String>,
}

/// A share of space that holds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Wasted {
    /// From 0 to 1.
    pub share: f64,
    /// What says so.
    pub by: SpaceMethod,
}

/// What says how much space holds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpaceMethod {
    /// The statistics of the columns, and the layout of a page.
    Model,
    /// The pages.
    Pages,
}

impl Space {
    /// What it is about.
    pub fn object(&self) -> String {
        match &self.index {
            Some(index) => format!("{}.{index}", self.table),
            None if self.toast => format!("{} (TOAST)", self.table),
            None => self.table.to_string(),
        }
    }
}

pub(crate) fn judge_tables(seen: &[Space]) -> Outcome {
    judge(TABLE, seen.iter().filter(|s| s.index.is_none()), TABLE_SHARE, TABLE_BYTES)
}

pub(crate) fn judge_indexes(seen: &[Space]) -> Outcome {
    judge(INDEX, seen.iter().filter(|s| s.index.is_some()), INDEX_SHARE, INDEX_BYTES)
}

fn judge<'a>(check: &str, seen: impl Iterator<Item = &'a Space>, share: f64, bytes: f64) -> Outcome {
    let (mut examined, mut findings, mut unknown) = (0, Vec::new(), Vec::new());
    for space in seen {
        examined += 1;
        match &space.wasted {
            Ok(wasted) if wasted.share >= share && wasted.share * space.bytes as f64 >= bytes => {
                findings.push(finding(check, space, *wasted));
            }
            Ok(_) => {}
            // What is smaller than what matters does not matter, whatever is in it.
            Err(_) if (space.bytes as f64) < bytes => {}
            Err(why) => unknown.push(format!("{}: {why}", space.object())),
        }
    }
    Outcome::of(examined, findings, unknown)
}

fn finding(check: &str, space: &Space, wasted: Wasted) -> Finding {
    let mib = (wasted.share * space.bytes as f64) as u64 >> 20;
    let summary = format!("{:.0} % of it, {mib} MiB, hold nothing", wasted.share * 100.0);
    let remedy = match space.index {
        Some(_) => "rebuild it beside itself: REINDEX INDEX CONCURRENTLY",
        None => {
            "it is filled again by new rows; to give it back to the disk, pg_repack or pg_squeeze: VACUUM FULL locks the shop"
        }
    };
    Finding::new(check, space.object(), summary)
        .severity(Severity::Notice)
        .confidence(if wasted.by == SpaceMethod::Pages { Confidence::Certain } else { Confidence::Estimated })
        .evidence("bytes", space.bytes)
        .evidence("wasted_share", (wasted.share * 1000.0).round() / 1000.0)
        .remedy(remedy)
}

/// What the model needs to know of a table or an index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) pages: f64,
    pub(crate) page_bytes: f64,
    /// Below zero where nobody counted.
    pub(crate) rows: f64,
    /// From 0 to 1.
    pub(crate) fill: f64,
    pub(crate) columns: Vec<Width>,
    /// Rows that changed since the columns were looked at.
    pub(crate) changed: f64,
    pub(crate) index: Option<IndexShape>,
    /// Whether columns were dropped, whose values may still be in the rows.
    pub(crate) has_dropped: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IndexShape {
    pub(crate) is_btree: bool,
    /// Of some rows alone, or of what is computed.
    pub(crate) is_special: bool,
    /// Whether equal entries may be merged into one.
    pub(crate) may_merge: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Width {
    /// Below zero where it varies.
    pub(crate) fixed: i16,
    pub(crate) align: f64,
    /// Average width and share of NULLs, where this role may see them.
    pub(crate) seen: Option<(f64, f64)>,
}

/// The share that holds nothing by the model, or why it does not hold.
pub(crate) fn model(shape: &Shape) -> Result<f64, String> {
    if shape.rows < 0.0 {
        return Err("it was never analysed".into());
    }
    if shape.changed > shape.rows.max(1.0) * STALE {
        return Err("too many rows changed since it was analysed".into());
    }
    if shape.has_dropped {
        return Err("rows may still hold columns that were dropped".into());
    }
    if let Some(index) = &shape.index {
        if !index.is_btree {
            return Err("only btree indexes are laid out by rows".into());
        }
        if index.is_special {
            return Err("what is in an index of some rows, or of expressions, is not known".into());
        }
        if index.may_merge {
            return Err("equal entries may be merged".into());
        }
    }
    let mut row = if shape.index.is_some() { 8.0 } else { 24.0 };
    // After a value whose width varies, the next one begins anywhere: half of what its alignment may cost.
    let mut varies = false;
    for column in &shape.columns {
        let (width, nulls) = column.seen.ok_or("this role does not see the statistics of its columns")?;
        if nulls > 0.0 {
            return Err("there are NULLs in it".into());
        }
        // Values of less than 127 bytes have a short head and are not aligned.
        let align = if column.fixed < 0 && width < 127.0 { 1.0 } else { column.align };
        row = if varies { row + (align - 1.0) / 2.0 } else { up(row, align) };
        row += if column.fixed < 0 { width } else { f64::from(column.fixed) };
        varies |= column.fixed < 0;
    }
    row = if varies { row + 3.5 } else { up(row, 8.0) };
    let pages = match shape.index {
        None => {
            let per_page = ((shape.page_bytes - 24.0) * shape.fill / (row + 4.0)).floor().max(1.0);
            (shape.rows / per_page).ceil()
        }
        Some(_) => {
            let leaves = (shape.rows / ((shape.page_bytes - 40.0) * shape.fill / (row + 4.0)).floor().max(1.0)).ceil();
            // Each page above holds a few hundred, of which the first is a page about the index.
            let above = (leaves / ((shape.page_bytes - 40.0) * 0.7 / (row + 4.0)).max(2.0)).ceil();
            leaves + above + 1.0
        }
    };
    Ok((1.0 - pages / shape.pages.max(1.0)).max(0.0))
}

fn up(n: f64, to: f64) -> f64 {
    (n / to).ceil() * to
}

/// The share that holds nothing by what `pgstatindex` says: the leaves' density against what a rebuild would make it.
pub(crate) fn by_density(pages: f64, leaves: f64, internal: f64, density: f64, fill: f64) -> f64 {
    if leaves <= 0.0 || !density.is_finite() {
        return 0.0;
    }
    let shrinks = (density / 100.0 / fill).min(1.0);
    let after = 1.0 + (leaves * shrinks).ceil() + (internal * shrinks).ceil();
    (1.0 - after / pages.max(1.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bigint() -> Width {
        Width { fixed: 8, align: 8.0, seen: Some((8.0, 0.0)) }
    }

    fn shape(rows: f64, pages: f64) -> Shape {
        Shape {
            pages,
            page_bytes: 8192.0,
            rows,
            fill: 1.0,
            columns: vec![bigint(), bigint()],
            changed: 0.0,
            index: None,
            has_dropped: false,
        }
    }

    #[test]
    fn full_pages_waste_nothing_and_half_full_ones_half() {
        // 24 + 16 + 4 bytes a row: 185 to a page.
        assert!(model(&shape(185_000.0, 1_000.0)).unwrap() < 0.001);
        assert!((model(&shape(92_500.0, 1_000.0)).unwrap() - 0.5).abs() < 0.001);
        let index = IndexShape { is_btree: true, is_special: false, may_merge: false };
        let of = |pages| {
            let columns = vec![bigint()];
            model(&Shape { columns, index: Some(index.clone()), fill: 0.9, ..shape(366_000.0, pages) }).unwrap()
        };
        // 16 + 4 bytes an entry: 366 to a leaf, 1,000 leaves, four pages above and one about it.
        assert!(of(1_005.0) < 0.001 && (of(2_010.0) - 0.5).abs() < 0.002);
    }

    #[test]
    fn where_the_model_does_not_hold_it_says_nothing() {
        let flaw = |change: &dyn Fn(&mut Shape)| {
            let mut shape = shape(185_000.0, 1_000.0);
            change(&mut shape);
            model(&shape).unwrap_err()
        };
        let index = |is_btree, is_special, may_merge| Some(IndexShape { is_btree, is_special, may_merge });
        assert!(flaw(&|s| s.rows = -1.0).contains("never analysed"));
        assert!(flaw(&|s| s.changed = 10_000.0).contains("changed"));
        assert!(flaw(&|s| s.has_dropped = true).contains("dropped"));
        assert!(flaw(&|s| s.columns[0].seen = None).contains("does not see"));
        assert!(flaw(&|s| s.columns[0].seen = Some((8.0, 0.5))).contains("NULL"));
        assert!(flaw(&|s| s.index = index(false, false, false)).contains("btree"));
        assert!(flaw(&|s| s.index = index(true, true, false)).contains("expressions"));
        assert!(flaw(&|s| s.index = index(true, false, true)).contains("merged"));
    }

    #[test]
    fn what_is_large_and_unknown_is_unknown_and_what_is_small_does_not_matter() {
        let of = |bytes: u64, wasted| {
            let space =
                Space { table: TableName::new("public", "o"), index: Some("i".into()), toast: false, bytes, wasted };
            judge_indexes(&[space])
        };
        let share = |share| Ok(Wasted { share, by: SpaceMethod::Pages });
        assert_eq!(of(1 << 30, share(0.9)).findings().len(), 1);
        assert_eq!(of(1 << 30, share(0.1)), Outcome::Clean { examined: 1 });
        assert_eq!(of(1 << 20, share(0.9)), Outcome::Clean { examined: 1 });
        assert!(matches!(of(1 << 30, Err("no".into())), Outcome::Unknown { .. }));
        assert_eq!(of(1 << 20, Err("no".into())), Outcome::Clean { examined: 1 });
    }
}
