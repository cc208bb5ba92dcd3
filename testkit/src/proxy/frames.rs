//! Follows the frames of either side of a stream, and flips bits in them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fate::{Fate, Place};
use crate::frame::{DIGEST, HEADER, HELLO, PAYLOAD_CHECK, TRAILER, kind};

/// The bit that is flipped.
const BIT: u8 = 0x10;

/// What the trackers of all connections share.
#[derive(Debug)]
pub(super) struct Common {
    /// The size of a block in the last offer.
    pub(super) block: AtomicU64,
    /// How many bits of frames and hellos may still be flipped.
    pub(super) flips_left: AtomicU64,
    /// How many were.
    pub(super) n_flips: AtomicU64,
}

impl Common {
    pub(super) fn new() -> Self {
        Self { block: AtomicU64::new(0), flips_left: AtomicU64::new(u64::MAX), n_flips: AtomicU64::new(0) }
    }

    fn may_flip(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        let may_flip = self.flips_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        self.n_flips.fetch_add(u64::from(may_flip), Ordering::SeqCst);
        may_flip
    }
}

/// Where in the frames one direction of a stream is.
#[derive(Debug)]
pub(super) struct Tracker {
    header: Vec<u8>,
    state: State,
    /// The kinds of which a frame has passed.
    seen: BTreeSet<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Hello { at: u64 },
    Header,
    Payload { frame: Header, at: u64 },
    Trailer { frame: Header, at: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u8,
    code: u8,
    count: u64,
    first: u64,
    length: u64,
    /// Whether it is the first of its kind.
    is_first: bool,
}

impl Header {
    fn trailer_length(self) -> u64 {
        let length = match self.kind {
            kind::DATA => return len(TRAILER) + self.count * len(DIGEST),
            kind::OFFER | kind::DIGESTS | kind::REFUSED => PAYLOAD_CHECK,
            _ => 0,
        };
        len(length)
    }

    fn payload_length(self) -> u64 {
        match self.kind {
            // The digests of a run alone.
            kind::DATA if self.code == 1 => 0,
            kind::OFFER | kind::DATA | kind::DIGESTS | kind::REFUSED => self.length,
            _ => 0,
        }
    }
}

fn len(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("it fits")
}

impl Tracker {
    /// Follows a direction that begins with a frame.
    pub(super) fn of_frames() -> Self {
        Self { header: Vec::new(), state: State::Header, seen: BTreeSet::new() }
    }

    /// Follows a direction that begins with a hello.
    pub(super) fn of_hello() -> Self {
        Self { state: State::Hello { at: 0 }, ..Self::of_frames() }
    }

    /// Follows `bytes`, the next ones, and flips the bits that `fate` says.
    pub(super) fn pass(&mut self, bytes: &mut [u8], fate: &Fate, common: &Common) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = match self.state {
                State::Hello { at } => len(HELLO) - at,
                State::Header => len(HEADER - self.header.len()),
                State::Payload { frame, at } => frame.payload_length() - at,
                State::Trailer { frame, at } => frame.trailer_length() - at,
            };
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            rest = later;
            self.state = self.after(now, fate, common);
        }
    }

    fn after(&mut self, bytes: &mut [u8], fate: &Fate, common: &Common) -> State {
        let n = len(bytes.len());
        match self.state {
            State::Hello { at } => {
                for flipped in &fate.hello_flips {
                    flip_if(bytes, at, *flipped, || common.may_flip());
                }
                if at + n < len(HELLO) { State::Hello { at: at + n } } else { State::Header }
            }
            State::Header => {
                let at = len(self.header.len());
                self.header.extend_from_slice(bytes);
                let kind = self.header[0];
                if !self.seen.contains(&kind) {
                    flip_in_frame(bytes, at, kind, (fate, common), |place| match place {
                        Place::Header(flipped) => Some(flipped),
                        Place::Payload(_) | Place::Trailer(_) => None,
                    });
                }
                if self.header.len() < HEADER {
                    return State::Header;
                }
                let header = std::mem::take(&mut self.header);
                let number =
                    |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
                let count = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")).into();
                let is_first = self.seen.insert(kind);
                next(Header { kind, code: header[1], count, first: number(8), length: number(16), is_first })
            }
            State::Payload { frame, at } => {
                if frame.kind == kind::DATA {
                    for flipped in &fate.file_flips {
                        if let Some(flipped) =
                            flipped.checked_sub(frame.first * common.block.load(Ordering::SeqCst))
                        {
                            flip_if(bytes, at, flipped, || true);
                        }
                    }
                }
                if frame.is_first {
                    flip_in_frame(bytes, at, frame.kind, (fate, common), |place| match place {
                        Place::Payload(flipped) => Some(flipped),
                        Place::Header(_) | Place::Trailer(_) => None,
                    });
                }
                if at + n < frame.length {
                    State::Payload { frame, at: at + n }
                } else {
                    State::Trailer { frame, at: 0 }
                }
            }
            State::Trailer { frame, at } => {
                if frame.is_first {
                    flip_in_frame(bytes, at, frame.kind, (fate, common), |place| match place {
                        Place::Trailer(flipped) => Some(flipped),
                        Place::Header(_) | Place::Payload(_) => None,
                    });
                }
                if at + n < frame.trailer_length() {
                    State::Trailer { frame, at: at + n }
                } else {
                    State::Header
                }
            }
        }
    }
}

fn next(frame: Header) -> State {
    if frame.payload_length() > 0 {
        State::Payload { frame, at: 0 }
    } else if frame.trailer_length() > 0 {
        State::Trailer { frame, at: 0 }
    } else {
        State::Header
    }
}

/// Flips a bit of `bytes`, the first of which is at `at`, if the byte at `flipped` is one of them.
fn flip_if(bytes: &mut [u8], at: u64, flipped: u64, may_flip: impl Fn() -> bool) {
    let index = flipped.checked_sub(at).and_then(|at| usize::try_from(at).ok());
    if let Some(byte) = index.and_then(|at| bytes.get_mut(at)).filter(|_| may_flip()) {
        *byte ^= BIT;
    }
}

fn flip_in_frame(
    bytes: &mut [u8],
    at: u64,
    kind: u8,
    (fate, common): (&Fate, &Common),
    part: impl Fn(Place) -> Option<u64>,
) {
    for (_, place) in fate.frame_flips.iter().filter(|(flipped, _)| *flipped == kind) {
        if let Some(flipped) = part(*place) {
            flip_if(bytes, at, flipped, || common.may_flip());
        }
    }
}
