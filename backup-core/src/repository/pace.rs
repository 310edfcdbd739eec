//! A limit on bandwidth.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets so many bytes pass a second, to and fro together.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u64,
    /// When what was let through before is through.
    free: Mutex<Option<Instant>>,
}

impl Pace {
    /// At least one byte a second.
    pub(super) fn new(per_second: u64) -> Self {
        Self { per_second: per_second.max(1), free: Mutex::default() }
    }

    /// Waits until these bytes may pass. Whoever comes later waits for them too, in the order of asking.
    pub(super) async fn pass(&self, bytes: u64) {
        let begins = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let begins = free.map_or(now, |free| free.max(now));
            *free = Some(begins + Duration::from_secs_f64(bytes as f64 / self.per_second as f64));
            begins
        };
        tokio::time::sleep_until(begins).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_passes_than_is_said() {
        let pace = Pace::new(1000);
        let began = Instant::now();
        // The first goes at once; the next waits until it is through, whatever was idle before.
        for _ in 0..5 {
            pace.pass(500).await;
        }
        assert_eq!(began.elapsed().as_millis(), 2000);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let began = Instant::now();
        pace.pass(10).await;
        assert_eq!(began.elapsed().as_millis(), 0);
        let together = futures::future::join_all((0..4).map(|_| pace.pass(1000)));
        together.await;
        assert_eq!(began.elapsed().as_millis(), 3010);
    }
}
