//! Blocks: the unit of scheduling, digest and resume in protocol 2.

use std::fmt;

use super::ByteRange;

/// The size of a block in bytes: a power of two from 16 KiB to 16 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BlockSize(u32);

/// A size that no block has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a block is a power of two from 16 KiB to 16 MiB")]
pub(crate) struct InvalidBlockSize;

impl BlockSize {
    /// The smallest block: below it headers and digests would cost more than they are worth.
    pub(crate) const MIN: u64 = 16 << 10;
    /// The largest block, which bounds what one request can ask for.
    pub(crate) const MAX: u64 = 16 << 20;

    /// Checks a size that came from a peer or a disk.
    pub(crate) fn new(bytes: u64) -> Result<Self, InvalidBlockSize> {
        let in_bounds = (Self::MIN..=Self::MAX).contains(&bytes) && bytes.is_power_of_two();
        u32::try_from(bytes).ok().filter(|_| in_bounds).map(Self).ok_or(InvalidBlockSize)
    }

    /// The size that suits a file of `size` bytes.
    ///
    /// Small files are cut finely, so that all streams have something to do and the last block comes soon; large ones
    /// into at most 2^18 blocks as long as that is possible, so that what is kept of all of them stays small.
    pub(crate) fn for_file(size: u64) -> Self {
        let fine = (size / FINE_BLOCKS).max(1).next_power_of_two().clamp(SMALL, COMMON);
        // Capped before it is rounded up, so that the power of two cannot be too large for a number.
        let few = size.div_ceil(MANY_BLOCKS).clamp(1, Self::MAX).next_power_of_two();
        Self(u32::try_from(fine.max(few)).unwrap_or(u32::MAX))
    }

    /// The size as a number of bytes.
    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.0)
    }
}

/// The block size of most files: large enough that its cost vanishes, small enough to be taken over quickly.
const COMMON: u64 = 512 << 10;
/// The least block size chosen.
const SMALL: u64 = 64 << 10;
/// Into about how many blocks a file is cut whose blocks are below the common size.
const FINE_BLOCKS: u64 = 1024;
/// Into how many blocks a file is cut at most, as long as blocks can be made larger.
const MANY_BLOCKS: u64 = 1 << 18;

/// One block of a file, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct BlockId(u32);

impl BlockId {
    /// The block's position in a list of all blocks.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The block's number, as people and the journal count.
    pub(crate) fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a file is cut into blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    size: u64,
    block: BlockSize,
    n_blocks: u32,
}

/// A file that has too many blocks of that size, or is too large altogether.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the file would have more than 2^24 blocks")]
pub(crate) struct TooManyBlocks;

impl Manifest {
    /// The most blocks of a file: what is kept of each, some 40 bytes, bounds the memory.
    pub(crate) const MAX_BLOCKS: u64 = 1 << 24;

    /// Cuts `size` bytes into blocks of `block` bytes.
    pub(crate) fn new(size: u64, block: BlockSize) -> Result<Self, TooManyBlocks> {
        let n_blocks = size.div_ceil(block.bytes());
        let in_bounds = n_blocks <= Self::MAX_BLOCKS;
        let n_blocks = u32::try_from(n_blocks).ok().filter(|_| in_bounds).ok_or(TooManyBlocks)?;
        Ok(Self { size, block, n_blocks })
    }

    /// The file's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The size of its blocks; the last one may be shorter.
    pub(crate) fn block_size(&self) -> BlockSize {
        self.block
    }

    /// How many blocks the file has.
    pub(crate) fn n_blocks(&self) -> u32 {
        self.n_blocks
    }

    /// The block with this number, if the file has it.
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
        ByteRange::new(start.min(self.size), start.saturating_add(self.block.bytes()).min(self.size))
    }

    /// The block that is exactly `range`, if there is one.
    pub(crate) fn block_at(&self, range: ByteRange) -> Option<BlockId> {
        let block = self.block(range.start() / self.block.bytes())?;
        (self.range(block) == range).then_some(block)
    }
}

/// Consecutive blocks, which one request names and one response carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BlockRun {
    pub(crate) first: BlockId,
    pub(crate) count: u32,
}

impl BlockRun {
    /// The most bytes of a run.
    pub(crate) const MAX: u64 = 16 << 20;
}

impl Manifest {
    /// The run of `count` blocks from number `first` on, as a peer named it; `None` if the manifest lacks one of them, or they
    /// have more than [`BlockRun::MAX`] bytes.
    pub(crate) fn run(&self, first: u64, count: u32) -> Option<BlockRun> {
        let run = BlockRun { first: self.block(first)?, count };
        self.run_len(run).filter(|len| *len <= BlockRun::MAX).map(|_| run)
    }

    /// The bytes of a run; `None` if it has no block, or one that the manifest lacks.
    pub(crate) fn run_range(&self, run: BlockRun) -> Option<ByteRange> {
        let last = self.block(u64::from(run.first.0) + u64::from(run.count.checked_sub(1)?))?;
        Some(ByteRange::new(self.range(run.first).start(), self.range(last).end()))
    }

    /// How many bytes a run has; `None` as for [`run_range`](Self::run_range).
    pub(crate) fn run_len(&self, run: BlockRun) -> Option<u64> {
        self.run_range(run).map(|range| range.len())
    }

    /// The blocks of a run, in order.
    pub(crate) fn blocks_of(&self, run: BlockRun) -> impl ExactSizeIterator<Item = BlockId> + use<> {
        let end = run.first.0.saturating_add(run.count).min(self.n_blocks);
        (run.first.0..end.max(run.first.0)).map(BlockId)
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

/// A set of blocks of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BlockSet {
    words: Vec<u64>,
    n_blocks: u32,
    len: u32,
}

impl BlockSet {
    /// The empty set over the blocks of `manifest`.
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let n_words = usize::try_from(manifest.n_blocks.div_ceil(u64::BITS)).unwrap_or(usize::MAX);
        Self { words: vec![0; n_words], n_blocks: manifest.n_blocks, len: 0 }
    }

    /// How many blocks are in the set.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Whether every block of the file is in the set.
    pub(crate) fn is_full(&self) -> bool {
        self.len == self.n_blocks
    }

    /// Whether `block` is in the set.
    pub(crate) fn contains(&self, block: BlockId) -> bool {
        let (word, bit) = place(block);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds `block`; says whether it was not in the set before. A block that the file does not have is never added.
    pub(crate) fn insert(&mut self, block: BlockId) -> bool {
        let (word, bit) = place(block);
        let Some(word) = self.words.get_mut(word).filter(|word| block.0 < self.n_blocks && **word & bit == 0)
        else {
            return false;
        };
        *word |= bit;
        self.len += 1;
        true
    }

    /// Takes `block` out; says whether it was in the set.
    pub(crate) fn remove(&mut self, block: BlockId) -> bool {
        let (word, bit) = place(block);
        let Some(word) = self.words.get_mut(word).filter(|word| **word & bit != 0) else { return false };
        *word &= !bit;
        self.len -= 1;
        true
    }

    /// The first block at or behind `from` that is not in the set.
    pub(crate) fn first_missing(&self, from: u32) -> Option<BlockId> {
        let mut at = from;
        while at < self.n_blocks {
            let (word, _) = place(BlockId(at));
            let bits = self.words.get(word).copied().unwrap_or(0) >> (at % u64::BITS);
            let ones = bits.trailing_ones();
            if ones < u64::BITS - at % u64::BITS {
                at = at.saturating_add(ones);
                return (at < self.n_blocks).then_some(BlockId(at));
            }
            at = (at / u64::BITS + 1).saturating_mul(u64::BITS);
        }
        None
    }
}

fn place(block: BlockId) -> (usize, u64) {
    (usize::try_from(block.0 / u64::BITS).unwrap_or(usize::MAX), 1 << (block.0 % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn run_has_at_most_16_mib() {
        for (block, most) in [(16 << 10, 1 << 10), (1 << 20, 16), (16 << 20, 1)] {
            let manifest = Manifest::new(1 << 30, BlockSize::new(block).unwrap()).unwrap();
            assert!(manifest.run(1, most).is_some() && manifest.run(1, most + 1).is_none(), "{block}");
            assert_eq!(manifest.pushed_run(0, u64::MAX).map(|run| run.count), Some(most));
        }
    }

    #[test]
    fn a_block_is_a_power_of_two_within_bounds() {
        for (bytes, good) in [
            (0, false),
            (8 << 10, false),
            (16 << 10, true),
            (3 << 14, false),
            (16 << 20, true),
            (32 << 20, false),
        ] {
            assert_eq!(BlockSize::new(bytes).is_ok(), good, "{bytes}");
        }
    }

    #[test]
    fn every_size_has_a_block_size_and_bounded_memory() {
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
            assert_eq!(BlockSize::new(block), Ok(chosen));
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
                prop_assert_eq!(manifest.block_at(range), Some(block));
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
            // Peers can name it.
            if let Some(run) = pushed {
                prop_assert_eq!(manifest.run(u64::from(run.first.value()), run.count), Some(run));
            }
        }

        #[test]
        fn a_set_agrees_with_a_model(n in 1..200_u64, steps in proptest::collection::vec((any::<bool>(), 0..200_u64), 0..300)) {
            let manifest = Manifest::new(n << 14, BlockSize::new(1 << 14).unwrap()).unwrap();
            let (mut set, mut model) = (BlockSet::new(&manifest), BTreeSet::new());
            for (insert, index) in steps {
                let Some(block) = manifest.block(index) else { continue };
                if insert {
                    prop_assert_eq!(set.insert(block), model.insert(block));
                } else {
                    prop_assert_eq!(set.remove(block), model.remove(&block));
                }
            }
            prop_assert_eq!(usize::try_from(set.len()).unwrap(), model.len());
            prop_assert_eq!(set.is_full(), manifest.blocks().all(|block| model.contains(&block)));
            for from in 0..manifest.n_blocks() + 2 {
                let missing = manifest.blocks().find(|block| block.value() >= from && !model.contains(block));
                prop_assert_eq!(set.first_missing(from), missing);
            }
        }
    }
}
