//! Ids in blocks: one durable transaction for many ids.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Ids reserved by one transaction; those left over at a crash or a restart are lost, which costs nothing. Few, since a
/// copy of the file that was made amid a block looks as if it knew all of its ids.
const BLOCK: u64 = 16;

/// The block of ids that may be given out without asking the file.
#[derive(Debug)]
pub(super) struct Ids(Mutex<Range<u64>>);

impl Ids {
    /// `next`: the first id that is not reserved.
    pub(super) fn new(next: u64) -> Self {
        Self(Mutex::new(next..next))
    }

    /// The next id. `reserve(count)` makes `count` ids ours for ever and returns the first.
    pub(super) fn next<E>(&self, reserve: impl FnOnce(u64) -> Result<u64, E>) -> Result<u64, E> {
        let mut block = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let first = reserve(BLOCK)?;
        *block = first + 1..first + BLOCK;
        Ok(first)
    }

    /// Gives out no more ids of the block; the end of it.
    pub(super) fn skip(&self) -> u64 {
        let mut block = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        block.start = block.end;
        block.end
    }
}
