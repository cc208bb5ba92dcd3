//! A transfer of protocol 1: a port of its own, for the client's address, until its streams are complete.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::slots::Slots;
use super::stream::{self, ConnectionEnd};
use crate::backend::Object;
use crate::manifest::StaticSplit;
use crate::send::{StreamFailure, StreamRefusal};
use crate::server::ServerContext;
use crate::server::admission::Permit;
use crate::server::event::{ServerEvent, TransferFailure, TransferId};
use crate::transport::{Connection, accept};

/// How many connections beyond its streams a transfer holds; more wait in the listener's backlog.
const SPARE_CONNECTIONS: usize = 16;

/// What all connections of a transfer share.
#[derive(Debug)]
pub(super) struct LegacyTransfer {
    pub(super) context: Arc<ServerContext>,
    pub(super) id: TransferId,
    /// The client; streams must be from its IP address.
    pub(super) peer: SocketAddr,
    pub(super) path: PathBuf,
    pub(super) source: Arc<dyn Object>,
    pub(super) split: StaticSplit,
    pub(super) slots: Slots,
    /// Cancelled when this transfer or the server is aborted.
    pub(super) aborted: CancellationToken,
    pub(super) started: Instant,
    pub(super) bytes_sent: AtomicU64,
}

/// How a transfer ended.
enum TransferEnd {
    Finished,
    Expired,
    Failed(TransferFailure),
}

impl LegacyTransfer {
    /// Serves the transfer on `listener` until it ends, and closes everything that belongs to it.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener, permit: Permit) {
        let mut connections = JoinSet::new();
        let end = self.serve(&listener, &mut connections).await;
        drop(listener);
        if matches!(end, TransferEnd::Failed(TransferFailure::ShutDown)) {
            // The drain timeout aborts those that do not end by themselves.
            while connections.join_next().await.is_some() {}
        }
        self.aborted.cancel();
        connections.shutdown().await;
        // Before the event: an observer may send the next request at once.
        drop(permit);
        self.context.emit(self.last_event(&end));
    }

    async fn serve(
        self: &Arc<Self>,
        listener: &TcpListener,
        connections: &mut JoinSet<ConnectionEnd>,
    ) -> TransferEnd {
        let expiry = self.context.options.transfer_expiry;
        let bound = usize::from(self.split.streams().value()) + SPARE_CONNECTIONS;
        let expired = tokio::time::sleep(expiry);
        tokio::pin!(expired);
        loop {
            let accepting = accept(listener, |error| self.context.emit_accept_failed(&error));
            tokio::select! {
                biased;
                () = self.context.tasks().draining.cancelled() => return TransferEnd::Failed(TransferFailure::ShutDown),
                Some(end) = connections.join_next() => match end {
                    Ok(ConnectionEnd::Complete) if self.slots.n_missing() == 0 => return TransferEnd::Finished,
                    Ok(ConnectionEnd::Failed(StreamFailure::SourceChanged)) => {
                        return TransferEnd::Failed(TransferFailure::SourceChanged);
                    }
                    Ok(ConnectionEnd::Complete | ConnectionEnd::Failed(_)) => {
                        expired.as_mut().reset(Instant::now() + expiry);
                    }
                    Ok(ConnectionEnd::Refused) | Err(_) => {}
                },
                () = &mut expired => {
                    if self.slots.n_open() == 0 {
                        return TransferEnd::Expired;
                    }
                    expired.as_mut().reset(Instant::now() + expiry);
                }
                (socket, peer) = accepting, if connections.len() < bound => {
                    self.admit(socket, peer, connections);
                }
            }
        }
    }

    fn admit(
        self: &Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        connections: &mut JoinSet<ConnectionEnd>,
    ) {
        let refused =
            |reason| self.context.emit(ServerEvent::StreamRefused { transfer: self.id, peer, reason });
        if peer.ip() != self.peer.ip() {
            drop(socket);
            return refused(StreamRefusal::ForeignAddress);
        }
        // Without a place it is dropped, which resets it: the rightful client must not take it for an empty stream.
        let connection = Connection::tcp(Arc::new(socket));
        let Some(place) = self.context.limits.data_connections.admit(peer.ip()) else {
            drop(connection);
            return refused(StreamRefusal::NoCapacity);
        };
        connections.spawn(stream::serve(Arc::clone(self), connection, peer, place));
    }

    fn last_event(&self, end: &TransferEnd) -> ServerEvent {
        let (transfer, missing) = (self.id, self.slots.n_missing());
        match end {
            TransferEnd::Failed(reason) if missing > 0 => {
                ServerEvent::TransferFailed { transfer, reason: *reason }
            }
            TransferEnd::Expired => ServerEvent::TransferExpired {
                transfer,
                missing,
                bytes: self.bytes_sent.load(Ordering::Relaxed),
                idle: self.context.options.transfer_expiry,
            },
            TransferEnd::Finished | TransferEnd::Failed(_) => ServerEvent::TransferFinished {
                transfer,
                peer: self.peer,
                path: self.path.clone(),
                size: self.split.size(),
                bytes: self.split.size(),
                elapsed: self.started.elapsed(),
            },
        }
    }

    pub(super) fn add_bytes_sent(&self, n: u64) {
        self.bytes_sent.fetch_add(n, Ordering::Relaxed);
        self.context.stats.bytes_sent.fetch_add(n, Ordering::Relaxed);
    }
}
