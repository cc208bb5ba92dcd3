//! The course of a transfer in protocol 2: the receiver drives.
//!
//! Blocks are demanded on all streams, received into their places, proven by their digests and put on record; whatever
//! breaks is mended. In the end the file's own digest is compared with the server's, and the output is published.

mod frame_reader;
pub(crate) mod in_order;
pub(crate) mod rate_limit;
pub(crate) use rate_limit::RateLimit;
mod reconnect;
mod shared;
mod stream_driver;
#[cfg(test)]
mod tests;
mod wake;
mod workers;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::client::control::Session;
use crate::client::destination::{Begun, Destination};
use crate::client::dialled_source::DialledSource;
use crate::client::negotiate::compare;
use crate::client::options::{Options, Verification};
use crate::digest::{Blake3Digest, Checksum, FileDigests, FileHasher};
use crate::error::{DigestOrigin, TransferError};
use crate::event::{Event, EventSender, Report};
use crate::manifest::{Manifest, StreamCount};
use crate::proto::v2::{WholeDigests, WholeDigestsReply};
use crate::receive::in_order::{Duties, InOrderReader, InOrderResult as Outcome};
use crate::schedule::{Policy, Retries, Scheduler};
use crate::sink::{Checked, Outcome as Recovery};
use shared::{Beginning, Shared};
use workers::Workers;

/// How often the streams are looked after: the scheduler's faults are matters of a second.
const WATCH: Duration = Duration::from_millis(50);

/// How long the server is being told at most that all has come: a socket takes it at once, unless its path is broken.
const LINGER_TIMEOUT: Duration = Duration::from_millis(100);

/// How often it is looked whether the part file still has its name.
const NAME_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Receives what the session offers, to its end or until `cancel`.
pub(crate) async fn run(
    options: Options,
    destination: Destination,
    session: Session,
    events: EventSender,
    started: Instant,
    cancel: CancellationToken,
) -> Result<Report, TransferError> {
    let manifest = session.answer.manifest;
    let (mut destination, begun) = begin(destination, &options, &session, &events, &cancel).await?;
    let Begun { blocks, place_freed, done, digests, resumed, outcome } = begun;
    events.send(Event::Started {
        size: Some(manifest.size()),
        streams: options.streams,
        protocol: 2,
        block: Some(manifest.block_size().bytes()),
        resumed,
    });
    if let Recovery::StartedOver { why } = outcome {
        events.send(Event::StartedOver { reason: why });
    }
    let (follower, mut digested) = match follow(&options, &mut destination)? {
        Some((follower, digested)) => (Some(follower), Some(digested)),
        None => (None, None),
    };
    let streams = useful_streams(&manifest, done.len(), options.streams).min(blocks.most_at_once());
    let policy = Policy {
        ahead: destination.ahead(),
        limited: options.limit_rate.is_some(),
        stall_timeout: options.stall_timeout,
        ..Policy::default()
    };
    let shared = Arc::new(Shared::new(Beginning {
        place_freed,
        manifest,
        blocks,
        access: DialledSource::new(session),
        events,
        path: destination.path().to_owned(),
        follower,
        scheduler: Scheduler::new(manifest, done, options.streams, policy, started.elapsed()),
        retries: Retries::new(options.retries, streams),
        digests,
        started,
        resumed,
        options,
    }));
    let received = receive(&shared, streams, &destination, digested.as_mut(), &cancel).await;
    let received = received.and_then(|digests| {
        destination.check_whole(&manifest, &shared.block_digests())?;
        Ok(digests)
    });
    let digests = match received {
        Ok(digests) => digests,
        Err(error) => {
            leave(destination, &shared, &error);
            return Err(error);
        }
    };
    let (bytes_received, received_after, trouble) = shared.account();
    let is_resumable = destination.is_resumable();
    let published = destination.publish(manifest.size(), shared.options.durability);
    let output = published.inspect_err(|error| {
        if is_resumable && !is_taken_away(error) {
            shared.emit_resumable();
        }
    })?;
    Ok(Report {
        output,
        bytes: manifest.size(),
        protocol: 2,
        received: bytes_received,
        resumed,
        blake3: digests.blake3,
        md5: digests.md5,
        trouble,
        received_after,
        elapsed: started.elapsed(),
    })
}

/// Finds out what is there, on a thread that may be busy with that for minutes: after another boot all of it is read back.
///
/// Should the session expire meanwhile, the first stream asks for another one.
async fn begin(
    destination: Destination,
    options: &Options,
    session: &Session,
    events: &EventSender,
    cancel: &CancellationToken,
) -> Result<(Destination, Begun), TransferError> {
    let (mut destination, options, answer) = (destination, options.clone(), session.answer.clone());
    let (events, cancel) = (events.clone(), cancel.clone());
    let mut told: Option<Instant> = None;
    let mut watch = move |checked: Checked| {
        if told.is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL) {
            told = Some(Instant::now());
            events.offer(Event::Checking { bytes: checked.bytes, of: checked.of });
        }
        if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let begun = spawn_blocking(move || {
        let begun = destination.begin(&options, &answer, &mut watch)?;
        Ok((destination, begun))
    });
    begun.await.map_err(|_| TransferError::System {
        action: "find out what is there",
        source: io::Error::other("the thread that does has died"),
    })?
}

/// Leaves behind what can be gone on with after `error`, and tells of it.
fn leave(destination: Destination, shared: &Shared, error: &TransferError) {
    if matches!(error, TransferError::DigestMismatch { origin: DigestOrigin::Server, .. }) {
        // What is on record does not add up to the file: it must not be gone on with. Where it cannot be removed, the next
        // transfer finds out the same, so that this error is the one to tell.
        let _ = destination.discard();
        return;
    }
    if matches!(error, TransferError::LocalFile { .. }) {
        // A process that meddles with the file, or a disk that fails, may have taken what was right before.
        destination.require_rehash();
    }
    // What is there of a source that changed stays too, but nothing of what comes may get into it.
    let is_of_use = !matches!(error, TransferError::SourceChanged { .. }) && !is_taken_away(error);
    if destination.is_resumable() && is_of_use {
        shared.emit_resumable();
    }
}

/// Whether nobody knows how much of the part file is left.
fn is_taken_away(error: &TransferError) -> bool {
    matches!(error, TransferError::LocalFile { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof)
}

/// As many streams as there are blocks to fetch; one at least, for the file's digests.
fn useful_streams(manifest: &Manifest, n_done: u32, wanted: StreamCount) -> usize {
    let missing = usize::try_from(manifest.n_blocks().saturating_sub(n_done)).unwrap_or(usize::MAX);
    missing.clamp(1, usize::from(wanted.value()))
}

/// The thread that reads the file in order, if anybody wants it in order.
fn follow(
    options: &Options,
    destination: &mut Destination,
) -> Result<Option<(InOrderReader, Outcome)>, TransferError> {
    let sink = destination.take_writer();
    let hasher = match options.digests() {
        WholeDigests::Blake3AndMd5 => FileHasher::default().with_md5(),
        WholeDigests::Blake3 if sink.is_none() => return Ok(None),
        WholeDigests::Blake3 => FileHasher::default(),
    };
    let duties = Duties { writer: sink, path: destination.path().to_owned(), hasher };
    InOrderReader::spawn(duties).map(Some)
}

/// Runs the streams until all is received, digested and compared; afterwards none of them runs any more.
async fn receive(
    shared: &Arc<Shared>,
    n_streams: usize,
    destination: &Destination,
    mut digested: Option<&mut Outcome>,
    cancel: &CancellationToken,
) -> Result<FileDigests, TransferError> {
    if shared.manifest.n_blocks() == 0 {
        return tokio::select! {
            biased;
            () = cancel.cancelled() => Err(TransferError::Cancelled),
            result = nothing(shared, digested) => result,
        };
    }
    let mut workers = Workers::start(n_streams)?;
    for stream in shared.options.streams.ids().take(n_streams) {
        workers.spawn(reconnect::keep(Arc::clone(shared), stream));
    }
    let finished = async {
        let (own, whole) = watch(shared, digested.as_deref_mut()).await?;
        let md5 = match digested {
            Some(digested) => {
                if let Some(follower) = shared.follower() {
                    follower.close();
                }
                finish(shared, digested).await?.md5
            }
            None => None,
        };
        let digests = FileDigests { md5, blake3: Some(own) };
        let server = [Some(Checksum::Blake3(whole.blake3)), whole.md5.map(Checksum::Md5)];
        if shared.options.verification == Verification::On {
            for expected in server.into_iter().flatten() {
                compare(&shared.options, &digests, DigestOrigin::Server, expected)?;
            }
        }
        if let Some(expected) = shared.options.checksum {
            compare(&shared.options, &digests, DigestOrigin::Caller, expected)?;
        }
        Ok(digests)
    };
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(TransferError::Cancelled),
        result = finished => result,
        error = workers.died() => Err(error),
        error = removed(destination) => Err(error),
    };
    if matches!(result, Ok(_) | Err(TransferError::DigestMismatch { origin: DigestOrigin::Caller, .. })) {
        // Server and client agree about the bytes, whatever the user expected of them.
        shared.accept(LINGER_TIMEOUT).await;
    }
    workers.end().await;
    shared.tell();
    result
}

/// Receives a file of no bytes: the answer was all, but whoever reads a pipe waits for its end.
async fn nothing(shared: &Shared, digested: Option<&mut Outcome>) -> Result<FileDigests, TransferError> {
    let own = FileHasher::default().with_md5().with_blake3().finish();
    if shared.options.verification == Verification::On {
        for expected in shared.access.told() {
            compare(&shared.options, &own, DigestOrigin::Server, expected)?;
        }
    }
    let own = FileDigests { md5: own.md5.filter(|_| digested.is_some()), ..own };
    if let Some(expected) = shared.options.checksum {
        compare(&shared.options, &own, DigestOrigin::Caller, expected)?;
    }
    if let (Some(follower), Some(digested)) = (shared.follower(), digested) {
        follower.close();
        finish(shared, digested).await?;
    }
    Ok(own)
}

/// Waits until the part file's name is gone, or another file's: what comes then comes in vain.
async fn removed(destination: &Destination) -> TransferError {
    let mut look = ticks(NAME_CHECK_INTERVAL);
    loop {
        look.tick().await;
        if let Err(error) = destination.check_name() {
            return error;
        }
    }
}

/// Looks after the streams until everything has come.
async fn watch(
    shared: &Shared,
    mut digested: Option<&mut Outcome>,
) -> Result<(Blake3Digest, WholeDigestsReply), TransferError> {
    let (mut watch, mut tell) = (ticks(WATCH), ticks(PROGRESS_INTERVAL));
    loop {
        tokio::select! {
            biased;
            () = shared.ended() => {
                if let Some(whole) = shared.outcome()? {
                    return Ok(whole);
                }
            }
            error = failed(digested.as_deref_mut()) => return Err(error),
            () = shared.moved() => shared.consumed(),
            _ = watch.tick() => shared.watch(shared.now())?,
            _ = tell.tick() => shared.tell(),
        }
    }
}

/// The follower's error; without one, this waits for ever.
async fn failed(digested: Option<&mut Outcome>) -> TransferError {
    if let Some(digested) = digested
        && let Err(error) = digested.wait().await
    {
        return error;
    }
    std::future::pending().await
}

/// Waits until the follower is through.
async fn finish(shared: &Shared, digested: &mut Outcome) -> Result<FileDigests, TransferError> {
    let mut tell = ticks(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            biased;
            digests = digested.wait() => return digests,
            _ = tell.tick() => shared.tell(),
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
