//! A connection's first bytes: which stream it is, and whether it may be that.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream;
use crate::proto::v2::{ErrorCode, HELLO_LEN, Hello, Reply};
use crate::send::session::StreamGuard;
use crate::send::write::{Follows, write_all};
use crate::server::Shared;
use crate::server::admission::Permit;
use crate::server::event::{ServerEvent, StreamRefusal, TransferId};
use crate::transport::TcpConnection;
use crate::transport::{drain_until_closed, shut_down_sending};

/// How long a receiver may take to close that has nothing more to receive.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How many surplus bytes of a receiver are discarded before its connection is closed on it.
pub(crate) const LINGER_BYTES: usize = 64 << 10;

/// Serves a connection from its hello, of which `early` was read before, to its end.
pub(crate) async fn handshake(
    shared: Arc<Shared>,
    socket: Arc<TcpStream>,
    mut early: Bytes,
    peer: SocketAddr,
    place: Permit,
) {
    let socket = TcpConnection::new(socket);
    let hello = tokio::select! {
        biased;
        () = shared.draining.cancelled() => return,
        hello = timeout(shared.options.request_timeout, read(&socket, &mut early)) => hello.ok().flatten(),
    };
    let claim = match hello {
        None => Err(Refused { transfer: None, reason: StreamRefusal::NoHello }),
        Some(bytes) => claim(&shared, &bytes, peer),
    };
    match claim {
        Ok(claim) => {
            drop(place);
            // In a box, so that connections that never handshake take no room for all that follows.
            Box::pin(stream::serve(claim, socket, early, peer)).await;
        }
        Err(refused) => {
            refused.tell(&shared, peer);
            if let Some(code) = code(refused.reason) {
                refuse(&shared, &socket, code, &refused.reason.to_string()).await;
            }
        }
    }
}

/// Refuses a connection without spending a task or a wait on it.
pub(crate) fn reject(shared: &Shared, socket: &TcpStream, peer: SocketAddr) {
    let reason = StreamRefusal::NoCapacity;
    // A fresh connection takes these few bytes at once; if not, closing it says enough.
    let _ = socket.try_write(&Reply::refusal(ErrorCode::Busy, &reason.to_string()));
    let _ = shut_down_sending(socket);
    Refused { transfer: None, reason }.tell(shared, peer);
}

/// Sends a refusal and ends the connection so that it arrives.
pub(crate) async fn refuse(shared: &Shared, socket: &TcpConnection, code: ErrorCode, reason: &str) {
    let telling = async {
        let refusal = Reply::refusal(code, reason);
        // Behind frames that the receiver has not taken yet there may be no room at once.
        let writing = timeout(LINGER_TIMEOUT, write_all(socket, &refusal, Follows::Nothing, LINGER_TIMEOUT));
        if matches!(writing.await, Ok(Ok(()))) && socket.end(shared.options.stall_timeout).is_ok() {
            drain_until_closed(socket, LINGER_TIMEOUT, LINGER_BYTES).await;
        }
    };
    tokio::select! {
        biased;
        () = telling => {}
        () = shared.draining.cancelled() => {}
        () = shared.aborted.cancelled() => {}
    }
}

/// Reads exactly a hello; `None` if the connection ends before.
async fn read(socket: &TcpStream, early: &mut Bytes) -> Option<[u8; HELLO_LEN]> {
    let mut hello = [0; HELLO_LEN];
    let mut n = early.len().min(HELLO_LEN);
    early.copy_to_slice(hello.get_mut(..n)?);
    while n < HELLO_LEN {
        socket.readable().await.ok()?;
        match socket.try_read(hello.get_mut(n..)?) {
            Ok(0) => return None,
            Ok(read) => n += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    Some(hello)
}

/// The stream that a hello names, if it may be had.
fn claim(shared: &Shared, bytes: &[u8; HELLO_LEN], peer: SocketAddr) -> Result<StreamGuard, Refused> {
    let refused = |reason| Refused { transfer: None, reason };
    let hello = Hello::decode(bytes).map_err(|_| refused(StreamRefusal::InvalidHello))?;
    let session = shared.sessions.find(&hello).ok_or(refused(StreamRefusal::NoSession))?;
    let of_session = |reason| Refused { transfer: Some(session.transfer()), reason };
    session.claim(&hello, peer.ip()).map_err(of_session)
}

/// The refusal on the wire; `None` for a connection that is closed without a word.
fn code(reason: StreamRefusal) -> Option<ErrorCode> {
    match reason {
        StreamRefusal::NoHello | StreamRefusal::NoId | StreamRefusal::ForeignAddress => None,
        StreamRefusal::InvalidHello => Some(ErrorCode::BrokenProtocol),
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
    fn tell(&self, shared: &Shared, peer: SocketAddr) {
        let reason = self.reason;
        shared.emit(match self.transfer {
            Some(transfer) => ServerEvent::StreamRefused { transfer, peer, reason },
            None => ServerEvent::ConnectionRefused { peer, reason },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Server, ServerOptions};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_refusal_waits_for_room() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::bind(ServerOptions::new(folder.path())).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = TcpConnection::new(Arc::new(listener.accept().await.unwrap().0));
        let mut expected = Vec::new();
        // Until also what is on its way has arrived.
        while timeout(Duration::from_millis(100), socket.writable()).await.is_ok() {
            while let Ok(n) = socket.try_write(&[7; 16 << 10]) {
                expected.resize(expected.len() + n, 7);
            }
        }
        expected.extend(Reply::refusal(ErrorCode::Busy, "full"));
        let mut received = Vec::new();
        let refusing = refuse(&server.shared, &socket, ErrorCode::Busy, "full");
        let reading = async {
            client.read_to_end(&mut received).await.unwrap();
            drop(client);
        };
        tokio::join!(refusing, reading);
        assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
    }
}
