//! All streams together: how fast they are, and how much of what is missing each of them should deliver.

use std::time::Duration;

use crate::manifest::{StreamCount, StreamId};
use crate::num::to_u64;
use crate::schedule::stream_state::StreamState;
use crate::schedule::throughput::{bytes_in, time_for};

/// How long the sums are reused.
const REFRESH_INTERVAL: Duration = Duration::from_millis(10);

/// The streams, and sums over the open ones, which are computed again every few milliseconds and when a stream opens,
/// closes or changes its standing.
#[derive(Debug)]
pub(super) struct Pool {
    streams: StreamCount,
    states: Vec<StreamState>,
    refreshed: Option<Duration>,
    /// When the first stream opened, and how long after that the others are expected.
    first_open: Option<(Duration, Duration)>,
    /// The rate of all streams, in bytes a second.
    total_rate: u64,
    /// The mean rate of the measured streams; 0 if there are none.
    typical_rate: u64,
    /// How many streams share what is missing.
    n_sharing: u64,
    /// How many open streams are not chronically slow.
    n_healthy: usize,
}

impl Pool {
    pub(super) fn new(streams: StreamCount) -> Self {
        Self {
            streams,
            states: streams.ids().map(|_| StreamState::new()).collect(),
            refreshed: None,
            first_open: None,
            total_rate: 0,
            typical_rate: 0,
            n_sharing: 0,
            n_healthy: 0,
        }
    }

    pub(super) fn get(&self, stream: StreamId) -> Option<&StreamState> {
        self.states.get(stream.index())
    }

    pub(super) fn get_mut(&mut self, stream: StreamId) -> Option<&mut StreamState> {
        self.states.get_mut(stream.index())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (StreamId, &StreamState)> {
        self.streams.ids().zip(&self.states)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut StreamState)> {
        self.streams.ids().zip(&mut self.states)
    }

    /// A stream has a new connection.
    pub(super) fn open(&mut self, stream: StreamId, rtt: Duration, now: Duration) {
        if let Some(state) = self.get_mut(stream) {
            state.open(rtt, now);
            self.first_open.get_or_insert((now, rtt));
            self.changed();
        }
    }

    /// A stream was closed, or has another standing.
    pub(super) fn changed(&mut self) {
        self.refreshed = None;
    }

    /// Computes the sums again if they are out of date.
    pub(super) fn refresh(&mut self, now: Duration) {
        if self.refreshed.is_some_and(|refreshed| now.saturating_sub(refreshed) < REFRESH_INTERVAL) {
            return;
        }
        self.refreshed = Some(now);
        let open = || self.states.iter().filter(|state| state.is_open());
        let n_healthy = open().filter(|state| !state.is_chronically_slow()).count();
        // Chronically slow streams count only if there are no others.
        let open = || open().filter(|state| n_healthy == 0 || !state.is_chronically_slow());
        let measured = || open().filter(|state| state.throughput.is_measured());
        let sum: u64 = measured().map(|state| state.throughput.rate(now, 0)).sum();
        let typical_rate = sum.checked_div(to_u64(measured().count())).unwrap_or(0);
        let unmeasured = open().filter(|state| !state.throughput.is_measured());
        let guessed: u64 = unmeasured.map(|state| state.throughput.rate(now, typical_rate)).sum();
        // Streams that are still connecting get a share, unless they are late.
        let is_early = self.first_open.is_some_and(|(at, rtt)| now <= at + rtt);
        let n_pending = to_u64(self.states.iter().filter(|state| is_early && state.is_pending()).count());
        self.n_sharing = to_u64(open().count()) + n_pending;
        self.n_healthy = n_healthy;
        self.typical_rate = typical_rate;
        self.total_rate = sum + guessed + n_pending * typical_rate;
    }

    /// The rate to assume for a stream that was not measured.
    pub(super) fn typical_rate(&self) -> u64 {
        self.typical_rate
    }

    /// How many open streams are not chronically slow.
    pub(super) fn n_healthy(&self) -> usize {
        self.n_healthy
    }

    /// Whether a stream that is not chronically slow has nothing in flight.
    pub(super) fn is_any_idle(&self) -> bool {
        self.states.iter().any(|state| state.is_open() && state.is_idle() && !state.is_chronically_slow())
    }

    /// Whether a stream is less than half as fast as the typical one.
    pub(super) fn is_slower_than_most(&self, state: &StreamState, now: Duration) -> bool {
        state.throughput.rate(now, self.typical_rate) * 2 < self.typical_rate
    }

    /// How many bytes may be in flight on a stream for it to end with the others, when `missing` bytes are missing.
    pub(super) fn share(&self, state: &StreamState, missing: u64, now: Duration) -> u64 {
        if self.typical_rate == 0 {
            return missing / self.n_sharing.max(1);
        }
        let rate = state.throughput.rate(now, self.typical_rate);
        bytes_in(time_for(missing, self.total_rate.max(rate)), rate)
    }

    /// How long the other streams need for so many bytes.
    pub(super) fn time_without(&self, state: &StreamState, bytes: u64, now: Duration) -> Duration {
        let is_counted = self.n_healthy == 0 || !state.is_chronically_slow();
        let own = if is_counted { state.throughput.rate(now, self.typical_rate) } else { 0 };
        // Its own rate may have risen since the sums were computed.
        time_for(bytes, self.total_rate.saturating_sub(own))
    }
}
