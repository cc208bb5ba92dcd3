//! When a stream may reconnect, and when all streams together have tried often enough.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::manifest::StreamId;

/// The first pause. The attempt before it follows without one, because most broken connections have no lasting cause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, after which a server that is up again is found at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so many doublings the longest pause is reached.
const MAX_DOUBLINGS: u32 = 6;

/// The pauses between a stream's attempts to connect.
///
/// 0, then 100 ms, doubling up to 5 s. Each pause is shortened by up to a quarter, by stream and attempt, so that the
/// streams of one transfer do not all reconnect at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    stream: StreamId,
    failures: u32,
}

impl Backoff {
    /// The pauses of `stream`, beginning with the first.
    pub(crate) fn new(stream: StreamId) -> Self {
        Self { stream, failures: 0 }
    }

    /// The connection ended or could not be established; returns the pause before the next attempt.
    pub(crate) fn failed(&mut self) -> Duration {
        let failure = self.failures;
        self.failures += 1;
        let Some(doublings) = failure.checked_sub(1) else { return Duration::ZERO };
        let pause = (FIRST_PAUSE * 2_u32.pow(doublings.min(MAX_DOUBLINGS))).min(LONGEST_PAUSE);
        pause * (1024 - self.jitter(failure)) / 1024
    }

    /// The stream made progress: its next pause is the first one again.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// 0 to 255, from the stream and its attempt, by the finalizer of a multiplicative hash.
    fn jitter(&self, failure: u32) -> u32 {
        let seed = (u32::from(self.stream.byte()) << 16) ^ failure;
        let mixed = (seed ^ (seed >> 15)).wrapping_mul(0x2c1b_3c6d);
        (mixed ^ (mixed >> 12)).wrapping_mul(0x297a_2d39) >> 24
    }
}

/// How long retrying may go on without progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RetryLimit {
    /// So many rounds; `None` for any number.
    pub(crate) rounds: Option<u32>,
    /// So long after the first round has failed; `None` for any time.
    pub(crate) time: Option<Duration>,
}

impl RetryLimit {
    /// So many rounds, whatever time they take.
    pub(crate) fn rounds(n: u32) -> Self {
        Self { rounds: Some(n), time: None }
    }

    /// How long nothing may arrive, where that alone would end a transfer after `limit`; `None` if it may take any time.
    pub(crate) fn silence(self, limit: Duration) -> Option<Duration> {
        match self {
            Self { time: Some(time), .. } => Some(time.max(limit)),
            Self { rounds: Some(_), time: None } => Some(limit),
            Self { rounds: None, time: None } => None,
        }
    }
}

/// How often all streams together have failed without progress, counted in rounds.
///
/// A round is over when every stream has failed in it: a server that is down fails eight streams at once, which is one
/// failure to the user. A stream that is always refused uses up no round while another one has not failed: the
/// other may be slow for a long time, because the user limits the rate or the output blocks, and still complete
/// the transfer.
#[derive(Debug)]
pub(crate) struct Retries {
    limit: RetryLimit,
    /// The rounds since the last progress.
    rounds: u32,
    /// When the first of them had failed.
    since: Option<Duration>,
    /// The streams that have failed in the current round.
    failed: BTreeSet<StreamId>,
    n_streams: usize,
}

/// All rounds are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exhausted;

impl Retries {
    /// Allows `n_streams` streams failures without progress up to `limit`.
    pub(crate) fn new(limit: RetryLimit, n_streams: usize) -> Self {
        Self { limit, rounds: 0, since: None, failed: BTreeSet::new(), n_streams }
    }

    /// The stream's connection ended or could not be established.
    ///
    /// # Errors
    /// [`Exhausted`] if the stream must not try again.
    pub(crate) fn failed(&mut self, stream: StreamId, now: Duration) -> Result<(), Exhausted> {
        self.failed.insert(stream);
        if self.failed.len() >= self.n_streams {
            self.failed.clear();
            self.rounds = self.rounds.saturating_add(1);
            self.since.get_or_insert(now);
        }
        let is_too_often = self.limit.rounds.is_some_and(|limit| self.rounds > limit);
        let is_too_late = |since| self.limit.time.is_some_and(|limit| now.saturating_sub(since) >= limit);
        if is_too_often || self.since.is_some_and(is_too_late) { Err(Exhausted) } else { Ok(()) }
    }

    /// A stream made progress: all rounds are available again.
    pub(crate) fn progressed(&mut self) {
        self.rounds = 0;
        self.since = None;
        self.failed.clear();
    }

    /// How many rounds were used since the last progress.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// How many may be, if that is limited.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.limit.rounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::StreamCount;

    const NOW: Duration = Duration::from_secs(7);

    fn streams(n: u64) -> StreamCount {
        StreamCount::new(n).unwrap()
    }

    #[test]
    fn pauses_double_from_none_up_to_five_seconds() {
        for stream in streams(255).ids() {
            let mut backoff = Backoff::new(stream);
            assert_eq!(backoff.failed(), Duration::ZERO);
            for pause in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(Duration::from_millis) {
                let chosen = backoff.failed();
                assert!(chosen <= pause && chosen >= pause * 3 / 4, "{chosen:?} instead of {pause:?}");
            }
            for _ in 0..100 {
                assert!(backoff.failed() <= LONGEST_PAUSE);
            }
            backoff.progressed();
            assert_eq!(backoff.failed(), Duration::ZERO);
        }
    }

    #[test]
    fn pauses_differ_by_stream_and_are_reproducible() {
        let third = |stream| {
            let mut backoff = Backoff::new(stream);
            [backoff.failed(), backoff.failed(), backoff.failed()][2]
        };
        let mut pauses: Vec<_> = streams(8).ids().map(third).collect();
        assert_eq!(pauses, streams(8).ids().map(third).collect::<Vec<_>>());
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() >= 7, "{pauses:?}");
    }

    #[test]
    fn failure_of_all_streams_costs_one_round() {
        let mut retries = Retries::new(RetryLimit::rounds(2), 8);
        for round in 1..=2 {
            for stream in streams(8).ids() {
                assert_eq!(retries.failed(stream, NOW), Ok(()));
            }
            assert_eq!(retries.rounds(), round);
        }
        let results: Vec<_> = streams(8).ids().map(|stream| retries.failed(stream, NOW)).collect();
        assert_eq!(results[..7], [Ok(()); 7]);
        assert_eq!(results[7], Err(Exhausted));
    }

    #[test]
    fn refused_streams_use_no_round_while_another_is_open() {
        let mut retries = Retries::new(RetryLimit::rounds(2), 3);
        let [first, second, third] = [0, 1, 2].map(|id| streams(3).stream(id).unwrap());
        for _ in 0..1_000 {
            assert_eq!(retries.failed(first, NOW), Ok(()));
            assert_eq!(retries.failed(second, NOW), Ok(()));
        }
        // When the last one fails too, it has as many rounds as a single stream.
        assert_eq!((retries.failed(third, NOW), retries.rounds()), (Ok(()), 1));
        for round in 2..=3 {
            assert_eq!(retries.failed(third, NOW), Ok(()));
            assert_eq!(retries.failed(second, NOW), Ok(()));
            assert_eq!(retries.failed(first, NOW).is_err(), round == 3);
        }
    }

    #[test]
    fn progress_restores_all_rounds() {
        let mut retries = Retries::new(RetryLimit::rounds(1), 2);
        let [one, two] = [0, 1].map(|id| streams(2).stream(id).unwrap());
        for _ in 0..10 {
            assert_eq!((retries.failed(one, NOW), retries.failed(two, NOW)), (Ok(()), Ok(())));
            assert_eq!(retries.failed(one, NOW), Ok(()));
            retries.progressed();
        }
        assert_eq!((retries.failed(one, NOW), retries.failed(two, NOW)), (Ok(()), Ok(())));
        assert_eq!((retries.failed(one, NOW), retries.failed(two, NOW)), (Ok(()), Err(Exhausted)));
        let mut none = Retries::new(RetryLimit::rounds(0), 1);
        assert_eq!(none.failed(streams(1).stream(0).unwrap(), NOW), Err(Exhausted));
    }

    #[test]
    fn time_counts_from_the_first_round_that_failed() {
        let seconds = Duration::from_secs;
        let limit = RetryLimit { rounds: None, time: Some(seconds(10)) };
        let mut retries = Retries::new(limit, 2);
        let [one, two] = [0, 1].map(|id| streams(2).stream(id).unwrap());
        for now in 0..50 {
            assert_eq!(retries.failed(one, seconds(now)), Ok(()), "the other may be at work");
        }
        assert_eq!(retries.failed(two, seconds(50)), Ok(()));
        assert_eq!(retries.failed(one, seconds(59)), Ok(()));
        assert_eq!(retries.failed(one, seconds(60)), Err(Exhausted));
        retries.progressed();
        assert_eq!(retries.failed(one, seconds(61)), Ok(()));
        let mut unlimited = Retries::new(RetryLimit { rounds: None, time: None }, 1);
        assert!((0..10_000).all(|now| unlimited.failed(one, seconds(now)).is_ok()));
        assert_eq!((unlimited.rounds(), unlimited.limit()), (10_000, None));
    }

    #[test]
    fn silence_may_last_as_long_as_retries() {
        let seconds = Duration::from_secs;
        for (rounds, time, expected) in [
            (Some(10), None, Some(60)),
            (None, Some(600), Some(600)),
            (Some(10), Some(600), Some(600)),
            (None, Some(1), Some(60)),
            (None, None, None),
        ] {
            let limit = RetryLimit { rounds, time: time.map(seconds) };
            assert_eq!(limit.silence(seconds(60)), expected.map(seconds), "{limit:?}");
        }
    }
}
