//! How much is fulfilled, and how much of it is known at all.

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// How many items are fulfilled, with how much of it is known.
///
/// The value is the share of fulfilled items among all that concern the shop; what is unknown is among them, and what is waived. So looking
/// away never helps, and neither does a waiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Score {
    /// Items that pass, or are attested.
    pub good: usize,
    /// Items whose state is known.
    pub known: usize,
    /// Items that somebody answers for.
    pub waived: usize,
    /// Items that concern this shop.
    pub asked: usize,
}

impl Score {
    /// The share that is fulfilled, 0 to 1.
    pub fn value(&self) -> f64 {
        self.good as f64 / self.asked as f64
    }

    /// The share that is known, 0 to 1.
    pub fn coverage(&self) -> f64 {
        self.known as f64 / self.asked as f64
    }
}

/// The score of these outcomes; `None` where nothing was asked, which is not a full score.
///
/// ```
/// use checklist::{Outcome, score};
///
/// let s = score([Outcome::Pass, Outcome::Unknown]).expect("something was asked");
/// assert_eq!((s.good, s.known, s.asked), (1, 1, 2));
/// assert!(score([]).is_none());
/// ```
pub fn score(outcomes: impl IntoIterator<Item = Outcome>) -> Option<Score> {
    let mut score = Score { good: 0, known: 0, waived: 0, asked: 0 };
    for outcome in outcomes {
        score.asked += usize::from(outcome != Outcome::NotApplicable);
        score.good += usize::from(outcome.is_good());
        score.waived += usize::from(outcome == Outcome::Waived);
        score.known += usize::from(!matches!(outcome, Outcome::NotApplicable | Outcome::Unknown));
    }
    (score.asked > 0).then_some(score)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop::sample::select(vec![
            Outcome::Pass,
            Outcome::Attested,
            Outcome::Warn,
            Outcome::Fail,
            Outcome::Unknown,
            Outcome::Waived,
            Outcome::NotApplicable,
        ])
    }

    proptest! {
        #[test]
        fn looking_away_never_helps(outcomes in prop::collection::vec(any_outcome(), 0..40), at in 0usize..40) {
            let before = score(outcomes.clone());
            let mut more = outcomes.clone();
            more.push(Outcome::Unknown);
            let after = score(more).unwrap();
            if let Some(before) = before {
                prop_assert!(after.value() <= before.value() && after.coverage() <= before.coverage());
            }
            prop_assert!(after.value() <= after.coverage());
            // Nor does it help that an item that was known becomes unknown, or waived.
            if at < outcomes.len() && outcomes[at] != Outcome::NotApplicable {
                for worse in [Outcome::Unknown, Outcome::Waived] {
                    let mut changed = outcomes.clone();
                    changed[at] = worse;
                    prop_assert!(score(changed).unwrap().value() <= before.unwrap().value());
                }
            }
        }
    }

    #[test]
    fn an_empty_section_has_no_score() {
        assert_eq!(score([]), None);
        assert_eq!(score([Outcome::NotApplicable]), None);
        assert!(score([Outcome::Fail]).unwrap().value() == 0.0);
    }
}
