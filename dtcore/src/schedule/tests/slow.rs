//! Slow streams: they are replaced, then restricted as chronically slow, and healthy again when they recover.

use std::time::Duration;

use crate::schedule::tests::simulation::{MB, Path, Simulation, ms, steady};
use crate::schedule::{Fault, Policy};

const RATE: u64 = 10 * MB;
const SLOW: u64 = RATE / 100;

/// A transfer of so many seconds over a stream with that path and a steady one.
fn with_steady_stream(path: Path, rtt: Duration, seconds: u64) -> Simulation {
    Simulation::new(RATE * seconds, rtt, Policy::default(), vec![path, steady(RATE)])
}

#[test]
fn chronically_slow_stream_gets_single_blocks_and_none_at_the_end() {
    let mut simulation = with_steady_stream(steady(SLOW), ms(20), 10);
    for step in 260..=1_000 {
        simulation.run_until(ms(step * 10));
        assert!(simulation.n_in_flight(0) <= 1);
    }
    assert_eq!(simulation.n_in_flight(0), 0);
    simulation.run();
    assert_eq!((simulation.faults.len(), simulation.scheduler.hedging.duplicated()), (2, 0));
}

#[test]
fn rate_of_a_chronically_slow_stream_survives_its_replacement() {
    // It is replaced for the second time after 2.4 s; a block that it got then would arrive after 3.3 s.
    let paths = vec![steady(RATE / 500), steady(RATE)];
    let mut simulation = Simulation::new(RATE * 38 / 10, ms(20), Policy::default(), paths);
    simulation.run();
    assert_eq!((simulation.faults.len(), simulation.scheduler.hedging.duplicated()), (2, 0));
}

#[test]
fn chronically_slow_stream_that_recovers_is_healthy_again() {
    let path: Path = Box::new(|_, connection| Some(if connection <= 2 { SLOW } else { RATE }));
    let mut simulation = with_steady_stream(path, ms(20), 10);
    assert!(simulation.run() <= ms(6_500), "{:?}", simulation.now);
    assert!(simulation.delivered[0] > 3 * RATE, "{:?}", simulation.delivered);
}

#[test]
fn only_slowness_twice_in_a_row_counts() {
    let path: Path = Box::new(|now, connection| match connection {
        2 if now < ms(5_000) => Some(RATE),
        _ => Some(SLOW),
    });
    let mut simulation = with_steady_stream(path, ms(20), 20);
    simulation.run();
    let faults: Vec<_> = simulation.faults.iter().map(|(.., fault)| *fault).collect();
    assert_eq!(faults, [Fault::Slow; 3]);
}

#[test]
fn stream_in_slow_start_is_not_slow() {
    let path: Path = Box::new(|now, connection| (connection > 1 || now < ms(3_000)).then_some(RATE));
    let mut simulation = with_steady_stream(path, ms(300), 20);
    simulation.slow_start = true;
    simulation.run();
    assert_eq!(simulation.faults, []);
}

#[test]
fn chronically_slow_stream_loses_the_last_block() {
    let path: Path = Box::new(|now, _| Some(if now < ms(5_000) { SLOW } else { 1_000 }));
    let mut simulation = with_steady_stream(path, ms(20), 10);
    simulation.run_until(ms(3_000));
    assert_eq!(simulation.faults.len(), 2);
    simulation.scheduler.hedging.max_duplicated = 0;
    let took = simulation.run();
    assert!(took <= ms(12_000), "{took:?}");
}

#[test]
fn stream_may_be_silent_longer_under_a_rate_limit() {
    let silent = |from| -> Path {
        Box::new(move |now, _| Some(if (from..ms(9_000)).contains(&now) { 0 } else { RATE }))
    };
    let limited = Policy { limited: true, ..Policy::default() };
    let mut simulation =
        Simulation::new(RATE * 10, ms(20), limited, vec![silent(ms(500)), silent(ms(3_000))]);
    simulation.run();
    assert_eq!(simulation.faults, []);
}
