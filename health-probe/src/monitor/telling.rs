//! Messages on their way to people: each by itself, tried again ever more rarely, to each channel until it took it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::alert::{Alerter, Delivery};
use crate::incident::Message;
use crate::judge::Verdict;

/// From the first try that failed to the next; doubled from there on.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// At most so long between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A message that waits because nobody is told at that hour.
const HOURS_PAUSE: Duration = Duration::from_secs(10);
/// For so long a channel is tried with what others took.
const KEEP_TRYING: Duration = Duration::from_secs(86_400);
/// What is critical and could not be told for so long is a failure of the watch itself.
const STUCK: Duration = Duration::from_secs(300);

/// What was sent, and what became of it.
pub(super) struct Sent {
    message: Message,
    delivery: Option<Delivery>,
    /// Only to those that did not take it before.
    again: bool,
}

/// Messages on their way.
pub(super) struct Telling {
    alerter: Option<Arc<Alerter>>,
    sending: FuturesUnordered<BoxFuture<'static, Sent>>,
    /// By incident.
    waiting: HashMap<String, Waiting>,
    /// By incident, what some channel took and these did not.
    outstanding: HashMap<String, Outstanding>,
}

struct Waiting {
    /// What it says: another message begins anew, for it may go elsewhere.
    key: (String, Verdict),
    in_flight: bool,
    tries: u32,
    next: Instant,
    /// Since when something critical could not be told.
    stuck: Option<Instant>,
    why: Option<String>,
}

struct Outstanding {
    message: Message,
    names: Vec<String>,
    in_flight: bool,
    tries: u32,
    next: Instant,
    until: Instant,
    why: String,
}

impl Telling {
    pub(super) fn new(alerter: Option<Arc<Alerter>>) -> Self {
        Self { alerter, sending: FuturesUnordered::new(), waiting: HashMap::new(), outstanding: HashMap::new() }
    }

    /// Sends what is due and not on its way already, or tried a short time ago.
    pub(super) fn offer(&mut self, due: &[Message]) {
        let now = Instant::now();
        self.waiting.retain(|id, w| w.in_flight || due.iter().any(|m| m.incident.id == *id));
        for message in due {
            let key = (message.key(), message.incident.severity);
            let waiting = self.waiting.entry(message.incident.id.clone()).or_insert_with(|| Waiting {
                key: key.clone(),
                in_flight: false,
                tries: 0,
                next: now,
                stuck: None,
                why: None,
            });
            if waiting.key != key && !waiting.in_flight {
                (waiting.key, waiting.tries, waiting.next) = (key, 0, now);
            }
            if waiting.in_flight || now < waiting.next {
                continue;
            }
            waiting.in_flight = true;
            let (message, alerter) = (message.clone(), self.alerter.clone());
            self.sending.push(Box::pin(async move {
                let delivery = match &alerter {
                    Some(alerter) => Some(alerter.deliver(&message).await),
                    None => None,
                };
                Sent { message, delivery, again: false }
            }));
        }
        self.outstanding.retain(|_, o| o.in_flight || now < o.until);
        for outstanding in self.outstanding.values_mut().filter(|o| !o.in_flight && now >= o.next) {
            let Some(alerter) = self.alerter.clone() else { continue };
            outstanding.in_flight = true;
            let (message, names) = (outstanding.message.clone(), outstanding.names.clone());
            self.sending.push(Box::pin(async move {
                let delivery = alerter.deliver_to(&message, &names).await;
                Sent { message, delivery: Some(delivery), again: true }
            }));
        }
    }

    /// The next that was sent; waits for ever where none is on its way.
    pub(super) async fn next(&mut self) -> Sent {
        match self.sending.next().await {
            Some(sent) => sent,
            None => std::future::pending().await,
        }
    }

    /// Whether something is on its way.
    pub(super) fn is_busy(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Takes note of it; the message where somebody was told by it, or nobody wants to be.
    pub(super) fn done(&mut self, sent: Sent) -> Option<Message> {
        let Sent { message, delivery, again } = sent;
        let (now, id) = (Instant::now(), message.incident.id.clone());
        let Some(delivery) = delivery else {
            self.waiting.remove(&id);
            return Some(message);
        };
        let failed: Vec<String> = delivery.failed.iter().map(|(name, _)| name.clone()).collect();
        let why = delivery.failed.first().map(|(name, e)| format!("{name}: {e}"));
        if again {
            // By now it may be another message that they did not take.
            if let Some(outstanding) = self.outstanding.get_mut(&id).filter(|o| o.message.key() == message.key()) {
                match why {
                    None => drop(self.outstanding.remove(&id)),
                    Some(why) => {
                        outstanding.in_flight = false;
                        outstanding.names = failed;
                        outstanding.tries += 1;
                        outstanding.next = now + pause(outstanding.tries);
                        outstanding.why = why;
                    }
                }
            }
            return None;
        }
        if !delivery.is_told() {
            let waiting = self.waiting.get_mut(&id)?;
            waiting.in_flight = false;
            if delivery.later {
                // It is no failure that nobody is told at night.
                waiting.next = now + HOURS_PAUSE;
                return None;
            }
            waiting.tries += 1;
            waiting.next = now + pause(waiting.tries);
            waiting.why = why;
            if message.incident.severity == Verdict::Critical {
                waiting.stuck.get_or_insert(now);
            }
            return None;
        }
        self.waiting.remove(&id);
        // What is newer says all that the older did.
        self.outstanding.remove(&id);
        if let Some(why) = why {
            let next = now + pause(1);
            let outstanding = Outstanding {
                message: message.clone(),
                names: failed,
                in_flight: false,
                tries: 1,
                next,
                until: now + KEEP_TRYING,
                why,
            };
            self.outstanding.insert(id, outstanding);
        }
        Some(message)
    }

    /// Why some message reached nobody, or not everybody.
    pub(super) fn trouble(&self) -> Option<String> {
        let nobody = self.waiting.values().find_map(|w| w.why.clone());
        nobody.or_else(|| self.outstanding.values().map(|o| o.why.clone()).next())
    }

    /// Whether something critical could not be told to anybody for minutes.
    pub(super) fn is_stuck(&self) -> bool {
        let now = Instant::now();
        self.waiting.values().any(|w| w.stuck.is_some_and(|since| now - since >= STUCK))
    }
}

/// 10 s, 20 s, 40 s, …, five minutes.
fn pause(tries: u32) -> Duration {
    (FIRST_PAUSE * 2u32.saturating_pow(tries.saturating_sub(1).min(16))).min(LONGEST_PAUSE)
}
