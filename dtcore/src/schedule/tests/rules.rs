//! Single rules, each in the shortest scenario that needs it.

use std::time::Duration;

use crate::manifest::{BlockId, BlockRun, BlockSet, BlockSize, Manifest, StreamCount, StreamId};
use crate::schedule::tests::simulation::ms;
use crate::schedule::{Corrupt, Fault, NextRun, Policy, Scheduler, VerifiedCopy};

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

/// The block arrives within 10 ms.
pub(super) fn deliver(
    scheduler: &mut Scheduler,
    stream: StreamId,
    block: BlockId,
    now: Duration,
) -> VerifiedCopy {
    for millis in 1..=10 {
        scheduler.received(stream, LEN / 10, now + ms(millis));
    }
    scheduler.verified(stream, block, now + ms(10))
}

#[test]
fn block_whose_second_copy_is_lost_can_be_hedged_again() {
    let (mut scheduler, [slow, one, two]) = transfer(3, Policy::default());
    let last = request(&mut scheduler, slow, ms(0));
    for stream in [one, two] {
        let block = request(&mut scheduler, stream, ms(0));
        assert_eq!(
            deliver(&mut scheduler, stream, block, ms(10)),
            VerifiedCopy::First { also_assigned_to: None }
        );
    }
    // By 400 ms it is late.
    assert_eq!(scheduler.next_run(one, ms(20)), NextRun::Idle);
    assert_eq!(scheduler.next_run(one, ms(400)), single(last));
    assert_eq!(scheduler.next_run(two, ms(400)), NextRun::Idle);
    scheduler.lost(one, ms(410));
    assert_eq!(scheduler.next_run(two, ms(410)), single(last));
    assert_eq!(
        deliver(&mut scheduler, two, last, ms(420)),
        VerifiedCopy::First { also_assigned_to: Some(slow) }
    );
    assert!(!scheduler.is_wanted(last));
    // Another copy is not needed, corrupt or not.
    assert_eq!(scheduler.corrupt(slow, last, ms(450)), Corrupt::Again);
    assert_eq!(scheduler.hedging.duplicated(), 2 * LEN);
}

#[test]
fn corrupt_copy_of_a_verified_block_does_not_count() {
    let (mut scheduler, [slow, one]) = transfer(2, Policy { max_corrupt: 1, ..Policy::default() });
    let late = request(&mut scheduler, slow, ms(0));
    let early = request(&mut scheduler, one, ms(0));
    deliver(&mut scheduler, one, early, ms(10));
    assert_eq!(scheduler.next_run(one, ms(400)), single(late));
    deliver(&mut scheduler, one, late, ms(410));
    assert_eq!(scheduler.corrupt(slow, late, ms(450)), Corrupt::Again);
    assert_eq!(scheduler.next_run(slow, ms(450)), NextRun::Complete);
}

#[test]
fn duplicated_bytes_are_bounded() {
    let (mut scheduler, [slow, steady, flapping]) = transfer(60, Policy::default());
    let block = request(&mut scheduler, steady, ms(0));
    let blocks = request_all(&mut scheduler, slow, ms(0));
    deliver(&mut scheduler, steady, block, ms(10));
    loop {
        let blocks = request_all(&mut scheduler, steady, ms(20));
        if blocks.is_empty() {
            break;
        }
        for block in blocks {
            deliver(&mut scheduler, steady, block, ms(20));
        }
    }
    assert!(blocks.len() > 10);
    for round in 0..1_000 {
        let now = ms(900 + round);
        scheduler.lost(flapping, now);
        scheduler.opened(flapping, RTT, now);
        request_all(&mut scheduler, flapping, now);
    }
    assert_eq!(scheduler.hedging.duplicated(), 1 << 20);
}

#[test]
fn at_most_512_blocks_are_in_flight_on_a_stream() {
    let (mut scheduler, [stream]) = transfer(1 << 14, Policy::default());
    let (mut most, mut blocks) = (0, Vec::new());
    for trip in 1..40 {
        blocks.extend(request_all(&mut scheduler, stream, RTT * trip));
        most = most.max(blocks.len());
        let later = blocks.split_off(blocks.len() * 3 / 4);
        for block in std::mem::replace(&mut blocks, later) {
            scheduler.received(stream, LEN, RTT * (trip + 1));
            scheduler.verified(stream, block, RTT * (trip + 1));
        }
    }
    assert_eq!(most, 512);
}

#[test]
fn corrupted_block_is_requested_on_another_stream() {
    let (mut scheduler, [silent, one]) = transfer(2, Policy::default());
    let corrupted = request(&mut scheduler, one, ms(0));
    assert_eq!(scheduler.corrupt(one, corrupted, ms(20)), Corrupt::Again);
    let good = request(&mut scheduler, one, ms(20));
    deliver(&mut scheduler, one, good, ms(20));
    assert_eq!(scheduler.next_run(one, ms(30)), NextRun::Idle);
    assert_eq!(scheduler.next_run(silent, ms(30)), single(corrupted));
    for tenth in 1..20 {
        assert_eq!(scheduler.next_run(one, ms(100 * tenth)), NextRun::Idle);
        assert_eq!(scheduler.tick(ms(100 * tenth)), []);
    }
    // All are silent, but an idle stream could deliver the block: no need to wait as long as in an outage.
    assert_eq!(scheduler.tick(ms(2_100)), [(silent, Fault::Stalled)]);
    scheduler.lost(silent, ms(2_100));
    assert_eq!(scheduler.next_run(one, ms(2_100)), single(corrupted));
}

#[test]
fn stalled_stream_that_delivers_after_all_is_kept() {
    let (mut scheduler, [silent, idle]) = transfer(2, Policy::default());
    let late = request(&mut scheduler, silent, ms(0));
    let block = request(&mut scheduler, idle, ms(0));
    deliver(&mut scheduler, idle, block, ms(10));
    assert_eq!(scheduler.tick(ms(2_100)), [(silent, Fault::Stalled)]);
    assert!(scheduler.received(silent, 100, ms(2_200)), "its data had waited in the socket");
    assert!(!scheduler.received(silent, 100, ms(2_200)));
    deliver(&mut scheduler, silent, late, ms(2_300));
    assert_eq!(scheduler.next_run(silent, ms(2_300)), NextRun::Complete);
}

#[test]
fn stall_timers_restart_after_the_program_was_stopped() {
    let (mut scheduler, [silent, idle]) = transfer(2, Policy::default());
    request(&mut scheduler, silent, ms(0));
    let block = request(&mut scheduler, idle, ms(0));
    deliver(&mut scheduler, idle, block, ms(10));
    let later = ms(600_000);
    scheduler.reset_timers(later);
    assert_eq!(scheduler.silent_for(later), Duration::ZERO);
    assert_eq!(scheduler.tick(later + ms(1_900)), []);
    assert_eq!(scheduler.tick(later + ms(2_100)), [(silent, Fault::Stalled)]);
}

#[test]
fn slow_handshake_does_not_delay_stall_detection() {
    let (mut scheduler, [late, one]) = transfer(1 << 12, Policy::default());
    scheduler.lost(late, ms(0));
    scheduler.opened(late, ms(3_000), ms(3_000));
    request_all(&mut scheduler, late, ms(3_000));
    scheduler.received(late, 1_000, ms(3_020));
    let mut found = None;
    for tenth in 30..60 {
        for block in request_all(&mut scheduler, one, ms(tenth * 100)) {
            deliver(&mut scheduler, one, block, ms(tenth * 100));
        }
        for fault in scheduler.tick(ms(tenth * 100 + 50)) {
            found.get_or_insert((tenth, fault));
        }
    }
    assert_eq!(found, Some((40, (late, Fault::Stalled))));
}
