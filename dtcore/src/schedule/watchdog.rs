//! The watchdog: which connections deliver nothing, or next to nothing, and should be replaced.

use std::time::Duration;

use super::{Fault, Policy};
use crate::manifest::StreamId;
use crate::schedule::pool::Pool;
use crate::schedule::stream_state::{MAX_SLOW_COUNT, StreamState};

/// How long a stream may be silent while others deliver, unless four of its round trips take longer.
pub(super) const STALL: Duration = Duration::from_secs(1);
const STALL_ROUND_TRIPS: u32 = 4;
/// How long all streams may be silent before all are replaced; twice as long each time it happens in a row.
const OUTAGE: Duration = Duration::from_secs(5);
const MAX_OUTAGE: Duration = Duration::from_secs(40);
/// How often, at least, connections are replaced before the user's stall timeout ends the transfer.
const ATTEMPTS: u32 = 3;
/// A longer silence of all streams ends a period of steady flow.
const GAP: Duration = Duration::from_millis(500);
/// The period over which rates are compared.
const PERIOD: Duration = Duration::from_secs(1);
/// A stream is slow below a tenth of the median of the others, and healthy again above a quarter of it.
const SLOW: u64 = 10;
pub(super) const HEALTHY: u64 = 4;
/// How much longer than the others a chronically slow stream may take for the last block.
const LAST_BLOCK: u32 = 4;

/// Detects silent and slow connections and outages of the path.
#[derive(Debug)]
pub(super) struct Watchdog {
    policy: Policy,
    /// When data last arrived on any stream.
    last_activity: Duration,
    /// Since when data has arrived without a gap.
    flowing_since: Duration,
    /// How long the current outage may last before all streams are replaced.
    outage: Duration,
    first_outage: Duration,
}

impl Watchdog {
    pub(super) fn new(policy: Policy, now: Duration) -> Self {
        let limit = policy.stall_timeout;
        let first_outage = if policy.limited { limit } else { OUTAGE.min(limit) };
        Self { policy, last_activity: now, flowing_since: now, outage: first_outage, first_outage }
    }

    /// Data arrived on some stream.
    pub(super) fn data_arrived(&mut self, now: Duration) {
        if self.silent_for(now) >= GAP {
            self.flowing_since = now;
        }
        self.last_activity = self.last_activity.max(now);
        self.outage = self.first_outage;
    }

    /// Restarts the timers at `now`.
    pub(super) fn reset_timers(&mut self, now: Duration) {
        (self.last_activity, self.flowing_since) = (now, now);
    }

    /// How long no data has arrived on any stream.
    pub(super) fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_activity)
    }

    /// The connections to replace, and why. Each is marked as faulty and not reported again.
    ///
    /// `last_block` is the length of a block if all blocks are assigned and none may be requested twice.
    pub(super) fn check(
        &mut self,
        pool: &mut Pool,
        last_block: Option<u64>,
        now: Duration,
    ) -> Vec<(StreamId, Fault)> {
        let mut faults = self.stalled(pool, now);
        if faults.is_empty() && !self.policy.limited {
            faults = self.slow(pool, last_block, now);
        }
        for (stream, fault) in &faults {
            if let Some(state) = pool.get_mut(*stream) {
                state.mark_faulty(*fault);
            }
            pool.changed();
        }
        faults
    }

    fn stalled(&mut self, pool: &mut Pool, now: Duration) -> Vec<(StreamId, Fault)> {
        let is_outage = self.silent_for(now) >= self.outage;
        // An idle stream could deliver the blocks instead; its own silence means nothing.
        let is_substitute_idle = pool.is_any_idle() && !self.policy.limited;
        let is_stalled = |state: &StreamState| {
            let silence = now.saturating_sub(state.last_activity());
            if is_outage {
                return silence >= self.outage;
            }
            let stall = self.stall_timeout_of(state);
            // After an outage, each stream's timer restarts when the first of them delivers again.
            let silence_in_flow = now.saturating_sub(state.last_activity().max(self.flowing_since));
            let is_flowing = self.silent_for(now) < GAP.max(stall / 2);
            is_substitute_idle && silence >= stall * 2 || is_flowing && silence_in_flow >= stall
        };
        let busy = pool.iter().filter(|(_, state)| state.is_open() && !state.is_idle());
        let stalled: Vec<_> = busy.filter(|(_, state)| is_stalled(state)).map(|(stream, _)| stream).collect();
        if is_outage && !stalled.is_empty() {
            self.outage = self.outage.saturating_mul(2).min(MAX_OUTAGE.max(self.first_outage));
        }
        for stream in stalled.iter().filter(|_| !is_outage) {
            // A connection that never delivered a byte is as bad as a slow one.
            if let Some(state) = pool.get_mut(*stream).filter(|state| state.is_silent()) {
                state.slow_count = (state.slow_count + 1).min(MAX_SLOW_COUNT);
            }
        }
        stalled.into_iter().map(|stream| (stream, Fault::Stalled)).collect()
    }

    fn stall_timeout_of(&self, state: &StreamState) -> Duration {
        let limit = self.policy.stall_timeout / ATTEMPTS;
        if self.policy.limited {
            // Under a rate limit a stream is not read while the others use up the limit.
            return limit;
        }
        STALL.max(state.rtt() * STALL_ROUND_TRIPS).min(limit)
    }

    /// The streams that delivered next to nothing in the last second, compared with the median of the others.
    fn slow(&self, pool: &mut Pool, last_block: Option<u64>, now: Duration) -> Vec<(StreamId, Fault)> {
        let delivered: Vec<_> =
            pool.iter_mut().map(|(stream, state)| (stream, state.last_second.bytes(now))).collect();
        let is_peer = |state: &StreamState, bytes: u64| state.is_open() && (bytes > 0 || !state.is_idle());
        let mut peers: Vec<u64> = pool
            .iter()
            .zip(&delivered)
            .filter(|((_, state), (_, bytes))| is_peer(state, *bytes))
            .map(|(_, (_, bytes))| *bytes)
            .collect();
        peers.sort_unstable();
        let mut faults = Vec::new();
        for (stream, bytes) in delivered {
            let (Some(median), Some(state)) = (median_without(&peers, bytes), pool.get(stream)) else {
                continue;
            };
            let since = state.measured_since().map(|since| since.max(self.flowing_since));
            let is_measured = since.is_some_and(|since| now.saturating_sub(since) >= PERIOD);
            if !state.is_open() || !is_measured {
                continue;
            }
            // A silent stream is a case of `stalled`.
            let is_slow = bytes * SLOW < median && now.saturating_sub(state.last_activity()) < GAP;
            let slow_count = match state.slow_count {
                MAX_SLOW_COUNT.. if delays_the_end(pool, state, last_block, now) => MAX_SLOW_COUNT,
                MAX_SLOW_COUNT.. => continue,
                slow_count if is_slow => slow_count + 1,
                // Only being slow twice in a row counts.
                1.. if bytes * HEALTHY >= median => 0,
                _ => continue,
            };
            if slow_count > 0 {
                faults.push((stream, Fault::Slow));
            }
            if let Some(state) = pool.get_mut(stream) {
                state.slow_count = slow_count;
            }
        }
        faults
    }
}

/// Whether the transfer waits for a chronically slow stream, because what it has may not be requested twice.
fn delays_the_end(pool: &Pool, state: &StreamState, last_block: Option<u64>, now: Duration) -> bool {
    last_block.filter(|_| pool.is_any_idle()).is_some_and(|block| {
        let others = pool.time_without(state, block, now) * LAST_BLOCK + PERIOD;
        state.time_to(state.end(), now, pool.typical_rate()) > others
    })
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
    fn median_leaves_one_value_out() {
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
