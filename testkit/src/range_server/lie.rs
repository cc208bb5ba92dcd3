//! What a server does wrong on demand.

/// What the server does wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Nothing.
    Nothing,
    /// It accepts greetings and never says a word.
    Mute,
    /// It answers with other values for these keys of its JSON.
    Answer(&'static str, &'static str),
    /// The digest of the block that holds this byte is wrong, every time.
    Digest(u64),
    /// One bit of this byte of the file is wrong, and the block's digest is that of what was sent.
    Consistent(u64),
    /// The file's digests in the end are those of something else.
    WholeDigests,
    /// The trailer of the block that holds this byte has this code.
    Trailer(u64, u8),
    /// Instead of the block that holds this byte come these bytes.
    Instead(u64, Vec<u8>),
    /// Every stream is refused with this code.
    Refuses(u8),
    /// Another server, which knows none of its sessions, has its data port; its control port carries streams.
    ForeignDataPort,
    /// It closes every stream that asks for nothing, and takes a second to compute the digests.
    ClosesIdle,
    /// This stream is always refused with this code, the others never are.
    RefusesOne(u8, u8),
    /// The first connection of every stream is refused with this code, the others are not.
    RefusesOnce(u8),
    /// It never ends computing the digests, and says that it gets on with them.
    Waits,
    /// It never ends computing the digests, because it cannot read any more.
    Hangs,
}

impl Lie {
    /// The byte of the file that it is about.
    pub(super) fn place(&self) -> Option<u64> {
        match self {
            Self::Digest(at) | Self::Consistent(at) | Self::Trailer(at, _) | Self::Instead(at, _) => {
                Some(*at)
            }
            Self::Nothing
            | Self::Mute
            | Self::Answer(..)
            | Self::WholeDigests
            | Self::Refuses(_)
            | Self::RefusesOne(..)
            | Self::RefusesOnce(_)
            | Self::Waits
            | Self::Hangs
            | Self::ClosesIdle
            | Self::ForeignDataPort => None,
        }
    }
    /// The code with which a stream is refused, whose `first` connection it may be, where sessions are known or not.
    pub(super) fn refusal(&self, stream: u8, first: bool, knows_sessions: bool) -> Option<u8> {
        match self {
            Self::ForeignDataPort => Some(1).filter(|_| !knows_sessions),
            Self::RefusesOnce(code) => Some(*code).filter(|_| first),
            Self::Refuses(code) => Some(*code),
            Self::RefusesOne(one, code) => Some(*code).filter(|_| *one == stream),
            Self::Nothing
            | Self::Mute
            | Self::Answer(..)
            | Self::Digest(_)
            | Self::Consistent(_)
            | Self::WholeDigests
            | Self::Trailer(..)
            | Self::Instead(..)
            | Self::Waits
            | Self::Hangs
            | Self::ClosesIdle => None,
        }
    }
}
