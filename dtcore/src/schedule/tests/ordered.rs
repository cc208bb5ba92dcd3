//! In-order consumers: the blocks they wait for must not be in flight on a slow stream.

use std::time::Duration;

use crate::schedule::Policy;
use crate::schedule::tests::simulation::{MB, Simulation, ms, steady};

const RATE: u64 = 10 * MB;
const AHEAD: u64 = 8 << 20;

fn simulation(size: u64, slow: u64, consumer: u64) -> Simulation {
    let policy = Policy { ahead: Some(AHEAD), ..Policy::default() };
    let paths = vec![steady(slow), steady(RATE), steady(RATE), steady(RATE)];
    let mut simulation = Simulation::new(size, ms(20), policy, paths);
    simulation.consumer = Some(consumer);
    simulation
}

#[test]
fn slow_stream_does_not_delay_the_frontier() {
    for (slow, late) in [(RATE / 100, 300), (RATE / 9, 300), (RATE / 5, 300), (RATE / 3, 300), (0, 300)] {
        let mut simulation = simulation(30 * RATE, slow, 1_000 * MB);
        let took = simulation.run();
        println!(
            "{took:?}, {} bytes requested twice, {:?}",
            simulation.scheduler.hedging.duplicated(),
            simulation.faults
        );
        assert!(took <= ms(10_000 + late), "took {took:?}, the three others alone need 10 s");
        assert!(simulation.faults.len() <= 2, "{:?}", simulation.faults);
    }
}

#[test]
fn slow_consumer_bounds_what_is_requested_and_causes_no_fault() {
    let mut simulation = simulation(2 * RATE, RATE, RATE / 4);
    for second in 1..8 {
        simulation.run_until(Duration::from_secs(second));
        let consumed = RATE / 4 * second;
        let delivered: u64 = simulation.delivered.iter().sum();
        assert!(delivered <= consumed + AHEAD + (1 << 20), "{delivered} of {consumed}");
    }
    simulation.run();
    assert_eq!((simulation.faults, simulation.scheduler.hedging.duplicated()), (vec![], 0));
}

#[test]
fn blocked_consumer_is_not_silence() {
    let mut simulation = simulation(2 * RATE, RATE, 0);
    assert!(!simulation.run_until(Duration::from_secs(30)));
    assert!(simulation.scheduler.silent_for(simulation.now) <= ms(100));
    simulation.consumer = Some(RATE);
    simulation.run();
    assert_eq!(simulation.faults, []);
}
