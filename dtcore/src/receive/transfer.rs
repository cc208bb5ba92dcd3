//! What the tasks of one transfer share, and what becomes of the blocks that they receive.
//!
//! Each fact has one keeper: the scheduler knows every block, [`StreamSet`] the connections, [`FileDigest`] the sender's
//! digests, [`Completion`] the end. This type puts them together and holds no state of its own but counters.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::completion::Completion;
use super::file_digest::FileDigest;
use super::in_order::InOrderReader;
use super::settings::Settings;
use super::source::{Opened, RangeStream, RemoteName, Source};
use super::stream_set::StreamSet;
use crate::digest::RangeDigest;
use crate::event::{Event, EventSender, Progress, RecoveryStats};
use crate::failure::Failure;
use crate::manifest::{BlockId, BlockRun, ByteRange, Manifest, StreamId};
use crate::num::to_u64;
use crate::schedule::{Corrupt, NextRun, Scheduler, VerifiedCopy};
use crate::sink::{CommitError, FileSink, Verified};
use crate::sync::Lock;

/// What the tasks of one transfer share.
#[derive(Debug)]
pub(super) struct ActiveTransfer<S: Source> {
    pub(super) source: S,
    pub(super) settings: Settings,
    pub(super) manifest: Manifest,
    pub(super) sink: FileSink,
    pub(super) reader: Option<InOrderReader>,
    pub(super) events: EventSender,
    pub(super) streams: StreamSet,
    pub(super) file_digest: FileDigest,
    pub(super) completion: Completion,
    pub(super) counters: Counters,
    pub(super) scheduler: Lock<Scheduler>,
    /// How far the reader was allowed to read.
    pub(super) readable: Lock<u64>,
    /// A stream that is open already, because saved blocks were verified on it, until its task takes it.
    pub(super) verified_on: Lock<Option<Opened<S::Stream>>>,
    /// A place in the sink is free again.
    pub(super) place_freed: Arc<Notify>,
    /// How errors name the local file.
    pub(super) path: PathBuf,
    pub(super) started: Instant,
}

/// What has happened so far, in numbers.
#[derive(Debug, Default)]
pub(super) struct Counters {
    resumed: u64,
    received: AtomicU64,
    wasted: AtomicU64,
    retries: AtomicU64,
    repaired_blocks: AtomicU64,
    streams_lost: AtomicU64,
    /// Whether it was reported that the file has grown.
    has_grown: AtomicBool,
    /// When the last block was verified, in nanoseconds since the start.
    received_after: AtomicU64,
    was_short: AtomicBool,
}

impl Counters {
    /// Those of a transfer that begins with `resumed` bytes.
    pub(super) fn new(resumed: u64) -> Self {
        Self { resumed, ..Self::default() }
    }

    pub(super) fn resumed(&self) -> u64 {
        self.resumed
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn received_after(&self) -> Duration {
        Duration::from_nanos(self.received_after.load(Ordering::Relaxed))
    }

    /// `n` bytes were received for nothing.
    pub(super) fn wasted(&self, n: u64) {
        self.wasted.fetch_add(n, Ordering::Relaxed);
    }

    /// Whether the file was seen to have grown.
    pub(super) fn has_grown(&self) -> bool {
        self.has_grown.load(Ordering::Relaxed)
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether resources were never short before.
    fn is_first_shortage(&self) -> bool {
        !self.was_short.swap(true, Ordering::Relaxed)
    }

    pub(super) fn recovery(&self) -> RecoveryStats {
        RecoveryStats {
            retries: self.retries.load(Ordering::Relaxed),
            repaired_blocks: self.repaired_blocks.load(Ordering::Relaxed),
            wasted_bytes: self.wasted.load(Ordering::Relaxed),
            streams_lost: self.streams_lost.load(Ordering::Relaxed),
        }
    }
}

/// What a stream does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NextStep {
    /// Receive what it has requested, or wait for something to request.
    Continue,
    /// The transfer is over.
    Over,
}

/// Whose copy of a block is in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Placed {
    This,
    /// That of another stream, which reports it itself.
    Another,
}

impl<S: Source> ActiveTransfer<S> {
    /// Time since the transfer was started, which is the clock of all decisions.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Queues on `stream` what it should request now.
    pub(super) fn request_on(&self, id: StreamId, stream: &mut S::Stream) -> NextStep {
        if self.completion.is_ended() {
            return NextStep::Over;
        }
        let now = self.now();
        let mut scheduler = self.scheduler.lock();
        while let NextRun::Request(run) = scheduler.next_run(id, now) {
            // The scheduler has fewer in flight than may be unanswered.
            if !stream.request(run) {
                break;
            }
        }
        // The sender can compute what it does not know while the last blocks are on their way.
        let is_to_request = scheduler.is_all_assigned() && self.file_digest.is_to_request();
        drop(scheduler);
        if is_to_request && stream.request_digests(self.settings.digests()) {
            self.file_digest.requested_on(id, now);
        }
        self.streams.set_idle(id, stream.n_unanswered() == 0);
        NextStep::Continue
    }

    /// A stream is open; the sender sends `pushed` on it without a request.
    pub(super) fn opened(&self, id: StreamId, rtt: Duration, pushed: Option<BlockRun>) {
        let now = self.now();
        self.streams.opened();
        let mut scheduler = self.scheduler.lock();
        scheduler.opened(id, rtt, now);
        if let Some(run) = pushed {
            scheduler.assign_pushed(id, run, now);
        }
    }

    /// This system has no resources for another stream, so that those that are open have to do.
    pub(super) fn few_streams(&self) {
        let (streams, requested) = (self.streams.n_open(), self.settings.streams);
        if streams > 0 && self.counters.is_first_shortage() {
            self.events.emit(Event::StreamsReduced { streams, requested });
        }
    }

    /// The connection of a stream has ended early.
    pub(super) fn lost(&self, id: StreamId, reason: String) {
        self.counters.streams_lost.fetch_add(1, Ordering::Relaxed);
        self.closed(id);
        self.events.try_emit(Event::StreamLost { stream: id, reason });
        self.streams.wake_all();
    }

    /// The connection of a stream has ended.
    pub(super) fn closed(&self, id: StreamId) {
        self.streams.closed(id);
        self.scheduler.lock().lost(id, self.now());
        self.file_digest.lost(id);
        if self.manifest.n_blocks() > 1 {
            self.file_digest.need();
        }
    }

    /// Whether a stream that was closed with nothing to do should be open again. Its wake signals when that changes.
    pub(super) fn is_stream_needed(&self) -> bool {
        let scheduler = self.scheduler.lock();
        let is_digest_needed = self.file_digest.is_to_request() && scheduler.is_all_assigned();
        let is_complete = scheduler.is_complete();
        let is_anything_to_request = scheduler.is_anything_to_request();
        drop(scheduler);
        is_digest_needed || is_anything_to_request || self.is_over_with(is_complete)
    }

    /// Whether nothing is left to do, or nothing can succeed any more.
    pub(super) fn is_over(&self) -> bool {
        let is_complete = self.scheduler.lock().is_complete();
        self.is_over_with(is_complete)
    }

    fn is_over_with(&self, is_complete: bool) -> bool {
        self.completion.is_ended() || is_complete && self.file_digest.expected().is_some()
    }

    /// `n` more bytes of data arrived on a stream.
    pub(super) fn progressed(&self, id: StreamId, n: usize) {
        self.counters.received.fetch_add(to_u64(n), Ordering::Relaxed);
        let now = self.now();
        if self.scheduler.lock().received(id, to_u64(n), now) {
            self.streams.keep(id);
        }
    }

    /// Whether nobody has a verified copy of `block` yet.
    pub(super) fn is_wanted(&self, block: BlockId) -> bool {
        self.scheduler.lock().is_wanted(block)
    }

    /// `block` arrived on a stream and was discarded, because another copy was faster.
    pub(super) fn skipped(&self, id: StreamId, block: BlockId) {
        self.scheduler.lock().skipped(id, block, self.now());
        self.counters.wasted(self.manifest.range(block).len());
    }

    /// The file has grown at the sender.
    pub(super) fn grown(&self) {
        if !self.counters.has_grown.swap(true, Ordering::Relaxed) {
            self.events.emit(Event::Grown { delivered: self.manifest.size() });
        }
    }

    /// The sender still computes the digests of the file, for which it has read `hashed` bytes.
    pub(super) fn hashing(&self, hashed: u64) {
        if self.file_digest.hashing(hashed, self.now()) {
            self.streams.progressed(None);
        }
    }

    /// Puts a verified block into its place and on record.
    pub(super) async fn store(&self, id: StreamId, verified: Verified) -> Result<(), Failure> {
        let (block, digest) = (verified.block(), verified.digest());
        if !self.scheduler.lock().record_proof(block, digest) {
            return Err(self.source.name().source_changed());
        }
        let placed = self.commit(verified).await.map_err(|error| self.local("write", error))?;
        self.streams.progressed(Some(id));
        if placed == Placed::Another {
            self.skipped(id, block);
            return Ok(());
        }
        let now = self.now();
        let mut scheduler = self.scheduler.lock();
        let copy = scheduler.verified(id, block, now);
        let is_complete = scheduler.is_complete();
        drop(scheduler);
        match copy {
            VerifiedCopy::First { also_assigned_to } => {
                self.advance_reader();
                if is_complete {
                    let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
                    self.counters.received_after.store(nanos, Ordering::Relaxed);
                    self.file_digest.await_alone(now);
                    self.streams.wake_all();
                    self.completion.check();
                } else if let Some(wake) = also_assigned_to.and_then(|other| self.streams.wake_of(other)) {
                    wake.wake();
                }
            }
            VerifiedCopy::Duplicate => self.counters.wasted(self.manifest.range(block).len()),
        }
        Ok(())
    }

    /// Commits a block. A stream that still receives another copy in its place is made to give the place up first.
    async fn commit(&self, verified: Verified) -> io::Result<Placed> {
        let mut verified = verified;
        loop {
            let freed = self.place_freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            match self.sink.commit(verified) {
                Ok(()) => return Ok(Placed::This),
                Err(CommitError::AlreadyThere) => return Ok(Placed::Another),
                Err(CommitError::Store(error)) => return Err(error),
                Err(CommitError::Occupied(again)) => verified = again,
            }
            self.streams.wake_all();
            freed.await;
        }
    }

    /// What arrived of `block` does not match its digest.
    pub(super) fn corrupt(&self, id: StreamId, block: BlockId) -> Result<(), Failure> {
        let range = self.manifest.range(block);
        self.counters.wasted(range.len());
        self.counters.repaired_blocks.fetch_add(1, Ordering::Relaxed);
        let verdict = self.scheduler.lock().corrupt(id, block, self.now());
        if self.manifest.n_blocks() > 1 {
            self.file_digest.need();
        }
        self.events.try_emit(Event::BlockCorrupt { block: block.value(), stream: id });
        match verdict {
            Corrupt::Again => {
                self.streams.wake_all();
                Ok(())
            }
            Corrupt::GiveUp { times } => {
                let RemoteName { peer, file } = self.source.name().clone();
                let (block, offset) = (block.value(), range.start());
                Err(Failure::CorruptBlock { server: peer, name: file, block, offset, times })
            }
        }
    }

    /// Lets the reader read what has become contiguous with the beginning of the file.
    pub(super) fn advance_reader(&self) {
        let Some(reader) = &self.reader else { return };
        let mut readable = self.readable.lock();
        // Under the lock, so that ranges are handed over in order.
        let frontier = self.scheduler.lock().frontier();
        if frontier > *readable {
            reader.push(&self.sink.store, ByteRange::new(*readable, frontier));
            *readable = frontier;
        }
    }

    /// Lets the reader end when it has read all. The last block is verified a moment before it is handed over, and digests that
    /// arrive in that moment complete the transfer.
    pub(super) fn close_reader(&self) {
        self.advance_reader();
        if let Some(reader) = &self.reader {
            reader.close(self.manifest.size());
        }
    }

    /// The reader has consumed bytes, so that more may be requested.
    pub(super) fn consumed(&self) {
        if let Some(reader) = &self.reader {
            self.scheduler.lock().consumed(reader.position());
            self.streams.wake_all();
        }
    }

    /// The digests of the blocks that are there.
    pub(super) fn block_digests(&self) -> Vec<Option<RangeDigest>> {
        self.scheduler.lock().digests().to_vec()
    }

    /// How many bytes are verified.
    pub(super) fn verified_bytes(&self) -> u64 {
        self.manifest.size() - self.scheduler.lock().missing()
    }

    /// Reports how far the transfer is.
    pub(super) fn emit_progress(&self) {
        let recovery = self.counters.recovery();
        let there = self.counters.resumed() + self.counters.received();
        self.events.progress(Progress {
            size: Some(self.manifest.size()),
            received: there.saturating_sub(recovery.wasted_bytes).min(self.manifest.size()),
            verified: self.verified_bytes(),
            open_streams: self.streams.n_open(),
            outage: self.streams.outage(),
            elapsed: self.now(),
        });
    }

    /// The error of the local file.
    pub(super) fn local(&self, action: &'static str, error: io::Error) -> Failure {
        Failure::local(action, &self.path, self.manifest.size(), error)
    }
}
