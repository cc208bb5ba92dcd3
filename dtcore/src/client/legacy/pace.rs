//! Which streams are state reading: all of them, or only the one that holds the frontier.
//!
//! On a path slower than the digest every byte that comes is welcome, on whichever stream. On a faster one the digest
//! decides when the transfer ends, and bytes of later parts only take the cores and the senders' attention away from
//! those that the digest waits for. A pure state machine: the caller tells the time and the counters.

use std::time::Duration;

/// Which streams to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// Whatever comes, in file order.
    All,
    /// The stream that holds the frontier; the others only so often that they stay alive.
    InOrder,
}

/// How long rates are measured before they are judged.
pub(super) const WINDOW: Duration = Duration::from_millis(20);

/// How long all streams are read at least, after a single one could not feed the digest; it doubles each time.
const FIRST_PENANCE: Duration = Duration::from_millis(250);
const LONGEST_PENANCE: Duration = Duration::from_secs(16);

/// Chooses the pace from what the streams bring and what the digest can take.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: Pace,
    /// When the running window began, and what had been received then.
    window: (Duration, u64),
    /// Until when one stream alone is not tried again.
    all_until: Duration,
    penance: Duration,
    /// What all streams brought together when it was last measured, in bytes a second.
    rate_of_all: u128,
}

impl Default for Pacer {
    fn default() -> Self {
        Self {
            pace: Pace::All,
            window: (Duration::ZERO, 0),
            all_until: Duration::ZERO,
            penance: FIRST_PENANCE,
            rate_of_all: 0,
        }
    }
}

impl Pacer {
    /// The pace from now on: `now` is the time since the transfer began, `received` the bytes of all streams so far,
    /// `n_streams` how many of them are open, `digest` how many bytes a second the digest takes when it has them.
    pub(super) fn check_journal(
        &mut self,
        now: Duration,
        received: u64,
        n_streams: usize,
        digest: u64,
    ) -> Pace {
        let (begun, before) = self.window;
        let elapsed = now.saturating_sub(begun);
        if elapsed < WINDOW || digest == 0 {
            return self.pace;
        }
        let brought = u128::from(received.saturating_sub(before)) * 1_000_000_000 / elapsed.as_nanos().max(1);
        let digest = u128::from(digest);
        match self.pace {
            Pace::All if brought >= digest && now >= self.all_until => {
                self.pace = Pace::InOrder;
                self.rate_of_all = brought;
            }
            Pace::InOrder if brought < self.worth_of_all(n_streams, digest) => {
                self.pace = Pace::All;
                self.all_until = now + self.penance;
                self.penance = (self.penance * 2).min(LONGEST_PENANCE);
            }
            Pace::All | Pace::InOrder => {}
        }
        self.restart(now, received);
        self.pace
    }

    /// The rate at which the transfer would come to its end with all streams read, in bytes a second.
    ///
    /// They end together, when the digest has had one part beside them; then it has the other parts to itself. So a
    /// byte costs `1 / all + (1 - 1 / n) / digest` seconds, against `1 / one` in order.
    fn worth_of_all(&self, n_streams: usize, digest: u128) -> u128 {
        let n = u128::try_from(n_streams.max(1)).unwrap_or(1);
        let all = self.rate_of_all.max(1);
        // 1 / (1 / all + (n - 1) / (n * digest)), on a common denominator.
        all * n * digest / (n * digest + (n - 1) * all).max(1)
    }

    /// Begins a new window: what happened in the running one says nothing about the path.
    pub(super) fn restart(&mut self, now: Duration, received: u64) {
        self.window = (now, received);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: u64 = 800_000_000;

    /// Runs windows in which the path brings so many bytes a second at either pace, and returns the share in order.
    fn share_in_order(all: u64, one: u64, windows: u32) -> f64 {
        let mut pacer = Pacer::default();
        let (mut received, mut pace, mut in_order) = (0, Pace::All, 0);
        for window in 1..=windows {
            let rate = if pace == Pace::All { all } else { one };
            received += rate / 50;
            in_order += u32::from(pace == Pace::InOrder);
            pace = pacer.check_journal(WINDOW * window, received, 8, DIGEST);
        }
        f64::from(in_order) / f64::from(windows)
    }

    #[test]
    fn a_path_slower_than_the_digest_is_never_held_back() {
        assert!(share_in_order(50_000_000, 50_000_000, 1000) == 0.0);
    }

    #[test]
    fn a_path_that_is_fast_on_one_stream_is_read_in_order() {
        assert!(share_in_order(1_500_000_000, 1_000_000_000, 1000) > 0.99);
    }

    #[test]
    fn a_path_that_needs_all_its_streams_gets_them() {
        // Each try costs a window, and the tries become rare.
        assert!(share_in_order(1_200_000_000, 150_000_000, 3000) < 0.01);
        // One stream at 400 MB/s is slower than 1200 MB/s and seven eighths of the digest behind them.
        assert!(share_in_order(1_200_000_000, 400_000_000, 3000) < 0.01);
        assert!(share_in_order(1_200_000_000, 600_000_000, 3000) > 0.99);
    }

    #[test]
    fn nothing_is_judged_before_the_digest_has_shown_its_speed() {
        assert_eq!(Pacer::default().check_journal(WINDOW * 2, u64::MAX, 8, 0), Pace::All);
    }
}
