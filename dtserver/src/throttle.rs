//! Throttles events that arrive in floods: the first of a kind is logged at once, more of it at most once a second.
//!
//! One address can be refused a thousand times a second, and a log of every refusal fills a disk within hours.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest interval between two lines about a kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was not logged yet, by its kind. The number of kinds must be bounded.
#[derive(Debug)]
pub(crate) struct LogThrottle<K, T>(Vec<Sum<K, T>>);

#[derive(Debug)]
struct Sum<K, T> {
    kind: K,
    logged: Option<Instant>,
    /// The last one, and how many there are with it.
    pending: Option<(T, u64)>,
}

impl<K, T> Sum<K, T> {
    /// When it may be logged, if something is pending.
    fn due(&self, now: Instant) -> Option<Instant> {
        self.pending.as_ref()?;
        Some(self.logged.map_or(now, |logged| logged + INTERVAL))
    }
}

impl<K: PartialEq, T> LogThrottle<K, T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Counts one.
    pub(crate) fn add(&mut self, kind: K, one: T) {
        match self.0.iter_mut().find(|sum| sum.kind == kind) {
            Some(sum) => {
                let n = sum.pending.as_ref().map_or(0, |(_, n)| *n);
                sum.pending = Some((one, n + 1));
            }
            None => self.0.push(Sum { kind, logged: None, pending: Some((one, 1)) }),
        }
    }

    /// How many kinds there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the next line is due, if something is pending.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.0.iter().filter_map(|sum| sum.due(now)).min()
    }

    /// What is due now: the last one of each kind, and how many there were of it.
    ///
    /// Kinds of which nothing has happened lately are forgotten.
    pub(crate) fn take(&mut self, now: Instant) -> impl Iterator<Item = (T, u64)> {
        self.0
            .retain(|sum| sum.pending.is_some() || sum.logged.is_some_and(|logged| now < logged + INTERVAL));
        let due = self.0.iter_mut().filter(move |sum| sum.due(now).is_some_and(|due| due <= now));
        due.filter_map(move |sum| {
            sum.logged = Some(now);
            sum.pending.take()
        })
    }

    /// What is pending at the end.
    pub(crate) fn rest(self) -> impl Iterator<Item = (T, u64)> {
        self.0.into_iter().filter_map(|sum| sum.pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_is_logged_at_once_and_more_are_summed_up() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut throttle = LogThrottle::new();
        let taken = |throttle: &mut LogThrottle<_, _>, millis| throttle.take(at(millis)).collect::<Vec<_>>();
        assert_eq!(throttle.due(begin), None);
        throttle.add('a', 1);
        assert_eq!(throttle.due(begin), Some(begin));
        assert_eq!(taken(&mut throttle, 0), [(1, 1)]);
        assert_eq!(throttle.due(at(1)), None);
        for n in 2..=1000 {
            throttle.add('a', n);
            assert_eq!(taken(&mut throttle, n % 1000), []);
        }
        assert_eq!(throttle.due(at(999)), Some(at(1000)));
        throttle.add('b', 7);
        assert_eq!(taken(&mut throttle, 999), [(7, 1)]);
        assert_eq!(taken(&mut throttle, 1000), [(1000, 999)]);
        assert_eq!(taken(&mut throttle, 5000), []);
        // After a pause, one is logged at once again.
        throttle.add('a', 2);
        assert_eq!(taken(&mut throttle, 5000), [(2, 1)]);
        throttle.add('a', 3);
        throttle.add('a', 4);
        assert_eq!(throttle.rest().collect::<Vec<_>>(), [(4, 2)]);
    }
}
