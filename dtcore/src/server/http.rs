//! The port that requests come to: one HTTP request on each connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Shared;
use crate::server::admission::Permit;
use crate::server::head::Head;
use crate::server::refusal::Refusal;
use crate::server::rewind::Rewind;
use crate::server::router::{self, Asked};
use crate::transport::{accept, drain_until_closed, shut_down_sending};

/// The most header lines of a request, and their bytes: several times what browsers send.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;

/// How long, and for how many bytes, a client that is still responder is listened to after its answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Accepts and serves requests until the server shuts down; the listener is closed then.
pub(crate) async fn keep(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let (socket, peer) = tokio::select! {
            biased;
            () = shared.draining.cancelled() => return,
            accepted = accept(&listener, |error| shared.accept_failed(&error)) => accepted,
        };
        match shared.connections.admit(peer.ip()) {
            Some(place) => {
                shared.tracker.spawn(serve(Arc::clone(&shared), socket, peer, place));
            }
            None => reject(&shared, &socket, peer),
        }
    }
}

/// Refuses a connection without spending a task or a wait on it.
fn reject(shared: &Shared, socket: &TcpStream, peer: SocketAddr) {
    let refusal = Refusal::busy("too many connections");
    // A fresh connection takes these few bytes at once; if not, closing it says enough.
    let _ = socket.try_write(&refusal.to_bytes());
    let _ = shut_down_sending(socket);
    shared.refused(peer, &refusal, None);
}

async fn serve(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr, place: Permit) {
    let socket = Arc::new(socket);
    let stream = tokio::select! {
        biased;
        () = shared.aborted.cancelled() => return,
        stream = converse(&shared, &socket, peer) => stream,
    };
    if let Some(Upgraded { early, place: stream }) = stream {
        // It counts among the streams from now on.
        drop(place);
        let tracker = shared.tracker.clone();
        tracker.spawn(crate::send::handshake(shared, socket, early, peer, stream));
    }
}

/// A connection that is to go on as a stream.
struct Upgraded {
    /// What was read of the stream already.
    early: Bytes,
    place: Permit,
}

/// Answers a request, and ends the connection or hands it on.
async fn converse(shared: &Arc<Shared>, socket: &Arc<TcpStream>, peer: SocketAddr) -> Option<Upgraded> {
    let head = tokio::select! {
        biased;
        () = shared.draining.cancelled() => return None,
        head = timeout(shared.options.request_timeout, Head::read(socket)) => head,
    };
    let refusal = match head {
        Ok(Ok(head)) => {
            let upgraded = serve_http(shared, socket, peer, head).await;
            if upgraded.is_some() {
                return upgraded;
            }
            None
        }
        Ok(Err(error)) => Refusal::of_head(&error),
        Err(_) => Some(Refusal::new(StatusCode::REQUEST_TIMEOUT, "no request came in time")),
    };
    if let Some(refusal) = refusal {
        shared.refused(peer, &refusal, None);
        // Nothing was written before, so there is room for it.
        let _ = socket.try_write(&refusal.to_bytes());
    }
    let _ = shut_down_sending(socket);
    tokio::select! {
        biased;
        () = shared.draining.cancelled() => {}
        _ = drain_until_closed(socket, LINGER_TIMEOUT, LINGER_BYTES) => {}
    }
    None
}

async fn serve_http(
    shared: &Arc<Shared>,
    socket: &Arc<TcpStream>,
    peer: SocketAddr,
    head: Head,
) -> Option<Upgraded> {
    let io = TokioIo::new(Rewind::new(head.plain, Arc::clone(socket)));
    let asked = Asked { peer, target: head.target, socket: Arc::clone(socket), stream: Mutex::default() };
    let service = service_fn(|request| {
        let answer = router::answer(shared, &asked, request);
        Box::pin(async move { Ok::<_, Infallible>(answer.await) })
    });
    // An error is the client's affair: whatever went wrong, it was told, or is gone.
    let parts = http1::Builder::new()
        // One request on a connection, as only its first line was rewritten: every answer says that it is the last.
        // Said here, a stream's answer would say so too.
        .keep_alive(true)
        // A client may close its responder half behind its request, and still wants the answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(shared.options.request_timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(2 * MAX_HEADER_BYTES)
        .serve_connection(io, service)
        .without_shutdown()
        .await
        .ok()?;
    let place = asked.stream.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let early = [parts.read_buf, parts.io.into_inner().into_first()].concat();
    Some(Upgraded { early: early.into(), place })
}
