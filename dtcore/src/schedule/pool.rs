//! All streams together: how fast they are, and how much of what is missing falls to one of them.

use std::time::Duration;

use crate::schedule::stream_state::StreamState;
use crate::schedule::throughput::{bytes_in, time_for};

/// For how long the sums are good enough.
const FRESH: Duration = Duration::from_millis(10);

/// Sums over the open streams, which are taken anew every few milliseconds and when a stream comes or goes.
#[derive(Debug, Default)]
pub(super) struct Pool {
    taken: Option<Duration>,
    /// When the first stream was open, and for how long after that the others are awaited.
    first: Option<(Duration, Duration)>,
    /// The rate of all streams, in bytes a second.
    total: u64,
    /// The mean rate of those that are known; 0 if none is.
    typical_rate: u64,
    /// How many streams share what is missing.
    n_sharers: u64,
    /// How many open streams are neither left alone for being slow nor detained.
    n_healthy: usize,
}

impl Pool {
    /// A stream has come.
    pub(super) fn opened(&mut self, rtt: Duration, now: Duration) {
        self.first.get_or_insert((now, rtt));
        self.taken = None;
    }

    /// A stream has gone, or is another one now.
    pub(super) fn changed(&mut self) {
        self.taken = None;
    }

    /// Takes the sums anew, if they are too old.
    pub(super) fn refresh(&mut self, states: &[StreamState], now: Duration) {
        if self.taken.is_some_and(|taken| now.saturating_sub(taken) < FRESH) {
            return;
        }
        self.taken = Some(now);
        let open = || states.iter().filter(|state| state.is_open());
        self.n_healthy = open().filter(|state| !state.is_chronically_slow()).count();
        // Those that are left alone or detained count only if there are no others.
        let n_healthy = self.n_healthy;
        let open = || open().filter(|state| n_healthy == 0 || !state.is_chronically_slow());
        let known = || open().filter(|state| state.throughput.is_known());
        let n_known = u64::try_from(known().count()).unwrap_or(u64::MAX);
        let sum = known().map(|state| state.throughput.rate(now, 0)).fold(0, u64::saturating_add);
        self.typical_rate = sum.checked_div(n_known).unwrap_or(0);
        let unknown = open().filter(|state| !state.throughput.is_known());
        let guessed =
            unknown.map(|state| state.throughput.rate(now, self.typical_rate)).fold(0, u64::saturating_add);
        // Those that are still connecting get their share when they come, unless they are late.
        let is_early = self.first.is_some_and(|(at, rtt)| now <= at.saturating_add(rtt));
        let n_pending = states.iter().filter(|state| is_early && state.is_pending()).count();
        let n_pending = u64::try_from(n_pending).unwrap_or(u64::MAX);
        self.total = sum.saturating_add(guessed).saturating_add(n_pending.saturating_mul(self.typical_rate));
        self.n_sharers = u64::try_from(open().count()).unwrap_or(u64::MAX).saturating_add(n_pending);
    }

    /// The rate of a stream that is not known yet.
    pub(super) fn typical_rate(&self) -> u64 {
        self.typical_rate
    }

    /// How many open streams are neither left alone for being slow nor detained.
    pub(super) fn n_healthy(&self) -> usize {
        self.n_healthy
    }

    /// How much may be in flight on a stream for it to end with the others, when so much is missing.
    pub(super) fn share(&self, state: &StreamState, missing: u64, now: Duration) -> u64 {
        if self.typical_rate == 0 {
            return missing / self.n_sharers.max(1);
        }
        let rate = state.throughput.rate(now, self.typical_rate);
        bytes_in(time_for(missing, self.total.max(rate)), rate)
    }

    /// How long the streams but this one need for so many bytes.
    pub(super) fn time_without(&self, state: &StreamState, bytes: u64, now: Duration) -> Duration {
        let is_counted = self.n_healthy == 0 || !state.is_chronically_slow();
        let own = if is_counted { state.throughput.rate(now, self.typical_rate) } else { 0 };
        time_for(bytes, self.total.saturating_sub(own))
    }
}
