//! Accepting connections; errors neither end the loop nor make it spin.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// The pause after the first failed accept; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between two failed accepts.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The next connection of `listener`; an IPv4 peer has an IPv4 address, also on an IPv6 socket.
///
/// After an error such as "too many open files", which is reported, it pauses: the connection stays in the backlog, so
/// accepting again at once would spin, and giving up would end the server because of a temporary shortage.
///
/// # Cancel safety
/// No connection is lost: either the caller or the listener holds it.
pub(crate) async fn accept(
    listener: &TcpListener,
    mut report: impl FnMut(io::Error),
) -> (TcpStream, SocketAddr) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                return (socket, SocketAddr::from((peer.ip().to_canonical(), peer.port())));
            }
            // The peer disconnected before it was accepted; the next one may be waiting.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                report(error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}
