//! The receiver's side of a stream as pure state: what was requested, and what may therefore arrive.

use std::collections::VecDeque;

use super::frame::{MAX_UNANSWERED, Request, Response, WireRun};
use super::header::FRAME_LEN;
use super::{ErrorCode, WholeDigests};
use crate::manifest::{BlockRun, Manifest};

/// What was requested on one stream and is not answered yet.
#[derive(Debug)]
pub(crate) struct Requester {
    manifest: Manifest,
    /// The answers to requests for runs, in the order in which they arrive.
    runs: VecDeque<Incoming>,
    digests: Option<WholeDigests>,
}

/// What follows a header of the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Incoming {
    /// The data of this run, then its trailer; the run counts as unanswered until [`Requester::run_answered`].
    Run(BlockRun),
    /// The trailer of this run, without its data; it counts as unanswered as well.
    Proof(BlockRun),
    /// The digests of the file.
    Digests(WholeDigests),
    /// Nothing: the digests are being computed.
    Wait {
        /// How many bytes the server has read for them.
        hashed: u64,
    },
    /// Nothing any more: the server shuts down.
    Drain,
    /// A reason of so many bytes, and nothing any more.
    Refused(ErrorCode, usize),
}

/// What arrived violates the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Violation {
    #[error("invalid frame")]
    InvalidFrame,
    #[error("response to something that was not requested")]
    NotRequested,
}

impl Requester {
    /// A stream on which nothing was requested yet.
    pub(crate) fn new(manifest: Manifest) -> Self {
        Self { manifest, runs: VecDeque::new(), digests: None }
    }

    /// The bytes that request `run`; `None` if the manifest lacks it, or the sender need not read another request.
    pub(crate) fn request_run(&mut self, run: BlockRun) -> Option<[u8; FRAME_LEN]> {
        self.request(run, Request::Run, Incoming::Run)
    }

    /// The bytes that request the digests of the blocks of `run`; `None` as for the run itself.
    pub(crate) fn request_proof(&mut self, run: BlockRun) -> Option<[u8; FRAME_LEN]> {
        self.request(run, Request::Proof, Incoming::Proof)
    }

    fn request(
        &mut self,
        run: BlockRun,
        request: fn(WireRun) -> Request,
        answer: fn(BlockRun) -> Incoming,
    ) -> Option<[u8; FRAME_LEN]> {
        let length = self.manifest.run_len(run).filter(|_| self.n_unanswered() < MAX_UNANSWERED)?;
        self.runs.push_back(answer(run));
        let first = u64::from(run.first.value());
        Some(request(WireRun { first, count: run.count, length }).encode())
    }

    /// The sender pushes `run` with its offer, before it answers anything.
    pub(crate) fn expect_pushed(&mut self, run: BlockRun) {
        self.runs.push_front(Incoming::Run(run));
    }

    /// The bytes that request the digests of the file; `None` as for a run, or if they are requested already.
    pub(crate) fn request_digests(&mut self, which: WholeDigests) -> Option<[u8; FRAME_LEN]> {
        if self.digests.is_some() || self.n_unanswered() >= MAX_UNANSWERED {
            return None;
        }
        self.digests = Some(which);
        Some(Request::Digest(which).encode())
    }

    /// How many requests are unanswered.
    pub(crate) fn n_unanswered(&self) -> usize {
        self.runs.len() + usize::from(self.digests.is_some())
    }

    /// Reads a header of the sender: runs are answered in order, the digests at any time.
    pub(crate) fn header(&self, bytes: &[u8; FRAME_LEN]) -> Result<Incoming, Violation> {
        match Response::decode(bytes).map_err(|_| Violation::InvalidFrame)? {
            Response::Data(run) => self.oldest(run, Incoming::Run),
            Response::Proof(run) => self.oldest(run, Incoming::Proof),
            Response::Digests(which) if self.digests == Some(which) => Ok(Incoming::Digests(which)),
            Response::Wait { hashed } if self.digests.is_some() => Ok(Incoming::Wait { hashed }),
            Response::Drain => Ok(Incoming::Drain),
            Response::Refused(code, len) => Ok(Incoming::Refused(code, len)),
            Response::Digests(_) | Response::Wait { .. } | Response::Offer(_) => Err(Violation::NotRequested),
        }
    }

    /// The answer with this run, if it is the next one.
    fn oldest(&self, run: WireRun, answer: fn(BlockRun) -> Incoming) -> Result<Incoming, Violation> {
        let WireRun { first, count, length } = run;
        let run = self.manifest.run(first, count).filter(|run| self.manifest.run_len(*run) == Some(length));
        let answer = run.map(answer).filter(|answer| self.runs.front() == Some(answer));
        answer.ok_or(Violation::NotRequested)
    }

    /// The oldest run has arrived to the last byte of its trailer.
    pub(crate) fn run_answered(&mut self) {
        self.runs.pop_front();
    }

    /// The digests have arrived.
    pub(crate) fn digests_answered(&mut self) {
        self.digests = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BlockSize;

    fn manifest() -> Manifest {
        Manifest::new(100_000, BlockSize::new(1 << 14).unwrap()).unwrap()
    }

    fn run(first: u64, count: u32) -> BlockRun {
        manifest().run(first, count).unwrap()
    }

    fn data(first: u64, count: u32) -> [u8; FRAME_LEN] {
        let length = manifest().run_len(run(first, count)).unwrap();
        Response::Data(WireRun { first, count, length }).encode()
    }

    #[test]
    fn runs_are_answered_in_order_and_digests_at_any_time() {
        let mut stream = Requester::new(manifest());
        let first = stream.request_run(run(3, 2)).unwrap();
        assert_eq!(first, Request::Run(WireRun { first: 3, count: 2, length: 2 << 14 }).encode());
        stream.request_run(run(1, 1)).unwrap();
        let digests = Response::Digests(WholeDigests::Blake3).encode();
        let wait = Response::Wait { hashed: 7 }.encode();
        assert_eq!(stream.header(&digests), Err(Violation::NotRequested));
        assert_eq!(stream.header(&wait), Err(Violation::NotRequested));
        stream.request_digests(WholeDigests::Blake3).unwrap();
        assert_eq!(stream.request_digests(WholeDigests::Blake3), None, "they are requested already");
        assert_eq!(stream.header(&wait), Ok(Incoming::Wait { hashed: 7 }));
        assert_eq!(stream.header(&data(1, 1)), Err(Violation::NotRequested));
        assert_eq!(stream.header(&data(3, 2)), Ok(Incoming::Run(run(3, 2))));
        stream.run_answered();
        let other = Response::Digests(WholeDigests::Blake3AndMd5).encode();
        assert_eq!(stream.header(&other), Err(Violation::NotRequested));
        assert_eq!(stream.header(&digests), Ok(Incoming::Digests(WholeDigests::Blake3)));
        stream.digests_answered();
        assert_eq!(stream.header(&data(1, 1)), Ok(Incoming::Run(run(1, 1))));
        stream.run_answered();
        assert_eq!(stream.n_unanswered(), 0);
        assert_eq!(stream.header(&data(1, 1)), Err(Violation::NotRequested));
    }

    #[test]
    fn pushed_run_precedes_what_was_requested() {
        let mut stream = Requester::new(manifest());
        stream.request_run(run(4, 1)).unwrap();
        stream.expect_pushed(run(0, 4));
        assert_eq!(stream.header(&data(0, 4)), Ok(Incoming::Run(run(0, 4))));
        stream.run_answered();
        assert_eq!(stream.header(&data(4, 1)), Ok(Incoming::Run(run(4, 1))));
    }

    #[test]
    fn digests_without_data_are_answered_only_if_requested() {
        let mut stream = Requester::new(manifest());
        let request = stream.request_proof(run(3, 2)).unwrap();
        assert_eq!(request, Request::Proof(WireRun { first: 3, count: 2, length: 2 << 14 }).encode());
        stream.request_run(run(3, 2)).unwrap();
        let proof = Response::Proof(WireRun { first: 3, count: 2, length: 2 << 14 }).encode();
        assert_eq!(stream.header(&data(3, 2)), Err(Violation::NotRequested));
        assert_eq!(stream.header(&proof), Ok(Incoming::Proof(run(3, 2))));
        assert_eq!(stream.n_unanswered(), 2);
        stream.run_answered();
        assert_eq!(stream.header(&proof), Err(Violation::NotRequested));
        assert_eq!(stream.header(&data(3, 2)), Ok(Incoming::Run(run(3, 2))));
    }

    #[test]
    fn other_runs_and_lengths_are_violations() {
        let mut stream = Requester::new(manifest());
        stream.request_run(run(0, 2)).unwrap();
        for (first, count, length) in
            [(0, 1, 1 << 14), (0, 2, 1 << 14), (1, 2, 2 << 14), (0, 200, 2 << 14), (u64::MAX, 2, 1)]
        {
            let header = Response::Data(WireRun { first, count, length }).encode();
            assert_eq!(stream.header(&header), Err(Violation::NotRequested), "{first} {count} {length}");
        }
        assert_eq!(stream.header(&[0xff; FRAME_LEN]), Err(Violation::InvalidFrame));
        assert_eq!(stream.header(&Response::Offer(3).encode()), Err(Violation::NotRequested));
        assert_eq!(stream.request_run(BlockRun { count: 9, ..run(0, 1) }), None);
    }

    #[test]
    fn end_may_arrive_at_any_time() {
        let stream = Requester::new(manifest());
        assert_eq!(stream.header(&Response::Drain.encode()), Ok(Incoming::Drain));
        let refused = Response::Refused(ErrorCode::Busy, 3).encode();
        assert_eq!(stream.header(&refused), Ok(Incoming::Refused(ErrorCode::Busy, 3)));
    }

    #[test]
    fn requests_are_bounded() {
        let mut stream = Requester::new(manifest());
        let n = (0..2 * MAX_UNANSWERED).filter(|_| stream.request_run(run(0, 1)).is_some()).count();
        assert_eq!(n, MAX_UNANSWERED);
        assert_eq!(stream.request_digests(WholeDigests::Blake3), None);
    }
}
