//! HTTP: one request on each connection, which may become a stream afterwards.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::admission::Permit;
use super::handshake::{self, emit_opened};
use super::head::Head;
use super::refusal::Refusal;
use super::request::{Next, RequestContext};
use super::rewind::Rewind;
use super::{ServerContext, router};
use crate::send::{Opening, serve_stream};
use crate::transport::{Connection, LINGER_TIMEOUT, drain_until_closed, shut_down_sending};

/// The most header lines of a request, and their bytes: several times what browsers send.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Serves a connection, of which `early` was read before, to its end; the request line must arrive before `deadline`.
pub(crate) async fn serve(
    context: Arc<ServerContext>,
    socket: Arc<TcpStream>,
    early: BytesMut,
    peer: SocketAddr,
    pending: Permit,
    deadline: Instant,
) {
    let upgraded = tokio::select! {
        biased;
        () = context.tasks().aborted.cancelled() => return,
        upgraded = converse(&context, &socket, early, peer, pending, deadline) => upgraded,
    };
    // In boxes, so that requests that become no stream take no room for all that follows.
    match upgraded {
        Some(Upgraded { early, next: Next::Hello(permit), .. }) => {
            let deadline = Instant::now() + context.options.request_timeout;
            Box::pin(handshake::run(context, socket, early, peer, permit, deadline)).await;
        }
        Some(Upgraded { early, answer, next: Next::Stream(guard, push) }) => {
            emit_opened(&context, &guard, peer);
            let opening = Opening::Offer(answer, push);
            Box::pin(serve_stream(guard, Connection::tcp(socket), early, opening)).await;
        }
        Some(Upgraded { early, next: Next::Upload(upload, places), .. }) => {
            handshake::arrive(&context, &upload, 0, Connection::tcp(socket), early, peer, places).await;
        }
        None => {}
    }
}

/// A connection that is to become a stream.
struct Upgraded {
    /// What was read of the stream already.
    early: Bytes,
    /// The part of the answer that was not written.
    answer: Vec<u8>,
    next: Next,
}

/// Answers a request, and ends the connection unless it becomes a stream.
async fn converse(
    context: &Arc<ServerContext>,
    socket: &Arc<TcpStream>,
    early: BytesMut,
    peer: SocketAddr,
    pending: Permit,
    deadline: Instant,
) -> Option<Upgraded> {
    // Held until the connection is closed or has become a stream.
    let place = context.limits.connections.admit(peer.ip());
    let refusal = if place.is_none() {
        Some(Refusal::busy("too many connections"))
    } else {
        drop(pending);
        let head = tokio::select! {
            biased;
            () = context.tasks().draining.cancelled() => return None,
            head = timeout_at(deadline, Head::read(socket, early)) => head,
        };
        match head {
            Ok(Ok(head)) => match serve_http(context, socket, peer, head).await {
                upgraded @ Some(_) => return upgraded,
                None => None,
            },
            Ok(Err(error)) => Refusal::of_head(&error),
            Err(_) => Some(Refusal::new(StatusCode::REQUEST_TIMEOUT, "no request was received in time")),
        }
    };
    if let Some(refusal) = refusal {
        context.emit_refused(peer, &refusal, None);
        // Nothing was written before, so there is room for it.
        let _ = socket.try_write(&refusal.to_bytes());
    }
    let _ = shut_down_sending(socket);
    tokio::select! {
        biased;
        () = context.tasks().draining.cancelled() => {}
        _ = drain_until_closed(socket, LINGER_TIMEOUT) => {}
    }
    None
}

async fn serve_http(
    context: &Arc<ServerContext>,
    socket: &Arc<TcpStream>,
    peer: SocketAddr,
    head: Head,
) -> Option<Upgraded> {
    let request_context = RequestContext::new(peer, head.target, Arc::clone(socket));
    let io = Rewind::new(head.plain, Arc::clone(socket), request_context.hold_answer());
    let service = service_fn(|request| {
        let answer = router::answer(context, &request_context, request);
        Box::pin(async move { Ok::<_, Infallible>(answer.await) })
    });
    // An error concerns the client only: it got the answer to its mistake, or is gone.
    let parts = http1::Builder::new()
        // One request on a connection, as only its first line was rewritten: every answer says that it is the last.
        // With `false` here, the answer that makes the connection a stream would say so too.
        .keep_alive(true)
        // A client may close its sending half after its request, and still wants the answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(context.options.request_timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(2 * MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(io), service)
        .without_shutdown()
        .await
        .ok()?;
    let next = request_context.take_next()?;
    let (unread, answer) = parts.io.into_inner().into_rest();
    Some(Upgraded { early: [parts.read_buf, unread].concat().into(), answer, next })
}
