//! The intake: receives on all streams of a transfer at once, lowest file offset first.
//!
//! One task serves all streams. Whatever is there on the stream that holds the frontier is taken first, so that the
//! follower's digest, which is what protocol 1 waits for on a fast path, does not starve while later parts come in. The
//! pace says whether the others are read whenever the earlier ones have nothing, or only so often that they stay alive.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::follower::Follower;
use super::lane::{Lane, Step};
use super::order::Order;
use super::pace::{Pace, Pacer, WINDOW};
use crate::storage::FillError;

/// A stream that was not read for so long is read before the earlier ones, however busy they are: its sender must see
/// that somebody is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many receive calls are made before the task looks up, for cancellation and progress.
const STEPS: u32 = 16;

/// All streams of a transfer that are not at their end, in file order.
pub(super) struct Intake {
    lanes: Vec<Lane>,
    order: Order,
    pacer: Pacer,
    begun: Instant,
    received: u64,
}

/// Why the intake cannot go on.
pub(super) enum Fault {
    /// A stream ended, or broke, before all its bytes had come.
    Lost { stream: u8, received: u64, reason: Option<std::io::Error> },
    /// Nothing came on this stream for the given time.
    Stalled { waited: Duration },
    /// The bytes could not be stored.
    Store(std::io::Error),
}

impl Intake {
    pub(super) fn new(lanes: Vec<Lane>, order: Order) -> Self {
        Self { lanes, order, pacer: Pacer::default(), begun: Instant::now(), received: 0 }
    }

    /// Bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// How many streams are not at their end.
    pub(super) fn open_streams(&self) -> u8 {
        u8::try_from(self.lanes.len()).unwrap_or(u8::MAX)
    }

    /// The order of the bytes, which knows the size when all streams have ended.
    pub(super) fn order(&self) -> &Order {
        &self.order
    }

    /// Receives for a while; `true` when all streams are at their end.
    ///
    /// # Cancel safety
    /// Cancel safe: what was received is recorded.
    pub(super) async fn receive(&mut self, follower: &Follower) -> Result<bool, Fault> {
        if follower.is_behind() {
            // The digest decides when the transfer ends; to run further ahead of it would only take its core away.
            // The limit keeps every stream read now and then, and the transfer alive if the digest waits for a disk.
            let _ = timeout(PATIENCE / 4, follower.caught_up()).await;
            self.pacer.restart(self.begun.elapsed(), self.received);
        }
        let pace = self.pacer.judge(self.begun.elapsed(), self.received, follower.speed());
        // A window without a byte must be judged too, so the wait ends with it.
        let steps = timeout(WINDOW, poll_fn(|cx| self.poll_receive(cx, pace, follower))).await;
        steps.unwrap_or(Ok(())).map(|()| self.lanes.is_empty())
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        pace: Pace,
        follower: &Follower,
    ) -> Poll<Result<(), Fault>> {
        let neglected = |lane: &Lane| lane.last_progress.elapsed() > PATIENCE;
        let neglected = self.lanes.iter().position(neglected);
        if let Some(Poll::Ready(Err(fault))) = neglected.map(|index| self.poll_lane(index, cx, follower)) {
            return Poll::Ready(Err(fault));
        }
        let mut steps = 0;
        let mut index = 0;
        while steps < STEPS && index < self.n_wanted(pace) {
            match self.poll_lane(index, cx, follower) {
                Poll::Pending => index += 1,
                Poll::Ready(Ok(())) => {
                    steps += 1;
                    index = 0;
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
            }
        }
        if steps > 0 || self.lanes.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// How many of the lanes are read, from the frontier's on.
    fn n_wanted(&self, pace: Pace) -> usize {
        match pace {
            Pace::All => self.lanes.len(),
            Pace::InOrder => self.lanes.len().min(1),
        }
    }

    fn poll_lane(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
        follower: &Follower,
    ) -> Poll<Result<(), Fault>> {
        let Some(lane) = self.lanes.get_mut(index) else { return Poll::Pending };
        let lost =
            |lane: &Lane, reason| Fault::Lost { stream: lane.id.byte(), received: lane.received(), reason };
        match lane.poll_step(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(Step::Stored(n))) => {
                self.order.advance(lane.id, n, follower);
                self.received = self.received.saturating_add(n);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(Step::Complete)) => {
                // The lane gives up its right to write before the follower hears that it may append there.
                let id = self.lanes.remove(index).id;
                self.order.end(id, follower);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(Step::CutOff)) => Poll::Ready(Err(lost(lane, None))),
            Poll::Ready(Err(FillError::Source(error))) => Poll::Ready(Err(lost(lane, Some(error)))),
            Poll::Ready(Err(FillError::Store(error))) => Poll::Ready(Err(Fault::Store(error))),
        }
    }

    /// Fails when some stream has been without a byte for `limit`.
    pub(super) fn check_stall(&self, limit: Duration) -> Result<(), Fault> {
        if self.lanes.iter().any(|lane| lane.is_silent(limit)) {
            Err(Fault::Stalled { waited: limit })
        } else {
            Ok(())
        }
    }
}
