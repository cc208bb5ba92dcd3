//! Asking a second time: idle streams take over what a slower one would bring late.

use std::time::Duration;

use crate::manifest::{BlockId, Manifest, StreamId};
use crate::schedule::scheduler::Scheduler;
use crate::schedule::stream_state::{StreamState, min_window};

/// The part of a file that may be requested for twice: one fiftieth.
const PART: u64 = 50;
/// How much later than in twice the second copy's time the first one must be expected: less than that is what a forecast
/// over a few tenths of a second is wrong by where streams share one path, and there a second copy only takes room.
const MARGIN: Duration = Duration::from_millis(100);

/// How many bytes may be requested for twice: 2 % of the file or, where that is less, what one stream always may assignment.
pub(super) fn max_duplicated(manifest: &Manifest) -> u64 {
    (manifest.size() / PART).max(min_window(manifest.block_size().bytes()))
}

/// Whether a second copy that takes `mine` is worth its bytes when the first one takes `theirs`.
fn is_worth(mine: Duration, theirs: Duration) -> bool {
    mine.saturating_mul(2).saturating_add(MARGIN) < theirs
}

impl Scheduler {
    /// The block that the stream, which gets no other one, had better request for a second time.
    ///
    /// At the end that is the one expected last. Before the end there is nothing to hand out only if an in-order
    /// consumer waits; then it is the first one that is missing.
    pub(super) fn hedge(&mut self, hedging_stream: StreamId, now: Duration) -> Option<BlockId> {
        // Of a stream that is not known yet nothing better is expected than of this one.
        let guess = match self.pool.typical_rate() {
            0 => self.states.get(hedging_stream.index())?.throughput.rate(now, 0),
            typical_rate => typical_rate,
        };
        if self.policy.limited {
            // How fast a stream is says nothing then, and every byte is at another's expense.
            return None;
        }
        let (block, theirs) = if self.is_all_assigned() {
            self.expected_last(hedging_stream, now, guess)?
        } else if self.policy.ahead.is_some() {
            self.expected_next(hedging_stream, now, guess)?
        } else {
            return None;
        };
        let state = self.states.get(hedging_stream.index())?;
        let len = self.table.len_of(block);
        let is_allowed = self.can_duplicate(len)
            // A pushed run may reach farther.
            && self.table.manifest().range(block).start() < self.limit()
            // It would only come corrupt again while the other copy is under way.
            && self.table.last_corrupted_by(block) != Some(hedging_stream)
            && (state.is_idle() || state.outstanding().saturating_add(len) <= self.window(state));
        let mine = state.time_for_more(len, now, guess);
        (is_allowed && is_worth(mine, theirs)).then_some(block)
    }

    pub(super) fn can_duplicate(&self, len: u64) -> bool {
        self.duplicated.saturating_add(len) <= self.max_duplicated
    }

    /// Of the blocks that end the queues of the others, the one expected last.
    fn expected_last(
        &mut self,
        hedging_stream: StreamId,
        now: Duration,
        guess: u64,
    ) -> Option<(BlockId, Duration)> {
        let table = &self.table;
        let others = self.states.iter_mut().enumerate().filter(|(index, _)| *index != hedging_stream.index());
        let expected = |state: &mut StreamState| {
            // A block that has another holder, or none because it is verified, is left to it.
            let last = state.last_sole(|block| table.sole_assignment(block).is_some())?;
            Some((last.block, state.time_to(last.run_end, now, guess)))
        };
        others.filter_map(|(_, state)| expected(state)).max_by_key(|(_, time)| *time)
    }

    /// Near the frontier, the first block that only one other stream holds.
    fn expected_next(
        &self,
        hedging_stream: StreamId,
        now: Duration,
        guess: u64,
    ) -> Option<(BlockId, Duration)> {
        let among = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        let (block, assignment) = self.table.first_assigned_once(among)?;
        let state =
            self.states.get(assignment.stream.index()).filter(|_| assignment.stream != hedging_stream)?;
        Some((block, state.time_to(assignment.run_end, now, guess)))
    }
}
