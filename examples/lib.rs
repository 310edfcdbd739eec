//! What the tools share: exit codes, the words for sources and targets, signals, progress, plain figures.
//!
//! ```text
//! agent_core a shop that looks after itself
//! agent_http its faces over HTTP
//! backup_text    what `backup` says to people
//! checklist_desk  what `checklist` works with
//! checklist_file  the part of a shop's file that is about the checklist
//! cli        running a command to its exit code; messages
//! crew       what is done for a shop, each job once
//! deployment gates, the command, the watch, the way back
//! locate     sources and targets from URLs
//! maintain_text  what `maintain` says to people
//! policy_file    a shop's policy as a TOML file
//! probe_text what `probe` says to people
//! schedule   when a job is due
//! scheduler  jobs at their times, on many servers
//! shop_file  a shop, described once, as a TOML file
//! shop_jobs  the jobs of a shop
//! shop_plan  the parts of it that say what is done
//! shop_probes its probes
//! shop_sections the keys of each kind of probe
//! shop_value spans and secrets in it
//! display    sizes, times and progress for people
//! report     one HTML file
//! ```

pub mod agent_core;
pub mod agent_http;
mod allocator;
pub mod backup_text;
pub mod checklist_desk;
pub mod checklist_file;
pub mod cli;
pub mod crew;
pub mod deployment;
pub mod display;
pub mod locate;
pub mod maintain_text;
pub mod night;
pub mod policy_file;
pub mod probe_text;
pub mod report;
pub mod schedule;
pub mod scheduler;
pub mod shop_file;
pub mod shop_jobs;
pub mod shop_plan;
mod shop_probes;
mod shop_sections;
mod shop_value;
