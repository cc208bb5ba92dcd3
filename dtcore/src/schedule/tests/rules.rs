//! Single rules, each in the shortest story that needs it.

use std::time::Duration;

use crate::manifest::{BlockId, BlockRun, BlockSet, BlockSize, Manifest, StreamCount, StreamId};
use crate::schedule::tests::simulation::ms;
use crate::schedule::{Corrupt, Fault, NextRun, Policy, Scheduler, Verified};

pub(super) const LEN: u64 = 16 << 10;
pub(super) const RTT: Duration = ms(10);

/// A transfer of blocks of 16 KiB, and the streams that are open.
pub(super) fn transfer<const N: usize>(n_blocks: u64, policy: Policy) -> (Scheduler, [StreamId; N]) {
    let manifest = Manifest::new(n_blocks * LEN, BlockSize::new(LEN).unwrap()).unwrap();
    let streams = StreamCount::new(u64::try_from(N).unwrap()).unwrap();
    let mut scheduler =
        Scheduler::new(manifest, BlockSet::new(&manifest), vec![], streams, policy, Duration::ZERO);
    let ids: Vec<_> = streams.ids().collect();
    for id in &ids {
        scheduler.opened(*id, RTT, ms(0));
    }
    (scheduler, ids.try_into().unwrap())
}

fn single(block: BlockId) -> NextRun {
    NextRun::Request(BlockRun { first: block, count: 1 })
}

/// The only block of the next run.
#[track_caller]
pub(super) fn request(scheduler: &mut Scheduler, stream: StreamId, now: Duration) -> BlockId {
    match scheduler.next_run(stream, now) {
        NextRun::Request(BlockRun { first, count: 1 }) => first,
        next @ (NextRun::Request(_) | NextRun::Full | NextRun::Idle | NextRun::Complete) => {
            panic!("{next:?}")
        }
    }
}

pub(super) fn request_all(scheduler: &mut Scheduler, stream: StreamId, now: Duration) -> Vec<BlockId> {
    let mut blocks = Vec::new();
    while let NextRun::Request(run) = scheduler.next_run(stream, now) {
        blocks.extend(scheduler.table.manifest().blocks_of(run));
    }
    blocks
}

/// The block comes within 10 ms.
pub(super) fn bring(scheduler: &mut Scheduler, stream: StreamId, block: BlockId, now: Duration) -> Verified {
    for millis in 1..=10 {
        scheduler.received(stream, LEN / 10, now + ms(millis));
    }
    scheduler.verified(stream, block, now + ms(10))
}

#[test]
fn a_block_that_its_second_holder_loses_can_be_asked_for_twice_again() {
    let (mut scheduler, [slow, one, two]) = transfer(3, Policy::default());
    let last = request(&mut scheduler, slow, ms(0));
    for stream in [one, two] {
        let block = request(&mut scheduler, stream, ms(0));
        assert_eq!(bring(&mut scheduler, stream, block, ms(10)), Verified::First { also_assigned_to: None });
    }
    // It is late by now.
    assert_eq!(scheduler.next_run(one, ms(20)), NextRun::Idle);
    assert_eq!(scheduler.next_run(one, ms(400)), single(last));
    assert_eq!(scheduler.next_run(two, ms(400)), NextRun::Idle);
    scheduler.lost(one, ms(410));
    assert_eq!(scheduler.next_run(two, ms(410)), single(last));
    assert_eq!(bring(&mut scheduler, two, last, ms(420)), Verified::First { also_assigned_to: Some(slow) });
    assert!(!scheduler.is_wanted(last));
    // What comes now is not needed, right or wrong.
    assert_eq!(scheduler.corrupt(slow, last, ms(450)), Corrupt::Again);
    assert_eq!(scheduler.duplicated(), 2 * LEN);
}

#[test]
fn a_corrupt_copy_of_what_is_there_is_no_reason_to_give_up() {
    let (mut scheduler, [slow, one]) = transfer(2, Policy { max_corrupt: 1, ..Policy::default() });
    let late = request(&mut scheduler, slow, ms(0));
    let early = request(&mut scheduler, one, ms(0));
    bring(&mut scheduler, one, early, ms(10));
    assert_eq!(scheduler.next_run(one, ms(400)), single(late));
    bring(&mut scheduler, one, late, ms(410));
    assert_eq!(scheduler.corrupt(slow, late, ms(450)), Corrupt::Again);
    assert_eq!(scheduler.next_run(slow, ms(450)), NextRun::Complete);
}

#[test]
fn what_may_be_asked_for_twice_is_bounded() {
    let (mut scheduler, [slow, steady, flapping]) = transfer(60, Policy::default());
    let block = request(&mut scheduler, steady, ms(0));
    let held = request_all(&mut scheduler, slow, ms(0));
    bring(&mut scheduler, steady, block, ms(10));
    loop {
        let blocks = request_all(&mut scheduler, steady, ms(20));
        if blocks.is_empty() {
            break;
        }
        for block in blocks {
            bring(&mut scheduler, steady, block, ms(20));
        }
    }
    assert!(held.len() > 10);
    for round in 0..1_000 {
        let now = ms(900 + round);
        scheduler.lost(flapping, now);
        scheduler.opened(flapping, RTT, now);
        request_all(&mut scheduler, flapping, now);
    }
    assert_eq!(scheduler.duplicated(), 1 << 20);
}

#[test]
fn at_most_512_blocks_are_in_flight_on_a_stream() {
    let (mut scheduler, [stream]) = transfer(1 << 14, Policy::default());
    let (mut most, mut held) = (0, Vec::new());
    for trip in 1..40 {
        held.extend(request_all(&mut scheduler, stream, RTT * trip));
        most = most.max(held.len());
        let later = held.split_off(held.len() * 3 / 4);
        for block in std::mem::replace(&mut held, later) {
            scheduler.received(stream, LEN, RTT * (trip + 1));
            scheduler.verified(stream, block, RTT * (trip + 1));
        }
    }
    assert_eq!(most, 512);
}

#[test]
fn a_stream_does_not_get_what_it_spoiled_while_another_one_tries() {
    let (mut scheduler, [mute, one]) = transfer(2, Policy::default());
    let corrupted = request(&mut scheduler, one, ms(0));
    assert_eq!(scheduler.corrupt(one, corrupted, ms(20)), Corrupt::Again);
    let good = request(&mut scheduler, one, ms(20));
    bring(&mut scheduler, one, good, ms(20));
    assert_eq!(scheduler.next_run(one, ms(30)), NextRun::Idle);
    assert_eq!(scheduler.next_run(mute, ms(30)), single(corrupted));
    for tenth in 1..20 {
        assert_eq!(scheduler.next_run(one, ms(100 * tenth)), NextRun::Idle);
        assert_eq!(scheduler.tick(ms(100 * tenth)), []);
    }
    // Nothing flows, but there is one that could bring it: this is no reason to wait as long as in an outage.
    assert_eq!(scheduler.tick(ms(2_100)), [(mute, Fault::Stalled)]);
    scheduler.lost(mute, ms(2_100));
    assert_eq!(scheduler.next_run(one, ms(2_100)), single(corrupted));
}

#[test]
fn a_stream_has_its_time_again_when_the_program_was_stopped() {
    let (mut scheduler, [mute, free]) = transfer(2, Policy::default());
    request(&mut scheduler, mute, ms(0));
    let block = request(&mut scheduler, free, ms(0));
    bring(&mut scheduler, free, block, ms(10));
    let later = ms(600_000);
    scheduler.reset_timers(later);
    assert_eq!(scheduler.silent_for(later), Duration::ZERO);
    assert_eq!(scheduler.tick(later + ms(1_900)), []);
    assert_eq!(scheduler.tick(later + ms(2_100)), [(mute, Fault::Stalled)]);
}

#[test]
fn a_slow_handshake_does_not_make_a_stall_long() {
    let (mut scheduler, [late, one]) = transfer(1 << 12, Policy::default());
    scheduler.lost(late, ms(0));
    scheduler.opened(late, ms(3_000), ms(3_000));
    request_all(&mut scheduler, late, ms(3_000));
    scheduler.received(late, 1_000, ms(3_020));
    let mut found = None;
    for tenth in 30..60 {
        for block in request_all(&mut scheduler, one, ms(tenth * 100)) {
            bring(&mut scheduler, one, block, ms(tenth * 100));
        }
        for fault in scheduler.tick(ms(tenth * 100 + 50)) {
            found.get_or_insert((tenth, fault));
        }
    }
    assert_eq!(found, Some((40, (late, Fault::Stalled))));
}
