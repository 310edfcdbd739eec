//! What `backup` says to people.

use std::time::Duration;

use backup_core::{
    Change, DiffReport, DrillReport, EntryKind, ExportReport, ObjectiveStatus, PrunePlan, PruneReport, RestoreReport,
    Snapshot, Standing, Status, StoreReport, SyncReport, TrialOutcome, Trust, VerifyReport,
};

use crate::cli::{complain, say};
use crate::display::{count, duration, rate, size};

/// The snapshots, a line each.
pub fn listed(shown: &[&Snapshot]) {
    if shown.is_empty() {
        return say("no snapshots");
    }
    say(&format!(
        "{:<14} {:<20} {:<16} {:>10} {:>10} {:>12}  NOTES",
        "ID", "TAKEN (UTC)", "SOURCE", "SIZE", "ADDED", "ROWS/FILES"
    ));
    for s in shown {
        let m = &s.manifest;
        let mut notes = Vec::new();
        notes.extend(m.tier.as_ref().map(|tier| format!("tier {tier}")));
        notes.extend(m.label.clone());
        if !m.is_complete() {
            notes.push(format!("{} PROBLEMS", m.problem_count));
        }
        say(&format!(
            "{:<14} {:<20} {:<16} {:>10} {:>10} {:>12}  {}",
            s.id.as_str(),
            m.taken_at.format("%Y-%m-%d %H:%M:%S"),
            m.source.name,
            size(m.totals.bytes),
            size(m.totals.added),
            count(m.totals.rows),
            notes.join("; ")
        ));
    }
}

/// One snapshot, whole.
pub fn shown(snapshot: &Snapshot) {
    let m = &snapshot.manifest;
    say(&format!("snapshot  {}", snapshot.id));
    say(&format!(
        "source    {} ({}, {}, version {})",
        m.source.name, m.source.kind, m.source.location, m.source.version
    ));
    say(&format!(
        "taken     {} on {}, in {}",
        m.taken_at.format("%Y-%m-%d %H:%M:%S UTC"),
        m.host,
        duration((m.finished_at - m.started_at).to_std().unwrap_or(Duration::ZERO))
    ));
    if let Some(position) = &m.position {
        say(&format!("position  {position}"));
    }
    if let Some(tier) = &m.tier {
        say(&format!("tier      {tier}: rows of some tables only"));
    }
    if let Some(label) = &m.label {
        say(&format!("label     {label}"));
    }
    say(&format!(
        "holds     {} in {} rows and files; this run added {}",
        size(m.totals.bytes),
        count(m.totals.rows),
        size(m.totals.added)
    ));
    say("");
    say(&format!("{:<28} {:>12} {:>10}  FINGERPRINT", "ENTRY", "ROWS/FILES", "SIZE"));
    for e in &m.entries {
        let rows = if matches!(e.kind, EntryKind::PreData | EntryKind::PostData | EntryKind::Globals) {
            "—".into()
        } else {
            count(e.fingerprint.rows())
        };
        say(&format!("{:<28} {rows:>12} {:>10}  {}", e.name, size(e.bytes), e.fingerprint));
    }
    for p in &m.problems {
        say(&format!("PROBLEM   {}: {}", p.subject, p.reason));
    }
}

/// How things stand.
pub fn status(status: &Status, judged: &[(String, Vec<ObjectiveStatus>)]) {
    if status.sources.is_empty() {
        say("nothing is backed up here");
    }
    for s in &status.sources {
        let age = s.age_seconds.map_or_else(
            || "no full snapshot".into(),
            |age| match u64::try_from(age) {
                Ok(age) => format!("newest is {} old", duration(Duration::from_secs(age))),
                Err(_) => "newest is from the future: a clock is wrong".into(),
            },
        );
        let verified = match (s.content_verified_at, s.stored_verified_at) {
            (Some(at), _) => format!("content verified {}", at.format("%Y-%m-%d %H:%M UTC")),
            (None, Some(at)) => format!("stored bytes verified {}", at.format("%Y-%m-%d %H:%M UTC")),
            (None, None) => "NOT VERIFIED".into(),
        };
        let drilled = match (s.drilled_at, s.drill_milliseconds) {
            (Some(at), Some(ms)) => {
                format!("last drill {} in {}", at.format("%Y-%m-%d"), duration(Duration::from_millis(ms)))
            }
            _ => "never drilled".into(),
        };
        let problems = if s.problems > 0 { format!("; {} PROBLEMS", s.problems) } else { String::new() };
        say(&format!("{}: {} snapshots; {age}; {verified}; {drilled}{problems}", s.source, s.snapshots));
    }
    for (store, judged) in judged {
        // One store is not worth a name.
        let whose = if status.stores.len() > 1 { format!(" in {store}") } else { String::new() };
        for o in judged {
            let what = &o.objective;
            say(&format!("{:<7} RPO {} of {what}{whose}: {}", word(o.rpo.standing), duration(what.rpo), o.rpo.reason));
            if let (Some(rto), Some(limit)) = (&o.rto, what.rto) {
                say(&format!("{:<7} RTO {} of {what}{whose}: {}", word(rto.standing), duration(limit), rto.reason));
            }
        }
    }
}

/// Who may read and write now.
pub fn rotated(trust: &Trust) {
    say(&format!("the keys of repository {} are in generation {}", trust.repository, trust.generation));
    for recipient in &trust.recipients {
        say(&format!("reads     {recipient}"));
    }
    for writer in &trust.writers {
        match &writer.revoked {
            None => say(&format!("writes    {}", writer.verify_key)),
            Some(revoked) => {
                let accepted = count(revoked.accepted.len() as u64);
                say(&format!("no more   {}: {accepted} records of it count", writer.verify_key));
            }
        }
    }
    say(
        "trust.json was written anew: copy it beside the owner's offline keys; hosts that back up follow by themselves",
    );
}

/// What a trial of a store found.
pub fn checked(report: &StoreReport) {
    for t in &report.trials {
        let outcome = match t.outcome {
            TrialOutcome::Good => "good",
            TrialOutcome::Note => "note",
            TrialOutcome::Bad => "BAD",
            _ => "UNKNOWN",
        };
        say(&format!("{outcome:<8} {:<17} {}", t.name, t.detail));
    }
    if let (Some(written), Some(read)) = (report.written_per_second, report.read_per_second) {
        say(&format!("         {:<17} {}/s written, {}/s read", "throughput", size(written), size(read)));
    }
}

/// What a sync did.
pub fn synced(report: &SyncReport) {
    say(&format!(
        "{} objects copied, {}, in {}",
        count(report.copied),
        size(report.bytes),
        duration(Duration::from_millis(report.milliseconds))
    ));
    for name in &report.healed {
        say(&format!("healed    {name}"));
    }
    for name in &report.damaged {
        say(&format!("DAMAGED   {name} in the store that was copied from: not copied"));
    }
    for name in &report.diverged {
        say(&format!("DIFFERENT {name} is another one in each store: run it with --keys"));
    }
    if let Some(record) = report.stopped_at {
        say(&format!("STOPPED   before record {}: nothing newer was copied", record.brief()));
    }
    if report.ahead > 0 {
        say(&format!(
            "the copy has {} records that the other does not have: a sync the other way brings them there",
            report.ahead
        ));
    }
}

/// What differs.
pub fn diff(report: &DiffReport) {
    let sign = |change| match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    };
    let rows = |n: Option<u64>| n.map_or_else(|| "—".into(), count);
    for e in &report.entries {
        let counts = match (e.rows_before, e.rows_after) {
            (None, None) => String::new(),
            (before, after) => format!("  {} -> {} rows", rows(before), rows(after)),
        };
        say(&format!("{} {}{counts}", sign(e.change), e.entry));
    }
    for f in &report.files {
        say(&format!("{} {}", sign(f.change), f.path));
    }
    if report.is_empty() {
        say(&format!("{} and {} hold the same", report.before, report.after));
    } else {
        say(&format!(
            "{} tables and definitions differ; files: {} added, {} removed, {} changed",
            report.entries.len(),
            count(report.files_added),
            count(report.files_removed),
            count(report.files_changed)
        ));
    }
}

/// What is kept, and what was removed.
pub fn pruned(plan: &PrunePlan, report: Option<&PruneReport>) {
    say(&format!("{:<5} {:<14} {:<20} {:<24} WHY", "", "ID", "TAKEN (UTC)", "SOURCE"));
    for d in &plan.decisions {
        let source = match &d.tier {
            Some(tier) => format!("{}/{tier}", d.source),
            None => d.source.clone(),
        };
        let why: Vec<_> = d.reasons.iter().map(ToString::to_string).collect();
        say(&format!(
            "{:<5} {:<14} {:<20} {source:<24} {}",
            if d.keep { "keep" } else { "DROP" },
            d.snapshot.as_str(),
            d.taken_at.format("%Y-%m-%d %H:%M:%S"),
            why.join("; ")
        ));
    }
    for record in &plan.rejected {
        say(&format!("DROP  {:<14} signed with a key that was taken out of use", record.brief()));
    }
    let (kept, dropped) = (plan.kept().count(), plan.dropped().count());
    let Some(report) = report else {
        say(&format!("{kept} to keep, {dropped} to drop, by {}; nothing was removed: --apply does that", plan.policy));
        return;
    };
    say(&format!(
        "{} removed, {kept} kept; {} objects deleted, {} freed",
        report.removed.len(),
        count(report.objects),
        size(report.bytes)
    ));
    if !report.removed.is_empty() && report.objects == 0 {
        say("what only they need stays in the store for the time of grace, and goes with the first prune after it");
    }
    if report.waiting_objects > 0 {
        let (objects, bytes) = (count(report.waiting_objects), size(report.waiting_bytes));
        say(&format!("{objects} more, {bytes}, go with the first prune after their time of grace"));
    }
    if report.denied > 0 {
        say(&format!("{} objects may not be deleted yet: the store refuses it", report.denied));
    }
}

/// The snapshot that was taken.
pub fn taken(s: &Snapshot) {
    let m = &s.manifest;
    let took = (m.finished_at - m.started_at).to_std().unwrap_or(Duration::ZERO);
    say(&format!(
        "{}: snapshot {} of {} ({}): {} rows and files; read {}, added {} in {} ({})",
        m.source.name,
        s.id,
        size(m.totals.bytes),
        m.source.kind,
        count(m.totals.rows),
        size(m.totals.read),
        size(m.totals.added),
        duration(took),
        rate(m.totals.read, took),
    ));
    for p in m.problems.iter().take(20) {
        complain(&format!("  PROBLEM {}: {}", p.subject, p.reason));
    }
    if m.problem_count > 20 {
        complain(&format!("  and {} more: `backup show {}` lists them", m.problem_count - 20, s.id));
    }
}

/// What a verify found.
pub fn verified(r: &VerifyReport) {
    for f in &r.findings {
        let whom = if f.snapshots.is_empty() {
            String::new()
        } else {
            format!(" [snapshots {}]", f.snapshots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        };
        say(&format!("{:?}: {}: {}{whom}", f.kind, f.object, f.reason));
    }
    let took = Duration::from_millis(r.milliseconds);
    let verdict = match (r.findings.len(), r.snapshots.len()) {
        (0, 0) => "NOTHING TO VERIFY: there are no snapshots".to_owned(),
        (0, n) => format!("{n} snapshots are whole"),
        (n, _) => format!("{n} FINDINGS"),
    };
    say(&format!(
        "{verdict}: {} objects, {} checked in {} ({})",
        count(r.objects),
        size(r.bytes),
        duration(took),
        rate(r.bytes, took)
    ));
    if r.unread > 0 {
        say(&format!("{} snapshots were NOT looked at: they were written before these keys could read them", r.unread));
    }
    if r.unreferenced_count > 0 {
        say(&format!(
            "{} objects ({}) belong to no snapshot: left by interrupted runs, harmless; the first is {}",
            count(r.unreferenced_count),
            size(r.unreferenced_bytes),
            r.unreferenced.first().map_or("?", String::as_str)
        ));
    }
    if r.evidence.is_none() {
        say("no evidence was left: there is no writer.key or admin.key here to sign it with");
    }
}

/// What was restored.
pub fn restored(r: &RestoreReport) {
    let took = Duration::from_millis(r.milliseconds);
    say(&format!(
        "{} restored to {}: {} rows and files, {} in {} ({})",
        r.snapshot,
        r.target,
        count(r.rows),
        size(r.bytes),
        duration(took),
        rate(r.bytes, took)
    ));
    if r.compared.is_empty() {
        say("not compared with the snapshot: every byte was checked against its signature on the way");
    } else {
        say(&format!(
            "read again and equal to the snapshot: {} entries in {}",
            r.compared.len(),
            duration(Duration::from_millis(r.compare_milliseconds))
        ));
    }
    for share in &r.shares {
        let tables: Vec<_> = share.tables.iter().map(|t| t.trim_start_matches("data/")).collect();
        let whose = share.tier.as_deref().map_or_else(|| "full".to_owned(), |tier| format!("tier {tier}"));
        say(&format!(
            "from {} ({whose}, {}): {}",
            share.snapshot,
            share.taken_at.format("%Y-%m-%d %H:%M:%S UTC"),
            tables.join(", ")
        ));
    }
    for o in &r.orphans {
        say(&format!(
            "ORPHANS   {} rows of {} lead nowhere by {}: {}",
            count(o.rows),
            o.table,
            o.reference,
            o.first.join("; ")
        ));
    }
    for note in &r.notes {
        say(&format!("note: {note}"));
    }
}

/// What was written.
pub fn exported(r: &ExportReport) {
    say(&format!("{} written to {}: {} of SQL, NOT encrypted", r.snapshot, r.file.display(), size(r.bytes)));
    if let Some(globals) = &r.globals {
        say(&format!("the server's roles, password verifiers included, are in {}: NOT encrypted", globals.display()));
    }
}

/// How a drill went.
pub fn drilled(r: &DrillReport) {
    for c in r.restore.different() {
        let found = c.found.map_or_else(|| "nothing".to_owned(), |f| f.to_string());
        say(&format!("DIFFERENT {}: expected {}, found {found}", c.entry, c.expected));
    }
    for i in &r.invariants {
        say(&format!("invariant {}: {:?}", i.name, i.outcome));
    }
    let rto = match r.within_rto() {
        Some(true) => "; within the RTO",
        Some(false) => "; OUTSIDE THE RTO",
        None => "",
    };
    say(&format!(
        "drill of {} {}: {} rows and files restored in {}, {} entries compared{rto}",
        r.restore.snapshot,
        if r.passed() { "passed" } else { "FAILED" },
        count(r.restore.rows),
        duration(Duration::from_millis(r.restore.milliseconds)),
        r.restore.compared.len(),
    ));
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Met => "met",
        Standing::Missed => "MISSED",
        Standing::Unknown => "UNKNOWN",
    }
}
