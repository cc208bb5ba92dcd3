//! The scheduler itself: what the driver tells it, and what a stream shall request for next.

use std::time::Duration;

use super::{ConflictingProof, Corrupt, NextRun, Policy, Verified};
use crate::digest::RangeDigest;
use crate::manifest::{BlockId, BlockRun, BlockSet, Manifest, StreamCount, StreamId};
use crate::schedule::block_table::{Assignment, BlockTable, Released};
use crate::schedule::pool::Pool;
use crate::schedule::stream_state::{MAX_BLOCKS_IN_FLIGHT, StreamState, min_window};
use crate::schedule::watchdog::{OutageDetector, STALL};

/// A stream that was slow is one like any other again at this part of the typical rate.
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
        digests: Vec<Option<RangeDigest>>,
        streams: StreamCount,
        policy: Policy,
        now: Duration,
    ) -> Self {
        Self {
            streams,
            policy,
            table: BlockTable::new(manifest, done, digests),
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

    /// The next run for the stream to request; to be called until the result is not [`NextRun::Request`].
    ///
    /// A run is requested when there is room for all of it, so that runs do not shrink to what has just arrived.
    pub(crate) fn next_run(&mut self, stream: StreamId, now: Duration) -> NextRun {
        if self.is_complete() {
            return NextRun::Complete;
        }
        self.pool.refresh(&self.states, now);
        let Some(state) = self.states.get(stream.index()).filter(|state| state.is_open()) else {
            return NextRun::Idle;
        };
        let is_restricted = state.is_chronically_slow() && self.pool.n_healthy() > 0;
        let n_free = MAX_BLOCKS_IN_FLIGHT.saturating_sub(state.n_in_flight());
        if n_free == 0 || is_restricted && !state.is_idle() {
            return NextRun::Full;
        }
        // Such a stream gets one block at a time, and only if no other one would have to wait for it.
        let must_be_in_time = is_restricted || self.is_behind(state, now);
        let allowance = self.allowance(state, now);
        let max_run = if must_be_in_time { 0 } else { self.max_run(state, allowance, now) };
        let avoiding = Some(stream).filter(|_| self.has_substitute(stream, now));
        let run = match self.table.first_unassigned_run(self.limit(), avoiding, max_run, n_free) {
            Some(run) if must_be_in_time && !self.finishes_in_time(state, run.first, now) => {
                return NextRun::Idle;
            }
            Some(run) if !self.has_room(state, run, allowance) => return NextRun::Full,
            Some(run) => run,
            None if is_restricted => return NextRun::Idle,
            None => match self.hedge(stream, now) {
                Some(block) => BlockRun { first: block, count: 1 },
                None => return NextRun::Idle,
            },
        };
        self.assign(stream, run, now);
        NextRun::Request(run)
    }

    /// The sender sends this run on the stream without a request: its blocks are assigned to the stream as far as they
    /// are unassigned, and all of it counts as in flight.
    pub(crate) fn assign_pushed(&mut self, stream: StreamId, run: BlockRun, now: Duration) {
        let manifest = *self.table.manifest();
        let Some(state) = self.states.get_mut(stream.index()) else { return };
        let run_end = state.expect_pushed(&manifest, run, now);
        for block in manifest.blocks_of(run) {
            if self.table.is_unassigned(block) {
                self.table.assign(block, Assignment { stream, run_end });
            }
        }
    }

    /// Whether another stream takes what this one had better not request for again.
    fn has_substitute(&self, stream: StreamId, now: Duration) -> bool {
        let is_able = |state: &StreamState| {
            state.is_open() && !state.is_chronically_slow() && !self.is_behind(state, now)
        };
        let mut others = self.states.iter().enumerate().filter(|(index, _)| *index != stream.index());
        self.table.is_any_corrupted() && others.any(|(_, state)| is_able(state))
    }

    fn assign(&mut self, stream: StreamId, run: BlockRun, now: Duration) {
        let manifest = *self.table.manifest();
        let Some(state) = self.states.get_mut(stream.index()) else { return };
        let run_end = state.request(&manifest, run, now);
        for block in manifest.blocks_of(run) {
            if self.table.assign(block, Assignment { stream, run_end }) {
                self.duplicated += self.table.len_of(block);
            }
        }
    }

    /// How many bytes may be in flight on the stream, for its own sake and for it to end with the others.
    fn allowance(&self, state: &StreamState, now: Duration) -> u64 {
        self.window(state).min(self.pool.share(state, self.within_reach(), now))
    }

    fn max_run(&self, state: &StreamState, allowance: u64, now: Duration) -> u64 {
        let block = self.table.manifest().block_size().bytes();
        state.max_run(allowance, block, now, self.pool.typical_rate())
    }

    /// Whether the run may be in flight beside what already is.
    fn has_room(&self, state: &StreamState, run: BlockRun, allowance: u64) -> bool {
        let len = self.table.manifest().run_len(run).unwrap_or(0);
        state.outstanding() == 0 || state.outstanding() + len <= allowance
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

    /// Whether a copy of the block is still to be verified: none is stored, and none is known to be valid.
    pub(crate) fn is_wanted(&self, block: BlockId) -> bool {
        self.table.is_wanted(block)
    }

    /// Records the digest by which a copy of the block was verified, before the copy is stored.
    ///
    /// # Errors
    /// [`ConflictingProof`] if an earlier copy was verified by another digest.
    pub(crate) fn record_proof(
        &mut self,
        block: BlockId,
        digest: RangeDigest,
    ) -> Result<(), ConflictingProof> {
        self.table.record_proof(block, digest)
    }

    /// The digests of the blocks of which a copy was verified, by block.
    pub(crate) fn digests(&self) -> &[Option<RangeDigest>] {
        self.table.digests()
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
        let is_wanted = self.is_wanted(block);
        self.release(stream, block);
        if !is_wanted {
            return Corrupt::Again;
        }
        let times = self.table.record_corruption(stream, block);
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
            Released::StillAssigned(other) => {
                if let Some(state) = self.states.get_mut(other.stream.index()) {
                    state.mark_sole(other.run_end);
                }
            }
            Released::NotAssigned | Released::Returned => {}
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
    pub(crate) fn is_anything_to_request(&self) -> bool {
        let may_hedge = !self.policy.limited && self.table.is_anything_assigned();
        may_hedge || self.table.first_unassigned(self.limit(), None).is_some()
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
    pub(crate) fn missing(&self) -> u64 {
        self.table.missing()
    }

    /// The bytes that were requested for on a second stream while the first still had them.
    #[cfg(test)]
    pub(crate) fn duplicated(&self) -> u64 {
        self.duplicated
    }
}
