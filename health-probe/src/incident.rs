//! From verdicts to incidents: confirmed states, dependencies, one root cause for each. Pure; time is an argument.

mod dependencies;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub use dependencies::Dependencies;
pub use record::{IncidentRecord, Member, Message, MessageKind};

use crate::adapt::{Change, Debounce};
use crate::judge::{Judgement, Verdict};
use crate::statistics::Flapping;

/// When incidents are told of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IncidentOptions {
    /// Looks that confirm that something is down.
    pub down: u32,
    /// Looks that confirm that it is up again.
    pub up: u32,
    /// Minutes between reminders.
    pub remind_minutes: u32,
    /// Seconds for which an alert waits at most until what its probe depends on was looked at again.
    pub hold_seconds: u32,
}

impl Default for IncidentOptions {
    /// Two looks down, two up, a reminder every four hours, three minutes of waiting.
    fn default() -> Self {
        Self { down: 2, up: 2, remind_minutes: 240, hold_seconds: 180 }
    }
}

/// The confirmed state of all probes, and the incidents that come of them.
#[derive(Debug)]
pub struct Incidents {
    dependencies: Dependencies,
    options: IncidentOptions,
    states: BTreeMap<String, State>,
    open: Vec<IncidentRecord>,
    closed: Vec<IncidentRecord>,
}

#[derive(Debug)]
struct State {
    title: String,
    debounce: Debounce,
    flapping: Flapping,
    last: Option<DateTime<Utc>>,
    since: DateTime<Utc>,
    reason: String,
    /// When the first of the bad looks was that no healthy one has followed.
    failing: Option<DateTime<Utc>>,
    /// When it began to go up and down, and when it ended to.
    flapped: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
}

impl State {
    fn confirmed(&self) -> Verdict {
        self.debounce.confirmed().unwrap_or(Verdict::Healthy)
    }

    /// What fails every other time never fails twice in a row: it goes up and down, and that is worth a look.
    fn shown(&self) -> Verdict {
        match self.confirmed() {
            Verdict::Healthy if self.flapping.flaps() => Verdict::Warning,
            confirmed => confirmed,
        }
    }

    /// Since when it is what it is shown as.
    fn shown_since(&self) -> DateTime<Utc> {
        match (self.confirmed(), self.flapping.flaps(), self.flapped) {
            (Verdict::Healthy, true, (Some(since), _)) => since,
            (Verdict::Healthy, false, (_, Some(until))) => self.since.max(until),
            _ => self.since,
        }
    }

    fn bad(&self) -> bool {
        !self.shown().is_healthy()
    }

    /// Whether the last look was a bad one and that is not confirmed.
    fn unconfirmed(&self) -> bool {
        self.debounce.suspect() && !self.bad()
    }
}

impl Incidents {
    /// No incident yet. `open` are those that an earlier process left.
    pub fn new(dependencies: Dependencies, options: IncidentOptions, open: Vec<IncidentRecord>) -> Self {
        Self { dependencies, options, states: BTreeMap::new(), open, closed: Vec::new() }
    }

    /// Takes the outcome of a look that began at `at`; says what it confirms.
    pub fn observe(&mut self, probe: &str, title: &str, at: DateTime<Utc>, judgement: &Judgement) -> Option<Change> {
        let known = self.open.iter().flat_map(|i| &i.members).find(|m| m.probe == probe && !m.verdict.is_healthy());
        let options = self.options;
        let state = self.states.entry(probe.to_owned()).or_insert_with(|| {
            let mut debounce = Debounce::new(options.down, options.up);
            // What an earlier process had confirmed is confirmed.
            if let Some(member) = known {
                for _ in 0..options.down {
                    debounce.step(member.since, member.verdict);
                }
            }
            State {
                title: title.to_owned(),
                debounce,
                flapping: Flapping::default(),
                last: None,
                since: known.map_or(at, |m| m.since),
                reason: known.map(|m| m.reason.clone()).unwrap_or_default(),
                failing: None,
                flapped: (None, None),
            }
        });
        state.last = Some(at);
        // Nobody bought and nobody paid: that is neither good nor bad, and changes nothing.
        if judgement.is_idle() {
            return None;
        }
        state.failing = match judgement.verdict.is_healthy() {
            true => None,
            false => state.failing.or(Some(at)),
        };
        match (state.flapping.flaps(), state.flapping.step(u8::from(!judgement.verdict.is_healthy()))) {
            (false, true) => state.flapped = (Some(at), None),
            (true, false) => state.flapped.1 = Some(at),
            _ => {}
        }
        if !judgement.verdict.is_healthy() {
            state.reason = crate::redact::short(&judgement.reason());
        }
        let change = state.debounce.step(at, judgement.verdict);
        if let Some(change) = change {
            state.since = change.since;
        }
        change
    }

    /// The confirmed state of a probe, and since when.
    pub fn state(&self, probe: &str) -> Option<(Verdict, DateTime<Utc>, bool)> {
        let state = self.states.get(probe)?;
        state.debounce.confirmed().map(|_| (state.shown(), state.shown_since(), state.flapping.flaps()))
    }

    /// What a failing look at a probe asks of others: what it depends on and was not looked at since, or looks bad and is not
    /// confirmed; and itself, where it is not confirmed. A look at each of them soon tells the cause from its consequences before
    /// anybody is told, and what is looked at once a day needs no second day; afterwards nothing is asked.
    pub fn worth_a_look(&self, probe: &str, at: DateTime<Utc>) -> Vec<&str> {
        let Some(state) = self.states.get(probe) else { return Vec::new() };
        // For as long as an alert may wait for it, and no longer: under maintenance it may fail for hours.
        let hold = TimeDelta::seconds(self.options.hold_seconds.into());
        if state.failing.is_none_or(|since| at >= since + hold) {
            return Vec::new();
        }
        if self.open.iter().flat_map(|i| &i.members).any(|m| m.probe == probe && !m.verdict.is_healthy()) {
            return Vec::new();
        }
        let open = |on: &&str| {
            self.states.get(*on).is_none_or(|s| s.unconfirmed() || (!s.bad() && s.last.is_none_or(|last| last < at)))
        };
        let mut others: Vec<&str> = self.dependencies.of(probe).filter(open).collect();
        if state.unconfirmed()
            && let Some((own, _)) = self.dependencies.all.get_key_value(probe)
        {
            others.push(own);
        }
        others
    }

    /// What depends on a probe, service levels left out: where it fails, a look at each of them now tells what fails by it.
    pub fn dependents_of(&self, probe: &str) -> Vec<&str> {
        let depends = |(other, on): &(&String, &BTreeSet<String>)| on.contains(probe) && !other.starts_with("slo:");
        self.dependencies.all.iter().filter(depends).map(|(other, _)| other.as_str()).collect()
    }

    /// The incidents that go on.
    pub fn open(&self) -> &[IncidentRecord] {
        &self.open
    }

    /// What is to be told at `now`. A message is due until [`Incidents::told`] says that it was delivered. What is under
    /// maintenance opens no incident.
    pub fn due(&mut self, now: DateTime<Utc>, under_maintenance: impl Fn(&str) -> bool) -> Vec<Message> {
        self.refresh(now);
        self.join_and_open(now, under_maintenance);
        let mut due = Vec::new();
        let remind = TimeDelta::minutes(self.options.remind_minutes.max(1).into());
        for incident in &mut self.open {
            let over = incident.members.iter().all(|m| m.verdict.is_healthy()) && !incident.flapping;
            if over && incident.resolved.is_none() {
                incident.resolved = Some(incident.members.iter().map(|m| m.since).max().unwrap_or(now));
            }
            let last = incident.told.last().copied();
            let kind = match (incident.resolved, last) {
                (Some(_), None) => MessageKind::Missed,
                (Some(_), Some(_)) => MessageKind::Resolved,
                (None, None) => MessageKind::Alert,
                (None, Some(_)) if incident.changed() => MessageKind::Update,
                (None, Some((at, _))) if now - at >= remind => MessageKind::Reminder,
                (None, Some(_)) => continue,
            };
            let mut told = incident.clone();
            // "Still" is of what is, not of what was.
            let worst = told.members.iter().map(|m| m.verdict).filter(|v| !v.is_healthy()).max_by_key(|v| v.rank());
            if let (MessageKind::Reminder, Some(worst)) = (kind, worst) {
                told.severity = worst;
            }
            due.push(Message { kind, at: now, incident: told, token: None });
        }
        due
    }

    /// Says that a message was delivered.
    pub fn told(&mut self, message: &Message, now: DateTime<Utc>) {
        let Some(at) = self.open.iter().position(|i| i.id == message.incident.id) else { return };
        let incident = &mut self.open[at];
        incident.told.push((now, message.kind));
        // A reminder of something milder by now does not make the worst that was told of news again.
        let before = incident.told_of.as_ref().map(|(_, severity)| *severity);
        let severity = match (message.kind, before) {
            (MessageKind::Reminder, Some(before)) => before.worse(message.incident.severity),
            _ => message.incident.severity,
        };
        incident.told_of = Some((message.incident.root.clone(), severity));
        if matches!(message.kind, MessageKind::Resolved | MessageKind::Missed) {
            let closed = self.open.remove(at);
            self.closed.push(closed);
        }
    }

    /// Takes back closed incidents that could not be written down.
    pub fn give_back(&mut self, closed: Vec<IncidentRecord>) {
        self.closed.extend(closed);
    }

    /// The incidents that were closed since the last call.
    pub fn take_closed(&mut self) -> Vec<IncidentRecord> {
        std::mem::take(&mut self.closed)
    }

    /// Brings the members of the open incidents up to date.
    fn refresh(&mut self, now: DateTime<Utc>) {
        let hold = TimeDelta::seconds(self.options.hold_seconds.into());
        for incident in self.open.iter_mut().filter(|i| i.part_of.is_none()) {
            // What was well again and fails anew is another failure: it joins again, or has an incident of its own.
            if incident.was_told() {
                let root = incident.root.clone();
                let states = &self.states;
                let anew = |m: &Member| m.verdict.is_healthy() && states.get(&m.probe).is_some_and(State::bad);
                incident.members.retain(|m| m.probe == root || !anew(m));
            }
            for member in &mut incident.members {
                // What an earlier process looked at and nobody looks at any more is not waited for.
                if !self.dependencies.all.contains_key(&member.probe) && !member.verdict.is_healthy() {
                    (member.verdict, member.since) = (Verdict::Healthy, now);
                    member.reason = format!("{} (nobody looks at it any more)", member.reason);
                }
                let Some(state) = self.states.get(&member.probe) else { continue };
                if state.debounce.confirmed().is_some() {
                    (member.verdict, member.since) = (state.shown(), state.shown_since());
                    if let Some((_, worst)) = &mut member.failed {
                        *worst = worst.worse(member.verdict);
                    }
                }
                if state.bad() {
                    member.reason.clone_from(&state.reason);
                }
            }
            let flaps = |m: &Member| self.states.get(&m.probe).is_some_and(|s| s.flapping.flaps());
            incident.flapping = incident.members.iter().any(flaps);
            let bad = || incident.members.iter().filter(|m| !m.verdict.is_healthy());
            if let Some(worst) = bad().map(|m| m.verdict).max_by_key(|v| v.rank()) {
                incident.severity = incident.severity.worse(worst);
                incident.resolved = None;
            }
            // The cause is over, and the rest is not: it has another one.
            let over = incident.root_member().is_some_and(|m| m.verdict.is_healthy() && m.since + hold <= now);
            if over {
                let names: BTreeSet<&str> = bad().map(|m| m.probe.as_str()).collect();
                let first = bad().find(|m| !self.dependencies.of(&m.probe).any(|d| names.contains(d)));
                if let Some(first) = first.map(|m| m.probe.clone()) {
                    incident.root = first;
                }
            }
        }
    }

    /// What is bad and belongs to no incident joins one, or opens one.
    fn join_and_open(&mut self, now: DateTime<Utc>, under_maintenance: impl Fn(&str) -> bool) {
        let taken: BTreeSet<String> = self.open.iter().flat_map(|i| &i.members).map(|m| m.probe.clone()).collect();
        let bad: BTreeSet<&str> =
            self.states.iter().filter(|(_, state)| state.bad()).map(|(probe, _)| probe.as_str()).collect();
        let free = bad.iter().copied().filter(|p| !taken.contains(*p) && !under_maintenance(p));
        let mut free: Vec<&str> = free.collect();
        let mut parts = Vec::new();
        // Causes first, so that what depends on them finds their incident.
        free.sort_by_key(|p| (self.dependencies.of(p).filter(|d| bad.contains(d)).count(), *p));
        for probe in free {
            let member = self.member(probe, now);
            // A disk that is worth a look is no cause of a shop that is down.
            let dependents = |i: &IncidentRecord| {
                self.dependencies.of(&i.root).any(|d| d == probe) && member.verdict.rank() >= i.severity.rank()
            };
            let explained: Vec<usize> = self
                .open
                .iter()
                .enumerate()
                // A service level tells of what was before.
                .filter(|(_, i)| {
                    i.part_of.is_none() && i.resolved.is_none() && !i.root.starts_with("slo:") && dependents(i)
                })
                .map(|(at, _)| at)
                .collect();
            if let Some((&first, others)) = explained.split_first() {
                let others: Vec<_> = others.iter().rev().map(|at| self.open.remove(*at)).collect();
                let incident = &mut self.open[first];
                probe.clone_into(&mut incident.root);
                incident.severity = incident.severity.worse(member.verdict);
                incident.opened = incident.opened.min(member.since);
                incident.members.insert(0, member);
                // Several incidents of one cause are one from now on.
                for mut other in others {
                    incident.severity = incident.severity.worse(other.severity);
                    incident.opened = incident.opened.min(other.opened);
                    incident.members.extend(other.members.iter().cloned());
                    (other.part_of, other.resolved) = (Some(incident.id.clone()), Some(now));
                    other.members.retain(|m| m.probe == other.root);
                    match other.was_told() {
                        true => parts.push(other),
                        false => self.closed.push(other),
                    }
                }
                continue;
            }
            // What is worse than its cause is more than its consequence. What is being worked on explains anything.
            let explains = |on: &&str| {
                let cause = self.states.get(*on).map_or(0, |s| s.shown().rank());
                bad.contains(on) && (cause >= member.verdict.rank() || under_maintenance(on))
            };
            let causes: Vec<&str> = self.dependencies.of(probe).filter(explains).collect();
            // A service level lasts longer than what it suffers from: it waits, and is an incident of its own.
            if !causes.is_empty() && (probe.starts_with("slo:") || causes.iter().any(|c| under_maintenance(c))) {
                continue;
            }
            if !causes.is_empty() {
                let joined = self
                    .open
                    .iter_mut()
                    .find(|i| i.part_of.is_none() && i.members.iter().any(|m| causes.contains(&m.probe.as_str())));
                // Where the cause waits to be confirmed by what it depends on in turn, so does this.
                if let Some(incident) = joined {
                    incident.severity = incident.severity.worse(member.verdict);
                    incident.members.push(member);
                }
                continue;
            }
            if self.undecided(probe, member.since, now) {
                continue;
            }
            let mut incident =
                IncidentRecord::empty(&format!("{} {probe}", member.since.format("%FT%TZ")), member.since);
            probe.clone_into(&mut incident.root);
            incident.severity = member.verdict;
            incident.members.push(member);
            self.open.push(incident);
        }
        self.open.extend(parts);
    }

    /// Whether something that the probe depends on was not looked at since it fails, or looks bad and is not confirmed.
    fn undecided(&self, probe: &str, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let hold = TimeDelta::seconds(self.options.hold_seconds.into());
        now < since + hold
            && self.dependencies.of(probe).any(|on| {
                self.states.get(on).is_none_or(|s| s.debounce.suspect() || s.last.is_none_or(|last| last < since))
            })
    }

    fn member(&self, probe: &str, now: DateTime<Utc>) -> Member {
        let state = &self.states[probe];
        Member {
            probe: probe.to_owned(),
            title: state.title.clone(),
            verdict: state.shown(),
            since: state.shown_since(),
            reason: state.reason.clone(),
            joined: Some(now),
            failed: Some((state.shown_since(), state.shown())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    fn judgement(verdict: Verdict) -> Judgement {
        let mut judgement = Judgement::unknown(format!("it is {}", verdict.word()));
        judgement.verdict = verdict;
        judgement.findings[0].verdict = verdict;
        judgement
    }

    fn shop() -> Incidents {
        let on = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (none, database, app) = (on(&[]), on(&["database"]), on(&["app"]));
        let graph = [
            ("database", none.as_slice()),
            ("app", database.as_slice()),
            ("pages", app.as_slice()),
            ("orders", database.as_slice()),
            ("payments", database.as_slice()),
            ("mail", none.as_slice()),
        ];
        let options = IncidentOptions { remind_minutes: 60, ..IncidentOptions::default() };
        Incidents::new(Dependencies::new(graph).unwrap(), options, Vec::new())
    }

    /// Every probe each minute, in an order that puts causes last; messages are delivered where `delivers`.
    fn run(
        incidents: &mut Incidents,
        minutes: std::ops::Range<i64>,
        down: impl Fn(&str, i64) -> Verdict,
        delivers: bool,
    ) -> Vec<(i64, MessageKind, String, Vec<String>)> {
        let mut said = Vec::new();
        for minute in minutes {
            for probe in ["pages", "payments", "orders", "mail", "app", "database"] {
                incidents.observe(probe, probe, at(minute), &judgement(down(probe, minute)));
                for message in incidents.due(at(minute), |_| false) {
                    if delivers {
                        incidents.told(&message, at(minute));
                    }
                    let rest: Vec<String> = message.incident.members.iter().map(|m| m.probe.clone()).collect();
                    said.push((minute, message.kind, message.incident.root.clone(), rest));
                }
            }
        }
        said
    }

    #[test]
    fn an_outage_of_the_database_is_one_alert_one_reminder_one_resolution() {
        let mut incidents = shop();
        let down = |probe: &str, m: i64| match probe {
            "mail" => Verdict::Healthy,
            _ if (10..100).contains(&m) => Verdict::Critical,
            _ => Verdict::Healthy,
        };
        let said = run(&mut incidents, 0..200, down, true);
        let kinds: Vec<_> = said.iter().map(|(_, kind, root, _)| (*kind, root.as_str())).collect();
        assert_eq!(
            kinds,
            [
                (MessageKind::Alert, "database"),
                (MessageKind::Reminder, "database"),
                (MessageKind::Resolved, "database")
            ]
        );
        assert!(said[0].0 <= 12, "{said:?}");
        let mut named = said[0].3.clone();
        named.sort();
        assert_eq!(named, ["app", "database", "orders", "pages", "payments"]);
        assert!(incidents.open().is_empty());
        assert_eq!(incidents.take_closed().len(), 1);
    }

    #[test]
    fn two_causes_are_two_incidents_and_a_cause_that_shows_late_takes_over() {
        let mut incidents = shop();
        let down = |probe: &str, m: i64| match probe {
            "mail" if m >= 5 => Verdict::Warning,
            // The app fails at once; the database only looks bad later.
            "app" | "pages" if m >= 5 => Verdict::Critical,
            "database" if m >= 8 => Verdict::Critical,
            _ => Verdict::Healthy,
        };
        let said = run(&mut incidents, 0..20, down, true);
        let kinds: Vec<_> = said.iter().map(|(_, kind, root, _)| (*kind, root.as_str())).collect();
        assert!(kinds.contains(&(MessageKind::Alert, "mail")) && kinds.contains(&(MessageKind::Alert, "app")));
        assert!(kinds.contains(&(MessageKind::Update, "database")), "{kinds:?}");
        assert_eq!(kinds.len(), 3, "{kinds:?}");
    }

    #[test]
    fn several_incidents_of_a_cause_that_shows_late_become_one() {
        let mut incidents = shop();
        let down = |probe: &str, m: i64| match probe {
            // They are told apart, for the database still answers whoever asks it.
            "orders" | "payments" if (5..60).contains(&m) => Verdict::Critical,
            "database" if (10..60).contains(&m) => Verdict::Critical,
            _ => Verdict::Healthy,
        };
        let said = run(&mut incidents, 0..80, down, true);
        let kinds: Vec<_> = said.iter().map(|s| (s.1, s.2.as_str(), s.3.len())).collect();
        use MessageKind::{Alert, Resolved, Update};
        assert_eq!(
            kinds,
            [
                (Alert, "payments", 1),
                (Alert, "orders", 1),
                (Update, "database", 3),
                (Resolved, "orders", 1),
                (Resolved, "database", 3)
            ],
            "{said:?}"
        );
        let closed = incidents.take_closed();
        assert_eq!(closed.iter().filter(|i| i.part_of.is_some()).count(), 1);
        assert!(closed.iter().all(IncidentRecord::is_closed) && incidents.open().is_empty());
    }

    #[test]
    fn what_was_not_delivered_is_due_again_and_what_nobody_could_be_told_is_told_late() {
        let mut incidents = shop();
        let down = |probe: &str, m: i64| match probe {
            "mail" if (5..10).contains(&m) => Verdict::Critical,
            _ => Verdict::Healthy,
        };
        let said = run(&mut incidents, 0..20, down, false);
        assert!(said.iter().filter(|s| s.1 == MessageKind::Alert).count() > 3, "{said:?}");
        assert_eq!(said.last().unwrap().1, MessageKind::Missed);
        assert_eq!(incidents.open().len(), 1, "kept until somebody was told");
    }

    #[test]
    fn maintenance_opens_nothing_and_another_process_goes_on() {
        let mut incidents = shop();
        for minute in 0..5 {
            incidents.observe("mail", "mail", at(minute), &judgement(Verdict::Critical));
            assert!(incidents.due(at(minute), |_| true).is_empty());
        }
        let due = incidents.due(at(5), |_| false);
        assert_eq!(due[0].kind, MessageKind::Alert);
        incidents.told(&due[0], at(5));
        // A restart: the same incident, nothing told twice.
        let kept: Vec<IncidentRecord> =
            serde_json::from_str(&serde_json::to_string(incidents.open()).unwrap()).unwrap();
        let mut again = Incidents::new(incidents.dependencies.clone(), incidents.options, kept);
        assert!(again.due(at(6), |_| false).is_empty());
        again.observe("mail", "mail", at(6), &judgement(Verdict::Critical));
        assert!(again.due(at(6), |_| false).is_empty());
        for minute in 7..9 {
            again.observe("mail", "mail", at(minute), &judgement(Verdict::Healthy));
        }
        assert_eq!(again.due(at(9), |_| false)[0].kind, MessageKind::Resolved);
    }

    #[test]
    fn what_fails_again_within_another_incident_is_told_anew() {
        let mut incidents = shop();
        // The database is worth a look for hours; the app breaks twice meanwhile.
        let down = |probe: &str, m: i64| match probe {
            "database" => Verdict::Warning,
            "app" if (10..15).contains(&m) || (30..35).contains(&m) => Verdict::Critical,
            _ => Verdict::Healthy,
        };
        let said = run(&mut incidents, 0..45, down, true);
        let app: Vec<_> = said.iter().filter(|s| s.2 == "app").map(|s| s.1).collect();
        use MessageKind::{Alert, Resolved};
        assert_eq!(app, [Alert, Resolved, Alert, Resolved], "{said:?}");
    }

    #[test]
    fn what_is_milder_takes_nothing_over() {
        let mut incidents = shop();
        let down = |probe: &str, m: i64| match probe {
            "app" if m >= 5 => Verdict::Critical,
            "database" if m >= 10 => Verdict::Warning,
            _ => Verdict::Healthy,
        };
        let said = run(&mut incidents, 0..20, down, true);
        let kinds: Vec<_> = said.iter().map(|s| (s.1, s.2.as_str())).collect();
        assert_eq!(kinds, [(MessageKind::Alert, "app"), (MessageKind::Alert, "database")]);
    }

    #[test]
    fn what_fails_every_other_time_is_told_of() {
        let mut incidents = shop();
        let down = |probe: &str, m: i64| match probe {
            "mail" if m % 2 == 0 => Verdict::Critical,
            _ => Verdict::Healthy,
        };
        let said = run(&mut incidents, 0..40, down, true);
        assert_eq!(said.iter().map(|s| (s.1, s.2.as_str())).collect::<Vec<_>>(), [(MessageKind::Alert, "mail")]);
    }

    #[test]
    fn each_time_of_going_up_and_down_is_an_incident_with_times_of_its_own() {
        let mut incidents = shop();
        let flaps = |m: i64| (1000..1060).contains(&m) || (2000..2060).contains(&m);
        let down = |probe: &str, m: i64| match probe {
            "mail" if flaps(m) && m % 2 == 0 => Verdict::Critical,
            _ => Verdict::Healthy,
        };
        run(&mut incidents, 0..2200, down, true);
        let closed = incidents.take_closed();
        assert_eq!(closed.len(), 2, "{closed:?}");
        for (incident, began) in closed.iter().zip([1000, 2000]) {
            let (opened, resolved) = (incident.opened, incident.resolved.unwrap());
            assert!((at(began)..at(began + 30)).contains(&opened), "{incident:?}");
            assert!((at(began + 59)..at(began + 90)).contains(&resolved), "{incident:?}");
        }
        assert_ne!(closed[0].id, closed[1].id);
    }

    #[test]
    fn a_reminder_says_how_bad_it_is_by_now() {
        let mut incidents = shop();
        let down = |probe: &str, m: i64| match (probe, m) {
            ("mail", 5..30) => Verdict::Critical,
            ("mail", 30..) => Verdict::Warning,
            _ => Verdict::Healthy,
        };
        let mut said = Vec::new();
        for minute in 0..200 {
            incidents.observe("mail", "mail", at(minute), &judgement(down("mail", minute)));
            for message in incidents.due(at(minute), |_| false) {
                incidents.told(&message, at(minute));
                said.push((message.kind, message.incident.severity));
            }
        }
        use Verdict::{Critical, Warning};
        assert_eq!(said[0], (MessageKind::Alert, Critical));
        assert!(said.len() >= 3 && said[1..].iter().all(|s| *s == (MessageKind::Reminder, Warning)), "{said:?}");
    }

    #[test]
    fn while_a_cause_is_worked_on_nothing_is_told_of_what_depends_on_it() {
        let mut incidents = shop();
        for minute in 0..20 {
            for probe in ["database", "app", "orders"] {
                incidents.observe(probe, probe, at(minute), &judgement(Verdict::Critical));
                assert!(incidents.due(at(minute), |p| p == "database").is_empty(), "{minute}");
            }
        }
    }

    #[test]
    fn a_quiet_night_changes_nothing() {
        let mut incidents = shop();
        let idle = crate::judge::judge(&crate::Observation::new(at(0)), &crate::Policy::new());
        assert!(!idle.is_idle(), "without a rule nothing is known");
        let mut seen = crate::Observation::new(at(0));
        seen.number("failed", 0.0, crate::Unit::Count).number("attempts", 0.0, crate::Unit::Count);
        let rate =
            crate::FailureRate { attempts: "attempts".into(), tolerated: 0.02, significance: 0.01, streak: None };
        let policy = crate::Policy::new().with("failed", crate::Unit::Count, crate::Condition::FailureRate(rate));
        let idle = crate::judge::judge(&seen, &policy);
        assert!(idle.is_idle() && !idle.verdict.is_healthy());
        for minute in 0..10 {
            incidents.observe("payments", "payments", at(minute), &idle);
            assert!(incidents.due(at(minute), |_| false).is_empty());
        }
        assert_eq!(incidents.state("payments"), None, "and is not well either");
    }

    #[test]
    fn an_incident_of_a_probe_that_is_gone_ends() {
        let mut incidents = shop();
        let mut left = IncidentRecord::empty("gone", at(0));
        left.severity = Verdict::Critical;
        left.members = vec![Member::new("gone", "gone", "down", at(0))];
        left.told = vec![(at(0), MessageKind::Alert)];
        incidents.open = vec![left];
        assert_eq!(incidents.due(at(1), |_| false)[0].kind, MessageKind::Resolved);
    }

    #[test]
    fn dependencies_that_go_in_circles_or_nowhere_are_refused() {
        let on = |name: &str| vec![name.to_owned()];
        let (a, b) = (on("b"), on("a"));
        let e = Dependencies::new([("a", a.as_slice()), ("b", b.as_slice())]).unwrap_err();
        assert!(e.to_string().contains("depends on itself"));
        assert!(Dependencies::new([("a", a.as_slice())]).unwrap_err().to_string().contains("no probe"));
    }
}
