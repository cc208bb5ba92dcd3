//! A connection: a byte stream whose incomplete data never ends like complete data.
//!
//! Both engines work on this type and know nothing of what carries the bytes.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::TcpConnection;

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

    /// The descriptor into which the kernel can move the bytes of a file by itself; `None` where bytes must be transformed.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(tcp) => Some(tcp.as_fd()),
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

    /// Tries `write` whenever there is room, until it does not say [`io::ErrorKind::WouldBlock`].
    ///
    /// # Cancel safety
    /// Cancel safe if `write` is.
    pub(crate) async fn write_with<T>(&self, write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(tcp) => tcp.async_io(Interest::WRITABLE, write).await,
        }
    }

    /// Ends the sending direction in order; from here on, dropping the connection loses nothing.
    ///
    /// The system continues to send until the peer has acknowledged nothing for `stall_timeout`.
    pub(crate) fn finish(&self, stall_timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.end(stall_timeout),
        }
    }
}
