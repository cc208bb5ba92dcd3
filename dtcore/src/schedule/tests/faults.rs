//! Streams that die, fall silent or bring rubbish.

use std::time::Duration;

use crate::schedule::tests::simulation::{MB, Path, Simulation, ms, steady};
use crate::schedule::{Fault, Policy};

const RTT: Duration = ms(20);
const RATE: u64 = 10 * MB;

fn simulation(size: u64, paths: Vec<Path>) -> Simulation {
    Simulation::new(size, RTT, Policy::default(), paths)
}

/// A path that lives only until a time.
fn dying(at: Duration) -> Path {
    Box::new(move |now, _| (now < at).then_some(RATE))
}

#[test]
fn one_survivor_is_enough() {
    for n in [2, 8] {
        let mut paths: Vec<Path> = (1..n).map(|at| dying(ms(100 * at))).collect();
        paths.push(steady(RATE));
        let took = simulation(3 * RATE, paths).run();
        assert!(took <= ms(3_100), "{took:?}");
    }
}

#[test]
fn a_survivor_that_dies_all_the_time_is_enough() {
    // It lives for 200 ms of every second, and each time it brings at least what was begun in that time.
    let flapping: Path = Box::new(|now, _| (now.as_millis() % 1_000 < 200).then_some(RATE));
    let took = simulation(RATE, vec![flapping, dying(ms(300)), dying(Duration::ZERO)]).run();
    assert!(took <= Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_mute_stream_is_replaced_after_a_second_and_an_outage_after_five() {
    let until = |end: Duration| -> Path {
        Box::new(move |now, connection| Some(if connection == 1 && now >= end { 0 } else { RATE }))
    };
    let mut one = simulation(6 * RATE, vec![until(ms(500)), steady(RATE), steady(RATE)]);
    one.run();
    let [(at, stream, Fault::Stalled)] = one.faults[..] else { panic!("{:?}", one.faults) };
    assert!(stream.byte() == 0 && (ms(1_500)..=ms(1_600)).contains(&at), "{at:?}");

    let mut all = simulation(6 * RATE, (0..3).map(|_| until(ms(500))).collect());
    assert!(!all.run_until(ms(5_400)));
    assert_eq!(all.faults, []);
    assert!((ms(4_900)..=ms(4_910)).contains(&all.scheduler.silent_for(all.now)));
    all.run();
    let stalled: Vec<_> = all.faults.iter().map(|(_, stream, fault)| (stream.byte(), *fault)).collect();
    assert_eq!(stalled, [0, 1, 2].map(|id| (id, Fault::Stalled)));
    assert!(all.faults.iter().all(|(at, ..)| (ms(5_500)..=ms(5_600)).contains(at)));
}

#[test]
fn an_outage_that_goes_on_replaces_the_streams_later_and_later() {
    let path: Path = Box::new(|now, _| Some(if now < ms(500) { RATE } else { 0 }));
    let mut simulation = simulation(6 * RATE, vec![path]);
    assert!(!simulation.run_until(Duration::from_secs(40)));
    let times: Vec<_> = simulation.faults.iter().map(|(at, ..)| at.as_secs()).collect();
    assert_eq!(times, [5, 15, 35]);
    assert!(simulation.scheduler.silent_for(simulation.now) > Duration::from_secs(39));
}

#[test]
fn streams_that_come_back_a_moment_apart_after_an_outage_are_not_stalled() {
    let path = |returned: u64| -> Path {
        Box::new(move |now, _| Some(if (ms(500)..ms(returned)).contains(&now) { 0 } else { RATE }))
    };
    let mut simulation = simulation(6 * RATE, vec![path(3_500), path(3_900), path(4_200)]);
    simulation.run();
    assert_eq!(simulation.faults, []);
}

#[test]
fn the_users_stall_timeout_bounds_every_wait() {
    let policy = Policy { stall_timeout: ms(400), ..Policy::default() };
    let mute: Path = Box::new(|_, connection| Some(if connection == 1 { 0 } else { RATE }));
    let mut simulation = Simulation::new(6 * RATE, RTT, policy, vec![mute, steady(RATE)]);
    simulation.run();
    assert!(simulation.faults[0].0 <= ms(500), "{:?}", simulation.faults);
}

#[test]
fn what_one_stream_spoils_another_one_brings() {
    for n in [2, 8] {
        let mut simulation = simulation(3 * RATE, (0..n).map(|_| steady(RATE)).collect());
        simulation.corrupts = Box::new(|stream, _| stream.byte() == 0);
        // As each block comes once in vain at most, the policy's five times are never reached.
        simulation.run();
        assert!(simulation.brought[0] > 0);
    }
}
