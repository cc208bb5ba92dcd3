//! The port: accepts connections, and distinguishes streams, HTTP and TLS by the first two bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::ServerContext;
use super::admission::Permit;
use super::event::ServerEvent;
use super::{handshake, http};
use crate::proto::v2::{ErrorCode, MAGIC, Response};
use crate::send::StreamRefusal;
use crate::transport::{accept, read_when_ready, shut_down_sending};

/// How much is read at first: a hello with some requests, or most HTTP requests.
const FIRST_READ: usize = 4096;

/// The first two bytes of TLS: a handshake record of any version from SSL 3.0 on.
const TLS: [u8; 2] = [0x16, 0x03];

/// Accepts connections until the server shuts down; the listener is closed then.
pub(crate) async fn run(context: Arc<ServerContext>, listener: TcpListener) {
    loop {
        let (socket, peer) = tokio::select! {
            biased;
            () = context.tasks().draining.cancelled() => return,
            accepted = accept(&listener, |error| context.emit_accept_failed(&error)) => accepted,
        };
        match context.limits.pending_handshakes.admit(peer.ip()) {
            Some(permit) => {
                let serving = serve(Arc::clone(&context), Arc::new(socket), peer, permit);
                context.tasks().tracker.spawn(serving);
            }
            None => reject(&context, &socket, peer),
        }
    }
}

/// Refuses a connection without spending a task or a wait on it.
fn reject(context: &ServerContext, socket: &TcpStream, peer: SocketAddr) {
    let reason = StreamRefusal::NoCapacity;
    // A new connection has room for these few bytes; if not, its end says enough.
    let _ = socket.try_write(&Response::refusal(ErrorCode::Busy, &reason.to_string()));
    let _ = shut_down_sending(socket);
    context.emit(ServerEvent::ConnectionRefused { peer, reason });
}

async fn serve(context: Arc<ServerContext>, socket: Arc<TcpStream>, peer: SocketAddr, permit: Permit) {
    let deadline = Instant::now() + context.options.request_timeout;
    let first = tokio::select! {
        biased;
        () = context.tasks().draining.cancelled() => return,
        first = timeout_at(deadline, read_first(&socket)) => first,
    };
    let refuse = |reason| context.emit(ServerEvent::ConnectionRefused { peer, reason });
    let early = match first {
        Ok(Some(early)) => early,
        // A health check, or a client that needs no more streams.
        Ok(None) => return,
        Err(_) => return refuse(StreamRefusal::Silent),
    };
    match early.first_chunk::<2>() {
        Some([_, MAGIC]) => handshake::run(context, socket, early.freeze(), peer, permit, deadline).await,
        Some(&TLS) => refuse(StreamRefusal::Tls),
        // In a box, so that streams take no room for it.
        Some(_) | None => Box::pin(http::serve(context, socket, early, peer, permit, deadline)).await,
    }
}

/// Reads until there are two bytes at least; `None` if the connection ends before.
async fn read_first(socket: &TcpStream) -> Option<BytesMut> {
    let mut first = BytesMut::new();
    while first.len() < 2 {
        let read = read_when_ready(socket, || {
            first.reserve(FIRST_READ);
            socket.try_read_buf(&mut first)
        });
        if read.await.ok()? == 0 {
            return None;
        }
    }
    Some(first)
}
