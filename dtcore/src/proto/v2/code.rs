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

/// Why a receiver that was dialled does not complete the transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReceiverFailure {
    /// Something else.
    Other,
    /// There is no room for the file.
    DiskFull,
    /// There is a file of this name, which must not be replaced.
    Exists,
    /// Another transfer writes it.
    InUse,
    /// The bytes do not match their digests.
    Corrupt,
    /// The file changed during the transfer.
    SourceChanged,
    /// The receiver has saved blocks of another version of the file.
    SourceReplaced,
    /// Nothing arrived for too long.
    TimedOut,
    /// The receiver shuts down.
    ShuttingDown,
}

impl ReceiverFailure {
    const ALL: [Self; 9] = [
        Self::Other,
        Self::DiskFull,
        Self::Exists,
        Self::InUse,
        Self::Corrupt,
        Self::SourceChanged,
        Self::SourceReplaced,
        Self::TimedOut,
        Self::ShuttingDown,
    ];

    pub(super) fn encode(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::DiskFull => 2,
            Self::Exists => 3,
            Self::InUse => 4,
            Self::Corrupt => 5,
            Self::SourceChanged => 6,
            Self::SourceReplaced => 7,
            Self::TimedOut => 8,
            Self::ShuttingDown => 9,
        }
    }

    pub(super) fn decode(code: u8) -> Result<Self, InvalidFrame> {
        Self::ALL.into_iter().find(|failure| failure.encode() == code).ok_or(InvalidFrame)
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
