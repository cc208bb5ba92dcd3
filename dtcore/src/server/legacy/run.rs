//! Runs a transfer of protocol 1: accepts its connections until its streams are complete.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::stream::{self, ConnectionEnd};
use super::transfer::LegacyTransfer;
use crate::send::{StreamFailure, StreamRefusal};
use crate::server::admission::Permit;
use crate::server::event::{Direction, EndedTransfer, ServerEvent, TransferFailure};
use crate::transport::{Connection, accept};

/// How many connections beyond its streams a transfer holds; more wait in the listener's backlog.
const SPARE_CONNECTIONS: usize = 16;

/// How a transfer ended.
enum TransferEnd {
    Finished,
    Expired,
    Failed(TransferFailure),
}

/// Serves the transfer on `listener` until it ends, and closes everything that belongs to it.
pub(super) async fn run(transfer: Arc<LegacyTransfer>, listener: TcpListener, permit: Permit) {
    let mut connections = JoinSet::new();
    let end = serve(&transfer, &listener, &mut connections).await;
    drop(listener);
    if matches!(end, TransferEnd::Failed(TransferFailure::ShutDown)) {
        // The drain timeout aborts those that do not end by themselves.
        while connections.join_next().await.is_some() {}
    }
    transfer.aborted.cancel();
    connections.shutdown().await;
    // Before the event: an observer may send the next request at once.
    drop(permit);
    transfer.context.emit(last_event(&transfer, &end));
}

async fn serve(
    transfer: &Arc<LegacyTransfer>,
    listener: &TcpListener,
    connections: &mut JoinSet<ConnectionEnd>,
) -> TransferEnd {
    let expiry = transfer.context.options.transfer_expiry;
    let bound = usize::from(transfer.split.streams().value()) + SPARE_CONNECTIONS;
    let expired = tokio::time::sleep(expiry);
    tokio::pin!(expired);
    loop {
        let accepting = accept(listener, |error| transfer.context.emit_accept_failed(&error));
        tokio::select! {
            biased;
            () = transfer.context.tasks().draining.cancelled() => return TransferEnd::Failed(TransferFailure::ShutDown),
            Some(end) = connections.join_next() => match end {
                Ok(ConnectionEnd::Complete) if transfer.slots.n_missing() == 0 => return TransferEnd::Finished,
                Ok(ConnectionEnd::Failed(StreamFailure::SourceChanged)) => {
                    return TransferEnd::Failed(TransferFailure::SourceChanged);
                }
                Ok(ConnectionEnd::Complete | ConnectionEnd::Failed(_)) => {
                    expired.as_mut().reset(Instant::now() + expiry);
                }
                Ok(ConnectionEnd::Refused) | Err(_) => {}
            },
            () = &mut expired => {
                if transfer.slots.n_open() == 0 {
                    return TransferEnd::Expired;
                }
                expired.as_mut().reset(Instant::now() + expiry);
            }
            (socket, peer) = accepting, if connections.len() < bound => {
                admit(transfer, socket, peer, connections);
            }
        }
    }
}

fn admit(
    transfer: &Arc<LegacyTransfer>,
    socket: TcpStream,
    peer: SocketAddr,
    connections: &mut JoinSet<ConnectionEnd>,
) {
    let refused =
        |reason| transfer.context.emit(ServerEvent::StreamRefused { transfer: transfer.id, peer, reason });
    if peer.ip() != transfer.peer.ip() {
        drop(socket);
        return refused(StreamRefusal::ForeignAddress);
    }
    // Without a place it is dropped, which resets it: the rightful client must not take it for an empty stream.
    let connection = Connection::tcp(Arc::new(socket));
    let Some(place) = transfer.context.limits.data_connections.admit(peer.ip()) else {
        drop(connection);
        return refused(StreamRefusal::NoCapacity);
    };
    connections.spawn(stream::serve(Arc::clone(transfer), connection, peer, place));
}

fn last_event(transfer: &LegacyTransfer, end: &TransferEnd) -> ServerEvent {
    let missing = transfer.slots.n_missing();
    let ended = EndedTransfer {
        transfer: transfer.id,
        direction: Direction::Download,
        peer: transfer.peer,
        path: transfer.path.clone(),
        size: transfer.split.size(),
        bytes: transfer.bytes_sent.load(Ordering::Relaxed),
        elapsed: transfer.started.elapsed(),
    };
    match end {
        TransferEnd::Failed(reason) if missing > 0 => ended.failed(*reason),
        TransferEnd::Expired => ended.expired(missing, transfer.context.options.transfer_expiry),
        TransferEnd::Finished | TransferEnd::Failed(_) => {
            EndedTransfer { bytes: ended.size, ..ended }.finished()
        }
    }
}
