//! Streams that break, fall silent or deliver corrupt data.

use std::time::Duration;

use crate::schedule::tests::simulation::{MB, Path, Simulation, ms, steady};
use crate::schedule::{Fault, Policy};

const RTT: Duration = ms(20);
const RATE: u64 = 10 * MB;

fn simulation(size: u64, paths: Vec<Path>) -> Simulation {
    Simulation::new(size, RTT, Policy::default(), paths)
}

/// A path on which no connection survives a time.
fn dying(at: Duration) -> Path {
    Box::new(move |now, _| (now < at).then_some(RATE))
}

#[test]
fn transfer_completes_over_the_last_open_stream() {
    for n in [2, 8] {
        let mut paths: Vec<Path> = (1..n).map(|at| dying(ms(100 * at))).collect();
        paths.push(steady(RATE));
        let took = simulation(3 * RATE, paths).run();
        assert!(took <= ms(3_100), "{took:?}");
    }
}

#[test]
fn transfer_completes_over_a_stream_that_keeps_breaking() {
    // It is open for 200 ms of every second, which is enough for a few blocks.
    let flapping: Path = Box::new(|now, _| (now.as_millis() % 1_000 < 200).then_some(RATE));
    let took = simulation(RATE, vec![flapping, dying(ms(300)), dying(Duration::ZERO)]).run();
    assert!(took <= Duration::from_secs(20), "{took:?}");
}

#[test]
fn silent_stream_is_replaced_after_one_second_and_all_after_five() {
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
fn pauses_between_replacements_double_in_a_long_outage() {
    let path: Path = Box::new(|now, _| Some(if now < ms(500) { RATE } else { 0 }));
    let mut simulation = simulation(6 * RATE, vec![path]);
    assert!(!simulation.run_until(Duration::from_secs(40)));
    let times: Vec<_> = simulation.faults.iter().map(|(at, ..)| at.as_secs()).collect();
    assert_eq!(times, [5, 15, 35]);
    assert!(simulation.scheduler.silent_for(simulation.now) > Duration::from_secs(39));
}

#[test]
fn streams_that_resume_one_after_the_other_after_an_outage_are_not_stalled() {
    let path = |resumed: u64| -> Path {
        Box::new(move |now, _| Some(if (ms(500)..ms(resumed)).contains(&now) { 0 } else { RATE }))
    };
    let mut simulation = simulation(6 * RATE, vec![path(3_500), path(3_900), path(4_200)]);
    simulation.run();
    assert_eq!(simulation.faults, []);
}

#[test]
fn stall_timeout_bounds_every_wait() {
    let policy = Policy { stall_timeout: ms(400), ..Policy::default() };
    let silent: Path = Box::new(|_, connection| Some(if connection == 1 { 0 } else { RATE }));
    let mut simulation = Simulation::new(6 * RATE, RTT, policy, vec![silent, steady(RATE)]);
    simulation.run();
    assert!(simulation.faults[0].0 <= ms(500), "{:?}", simulation.faults);
}

#[test]
fn blocks_corrupted_by_one_stream_are_delivered_by_another() {
    for n in [2, 8] {
        let mut simulation = simulation(3 * RATE, (0..n).map(|_| steady(RATE)).collect());
        simulation.corrupts = Box::new(|stream, _| stream.byte() == 0);
        // The limit of five corrupt copies is never reached, as each block is corrupt at most once.
        simulation.run();
        assert!(simulation.delivered[0] > 0);
    }
}
