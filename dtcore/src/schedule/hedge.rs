//! Asking a second time: idle streams take over what a slower one would bring late.

use std::time::Duration;

use crate::manifest::{BlockIndex, BlockPlan, StreamId};
use crate::schedule::scheduler::Scheduler;
use crate::schedule::stream_state::{Lane, least_window};

/// The part of a file that may be asked for twice: one fiftieth.
const PART: u64 = 50;
/// How much later than in twice the second copy's time the first one must be expected: less than that is what a forecast
/// over a few tenths of a second is wrong by where streams share one path, and there a second copy only takes room.
const MARGIN: Duration = Duration::from_millis(100);

/// How many bytes may be asked for twice: 2 % of the file or, where that is less, what one stream always may hold.
pub(super) fn most_duplicated(plan: &BlockPlan) -> u64 {
    (plan.size() / PART).max(least_window(plan.block_size().bytes()))
}

/// Whether a second copy that takes `mine` is worth its bytes when the first one takes `theirs`.
fn is_worth(mine: Duration, theirs: Duration) -> bool {
    mine.saturating_mul(2).saturating_add(MARGIN) < theirs
}

impl Scheduler {
    /// The block that the stream, which gets no other one, had better ask for a second time.
    ///
    /// At the end that is the one expected last. Before the end there is nothing to hand out only if an in-order
    /// consumer waits; then it is the first one that is missing.
    pub(super) fn hedge(&mut self, thief: StreamId, now: Duration) -> Option<BlockIndex> {
        // Of a stream that is not known yet nothing better is expected than of this one.
        let guess = match self.pool.typical() {
            0 => self.lanes.get(thief.index())?.meter.rate(now, 0),
            typical => typical,
        };
        if self.policy.limited {
            // How fast a stream is says nothing then, and every byte is at another's expense.
            return None;
        }
        let (block, theirs) = if self.is_all_asked() {
            self.expected_last(thief, now, guess)?
        } else if self.policy.ahead.is_some() {
            self.expected_next(thief, now, guess)?
        } else {
            return None;
        };
        let lane = self.lanes.get(thief.index())?;
        let len = self.ledger.len_of(block);
        let is_allowed = self.can_duplicate(len)
            // It would only come corrupt again while the other copy is under way.
            && self.ledger.spoiled_by(block) != Some(thief)
            && (lane.is_idle() || lane.outstanding().saturating_add(len) <= self.window(lane));
        let mine = lane.time_for_more(len, now, guess);
        (is_allowed && is_worth(mine, theirs)).then_some(block)
    }

    pub(super) fn can_duplicate(&self, len: u64) -> bool {
        self.duplicated.saturating_add(len) <= self.most_duplicated
    }

    /// Of the blocks that end the queues of the others, the one expected last.
    fn expected_last(
        &mut self,
        thief: StreamId,
        now: Duration,
        guess: u64,
    ) -> Option<(BlockIndex, Duration)> {
        let ledger = &self.ledger;
        let others = self.lanes.iter_mut().enumerate().filter(|(index, _)| *index != thief.index());
        let expected = |lane: &mut Lane| {
            // A block that has another holder, or none because it is verified, is left to it.
            let last = lane.last_alone(|block| ledger.only_holder(block).is_some())?;
            Some((last.block, lane.time_to(last.end, now, guess)))
        };
        others.filter_map(|(_, lane)| expected(lane)).max_by_key(|(_, time)| *time)
    }

    /// Near the frontier, the first block that only one other stream holds.
    fn expected_next(&self, thief: StreamId, now: Duration, guess: u64) -> Option<(BlockIndex, Duration)> {
        let among = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let (block, hold) = self.ledger.first_held_once(among)?;
        let lane = self.lanes.get(hold.stream.index()).filter(|_| hold.stream != thief)?;
        Some((block, lane.time_to(hold.end, now, guess)))
    }
}
