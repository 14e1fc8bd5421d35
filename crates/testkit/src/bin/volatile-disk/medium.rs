//! What is on the medium of a disk, and what is in its cache only.

use std::collections::HashMap;
use std::sync::Arc;

const BLOCK: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

type Block = Arc<[u8; BLOCK]>;
type Blocks = HashMap<u64, Block>;

/// A disk; blocks that were never written are zeroes.
#[derive(Clone, Default)]
pub(crate) struct Medium {
    /// What the kernel reads.
    current: Blocks,
    /// What a cut leaves in any case.
    durable: Blocks,
    /// The writes since the last flush, in their order.
    cache: Vec<(u64, Block)>,
}

/// What became of the writes that were not flushed.
pub(crate) struct Survivors {
    pub(crate) written: usize,
    pub(crate) kept: usize,
    pub(crate) torn: usize,
}

impl Medium {
    pub(crate) fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let mut data = vec![0; size];
        for (number, within, part) in pieces(offset, size) {
            if let Some(block) = self.current.get(&number) {
                let length = part.len();
                data[part].copy_from_slice(&block[within..within + length]);
            }
        }
        data
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        for (number, within, part) in pieces(offset, data.len()) {
            let mut block = self.current.get(&number).map_or([0; BLOCK], |block| **block);
            block[within..within + part.len()].copy_from_slice(&data[part]);
            let block = Arc::new(block);
            self.current.insert(number, Arc::clone(&block));
            self.cache.push((number, block));
        }
    }

    pub(crate) fn flush(&mut self) {
        self.durable.extend(self.cache.drain(..));
    }

    /// The disk after the power was cut.
    pub(crate) fn cut(&self, random: &mut fastrand::Rng) -> (Self, Survivors) {
        // None of them, all but the torn ones, or any.
        let share = *random.choice(&[0.0, 0.0, 0.1, 0.5, 0.9, 1.0]).expect("a choice");
        let tears = random.bool();
        let mut durable = self.durable.clone();
        let mut survivors = Survivors { written: self.cache.len(), kept: 0, torn: 0 };
        for (number, block) in &self.cache {
            if random.f64() >= share {
                continue;
            }
            survivors.kept += 1;
            if !tears || random.u8(..10) > 0 {
                durable.insert(*number, Arc::clone(block));
                continue;
            }
            survivors.torn += 1;
            let mut torn = durable.get(number).map_or([0; BLOCK], |block| **block);
            for start in (0..BLOCK).step_by(SECTOR).filter(|_| random.bool()) {
                torn[start..start + SECTOR].copy_from_slice(&block[start..start + SECTOR]);
            }
            durable.insert(*number, Arc::new(torn));
        }
        (Self { current: durable.clone(), durable, cache: Vec::new() }, survivors)
    }
}

/// The parts of a range: the number of the block, where in it, and where in the range.
fn pieces(offset: u64, size: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == size {
            return None;
        }
        let position = offset + at as u64;
        let within = (position % BLOCK as u64) as usize;
        let length = (BLOCK - within).min(size - at);
        let piece = (position / BLOCK as u64, within, at..at + length);
        at += length;
        Some(piece)
    })
}
