//! `PUT <name>` with an upgrade: a session in which the client sends a file, and the server drives.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::ServerContext;
use super::admission::{Permit, client_key};
use super::auth::{Action, AuthorizeRequest};
use super::body::read_body;
use super::event::{Direction, EndedTransfer, ServerEvent, TransferFailure};
use super::open::{authorize, path_below};
use super::refusal::Refusal;
use super::request::{Next, RequestContext, wants_stream};
use super::uploads::IncomingUpload;
use crate::backend::fs::FilePlace;
use crate::event;
use crate::failure::{Failure, reason};
use crate::proto::v1;
use crate::proto::v2::{ReceiverFailure, UploadRequest};
use crate::receive::{
    self, AcceptedSource, AcceptedStreams, ComputeMd5, Offered, RemoteName, Settings, Verification,
};
use crate::schedule::RetryLimit;
use crate::sink::{
    Attributes, Clobber, Durability, Engine, Output, Resume, Sink, SourceIdentity, is_sidecar_name,
};

/// How many rounds of lost connections an upload survives without progress; in each the client is awaited for the session expiry.
const RETRIES: u32 = 2;

/// What is received, and where it goes.
struct Incomplete {
    place: FilePlace,
    sink: Sink,
    offered: Offered,
    settings: Settings,
    permit: Permit,
}

pub(crate) async fn answer(
    context: &Arc<ServerContext>,
    request_context: &RequestContext,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let Some(policy) = &context.options.uploads else {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "uploads are not permitted"));
    };
    let name = request_context.name(&request);
    if !wants_stream(&request) {
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "an upload needs 'Upgrade: dt2'"));
    }
    let body = read_body(request, v1::MAX_BODY, context.options.request_timeout).await?;
    let wanted = UploadRequest::decode(&body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let size = wanted.offer.manifest.size();
    if size > policy.largest() {
        let reason = format!("the largest upload is {} bytes", policy.largest());
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    let peer = request_context.peer;
    let path = path_below(&name);
    authorize(context, AuthorizeRequest { peer, action: Action::Upload, path: path.clone() }).await?;
    let permit = context.admit(peer.ip())?;
    let places = context.limits.stream_places(peer.ip()).ok_or_else(|| Refusal::busy("too many streams"))?;
    let clobber = if wanted.options.overwrite && policy.allows_overwriting() {
        Clobber::Replace
    } else {
        Clobber::Refuse
    };
    let resume = if wanted.options.restart { Resume::Refused } else { Resume::Allowed };
    let (place, sink) = prepared(context, peer, &name, clobber, resume, size).await?;
    let path = place.relative().to_owned();
    let upload = Arc::new(IncomingUpload::new(
        (wanted.offer.session, wanted.offer.secret.clone()),
        context.next_transfer(),
        AcceptedStreams::new(wanted.offer.manifest, wanted.streams),
        client_key(peer.ip()),
        path.clone(),
        context.tasks().draining.child_token(),
    ));
    if context.sessions.contains(upload.id) || !context.uploads.insert(&upload) {
        return Err(Refusal::new(StatusCode::CONFLICT, "the number of the session is in use"));
    }
    context.emit(ServerEvent::TransferStarted {
        transfer: upload.transfer,
        direction: Direction::Upload,
        protocol: 2,
        peer,
        path,
        size,
        streams: wanted.streams,
        port: context.local_addr.port(),
    });
    let (offered, settings) = (offered(&wanted, &name), settings(context, &wanted));
    let incomplete = Incomplete { place, sink, offered, settings, permit };
    context.tasks().tracker.spawn(run(Arc::clone(context), Arc::clone(&upload), peer, incomplete));
    Ok(request_context.switch(Next::Upload(upload, places)))
}

/// Opens the place of a file, and what an earlier upload has left there.
async fn prepared(
    context: &Arc<ServerContext>,
    peer: SocketAddr,
    name: &[u8],
    clobber: Clobber,
    resume: Resume,
    size: u64,
) -> Result<(FilePlace, Sink), Refusal> {
    for is_second in [false, true] {
        let (root, name) = (Arc::clone(&context.upload_root), name.to_owned());
        let opening = spawn_blocking(move || {
            let place = root.place(&name)?;
            if is_sidecar_name(place.name().as_encoded_bytes()) {
                return Err(Refusal::new(StatusCode::FORBIDDEN, "names of partial files are reserved"));
            }
            let sink = Sink::open(Output::Confined(place.path()), clobber, resume)
                .and_then(|sink| sink.ensure_space(size).map(|()| sink));
            Ok::<_, Refusal>((place, sink.map_err(|failure| refusal(&failure))))
        });
        let opened = opening.await.map_err(|_| Refusal::busy("the server is shutting down"))?;
        let (place, sink) = opened?;
        match sink {
            Ok(sink) => return Ok((place, sink)),
            Err(refusal) if refusal.status == StatusCode::LOCKED && !is_second => {
                let client = client_key(peer.ip());
                if !context.uploads.replace_abandoned(client, place.relative()).await {
                    return Err(refusal);
                }
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Err(Refusal::new(StatusCode::LOCKED, IN_USE))
}

/// How long the outcome of an upload is known after it was sent to its client.
const REMEMBERED: Duration = Duration::from_secs(5);

const IN_USE: &str = "another upload writes it";

fn offered(wanted: &UploadRequest, name: &[u8]) -> Offered {
    let offer = &wanted.offer;
    Offered {
        identity: SourceIdentity {
            manifest: offer.manifest,
            modified: offer.modified,
            version: offer.version,
            remote: SourceIdentity::remote("upload", name),
        },
        digests: None,
        known: Vec::new(),
        pushed: None,
        attributes: Attributes {
            modified: Some(offer.modified).filter(|_| !wanted.options.now),
            mode: offer.mode,
        },
    }
}

fn settings(context: &ServerContext, wanted: &UploadRequest) -> Settings {
    Settings {
        streams: wanted.streams,
        md5: ComputeMd5::No,
        verification: Verification::On,
        checksum: None,
        engine: Engine::Auto,
        durability: if wanted.options.sync { Durability::Synced } else { Durability::Cached },
        rate_limit: None,
        is_sender_limited: wanted.options.limited,
        retries: RetryLimit::rounds(RETRIES),
        stall_timeout: context.options.stall_timeout,
        answer_timeout: context.options.idle_timeout,
    }
}

/// Receives the file, and reports to its sender and the observers how that ended.
async fn run(
    context: Arc<ServerContext>,
    upload: Arc<IncomingUpload>,
    peer: SocketAddr,
    incomplete: Incomplete,
) {
    let started = Instant::now();
    let Incomplete { place, sink, offered, settings, permit } = incomplete;
    let size = offered.identity.manifest.size();
    let name =
        RemoteName { peer: peer.ip().to_string(), file: place.relative().to_string_lossy().into_owned() };
    let source = AcceptedSource::new(name, Arc::clone(&upload.streams), context.options.session_expiry);
    // Nobody observes it from here; the sender counts what it sends.
    let (events, _) = event::channel();
    let received =
        receive::run(source, offered, sink, settings, events, started, upload.cancel.clone()).await;
    let ended = EndedTransfer {
        transfer: upload.transfer,
        direction: Direction::Upload,
        peer,
        path: place.relative().to_owned(),
        size,
        bytes: received.as_ref().map_or(0, |report| report.received),
        elapsed: started.elapsed(),
    };
    drop(place);
    upload.released.cancel();
    let is_draining = context.tasks().draining.is_cancelled();
    let conclusion = match &received {
        Ok(_) => Ok(()),
        Err(Failure::Cancelled) if is_draining => {
            Err((ReceiverFailure::ShuttingDown, "the server is shutting down".to_owned()))
        }
        Err(Failure::Cancelled) => {
            Err((ReceiverFailure::InUse, "another upload has taken its place".to_owned()))
        }
        Err(failure) => Err(described(failure)),
    };
    drop(permit);
    context.emit(match &conclusion {
        Ok(()) => ended.finished(),
        Err((failure, _)) => ended.failed(match failure {
            ReceiverFailure::ShuttingDown => TransferFailure::ShutDown,
            ReceiverFailure::DiskFull => TransferFailure::DiskFull,
            ReceiverFailure::SourceChanged => TransferFailure::SourceChanged,
            ReceiverFailure::TimedOut => TransferFailure::ClientLeft,
            ReceiverFailure::Other
            | ReceiverFailure::Exists
            | ReceiverFailure::InUse
            | ReceiverFailure::Corrupt
            | ReceiverFailure::SourceReplaced => TransferFailure::NotStored,
        }),
    });
    // A sender that has lost its connections asks again. One that has not seldom does, and there may be thousands a second.
    let is_sent = upload.streams.conclude(&conclusion).await;
    let expiry = context.options.session_expiry;
    tokio::select! {
        () = sleep(if is_sent { expiry.min(REMEMBERED) } else { expiry }) => {}
        () = context.tasks().draining.cancelled() => {}
    }
    context.uploads.remove(upload.id);
}

/// A failure for its sender, which does not learn where the file was to be stored.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others are not about the file, and say all there is to say"
)]
fn described(failure: &Failure) -> (ReceiverFailure, String) {
    match failure {
        Failure::DiskFull { lacking, needed, .. } => {
            let needed = if *needed > 0 { format!(": {needed} bytes needed") } else { String::new() };
            (ReceiverFailure::DiskFull, format!("{lacking}{needed}"))
        }
        Failure::TooLarge { .. } => {
            (ReceiverFailure::DiskFull, "larger than its file system allows".to_owned())
        }
        Failure::OutputExists { .. } => (ReceiverFailure::Exists, "there is such a file".to_owned()),
        Failure::OutputInUse { .. } => (ReceiverFailure::InUse, IN_USE.to_owned()),
        Failure::LocalFile { action, source, .. } | Failure::System { action, source } => {
            (ReceiverFailure::Other, format!("cannot {action} it: {}", reason(source)))
        }
        Failure::SourceChanged { .. } => {
            (ReceiverFailure::SourceChanged, "the file changed during the transfer".to_owned())
        }
        Failure::SourceReplaced { .. } => {
            (ReceiverFailure::SourceReplaced, "it has saved data of another version".to_owned())
        }
        Failure::DigestMismatch { .. } | Failure::CorruptBlock { .. } => {
            (ReceiverFailure::Corrupt, "the bytes do not match their digests".to_owned())
        }
        Failure::TimedOut { .. } | Failure::ConnectionLost { .. } => {
            (ReceiverFailure::TimedOut, "nothing arrived for too long".to_owned())
        }
        failure => (ReceiverFailure::Other, failure.to_string()),
    }
}

/// The answer where a file cannot be received from the start.
fn refusal(failure: &Failure) -> Refusal {
    let (kind, reason) = described(failure);
    let status = match (kind, failure) {
        (_, Failure::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
        (ReceiverFailure::DiskFull, _) => StatusCode::INSUFFICIENT_STORAGE,
        (ReceiverFailure::Exists, _) => StatusCode::PRECONDITION_FAILED,
        (ReceiverFailure::InUse, _) => StatusCode::LOCKED,
        (_, Failure::LocalFile { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            StatusCode::FORBIDDEN
        }
        (_, Failure::LocalFile { source, .. }) if source.kind() == io::ErrorKind::IsADirectory => {
            StatusCode::NOT_FOUND
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal::new(status, reason)
}
