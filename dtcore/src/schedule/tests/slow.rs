//! What becomes of streams that are slow: replaced, left alone, trusted again.

use std::time::Duration;

use crate::schedule::tests::simulation::{MB, Path, Simulation, ms, steady};
use crate::schedule::{Fault, Policy};

const RATE: u64 = 10 * MB;
const SLOW: u64 = RATE / 100;

/// A transfer of so many seconds over a stream with that path and another one.
fn beside(path: Path, rtt: Duration, seconds: u64) -> Simulation {
    Simulation::new(RATE * seconds, rtt, Policy::default(), vec![path, steady(RATE)])
}

#[test]
fn a_stream_that_is_left_alone_has_one_block_at_a_time_and_none_at_the_end() {
    let mut simulation = beside(steady(SLOW), ms(20), 10);
    for step in 260..=1_000 {
        simulation.run_until(ms(step * 10));
        assert!(simulation.n_in_flight(0) <= 1);
    }
    assert_eq!(simulation.n_in_flight(0), 0);
    simulation.run();
    assert_eq!((simulation.faults.len(), simulation.scheduler.duplicated()), (2, 0));
}

#[test]
fn a_stream_that_is_left_alone_late_keeps_its_rate_in_mind() {
    // It is replaced for the second time after 2.4 s; what it got then would come in 3.3 s.
    let paths = vec![steady(RATE / 500), steady(RATE)];
    let mut simulation = Simulation::new(RATE * 38 / 10, ms(20), Policy::default(), paths);
    simulation.run();
    assert_eq!((simulation.faults.len(), simulation.scheduler.duplicated()), (2, 0));
}

#[test]
fn a_stream_that_recovers_is_one_like_any_other_again() {
    let path: Path = Box::new(|_, connection| Some(if connection <= 2 { SLOW } else { RATE }));
    let mut simulation = beside(path, ms(20), 10);
    assert!(simulation.run() <= ms(6_500), "{:?}", simulation.now);
    assert!(simulation.brought[0] > 3 * RATE, "{:?}", simulation.brought);
}

#[test]
fn only_slowness_twice_in_a_row_counts() {
    let path: Path = Box::new(|now, connection| match connection {
        2 if now < ms(5_000) => Some(RATE),
        _ => Some(SLOW),
    });
    let mut simulation = beside(path, ms(20), 20);
    simulation.run();
    let faults: Vec<_> = simulation.faults.iter().map(|(.., fault)| *fault).collect();
    assert_eq!(faults, [Fault::Slow; 3]);
}

#[test]
fn a_stream_that_finds_its_rate_is_not_slow() {
    let path: Path = Box::new(|now, connection| (connection > 1 || now < ms(3_000)).then_some(RATE));
    let mut simulation = beside(path, ms(300), 20);
    simulation.slow_start = true;
    simulation.run();
    assert_eq!(simulation.faults, []);
}

#[test]
fn the_last_block_is_taken_away_from_a_stream_that_is_left_alone() {
    let path: Path = Box::new(|now, _| Some(if now < ms(5_000) { SLOW } else { 1_000 }));
    let mut simulation = beside(path, ms(20), 10);
    simulation.run_until(ms(3_000));
    assert_eq!(simulation.faults.len(), 2);
    simulation.scheduler.max_duplicated = 0;
    let took = simulation.run();
    assert!(took <= ms(12_000), "{took:?}");
}

#[test]
fn under_a_rate_limit_a_stream_may_be_silent_for_long() {
    let silent = |from| -> Path {
        Box::new(move |now, _| Some(if (from..ms(9_000)).contains(&now) { 0 } else { RATE }))
    };
    let limited = Policy { limited: true, ..Policy::default() };
    let mut simulation =
        Simulation::new(RATE * 10, ms(20), limited, vec![silent(ms(500)), silent(ms(3_000))]);
    simulation.run();
    assert_eq!(simulation.faults, []);
}
