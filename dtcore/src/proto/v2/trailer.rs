//! What follows the data of a run: whether it is valid, and the digest of every block.

use super::ErrorCode;
use super::header::{InvalidFrame, with_check};
use crate::digest::RangeDigest;

/// The length in bytes of a trailer without its digests.
pub(crate) const TRAILER_LEN: usize = 8;

/// Whether the file has been seen to be longer than it was offered, where that is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Growth {
    None,
    Grown,
}

/// The part of a trailer before its digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TrailerHead {
    /// Whether the data is valid.
    pub(crate) result: Result<Growth, ErrorCode>,
    /// How many digests follow, 32 bytes each; all 0 if the data is not valid.
    pub(crate) count: u32,
}

impl TrailerHead {
    /// The bytes on the wire.
    pub(crate) fn encode(self) -> [u8; TRAILER_LEN] {
        let (code, grown) = match self.result {
            Ok(growth) => (0, u8::from(growth == Growth::Grown)),
            Err(code) => (code.encode(), 0),
        };
        let [a, b, c, d] = self.count.to_le_bytes();
        with_check([code, grown, 0, 0, a, b, c, d])
    }

    /// Reads the bytes before the digests.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as the other decoders take their bytes")]
    pub(crate) fn decode(bytes: &[u8; TRAILER_LEN]) -> Result<Self, InvalidFrame> {
        let [code, grown, _, _, a, b, c, d] = *bytes;
        if with_check(*bytes) != *bytes {
            return Err(InvalidFrame);
        }
        let result = match (code, grown) {
            (0, 0) => Ok(Growth::None),
            (0, 1) => Ok(Growth::Grown),
            (0, _) | (_, 1..) => return Err(InvalidFrame),
            _ => match ErrorCode::decode(code)? {
                code @ (ErrorCode::SourceChanged | ErrorCode::SourceUnreadable) => Err(code),
                ErrorCode::NoSuchSession
                | ErrorCode::NoSuchStream
                | ErrorCode::ProtocolViolation
                | ErrorCode::Busy => return Err(InvalidFrame),
            },
        };
        Ok(Self { result, count: u32::from_le_bytes([a, b, c, d]) })
    }
}

/// A complete trailer, of a run of `count` blocks: their digests in order, or why the data is not valid.
pub(crate) fn encode_trailer(
    digests: Result<&[RangeDigest], ErrorCode>,
    growth: Growth,
    count: u32,
) -> Vec<u8> {
    let head = TrailerHead { result: digests.map(|_| growth), count };
    let mut bytes = head.encode().to_vec();
    let len = TRAILER_LEN + crate::num::to_usize(u64::from(count)) * RangeDigest::LEN;
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
        let bytes = encode_trailer(Ok(&digests), Growth::None, 2);
        assert_eq!(bytes.len(), 8 + 64);
        assert_eq!(bytes[..8], [0, 0, 179, 133, 2, 0, 0, 0]);
        assert_eq!(bytes[8..], [[7; 32], [8; 32]].concat());
        let head = TrailerHead::decode(bytes.first_chunk().unwrap());
        assert_eq!(head, Ok(TrailerHead { result: Ok(Growth::None), count: 2 }));
        let failed = encode_trailer(Err(ErrorCode::SourceChanged), Growth::Grown, 2);
        assert_eq!((failed[0], failed.len()), (3, 72));
        assert!(failed[8..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn flipped_bit_is_detected() {
        for result in [
            Ok(Growth::None),
            Ok(Growth::Grown),
            Err(ErrorCode::SourceChanged),
            Err(ErrorCode::SourceUnreadable),
        ] {
            let bytes = TrailerHead { result, count: 5 }.encode();
            assert_eq!(TrailerHead::decode(&bytes), Ok(TrailerHead { result, count: 5 }));
            for bit in 0..TRAILER_LEN * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(TrailerHead::decode(&flipped), Err(InvalidFrame), "bit {bit}");
            }
        }
    }

    #[test]
    fn only_valid_data_can_have_grown() {
        for (code, grown, is_valid) in [(0, 1, true), (0, 2, false), (3, 1, false), (4, 0, true)] {
            let bytes = with_check([code, grown, 0, 0, 1, 0, 0, 0]);
            assert_eq!(TrailerHead::decode(&bytes).is_ok(), is_valid, "{code} {grown}");
        }
    }

    #[test]
    fn only_problems_of_the_source_are_valid_codes() {
        for (code, is_valid) in
            [(0, true), (1, false), (2, false), (3, true), (4, true), (5, false), (6, false), (7, false)]
        {
            assert_eq!(
                TrailerHead::decode(&with_check([code, 0, 0, 0, 1, 0, 0, 0])).is_ok(),
                is_valid,
                "{code}"
            );
        }
    }
}
