//! The sender's side of a stream as pure state: what the receiver's frames request, checked against the manifest.

use std::collections::VecDeque;

use super::frame::{Request, Response, WireRun, reason_of};
use super::header::{FRAME_LEN, PAYLOAD_CHECK_LEN, checked_payload};
use super::{ErrorCode, ReceiverFailure, WholeDigests};
use crate::manifest::{BlockRun, Manifest};

/// How many steps are queued; frames beyond them stay unread.
///
/// A receiver keeps a few runs in flight. The protocol allows it many more, but the kernel holds those.
const MAX_STEPS: usize = 64;

const INVALID_FRAME: Step = Step::Refuse("invalid frame");

/// What is to be done next on a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Send this run.
    Send(BlockRun),
    /// Send the digests of this run's blocks, and no data.
    Prove(BlockRun),
    /// Send the digests of the file.
    Digests(WholeDigests),
    /// The transfer is over, and complete.
    End,
    /// The transfer is over, and not complete; what was requested before is of no use.
    Leave,
    /// The transfer is over, and failed; [`Responder::reason`] says why.
    Failed(ReceiverFailure),
    /// The receiver does not take the stream: it knows no such session, or has no place for it.
    Rejected(ErrorCode),
    /// The receiver violated the protocol: report this reason to it, and close.
    Refuse(&'static str),
}

/// Takes the receiver's bytes, in whatever pieces they arrive, and yields the steps in order.
#[derive(Debug)]
pub(crate) struct Responder {
    manifest: Manifest,
    /// The beginning of a frame whose end has not arrived.
    partial: [u8; FRAME_LEN],
    n_partial: usize,
    steps: VecDeque<Step>,
    /// The failure whose reason is being received, how long that is, and what has arrived of it.
    failing: Option<(ReceiverFailure, usize)>,
    reason: Vec<u8>,
    /// Nothing counts after an end or an invalid frame.
    is_over: bool,
}

impl Responder {
    /// A stream from which nothing was read yet.
    pub(crate) fn new(manifest: Manifest) -> Self {
        Self {
            manifest,
            partial: [0; FRAME_LEN],
            n_partial: 0,
            steps: VecDeque::new(),
            failing: None,
            reason: Vec::new(),
            is_over: false,
        }
    }

    /// How many bytes [`take`](Self::take) has room for; 0 means that steps must be done first, or that it is over.
    pub(crate) fn room(&self) -> usize {
        if self.is_over {
            return 0;
        }
        if let Some((_, len)) = self.failing {
            return len.saturating_sub(self.reason.len());
        }
        let frames = MAX_STEPS.saturating_sub(self.steps.len());
        frames.saturating_mul(FRAME_LEN).saturating_sub(self.n_partial)
    }

    /// Takes bytes, at most as many as there is [`room`](Self::room) for; returns how many.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while self.room() > 0 && !rest.is_empty() {
            if let Some((failure, len)) = self.failing {
                let n = self.room().min(rest.len());
                let Some((now, later)) = rest.split_at_checked(n) else { break };
                self.reason.extend_from_slice(now);
                rest = later;
                if self.reason.len() == len {
                    self.failing = None;
                    let is_intact = checked_payload(&self.partial, &self.reason).is_ok();
                    self.queue(if is_intact { Step::Failed(failure) } else { INVALID_FRAME });
                }
                continue;
            }
            let Some(space) = self.partial.get_mut(self.n_partial..) else { break };
            let n = space.len().min(rest.len());
            let Some((now, later)) = rest.split_at_checked(n) else { break };
            space.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.n_partial += n;
            rest = later;
            if self.n_partial == FRAME_LEN {
                self.n_partial = 0;
                match Request::decode(&self.partial) {
                    // The bounds of the frame are those of memory too.
                    Ok(Request::Fail(failure, len)) => {
                        self.failing = Some((failure, len + PAYLOAD_CHECK_LEN));
                    }
                    Ok(request) => {
                        let step = self.step(request);
                        self.queue(step);
                    }
                    // A receiver that was dialled refuses a hello as every server does.
                    Err(_) => self.queue(match Response::decode(&self.partial) {
                        Ok(Response::Refused(code, _)) => Step::Rejected(code),
                        Ok(_) | Err(_) => INVALID_FRAME,
                    }),
                }
            }
        }
        bytes.len().saturating_sub(rest.len())
    }

    fn queue(&mut self, step: Step) {
        self.is_over =
            matches!(step, Step::End | Step::Leave | Step::Failed(_) | Step::Rejected(_) | Step::Refuse(_));
        if matches!(step, Step::Leave | Step::Failed(_)) {
            self.steps.clear();
        }
        self.steps.push_back(step);
    }

    /// The receiver's words about its failure, without control characters.
    pub(crate) fn reason(&self) -> String {
        reason_of(self.reason.get(..self.reason.len().saturating_sub(PAYLOAD_CHECK_LEN)).unwrap_or_default())
    }

    /// The next step, if one is known.
    pub(crate) fn next(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// The run that is sent after this step, if it is known already.
    pub(crate) fn upcoming(&self) -> Option<BlockRun> {
        match self.steps.front() {
            Some(Step::Send(run)) => Some(*run),
            Some(
                Step::Prove(_)
                | Step::Digests(_)
                | Step::End
                | Step::Leave
                | Step::Failed(_)
                | Step::Rejected(_)
                | Step::Refuse(_),
            )
            | None => None,
        }
    }

    /// Whether no step waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether the receiver may stop here: not within a frame.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.n_partial == 0 && self.failing.is_none()
    }

    fn step(&self, request: Request) -> Step {
        match request {
            Request::End => Step::End,
            Request::Leave => Step::Leave,
            Request::Fail(failure, _) => Step::Failed(failure),
            Request::Digest(which) => Step::Digests(which),
            Request::Run(run) => self.run(run, Step::Send),
            Request::Proof(run) => self.run(run, Step::Prove),
        }
    }

    fn run(&self, run: WireRun, step: fn(BlockRun) -> Step) -> Step {
        let WireRun { first, count, length } = run;
        let run = self.manifest.run(first, count).filter(|run| self.manifest.run_len(*run) == Some(length));
        run.map_or(Step::Refuse("the manifest has no such run"), step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BlockSize;
    use proptest::prelude::*;

    const BLOCK: u64 = 1 << 20;

    fn manifest(size: u64) -> Manifest {
        Manifest::new(size, BlockSize::new(BLOCK).unwrap()).unwrap()
    }

    fn run(first: u64, count: u32, length: u64) -> Request {
        Request::Run(WireRun { first, count, length })
    }

    fn steps(size: u64, requests: &[Request]) -> Vec<Step> {
        let mut responder = Responder::new(manifest(size));
        for request in requests {
            responder.take(&request.encode());
        }
        std::iter::from_fn(|| responder.next()).collect()
    }

    #[test]
    fn runs_are_checked_against_the_manifest() {
        let size = 40 * BLOCK + 5;
        for (first, count, length, is_valid) in [
            (0, 1, BLOCK, true),
            (0, 16, 16 * BLOCK, true),
            (40, 1, 5, true),
            (39, 2, BLOCK + 5, true),
            (0, 17, 17 * BLOCK, false),
            (40, 2, 5, false),
            (41, 1, 5, false),
            (1 << 60, 1, BLOCK, false),
            (u64::MAX, 2, BLOCK, false),
            (40, 1, 6, false),
            (0, 1, BLOCK - 1, false),
        ] {
            let expected = match manifest(size).run(first, count).filter(|_| is_valid) {
                Some(run) => Step::Send(run),
                None => Step::Refuse("the manifest has no such run"),
            };
            assert_eq!(matches!(expected, Step::Send(_)), is_valid);
            assert_eq!(steps(size, &[run(first, count, length)]), [expected], "{first} {count} {length}");
            let proof = steps(size, &[Request::Proof(WireRun { first, count, length })]);
            let expected = if let Step::Send(run) = expected { Step::Prove(run) } else { expected };
            assert_eq!(proof, [expected], "{first} {count} {length}");
        }
        assert_eq!(steps(0, &[run(0, 1, 1)]), [Step::Refuse("the manifest has no such run")]);
    }

    #[test]
    fn frames_after_an_end_or_an_invalid_frame_are_ignored() {
        let digest = Request::Digest(WholeDigests::Blake3);
        let block = manifest(2048).run(0, 1).unwrap();
        let steps = steps(2048, &[run(0, 1, 2048), digest, Request::End, run(0, 1, 2048)]);
        assert_eq!(steps, [Step::Send(block), Step::Digests(WholeDigests::Blake3), Step::End]);
        let steps = self::steps(2048, &[run(0, 1, 2048), digest, Request::Leave, run(0, 1, 2048)]);
        assert_eq!(steps, [Step::Leave], "what was requested before is of no use");
        let mut responder = Responder::new(manifest(2048));
        assert_eq!(responder.take(&[7; 100]), FRAME_LEN);
        assert_eq!((responder.room(), responder.take(&run(0, 1, 2048).encode())), (0, 0));
        assert_eq!(responder.next(), Some(Step::Refuse("invalid frame")));
        assert_eq!(responder.next(), None);
    }

    #[test]
    fn refused_hello_is_recognised() {
        let mut responder = Responder::new(manifest(2048));
        responder.take(&Response::refusal(ErrorCode::NoSuchSession, "no such session"));
        assert_eq!(responder.next(), Some(Step::Rejected(ErrorCode::NoSuchSession)));
        assert_eq!((responder.room(), responder.next()), (0, None));
    }

    #[test]
    fn failure_has_its_reason_in_any_pieces_and_nothing_after_it() {
        let bytes = [
            run(0, 1, 2048).encode().as_slice(),
            &Request::failure(ReceiverFailure::DiskFull, "no space\x1b left"),
            &Request::End.encode(),
        ]
        .concat();
        for cut in 1..bytes.len() {
            let mut responder = Responder::new(manifest(2048));
            for piece in bytes.chunks(cut) {
                responder.take(piece);
            }
            assert_eq!(responder.next(), Some(Step::Failed(ReceiverFailure::DiskFull)), "{cut}");
            assert_eq!((responder.next(), responder.reason().as_str()), (None, "no space left"));
        }
        let mut damaged = Request::failure(ReceiverFailure::DiskFull, "no space left");
        damaged[FRAME_LEN + 2] ^= 1;
        let mut responder = Responder::new(manifest(2048));
        responder.take(&damaged);
        assert_eq!(responder.next(), Some(INVALID_FRAME));
    }

    #[test]
    fn queued_steps_are_bounded() {
        let frames = run(0, 1, 2048).encode().repeat(100);
        let mut responder = Responder::new(manifest(2048));
        assert_eq!(responder.take(&frames[..3]), 3);
        assert!(!responder.is_at_boundary());
        assert_eq!(responder.take(&frames[3..]), MAX_STEPS * FRAME_LEN - 3);
        assert!(responder.is_at_boundary());
        assert_eq!(responder.room(), 0);
        assert_eq!(responder.upcoming(), manifest(2048).run(0, 1));
        assert!(responder.next().is_some());
        assert_eq!(responder.room(), FRAME_LEN);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            bytes in proptest::collection::vec(0..4_u8, 0..200),
            cut in 1..30_usize,
        ) {
            let (mut once, mut pieces) = (Responder::new(manifest(2048)), Responder::new(manifest(2048)));
            let taken = once.take(&bytes);
            let in_pieces: usize = bytes.chunks(cut).map(|piece| pieces.take(piece)).sum();
            prop_assert_eq!(taken, in_pieces);
            prop_assert_eq!(&once.steps, &pieces.steps);
            prop_assert_eq!(once.n_partial, pieces.n_partial);
        }
    }
}
