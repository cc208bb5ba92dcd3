//! The state of every block: unassigned, requested on one or two streams, returned, or verified, and by which digest.

use std::collections::{BTreeSet, HashMap};

use super::VerifiedCopy;
use crate::digest::RangeDigest;
use crate::manifest::{BlockId, BlockRun, BlockSet, Manifest, StreamId};

/// The request of a block on a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Assignment {
    pub(super) stream: StreamId,
    /// Where the run that holds the block ends, counted in bytes requested on that connection.
    pub(super) run_end: u64,
}

/// The streams on which a missing block is requested.
#[derive(Clone, Copy, Debug)]
enum Assigned {
    Once(Assignment),
    Twice(Assignment, Assignment),
}

/// What became of a block after a stream has released it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Released {
    /// It was not assigned to that stream, or is verified.
    NotAssigned,
    /// It remains assigned to another stream only.
    StillAssigned(Assignment),
    /// It is unassigned again.
    Returned,
}

/// How many copies of a block were corrupt, and which stream delivered the last of them.
#[derive(Clone, Copy, Debug)]
struct Corruption {
    times: u32,
    last_stream: StreamId,
}

/// The state of all blocks: the only record of which blocks are missing, assigned and verified, and of their digests.
///
/// Every block below the cursor is verified, assigned or returned; none at or above it is assigned or returned. So
/// the collections beside the set of verified blocks are bounded by what is in flight.
#[derive(Debug)]
pub(super) struct BlockTable {
    manifest: Manifest,
    verified: BlockSet,
    /// The digest by which the first copy of each block was verified.
    digests: Vec<Option<RangeDigest>>,
    /// The first block that was never assigned.
    cursor: u32,
    /// The first block that is not verified; the number of blocks if all are.
    frontier: u32,
    assigned: HashMap<BlockId, Assigned>,
    returned: BTreeSet<BlockId>,
    corrupted: HashMap<BlockId, Corruption>,
    /// The bytes of blocks that are neither assigned nor verified.
    unassigned: u64,
    /// The bytes of blocks that are not verified.
    missing: u64,
}

/// How many returned blocks are skipped because the same stream has corrupted them, to bound the search.
const MAX_SKIPPED: usize = 64;

impl BlockTable {
    /// The table at the start; the blocks of `done` were verified by an earlier run, by `digests`.
    ///
    /// Digests of blocks that are not in `done` are ignored.
    pub(super) fn new(manifest: Manifest, done: BlockSet, digests: Vec<Option<RangeDigest>>) -> Self {
        let missing = manifest
            .blocks()
            .filter(|block| !done.contains(*block))
            .map(|block| manifest.range(block).len())
            .sum();
        let mut resumed = digests.into_iter();
        let digests = manifest
            .blocks()
            .map(|block| resumed.next().flatten().filter(|_| done.contains(block)))
            .collect();
        let mut table = Self {
            manifest,
            verified: done,
            digests,
            cursor: 0,
            frontier: 0,
            assigned: HashMap::new(),
            returned: BTreeSet::new(),
            corrupted: HashMap::new(),
            unassigned: missing,
            missing,
        };
        table.advance_frontier();
        table
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(super) fn verified(&self) -> &BlockSet {
        &self.verified
    }

    pub(super) fn digests(&self) -> &[Option<RangeDigest>] {
        &self.digests
    }

    pub(super) fn unassigned(&self) -> u64 {
        self.unassigned
    }

    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    pub(super) fn len_of(&self, block: BlockId) -> u64 {
        self.manifest.range(block).len()
    }

    pub(super) fn run_len(&self, run: BlockRun) -> u64 {
        self.manifest.blocks_of(run).map(|block| self.len_of(block)).sum()
    }

    /// The first byte that is not verified; the size of the file if all are.
    pub(super) fn frontier(&self) -> u64 {
        self.manifest
            .block(u64::from(self.frontier))
            .map_or(self.manifest.size(), |block| self.manifest.range(block).start())
    }

    /// Whether a copy of the block is still to be verified.
    pub(super) fn is_wanted(&self, block: BlockId) -> bool {
        !self.verified.contains(block) && self.digests.get(block.index()).is_some_and(Option::is_none)
    }

    /// Whether a missing block is requested on any stream.
    pub(super) fn is_anything_assigned(&self) -> bool {
        !self.assigned.is_empty()
    }

    /// Whether the block is missing and not requested on any stream.
    pub(super) fn is_unassigned(&self, block: BlockId) -> bool {
        !self.verified.contains(block) && !self.assigned.contains_key(&block)
    }

    /// The first block to assign that begins before `limit`, skipping those that `avoiding` has corrupted.
    pub(super) fn first_unassigned(&self, limit: u64, avoiding: Option<StreamId>) -> Option<BlockId> {
        let returned =
            self.returned.iter().take(MAX_SKIPPED).copied().find(|block| !self.is_avoided(*block, avoiding));
        let first = returned.or_else(|| self.verified.first_missing(self.cursor))?;
        (self.manifest.range(first).start() < limit).then_some(first)
    }

    /// The blocks to assign that follow each other from [`first_unassigned`](Self::first_unassigned): at most
    /// `max_blocks`, and at most `max_len` bytes unless the first block is longer.
    pub(super) fn first_unassigned_run(
        &self,
        limit: u64,
        avoiding: Option<StreamId>,
        max_len: u64,
        max_blocks: usize,
    ) -> Option<BlockRun> {
        let first = self.first_unassigned(limit, avoiding)?;
        let start = self.manifest.range(first).start();
        let is_next = |block: &BlockId| {
            let range = self.manifest.range(*block);
            range.end() - start <= max_len
                && range.start() < limit
                && self.is_unassigned(*block)
                && !self.is_avoided(*block, avoiding)
        };
        let rest = BlockRun { first, count: u32::MAX };
        let rest = self.manifest.blocks_of(rest).skip(1).take(max_blocks.saturating_sub(1));
        let more = u32::try_from(rest.take_while(is_next).count()).ok()?;
        Some(BlockRun { first, count: 1 + more })
    }

    /// Whether the last corrupt copy of the block arrived on `avoiding`.
    fn is_avoided(&self, block: BlockId, avoiding: Option<StreamId>) -> bool {
        avoiding.is_some() && self.last_corrupted_by(block) == avoiding
    }

    /// Whether a corrupt copy of a missing block was received.
    pub(super) fn is_any_corrupted(&self) -> bool {
        !self.corrupted.is_empty()
    }

    /// The stream that delivered the last corrupt copy of the block.
    pub(super) fn last_corrupted_by(&self, block: BlockId) -> Option<StreamId> {
        self.corrupted.get(&block).map(|corruption| corruption.last_stream)
    }

    /// Assigns a missing block; returns whether it is now assigned twice.
    pub(super) fn assign(&mut self, block: BlockId, assignment: Assignment) -> bool {
        if let Some(Assigned::Once(first) | Assigned::Twice(first, _)) = self.assigned.get(&block).copied() {
            self.assigned.insert(block, Assigned::Twice(first, assignment));
            return true;
        }
        self.assigned.insert(block, Assigned::Once(assignment));
        self.unassigned -= self.len_of(block);
        if !self.returned.remove(&block) {
            // Only a pushed run can begin after the first block that is missing.
            while let Some(skipped) = self.verified.first_missing(self.cursor).filter(|next| *next < block) {
                self.returned.insert(skipped);
                self.cursor = skipped.value() + 1;
            }
            self.cursor = self.cursor.max(block.value() + 1);
        }
        false
    }

    /// The only assignment of a block that is wanted.
    pub(super) fn sole_assignment(&self, block: BlockId) -> Option<Assignment> {
        match self.assigned.get(&block).filter(|_| self.is_wanted(block)) {
            Some(Assigned::Once(assignment)) => Some(*assignment),
            Some(Assigned::Twice(..)) | None => None,
        }
    }

    /// The first of the `n` blocks from the frontier on that is wanted and assigned to exactly one stream.
    pub(super) fn first_assigned_once(&self, n: usize) -> Option<(BlockId, Assignment)> {
        let first = self.manifest.block(u64::from(self.frontier))?;
        let mut blocks = self.manifest.blocks_of(BlockRun { first, count: u32::MAX }).take(n);
        blocks.find_map(|block| self.sole_assignment(block).map(|assignment| (block, assignment)))
    }

    /// Records the digest by which a copy of the block was verified; `false` if an earlier one was verified by another.
    pub(super) fn record_proof(&mut self, block: BlockId, digest: RangeDigest) -> bool {
        self.digests.get_mut(block.index()).is_some_and(|known| *known.get_or_insert(digest) == digest)
    }

    /// Marks the block as verified and stored.
    pub(super) fn verify(&mut self, stream: StreamId, block: BlockId) -> VerifiedCopy {
        if !self.verified.insert(block) {
            return VerifiedCopy::Duplicate;
        }
        let len = self.len_of(block);
        self.missing -= len;
        self.corrupted.remove(&block);
        let assigned = self.assigned.remove(&block);
        if assigned.is_none() {
            // It arrived on a connection that was given up in the meantime.
            self.returned.remove(&block);
            self.unassigned -= len;
        }
        self.advance_frontier();
        let also_assigned_to = match assigned {
            Some(Assigned::Once(one)) => Some(one.stream).filter(|other| *other != stream),
            Some(Assigned::Twice(one, two)) => {
                Some(if one.stream == stream { two.stream } else { one.stream })
            }
            None => None,
        };
        VerifiedCopy::First { also_assigned_to }
    }

    /// The stream does not deliver the block.
    pub(super) fn release(&mut self, stream: StreamId, block: BlockId) -> Released {
        let other = match self.assigned.get(&block).copied() {
            Some(Assigned::Once(one)) if one.stream == stream => None,
            Some(Assigned::Twice(one, two)) if one.stream == stream => Some(two),
            Some(Assigned::Twice(one, two)) if two.stream == stream => Some(one),
            Some(Assigned::Once(_) | Assigned::Twice(..)) | None => return Released::NotAssigned,
        };
        if let Some(assignment) = other {
            self.assigned.insert(block, Assigned::Once(assignment));
            return Released::StillAssigned(assignment);
        }
        self.assigned.remove(&block);
        self.returned.insert(block);
        self.unassigned += self.len_of(block);
        Released::Returned
    }

    /// Counts a corrupt copy of the block; returns how many there were so far.
    pub(super) fn record_corruption(&mut self, stream: StreamId, block: BlockId) -> u32 {
        let corruption = self.corrupted.entry(block).or_insert(Corruption { times: 0, last_stream: stream });
        *corruption = Corruption { times: corruption.times + 1, last_stream: stream };
        corruption.times
    }

    fn advance_frontier(&mut self) {
        let missing = self.verified.first_missing(self.frontier);
        self.frontier = missing.map_or(self.manifest.n_blocks(), BlockId::value);
    }
}
