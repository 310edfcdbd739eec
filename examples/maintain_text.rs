//! What `maintain` says to people.

use chrono::{DateTime, Utc};
use db_maint::mode::Notice;
use db_maint::{
    AccessReport, ApplyReport, CacheReport, Confidence, ErasureCertificate, Finding, Forecast, Growth, GrowthReport,
    Inspection, JobReport, Outcome, Plan, Rate, Result, StepEnd, StockReport,
};

use crate::cli::{Ended, say};
use crate::display::size;

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
        if report.unchanged > 0 {
            say(&format!(
                "    NOT DONE {}: gone meanwhile, or kept by a trigger or a policy of the database",
                report.unchanged
            ));
        }
        for (key, why) in &report.poison {
            say(&format!("    NOT DONE {key}: {why}"));
        }
    }
    if !applied && reports.iter().any(|r| r.met > 0 && r.action != "report") {
        say("nothing was changed: --apply does it");
    }
}

/// What would be done.
pub fn plan(plan: &Plan) {
    for (at, step) in plan.steps.iter().enumerate() {
        say(&format!("{}. {}", at + 1, step.sql));
        say(&format!("   because {}", step.because));
        say(&format!("   {}", step.lock));
        if let Some(bytes) = step.needs_bytes {
            say(&format!("   needs {} free on the server's disk", size(bytes)));
        }
        if let Some(undo) = &step.undo {
            say(&format!("   undone by: {undo}"));
        }
    }
    for unknown in &plan.unknown {
        say(&format!("UNKNOWN {unknown}"));
    }
    match plan.steps.len() {
        0 if plan.unknown.is_empty() => say("nothing to do"),
        0 => say("nothing to do in what could be seen"),
        steps => say(&format!("{steps} steps; good until {}", plan.expires_at.format("%Y-%m-%d %H:%M UTC"))),
    }
}

/// What was done.
pub fn applied(plan: &Plan, report: &ApplyReport) {
    for step in &report.steps {
        let how = match &step.end {
            StepEnd::Done => "done".to_owned(),
            StepEnd::Drifted { reason } => format!("NOT DONE, it no longer fits: {reason}"),
            StepEnd::Busy { reason } => format!("NOT DONE, others were in the way: {reason}"),
            StepEnd::Stopped => "NOT DONE, stopped".to_owned(),
            StepEnd::Failed { reason } => format!("NOT DONE: {reason}"),
            _ => "NOT DONE".to_owned(),
        };
        let sizes = match (step.bytes_before, step.bytes_after) {
            (Some(before), Some(after)) if before != after => {
                format!(", {} before and {} now", size(before), size(after))
            }
            _ => String::new(),
        };
        say(&format!("{}: {how} ({:.1} s{sizes})", step.sql, step.seconds));
    }
    for index in &report.swept {
        say(&format!("removed what a rebuild had left: {index}"));
    }
    for (index, why) in &report.left {
        say(&format!("LEFT what a rebuild had left: {index}: {why}; the next plan removes it"));
    }
    let done = report.steps.iter().filter(|s| s.end == StepEnd::Done).count();
    say(&format!("{done} of {} steps done", plan.steps.len()));
}

/// What is low.
pub fn stock(report: &StockReport, remembered: bool) {
    for item in &report.low {
        let new = if item.is_new { "NEW  " } else { "     " };
        let since = item.since.format("%Y-%m-%d %H:%M UTC");
        say(&format!("{new}{}: {} left of {} (since {since})", item.label, item.available, item.threshold));
    }
    for label in &report.unknown {
        say(&format!("UNKNOWN {label}: its stock or threshold is empty"));
    }
    for label in &report.recovered {
        say(&format!("     {label}: not low any more"));
    }
    let new = report.low.iter().filter(|l| l.is_new).count();
    say(&format!("{} of {} are low, {new} of them newly", report.low.len(), report.examined));
    if !remembered && new > 0 {
        say("nothing was remembered: --apply does, and tells each once");
    }
}

/// How fast it grows.
pub fn growth(report: &GrowthReport, free: Option<u64>) {
    say(&format!("{}: {}", report.location, told(&report.database)));
    for (table, growth) in &report.tables {
        say(&format!("  {table}: {}", told(growth)));
    }
    if let Rate::Unknown { reason } = &report.database.rate {
        say(&format!("no rate yet: {reason}"));
    }
    let free = free.map_or_else(String::new, |free| format!(" ({} free)", size(free)));
    say(&match &report.forecast {
        Forecast::Full { at: Some(at), earliest } => format!(
            "the disk is full on about {}{free}; it may be on {}",
            at.format("%Y-%m-%d"),
            earliest.format("%Y-%m-%d")
        ),
        Forecast::Full { at: None, earliest } => {
            format!("the disk may be full on {}{free}; more likely it is later", earliest.format("%Y-%m-%d"))
        }
        Forecast::NotBefore { at } => {
            format!(
                "as far as these looks tell, this database does not fill the disk before {}{free}",
                at.format("%Y-%m-%d")
            )
        }
        Forecast::Unknown { reason } => format!("when the disk will be full is UNKNOWN{free}: {reason}"),
        _ => "when the disk will be full is UNKNOWN".to_owned(),
    });
}

fn told(growth: &Growth) -> String {
    let signed = |bytes: f64| format!("{}{}", if bytes < 0.0 { "-" } else { "+" }, size(bytes.abs() as u64));
    match &growth.rate {
        Rate::Known { bytes_per_day, least, most } => format!(
            "{}, {} a day ({} to {})",
            size(growth.bytes),
            signed(*bytes_per_day),
            signed(*least),
            signed(*most)
        ),
        Rate::Unknown { .. } => size(growth.bytes),
    }
}

/// Who may do what.
pub fn access(report: &AccessReport) {
    say(&format!("{} at {}", report.location, report.taken_at.format("%Y-%m-%d %H:%M UTC")));
    for role in report.roles.iter().filter(|role| role.can_log_in) {
        let powers = if role.powers.is_empty() { String::new() } else { format!(", {}", role.powers.join(", ")) };
        let member = if role.member_of.is_empty() {
            String::new()
        } else {
            format!("; has the rights of {}", role.member_of.join(", "))
        };
        say(&format!("  {}{powers}{member}", role.name));
    }
    for table in &report.tables {
        for (what, grantees) in [("read", &table.readers), ("change", &table.writers)] {
            for who in grantees {
                say(&format!("  {} may {what} {}, by {}", who.role, table.table, who.by.join(", ")));
            }
        }
    }
    for admin in &report.admins {
        let seen = admin.seen.as_deref().map_or_else(String::new, |seen| format!(", here last at {seen}"));
        say(&format!("  administrator {}{seen}", admin.label));
    }
    for finding in &report.findings {
        show_finding(finding);
    }
    for unknown in &report.unknown {
        say(&format!("UNKNOWN   {unknown}"));
    }
    say(&format!("{} findings, {} not known", report.findings.len(), report.unknown.len()));
}

/// What became of each cache.
pub fn caches(applied: bool, reports: &[CacheReport]) {
    for report in reports {
        let bytes = if report.bytes > 0 { format!(", {}", size(report.bytes)) } else { String::new() };
        let done = if applied {
            format!("{} of {} cleared", report.cleared, report.met)
        } else {
            format!("{} to clear", report.met)
        };
        say(&format!("{}: {}: {done}{bytes}", report.name, report.place));
        if !applied && !report.sample.is_empty() {
            say(&format!("    such as {}", report.sample.join(", ")));
        }
        if !report.complete {
            say("    STOPPED before its end");
        }
        for failed in &report.failed {
            say(&format!("    FAILED {failed}"));
        }
    }
    if !applied {
        say("nothing was cleared: --apply does it");
    }
}

/// What was forgotten.
pub fn erased(certificate: &ErasureCertificate) {
    let verb = if certificate.applied { "done" } else { "to do" };
    say(&format!("case {} of {}", certificate.case, certificate.at.format("%Y-%m-%d %H:%M UTC")));
    for table in &certificate.tables {
        let reason = table.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        say(&format!(
            "{}: {}{reason}: {} rows, {} {verb}, {} held, {} failed",
            table.table, table.action, table.rows, table.done, table.held, table.failed
        ));
    }
    say(match (certificate.applied, certificate.complete) {
        (false, _) => "nothing was changed: --apply does it",
        (true, true) => "complete",
        (true, false) => "NOT complete: what is held or failed is left",
    });
}

/// Whether the shop is closed.
///
/// # Errors
/// Where the notice cannot be written as JSON.
pub fn mode(json: bool, location: &str, notice: Option<&Notice>, now: DateTime<Utc>) -> Result<Ended> {
    let is_over = notice.is_some_and(|notice| notice.is_over(now));
    if json {
        say(
            &serde_json::json!({ "location": location, "closed": notice.is_some(), "over": is_over, "notice": notice })
                .to_string(),
        );
        return Ok(Ended::Well);
    }
    match notice {
        None => say(&format!("{location}: open")),
        Some(notice) => {
            let until = notice.until.format("%Y-%m-%d %H:%M:%S UTC");
            let over = if is_over { ", which is over: `mode off` opens it" } else { "" };
            say(&format!("{location}: closed until {until}{over}: {}", notice.reason));
        }
    }
    Ok(Ended::Well)
}
