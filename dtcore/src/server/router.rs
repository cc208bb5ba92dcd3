//! What a request asks for, and what it is granted: from the HTTP request to the answer.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Shared;
use crate::backend::fs::SourceFile;
use crate::backend::{Backend, Object};
use crate::digest::Md5Digest;
use crate::manifest::StaticSplit;
use crate::proto::{Marking, SIZE_HEADER, TARGET_HEADER, Target, TransferRequest, v1, v2};
use crate::send::digest_cache::DigestError;
use crate::server::admission::{Permit, client_key};
use crate::server::legacy::Transfer;
use crate::server::refusal::Refusal;

/// How often a file is opened and hashed that changes meanwhile.
const ATTEMPTS: usize = 2;

/// What is granted.
enum Granted {
    V1(v1::Answer, u64),
    V2(v2::Answer),
}

/// One request, and whom it came from.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) peer: SocketAddr,
    /// The target as it came, before any decoding.
    pub(crate) target: Vec<u8>,
    /// Watched while the answer is worked on: nobody needs it when the connection has broken.
    pub(crate) socket: Arc<TcpStream>,
    /// The place of the stream that the connection becomes, if it asked for that and got it.
    pub(crate) stream: Mutex<Option<Permit>>,
}

/// Answers a request, whatever it is.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    asked: &Asked,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if wants_stream(asked, &request)
        && let Some(place) = shared.pending_handshakes.admit(asked.peer.ip())
    {
        *asked.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        return switching();
    }
    match grant(shared, asked, request).await {
        Ok(Granted::V2(answer)) => json(StatusCode::OK, answer.encode()),
        Ok(Granted::V1(answer, size)) => {
            let mut response = json(StatusCode::OK, answer.encode());
            response.headers_mut().insert(SIZE_HEADER, HeaderValue::from(size));
            response
        }
        Err(refusal) => {
            let body = v1::encode_refusal(&refusal.reason);
            let response = json(refusal.status, body);
            shared.refused(asked.peer, &refusal, Some(&asked.target));
            response
        }
    }
}

/// Whether the connection is to become a stream of protocol 2.
fn wants_stream<B>(asked: &Asked, request: &Request<B>) -> bool {
    let names = |header, token: &str| {
        let values = request.headers().get_all(header).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && asked.target == b"/"
        && names(CONNECTION, "upgrade")
        && names(UPGRADE, v2::UPGRADE)
}

fn switching() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(v2::UPGRADE));
    response
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn grant(shared: &Arc<Shared>, asked: &Asked, request: Request<Incoming>) -> Result<Granted, Refusal> {
    if wants_stream(asked, &request) {
        return Err(Refusal::busy("too many connections"));
    }
    if request.method() != Method::POST {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "only POST is served"));
    }
    let marking = Marking::of(request.headers().get(TARGET_HEADER).map(HeaderValue::as_bytes));
    let names: Vec<Vec<u8>> =
        Target::names(&asked.target, marking).into_iter().map(std::borrow::Cow::into_owned).collect();
    let wanted = read_request(request, shared.options.request_timeout).await?;
    let place = shared.transfers.admit(asked.peer.ip()).ok_or_else(|| Refusal::busy("too many transfers"))?;

    let work = async {
        match wanted {
            TransferRequest::V1(wanted) => grant_v1(shared, asked, wanted, names, place).await,
            TransferRequest::V2(wanted) => {
                let found = open(shared, names.into()).await?;
                crate::send::grant(shared, asked.peer, wanted, found, place).map(Granted::V2)
            }
        }
    };
    tokio::select! {
        biased;
        () = shared.draining.cancelled() => Err(Refusal::busy("the server is shutting down")),
        granted = work => granted,
        // A half-closed connection still wants its answer; one that was reset does not.
        _ = asked.socket.ready(Interest::ERROR) => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "the client disconnected"))
        }
    }
}

async fn grant_v1(
    shared: &Arc<Shared>,
    asked: &Asked,
    wanted: v1::Request,
    names: Vec<Vec<u8>>,
    place: Permit,
) -> Result<Granted, Refusal> {
    let (source, path, md5) = find(shared, names, client_key(asked.peer.ip())).await?;
    let listener = shared.transfer_listener().map_err(|error| Refusal::of_listening(&error))?;
    let port = listener.local_addr().map_err(|error| Refusal::of_listening(&error))?.port();
    let split = StaticSplit::new(source.size(), wanted.streams);
    let transfer = Arc::new(Transfer::new(shared, shared.next_transfer(), asked.peer, source, split));
    shared.emit(transfer.started(asked.peer, path, port));
    shared.tracker.spawn(transfer.run(listener, place));
    Ok(Granted::V1(v1::Answer { md5, port }, split.size()))
}

/// Reads and checks the body.
async fn read_request(request: Request<Incoming>, deadline: Duration) -> Result<TransferRequest, Refusal> {
    let too_large =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is over {} bytes", v1::MAX_BODY));
    let headers = request.headers();
    if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the request has no content-length"));
    }
    let body = request.into_body();
    if body.size_hint().lower() > u64::try_from(v1::MAX_BODY).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let body = tokio::time::timeout(deadline, Limited::new(body, v1::MAX_BODY).collect())
        .await
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                too_large()
            } else {
                Refusal::new(StatusCode::BAD_REQUEST, "the body is incomplete or broken")
            }
        })?;
    Ok(TransferRequest::decode(&body.to_bytes())?)
}

/// Opens the file that `names` mean.
async fn open(shared: &Shared, names: Arc<[Vec<u8>]>) -> Result<(SourceFile, PathBuf), Refusal> {
    let root = Arc::clone(&shared.root);
    // A cold disk may take its time over every part of a path.
    let opening = tokio::task::spawn_blocking(move || root.open(&names));
    Ok(opening.await.map_err(|_| Refusal::busy("the server is shutting down"))??)
}

/// Opens the file that `names` mean, and computes or remembers its digest.
async fn find(
    shared: &Arc<Shared>,
    names: Vec<Vec<u8>>,
    client_key: IpAddr,
) -> Result<(Arc<dyn Object>, PathBuf, Md5Digest), Refusal> {
    let names: Arc<[Vec<u8>]> = names.into();
    let mut changed = Refusal::from(DigestError::Changed);
    for _ in 0..ATTEMPTS {
        let (source, path) = open(shared, Arc::clone(&names)).await?;
        let source: Arc<dyn Object> = Arc::new(source);
        match shared.digests.md5(&source, client_key).await {
            Ok(md5) => return Ok((source, path, md5)),
            Err(DigestError::Changed) => {}
            Err(error) => {
                changed = error.into();
                break;
            }
        }
    }
    Err(changed)
}
