//! A discrete-event simulation of streams: each answers in order, a round trip later, at its own rate.

use std::collections::VecDeque;
use std::time::Duration;

use crate::manifest::{BlockId, BlockRun, BlockSet, BlockSize, Manifest, StreamCount, StreamId};
use crate::schedule::{
    Backoff, Corrupt, Fault, NextRun, Policy, Retries, RetryLimit, Scheduler, VerifiedCopy,
};

/// The virtual time that passes in one step.
const STEP: Duration = Duration::from_millis(1);
/// How often the driver ticks.
const TICK: Duration = Duration::from_millis(50);

pub(super) const MB: u64 = 1_000_000;

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The path of a stream: its rate in bytes a second at a time, for the connection with that number, counted from 1;
/// `None` if no connection is possible.
pub(super) type Path = Box<dyn Fn(Duration, u32) -> Option<u64>>;

/// A constant rate.
pub(super) fn steady(rate: u64) -> Path {
    Box::new(move |_, _| Some(rate))
}

/// A rate that changes at a time, on any connection.
pub(super) fn changing(before: u64, at: Duration, after: u64) -> Path {
    Box::new(move |now, _| Some(if now < at { before } else { after }))
}

/// One simulated stream.
struct Simulated {
    path: Path,
    connection: u32,
    backoff: Backoff,
    /// When the next attempt to connect succeeds or fails; `None` while connected.
    dialled: Option<Duration>,
    opened: Duration,
    /// The runs in flight: blocks, bytes that have not arrived, and when the first byte can arrive.
    responses: VecDeque<(BlockRun, u64, Duration)>,
    /// Millionths of a byte that the path may deliver now.
    credit: u128,
}

/// A transfer over simulated streams.
pub(super) struct Simulation {
    pub(super) scheduler: Scheduler,
    manifest: Manifest,
    streams: StreamCount,
    rtt: Duration,
    simulated: Vec<Simulated>,
    retries: Retries,
    /// Whether each connection begins with TCP's slow start.
    pub(super) slow_start: bool,
    /// Which blocks are corrupt on which streams.
    pub(super) corrupts: Box<dyn Fn(StreamId, BlockId) -> bool>,
    /// The rate of an in-order consumer.
    pub(super) consumer: Option<u64>,
    pub(super) now: Duration,
    pub(super) faults: Vec<(Duration, StreamId, Fault)>,
    /// The bytes that arrived on each stream, and those that were discarded.
    pub(super) delivered: Vec<u64>,
    pub(super) wasted: u64,
    /// The most bytes that were in flight on one stream.
    pub(super) most_in_flight: u64,
    /// How many runs were requested, and the bytes of the longest.
    pub(super) n_runs: u64,
    pub(super) longest_run: u64,
}

impl Simulation {
    pub(super) fn new(size: u64, rtt: Duration, policy: Policy, paths: Vec<Path>) -> Self {
        let manifest = Manifest::new(size, BlockSize::for_file(size)).unwrap();
        let streams = StreamCount::new(u64::try_from(paths.len()).unwrap()).unwrap();
        let stream_of = |(path, stream)| Simulated {
            path,
            backoff: Backoff::new(stream),
            connection: 0,
            dialled: Some(rtt),
            opened: Duration::ZERO,
            responses: VecDeque::new(),
            credit: 0,
        };
        Self {
            scheduler: Scheduler::new(
                manifest,
                BlockSet::new(&manifest),
                vec![],
                streams,
                policy,
                Duration::ZERO,
            ),
            manifest,
            streams,
            rtt,
            delivered: vec![0; paths.len()],
            simulated: paths.into_iter().zip(streams.ids()).map(stream_of).collect(),
            retries: Retries::new(RetryLimit::rounds(8), usize::from(streams.value())),
            slow_start: false,
            corrupts: Box::new(|_, _| false),
            consumer: None,
            now: Duration::ZERO,
            faults: Vec::new(),
            wasted: 0,
            most_in_flight: 0,
            n_runs: 0,
            longest_run: 0,
        }
    }

    /// Each stream connects that much later than the one before it.
    pub(super) fn stagger(&mut self, by: Duration) {
        for (simulated, n) in self.simulated.iter_mut().zip(0..) {
            simulated.dialled = Some(self.rtt + by * n);
        }
    }

    /// How many blocks are in flight on the stream.
    pub(super) fn n_in_flight(&self, stream: usize) -> u32 {
        self.simulated[stream].responses.iter().map(|(run, ..)| run.count).sum()
    }

    /// Runs until the transfer is complete; returns the time it took.
    #[track_caller]
    pub(super) fn run(&mut self) -> Duration {
        let limit = Duration::from_secs(300);
        assert!(
            self.run_until(limit),
            "not complete after {limit:?}: {} bytes are missing",
            self.scheduler.missing()
        );
        assert!(self.delivered.iter().all(|delivered| *delivered <= 3 * self.manifest.size()));
        self.now
    }

    /// Runs until the transfer is complete or the time is up; returns whether it is complete.
    pub(super) fn run_until(&mut self, end: Duration) -> bool {
        while !self.scheduler.is_complete() && self.now < end {
            self.now += STEP;
            for stream in self.streams.ids() {
                self.connect(stream);
                self.deliver(stream);
            }
            if let Some(rate) = self.consumer {
                let position = rate * u64::try_from(self.now.as_millis()).unwrap() / 1_000;
                self.scheduler.consumed(position.min(self.scheduler.frontier()));
            }
            if self.now.as_millis().is_multiple_of(TICK.as_millis()) {
                for (stream, fault) in self.scheduler.tick(self.now) {
                    self.faults.push((self.now, stream, fault));
                    self.lose(stream);
                }
            }
            for stream in self.streams.ids() {
                self.request(stream);
            }
        }
        self.scheduler.is_complete()
    }

    fn connect(&mut self, stream: StreamId) {
        let simulated = &mut self.simulated[stream.index()];
        let is_possible = |connection| (simulated.path)(self.now, connection).is_some();
        if simulated.dialled.is_none() && !is_possible(simulated.connection) {
            self.lose(stream);
        } else if simulated.dialled.is_some_and(|at| at <= self.now) {
            if is_possible(simulated.connection + 1) {
                simulated.connection += 1;
                (simulated.dialled, simulated.opened, simulated.credit) = (None, self.now, 0);
                self.scheduler.opened(stream, self.rtt, self.now);
            } else {
                self.lose(stream);
            }
        }
    }

    fn lose(&mut self, stream: StreamId) {
        let simulated = &mut self.simulated[stream.index()];
        simulated.responses.clear();
        simulated.dialled = Some(self.now + simulated.backoff.failed() + self.rtt);
        assert_eq!(self.retries.failed(stream, self.now), Ok(()));
        self.scheduler.lost(stream, self.now);
    }

    fn request(&mut self, stream: StreamId) {
        while let NextRun::Request(run) = self.scheduler.next_run(stream, self.now) {
            let len = self.manifest.run_len(run).unwrap();
            let simulated = &mut self.simulated[stream.index()];
            assert_eq!(simulated.dialled, None, "a run for a stream that is not open");
            simulated.responses.push_back((run, len, self.now + self.rtt));
            let in_flight = simulated.responses.iter().map(|(_, left, _)| left).sum();
            self.most_in_flight = self.most_in_flight.max(in_flight);
            assert!(self.n_in_flight(stream.index()) <= 512);
            self.n_runs += 1;
            self.longest_run = self.longest_run.max(len);
        }
    }

    fn deliver(&mut self, stream: StreamId) {
        let simulated = &mut self.simulated[stream.index()];
        if simulated.dialled.is_some() {
            return;
        }
        let mut rate = (simulated.path)(self.now, simulated.connection).unwrap_or(0);
        if self.slow_start {
            let trips = self.now.saturating_sub(simulated.opened).as_micros() / self.rtt.as_micros();
            let window = 14_600_u128 << trips.min(30);
            rate = rate.min(u64::try_from(window * 1_000_000 / self.rtt.as_micros()).unwrap());
        }
        simulated.credit += u128::from(rate) * STEP.as_micros();
        loop {
            let simulated = &mut self.simulated[stream.index()];
            let due = u64::try_from(simulated.credit / 1_000_000).unwrap();
            let Some((run, left, from)) =
                simulated.responses.front_mut().filter(|(.., from)| *from <= self.now)
            else {
                // An idle path saves nothing up.
                simulated.credit %= 1_000_000;
                return;
            };
            let (n, run, _) = (due.min(*left), *run, from);
            if n == 0 {
                return;
            }
            *left -= n;
            let is_complete = *left == 0;
            simulated.credit -= u128::from(n) * 1_000_000;
            self.delivered[stream.index()] += n;
            self.scheduler.received(stream, n, self.now);
            if is_complete {
                self.simulated[stream.index()].responses.pop_front();
                // Its digests follow the run.
                for block in self.manifest.blocks_of(run) {
                    self.finish(stream, block);
                }
                self.request(stream);
            }
        }
    }

    fn finish(&mut self, stream: StreamId, block: BlockId) {
        if !self.scheduler.is_wanted(block) {
            self.wasted += self.manifest.range(block).len();
            self.scheduler.skipped(stream, block, self.now);
        } else if (self.corrupts)(stream, block) {
            let corrupt = self.scheduler.corrupt(stream, block, self.now);
            assert_eq!(corrupt, Corrupt::Again);
        } else {
            let verified = self.scheduler.verified(stream, block, self.now);
            assert!(matches!(verified, VerifiedCopy::First { .. }), "{verified:?}");
            self.simulated[stream.index()].backoff.progressed();
            self.retries.progressed();
        }
    }
}
