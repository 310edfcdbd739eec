//! A change has to be confirmed, down and up.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::judge::Verdict;

/// Turns verdicts into a confirmed state: it worsens when the last `down` verdicts are all at least so bad, and betters when
/// the last `up` are all at most so bad. Pure; bad is by [`Verdict::rank`].
///
/// The first verdict of all counts at once where it is healthy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Debounce {
    down: u32,
    up: u32,
    confirmed: Option<Verdict>,
    /// The last verdicts, as many as the larger of the two.
    last: Vec<(DateTime<Utc>, Verdict)>,
}

/// A confirmed change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it was; `None` the first time.
    pub from: Option<Verdict>,
    /// What it is now.
    pub to: Verdict,
    /// When the first of the verdicts that confirm it came.
    pub since: DateTime<Utc>,
}

impl Default for Debounce {
    /// Two of each.
    fn default() -> Self {
        Self::new(2, 2)
    }
}

impl Debounce {
    /// So many verdicts to go down, so many to come up; at least one of each.
    pub fn new(down: u32, up: u32) -> Self {
        Self { down: down.max(1), up: up.max(1), confirmed: None, last: Vec::new() }
    }

    /// The confirmed state; `None` before there is one.
    pub fn confirmed(&self) -> Option<Verdict> {
        self.confirmed
    }

    /// Whether the last verdict is not healthy, confirmed or not.
    pub fn suspect(&self) -> bool {
        self.last.last().is_some_and(|(_, v)| !v.is_healthy())
    }

    /// Takes a verdict; says what it confirms.
    pub fn step(&mut self, at: DateTime<Utc>, verdict: Verdict) -> Option<Change> {
        let keep = self.down.max(self.up) as usize;
        if self.last.len() == keep {
            self.last.remove(0);
        }
        self.last.push((at, verdict));
        let now = self.confirmed.map_or(0, Verdict::rank);
        let (count, worsens) = match verdict.rank() {
            r if r > now => (self.down as usize, true),
            r if r < now => (self.up as usize, false),
            _ if self.confirmed.is_none() => (1, false),
            _ => return None,
        };
        let run = self.last.len().checked_sub(count).map(|from| &self.last[from..])?;
        // As bad as the mildest of them, or as good as the worst: what all of them agree to.
        let ranks = run.iter().map(|(_, v)| *v);
        let to = match worsens {
            true => ranks.min_by_key(|v| v.rank())?,
            false => ranks.max_by_key(|v| v.rank())?,
        };
        let moved = if worsens { to.rank() > now } else { to.rank() < now || self.confirmed.is_none() };
        if !moved {
            return None;
        }
        let since = run.first()?.0;
        let from = self.confirmed.replace(to);
        Some(Change { from, to, since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Critical as C, Healthy as H, Unknown as U, Warning as W};

    /// The confirmed state after each verdict; `None` before there is one.
    fn trace(down: u32, up: u32, verdicts: &[Verdict]) -> Vec<Option<Verdict>> {
        let mut debounce = Debounce::new(down, up);
        let at = |i: usize| DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(i as i64);
        verdicts
            .iter()
            .enumerate()
            .map(|(i, v)| {
                debounce.step(at(i), *v);
                debounce.confirmed()
            })
            .collect()
    }

    #[test]
    fn traces_by_hand() {
        let some = |list: &[Verdict]| list.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(trace(2, 2, &[H, C, H, C, C, H, H]), some(&[H, H, H, H, C, C, H]), "one bad look is none");
        assert_eq!(trace(3, 2, &[H, C, C, W, C, C, C]), some(&[H, H, H, W, W, W, C]), "as bad as all three agree");
        assert_eq!(trace(1, 3, &[C, H, H, C, H, H, H]), some(&[C, C, C, C, C, C, H]), "up needs three");
        assert_eq!(trace(2, 2, &[H, U, U, C, U, C, C]), some(&[H, H, U, U, U, U, C]), "unknown is not healthy");
        assert_eq!(trace(2, 2, &[H, C, C, W, H, H]), some(&[H, H, C, C, W, H]), "better by degrees");
        assert_eq!(trace(2, 2, &[C, C]), [None, Some(C)], "bad from the start has to be confirmed");
        assert_eq!(trace(2, 2, &[C, H]), [None, Some(H)]);
    }

    #[test]
    fn a_change_dates_from_the_first_verdict_that_confirms_it() {
        let mut debounce = Debounce::new(3, 1);
        let at = |m| DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(m);
        debounce.step(at(0), H);
        assert_eq!((debounce.step(at(1), C), debounce.step(at(2), C)), (None, None));
        assert!(debounce.suspect());
        assert_eq!(debounce.step(at(3), C), Some(Change { from: Some(H), to: C, since: at(1) }));
    }
}
