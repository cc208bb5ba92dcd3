//! Writes what is not file content: frames, trailers, and zeros in the place of bytes that are missing.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout};

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

/// How often within the stall timeout a connection is tried that is not reported as writable: the kernel does that only when a
/// third of its buffer is free, which takes a slow receiver longer than it is silent.
const PROBES: u32 = 4;

/// Waits until a connection accepts bytes, but not for longer than the stall timeout.
#[derive(Debug)]
pub(super) struct WriteWait {
    stall_timeout: Duration,
    /// Since when nothing was accepted.
    since: Option<Instant>,
    /// Whether to try although the connection is not reported as writable.
    is_probing: bool,
}

impl WriteWait {
    pub(super) fn new(stall_timeout: Duration) -> Self {
        Self { stall_timeout, since: None, is_probing: false }
    }

    /// Waits until it is worth trying to write.
    ///
    /// # Errors
    /// [`StreamFailure`] if the connection has accepted nothing for the stall timeout, or is gone.
    pub(super) async fn ready(&mut self, connection: &Connection) -> Result<(), StreamFailure> {
        let since = *self.since.get_or_insert_with(Instant::now);
        match timeout(self.stall_timeout / PROBES, connection.writable()).await {
            Ok(writable) => writable.map_err(|_| StreamFailure::Disconnected),
            Err(_) if since.elapsed() >= self.stall_timeout => Err(StreamFailure::Stalled),
            Err(_) => {
                self.is_probing = true;
                Ok(())
            }
        }
    }

    /// Calls `write`, which reports [`io::ErrorKind::WouldBlock`] if the connection accepts nothing.
    ///
    /// # Errors
    /// Those of `write`.
    pub(super) fn attempt(
        &mut self,
        connection: &Connection,
        write: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let is_probing = std::mem::take(&mut self.is_probing);
        let written = if is_probing { write() } else { connection.try_write_with(write) };
        if written.is_ok() {
            self.since = None;
        }
        written
    }
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
    let mut wait = WriteWait::new(stall_timeout);
    while !bytes.is_empty() {
        match wait.attempt(connection, || connection.send(bytes, follows == Follows::More)) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait.ready(connection).await?,
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
