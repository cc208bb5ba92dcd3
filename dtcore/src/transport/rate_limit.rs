//! The limit of the rate at which data is received or sent, by one transfer or several together.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::num::{to_u64, to_usize};
use crate::sync::Lock;

/// The most that is allowed at once, so that the streams get it in turn.
const PIECE: u64 = 64 << 10;

/// For how long an allowance that nobody took is kept. Longer pauses are not made up for.
const KEPT: Duration = Duration::from_millis(100);

/// Timers are no finer than this.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// A rate that several streams share; clones share it too.
#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    bucket: Arc<Lock<TokenBucket>>,
    started: Instant,
}

impl RateLimit {
    /// At most so many bytes a second, from now on.
    pub(crate) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bucket: Arc::new(Lock::new(TokenBucket::new(bytes_per_second))), started: Instant::now() }
    }

    /// Waits until data may be moved, and returns how many bytes, at least one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn allowance(&self) -> usize {
        loop {
            let granted = self.bucket.lock().take(self.started.elapsed());
            match granted {
                Ok(n) => return n,
                Err(wait) => sleep(wait).await,
            }
        }
    }

    /// Returns what was allowed and not moved.
    pub(crate) fn give_back(&self, allowed: usize, moved: usize) {
        self.bucket.lock().give_back(allowed.saturating_sub(moved));
    }
}

/// A bucket that fills at a constant rate, and from which bytes are taken before they are moved.
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
    /// How long to wait before trying again.
    pub(crate) fn take(&mut self, now: Duration) -> Result<usize, Duration> {
        self.fill(now);
        // Less than this is not worth a system call; but at a very low rate every byte is.
        let worth = self.within(KEPT / 4).clamp(1, PIECE);
        if self.tokens < worth {
            return Err(self.time_for(worth - self.tokens).max(MIN_WAIT));
        }
        let taken = self.tokens.min(PIECE);
        self.tokens -= taken;
        Ok(to_usize(taken))
    }

    /// Returns what was taken and not moved.
    pub(crate) fn give_back(&mut self, n: usize) {
        self.tokens = self.tokens.saturating_add(to_u64(n)).min(self.capacity());
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
        /// Whatever is taken and returned, and whenever: never more than the rate and what is kept, and never far less.
        #[test]
        fn rate_is_neither_exceeded_nor_wasted(rate in 1..1_000_000_000_u64, used in 1..65_537_usize) {
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
