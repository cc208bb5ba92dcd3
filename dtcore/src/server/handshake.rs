//! From a hello to a stream of a session.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::ServerContext;
use super::admission::Permit;
use super::event::{ServerEvent, TransferId};
use super::uploads::IncomingUpload;
use crate::proto::v2::{ErrorCode, HELLO_LEN, Hello};
use crate::send::{Opening, Places, Session, StreamGuard, StreamRefusal, refuse, serve_stream};
use crate::transport::Connection;

/// Serves a connection from its hello, of which `early` was read before, to its end.
pub(crate) async fn run(
    context: Arc<ServerContext>,
    socket: Arc<TcpStream>,
    mut early: Bytes,
    peer: SocketAddr,
    permit: Permit,
    deadline: Instant,
) {
    let connection = Connection::tcp(socket);
    let hello = tokio::select! {
        biased;
        () = context.tasks().draining.cancelled() => return,
        hello = timeout_at(deadline, read(&connection, &mut early)) => hello.ok().flatten(),
    };
    let hello = match hello {
        Some(bytes) => Hello::decode(&bytes).ok_or(StreamRefusal::InvalidHello),
        None => Err(StreamRefusal::NoHello),
    };
    let guard = match hello {
        Ok(hello) => match context.uploads.find(&hello) {
            Some(upload) => return join(context, upload, hello, connection, early, peer).await,
            None => claim(&context, &hello, peer),
        },
        Err(reason) => Err(Refused { transfer: None, reason }),
    };
    match guard {
        Ok(guard) => {
            drop(permit);
            emit_opened(&context, &guard, peer);
            // In a box, so that connections that never send a hello take no room for all that follows.
            Box::pin(serve_stream(guard, connection, early, Opening::Hello)).await;
        }
        Err(refused) => {
            refused.emit(&context, peer);
            if let Some(code) = code(refused.reason) {
                refuse(&context.send, &connection, code, &refused.reason.to_string()).await;
            }
        }
    }
}

/// Gives a connection to an upload, if there is a place for it.
async fn join(
    context: Arc<ServerContext>,
    upload: Arc<IncomingUpload>,
    hello: Hello,
    connection: Connection,
    early: Bytes,
    peer: SocketAddr,
) {
    let Some(places) = context.limits.stream_places(peer.ip()) else {
        let (transfer, reason) = (upload.transfer, StreamRefusal::NoCapacity);
        context.emit(ServerEvent::StreamRefused { transfer, peer, reason });
        return refuse(&context.send, &connection, ErrorCode::Busy, &reason.to_string()).await;
    };
    arrive(&context, &upload, hello.stream, connection, early, peer, places).await;
}

/// Gives a connection to the stream of an upload.
pub(crate) async fn arrive(
    context: &ServerContext,
    upload: &IncomingUpload,
    stream: u8,
    connection: Connection,
    early: Bytes,
    peer: SocketAddr,
    places: Places,
) {
    let transfer = upload.transfer;
    let Some(stream) = upload.streams.stream(stream) else {
        let reason = StreamRefusal::OutOfRange(stream);
        context.emit(ServerEvent::StreamRefused { transfer, peer, reason });
        return refuse(&context.send, &connection, ErrorCode::NoSuchStream, &reason.to_string()).await;
    };
    connection.expect_bulk_data();
    context.emit(ServerEvent::StreamOpened { transfer, stream, peer });
    upload.streams.arrive(stream, upload.opened(connection, places), early.to_vec()).await;
}

/// Reports that a connection became a stream.
pub(crate) fn emit_opened(context: &ServerContext, guard: &StreamGuard, peer: SocketAddr) {
    let (transfer, stream) = (transfer_of(&guard.session), guard.claim.stream);
    context.emit(ServerEvent::StreamOpened { transfer, stream, peer });
}

/// Reads exactly a hello; `None` if the connection ends before.
async fn read(connection: &Connection, early: &mut Bytes) -> Option<[u8; HELLO_LEN]> {
    let mut hello = [0; HELLO_LEN];
    let mut n = early.len().min(HELLO_LEN);
    early.copy_to_slice(hello.get_mut(..n)?);
    while n < HELLO_LEN {
        match connection.read(hello.get_mut(n..)?).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => n += read,
        }
    }
    Some(hello)
}

/// The stream that a hello names, if the connection may carry it.
fn claim(context: &ServerContext, hello: &Hello, peer: SocketAddr) -> Result<StreamGuard, Refused> {
    let unknown = Refused { transfer: None, reason: StreamRefusal::NoSession };
    let session = context.sessions.find(hello).ok_or(unknown)?;
    let places = || context.limits.stream_places(peer.ip());
    let of_session = |reason| Refused { transfer: Some(transfer_of(&session)), reason };
    session.claim(hello.stream, hello.replacing, places).map_err(of_session)
}

/// The transfer of a session: its number in the session's share.
fn transfer_of(session: &Session) -> TransferId {
    TransferId(session.spec.share.session)
}

/// The refusal on the wire; `None` for a connection that is closed without one.
fn code(reason: StreamRefusal) -> Option<ErrorCode> {
    match reason {
        StreamRefusal::NoHello
        | StreamRefusal::NoId
        | StreamRefusal::ForeignAddress
        | StreamRefusal::Silent
        | StreamRefusal::Tls => None,
        StreamRefusal::InvalidHello => Some(ErrorCode::ProtocolViolation),
        StreamRefusal::NoSession => Some(ErrorCode::NoSuchSession),
        StreamRefusal::OutOfRange(_) | StreamRefusal::Busy(_) | StreamRefusal::Complete(_) => {
            Some(ErrorCode::NoSuchStream)
        }
        StreamRefusal::NoCapacity => Some(ErrorCode::Busy),
    }
}

/// Why a connection is no stream, and of which transfer if that is known.
#[derive(Debug)]
struct Refused {
    transfer: Option<TransferId>,
    reason: StreamRefusal,
}

impl Refused {
    fn emit(&self, context: &ServerContext, peer: SocketAddr) {
        let reason = self.reason;
        context.emit(match self.transfer {
            Some(transfer) => ServerEvent::StreamRefused { transfer, peer, reason },
            None => ServerEvent::ConnectionRefused { peer, reason },
        });
    }
}
