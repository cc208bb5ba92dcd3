//! How the use of a connection ended, and what that means for the next attempt.

use std::io;

use super::source::{ReadInterrupt, RemoteName, Source};
use super::wake::Woken;
use crate::failure::Failure;
use crate::manifest::StreamId;
use crate::proto::v2::ErrorCode;
use crate::schedule::Fault;

/// How the use of a connection ended.
#[derive(Debug)]
pub(super) enum StreamOutcome {
    /// The transfer is over.
    Over,
    /// The transfer cannot succeed.
    Failed(Failure),
    /// The peer closed the connection when nothing was requested.
    Idle,
    /// The scheduler wants another connection in its place.
    Replaced(Fault),
    /// The peer does not know the session.
    NoSuchSession(Lost),
    /// Something in between answered in place of the peer.
    AnsweredByHttp,
    /// The peer violated the protocol, or says that this side does.
    Violation(String),
    /// The connection ended early.
    Lost(Lost),
}

/// How a connection ended early.
#[derive(Debug)]
pub(super) struct Lost {
    /// What the system or the peer said.
    pub(super) reason: io::Error,
    /// How many bytes of data had arrived on it.
    pub(super) received: u64,
}

impl StreamOutcome {
    /// Of a connection on which `received` bytes of data had arrived, and that can be used no longer.
    pub(super) fn lost(reason: io::Error, received: u64) -> Self {
        Self::Lost(Lost { reason, received })
    }

    /// Of a connection on which so many requests were unanswered.
    pub(super) fn interrupted(interrupt: ReadInterrupt, n_unanswered: usize, received: u64) -> Self {
        match interrupt {
            ReadInterrupt::Woken(Woken::Replace(fault)) => Self::Replaced(fault),
            ReadInterrupt::Woken(Woken::Check) => Self::lost(io::Error::other("interrupted"), received),
            ReadInterrupt::Ended if n_unanswered == 0 => Self::Idle,
            ReadInterrupt::Ended => {
                let reason = io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server");
                Self::lost(reason, received)
            }
            ReadInterrupt::Broken(error) | ReadInterrupt::Store(error) => Self::lost(error, received),
            ReadInterrupt::Violation(violation) => Self::Violation(violation.to_string()),
            ReadInterrupt::AnsweredByHttp => Self::AnsweredByHttp,
        }
    }

    /// The server shuts down.
    pub(super) fn draining(received: u64) -> Self {
        Self::lost(io::Error::other("the server is shutting down"), received)
    }

    /// The sender has refused the stream.
    pub(super) fn refused(code: ErrorCode, reason: String, name: &RemoteName, received: u64) -> Self {
        match code {
            ErrorCode::NoSuchSession => {
                let reason = io::Error::other("the server does not know the session any more");
                Self::NoSuchSession(Lost { reason, received })
            }
            ErrorCode::NoSuchStream | ErrorCode::Busy => {
                Self::lost(io::Error::other(format!("rejected by the server: {reason}")), received)
            }
            ErrorCode::ProtocolViolation => {
                Self::Violation(format!("the server reports a violation: {reason}"))
            }
            ErrorCode::SourceChanged | ErrorCode::SourceUnreadable => {
                Self::Failed(name.problem(code, reason))
            }
        }
    }

    /// Why the connection is lost; `None` if nothing is lost with it.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Replaced(Fault::Stalled) => Some("no data arrived on it".to_owned()),
            Self::Replaced(Fault::Slow) => Some("it was much slower than the others".to_owned()),
            Self::Violation(what) => Some(format!("protocol error: {what}")),
            Self::NoSuchSession(lost) | Self::Lost(lost) => Some(lost.reason.to_string()),
            // Every stream through a proxy that reads HTTP begins like this once.
            Self::AnsweredByHttp | Self::Idle | Self::Over | Self::Failed(_) => None,
        }
    }

    /// Does what another attempt needs, with the session and route of `epoch`; returns the error that it counts as, if it does.
    ///
    /// # Errors
    /// Why no attempt can succeed.
    pub(super) async fn failure<S: Source>(
        self,
        source: &S,
        stream: StreamId,
        epoch: u64,
    ) -> Result<Option<Failure>, Failure> {
        let server = || source.name().peer.clone();
        let connection_lost = |Lost { reason, received }| {
            let stream = Some(stream.byte());
            Some(Failure::ConnectionLost { server: server(), stream, received, source: Some(reason) })
        };
        Ok(match self {
            Self::Failed(error) => return Err(error),
            Self::Over | Self::Idle | Self::Replaced(_) => None,
            Self::AnsweredByHttp => source.reroute(epoch).err(),
            Self::Violation(what) => Some(Failure::Protocol { server: server(), what }),
            Self::NoSuchSession(lost) => match source.renew(epoch).await {
                // Sessions are no progress: a server that forgets them is not asked indefinitely.
                Ok(()) => connection_lost(lost),
                Err(error @ Failure::Protocol { .. }) => return Err(error),
                Err(error) => Some(error),
            },
            Self::Lost(lost) => connection_lost(lost),
        })
    }
}
