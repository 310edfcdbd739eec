//! What `maintain` says to people.

use db_maint::{Confidence, Finding, Inspection, JobReport, Outcome};

use crate::cli::say;

/// Findings, and what could not be seen.
pub fn inspection(inspection: &Inspection) {
    let capabilities = &inspection.capabilities;
    say(&format!("{}: {} {}", capabilities.location, capabilities.flavour, capabilities.version));
    for finding in inspection.findings() {
        show_finding(finding);
    }
    for (check, why) in inspection.unknown() {
        say(&format!("UNKNOWN   {check}: {why}"));
        if let Some(Outcome::Unknown { remedy: Some(remedy), .. }) = inspection.outcome(check) {
            say(&format!("          to see it: {remedy}"));
        }
    }
    let clean = inspection.checks.iter().filter(|c| matches!(c.outcome, Outcome::Clean { .. })).count();
    let blind = inspection.checks.iter().filter(|c| matches!(c.outcome, Outcome::Unknown { .. })).count();
    say(&format!("{} findings; {clean} checks found nothing, {blind} could not look", inspection.findings().count()));
}

fn show_finding(finding: &Finding) {
    let sure = if finding.confidence == Confidence::Estimated { " (estimated)" } else { "" };
    let severity = finding.severity.to_string();
    say(&format!("{severity:<9} {} {}: {}{sure}", finding.check, finding.object, finding.summary));
    if let Some(remedy) = &finding.remedy {
        say(&format!("          {remedy}"));
    }
}

/// What became of each rule.
pub fn jobs(applied: bool, reports: &[JobReport]) {
    if reports.is_empty() {
        say("the policy has no such rule");
    }
    for report in reports {
        let before =
            report.cutoff.map(|at| format!(" before {}", at.format("%Y-%m-%d %H:%M:%S UTC"))).unwrap_or_default();
        let what = match applied {
            true => format!("{} of {} rows", report.changed, report.met),
            false => format!("{} rows to {}", report.met, report.action),
        };
        let all = match report.changed_in_all {
            all if all > report.changed => format!(", {all} with the runs before"),
            _ => String::new(),
        };
        say(&format!("{}: {what} in {}{before}{all}: {}", report.rule, report.table, report.ended));
        if !applied && !report.sample.is_empty() {
            say(&format!("    such as {}", report.sample.join(", ")));
        }
        for (table, how) in report.followers.iter().filter(|_| report.met > 0 && report.action == "delete") {
            say(&format!("    rows of {table} that refer to them {how}"));
        }
        for (key, why) in &report.poison {
            say(&format!("    NOT DONE {key}: {why}"));
        }
    }
    if !applied && reports.iter().any(|r| r.met > 0 && r.action != "report") {
        say("nothing was changed: --apply does it");
    }
}
