//! The watchdogs: which connections bring nothing, or next to nothing, and shall be replaced.

use std::time::Duration;

use super::{Fault, Policy};
use crate::manifest::StreamId;
use crate::schedule::scheduler::Scheduler;
use crate::schedule::stream_state::{MAX_SLOW_COUNT, StreamState};

/// How long a stream may bring nothing while others do, unless four of its round trips are longer.
pub(super) const STALL: Duration = Duration::from_secs(1);
const ROUND_TRIPS: u32 = 4;
/// How long all streams may bring nothing before all are replaced; the next time it is twice as long.
const OUTAGE: Duration = Duration::from_secs(5);
const LONGEST_OUTAGE: Duration = Duration::from_secs(40);
/// How often, at least, connections are made anew within the time after which the user gives up.
const TRIES: u32 = 3;
/// Bytes that come with longer gaps do not outages.
const GAP: Duration = Duration::from_millis(500);
/// Over how long rates are compared.
const WINDOW: Duration = Duration::from_secs(1);
/// The part of the others' median below which a stream is slow, and that above which it is sound.
const SLOW: u64 = 10;
const HEALTHY: u64 = 4;
/// How much longer than the others a stream that is left alone may take for the last block.
const OTHERS_TIMES: u32 = 4;

/// When bytes received, on any stream.
#[derive(Debug)]
pub(super) struct OutageDetector {
    last: Duration,
    /// Since when bytes have come without a gap.
    since: Duration,
    /// How long the current outage may last until all streams are replaced.
    outage: Duration,
    first_outage: Duration,
}

impl OutageDetector {
    pub(super) fn new(policy: Policy, now: Duration) -> Self {
        let limit = policy.stall_timeout;
        let first_outage = if policy.limited { limit } else { OUTAGE.min(limit) };
        Self { last: now, since: now, outage: first_outage, first_outage }
    }

    /// Bytes received.
    pub(super) fn last_activity(&mut self, now: Duration) {
        if now.saturating_sub(self.last) >= GAP {
            self.since = now;
        }
        self.last = self.last.max(now);
        self.outage = self.first_outage;
    }

    /// Nothing could come.
    pub(super) fn reset_timers(&mut self, now: Duration) {
        (self.last, self.since) = (now, now);
    }
}

impl Scheduler {
    /// Which connections shall be ended and replaced; to be called every 50 to 100 ms.
    ///
    /// Each is reported once; the driver ends it, calls [`lost`](Self::lost), and connects again.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<(StreamId, Fault)> {
        let is_consumer_awaited =
            !self.table.is_anything_assigned() && self.table.first_unassigned(self.limit(), None).is_none();
        if is_consumer_awaited {
            self.outages.reset_timers(now);
        }
        if self.is_complete() {
            return Vec::new();
        }
        self.pool.refresh(&self.states, now);
        let mut faults = self.stalled(now);
        if faults.is_empty() && !self.policy.limited {
            faults = self.slow(now);
        }
        for (stream, _) in &faults {
            if let Some(state) = self.states.get_mut(stream.index()) {
                state.mark_faulty();
            }
            self.pool.changed();
        }
        faults
    }

    /// The whole program stood still until `now`: that nothing received is no fault of any stream.
    pub(crate) fn reset_timers(&mut self, now: Duration) {
        self.outages.reset_timers(now);
        for state in &mut self.states {
            state.reset_timers(now);
        }
    }

    /// For how long nothing has come on any stream although something could have.
    pub(crate) fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.outages.last)
    }

    fn stalled(&mut self, now: Duration) -> Vec<(StreamId, Fault)> {
        let is_outage = self.silent_for(now) >= self.outages.outage;
        let is_helped = self.is_somebody_free();
        let faults = self.faulty(Fault::Stalled, |state| {
            let quiet = now.saturating_sub(state.last_activity());
            if is_outage {
                return quiet >= self.outages.outage;
            }
            let stall = self.stall_of(state);
            // After an outage each stream gets its time again, from when the first of them is returned.
            let quiet_in_flow = now.saturating_sub(state.last_activity().max(self.outages.since));
            let is_flowing = self.silent_for(now) < GAP.max(stall / 2);
            // The silence of streams that are requested for nothing says nothing, and they could bring it in its place.
            let is_replaceable = is_helped && !self.policy.limited && quiet >= stall.saturating_mul(2);
            is_replaceable || is_flowing && quiet_in_flow >= stall
        });
        if is_outage && !faults.is_empty() {
            self.outages.outage =
                self.outages.outage.saturating_mul(2).min(LONGEST_OUTAGE.max(self.outages.first_outage));
        }
        for (stream, _) in faults.iter().filter(|_| !is_outage) {
            // A connection that never brought a byte is as bad as one that brings next to nothing.
            if let Some(state) = self.states.get_mut(stream.index()).filter(|state| state.is_silent()) {
                state.slow_count = state.slow_count.saturating_add(1).min(MAX_SLOW_COUNT);
            }
        }
        faults
    }

    fn stall_of(&self, state: &StreamState) -> Duration {
        if self.policy.limited {
            // Under a limit a stream is not read for as long as the others use the limit up.
            return self.policy.stall_timeout / TRIES;
        }
        STALL.max(state.rtt().saturating_mul(ROUND_TRIPS)).min(self.policy.stall_timeout / TRIES)
    }

    /// The busy streams of which `is_faulty`.
    fn faulty(&self, fault: Fault, is_faulty: impl Fn(&StreamState) -> bool) -> Vec<(StreamId, Fault)> {
        let busy = self.streams().filter(|(_, state)| state.is_open() && !state.is_idle());
        busy.filter(|(_, state)| is_faulty(state)).map(|(stream, _)| (stream, fault)).collect()
    }

    fn streams(&self) -> impl Iterator<Item = (StreamId, &StreamState)> {
        self.streams.ids().zip(&self.states)
    }

    /// The streams that brought next to nothing in the last second, compared with the median of the others.
    fn slow(&mut self, now: Duration) -> Vec<(StreamId, Fault)> {
        let brought: Vec<u64> = self.states.iter_mut().map(|state| state.last_second.bytes(now)).collect();
        let is_peer =
            |(state, bytes): &(&StreamState, &u64)| state.is_open() && (**bytes > 0 || !state.is_idle());
        let mut peers: Vec<u64> =
            self.states.iter().zip(&brought).filter(is_peer).map(|(_, bytes)| *bytes).collect();
        peers.sort_unstable();
        let mut faults = Vec::new();
        for (stream, bytes) in self.streams.ids().zip(brought) {
            let (Some(median), Some(state)) =
                (median_without(&peers, bytes), self.states.get(stream.index()))
            else {
                continue;
            };
            let since = state.measured_since().map(|since| since.max(self.outages.since));
            let is_judged = since.is_some_and(|since| now.saturating_sub(since) >= WINDOW);
            if !state.is_open() || !is_judged {
                continue;
            }
            // One that has fallen silent is left to the other watchdog.
            let is_slow =
                bytes.saturating_mul(SLOW) < median && now.saturating_sub(state.last_activity()) < GAP;
            let slow_count = match state.slow_count {
                MAX_SLOW_COUNT.. if self.is_in_the_way(state, now) => MAX_SLOW_COUNT,
                MAX_SLOW_COUNT.. => continue,
                slow_count if is_slow => slow_count + 1,
                // Slow once and sound since then: the next time is the first one again.
                1.. if bytes.saturating_mul(HEALTHY) >= median => 0,
                _ => continue,
            };
            if slow_count > 0 {
                faults.push((stream, Fault::Slow));
            }
            if let Some(state) = self.states.get_mut(stream.index()) {
                state.slow_count = slow_count;
            }
        }
        faults
    }

    /// Whether a stream that is left alone keeps the transfer from ending, with a block that may not be requested for twice.
    fn is_in_the_way(&self, state: &StreamState, now: Duration) -> bool {
        let block = self.table.manifest().block_size().bytes();

        let others =
            self.pool.time_without(state, block, now).saturating_mul(OTHERS_TIMES).saturating_add(WINDOW);
        self.is_somebody_free()
            && self.is_all_assigned()
            && !self.can_duplicate(block)
            && state.time_to(state.end(), now, self.pool.typical_rate()) > others
    }
    /// Whether a stream has nothing to do that could take over what another one holds.
    fn is_somebody_free(&self) -> bool {
        self.states.iter().any(|state| state.is_open() && state.is_idle() && !state.is_chronically_slow())
    }
}

/// The lower median of the sorted values without one that is `own`.
fn median_without(sorted: &[u64], own: u64) -> Option<u64> {
    let n_others = sorted.len().checked_sub(1).filter(|n| *n > 0)?;
    let own = sorted.partition_point(|value| *value < own);
    let middle = (n_others - 1) / 2;
    sorted.get(if middle < own { middle } else { middle + 1 }).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_leaves_one_out() {
        for (values, own, median) in [
            (&[][..], 1, None),
            (&[1], 1, None),
            (&[1, 9], 1, Some(9)),
            (&[1, 9], 9, Some(1)),
            (&[1, 5, 9], 1, Some(5)),
            (&[1, 5, 9], 5, Some(1)),
            (&[1, 5, 9, 9], 1, Some(9)),
            (&[3, 3, 3, 3], 3, Some(3)),
        ] {
            assert_eq!(median_without(values, own), median, "{values:?} without {own}");
        }
    }
}
