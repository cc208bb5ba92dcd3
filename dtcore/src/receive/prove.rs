//! Proves blocks that were saved from a file that may have changed since, as its size, time or inode has: the sender's digests of
//! these blocks are compared with the recorded ones. No block is fetched for that.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use super::source::{EndNotice, Opened, RangeStream, ReadInterrupt, Source};
use super::stream_outcome::StreamOutcome;
use super::stream_set::StreamSet;
use super::wake::Wake;
use crate::digest::RangeDigest;
use crate::event::{Event, EventSender, PROGRESS_INTERVAL};
use crate::failure::{Awaited, Failure};
use crate::manifest::{BlockRun, BlockSet, Manifest, StreamId};
use crate::num::to_u64;
use crate::proto::v2::{Incoming, Replacing, Violation};
use crate::sink::Recovered;

/// How many runs are requested ahead, so that the sender always has one to hash. One at first: a file that is another one mostly
/// shows that by its first block, and the sender would hash the others for nothing.
const AHEAD: usize = 4;

/// How long the notice to the sender that nothing more is needed may take.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(100);

/// Whether the sender's file has all blocks that are `claimed`, and the first stream of the session, on which nothing is requested
/// now, unless it was lost.
///
/// Lost connections are made again, as in the transfer itself.
///
/// # Errors
/// It cannot be found out. Nothing is lost by that.
pub(super) async fn prove<S: Source>(
    source: &S,
    settings: &Settings,
    events: &EventSender,
    manifest: Manifest,
    claimed: &Recovered,
    started: Instant,
    cancel: &CancellationToken,
) -> Result<(bool, Option<Opened<S::Stream>>), Failure> {
    let Some(stream) = settings.streams.ids().next() else { return Ok((false, None)) };
    let mut prover = Prover {
        source,
        settings,
        events,
        manifest,
        claimed,
        runs: runs_of(&manifest, &claimed.done),
        n_verified: 0,
        bytes: 0,
        is_refuted: false,
        streams: StreamSet::new(settings.streams, 1, settings.retries),
        stream,
        wake: Wake::default(),
        reported: None,
    };
    let mut replacing = Replacing::Nothing;
    loop {
        let opening = cancel.run_until_cancelled(source.open(stream, replacing)).await;
        let retry = match opening.ok_or(Failure::Cancelled)? {
            Ok(mut opened) => {
                replacing = Replacing::Former;
                match cancel.run_until_cancelled(prover.exchange(&mut opened.stream)).await {
                    Some(Ok(())) => {
                        let opened = Opened { pushed: None, ..opened };
                        return Ok((!prover.is_refuted, Some(opened)));
                    }
                    Some(Err(_)) if prover.is_refuted => return Ok((false, None)),
                    Some(Err(outcome)) => {
                        if let Some(reason) = outcome.reason() {
                            events.try_emit(Event::StreamLost { stream, reason });
                        }
                        let renewing = outcome.failure(source, stream, opened.epoch);
                        cancel.run_until_cancelled(renewing).await.ok_or(Failure::Cancelled)??
                    }
                    None => {
                        leave(source, opened.stream).await;
                        return Err(Failure::Cancelled);
                    }
                }
            }
            Err(error) => Some(error),
        };
        if let Some(error) = retry {
            let pause =
                prover.streams.pause_after(error, stream, started.elapsed(), prover.n_verified > 0)?;
            cancel.run_until_cancelled(sleep(pause)).await.ok_or(Failure::Cancelled)?;
        }
    }
}

/// Reports to the sender that the transfer is given up.
pub(super) async fn leave<S: Source>(source: &S, stream: S::Stream) {
    // A sender that does not learn of it notices by itself, later.
    let wake = Wake::default();
    let _ = timeout(LEAVE_TIMEOUT, source.close(stream, EndNotice::Leaving, &wake)).await;
}

/// The blocks that are claimed, and how many of them are verified.
struct Prover<'a, S> {
    source: &'a S,
    settings: &'a Settings,
    events: &'a EventSender,
    manifest: Manifest,
    claimed: &'a Recovered,
    runs: Vec<BlockRun>,
    /// How many of the runs are verified.
    n_verified: usize,
    /// How many bytes these have.
    bytes: u64,
    /// Whether a block differs.
    is_refuted: bool,
    streams: StreamSet,
    stream: StreamId,
    /// Nothing wakes it.
    wake: Wake,
    reported: Option<Instant>,
}

impl<S: Source> Prover<'_, S> {
    /// Requests digests and compares them until every block is verified or one is refuted. Nothing is unanswered then.
    async fn exchange(&mut self, stream: &mut S::Stream) -> Result<(), StreamOutcome> {
        let mut n_requested = self.n_verified;
        loop {
            let ahead = if self.n_verified == 0 { 1 } else { AHEAD };
            if !self.is_refuted {
                for run in self.runs.iter().take(self.n_verified + ahead).skip(n_requested) {
                    stream.request_proof(*run);
                    n_requested += 1;
                }
            }
            if stream.n_unanswered() == 0 {
                return Ok(());
            }
            self.within(stream.flush(&self.wake)).await?;
            self.response(stream).await?;
        }
    }

    async fn response(&mut self, stream: &mut S::Stream) -> Result<(), StreamOutcome> {
        let name = self.source.name();
        let (run, is_pushed) = match self.within(stream.next(&self.wake)).await? {
            Incoming::Proof(run) => (run, false),
            Incoming::Run(run) => (run, true),
            Incoming::Drain => return Err(StreamOutcome::draining(0)),
            Incoming::Refused(code, len) => {
                let reason = self.within(stream.reason(len, &self.wake)).await?;
                return Err(StreamOutcome::refused(code, reason, name, 0));
            }
            Incoming::Digests(_) | Incoming::Wait { .. } => {
                return Err(StreamOutcome::Violation(Violation::NotRequested.to_string()));
            }
        };
        if is_pushed {
            // Blocks that are not claimed, and have no place to go yet.
            let mut rest = self.manifest.run_len(run).unwrap_or_default();
            while rest > 0 {
                rest -= to_u64(self.within(stream.discard(rest, usize::MAX, &self.wake)).await?);
            }
        }
        match self.within(stream.trailer(run, &self.wake)).await? {
            Ok((_, digests)) => {
                if !is_pushed {
                    self.compare(run, digests);
                }
                Ok(())
            }
            Err(code) => Err(StreamOutcome::Failed(name.problem(code, String::new()))),
        }
    }

    fn compare(&mut self, run: BlockRun, digests: Vec<RangeDigest>) {
        let claimed = &self.claimed.digests;
        let claimed = self.manifest.blocks_of(run).map(|block| claimed.get(block.index()).copied().flatten());
        if !claimed.eq(digests.into_iter().map(Some)) {
            self.is_refuted = true;
            return;
        }
        self.n_verified += 1;
        self.bytes += self.manifest.run_len(run).unwrap_or_default();
        self.streams.progressed(Some(self.stream));
        if self.reported.is_none_or(|reported| reported.elapsed() >= PROGRESS_INTERVAL) {
            self.reported = Some(Instant::now());
            self.events.try_emit(Event::Checking { bytes: self.bytes, of: self.claimed.bytes });
        }
    }

    /// Waits at most as long as a stream may deliver nothing.
    async fn within<T>(
        &self,
        receiving: impl Future<Output = Result<T, ReadInterrupt>>,
    ) -> Result<T, StreamOutcome> {
        let waited = self.settings.stall_timeout;
        let Ok(received) = timeout(waited, receiving).await else {
            let server = self.source.name().peer.clone();
            return Err(StreamOutcome::Failed(Failure::TimedOut { server, awaited: Awaited::Data, waited }));
        };
        received.map_err(|interrupt| StreamOutcome::interrupted(interrupt, 1, 0))
    }
}

/// The blocks as runs, each as long as one may be.
fn runs_of(manifest: &Manifest, blocks: &BlockSet) -> Vec<BlockRun> {
    let mut runs: Vec<BlockRun> = Vec::new();
    for block in manifest.blocks().filter(|block| blocks.contains(*block)) {
        let longer = runs.last().and_then(|run| {
            let is_next = manifest.blocks_of(*run).len() == block.index() - run.first.index();
            manifest.run(run.first.value().into(), run.count + 1).filter(|_| is_next)
        });
        match (longer, runs.last_mut()) {
            (Some(longer), Some(last)) => *last = longer,
            _ => runs.push(BlockRun { first: block, count: 1 }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BlockSize;

    #[test]
    fn claimed_blocks_are_requested_in_long_runs() {
        let manifest = Manifest::new((70 << 20) + 5, BlockSize::new(4 << 20).unwrap()).unwrap();
        let runs = |indices: &[u64]| {
            let mut blocks = BlockSet::new(&manifest);
            for index in indices {
                blocks.insert(manifest.block(*index).unwrap());
            }
            let runs = runs_of(&manifest, &blocks);
            runs.into_iter().map(|run| (run.first.value(), run.count)).collect::<Vec<_>>()
        };
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[0, 1, 2, 3, 4, 7, 9, 10, 17]), [(0, 4), (4, 1), (7, 1), (9, 2), (17, 1)]);
        assert_eq!(runs(&[13, 14, 15, 16, 17]), [(13, 4), (17, 1)]);
        assert_eq!(runs(&[14, 15, 16, 17]), [(14, 4)]);
    }
}
