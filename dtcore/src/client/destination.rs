//! Outputs of an embedding program: writers that are returned, asynchronous writers, and streams.

use std::fmt;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::transfer::{CancelHandle, Transfer};
use crate::error::TransferError;
use crate::event::{Events, Report};
use crate::failure::Failure;

/// What messages call a writer of the caller's.
pub(super) const OUTPUT: &str = "the output";

/// How many pieces wait between a transfer and an asynchronous writer or a stream.
const QUEUED: usize = 4;

/// The longest piece, in bytes.
const PIECE: usize = 256 << 10;

/// A writer that is lent to a transfer and returned when that drops it.
pub(super) struct LentWriter<W> {
    writer: Option<W>,
    owner: Option<oneshot::Sender<io::Result<W>>>,
}

/// A writer that will be returned.
pub(super) struct Returned<W>(oneshot::Receiver<io::Result<W>>);

/// Lends a writer.
pub(super) fn lend<W>(writer: W) -> (LentWriter<W>, Returned<W>) {
    let (owner, returned) = oneshot::channel();
    (LentWriter { writer: Some(writer), owner: Some(owner) }, Returned(returned))
}

impl<W> Returned<W> {
    /// The outcome of the transfer with the writer, which it has dropped if it succeeded.
    pub(super) async fn with(mut self, outcome: Result<Report, Failure>) -> Result<(Report, W), Failure> {
        match outcome {
            Ok(report) => match self.0.await {
                Ok(Ok(writer)) => Ok((report, writer)),
                Ok(Err(error)) => Err(write_failure(error)),
                Err(_) => Err(write_failure(io::Error::other("the writer was lost"))),
            },
            // The panic of a writer ends the thread that wrote, which is all that the transfer itself knows.
            Err(failure) => match self.0.try_recv() {
                Ok(Err(panicked)) => Err(write_failure(panicked)),
                Ok(Ok(_)) | Err(_) => Err(failure),
            },
        }
    }
}

impl<W: Write> Write for LentWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().map_or(Ok(0), |writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl<W> Drop for LentWriter<W> {
    fn drop(&mut self) {
        if let (Some(writer), Some(owner)) = (self.writer.take(), self.owner.take()) {
            let panicked = || io::Error::other("the writer panicked");
            // An error only says that nobody waits for it.
            let _ = owner.send(if thread::panicking() { Err(panicked()) } else { Ok(writer) });
        }
    }
}

/// The error of a writer.
fn write_failure(error: io::Error) -> Failure {
    Failure::local("write", OUTPUT, 0, error)
}

/// The writing end of a bounded queue of pieces.
pub(super) struct Pipe(mpsc::Sender<Bytes>);

/// The reading end of a bounded queue of pieces.
pub(super) type Pieces = mpsc::Receiver<Bytes>;

/// A bounded queue of pieces.
pub(super) fn pipe() -> (Pipe, Pieces) {
    let (sender, receiver) = mpsc::channel(QUEUED);
    (Pipe(sender), receiver)
}

/// Writes all pieces to `writer`, flushes it and returns it.
pub(super) async fn copy<W: AsyncWrite + Unpin>(mut pieces: Pieces, mut writer: W) -> Result<W, Failure> {
    while let Some(piece) = pieces.recv().await {
        writer.write_all(&piece).await.map_err(write_failure)?;
    }
    writer.flush().await.map_err(write_failure)?;
    Ok(writer)
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
/// It ends without an error only when the complete file has arrived and is verified. At most a few MiB wait in memory for it to be
/// polled; then the transfer waits too.
///
/// # Cancel safety
/// Dropping it cancels the transfer.
#[must_use = "a stream that is dropped is cancelled"]
pub struct ByteStream {
    pieces: Pieces,
    /// Until its outcome was returned.
    transfer: Option<Transfer<Report>>,
    report: Option<Report>,
    cancel: CancelHandle,
}

impl ByteStream {
    pub(super) fn new(pieces: Pieces, transfer: Transfer<Report>) -> Self {
        let cancel = transfer.cancel_handle();
        Self { pieces, transfer: Some(transfer), report: None, cancel }
    }

    /// The events of the transfer; `None` if they were taken before, or the stream has ended.
    pub fn take_events(&mut self) -> Option<Events> {
        self.transfer.as_mut()?.take_events()
    }

    /// A handle that cancels the transfer from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// What was delivered, once the stream has ended without an error.
    pub fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }
}

impl Stream for ByteStream {
    type Item = Result<Bytes, TransferError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(piece) = ready!(self.pieces.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(piece)));
        }
        let Some(transfer) = &mut self.transfer else { return Poll::Ready(None) };
        let outcome = ready!(Pin::new(transfer).poll(cx));
        self.transfer = None;
        match outcome {
            Ok(report) => {
                self.report = Some(report);
                Poll::Ready(None)
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").field("report", &self.report).finish_non_exhaustive()
    }
}
