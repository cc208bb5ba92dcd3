//! Why a transfer failed, in terms that a user can act on.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use crate::digest::Checksum;

/// Why a transfer failed.
///
/// The message says what failed and where; the underlying cause, if there is one, is the
/// [`source`](std::error::Error::source). An existing output is unchanged after any error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The server has no such file, or it is not a regular file.
    #[error("{server} has no file {name:?}")]
    #[non_exhaustive]
    NotFound {
        /// The server's address.
        server: String,
        /// The requested file.
        name: String,
    },
    /// The server has no permission to read the file.
    #[error("permission denied: {server} may not read {name:?}")]
    #[non_exhaustive]
    Forbidden {
        /// The server's address.
        server: String,
        /// The requested file.
        name: String,
    },
    /// The server found the file but could not read all of it.
    #[error("{server} cannot read {name:?}{}", with_reason(reason))]
    #[non_exhaustive]
    Unreadable {
        /// The server's address.
        server: String,
        /// The requested file.
        name: String,
        /// The reason given by the server, without control characters; empty if it gave none.
        reason: String,
    },
    /// The server requires authentication.
    #[error("{server}: authentication required (401)")]
    #[non_exhaustive]
    Unauthorized {
        /// The server's address.
        server: String,
    },
    /// The server refused the request with another status.
    #[error("{server} refused the request ({status}): {reason}")]
    #[non_exhaustive]
    Refused {
        /// The server's address.
        server: String,
        /// The HTTP status.
        status: u16,
        /// The reason given by the server, without control characters.
        reason: String,
    },
    /// No connection could be established.
    #[error("cannot connect to {server}")]
    #[non_exhaustive]
    Unreachable {
        /// The address that was tried.
        server: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A proxy between client and server does not carry streams.
    #[error("cannot open streams to {server}: a proxy does not carry them; connect to the server directly")]
    #[non_exhaustive]
    StreamsBlocked {
        /// The server's address.
        server: String,
    },
    /// A connection ended before all data had arrived.
    #[error("connection to {server} lost: {}", lost_connection(*stream, *received))]
    #[non_exhaustive]
    ConnectionLost {
        /// The server's address.
        server: String,
        /// The stream that ended early; `None` for the connection of the request.
        stream: Option<u8>,
        /// How many bytes of the file had arrived on it.
        received: u64,
        /// The error of the system or of the server, if there was one.
        source: Option<io::Error>,
    },
    /// No data arrived for too long.
    #[error("timed out: no data from {server} for {} s while {activity}", waited.as_secs_f64())]
    #[non_exhaustive]
    TimedOut {
        /// The server's address.
        server: String,
        /// What the client was waiting for, after "while".
        activity: &'static str,
        /// How long it waited.
        waited: Duration,
    },
    /// The data is complete but does not match the expected digest.
    #[error("{name:?} does not match {origin}: expected {expected}, received {actual}")]
    #[non_exhaustive]
    DigestMismatch {
        /// The requested file.
        name: String,
        /// Where the expected digest comes from.
        origin: DigestOrigin,
        /// The expected digest.
        expected: Checksum,
        /// The digest of the received data.
        actual: Checksum,
    },
    /// The file changed during the transfer.
    #[error("{name:?} changed on {server} during the transfer")]
    #[non_exhaustive]
    SourceChanged {
        /// The server's address.
        server: String,
        /// The requested file.
        name: String,
    },
    /// The part file belongs to another version of the remote file.
    #[error("{name:?} has changed on {server} since {} was started", part.display())]
    #[non_exhaustive]
    SourceReplaced {
        /// The server's address.
        server: String,
        /// The requested file.
        name: String,
        /// The part file, which is not deleted.
        part: PathBuf,
    },
    /// A block was corrupt each time it was received.
    #[error(
        "{times} copies of block {block} of {name:?} (at byte {offset}) from {server} did not match their digest"
    )]
    #[non_exhaustive]
    CorruptBlock {
        /// The server's address.
        server: String,
        /// The requested file.
        name: String,
        /// The block's number, counted from 0.
        block: u32,
        /// The offset of its first byte in the file.
        offset: u64,
        /// How many corrupt copies were received.
        times: u32,
    },
    /// The peer violated the protocol.
    #[error("protocol error from {server}: {what}")]
    #[non_exhaustive]
    Protocol {
        /// The server's address.
        server: String,
        /// How.
        what: String,
    },
    /// The disk or the quota is full.
    #[error("no space left for {}{}", path.display(), bytes_needed(*needed))]
    #[non_exhaustive]
    DiskFull {
        /// The file that needs the space.
        path: PathBuf,
        /// How many bytes the file needs; 0 if that is unknown.
        needed: u64,
    },
    /// The file would exceed the limit of the file system or of the process (`ulimit -f`).
    #[error("{} would exceed the file size limit{}", path.display(), bytes_needed(*needed))]
    #[non_exhaustive]
    TooLarge {
        /// The file that would be too large.
        path: PathBuf,
        /// How many bytes the file needs; 0 if that is unknown.
        needed: u64,
    },
    /// An operation on a local file failed.
    #[error("cannot {action} {}", path.display())]
    #[non_exhaustive]
    LocalFile {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The output already exists and must not be replaced.
    #[error("{} already exists", path.display())]
    #[non_exhaustive]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// Another transfer is writing the same output.
    #[error("{} is being written by another transfer", path.display())]
    #[non_exhaustive]
    OutputInUse {
        /// The output.
        path: PathBuf,
    },
    /// The caller cancelled the transfer.
    #[error("interrupted")]
    Cancelled,
    /// The system lacks a resource that the transfer needs, such as a thread.
    #[error("cannot {action}")]
    #[non_exhaustive]
    System {
        /// The operation.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

impl TransferError {
    /// Whether the same transfer may succeed if it is retried.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::ConnectionLost { .. }
            | Self::TimedOut { .. }
            | Self::SourceChanged { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 502..=504),
            Self::NotFound { .. }
            | Self::Forbidden { .. }
            | Self::Unreadable { .. }
            | Self::Unauthorized { .. }
            | Self::DigestMismatch { .. }
            | Self::SourceReplaced { .. }
            | Self::CorruptBlock { .. }
            | Self::Protocol { .. }
            | Self::DiskFull { .. }
            | Self::TooLarge { .. }
            | Self::LocalFile { .. }
            | Self::OutputExists { .. }
            | Self::OutputInUse { .. }
            | Self::Cancelled
            | Self::System { .. }
            | Self::StreamsBlocked { .. } => false,
        }
    }

    /// The error of a local file operation; a full disk and a file that is too large have variants of their own, because
    /// each has another remedy.
    pub(crate) fn local(
        action: &'static str,
        path: impl Into<PathBuf>,
        needed: u64,
        source: io::Error,
    ) -> Self {
        let path = path.into();
        if source.kind() == io::ErrorKind::FileTooLarge {
            Self::TooLarge { path, needed }
        } else if is_disk_full(&source) {
            Self::DiskFull { path, needed }
        } else {
            Self::LocalFile { action, path, source }
        }
    }
}

fn lost_connection(stream: Option<u8>, received: u64) -> String {
    match stream {
        Some(stream) => format!("stream {stream} ended early, after {received} bytes"),
        None => "it ended before the server answered".to_owned(),
    }
}

fn with_reason(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn bytes_needed(needed: u64) -> String {
    if needed == 0 { String::new() } else { format!(": {needed} bytes needed") }
}

/// Where an expected digest comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DigestOrigin {
    /// The server.
    Server,
    /// The caller, as [`Download::checksum`](crate::Download::checksum).
    Caller,
}

impl fmt::Display for DigestOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "the server's digest",
            Self::Caller => "the given checksum",
        })
    }
}

/// Whether the file does not fit: the disk or the quota is full, or the file would exceed the file size limit.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_why_a_file_does_not_fit() {
        for (kind, needed, expected) in [
            (io::ErrorKind::StorageFull, 7, "no space left for f: 7 bytes needed"),
            (io::ErrorKind::QuotaExceeded, 0, "no space left for f"),
            (io::ErrorKind::FileTooLarge, 7, "f would exceed the file size limit: 7 bytes needed"),
            (io::ErrorKind::FileTooLarge, 0, "f would exceed the file size limit"),
            (io::ErrorKind::Other, 7, "cannot write f"),
        ] {
            assert_eq!(TransferError::local("write", "f", needed, kind.into()).to_string(), expected);
        }
    }
}
