//! A transfer of protocol 1: a port of its own, for the address that asked, until its streams are complete.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Object;
use crate::manifest::StaticSplit;
use crate::server::admission::Permit;
use crate::server::event::{ServerEvent, StreamFailure, StreamRefusal, TransferFailure, TransferId};
use crate::server::legacy::slots::Slots;
use crate::server::legacy::stream::{self, StreamEnd};
use crate::server::{ServerOptions, Shared};
use crate::transport::{TcpConnection, accept};

/// How many connections beyond its streams a transfer holds; the rest wait in the listener's backlog.
const SPARE_CONNECTIONS: usize = 16;

/// What all connections of a transfer share.
#[derive(Debug)]
pub(crate) struct Transfer {
    shared: Arc<Shared>,
    id: TransferId,
    client_key: IpAddr,
    source: Arc<dyn Object>,
    split: StaticSplit,
    slots: Mutex<Slots>,
    aborted: CancellationToken,
    granted: Instant,
    bytes_sent: AtomicU64,
}

/// How a transfer's conversation came to its end.
enum SessionEnd {
    Finished,
    Expired,
    Failed(TransferFailure),
}

impl Transfer {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        id: TransferId,
        client_key: SocketAddr,
        source: Arc<dyn Object>,
        split: StaticSplit,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            id,
            client_key: client_key.ip(),
            source,
            split,
            slots: Mutex::new(Slots::new(split.streams())),
            aborted: shared.aborted.child_token(),
            granted: Instant::now(),
            bytes_sent: AtomicU64::new(0),
        }
    }

    /// Serves the transfer on `listener` until it ends, and closes everything that belongs to it.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, place: Permit) {
        let mut connections = JoinSet::new();
        let session_end = self.serve(&listener, &mut connections).await;
        drop(listener);
        if matches!(session_end, SessionEnd::Failed(TransferFailure::ShutDown)) {
            // The drain timeout aborts those that do not end by themselves.
            while connections.join_next().await.is_some() {}
        }
        self.aborted.cancel();
        connections.shutdown().await;
        // Whoever sees the event may ask again at once.
        drop(place);
        self.emit(self.last_event(&session_end));
    }

    async fn serve(
        self: &Arc<Self>,
        listener: &TcpListener,
        connections: &mut JoinSet<StreamEnd>,
    ) -> SessionEnd {
        let expiry = self.options().transfer_expiry;
        let bound = usize::from(self.split.streams().value()) + SPARE_CONNECTIONS;
        let expired = tokio::time::sleep(expiry);
        tokio::pin!(expired);
        loop {
            let accepting = accept(listener, |error| self.shared.accept_failed(&error));
            tokio::select! {
                biased;
                () = self.draining() => return SessionEnd::Failed(TransferFailure::ShutDown),
                Some(end) = connections.join_next() => match end {
                    Ok(StreamEnd::Complete) if self.slots().n_missing() == 0 => return SessionEnd::Finished,
                    Ok(StreamEnd::Failed(StreamFailure::SourceChanged)) => {
                        return SessionEnd::Failed(TransferFailure::SourceChanged);
                    }
                    Ok(StreamEnd::Complete | StreamEnd::Failed(_)) => {
                        expired.as_mut().reset(Instant::now() + expiry);
                    }
                    Ok(StreamEnd::Refused) | Err(_) => {}
                },
                () = &mut expired => {
                    if self.slots().n_serving() == 0 {
                        return SessionEnd::Expired;
                    }
                    expired.as_mut().reset(Instant::now() + expiry);
                }
                (socket, peer) = accepting, if connections.len() < bound => {
                    self.admit(socket, peer, connections);
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr, connections: &mut JoinSet<StreamEnd>) {
        let refused = |reason| self.emit(ServerEvent::StreamRefused { transfer: self.id, peer, reason });
        if peer.ip() != self.client_key {
            drop(socket);
            return refused(StreamRefusal::ForeignAddress);
        }
        // Where there is no place, dropping it resets it: a client that is in its right must not take it for empty.
        let socket = TcpConnection::new(Arc::new(socket));
        let Some(place) = self.shared.data_connections.admit(peer.ip()) else {
            drop(socket);
            return refused(StreamRefusal::NoCapacity);
        };
        connections.spawn(stream::serve(Arc::clone(self), socket, peer, place));
    }

    fn last_event(&self, session_end: &SessionEnd) -> ServerEvent {
        let (transfer, missing) = (self.id, self.slots().n_missing());
        match session_end {
            SessionEnd::Failed(reason) if missing > 0 => {
                ServerEvent::TransferFailed { transfer, reason: *reason }
            }
            SessionEnd::Expired => ServerEvent::TransferExpired {
                transfer,
                missing,
                bytes: self.bytes_sent.load(Ordering::Relaxed),
                idle: self.options().transfer_expiry,
            },
            SessionEnd::Finished | SessionEnd::Failed(_) => ServerEvent::TransferFinished {
                transfer,
                bytes: self.split.size(),
                elapsed: self.granted.elapsed(),
            },
        }
    }

    /// The event that announces the transfer on `port`.
    pub(crate) fn started(&self, client_key: SocketAddr, path: std::path::PathBuf, port: u16) -> ServerEvent {
        ServerEvent::TransferStarted {
            transfer: self.id,
            protocol: 1,
            peer: client_key,
            path,
            size: self.split.size(),
            streams: self.split.streams(),
            port,
        }
    }

    pub(super) fn id(&self) -> TransferId {
        self.id
    }

    pub(super) fn source(&self) -> &Arc<dyn Object> {
        &self.source
    }

    pub(super) fn split(&self) -> StaticSplit {
        self.split
    }

    pub(super) fn options(&self) -> &ServerOptions {
        &self.shared.options
    }

    pub(super) fn add_bytes_sent(&self, n: u64) {
        self.bytes_sent.fetch_add(n, Ordering::Relaxed);
        self.shared.stats.add_bytes_sent(n);
    }

    pub(super) fn emit(&self, event: ServerEvent) {
        self.shared.emit(event);
    }

    /// The slots; the lock is never held across a wait.
    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among the streams that are sent at once.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.shared.turns).acquire_owned().await
    }

    /// Ends when the server begins to shut down.
    pub(super) async fn draining(&self) {
        self.shared.draining.cancelled().await;
    }

    /// Ends when this transfer or the server is given up.
    pub(super) async fn aborted(&self) {
        self.aborted.cancelled().await;
    }
}
