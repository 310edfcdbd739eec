//! Content-defined chunking: cuts a stream where its content says so, so that equal content gives equal chunks even
//! after something was inserted before it. Rows of table data are never split, unless one is longer than a chunk may be.

use std::borrow::Cow;

use bytes::Bytes;
use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

use crate::fingerprint::{Fingerprint, RowHasher};
use crate::manifest::Digest;

/// The smallest chunk, in bytes, unless the stream ends or a unit closes before.
pub(crate) const MIN: usize = 768 * 1024;
/// What chunks are on average, in bytes: encryption and requests cost less for each byte the larger the object.
pub(crate) const AVERAGE: usize = 1024 * 1024;
/// The largest chunk, in bytes.
pub(crate) const MAX: usize = 4 * 1024 * 1024;
/// How much is gathered before it is cut.
pub(crate) const BLOCK: usize = 3 * AVERAGE;

/// A chunk, and which of its bytes are whole rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    /// The part of `bytes` that consists of whole rows, where rows matter. What is outside belongs to a row longer
    /// than a chunk, which the cutter counts itself.
    pub(crate) rows: std::ops::Range<usize>,
}

/// Cuts one entry's stream. Feed it in order.
#[derive(Debug)]
pub(crate) struct Cutter {
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
    masks: (u64, u64),
    lines: bool,
    /// A row that began in an earlier chunk.
    open_row: Option<RowHasher>,
    /// The rows that were longer than a chunk.
    long_rows: Fingerprint,
}

impl Cutter {
    /// `id_key` moves the boundaries, so that they tell an onlooker nothing; `lines` keeps rows together.
    pub(crate) fn new(id_key: &Digest, lines: bool) -> Self {
        let mut seed = [0; 8];
        seed.copy_from_slice(&id_key.0[..8]);
        let (gear, gear_shifted) = get_gear_with_seed(u64::from_le_bytes(seed));
        Self {
            gear,
            gear_shifted,
            masks: select_masks(AVERAGE, Normalization::Level2),
            lines,
            open_row: None,
            long_rows: Fingerprint::EMPTY,
        }
    }

    /// Cuts as many chunks as can be decided on, all of `block` if it is the `last`; returns them and what is left, which
    /// is less than [`MAX`].
    pub(crate) fn cut(&mut self, mut block: Bytes, last: bool) -> (Vec<Chunk>, Bytes) {
        let mut chunks = Vec::new();
        while !block.is_empty() {
            let Some(end) = self.boundary(&block, last) else { break };
            let chunk = block.split_to(end);
            let end_of_stream = last && block.is_empty();
            chunks.push(self.rows_of(chunk, end_of_stream));
        }
        (chunks, block)
    }

    /// The rows that were longer than a chunk; to be added once the stream has ended.
    pub(crate) fn long_rows(&self) -> Fingerprint {
        self.long_rows
    }

    /// Whether rows are kept together.
    pub(crate) fn keeps_lines(&self) -> bool {
        self.lines
    }

    /// Where the first chunk of `block` ends; `None` if that depends on what comes after it.
    fn boundary(&self, block: &[u8], last: bool) -> Option<usize> {
        let window = &block[..block.len().min(MAX)];
        let is_all = last || block.len() >= MAX;
        let (small, large) = self.masks;
        // It goes by pairs of bytes, and an odd one at the end would be judged otherwise than with its neighbour.
        let scanned = if is_all { window } else { &window[..window.len() & !1] };
        let (_, end) =
            cut_gear(scanned, MIN, AVERAGE, MAX, small, large, small << 1, large << 1, &self.gear, &self.gear_shifted);
        if end >= scanned.len() && !is_all {
            return None;
        }
        if !self.lines || end == 0 || window[end - 1] == b'\n' {
            return Some(end.max(1));
        }
        // On to the end of the row; failing that (a row beyond the largest chunk), back to the end of the one before.
        if let Some(more) = memchr::memchr(b'\n', &window[end..]) {
            return Some(end + more + 1);
        }
        if !is_all {
            return None;
        }
        if window.len() == block.len() && block.len() < MAX {
            return Some(block.len());
        }
        Some(memchr::memrchr(b'\n', &window[..end]).map_or(window.len(), |at| at + 1))
    }

    fn rows_of(&mut self, bytes: Bytes, end_of_stream: bool) -> Chunk {
        if !self.lines {
            return Chunk { bytes, rows: 0..0 };
        }
        let mut start = 0;
        if let Some(mut row) = self.open_row.take() {
            let end = memchr::memchr(b'\n', &bytes);
            row.update(&bytes[..end.unwrap_or(bytes.len())]);
            match end {
                None if !end_of_stream => {
                    self.open_row = Some(row);
                    return Chunk { bytes, rows: 0..0 };
                }
                None => {
                    self.long_rows.add_hash(row.finish());
                    return Chunk { bytes, rows: 0..0 };
                }
                Some(at) => {
                    self.long_rows.add_hash(row.finish());
                    start = at + 1;
                }
            }
        }
        let mut end = bytes.len();
        if !end_of_stream && bytes.last() != Some(&b'\n') {
            end = memchr::memrchr(b'\n', &bytes[start..]).map_or(start, |at| start + at + 1);
            let mut row = RowHasher::new();
            row.update(&bytes[end..]);
            self.open_row = Some(row);
        }
        Chunk { rows: start..end, bytes }
    }
}

/// The fingerprint of whole rows, one a line; the last may lack its line end.
pub(crate) fn fingerprint_of_lines(mut lines: &[u8]) -> Fingerprint {
    let mut fingerprint = Fingerprint::EMPTY;
    while !lines.is_empty() {
        let end = memchr::memchr(b'\n', lines).unwrap_or(lines.len());
        fingerprint.add_row(&lines[..end]);
        lines = &lines[(end + 1).min(lines.len())..];
    }
    fingerprint
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Digest = Digest([7; 32]);

    fn chunks(data: &[u8], lines: bool, blocks: usize) -> (Vec<Chunk>, Fingerprint) {
        let mut cutter = Cutter::new(&KEY, lines);
        let mut out = Vec::new();
        let mut pending = Vec::new();
        for block in data.chunks(blocks) {
            pending.extend_from_slice(block);
            let (done, rest) = cutter.cut(Bytes::from(std::mem::take(&mut pending)), false);
            out.extend(done);
            pending = rest.to_vec();
        }
        let (done, rest) = cutter.cut(Bytes::from(pending), true);
        assert!(rest.is_empty());
        out.extend(done);
        let mut fingerprint = cutter.long_rows();
        out.iter().for_each(|c| fingerprint += fingerprint_of_lines(&c.bytes[c.rows.clone()]));
        (out, fingerprint)
    }

    fn noise(seed: u64, length: usize, lines: impl Fn(u64) -> bool) -> Vec<u8> {
        let mut x = seed | 1;
        (0..length)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                if lines(x) { b'\n' } else { (x >> 32) as u8 | 0x20 }
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn nothing_is_lost_and_the_feeding_does_not_matter(
            seed: u64, length in 0usize..12_000_000, one in 1_000_000usize..8_000_000, line in prop::sample::select(vec![50u64, 5_000, 3_000_000, 100_000_000]),
        ) {
            let data = noise(seed, length, |x| x % line == 0);
            let (a, fa) = chunks(&data, true, one);
            let (b, fb) = chunks(&data, true, 6_000_000);
            prop_assert_eq!(a.iter().flat_map(|c| c.bytes.iter().copied()).collect::<Vec<_>>(), data.clone());
            prop_assert_eq!(&a, &b);
            prop_assert_eq!(fa, fb);
            prop_assert_eq!(fa, fingerprint_of_lines(&data));
            prop_assert!(a.iter().all(|c| c.bytes.len() <= MAX));
            // Rows stay whole wherever they fit.
            if line <= 5_000 {
                let all_but_last = a.len().saturating_sub(1);
                prop_assert!(a[..all_but_last].iter().all(|c| c.bytes.last() == Some(&b'\n')));
            }
        }
    }

    #[test]
    fn an_insertion_changes_only_the_chunks_around_it() {
        let data = noise(42, 30_000_000, |x| x % 100 == 0);
        let (before, _) = chunks(&data, true, BLOCK);
        let mut changed = data.clone();
        changed.splice(10_000_000..10_000_000, b"one more row\n".iter().copied());
        let (after, _) = chunks(&changed, true, BLOCK);
        let known: std::collections::HashSet<_> = before.iter().map(|c| c.bytes.clone()).collect();
        let new = after.iter().filter(|c| !known.contains(&c.bytes)).count();
        assert!(new <= 3, "{new} of {} chunks are new", after.len());
    }
}
