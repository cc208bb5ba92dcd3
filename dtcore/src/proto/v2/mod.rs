//! The messages of protocol 2: the answer that grants a session, the hello of a stream, and the frames behind it.

mod frame;
mod hello;
mod offer;
mod requester;
mod responder;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use frame::MAX_REASON;
pub(crate) use frame::{
    Demand, ErrorCode, FRAME_LEN, MAX_UNANSWERED, Reply, TRAILER_LEN, Trailer, WHOLE_DIGESTS_LEN,
    WholeDigests, WholeDigestsReply, reason_of,
};
pub(crate) use hello::{HELLO_LEN, Hello, Replacing, Secret, SessionId};
pub(crate) use offer::{Answer, Request, SourceVersion};
pub(crate) use requester::{BrokenProtocol, Coming, Requester};
pub(crate) use responder::{Responder, Step};

/// The protocol's number, in JSON and in the hello.
pub(crate) const VERSION: u8 = 2;

/// What stands in the `Upgrade` header of a stream that comes over the control port.
pub(crate) const UPGRADE: &str = "dt2";
