//! Writes what is not file content: frames, trailers, and zeros in the place of bytes that are missing.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::event::StreamFailure;
use crate::num::{to_u64, to_usize};
use crate::transport::Connection;

/// What is written in the place of missing file content, so much at once.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// Whether more bytes follow at once, with which these can share a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Follows {
    Nothing,
    More,
}

/// Writes all of `bytes`.
///
/// # Errors
/// [`StreamFailure`] if the connection accepts nothing for `stall_timeout`, or is gone.
pub(crate) async fn write_all(
    connection: &Connection,
    mut bytes: &[u8],
    follows: Follows,
    stall_timeout: Duration,
) -> Result<(), StreamFailure> {
    while !bytes.is_empty() {
        let written = match follows {
            Follows::Nothing => connection.try_write(bytes),
            Follows::More => connection.try_write_more(bytes),
        };
        match written {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let writable = timeout(stall_timeout, connection.writable()).await;
                writable.map_err(|_| StreamFailure::Stalled)?.map_err(|_| StreamFailure::Disconnected)?;
            }
            Err(_) => return Err(StreamFailure::Disconnected),
        }
    }
    Ok(())
}

/// Writes `n` bytes 0.
///
/// # Errors
/// As [`write_all`].
pub(crate) async fn write_zeros(
    connection: &Connection,
    mut n: u64,
    stall_timeout: Duration,
) -> Result<(), StreamFailure> {
    while n > 0 {
        let zeros = ZEROS.get(..to_usize(n)).unwrap_or(&ZEROS);
        write_all(connection, zeros, Follows::More, stall_timeout).await?;
        n -= to_u64(zeros.len());
    }
    Ok(())
}
