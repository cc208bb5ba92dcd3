//! Where every block is: not handed out, held by one or two streams, given returned, or verified.

use std::collections::{BTreeSet, HashMap};

use super::Verified;
use crate::manifest::{BlockId, BlockSet, Manifest, StreamId};

/// A block in a stream's queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Assignment {
    pub(super) stream: StreamId,
    /// Where the block ends among all bytes that were requested for on that connection.
    pub(super) end: u64,
}

/// Who has requested for a block that is not verified: one stream, or two.
#[derive(Clone, Copy, Debug)]
enum Holders {
    One(Assignment),
    Two(Assignment, Assignment),
}

/// What a block is after a stream has let go of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Released {
    /// The stream did not assignment it as something wanted; the block is verified, or with somebody else.
    NotHeld,
    /// Another stream holds it, now alone.
    HeldBy(Assignment),
    /// Nobody holds it; it has gone returned.
    Returned,
}

/// How often a block received corrupt, and on which stream it did so last.
#[derive(Clone, Copy, Debug)]
struct Corruption {
    times: u32,
    by: StreamId,
}

/// The state of all blocks.
///
/// Every block below the cursor is verified, held, or given returned; none at or behind it is held or given returned. So what is
/// kept beside the set of the verified ones is bounded by what is in flight.
#[derive(Debug)]
pub(super) struct BlockTable {
    manifest: Manifest,
    verified: BlockSet,
    /// The first block that was never handed out.
    cursor: u32,
    /// The first block that is not verified; the number of blocks if all are.
    frontier: u32,
    held: HashMap<BlockId, Holders>,
    returned: BTreeSet<BlockId>,
    corrupted: HashMap<BlockId, Corruption>,
    /// The bytes that nobody holds and that are not verified.
    unassigned: u64,
    /// The bytes that are not verified.
    missing: u64,
}

/// How many blocks that received corrupt on a stream are passed over for it, to bound the search.
const MOST_PASSED: usize = 64;

impl BlockTable {
    /// The state at the start, with what is there from an earlier run.
    pub(super) fn new(manifest: Manifest, done: BlockSet) -> Self {
        let missing = manifest
            .blocks()
            .filter(|block| !done.contains(*block))
            .map(|block| manifest.range(block).len())
            .sum();
        let mut table = Self {
            manifest,
            verified: done,
            cursor: 0,
            frontier: 0,
            held: HashMap::new(),
            returned: BTreeSet::new(),
            corrupted: HashMap::new(),
            unassigned: missing,
            missing,
        };
        table.advance_frontier();
        table
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(super) fn verified(&self) -> &BlockSet {
        &self.verified
    }

    pub(super) fn unassigned(&self) -> u64 {
        self.unassigned
    }

    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    pub(super) fn len_of(&self, block: BlockId) -> u64 {
        self.manifest.range(block).len()
    }

    /// The first byte that is not verified; the file's size if all are.
    pub(super) fn frontier(&self) -> u64 {
        self.manifest
            .block(u64::from(self.frontier))
            .map_or(self.manifest.size(), |block| self.manifest.range(block).start())
    }

    /// Whether a stream holds something that is wanted.
    pub(super) fn is_anything_assigned(&self) -> bool {
        !self.held.is_empty()
    }

    /// The lowest block to hand out that begins before `limit`, passing over those that received corrupt on `avoiding`.
    pub(super) fn lowest(&self, limit: u64, avoiding: Option<StreamId>) -> Option<BlockId> {
        let corrupted = |block| avoiding.is_some() && self.last_corrupted_by(block) == avoiding;
        let returned = self.returned.iter().take(MOST_PASSED).copied().find(|block| !corrupted(*block));
        let lowest = returned.or_else(|| self.verified.first_missing(self.cursor))?;
        (self.manifest.range(lowest).start() < limit).then_some(lowest)
    }

    /// Whether a block that is missing received corrupt.
    pub(super) fn is_any_corrupted(&self) -> bool {
        !self.corrupted.is_empty()
    }

    /// The stream on which the block received corrupt last, if it did.
    pub(super) fn last_corrupted_by(&self, block: BlockId) -> Option<StreamId> {
        self.corrupted.get(&block).map(|corrupted| corrupted.by)
    }

    /// Hands a block out; says whether it is now held twice.
    pub(super) fn assign(&mut self, block: BlockId, assignment: Assignment) -> bool {
        match self.held.get(&block).copied() {
            Some(Holders::One(first) | Holders::Two(first, _)) => {
                self.held.insert(block, Holders::Two(first, assignment));
                true
            }
            None => {
                self.held.insert(block, Holders::One(assignment));
                if !self.returned.remove(&block) {
                    self.cursor = self.cursor.max(block.value().saturating_add(1));
                }
                self.unassigned = self.unassigned.saturating_sub(self.len_of(block));
                false
            }
        }
    }

    /// The only stream that holds the block, if the block is wanted and there is just one.
    pub(super) fn sole_holder(&self, block: BlockId) -> Option<Assignment> {
        match self.held.get(&block) {
            Some(Holders::One(assignment)) => Some(*assignment),
            Some(Holders::Two(..)) | None => None,
        }
    }

    /// The first block from the frontier on that exactly one stream holds, among so many blocks.
    pub(super) fn first_assigned_once(&self, among: u32) -> Option<(BlockId, Assignment)> {
        (self.frontier..self.frontier.saturating_add(among)).find_map(|index| {
            let block = self.manifest.block(u64::from(index))?;
            self.sole_holder(block).map(|assignment| (block, assignment))
        })
    }

    /// The block is verified.
    pub(super) fn verify(&mut self, stream: StreamId, block: BlockId) -> Verified {
        if !self.verified.insert(block) {
            return Verified::Duplicate;
        }
        let len = self.len_of(block);
        self.missing = self.missing.saturating_sub(len);
        self.corrupted.remove(&block);
        let holders = self.held.remove(&block);
        if holders.is_none() {
            // It received on a stream that was given up in the meantime.
            self.returned.remove(&block);
            self.unassigned = self.unassigned.saturating_sub(len);
        }
        self.advance_frontier();
        let also_held_by = match holders {
            Some(Holders::One(assignment)) => Some(assignment.stream).filter(|other| *other != stream),
            Some(Holders::Two(one, two)) => Some(if one.stream == stream { two.stream } else { one.stream }),
            None => None,
        };
        Verified::First { also_held_by }
    }

    /// The stream does not bring the block.
    pub(super) fn release(&mut self, stream: StreamId, block: BlockId) -> Released {
        let left = match self.held.get(&block).copied() {
            Some(Holders::One(assignment)) if assignment.stream == stream => None,
            Some(Holders::Two(one, two)) if one.stream == stream => Some(two),
            Some(Holders::Two(one, two)) if two.stream == stream => Some(one),
            Some(Holders::One(_) | Holders::Two(..)) | None => return Released::NotHeld,
        };
        if let Some(assignment) = left {
            self.held.insert(block, Holders::One(assignment));
            return Released::HeldBy(assignment);
        }
        self.held.remove(&block);
        self.returned.insert(block);
        self.unassigned = self.unassigned.saturating_add(self.len_of(block));
        Released::Returned
    }

    /// The block received corrupt on that stream; says how often it has by now.
    pub(super) fn record_corruption(&mut self, stream: StreamId, block: BlockId) -> u32 {
        let corrupted = self.corrupted.entry(block).or_insert(Corruption { times: 0, by: stream });
        *corrupted = Corruption { times: corrupted.times.saturating_add(1), by: stream };
        corrupted.times
    }

    fn advance_frontier(&mut self) {
        let missing = self.verified.first_missing(self.frontier);
        self.frontier = missing.map_or(self.manifest.n_blocks(), BlockId::value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{BlockSize, StreamCount};

    const LEN: u64 = 16 << 10;

    fn table(done: &[u64]) -> (BlockTable, impl Fn(u64) -> BlockId, impl Fn(u8) -> StreamId) {
        let manifest = Manifest::new(6 * LEN - 1, BlockSize::new(LEN).unwrap()).unwrap();
        let mut set = BlockSet::new(&manifest);
        for index in done {
            set.insert(manifest.block(*index).unwrap());
        }
        let stream = |id| StreamCount::new(8).unwrap().stream(id).unwrap();
        (BlockTable::new(manifest, set), move |index| manifest.block(index).unwrap(), stream)
    }

    #[test]
    fn blocks_go_out_in_order_and_what_went_back_goes_first() {
        let (mut table, block, stream) = table(&[1, 2]);
        let take = |table: &mut BlockTable, end| {
            let lowest = table.lowest(u64::MAX, None).unwrap();
            assert!(!table.assign(lowest, Assignment { stream: stream(0), end }));
            lowest
        };
        assert_eq!(table.missing(), 4 * LEN - 1);
        for (at, index) in [0, 3, 4].into_iter().enumerate() {
            assert_eq!(take(&mut table, u64::try_from(at).unwrap()), block(index));
        }
        assert_eq!(table.release(stream(0), block(3)), Released::Returned);
        assert_eq!(table.release(stream(0), block(0)), Released::Returned);
        for index in [0, 3, 5] {
            assert_eq!(take(&mut table, 9), block(index));
        }
        assert_eq!((table.lowest(u64::MAX, None), table.unassigned()), (None, 0));
    }

    #[test]
    fn the_frontier_is_the_first_byte_that_is_missing() {
        let (mut table, block, stream) = table(&[1]);
        for (verified, frontier) in [(2, 0), (0, 3 * LEN), (4, 3 * LEN), (3, 5 * LEN), (5, 6 * LEN - 1)] {
            assert_eq!(table.verify(stream(0), block(verified)), Verified::First { also_held_by: None });
            assert_eq!(table.frontier(), frontier);
        }
        assert_eq!((table.missing(), table.unassigned(), table.verified().is_full()), (0, 0, true));
    }

    #[test]
    fn a_block_with_two_holders_stays_with_the_other_one() {
        let (mut table, block, stream) = table(&[]);
        let (one, two) = (Assignment { stream: stream(1), end: 5 }, Assignment { stream: stream(2), end: 7 });
        assert!(!table.assign(block(0), one));
        assert_eq!(table.first_assigned_once(1), Some((block(0), one)));
        assert!(table.assign(block(0), two));
        assert_eq!((table.sole_holder(block(0)), table.first_assigned_once(6)), (None, None));
        assert_eq!(table.release(stream(3), block(0)), Released::NotHeld);
        assert_eq!(table.release(stream(1), block(0)), Released::HeldBy(two));
        assert!(table.assign(block(0), one));
        assert_eq!(table.verify(stream(2), block(0)), Verified::First { also_held_by: Some(stream(1)) });
        assert_eq!(table.verify(stream(1), block(0)), Verified::Duplicate);
        assert_eq!(table.release(stream(1), block(0)), Released::NotHeld);
    }

    #[test]
    fn a_spoiled_block_is_passed_over_for_the_stream_that_spoiled_it() {
        let (mut table, block, stream) = table(&[]);
        table.assign(block(0), Assignment { stream: stream(1), end: 1 });
        assert_eq!(table.record_corruption(stream(1), block(0)), 1);
        assert_eq!(table.release(stream(1), block(0)), Released::Returned);
        assert_eq!(table.lowest(u64::MAX, Some(stream(1))), Some(block(1)));
        assert_eq!(table.lowest(u64::MAX, Some(stream(2))), Some(block(0)));
        assert_eq!(table.lowest(u64::MAX, None), Some(block(0)));
        assert_eq!(table.lowest(LEN, Some(stream(1))), None);
        assert_eq!(table.record_corruption(stream(2), block(0)), 2);
    }
}
