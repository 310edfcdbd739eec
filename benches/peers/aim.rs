//! What we aim at, as ratios of two steps, and whether a run reached it.

use caretaker_benches::median;
use serde::Serialize;

use crate::steps::Row;

/// One ratio of two steps, named by their ids.
#[derive(Debug)]
pub(crate) struct Aim {
    pub(crate) step: &'static str,
    pub(crate) against: &'static str,
    pub(crate) bound: Bound,
}

/// What the ratio should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// It takes at most so many times as long.
    Takes(f64),
    /// It is at least so many times as fast.
    Faster(f64),
    /// It stores at most so many times as much.
    Stores(f64),
}

/// An aim with what was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    pub(crate) step: &'static str,
    pub(crate) against: &'static str,
    /// In words: `takes`, `is faster` or `stores`, and the bound.
    pub(crate) aim: String,
    /// The median of the ratios of each round: a slow minute slows both.
    pub(crate) measured: f64,
    pub(crate) reached: bool,
}

impl Aim {
    /// `None` where one of the two did not run.
    pub(crate) fn judge(&self, rows: &[Row]) -> Option<Judged> {
        let row = |id| rows.iter().find(|r| r.id == id);
        let (ours, theirs) = (row(self.step)?, row(self.against)?);
        let ratios = |over: &Row, under: &Row| median(over.runs.iter().zip(&under.runs).map(|(o, u)| o / u).collect());
        let (aim, measured, reached) = match self.bound {
            Bound::Takes(most) => {
                let ratio = ratios(ours, theirs)?;
                (format!("takes at most {most} ×"), ratio, ratio <= most)
            }
            Bound::Faster(least) => {
                let ratio = ratios(theirs, ours)?;
                (format!("is at least {least} × as fast"), ratio, ratio >= least)
            }
            Bound::Stores(most) => {
                let ratio = ours.stored_bytes? as f64 / theirs.stored_bytes? as f64;
                (format!("stores at most {most} ×"), ratio, ratio <= most)
            }
        };
        Some(Judged { step: self.step, against: self.against, aim, measured, reached })
    }
}
