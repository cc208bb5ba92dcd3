//! A connection as the HTTP parser sees it: some bytes are read again, and the answer can be held back.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::transport::shut_down_sending;

/// Reads `first`, then the socket; writes to the socket, or into memory.
///
/// The socket is shared, so that its owner can watch it and close it in order, however the HTTP conversation in between
/// ends.
#[derive(Debug)]
pub(crate) struct Rewind {
    first: Bytes,
    socket: Arc<TcpStream>,
    /// Whether what is written is held back, to be sent together with what follows it.
    hold: Arc<AtomicBool>,
    held: Vec<u8>,
}

impl Rewind {
    pub(crate) fn new(first: Bytes, socket: Arc<TcpStream>, hold: Arc<AtomicBool>) -> Self {
        Self { first, socket, hold, held: Vec::new() }
    }

    /// What was not read again, and what was written and held back.
    pub(crate) fn into_rest(self) -> (Bytes, Vec<u8>) {
        (self.first, self.held)
    }
}

impl AsyncRead for Rewind {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.has_remaining() {
            let n = self.first.len().min(into.remaining());
            into.put_slice(&self.first.split_to(n));
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.poll_read_ready(context))?;
            match self.socket.try_read(into.initialize_unfilled()) {
                Ok(n) => {
                    into.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Rewind {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.hold.load(Ordering::Relaxed) {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            ready!(self.socket.poll_write_ready(context))?;
            match self.socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shut_down_sending(&self.socket))
    }
}
