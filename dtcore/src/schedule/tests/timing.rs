//! How long transfers with slow streams take, compared with the time that the other streams would need alone.

use std::time::Duration;

use crate::schedule::tests::simulation::{MB, Path, Simulation, changing, ms, steady};
use crate::schedule::{Fault, Policy};

const RATE: u64 = 12_500_000;
const RTT: Duration = ms(20);

fn policy() -> Policy {
    Policy::default()
}

fn equal(n: usize, rate: u64) -> Vec<Path> {
    (0..n).map(|_| steady(rate)).collect()
}

/// `n` streams, of which the first has another path.
fn with_first(n: usize, path: Path) -> Vec<Path> {
    std::iter::once(path).chain(equal(n - 1, RATE)).collect()
}

/// Checks that the transfer ends at most `late` after `ideal`.
#[track_caller]
fn check(mut simulation: Simulation, ideal: Duration, late: Duration) -> Simulation {
    let took = simulation.run();
    let (twice, wasted) = (simulation.scheduler.hedging.duplicated(), simulation.wasted);
    println!(
        "{took:?}, ideal {ideal:?}, {twice} bytes requested twice, {wasted} wasted, {:?}",
        simulation.faults
    );
    assert!(took <= ideal + late, "took {took:?}, ideal is {ideal:?}");
    simulation
}

#[test]
fn equal_streams_fill_their_paths_and_request_nothing_twice() {
    for (rtt, n) in [(ms(1), 8), (ms(20), 8), (ms(100), 8), (ms(200), 1), (ms(200), 8), (ms(50), 255)] {
        let size = u64::try_from(n).unwrap() * RATE * 2;
        let simulation = check(
            Simulation::new(size, rtt, policy(), equal(n, RATE)),
            ms(2_000) + rtt * 2,
            ms(20) + rtt * 3 / 2,
        );
        assert_eq!((simulation.scheduler.hedging.duplicated(), simulation.faults), (0, vec![]));
    }
}

#[test]
fn window_grows_as_fast_as_in_tcp_slow_start() {
    // 12.5 MB/s at 200 ms are reached after 8 round trips, which deliver little more than two would at the full rate.
    for n in [1, 8] {
        let mut simulation =
            Simulation::new(u64::try_from(n).unwrap() * RATE * 4, ms(200), policy(), equal(n, RATE));
        simulation.slow_start = true;
        let simulation = check(simulation, ms(4_000) + ms(200) * 9, ms(100));
        assert_eq!(simulation.faults, []);
    }
}

#[test]
fn window_is_small_on_a_short_path_and_bounded_on_a_long_one() {
    for (rtt, rate, least, most) in [(ms(1), RATE, 1 << 20, 5 << 18), (ms(250), 400 * MB, 12 << 20, 16 << 20)]
    {
        let mut simulation = Simulation::new(4 * rate, rtt, policy(), equal(2, rate));
        simulation.run();
        assert!((least..=most).contains(&simulation.most_in_flight), "{}", simulation.most_in_flight);
    }
}

#[test]
fn runs_are_long_on_fast_streams_and_short_on_slow_ones() {
    // Two seconds, so that the last runs, which get shorter and shorter, are few.
    for (rate, least, most) in
        [(600 * MB, 7 << 19, 4 << 20), (100 * MB, 11 << 17, 2 << 20), (5 * MB, 1 << 16, 1 << 17)]
    {
        let mut simulation = Simulation::new(16 * rate, ms(1), policy(), equal(8, rate));
        simulation.run();
        let mean = 16 * rate / simulation.n_runs;
        println!(
            "{mean} bytes a run, at most {}, {} in flight",
            simulation.longest_run, simulation.most_in_flight
        );
        assert!(mean >= least && simulation.longest_run <= most, "{mean} to {}", simulation.longest_run);
        assert!(simulation.most_in_flight <= (2 * most).max(1 << 20), "{}", simulation.most_in_flight);
        assert_eq!(simulation.scheduler.hedging.duplicated(), 0);
    }
}

#[test]
fn streams_of_different_rates_end_together() {
    for rtt in [ms(1), ms(50), ms(100)] {
        let paths = [20, 10, 5, 3, 2].map(|rate| steady(rate * MB)).into_iter().collect();
        let simulation = check(Simulation::new(120 * MB, rtt, policy(), paths), ms(3_000) + rtt * 2, ms(100));
        assert!(simulation.scheduler.hedging.duplicated() <= 120 * MB / 50);
    }
}

#[test]
fn small_file_is_shared_by_streams_that_open_one_after_the_other() {
    // Sixteen blocks for eight streams.
    let mut simulation = Simulation::new(1 << 20, ms(100), policy(), equal(8, MB));
    simulation.stagger(ms(5));
    let simulation = check(simulation, ms(200 + 131 + 35), ms(10));
    assert!(simulation.delivered.iter().all(|delivered| *delivered == 1 << 17), "{:?}", simulation.delivered);
}

#[test]
fn stream_that_is_slow_from_the_start_costs_less_than_a_second() {
    for (n, seconds) in [(8, 1), (8, 4), (2, 1), (2, 5)] {
        let size = u64::try_from(n - 1).unwrap() * RATE * seconds;
        let paths = with_first(n, steady(RATE / 100));
        let ideal = Duration::from_secs(seconds) + RTT * 2;
        check(Simulation::new(size, RTT, policy(), paths), ideal, ms(300));
    }
}

#[test]
fn stream_is_replaced_twice_for_being_slow() {
    for n in [2, 8] {
        let paths = with_first(n, steady(RATE / 100));
        let size = u64::try_from(n - 1).unwrap() * RATE * 10;
        let simulation = check(Simulation::new(size, RTT, policy(), paths), ms(10_000) + RTT * 2, ms(300));
        let faults: Vec<_> =
            simulation.faults.iter().map(|(_, stream, fault)| (stream.byte(), *fault)).collect();
        assert_eq!(faults, [(0, Fault::Slow); 2]);
    }
}

#[test]
fn replacement_of_a_slow_connection_has_the_full_rate() {
    for n in [2, 8] {
        let path: Path = Box::new(|_, connection| Some(if connection == 1 { RATE / 100 } else { RATE }));
        let size = u64::try_from(n).unwrap() * RATE * 8;
        // It is detected after a second and eight round trips.
        let lost = ms(1_300) / u32::try_from(n).unwrap();
        let simulation = check(
            Simulation::new(size, RTT, policy(), with_first(n, path)),
            ms(8_000) + RTT * 2 + lost,
            ms(100),
        );
        assert_eq!(simulation.faults.len(), 1);
    }
}

#[test]
fn stream_that_becomes_slow_late_costs_less_than_a_second() {
    for (n, seconds) in [(8, 2), (2, 2), (2, 8)] {
        let size = u64::try_from(n).unwrap() * RATE * seconds;
        let late = Duration::from_secs(seconds) * 95 / 100;
        let ideal = Duration::from_secs(seconds).saturating_sub(late) * u32::try_from(n).unwrap()
            / u32::try_from(n - 1).unwrap();
        let paths = with_first(n, changing(RATE, late, RATE / 100));
        let simulation = check(Simulation::new(size, RTT, policy(), paths), late + ideal + RTT * 2, ms(500));
        assert!(simulation.scheduler.hedging.duplicated() > 0);
    }
}

#[test]
fn stream_that_stops_just_before_the_end_costs_less_than_a_stall() {
    for n in [2, 8] {
        let size = u64::try_from(n).unwrap() * RATE * 2;
        let paths = with_first(n, changing(RATE, ms(1_950), 0));
        check(Simulation::new(size, RTT, policy(), paths), ms(2_000) + RTT * 2, ms(500));
    }
}

#[test]
fn rate_limit_keeps_the_window_small_and_slow_streams_open() {
    let limited = Policy { limited: true, ..policy() };
    let paths = with_first(4, steady(RATE / 20));
    let mut simulation = Simulation::new(RATE * 12, ms(100), limited, paths);
    simulation.run();
    assert_eq!(simulation.faults, []);
    assert!(simulation.most_in_flight <= 1 << 20, "{}", simulation.most_in_flight);
}
