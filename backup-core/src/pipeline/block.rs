//! Blocks of memory that are used again: asking the system for fresh pages costs more than filling them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Blocks kept for the next use, at most.
const KEPT: usize = 4;

/// Blocks that are not in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blocks(Arc<Mutex<Vec<Vec<u8>>>>);

impl Blocks {
    /// An empty block with room for so many bytes.
    pub(crate) fn take(&self, capacity: usize) -> Vec<u8> {
        let mut block = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        block.reserve_exact(capacity);
        block
    }

    /// The same bytes for many readers; the block comes back when the last of them is done.
    pub(crate) fn share(&self, block: Vec<u8>) -> Bytes {
        Bytes::from_owner(Shared { block, home: self.clone() })
    }
}

struct Shared {
    block: Vec<u8>,
    home: Blocks,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.block
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_empty_and_only_when_nobody_reads_it() {
        let blocks = Blocks::default();
        let mut block = blocks.take(1000);
        block.extend_from_slice(b"some rows");
        let place = block.as_ptr();
        let shared = blocks.share(block);
        let part = shared.slice(5..);
        drop(shared);
        let meanwhile = blocks.take(1000);
        assert_ne!(meanwhile.as_ptr(), place);
        assert_eq!(part, "rows");
        drop(part);
        let again = blocks.take(1000);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }
}
