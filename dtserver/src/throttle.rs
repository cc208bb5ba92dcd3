//! Throttles events that arrive in floods: the first of a kind is logged at once, more of it at most once a second.
//!
//! One address can be refused a thousand times a second, and a log of every refusal fills a disk within hours.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The shortest interval between two lines about a kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many kinds are distinguished at once. What would be one more is only counted.
const MAX_KINDS: usize = 1024;

/// What was not logged yet, by its kind.
#[derive(Debug)]
pub(crate) struct LogThrottle<K, T> {
    sums: HashMap<K, Sum<T>>,
    /// How many were not summed up, and when that was reported last.
    untold: u64,
    reported: Option<Instant>,
}

#[derive(Debug)]
struct Sum<T> {
    logged: Option<Instant>,
    /// The last one, and how many there are with it.
    pending: Option<(T, u64)>,
}

impl<T> Sum<T> {
    /// When it may be logged, if something is pending.
    fn due(&self, now: Instant) -> Option<Instant> {
        self.pending.as_ref()?;
        Some(self.logged.map_or(now, |logged| logged + INTERVAL))
    }

    /// Whether nothing is known of it that matters any more.
    fn is_over(&self, now: Instant) -> bool {
        self.pending.is_none() && self.logged.is_none_or(|logged| logged + INTERVAL <= now)
    }
}

impl<K: Hash + Eq, T> LogThrottle<K, T> {
    pub(crate) fn new() -> Self {
        Self { sums: HashMap::new(), untold: 0, reported: None }
    }

    /// Counts one.
    pub(crate) fn add(&mut self, kind: K, one: T) {
        if !self.sums.contains_key(&kind) && self.sums.len() >= MAX_KINDS {
            let now = Instant::now();
            self.sums.retain(|_, sum| !sum.is_over(now));
            if self.sums.len() >= MAX_KINDS {
                self.untold += 1;
                return;
            }
        }
        let sum = self.sums.entry(kind).or_insert(Sum { logged: None, pending: None });
        let n = sum.pending.as_ref().map_or(0, |(_, n)| *n);
        sum.pending = Some((one, n + 1));
    }

    /// When the next line is due, if something is pending.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.sums.values().filter_map(|sum| sum.due(now)).min()
    }

    /// What is due now: the last one of each kind, and how many there were of it.
    pub(crate) fn take(&mut self, now: Instant) -> impl Iterator<Item = (T, u64)> {
        let due = self.sums.values_mut().filter(move |sum| sum.due(now).is_some_and(|due| due <= now));
        due.filter_map(move |sum| {
            sum.logged = Some(now);
            sum.pending.take()
        })
    }

    /// How many were not summed up since this was reported last; 0 if that was a moment ago.
    pub(crate) fn untold(&mut self, now: Instant) -> u64 {
        if self.untold == 0 || self.reported.is_some_and(|reported| now < reported + INTERVAL) {
            return 0;
        }
        self.reported = Some(now);
        std::mem::take(&mut self.untold)
    }

    /// What is pending at the end.
    pub(crate) fn rest(self) -> impl Iterator<Item = (T, u64)> {
        self.sums.into_values().filter_map(|sum| sum.pending)
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

    #[test]
    fn kinds_are_bounded_and_what_is_left_out_is_counted() {
        let mut throttle = LogThrottle::new();
        for kind in 0..2000 {
            throttle.add(kind, kind);
        }
        let now = Instant::now();
        let n = throttle.take(now).count();
        assert_eq!((n, throttle.untold(now)), (MAX_KINDS, 2000 - 1024));
        for kind in 0..2000 {
            throttle.add(-kind, 0);
        }
        assert_eq!(throttle.untold(now), 0, "a moment ago");
        assert!(throttle.untold(now + INTERVAL) > 0);
    }
}
