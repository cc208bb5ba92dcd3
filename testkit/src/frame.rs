//! The hello and the frames of protocol 2, written a second time from their description.

use std::io::Read;
use std::ops::Range;

use blake3::hazmat::HasherExt;

/// The length of a hello in bytes.
pub const HELLO: usize = 28;
/// The second byte of a hello.
pub const MARK: u8 = 0xD7;
/// The length of a frame's header in bytes.
pub const HEADER: usize = 24;
/// The length of the fixed part of a trailer.
pub const TRAILER: usize = 8;
/// The length of a digest.
pub const DIGEST: usize = 32;
/// The length of the file's digests in `DIGESTS`.
pub const FILE_DIGESTS: usize = 48;
/// The length of a payload check.
pub const PAYLOAD_CHECK: usize = 8;

/// The kinds of frames, by their names in the description.
#[expect(missing_docs, reason = "the description of the protocol has them")]
pub mod kind {
    pub const RUN: u8 = 0x01;
    pub const DIGEST: u8 = 0x02;
    pub const END: u8 = 0x03;
    pub const OFFER: u8 = 0x80;
    pub const DATA: u8 = 0x81;
    pub const DIGESTS: u8 = 0x82;
    pub const WAIT: u8 = 0x83;
    pub const DRAIN: u8 = 0x84;
    pub const REFUSED: u8 = 0x8f;
}

/// The first bytes of a stream that is dialled.
pub fn hello(stream: u8, session: u64, secret: [u8; 16], flags: u8) -> Vec<u8> {
    [&[stream, MARK, 2, flags][..], &session.to_le_bytes(), &secret].concat()
}

/// A frame's header with its check.
pub fn header(kind: u8, code: u8, count: u32, first: u64, length: u64) -> Vec<u8> {
    let mut bytes =
        [&[kind, code, 0, 0][..], &count.to_le_bytes(), &first.to_le_bytes(), &length.to_le_bytes()].concat();
    set_check(&mut bytes);
    bytes
}

/// Puts the check of a header, or of the fixed part of a trailer, into it: for one whose other bytes were changed.
pub fn set_check(bytes: &mut [u8]) {
    let check = check(bytes);
    bytes[2..4].copy_from_slice(&check);
}

fn check(bytes: &[u8]) -> [u8; 2] {
    let mut bytes = bytes.to_vec();
    bytes[2..4].fill(0);
    truncated(&bytes)
}

/// The first bytes of the BLAKE3 hash.
fn truncated<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The request for a run of blocks that has `length` bytes.
pub fn run(blocks: &Range<u64>, length: u64) -> Vec<u8> {
    header(kind::RUN, 0, count(blocks), blocks.start, length)
}

/// The request for the digests of a run of blocks that has `length` bytes.
pub fn proof_request(blocks: &Range<u64>, length: u64) -> Vec<u8> {
    header(kind::RUN, 1, count(blocks), blocks.start, length)
}

/// The number of blocks in a run.
fn count(blocks: &Range<u64>) -> u32 {
    u32::try_from(blocks.end - blocks.start).expect("a run has few blocks")
}

/// The request for the file's digests: 1 is BLAKE3, 3 is BLAKE3 and MD5.
pub fn digest(code: u8) -> Vec<u8> {
    header(kind::DIGEST, code, 0, 0, 0)
}

/// The transfer is over.
pub fn end() -> Vec<u8> {
    header(kind::END, 0, 0, 0, 0)
}

/// A header, its payload and the payload check.
fn with_payload(kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let bytes = [&header(kind, code, 0, 0, length(payload))[..], payload].concat();
    let check: [u8; PAYLOAD_CHECK] = truncated(&bytes);
    [&bytes[..], &check].concat()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("it fits")
}

/// The offer of a session.
pub fn offer(json: &str) -> Vec<u8> {
    with_payload(kind::OFFER, 0, json.as_bytes())
}

/// A run of blocks from `first` with its trailer.
pub fn data(first: u64, bytes: &[u8], code: u8, digests: &[[u8; DIGEST]]) -> Vec<u8> {
    let count = u32::try_from(digests.len()).expect("a run has few blocks");
    [&header(kind::DATA, 0, count, first, length(bytes))[..], bytes, &trailer(code, digests)].concat()
}

/// The digests of a run of blocks from `first` that has `length` bytes.
pub fn proof(first: u64, length: u64, digests: &[[u8; DIGEST]]) -> Vec<u8> {
    let count = u32::try_from(digests.len()).expect("a run has few blocks");
    [header(kind::DATA, 1, count, first, length), trailer(0, digests)].concat()
}

/// The trailer of a run.
pub fn trailer(code: u8, digests: &[[u8; DIGEST]]) -> Vec<u8> {
    let count = u32::try_from(digests.len()).expect("a run has few blocks");
    let mut fixed = [&[code, 0, 0, 0][..], &count.to_le_bytes()].concat();
    set_check(&mut fixed);
    [&fixed[..], &digests.concat()].concat()
}

/// The file's digests.
pub fn digests(blake3: &[u8; 32], md5: Option<[u8; 16]>) -> Vec<u8> {
    let code = if md5.is_some() { 3 } else { 1 };
    with_payload(kind::DIGESTS, code, &[&blake3[..], &md5.unwrap_or_default()].concat())
}

/// The digests are being computed and `n_read` bytes were read for them.
pub fn wait(n_read: u64) -> Vec<u8> {
    header(kind::WAIT, 0, 0, n_read, 0)
}

/// The server shuts down.
pub fn drain() -> Vec<u8> {
    header(kind::DRAIN, 0, 0, 0, 0)
}

/// A refusal.
pub fn refused(code: u8, reason: &str) -> Vec<u8> {
    with_payload(kind::REFUSED, code, reason.as_bytes())
}

/// A frame of the sender with what follows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// The offer, as JSON.
    Offer(String),
    /// A run of blocks.
    Data {
        /// The first block.
        first: u64,
        /// The bytes of all blocks.
        bytes: Vec<u8>,
        /// 0 if the bytes are valid.
        code: u8,
        /// The digest of each block.
        digests: Vec<[u8; DIGEST]>,
    },
    /// The digests of a run of blocks, without their bytes.
    Proof {
        /// The first block.
        first: u64,
        /// How many bytes the blocks have.
        length: u64,
        /// 0 if the digests are valid.
        code: u8,
        /// The digest of each block.
        digests: Vec<[u8; DIGEST]>,
    },
    /// The file's digests.
    Digests {
        /// The code of the request.
        code: u8,
        /// The BLAKE3 hash.
        blake3: [u8; 32],
        /// The MD5, or zeros.
        md5: [u8; 16],
    },
    /// The digests are being computed.
    Wait(u64),
    /// The server shuts down.
    Drain,
    /// The stream is refused.
    Refused {
        /// The reason as a number.
        code: u8,
        /// The reason as a text.
        reason: String,
    },
}

impl Frame {
    /// The next frame; `None` when the stream ends where one may end. Panics on a frame that is invalid.
    pub fn read(stream: &mut impl Read) -> Option<Self> {
        let first: [u8; 1] = exactly(stream)?;
        let rest: [u8; HEADER - 1] = exactly(stream).expect("a stream ends between frames");
        let header = [&first[..], &rest].concat();
        assert_eq!(header[2..4], check(&header), "the header's check: {header:?}");
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let (code, count) = (header[1], u32::from_le_bytes(header[4..8].try_into().expect("four bytes")));
        let (first, length) = (number(8), number(16));
        match header[0] {
            kind::OFFER => {
                assert!((code, count, first) == (0, 0, 0) && (1..=16384).contains(&length), "{header:?}");
                Some(Self::Offer(text(payload(stream, &header, length))))
            }
            kind::DATA => {
                assert!(code <= 1 && count > 0 && length <= 16 << 20, "{header:?}");
                let bytes = if code == 0 { read_vec(stream, length) } else { Vec::new() };
                let fixed: [u8; TRAILER] = exactly(stream).expect("the trailer is complete");
                assert_eq!(fixed[2..4], check(&fixed), "the trailer's check: {fixed:?}");
                assert_eq!((fixed[1], &fixed[4..]), (0, &header[4..8]), "{fixed:?} after {header:?}");
                let digest = |_| exactly(stream).expect("the digests are complete");
                let digests = (0..count).map(digest).collect();
                Some(if code == 0 {
                    Self::Data { first, bytes, code: fixed[0], digests }
                } else {
                    Self::Proof { first, length, code: fixed[0], digests }
                })
            }
            kind::DIGESTS => {
                assert_eq!((count, first, length), (0, 0, 48), "{header:?}");
                let digests = payload(stream, &header, length);
                let (blake3, md5) = digests.split_first_chunk().expect("48 bytes");
                Some(Self::Digests { code, blake3: *blake3, md5: md5.try_into().expect("16 bytes") })
            }
            kind::WAIT => {
                assert_eq!((code, count, length), (0, 0, 0), "{header:?}");
                Some(Self::Wait(first))
            }
            kind::DRAIN => {
                assert_eq!((code, count, first, length), (0, 0, 0, 0), "{header:?}");
                Some(Self::Drain)
            }
            kind::REFUSED => {
                assert!((count, first) == (0, 0) && length <= 512, "{header:?}");
                Some(Self::Refused { code, reason: text(payload(stream, &header, length)) })
            }
            _ => panic!("not a frame of a sender: {header:?}"),
        }
    }
}

/// A payload whose check is right.
fn payload(stream: &mut impl Read, header: &[u8], length: u64) -> Vec<u8> {
    let payload = read_vec(stream, length);
    let check: [u8; PAYLOAD_CHECK] = exactly(stream).expect("the payload check is complete");
    assert_eq!(check, truncated(&[header, &payload].concat()), "the payload check after {header:?}");
    payload
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("it is UTF-8")
}

fn read_vec(stream: &mut impl Read, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).expect("it fits")];
    stream.read_exact(&mut bytes).expect("the payload is complete");
    bytes
}

/// The next `N` bytes; `None` at the end, also after a reset.
fn exactly<const N: usize>(stream: &mut impl Read) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    match stream.read_exact(&mut bytes) {
        Ok(()) => Some(bytes),
        Err(error) => {
            use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
            assert!(matches!(error.kind(), ConnectionReset | UnexpectedEof), "a stream is silent: {error}");
            None
        }
    }
}

/// The digest of a block of a file of `size` bytes: its chaining value, or the file's hash if it is the only block.
pub fn block_digest(size: u64, offset: u64, bytes: &[u8]) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new();
    if length(bytes) == size {
        return *hasher.update(bytes).finalize().as_bytes();
    }
    hasher.set_input_offset(offset).update(bytes).finalize_non_root()
}

/// The digests of the blocks of a run, whose first byte is at `offset` in a file of `size` bytes.
pub fn block_digests(size: u64, block: u64, offset: u64, bytes: &[u8]) -> Vec<[u8; DIGEST]> {
    let block_len = usize::try_from(block).expect("it fits");
    (0..)
        .zip(bytes.chunks(block_len))
        .map(|(n, chunk)| block_digest(size, offset + n * block, chunk))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden bytes: a change of the encoders shows here, also one that the reader would go along with.
    #[test]
    fn encoders_have_golden_bytes() {
        let golden = |bytes: &[u8]| crate::content::hex(bytes);
        assert_eq!(
            golden(&hello(7, 0xa7, *b"0123456789abcdef", 1)),
            "07d70201a70000000000000030313233343536373839616263646566"
        );
        let frame = header(kind::RUN, 0, 2, 3, 5);
        assert_eq!(golden(&frame[..2]), "0100");
        assert_eq!(golden(&frame[4..]), "0200000003000000000000000500000000000000");
        let unchecked = [&frame[..2], &[0, 0], &frame[4..]].concat();
        assert_eq!(frame[2..4], blake3::hash(&unchecked).as_bytes()[..2]);
        let refused = refused(5, "no");
        assert_eq!(refused.len(), HEADER + 2 + PAYLOAD_CHECK);
        assert_eq!(refused[26..], blake3::hash(&refused[..26]).as_bytes()[..8]);
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let (bytes, block) = (crate::content::pattern(1, 40_000), 16 << 10);
        let digests = block_digests(100_000, block, block, &bytes);
        assert_eq!(digests.len(), 3);
        let written = [
            offer("{}"),
            data(1, &bytes, 0, &digests),
            proof(1, 40_000, &digests),
            super::digests(&[7; 32], Some([9; 16])),
            wait(7),
            drain(),
            refused(6, "full"),
        ]
        .concat();
        let mut rest = written.as_slice();
        let read: Vec<Frame> = std::iter::from_fn(|| Frame::read(&mut rest)).collect();
        let expected = [
            Frame::Offer("{}".to_owned()),
            Frame::Data { first: 1, bytes, code: 0, digests: digests.clone() },
            Frame::Proof { first: 1, length: 40_000, code: 0, digests },
            Frame::Digests { code: 3, blake3: [7; 32], md5: [9; 16] },
            Frame::Wait(7),
            Frame::Drain,
            Frame::Refused { code: 6, reason: "full".to_owned() },
        ];
        assert!(read == expected, "{read:?}");
    }
}
