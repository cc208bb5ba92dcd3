//! One stream as the scheduler sees it: what is in flight on it, how fast it is, and how it has behaved.

use std::collections::VecDeque;
use std::time::Duration;

use crate::manifest::BlockId;
use crate::schedule::throughput::{LastSecond, ThroughputEstimator, bytes_in, time_for};

/// The least window: below it, a stream on a short path waits for its requests more than for its bytes.
const MIN_WINDOW: u64 = 1 << 20;
/// The largest window, which bounds what a stream that breaks takes with it; 64 MB/s at a round trip of 250 ms.
const MAX_WINDOW: u64 = 16 << 20;
/// The most blocks in flight: half of the requests that a sender must be willing to keep.
pub(super) const MAX_HELD: usize = 512;
/// A stream that is without anything to do for less than that was busy all the time.
const SHORT_IDLE: Duration = Duration::from_millis(50);
/// A connection is judged when TCP has had so many round trips to find its rate: 2^8 initial windows are 3.7 MB a
/// round trip.
const ROUND_TRIPS_TO_START: u32 = 8;
/// How often a stream is replaced for being slow before it is left alone.
pub(super) const MAX_SLOW_COUNT: u8 = 2;

/// Where a stream's connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ConnectionState {
    /// It has never been open and has not failed.
    Pending,
    Open,
    /// It has been reported and shall be ended.
    Faulty,
    Closed,
}

/// A block that was requested for on a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requested {
    pub(super) block: BlockId,
    /// Where it ends among all bytes requested for on the connection.
    pub(super) end: u64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamState {
    connection: ConnectionState,
    rtt: Duration,
    opened: Duration,
    queue: VecDeque<Requested>,
    /// All bytes requested for on this connection, and those of them that received.
    requested: u64,
    received: u64,
    /// Behind this position of the queue no block is held by this stream alone.
    alone_until: u64,
    /// When the first request left after which no byte has come yet.
    awaiting: Option<Duration>,
    /// Since when the stream has always had something to do, and since when it has had nothing.
    busy_since: Duration,
    idle_since: Duration,
    /// When it last gave a sign, or something was requested for after it had had nothing to do.
    last_activity: Duration,
    pub(super) throughput: ThroughputEstimator,
    pub(super) last_second: LastSecond,
    pub(super) slow_count: u8,
    /// Whether what is requested for now comes behind something else that takes its time.
    pub(super) is_detained: bool,
}

impl StreamState {
    pub(super) fn new() -> Self {
        Self {
            connection: ConnectionState::Pending,
            rtt: Duration::ZERO,
            opened: Duration::ZERO,
            queue: VecDeque::new(),
            requested: 0,
            received: 0,
            alone_until: 0,
            awaiting: None,
            busy_since: Duration::ZERO,
            idle_since: Duration::ZERO,
            last_activity: Duration::ZERO,
            throughput: ThroughputEstimator::new(Duration::ZERO),
            last_second: LastSecond::default(),
            slow_count: 0,
            is_detained: false,
        }
    }

    /// A new connection; what the former one had must have been taken by [`close`](Self::close).
    pub(super) fn open(&mut self, rtt: Duration, now: Duration) {
        let mut throughput = ThroughputEstimator::new(rtt);
        if self.is_chronically_slow() {
            throughput.inherit(&self.throughput);
        }
        *self = Self {
            connection: ConnectionState::Open,
            rtt,
            opened: now,
            busy_since: now,
            idle_since: now,
            last_activity: now,
            throughput,
            slow_count: self.slow_count,
            ..Self::new()
        };
    }

    /// The connection is gone: gives what was requested for on it.
    pub(super) fn close(&mut self) -> VecDeque<Requested> {
        self.connection = ConnectionState::Closed;
        std::mem::take(&mut self.queue)
    }

    pub(super) fn mark_faulty(&mut self) {
        self.connection = ConnectionState::Faulty;
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection == ConnectionState::Open
    }

    pub(super) fn is_pending(&self) -> bool {
        self.connection == ConnectionState::Pending
    }

    /// Whether it was replaced for being slow so often that it is left alone.
    pub(super) fn is_chronically_slow(&self) -> bool {
        self.slow_count >= MAX_SLOW_COUNT
    }

    /// Whether it gets blocks like any other; one that does not gets some when there is no other.
    pub(super) fn is_healthy(&self) -> bool {
        !self.is_chronically_slow() && !self.is_detained
    }

    pub(super) fn rtt(&self) -> Duration {
        self.rtt
    }

    pub(super) fn last_activity(&self) -> Duration {
        self.last_activity
    }

    pub(super) fn n_held(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Where the last block ends among all bytes requested for on the connection.
    pub(super) fn end(&self) -> u64 {
        self.requested
    }

    /// The bytes that are still to come.
    pub(super) fn outstanding(&self) -> u64 {
        self.requested - self.received
    }

    /// Whether no byte has come on this connection.
    pub(super) fn is_silent_connection(&self) -> bool {
        self.received == 0
    }

    /// Since when it could have shown its rate without a break, if it has something to do now.
    pub(super) fn judged_since(&self) -> Option<Duration> {
        let started = self.opened.saturating_add(self.rtt * ROUND_TRIPS_TO_START);
        (!self.is_idle()).then(|| self.busy_since.max(started))
    }

    /// The block was requested for; gives its end among all bytes of the connection.
    pub(super) fn request(&mut self, block: BlockId, len: u64, now: Duration) -> u64 {
        if self.is_idle() {
            self.last_activity = now;
            if now.saturating_sub(self.idle_since) >= SHORT_IDLE {
                self.busy_since = now;
            }
        }
        if self.outstanding() == 0 {
            self.throughput.begin(now.saturating_add(self.rtt));
            self.awaiting = Some(now);
        }
        self.requested = self.requested.saturating_add(len);
        self.queue.push_back(Requested { block, end: self.requested });
        self.alone_until = self.requested;
        self.requested
    }

    /// `n` more bytes of data received.
    pub(super) fn receive(&mut self, n: u64, now: Duration) {
        // Bytes that nobody requested for would otherwise make room for more.
        self.received = self.received.saturating_add(n).min(self.requested);
        self.last_activity = now;
        if let Some(requested) = self.awaiting.take() {
            // Connecting may have taken longer than a round trip, for a lost packet.
            self.rtt = self.rtt.min(now.saturating_sub(requested));
        }
        self.throughput.add(n, now);
        self.last_second.add(n, now);
        if self.outstanding() == 0 {
            self.throughput.end(now);
        }
    }

    /// Whatever did not come until `now` could not.
    pub(super) fn reset_timers(&mut self, now: Duration) {
        self.last_activity = now;
        if self.outstanding() > 0 {
            self.throughput.begin(now);
        }
    }

    /// The block has come wholly, whatever it is good for.
    pub(super) fn finish(&mut self, block: BlockId, now: Duration) {
        let Some(at) = self.queue.iter().position(|requested| requested.block == block) else { return };
        let Some(requested) = self.queue.remove(at) else { return };
        if self.received < requested.end {
            self.received = requested.end;
            if self.outstanding() == 0 {
                self.throughput.end(now);
            }
        }
        self.last_activity = now;
        if self.is_idle() {
            self.idle_since = now;
        }
    }

    /// The block that ends there is held by this stream alone again.
    pub(super) fn alone_again(&mut self, end: u64) {
        self.alone_until = self.alone_until.max(end);
    }

    /// The last block in the queue that `is_alone` says this stream alone holds.
    ///
    /// Blocks behind it are not looked at again, so that many calls cost no more than the queue is long.
    pub(super) fn last_alone(&mut self, is_alone: impl Fn(BlockId) -> bool) -> Option<Requested> {
        let n = self.queue.partition_point(|requested| requested.end <= self.alone_until);
        let found = self.queue.range(..n).rev().find(|requested| is_alone(requested.block)).copied();
        self.alone_until = found.map_or(0, |requested| requested.end);
        found
    }

    /// How long it is until the connection's bytes up to `end` are there.
    pub(super) fn time_to(&self, end: u64, now: Duration, guess: u64) -> Duration {
        let left = end.saturating_sub(self.received);
        let flowing =
            self.throughput.wait(now).saturating_add(time_for(left, self.throughput.rate(now, guess)));
        // What has been silent for a time is expected to be silent for as long again.
        let expected = self.awaiting.map_or(Duration::ZERO, |requested| requested.saturating_add(self.rtt));
        flowing.max(now.saturating_sub(self.last_activity.max(expected)))
    }

    /// How long it would be until `len` more bytes are there, if they were requested for now.
    pub(super) fn time_for_more(&self, len: u64, now: Duration, guess: u64) -> Duration {
        let rate = self.throughput.rate(now, guess);
        time_for(self.outstanding(), rate).max(self.rtt).saturating_add(time_for(len, rate))
    }

    /// How many bytes may be in flight, so that the stream never waits for a request.
    ///
    /// Twice what comes in a round trip, because that doubles from one to the next while TCP finds its rate.
    pub(super) fn window(&self, block: u64) -> u64 {
        let outages = bytes_in(self.rtt, self.throughput.peak());
        outages.saturating_mul(2).saturating_add(2 * block).min(MAX_WINDOW).max(min_window(block))
    }
}

/// What may be in flight on every stream.
pub(super) fn min_window(block: u64) -> u64 {
    MIN_WINDOW.max(2 * block)
}
