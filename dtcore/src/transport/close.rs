//! How a connection ends, so that the peer can distinguish a complete conversation from a broken one.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::read_when_ready;

/// How long a peer that has nothing more to receive may take to close.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How many surplus bytes of a peer are discarded before its connection is closed.
const LINGER_BYTES: usize = 1 << 20;

/// Sends a FIN after the data.
pub(crate) fn shut_down_sending(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).shutdown(Shutdown::Write)
}

/// Reads and discards until the peer closes, for at most `timeout` and 1 MiB.
///
/// A socket that is closed with unread bytes in it sends a RST, which can destroy data that is still on its way
/// to the peer; surplus bytes of the peer must not do that to a complete stream or to an answer.
///
/// # Errors
/// The connection broke: the peer may not have received everything.
pub(crate) async fn drain_until_closed(socket: &TcpStream, timeout: Duration) -> io::Result<()> {
    tokio::time::timeout(timeout, discard(socket, LINGER_BYTES)).await.unwrap_or(Ok(()))
}

async fn discard(socket: &TcpStream, mut budget: usize) -> io::Result<()> {
    let mut scratch = [0; 4096];
    while budget > 0 {
        match read_when_ready(socket, || socket.try_read(&mut scratch)).await? {
            0 => break,
            n => budget = budget.saturating_sub(n),
        }
    }
    Ok(())
}
