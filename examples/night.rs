//! The main job of a shop, from backup to checklist, and one report of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{DrillReport, ErrorKind, ObjectiveStatus, Snapshot, VerifyLevel, VerifyReport};
use checklist::report::Format;
use chrono::{DateTime, TimeDelta, Utc};
use db_maint::{Inspection, JobReport, Severity, Stop};
use health_probe::Verdict as Health;

use crate::cli::{Told, complain};
use crate::crew::{BackedUp, Crew, Verified};
use crate::display::{count, duration, rate, size};
use crate::report::{Report, Verdict};

/// What became of a night: the report, and what it is made of.
#[derive(Debug)]
pub struct Night {
    /// The report.
    pub report: Report,
    /// What was backed up.
    pub backed_up: Option<BackedUp>,
    /// What was verified, by store.
    pub verified: Verified,
    /// What was restored and compared, by source.
    pub drilled: Vec<(String, DrillReport)>,
    /// What else happened, a line each: the part, its verdict, what it came to.
    pub lines: Vec<(String, Verdict, String)>,
}

/// Does it all; nothing that fails keeps the rest from being done. Files beside the report go to `out`.
pub async fn night(crew: &Crew, out: &Path, before: &[Snapshot], now: DateTime<Utc>) -> Night {
    let mut night = Night {
        report: Report::new(format!("Nightly report of {}", crew.name)),
        backed_up: None,
        verified: Vec::new(),
        drilled: Vec::new(),
        lines: Vec::new(),
    };
    if crew.has_backups() {
        night.back_up(crew, before).await;
        night.verify(crew).await;
        night.drill(crew).await;
        night.promises(crew, now).await;
    } else {
        night.line("Backed up", Verdict::Unknown, "nothing: there is no [[backup.source]] in the configuration");
    }
    if crew.maintenance.database.is_some() {
        night.maintain(crew).await;
        night.inspect(crew).await;
    }
    night.look(crew).await;
    night.audit(crew, out, now).await;
    night
}

impl Night {
    /// A part without a body.
    fn line(&mut self, part: &str, verdict: Verdict, text: impl Into<String>) {
        let text = text.into();
        self.report.section(part, verdict);
        self.report.text(&text);
        self.lines.push((part.to_owned(), verdict, text));
    }

    fn failed(&mut self, part: &str, e: &impl Told) {
        let next = e.next_step().map(|n| format!("; next: {n}")).unwrap_or_default();
        self.line(part, Verdict::Bad, format!("could not be done: {e}{next}"));
    }

    async fn back_up(&mut self, crew: &Crew, before: &[Snapshot]) {
        let done = match crew.back_up(None).await {
            Ok(done) => done,
            Err(e) => return self.failed("Backed up", &e),
        };
        self.report.section("Backed up", Verdict::of(done.is_good()));
        let rows: Vec<Vec<String>> = before
            .iter()
            .map(|s| ("first", s))
            .chain(done.snapshots.iter().map(|s| ("this", s)))
            .map(backup_row)
            .collect();
        self.report.table(
            &["source", "run", "snapshot", "holds", "rows and files", "added to the store", "time", "read at"],
            &rows,
        );
        for (source, e) in &done.failed {
            self.report.text(&format!("{source} was NOT backed up: {e}"));
        }
        for (store, why) in &done.without {
            self.report.text(&format!("{store} did not get it: {why}"));
        }
        let whole = done.snapshots.len();
        let text = format!("{whole} of {} sources", whole + done.failed.len());
        self.lines.push(("Backed up".into(), Verdict::of(done.is_good()), text));
        self.backed_up = Some(done);
    }

    async fn verify(&mut self, crew: &Crew) {
        let Some(done) = &self.backed_up else { return };
        let mut level = VerifyLevel::Content;
        let verified = match crew.verify(Some(&done.snapshots), level).await {
            // The owner's key is not on the shop's host, and that is right.
            Err(e) if e.kind() == ErrorKind::KeyMissing => {
                level = VerifyLevel::Stored;
                crew.verify(Some(&done.snapshots), level).await
            }
            verified => verified,
        };
        let verified = match verified {
            Ok(verified) => verified,
            Err(e) => return self.failed("Verified", &e),
        };
        let sound = verified.iter().all(|(_, r)| r.as_ref().is_ok_and(VerifyReport::is_sound)) && !verified.is_empty();
        self.report.section("Verified", Verdict::of(sound));
        for (store, report) in &verified {
            match report {
                Ok(r) => {
                    let what = match level {
                        VerifyLevel::Content => {
                            "is there, has its hash, could be decrypted and holds what was read from the shop"
                        }
                        _ => "is there and has its hash",
                    };
                    self.report.text(&format!(
                        "{store}: {} snapshots: every one of {} objects ({}) {what}. It took {}.",
                        r.snapshots.len(),
                        count(r.objects),
                        size(r.bytes),
                        duration(Duration::from_millis(r.milliseconds))
                    ));
                    for f in &r.findings {
                        self.report.text(&format!("{:?}: {}: {}", f.kind, f.object, f.reason));
                    }
                }
                Err(e) => self.report.text(&format!("{store}: NOT verified: {e}")),
            }
        }
        let text = format!(
            "{} stores, {} findings",
            verified.len(),
            verified.iter().filter_map(|(_, r)| r.as_ref().ok()).map(|r| r.findings.len()).sum::<usize>()
        );
        self.lines.push(("Verified".into(), Verdict::of(sound), text));
        self.verified = verified;
    }

    async fn drill(&mut self, crew: &Crew) {
        if !crew.backup.source.iter().any(|s| s.scratch.is_some()) {
            // Elsewhere, where the owner's key is: then the log of the repository knows of it.
            let newest = match crew.drilled().await {
                Ok(newest) => newest,
                Err(e) => return self.failed("Restored", &e),
            };
            let (verdict, text) = match newest {
                Some(at) if Utc::now() - at <= TimeDelta::days(35) => {
                    (Verdict::Good, format!("not tonight; last on {}", at.date_naive()))
                }
                Some(at) => {
                    (Verdict::Open, format!("last on {}: run `backup drill` where the owner's key is", at.date_naive()))
                }
                None => (
                    Verdict::Open,
                    "never: run `backup drill` where the owner's key is, or name a scratch place".to_owned(),
                ),
            };
            return self.line("Restored", verdict, text);
        }
        let drilled = match crew.drill().await {
            Ok(drilled) => drilled,
            Err(e) => return self.failed("Restored and compared", &e),
        };
        let passed = drilled.iter().all(|(_, r)| r.as_ref().is_ok_and(DrillReport::passed));
        self.report.section("Restored and compared", Verdict::of(passed));
        let all = drilled.len();
        for (source, drill) in drilled {
            match drill {
                Ok(drill) => {
                    self.drilled_one(&source, &drill);
                    self.drilled.push((source, drill));
                }
                Err(e) => self.report.text(&format!("{source}: NOT restored: {e}")),
            }
        }
        let text = format!("{} of {all} sources", self.drilled.iter().filter(|(_, d)| d.passed()).count());
        self.lines.push(("Restored".into(), Verdict::of(passed), text));
    }

    fn drilled_one(&mut self, source: &str, drill: &DrillReport) {
        let r = &drill.restore;
        let rto = match (drill.within_rto(), drill.rto_milliseconds) {
            (Some(kept), Some(ms)) => {
                format!(" RTO {}: {}.", duration(Duration::from_millis(ms)), if kept { "kept" } else { "NOT kept" })
            }
            _ => String::new(),
        };
        self.report.text(&format!(
            "{source}: restored to a scratch place in {}, read again in {}, and removed.{rto}",
            duration(Duration::from_millis(r.milliseconds)),
            duration(Duration::from_millis(r.compare_milliseconds)),
        ));
        let parts: Vec<Vec<String>> = r
            .compared
            .iter()
            .map(|c| {
                let word = if c.is_equal() { "equal" } else { "DIFFERENT" };
                vec![c.entry.clone(), count(c.expected.rows()), c.expected.to_string(), word.into()]
            })
            .collect();
        self.report.table(&["part", "rows", "fingerprint", "restored"], &parts);
        if !drill.invariants.is_empty() {
            let rules: Vec<Vec<String>> = drill
                .invariants
                .iter()
                .map(|i| vec![i.name.clone(), if i.holds() { "holds".into() } else { format!("{:?}", i.outcome) }])
                .collect();
            self.report.table(&["rule of the shop", "in the restored database"], &rules);
        }
    }

    async fn promises(&mut self, crew: &Crew, now: DateTime<Utc>) {
        match crew.objectives(now).await {
            Ok(all) => {
                let kept = all.iter().all(ObjectiveStatus::is_good) && !all.is_empty();
                self.report.section("What was promised", Verdict::of(kept));
                let row = |o: &ObjectiveStatus| {
                    let rto = o.rto.as_ref().map(|j| j.reason.clone()).unwrap_or_default();
                    vec![o.objective.to_string(), o.rpo.reason.clone(), rto]
                };
                self.report.table(
                    &["source", "how much may be lost (RPO)", "how long it may take (RTO)"],
                    &all.iter().map(row).collect::<Vec<_>>(),
                );
                let text = format!("{} of {} kept", all.iter().filter(|o| o.is_good()).count(), all.len());
                self.lines.push(("Promises".into(), Verdict::of(kept), text));
            }
            Err(e) => self.failed("What was promised", &e),
        }
    }

    async fn maintain(&mut self, crew: &Crew) {
        let stop = Stop::default();
        let jobs = async {
            let mut reports = crew.clean_up(None, &stop).await?;
            reports.extend(crew.mend_orphans(None, &stop).await?);
            Ok::<_, db_maint::Error>(reports)
        };
        match jobs.await {
            Ok(reports) if reports.is_empty() => {
                self.report.text("Cleaned up: nothing, for there is no policy with rules of retention.");
            }
            Ok(reports) => {
                let good = reports.iter().all(|r| r.poison.is_empty() && r.unchanged == 0);
                self.report.section("Cleaned up", Verdict::of(good));
                let headings = ["rule", "table", "rows met", "changed", "what is done", "ended"];
                self.report.table(&headings, &reports.iter().map(job_row).collect::<Vec<_>>());
                let (met, changed) = reports.iter().fold((0, 0), |(m, c), r| (m + r.met, c + r.changed));
                let text = match crew.maintenance.clean_up {
                    true => format!("{} rows of {} that were due", count(changed), count(met)),
                    false => format!(
                        "{} rows are due; clean_up in [maintenance] is not set, so they were counted",
                        count(met)
                    ),
                };
                self.report.text(&text);
                self.lines.push(("Cleaned up".into(), Verdict::of(good), text));
            }
            Err(e) => self.failed("Cleaned up", &e),
        }
    }

    async fn inspect(&mut self, crew: &Crew) {
        let inspection = match crew.inspect().await {
            Ok(inspection) => inspection,
            Err(e) => return self.failed("Database inspected", &e),
        };
        let allow = |check: &str| crew.maintenance.allow.iter().any(|a| a == check);
        let verdict = judge(&inspection, allow);
        self.report.section("Database inspected", verdict);
        let rows: Vec<Vec<String>> = inspection
            .findings()
            .map(|f| {
                let remedy = f.remedy.clone().unwrap_or_default();
                vec![format!("{:?}", f.severity).to_lowercase(), f.object.clone(), f.summary.clone(), remedy]
            })
            .collect();
        let found = rows.len();
        if found > 0 {
            self.report.table(&["how grave", "what", "why", "what would mend it"], &rows);
        }
        let unknown: Vec<String> =
            inspection.unknown().map(|(check, why)| format!("{check}: not known: {why}")).collect();
        unknown.iter().for_each(|text| self.report.text(text));
        let text = format!("{} checks: {found} findings, {} not known", inspection.checks.len(), unknown.len());
        self.report.text(&text);
        self.lines.push(("Inspected".into(), verdict, text));
    }

    async fn look(&mut self, crew: &Crew) {
        if crew.file().is_ok_and(|file| !file.has_probes()) {
            return self.line("Probes", Verdict::Unknown, "nothing: there is no [[probe.…]] in the configuration");
        }
        let looks = match crew.look().await {
            Ok(looks) => looks,
            Err(e) => return self.failed("Probes", &e),
        };
        let of = |health: Health| looks.iter().filter(|l| l.judgement.verdict == health).count();
        let (critical, healthy) = (of(Health::Critical), of(Health::Healthy));
        let verdict = match () {
            () if critical > 0 => Verdict::Bad,
            () if healthy == looks.len() => Verdict::Good,
            () => Verdict::Open,
        };
        self.report.section("Probes", verdict);
        let row = |l: &health_probe::Look| {
            vec![l.judgement.verdict.word().to_owned(), l.title.clone(), l.judgement.reason().to_string()]
        };
        self.report.table(&["verdict", "what", "why"], &looks.iter().map(row).collect::<Vec<_>>());
        let text = format!("{healthy} of {} healthy", looks.len());
        self.lines.push(("Probes".into(), verdict, text));
    }

    async fn audit(&mut self, crew: &Crew, out: &Path, now: DateTime<Utc>) {
        let report = match crew.audit(now).await {
            Ok(report) => report,
            Err(e) => return self.failed("Checklist", &e),
        };
        let worse = |c: &&checklist::report::Change| c.before.is_good() && !c.now.is_good();
        // What nobody could see is the checklist's own matter, and in its report: a night tells what fails, and what became worse.
        let fails = report.audit.items.iter().filter(|i| i.outcome == checklist::Outcome::Fail).count();
        let seen = report.audit.score.is_some_and(|s| s.coverage() > 0.0);
        let verdict = match fails > 0 || !seen || report.changes.iter().any(|c| worse(&c)) {
            true => Verdict::Open,
            false => Verdict::Good,
        };
        let score = report.audit.score.map_or("nothing concerns this shop".to_owned(), |s| {
            format!("{} of {} items fulfilled, {fails} fail, {:.0} % known", s.good, s.asked, s.coverage() * 100.0)
        });
        self.report.section("Checklist", verdict);
        self.report.text(&score);
        for c in report.changes.iter().filter(worse) {
            self.report.text(&format!("{}: {} → {}", c.title, c.before.word(), c.now.word()));
        }
        let file = out.join("checklist.html");
        match report.render(Format::Html).map(|html| std::fs::write(&file, html)) {
            Ok(Ok(())) => self.report.link("checklist.html", "the whole checklist"),
            Ok(Err(e)) => complain(&format!("{}: cannot be written: {e}", file.display())),
            Err(e) => complain(&e.to_string()),
        }
        self.lines.push(("Checklist".into(), verdict, score));
    }

    /// Where everything is, and how to get it back.
    pub fn way_back(&mut self, crew: &Crew, command: &str) {
        self.report.section("Where it is, and how to get it back", Verdict::Good);
        let keys: PathBuf = crew.backup.keys.clone().unwrap_or_default();
        let key = |name: &str| keys.join(name).display().to_string();
        let mut rows: Vec<Vec<String>> =
            crew.backup.stores.iter().map(|s| vec!["the backups".to_owned(), s.clone()]).collect();
        if crew.backup.keys.is_some() {
            rows.extend([
                vec!["reads them; keep it offline, in two places".into(), key("owner-identity.txt")],
                vec!["writes them; stays on the shop's host, cannot read them".into(), key("writer.key")],
                vec!["signs removals; keep it off the host".into(), key("admin.key")],
                vec!["tells this repository from any other; beside every copy of the keys".into(), key("trust.json")],
            ]);
        }
        rows.push(vec!["how to restore without this program".into(), "RESTORE.md in each store".into()]);
        self.report.table(&["what", "where"], &rows);
        self.report.commands(command);
    }
}

fn backup_row((run, s): (&str, &Snapshot)) -> Vec<String> {
    let t = &s.manifest.totals;
    vec![
        s.manifest.source.name.clone(),
        run.into(),
        s.id.to_string(),
        size(t.bytes),
        count(t.rows),
        size(t.added),
        duration(took(s)),
        rate(t.read, took(s)),
    ]
}

fn job_row(r: &JobReport) -> Vec<String> {
    vec![r.rule.clone(), r.table.to_string(), count(r.met), count(r.changed), r.action.clone(), r.ended.to_string()]
}

/// How long a snapshot took.
pub fn took(s: &Snapshot) -> Duration {
    (s.manifest.finished_at - s.manifest.started_at).to_std().unwrap_or(Duration::ZERO)
}

/// Critical findings are bad; others, and what nobody could see, are open.
fn judge(inspection: &Inspection, allow: impl Fn(&str) -> bool) -> Verdict {
    let grave = inspection.findings().filter(|f| !allow(&f.check)).map(|f| f.severity).max();
    let blind = inspection.unknown().any(|(check, _)| !allow(check));
    match grave {
        Some(Severity::Critical) => Verdict::Bad,
        Some(Severity::Warning) => Verdict::Open,
        _ if blind => Verdict::Open,
        _ => Verdict::Good,
    }
}
