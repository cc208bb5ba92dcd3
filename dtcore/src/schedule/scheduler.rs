//! The scheduler itself: what the driver tells it, and what a stream shall request for next.

use std::time::Duration;

use super::{Corrupt, Next, Policy, Verified};
use crate::manifest::{BlockId, BlockSet, Manifest, StreamCount, StreamId};
use crate::schedule::block_table::{Assignment, BlockTable, Released};
use crate::schedule::pool::Pool;
use crate::schedule::stream_state::{MAX_HELD, StreamState, min_window};
use crate::schedule::watchdog::{OutageDetector, STALL};

/// A stream that was slow is one like any other again at this part of the typical_rate rate.
const HEALTHY: u64 = 4;

/// Decides who asks for what.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(super) streams: StreamCount,
    pub(super) policy: Policy,
    pub(super) table: BlockTable,
    pub(super) states: Vec<StreamState>,
    pub(super) pool: Pool,
    pub(super) outages: OutageDetector,
    /// How far an in-order consumer has come.
    pub(super) consumed: u64,
    /// The bytes that were requested for on a second stream, and how many may be.
    pub(super) duplicated: u64,
    pub(super) max_duplicated: u64,
}

impl Scheduler {
    /// A transfer of all blocks but those of `done`, which are there from an earlier run.
    ///
    /// Nothing could come before `now`.
    pub(crate) fn new(
        manifest: Manifest,
        done: BlockSet,
        streams: StreamCount,
        policy: Policy,
        now: Duration,
    ) -> Self {
        Self {
            streams,
            policy,
            table: BlockTable::new(manifest, done),
            states: streams.ids().map(|_| StreamState::new()).collect(),
            pool: Pool::default(),
            outages: OutageDetector::new(policy, now),
            consumed: 0,
            duplicated: 0,
            max_duplicated: super::hedge::max_duplicated(&manifest),
        }
    }

    /// The stream is connected and greeted; connecting took `rtt`.
    pub(crate) fn opened(&mut self, stream: StreamId, rtt: Duration, now: Duration) {
        self.release_all(stream);
        if let Some(state) = self.states.get_mut(stream.index()) {
            state.open(rtt, now);
            self.pool.opened(rtt, now);
        }
    }

    /// Something else was requested for on the stream that takes its time, and whatever is requested for behind it comes later.
    ///
    /// Until [`set_free`](Self::set_free), or another connection, the stream gets nothing while there are sound others.
    pub(crate) fn detain(&mut self, stream: StreamId) {
        self.set_detained(stream, true);
    }

    /// What the stream was detained for has come.
    pub(crate) fn set_free(&mut self, stream: StreamId) {
        self.set_detained(stream, false);
    }

    fn set_detained(&mut self, stream: StreamId, is_detained: bool) {
        if let Some(state) = self.states.get_mut(stream.index()) {
            state.is_detained = is_detained;
            self.pool.changed();
        }
    }

    /// What the stream shall request for now; to be called until it says nothing.
    pub(crate) fn next(&mut self, stream: StreamId, now: Duration) -> Next {
        if self.is_complete() {
            return Next::Complete;
        }
        self.pool.refresh(&self.states, now);
        let Some(state) = self.states.get(stream.index()).filter(|state| state.is_open()) else {
            return Next::Idle;
        };
        let n_healthy_others = self.pool.n_healthy().saturating_sub(usize::from(state.is_healthy()));
        let is_restricted = !state.is_healthy() && n_healthy_others > 0;
        if is_restricted && state.is_detained {
            return Next::Idle;
        }
        if state.n_held() >= MAX_HELD || is_restricted && !state.is_idle() {
            return Next::Full;
        }
        let limit = self.limit();
        let avoiding = Some(stream).filter(|_| self.has_substitute(stream, now));
        let block = match self.table.lowest(limit, avoiding) {
            Some(block)
                if (is_restricted || self.is_behind(state, now))
                    && !self.finishes_in_time(state, block, now) =>
            {
                return Next::Idle;
            }
            Some(block) if !self.has_room(state, block, now) => return Next::Full,
            Some(block) => block,
            None if is_restricted => return Next::Idle,
            None => match self.hedge(stream, now) {
                Some(block) => block,
                None => return Next::Idle,
            },
        };
        self.assign(stream, block, now);
        Next::Ask(block)
    }

    /// Whether another stream takes what this one had better not request for again.
    fn has_substitute(&self, stream: StreamId, now: Duration) -> bool {
        let is_able =
            |state: &StreamState| state.is_open() && state.is_healthy() && !self.is_behind(state, now);
        let mut others = self.states.iter().enumerate().filter(|(index, _)| *index != stream.index());
        self.table.is_any_corrupted() && others.any(|(_, state)| is_able(state))
    }

    fn assign(&mut self, stream: StreamId, block: BlockId, now: Duration) {
        let len = self.table.len_of(block);
        let Some(state) = self.states.get_mut(stream.index()) else { return };
        let end = state.request(block, len, now);
        if self.table.assign(block, Assignment { stream, end }) {
            self.duplicated = self.duplicated.saturating_add(len);
        }
    }

    /// Whether the block may be in flight on the stream, with what is already.
    fn has_room(&self, state: &StreamState, block: BlockId, now: Duration) -> bool {
        let outstanding = state.outstanding();
        let share = self.pool.share(state, self.within_reach(), now);
        let after = outstanding.saturating_add(self.table.len_of(block));
        outstanding == 0 || after <= self.window(state).min(share)
    }

    pub(super) fn window(&self, state: &StreamState) -> u64 {
        let block = self.table.manifest().block_size().bytes();
        if self.policy.limited { min_window(block) } else { state.window(block) }
    }

    /// Whether a stream that is known to be slow brings the block before the others have brought the rest.
    fn finishes_in_time(&self, state: &StreamState, block: BlockId, now: Duration) -> bool {
        // One that never brought anything may do so again, which takes a while to see.
        let in_vain = if state.throughput.is_known() { Duration::ZERO } else { STALL };
        let mine = state.time_for_more(self.table.len_of(block), now, self.pool.typical_rate()) + in_vain;
        mine <= self.pool.time_without(state, self.within_reach(), now)
    }

    /// Whether a stream could make an in-order consumer wait; the fastest one never does.
    fn is_behind(&self, state: &StreamState, now: Duration) -> bool {
        let typical_rate = self.pool.typical_rate();
        self.policy.ahead.is_some()
            && state.throughput.rate(now, typical_rate).saturating_mul(2) < typical_rate
    }

    /// The bytes that can be brought before an in-order consumer must move on, or else all that are missing.
    fn within_reach(&self) -> u64 {
        self.table.missing().min(self.limit().saturating_sub(self.table.frontier()))
    }

    /// Blocks that begin here or later are not handed out.
    pub(super) fn limit(&self) -> u64 {
        // One byte is always wanted, or nothing would ever come.
        self.policy.ahead.map_or(u64::MAX, |ahead| self.consumed.saturating_add(ahead.max(1)))
    }

    /// `n` more bytes of a block's data received.
    pub(crate) fn received(&mut self, stream: StreamId, n: u64, now: Duration) {
        if let Some(state) = self.states.get_mut(stream.index()) {
            state.receive(n, now);
            self.outages.last_activity(now);
        }
    }

    /// Whether the block is still missing, so that a copy of it is worth verifying.
    pub(crate) fn is_wanted(&self, block: BlockId) -> bool {
        !self.table.verified().contains(block)
    }

    /// The block received on that stream, matches its digest and is stored.
    pub(crate) fn verified(&mut self, stream: StreamId, block: BlockId, now: Duration) -> Verified {
        self.finish(stream, block, now);
        self.table.verify(stream, block)
    }

    /// The block received on that stream and was thrown away, because it was not wanted any more.
    pub(crate) fn skipped(&mut self, stream: StreamId, block: BlockId, now: Duration) {
        self.finish(stream, block, now);
        self.release(stream, block);
    }

    /// The block received on that stream and does not match its digest.
    pub(crate) fn corrupt(&mut self, stream: StreamId, block: BlockId, now: Duration) -> Corrupt {
        self.finish(stream, block, now);
        if !self.is_wanted(block) {
            return Corrupt::Again;
        }
        let times = self.table.record_corruption(stream, block);
        self.release(stream, block);
        if times >= self.policy.max_corrupt { Corrupt::GiveUp { times } } else { Corrupt::Again }
    }

    fn finish(&mut self, stream: StreamId, block: BlockId, now: Duration) {
        self.pool.refresh(&self.states, now);
        let Some(state) = self.states.get_mut(stream.index()) else { return };
        state.finish(block, now);
        if state.is_chronically_slow()
            && state.throughput.rate(now, 0).saturating_mul(HEALTHY) >= self.pool.typical_rate()
        {
            state.slow_count = 0;
            self.pool.changed();
        }
    }

    fn release(&mut self, stream: StreamId, block: BlockId) {
        match self.table.release(stream, block) {
            Released::HeldBy(other) => {
                if let Some(state) = self.states.get_mut(other.stream.index()) {
                    state.alone_again(other.end);
                }
            }
            Released::NotHeld | Released::Returned => {}
        }
    }

    /// The stream's connection has ended, or could not be made; all it had goes returned.
    pub(crate) fn lost(&mut self, stream: StreamId, now: Duration) {
        self.release_all(stream);
        self.pool.changed();
        self.pool.refresh(&self.states, now);
    }

    fn release_all(&mut self, stream: StreamId) {
        let queue = self.states.get_mut(stream.index()).map(StreamState::close);
        for requested in queue.into_iter().flatten() {
            self.release(stream, requested.block);
        }
    }

    /// Whether a stream that is not open might be requested for something if it were: a block, or a second copy of one.
    pub(crate) fn is_anything_to_ask(&self) -> bool {
        let may_hedge = !self.policy.limited && self.table.is_anything_assigned();
        may_hedge || self.table.lowest(self.limit(), None).is_some()
    }

    /// An in-order consumer has taken all bytes before `position`.
    pub(crate) fn consumed(&mut self, position: u64) {
        self.consumed = self.consumed.max(position);
    }

    /// Whether every block is verified.
    pub(crate) fn is_complete(&self) -> bool {
        self.table.verified().is_full()
    }

    /// Whether every block is verified or requested for: the time to request for the file's digests.
    pub(crate) fn is_all_assigned(&self) -> bool {
        self.table.unassigned() == 0
    }

    /// The verified blocks, with those from an earlier run.
    #[cfg(test)]
    pub(crate) fn done(&self) -> &BlockSet {
        self.table.verified()
    }

    /// The first byte that is not verified; the file's size at the end.
    pub(crate) fn frontier(&self) -> u64 {
        self.table.frontier()
    }

    /// The bytes that are not verified.
    #[cfg(test)]
    pub(crate) fn missing(&self) -> u64 {
        self.table.missing()
    }

    /// The bytes that were requested for on a second stream while the first still had them.
    #[cfg(test)]
    pub(crate) fn duplicated(&self) -> u64 {
        self.duplicated
    }
}
