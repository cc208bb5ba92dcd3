//! The sender's side of one stream: what the receiver's frames ask for, checked against the file.

use std::collections::VecDeque;

use super::{Demand, FRAME_LEN, WholeDigests};
use crate::digest::is_subtree;
use crate::manifest::{BlockSize, ByteRange};

/// How many steps are held; frames beyond them stay where they are, unread.
///
/// A receiver keeps a few ranges in flight. The protocol allows it many more, but it is the kernel that holds those.
const MOST_STEPS: usize = 64;

/// What is to be done next on a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Send this range, which is a subtree of the file.
    Send(ByteRange),
    /// Send the file's digests.
    Digests(WholeDigests),
    /// The transfer is over.
    End,
    /// The receiver broke the protocol: tell it so, and close.
    Refuse(&'static str),
}

/// Takes the receiver's bytes, in whatever pieces they come, and yields the steps in their order.
#[derive(Debug)]
pub(crate) struct Responder {
    size: u64,
    /// The beginning of a frame whose end has not come.
    partial: [u8; FRAME_LEN],
    n_partial: usize,
    steps: VecDeque<Step>,
    /// Nothing counts behind an end or a broken frame.
    is_over: bool,
}

impl Responder {
    /// A stream of a file of `size` bytes, from which nothing was read yet.
    pub(crate) fn new(size: u64) -> Self {
        Self { size, partial: [0; FRAME_LEN], n_partial: 0, steps: VecDeque::new(), is_over: false }
    }

    /// How many bytes [`take`](Self::take) has room for; 0 means that steps must be done first, or that it is over.
    pub(crate) fn room(&self) -> usize {
        if self.is_over {
            return 0;
        }
        let frames = MOST_STEPS.saturating_sub(self.steps.len());
        frames.saturating_mul(FRAME_LEN).saturating_sub(self.n_partial)
    }

    /// Takes bytes, at most as many as there is [`room`](Self::room) for; returns how many.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while self.room() > 0 && !rest.is_empty() {
            let Some(space) = self.partial.get_mut(self.n_partial..) else { break };
            let n = space.len().min(rest.len());
            let Some((now, later)) = rest.split_at_checked(n) else { break };
            space.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.n_partial += n;
            rest = later;
            if self.n_partial == FRAME_LEN {
                self.n_partial = 0;
                let step = self.step();
                self.is_over = matches!(step, Step::End | Step::Refuse(_));
                self.steps.push_back(step);
            }
        }
        bytes.len().saturating_sub(rest.len())
    }

    /// The next step, if one is known.
    pub(crate) fn next(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// The range that is sent after this step, if it is known already.
    pub(crate) fn upcoming(&self) -> Option<ByteRange> {
        match self.steps.front() {
            Some(Step::Send(range)) => Some(*range),
            Some(Step::Digests(_) | Step::End | Step::Refuse(_)) | None => None,
        }
    }

    /// Whether no step waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether the receiver may stop here: not within a frame.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.n_partial == 0
    }

    fn step(&self) -> Step {
        match Demand::decode(&self.partial) {
            Err(_) => Step::Refuse("not a frame of this protocol"),
            Ok(Demand::End) => Step::End,
            Ok(Demand::Digest(which)) => Step::Digests(which),
            Ok(Demand::Range(range)) if range.len() > BlockSize::MAX => {
                Step::Refuse("the range is over 16 MiB")
            }
            Ok(Demand::Range(range)) if range.end() > self.size => {
                Step::Refuse("the range ends behind the file's end")
            }
            Ok(Demand::Range(range)) if !is_subtree(self.size, range) => {
                Step::Refuse("the range is no subtree of the file")
            }
            Ok(Demand::Range(range)) => Step::Send(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, len: u64) -> Demand {
        Demand::Range(ByteRange::with_len(start, len))
    }

    fn steps(size: u64, demands: &[Demand]) -> Vec<Step> {
        let mut responder = Responder::new(size);
        for demand in demands {
            responder.take(&demand.encode());
        }
        std::iter::from_fn(|| responder.next()).collect()
    }

    #[test]
    fn ranges_are_checked_against_the_file() {
        const MIB: u64 = 1 << 20;
        let size = 40 * MIB + 5;
        for (start, len, expected) in [
            (0, 1024, Ok(())),
            (0, MIB, Ok(())),
            (16 * MIB, 16 * MIB, Ok(())),
            (40 * MIB, 5, Ok(())),
            (32 * MIB, 8 * MIB + 5, Ok(())),
            (0, 32 * MIB, Err("the range is over 16 MiB")),
            (0, size, Err("the range is over 16 MiB")),
            (40 * MIB, 6, Err("the range ends behind the file's end")),
            (1 << 60, 1024, Err("the range ends behind the file's end")),
            (40 * MIB, 4, Err("the range is no subtree of the file")),
            (1024, 2048, Err("the range is no subtree of the file")),
            (1, 1024, Err("the range is no subtree of the file")),
            (0, 3 * MIB, Err("the range is no subtree of the file")),
        ] {
            let expected = match expected {
                Ok(()) => Step::Send(ByteRange::with_len(start, len)),
                Err(reason) => Step::Refuse(reason),
            };
            assert_eq!(steps(size, &[range(start, len)]), [expected], "{start} {len}");
        }
        assert_eq!(steps(0, &[range(0, 1024)]), [Step::Refuse("the range ends behind the file's end")]);
    }

    #[test]
    fn nothing_counts_behind_the_end_or_a_broken_frame() {
        let digest = Demand::Digest(WholeDigests::Blake3);
        let steps = steps(2048, &[range(0, 1024), digest, Demand::End, range(0, 1024)]);
        let expected = [Step::Send(ByteRange::new(0, 1024)), Step::Digests(WholeDigests::Blake3), Step::End];
        assert_eq!(steps, expected);
        let mut responder = Responder::new(2048);
        assert_eq!(responder.take(&[7; 100]), FRAME_LEN);
        assert_eq!((responder.room(), responder.take(&range(0, 1024).encode())), (0, 0));
        assert_eq!(responder.next(), Some(Step::Refuse("not a frame of this protocol")));
        assert_eq!(responder.next(), None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let frames = range(0, 1024).encode().repeat(100);
        let mut responder = Responder::new(2048);
        assert_eq!(responder.take(&frames[..3]), 3);
        assert!(!responder.is_at_boundary());
        assert_eq!(responder.take(&frames[3..]), MOST_STEPS * FRAME_LEN - 3);
        assert!(responder.is_at_boundary());
        assert_eq!(responder.room(), 0);
        assert_eq!(responder.upcoming(), Some(ByteRange::new(0, 1024)));
        assert!(responder.next().is_some());
        assert_eq!(responder.room(), FRAME_LEN);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            bytes in proptest::collection::vec(0..4_u8, 0..200),
            cut in 1..30_usize,
        ) {
            let (mut whole, mut pieces) = (Responder::new(2048), Responder::new(2048));
            let taken = whole.take(&bytes);
            let in_pieces: usize = bytes.chunks(cut).map(|piece| pieces.take(piece)).sum();
            prop_assert_eq!(taken, in_pieces);
            prop_assert_eq!(&whole.steps, &pieces.steps);
            prop_assert_eq!(whole.n_partial, pieces.n_partial);
        }
    }
}
