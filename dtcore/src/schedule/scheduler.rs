//! The scheduler itself: what the driver tells it, and what a stream shall ask for next.

use std::time::Duration;

use super::{Corrupt, Next, Policy, Verified};
use crate::manifest::{BlockIndex, BlockPlan, BlockSet, StreamCount, StreamId};
use crate::schedule::block_table::{Hold, Ledger, Released};
use crate::schedule::pool::Pool;
use crate::schedule::stream_state::{Lane, MOST_HELD, least_window};
use crate::schedule::watchdog::{Flow, STALL};

/// A stream that was slow is one like any other again at this part of the typical rate.
const SOUND: u64 = 4;

/// Decides who asks for what.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(super) streams: StreamCount,
    pub(super) policy: Policy,
    pub(super) ledger: Ledger,
    pub(super) lanes: Vec<Lane>,
    pub(super) pool: Pool,
    pub(super) flow: Flow,
    /// How far an in-order consumer has come.
    pub(super) consumed: u64,
    /// The bytes that were asked for on a second stream, and how many may be.
    pub(super) duplicated: u64,
    pub(super) most_duplicated: u64,
}

impl Scheduler {
    /// A transfer of all blocks but those of `done`, which are there from an earlier run.
    ///
    /// Nothing could come before `now`.
    pub(crate) fn new(
        plan: BlockPlan,
        done: BlockSet,
        streams: StreamCount,
        policy: Policy,
        now: Duration,
    ) -> Self {
        Self {
            streams,
            policy,
            ledger: Ledger::new(plan, done),
            lanes: streams.ids().map(|_| Lane::new()).collect(),
            pool: Pool::default(),
            flow: Flow::new(policy, now),
            consumed: 0,
            duplicated: 0,
            most_duplicated: super::hedge::most_duplicated(&plan),
        }
    }

    /// The stream is connected and greeted; connecting took `rtt`.
    pub(crate) fn opened(&mut self, stream: StreamId, rtt: Duration, now: Duration) {
        self.release_all(stream);
        if let Some(lane) = self.lanes.get_mut(stream.index()) {
            lane.open(rtt, now);
            self.pool.opened(rtt, now);
        }
    }

    /// Something else was asked for on the stream that takes its time, and whatever is asked for behind it comes later.
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
        if let Some(lane) = self.lanes.get_mut(stream.index()) {
            lane.is_detained = is_detained;
            self.pool.changed();
        }
    }

    /// What the stream shall ask for now; to be called until it says nothing.
    pub(crate) fn next(&mut self, stream: StreamId, now: Duration) -> Next {
        if self.is_complete() {
            return Next::Complete;
        }
        self.pool.refresh(&self.lanes, now);
        let Some(lane) = self.lanes.get(stream.index()).filter(|lane| lane.is_open()) else {
            return Next::Idle;
        };
        let n_sound_others = self.pool.n_sound().saturating_sub(usize::from(lane.is_sound()));
        let is_restricted = !lane.is_sound() && n_sound_others > 0;
        if is_restricted && lane.is_detained {
            return Next::Idle;
        }
        if lane.n_held() >= MOST_HELD || is_restricted && !lane.is_idle() {
            return Next::Full;
        }
        let limit = self.limit();
        let avoiding = Some(stream).filter(|_| self.has_substitute(stream, now));
        let block = match self.ledger.lowest(limit, avoiding) {
            Some(block)
                if (is_restricted || self.is_behind(lane, now)) && !self.is_in_time(lane, block, now) =>
            {
                return Next::Idle;
            }
            Some(block) if !self.has_room(lane, block, now) => return Next::Full,
            Some(block) => block,
            None if is_restricted => return Next::Idle,
            None => match self.hedge(stream, now) {
                Some(block) => block,
                None => return Next::Idle,
            },
        };
        self.hand_out(stream, block, now);
        Next::Ask(block)
    }

    /// Whether another stream takes what this one had better not ask for again.
    fn has_substitute(&self, stream: StreamId, now: Duration) -> bool {
        let is_able = |lane: &Lane| lane.is_open() && lane.is_sound() && !self.is_behind(lane, now);
        let mut others = self.lanes.iter().enumerate().filter(|(index, _)| *index != stream.index());
        self.ledger.is_any_spoiled() && others.any(|(_, lane)| is_able(lane))
    }

    fn hand_out(&mut self, stream: StreamId, block: BlockIndex, now: Duration) {
        let len = self.ledger.len_of(block);
        let Some(lane) = self.lanes.get_mut(stream.index()) else { return };
        let end = lane.ask(block, len, now);
        if self.ledger.hand_out(block, Hold { stream, end }) {
            self.duplicated = self.duplicated.saturating_add(len);
        }
    }

    /// Whether the block may be in flight on the stream, with what is already.
    fn has_room(&self, lane: &Lane, block: BlockIndex, now: Duration) -> bool {
        let outstanding = lane.outstanding();
        let share = self.pool.share(lane, self.within_reach(), now);
        let after = outstanding.saturating_add(self.ledger.len_of(block));
        outstanding == 0 || after <= self.window(lane).min(share)
    }

    pub(super) fn window(&self, lane: &Lane) -> u64 {
        let block = self.ledger.plan().block_size().bytes();
        if self.policy.limited { least_window(block) } else { lane.window(block) }
    }

    /// Whether a stream that is known to be slow brings the block before the others have brought the rest.
    fn is_in_time(&self, lane: &Lane, block: BlockIndex, now: Duration) -> bool {
        // One that never brought anything may do so again, which takes a while to see.
        let in_vain = if lane.meter.is_known() { Duration::ZERO } else { STALL };
        let mine = lane.time_for_more(self.ledger.len_of(block), now, self.pool.typical()) + in_vain;
        mine <= self.pool.time_without(lane, self.within_reach(), now)
    }

    /// Whether a stream could make an in-order consumer wait; the fastest one never does.
    fn is_behind(&self, lane: &Lane, now: Duration) -> bool {
        let typical = self.pool.typical();
        self.policy.ahead.is_some() && lane.meter.rate(now, typical).saturating_mul(2) < typical
    }

    /// The bytes that can be brought before an in-order consumer must move on, or else all that are missing.
    fn within_reach(&self) -> u64 {
        self.ledger.missing().min(self.limit().saturating_sub(self.ledger.frontier()))
    }

    /// Blocks that begin here or later are not handed out.
    pub(super) fn limit(&self) -> u64 {
        // One byte is always wanted, or nothing would ever come.
        self.policy.ahead.map_or(u64::MAX, |ahead| self.consumed.saturating_add(ahead.max(1)))
    }

    /// `n` more bytes of a block's data came.
    pub(crate) fn received(&mut self, stream: StreamId, n: u64, now: Duration) {
        if let Some(lane) = self.lanes.get_mut(stream.index()) {
            lane.receive(n, now);
            self.flow.heard(now);
        }
    }

    /// Whether the block is still missing, so that a copy of it is worth verifying.
    pub(crate) fn is_wanted(&self, block: BlockIndex) -> bool {
        !self.ledger.verified().contains(block)
    }

    /// The block came on that stream, matches its digest and is stored.
    pub(crate) fn verified(&mut self, stream: StreamId, block: BlockIndex, now: Duration) -> Verified {
        self.finish(stream, block, now);
        self.ledger.verify(stream, block)
    }

    /// The block came on that stream and was thrown away, because it was not wanted any more.
    pub(crate) fn skipped(&mut self, stream: StreamId, block: BlockIndex, now: Duration) {
        self.finish(stream, block, now);
        self.release(stream, block);
    }

    /// The block came on that stream and does not match its digest.
    pub(crate) fn corrupt(&mut self, stream: StreamId, block: BlockIndex, now: Duration) -> Corrupt {
        self.finish(stream, block, now);
        if !self.is_wanted(block) {
            return Corrupt::Again;
        }
        let times = self.ledger.spoil(stream, block);
        self.release(stream, block);
        if times >= self.policy.max_corrupt { Corrupt::GiveUp { times } } else { Corrupt::Again }
    }

    fn finish(&mut self, stream: StreamId, block: BlockIndex, now: Duration) {
        self.pool.refresh(&self.lanes, now);
        let Some(lane) = self.lanes.get_mut(stream.index()) else { return };
        lane.finish(block, now);
        if lane.is_crawler() && lane.meter.rate(now, 0).saturating_mul(SOUND) >= self.pool.typical() {
            lane.strikes = 0;
            self.pool.changed();
        }
    }

    fn release(&mut self, stream: StreamId, block: BlockIndex) {
        match self.ledger.release(stream, block) {
            Released::HeldBy(other) => {
                if let Some(lane) = self.lanes.get_mut(other.stream.index()) {
                    lane.alone_again(other.end);
                }
            }
            Released::NotHeld | Released::Back => {}
        }
    }

    /// The stream's connection has ended, or could not be made; all it had goes back.
    pub(crate) fn lost(&mut self, stream: StreamId, now: Duration) {
        self.release_all(stream);
        self.pool.changed();
        self.pool.refresh(&self.lanes, now);
    }

    fn release_all(&mut self, stream: StreamId) {
        let queue = self.lanes.get_mut(stream.index()).map(Lane::close);
        for asked in queue.into_iter().flatten() {
            self.release(stream, asked.block);
        }
    }

    /// Whether a stream that is not open might be asked for something if it were: a block, or a second copy of one.
    pub(crate) fn is_anything_to_ask(&self) -> bool {
        let may_hedge = !self.policy.limited && self.ledger.is_anything_held();
        may_hedge || self.ledger.lowest(self.limit(), None).is_some()
    }

    /// An in-order consumer has taken all bytes before `position`.
    pub(crate) fn consumed(&mut self, position: u64) {
        self.consumed = self.consumed.max(position);
    }

    /// Whether every block is verified.
    pub(crate) fn is_complete(&self) -> bool {
        self.ledger.verified().is_full()
    }

    /// Whether every block is verified or asked for: the time to ask for the file's digests.
    pub(crate) fn is_all_asked(&self) -> bool {
        self.ledger.unasked() == 0
    }

    /// The verified blocks, with those from an earlier run.
    #[cfg(test)]
    pub(crate) fn done(&self) -> &BlockSet {
        self.ledger.verified()
    }

    /// The first byte that is not verified; the file's size at the end.
    pub(crate) fn frontier(&self) -> u64 {
        self.ledger.frontier()
    }

    /// The bytes that are not verified.
    #[cfg(test)]
    pub(crate) fn missing(&self) -> u64 {
        self.ledger.missing()
    }

    /// The bytes that were asked for on a second stream while the first still had them.
    #[cfg(test)]
    pub(crate) fn duplicated(&self) -> u64 {
        self.duplicated
    }
}
