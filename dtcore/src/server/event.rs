//! What a server tells of its work, while it works.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};

use crate::manifest::{StreamCount, StreamId};

/// How many events wait for a slow observer before it loses the oldest.
pub(crate) const BACKLOG: usize = 1024;

/// Something that happened at a server.
///
/// Of each transfer: `TransferStarted`, then its streams' events, then one of `TransferFinished`,
/// `TransferExpired` and `TransferFailed`. `StreamOpened` is told of in protocol 2 only, where a stream that is done is
/// one that ended between two ranges. Paths come from peers: escape them before showing them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A request was granted; its streams are waited for.
    #[non_exhaustive]
    TransferStarted {
        /// The transfer.
        transfer: TransferId,
        /// The protocol that it is in, 1 or 2.
        protocol: u8,
        /// Who asked.
        peer: SocketAddr,
        /// The file's name as it was found below the root.
        path: PathBuf,
        /// The file's size in bytes.
        size: u64,
        /// How many streams carry it.
        streams: StreamCount,
        /// The port that serves the streams.
        port: u16,
    },
    /// A connection became a stream of a session of protocol 2.
    #[non_exhaustive]
    StreamOpened {
        /// The transfer.
        transfer: TransferId,
        /// The stream.
        stream: StreamId,
        /// Who connected.
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
        /// How many bytes had been handed to the system.
        bytes: u64,
        /// What happened.
        reason: StreamFailure,
    },
    /// A connection to a transfer's port was closed without data.
    #[non_exhaustive]
    StreamRefused {
        /// The transfer.
        transfer: TransferId,
        /// Who connected.
        peer: SocketAddr,
        /// Why it was refused.
        reason: StreamRefusal,
    },
    /// A connection to the data port became no stream of any transfer.
    #[non_exhaustive]
    ConnectionRefused {
        /// Who connected.
        peer: SocketAddr,
        /// Why it was refused.
        reason: StreamRefusal,
    },
    /// All streams of a transfer are complete; in protocol 2, the receiver has ended it.
    #[non_exhaustive]
    TransferFinished {
        /// The transfer.
        transfer: TransferId,
        /// The file's size in bytes; in protocol 2, how many bytes of it were sent.
        bytes: u64,
        /// The time since it was granted.
        elapsed: Duration,
    },
    /// Nobody came for the missing streams in time; in protocol 2, no stream was open for too long.
    #[non_exhaustive]
    TransferExpired {
        /// The transfer.
        transfer: TransferId,
        /// How many streams were not complete; in protocol 2 all.
        missing: usize,
        /// How many bytes of the file were sent.
        bytes: u64,
        /// For how long no stream was open.
        idle: Duration,
    },
    /// A transfer was given up.
    #[non_exhaustive]
    TransferFailed {
        /// The transfer.
        transfer: TransferId,
        /// What happened.
        reason: TransferFailure,
    },
    /// A request was refused.
    #[non_exhaustive]
    RequestRefused {
        /// Who asked.
        peer: SocketAddr,
        /// The HTTP status of the answer.
        status: u16,
        /// The reason in the answer.
        reason: String,
        /// The target of the request as it came, if it got that far.
        path: Option<PathBuf>,
    },
    /// A connection could not be accepted; it is tried again after a pause.
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

/// Why a connection got no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamRefusal {
    /// It came from an address that did not ask for the file.
    #[error("not the address that asked")]
    ForeignAddress,
    /// It closed, broke or stayed silent instead of responder its id.
    #[error("no stream id came")]
    NoId,
    /// Its id is not below the number of streams.
    #[error("stream id {0} is out of range")]
    #[non_exhaustive]
    OutOfRange(u8),
    /// Another connection is being served under this id.
    #[error("stream {0} is being served already")]
    #[non_exhaustive]
    Busy(StreamId),
    /// It did not send all of a hello in time.
    #[error("no hello came")]
    NoHello,
    /// What it sent is no hello of this version.
    #[error("not a hello of protocol 2")]
    InvalidHello,
    /// It named no session, or not with its secret.
    #[error("no such session")]
    NoSession,
    /// There are as many connections as the server takes.
    #[error("too many streams at once")]
    NoCapacity,
    /// The stream was served completely before.
    #[error("stream {0} is complete already")]
    #[non_exhaustive]
    Complete(StreamId),
}

/// Why a stream broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFailure {
    /// The client was gone.
    #[error("the client disconnected")]
    Disconnected,
    /// The client took no bytes for the stall timeout.
    #[error("the client took no bytes in time")]
    Stalled,
    /// No place among the streams that are sent at once became free in time.
    #[error("too many streams at once")]
    NoCapacity,
    /// The file changed after its digest had been told.
    #[error("the file changed")]
    SourceChanged,
    /// The file could not be read.
    #[error("the file cannot be read")]
    SourceUnreadable,
    /// What came from the client is not of the protocol.
    #[error("the client broke the protocol")]
    BrokenProtocol,
    /// Another connection took its place.
    #[error("the client replaced the stream")]
    Replaced,
    /// The transfer or the server ended.
    #[error("the transfer was ended")]
    Aborted,
}

/// Why a transfer was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferFailure {
    /// The file changed after its digest had been told, so no client can end with the right bytes.
    #[error("the file changed")]
    SourceChanged,
    /// The server was shut down.
    #[error("the server is shutting down")]
    ShutDown,
}

/// An observer of a server's events.
///
/// Events are kept for a slow observer up to a bound; beyond that it loses the oldest, and never holds up a
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
