//! See trouble in a shop before customers do, and say it once.
//!
//! A [`Probe`] looks and says what it read, in numbers with units, words and flags: an [`Observation`]. [`judge`] holds it against a
//! [`Policy`], and is pure: what is missing, is no number, or has another unit is [`Verdict::Unknown`], and that is never healthy. A
//! [`Monitor`] runs many probes on their schedules, confirms what changed, finds the one cause among all that fails with it, writes
//! every slot down in a [`ledger`], and tells people by an [`Alerter`](alert::Alerter): once, again while it lasts, and when it is over.
//!
//! ```
//! use std::time::Duration;
//! use health_probe::{HostProbe, Monitor, TcpProbe, Verdict, Watch};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> health_probe::Result<()> {
//! let monitor = Monitor::new(vec![
//!     Watch::new(HostProbe::new("host", ["/"]), Duration::from_secs(60)),
//!     // Nobody listens there.
//!     Watch::new(TcpProbe::new("cache", "127.0.0.1", 1), Duration::from_secs(60)).after(["host"]),
//! ])?;
//! let looks = monitor.look_once().await;
//! assert_eq!(looks[1].judgement.verdict, Verdict::Critical);
//! # Ok(()) }
//! ```
//!
//! # Probes
//!
//! | probe | asks |
//! |---|---|
//! | [`HostProbe`] | CPU, memory, swap, pressure, disks, inodes, when a disk is full; a container's own limits |
//! | [`DatabaseProbe`] | whether it answers, how fast, how many connections are left |
//! | [`SqlProbe`] | declared SQL: payments, orders, webhooks, mail log, anything that gives one row |
//! | [`HttpProbe`] | status, headers, body, JSON; phases timed; redirects hop by hop |
//! | [`PageProbe`] | a page with all that it names: weight, load time, what is broken |
//! | [`TlsProbe`] | trust, name, dates, chain, protocol, each with its own verdict; STARTTLS |
//! | [`NetworkProbe`], `DnsProbe`, [`TcpProbe`] | this machine's way out; records, ports |
//! | [`AccessLogProbe`], [`ErrorLogProbe`], [`LoginLogProbe`] | error rate, scanners, guessed passwords by account, address and subnet; what is new in an error log |
//! | [`FilesProbe`], [`ImagesProbe`] | modes, owners, secrets, uploads, changes; heavy images |
//! | `SmtpProbe`, [`RoundTripProbe`] | a mail server's handshake; what is sent arrives |
//! | [`VendorProbe`] | Stripe, Paystack, Remita, any Statuspage, Sentry, the Chrome UX Report |
//! | [`vitals::VitalsProbe`] | Core Web Vitals of visitors |
//! | [`FreshnessProbe`] | the age of the newest backup, or of anything a closure knows |
//! | [`probe_fn`] | whatever else |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `http` (default) | everything over HTTP and TLS |
//! | `sqlite` (default) | the ledger in a file; SQL on SQLite |
//! | `postgres`, `mysql`, `tls` | SQL on those, and TLS to them |
//! | `smtp`, `imap`, `dns`, `prometheus` | mail, mailboxes, names, metrics |
//!
//! # Layout
//!
//! ```text
//! observation, judge    what was seen; what it means (pure)
//! statistics            exact tests for small numbers, flapping, trends (pure)
//! probe                 the trait, and a file for each probe
//! adapt                 time limit, another try, cache; debouncing
//! net                   connections: addresses vetted, TLS recorded, phases timed, bodies bounded
//! sql                   one declared query, read-only, on three engines
//! logs                  files read across rotation; requests counted, errors grouped
//! vitals                beacons of visitors' browsers
//! monitor               schedules, and all that follows a look
//! incident              confirmed states, dependencies, causes (pure)
//! alert, notify         routes, contacts, texts; webhook, mail, command
//! ledger, slo           every slot; budgets and how fast they burn
//! status_page, metrics  for people; for Prometheus
//! runbook, deployment   what to do; whether to go back
//! redact                secrets taken out of what is shown
//! ```

mod adapt;
pub mod alert;
pub mod deployment;
mod error;
#[cfg(feature = "http")]
mod heartbeat;
mod incident;
mod judge;
pub mod ledger;
pub mod logs;
#[cfg(feature = "prometheus")]
pub mod metrics;
mod monitor;
#[cfg(feature = "http")]
mod net;
pub mod notify;
mod observation;
mod probe;
mod redact;
pub mod runbook;
pub mod slo;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod sql;
pub mod statistics;
pub mod status_page;
pub mod vitals;

pub use adapt::{Cached, Change, Debounce, ProbeExt, Retried, TimeLimited};
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "http")]
pub use heartbeat::HttpHeartbeat;
pub use incident::{Dependencies, IncidentOptions, IncidentRecord, Incidents, Member, Message, MessageKind};
pub use judge::{Condition, Drought, FailureRate, Finding, Judgement, Limits, Policy, Rule, Verdict, judge};
pub use monitor::{Clock, Heartbeat, Look, Monitor, ProbeStatus, Snapshot, Watch};
#[cfg(feature = "http")]
pub use net::address::{Family, Reach};
pub use observation::{Observation, Reading, Unit, Value};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use probe::database::DatabaseProbe;
#[cfg(feature = "dns")]
pub use probe::dns::DnsProbe;
pub use probe::files::{FileRules, FilesProbe, ImagesProbe};
pub use probe::freshness::FreshnessProbe;
pub use probe::host::HostProbe;
#[cfg(feature = "http")]
pub use probe::http::{Expect, HttpProbe};
pub use probe::logs::{AccessLogProbe, ErrorLogProbe, LoginLogProbe};
#[cfg(feature = "imap")]
pub use probe::mail::ImapMailbox;
#[cfg(feature = "smtp")]
pub use probe::mail::SmtpProbe;
pub use probe::mail::{Maildir, Receipt, RoundTripProbe};
#[cfg(feature = "http")]
pub use probe::network::NetworkProbe;
#[cfg(feature = "http")]
pub use probe::page::PageProbe;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use probe::sql::{Metric, MetricReport, MissingDay, SqlProbe};
#[cfg(feature = "http")]
pub use probe::tcp::TcpProbe;
#[cfg(feature = "http")]
pub use probe::tls::{Starttls, TlsProbe};
#[cfg(feature = "http")]
pub use probe::vendor::VendorProbe;
pub use probe::{Context, Probe, ProbeSpec, probe_fn};
pub use redact::redact;
