//! What becomes of the blocks that the streams bring.

use std::io;

use super::Shared;
use crate::digest::RangeDigest;
use crate::error::TransferError;
use crate::event::Event;
use crate::manifest::{BlockId, StreamId};
use crate::receive::wake::Line;
use crate::schedule::{Corrupt, Verified as Copy};
use crate::sink::{CommitError, Verified};

/// Whose copy of a block is in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Placed {
    This,
    /// Another stream's, which says so itself.
    Another,
}

impl Shared {
    /// Puts a proven block into its place and on record.
    pub(crate) async fn store(&self, stream: StreamId, verified: Verified) -> Result<(), TransferError> {
        let (block, digest) = (verified.block(), verified.digest());
        self.prove(block, digest)?;
        let placed = self.commit(verified).await.map_err(|error| self.local("write", error))?;
        let mut state = self.state();
        let now = self.now();
        // A proven block is progress; mere bytes are not, or a path that always breaks within a block would be tried for ever.
        state.retries.progressed();
        if let Some(backoff) = state.backoffs.get_mut(stream.index()) {
            backoff.progressed();
        }
        if placed == Placed::Another {
            state.scheduler.skipped(stream, block, now);
            drop(state);
            self.wasted(self.manifest.range(block).len());
            return Ok(());
        }
        // The digest of what is in the file and no other may be merged into the file's.
        if let Some(known) = state.digests.get_mut(block.index()) {
            *known = Some(digest);
        }
        state.proven.remove(&block);
        let copy = state.scheduler.verified(stream, block, now);
        match copy {
            Copy::First { also_held_by } => {
                state.verified = state.verified.saturating_add(self.manifest.range(block).len());
                self.follow(&mut state);
                if state.scheduler.is_complete() {
                    (state.received_after, state.whole_heard) = (now, now);
                    state.hashing.begin(now);
                    drop(state);
                    self.wake_all();
                    self.look_at_end();
                } else {
                    drop(state);
                    also_held_by.and_then(|other| self.line(other)).into_iter().for_each(Line::wake);
                }
                Ok(())
            }
            Copy::Duplicate => {
                drop(state);
                self.wasted(self.manifest.range(block).len());
                Ok(())
            }
        }
    }

    /// Notes that a copy of a block is proven by this digest; another copy must have been proven by the same.
    fn prove(&self, block: BlockId, digest: RangeDigest) -> Result<(), TransferError> {
        let mut state = self.state();
        let known = state.digests.get(block.index()).copied().flatten();
        let known = known.unwrap_or_else(|| *state.proven.entry(block).or_insert(digest));
        if known == digest {
            return Ok(());
        }
        Err(TransferError::SourceChanged { server: self.server(), name: self.name() })
    }

    /// Commits a block; a stream that still receives another copy in its place is made to give it up first.
    async fn commit(&self, verified: Verified) -> io::Result<Placed> {
        let mut verified = verified;
        loop {
            let released = self.place_freed.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            match self.blocks.commit(verified) {
                Ok(()) => return Ok(Placed::This),
                Err(CommitError::AlreadyThere) => return Ok(Placed::Another),
                Err(CommitError::Store(error)) => return Err(error),
                Err(CommitError::Occupied(again)) => verified = again,
            }
            self.wake_all();
            released.await;
        }
    }

    /// What came of `block` does not match its digest.
    pub(crate) fn corrupt(&self, stream: StreamId, block: BlockId) -> Result<(), TransferError> {
        let now = self.now();
        let mut state = self.state();
        let range = self.manifest.range(block);
        state.trouble.wasted_bytes = state.trouble.wasted_bytes.saturating_add(range.len());
        state.trouble.repaired_blocks = state.trouble.repaired_blocks.saturating_add(1);
        let verdict = state.scheduler.corrupt(stream, block, now);
        drop(state);
        self.events.offer(Event::BlockCorrupt { block: block.value(), stream });
        match verdict {
            Corrupt::Again => {
                self.wake_all();
                Ok(())
            }
            Corrupt::GiveUp { times } => Err(TransferError::CorruptBlock {
                server: self.server(),
                name: self.name(),
                block: block.value(),
                offset: range.start(),
                times,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BlockId;
    use crate::receive::tests::{Scene, shared_of, stream};
    use crate::sink::BlockLease;

    fn block(shared: &Shared) -> BlockId {
        shared.manifest.block(0).unwrap()
    }

    /// The block, all of that byte, with the digest that fits.
    fn proven(shared: &Shared, mut leased: BlockLease, byte: u8) -> Verified {
        let range = shared.manifest.range(block(shared));
        let bytes = vec![byte; usize::try_from(range.len()).unwrap()];
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            leased.fill(&mut |space| io::Read::read(&mut rest, space)).unwrap();
        }
        leased
            .finish()
            .unwrap()
            .verify(RangeDigest::of(shared.manifest.size(), range, &bytes).unwrap())
            .unwrap()
    }

    /// A block's copies in its place and beside it.
    fn copies(shared: &Shared, bytes: [u8; 2]) -> [Verified; 2] {
        let (own, lease_scratch) = (
            shared.blocks.lease(block(shared)).unwrap(),
            shared.blocks.lease_scratch(block(shared)).unwrap(),
        );
        [proven(shared, own, bytes[0]), proven(shared, lease_scratch, bytes[1])]
    }

    fn wasted(shared: &Shared) -> u64 {
        shared.account().2.wasted_bytes
    }

    #[tokio::test]
    async fn two_copies_with_different_digests_are_of_two_files() {
        let shared = shared_of(Scene::default());
        let [own, lease_scratch] = copies(&shared, [1, 2]);
        let digest = own.digest();
        shared.store(stream(0), own).await.unwrap();
        let error = shared.store(stream(1), lease_scratch).await.unwrap_err();
        assert!(matches!(error, TransferError::SourceChanged { .. }), "{error}");
        assert_eq!(shared.state().digests[0], Some(digest));

        let shared = shared_of(Scene::default());
        let [own, lease_scratch] = copies(&shared, [1, 2]);
        let (digest, waiting) = (lease_scratch.digest(), shared.store(stream(1), lease_scratch));
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "its place is taken");
        let error = shared.store(stream(0), own).await.unwrap_err();
        assert!(matches!(error, TransferError::SourceChanged { .. }), "{error}");
        // What was proven first gets the place, and is what the file's digest is made of.
        waiting.await.unwrap();
        assert_eq!(shared.state().digests[0], Some(digest));
    }

    #[tokio::test]
    async fn who_finds_a_block_there_says_nothing_of_what_is_there() {
        let shared = shared_of(Scene::default());
        let [own, lease_scratch] = copies(&shared, [1, 2]);
        // The first stream has put its copy into its place and not come to say so.
        shared.blocks.commit(own).unwrap();
        shared.store(stream(1), lease_scratch).await.unwrap();
        assert_eq!(shared.state().digests[0], None);
        assert_eq!(wasted(&shared), shared.manifest.range(block(&shared)).len());
        assert!(!shared.is_wanted(block(&shared)));
    }

    #[tokio::test]
    async fn the_second_of_two_equal_copies_is_wasted() {
        for is_own_first in [true, false] {
            let shared = shared_of(Scene::default());
            let [own, lease_scratch] = copies(&shared, [1, 1]);
            let digest = own.digest();
            if is_own_first {
                shared.store(stream(0), own).await.unwrap();
                shared.store(stream(1), lease_scratch).await.unwrap();
            } else {
                let waiting = shared.store(stream(1), lease_scratch);
                tokio::pin!(waiting);
                assert!(futures_util::poll!(waiting.as_mut()).is_pending());
                shared.store(stream(0), own).await.unwrap();
                waiting.await.unwrap();
            }
            assert_eq!(shared.state().digests[0], Some(digest));
            assert_eq!(wasted(&shared), shared.manifest.range(block(&shared)).len());
            assert_eq!(shared.state().verified, shared.manifest.range(block(&shared)).len());
        }
    }
}
