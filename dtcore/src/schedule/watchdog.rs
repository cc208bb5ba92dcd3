//! The watchdogs: which connections bring nothing, or next to nothing, and shall be replaced.

use std::time::Duration;

use super::{Fault, Policy};
use crate::manifest::StreamId;
use crate::schedule::scheduler::Scheduler;
use crate::schedule::stream_state::{Lane, MOST_STRIKES};

/// How long a stream may bring nothing while others do, unless four of its round trips are longer.
pub(super) const STALL: Duration = Duration::from_secs(1);
const ROUND_TRIPS: u32 = 4;
/// How long all streams may bring nothing before all are replaced; the next time it is twice as long.
const OUTAGE: Duration = Duration::from_secs(5);
const LONGEST_OUTAGE: Duration = Duration::from_secs(40);
/// How often, at least, connections are made anew within the time after which the user gives up.
const TRIES: u32 = 3;
/// Bytes that come with longer gaps do not flow.
const GAP: Duration = Duration::from_millis(500);
/// Over how long rates are compared.
const WINDOW: Duration = Duration::from_secs(1);
/// The part of the others' median below which a stream is slow, and that above which it is sound.
const SLOW: u64 = 10;
const SOUND: u64 = 4;
/// How much longer than the others a stream that is left alone may take for the last block.
const OTHERS_TIMES: u32 = 4;

/// When bytes came, on any stream.
#[derive(Debug)]
pub(super) struct Flow {
    last: Duration,
    /// Since when bytes have come without a gap.
    since: Duration,
    /// How long the current outage may last until all streams are replaced.
    outage: Duration,
    first_outage: Duration,
}

impl Flow {
    pub(super) fn new(policy: Policy, now: Duration) -> Self {
        let limit = policy.stall_timeout;
        let first_outage = if policy.limited { limit } else { OUTAGE.min(limit) };
        Self { last: now, since: now, outage: first_outage, first_outage }
    }

    /// Bytes came.
    pub(super) fn heard(&mut self, now: Duration) {
        if now.saturating_sub(self.last) >= GAP {
            self.since = now;
        }
        self.last = self.last.max(now);
        self.outage = self.first_outage;
    }

    /// Nothing could come.
    pub(super) fn excuse(&mut self, now: Duration) {
        (self.last, self.since) = (now, now);
    }
}

impl Scheduler {
    /// Which connections shall be ended and replaced; to be called every 50 to 100 ms.
    ///
    /// Each is reported once; the driver ends it, calls [`lost`](Self::lost), and connects again.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<(StreamId, Fault)> {
        let is_consumer_awaited =
            !self.ledger.is_anything_held() && self.ledger.lowest(self.limit(), None).is_none();
        if is_consumer_awaited {
            self.flow.excuse(now);
        }
        if self.is_complete() {
            return Vec::new();
        }
        self.pool.refresh(&self.lanes, now);
        let mut faults = self.stalled(now);
        if faults.is_empty() && !self.policy.limited {
            faults = self.slow(now);
        }
        for (stream, _) in &faults {
            if let Some(lane) = self.lanes.get_mut(stream.index()) {
                lane.condemn();
            }
            self.pool.changed();
        }
        faults
    }

    /// The whole program stood still until `now`: that nothing came is no fault of any stream.
    pub(crate) fn excuse(&mut self, now: Duration) {
        self.flow.excuse(now);
        for lane in &mut self.lanes {
            lane.excuse(now);
        }
    }

    /// For how long nothing has come on any stream although something could have.
    pub(crate) fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.flow.last)
    }

    fn stalled(&mut self, now: Duration) -> Vec<(StreamId, Fault)> {
        let is_outage = self.silent_for(now) >= self.flow.outage;
        let is_helped = self.is_somebody_free();
        let faults = self.faulty(Fault::Stalled, |lane| {
            let quiet = now.saturating_sub(lane.heard());
            if is_outage {
                return quiet >= self.flow.outage;
            }
            let stall = self.stall_of(lane);
            // After an outage each stream gets its time again, from when the first of them is back.
            let quiet_in_flow = now.saturating_sub(lane.heard().max(self.flow.since));
            let is_flowing = self.silent_for(now) < GAP.max(stall / 2);
            // The silence of streams that are asked for nothing says nothing, and they could bring it in its place.
            let is_replaceable = is_helped && !self.policy.limited && quiet >= stall.saturating_mul(2);
            is_replaceable || is_flowing && quiet_in_flow >= stall
        });
        if is_outage && !faults.is_empty() {
            self.flow.outage =
                self.flow.outage.saturating_mul(2).min(LONGEST_OUTAGE.max(self.flow.first_outage));
        }
        for (stream, _) in faults.iter().filter(|_| !is_outage) {
            // A connection that never brought a byte is as bad as one that brings next to nothing.
            if let Some(lane) = self.lanes.get_mut(stream.index()).filter(|lane| lane.is_mute()) {
                lane.strikes = lane.strikes.saturating_add(1).min(MOST_STRIKES);
            }
        }
        faults
    }

    fn stall_of(&self, lane: &Lane) -> Duration {
        if self.policy.limited {
            // Under a limit a stream is not read for as long as the others use the limit up.
            return self.policy.stall_timeout / TRIES;
        }
        STALL.max(lane.rtt().saturating_mul(ROUND_TRIPS)).min(self.policy.stall_timeout / TRIES)
    }

    /// The busy streams of which `is_faulty`.
    fn faulty(&self, fault: Fault, is_faulty: impl Fn(&Lane) -> bool) -> Vec<(StreamId, Fault)> {
        let busy = self.streams().filter(|(_, lane)| lane.is_open() && !lane.is_idle());
        busy.filter(|(_, lane)| is_faulty(lane)).map(|(stream, _)| (stream, fault)).collect()
    }

    fn streams(&self) -> impl Iterator<Item = (StreamId, &Lane)> {
        self.streams.ids().zip(&self.lanes)
    }

    /// The streams that brought next to nothing in the last second, compared with the median of the others.
    fn slow(&mut self, now: Duration) -> Vec<(StreamId, Fault)> {
        let brought: Vec<u64> = self.lanes.iter_mut().map(|lane| lane.last_second.bytes(now)).collect();
        let is_peer = |(lane, bytes): &(&Lane, &u64)| lane.is_open() && (**bytes > 0 || !lane.is_idle());
        let mut peers: Vec<u64> =
            self.lanes.iter().zip(&brought).filter(is_peer).map(|(_, bytes)| *bytes).collect();
        peers.sort_unstable();
        let mut faults = Vec::new();
        for (stream, bytes) in self.streams.ids().zip(brought) {
            let (Some(median), Some(lane)) = (median_without(&peers, bytes), self.lanes.get(stream.index()))
            else {
                continue;
            };
            let since = lane.judged_since().map(|since| since.max(self.flow.since));
            let is_judged = since.is_some_and(|since| now.saturating_sub(since) >= WINDOW);
            if !lane.is_open() || !is_judged {
                continue;
            }
            // One that has fallen silent is left to the other watchdog.
            let is_slow = bytes.saturating_mul(SLOW) < median && now.saturating_sub(lane.heard()) < GAP;
            let strikes = match lane.strikes {
                MOST_STRIKES.. if self.is_in_the_way(lane, now) => MOST_STRIKES,
                MOST_STRIKES.. => continue,
                strikes if is_slow => strikes + 1,
                // Slow once and sound since then: the next time is the first one again.
                1.. if bytes.saturating_mul(SOUND) >= median => 0,
                _ => continue,
            };
            if strikes > 0 {
                faults.push((stream, Fault::Slow));
            }
            if let Some(lane) = self.lanes.get_mut(stream.index()) {
                lane.strikes = strikes;
            }
        }
        faults
    }

    /// Whether a stream that is left alone keeps the transfer from ending, with a block that may not be asked for twice.
    fn is_in_the_way(&self, lane: &Lane, now: Duration) -> bool {
        let block = self.ledger.plan().block_size().bytes();

        let others =
            self.pool.time_without(lane, block, now).saturating_mul(OTHERS_TIMES).saturating_add(WINDOW);
        self.is_somebody_free()
            && self.is_all_asked()
            && !self.can_duplicate(block)
            && lane.time_to(lane.end(), now, self.pool.typical()) > others
    }
    /// Whether a stream has nothing to do that could take over what another one holds.
    fn is_somebody_free(&self) -> bool {
        self.lanes.iter().any(|lane| lane.is_open() && lane.is_idle() && !lane.is_crawler())
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
