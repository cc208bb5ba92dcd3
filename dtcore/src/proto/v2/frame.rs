//! The frames: what the receiver requests, and what the sender responds.

use super::header::{FRAME_LEN, Header, InvalidFrame, with_payload};
use super::{ErrorCode, ReceiverFailure, WholeDigests};
use crate::num::to_u64;
use crate::proto::v1;

/// The longest reason of a refusal, in bytes.
pub(crate) const MAX_REASON: usize = 512;

/// The longest offer, in bytes.
pub(crate) const MAX_OFFER: usize = 16 << 10;

/// The most requests that may be unanswered on one stream.
pub(crate) const MAX_UNANSWERED: usize = 1024;

/// A run of blocks as the wire names it. Whether the manifest has it, and with this length, is not checked here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WireRun {
    /// The number of the first block.
    pub(crate) first: u64,
    /// How many blocks, at least 1.
    pub(crate) count: u32,
    /// How many bytes they have.
    pub(crate) length: u64,
}

impl WireRun {
    fn header(self, kind: u8, code: u8) -> Header {
        Header { kind, code, count: self.count, first: self.first, length: self.length }
    }

    fn of(header: Header) -> Result<Self, InvalidFrame> {
        let Header { count, first, length, .. } = header;
        if count == 0 || length == 0 { Err(InvalidFrame) } else { Ok(Self { first, count, length }) }
    }
}

/// The code of a run whose data is sent, with the digests of its blocks.
const WITH_DATA: u8 = 0;

/// The code of a run of which only the digests are sent.
const DIGESTS_ONLY: u8 = 1;

/// A frame of the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Send this run.
    Run(WireRun),
    /// Send the digests of this run's blocks, and no data.
    Proof(WireRun),
    /// Send the digests of the file.
    Digest(WholeDigests),
    /// The transfer is over: everything has arrived and matches.
    End,
    /// The receiver gives up: the transfer is over, and not complete.
    Leave,
    /// The transfer is over, and not complete. A reason of so many bytes follows, at most [`MAX_REASON`], and a payload check.
    Fail(ReceiverFailure, usize),
}

impl Request {
    /// The bytes on the wire.
    pub(crate) fn encode(self) -> [u8; FRAME_LEN] {
        match self {
            Self::Run(run) => run.header(0x01, WITH_DATA),
            Self::Proof(run) => run.header(0x01, DIGESTS_ONLY),
            Self::Digest(which) => Header { kind: 0x02, code: which.encode(), ..Header::default() },
            Self::End => Header { kind: 0x03, ..Header::default() },
            Self::Leave => Header { kind: 0x03, code: 1, ..Header::default() },
            Self::Fail(failure, len) => {
                Header { kind: 0x04, code: failure.encode(), length: to_u64(len), ..Header::default() }
            }
        }
        .encode()
    }

    /// A complete failure: header, reason and check. A reason that is too long is cut between two characters.
    pub(crate) fn failure(failure: ReceiverFailure, reason: &str) -> Vec<u8> {
        let reason = bounded_reason(reason);
        with_payload(Self::Fail(failure, reason.len()).encode(), reason.as_bytes())
    }

    /// Reads a frame of the receiver.
    pub(crate) fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self, InvalidFrame> {
        let header = Header::decode(bytes)?;
        match header {
            Header { kind: 0x01, code: WITH_DATA, .. } => WireRun::of(header).map(Self::Run),
            Header { kind: 0x01, code: DIGESTS_ONLY, .. } => WireRun::of(header).map(Self::Proof),
            Header { kind: 0x02, code, count: 0, first: 0, length: 0 } => {
                WholeDigests::decode(code).map(Self::Digest)
            }
            Header { kind: 0x03, code: 0, count: 0, first: 0, length: 0 } => Ok(Self::End),
            Header { kind: 0x03, code: 1, count: 0, first: 0, length: 0 } => Ok(Self::Leave),
            Header { kind: 0x04, code, count: 0, first: 0, length } => {
                Ok(Self::Fail(ReceiverFailure::decode(code)?, bounded(length, MAX_REASON)?))
            }
            _ => Err(InvalidFrame),
        }
    }
}

/// A frame of the sender: its header, which says what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Response {
    /// An offer of so many bytes follows, 1 to [`MAX_OFFER`], and a payload check.
    Offer(usize),
    /// The data of this run follows, then a trailer.
    Data(WireRun),
    /// The trailer of this run follows, without its data.
    Proof(WireRun),
    /// The digests of the file follow, and a payload check.
    Digests(WholeDigests),
    /// The digests of the file are being computed; so many bytes have been read for them.
    Wait { hashed: u64 },
    /// The server shuts down; nothing follows.
    Drain,
    /// A reason of so many bytes follows, at most [`MAX_REASON`], and a payload check; then nothing.
    Refused(ErrorCode, usize),
}

impl Response {
    /// The bytes of the header on the wire.
    pub(crate) fn encode(self) -> [u8; FRAME_LEN] {
        self.header().encode()
    }

    fn header(self) -> Header {
        match self {
            Self::Offer(len) => Header { kind: 0x80, length: to_u64(len), ..Header::default() },
            Self::Data(run) => run.header(0x81, WITH_DATA),
            Self::Proof(run) => run.header(0x81, DIGESTS_ONLY),
            Self::Digests(which) => {
                Header { kind: 0x82, code: which.encode(), length: DIGESTS_LENGTH, ..Header::default() }
            }
            Self::Wait { hashed } => Header { kind: 0x83, first: hashed, ..Header::default() },
            Self::Drain => Header { kind: 0x84, ..Header::default() },
            Self::Refused(code, len) => {
                Header { kind: 0x8f, code: code.encode(), length: to_u64(len), ..Header::default() }
            }
        }
    }

    /// Reads a frame header of the sender.
    pub(crate) fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self, InvalidFrame> {
        let header = Header::decode(bytes)?;
        match header {
            Header { kind: 0x80, code: 0, count: 0, first: 0, length } if length > 0 => {
                bounded(length, MAX_OFFER).map(Self::Offer)
            }
            Header { kind: 0x81, code: WITH_DATA, .. } => WireRun::of(header).map(Self::Data),
            Header { kind: 0x81, code: DIGESTS_ONLY, .. } => WireRun::of(header).map(Self::Proof),
            Header { kind: 0x82, code, count: 0, first: 0, length: DIGESTS_LENGTH } => {
                WholeDigests::decode(code).map(Self::Digests)
            }
            Header { kind: 0x83, code: 0, count: 0, first, length: 0 } => Ok(Self::Wait { hashed: first }),
            Header { kind: 0x84, code: 0, count: 0, first: 0, length: 0 } => Ok(Self::Drain),
            Header { kind: 0x8f, code, count: 0, first: 0, length } => {
                Ok(Self::Refused(ErrorCode::decode(code)?, bounded(length, MAX_REASON)?))
            }
            _ => Err(InvalidFrame),
        }
    }

    /// A complete refusal: header, reason and check. A reason that is too long is cut between two characters.
    pub(crate) fn refusal(code: ErrorCode, reason: &str) -> Vec<u8> {
        let reason = bounded_reason(reason);
        with_payload(Self::Refused(code, reason.len()).encode(), reason.as_bytes())
    }

    /// A complete offer: header, JSON and check.
    pub(crate) fn offer(json: &str) -> Vec<u8> {
        with_payload(Self::Offer(json.len()).encode(), json.as_bytes())
    }

    /// Complete digests of a file: header, digests and check.
    pub(super) fn digests(which: WholeDigests, payload: &[u8]) -> Vec<u8> {
        with_payload(Self::Digests(which).encode(), payload)
    }
}

fn bounded(length: u64, max: usize) -> Result<usize, InvalidFrame> {
    usize::try_from(length).ok().filter(|length| *length <= max).ok_or(InvalidFrame)
}

/// The beginning of a reason, as long as one may be.
fn bounded_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default()
}

/// The length of the digests, as their header names it.
const DIGESTS_LENGTH: u64 = 48;

/// The reason of a refusal as text, without control characters.
pub(crate) fn reason_of(bytes: &[u8]) -> String {
    v1::printable(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::header::checked_payload;
    use super::*;
    use proptest::prelude::*;

    /// The bytes on the wire, pinned.
    #[test]
    fn frames_are_these_bytes() {
        let run = WireRun { first: 0x0102, count: 3, length: 0x18_0000 };
        let ranged = |kind, code, check: [u8; 2]| {
            let [a, b] = check;
            [kind, code, a, b, 3, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x18, 0, 0, 0, 0, 0]
        };
        assert_eq!(Request::Run(run).encode(), ranged(0x01, 0, GOLDEN_RUN));
        assert_eq!(Response::Data(run).encode(), ranged(0x81, 0, GOLDEN_DATA));
        assert_eq!(Request::Proof(run).encode(), ranged(0x01, 1, GOLDEN_PROOF_REQUEST));
        assert_eq!(Response::Proof(run).encode(), ranged(0x81, 1, GOLDEN_PROOF));
        let plain = |bytes: [u8; FRAME_LEN]| {
            let [kind, code, _, _, rest @ ..] = bytes;
            (kind, code, rest)
        };
        let zeros = |at: usize, value| {
            let mut rest = [0; FRAME_LEN - 4];
            rest[at] = value;
            rest
        };
        for (bytes, expected) in [
            (Request::Digest(WholeDigests::Blake3AndMd5).encode(), (2, 3, zeros(0, 0))),
            (Request::End.encode(), (3, 0, zeros(0, 0))),
            (Request::Leave.encode(), (3, 1, zeros(0, 0))),
            (Request::Fail(ReceiverFailure::DiskFull, 3).encode(), (4, 2, zeros(12, 3))),
            (Response::Offer(9).encode(), (0x80, 0, zeros(12, 9))),
            (Response::Digests(WholeDigests::Blake3).encode(), (0x82, 1, zeros(12, 48))),
            (Response::Wait { hashed: 9 }.encode(), (0x83, 0, zeros(4, 9))),
            (Response::Drain.encode(), (0x84, 0, zeros(0, 0))),
            (Response::Refused(ErrorCode::Busy, 2).encode(), (0x8f, 6, zeros(12, 2))),
        ] {
            assert_eq!(plain(bytes), expected);
        }
    }

    /// Computed with another implementation of BLAKE3.
    const GOLDEN_RUN: [u8; 2] = [52, 157];
    const GOLDEN_DATA: [u8; 2] = [130, 224];
    const GOLDEN_PROOF_REQUEST: [u8; 2] = [237, 150];
    const GOLDEN_PROOF: [u8; 2] = [35, 8];

    #[test]
    fn flipped_bit_in_any_field_is_detected() {
        let run = WireRun { first: 7, count: 2, length: 1 << 20 };
        let frames = [
            Request::Run(run).encode(),
            Request::Proof(run).encode(),
            Request::Digest(WholeDigests::Blake3).encode(),
            Request::End.encode(),
            Request::Fail(ReceiverFailure::Other, 300).encode(),
            Response::Offer(300).encode(),
            Response::Data(run).encode(),
            Response::Proof(run).encode(),
            Response::Digests(WholeDigests::Blake3AndMd5).encode(),
            Response::Wait { hashed: 5 }.encode(),
            Response::Drain.encode(),
            Response::Refused(ErrorCode::Busy, 3).encode(),
        ];
        for frame in frames {
            for bit in 0..FRAME_LEN * 8 {
                let mut flipped = frame;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Request::decode(&flipped).is_err(), "{frame:?}, bit {bit}");
                assert!(Response::decode(&flipped).is_err(), "{frame:?}, bit {bit}");
            }
        }
    }

    #[test]
    fn fields_out_of_bounds_are_rejected() {
        let run = Header { kind: 0x81, count: 1, length: 1, ..Header::default() };
        assert!(Response::decode(&run.encode()).is_ok());
        for header in [
            Header { count: 0, ..run },
            Header { length: 0, ..run },
            Header { code: 1, count: 0, ..run },
            Header { code: 1, length: 0, ..run },
            Header { code: 2, ..run },
            Header { kind: 0x80, length: 0, ..Header::default() },
            Header { kind: 0x80, length: 16_385, ..Header::default() },
            Header { kind: 0x82, code: 2, length: 48, ..Header::default() },
            Header { kind: 0x82, code: 1, length: 49, ..Header::default() },
            Header { kind: 0x83, count: 1, ..Header::default() },
            Header { kind: 0x8f, code: 7, ..Header::default() },
            Header { kind: 0x8f, code: 1, length: 513, ..Header::default() },
            Header { kind: 0x8f, code: 1, length: u64::MAX, ..Header::default() },
        ] {
            assert_eq!(Response::decode(&header.encode()), Err(InvalidFrame), "{header:?}");
        }
        let failed = Header { kind: 0x04, code: 1, ..Header::default() };
        assert!(Request::decode(&failed.encode()).is_ok());
        for header in [
            Header { code: 0, ..failed },
            Header { code: 10, ..failed },
            Header { length: 513, ..failed },
            Header { first: 1, ..failed },
        ] {
            assert_eq!(Request::decode(&header.encode()), Err(InvalidFrame), "{header:?}");
        }
    }

    #[test]
    fn reason_is_cut_between_characters_and_cleaned() {
        let bytes = Response::refusal(ErrorCode::Busy, &format!("x{}", "é".repeat(300)));
        let header = bytes.first_chunk().unwrap();
        assert_eq!(Response::decode(header), Ok(Response::Refused(ErrorCode::Busy, 511)));
        assert_eq!(checked_payload(header, &bytes[FRAME_LEN..]).map(<[u8]>::len), Ok(511));
        assert_eq!(reason_of(b"a\x1b[2Jb\xff"), "a[2Jb\u{fffd}");
    }

    #[test]
    fn offer_is_these_bytes() {
        let golden = [
            &[128, 0, 155, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..],
            b"{}",
            &[148, 203, 23, 38, 13, 39, 229, 73],
        ];
        assert_eq!(Response::offer("{}"), golden.concat());
    }

    #[test]
    fn flipped_bit_in_a_payload_is_detected() {
        let bytes = Response::offer("{}");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let header = flipped.first_chunk().unwrap();
            let is_valid =
                Response::decode(header).is_ok() && checked_payload(header, &flipped[FRAME_LEN..]).is_ok();
            assert!(!is_valid, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn decoded_frames_encode_to_the_same_bytes(kind in 0..10_u8, code in 0..8_u8, count in 0..3_u32, first: u64, length in 0..600_u64) {
            let kind = if kind < 5 { kind } else { 0x7c + kind };
            let bytes = Header { kind, code, count, first, length }.encode();
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
            }
            if let Ok(response) = Response::decode(&bytes) {
                prop_assert_eq!(response.encode(), bytes);
            }
        }
    }
}
