//! Recurring tasks: when they are due, in the shop's time zone, and what became of each time.

use chrono::{DateTime, Datelike, Days, LocalResult, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc, Weekday};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::audit::Audit;
use crate::ledger::{Entries, Record};
use crate::outcome::Outcome;

/// How often something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Recurrence {
    /// Every day.
    Daily,
    /// Every week, on that day.
    Weekly(Weekday),
    /// Every month, on that day; on the last one of a month that is shorter.
    Monthly(u32),
    /// Every three months, beginning with January, on that day of the first of them.
    Quarterly(u32),
    /// Every year, in that month, on that day.
    Yearly(u32, u32),
}

/// Something that is done again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Task {
    /// Its name.
    pub id: String,
    /// What is done.
    pub title: String,
    /// How often.
    pub every: Recurrence,
    /// At which time of day it is due.
    #[serde(default = "morning")]
    pub at: NaiveTime,
    /// Days after which it is overdue.
    #[serde(default)]
    pub grace_days: u32,
    /// Who sees to it.
    #[serde(default)]
    pub owner: String,
    /// The check that completes it, where one does: an audit in which it passed.
    #[serde(default)]
    pub by_check: Option<String>,
}

/// One time that a task was due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Occurrence {
    /// The task.
    pub task: String,
    /// When it was due.
    pub due: DateTime<Utc>,
    /// When the next one is due: until then this one can be done.
    pub until: DateTime<Utc>,
    /// What became of it.
    pub state: TaskState,
    /// When it was done, and by whom.
    pub done: Option<(DateTime<Utc>, String)>,
}

/// What became of a task at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TaskState {
    /// Done in time.
    Done,
    /// Done after its days of grace.
    DoneLate,
    /// To be done now.
    Due,
    /// To be done, and its days of grace are over.
    Overdue,
    /// Its time went by, and it was not done.
    Missed,
}

impl TaskState {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::DoneLate => "done late",
            Self::Due => "due",
            Self::Overdue => "OVERDUE",
            Self::Missed => "missed",
        }
    }
}

fn morning() -> NaiveTime {
    NaiveTime::from_hms_opt(9, 0, 0).unwrap_or(NaiveTime::MIN)
}

impl Task {
    /// A task that is due at nine in the morning, without grace.
    pub fn new(id: impl Into<String>, title: impl Into<String>, every: Recurrence) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            every,
            at: morning(),
            grace_days: 0,
            owner: String::new(),
            by_check: None,
        }
    }

    /// The same with so many days of grace.
    #[must_use]
    pub fn with_grace(mut self, days: u32) -> Self {
        self.grace_days = days;
        self
    }

    /// The same that a check completes.
    #[must_use]
    pub fn completed_by(mut self, check: impl Into<String>) -> Self {
        self.by_check = Some(check.into());
        self
    }

    /// The last time at or before `at` that it was due.
    pub fn due_before(&self, at: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
        let mut period = self.period_of(at.with_timezone(&zone).date_naive());
        // The period of the day may begin later on that day, or in another zone's tomorrow.
        loop {
            let due = self.due_in(period, zone);
            if due <= at {
                let next = self.due_in(self.after(period), zone);
                if next > at {
                    return due;
                }
                period = self.after(period);
            } else {
                period = self.before(period);
            }
        }
    }

    /// The first time after `at` that it is due.
    pub fn due_after(&self, at: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
        let due = self.due_before(at, zone);
        let period = self.period_of(due.with_timezone(&zone).date_naive());
        let mut next = self.after(period);
        // A time that does not exist on its day may have moved over midnight.
        while self.due_in(next, zone) <= at {
            next = self.after(next);
        }
        self.due_in(next, zone)
    }

    /// Each time that it was due from `from` to `now`, with what became of it. A completion counts for the time in whose period it
    /// was, once.
    pub fn occurrences(
        &self,
        done: &[(DateTime<Utc>, String)],
        from: DateTime<Utc>,
        now: DateTime<Utc>,
        zone: Tz,
    ) -> Vec<Occurrence> {
        let mut out = Vec::new();
        let mut due = self.due_before(from, zone);
        while due <= now {
            let until = self.due_after(due, zone);
            let grace = TimeDelta::try_days(i64::from(self.grace_days) + 1)
                .and_then(|days| due.checked_add_signed(days))
                .unwrap_or(DateTime::<Utc>::MAX_UTC);
            let by = done.iter().filter(|(at, _)| due <= *at && *at < until && *at <= now).min_by_key(|(at, _)| *at);
            let state = match by {
                // The day on which it is due is in time.
                Some((at, _)) if *at < grace => TaskState::Done,
                Some(_) => TaskState::DoneLate,
                None if until <= now => TaskState::Missed,
                None if now < grace => TaskState::Due,
                None => TaskState::Overdue,
            };
            out.push(Occurrence { task: self.id.clone(), due, until, state, done: by.cloned() });
            due = until;
        }
        out
    }

    /// The first day of the period in which a day is.
    fn period_of(&self, day: NaiveDate) -> NaiveDate {
        let first = |year, month| NaiveDate::from_ymd_opt(year, month, 1).unwrap_or(day);
        match self.every {
            Recurrence::Daily => day,
            Recurrence::Weekly(on) => day.week(on).first_day(),
            Recurrence::Monthly(_) => first(day.year(), day.month()),
            Recurrence::Quarterly(_) => first(day.year(), (day.month0() / 3) * 3 + 1),
            Recurrence::Yearly(..) => first(day.year(), 1),
        }
    }

    fn after(&self, period: NaiveDate) -> NaiveDate {
        match self.every {
            Recurrence::Daily => period + Days::new(1),
            Recurrence::Weekly(_) => period + Days::new(7),
            Recurrence::Monthly(_) => period + Months::new(1),
            Recurrence::Quarterly(_) => period + Months::new(3),
            Recurrence::Yearly(..) => period + Months::new(12),
        }
    }

    fn before(&self, period: NaiveDate) -> NaiveDate {
        match self.every {
            Recurrence::Daily => period - Days::new(1),
            Recurrence::Weekly(_) => period - Days::new(7),
            Recurrence::Monthly(_) => period - Months::new(1),
            Recurrence::Quarterly(_) => period - Months::new(3),
            Recurrence::Yearly(..) => period - Months::new(12),
        }
    }

    /// When it is due in a period.
    fn due_in(&self, period: NaiveDate, zone: Tz) -> DateTime<Utc> {
        let on = |first: NaiveDate, day: u32| {
            // The last day of a shorter month.
            let last = (first + Months::new(1) - Days::new(1)).day();
            first.with_day(day.clamp(1, last)).unwrap_or(first)
        };
        let day = match self.every {
            Recurrence::Daily | Recurrence::Weekly(_) => period,
            Recurrence::Monthly(day) | Recurrence::Quarterly(day) => on(period, day),
            Recurrence::Yearly(month, day) => on(period.with_month(month.clamp(1, 12)).unwrap_or(period), day),
        };
        let mut local = day.and_time(self.at);
        // An hour that is left out on a day is made up for by the next one; of an hour that comes twice the first counts.
        for _ in 0..6 {
            match zone.from_local_datetime(&local) {
                LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => return at.to_utc(),
                LocalResult::None => local += TimeDelta::minutes(30),
            }
            if local.date() != day {
                break;
            }
        }
        // Samoa once left out a whole day: what was due then is due with the next day's.
        let next = (day + Days::new(1)).and_time(self.at);
        zone.from_local_datetime(&next).earliest().map_or(next.and_utc(), |at| at.to_utc())
    }
}

/// When a task was done: by people, and by audits in which its check passed.
pub fn completions(task: &Task, entries: &Entries) -> Vec<(DateTime<Utc>, String)> {
    let passed = |audit: &Audit| {
        let check = task.by_check.as_deref()?;
        let mut checks = audit.items.iter().flat_map(|item| &item.checks);
        let found = checks.find(|c| c.check == check && c.outcome == Outcome::Pass)?;
        // A drill of January completes January, whenever somebody looks.
        let at = found.evidence.as_ref().and_then(|e| e.happened).unwrap_or(audit.at);
        Some((at, format!("the check {check}")))
    };
    let by = |record: &Record, at: DateTime<Utc>| match record {
        Record::Done { task: done, by, .. } if *done == task.id => Some((at, by.clone())),
        Record::Audit { audit } => passed(audit),
        _ => None,
    };
    entries.all.iter().filter_map(|(entry, _)| by(&entry.record, entry.at)).collect()
}

/// The routines of the guides.
pub fn routines() -> Vec<Task> {
    use Recurrence::{Daily, Monthly, Quarterly, Weekly, Yearly};
    let task = |id: &str, title: &str, every, grace| Task::new(id, title, every).with_grace(grace);
    vec![
        task("daily.backups", "Verify that backups completed", Daily, 0).completed_by("backups.verified"),
        task("daily.errors", "Look at errors and at what failed", Daily, 1),
        task("daily.orders", "Look at stuck orders, failed payments and mail", Daily, 1),
        task("weekly.logs", "Review error logs and dashboards of performance", Weekly(Weekday::Mon), 2),
        task("weekly.logins", "Look at failed log-ins and suspicious traffic", Weekly(Weekday::Mon), 2),
        task("weekly.disk", "Look at disk space and growth", Weekly(Weekday::Wed), 2),
        task("weekly.database", "Look at indexes, bloat and slow queries", Weekly(Weekday::Wed), 2),
        task("monthly.updates", "Update dependencies and security patches", Monthly(1), 7)
            .completed_by("source.dependencies"),
        task("monthly.restore", "Restore a backup as a test", Monthly(5), 7).completed_by("backups.restored"),
        task("monthly.alerts", "Send a test alert and see that it arrives", Monthly(5), 7)
            .completed_by("monitor.alerts"),
        task("monthly.accounts", "Look through users and administrators", Monthly(10), 7),
        task("monthly.costs", "Look at costs and capacity", Monthly(10), 7),
        task("quarterly.drill", "Drill the disaster: everything restored elsewhere", Quarterly(15), 14)
            .completed_by("backups.drilled"),
        task("quarterly.access", "Review who may do what: keep or revoke", Quarterly(15), 14),
        task("quarterly.secrets", "Change API keys and secrets that are due", Quarterly(20), 14),
        task("quarterly.security", "Go through the whole checklist", Quarterly(20), 14),
        task("yearly.training", "Train everybody for an incident", Yearly(1, 31), 31),
        task("yearly.policies", "Review privacy policy, terms and contracts with processors", Yearly(2, 28), 31),
        task("yearly.pci", "Do the self-assessment of PCI DSS", Yearly(3, 31), 31),
        task("yearly.documents", "Review runbooks, contacts and this list itself", Yearly(4, 30), 31),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    #[test]
    fn month_ends_and_summer_time() {
        let berlin: Tz = "Europe/Berlin".parse().unwrap();
        let monthly = Task::new("m", "m", Recurrence::Monthly(31));
        assert_eq!(monthly.due_after(at("2027-01-31T08:00:00Z"), berlin), at("2027-02-28T08:00:00Z"));
        assert_eq!(monthly.due_after(at("2027-02-28T08:00:00Z"), berlin), at("2027-03-31T07:00:00Z"), "summer time");
        // Half past two does not exist on that day, and comes twice on the other.
        let mut night = Task::new("n", "n", Recurrence::Daily);
        night.at = NaiveTime::from_hms_opt(2, 30, 0).unwrap();
        assert_eq!(night.due_after(at("2027-03-27T12:00:00Z"), berlin), at("2027-03-28T01:00:00Z"));
        assert_eq!(night.due_after(at("2027-10-30T12:00:00Z"), berlin), at("2027-10-31T00:30:00Z"));
        assert_eq!(night.due_after(at("2027-10-31T00:30:00Z"), berlin), at("2027-11-01T01:30:00Z"));
        let yearly = Task::new("y", "y", Recurrence::Yearly(2, 29));
        assert_eq!(yearly.due_after(at("2027-01-01T00:00:00Z"), Tz::UTC), at("2027-02-28T09:00:00Z"));
        assert_eq!(yearly.due_after(at("2027-03-01T00:00:00Z"), Tz::UTC), at("2028-02-29T09:00:00Z"));
    }

    #[test]
    fn due_overdue_late_and_missed() {
        let endless = Task::new("e", "e", Recurrence::Weekly(Weekday::Mon)).with_grace(u32::MAX);
        let now = "2026-01-14T12:00:00Z".parse::<DateTime<Utc>>().unwrap();
        assert!(!endless.occurrences(&[], now, now, Tz::UTC).is_empty());
        let weekly = Task::new("w", "w", Recurrence::Weekly(Weekday::Mon)).with_grace(2);
        let done = [(at("2026-11-03T10:00:00Z"), "Anna".to_owned()), (at("2026-11-13T10:00:00Z"), "Ben".to_owned())];
        let state = |now: &str| {
            weekly
                .occurrences(&done, at("2026-11-02T09:00:00Z"), at(now), Tz::UTC)
                .iter()
                .map(|o| o.state)
                .collect::<Vec<_>>()
        };
        use TaskState::{Done, DoneLate, Due, Missed, Overdue};
        assert_eq!(state("2026-11-24T09:00:00Z"), [Done, DoneLate, Missed, Due]);
        assert_eq!(state("2026-11-26T09:00:00Z"), [Done, DoneLate, Missed, Overdue]);
        assert_eq!(state("2026-11-10T09:00:00Z"), [Done, Due], "what comes later is not known yet");
    }

    fn recurrence() -> impl Strategy<Value = Recurrence> {
        prop_oneof![
            Just(Recurrence::Daily),
            (0u8..7).prop_map(|d| Recurrence::Weekly(Weekday::try_from(d).unwrap())),
            (1u32..=31).prop_map(Recurrence::Monthly),
            (1u32..=31).prop_map(Recurrence::Quarterly),
            (1u32..=12, 1u32..=31).prop_map(|(m, d)| Recurrence::Yearly(m, d)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Ten years, in zones with all kinds of summer time: as many as the calendar has, none lost, none twice.
        #[test]
        fn nothing_is_lost_or_doubled_in_ten_years(
            every in recurrence(),
            zone in prop::sample::select(vec!["Europe/London", "Africa/Lagos", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo", "Asia/Kathmandu"]),
            minute in 0u32..1440,
            year in 2009i32..2030,
        ) {
            let zone: Tz = zone.parse().unwrap();
            let mut task = Task::new("t", "t", every);
            task.at = NaiveTime::from_hms_opt(minute / 60, minute % 60, 0).unwrap();
            let midnight = |year: i32| zone.from_local_datetime(&NaiveDate::from_ymd_opt(year, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap()).earliest().unwrap().to_utc();
            let (from, to) = (midnight(year), midnight(year + 10));
            let mut due = task.due_after(from - TimeDelta::seconds(1), zone);
            let (mut days, mut count) = (std::collections::BTreeSet::new(), 0);
            while due < to {
                let local = due.with_timezone(&zone);
                prop_assert!(days.insert(local.date_naive()), "twice on {}", local);
                prop_assert_eq!(task.due_before(due, zone), due);
                prop_assert!(task.due_before(due - TimeDelta::seconds(1), zone) < due);
                let next = task.due_after(due, zone);
                prop_assert!(next > due);
                prop_assert_eq!(task.due_before(next - TimeDelta::seconds(1), zone), due, "something lies between");
                (due, count) = (next, count + 1);
            }
            // Counted day by day, by rules that share no code with the above.
            let mut expected = 0;
            let mut day = NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
            while day.year() < year + 10 {
                let last = day.succ_opt().unwrap().month() != day.month();
                let on = |wanted: u32| day.day() == wanted || (last && day.day() < wanted);
                expected += u32::from(match every {
                    Recurrence::Daily => true,
                    Recurrence::Weekly(w) => day.weekday() == w,
                    Recurrence::Monthly(d) => on(d),
                    Recurrence::Quarterly(d) => [1, 4, 7, 10].contains(&day.month()) && on(d),
                    Recurrence::Yearly(m, d) => day.month() == m && on(d),
                });
                day = day.succ_opt().unwrap();
            }
            // Samoa had no 30 December 2011: what was due then is due on the 31st, as is that day's own, at the same moment.
            let lost = u32::from(zone == Tz::Pacific__Apia && (year..year + 10).contains(&2011) && count + 1 == expected);
            prop_assert_eq!(count + lost, expected);
        }
    }
}
