//! The seam to what blocks are received from.
//!
//! The engine knows no address and dials nothing. A [`Source`] opens streams for it, by dialling a server, or by taking the
//! connections that a client has made.

use std::fmt;
use std::io;
use std::time::Duration;

use super::wake::{Wake, Woken};
use crate::digest::RangeDigest;
use crate::failure::Failure;
use crate::manifest::{BlockRun, StreamId};
use crate::proto::v2::{
    ErrorCode, Growth, Incoming, Replacing, ReportedDigests, Request, Violation, WholeDigests,
};
use crate::sink::BlockLease;

/// How errors name the other side and its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RemoteName {
    /// The peer, as the user named it.
    pub(crate) peer: String,
    /// The file, as the user named it.
    pub(crate) file: String,
}

impl RemoteName {
    /// The error of a file that changed during the transfer.
    pub(crate) fn source_changed(&self) -> Failure {
        Failure::SourceChanged { server: self.peer.clone(), name: self.file.clone() }
    }

    /// The error that a problem of the sender is for the transfer.
    pub(super) fn problem(&self, code: ErrorCode, reason: String) -> Failure {
        match code {
            ErrorCode::SourceChanged => self.source_changed(),
            ErrorCode::SourceUnreadable
            | ErrorCode::NoSuchSession
            | ErrorCode::NoSuchStream
            | ErrorCode::ProtocolViolation
            | ErrorCode::Busy => {
                Failure::Unreadable { server: self.peer.clone(), name: self.file.clone(), reason }
            }
        }
    }
}

/// Where a receiver gets blocks.
pub(crate) trait Source: Send + Sync + fmt::Debug + 'static {
    /// One connection on which runs are requested.
    type Stream: RangeStream;

    /// How errors name it.
    fn name(&self) -> &RemoteName;

    /// Opens a stream, for the first time or again.
    ///
    /// # Errors
    /// Why that was not possible this time.
    ///
    /// # Cancel safety
    /// A connection that was being made is closed.
    fn open(
        &self,
        stream: StreamId,
        replacing: Replacing,
    ) -> impl Future<Output = Result<Opened<Self::Stream>, Failure>> + Send;

    /// Finds another session, because the peer does not know the one of `epoch` any more.
    ///
    /// # Errors
    /// Why there is none, or that the file is another one now.
    fn renew(&self, epoch: u64) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The transfer is over, perhaps without any stream: the peer is notified on one that was open and is not used.
    fn over(&self, _ending: EndNotice) {}

    /// Closes a stream at the end of the transfer, after the notice to the peer.
    fn close(
        &self,
        mut stream: Self::Stream,
        notice: EndNotice,
        wake: &Wake,
    ) -> impl Future<Output = ()> + Send {
        async move {
            stream.request_end(notice);
            // The transfer is over, whatever becomes of these last bytes.
            if stream.flush(wake).await.is_ok() && notice == EndNotice::Complete {
                stream.finish();
            }
        }
    }

    /// Takes another route from now on, because something in between answered instead of the peer.
    ///
    /// # Errors
    /// There is no other route.
    fn reroute(&self, epoch: u64) -> Result<(), Failure>;
}

/// How a transfer ends for the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndNotice {
    /// Everything has arrived and matches.
    Complete,
    /// The receiver gives up.
    Leaving,
}

impl From<EndNotice> for Request {
    fn from(notice: EndNotice) -> Self {
        match notice {
            EndNotice::Complete => Self::End,
            EndNotice::Leaving => Self::Leave,
        }
    }
}

/// A stream that was opened.
#[derive(Debug)]
pub(crate) struct Opened<S> {
    pub(crate) stream: S,
    /// How long connecting took.
    pub(crate) rtt: Duration,
    /// Which session and route it belongs to, counted from 0.
    pub(crate) epoch: u64,
    /// What the sender sends on it without a request.
    pub(crate) pushed: Option<BlockRun>,
}

/// One connection on which runs of blocks are requested, several at a time, and answered in order.
pub(crate) trait RangeStream: Send + fmt::Debug {
    /// Queues a request; `false` if too many are unanswered.
    fn request(&mut self, run: BlockRun) -> bool;

    /// Queues a request for the digests of the blocks of `run`, without their data; `false` if too many are unanswered.
    fn request_proof(&mut self, run: BlockRun) -> bool;

    /// Queues a request for the digests of the file; `false` if too many are unanswered.
    fn request_digests(&mut self, which: WholeDigests) -> bool;

    /// Queues the notice that the transfer is over.
    fn request_end(&mut self, notice: EndNotice);

    /// How many requests are unanswered.
    fn n_unanswered(&self) -> usize;

    /// Sends what is queued.
    ///
    /// # Cancel safety
    /// Not cancel safe. Only a replacement interrupts it.
    fn flush(&mut self, wake: &Wake) -> impl Future<Output = Result<(), ReadInterrupt>> + Send;

    /// Waits for the next response and says what it is.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn next(&mut self, wake: &Wake) -> impl Future<Output = Result<Incoming, ReadInterrupt>> + Send;

    /// Receives at most `limit` bytes of a block, and returns how many. `is_last` says that its run ends with it.
    ///
    /// # Cancel safety
    /// Cancel safe: bytes are either in the lease, or not read.
    fn read(
        &mut self,
        lease: &mut BlockLease,
        limit: usize,
        is_last: bool,
        wake: &Wake,
    ) -> impl Future<Output = Result<usize, ReadInterrupt>> + Send;

    /// Receives at most `limit` and at most `remaining` bytes and discards them; returns how many.
    fn discard(
        &mut self,
        remaining: u64,
        limit: usize,
        wake: &Wake,
    ) -> impl Future<Output = Result<usize, ReadInterrupt>> + Send;

    /// Receives what follows the data of `run`, or is sent in place of it: the digest of every block, or why the data is invalid.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn trailer(
        &mut self,
        run: BlockRun,
        wake: &Wake,
    ) -> impl Future<Output = Result<Trailer, ReadInterrupt>> + Send;

    /// Receives the digests of the file.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn digests(
        &mut self,
        which: WholeDigests,
        wake: &Wake,
    ) -> impl Future<Output = Result<ReportedDigests, ReadInterrupt>> + Send;

    /// Receives the reason of a refusal, of `len` bytes.
    fn reason(
        &mut self,
        len: usize,
        wake: &Wake,
    ) -> impl Future<Output = Result<String, ReadInterrupt>> + Send;

    /// Closes the connection in order, for a receiver that has got what it needs.
    fn finish(self);
}

/// What follows the data of a run: the digest of every block, and whether the file has grown; or why the data is invalid.
pub(crate) type Trailer = Result<(Growth, Vec<RangeDigest>), ErrorCode>;

/// Why nothing more is read just now.
#[derive(Debug)]
pub(crate) enum ReadInterrupt {
    /// Another task has interrupted the stream.
    Woken(Woken),
    /// The connection ended.
    Ended,
    /// The connection broke.
    Broken(io::Error),
    /// The peer violated the protocol.
    Violation(Violation),
    /// Something that speaks HTTP answered in place of the peer.
    AnsweredByHttp,
    /// What arrived cannot be stored.
    Store(io::Error),
}

impl From<io::Error> for ReadInterrupt {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}
