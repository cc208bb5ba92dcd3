//! Runs an upload: requests a session, sends on its streams until the server has stored the file, and requests another session where a
//! server does not know the first one any more.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::source::{Input, OpenInput, open};
use super::streams::{Uploading, run_stream};
use crate::backend::Object;
use crate::client::options::Options;
use crate::event::{Event, EventSender, PROGRESS_INTERVAL, Progress, UploadReport, ticks};
use crate::failure::Failure;
use crate::manifest::{BlockSize, Manifest};
use crate::num::to_usize;
use crate::proto::v2::{ReceiverFailure, Secret, SessionId, SessionOffer, UploadOptions, UploadRequest};
use crate::send::digest_cache::{DigestCache, MIN_AGE};
use crate::send::{Context, FairQueue, Session, SessionEnd, SessionSpec, Share, Tasks, Timeouts};

/// How long streams may take to close in order after the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs one upload to its end, or until `cancel`.
pub(super) async fn run(
    options: Options,
    wishes: UploadOptions,
    input: Input,
    events: EventSender,
    cancel: CancellationToken,
) -> Result<UploadReport, Failure> {
    let started = Instant::now();
    let (may_grow, opening_cancel) = (options.may_grow, cancel.clone());
    let opening = spawn_blocking(move || open(input, may_grow, &opening_cancel));
    // A pipe may stay silent for long.
    let opened = cancel.run_until_cancelled(opening).await.ok_or(Failure::Cancelled)?;
    let opened = opened.map_err(|_| Failure::thread_died("open the source"))?;
    let OpenInput { object, is_resumable } = opened?;
    let session = session(&options, object)?;
    let size = session.spec.manifest.size();
    let offer = session.offer();
    let offer = SessionOffer { mode: offer.mode.filter(|_| options.preserve.mode), ..offer };
    let wishes = UploadOptions { limited: options.settings.rate_limit.is_some(), ..wishes };
    let body = UploadRequest { offer, streams: options.settings.streams, options: wishes }.encode();
    let uploading = Arc::new(Uploading::new(options, body, Arc::clone(&session), events.clone(), started));
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Failure::Cancelled),
        result = send(&uploading) => result,
    };
    // What is still open ends: after success in order, else by a reset.
    session.context.tasks.draining.cancel();
    if result.is_err() {
        session.context.tasks.aborted.cancel();
        if is_resumable && uploading.has_started() && is_of_use(&result) {
            events.emit(Event::UploadResumable);
        }
    }
    result?;
    Ok(UploadReport {
        bytes: size,
        sent: session.bytes_sent(),
        blake3: session.known_blake3(),
        streams_lost: uploading.n_lost(),
        retries: uploading.n_retries(),
        elapsed: started.elapsed(),
    })
}

/// Whether the same upload, started again, can use what the server has saved.
fn is_of_use(result: &Result<(), Failure>) -> bool {
    !matches!(
        result,
        Err(Failure::UploadFailed {
            failure: ReceiverFailure::Corrupt
                | ReceiverFailure::SourceChanged
                | ReceiverFailure::SourceReplaced,
            ..
        })
    )
}

/// A session that sends `object` to a server which has not been asked yet.
fn session(options: &Options, object: Arc<dyn Object>) -> Result<Arc<Session>, Failure> {
    let size = object.size();
    let manifest = Manifest::new(size, BlockSize::for_file(size))
        .map_err(|_| Failure::OverLimit { size, limit: i64::MAX.unsigned_abs() })?;
    let tasks = Tasks::default();
    let context = Arc::new(Context {
        digests: DigestCache::new(MIN_AGE, &tasks.tracker, Arc::default()),
        fair_queue: FairQueue::new(),
        timeouts: Timeouts {
            stall: options.settings.stall_timeout,
            // The server may verify what it has for minutes before it requests anything.
            idle: options.settings.answer_timeout,
            session: options.settings.answer_timeout,
        },
        rate_limit: options.settings.rate_limit.clone(),
        tasks,
        bytes_sent: Arc::new(AtomicU64::new(0)),
    });
    let spec = SessionSpec {
        id: SessionId(u64::from_le_bytes(random()?)),
        secret: Secret(random()?),
        share: Share { peer: Ipv4Addr::LOCALHOST.into(), session: 0 },
        source: object,
        manifest,
        streams: options.settings.streams,
        on_stream_end: Box::new(|_, _, _| {}),
    };
    Ok(Session::new(&context, spec))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|_| Failure::system("choose a session", "the system has no randomness"))?;
    Ok(bytes)
}

/// Sends until the server has stored the file.
async fn send(uploading: &Arc<Uploading>) -> Result<(), Failure> {
    uploading.open_session().await?;
    let session = Arc::clone(&uploading.session);
    let manifest = session.spec.manifest;
    uploading.events.emit(Event::Started {
        size: Some(manifest.size()),
        streams: session.spec.streams,
        protocol: 2,
        block: Some(manifest.block_size().bytes()),
        resumed: 0,
    });
    // As many as the server can use.
    let n_streams = to_usize(manifest.n_blocks().into()).clamp(1, usize::from(session.spec.streams.value()));
    uploading.limit_streams(n_streams);
    let mut tasks = JoinSet::new();
    for stream in session.spec.streams.ids().take(n_streams) {
        tasks.spawn(run_stream(Arc::clone(uploading), stream));
    }
    let mut progress = ticks(PROGRESS_INTERVAL);
    let end = loop {
        tokio::select! {
            biased;
            end = session.until_ended() => break end,
            Some(ended) = tasks.join_next() => match ended {
                Ok(result) => result?,
                Err(_) => return Err(Failure::system("continue", "the task of a stream has panicked")),
            },
            _ = progress.tick() => emit_progress(uploading),
        }
    };
    emit_progress(uploading);
    // The last frames are acknowledged.
    let _ = timeout(CLOSE_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await;
    match end {
        Some(SessionEnd::Finished) => Ok(()),
        Some(SessionEnd::Failed) => {
            let (failure, reason) =
                session.failure().cloned().unwrap_or((ReceiverFailure::Other, String::new()));
            Err(uploading.failed(failure, reason))
        }
        _ => Err(uploading.failed(ReceiverFailure::Other, "it has given up".to_owned())),
    }
}

fn emit_progress(uploading: &Uploading) {
    let session = &uploading.session;
    let size = session.spec.manifest.size();
    let sent = session.bytes_sent().min(size);
    uploading.events.progress(Progress {
        size: Some(size),
        received: sent,
        verified: 0,
        open_streams: uploading.n_open(),
        outage: uploading.outage(),
        elapsed: uploading.started.elapsed(),
    });
}
