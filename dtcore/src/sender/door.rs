//! The port that requests come to: one HTTP request on each connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Shared;
use super::limits::Admission;
use super::refusal::Refusal;
use super::service::{self, Asked};
use crate::net::{Head, Rewound, accept, drain_until_closed, shut_down_sending};

/// The most header lines of a request, and their bytes: several times what browsers send.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;

/// How long, and for how many bytes, a client that is still sending is listened to after its answer.
const FAREWELL: Duration = Duration::from_secs(2);
const SURPLUS: usize = 1 << 20;

/// Accepts and serves requests until the server shuts down; the listener is closed then.
pub(super) async fn keep(shared: Arc<Shared>, listener: TcpListener) {
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
            None => turn_away(&shared, &socket, peer),
        }
    }
}

/// Refuses a connection without spending a task or a wait on it.
fn turn_away(shared: &Shared, socket: &TcpStream, peer: SocketAddr) {
    let refusal = Refusal::busy("too many connections");
    // A fresh connection takes these few bytes at once; if not, closing it says enough.
    let _ = socket.try_write(&refusal.to_bytes());
    let _ = shut_down_sending(socket);
    shared.refused(peer, &refusal, None);
}

async fn serve(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr, _place: Admission) {
    let socket = Arc::new(socket);
    tokio::select! {
        biased;
        () = shared.aborted.cancelled() => {}
        () = converse(&shared, &socket, peer) => {}
    }
}

async fn converse(shared: &Arc<Shared>, socket: &Arc<TcpStream>, peer: SocketAddr) {
    let head = tokio::select! {
        biased;
        () = shared.draining.cancelled() => return,
        head = timeout(shared.options.request_timeout, Head::read(socket)) => head,
    };
    let refusal = match head {
        Ok(Ok(head)) => {
            serve_http(shared, socket, peer, head).await;
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
        _ = drain_until_closed(socket, FAREWELL, SURPLUS) => {}
    }
}

async fn serve_http(shared: &Arc<Shared>, socket: &Arc<TcpStream>, peer: SocketAddr, head: Head) {
    let io = TokioIo::new(Rewound::new(head.plain, Arc::clone(socket)));
    let asked = Asked { peer, target: head.target, socket: Arc::clone(socket) };
    let asked = &asked;
    let service = service_fn(move |request| async move {
        Ok::<_, Infallible>(service::answer(shared, asked, request).await)
    });
    // The result is the client's affair: whatever went wrong, it was told, or is gone.
    let _ = http1::Builder::new()
        // One request on a connection: only its first line was rewritten.
        .keep_alive(false)
        // A client may close its sending half behind its request, and still wants the answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(shared.options.request_timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(2 * MAX_HEADER_BYTES)
        .serve_connection(io, service)
        .await;
}
