//! The digests of the blocks of one run: remembered, or computed while the bytes are in the page cache.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::event::StreamFailure;
use super::session::Session;
use crate::digest::{RangeDigest, RangeHasher};
use crate::manifest::{BlockId, BlockRun, ByteRange};
use crate::proto::v2::ErrorCode;

/// How much is sent in one turn when its digests are known: about a millisecond's work. 4 MiB measured 1.17 times the rate of
/// 1 MiB.
const LONG_PIECE: u64 = 4 << 20;

/// How much is sent, and then hashed, in one turn: a third of a millisecond's work, and small enough to be still in the
/// processor's cache when it is hashed.
const HASHED_PIECE: u64 = 1 << 20;

/// The blocks of a run with their digests, as far as these are known.
pub(crate) struct RunDigests {
    session: Arc<Session>,
    blocks: Vec<Block>,
    /// Of the block of which a part was hashed.
    hasher: Option<RangeHasher>,
    begin: SystemTime,
}

#[derive(Debug)]
struct Block {
    id: BlockId,
    range: ByteRange,
    /// It was computed before, for the version of the file that was opened.
    known: Option<RangeDigest>,
    /// Whether the known digest is sent. A digest that the receiver got before and requests again is doubted: perhaps the
    /// bytes did not match.
    is_trusted: bool,
    computed: Option<RangeDigest>,
}

/// A part of a run that is sent in one turn if the connection accepts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RunPiece {
    pub(crate) range: ByteRange,
    pub(crate) is_hashed: bool,
}

impl RunPiece {
    /// The first piece of blocks that are all hashed or all not.
    pub(crate) fn first_of(blocks: ByteRange, is_hashed: bool) -> Self {
        let limit = if is_hashed { HASHED_PIECE } else { LONG_PIECE };
        let range = ByteRange::new(blocks.start(), blocks.end().min(blocks.start() + limit));
        Self { range, is_hashed }
    }
}

impl RunDigests {
    /// For a run whose data is sent.
    pub(crate) fn new(session: &Arc<Session>, run: BlockRun) -> Self {
        Self::of(session, run, |block| session.give_remembered(block))
    }

    /// For a run whose data is not sent, so that nothing shows that a remembered digest is wrong.
    pub(crate) fn without_data(session: &Arc<Session>, run: BlockRun) -> Self {
        Self::of(session, run, |_| true)
    }

    fn of(session: &Arc<Session>, run: BlockRun, is_trusted: impl Fn(BlockId) -> bool) -> Self {
        let (manifest, identity) = (&session.spec.manifest, session.spec.source.identity());
        let digests = session.context.digests.blocks();
        let block = |id| {
            let known = digests.find(&identity, manifest, id);
            let is_trusted = known.is_some() && is_trusted(id);
            Block { id, range: manifest.range(id), known, is_trusted, computed: None }
        };
        let blocks = manifest.blocks_of(run).map(block).collect();
        Self { session: Arc::clone(session), blocks, hasher: None, begin: SystemTime::now() }
    }

    /// The pieces in which the run is sent.
    pub(crate) fn pieces(&self) -> Vec<RunPiece> {
        pieces_of_blocks(&self.blocks)
    }

    /// Hashes the next piece that is to be hashed; it should be in the page cache.
    pub(crate) fn hash(&mut self, piece: ByteRange) -> Result<(), StreamFailure> {
        let (session, hasher) = (&self.session, &mut self.hasher);
        for block in &mut self.blocks {
            let start = block.range.start().max(piece.start());
            let part = ByteRange::new(start, block.range.end().min(piece.end()));
            if !part.is_empty() {
                hash(session, block, part, hasher)?;
            }
        }
        Ok(())
    }

    /// The digests of what was sent, if the file is still what it was.
    pub(crate) async fn finish(mut self) -> Result<Vec<RangeDigest>, ErrorCode> {
        let source = &self.session.spec.source;
        let digests = &self.session.context.digests;
        let mut now = source.current_identity().map_err(|_| ErrorCode::SourceUnreadable)?;
        if !source.identity().same_content(&now) {
            return Err(ErrorCode::SourceChanged);
        }
        if now != source.identity() {
            // Size and time can be as they were in a file that was written to: only its bytes show it.
            for block in &mut self.blocks {
                if block.computed.is_none() {
                    hash_again(&self.session, block).await?;
                }
            }
            now = source.current_identity().map_err(|_| ErrorCode::SourceUnreadable)?;
            if !source.identity().same_content(&now) {
                return Err(ErrorCode::SourceChanged);
            }
        }
        if self
            .blocks
            .iter()
            .any(|block| matches!((block.known, block.computed), (Some(a), Some(b)) if a != b))
        {
            digests.forget(&source.identity());
        }
        let digest_of = |block: &Block| match (block.computed, block.known) {
            (Some(digest), _) => {
                let manifest = &self.session.spec.manifest;
                digests.blocks().remember(&**source, manifest, block.id, digest, &now, self.begin);
                Ok(digest)
            }
            (None, Some(known)) => Ok(known),
            (None, None) => Err(ErrorCode::SourceChanged),
        };
        self.blocks.iter().map(digest_of).collect()
    }
}

/// Cuts consecutive blocks into pieces, each either hashed or not.
fn pieces_of_blocks(blocks: &[Block]) -> Vec<RunPiece> {
    let mut pieces = Vec::new();
    for stretch in blocks.chunk_by(|a, b| a.is_trusted == b.is_trusted) {
        let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { continue };
        let mut rest = ByteRange::new(first.range.start(), last.range.end());
        while !rest.is_empty() {
            let piece = RunPiece::first_of(rest, !first.is_trusted);
            pieces.push(piece);
            rest = ByteRange::new(piece.range.end(), rest.end());
        }
    }
    pieces
}

/// Hashes the next part of a block.
fn hash(
    session: &Session,
    block: &mut Block,
    part: ByteRange,
    hasher: &mut Option<RangeHasher>,
) -> Result<(), StreamFailure> {
    if part.start() == block.range.start() {
        *hasher = RangeHasher::new(session.spec.manifest.size(), block.range);
    }
    let Some(current) = hasher else { return Err(StreamFailure::SourceUnreadable) };
    let digests = session.context.digests.blocks();
    digests.hash(&*session.spec.source, part, current).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            StreamFailure::SourceChanged
        } else {
            StreamFailure::SourceUnreadable
        }
    })?;
    if part.end() == block.range.end() {
        block.computed = hasher.take().and_then(RangeHasher::finish);
    }
    Ok(())
}

async fn hash_again(session: &Session, block: &mut Block) -> Result<(), ErrorCode> {
    let (mut hasher, mut rest) = (None, block.range);
    while !rest.is_empty() {
        let part = ByteRange::new(rest.start(), rest.end().min(rest.start() + HASHED_PIECE));
        let _turn = session.next_turn().await;
        hash(session, block, part, &mut hasher).map_err(|_| ErrorCode::SourceChanged)?;
        rest = ByteRange::new(part.end(), rest.end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{BlockSize, Manifest};

    const MIB: u64 = 1 << 20;

    /// The pieces of a run over all blocks of a file of 8 MiB and 5 bytes, of which these are trusted.
    fn pieces_of(trusted: impl Fn(u32) -> bool) -> Vec<(u64, u64, bool)> {
        let manifest = Manifest::new(8 * MIB + 5, BlockSize::new(MIB / 2).unwrap()).unwrap();
        let block = |id: BlockId| Block {
            id,
            range: manifest.range(id),
            known: None,
            is_trusted: trusted(id.value()),
            computed: None,
        };
        let blocks: Vec<_> = manifest.blocks().map(block).collect();
        let pieces = pieces_of_blocks(&blocks);
        pieces.iter().map(|piece| (piece.range.start(), piece.range.end(), piece.is_hashed)).collect()
    }

    #[test]
    fn known_digests_allow_long_pieces() {
        let end = 8 * MIB + 5;
        let all = [(0, 4 * MIB, false), (4 * MIB, 8 * MIB, false), (8 * MIB, end, false)];
        assert_eq!(pieces_of(|_| true), all);
        let none: Vec<_> = (0..9).map(|i| (i * MIB, end.min((i + 1) * MIB), true)).collect();
        assert_eq!(pieces_of(|_| false), none);
        let mixed = [
            (0, MIB / 2, false),
            (MIB / 2, 3 * MIB / 2, true),
            (3 * MIB / 2, 2 * MIB, true),
            (2 * MIB, 6 * MIB, false),
            (6 * MIB, end, false),
        ];
        // Blocks 1 to 3 are hashed.
        assert_eq!(pieces_of(|block| !(1..4).contains(&block)), mixed);
    }
}
