//! One stream of protocol 1: its connection, and the place of its part of the file.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::manifest::{ByteRange, StreamId};
use crate::num::to_u64;
use crate::sink::{FillError, Lease, Store};

/// How much is leased at once, in bytes: enough to make the cost of the calls vanish, few enough to share a thread fairly
/// between streams. Pieces of 1 and 4 MiB measured alike.
const PIECE: u64 = 1 << 20;

/// The same where it takes a buffer: with 255 streams 32 MiB in all.
const BUFFERED_PIECE: u64 = 128 << 10;

/// A stream and its part of the file.
pub(super) struct Part {
    id: StreamId,
    /// `None` once the part is complete: the server waits for the end of the connection.
    socket: Option<TcpStream>,
    store: Arc<dyn Store>,
    /// The offsets in the store between which bytes are committed; the beginning moves as they are handed on.
    committed: ByteRange,
    /// Where the part ends, if the size of the file is known.
    end: Option<u64>,
    lease: Option<Box<dyn Lease>>,
    received: u64,
    /// When bytes last arrived.
    last_progress: Instant,
}

/// Why a transfer cannot continue.
#[derive(Debug)]
pub(super) enum PartFault {
    /// A stream ended, or broke, before all its bytes had arrived.
    Lost { stream: u8, received: u64, reason: Option<io::Error> },
    /// The bytes could not be stored.
    Store(io::Error),
}

impl Part {
    /// A part that is received into `range` of `store`.
    pub(super) fn of_known_size(
        id: StreamId,
        socket: TcpStream,
        store: Arc<dyn Store>,
        range: ByteRange,
    ) -> Self {
        let socket = (!range.is_empty()).then_some(socket);
        Self { end: Some(range.end()), ..Self::new(id, socket, store, range.start()) }
    }

    /// A part that is received into a store of its own, until the stream ends.
    pub(super) fn of_unknown_size(id: StreamId, socket: TcpStream, store: Arc<dyn Store>) -> Self {
        Self::new(id, Some(socket), store, 0)
    }

    fn new(id: StreamId, socket: Option<TcpStream>, store: Arc<dyn Store>, start: u64) -> Self {
        let (committed, last_progress) = (ByteRange::new(start, start), Instant::now());
        Self { id, socket, store, committed, end: None, lease: None, received: 0, last_progress }
    }

    /// Whether bytes are still to arrive.
    pub(super) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// How many bytes arrived.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The store, and the bytes in it that were committed since the last call.
    pub(super) fn take_committed(&mut self) -> (&Arc<dyn Store>, ByteRange) {
        let taken = self.committed;
        self.committed = ByteRange::new(taken.end(), taken.end());
        (&self.store, taken)
    }

    /// Receives once, at most `limit` bytes; returns how many, 0 at the end of the part.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<usize, PartFault>> {
        loop {
            let Some(socket) = &self.socket else { return Poll::Ready(Ok(0)) };
            if let Err(error) = ready!(socket.poll_read_ready(cx)) {
                return Poll::Ready(Err(self.lost(Some(error))));
            }
            match self.receive(limit) {
                Ok(0) => return Poll::Ready(self.ended()),
                Ok(n) => {
                    self.received += to_u64(n);
                    self.last_progress = Instant::now();
                    let is_complete = self.end == Some(self.committed.end());
                    self.socket.take_if(|_| is_complete);
                    return Poll::Ready(Ok(n));
                }
                Err(FillError::Source(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that was sent more than it read resets instead of closing. Earlier bytes are as good.
                Err(FillError::Source(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(self.ended());
                }
                Err(FillError::Source(error)) => return Poll::Ready(Err(self.lost(Some(error)))),
                Err(FillError::Store(error)) => return Poll::Ready(Err(PartFault::Store(error))),
            }
        }
    }

    /// One call, straight into the space of the store.
    fn receive(&mut self, limit: usize) -> Result<usize, FillError> {
        let Some(socket) = &self.socket else { return Ok(0) };
        let lease = match &mut self.lease {
            Some(lease) => lease,
            none => {
                let piece = if self.store.is_buffered() { BUFFERED_PIECE } else { PIECE };
                let piece = ByteRange::with_len(self.committed.end(), piece);
                let piece = ByteRange::new(piece.start(), piece.end().min(self.end.unwrap_or(u64::MAX)));
                let taken = || FillError::Store(io::Error::other("the range is being written already"));
                none.insert(self.store.lease(piece).ok_or_else(taken)?)
            }
        };
        let n = lease.fill(&mut |space| {
            let len = space.len().min(limit);
            socket.try_read(space.get_mut(..len).unwrap_or_default())
        })?;
        if lease.remaining() == 0 {
            self.commit().map_err(FillError::Store)?;
        }
        Ok(n)
    }

    /// Makes the bytes received so far readable.
    fn commit(&mut self) -> io::Result<()> {
        let Some(mut lease) = self.lease.take() else { return Ok(()) };
        let n = to_u64(lease.received()?.len());
        lease.commit()?;
        self.committed = ByteRange::new(self.committed.start(), self.committed.end() + n);
        Ok(())
    }

    /// The stream ended: where the size of the file is not known, this says that the part is complete.
    fn ended(&mut self) -> Result<usize, PartFault> {
        if self.end.is_some() {
            return Err(self.lost(None));
        }
        self.commit().map_err(PartFault::Store)?;
        self.socket = None;
        Ok(0)
    }

    fn lost(&self, reason: Option<io::Error>) -> PartFault {
        PartFault::Lost { stream: self.id.byte(), received: self.received, reason }
    }

    /// Whether no data has arrived for `limit`, and none waits to be received either.
    pub(super) fn is_stalled(&self, limit: Duration) -> bool {
        let Some(socket) = &self.socket else { return false };
        let peek = || recv(socket, &mut [0], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        self.last_progress.elapsed() >= limit && matches!(peek(), Err(Errno::WOULDBLOCK))
    }
}
