//! A lane: one stream and the place its bytes go to.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::manifest::{ByteRange, StreamId};
use crate::sink::{FillError, Lease, Store};

/// How much is leased at once, in bytes: with 255 streams 32 MiB in all, and the cost of a system call is negligible.
const PIECE: u64 = 128 << 10;

/// Where a stream's bytes go.
pub(super) struct Space {
    store: Arc<dyn Store>,
    /// The offset of the first byte that is not committed.
    position: u64,
    /// Where the part ends, if that is known.
    end: Option<u64>,
    lease: Option<Box<dyn Lease>>,
}

impl Space {
    pub(super) fn new(store: Arc<dyn Store>, start: u64, end: Option<u64>) -> Self {
        Self { store, position: start, end, lease: None }
    }

    fn is_full(&self) -> bool {
        self.end == Some(self.position)
    }

    /// Receives once; returns how many bytes were received, and how many committed.
    fn fill(
        &mut self,
        source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<(usize, u64), FillError> {
        let lease = match &mut self.lease {
            Some(lease) => lease,
            none => {
                let end = self.position.saturating_add(PIECE).min(self.end.unwrap_or(u64::MAX));
                let lease = self.store.lease(ByteRange::new(self.position, end));
                let taken = || FillError::Store(io::Error::other("the range is being written already"));
                none.insert(lease.ok_or_else(taken)?)
            }
        };
        let n = lease.fill(source)?;
        let committed = if lease.remaining() == 0 { self.commit().map_err(FillError::Store)? } else { 0 };
        Ok((n, committed))
    }

    /// Commits the bytes received so far; returns how many.
    fn commit(&mut self) -> io::Result<u64> {
        let Some(mut lease) = self.lease.take() else { return Ok(0) };
        let n = u64::try_from(lease.received()?.len()).unwrap_or(u64::MAX);
        lease.commit()?;
        self.position = self.position.saturating_add(n);
        Ok(n)
    }
}

/// One stream and where its bytes go.
pub(super) struct Lane {
    pub(super) id: StreamId,
    stream: TcpStream,
    space: Space,
    received: u64,
    /// When bytes last came.
    last_progress: Instant,
    /// When it was last seen whether bytes are there.
    pub(super) looked_at: Instant,
}

/// What one look at a lane found.
pub(super) enum Step {
    /// So many bytes were received, and so many can be read now.
    Stored { received: u64, committed: u64 },
    /// All bytes of the lane were received, and so many more can be read now; if the size is not known, the end of the stream
    /// is the sign.
    Complete { committed: u64 },
    /// The stream ended before its range was full.
    CutOff,
}

impl Lane {
    pub(super) fn new(id: StreamId, stream: TcpStream, space: Space) -> Self {
        let now = Instant::now();
        Self { id, stream, space, received: 0, last_progress: now, looked_at: now }
    }

    /// How many bytes came on it.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Receives what is there, up to the most that one call takes, and not more than `limit` bytes, which is at least
    /// one unless the lane is full.
    pub(super) fn poll_step(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Result<Step, FillError>> {
        loop {
            if self.is_full() {
                return Poll::Ready(Ok(Step::Complete { committed: 0 }));
            }
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => {
                    self.looked_at = Instant::now();
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(FillError::Source(error))),
                Poll::Ready(Ok(())) => {}
            }
            match self.receive(limit) {
                Ok((0, _)) => return Poll::Ready(self.ended()),
                Ok((n, committed)) => {
                    let received = u64::try_from(n).unwrap_or(u64::MAX);
                    self.received = self.received.saturating_add(received);
                    self.last_progress = Instant::now();
                    self.looked_at = self.last_progress;
                    return Poll::Ready(Ok(Step::Stored { received, committed }));
                }
                Err(FillError::Source(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that was sent more than it read resets instead of closing. What came before is as good.
                Err(FillError::Source(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(self.ended());
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Whether nothing has come for `limit`, and nothing waits to be received either.
    pub(super) fn is_silent(&self, limit: Duration) -> bool {
        let peeked = || recv(&self.stream, &mut [0], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        self.last_progress.elapsed() >= limit && matches!(peeked(), Err(Errno::WOULDBLOCK))
    }

    /// Whether all bytes have come that have a place; a lane of unknown length has place for all.
    pub(super) fn is_full(&self) -> bool {
        self.space.is_full()
    }

    fn ended(&mut self) -> Result<Step, FillError> {
        if self.space.end.is_some() {
            return Ok(Step::CutOff);
        }
        Ok(Step::Complete { committed: self.space.commit().map_err(FillError::Store)? })
    }

    /// One receive call, straight into the store's space.
    fn receive(&mut self, limit: usize) -> Result<(usize, u64), FillError> {
        let stream = &self.stream;
        let mut source = |space: &mut [u8]| {
            let n_allowed = space.len().min(limit);
            let space = space.get_mut(..n_allowed).unwrap_or_default();
            // Through tokio, so that an empty socket is polled again only when bytes have come.
            stream.try_io(Interest::READABLE, || {
                let (_, n) = recv(stream, &mut *space, RecvFlags::DONTWAIT)?;
                Ok(n)
            })
        };
        self.space.fill(&mut source)
    }
}
