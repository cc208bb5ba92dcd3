//! The receiving engine: blocks from a [`Source`] into a sink, no matter which side has dialled.
//!
//! Runs of blocks are requested on all streams, received into their places, verified by their digests and recorded; failed
//! streams are retried. In the end the digest of the file is compared with the sender's, and the output is published.

mod accepted_source;
mod completion;
mod dt_stream;
mod file_digest;
mod frame_reader;
pub(crate) mod in_order;
mod prepare;
mod prove;
mod reconnect;
mod settings;
mod source;
mod stream_driver;
mod stream_outcome;
mod stream_set;
mod supervise;
#[cfg(test)]
mod tests;
mod transfer;
mod wake;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use accepted_source::{AcceptedSource, AcceptedStreams};
pub(crate) use dt_stream::DtStream;
pub(crate) use frame_reader::FrameReader;
pub(crate) use settings::{ComputeMd5, Settings, Verification};
pub(crate) use source::{EndNotice, Opened, RemoteName, Source};
pub(crate) use supervise::compare;

use crate::digest::{Checksum, FileDigests, FileHasher};
use crate::event::{Event, EventSender, Report};
use crate::failure::{DigestOrigin, Failure};
use crate::manifest::BlockRun;
use crate::num::to_usize;
use crate::proto::v2::{ReportedDigests, WholeDigests};
use crate::schedule::{Policy, Scheduler};
use crate::sink::{Attributes, Outcome as Recovery, Recovered, Sink, SourceIdentity};
use crate::sync::Lock;
use completion::Completion;
use file_digest::FileDigest;
use in_order::{Duties, InOrderReader, InOrderResult};
use prepare::{Preparation, Ready};
use reconnect::run_stream;
use stream_set::StreamSet;
use supervise::{part_file_removed, supervise};
use transfer::{ActiveTransfer, Counters};

/// How long the notice to the sender that the transfer is over may take: a socket takes that at once, unless its path is broken.
const LINGER_TIMEOUT: Duration = Duration::from_millis(100);

/// What is offered: which version of which file, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) identity: SourceIdentity,
    /// The file's digests, if the sender knew them.
    pub(crate) digests: Option<ReportedDigests>,
    /// Each digest that the sender knew, to compare an empty file with.
    pub(crate) known: Vec<Checksum>,
    /// What the sender sends without a request, on the first stream.
    pub(crate) pushed: Option<BlockRun>,
    /// What the output is to have of the file besides its bytes.
    pub(crate) attributes: Attributes,
}

/// Receives what `source` offers into `sink`, until the end or until `cancel`.
pub(crate) async fn run<S: Source>(
    source: S,
    offered: Offered,
    sink: Sink,
    settings: Settings,
    events: EventSender,
    started: Instant,
    cancel: CancellationToken,
) -> Result<Report, Failure> {
    let manifest = offered.identity.manifest;
    let place_freed = Arc::new(Notify::new());
    let preparation = Preparation {
        source: &source,
        offered: &offered,
        settings: &settings,
        events: &events,
        place_freed: &place_freed,
        started,
        cancel: &cancel,
    };
    let prepared = preparation.run(sink).await.inspect_err(|_| source.over(EndNotice::Leaving))?;
    let Ready { mut sink, blocks, recovered, pushed, verified_on } = prepared;
    let Recovered { done, digests, bytes: resumed, outcome } = recovered;
    events.emit(Event::Started {
        size: Some(manifest.size()),
        streams: settings.streams,
        protocol: 2,
        block: Some(manifest.block_size().bytes()),
        resumed,
    });
    if let Recovery::Restarted { reason } = outcome {
        events.emit(Event::StartedOver { reason });
    }
    let (reader, mut in_order) = match read_in_order(&settings, &mut sink)? {
        Some((reader, in_order)) => (Some(reader), Some(in_order)),
        None => (None, None),
    };
    let n_missing = manifest.n_blocks() - done.len();
    let n_pushed = pushed.map_or(0, |run| {
        let missing = manifest.blocks_of(run).filter(|block| !done.contains(*block)).count();
        u32::try_from(missing).unwrap_or(u32::MAX)
    });
    let n_streams = n_useful_streams(n_missing, n_pushed, &settings).min(blocks.most_at_once());
    let policy = Policy {
        ahead: sink.ahead(),
        limited: settings.rate_limit.is_some() || settings.is_sender_limited,
        stall_timeout: settings.stall_timeout,
        ..Policy::default()
    };
    let is_one_run = manifest.n_blocks() == 0
        || settings.digests() == WholeDigests::Blake3
            && (manifest.n_blocks() == 1 || pushed.is_some_and(|run| run.count == manifest.n_blocks()));
    if manifest.n_blocks() == 0 && settings.verification == Verification::On {
        let own = FileHasher::default().with_md5().with_blake3().finish();
        for expected in &offered.known {
            compare(&source.name().file, &own, DigestOrigin::Server, *expected)?;
        }
    }
    // What was done so far, such as verifying what is there, may have taken minutes.
    let now = started.elapsed();
    let transfer = Arc::new(ActiveTransfer {
        source,
        manifest,
        sink: blocks,
        reader,
        events,
        streams: StreamSet::new(settings.streams, n_streams, settings.retries),
        file_digest: FileDigest::new(known_digests(&offered, &settings), is_one_run, now),
        completion: Completion::default(),
        counters: Counters::new(resumed),
        scheduler: Lock::new(Scheduler::new(manifest, done, digests, settings.streams, policy, now)),
        readable: Lock::default(),
        verified_on: Lock::new(verified_on),
        place_freed,
        path: sink.path().to_owned(),
        started,
        settings,
    });
    transfer.advance_reader();
    let received = receive(&transfer, n_streams, &sink, in_order.as_mut(), &cancel).await;
    finish(&transfer, sink, received, offered.attributes).await
}

/// The digests of the offer, if they are all that will be compared.
fn known_digests(offered: &Offered, settings: &Settings) -> Option<ReportedDigests> {
    offered.digests.filter(|known| match settings.digests() {
        WholeDigests::Blake3 => true,
        WholeDigests::Blake3AndMd5 => known.md5.is_some(),
    })
}

/// As many streams as there is work for: one for each block that is not pushed, and the one with the pushed run. At least one, for
/// the digests of the file.
fn n_useful_streams(n_missing: u32, n_pushed: u32, settings: &Settings) -> usize {
    let n_requested = n_missing.saturating_sub(n_pushed) + u32::from(n_pushed > 0);
    to_usize(u64::from(n_requested)).clamp(1, usize::from(settings.streams.value()))
}

/// Checks the outcome and publishes the output, or leaves what can be resumed.
async fn finish<S: Source>(
    transfer: &Arc<ActiveTransfer<S>>,
    sink: Sink,
    received: Result<FileDigests, Failure>,
    attributes: Attributes,
) -> Result<Report, Failure> {
    let size = transfer.manifest.size();
    let digests = match received {
        Ok(digests) => digests,
        Err(error) => {
            leave(sink, transfer, &error);
            return Err(error);
        }
    };
    transfer.events.emit(Event::Publishing);
    let (shared, durability) = (Arc::clone(transfer), transfer.settings.durability);
    let publishing = spawn_blocking(move || {
        if let Err(error) = sink.check_whole(&shared.manifest, &shared.block_digests()) {
            leave(sink, &shared, &error);
            return Err(error);
        }
        let (is_resumable, part) = (sink.is_resumable(), sink.path().to_owned());
        sink.publish(size, durability, attributes).inspect_err(|error| {
            // After the rename, only syncing can have failed.
            if is_resumable && part.exists() && !is_taken_away(error) {
                emit_resumable(&shared);
            }
        })
    });
    let output = publishing.await.map_err(|_| Failure::thread_died("publish the output"))??;
    Ok(Report {
        output,
        bytes: size,
        protocol: 2,
        received: transfer.counters.received(),
        resumed: transfer.counters.resumed(),
        blake3: digests.blake3,
        md5: digests.md5,
        recovery: transfer.counters.recovery(),
        received_after: transfer.counters.received_after(),
        elapsed: transfer.started.elapsed(),
    })
}

/// Leaves what can be resumed after `error`, and reports it.
fn leave<S: Source>(sink: Sink, transfer: &ActiveTransfer<S>, error: &Failure) {
    if matches!(error, Failure::DigestMismatch { origin: DigestOrigin::Server, .. }) {
        // What is recorded does not add up to the file: it must not be resumed. If it cannot be removed, the next transfer finds
        // out the same, so this error is the one to report.
        let _ = sink.discard();
        return;
    }
    if matches!(error, Failure::LocalFile { .. }) {
        // A process that meddles with the file, or a disk that fails, may have destroyed what was right before.
        sink.require_rehash();
    }
    // What is there of a source that changed stays too, but nothing of another version may get into it.
    let is_of_use = !matches!(error, Failure::SourceChanged { .. }) && !is_taken_away(error);
    if sink.is_resumable() && is_of_use {
        emit_resumable(transfer);
    }
}

/// Reports that what is verified stays, if anything is.
fn emit_resumable<S: Source>(transfer: &ActiveTransfer<S>) {
    let bytes = transfer.verified_bytes();
    if bytes > 0 {
        transfer.events.emit(Event::Resumable { bytes });
    }
}

/// Whether it is not known how much of the part file is left.
fn is_taken_away(error: &Failure) -> bool {
    matches!(error, Failure::LocalFile { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof)
}

/// The thread that reads the file in order, if anything needs it in order.
fn read_in_order(
    settings: &Settings,
    sink: &mut Sink,
) -> Result<Option<(InOrderReader, InOrderResult)>, Failure> {
    let writer = sink.take_writer();
    let hasher = match settings.digests() {
        WholeDigests::Blake3AndMd5 => FileHasher::default().with_md5(),
        WholeDigests::Blake3 if writer.is_none() => return Ok(None),
        WholeDigests::Blake3 => FileHasher::default(),
    };
    let duties = Duties { writer, path: sink.path().to_owned(), hasher };
    InOrderReader::spawn(duties).map(Some)
}

/// Runs the streams until everything is received, verified and compared. Afterwards none of them runs any more.
async fn receive<S: Source>(
    transfer: &Arc<ActiveTransfer<S>>,
    n_streams: usize,
    sink: &Sink,
    mut in_order: Option<&mut InOrderResult>,
    cancel: &CancellationToken,
) -> Result<FileDigests, Failure> {
    // Dropping the set aborts its tasks.
    let mut tasks = JoinSet::new();
    if transfer.manifest.n_blocks() > 0 {
        for stream in transfer.settings.streams.ids().take(n_streams) {
            tasks.spawn(run_stream(Arc::clone(transfer), stream));
        }
    }
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Failure::Cancelled),
        result = supervise(transfer, in_order.as_deref_mut()) => result,
        error = task_panicked(&mut tasks) => Err(error),
        error = part_file_removed(sink) => Err(error),
    };
    let notice = match result {
        // Both sides agree about the data, whatever the user expected.
        Ok(_) | Err(Failure::DigestMismatch { origin: DigestOrigin::Caller, .. }) => EndNotice::Complete,
        // The sender need not wait for this side to return.
        Err(_) => EndNotice::Leaving,
    };
    transfer.completion.end(notice);
    transfer.source.over(notice);
    transfer.streams.wake_all();
    transfer.streams.all_closed(LINGER_TIMEOUT).await;
    tasks.shutdown().await;
    if result.is_err()
        && matches!(sink, Sink::File(_))
        && let (Some(reader), Some(in_order)) = (&transfer.reader, in_order)
    {
        // It shares the part file's lock. A file has no writer that could block.
        reader.abandon();
        in_order.ended().await;
    }
    transfer.emit_progress();
    result
}

/// Waits until a stream's task panics, which none does unless something here is wrong.
///
/// # Cancel safety
/// Cancel safe.
async fn task_panicked(tasks: &mut JoinSet<()>) -> Failure {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err_and(|error| error.is_panic()) {
            return Failure::system("continue", "the task of a stream has panicked");
        }
    }
    std::future::pending().await
}
