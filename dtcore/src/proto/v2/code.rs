//! The codes of frames: what went wrong, and which digests are meant.

use super::InvalidFrame;

/// What is wrong, in a trailer or as a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ErrorCode {
    NoSuchSession,
    NoSuchStream,
    SourceChanged,
    SourceUnreadable,
    ProtocolViolation,
    Busy,
}

impl ErrorCode {
    pub(super) fn encode(self) -> u8 {
        match self {
            Self::NoSuchSession => 1,
            Self::NoSuchStream => 2,
            Self::SourceChanged => 3,
            Self::SourceUnreadable => 4,
            Self::ProtocolViolation => 5,
            Self::Busy => 6,
        }
    }

    pub(super) fn decode(code: u8) -> Result<Self, InvalidFrame> {
        match code {
            1 => Ok(Self::NoSuchSession),
            2 => Ok(Self::NoSuchStream),
            3 => Ok(Self::SourceChanged),
            4 => Ok(Self::SourceUnreadable),
            5 => Ok(Self::ProtocolViolation),
            6 => Ok(Self::Busy),
            _ => Err(InvalidFrame),
        }
    }
}

/// Which digests of the file are requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WholeDigests {
    Blake3,
    Blake3AndMd5,
}

impl WholeDigests {
    pub(super) fn encode(self) -> u8 {
        match self {
            Self::Blake3 => 1,
            Self::Blake3AndMd5 => 3,
        }
    }

    pub(super) fn decode(code: u8) -> Result<Self, InvalidFrame> {
        match code {
            1 => Ok(Self::Blake3),
            3 => Ok(Self::Blake3AndMd5),
            _ => Err(InvalidFrame),
        }
    }
}
