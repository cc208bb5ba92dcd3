//! Why a request is refused, as an HTTP answer.

use http::StatusCode;

use crate::net::HeadError;
use crate::storage::{DigestError, OpenError};
use crate::wire::{InvalidRequestLine, v1};

/// A status and its reason for people, one lower-case line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    pub(super) fn busy(reason: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
    }

    /// The whole answer as bytes, for a connection that the HTTP parser never saw.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
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
            OpenError::NotFound | OpenError::NotRegular | OpenError::Outside | OpenError::TooLong => {
                StatusCode::NOT_FOUND
            }
            OpenError::Denied | OpenError::Unreadable => StatusCode::FORBIDDEN,
            OpenError::Io(error) => return Self::of_system(error),
        };
        Self::new(status, error.to_string())
    }
}

impl Refusal {
    /// The answer to a request without a head, if there is still somebody to answer.
    pub(super) fn of_head(error: &HeadError) -> Option<Self> {
        match error {
            HeadError::Invalid(error) => Some((*error).into()),
            HeadError::Closed | HeadError::Broken(_) => None,
        }
    }

    /// A shortage passes, so the client may try again; anything else is the server's own trouble.
    fn of_system(error: &std::io::Error) -> Self {
        use rustix::io::Errno;
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN) => {
                Self::busy("the server is out of resources; try again later")
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server cannot read the file"),
        }
    }
}

impl From<DigestError> for Refusal {
    fn from(error: DigestError) -> Self {
        let status = match error {
            DigestError::Changed => StatusCode::CONFLICT,
            DigestError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            DigestError::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_whole_answer() {
        let refusal = Refusal::from(InvalidRequestLine::Version);
        let text = String::from_utf8(refusal.to_bytes()).unwrap();
        let body = r#"{"error":"the HTTP version is neither 1.0 nor 1.1"}"#;
        assert!(text.starts_with("HTTP/1.1 505 HTTP Version Not Supported\r\n"), "{text}");
        assert!(text.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
        assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
    }
}
