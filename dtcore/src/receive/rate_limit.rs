//! The limit of the rate at which all streams together may receive.

use std::num::NonZeroU64;
use std::time::Duration;

/// The most that is allowed at once, so that the streams get it in turn.
const PIECE: u64 = 64 << 10;

/// For how long a time the allowance that nobody took is kept: longer pauses are not made up for.
const KEPT: Duration = Duration::from_millis(100);

/// Timers are no finer than this.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// A bucket that fills at a constant rate, and from which bytes are taken before they are received.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: NonZeroU64,
    /// Bytes that may be taken now.
    tokens: u64,
    /// Up to when the bucket was filled.
    filled: Duration,
}

impl TokenBucket {
    /// An empty bucket that gets `rate` bytes a second from time 0 on.
    pub(crate) fn new(rate: NonZeroU64) -> Self {
        Self { rate, tokens: 0, filled: Duration::ZERO }
    }

    /// Takes what is allowed now, at least one byte.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub(crate) fn take(&mut self, now: Duration) -> Result<usize, Duration> {
        self.fill(now);
        // Less than this is not state a system call; but at a very low rate every byte is.
        let state = self.within(KEPT / 4).clamp(1, PIECE);
        if self.tokens < state {
            return Err(self.time_for(state - self.tokens).max(LEAST_WAIT));
        }
        let taken = self.tokens.min(PIECE);
        self.tokens -= taken;
        Ok(usize::try_from(taken).unwrap_or(usize::MAX))
    }

    /// Gives back what was taken and not received.
    pub(crate) fn give_back(&mut self, n: usize) {
        self.tokens = self.tokens.saturating_add(u64::try_from(n).unwrap_or(u64::MAX)).min(self.capacity());
    }

    fn fill(&mut self, now: Duration) {
        let new = self.within(now.saturating_sub(self.filled));
        self.tokens = self.tokens.saturating_add(new).min(self.capacity());
        // The fraction of a byte that is left counts the next time.
        self.filled = self.filled.saturating_add(self.time_for(new));
    }

    fn capacity(&self) -> u64 {
        self.within(KEPT).max(1)
    }

    fn within(&self, time: Duration) -> u64 {
        let bytes = u128::from(self.rate.get()) * time.as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is taken and given back, and whenever: never more than the rate and what is kept, and never far less.
        #[test]
        fn the_rate_is_kept(rate in 1..1_000_000_000_u64, used in 1..65_537_usize) {
            let mut bucket = TokenBucket::new(NonZeroU64::new(rate).unwrap());
            let (mut now, mut received) = (Duration::ZERO, 0_u64);
            for _ in 0..2000 {
                match bucket.take(now) {
                    Ok(n) => {
                        let n_used = n.min(used);
                        bucket.give_back(n - n_used);
                        received += u64::try_from(n_used).unwrap();
                    }
                    Err(wait) => now += wait,
                }
            }
            let allowed = u128::from(rate) * (now + KEPT).as_nanos() / 1_000_000_000 + 1;
            prop_assert!(u128::from(received) <= allowed, "{received} of {allowed} in {now:?}");
            let due = u128::from(rate) * now.saturating_sub(KEPT).as_nanos() / 1_000_000_000;
            prop_assert!(u128::from(received) * 10 >= due * 9, "{received} of {due} in {now:?}");
        }
    }
}
