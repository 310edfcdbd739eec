//! The most frequent of any number of things, in bounded memory.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Counts the most frequent of many. Exact while there are no more than `room` different ones; from then on, the rarest makes
/// room and its count is the newcomer's possible overcount: the Space-Saving algorithm (Metwally, Agrawal, El Abbadi 2005),
/// batched: half of the room is cleared at once, so that it stays fast.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Top {
    room: usize,
    counts: HashMap<String, u64>,
    /// What a newcomer may have been counted before and forgotten.
    floor: u64,
}

impl Top {
    /// Room for so many.
    pub fn new(room: usize) -> Self {
        Self { room: room.max(2), counts: HashMap::new(), floor: 0 }
    }

    /// Counts one; says its count.
    pub fn add(&mut self, key: &str) -> u64 {
        if let Some(count) = self.counts.get_mut(key) {
            *count += 1;
            return *count;
        }
        if self.counts.len() >= self.room {
            let mut all: Vec<u64> = self.counts.values().copied().collect();
            let middle = all.len() / 2;
            let (_, median, _) = all.select_nth_unstable(middle);
            let limit = *median;
            let mut surplus = self.room / 2;
            self.counts.retain(|_, count| {
                let keep = *count > limit || (*count == limit && surplus == 0);
                if !keep && *count == limit {
                    surplus -= 1;
                }
                keep
            });
            self.floor = self.floor.max(limit);
        }
        self.counts.insert(key.to_owned(), self.floor + 1);
        self.floor + 1
    }

    /// The `n` most frequent, with counts that may be too high by [`Top::overcount`].
    pub fn most(&self, n: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> = self.counts.iter().map(|(k, c)| (k.as_str(), *c)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all.truncate(n);
        all
    }

    /// By how much a count may be too high; 0 while there was room.
    pub fn overcount(&self) -> u64 {
        self.floor
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_ones_stay_and_memory_is_bounded() {
        let mut top = Top::new(100);
        for i in 0..100_000u32 {
            top.add(&format!("rare {i}"));
            if i % 10 == 0 {
                top.add("often");
            }
        }
        assert!(top.len() <= 100);
        let (name, count) = top.most(1)[0];
        assert_eq!(name, "often");
        assert!(count >= 10_000 && count <= 10_000 + top.overcount(), "{count} {}", top.overcount());
    }
}
