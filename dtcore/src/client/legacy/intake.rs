//! The intake: receives on all streams of a transfer at once, lowest file offset first.
//!
//! One task serves all streams. Whatever is there on the stream that holds the frontier is taken first, so that the
//! follower's digest, which is what protocol 1 waits for on a fast path, does not starve while later parts come in. The
//! pace says whether the others are read whenever the earlier ones have nothing, or only so often that they stay alive.
//!
//! Where the rate is limited, what may be received is given out before it is: to the streams that would go without first,
//! then in file order.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::client::legacy::lane::{Lane, Step};
use crate::client::legacy::order::Order;
use crate::client::legacy::pace::{Pace, Pacer, WINDOW};
use crate::client::legacy::ration::Ration;
use crate::receive::in_order::InOrderReader;
use crate::sink::FillError;

/// A stream that was not looked at for so long is read before the earlier ones, however busy they are: its sender must
/// see that somebody is there.
const PATIENCE: Duration = Duration::from_millis(500);

/// How much of a neglected stream is read then, in bytes: a receive buffer's state, so that its sender can go on.
const HELPING: u64 = 4 << 20;

/// What each stream gets of a limited rate before those that come earlier get more, in bytes a second.
///
/// A sender notices that somebody reads when a third of its buffer is free, and the system gives it up to 4 MiB. So this
/// is three signs of life in two seconds; a rate that is too low for that is shared out evenly.
const SUBSISTENCE: u128 = 2 << 20;

/// How long the streams rest at most while the digest catches up.
const REST: Duration = Duration::from_millis(250);

/// How many receive calls are made before the task looks up, for cancellation and progress.
const STEPS: u32 = 16;

/// All streams of a transfer that are not at their end, in file order.
pub(super) struct Intake {
    lanes: Vec<Lane>,
    order: Order,
    pacer: Pacer,
    ration: Ration,
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
    pub(super) fn new(lanes: Vec<Lane>, order: Order, ration: Ration) -> Self {
        let (pacer, begun) = (Pacer::default(), Instant::now());
        Self { lanes, order, pacer, ration, begun, rest_until: None, received: 0 }
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
    pub(super) async fn receive(&mut self, follower: &InOrderReader) -> Result<bool, Fault> {
        self.rest(follower).await;
        let pace =
            self.pacer.check_journal(self.begun.elapsed(), self.received, self.lanes.len(), follower.speed());
        // A window without a byte must be judged too, so the wait ends with it.
        let steps = timeout(WINDOW, poll_fn(|cx| self.poll_receive(cx, pace, follower))).await;
        steps.unwrap_or(Ok(()))?;
        if self.lanes.is_empty() {
            return Ok(true);
        }
        // The pace is judged with this wait in it: to the digest, a limit is a path that is no faster.
        self.ration.refilled().await;
        Ok(false)
    }

    /// Waits while the digest is far behind: it decides when the transfer ends, and to run further ahead of it would only
    /// take its core away. The limit keeps every stream read now and then, whatever the digest waits for.
    async fn rest(&mut self, follower: &InOrderReader) {
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
        follower: &InOrderReader,
    ) -> Poll<Result<(), Fault>> {
        let mut stepped = match self.ration {
            Ration::Unlimited => self.help_neglected(cx, follower)?,
            Ration::Limited { .. } => self.feed_hungry(cx, follower)?,
        };
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
        // With nothing left that may be received, no stream was asked to wake this task.
        let is_through = stepped || self.lanes.is_empty() || self.ration.left() == 0;
        if is_through { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Reads all streams that were not looked at for too long; tells whether something came.
    fn help_neglected(&mut self, cx: &mut Context<'_>, follower: &InOrderReader) -> Result<bool, Fault> {
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

    /// Reads the streams that have had less than their subsistence, first those that have had least; tells whether
    /// something came.
    fn feed_hungry(&mut self, cx: &mut Context<'_>, follower: &InOrderReader) -> Result<bool, Fault> {
        let due = SUBSISTENCE * self.begun.elapsed().as_millis() / 1000;
        let lanes = self.lanes.iter().map(|lane| (lane.received(), lane.id));
        let mut hungry: Vec<_> = lanes.filter(|(received, _)| u128::from(*received) < due).collect();
        // Stable, so that of those that have had as much the earlier are first.
        hungry.sort_by_key(|(received, _)| *received);
        let mut stepped = false;
        for (_, id) in hungry {
            if self.ration.left() == 0 {
                break;
            }
            // A lane at its end leaves, and the others move up.
            if let Some(index) = self.lanes.iter().position(|lane| lane.id == id) {
                stepped |= self.poll_lane(index, cx, follower)?.is_ready();
            }
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

    /// One step of a lane, pending also when nothing may be received; an error is never pending.
    fn poll_lane(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
        follower: &InOrderReader,
    ) -> Result<Poll<()>, Fault> {
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(Poll::Pending) };
        let lost =
            |lane: &Lane, reason| Fault::Lost { stream: lane.id.byte(), received: lane.received(), reason };
        let allowed = self.ration.left();
        if allowed == 0 && !lane.is_full() {
            return Ok(Poll::Pending);
        }
        match lane.poll_step(cx, allowed) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(Step::Stored { received, committed })) => {
                self.ration.spend(received);
                self.order.advance(lane.id, committed, follower);
                self.received = self.received.saturating_add(received);
            }
            Poll::Ready(Ok(Step::Complete { committed })) => {
                self.order.advance(lane.id, committed, follower);
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

    /// Fails when some stream has been without a byte for `limit`; one that has some, and is not read because of the
    /// ration, is not without.
    pub(super) fn check_stall(&self, limit: Duration) -> Result<(), Fault> {
        if self.lanes.iter().any(|lane| lane.is_silent(limit)) {
            Err(Fault::Stalled { waited: limit })
        } else {
            Ok(())
        }
    }
}
