//! How a connection ends, so that the peer can tell a complete conversation from a broken one.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// What was seen of the peer after everything had been sent to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerClose {
    /// It closed its side in order.
    Closed,
    /// The connection broke: the peer may not have received everything.
    Broken,
    /// It was still there when patience ended, or went on responder.
    Open,
}

/// Sends a FIN behind the data.
pub(crate) fn shut_down_sending(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).shutdown(Shutdown::Write)
}

/// Reads and discards until the peer closes, for at most `patience` and `budget` bytes.
///
/// A socket that is closed with unread bytes in it sends a RST, which can destroy data that is still on its way
/// to the peer; surplus bytes of the peer must not do that to a complete stream or to an answer.
pub(crate) async fn drain_until_closed(socket: &TcpStream, patience: Duration, budget: usize) -> PeerClose {
    tokio::time::timeout(patience, discard(socket, budget)).await.unwrap_or(PeerClose::Open)
}

async fn discard(socket: &TcpStream, mut budget: usize) -> PeerClose {
    let mut scratch = [0; 4096];
    while budget > 0 {
        if socket.readable().await.is_err() {
            return PeerClose::Broken;
        }
        match socket.try_read(&mut scratch) {
            Ok(0) => return PeerClose::Closed,
            Ok(n) => budget = budget.saturating_sub(n),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return PeerClose::Broken,
        }
    }
    PeerClose::Open
}
