//! A request with its connection, and the forms that its answer has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::Full;
use tokio::net::TcpStream;

use super::admission::Permit;
use super::uploads::IncomingUpload;
use crate::proto::{Marking, TARGET_HEADER, Target, v2};
use crate::send::{Places, StreamGuard};
use crate::sync::Lock;

/// A request, and the connection that it arrived on.
#[derive(Debug)]
pub(crate) struct RequestContext {
    pub(crate) peer: SocketAddr,
    /// The target as it was received, before any decoding.
    pub(crate) target: Vec<u8>,
    /// Watched while the answer is prepared: when the connection breaks, the work ends.
    pub(crate) socket: Arc<TcpStream>,
    next: Lock<Option<Next>>,
    hold_answer: Arc<AtomicBool>,
}

/// What a connection becomes after its request.
pub(crate) enum Next {
    /// A stream that begins with a hello.
    Hello(Permit),
    /// This stream, on which the offer is sent, and what may be sent with it.
    Stream(StreamGuard, v2::Push),
    /// The first stream of an upload.
    Upload(Arc<IncomingUpload>, Places),
}

impl RequestContext {
    pub(crate) fn new(peer: SocketAddr, target: Vec<u8>, socket: Arc<TcpStream>) -> Self {
        Self { peer, target, socket, next: Lock::default(), hold_answer: Arc::default() }
    }

    /// The name of the file or directory that is requested, decoded.
    pub(crate) fn name<B>(&self, request: &Request<B>) -> Vec<u8> {
        self.name_as(marking(request))
    }

    /// As [`name`](Self::name), for a request with this marking.
    pub(crate) fn name_as(&self, marking: Marking) -> Vec<u8> {
        // The last one is decoded.
        Target::names(&self.target, marking).pop().unwrap_or_default().into_owned()
    }

    /// Whether the answer is held back, to be sent together with what follows it.
    pub(crate) fn hold_answer(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.hold_answer)
    }

    /// The answer that makes the connection a stream.
    pub(crate) fn switch(&self, next: Next) -> Response<Full<Bytes>> {
        self.hold_answer.store(matches!(next, Next::Stream(..)), Ordering::Relaxed);
        *self.next.lock() = Some(next);
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static(v2::UPGRADE));
        response
    }

    /// What the connection becomes, if it does not end with the answer.
    pub(crate) fn take_next(&self) -> Option<Next> {
        self.next.lock().take()
    }
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hello(_) => "Hello",
            Self::Stream(..) => "Stream",
            Self::Upload(..) => "Upload",
        })
    }
}

/// How the target of a request is to be read.
pub(crate) fn marking<B>(request: &Request<B>) -> Marking {
    Marking::of(request.headers().get(TARGET_HEADER).map(HeaderValue::as_bytes))
}

/// Whether the connection of a request is to become a stream of protocol 2.
pub(crate) fn wants_stream<B>(request: &Request<B>) -> bool {
    let names = |header, token: &str| {
        let values = request.headers().get_all(header).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    request.version() == Version::HTTP_11 && names(CONNECTION, "upgrade") && names(UPGRADE, v2::UPGRADE)
}

/// An answer with a JSON body, after which the connection is closed.
pub(crate) fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
