//! What becomes of the blocks that the streams bring.

use std::io;

use super::Shared;
use crate::error::TransferError;
use crate::event::Event;
use crate::plan::{BlockIndex, StreamId};
use crate::receiver::protocol2::line::Line;
use crate::schedule::{Corrupt, Verified as Copy};
use crate::storage::{CommitError, Verified};

impl Shared {
    /// Puts a proven block into its place and on record.
    pub(in crate::receiver::protocol2) async fn store(
        &self,
        stream: StreamId,
        verified: Verified,
    ) -> Result<(), TransferError> {
        let (block, digest) = (verified.block(), verified.digest());
        self.state().proven.insert(block);
        let committed = self.commit(verified).await;
        // Whoever waits for the place with another copy learns that it is taken.
        self.released();
        let mut state = self.state();
        state.proven.remove(&block);
        committed.map_err(|error| self.local("write", error))?;
        if let Some(known) = state.digests.get_mut(block.index()) {
            *known = Some(digest);
        }
        let now = self.now();
        // A proven block is progress; mere bytes are not, or a path that always breaks within a block would be tried for ever.
        state.retries.progressed();
        if let Some(backoff) = state.backoffs.get_mut(stream.index()) {
            backoff.progressed();
        }
        let copy = state.scheduler.verified(stream, block, now);
        match copy {
            Copy::First { also_held_by } => {
                state.verified = state.verified.saturating_add(self.plan.range(block).len());
                self.follow(&mut state);
                if state.scheduler.is_complete() {
                    (state.received_after, state.whole_heard) = (now, now);
                    state.hashing.begin(now);
                    drop(state);
                    self.poke_all();
                    self.look_at_end();
                } else {
                    drop(state);
                    also_held_by.and_then(|other| self.line(other)).into_iter().for_each(Line::poke);
                }
                Ok(())
            }
            Copy::Duplicate => {
                drop(state);
                self.wasted(self.plan.range(block).len());
                Ok(())
            }
        }
    }

    /// Commits a block; a stream that still receives another copy in its place is made to give it up first.
    async fn commit(&self, verified: Verified) -> io::Result<()> {
        let mut verified = verified;
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            match self.blocks.commit(verified) {
                Ok(()) | Err(CommitError::AlreadyThere) => return Ok(()),
                Err(CommitError::Store(error)) => return Err(error),
                Err(CommitError::Occupied(again)) => verified = again,
            }
            self.poke_all();
            released.await;
        }
    }

    /// What came of `block` does not match its digest.
    pub(in crate::receiver::protocol2) fn corrupt(
        &self,
        stream: StreamId,
        block: BlockIndex,
    ) -> Result<(), TransferError> {
        let now = self.now();
        let mut state = self.state();
        let range = self.plan.range(block);
        state.trouble.wasted_bytes = state.trouble.wasted_bytes.saturating_add(range.len());
        state.trouble.repaired_blocks = state.trouble.repaired_blocks.saturating_add(1);
        let verdict = state.scheduler.corrupt(stream, block, now);
        drop(state);
        self.events.offer(Event::BlockCorrupt { block: block.value(), stream });
        match verdict {
            Corrupt::Again => {
                self.poke_all();
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
