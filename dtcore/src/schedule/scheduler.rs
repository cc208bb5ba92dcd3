//! The scheduler: takes the driver's events, and decides which run a stream requests next.

use std::time::Duration;

use super::{Corrupt, Fault, NextRun, Policy, VerifiedCopy};
use crate::digest::RangeDigest;
use crate::manifest::{BlockId, BlockRun, BlockSet, Manifest, StreamCount, StreamId};
use crate::schedule::block_table::{Assignment, BlockTable, Released};
use crate::schedule::hedge::{Candidate, Hedging};
use crate::schedule::pool::Pool;
use crate::schedule::stream_state::{MAX_BLOCKS_IN_FLIGHT, StreamState, min_window};
use crate::schedule::watchdog::{HEALTHY, STALL, Watchdog};

/// Assigns blocks to streams.
#[derive(Debug)]
pub(crate) struct Scheduler {
    policy: Policy,
    pub(super) table: BlockTable,
    pub(super) pool: Pool,
    watchdog: Watchdog,
    pub(super) hedging: Hedging,
    /// The position of an in-order consumer.
    consumed: u64,
}

impl Scheduler {
    /// A transfer of all blocks except those of `done`, which an earlier run verified by `digests`.
    ///
    /// The stall timers start at `now`.
    pub(crate) fn new(
        manifest: Manifest,
        done: BlockSet,
        digests: Vec<Option<RangeDigest>>,
        streams: StreamCount,
        policy: Policy,
        now: Duration,
    ) -> Self {
        Self {
            policy,
            table: BlockTable::new(manifest, done, digests),
            pool: Pool::new(streams),
            watchdog: Watchdog::new(policy, now),
            hedging: Hedging::new(&manifest),
            consumed: 0,
        }
    }

    /// The stream is open; connecting took `rtt`.
    pub(crate) fn opened(&mut self, stream: StreamId, rtt: Duration, now: Duration) {
        self.release_all(stream);
        self.pool.open(stream, rtt, now);
    }

    /// The next run for the stream to request; to be called until the result is not [`NextRun::Request`].
    ///
    /// A run is requested when there is room for all of it, so that runs do not shrink to what has just arrived.
    pub(crate) fn next_run(&mut self, stream: StreamId, now: Duration) -> NextRun {
        if self.is_complete() {
            return NextRun::Complete;
        }
        self.pool.refresh(now);
        let Some(state) = self.pool.get(stream).filter(|state| state.is_open()) else {
            return NextRun::Idle;
        };
        let is_restricted = state.is_chronically_slow() && self.pool.n_healthy() > 0;
        let n_free = MAX_BLOCKS_IN_FLIGHT.saturating_sub(state.n_in_flight());
        if n_free == 0 || is_restricted && !state.is_idle() {
            return NextRun::Full;
        }
        // Such a stream gets one block at a time, and only if nothing has to wait for it.
        let must_be_in_time = is_restricted || self.is_behind(state, now);
        let share = self.pool.share(state, self.within_reach(), now);
        let allowance = self.window(state).min(share);
        let block = self.table.manifest().block_size().bytes();
        let max_run = state.max_run(allowance, share, block, now, self.pool.typical_rate());
        let max_len = if must_be_in_time { block } else { max_run };
        let avoiding = Some(stream).filter(|_| self.has_substitute(stream, now));
        let run = match self.table.first_unassigned_run(self.limit(), avoiding, max_len, n_free) {
            Some(run) if must_be_in_time && !self.finishes_in_time(state, run.first, now) => {
                return NextRun::Idle;
            }
            Some(run) if !state.has_room(self.table.run_len(run), allowance) => return NextRun::Full,
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

    fn assign(&mut self, stream: StreamId, run: BlockRun, now: Duration) {
        let manifest = *self.table.manifest();
        let Some(state) = self.pool.get_mut(stream) else { return };
        let run_end = state.request(&manifest, run, now);
        for block in manifest.blocks_of(run) {
            if self.table.assign(block, Assignment { stream, run_end }) {
                self.hedging.record(self.table.len_of(block));
            }
        }
    }

    /// The sender sends this run on the stream without a request: its blocks are assigned to the stream as far as they
    /// are unassigned, and all of it counts as in flight.
    pub(crate) fn assign_pushed(&mut self, stream: StreamId, run: BlockRun, now: Duration) {
        let manifest = *self.table.manifest();
        let Some(state) = self.pool.get_mut(stream) else { return };
        let run_end = state.expect_pushed(&manifest, run, now);
        for block in manifest.blocks_of(run) {
            if self.table.is_unassigned(block) {
                self.table.assign(block, Assignment { stream, run_end });
            }
        }
    }

    /// The block that an idle stream should request a second time.
    fn hedge(&mut self, stream: StreamId, now: Duration) -> Option<BlockId> {
        // Under a rate limit the speed of a stream means nothing, and a second copy takes the limit from other blocks.
        if self.policy.limited || !self.is_all_assigned() && self.policy.ahead.is_none() {
            return None;
        }
        let window = self.window(self.pool.get(stream)?);
        let candidate = Candidate { stream, window, limit: self.limit() };
        self.hedging.choose(candidate, &self.table, &mut self.pool, now)
    }

    /// Whether another stream can request the blocks that this one has corrupted.
    fn has_substitute(&self, stream: StreamId, now: Duration) -> bool {
        let is_able = |state: &StreamState| {
            state.is_open() && !state.is_chronically_slow() && !self.is_behind(state, now)
        };
        self.table.is_any_corrupted()
            && self.pool.iter().any(|(other, state)| other != stream && is_able(state))
    }

    fn window(&self, state: &StreamState) -> u64 {
        let block = self.table.manifest().block_size().bytes();
        if self.policy.limited { min_window(block) } else { state.window(block) }
    }

    /// Whether a slow stream delivers the block before the others have delivered the rest.
    fn finishes_in_time(&self, state: &StreamState, block: BlockId, now: Duration) -> bool {
        // A stream that never delivered anything may do so again, which takes a while to detect.
        let detection = if state.throughput.is_measured() { Duration::ZERO } else { STALL };
        let mine = state.time_for_more(self.table.len_of(block), now, self.pool.typical_rate()) + detection;
        mine <= self.pool.time_without(state, self.within_reach(), now)
    }

    /// Whether an in-order consumer could have to wait for the stream; never for the fastest one.
    fn is_behind(&self, state: &StreamState, now: Duration) -> bool {
        self.policy.ahead.is_some() && self.pool.is_slower_than_most(state, now)
    }

    /// The missing bytes that may be requested before an in-order consumer advances.
    fn within_reach(&self) -> u64 {
        self.table.missing().min(self.limit().saturating_sub(self.table.frontier()))
    }

    /// Blocks that begin here or later are not assigned.
    fn limit(&self) -> u64 {
        // At least one byte, or the consumer would never advance.
        self.policy.ahead.map_or(u64::MAX, |ahead| self.consumed + ahead.max(1))
    }

    /// `n` bytes of data arrived; returns whether the stream was reported as stalled, and now is not to be replaced.
    pub(crate) fn received(&mut self, stream: StreamId, n: u64, now: Duration) -> bool {
        let Some(state) = self.pool.get_mut(stream) else { return false };
        state.receive(n, now);
        self.watchdog.data_arrived(now);
        let is_stall_over = state.is_stall_over();
        if is_stall_over {
            self.pool.changed();
        }
        is_stall_over
    }

    /// Whether a copy of the block is still to be verified: none is stored, and none is known to be valid.
    pub(crate) fn is_wanted(&self, block: BlockId) -> bool {
        self.table.is_wanted(block)
    }

    /// Records the digest by which a copy of the block was verified, before the copy is stored; `false` if an earlier copy was
    /// verified by another digest: the source has changed in between.
    #[must_use]
    pub(crate) fn record_proof(&mut self, block: BlockId, digest: RangeDigest) -> bool {
        self.table.record_proof(block, digest)
    }

    /// The digests of the blocks of which a copy was verified, by block.
    pub(crate) fn digests(&self) -> &[Option<RangeDigest>] {
        self.table.digests()
    }

    /// The block arrived on that stream, matches its digest and is stored.
    pub(crate) fn verified(&mut self, stream: StreamId, block: BlockId, now: Duration) -> VerifiedCopy {
        self.finish(stream, block, now);
        self.table.verify(stream, block)
    }

    /// The block arrived on that stream and was discarded, because another copy was faster.
    pub(crate) fn skipped(&mut self, stream: StreamId, block: BlockId, now: Duration) {
        self.finish(stream, block, now);
        self.release(stream, block);
    }

    /// The block arrived on that stream and does not match its digest.
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
        self.pool.refresh(now);
        let typical_rate = self.pool.typical_rate();
        let Some(state) = self.pool.get_mut(stream) else { return };
        state.finish(block, now);
        if state.is_chronically_slow() && state.throughput.rate(now, 0) * HEALTHY >= typical_rate {
            state.slow_count = 0;
            self.pool.changed();
        }
    }

    fn release(&mut self, stream: StreamId, block: BlockId) {
        match self.table.release(stream, block) {
            Released::StillAssigned(other) => {
                if let Some(state) = self.pool.get_mut(other.stream) {
                    state.mark_sole(other.run_end);
                }
            }
            Released::NotAssigned | Released::Returned => {}
        }
    }

    /// The stream's connection was closed, or could not be established; its blocks are returned.
    pub(crate) fn lost(&mut self, stream: StreamId, now: Duration) {
        self.release_all(stream);
        self.pool.changed();
        self.pool.refresh(now);
    }

    fn release_all(&mut self, stream: StreamId) {
        let queue = self.pool.get_mut(stream).map(StreamState::close);
        for in_flight in queue.into_iter().flatten() {
            self.release(stream, in_flight.block);
        }
    }

    /// The connections to close and replace; to be called every 50 to 100 ms.
    ///
    /// Each is reported once. The driver closes it, calls [`lost`](Self::lost) and connects again.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<(StreamId, Fault)> {
        let is_consumer_awaited = !self.table.is_anything_assigned() && !self.is_anything_unassigned();
        if is_consumer_awaited {
            self.watchdog.reset_timers(now);
        }
        if self.is_complete() {
            return Vec::new();
        }
        self.pool.refresh(now);
        let block = self.table.manifest().block_size().bytes();
        let last_block = Some(block).filter(|_| self.is_all_assigned() && !self.hedging.allows(block));
        self.watchdog.check(&mut self.pool, last_block, now)
    }

    /// Restarts all stall timers at `now`.
    pub(crate) fn reset_timers(&mut self, now: Duration) {
        self.watchdog.reset_timers(now);
        for (_, state) in self.pool.iter_mut() {
            state.reset_timers(now);
        }
    }

    /// How long no data has arrived on any stream although some was requested.
    pub(crate) fn silent_for(&self, now: Duration) -> Duration {
        self.watchdog.silent_for(now)
    }

    /// Whether a stream that is not open might have something to request if it were: a block, or a second copy of one.
    pub(crate) fn is_anything_to_request(&self) -> bool {
        let may_hedge = !self.policy.limited && self.table.is_anything_assigned();
        may_hedge || self.is_anything_unassigned()
    }

    fn is_anything_unassigned(&self) -> bool {
        self.table.first_unassigned(self.limit(), None).is_some()
    }

    /// An in-order consumer has read all bytes before `position`.
    pub(crate) fn consumed(&mut self, position: u64) {
        self.consumed = self.consumed.max(position);
    }

    /// Whether every block is verified.
    pub(crate) fn is_complete(&self) -> bool {
        self.table.verified().is_full()
    }

    /// Whether every block is verified or requested, which is when to request the digests of the file.
    pub(crate) fn is_all_assigned(&self) -> bool {
        self.table.unassigned() == 0
    }

    /// The first byte that is not verified; the size of the file at the end.
    pub(crate) fn frontier(&self) -> u64 {
        self.table.frontier()
    }

    /// The bytes that are not verified.
    pub(crate) fn missing(&self) -> u64 {
        self.table.missing()
    }
}
