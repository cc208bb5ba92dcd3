//! Writes what is not file content: frames, trailers, and zeros in the place of bytes that are not to be had.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::event::StreamFailure;

/// What is written in place of file content that is not there, so much at once.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// Whether more bytes follow at once, with which these shall share a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Follows {
    Nothing,
    More,
}

/// Writes all of `bytes`.
///
/// # Errors
/// [`StreamFailure`] if the connection takes nothing for `stall_timeout`, or is gone.
pub(crate) async fn write_all(
    socket: &TcpStream,
    mut bytes: &[u8],
    follows: Follows,
    stall_timeout: Duration,
) -> Result<(), StreamFailure> {
    let flags = match follows {
        Follows::Nothing => SendFlags::NOSIGNAL,
        Follows::More => SendFlags::NOSIGNAL | SendFlags::MORE,
    };
    while !bytes.is_empty() {
        let call = socket.async_io(Interest::WRITABLE, || {
            rustix::net::send(socket.as_fd(), bytes, flags).map_err(io::Error::from)
        });
        let sent = timeout(stall_timeout, call).await.map_err(|_| StreamFailure::Stalled)?;
        let n = sent.map_err(|_| StreamFailure::Disconnected)?;
        bytes = bytes.get(n..).unwrap_or_default();
    }
    Ok(())
}

/// Writes `n` bytes 0.
///
/// # Errors
/// As [`write_all`].
pub(crate) async fn write_zeros(
    socket: &TcpStream,
    mut n: u64,
    stall_timeout: Duration,
) -> Result<(), StreamFailure> {
    while n > 0 {
        let len = ZEROS.len().min(usize::try_from(n).unwrap_or(usize::MAX));
        write_all(socket, ZEROS.get(..len).unwrap_or_default(), Follows::More, stall_timeout).await?;
        n = n.saturating_sub(u64::try_from(len).unwrap_or(n));
    }
    Ok(())
}
