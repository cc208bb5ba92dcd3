//! The messages of protocol 2: the answer that grants a session, the greeting of a stream, and the frames behind it.

mod control;
mod frame;
mod greeting;

pub(crate) use control::{Answer, Request, SourceVersion};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use frame::MAX_REASON;
pub(crate) use frame::{
    Demand, FRAME_LEN, MAX_UNANSWERED, Problem, Reply, TRAILER_LEN, Trailer, WHOLE_DIGESTS_LEN, WholeDigests,
    WholeDigestsReply, reason_of,
};
pub(crate) use greeting::{GREETING_LEN, Greeting, Replacing, Secret, SessionId};

/// The protocol's number, in JSON and in the greeting.
pub(crate) const VERSION: u8 = 2;

/// What stands in the `Upgrade` header of a stream that comes over the control port.
pub(crate) const UPGRADE: &str = "dt2";
