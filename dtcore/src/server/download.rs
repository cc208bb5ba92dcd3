//! `POST <name>`: a session for a file, and its offer; in protocol 1, a transfer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::Interest;

use crate::backend::{GrowingObject, Object};
use crate::manifest::{BlockSize, Manifest};
use crate::proto::v2::{Replacing, Secret, SessionId, SessionRequest, WholeDigests};
use crate::proto::{InvalidPack, MAX_PACK_BODY, SIZE_HEADER, Target, TransferRequest, decode_pack_names, v1};
use crate::send::{Session, SessionEnd, SessionSpec, Share};
use crate::server::ServerContext;
use crate::server::admission::{Permit, client_key};
use crate::server::body::read_body;
use crate::server::event::{Direction, EndedTransfer, ServerEvent, TransferFailure, TransferId};
use crate::server::open::open;
use crate::server::pack::open_pack;
use crate::server::refusal::Refusal;
use crate::server::request::{Next, RequestContext, json, marking, wants_stream};

pub(crate) async fn answer(
    context: &Arc<ServerContext>,
    request_context: &RequestContext,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let names = Target::names(&request_context.target, marking(&request));
    let names: Arc<[Vec<u8>]> = names.into_iter().map(std::borrow::Cow::into_owned).collect();
    let wants_stream = wants_stream(&request);
    // A name that can only be that of a directory asks for some of its files.
    let is_folder = request_context.target.ends_with(b"/");
    let limit = if is_folder { MAX_PACK_BODY } else { v1::MAX_BODY };
    let body = read_body(request, limit, context.options.request_timeout).await?;
    let wanted = TransferRequest::decode(&body)?;
    let pack = if is_folder { decode_pack_names(&body).map_err(invalid_pack)? } else { None };
    let peer = request_context.peer;
    let permit = context.admit(peer.ip())?;
    let work = async {
        match wanted {
            #[cfg(not(feature = "legacy"))]
            TransferRequest::V1(_) => {
                Err(Refusal::new(StatusCode::BAD_REQUEST, "this server does not speak protocol 1"))
            }
            #[cfg(feature = "legacy")]
            TransferRequest::V1(wanted) => {
                let (answer, size) =
                    super::legacy::create_transfer(context, peer, wanted, names, permit).await?;
                let mut response = json(StatusCode::OK, answer.encode());
                response.headers_mut().insert(SIZE_HEADER, HeaderValue::from(size));
                Ok(response)
            }
            TransferRequest::V2(wanted) => {
                let found = match pack {
                    Some(files) => {
                        let folder = names.last().map(Vec::as_slice).unwrap_or_default();
                        open_pack(context, peer, folder, files).await?
                    }
                    None => open(context, peer, names).await?,
                };
                if wants_stream {
                    offer_on_stream(context, request_context, wanted, found, permit)
                } else {
                    let session = create_session(context, peer, wanted, found, permit)?;
                    if session.spec.manifest.n_blocks() == 0 {
                        // The offer is all there is.
                        session.end(SessionEnd::Finished);
                    }
                    Ok(json(StatusCode::OK, session.offer().encode()))
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = context.tasks().draining.cancelled() => Err(Refusal::busy("the server is shutting down")),
        answer = work => answer,
        // A half-closed connection still wants its answer; one that was reset does not.
        _ = request_context.socket.ready(Interest::ERROR) => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "the client disconnected"))
        }
    }
}

fn invalid_pack(error: InvalidPack) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
}

/// Creates a session whose stream 0 is the connection of the request, on which the offer is sent.
fn offer_on_stream(
    context: &Arc<ServerContext>,
    request_context: &RequestContext,
    wanted: SessionRequest,
    found: (Arc<dyn Object>, PathBuf),
    permit: Permit,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let busy = || Refusal::busy("too many streams");
    let peer = request_context.peer;
    let places = context.limits.stream_places(peer.ip()).ok_or_else(busy)?;
    let session = create_session(context, peer, wanted, found, permit)?;
    let guard = session.claim(0, Replacing::Nothing, || Some(places)).map_err(|_| busy())?;
    Ok(request_context.switch(Next::Stream(guard, wanted.push)))
}

/// Creates a session for a file that was opened; nothing of it is read before.
fn create_session(
    context: &Arc<ServerContext>,
    peer: SocketAddr,
    wanted: SessionRequest,
    (source, path): (Arc<dyn Object>, PathBuf),
    permit: Permit,
) -> Result<Arc<Session>, Refusal> {
    let source = if wanted.may_grow { Arc::new(GrowingObject::new(source)) } else { source };
    let size = source.size();
    let manifest = Manifest::new(size, BlockSize::for_file(size))
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let (id, secret) = (unused_id(context)?, Secret(random()?));
    let (transfer, client) = (context.next_transfer(), client_key(peer.ip()));
    // The context owns the session.
    let observer = Arc::downgrade(context);
    let spec = SessionSpec {
        id,
        secret,
        share: Share { peer: client, session: transfer.0 },
        source,
        manifest,
        streams: wanted.streams,
        on_stream_end: Box::new(move |stream, bytes, result| {
            let event = match result {
                Ok(()) => ServerEvent::StreamFinished { transfer, stream, bytes },
                Err(reason) => ServerEvent::StreamFailed { transfer, stream, bytes, reason },
            };
            if let Some(context) = observer.upgrade() {
                context.emit(event);
            }
        }),
    };
    let session = Session::new(&context.send, spec);
    let port = context.local_addr.port();
    let (streams, started) = (wanted.streams, path.clone());
    context.emit(ServerEvent::TransferStarted {
        transfer,
        direction: Direction::Download,
        protocol: 2,
        peer,
        path: started,
        size,
        streams,
        port,
    });
    context.sessions.insert(&session, client, permit);
    let tracker = &context.tasks().tracker;
    tracker.spawn(run(Arc::clone(context), Arc::clone(&session), peer, path));
    if wanted.digests == WholeDigests::Blake3AndMd5 && manifest.n_blocks() > 0 {
        let session = Arc::clone(&session);
        tracker.spawn(async move { session.hash_ahead().await });
    }
    Ok(session)
}

/// Keeps a session until it ends, and reports how it ended.
async fn run(context: Arc<ServerContext>, session: Arc<Session>, peer: SocketAddr, path: PathBuf) {
    let end = session.run().await;
    let idle = match end {
        SessionEnd::Expired => context.options.session_expiry,
        SessionEnd::Finished
        | SessionEnd::Left
        | SessionEnd::Failed
        | SessionEnd::Evicted
        | SessionEnd::ShutDown => session.idle_since().map(|since| since.elapsed()).unwrap_or_default(),
    };
    // Before the event: an observer may send the next request at once.
    context.sessions.remove(session.spec.id);
    let ended = EndedTransfer {
        transfer: TransferId(session.spec.share.session),
        direction: Direction::Download,
        peer,
        path,
        size: session.spec.manifest.size(),
        bytes: session.bytes_sent(),
        elapsed: session.started.elapsed(),
    };
    context.emit(match end {
        SessionEnd::Finished => ended.finished(),
        SessionEnd::Expired | SessionEnd::Evicted => ended.expired(session.spec.streams.value().into(), idle),
        SessionEnd::Left | SessionEnd::Failed => ended.failed(TransferFailure::ClientLeft),
        SessionEnd::ShutDown => ended.failed(TransferFailure::ShutDown),
    });
}

/// A session number that is not in use. It is no secret, but numbers of a former run must not return soon.
fn unused_id(context: &ServerContext) -> Result<SessionId, Refusal> {
    loop {
        let id = SessionId(u64::from_le_bytes(random()?));
        if !context.sessions.contains(id) {
            return Ok(id);
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Refusal::busy("the system has no randomness"))?;
    Ok(bytes)
}
