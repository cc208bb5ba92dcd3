//! Hedging: idle streams request a second copy of blocks that slower streams would deliver late.

use std::time::Duration;

use crate::manifest::{BlockId, Manifest, StreamId};
use crate::schedule::block_table::BlockTable;
use crate::schedule::pool::Pool;
use crate::schedule::stream_state::{StreamState, min_window};

/// At most one byte of so many may be requested twice: 2 % of the file.
const FRACTION: u64 = 50;
/// How much later than twice the second copy's time the first one must be expected. A forecast over a few tenths of a
/// second is wrong by that much where streams share a path, and there a second copy only takes bandwidth from the others.
const MARGIN: Duration = Duration::from_millis(100);

/// The bytes that were requested twice, and how many may be.
#[derive(Debug)]
pub(super) struct Hedging {
    duplicated: u64,
    pub(super) max_duplicated: u64,
}

/// The stream that has nothing else to request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) stream: StreamId,
    /// How many bytes may be in flight on it.
    pub(super) window: u64,
    /// Blocks that begin here or later must not be requested.
    pub(super) limit: u64,
}

impl Hedging {
    /// Allows 2 % of the file or, if that is less, what may always be in flight on one stream.
    pub(super) fn new(manifest: &Manifest) -> Self {
        let max_duplicated = (manifest.size() / FRACTION).max(min_window(manifest.block_size().bytes()));
        Self { duplicated: 0, max_duplicated }
    }

    /// The bytes that were requested on a second stream while the first still had to deliver them.
    #[cfg(test)]
    pub(super) fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Whether `len` more bytes may be requested twice.
    pub(super) fn allows(&self, len: u64) -> bool {
        self.duplicated + len <= self.max_duplicated
    }

    /// `len` bytes were requested twice.
    pub(super) fn record(&mut self, len: u64) {
        self.duplicated += len;
    }

    /// The block that an idle stream should request a second time.
    ///
    /// When every block is assigned, that is the one expected last. Before, no block can be assigned only if an in-order
    /// consumer waits; then it is the first one that is missing.
    pub(super) fn choose(
        &self,
        candidate: Candidate,
        table: &BlockTable,
        pool: &mut Pool,
        now: Duration,
    ) -> Option<BlockId> {
        let Candidate { stream, window, limit } = candidate;
        // A stream that was not measured is not expected to be faster than this one.
        let guess = match pool.typical_rate() {
            0 => pool.get(stream)?.throughput.rate(now, 0),
            typical_rate => typical_rate,
        };
        let is_at_end = table.unassigned() == 0;
        let found = if is_at_end { expected_last } else { expected_next };
        let (block, theirs) = found(stream, table, pool, now, guess)?;
        let state = pool.get(stream)?;
        let len = table.len_of(block);
        let is_allowed = self.allows(len)
            // A pushed run may reach beyond the limit.
            && table.manifest().range(block).start() < limit
            // The stream would probably corrupt it again while the other copy is in flight.
            && table.last_corrupted_by(block) != Some(stream)
            && state.has_room(len, window);
        // A second copy is worth its bytes if the first one takes that much longer.
        let is_worthwhile = state.time_for_more(len, now, guess) * 2 + MARGIN < theirs;
        (is_allowed && is_worthwhile).then_some(block)
    }
}

/// Of the last blocks of the other streams' queues, the one expected last.
fn expected_last(
    stream: StreamId,
    table: &BlockTable,
    pool: &mut Pool,
    now: Duration,
    guess: u64,
) -> Option<(BlockId, Duration)> {
    let expected = |other: StreamId, state: &mut StreamState| {
        // A pushed block may be in the queue of one stream and assigned to another.
        let is_sole = |block| table.sole_assignment(block).is_some_and(|sole| sole.stream == other);
        let last = state.last_sole(is_sole)?;
        Some((last.block, state.time_to(last.run_end, now, guess)))
    };
    let others = pool.iter_mut().filter(|(other, _)| *other != stream);
    others.filter_map(|(other, state)| expected(other, state)).max_by_key(|(_, time)| *time)
}

/// Near the frontier, the first block that is assigned to another stream only.
fn expected_next(
    stream: StreamId,
    table: &BlockTable,
    pool: &mut Pool,
    now: Duration,
    guess: u64,
) -> Option<(BlockId, Duration)> {
    let n_streams = pool.iter().count();
    let (block, assignment) = table.first_assigned_once(n_streams)?;
    let state = pool.get(assignment.stream).filter(|_| assignment.stream != stream)?;
    Some((block, state.time_to(assignment.run_end, now, guess)))
}
