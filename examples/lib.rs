//! What the tools share: exit codes, the words for sources and targets, signals, progress, plain figures.
//!
//! ```text
//! backup_text    what `backup` says to people
//! checklist_file  the part of a shop's file that is about the checklist
//! cli        running a command to its exit code; messages
//! locate     sources and targets from URLs
//! maintain_text  what `maintain` says to people
//! policy_file    a shop's policy as a TOML file
//! probe_text what `probe` says to people
//! shop_file  a shop, described once, as a TOML file
//! display    sizes, times and progress for people
//! report     one HTML file
//! ```

mod allocator;
pub mod backup_text;
pub mod checklist_file;
pub mod cli;
pub mod display;
pub mod locate;
pub mod maintain_text;
pub mod policy_file;
pub mod probe_text;
pub mod report;
pub mod shop_file;
