//! Why streams and sessions end, and why connections become no streams.

use crate::manifest::StreamId;

/// Why a connection became no stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamRefusal {
    /// It is from another address than the request (protocol 1).
    #[error("not the address that sent the request")]
    ForeignAddress,
    /// It closed, broke or stayed silent instead of sending its stream id (protocol 1).
    #[error("no stream id received")]
    NoId,
    /// Its stream id is not below the number of streams.
    #[error("stream id {0} is out of range")]
    #[non_exhaustive]
    OutOfRange(u8),
    /// Another connection carries the stream.
    #[error("stream {0} is open already")]
    #[non_exhaustive]
    Busy(StreamId),
    /// It sent less than the two bytes that distinguish streams from HTTP.
    #[error("timed out: nothing received")]
    Silent,
    /// It speaks TLS, which this version does not.
    #[error("TLS is not supported")]
    Tls,
    /// It did not send all of a hello in time.
    #[error("no complete hello received")]
    NoHello,
    /// What it sent is no hello of this version.
    #[error("not a hello of protocol 2")]
    InvalidHello,
    /// It named no session, or not with its secret.
    #[error("no such session")]
    NoSession,
    /// There are as many connections as the server accepts.
    #[error("too many streams")]
    NoCapacity,
    /// The stream is complete (protocol 1).
    #[error("stream {0} is complete already")]
    #[non_exhaustive]
    Complete(StreamId),
}

/// Why a stream broke.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFailure {
    /// The receiver was gone.
    #[error("the client disconnected")]
    Disconnected,
    /// The receiver accepted no bytes for the stall timeout.
    #[error("the client accepted no bytes in time")]
    Stalled,
    /// Too many other streams were open for too long (protocol 1).
    #[error("too many streams")]
    NoCapacity,
    /// The file changed after its digest or its offer had been sent.
    #[error("the file changed")]
    SourceChanged,
    /// The file could not be read.
    #[error("the file cannot be read")]
    SourceUnreadable,
    /// What the receiver sent is not of the protocol.
    #[error("the client violated the protocol")]
    BrokenProtocol,
    /// Another connection replaced it.
    #[error("the client replaced the stream")]
    Replaced,
    /// The transfer or the server ended.
    #[error("the transfer was ended")]
    Aborted,
}

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SessionEnd {
    /// The receiver ended it, and has everything.
    Finished,
    /// The receiver has given up.
    Left,
    /// The receiver has failed, and has said why.
    Failed,
    /// No stream was open for too long.
    Expired,
    /// It was ended by its host while no stream was open.
    Evicted,
    /// The host shut down.
    ShutDown,
}
