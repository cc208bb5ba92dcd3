//! Reads one stream with as few system calls as possible.
//!
//! The last bytes of a run, its trailer and the header after it arrive in one call: the data goes to its place, and what
//! follows it, whose length is known, into a small buffer.

use std::io::{self, IoSliceMut};

use super::source::ReadInterrupt;
use super::wake::{Wake, Woken};
use crate::num::{to_u64, to_usize};
use crate::sink::{BlockLease, FillError};
use crate::transport::Connection;

/// How much data that nobody needs is read at once.
const DISCARD: usize = 64 << 10;

/// One stream's connection, as the receiver reads it.
#[derive(Debug)]
pub(crate) struct FrameReader {
    connection: Connection,
    /// What was read and not taken yet, at the beginning of the buffer.
    ahead: Vec<u8>,
    n_ahead: usize,
    /// For data that nobody needs; empty before the first.
    scratch: Vec<u8>,
}

impl FrameReader {
    /// Reads from a connection on which `early` was read before.
    pub(crate) fn new(connection: Connection, early: Vec<u8>) -> Self {
        Self { connection, n_ahead: early.len(), ahead: early, scratch: Vec::new() }
    }

    /// Waits until at least `n` bytes are buffered; nothing beyond them is read.
    ///
    /// # Cancel safety
    /// What was read stays buffered.
    pub(super) async fn ensure(&mut self, n: usize, wake: &Wake) -> Result<(), ReadInterrupt> {
        self.reserve(n);
        while self.n_ahead < n {
            let space = self.ahead.get_mut(self.n_ahead..n).unwrap_or_default();
            match self.connection.try_read(space) {
                Ok(0) => return Err(ReadInterrupt::Ended),
                Ok(read) => self.n_ahead += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable(wake).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What is buffered.
    pub(super) fn buffered(&self) -> &[u8] {
        self.ahead.get(..self.n_ahead).unwrap_or_default()
    }

    /// Takes `n` buffered bytes, which [`ensure`](Self::ensure) has waited for.
    pub(super) fn take(&mut self, n: usize) -> Vec<u8> {
        let n = n.min(self.n_ahead);
        let taken = self.ahead.get(..n).unwrap_or_default().to_vec();
        self.ahead.copy_within(n..self.n_ahead, 0);
        self.n_ahead -= n;
        taken
    }

    /// Takes the first `N` buffered bytes, which [`ensure`](Self::ensure) has waited for.
    pub(super) fn take_array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.buffered().first_chunk().copied().unwrap_or([0; N]);
        self.ahead.copy_within(N.min(self.n_ahead)..self.n_ahead, 0);
        self.n_ahead = self.n_ahead.saturating_sub(N);
        taken
    }

    /// Receives at most `limit` bytes of a block into its place, and perhaps as many as `follows` bytes after it; returns how
    /// many of the block.
    ///
    /// # Cancel safety
    /// Cancel safe: bytes are either in their place or buffered, or not read.
    pub(super) async fn receive(
        &mut self,
        lease: &mut BlockLease,
        limit: usize,
        follows: usize,
        wake: &Wake,
    ) -> Result<usize, ReadInterrupt> {
        if self.n_ahead > 0 {
            return self.receive_buffered(lease, limit);
        }
        self.reserve(follows);
        loop {
            let (connection, ahead, n_ahead) = (&self.connection, &mut self.ahead, &mut self.n_ahead);
            let remaining = to_usize(lease.remaining());
            let mut source = |space: &mut [u8]| {
                let len = space.len();
                // A place may offer itself in pieces, and more of the block follows such a piece.
                if follows == 0 || len < remaining || limit < len {
                    return connection.try_read(space.get_mut(..limit.min(len)).unwrap_or_default());
                }
                let tail = ahead.get_mut(..follows).unwrap_or_default();
                let n = connection.try_read_vectored(&mut [IoSliceMut::new(space), IoSliceMut::new(tail)])?;
                *n_ahead = n.saturating_sub(len);
                Ok(n.min(len))
            };
            match lease.fill(&mut source) {
                Ok(0) => return Err(ReadInterrupt::Ended),
                Ok(n) => return Ok(n),
                Err(FillError::Source(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable(wake).await?;
                }
                Err(FillError::Source(error)) => return Err(ReadInterrupt::Broken(error)),
                Err(FillError::Store(error)) => return Err(ReadInterrupt::Store(error)),
            }
        }
    }

    /// Data that was read together with what precedes it.
    fn receive_buffered(&mut self, lease: &mut BlockLease, limit: usize) -> Result<usize, ReadInterrupt> {
        let buffered = self.ahead.get(..self.n_ahead.min(limit)).unwrap_or_default();
        let mut source = |space: &mut [u8]| {
            let n = space.len().min(buffered.len());
            space.iter_mut().zip(buffered).for_each(|(to, from)| *to = *from);
            Ok(n)
        };
        let n = lease.fill(&mut source).map_err(|error| match error {
            FillError::Source(error) | FillError::Store(error) => ReadInterrupt::Store(error),
        })?;
        self.ahead.copy_within(n..self.n_ahead, 0);
        self.n_ahead -= n;
        Ok(n)
    }

    /// Receives at most `limit` bytes, and at most `remaining`, and discards them; returns how many.
    ///
    /// # Cancel safety
    /// Nothing is kept anyway, but the number of bytes read is lost.
    pub(super) async fn discard(
        &mut self,
        remaining: u64,
        limit: usize,
        wake: &Wake,
    ) -> Result<usize, ReadInterrupt> {
        let most = to_usize(remaining.min(to_u64(DISCARD))).min(limit);
        if self.n_ahead > 0 {
            return Ok(self.take(most).len());
        }
        if self.scratch.is_empty() {
            self.scratch = vec![0; DISCARD];
        }
        loop {
            match self.connection.try_read(self.scratch.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Err(ReadInterrupt::Ended),
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable(wake).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Cancel safety
    /// Not cancel safe. A signal does not interrupt it, unless the connection must be replaced.
    pub(super) async fn send(&self, bytes: &[u8], wake: &Wake) -> Result<(), ReadInterrupt> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.connection.try_write(rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        biased;
                        fault = wake.replaced() => return Err(ReadInterrupt::Woken(Woken::Replace(fault))),
                        ready = self.connection.writable() => ready?,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The connection, to end it.
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    async fn readable(&self, wake: &Wake) -> Result<(), ReadInterrupt> {
        tokio::select! {
            biased;
            woken = wake.woken() => Err(ReadInterrupt::Woken(woken)),
            ready = self.connection.readable() => Ok(ready?),
        }
    }

    /// Makes the buffer at least `n` bytes long.
    fn reserve(&mut self, n: usize) {
        if self.ahead.len() < n {
            self.ahead.resize(n, 0);
        }
    }
}
