//! Where every block is: not handed out, held by one or two streams, given back, or verified.

use std::collections::{BTreeSet, HashMap};

use super::Verified;
use crate::manifest::{BlockIndex, BlockPlan, BlockSet, StreamId};

/// A block in a stream's queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hold {
    pub(super) stream: StreamId,
    /// Where the block ends among all bytes that were asked for on that connection.
    pub(super) end: u64,
}

/// Who has asked for a block that is not verified: one stream, or two.
#[derive(Clone, Copy, Debug)]
enum Holders {
    One(Hold),
    Two(Hold, Hold),
}

/// What a block is after a stream has let go of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Released {
    /// The stream did not hold it as something wanted; the block is verified, or with somebody else.
    NotHeld,
    /// Another stream holds it, now alone.
    HeldBy(Hold),
    /// Nobody holds it; it has gone back.
    Back,
}

/// How often a block came corrupt, and on which stream it did so last.
#[derive(Clone, Copy, Debug)]
struct Spoiled {
    times: u32,
    by: StreamId,
}

/// The state of all blocks.
///
/// Every block below the cursor is verified, held, or given back; none at or behind it is held or given back. So what is
/// kept beside the set of the verified ones is bounded by what is in flight.
#[derive(Debug)]
pub(super) struct Ledger {
    plan: BlockPlan,
    verified: BlockSet,
    /// The first block that was never handed out.
    cursor: u32,
    /// The first block that is not verified; the number of blocks if all are.
    frontier: u32,
    held: HashMap<BlockIndex, Holders>,
    back: BTreeSet<BlockIndex>,
    spoiled: HashMap<BlockIndex, Spoiled>,
    /// The bytes that nobody holds and that are not verified.
    unasked: u64,
    /// The bytes that are not verified.
    missing: u64,
}

/// How many blocks that came corrupt on a stream are passed over for it, to bound the search.
const MOST_PASSED: usize = 64;

impl Ledger {
    /// The state at the start, with what is there from an earlier run.
    pub(super) fn new(plan: BlockPlan, done: BlockSet) -> Self {
        let missing =
            plan.blocks().filter(|block| !done.contains(*block)).map(|block| plan.range(block).len()).sum();
        let mut ledger = Self {
            plan,
            verified: done,
            cursor: 0,
            frontier: 0,
            held: HashMap::new(),
            back: BTreeSet::new(),
            spoiled: HashMap::new(),
            unasked: missing,
            missing,
        };
        ledger.follow();
        ledger
    }

    pub(super) fn plan(&self) -> &BlockPlan {
        &self.plan
    }

    pub(super) fn verified(&self) -> &BlockSet {
        &self.verified
    }

    pub(super) fn unasked(&self) -> u64 {
        self.unasked
    }

    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    pub(super) fn len_of(&self, block: BlockIndex) -> u64 {
        self.plan.range(block).len()
    }

    /// The first byte that is not verified; the file's size if all are.
    pub(super) fn frontier(&self) -> u64 {
        self.plan
            .block(u64::from(self.frontier))
            .map_or(self.plan.size(), |block| self.plan.range(block).start())
    }

    /// Whether a stream holds something that is wanted.
    pub(super) fn is_anything_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// The lowest block to hand out that begins before `limit`, passing over those that came corrupt on `avoiding`.
    pub(super) fn lowest(&self, limit: u64, avoiding: Option<StreamId>) -> Option<BlockIndex> {
        let spoiled = |block| avoiding.is_some() && self.spoiled_by(block) == avoiding;
        let back = self.back.iter().take(MOST_PASSED).copied().find(|block| !spoiled(*block));
        let lowest = back.or_else(|| self.verified.first_missing(self.cursor))?;
        (self.plan.range(lowest).start() < limit).then_some(lowest)
    }

    /// Whether a block that is missing came corrupt.
    pub(super) fn is_any_spoiled(&self) -> bool {
        !self.spoiled.is_empty()
    }

    /// The stream on which the block came corrupt last, if it did.
    pub(super) fn spoiled_by(&self, block: BlockIndex) -> Option<StreamId> {
        self.spoiled.get(&block).map(|spoiled| spoiled.by)
    }

    /// Hands a block out; says whether it is now held twice.
    pub(super) fn hand_out(&mut self, block: BlockIndex, hold: Hold) -> bool {
        match self.held.get(&block).copied() {
            Some(Holders::One(first) | Holders::Two(first, _)) => {
                self.held.insert(block, Holders::Two(first, hold));
                true
            }
            None => {
                self.held.insert(block, Holders::One(hold));
                if !self.back.remove(&block) {
                    self.cursor = self.cursor.max(block.value().saturating_add(1));
                }
                self.unasked = self.unasked.saturating_sub(self.len_of(block));
                false
            }
        }
    }

    /// The only stream that holds the block, if the block is wanted and there is just one.
    pub(super) fn only_holder(&self, block: BlockIndex) -> Option<Hold> {
        match self.held.get(&block) {
            Some(Holders::One(hold)) => Some(*hold),
            Some(Holders::Two(..)) | None => None,
        }
    }

    /// The first block from the frontier on that exactly one stream holds, among so many blocks.
    pub(super) fn first_held_once(&self, among: u32) -> Option<(BlockIndex, Hold)> {
        (self.frontier..self.frontier.saturating_add(among)).find_map(|index| {
            let block = self.plan.block(u64::from(index))?;
            self.only_holder(block).map(|hold| (block, hold))
        })
    }

    /// The block is verified.
    pub(super) fn verify(&mut self, stream: StreamId, block: BlockIndex) -> Verified {
        if !self.verified.insert(block) {
            return Verified::Duplicate;
        }
        let len = self.len_of(block);
        self.missing = self.missing.saturating_sub(len);
        self.spoiled.remove(&block);
        let holders = self.held.remove(&block);
        if holders.is_none() {
            // It came on a stream that was given up in the meantime.
            self.back.remove(&block);
            self.unasked = self.unasked.saturating_sub(len);
        }
        self.follow();
        let also_held_by = match holders {
            Some(Holders::One(hold)) => Some(hold.stream).filter(|other| *other != stream),
            Some(Holders::Two(one, two)) => Some(if one.stream == stream { two.stream } else { one.stream }),
            None => None,
        };
        Verified::First { also_held_by }
    }

    /// The stream does not bring the block.
    pub(super) fn release(&mut self, stream: StreamId, block: BlockIndex) -> Released {
        let left = match self.held.get(&block).copied() {
            Some(Holders::One(hold)) if hold.stream == stream => None,
            Some(Holders::Two(one, two)) if one.stream == stream => Some(two),
            Some(Holders::Two(one, two)) if two.stream == stream => Some(one),
            Some(Holders::One(_) | Holders::Two(..)) | None => return Released::NotHeld,
        };
        if let Some(hold) = left {
            self.held.insert(block, Holders::One(hold));
            return Released::HeldBy(hold);
        }
        self.held.remove(&block);
        self.back.insert(block);
        self.unasked = self.unasked.saturating_add(self.len_of(block));
        Released::Back
    }

    /// The block came corrupt on that stream; says how often it has by now.
    pub(super) fn spoil(&mut self, stream: StreamId, block: BlockIndex) -> u32 {
        let spoiled = self.spoiled.entry(block).or_insert(Spoiled { times: 0, by: stream });
        *spoiled = Spoiled { times: spoiled.times.saturating_add(1), by: stream };
        spoiled.times
    }

    fn follow(&mut self) {
        let missing = self.verified.first_missing(self.frontier);
        self.frontier = missing.map_or(self.plan.n_blocks(), BlockIndex::value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{BlockSize, StreamCount};

    const LEN: u64 = 16 << 10;

    fn ledger(done: &[u64]) -> (Ledger, impl Fn(u64) -> BlockIndex, impl Fn(u8) -> StreamId) {
        let plan = BlockPlan::new(6 * LEN - 1, BlockSize::new(LEN).unwrap()).unwrap();
        let mut set = BlockSet::new(&plan);
        for index in done {
            set.insert(plan.block(*index).unwrap());
        }
        let stream = |id| StreamCount::new(8).unwrap().stream(id).unwrap();
        (Ledger::new(plan, set), move |index| plan.block(index).unwrap(), stream)
    }

    #[test]
    fn blocks_go_out_in_order_and_what_went_back_goes_first() {
        let (mut ledger, block, stream) = ledger(&[1, 2]);
        let take = |ledger: &mut Ledger, end| {
            let lowest = ledger.lowest(u64::MAX, None).unwrap();
            assert!(!ledger.hand_out(lowest, Hold { stream: stream(0), end }));
            lowest
        };
        assert_eq!(ledger.missing(), 4 * LEN - 1);
        for (at, index) in [0, 3, 4].into_iter().enumerate() {
            assert_eq!(take(&mut ledger, u64::try_from(at).unwrap()), block(index));
        }
        assert_eq!(ledger.release(stream(0), block(3)), Released::Back);
        assert_eq!(ledger.release(stream(0), block(0)), Released::Back);
        for index in [0, 3, 5] {
            assert_eq!(take(&mut ledger, 9), block(index));
        }
        assert_eq!((ledger.lowest(u64::MAX, None), ledger.unasked()), (None, 0));
    }

    #[test]
    fn the_frontier_is_the_first_byte_that_is_missing() {
        let (mut ledger, block, stream) = ledger(&[1]);
        for (verified, frontier) in [(2, 0), (0, 3 * LEN), (4, 3 * LEN), (3, 5 * LEN), (5, 6 * LEN - 1)] {
            assert_eq!(ledger.verify(stream(0), block(verified)), Verified::First { also_held_by: None });
            assert_eq!(ledger.frontier(), frontier);
        }
        assert_eq!((ledger.missing(), ledger.unasked(), ledger.verified().is_full()), (0, 0, true));
    }

    #[test]
    fn a_block_with_two_holders_stays_with_the_other_one() {
        let (mut ledger, block, stream) = ledger(&[]);
        let (one, two) = (Hold { stream: stream(1), end: 5 }, Hold { stream: stream(2), end: 7 });
        assert!(!ledger.hand_out(block(0), one));
        assert_eq!(ledger.first_held_once(1), Some((block(0), one)));
        assert!(ledger.hand_out(block(0), two));
        assert_eq!((ledger.only_holder(block(0)), ledger.first_held_once(6)), (None, None));
        assert_eq!(ledger.release(stream(3), block(0)), Released::NotHeld);
        assert_eq!(ledger.release(stream(1), block(0)), Released::HeldBy(two));
        assert!(ledger.hand_out(block(0), one));
        assert_eq!(ledger.verify(stream(2), block(0)), Verified::First { also_held_by: Some(stream(1)) });
        assert_eq!(ledger.verify(stream(1), block(0)), Verified::Duplicate);
        assert_eq!(ledger.release(stream(1), block(0)), Released::NotHeld);
    }

    #[test]
    fn a_spoiled_block_is_passed_over_for_the_stream_that_spoiled_it() {
        let (mut ledger, block, stream) = ledger(&[]);
        ledger.hand_out(block(0), Hold { stream: stream(1), end: 1 });
        assert_eq!(ledger.spoil(stream(1), block(0)), 1);
        assert_eq!(ledger.release(stream(1), block(0)), Released::Back);
        assert_eq!(ledger.lowest(u64::MAX, Some(stream(1))), Some(block(1)));
        assert_eq!(ledger.lowest(u64::MAX, Some(stream(2))), Some(block(0)));
        assert_eq!(ledger.lowest(u64::MAX, None), Some(block(0)));
        assert_eq!(ledger.lowest(LEN, Some(stream(1))), None);
        assert_eq!(ledger.spoil(stream(2), block(0)), 2);
    }
}
