//! The error of a transfer, as callers see it: a kind to act on, a message, and what it is about.

use std::error::Error;
use std::fmt;
use std::path::Path;

use crate::failure::{DigestOrigin, Failure};

/// Why a transfer did not deliver its file.
///
/// Displayed, it is one line of lower case that says what failed and where; the cause below it, if there is one, is its
/// [`source`](Error::source). Whatever the error, an output that existed before is unchanged.
///
/// ```
/// # async fn example(client: dtcore::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use dtcore::ErrorKind;
/// match client.download("remote/path").to_path("out.bin").await {
///     Ok(report) => println!("{} bytes", report.bytes),
///     Err(error) if error.kind() == ErrorKind::NotFound => println!("no such file"),
///     Err(error) if error.is_retryable() => println!("retry later: {error}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
pub struct TransferError(Box<Failure>);

/// What kind of failure a [`TransferError`] is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server has no such file, or it is not a regular file.
    NotFound,
    /// The server may not read the file.
    Forbidden,
    /// The server found the file and could not read all of it.
    Unreadable,
    /// The server requires authentication.
    Unauthorized,
    /// The server refused the request for another reason, such as too many transfers.
    Refused,
    /// No connection could be made.
    Unreachable,
    /// A proxy between client and server does not carry streams.
    StreamsBlocked,
    /// The server's connections ended before all bytes had arrived.
    ConnectionLost,
    /// Nothing moved for as long as a timeout allows.
    TimedOut,
    /// All bytes arrived, and do not match the digest that the server reports.
    DigestMismatch,
    /// All bytes arrived, and do not match the digest that [`Download::checksum`](crate::Download::checksum) requires.
    ChecksumMismatch,
    /// The remote file changed during the transfer.
    SourceChanged,
    /// The remote file is another than the one that the part file was started with.
    SourceReplaced,
    /// A block does not match its digest, however often it is fetched.
    CorruptBlock,
    /// The server sent what the protocol does not allow.
    Protocol,
    /// There is no room for the file.
    DiskFull,
    /// The file is larger than the file system, the limits of the process or the caller allow.
    TooLarge,
    /// An operation on a local file, or on the caller's writer, failed.
    LocalFile,
    /// The output exists, and must not be replaced.
    OutputExists,
    /// Another transfer writes the same output.
    OutputInUse,
    /// The transfer was cancelled by its owner.
    Cancelled,
    /// The system did not provide what the transfer needs, such as a thread.
    System,
}

impl ErrorKind {
    /// A stable name in snake case, for scripts and logs: `not_found`, `timed_out` ...
    pub fn code(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Unreadable => "unreadable",
            Self::Unauthorized => "unauthorized",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::StreamsBlocked => "streams_blocked",
            Self::ConnectionLost => "connection_lost",
            Self::TimedOut => "timed_out",
            Self::DigestMismatch => "digest_mismatch",
            Self::ChecksumMismatch => "checksum_mismatch",
            Self::SourceChanged => "source_changed",
            Self::SourceReplaced => "source_replaced",
            Self::CorruptBlock => "corrupt_block",
            Self::Protocol => "protocol",
            Self::DiskFull => "disk_full",
            Self::TooLarge => "too_large",
            Self::LocalFile => "local_file",
            Self::OutputExists => "output_exists",
            Self::OutputInUse => "output_in_use",
            Self::Cancelled => "cancelled",
            Self::System => "system",
        }
    }
}

impl TransferError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Failure::NotFound { .. } => ErrorKind::NotFound,
            Failure::Forbidden { .. } => ErrorKind::Forbidden,
            Failure::Unreadable { .. } => ErrorKind::Unreadable,
            Failure::Unauthorized { .. } => ErrorKind::Unauthorized,
            Failure::Refused { .. } => ErrorKind::Refused,
            Failure::Unreachable { .. } => ErrorKind::Unreachable,
            Failure::StreamsBlocked { .. } => ErrorKind::StreamsBlocked,
            Failure::ConnectionLost { .. } => ErrorKind::ConnectionLost,
            Failure::TimedOut { .. } => ErrorKind::TimedOut,
            Failure::DigestMismatch { origin: DigestOrigin::Server, .. } => ErrorKind::DigestMismatch,
            Failure::DigestMismatch { origin: DigestOrigin::Caller, .. } => ErrorKind::ChecksumMismatch,
            Failure::SourceChanged { .. } => ErrorKind::SourceChanged,
            Failure::SourceReplaced { .. } => ErrorKind::SourceReplaced,
            Failure::CorruptBlock { .. } => ErrorKind::CorruptBlock,
            Failure::Protocol { .. } => ErrorKind::Protocol,
            Failure::DiskFull { .. } => ErrorKind::DiskFull,
            Failure::TooLarge { .. } | Failure::OverLimit { .. } => ErrorKind::TooLarge,
            Failure::LocalFile { .. } => ErrorKind::LocalFile,
            Failure::OutputExists { .. } => ErrorKind::OutputExists,
            Failure::OutputInUse { .. } => ErrorKind::OutputInUse,
            Failure::Cancelled => ErrorKind::Cancelled,
            Failure::System { .. } => ErrorKind::System,
        }
    }

    /// The [`code`](ErrorKind::code) of its kind: a stable name in snake case.
    pub fn code(&self) -> &'static str {
        self.kind().code()
    }

    /// Whether the same transfer may well succeed when it is simply retried, perhaps later.
    pub fn is_retryable(&self) -> bool {
        self.0.is_retryable()
    }

    /// The server that the failure is about, as `host:port`.
    pub fn peer(&self) -> Option<&str> {
        self.subject().peer
    }

    /// The remote file that the failure is about.
    pub fn entry(&self) -> Option<&str> {
        self.subject().entry
    }

    /// The local file that the failure is about; of a caller's writer, what messages call it.
    pub fn path(&self) -> Option<&Path> {
        self.subject().path
    }

    fn subject(&self) -> Subject<'_> {
        let none = Subject { peer: None, entry: None, path: None };
        match &*self.0 {
            Failure::SourceReplaced { server, name, part } => {
                Subject { peer: Some(server), entry: Some(name), path: Some(part) }
            }
            Failure::NotFound { server, name }
            | Failure::Forbidden { server, name }
            | Failure::Unreadable { server, name, .. }
            | Failure::SourceChanged { server, name }
            | Failure::CorruptBlock { server, name, .. } => {
                Subject { peer: Some(server), entry: Some(name), ..none }
            }
            Failure::DigestMismatch { name, .. } => Subject { entry: Some(name), ..none },
            Failure::Unauthorized { server }
            | Failure::Refused { server, .. }
            | Failure::Unreachable { server, .. }
            | Failure::StreamsBlocked { server }
            | Failure::ConnectionLost { server, .. }
            | Failure::TimedOut { server, .. }
            | Failure::Protocol { server, .. } => Subject { peer: Some(server), ..none },
            Failure::DiskFull { path, .. }
            | Failure::TooLarge { path, .. }
            | Failure::LocalFile { path, .. }
            | Failure::OutputExists { path }
            | Failure::OutputInUse { path } => Subject { path: Some(path), ..none },
            Failure::OverLimit { .. } | Failure::Cancelled | Failure::System { .. } => none,
        }
    }
}

/// What a failure is about.
struct Subject<'a> {
    peer: Option<&'a str>,
    entry: Option<&'a str>,
    path: Option<&'a Path>,
}

impl From<Failure> for TransferError {
    fn from(failure: Failure) -> Self {
        Self(Box::new(failure))
    }
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Error for TransferError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn error_says_what_it_is_about() {
        let (server, name) = ("host:9000".to_owned(), "f".to_owned());
        let replaced = Failure::SourceReplaced { server, name, part: "out.dtpart".into() };
        let full = Failure::local("write", "out", 7, io::ErrorKind::StorageFull.into());
        for (failure, code, peer, entry, path) in [
            (replaced, "source_replaced", Some("host:9000"), Some("f"), Some("out.dtpart")),
            (full, "disk_full", None, None, Some("out")),
            (Failure::Cancelled, "cancelled", None, None, None),
        ] {
            let error = TransferError::from(failure);
            assert_eq!((error.code(), error.peer(), error.entry()), (code, peer, entry));
            assert_eq!(error.path(), path.map(Path::new), "{code}");
        }
    }

    #[test]
    fn cause_is_the_source_and_not_in_the_message() {
        let source = io::Error::other("reset by peer");
        let error = Failure::ConnectionLost {
            server: "host:9000".to_owned(),
            stream: Some(3),
            received: 5,
            source: Some(source),
        };
        let error = TransferError::from(error);
        assert_eq!(error.to_string(), "connection to host:9000 lost: stream 3 ended early, after 5 bytes");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("reset by peer"));
    }
}
