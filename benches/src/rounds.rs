//! Candidates in turn, round after round, and what they took.

#![expect(clippy::print_stderr, reason = "whoever waits sees the rounds go by; the figures go to stdout")]

use std::time::Duration;

use crate::Failure;

/// After so many failures in a row a candidate is not tried again.
const PATIENCE: u32 = 2;

/// One thing to measure: its name, and what to do for one timed run.
pub type Candidate<'a> = (String, Box<dyn FnMut() -> Result<Duration, Failure> + 'a>);

/// The times of one candidate over all rounds.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// What was timed.
    pub name: String,
    times: Vec<Duration>,
    /// How many counted runs failed.
    pub n_failed: usize,
    failed_in_a_row: u32,
    /// What the last failure said.
    pub complaint: Option<String>,
}

impl Series {
    /// An empty series.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a time.
    pub fn add(&mut self, time: Duration) {
        self.times.push(time);
        self.failed_in_a_row = 0;
    }

    /// The shortest time in seconds, if a run succeeded.
    pub fn best(&self) -> Option<f64> {
        self.sorted().first().map(Duration::as_secs_f64)
    }

    /// The time in the middle, in seconds.
    pub fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).map(Duration::as_secs_f64)
    }

    /// The longest time in seconds.
    pub fn worst(&self) -> Option<f64> {
        self.sorted().last().map(Duration::as_secs_f64)
    }

    fn sorted(&self) -> Vec<Duration> {
        let mut times = self.times.clone();
        times.sort();
        times
    }
}

/// Runs the candidates in turn, `rounds` times after one round that is not counted, in another order each time: nobody
/// always runs behind the same one, whose leavings it might pay for.
///
/// A run that fails is counted as failed; a candidate that fails again and again is left alone.
pub fn alternate(rounds: usize, candidates: Vec<Candidate<'_>>) -> Vec<Series> {
    let mut candidates: Vec<_> = candidates.into_iter().map(|(name, run)| (Series::new(name), run)).collect();
    for round in 0..=rounds {
        for at in order(round, candidates.len()) {
            let Some((series, run)) = candidates.get_mut(at) else { continue };
            if series.failed_in_a_row >= PATIENCE {
                series.n_failed += 1;
                continue;
            }
            match run() {
                Ok(elapsed) if round > 0 => series.add(elapsed),
                Ok(_) => {}
                Err(failure) => {
                    series.n_failed += usize::from(round > 0);
                    series.failed_in_a_row += 1;
                    series.complaint = Some(failure.to_string());
                }
            }
        }
        eprint!("{}", if round == rounds { "\n" } else { "." });
    }
    candidates.into_iter().map(|(series, _)| series).collect()
}

/// The order of `n` candidates in a round: steps of a length that has no divisor in common with `n` reach each of them.
fn order(round: usize, n: usize) -> impl Iterator<Item = usize> {
    let steps: Vec<usize> = (1..=n).filter(|step| gcd(*step, n) == 1).collect();
    let step = steps.get(round % steps.len().max(1)).copied().unwrap_or(1);
    (0..n).map(move |turn| (round + turn * step) % n)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The series of that name, if it has a time.
pub fn named<'a>(series: &'a [Series], name: &str) -> Option<&'a Series> {
    series.iter().find(|one| one.name == name && one.best().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_is_not_counted() {
        let mut times = [9_u64, 3, 1, 2].into_iter();
        let run = Box::new(move || Ok(Duration::from_secs(times.next().unwrap())));
        let series = alternate(3, vec![("a".to_owned(), run)]);
        let times = (series[0].best(), series[0].median(), series[0].worst());
        assert_eq!(times, (Some(1.0), Some(2.0), Some(3.0)));
    }

    #[test]
    fn every_round_has_every_candidate_and_not_always_the_same_before_it() {
        for n in 1..20 {
            for round in 0..10 {
                let mut turns: Vec<usize> = order(round, n).collect();
                turns.sort_unstable();
                assert_eq!(turns, (0..n).collect::<Vec<_>>());
            }
        }
        let before = |round| {
            let turns: Vec<usize> = order(round, 11).collect();
            turns.windows(2).find(|pair| pair[1] == 3).map(|pair| pair[0])
        };
        let all: std::collections::BTreeSet<_> = (0..8).map(before).collect();
        assert!(all.len() > 5, "{all:?}");
    }

    #[test]
    fn a_candidate_that_fails_does_not_stop_the_others() {
        let mut tries = 0;
        let bad: Candidate<'_> = (
            "bad".to_owned(),
            Box::new(|| {
                tries += 1;
                Err("no".into())
            }),
        );
        let good: Candidate<'_> = ("good".to_owned(), Box::new(|| Ok(Duration::from_secs(1))));
        let series = alternate(5, vec![bad, good]);
        assert_eq!((series[0].best(), series[0].n_failed), (None, 5));
        assert_eq!(series[1].best(), Some(1.0));
        assert_eq!(tries, 2);
    }
}
