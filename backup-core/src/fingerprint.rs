//! Order-independent content fingerprints: do two tables hold the same rows?
//!
//! A fingerprint is the number of rows and the sum, modulo 2^128, of each row's XXH3-128 hash with seed 0 (xxHash
//! specification 0.2.0, Collet). Sums do not depend on order, can be computed piecewise and added, and count duplicates
//! (the construction is AdHASH of Bellare & Micciancio, "A New Paradigm for Collision-Free Hashing: Incrementality at
//! Reduced Cost", 1997). Two sets of rows that differ by accident agree with a probability of about 2^-128. It is
//! evidence against mistakes and decay, not against an attacker who can choose rows: chunks have keyed BLAKE3 names and
//! the repository its signatures for that. Rows are short and many; on them a cryptographic hash costs many times as much
//! as reading them.

use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_128;

/// Rows and their order-independent 128-bit sum; see the [module](self) for the definition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    rows: u64,
    sum: u128,
}

impl Fingerprint {
    /// The fingerprint of no rows at all.
    pub const EMPTY: Self = Self { rows: 0, sum: 0 };

    /// Counts one row in, given its canonical bytes (without the line end).
    pub fn add_row(&mut self, row: &[u8]) {
        self.add_hash(XxHash3_128::oneshot(row));
    }

    /// Counts one row in whose hash a [`RowHasher`] computed.
    pub(crate) fn add_hash(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    /// How many rows were counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

/// The hash of a row that comes in pieces.
pub(crate) struct RowHasher(XxHash3_128);

impl RowHasher {
    pub(crate) fn new() -> Self {
        Self(XxHash3_128::new())
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.write(piece);
    }

    pub(crate) fn finish(&self) -> u128 {
        self.0.finish_128()
    }
}

impl fmt::Debug for RowHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RowHasher").finish_non_exhaustive()
    }
}

impl AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:032x}", self.rows, self.sum)
    }
}

/// The text is not `ROWS:32-hex-digits`.
#[derive(Debug, thiserror::Error)]
#[error("not a fingerprint: {0:?}")]
pub struct ParseFingerprintError(String);

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseFingerprintError(text.to_owned());
        let (rows, sum) = text.split_once(':').ok_or_else(error)?;
        Ok(Self { rows: rows.parse().map_err(|_| error())?, sum: u128::from_str_radix(sum, 16).map_err(|_| error())? })
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(rows: &[Vec<u8>]) -> Fingerprint {
        let mut f = Fingerprint::EMPTY;
        rows.iter().for_each(|r| f.add_row(r));
        f
    }

    /// The definition stands in every repository that was ever written: this must not change.
    #[test]
    fn the_hash_is_xxh3_128_with_seed_0() {
        // The specification's value for no bytes, and `xxhsum -H2`'s for the line.
        assert_eq!(of(&[Vec::new()]).to_string(), "1:99aa06d3014798d86001c324468d497f");
        assert_eq!(of(&[b"abc".to_vec()]).to_string(), "1:06b05ab6733a618578af5f94892f3950");
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_parts_add_up(rows: Vec<Vec<u8>>, at: prop::sample::Index) {
            let whole = of(&rows);
            let mut reversed = rows.clone();
            reversed.reverse();
            prop_assert_eq!(whole, of(&reversed));
            let at = if rows.is_empty() { 0 } else { at.index(rows.len()) };
            let mut sum = of(&rows[..at]);
            sum += of(&rows[at..]);
            prop_assert_eq!(whole, sum);
            prop_assert_eq!(whole.to_string().parse::<Fingerprint>().unwrap(), whole);
        }

        #[test]
        fn a_row_in_pieces_is_the_same_row(row: Vec<u8>, at: prop::sample::Index) {
            let at = if row.is_empty() { 0 } else { at.index(row.len()) };
            let mut hasher = RowHasher::new();
            hasher.update(&row[..at]);
            hasher.update(&row[at..]);
            let mut pieces = Fingerprint::EMPTY;
            pieces.add_hash(hasher.finish());
            prop_assert_eq!(pieces, of(&[row]));
        }

        #[test]
        fn a_changed_lost_or_doubled_row_shows(rows in prop::collection::vec(any::<Vec<u8>>(), 1..20), at: prop::sample::Index, byte: u8) {
            let at = at.index(rows.len());
            let whole = of(&rows);
            let mut changed = rows.clone();
            changed[at].push(byte);
            prop_assert_ne!(whole, of(&changed));
            let mut lost = rows.clone();
            lost.remove(at);
            prop_assert_ne!(whole, of(&lost));
            let mut doubled = rows.clone();
            doubled.push(rows[at].clone());
            prop_assert_ne!(whole, of(&doubled));
        }
    }
}
