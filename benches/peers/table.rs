//! A comparison as Markdown.

use std::fmt::Write;

use caretaker_benches::mib;

use crate::steps::{Comparison, Side, Work};

/// Two tables: what was measured, work by work, and what we aim at.
pub(crate) fn markdown(comparison: &Comparison) -> String {
    let mut out = String::new();
    let files = comparison.files.map_or_else(String::new, |n| format!("{n} files, "));
    let _ = writeln!(
        out,
        "{}: {files}{} MiB, {} cores, medians of {} rounds in turns.\n\n| | seconds | peak MiB | stored MiB |\n|---|---|---|---|",
        comparison.title,
        mib(comparison.bytes),
        comparison.cores,
        comparison.rounds,
    );
    for work in Work::ALL {
        let rows: Vec<_> = comparison.rows.iter().filter(|r| r.work == work).collect();
        if rows.iter().all(|r| r.runs.is_empty() && r.missing.is_empty()) {
            continue;
        }
        let _ = writeln!(out, "| **{}** | | | |", work.title());
        for row in rows {
            let who = row.who.replace('|', "\\|");
            let who = if row.side == Side::Caretaker { format!("**{who}**") } else { who };
            let or_dash = |bytes: Option<u64>| bytes.map_or_else(|| "—".to_owned(), mib);
            let _ = match row.median_seconds {
                Some(seconds) => writeln!(
                    out,
                    "| {who} | {seconds:.2} | {} | {} |",
                    or_dash(row.peak_bytes),
                    or_dash(row.stored_bytes)
                ),
                None if row.missing.is_empty() => Ok(()),
                None => writeln!(out, "| {who} | missing: {} | | |", row.missing.join(", ")),
            };
        }
    }
    if !comparison.aims.is_empty() {
        let _ = writeln!(out, "\n| | against | aim | measured | |\n|---|---|---|---|---|");
        for aim in &comparison.aims {
            let reached = if aim.reached { "reached" } else { "not reached" };
            let _ =
                writeln!(out, "| {} | {} | {} | {:.2} × | {reached} |", aim.step, aim.against, aim.aim, aim.measured);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::aim::{Aim, Bound};
    use crate::steps::{Comparison, Row, Side, Work};

    fn row(id: &'static str, side: Side, runs: &[f64], missing: Vec<&'static str>) -> Row {
        Row {
            id,
            work: Work::Create,
            side,
            who: id,
            runs: runs.to_vec(),
            median_seconds: caretaker_benches::median(runs.to_vec()),
            peak_bytes: None,
            stored_bytes: Some(runs.len() as u64 * 100),
            missing,
        }
    }

    #[test]
    fn a_peer_that_is_missing_is_named_and_a_bound_is_judged_by_the_round() {
        let rows = vec![
            row("ours", Side::Caretaker, &[1.0, 10.0, 3.0], Vec::new()),
            row("theirs", Side::Peer, &[2.0, 20.0, 6.0], Vec::new()),
            row("absent", Side::Peer, &[], vec!["mydumper"]),
        ];
        let aim = |bound| Aim { step: "ours", against: "theirs", bound }.judge(&rows).unwrap();
        assert!(aim(Bound::Takes(0.5)).reached && !aim(Bound::Takes(0.49)).reached);
        assert!(aim(Bound::Faster(2.0)).reached && !aim(Bound::Faster(2.01)).reached);
        assert!(aim(Bound::Stores(1.0)).reached && !aim(Bound::Stores(0.99)).reached);
        assert!(Aim { step: "ours", against: "absent", bound: Bound::Takes(1.0) }.judge(&rows).is_none());
        let aims = vec![aim(Bound::Faster(2.01))];
        let comparison =
            Comparison { name: "x", title: "X".into(), bytes: 1 << 20, files: None, cores: 2, rounds: 3, rows, aims };
        let text = super::markdown(&comparison);
        assert!(text.contains("| **ours** | 3.00 | — | 0.0 |"), "{text}");
        assert!(text.contains("| absent | missing: mydumper | | |"), "{text}");
        assert!(text.contains("| 2.00 × | not reached |"), "{text}");
        let svg = crate::chart::svg(&comparison);
        assert!(svg.contains("missing: mydumper") && svg.contains("3.00 s"), "{svg}");
    }
}
