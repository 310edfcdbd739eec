//! A checklist that checks, remembers and expires.
//!
//! The [`items`] are those of the shop's guides: thirty in six sections, each with what is at stake, where it is written, what to do in
//! a shop of Next.js and of PHP, and what a person has to say where no machine can know. [`Check`]s look; an [`Auditor`] runs them
//! and weighs what they saw against what people said. What could not be seen is unknown, and never counts as fulfilled.
//!
//! ```
//! use checklist::{Auditor, Context, Outcome, Standing, items};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! // Without access to anything, nothing is known, and nothing passes.
//! let auditor = Auditor::new(items());
//! let audit = auditor.run("shop.example", &Context::at(chrono::Utc::now()), &Standing::default()).await;
//! let score = audit.score.expect("there are items");
//! assert_eq!((score.good, score.known), (0, 0));
//! assert!(audit.items.iter().all(|item| item.outcome == Outcome::Unknown));
//! # }
//! ```
//!
//! # Layout
//!
//! ```text
//! item          an item, and the trait of a check
//! outcome       what a check found, and its evidence
//! catalog/      the items of the guides, gates of a deployment, steps of an incident
//! audit         runs checks, weighs what was seen against what was said
//! standing      attestations and waivers
//! score         how much is fulfilled, and how much of it is known
//! ledger/       what was found and said, only ever added to
//! task          recurring tasks: due, overdue, done by whom
//! register      secrets by age, software by its end of life
//! scaling       phases of growth
//! dependencies/ lock files against advisories in the format of OSV
//! report/       Markdown, HTML, JSON, SARIF, JUnit
//! check/        what looks: at a site, a source tree, a database, a host
//! ```

mod audit;
mod catalog;
pub mod check;
pub mod dependencies;
mod error;
mod item;
pub mod ledger;
mod outcome;
mod register;
pub mod report;
mod scaling;
mod score;
#[cfg(any(feature = "http", feature = "source"))]
mod secrets;
mod standing;
mod task;

pub use audit::{Audit, Auditor, CheckReport, ItemReport};
pub use catalog::{deployment_gates, incident_steps, items, table};
pub use error::{Error, ErrorKind, Result};
pub use item::{Check, Context, Item, Risk, Tier};
pub use outcome::{Evidence, Finding, Outcome, Place};
pub use register::{Contact, END_OF_LIFE_AS_OF, Secret, SecretAge, Software, secret_ages};
pub use scaling::{Need, Phase, ScalingAdvice, scaling, whole_months};
pub use score::{Score, score};
pub use standing::{Attestation, Standing, Waiver};
pub use task::{Occurrence, Recurrence, Task, TaskState, completions, routines};
