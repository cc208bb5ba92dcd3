//! A lane: one stream and the place its bytes go to.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::manifest::StreamId;
use crate::sink::{FillError, GrowingWriter, Writer};

/// Where a stream's bytes go.
pub(super) enum Space {
    /// Into a range of known length; `None` if that is empty.
    Fixed(Option<Box<dyn Writer>>),
    /// Into a store of its own, as long as bytes come.
    Growing(GrowingWriter),
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
    /// So many bytes were stored.
    Stored(u64),
    /// All bytes of the lane have come; with a size never told, the stream's end says so.
    Complete,
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
                return Poll::Ready(Ok(Step::Complete));
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
                Ok(0) => return Poll::Ready(Ok(self.ended())),
                Ok(n) => {
                    let n = u64::try_from(n).unwrap_or(u64::MAX);
                    self.received = self.received.saturating_add(n);
                    self.last_progress = Instant::now();
                    self.looked_at = self.last_progress;
                    return Poll::Ready(Ok(Step::Stored(n)));
                }
                Err(FillError::Source(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that was sent more than it read resets instead of closing. What came before is as good.
                Err(FillError::Source(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(Ok(self.ended()));
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
        match &self.space {
            Space::Fixed(writer) => writer.as_ref().is_none_or(|writer| writer.remaining() == 0),
            Space::Growing(_) => false,
        }
    }

    fn ended(&self) -> Step {
        match self.space {
            Space::Fixed(_) => Step::CutOff,
            Space::Growing(_) => Step::Complete,
        }
    }

    /// One receive call, straight into the store's space.
    fn receive(&mut self, limit: usize) -> Result<usize, FillError> {
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
        match &mut self.space {
            Space::Fixed(None) => Ok(0),
            Space::Fixed(Some(writer)) => writer.fill(&mut source),
            Space::Growing(writer) => writer.fill(&mut source),
        }
    }
}
