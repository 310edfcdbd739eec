//! JUnit XML, in the dialect that Jenkins, GitLab and GitHub's actions read.

use std::fmt::Write;

use super::{Report, escape};
use crate::outcome::Outcome;

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let audit = &report.audit;
    let count = |section: Option<&str>, which: &[Outcome]| {
        let items = audit.items.iter().filter(|i| section.is_none_or(|s| i.item.section == s));
        items.filter(|i| which.contains(&i.outcome)).count()
    };
    let (failed, skipped) = ([Outcome::Fail, Outcome::Warn], [Outcome::NotApplicable, Outcome::Waived]);
    // What is not known is no success: to a build it is an error.
    let errors = [Outcome::Unknown];
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(
        out,
        "<testsuites name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\">",
        escape(&audit.target),
        audit.items.len(),
        count(None, &failed),
        count(None, &errors)
    )?;
    for (section, _) in &audit.sections {
        let items: Vec<_> = audit.items.iter().filter(|i| i.item.section == *section).collect();
        let of = |which| count(Some(section), which);
        writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" timestamp=\"{}\">",
            escape(section),
            items.len(),
            of(&failed),
            of(&errors),
            of(&skipped),
            audit.at.format("%FT%T")
        )?;
        for item in items {
            write!(
                out,
                "    <testcase classname=\"{}\" name=\"{}\">",
                escape(&item.item.id),
                escape(&item.item.title)
            )?;
            let (reason, word) = (escape(&item.reason), item.outcome.word());
            let places: Vec<String> =
                item.checks.iter().flat_map(|c| &c.places).map(|p| format!("{} {}", p.at, p.what)).collect();
            let body = escape(&places.join("\n"));
            match item.outcome {
                Outcome::Pass | Outcome::Attested => {}
                Outcome::Fail | Outcome::Warn => {
                    write!(out, "<failure message=\"{reason}\" type=\"{word}\">{body}</failure>")?
                }
                Outcome::Unknown => write!(out, "<error message=\"{reason}\" type=\"{word}\"/>")?,
                Outcome::NotApplicable | Outcome::Waived => write!(out, "<skipped message=\"{word}: {reason}\"/>")?,
            }
            writeln!(out, "</testcase>")?;
        }
        writeln!(out, "  </testsuite>")?;
    }
    writeln!(out, "</testsuites>")
}
