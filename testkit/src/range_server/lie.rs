//! What a server does wrong on demand.

use std::ops::Range;

/// What the server does wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Nothing.
    Nothing,
    /// It accepts streams, makes its offer, and sends nothing else.
    Mute,
    /// Its offer has another value for this key, or lacks the key if the value is empty.
    Offer(&'static str, &'static str),
    /// It ignores that an upgrade is requested: the offer is the body of the answer, as behind a proxy that removes the
    /// headers.
    NoUpgrade,
    /// The digest of the block that holds this byte is wrong, every time.
    Digest(u64),
    /// One bit of this byte of the file is wrong, and the block's digest matches what was sent.
    Consistent(u64),
    /// The file's digests in the end are those of something else.
    FileDigests,
    /// The trailer of the run that holds this byte has this code.
    Trailer(u64, u8),
    /// This byte of the fixed part of that run's trailer has this value, and the check fits it.
    TrailerByte(u64, usize, u8),
    /// These bytes arrive instead of the run that holds this byte.
    Instead(u64, Vec<u8>),
    /// The same, but only the first time.
    InsteadOnce(u64, Vec<u8>),
    /// Every stream is refused with this code.
    Refuses(u8),
    /// This stream is always refused with this code, the others never are.
    RefusesOne(u8, u8),
    /// The first connection of every stream is refused with this code, the others are not.
    RefusesOnce(u8),
    /// It closes every stream on which nothing is requested, and takes a second to compute the digests.
    ClosesIdle,
    /// It answers a `DIGEST` before the `RUN`s that arrived before it.
    DigestsFirst,
    /// It computes the digests indefinitely, with progress.
    Waits,
    /// It computes the digests indefinitely, without progress, because it cannot read any more.
    Hangs,
}

impl Lie {
    /// Whether it is about this run, whose bytes are these.
    pub(super) fn is_about(&self, bytes: &Range<u64>) -> bool {
        match self {
            Self::Digest(at)
            | Self::Consistent(at)
            | Self::Trailer(at, _)
            | Self::TrailerByte(at, ..)
            | Self::Instead(at, _)
            | Self::InsteadOnce(at, _) => bytes.contains(at),
            Self::Nothing
            | Self::Mute
            | Self::Offer(..)
            | Self::NoUpgrade
            | Self::FileDigests
            | Self::Refuses(_)
            | Self::RefusesOne(..)
            | Self::RefusesOnce(_)
            | Self::ClosesIdle
            | Self::DigestsFirst
            | Self::Waits
            | Self::Hangs => false,
        }
    }

    /// The code with which a stream is refused, whose first connection it may be.
    pub(super) fn refusal(&self, stream: u8, is_first: bool) -> Option<u8> {
        match self {
            Self::RefusesOnce(code) => Some(*code).filter(|_| is_first),
            Self::Refuses(code) => Some(*code),
            Self::RefusesOne(one, code) => Some(*code).filter(|_| *one == stream),
            Self::Nothing
            | Self::Mute
            | Self::Offer(..)
            | Self::NoUpgrade
            | Self::Digest(_)
            | Self::Consistent(_)
            | Self::FileDigests
            | Self::Trailer(..)
            | Self::TrailerByte(..)
            | Self::Instead(..)
            | Self::InsteadOnce(..)
            | Self::ClosesIdle
            | Self::DigestsFirst
            | Self::Waits
            | Self::Hangs => None,
        }
    }

    /// How many times a `WAIT` precedes the digests.
    pub(super) fn n_waits(&self) -> u64 {
        match self {
            Self::Waits | Self::Hangs => u64::MAX,
            Self::ClosesIdle => 10,
            Self::Nothing
            | Self::Mute
            | Self::Offer(..)
            | Self::NoUpgrade
            | Self::Digest(_)
            | Self::Consistent(_)
            | Self::FileDigests
            | Self::Trailer(..)
            | Self::TrailerByte(..)
            | Self::Instead(..)
            | Self::InsteadOnce(..)
            | Self::Refuses(_)
            | Self::RefusesOne(..)
            | Self::RefusesOnce(_)
            | Self::DigestsFirst => 0,
        }
    }
}
