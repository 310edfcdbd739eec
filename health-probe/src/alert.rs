//! Telling people: which message goes which way, at which hours, and what it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveTime, Utc, Weekday};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::incident::{IncidentRecord, Message, MessageKind};
use crate::judge::Verdict;
use crate::notify::Notifier;
use crate::redact::redact;

/// Which messages go where.
#[derive(Debug, Clone)]
pub struct Route {
    severity: Verdict,
    hours: Option<Hours>,
    probes: Vec<String>,
    notify: Vec<String>,
}

impl Route {
    /// Everything that is at least so bad, to these notifiers.
    pub fn new(severity: Verdict, notify: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let notify = notify.into_iter().map(Into::into).collect();
        Self { severity, hours: None, probes: Vec::new(), notify }
    }

    /// The same at these hours; outside of them, messages wait.
    #[must_use]
    pub fn within(mut self, hours: Hours) -> Self {
        self.hours = Some(hours);
        self
    }

    /// The same for incidents whose cause is one of these probes.
    #[must_use]
    pub fn only(mut self, probes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.probes = probes.into_iter().map(Into::into).collect();
        self
    }

    fn takes(&self, message: &Message) -> bool {
        message.kind == MessageKind::Test
            || (message.incident.severity.rank() >= self.severity.rank()
                && (self.probes.is_empty() || self.probes.contains(&message.incident.root)))
    }
}

/// Hours of the week, in a time zone.
#[derive(Debug, Clone)]
pub struct Hours {
    zone: Tz,
    days: Vec<Weekday>,
    from: NaiveTime,
    to: NaiveTime,
}

impl Hours {
    /// From `from` to `to` (exclusive; over midnight where it is the earlier one) on these days; of a span over midnight, its
    /// first day counts.
    pub fn new(zone: Tz, days: Vec<Weekday>, from: NaiveTime, to: NaiveTime) -> Self {
        Self { zone, days, from, to }
    }

    /// Whether it is one of them.
    pub fn contain(&self, at: DateTime<Utc>) -> bool {
        let local = at.with_timezone(&self.zone);
        let (day, time) = (local.weekday(), local.time());
        if self.from <= self.to {
            return self.days.contains(&day) && (self.from..self.to).contains(&time);
        }
        (time >= self.from && self.days.contains(&day)) || (time < self.to && self.days.contains(&day.pred()))
    }
}

/// Somebody to call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// What for, such as `primary on-call`, `hosting`, `Stripe`.
    pub role: String,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where: numbers, addresses, pages.
    pub reach: Vec<String>,
}

impl std::fmt::Display for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.role)?;
        if let Some(name) = &self.name {
            write!(f, "{name}, ")?;
        }
        f.write_str(&self.reach.join(", "))
    }
}

/// Sends messages by their routes.
#[derive(Debug)]
pub struct Alerter {
    routes: Vec<Route>,
    notifiers: BTreeMap<String, Arc<dyn Notifier>>,
    tries: u32,
    pause: Duration,
    limit: Duration,
}

/// What became of a message.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The notifiers that delivered it.
    pub delivered: Vec<String>,
    /// Those that did not, and why.
    pub failed: Vec<(String, Error)>,
    /// Whether a route takes it at another hour.
    pub later: bool,
    /// Whether no route ever takes it: then nobody wants to be told.
    pub unrouted: bool,
}

impl Delivery {
    /// Whether somebody was told, or nobody wants to be.
    pub fn is_told(&self) -> bool {
        !self.delivered.is_empty() || self.unrouted
    }
}

impl Alerter {
    /// These notifiers, and these routes to them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a route names a notifier that is not there, two have one name, or nothing takes what is
    /// critical at all hours: an alert that goes nowhere is none.
    pub fn new(notifiers: Vec<Arc<dyn Notifier>>, routes: Vec<Route>) -> Result<Self> {
        let mut by_name: BTreeMap<String, Arc<dyn Notifier>> = BTreeMap::new();
        for notifier in notifiers {
            let name = notifier.name().to_owned();
            if by_name.insert(name.clone(), notifier).is_some() {
                return Err(Error::new(ErrorKind::Config, format!("two notifiers are called {name}")));
            }
        }
        for name in routes.iter().flat_map(|r| &r.notify) {
            if !by_name.contains_key(name) {
                return Err(Error::new(ErrorKind::Config, format!("a route leads to {name}, which is no notifier"))
                    .with_next_step("correct the name"));
            }
        }
        let always = |r: &Route| r.hours.is_none() && r.probes.is_empty() && !r.notify.is_empty();
        if !routes.iter().any(always) {
            return Err(Error::new(ErrorKind::Config, "nothing takes what is critical at all hours")
                .with_next_step("add a route without hours and probes"));
        }
        Ok(Self { routes, notifiers: by_name, tries: 3, pause: Duration::from_secs(2), limit: Duration::from_secs(60) })
    }

    /// The same with so many tries a notifier, and so long a pause between them; three, and two seconds without.
    #[must_use]
    pub fn with_tries(mut self, tries: u32, pause: Duration) -> Self {
        (self.tries, self.pause) = (tries.max(1), pause);
        self
    }

    /// The same with another limit for each try of a notifier; 60 seconds without. One that hangs has failed.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The notifiers, by name.
    pub fn notifiers(&self) -> impl Iterator<Item = &Arc<dyn Notifier>> {
        self.notifiers.values()
    }

    /// Sends a message by every route that takes it, to each notifier once. It counts as told where one of them delivered it.
    pub async fn deliver(&self, message: &Message) -> Delivery {
        let taking: Vec<&Route> = self.routes.iter().filter(|r| r.takes(message)).collect();
        let open = |r: &&&Route| r.hours.as_ref().is_none_or(|h| h.contain(message.at));
        let mut names: Vec<&str> = taking.iter().filter(open).flat_map(|r| &r.notify).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let mut delivery = Delivery {
            delivered: Vec::new(),
            failed: Vec::new(),
            later: names.is_empty() && !taking.is_empty(),
            unrouted: taking.is_empty(),
        };
        self.send_to(names, message, &mut delivery).await;
        delivery
    }

    /// Sends a message to these notifiers, whatever the routes say: again to those that did not take it, or a test to all of them.
    pub async fn deliver_to(&self, message: &Message, names: &[String]) -> Delivery {
        let mut delivery = Delivery { delivered: Vec::new(), failed: Vec::new(), later: false, unrouted: false };
        self.send_to(names.iter().map(String::as_str).collect(), message, &mut delivery).await;
        delivery
    }

    async fn send_to(&self, names: Vec<&str>, message: &Message, delivery: &mut Delivery) {
        let sending = names.into_iter().filter_map(|n| self.notifiers.get(n)).map(|n| self.send(n.as_ref(), message));
        for (name, outcome) in futures::future::join_all(sending).await {
            match outcome {
                Ok(()) => delivery.delivered.push(name),
                Err(e) => {
                    tracing::warn!(notifier = name, error = %e, "a message was not delivered");
                    delivery.failed.push((name, e));
                }
            }
        }
    }

    async fn send(&self, notifier: &dyn Notifier, message: &Message) -> (String, Result<()>) {
        let mut tries = 1;
        loop {
            let outcome = tokio::time::timeout(self.limit, notifier.notify(message)).await.unwrap_or_else(|_| {
                let e = format!("{} did not take it in {} s", notifier.name(), self.limit.as_secs_f64());
                Err(Error::new(ErrorKind::Timeout, e).with_next_step("see what it waits for"))
            });
            match outcome {
                Err(e) if e.is_retryable() && tries < self.tries => {
                    tokio::time::sleep(self.pause * tries).await;
                    tries += 1;
                }
                outcome => return (notifier.name().to_owned(), outcome),
            }
        }
    }
}

impl MessageKind {
    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Update => "update",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Missed => "missed",
            Self::Test => "test",
        }
    }
}

impl Message {
    /// A message that only has to arrive, with a token to know it by.
    pub fn test(at: DateTime<Utc>, token: impl Into<String>) -> Self {
        Self { kind: MessageKind::Test, at, incident: IncidentRecord::none(at), token: Some(token.into()) }
    }

    /// The same for the same message however often it is sent, and of no other: receivers can tell that they have it.
    pub fn key(&self) -> String {
        match &self.token {
            Some(token) => token.clone(),
            None => format!("{} {} {}", self.incident.id, self.kind.word(), self.incident.told.len()),
        }
    }

    /// One line, without secrets.
    pub fn subject(&self) -> String {
        let incident = &self.incident;
        let title = incident.root_member().map_or(incident.root.as_str(), |m| m.title.as_str());
        let also = match incident.members.len() {
            0 | 1 => String::new(),
            n => format!(" (and {} that depend on it)", n - 1),
        };
        let flaps = if incident.flapping { ", goes up and down" } else { "" };
        let line = match self.kind {
            MessageKind::Alert => format!("{}: {title}{also}{flaps}", incident.severity.word()),
            MessageKind::Update => format!("{} (update): {title}{also}{flaps}", incident.severity.word()),
            MessageKind::Reminder => format!("still {}: {title}{also}{flaps}", incident.severity.word()),
            MessageKind::Resolved if incident.part_of.is_some() => format!("part of another incident: {title}"),
            MessageKind::Resolved => format!("resolved: {title}{also}"),
            MessageKind::Missed => format!("resolved, and nobody could be told before: {title}{also}"),
            MessageKind::Test => {
                format!("test: this message only has to arrive ({})", self.token.as_deref().unwrap_or(""))
            }
        };
        redact(&line.replace(['\n', '\r'], " "))
    }

    /// The whole of it, without secrets: the cause, what it suppressed, since when.
    pub fn text(&self) -> String {
        let incident = &self.incident;
        if self.kind == MessageKind::Test {
            return format!("{}\n", self.subject());
        }
        let mut lines = Vec::new();
        let time = |t: DateTime<Utc>| t.format("%F %T UTC").to_string();
        if let Some(root) = incident.root_member() {
            lines.push(format!("{}: {} since {}", root.title, root.verdict.word(), time(root.since)));
            lines.push(format!("  {}", root.reason));
        }
        let rest: Vec<_> = incident.members.iter().filter(|m| m.probe != incident.root).collect();
        if !rest.is_empty() {
            lines.push("Suppressed, for they depend on it or fail with it:".into());
            lines.extend(rest.iter().map(|m| format!("  {}: {} ({})", m.title, m.verdict.word(), m.reason)));
        }
        let new: Vec<&str> = incident.joined_late().map(|m| m.title.as_str()).collect();
        if self.kind == MessageKind::Update && !new.is_empty() {
            lines.push(format!("New since the last message: {}", new.join(", ")));
        }
        lines.push(format!("Began: {}", time(incident.opened)));
        if let Some(whole) = &incident.part_of {
            lines.push(format!("It is part of {whole}, and told of there from now on."));
        } else if let Some(resolved) = incident.resolved {
            let minutes = (resolved - incident.opened).num_seconds() as f64 / 60.0;
            lines.push(format!("Ended: {}, after {minutes:.0} minutes", time(resolved)));
        }
        lines.push(format!("Incident: {}", incident.id));
        redact(&(lines.join("\n") + "\n"))
    }
}

impl IncidentRecord {
    /// No incident: what a test message is about.
    fn none(at: DateTime<Utc>) -> Self {
        Self::empty("test", at)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;

    #[derive(Debug)]
    struct Fake {
        name: &'static str,
        outcomes: Mutex<Vec<Option<ErrorKind>>>,
        tried: Mutex<u32>,
    }

    impl Fake {
        fn new(name: &'static str, outcomes: &[Option<ErrorKind>]) -> Arc<Self> {
            Arc::new(Self { name, outcomes: Mutex::new(outcomes.to_vec()), tried: Mutex::new(0) })
        }
    }

    #[async_trait]
    impl Notifier for Fake {
        fn name(&self) -> &str {
            self.name
        }

        async fn notify(&self, _: &Message) -> Result<()> {
            *self.tried.lock().unwrap() += 1;
            match self.outcomes.lock().unwrap().pop().flatten() {
                Some(kind) => Err(Error::new(kind, "not now")),
                None => Ok(()),
            }
        }
    }

    fn message(severity: Verdict) -> Message {
        let mut message = Message::test(DateTime::UNIX_EPOCH, "");
        message.kind = MessageKind::Alert;
        message.incident.severity = severity;
        message
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_be_tried_again_is_and_one_that_delivers_is_enough() {
        use ErrorKind::{Denied, Unreachable};
        let (slack, mail) = (
            Fake::new("slack", &[None, Some(Unreachable), Some(Unreachable)]),
            Fake::new("mail", &[Some(Denied), Some(Denied)]),
        );
        let routes = vec![Route::new(Verdict::Critical, ["slack", "mail"]), Route::new(Verdict::Warning, ["mail"])];
        let alerter = Alerter::new(vec![slack.clone(), mail.clone()], routes).unwrap();
        let delivery = alerter.deliver(&message(Verdict::Critical)).await;
        assert_eq!(delivery.delivered, ["slack"]);
        assert_eq!(delivery.failed[0].0, "mail");
        assert_eq!((*slack.tried.lock().unwrap(), *mail.tried.lock().unwrap()), (3, 1));
        assert!(!alerter.deliver(&message(Verdict::Warning)).await.is_told());
    }

    #[tokio::test]
    async fn hours_make_a_message_wait_and_what_is_critical_has_to_go_somewhere() {
        let time = |h| NaiveTime::from_hms_opt(h, 0, 0).unwrap();
        let week = vec![Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri];
        let office = Hours::new(chrono_tz::Africa::Lagos, week.clone(), time(9), time(17));
        // 1970-01-01 was a Thursday; midnight UTC is one o'clock in Lagos.
        assert!(!office.contain(DateTime::UNIX_EPOCH));
        assert!(office.contain(DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(8)));
        assert!(!office.contain(DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(16)));
        let night = Hours::new(chrono_tz::UTC, vec![Weekday::Wed], time(22), time(6));
        assert!(night.contain(DateTime::UNIX_EPOCH), "the night from Wednesday on");
        let mail = Fake::new("mail", &[]);
        let e = Alerter::new(vec![mail.clone()], vec![Route::new(Verdict::Warning, ["mail"]).within(office.clone())]);
        assert!(e.unwrap_err().to_string().contains("at all hours"));
        let routes =
            vec![Route::new(Verdict::Warning, ["mail"]).within(office), Route::new(Verdict::Critical, ["mail"])];
        let alerter = Alerter::new(vec![mail], routes).unwrap();
        assert!(alerter.deliver(&message(Verdict::Warning)).await.later);
        assert!(alerter.deliver(&message(Verdict::Critical)).await.is_told());
    }

    #[test]
    fn a_message_shows_no_secret_and_no_second_line_in_its_subject() {
        let mut message = message(Verdict::Critical);
        let mut member = message.incident.members.clone();
        member.push(crate::incident::Member::new(
            "db",
            "db\npostgres://u:geheim@h",
            "password=geheim",
            DateTime::UNIX_EPOCH,
        ));
        message.incident.members = member;
        message.incident.root = "db".into();
        assert!(!message.subject().contains("geheim") && !message.subject().contains('\n'));
        assert!(!message.text().contains("geheim"));
    }
}
