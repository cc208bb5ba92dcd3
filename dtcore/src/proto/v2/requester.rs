//! The receiver's side of a stream: demands go out, and their answers come back in the same order.

use std::collections::VecDeque;

use super::{Demand, ErrorCode, FRAME_LEN, MAX_UNANSWERED, Reply, WholeDigests};
use crate::manifest::{BlockId, Manifest};

/// What was demanded on one stream and is not answered yet.
#[derive(Debug)]
pub(crate) struct Requester {
    manifest: Manifest,
    unanswered: VecDeque<Asked>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Block(BlockId),
    Digest(WholeDigests),
}

/// What comes behind a header of the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Coming {
    /// The bytes of this block, then their trailer; the demand counts as unanswered until [`Requester::answered`].
    Block(BlockId),
    /// The digests of the file; the same.
    Digests(WholeDigests),
    /// Nothing: the digests are being computed.
    Wait {
        /// How many bytes the server has read for them.
        hashed: u64,
    },
    /// Nothing any more: the server stops.
    Drain,
    /// A reason of so many bytes, and nothing any more.
    Refused(ErrorCode, usize),
}

/// The sender said what it must not say now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BrokenProtocol {
    #[error("what came is no frame")]
    NoFrame,
    #[error("what came is not what was asked for")]
    NotAsked,
}

impl Requester {
    /// A stream on which nothing was demanded yet.
    pub(crate) fn new(manifest: Manifest) -> Self {
        Self { manifest, unanswered: VecDeque::new() }
    }

    /// The bytes that demand `block`; `None` if the sender need not read any more demands.
    pub(crate) fn ask_block(&mut self, block: BlockId) -> Option<[u8; FRAME_LEN]> {
        self.ask(Asked::Block(block), Demand::Range(self.manifest.range(block)))
    }

    /// The bytes that demand the file's digests; `None` as for a block.
    pub(crate) fn ask_digests(&mut self, which: WholeDigests) -> Option<[u8; FRAME_LEN]> {
        self.ask(Asked::Digest(which), Demand::Digest(which))
    }

    fn ask(&mut self, asked: Asked, demand: Demand) -> Option<[u8; FRAME_LEN]> {
        (self.unanswered.len() < MAX_UNANSWERED).then(|| {
            self.unanswered.push_back(asked);
            demand.encode()
        })
    }

    /// How many demands are unanswered.
    pub(crate) fn n_unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Reads a header of the sender: it must fit the oldest demand.
    pub(crate) fn header(&self, bytes: &[u8; FRAME_LEN]) -> Result<Coming, BrokenProtocol> {
        let reply = Reply::decode(bytes).map_err(|_| BrokenProtocol::NoFrame)?;
        let oldest = self.unanswered.front();
        match (reply, oldest) {
            (Reply::Data(range), Some(Asked::Block(block))) if self.manifest.range(*block) == range => {
                Ok(Coming::Block(*block))
            }
            (Reply::Digests(which), Some(Asked::Digest(asked))) if which == *asked => {
                Ok(Coming::Digests(which))
            }
            (Reply::Wait { hashed }, Some(Asked::Digest(_))) => Ok(Coming::Wait { hashed }),
            (Reply::Drain, _) => Ok(Coming::Drain),
            (Reply::Refused(code, len), _) => Ok(Coming::Refused(code, len)),
            (Reply::Data(_) | Reply::Digests(_) | Reply::Wait { .. }, _) => Err(BrokenProtocol::NotAsked),
        }
    }

    /// The oldest demand is answered to its last byte.
    pub(crate) fn answered(&mut self) {
        self.unanswered.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{BlockSize, ByteRange};

    fn manifest() -> Manifest {
        Manifest::new(100_000, BlockSize::new(1 << 14).unwrap()).unwrap()
    }

    fn data(block: u64) -> [u8; FRAME_LEN] {
        Reply::Data(manifest().range(manifest().block(block).unwrap())).encode()
    }

    #[test]
    fn answers_come_in_the_order_of_the_demands() {
        let (manifest, mut stream) = (manifest(), Requester::new(manifest()));
        let [first, second] = [3, 1].map(|block| manifest.block(block).unwrap());
        assert_eq!(
            stream.ask_block(first),
            Some(Demand::Range(ByteRange::with_len(3 << 14, 1 << 14)).encode())
        );
        stream.ask_block(second).unwrap();
        stream.ask_digests(WholeDigests::Blake3).unwrap();
        assert_eq!(stream.header(&data(1)), Err(BrokenProtocol::NotAsked));
        assert_eq!(stream.header(&data(3)), Ok(Coming::Block(first)));
        stream.answered();
        assert_eq!(stream.header(&data(3)), Err(BrokenProtocol::NotAsked));
        assert_eq!(stream.header(&data(1)), Ok(Coming::Block(second)));
        let wait = Reply::Wait { hashed: 7 }.encode();
        assert_eq!(stream.header(&wait), Err(BrokenProtocol::NotAsked), "a block is due");
        stream.answered();
        assert_eq!(stream.header(&wait), Ok(Coming::Wait { hashed: 7 }));
        let digests = |which| Reply::Digests(which).encode();
        assert_eq!(stream.header(&digests(WholeDigests::Blake3AndMd5)), Err(BrokenProtocol::NotAsked));
        assert_eq!(stream.header(&digests(WholeDigests::Blake3)), Ok(Coming::Digests(WholeDigests::Blake3)));
        stream.answered();
        assert_eq!(stream.n_unanswered(), 0);
        assert_eq!(stream.header(&data(3)), Err(BrokenProtocol::NotAsked));
    }

    #[test]
    fn another_range_than_the_block_is_not_what_was_asked_for() {
        let mut stream = Requester::new(manifest());
        stream.ask_block(manifest().block(0).unwrap()).unwrap();
        let half = Reply::Data(ByteRange::with_len(0, 1 << 13)).encode();
        assert_eq!(stream.header(&half), Err(BrokenProtocol::NotAsked));
        assert_eq!(stream.header(&[0xff; FRAME_LEN]), Err(BrokenProtocol::NoFrame));
    }

    #[test]
    fn an_end_may_come_at_any_time() {
        let stream = Requester::new(manifest());
        assert_eq!(stream.header(&Reply::Drain.encode()), Ok(Coming::Drain));
        let refused = Reply::Refused(ErrorCode::Busy, 3).encode();
        assert_eq!(stream.header(&refused), Ok(Coming::Refused(ErrorCode::Busy, 3)));
    }

    #[test]
    fn demands_are_bounded() {
        let mut stream = Requester::new(manifest());
        let block = manifest().block(0).unwrap();
        let n = (0..2 * MAX_UNANSWERED).filter(|_| stream.ask_block(block).is_some()).count();
        assert_eq!(n, MAX_UNANSWERED);
    }
}
