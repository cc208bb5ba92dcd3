//! Outputs of an embedding program: writers that come back, asynchronous writers, and streams.

use std::fmt;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::transfer::Transfer;
use crate::error::TransferError;
use crate::event::Report;

/// How many pieces wait between a transfer and an asynchronous writer or a stream.
const QUEUED: usize = 4;

/// The longest piece, in bytes.
const PIECE: usize = 256 << 10;

/// A writer that is lent to a transfer and comes back when that drops it.
pub(super) struct Lent<W> {
    writer: Option<W>,
    back: Option<Back<W>>,
}

/// Where something is returned to.
pub(super) struct Back<W>(oneshot::Sender<io::Result<W>>);

/// Something that comes back when a transfer has ended.
pub(super) struct Returned<W>(oneshot::Receiver<io::Result<W>>);

/// Lends a writer.
pub(super) fn lend<W>(writer: W) -> (Lent<W>, Returned<W>) {
    let (returned, back) = Returned::channel();
    (Lent { writer: Some(writer), back: Some(back) }, returned)
}

impl<W> Back<W> {
    pub(super) fn put(self, writer: io::Result<W>) {
        // An error only says that nobody waits for it.
        let _ = self.0.send(writer);
    }
}

impl<W> Returned<W> {
    pub(super) fn channel() -> (Self, Back<W>) {
        let (back, returned) = oneshot::channel();
        (Self(returned), Back(back))
    }

    /// Waits until it is back.
    pub(super) async fn wait(self) -> Result<W, TransferError> {
        let lost = |_| io::Error::other("the writer was lost");
        let returned = self.0.await.map_err(lost).and_then(|writer| writer);
        returned.map_err(|source| TransferError::local("write", "the output", 0, source))
    }
}

impl<W: Write> Write for Lent<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().map_or(Ok(0), |writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl<W> Drop for Lent<W> {
    fn drop(&mut self) {
        if let (Some(writer), Some(back)) = (self.writer.take(), self.back.take()) {
            back.put(Ok(writer));
        }
    }
}

/// The writing end of a bounded queue of pieces.
pub(super) struct Pipe(mpsc::Sender<Bytes>);

/// A bounded queue of pieces.
pub(super) fn pipe() -> (Pipe, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(QUEUED);
    (Pipe(sender), receiver)
}

/// A pipe to an asynchronous writer, and the future that copies to it and returns it.
pub(super) fn pipe_to<W>(writer: W) -> (Pipe, impl Future<Output = io::Result<W>>)
where
    W: AsyncWrite + Unpin,
{
    let (pipe, mut receiver) = pipe();
    let mut writer = writer;
    let copying = async move {
        while let Some(piece) = receiver.recv().await {
            writer.write_all(&piece).await?;
        }
        writer.flush().await?;
        Ok(writer)
    };
    (pipe, copying)
}

impl Write for Pipe {
    /// Blocks until there is room; this runs on the thread that reads a transfer in order.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
        let sent = self.0.blocking_send(Bytes::copy_from_slice(piece));
        sent.map(|()| piece.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A download as a stream of bytes, in order.
///
/// # Cancel safety
/// Dropping it cancels the transfer.
#[must_use = "a stream that is dropped is cancelled"]
pub struct ByteStream {
    pieces: mpsc::Receiver<Bytes>,
    /// Until its outcome was reported.
    transfer: Option<Transfer<Report>>,
}

impl ByteStream {
    pub(super) fn new(pieces: mpsc::Receiver<Bytes>, transfer: Transfer<Report>) -> Self {
        Self { pieces, transfer: Some(transfer) }
    }
}

impl Stream for ByteStream {
    type Item = Result<Bytes, TransferError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(piece) = std::task::ready!(self.pieces.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(piece)));
        }
        let Some(transfer) = &mut self.transfer else { return Poll::Ready(None) };
        let outcome = std::task::ready!(Pin::new(transfer).poll(cx));
        self.transfer = None;
        Poll::Ready(outcome.err().map(Err))
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteStream")
    }
}
