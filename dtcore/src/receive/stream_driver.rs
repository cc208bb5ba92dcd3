//! Drives one connection: requests go out as the scheduler has them, and their responses are received, verified and stored.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::settings::Verification;
use super::source::{EndNotice, RangeStream, ReadInterrupt, Source, Trailer};
use super::stream_outcome::StreamOutcome;
use super::transfer::{ActiveTransfer, NextStep};
use super::wake::{Wake, Woken};
use crate::manifest::{BlockId, BlockRun, StreamId};
use crate::num::to_u64;
use crate::proto::v2::{ErrorCode, Growth, Incoming, Violation, WholeDigests};
use crate::sink::{BlockLease, Received};

/// One connection of one stream.
pub(super) struct StreamDriver<'a, S: Source> {
    transfer: &'a ActiveTransfer<S>,
    id: StreamId,
    wake: &'a Wake,
    stream: S::Stream,
    /// How many bytes of data have arrived.
    received: u64,
}

/// Where the data of a block goes.
enum BlockTarget {
    Place(BlockLease),
    /// So many bytes are still to arrive, and nobody needs them.
    Discard(u64),
}

/// A block that has arrived completely, and waits for its digest.
enum Arrived {
    Hashed(Received),
    Discarded(BlockId),
}

impl BlockTarget {
    fn remaining(&self) -> u64 {
        match self {
            Self::Place(lease) => lease.remaining(),
            Self::Discard(rest) => *rest,
        }
    }
}

impl<'a, S: Source> StreamDriver<'a, S> {
    pub(super) fn new(
        transfer: &'a ActiveTransfer<S>,
        id: StreamId,
        wake: &'a Wake,
        stream: S::Stream,
    ) -> Self {
        Self { transfer, id, wake, stream, received: 0 }
    }

    /// Uses the connection until it or the transfer ends.
    ///
    /// # Cancel safety
    /// What was received of a block and not stored is lost with the connection.
    pub(super) async fn run(mut self, rtt: Duration, pushed: Option<BlockRun>) -> StreamOutcome {
        self.transfer.opened(self.id, rtt, pushed);
        let outcome = self.exchange().await;
        if matches!(outcome, StreamOutcome::Over) {
            let is_accepted = self.transfer.completion.is_accepted();
            let notice = if is_accepted { EndNotice::Complete } else { EndNotice::Leaving };
            self.transfer.source.close(self.stream, notice, self.wake).await;
        }
        self.transfer.streams.disconnected();
        outcome
    }

    async fn exchange(&mut self) -> StreamOutcome {
        loop {
            match self.transfer.request_on(self.id, &mut self.stream) {
                NextStep::Over => return StreamOutcome::Over,
                NextStep::Continue => {}
            }
            if let Err(outcome) = self.step().await {
                return outcome;
            }
        }
    }

    /// Sends the requests, and takes in one response, unless there is something to do before one arrives.
    async fn step(&mut self) -> Result<(), StreamOutcome> {
        let flushed = self.stream.flush(self.wake).await;
        flushed.map_err(|interrupt| self.outcome(interrupt))?;
        // This waits for something to request as well as for a response.
        match self.stream.next(self.wake).await {
            Ok(incoming) => self.respond(incoming).await,
            Err(ReadInterrupt::Woken(Woken::Check)) => Ok(()),
            Err(interrupt) => Err(self.outcome(interrupt)),
        }
    }

    async fn respond(&mut self, incoming: Incoming) -> Result<(), StreamOutcome> {
        match incoming {
            Incoming::Run(run) => self.run_of_blocks(run).await,
            Incoming::Proof(_) => Err(StreamOutcome::Violation(Violation::NotRequested.to_string())),
            Incoming::Digests(which) => self.digests(which).await,
            Incoming::Wait { hashed } => {
                self.transfer.hashing(hashed);
                Ok(())
            }
            Incoming::Drain => Err(StreamOutcome::draining(self.received)),
            Incoming::Refused(code, len) => Err(self.refused(code, len).await),
        }
    }

    /// Receives the data of a run, each block hashed while it is in the cache, and then compares the digests.
    async fn run_of_blocks(&mut self, run: BlockRun) -> Result<(), StreamOutcome> {
        let mut arrived = VecDeque::new();
        let digests = match self.data(run, &mut arrived).await {
            Ok(()) => self.trailer(run, &mut arrived).await,
            Err(outcome) => Err(outcome),
        };
        let digests = match digests {
            Ok(Ok((growth, digests))) => {
                if growth == Growth::Grown {
                    self.transfer.grown();
                }
                digests
            }
            Ok(Err(code)) => {
                return Err(StreamOutcome::Failed(self.transfer.source.name().problem(code, String::new())));
            }
            Err(outcome) => {
                let lens = arrived.iter().map(|block| self.transfer.manifest.range(block.id()).len());
                self.transfer.counters.wasted(lens.sum());
                return Err(outcome);
            }
        };
        for (block, digest) in arrived.into_iter().zip(digests) {
            let received = match block {
                Arrived::Hashed(received) => received,
                Arrived::Discarded(block) => {
                    self.transfer.skipped(self.id, block);
                    continue;
                }
            };
            let id = received.block();
            match received.verify(digest) {
                Some(verified) => {
                    self.transfer.store(self.id, verified).await.map_err(StreamOutcome::Failed)?;
                }
                None => self.transfer.corrupt(self.id, id).map_err(StreamOutcome::Failed)?,
            }
        }
        Ok(())
    }

    async fn data(&mut self, run: BlockRun, arrived: &mut VecDeque<Arrived>) -> Result<(), StreamOutcome> {
        let mut blocks = self.transfer.manifest.blocks_of(run);
        while let Some(block) = blocks.next() {
            let len = self.transfer.manifest.range(block).len();
            let mut target = self.target(block);
            let received = self.block(block, &mut target, blocks.len() == 0, arrived).await;
            if received.is_err() {
                self.transfer.counters.wasted(len - target.remaining());
                return received;
            }
            arrived.push_back(match target {
                BlockTarget::Discard(_) => Arrived::Discarded(block),
                BlockTarget::Place(lease) => Arrived::Hashed(self.hashed(lease)?),
            });
            // The other streams on this thread have waited for a block's time.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn hashed(&self, lease: BlockLease) -> Result<Received, StreamOutcome> {
        let finished = match self.transfer.settings.verification {
            Verification::On => lease.finish(),
            Verification::Off => lease.finish_unhashed(),
        };
        finished.map_err(|error| self.failed("write", error))
    }

    /// Where `block` is received: in its place, beside the file while another stream has the place, or nowhere.
    fn target(&self, block: BlockId) -> BlockTarget {
        let discard = BlockTarget::Discard(self.transfer.manifest.range(block).len());
        if !self.transfer.is_wanted(block) {
            return discard;
        }
        let sink = &self.transfer.sink;
        sink.lease(block).or_else(|| sink.lease_scratch(block)).map_or(discard, BlockTarget::Place)
    }

    /// Receives all data of `block`, as long as it is wanted; what is not is discarded.
    async fn block(
        &mut self,
        block: BlockId,
        target: &mut BlockTarget,
        is_last: bool,
        arrived: &mut VecDeque<Arrived>,
    ) -> Result<(), StreamOutcome> {
        while target.remaining() > 0 {
            let allowed = match &self.transfer.settings.rate_limit {
                Some(limit) => limit.allowance().await,
                None => usize::MAX,
            };
            let received = match target {
                BlockTarget::Place(lease) => self.stream.read(lease, allowed, is_last, self.wake).await,
                BlockTarget::Discard(rest) => self.stream.discard(*rest, allowed, self.wake).await,
            };
            if let Some(limit) = &self.transfer.settings.rate_limit {
                limit.give_back(allowed, *received.as_ref().unwrap_or(&0));
            }
            match received {
                Ok(n) => {
                    self.received += to_u64(n);
                    if let BlockTarget::Discard(rest) = target {
                        *rest = rest.saturating_sub(to_u64(n));
                    }
                    self.transfer.progressed(self.id, n);
                }
                Err(ReadInterrupt::Woken(Woken::Check)) => {
                    self.check(arrived)?;
                    if matches!(target, BlockTarget::Place(_)) && !self.transfer.is_wanted(block) {
                        // Its place is free from here on.
                        *target = BlockTarget::Discard(target.remaining());
                    }
                }
                Err(interrupt) => return Err(self.outcome(interrupt)),
            }
        }
        Ok(())
    }

    /// Checks in the middle of a response what has changed: it is not awaited when the transfer is over, and gives up the places
    /// of blocks of which another stream has a verified copy.
    fn check(&self, arrived: &mut VecDeque<Arrived>) -> Result<(), StreamOutcome> {
        if self.transfer.completion.is_ended() {
            return Err(StreamOutcome::Over);
        }
        for block in arrived {
            if matches!(block, Arrived::Hashed(_)) && !self.transfer.is_wanted(block.id()) {
                *block = Arrived::Discarded(block.id());
            }
        }
        Ok(())
    }

    async fn trailer(
        &mut self,
        run: BlockRun,
        arrived: &mut VecDeque<Arrived>,
    ) -> Result<Trailer, StreamOutcome> {
        loop {
            match self.stream.trailer(run, self.wake).await {
                Ok(trailer) => return Ok(trailer),
                Err(ReadInterrupt::Woken(Woken::Check)) => self.check(arrived)?,
                Err(interrupt) => return Err(self.outcome(interrupt)),
            }
        }
    }

    async fn digests(&mut self, which: WholeDigests) -> Result<(), StreamOutcome> {
        loop {
            match self.stream.digests(which, self.wake).await {
                Ok(digests) => {
                    self.transfer.file_digest.received(digests);
                    self.transfer.streams.wake_all();
                    self.transfer.completion.check();
                    return Ok(());
                }
                Err(ReadInterrupt::Woken(Woken::Check)) => self.check(&mut VecDeque::new())?,
                Err(interrupt) => return Err(self.outcome(interrupt)),
            }
        }
    }

    async fn refused(&mut self, code: ErrorCode, len: usize) -> StreamOutcome {
        let reason = loop {
            match self.stream.reason(len, self.wake).await {
                Ok(reason) => break reason,
                Err(ReadInterrupt::Woken(Woken::Check)) => {}
                // A code without an intact reason may be damaged itself.
                Err(interrupt) => return self.outcome(interrupt),
            }
        };
        StreamOutcome::refused(code, reason, self.transfer.source.name(), self.received)
    }

    fn failed(&self, action: &'static str, error: io::Error) -> StreamOutcome {
        StreamOutcome::Failed(self.transfer.local(action, error))
    }

    fn outcome(&self, interrupt: ReadInterrupt) -> StreamOutcome {
        if let ReadInterrupt::Store(error) = interrupt {
            return self.failed("write", error);
        }
        StreamOutcome::interrupted(interrupt, self.stream.n_unanswered(), self.received)
    }
}

impl Arrived {
    fn id(&self) -> BlockId {
        match self {
            Self::Hashed(received) => received.block(),
            Self::Discarded(block) => *block,
        }
    }
}
