//! Which streams of a session are open, and which connection carries each of them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::{SessionEnd, StreamRefusal};
use crate::manifest::StreamId;
use crate::proto::v2::Replacing;
use crate::sync::Lock;

/// Something that is held until it is dropped, such as a place within a limit.
pub(crate) trait HeldPlace: Debug + Send + Sync {}

impl<T: Debug + Send + Sync> HeldPlace for T {}

/// The places that a stream takes within the limits of its host.
#[derive(Debug)]
pub(crate) struct Places {
    /// Held while the stream is open; a connection that replaces another takes it over.
    pub(crate) _stream: Box<dyn HeldPlace>,
    /// Held until the connection is closed, and that which it replaced.
    pub(crate) connection: Arc<dyn HeldPlace>,
}

impl Places {
    /// Those of a host without limits.
    pub(crate) fn unlimited() -> Self {
        Self { _stream: Box::new(()), connection: Arc::new(()) }
    }
}

/// The open streams of a session, and how the session ended.
#[derive(Debug)]
pub(crate) struct StreamTable {
    state: Lock<OpenStreams>,
    /// How many connections carry streams, with those that were replaced and have not noticed it yet.
    n_open: watch::Sender<usize>,
    /// Cancelled when the session has ended.
    ended: CancellationToken,
}

#[derive(Debug)]
struct OpenStreams {
    open: HashMap<StreamId, Open>,
    n_claims: u64,
    end: Option<SessionEnd>,
    /// Since when no stream is open, if none is.
    idle_since: Instant,
}

/// A stream that a connection carries.
#[derive(Debug)]
struct Open {
    claim: u64,
    stop: CancellationToken,
    places: Places,
}

/// The right of a connection to carry a stream; [`StreamTable::release`] gives it back.
#[derive(Debug)]
pub(crate) struct StreamClaim {
    pub(crate) stream: StreamId,
    number: u64,
    /// Cancelled when the stream must end: it was replaced, or the session or the host has ended.
    pub(crate) stop: CancellationToken,
    pub(crate) connection: Arc<dyn HeldPlace>,
}

impl StreamTable {
    /// A table without streams, which ends with `aborted` at the latest.
    pub(crate) fn new(aborted: &CancellationToken) -> Self {
        let state = OpenStreams { open: HashMap::new(), n_claims: 0, end: None, idle_since: Instant::now() };
        Self { state: Lock::new(state), n_open: watch::Sender::new(0), ended: aborted.child_token() }
    }

    /// Gives a stream to a connection; a refusal changes nothing. `admit` finds places for a stream that replaces none.
    pub(crate) fn claim(
        &self,
        stream: StreamId,
        replacing: Replacing,
        admit: impl FnOnce() -> Option<Places>,
    ) -> Result<StreamClaim, StreamRefusal> {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Err(StreamRefusal::NoSession);
        }
        let places = match (state.open.remove(&stream), replacing) {
            (None, _) => admit().ok_or(StreamRefusal::NoCapacity)?,
            (Some(former), Replacing::Former) => {
                former.stop.cancel();
                former.places
            }
            (Some(former), Replacing::Nothing) => {
                state.open.insert(stream, former);
                return Err(StreamRefusal::Busy(stream));
            }
        };
        state.n_claims += 1;
        let (number, stop) = (state.n_claims, self.ended.child_token());
        let connection = Arc::clone(&places.connection);
        state.open.insert(stream, Open { claim: number, stop: stop.clone(), places });
        self.n_open.send_modify(|n| *n += 1);
        Ok(StreamClaim { stream, number, stop, connection })
    }

    /// Frees the stream of a claim, unless another connection has replaced it.
    pub(crate) fn release(&self, claim: &StreamClaim) {
        let mut state = self.state.lock();
        if state.open.get(&claim.stream).is_some_and(|open| open.claim == claim.number) {
            state.open.remove(&claim.stream);
        }
        state.idle_since = Instant::now();
        self.n_open.send_modify(|n| *n = n.saturating_sub(1));
    }

    /// Whether another connection has replaced that of the claim.
    pub(crate) fn is_replaced(&self, claim: &StreamClaim) -> bool {
        self.state.lock().open.get(&claim.stream).is_some_and(|open| open.claim != claim.number)
    }

    /// Ends all streams, now and later; the first reason counts, and is returned.
    pub(crate) fn end(&self, end: SessionEnd) -> SessionEnd {
        let end = *self.state.lock().end.get_or_insert(end);
        self.ended.cancel();
        end
    }

    /// As [`end`](Self::end), if no stream is open and nothing has ended the session before; says whether that is so.
    pub(crate) fn end_if_idle(&self, end: SessionEnd) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() || *self.n_open.borrow() > 0 {
            return false;
        }
        state.end = Some(end);
        self.ended.cancel();
        true
    }

    /// How the session ended, if it has.
    pub(crate) fn ended(&self) -> Option<SessionEnd> {
        self.state.lock().end
    }

    /// Since when no stream is open; `None` while one is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (*self.n_open.borrow() == 0).then_some(state.idle_since)
    }

    /// Returns when the session has ended.
    pub(crate) async fn until_ended(&self) {
        self.ended.cancelled().await;
    }

    /// Returns when a stream is open.
    pub(crate) async fn until_open(&self) {
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = self.n_open.subscribe().wait_for(|n| *n > 0).await;
    }

    /// Returns when no stream is open.
    pub(crate) async fn until_all_closed(&self) {
        let _ = self.n_open.subscribe().wait_for(|n| *n == 0).await;
    }
}
