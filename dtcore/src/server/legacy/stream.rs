//! One connection to a transfer's port: its id, its part of the file, its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::transfer::LegacyTransfer;
use crate::manifest::{ByteRange, StreamId};
use crate::send::{BodySender, Prefetcher, StreamFailure, StreamRefusal};
use crate::server::admission::Permit;
use crate::server::event::ServerEvent;
use crate::transport::{Connection, LINGER_TIMEOUT};

/// How much is sent in one call: it occupies a thread for about a third of a millisecond, so other tasks get their turn.
const CHUNK: u64 = 1 << 20;

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConnectionEnd {
    /// It never was a stream.
    Refused,
    /// Its stream is complete.
    Complete,
    /// Its stream broke, and is free for another connection.
    Failed(StreamFailure),
}

/// Serves one connection from its id to its end; it holds its place until then.
pub(super) async fn serve(
    transfer: Arc<LegacyTransfer>,
    connection: Connection,
    peer: SocketAddr,
    _place: Permit,
) -> ConnectionEnd {
    let refuse = |reason| {
        transfer.context.emit(ServerEvent::StreamRefused { transfer: transfer.id, peer, reason });
        ConnectionEnd::Refused
    };
    let Some(byte) = read_id(&transfer, &connection).await else {
        return refuse(StreamRefusal::NoId);
    };
    let claim = match transfer.slots.claim(byte) {
        Ok(claim) => claim,
        Err(reason) => {
            let end = refuse(reason);
            // An empty stream is what the original sends for an id it does not have.
            let _ = finish(&transfer, connection, LINGER_TIMEOUT).await;
            return end;
        }
    };
    let (transfer_id, stream) = (transfer.id, claim.stream);
    let mut sent = 0;
    let failed = |reason, sent| {
        let event = ServerEvent::StreamFailed { transfer: transfer_id, stream, bytes: sent, reason };
        transfer.context.emit(event);
        ConnectionEnd::Failed(reason)
    };
    let outcome = tokio::select! {
        biased;
        () = transfer.aborted.cancelled() => Err(StreamFailure::Aborted),
        outcome = send_in_turn(&transfer, &connection, stream, &mut sent) => outcome,
    };
    if let Err(reason) = outcome {
        return failed(reason, sent);
    }
    // The kernel may still have the last bytes: a client that breaks before they arrive may connect again.
    let patience = transfer.context.options.stall_timeout + LINGER_TIMEOUT;
    if finish(&transfer, connection, patience).await.is_err() {
        return failed(StreamFailure::Disconnected, sent);
    }
    claim.complete();
    transfer.context.emit(ServerEvent::StreamFinished { transfer: transfer_id, stream, bytes: sent });
    ConnectionEnd::Complete
}

/// The byte by which the connection names its stream.
async fn read_id(transfer: &LegacyTransfer, connection: &Connection) -> Option<u8> {
    let read = async {
        let mut id = [0];
        let n = connection.read(&mut id).await.ok()?;
        id.get(..n)?.first().copied()
    };
    tokio::select! {
        biased;
        () = transfer.context.tasks().draining.cancelled() => None,
        id = timeout(transfer.context.options.request_timeout, read) => id.ok().flatten(),
    }
}

/// Waits for a place among the streams that are sent at once, then sends the stream's part.
async fn send_in_turn(
    transfer: &LegacyTransfer,
    connection: &Connection,
    stream: StreamId,
    sent: &mut u64,
) -> Result<(), StreamFailure> {
    let stall_timeout = transfer.context.options.stall_timeout;
    let turn = timeout(stall_timeout, transfer.context.limits.streams.acquire()).await;
    let Ok(Ok(_turn)) = turn else { return Err(StreamFailure::NoCapacity) };
    let source = &transfer.source;
    if !source.is_unchanged() {
        return Err(StreamFailure::SourceChanged);
    }
    let range = transfer.split.range(stream);
    let mut prefetcher = Prefetcher::new(Arc::clone(source));
    let mut body = BodySender::new(source, connection, range, stall_timeout);
    let mut chunk = chunk_at(range.start(), range);
    while !chunk.is_empty() {
        let next = chunk_at(chunk.end(), range);
        let caching = timeout(stall_timeout, prefetcher.ensure_cached(chunk, next));
        caching.await.map_err(|_| StreamFailure::SourceUnreadable)?;
        while body.position() < chunk.end() {
            let n = body.send(chunk.end()).await?;
            *sent += n;
            transfer.add_bytes_sent(n);
        }
        chunk = next;
    }
    // Before the FIN, which the client takes for the end of the right bytes.
    if source.is_unchanged() { Ok(()) } else { Err(StreamFailure::SourceChanged) }
}

/// The chunk of `range` that begins at `offset`; empty at its end.
fn chunk_at(offset: u64, range: ByteRange) -> ByteRange {
    ByteRange::new(offset, range.end().min(offset + CHUNK))
}

/// Ends a connection in order: a FIN, then the client's end within `timeout`.
///
/// Only unsafe calls report how much the client has not acknowledged yet. Instead, the kernel breaks the connection
/// when nothing is acknowledged for the stall timeout, so after a longer wait a connection that is not broken
/// has received everything, or was still receiving lately: a link that takes longer than that for the bytes in the
/// kernel (some MB at most) can lose the last ones unnoticed. The same holds for a client that ended its side early.
async fn finish(transfer: &LegacyTransfer, connection: Connection, patience: Duration) -> io::Result<()> {
    connection.finish(transfer.context.options.stall_timeout)?;
    tokio::select! {
        biased;
        // The FIN is on its way after the last byte; the kernel continues alone.
        () = transfer.context.tasks().draining.cancelled() => Ok(()),
        closed = connection.linger(patience) => closed,
    }
}
