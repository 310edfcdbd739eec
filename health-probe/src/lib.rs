//! Observe a shop and judge what was seen.
//!
//! So far this crate holds one thing: the [`Probe`] trait, the [`Reading`]s it returns, and the rule by which a reading
//! is held against its [`Limits`]. There is no probe in it yet, and nothing that alerts.
//!
//! ```
//! use health_probe::{Limits, Reading, Verdict, judge};
//!
//! let limits = Limits { warning: 80.0, critical: 95.0 };
//! assert_eq!(judge(Some(&Reading { value: 85.0, unit: "%" }), "%", limits), Verdict::Warning);
//! // Nothing seen, no number, another unit: that is not healthy.
//! assert_eq!(judge(None, "%", limits), Verdict::Unknown);
//! assert_eq!(judge(Some(&Reading { value: f64::NAN, unit: "%" }), "%", limits), Verdict::Unknown);
//! assert_eq!(judge(Some(&Reading { value: 0.1, unit: "ratio" }), "%", limits), Verdict::Unknown);
//! ```

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// Something that can be observed.
#[async_trait]
pub trait Probe: Debug + Send + Sync {
    /// Why nothing could be observed.
    type Error: Error + Send + Sync + 'static;

    /// What messages call it.
    fn name(&self) -> &str;

    /// Looks once, by a new connection. Dropping the future ends it.
    async fn observe(&self) -> Result<Reading, Self::Error>;
}

/// A number with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reading {
    /// The number.
    pub value: f64,
    /// Its unit, such as `%`, `ms` or `days`.
    pub unit: &'static str,
}

/// From where on a reading is bad; larger is worse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// From here on it is worth a look.
    pub warning: f64,
    /// From here on somebody has to act.
    pub critical: f64,
}

/// How an observation is judged, from good to bad to unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Below the limits.
    Healthy,
    /// At or above the limit for a warning.
    Warning,
    /// At or above the critical limit.
    Critical,
    /// Not seen, or not in a form that can be judged.
    Unknown,
}

/// Holds a reading in `unit` against `limits`. What is missing, is no finite number or has another unit is unknown.
pub fn judge(reading: Option<&Reading>, unit: &str, limits: Limits) -> Verdict {
    match reading {
        Some(r) if r.unit == unit && r.value.is_finite() => {
            if r.value >= limits.critical {
                Verdict::Critical
            } else if r.value >= limits.warning {
                Verdict::Warning
            } else {
                Verdict::Healthy
            }
        }
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_finite_number_of_the_right_unit_is_healthy() {
        let limits = Limits { warning: 1.0, critical: 2.0 };
        let at = |value| judge(Some(&Reading { value, unit: "s" }), "s", limits);
        assert_eq!([at(0.9), at(1.0), at(2.0)], [Verdict::Healthy, Verdict::Warning, Verdict::Critical]);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(at(value), Verdict::Unknown);
        }
        assert_eq!(judge(Some(&Reading { value: 0.0, unit: "ms" }), "s", limits), Verdict::Unknown);
    }
}
