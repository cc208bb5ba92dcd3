//! Supervises the streams of a transfer until everything has arrived and matches.

use std::time::Duration;

use super::file_digest::Expected;
use super::in_order::InOrderResult;
use super::settings::Verification;
use super::source::Source;
use super::transfer::ActiveTransfer;
use crate::digest::{Blake3Digest, Checksum, FileDigests};
use crate::event::{PROGRESS_INTERVAL, ticks};
use crate::failure::{Awaited, DigestOrigin, Failure};
use crate::schedule::Fault;
use crate::sink::Sink;

/// How often the streams are checked: the scheduler's faults are matters of a second.
const TICK: Duration = Duration::from_millis(50);

/// How often it is checked whether the part file still has its name.
const NAME_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The streams are checked many times in this time, unless the program was stopped.
const STOPPED: Duration = Duration::from_secs(1);

/// Runs until everything has arrived and matches, and returns the digests of the file.
pub(super) async fn supervise<S: Source>(
    transfer: &ActiveTransfer<S>,
    mut in_order: Option<&mut InOrderResult>,
) -> Result<FileDigests, Failure> {
    loop {
        let (own, expected) = received(transfer, in_order.as_deref_mut()).await?;
        if let Expected::Digests(reported) = expected
            && transfer.settings.verification == Verification::On
            && reported.blake3 != own
            // A report may have been damaged on its way.
            && transfer.file_digest.reject()
        {
            transfer.streams.wake_all();
            continue;
        }
        let md5 = match in_order {
            Some(in_order) => {
                transfer.close_reader();
                finished(transfer, in_order).await?.md5
            }
            None => None,
        };
        let digests = FileDigests { md5, blake3: Some(own) };
        compare_all(transfer, &digests, expected)?;
        return Ok(digests);
    }
}

/// Compares the digests of what was received with the sender's and the user's.
fn compare_all<S: Source>(
    transfer: &ActiveTransfer<S>,
    digests: &FileDigests,
    expected: Expected,
) -> Result<(), Failure> {
    let name = &transfer.source.name().file;
    if let Expected::Digests(reported) = expected
        && transfer.settings.verification == Verification::On
    {
        let md5 = reported.md5.map(Checksum::Md5);
        for expected in [Some(Checksum::Blake3(reported.blake3)), md5].into_iter().flatten() {
            compare(name, digests, DigestOrigin::Server, expected).map_err(|error| {
                // What was sent was overwritten, besides that the file has grown.
                if transfer.counters.has_grown() { transfer.source.name().source_changed() } else { error }
            })?;
        }
    }
    match transfer.settings.checksum {
        Some(expected) => compare(name, digests, DigestOrigin::Caller, expected),
        None => Ok(()),
    }
}

/// Compares what was received with one digest that it should have.
pub(crate) fn compare(
    name: &str,
    digests: &FileDigests,
    origin: DigestOrigin,
    expected: Checksum,
) -> Result<(), Failure> {
    match digests.comparable(&expected) {
        Some(actual) if actual != expected => {
            Err(Failure::DigestMismatch { name: name.to_owned(), origin, expected, actual })
        }
        Some(_) | None => Ok(()),
    }
}

/// Waits until all blocks are verified and it is known what the file is compared with.
async fn received<S: Source>(
    transfer: &ActiveTransfer<S>,
    mut in_order: Option<&mut InOrderResult>,
) -> Result<(Blake3Digest, Expected), Failure> {
    let (mut tick, mut progress) = (ticks(TICK), ticks(PROGRESS_INTERVAL));
    let mut checked = transfer.now();
    transfer.completion.check();
    loop {
        tokio::select! {
            biased;
            () = transfer.completion.changed() => {
                if let Some(outcome) = outcome(transfer)? {
                    return Ok(outcome);
                }
            }
            error = failed(in_order.as_deref_mut()) => return Err(error),
            () = consumed(transfer) => transfer.consumed(),
            _ = tick.tick() => check_streams(transfer, &mut checked, transfer.now())?,
            _ = progress.tick() => transfer.emit_progress(),
        }
    }
}

/// The error that ended the transfer, the digests if everything is there, or neither yet.
pub(super) fn outcome<S: Source>(
    transfer: &ActiveTransfer<S>,
) -> Result<Option<(Blake3Digest, Expected)>, Failure> {
    if let Some(error) = transfer.completion.take_failure() {
        return Err(error);
    }
    let scheduler = transfer.scheduler.lock();
    let Some(expected) = transfer.file_digest.expected().filter(|_| scheduler.is_complete()) else {
        return Ok(None);
    };
    let digests: Option<Vec<_>> = scheduler.digests().iter().copied().collect();
    drop(scheduler);
    let own = digests.and_then(|digests| Blake3Digest::of_blocks(&transfer.manifest, &digests));
    Ok(own.map(|own| (own, expected)))
}

/// Replaces connections that bring no data, and fails when none does for too long. `checked` is when this was done last.
pub(super) fn check_streams<S: Source>(
    transfer: &ActiveTransfer<S>,
    checked: &mut Duration,
    now: Duration,
) -> Result<(), Failure> {
    let mut scheduler = transfer.scheduler.lock();
    if now.saturating_sub(*checked) > STOPPED {
        // The program was stopped, and so waited for nothing.
        scheduler.reset_timers(now);
        transfer.file_digest.reset_timers(now);
    }
    *checked = now;
    let mut faults = scheduler.tick(now);
    let mut silent = scheduler.silent_for(now);
    let (is_complete, is_all_assigned) = (scheduler.is_complete(), scheduler.is_all_assigned());
    drop(scheduler);
    let mut stuck = Duration::ZERO;
    if is_complete {
        let waited = transfer.file_digest.waited(now);
        (silent, stuck) = (waited.silent, waited.stuck);
        faults.extend(waited.stalled_stream.map(|stream| (stream, Fault::Stalled)));
    }
    // Whether a second copy of a block is worth its bytes changes with time.
    if is_all_assigned {
        transfer.streams.wake_all();
    } else {
        transfer.streams.wake_idle();
    }
    for (stream, fault) in faults {
        transfer.streams.replace(stream, fault);
    }
    let timed_out = |awaited, waited| {
        let server = transfer.source.name().peer.clone();
        Err(Failure::TimedOut { server, awaited, waited })
    };
    let settings = &transfer.settings;
    if let Some(limit) = settings.retries.silence(settings.stall_timeout)
        && silent >= limit
    {
        return timed_out(Awaited::Data, limit);
    }
    // The server may hash other files first.
    if stuck >= settings.answer_timeout {
        return timed_out(Awaited::FileDigest, settings.answer_timeout);
    }
    Ok(())
}

/// Waits until the part file's name is gone or belongs to another file, in which case nothing more is of use.
pub(super) async fn part_file_removed(sink: &Sink) -> Failure {
    let mut check = ticks(NAME_CHECK_INTERVAL);
    loop {
        check.tick().await;
        if let Err(error) = sink.check_name() {
            return error;
        }
    }
}

/// Waits until the in-order reader has advanced; without one, indefinitely.
async fn consumed<S: Source>(transfer: &ActiveTransfer<S>) {
    match &transfer.reader {
        Some(reader) => reader.moved().await,
        None => std::future::pending().await,
    }
}

/// The error of the in-order reader; without one, this waits indefinitely.
async fn failed(in_order: Option<&mut InOrderResult>) -> Failure {
    if let Some(in_order) = in_order
        && let Err(error) = in_order.wait().await
    {
        return error;
    }
    std::future::pending().await
}

/// Waits until the in-order reader has read everything.
async fn finished<S: Source>(
    transfer: &ActiveTransfer<S>,
    in_order: &mut InOrderResult,
) -> Result<FileDigests, Failure> {
    let mut progress = ticks(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            biased;
            digests = in_order.wait() => return digests,
            _ = progress.tick() => transfer.emit_progress(),
        }
    }
}
