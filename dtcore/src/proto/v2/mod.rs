//! The messages of protocol 2: the offer that opens a session, the hello of a stream, and the frames after it.
//!
//! `docs/protocol.md`, section 3, is the normative text.

mod code;
mod digests;
mod frame;
mod header;
mod hello;
mod offer;
mod requester;
mod responder;
mod trailer;
mod upload;

pub(crate) use code::{ErrorCode, ReceiverFailure, WholeDigests};
pub(crate) use digests::{ReportedDigests, WHOLE_DIGESTS_LEN};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use frame::MAX_REASON;
pub(crate) use frame::{Request, Response, WireRun, reason_of};
pub(crate) use header::{FRAME_LEN, InvalidFrame, PAYLOAD_CHECK_LEN, checked_payload};
pub(crate) use hello::{HELLO_LEN, Hello, MAGIC, Replacing, Secret, SessionId};
pub(crate) use offer::{Push, SessionOffer, SessionRequest, SourceVersion};
pub(crate) use requester::{Incoming, Requester, Violation};
pub(crate) use responder::{Responder, Step};
pub(crate) use trailer::{Growth, TRAILER_LEN, TrailerHead, encode_trailer};
pub(crate) use upload::{UploadOptions, UploadRequest};

/// The number of the protocol, in JSON and in the hello.
pub(crate) const VERSION: u8 = 2;

/// The protocol's name in the `Upgrade` header.
pub(crate) const UPGRADE: &str = "dt2";
