//! The streams of a transfer: which are open, which wait for work, and how often each may try again.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::wake::Wake;
use crate::event::Outage;
use crate::failure::Failure;
use crate::manifest::{StreamCount, StreamId};
use crate::schedule::{Backoff, Exhausted, Fault, Retries, RetryLimit};
use crate::sync::Lock;

/// How many streams may violate the protocol, without a verified block in between, before the transfer fails: more than
/// corruption on the path explains.
const MAX_VIOLATIONS: u32 = 10;

/// The one keeper of what the streams' connections do.
#[derive(Debug)]
pub(super) struct StreamSet {
    wakes: Vec<Wake>,
    state: Lock<SetState>,
    /// No connection is in use any more.
    all_closed: Notify,
}

#[derive(Debug)]
struct SetState {
    backoffs: Vec<Backoff>,
    retries: Retries,
    /// How many streams are open.
    n_open: u8,
    /// How many connections are in use, also of streams that are lost already.
    n_connected: usize,
    /// The streams that wait for something to request.
    idle: BTreeSet<StreamId>,
    n_violations: u32,
}

impl StreamSet {
    /// Streams of which `n_useful` are opened, and that may fail up to `retries`.
    pub(super) fn new(streams: StreamCount, n_useful: usize, retries: RetryLimit) -> Self {
        let state = SetState {
            backoffs: streams.ids().map(Backoff::new).collect(),
            retries: Retries::new(retries, n_useful),
            n_open: 0,
            n_connected: 0,
            idle: BTreeSet::new(),
            n_violations: 0,
        };
        Self {
            wakes: streams.ids().map(|_| Wake::default()).collect(),
            state: Lock::new(state),
            all_closed: Notify::new(),
        }
    }

    pub(super) fn wake_of(&self, stream: StreamId) -> Option<&Wake> {
        self.wakes.get(stream.index())
    }

    /// Interrupts all stream tasks.
    pub(super) fn wake_all(&self) {
        self.wakes.iter().for_each(Wake::wake);
    }

    /// Interrupts the stream tasks that wait for something to request.
    pub(super) fn wake_idle(&self) {
        self.state.lock().idle.iter().filter_map(|stream| self.wake_of(*stream)).for_each(Wake::wake);
    }

    /// Has the connection of a stream replaced.
    pub(super) fn replace(&self, stream: StreamId, fault: Fault) {
        if let Some(wake) = self.wake_of(stream) {
            wake.replace(fault);
        }
    }

    /// A stream is open.
    pub(super) fn opened(&self) {
        let mut state = self.state.lock();
        state.n_open = state.n_open.saturating_add(1);
        state.n_connected += 1;
    }

    /// A connection is not used any more.
    pub(super) fn disconnected(&self) {
        let mut state = self.state.lock();
        state.n_connected = state.n_connected.saturating_sub(1);
        if state.n_connected == 0 {
            self.all_closed.notify_one();
        }
    }

    /// A stream that was to be replaced for being stalled has delivered data.
    pub(super) fn keep(&self, stream: StreamId) {
        if let Some(wake) = self.wake_of(stream) {
            wake.keep();
        }
    }

    /// A stream is not open any more.
    pub(super) fn closed(&self, stream: StreamId) {
        let mut state = self.state.lock();
        state.n_open = state.n_open.saturating_sub(1);
        state.idle.remove(&stream);
    }

    /// Notes whether a stream waits for something to request.
    pub(super) fn set_idle(&self, stream: StreamId, is_idle: bool) {
        let mut state = self.state.lock();
        if is_idle {
            state.idle.insert(stream);
        } else {
            state.idle.remove(&stream);
        }
    }

    /// The pause before the next attempt of a stream, longer each time.
    pub(super) fn backoff(&self, stream: StreamId) -> Duration {
        self.state.lock().backoffs.get_mut(stream.index()).map(Backoff::failed).unwrap_or_default()
    }

    /// As [`backoff`](Self::backoff), for an attempt that counts, after `error`. `is_carrying` says whether a stream has carried
    /// anything.
    ///
    /// # Errors
    /// `error`, if all streams have tried often enough, or another attempt cannot succeed.
    pub(super) fn pause_after(
        &self,
        error: Failure,
        stream: StreamId,
        now: Duration,
        is_carrying: bool,
    ) -> Result<Duration, Failure> {
        let is_violation = matches!(error, Failure::Protocol { .. });
        let is_temporary = error.is_retryable() && !matches!(error, Failure::SourceChanged { .. })
            // A proxy that has carried a stream answers instead of a server that restarts, or carries no more of them.
            || is_carrying && matches!(error, Failure::StreamsBlocked { .. });
        if !is_temporary && !is_violation {
            return Err(error);
        }
        let mut state = self.state.lock();
        state.n_violations += u32::from(is_violation);
        if is_violation && state.n_violations >= MAX_VIOLATIONS
            || state.retries.failed(stream, now) == Err(Exhausted)
        {
            return Err(error);
        }
        drop(state);
        Ok(self.backoff(stream))
    }

    /// The transfer has progressed: all retries are available again.
    ///
    /// Only verified blocks and digests are progress. If bytes were, a path that always breaks within a block would be tried
    /// indefinitely.
    pub(super) fn progressed(&self, by: Option<StreamId>) {
        let mut state = self.state.lock();
        state.retries.progressed();
        state.n_violations = 0;
        if let Some(backoff) = by.and_then(|stream| state.backoffs.get_mut(stream.index())) {
            backoff.progressed();
        }
    }

    pub(super) fn n_open(&self) -> u8 {
        self.state.lock().n_open
    }

    /// How often reconnecting has failed, while no stream is open.
    pub(super) fn outage(&self) -> Option<Outage> {
        let state = self.state.lock();
        let retries = &state.retries;
        let is_out = state.n_open == 0 && retries.rounds() > 0;
        is_out.then(|| Outage { attempt: retries.rounds(), limit: retries.limit() })
    }

    /// Waits until no connection is used any more, at most until `limit` has passed.
    pub(super) async fn all_closed(&self, limit: Duration) {
        let closed = async {
            while self.state.lock().n_connected > 0 {
                self.all_closed.notified().await;
            }
        };
        // A sender that does not learn of the end notices by itself, later.
        let _ = timeout(limit, closed).await;
    }
}
