//! The error of a transfer, as callers see it: a kind to act on, a message, and what it is about.

use std::fmt;
use std::path::Path;

use crate::failure::{DigestOrigin, Failure};
use crate::proto::v2::ReceiverFailure;

/// Why a transfer did not deliver its file.
///
/// Displayed, it is one line of lower case that says what failed and where; the cause below it, if there is one, is its
/// [`source`](std::error::Error::source). Whatever the error, an output that existed before is unchanged.
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
#[derive(thiserror::Error)]
#[error(transparent)]
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
    /// The server, or a proxy before it, cannot serve the request now: it has too many transfers, or is restarting.
    Busy,
    /// The server refused the request for another reason.
    Refused,
    /// Something else than a server of this program answered.
    NotDtserver,
    /// The server's name has no address.
    UnknownHost,
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
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::NotDtserver => "not_dtserver",
            Self::UnknownHost => "unknown_host",
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
        self.about().kind
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
        self.about().peer
    }

    /// The remote file that the failure is about.
    pub fn entry(&self) -> Option<&str> {
        self.about().entry
    }

    /// The local file that the failure is about; of a caller's writer, what messages call it.
    pub fn path(&self) -> Option<&Path> {
        self.about().path
    }

    fn about(&self) -> About<'_> {
        use ErrorKind as Kind;
        match &*self.0 {
            Failure::NotFound { server, name, .. } => About::entry(Kind::NotFound, server, name),
            Failure::Forbidden { server, name, .. } => About::entry(Kind::Forbidden, server, name),
            Failure::Unreadable { server, name, .. } => About::entry(Kind::Unreadable, server, name),
            Failure::Unauthorized { server } => About::peer(Kind::Unauthorized, server),
            failure @ Failure::Refused { server, .. } => {
                About::peer(if failure.is_busy() { Kind::Busy } else { Kind::Refused }, server)
            }
            Failure::NotDtserver { server, .. } => About::peer(Kind::NotDtserver, server),
            Failure::Unresolved { server, .. } => About::peer(Kind::UnknownHost, server),
            Failure::Unreachable { server, .. } => About::peer(Kind::Unreachable, server),
            Failure::StreamsBlocked { server } => About::peer(Kind::StreamsBlocked, server),
            Failure::ConnectionLost { server, .. } => About::peer(Kind::ConnectionLost, server),
            Failure::TimedOut { server, .. } => About::peer(Kind::TimedOut, server),
            Failure::DigestMismatch { name, origin, .. } => {
                let kind = match origin {
                    DigestOrigin::Server => Kind::DigestMismatch,
                    DigestOrigin::Caller => Kind::ChecksumMismatch,
                };
                About { entry: Some(name), ..About::nothing(kind) }
            }
            Failure::SourceChanged { server, name } => About::entry(Kind::SourceChanged, server, name),
            Failure::SourceReplaced { server, name, part } => {
                About { path: Some(part), ..About::entry(Kind::SourceReplaced, server, name) }
            }
            Failure::CorruptBlock { server, name, .. } => About::entry(Kind::CorruptBlock, server, name),
            Failure::Protocol { server, .. } => About::peer(Kind::Protocol, server),
            Failure::DiskFull { path, .. } => About::path(Kind::DiskFull, path),
            Failure::TooLarge { path, .. } => About::path(Kind::TooLarge, path),
            Failure::OverLimit { .. } => About::nothing(Kind::TooLarge),
            Failure::LocalFile { path, .. } => About::path(Kind::LocalFile, path),
            Failure::OutputExists { path } => About::path(Kind::OutputExists, path),
            Failure::OutputInUse { path } => About::path(Kind::OutputInUse, path),
            Failure::UploadRefused { server, name, status, .. } => {
                let kind = match status {
                    _ if self.0.is_busy() => Kind::Busy,
                    403 => Kind::Forbidden,
                    404 => Kind::NotFound,
                    412 => Kind::OutputExists,
                    413 => Kind::TooLarge,
                    423 => Kind::OutputInUse,
                    507 => Kind::DiskFull,
                    _ => Kind::Refused,
                };
                About::entry(kind, server, name)
            }
            Failure::UploadFailed { server, name, failure, .. } => {
                let kind = match failure {
                    ReceiverFailure::Other => Kind::Refused,
                    ReceiverFailure::DiskFull => Kind::DiskFull,
                    ReceiverFailure::Exists => Kind::OutputExists,
                    ReceiverFailure::InUse => Kind::OutputInUse,
                    ReceiverFailure::Corrupt => Kind::DigestMismatch,
                    ReceiverFailure::SourceChanged => Kind::SourceChanged,
                    ReceiverFailure::SourceReplaced => Kind::SourceReplaced,
                    ReceiverFailure::TimedOut => Kind::TimedOut,
                    ReceiverFailure::ShuttingDown => Kind::ConnectionLost,
                };
                About::entry(kind, server, name)
            }
            Failure::Cancelled => About::nothing(Kind::Cancelled),
            Failure::System { .. } => About::nothing(Kind::System),
        }
    }
}

/// What a failure is, and what it is about.
struct About<'a> {
    kind: ErrorKind,
    peer: Option<&'a str>,
    entry: Option<&'a str>,
    path: Option<&'a Path>,
}

impl<'a> About<'a> {
    fn nothing(kind: ErrorKind) -> Self {
        Self { kind, peer: None, entry: None, path: None }
    }

    fn peer(kind: ErrorKind, peer: &'a str) -> Self {
        Self { peer: Some(peer), ..Self::nothing(kind) }
    }

    fn entry(kind: ErrorKind, peer: &'a str, entry: &'a str) -> Self {
        Self { entry: Some(entry), ..Self::peer(kind, peer) }
    }

    fn path(kind: ErrorKind, path: &'a Path) -> Self {
        Self { path: Some(path), ..Self::nothing(kind) }
    }
}

impl From<Failure> for TransferError {
    fn from(failure: Failure) -> Self {
        Self(Box::new(failure))
    }
}

impl fmt::Debug for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
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
