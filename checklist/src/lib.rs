//! Check a shop against a list, and remember what was found.
//!
//! So far this crate holds one thing: the [`Check`] trait, its [`Outcome`]s, and the [`score`] over them. There is no
//! item of a checklist in it yet.
//!
//! ```
//! use checklist::{Outcome, score};
//!
//! let s = score(&[Outcome::Pass, Outcome::Unknown]).expect("something was asked");
//! // Half of it is known to be right; of the other half nothing is known, and that counts for nothing.
//! assert_eq!((s.passed, s.known, s.asked), (1, 1, 2));
//! assert!(score(&[]).is_none());
//! ```

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// Something that can be checked automatically.
#[async_trait]
pub trait Check: Debug + Send + Sync {
    /// Why it could not be checked.
    type Error: Error + Send + Sync + 'static;

    /// The item it speaks for.
    fn item(&self) -> &str;

    /// Looks, and changes nothing. Dropping the future ends it.
    async fn run(&self) -> Result<Outcome, Self::Error>;
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is as it should be.
    Pass,
    /// It is not.
    Fail,
    /// It could not be seen.
    Unknown,
    /// It does not concern this shop.
    NotApplicable,
}

/// How many items pass, with how much of it is known at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Items that pass.
    pub passed: usize,
    /// Items whose state is known.
    pub known: usize,
    /// Items that concern this shop.
    pub asked: usize,
}

/// The score of these outcomes; none where nothing was asked, which is not a full score.
pub fn score(outcomes: &[Outcome]) -> Option<Score> {
    let count = |which: &[Outcome]| outcomes.iter().filter(|o| which.contains(o)).count();
    let asked = count(&[Outcome::Pass, Outcome::Fail, Outcome::Unknown]);
    (asked > 0).then(|| Score { passed: count(&[Outcome::Pass]), known: count(&[Outcome::Pass, Outcome::Fail]), asked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_never_helps_and_nothing_has_no_score() {
        assert_eq!(score(&[]), None);
        assert_eq!(score(&[Outcome::NotApplicable]), None);
        let without = score(&[Outcome::Pass, Outcome::Fail]).unwrap();
        let with = score(&[Outcome::Pass, Outcome::Fail, Outcome::Unknown]).unwrap();
        assert_eq!((with.passed, with.known), (without.passed, without.known));
        assert!(with.asked > without.asked);
    }
}
