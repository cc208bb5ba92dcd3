//! All streams of a transfer: received on one task, lowest file offset first, and handed on in file order.
//!
//! On a fast path the MD5 decides when the transfer ends, and it needs the bytes in file order; so whatever is there on the
//! earliest stream is received first.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::legacy::part::{Part, PartFault};
use crate::manifest::{InconsistentLengths, StaticSplit};
use crate::receive::in_order::InOrderReader;
use crate::transport::RateLimit;

/// What each stream gets before earlier ones get more, in bytes a second.
///
/// A sender notices that its peer reads when a third of its buffer is free, and the system gives it up to 4 MiB. So this
/// is three signs of life in two seconds; where the rate is limited below that, it is shared out evenly.
const MIN_RATE: u128 = 2 << 20;

/// All streams of a transfer, in file order.
pub(super) struct Parts {
    all: Vec<Part>,
    /// The first part that is not complete, or of which bytes are still to be handed on.
    current: usize,
    limit: Option<RateLimit>,
    /// How many bytes may be received before the limit must be asked.
    allowed: usize,
    started: Instant,
}

impl Parts {
    pub(super) fn new(parts: Vec<Part>, limit: Option<RateLimit>) -> Self {
        let allowed = if limit.is_some() { 0 } else { usize::MAX };
        Self { all: parts, current: 0, limit, allowed, started: Instant::now() }
    }

    /// How many bytes arrived.
    pub(super) fn received(&self) -> u64 {
        self.all.iter().map(Part::received).sum()
    }

    /// How many streams have not ended.
    pub(super) fn n_open(&self) -> u8 {
        u8::try_from(self.all.iter().filter(|part| part.is_open()).count()).unwrap_or(u8::MAX)
    }

    /// The size of the file that has parts of these lengths.
    pub(super) fn size(&self) -> Result<u64, PartFault> {
        let lengths: Vec<_> = self.all.iter().map(Part::received).collect();
        match StaticSplit::from_lengths(&lengths) {
            Ok(split) => Ok(split.size()),
            Err(InconsistentLengths { stream, received }) => {
                Err(PartFault::Lost { stream, received, reason: None })
            }
        }
    }

    /// Receives once, on one stream.
    ///
    /// # Cancel safety
    /// Cancel safe: received bytes and the allowance are recorded.
    pub(super) async fn receive(&mut self, reader: &InOrderReader) -> Result<(), PartFault> {
        if self.allowed == 0
            && let Some(limit) = &self.limit
        {
            self.allowed = limit.allowance().await;
        }
        let n = poll_fn(|cx| self.poll_receive(cx)).await?;
        if self.limit.is_some() {
            self.allowed -= n;
        }
        self.hand_on(reader);
        Ok(())
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, PartFault>> {
        let due = MIN_RATE * self.started.elapsed().as_millis() / 1000;
        for index in turns(self.all.iter().map(|part| part.is_open().then(|| part.received())), due) {
            if let Some(part) = self.all.get_mut(index)
                && let Poll::Ready(result) = part.poll_receive(cx, self.allowed)
            {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    }

    /// Hands on the bytes that have become contiguous with the beginning of the file.
    pub(super) fn hand_on(&mut self, reader: &InOrderReader) {
        while let Some(part) = self.all.get_mut(self.current) {
            let (store, range) = part.take_committed();
            reader.push(store, range);
            if part.is_open() {
                return;
            }
            self.current += 1;
        }
    }

    /// Whether a stream has brought no data for `limit`. Data that waits because of the rate limit is no stall.
    pub(super) fn is_stalled(&self, limit: Duration) -> bool {
        self.all.iter().any(|part| part.is_stalled(limit))
    }
}

/// The indices of the open parts, in the order in which they are tried: first those that have received less than `due`
/// bytes, from the least on, then the others in file order. A complete part has `None` as `received`.
fn turns(received: impl Iterator<Item = Option<u64>>, due: u128) -> Vec<usize> {
    let open =
        received.enumerate().filter_map(|(index, received)| Some((u128::from(received?).min(due), index)));
    let mut open: Vec<_> = open.collect();
    open.sort_unstable();
    open.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests;
