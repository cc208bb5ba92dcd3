//! A connection: a byte stream whose incomplete data never ends like complete data.
//!
//! Both engines use this type and do not know the transport.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::TcpConnection;

/// A byte stream in both directions.
///
/// If it is dropped before it is [finished](Self::finish), it is reset, so that the peer cannot take incomplete data for
/// complete data.
#[derive(Debug)]
pub(crate) enum Connection {
    /// TCP, without encryption.
    Tcp(TcpConnection),
}

impl Connection {
    /// A TCP connection.
    pub(crate) fn tcp(socket: Arc<TcpStream>) -> Self {
        Self::Tcp(TcpConnection::new(socket))
    }

    /// The descriptor for `sendfile`; `None` if bytes must be transformed before they are sent.
    #[expect(clippy::unnecessary_wraps, reason = "an encrypted connection has none")]
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(tcp) => Some(tcp.as_fd()),
        }
    }

    /// Reads available bytes into `buffer`; 0 bytes mean the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if no bytes are available.
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

    /// Writes as much of `bytes` as fits into the send buffer.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the send buffer is full.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
        }
    }

    /// Waits until bytes or the end can be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.readable().await,
        }
    }

    /// Waits until bytes can be written.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.writable().await,
        }
    }

    /// Calls `write` whenever bytes can be written, until it does not return [`io::ErrorKind::WouldBlock`].
    ///
    /// # Cancel safety
    /// Cancel safe if `write` is.
    pub(crate) async fn write_with<T>(&self, write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(tcp) => tcp.async_io(Interest::WRITABLE, write).await,
        }
    }

    /// Ends the sending direction; dropping the connection afterwards loses nothing.
    ///
    /// The system continues to send until the peer has acknowledged nothing for `stall_timeout`.
    pub(crate) fn finish(&self, stall_timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.end(stall_timeout),
        }
    }
}
