//! The events of a server, reported while it works.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};

use crate::manifest::{StreamCount, StreamId};
use crate::send::{StreamFailure, StreamRefusal};

/// How many events are kept for a slow observer.
pub(crate) const BACKLOG: usize = 1024;

/// Which way a file goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the server to a client.
    Download,
    /// From a client to the server.
    Upload,
}

/// A transfer that has ended, for its last event.
#[derive(Debug)]
pub(crate) struct EndedTransfer {
    pub(crate) transfer: TransferId,
    pub(crate) direction: Direction,
    pub(crate) peer: SocketAddr,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
}

impl EndedTransfer {
    pub(crate) fn finished(self) -> ServerEvent {
        let Self { transfer, direction, peer, path, size, bytes, elapsed } = self;
        ServerEvent::TransferFinished { transfer, direction, peer, path, size, bytes, elapsed }
    }

    pub(crate) fn failed(self, reason: TransferFailure) -> ServerEvent {
        let Self { transfer, direction, peer, path, size, bytes, elapsed } = self;
        ServerEvent::TransferFailed { transfer, direction, peer, path, size, bytes, elapsed, reason }
    }

    /// After `idle` without an open stream; `missing` streams were not at their end.
    pub(crate) fn expired(self, missing: usize, idle: Duration) -> ServerEvent {
        let Self { transfer, direction, peer, path, size, bytes, elapsed } = self;
        ServerEvent::TransferExpired { transfer, direction, peer, path, size, missing, bytes, elapsed, idle }
    }
}

/// Something that happened at a server.
///
/// For each transfer: `TransferStarted`, then the events of its streams, then one of `TransferFinished`,
/// `TransferExpired` and `TransferFailed`. `StreamOpened` is reported in protocol 2 only, where a finished stream is
/// one that ended between two frames. Paths are chosen by peers: escape them before showing them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A request was accepted; its streams are expected.
    #[non_exhaustive]
    TransferStarted {
        /// The transfer.
        transfer: TransferId,
        /// Which way the file goes.
        direction: Direction,
        /// Its protocol, 1 or 2.
        protocol: u8,
        /// The client.
        peer: SocketAddr,
        /// The file's name as it was found below the root.
        path: PathBuf,
        /// The file's size in bytes.
        size: u64,
        /// How many streams carry it.
        streams: StreamCount,
        /// The port that serves the streams: in protocol 1 one of its own, in protocol 2 that of the server.
        port: u16,
    },
    /// A connection became a stream of a session of protocol 2.
    #[non_exhaustive]
    StreamOpened {
        /// The transfer.
        transfer: TransferId,
        /// The stream.
        stream: StreamId,
        /// The client.
        peer: SocketAddr,
    },
    /// All bytes of a stream were sent.
    #[non_exhaustive]
    StreamFinished {
        /// The transfer.
        transfer: TransferId,
        /// The stream.
        stream: StreamId,
        /// How many bytes it carried.
        bytes: u64,
    },
    /// A stream broke; the client may connect it again.
    #[non_exhaustive]
    StreamFailed {
        /// The transfer.
        transfer: TransferId,
        /// The stream.
        stream: StreamId,
        /// How many bytes had been handed to the kernel.
        bytes: u64,
        /// Why.
        reason: StreamFailure,
    },
    /// A connection became no stream of the transfer that it named.
    #[non_exhaustive]
    StreamRefused {
        /// The transfer.
        transfer: TransferId,
        /// The client.
        peer: SocketAddr,
        /// Why.
        reason: StreamRefusal,
    },
    /// A connection became neither a request nor a stream of any transfer.
    #[non_exhaustive]
    ConnectionRefused {
        /// The client.
        peer: SocketAddr,
        /// Why.
        reason: StreamRefusal,
    },
    /// All streams of a transfer are complete; in protocol 2, the receiver has ended it.
    #[non_exhaustive]
    TransferFinished {
        /// The transfer.
        transfer: TransferId,
        /// Which way the file goes.
        direction: Direction,
        /// The client.
        peer: SocketAddr,
        /// The file's name as it was found below the root.
        path: PathBuf,
        /// The file's size in bytes.
        size: u64,
        /// How many bytes were sent: in protocol 1 the size, in protocol 2 each byte as often as it was sent.
        bytes: u64,
        /// The time since it was started.
        elapsed: Duration,
    },
    /// The missing streams were not opened in time; in protocol 2, no stream was open for too long, or the client needed the
    /// place for another transfer while none was.
    #[non_exhaustive]
    TransferExpired {
        /// The transfer.
        transfer: TransferId,
        /// Which way the file goes.
        direction: Direction,
        /// The client.
        peer: SocketAddr,
        /// The file's name as it was found below the root.
        path: PathBuf,
        /// The file's size in bytes.
        size: u64,
        /// How many streams were not complete; in protocol 2 all of them.
        missing: usize,
        /// How many bytes of the file were sent.
        bytes: u64,
        /// The time since it was started.
        elapsed: Duration,
        /// For how long no stream was open.
        idle: Duration,
    },
    /// A transfer was aborted.
    #[non_exhaustive]
    TransferFailed {
        /// The transfer.
        transfer: TransferId,
        /// Which way the file goes.
        direction: Direction,
        /// The client.
        peer: SocketAddr,
        /// The file's name as it was found below the root.
        path: PathBuf,
        /// The file's size in bytes.
        size: u64,
        /// How many bytes of the file were sent.
        bytes: u64,
        /// The time since it was started.
        elapsed: Duration,
        /// Why.
        reason: TransferFailure,
    },
    /// A request was refused.
    #[non_exhaustive]
    RequestRefused {
        /// The client.
        peer: SocketAddr,
        /// The HTTP status of the answer.
        status: u16,
        /// The reason in the answer.
        reason: String,
        /// The file that was requested, as far as the request was received.
        path: Option<PathBuf>,
    },
    /// A connection could not be accepted; the server retries after a pause.
    #[non_exhaustive]
    AcceptFailed {
        /// The system's reason.
        reason: String,
    },
}

/// The number of a transfer, counted from 1 since the server's start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TransferId(pub(crate) u64);

impl TransferId {
    /// The number.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a transfer was aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferFailure {
    /// The file changed after its digest had been sent, so no client can end with the right bytes.
    #[error("the file changed")]
    SourceChanged,
    /// The client has given up.
    #[error("the client gave up")]
    ClientLeft,
    /// The server was shut down.
    #[error("the server is shutting down")]
    ShutDown,
    /// There was no room for an upload.
    #[error("the disk is full")]
    DiskFull,
    /// An upload could not be stored.
    #[error("the file was not stored")]
    NotStored,
}

/// An observer of a server's events.
///
/// Events are kept for a slow observer up to a limit; beyond it, the observer loses the oldest. It never delays a
/// transfer.
#[derive(Debug)]
pub struct ServerEvents {
    pub(crate) receiver: broadcast::Receiver<ServerEvent>,
    pub(crate) missed: u64,
}

impl ServerEvents {
    /// The next event, or `None` when the server has ended.
    ///
    /// # Cancel safety
    /// No event is lost by dropping the future.
    pub async fn next(&mut self) -> Option<ServerEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(n)) => self.missed = self.missed.saturating_add(n),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// How many events were lost because this observer was too slow.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}
