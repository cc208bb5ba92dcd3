//! Connections that come and go, and how often one may be tried again.

use std::time::Duration;

use super::{Shared, Whole};
use crate::error::TransferError;
use crate::event::Event;
use crate::manifest::StreamId;
use crate::schedule::Backoff;

/// What a stream's task tells of its connections.
impl Shared {
    /// The stream is connected, which took `rtt`.
    pub(crate) fn opened(&self, stream: StreamId, rtt: Duration) {
        let now = self.now();
        let mut state = self.state();
        state.n_open = state.n_open.saturating_add(1);
        state.n_talking = state.n_talking.saturating_add(1);
        state.scheduler.opened(stream, rtt, now);
    }

    /// A connection that was opened says and hears nothing any more.
    pub(crate) fn hung_up(&self) {
        let mut state = self.state();
        state.n_talking = state.n_talking.saturating_sub(1);
        if state.n_talking == 0 {
            self.quiet.notify_one();
        }
    }

    /// The connection of `stream` has ended early.
    pub(crate) fn lost(&self, stream: StreamId, reason: String) {
        let now = self.now();
        let mut state = self.state();
        state.n_open = state.n_open.saturating_sub(1);
        state.idle.remove(&stream);
        state.scheduler.lost(stream, now);
        state.trouble.streams_lost = state.trouble.streams_lost.saturating_add(1);
        if state.whole == Whole::AskedOn(stream) {
            state.whole = Whole::NotAsked;
        }
        drop(state);
        self.events.offer(Event::StreamLost { stream, reason });
        self.wake_all();
    }

    /// The connection of `stream` was closed with nothing asked for, by which nothing is lost: how long it stays so at
    /// least, which is longer each time that it brings nothing.
    pub(crate) fn closed(&self, stream: StreamId) -> Duration {
        let now = self.now();
        let mut state = self.state();
        state.n_open = state.n_open.saturating_sub(1);
        state.idle.remove(&stream);
        state.scheduler.lost(stream, now);
        state.backoffs.get_mut(stream.index()).map(Backoff::failed).unwrap_or_default()
    }

    /// Whether a stream that was closed with nothing to do should be there again; its line is woken when that changes.
    pub(crate) fn is_needed(&self) -> bool {
        let state = self.state();
        let is_digest_to_ask = state.whole == Whole::NotAsked && state.scheduler.is_all_assigned();
        state.failure.is_some() || state.is_done() || is_digest_to_ask || state.scheduler.is_anything_to_ask()
    }

    /// How long `stream` waits before it connects again; the transfer fails with `error` when all have tried often enough.
    pub(crate) fn retry(&self, stream: StreamId, error: TransferError) -> Result<Duration, TransferError> {
        let mut state = self.state();
        if state.retries.failed(stream).is_err() {
            return Err(error);
        }
        state.trouble.retries = state.trouble.retries.saturating_add(1);
        Ok(state.backoffs.get_mut(stream.index()).map(Backoff::failed).unwrap_or_default())
    }
}
