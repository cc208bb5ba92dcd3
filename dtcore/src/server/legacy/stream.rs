//! One connection to a transfer's port: its id, its part of the file, its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::manifest::{ByteRange, StreamId};
use crate::send::{BodySender, Prefetcher};
use crate::server::admission::Permit;
use crate::server::event::{ServerEvent, StreamFailure, StreamRefusal};
use crate::server::legacy::transfer::Transfer;
use crate::transport::TcpConnection;
use crate::transport::{PeerClose, drain_until_closed};

/// How much is sent in one call: it keeps a thread for about a third of a millisecond, so others get their turn.
const CHUNK: u64 = 1 << 20;

/// How long a client may take to close that has nothing more to receive.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How many surplus bytes of a client are discarded before its connection is closed on it.
const LINGER_BYTES: usize = 64 << 10;

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamEnd {
    /// It never was a stream.
    Refused,
    /// Its stream is complete.
    Complete,
    /// Its stream broke, and is free for another connection.
    Failed(StreamFailure),
}

/// Serves one connection from its id to its end; it has its place as long.
pub(super) async fn serve(
    transfer: Arc<Transfer>,
    socket: TcpConnection,
    peer: SocketAddr,
    _place: Permit,
) -> StreamEnd {
    let refuse = |reason| {
        transfer.emit(ServerEvent::StreamRefused { transfer: transfer.id(), peer, reason });
        StreamEnd::Refused
    };
    let Some(byte) = read_id(&transfer, &socket).await else {
        return refuse(StreamRefusal::NoId);
    };
    let claim = match StreamGuard::new(&transfer, byte) {
        Ok(claim) => claim,
        Err(reason) => {
            let end = refuse(reason);
            // An empty stream is what the original sends for an id it does not have.
            let _ = finish(&transfer, socket, LINGER_TIMEOUT).await;
            return end;
        }
    };
    let (transfer_id, stream) = (transfer.id(), claim.stream);
    let mut sent = 0;
    let failed = |reason, sent| {
        let event = ServerEvent::StreamFailed { transfer: transfer_id, stream, bytes: sent, reason };
        transfer.emit(event);
        StreamEnd::Failed(reason)
    };
    let outcome = tokio::select! {
        biased;
        () = transfer.aborted() => Err(StreamFailure::Aborted),
        outcome = send_in_turn(&transfer, &socket, stream, &mut sent) => outcome,
    };
    if let Err(reason) = outcome {
        return failed(reason, sent);
    }
    // The last bytes may still be in the kernel's hands: a client that breaks before they arrive may connect again.
    let patience = transfer.options().stall_timeout.saturating_add(LINGER_TIMEOUT);
    if finish(&transfer, socket, patience).await == PeerClose::Broken {
        return failed(StreamFailure::Disconnected, sent);
    }
    claim.complete();
    transfer.emit(ServerEvent::StreamFinished { transfer: transfer_id, stream, bytes: sent });
    StreamEnd::Complete
}

/// The byte by which the connection names its stream.
async fn read_id(transfer: &Transfer, socket: &TcpStream) -> Option<u8> {
    let read = async {
        let mut id = [0];
        loop {
            socket.readable().await.ok()?;
            match socket.try_read(&mut id) {
                Ok(0) => return None,
                Ok(_) => return id.first().copied(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    };
    tokio::select! {
        biased;
        () = transfer.draining() => None,
        id = timeout(transfer.options().request_timeout, read) => id.ok().flatten(),
    }
}

/// Waits for a place among the streams that are sent at once, then sends the stream's part.
async fn send_in_turn(
    transfer: &Transfer,
    socket: &TcpStream,
    stream: StreamId,
    sent: &mut u64,
) -> Result<(), StreamFailure> {
    let turn = timeout(transfer.options().stall_timeout, transfer.turn()).await;
    let Ok(Ok(_turn)) = turn else { return Err(StreamFailure::NoCapacity) };
    let source = transfer.source();
    if !source.is_unchanged() {
        return Err(StreamFailure::SourceChanged);
    }
    let range = transfer.split().range(stream);
    let mut prefetcher = Prefetcher::new(Arc::clone(source));
    let mut body_sender = BodySender::new(source, socket, range, transfer.options().stall_timeout);
    let mut chunk = chunk_at(range.start(), range);
    while !chunk.is_empty() {
        let next = chunk_at(chunk.end(), range);
        let ensure_cached = timeout(transfer.options().stall_timeout, prefetcher.ensure_cached(chunk, next));
        ensure_cached.await.map_err(|_| StreamFailure::SourceUnreadable)?;
        let mut left = chunk.len();
        while left > 0 {
            let n = body_sender.send(chunk.end()).await?;
            left = left.saturating_sub(n);
            *sent = sent.saturating_add(n);
            transfer.add_bytes_sent(n);
        }
        chunk = next;
    }
    // Before the FIN, not after it: the client takes that for the end of the right bytes.
    if source.is_unchanged() { Ok(()) } else { Err(StreamFailure::SourceChanged) }
}

/// The chunk of `range` that begins at `offset`; empty at its end.
fn chunk_at(offset: u64, range: ByteRange) -> ByteRange {
    ByteRange::new(offset, offset.saturating_add(CHUNK).min(range.end()))
}

/// Ends a conversation in order: a FIN, then patience until the client ends it too.
///
/// How much the client has not acknowledged yet only unsafe calls tell. Instead, the kernel breaks the connection
/// when nothing is acknowledged for the stall timeout, so with a patience above that, what is not broken at its end
/// has been received, or was still being received lately: a link that takes longer than that for the bytes in the
/// kernel (some MB at most) can lose the last ones unnoticed. So it is with a client that ended its side early.
async fn finish(transfer: &Transfer, socket: TcpConnection, patience: Duration) -> PeerClose {
    if socket.end(transfer.options().stall_timeout).is_err() {
        return PeerClose::Broken;
    }
    tokio::select! {
        biased;
        // The FIN is on its way behind the last byte; the system goes on without us.
        () = transfer.draining() => PeerClose::Open,
        farewell = drain_until_closed(&socket, patience, LINGER_BYTES) => farewell,
    }
}

/// A stream that this connection serves; dropping it frees the stream for another.
struct StreamGuard<'a> {
    transfer: &'a Transfer,
    stream: StreamId,
    completed: bool,
}

impl<'a> StreamGuard<'a> {
    fn new(transfer: &'a Transfer, byte: u8) -> Result<Self, StreamRefusal> {
        let stream = transfer.slots().claim(byte)?;
        Ok(Self { transfer, stream, completed: false })
    }

    fn complete(mut self) {
        self.completed = true;
        self.transfer.slots().complete(self.stream);
    }
}

impl Drop for StreamGuard<'_> {
    fn drop(&mut self) {
        if !self.completed {
            self.transfer.slots().release(self.stream);
        }
    }
}
