//! Logs, each line read exactly once, whatever rotation does meanwhile.
//!
//! [`Follower`] reads files across rotation and says where it is; [`Traffic`] counts requests of access logs, [`Faults`] groups
//! the errors of error logs. All three are data, so that they are kept together: what was counted and up to where.

mod access;
mod faults;
mod fingerprint;
mod follow;
mod logins;
mod message;
mod top;
mod traffic;

pub use access::AccessLine;
pub use faults::{Fault, Faults};
pub use fingerprint::template;
pub use follow::{Follower, Scan, Start};
pub use logins::{FailedLogins, LoginFailure, masked};
pub use message::{Level, LineTime, LogMessage};
pub use top::Top;
pub use traffic::{Minute, Traffic, TrafficOptions};
