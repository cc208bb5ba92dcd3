//! What follows the data of a run: whether it is valid, and the digest of every block.

use super::ErrorCode;
use super::header::{InvalidFrame, with_check};
use crate::digest::RangeDigest;

/// The length in bytes of a trailer without its digests.
pub(crate) const TRAILER_LEN: usize = 8;

/// The part of a trailer before its digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TrailerHead {
    /// Whether the data is valid.
    pub(crate) result: Result<(), ErrorCode>,
    /// Whether bytes have been added to the file since it was offered, which the receiver accepts.
    pub(crate) has_grown: bool,
    /// How many digests follow, 32 bytes each; all 0 if the data is not valid.
    pub(crate) count: u32,
}

/// The code of valid data of a file that has grown.
const GROWN: u8 = 7;

impl TrailerHead {
    /// The bytes on the wire.
    pub(crate) fn encode(self) -> [u8; TRAILER_LEN] {
        let code = self.result.map_or_else(ErrorCode::encode, |()| if self.has_grown { GROWN } else { 0 });
        let [a, b, c, d] = self.count.to_le_bytes();
        with_check([code, 0, 0, 0, a, b, c, d])
    }

    /// Reads the bytes before the digests.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as the other decoders take their bytes")]
    pub(crate) fn decode(bytes: &[u8; TRAILER_LEN]) -> Result<Self, InvalidFrame> {
        let [code, zero, _, _, a, b, c, d] = *bytes;
        if zero != 0 || with_check(*bytes) != *bytes {
            return Err(InvalidFrame);
        }
        let result = match code {
            0 | GROWN => Ok(()),
            _ => match ErrorCode::decode(code)? {
                code @ (ErrorCode::SourceChanged | ErrorCode::SourceUnreadable) => Err(code),
                ErrorCode::NoSuchSession
                | ErrorCode::NoSuchStream
                | ErrorCode::ProtocolViolation
                | ErrorCode::Busy => return Err(InvalidFrame),
            },
        };
        Ok(Self { result, has_grown: code == GROWN, count: u32::from_le_bytes([a, b, c, d]) })
    }
}

/// A complete trailer, of a run of `count` blocks: their digests in order, or why the data is not valid.
pub(crate) fn encode_trailer(digests: Result<&[RangeDigest], ErrorCode>, count: u32) -> Vec<u8> {
    with_digests(TrailerHead { result: digests.map(|_| ()), has_grown: false, count }, digests)
}

/// As [`encode_trailer`], of a file that has grown since it was offered.
pub(crate) fn encode_grown_trailer(digests: &[RangeDigest], count: u32) -> Vec<u8> {
    with_digests(TrailerHead { result: Ok(()), has_grown: true, count }, Ok(digests))
}

fn with_digests(head: TrailerHead, digests: Result<&[RangeDigest], ErrorCode>) -> Vec<u8> {
    let mut bytes = head.encode().to_vec();
    let len = TRAILER_LEN + crate::num::to_usize(u64::from(head.count)) * RangeDigest::LEN;
    for digest in digests.unwrap_or_default() {
        bytes.extend_from_slice(&digest.0);
    }
    bytes.resize(len, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailer_is_these_bytes() {
        let digests = [RangeDigest([7; 32]), RangeDigest([8; 32])];
        let bytes = encode_trailer(Ok(&digests), 2);
        assert_eq!(bytes.len(), 8 + 64);
        assert_eq!(bytes[..8], [0, 0, 179, 133, 2, 0, 0, 0]);
        assert_eq!(bytes[8..], [[7; 32], [8; 32]].concat());
        let head = TrailerHead::decode(bytes.first_chunk().unwrap());
        assert_eq!(head, Ok(TrailerHead { result: Ok(()), has_grown: false, count: 2 }));
        let failed = encode_trailer(Err(ErrorCode::SourceChanged), 2);
        assert_eq!((failed[0], failed.len()), (3, 72));
        assert!(failed[8..].iter().all(|byte| *byte == 0));
        let grown = encode_grown_trailer(&digests, 2);
        assert_eq!((grown[0], &grown[8..]), (7, &bytes[8..]));
        let head = TrailerHead::decode(grown.first_chunk().unwrap());
        assert_eq!(head, Ok(TrailerHead { result: Ok(()), has_grown: true, count: 2 }));
    }

    #[test]
    fn flipped_bit_is_detected() {
        for result in [Ok(()), Err(ErrorCode::SourceChanged), Err(ErrorCode::SourceUnreadable)] {
            let bytes = TrailerHead { result, has_grown: false, count: 5 }.encode();
            assert_eq!(TrailerHead::decode(&bytes), Ok(TrailerHead { result, has_grown: false, count: 5 }));
            for bit in 0..TRAILER_LEN * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(TrailerHead::decode(&flipped), Err(InvalidFrame), "bit {bit}");
            }
        }
    }

    #[test]
    fn only_what_concerns_the_source_is_a_valid_code() {
        for (code, is_valid) in [
            (0, true),
            (1, false),
            (2, false),
            (3, true),
            (4, true),
            (5, false),
            (6, false),
            (7, true),
            (8, false),
        ] {
            assert_eq!(
                TrailerHead::decode(&with_check([code, 0, 0, 0, 1, 0, 0, 0])).is_ok(),
                is_valid,
                "{code}"
            );
        }
    }
}
