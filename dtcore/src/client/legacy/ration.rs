//! The ration: what all streams together may receive before they have to wait, where the rate is limited.

use std::num::NonZeroU64;

use tokio::time::{Instant, sleep};

use crate::receive::rate_limit::TokenBucket;

/// What may be received now, and where more comes from.
#[derive(Debug)]
pub(super) enum Ration {
    /// Whatever comes.
    Unlimited,
    /// So many bytes, until the bucket gives more.
    Limited { left: usize, bucket: TokenBucket, begun: Instant },
}

impl Ration {
    /// A ration of `rate` bytes a second from now on.
    pub(super) fn new(rate: Option<NonZeroU64>) -> Self {
        match rate {
            None => Self::Unlimited,
            Some(rate) => Self::Limited { left: 0, bucket: TokenBucket::new(rate), begun: Instant::now() },
        }
    }

    /// The most bytes that may be received now.
    pub(super) fn left(&self) -> usize {
        match self {
            Self::Unlimited => usize::MAX,
            Self::Limited { left, .. } => *left,
        }
    }

    /// Records that `n` bytes were received.
    pub(super) fn spend(&mut self, n: u64) {
        if let Self::Limited { left, .. } = self {
            *left = left.saturating_sub(usize::try_from(n).unwrap_or(usize::MAX));
        }
    }

    /// Waits until a byte may be received.
    ///
    /// # Cancel safety
    /// Cancel safe: what was taken from the bucket is kept here.
    pub(super) async fn refilled(&mut self) {
        let Self::Limited { left, bucket, begun } = self else { return };
        while *left == 0 {
            match bucket.take(begun.elapsed()) {
                Ok(n) => *left = n,
                Err(wait) => sleep(wait).await,
            }
        }
    }
}
