//! LogThrottle of what comes in floods: the first of a kind is told at once, what follows at most once a second.
//!
//! One address can be refused a thousand times a second, and a log that tells of each is a full disk within hours.

use std::time::Duration;

use tokio::time::Instant;

/// How often a kind is told of at most.
const EVERY: Duration = Duration::from_secs(1);

/// What has come and was not told yet, by its kind. There must be a bound to how many kinds there are.
#[derive(Debug)]
pub(crate) struct LogThrottle<K, T>(Vec<Sum<K, T>>);

#[derive(Debug)]
struct Sum<K, T> {
    kind: K,
    told: Option<Instant>,
    /// The last one, and how many there are with it.
    untold: Option<(T, u64)>,
}

impl<K, T> Sum<K, T> {
    /// When it may be told, if there is something to tell.
    fn due(&self, now: Instant) -> Option<Instant> {
        self.untold.as_ref()?;
        Some(self.told.map_or(now, |told| told + EVERY))
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
                let n = sum.untold.as_ref().map_or(0, |(_, n)| *n);
                sum.untold = Some((one, n + 1));
            }
            None => self.0.push(Sum { kind, told: None, untold: Some((one, 1)) }),
        }
    }

    /// When there will be something to tell, unless more comes.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.0.iter().filter_map(|sum| sum.due(now)).min()
    }

    /// What is to be told now: the last one of each kind that is due, and how many there were of it.
    pub(crate) fn take(&mut self, now: Instant) -> impl Iterator<Item = (T, u64)> {
        let due = self.0.iter_mut().filter(move |sum| sum.due(now).is_some_and(|due| due <= now));
        due.filter_map(move |sum| {
            sum.told = Some(now);
            sum.untold.take()
        })
    }

    /// What is left to be told in the end.
    pub(crate) fn rest(self) -> impl Iterator<Item = (T, u64)> {
        self.0.into_iter().filter_map(|sum| sum.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut sums = LogThrottle::new();
        let told = |sums: &mut LogThrottle<_, _>, millis| sums.take(at(millis)).collect::<Vec<_>>();
        assert_eq!(sums.due(begin), None);
        sums.add('a', 1);
        assert_eq!(sums.due(begin), Some(begin));
        assert_eq!(told(&mut sums, 0), [(1, 1)]);
        assert_eq!(sums.due(at(1)), None);
        for n in 2..=1000 {
            sums.add('a', n);
            assert_eq!(told(&mut sums, n % 1000), []);
        }
        assert_eq!(sums.due(at(999)), Some(at(1000)));
        sums.add('b', 7);
        assert_eq!(told(&mut sums, 999), [(7, 1)]);
        assert_eq!(told(&mut sums, 1000), [(1000, 999)]);
        assert_eq!(told(&mut sums, 5000), []);
        // After a pause, one is told at once again.
        sums.add('a', 2);
        assert_eq!(told(&mut sums, 5000), [(2, 1)]);
        sums.add('a', 3);
        sums.add('a', 4);
        assert_eq!(sums.rest().collect::<Vec<_>>(), [(4, 2)]);
    }
}
