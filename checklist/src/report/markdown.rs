//! Markdown.

use std::fmt::Write;

use super::{Report, score_text};
use crate::outcome::Outcome;

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let audit = &report.audit;
    writeln!(out, "# Checklist of {}\n", line(&audit.target))?;
    writeln!(out, "Audited {}. {}.\n", audit.at.format("%F %H:%M UTC"), score_text(audit.score.as_ref()))?;
    if !report.changes.is_empty() {
        writeln!(out, "## Since the audit before\n")?;
        for c in &report.changes {
            writeln!(out, "- {}: {} → {}", line(&c.title), c.before.word(), c.now.word())?;
        }
        writeln!(out)?;
    }
    for (section, score) in &audit.sections {
        writeln!(out, "## {}\n\n{}\n", line(section), score_text(score.as_ref()))?;
        for item in audit.items.iter().filter(|i| i.item.section == *section) {
            let mark = if item.outcome.is_good() { 'x' } else { ' ' };
            writeln!(out, "- [{mark}] **{}** {} (`{}`)", item.outcome.word(), line(&item.item.title), item.item.id)?;
            writeln!(out, "  {}", line(&item.reason))?;
            if matches!(item.outcome, Outcome::Fail | Outcome::Warn) {
                for place in item.checks.iter().flat_map(|c| &c.places).take(10) {
                    let at = place.line.map(|n| format!(":{n}")).unwrap_or_default();
                    writeln!(out, "  - `{}{at}` {}", code(&place.at), line(&place.what))?;
                }
                writeln!(
                    out,
                    "  - Next.js: {}\n  - PHP: {}",
                    line(&item.item.remedy_next),
                    line(&item.item.remedy_php)
                )?;
                writeln!(out, "  - {}", item.item.references.join("; "))?;
            }
        }
        writeln!(out)?;
    }
    if !report.tasks.is_empty() {
        writeln!(out, "## Tasks\n\n| task | due | state | owner |\n|---|---|---|---|")?;
        for task in &report.tasks {
            let Some(now) = task.times.last() else { continue };
            let by = now.done.as_ref().map(|(_, who)| format!(" by {}", line(who))).unwrap_or_default();
            let due = now.due.format("%F");
            writeln!(
                out,
                "| {} (`{}`) | {due} | {}{by} | {} |",
                line(&task.title),
                task.id,
                now.state.word(),
                line(&task.owner)
            )?;
        }
        writeln!(out)?;
    }
    if !report.secrets.is_empty() {
        writeln!(out, "## Secrets\n\n| secret | owner | changed | due |\n|---|---|---|---|")?;
        for s in &report.secrets {
            let late = if s.days_left < 0 { " (OVERDUE)" } else { "" };
            writeln!(out, "| {} | {} | {} | {}{late} |", line(&s.name), line(&s.owner), s.since, s.due)?;
        }
        writeln!(out)?;
    }
    if !report.contacts.is_empty() {
        writeln!(out, "## Contacts\n\n| for | who | where |\n|---|---|---|")?;
        for c in &report.contacts {
            let who = c.name.as_deref().unwrap_or_default();
            writeln!(out, "| {} | {} | {} |", line(&c.role), line(who), line(&c.reach.join(", ")))?;
        }
        writeln!(out)?;
    }
    if let Some(advice) = &report.scaling {
        writeln!(out, "## Growth\n\n{}: {:.0} orders a month.", advice.phase.name(), advice.orders)?;
        if let Some(months) = advice.months_to_next {
            writeln!(out, "At this growth the next phase comes in {months:.0} months.")?;
        }
        writeln!(out)?;
        for need in &advice.needs {
            let mark = if need.in_place == Some(true) { 'x' } else { ' ' };
            let unsaid = if need.in_place.is_none() { " (nobody said)" } else { "" };
            writeln!(out, "- [{mark}] {}{unsaid}", need.what)?;
        }
        writeln!(out)?;
    }
    writeln!(out, "Ledger: entry {}, `{}`", report.head.seq, report.head.hash)
}

/// One line, in which nothing is a table, a tag, a link, a picture or emphasis.
fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '`' => out.push('\''),
            '\\' | '|' | '[' | ']' | '*' | '~' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// The same within backticks, where nothing but those has a meaning.
fn code(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('`', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_text() {
        let hostile = "![x](http://evil/p.png) [a](b) *b* <img> a|b `c` \\n\n# h";
        assert_eq!(line(hostile), r"!\[x\](http://evil/p.png) \[a\](b) \*b\* &lt;img> a\|b 'c' \\n # h");
        assert_eq!(code("a`b|c\n"), "a'b|c ");
    }
}
