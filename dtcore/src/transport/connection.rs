//! A connection: a byte stream whose incomplete data never ends like complete data.
//!
//! Both engines work on this type and know nothing of what carries the bytes.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{TcpConnection, drain_until_closed, read_when_ready};

/// A byte stream in both directions.
///
/// Dropped before it is [finished](Self::finish), it is reset, so that the peer cannot mistake what it got for all.
#[derive(Debug)]
pub(crate) enum Connection {
    /// TCP, without encryption.
    Tcp(TcpConnection),
}

impl Connection {
    /// Takes over a TCP connection.
    pub(crate) fn tcp(socket: Arc<TcpStream>) -> Self {
        Self::Tcp(TcpConnection::new(socket))
    }

    /// Holds `place` until it is closed.
    pub(crate) fn holding(mut self, place: impl std::fmt::Debug + Send + Sync + 'static) -> Self {
        match &mut self {
            Self::Tcp(tcp) => tcp.hold(Box::new(place)),
        }
        self
    }

    /// The descriptor into which the kernel can move the bytes of a file by itself; `None` where bytes must be transformed.
    #[expect(clippy::unnecessary_wraps, reason = "encrypted connections have none")]
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(tcp) => Some(tcp.as_fd()),
        }
    }

    /// Whether the peer runs on this machine, as far as its address shows it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_local(),
        }
    }

    /// Reads what is there into `buffer`; 0 is the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing is there.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_read(buffer),
        }
    }

    /// As [`try_read`](Self::try_read), into several buffers in turn.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub(crate) fn try_read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_read_vectored(buffers),
        }
    }

    /// Writes as much of `bytes` as there is room for.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
        }
    }

    /// As [`try_read`](Self::try_read), once there is something.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => read_when_ready(tcp, || tcp.try_read(buffer)).await,
        }
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.readable().await,
        }
    }

    /// Waits until there is room to write.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.writable().await,
        }
    }

    /// As [`try_write`](Self::try_write), whether the connection is reported as writable or not. If `more` follows at once, the
    /// bytes can share a segment with it.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.send(bytes, more),
        }
    }

    /// Calls `write` if there is room to write; that it reports [`io::ErrorKind::WouldBlock`] is noted for
    /// [`writable`](Self::writable).
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn try_write_with<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(tcp) => tcp.try_io(Interest::WRITABLE, write),
        }
    }

    /// Prepares the connection for frames and long data.
    pub(crate) fn expect_bulk_data(&self) {
        match self {
            Self::Tcp(tcp) => tcp.expect_bulk_data(),
        }
    }

    /// Ends the sending direction in order; from here on, dropping the connection loses nothing.
    ///
    /// The system continues to send until the peer has acknowledged nothing for `stall_timeout`.
    pub(crate) fn finish(&self, stall_timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.finish(stall_timeout),
        }
    }

    /// Reads and discards until the peer closes, within the limits of a lingering close.
    ///
    /// # Errors
    /// The connection broke: the peer may not have received everything.
    pub(crate) async fn linger(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => drain_until_closed(tcp, timeout).await,
        }
    }
}
