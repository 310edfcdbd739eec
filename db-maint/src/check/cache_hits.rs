//! Pages that were not found in the server's own memory.
//!
//! A share of hits says little by itself: the system keeps pages in memory too, where a miss costs next to nothing, and one large
//! report lowers it for weeks. So it is told only where very many pages were missed, as a notice, and with that caveat.

use chrono::{DateTime, Utc};

use crate::activity::Seen;
use crate::finding::{Confidence, Finding, Outcome, Severity};
use crate::look::Look;
use crate::look::cache::Cache;

pub(crate) const ID: &str = "cache-hits";

const LOW: f64 = 0.90;
/// Fewer pages that were missed are nothing, whatever their share: some 800 MB.
const MISSES: u64 = 100_000;

pub(crate) fn judge(now: &Seen<Cache>, earlier: Option<&Look>) -> Outcome {
    let cache = match now {
        Ok(cache) => cache,
        Err(unseen) => return unseen.clone().into(),
    };
    let before = earlier.and_then(|look| Some((look.taken_at, look.cache.as_ref().ok()?)));
    let (hits, misses, since) = between(cache, before);
    let share = hits as f64 / (hits + misses).max(1) as f64;
    let is_low = misses >= MISSES && share < LOW;
    let finding = is_low.then(|| {
        let since = since.map_or("since the server began to count".to_owned(), |at| at.format("since %Y-%m-%d %H:%M UTC").to_string());
        Finding::new(
            ID,
            cache.of.clone(),
            format!("{:.1} % of pages were found in the server's own memory {since}; the system's memory is not counted", share * 100.0),
        )
        .severity(Severity::Notice)
        .confidence(Confidence::Estimated)
        .evidence("hits_pages", hits)
        .evidence("misses_pages", misses)
        .remedy("look for slow queries first; then see whether the server may have more memory (shared_buffers, innodb_buffer_pool_size)")
    });
    Outcome::of(1, finding.into_iter().collect(), vec![])
}

/// What was counted between the looks; since the beginning where they do not count on from one another.
fn between(now: &Cache, before: Option<(DateTime<Utc>, &Cache)>) -> (u64, u64, Option<DateTime<Utc>>) {
    match before {
        Some((then, before)) if now.since == before.since && now.hits >= before.hits && now.misses >= before.misses => {
            (now.hits - before.hits, now.misses - before.misses, Some(then))
        }
        _ => (now.hits, now.misses, now.since),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::sample::blind;

    fn cache(hits: u64, misses: u64) -> Cache {
        Cache { hits, misses, of: "database".into(), since: None }
    }

    fn of(now: Cache, before: Option<Cache>) -> usize {
        let look = before.map(|cache| Look { cache: Ok(cache), ..blind(DateTime::UNIX_EPOCH) });
        judge(&Ok(now), look.as_ref()).findings().len()
    }

    #[test]
    fn it_is_told_where_it_matters_and_for_the_time_between() {
        assert_eq!(of(cache(0, 0), None), 0);
        assert_eq!(of(cache(10, 90), None), 0);
        assert_eq!(of(cache(1_000_000, 900_000), None), 1);
        assert_eq!(of(cache(99_000_000, 900_000), None), 0);
        assert_eq!(of(cache(1_100_000, 900_100), Some(cache(1_000_000, 900_000))), 0);
        assert_eq!(of(cache(1_100_000, 1_900_000), Some(cache(1_000_000, 900_000))), 1);
        // Counted anew meanwhile.
        assert_eq!(of(cache(500_000, 400_000), Some(cache(1_000_000, 900_000))), 1);
    }
}
