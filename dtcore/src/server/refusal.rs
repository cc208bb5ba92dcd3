//! Why a request is refused, as an HTTP answer.

use std::io;

use http::StatusCode;
use rustix::io::Errno;

use crate::backend::OpenError;
use crate::failure::reason;
use crate::proto::{InvalidRequestLine, v1};
use crate::send::digest_cache::DigestError;
use crate::server::head::HeadError;

/// A status and its reason for people, one lower-case line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// For a condition that passes. It gives no advice: the status says that the client may try again.
    pub(crate) fn busy(reason: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
    }

    /// The complete answer as bytes, for a connection that the HTTP parser never saw.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let body = v1::encode_refusal(&self.reason);
        let phrase = self.status.canonical_reason().unwrap_or_default();
        format!(
            "HTTP/1.1 {} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.status.as_u16(),
            body.len()
        )
        .into_bytes()
    }
}

impl From<v1::InvalidRequest> for Refusal {
    fn from(error: v1::InvalidRequest) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<InvalidRequestLine> for Refusal {
    fn from(error: InvalidRequestLine) -> Self {
        let status = match error {
            InvalidRequestLine::Malformed => StatusCode::BAD_REQUEST,
            InvalidRequestLine::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            InvalidRequestLine::TooLong => StatusCode::URI_TOO_LONG,
        };
        Self::new(status, error.to_string())
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let status = match &error {
            OpenError::NotFound
            | OpenError::Directory
            | OpenError::NoFolder
            | OpenError::NotRegular
            | OpenError::Outside
            | OpenError::TooLong => StatusCode::NOT_FOUND,
            OpenError::Denied | OpenError::Unreadable | OpenError::Endless => StatusCode::FORBIDDEN,
            OpenError::Io(error) => return Self::of_opening(error),
        };
        Self::new(status, error.to_string())
    }
}

impl Refusal {
    /// The answer to a request without a valid head; `None` if the client is gone.
    pub(crate) fn of_head(error: &HeadError) -> Option<Self> {
        match error {
            HeadError::Invalid(error) => Some((*error).into()),
            HeadError::Closed | HeadError::Broken(_) => None,
        }
    }

    /// The answer when the server cannot listen for a transfer.
    pub(crate) fn of_listening(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::AddrInUse {
            return Self::busy("no transfer port is free");
        }
        Self::of_shortage(error).unwrap_or_else(|| {
            let reason = format!("the server cannot listen for the transfer: {}", reason(error));
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, reason)
        })
    }

    fn of_opening(error: &io::Error) -> Self {
        let error_of_server =
            || Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server cannot read the file");
        Self::of_shortage(error).unwrap_or_else(error_of_server)
    }

    /// A shortage passes, so the client may try again; any other error is the server's own.
    fn of_shortage(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(Self::busy("the server has too many open files")),
            Errno::NOMEM | Errno::NOBUFS => Some(Self::busy("the server is out of memory")),
            Errno::AGAIN => Some(Self::busy("the server is out of resources")),
            _ => None,
        }
    }
}

impl From<DigestError> for Refusal {
    fn from(error: DigestError) -> Self {
        let status = match error {
            DigestError::Changed => StatusCode::CONFLICT,
            DigestError::Unreadable | DigestError::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            DigestError::Shortage | DigestError::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_a_complete_answer() {
        let refusal = Refusal::from(InvalidRequestLine::Version);
        let text = String::from_utf8(refusal.to_bytes()).unwrap();
        let body = r#"{"error":"the HTTP version is neither 1.0 nor 1.1"}"#;
        assert!(text.starts_with("HTTP/1.1 505 HTTP Version Not Supported\r\n"), "{text}");
        assert!(text.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
        assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
    }

    #[test]
    fn reason_is_precise_and_gives_no_advice() {
        let cannot_read = (500, "the server cannot read the file");
        for (errno, opening, listening) in [
            (Errno::MFILE, (503, "the server has too many open files"), None),
            (Errno::NFILE, (503, "the server has too many open files"), None),
            (Errno::NOMEM, (503, "the server is out of memory"), None),
            (Errno::NOBUFS, (503, "the server is out of memory"), None),
            (
                Errno::IO,
                cannot_read,
                Some((500, "the server cannot listen for the transfer: input/output error")),
            ),
            (Errno::ADDRINUSE, cannot_read, Some((503, "no transfer port is free"))),
            (
                Errno::ACCESS,
                cannot_read,
                Some((500, "the server cannot listen for the transfer: permission denied")),
            ),
        ] {
            let error = io::Error::from(errno);
            for (refusal, expected) in [
                (Refusal::of_opening(&error), opening),
                (Refusal::of_listening(&error), listening.unwrap_or(opening)),
            ] {
                assert_eq!((refusal.status.as_u16(), refusal.reason.as_str()), expected, "{errno:?}");
            }
        }
    }
}
