//! Candidates in turn, round after round, and what they took.

#![expect(clippy::print_stderr, reason = "progress of the rounds; the figures go to stdout")]

use std::time::Duration;

use crate::Failure;

/// After so many failures in a row a candidate is not tried again.
const PATIENCE: u32 = 2;

/// One timed run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// How long it took.
    pub elapsed: Duration,
    /// The processor time of the client, or of one process that is both sides.
    pub client: Option<Duration>,
    /// The processor time of the server in the meantime.
    pub server: Option<Duration>,
}

impl From<Duration> for Sample {
    fn from(elapsed: Duration) -> Self {
        Self { elapsed, client: None, server: None }
    }
}

/// One thing to measure: its name, and what to do for one timed run.
pub type Candidate<'a> = (String, Box<dyn FnMut() -> Result<Sample, Failure> + 'a>);

/// The runs of one candidate in all rounds.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// What was timed.
    pub name: String,
    samples: Vec<Sample>,
    /// How many counted runs failed.
    pub n_failed: usize,
    failed_in_a_row: u32,
    /// The message of the last failure.
    pub last_error: Option<String>,
}

impl Series {
    /// An empty series.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a run.
    pub fn add(&mut self, sample: impl Into<Sample>) {
        self.samples.push(sample.into());
        self.failed_in_a_row = 0;
    }

    /// The shortest time in seconds, if a run succeeded.
    pub fn best(&self) -> Option<f64> {
        self.seconds().first().copied()
    }

    /// The time in the middle, in seconds.
    pub fn median(&self) -> Option<f64> {
        median(&self.seconds())
    }

    /// The longest time in seconds.
    pub fn worst(&self) -> Option<f64> {
        self.seconds().last().copied()
    }

    /// All times in seconds, the shortest first.
    pub fn seconds(&self) -> Vec<f64> {
        sorted(self.samples.iter().map(|sample| sample.elapsed))
    }

    /// The processor time of the client in the middle, in seconds.
    pub fn client_cpu(&self) -> Option<f64> {
        median(&sorted(self.samples.iter().filter_map(|sample| sample.client)))
    }

    /// The processor time of the server in the middle, in seconds.
    pub fn server_cpu(&self) -> Option<f64> {
        median(&sorted(self.samples.iter().filter_map(|sample| sample.server)))
    }
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<f64> {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times.iter().map(Duration::as_secs_f64).collect()
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

/// Runs the candidates in turn, `rounds` times after one round that is not counted, in another order each time: none
/// always runs after the same one, for whose leftovers it might pay.
///
/// A run that fails is counted as failed; a candidate that fails repeatedly is not tried again.
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
                Ok(sample) if round > 0 => series.add(sample),
                Ok(_) => {}
                Err(failure) => {
                    series.n_failed += usize::from(round > 0);
                    series.failed_in_a_row += 1;
                    series.last_error = Some(failure.to_string());
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
    fn first_round_is_not_counted() {
        let mut times = [9_u64, 3, 1, 2].into_iter();
        let run: Candidate<'_> =
            ("a".to_owned(), Box::new(move || Ok(Duration::from_secs(times.next().unwrap()).into())));
        let series = alternate(3, vec![run]);
        let times = (series[0].best(), series[0].median(), series[0].worst());
        assert_eq!(times, (Some(1.0), Some(2.0), Some(3.0)));
    }

    #[test]
    fn rounds_have_every_candidate_in_varying_order() {
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
    fn processor_time_is_that_of_the_median_run() {
        let mut series = Series::new("a");
        for ms in [30, 10, 20] {
            let client = Some(Duration::from_millis(ms));
            series.add(Sample { client, ..Duration::from_secs(1).into() });
        }
        assert_eq!((series.client_cpu(), series.server_cpu()), (Some(0.02), None));
    }

    #[test]
    fn failing_candidate_does_not_stop_the_others() {
        let mut tries = 0;
        let bad: Candidate<'_> = (
            "bad".to_owned(),
            Box::new(|| {
                tries += 1;
                Err("no".into())
            }),
        );
        let good: Candidate<'_> = ("good".to_owned(), Box::new(|| Ok(Duration::from_secs(1).into())));
        let series = alternate(5, vec![bad, good]);
        assert_eq!((series[0].best(), series[0].n_failed), (None, 5));
        assert_eq!(series[1].best(), Some(1.0));
        assert_eq!(tries, 2);
    }
}
