//! One stream as the scheduler sees it: what is in flight on it, how fast it is, and how often it was slow.

use std::collections::VecDeque;
use std::time::Duration;

use crate::manifest::{BlockId, BlockRun, Manifest};
use crate::schedule::Fault;
use crate::schedule::throughput::{LastSecond, ThroughputEstimator, bytes_in, time_for};

/// The smallest window: below it, a stream on a short path waits for its requests more than for its bytes.
const MIN_WINDOW: u64 = 1 << 20;
/// The largest window, which bounds what is lost with a connection; 64 MB/s at a round trip of 250 ms.
const MAX_WINDOW: u64 = 16 << 20;
/// The longest run: `sendfile` calls of 4 MiB measured 1.17 times the rate of calls of 1 MiB.
pub(super) const MAX_RUN: u64 = 4 << 20;
/// How long a run may take to arrive: no block of it can be verified before its end, and all of it is lost with the
/// connection.
pub(super) const RUN_TIME: Duration = Duration::from_millis(20);
/// How many runs a stream's share of the missing bytes has at least, so that runs get shorter towards the end: there the streams
/// are to end together, and a lost connection is to cost little.
const RUNS_PER_SHARE: u64 = 8;
/// The most blocks in flight on a stream; a sender accepts twice as many unanswered requests.
pub(super) const MAX_BLOCKS_IN_FLIGHT: usize = 512;
/// A stream that was idle for less than this counts as busy all the time.
const SHORT_IDLE: Duration = Duration::from_millis(50);
/// How many round trips TCP gets to find its rate before a connection is measured: 2^8 initial windows are 3.7 MB a
/// round trip.
const ROUND_TRIPS_TO_START: u32 = 8;
/// How often a stream is replaced for being slow before its connection is kept as it is.
pub(super) const MAX_SLOW_COUNT: u8 = 2;

/// The state of a stream's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ConnectionState {
    /// It has never been open and has not failed.
    Pending,
    Open,
    /// It was reported as faulty and is about to be closed.
    Faulty(Fault),
    Closed,
}

/// A block that was requested on a connection, or is pushed on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) block: BlockId,
    /// Where it ends, counted in bytes requested on the connection.
    end: u64,
    /// Where its run ends. The digests follow the run, so no block of it can be verified earlier.
    pub(super) run_end: u64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamState {
    connection: ConnectionState,
    rtt: Duration,
    opened: Duration,
    queue: VecDeque<InFlight>,
    /// All bytes requested on this connection, and how many of them have arrived.
    requested: u64,
    received: u64,
    /// No block of the queue that ends after this offset is assigned to this stream only.
    sole_until: u64,
    /// When the oldest request left of those since which no byte has arrived.
    awaiting_since: Option<Duration>,
    /// Since when blocks were in flight without a break, and when the last one arrived.
    busy_since: Duration,
    idle_since: Duration,
    /// When data last arrived, or was requested after the stream had been idle.
    last_activity: Duration,
    pub(super) throughput: ThroughputEstimator,
    pub(super) last_second: LastSecond,
    pub(super) slow_count: u8,
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
            sole_until: 0,
            awaiting_since: None,
            busy_since: Duration::ZERO,
            idle_since: Duration::ZERO,
            last_activity: Duration::ZERO,
            throughput: ThroughputEstimator::new(Duration::ZERO),
            last_second: LastSecond::default(),
            slow_count: 0,
        }
    }

    /// A new connection is open. The queue of the former one must have been taken by [`close`](Self::close).
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

    /// The connection is closed; returns what was in flight on it.
    pub(super) fn close(&mut self) -> VecDeque<InFlight> {
        self.connection = ConnectionState::Closed;
        std::mem::take(&mut self.queue)
    }

    pub(super) fn mark_faulty(&mut self, fault: Fault) {
        self.connection = ConnectionState::Faulty(fault);
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection == ConnectionState::Open
    }

    pub(super) fn is_pending(&self) -> bool {
        self.connection == ConnectionState::Pending
    }

    /// Whether it was so often replaced for being slow that it now gets blocks only where it delays nothing.
    pub(super) fn is_chronically_slow(&self) -> bool {
        self.slow_count >= MAX_SLOW_COUNT
    }

    pub(super) fn rtt(&self) -> Duration {
        self.rtt
    }

    pub(super) fn last_activity(&self) -> Duration {
        self.last_activity
    }

    pub(super) fn n_in_flight(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Where the last run ends.
    pub(super) fn end(&self) -> u64 {
        self.requested
    }

    /// The requested bytes that have not arrived.
    pub(super) fn outstanding(&self) -> u64 {
        self.requested - self.received
    }

    /// Whether `len` more bytes may be in flight when `allowance` may be in all.
    pub(super) fn has_room(&self, len: u64, allowance: u64) -> bool {
        self.outstanding() == 0 || self.outstanding() + len <= allowance
    }

    /// Whether no byte has arrived on this connection.
    pub(super) fn is_silent(&self) -> bool {
        self.received == 0
    }

    /// Since when it could have reached its full rate, if anything is in flight.
    pub(super) fn measured_since(&self) -> Option<Duration> {
        let started = self.opened + self.rtt * ROUND_TRIPS_TO_START;
        (!self.is_idle()).then(|| self.busy_since.max(started))
    }

    /// The run was requested; returns where it ends, counted in bytes requested on the connection.
    pub(super) fn request(&mut self, manifest: &Manifest, run: BlockRun, now: Duration) -> u64 {
        if self.outstanding() == 0 {
            self.throughput.begin(now + self.rtt);
            self.awaiting_since = Some(now);
        }
        self.enqueue(manifest, run, now)
    }

    /// As [`request`](Self::request), for a run that the sender pushes.
    pub(super) fn expect_pushed(&mut self, manifest: &Manifest, run: BlockRun, now: Duration) -> u64 {
        if self.outstanding() == 0 {
            // Part of it may be here already, which must not look like a rate: it was sent before the offer arrived.
            self.throughput.begin(now.saturating_sub(self.rtt));
        }
        self.enqueue(manifest, run, now)
    }

    fn enqueue(&mut self, manifest: &Manifest, run: BlockRun, now: Duration) -> u64 {
        if self.is_idle() {
            self.last_activity = now;
            if now.saturating_sub(self.idle_since) >= SHORT_IDLE {
                self.busy_since = now;
            }
        }
        let run_end = self.requested + manifest.run_len(run).unwrap_or(0);
        for block in manifest.blocks_of(run) {
            self.requested += manifest.range(block).len();
            self.queue.push_back(InFlight { block, end: self.requested, run_end });
        }
        self.sole_until = run_end;
        run_end
    }

    /// Data arrived after all on a connection that was reported as stalled: it is open again. Returns whether it was.
    ///
    /// The data may have waited in the socket while the thread that reads it waited for the disk.
    pub(super) fn is_stall_over(&mut self) -> bool {
        let was_stalled = self.connection == ConnectionState::Faulty(Fault::Stalled);
        if was_stalled {
            self.connection = ConnectionState::Open;
        }
        was_stalled
    }

    /// `n` bytes of data arrived.
    pub(super) fn receive(&mut self, n: u64, now: Duration) {
        // Bytes that were not requested must not make room for further requests.
        self.received += n.min(self.outstanding());
        self.last_activity = now;
        if let Some(requested) = self.awaiting_since.take() {
            // Connecting may have taken longer than a round trip because of a lost packet.
            self.rtt = self.rtt.min(now.saturating_sub(requested));
        }
        self.throughput.add(n, now);
        self.last_second.add(n, now);
        if self.outstanding() == 0 {
            self.throughput.end(now);
        }
    }

    /// Restarts the stall timer at `now`.
    pub(super) fn reset_timers(&mut self, now: Duration) {
        self.last_activity = now;
        if self.outstanding() > 0 {
            self.throughput.begin(now);
        }
    }

    /// The block has arrived completely, valid or not.
    pub(super) fn finish(&mut self, block: BlockId, now: Duration) {
        let Some(at) = self.queue.iter().position(|in_flight| in_flight.block == block) else { return };
        let Some(in_flight) = self.queue.remove(at) else { return };
        if self.received < in_flight.end {
            self.received = in_flight.end;
            if self.outstanding() == 0 {
                self.throughput.end(now);
            }
        }
        self.last_activity = now;
        if self.is_idle() {
            self.idle_since = now;
        }
    }

    /// A block that does not end after `end` is assigned to this stream only, again.
    pub(super) fn mark_sole(&mut self, end: u64) {
        self.sole_until = self.sole_until.max(end);
    }

    /// The last block of the queue that, by `is_sole`, is assigned to this stream only.
    ///
    /// Blocks after it are not searched again, so that many calls together cost no more than the queue is long.
    pub(super) fn last_sole(&mut self, is_sole: impl Fn(BlockId) -> bool) -> Option<InFlight> {
        let n = self.queue.partition_point(|in_flight| in_flight.end <= self.sole_until);
        let found = self.queue.range(..n).rev().find(|in_flight| is_sole(in_flight.block)).copied();
        self.sole_until = found.map_or(0, |in_flight| in_flight.end);
        found
    }

    /// The expected time until the connection's bytes up to `end` have arrived.
    pub(super) fn time_to(&self, end: u64, now: Duration, guess: u64) -> Duration {
        let left = end.saturating_sub(self.received);
        let flowing = self.throughput.wait(now) + time_for(left, self.throughput.rate(now, guess));
        // A stream that has been silent for some time is expected to stay silent for as long again.
        let expected = self.awaiting_since.map_or(Duration::ZERO, |requested| requested + self.rtt);
        flowing.max(now.saturating_sub(self.last_activity.max(expected)))
    }

    /// The expected time until `len` more bytes have arrived, if they are requested now.
    pub(super) fn time_for_more(&self, len: u64, now: Duration, guess: u64) -> Duration {
        let rate = self.throughput.rate(now, guess);
        time_for(self.outstanding(), rate).max(self.rtt) + time_for(len, rate)
    }

    /// How many bytes may be in flight, so that the stream never waits for a request.
    ///
    /// Twice what arrives in a round trip, because that doubles from one to the next while TCP finds its rate, still when
    /// there is room for another run; and at least two runs, so that one is requested while the other arrives.
    pub(super) fn window(&self, block: u64) -> u64 {
        let peak = self.throughput.peak();
        let path = bytes_in(2 * self.rtt, peak).min(MAX_WINDOW) + 2 * block;
        let run = run_len(peak);
        (path.max(run) + run).min(MAX_WINDOW).max(min_window(block))
    }

    /// How many bytes the next run may have, at least one block: two of them must fit into `allowance`, and several into the
    /// `share` of the missing bytes that the stream is to deliver.
    pub(super) fn max_run(&self, allowance: u64, share: u64, block: u64, now: Duration, guess: u64) -> u64 {
        run_len(self.throughput.rate(now, guess)).min(allowance / 2).min(share / RUNS_PER_SHARE).max(block)
    }
}

/// How many bytes a run has at that rate.
fn run_len(rate: u64) -> u64 {
    bytes_in(RUN_TIME, rate).min(MAX_RUN)
}

/// What may be in flight on every stream.
pub(super) fn min_window(block: u64) -> u64 {
    MIN_WINDOW.max(2 * block)
}
