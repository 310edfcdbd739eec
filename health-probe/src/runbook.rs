//! Runbooks: what to do when the site is down, a payment does not work, somebody broke in. Steps that look, and steps for people.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::alert::Contact;
use crate::judge::Verdict;
use crate::monitor::{Clock, Look, Watch};
use crate::redact::redact;

/// A runbook, as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runbook {
    /// Its name, such as `site-down`.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// What to do, in order.
    pub steps: Vec<Step>,
}

/// A step of a runbook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it is about.
    pub title: String,
    /// Probes to run, by name; `*` at the end stands for anything. They look, and change nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<String>,
    /// What a person does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub people: Vec<String>,
    /// Whom to call, by the role of a contact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<String>,
}

/// What a run of a runbook saw, with times.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Transcript {
    /// The runbook's name.
    pub runbook: String,
    /// Its title.
    pub title: String,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// The worst of what was seen; unknown where nothing was looked at.
    pub verdict: Verdict,
    /// Each step.
    pub steps: Vec<StepTranscript>,
}

/// What became of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepTranscript {
    /// The step.
    pub step: Step,
    /// When it began.
    pub began: DateTime<Utc>,
    /// What its probes saw.
    pub looks: Vec<Look>,
    /// Probes that it names and that are not there: nothing was looked at.
    pub missing: Vec<String>,
    /// Whom to call.
    pub contacts: Vec<Contact>,
}

impl Runbook {
    /// The guides' three: site down, payment issue, security incident. Their probes are named by the first word of their names:
    /// `host`, `database`, `http`, `tls`, `logs`, `payments`, `gateway`, `key`, `webhooks`, `files`, `logins`, `backup`.
    pub fn builtin() -> Vec<Self> {
        let step = |title: &str, probes: &[&str], people: &[&str], contacts: &[&str]| Step {
            title: title.into(),
            probes: probes.iter().map(|s| (*s).to_owned()).collect(),
            people: people.iter().map(|s| (*s).to_owned()).collect(),
            contacts: contacts.iter().map(|s| (*s).to_owned()).collect(),
        };
        vec![
            Self {
                name: "site-down".into(),
                title: "The site is down".into(),
                steps: vec![
                    step(
                        "Is the server running?",
                        &["host*", "tls*", "dns*", "http*", "port*"],
                        &["Look at the hosting provider's own status."],
                        &["hosting"],
                    ),
                    step("Does the database answer?", &["database*"], &[], &[]),
                    step(
                        "What do the logs say?",
                        &["logs*", "sentry*"],
                        &["Read the newest group of errors; note when it began."],
                        &[],
                    ),
                    step(
                        "Was something deployed?",
                        &["files*"],
                        &[
                            "If the errors began with a deployment: roll it back (`deploy.sh --rollback`), then run this again.",
                        ],
                        &["primary on-call"],
                    ),
                    step(
                        "Tell customers",
                        &[],
                        &["Post on the status page and on social media: what is known, when you will say more."],
                        &[],
                    ),
                ],
            },
            Self {
                name: "payment-issue".into(),
                title: "Payments do not work".into(),
                steps: vec![
                    step(
                        "What do the gateways say of themselves?",
                        &["gateway*"],
                        &["A status page lags: \"up\" proves nothing."],
                        &["Stripe", "Paystack", "Remita"],
                    ),
                    step(
                        "Are the keys good?",
                        &["key*"],
                        &[
                            "If a key was refused: make a new one in the gateway's dashboard, and put it where the shop reads it.",
                        ],
                        &[],
                    ),
                    step(
                        "Do webhooks arrive?",
                        &["webhooks*", "tls*"],
                        &["Compare with the log of webhooks in the gateway's dashboard; resend what failed."],
                        &[],
                    ),
                    step(
                        "How many are hit?",
                        &["payments*", "orders*"],
                        &["Process urgent orders by hand, each noted down."],
                        &["primary on-call"],
                    ),
                ],
            },
            Self {
                name: "security-incident".into(),
                title: "Somebody broke in, or may have".into(),
                steps: vec![
                    step(
                        "Isolate",
                        &[],
                        &[
                            "Take the affected system off the network; do not switch it off: its memory is evidence.",
                            "Switch maintenance mode on.",
                        ],
                        &["hosting", "primary on-call"],
                    ),
                    step(
                        "Assess",
                        &["files*", "logs*", "logins*", "host*"],
                        &["Note what changed, since when, which accounts and which data."],
                        &[],
                    ),
                    step(
                        "Contain",
                        &["key*"],
                        &["Change all passwords and API keys, the database's too; end all sessions."],
                        &["Stripe", "Paystack", "Remita"],
                    ),
                    step(
                        "Notify",
                        &[],
                        &[
                            "Where personal data may be affected: the supervisory authority within 72 hours of knowing (GDPR, Article 33); customers without undue delay where their risk is high (Article 34).",
                        ],
                        &[],
                    ),
                    step(
                        "Recover",
                        &["backup*"],
                        &["Restore from a backup of before the break-in, verified; then patch, then go online."],
                        &[],
                    ),
                ],
            },
        ]
    }

    /// Runs the probes of each step, four at a time, and writes down what they saw. It looks, and changes nothing.
    pub async fn run(&self, watches: &[Arc<Watch>], contacts: &[Contact], clock: &Clock) -> Transcript {
        let began = clock.now();
        let mut steps = Vec::new();
        for step in &self.steps {
            let at = clock.now();
            let named = |pattern: &String, id: &str| match pattern.strip_suffix('*') {
                Some(begin) => id.starts_with(begin),
                None => pattern == id,
            };
            let chosen: Vec<Arc<Watch>> =
                watches.iter().filter(|w| step.probes.iter().any(|p| named(p, w.id()))).cloned().collect();
            let missing = step.probes.iter().filter(|p| !watches.iter().any(|w| named(p, w.id()))).cloned().collect();
            let mut looks: Vec<Look> = futures::stream::iter(chosen)
                .map(|watch| async move { watch.look_now(clock.now()).await })
                .buffer_unordered(4)
                .collect()
                .await;
            looks.sort_by(|a, b| {
                b.judgement.verdict.rank().cmp(&a.judgement.verdict.rank()).then(a.probe.cmp(&b.probe))
            });
            let called = |c: &&Contact| step.contacts.iter().any(|role| c.role.eq_ignore_ascii_case(role));
            let contacts = contacts.iter().filter(called).cloned().collect();
            steps.push(StepTranscript { step: step.clone(), began: at, looks, missing, contacts });
        }
        // A step that looks at nothing is no step that found nothing.
        let blind = |s: &&StepTranscript| !s.step.probes.is_empty() && s.looks.is_empty();
        let blind = steps.iter().filter(blind).map(|_| Verdict::Unknown);
        let looked = steps.iter().flat_map(|s| &s.looks).map(|l| l.judgement.verdict);
        let worst = looked.chain(blind).max_by_key(|v| v.rank());
        Transcript {
            runbook: self.name.clone(),
            title: self.title.clone(),
            began,
            ended: clock.now(),
            verdict: worst.unwrap_or(Verdict::Unknown),
            steps,
        }
    }
}

impl Transcript {
    /// As Markdown, to be filled in and kept.
    pub fn markdown(&self) -> String {
        let time = |t: DateTime<Utc>| t.format("%F %T UTC").to_string();
        let mut out = format!(
            "# {}\n\nBegan {}, ended {}. Worst of what was seen: **{}**.\n",
            self.title,
            time(self.began),
            time(self.ended),
            self.verdict.word()
        );
        for (at, s) in self.steps.iter().enumerate() {
            out += &format!("\n## {}. {}\n\n{}\n\n", at + 1, s.step.title, time(s.began));
            for look in &s.looks {
                out += &format!(
                    "- {} **{}**: {}\n",
                    look.title,
                    look.judgement.verdict.word(),
                    line(&look.judgement.reason())
                );
                for evidence in look.seen.iter().flat_map(|s| &s.evidence).take(5) {
                    out += &format!("  - {}\n", line(evidence));
                }
            }
            for missing in &s.missing {
                out += &format!("- nothing looked at: no probe is called `{missing}`\n");
            }
            for person in &s.step.people {
                out += &format!("- [ ] {person}\n");
            }
            for contact in &s.contacts {
                out += &format!("- call {}\n", line(&contact.to_string()));
            }
        }
        out
    }
}

/// One line, without secrets, that Markdown leaves as it is.
fn line(text: &str) -> String {
    let text: String = redact(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.replace('\\', "\\\\").replace('*', "\\*").replace('_', "\\_").replace('`', "\\`").replace('<', "&lt;")
}
