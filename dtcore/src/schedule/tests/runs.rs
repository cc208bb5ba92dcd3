//! Runs: how many consecutive blocks a stream requests at a time, and those that the sender pushes.

use crate::manifest::{BlockRun, StreamId};
use crate::schedule::tests::rules::{LEN, RTT, deliver, request, request_all, transfer};
use crate::schedule::tests::simulation::ms;
use crate::schedule::{NextRun, Policy, Scheduler, VerifiedCopy};

fn run(scheduler: &Scheduler, first: u64, count: u32) -> BlockRun {
    scheduler.table.manifest().run(first, count).unwrap()
}

/// Delivers a run at 10 MB/s from `start` on.
fn deliver_run(scheduler: &mut Scheduler, stream: StreamId, run: BlockRun, start: u64) -> u64 {
    let len = scheduler.table.manifest().run_len(run).unwrap();
    let end = start + len.div_ceil(10_000);
    for millis in start..end {
        scheduler.received(stream, 10_000.min(len - (millis - start) * 10_000), ms(millis + 1));
    }
    for block in scheduler.table.manifest().blocks_of(run) {
        scheduler.verified(stream, block, ms(end));
    }
    end
}

/// A transfer whose stream was measured at 10 MB/s, and the time.
fn measured(n_blocks: u64) -> (Scheduler, StreamId, u64) {
    let (mut scheduler, [stream]) = transfer(n_blocks, Policy::default());
    let mut now = 0;
    while now < 200 {
        let NextRun::Request(run) = scheduler.next_run(stream, ms(now)) else {
            panic!("nothing is in flight")
        };
        now = deliver_run(&mut scheduler, stream, run, now);
    }
    (scheduler, stream, now)
}

#[test]
fn run_has_what_arrives_in_20_ms() {
    let (mut scheduler, stream, now) = measured(1_000);
    let mut lens = Vec::new();
    while let NextRun::Request(run) = scheduler.next_run(stream, ms(now)) {
        lens.push(run.count);
    }
    // 200 kB are 12.2 blocks, and the estimate is some percent too high; the window has 64 blocks.
    assert_eq!(lens, [13; 4]);
}

#[test]
fn next_run_is_requested_when_all_of_it_fits() {
    let (mut scheduler, stream, now) = measured(1_000);
    let requested = request_all(&mut scheduler, stream, ms(now));
    assert_eq!(requested.len(), 4 * 13, "12 of 64 blocks are free");
    let mut received = 0;
    let next = loop {
        match scheduler.next_run(stream, ms(now + received / 10_000)) {
            NextRun::Full => {}
            NextRun::Request(run) => break run,
            next @ (NextRun::Idle | NextRun::Complete) => panic!("{next:?}"),
        }
        received += 1_000;
        scheduler.received(stream, 1_000, ms(now + received / 10_000));
    };
    assert_eq!(next.count, 13);
    assert!((LEN..=LEN + 1_000).contains(&received), "{received}");
}

#[test]
fn pushed_run_is_in_flight_like_a_requested_one() {
    let (mut scheduler, [one, two]) = transfer(100, Policy::default());
    let pushed = run(&scheduler, 0, 32);
    scheduler.assign_pushed(one, pushed, ms(10));
    assert_eq!(request(&mut scheduler, two, ms(10)), scheduler.table.manifest().block(32).unwrap());
    assert_eq!(scheduler.pool.get(one).unwrap().outstanding(), 32 * LEN);
    let requested = request_all(&mut scheduler, one, ms(10));
    // Half of 1.6 MB would be more than the window.
    assert!((1..=32).contains(&requested.len()), "{}", requested.len());
    scheduler.lost(one, ms(20));
    assert_eq!(request(&mut scheduler, two, ms(20)), pushed.first);
}

#[test]
fn pushed_blocks_that_are_verified_or_assigned_count_as_in_flight_only() {
    let (mut scheduler, [one, two]) = transfer(4, Policy::default());
    let verified = request(&mut scheduler, two, ms(0));
    deliver(&mut scheduler, two, verified, ms(0));
    let assigned = request(&mut scheduler, two, ms(10));
    let missing = scheduler.missing();
    let pushed = run(&scheduler, 0, 3);
    scheduler.assign_pushed(one, pushed, ms(10));
    assert_eq!(scheduler.pool.get(one).unwrap().outstanding(), 3 * LEN);
    assert_eq!((scheduler.missing(), scheduler.hedging.duplicated()), (missing, 0));
    assert_eq!(scheduler.table.unassigned(), LEN);
    scheduler.skipped(one, verified, ms(20));
    assert_eq!(scheduler.pool.get(one).unwrap().outstanding(), 2 * LEN);
    // The copy that was not requested may still be the first.
    assert_eq!(
        scheduler.verified(one, assigned, ms(20)),
        VerifiedCopy::First { also_assigned_to: Some(two) }
    );
    scheduler.lost(one, ms(30));
    assert_eq!(scheduler.table.unassigned(), 2 * LEN);
}

#[test]
fn pushed_data_that_arrives_at_once_does_not_distort_rate_and_rtt() {
    let (mut scheduler, [stream]) = transfer(1_000, Policy::default());
    let pushed = run(&scheduler, 0, 32);
    scheduler.assign_pushed(stream, pushed, ms(10));
    scheduler.received(stream, 32 * LEN, ms(11));
    let state = scheduler.pool.get(stream).unwrap();
    assert_eq!(state.rtt(), RTT);
    // As if all of it had arrived since the last round trip.
    let rate = 32 * LEN * 1_000 / 11;
    let measured = state.throughput.rate(ms(11), 0);
    assert!((rate - 10..=rate + 10).contains(&measured), "{measured}");
}
