//! Closing connections so that the peer can distinguish a complete conversation from a broken one.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// What the peer did after everything had been sent to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerClose {
    /// It closed its side.
    Closed,
    /// The connection broke: the peer may not have received everything.
    Broken,
    /// It was still connected at the timeout, or sent more than the budget.
    Open,
}

/// Sends a FIN after the data.
pub(crate) fn shut_down_sending(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).shutdown(Shutdown::Write)
}

/// Reads and discards until the peer closes, for at most `limit` and `budget` bytes.
///
/// A socket that is closed with unread bytes sends a RST, which can destroy data in flight to the peer; surplus bytes from
/// the peer must not do that to a complete stream or to an answer.
pub(crate) async fn drain_until_closed(socket: &TcpStream, limit: Duration, budget: usize) -> PeerClose {
    tokio::time::timeout(limit, discard(socket, budget)).await.unwrap_or(PeerClose::Open)
}

async fn discard(socket: &TcpStream, mut budget: usize) -> PeerClose {
    let mut scratch = [0; 4096];
    while budget > 0 {
        if socket.readable().await.is_err() {
            return PeerClose::Broken;
        }
        match socket.try_read(&mut scratch) {
            Ok(0) => return PeerClose::Closed,
            // The last read may exceed the budget.
            Ok(n) => budget = budget.saturating_sub(n),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return PeerClose::Broken,
        }
    }
    PeerClose::Open
}
