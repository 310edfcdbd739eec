//! Wrappers around any probe: a time limit, another try, a cache; and debouncing of what they come to.

mod cache;
mod debounce;
mod retry;
mod timeout;

use std::time::Duration;

pub use cache::Cached;
pub use debounce::{Change, Debounce};
pub use retry::Retried;
pub use timeout::TimeLimited;

use crate::probe::Probe;

/// Wrappers for any probe. The outermost is the last one called: `probe.retried(2, pause).with_timeout(limit)` limits all tries
/// together.
pub trait ProbeExt: Probe + Sized {
    /// Ends a look that takes longer: an error, thus unknown.
    fn with_timeout(self, limit: Duration) -> TimeLimited<Self> {
        TimeLimited::new(self, limit)
    }

    /// Looks again, `tries` times at most altogether, where a look is not healthy; the first failures are kept.
    fn retried(self, tries: u32, pause: Duration) -> Retried<Self> {
        Retried::new(self, tries, pause)
    }

    /// Says again what was seen less than `keep` ago.
    fn cached(self, keep: Duration) -> Cached<Self> {
        Cached::new(self, keep)
    }
}

impl<P: Probe + Sized> ProbeExt for P {}
