//! See trouble before customers do, and say it once.

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
pub use probe::logs::{AccessLogProbe, ErrorLogProbe};
#[cfg(feature = "smtp")]
pub use probe::mail::SmtpProbe;
pub use probe::mail::{Maildir, Receipt, RoundTripProbe};
#[cfg(feature = "http")]
pub use probe::page::PageProbe;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use probe::sql::{Metric, MetricReport, SqlProbe};
#[cfg(feature = "http")]
pub use probe::tcp::TcpProbe;
#[cfg(feature = "http")]
pub use probe::tls::{Starttls, TlsProbe};
#[cfg(feature = "http")]
pub use probe::vendor::VendorProbe;
pub use probe::{Context, Probe, ProbeSpec, probe_fn};
pub use redact::redact;
