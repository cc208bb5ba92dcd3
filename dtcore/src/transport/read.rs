//! Reading as soon as there is something to read.

use std::io;

use tokio::net::TcpStream;

/// Calls `read` whenever there is something to read, until it reports anything but [`io::ErrorKind::WouldBlock`].
///
/// # Cancel safety
/// Cancel safe, if `read` loses nothing.
pub(crate) async fn read_when_ready(
    socket: &TcpStream,
    mut read: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match read() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}
