//! Blocks and runs: the units of verification and of requests in protocol 2, and the manifest that numbers them.

use std::fmt;

use super::ByteRange;
use crate::num::to_usize;

/// The size of a block in bytes: a power of two from 16 KiB to 16 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BlockSize(u32);

impl BlockSize {
    /// The smallest block: below it headers and digests would cost too much.
    pub(crate) const MIN: u64 = 16 << 10;
    /// The largest block, which bounds one request.
    pub(crate) const MAX: u64 = 16 << 20;

    /// Validates a size from a peer or a disk.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let in_bounds = (Self::MIN..=Self::MAX).contains(&bytes) && bytes.is_power_of_two();
        u32::try_from(bytes).ok().filter(|_| in_bounds).map(Self)
    }

    /// The size for a file of `size` bytes.
    ///
    /// Small files have small blocks, so that all streams get some and the last one arrives soon; large files have at most
    /// 2^18 blocks, as far as that is possible, so that the memory for their states and digests stays small.
    pub(crate) fn for_file(size: u64) -> Self {
        let fine = (size / FINE_BLOCKS).max(1).next_power_of_two().clamp(SMALL, COMMON);
        // Clamped before it is rounded up, so that the power of two cannot overflow.
        let few = size.div_ceil(MANY_BLOCKS).clamp(1, Self::MAX).next_power_of_two();
        Self(u32::try_from(fine.max(few)).unwrap_or(u32::MAX))
    }

    /// The size as a number of bytes.
    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.0)
    }
}

/// The block size of most files: large enough for its overhead to vanish, small enough for another stream to take a
/// block over quickly.
const COMMON: u64 = 512 << 10;
/// The smallest block size that is chosen.
const SMALL: u64 = 64 << 10;
/// About how many blocks a file has whose blocks are smaller than the common size.
const FINE_BLOCKS: u64 = 1024;
/// The most blocks of a file, as long as larger blocks are possible.
const MANY_BLOCKS: u64 = 1 << 18;

/// The number of a block, counted from 0 through all entries of a manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct BlockId(pub(super) u32);

impl BlockId {
    /// The index of the block in a list of all blocks.
    pub(crate) fn index(self) -> usize {
        to_usize(u64::from(self.0))
    }

    /// The number of the block.
    pub(crate) fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is transferred, divided into blocks. It has one entry, a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    size: u64,
    block: BlockSize,
    n_blocks: u32,
}

/// A file that would have too many blocks of that size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the file would have more than 2^24 blocks")]
pub(crate) struct TooManyBlocks;

impl Manifest {
    /// The most blocks of a manifest, which bounds the memory for their states and digests, about 40 bytes each.
    pub(crate) const MAX_BLOCKS: u64 = 1 << 24;

    /// A file of `size` bytes in blocks of `block` bytes.
    pub(crate) fn new(size: u64, block: BlockSize) -> Result<Self, TooManyBlocks> {
        let n_blocks = size.div_ceil(block.bytes());
        let in_bounds = n_blocks <= Self::MAX_BLOCKS;
        let n_blocks = u32::try_from(n_blocks).ok().filter(|_| in_bounds).ok_or(TooManyBlocks)?;
        Ok(Self { size, block, n_blocks })
    }

    /// The size of the file in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The size of the blocks; the last one may be shorter.
    pub(crate) fn block_size(&self) -> BlockSize {
        self.block
    }

    /// How many blocks there are.
    pub(crate) fn n_blocks(&self) -> u32 {
        self.n_blocks
    }

    /// The block with that number, if the manifest has it.
    pub(crate) fn block(&self, index: u64) -> Option<BlockId> {
        u32::try_from(index).ok().filter(|index| *index < self.n_blocks).map(BlockId)
    }

    /// All blocks, in order.
    pub(crate) fn blocks(&self) -> impl DoubleEndedIterator<Item = BlockId> + use<> {
        (0..self.n_blocks).map(BlockId)
    }

    /// The bytes of a block.
    pub(crate) fn range(&self, block: BlockId) -> ByteRange {
        let start = u64::from(block.0) * self.block.bytes();
        ByteRange::new(start.min(self.size), (start + self.block.bytes()).min(self.size))
    }
}

/// Consecutive blocks: what one request names and one response carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BlockRun {
    pub(crate) first: BlockId,
    pub(crate) count: u32,
}

impl BlockRun {
    /// The most bytes in a run.
    pub(crate) const MAX: u64 = 16 << 20;
}

impl Manifest {
    /// The run of `count` blocks from number `first` on, as named by a peer; `None` if `count` is 0, if the manifest lacks one
    /// of the blocks, or if they have more than [`BlockRun::MAX`] bytes.
    pub(crate) fn run(&self, first: u64, count: u32) -> Option<BlockRun> {
        let run = BlockRun { first: self.block(first)?, count };
        self.run_len(run).filter(|len| *len <= BlockRun::MAX).map(|_| run)
    }

    /// The bytes of a run; `None` if it has no blocks, or one that the manifest lacks.
    pub(crate) fn run_range(&self, run: BlockRun) -> Option<ByteRange> {
        let last = self.block(u64::from(run.first.0) + u64::from(run.count.checked_sub(1)?))?;
        Some(ByteRange::new(self.range(run.first).start(), self.range(last).end()))
    }

    /// The length of a run in bytes; `None` as for [`run_range`](Self::run_range).
    pub(crate) fn run_len(&self, run: BlockRun) -> Option<u64> {
        self.run_range(run).map(|range| range.len())
    }

    /// The blocks of a run that the manifest has, in order.
    pub(crate) fn blocks_of(&self, run: BlockRun) -> impl ExactSizeIterator<Item = BlockId> + use<> {
        // Saturating, because a run may have been built from any numbers.
        let end = run.first.0.saturating_add(run.count).min(self.n_blocks);
        (run.first.0..end).map(BlockId)
    }

    /// The run that a sender pushes with its offer: as many complete blocks as fit into `push` bytes, beginning with the block
    /// that holds byte `from`.
    pub(crate) fn pushed_run(&self, from: u64, push: u64) -> Option<BlockRun> {
        let first = self.block(from / self.block.bytes()).filter(|_| from < self.size)?;
        let room = push.min(BlockRun::MAX);
        let start = self.range(first).start();
        let fits = |block: &BlockId| self.range(*block).end() - start <= room;
        let count = (first.0..self.n_blocks).map(BlockId).take_while(fits).count();
        u32::try_from(count).ok().filter(|count| *count > 0).map(|count| BlockRun { first, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn run_has_at_most_16_mib() {
        for (block, most) in [(16 << 10, 1 << 10), (1 << 20, 16), (16 << 20, 1)] {
            let manifest = Manifest::new(1 << 30, BlockSize::new(block).unwrap()).unwrap();
            assert!(manifest.run(1, most).is_some() && manifest.run(1, most + 1).is_none(), "{block}");
            assert_eq!(manifest.pushed_run(0, u64::MAX).map(|run| run.count), Some(most));
        }
    }

    #[test]
    fn block_size_is_a_power_of_two_within_bounds() {
        for (bytes, good) in [
            (0, false),
            (8 << 10, false),
            (16 << 10, true),
            (3 << 14, false),
            (16 << 20, true),
            (32 << 20, false),
        ] {
            assert_eq!(BlockSize::new(bytes).is_some(), good, "{bytes}");
        }
    }

    #[test]
    fn every_file_size_has_a_block_size_within_bounds() {
        for (size, block) in [
            (0, SMALL),
            (1, SMALL),
            (64 << 20, 64 << 10),
            (200_000_000, 256 << 10),
            (2 << 30, COMMON),
            (64 << 30, COMMON),
            (128 << 30, COMMON),
            (256 << 30, 1 << 20),
            (4 << 40, 16 << 20),
        ] {
            let chosen = BlockSize::for_file(size);
            assert_eq!(chosen.bytes(), block, "{size}");
            assert_eq!(BlockSize::new(block), Some(chosen));
            assert!(Manifest::new(size, chosen).is_ok());
        }
        assert_eq!(Manifest::new(u64::MAX, BlockSize::for_file(u64::MAX)), Err(TooManyBlocks));
    }

    proptest! {
        #[test]
        fn blocks_tile_the_file(size in 0..5_000_000_u64, exponent in 14..20_u32) {
            let manifest = Manifest::new(size, BlockSize::new(1 << exponent).unwrap()).unwrap();
            let mut end = 0;
            for block in manifest.blocks() {
                let range = manifest.range(block);
                prop_assert_eq!(range.start(), end);
                prop_assert!(!range.is_empty());
                end = range.end();
            }
            prop_assert_eq!(end, size);
            prop_assert_eq!(manifest.block(u64::from(manifest.n_blocks())), None);
        }

        #[test]
        fn run_is_its_blocks_and_nothing_else(
            size in 0..5_000_000_u64, exponent in 14..20_u32, first in 0..400_u64, count in prop_oneof![0..400_u32, any::<u32>()],
        ) {
            let manifest = Manifest::new(size, BlockSize::new(1 << exponent).unwrap()).unwrap();
            let last = first + u64::from(count);
            let Some(run) = manifest.run(first, count) else {
                prop_assert!(count == 0 || last > u64::from(manifest.n_blocks()));
                return Ok(());
            };
            let blocks: Vec<_> = (first..last).map(|number| manifest.block(number).unwrap()).collect();
            prop_assert!(manifest.blocks_of(run).eq(blocks.iter().copied()));
            prop_assert_eq!(manifest.run_len(run), Some(blocks.iter().map(|block| manifest.range(*block).len()).sum()));
            let range = manifest.run_range(run).unwrap();
            prop_assert_eq!(range.start(), manifest.range(blocks[0]).start());
        }

        #[test]
        fn pushed_run_has_all_blocks_that_fit_from_the_first_missing_byte(
            size in 0..40_000_000_u64, exponent in 14..25_u32,
            from in 0..40_000_000_u64, push in prop_oneof![0..40_000_000_u64, any::<u64>()],
        ) {
            let manifest = Manifest::new(size, BlockSize::new(1 << exponent).unwrap()).unwrap();
            let holds = |block: &BlockId| (manifest.range(*block).start()..manifest.range(*block).end()).contains(&from);
            let mut room = push.min(16 << 20);
            let fits = |block: &BlockId| {
                let left = room.checked_sub(manifest.range(*block).len());
                room = left.unwrap_or(0);
                left.is_some()
            };
            let expected: Vec<_> = manifest.blocks().skip_while(|block| !holds(block)).take_while(fits).collect();
            let pushed = manifest.pushed_run(from, push);
            prop_assert_eq!(pushed.map(|run| manifest.blocks_of(run).collect::<Vec<_>>()).unwrap_or_default(), expected);
            // A run that a peer may name.
            if let Some(run) = pushed {
                prop_assert_eq!(manifest.run(u64::from(run.first.value()), run.count), Some(run));
            }
        }
    }
}
