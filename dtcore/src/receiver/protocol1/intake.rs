//! The intake: receives on all streams of a transfer at once, lowest file offset first.
//!
//! One task serves all streams. Whatever is there on the stream that holds the frontier is taken first, so that the
//! follower's digest, which is what protocol 1 waits for on a fast path, does not starve while later parts come in. The
//! pace says whether the others are read whenever the earlier ones have nothing, or only so often that they stay alive.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::super::follower::Follower;
use super::lane::{Lane, Step};
use super::order::Order;
use super::pace::{Pace, Pacer, WINDOW};
use crate::storage::FillError;

/// A stream that was not looked at for so long is read before the earlier ones, however busy they are: its sender must
/// see that somebody is there.
const PATIENCE: Duration = Duration::from_millis(500);

/// How much of a neglected stream is read then, in bytes: a receive buffer's worth, so that its sender can go on.
const HELPING: u64 = 4 << 20;

/// How long the streams rest at most while the digest catches up.
const REST: Duration = Duration::from_millis(250);

/// How many receive calls are made before the task looks up, for cancellation and progress.
const STEPS: u32 = 16;

/// All streams of a transfer that are not at their end, in file order.
pub(super) struct Intake {
    lanes: Vec<Lane>,
    order: Order,
    pacer: Pacer,
    begun: Instant,
    /// Until when the streams rest, if they do.
    rest_until: Option<Instant>,
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
        Self { lanes, order, pacer: Pacer::default(), begun: Instant::now(), rest_until: None, received: 0 }
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
        self.rest(follower).await;
        let pace = self.pacer.judge(self.begun.elapsed(), self.received, self.lanes.len(), follower.speed());
        // A window without a byte must be judged too, so the wait ends with it.
        let steps = timeout(WINDOW, poll_fn(|cx| self.poll_receive(cx, pace, follower))).await;
        steps.unwrap_or(Ok(())).map(|()| self.lanes.is_empty())
    }

    /// Waits while the digest is far behind: it decides when the transfer ends, and to run further ahead of it would only
    /// take its core away. The limit keeps every stream read now and then, whatever the digest waits for.
    async fn rest(&mut self, follower: &Follower) {
        if !follower.is_behind() && self.rest_until.is_none() {
            return;
        }
        // The limit outlives this future, which may be dropped and begun again many times before.
        let until = *self.rest_until.get_or_insert_with(|| Instant::now() + REST);
        let _ = timeout_at(until, follower.caught_up()).await;
        self.rest_until = None;
        self.pacer.restart(self.begun.elapsed(), self.received);
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        pace: Pace,
        follower: &Follower,
    ) -> Poll<Result<(), Fault>> {
        let mut stepped = self.help_neglected(cx, follower)?;
        let mut steps = 0;
        let mut index = 0;
        while steps < STEPS && index < self.n_wanted(pace) {
            match self.poll_lane(index, cx, follower)? {
                Poll::Pending => index += 1,
                Poll::Ready(()) => {
                    steps += 1;
                    index = 0;
                }
            }
        }
        stepped |= steps > 0;
        if stepped || self.lanes.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Reads all streams that were not looked at for too long; tells whether something came.
    fn help_neglected(&mut self, cx: &mut Context<'_>, follower: &Follower) -> Result<bool, Fault> {
        let now = Instant::now();
        let mut stepped = false;
        let mut index = 0;
        while let Some(lane) = self.lanes.get(index) {
            let (id, before) = (lane.id, lane.received());
            if now.duration_since(lane.looked_at) > PATIENCE {
                while self.poll_lane(index, cx, follower)?.is_ready() {
                    stepped = true;
                    // A lane at its end leaves, and another moves up into its place.
                    match self.lanes.get(index) {
                        Some(lane) if lane.id == id && lane.received() - before < HELPING => {}
                        _ => break,
                    }
                }
            }
            index += 1;
        }
        Ok(stepped)
    }

    /// How many of the lanes are read, from the frontier's on.
    fn n_wanted(&self, pace: Pace) -> usize {
        match pace {
            Pace::All => self.lanes.len(),
            Pace::InOrder => self.lanes.len().min(1),
        }
    }

    /// One step of a lane; an error is never pending.
    fn poll_lane(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
        follower: &Follower,
    ) -> Result<Poll<()>, Fault> {
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(Poll::Pending) };
        let lost =
            |lane: &Lane, reason| Fault::Lost { stream: lane.id.byte(), received: lane.received(), reason };
        match lane.poll_step(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(Step::Stored(n))) => {
                self.order.advance(lane.id, n, follower);
                self.received = self.received.saturating_add(n);
            }
            Poll::Ready(Ok(Step::Complete)) => {
                // The lane gives up its right to write before the follower hears that it may append there.
                let id = self.lanes.remove(index).id;
                self.order.end(id, follower);
            }
            Poll::Ready(Ok(Step::CutOff)) => return Err(lost(lane, None)),
            Poll::Ready(Err(FillError::Source(error))) => return Err(lost(lane, Some(error))),
            Poll::Ready(Err(FillError::Store(error))) => return Err(Fault::Store(error)),
        }
        Ok(Poll::Ready(()))
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
