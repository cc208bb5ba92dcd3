//! Why a transfer fails, as the crate itself distinguishes it; callers see a [`TransferError`](crate::TransferError).

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use rustix::fs::statvfs;
use rustix::io::Errno;

use crate::digest::Checksum;
use crate::proto::v2::ReceiverFailure;

/// Why a transfer did not deliver its file: one line that says what failed and where. The cause below it is its source.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server has no such file, or it is not a regular file.
    #[error("{server} has no file {name:?}{}", after_colon(reason))]
    NotFound {
        server: String,
        name: String,
        /// The server's words, without control characters; empty if they add nothing.
        reason: String,
    },
    /// The server may not read the file.
    #[error("permission denied: {server} may not read {name:?}{}", after_colon(reason))]
    Forbidden {
        server: String,
        name: String,
        /// As of [`NotFound`](Self::NotFound).
        reason: String,
    },
    /// The server found the file and could not read all of it.
    #[error("{server} cannot read {name:?}{}", after_colon(reason))]
    Unreadable {
        server: String,
        name: String,
        /// The server's words, without control characters; empty if it gave none.
        reason: String,
    },
    /// The server requires authentication.
    #[error("{server}: authentication required (401)")]
    Unauthorized { server: String },
    /// The server refused the request for another reason.
    #[error("{server} refused the request ({status}): {reason}")]
    Refused {
        server: String,
        /// The HTTP status.
        status: u16,
        /// The server's words, without control characters.
        reason: String,
        /// After which time the server wants to be asked again, if it says so.
        retry_after: Option<Duration>,
    },
    /// The server's name has no address, as far as this system knows.
    #[error("cannot find the address of {server}")]
    Unresolved { server: String, source: io::Error },
    /// Something else than this program's server is there.
    #[error("{server} is no dtserver: {what}")]
    NotDtserver { server: String, what: String },
    /// No connection could be made.
    #[error("cannot connect to {server}")]
    Unreachable { server: String, source: io::Error },
    /// A proxy between client and server does not carry streams.
    #[error("cannot open streams to {server}: a proxy does not carry them")]
    StreamsBlocked { server: String },
    /// A connection ended before all bytes had arrived.
    #[error("connection to {server} lost: {}", lost_connection(*stream, *received))]
    ConnectionLost {
        server: String,
        /// The stream that ended early; `None` for the connection of the request.
        stream: Option<u8>,
        /// How many bytes of the file had arrived on it.
        received: u64,
        /// The reason that the system or the server gave, if the connection did not simply end.
        source: Option<io::Error>,
    },
    /// Nothing moved for too long.
    #[error("timed out: {awaited} {server} {} {}", awaited.preposition(), Seconds(*waited))]
    TimedOut { server: String, awaited: Awaited, waited: Duration },
    /// All bytes arrived, and they are not the right ones.
    #[error("{name:?} does not match {origin}: expected {expected}, received {actual}")]
    DigestMismatch { name: String, origin: DigestOrigin, expected: Checksum, actual: Checksum },
    /// The source changed during the transfer.
    #[error("{name:?} changed on {server} during the transfer")]
    SourceChanged { server: String, name: String },
    /// The source is another than the one that the part file was started with.
    #[error("{name:?} has changed on {server} since {} was started", part.display())]
    SourceReplaced { server: String, name: String, part: PathBuf },
    /// A block does not match its digest, however often it is fetched.
    #[error(
        "{times} copies of block {block} of {name:?} (at byte {offset}) from {server} did not match their digest"
    )]
    CorruptBlock {
        server: String,
        name: String,
        /// The block's number, counted from 0.
        block: u32,
        /// Where it begins in the file.
        offset: u64,
        times: u32,
    },
    /// The server sent what the protocol does not allow.
    #[error("protocol error from {server}: {what}")]
    Protocol { server: String, what: String },
    /// There is no room for the file.
    #[error("{lacking} for {}{}", path.display(), lacking.needed(*needed))]
    DiskFull {
        path: PathBuf,
        lacking: Lacking,
        /// How many bytes were to be stored; 0 if that was not known.
        needed: u64,
    },
    /// The file system, or the limit of the process (`ulimit -f`), does not allow files of this size.
    #[error("{} would exceed the file size limit{}", path.display(), bytes_needed(*needed))]
    TooLarge {
        path: PathBuf,
        /// How many bytes were to be stored; 0 if that was not known.
        needed: u64,
    },
    /// The file is larger than the caller allows.
    #[error("file too large: {}, and the limit is {limit}", count(*size, "byte"))]
    OverLimit { size: u64, limit: u64 },
    /// An operation on a local file failed.
    #[error("cannot {action} {}", path.display())]
    LocalFile { action: &'static str, path: PathBuf, source: io::Error },
    /// The output exists, and must not be replaced.
    #[error("{} already exists", path.display())]
    OutputExists { path: PathBuf },
    /// Another transfer writes the same output.
    #[error("{} is being written by another transfer", path.display())]
    OutputInUse { path: PathBuf },
    /// The server does not take a file.
    #[error("{server} does not take {name:?}: {reason}")]
    UploadRefused {
        server: String,
        name: String,
        /// The HTTP status.
        status: u16,
        /// The server's words, without control characters.
        reason: String,
        /// As of [`Refused`](Self::Refused).
        retry_after: Option<Duration>,
    },
    /// The server has not completed a file that it was sent.
    #[error("{server} did not store {name:?}: {reason}")]
    UploadFailed {
        server: String,
        name: String,
        failure: ReceiverFailure,
        /// The server's words, without control characters.
        reason: String,
    },
    /// The transfer was cancelled by its owner.
    #[error("cancelled")]
    Cancelled,
    /// The system did not provide what the transfer needs, such as a thread.
    #[error("cannot {action}")]
    System { action: &'static str, source: io::Error },
}

/// What a file system has no more of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lacking {
    Space,
    /// Room for another file, whatever its size.
    Inodes,
    /// What this user may still use.
    Quota,
}

impl Lacking {
    /// What is missing where storing `path` failed like this.
    fn of(path: &Path, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::QuotaExceeded {
            return Self::Quota;
        }
        // A file that could not be created is not there to be asked about.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let found = statvfs(path).or_else(|_| statvfs(folder.unwrap_or(Path::new("."))));
        match found {
            // File systems without a fixed number of inodes report 0 of 0.
            Ok(stat) if stat.f_files > 0 && stat.f_favail == 0 && stat.f_bavail > 0 => Self::Inodes,
            Ok(_) | Err(_) => Self::Space,
        }
    }

    /// How much of it is needed, if it is counted in bytes.
    fn needed(self, bytes: u64) -> String {
        if self == Self::Inodes { String::new() } else { bytes_needed(bytes) }
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Space => "no space left",
            Self::Inodes => "no inodes left",
            Self::Quota => "disk quota exceeded",
        })
    }
}

/// What a peer did not do in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    Connection,
    Response,
    Data,
    /// Progress with the digest of the file, once all blocks are there.
    FileDigest,
}

impl Awaited {
    fn preposition(self) -> &'static str {
        match self {
            Self::Connection => "within",
            Self::Response | Self::Data | Self::FileDigest => "for",
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "no connection to",
            Self::Response => "no answer from",
            Self::Data => "no data from",
            Self::FileDigest => "no file digest from",
        })
    }
}

/// Whose digest the bytes do not match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DigestOrigin {
    /// The one that the server reports.
    Server,
    /// The one that the caller requires, as [`Download::checksum`](crate::Download::checksum).
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

impl Failure {
    /// Whether the same transfer may well succeed when it is simply retried.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Unresolved { .. }
                | Self::ConnectionLost { .. }
                | Self::TimedOut { .. }
                | Self::SourceChanged { .. }
        ) || self.is_busy()
            || self.is_shortage()
    }

    /// Whether this system has no more open files or memory for another connection, which passes when others end.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(self, Self::System { source, .. } if is_shortage(source))
    }

    /// Whether the server, or a proxy before it, cannot serve the request now.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Refused { status: 429 | 502..=504, .. }
                | Self::UploadRefused { status: 429 | 502..=504, .. }
        )
    }

    /// The error of something of this program that ended and should not have.
    pub(crate) fn system(action: &'static str, reason: &'static str) -> Self {
        Self::System { action, source: io::Error::other(reason) }
    }

    /// The error where the system allows no more threads.
    #[cfg(feature = "client")]
    pub(crate) fn no_threads() -> Self {
        Self::System {
            action: "start threads",
            source: io::Error::from_raw_os_error(rustix::io::Errno::AGAIN.raw_os_error()),
        }
    }

    /// The error of a blocking call that has panicked.
    pub(crate) fn thread_died(action: &'static str) -> Self {
        Self::system(action, "its thread has panicked")
    }

    /// The error of a local file operation. A full disk and too large a file have variants of their own, because they have
    /// remedies of their own.
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
            Self::DiskFull { lacking: Lacking::of(&path, &source), path, needed }
        } else {
            Self::LocalFile { action, path, source }
        }
    }
}

fn lost_connection(stream: Option<u8>, received: u64) -> String {
    match stream {
        Some(stream) => format!("stream {stream} ended early, after {}", count(received, "byte")),
        None => "it ended before the server had answered".to_owned(),
    }
}

fn after_colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn bytes_needed(needed: u64) -> String {
    if needed == 0 { String::new() } else { format!(": {} needed", count(needed, "byte")) }
}

/// A number of things: `1 byte`, `2 bytes`.
fn count(n: u64, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// A duration in seconds, without the zeros at its end.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.3}", self.0.as_secs_f64());
        write!(f, "{} s", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The system's reason in lower case, without its error number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Whether this system has no more open files, or no memory, for another connection.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Whether there is no room for the file, by the disk, a quota, or the largest size that the file system allows.
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
            (io::ErrorKind::StorageFull, 1, "no space left for f: 1 byte needed"),
            (io::ErrorKind::QuotaExceeded, 0, "disk quota exceeded for f"),
            (io::ErrorKind::FileTooLarge, 7, "f would exceed the file size limit: 7 bytes needed"),
            (io::ErrorKind::FileTooLarge, 0, "f would exceed the file size limit"),
            (io::ErrorKind::Other, 7, "cannot write f"),
        ] {
            assert_eq!(Failure::local("write", "f", needed, kind.into()).to_string(), expected);
        }
    }

    #[test]
    fn timeout_says_what_was_awaited_and_how_long() {
        for (awaited, waited, expected) in [
            (Awaited::Data, 5000, "timed out: no data from host:9000 for 5 s"),
            (Awaited::Response, 1500, "timed out: no answer from host:9000 for 1.5 s"),
            (Awaited::Connection, 20, "timed out: no connection to host:9000 within 0.02 s"),
            (Awaited::FileDigest, 3_600_000, "timed out: no file digest from host:9000 for 3600 s"),
        ] {
            let (server, waited) = ("host:9000".to_owned(), Duration::from_millis(waited));
            assert_eq!(Failure::TimedOut { server, awaited, waited }.to_string(), expected);
        }
    }
}
