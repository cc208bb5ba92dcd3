//! The frames of protocol 2, written a second time from their description.

use std::io::Read;
use std::ops::Range;

use blake3::hazmat::HasherExt;

/// The length of a frame's header in bytes.
pub const FRAME: usize = 24;
/// The length of what follows a range's bytes.
pub const TRAILER: usize = 40;
/// The length of what follows the header of the whole file's digests.
pub const WHOLE_DIGESTS: usize = 48;
/// The length of a greeting.
pub const GREETING: usize = 28;

/// The first bytes of a stream.
pub fn greeting(stream: u8, secret: [u8; 16], session: u64, flags: u8) -> Vec<u8> {
    [&[stream][..], &secret, &session.to_le_bytes(), &[2, flags, 0]].concat()
}

/// A frame's header.
pub fn header(kind: u8, code: u8, offset: u64, length: u64) -> Vec<u8> {
    [&[kind, code, 0, 0, 0, 0, 0, 0][..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
}

/// The demand for a range.
pub fn range(range: &Range<u64>) -> Vec<u8> {
    header(0x01, 0, range.start, range.end - range.start)
}

/// The demand for the file's digests: 1 is BLAKE3, 3 is MD5 too.
pub fn digest(code: u8) -> Vec<u8> {
    header(0x02, code, 0, 0)
}

/// The word that the transfer is over.
pub fn end() -> Vec<u8> {
    header(0x03, 0, 0, 0)
}

/// A range with its trailer.
pub fn data(offset: u64, bytes: &[u8], code: u8, digest: &[u8; 32]) -> Vec<u8> {
    let length = u64::try_from(bytes.len()).expect("it fits");
    [&header(0x81, 0, offset, length)[..], bytes, &[code, 0, 0, 0, 0, 0, 0, 0], digest].concat()
}

/// The file's digests.
pub fn digests(blake3: &[u8; 32], md5: Option<[u8; 16]>) -> Vec<u8> {
    let code = if md5.is_some() { 3 } else { 1 };
    [&header(0x82, code, 0, 48)[..], blake3, &md5.unwrap_or_default()].concat()
}

/// A refusal.
pub fn refused(code: u8, reason: &str) -> Vec<u8> {
    let length = u64::try_from(reason.len()).expect("it fits");
    [&header(0x8f, code, 0, length)[..], reason.as_bytes()].concat()
}

/// A frame of the sender with what follows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// A range: where it begins, its bytes, the trailer's code and digest.
    Data {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        bytes: Vec<u8>,
        /// 0 when they are right.
        code: u8,
        /// The range's digest.
        digest: [u8; 32],
    },
    /// The file's digests.
    Digests {
        /// What was asked for.
        code: u8,
        /// The BLAKE3 hash.
        blake3: [u8; 32],
        /// The MD5, or zeros.
        md5: [u8; 16],
    },
    /// The digests are being computed.
    Wait(u64),
    /// The server stops.
    Drain,
    /// Why there will be nothing more.
    Refused {
        /// The number.
        code: u8,
        /// The words.
        reason: String,
    },
}

impl Frame {
    /// The next frame; `None` when the stream ends where one may end.
    pub fn read(stream: &mut impl Read) -> Option<Self> {
        let first: [u8; 1] = exactly(stream)?;
        let rest: [u8; FRAME - 1] = exactly(stream).expect("a stream ends between frames");
        let header = [&first[..], &rest].concat();
        assert_eq!(header[2..8], [0; 6], "the bytes that are 0: {header:?}");
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let (kind, code, offset, length) = (header[0], header[1], number(8), number(16));
        Some(match kind {
            0x81 => {
                assert!(code == 0 && (1..=16 << 20).contains(&length), "{header:?}");
                let mut bytes = vec![0; usize::try_from(length).expect("it fits")];
                stream.read_exact(&mut bytes).expect("the range comes whole");
                let trailer: [u8; TRAILER] = exactly(stream).expect("the trailer comes whole");
                assert_eq!(trailer[1..8], [0; 7], "{trailer:?}");
                let digest = trailer[8..].try_into().expect("32 bytes");
                Self::Data { offset, bytes, code: trailer[0], digest }
            }
            0x82 => {
                assert_eq!((offset, length), (0, 48), "{header:?}");
                let blake3 = exactly(stream).expect("the hash comes whole");
                Self::Digests { code, blake3, md5: exactly(stream).expect("the MD5 comes whole") }
            }
            0x83 => {
                assert_eq!((code, length), (0, 0), "{header:?}");
                Self::Wait(offset)
            }
            0x84 => {
                assert_eq!((code, offset, length), (0, 0, 0), "{header:?}");
                Self::Drain
            }
            0x8f => {
                assert!(offset == 0 && length <= 512, "{header:?}");
                let mut reason = vec![0; usize::try_from(length).expect("it fits")];
                stream.read_exact(&mut reason).expect("the reason comes whole");
                Self::Refused { code, reason: String::from_utf8(reason).expect("it is UTF-8") }
            }
            _ => panic!("no frame of a sender: {header:?}"),
        })
    }
}

/// The next `N` bytes; `None` at the end, also when it comes as a reset.
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

/// The digest of a range of a file of `size` bytes: its chaining value, or the file's hash if it is the whole.
pub fn range_digest(size: u64, offset: u64, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    if u64::try_from(bytes.len()).ok() == Some(size) {
        return *hasher.update(bytes).finalize().as_bytes();
    }
    hasher.set_input_offset(offset).update(bytes).finalize_non_root()
}
