//! The header that begins every frame, and the checks that detect accidental corruption.

/// The length of a frame header in bytes.
pub(crate) const FRAME_LEN: usize = 24;

/// The length in bytes of the check after a payload.
pub(crate) const PAYLOAD_CHECK_LEN: usize = 8;

/// Bytes that are no valid frame of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a valid frame of protocol 2")]
pub(crate) struct InvalidFrame;

/// The fields that all frames share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) count: u32,
    pub(super) first: u64,
    pub(super) length: u64,
}

impl Header {
    pub(super) fn encode(self) -> [u8; FRAME_LEN] {
        let mut bytes = [0; FRAME_LEN];
        let fields = [self.kind, self.code, 0, 0]
            .into_iter()
            .chain(self.count.to_le_bytes())
            .chain(self.first.to_le_bytes())
            .chain(self.length.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        with_check(bytes)
    }

    pub(super) fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self, InvalidFrame> {
        let ([kind, code, _, _], rest) = bytes.split_first_chunk().ok_or(InvalidFrame)?;
        let (count, rest) = rest.split_first_chunk().ok_or(InvalidFrame)?;
        let (first, rest) = rest.split_first_chunk().ok_or(InvalidFrame)?;
        let length = rest.first_chunk().ok_or(InvalidFrame)?;
        if with_check(*bytes) != *bytes {
            return Err(InvalidFrame);
        }
        Ok(Self {
            kind: *kind,
            code: *code,
            count: u32::from_le_bytes(*count),
            first: u64::from_le_bytes(*first),
            length: u64::from_le_bytes(*length),
        })
    }
}

/// The bytes with their check, 2 bytes from the third on, which is computed with these as 0.
pub(super) fn with_check<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    let mut set = |check: [u8; 2]| {
        bytes.iter_mut().skip(2).zip(check).for_each(|(byte, part)| *byte = part);
        bytes
    };
    let [first, second, ..] = *blake3::hash(&set([0, 0])).as_bytes();
    set([first, second])
}

/// A complete frame with a payload: header, payload, check.
pub(super) fn with_payload(header: [u8; FRAME_LEN], payload: &[u8]) -> Vec<u8> {
    [&header[..], payload, &payload_check(&header, payload)].concat()
}

/// The payload of a frame, from the bytes that follow its header.
///
/// # Errors
/// The check is wrong, or there is none.
pub(crate) fn checked_payload<'a>(
    header: &[u8; FRAME_LEN],
    payload_and_check: &'a [u8],
) -> Result<&'a [u8], InvalidFrame> {
    let (payload, check) = payload_and_check.split_last_chunk::<PAYLOAD_CHECK_LEN>().ok_or(InvalidFrame)?;
    if payload_check(header, payload) == *check { Ok(payload) } else { Err(InvalidFrame) }
}

fn payload_check(header: &[u8; FRAME_LEN], payload: &[u8]) -> [u8; PAYLOAD_CHECK_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(payload);
    hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
}
