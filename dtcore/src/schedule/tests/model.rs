//! Random sequences of events, checked against a model that knows only which blocks are in flight on which streams.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use crate::manifest::{BlockId, BlockRun, BlockSet, BlockSize, Manifest, StreamCount, StreamId};
use crate::schedule::tests::simulation::ms;
use crate::schedule::{Corrupt, NextRun, Policy, Scheduler, VerifiedCopy};

const LEN: u64 = 1 << 20;
const RTT: Duration = ms(10);

#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Close,
    Request { times: u8 },
    Push { from: u64, len: u64 },
    Receive { part: u64 },
    Finish { at: usize },
    Corrupt,
    Tick { is_obeyed: bool },
    Wait { millis: u64 },
    Consume,
}

fn steps() -> impl Strategy<Value = Vec<(u8, Step)>> {
    let step = prop_oneof![
        2 => Just(Step::Open),
        1 => Just(Step::Close),
        6 => (1..20_u8).prop_map(|times| Step::Request { times }),
        1 => (0..60 * LEN, 0..9 * LEN).prop_map(|(from, len)| Step::Push { from, len }),
        4 => (1..LEN).prop_map(|part| Step::Receive { part }),
        8 => prop_oneof![4 => Just(0), 1 => 0..3_usize].prop_map(|at| Step::Finish { at }),
        1 => Just(Step::Corrupt),
        2 => any::<bool>().prop_map(|is_obeyed| Step::Tick { is_obeyed }),
        3 => prop_oneof![3 => 0..200_u64, 1 => 0..7_000_u64].prop_map(|millis| Step::Wait { millis }),
        2 => Just(Step::Consume),
    ];
    proptest::collection::vec((0..6_u8, step), 0..250)
}

/// A block in flight on a stream. A pushed block is not assigned if it is verified or assigned to another stream.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    block: BlockId,
    is_assigned: bool,
}

/// A driver that obeys the scheduler, and records what is in flight.
struct Model {
    scheduler: Scheduler,
    manifest: Manifest,
    streams: StreamCount,
    policy: Policy,
    now: Duration,
    open: Vec<bool>,
    faulty: Vec<bool>,
    queues: Vec<VecDeque<InFlight>>,
    verified: BTreeSet<BlockId>,
    duplicated: u64,
    consumed: u64,
}

impl Model {
    fn new(n_blocks: u64, done: &[u64], n_streams: u64, ahead: Option<u64>) -> Self {
        let manifest = Manifest::new(n_blocks * LEN - 7, BlockSize::new(LEN).unwrap()).unwrap();
        let streams = StreamCount::new(n_streams).unwrap();
        let policy = Policy { max_corrupt: u32::MAX, ahead, ..Policy::default() };
        let (mut set, mut verified) = (BlockSet::new(&manifest), BTreeSet::new());
        for block in done.iter().filter_map(|index| manifest.block(*index)) {
            set.insert(block);
            verified.insert(block);
        }
        let n = usize::from(streams.value());
        Self {
            scheduler: Scheduler::new(manifest, set, vec![], streams, policy, Duration::ZERO),
            manifest,
            streams,
            policy,
            now: Duration::ZERO,
            open: vec![false; n],
            faulty: vec![false; n],
            queues: vec![VecDeque::new(); n],
            verified,
            duplicated: 0,
            consumed: 0,
        }
    }

    fn step(&mut self, stream: StreamId, step: Step) {
        let id = stream.index();
        match step {
            Step::Open if !self.open[id] => {
                self.open[id] = true;
                self.scheduler.opened(stream, RTT, self.now);
            }
            Step::Close => self.lose(stream),
            Step::Request { times } => drop((0..times).take_while(|_| self.request(stream)).count()),
            Step::Push { from, len } => self.push(stream, from, len),
            Step::Receive { part } if !self.queues[id].is_empty() => {
                // Only a connection that was reported as stalled is open again.
                self.faulty[id] &= !self.scheduler.received(stream, part, self.now);
            }
            Step::Open | Step::Receive { .. } => {}
            Step::Finish { at } => self.finish(stream, at),
            Step::Corrupt => self.corrupt(stream),
            Step::Tick { is_obeyed } => self.tick(is_obeyed),
            Step::Wait { millis } => self.now += ms(millis),
            Step::Consume => {
                self.consumed = self.scheduler.frontier();
                self.scheduler.consumed(self.consumed);
            }
        }
        let missing: Vec<_> = self.manifest.blocks().filter(|block| !self.verified.contains(block)).collect();
        let sum: u64 = missing.iter().map(|block| self.manifest.range(*block).len()).sum();
        assert_eq!(self.scheduler.missing(), sum);
        let frontier =
            missing.first().map_or(self.manifest.size(), |block| self.manifest.range(*block).start());
        assert_eq!(self.scheduler.frontier(), frontier);
        let is_all_assigned = missing.iter().all(|block| self.assignees(*block).next().is_some());
        assert_eq!(self.scheduler.is_all_assigned(), is_all_assigned);
        assert_eq!(self.scheduler.hedging.duplicated(), self.duplicated);
        assert!(
            self.manifest.blocks().all(
                |block| self.scheduler.table.verified().contains(block) == self.verified.contains(&block)
            )
        );
    }

    fn assignees(&self, block: BlockId) -> impl Iterator<Item = StreamId> {
        let is_it = move |in_flight: &InFlight| in_flight.block == block && in_flight.is_assigned;
        self.streams.ids().filter(move |stream| self.queues[stream.index()].iter().any(is_it))
    }

    fn push(&mut self, stream: StreamId, from: u64, len: u64) {
        // A sender pushes with its offer only, before anything is requested on the connection.
        let is_fresh = self.open[stream.index()] && self.queues[stream.index()].is_empty();
        let Some(run) = self.manifest.pushed_run(from, len).filter(|_| is_fresh) else { return };
        self.scheduler.assign_pushed(stream, run, self.now);
        for block in self.manifest.blocks_of(run) {
            let is_assigned = !self.verified.contains(&block) && self.assignees(block).next().is_none();
            self.queues[stream.index()].push_back(InFlight { block, is_assigned });
        }
    }

    fn request(&mut self, stream: StreamId) -> bool {
        let id = stream.index();
        let run = match self.scheduler.next_run(stream, self.now) {
            NextRun::Request(run) => run,
            NextRun::Complete => {
                assert_eq!(self.verified.len(), usize::try_from(self.manifest.n_blocks()).unwrap());
                return false;
            }
            NextRun::Full | NextRun::Idle => return false,
        };
        assert!(self.open[id] && !self.faulty[id], "{stream} is not open");
        let len = self.manifest.run_len(run).unwrap();
        assert!(len <= (4 << 20) || run.count == 1, "{len} bytes in one run");
        for block in self.manifest.blocks_of(run) {
            self.assign(stream, block, run.count);
        }
        assert!(self.queues[id].len() <= 512 + 60, "with those that were pushed");
        true
    }

    fn assign(&mut self, stream: StreamId, block: BlockId, count: u32) {
        let assignees: Vec<_> = self.assignees(block).collect();
        assert!(!self.verified.contains(&block), "{block} is verified");
        assert!(!assignees.contains(&stream), "{stream} has {block} already");
        let reach = self.policy.ahead.map_or(u64::MAX, |ahead| self.consumed + ahead);
        assert!(self.manifest.range(block).start() < reach, "{block} is too far ahead");
        assert!(assignees.len() < 2, "{block} is on three streams");
        if assignees.len() == 1 {
            assert_eq!(count, 1, "second copies are single blocks");
            self.duplicated += self.manifest.range(block).len();
            let most =
                (self.manifest.size() / 50).max(2 * LEN * u64::from(self.streams.value())).max(2 << 20);
            assert!(self.duplicated <= most, "{} bytes were requested twice", self.duplicated);
        }
        self.queues[stream.index()].push_back(InFlight { block, is_assigned: true });
    }

    fn finish(&mut self, stream: StreamId, at: usize) {
        let Some(InFlight { block, .. }) = self.queues[stream.index()].remove(at) else { return };
        let is_wanted = self.verified.insert(block);
        assert_eq!(self.scheduler.is_wanted(block), is_wanted);
        if !is_wanted && at == 0 {
            return self.scheduler.skipped(stream, block, self.now);
        }
        let verified = self.scheduler.verified(stream, block, self.now);
        let others: Vec<_> = self.assignees(block).filter(|other| *other != stream).collect();
        match verified {
            // A pushed copy may arrive first while two other streams are to deliver the block.
            VerifiedCopy::First { also_assigned_to: Some(other) } => {
                assert!(is_wanted && others.contains(&other), "{other} is not among {others:?}");
            }
            VerifiedCopy::First { also_assigned_to: None } => assert!(is_wanted && others.is_empty()),
            VerifiedCopy::Duplicate => assert!(!is_wanted),
        }
    }

    fn corrupt(&mut self, stream: StreamId) {
        let Some(InFlight { block, .. }) = self.queues[stream.index()].pop_front() else { return };
        assert_eq!(self.scheduler.corrupt(stream, block, self.now), Corrupt::Again);
        // The block may be in flight on the stream twice, once pushed.
        for other in self.queues[stream.index()].iter_mut().filter(|other| other.block == block) {
            other.is_assigned = false;
        }
    }

    fn lose(&mut self, stream: StreamId) {
        let id = stream.index();
        self.queues[id].clear();
        (self.open[id], self.faulty[id]) = (false, false);
        self.scheduler.lost(stream, self.now);
    }

    fn tick(&mut self, is_obeyed: bool) {
        for (stream, _) in self.scheduler.tick(self.now) {
            let id = stream.index();
            assert!(self.open[id] && !self.faulty[id] && !self.queues[id].is_empty());
            self.faulty[id] = true;
            if is_obeyed {
                self.lose(stream);
            }
        }
    }

    /// Completes the transfer over one stream; the others deliver nothing and do not reconnect.
    fn complete_over(&mut self, survivor: StreamId) {
        if self.faulty[survivor.index()] {
            self.lose(survivor);
        }
        self.step(survivor, Step::Open);
        for _ in 0..1_000 {
            self.now += ms(100);
            self.step(survivor, Step::Consume);
            for stream in self.streams.ids() {
                self.step(stream, Step::Request { times: 100 });
            }
            if !self.queues[survivor.index()].is_empty() {
                self.step(survivor, Step::Receive { part: LEN });
                self.step(survivor, Step::Finish { at: 0 });
            }
            self.tick(true);
            self.step(survivor, Step::Open);
            for stream in self.streams.ids().filter(|stream| *stream != survivor) {
                if self.faulty[stream.index()] {
                    self.lose(stream);
                }
            }
            if self.scheduler.is_complete() {
                return;
            }
        }
        panic!("not complete: {} bytes are missing", self.scheduler.missing());
    }
}

proptest! {
    #[test]
    fn every_block_is_verified_once_after_any_sequence_of_events(
        (n_blocks, n_streams) in (1..60_u64, 1..6_u64),
        done in proptest::collection::vec(0..60_u64, 0..20),
        ahead in proptest::option::of(0..20 * LEN),
        steps in steps(),
        survivor in 0..6_u8,
    ) {
        let ahead = ahead.map(|ahead| ahead.max(1));
        let mut model = Model::new(n_blocks, &done, n_streams, ahead);
        for (id, step) in steps {
            if let Some(stream) = model.streams.stream(id) {
                model.step(stream, step);
            }
        }
        let survivor = model.streams.stream(survivor).unwrap_or(model.streams.ids().next().unwrap());
        model.complete_over(survivor);
        prop_assert_eq!(model.scheduler.next_run(survivor, model.now), NextRun::Complete);
    }
}

#[test]
fn transfer_is_given_up_after_five_corrupt_copies_of_one_block() {
    let mut model = Model::new(2, &[], 2, None);
    model.scheduler = {
        let policy = Policy { max_corrupt: 5, ..model.policy };
        Scheduler::new(
            model.manifest,
            BlockSet::new(&model.manifest),
            vec![],
            model.streams,
            policy,
            Duration::ZERO,
        )
    };
    let [one, two] = [0, 1].map(|id| model.streams.stream(id).unwrap());
    let scheduler = &mut model.scheduler;
    for stream in [one, two] {
        scheduler.opened(stream, RTT, ms(0));
    }
    let mut requested = Vec::new();
    let corrupts: Vec<_> = (0..5)
        .map(|_| {
            let (stream, block) = [one, two]
                .into_iter()
                .find_map(|stream| match scheduler.next_run(stream, ms(20)) {
                    NextRun::Request(run) => Some((stream, run.first)),
                    NextRun::Full | NextRun::Idle | NextRun::Complete => None,
                })
                .unwrap();
            if block.value() > 0 {
                scheduler.verified(stream, block, ms(20));
                return None;
            }
            requested.push(stream);
            Some(scheduler.corrupt(stream, block, ms(20)))
        })
        .collect();
    // While both streams are open they take turns.
    assert_eq!(corrupts[0], Some(Corrupt::Again));
    assert_eq!(requested, [one, two, one, two]);
    let block = model.manifest.block(0).unwrap();
    assert_eq!(scheduler.next_run(one, ms(20)), NextRun::Request(BlockRun { first: block, count: 1 }));
    assert_eq!(scheduler.corrupt(one, block, ms(20)), Corrupt::GiveUp { times: 5 });
}
