//! One stream as the scheduler sees it: what is in flight on it, how fast it is, and how it has behaved.

use std::collections::VecDeque;
use std::time::Duration;

use crate::manifest::BlockIndex;
use crate::schedule::throughput::{LastSecond, Meter, bytes_in, time_for};

/// The least window: below it, a stream on a short path waits for its requests more than for its bytes.
const LEAST_WINDOW: u64 = 1 << 20;
/// The largest window, which bounds what a stream that breaks takes with it; 64 MB/s at a round trip of 250 ms.
const LARGEST_WINDOW: u64 = 16 << 20;
/// The most blocks in flight: half of the requests that a sender must be willing to keep.
pub(super) const MOST_HELD: usize = 512;
/// A stream that is without anything to do for less than that was busy all the time.
const SHORT_IDLE: Duration = Duration::from_millis(50);
/// A connection is judged when TCP has had so many round trips to find its rate: 2^8 initial windows are 3.7 MB a
/// round trip.
const ROUND_TRIPS_TO_START: u32 = 8;
/// How often a stream is replaced for being slow before it is left alone.
pub(super) const MOST_STRIKES: u8 = 2;

/// Where a stream's connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It has never been open and has not failed.
    Awaited,
    Open,
    /// It has been reported and shall be ended.
    Condemned,
    Closed,
}

/// A block that was asked for on a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) block: BlockIndex,
    /// Where it ends among all bytes asked for on the connection.
    pub(super) end: u64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Lane {
    state: State,
    rtt: Duration,
    opened: Duration,
    queue: VecDeque<Asked>,
    /// All bytes asked for on this connection, and those of them that came.
    asked: u64,
    came: u64,
    /// Behind this position of the queue no block is held by this stream alone.
    alone_until: u64,
    /// When the first request left after which no byte has come yet.
    awaiting: Option<Duration>,
    /// Since when the stream has always had something to do, and since when it has had nothing.
    busy_since: Duration,
    idle_since: Duration,
    /// When it last gave a sign, or something was asked for after it had had nothing to do.
    heard: Duration,
    pub(super) meter: Meter,
    pub(super) last_second: LastSecond,
    pub(super) strikes: u8,
    /// Whether what is asked for now comes behind something else that takes its time.
    pub(super) is_detained: bool,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            state: State::Awaited,
            rtt: Duration::ZERO,
            opened: Duration::ZERO,
            queue: VecDeque::new(),
            asked: 0,
            came: 0,
            alone_until: 0,
            awaiting: None,
            busy_since: Duration::ZERO,
            idle_since: Duration::ZERO,
            heard: Duration::ZERO,
            meter: Meter::new(Duration::ZERO),
            last_second: LastSecond::default(),
            strikes: 0,
            is_detained: false,
        }
    }

    /// A new connection; what the former one had must have been taken by [`close`](Self::close).
    pub(super) fn open(&mut self, rtt: Duration, now: Duration) {
        let mut meter = Meter::new(rtt);
        if self.is_crawler() {
            meter.inherit(&self.meter);
        }
        *self = Self {
            state: State::Open,
            rtt,
            opened: now,
            busy_since: now,
            idle_since: now,
            heard: now,
            meter,
            strikes: self.strikes,
            ..Self::new()
        };
    }

    /// The connection is gone: gives what was asked for on it.
    pub(super) fn close(&mut self) -> VecDeque<Asked> {
        self.state = State::Closed;
        std::mem::take(&mut self.queue)
    }

    pub(super) fn condemn(&mut self) {
        self.state = State::Condemned;
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.state == State::Awaited
    }

    /// Whether it was replaced for being slow so often that it is left alone.
    pub(super) fn is_crawler(&self) -> bool {
        self.strikes >= MOST_STRIKES
    }

    /// Whether it gets blocks like any other; one that does not gets some when there is no other.
    pub(super) fn is_sound(&self) -> bool {
        !self.is_crawler() && !self.is_detained
    }

    pub(super) fn rtt(&self) -> Duration {
        self.rtt
    }

    pub(super) fn heard(&self) -> Duration {
        self.heard
    }

    pub(super) fn n_held(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Where the last block ends among all bytes asked for on the connection.
    pub(super) fn end(&self) -> u64 {
        self.asked
    }

    /// The bytes that are still to come.
    pub(super) fn outstanding(&self) -> u64 {
        self.asked - self.came
    }

    /// Whether no byte has come on this connection.
    pub(super) fn is_mute(&self) -> bool {
        self.came == 0
    }

    /// Since when it could have shown its rate without a break, if it has something to do now.
    pub(super) fn judged_since(&self) -> Option<Duration> {
        let started = self.opened.saturating_add(self.rtt * ROUND_TRIPS_TO_START);
        (!self.is_idle()).then(|| self.busy_since.max(started))
    }

    /// The block was asked for; gives its end among all bytes of the connection.
    pub(super) fn ask(&mut self, block: BlockIndex, len: u64, now: Duration) -> u64 {
        if self.is_idle() {
            self.heard = now;
            if now.saturating_sub(self.idle_since) >= SHORT_IDLE {
                self.busy_since = now;
            }
        }
        if self.outstanding() == 0 {
            self.meter.begin(now.saturating_add(self.rtt));
            self.awaiting = Some(now);
        }
        self.asked = self.asked.saturating_add(len);
        self.queue.push_back(Asked { block, end: self.asked });
        self.alone_until = self.asked;
        self.asked
    }

    /// `n` more bytes of data came.
    pub(super) fn receive(&mut self, n: u64, now: Duration) {
        // Bytes that nobody asked for would otherwise make room for more.
        self.came = self.came.saturating_add(n).min(self.asked);
        self.heard = now;
        if let Some(asked) = self.awaiting.take() {
            // Connecting may have taken longer than a round trip, for a lost packet.
            self.rtt = self.rtt.min(now.saturating_sub(asked));
        }
        self.meter.add(n, now);
        self.last_second.add(n, now);
        if self.outstanding() == 0 {
            self.meter.end(now);
        }
    }

    /// Whatever did not come until `now` could not.
    pub(super) fn excuse(&mut self, now: Duration) {
        self.heard = now;
        if self.outstanding() > 0 {
            self.meter.begin(now);
        }
    }

    /// The block has come wholly, whatever it is good for.
    pub(super) fn finish(&mut self, block: BlockIndex, now: Duration) {
        let Some(at) = self.queue.iter().position(|asked| asked.block == block) else { return };
        let Some(asked) = self.queue.remove(at) else { return };
        if self.came < asked.end {
            self.came = asked.end;
            if self.outstanding() == 0 {
                self.meter.end(now);
            }
        }
        self.heard = now;
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
    pub(super) fn last_alone(&mut self, is_alone: impl Fn(BlockIndex) -> bool) -> Option<Asked> {
        let n = self.queue.partition_point(|asked| asked.end <= self.alone_until);
        let found = self.queue.range(..n).rev().find(|asked| is_alone(asked.block)).copied();
        self.alone_until = found.map_or(0, |asked| asked.end);
        found
    }

    /// How long it is until the connection's bytes up to `end` are there.
    pub(super) fn time_to(&self, end: u64, now: Duration, guess: u64) -> Duration {
        let left = end.saturating_sub(self.came);
        let flowing = self.meter.wait(now).saturating_add(time_for(left, self.meter.rate(now, guess)));
        // What has been silent for a time is expected to be silent for as long again.
        let expected = self.awaiting.map_or(Duration::ZERO, |asked| asked.saturating_add(self.rtt));
        flowing.max(now.saturating_sub(self.heard.max(expected)))
    }

    /// How long it would be until `len` more bytes are there, if they were asked for now.
    pub(super) fn time_for_more(&self, len: u64, now: Duration, guess: u64) -> Duration {
        let rate = self.meter.rate(now, guess);
        time_for(self.outstanding(), rate).max(self.rtt).saturating_add(time_for(len, rate))
    }

    /// How many bytes may be in flight, so that the stream never waits for a request.
    ///
    /// Twice what comes in a round trip, because that doubles from one to the next while TCP finds its rate.
    pub(super) fn window(&self, block: u64) -> u64 {
        let flow = bytes_in(self.rtt, self.meter.peak());
        flow.saturating_mul(2).saturating_add(2 * block).min(LARGEST_WINDOW).max(least_window(block))
    }
}

/// What may be in flight on every stream.
pub(super) fn least_window(block: u64) -> u64 {
    LEAST_WINDOW.max(2 * block)
}
