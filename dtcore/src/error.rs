//! Why a transfer failed, in terms a person can act on.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use crate::digest::Checksum;

/// Why a transfer did not deliver its file.
///
/// The message says what failed and where; the cause below it, if there is one, is in
/// [`source`](std::error::Error::source). Whatever the error, the output that was there before is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The server has no such file, or it is not a regular file.
    #[error("{server} has no file {name:?}")]
    #[non_exhaustive]
    NotFound {
        /// The server's address.
        server: String,
        /// The file that was asked for.
        name: String,
    },
    /// The server may not read the file.
    #[error("{server} may not read {name:?}")]
    #[non_exhaustive]
    Forbidden {
        /// The server's address.
        server: String,
        /// The file that was asked for.
        name: String,
    },
    /// The server found the file and could not read all of it.
    #[error("{server} cannot read {name:?}{}", in_its_words(reason))]
    #[non_exhaustive]
    Unreadable {
        /// The server's address.
        server: String,
        /// The file that was asked for.
        name: String,
        /// The server's words, without control characters; empty if it gave none.
        reason: String,
    },
    /// The server wants to know who asks.
    #[error("{server} does not let you in")]
    #[non_exhaustive]
    Unauthorized {
        /// The server's address.
        server: String,
    },
    /// The server refused for a reason of its own.
    #[error("{server} refused with status {status}: {reason}")]
    #[non_exhaustive]
    Refused {
        /// The server's address.
        server: String,
        /// The HTTP status.
        status: u16,
        /// The server's words, without control characters.
        reason: String,
    },
    /// No connection could be made.
    #[error("cannot reach {server}")]
    #[non_exhaustive]
    Unreachable {
        /// The address that was tried.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something between client and server does not carry streams.
    #[error(
        "cannot open streams to {server}: a proxy in between does not carry them; connect to the server directly"
    )]
    #[non_exhaustive]
    StreamsBlocked {
        /// The server's address.
        server: String,
    },
    /// A connection was there and ended before all bytes had come.
    #[error("lost the connection to {server}: {}", what_ended(*stream, *received))]
    #[non_exhaustive]
    ConnectionLost {
        /// The server's address.
        server: String,
        /// The stream that ended early; `None` for the control connection.
        stream: Option<u8>,
        /// How many bytes of the file had come on it.
        received: u64,
        /// What the system said, or the server, if the connection did not simply end.
        source: Option<io::Error>,
    },
    /// Nothing moved for too long.
    #[error("{server} brought nothing for {waited:?} while {activity}")]
    #[non_exhaustive]
    TimedOut {
        /// The server's address.
        server: String,
        /// What was waited for.
        activity: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// All bytes came, and they are not the right ones.
    #[error("the bytes of {name:?} do not match {origin}: expected {expected}, received {actual}")]
    #[non_exhaustive]
    DigestMismatch {
        /// The file that was asked for.
        name: String,
        /// Who named the digest.
        origin: DigestOrigin,
        /// The digest the file should have.
        expected: Checksum,
        /// The digest of what was received.
        actual: Checksum,
    },
    /// The source changed while it was read.
    #[error("{name:?} changed on {server} while it was read")]
    #[non_exhaustive]
    SourceChanged {
        /// The server's address.
        server: String,
        /// The file that was asked for.
        name: String,
    },
    /// The source is another than the one that the part file was begun with.
    #[error("{name:?} changed on {server} since {} was begun", part.display())]
    #[non_exhaustive]
    SourceReplaced {
        /// The server's address.
        server: String,
        /// The file that was asked for.
        name: String,
        /// The part file, which is kept.
        part: PathBuf,
    },
    /// A block does not match its digest, however often it is fetched.
    #[error(
        "block {block} of {name:?}, at byte {offset}, came {times} times from {server} with other bytes than its digest says"
    )]
    #[non_exhaustive]
    CorruptBlock {
        /// The server's address.
        server: String,
        /// The file that was asked for.
        name: String,
        /// The block's number, counted from 0.
        block: u32,
        /// Where it begins in the file.
        offset: u64,
        /// How often it came.
        times: u32,
    },
    /// The peer said something that the protocol has no room for.
    #[error("{server} broke the protocol: {what}")]
    #[non_exhaustive]
    Protocol {
        /// The server's address.
        server: String,
        /// What it said.
        what: String,
    },
    /// There is no room for the file.
    #[error("no space left for {}{}", path.display(), what_is_needed(*needed))]
    #[non_exhaustive]
    DiskFull {
        /// The file that needs the room.
        path: PathBuf,
        /// How many bytes were to be stored; 0 if that was not known.
        needed: u64,
    },
    /// No file may be as large as that there: the file system or the limit of the process (`ulimit -f`) forbids it.
    #[error("{} may not become that large{}", path.display(), what_is_needed(*needed))]
    #[non_exhaustive]
    TooLarge {
        /// The file that may not grow.
        path: PathBuf,
        /// How many bytes were to be stored; 0 if that was not known.
        needed: u64,
    },
    /// A local file could not be worked with.
    #[error("cannot {action} {}", path.display())]
    #[non_exhaustive]
    LocalFile {
        /// What was to be done with it.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output is there already, and was not to be replaced.
    #[error("{} exists", path.display())]
    #[non_exhaustive]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// Another transfer writes the same output.
    #[error("{} is being written by another transfer", path.display())]
    #[non_exhaustive]
    OutputInUse {
        /// The output.
        path: PathBuf,
    },
    /// The transfer was cancelled by its owner.
    #[error("interrupted")]
    Cancelled,
    /// The machine could not give what the transfer needs, such as a thread.
    #[error("cannot {action}")]
    #[non_exhaustive]
    System {
        /// What was to be done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl TransferError {
    /// Whether the same transfer may well succeed when it is simply tried again.
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

    /// The error for a local file operation: a full disk and too large a file are told apart, because they have remedies of
    /// their own.
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

fn what_ended(stream: Option<u8>, received: u64) -> String {
    match stream {
        Some(stream) => format!("stream {stream} ended early, after {received} bytes"),
        None => "it ended before the server had answered".to_owned(),
    }
}

fn in_its_words(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn what_is_needed(needed: u64) -> String {
    if needed == 0 { String::new() } else { format!(": {needed} bytes are needed") }
}

/// Who named the digest that the bytes should have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DigestOrigin {
    /// The server, of the file it serves.
    Server,
    /// The caller, as [`Download::checksum`](crate::Download::checksum).
    Caller,
}

impl fmt::Display for DigestOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "the server's digest",
            Self::Caller => "the digest demanded",
        })
    }
}

/// Whether there is no room for the file, by the disk, a quota, or the largest size the file system knows.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_says_why() {
        for (kind, needed, expected) in [
            (io::ErrorKind::StorageFull, 7, "no space left for f: 7 bytes are needed"),
            (io::ErrorKind::QuotaExceeded, 0, "no space left for f"),
            (io::ErrorKind::FileTooLarge, 7, "f may not become that large: 7 bytes are needed"),
            (io::ErrorKind::FileTooLarge, 0, "f may not become that large"),
            (io::ErrorKind::Other, 7, "cannot write f"),
        ] {
            assert_eq!(TransferError::local("write", "f", needed, kind.into()).to_string(), expected);
        }
    }
}
