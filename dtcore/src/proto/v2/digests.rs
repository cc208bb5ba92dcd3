//! The digests of the file, as the sender reports them.

use super::WholeDigests;
use super::frame::Response;
use super::header::InvalidFrame;
use crate::digest::{Blake3Digest, Md5Digest};

/// The length in bytes of the digests, without header and check.
pub(crate) const WHOLE_DIGESTS_LEN: usize = 48;

/// The digests of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReportedDigests {
    pub(crate) blake3: Blake3Digest,
    /// Present if it was requested.
    pub(crate) md5: Option<Md5Digest>,
}

impl ReportedDigests {
    /// The complete frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let which = if self.md5.is_some() { WholeDigests::Blake3AndMd5 } else { WholeDigests::Blake3 };
        let (blake3, md5) = (<[u8; 32]>::from(self.blake3), self.md5.map_or([0; 16], <[u8; 16]>::from));
        Response::digests(which, &[&blake3[..], &md5].concat())
    }

    /// Reads the payload of the frame.
    pub(crate) fn decode(which: WholeDigests, payload: &[u8]) -> Result<Self, InvalidFrame> {
        let payload: &[u8; WHOLE_DIGESTS_LEN] = payload.try_into().map_err(|_| InvalidFrame)?;
        let (blake3, rest) = payload.split_first_chunk::<32>().ok_or(InvalidFrame)?;
        let md5 = rest.first_chunk::<16>().ok_or(InvalidFrame)?;
        let md5 = match which {
            WholeDigests::Blake3AndMd5 => Some((*md5).into()),
            WholeDigests::Blake3 if *md5 == [0; 16] => None,
            WholeDigests::Blake3 => return Err(InvalidFrame),
        };
        Ok(Self { blake3: (*blake3).into(), md5 })
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::{FRAME_LEN, checked_payload};
    use super::*;

    #[test]
    fn digests_are_read_back() {
        for md5 in [None, Some(Md5Digest::of(b"abc"))] {
            let digests = ReportedDigests { blake3: Blake3Digest::of(b"abc"), md5 };
            let bytes = digests.encode();
            let header = bytes.first_chunk().unwrap();
            let Ok(Response::Digests(which)) = Response::decode(header) else { panic!("{bytes:?}") };
            let payload = checked_payload(header, &bytes[FRAME_LEN..]).unwrap();
            assert_eq!(payload.len(), WHOLE_DIGESTS_LEN);
            assert_eq!(ReportedDigests::decode(which, payload), Ok(digests));
        }
    }
}
