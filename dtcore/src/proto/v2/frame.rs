//! The frames: what the receiver demands, and what the sender replies.

use crate::digest::{Blake3Digest, Md5Digest, RangeDigest};
use crate::manifest::ByteRange;
use crate::proto::v1;

/// A frame header's length in bytes.
pub(crate) const FRAME_LEN: usize = 24;

/// The length in bytes of what follows the data.
pub(crate) const TRAILER_LEN: usize = 40;

/// The length in bytes of what follows the header of the file's digests.
pub(crate) const WHOLE_DIGESTS_LEN: usize = 48;

/// The longest reason of a refusal, in bytes.
pub(crate) const MAX_REASON: usize = 512;

/// The most demands that may be unanswered on one stream.
pub(crate) const MAX_UNANSWERED: usize = 1024;

/// The header that all frames share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    kind: u8,
    code: u8,
    offset: u64,
    length: u64,
}

/// Bytes that are no frame of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a frame of protocol 2")]
pub(crate) struct InvalidFrame;

impl Header {
    fn encode(self) -> [u8; FRAME_LEN] {
        let mut bytes = [0; FRAME_LEN];
        // Two bytes that are 0, and the file's index, which is 0 as long as a session serves one file.
        let parts = [self.kind, self.code, 0, 0, 0, 0, 0, 0]
            .into_iter()
            .chain(self.offset.to_le_bytes())
            .chain(self.length.to_le_bytes());
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self, InvalidFrame> {
        let ([kind, code, 0, 0, 0, 0, 0, 0], rest) = bytes.split_first_chunk().ok_or(InvalidFrame)? else {
            return Err(InvalidFrame);
        };
        let (offset, rest) = rest.split_first_chunk().ok_or(InvalidFrame)?;
        let length = rest.first_chunk().ok_or(InvalidFrame)?;
        Ok(Self {
            kind: *kind,
            code: *code,
            offset: u64::from_le_bytes(*offset),
            length: u64::from_le_bytes(*length),
        })
    }

    /// The range that offset and length name; none if it is empty or ends behind the largest offset.
    fn range(self) -> Result<ByteRange, InvalidFrame> {
        let end = self.offset.checked_add(self.length).ok_or(InvalidFrame)?;
        if self.length == 0 { Err(InvalidFrame) } else { Ok(ByteRange::new(self.offset, end)) }
    }
}

/// Which digests of the whole file are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WholeDigests {
    Blake3,
    Blake3AndMd5,
}

impl WholeDigests {
    fn code(self) -> u8 {
        match self {
            Self::Blake3 => 1,
            Self::Blake3AndMd5 => 3,
        }
    }

    fn of_code(code: u8) -> Result<Self, InvalidFrame> {
        match code {
            1 => Ok(Self::Blake3),
            3 => Ok(Self::Blake3AndMd5),
            _ => Err(InvalidFrame),
        }
    }
}

/// A frame of the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Demand {
    /// Send this range. Whether the file has it, and whether it is a subtree, is not checked here.
    Range(ByteRange),
    /// Send the file's digests.
    Digest(WholeDigests),
    /// The transfer is over.
    End,
}

impl Demand {
    /// The bytes on the wire.
    pub(crate) fn encode(self) -> [u8; FRAME_LEN] {
        let (kind, code, range) = match self {
            Self::Range(range) => (0x01, 0, range),
            Self::Digest(which) => (0x02, which.code(), ByteRange::default()),
            Self::End => (0x03, 0, ByteRange::default()),
        };
        Header { kind, code, offset: range.start(), length: range.len() }.encode()
    }

    /// Reads a frame of the receiver.
    pub(crate) fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self, InvalidFrame> {
        let header = Header::decode(bytes)?;
        match header {
            Header { kind: 0x01, code: 0, .. } => header.range().map(Self::Range),
            Header { kind: 0x02, code, offset: 0, length: 0 } => {
                WholeDigests::of_code(code).map(Self::Digest)
            }
            Header { kind: 0x03, code: 0, offset: 0, length: 0 } => Ok(Self::End),
            _ => Err(InvalidFrame),
        }
    }
}

/// What is wrong, as trailer or as refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ErrorCode {
    NoSuchSession,
    NoSuchStream,
    SourceChanged,
    SourceUnreadable,
    BrokenProtocol,
    Busy,
}

impl ErrorCode {
    fn code(self) -> u8 {
        match self {
            Self::NoSuchSession => 1,
            Self::NoSuchStream => 2,
            Self::SourceChanged => 3,
            Self::SourceUnreadable => 4,
            Self::BrokenProtocol => 5,
            Self::Busy => 6,
        }
    }

    fn of_code(code: u8) -> Result<Self, InvalidFrame> {
        match code {
            1 => Ok(Self::NoSuchSession),
            2 => Ok(Self::NoSuchStream),
            3 => Ok(Self::SourceChanged),
            4 => Ok(Self::SourceUnreadable),
            5 => Ok(Self::BrokenProtocol),
            6 => Ok(Self::Busy),
            _ => Err(InvalidFrame),
        }
    }
}

/// A frame of the sender: its header, which says what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    /// The bytes of this range follow, then a [`Trailer`].
    Data(ByteRange),
    /// [`WholeDigestsReply`] follows.
    Digests(WholeDigests),
    /// The file's digests are being computed; so many bytes are through.
    Wait { hashed: u64 },
    /// The server stops; nothing follows.
    Drain,
    /// So many bytes of reason follow, at most [`MAX_REASON`]; then nothing.
    Refused(ErrorCode, usize),
}

impl Reply {
    /// The bytes on the wire.
    pub(crate) fn encode(self) -> [u8; FRAME_LEN] {
        let (kind, code, offset, length) = match self {
            Self::Data(range) => (0x81, 0, range.start(), range.len()),
            Self::Digests(which) => (0x82, which.code(), 0, DIGESTS_LENGTH),
            Self::Wait { hashed } => (0x83, 0, hashed, 0),
            Self::Drain => (0x84, 0, 0, 0),
            Self::Refused(code, reason) => {
                (0x8f, code.code(), 0, u64::try_from(reason.min(MAX_REASON)).unwrap_or(0))
            }
        };
        Header { kind, code, offset, length }.encode()
    }

    /// Reads a frame header of the sender.
    pub(crate) fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self, InvalidFrame> {
        let header = Header::decode(bytes)?;
        match header {
            Header { kind: 0x81, code: 0, .. } => header.range().map(Self::Data),
            Header { kind: 0x82, code, offset: 0, length: DIGESTS_LENGTH } => {
                WholeDigests::of_code(code).map(Self::Digests)
            }
            Header { kind: 0x83, code: 0, offset, length: 0 } => Ok(Self::Wait { hashed: offset }),
            Header { kind: 0x84, code: 0, offset: 0, length: 0 } => Ok(Self::Drain),
            Header { kind: 0x8f, code, offset: 0, length } => {
                let length = usize::try_from(length).ok().filter(|length| *length <= MAX_REASON);
                Ok(Self::Refused(ErrorCode::of_code(code)?, length.ok_or(InvalidFrame)?))
            }
            _ => Err(InvalidFrame),
        }
    }

    /// A whole refusal: the header and the reason, cut to what fits.
    pub(crate) fn refusal(code: ErrorCode, reason: &str) -> Vec<u8> {
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = reason.get(..end).unwrap_or_default();
        let mut bytes = Self::Refused(code, reason.len()).encode().to_vec();
        bytes.extend_from_slice(reason.as_bytes());
        bytes
    }
}

/// The length of the digests, as it stands in their header.
const DIGESTS_LENGTH: u64 = 48;

/// What follows the data: its digest, or why it is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trailer(pub(crate) Result<RangeDigest, ErrorCode>);

impl Trailer {
    /// The bytes on the wire.
    pub(crate) fn encode(self) -> [u8; TRAILER_LEN] {
        let (code, digest): (u8, [u8; 32]) = match self.0 {
            Ok(digest) => (0, digest.into()),
            Err(code) => (code.code(), [0; 32]),
        };
        let mut bytes = [0; TRAILER_LEN];
        let parts = [code, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(digest);
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    /// Reads a trailer.
    pub(crate) fn decode(bytes: &[u8; TRAILER_LEN]) -> Result<Self, InvalidFrame> {
        let ([code, 0, 0, 0, 0, 0, 0, 0], rest) = bytes.split_first_chunk().ok_or(InvalidFrame)? else {
            return Err(InvalidFrame);
        };
        let digest: &[u8; 32] = rest.first_chunk().ok_or(InvalidFrame)?;
        match ErrorCode::of_code(*code) {
            Err(_) if *code == 0 => Ok(Self(Ok((*digest).into()))),
            Ok(code @ (ErrorCode::SourceChanged | ErrorCode::SourceUnreadable)) if *digest == [0; 32] => {
                Ok(Self(Err(code)))
            }
            Ok(_) | Err(_) => Err(InvalidFrame),
        }
    }
}

/// The digests of the whole file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WholeDigestsReply {
    pub(crate) blake3: Blake3Digest,
    /// There if it was asked for.
    pub(crate) md5: Option<Md5Digest>,
}

impl WholeDigestsReply {
    /// The header and the digests.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let which = if self.md5.is_some() { WholeDigests::Blake3AndMd5 } else { WholeDigests::Blake3 };
        let mut bytes = Reply::Digests(which).encode().to_vec();
        bytes.extend_from_slice(&<[u8; 32]>::from(self.blake3));
        bytes.extend_from_slice(&self.md5.map_or([0; 16], <[u8; 16]>::from));
        bytes
    }

    /// Reads what follows the header.
    pub(crate) fn decode(which: WholeDigests, bytes: &[u8; WHOLE_DIGESTS_LEN]) -> Result<Self, InvalidFrame> {
        let (blake3, rest) = bytes.split_first_chunk::<32>().ok_or(InvalidFrame)?;
        let md5 = rest.first_chunk::<16>().ok_or(InvalidFrame)?;
        let md5 = match which {
            WholeDigests::Blake3AndMd5 => Some((*md5).into()),
            WholeDigests::Blake3 if *md5 == [0; 16] => None,
            WholeDigests::Blake3 => return Err(InvalidFrame),
        };
        Ok(Self { blake3: (*blake3).into(), md5 })
    }
}

/// The reason of a refusal as it came: without control characters, and text whatever it was.
pub(crate) fn reason_of(bytes: &[u8]) -> String {
    v1::printable(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().unwrap()
    }

    /// The bytes on the wire, pinned.
    #[test]
    fn frames_are_these_bytes() {
        let range = ByteRange::with_len(0x0102_0000, 0x8_0000);
        let ranged = |kind| [kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0];
        assert_eq!(Demand::Range(range).encode(), ranged(1));
        assert_eq!(Reply::Data(range).encode(), ranged(0x81));
        let plain = |kind, code, at: usize, value| {
            let mut bytes = [0; FRAME_LEN];
            (bytes[0], bytes[1], bytes[at]) = (kind, code, value);
            bytes
        };
        assert_eq!(Demand::Digest(WholeDigests::Blake3AndMd5).encode(), plain(2, 3, 16, 0));
        assert_eq!(Demand::End.encode(), plain(3, 0, 16, 0));
        assert_eq!(Reply::Digests(WholeDigests::Blake3).encode(), plain(0x82, 1, 16, 48));
        assert_eq!(Reply::Wait { hashed: 9 }.encode(), plain(0x83, 0, 8, 9));
        assert_eq!(Reply::Drain.encode(), plain(0x84, 0, 16, 0));
        assert_eq!(Reply::refusal(ErrorCode::Busy, "no"), [&plain(0x8f, 6, 16, 2)[..], b"no"].concat());
        let digest = RangeDigest::from([7; 32]);
        assert_eq!(Trailer(Ok(digest)).encode(), array([[0; 8].as_slice(), &[7; 32]].concat().as_slice()));
        assert_eq!(Trailer(Err(ErrorCode::SourceChanged)).encode()[..2], [3, 0]);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let good = Demand::Range(ByteRange::with_len(0, 1024)).encode();
        for (at, value) in [(0, 0), (0, 4), (0, 0x81), (1, 1), (2, 1), (3, 1), (4, 1), (7, 1), (8, 0xff)] {
            let mut bytes = good;
            bytes[at] = value;
            let expected = if at == 8 { Ok(()) } else { Err(InvalidFrame) };
            assert_eq!(Demand::decode(&bytes).map(|_| ()), expected, "{at}");
        }
        let at_the_end = Header { kind: 1, code: 0, offset: u64::MAX, length: 1 };
        for header in [Header { length: 2, ..at_the_end }, Header { length: 0, ..at_the_end }, at_the_end] {
            assert_eq!(Demand::decode(&header.encode()), Err(InvalidFrame), "{header:?}");
        }
        let too_long = Header { kind: 0x8f, code: 1, offset: 0, length: 513 };
        assert_eq!(Reply::decode(&too_long.encode()), Err(InvalidFrame));
    }

    #[test]
    fn a_reason_is_cut_between_characters_and_cleaned() {
        let bytes = Reply::refusal(ErrorCode::Busy, &format!("x{}", "é".repeat(300)));
        let Ok(Reply::Refused(ErrorCode::Busy, len)) = Reply::decode(&array(&bytes[..FRAME_LEN])) else {
            panic!("{bytes:?}")
        };
        assert_eq!((len, bytes.len()), (511, FRAME_LEN + 511));
        assert_eq!(reason_of(b"a\x1b[2Jb\xff"), "a[2Jb\u{fffd}");
    }

    #[test]
    fn digests_are_read_back() {
        for md5 in [None, Some(Md5Digest::of(b"abc"))] {
            let reply = WholeDigestsReply { blake3: Blake3Digest::of(b"abc"), md5 };
            let bytes = reply.encode();
            assert_eq!(bytes.len(), FRAME_LEN + WHOLE_DIGESTS_LEN);
            let Ok(Reply::Digests(which)) = Reply::decode(&array(&bytes[..FRAME_LEN])) else {
                panic!("{bytes:?}")
            };
            assert_eq!(WholeDigestsReply::decode(which, &array(&bytes[FRAME_LEN..])), Ok(reply));
        }
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_gives_them_back_or_an_error(bytes: [u8; FRAME_LEN], kind in 0..10_u8) {
            let mut bytes = bytes;
            bytes[0] = if kind < 5 { kind } else { 0x7c + kind };
            bytes[2..8].fill(0);
            if let Ok(demand) = Demand::decode(&bytes) {
                prop_assert_eq!(demand.encode(), bytes);
            }
            if let Ok(reply) = Reply::decode(&bytes) {
                prop_assert_eq!(reply.encode(), bytes);
            }
        }

        #[test]
        fn decoding_any_trailer_gives_it_back_or_an_error(bytes: [u8; TRAILER_LEN], code in 0..8_u8) {
            let mut bytes = bytes;
            bytes[0] = code;
            bytes[1..8].fill(0);
            if let Ok(trailer) = Trailer::decode(&bytes) {
                prop_assert_eq!(trailer.encode(), bytes);
            }
        }
    }
}
