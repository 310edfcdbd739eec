//! Inspect, judge, plan and apply database maintenance of a shop.
//!
//! So far this crate holds one thing: the [`Engine`] trait and the data that passes through it, so that the shape of the
//! answers is settled. There is no engine in it yet, and so nothing that inspects or changes a database.
//!
//! What is settled is that *unknown is never clean*: a check that lacks a right, a statistic or a version says so in its
//! [`Outcome`], and an inspection without any known outcome is not a good one.
//!
//! ```
//! use db_maint::{Inspection, Outcome};
//!
//! let blind = Inspection::new(vec![("unused indexes".into(), Outcome::Unknown("no right to read statistics".into()))]);
//! assert!(!blind.is_clean());
//! ```

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A database that can be inspected.
#[async_trait]
pub trait Engine: Debug + Send + Sync {
    /// Why a database could not be inspected at all.
    type Error: Error + Send + Sync + 'static;

    /// Looks, and changes nothing. Dropping the future ends every session it opened.
    async fn inspect(&self) -> Result<Inspection, Self::Error>;
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It looked, and all is well.
    Clean,
    /// It looked, and found this.
    Found(String),
    /// It could not look, for this reason.
    Unknown(String),
    /// There is nothing here that it could look at.
    NotApplicable,
}

/// What all checks came to, each with its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    outcomes: Vec<(String, Outcome)>,
}

impl Inspection {
    /// An inspection with these outcomes.
    pub fn new(outcomes: Vec<(String, Outcome)>) -> Self {
        Self { outcomes }
    }

    /// The outcomes, by the name of their check.
    pub fn outcomes(&self) -> &[(String, Outcome)] {
        &self.outcomes
    }

    /// Whether something was looked at, and every check that applies is known to be clean.
    pub fn is_clean(&self) -> bool {
        let known_clean = |o: &Outcome| matches!(o, Outcome::Clean | Outcome::NotApplicable);
        self.outcomes.iter().any(|(_, o)| *o == Outcome::Clean) && self.outcomes.iter().all(|(_, o)| known_clean(o))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_is_not_clean() {
        let of = |outcomes: &[Outcome]| Inspection::new(outcomes.iter().map(|o| ("x".into(), o.clone())).collect());
        assert!(!of(&[]).is_clean());
        assert!(!of(&[Outcome::NotApplicable]).is_clean());
        assert!(!of(&[Outcome::Clean, Outcome::Unknown("no right".into())]).is_clean());
        assert!(!of(&[Outcome::Clean, Outcome::Found("bloat".into())]).is_clean());
        assert!(of(&[Outcome::Clean, Outcome::NotApplicable]).is_clean());
    }
}
