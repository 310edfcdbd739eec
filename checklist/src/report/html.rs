//! One HTML file that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write;

use super::{Report, escape, score_text};
use crate::audit::ItemReport;
use crate::outcome::Outcome;
use crate::score::Score;
use crate::task::TaskState;

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2330;--dim:#5b6474;--line:#d9dee7;--card:#f6f8fb;--good:#1a7f4b;--warn:#9a6400;--bad:#b3261e;--none:#5b6474}\
@media(prefers-color-scheme:dark){:root{--bg:#12161d;--fg:#e6eaf1;--dim:#9aa5b6;--line:#2b3340;--card:#1a202a;--good:#5fd08f;--warn:#f0b95a;--bad:#ff8a80;--none:#9aa5b6}}\
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}\
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem}h1{font-size:1.6rem;margin:0}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}\
.dim{color:var(--dim)}.top{display:flex;flex-wrap:wrap;gap:1rem;align-items:center;margin:1rem 0}.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.75rem 1rem}\
.big{font-size:2rem;font-weight:700}.bar{display:flex;height:.6rem;border-radius:.3rem;overflow:hidden;background:var(--line);margin:.3rem 0}\
details{border-bottom:1px solid var(--line);padding:.4rem 0}summary{cursor:pointer;display:flex;gap:.6rem;align-items:baseline;overflow-wrap:anywhere}\
.tag{font-size:.72rem;font-weight:700;border:1px solid currentColor;border-radius:.3rem;padding:0 .4rem;white-space:nowrap;min-width:5.6rem;text-align:center}\
.pass,.attested,.done{color:var(--good)}.warn,.waived,.due,.done-late{color:var(--warn)}.fail,.overdue,.missed{color:var(--bad)}.unknown,.not-applicable{color:var(--none)}\
ul{padding-left:1.2rem;margin:.3rem 0}li,p,td{overflow-wrap:anywhere}table{width:100%;border-collapse:collapse;font-size:.9rem}td,th{text-align:left;border-bottom:1px solid var(--line);padding:.3rem .4rem;vertical-align:top}\
code{font-size:.85em;overflow-wrap:anywhere}svg{max-width:100%;height:auto}.dots{white-space:nowrap;letter-spacing:.1em}.scroll{overflow-x:auto}\
@media print{body{background:#fff;color:#000}details>*{display:block}summary{list-style:none}h2{break-after:avoid}details{break-inside:avoid}}";

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let audit = &report.audit;
    let title = format!("Checklist of {}", escape(&audit.target));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\
         <link rel=\"icon\" href=\"data:,\"><title>{title}</title><style>{STYLE}</style></head><body><main>\n\
         <h1>{title}</h1><p class=\"dim\">Audited {}, report of {}</p>\n",
        audit.at.format("%F %H:%M UTC"),
        report.made.format("%F %H:%M UTC")
    )?;
    overview(out, report)?;
    if !report.changes.is_empty() {
        writeln!(out, "<h2>Since the audit before</h2><ul>")?;
        for c in &report.changes {
            writeln!(
                out,
                "<li>{}: <span class=\"{}\">{}</span> → <span class=\"{}\">{}</span></li>",
                escape(&c.title),
                class(c.before),
                c.before.word(),
                class(c.now),
                c.now.word()
            )?;
        }
        writeln!(out, "</ul>")?;
    }
    for (section, score) in &audit.sections {
        writeln!(
            out,
            "<h2>{}</h2><p class=\"dim\">{}</p>{}",
            escape(section),
            score_text(score.as_ref()),
            bar(score.as_ref())
        )?;
        for item in audit.items.iter().filter(|i| i.item.section == *section) {
            write_item(out, item)?;
        }
    }
    tasks(out, report)?;
    registers(out, report)?;
    write!(
        out,
        "<h2>Evidence</h2><p>Ledger: entry {}, <code>{}</code>. Noted elsewhere, it shows whether the ledger was cut off since.</p>\n</main></body></html>\n",
        report.head.seq, report.head.hash
    )
}

fn overview(out: &mut String, report: &Report) -> std::fmt::Result {
    let audit = &report.audit;
    let value = audit.score.map_or("–".into(), |s| format!("{:.0} %", s.value() * 100.0));
    write!(
        out,
        "<div class=\"top\"><div class=\"card\"><div class=\"big\">{value}</div><div class=\"dim\">{}</div>{}</div>",
        score_text(audit.score.as_ref()),
        bar(audit.score.as_ref())
    )?;
    write!(out, "<div class=\"card\">")?;
    for outcome in [
        Outcome::Fail,
        Outcome::Warn,
        Outcome::Unknown,
        Outcome::Waived,
        Outcome::Attested,
        Outcome::Pass,
        Outcome::NotApplicable,
    ] {
        let n = audit.items.iter().filter(|i| i.outcome == outcome).count();
        if n > 0 {
            write!(out, "<div><span class=\"tag {}\">{}</span> {n}</div>", class(outcome), outcome.word())?;
        }
    }
    writeln!(out, "</div>{}</div>", trend(report))
}

/// Fulfilled, known and not, not known.
fn bar(score: Option<&Score>) -> String {
    let Some(s) = score else { return String::new() };
    let (good, known) = (s.value() * 100.0, s.coverage() * 100.0);
    format!(
        "<div class=\"bar\" role=\"img\" aria-label=\"{good:.0} % fulfilled, {known:.0} % known\"><span style=\"width:{good:.1}%;background:var(--good)\"></span>\
         <span style=\"width:{:.1}%;background:var(--bad)\"></span></div>",
        known - good
    )
}

/// The scores of the audits so far.
fn trend(report: &Report) -> String {
    let points: Vec<(f64, f64)> = report
        .history
        .iter()
        .chain(std::iter::once(&(report.audit.at, report.audit.score)))
        .filter_map(|(at, score)| Some((at.timestamp() as f64, score.as_ref()?.value())))
        .collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    if points.len() < 2 {
        return String::new();
    }
    let span = (last.0 - first.0).max(1.0);
    let at = |(t, v): &(f64, f64)| format!("{:.1},{:.1}", 10.0 + (t - first.0) / span * 280.0, 90.0 - v * 80.0);
    let line = points.iter().map(at).collect::<Vec<_>>().join(" ");
    let dots: String = points
        .iter()
        .map(|p| {
            let xy = at(p);
            let (x, y) = xy.split_once(',').unwrap_or(("0", "0"));
            format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"currentColor\"/>")
        })
        .collect();
    format!(
        "<div class=\"card\"><svg width=\"300\" height=\"100\" viewBox=\"0 0 300 100\" role=\"img\" aria-label=\"score of {} audits, now {:.0} %\">\
         <line x1=\"10\" y1=\"10\" x2=\"290\" y2=\"10\" stroke=\"var(--line)\"/><line x1=\"10\" y1=\"90\" x2=\"290\" y2=\"90\" stroke=\"var(--line)\"/>\
         <polyline points=\"{line}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\"/>{dots}</svg><div class=\"dim\">Score of {} audits</div></div>",
        points.len(),
        last.1 * 100.0,
        points.len()
    )
}

fn write_item(out: &mut String, report: &ItemReport) -> std::fmt::Result {
    let item = &report.item;
    let open = if matches!(report.outcome, Outcome::Fail) { " open" } else { "" };
    write!(
        out,
        "<details{open}><summary><span class=\"tag {}\">{}</span><span>{} <code class=\"dim\">{}</code></span></summary><p>{}</p>",
        class(report.outcome),
        report.outcome.word(),
        escape(&item.title),
        escape(&item.id),
        escape(&report.reason)
    )?;
    if !item.why.is_empty() {
        write!(out, "<p class=\"dim\">{}</p>", escape(&item.why))?;
    }
    let places = || report.checks.iter().flat_map(|c| &c.places);
    if places().next().is_some() {
        write!(out, "<ul>")?;
        for place in places().take(20) {
            let line = place.line.map(|n| format!(":{n}")).unwrap_or_default();
            write!(out, "<li><code>{}{line}</code> {}</li>", escape(&place.at), escape(&place.what))?;
        }
        if places().count() > 20 {
            write!(out, "<li>and {} more</li>", places().count() - 20)?;
        }
        write!(out, "</ul>")?;
    }
    if !report.outcome.is_good() && !item.remedy_next.is_empty() {
        write!(
            out,
            "<p><b>Next.js:</b> {}<br><b>PHP:</b> {}</p>",
            escape(&item.remedy_next),
            escape(&item.remedy_php)
        )?;
    }
    write!(out, "<p class=\"dim\">{}</p>", escape(&item.references.join("; ")))?;
    if !report.checks.is_empty() {
        write!(
            out,
            "<div class=\"scroll\"><table><tr><th>check</th><th>outcome</th><th>why</th><th>counts until</th></tr>"
        )?;
        for check in &report.checks {
            let until = check.evidence.as_ref().map_or("–".into(), |e| e.expires.format("%F").to_string());
            write!(
                out,
                "<tr><td><code>{}</code></td><td class=\"{}\">{}</td><td>{}</td><td>{until}</td></tr>",
                escape(&check.check),
                class(check.outcome),
                check.outcome.word(),
                escape(&check.reason)
            )?;
        }
        write!(out, "</table></div>")?;
    }
    writeln!(out, "</details>")
}

fn tasks(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.tasks.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Tasks</h2><div class=\"scroll\"><table><tr><th>task</th><th>last times</th><th>now</th><th>until</th><th>owner</th></tr>"
    )?;
    for task in &report.tasks {
        let Some(now) = task.times.last() else { continue };
        let dots: String = task
            .times
            .iter()
            .rev()
            .take(12)
            .rev()
            .map(|t| {
                let sign = match t.state {
                    TaskState::Done => '●',
                    TaskState::DoneLate => '◐',
                    TaskState::Missed => '✕',
                    TaskState::Due | TaskState::Overdue => '○',
                };
                format!(
                    "<span class=\"{}\" title=\"{} {}\">{sign}</span>",
                    task_class(t.state),
                    t.due.format("%F"),
                    t.state.word()
                )
            })
            .collect();
        let by = now.done.as_ref().map(|(_, who)| format!(", {}", escape(who))).unwrap_or_default();
        writeln!(
            out,
            "<tr><td>{} <code class=\"dim\">{}</code></td><td class=\"dots\">{dots}</td><td class=\"{}\">{}{by}</td><td>{}</td><td>{}</td></tr>",
            escape(&task.title),
            escape(&task.id),
            task_class(now.state),
            now.state.word(),
            now.until.format("%F"),
            escape(&task.owner)
        )?;
    }
    writeln!(out, "</table></div>")
}

fn registers(out: &mut String, report: &Report) -> std::fmt::Result {
    if !report.secrets.is_empty() {
        writeln!(
            out,
            "<h2>Secrets</h2><div class=\"scroll\"><table><tr><th>secret</th><th>owner</th><th>changed</th><th>due</th></tr>"
        )?;
        for s in &report.secrets {
            let late = if s.days_left < 0 { "overdue" } else { "" };
            writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"{late}\">{}</td></tr>",
                escape(&s.name),
                escape(&s.owner),
                s.since,
                s.due
            )?;
        }
        writeln!(out, "</table></div>")?;
    }
    if !report.contacts.is_empty() {
        writeln!(out, "<h2>Contacts</h2><div class=\"scroll\"><table><tr><th>for</th><th>who</th><th>where</th></tr>")?;
        for c in &report.contacts {
            let who = c.name.as_deref().unwrap_or_default();
            let reach = escape(&c.reach.join(", "));
            writeln!(out, "<tr><td>{}</td><td>{}</td><td>{reach}</td></tr>", escape(&c.role), escape(who))?;
        }
        writeln!(out, "</table></div>")?;
    }
    let Some(advice) = &report.scaling else { return Ok(()) };
    writeln!(out, "<h2>Growth</h2><p>{}: {:.0} orders a month.", advice.phase.name(), advice.orders)?;
    if let Some(months) = advice.months_to_next {
        writeln!(out, " At this growth the next phase comes in {months:.0} months.")?;
    }
    writeln!(out, "</p><ul>")?;
    for need in &advice.needs {
        let (class, word) = match need.in_place {
            Some(true) => ("pass", "there"),
            Some(false) => ("warn", "missing"),
            None => ("unknown", "nobody said"),
        };
        writeln!(out, "<li>{} <span class=\"{class}\">{word}</span></li>", escape(&need.what))?;
    }
    writeln!(out, "</ul>")
}

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Attested => "attested",
        Outcome::Warn => "warn",
        Outcome::Fail => "fail",
        Outcome::Unknown => "unknown",
        Outcome::Waived => "waived",
        Outcome::NotApplicable => "not-applicable",
    }
}

fn task_class(state: TaskState) -> &'static str {
    match state {
        TaskState::Done => "done",
        TaskState::DoneLate => "done-late",
        TaskState::Due => "due",
        TaskState::Overdue => "overdue",
        TaskState::Missed => "missed",
    }
}
