//! A comparison as a bar chart: one self-contained SVG, readable on light and dark pages.

use std::fmt::Write;

use crate::steps::{Comparison, Side, Work};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 330.0;
const FIGURES: f64 = 70.0;
const LINE: f64 = 22.0;

/// A bar for each step, one scale for each kind of work.
pub(crate) fn svg(comparison: &Comparison) -> String {
    let mut body = String::new();
    let mut y = 34.0;
    for work in Work::ALL {
        let shown = |r: &&crate::steps::Row| r.work == work && (r.median_seconds.is_some() || !r.missing.is_empty());
        let rows: Vec<_> = comparison.rows.iter().filter(shown).collect();
        if rows.is_empty() {
            continue;
        }
        let longest = rows.iter().filter_map(|r| r.median_seconds).fold(f64::MIN_POSITIVE, f64::max);
        y += LINE;
        let _ = writeln!(body, r#"<text class="head" x="0" y="{y}">{}</text>"#, escaped(work.title()));
        for row in rows {
            y += LINE;
            let (class, text) = match (row.side, row.median_seconds) {
                (_, None) => ("floor", format!("missing: {}", row.missing.join(", "))),
                (Side::Caretaker, Some(s)) => ("ours", format!("{s:.2} s")),
                (Side::Peer, Some(s)) => ("peer", format!("{s:.2} s")),
                (Side::Floor, Some(s)) => ("floor", format!("{s:.2} s")),
            };
            let length = row.median_seconds.unwrap_or(0.0) / longest * (WIDTH - LABELS - FIGURES);
            let _ = writeln!(
                body,
                r#"<text x="{:.0}" y="{y}" text-anchor="end">{}</text><rect class="{class}" x="{LABELS}" y="{:.0}" width="{length:.1}" height="14"/><text x="{:.1}" y="{y}">{}</text>"#,
                LABELS - 8.0,
                escaped(row.who),
                y - 12.0,
                LABELS + length + 6.0,
                escaped(&text),
            );
        }
    }
    let height = y + 16.0;
    let title = escaped(&format!(
        "{}: seconds, medians of {} rounds, {} cores; shorter is better",
        comparison.title, comparison.rounds, comparison.cores
    ));
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">
<style>text{{font:13px system-ui,sans-serif;fill:#1f2328}}.title,.head{{font-weight:600}}.ours{{fill:#1a7f5a}}.peer{{fill:#8b98a8}}.floor{{fill:#d0a84a}}@media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.ours{{fill:#3fb98a}}.peer{{fill:#6b7785}}}}</style>
<text class="title" x="0" y="18">{title}</text>
{body}</svg>
"#
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
